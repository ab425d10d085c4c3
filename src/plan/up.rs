//! The plan for a project that shall be as desired.
//!
//! In this order: sort what is there (`survey`), compare networks and volumes (`resources`), decide about each pod
//! (`decide`, `relate`), make steps of the decisions (`emit`), and put them in order (`wire`, `order`).

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Condition, Role, Service};
use crate::ids::{HostName, PodId, ServiceName};
use crate::observed::{ContainerState, Health, Observed, ObservedHost, PodMemory};
use crate::place::Unplaced;

use super::decide::{Case, Decision, decide};
use super::emit::Emitter;
use super::gates::never_completed;
use super::order::ranks;
use super::relate::Relations;
use super::resources::{Changes, Messages, changes};
use super::rollout::Rollouts;
use super::survey::{Survey, survey};
use super::{Desired, FailureKind, Plan, Reason};

/// Failures in a row after which nobody at a terminal waits any longer for what depends on it.
const GIVEN_UP: u32 = 4;

/// Plans the way to `desired`.
pub(super) fn plan_up(desired: &Desired, observed: &Observed, memory: &BTreeMap<PodId, PodMemory>) -> Plan {
    let ranks = ranks(&desired.graph);
    let mut messages = Messages::default();
    let mut found = survey(desired, observed);
    let mut changes = changes(desired, &found, &observed.hosts, &mut messages);
    // With a network or volume missing that orch may not make, nothing is changed; what is there is kept alive.
    let blocked = !messages.failures.is_empty();
    if blocked {
        changes = BTreeMap::new();
        found.surplus.clear();
    }
    let (mut decisions, rollouts) = decide_all(desired, observed, memory, &found, &ranks, &changes);
    if blocked {
        hold_back(&mut decisions);
    }
    messages.about(desired, &found, &decisions, memory, &observed.hosts);
    rollouts.tell(&mut messages);
    rollouts.tell_waiting(&decisions, &mut messages);
    let mut emitter = Emitter::new(desired, &ranks, &found);
    emitter.resources(&changes);
    for surplus in &found.surplus {
        emitter.surplus(surplus);
    }
    for (pod, decision) in &decisions {
        if let Some((host, container)) = found.pods.get(pod) {
            emitter.pod(pod, host, *container, decision);
        }
    }
    emitter.leftover_volumes(observed);
    let steps = super::wire::wire(emitter, &found, &changes, &decisions, &rollouts).into_steps();
    let Messages { notes, failures, .. } = messages;
    Plan { project: desired.graph.project.clone(), steps, notes, failures, watched: rollouts.watched() }
}

fn decide_all<'a>(
    desired: &'a Desired,
    observed: &'a Observed,
    memory: &'a BTreeMap<PodId, PodMemory>,
    found: &'a Survey<'a>,
    ranks: &BTreeMap<&ServiceName, usize>,
    changes: &BTreeMap<&HostName, Changes<'a>>,
) -> (BTreeMap<&'a PodId, Decision>, Rollouts<'a>) {
    let lost: BTreeMap<&HostName, BTreeSet<&str>> = changes.iter().map(|(host, here)| (*host, here.lost())).collect();
    let jobs = desired.graph.awaited_jobs();
    let (decisions, unfit) = (BTreeMap::new(), BTreeMap::new());
    let mut relations = Relations { desired, survey: found, memory, decisions, unfit };
    let decide = |pod: &'a PodId, is_paused: bool| {
        let (host, container) = found.pods.get(pod)?;
        let case = Case {
            desired,
            observed,
            pod,
            service: desired.graph.services.get(&pod.service)?,
            host,
            found: *container,
            memory: memory.get(pod),
            jobs: &jobs,
            lost: lost.get(host),
            is_paused,
        };
        Some((pod, decide(&case)))
    };
    relations.decisions.extend(found.pods.keys().filter_map(|pod| decide(pod, false)));
    let rollouts = Rollouts::new(desired, found, memory, &relations.decisions);
    let paused = found.pods.keys().filter(|pod| rollouts.is_paused(&pod.service));
    relations.decisions.extend(paused.filter_map(|pod| decide(pod, true)));
    relations.unite_pods();
    let mut order: Vec<&PodId> = found.pods.keys().copied().collect();
    order.sort_by_key(|pod| ranks.get(&pod.service));
    for pod in order {
        relations.follow_others(pod);
    }
    relations.revive_awaited();
    (relations.decisions, rollouts)
}

