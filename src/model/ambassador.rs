//! What a pod of several containers is given beside its own: stand-ins for what is elsewhere, and what it shows to others.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ProjectName, ServiceName};

/// Where the content of a volume is that each pod has one of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// On the host's disk.
    #[default]
    Disk,
    /// In memory, counted as its pod's.
    Memory,
}

/// A stand-in for something elsewhere (`x-ambassadors`): the agent listens inside the pod's namespace and relays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ambassador {
    /// Its key in the compose file.
    pub name: String,
    /// Address inside the pod; 127.0.0.1 where the file gives none.
    pub address: Ipv4Addr,
    /// Port inside the pod.
    pub port: u16,
    /// Where to, the first one that takes the connection; never empty.
    pub targets: Vec<AmbassadorTarget>,
    /// How the far side is spoken to; `None`: as it is.
    pub tls: Option<AmbassadorTls>,
    /// Time for one connect.
    pub timeout: Duration,
    /// More rounds over the targets after one in which none took the connection.
    pub retries: u32,
    /// When a target is left alone for a while.
    pub breaker: Breaker,
}

/// Where an [`Ambassador`] leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmbassadorTarget {
    /// A service of this project, on whatever host, on a network that the pod is on.
    Service {
        /// Which.
        service: ServiceName,
        /// Port in its containers.
        port: u16,
    },
    /// A service that another project exports.
    Exported {
        /// The other project.
        project: ProjectName,
        /// Its service.
        service: ServiceName,
        /// Port in its containers.
        port: u16,
        /// Where the file says it: `compose.yaml:3:7`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        place: String,
    },
    /// An address outside, a name or a number, reached from the pod's host.
    Outside {
        /// Name or address.
        host: String,
        /// Port there.
        port: u16,
    },
}

impl AmbassadorTarget {
    /// Returns the port there.
    pub fn port(&self) -> u16 {
        match self {
            Self::Service { port, .. } | Self::Exported { port, .. } | Self::Outside { port, .. } => *port,
        }
    }
}

impl fmt::Display for AmbassadorTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { service, port } => write!(f, "{service}:{port}"),
            Self::Exported { project, service, port, place: _ } => write!(f, "{project}/{service}:{port}"),
            Self::Outside { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// TLS to the far side of an [`Ambassador`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmbassadorTls {
    /// Name that its certificate must have; `None`: the target's.
    pub server_name: Option<String>,
    /// Key of contents in the graph, or in the model of a config, with the authorities that are trusted; `None`: those of the host.
    pub authorities: Option<String>,
    /// Keys of contents in the graph, or in the model of a config and a secret, with the certificate and the key that the pod shows of itself.
    pub identity: Option<(String, String)>,
}

/// When a target is left alone: after so many failed connects in a row, for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Failures in a row; 0: never.
    pub failures: u32,
    /// Then no connection is tried for this time, after which one is.
    pub pause: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, pause: Duration::from_secs(10) }
    }
}

/// What of a service other projects may reach (`x-export`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Export {
    /// Nothing.
    #[default]
    Nothing,
    /// These ports of its containers.
    Ports(Vec<u16>),
    /// Every port.
    All,
}

/// A service of another project by a name of one's own (`external_links`).
///
/// The name of a container (`a-b-c-1`) may mean several (`a-b/c`, `a/b-c`): then there is one for each with the same
/// alias, one after the other, and the first whose service is there counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalLink {
    /// The other project.
    pub project: ProjectName,
    /// Its service, which must be exported.
    pub service: ServiceName,
    /// The name that only the linking service knows it by.
    pub alias: String,
    /// Where the file says it: `compose.yaml:3:7`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
}

impl ExternalLink {
    /// Returns what the address of the other service is kept under, beside the project's own services: a name that no service
    /// of a file has.
    pub fn key(&self) -> ServiceName {
        let Self { project, service, alias: _, place: _ } = self;
        // Both are made of characters that names of services may have; names of projects have no dot.
        ServiceName::new(format!("{project}..{service}"))
            .unwrap_or_else(|_| unreachable!("projects and services have names of the same characters"))
    }
}
