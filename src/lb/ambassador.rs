//! Ambassadors: the agent listens inside a pod's namespace and relays what comes there to something elsewhere.
//!
//! The application speaks plain TCP to an address of its own; which of several targets takes the connection, on which host it is,
//! whether it is spoken to by TLS, and how often that is tried, is decided here. A target that fails again and again is left
//! alone for a while (its breaker is open); after that one connection tries it. When no target takes a connection, it is reset:
//! as near to "connection refused" as an accepted connection can come.

mod breaker;
mod outside;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::choose::{Fruitless, Search, Server, is_own_limit};
use super::endpoint::{EndpointState, Lease};
use super::listeners::Serve;
use super::relay::{Count, relay_counted};
use super::routing::{Door, Routing, Shared};
use super::table::{AmbassadorEntry, AmbassadorKey, AmbassadorWay};
use crate::host::sockets;

use breaker::Switch;
use outside::Outside;
use tls::Tls;

/// Pause before the second round over the targets; it doubles with each.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Of all connections that a host may have, one ambassador has one in so many at most, and all of them together leave as much to
/// the rest. Ambassadors may lead to one another in a circle, over projects that know nothing of each other: a connection into it
/// is a thousand at once, and where none of them could be refused the host would wait for itself.
const SHARE: usize = 4;

/// One ambassador of one pod, as long as the table has it.
#[derive(Debug)]
pub(super) struct Ambassador {
    entry: AmbassadorEntry,
    targets: Vec<Arc<Target>>,
    /// `None`: the file says no TLS; an error: what is wrong with it.
    tls: Option<Result<Tls, String>>,
    counts: Arc<Counts>,
}

/// One target with what is known of it.
#[derive(Debug)]
struct Target {
    way: AmbassadorWay,
    /// Counts what it took; closes connections of an outside address.
    state: Arc<EndpointState>,
    switch: Switch,
}

/// What a target leads to.
enum Beyond<'a> {
    /// Pods of this project or another one.
    Door(Door),
    Outside(Outside<'a>),
    /// Why there is nothing.
    Nothing(&'a str),
}

/// What an ambassador did since it was first in a table.
#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    connections: AtomicU64,
    failed: AtomicU64,
}

/// What an ambassador does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmbassadorStats {
    /// Which.
    pub key: AmbassadorKey,
    /// Whether it listens in its pod.
    pub listens: bool,
    /// Where.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// Connections open.
    pub open: usize,
    /// Connections that came.
    pub connections: u64,
    /// Those that no target took.
    pub failed: u64,
    /// Its targets, in their order.
    pub targets: Vec<AmbassadorTargetStats>,
}

/// How a target of an ambassador is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmbassadorTargetStats {
    /// `redis:6379`, `shop/db:5432`, `bank.example.com:443`.
    pub target: String,
    /// Connections that it took.
    pub connections: u64,
    /// Those that it did not take.
    pub failed: u64,
    /// Bytes sent to it.
    #[serde(default)]
    pub sent: u64,
    /// Bytes received from it.
    #[serde(default)]
    pub received: u64,
    /// Whether it is left alone at the moment.
    pub is_open_circuit: bool,
    /// Pods that are ready there; `None`: it is outside, and nobody can know.
    #[serde(default)]
    pub endpoints: Option<usize>,
    /// What the last failure was.
    pub last_error: Option<String>,
}

/// All ambassadors of this host; the next table takes over what it keeps.
#[derive(Debug, Default)]
pub(super) struct Ambassadors {
    all: Mutex<BTreeMap<AmbassadorKey, Arc<Ambassador>>>,
    /// Connections open at any of them.
    open: AtomicUsize,
    /// Connections that the host may have.
    most: OnceLock<usize>,
}

impl Ambassadors {
    /// Says how many connections the host may have; the first word counts.
    pub(super) fn limit(&self, most: usize) {
        self.most.get_or_init(|| most);
    }

    /// Returns why a connection more is refused, that one included in `open` of one ambassador and in all.
    fn is_too_much(&self, open: usize) -> Option<Reason> {
        let most = *self.most.get()?;
        let share = (most / SHARE).max(1);
        (open > share || self.open.load(Ordering::Relaxed) > most - most / SHARE).then(|| {
            format!("{open} connections are open at the ambassador, more than may be: does it lead back to itself?")
        })
    }

    /// Agrees them with a table. What did not change keeps its counts, breakers and TLS sessions.
    pub(super) fn set(&self, table: &BTreeMap<AmbassadorKey, AmbassadorEntry>, now: Duration) {
        let mut known = self.lock();
        known.retain(|key, _| table.contains_key(key));
        for (key, entry) in table {
            let before = known.get(key).cloned();
            if before.as_ref().is_some_and(|before| before.entry == *entry) {
                continue;
            }
            known.insert(key.clone(), Arc::new(Ambassador::new(entry, before.as_deref(), now)));
        }
    }

