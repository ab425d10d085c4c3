//! What becomes of one pod, looked at alone: the rules of restart, recreate and repair.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{NetworkMode, Restart, Role, Service};
use crate::ids::{HostName, PodId, ServiceName};
use crate::observed::{CONFIG_HASH_LABEL, ContainerState, Health, Observed, ObservedContainer, PodMemory};

use super::survey::{Containers, Found};
use super::{Asked, Desired, Reason};

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is as it shall be.
    Leave,
    /// It ended and is not wanted again; with what code, if its container is still there.
    Done { code: Option<i32> },
    /// It shall run and must not be started yet: why.
    Held(String),
    /// Somebody put it to rest, and it is.
    Resting,
    /// It is frozen.
    Unpause,
    /// It shall be frozen.
    Pause,
    /// It gets a signal, for the wish of this number.
    Kill { signal: String, number: u64 },
    /// Its container shall go, and no other come.
    Remove { volumes: bool },
    /// Its container is there and does not run. `crashed`: it ran well enough to crash, so that what it depends on is
    /// not waited for again.
    Start { reason: Reason, crashed: bool },
    /// It runs, and what is run in it after its start was not yet.
    Finish,
    /// It runs and shall not any more.
    Stop(Reason),
    /// It runs and must be stopped and started.
    Restart(Reason),
    /// It has no container.
    Create(Reason),
    /// Its container must be replaced by a new one.
    Replace(Reason),
}

impl Decision {
    /// Returns whether a container will be started.
    pub(super) fn starts(&self) -> bool {
        matches!(self, Self::Start { .. } | Self::Restart(_) | Self::Create(_) | Self::Replace(_))
    }

    /// Returns whether a container that is there is taken away or stopped.
    pub(super) fn disrupts(&self) -> bool {
        matches!(self, Self::Restart(_) | Self::Replace(_))
    }

    /// Returns whether the container that there is stays the pod's.
    pub(super) fn keeps(&self) -> bool {
        !matches!(self, Self::Create(_) | Self::Replace(_) | Self::Resting | Self::Remove { .. })
    }

    /// Returns whether what it depends on is waited for before it starts.
    pub(super) fn is_gated(&self) -> bool {
        self.starts() && !matches!(self, Self::Start { crashed: true, .. })
    }
}

/// What the decision about one pod looks at.
pub(super) struct Case<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observed: &'a Observed,
    pub(super) pod: &'a PodId,
    pub(super) service: &'a Service,
    /// The host that it is assigned to.
    pub(super) host: &'a HostName,
    pub(super) found: Option<Found<'a>>,
    pub(super) memory: Option<&'a PodMemory>,
    /// Services whose completion others wait for.
    pub(super) jobs: &'a BTreeSet<&'a ServiceName>,
    /// Engine names of networks of its host that are about to be made (anew).
    pub(super) lost: Option<&'a BTreeSet<&'a str>>,
    /// The rollout of its service has stopped: what is not as it shall be stays so.
    pub(super) is_paused: bool,
}

/// Decides about one pod without regard to others.
pub(super) fn decide(case: &Case<'_>) -> Decision {
    if let Some(decision) = case.asked() {
        return decision;
    }
    let Some(found) = case.found else { return case.without_container() };
    let container = found.container;
    if matches!(container.state, ContainerState::Dead | ContainerState::Removing) {
        return Decision::Replace(Reason::HalfMade);
    }
    if found.host != case.host {
        return Decision::Replace(Reason::Moved { to: case.host.clone() });
    }
    let alone = if case.is_unstarted() { Decision::Leave } else { case.by_state(container) };
    match case.outdated(container) {
        // What was run for this `up` and ended is not run again for a newer spec or image: the next `up` does that.
        Some(_) if matches!(alone, Decision::Done { .. }) && case.role() != Some(Role::PreStart) => alone,
        Some(reason) => Decision::Replace(reason),
        None => alone,
    }
}

/// Returns which pods have a container that was made for something else than they shall be. What images mean is known on each
/// host, and not looked at.
pub(super) fn outdated(desired: &Desired, observed: &Observed) -> BTreeSet<PodId> {
    if desired.no_recreate {
        return BTreeSet::new();
    }
    let jobs = BTreeSet::new();
    let containers = Containers::anywhere(desired, observed);
    let enabled = desired.assignments.pods.iter().filter(|(pod, _)| desired.enabled.contains(&pod.service));
    let outdated = enabled.filter(|(pod, host)| {
        let found = containers.of_pod(pod).zip(desired.graph.services.get(&pod.service));
        found.is_some_and(|(container, service)| {
            let case = Case {
                desired,
                observed,
                pod,
                service,
                host,
                found: None,
                memory: None,
                jobs: &jobs,
                lost: None,
                is_paused: false,
            };
            case.by_spec(container).is_some()
        })
    });
    outdated.map(|(pod, _)| pod.clone()).collect()
}

