//! Conditions that hold back a step, looked at in the observed state. Pure, so that whoever runs a plan and whoever
//! tests one agree on what may run now.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Condition, Restart, Role, Service};
use crate::ids::{PodId, ServiceName};
use crate::observed::{ContainerState, Health, Observed, ObservedContainer};

use super::survey::Containers;
use super::{Desired, Gate, Plan, PlannedStep, StepId};

/// What a condition amounts to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateState {
    /// It holds.
    Open,
    /// It may still come true: what is missing, for the reader.
    Waiting(String),
    /// It cannot come true as things are: why, in Docker Compose's words.
    Failed(String),
}

impl Plan {
    /// Returns the steps that may run now: not in `done`, all steps before them done, all conditions true.
    ///
    /// `desired` is needed for gates only; a plan to stop or take down a project has none.
    pub fn runnable(
        &self,
        done: &BTreeSet<StepId>,
        observed: &Observed,
        desired: Option<&Desired>,
    ) -> Vec<&PlannedStep> {
        let mut gates = desired.map(|desired| Gates::new(desired, observed));
        let steps = self.steps.iter().filter(|step| !done.contains(&step.id));
        let unblocked = steps.filter(|step| step.after.iter().all(|before| done.contains(before)));
        unblocked.filter(|step| gates.as_mut().is_none_or(|gates| gates.hold_back(step).is_none())).collect()
    }
}

/// What cannot go on.
impl Plan {
    /// Returns whether there are steps and none of them can run as things are: each has `failed`, waits for what cannot
    /// come true, or comes after such a step.
    pub fn is_stuck(
        &self,
        observed: &Observed,
        desired: Option<&Desired>,
        failed: impl Fn(&PlannedStep) -> bool,
    ) -> bool {
        let mut gates = desired.map(|desired| Gates::new(desired, observed));
        let mut stuck: BTreeSet<StepId> = BTreeSet::new();
        // A step comes after all that it waits for, so that one look at each is enough.
        for step in &self.steps {
            let mut in_vain = || gates.as_mut().is_some_and(|gates| gates.wait_in_vain(step));
            if !failed(step) && !step.after.iter().any(|before| stuck.contains(before)) && !in_vain() {
                return false;
            }
            stuck.insert(step.id);
        }
        !self.steps.is_empty()
    }
}

impl PlannedStep {
    /// Returns the first condition that holds the step back now, for the reader; `None`: it may run once the steps
    /// before it are done.
    pub fn waits_for(&self, desired: &Desired, observed: &Observed) -> Option<String> {
        Gates::new(desired, observed).hold_back(self)
    }
}

/// Returns whether what a service that `run` makes a container of depends on is as it demands: the first condition
/// that is not, those that cannot come true first.
pub fn dependencies(desired: &Desired, service: &Service, observed: &Observed) -> GateState {
    let gates = Gates::new(desired, observed);
    let awaited = service.depends_on.iter().filter(|dependency| desired.awaits(dependency));
    let states = awaited.map(|dependency| {
        let gate = Gate {
            service: dependency.service.clone(),
            condition: dependency.condition,
            number: None,
            required: dependency.required,
        };
        match gates.look(&gate) {
            GateState::Failed(_) if !dependency.required => GateState::Open,
            state => state,
        }
    });
    let rank = |state: &GateState| match state {
        GateState::Failed(_) => 2,
        GateState::Waiting(_) => 1,
        GateState::Open => 0,
    };
    states.max_by_key(rank).unwrap_or(GateState::Open)
}

/// The gates at one moment. Thousands of pods may wait for the same thing: each is worked out once.
struct Gates<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    containers: Containers<'a>,
    /// Also those of pods that have not moved yet: they serve where they were.
    anywhere: Containers<'a>,
    unplaced: BTreeSet<&'a PodId>,
    known: BTreeMap<(ServiceName, Condition, Option<u32>), GateState>,
}

impl<'a> Gates<'a> {
    fn new(desired: &'a Desired, observed: &'a Observed) -> Self {
        let unplaced = desired.assignments.unplaced.iter().map(|unplaced| &unplaced.pod).collect();
        let (containers, anywhere) = (Containers::of(desired, observed), Containers::anywhere(desired, observed));
        Self { desired, observed, containers, anywhere, unplaced, known: BTreeMap::new() }
    }

    /// Returns the first condition that holds the step back now.
    fn hold_back(&mut self, step: &PlannedStep) -> Option<String> {
        if let Some(why) = &step.held {
            return Some(why.clone());
        }
        for gate in &step.gates {
            match self.state(gate) {
                GateState::Waiting(what) => return Some(what.clone()),
                GateState::Failed(why) if gate.required => return Some(why.clone()),
                GateState::Open | GateState::Failed(_) => {}
            }
        }
        step.others_ready.as_ref().and_then(|pod| self.unready_sibling(pod, step.others_away))
    }

    /// Returns whether a condition holds the step back that cannot come true as things are.
    fn wait_in_vain(&mut self, step: &PlannedStep) -> bool {
        let mut required = step.gates.iter().filter(|gate| gate.required);
        required.any(|gate| matches!(self.state(gate), GateState::Failed(_)))
    }

    fn state(&mut self, gate: &Gate) -> &GateState {
        let key = (gate.service.clone(), gate.condition, gate.number);
        if !self.known.contains_key(&key) {
            let state = self.look(gate);
            self.known.insert(key.clone(), state);
        }
        &self.known[&key]
    }

