//! Versioned key-value state with compare-and-swap, watch and leases. One trait, one contract suite, several engines.
//!
//! Every successful transaction that writes gets the next revision of the whole store. Keys are paths
//! (`projects/shop/desired`); values are bytes, JSON by convention of those who write them.

#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod embedded;
pub mod sealed;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

/// Revision of the store: grows by one with each transaction that writes; 0: nothing was ever written.
pub type StoreRevision = u64;

/// A value with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// Revision that made the key.
    pub created: StoreRevision,
    /// Revision that last wrote it.
    pub modified: StoreRevision,
    /// Lease that it goes with.
    pub lease: Option<LeaseId>,
}

/// A lease: keys written under it go when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// Condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(String),
    /// The key was last written by this revision.
    Modified(String, StoreRevision),
}

/// A write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Set a key.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// Goes with this lease.
        lease: Option<LeaseId>,
    },
    /// Remove a key; nothing when it is not there.
    Delete(String),
    /// Remove all keys that start with this; nothing when there are none.
    DeletePrefix(String),
}

/// Result of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All conditions held; the store is at this revision now.
    Done(StoreRevision),
    /// A condition did not hold; nothing was written.
    Conflict,
}

/// A change, as a watch tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key was written.
    Put(Entry),
    /// A key was removed by this revision.
    Deleted(String, StoreRevision),
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is gone; list again and watch from what the list returned.
    #[error("the store's history before revision {oldest} is gone")]
    Compacted {
        /// Oldest revision that can be watched from.
        oldest: StoreRevision,
    },
    /// The lease has ended.
    #[error("lease {} has ended", .0.0)]
    LeaseGone(LeaseId),
    /// The disk is full.
    #[error("no space left for the store at {path}")]
    NoSpace {
        /// The file.
        path: String,
    },
    /// The file is not a store, or of a newer orch.
    #[error("{path} cannot be used as a store: {message}")]
    Unusable {
        /// The file.
        path: String,
        /// Why.
        message: String,
    },
    /// Anything else; worth trying again.
    #[error("the store failed: {message}")]
    Failed {
        /// The cause's words.
        message: String,
    },
}

/// Result of a store call.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Versioned key-value state.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns one key.
    async fn get(&self, key: &str) -> Result<Option<Entry>>;

    /// Returns all keys that start with `prefix`, in order, and the revision at which that was so.
    async fn list(&self, prefix: &str) -> Result<(Vec<Entry>, StoreRevision)>;

    /// Writes all of `writes` if all of `compares` hold, or nothing. Of several writes to one key the last counts.
    /// A call that is dropped or fails may still have written.
    async fn transact(&self, compares: &[Compare], writes: &[Write]) -> Result<Outcome>;

    /// Forgets what was: of the values that keys had before, nothing is left, on the disk neither. A watch from before now
    /// is refused as [`StoreError::Compacted`]; those that go on go on.
    async fn compact(&self) -> Result<()>;

    /// Sends every change to keys that start with `prefix` made after revision `after`, in order, without gap or repeat.
    /// Changes of one revision are in order of their keys. A receiver that falls more than a thousand changes behind is
    /// closed: list again. So it is with a revision that this store never had: [`StoreError::Compacted`].
    async fn watch(&self, prefix: &str, after: StoreRevision) -> Result<mpsc::Receiver<Change>>;

    /// Grants a lease. It lives for `ttl` after its last renewal, longer if the store was away meanwhile, never shorter.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId>;

    /// Renews a lease to its full time; [`StoreError::LeaseGone`] once it has ended.
    async fn keep_alive(&self, lease: LeaseId) -> Result<()>;

    /// Ends a lease now, with its keys; nothing when it has ended.
    async fn revoke(&self, lease: LeaseId) -> Result<()>;
}
