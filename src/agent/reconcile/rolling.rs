//! Rollouts in a project's loop: what is known of them here and on other hosts, and what they wait for beside the plan.

use std::collections::BTreeMap;

use crate::ids::PodId;
use crate::observed::Rolled;
use crate::plan::{Desired, Observed, Plan, PlannedStep, PodMemory, Step};

use super::super::execute;
use super::super::rollouts::Rollouts;
use super::super::shared::Record;
use super::Loop;

impl Loop {
    /// Returns whether nothing but the plan speaks against a step of a rollout: all hosts must have said what is there, and what
    /// they make of this record. One that is about to change what runs on it does not look so before.
    pub(super) fn may_roll(&self, record: &Record, planned: &PlannedStep) -> bool {
        let said = |pod: &PodId| record.desired.as_ref().is_some_and(|one| one.graph.rollout(&pod.service).is_some());
        let is_alone = self.shared.fleet().hosts.is_empty();
        let peers = &self.shared.peers;
        let mut rolled = planned.others_ready.iter().filter(|pod| said(pod));
        is_alone || rolled.all(|_| peers.have_all_told() && peers.all_know(&self.handle.name, record.serial))
    }

    /// Takes note of how rollouts go on this host, and tells planning that and how they went on others.
    pub(super) fn remember_rollouts(
        &mut self,
        desired: &Desired,
        observed: &Observed,
        memory: &mut BTreeMap<PodId, PodMemory>,
    ) {
        let (own, now) = (self.shared.host().clone(), self.shared.clock.now());
        let here = |pod: &PodId| desired.assignments.pods.get(pod) == Some(&own);
        for container in observed.hosts.get(&own).into_iter().flat_map(|host| host.containers.values()) {
            if let Some(pod) = container.pod().filter(here) {
                self.rollouts.observe(desired, &pod, container, now);
                let hooked = memory.get(&pod).and_then(|memory| memory.hooked.as_ref());
                let of_this_run = hooked.filter(|hooked| hooked.started_at == container.started_at);
                if let Some(failure) = of_this_run.and_then(|hooked| hooked.failure.as_deref()) {
                    self.rollouts.hook_failed(desired, &pod, container, (failure, now));
                }
            }
        }
        self.hear_of_failures(desired, memory);
        for (pod, memory) in memory {
            let failed = self.failed_elsewhere.get(pod);
            if here(pod) {
                if let Some(failed) = failed {
                    self.rollouts.inherit(desired, pod, failed);
                }
                memory.rolled = self.rollouts.view(desired, pod, now);
            } else if let Some(failed) = failed
                && memory.rolled.as_ref().is_none_or(|told| told.generation <= failed.generation)
            {
                memory.rolled = Some(failed.clone());
            }
        }
    }

    /// Takes note of failures elsewhere, as pods' own hosts tell of them and as others have heard: that of a host that does not answer
    /// any more is known to all or to none.
    fn hear_of_failures(&mut self, desired: &Desired, memory: &BTreeMap<PodId, PodMemory>) {
        if desired.graph.services.values().all(|service| service.rollout.is_none()) {
            self.failed_elsewhere.clear();
            return;
        }
        let own = self.shared.host();
        let matters = |pod: &PodId, rolled: &Rolled| {
            (desired.rolling_since(&pod.service)..=desired.generation).contains(&rolled.generation)
        };
        self.failed_elsewhere.retain(|pod, rolled| desired.assignments.pods.contains_key(pod) && matters(pod, rolled));
        let told = self.shared.peers.memory(&self.handle.name);
        let here = |pod: &&PodId| desired.assignments.pods.get(*pod) == Some(own);
        let others = memory.iter().filter(|(pod, _)| !here(pod));
        for (pod, memory) in told.values().flatten().chain(others) {
            let Some(rolled) = memory.rolled.as_ref().filter(|rolled| rolled.failure.is_some()) else { continue };
            let is_newer = self.failed_elsewhere.get(pod).is_none_or(|known| known.generation < rolled.generation);
            if is_newer && desired.assignments.pods.contains_key(pod) && matters(pod, rolled) {
                self.failed_elsewhere.insert(pod.clone(), rolled.clone());
            }
        }
    }

    /// Returns what this host says of failures elsewhere.
    pub(super) fn told_of_failures(&self) -> impl Iterator<Item = (PodId, PodMemory)> {
        let told = |rolled: &Rolled| PodMemory { rolled: Some(rolled.clone()), ..PodMemory::default() };
        self.failed_elsewhere.iter().map(move |(pod, rolled)| (pod.clone(), told(rolled)))
    }

    /// Takes note of what a plan replaces on this host, before anything of it is done: what images mean only this host knows.
    /// Returns whether any of that is new.
    pub(super) fn note_replaced(&mut self, desired: &Desired, plan: &Plan) -> bool {
        let own = self.shared.host();
        let mut is_new = false;
        for planned in plan.steps.iter().filter(|planned| &planned.host == own && planned.reason.is_change()) {
            if let Step::CreateContainer { pod, .. } = &planned.step {
                is_new |= self.rollouts.replaces(desired, pod);
            }
        }
        is_new
    }

    /// Takes note of what became of rollouts before this agent was started.
    pub(super) async fn recall_rollouts(&mut self) {
        match execute::rolled(&self.shared, &self.handle.name).await {
            Ok(stored) => self.rollouts = Rollouts::new(stored),
            Err(message) => tracing::warn!(project = %self.handle.name, message, "cannot say how rollouts went"),
        }
    }

    /// Writes down what has become of rollouts before anything is done about it. Without the store it is known until this agent
    /// ends.
    pub(super) async fn keep_rollouts(&mut self) {
        let changes = self.rollouts.take_changes();
        if changes.is_empty() {
            return;
        }
        if let Err(message) = execute::keep_rolled(&self.shared, &self.handle.name, &changes).await {
            tracing::warn!(project = %self.handle.name, message, "cannot keep how a rollout goes");
            self.rollouts.put_back(changes.into_keys());
        }
    }
}
