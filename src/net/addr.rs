//! Subnets, slices, virtual addresses, published ports and routes: who gets which, and why a wish of the file cannot be met.
//!
//! Start at [`allocate`]. It is pure: what is taken on the hosts comes in as values, and whether a port is free is asked
//! of the caller. It must never change an address that a member service already has.
//!
//! How a subnet is cut (one subnet for all hosts of the project):
//!
//! | subnet | virtual addresses | containers of host 0, 1, 2 … |
//! |---|---|---|
//! | /20 and larger (the pool's are /20) | the last /24 | the first, second, third /24 … |
//! | /21 to /29 | the upper quarter | the lower half, then ever smaller parts of the third quarter |
//!
//! Where a fixed address, the gateway or `ip_range` is in the way, the virtual addresses move to the next block below, or
//! to a smaller one. `ip_range` of the file is what host 0 gives to containers; more hosts are refused then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::graph::{Graph, NetworkMode, Protocol, Scale};
use crate::ids::{HostName, ProjectName, ResourceKey, ServiceName};
use crate::plan::Addresses;
use crate::plan::desired::{NetworkAddresses, PublishedPort};

mod error;
mod ports;
mod routes;
mod slices;
#[cfg(test)]
mod tests;

pub use error::{AddressError, PortOwner, explain};
pub use routes::{OtherRoute, routes};
pub use slices::container_slice;

/// Where subnets come from that the file does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The whole range.
    pub range: Ipv4Net,
    /// Prefix length of each network's subnet.
    pub network_prefix: u8,
}

impl Default for Pool {
    /// Returns 10.192.0.0/10 in /20s: room for 1024 networks of 15 hosts, away from the engine's own default pools
    /// (172.17.0.0/12 and 192.168.0.0/16) and from the lower half of 10.0.0.0/8, where most private networks are.
    fn default() -> Self {
        Self { range: Ipv4Net::new_assert(Ipv4Addr::new(10, 192, 0, 0), 10), network_prefix: 20 }
    }
}

/// What [`allocate`] decides from.
#[derive(Debug, Clone, Copy)]
pub struct Allocation<'a> {
    /// What shall run.
    pub graph: &'a Graph,
    /// What the project has now; empty for a new one. Everything in it that is still wanted is kept.
    pub previous: &'a Addresses,
    /// The graph that it has them for; `None` for a new one.
    pub previous_graph: Option<&'a Graph>,
    /// Routes of the hosts and subnets of other networks, without those of this project's own existing networks.
    pub taken: &'a [Ipv4Net],
    /// Ports that the load balancer publishes for other projects.
    pub published_elsewhere: &'a [(ProjectName, PublishedPort)],
    /// Routes of other projects.
    pub routes_elsewhere: &'a [OtherRoute<'a>],
    /// Where new subnets come from.
    pub pool: &'a Pool,
    /// The highest slice of a network that a host has, from 0: every network must have as many.
    pub host_index: u32,
}

/// A port of the host that [`allocate`] would like to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortCandidate {
    /// For this service.
    pub service: ServiceName,
    /// Address on the host; `None`: all.
    pub host_ip: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Whether orch itself may be listening there now, which is no obstacle.
    pub held: bool,
    /// Whether it is for routes: those of other projects may listen there too.
    pub for_routes: bool,
}

/// Why a listener cannot be opened at a port, and where it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// Why.
    pub cause: PortTrouble,
    /// The hosts; none: the one that goes without saying.
    pub hosts: Vec<HostName>,
}

/// Why a listener cannot be opened at a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortTrouble {
    /// Somebody has it.
    InUse,
    /// The host does not have the address.
    NoSuchAddress,
    /// The agent may not listen there.
    NotPermitted,
    /// What else the kernel said.
    Other(String),
}

/// Says whether a listener could be opened at a port.
pub type PortFree<'a> = dyn FnMut(&PortCandidate) -> Result<(), Unavailable> + 'a;

