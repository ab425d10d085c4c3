//! Connections to pods that are kept for the next request, by thread and endpoint.
//!
//! One that is kept must be silent: a byte or an end that nobody asked for makes it useless. It is looked at before it is
//! used and four times a second (see `watch`), and goes when it was idle for long, when its pod leaves the table, so that
//! a pod that is told to stop need not wait for it, and when there are too many.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Instant;

use super::watch;
use crate::lb::choose::{Next, Server};
use crate::lb::endpoint::EndpointState;
use crate::lb::pick::{mix, stable_hash};

/// How long a connection is kept. Servers close theirs after 5 s (Node) to 75 s (nginx): rarely does one do it first.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// How long a connection may have been idle that a request goes on which must not be sent twice: few servers close one so
/// soon.
const FRESH: Duration = Duration::from_secs(1);

/// Connections that a thread keeps for each endpoint, and in all.
const MAX_PER_ENDPOINT: usize = 64;
const MAX_PER_THREAD: usize = 1024;

/// Time for a connection to another host to end in peace, which leaves the tunnel fit for the next one.
const FAREWELL: Duration = Duration::from_secs(1);

/// A pod's port in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    endpoint: u64,
    address: SocketAddr,
}

impl Hash for Key {
    /// By number and port: an endpoint is rarely reached at two addresses.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.endpoint.wrapping_shl(16) ^ u64::from(self.address.port()));
    }
}

/// Keys are made here, not by clients: nobody can have them collide.
#[derive(Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = mix(self.0 ^ stable_hash(bytes));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }
}

#[derive(Debug)]
struct Kept {
    server: Server,
    endpoint: Arc<EndpointState>,
    since: Instant,
}

#[derive(Default)]
struct Pool {
    kept: HashMap<Key, Vec<Kept>, BuildHasherDefault<Mixed>>,
    count: usize,
}

thread_local!(static POOL: RefCell<Pool> = RefCell::default());

fn key(next: &Next) -> Key {
    Key { endpoint: next.lease.number, address: next.address() }
}

/// Takes a connection that is kept for an endpoint; one for a request that `may_repeat` may have been idle for longer.
pub(super) fn take(next: &Next, may_repeat: bool) -> Option<Server> {
    POOL.with_borrow_mut(|pool| {
        let kept = pool.kept.get_mut(&key(next))?;
        while let Some(mut last) = kept.pop() {
            pool.count -= 1;
            if is_silent(&mut last.server) && (may_repeat || last.since.elapsed() < FRESH) {
                return Some(last.server);
            }
            part(last.server);
        }
        None
    })
}

/// Keeps a connection to an endpoint, if there is room.
pub(super) fn keep(next: &Next, server: Server) {
    let endpoint = next.lease.endpoint();
    if endpoint.is_retired() {
        return part(server);
    }
    let refused = POOL.with_borrow_mut(|pool| {
        let kept = pool.kept.entry(key(next)).or_default();
        if kept.len() >= MAX_PER_ENDPOINT || pool.count >= MAX_PER_THREAD {
            return Some(server);
        }
        kept.push(Kept { server, endpoint, since: watch::now() });
        pool.count += 1;
        None
    });
    match refused {
        Some(server) => part(server),
        None => watch::look(),
    }
}

/// Lets go of what is of no more use; returns how many are kept.
pub(super) fn tidy(now: Instant) -> usize {
    POOL.with_borrow_mut(|pool| {
        let is_useful = |kept: &mut Kept| {
            !kept.endpoint.is_retired() && now.duration_since(kept.since) < KEPT_FOR && is_silent(&mut kept.server)
        };
        pool.kept.retain(|_, kept| {
            for useless in kept.extract_if(.., |kept| !is_useful(kept)) {
                part(useless.server);
            }
            !kept.is_empty()
        });
        pool.count = pool.kept.values().map(Vec::len).sum();
        pool.count
    })
}

/// Returns whether a connection is open and the other side has said nothing. Costs no system call while that is so.
fn is_silent(server: &mut Server) -> bool {
    let mut byte = [0];
    match server {
        Server::Here(tcp) => tcp.try_read(&mut byte).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
        Server::There(stream) => {
            let mut buffer = ReadBuf::new(&mut byte);
            // Whoever waits for it next is woken for it.
            Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer).is_pending()
        }
    }
}

/// Ends a connection. One to another host is given the time to end in peace.
pub(super) fn part(server: Server) {
    let Server::There(mut stream) = server else { return };
    tokio::spawn(async move {
        let ending = async {
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.as_mut().take(64 * 1024), &mut tokio::io::sink()).await
        };
        // Else it is reset, which costs the tunnel a handshake.
        let _in_peace = tokio::time::timeout(FAREWELL, ending).await;
    });
}

impl AsyncRead for Server {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Here(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::There(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Server {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Here(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::There(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Here(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::There(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Here(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::There(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
