//! Snapshots as tar streams. What is read is believed in nothing: not in its paths, not in its lengths, not in its hash.
//!
//! An archive has the root as `content` and all else below, in the tree's order. So a reader needs no more memory than one
//! path for each level, and every rule is about one entry and the one before: paths grow, and lie in the directory that
//! is open. Nothing can lie outside, be made twice, or be reached through a link.

use std::ffi::OsStr;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use super::SnapshotError;
use super::scan::{open, within};
use super::tree::{Entry, EntryKind, Hasher, MODE, Tree, stays_inside};
use crate::ids::SnapshotHash;

/// Name of the root in an archive, and in the directory that an archive is unpacked into.
pub(super) const ROOT: &str = "content";

/// Longest path or link that is taken in: what Linux takes.
const LONGEST: u64 = 4096;

/// Bytes of the fields for names in a header.
const NAME: usize = 100;

/// Pieces in which contents are copied.
const PIECE: usize = 64 << 10;

/// Writes the archive of a tree whose root is at `root`.
///
/// # Errors
/// What the disk or `to` say; a file that is shorter than it was.
pub fn pack(root: &Path, tree: &Tree, to: impl Write) -> io::Result<()> {
    let mut builder = Builder::new(to);
    for entry in &tree.entries {
        let mut header = Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        header.set_mtime(entry.modified);
        let name = within(Path::new(ROOT), &entry.path);
        put_name(&mut builder, EntryType::GNULongName, name.as_os_str().as_bytes(), |field| {
            header.as_old_mut().name[..field.len()].copy_from_slice(field);
        })?;
        match &entry.kind {
            EntryKind::Directory => {
                header.set_entry_type(EntryType::Directory);
                put(&mut builder, header, 0, io::empty())?;
            }
            EntryKind::File { size, .. } => {
                header.set_entry_type(EntryType::Regular);
                put(&mut builder, header, *size, open(&within(root, &entry.path))?)?;
            }
            EntryKind::Link { target } => {
                header.set_entry_type(EntryType::Symlink);
                put_name(&mut builder, EntryType::GNULongLink, target.as_os_str().as_bytes(), |field| {
                    header.as_old_mut().linkname[..field.len()].copy_from_slice(field);
                })?;
                put(&mut builder, header, 0, io::empty())?;
            }
        }
    }
    builder.into_inner()?.flush()
}

/// Puts a name into its field, as much as fits; before it goes an entry with the whole where that is longer.
pub(super) fn put_name(
    builder: &mut Builder<impl Write>,
    kind: EntryType,
    name: &[u8],
    field: impl FnOnce(&[u8]),
) -> io::Result<()> {
    if name.len() > NAME {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0);
        put(builder, header, name.len() as u64, name)?;
    }
    field(&name[..name.len().min(NAME)]);
    Ok(())
}

/// Puts an entry there; its content must have so many bytes at least.
pub(super) fn put(
    builder: &mut Builder<impl Write>,
    mut header: Header,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    header.set_size(size);
    header.set_cksum();
    let mut content = content.take(size);
    builder.append(&header, &mut content)?;
    if content.limit() > 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter while it was read"));
    }
    Ok(())
}

/// Takes the snapshot `announced` out of an archive and makes it `into/content`, where `into` is an empty directory that
/// nobody else writes to. It is left as it is on errors.
///
/// # Errors
/// Whatever is not as [`pack`] writes it, and another snapshot than was announced.
pub fn unpack(from: impl Read, into: &Path, announced: &SnapshotHash) -> Result<(), SnapshotError> {
    let mut archive = Archive::new(from);
    let mut unpacking = Unpacking { into, hasher: Hasher::default(), open: Vec::new(), last: None };
    let (mut name, mut link) = (None, None);
    for found in archive.entries().map_err(SnapshotError::Cut)?.raw(true) {
        let mut found = found.map_err(SnapshotError::Cut)?;
        match found.header().entry_type() {
            EntryType::GNULongName => name = Some(long(&mut found)?),
            EntryType::GNULongLink => link = Some(long(&mut found)?),
            _ => {
                let header = found.header().clone();
                let field = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
                let name = name.take().unwrap_or_else(|| field(&header.as_old().name));
                let link = link.take().unwrap_or_else(|| field(&header.as_old().linkname));
                unpacking.add(&header, &name, PathBuf::from(OsStr::from_bytes(&link)), &mut found)?;
            }
        }
    }
    let came = unpacking.finish()?;
    if came == *announced { Ok(()) } else { Err(SnapshotError::Changed { announced: announced.clone(), came }) }
}

fn long(found: &mut impl Read) -> Result<Vec<u8>, SnapshotError> {
    let mut name = Vec::new();
    found.take(LONGEST + 1).read_to_end(&mut name).map_err(SnapshotError::Cut)?;
    if name.len() as u64 > LONGEST { Err(refused("a name is too long", &name)) } else { Ok(name) }
}

fn refused(why: &str, name: &[u8]) -> SnapshotError {
    SnapshotError::Refused(format!(
        "{why}: `{}`",
        String::from_utf8_lossy(name).escape_debug().take(200).collect::<String>()
    ))
}

