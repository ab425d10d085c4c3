//! The order among the steps of different pods: networks first, dependencies before dependents, one replica at a time.
//!
//! Edges that the engine needs (names, networks, namespaces) are never left out. Those that keep the order of
//! dependencies are left out where they would close a ring, which only replicas that share namespaces can bring about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::graph::{Condition, Dependency, NetworkMode, Role, Rollout, Service};
use crate::ids::{HostName, PodId, ServiceName};
use crate::model::GoDuration;
use crate::observed::{ContainerState, ObservedContainer};

use super::decide::Decision;
use super::emit::{Emitter, PodNodes};
use super::order::{Draft, Node};
use super::resources::Changes;
use super::rollout::Rollouts;
use super::survey::Survey;
use super::{Gate, Reason};

/// Puts the emitted steps in order.
pub(super) fn wire<'a>(
    emitter: Emitter<'a>,
    survey: &Survey<'a>,
    changes: &BTreeMap<&'a HostName, Changes<'a>>,
    decisions: &BTreeMap<&'a PodId, Decision>,
    rollouts: &Rollouts<'a>,
) -> Draft {
    let graph = &emitter.desired.graph;
    let mut families: BTreeMap<&ServiceName, Vec<&ServiceName>> = BTreeMap::new();
    for name in graph.services.keys() {
        families.entry(graph.namespace_root(name)).or_default().push(name);
    }
    let mut wiring = Wiring { emitter, survey, changes, decisions, rollouts, families };
    wiring.resources();
    wiring.names();
    wiring.namespaces();
    wiring.stops();
    wiring.rollouts();
    wiring.dependencies();
    wiring.emitter.draft
}

/// Returns whether two services are parts of the same pods.
fn is_one_pod(one: &Service, other: &Service) -> bool {
    one.pod_part().zip(other.pod_part()).is_some_and(|(one, other)| one.of == other.of)
}

/// Who is being replaced at the same time.
struct Window {
    /// So many at most.
    places: usize,
    /// Who takes up a place: the first one that of the first, and so on, round and round.
    taken: Vec<Place>,
    /// How many of them are at work beside one another, whatever the number of places: they are not replaced, or do not serve.
    others: usize,
    /// Units that have failed, and that nobody waits for any more.
    given_up: usize,
    /// Time that passes before a place is given again.
    delay: Duration,
}

/// Who takes up a place.
enum Place {
    /// Until these are done.
    Until(Vec<Node>),
    /// For longer than this plan: why, for the reader.
    Waits(String),
}

impl Window {
    /// One place, taken until all of `before` are done.
    fn one_by_one(before: Vec<Node>) -> Self {
        Self { places: 1, taken: vec![Place::Until(before)], others: 1, given_up: 0, delay: Duration::ZERO }
    }

    /// Returns who must be done before the next one is replaced: who has its place before it.
    fn before(&self) -> impl Iterator<Item = &Place> {
        let mut earlier =
            std::iter::successors(self.taken.len().checked_sub(self.places), |at| at.checked_sub(self.places));
        let mut is_last = false;
        std::iter::from_fn(move || {
            let at = earlier.next().filter(|_| !is_last)?;
            // One that was replaced there has waited for those before it.
            is_last = at >= self.others;
            self.taken.get(at)
        })
    }
}

struct Wiring<'a, 's> {
    emitter: Emitter<'a>,
    survey: &'s Survey<'a>,
    changes: &'s BTreeMap<&'a HostName, Changes<'a>>,
    decisions: &'s BTreeMap<&'a PodId, Decision>,
    rollouts: &'s Rollouts<'a>,
    /// Services by the owner of the namespace that they live in.
    families: BTreeMap<&'a ServiceName, Vec<&'a ServiceName>>,
}

