//! The process that serves the engine's socket, and its socket on the host: a way to the host's mounts where process 1
//! hides its own, and a way to the engine that a new engine does not cut.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::net::sockopt::socket_peercred;

/// The engine's socket, in the agent's container and on the host alike.
const ENGINE_SOCKET: &str = "/var/run/docker.sock";

/// Returns the directory in `/proc` of the process that listens on the engine's socket.
///
/// Under socket activation that is process 1, which then was tried before.
///
/// # Errors
/// Nobody listens there, or the listener is in a PID namespace that this process does not see.
pub(super) fn engine_process() -> io::Result<PathBuf> {
    process_of(&UnixStream::connect(ENGINE_SOCKET)?)
}

fn process_of(stream: &UnixStream) -> io::Result<PathBuf> {
    let credentials = socket_peercred(stream)?;
    Ok(Path::new("/proc").join(credentials.pid.as_raw_nonzero().to_string()))
}

/// The host's directory that the engine's socket is in, held open.
///
/// A container is given the socket as a file: when an engine that leaves containers running (`live-restore`) is started
/// anew, it makes another file of that name, and the container keeps the old one, at which nobody answers any more. In
/// the directory the new one is found. The directory is not mounted, because the mounts below it (`/run`) would come
/// along and keep other containers' network namespaces alive.
#[derive(Debug)]
pub struct EngineDirectory {
    directory: OwnedFd,
    socket: PathBuf,
}

impl EngineDirectory {
    /// Finds the directory of the socket that is mounted into this container.
    ///
    /// # Errors
    /// Nobody listens, or the host's files cannot be seen from here; then there is only the mounted socket.
    pub fn of_host() -> io::Result<Self> {
        let mounted = Path::new(ENGINE_SOCKET);
        let stream = UnixStream::connect(mounted)?;
        let address = stream.peer_addr()?;
        let bound = address.as_pathname().filter(|path| path.is_absolute());
        let bound = bound.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the engine's socket has no path"))?;
        let of_engine = || Self::below(&process_of(&stream)?.join("root"), bound, mounted);
        Self::below(Path::new("/proc/1/root"), bound, mounted).or_else(|_| of_engine())
    }

    /// Opens the directory of `bound` as seen from `root`, if the socket there is the one at `mounted`.
    fn below(root: &Path, bound: &Path, mounted: &Path) -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the mounted socket is another one than the host's");
        let (Some(folder), Some(name)) = (bound.parent(), bound.file_name()) else { return Err(missing()) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Links on the way (`/var/run`) are the host's and lead to the host's files.
        let directory = openat2(File::open(root)?, folder, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
        let socket = path_in(&directory, name);
        let id = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        if id(&socket)? != id(mounted)? {
            return Err(missing());
        }
        Ok(Self { directory, socket })
    }

    /// Returns a path to the engine's socket, right as long as this value lives.
    pub fn socket(&self) -> &Path {
        debug_assert!(self.socket.starts_with(path_in(&self.directory, OsStr::new(""))), "the path is the directory's");
        &self.socket
    }
}

fn path_in(directory: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Listens at `path` for one client and greets it.
    fn serve(path: &Path, greeting: &'static str) -> std::thread::JoinHandle<()> {
        let listener = UnixListener::bind(path).expect("a socket");
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            client.write_all(greeting.as_bytes()).expect("a greeting");
        })
    }

    fn greeting(socket: &Path) -> String {
        let mut text = String::new();
        let mut stream = UnixStream::connect(socket).expect("somebody answers");
        stream.read_to_string(&mut text).expect("a greeting");
        text
    }

    #[test]
    fn a_socket_that_is_made_anew_is_found_where_the_old_file_leads_nowhere() {
        let root = tempfile::tempdir().expect("a directory");
        let folder = root.path().join("run");
        fs::create_dir_all(root.path().join("var")).expect("made");
        fs::create_dir(&folder).expect("made");
        std::os::unix::fs::symlink("/run", root.path().join("var/run")).expect("linked");
        let (socket, mounted) = (folder.join("docker.sock"), root.path().join("mounted"));
        let first = serve(&socket, "one");
        // A hard link stands for the mount: it keeps the old file.
        fs::hard_link(&socket, &mounted).expect("linked");
        let bound = Path::new("/var/run/docker.sock");
        let found = EngineDirectory::below(root.path(), bound, &mounted).expect("found");
        fs::remove_file(&socket).expect("removed");
        assert_eq!(greeting(&mounted), "one", "the first listener is still there");
        first.join().expect("it ends");
        let second = serve(&socket, "two");
        assert!(UnixStream::connect(&mounted).is_err(), "nobody answers at the old file");
        assert_eq!(greeting(found.socket()), "two");
        second.join().expect("it ends");
        assert!(EngineDirectory::below(root.path(), bound, &mounted).is_err(), "not the mounted one");
    }
}
