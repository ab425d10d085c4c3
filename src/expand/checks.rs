//! What can only be said of several services together: rings, names and ports wanted twice, links without a way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use crate::graph::{Graph, Link, NetworkMode, Port, PortMode, Scale, Service};
use crate::ids::{ResourceKey, ServiceName};

use super::Problem;
use super::error::Sink;

/// Adds every mistake to `sink`.
pub(super) fn check(graph: &Graph, sink: &mut Sink) {
    if let Some(ring) = cycle(graph) {
        let names = ring.iter().map(ToString::to_string).collect();
        sink.error(format!("services.{}.depends_on", ring[0]), Problem::Cycle(names));
    }
    check_names(graph, sink);
    check_ports(graph, sink);
    check_ipv6(graph, sink);
    for (name, service) in &graph.services {
        check_links(graph, name, service, sink);
        check_namespace(graph, name, service, sink);
        check_addresses(name, service, sink);
        check_rollout(graph, name, service, sink);
    }
}

/// Returns the services of the first ring of dependencies, the one that closes it at both ends.
fn cycle(graph: &Graph) -> Option<Vec<&ServiceName>> {
    let mut done = BTreeSet::new();
    graph.services.keys().find_map(|name| visit(graph, name, &mut Vec::new(), &mut done))
}

fn visit<'a>(
    graph: &'a Graph,
    name: &'a ServiceName,
    path: &mut Vec<&'a ServiceName>,
    done: &mut BTreeSet<&'a ServiceName>,
) -> Option<Vec<&'a ServiceName>> {
    if let Some(at) = path.iter().position(|other| *other == name) {
        let mut ring = path.split_off(at);
        ring.push(name);
        return Some(ring);
    }
    if done.contains(name) {
        return None;
    }
    path.push(name);
    let dependencies: BTreeSet<&ServiceName> = graph.services.get(name)?.dependencies().collect();
    let ring = dependencies.into_iter().find_map(|other| visit(graph, other, path, done));
    path.pop();
    done.insert(name);
    ring
}

/// A container name is one container's on each host.
fn check_names(graph: &Graph, sink: &mut Sink) {
    let mut taken: BTreeMap<String, &ServiceName> = BTreeMap::new();
    let (named, unnamed): (Vec<_>, Vec<_>) = graph.services.iter().partition(|(_, s)| s.container.name.is_some());
    for (name, service) in unnamed {
        for pod in service.replicas(name) {
            taken.insert(graph.container_name(&pod), name);
        }
    }
    for (name, service) in named {
        let Some(wanted) = service.container.name.clone() else { continue };
        let path = || format!("services.{name}.container_name");
        if let Scale::Replicas(replicas @ 2..) = service.scale {
            sink.error(path(), Problem::NameOfMany { name: wanted.clone(), replicas });
        }
        if let Some(other) = taken.insert(wanted.clone(), name) {
            sink.error(path(), Problem::NameTaken { name: wanted, other: other.to_string() });
        }
    }
}

/// A fixed port that the load balancer publishes is open on every host, so nothing else may want it there. Ports of
/// `mode: host` among themselves are a matter of placement; ranges give way.
fn check_ports(graph: &Graph, sink: &mut Sink) {
    let fixed = |port: &Port| port.published.is_some_and(|(first, last)| first == last);
    // By number: a range of thousands would take long if each were compared with each.
    let mut seen: BTreeMap<_, Vec<(&ServiceName, &Port)>> = BTreeMap::new();
    for (name, service) in &graph.services {
        for (index, port) in service.ports.iter().enumerate().filter(|(_, port)| fixed(port)) {
            let seen = seen.entry(port.published).or_default();
            let clash = seen.iter().find(|(_, other)| clashes(port, other));
            if let (Some((other, _)), Some((number, _))) = (clash, port.published) {
                let port = format!("{number}/{}", port.protocol);
                sink.error(
                    format!("services.{name}.ports[{index}]"),
                    Problem::PortTaken { port, other: other.to_string() },
                );
            }
            seen.push((name, port));
        }
    }
}

fn clashes(one: &Port, other: &Port) -> bool {
    let address = one.host_ip.is_none() || other.host_ip.is_none() || one.host_ip == other.host_ip;
    let ingress = one.mode == PortMode::Ingress || other.mode == PortMode::Ingress;
    ingress && address && one.published == other.published && one.protocol == other.protocol
}

