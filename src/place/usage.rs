//! What is given out already: pods, resources, host ports and the places of local volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::graph::{Graph, Port, PortMode, Protocol, Scale, Service, Volume};
use crate::ids::{HostName, PodId, ResourceKey, ServiceName};
use crate::observed::Observed;

use super::unit::Unit;
use super::{Assignments, HostFacts, Kinds, Listening, TakenPort, meet};

/// All hosts' usage.
pub(super) struct Usage<'a> {
    graph: &'a Graph,
    facts: &'a BTreeMap<HostName, HostFacts>,
    hosts: BTreeMap<HostName, HostUsage>,
    /// What is given out on a host that nothing is given out on.
    nothing: HostUsage,
    /// Where each local volume is; absent while it is nowhere.
    homes: BTreeMap<&'a ResourceKey, BTreeSet<HostName>>,
}

/// One host's usage by this project.
#[derive(Debug, Clone, Default)]
pub(super) struct HostUsage {
    /// CPUs in billionths.
    pub(super) nano_cpus: i64,
    /// Bytes.
    pub(super) memory: i64,
    /// Pods in all.
    pub(super) pods: u32,
    /// Pods of each service.
    pub(super) services: BTreeMap<ServiceName, u32>,
    /// Devices by kind.
    pub(super) devices: Kinds,
    ports: Vec<(Option<IpAddr>, u16, Protocol)>,
}

impl HostUsage {
    /// Adds a pod, or says which of its host ports is taken.
    ///
    /// Ports that `others` have are taken too, and those that other projects or no project of orch's have.
    pub(super) fn add(
        &mut self,
        service: &Service,
        pod: &PodId,
        others: &Self,
        facts: &HostFacts,
    ) -> Result<(), (String, String)> {
        for port in service.ports.iter().filter(|port| port.mode == PortMode::Host) {
            self.take_port(port, others, &facts.ports)?;
        }
        for (kind, number) in facts.devices.needs(&service.container).unwrap_or_default() {
            *self.devices.entry(kind).or_default() += number;
        }
        let resources = &service.container.resources;
        self.nano_cpus += resources.reserved_nano_cpus.unwrap_or(0);
        self.memory += resources.reserved_memory.unwrap_or(0);
        // What is run before a service has ended when that is there.
        self.pods += u32::from(service.prepares_service().is_none());
        *self.services.entry(pod.service.clone()).or_default() += 1;
        Ok(())
    }

    /// Returns how many pods of a service there are.
    pub(super) fn count(&self, service: &ServiceName) -> u32 {
        self.services.get(service).copied().unwrap_or(0)
    }

    /// Takes the first free port of the range that `port` may have, or says who has the first one of those. Ports that
    /// the engine chooses never clash.
    fn take_port(&mut self, port: &Port, others: &Self, foreign: &[TakenPort]) -> Result<(), (String, String)> {
        let Some((first, last)) = port.published else { return Ok(()) };
        let holder = |number: u16| {
            let own =
                self.ports.iter().chain(&others.ports).any(|(ip, taken, protocol)| {
                    *taken == number && *protocol == port.protocol && meet(*ip, port.host_ip)
                });
            let wanted = Listening { address: port.host_ip, port: number, protocol: port.protocol };
            let taken = || foreign.iter().find(|taken| taken.at.clashes(&wanted));
            if own { Some("another pod".to_owned()) } else { taken().map(|taken| taken.by.to_string()) }
        };
        let Some(number) = (first..=last).find(|number| holder(*number).is_none()) else {
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            return Err((format!("{range}/{}", port.protocol), holder(first).unwrap_or_default()));
        };
        self.ports.push((port.host_ip, number, port.protocol));
        Ok(())
    }
}

impl<'a> Usage<'a> {
    pub(super) fn new(
        graph: &'a Graph,
        facts: &'a BTreeMap<HostName, HostFacts>,
        previous: &Assignments,
        observed: &Observed,
    ) -> Self {
        let away = |host: &HostName| !observed.hosts.contains_key(host);
        let away: Vec<(&PodId, &HostName)> = previous.pods.iter().filter(|(_, host)| away(host)).collect();
        let mut homes = BTreeMap::new();
        for (key, volume) in graph.volumes.iter().filter(|(_, volume)| volume.is_local()) {
            let places = volume_homes(graph, key, volume, &away, observed);
            if !places.is_empty() {
                homes.insert(key, places);
            }
        }
        Self { graph, facts, hosts: BTreeMap::new(), nothing: HostUsage::default(), homes }
    }

    /// Returns what is given out on a host.
    pub(super) fn of(&self, host: &HostName) -> &HostUsage {
        self.hosts.get(host).unwrap_or(&self.nothing)
    }

    /// Returns how many pods of `service` are on hosts that `matches` holds for.
    pub(super) fn count(&self, service: &ServiceName, matches: impl Fn(&HostName) -> bool) -> u32 {
        self.hosts.iter().filter(|(name, _)| matches(name)).filter_map(|(_, host)| host.services.get(service)).sum()
    }

    /// Returns the hosts that have a local volume; `None`: it is not made yet, or moves with its pods.
    pub(super) fn home(&self, volume: &ResourceKey) -> Option<&BTreeSet<HostName>> {
        self.homes.get(volume)
    }

    /// Puts a unit on a host; its local volumes will be made there.
    pub(super) fn give(&mut self, unit: &Unit, host: &HostName) {
        let Some(facts) = self.facts.get(host) else { return };
        let usage = self.hosts.entry(host.clone()).or_default();
        for pod in &unit.pods {
            let Some(service) = self.graph.services.get(&pod.service) else { continue };
            // A unit is only given what the filters found free.
            usage.add(service, pod, &self.nothing, facts).ok();
            for volume in service.volumes() {
                if self.graph.volumes.get_key_value(volume).is_some_and(|(_, v)| v.is_local()) {
                    self.homes.entry(volume).or_insert_with(|| BTreeSet::from([host.clone()]));
                }
            }
        }
    }
}

/// Returns where a local volume is: on the hosts that show it; if none does, on a host that does not answer and that
/// had a pod which mounts it.
fn volume_homes(
    graph: &Graph,
    key: &ResourceKey,
    volume: &Volume,
    away: &[(&PodId, &HostName)],
    observed: &Observed,
) -> BTreeSet<HostName> {
    let seen: BTreeSet<HostName> = observed
        .hosts
        .iter()
        .filter(|(_, host)| host.volumes.contains_key(&volume.name))
        .map(|(name, _)| name.clone())
        .collect();
    if !seen.is_empty() {
        return seen;
    }
    let mounts = |pod: &PodId| {
        graph
            .services
            .get(&pod.service)
            .is_some_and(|service| service.scale != Scale::Global && service.volumes().any(|mounted| mounted == key))
    };
    away.iter().filter(|(pod, _)| mounts(pod)).map(|(_, host)| (*host).clone()).collect()
}
