//! What is below a path that is watched, as it was found the last time, and what has changed since.
//!
//! Only directories that something was told of are read again, all of them where too much was told. Links are not followed:
//! they are brought as links. Nothing is opened here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::rules::Filter;

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is new or other than it was.
    Written,
    /// It is something else than it was: what was there must go first.
    Replaced,
    /// It is not there any more.
    Gone,
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

/// What is known of a file, directory or link without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    /// Size, time of change and number; nothing of a directory, which changes with what is in it.
    content: (u64, i64, i64, u64),
    /// Whether it matters, or only something in it.
    taken: bool,
}

/// Where to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Everywhere.
    pub all: bool,
    /// In these directories, absolute.
    pub directories: BTreeSet<PathBuf>,
    /// These were written to, also where they look as before; absolute.
    pub written: BTreeSet<PathBuf>,
}

impl Told {
    /// Returns whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        !self.all && self.directories.is_empty()
    }
}

/// Is told each directory before it is read, so that nothing is missed in between.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(&Path) -> io::Result<()>;

/// What is below a path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Picture {
    root: PathBuf,
    /// By path from the root on; the root itself is empty.
    found: BTreeMap<PathBuf, Known>,
}

impl Picture {
    /// Begins with nothing.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), found: BTreeMap::new() }
    }

    /// Returns all paths that matter, in order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.found.iter().filter(|(_, known)| known.taken).map(|(path, _)| path.as_path())
    }

    /// Returns whether something that matters is at a path.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.found.get(path).is_some_and(|known| known.taken)
    }

    /// Returns whether a path is there and a directory.
    pub(crate) fn is_directory(&self, path: &Path) -> bool {
        self.found.get(path).is_some_and(|known| known.kind == Kind::Directory)
    }

    /// Looks again. Returns what has changed.
    ///
    /// # Errors
    /// What cannot be read or watched, with its path; it is as it was.
    pub(crate) fn look(
        &mut self,
        filter: &Filter,
        told: &Told,
        watch: Watch<'_>,
    ) -> (BTreeMap<PathBuf, Change>, Vec<(PathBuf, io::Error)>) {
        let mut look = Look { root: &self.root, filter, watch, found: self.found.clone(), problems: Vec::new() };
        look.around();
        if told.all {
            look.anew(Path::new(""), None);
        } else {
            let around = self.root.parent();
            for directory in &told.directories {
                match directory.strip_prefix(&self.root) {
                    Ok(below) => look.directory(below, false),
                    // The path itself may have come, gone, or become another.
                    Err(_) if around.is_some_and(|around| around.starts_with(directory)) => look.root(),
                    Err(_) => {}
                }
            }
        }
        let Look { found, problems, .. } = look;
        let old = std::mem::replace(&mut self.found, found);
        (self.compare(&old, filter, told), problems)
    }

    fn compare(&self, old: &BTreeMap<PathBuf, Known>, filter: &Filter, told: &Told) -> BTreeMap<PathBuf, Change> {
        let mut changes = BTreeMap::new();
        let taken = |known: Option<&Known>| known.filter(|known| known.taken).cloned();
        for path in old.keys().chain(self.found.keys()) {
            let change = match (taken(old.get(path)), taken(self.found.get(path))) {
                (Some(before), Some(now)) if before.kind != now.kind => Change::Replaced,
                (Some(before), Some(now)) if before == now && !self.is_written(path, &now, told) => continue,
                (_, Some(_)) => Change::Written,
                // It does not matter any more, whether it is there or not.
                (Some(_), None) if !filter.takes(path) => continue,
                (Some(_), None) => Change::Gone,
                (None, None) => continue,
            };
            changes.insert(path.clone(), change);
        }
        changes
    }

    fn is_written(&self, path: &Path, known: &Known, told: &Told) -> bool {
        known.kind != Kind::Directory && told.written.contains(&whole(&self.root, path))
    }
}

/// Joining an empty path would add a slash, which a file does not bear.
pub(crate) fn whole(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

struct Look<'a> {
    root: &'a Path,
    filter: &'a Filter,
    watch: Watch<'a>,
    found: BTreeMap<PathBuf, Known>,
    problems: Vec<(PathBuf, io::Error)>,
}

