//! Networks and volumes: which are missing, which differ, and which are somebody else's.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Network, NetworkMode, Volume};
use crate::ids::{HostName, PodId, ResourceKey, ServiceName};
use crate::observed::{CONFIG_HASH_LABEL, ObservedHost, ObservedNetwork, ObservedVolume, SPEC_HASH_LABEL};

use super::asked::Asked;
use super::survey::{Found, Survey};
use super::{Desired, Failure, FailureKind};

/// What must happen to the networks and volumes of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes<'a> {
    /// Networks to be made, by engine name; `true`: after the one that is there was removed.
    pub(super) networks: BTreeMap<&'a str, (&'a ResourceKey, bool)>,
    /// Volumes to be made.
    pub(super) volumes: BTreeSet<&'a ResourceKey>,
}

impl<'a> Changes<'a> {
    /// Returns the engine names of the networks that are to be made: no container that was on one can stay.
    pub(super) fn lost(&self) -> BTreeSet<&'a str> {
        self.networks.keys().copied().collect()
    }
}

/// What the user is told on the way.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) notes: Vec<String>,
    pub(super) failures: Vec<Failure>,
    /// Where what is said of resources is so: ` on host …`.
    at: String,
}

impl Messages {
    pub(super) fn fail(&mut self, kind: FailureKind, message: String) {
        self.failures.push(Failure { kind, message, service: None });
    }

    pub(super) fn fail_of(&mut self, service: &ServiceName, kind: FailureKind, message: String) {
        self.failures.push(Failure { kind, message, service: Some(service.clone()) });
    }
}

/// Compares the networks and volumes that pods of each host need with those that are there.
pub(super) fn changes<'a>(
    desired: &'a Desired,
    survey: &Survey<'a>,
    hosts: &'a BTreeMap<HostName, ObservedHost>,
    messages: &mut Messages,
) -> BTreeMap<&'a HostName, Changes<'a>> {
    let mut answer: BTreeMap<&HostName, Changes<'_>> = BTreeMap::new();
    for (name, seen) in hosts {
        // One host needs no name.
        messages.at = if hosts.len() > 1 { format!(" on host `{name}`") } else { String::new() };
        let (networks, volumes) = needed(desired, survey, name);
        let here = answer.entry(name).or_default();
        for key in networks {
            let Some(network) = desired.graph.networks.get(key) else { continue };
            match compare_network(desired, key, network, seen.networks.get(&network.name), messages) {
                Verdict::Fine => {}
                Verdict::Missing => drop(here.networks.insert(&network.name, (key, false))),
                Verdict::Differs => {
                    if may_remove(survey, name, &network.name, messages) {
                        here.networks.insert(&network.name, (key, true));
                    }
                }
            }
        }
        for key in volumes {
            let Some(volume) = desired.graph.volumes.get(key) else { continue };
            if is_volume_missing(desired, key, volume, seen, messages) {
                here.volumes.insert(key);
            }
        }
    }
    answer
}

/// Returns the networks and volumes that pods assigned to `host` use, but for those that were removed by hand: what only
/// they need may be missing.
fn needed<'a>(
    desired: &'a Desired,
    survey: &Survey<'a>,
    host: &HostName,
) -> (BTreeSet<&'a ResourceKey>, BTreeSet<&'a ResourceKey>) {
    let (mut networks, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    let is_gone = |pod: &PodId, found: &Option<Found<'_>>| {
        found.is_none() && matches!(desired.asked.get(pod), Some(Asked::Removed { .. }))
    };
    let here = survey.pods.iter().filter(|(pod, (assigned, found))| *assigned == host && !is_gone(pod, found));
    let here = here.map(|(pod, _)| &pod.service);
    for service in here.collect::<BTreeSet<_>>() {
        let Some(service) = desired.graph.services.get(service) else { continue };
        if let NetworkMode::Networks(attachments) = &service.network {
            networks.extend(attachments.iter().map(|attachment| &attachment.network));
        }
        volumes.extend(service.volumes());
    }
    (networks, volumes)
}

enum Verdict {
    Fine,
    Missing,
    Differs,
}

fn compare_network(
    desired: &Desired,
    key: &ResourceKey,
    network: &Network,
    seen: Option<&ObservedNetwork>,
    messages: &mut Messages,
) -> Verdict {
    let name = &network.name;
    match seen {
        None if network.external => {
            messages.fail(
                FailureKind::Blocked,
                format!("network {name} declared as external, but could not be found{}", messages.at),
            );
            Verdict::Fine
        }
        None => Verdict::Missing,
        Some(_) if network.external => Verdict::Fine,
        Some(seen) => {
            let ours = seen.belongs_to(&desired.graph.project);
            let difference = difference(desired, key, network, seen);
            if ours {
                let differs = difference.is_some()
                    || is_other_spec(&seen.labels, &network.spec_hash)
                    || is_other_compose(&seen.labels, &network.compose_hash);
                return if differs { Verdict::Differs } else { Verdict::Fine };
            }
            messages.foreign_network(desired, name, difference);
            Verdict::Fine
        }
    }
}

