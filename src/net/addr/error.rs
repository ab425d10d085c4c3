//! Why a wish for an address or a port cannot be met.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::graph::Protocol;
use crate::ids::{HostName, ProjectName, ResourceKey, ServiceName};

use super::{PortCandidate, PortTrouble, Unavailable};

/// A service that has a port already, or one of its routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// Its project; `None`: the same one.
    pub project: Option<ProjectName>,
    /// The service.
    pub service: ServiceName,
    /// Where the route is written (`compose.yaml:14:9`); `None`: it is no route.
    pub route: Option<String>,
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { project, service, route } = self;
        if route.is_some() {
            f.write_str("a route of ")?;
        }
        write!(f, "service `{service}`")?;
        if let Some(project) = project {
            write!(f, " of project `{project}`")?;
        }
        match route.as_deref() {
            Some(place) if !place.is_empty() => write!(f, " ({place})"),
            _ => Ok(()),
        }
    }
}

/// A wish that cannot be met. `Display` says what is so, [`AddressError::help`] what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum AddressError {
    /// The file's subnet is in use.
    #[error(
        "subnet {subnet} of network `{network}` overlaps {taken}, which the host already has a route or a network for"
    )]
    SubnetTaken { network: ResourceKey, subnet: Ipv4Net, taken: Ipv4Net },
    /// Two networks of the file want the same addresses.
    #[error("networks `{}` and `{}` overlap: {} and {}", networks.0, networks.1, subnets.0, subnets.1)]
    SubnetsOverlap { networks: (ResourceKey, ResourceKey), subnets: (Ipv4Net, Ipv4Net) },
    /// Gateway, two containers and a virtual address do not fit.
    #[error("subnet {subnet} of network `{network}` is too small")]
    SubnetTooSmall { network: ResourceKey, subnet: Ipv4Net },
    /// No block for virtual addresses is free or large enough.
    #[error(
        "subnet {subnet} of network `{network}` has no free block for the virtual addresses of {services} services"
    )]
    NoRoomForServices { network: ResourceKey, subnet: Ipv4Net, services: usize },
    /// All slices for containers are given to other hosts.
    #[error("subnet {subnet} of network `{network}` has no range of container addresses left for host {}", host_index + 1)]
    NoSliceForHost { network: ResourceKey, subnet: Ipv4Net, host_index: u32, ip_range: Option<Ipv4Net> },
    /// All subnets of the pool are in use.
    #[error("the address pool {pool} has no free subnet for network `{network}`")]
    PoolExhausted { network: ResourceKey, pool: Ipv4Net },
    /// The gateway is not a usable address of the subnet.
    #[error("gateway {gateway} of network `{network}` is not a host address of its subnet {subnet}")]
    GatewayOutside { network: ResourceKey, gateway: Ipv4Addr, subnet: Ipv4Net },
    /// The range is not within the subnet.
    #[error("ip_range {ip_range} of network `{network}` is not inside its subnet {subnet}")]
    RangeOutside { network: ResourceKey, ip_range: Ipv4Net, subnet: Ipv4Net },
    /// A fixed address is not a usable address of the subnet.
    #[error(
        "address {address} of service `{service}` is not a host address of {subnet}, the subnet of network `{network}`"
    )]
    FixedOutside { service: ServiceName, network: ResourceKey, address: Ipv4Addr, subnet: Ipv4Net },
    /// A fixed address is the gateway's.
    #[error("address {address} of service `{service}` is the gateway of network `{network}`")]
    FixedIsGateway { service: ServiceName, network: ResourceKey, address: Ipv4Addr },
    /// A fixed address in a network whose subnet orch chooses.
    #[error("service `{service}` asks for address {address}, but network `{network}` has no `subnet`")]
    FixedWithoutSubnet { service: ServiceName, network: ResourceKey, address: Ipv4Addr },
    /// A fixed address cannot be had by several containers.
    #[error(
        "service `{service}` asks for address {address}, which only one container can have, but may have several replicas"
    )]
    FixedWithReplicas { service: ServiceName, address: Ipv4Addr },
    /// Two services ask for one address.
    #[error("services `{}` and `{}` both ask for address {address} in network `{network}`", services.0, services.1)]
    FixedTwice { network: ResourceKey, address: Ipv4Addr, services: (ServiceName, ServiceName) },
    /// A fixed address is where the running project has its virtual addresses.
    #[error(
        "address {address} of service `{service}` is in {vips}, where the running project has its virtual addresses"
    )]
    FixedIsVirtual { service: ServiceName, address: Ipv4Addr, vips: Ipv4Net },
    /// Two services publish one port.
    #[error(
        "service `{service}` cannot publish {}: {owner} {}",
        place(*host_ip, *port, *protocol), if owner.route.is_some() { "listens there" } else { "does" }
    )]
    PortClash { service: ServiceName, host_ip: Option<IpAddr>, port: u16, protocol: Protocol, owner: PortOwner },
    /// Something else on the host listens there, or nothing can.
    #[error(
        "service `{}` cannot publish {}: {trouble}",
        candidate.service, place(candidate.host_ip, candidate.port, candidate.protocol)
    )]
    PortUnavailable { candidate: PortCandidate, trouble: Unavailable },
    /// Routes of two projects match the same requests, and neither is more exact.
    #[error("{own} and {other} match the same requests: `{name}` at port {port}")]
    RouteClash { own: Box<PortOwner>, other: Box<PortOwner>, name: String, port: u16 },
    /// Routes of two projects want a port to speak differently.
    #[error("port {port} would speak both TLS and plain HTTP: TLS for {tls}, plain HTTP for {plain}")]
    RoutesSpeak { port: u16, tls: Box<PortOwner>, plain: Box<PortOwner> },
    /// Another project publishes the port.
    #[error("{own} cannot listen at {}: {other} publishes it", place(*host_ip, *port, Protocol::Tcp))]
    RoutePortPublished { own: Box<PortOwner>, host_ip: Option<IpAddr>, port: u16, other: Box<PortOwner> },
    /// Something else on the host listens there, or nothing can.
    #[error("{own} cannot listen at {}: {trouble}", place(*host_ip, *port, Protocol::Tcp))]
    RoutePortUnavailable { own: Box<PortOwner>, host_ip: Option<IpAddr>, port: u16, trouble: Unavailable },
    /// All ports that may be taken are in use.
    #[error("service `{service}` cannot publish its port {target}: no port from {} to {} is free on the host", range.0, range.1)]
    NoFreePort { service: ServiceName, target: u16, range: (u16, u16) },
    /// The load balancer does not speak SCTP.
    #[error("service `{service}` publishes port {target} with protocol sctp, which the load balancer cannot")]
    SctpNeedsHostMode { service: ServiceName, target: u16 },
}

