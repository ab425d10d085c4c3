//! The table as connections read it: every endpoint with its live state, swapped whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ambassador::Ambassadors;
use super::balance::{Balanced, seed_of};
use super::endpoint::EndpointState;
use super::http::{PortRules, Rule, Tally, compile};
use super::pick::Failures;
use super::stats::{EndpointStats, Whose};
use super::table::{Backend, Certificate, Endpoint, Exported, LbTable, NetworkId, PodAddress, PublishedKey, RouteRule};
use crate::graph::Protocol;
use crate::ids::{HostName, PodId, ProjectName, ResourceKey, ServiceName};
use crate::mesh::{Mesh, Refusal, TargetDoor};
use crate::model::{AppProtocol, Export, RouteAction, certified};
use crate::net::lookup::HostNames;

/// Share of a host that is given none.
const WEIGHT: u32 = 100;

/// What all connections share: the current table and the endpoints' states.
#[derive(Debug)]
pub(super) struct Shared {
    own_host: HostName,
    start: Instant,
    routing: ArcSwap<Routing>,
    /// Stand-ins inside pods of this host.
    pub(super) ambassadors: Ambassadors,
    /// Names outside.
    pub(super) names: HostNames,
    changes: watch::Sender<()>,
    registry: Mutex<Registry>,
    /// The way to endpoints on other hosts, while this host is in a cluster.
    mesh: ArcSwapOption<Mesh>,
    /// Requests of this host that another host's agent denied.
    pub(super) denied: AtomicU64,
}

/// One table, ready for look-ups.
#[derive(Debug, Default)]
pub(super) struct Routing {
    pub(super) version: u64,
    vips: BTreeMap<Ipv4Addr, (NetworkId, Arc<Pool>)>,
    /// Pods of other hosts at their own addresses.
    elsewhere: BTreeMap<Ipv4Addr, (NetworkId, Arc<Pool>)>,
    /// Pods of this host by container, for other hosts that ask for them by their own addresses.
    here: BTreeMap<NetworkId, BTreeMap<String, Target>>,
    published: BTreeMap<PublishedKey, (u16, Arc<Pool>)>,
    /// Services that other projects may reach.
    exports: BTreeMap<(ProjectName, ServiceName), (Export, Arc<Pool>)>,
    /// The services of each network: who may call whom.
    members: BTreeMap<NetworkId, BTreeMap<ServiceName, Arc<Pool>>>,
    /// Services that rules lead to.
    outside: BTreeMap<ProjectName, BTreeMap<ServiceName, Outside>>,
    /// The rules of each port of the host, and all of them in their order.
    ports: BTreeMap<u16, PortRules>,
    rules: Vec<Arc<Rule>>,
}

/// A service that rules lead to.
#[derive(Debug)]
struct Outside {
    pool: Arc<Pool>,
    /// The ports that they lead to.
    ports: BTreeSet<u16>,
}

/// The endpoints behind one address.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) project: ProjectName,
    pub(super) service: ServiceName,
    /// Whether it is one pod at its own address, which need not be ready.
    pub(super) is_single: bool,
    /// Ports that are balanced by request.
    pub(super) http: BTreeMap<u16, AppProtocol>,
    /// The service's requests.
    pub(super) tally: Arc<Tally>,
    /// How one of the targets is chosen.
    pub(super) balanced: Balanced,
    pub(super) targets: Vec<Target>,
}

/// One endpoint of a pool.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) pod: PodId,
    pub(super) address: Ipv4Addr,
    /// Where it is, if not here.
    pub(super) remote: Option<Arc<RemoteHost>>,
    /// Its share by its host, in services where hosts have shares.
    pub(super) weight: u32,
    /// By what keys find it.
    pub(super) seed: u64,
    pub(super) state: Arc<EndpointState>,
}

/// Another host that has endpoints.
#[derive(Debug)]
pub(super) struct RemoteHost {
    pub(super) name: HostName,
    /// The end of `failures` in milliseconds: spares the lock where nothing failed lately.
    failed_until_ms: AtomicU64,
    failures: Mutex<Failures>,
}

impl RemoteHost {
    fn new(name: HostName) -> Arc<Self> {
        Arc::new(Self { name, failed_until_ms: AtomicU64::default(), failures: Mutex::default() })
    }

