//! The store in one SQLite file, for one host, or for several without high availability.
//!
//! One process at a time has the file open (a lock file beside it says so); in it one connection behind a mutex, on
//! blocking threads, so a slow disk never holds up the runtime. An acknowledged transaction is on the disk.
//!
//! **Leases** live by the monotonic clock of this process. After a restart each has its full time again: while the store
//! was away nobody could renew, and ending a lease late is safe where ending it early is not (etcd does the same when
//! its leader changes). A machine's wall clock plays no part. One task, ended by dropping the store, ends leases in time.

mod db;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::FlockOperation;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::db::{Db, OpenError, Options};
use super::{Change, Compare, Entry, LeaseId, Outcome, Result, Store, StoreError, StoreRevision, Write};

/// Changes that a watcher may be behind.
const WATCH_LAG: usize = 1000;
/// Time that another process has to let go of the file: an agent that is being replaced.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Time until leases whose end could not be written (a full disk) are tried again.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);

/// A store in one file.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    _expiry: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    /// Held as long as anybody may write the file.
    _lock: File,
}

#[derive(Debug)]
struct State {
    db: Db,
    leases: BTreeMap<LeaseId, Lease>,
    watchers: Vec<Watcher>,
    /// When the next lease ends, for the task that ends it.
    next_end: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl: Duration,
    end: Instant,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    changes: mpsc::Sender<Change>,
}

impl Embedded {
    /// Opens the store at `path`, or makes one there, readable by its owner only. Its directory must exist.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for a file that is damaged, not a store, of a newer orch, or in use by another process;
    /// such a file is not changed. [`StoreError::NoSpace`] and [`StoreError::Failed`] as for all calls.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path.into(), Options::default()).await
    }

    async fn open_with(path: PathBuf, options: Options) -> Result<Self> {
        let lock = lock(&path).await?;
        let (next_end, ends) = watch::channel(None);
        let now = Instant::now();
        let opened = blocking(move || {
            // SQLite makes its other files with this one's mode.
            let made = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
            made.map_err(|error| failed(&path, &error))?;
            let db = Db::open(&path, options).map_err(|error| refused(&path, error))?;
            let leases = db.leases().map_err(|error| fault(&path, &error))?;
            let leases = leases.into_iter().map(|(id, ttl_ms)| {
                let ttl = Duration::from_millis(u64::try_from(ttl_ms).unwrap_or_default());
                (id, Lease { ttl, end: now + ttl })
            });
            let state = State { db, leases: leases.collect(), watchers: Vec::new(), next_end };
            state.tell_next_end();
            Ok(Shared { path, state: Mutex::new(state), _lock: lock })
        });
        let shared = Arc::new(opened.await?);
        let expiry = tokio::spawn(end_leases(Arc::downgrade(&shared), ends));
        Ok(Self { shared, _expiry: AbortOnDropHandle::new(expiry) })
    }

    /// Runs `work` on a blocking thread, after ending the leases whose time is over.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, WorkError> + Send + 'static,
    ) -> Result<T> {
        self.shared.run(move |state, now| state.expire(now).map_err(WorkError::from).and_then(|()| work(state))).await
    }

    /// As [`Self::write`], but works on a full disk too: keys of an ended lease may then show a little longer.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, WorkError> + Send + 'static,
    ) -> Result<T> {
        let run = self.shared.run(move |state, now| {
            if let Err(error) = state.expire(now) {
                tracing::warn!(%error, "leases could not be ended");
            }
            work(state)
        });
        run.await
    }
}

/// What work on the state can end with; the path is added outside.
enum WorkError {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for WorkError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Shared {
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut State, Instant) -> Result<T, WorkError> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(self);
        blocking(move || {
            // A panic in the middle leaves whole state: the transaction rolls back, numbers are set after the commit.
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut state, Instant::now()).map_err(|error| match error {
                WorkError::Sql(error) => fault(&shared.path, &error),
                WorkError::Store(error) => error,
            })
        })
        .await
    }
}

impl State {
    /// Ends the leases whose time is over.
    fn expire(&mut self, now: Instant) -> Result<(), rusqlite::Error> {
        let due: Vec<LeaseId> = self.leases.iter().filter(|(_, lease)| lease.end <= now).map(|(id, _)| *id).collect();
        if due.is_empty() { Ok(()) } else { self.end(&due) }
    }

    fn end(&mut self, leases: &[LeaseId]) -> Result<(), rusqlite::Error> {
        let changes = self.db.end_leases(leases)?;
        self.leases.retain(|id, _| !leases.contains(id));
        self.tell_next_end();
        self.publish(&changes);
        Ok(())
    }

    fn require(&self, lease: LeaseId) -> Result<Lease, WorkError> {
        self.leases.get(&lease).copied().ok_or(WorkError::Store(StoreError::LeaseGone(lease)))
    }

    fn set_lease(&mut self, id: LeaseId, ttl: Duration) {
        self.leases.insert(id, Lease { ttl, end: Instant::now() + ttl });
        self.tell_next_end();
    }

    fn tell_next_end(&self) {
        self.next_end.send_replace(self.leases.values().map(|lease| lease.end).min());
    }