fn networks(service: &Service) -> BTreeSet<&ResourceKey> {
    match &service.network {
        NetworkMode::Networks(attachments) => attachments.iter().map(|attachment| &attachment.network).collect(),
        _ => BTreeSet::new(),
    }
}

/// A link is a name for an address, which is of use only where it can be reached.
fn check_links(graph: &Graph, name: &ServiceName, service: &Service, sink: &mut Sink) {
    for (index, link) in service.links.iter().enumerate() {
        let Some(other) = graph.services.get(&link.service) else { continue };
        let path = format!("services.{name}.links[{index}]");
        if networks(service).is_disjoint(&networks(other)) {
            sink.error(path, Problem::NoCommonNetwork(link.service.to_string()));
        } else if link.alias != link.service.as_str() && resolves_by_engine(graph, service) {
            let Link { service: target, alias } = link;
            let text = format!(
                "`{name}` will not know `{target}` as `{alias}`: it is on external networks only, where the engine \
                 resolves names and links are unknown; use the name `{target}`, or give `{target}` the alias \
                 (`networks: {{NAME: {{aliases: [{alias}]}}}}`)"
            );
            sink.warning(path, text);
        }
    }
}

/// Returns whether names are the engine's matter: orch's DNS is at the gateways of the networks that orch made.
fn resolves_by_engine(graph: &Graph, service: &Service) -> bool {
    networks(service).into_iter().all(|key| graph.networks.get(key).is_some_and(|network| network.external))
}

/// Replica `i` lives in the namespace of replica `i`, so there must be as many of those.
fn check_namespace(graph: &Graph, name: &ServiceName, service: &Service, sink: &mut Sink) {
    let Some(owner) = service.companions().next() else { return };
    if let Some(other) = service.companions().find(|other| graph.namespace_root(other) != graph.namespace_root(owner)) {
        let problem = Problem::TwoOwners { one: owner.to_string(), other: other.to_string() };
        sink.error(format!("services.{name}"), problem);
    }
    let Some(owners) = graph.services.get(owner).map(|owner| owner.scale) else { return };
    let enough = match (service.scale, owners) {
        (Scale::Replicas(count), Scale::Replicas(owners)) => count <= owners,
        (Scale::Global, Scale::Global) => true,
        _ => false,
    };
    if !enough {
        let words = |scale: Scale| match scale {
            Scale::Replicas(count) => count.to_string(),
            Scale::Global => "one on each host".to_owned(),
        };
        let (replicas, owners) = (words(service.scale), words(owners));
        let lives_there = service.owners().next().is_some();
        let (key, what) = if lives_there { ("network_mode", "network") } else { ("volumes_from", "volumes") };
        let problem = Problem::TooFewOwners { what, replicas, owner: owner.to_string(), owners };
        sink.error(format!("services.{name}.{key}"), problem);
    }
}

fn check_rollout(graph: &Graph, name: &ServiceName, service: &Service, sink: &mut Sink) {
    let with = graph.rolled_with(name);
    if service.rollout.is_some() && with != name {
        sink.error(format!("services.{name}.deploy.update_config"), Problem::RolloutOfMember(with.to_string()));
    }
}

fn check_addresses(name: &ServiceName, service: &Service, sink: &mut Sink) {
    let (NetworkMode::Networks(attachments), Scale::Replicas(replicas @ 2..)) = (&service.network, service.scale)
    else {
        return;
    };
    for attachment in attachments {
        let given = [("ipv4_address", attachment.ipv4.is_some()), ("ipv6_address", attachment.ipv6.is_some())];
        for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
            let path = format!("services.{name}.networks.{}.{key}", attachment.network);
            sink.error(path, Problem::AddressOfMany(replicas));
        }
    }
}

/// A fixed address of IPv6 is one service's. Those of IPv4 are looked at where all others are given.
fn check_ipv6(graph: &Graph, sink: &mut Sink) {
    let mut taken: BTreeMap<(&ResourceKey, Ipv6Addr), &ServiceName> = BTreeMap::new();
    for (name, service) in &graph.services {
        let NetworkMode::Networks(attachments) = &service.network else { continue };
        for (network, address) in attachments.iter().filter_map(|one| Some((&one.network, one.ipv6?))) {
            if let Some(other) = taken.insert((network, address), name) {
                let problem = Problem::AddressTaken { address: address.to_string(), other: other.to_string() };
                sink.error(format!("services.{name}.networks.{network}.ipv6_address"), problem);
            }
        }
    }
}