    /// Notes that its agent gave no answer at `now`, or none that counts: all its endpoints are avoided for a while.
    pub(super) fn note_failure(&self, now: Duration) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures = failures.another(now);
        let until = u64::try_from(failures.until.as_millis()).unwrap_or(u64::MAX);
        self.failed_until_ms.store(until, Ordering::Relaxed);
    }

    /// Notes an answer.
    pub(super) fn note_success(&self) {
        if self.failed_until_ms.swap(0, Ordering::Relaxed) > 0 {
            *self.failures.lock().unwrap_or_else(PoisonError::into_inner) = Failures::default();
        }
    }

    /// Returns whether its agent failed so recently that other hosts are to be preferred at `now`.
    pub(super) fn is_marked_down(&self, now: Duration) -> bool {
        u128::from(self.failed_until_ms.load(Ordering::Relaxed)) > now.as_millis()
    }
}

/// Every endpoint that has a state.
#[derive(Debug, Default)]
struct Registry {
    /// Those of the current table, by container.
    current: BTreeMap<String, Arc<EndpointState>>,
    /// Those of the current table at their own addresses. States of their own: a pod that is drained leaves its service,
    /// and connections that are just being made go elsewhere, while its own address goes on.
    single: BTreeMap<String, Arc<EndpointState>>,
    /// Those that left it and still had connections then.
    leaving: Vec<Arc<EndpointState>>,
    /// Requests of each service of the current table.
    services: BTreeMap<(ProjectName, ServiceName), Arc<Tally>>,
    /// Whose turn it is in each of them that takes turns.
    turns: BTreeMap<(ProjectName, ServiceName), Arc<AtomicU64>>,
    /// Requests of each of its rules, by service, number and name.
    rules: BTreeMap<RuleKey, Arc<Tally>>,
    /// Its certificates, read; `None`: they cannot be, which was said.
    certified: BTreeMap<Arc<Certificate>, Option<Arc<CertifiedKey>>>,
    /// Other hosts that have endpoints in the current table.
    hosts: BTreeMap<HostName, Arc<RemoteHost>>,
}

/// A rule over several tables: one that is written otherwise is another one.
type RuleKey = (ProjectName, ServiceName, usize, String);

/// Through which door a connection or request came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Door {
    /// To a virtual address or that of a pod on another host, with the port that the client asked for.
    Vip { network: NetworkId, address: Ipv4Addr, port: u16 },
    /// To a published port.
    Published(PublishedKey),
    /// From an ambassador, to a service that another project exports.
    Exported { project: ProjectName, service: ServiceName, port: u16 },
    /// By a rule that leads to a port of a service.
    Rule { project: ProjectName, service: ServiceName, port: u16 },
}

impl Door {
    /// Returns the port that clients ask at; of a rule the one that it leads to.
    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Vip { port, .. } | Self::Rule { port, .. } | Self::Exported { port, .. } => *port,
            Self::Published(key) => key.port,
        }
    }
}

impl Shared {
    pub(super) fn new(own_host: HostName) -> Self {
        Self {
            own_host,
            start: Instant::now(),
            routing: ArcSwap::default(),
            ambassadors: Ambassadors::default(),
            names: HostNames::default(),
            changes: watch::Sender::new(()),
            registry: Mutex::default(),
            mesh: ArcSwapOption::empty(),
            denied: AtomicU64::default(),
        }
    }

    /// Returns the name of this host.
    pub(super) fn own_host(&self) -> &HostName {
        &self.own_host
    }

    /// Sets the way to other hosts.
    pub(super) fn set_mesh(&self, mesh: Option<Mesh>) {
        self.mesh.store(mesh.map(Arc::new));
    }

    /// Returns the way to other hosts.
    pub(super) fn mesh(&self) -> Option<Arc<Mesh>> {
        self.mesh.load_full()
    }

    /// Returns the time since the start of the balancer.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the time from the start of the balancer to `then`.
    pub(super) fn at(&self, then: Instant) -> Duration {
        then.saturating_duration_since(self.start)
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
        routing.name_states(&self.own_host);
        self.routing.store(Arc::new(routing));
        registry.retire_all_but(table);
        drop(registry);
        self.ambassadors.set(&table.ambassadors, self.now());
        self.changes.send_replace(());
    }

    /// Returns the counters of every endpoint of the current table.
    pub(super) fn endpoint_stats(&self) -> Vec<EndpointStats> {
        self.routing().endpoint_stats(&self.own_host, self.now())
    }

    /// Returns the counters of those that left the table and still have connections.
    pub(super) fn leaving_stats(&self) -> Vec<EndpointStats> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let leaving = registry.leaving.iter().filter(|state| state.open() > 0);
        leaving.filter_map(|state| Some(state.stats(state.whose.get()?, &self.own_host, self.now()))).collect()
    }

    /// Returns every state that a container has: the current one, and those of earlier times with connections left.
    pub(super) fn states_of(&self, container: &str) -> Vec<Arc<EndpointState>> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry
            .current
            .get(container)
            .into_iter()
            .chain(registry.single.get(container))
            .chain(registry.leaving.iter().filter(|state| state.container == container))
            .cloned()
            .collect()
    }
}

