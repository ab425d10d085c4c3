//! Conditions that hold back a step, looked at in the observed state. Pure, so that whoever runs a plan and whoever
//! tests one agree on what may run now.

use std::collections::BTreeSet;

use crate::graph::{Condition, Restart, Service};
use crate::ids::PodId;
use crate::observed::{ContainerState, Health, Observed, ObservedContainer};

use super::survey::container_of;
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
        let steps = self.steps.iter().filter(|step| !done.contains(&step.id));
        let unblocked = steps.filter(|step| step.after.iter().all(|before| done.contains(before)));
        unblocked.filter(|step| desired.is_none_or(|desired| step.waits_for(desired, observed).is_none())).collect()
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
        let mut stuck: BTreeSet<StepId> = BTreeSet::new();
        // A step comes after all that it waits for, so that one look at each is enough.
        for step in &self.steps {
            let in_vain = || desired.is_some_and(|desired| step.waits_in_vain(desired, observed));
            if !failed(step) && !step.after.iter().any(|before| stuck.contains(before)) && !in_vain() {
                return false;
            }
            stuck.insert(step.id);
        }
        !self.steps.is_empty()
    }
}

impl PlannedStep {
    /// Returns whether a condition holds the step back that cannot come true as things are.
    fn waits_in_vain(&self, desired: &Desired, observed: &Observed) -> bool {
        let mut gates = self.gates.iter().filter(|gate| gate.required);
        gates.any(|gate| matches!(gate_state(gate, desired, observed), GateState::Failed(_)))
    }

    /// Returns the first condition that holds the step back now, for the reader; `None`: it may run once the steps
    /// before it are done.
    pub fn waits_for(&self, desired: &Desired, observed: &Observed) -> Option<String> {
        let gate = self.gates.iter().find_map(|gate| match gate_state(gate, desired, observed) {
            GateState::Open => None,
            GateState::Waiting(what) => Some(what),
            GateState::Failed(why) => gate.required.then_some(why),
        });
        gate.or_else(|| self.others_ready.as_ref().and_then(|pod| unready_sibling(pod, desired, observed)))
    }
}

/// Returns whether the condition of `gate` holds. Whether the service is required is for the caller to weigh.
///
/// Pods on hosts that do not answer are not looked at as long as one that is seen is as it should be: a host that is
/// cut off must not keep the others from healing themselves.
pub fn gate_state(gate: &Gate, desired: &Desired, observed: &Observed) -> GateState {
    let name = &gate.service;
    let Some(service) = desired.graph.services.get(name) else { return GateState::Open };
    let waiting = |what: String| GateState::Waiting(what);
    let is_meant = |pod: &PodId| &pod.service == name && gate.number.is_none_or(|number| pod.number == number);
    if let Some(unplaced) = desired.assignments.unplaced.iter().find(|unplaced| is_meant(&unplaced.pod)) {
        return GateState::Failed(format!("`{}` has no host", unplaced.pod));
    }
    let pods: Vec<_> = desired.assignments.pods.iter().filter(|(pod, _)| is_meant(pod)).collect();
    let seen = pods.iter().filter(|(_, host)| observed.hosts.contains_key(*host));
    let mut answer = GateState::Open;
    let mut count = 0;
    for (pod, _) in seen {
        count += 1;
        let Some(container) = container_of(desired, observed, pod) else {
            answer = waiting(format!("`{pod}` does not exist yet"));
            continue;
        };
        match pod_state(gate.condition, name.as_str(), service, container) {
            GateState::Open => {}
            GateState::Waiting(what) => answer = GateState::Waiting(what),
            failed @ GateState::Failed(_) => return failed,
        }
    }
    if count == 0 && !pods.is_empty() {
        return waiting(format!("no host of `{name}` answers"));
    }
    answer
}

fn pod_state(condition: Condition, name: &str, service: &Service, container: &ObservedContainer) -> GateState {
    let wait = |what: &str| GateState::Waiting(format!("container {} {what}", container.name));
    let fail =
        |what: &str| GateState::Failed(format!("dependency failed to start: container {} {what}", container.name));
    match (condition, container.state) {
        (_, ContainerState::Created | ContainerState::Dead | ContainerState::Removing) => wait("is not started yet"),
        (Condition::ServiceStarted, _)
        | (Condition::ServiceHealthy, ContainerState::Running { health: Health::Healthy }) => GateState::Open,
        (Condition::ServiceHealthy, ContainerState::Running { health }) => match health {
            Health::Unhealthy => fail("is unhealthy"),
            Health::None => fail("has no healthcheck configured"),
            Health::Starting | Health::Healthy => wait("is not healthy yet"),
        },
        (Condition::ServiceHealthy, ContainerState::Exited { code, by_itself })
            if is_final(service, code, by_itself) =>
        {
            fail(&format!("exited ({code})"))
        }
        (Condition::ServiceHealthy, _) => wait("is not healthy yet"),
        (Condition::ServiceCompletedSuccessfully, ContainerState::Exited { code, by_itself }) => {
            match (code, by_itself || service.restart == Restart::No) {
                (_, false) => wait("was stopped by hand"),
                (0, true) => GateState::Open,
                (_, true) if matches!(service.restart, Restart::No | Restart::Unset) => {
                    GateState::Failed(format!("service \"{name}\" didn't complete successfully: exit {code}"))
                }
                (_, true) => wait(&format!("exited ({code})")),
            }
        }
        (Condition::ServiceCompletedSuccessfully, _) => wait("has not ended yet"),
    }
}

/// Returns whether a container that ended stays so by the service's restart rule, as far as the code alone says.
fn is_final(service: &Service, code: i32, by_itself: bool) -> bool {
    match service.restart {
        Restart::No => true,
        Restart::Unset | Restart::OnFailure { .. } => by_itself && code == 0,
        Restart::Always | Restart::UnlessStopped => false,
    }
}

/// Returns what is wrong with the first other pod of `pod`'s service that is neither ready nor a finished job.
fn unready_sibling(pod: &PodId, desired: &Desired, observed: &Observed) -> Option<String> {
    let service = desired.graph.services.get(&pod.service)?;
    let others = desired.assignments.pods.iter().filter(|(other, _)| other.service == pod.service && *other != pod);
    let others = others.filter(|(other, _)| !desired.unstarted.contains(*other));
    let mut seen = others.filter(|(_, host)| observed.hosts.contains_key(*host));
    seen.find_map(|(other, _)| {
        let fine = container_of(desired, observed, other).is_some_and(|container| match container.state {
            ContainerState::Exited { code, by_itself } => code == 0 && is_final(service, code, by_itself),
            _ => container.is_ready(),
        });
        (!fine).then(|| format!("`{other}` is not ready"))
    })
}
