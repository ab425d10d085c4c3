//! From files of this machine to an archive.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::CarryError;

/// Writes an archive of what is at `from`, whose root has this name in it; `.`: what is in a directory.
/// `follow`: where `from` is a link, what it leads to.
///
/// # Errors
/// What cannot be read, or why nobody takes it.
pub(crate) fn pack(from: &Path, name: &str, follow: bool, to: impl Write) -> Result<(), CarryError> {
    let mut builder = Builder::new(to);
    let found = if follow { from.metadata() } else { from.symlink_metadata() };
    let found = found.map_err(|source| unreadable(from, source))?;
    add(&mut builder, from, Path::new(name), &found)?;
    let end = builder.into_inner().and_then(|mut to| to.flush());
    end.map_err(CarryError::Archive)
}

/// Whose files of an archive are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Number of the user.
    pub user: u32,
    /// Number of the group.
    pub group: u32,
}

/// Writes an archive of these files, links and directories, each with its name in it; of a directory itself only. What is
/// gone meanwhile is left out. They are `owner`'s, or whose they are here.
///
/// # Errors
/// As [`pack`].
pub(crate) fn pack_each<'a>(
    list: impl IntoIterator<Item = (&'a Path, &'a Path)>,
    owner: Option<Owner>,
    to: impl Write,
) -> Result<(), CarryError> {
    let mut builder = Builder::new(to);
    for (path, name) in list {
        let packed = match path.symlink_metadata() {
            Ok(found) => put(&mut builder, path, name, &found, owner),
            Err(source) => Err(unreadable(path, source)),
        };
        match packed {
            Err(CarryError::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            packed => packed?,
        }
    }
    let end = builder.into_inner().and_then(|mut to| to.flush());
    end.map_err(CarryError::Archive)
}

fn unreadable(path: &Path, source: io::Error) -> CarryError {
    CarryError::Io { action: "read", path: path.to_owned(), source }
}

fn add(builder: &mut Builder<impl Write>, path: &Path, name: &Path, found: &Metadata) -> Result<(), CarryError> {
    put(builder, path, name, found, None)?;
    if found.is_dir() { add_all(builder, path, name) } else { Ok(()) }
}

/// Adds a file, a link, or a directory without what is in it.
fn put(
    builder: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
    found: &Metadata,
    owner: Option<Owner>,
) -> Result<(), CarryError> {
    let kind = found.file_type();
    let mut header = Header::new_gnu();
    header.set_metadata(found);
    if let Some(Owner { user, group }) = owner {
        header.set_uid(user.into());
        header.set_gid(group.into());
    }
    if kind.is_dir() {
        header.set_size(0);
        return builder.append_data(&mut header, name, io::empty()).map_err(CarryError::Archive);
    }
    if kind.is_symlink() {
        let target = path.read_link().map_err(|source| unreadable(path, source))?;
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        return builder.append_link(&mut header, name, target).map_err(CarryError::Archive);
    }
    if kind.is_socket() {
        // Of no use without who listens; Docker leaves them out too.
        return Ok(());
    }
    if !kind.is_file() {
        return Err(CarryError::Special(path.to_owned()));
    }
    let file = File::open(path).map_err(|source| unreadable(path, source))?;
    header.set_size(found.len());
    let content = Exactly { file: file.take(found.len()) };
    builder.append_data(&mut header, name, content).map_err(|source| unreadable(path, source))
}

fn add_all(builder: &mut Builder<impl Write>, path: &Path, name: &Path) -> Result<(), CarryError> {
    let listed = path.read_dir().and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut listed = listed.map_err(|source| unreadable(path, source))?;
    listed.sort_by_key(std::fs::DirEntry::file_name);
    for entry in listed {
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let found = path.symlink_metadata().map_err(|source| unreadable(&path, source))?;
        add(builder, &path, &name, &found)?;
    }
    Ok(())
}

/// A file that must not be shorter than it was: the archive says how long it is before.
struct Exactly {
    file: io::Take<File>,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if count == 0 && !buffer.is_empty() && self.file.limit() > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        Ok(count)
    }
}
