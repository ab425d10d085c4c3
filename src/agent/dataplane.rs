//! Names, addresses and the load balancer of this host, kept in agreement with all projects.
//!
//! Two speeds: tables of names and endpoints are made anew and swapped at every change of the picture; listeners,
//! rules and addresses are compared when networks change, and every few seconds because others may touch them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use ipnet::Ipv4Net;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::graph::Protocol;
use crate::host::network::{BridgeSpec, HostNetwork, HostNetworkError, HostNetworkSpec, ListenerPorts, OpenPort};
use crate::ids::{HostName, ProjectName};
use crate::lb::table::{AmbassadorKey, Draining, LbTable, NetworkId, PublishedKey};
use crate::lb::{AccessLog, AmbassadorStats, Balancer, BalancerStats, DryRequest, DryRun};
use crate::mesh::{Incoming, Mesh};
use crate::net::addr::routes;
use crate::net::dns::{DnsListener, DnsServer, DnsStats, Upstreams};
use crate::net::names::NameTable;
use crate::plan::{ContainerState, Desired, Observed, ProjectView};

mod published;

use super::folding::{Folded, Folding};
use super::shared::{Record, Shared};

/// How often rules and addresses are checked although nothing asked for it: a flushed firewall is mended within this.
pub(super) const CHECK: Duration = Duration::from_secs(2);

/// Changes of the picture within this time make one new table: an `up` of many containers brings hundreds.
const COALESCE: Duration = Duration::from_millis(3);

/// How long the other hosts may take to take a container out of their tables before it is stopped all the same.
const OTHERS_KNOW: Duration = Duration::from_secs(2);

/// Names, addresses and load balancer of one host.
pub struct Dataplane {
    names: Arc<ArcSwap<NameTable>>,
    dns: DnsServer,
    balancer: Balancer,
    host_network: Arc<dyn HostNetwork>,
    version: AtomicU64,
    draining: Mutex<BTreeMap<ProjectName, Draining>>,
    /// Runs that the last table was made for. Also the lock under which tables are made: an older picture never makes a
    /// newer table.
    runs: Mutex<Runs>,
    /// Addresses of containers on other hosts that the last table leads to.
    elsewhere: Mutex<BTreeMap<NetworkId, Vec<Ipv4Addr>>>,
    /// Also the lock under which listeners and rules change.
    listening: tokio::sync::Mutex<Listening>,
    problems: Mutex<Vec<String>>,
    /// Published ports that nobody listens on, with the reason.
    unbound: Mutex<BTreeMap<PublishedKey, String>>,
    folding: Folding,
}

#[derive(Default)]
struct Listening {
    networks: BTreeMap<NetworkId, NetworkListener>,
    /// What rules and addresses were last set to.
    applied: Option<HostNetworkSpec>,
    /// Ports that rules of an earlier agent name, by bridge: taking the same ones again leaves no gap. Read once.
    earlier: Option<BTreeMap<String, ListenerPorts>>,
}

struct NetworkListener {
    gateway: Ipv4Addr,
    lb_port: u16,
    dns: DnsListener,
}

/// A network of a project that is there on this host.
struct LiveNetwork {
    id: NetworkId,
    bridge: String,
    on_demand: bool,
    /// Whether it has IPv6, and it is not the engine alone that the file trusts to filter that.
    is_closed: bool,
    gateway: Ipv4Addr,
    subnet: Ipv4Net,
    vips: Ipv4Net,
    addresses: Vec<Ipv4Addr>,
    /// Ports of its services that take datagrams.
    datagrams: BTreeSet<u16>,
}

impl Dataplane {
    /// Puts the parts together; nothing listens yet.
    pub fn new(
        names: Arc<ArcSwap<NameTable>>,
        dns: DnsServer,
        balancer: Balancer,
        host_network: Arc<dyn HostNetwork>,
    ) -> Self {
        Self {
            names,
            dns,
            balancer,
            host_network,
            version: AtomicU64::new(1),
            draining: Mutex::default(),
            runs: Mutex::default(),
            elsewhere: Mutex::default(),
            listening: tokio::sync::Mutex::default(),
            problems: Mutex::default(),
            unbound: Mutex::default(),
            folding: Folding::default(),
        }
    }

