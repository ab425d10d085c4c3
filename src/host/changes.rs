//! What changes in directories of this machine, as the kernel tells it (inotify). Says where to look, never what to do: what
//! is there now, only a look tells.
//!
//! Directories are watched one by one: whoever asks knows which of those below matter. A directory that is moved or removed
//! is forgotten; where the new one is, a look at the directory around it tells.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes that are read at once: some hundred changes.
const BUFFER: usize = 32 << 10;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Something is new, other or gone in a directory.
    In {
        /// The directory, as it was asked for.
        directory: PathBuf,
        /// Its name there; `None`: the directory itself.
        name: Option<OsString>,
        /// Whether it has been written to.
        written: bool,
    },
    /// There was too much to be told: anything may have changed.
    TooMuch,
}

/// Directories that are watched.
pub struct Changes {
    inotify: AsyncFd<OwnedFd>,
    /// By the kernel's number: one directory may be known by several paths.
    paths: BTreeMap<i32, BTreeSet<PathBuf>>,
    numbers: BTreeMap<PathBuf, i32>,
}

impl Changes {
    /// Begins, with nothing.
    ///
    /// # Errors
    /// What the kernel says: there are limits for each user.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify: register(inotify)?, paths: BTreeMap::new(), numbers: BTreeMap::new() })
    }

    /// Watches what is in a directory, but not what is in directories in it.
    ///
    /// # Errors
    /// What the kernel says; `StorageFull` where no more directories can be watched.
    pub fn watch(&mut self, directory: &Path) -> io::Result<()> {
        let what = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK;
        let number = inotify::add_watch(&self.inotify, directory, what)?;
        if self.numbers.get(directory).is_some_and(|known| *known != number) {
            self.forget(directory);
        }
        self.numbers.insert(directory.to_owned(), number);
        self.paths.entry(number).or_default().insert(directory.to_owned());
        Ok(())
    }

    /// Forgets a directory and all below.
    fn forget(&mut self, directory: &Path) {
        let below: Vec<PathBuf> = self
            .numbers
            .range(directory.to_owned()..)
            .take_while(|(path, _)| path.starts_with(directory))
            .map(|(path, _)| path.clone())
            .collect();
        for path in below {
            let Some(number) = self.numbers.remove(&path) else { continue };
            let Some(paths) = self.paths.get_mut(&number) else { continue };
            paths.remove(&path);
            if paths.is_empty() {
                self.paths.remove(&number);
                // One that is gone was forgotten by the kernel too.
                inotify::remove_watch(&self.inotify, number).ok();
            }
        }
    }

    /// Waits for changes. Nothing is lost where the wait is given up.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn next(&mut self) -> io::Result<Vec<Change>> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let told = read(ready.get_inner());
            if matches!(&told, Ok(told) if told.is_empty()) {
                ready.clear_ready();
                continue;
            }
            drop(ready);
            return Ok(told?.into_iter().flat_map(|told| self.take(&told)).collect());
        }
    }

    fn take(&mut self, told: &Told) -> Vec<Change> {
        if told.what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return vec![Change::TooMuch];
        }
        let Some(paths) = self.paths.get(&told.number).cloned() else { return Vec::new() };
        let is_gone =
            |what: ReadFlags| what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED);
        let moved_directory = told.what.contains(ReadFlags::MOVED_FROM | ReadFlags::ISDIR);
        for path in &paths {
            match &told.name {
                Some(name) if moved_directory => self.forget(&path.join(name)),
                None if is_gone(told.what) => self.forget(path),
                _ => {}
            }
        }
        if told.what.contains(ReadFlags::IGNORED) {
            return Vec::new();
        }
        let written = told.what.intersects(ReadFlags::MODIFY | ReadFlags::CREATE | ReadFlags::MOVED_TO);
        paths.into_iter().map(|directory| Change::In { directory, name: told.name.clone(), written }).collect()
    }
}

/// Has the runtime tell when there is something to read.
#[expect(unsafe_code, reason = "the constructor without it is deprecated")]
fn register(inotify: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stands for the same open descriptor as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }?)
}

/// What the kernel said.
struct Told {
    number: i32,
    what: ReadFlags,
    name: Option<OsString>,
}

/// Reads what is there.
fn read(inotify: &OwnedFd) -> io::Result<Vec<Told>> {
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut reader = Reader::new(inotify, &mut buffer);
    let mut all = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                all.push(Told { number: event.wd(), what: event.events(), name });
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(all),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    /// Waits until something is told of `path`.
    async fn heard(changes: &mut Changes, path: &Path) -> bool {
        let wait = async {
            loop {
                for change in changes.next().await.expect("told") {
                    let Change::In { directory, name, written } = change else { continue };
                    if name.map_or(directory.clone(), |name| directory.join(name)) == path {
                        return written;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), wait).await.unwrap_or_else(|_| panic!("nothing of {path:?}"))
    }

    #[tokio::test]
    async fn what_is_written_replaced_or_removed_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, mut changes) = (dir.path(), Changes::new().expect("begun"));
        changes.watch(root).expect("watched");
        fs::write(root.join("a"), "1").expect("written");
        assert!(heard(&mut changes, &root.join("a")).await);
        fs::write(root.join("b"), "2").expect("written");
        fs::rename(root.join("b"), root.join("a")).expect("renamed");
        assert!(heard(&mut changes, &root.join("a")).await, "replaced, as editors do");
        fs::remove_file(root.join("a")).expect("removed");
        assert!(!heard(&mut changes, &root.join("a")).await);
    }

    #[tokio::test]
    async fn a_directory_that_is_moved_is_known_by_its_new_path_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, mut changes) = (dir.path(), Changes::new().expect("begun"));
        fs::create_dir_all(root.join("old/deep")).expect("made");
        for path in ["", "old", "old/deep"] {
            changes.watch(&root.join(path)).expect("watched");
        }
        fs::rename(root.join("old"), root.join("new")).expect("renamed");
        heard(&mut changes, &root.join("new")).await;
        for path in ["new", "new/deep"] {
            changes.watch(&root.join(path)).expect("watched");
        }
        fs::write(root.join("new/deep/x"), "").expect("written");
        assert!(heard(&mut changes, &root.join("new/deep/x")).await);
        assert_eq!(changes.numbers.keys().filter(|path| path.starts_with(root.join("old"))).count(), 0);
    }

    #[tokio::test]
    async fn a_directory_with_two_paths_is_told_of_by_both() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, mut changes) = (dir.path(), Changes::new().expect("begun"));
        fs::create_dir(root.join("real")).expect("made");
        std::os::unix::fs::symlink("real", root.join("link")).expect("linked");
        changes.watch(&root.join("real")).expect("watched");
        changes.watch(&root.join("link")).expect("watched");
        fs::write(root.join("real/x"), "").expect("written");
        let told = changes.next().await.expect("told");
        let directories: BTreeSet<_> = told
            .into_iter()
            .filter_map(|change| match change {
                Change::In { directory, .. } => Some(directory),
                Change::TooMuch => None,
            })
            .collect();
        assert_eq!(directories, BTreeSet::from([root.join("link"), root.join("real")]));
    }
}
