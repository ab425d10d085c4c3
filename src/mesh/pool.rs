//! Where a connection goes when its stream has ended: back to the server's loop, or to a pool of idle ones.
//!
//! Each data thread has a pool of its own, because a socket lives on the runtime that made it: nothing is shared, and
//! nothing is locked. Outside such a runtime (single-threaded, on its thread) connections are not kept.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::stream::Connection;
use crate::ids::HostName;

/// Looks for connections that were idle for too long, in their longest allowed time.
const SWEEPS: u32 = 4;

/// For which connections to whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Number of the mesh in this process, and of its identity: after a renewal connections are made anew.
    pub(super) epoch: (u64, u64),
    pub(super) host: HostName,
    pub(super) address: SocketAddr,
}

/// How many connections are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) count: usize,
    pub(super) idle: Duration,
}

/// Where a connection is given back to.
#[derive(Debug, Default)]
pub(super) enum Home {
    /// Nowhere: it is closed.
    #[default]
    None,
    /// The pool of the thread on which its stream ends, which is the one on which it began.
    Pool(Key, Limits),
    /// The loop that serves it.
    Server(oneshot::Sender<Connection>),
}

impl Home {
    pub(super) fn give_back(self, connection: Connection) {
        match self {
            Self::None => {}
            Self::Pool(key, limits) => put(key, limits, connection),
            // A server that has ended closes it.
            Self::Server(server) => drop(server.send(connection)),
        }
    }
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    until: Instant,
}

#[derive(Debug, Default)]
struct Pool {
    idle: BTreeMap<Key, VecDeque<Idle>>,
    swept: bool,
}

thread_local!(static POOL: RefCell<Pool> = RefCell::default());

/// Returns whether connections made here can be kept.
pub(super) fn is_possible() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread)
}

/// Takes the connection that was used last and is still open.
pub(super) fn take(key: &Key) -> Option<Connection> {
    if !is_possible() {
        return None;
    }
    POOL.with_borrow_mut(|pool| {
        let idle = pool.idle.get_mut(key)?;
        let now = Instant::now();
        std::iter::from_fn(|| idle.pop_back())
            .find_map(|mut kept| (kept.until > now && kept.connection.is_idle()).then_some(kept.connection))
    })
}

/// Returns how many connections this thread keeps.
#[cfg(test)]
pub(super) fn kept() -> usize {
    POOL.with_borrow(|pool| pool.idle.values().map(VecDeque::len).sum())
}

fn put(key: Key, limits: Limits, mut connection: Connection) {
    if !is_possible() || !connection.is_idle() {
        return;
    }
    let sweep = POOL.with_borrow_mut(|pool| {
        let idle = pool.idle.entry(key).or_default();
        if idle.len() >= limits.count {
            idle.pop_front();
        }
        idle.push_back(Idle { connection, until: Instant::now() + limits.idle });
        !std::mem::replace(&mut pool.swept, true)
    });
    if sweep {
        tokio::spawn(sweep_until_empty(limits.idle / SWEEPS, Sweeping));
    }
}

/// Closes connections that nobody took in time, or that the peer closed; ends with the last of them.
async fn sweep_until_empty(every: Duration, _sweeping: Sweeping) {
    loop {
        tokio::time::sleep(every).await;
        let now = Instant::now();
        let empty = POOL.with_borrow_mut(|pool| {
            pool.idle.retain(|_, idle| {
                idle.retain_mut(|kept| kept.until > now && kept.connection.is_idle());
                !idle.is_empty()
            });
            pool.idle.is_empty()
        });
        if empty {
            return;
        }
    }
}

/// The sweep of this thread is running; also cleared when its runtime ends.
struct Sweeping;

impl Drop for Sweeping {
    fn drop(&mut self) {
        // At the end of the thread the pool may be gone before its runtime.
        let _gone = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut() {
                pool.swept = false;
            }
        });
    }
}