/// Gives every network a subnet, every member service a virtual address and every published port a number, and finds the
/// routes that other projects are in the way of.
///
/// `port_free` is asked about ports that the project does not hold yet, and answers whether a listener could be opened
/// there now. The result depends on nothing else than the arguments and these answers.
///
/// # Errors
/// All wishes that cannot be met, each with its reason; nothing is given then.
pub fn allocate(allocation: &Allocation<'_>, port_free: &mut PortFree<'_>) -> Result<Addresses, Vec<AddressError>> {
    let mut errors = fixed_address_errors(allocation.graph);
    let subnets = choose_subnets(allocation, &mut errors);
    let mut networks = BTreeMap::new();
    for (key, subnet) in subnets {
        match cut(allocation, &key, subnet) {
            Ok(addresses) => {
                networks.insert(key, addresses);
            }
            Err(mut found) => errors.append(&mut found),
        }
    }
    let ports = ports::choose(allocation, port_free, &mut errors);
    routes::check(allocation, port_free, &mut errors);
    if errors.is_empty() { Ok(Addresses { networks, ports }) } else { Err(errors) }
}

/// Returns what [`allocate`] shall keep of a network that somebody else made: where virtual addresses are in it, clear of the
/// addresses that are in use. `None`: there is no room for them.
pub fn of_existing(
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    in_use: &[Ipv4Addr],
    services: usize,
) -> Option<NetworkAddresses> {
    if subnet.prefix_len() > slices::LONGEST_PREFIX {
        return None;
    }
    let vips =
        slices::vip_slice(&slices::Wishes { subnet, gateway, ip_range: None, reserved: &[], fixed: in_use, services })?;
    Some(NetworkAddresses { subnet, gateway, ip_range: None, vips, services: BTreeMap::new(), last_vip: None })
}

/// A fixed address that a service asks for.
struct Fixed<'a> {
    service: &'a ServiceName,
    address: Ipv4Addr,
}

/// Returns the fixed addresses in a network, by service.
fn fixed_addresses<'a>(graph: &'a Graph, network: &ResourceKey) -> Vec<Fixed<'a>> {
    members(graph, network)
        .filter_map(|(service, attachment)| attachment.ipv4.map(|address| Fixed { service, address }))
        .collect()
}

/// Returns the services that are in a network, with how they are attached.
fn members<'a>(
    graph: &'a Graph,
    network: &ResourceKey,
) -> impl Iterator<Item = (&'a ServiceName, &'a crate::graph::Attachment)> {
    graph.services.iter().filter_map(move |(name, service)| match &service.network {
        NetworkMode::Networks(list) => list.iter().find(|a| &a.network == network).map(|a| (name, a)),
        NetworkMode::Host | NetworkMode::None | NetworkMode::Service(_) | NetworkMode::Engine(_) => None,
    })
}

/// Returns what the services of other projects are called that services in a network know: each has an address there.
fn external_links(graph: &Graph, network: &ResourceKey) -> BTreeSet<ServiceName> {
    let all = members(graph, network).filter_map(|(name, _)| graph.services.get(name));
    all.flat_map(|service| service.external_links.iter().map(crate::model::ExternalLink::key)).collect()
}

/// Finds what is wrong with fixed addresses whatever the subnets are, also in external networks.
fn fixed_address_errors(graph: &Graph) -> Vec<AddressError> {
    let mut errors = Vec::new();
    for (key, network) in &graph.networks {
        let mut owners: BTreeMap<Ipv4Addr, &ServiceName> = BTreeMap::new();
        for Fixed { service, address } in fixed_addresses(graph, key) {
            if let Some(other) = owners.insert(address, service) {
                let services = (other.clone(), service.clone());
                errors.push(AddressError::FixedTwice { network: key.clone(), address, services });
            }
            if !matches!(graph.services[service].scale, Scale::Replicas(0 | 1)) {
                errors.push(AddressError::FixedWithReplicas { service: service.clone(), address });
            }
            if network.subnet.is_none() && !network.external {
                let network = key.clone();
                errors.push(AddressError::FixedWithoutSubnet { service: service.clone(), network, address });
            }
        }
    }
    errors
}

