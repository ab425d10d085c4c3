//! The search for an endpoint that takes a connection or a request: which one next, for how long, and what is learnt from
//! each try.
//!
//! An endpoint that fails is followed by the next best one, always by the latest table. When all have failed, or none is
//! ready, the search goes on for a while: a pod may turn ready, or another table may come, any moment. Who relays bytes and
//! who relays requests search alike, so that marks, leases and drain mean the same for both.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::balance::{Look, Wish};
use super::endpoint::{EndpointState, Lease, PortKey};
use super::pick::{PortHistory, mix, pick};
use super::routing::{Door, Pool, RemoteHost, Routing, Shared, Target};
use super::trouble::Trouble;
use crate::host::sockets;
use crate::ids::PodId;
use crate::mesh::{self, DialError, Kind, MeshStream, Refusal, TargetDoor};

/// How long a connection waits for an endpoint that takes it, all attempts included.
///
/// Longer than a container takes to come back after a crash (about a second with the first restart at once), shorter
/// than the five seconds after which many clients give up.
pub(super) const HOLD: Duration = Duration::from_secs(3);

/// Time for one connect. Endpoints are containers of this host or of one nearby: an answer takes microseconds, and a
/// SYN that is lost is sent again by the kernel after one second, which is when another endpoint is the better bet.
pub(super) const CONNECT: Duration = Duration::from_secs(1);

/// Time for one connect by way of another host's agent, which itself has [`CONNECT`] for the container: its answer, that
/// the container did not take the connection, is worth more than our impatience.
pub(super) const REMOTE_CONNECT: Duration = Duration::from_millis(1500);

/// First and longest pause between rounds over endpoints that all refused.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// The search for an endpoint, for one connection or request.
#[derive(Debug)]
pub(super) struct Search {
    shared: Arc<Shared>,
    door: Arc<Door>,
    /// Whether it is for datagrams: what is known of a port is known of connections or of datagrams to it.
    datagrams: bool,
    client: IpAddr,
    /// What of a request counts in the choice.
    wish: Wish,
    hold: Duration,
    /// Whether it waits for an endpoint to come up, or for its turn.
    is_patient: bool,
    deadline: Instant,
    /// There once it had to wait for something.
    changes: Option<watch::Receiver<()>>,
    pause: Duration,
    /// Endpoints that failed in this round.
    tried: Vec<Arc<EndpointState>>,
    /// Hosts whose agents failed in this round: none of their endpoints is tried in it.
    lost: Vec<Arc<RemoteHost>>,
    /// This host had no descriptor, memory or local port left: the round is over.
    is_exhausted: bool,
}

/// A connection to an endpoint.
#[derive(Debug)]
pub(super) enum Server {
    /// Of this host.
    Here(TcpStream),
    /// Of another host, through its agent.
    There(Box<MeshStream>),
}

/// The endpoint to try next, with its share of the endpoint's count.
#[derive(Debug)]
pub(super) struct Next {
    pool: Arc<Pool>,
    index: usize,
    port: u16,
    pub(super) lease: Lease,
}

impl Next {
    /// Returns where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.target().address), self.port)
    }

    /// Returns the pod.
    pub(super) fn pod(&self) -> &PodId {
        &self.target().pod
    }

    /// Returns the host that it is on, if not this one.
    pub(super) fn remote(&self) -> Option<&Arc<RemoteHost>> {
        self.target().remote.as_ref()
    }

    /// Returns the cookie that a client who `wishes` so is to be given with the answer, as `Set-Cookie` says it.
    pub(super) fn cookie(&self, wish: Wish, is_tls: bool) -> Option<String> {
        self.pool.cookie_for(self.index, wish, is_tls)
    }

    /// Notes that it did what it is for.
    pub(super) fn note_well(&self) {
        self.lease.note_well(self.port);
    }

    /// Notes that it did not, which may have it passed over.
    pub(super) fn note_ill(&self, shared: &Shared) {
        self.pool.note_ill(self.index, self.port.into(), shared.now());
    }

    fn target(&self) -> &Target {
        &self.pool.targets[self.index]
    }
}

/// A connection to be made, apart from the search that it is for.
#[derive(Debug)]
pub(super) struct Dial {
    shared: Arc<Shared>,
    endpoint: Arc<EndpointState>,
    address: SocketAddr,
    /// How its host is asked for it, if that is another one.
    remote: Option<(Arc<RemoteHost>, mesh::Target)>,
    deadline: Instant,
}

/// Why a search ended without an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fruitless {
    /// Nothing is behind the door: its virtual address, port or service is gone.
    NoDoor,
    /// No endpoint is ready.
    NoneReady,
    /// All that are ready failed.
    AllFailed,
    /// This host has no descriptor, memory or local port left.
    Exhausted,
}

