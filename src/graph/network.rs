//! Networks, who is on them, and ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::ids::{ResourceKey, ServiceName};

/// Where a service's containers are connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// To these networks of the project, the one with the default route first.
    Networks(Vec<Attachment>),
    /// The host's own network: no orch names inside.
    Host,
    /// Loopback only.
    None,
    /// The namespace of the replica with the same number of that service, on the same host.
    Service(ServiceName),
    /// The engine's own `bridge` network or a container's namespace, passed on as is.
    Engine(String),
}

/// A service's membership in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Key of [`networks`](super::Graph::networks).
    pub network: ResourceKey,
    /// More names for the service, in this network only.
    pub aliases: Vec<String>,
    /// Fixed address of the container.
    pub ipv4: Option<Ipv4Addr>,
    /// Fixed address of IPv6, which is the engine's matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// Fixed hardware address.
    pub mac: Option<String>,
    /// Further addresses, of the link only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_local: Vec<IpAddr>,
    /// Options of the network's driver for this member.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Name of the interface in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

impl Attachment {
    /// Returns the membership of which nothing more is said.
    pub fn new(network: ResourceKey) -> Self {
        Self {
            network,
            aliases: Vec::new(),
            ipv4: None,
            ipv6: None,
            mac: None,
            link_local: Vec::new(),
            driver_opts: BTreeMap::new(),
            interface: None,
        }
    }
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: only with `mode: host`.
    Sctp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port that a service says it listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExposedPort {
    /// Number in the container.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Name of the port, if given.
    pub name: Option<String>,
    /// Address on the host; `None`: all.
    pub host_ip: Option<std::net::IpAddr>,
    /// Ports on the host that may be taken, first to last; `None`: any free one.
    pub published: Option<(u16, u16)>,
    /// Port in the container.
    pub target: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Who publishes.
    pub mode: PortMode,
}

/// Who publishes a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortMode {
    /// orch's load balancer, on every host of the project.
    Ingress,
    /// The engine, on the pod's host.
    Host,
}

/// Addresses of IPv6 that a network has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Pool {
    /// Subnet.
    pub subnet: Ipv6Net,
    /// Address of the bridge; `None`: the engine chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv6Addr>,
    /// Range for containers; `None`: all of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<Ipv6Net>,
    /// Addresses that others have, by name: no container gets them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, Ipv6Addr>,
}

/// A network of the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Name on the engine.
    pub name: String,
    /// Made and removed by somebody else: no virtual addresses there, names give the pods' addresses.
    pub external: bool,
    /// No way out.
    pub internal: bool,
    /// Driver; `None`: `bridge`.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels that the user gave.
    pub labels: BTreeMap<String, String>,
    /// Subnet that the file asks for; else one from the pool.
    pub subnet: Option<Ipv4Net>,
    /// Gateway that the file asks for; else the first address.
    pub gateway: Option<Ipv4Addr>,
    /// Range for containers that the file asks for.
    pub ip_range: Option<Ipv4Net>,
    /// Addresses that others have, by name: neither containers nor services get them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
    /// Whether containers have addresses of IPv6, too; `None`: as the engine has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,
    /// Where these addresses come from, the same on each host; empty: from where the engine likes. The engine gives them out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipv6_pools: Vec<Ipv6Pool>,
    /// Options of the engine's driver for addresses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipam_options: BTreeMap<String, String>,
    /// Other tools may attach containers (`attachable`).
    pub attachable: bool,
    /// Lower-case hex SHA-256 over what an existing network cannot take on and the engine does not show in comparable
    /// form: options, labels and the like. Computed by `expand`.
    #[serde(default)]
    pub spec_hash: String,
    /// Docker Compose's own hash.
    #[serde(default)]
    pub compose_hash: String,
}

impl Network {
    /// Returns whether the user wants it to be reached from elsewhere by IPv6. Source: moby, docs of the driver `bridge`; engines
    /// before 27 do not know the option, and leave networks open.
    pub fn is_open_by_ipv6(&self) -> bool {
        let mode = self.driver_opts.get("com.docker.network.bridge.gateway_mode_ipv6");
        mode.is_some_and(|mode| matches!(mode.as_str(), "routed" | "nat-unprotected"))
    }
}
