//! What becomes of the containers of one pod because of each other: they are replaced as one, what prepares a pod runs once for
//! it, and helpers end with the work that they help with.
//!
//! That a main container can come and go while its holder and helpers stay, and that a new holder needs all others anew, is the
//! rule of shared namespaces (`relate`); what is here comes before it and beside it. Source: Kubernetes' KEP-753.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::graph::{Graph, Role, Service};
use crate::ids::{PodId, ServiceName};
use crate::observed::ObservedContainer;

use super::Reason;
use super::decide::Decision;
use super::relate::Relations;

impl<'a> Relations<'a> {
    /// Looks at each pod of several containers as a whole: to be called before one looks at single ones.
    pub(super) fn unite_pods(&mut self) {
        for (pod, members) in self.pods_of_several() {
            let main = self.decisions.get(&pod);
            if main.is_some_and(|main| matches!(main, Decision::Done { .. } | Decision::Resting)) {
                self.end_with_main(&members);
            } else {
                self.replace_as_one(&members);
            }
        }
    }

    /// Returns the containers of each pod of several, the main one's id first.
    fn pods_of_several(&self) -> Vec<(PodId, Vec<(&'a PodId, Role)>)> {
        let mut pods: BTreeMap<PodId, Vec<(&PodId, Role)>> = BTreeMap::new();
        for &pod in self.survey.pods.keys() {
            if let Some(part) = self.desired.graph.services.get(&pod.service).and_then(Service::pod_part) {
                pods.entry(PodId::new(part.of.clone(), pod.number)).or_default().push((pod, part.role));
            }
        }
        pods.into_iter().collect()
    }

    /// The main container has done its work: nothing keeps the others, least of all a helper that never ends by itself.
    fn end_with_main(&mut self, members: &[(&'a PodId, Role)]) {
        let desired = self.desired;
        let helpers = members.iter().filter(|(_, role)| *role != Role::Main);
        for (pod, _) in helpers.filter(|(pod, _)| !desired.rests(pod)) {
            let decision = match self.container(pod) {
                Some(container) if container.state.is_active() => Decision::Stop(Reason::MainEnded),
                Some(container) => Decision::Done { code: container.state.code() },
                None => Decision::Done { code: None },
            };
            if let Some(Decision::Replace(reason)) = self.decisions.insert(pod, decision) {
                self.unfit.insert(pod, reason);
            }
        }
    }

    /// A main container that had ended is run once more: so are those that had ended with it.
    pub(super) fn wake_helpers(&mut self, main: &PodId) {
        let graph = &self.desired.graph;
        let members: Vec<(&PodId, Role)> = graph
            .parts(&main.service)
            .filter(|(_, role)| *role != Role::Main)
            .filter_map(|(name, role)| {
                let (pod, _) = self.survey.pods.get_key_value(&PodId::new(name.clone(), main.number))?;
                Some((*pod, role))
            })
            .collect();
        let holder_pod = members.iter().find(|(_, role)| *role == Role::Holder).map(|(pod, _)| *pod);
        let holder = holder_pod.and_then(|pod| self.container(pod));
        let new_holder = holder_pod
            .filter(|pod| self.unfit.contains_key(pod))
            .map(|pod| Reason::DependencyReplaced { service: pod.service.clone() });
        for (pod, role) in members {
            let unfit = self.unfit.get(pod).or(new_holder.as_ref());
            let decision = match (self.container(pod), holder, unfit) {
                (Some(_), Some(_), Some(reason)) => Decision::Replace(reason.clone()),
                (Some(container), Some(_), None) if container.state.is_active() => Decision::Leave,
                (Some(container), Some(holder), None) if role == Role::Init && holder.is_running() => {
                    Decision::Done { code: container.state.code() }
                }
                (Some(_), Some(_), None) => {
                    let state = "it had ended with the main container".to_owned();
                    Decision::Start { reason: Reason::NotRunning { state }, crashed: false }
                }
                (Some(_), None, _) => Decision::Replace(Reason::HalfMade),
                (None, ..) => Decision::Create(Reason::Missing),
            };
            self.decisions.insert(pod, decision);
        }
    }

    /// What one of them is replaced for is a reason to replace all, unless that one alone is broken: the holder goes, and
    /// with its namespaces all others.
    fn replace_as_one(&mut self, members: &[(&'a PodId, Role)]) {
        let reason = members.iter().find_map(|(pod, _)| match self.decisions.get(pod) {
            Some(Decision::Replace(reason @ (Reason::SpecChanged { .. } | Reason::ImageChanged | Reason::Asked))) => {
                Some(reason.clone())
            }
            _ => None,
        });
        let holder = members.iter().find(|(_, role)| *role == Role::Holder);
        if let (Some(reason), Some((holder, _))) = (reason, holder)
            && self.container(holder).is_some()
        {
            let own = self.decisions.get(holder);
            if !own.is_some_and(|own| matches!(own, Decision::Replace(_))) {
                self.decisions.insert(holder, Decision::Replace(reason));
            }
        }
    }

    /// What prepares a pod has run for it once any container that comes after it was started in the namespaces that there are;
    /// it runs again only in new ones. Returns what becomes of it; `None`: `mine` is right.
    pub(super) fn prepare(&self, pod: &PodId, mine: &Decision) -> Option<Decision> {
        let graph = &self.desired.graph;
        if let Some(of) = graph.services.get(&pod.service)?.prepares_service() {
            return self.prepare_service(pod, of, mine);
        }
        let part = graph.services.get(&pod.service)?.part.as_ref().filter(|part| part.role == Role::Init)?;
        let state = "the pod was started anew".to_owned();
        let again = Decision::Start { reason: Reason::NotRunning { state }, crashed: false };
        let (holder_pod, holder) = self.holder(&part.of, pod.number)?;
        let done = matches!(mine, Decision::Done { .. }) && self.container(pod).is_some();
        if self.decisions.get(&holder_pod).is_some_and(|decision| matches!(decision, Decision::Start { .. })) {
            return done.then_some(again);
        }
        if !holder.is_running() {
            return None;
        }
        let later =
            after_init(graph, &part.of).filter_map(|name| self.container(&PodId::new(name.clone(), pod.number)));
        let mut later = later.filter(|container| !started_before(container, holder));
        let code = self.container(pod).and_then(|container| container.state.code());
        if later.any(|container| !container.started_at.is_empty()) {
            return (!matches!(mine, Decision::Replace(_))).then_some(Decision::Done { code });
        }
        (done && started_before(self.container(pod)?, holder)).then_some(again)
    }

    /// What prepares a service has run for it once any pod of it was started as it shall be; it runs again for pods that are all
    /// made anew. Its own container need not be there any more.
    fn prepare_service(&self, pod: &PodId, of: &ServiceName, mine: &Decision) -> Option<Decision> {
        let pods: Vec<(&Decision, Option<&ObservedContainer>)> = self
            .decisions
            .range::<PodId, _>(PodId::all_of(of))
            .map(|(main, one)| (one, self.container(main)))
            .collect();
        let started = |container: &ObservedContainer| !container.started_at.is_empty();
        let goes_on = pods.iter().any(|(decision, container)| decision.keeps() && container.is_some_and(started));
        let own = self.container(pod);
        let code = own.and_then(|container| container.state.code());
        match mine {
            Decision::Create(_) if goes_on => Some(Decision::Done { code: None }),
            Decision::Replace(Reason::Moved { .. } | Reason::ImageChanged) if goes_on && code == Some(0) => {
                Some(Decision::Done { code })
            }
            // With an image of its own it does not show that the service's is another one now.
            Decision::Done { .. } if own.and_then(|one| one.generation) < Some(self.desired.generation) => {
                let renewed = pods.iter().any(|(one, _)| matches!(one, Decision::Replace(Reason::ImageChanged)));
                (renewed && own.is_some()).then_some(Decision::Replace(Reason::ImageChanged))
            }
            _ => None,
        }
    }

    /// Returns whether a pod is what prepared one that has gone on since, so that it is never needed again.
    pub(super) fn has_prepared(&self, pod: &PodId) -> bool {
        // Of what prepares a service its pods tell, of what prepares a pod the containers after it.
        let of_service =
            self.desired.graph.services.get(&pod.service).is_some_and(|one| one.prepares_service().is_some());
        let mine = if of_service { Decision::Create(Reason::Missing) } else { Decision::Done { code: None } };
        matches!(self.prepare(pod, &mine), Some(Decision::Done { .. }))
    }

    /// Returns whether a pod serves a main container that has ended and is left so: it goes with that one.
    pub(super) fn is_idle(&self, pod: &PodId) -> bool {
        let part = self.desired.graph.services.get(&pod.service).and_then(Service::pod_part);
        part.filter(|part| part.role != Role::Main).is_some_and(|part| {
            let main = PodId::new(part.of.clone(), pod.number);
            matches!(self.decisions.get(&main), Some(Decision::Done { .. }))
        })
    }

    fn holder(&self, of: &ServiceName, number: u32) -> Option<(PodId, &'a ObservedContainer)> {
        let (holder, _) = self.desired.graph.parts(of).find(|(_, role)| *role == Role::Holder)?;
        let pod = PodId::new(holder.clone(), number);
        let container = self.container(&pod)?;
        Some((pod, container))
    }
}

/// The containers of a pod that start when all that prepares it has ended.
fn after_init<'a>(graph: &'a Graph, of: &'a ServiceName) -> impl Iterator<Item = &'a ServiceName> {
    graph.parts(of).filter(|(_, role)| matches!(role, Role::Sidecar | Role::Main)).map(|(name, _)| name)
}

/// Returns whether `one` was last started before `other` was, or never.
pub(super) fn started_before(one: &ObservedContainer, other: &ObservedContainer) -> bool {
    let time = |container: &ObservedContainer| container.started_at.parse::<Timestamp>().ok();
    match (time(one), time(other)) {
        (Some(one), Some(other)) => one < other,
        (None, other) => other.is_some(),
        (Some(_), None) => false,
    }
}