impl Fruitless {
    /// Returns whether these words say that nobody was there, which another table may end.
    pub(super) fn is_nobody(words: &str) -> bool {
        [Self::NoDoor, Self::NoneReady].iter().any(|one| one.to_string() == words)
    }
}

impl std::fmt::Display for Fruitless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoDoor => "there is no such service, or it may not be reached from here",
            Self::NoneReady => "none of its pods is ready",
            Self::AllFailed => "none of its pods took the connection",
            Self::Exhausted => "this host has no room for another connection",
        })
    }
}

/// Why a round over the endpoints brought no connection.
enum Setback {
    NoDoor,
    NoneReady,
    AllFailed(PortHistory),
    Exhausted,
}

/// How one connect failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The endpoint did not take it.
    Endpoint,
    /// The agent of the endpoint's host gave no answer, or none that counts.
    Host,
    /// The endpoint left the table meanwhile.
    Overtaken,
    /// This host has no descriptor, memory or local port left.
    Exhausted,
}

impl Search {
    /// Begins a search for what is behind `door`, which may take `hold` in all.
    pub(super) fn new(shared: &Arc<Shared>, door: Arc<Door>, client: IpAddr, hold: Duration) -> Self {
        Self {
            shared: Arc::clone(shared),
            door,
            datagrams: false,
            client,
            wish: Wish::default(),
            hold,
            is_patient: true,
            deadline: Instant::now() + hold,
            changes: None,
            pause: PAUSE,
            tried: Vec::new(),
            lost: Vec::new(),
            is_exhausted: false,
        }
    }

    /// The same for datagrams.
    pub(super) fn of_datagrams(shared: &Arc<Shared>, door: Arc<Door>, client: IpAddr, hold: Duration) -> Self {
        Self { datagrams: true, ..Self::new(shared, door, client, hold) }
    }

    /// The same for a request that says something of where it wants to go.
    pub(super) fn wishing(self, wish: Wish) -> Self {
        Self { wish, ..self }
    }

    /// The same by one round over the endpoints that are ready: nothing is waited for but that they take it.
    pub(super) fn at_once(self) -> Self {
        Self { is_patient: false, ..self }
    }

    /// Returns a connection to an endpoint, with its share of the endpoint's count.
    pub(super) async fn link(mut self) -> Result<(Server, Lease), Fruitless> {
        loop {
            let next = self.next().await?;
            if let Some(server) = self.connect(&next).await {
                // Of a connection nothing more is known than that it was taken.
                next.note_well();
                return Ok((server, next.lease));
            }
        }
    }

    /// Returns a new search for the same.
    pub(super) fn anew(&self) -> Self {
        Self {
            datagrams: self.datagrams,
            wish: self.wish,
            is_patient: self.is_patient,
            ..Self::new(&self.shared, self.door.clone(), self.client, self.hold)
        }
    }

    /// Returns the best endpoint that was not yet tried in this round, if there is one now.
    pub(super) fn next_now(&self) -> Option<Next> {
        self.look().ok()
    }

    /// Returns the best endpoint that was not yet tried in this round; waits for another round where that may help.
    pub(super) async fn next(&mut self) -> Result<Next, Fruitless> {
        loop {
            let setback = match self.look() {
                Ok(next) => return Ok(next),
                Err(setback) => setback,
            };
            // From here on it hears of changes; what changed before that, another look shows.
            let Some(changes) = &mut self.changes else {
                self.changes = Some(self.shared.changes());
                continue;
            };
            let (fruitless, until) = match setback {
                Setback::NoDoor => return Err(Fruitless::NoDoor),
                Setback::NoneReady => (Fruitless::NoneReady, self.deadline),
                Setback::AllFailed(history) if !history.is_worth_waiting(self.hold) => {
                    return Err(Fruitless::AllFailed);
                }
                Setback::AllFailed(_) => (Fruitless::AllFailed, self.deadline.min(Instant::now() + self.pause)),
                Setback::Exhausted => (Fruitless::Exhausted, self.deadline.min(Instant::now() + self.pause)),
            };
            if !self.is_patient {
                return Err(fruitless);
            }
            // Whether a change or the end of the pause woke it: another round.
            let _woken = timeout_at(until, changes.changed()).await;
            if Instant::now() >= self.deadline {
                return Err(fruitless);
            }
            changes.mark_unchanged();
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            self.tried.clear();
            self.lost.clear();
            self.is_exhausted = false;
        }
    }

    /// Connects to an endpoint within the time that is left, and notes how that went; `None` if it failed.
    pub(super) async fn connect(&mut self, next: &Next) -> Option<Server> {
        match self.dial(next).connect().await {
            Ok(server) => {
                next.lease.note_success(self.key(next.port));
                Some(server)
            }
            Err(failure) => {
                self.note_failure(next, failure);
                None
            }
        }
    }

