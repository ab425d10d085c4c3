//! What the load balancer knows: which services stand behind which virtual addresses and published ports.
//!
//! A table is a value: made whole from desired and observed state, swapped in whole, read without locks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::graph::Protocol;
use crate::ids::{HostName, PodId, ProjectName, ResourceKey, ServiceName};
use crate::model::{Ambassador, AppProtocol, Balance, Breaker, Export, Route};
use crate::observed::{AMBASSADORS_LABEL, ObservedContainer};

/// All that the load balancer of one host knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LbTable {
    /// Grows with every table.
    pub version: u64,
    /// By virtual address. Addresses are unique over all projects of a host, because subnets are.
    pub vips: BTreeMap<Ipv4Addr, Vip>,
    /// Published ports.
    pub published: BTreeMap<PublishedKey, Published>,
    /// Stand-ins inside pods of this host.
    pub ambassadors: BTreeMap<AmbassadorKey, AmbassadorEntry>,
    /// Services that other projects may reach.
    pub exports: BTreeMap<(ProjectName, ServiceName), Exported>,
    /// Containers at their own addresses, ready or not. Those of this host are reached so by other hosts only.
    pub pods: BTreeMap<Ipv4Addr, PodAddress>,
    /// Rules for requests from outside. Of rules that are equally exact, the earlier one counts.
    pub routes: Vec<RouteRule>,
}

/// A rule for requests from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRule {
    /// What it says.
    pub route: Arc<Route>,
    /// Its place among the rules of its service.
    pub number: usize,
    /// The service.
    pub backend: Arc<Backend>,
    /// What is shown for its hosts where clients speak TLS.
    pub certificate: Option<Arc<Certificate>>,
}

/// A certificate and its key as they are in the files.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Certificate {
    /// The chain, PEM.
    pub chain: Vec<u8>,
    /// The private key, PEM.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// A container at its own address: a connection to it is for it alone, and is not balanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddress {
    /// The network that the address is in: only connections that came in there may use it.
    pub network: NetworkId,
    /// The container.
    pub endpoint: Endpoint,
}

impl LbTable {
    /// Returns the addresses of containers that are not on the host `own`, by network.
    pub fn elsewhere(&self, own: &HostName) -> BTreeMap<NetworkId, Vec<Ipv4Addr>> {
        let mut elsewhere: BTreeMap<NetworkId, Vec<Ipv4Addr>> = BTreeMap::new();
        for (address, pod) in self.pods.iter().filter(|(_, pod)| pod.endpoint.host != *own) {
            elsewhere.entry(pod.network.clone()).or_default().push(*address);
        }
        elsewhere
    }
}

/// A virtual address.
#[derive(Debug, Clone, PartialEq)]
pub struct Vip {
    /// The network that it belongs to: only connections that came in there may use it.
    pub network: NetworkId,
    /// What stands behind it.
    pub backend: Arc<Backend>,
}

/// A network of a project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId {
    /// The project.
    pub project: ProjectName,
    /// Key of the network.
    pub network: ResourceKey,
}

/// Where a published port listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishedKey {
    /// Address; `None`: all, IPv4 and IPv6.
    pub host_ip: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// What stands behind a published port.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Port in the container.
    pub target: u16,
    /// The service.
    pub backend: Arc<Backend>,
}

/// A service as seen from one network (or from outside).
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// The project.
    pub project: ProjectName,
    /// The service.
    pub service: ServiceName,
    /// Ports in its containers that are balanced by request.
    pub http: BTreeMap<u16, AppProtocol>,
    /// How one of them is chosen.
    pub balance: Balance,
    /// Its ready pods, in order of their number.
    pub endpoints: Vec<Endpoint>,
}

/// A pod that connections are made to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod. Of a one-off container, which is none: its service and the number that it was made with.
    pub pod: PodId,
    /// Engine id of its container: a pod that was made anew is another endpoint.
    pub container: String,
    /// Its host.
    pub host: HostName,
    /// Its address in the network concerned.
    pub address: Ipv4Addr,
}

/// Pods that must get no new connections although they are ready: they are being drained.
pub type Draining = BTreeSet<String>;

