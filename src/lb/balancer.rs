//! The load balancer of one host: give it tables, it listens, balances and drains.
//!
//! Start here: [`Balancer::start`], then [`Balancer::set_table`] for every change. Wires the other files of this folder
//! and decides nothing: which pods are in a table is decided by [`LbTable::build`], which one gets a connection by
//! [`super::pick`]. All calls may come from any thread or runtime; none waits but `drain` and `stop`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::ambassador::{AmbassadorStats, Stand};
use super::choose::HOLD;
use super::http::dry::{DryRequest, DryRun};
use super::http::{AccessLog, Http, HttpOptions, RuleInlet};
use super::inbound::Inbound;
use super::l4::{Inlet, L4};
use super::listeners::{Listening, Workers};
use super::routing::Shared;
use super::stats::BalancerStats;
use super::table::{AmbassadorKey, LbTable, NetworkId, PublishedKey};
use super::udp::{self, Limits, Udp};
use crate::graph::Protocol;
use crate::host::sockets::{self, BindTo};
use crate::host::{datagrams, memory};
use crate::ids::HostName;
use crate::mesh::{Incoming, Mesh};

/// Descriptors that a connection may need: two sockets and two pipes of two ends each.
const DESCRIPTORS_PER_CONNECTION: u64 = 6;

/// Sessions of datagrams at a time, those of other hosts included; one descriptor each.
const SESSIONS: u64 = 16_384;

/// UDP ports of one network that are listened on at virtual addresses.
const UDP_PORTS: usize = 256;

/// Descriptors left for everything else in the process.
const DESCRIPTORS_RESERVED: u64 = 512;

/// How a [`Balancer`] runs.
#[derive(Debug, Clone)]
pub struct BalancerOptions {
    /// Threads that accept and serve; 0: one for each CPU.
    pub threads: usize,
    /// The host that this is: its endpoints are preferred.
    pub own_host: HostName,
    /// Connections at a time, lowered to what the limit on descriptors allows; those to published ports and to ports of rules
    /// may be three quarters of them. When it is reached, further connections wait in the kernel's queue until one ends.
    pub max_connections: usize,
    /// How long a connection, request or datagram waits for an endpoint.
    pub hold: Duration,
    /// How requests are served.
    pub http: HttpOptions,
}

impl Default for BalancerOptions {
    fn default() -> Self {
        // An idle connection costs about 2 kB here and some 5 kB in the kernel; 60,000 of them some 400 MB in all.
        let (own_host, http) = (HostName::local(), HttpOptions::default());
        Self { threads: 0, own_host, max_connections: 60_000, hold: HOLD, http }
    }
}

/// Why a port is not served. It is tried again with every table.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// What the kernel said: in use, no such address here, not permitted.
    #[source]
    pub source: io::Error,
}

/// Says that a network declares too many ports for datagrams.
#[derive(Debug, thiserror::Error)]
#[error("{UDP_PORTS} UDP ports of a network are served at virtual addresses, and this is one more")]
struct TooManyPorts;

/// A running load balancer. Dropping it ends all listeners and connections at once; [`Balancer::stop`] is the kind way.
#[derive(Debug)]
pub struct Balancer {
    shared: Arc<Shared>,
    workers: Workers,
    udp: Udp,
    listeners: Mutex<Listeners>,
    hold: Duration,
    refused: Arc<AtomicU64>,
    http: Arc<Http>,
}

/// What listens now.
#[derive(Debug, Default)]
struct Listeners {
    vips: BTreeMap<NetworkId, Listening>,
    /// By the port that services declare, with the interface that they are for.
    datagrams: BTreeMap<NetworkId, (String, BTreeMap<u16, udp::Listening>)>,
    /// One or two for each: an address, or all of IPv4 and of IPv6.
    published: BTreeMap<PublishedKey, Vec<Open>>,
    /// Ports that rules are for.
    rules: BTreeMap<PublishedKey, Vec<Listening>>,
    peers: Option<Listening>,
    /// Inside pods.
    ambassadors: BTreeMap<AmbassadorKey, Listening>,
}

/// A published port that is listened on, until this is dropped.
#[derive(Debug)]
enum Open {
    Connections(Listening),
    Datagrams(udp::Listening),
}

impl Open {
    fn close(self) {
        match self {
            Self::Connections(listening) => listening.close(),
            Self::Datagrams(listening) => drop(listening),
        }
    }
}