    /// Returns how another host is asked for an endpoint of its own; `None`: it is here.
    pub(super) fn remote(&self, next: &Next) -> Option<(Arc<RemoteHost>, mesh::Target)> {
        next.remote().map(|host| {
            let pool = &next.pool;
            let target = mesh::Target {
                project: pool.project.clone(),
                service: pool.service.clone(),
                container: next.lease.container.clone(),
                port: next.port,
                door: target_door(&self.shared.routing(), pool, &self.door, self.client),
            };
            (Arc::clone(host), target)
        })
    }

    /// Returns the connection to be made to an endpoint.
    pub(super) fn dial(&self, next: &Next) -> Dial {
        let remote = self.remote(next);
        Dial {
            shared: Arc::clone(&self.shared),
            endpoint: next.lease.endpoint(),
            address: next.address(),
            remote,
            deadline: self.deadline,
        }
    }

    /// Notes that an endpoint failed: it is not tried again in this round, and avoided by others for a while.
    pub(super) fn note_failure(&mut self, next: &Next, failure: Failure) {
        match failure {
            Failure::Endpoint | Failure::Host => {
                let now = self.shared.now();
                next.lease.note_failure(self.key(next.port), now);
                if failure == Failure::Endpoint {
                    next.pool.note_ill(next.index, self.key(next.port), now);
                    if self.datagrams {
                        next.lease.troubles.note(next.port, Trouble::DatagramsRefused, now);
                    }
                }
                self.tried.push(next.lease.endpoint());
                if let Some(host) = next.remote().filter(|_| failure == Failure::Host) {
                    host.note_failure(now);
                    self.lost.push(Arc::clone(host));
                }
            }
            Failure::Overtaken => {}
            Failure::Exhausted => self.is_exhausted = true,
        }
    }

    /// The best endpoint not yet tried in this round, by the latest table.
    fn look(&self) -> Result<Next, Setback> {
        if self.is_exhausted {
            return Err(Setback::Exhausted);
        }
        let now = self.shared.now();
        let routing = self.shared.routing();
        let (pool, port) = routing.behind(&self.door).ok_or(Setback::NoDoor)?;
        let look = Look { port: self.key(port), now, client: self.client, wish: self.wish };
        choose(pool, port, &look, &self.tried, &self.lost).ok_or_else(|| self.setback(port, now))
    }

    fn key(&self, port: u16) -> PortKey {
        if self.datagrams { PortKey::datagrams(port) } else { port.into() }
    }

    fn setback(&self, port: u16, now: Duration) -> Setback {
        let Some(youngest) = self.tried.iter().map(|state| now.saturating_sub(state.since)).min() else {
            return Setback::NoneReady;
        };
        // Of a port behind an agent that failed nothing is known: it counts as one that may come up.
        let served_before = !self.lost.is_empty() || self.tried.iter().any(|state| state.served_before(self.key(port)));
        Setback::AllFailed(PortHistory { served_before, youngest })
    }
}

/// Returns the endpoint of a pool that a request to `port` goes to first at `now`; `None`: a [`Search`] is needed.
pub(super) fn first(pool: &Arc<Pool>, port: u16, now: Duration, client: IpAddr, wish: Wish) -> Option<Next> {
    choose(pool, port, &Look { port: port.into(), now, client, wish }, &[], &[])
}

/// Returns the best endpoint of a pool that is neither among the `tried` nor on a `lost` host.
fn choose(
    pool: &Arc<Pool>,
    port: u16,
    look: &Look,
    tried: &[Arc<EndpointState>],
    lost: &[Arc<RemoteHost>],
) -> Option<Next> {
    let is_usable = |index: usize| {
        let Target { state, remote, .. } = &pool.targets[index];
        !state.is_retired()
            && !tried.iter().any(|tried| Arc::ptr_eq(tried, state))
            && !lost.iter().any(|lost| remote.as_ref().is_some_and(|host| Arc::ptr_eq(lost, host)))
    };
    let next = |index: usize| {
        let lease = pool.targets[index].state.lease()?;
        Some(Next { pool: Arc::clone(pool), index, port, lease })
    };
    if let Some(next) = pool.named(look).filter(|index| is_usable(*index)).and_then(next) {
        return Some(next);
    }
    loop {
        let candidate = |index: usize| is_usable(index).then(|| pool.candidate(&pool.targets[index], look));
        let index = pick(pool.targets.len(), pool.choice(look), candidate)?;
        // Without a lease it has just been retired, which the next look sees.
        if let Some(next) = next(index) {
            return Some(next);
        }
    }
}

impl Dial {
    /// Returns whom it is to.
    pub(super) fn endpoint(&self) -> &Arc<EndpointState> {
        &self.endpoint
    }