    /// Follows the picture of the engine and what is wanted until stopped. Started by `wire` only.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>, stop: CancellationToken) {
        let mut pictures = shared.informer.subscribe();
        let mut records = shared.records_changed();
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Where it ends, the check alone finds them.
        let mut bridges = self.host_network.new_bridges().fuse();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(bridge) = bridges.next() => {
                    if self.forget_applied(&bridge).await && let Err(error) = self.ensure_host(&shared).await {
                        tracing::warn!(%error, bridge, "cannot set the addresses of a new bridge");
                    }
                }
                changed = pictures.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(COALESCE).await;
                    pictures.mark_unchanged();
                    self.follow(&shared).await;
                }
                // The engine may have nothing to tell of what a record changes: ports of a route, a project that is gone.
                changed = records.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow(&shared).await;
                }
                _ = check.tick() => {
                    self.dns.set_upstreams(host_resolvers());
                    drop(self.ensure_host(&shared).await);
                    super::execute::ensure_resolv_files(&shared).await;
                }
            }
        }
    }

    /// Makes tables, and what of the host depends on them, as the picture and the records are now.
    async fn follow(&self, shared: &Shared) {
        self.refresh_tables(shared);
        if let Err(error) = self.ensure_if_changed(shared).await {
            tracing::warn!(%error, "cannot set rules and addresses");
        }
    }

    /// Makes the tables of names and endpoints anew and swaps them in. Never waits.
    ///
    /// What is still connected to a container that is gone is reset: its end may not have reached the other side.
    pub fn refresh_tables(&self, shared: &Shared) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let records = shared.desired();
        // Each project is shown its own containers only: services of different projects have the same names.
        let own: Vec<Observed> = records.iter().map(|record| own_part(shared, record)).collect();
        let (desired, seen) = (self.folding.of(&records), folded(&records, &own));
        let views = views(&desired, &seen);
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        self.names.store(Arc::new(NameTable::build(version, &views)));
        let mut draining: Draining = self.draining_here();
        draining.extend(shared.peers.draining());
        let table = LbTable::build(version, shared.host(), &views, &draining);
        self.note_unbound(self.balancer.set_table(&table));
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = table.elsewhere(shared.host());
        let now = runs_of(&own);
        for container in over(&runs, &now) {
            self.balancer.close_connections(container);
        }
        *runs = now;
    }

    /// Compares listeners, rules and addresses with what all projects need, and mends what differs.
    ///
    /// # Errors
    /// What the host refused; also kept for [`Dataplane::problems`].
    pub async fn ensure_host(&self, shared: &Shared) -> Result<(), HostNetworkError> {
        let mut listening = self.listening.lock().await;
        if listening.earlier.is_none() {
            listening.earlier = Some(self.host_network.ports().await.unwrap_or_default());
        }
        let (spec, mut problems) = self.listen(shared, &mut listening);
        let result = self.host_network.ensure(&spec).await;
        match &result {
            Ok(mended) => {
                let changed = listening.applied.as_ref() != Some(&spec);
                if !changed && !mended.is_empty() {
                    tracing::warn!(?mended, "somebody changed orch's rules or addresses");
                }
                listening.applied = Some(spec);
            }
            Err(error) => {
                listening.applied = None;
                problems.push(error.to_string());
            }
        }
        // A port that was taken may be free now.
        self.note_unbound(self.balancer.sync_published());
        problems.extend(self.published_problems(shared).into_iter().map(|(key, problem)| {
            let address = key.host_ip.map_or_else(|| "all addresses".to_owned(), |ip| ip.to_string());
            let protocol = if key.protocol == Protocol::Udp { "UDP port" } else { "port" };
            format!("{protocol} {} on {address} cannot be published: {problem}", key.port)
        }));
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
        result.map(drop)
    }

    /// Like [`Dataplane::ensure_host`], but only when networks or ports differ from what was set last.
    ///
    /// # Errors
    /// What the host refused.
    pub async fn ensure_if_changed(&self, shared: &Shared) -> Result<(), HostNetworkError> {
        let changed = {
            let mut listening = self.listening.lock().await;
            let (spec, _) = self.listen(shared, &mut listening);
            listening.applied.as_ref() != Some(&spec)
        };
        if changed { self.ensure_host(shared).await } else { Ok(()) }
    }

    /// Takes a container out of the tables and waits for its connections to end, at most for `deadline`.
    pub async fn drain(&self, shared: &Shared, project: &ProjectName, container: &str, deadline: Duration) {
        self.stop_sending(shared, project, container).await;
        self.balancer.drain(container, Instant::now() + deadline).await;
    }

    /// Takes a container out of the tables, here and on the other hosts.
    pub async fn stop_sending(&self, shared: &Shared, project: &ProjectName, container: &str) {
        let new = self.lock_draining().entry(project.clone()).or_default().insert(container.to_owned());
        self.refresh_tables(shared);
        if new && !shared.fleet().hosts.is_empty() {
            let version = shared.refresh_own_picture();
            shared.peers.wait_for_picture(version, OTHERS_KNOW).await;
        }
    }

    /// Returns the containers of this host that get no new connections.
    pub fn draining_here(&self) -> Draining {
        self.lock_draining().values().flatten().cloned().collect()
    }

    /// Puts containers of a project back that are in nobody's plan to stop any more.
    pub fn keep_draining(&self, project: &ProjectName, wanted: &BTreeSet<String>) {
        let mut draining = self.lock_draining();
        if let Some(containers) = draining.get_mut(project) {
            containers.retain(|id| wanted.contains(id));
            if containers.is_empty() {
                draining.remove(project);
            }
        }
    }

    /// Returns what is wrong with listeners, rules or addresses now, and what else on the host is in their way.
    pub async fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.host_network.problems().await {
            Ok(foreign) => problems.extend(foreign),
            Err(error) => problems.push(error.to_string()),
        }
        problems
    }

    /// Listens for the other hosts, and reaches their containers.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn join_mesh(&self, mesh: Mesh, address: SocketAddr, control: mpsc::Sender<Incoming>) -> std::io::Result<()> {
        self.balancer.join(mesh, address, control).map(drop)
    }

    /// Undoes [`Dataplane::join_mesh`].
    pub fn leave_mesh(&self) {
        self.balancer.leave();
    }

    /// Returns the names that containers are answered by now.
    pub fn name_table(&self) -> Arc<NameTable> {
        self.names.load_full()
    }

    /// Says what would become of a request.
    pub fn dry_run(&self, request: &DryRequest) -> DryRun {
        self.balancer.dry_run(request)
    }

    /// Returns how names were answered.
    pub fn dns_stats(&self) -> DnsStats {
        self.dns.stats()
    }

    /// Returns what the load balancer does.
    pub fn balancer_stats(&self) -> BalancerStats {
        self.balancer.stats()
    }

    /// Returns the log of requests.
    pub fn access_log(&self) -> &AccessLog {
        self.balancer.access_log()
    }

    /// Returns how many sockets an ambassador's listener has.
    pub fn sockets_per_listener(&self) -> usize {
        self.balancer.sockets_per_listener()
    }

    /// Serves an ambassador on sockets that were opened inside its pod.
    ///
    /// # Errors
    /// There is no socket.
    pub fn open_ambassador(&self, key: AmbassadorKey, sockets: Vec<std::net::TcpListener>) -> std::io::Result<()> {
        self.balancer.add_ambassador(key, sockets)
    }

    /// Ends an ambassador's listener.
    pub fn close_ambassador(&self, key: &AmbassadorKey) {
        self.balancer.remove_ambassador(key);
    }

    /// Returns what the ambassadors of this host do.
    pub fn ambassador_stats(&self) -> Vec<AmbassadorStats> {
        self.balancer.ambassador_stats()
    }

    /// Returns the destinations that this host has routes to.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn routes(&self) -> Result<Vec<Ipv4Net>, HostNetworkError> {
        self.host_network.routes().await
    }

    /// Returns what rules and addresses are to be by what all projects need now, and what is in the way.
    #[cfg(test)]
    pub(super) async fn wanted(&self, shared: &Shared) -> (HostNetworkSpec, Vec<String>) {
        self.listen(shared, &mut *self.listening.lock().await)
    }

    /// Returns whether it is one of the projects' bridges that the engine makes when it needs them: then it has none of the
    /// addresses that were set.
    async fn forget_applied(&self, bridge: &str) -> bool {
        let mut listening = self.listening.lock().await;
        let mut applied = listening.applied.iter().flat_map(|spec| &spec.bridges);
        let ours = applied.any(|known| known.on_demand && known.bridge == bridge);
        if ours {
            listening.applied = None;
        }
        ours
    }

    /// Closes everything and removes rules and addresses.
    ///
    /// # Errors
    /// What the host refused.
    pub async fn remove_all(&self) -> Result<(), HostNetworkError> {
        let mut listening = self.listening.lock().await;
        self.note_unbound(self.balancer.set_table(&LbTable::default()));
        for (id, _) in std::mem::take(&mut listening.networks) {
            self.balancer.remove_vip_listener(&id);
        }
        listening.applied = None;
        self.host_network.remove_all().await
    }

    /// Opens listeners for networks that are new and closes those of networks that are gone.
    fn listen(&self, shared: &Shared, listening: &mut Listening) -> (HostNetworkSpec, Vec<String>) {
        let records = shared.desired();
        let observed = shared.informer.everything();
        let live = {
            let elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
            live_networks(&records, &observed, &elsewhere)
        };
        let mut problems = Vec::new();
        let wanted: BTreeMap<&NetworkId, Ipv4Addr> =
            live.iter().map(|network| (&network.id, network.gateway)).collect();
        listening.networks.retain(|id, listener| {
            let keep = wanted.get(id) == Some(&listener.gateway);
            if !keep {
                self.balancer.remove_vip_listener(id);
            }
            keep
        });
        let closed = live.iter().filter(|network| network.is_closed).map(|network| network.bridge.clone()).collect();
        let mut bridges = Vec::new();
        for network in live {
            match self.listener(&network, listening) {
                Ok((lb_port, dns_port)) => bridges.push(BridgeSpec {
                    udp: self.datagram_listeners(&network, listening, &mut problems),
                    bridge: network.bridge,
                    on_demand: network.on_demand,
                    gateway: network.gateway,
                    subnet: network.subnet,
                    vips: network.vips,
                    addresses: network.addresses,
                    lb_port,
                    dns_port,
                }),
                Err(error) => problems.push(format!(
                    "cannot listen for network `{}` of `{}` at {}: {}",
                    network.id.network,
                    network.id.project,
                    network.gateway,
                    crate::diag::chain(&error)
                )),
            }
        }
        let mut published = open_ports(&records, shared.host());
        // The other hosts must get in too, whatever the firewall's policy.
        let fleet = shared.fleet();
        published.extend(fleet.hosts.get(&fleet.own).map(|own| OpenPort {
            host_ip: None,
            port: own.address.port(),
            protocol: Protocol::Tcp,
        }));
        published.sort_unstable();
        published.dedup();
        (HostNetworkSpec { bridges, closed, published }, problems)
    }

    fn listener(&self, network: &LiveNetwork, listening: &mut Listening) -> std::io::Result<(u16, u16)> {
        if let Some(listener) = listening.networks.get(&network.id) {
            return Ok((listener.lb_port, listener.dns.address().port()));
        }
        let earlier = listening.earlier.as_ref().and_then(|ports| ports.get(&network.bridge));
        let dns = self.dns.listen(network.gateway, earlier.map(|ports| ports.dns))?;
        let lb_port =
            self.balancer.add_vip_listener(network.id.clone(), network.gateway, earlier.map(|ports| ports.lb))?;
        let ports = (lb_port, dns.address().port());
        listening.networks.insert(network.id.clone(), NetworkListener { gateway: network.gateway, lb_port, dns });
        Ok(ports)
    }

    /// Agrees what is listened on for datagrams with what a network's services declare.
    fn datagram_listeners(
        &self,
        network: &LiveNetwork,
        listening: &Listening,
        problems: &mut Vec<String>,
    ) -> BTreeMap<u16, u16> {
        let LiveNetwork { id, bridge, datagrams, .. } = network;
        let earlier = listening.earlier.as_ref().and_then(|ports| ports.get(bridge)).map(|ports| &ports.udp);
        let (ports, errors) = self.balancer.sync_datagrams(id, bridge, datagrams, earlier.unwrap_or(&BTreeMap::new()));
        if let Some((port, error)) = errors.first_key_value() {
            let more = match errors.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            problems.push(format!(
                "UDP port {port}{more} of services in network `{}` of `{}` is not served at virtual addresses: {}",
                id.network, id.project, error.source
            ));
        }
        ports
    }

    fn lock_draining(&self) -> std::sync::MutexGuard<'_, BTreeMap<ProjectName, Draining>> {
        self.draining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the host's resolvers, which may change while the agent runs: its own container has a copy of the file only.
