//! What is there of a project, sorted by what it means: a pod's container, one too many, an orphan.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::Scale;
use crate::ids::{HostName, PodId};
use crate::observed::{ContainerState, Observed, ObservedContainer};

use super::{Desired, Reason};

/// A container and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) host: &'a HostName,
    pub(super) container: &'a ObservedContainer,
}

/// A container that has to go.
#[derive(Debug, Clone)]
pub(super) struct Surplus<'a> {
    pub(super) found: Found<'a>,
    pub(super) reason: Reason,
}

/// Everything observed of a project beside what shall be.
pub(super) struct Survey<'a> {
    /// Pods of enabled services on hosts that answer: the host each is assigned to, and its container if there is one.
    pub(super) pods: BTreeMap<&'a PodId, (&'a HostName, Option<Found<'a>>)>,
    /// Containers that have to go.
    pub(super) surplus: Vec<Surplus<'a>>,
    /// Containers whose service the file does not have, and that stay.
    pub(super) orphans: Vec<Found<'a>>,
    /// Containers that are none of this plan's business: one-offs, and services that are not enabled.
    pub(super) others: Vec<Found<'a>>,
    /// Pods whose host does not answer.
    pub(super) away: Vec<(&'a PodId, &'a HostName)>,
}

/// Sorts what is observed by what `desired` wants of it.
pub(super) fn survey<'a>(desired: &'a Desired, observed: &'a Observed) -> Survey<'a> {
    let mut found = Survey {
        pods: BTreeMap::new(),
        surplus: Vec::new(),
        orphans: Vec::new(),
        others: Vec::new(),
        away: Vec::new(),
    };
    let enabled = desired.assignments.pods.iter().filter(|(pod, _)| desired.enabled.contains(&pod.service));
    for (pod, host) in enabled {
        if observed.hosts.contains_key(host) {
            found.pods.insert(pod, (host, None));
        } else {
            found.away.push((pod, host));
        }
    }
    let unplaced: BTreeSet<&PodId> = desired.assignments.unplaced.iter().map(|unplaced| &unplaced.pod).collect();
    let mut candidates: BTreeMap<PodId, Vec<Found<'a>>> = BTreeMap::new();
    for (host, seen) in &observed.hosts {
        for container in seen.containers.values() {
            let here = Found { host, container };
            match belongs(desired, &unplaced, container) {
                Belongs::Pod(pod) => candidates.entry(pod).or_default().push(here),
                Belongs::Surplus(reason) => found.surplus.push(Surplus { found: here, reason }),
                Belongs::Orphan if desired.remove_orphans && is_old_enough(desired, container) => {
                    let reason = if container.oneoff { Reason::OneoffOver } else { Reason::Orphan };
                    found.surplus.push(Surplus { found: here, reason });
                }
                Belongs::Orphan => found.orphans.push(here),
                Belongs::Other => found.others.push(here),
            }
        }
    }
    for (pod, containers) in candidates {
        found.choose(desired, &pod, containers);
    }
    found
}

/// Returns whether an orphan was there when somebody asked for their removal: one-offs come and go also after that.
fn is_old_enough(desired: &Desired, container: &ObservedContainer) -> bool {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let asked = desired.oneoffs_before.as_deref().and_then(time);
    !container.oneoff || asked.zip(time(&container.created_at)).is_some_and(|(asked, made)| made < asked)
}

enum Belongs {
    Pod(PodId),
    Surplus(Reason),
    Orphan,
    Other,
}