impl<'a> Wiring<'a, '_> {
    fn service(&self, name: &ServiceName) -> Option<&'a Service> {
        self.emitter.desired.graph.services.get(name)
    }

    fn nodes(&self, pod: &PodId) -> Option<&PodNodes> {
        self.emitter.pods.get(pod)
    }

    fn after(&mut self, node: Option<Node>, before: Option<Node>) {
        if let (Some(node), Some(before)) = (node, before) {
            self.emitter.draft.after(node, before);
        }
    }

    /// Containers leave a network before it is made (anew), and are made after it and after their volumes.
    ///
    /// That holds for a network that is missing, too: a stopped container keeps the id of the one that is gone and
    /// could never be started; if the plan is cut off it must not be left there beside the new one.
    fn resources(&mut self) {
        for ((host, name), (create, remove)) in self.emitter.networks.clone() {
            self.after(Some(create), remove);
            let leaving: Vec<Node> = self
                .emitter
                .removals
                .iter()
                .filter(|removal| removal.found.host == host && removal.found.container.networks.contains_key(name))
                .map(|removal| removal.node)
                .collect();
            for node in leaving {
                self.after(Some(remove.unwrap_or(create)), Some(node));
            }
        }
        let creating: Vec<(&PodId, Node)> =
            self.emitter.pods.iter().filter_map(|(pod, nodes)| Some((*pod, nodes.create?))).collect();
        for (pod, create) in creating {
            let (Some(service), Some((host, _))) = (self.service(&pod.service), self.survey.pods.get(pod)) else {
                continue;
            };
            if let NetworkMode::Networks(attachments) = &service.network {
                let names = attachments.iter().filter_map(|a| self.emitter.desired.graph.networks.get(&a.network));
                for network in names {
                    let made = self.emitter.networks.get(&(*host, network.name.as_str())).map(|(node, _)| *node);
                    self.after(Some(create), made);
                }
            }
            for volume in service.volumes() {
                let made = self.emitter.volumes.get(&(*host, volume)).copied();
                self.after(Some(create), made);
            }
        }
    }

    /// A name is free before it is given again.
    fn names(&mut self) {
        let removals: Vec<_> = self
            .emitter
            .removals
            .iter()
            .map(|removal| ((removal.found.host, removal.found.container.name.clone()), removal.node))
            .collect();
        for (name, removed) in removals {
            let create = self.emitter.names.get(&name).copied();
            self.after(create, Some(removed));
        }
    }

    /// A member of a namespace goes before the owner and comes after it.
    fn namespaces(&mut self) {
        let pods: Vec<(&PodId, PodNodes)> =
            self.emitter.pods.iter().map(|(pod, nodes)| (*pod, nodes.clone())).collect();
        for (pod, member) in pods {
            let Some(service) = self.service(&pod.service) else { continue };
            for owner in service.owners().collect::<BTreeSet<_>>() {
                let Some(owner) = self.nodes(&PodId::new(owner.clone(), pod.number)).cloned() else { continue };
                if self.lives_in_namespace(pod) {
                    self.after(owner.down(), member.teardown.last().copied());
                    if owner.drains {
                        self.after(member.teardown.first().copied(), owner.teardown.first().copied());
                    }
                }
                self.after(member.create, owner.create);
                self.after(member.start, owner.start);
            }
            for source in service.mounted_services().collect::<BTreeSet<_>>() {
                let Some(source) = self.nodes(&PodId::new(source.clone(), pod.number)).cloned() else { continue };
                self.after(member.create, source.create);
            }
            // In a pod of several the main container ends first, then its helpers, the last one first.
            for dependency in service.depends_on.iter().filter(|_| service.pod_part().is_some()) {
                let before = self.nodes(&PodId::new(dependency.service.clone(), pod.number)).cloned();
                let in_pod = self.service(&dependency.service).is_some_and(|other| is_one_pod(other, service));
                if let Some(before) = before.filter(|_| in_pod) {
                    self.after(before.down(), member.teardown.last().copied());
                }
            }
        }
        self.leftovers();
    }

    /// What somebody stops or removes ends before what it depends on does.
    fn stops(&mut self) {
        let ends = |decision: &Decision| matches!(decision, Decision::Stop(Reason::Asked) | Decision::Remove { .. });
        let pods: Vec<&'a PodId> =
            self.decisions.iter().filter(|(_, decision)| ends(decision)).map(|(pod, _)| *pod).collect();
        let mut edges = Vec::new();
        for pod in pods {
            let Some(last) = self.nodes(pod).and_then(|nodes| nodes.teardown.last().copied()) else { continue };
            for dependency in self.service(&pod.service).into_iter().flat_map(Service::dependencies) {
                let others = self.decisions.range::<PodId, _>(PodId::all_of(dependency));
                let others = others.filter(|(_, decision)| ends(decision)).map(|(other, _)| *other);
                edges.extend(others.filter_map(|other| Some((self.nodes(other)?.down()?, last))));
            }
        }
        for (node, before) in edges {
            self.emitter.draft.after_if_possible(node, before);
        }
    }

    /// Helpers that the file no longer has go before the holder whose namespaces they live in.
    fn leftovers(&mut self) {
        let removals = &self.emitter.removals;
        let by_id: BTreeMap<&str, Node> =
            removals.iter().map(|removal| (removal.found.container.id.as_str(), removal.down)).collect();
        let pods = removals.iter().filter_map(|removal| Some((removal.found.container.pod()?, removal)));
        let by_pod: BTreeMap<(PodId, &HostName), Node> =
            pods.map(|(pod, removal)| ((pod, removal.found.host), removal.down)).collect();
        let mut edges = Vec::new();
        for removal in removals {
            let owner = removal.found.container.network_mode.strip_prefix("container:").and_then(|id| by_id.get(id));
            let is_left_over = removal.found.container.pod().is_none_or(|pod| self.nodes(&pod).is_none());
            edges.extend(owner.filter(|_| is_left_over).map(|down| (*down, removal.node)));
            if is_left_over {
                let before = self.helpers_of(removal.found.container);
                edges.extend(
                    before.filter_map(|pod| by_pod.get(&(pod, removal.found.host))).map(|down| (*down, removal.node)),
                );
            }
        }
        for (node, before) in edges {
            self.emitter.draft.after_if_possible(node, before);
        }
    }

    /// Returns what starts before a container in its pod, and so ends after it.
    fn helpers_of(&self, container: &ObservedContainer) -> impl Iterator<Item = PodId> {
        let own = container.pod().and_then(|pod| Some((self.service(&pod.service)?, pod.number)));
        let number = own.map_or(0, |(_, number)| number);
        let before = own.into_iter().flat_map(|(service, _)| {
            let in_pod = |name: &ServiceName| self.service(name).is_some_and(|other| is_one_pod(other, service));
            let others = service.depends_on.iter().map(|dependency| &dependency.service);
            others.filter(move |name| in_pod(name)).cloned().collect::<Vec<_>>()
        });
        before.map(move |service| PodId::new(service, number))
    }

    /// Returns whether the container that there is lives in another one's namespace; its successor may be meant to.
    fn lives_in_namespace(&self, pod: &PodId) -> bool {
        let found = self.survey.pods.get(pod).and_then(|(_, found)| *found);
        found.is_some_and(|found| found.container.network_mode.starts_with("container:"))
    }

    /// Returns whether the pod's container, or one that shares a namespace with it, is on a network that is made anew, so
    /// that it goes with all others on it.
    fn is_cut_off(&self, pod: &PodId) -> bool {
        let mut unit = self.family(&pod.service).iter().map(|service| PodId::new((*service).clone(), pod.number));
        unit.any(|other| self.is_on_lost_network(&other))
    }

    fn is_on_lost_network(&self, pod: &PodId) -> bool {
        let Some(found) = self.survey.pods.get(pod).and_then(|(_, found)| *found) else { return false };
        let Some(lost) = self.changes.get(found.host) else { return false };
        found.container.networks.keys().any(|name| lost.networks.contains_key(name.as_str()))
    }

    /// Returns whether a pod that serves now stops serving by this plan.
    fn interrupts(&self, pod: &PodId) -> bool {
        let ready = self.survey.pods.get(pod).and_then(|(_, found)| *found).is_some_and(|f| f.container.is_ready());
        let decision = self.decisions.get(pod);
        // What somebody wants started again is started at once, as in Docker Compose: it may be stuck.
        let asked = decision == Some(&Decision::Restart(Reason::Restarted));
        let disrupted = ready && decision.is_some_and(Decision::disrupts) && !self.is_cut_off(pod);
        disrupted && !asked && !self.is_unstarted(pod)
    }

    /// Returns whether the pod is only made: nobody waits for it, and it waits for nobody.
    fn is_unstarted(&self, pod: &PodId) -> bool {
        self.emitter.desired.unstarted.contains(pod)
    }

    /// Replaces the replicas of a service one after the other, each once all others are ready. Those that do not serve
    /// come first: nothing is lost with them. Services in one namespace are rolled together, replica by replica.
    fn rollouts(&mut self) {
        let mut families: BTreeMap<&ServiceName, BTreeMap<u32, Vec<&'a PodId>>> = BTreeMap::new();
        for pod in self.survey.pods.keys() {
            let root = self.emitter.desired.graph.namespace_root(&pod.service);
            families.entry(root).or_default().entry(pod.number).or_default().push(pod);
        }
        for (root, units) in families.into_iter().filter(|(_, units)| units.len() > 1) {
            let (mut rolling, fresh): (Vec<_>, Vec<_>) =
                units.into_values().partition(|unit| unit.iter().any(|pod| self.interrupts(pod)));
            // Units of which a part is down already come before those that serve with all their parts.
            rolling.sort_by_key(|unit| !unit.iter().any(|pod| self.repairs(pod)));
            let graph = &self.emitter.desired.graph;
            let says = graph.rollout(root).is_some();
            let mut window = match graph.rollout(root) {
                Some(rollout) => self.window(&fresh, &rolling, rollout),
                None => Window::one_by_one(fresh.iter().flat_map(|unit| self.starts(unit)).collect()),
            };
            let tries_first = graph.rollout(root).and_then(|_| self.rollouts.tries_first(root));
            // How many pods of each service are repaired by this unit or a later one.
            let mut repairs: BTreeMap<&ServiceName, usize> = BTreeMap::new();
            for pod in rolling.iter().flatten().filter(|pod| self.repairs(pod)) {
                *repairs.entry(&pod.service).or_default() += 1;
            }
            for unit in &rolling {
                for pod in unit.iter().filter(|pod| self.repairs(pod)) {
                    repairs.entry(&pod.service).and_modify(|left| *left -= 1);
                }
                self.roll(unit, &window, &repairs);
                if !says {
                    self.spare(unit, &fresh);
                } else if let Some(why) = &tries_first {
                    self.spare_for(unit, why);
                }
                let ends = self.starts(unit);
                window.taken.extend((!ends.is_empty()).then_some(Place::Until(ends)));
            }
        }
    }

    /// Makes a unit that serves wait for those that stay and may crash at any moment: that a container runs says little of what
    /// nobody checks. Those that are to be replaced themselves hold nothing back, so that an update mends what crashes.
    fn spare(&mut self, unit: &[&'a PodId], others: &[Vec<&'a PodId>]) {
        let serving: BTreeSet<&ServiceName> =
            unit.iter().filter(|pod| self.interrupts(pod)).map(|pod| &pod.service).collect();
        let desired = self.emitter.desired;
        let counts =
            |pod: &PodId| serving.contains(&pod.service) && !self.is_unstarted(pod) && !desired.asked.contains_key(pod);
        let others = others.iter().flatten().copied();
        let why = others.filter(|pod| counts(pod)).find_map(|pod| self.rollouts.unsteady(pod));
        if let Some(why) = why {
            self.spare_for(unit, &why);
        }
    }

    /// Makes a unit that serves wait for something that no step brings about.
    fn spare_for(&mut self, unit: &[&'a PodId], why: &str) {
        if !unit.iter().any(|pod| self.interrupts(pod)) {
            return;
        }
        for pod in unit {
            if let Some(first) = self.nodes(pod).and_then(PodNodes::first) {
                self.emitter.draft.hold(first, why);
            }
        }
    }

    fn starts(&self, unit: &[&PodId]) -> Vec<Node> {
        unit.iter().filter_map(|pod| self.nodes(pod)?.start).collect()
    }

    /// Returns whether a pod that does not serve now shall by this plan.
    fn repairs(&self, pod: &PodId) -> bool {
        self.decisions.get(pod).is_some_and(Decision::starts) && !self.interrupts(pod) && !self.is_unstarted(pod)
    }

    /// Makes one unit wait for the one before, and each of its pods that serve for the others of its service; but not
    /// for those that this plan repairs only later, with another part of their own unit.
    fn roll(&mut self, unit: &[&'a PodId], window: &Window, later: &BTreeMap<&ServiceName, usize>) {
        for pod in unit {
            let Some(first) = self.nodes(pod).and_then(PodNodes::first) else { continue };
            for place in window.before() {
                match place {
                    Place::Until(nodes) => {
                        for node in nodes {
                            self.emitter.draft.after(first, *node);
                        }
                        if !window.delay.is_zero() {
                            let delay = GoDuration(window.delay);
                            let why =
                                format!("others are replaced before, and `delay` says to wait {delay} after each");
                            self.emitter.draft.hold(first, &why);
                        }
                    }
                    Place::Waits(why) => self.emitter.draft.hold(first, why),
                }
            }
            let waits_in_vain = later.get(&pod.service).is_some_and(|repairs| *repairs > 0);
            if self.interrupts(pod) && !waits_in_vain && window.places < usize::MAX {
                let away = window.places.saturating_sub(1).saturating_add(window.given_up);
                self.emitter.draft.others_ready(first, pod, away);
            }
        }
    }

    /// Returns which places of a rollout are taken by units that it does not replace now.
    fn window(&self, others: &[Vec<&'a PodId>], rolling: &[Vec<&'a PodId>], rollout: &Rollout) -> Window {
        let interrupted = rolling.iter().flatten().filter(|pod| self.interrupts(pod));
        let serving: BTreeSet<&ServiceName> = interrupted.map(|pod| &pod.service).collect();
        let (places, delay) = (rollout.places(), rollout.delay);
        let mut window = Window { places, taken: Vec::new(), others: 0, given_up: 0, delay };
        for unit in others {
            if unit.iter().any(|pod| self.rollouts.has_failed(pod)) {
                window.given_up += 1;
            } else {
                window.taken.extend(self.place(unit, &serving, rollout));
            }
        }
        // Those that this plan cannot wait for are spread over the places: as few as possible are left free.
        window.taken.sort_by_key(|place| matches!(place, Place::Until(_)));
        window.others = window.taken.len();
        window
    }

    /// Returns until when a unit takes up a place; `None`: it does not. Only what else is about to be interrupted counts: the state
    /// of what prepares a pod, say, is no reason to spare the next.
    fn place(&self, unit: &[&'a PodId], serving: &BTreeSet<&ServiceName>, rollout: &Rollout) -> Option<Place> {
        let starts = self.starts(unit);
        if !starts.is_empty() {
            return Some(Place::Until(starts));
        }
        let desired = self.emitter.desired;
        let counts =
            |pod: &PodId| serving.contains(&pod.service) && !self.is_unstarted(pod) && !desired.asked.contains_key(pod);
        let mut counting = unit.iter().copied().filter(|pod| counts(pod));
        let waits = counting.find_map(|pod| {
            if !self.is_in_order(pod) {
                Some(format!("`{pod}` is not ready"))
            } else if self.rollouts.is_fresh(pod, rollout) {
                let delay = GoDuration(rollout.delay);
                Some(format!("`{pod}` was replaced, and `delay` says to wait {delay} after each"))
            } else {
                None
            }
        });
        waits.map(Place::Waits)
    }

    /// Returns whether a pod is ready, or has done its work.
    fn is_in_order(&self, pod: &PodId) -> bool {
        let state = |pod: &PodId| {
            let found = self.survey.pods.get(pod).and_then(|(_, found)| *found);
            found.map(|found| found.container)
        };
        let has_finished = |pod: &PodId, service: &Service| {
            let ended = state(pod).map(|container| container.state);
            matches!(ended, Some(ContainerState::Exited { code: 0, by_itself }) if service.stays_ended(0, by_itself))
        };
        let Some(service) = self.service(&pod.service) else { return true };
        let main = service.pod_part().filter(|part| part.role != Role::Main);
        let main_has_finished = || {
            main.is_some_and(|part| {
                let main = PodId::new(part.of.clone(), pod.number);
                self.service(&part.of).is_some_and(|service| has_finished(&main, service))
            })
        };
        state(pod).is_some_and(ObservedContainer::is_ready) || has_finished(pod, service) || main_has_finished()
    }

    /// Dependencies start before their dependents, and what they promise is waited for.
    fn dependencies(&mut self) {
        let pods: Vec<&'a PodId> = self.emitter.pods.keys().copied().collect();
        for pod in pods {
            let Some(service) = self.service(&pod.service) else { continue };
            if self.is_unstarted(pod) || !self.decisions.get(pod).is_some_and(Decision::is_gated) {
                continue;
            }
            let desired = self.emitter.desired;
            let dependencies: Vec<&Dependency> =
                service.depends_on.iter().filter(|dependency| desired.awaits(dependency)).collect();
            let stops_first = self.stops_first(pod, &dependencies);
            for dependency in &dependencies {
                self.depend(pod, dependency, !stops_first);
            }
        }
    }

    /// With `restart: true` a dependent is down while its dependency is replaced, as in Docker Compose; one with several
    /// replicas is restarted one by one afterwards instead, so that it goes on serving. Returns whether `pod` is such.
    fn stops_first(&mut self, pod: &PodId, dependencies: &[&Dependency]) -> bool {
        let single = self.survey.pods.range::<PodId, _>(PodId::all_of(&pod.service)).take(2).count() == 1;
        let Some(down) = self.nodes(pod).and_then(|nodes| nodes.teardown.last().copied()).filter(|_| single) else {
            return false;
        };
        let mut any = false;
        for dependency in dependencies.iter().filter(|dependency| dependency.restart) {
            for other in self.disrupted(&dependency.service) {
                any = true;
                let first = self.nodes(other).and_then(PodNodes::first);
                if let Some(first) = first.filter(|_| !self.is_family(&pod.service, &dependency.service)) {
                    self.emitter.draft.after_if_possible(first, down);
                }
            }
        }
        any
    }

    /// Returns whether `preparing` has prepared this pod or its service, whatever became of its container since.
    fn has_prepared(&self, pod: &PodId, preparing: &ServiceName) -> bool {
        let Some(service) = self.service(preparing) else { return false };
        let number = match service.part.as_ref().map(|part| part.role) {
            Some(Role::Init) if self.is_family(&pod.service, preparing) => pod.number,
            Some(Role::PreStart) => 1,
            _ => return false,
        };
        match self.decisions.get(&PodId::new(preparing.clone(), number)) {
            // What is not tried again after it ended badly has prepared nothing.
            Some(Decision::Done { code }) => code.unwrap_or(0) == 0 || !service.is_job(),
            Some(_) => false,
            // Its host does not answer: what was prepared by it and goes on tells of it.
            None => service.prepares_service().is_some_and(|of| self.goes_on(of)),
        }
    }

    /// Returns whether a pod of the service was started as it shall be, and stays.
    fn goes_on(&self, service: &ServiceName) -> bool {
        let mut pods = self.decisions.range::<PodId, _>(PodId::all_of(service));
        pods.any(|(pod, decision)| {
            let found = self.survey.pods.get(*pod).and_then(|(_, found)| *found);
            decision.keeps() && found.is_some_and(|found| !found.container.started_at.is_empty())
        })
    }

    fn disrupted(&self, service: &ServiceName) -> Vec<&'a PodId> {
        let pods = self.decisions.range::<PodId, _>(PodId::all_of(service)).filter(|(_, decision)| decision.disrupts());
        pods.map(|(pod, _)| *pod).collect()
    }

    /// Returns the services that live in one namespace with `service`, itself among them.
    fn family(&self, service: &ServiceName) -> &[&'a ServiceName] {
        let root = self.emitter.desired.graph.namespace_root(service);
        self.families.get(root).map(Vec::as_slice).unwrap_or_default()
    }

    fn is_family(&self, one: &ServiceName, other: &ServiceName) -> bool {
        let graph = &self.emitter.desired.graph;
        graph.namespace_root(one) == graph.namespace_root(other)
    }

    /// Makes `pod` wait for one dependency: its start, and with `early` its old container's end too, so that the old one
    /// serves until its successor can start.
    fn depend(&mut self, pod: &PodId, dependency: &Dependency, early: bool) {
        let Some(nodes) = self.nodes(pod).cloned() else { return };
        let shares = self.family(&pod.service).len() > 1;
        let early = early && !shares && !self.is_cut_off(pod);
        let targets: Vec<Node> =
            nodes.start.into_iter().chain(nodes.teardown.first().copied().filter(|_| early)).collect();
        let family = self.is_family(&pod.service, &dependency.service);
        let starts = self
            .emitter
            .pods
            .range::<PodId, _>(PodId::all_of(&dependency.service))
            .filter(|(other, _)| !family || other.number == pod.number);
        let starts: Vec<Node> = starts.filter_map(|(_, nodes)| nodes.start).collect();
        let Dependency { service, condition, restart: _, required } = dependency;
        // A job that ran for this `up` was started, also when its container is gone.
        let gone = self
            .decisions
            .range::<PodId, _>(PodId::all_of(service))
            .any(|(_, decision)| *decision == (Decision::Done { code: None }));
        let met = self.has_prepared(pod, service) || gone && *condition == Condition::ServiceStarted;
        for target in targets {
            for start in &starts {
                self.emitter.draft.after_if_possible(target, *start);
            }
            if !met {
                let number = family.then_some(pod.number);
                let gate = Gate { service: service.clone(), condition: *condition, number, required: *required };
                self.emitter.draft.gate(target, gate);
            }
        }
    }
}
