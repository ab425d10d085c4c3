//! How much room is left on a disk.

use std::io;
use std::path::Path;

/// Returns the bytes that are left to others than root on the disk that holds `path`, with what tells the disk apart from
/// others.
///
/// # Errors
/// `path` is not there, or may not be looked at.
pub fn room(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_fsid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_room_and_what_is_not_there_has_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let (bytes, disk) = room(folder.path()).expect("it is there");
        assert!(bytes > 0);
        assert_eq!(room(folder.path()).expect("it is there").1, disk);
        assert!(room(&folder.path().join("none")).is_err());
    }
}