    /// Hands changes to those who watch them; whoever has no room for one is cut off, so that none is left out.
    fn publish(&mut self, changes: &[Change]) {
        self.watchers.retain(|watcher| {
            let mut wanted = changes.iter().filter(|change| key_of(change).starts_with(&watcher.prefix));
            !watcher.changes.is_closed() && wanted.all(|change| watcher.changes.try_send(change.clone()).is_ok())
        });
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        let key = key.to_owned();
        self.read(move |state| Ok(state.db.get(&key)?)).await
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<Entry>, StoreRevision)> {
        let prefix = prefix.to_owned();
        self.read(move |state| Ok((state.db.list(&prefix)?, state.db.revision()))).await
    }

    async fn transact(&self, compares: &[Compare], writes: &[Write]) -> Result<Outcome> {
        let (compares, writes) = (compares.to_vec(), writes.to_vec());
        self.write(move |state| {
            for write in &writes {
                if let Write::Put { lease: Some(lease), .. } = write {
                    state.require(*lease)?;
                }
            }
            let (outcome, changes) = state.db.transact(&compares, &writes)?;
            state.publish(&changes);
            Ok(outcome)
        })
        .await
    }

    async fn compact(&self) -> Result<()> {
        self.write(|state| Ok(state.db.compact()?)).await
    }

    async fn watch(&self, prefix: &str, after: StoreRevision) -> Result<mpsc::Receiver<Change>> {
        let prefix = prefix.to_owned();
        self.read(move |state| {
            let oldest = state.db.compacted();
            if after < oldest || after > state.db.revision() {
                return Err(WorkError::Store(StoreError::Compacted { oldest }));
            }
            let missed = state.db.changes(&prefix, after)?;
            let (sender, receiver) = mpsc::channel(WATCH_LAG + missed.len());
            for change in missed {
                // There is room for all of them, and the receiver is here.
                drop(sender.try_send(change));
            }
            state.watchers.push(Watcher { prefix, changes: sender });
            Ok(receiver)
        })
        .await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        self.write(move |state| {
            let id = state.db.grant(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))?;
            state.set_lease(id, ttl);
            Ok(id)
        })
        .await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.write(move |state| {
            let ttl = state.require(lease)?.ttl;
            state.set_lease(lease, ttl);
            Ok(())
        })
        .await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.write(move |state| {
            if state.leases.contains_key(&lease) {
                state.end(&[lease])?;
            }
            Ok(())
        })
        .await
    }
}

/// Ends leases when their time is over, also when nobody calls: watchers wait for it. Lives as long as the store.
async fn end_leases(shared: Weak<Shared>, mut ends: watch::Receiver<Option<Instant>>) {
    loop {
        let next = *ends.borrow_and_update();
        let due = async {
            match next {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = ends.changed() => if changed.is_err() { return },
            () = due => {
                let Some(shared) = shared.upgrade() else { return };
                if let Err(error) = shared.run(|state, now| Ok(state.expire(now)?)).await {
                    tracing::warn!(%error, "leases could not be ended");
                    drop(shared);
                    tokio::time::sleep(EXPIRY_RETRY).await;
                }
            }
        }
    }
}

/// Takes the lock file beside the store. SQLite's own locks would let a second process in between two transactions, and
/// what watchers are told and what leases live by is in this process only.
async fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&name);
    let file = file.map_err(|error| failed(path, &error))?;
    let given_up = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < given_up => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(unusable(path, "another process has it open"));
            }
            Err(error) => return Err(failed(path, &error.into())),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime ends, and with it who waits: his caller finds the line cut and asks again, which is right; an answer
        // that the store failed would not be.
        Err(error) if error.is_cancelled() => std::future::pending().await,
        Err(error) => Err(StoreError::Failed { message: error.to_string() }),
    }
}

fn key_of(change: &Change) -> &str {
    match change {
        Change::Put(entry) => &entry.key,
        Change::Deleted(key, _) => key,
    }
}

fn unusable(path: &Path, message: impl Into<String>) -> StoreError {
    StoreError::Unusable { path: path.display().to_string(), message: message.into() }
}

fn failed(path: &Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => no_space(path),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::IsADirectory => {
            unusable(path, error.to_string())
        }
        _ => StoreError::Failed { message: format!("{}: {error}", path.display()) },
    }
}

fn no_space(path: &Path) -> StoreError {
    StoreError::NoSpace { path: path.display().to_string() }
}

fn refused(path: &Path, error: OpenError) -> StoreError {
    match error {
        OpenError::Refused(message) => unusable(path, message),
        OpenError::Sql(error) => fault(path, &error),
    }
}

/// Sorts SQLite's errors by what can be done about them.
fn fault(path: &Path, error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode;
    // SQLite says "input/output error" where it could not grow the log's index.
    let full = || rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_bavail == 0);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => no_space(path),
        Some(ErrorCode::SystemIoFailure) if full() => no_space(path),
        Some(ErrorCode::NotADatabase) => unusable(path, "it is not a database"),
        Some(ErrorCode::DatabaseCorrupt) => unusable(path, format!("it is damaged: {error}")),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            unusable(path, error.to_string())
        }
        _ => StoreError::Failed { message: format!("{}: {error}", path.display()) },
    }
}

#[cfg(test)]
mod tests;
