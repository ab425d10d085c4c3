//! Building the table: a zone for each project and network, an asker for each container.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::graph::{EndpointMode, NetworkMode, Protocol, Role, Service};
use crate::ids::{PodId, ResourceKey, ServiceName};
use crate::model::ExternalLink;
use crate::plan::{ObservedContainer, ObservedNetwork, ProjectView};

use super::{
    APEX, Asker, Entry, KnownNetwork, NameTable, NamedPort, POD_TTL_SECS, VIP_TTL_SECS, Zone, parse_upstreams,
};

/// Which name wins where two are the same; lower ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Service,
    Alias,
    Pod,
    Container,
}

/// Builds the table of several projects.
pub(super) fn table(version: u64, projects: &[ProjectView<'_>]) -> NameTable {
    let mut zones = Vec::new();
    let mut places = Vec::new();
    for project in projects {
        for (key, network) in &project.desired.graph.networks {
            places.push(Place { project, key, engine_name: &network.name });
            zones.push(zone(project, key));
        }
    }
    let networks = places.iter().enumerate().filter_map(|(at, place)| known_network(&places, at, place)).collect();
    let mut askers = HashMap::new();
    for project in projects {
        let links = project.desired.graph.services.iter();
        let links: BTreeMap<&ServiceName, _> =
            links.map(|(name, service)| (name, Arc::new(links_of(service, projects)))).collect();
        for container in containers(project) {
            let asker = asker(&places, project, container, &links);
            askers.extend(container.networks.values().flatten().map(|address| (*address, asker.clone())));
        }
    }
    NameTable { version, zones, askers, networks }
}

/// Where a zone comes from; at the same index.
struct Place<'a> {
    project: &'a ProjectView<'a>,
    key: &'a ResourceKey,
    engine_name: &'a str,
}

impl Place<'_> {
    fn is_of(&self, project: &ProjectView<'_>) -> bool {
        self.project.desired.graph.project == project.desired.graph.project
    }

    fn internal(&self) -> bool {
        let graph = self.project.desired.graph.networks.get(self.key);
        graph.is_some_and(|network| network.internal) || self.observed().is_some_and(|network| network.internal)
    }

    fn observed(&self) -> Option<&ObservedNetwork> {
        self.project.observed.hosts.values().find_map(|host| host.networks.get(self.engine_name))
    }
}

