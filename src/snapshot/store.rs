//! The snapshots of a host: `STATE/snapshots/HASH/content`, which containers bind read-only.
//!
//! One appears whole or not at all: unpacked beside under a name of its own, brought to the disk, checked, renamed. It is
//! never changed. It goes once nobody has needed it for a while: the time that a plan takes from a snapshot's arrival to
//! the record that names it, or that the picture of the engine lags behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::archive::{ROOT, pack, unpack};
use super::pipe::{PIECES, Piece, PipeReader, PipeWriter};
use super::scan::scan;
use super::{SnapshotError, Tree};
use crate::ids::SnapshotHash;

/// Time that a snapshot waits for the record that names it: an `up` pulls images before.
const WAITS: Duration = Duration::from_mins(15);

/// Time for which one is kept that was needed before.
const LINGERS: Duration = Duration::from_secs(5);

/// Longest silence of who sends one.
const SILENCE: Duration = Duration::from_secs(30);

/// Begin of the names of what is not whole yet.
const UNFINISHED: &str = ".new-";

/// A snapshot's archive in pieces.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The snapshots of one host.
#[derive(Debug)]
pub struct Snapshots {
    directory: PathBuf,
    held: Mutex<Held>,
}

/// What is known of who needs them.
#[derive(Debug, Default)]
struct Held {
    /// Until when each is kept though nobody needs it.
    until: BTreeMap<SnapshotHash, Instant>,
    /// Those that were needed at the last look.
    needed: BTreeSet<SnapshotHash>,
}

impl Snapshots {
    /// Returns the snapshots below a state directory, which has the same path for the host and for this process.
    pub fn below(state: &Path) -> Self {
        Self { directory: state.join("snapshots"), held: Mutex::default() }
    }

    /// Returns where a snapshot's file or directory is, or will be.
    pub fn path(&self, hash: &SnapshotHash) -> PathBuf {
        self.directory.join(hash.as_str()).join(ROOT)
    }

    /// Returns whether a snapshot is here.
    pub fn has(&self, hash: &SnapshotHash) -> bool {
        self.path(hash).symlink_metadata().is_ok()
    }

    /// Returns which of these are not here. The others stay until a record had the time to name them.
    pub fn missing(&self, hashes: &[SnapshotHash]) -> Vec<SnapshotHash> {
        let until = Instant::now() + WAITS;
        self.lock().until.extend(hashes.iter().map(|hash| (hash.clone(), until)));
        hashes.iter().filter(|hash| !self.has(hash)).cloned().collect()
    }