impl Messages {
    /// A network of the wanted name that is not the project's: used where it is what is wanted, else refused.
    fn foreign_network(&mut self, desired: &Desired, name: &str, difference: Option<String>) {
        let start = format!("network {name} exists but was not created for project \"{}\"", desired.graph.project);
        match difference {
            None => self.notes.push(format!("{start}: set `external: true` to use an existing network")),
            Some(what) => self.fail(FailureKind::Blocked, format!(
                "{start} and {what}: remove it, give this one another `name`, or set `external: true` to use it as it is"
            )),
        }
    }
}

/// Returns in what a network differs from what shall be; options and labels are for [`is_other_spec`].
fn difference(desired: &Desired, key: &ResourceKey, network: &Network, seen: &ObservedNetwork) -> Option<String> {
    let driver = network.driver.as_deref().unwrap_or("bridge");
    if seen.driver != driver {
        return Some(format!("has the driver {} instead of {driver}", seen.driver));
    }
    if seen.internal != network.internal {
        return Some(format!("is {}internal", if seen.internal { "" } else { "not " }));
    }
    if network.enable_ipv6.is_some_and(|wanted| wanted != seen.ipv6) {
        return Some(format!("is with{} IPv6", if seen.ipv6 { "" } else { "out" }));
    }
    let addresses = desired.addresses.networks.get(key)?;
    if seen.subnet != Some(addresses.subnet) {
        let has = seen.subnet.map_or_else(|| "no subnet".to_owned(), |subnet| format!("the subnet {subnet}"));
        return Some(format!("has {has} instead of {}", addresses.subnet));
    }
    if let Some(other) = seen.gateway.filter(|gateway| *gateway != addresses.gateway) {
        return Some(format!("has the gateway {other} instead of {}", addresses.gateway));
    }
    None
}

/// Returns whether something was made for another spec than `wanted`; what does not say counts as made for it.
fn is_other_spec(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    labels.get(SPEC_HASH_LABEL).is_some_and(|made_for| !wanted.is_empty() && made_for != wanted)
}

/// Returns whether Docker Compose made something for another configuration than it sees now. Its hash counts where orch's is not
/// there only.
fn is_other_compose(labels: &BTreeMap<String, String>, now: &str) -> bool {
    let made_for = labels.get(CONFIG_HASH_LABEL).filter(|_| !labels.contains_key(SPEC_HASH_LABEL));
    made_for.is_some_and(|made_for| !now.is_empty() && made_for != now)
}

/// Returns whether a network can be made anew: nothing that this plan leaves alone may be running on it.
fn may_remove(survey: &Survey<'_>, host: &HostName, network: &str, messages: &mut Messages) -> bool {
    let left_alone = survey.others.iter().chain(&survey.orphans);
    let blocking: Vec<&str> = left_alone
        .filter(|found| found.host == host && found.container.networks.contains_key(network))
        .filter(|found| found.container.state.is_active())
        .map(|found| found.container.name.as_str())
        .collect();
    if blocking.is_empty() {
        return true;
    }
    messages.fail(FailureKind::Blocked, format!(
        "network {network} must be made anew, but {} on it would be cut off: stop that first, or name its service in \
         `up`, or remove it with --remove-orphans",
        blocking.join(", ")
    ));
    false
}

fn is_volume_missing(
    desired: &Desired,
    key: &ResourceKey,
    volume: &Volume,
    seen: &ObservedHost,
    messages: &mut Messages,
) -> bool {
    let (name, project) = (&volume.name, &desired.graph.project);
    let Some(there) = seen.volumes.get(name) else {
        if volume.external {
            messages.fail(FailureKind::Blocked, format!("external volume \"{name}\" not found{}", messages.at));
        }
        return !volume.external;
    };
    if volume.external {
        return false;
    }
    if !there.belongs_to(project) {
        messages.notes.push(format!(
            "volume \"{name}\" already exists but was not created for project \"{project}\": \
             use `external: true` to use an existing volume"
        ));
    }
    if let Some(difference) = volume_difference(volume, there) {
        messages.notes.push(format!(
            "volume \"{key}\" {difference}: it is kept as it is, with its data; to have it made anew, save what is in it, \
             then `orch down`, `docker volume rm {name}` and `orch up`"
        ));
    }
    false
}

/// Returns in what a volume differs from what shall be. Nobody but the user may take its data away, so that this is said
/// and not mended.
fn volume_difference(volume: &Volume, there: &ObservedVolume) -> Option<String> {
    let driver = volume.driver.as_deref().unwrap_or("local");
    if there.driver != driver {
        return Some(format!("was made with the driver {} and the file says {driver}", there.driver));
    }
    if is_other_compose(&there.labels, &volume.compose_hash) {
        return Some("was made by Docker Compose for something else than the file says".to_owned());
    }
    is_other_spec(&there.labels, &volume.spec_hash)
        .then(|| "was made with other `driver_opts` than the file says".to_owned())
}