    /// Connects, within the time for one connect.
    pub(super) async fn connect(&self) -> Result<Server, Failure> {
        let patience = if self.remote.is_some() { REMOTE_CONNECT } else { CONNECT };
        let until = self.deadline.min(Instant::now() + patience);
        let mut changes = self.shared.changes();
        let connecting = async {
            match &self.remote {
                // Boxed: most connections never need it.
                Some((host, target)) => Box::pin(connect_there(&self.shared, host, target)).await,
                None => connect_here(self.address).await,
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = connecting => outcome,
            () = retired(&mut changes, &self.endpoint) => return Err(Failure::Overtaken),
            () = tokio::time::sleep_until(until) => match self.remote {
                // Only its whole time says something of the host; else it was the client's that ran out.
                Some(_) if until < self.deadline => Err((Failure::Host, Trouble::Host)),
                _ => Err((Failure::Endpoint, Trouble::Silent)),
            },
        };
        outcome.map_err(|(failure, trouble)| {
            if failure != Failure::Exhausted {
                self.endpoint.troubles.note(self.address.port(), trouble, self.shared.now());
            }
            failure
        })
    }
}

/// By what right the client may reach the service, as the other host's agent is told.
fn target_door(routing: &Routing, pool: &Pool, door: &Door, client: IpAddr) -> TargetDoor {
    let id = match door {
        // An external link's address is in the caller's network, and what is behind it in another project.
        Door::Vip { network, .. } if pool.project != network.project => return TargetDoor::Exported,
        Door::Vip { network, .. } => network,
        // What a rule leads to is published by it.
        Door::Published(_) | Door::Rule { .. } => return TargetDoor::Published,
        Door::Exported { .. } => return TargetDoor::Exported,
    };
    let source = match client {
        IpAddr::V4(client) => routing.service_at(id, client),
        IpAddr::V6(_) => None,
    };
    let network = id.network.clone();
    if pool.is_single { TargetDoor::Pod { network, source } } else { TargetDoor::Network { network, source } }
}

async fn connect_here(address: SocketAddr) -> Result<Server, (Failure, Trouble)> {
    match connect(address).await {
        Ok(stream) => Ok(Server::Here(stream)),
        Err(error) if is_own_limit(&error) => Err((Failure::Exhausted, Trouble::Unreachable)),
        Err(error) => Err((Failure::Endpoint, Trouble::of(&error))),
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

async fn connect_there(
    shared: &Shared,
    host: &RemoteHost,
    target: &mesh::Target,
) -> Result<Server, (Failure, Trouble)> {
    let peer = shared.mesh().and_then(|mesh| mesh.peer(&host.name).map(|peer| (mesh, peer)));
    let Some((mesh, peer)) = peer else {
        tracing::debug!(host = %host.name, "an endpoint's host has no known agent");
        return Err((Failure::Host, Trouble::Host));
    };
    match mesh.dial(&peer, &Kind::Tcp(target.clone())).await {
        Ok(stream) => {
            host.note_success();
            Ok(Server::There(Box::new(stream)))
        }
        Err(DialError::Exhausted(_)) => Err((Failure::Exhausted, Trouble::Host)),
        Err(DialError::Refused { reason, .. }) => {
            shared.denied.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(host = %host.name, service = %target.service, port = target.port, %reason, "denied");
            let failure = failure_of(&reason);
            if failure == Failure::Endpoint {
                host.note_success();
            }
            let trouble = match (&reason, failure) {
                // Its own agent saw what its kernel said, which comes as text.
                (Refusal::Unconnected { reason }, _) if reason.contains("refused") => Trouble::Refused,
                (Refusal::Unconnected { reason }, _) if reason.contains("no answer") => Trouble::Silent,
                (_, Failure::Endpoint) => Trouble::Unreachable,
                _ => Trouble::Host,
            };
            Err((failure, trouble))
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(host = %host.name, %error, cause, "cannot reach another host's endpoints");
            Err((Failure::Host, Trouble::Host))
        }
    }
}

/// Says what it means that another host's agent denied an endpoint.
pub(super) fn failure_of(reason: &Refusal) -> Failure {
    match reason {
        Refusal::NotAccepted { .. }
        | Refusal::NotMember
        | Refusal::NotOffered { .. }
        | Refusal::NotServed
        | Refusal::NotUnderstood => Failure::Host,
        Refusal::UnknownEndpoint { .. }
        | Refusal::NotAllowed { .. }
        | Refusal::Unconnected { .. }
        | Refusal::NoSnapshot { .. }
        | Refusal::Busy { .. } => Failure::Endpoint,
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
pub(super) fn luck() -> u64 {
    use std::cell::Cell;
    use std::hash::{BuildHasher, RandomState};
    thread_local!(static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0)));
    STATE.with(|state| {
        let next = state.get().wrapping_add(1);
        state.set(next);
        mix(next)
    })
}
