//! How a change is rolled out where the file says it (`deploy.update_config`): what of it has failed and whether that stops
//! it, what of it is still watched, and which replicas have settled.
//!
//! There is no clock here: how long a container has been ready its own host's agent knows, and says so
//! ([`Rolled`]). What nobody has said yet has not settled, so that a picture which is older than
//! another never lets a rollout run ahead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::graph::{OnFailure, Rollout};
use crate::ids::{PodId, ServiceName};
use crate::model::GoDuration;
use crate::observed::{Observed, ObservedContainer, PodMemory, Rolled};

use super::decide::{Decision, outdated};
use super::resources::Messages;
use super::survey::Survey;
use super::{Desired, FailureKind};

/// Failures in a row of a replica that is as it shall be, after which nobody at a terminal waits any longer for the others of its
/// service to be replaced.
const GIVEN_UP: u32 = 3;

/// Returns the pods that a rollout replaces with `desired`, as far as it is known without their hosts; on those that do not answer
/// what was placed there.
pub fn rolled(desired: &Desired, observed: &Observed, previous: Option<&Desired>) -> BTreeSet<PodId> {
    let graph = &desired.graph;
    let away = previous.into_iter().flat_map(|previous| &previous.assignments.pods);
    let stays = |pod: &PodId, host| desired.assignments.pods.get(pod) == Some(host);
    let away = away.filter(|(pod, host)| !observed.hosts.contains_key(*host) && stays(pod, host)).map(|(pod, _)| pod);
    // With an `up` of the same it is what the one before has not come to.
    let is_new = |pod: &&PodId| {
        desired.rolling_since(&pod.service) == desired.generation
            || previous.is_some_and(|previous| previous.rolled.contains(pod))
    };
    let away = away.filter(is_new).cloned();
    let says = |pod: &PodId| desired.assignments.pods.contains_key(pod) && graph.rollout(&pod.service).is_some();
    outdated(desired, observed).into_iter().chain(away).filter(says).collect()
}

/// Returns since which generation the services that say how they are rolled out are wanted as `desired` has them, where that is an
/// earlier one: an `up` of the same goes on with the rollout.
pub fn rolling_since(desired: &Desired, previous: Option<&Desired>) -> BTreeMap<ServiceName, u64> {
    let Some(previous) = previous else { return BTreeMap::new() };
    let said = desired.graph.services.keys().filter(|name| {
        let is_front = desired.graph.rolled_with(name) == *name;
        is_front && desired.graph.rollout(name).is_some() && parts(desired, name) == parts(previous, name)
    });
    let since = said.map(|name| (name.clone(), previous.rolling_since(name)));
    since.filter(|(_, since)| *since < desired.generation).collect()
}

/// What containers that are rolled with a service are made for.
fn parts<'a>(desired: &'a Desired, front: &ServiceName) -> Vec<(&'a ServiceName, &'a str, u64)> {
    let services = desired.graph.services.iter().filter(|(name, _)| desired.graph.rolled_with(name) == front);
    let anew = |name: &ServiceName| desired.recreate_before.get(name).copied().unwrap_or_default();
    services.map(|(name, service)| (name, service.spec_hash.as_str(), anew(name))).collect()
}

/// The rollouts of a project.
pub(super) struct Rollouts<'a> {
    desired: &'a Desired,
    survey: &'a Survey<'a>,
    memory: &'a BTreeMap<PodId, PodMemory>,
    /// Those with failures, by the service of the file.
    failed: BTreeMap<&'a ServiceName, Failed<'a>>,
    /// Those with a replica that failed before the last `up`, which asked for the same: who it is, and for how long it must be well
    /// before others are replaced.
    trials: BTreeMap<&'a ServiceName, (&'a PodId, Duration)>,
}

/// What has failed of one rollout.
#[derive(Default)]
struct Failed<'a> {
    /// Why, by the number of the replica.
    replicas: BTreeMap<u32, &'a str>,
    /// How many replicas are replaced by it, those that were among them.
    of: usize,
    /// Whether something is left to replace.
    is_open: bool,
    /// Whether it stops for that.
    stops: bool,
}

/// Returns whether it is the change of the file, of an image or of the user's mind that a container is replaced for.
fn is_change(decision: &Decision) -> bool {
    matches!(decision, Decision::Replace(reason) if reason.is_change())
}

