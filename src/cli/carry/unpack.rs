//! From an archive to files of this machine. It comes from a container, so its paths are believed in nothing: nothing
//! is written outside of the destination, nor through a link that the archive brought.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use tar::{Archive, Entry, EntryType};

use super::{CarryError, parts};

/// Permission bits that are taken over.
const MODE: u32 = 0o7777;

/// Unpacks an archive whose root is named `base`; its root becomes `target`. With `.` all that is in it comes below
/// `target`.
///
/// # Errors
/// What cannot be written, and whatever would lie outside.
pub(crate) fn unpack(from: impl Read, base: &str, target: &Path) -> Result<(), CarryError> {
    let mut unpacking = Unpacking { base, target, open: Vec::new() };
    let mut archive = Archive::new(from);
    for entry in archive.entries().map_err(CarryError::Archive)? {
        unpacking.add(&mut entry.map_err(CarryError::Archive)?)?;
    }
    unpacking.close(|_| true)
}

struct Unpacking<'a> {
    base: &'a str,
    target: &'a Path,
    /// The directories down to the present one, which get mode and time once they are full.
    open: Vec<(PathBuf, u32, u64)>,
}

fn unwritable(path: &Path, source: io::Error) -> CarryError {
    CarryError::Io { action: "write", path: path.to_owned(), source }
}

impl Unpacking<'_> {
    fn add(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), CarryError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let name = entry.path().map_err(CarryError::Archive)?.into_owned();
        let below = self.below(&name)?;
        let at = if below.as_os_str().is_empty() { self.target.to_owned() } else { self.target.join(&below) };
        self.close(|open| !at.starts_with(open))?;
        self.guard(&below)?;
        let mode = entry.header().mode().map_err(CarryError::Archive)? & MODE;
        let modified = entry.header().mtime().map_err(CarryError::Archive)?;
        let is_directory = kind == EntryType::Directory;
        self.clear(&at, &below, is_directory)?;
        match kind {
            EntryType::Directory => {
                if !at.is_dir() {
                    DirBuilder::new().mode(0o700).create(&at).map_err(|source| unwritable(&at, source))?;
                }
                self.open.push((at, mode, modified));
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at);
                let mut file = file.map_err(|source| unwritable(&at, source))?;
                io::copy(entry, &mut file).map_err(|source| unwritable(&at, source))?;
                permit(&file, mode).map_err(|source| unwritable(&at, source))?;
            }
            EntryType::Symlink => {
                let link = entry.link_name().map_err(CarryError::Archive)?.unwrap_or_default();
                std::os::unix::fs::symlink(&link, &at).map_err(|source| unwritable(&at, source))?;
            }
            EntryType::Link => {
                let other = entry.link_name().map_err(CarryError::Archive)?.unwrap_or_default();
                let other = self.below(&other)?;
                self.guard(&other)?;
                fs::hard_link(self.target.join(other), &at).map_err(|source| unwritable(&at, source))?;
                return Ok(());
            }
            _ => return Err(CarryError::Special(name)),
        }
        stamp(&at, modified).map_err(|source| unwritable(&at, source))
    }

    /// Returns where a name of the archive lies below its root.
    fn below(&self, name: &Path) -> Result<PathBuf, CarryError> {
        let plain = parts(name)?;
        if self.base == "." {
            return Ok(plain);
        }
        plain.strip_prefix(self.base).map(Path::to_owned).map_err(|_| CarryError::Outside(name.to_owned()))
    }

    /// Nothing is written through a link: everything between the target and a path is a directory.
    fn guard(&self, below: &Path) -> Result<(), CarryError> {
        let above = below.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        for above in above {
            let at = self.target.join(above);
            let found = at.symlink_metadata().map_err(|source| unwritable(&at, source))?;
            if !found.is_dir() {
                return Err(CarryError::Outside(at));
            }
        }
        Ok(())
    }

    /// Makes room: a file goes for what replaces it, a directory stays for a directory.
    fn clear(&self, at: &Path, below: &Path, is_directory: bool) -> Result<(), CarryError> {
        // The destination itself may be a link to a directory: whoever named it means that.
        let is_root = below.as_os_str().is_empty() && is_directory && self.base == ".";
        let found = if is_root { at.metadata() } else { at.symlink_metadata() };
        match found {
            Err(_) => Ok(()),
            Ok(found) if found.is_dir() != is_directory => Err(CarryError::Overwrite(at.to_owned())),
            Ok(_) if is_directory => Ok(()),
            Ok(_) => fs::remove_file(at).map_err(|source| unwritable(at, source)),
        }
    }

    /// Gives the innermost open directories that `is_full` says their modes and times.
    fn close(&mut self, is_full: impl Fn(&Path) -> bool) -> Result<(), CarryError> {
        while let Some((at, mode, modified)) = self.open.pop_if(|(at, _, _)| is_full(at)) {
            let given = fs::set_permissions(&at, Permissions::from_mode(mode)).and_then(|()| stamp(&at, modified));
            given.map_err(|source| unwritable(&at, source))?;
        }
        Ok(())
    }
}

fn permit(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
}

fn stamp(at: &Path, modified: u64) -> io::Result<()> {
    let time = Timespec { tv_sec: i64::try_from(modified).unwrap_or(i64::MAX), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