    fn get(&self, key: &AmbassadorKey) -> Option<Arc<Ambassador>> {
        self.lock().get(key).cloned()
    }

    /// Returns what each does at `now`; `listens` says which have a listener, and where.
    pub(super) fn stats(
        &self,
        now: Duration,
        routing: &Routing,
        listens: impl Fn(&AmbassadorKey) -> Option<SocketAddr>,
    ) -> Vec<AmbassadorStats> {
        let all = self.lock();
        let stats = all.iter().map(|(key, one)| (key, one, listens(key)));
        let stats = stats.map(|(key, one, address)| AmbassadorStats {
            key: key.clone(),
            listens: address.is_some(),
            address,
            open: one.counts.open.load(Ordering::Relaxed),
            connections: one.counts.connections.load(Ordering::Relaxed),
            failed: one.counts.failed.load(Ordering::Relaxed),
            targets: one.targets.iter().map(|target| target.stats(now, routing)).collect(),
        });
        stats.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AmbassadorKey, Arc<Ambassador>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ambassador {
    fn new(entry: &AmbassadorEntry, before: Option<&Self>, now: Duration) -> Self {
        let known = |way: &AmbassadorWay| before?.targets.iter().find(|target| target.way == *way).cloned();
        let new = |way: &AmbassadorWay| {
            let state = EndpointState::new(way.to_string(), now);
            Arc::new(Target { way: way.clone(), state, switch: Switch::default() })
        };
        let targets = entry.targets.iter().map(|way| known(way).unwrap_or_else(|| new(way))).collect();
        let same_tls = before.filter(|before| before.entry.tls == entry.tls).map(|before| before.tls.clone());
        let tls = same_tls.unwrap_or_else(|| entry.tls.as_ref().map(Tls::new));
        let counts = before.map(|before| Arc::clone(&before.counts)).unwrap_or_default();
        Self { entry: entry.clone(), targets, tls, counts }
    }
}

impl Target {
    fn beyond(&self) -> Beyond<'_> {
        match &self.way {
            AmbassadorWay::Service { network, address, port, .. } => {
                Beyond::Door(Door::Vip { network: network.clone(), address: *address, port: *port })
            }
            AmbassadorWay::Exported { project, service, port } => {
                Beyond::Door(Door::Exported { project: project.clone(), service: service.clone(), port: *port })
            }
            AmbassadorWay::Outside { host, port } => Beyond::Outside(Outside { host, port: *port }),
            AmbassadorWay::Nowhere { why, .. } => Beyond::Nothing(why),
        }
    }

    /// Returns how many pods are ready there; `None`: nobody can know.
    fn endpoints(&self, routing: &Routing) -> Option<usize> {
        match self.beyond() {
            Beyond::Door(door) => Some(routing.behind(&door).map_or(0, |(pool, _)| pool.targets.len())),
            Beyond::Outside(_) => None,
            Beyond::Nothing(_) => Some(0),
        }
    }

    /// Forgets what failed for want of a pod once there is one: who comes then is not sent away for the pause after it.
    fn look(&self, routing: &Routing) {
        if self.switch.last_error().is_some_and(|why| Fruitless::is_nobody(&why)) && self.endpoints(routing) > Some(0) {
            self.switch.close();
        }
    }

    fn stats(&self, now: Duration, routing: &Routing) -> AmbassadorTargetStats {
        self.look(routing);
        AmbassadorTargetStats {
            target: self.way.to_string(),
            connections: self.state.connected.load(Ordering::Relaxed),
            failed: self.state.failed.load(Ordering::Relaxed),
            sent: self.state.sent.load(Ordering::Relaxed),
            received: self.state.received.load(Ordering::Relaxed),
            is_open_circuit: self.switch.is_open(now),
            endpoints: self.endpoints(routing),
            last_error: self.switch.last_error(),
        }
    }
}

/// Serves the connections of one listener inside a pod.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) shared: Arc<Shared>,
    pub(super) key: AmbassadorKey,
}

impl Serve for Stand {
    async fn serve(self: Arc<Self>, client: TcpStream, peer: SocketAddr) {
        let Some(ambassador) = self.shared.ambassadors.get(&self.key) else {
            return sockets::reset_on_close(&client);
        };
        let counts = Arc::clone(&ambassador.counts);
        counts.connections.fetch_add(1, Ordering::Relaxed);
        let _open = (Open::count(&counts.open), Open::count(&self.shared.ambassadors.open));
        let reason = self.shared.ambassadors.is_too_much(counts.open.load(Ordering::Relaxed));
        if let Some(reason) = reason {
            ambassador.targets.iter().for_each(|target| target.switch.note(reason.clone()));
        } else if let Some(linked) = ambassador.link(&self.shared, peer).await {
            return linked.serve(client).await;
        }
        tracing::debug!(ambassador = %self.key, "connection refused: no target took it");
        counts.failed.fetch_add(1, Ordering::Relaxed);
        sockets::reset_on_close(&client);
    }
}

