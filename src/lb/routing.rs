//! The table as connections read it: every endpoint with its live state, swapped whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::endpoint::EndpointState;
use super::table::{Backend, LbTable, NetworkId, PublishedKey};
use crate::ids::{HostName, PodId, ProjectName};

/// What all connections share: the current table and the endpoints' states.
#[derive(Debug)]
pub(super) struct Shared {
    own_host: HostName,
    start: Instant,
    routing: ArcSwap<Routing>,
    changes: watch::Sender<()>,
    registry: Mutex<Registry>,
}

/// One table, ready for look-ups.
#[derive(Debug, Default)]
pub(super) struct Routing {
    pub(super) version: u64,
    vips: BTreeMap<Ipv4Addr, (NetworkId, Arc<Pool>)>,
    published: BTreeMap<PublishedKey, (u16, Arc<Pool>)>,
}

/// The endpoints behind one address.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) project: ProjectName,
    pub(super) targets: Vec<Target>,
}

/// One endpoint of a pool.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) pod: PodId,
    pub(super) address: Ipv4Addr,
    pub(super) remote: bool,
    pub(super) state: Arc<EndpointState>,
}

/// Every endpoint that has a state.
#[derive(Debug, Default)]
struct Registry {
    /// Those of the current table, by container.
    current: BTreeMap<String, Arc<EndpointState>>,
    /// Those that left it and still had connections then.
    leaving: Vec<Arc<EndpointState>>,
}

/// Through which door a connection came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Door {
    /// To a virtual address, with the port that the client asked for.
    Vip { network: NetworkId, address: Ipv4Addr, port: u16 },
    /// To a published port.
    Published(PublishedKey),
}

impl Shared {
    pub(super) fn new(own_host: HostName) -> Self {
        Self {
            own_host,
            start: Instant::now(),
            routing: ArcSwap::default(),
            changes: watch::Sender::new(()),
            registry: Mutex::default(),
        }
    }

    /// Returns the time since the start of the balancer.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the current table. Not to be kept: another may come at any time.
    pub(super) fn routing(&self) -> arc_swap::Guard<Arc<Routing>> {
        self.routing.load()
    }

    /// Returns what tells of every table that comes after this call.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Makes `table` the current one: connections that come after this call see it only.
    pub(super) fn set(&self, table: &LbTable) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let routing = registry.compile(table, &self.own_host, self.now());
        self.routing.store(Arc::new(routing));
        registry.retire_all_but(&containers(table));
        drop(registry);
        self.changes.send_replace(());
    }

    /// Returns every state that a container has: the current one, and those of earlier times with connections left.
    pub(super) fn states_of(&self, container: &str) -> Vec<Arc<EndpointState>> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry
            .current
            .get(container)
            .into_iter()
            .chain(registry.leaving.iter().filter(|state| state.container == container))
            .cloned()
            .collect()
    }
}

impl Registry {
    fn compile(&mut self, table: &LbTable, own_host: &HostName, now: Duration) -> Routing {
        let LbTable { version, vips, published } = table;
        let mut routing = Routing { version: *version, ..Routing::default() };
        for (address, vip) in vips {
            let pool = self.pool(&vip.backend, own_host, now);
            routing.vips.insert(*address, (vip.network.clone(), Arc::new(pool)));
        }
        for (key, port) in published {
            let pool = self.pool(&port.backend, own_host, now);
            routing.published.insert(*key, (port.target, Arc::new(pool)));
        }
        routing
    }

    fn pool(&mut self, backend: &Backend, own_host: &HostName, now: Duration) -> Pool {
        let Backend { project, service: _, endpoints } = backend;
        let mut target = |endpoint: &super::table::Endpoint| Target {
            pod: endpoint.pod.clone(),
            address: endpoint.address,
            remote: &endpoint.host != own_host,
            state: Arc::clone(
                self.current
                    .entry(endpoint.container.clone())
                    .or_insert_with(|| EndpointState::new(endpoint.container.clone(), now)),
            ),
        };
        let targets = endpoints.iter().map(&mut target).collect();
        Pool { project: project.clone(), targets }
    }

    fn retire_all_but(&mut self, keep: &BTreeSet<&str>) {
        let gone: Vec<String> = self.current.keys().filter(|id| !keep.contains(id.as_str())).cloned().collect();
        for state in gone.iter().filter_map(|id| self.current.remove(id)) {
            state.retire();
            self.leaving.push(state);
        }
        self.leaving.retain(|state| state.open() > 0);
    }
}

fn containers(table: &LbTable) -> BTreeSet<&str> {
    let vips = table.vips.values().map(|vip| &vip.backend);
    let published = table.published.values().map(|port| &port.backend);
    vips.chain(published).flat_map(|backend| &backend.endpoints).map(|endpoint| endpoint.container.as_str()).collect()
}

impl Routing {
    /// Returns what stands behind a door and the port to connect to there; `None` if nothing does any more.
    ///
    /// A virtual address is given only to connections that came in through its own network's listener.
    pub(super) fn behind(&self, door: &Door) -> Option<(&Arc<Pool>, u16)> {
        match door {
            Door::Vip { network, address, port } => {
                let (owner, pool) = self.vips.get(address)?;
                (owner == network).then_some((pool, *port))
            }
            Door::Published(key) => self.published.get(key).map(|(target, pool)| (pool, *target)),
        }
    }

    /// Returns the published ports.
    pub(super) fn published_keys(&self) -> impl Iterator<Item = PublishedKey> {
        self.published.keys().copied()
    }

    /// Returns every pool.
    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.vips.values().map(|(_, pool)| pool).chain(self.published.values().map(|(_, pool)| pool))
    }
}
