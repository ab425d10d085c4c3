//! Which hosts can take a unit, and why the others cannot.
//!
//! Modelled after moby/swarmkit:manager/scheduler/filter.go, whose `Explain` counts hosts by reason.

use std::collections::BTreeMap;
use std::fmt;

use crate::graph::{Constraint, Graph, Scale, Service};
use crate::ids::{HostName, PodId, ResourceKey};

use super::unit::Unit;
use super::usage::{HostUsage, Usage};
use super::{HostFacts, Kinds};

/// Why a host cannot take a unit. `Display` is about one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    NotAmong,
    Draining,
    Platform { wanted: String, has: String },
    Constraint(String),
    Volume { volume: ResourceKey, homes: Vec<HostName> },
    MostPerHost(u32),
    Port { port: String, by: String },
    Cpus { needed: i64, free: i64 },
    Memory { needed: i64, free: i64 },
    NoDevice(String),
    Devices { kind: String, needed: i64, free: i64 },
}

impl Refusal {
    /// Returns whether the host is out by rule, not for want of room: then a global service does not miss it.
    pub(super) fn excludes(&self) -> bool {
        matches!(self, Self::NotAmong | Self::Draining | Self::Platform { .. } | Self::Constraint(_))
    }

    /// Returns the reason for `subject` (a host's name, or how many hosts); equal reasons give equal text.
    fn about(&self, subject: &str, many: bool) -> String {
        match self {
            Self::NotAmong => format!("{subject} {} not among x-hosts", if many { "are" } else { "is" }),
            Self::Draining => format!("{subject} {} draining", if many { "are" } else { "is" }),
            Self::Platform { wanted, .. } => format!("platform `{wanted}` not on {subject}"),
            Self::Constraint(text) => format!("constraint `{text}` not met on {subject}"),
            Self::Volume { volume, .. } => format!("volume `{volume}` not on {subject}"),
            Self::MostPerHost(most) => format!("limit of {most} a host reached on {subject}"),
            Self::Port { port, .. } => format!("port {port} taken on {subject}"),
            Self::Cpus { .. } => format!("CPUs short on {subject}"),
            Self::Memory { .. } => format!("memory short on {subject}"),
            Self::NoDevice(what) => format!("no device for `{what}` on {subject}"),
            Self::Devices { kind, .. } => format!("devices `{kind}` short on {subject}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAmong => f.write_str("it is not among x-hosts"),
            Self::Draining => f.write_str("it is draining"),
            Self::Platform { wanted, has } => write!(f, "platform `{wanted}` wanted, it is `{has}`"),
            Self::Constraint(text) => write!(f, "constraint `{text}` not met"),
            Self::Volume { volume, homes } => {
                let homes: Vec<String> = homes.iter().map(|host| format!("`{host}`")).collect();
                write!(f, "volume `{volume}` is on {}", homes.join(", "))
            }
            Self::MostPerHost(most) => write!(f, "limit of {most} replicas a host reached"),
            Self::Port { port, by } => write!(f, "port {port} taken by {by}"),
            Self::Cpus { needed, free } => write!(f, "CPUs short: {} needed, {} free", cpus(*needed), cpus(*free)),
            Self::Memory { needed, free } => {
                write!(f, "memory short: {} MiB needed, {} MiB free", needed >> 20, free >> 20)
            }
            Self::NoDevice(what) => {
                write!(
                    f,
                    "no device for `{what}`: its engine has neither a runtime nor `node-generic-resources` for it"
                )
            }
            Self::Devices { kind, needed, free } => write!(f, "devices `{kind}` short: {needed} needed, {free} free"),
        }
    }
}

/// Billionths of a CPU as a decimal number of two places.
fn cpus(nano: i64) -> String {
    format!("{}.{:02}", nano / 1_000_000_000, nano.unsigned_abs() / 10_000_000 % 100)
}

/// Returns all refusals in one line, equal ones counted.
pub(super) fn summary(refusals: &BTreeMap<HostName, Refusal>) -> String {
    if refusals.is_empty() {
        return "there is no host".to_owned();
    }
    let mut groups: BTreeMap<String, Vec<(&HostName, &Refusal)>> = BTreeMap::new();
    for (host, why) in refusals {
        groups.entry(why.about("", false)).or_default().push((host, why));
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let lines = groups.iter().map(|group| match group.as_slice() {
        [(host, why)] => why.about(&format!("`{host}`"), false),
        [(_, why), ..] => why.about(&format!("{} hosts", group.len()), true),
        [] => String::new(),
    });
    lines.collect::<Vec<_>>().join(", ")
}

/// The filters, with what they look at.
pub(super) struct Filters<'a> {
    pub(super) graph: &'a Graph,
    pub(super) hosts: &'a BTreeMap<HostName, HostFacts>,
    /// Services with a number of replicas by the volumes that they mount.
    users: BTreeMap<&'a ResourceKey, Vec<&'a Service>>,
}

impl<'a> Filters<'a> {
    pub(super) fn new(graph: &'a Graph, hosts: &'a BTreeMap<HostName, HostFacts>) -> Self {
        let mut users: BTreeMap<&ResourceKey, Vec<&Service>> = BTreeMap::new();
        for service in graph.services.values().filter(|service| service.scale != Scale::Global) {
            for volume in service.volumes() {
                users.entry(volume).or_default().push(service);
            }
        }
        Self { graph, hosts, users }
    }

