//! TCP through the balancer: find what the connection is for, an endpoint that takes it, then relay bytes.
//!
//! A connection that no endpoint takes at once is held: a pod may turn ready, or another table may come, any moment. It
//! is never answered by something else: when the patience is over the client gets a reset, as near to "connection
//! refused" as an accepted connection can come.

use std::io;
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
use super::routing::{Door, Pool, RemoteHost, Routing, Shared};
use super::table::{NetworkId, PublishedKey};
use crate::host::sockets;
use crate::mesh::{DialError, Kind, MeshStream, Refusal, Target, TargetDoor};

/// How long a connection waits for an endpoint that takes it, all attempts included.
///
/// Longer than a container takes to come back after a crash (about a second with the first restart at once), shorter
/// than the five seconds after which many clients give up.
pub const HOLD: Duration = Duration::from_secs(3);

/// Time for one connect. Endpoints are containers of this host or of one nearby: an answer takes microseconds, and a
/// SYN that is lost is sent again by the kernel after one second, which is when another endpoint is the better bet.
pub(super) const CONNECT: Duration = Duration::from_secs(1);

/// Time for one connect by way of another host's agent, which itself has [`CONNECT`] for the container: its answer, that
/// the container did not take the connection, is worth more than our impatience.
const REMOTE_CONNECT: Duration = Duration::from_millis(1500);

/// First and longest pause between rounds over endpoints that all refused.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// What a listener's connections are for.
#[derive(Debug, Clone)]
pub(super) enum Inlet {
    /// Redirected from the virtual addresses of a network, or those of its pods on other hosts.
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
            Some(door) => Linking::new(&self, &door, peer.ip()).link().await,
            None => None,
        };
        if let Some((server, lease)) = link {
            match server {
                Server::Here(server) => relay(client, server, &lease).await,
                Server::There(server) => relay(client, *server, &lease).await,
            }
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
    client: IpAddr,
    hold: Duration,
    deadline: Instant,
    changes: watch::Receiver<()>,
    /// Endpoints that failed in this round.
    tried: Vec<Arc<EndpointState>>,
    /// Hosts whose agents failed in this round: none of their endpoints is tried in it.
    lost: Vec<Arc<RemoteHost>>,
}

/// A connection to an endpoint.
enum Server {
    /// Of this host.
    Here(TcpStream),
    /// Of another host, through its agent.
    There(Box<MeshStream>),
}

/// The endpoint to try next.
struct Next {
    address: SocketAddr,
    lease: Lease,
    remote: Option<Remote>,
}

/// How to ask another host's agent for an endpoint.
struct Remote {
    host: Arc<RemoteHost>,
    target: Target,
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
    Connected(Server),
    Failed,
    /// The agent of the endpoint's host gave no answer, or none that counts.
    HostFailed,
    /// The endpoint left the table meanwhile.
    Overtaken,
    Exhausted,
}

impl<'a> Linking<'a> {
    fn new(l4: &'a L4, door: &'a Door, client: IpAddr) -> Self {
        let (shared, hold) = (&*l4.shared, l4.hold);
        let (deadline, changes) = (Instant::now() + hold, shared.changes());
        Self { shared, door, client, hold, deadline, changes, tried: Vec::new(), lost: Vec::new() }
    }

