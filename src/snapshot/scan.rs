//! A file or directory of this machine, looked at whole: what is in it, and whether it can travel.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::ignore::{IGNORE_FILE, IgnoreError, Rules};
use super::tree::{Entry, EntryKind, MODE, Tree, stays_inside};

/// Most names that are looked at. What has more is far beyond any limit of size.
const MOST: usize = 1_000_000;

/// How many of the largest are named when there is too much.
const NAMED: usize = 3;

/// Longest ignore file that is read, in bytes.
const LONGEST_IGNORE: u64 = 1 << 20;

/// Why a file or directory cannot travel.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// There is nothing.
    #[error("`{}` does not exist", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("`{}` cannot be read: {source}", .path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is, or holds, what has no content to take along.
    #[error("`{}` is {what}", .path.display())]
    Special {
        /// Which.
        path: PathBuf,
        /// `a socket`, `a pipe`, `a device`.
        what: &'static str,
    },
    /// A link would lead somewhere else on another host.
    #[error("the link `{}` leads outside, to `{}`", .path.display(), .target.display())]
    LinkOut {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// There is too much.
    #[error("`{}` holds {} MiB, more than the {} MiB that may travel{}", .path.display(), mib(*.size), mib(*.limit), named(.largest))]
    TooLarge {
        /// The whole.
        path: PathBuf,
        /// Its size in bytes, or what was counted before giving up.
        size: u64,
        /// What was allowed.
        limit: u64,
        /// What in it is largest, with its size.
        largest: Vec<(PathBuf, u64)>,
    },
    /// Its ignore file.
    #[error("{error} (in `{}`)", .path.display())]
    Ignore {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        error: IgnoreError,
    },
}

impl ScanError {
    /// Returns what to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Missing(_) => {
                "create it; an empty directory is only made for it on a single host without `x-hosts`".to_owned()
            }
            Self::Unreadable { .. } => format!("make it readable, or leave it out by a line in {IGNORE_FILE}"),
            Self::Special { .. } => format!("leave it out by a line in {IGNORE_FILE}"),
            Self::LinkOut { .. } => {
                format!("put a copy in its place, make it relative, or leave it out by a line in {IGNORE_FILE}")
            }
            Self::TooLarge { .. } => format!(
                "leave out what pods do not need by lines in {IGNORE_FILE}, make it part of the image, or allow more in \
                 the mount's long form (`x-max-size: 256m`)"
            ),
            Self::Ignore { .. } => "patterns are written as in a .dockerignore".to_owned(),
        }
    }
}

fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    if tenths.is_multiple_of(10) { format!("{}", tenths / 10) } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

fn named(list: &[(PathBuf, u64)]) -> String {
    let each: Vec<String> =
        list.iter().map(|(path, size)| format!("`{}` {} MiB", path.display(), mib(*size))).collect();
    if each.is_empty() { String::new() } else { format!(": {}", each.join(", ")) }
}

/// Looks at a file or directory with all that is in it, but for what its ignore file leaves out. `limit` is the largest
/// size in bytes; nothing is read of what is larger.
///
/// # Errors
/// The first thing that keeps it from travelling.
pub fn scan(path: &Path, limit: u64) -> Result<Tree, ScanError> {
    let about = path.metadata().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ScanError::Missing(path.to_owned()),
        _ => unreadable(path, source),
    })?;
    let rules = if about.is_dir() { rules(path)? } else { Rules::default() };
    let mut scan = Scan { root: path, limit, rules, tree: Tree { entries: Vec::new() } };
    scan.add(Path::new(""), &about)?;
    if scan.tree.size() > limit {
        return Err(scan.too_large());
    }
    let Scan { mut tree, .. } = scan;
    for entry in &mut tree.entries {
        if let EntryKind::File { size, digest } = &mut entry.kind {
            let at = within(path, &entry.path);
            (*size, *digest) = digest_of(&at, *size).map_err(|source| unreadable(&at, source))?;
        }
    }
    Ok(tree)
}