impl<'a> Rollouts<'a> {
    /// Looks at them all, given what would become of each pod.
    pub(super) fn new(
        desired: &'a Desired,
        survey: &'a Survey<'a>,
        memory: &'a BTreeMap<PodId, PodMemory>,
        decisions: &BTreeMap<&PodId, Decision>,
    ) -> Self {
        let mut rollouts = Self { desired, survey, memory, failed: BTreeMap::new(), trials: BTreeMap::new() };
        let mut replicas: BTreeMap<&ServiceName, BTreeSet<u32>> = BTreeMap::new();
        let mut failed: BTreeMap<&ServiceName, Failed<'_>> = BTreeMap::new();
        for (service, pod) in rollouts.pods() {
            let is_open = decisions.get(pod).is_some_and(is_change);
            let failure = rollouts.failure(pod);
            if let Some(monitor) = rollouts.trial(service, pod).filter(|_| !is_open) {
                rollouts.trials.entry(service).or_insert((pod, monitor));
            }
            if is_open || failure.is_some() || rollouts.is_made(pod) {
                replicas.entry(service).or_default().insert(pod.number);
                let failed = failed.entry(service).or_default();
                failed.is_open |= is_open;
                if let Some(failure) = failure {
                    failed.replicas.entry(pod.number).or_insert(failure);
                }
            }
        }
        failed.retain(|_, failed| !failed.replicas.is_empty());
        for (service, failed) in &mut failed {
            failed.of = replicas.get(service).map_or(0, BTreeSet::len);
            let stops = |rollout: &Rollout| {
                rollout.on_failure == OnFailure::Pause && rollout.is_too_much(failed.replicas.len(), failed.of)
            };
            failed.stops = desired.graph.rollout(service).is_some_and(stops);
        }
        rollouts.failed = failed;
        rollouts
    }

    /// Returns the pods of services that say how they are rolled out, each with the service of the file that it is rolled with.
    fn pods(&self) -> Vec<(&'a ServiceName, &'a PodId)> {
        let graph = &self.desired.graph;
        let said = graph.services.keys().filter(|name| graph.rollout(name).is_some());
        let pods = said.filter(|name| self.desired.enabled.contains(*name)).flat_map(|name| {
            let with = graph.rolled_with(name);
            // Also those whose host does not answer: what failed there has failed.
            self.desired.assignments.pods.range(PodId::all_of(name)).map(move |(pod, _)| (with, pod))
        });
        pods.collect()
    }