/// Chooses the subnet of each network that orch makes: the file's, else the one it has, else a free one of the pool.
fn choose_subnets(allocation: &Allocation<'_>, errors: &mut Vec<AddressError>) -> BTreeMap<ResourceKey, Ipv4Net> {
    let Allocation { graph, previous, taken, pool, .. } = *allocation;
    let mut chosen: BTreeMap<ResourceKey, Ipv4Net> = BTreeMap::new();
    for (key, network) in graph.networks.iter().filter(|(_, network)| !network.external) {
        let had = previous.networks.get(key).map(|addresses| addresses.subnet);
        let Some(subnet) = network.subnet.map(|subnet| subnet.trunc()).or(had) else { continue };
        if let Some((other, _)) = chosen.iter().find(|(_, net)| overlap(**net, subnet)) {
            let networks = (other.clone(), key.clone());
            errors.push(AddressError::SubnetsOverlap { networks, subnets: (chosen[other], subnet) });
            continue;
        }
        // What the project has is kept even if a route to it appeared since: a VPN must not renumber what runs.
        let conflict = taken.iter().find(|net| is_bridge(network) && had != Some(subnet) && overlap(**net, subnet));
        if let Some(net) = conflict {
            errors.push(AddressError::SubnetTaken { network: key.clone(), subnet, taken: *net });
            continue;
        }
        chosen.insert(key.clone(), subnet);
    }
    // Networks that the file no longer has may still be there while this change is made: keep away from them as well.
    let mut occupied: Vec<Ipv4Net> = taken.to_vec();
    occupied.extend(previous.networks.values().map(|addresses| addresses.subnet));
    occupied.extend(graph.networks.values().filter_map(|network| network.subnet));
    for (key, network) in &graph.networks {
        if network.external || network.subnet.is_some() || chosen.contains_key(key) {
            continue;
        }
        if previous.networks.contains_key(key) {
            continue; // it overlaps another of this file's networks and was reported above
        }
        let free =
            slices::blocks(pool.range, pool.network_prefix).find(|net| !occupied.iter().any(|o| overlap(*o, *net)));
        match free {
            Some(subnet) => {
                occupied.push(subnet);
                chosen.insert(key.clone(), subnet);
            }
            None => errors.push(AddressError::PoolExhausted { network: key.clone(), pool: pool.range }),
        }
    }
    chosen
}

/// Cuts one subnet into slices and gives its services their virtual addresses.
fn cut(allocation: &Allocation<'_>, key: &ResourceKey, subnet: Ipv4Net) -> Result<NetworkAddresses, Vec<AddressError>> {
    let network = &allocation.graph.networks[key];
    let mut fixed = fixed_addresses(allocation.graph, key);
    if network.subnet.is_none() {
        fixed.clear(); // refused as a whole already
    }
    let previous = allocation.previous.networks.get(key).filter(|had| had.subnet == subnet);
    if subnet.prefix_len() > slices::LONGEST_PREFIX {
        return Err(vec![AddressError::SubnetTooSmall { network: key.clone(), subnet }]);
    }
    let gateway = network.gateway.or(previous.map(|had| had.gateway)).unwrap_or_else(|| first_host(subnet));
    // A range that is the whole subnet says nothing, and would leave no room for virtual addresses.
    let ip_range = network.ip_range.map(|range| range.trunc()).filter(|range| *range != subnet);
    let errors = inside_errors(key, subnet, gateway, ip_range, &fixed);
    if !errors.is_empty() {
        return Err(errors);
    }
    let external = external_links(allocation.graph, key);
    let services: Vec<&ServiceName> = if is_bridge(network) {
        members(allocation.graph, key).map(|(name, _)| name).chain(&external).collect()
    } else {
        Vec::new()
    };
    let reserved: Vec<Ipv4Addr> = network.aux_addresses.values().copied().collect();
    let wishes = slices::Wishes {
        subnet,
        gateway,
        ip_range,
        reserved: &reserved,
        fixed: &fixed.iter().map(|fixed| fixed.address).collect::<Vec<_>>(),
        services: services.len(),
    };
    let vips = choose_vip_slice(key, &wishes, previous, &fixed).map_err(|error| vec![error])?;
    let host_index = allocation.host_index;
    container_slice(subnet, vips, ip_range, host_index)
        .ok_or_else(|| vec![AddressError::NoSliceForHost { network: key.clone(), subnet, host_index, ip_range }])?;
    let (services, last_vip) = give_vips(subnet, vips, &services, previous);
    Ok(NetworkAddresses { subnet, gateway, ip_range, vips, services, last_vip })
}

