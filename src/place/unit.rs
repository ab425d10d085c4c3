//! What is placed as a whole: a pod, and the pods that share its network namespace; and with the first replica of a service what is
//! run before it, for the sake of what both mount.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, Scale, Service};
use crate::ids::{HostName, PodId, ServiceName};
use crate::observed::Observed;

use super::{Assignments, HostFacts};

/// Pods that must be on one host; the first one owns the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Never empty.
    pub(super) pods: Vec<PodId>,
}

impl Unit {
    /// Returns replica `number` of each of `services`.
    pub(super) fn of(services: &[ServiceName], number: u32) -> Self {
        Self { pods: services.iter().map(|service| PodId::new(service.clone(), number)).collect() }
    }

    /// Returns the pod that owns the namespace.
    pub(super) fn root(&self) -> &PodId {
        &self.pods[0]
    }
}

/// Returns the units of services with a number of replicas, and the families of services of mode `global`.
pub(super) fn units(graph: &Graph) -> (Vec<Unit>, Vec<Vec<ServiceName>>) {
    let mut families: BTreeMap<&ServiceName, Vec<ServiceName>> = BTreeMap::new();
    for name in graph.services.keys() {
        let root = placing_root(graph, name);
        let family = families.entry(root).or_default();
        if name == root {
            family.insert(0, name.clone());
        } else {
            family.push(name.clone());
        }
    }
    let (mut fixed, mut global) = (Vec::new(), Vec::new());
    for (root, family) in families {
        match graph.services.get(root).map(|service| service.scale) {
            Some(Scale::Global) => global.push(family),
            Some(Scale::Replicas(_)) => fixed.extend(numbered(graph, &family)),
            None => {}
        }
    }
    (fixed, global)
}

/// Returns the service with whose replicas those of `name` are placed.
fn placing_root<'a>(graph: &'a Graph, name: &'a ServiceName) -> &'a ServiceName {
    let own = graph.namespace_root(name);
    let of = graph.services.get(name).and_then(Service::prepares_service);
    let Some(root) = of.map(|of| graph.namespace_root(of)) else { return own };
    // One that is on every host has no first replica.
    let counted = |root: &ServiceName| matches!(graph.services.get(root), Some(one) if one.scale != Scale::Global);
    if counted(root) { root } else { own }
}

/// Returns the units of one family: unit `i` holds the members that have a replica `i`.
fn numbered(graph: &Graph, family: &[ServiceName]) -> Vec<Unit> {
    let count = |name: &ServiceName| match graph.services.get(name).map(|service| service.scale) {
        Some(Scale::Replicas(count)) => count,
        _ => 0,
    };
    let most = family.iter().map(count).max().unwrap_or(0);
    let members =
        |number: u32| -> Vec<ServiceName> { family.iter().filter(|name| count(name) >= number).cloned().collect() };
    (1..=most).map(|number| Unit::of(&members(number), number)).collect()
}

/// Numbers of a global service's pods by host: kept while the host stays, new hosts get the lowest that are free.
pub(super) struct Numbers {
    by_host: BTreeMap<HostName, u32>,
    taken: BTreeSet<u32>,
}

/// Returns the numbers that the pods of `service` have now.
pub(super) fn numbers(
    service: &ServiceName,
    hosts: &BTreeMap<HostName, HostFacts>,
    previous: &Assignments,
    observed: &Observed,
) -> Numbers {
    let mut by_host: BTreeMap<HostName, u32> = BTreeMap::new();
    for (pod, host) in &previous.pods {
        if &pod.service == service && hosts.contains_key(host) {
            by_host.entry(host.clone()).or_insert(pod.number);
        }
    }
    let mut taken: BTreeSet<u32> = by_host.values().copied().collect();
    for (name, host) in &observed.hosts {
        let pods = host.containers.values().filter_map(crate::observed::ObservedContainer::pod);
        for pod in pods.filter(|pod| &pod.service == service) {
            if hosts.contains_key(name) && !by_host.contains_key(name) && taken.insert(pod.number) {
                by_host.insert(name.clone(), pod.number);
            }
        }
    }
    Numbers { by_host, taken }
}

impl Numbers {
    /// Returns the number for `host`, which is the lowest free one if it has none yet.
    pub(super) fn of(&self, host: &HostName) -> u32 {
        match self.by_host.get(host) {
            Some(number) => *number,
            None => (1..=u32::MAX).find(|number| !self.taken.contains(number)).unwrap_or(u32::MAX),
        }
    }

    /// Fixes the number of `host`.
    pub(super) fn take(&mut self, host: &HostName) {
        let number = self.of(host);
        self.taken.insert(number);
        self.by_host.insert(host.clone(), number);
    }
}