impl Balancer {
    /// Starts the threads, with an empty table and no listener.
    ///
    /// # Errors
    /// The system gave no thread or no epoll.
    pub fn start(options: BalancerOptions) -> io::Result<Self> {
        let BalancerOptions { threads, own_host, max_connections, hold, http } = options;
        let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads == 0 { cpus() } else { threads };
        let limits = limits_by_descriptors();
        let shared = Arc::new(Shared::new(own_host));
        let most = max_connections.min(limits.connections);
        shared.ambassadors.limit(most);
        let workers = Workers::start(threads, most)?;
        Ok(Self {
            udp: Udp::new(&shared, &workers, hold, limits.sessions),
            http: Http::new(&shared, hold, threads, HttpOptions { held: http.held.min(held_by_memory()), ..http }),
            shared,
            workers,
            listeners: Mutex::default(),
            hold,
            refused: Arc::default(),
        })
    }

    /// Makes `table` the current one and agrees the listeners of published ports and of rules with it.
    ///
    /// When this returns, every new connection is balanced by `table`. Connections to endpoints that are no longer in
    /// it go on until they end by themselves or [`Self::close_connections`] is called. Returns the ports that cannot be
    /// served, as [`Self::sync_published`] does.
    pub fn set_table(&self, table: &LbTable) -> BTreeMap<PublishedKey, BindError> {
        self.shared.set(table);
        self.sync_published()
    }

    /// Tries again to listen on the ports that could not be served so far, those of rules too; returns those that still
    /// cannot.
    pub fn sync_published(&self) -> BTreeMap<PublishedKey, BindError> {
        let (published, rules) = {
            let routing = self.shared.routing();
            let published: Vec<PublishedKey> =
                routing.published_keys().filter(|key| key.protocol != Protocol::Sctp).collect();
            (published, routing.rule_listeners())
        };
        let mut listeners = self.listeners();
        // What is no longer wanted ends before what is new begins: a port may move from one address to all, or from one
        // use to the other.
        listeners
            .published
            .extract_if(.., |key, _| !published.contains(key))
            .flat_map(|(_, open)| open)
            .for_each(Open::close);
        listeners
            .rules
            .extract_if(.., |key, _| !rules.contains(key))
            .flat_map(|(_, open)| open)
            .for_each(Listening::close);
        let mut errors = BTreeMap::new();
        for key in published {
            let Entry::Vacant(missing) = listeners.published.entry(key) else { continue };
            match self.listen_published(key) {
                Ok(listening) => drop(missing.insert(listening)),
                Err(error) => drop(errors.insert(key, error)),
            }
        }
        for key in rules {
            let Entry::Vacant(missing) = listeners.rules.entry(key) else { continue };
            match self.listen_rules(key) {
                Ok(listening) => drop(missing.insert(listening)),
                Err(error) => drop(errors.insert(key, error)),
            }
        }
        errors
    }

    /// Listens at a network's gateway for connections that the packet filter redirects from its virtual addresses
    /// and from those of its pods on other hosts.
    ///
    /// Takes `port_hint` if it is free, else any port, and returns the one taken. Called again for the same network and
    /// gateway it changes nothing. The gateway's address need not exist yet.
    ///
    /// # Errors
    /// No port could be bound.
    pub fn add_vip_listener(&self, network: NetworkId, gateway: Ipv4Addr, port_hint: Option<u16>) -> io::Result<u16> {
        let mut listeners = self.listeners();
        if let Some(present) = listeners.vips.get(&network).filter(|present| present.address.ip() == gateway) {
            return Ok(present.address.port());
        }
        let listen = |port| {
            let address = SocketAddr::from((gateway, port));
            self.workers.listen(address, BindTo::Any, self.l4(Inlet::Vip(network.clone())))
        };
        let listening = match port_hint {
            Some(port) => listen(port).or_else(|_| listen(0)),
            None => listen(0),
        }?;
        let port = listening.address.port();
        listeners.vips.insert(network, listening);
        Ok(port)
    }