fn host_resolvers() -> Upstreams {
    let read = std::fs::read_to_string("/proc/1/root/etc/resolv.conf");
    let text = read.or_else(|_| std::fs::read_to_string("/etc/resolv.conf")).unwrap_or_default();
    Upstreams::from_resolv_conf(&text)
}

fn own_part(shared: &Shared, record: &Record) -> Observed {
    record.desired.as_ref().map_or_else(Observed::default, |desired| shared.observed(Some(&desired.graph.project)))
}

/// What is of each project, with every pod as one container.
fn folded<'a>(records: &[Arc<Record>], own: &'a [Observed]) -> Vec<Cow<'a, Observed>> {
    let fold = |(record, own): (&Arc<Record>, &'a Observed)| match &record.desired {
        Some(desired) => own.folded(&desired.graph),
        None => Cow::Borrowed(own),
    };
    records.iter().zip(own).map(fold).collect()
}

fn views<'a>(folded: &'a [Folded], seen: &'a [Cow<'a, Observed>]) -> Vec<ProjectView<'a>> {
    let pairs = folded.iter().zip(seen);
    pairs.filter_map(|(folded, observed)| Some(ProjectView { desired: folded.desired()?, observed })).collect()
}

/// Start times of containers by id.
type Runs = BTreeMap<String, String>;