/// A connection counted while it lives.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn count(open: &'a AtomicUsize) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection to a target.
struct Linked {
    far: Far,
    lease: Share,
    target: Arc<Target>,
}

impl Linked {
    async fn serve(self, client: TcpStream) {
        let Self { far, lease, target } = self;
        let (state, own) = (lease.state(), &target.state);
        let (mut sent, mut received) = (Count::of(&own.sent), Count::of(&own.received));
        if let Share::Endpoint(endpoint) = &lease {
            (sent, received) = (sent.and(&endpoint.sent), received.and(&endpoint.received));
        }
        match far {
            Far::Here(server) => relay_counted(client, server, state, sent, received).await,
            Far::There(server) => relay_counted(client, *server, state, sent, received).await,
            Far::Tls(server) => {
                let refusal = server.refusal();
                relay_counted(client, *server, state, sent, received).await;
                if let Some(reason) = refusal.get() {
                    target.switch.note(reason.clone());
                }
            }
        }
    }
}

/// Whom a connection counts for.
enum Share {
    /// An endpoint of a service.
    Endpoint(Lease),
    /// An outside address.
    Outside(Arc<EndpointState>),
}

impl Share {
    fn state(&self) -> &EndpointState {
        match self {
            Self::Endpoint(lease) => lease,
            Self::Outside(state) => state,
        }
    }
}

/// The far end.
enum Far {
    Here(TcpStream),
    There(Box<crate::mesh::MeshStream>),
    Tls(Box<tls::Stream>),
}

/// Why a target did not take a connection.
type Reason = String;

impl Ambassador {
    /// Tries the targets in their order, round after round. Those that are left alone are passed over; while all are, nobody
    /// waits.
    async fn link(&self, shared: &Arc<Shared>, peer: SocketAddr) -> Option<Linked> {
        let mut pause = PAUSE;
        for round in 0..=self.entry.retries {
            if round > 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            let mut was_tried = false;
            for (index, target) in self.targets.iter().enumerate() {
                let now = shared.now();
                target.look(&shared.routing());
                if !target.switch.may_try(now, self.entry.breaker.pause) {
                    continue;
                }
                was_tried = true;
                // A pod of this one may come up any moment, but where there is another target that one is the better bet.
                let is_last = self.targets[index + 1..].iter().all(|other| other.switch.is_open(now));
                match timeout(self.entry.timeout, self.reach(shared, target, peer, is_last)).await {
                    Ok(Ok((far, lease))) => {
                        target.switch.close();
                        target.state.connected.fetch_add(1, Ordering::Relaxed);
                        return Some(Linked { far, lease, target: Arc::clone(target) });
                    }
                    Ok(Err(reason)) => self.failed(shared, target, reason),
                    Err(_) => self.failed(shared, target, format!("no answer within {:?}", self.entry.timeout)),
                }
            }
            if round == 0 && !was_tried {
                return None;
            }
        }
        None
    }

    fn failed(&self, shared: &Shared, target: &Target, reason: Reason) {
        tracing::debug!(target = %target.way, reason, "an ambassador's target did not take a connection");
        target.state.failed.fetch_add(1, Ordering::Relaxed);
        target.switch.fail(shared.now(), self.entry.breaker, reason);
    }

    async fn reach(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        peer: SocketAddr,
        is_last: bool,
    ) -> Result<(Far, Share), Reason> {
        let (far, share) = match target.beyond() {
            Beyond::Door(door) => self.search(shared, door, peer, is_last).await?,
            Beyond::Outside(outside) => {
                (Far::Here(outside.connect(&shared.names).await?), Share::Outside(Arc::clone(&target.state)))
            }
            Beyond::Nothing(why) => return Err(why.to_owned()),
        };
        match &self.tls {
            None => Ok((far, share)),
            Some(Err(reason)) => Err(reason.clone()),
            Some(Ok(tls)) => Ok((Far::Tls(Box::new(tls.connect(far, &target.way).await?)), share)),
        }
    }

    async fn search(
        &self,
        shared: &Arc<Shared>,
        door: Door,
        peer: SocketAddr,
        is_patient: bool,
    ) -> Result<(Far, Share), Reason> {
        let client = self.entry.address.unwrap_or_else(|| peer.ip());
        let search = Search::new(shared, Arc::new(door), client, self.entry.timeout);
        let search = if is_patient { search } else { search.at_once() };
        let (server, lease) = search.link().await.map_err(|fruitless| fruitless.to_string())?;
        let far = match server {
            Server::Here(server) => Far::Here(server),
            Server::There(server) => Far::There(server),
        };
        Ok((far, Share::Endpoint(lease)))
    }
}

fn connect_error(error: &std::io::Error) -> Reason {
    if is_own_limit(error) {
        format!("this host has no room for another connection: {error}")
    } else {
        error.to_string()
    }
}