/// A service that other projects may reach.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// What of it.
    pub export: Export,
    /// What stands behind it.
    pub backend: Arc<Backend>,
}

/// An ambassador of one pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AmbassadorKey {
    /// The project.
    pub project: ProjectName,
    /// The pod, by its service of the file.
    pub pod: PodId,
    /// The ambassador's name in the file.
    pub name: String,
}

impl AmbassadorKey {
    /// Returns the service that a one-off is of and the ambassadors of its pod, as the label of the holder or the main
    /// container has them, named `cache@0f0f0f0f0f0f` by the first digits of it; `None` where it has none.
    pub fn of_oneoff(
        project: &ProjectName,
        container: &ObservedContainer,
    ) -> Option<(ServiceName, Vec<(Self, Ambassador)>)> {
        let (slug, part) = (container.slug()?, container.part()?);
        let ambassadors: Vec<Ambassador> =
            serde_json::from_str(container.labels.get(AMBASSADORS_LABEL)?).unwrap_or_default();
        let key = |ambassador: &Ambassador| Self {
            project: project.clone(),
            pod: PodId::new(part.of.clone(), 0),
            name: format!("{}@{}", ambassador.name, slug.get(..12).unwrap_or(slug)),
        };
        let keyed = ambassadors.iter().map(|ambassador| (key(ambassador), ambassador.clone())).collect();
        Some((part.of, keyed))
    }
}

impl fmt::Display for AmbassadorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { project, pod, name } = self;
        write!(f, "{project}/{pod}/{name}")
    }
}

/// Where an ambassador leads, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmbassadorEntry {
    /// The pod's own address, by which other hosts know who calls; `None`: it has none.
    pub address: Option<IpAddr>,
    /// Where to, in this order.
    pub targets: Vec<AmbassadorWay>,
    /// TLS to the far side.
    pub tls: Option<AmbassadorTls>,
    /// Time for one connect.
    pub timeout: Duration,
    /// More rounds over the targets.
    pub retries: u32,
    /// When a target is left alone.
    pub breaker: Breaker,
}

/// One target of an ambassador.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AmbassadorWay {
    /// A service's virtual address in a network that the pod is on.
    Service {
        /// The network.
        network: NetworkId,
        /// The virtual address.
        address: Ipv4Addr,
        /// The service.
        service: ServiceName,
        /// Port in its containers.
        port: u16,
    },
    /// A service that another project exports.
    Exported {
        /// The project.
        project: ProjectName,
        /// Its service.
        service: ServiceName,
        /// Port in its containers.
        port: u16,
    },
    /// An address outside.
    Outside {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// It leads nowhere as things are.
    Nowhere {
        /// The target as the file has it.
        target: String,
        /// Why.
        why: String,
    },
}

impl AmbassadorWay {
    /// Returns the name that the far side's certificate must have where the file names none.
    pub fn host_name(&self) -> String {
        match self {
            Self::Service { service, .. } | Self::Exported { service, .. } => service.to_string(),
            Self::Outside { host, .. } => host.clone(),
            Self::Nowhere { target, .. } => target.clone(),
        }
    }
}

impl fmt::Display for AmbassadorWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { service, port, .. } => write!(f, "{service}:{port}"),
            Self::Exported { project, service, port } => write!(f, "{project}/{service}:{port}"),
            Self::Outside { host, port } => write!(f, "{host}:{port}"),
            Self::Nowhere { target, .. } => f.write_str(target),
        }
    }
}

/// Certificates or a key as text.
pub type Pem = Arc<[u8]>;

/// What TLS to the far side of an ambassador needs; contents are PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct AmbassadorTls {
    /// Name that its certificate must have.
    pub server_name: Option<String>,
    /// Authorities that are trusted, and the far side's own certificate; `None`: the authorities of the host.
    pub authorities: Option<Pem>,
    /// Certificate and key that the pod shows.
    pub identity: Option<(Pem, Pem)>,
}

impl fmt::Debug for AmbassadorTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key is in it.
        f.debug_struct("AmbassadorTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}
