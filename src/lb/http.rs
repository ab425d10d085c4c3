//! HTTP through the balancer: each request of a connection goes to a pod of its own, and is told of the client.
//!
//! Start at [`Http::serve_door`] and [`RuleInlet`]. Two paths serve requests: `fast` plain HTTP/1.1 in a loop of our own,
//! `general` everything else by pingora's proxy; which one is decided for each request anew (`head`), and both use the same
//! rules (`route`), search (`choose`), fields (`forward`) and counters (`count`). A test compares them, byte for byte where
//! that is owed.
//!
//! It must never pass on what it read in its own way only: heads are written anew from their parts, bodies are followed to
//! their end, and what can be read in two ways is refused.

mod answer;
mod buffer;
mod chunked;
mod connection;
mod count;
pub mod dry;
mod fast;
mod forward;
mod general;
mod head;
mod held;
mod lines;
mod link;
mod log;
mod pool;
mod ports;
mod refusal;
mod route;
mod stream;
mod tls;
mod transfer;
mod visit;
mod watch;
mod wish;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::listeners::Serve;
use super::routing::{Door, Shared};
use forward::Client;
use held::Room;
use stream::ClientIo;
use visit::{Entry, Visit};

pub use count::{DURATION_CLASSES, HttpStats, REFUSALS};
pub use log::{AccessAsked, AccessLine, AccessLog, AccessTo};

pub(super) use count::Tally;
pub(super) use ports::{PortRules, Rule, compile};

/// How requests are served.
#[derive(Debug, Clone, Copy)]
pub struct HttpOptions {
    /// Whether plain HTTP/1.1 takes the fast path. Nothing but speed depends on it.
    pub is_fast: bool,
    /// Limits of time.
    pub limits: Limits,
    /// Bytes that are held for all connections together of what came over the network and waits.
    pub held: usize,
}

/// What all connections may hold: as many as a host may have (`max_connections`) have 4 KiB each, an ordinary head with room for its
/// answer's, or some two thousand of them the largest request that there is (64 KiB of head and of body).
const HELD: usize = 256 << 20;

/// Limits of time. What is waited for may take a quarter of a second longer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Between two parts of a request's body.
    pub body: Duration,
    /// For the other side to take some of what is sent.
    pub write: Duration,
    /// From a request to the head of its answer, where no rule says otherwise. Pods that speak HTTP/2 have all the time
    /// they want: calls that stream may say nothing for hours.
    pub answer: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { is_fast: true, limits: Limits::default(), held: HELD }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let minute = Duration::from_mins(1);
        Self { head: Duration::from_secs(10), idle: minute, body: minute, write: minute, answer: minute }
    }
}

/// Serves requests.
#[derive(Debug)]
pub(super) struct Http {
    shared: Arc<Shared>,
    hold: Duration,
    is_fast: bool,
    limits: Limits,
    /// What each thread may hold.
    room: Room,
    /// Set when the balancer stops: answers say so, and connections between two requests end.
    stop: Arc<AtomicBool>,
    /// The same for pingora.
    stopping: tokio::sync::watch::Sender<bool>,
    /// What was no request that could be served.
    refused: AtomicU64,
    /// What was refused because too much was held.
    crowded: AtomicU64,
    log: Arc<AccessLog>,
}

impl Http {
    /// `threads` is how many serve.
    pub(super) fn new(shared: &Arc<Shared>, hold: Duration, threads: usize, options: HttpOptions) -> Arc<Self> {
        let HttpOptions { is_fast, limits, held } = options;
        Arc::new(Self {
            shared: Arc::clone(shared),
            hold,
            is_fast,
            limits,
            room: Room::new(held, threads),
            stop: Arc::default(),
            stopping: tokio::sync::watch::Sender::new(false),
            refused: AtomicU64::default(),
            crowded: AtomicU64::default(),
            log: Arc::default(),
        })
    }

    /// Lets connections end with the request that they serve.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.stopping.send_replace(true);
    }

    /// Returns how many connections brought what was no request that could be served.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns how many requests were refused because too much was held already.
    pub(super) fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Returns the queue of lines of the access log.
    pub(super) fn log(&self) -> &Arc<AccessLog> {
        &self.log
    }

    fn count_crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }

    fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Serves a connection to one port of a service. `port` is what the client asked at.
    pub(super) async fn serve_door(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr, door: Arc<Door>, port: u16) {
        let is_inside = matches!(*door, Door::Vip { .. });
        let client = Client { address: address(peer), is_tls: false, port, is_inside };
        connection::serve(self, Visit::new(Entry::Door(door), client, peer), ClientIo::Plain(tcp)).await;
    }
}

/// An address as pods are told: IPv4 as such also where it came to a socket of both families.
fn address(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}

/// Serves the connections of a port that rules are for.
pub(super) struct RuleInlet {
    http: Arc<Http>,
    port: u16,
    tls: TlsAcceptor,
}

impl RuleInlet {
    /// # Errors
    /// There is no TLS to be had.
    pub(super) fn new(http: &Arc<Http>, port: u16) -> Result<Self, rustls::Error> {
        Ok(Self { http: Arc::clone(http), port, tls: tls::acceptor(&http.shared, port)? })
    }
}

impl Serve for RuleInlet {
    async fn serve(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr) {
        let Ok(local) = tcp.local_addr() else { return };
        let (port, local) = (self.port, local.ip().to_canonical());
        // By the table of the moment: a port that turns to TLS goes on listening.
        let is_tls = self.http.shared.routing().rules(port).is_some_and(|rules| rules.is_tls);
        let client = Client { address: address(peer), is_tls, port, is_inside: false };
        let visit = Visit::new(Entry::Rules { port, local }, client, peer);
        let io = if is_tls {
            let handshake = Box::pin(tokio::time::timeout(self.http.limits.head, self.tls.accept(tcp)));
            match handshake.await {
                Ok(Ok(tls)) => ClientIo::Tls(Box::new(tls)),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, port, %error, "no TLS");
                    return self.http.count_refused();
                }
                Err(_) => return self.http.count_refused(),
            }
        } else {
            ClientIo::Plain(tcp)
        };
        Box::pin(connection::serve(Arc::clone(&self.http), visit, io)).await;
    }

    fn is_for_anybody(&self) -> bool {
        true
    }
}
