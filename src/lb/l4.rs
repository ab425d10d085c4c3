//! TCP through the balancer: find what the connection is for, an endpoint that takes it, then relay bytes.
//!
//! A connection that no endpoint takes at once is held: a pod may turn ready, or another table may come, any moment. It
//! is never answered by something else: when the patience is over the client gets a reset, as near to "connection
//! refused" as an accepted connection can come.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::endpoint::{EndpointState, Lease};
use super::listeners::Serve;
use super::pick::{Candidate, PortHistory, mix, pick};
use super::relay::relay;
use super::routing::{Door, Shared};
use super::table::{NetworkId, PublishedKey};
use crate::host::sockets;

/// How long a connection waits for an endpoint that takes it, all attempts included.
///
/// Longer than a container takes to come back after a crash (about a second with the first restart at once), shorter
/// than the five seconds after which many clients give up.
pub const HOLD: Duration = Duration::from_secs(3);

/// Time for one connect. Endpoints are containers of this host or of one nearby: an answer takes microseconds, and a
/// SYN that is lost is sent again by the kernel after one second, which is when another endpoint is the better bet.
const CONNECT: Duration = Duration::from_secs(1);

/// First and longest pause between rounds over endpoints that all refused.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// What a listener's connections are for.
#[derive(Debug, Clone)]
pub(super) enum Inlet {
    /// Redirected from the virtual addresses of a network.
    Vip(NetworkId),
    /// Made to a published port.
    Published(PublishedKey),
}

/// Serves the connections of one listener.
#[derive(Debug)]
pub(super) struct L4 {
    pub(super) shared: Arc<Shared>,
    pub(super) inlet: Inlet,
    pub(super) hold: Duration,
    pub(super) refused: Arc<AtomicU64>,
}

impl Serve for L4 {
    async fn serve(self: Arc<Self>, client: TcpStream, peer: SocketAddr) {
        let link = match self.door(&client) {
            Some(door) => Linking::new(&self, &door).link().await,
            None => None,
        };
        if let Some((server, lease)) = link {
            relay(client, server, &lease).await;
        } else {
            tracing::debug!(inlet = ?self.inlet, %peer, "connection refused: no endpoint took it");
            self.refused.fetch_add(1, Ordering::Relaxed);
            sockets::reset_on_close(&client);
        }
    }
}

impl L4 {
    /// What the client asked for; `None` if it came to the listener without a redirect.
    fn door(&self, client: &TcpStream) -> Option<Door> {
        match &self.inlet {
            Inlet::Published(key) => Some(Door::Published(*key)),
            Inlet::Vip(network) => {
                let destination = sockets::original_destination(client).ok()?;
                Some(Door::Vip { network: network.clone(), address: *destination.ip(), port: destination.port() })
            }
        }
    }
}

/// The search for an endpoint, for one connection.
struct Linking<'a> {
    shared: &'a Shared,
    door: &'a Door,
    hold: Duration,
    deadline: Instant,
    changes: watch::Receiver<()>,
    /// Endpoints that failed in this round.
    tried: Vec<Arc<EndpointState>>,
}

/// Why a round over the endpoints brought no connection.
enum Setback {
    /// Nothing is behind the door: its virtual address or port is gone.
    NoDoor,
    /// No endpoint is ready.
    NoneReady,
    /// All that are ready failed.
    AllFailed(PortHistory),
    /// This host has no descriptor, memory or local port left.
    Exhausted,
}

/// How one connect ended.
enum Attempt {
    Connected(TcpStream),
    Failed,
    /// The endpoint left the table meanwhile.
    Overtaken,
    Exhausted,
}

impl<'a> Linking<'a> {
    fn new(l4: &'a L4, door: &'a Door) -> Self {
        let (shared, hold) = (&*l4.shared, l4.hold);
        Self { shared, door, hold, deadline: Instant::now() + hold, changes: shared.changes(), tried: Vec::new() }
    }