struct Unpacking<'a> {
    into: &'a Path,
    hasher: Hasher,
    /// The directories from the root down to the present one, which get their modes once they are full.
    open: Vec<Entry>,
    last: Option<PathBuf>,
}

impl Unpacking<'_> {
    fn add(
        &mut self,
        header: &Header,
        name: &[u8],
        target: PathBuf,
        content: &mut impl Read,
    ) -> Result<(), SnapshotError> {
        let path = self.place(name)?;
        let number = |number: io::Result<u64>| {
            let number = number.ok().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| refused("an owner or mode is no number", name))
        };
        let size = header.entry_size().map_err(|_| refused("a size is no number", name))?;
        let kind = match header.entry_type() {
            EntryType::Directory if size == 0 => EntryKind::Directory,
            EntryType::Symlink if size == 0 && !path.as_os_str().is_empty() && stays_inside(&path, &target) => {
                EntryKind::Link { target }
            }
            EntryType::Symlink => return Err(refused("a link leads outside", name)),
            EntryType::Regular => EntryKind::File { size, digest: [0; 32] },
            _ => return Err(refused("it is neither file, directory nor link", name)),
        };
        let mut entry = Entry {
            path,
            kind,
            mode: number(header.mode().map(u64::from))? & MODE,
            uid: number(header.uid())?,
            gid: number(header.gid())?,
            modified: header.mtime().map_err(|_| refused("a time is no number", name))?,
        };
        self.make(&mut entry, content)
    }

    /// Checks where an entry lies, and closes the directories that it is not in.
    fn place(&mut self, name: &[u8]) -> Result<PathBuf, SnapshotError> {
        let name_path = Path::new(OsStr::from_bytes(name));
        let plain = name_path.components().all(|part| matches!(part, Component::Normal(_)));
        let rebuilt: PathBuf = name_path.components().collect();
        let path = name_path.strip_prefix(ROOT).map_err(|_| refused("a path leads outside", name))?.to_owned();
        if !plain || rebuilt.as_os_str() != name_path.as_os_str() || name.contains(&0) {
            return Err(refused("a path leads outside", name));
        }
        match &self.last {
            None if path.as_os_str().is_empty() => return Ok(path),
            Some(last) if *last < path => {}
            _ => return Err(refused("paths are not in order", name)),
        }
        while let Some(open) = self.open.pop_if(|open| !path.starts_with(&open.path)) {
            self.close(&open)?;
        }
        match self.open.last() {
            Some(open) if path.parent() == Some(&open.path) => Ok(path),
            _ => Err(refused("its directory is missing", name)),
        }
    }

    fn make(&mut self, entry: &mut Entry, content: &mut impl Read) -> Result<(), SnapshotError> {
        let at = self.at(entry);
        let failed = |source| SnapshotError::Io { action: "write", path: at.clone(), source };
        match &mut entry.kind {
            EntryKind::Directory => DirBuilder::new().mode(0o700).create(&at).map_err(failed)?,
            EntryKind::File { size, digest } => {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at).map_err(failed)?;
                *digest = copy(content, file, *size, &failed)?;
            }
            EntryKind::Link { target } => std::os::unix::fs::symlink(target, &at).map_err(failed)?,
        }
        self.hasher.add(entry);
        self.last = Some(entry.path.clone());
        if entry.kind == EntryKind::Directory {
            self.open.push(entry.clone());
            return Ok(());
        }
        self.close(entry)
    }

    fn at(&self, entry: &Entry) -> PathBuf {
        within(&self.into.join(ROOT), &entry.path)
    }

    /// Gives an entry owner, mode and time; a directory once nothing more comes into it.
    fn close(&self, entry: &Entry) -> Result<(), SnapshotError> {
        let at = self.at(entry);
        give(&at, entry).map_err(|source| SnapshotError::Io { action: "set owner and mode of", path: at, source })
    }

    fn finish(mut self) -> Result<SnapshotHash, SnapshotError> {
        if self.last.is_none() {
            return Err(SnapshotError::Cut(io::ErrorKind::UnexpectedEof.into()));
        }
        while let Some(open) = self.open.pop() {
            self.close(&open)?;
        }
        Ok(self.hasher.finish())
    }
}

fn give(at: &Path, entry: &Entry) -> io::Result<()> {
    let found = at.symlink_metadata()?;
    if (found.uid(), found.gid()) != (entry.uid, entry.gid) {
        lchown(at, Some(entry.uid), Some(entry.gid))?;
    }
    if !matches!(entry.kind, EntryKind::Link { .. }) {
        std::fs::set_permissions(at, Permissions::from_mode(entry.mode))?;
    }
    let time = Timespec { tv_sec: i64::try_from(entry.modified).unwrap_or(i64::MAX), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Copies `size` bytes. Returns their digest.
fn copy(
    content: &mut impl Read,
    mut to: std::fs::File,
    size: u64,
    failed: &impl Fn(io::Error) -> SnapshotError,
) -> Result<[u8; 32], SnapshotError> {
    let mut content = content.take(size);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; PIECE];
    loop {
        let count = content.read(&mut buffer).map_err(SnapshotError::Cut)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(failed)?;
    }
    match content.limit() {
        0 => Ok(hasher.finalize().into()),
        _ => Err(SnapshotError::Cut(io::ErrorKind::UnexpectedEof.into())),
    }
}
