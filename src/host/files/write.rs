//! One file or directory at a time: make it so, or make it gone. Never follows a symbolic link in the last place.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FilesError, Result};

/// Owner and permission bits of a file; `None`: whoever writes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mode: u32,
}

impl Attributes {
    fn held_by(self, found: &Metadata) -> bool {
        found.mode() & 0o7777 == self.mode
            && self.uid.is_none_or(|uid| uid == found.uid())
            && self.gid.is_none_or(|gid| gid == found.gid())
    }

    fn give(self, file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        if self.uid.is_some_and(|uid| uid != found.uid()) || self.gid.is_some_and(|gid| gid != found.gid()) {
            fchown(file, self.uid, self.gid)?;
        }
        // After the owner: changing that clears some of these bits.
        file.set_permissions(Permissions::from_mode(self.mode))
    }
}

/// Makes `path` a file with this content and these attributes.
///
/// A missing file appears whole: written beside, synced, renamed. A changed one is mended in place, since a container
/// that binds it holds this very file and would not see another one of its name.
pub(super) fn ensure(path: &Path, bytes: &[u8], attributes: Attributes) -> Result<()> {
    let attempt = match path.symlink_metadata() {
        Ok(found) if found.is_file() => mend(path, bytes, attributes, &found),
        // The engine makes an empty directory where a bind's source is missing.
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path).and_then(|()| create(path, bytes, attributes)),
        Ok(_) => std::fs::remove_file(path).and_then(|()| create(path, bytes, attributes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory(path.parent().unwrap_or(path))?;
            create(path, bytes, attributes)
        }
        Err(error) => Err(error),
    };
    attempt.map_err(|source| FilesError::Io { action: "write", path: path.to_owned(), source })
}

fn mend(path: &Path, bytes: &[u8], attributes: Attributes, found: &Metadata) -> io::Result<()> {
    let same = found.len() == bytes.len() as u64 && holds(path, bytes)?;
    if same && attributes.held_by(found) {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    if !same {
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
    }
    attributes.give(&file)?;
    file.sync_all()?;
    tracing::info!(path = %path.display(), content = !same, "mended a file that was changed");
    Ok(())
}

fn holds(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let mut found = Vec::with_capacity(bytes.len());
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    // One byte more than expected tells that there is more.
    file.take(bytes.len() as u64 + 1).read_to_end(&mut found)?;
    Ok(found == bytes)
}

fn create(path: &Path, bytes: &[u8], attributes: Attributes) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let fresh = path.with_file_name(format!(".new-{}-{number}", std::process::id()));
    let made = write_new(&fresh, bytes, attributes).and_then(|()| std::fs::rename(&fresh, path));
    if made.is_err() {
        // The next sweep would find it; a full disk should not wait for that.
        drop(std::fs::remove_file(&fresh));
    }
    made?;
    // The name is on the disk once its directory is.
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8], attributes: Attributes) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    attributes.give(&file)?;
    file.sync_all()
}

/// Makes a directory for root only, and those above it that are missing.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| FilesError::Io { action: "make the directory", path: path.to_owned(), source })
}

/// Removes everything in a directory that is not named in `used`; a directory that is not there is empty.
pub(super) fn keep_only(directory: &Path, used: &BTreeSet<OsString>) -> Result<()> {
    let failed = |source| FilesError::Io { action: "sweep", path: directory.to_owned(), source };
    let files = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files.map_err(failed)?,
    };
    for file in files {
        let file = file.map_err(failed)?;
        if !used.contains(&file.file_name()) {
            remove_tree(&file.path())?;
        }
    }
    Ok(())
}

/// Removes a file or a directory with all that is in it. An empty directory may stay where something is mounted on it:
/// that is how a container sees what it was given.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A container's root may be read-only, which is then the answer for what is mounted on it.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::ReadOnlyFilesystem)
                && is_empty(path) =>
        {
            Ok(())
        }
        other => other.map_err(|source| FilesError::Io { action: "remove", path: path.to_owned(), source }),
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut files| files.next().is_none())
}
