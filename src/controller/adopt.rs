//! What is there of a project that Docker Compose started: its networks are taken over with their addresses, so that what runs
//! on them can stay. Pure.

use std::net::Ipv4Addr;

use crate::graph::{Graph, Network, NetworkMode};
use crate::ids::ResourceKey;
use crate::net::addr;
use crate::observed::{CONFIG_HASH_LABEL, Observed, ObservedNetwork, SPEC_HASH_LABEL};
use crate::plan::Addresses;
use crate::plan::desired::NetworkAddresses;

/// Adds the networks to `addresses` that are there already and can stay as they are, in the place of those that orch had once.
pub(super) fn networks(graph: &Graph, observed: &Observed, addresses: &mut Addresses) {
    for (key, network) in graph.networks.iter().filter(|(_, network)| !network.external) {
        let Some(existing) = existing(graph, key, network, observed) else { continue };
        let had = addresses.networks.get(key);
        if had.is_none_or(|had| had.subnet != existing.subnet) {
            addresses.networks.insert(key.clone(), existing);
        }
    }
}

fn existing(graph: &Graph, key: &ResourceKey, network: &Network, observed: &Observed) -> Option<NetworkAddresses> {
    let mut found = observed.hosts.values().filter_map(|host| host.networks.get(&network.name));
    let seen = found.next().filter(|seen| can_stay(graph, network, seen))?;
    let (subnet, gateway) = (seen.subnet?, seen.gateway?);
    // A network has one subnet on all hosts.
    let is_elsewhere = found.any(|other| (other.subnet, other.gateway) != (seen.subnet, seen.gateway));
    let others = observed.hosts.values().flat_map(|host| host.networks.values()).filter(|one| one.name != network.name);
    let mut others = others.filter_map(|other| other.subnet);
    if is_elsewhere || others.any(|other| other.contains(&subnet) || subnet.contains(&other)) {
        return None;
    }
    let containers = observed.hosts.values().flat_map(|host| host.containers.values());
    let in_use: Vec<Ipv4Addr> =
        containers.filter_map(|container| container.networks.get(&network.name).copied().flatten()).collect();
    let members = graph.services.values().filter(|service| match &service.network {
        NetworkMode::Networks(attachments) => attachments.iter().any(|attachment| attachment.network == *key),
        _ => false,
    });
    addr::of_existing(subnet, gateway, &in_use, members.count())
}

/// Returns whether Docker Compose made it for what the file says now.
fn can_stay(graph: &Graph, network: &Network, seen: &ObservedNetwork) -> bool {
    let label = |label: &str| seen.labels.get(label);
    let hash = label(CONFIG_HASH_LABEL);
    seen.belongs_to(&graph.project)
        && label(SPEC_HASH_LABEL).is_none()
        && seen.driver == "bridge"
        && network.driver.as_deref().is_none_or(|driver| driver == "bridge")
        && seen.internal == network.internal
        && hash.is_none_or(|hash| network.compose_hash.is_empty() || *hash == network.compose_hash)
        && network.subnet.is_none_or(|subnet| seen.subnet == Some(subnet))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::HostName;
    use crate::observed::{ObservedHost, PROJECT_LABEL};
    use crate::testing;

    fn seen(name: &str, subnet: &str, hash: &str) -> ObservedNetwork {
        let subnet: ipnet::Ipv4Net = subnet.parse().expect("a subnet");
        ObservedNetwork {
            id: name.to_owned(),
            name: name.to_owned(),
            driver: "bridge".to_owned(),
            subnet: Some(subnet),
            gateway: Some(Ipv4Addr::from_bits(subnet.network().to_bits() + 1)),
            ipv6: false,
            internal: false,
            bridge: "br-1".to_owned(),
            bridge_on_demand: false,
            labels: BTreeMap::from([
                (PROJECT_LABEL.to_owned(), "shop".to_owned()),
                (CONFIG_HASH_LABEL.to_owned(), hash.to_owned()),
            ]),
        }
    }

    /// Returns the subnet and the place of virtual addresses that `web`'s network is given.
    fn adopted(networks: Vec<(&str, ObservedNetwork)>) -> Option<String> {
        let key = ResourceKey::new("default").expect("a key");
        let mut graph = testing::graph("shop", &["web"]);
        let network = Network { compose_hash: "now".to_owned(), ..testing::network("shop_default") };
        graph.networks.insert(key.clone(), network);
        for service in graph.services.values_mut() {
            service.network = NetworkMode::Networks(vec![crate::graph::Attachment::new(key.clone())]);
        }
        let mut observed = Observed::default();
        for (host, network) in networks {
            let host: &mut ObservedHost = observed.hosts.entry(HostName::new(host).expect("a name")).or_default();
            host.networks.insert(network.name.clone(), network);
        }
        let mut addresses = Addresses::default();
        super::networks(&graph, &observed, &mut addresses);
        addresses.networks.get(&key).map(|given| format!("{} {} {}", given.subnet, given.gateway, given.vips))
    }

    #[test]
    fn a_network_that_can_stay_keeps_its_addresses() {
        let ours = || seen("shop_default", "172.18.0.0/16", "now");
        assert_eq!(adopted(vec![("a", ours())]).as_deref(), Some("172.18.0.0/16 172.18.0.1 172.18.255.0/24"));
        assert_eq!(adopted(vec![("a", seen("shop_default", "172.18.0.0/16", "then"))]), None, "for something else");
        assert_eq!(adopted(vec![("a", seen("shop_default", "172.18.0.0/30", "now"))]), None, "no room");
        assert_eq!(adopted(vec![("a", ObservedNetwork { internal: true, ..ours() })]), None);
        let other = seen("other", "172.18.0.0/24", "");
        assert_eq!(adopted(vec![("a", ours()), ("b", other)]), None, "another host has the subnet for something else");
        assert_eq!(adopted(vec![("a", ours()), ("b", seen("shop_default", "172.19.0.0/16", "now"))]), None);
    }
}