    /// Returns why `host` cannot take `unit`, or `None` if it can.
    pub(super) fn refusal(&self, unit: &Unit, host: &HostName, usage: &Usage<'_>) -> Option<Refusal> {
        if self.hosts.get(host).is_some_and(|facts| facts.excluded) {
            return Some(Refusal::NotAmong);
        }
        if self.hosts.get(host).is_some_and(|facts| facts.draining) {
            return Some(Refusal::Draining);
        }
        self.refusal_but_draining(unit, host, usage)
    }

    /// The same without looking at whether the host is draining.
    pub(super) fn refusal_but_draining(&self, unit: &Unit, host: &HostName, usage: &Usage<'_>) -> Option<Refusal> {
        let facts = self.hosts.get(host)?;
        let services = || unit.pods.iter().filter_map(|pod| Some((pod, self.graph.services.get(&pod.service)?)));
        services()
            .find_map(|(_, service)| by_rule(service, host, facts))
            .or_else(|| services().find_map(|(_, service)| self.by_volume(service, host, usage)))
            .or_else(|| by_room(services(), facts, usage.of(host)))
    }

    /// A service with a number of replicas runs where its local volumes are. A volume that is not made yet will be
    /// shared by all services that mount it, so its first host must suit them all.
    fn by_volume(&self, service: &Service, host: &HostName, usage: &Usage<'_>) -> Option<Refusal> {
        if service.scale == Scale::Global {
            return None;
        }
        service.volumes().find_map(|volume| match usage.home(volume) {
            Some(homes) if homes.contains(host) => None,
            Some(homes) => Some(Refusal::Volume { volume: volume.clone(), homes: homes.iter().cloned().collect() }),
            None if self.graph.volumes.get(volume).is_some_and(crate::graph::Volume::is_local) => {
                self.users(volume).find_map(|user| by_rule(user, host, self.hosts.get(host)?))
            }
            None => None,
        })
    }

    fn users(&self, volume: &ResourceKey) -> impl Iterator<Item = &'a Service> {
        self.users.get(volume).into_iter().flatten().copied()
    }
}

/// What does not depend on what else runs there: platform and constraints.
fn by_rule(service: &Service, name: &HostName, facts: &HostFacts) -> Option<Refusal> {
    if let Some(wanted) = &service.container.platform
        && !platform_fits(wanted, facts)
    {
        return Some(Refusal::Platform { wanted: wanted.clone(), has: format!("{}/{}", facts.os, facts.arch) });
    }
    let broken = service.placement.constraints.iter().find(|constraint| !holds(constraint, name, facts))?;
    let sign = if broken.equal { "==" } else { "!=" };
    Some(Refusal::Constraint(format!("{} {sign} {}", broken.key, broken.value)))
}

