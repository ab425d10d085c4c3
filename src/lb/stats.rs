//! What a load balancer tells of itself.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::routing::Routing;
use crate::ids::{PodId, ProjectName};

/// Counters of a [`super::Balancer`], as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerStats {
    /// Version of the table in use.
    pub table_version: u64,
    /// Connections now, held ones and those of other hosts' agents included.
    pub open: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Of these, closed because no endpoint took them.
    pub refused: u64,
    /// Requests of this host that another host's agent denied.
    #[serde(default)]
    pub denied: u64,
    /// What is done with datagrams.
    #[serde(default)]
    pub datagrams: DatagramStats,
    /// Endpoints of the table in use, by project and pod.
    pub endpoints: Vec<EndpointStats>,
}

/// Counters of datagrams since the start, those of other hosts' agents included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramStats {
    /// Sessions now.
    pub sessions: usize,
    /// Datagrams from clients.
    pub questions: u64,
    /// Datagrams from endpoints.
    pub answers: u64,
    /// Of both, those that were dropped: there was no room for them, or nobody to take them.
    pub dropped: u64,
    /// Sessions that ended because there were too many.
    pub evicted: u64,
    /// Sessions that ended because no endpoint took what they sent.
    pub unserved: u64,
}

/// Counters of one endpoint since it turned ready.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointStats {
    /// The project.
    pub project: ProjectName,
    /// The pod.
    pub pod: PodId,
    /// Engine id of its container.
    pub container: String,
    /// Whether it is on another host.
    pub remote: bool,
    /// Connections open or being opened, and sessions of datagrams.
    pub open: usize,
    /// Connections made, and sessions that were answered.
    pub connected: u64,
    /// Connects that failed, and sessions that were refused.
    pub failed: u64,
    /// Bytes sent to it.
    pub sent: u64,
    /// Bytes received from it.
    pub received: u64,
}

impl Routing {
    /// Returns the counters of every endpoint, each once although it may stand behind several addresses.
    pub(super) fn endpoint_stats(&self) -> Vec<EndpointStats> {
        let mut all: Vec<EndpointStats> = self
            .pools()
            .flat_map(|pool| pool.targets.iter().map(move |target| (pool, target)))
            .map(|(pool, target)| EndpointStats {
                project: pool.project.clone(),
                pod: target.pod.clone(),
                container: target.state.container.clone(),
                remote: target.remote.is_some(),
                open: target.state.open(),
                connected: target.state.connected.load(Ordering::Relaxed),
                failed: target.state.failed.load(Ordering::Relaxed),
                sent: target.state.sent.load(Ordering::Relaxed),
                received: target.state.received.load(Ordering::Relaxed),
            })
            .collect();
        all.sort();
        all.dedup_by(|a, b| a.container == b.container);
        all
    }
}
