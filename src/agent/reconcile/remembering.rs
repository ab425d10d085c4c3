//! What a project's loop remembers of pods from pass to pass, and when it forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::PodId;
use crate::plan::{Desired, Observed, PodMemory};

use super::super::execute;
use super::super::shared::Record;
use super::{Loop, recall};

impl Loop {
    /// Tries at once what has failed of pods of which something else is wanted now, or the same once more. A record that is about
    /// others, or about hosts alone, changes nothing for a pod that waits for its next start.
    pub(super) fn forgive(&mut self, desired: &Desired) {
        let last = self.last.as_ref().and_then(|last| last.desired.as_ref());
        // An agent that was just started has seen nothing fail yet.
        let Some(last) = last else { return };
        for pod in desired.pods() {
            let [before, now] =
                [last, desired].map(|one| one.graph.services.get(&pod.service).map(|one| &one.spec_hash));
            if before != now || last.asked.get(pod) != desired.asked.get(pod) {
                self.failures.forgive(pod);
            } else if last.generation < desired.generation {
                self.failures.try_again(pod);
            }
        }
    }

    /// Takes note of crashes and returns what planning needs to know.
    pub(super) fn remember(
        &mut self,
        record: &Record,
        observed: &Observed,
        now: Duration,
    ) -> BTreeMap<PodId, PodMemory> {
        let Some(desired) = record.desired.as_ref() else { return BTreeMap::new() };
        let mut seen = BTreeSet::new();
        for container in observed.hosts.values().flat_map(|host| host.containers.values()) {
            if let Some(pod) = container.pod() {
                self.failures.observe(&desired.graph, &pod, container, now);
                seen.insert(pod);
            }
        }
        self.failures.only(&seen);
        let mut memory = recall(&self.shared.informer, desired, observed, &self.failures, now);
        for container in observed.hosts.values().flat_map(|host| host.containers.values()) {
            if let Some(memory) = container.pod().and_then(|pod| memory.get_mut(&pod)) {
                memory.hooked = self.shared.hooks.of(container).or_else(|| memory.hooked.take());
            }
        }
        // Of pods elsewhere their own agents know better.
        for (host, told) in self.shared.peers.memory(&self.handle.name) {
            let there = |pod: &PodId| desired.assignments.pods.get(pod) == Some(&host);
            for (pod, mut told) in told.into_iter().filter(|(pod, _)| there(pod)) {
                // Its container may be in their picture before what they make of it is.
                told.unsteady |= memory.get(&pod).is_some_and(|own| own.unsteady);
                memory.insert(pod, told);
            }
        }
        self.remember_rollouts(desired, observed, &mut memory);
        memory
    }

    /// Takes note of the signals that this agent sent before it was started.
    pub(super) async fn recall_signals(&mut self) {
        match execute::signalled(&self.shared, &self.handle.name).await {
            Ok(sent) => sent.into_iter().for_each(|(pod, number)| self.failures.signalled(&pod, number)),
            Err(message) => tracing::warn!(project = %self.handle.name, message, "cannot say which signals were sent"),
        }
    }
}