impl Registry {
    fn compile(&mut self, table: &LbTable, own_host: &HostName, now: Duration) -> Routing {
        // Ambassadors are kept apart: they have their own state.
        let LbTable { version, vips, published, pods, routes, exports, ambassadors: _ } = table;
        let mut routing = Routing { version: *version, ..Routing::default() };
        for (address, vip) in vips {
            let pool = Arc::new(self.pool(&vip.backend, own_host, now));
            if vip.backend.project == vip.network.project {
                let members = routing.members.entry(vip.network.clone()).or_default();
                members.insert(vip.backend.service.clone(), Arc::clone(&pool));
            }
            routing.vips.insert(*address, (vip.network.clone(), pool));
        }
        for (key, port) in published {
            let pool = self.pool(&port.backend, own_host, now);
            routing.published.insert(*key, (port.target, Arc::new(pool)));
        }
        for (key, Exported { export, backend }) in exports {
            let pool = Arc::new(self.pool(backend, own_host, now));
            routing.exports.insert(key.clone(), (export.clone(), pool));
        }
        for (address, PodAddress { network, endpoint }) in pods {
            let target = self.target(endpoint, Way::Single, own_host, now);
            let network = network.clone();
            if target.remote.is_none() {
                routing.here.entry(network).or_default().insert(endpoint.container.clone(), target);
                continue;
            }
            let (project, service) = (network.project.clone(), endpoint.pod.service.clone());
            // Asked for by its own address a pod is connected to as it is, whatever it speaks.
            let (http, tally, balanced) = (BTreeMap::new(), Arc::default(), Balanced::default());
            let pool = Pool { project, service, is_single: true, http, tally, balanced, targets: vec![target] };
            routing.elsewhere.insert(*address, (network, Arc::new(pool)));
        }
        self.add_rules(&mut routing, routes, own_host, now);
        self.hosts.retain(|_, host| Arc::strong_count(host) > 1);
        self.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        routing
    }

    fn add_rules(&mut self, routing: &mut Routing, routes: &[RouteRule], own_host: &HostName, now: Duration) {
        for RouteRule { route, backend, .. } in routes {
            let services = routing.outside.entry(backend.project.clone()).or_default();
            let new = || Outside { pool: Arc::new(self.pool(backend, own_host, now)), ports: BTreeSet::new() };
            services.entry(backend.service.clone()).or_insert_with(new).ports.insert(route.port);
        }
        // What the table no longer has is forgotten.
        let (tallies, certificates) = (std::mem::take(&mut self.rules), std::mem::take(&mut self.certified));
        let rule = |rule: &RouteRule| {
            let RouteRule { route, number, backend, certificate: _ } = rule;
            let Backend { project, service, .. } = &**backend;
            let (project, service, name) = (project.clone(), service.clone(), route.name());
            let key = (project.clone(), service.clone(), *number, name.clone());
            let tally = tallies.get(&key).cloned().unwrap_or_default();
            self.rules.insert(key, Arc::clone(&tally));
            let pool = Arc::clone(&routing.outside[&project][&service].pool);
            let port = route.port;
            let door = Arc::new(Door::Rule { project, service, port });
            let is_plain = route.timeout.is_none() && route.action == RouteAction::Forward { path: None, host: None };
            Arc::new(Rule { pool, tally, port, is_plain, route: Arc::clone(route), number: *number, door, name })
        };
        let read = |rule: &RouteRule| {
            let certificate = rule.certificate.as_ref()?;
            let read = || match certified(&certificate.chain, &certificate.key) {
                Ok(key) => Some(Arc::new(key)),
                Err(error) => {
                    tracing::error!(place = rule.route.place, %error, "a certificate cannot be shown");
                    None
                }
            };
            let known = || certificates.get(certificate).cloned().unwrap_or_else(read);
            self.certified.entry(Arc::clone(certificate)).or_insert_with(known).clone()
        };
        let all: Vec<Arc<Rule>> = routes.iter().map(rule).collect();
        routing.ports = compile(routes, &all, read);
        routing.rules = all;
        self.services.retain(|_, tally| Arc::strong_count(tally) > 1);
    }

