//! Redirect rules, firewall openings and addresses of bridges of one host: observed, compared, set.

mod addresses;
mod conntrack;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod foreign;
mod linux;
mod rules;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use ipnet::Ipv4Net;

#[cfg(any(test, feature = "testing"))]
pub use self::fake::FakeHostNetwork;
pub use self::linux::LinuxHostNetwork;
use crate::graph::Protocol;

/// All that orch wants of a host's packet filter and interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostNetworkSpec {
    /// One for each bridge of a network that orch made.
    pub bridges: Vec<BridgeSpec>,
    /// Bridges with IPv6 whose containers nobody outside of them opens a connection to by it: engines before 27 leave them open.
    pub closed: Vec<String>,
    /// Published ports, to be let through a firewall that drops by default.
    pub published: Vec<OpenPort>,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenPort {
    /// Address; `None`: all.
    pub host_ip: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// What one bridge needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BridgeSpec {
    /// Interface.
    pub bridge: String,
    /// Whether it is there only while a container runs on the network: then nothing is wrong when it is not.
    pub on_demand: bool,
    /// Its own address.
    pub gateway: Ipv4Addr,
    /// All addresses of the network, those of containers on other hosts too.
    pub subnet: Ipv4Net,
    /// Where virtual addresses come from.
    pub vips: Ipv4Net,
    /// Virtual addresses in use and those of containers on other hosts: secondary addresses of the bridge.
    pub addresses: Vec<Ipv4Addr>,
    /// Port at the gateway that takes TCP for these.
    pub lb_port: u16,
    /// UDP ports that services of the network declare, each with the port of the bridge's addresses that takes it for them.
    pub udp: BTreeMap<u16, u16>,
    /// Port at the gateway that answers DNS over UDP and TCP.
    pub dns_port: u16,
}

/// The ports that a bridge's rules send to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerPorts {
    /// As [`BridgeSpec::lb_port`].
    pub lb: u16,
    /// As [`BridgeSpec::udp`].
    pub udp: BTreeMap<u16, u16>,
    /// As [`BridgeSpec::dns_port`].
    pub dns: u16,
}

impl From<BridgeSpec> for ListenerPorts {
    fn from(spec: BridgeSpec) -> Self {
        Self { lb: spec.lb_port, udp: spec.udp, dns: spec.dns_port }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum HostNetworkError {
    /// A tool of the host is missing or failed.
    #[error("`{command}` failed on the host: {message}")]
    Command {
        /// What was run.
        command: String,
        /// Its last words.
        message: String,
    },
    /// The kernel refused a change of addresses or a look-up of routes.
    #[error("{action}: {message}")]
    Kernel {
        /// What was tried.
        action: String,
        /// The kernel's words.
        message: String,
    },
}

/// Result of a call.
pub type Result<T, E = HostNetworkError> = std::result::Result<T, E>;

/// A host's packet filter, addresses and routes.
#[async_trait]
pub trait HostNetwork: Send + Sync {
    /// Makes the host agree with `spec`; looks first and writes only what differs. Returns what it had to mend, for the log.
    async fn ensure(&self, spec: &HostNetworkSpec) -> Result<Vec<String>>;

    /// Removes every rule, chain and address that orch ever made.
    async fn remove_all(&self) -> Result<()>;

    /// Returns the destinations of all IPv4 routes but the default ones: what a new subnet must not overlap.
    async fn routes(&self) -> Result<Vec<Ipv4Net>>;

    /// Returns the ports that the rules of each bridge name now, so that an agent that starts again can take the same.
    async fn ports(&self) -> Result<BTreeMap<String, ListenerPorts>>;

    /// Returns the names of bridges as they are made, in the order of their making, from now on. Ends where the host cannot
    /// say so any more; [`HostNetwork::ensure`] is to be repeated in any case.
    fn new_bridges(&self) -> BoxStream<'static, String>;

    /// Returns what else on this host keeps containers from what is redirected for them, each with the remedy.
    async fn problems(&self) -> Result<Vec<String>>;
}