impl Case<'_> {
    fn held(&self) -> Option<Decision> {
        self.memory.and_then(|memory| memory.held.clone()).map(Decision::Held)
    }

    /// Its container is made and left alone.
    fn is_unstarted(&self) -> bool {
        self.desired.unstarted.contains(self.pod)
    }

    /// What somebody asked for by hand; `None`: nothing, or it is over.
    fn asked(&self) -> Option<Decision> {
        let asked = self.desired.asked.get(self.pod)?;
        let Some(found) = self.found else { return asked.is_rest().then_some(Decision::Resting) };
        let container = found.container;
        let active = container.state.is_active();
        match asked {
            Asked::Stopped { .. } if active => Some(Decision::Stop(Reason::Asked)),
            Asked::Stopped { .. } => Some(Decision::Resting),
            Asked::Removed { volumes, .. } => Some(Decision::Remove { volumes: *volumes }),
            Asked::Paused { run } if run.is_of(container) => match container.state {
                ContainerState::Running { .. } => Some(Decision::Pause),
                ContainerState::Paused => Some(Decision::Leave),
                _ => None,
            },
            Asked::Killed { run, .. } if run.is_of(container) && !active => Some(Decision::Resting),
            Asked::Killed { run, signal, number } if run.is_of(container) => {
                let sent = self.memory.map_or(0, |memory| memory.signalled);
                (sent < *number).then(|| Decision::Kill { signal: signal.clone(), number: *number })
            }
            Asked::Restarted { run, .. } | Asked::Started { run } if run.is_of(container) => {
                let again = matches!(asked, Asked::Restarted { .. });
                // One that is elsewhere, or could not be started, is made anew.
                let usable = found.host == self.host && self.by_networks(container).is_none();
                match container.state {
                    _ if !usable => None,
                    ContainerState::Created | ContainerState::Exited { .. } => {
                        let reason = if again { Reason::Restarted } else { Reason::Asked };
                        Some(Decision::Start { reason, crashed: false })
                    }
                    _ if active && again => Some(Decision::Restart(Reason::Restarted)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn role(&self) -> Option<Role> {
        self.service.part.as_ref().map(|part| part.role)
    }

    fn is_awaited(&self) -> bool {
        self.jobs.contains(&self.pod.service)
    }

    /// Returns the generation in which the pod was last started as far as anybody knows.
    fn started_generation(&self) -> u64 {
        let remembered = self.memory.map_or(0, |memory| memory.started_generation);
        let seen = self.found.filter(|found| !found.container.started_at.is_empty());
        remembered.max(seen.and_then(|found| found.container.generation).unwrap_or(0))
    }

    /// A container that is gone comes back at once, but a job that was started for this `up` may have ended well.
    fn without_container(&self) -> Decision {
        if self.is_unstarted() {
            return Decision::Create(Reason::Missing);
        }
        let job = self.service.restart == Restart::No || self.is_awaited();
        if job && self.started_generation() >= self.desired.generation {
            return Decision::Done { code: None };
        }
        self.held().unwrap_or(Decision::Create(Reason::Missing))
    }

    fn by_state(&self, container: &ObservedContainer) -> Decision {
        let condemned = self.memory.and_then(|memory| memory.condemned.as_ref()) == Some(&container.id);
        match container.state {
            ContainerState::Running { health: Health::Unhealthy } => {
                self.held().unwrap_or(Decision::Replace(Reason::Unhealthy))
            }
            // Stopped on the way to its replacement.
            ContainerState::Exited { by_itself: false, .. } if condemned => Decision::Replace(Reason::Unhealthy),
            ContainerState::Running { .. } if self.lacks_hooks(container) => Decision::Finish,
            ContainerState::Running { .. } | ContainerState::Restarting => Decision::Leave,
            ContainerState::Paused => Decision::Unpause,
            ContainerState::Created => self.start("created", false),
            ContainerState::Dead | ContainerState::Removing => Decision::Replace(Reason::HalfMade),
            ContainerState::Exited { code, by_itself } => self.after_exit(code, by_itself),
        }
    }

    fn lacks_hooks(&self, container: &ObservedContainer) -> bool {
        let hooked = self.memory.and_then(|memory| memory.hooked.as_ref());
        if container.is_of_docker_compose() && hooked.is_none() {
            // Docker Compose has run them.
            return false;
        }
        !self.service.container.post_start.is_empty()
            && hooked.is_none_or(|hooked| hooked.started_at != container.started_at)
    }

    fn start(&self, state: &str, crashed: bool) -> Decision {
        let reason = Reason::NotRunning { state: state.to_owned() };
        self.held().unwrap_or(Decision::Start { reason, crashed })
    }

    /// The restart rules. An end by hand is no end: the container comes back, except with `restart: no`, which is run
    /// once for each `up` whatever happens to it.
    fn after_exit(&self, code: i32, by_itself: bool) -> Decision {
        let done = Decision::Done { code: Some(code) };
        let state = if by_itself { format!("exited with {code}") } else { format!("stopped by hand, {code}") };
        // What prepares a pod or a service runs once for it, not once for each `up`, if it ends well.
        let has_prepared =
            self.role().is_some_and(Role::prepares) && (code == 0 || self.service.restart != Restart::No);
        if !has_prepared && self.started_generation() < self.desired.generation {
            return self.start(&state, false);
        }
        let again = match self.service.restart {
            Restart::No => false,
            _ if !by_itself => true,
            Restart::Always | Restart::UnlessStopped => self.may_try_again(self.service.restart_pace.max_attempts),
            Restart::OnFailure { max_attempts } => code != 0 && self.may_try_again(max_attempts),
            Restart::Unset => code != 0 && !self.is_awaited(),
        };
        if again { self.start(&state, by_itself) } else { done }
    }

    fn may_try_again(&self, most: Option<u32>) -> bool {
        let failures = self.memory.map_or(0, |memory| memory.failures);
        most.is_none_or(|most| failures <= most)
    }

    /// Returns why the container cannot stay although it is the pod's.
    fn outdated(&self, container: &ObservedContainer) -> Option<Reason> {
        let stays = self.desired.no_recreate || self.is_paused;
        let changed = || self.by_spec(container).or_else(|| self.by_image(container));
        self.by_networks(container).or_else(|| if stays { None } else { changed() })
    }

    fn by_spec(&self, container: &ObservedContainer) -> Option<Reason> {
        let desired = self.desired;
        match &container.spec_hash {
            None if !self.is_adoptable(container) => {
                return Some(Reason::SpecChanged { what: vec!["made by Docker Compose".to_owned()] });
            }
            Some(hash) if *hash != self.service.spec_hash => {
                return Some(Reason::SpecChanged { what: self.changed_parts(container) });
            }
            _ => {}
        }
        if container.name != desired.graph.container_name(self.pod) {
            return Some(Reason::SpecChanged { what: vec!["name".to_owned()] });
        }
        let since = desired.recreate_before.get(&self.pod.service).copied().unwrap_or(0);
        if container.generation.unwrap_or(0) < since {
            return Some(Reason::Asked);
        }
        None
    }

    fn by_image(&self, container: &ObservedContainer) -> Option<Reason> {
        if self.role() == Some(Role::Holder) {
            // It is orch's own, and the same in every version.
            return None;
        }
        let image = self.observed.hosts.get(self.host).and_then(|host| host.images.get(&self.service.container.image));
        image.filter(|id| **id != container.image_id).map(|_| Reason::ImageChanged)
    }

    /// Returns whether a container that Docker Compose made can be the pod's: made for what the file says now, as Docker Compose
    /// itself sees it, and no part of a pod of several.
    fn is_adoptable(&self, container: &ObservedContainer) -> bool {
        let here = self.observed.hosts.get(self.host);
        // What shares something with another service shares it with the first of that one's containers.
        let first = |of: &ServiceName| {
            let all = here?.containers.values().filter(|one| one.service.as_ref() == Some(of) && !one.oneoff);
            all.min_by_key(|one| &one.name).map(|one| one.id.as_str())
        };
        let hash = self.service.compose_hash.of_container(first).filter(|hash| !hash.is_empty());
        let graph = &self.desired.graph;
        let is_alone = self.service.part.is_none() && graph.before_start(&self.pod.service).next().is_none();
        is_alone && hash.is_some() && hash.as_ref() == container.labels.get(CONFIG_HASH_LABEL)
    }

    /// Returns which keys of the service say something else than when the container was made, as far as it tells.
    fn changed_parts(&self, container: &ObservedContainer) -> Vec<String> {
        let Some(old) = container.spec_parts() else { return Vec::new() };
        let new: BTreeMap<&str, &str> =
            self.service.spec_parts.iter().map(|(key, digits)| (key.as_str(), digits.as_str())).collect();
        let keys: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        keys.into_iter().filter(|key| old.get(key) != new.get(key)).map(str::to_owned).collect()
    }

    /// A container lacks a network that it shall be on, or one that it is on is made anew: it cannot follow.
    fn by_networks(&self, container: &ObservedContainer) -> Option<Reason> {
        let changed = |name: &str| Some(Reason::NetworkChanged { network: name.to_owned() });
        let lost = |name: &str| self.lost.is_some_and(|lost| lost.contains(name));
        if let Some(name) = container.networks.keys().find(|name| lost(name)) {
            return changed(name);
        }
        let NetworkMode::Networks(attachments) = &self.service.network else { return None };
        let names = attachments.iter().filter_map(|a| self.desired.graph.networks.get(&a.network));
        // What Docker Compose made for something else is replaced for that, which says more.
        let tells = container.spec_hash.is_some() || self.is_adoptable(container);
        let mut lacking = names.filter(|network| !container.networks.contains_key(&network.name));
        lacking.next().filter(|_| tells).and_then(|network| changed(&network.name))
    }
}
