//! What somebody asked for by hand of pods that are there: to stop, to be frozen, killed, started again, removed.
//!
//! It is part of what shall be, since whoever compares that with what is again and again would start a stopped container at
//! once. Some of it holds whatever becomes of the container; the rest is a mark on one run of it, and void once that run is gone:
//! so it is done once, also when an agent ends in between. An `up` of the service makes all of it void. Start at [`ask`]. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Role, Service};
use crate::ids::{PodId, ServiceName};
use crate::model::signal;
use crate::observed::{ContainerState, Observed, ObservedContainer};

use super::Desired;
use super::survey::Containers;

/// One run of a container, from its start to its end and until the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Engine id.
    pub container: String,
    /// When it was started; empty: it never was.
    pub started_at: String,
}

impl Run {
    /// Returns the present or last run of a container.
    pub fn of(container: &ObservedContainer) -> Self {
        Self { container: container.id.clone(), started_at: container.started_at.clone() }
    }

    /// Returns whether that is still the container's last run.
    pub fn is_of(&self, container: &ObservedContainer) -> bool {
        self.container == container.id && self.started_at == container.started_at
    }
}

/// What was asked of a pod last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Asked {
    /// It shall not run until somebody starts it.
    Stopped {
        /// Time between stop signal and kill, instead of the service's own.
        timeout: Option<Duration>,
    },
    /// It shall have no container until an `up` makes one.
    Removed {
        /// Anonymous volumes go too.
        volumes: bool,
        /// As for `Stopped`.
        timeout: Option<Duration>,
    },
    /// This run shall be frozen.
    Paused {
        /// The run.
        run: Run,
    },
    /// This run shall get a signal, once, and the pod is left alone when it has ended.
    Killed {
        /// The run.
        run: Run,
        /// The signal.
        signal: String,
        /// Tells this wish from earlier ones for the same run: greater than theirs.
        number: u64,
    },
    /// It shall run anew after this run.
    Restarted {
        /// The run.
        run: Run,
        /// As for `Stopped`.
        timeout: Option<Duration>,
    },
    /// It shall run again after this run, which has ended.
    Started {
        /// The run.
        run: Run,
    },
}

impl Asked {
    /// Returns whether the pod shall not run, whatever becomes of its container.
    pub fn is_rest(&self) -> bool {
        matches!(self, Self::Stopped { .. } | Self::Removed { .. })
    }

    /// Returns what became of the pod, for the reader; `None`: it runs.
    pub fn told(&self, pod: &PodId) -> Option<String> {
        let service = &pod.service;
        match self {
            Self::Stopped { .. } => Some(format!("it was stopped; `orch start {service}` starts it")),
            Self::Removed { .. } => Some(format!("it was removed; `orch up {service}` makes it again")),
            Self::Paused { .. } => Some(format!("it was paused; `orch unpause {service}` lets it go on")),
            Self::Killed { signal, .. } => Some(format!("it got {signal} by hand; `orch start {service}` starts it")),
            Self::Restarted { .. } | Self::Started { .. } => None,
        }
    }

    /// Returns the time between stop signal and kill that was asked for.
    pub fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Stopped { timeout } | Self::Removed { timeout, .. } | Self::Restarted { timeout, .. } => *timeout,
            _ => None,
        }
    }
}

impl Desired {
    /// Returns whether a pod shall not run, whatever becomes of its container.
    pub fn rests(&self, pod: &PodId) -> bool {
        self.asked.get(pod).is_some_and(Asked::is_rest)
    }

    /// Returns whether a pod of the service may have been ended by hand, so that nobody waits for what it promises.
    pub(super) fn is_put_to_rest(&self, service: &ServiceName) -> bool {
        let mut asked = self.asked.range(PodId::all_of(service)).map(|(_, asked)| asked);
        asked.any(|asked| asked.is_rest() || matches!(asked, Asked::Killed { .. }))
    }
}

