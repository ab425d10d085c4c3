//! Where each pod runs: filter the hosts, score what is left, keep what runs where it runs. Pure and deterministic.
//!
//! Start at [`place`]. What is placed at once is a [`unit::Unit`]: a pod with those that share its network namespace.
//! `filter` says of a host why it cannot take a unit, `score` which of the others is best, `usage` counts what is given
//! out. Nothing here may look at anything but its arguments: the same input gives the same answer on every host.

mod devices;
mod filter;
mod ports;
mod score;
mod unit;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::graph::Graph;
use crate::ids::{HostName, PodId, ResourceKey};
use crate::observed::Observed;

pub use devices::{Devices, Kinds};
use filter::{Filters, Refusal};
pub use ports::{Listening, PortHolder, TakenPort, meet};
use unit::Unit;
use usage::Usage;

/// A host as the placer sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    /// Labels that the user gave the host (`node.labels.*`).
    pub labels: BTreeMap<String, String>,
    /// Labels of its engine (`engine.labels.*`).
    pub engine_labels: BTreeMap<String, String>,
    /// The machine's own name (`node.hostname`).
    pub hostname: String,
    /// Stable id of the engine (`node.id`).
    pub id: String,
    /// `linux`.
    pub os: String,
    /// `x86_64`, `aarch64`, as the engine says; compared with their Docker names too.
    pub arch: String,
    /// CPUs, in billionths.
    pub nano_cpus: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Reserved by pods of other projects: CPUs in billionths, memory in bytes.
    pub reserved: (i64, i64),
    /// What the engine says of its machine's devices.
    #[serde(skip_serializing_if = "Devices::is_unknown")]
    pub devices: Devices,
    /// Devices that pods of other projects take.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved_devices: Kinds,
    /// Takes no new pods.
    pub draining: bool,
    /// The project is for other hosts only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
    /// Host ports that others than the project have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<TakenPort>,
}

/// The placer's answer: a host for each pod, or why not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assignments {
    /// Host of each placed pod. Pods of global services are numbered from 1 in the order of their hosts' names; a host
    /// keeps its number, one that joins gets the lowest that is free.
    #[serde(with = "crate::place::pods_as_list")]
    pub pods: BTreeMap<PodId, HostName>,
    /// Pods without a host; those that were on a host that is away are in [`Assignments::pods`] with it all the same.
    pub unplaced: Vec<Unplaced>,
}

impl Assignments {
    /// Returns the same without what was placed on hosts that are not among `members`; none: all are.
    #[must_use]
    pub fn on(&self, members: &BTreeSet<HostName>) -> Self {
        let stays = |host: &HostName| members.is_empty() || members.contains(host);
        let pods = self.pods.iter().filter(|(_, host)| stays(host));
        Self { pods: pods.map(|(pod, host)| (pod.clone(), host.clone())).collect(), unplaced: self.unplaced.clone() }
    }
}

/// A pod that no host can take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    /// The pod.
    pub pod: PodId,
    /// Per host, why not.
    pub refusals: BTreeMap<HostName, String>,
    /// The same in one line, equal reasons counted: ``memory short on 2 hosts, `b` is draining``.
    #[serde(default)]
    pub summary: String,
    /// What it must wait for, wherever there is room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
}

/// A local volume on a host that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blocked {
    /// The volume.
    pub volume: ResourceKey,
    /// The host.
    pub host: HostName,
}

/// Hosts up to which each is named with its own reason; of more, equal reasons are counted.
const NAMED_HOSTS: usize = 5;

impl Unplaced {
    /// Returns a sentence on `pods`, which are there for the same reason: that no host can take them, and why, or what they
    /// wait for and what can be done.
    pub fn sentence(&self, pods: &str, many: bool) -> String {
        let Some(Blocked { volume, host }) = &self.blocked else {
            return format!("no host can take {pods}: {}", self.explain());
        };
        format!(
            "{pods} {} blocked: volume `{volume}` is on `{host}`, which does not answer; bring `{host}` back, or give up \
             what the volume holds: `orch host rm --force {host}`",
            if many { "are" } else { "is" }
        )
    }