    /// Returns whether the condition of `gate` holds. Whether the service is required is for the caller to weigh.
    ///
    /// Pods on hosts that do not answer are not looked at as long as one that is seen is as it should be: a host that is
    /// cut off must not keep the others from healing themselves.
    fn look(&self, gate: &Gate) -> GateState {
        let (name, desired) = (&gate.service, self.desired);
        let Some(service) = desired.graph.services.get(name) else { return GateState::Open };
        let meant = match gate.number {
            Some(number) => PodId::new(name.clone(), number)..=PodId::new(name.clone(), number),
            None => PodId::all_of(name),
        };
        if let Some(unplaced) = self.unplaced.range::<PodId, _>(meant.clone()).next() {
            return GateState::Failed(format!("`{unplaced}` has no host"));
        }
        let (mut answer, mut count, mut seen) = (GateState::Open, 0, 0);
        for (pod, host) in desired.assignments.pods.range(meant) {
            count += 1;
            if !self.observed.hosts.contains_key(host) {
                continue;
            }
            seen += 1;
            let Some(container) = self.containers.of_pod(pod) else {
                answer = GateState::Waiting(format!("`{pod}` does not exist yet"));
                continue;
            };
            match pod_state(gate.condition, name.as_str(), service, container) {
                GateState::Open => {}
                waiting @ GateState::Waiting(_) => answer = waiting,
                failed @ GateState::Failed(_) => return failed,
            }
        }
        if seen == 0 && count > 0 {
            return GateState::Waiting(format!("no host of `{name}` answers"));
        }
        answer
    }

    /// Returns what is wrong with the first other pod of `pod`'s service that is neither ready nor a finished job, but for so many
    /// that may be away.
    fn unready_sibling(&self, pod: &PodId, away: usize) -> Option<String> {
        let desired = self.desired;
        let service = desired.graph.services.get(&pod.service)?;
        let others = desired.assignments.pods.range(PodId::all_of(&pod.service)).filter(|(other, _)| *other != pod);
        let others =
            others.filter(|(other, _)| !desired.unstarted.contains(*other) && !desired.asked.contains_key(*other));
        let seen = others.filter(|(_, host)| self.observed.hosts.contains_key(*host));
        let unready = seen.filter(|(other, _)| {
            let ready = || self.anywhere.of_pod(other).is_some_and(ObservedContainer::is_ready);
            !(self.has_finished(other, service) || self.has_ended_with_main(other, service) || ready())
        });
        unready.map(|(other, _)| format!("`{other}` is not ready")).nth(away)
    }

    /// Returns whether a pod ended well and stays so.
    fn has_finished(&self, pod: &PodId, service: &Service) -> bool {
        let state = self.containers.of_pod(pod).map(|container| container.state);
        matches!(state, Some(ContainerState::Exited { code: 0, by_itself }) if service.stays_ended(0, by_itself))
    }

    /// Returns whether it helps a container that ended well.
    fn has_ended_with_main(&self, pod: &PodId, service: &Service) -> bool {
        let Some(part) = service.pod_part().filter(|part| part.role != Role::Main) else { return false };
        let main = self.desired.graph.services.get(&part.of);
        main.is_some_and(|main| self.has_finished(&PodId::new(part.of.clone(), pod.number), main))
    }
}

/// Says that a job ended badly, as Docker Compose does of what a service depends on, and of steps of `pre_start`.
pub(super) fn never_completed(name: &str, service: &Service, code: i32) -> String {
    let step = service.part.as_ref().and_then(|part| part.step(name));
    match step {
        Some((of, index)) => format!("service \"{of}\" pre_start[{index}] exited with code {code}"),
        None => format!("service \"{name}\" didn't complete successfully: exit {code}"),
    }
}

fn pod_state(condition: Condition, name: &str, service: &Service, container: &ObservedContainer) -> GateState {
    let wait = |what: &str| GateState::Waiting(format!("container {} {what}", container.name));
    let fail =
        |what: &str| GateState::Failed(format!("dependency failed to start: container {} {what}", container.name));
    match (condition, container.checked_state()) {
        (_, ContainerState::Created | ContainerState::Dead | ContainerState::Removing) => wait("is not started yet"),
        (Condition::ServiceStarted, _)
        | (Condition::ServiceHealthy, ContainerState::Running { health: Health::Healthy }) => GateState::Open,
        (Condition::ServiceHealthy, ContainerState::Running { health }) => match health {
            Health::Unhealthy => fail("is unhealthy"),
            Health::None => fail("has no healthcheck configured"),
            Health::Starting | Health::Healthy => wait("is not healthy yet"),
        },
        (Condition::ServiceHealthy, ContainerState::Exited { code, by_itself })
            if service.stays_ended(code, by_itself) =>
        {
            fail(&format!("exited ({code})"))
        }
        (Condition::ServiceHealthy, _) => wait("is not healthy yet"),
        (Condition::ServiceCompletedSuccessfully, ContainerState::Exited { code, by_itself }) => {
            match (code, by_itself || service.restart == Restart::No) {
                (_, false) => wait("was stopped by hand"),
                (0, true) => GateState::Open,
                (_, true) if matches!(service.restart, Restart::No | Restart::Unset) => {
                    GateState::Failed(never_completed(name, service, code))
                }
                (_, true) => wait(&format!("exited ({code})")),
            }
        }
        (Condition::ServiceCompletedSuccessfully, _) => wait("has not ended yet"),
    }
}