/// The last run of every container that is there, ended or not: what it said before its end may still be on its way.
fn runs_of(own: &[Observed]) -> Runs {
    let containers = own.iter().flat_map(|observed| observed.hosts.values()).flat_map(|host| host.containers.values());
    let there = containers.filter(|one| !matches!(one.state, ContainerState::Dead | ContainerState::Removing));
    there.map(|container| (container.id.clone(), container.started_at.clone())).collect()
}

/// Returns the containers of which a run is over for good: they are gone, or run anew.
fn over<'a>(before: &'a Runs, now: &Runs) -> impl Iterator<Item = &'a str> {
    before.iter().filter(|(id, started_at)| now.get(*id) != Some(*started_at)).map(|(id, _)| id.as_str())
}

/// The projects' networks that exist on this host as orch made them, with the addresses that it answers for in each.
fn live_networks(
    records: &[Arc<Record>],
    observed: &Observed,
    elsewhere: &BTreeMap<NetworkId, Vec<Ipv4Addr>>,
) -> Vec<LiveNetwork> {
    let mut live = Vec::new();
    for desired in records.iter().filter_map(|record| record.desired.as_ref()) {
        for (key, addresses) in &desired.addresses.networks {
            let Some(network) = desired.graph.networks.get(key) else { continue };
            let seen = observed.hosts.values().find_map(|host| host.networks.get(&network.name));
            let Some(seen) = seen.filter(|seen| seen.subnet == Some(addresses.subnet)) else { continue };
            let id = NetworkId { project: desired.graph.project.clone(), network: key.clone() };
            let elsewhere = elsewhere.get(&id).into_iter().flatten();
            let all = addresses.services.values().chain(elsewhere).copied().collect();
            live.push(LiveNetwork {
                id,
                bridge: seen.bridge.clone(),
                on_demand: seen.bridge_on_demand,
                is_closed: seen.ipv6 && !network.is_open_by_ipv6(),
                gateway: addresses.gateway,
                subnet: addresses.subnet,
                vips: addresses.vips,
                addresses: all,
                datagrams: desired.graph.datagram_ports(key),
            });
        }
    }
    live
}