impl AddressError {
    /// Returns what the user can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::SubnetTaken { .. } => "choose another `subnet`, or leave it out and orch finds a free one",
            Self::SubnetsOverlap { .. } => "give them subnets apart; of a running project, run `orch down` first",
            Self::SubnetTooSmall { .. } => "use a subnet of at least 8 addresses (/29)",
            Self::NoRoomForServices { .. } => {
                "use a larger subnet, or move `ipv4_address` and `ip_range` together into its lower half"
            }
            Self::NoSliceForHost { ip_range: Some(_), .. } => "leave out `ip_range`: it serves one host only",
            Self::NoSliceForHost { .. } => "use a larger subnet: a /16 serves 255 hosts",
            Self::PoolExhausted { .. } => {
                "remove projects that are no longer needed, or name a free `subnet` in the file"
            }
            Self::GatewayOutside { .. } | Self::FixedOutside { .. } => {
                "use an address of the subnet other than its first and last"
            }
            Self::RangeOutside { .. } => "use a part of the subnet, or leave `ip_range` out",
            Self::FixedIsGateway { .. } => "use another address, or name another `gateway`",
            Self::FixedWithoutSubnet { .. } => "add `ipam: {config: [{subnet: …}]}` to the network",
            Self::FixedWithReplicas { .. } => "remove `ipv4_address`, or run one replica",
            Self::FixedTwice { .. } => "give each its own address",
            Self::FixedIsVirtual { .. } => "use an address outside that range, or run `orch down` first",
            Self::PortClash { owner, .. } if owner.route.is_some() => {
                "publish another port, or let the route listen elsewhere: `listen: PORT`"
            }
            Self::PortClash { .. } => "publish one of them on another port or host address",
            Self::RouteClash { .. } => {
                "change what one of them matches, or let it listen elsewhere; one with `tls` takes plain HTTP too, unless it says `http: off`"
            }
            Self::RoutesSpeak { .. } | Self::RoutePortPublished { .. } => {
                "let the route listen elsewhere: `listen: PORT`"
            }
            Self::RoutePortUnavailable { trouble, .. } => trouble.cause.help(
                "stop what listens there (`ss -ltnp` shows it), or let the route listen elsewhere: `listen: PORT`",
            ),
            Self::PortUnavailable { trouble, .. } => {
                trouble.cause.help("stop what listens there (`ss -ltnup` shows it), or publish another port")
            }
            Self::NoFreePort { .. } => "widen the range, or leave the host port out",
            Self::SctpNeedsHostMode { .. } => "publish it with `mode: host`",
        }
    }
}

