//! Projects written as short text, for the tests of names and addresses and for the DNS benchmark.
//!
//! Text that is not of the form described makes these panic: they are for tests only.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::graph::{
    Attachment, EndpointMode, ExposedPort, Graph, Link, Network, NetworkMode, Port, PortMode, Protocol, Scale, Service,
};
use crate::ids::{HostName, PodId, ResourceKey, ServiceName};
use crate::net::addr::{Allocation, Pool, allocate};
use crate::place::Assignments;
use crate::plan::{
    Addresses, ContainerState, Desired, Health, Observed, ObservedContainer, ObservedHost, ObservedNetwork, ProjectView,
};
use crate::testing;

/// The name of a service.
///
/// # Panics
/// If it is none.
pub fn service_name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("a service name")
}

/// The key of a network.
///
/// # Panics
/// If it is none.
pub fn key(text: &str) -> ResourceKey {
    ResourceKey::new(text).expect("a network key")
}

/// A graph of `networks` and `services`, one per line.
///
/// Network: `KEY [SUBNET] [gateway=ADDRESS] [range=NET] [internal] [external=NAME] [driver=NAME]`. Service: its name, then
/// its networks as `KEY[=ADDRESS][/ALIAS…]`, and words that start with `+`: `+x2` replicas, `+global`, `+dnsrr`,
/// `+link=SERVICE:ALIAS`, `+publish=[IP@][A[-B]]:TARGET[/udp]`, `+port=NAME:TARGET`, `+host=TARGET` (mode host), `+expose=N`,
/// `+name=CONTAINER`, `+hostname=NAME`, `+dns=IP`, `+in=SERVICE` (shares its namespace), `+mode=host|none`.
///
/// # Panics
/// If the text is not of that form.
pub fn graph(project: &str, networks: &str, services: &str) -> Graph {
    Graph {
        services: words(services).map(|(name, rest)| (service_name(name), service(&rest))).collect(),
        networks: words(networks).map(|(name, rest)| (key(name), network(project, name, &rest))).collect(),
        ..testing::graph(project, &[])
    }
}

fn words(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.collect()))
    })
}

fn network(project: &str, name: &str, words: &[&str]) -> Network {
    let mut network = testing::network(&format!("{project}_{name}"));
    for word in words {
        match word.split_once('=') {
            Some(("gateway", value)) => network.gateway = Some(value.parse().expect("an address")),
            Some(("reserved", value)) => {
                network.aux_addresses.insert("other".to_owned(), value.parse().expect("an address"));
            }
            Some(("range", value)) => network.ip_range = Some(value.parse().expect("a range")),
            Some(("driver", value)) => network.driver = Some(value.into()),
            Some(("external", value)) => (network.external, network.name) = (true, value.into()),
            None if *word == "internal" => network.internal = true,
            _ => network.subnet = Some(word.parse().expect("a subnet")),
        }
    }
    network
}

fn service(words: &[&str]) -> Service {
    let mut service = testing::service();
    let mut attachments = Vec::new();
    for word in words {
        match word.strip_prefix('+') {
            Some(option) => set(&mut service, option),
            None => attachments.push(attachment(word)),
        }
    }
    if !attachments.is_empty() {
        service.network = NetworkMode::Networks(attachments);
    }
    service
}

fn attachment(word: &str) -> Attachment {
    let mut parts = word.split('/');
    let first = parts.next().expect("split gives one");
    let (network, ipv4) = first.split_once('=').map_or((first, None), |(network, ip)| (network, Some(ip)));
    Attachment {
        aliases: parts.map(str::to_owned).collect(),
        ipv4: ipv4.map(|ip| ip.parse().expect("an address")),
        ..Attachment::new(key(network))
    }
}

fn set(service: &mut Service, option: &str) {
    let (word, value) = option.split_once('=').unwrap_or((option, ""));
    match word {
        "global" => service.scale = Scale::Global,
        "dnsrr" => service.endpoint_mode = EndpointMode::Dnsrr,
        "link" => {
            let (target, alias) = value.split_once(':').expect("SERVICE:ALIAS");
            service.links.push(Link { service: service_name(target), alias: alias.into() });
        }
        "publish" => service.ports.push(port(value)),
        "port" => {
            let (name, target) = value.split_once(':').expect("NAME:TARGET");
            let port = port(&format!(":{target}"));
            service.expose.push(ExposedPort { port: port.target, protocol: port.protocol });
            service.ports.push(Port { name: Some(name.into()), ..port });
        }
        "host" => service.ports.push(Port { mode: PortMode::Host, ..port(value) }),
        "expose" => {
            let port = port(&format!(":{value}"));
            service.expose.push(ExposedPort { port: port.target, protocol: port.protocol });
        }
        "name" => service.container.name = Some(value.into()),
        "hostname" => service.container.hostname = Some(value.into()),
        "dns" => service.container.dns.push(value.into()),
        "in" => service.network = NetworkMode::Service(service_name(value)),
        "mode" if value == "host" => service.network = NetworkMode::Host,
        "mode" => service.network = NetworkMode::None,
        _ => service.scale = Scale::Replicas(word[1..].parse().expect("+xN")),
    }
}