    /// Takes in a snapshot; nothing where it is here already. Nothing stays of one that is cut off or wrong.
    ///
    /// # Errors
    /// As [`unpack`], and when nothing came for half a minute.
    pub async fn receive(&self, hash: &SnapshotHash, mut chunks: Chunks) -> Result<(), SnapshotError> {
        self.lock().until.insert(hash.clone(), Instant::now() + WAITS);
        if self.has(hash) {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel(PIECES);
        let (directory, hash) = (self.directory.clone(), hash.clone());
        // Ends and cleans up by itself when this is dropped: what it reads from is cut then.
        let taken = tokio::task::spawn_blocking(move || take_in(&directory, &hash, PipeReader::new(receiver)));
        feed(&mut chunks, sender).await;
        done(taken).await
    }

    /// Returns a snapshot's archive.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`], or what the disk says. What goes wrong later is an error of the stream.
    pub async fn send(&self, hash: &SnapshotHash) -> Result<Chunks, SnapshotError> {
        if !self.has(hash) {
            return Err(SnapshotError::Missing);
        }
        let root = self.path(hash);
        let path = root.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let failed =
                |error| SnapshotError::Io { action: "read", path: path.clone(), source: io::Error::other(error) };
            scan(&path, u64::MAX).map_err(failed)
        });
        Ok(packed(root, done(looked).await?))
    }

    /// Removes what was not whole when this process began. Before anything is received.
    ///
    /// # Errors
    /// What the disk says.
    pub fn clean(&self) -> Result<(), SnapshotError> {
        for name in self.names()?.iter().filter(|name| name.starts_with(UNFINISHED)) {
            remove(&self.directory.join(name))?;
        }
        Ok(())
    }

    /// Removes the snapshots that nobody needs any more. Returns when to look again if nothing changes.
    ///
    /// # Errors
    /// What the disk says.
    pub fn sweep(&self, needed: &BTreeSet<SnapshotHash>) -> Result<Option<Instant>, SnapshotError> {
        let now = Instant::now();
        let (mut gone, mut next) = (Vec::new(), None);
        {
            let mut held = self.lock();
            // Who asked for one that was needed since had what he asked for.
            let Held { until, needed: before } = &mut *held;
            until.extend(before.difference(needed).map(|hash| (hash.clone(), now + LINGERS)));
            before.clone_from(needed);
            for hash in self.names()?.into_iter().filter_map(|name| SnapshotHash::new(name).ok()) {
                match until.get(&hash) {
                    _ if needed.contains(&hash) => {}
                    Some(until) if *until > now => next = Some(next.map_or(*until, |next: Instant| next.min(*until))),
                    _ => gone.push(hash),
                }
            }
            until.retain(|_, until| *until > now);
        }
        for hash in gone {
            tracing::info!(%hash, "removing files that no container needs any more");
            remove(&self.directory.join(hash.as_str()))?;
        }
        Ok(next)
    }

    fn names(&self) -> Result<Vec<String>, SnapshotError> {
        let failed = |source| SnapshotError::Io { action: "list", path: self.directory.clone(), source };
        let entries = match self.directory.read_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the archive of a tree that was looked at, written while it is read.
pub fn packed(root: PathBuf, tree: Tree) -> Chunks {
    let (sender, receiver) = mpsc::channel::<Piece>(PIECES);
    // Ends by itself when nobody reads any more.
    drop(tokio::task::spawn_blocking(move || {
        if let Err(error) = pack(&root, &tree, PipeWriter::new(sender.clone())) {
            drop(sender.blocking_send(Err(error)));
        }
    }));
    Box::pin(stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }))
}

/// Hands pieces on until they end, the reader has had enough, or nothing comes for too long.
async fn feed(chunks: &mut Chunks, sender: mpsc::Sender<Piece>) {
    loop {
        let piece = match tokio::time::timeout(SILENCE, chunks.next()).await {
            Ok(Some(Ok(piece))) if piece.is_empty() => continue,
            Ok(Some(piece)) => piece,
            Ok(None) => Ok(Bytes::new()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let last = piece.as_ref().map_or(true, Bytes::is_empty);
        if sender.send(piece).await.is_err() || last {
            return;
        }
    }
}

fn take_in(directory: &Path, hash: &SnapshotHash, from: PipeReader) -> Result<(), SnapshotError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let fresh = directory.join(format!("{UNFINISHED}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let whole = directory.join(hash.as_str());
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| SnapshotError::Io { action, path, source }
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&fresh).map_err(failed("make", &fresh));
    let made = made.and_then(|()| {
        unpack(from, &fresh, hash)?;
        // One call for all its files, which may be thousands.
        let opened = File::open(&fresh).map_err(failed("open", &fresh))?;
        rustix::fs::syncfs(&opened).map_err(|error| failed("write", &fresh)(error.into()))?;
        match std::fs::rename(&fresh, &whole) {
            // Somebody else sent it at the same time.
            Err(_) if whole.join(ROOT).symlink_metadata().is_ok() => remove(&fresh),
            renamed => renamed.map_err(failed("make", &whole)),
        }?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("write", directory))
    });
    if made.is_err()
        && let Err(error) = remove(&fresh)
    {
        tracing::warn!(%error, "what was not taken in is still there until the next start");
    }
    made
}

fn remove(path: &Path) -> Result<(), SnapshotError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| SnapshotError::Io { action: "remove", path: path.to_owned(), source }),
    }
}

async fn done<T>(task: tokio::task::JoinHandle<Result<T, SnapshotError>>) -> Result<T, SnapshotError> {
    match task.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends.
        Err(error) => Err(SnapshotError::Cut(io::Error::other(error))),
    }
}