    /// Returns why no host can take the pod: host by host, or of many hosts equal reasons counted.
    pub fn explain(&self) -> String {
        if self.refusals.is_empty() || self.refusals.len() > NAMED_HOSTS {
            return self.summary.clone();
        }
        let each = self.refusals.iter().map(|(host, why)| format!("`{host}`: {why}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// Chooses a host for every pod of `graph`.
///
/// A pod stays where `previous` put it, or where it is observed when nothing is known of it, as long as that host can
/// take it; a pod on a draining host moves if another host can take it and stays if none can. Services that mount a
/// volume local to a host run where the volume is, and are not placed at all while that host is away: an empty new
/// volume elsewhere would look like lost data. Ties are broken by the hosts' names.
pub fn place(
    graph: &Graph,
    hosts: &BTreeMap<HostName, HostFacts>,
    previous: &Assignments,
    observed: &Observed,
) -> Assignments {
    let mut placer = Placer::new(graph, hosts, previous, observed);
    let (fixed, global) = unit::units(graph);
    let mut homeless = Vec::new();
    for unit in fixed {
        match placer.home(&unit) {
            Some(host) if placer.refusal(&unit, &host).is_none() => placer.give(&unit, &host),
            home => homeless.push((unit, home)),
        }
    }
    for services in global {
        placer.place_everywhere(&services);
    }
    for (unit, home) in homeless {
        placer.place_one(&unit, home.as_ref());
    }
    placer.answer
}

/// The state of one call of [`place`].
struct Placer<'a> {
    filters: Filters<'a>,
    hosts: &'a BTreeMap<HostName, HostFacts>,
    previous: &'a Assignments,
    observed: &'a Observed,
    usage: Usage<'a>,
    /// The first host that runs each pod, else the first that has a container of it.
    seen: BTreeMap<PodId, (&'a HostName, bool)>,
    answer: Assignments,
}

impl<'a> Placer<'a> {
    fn new(
        graph: &'a Graph,
        hosts: &'a BTreeMap<HostName, HostFacts>,
        previous: &'a Assignments,
        observed: &'a Observed,
    ) -> Self {
        let mut seen: BTreeMap<PodId, (&HostName, bool)> = BTreeMap::new();
        for (name, host) in observed.hosts.iter().filter(|(name, _)| hosts.contains_key(*name)) {
            for container in host.containers.values() {
                let Some(pod) = container.pod() else { continue };
                let runs = container.is_running();
                let better = seen.get(&pod).is_none_or(|(_, known)| runs && !known);
                if better {
                    seen.insert(pod, (name, runs));
                }
            }
        }
        Self {
            seen,
            filters: Filters::new(graph, hosts),
            hosts,
            previous,
            observed,
            usage: Usage::new(graph, hosts, previous, observed),
            answer: Assignments::default(),
        }
    }

    /// Returns where a unit is: by the last answer, else by what runs, else by what is there.
    fn home(&self, unit: &Unit) -> Option<HostName> {
        let root = unit.root();
        if let Some(host) = self.previous.pods.get(root) {
            return self.hosts.contains_key(host).then(|| host.clone());
        }
        self.seen.get(root).map(|(host, _)| (*host).clone())
    }

    fn refusal(&self, unit: &Unit, host: &HostName) -> Option<Refusal> {
        self.filters.refusal(unit, host, &self.usage)
    }

    fn give(&mut self, unit: &Unit, host: &HostName) {
        self.usage.give(unit, host);
        self.answer.pods.extend(unit.pods.iter().map(|pod| (pod.clone(), host.clone())));
    }

    /// Places a unit on the best host that takes it; `home` is where it runs and may not stay if it can be helped.
    fn place_one(&mut self, unit: &Unit, home: Option<&HostName>) {
        let mut refusals = BTreeMap::new();
        let mut best = None;
        for name in self.hosts.keys() {
            if let Some(refusal) = self.refusal(unit, name) {
                refusals.insert(name.clone(), refusal);
                continue;
            }
            let score = score::score(&self.filters, &self.usage, self.observed, unit, name);
            if best.as_ref().is_none_or(|(least, _)| score < *least) {
                best = Some((score, name.clone()));
            }
        }
        if let Some((_, name)) = best {
            return self.give(unit, &name);
        }
        // Emptying a host must not stop what has nowhere else to go.
        if let Some(home) = home
            && matches!(refusals.get(home), Some(Refusal::Draining))
            && self.filters.refusal_but_draining(unit, home, &self.usage).is_none()
        {
            return self.give(unit, home);
        }
        self.refuse(unit, &refusals);
    }

    fn refuse(&mut self, unit: &Unit, refusals: &BTreeMap<HostName, Refusal>) {
        let summary = filter::summary(refusals);
        let texts: BTreeMap<_, _> = refusals.iter().map(|(host, why)| (host.clone(), why.to_string())).collect();
        let blocked = self.blocked(unit);
        // It may still run on a host that is away: when that one is back, it must find its pod wanted.
        if let Some(away) = self.previous.pods.get(unit.root()).filter(|host| !self.hosts.contains_key(*host)) {
            self.answer.pods.extend(unit.pods.iter().map(|pod| (pod.clone(), away.clone())));
        }
        self.answer.unplaced.extend(unit.pods.iter().map(|pod| Unplaced {
            pod: pod.clone(),
            refusals: texts.clone(),
            summary: summary.clone(),
            blocked: blocked.clone(),
        }));
    }

    /// Returns the local volume that keeps a unit from running anywhere but on a host that is away.
    fn blocked(&self, unit: &Unit) -> Option<Blocked> {
        let host = self.previous.pods.get(unit.root()).filter(|host| !self.hosts.contains_key(*host))?;
        let services = unit.pods.iter().filter_map(|pod| self.filters.graph.services.get(&pod.service));
        let is_there = |volume: &&ResourceKey| self.usage.home(volume).is_some_and(|homes| homes.contains(host));
        let volume = services.flat_map(crate::graph::Service::volumes).find(is_there)?;
        Some(Blocked { volume: volume.clone(), host: host.clone() })
    }

    /// Places services of mode `global` that share one namespace: a unit on every host that their rules allow.
    ///
    /// A host that the rules exclude, or that is draining, is no failure; one that is merely full is.
    fn place_everywhere(&mut self, services: &[crate::ids::ServiceName]) {
        let Some(root) = services.first() else { return };
        let mut numbers = unit::numbers(root, self.hosts, self.previous, self.observed);
        for name in self.hosts.keys() {
            let candidate = Unit::of(services, numbers.of(name));
            match self.refusal(&candidate, name) {
                None => {}
                Some(why) if why.excludes() => continue,
                Some(why) => {
                    self.refuse(&candidate, &BTreeMap::from([(name.clone(), why)]));
                    continue;
                }
            }
            numbers.take(name);
            self.give(&candidate, name);
        }
    }
}

/// JSON has no maps with structured keys: `[[pod, host], …]`.
pub(crate) mod pods_as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::ids::{HostName, PodId};

    pub(crate) fn serialize<S: Serializer>(pods: &BTreeMap<PodId, HostName>, serializer: S) -> Result<S::Ok, S::Error> {
        pods.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<PodId, HostName>, D::Error> {
        Ok(Vec::<(PodId, HostName)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