/// Maps of pods in JSON, whose keys can be nothing but text.
pub(super) mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Asked;
    use crate::ids::PodId;

    pub(in crate::plan) fn serialize<S: Serializer>(
        asked: &BTreeMap<PodId, Asked>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        asked.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(in crate::plan) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<PodId, Asked>, D::Error> {
        Ok(Vec::<(PodId, Asked)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// What can be asked of pods that are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Ask {
    /// Stop their containers and keep them so.
    Stop {
        /// Seconds between stop signal and kill, instead of each service's own.
        timeout_secs: Option<u64>,
    },
    /// Start containers that do not run, and those that they depend on.
    Start,
    /// Stop containers and start them, also those that do not run; and what depends on them with `restart: true`.
    Restart {
        /// Seconds between stop signal and kill, instead of each service's own.
        timeout_secs: Option<u64>,
        /// Leave out what depends on them.
        no_deps: bool,
    },
    /// Send a signal to containers that run; those that end by it are left so.
    Kill {
        /// The signal.
        signal: String,
        /// Remove containers of services that the file does not have.
        remove_orphans: bool,
    },
    /// Remove containers that do not run.
    Remove {
        /// Stop them before: also those that run.
        stop: bool,
        /// Remove their anonymous volumes too.
        volumes: bool,
        /// Seconds between stop signal and kill, instead of each service's own.
        timeout_secs: Option<u64>,
    },
    /// Freeze containers that run.
    Pause,
    /// Thaw them.
    Unpause,
}

/// Why it cannot be done; Docker Compose's and its engine's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The project has no such service.
    #[error("no such service: {0}")]
    NoSuchService(ServiceName),
    /// There is nothing to start.
    #[error("service \"{0}\" has no container to start")]
    NoContainer(ServiceName),
    /// It is paused.
    #[error("cannot start a paused container, try unpause instead: {0}")]
    Frozen(String),
    /// It is paused already.
    #[error("Container {0} is already paused")]
    AlreadyPaused(String),
    /// It is not paused.
    #[error("Container {0} is not paused")]
    NotPaused(String),
    /// There is no such signal.
    #[error("Invalid signal: {0}")]
    Signal(String),
}

/// What shall be after somebody asked for something.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What shall be.
    pub desired: Desired,
    /// The pods that it is about.
    pub pods: BTreeSet<PodId>,
}

/// Returns what shall be after `what` was asked of `services`, all if there are none. `number` is greater than with any earlier
/// call.
///
/// # Errors
/// When it is not possible as things are.
pub fn ask(
    now: &Desired,
    observed: &Observed,
    what: &Ask,
    services: &[ServiceName],
    number: u64,
) -> Result<Answer, AskError> {
    let graph = &now.graph;
    if let Some(unknown) = services.iter().find(|name| !graph.services.contains_key(*name)) {
        return Err(AskError::NoSuchService(unknown.clone()));
    }
    let containers = Containers::anywhere(now, observed);
    let mut asking =
        Asking { now, containers: &containers, asked: now.asked.clone(), pods: BTreeSet::new(), given: services };
    let fronts = asking.fronts(services);
    let mut desired = now.clone();
    match what {
        Ask::Stop { timeout_secs } => asking.stop(&fronts, timeout_secs.map(Duration::from_secs)),
        Ask::Start => {
            asking.start(&fronts)?;
            desired.unstarted.retain(|pod| !asking.pods.contains(pod));
        }
        Ask::Restart { timeout_secs, no_deps } => {
            let all = if *no_deps { fronts } else { asking.with_dependents(fronts) };
            asking.restart(&all, timeout_secs.map(Duration::from_secs));
            desired.unstarted.retain(|pod| !asking.pods.contains(pod));
        }
        Ask::Kill { signal, remove_orphans } => {
            if !signal::is_signal(signal) {
                return Err(AskError::Signal(signal.clone()));
            }
            asking.kill(&fronts, signal, number);
            desired.remove_orphans |= remove_orphans;
        }
        Ask::Remove { stop, volumes, timeout_secs } => {
            let timeout = timeout_secs.map(Duration::from_secs);
            asking.remove(&fronts, *stop, &Asked::Removed { volumes: *volumes, timeout });
        }
        Ask::Pause => asking.pause(&fronts)?,
        Ask::Unpause => asking.unpause(&fronts)?,
    }
    let Asking { asked, pods, .. } = asking;
    Ok(Answer { desired: Desired { asked, ..desired }, pods })
}