/// Keeps the block of the virtual addresses where it is, unless the network has to be made anew anyway because its
/// gateway or range moved there; else chooses one.
fn choose_vip_slice(
    network: &ResourceKey,
    wishes: &slices::Wishes<'_>,
    previous: Option<&NetworkAddresses>,
    fixed: &[Fixed<'_>],
) -> Result<Ipv4Net, AddressError> {
    let (subnet, services) = (wishes.subnet, wishes.services);
    let no_room = AddressError::NoRoomForServices { network: network.clone(), subnet, services };
    let Some(vips) = previous.map(|had| had.vips).filter(|vips| wishes.layout_allows(*vips)) else {
        return slices::vip_slice(wishes).ok_or(no_room);
    };
    if let Some(Fixed { service, address }) = fixed.iter().find(|fixed| vips.contains(&fixed.address)) {
        return Err(AddressError::FixedIsVirtual { service: (*service).clone(), address: *address, vips });
    }
    if slices::usable(vips, subnet) < services { Err(no_room) } else { Ok(vips) }
}

/// Finds what the file places outside its own subnet.
fn inside_errors(
    network: &ResourceKey,
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    ip_range: Option<Ipv4Net>,
    fixed: &[Fixed<'_>],
) -> Vec<AddressError> {
    let usable =
        |address: Ipv4Addr| subnet.contains(&address) && address != subnet.network() && address != subnet.broadcast();
    let mut errors = Vec::new();
    if !usable(gateway) {
        errors.push(AddressError::GatewayOutside { network: network.clone(), gateway, subnet });
    }
    if let Some(ip_range) = ip_range.filter(|range| !subnet.contains(range)) {
        errors.push(AddressError::RangeOutside { network: network.clone(), ip_range, subnet });
    }
    for Fixed { service, address } in fixed {
        let (service, network, address) = ((*service).clone(), network.clone(), *address);
        if !usable(address) {
            errors.push(AddressError::FixedOutside { service, network, address, subnet });
        } else if address == gateway {
            errors.push(AddressError::FixedIsGateway { service, network, address });
        }
    }
    errors
}

/// Keeps the virtual addresses that are still wanted and gives new ones after the one given last, so that a released
/// address comes up again only when all others were used: clients may hold it in caches and connections.
fn give_vips(
    subnet: Ipv4Net,
    vips: Ipv4Net,
    services: &[&ServiceName],
    previous: Option<&NetworkAddresses>,
) -> (BTreeMap<ServiceName, Ipv4Addr>, Option<Ipv4Addr>) {
    let had = |name: &ServiceName| previous?.services.get(name).copied().filter(|vip| vips.contains(vip));
    let mut given: BTreeMap<ServiceName, Ipv4Addr> =
        services.iter().filter_map(|name| Some(((*name).clone(), had(name)?))).collect();
    let mut last =
        previous.and_then(|had| had.last_vip.or(had.services.values().max().copied())).filter(|vip| vips.contains(vip));
    let mut used: std::collections::BTreeSet<Ipv4Addr> = given.values().copied().collect();
    used.extend([subnet.network(), subnet.broadcast()]);
    for name in services {
        if given.contains_key(*name) {
            continue;
        }
        let Some(vip) = slices::addresses_after(vips, last).find(|vip| !used.contains(vip)) else {
            unreachable!("the caller checked that {vips} has room for {} services", services.len())
        };
        used.insert(vip);
        given.insert((*name).clone(), vip);
        last = Some(vip);
    }
    (given, last)
}

/// Returns whether the network is one of the engine's bridges, the only ones where virtual addresses work.
fn is_bridge(network: &crate::graph::Network) -> bool {
    network.driver.as_deref().is_none_or(|driver| driver == "bridge" || driver == "default")
}

fn first_host(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network().to_bits() + 1)
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}
