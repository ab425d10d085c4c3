//! Host ports that others have.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::graph::Protocol;
use crate::ids::{ProjectName, ServiceName};

/// A port that some process of a host listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listening {
    /// Address; `None`: all, of both families.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A port of a host that others than the project have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenPort {
    /// The port.
    pub at: Listening,
    /// Who has it.
    pub by: PortHolder,
}

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortHolder {
    /// A process that is not orch's.
    Process,
    /// A service of another project.
    Service(ProjectName, ServiceName),
    /// Routes to a service of another project.
    Route(ProjectName, ServiceName),
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("a process there"),
            Self::Service(project, service) => write!(f, "service `{service}` of project `{project}`"),
            Self::Route(project, service) => write!(f, "a route of service `{service}` of project `{project}`"),
        }
    }
}

impl Listening {
    /// Returns whether listeners on both cannot be.
    pub fn clashes(&self, other: &Self) -> bool {
        self.port == other.port && self.protocol == other.protocol && meet(self.address, other.address)
    }
}

/// Returns whether listeners on these two addresses cannot have the same port.
///
/// `None` listens on all addresses of both families, `0.0.0.0` and `::` on all of theirs.
pub fn meet(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (None, _) | (_, None) => true,
        (Some(a), Some(b)) => a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())),
    }
}