/// What is free there: replicas of the service, host ports, CPUs, memory and devices. Sizes of 0 are not known and not checked.
fn by_room<'a>(
    services: impl Iterator<Item = (&'a PodId, &'a Service)>,
    facts: &HostFacts,
    usage: &HostUsage,
) -> Option<Refusal> {
    // What the pods of the unit that were looked at before take.
    let mut added = HostUsage::default();
    for (pod, service) in services {
        let free = (
            facts.nano_cpus - facts.reserved.0 - usage.nano_cpus - added.nano_cpus,
            facts.memory - facts.reserved.1 - usage.memory - added.memory,
        );
        let resources = &service.container.resources;
        if let Some(most) = service.placement.max_per_host
            && usage.count(&pod.service) + added.count(&pod.service) >= most.max(1)
        {
            return Some(Refusal::MostPerHost(most));
        }
        if let Some(needed) = resources.reserved_nano_cpus
            && facts.nano_cpus > 0
            && needed > free.0
        {
            return Some(Refusal::Cpus { needed, free: free.0.max(0) });
        }
        if let Some(needed) = resources.reserved_memory
            && facts.memory > 0
            && needed > free.1
        {
            return Some(Refusal::Memory { needed, free: free.1.max(0) });
        }
        if let Some(refusal) = by_devices(service, facts, &usage.devices, &added.devices) {
            return Some(refusal);
        }
        if let Err((port, by)) = added.add(service, pod, usage, facts) {
            return Some(Refusal::Port { port, by });
        }
    }
    None
}

/// Devices that the host has not, or has given to others.
fn by_devices(service: &Service, facts: &HostFacts, usage: &Kinds, added: &Kinds) -> Option<Refusal> {
    let needs = match facts.devices.needs(&service.container) {
        Ok(needs) => needs,
        Err(what) => return Some(Refusal::NoDevice(what)),
    };
    needs.into_iter().find_map(|(kind, needed)| {
        let of = |kinds: &Kinds| kinds.get(&kind).copied().unwrap_or_default();
        let free = of(&facts.devices.kinds) - of(&facts.reserved_devices) - of(usage) - of(added);
        (needed > free).then(|| Refusal::Devices { kind, needed, free: free.max(0) })
    })
}

/// Returns whether a constraint holds on a host; a label that is not there is empty, case does not matter.
///
/// `node.hostname` is the machine's own name or the one that orch knows the host by. orch's hosts have no roles: each
/// counts as manager and as worker, so that files written for Swarm run. Source: moby/swarmkit:manager/constraint.
fn holds(constraint: &Constraint, name: &HostName, facts: &HostFacts) -> bool {
    let Constraint { key, equal, value } = constraint;
    let same = |text: &str| text.eq_ignore_ascii_case(value);
    if key == "node.role" {
        return same("manager") || same("worker");
    }
    let found = match key.as_str() {
        "node.id" => same(&facts.id),
        "node.hostname" => same(&facts.hostname) || same(name.as_str()),
        "node.platform.os" => same(&facts.os),
        "node.platform.arch" => docker_arch(&facts.arch).eq_ignore_ascii_case(docker_arch(value)),
        _ => same(label(key, facts)),
    };
    found == *equal
}

/// Returns the label that `node.labels.X` or `engine.labels.X` means on a host; empty if it has none.
pub(super) fn label<'f>(key: &str, facts: &'f HostFacts) -> &'f str {
    let found = match (key.strip_prefix("node.labels."), key.strip_prefix("engine.labels.")) {
        (Some(name), _) => facts.labels.get(name),
        (_, Some(name)) => facts.engine_labels.get(name),
        _ => None,
    };
    found.map_or("", String::as_str)
}

/// Compares `os/arch[/variant]` with a host; what the engine did not say fits.
fn platform_fits(wanted: &str, facts: &HostFacts) -> bool {
    let mut parts = wanted.split('/');
    let (os, arch) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let fits = |wanted: &str, has: &str| wanted.is_empty() || has.is_empty() || wanted.eq_ignore_ascii_case(has);
    fits(os, &facts.os) && fits(docker_arch(arch), docker_arch(&facts.arch))
}

/// The kernel's word for a machine in Docker's spelling.
fn docker_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" | "armhf" => "arm",
        "i386" | "i686" => "386",
        other => other,
    }
}