    /// Listens on a network's bridge for datagrams to these ports of its addresses but the gateway, each at another port
    /// that a rule of the packet filter sends them to. Returns that port for each, and why some have none.
    ///
    /// Takes the ports of `hints` where they are free. Called again it agrees what is listened on with what is wanted now.
    pub fn sync_datagrams(
        &self,
        network: &NetworkId,
        bridge: &str,
        wanted: &BTreeSet<u16>,
        hints: &BTreeMap<u16, u16>,
    ) -> (BTreeMap<u16, u16>, BTreeMap<u16, BindError>) {
        let mut listeners = self.listeners();
        let (device, mut open) = listeners.datagrams.remove(network).unwrap_or_default();
        let mut errors = BTreeMap::new();
        let (wanted, too_many): (Vec<_>, Vec<_>) = wanted.iter().enumerate().partition(|(index, _)| *index < UDP_PORTS);
        for (_, port) in too_many {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
            errors.insert(*port, BindError { address, source: io::Error::other(TooManyPorts) });
        }
        let wanted: BTreeSet<u16> = wanted.into_iter().map(|(_, port)| *port).collect();
        open.retain(|port, _| device == bridge && wanted.contains(port));
        for port in &wanted {
            if open.contains_key(port) {
                continue;
            }
            let inlet = udp::Inlet::Bridge(network.clone(), *port);
            let listen = |at: u16| {
                let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, at));
                let limits = Limits::rewritten(datagrams::remembered());
                let listening = self.udp.listen(address, Some(bridge), &inlet, limits);
                listening.map_err(|source| BindError { address, source })
            };
            let listening = match hints.get(port) {
                Some(hint) => listen(*hint).or_else(|_| listen(0)),
                None => listen(0),
            };
            match listening {
                Ok(listening) => drop(open.insert(*port, listening)),
                Err(error) => drop(errors.insert(*port, error)),
            }
        }
        let ports = open.iter().map(|(port, listening)| (*port, listening.address.port())).collect();
        if !open.is_empty() {
            listeners.datagrams.insert(network.clone(), (bridge.to_owned(), open));
        }
        (ports, errors)
    }

    /// Ends a network's listeners; its connections go on. Returns whether there was one.
    pub fn remove_vip_listener(&self, network: &NetworkId) -> bool {
        let mut listeners = self.listeners();
        listeners.datagrams.remove(network);
        listeners.vips.remove(network).is_some()
    }

    /// Returns the networks that have a listener, with its address.
    pub fn vip_listeners(&self) -> BTreeMap<NetworkId, SocketAddr> {
        self.listeners().vips.iter().map(|(network, listening)| (network.clone(), listening.address)).collect()
    }

    /// Returns how many sockets each listener has: one for each thread.
    pub fn sockets_per_listener(&self) -> usize {
        self.workers.count()
    }

    /// Serves an ambassador on sockets that were opened inside its pod; an earlier listener of it ends.
    ///
    /// # Errors
    /// There is no socket.
    pub fn add_ambassador(&self, key: AmbassadorKey, sockets: Vec<std::net::TcpListener>) -> io::Result<()> {
        let stand = Stand { shared: Arc::clone(&self.shared), key: key.clone() };
        let listening = self.workers.serve(sockets, stand)?;
        self.listeners().ambassadors.insert(key, listening);
        Ok(())
    }

    /// Ends an ambassador's listener; its connections go on.
    pub fn remove_ambassador(&self, key: &AmbassadorKey) {
        self.listeners().ambassadors.remove(key);
    }

    /// Returns what the ambassadors in pods of this host do.
    pub fn ambassador_stats(&self) -> Vec<AmbassadorStats> {
        let listeners = self.listeners();
        let listens = |key: &_| listeners.ambassadors.get(key).map(|listening| listening.address);
        self.shared.ambassadors.stats(self.shared.now(), &self.shared.routing(), listens)
    }

    /// Joins a cluster: endpoints on other hosts are reached through `mesh`, and other hosts' agents are served on
    /// `address` (port 0: any). Returns the address taken. Called again it does the same with what is given then.
    ///
    /// Their requests for containers are checked and relayed here; their own conversations go to `control`, and are
    /// refused while it is full. Whoever takes them from there ends them before [`Self::stop`].
    ///
    /// # Errors
    /// The address cannot be listened on; then this host is in no cluster.
    pub fn join(&self, mesh: Mesh, address: SocketAddr, control: mpsc::Sender<Incoming>) -> io::Result<SocketAddr> {
        self.leave();
        let datagrams = Arc::clone(self.udp.common());
        let inbound = Inbound { shared: Arc::clone(&self.shared), mesh: mesh.clone(), datagrams, control };
        let listening = self.workers.listen(address, BindTo::Present, inbound)?;
        let address = listening.address;
        self.listeners().peers = Some(listening);
        self.shared.set_mesh(Some(mesh));
        Ok(address)
    }

    /// Leaves the cluster: other hosts' endpoints are no longer reached, nor is this host. Open connections go on.
    pub fn leave(&self) {
        self.shared.set_mesh(None);
        self.listeners().peers = None;
    }

    /// Returns how many connections to a container, and sessions of datagrams with it, are open or being opened.
    pub fn open_connections(&self, container: &str) -> usize {
        self.shared.states_of(container).iter().map(|state| state.open()).sum()
    }

    /// Waits until no connection to a container is left, or until `deadline`; returns how many are left.
    ///
    /// To be called after a table without the container, else new connections keep coming.
    pub async fn drain(&self, container: &str, deadline: Instant) -> usize {
        for state in self.shared.states_of(container) {
            let _in_time = timeout_at(deadline, state.wait_idle()).await;
        }
        self.open_connections(container)
    }

    /// Resets the connections to a container that has left the table: it is dead, and may have died without a word.
    ///
    /// Connections to a container that is in the table, or has come back into it, are left alone.
    pub fn close_connections(&self, container: &str) {
        for state in self.shared.states_of(container).iter().filter(|state| state.is_retired()) {
            state.close_connections();
        }
    }

    /// Returns what it does at the moment.
    pub fn stats(&self) -> BalancerStats {
        let gate = self.workers.gate();
        BalancerStats {
            table_version: self.shared.routing().version,
            open: gate.connections.len(),
            accepted: gate.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            denied: self.shared.denied.load(Ordering::Relaxed),
            datagrams: self.udp.stats(),
            malformed: self.http.refused(),
            crowded: self.http.crowded(),
            unlogged: self.http.log().dropped(),
            endpoints: self.shared.endpoint_stats(),
            leaving: self.shared.leaving_stats(),
            services: self.shared.routing().service_stats(),
            routes: self.shared.routing().route_stats(),
            published: self.shared.routing().published_stats(),
        }
    }

    /// Returns the access log: off until it is turned on, and to be read while it is.
    pub fn access_log(&self) -> &Arc<AccessLog> {
        self.http.log()
    }

    /// Says what would become of a request, without serving it.
    pub fn dry_run(&self, request: &DryRequest) -> DryRun {
        super::http::dry::run(&self.shared, request)
    }

    /// Ends all listeners, gives connections until `deadline` to end, then ends what is left; returns how many that were.
    pub async fn stop(self, deadline: Instant) -> usize {
        *self.listeners() = Listeners::default();
        self.http.stop();
        if let Some(mesh) = self.shared.mesh() {
            mesh.close_idle();
        }
        let connections = &self.workers.gate().connections;
        connections.close();
        let _in_time = timeout_at(deadline, connections.wait()).await;
        let left = connections.len();
        self.workers.stop().await;
        left
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn l4(&self, inlet: Inlet) -> L4 {
        let (shared, refused, http) = (Arc::clone(&self.shared), Arc::clone(&self.refused), Arc::clone(&self.http));
        L4 { shared, inlet, hold: self.hold, refused, http }
    }

    fn listen_published(&self, key: PublishedKey) -> Result<Vec<Open>, BindError> {
        let listen = |address: SocketAddr| {
            if key.protocol == Protocol::Udp {
                let inlet = udp::Inlet::Published(key);
                return self.udp.listen(address, None, &inlet, Limits::plain()).map(Open::Datagrams);
            }
            let serve = self.l4(Inlet::Published(key));
            self.workers.listen(address, BindTo::Present, serve).map(Open::Connections)
        };
        listen_at(key.host_ip, None, key.port, listen)
    }

    fn listen_rules(&self, key: PublishedKey) -> Result<Vec<Listening>, BindError> {
        let listen = |address| {
            let inlet = RuleInlet::new(&self.http, key.port).map_err(io::Error::other)?;
            self.workers.listen(address, BindTo::Present, inlet)
        };
        // Names below `localhost` have both of its addresses.
        let other =
            key.host_ip.filter(|ip| *ip == IpAddr::from(Ipv4Addr::LOCALHOST)).map(|_| Ipv6Addr::LOCALHOST.into());
        listen_at(key.host_ip, other, key.port, listen)
    }
}

