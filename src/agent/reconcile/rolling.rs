//! Rollouts in a project's loop: what is known of them here and on other hosts, and what they wait for beside the plan.

use std::collections::BTreeMap;

use crate::ids::PodId;
use crate::plan::{Desired, Observed, PlannedStep, PodMemory};

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
        let (own, now) = (self.shared.host(), self.shared.clock.now());
        let here = |pod: &PodId| desired.assignments.pods.get(pod) == Some(own);
        for container in observed.hosts.get(own).into_iter().flat_map(|host| host.containers.values()) {
            if let Some(pod) = container.pod().filter(here) {
                self.rollouts.observe(desired, &pod, container, now);
                let hooked = memory.get(&pod).and_then(|memory| memory.hooked.as_ref());
                let of_this_run = hooked.filter(|hooked| hooked.started_at == container.started_at);
                if let Some(failure) = of_this_run.and_then(|hooked| hooked.failure.as_deref()) {
                    self.rollouts.hook_failed(desired, &pod, container, failure);
                }
            }
        }
        let of_now = |generation: u64| generation == desired.generation;
        self.failed_elsewhere.retain(|pod, rolled| of_now(rolled.generation) && !here(pod));
        for (pod, memory) in memory {
            if here(pod) {
                memory.rolled = self.rollouts.view(desired, pod, now);
                continue;
            }
            match &memory.rolled {
                Some(rolled) if rolled.failure.is_some() && of_now(rolled.generation) => {
                    self.failed_elsewhere.insert(pod.clone(), rolled.clone());
                }
                _ => memory.rolled = self.failed_elsewhere.get(pod).cloned().or_else(|| memory.rolled.take()),
            }
        }
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
