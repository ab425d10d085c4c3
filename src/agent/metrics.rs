//! What Prometheus reads of this agent. Start at [`text`]: written out when somebody asks, from counters that are kept
//! anyway, so that a request costs nothing for it.
//!
//! `table` is the list of all metrics; `sample` fills it from a [`Snapshot`], and is pure; `expose` answers over TCP where the
//! user asked for that.

pub(super) mod expose;
mod sample;
mod table;
#[cfg(test)]
mod tests;

use std::path::Path;

use prometheus_client::encoding::{prometheus_text, text as openmetrics};
use prometheus_client::registry::Registry;

use crate::api::types::{ClusterStatus, MetricsForm};
use crate::ids::{HostName, ProjectName, ServiceName};
use crate::lb::{AmbassadorStats, BalancerStats};
use crate::net::dns::DnsStats;

use super::shared::Shared;
use sample::Samples;

/// Everything that metrics are made of, at one moment.
pub(super) struct Snapshot {
    pub(super) agent: AgentFacts,
    pub(super) cluster: ClusterStatus,
    pub(super) projects: Vec<ProjectFacts>,
    pub(super) dns: DnsStats,
    pub(super) balancer: BalancerStats,
    pub(super) ambassadors: Vec<AmbassadorStats>,
}

/// The agent itself.
pub(super) struct AgentFacts {
    pub(super) version: String,
    pub(super) build: String,
    pub(super) engine: String,
    /// In seconds since 1970.
    pub(super) started: u64,
    /// In bytes.
    pub(super) memory: u64,
    /// In bytes.
    pub(super) store: u64,
    pub(super) names_version: u64,
}

/// What the agent does for a project.
pub(super) struct ProjectFacts {
    pub(super) name: ProjectName,
    pub(super) passes: u64,
    pub(super) steps_done: u64,
    pub(super) steps_failed: u64,
    pub(super) is_settled: bool,
    /// Pods that shall run on this host, by their service, and whether they are ready.
    pub(super) pods: Vec<(ServiceName, bool)>,
}

/// Returns the metrics of a moment.
pub(super) fn text(snapshot: &Snapshot, form: MetricsForm) -> Result<String, std::fmt::Error> {
    let host: &HostName = &snapshot.cluster.host;
    let labels = [("host".into(), host.to_string().into())];
    let mut registry = Registry::with_prefix_and_labels(table::PREFIX, labels.into_iter());
    registry.register_collector(Box::new(Samples::of(snapshot)));
    let mut text = String::new();
    match form {
        MetricsForm::OpenMetrics => openmetrics::encode(&mut text, &registry)?,
        MetricsForm::Prometheus => prometheus_text::encode(&mut text, &registry)?,
    }
    Ok(text)
}

/// Returns what each project's loop does.
pub(super) fn projects(shared: &Shared) -> Vec<ProjectFacts> {
    let of = |handle: &super::shared::ProjectHandle| {
        let state = handle.state.borrow();
        let record = handle.record.borrow().clone();
        let pods = record.as_ref().and_then(|record| record.running()).map(|desired| {
            let observed = shared.informer.observed(Some(&handle.name));
            let containers = observed.hosts.get(shared.host()).into_iter().flat_map(|host| host.containers.values());
            let ready: std::collections::BTreeSet<_> =
                containers.filter(|one| one.is_ready()).filter_map(crate::plan::ObservedContainer::pod).collect();
            let here = desired.assignments.pods.iter().filter(|(_, host)| *host == shared.host());
            here.map(|(pod, _)| (pod.service.clone(), ready.contains(pod))).collect()
        });
        ProjectFacts {
            name: handle.name.clone(),
            passes: state.passes,
            steps_done: state.steps_done,
            steps_failed: state.steps_failed,
            is_settled: state.settled,
            pods: pods.unwrap_or_default(),
        }
    };
    shared.projects().iter().map(|handle| of(handle)).collect()
}

/// Returns the size of the store with its log; 0 where it cannot be read.
pub(super) fn store_bytes(state_dir: &Path) -> u64 {
    let size = |name: &str| std::fs::metadata(state_dir.join(name)).map_or(0, |file| file.len());
    ["store.db", "store.db-wal"].map(size).iter().sum()
}