    fn container(&self, pod: &PodId) -> Option<&'a ObservedContainer> {
        self.survey.pods.get(pod).and_then(|(_, found)| found.map(|found| found.container))
    }

    /// Returns whether the pod's container was made by the rollout that the last `up` asked for, or went on with.
    fn is_made(&self, pod: &PodId) -> bool {
        let desired = self.desired;
        let made = self.container(pod).and_then(|container| container.generation).unwrap_or_default();
        if desired.rolled.contains(pod) {
            return made == desired.generation;
        }
        // Of what became of images and of earlier `up`s its own host's agent tells.
        self.told(pod).is_some() && made >= desired.rolling_since(&pod.service)
    }

    fn told(&self, pod: &PodId) -> Option<&'a Rolled> {
        let told = self.memory.get(pod)?.rolled.as_ref()?;
        (told.generation == self.desired.generation).then_some(told)
    }

    /// Returns for how long a replica that failed before this `up` must be well before others are replaced: what it shall be is the
    /// same, so that it would take them down, too. `None`: there is no such failure, or it is well.
    fn trial(&self, service: &ServiceName, pod: &PodId) -> Option<Duration> {
        let desired = self.desired;
        let rollout = desired.graph.rollout(service).filter(|rollout| rollout.on_failure == OnFailure::Pause)?;
        let Rolled { generation, watched, retried, ref failure, rested: _ } = *self.memory.get(pod)?.rolled.as_ref()?;
        // Until its own host's agent has said what has become of it since, what is known of the time before holds.
        let is_before = (desired.rolling_since(service)..desired.generation).contains(&generation);
        let is_tried = if generation == desired.generation {
            retried && !watched && failure.is_none()
        } else {
            is_before && (failure.is_some() || retried && !watched)
        };
        let runs = !desired.unstarted.contains(pod) && !desired.asked.contains_key(pod);
        (is_tried && runs).then_some(rollout.monitor)
    }

    /// Returns why nothing of a service that serves is replaced yet; `None`: nothing has failed before.
    pub(super) fn tries_first(&self, service: &ServiceName) -> Option<String> {
        let (pod, monitor) = self.trials.get(self.desired.graph.rolled_with(service))?;
        let how = if monitor.is_zero() { "ready".to_owned() } else { format!("well for {}", GoDuration(*monitor)) };
        Some(format!("`{pod}` has failed as it shall be, and must be {how} before others are replaced"))
    }

    fn failure(&self, pod: &PodId) -> Option<&'a str> {
        self.told(pod)?.failure.as_deref()
    }

    /// Returns whether what was made for the pod has failed: nothing waits for it any more.
    pub(super) fn has_failed(&self, pod: &PodId) -> bool {
        self.failure(pod).is_some()
    }

    /// Returns whether what was made for the pod takes up a place although it is ready, as `rollout` waits for longer.
    ///
    /// Its own host's agent tells of every pod of a rollout from when it has heard of the record, which is waited for. One of an
    /// older version says nothing, and is not waited for in vain.
    pub(super) fn is_fresh(&self, pod: &PodId, rollout: &Rollout) -> bool {
        let rests = || self.told(pod).is_some_and(|told| !told.rested);
        !rollout.delay.is_zero() && self.is_made(pod) && rests()
    }

    /// Returns why a replica that runs is not to be relied upon, if nobody checks it.
    pub(super) fn unsteady(&self, pod: &PodId) -> Option<String> {
        let memory = self.memory.get(pod).filter(|memory| memory.unsteady)?;
        Some(match memory.failures {
            0 if memory.frail => format!("`{pod}` has failed, and has not run well for long since"),
            0 => format!("`{pod}` was started just now"),
            1 => format!("`{pod}` has failed, and has not run well for long since"),
            n => format!("`{pod}` has failed {n} times in a row"),
        })
    }

    /// Says which services that do not say how they are rolled out wait for a replica that is as it shall be and fails again and
    /// again. It is tried on, and the update with it: only who waits at a terminal is told.
    pub(super) fn tell_waiting(&self, decisions: &BTreeMap<&PodId, Decision>, messages: &mut Messages) {
        let graph = &self.desired.graph;
        let waits = decisions.iter().filter(|(_, decision)| is_change(decision));
        let waiting: BTreeSet<&ServiceName> = waits.map(|(pod, _)| &pod.service).collect();
        for service in waiting.into_iter().filter(|name| graph.rollout(name).is_none()) {
            let stays = decisions.range::<PodId, _>(PodId::all_of(service)).filter(|(_, decision)| {
                matches!(decision, Decision::Leave | Decision::Held(_) | Decision::Start { .. } | Decision::Finish)
                    || matches!(decision, Decision::Create(_) | Decision::Replace(_)) && !is_change(decision)
            });
            let failing = stays.filter_map(|(pod, _)| {
                let desired = self.desired;
                let failures = self.memory.get(pod)?.failures;
                let of_now = !desired.unstarted.contains(*pod) && !desired.asked.contains_key(*pod);
                (of_now && failures >= self.borne(pod)).then(|| (graph.container_name(pod), failures))
            });
            if let Some((name, failures)) = failing.max_by_key(|(_, failures)| *failures) {
                let count = if failures == 1 {
                    "was found unhealthy".to_owned()
                } else {
                    format!("has failed {failures} times in a row")
                };
                messages.fail_of(
                    service,
                    FailureKind::Rollout,
                    format!("the update of `{service}` waits: container {name} {count}; the others stay as they are until it runs"),
                );
            }
        }
    }

    /// Returns how many failures in a row are borne: health that was bad is known after a long time already.
    fn borne(&self, pod: &PodId) -> u32 {
        let condemned = self.memory.get(pod).and_then(|memory| memory.condemned.as_ref());
        let found = self.container(pod);
        let is_bad = found.is_none_or(|container| !container.is_ready());
        let was_replaced = condemned.is_some_and(|id| found.is_none_or(|container| container.id != *id));
        let checked =
            self.desired.graph.services.get(&pod.service).is_some_and(|one| one.container.healthcheck.is_some());
        if was_replaced && is_bad && checked { 1 } else { GIVEN_UP }
    }

    /// Returns whether what was not replaced yet of a service stays as it is.
    pub(super) fn is_paused(&self, service: &ServiceName) -> bool {
        let graph = &self.desired.graph;
        !self.failed.is_empty() && self.failed.get(graph.rolled_with(service)).is_some_and(|failed| failed.stops)
    }

    /// Returns the pods whose new containers are still watched.
    pub(super) fn watched(&self) -> Vec<PodId> {
        let desired = self.desired;
        let runs = |pod: &PodId| !desired.unstarted.contains(pod) && !desired.asked.contains_key(pod);
        let is_over = |pod: &PodId| self.told(pod).is_none_or(|told| told.watched || told.failure.is_some());
        let pods = self.pods().into_iter().filter(|(service, pod)| {
            let monitored = desired.graph.rollout(service).is_some_and(|rollout| !rollout.monitor.is_zero());
            // What has ended has done its work, or was told of as a failure.
            let is_up = self.container(pod).is_some_and(|container| container.state.is_active());
            monitored && is_up && self.is_made(pod) && runs(pod) && !is_over(pod)
        });
        pods.map(|(_, pod)| pod.clone()).collect()
    }

    /// Says what has failed.
    pub(super) fn tell(&self, messages: &mut Messages) {
        for (service, failed) in &self.failed {
            let Failed { replicas, of, is_open, stops } = failed;
            let why = replicas.values().copied().collect::<Vec<_>>().join("; ");
            let count = format!("{} of {of} {}", replicas.len(), if *of == 1 { "replica" } else { "replicas" });
            match (stops, is_open) {
                (true, true) => messages.fail_of(
                    service,
                    FailureKind::Rollout,
                    format!(
                        "the update of `{service}` is paused, {count} failed: {why}; the others stay as they are until the \
                         next `orch up`, which tries what failed again before it goes on"
                    ),
                ),
                (true, false) => {
                    messages.fail_of(service, FailureKind::Rollout, format!("the update of `{service}` failed, {count}: {why}"));
                }
                (false, _) => messages.notes.push(format!("the update of `{service}` goes on, {count} failed: {why}")),
            }
        }
    }
}