/// Keeps what would make, replace or move anything from happening.
fn hold_back(decisions: &mut BTreeMap<&PodId, Decision>) {
    for decision in decisions.values_mut() {
        if matches!(decision, Decision::Create(_) | Decision::Replace(_) | Decision::Restart(_)) {
            *decision = Decision::Leave;
        }
    }
}

impl Messages {
    /// Adds what the survey and the decisions have to say to the user.
    fn about(
        &mut self,
        desired: &Desired,
        found: &Survey<'_>,
        decisions: &BTreeMap<&PodId, Decision>,
        memory: &BTreeMap<PodId, PodMemory>,
        hosts: &BTreeMap<HostName, ObservedHost>,
    ) {
        self.unplaced(desired, decisions);
        for (pod, host) in &found.away {
            self.notes.push(format!("host `{host}` does not answer: `{pod}` is left as it is"));
        }
        if !found.orphans.is_empty() && !desired.ignore_orphans {
            let names: Vec<&str> = found.orphans.iter().map(|found| found.container.name.as_str()).collect();
            self.notes.push(format!(
                "Found orphan containers ([{}]) for this project. If you removed or renamed this service in your \
                 compose file, you can run this command with the --remove-orphans flag to clean it up.",
                names.join(" ")
            ));
        }
        for (pod, decision) in decisions {
            match decision {
                Decision::Held(why) => {
                    let container =
                        found.pods.get(pod).and_then(|(_, found)| found.as_ref()).map(|found| found.container);
                    let what = match container.map(|container| container.state) {
                        Some(ContainerState::Running { health: Health::Unhealthy }) => {
                            "is unhealthy, and not made anew yet"
                        }
                        _ => "is not started now",
                    };
                    self.notes.push(format!("`{pod}` {what}: {why}"));
                }
                Decision::Done { code: Some(code) } if *code != 0 && !ended_with_main(desired, pod, decisions) => {
                    self.notes.push(format!("`{pod}` exited with {code} and is not started again"));
                }
                Decision::Leave => {
                    if let Some(failure) = failed_hook(desired, found, pod, memory) {
                        self.fail_of(&pod.service, FailureKind::Dependency, failure);
                    }
                }
                _ => {}
            }
        }
        self.adopted(found, decisions);
        self.failed_dependencies(desired, found, decisions, memory);
        self.unknown_weights(desired, hosts);
    }

    /// Says which containers are still as Docker Compose made them, and what that means.
    fn adopted(&mut self, found: &Survey<'_>, decisions: &BTreeMap<&PodId, Decision>) {
        let stays = |pod: &PodId| {
            let gone = |decision: &Decision| {
                matches!(decision, Decision::Create(_) | Decision::Replace(_) | Decision::Remove { .. })
            };
            decisions.get(pod).is_some_and(|decision| !gone(decision))
        };
        let containers = found.pods.iter().filter(|(pod, _)| stays(pod)).filter_map(|(_, (_, found))| *found);
        let names: Vec<&str> = containers
            .filter(|found| found.container.is_of_docker_compose())
            .map(|found| found.container.name.as_str())
            .collect();
        if !names.is_empty() {
            self.notes.push(format!(
                "adopted as Docker Compose made them: {}. Until they are made anew they reach services by the addresses of \
                 containers, the engine publishes their ports on their own host, and its restart policy holds; \
                 `orch up --force-recreate` gives them virtual addresses and published ports on every host",
                names.join(", ")
            ));
        }
    }

