//! What a snapshot holds, and the hash that names it.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::ids::SnapshotHash;

/// Changes when the meaning of the hash does.
const FORMAT: &[u8] = b"orch snapshot 1\n";

/// What a name costs beside its content when sizes are compared: a block of an archive.
const OVERHEAD: u64 = 512;

/// The permission bits that travel.
pub(super) const MODE: u32 = 0o777;

/// A file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where, from the snapshot's root on; empty for the root itself.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits; 0 for a link.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// When it was last changed, in seconds since 1970.
    pub modified: u64,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Bytes of its content.
        size: u64,
        /// SHA-256 of its content.
        digest: [u8; 32],
    },
    /// A symbolic link.
    Link {
        /// Where it leads, as it is written.
        target: PathBuf,
    },
}

/// A snapshot's entries: each directory before what is in it, names in order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The entries; the first is the root.
    pub entries: Vec<Entry>,
}

impl Tree {
    /// Returns the hash that names it.
    pub fn hash(&self) -> SnapshotHash {
        let mut hasher = Hasher::default();
        self.entries.iter().for_each(|entry| hasher.add(entry));
        hasher.finish()
    }

    /// Returns its size in bytes: contents, and half a kilobyte for each name.
    pub fn size(&self) -> u64 {
        self.entries.iter().map(size).sum()
    }

    /// Returns what of the root's own entries is largest, with all that is in it, at most `count`.
    pub(super) fn largest(&self, count: usize) -> Vec<(PathBuf, u64)> {
        let mut sizes: BTreeMap<&Path, u64> = BTreeMap::new();
        for entry in &self.entries {
            if let Some(top) = entry.path.components().next() {
                *sizes.entry(Path::new(top.as_os_str())).or_default() += size(entry);
            }
        }
        let mut sizes: Vec<(PathBuf, u64)> = sizes.into_iter().map(|(path, size)| (path.to_owned(), size)).collect();
        sizes.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        sizes.truncate(count);
        sizes
    }
}

fn size(entry: &Entry) -> u64 {
    match entry.kind {
        EntryKind::File { size, .. } => size.saturating_add(OVERHEAD),
        EntryKind::Directory | EntryKind::Link { .. } => OVERHEAD,
    }
}

/// Hashes entries one after the other, so that nobody needs all of them at once.
pub(super) struct Hasher(Sha256);

impl Default for Hasher {
    fn default() -> Self {
        Self(Sha256::new_with_prefix(FORMAT))
    }
}

impl Hasher {
    /// Every part has a fixed length or says its own, so that no two snapshots are hashed alike.
    pub(super) fn add(&mut self, entry: &Entry) {
        let Entry { path, kind, mode, uid, gid, modified: _ } = entry;
        match kind {
            EntryKind::Directory => self.0.update(b"d"),
            EntryKind::File { size, digest } => {
                self.0.update(b"f");
                self.0.update(size.to_be_bytes());
                self.0.update(digest);
            }
            EntryKind::Link { target } => {
                self.0.update(b"l");
                self.text(target);
            }
        }
        self.text(path);
        for number in [mode, uid, gid] {
            self.0.update(number.to_be_bytes());
        }
    }

    fn text(&mut self, path: &Path) {
        let bytes = path.as_os_str().as_bytes();
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> SnapshotHash {
        SnapshotHash::new(format!("{:x}", self.0.finalize())).expect("a digest is 64 hexadecimal digits")
    }
}

/// Returns whether a link at `path` leads to a place of the snapshot, as it is written. Links that it passes are not
/// followed: nothing outside of a container ever does.
pub(super) fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}
