//! What becomes of pods because of others: shared network namespaces, `depends_on` with `restart: true`, jobs awaited.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Condition, Dependency, PortMode, Service};
use crate::ids::{PodId, ServiceName};
use crate::observed::{ObservedContainer, PodMemory};

use super::decide::Decision;
use super::pods::started_before;
use super::survey::Survey;
use super::{Desired, Reason};

/// Decisions by pod, with what they are taken from.
pub(super) struct Relations<'a> {
    pub(super) desired: &'a Desired,
    pub(super) survey: &'a Survey<'a>,
    pub(super) memory: &'a BTreeMap<PodId, PodMemory>,
    pub(super) decisions: BTreeMap<&'a PodId, Decision>,
    /// Why containers that are left alone, their pod being done, could not be used again.
    pub(super) unfit: BTreeMap<&'a PodId, Reason>,
}

impl<'a> Relations<'a> {
    /// Changes the decision about `pod` to what those about the pods before it in the order of dependencies demand.
    ///
    /// To be called for every pod, in that order.
    pub(super) fn follow_others(&mut self, pod: &'a PodId) {
        let Some(service) = self.desired.graph.services.get(&pod.service) else { return };
        if self.desired.rests(pod) {
            return;
        }
        self.remake_adopted(pod, service);
        if let Some(changed) = self.decisions.get(pod).and_then(|mine| self.prepare(pod, mine)) {
            self.decisions.insert(pod, changed);
        }
        let owners: BTreeSet<&ServiceName> = service.owners().collect();
        for owner in owners {
            let owner = PodId::new(owner.clone(), pod.number);
            if let Some(changed) = self.by_namespace(pod, &owner) {
                self.decisions.insert(pod, changed);
            }
        }
        for source in service.mounted_services().collect::<BTreeSet<_>>() {
            let source = PodId::new(source.clone(), pod.number);
            if let Some(changed) = self.by_mounts(pod, &source) {
                self.decisions.insert(pod, changed);
            }
        }
        let graph = &self.desired.graph;
        let root = graph.namespace_root(&pod.service);
        // Within one namespace each replica goes with the one of its own number, as above.
        let others = service.depends_on.iter().filter(|other| graph.namespace_root(&other.service) != root);
        for dependency in others.filter(|dependency| dependency.restart) {
            let runs = self.decisions.get(pod) == Some(&Decision::Leave) && !self.desired.unstarted.contains(pod);
            if runs && self.must_restart(pod, dependency) {
                let reason = Reason::DependencyReplaced { service: dependency.service.clone() };
                self.decisions.insert(pod, Decision::Restart(reason));
            }
        }
        self.remake_adopted(pod, service);
    }

    /// A container that Docker Compose made and that does not run any more is made anew where it has ports: its engine would
    /// publish them again, and orch listens there since it has let go of them.
    fn remake_adopted(&mut self, pod: &'a PodId, service: &Service) {
        let is_published = service.ports.iter().any(|port| port.mode == PortMode::Ingress);
        let is_adopted = self.container(pod).is_some_and(ObservedContainer::is_of_docker_compose);
        if let (true, true, Some(decision)) = (is_published, is_adopted, self.decisions.get_mut(pod))
            && matches!(decision, Decision::Start { .. } | Decision::Restart(_))
        {
            *decision = Decision::Replace(Reason::SpecChanged { what: vec!["ports of Docker Compose".to_owned()] });
        }
    }