fn port(text: &str) -> Port {
    let (host_ip, text) = text.split_once('@').map_or((None, text), |(ip, rest)| (Some(ip), rest));
    let (published, target) = text.split_once(':').expect("PUBLISHED:TARGET");
    let (target, protocol) = target.split_once('/').unwrap_or((target, "tcp"));
    let number = |text: &str| text.parse::<u16>().expect("a port");
    Port {
        name: None,
        host_ip: host_ip.map(|ip| ip.parse().expect("an address")),
        published: (!published.is_empty()).then(|| {
            let (first, last) = published.split_once('-').unwrap_or((published, published));
            (number(first), number(last))
        }),
        target: number(target),
        protocol: match protocol {
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        mode: PortMode::Ingress,
    }
}

/// A project with its state, for [`ProjectView`].
pub struct Project {
    /// With allocated addresses, all pods on the local host.
    pub desired: Desired,
    /// The containers of the text.
    pub observed: Observed,
}

impl Project {
    /// A project with allocated addresses and one observed container per line of `containers`:
    /// `NAME.NUMBER KEY=ADDRESS… [starting|stopped|oneoff|orphan]`. Its id is the 12 characters `id-NAME-NUMBER-` filled with `0`.
    /// Subnets of external networks are observed as 192.168.N.0/24, in order of their keys.
    ///
    /// # Panics
    /// If the text is not of that form, or the addresses asked for cannot be had.
    pub fn new(graph: Graph, containers: &str, taken: &[Ipv4Net]) -> Self {
        let allocation = Allocation {
            graph: &graph,
            previous: &Addresses::default(),
            previous_graph: None,
            taken,
            published_elsewhere: &[],
            routes_elsewhere: &[],
            pool: &Pool::default(),
            host_index: 0,
        };
        let addresses = allocate(&allocation, &mut |_| Ok(())).expect("addresses");
        let pods = graph.services.iter().flat_map(|(name, service)| service.replicas(name));
        let assignments =
            Assignments { pods: pods.map(|pod| (pod, HostName::local())).collect(), unplaced: Vec::new() };
        let mut host = ObservedHost::default();
        for (at, network) in graph.networks.values().filter(|network| network.external).enumerate() {
            let gateway = Ipv4Addr::new(192, 168, u8::try_from(at).expect("few"), 1);
            let subnet = Some(Ipv4Net::new_assert(gateway, 24).trunc());
            let (id, name, bridge) = (network.name.clone(), network.name.clone(), "br".into());
            let (driver, internal, labels) = ("bridge".into(), false, BTreeMap::new());
            let gateway = Some(gateway);
            let observed = ObservedNetwork {
                id,
                name: name.clone(),
                driver,
                subnet,
                gateway,
                ipv6: false,
                internal,
                bridge,
                bridge_on_demand: false,
                labels,
            };
            host.networks.insert(name, observed);
        }
        for (name, words) in words(containers) {
            let container = container(&graph, name, &words);
            host.containers.insert(container.id.clone(), container);
        }
        let desired = Desired { assignments, addresses, ..testing::desired(graph) };
        Self { desired, observed: Observed { hosts: BTreeMap::from([(HostName::local(), host)]) } }
    }

    /// Both sides, as the tables are built from.
    pub fn view(&self) -> ProjectView<'_> {
        ProjectView { desired: &self.desired, observed: &self.observed }
    }
}

fn container(graph: &Graph, name: &str, words: &[&str]) -> ObservedContainer {
    let (service, number) = name.rsplit_once('.').expect("NAME.NUMBER");
    let pod = PodId::new(service_name(service), number.parse().expect("a number"));
    let is = |word: &str| words.contains(&word);
    let health = if is("starting") { Health::Starting } else { Health::None };
    let state = if is("stopped") {
        ContainerState::Exited { code: 0, by_itself: true }
    } else {
        ContainerState::Running { health }
    };
    let networks = words.iter().filter_map(|word| word.split_once('='));
    let networks: BTreeMap<&str, &str> =
        networks.map(|(network, address)| (graph.networks[&key(network)].name.as_str(), address)).collect();
    let name = if is("oneoff") { format!("{}-{service}-run-1", graph.project) } else { graph.container_name(&pod) };
    ObservedContainer {
        id: format!("{:0<64}", format!("id-{service}-{number}-")),
        name,
        oneoff: is("oneoff"),
        state,
        networks: networks.into_iter().map(|(network, address)| (network.to_owned(), address.parse().ok())).collect(),
        ..testing::container(graph.project.as_str(), service, pod.number)
    }
}