    /// Says which weights are for hosts that nobody knows. On one engine alone a file for several hosts is nothing unusual.
    fn unknown_weights(&mut self, desired: &Desired, hosts: &BTreeMap<HostName, ObservedHost>) {
        if hosts.len() < 2 {
            return;
        }
        let enabled = desired.graph.services.iter().filter(|(name, _)| desired.enabled.contains(*name));
        for (name, service) in enabled {
            for host in service.serving.balance.weights.keys().filter(|host| !hosts.contains_key(*host)) {
                self.notes.push(format!(
                    "`x-balance.weights` of `{name}` is for host `{host}`, and no host of that name answers"
                ));
            }
        }
    }

    /// Adds pods that no host can take, once for all of a service with the same reasons, and who waits for them.
    fn unplaced(&mut self, desired: &Desired, decisions: &BTreeMap<&PodId, Decision>) {
        let unplaced = desired.assignments.unplaced.iter().filter(|one| desired.enabled.contains(&one.pod.service));
        let mut groups: BTreeMap<(&ServiceName, String), Vec<&Unplaced>> = BTreeMap::new();
        for one in unplaced {
            groups.entry((&one.pod.service, one.sentence("", true))).or_default().push(one);
        }
        let mut homeless: BTreeMap<&ServiceName, &PodId> = BTreeMap::new();
        for ((service, _), alike) in &groups {
            let pods: Vec<&PodId> = alike.iter().map(|one| &one.pod).collect();
            let Some(first) = alike.first() else { continue };
            self.fail_of(service, FailureKind::Unplaced, first.sentence(&listed(&pods), pods.len() > 1));
            homeless.insert(service, &first.pod);
        }
        if homeless.is_empty() {
            return;
        }
        let mut waiting: BTreeMap<(&ServiceName, &ServiceName), Vec<&PodId>> = BTreeMap::new();
        for (pod, _) in decisions.iter().filter(|(_, decision)| decision.is_gated()) {
            let Some(service) = desired.graph.services.get(&pod.service) else { continue };
            let awaited = service.depends_on.iter().filter(|other| other.required && desired.awaits(other));
            for dependency in awaited.filter(|other| homeless.contains_key(&other.service)) {
                waiting.entry((&pod.service, &dependency.service)).or_default().push(pod);
            }
        }
        for ((_, dependency), pods) in &waiting {
            let wait = if pods.len() == 1 { "waits" } else { "wait" };
            let missing = homeless.get(dependency).map(ToString::to_string).unwrap_or_default();
            self.notes.push(format!("{} {wait} for `{dependency}`: `{missing}` has no host", listed(pods)));
        }
    }

    /// Adds dependencies that cannot come true, in Docker Compose's words.
    fn failed_dependencies(
        &mut self,
        desired: &Desired,
        found: &Survey<'_>,
        decisions: &BTreeMap<&PodId, Decision>,
        memory: &BTreeMap<PodId, PodMemory>,
    ) {
        let mut said = BTreeSet::new();
        let enabled = desired.graph.services.iter().filter(|(name, _)| desired.enabled.contains(*name));
        for (name, service) in enabled {
            let gated = |pod: &PodId, decision: &Decision| decision.is_gated() && !desired.unstarted.contains(pod);
            let pending = decisions.range::<PodId, _>(PodId::all_of(name)).any(|(pod, decision)| gated(pod, decision));
            for dependency in service.depends_on.iter().filter(|dependency| desired.awaits(dependency)) {
                let others = decisions.range::<PodId, _>(PodId::all_of(&dependency.service));
                let Some(job) = desired.graph.services.get(&dependency.service) else { continue };
                let problem = others.filter_map(|(pod, decision)| match dependency.condition {
                    Condition::ServiceStarted => None,
                    _ if !pending => ended_badly(job, pod, decision).filter(|_| is_end(dependency.condition)),
                    Condition::ServiceHealthy => {
                        never_healthy(found, pod, decision).or_else(|| keeps_failing(found, pod, decision, memory))
                    }
                    Condition::ServiceCompletedSuccessfully => {
                        ended_badly(job, pod, decision).or_else(|| keeps_failing(found, pod, decision, memory))
                    }
                });
                for problem in problem.filter(|problem| said.insert((problem.clone(), dependency.required))) {
                    if dependency.required {
                        self.fail_of(name, FailureKind::Dependency, problem);
                    } else {
                        self.notes.push(format!("optional dependency `{}`: {problem}", dependency.service));
                    }
                }
            }
        }
    }
}