    pub(super) fn container(&self, pod: &PodId) -> Option<&'a ObservedContainer> {
        self.survey.pods.get(pod).and_then(|(_, found)| found.map(|found| found.container))
    }

    /// A container in another one's namespace cannot outlive it: a new owner needs a new member, because the engine
    /// binds it by id, and an owner that started again needs the member to be started again, because its namespace is
    /// a new one and the member is left in the dead one.
    fn by_namespace(&self, pod: &PodId, owner: &PodId) -> Option<Decision> {
        let mine = self.decisions.get(pod)?;
        let reason = Reason::DependencyReplaced { service: owner.service.clone() };
        let owners = self.decisions.get(owner)?;
        let member = self.container(pod);
        let unstarted = |pod: &PodId| self.desired.unstarted.contains(pod);
        let owner_down = unstarted(owner) && !self.container(owner).is_some_and(ObservedContainer::is_running);
        match owners {
            _ if owner_down && mine.starts() && !unstarted(pod) => {
                return Some(Decision::Held(format!("waits for `{owner}`, which shall not be started")));
            }
            Decision::Held(_)
            | Decision::Done { .. }
            | Decision::Stop(_)
            | Decision::Resting
            | Decision::Remove { .. }
                if mine.starts() =>
            {
                return Some(Decision::Held(format!("waits for `{owner}`, whose network it shares")));
            }
            Decision::Create(_) | Decision::Replace(_) => return remade(mine, reason, member),
            _ => {}
        }
        let foreign = match (member, self.container(owner)) {
            (Some(member), Some(container)) => !member.lives_with(&owner.service, container),
            _ => false,
        };
        if foreign {
            return remade(mine, reason, member);
        }
        let in_pod = self.desired.graph.services.get(&pod.service).is_some_and(|service| service.pod_part().is_some());
        if let (true, Decision::Start { reason, crashed: true }) = (in_pod, mine)
            && (owners.starts()
                || member.zip(self.container(owner)).is_some_and(|(one, other)| started_before(one, other)))
        {
            // It ended with its namespaces: all that comes before it in the pod is waited for again.
            return Some(Decision::Start { reason: reason.clone(), crashed: false });
        }
        let stale = owners.starts()
            || member.zip(self.container(owner)).is_some_and(|(member, owner)| is_left_behind(member, owner));
        (stale && matches!(mine, Decision::Leave | Decision::Finish) && !unstarted(pod))
            .then_some(Decision::Restart(reason))
    }

    /// A container that has another one's mounts is made anew with it: the engine found them in that one when it was made, and
    /// those without a name may be others now. It may run while the other one does not.
    fn by_mounts(&self, pod: &PodId, source: &PodId) -> Option<Decision> {
        let mine = self.decisions.get(pod)?;
        let reason = Reason::DependencyReplaced { service: source.service.clone() };
        let (member, container) = (self.container(pod), self.container(source));
        let made = matches!(self.decisions.get(source)?, Decision::Create(_) | Decision::Replace(_));
        let foreign = member.zip(container).is_some_and(|(member, other)| !member.lives_with(&source.service, other));
        if made || foreign { remade(mine, reason, member) } else { None }
    }

    /// With `restart: true` a pod is restarted with what it depends on, also when an earlier plan that was cut off got
    /// only as far as making the other container: that one is of a later `up` than the pod's last start then.
    fn must_restart(&self, pod: &PodId, dependency: &Dependency) -> bool {
        let started = self.memory.get(pod).map_or(0, |memory| memory.started_generation);
        self.of_service(&dependency.service).any(|(other, decision)| match decision {
            // What depends on it was asked to start again itself, if that was wanted.
            Decision::Replace(Reason::Unhealthy) | Decision::Restart(Reason::Restarted) => false,
            Decision::Replace(_) | Decision::Restart(_) => true,
            _ => {
                let made = self.container(other).and_then(|container| container.generation);
                started > 0 && made.is_some_and(|made| made > started)
            }
        })
    }

    fn of_service(&self, service: &ServiceName) -> impl Iterator<Item = (&'a PodId, &Decision)> {
        self.decisions.range::<PodId, _>(PodId::all_of(service)).map(|(pod, decision)| (*pod, decision))
    }

    /// Runs jobs again whose container is gone while somebody still waits for them to end well or to be healthy.
    pub(super) fn revive_awaited(&mut self) {
        let unstarted = &self.desired.unstarted;
        let gated = self.decisions.iter().filter(|(pod, decision)| decision.is_gated() && !unstarted.contains(*pod));
        let dependencies = gated.filter_map(|(pod, _)| self.desired.graph.services.get(&pod.service));
        let awaited: BTreeSet<ServiceName> = dependencies
            .flat_map(|service| &service.depends_on)
            .filter(|dependency| dependency.condition != Condition::ServiceStarted)
            .map(|dependency| dependency.service.clone())
            .collect();
        let gone = self.decisions.iter().filter(|(pod, decision)| {
            **decision == (Decision::Done { code: None })
                && awaited.contains(&pod.service)
                && !self.has_prepared(pod)
                && !self.is_idle(pod)
        });
        let revived: Vec<&PodId> = gone.map(|(pod, _)| *pod).collect();
        for pod in revived {
            // One that is half removed is there and has no code.
            let half = self.container(pod).map(|_| Decision::Replace(Reason::HalfMade));
            self.decisions.insert(pod, half.unwrap_or(Decision::Create(Reason::Missing)));
            self.wake_helpers(pod);
        }
    }
}

/// Returns the decision about a member of a namespace whose owner is a new container. A job that has ended is run again when
/// somebody asks; what prepares a pod prepares the new one.
fn remade(mine: &Decision, reason: Reason, member: Option<&ObservedContainer>) -> Option<Decision> {
    match mine {
        Decision::Leave | Decision::Finish | Decision::Unpause | Decision::Start { .. } | Decision::Restart(_) => {
            Some(Decision::Replace(reason))
        }
        Decision::Done { .. } if member.is_some_and(ObservedContainer::is_init) => Some(Decision::Replace(reason)),
        Decision::Pause | Decision::Kill { .. } => Some(Decision::Replace(reason)),
        Decision::Held(_)
        | Decision::Done { .. }
        | Decision::Resting
        | Decision::Remove { .. }
        | Decision::Stop(_)
        | Decision::Create(_)
        | Decision::Replace(_) => None,
    }
}

/// Returns whether both run and `member` was started before `owner` was.
fn is_left_behind(member: &ObservedContainer, owner: &ObservedContainer) -> bool {
    member.is_running() && owner.is_running() && started_before(member, owner)
}