fn belongs(desired: &Desired, unplaced: &BTreeSet<&PodId>, container: &ObservedContainer) -> Belongs {
    let Some(name) = &container.service else { return Belongs::Orphan };
    if container.oneoff {
        // Whoever made it has seen its end, or will remove it himself.
        // Helpers go with what they help.
        let is_over = matches!(container.state, ContainerState::Exited { .. } | ContainerState::Dead)
            && !container.helps_oneoff();
        return if is_over { Belongs::Orphan } else { Belongs::Other };
    }
    let part = container.part();
    let front = part.as_ref().map_or(name, |part| &part.of);
    if desired.graph.disabled.contains(front) {
        return Belongs::Other;
    }
    let Some(service) = desired.graph.services.get(name) else {
        return match desired.graph.services.contains_key(front) {
            // Its pod goes on without it.
            true if desired.enabled.contains(front) => Belongs::Surplus(Reason::NoPart { of: front.clone() }),
            true => Belongs::Other,
            false => Belongs::Orphan,
        };
    };
    if !desired.enabled.contains(name) {
        return Belongs::Other;
    }
    let Some(pod) = container.pod() else { return Belongs::Surplus(Reason::HalfMade) };
    if desired.assignments.pods.contains_key(&pod) {
        return Belongs::Pod(pod);
    }
    match service.scale {
        // A pod that no host can take keeps the container that it has.
        _ if unplaced.contains(&pod) => Belongs::Other,
        Scale::Replicas(to) => Belongs::Surplus(Reason::ScaledDown { to }),
        Scale::Global => {
            let to = desired.assignments.pods.keys().filter(|other| other.service == pod.service).count();
            Belongs::Surplus(Reason::ScaledDown { to: u32::try_from(to).unwrap_or(u32::MAX) })
        }
    }
}

impl<'a> Survey<'a> {
    /// Makes the best of `containers` the pod's; the others have to go.
    fn choose(&mut self, desired: &Desired, pod: &PodId, mut containers: Vec<Found<'a>>) {
        let Some((assigned, slot)) = self.pods.get_mut(pod) else {
            // The pod's host does not answer: nobody can say whether what is seen elsewhere is still needed.
            return self.others.append(&mut containers);
        };
        let assigned = *assigned;
        containers.sort_by_key(|found| merit(desired, pod, assigned, *found));
        *slot = containers.pop();
        let moved = |found: &Found<'_>| found.host != assigned;
        self.surplus.extend(containers.into_iter().map(|found| {
            let reason = if moved(&found) { Reason::Moved { to: assigned.clone() } } else { Reason::HalfMade };
            Surplus { found, reason }
        }));
    }
}

/// Orders the containers that say they are `pod`; the greatest is kept.
fn merit<'a>(
    desired: &Desired,
    pod: &PodId,
    assigned: &HostName,
    found: Found<'a>,
) -> (bool, bool, bool, bool, bool, &'a str, &'a str) {
    let container = found.container;
    let wanted = desired.graph.services.get(&pod.service).map(|service| service.spec_hash.as_str());
    let usable = !matches!(container.state, ContainerState::Dead | ContainerState::Removing);
    (
        usable,
        found.host == assigned,
        wanted.is_some() && container.spec_hash.as_deref() == wanted,
        container.is_running(),
        container.name == desired.graph.container_name(pod),
        &container.created_at,
        &container.id,
    )
}

/// The containers that count as their pods' where those are assigned.
pub(super) struct Containers<'a>(BTreeMap<PodId, Found<'a>>);

impl<'a> Containers<'a> {
    /// Finds them all at once.
    pub(super) fn of(desired: &'a Desired, observed: &'a Observed) -> Self {
        Self::best(desired, observed, |assigned, host| assigned == host)
    }

    /// Finds also those that are still on the host where their pods were before: what somebody ended by hand is not replaced.
    pub(super) fn anywhere(desired: &'a Desired, observed: &'a Observed) -> Self {
        Self::best(desired, observed, |_, _| true)
    }

    fn best(desired: &'a Desired, observed: &'a Observed, counts: impl Fn(&HostName, &HostName) -> bool) -> Self {
        let mut best: BTreeMap<PodId, Found<'a>> = BTreeMap::new();
        for (host, seen) in &observed.hosts {
            for container in seen.containers.values() {
                let Some(pod) = container.pod() else { continue };
                let Some(assigned) = desired.assignments.pods.get(&pod).filter(|assigned| counts(assigned, host))
                else {
                    continue;
                };
                let here = Found { host, container };
                let merit = |found| merit(desired, &pod, assigned, found);
                if best.get(&pod).is_none_or(|there| merit(here) >= merit(*there)) {
                    best.insert(pod, here);
                }
            }
        }
        Self(best)
    }

    /// Returns the container of one pod, if it is there.
    pub(super) fn of_pod(&self, pod: &PodId) -> Option<&'a ObservedContainer> {
        self.0.get(pod).map(|found| found.container)
    }
}