fn open_ports(records: &[Arc<Record>], own: &HostName) -> Vec<OpenPort> {
    let desired = records.iter().filter_map(|record| record.desired.as_ref()).filter(|desired| desired.is_for(own));
    let of = |desired: &Desired| {
        let published = desired.addresses.ports.iter().filter(|port| port.protocol != Protocol::Sctp);
        let published =
            published.map(|port| OpenPort { host_ip: port.host_ip, port: port.published, protocol: port.protocol });
        let routes = routes(&desired.graph).flat_map(|(_, route)| {
            let at = |port| OpenPort { host_ip: route.host_ip, port, protocol: Protocol::Tcp };
            route.listen.iter().map(move |listen| at(listen.port))
        });
        published.chain(routes).collect::<Vec<_>>()
    };
    let mut ports: Vec<OpenPort> = desired.flat_map(of).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ObservedHost;
    use crate::testing;

    fn runs(change: impl FnOnce(&mut ObservedHost)) -> Runs {
        let containers = ["web", "db"].map(|service| testing::container("shop", service, 1));
        let containers = containers.into_iter().map(|container| (container.id.clone(), container)).collect();
        let mut host = ObservedHost { containers, ..ObservedHost::default() };
        change(&mut host);
        runs_of(&[Observed { hosts: BTreeMap::from([(crate::ids::HostName::local(), host)]) }])
    }

    #[test]
    fn a_run_is_over_when_its_container_is_gone_or_runs_anew_but_not_when_it_has_only_ended() {
        const WEB: &str = "shop-web-1-id";
        let before = runs(|_| {});
        let over = |change: fn(&mut crate::plan::ObservedContainer)| {
            let now = runs(|host| change(host.containers.get_mut(WEB).expect("it is there")));
            over(&before, &now).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(over(|_| {}).is_empty());
        assert!(over(|web| web.state = ContainerState::Exited { code: 0, by_itself: true }).is_empty());
        assert_eq!(over(|web| web.state = ContainerState::Dead), [WEB]);
        assert_eq!(over(|web| web.started_at = "later".to_owned()), [WEB]);
        let gone = runs(|host| drop(host.containers.remove(WEB)));
        assert_eq!(super::over(&before, &gone).collect::<Vec<_>>(), [WEB]);
    }
}