impl PortTrouble {
    /// Returns what the user can do about it; `in_use` where somebody has the port.
    fn help(&self, in_use: &'static str) -> &'static str {
        match self {
            Self::InUse => in_use,
            Self::NoSuchAddress => {
                "name an address that the host has (`ip -brief address` shows them), or none, for all of them"
            }
            Self::NotPermitted => {
                "take a port that the engine's user may listen at (rootless ones: from 1024, or as \
                 `sysctl net.ipv4.ip_unprivileged_port_start` says)"
            }
            Self::Other(_) => "see to what the host says, or take another port",
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, hosts } = self;
        match cause {
            PortTrouble::InUse => write!(f, "it is in use on {}", on(hosts)),
            PortTrouble::NoSuchAddress => write!(f, "there is no such address on {}", on(hosts)),
            PortTrouble::NotPermitted => write!(f, "orch is not permitted to on {}", on(hosts)),
            PortTrouble::Other(said) => write!(f, "{said} on {}", on(hosts)),
        }
    }
}

/// Writes errors for the reader: each with what to do about it on a line of its own, and with the name of a network that
/// is in the way where `networks` has it.
pub fn explain(errors: &[AddressError], networks: &BTreeMap<Ipv4Net, &str>) -> String {
    let one = |error: &AddressError| {
        let owner = match error {
            AddressError::SubnetTaken { taken, .. } => networks.get(taken),
            _ => None,
        };
        let owner = owner.map(|name| format!(" (network `{name}`)")).unwrap_or_default();
        format!("{error}{owner}\n  = help: {}", error.help())
    };
    errors.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// Writes hosts as messages name them; the local one goes without saying.
fn on(hosts: &[HostName]) -> String {
    match hosts {
        [] => "the host".to_owned(),
        [only] if *only == HostName::local() => "the host".to_owned(),
        hosts => hosts.iter().map(|host| format!("`{host}`")).collect::<Vec<_>>().join(", "),
    }
}

/// Writes a port as messages name it: `port 80/tcp on 127.0.0.1`.
fn place(host_ip: Option<IpAddr>, port: u16, protocol: Protocol) -> String {
    match host_ip {
        Some(address) => format!("port {port}/{protocol} on {address}"),
        None => format!("port {port}/{protocol} on all addresses"),
    }
}