/// Returns the path of an entry. Joining an empty path would add a slash, which a file does not bear.
pub(super) fn within(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn unreadable(path: &Path, source: io::Error) -> ScanError {
    ScanError::Unreadable { path: path.to_owned(), source }
}

fn rules(directory: &Path) -> Result<Rules, ScanError> {
    let path = directory.join(IGNORE_FILE);
    let mut text = Vec::new();
    match File::open(&path) {
        Ok(file) => file.take(LONGEST_IGNORE).read_to_end(&mut text).map_err(|source| unreadable(&path, source))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Rules::default()),
        Err(source) => return Err(unreadable(&path, source)),
    };
    let rules = Rules::parse(&String::from_utf8_lossy(&text));
    rules.map_err(|error| ScanError::Ignore { path: directory.to_owned(), error })
}

/// A walk through a directory.
struct Scan<'a> {
    root: &'a Path,
    limit: u64,
    rules: Rules,
    tree: Tree,
}

impl Scan<'_> {
    fn too_large(&self) -> ScanError {
        let (size, largest) = (self.tree.size(), self.tree.largest(NAMED));
        ScanError::TooLarge { path: self.root.to_owned(), size, limit: self.limit, largest }
    }

    fn add(&mut self, path: &Path, about: &Metadata) -> Result<(), ScanError> {
        let at = within(self.root, path);
        let kind = about.file_type();
        let special = |what| Err(ScanError::Special { path: at.clone(), what });
        let kind = if kind.is_dir() {
            EntryKind::Directory
        } else if kind.is_file() {
            EntryKind::File { size: about.len(), digest: [0; 32] }
        } else if kind.is_symlink() {
            let target = at.read_link().map_err(|source| unreadable(&at, source))?;
            if !stays_inside(path, &target) {
                return Err(ScanError::LinkOut { path: at, target });
            }
            EntryKind::Link { target }
        } else if kind.is_socket() {
            return special("a socket");
        } else if kind.is_fifo() {
            return special("a pipe");
        } else {
            return special("a device");
        };
        if self.tree.entries.len() >= MOST {
            return Err(self.too_large());
        }
        let directory = kind == EntryKind::Directory;
        self.tree.entries.push(Entry {
            path: path.to_owned(),
            mode: if matches!(kind, EntryKind::Link { .. }) { 0 } else { about.mode() & MODE },
            kind,
            uid: about.uid(),
            gid: about.gid(),
            modified: u64::try_from(about.mtime()).unwrap_or_default(),
        });
        if directory { self.walk(path) } else { Ok(()) }
    }

    /// Adds what is in a directory, in order of the names.
    fn walk(&mut self, directory: &Path) -> Result<(), ScanError> {
        let at = within(self.root, directory);
        for name in names(&at).map_err(|source| unreadable(&at, source))? {
            let path = directory.join(&name);
            if path == Path::new(IGNORE_FILE) {
                continue;
            }
            let at = self.root.join(&path);
            let about = at.symlink_metadata().map_err(|source| unreadable(&at, source))?;
            if !self.rules.leave_out(&path) {
                self.add(&path, &about)?;
            } else if about.is_dir() && self.rules.take_back() {
                let before = self.tree.entries.len();
                self.add(&path, &about)?;
                if self.tree.entries.len() == before + 1 {
                    self.tree.entries.pop(); // It is there for what is in it.
                }
            }
        }
        Ok(())
    }
}

/// Hashes the first `length` bytes of a file. Returns how many there were.
fn digest_of(path: &Path, length: u64) -> io::Result<(u64, [u8; 32])> {
    let mut file = open(path)?.take(length);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((size, hasher.finalize().into()));
        }
        size += count as u64;
        hasher.update(&buffer[..count]);
    }
}

/// Returns what is in a directory, in order, so that the same content is always read alike.
pub(super) fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let names: io::Result<Vec<OsString>> = directory.read_dir()?.map(|entry| Ok(entry?.file_name())).collect();
    names.map(|mut names| {
        names.sort();
        names
    })
}

/// Opens a file for reading; never waits, should it have become a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}
