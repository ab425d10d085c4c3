//! What an agent tells of names, traffic and reasons.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::ids::{HostName, ProjectName, ServiceName};
use crate::lb::{AmbassadorStats, BalancerStats};

/// What a name means to a container of the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameQuestion {
    /// The name, as an application would ask for it.
    pub name: String,
    /// The service that asks; `None`: any container of the network that most services are on.
    pub from: Option<ServiceName>,
}

/// The answer to a [`NameQuestion`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameTold {
    /// The container that was answered as.
    pub asker: String,
    /// Its host.
    pub host: HostName,
    /// Its address, by which it is known.
    pub source: Ipv4Addr,
    /// What it is told.
    pub says: NameSays,
    /// Why, a sentence each.
    pub because: Vec<String>,
}

/// What orch's DNS says to a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSays {
    /// These addresses.
    Addresses {
        /// In order of the pods' numbers; the server rotates them.
        addresses: Vec<Ipv4Addr>,
        /// How long they may be remembered.
        ttl_secs: u32,
    },
    /// Ports and the names of those who listen there.
    Services {
        /// One for each port and address.
        records: Vec<ServiceTold>,
        /// How long they may be remembered.
        ttl_secs: u32,
    },
    /// The name of an address.
    Pointer {
        /// Full name.
        name: String,
        /// How long it may be remembered.
        ttl_secs: u32,
    },
    /// The name is known and has no address now.
    NoAddress,
    /// There is no such name for that container.
    NoName,
    /// It asks these resolvers; none: the host's own.
    Forwarded {
        /// The container's own.
        resolvers: Vec<SocketAddr>,
    },
    /// The container is on no network of the project's.
    Refused,
}

/// Where a service listens, as an SRV record says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTold {
    /// The port.
    pub port: u16,
    /// Full name of who listens there.
    pub target: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// Where metrics are to be told over TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposeRequest {
    /// Address and port; `None`: nowhere.
    pub address: Option<SocketAddr>,
}

/// Whether requests shall have lines in the agent's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLogRequest {
    /// From now on.
    pub on: bool,
}

/// A request that somebody could send, to be followed without sending it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteQuestion {
    /// `http://host:port/path` or `https://…`.
    pub url: String,
    /// Its method.
    pub method: String,
    /// Its header fields.
    pub headers: Vec<(String, String)>,
}

/// What is asked of a project's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyQuestion {
    /// A service, a pod (`web.2`), a container's name, a published port, a host name of a route.
    pub about: String,
    /// Only what the load balancer, the pods and the ambassadors of the host that is asked have to say of a service:
    /// another one told the rest.
    #[serde(default)]
    pub only_here: bool,
}

/// The answer to a [`WhyQuestion`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyTold {
    /// What it was taken for, for the reader.
    pub about: String,
    /// What was found, what matters most first.
    pub findings: Vec<Finding>,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How it is.
    pub weight: Weight,
    /// What, for the reader.
    pub text: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// It keeps something from working.
    Problem,
    /// It will pass by itself.
    Waiting,
    /// It is as it shall be.
    Fine,
}

/// The text that metrics are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsForm {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// Prometheus' own, version 0.0.4, for who does not say that he understands the other.
    Prometheus,
}

impl MetricsForm {
    /// Chooses by the value of `Accept`.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Returns the value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What the load balancer of one host does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// The host.
    pub host: HostName,
    /// Counters of the balancer and of every endpoint.
    pub balancer: BalancerStats,
    /// Ambassadors in pods of the host.
    pub ambassadors: Vec<AmbassadorStats>,
    /// Services of all projects that are reached by names, ports or rules, whether a pod is ready or not.
    #[serde(default)]
    pub services: Vec<ServiceSeen>,
}

/// A service that others reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSeen {
    /// The project.
    pub project: ProjectName,
    /// The service.
    pub service: ServiceName,
    /// Why no pod of it is ready; `None`: one is.
    pub why: Option<String>,
}