impl Look<'_> {
    /// Watches the directory that the path is in, or where that is missing the next one above: it may come.
    fn around(&mut self) {
        let mut above = self.root.ancestors().skip(1);
        let near = above.find(|directory| match (self.watch)(directory) {
            Ok(()) => true,
            Err(error) if is_gone(&error) => false,
            Err(error) => {
                self.problems.push(((*directory).to_owned(), error));
                true
            }
        });
        debug_assert!(near.is_some() || self.root.parent().is_none(), "the root of all is there");
    }

    /// Looks at the path itself.
    fn root(&mut self) {
        let kind = |known: Option<&Known>| known.map(|known| known.kind);
        let before = self.found.get(Path::new("")).cloned();
        let now = self.known(Path::new(""));
        match now {
            Some(now) if now.kind == Kind::Directory => {
                // Another one of the same name is watched by nobody.
                let same =
                    before.as_ref().is_some_and(|before| before.content == now.content && before.kind == now.kind);
                if same {
                    self.found.insert(PathBuf::new(), now);
                } else {
                    self.anew(Path::new(""), Some(now));
                }
            }
            now => {
                if kind(before.as_ref()) == Some(Kind::Directory) || now.is_none() {
                    self.found.clear();
                }
                self.found.extend(now.map(|now| (PathBuf::new(), now)));
            }
        }
    }

    /// Looks at a path as if nothing was known of it.
    fn anew(&mut self, path: &Path, known: Option<Known>) {
        self.forget(path);
        if let Some(known) = known.or_else(|| self.known(path)) {
            let is_directory = known.kind == Kind::Directory;
            self.found.insert(path.to_owned(), known);
            if is_directory {
                self.directory(path, true);
            }
        }
    }

    fn forget(&mut self, path: &Path) {
        for below in self.below(path) {
            self.found.remove(&below);
        }
    }

    /// What is known at a path and below, which lies side by side.
    fn below(&self, path: &Path) -> Vec<PathBuf> {
        let from = self.found.range(path.to_owned()..).map(|(other, _)| other);
        from.take_while(|other| other.starts_with(path)).cloned().collect()
    }

    /// Looks at what is in a directory that is known; at what is below only where that is new, or `deep`.
    fn directory(&mut self, path: &Path, deep: bool) {
        if self.found.get(path).is_none_or(|known| known.kind != Kind::Directory) || !self.filter.enters(path) {
            return;
        }
        let at = whole(self.root, path);
        let listed = (self.watch)(&at).and_then(|()| at.read_dir()?.collect::<io::Result<Vec<_>>>());
        let names: BTreeSet<PathBuf> = match listed {
            Ok(listed) => listed.into_iter().map(|entry| path.join(entry.file_name())).collect(),
            // The directory around it tells.
            Err(error) if is_gone(&error) => return,
            Err(error) => return self.problems.push((at, error)),
        };
        for known in self.below(path) {
            if known.parent() == Some(path) && !names.contains(&known) {
                self.forget(&known);
            }
        }
        for name in names {
            let before = self.found.get(&name).cloned();
            let Some(now) = self.known(&name) else {
                self.forget(&name);
                continue;
            };
            let same = before.as_ref().is_some_and(|before| before.kind == now.kind && before.content == now.content);
            match now.kind {
                Kind::Directory if deep || !same => self.anew(&name, Some(now)),
                Kind::Directory => {
                    self.found.insert(name, now);
                }
                Kind::File | Kind::Link => {
                    if before.is_some_and(|before| before.kind == Kind::Directory) {
                        self.forget(&name);
                    }
                    self.found.insert(name, now);
                }
            }
        }
    }

    /// Looks at one path; `None`: nothing is there that could be brought anywhere.
    fn known(&mut self, path: &Path) -> Option<Known> {
        let at = whole(self.root, path);
        let is_root = path.as_os_str().is_empty();
        let about = if is_root { at.metadata() } else { at.symlink_metadata() };
        let about = match about {
            Ok(about) => about,
            Err(error) if is_gone(&error) => return None,
            Err(error) => {
                self.problems.push((at, error));
                return None;
            }
        };
        let kind = match about.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_file() => Kind::File,
            kind if kind.is_symlink() => Kind::Link,
            _ => return None,
        };
        // The directory that is watched is not brought itself: what is in it is.
        let taken = !(is_root && kind == Kind::Directory) && self.filter.takes(path);
        Some(Known {
            kind,
            mode: about.mode(),
            owner: (about.uid(), about.gid()),
            content: content(kind, &about),
            taken,
        })
    }
}

fn content(kind: Kind, about: &Metadata) -> (u64, i64, i64, u64) {
    match kind {
        // Its number tells whether it is another one of the same name.
        Kind::Directory => (0, 0, 0, about.ino()),
        Kind::File | Kind::Link => (about.size(), about.mtime(), about.mtime_nsec(), about.ino()),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
