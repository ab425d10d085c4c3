//! Where the sockets of connections are: a directory that only the user may enter, with short paths.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Longest path of a unix socket, without the byte that ends it. Source: unix(7).
const LONGEST_SOCKET: usize = 107;
/// ssh makes its control socket under a name this much longer, then renames it. Source: OpenSSH, mux.c.
const TEMPORARY_SUFFIX: usize = 17;
/// Hexadecimal digits of a name; the longest name is two of them and a hyphen.
const DIGITS: usize = 16;

/// Returns the directory for sockets of the user with this id: below `runtime` (`$XDG_RUNTIME_DIR`) if that is the user's
/// own and short, else below `/tmp`.
pub(super) fn choose(runtime: Option<&Path>, uid: u32) -> PathBuf {
    let own = |path: &&Path| fs::metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == uid);
    let below = runtime.filter(own).map(|path| path.join("orch")).filter(|path| fits(path));
    below.unwrap_or_else(|| PathBuf::from(format!("/tmp/orch-{uid}")))
}

/// Returns whether sockets in `directory` have paths that every program takes, and that ssh reads as they are: it
/// expands `%` and `~` and splits at `:`.
fn fits(directory: &Path) -> bool {
    let longest = directory.as_os_str().len() + 1 + DIGITS + 1 + DIGITS;
    longest.max(directory.as_os_str().len() + 1 + DIGITS + TEMPORARY_SUFFIX) <= LONGEST_SOCKET
        && directory.to_str().is_some_and(is_plain)
}

/// Returns whether `path` is absolute and has letters only that mean nothing to ssh or a shell.
pub(super) fn is_plain(path: &str) -> bool {
    path.starts_with('/') && path.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-'))
}

/// Makes sure that the directory is there and nobody else may enter it.
///
/// # Errors
/// Why it cannot be used: another user may have made it first, in `/tmp`.
pub(super) fn ensure(directory: &Path, uid: u32) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.to_string()),
    }
    let found = fs::symlink_metadata(directory).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        Err("it is not a directory".to_owned())
    } else if found.uid() != uid {
        Err(format!("it belongs to the user with id {}", found.uid()))
    } else if found.mode() & 0o077 != 0 {
        Err("others may enter it".to_owned())
    } else {
        Ok(())
    }
}

/// Returns a short name that is the same for the same words.
pub(super) fn name_of(words: &[&str]) -> String {
    let digest = Sha256::digest(words.join("\0"));
    digest.iter().take(DIGITS / 2).fold(String::new(), |mut name, byte| {
        _ = write!(name, "{byte:02x}");
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_short_and_the_users_own() {
        let uid = rustix::process::geteuid().as_raw();
        let own = tempfile::tempdir_in("/tmp").expect("a directory");
        let other = PathBuf::from(format!("/tmp/orch-{uid}"));
        assert_eq!(choose(Some(own.path()), uid), own.path().join("orch"));
        assert_eq!(choose(Some(own.path()), uid + 1), PathBuf::from(format!("/tmp/orch-{}", uid + 1)));
        assert_eq!(choose(None, uid), other);
        assert_eq!(choose(Some(Path::new("/nowhere")), uid), other);
        let long = own.path().join("a".repeat(80));
        fs::create_dir(&long).expect("made");
        assert_eq!(choose(Some(&long), uid), other);
        let odd = own.path().join("a b");
        fs::create_dir(&odd).expect("made");
        assert_eq!(choose(Some(&odd), uid), other);
    }

    #[test]
    fn a_directory_that_others_may_enter_is_not_used() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let uid = rustix::process::geteuid().as_raw();
        let own = tempfile::tempdir().expect("a directory");
        let path = own.path().join("orch");
        assert_eq!(ensure(&path, uid), Ok(()));
        assert_eq!(ensure(&path, uid), Ok(()), "again");
        assert!(ensure(&path, uid + 1).is_err_and(|reason| reason.contains("belongs to")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        assert_eq!(ensure(&path, uid), Err("others may enter it".to_owned()));
        let link = own.path().join("link");
        symlink(own.path(), &link).expect("made");
        assert_eq!(ensure(&link, uid), Err("it is not a directory".to_owned()));
    }
}
