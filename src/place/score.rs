//! Which of the hosts that can take a unit is best: the least score wins.

use crate::ids::HostName;
use crate::observed::Observed;

use super::filter::{Filters, label};
use super::unit::Unit;
use super::usage::Usage;

/// Compared from first to last field; equal scores go to the host whose name comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    /// For each label to spread over: pods of the service on all hosts with this host's value.
    spread: Vec<u32>,
    /// Pods of the service on this host.
    of_service: u32,
    /// Pods on this host.
    pods: u32,
    /// Images that would have to be pulled first: counts a little, so that it breaks ties only.
    images_missing: usize,
}

/// Scores `host` for `unit`, by the pod that owns its namespace.
pub(super) fn score(
    filters: &Filters<'_>,
    usage: &Usage<'_>,
    observed: &Observed,
    unit: &Unit,
    host: &HostName,
) -> Score {
    let service = &unit.root().service;
    let rules = filters.graph.services.get(service);
    let value = |name: &HostName, key: &str| filters.hosts.get(name).map(|facts| label(key, facts).to_owned());
    let keys = rules.map(|service| service.placement.spread.as_slice()).unwrap_or_default();
    let spread = keys.iter().map(|key| usage.count(service, |other| value(other, key) == value(host, key)));
    let images = observed.hosts.get(host).map(|host| &host.images);
    let missing = |image: &str| !images.is_some_and(|images| images.contains_key(image));
    let containers = unit.pods.iter().filter_map(|pod| filters.graph.services.get(&pod.service));
    let here = usage.of(host);
    Score {
        spread: spread.collect(),
        of_service: here.count(service),
        pods: here.pods,
        images_missing: containers.filter(|service| missing(&service.container.image)).count(),
    }
}