/// Returns the zones at `own` and those of other projects in the same external networks, own ones first.
fn visible(places: &[Place<'_>], own: &[usize]) -> Vec<usize> {
    let shared = own.iter().flat_map(|at| {
        let same = move |other: &usize| other != at && places[*other].engine_name == places[*at].engine_name;
        (0..places.len()).filter(same)
    });
    let mut zones = own.to_vec();
    for zone in shared {
        if !zones.contains(&zone) {
            zones.push(zone);
        }
    }
    zones
}

fn known_network(places: &[Place<'_>], at: usize, place: &Place<'_>) -> Option<KnownNetwork> {
    let ours = place.project.desired.addresses.networks.get(place.key);
    let (subnet, gateway) = match (ours, place.observed()) {
        (Some(addresses), _) => (addresses.subnet, Some(addresses.gateway)),
        (None, Some(observed)) => (observed.subnet?, observed.gateway),
        (None, None) => return None,
    };
    let asker = Asker {
        zones: visible(places, &[at]),
        links: Arc::default(),
        upstreams: Arc::default(),
        outside: !place.internal(),
    };
    Some(KnownNetwork { subnet, gateway, asker })
}

/// Returns what a container may ask for. It sees the networks that it is in, in the order of its service's attachments.
fn asker(
    places: &[Place<'_>],
    project: &ProjectView<'_>,
    container: &ObservedContainer,
    links: &BTreeMap<&ServiceName, Arc<HashMap<String, String>>>,
) -> Asker {
    let service = container.service.as_ref().and_then(|name| project.desired.graph.services.get_key_value(name));
    let order = |key: &ResourceKey| match service.map(|(_, service)| &service.network) {
        Some(NetworkMode::Networks(list)) => list.iter().position(|a| &a.network == key).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let is_in = |place: &Place<'_>| place.is_of(project) && container.networks.contains_key(place.engine_name);
    let mut own: Vec<usize> = (0..places.len()).filter(|at| is_in(&places[*at])).collect();
    own.sort_by_key(|at| (order(places[*at].key), *at));
    Asker {
        outside: own.iter().any(|at| !places[*at].internal()),
        zones: visible(places, &own),
        links: service.and_then(|(name, _)| links.get(name).cloned()).unwrap_or_default(),
        upstreams: service.map(|(_, service)| parse_upstreams(&service.container.dns)).unwrap_or_default(),
    }
}

/// Returns the aliases of a service's links. Docker Compose also makes a link's `SERVICE-1` known; so does this.
fn links_of(service: &Service, projects: &[ProjectView<'_>]) -> HashMap<String, String> {
    let mut links = HashMap::new();
    for link in &service.links {
        let target = link.service.as_str().to_lowercase();
        links.insert(format!("{target}-1"), format!("1.{target}"));
        links.insert(link.alias.to_lowercase(), target);
    }
    let is_there = |link: &ExternalLink| {
        let mut graphs = projects.iter().map(|project| &project.desired.graph);
        graphs.any(|graph| graph.project == link.project && graph.services.contains_key(&link.service))
    };
    let aliases: BTreeSet<String> = service.external_links.iter().map(|link| link.alias.to_lowercase()).collect();
    for alias in aliases {
        if let Some(link) = service.external_link(&alias, is_there) {
            let key = link.key().as_str().to_lowercase();
            links.insert(alias, key);
        }
    }
    links
}

fn containers<'a>(project: &ProjectView<'a>) -> impl Iterator<Item = &'a ObservedContainer> {
    project.observed.hosts.values().flat_map(|host| host.containers.values())
}

/// A pod's container with its address in the zone's network.
struct PodAddress {
    pod: PodId,
    ready: bool,
    address: Ipv4Addr,
}

/// Returns the names of a project in one of its networks.
fn zone(project: &ProjectView<'_>, key: &ResourceKey) -> Zone {
    let graph = &project.desired.graph;
    let suffix = format!(".{}.{APEX}", graph.project);
    let mut zone = Zone { suffix, names: HashMap::new(), reverse: HashMap::new() };
    let network = &graph.networks[key].name;
    let running: Vec<(&ObservedContainer, Ipv4Addr)> = containers(project)
        .filter(|container| container.is_running())
        .filter_map(|container| Some((container, container.networks.get(network).copied().flatten()?)))
        .collect();
    let mut pods = pods(project, &running);
    pods.sort_by(|a, b| (&a.pod, a.address).cmp(&(&b.pod, b.address)));
    let vips = project.desired.addresses.networks.get(key).map(|addresses| &addresses.services);
    for (name, service) in &graph.services {
        let NetworkMode::Networks(attachments) = &service.network else { continue };
        let Some(attachment) = attachments.iter().find(|attachment| &attachment.network == key) else { continue };
        let pods: Vec<&PodAddress> = pods.iter().filter(|pod| &pod.pod.service == name).collect();
        let vip = vips.and_then(|vips| vips.get(name)).copied();
        let member = Member { name: &name.as_str().to_lowercase(), service, ports: ports_of(service), vip, pods };
        let wanted: BTreeSet<u32> = project.desired.pods().filter(|p| &p.service == name).map(|p| p.number).collect();
        member.enter(&mut zone, &attachment.aliases, &wanted);
    }
    // Services of other projects that links name: nobody else can ask for these names, they are none.
    for (name, vip) in vips.into_iter().flatten().filter(|(name, _)| !graph.services.contains_key(*name)) {
        zone.enter(name.as_str(), Rank::Service, VIP_TTL_SECS, &[*vip], &Arc::default());
    }
    for (container, address) in running {
        let service = container.service.as_ref().and_then(|name| graph.services.get(name));
        let ports: Arc<[NamedPort]> = service.map(ports_of).unwrap_or_default();
        zone.enter(&container.name, Rank::Container, POD_TTL_SECS, &[address], &ports);
        let short_id = container.id.get(..12).unwrap_or(&container.id);
        zone.enter(short_id, Rank::Container, POD_TTL_SECS, &[address], &ports);
        // A step that is run before the service has its rights, and not its names.
        let is_step = container.part().is_some_and(|part| part.role == Role::PreStart);
        let named = service.filter(|_| !is_step);
        if let Some(hostname) = named.and_then(|service| service.container.hostname.as_ref()) {
            zone.enter(hostname, Rank::Container, POD_TTL_SECS, &[address], &ports);
        }
    }
    zone
}

fn pods(project: &ProjectView<'_>, running: &[(&ObservedContainer, Ipv4Addr)]) -> Vec<PodAddress> {
    let assigned = &project.desired.assignments.pods;
    running
        .iter()
        .filter_map(|(container, address)| {
            let pod = container.pod()?;
            // A pod that is on its way out (scaled down) is no longer one of the tasks.
            let ready = container.is_ready() && assigned.contains_key(&pod);
            Some(PodAddress { pod, ready, address: *address })
        })
        .collect()
}

/// A service in a network.
struct Member<'a> {
    name: &'a str,
    service: &'a Service,
    ports: Arc<[NamedPort]>,
    vip: Option<Ipv4Addr>,
    pods: Vec<&'a PodAddress>,
}

impl Member<'_> {
    /// Enters the service's names: its own, aliases, tasks and single pods.
    fn enter(&self, zone: &mut Zone, aliases: &[String], wanted: &BTreeSet<u32>) {
        let Member { name, service, ports, vip, pods } = self;
        let ready: Vec<Ipv4Addr> = pods.iter().filter(|pod| pod.ready).map(|pod| pod.address).collect();
        let vip = vip.filter(|_| service.endpoint_mode == EndpointMode::Vip);
        let (addresses, ttl_secs) = match vip {
            Some(vip) => (vec![vip], VIP_TTL_SECS),
            None => (ready.clone(), POD_TTL_SECS),
        };
        zone.enter(name, Rank::Service, ttl_secs, &addresses, ports);
        for alias in aliases {
            zone.enter(alias, Rank::Alias, ttl_secs, &addresses, ports);
        }
        zone.enter(&format!("tasks.{name}"), Rank::Pod, POD_TTL_SECS, &ready, ports);
        for number in wanted {
            // Known also while it does not run, so that the name is not looked for elsewhere.
            zone.enter(&format!("{number}.{name}"), Rank::Pod, POD_TTL_SECS, &[], ports);
        }
        let project = zone.suffix.clone();
        for pod in pods {
            let short = format!("{}.{name}", pod.pod.number);
            zone.enter(&short, Rank::Pod, POD_TTL_SECS, &[pod.address], ports);
            zone.reverse.insert(pod.address, short + &project);
        }
        if let Some(vip) = vip {
            zone.reverse.insert(vip, format!("{name}{project}"));
        }
    }
}

impl Zone {
    /// Adds addresses to a name, unless a name of lower rank has it.
    fn enter(&mut self, name: &str, rank: Rank, ttl_secs: u32, addresses: &[Ipv4Addr], ports: &Arc<[NamedPort]>) {
        let new = || Entry { rank, ttl_secs, addresses: Vec::new(), ports: Vec::new() };
        let entry = self.names.entry(name.to_lowercase()).or_insert_with(new);
        if rank > entry.rank {
            return;
        }
        if rank < entry.rank {
            *entry = new();
        }
        entry.ttl_secs = entry.ttl_secs.min(ttl_secs);
        for address in addresses {
            if !entry.addresses.contains(address) {
                entry.addresses.push(*address);
                entry.ports.push(Arc::clone(ports));
            }
        }
    }
}

/// Returns the ports that the file tells of, with their names, in order of protocol and number.
pub(super) fn ports_of(service: &Service) -> Arc<[NamedPort]> {
    let mut ports: BTreeMap<(Protocol, u16), Vec<String>> = BTreeMap::new();
    for exposed in &service.expose {
        ports.entry((exposed.protocol, exposed.port)).or_default();
    }
    for port in &service.ports {
        let names = ports.entry((port.protocol, port.target)).or_default();
        names.extend(port.name.as_ref().map(|name| name.to_lowercase()));
    }
    ports.into_iter().map(|((protocol, port), names)| NamedPort { port, protocol, names }).collect()
}