/// Listens at an address and another one, if that is of a family that the machine has; at `None` at all of both families.
fn listen_at<L>(
    ip: Option<IpAddr>,
    other: Option<IpAddr>,
    port: u16,
    listen: impl Fn(SocketAddr) -> io::Result<L>,
) -> Result<Vec<L>, BindError> {
    let listen = |ip| {
        let address = SocketAddr::new(ip, port);
        listen(address).map_err(|source| BindError { address, source })
    };
    let (first, second) = match ip {
        Some(ip) => (ip, other),
        None => (Ipv4Addr::UNSPECIFIED.into(), Some(Ipv6Addr::UNSPECIFIED.into())),
    };
    let mut listening = vec![listen(first)?];
    match second.map(listen) {
        Some(Ok(ipv6)) => listening.push(ipv6),
        Some(Err(error)) if !sockets::is_family_missing(&error.source) => return Err(error),
        Some(Err(_)) | None => {}
    }
    Ok(listening)
}

/// How much may go on at a time.
struct AtATime {
    connections: usize,
    sessions: usize,
}

/// What may be held of requests and answers on a machine of so little memory that it is less than elsewhere: an eighth of it.
fn held_by_memory() -> usize {
    memory::total().map_or(usize::MAX, |total| usize::try_from(total / 8).unwrap_or(usize::MAX))
}

/// What the limit on descriptors allows, after raising it as far as it goes.
fn limits_by_descriptors() -> AtATime {
    let free = sockets::raise_descriptor_limit().saturating_sub(DESCRIPTORS_RESERVED);
    let sessions = SESSIONS.min(free / 8);
    let connections = (free - sessions) / DESCRIPTORS_PER_CONNECTION;
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(16);
    AtATime { connections: number(connections), sessions: number(sessions) }
}
