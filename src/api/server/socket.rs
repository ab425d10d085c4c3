//! The agent's socket file: made whole under another name, then moved to its place.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why the agent's socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another agent answers there.
    #[error("another agent already listens on {}", .0.display())]
    InUse(PathBuf),
    /// Something that is not a socket lies there.
    #[error("{} is not a socket; move it away", .0.display())]
    NotASocket(PathBuf),
    /// The file system refused.
    #[error("cannot make the socket {}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Listens at `path` for the owner and the group `gid` (that of the Docker socket: who may use the engine may use us).
///
/// A socket that nobody listens on any more is replaced. Until owner and mode are set nobody can connect, and callers
/// never find a gap between the old socket and the new one.
///
/// # Errors
/// When somebody listens there, when something else lies there, or when the directory cannot be written.
pub fn bind_socket(path: &Path, gid: u32) -> Result<UnixListener, BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(_) | Err(_) => {}
    }
    // Short: the kernel takes at most 107 bytes.
    let fresh = path.with_extension("new");
    remove_if_there(&fresh).and_then(|()| listen(&fresh, path, gid)).map_err(|source| {
        // What is left of a failed attempt would only confuse; the failure itself is the news.
        drop(std::fs::remove_file(&fresh));
        failed(source)
    })
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn listen(fresh: &Path, path: &Path, gid: u32) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(fresh)?)?;
    chown(fresh, None, Some(gid))?;
    std::fs::set_permissions(fresh, std::fs::Permissions::from_mode(0o660))?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    std::fs::rename(fresh, path)?;
    UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("agent.sock");
        let gid = dir.path().metadata().expect("it is there").gid();

        drop(bind_socket(&path, gid).expect("first"));
        assert!(path.exists(), "dropping a listener leaves the file");
        let listener = bind_socket(&path, gid).expect("over the stale one");
        assert!(matches!(bind_socket(&path, gid), Err(BindError::InUse(_))));
        assert_eq!(path.metadata().expect("it is there").mode() & 0o777, 0o660);
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing else is left");
        drop(listener);
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("agent.sock");
        std::fs::write(&path, "mine").expect("written");
        assert!(matches!(bind_socket(&path, 0), Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "mine");
        assert!(matches!(bind_socket(&dir.path().join("no/agent.sock"), 0), Err(BindError::Io { .. })));
    }
}