    fn pool(&mut self, backend: &Backend, own_host: &HostName, now: Duration) -> Pool {
        let Backend { project, service, http, balance, endpoints } = backend;
        let mut targets: Vec<Target> =
            endpoints.iter().map(|endpoint| self.target(endpoint, Way::Balanced, own_host, now)).collect();
        for (target, endpoint) in targets.iter_mut().zip(endpoints) {
            target.weight = balance.weights.get(&endpoint.host).copied().unwrap_or(WEIGHT);
        }
        let key = (project.clone(), service.clone());
        let tally = Arc::clone(self.services.entry(key.clone()).or_default());
        let turn = Arc::clone(self.turns.entry(key).or_default());
        let (project, service, http) = (project.clone(), service.clone(), http.clone());
        let balanced = Balanced::new(balance, turn, &targets);
        Pool { project, service, is_single: false, http, tally, balanced, targets }
    }

    fn target(&mut self, endpoint: &Endpoint, way: Way, own_host: &HostName, now: Duration) -> Target {
        let states = match way {
            Way::Balanced => &mut self.current,
            Way::Single => &mut self.single,
        };
        let new = || EndpointState::new(endpoint.container.clone(), now);
        let state = Arc::clone(states.entry(endpoint.container.clone()).or_insert_with(new));
        let remote = (&endpoint.host != own_host).then(|| {
            let new = || RemoteHost::new(endpoint.host.clone());
            Arc::clone(self.hosts.entry(endpoint.host.clone()).or_insert_with(new))
        });
        let (pod, seed) = (endpoint.pod.clone(), seed_of(&endpoint.pod));
        Target { pod, address: endpoint.address, remote, weight: WEIGHT, seed, state }
    }

    fn retire_all_but(&mut self, table: &LbTable) {
        let (balanced, running) = (balanced(table), single(table));
        for (states, keep) in [(&mut self.current, &balanced), (&mut self.single, &running)] {
            for (_, state) in states.extract_if(.., |id, _| !keep.contains(id.as_str())) {
                state.retire();
                self.leaving.push(state);
            }
        }
        for state in self.leaving.iter().filter(|state| !running.contains(state.container.as_str())) {
            state.end();
        }
        self.leaving.retain(|state| state.open() > 0);
    }
}

/// How an endpoint is come by.
#[derive(Debug, Clone, Copy)]
enum Way {
    Balanced,
    Single,
}

fn single(table: &LbTable) -> BTreeSet<&str> {
    table.pods.values().map(|pod| pod.endpoint.container.as_str()).collect()
}

fn balanced(table: &LbTable) -> BTreeSet<&str> {
    let vips = table.vips.values().map(|vip| &vip.backend);
    let published = table.published.values().map(|port| &port.backend);
    let exports = table.exports.values().map(|exported| &exported.backend);
    let routed = table.routes.iter().map(|rule| &rule.backend);
    vips.chain(published)
        .chain(exports)
        .chain(routed)
        .flat_map(|backend| &backend.endpoints)
        .map(|endpoint| endpoint.container.as_str())
        .collect()
}

impl Routing {
    /// Returns what stands behind a door and the port to connect to there; `None` if nothing does any more.
    ///
    /// An address is given only to connections that came in through its own network's listener.
    pub(super) fn behind(&self, door: &Door) -> Option<(&Arc<Pool>, u16)> {
        match door {
            Door::Vip { network, address, port } => {
                let (owner, pool) = self.vips.get(address).or_else(|| self.elsewhere.get(address))?;
                if owner == network && pool.project != network.project {
                    return self.exported(&pool.project, &pool.service, *port).map(|pool| (pool, *port));
                }
                (owner == network).then_some((pool, *port))
            }
            Door::Published(key) => self.published.get(key).map(|(target, pool)| (pool, *target)),
            Door::Exported { project, service, port } => {
                self.exported(project, service, *port).map(|pool| (pool, *port))
            }
            Door::Rule { project, service, port } => Some((&self.outside.get(project)?.get(service)?.pool, *port)),
        }
    }

    /// Returns the service of another project if that port of it may be reached.
    fn exported(&self, project: &ProjectName, service: &ServiceName, port: u16) -> Option<&Arc<Pool>> {
        let (export, pool) = self.exports.get(&(project.clone(), service.clone()))?;
        let allowed = match export {
            Export::Nothing => false,
            Export::Ports(ports) => ports.contains(&port),
            Export::All => true,
        };
        allowed.then_some(pool)
    }

    /// Returns what is spoken behind a door, if it is balanced by request.
    pub(super) fn protocol(&self, door: &Door) -> Option<AppProtocol> {
        let (pool, port) = self.behind(door)?;
        pool.http.get(&port).copied()
    }

    /// Returns the rules of a port.
    pub(super) fn rules(&self, port: u16) -> Option<&PortRules> {
        self.ports.get(&port)
    }