/// Returns whether a container only helps one that has ended well: with what code it was ended itself says nothing.
fn ended_with_main(desired: &Desired, pod: &PodId, decisions: &BTreeMap<&PodId, Decision>) -> bool {
    let part = desired.graph.services.get(&pod.service).and_then(Service::pod_part);
    let Some(part) = part.filter(|part| matches!(part.role, Role::Sidecar | Role::Holder)) else { return false };
    let main = decisions.get(&PodId::new(part.of.clone(), pod.number));
    matches!(main, Some(Decision::Done { code: Some(0) | None }))
}

/// The first one's name, and how many more there are.
fn listed(pods: &[&PodId]) -> String {
    match pods {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first, more @ ..] => format!("`{first}` and {} more of `{}`", more.len(), first.service),
    }
}

fn is_end(condition: Condition) -> bool {
    condition == Condition::ServiceCompletedSuccessfully
}

/// What fails again and again may come true one day and is tried on; who waits for it at the terminal is told.
fn keeps_failing(
    found: &Survey<'_>,
    pod: &PodId,
    decision: &Decision,
    memory: &BTreeMap<PodId, PodMemory>,
) -> Option<String> {
    let failures = memory.get(pod).map_or(0, |memory| memory.failures);
    let container = found.pods.get(pod).and_then(|(_, found)| found.as_ref()).map(|found| found.container)?;
    let ContainerState::Exited { code, .. } = container.state else { return None };
    let waits = failures >= GIVEN_UP && matches!(decision, Decision::Held(_) | Decision::Start { .. });
    waits.then(|| {
        let name = &container.name;
        format!(
            "dependency failed to start: container {name} failed {failures} times in a row, the last time with {code}"
        )
    })
}

/// What went wrong in the hooks after the start of the run that there is.
fn failed_hook(
    desired: &Desired,
    found: &Survey<'_>,
    pod: &PodId,
    memory: &BTreeMap<PodId, PodMemory>,
) -> Option<String> {
    let has_hooks = !desired.graph.services.get(&pod.service)?.container.post_start.is_empty();
    let hooked = memory.get(pod)?.hooked.as_ref().filter(|_| has_hooks)?;
    let container = found.pods.get(pod).and_then(|(_, found)| found.as_ref()).map(|found| found.container)?;
    let is_of_run = container.is_running() && container.started_at == hooked.started_at;
    hooked.failure.clone().filter(|_| is_of_run)
}

fn ended_badly(service: &Service, pod: &PodId, decision: &Decision) -> Option<String> {
    match decision {
        Decision::Done { code: Some(code) } if *code != 0 => {
            Some(never_completed(pod.service.as_str(), service, *code))
        }
        _ => None,
    }
}

/// A container that is unhealthy may be replaced and become healthy; who waits for it is told at once all the same, as
/// Docker Compose does. One that is replaced for another reason gets its chance.
fn never_healthy(found: &Survey<'_>, pod: &PodId, decision: &Decision) -> Option<String> {
    let container = found.pods.get(pod).and_then(|(_, found)| found.as_ref()).map(|found| found.container)?;
    let what = match (decision, container.checked_state()) {
        (
            Decision::Held(_) | Decision::Leave | Decision::Replace(Reason::Unhealthy),
            ContainerState::Running { health: Health::Unhealthy },
        ) => "is unhealthy".to_owned(),
        (Decision::Leave, ContainerState::Running { health: Health::None }) => {
            "has no healthcheck configured".to_owned()
        }
        (Decision::Done { .. }, ContainerState::Exited { code, .. }) => format!("exited ({code})"),
        _ => return None,
    };
    Some(format!("dependency failed to start: container {} {what}", container.name))
}
