//! Files and directories as they were at one moment, named by a hash of what they hold: how what lies beside a compose
//! file gets to other hosts. Read from a disk ([`scan`](fn@scan)), written into a stream ([`pack`]), taken out of one that
//! nobody vouches for ([`unpack`]), and kept on a host ([`Snapshots`]).
//!
//! What is kept of a file: its name, content, numeric owner and group, permission bits, and when it was changed. The last
//! is not part of the hash: a new check-out of the same content is the same. Set-user-ID and set-group-ID bits, extended
//! attributes and hard links do not travel. A symbolic link stays one and must not lead outside; anything else than
//! files, directories and links is refused.
//!
//! Nothing here knows containers or hosts, and nothing that is kept is ever written to again.

mod archive;
pub mod context;
mod ignore;
pub(crate) mod pipe;
mod scan;
mod store;
mod tree;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use crate::ids::SnapshotHash;

pub use archive::{pack, unpack};
pub use ignore::{IGNORE_FILE, IgnoreError, Rules};
pub use scan::{ScanError, scan};
pub use store::{Chunks, Snapshots, packed};
pub use tree::{Entry, EntryKind, Tree};

/// Largest snapshot where nobody says otherwise, in bytes.
pub const DEFAULT_LIMIT: u64 = 64 << 20;

/// Why a snapshot could not be sent, taken in or kept.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The stream broke.
    #[error("what was sent of it was cut off")]
    Cut(#[source] io::Error),
    /// It holds what no snapshot may hold: nothing of it is kept.
    #[error("what was sent is no snapshot: {0}")]
    Refused(String),
    /// It is another one than its name says.
    #[error("its files were changed while they were read")]
    Changed {
        /// The hash that was announced.
        announced: SnapshotHash,
        /// The hash of what came.
        came: SnapshotHash,
    },
    /// It is not here.
    #[error("it is not here")]
    Missing,
}
