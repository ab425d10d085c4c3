//! What the rest of the host has already: subnets, routes, ports. Read before a desired state is computed.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use ipnet::Ipv4Net;

use crate::graph::Protocol;
use crate::host::listening;
use crate::host::network::HostNetworkError;
use crate::ids::{HostName, ProjectName};
use crate::net::addr::{OtherRoute, Pool, PortCandidate, PortTrouble, routes};
use crate::place::Listening;
use crate::plan::desired::PublishedPort;

use super::shared::{Record, Shared};

/// Network prefix of the pool's subnets: a VIP slice and fifteen hosts' slices of /24.
const POOL_PREFIX: u8 = 20;

/// What others have.
pub struct Inputs {
    /// Subnets that a new network must not overlap.
    pub taken: Vec<Ipv4Net>,
    /// Ports that other projects publish.
    pub published_elsewhere: Vec<(ProjectName, PublishedPort)>,
    /// Other projects that are for the same hosts.
    beside: Vec<Arc<Record>>,
    /// Where new subnets come from.
    pub pool: Pool,
}

impl Inputs {
    /// Returns the routes of other projects.
    pub fn routes_elsewhere(&self) -> Vec<OtherRoute<'_>> {
        let others = self.beside.iter().filter_map(|record| record.desired.as_ref()).map(|desired| &desired.graph);
        let of = |graph| routes(graph).map(|(service, route)| OtherRoute { project: &graph.project, service, route });
        others.flat_map(of).collect()
    }
}

/// Reads what others than `project`, which is for the hosts `among`, have: on this host and as far as is known on the others.
///
/// # Errors
/// What the kernel says.
pub async fn inputs(
    shared: &Shared,
    project: &ProjectName,
    among: &BTreeSet<HostName>,
) -> Result<Inputs, HostNetworkError> {
    let mut own = Vec::new();
    let mut taken = Vec::new();
    let mut published_elsewhere = Vec::new();
    let mut beside = Vec::new();
    for record in shared.desired() {
        let Some(desired) = record.desired.as_ref() else { continue };
        let subnets = desired.addresses.networks.values().map(|network| network.subnet);
        if &desired.graph.project == project {
            own.extend(subnets);
        } else {
            taken.extend(subnets);
            let apart = !among.is_empty() && !among.iter().any(|host| desired.is_for(host));
            let ports = desired.addresses.ports.iter().filter(|_| !apart).cloned();
            published_elsewhere.extend(ports.map(|port| (desired.graph.project.clone(), port)));
            if !apart {
                beside.push(Arc::clone(&record));
            }
        }
    }
    let observed = shared.observed(None);
    let networks = observed.hosts.values().flat_map(|host| host.networks.values());
    for network in networks {
        let ours = network.labels.get(crate::engine::label::PROJECT).is_some_and(|owner| owner == project.as_str());
        match network.subnet {
            Some(subnet) if ours => own.push(subnet),
            Some(subnet) => taken.push(subnet),
            None => {}
        }
    }
    taken.extend(shared.dataplane.routes().await?);
    // A network has one subnet on all hosts.
    taken.extend(shared.peers.machines().into_values().flat_map(|machine| machine.routes));
    taken.retain(|subnet| !own.iter().any(|one| one.contains(subnet)));
    let pool = Pool { range: shared.options.subnet_pool, network_prefix: POOL_PREFIX };
    Ok(Inputs { taken, published_elsewhere, beside, pool })
}

/// Tries whether a listener could be opened there now, were it not for what orch itself has there where that is no
/// obstacle.
///
/// # Errors
/// Why not.
pub fn port_free(candidate: &PortCandidate) -> Result<(), PortTrouble> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let addresses = candidate.host_ip.map_or_else(|| any.to_vec(), |ip| vec![ip]);
    addresses.into_iter().try_for_each(|address| {
        let socket = SocketAddr::new(address, candidate.port);
        let result = match candidate.protocol {
            Protocol::Udp => UdpSocket::bind(socket).map(drop),
            Protocol::Tcp | Protocol::Sctp => TcpListener::bind(socket).map(drop),
        };
        match result {
            Ok(()) => Ok(()),
            // No IPv6 on this host is no reason against an IPv4 port.
            Err(_) if candidate.host_ip.is_none() && address.is_ipv6() && !ipv6_exists() => Ok(()),
            Err(error) => match error.kind() {
                io::ErrorKind::AddrInUse if candidate.held && !others_listen(candidate) => Ok(()),
                io::ErrorKind::AddrInUse => Err(PortTrouble::InUse),
                io::ErrorKind::AddrNotAvailable => Err(PortTrouble::NoSuchAddress),
                io::ErrorKind::PermissionDenied => Err(PortTrouble::NotPermitted),
                _ => Err(PortTrouble::Other(error.to_string())),
            },
        }
    })
}

fn others_listen(candidate: &PortCandidate) -> bool {
    let wanted = Listening { address: candidate.host_ip, port: candidate.port, protocol: candidate.protocol };
    let others = listening::by_others().inspect_err(|error| {
        tracing::warn!(%error, "it cannot be told which ports are in use");
    });
    others.is_ok_and(|others| others.iter().any(|one| one.clashes(&wanted)))
}

fn ipv6_exists() -> bool {
    UdpSocket::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)).is_ok()
}