    /// Returns a connection to an endpoint, with its share of the endpoint's count; `None` when the search is over.
    async fn link(mut self) -> Option<(TcpStream, Lease)> {
        let mut pause = PAUSE;
        loop {
            self.changes.mark_unchanged();
            let until = match self.round().await {
                Ok(link) => return Some(link),
                Err(Setback::NoDoor) => return None,
                Err(Setback::NoneReady) => self.deadline,
                Err(Setback::AllFailed(history)) if !history.is_worth_waiting(self.hold) => return None,
                Err(Setback::AllFailed(_) | Setback::Exhausted) => self.deadline.min(Instant::now() + pause),
            };
            // Whether a change or the end of the pause woke it: another round.
            let _woken = timeout_at(until, self.changes.changed()).await;
            if Instant::now() >= self.deadline {
                return None;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Tries each endpoint once, best first, always by the latest table.
    async fn round(&mut self) -> Result<(TcpStream, Lease), Setback> {
        self.tried.clear();
        loop {
            let (address, lease) = self.next()?;
            match self.attempt(address, &lease).await {
                Attempt::Connected(stream) => {
                    lease.note_success(address.port());
                    return Ok((stream, lease));
                }
                Attempt::Failed => {
                    lease.note_failure(address.port(), self.shared.now());
                    self.tried.push(lease.endpoint());
                }
                Attempt::Overtaken => {}
                Attempt::Exhausted => return Err(Setback::Exhausted),
            }
        }
    }

    /// The best endpoint not yet tried in this round.
    fn next(&self) -> Result<(SocketAddr, Lease), Setback> {
        let now = self.shared.now();
        loop {
            let routing = self.shared.routing();
            let (pool, port) = routing.behind(self.door).ok_or(Setback::NoDoor)?;
            let candidate = |index: usize| {
                let target = &pool.targets[index];
                let state = &target.state;
                let usable = !state.is_retired() && !self.tried.iter().any(|tried| Arc::ptr_eq(tried, state));
                usable.then(|| Candidate {
                    marked_down: state.is_marked_down(port, now),
                    remote: target.remote,
                    in_flight: state.open(),
                })
            };
            let Some(index) = pick(pool.targets.len(), luck(), candidate) else {
                return Err(self.setback(port, now));
            };
            let target = &pool.targets[index];
            // Without a lease it has just been retired, which the next look sees.
            if let Some(lease) = target.state.lease() {
                return Ok((SocketAddr::new(IpAddr::V4(target.address), port), lease));
            }
        }
    }

    fn setback(&self, port: u16, now: Duration) -> Setback {
        let Some(youngest) = self.tried.iter().map(|state| now.saturating_sub(state.since)).min() else {
            return Setback::NoneReady;
        };
        let served_before = self.tried.iter().any(|state| state.served_before(port));
        Setback::AllFailed(PortHistory { served_before, youngest })
    }

    async fn attempt(&mut self, address: SocketAddr, lease: &Lease) -> Attempt {
        let Ok(socket) = sockets::client(address).map(TcpSocket::from_std_stream) else { return Attempt::Exhausted };
        let until = self.deadline.min(Instant::now() + CONNECT);
        let connecting = async {
            match socket.connect(address).await {
                Ok(stream) => Attempt::Connected(stream),
                Err(error) if sockets::is_exhausted(&error) => Attempt::Exhausted,
                Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => Attempt::Exhausted,
                Err(_) => Attempt::Failed,
            }
        };
        tokio::select! {
            biased;
            outcome = connecting => outcome,
            () = retired(&mut self.changes, lease) => Attempt::Overtaken,
            () = tokio::time::sleep_until(until) => Attempt::Failed,
        }
    }
}

/// Resolves when the endpoint has left the table.
async fn retired(changes: &mut watch::Receiver<()>, endpoint: &EndpointState) {
    while !endpoint.is_retired() {
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// A number that is different each time, from a sequence of this thread's own.
fn luck() -> u64 {
    use std::cell::Cell;
    use std::hash::{BuildHasher, RandomState};
    thread_local!(static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0)));
    STATE.with(|state| {
        let next = state.get().wrapping_add(1);
        state.set(next);
        mix(next)
    })
}