    /// Returns a connection to an endpoint, with its share of the endpoint's count; `None` when the search is over.
    async fn link(mut self) -> Option<(Server, Lease)> {
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
    async fn round(&mut self) -> Result<(Server, Lease), Setback> {
        self.tried.clear();
        self.lost.clear();
        loop {
            let Next { address, lease, remote } = self.next()?;
            let outcome = self.attempt(address, &lease, remote.as_ref()).await;
            match outcome {
                Attempt::Connected(server) => {
                    lease.note_success(address.port());
                    return Ok((server, lease));
                }
                Attempt::Failed | Attempt::HostFailed => {
                    let now = self.shared.now();
                    lease.note_failure(address.port(), now);
                    self.tried.push(lease.endpoint());
                    if let Some(Remote { host, .. }) = remote.filter(|_| matches!(outcome, Attempt::HostFailed)) {
                        host.note_failure(now);
                        self.lost.push(host);
                    }
                }
                Attempt::Overtaken => {}
                Attempt::Exhausted => return Err(Setback::Exhausted),
            }
        }
    }

    /// The best endpoint not yet tried in this round.
    fn next(&self) -> Result<Next, Setback> {
        let now = self.shared.now();
        loop {
            let routing = self.shared.routing();
            let (pool, port) = routing.behind(self.door).ok_or(Setback::NoDoor)?;
            let candidate = |index: usize| {
                let target = &pool.targets[index];
                let state = &target.state;
                let host = target.remote.as_ref();
                let usable = !state.is_retired()
                    && !self.tried.iter().any(|tried| Arc::ptr_eq(tried, state))
                    && !self.lost.iter().any(|lost| host.is_some_and(|host| Arc::ptr_eq(lost, host)));
                usable.then(|| Candidate {
                    marked_down: state.is_marked_down(port, now) || host.is_some_and(|host| host.is_marked_down(now)),
                    remote: host.is_some(),
                    in_flight: state.open(),
                })
            };
            let Some(index) = pick(pool.targets.len(), luck(), candidate) else {
                return Err(self.setback(port, now));
            };
            let target = &pool.targets[index];
            // Without a lease it has just been retired, which the next look sees.
            if let Some(lease) = target.state.lease() {
                let remote = target.remote.as_ref().map(|host| Remote {
                    host: Arc::clone(host),
                    target: Target {
                        project: pool.project.clone(),
                        service: pool.service.clone(),
                        container: target.state.container.clone(),
                        port,
                        door: self.target_door(&routing, pool),
                    },
                });
                return Ok(Next { address: SocketAddr::new(IpAddr::V4(target.address), port), lease, remote });
            }
        }
    }

    /// By what right the client may reach the service, as the other host's agent is told.
    fn target_door(&self, routing: &Routing, pool: &Pool) -> TargetDoor {
        let Door::Vip { network: id, .. } = self.door else { return TargetDoor::Published };
        let source = match self.client {
            IpAddr::V4(client) => routing.service_at(id, client),
            IpAddr::V6(_) => None,
        };
        let network = id.network.clone();
        if pool.is_single { TargetDoor::Pod { network, source } } else { TargetDoor::Network { network, source } }
    }

    fn setback(&self, port: u16, now: Duration) -> Setback {
        let Some(youngest) = self.tried.iter().map(|state| now.saturating_sub(state.since)).min() else {
            return Setback::NoneReady;
        };
        // Of a port behind an agent that failed nothing is known: it counts as one that may come up.
        let served_before = !self.lost.is_empty() || self.tried.iter().any(|state| state.served_before(port));
        Setback::AllFailed(PortHistory { served_before, youngest })
    }

    async fn attempt(&mut self, address: SocketAddr, lease: &Lease, remote: Option<&Remote>) -> Attempt {
        let patience = if remote.is_some() { REMOTE_CONNECT } else { CONNECT };
        let until = self.deadline.min(Instant::now() + patience);
        let shared = self.shared;
        let connecting = async {
            match remote {
                // Boxed: most connections never need it.
                Some(remote) => Box::pin(connect_there(shared, remote)).await,
                None => connect_here(address).await,
            }
        };
        tokio::select! {
            biased;
            outcome = connecting => outcome,
            () = retired(&mut self.changes, lease) => Attempt::Overtaken,
            () = tokio::time::sleep_until(until) => match remote {
                // Only its whole time says something of the host; else it was the client's that ran out.
                Some(_) if until < self.deadline => Attempt::HostFailed,
                _ => Attempt::Failed,
            },
        }
    }
}

async fn connect_here(address: SocketAddr) -> Attempt {
    match connect(address).await {
        Ok(stream) => Attempt::Connected(Server::Here(stream)),
        Err(error) if is_own_limit(&error) => Attempt::Exhausted,
        Err(_) => Attempt::Failed,
    }
}

/// Connects to a container of this host.
pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpSocket::from_std_stream(sockets::client(address)?).connect(address).await
}

/// Returns whether a connect failed because this host has no descriptor, memory or local port left.
pub(super) fn is_own_limit(error: &io::Error) -> bool {
    sockets::is_exhausted(error) || error.kind() == io::ErrorKind::AddrNotAvailable
}

async fn connect_there(shared: &Shared, Remote { host, target }: &Remote) -> Attempt {
    let peer = shared.mesh().and_then(|mesh| mesh.peer(&host.name).map(|peer| (mesh, peer)));
    let Some((mesh, peer)) = peer else {
        tracing::debug!(host = %host.name, "an endpoint's host has no known agent");
        return Attempt::HostFailed;
    };
    match mesh.dial(&peer, &Kind::Tcp(target.clone())).await {
        Ok(stream) => {
            host.note_success();
            Attempt::Connected(Server::There(Box::new(stream)))
        }
        Err(DialError::Exhausted(_)) => Attempt::Exhausted,
        Err(DialError::Refused { reason, .. }) => {
            shared.denied.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(host = %host.name, service = %target.service, port = target.port, %reason, "denied");
            match reason {
                Refusal::NotAccepted { .. }
                | Refusal::NotMember
                | Refusal::NotOffered { .. }
                | Refusal::NotServed
                | Refusal::NotUnderstood => Attempt::HostFailed,
                Refusal::UnknownEndpoint { .. }
                | Refusal::NotAllowed { .. }
                | Refusal::Unconnected { .. }
                | Refusal::NoSnapshot { .. }
                | Refusal::Busy { .. } => {
                    host.note_success();
                    Attempt::Failed
                }
            }
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(host = %host.name, %error, cause, "cannot reach another host's endpoints");
            Attempt::HostFailed
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