/// Returns the same with all pods stopped.
pub fn all_stopped(now: &Desired) -> Desired {
    let stopped = |pod: &PodId| (pod.clone(), Asked::Stopped { timeout: None });
    let mut asked: BTreeMap<PodId, Asked> = now.pods().map(stopped).collect();
    let removed = now.asked.iter().filter(|(_, asked)| matches!(asked, Asked::Removed { .. }));
    asked.extend(removed.map(|(pod, asked)| (pod.clone(), asked.clone())));
    Desired { asked, ..now.clone() }
}

struct Asking<'a> {
    now: &'a Desired,
    containers: &'a Containers<'a>,
    asked: BTreeMap<PodId, Asked>,
    pods: BTreeSet<PodId>,
    given: &'a [ServiceName],
}

impl<'a> Asking<'a> {
    fn graph(&self) -> &'a Graph {
        &self.now.graph
    }

    /// Returns the services of the file that are meant: those named, or all.
    fn fronts(&self, services: &[ServiceName]) -> BTreeSet<ServiceName> {
        let graph = self.graph();
        let all = graph.services.keys().filter(|_| services.is_empty());
        services.iter().chain(all).map(|name| graph.front(name).clone()).collect()
    }

    /// Adds what they depend on.
    fn with_dependencies(&self, fronts: &BTreeSet<ServiceName>) -> BTreeSet<ServiceName> {
        let graph = self.graph();
        let mut open: Vec<ServiceName> = fronts.iter().cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(front) = open.pop() {
            let members = members(graph, &front);
            if seen.insert(front) {
                let services = members.iter().filter_map(|(name, _)| graph.services.get(name));
                open.extend(services.flat_map(Service::dependencies).map(|name| graph.front(name).clone()));
            }
        }
        seen
    }

    /// Adds what depends on them with `restart: true`, and so on.
    fn with_dependents(&self, mut fronts: BTreeSet<ServiceName>) -> BTreeSet<ServiceName> {
        let graph = self.graph();
        loop {
            let hit = |dependency: &crate::graph::Dependency| {
                dependency.restart && fronts.contains(graph.front(&dependency.service))
            };
            let more: Vec<ServiceName> = graph
                .services
                .iter()
                .filter(|(_, service)| service.depends_on.iter().any(hit))
                .map(|(name, _)| graph.front(name).clone())
                .filter(|front| !fronts.contains(front))
                .collect();
            if more.is_empty() {
                return fronts;
            }
            fronts.extend(more);
        }
    }

    /// Returns the pods of services of the file, each with its containers; one of a single container has that alone.
    fn pods_of(&self, fronts: &BTreeSet<ServiceName>) -> Vec<Vec<Member<'a>>> {
        let mut all = Vec::new();
        for front in fronts {
            for (main, _) in self.now.assignments.pods.range(PodId::all_of(front)) {
                let members = members(self.graph(), front).into_iter().map(|(service, role)| {
                    let pod = PodId::new(service, main.number);
                    let container = self.containers.of_pod(&pod);
                    Member { pod, role, container }
                });
                all.push(members.collect());
            }
        }
        all
    }

    fn set(&mut self, pod: PodId, asked: Asked) {
        self.pods.insert(pod.clone());
        self.asked.insert(pod, asked);
    }

    fn is_removed(&self, pod: &PodId) -> bool {
        matches!(self.asked.get(pod), Some(Asked::Removed { .. }))
    }

    /// One that lost its container while it was stopped, as with a host that is gone, gets another one.
    fn make_again(&mut self, pod: &PodId) {
        if matches!(self.asked.get(pod), Some(Asked::Stopped { .. })) {
            self.pods.insert(pod.clone());
            self.asked.remove(pod);
        }
    }

    fn stop(&mut self, fronts: &BTreeSet<ServiceName>, timeout: Option<Duration>) {
        for member in self.pods_of(fronts).into_iter().flatten() {
            if !self.is_removed(&member.pod) {
                self.set(member.pod, Asked::Stopped { timeout });
            }
        }
        for pod in self.before_start(fronts) {
            if !self.is_removed(&pod) {
                self.set(pod, Asked::Stopped { timeout });
            }
        }
    }

    /// Returns the pods of what is run before services of the file.
    fn before_start(&self, fronts: &BTreeSet<ServiceName>) -> Vec<PodId> {
        let graph = self.graph();
        let services = fronts.iter().flat_map(|front| graph.before_start(front));
        services
            .flat_map(|name| self.now.assignments.pods.range(PodId::all_of(name)).map(|(pod, _)| pod.clone()))
            .collect()
    }

    fn start(&mut self, fronts: &BTreeSet<ServiceName>) -> Result<(), AskError> {
        let has_any = |front: &ServiceName| {
            self.pods_of(&BTreeSet::from([front.clone()])).iter().any(|pod| pod.iter().any(|m| m.container.is_some()))
        };
        let asked = self.with_dependencies(fronts);
        if !asked.iter().any(has_any)
            && !self.graph().services.keys().any(has_any)
            && let Some(first) = fronts.first()
        {
            return Err(AskError::NoContainer(first.clone()));
        }
        for members in self.pods_of(&asked) {
            for Member { pod, role, container } in members {
                let Some(container) = container else {
                    self.make_again(&pod);
                    continue;
                };
                if container.state == ContainerState::Paused {
                    if self.given.is_empty() || !fronts.contains(self.graph().front(&pod.service)) {
                        continue;
                    }
                    return Err(AskError::Frozen(container.name.clone()));
                }
                if container.state.is_active() || role == Some(Role::Init) {
                    // What prepares a pod is run by whoever starts the pod.
                    self.pods.insert(pod.clone());
                    self.asked.remove(&pod);
                } else {
                    self.set(pod, Asked::Started { run: Run::of(container) });
                }
            }
        }
        for pod in self.before_start(&asked) {
            match self.containers.of_pod(&pod) {
                // What has prepared a service has done so; one that did not end well is run again.
                Some(container) if container.state.code().is_some_and(|code| code != 0) => {
                    self.set(pod, Asked::Started { run: Run::of(container) });
                }
                Some(_) if !self.is_removed(&pod) => {
                    self.pods.insert(pod.clone());
                    self.asked.remove(&pod);
                }
                Some(_) => {}
                None => self.make_again(&pod),
            }
        }
        Ok(())
    }

    fn restart(&mut self, fronts: &BTreeSet<ServiceName>, timeout: Option<Duration>) {
        for members in self.pods_of(fronts) {
            let holder = members.iter().find(|member| member.role == Some(Role::Holder));
            let lives = holder.and_then(|holder| holder.container).is_none_or(ObservedContainer::is_running);
            for Member { pod, role, container } in members {
                let Some(container) = container else {
                    self.make_again(&pod);
                    continue;
                };
                match role {
                    // The namespaces outlive what runs in them, and what prepared the pod has done so.
                    Some(Role::Holder) if lives => {}
                    Some(Role::Init) => drop(self.asked.remove(&pod)),
                    Some(Role::Holder) => self.set(pod, Asked::Started { run: Run::of(container) }),
                    Some(Role::Main | Role::Sidecar | Role::PreStart) | None => {
                        self.set(pod, Asked::Restarted { run: Run::of(container), timeout });
                    }
                }
            }
        }
    }

    fn kill(&mut self, fronts: &BTreeSet<ServiceName>, signal: &str, number: u64) {
        for Member { pod, role, container } in self.pods_of(fronts).into_iter().flatten() {
            let Some(container) = container.filter(|one| one.state.is_active() && !self.now.rests(&pod)) else {
                continue;
            };
            // Helpers end with what they help.
            if matches!(role, None | Some(Role::Main)) {
                let run = Run::of(container);
                self.set(pod, Asked::Killed { run, signal: signal.to_owned(), number });
            }
        }
    }

    fn remove(&mut self, fronts: &BTreeSet<ServiceName>, stop: bool, removed: &Asked) {
        for members in self.pods_of(fronts) {
            let runs = members.iter().any(|member| {
                matches!(member.role, None | Some(Role::Main))
                    && member.container.is_some_and(|container| container.state.is_active())
            });
            if (runs && !stop) || members.iter().all(|member| member.container.is_none()) {
                continue;
            }
            for member in members {
                self.set(member.pod, removed.clone());
            }
        }
        // A service that is made again is prepared again.
        for front in fronts {
            let mut pods = self.now.assignments.pods.range(PodId::all_of(front)).map(|(pod, _)| pod);
            if pods.all(|pod| self.is_removed(pod)) {
                for pod in self.before_start(&BTreeSet::from([front.clone()])) {
                    self.set(pod, removed.clone());
                }
            }
        }
    }

    fn pause(&mut self, fronts: &BTreeSet<ServiceName>) -> Result<(), AskError> {
        for Member { pod, container, .. } in self.pods_of(fronts).into_iter().flatten() {
            match container.map(|container| (container, container.state)) {
                Some((container, ContainerState::Running { .. })) => {
                    self.set(pod, Asked::Paused { run: Run::of(container) });
                }
                Some((container, ContainerState::Paused)) if !self.given.is_empty() => {
                    return Err(AskError::AlreadyPaused(container.name.clone()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unpause(&mut self, fronts: &BTreeSet<ServiceName>) -> Result<(), AskError> {
        for Member { pod, container, .. } in self.pods_of(fronts).into_iter().flatten() {
            let Some(container) = container else { continue };
            let is_meant = matches!(self.asked.get(&pod), Some(Asked::Paused { .. }));
            if is_meant || container.state == ContainerState::Paused {
                self.pods.insert(pod.clone());
                self.asked.remove(&pod);
            } else if container.is_running() && !self.given.is_empty() {
                return Err(AskError::NotPaused(container.name.clone()));
            }
        }
        Ok(())
    }
}

/// A container of a pod.
struct Member<'a> {
    pod: PodId,
    /// What it does in a pod of several.
    role: Option<Role>,
    container: Option<&'a ObservedContainer>,
}

fn members(graph: &Graph, front: &ServiceName) -> Vec<(ServiceName, Option<Role>)> {
    let parts: Vec<_> = graph.parts(front).map(|(name, role)| (name.clone(), Some(role))).collect();
    if parts.is_empty() { vec![(front.clone(), None)] } else { parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_the_same_after_it_was_written_down() {
        let pod = PodId::new(ServiceName::new("web").expect("valid"), 1);
        let run = Run { container: "abc".into(), started_at: "2026-01-01T00:00:00Z".into() };
        for asked in [
            Asked::Stopped { timeout: Some(Duration::from_secs(3)) },
            Asked::Removed { volumes: true, timeout: None },
            Asked::Killed { run, signal: "HUP".into(), number: 7 },
        ] {
            let asked = BTreeMap::from([(pod.clone(), asked)]);
            let desired = Desired { asked, ..crate::testing::desired(crate::testing::graph("shop", &["web"])) };
            let text = serde_json::to_string(&desired).expect("JSON");
            assert_eq!(serde_json::from_str::<Desired>(&text).expect("the same"), desired);
        }
    }
}