    /// Returns the ports that rules are for.
    pub(super) fn rule_ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// Returns what is published at a port for connections.
    pub(super) fn published_at(&self, port: u16) -> Option<(u16, &Arc<Pool>)> {
        let found = self.published.iter().find(|(key, _)| key.port == port && key.protocol == Protocol::Tcp)?;
        Some((found.1.0, &found.1.1))
    }

    /// Returns where to listen for rules.
    pub(super) fn rule_listeners(&self) -> BTreeSet<PublishedKey> {
        self.ports.iter().flat_map(|(port, rules)| rules.listeners(*port)).collect()
    }

    /// Returns the published ports.
    pub(super) fn published_keys(&self) -> impl Iterator<Item = PublishedKey> {
        self.published.keys().copied()
    }

    /// Returns the published ports with where they lead.
    pub(super) fn published(&self) -> impl Iterator<Item = (PublishedKey, u16, &Arc<Pool>)> {
        self.published.iter().map(|(key, (target, pool))| (*key, *target, pool))
    }

    /// Returns every pool that is balanced.
    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let published = self.published.values().map(|(_, pool)| pool);
        let outside = self.outside.values().flat_map(|services| services.values().map(|outside| &outside.pool));
        self.vips.values().map(|(_, pool)| pool).chain(published).chain(outside)
    }

    /// Notes in every state whose it is: it may outlive the table.
    fn name_states(&self, own: &HostName) {
        for (pool, target) in self.pools().flat_map(|pool| pool.targets.iter().map(move |target| (pool, target))) {
            target.state.whose.get_or_init(|| Whose {
                project: pool.project.clone(),
                pod: target.pod.clone(),
                host: target.remote.as_ref().map_or(own, |host| &host.name).clone(),
            });
        }
    }

    /// Returns every rule.
    pub(super) fn all_rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter()
    }

    /// Returns the service that has a ready pod of this host with `address` in a network.
    pub(super) fn service_at(&self, network: &NetworkId, address: Ipv4Addr) -> Option<ServiceName> {
        let members = self.members.get(network)?;
        let is_here = |target: &Target| target.address == address && target.remote.is_none();
        members.iter().find(|(_, pool)| pool.targets.iter().any(is_here)).map(|(service, _)| service.clone())
    }

    /// Returns the endpoint of this host that another host asks for over `protocol`, if what it says of itself gives it
    /// the right.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn grant(&self, wanted: &crate::mesh::Target, protocol: Protocol) -> Result<&Target, Refusal> {
        let crate::mesh::Target { project, service, container, port, door } = wanted;
        let denied = |reason: String| Refusal::NotAllowed { service: service.clone(), reason };
        let unknown = || Refusal::UnknownEndpoint { container: container.clone() };
        let members = |network: &ResourceKey, source: &Option<ServiceName>| {
            let id = NetworkId { project: project.clone(), network: network.clone() };
            let members = self.members.get(&id).ok_or_else(|| denied(format!("no network `{network}` here")))?;
            match source {
                Some(source) if !members.contains_key(source) => {
                    Err(denied(format!("`{source}` is not in network `{network}`")))
                }
                _ => Ok((id, members)),
            }
        };
        let pool = match door {
            TargetDoor::Pod { network, source } => {
                let (id, _) = members(network, source)?;
                let found = self.here.get(&id).and_then(|pods| pods.get(container));
                return found.filter(|found| found.pod.service == *service).ok_or_else(unknown);
            }
            TargetDoor::Network { network, source } => {
                let (_, members) = members(network, source)?;
                members.get(service).ok_or_else(|| denied(format!("it is not in network `{network}`")))?
            }
            TargetDoor::Exported => self
                .exported(project, service, *port)
                .ok_or_else(|| denied(format!("it does not export its port {port}")))?,
            TargetDoor::Published => {
                let publishes = |(key, (target, pool)): &(&PublishedKey, &(u16, Arc<Pool>))| {
                    key.protocol == protocol && (target, &pool.project, &pool.service) == (port, project, service)
                };
                let found = self.published.iter().find(publishes).map(|(_, (_, pool))| pool);
                let ruled = || {
                    // Rules are for requests.
                    if protocol != Protocol::Tcp {
                        return None;
                    }
                    let outside = self.outside.get(project)?.get(service)?;
                    outside.ports.contains(port).then_some(&outside.pool)
                };
                found.or_else(ruled).ok_or_else(|| denied(format!("it does not publish its port {port}")))?
            }
        };
        let is_meant = |target: &&Target| target.remote.is_none() && target.state.container == *container;
        pool.targets.iter().find(is_meant).ok_or_else(unknown)
    }
}
