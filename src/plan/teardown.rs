//! The plans for a project that shall stop or go: everything that carries its label, in reverse order of dependency.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{HostName, ProjectName, ServiceName};
use crate::observed::{ContainerState, Observed, ObservedHost};

use super::emit::{DEFAULT_GRACE, unpause};
use super::order::{Draft, Node, Phase, ranks};
use super::survey::Found;
use super::{Desired, Plan, Reason, Step};

/// Label in which Docker Compose and orch write what a container depends on: `db:service_healthy:true,…`.
const DEPENDS_ON_LABEL: &str = "com.docker.compose.depends_on";

/// What shall be taken down, and how far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Teardown<'a> {
    pub(super) project: &'a ProjectName,
    pub(super) last: Option<&'a Desired>,
    pub(super) timeout: Option<Duration>,
    pub(super) extent: Extent,
}

/// How far a project is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Containers are stopped and stay.
    Stop,
    /// Containers and networks go; `volumes`: volumes too.
    Remove { volumes: bool },
}

/// Plans to take a project down.
pub(super) fn plan_teardown(what: &Teardown<'_>, observed: &Observed) -> Plan {
    let mut draft = Draft::default();
    let mut containers: Vec<(Found<'_>, Ends)> = Vec::new();
    let ranks = what.last.map(|last| ranks(&last.graph)).unwrap_or_default();
    for (host, seen) in &observed.hosts {
        for container in seen.containers.values() {
            let rank = container.service.as_ref().and_then(|name| ranks.get(name)).copied().unwrap_or(0);
            let found = Found { host, container };
            if let Some(ends) = what.container(&mut draft, found, usize::MAX - rank) {
                containers.push((found, ends));
            }
        }
    }
    let edges = what.edges(&containers);
    let mut by_service: BTreeMap<&ServiceName, Vec<&Ends>> = BTreeMap::new();
    for (found, ends) in &containers {
        if let Some(service) = &found.container.service {
            by_service.entry(service).or_default().push(ends);
        }
    }
    for (dependent, dependency) in edges {
        for ends in by_service.get(dependency).into_iter().flatten() {
            for other in by_service.get(dependent).into_iter().flatten() {
                // What depends on it has stopped before it gets its own stop signal.
                draft.after_if_possible(ends.first, other.stopped);
            }
        }
    }
    if let Extent::Remove { volumes } = what.extent {
        for (host, seen) in &observed.hosts {
            let removed: Vec<Node> =
                containers.iter().filter(|(f, _)| f.host == host).map(|(_, ends)| ends.last).collect();
            what.sweep(&mut draft, host, seen, &removed, volumes);
        }
    }
    Plan {
        project: what.project.clone(),
        steps: draft.into_steps(),
        notes: Vec::new(),
        failures: Vec::new(),
        watched: Vec::new(),
    }
}

/// The steps of one container that others are ordered by.
struct Ends {
    first: Node,
    stopped: Node,
    last: Node,
}

impl<'a> Teardown<'a> {
    fn reason(&self) -> Reason {
        if self.extent == Extent::Stop { Reason::Asked } else { Reason::Down }
    }

    /// Adds the steps for one container; `None` if it needs none.
    fn container(&self, draft: &mut Draft, found: Found<'_>, rank: usize) -> Option<Ends> {
        let container = found.container;
        if container.oneoff && self.extent == Extent::Stop {
            // It is not the project's to stop: whoever runs it waits for its end.
            return None;
        }
        let mut steps = Vec::new();
        if container.state == ContainerState::Paused {
            steps.push((unpause(container), Reason::Part));
        }
        if container.state.is_active() {
            let (id, name) = (container.id.clone(), container.name.clone());
            let grace = self.grace(container.service.as_ref());
            steps.push((Step::StopContainer { id, name, grace }, self.reason()));
        }
        let stops = steps.len();
        if let Extent::Remove { volumes } = self.extent {
            let (id, name) = (container.id.clone(), container.name.clone());
            steps.push((Step::RemoveContainer { id, name, volumes }, self.reason()));
        }
        let mut nodes: Vec<Node> = Vec::new();
        for (step, reason) in steps {
            let key = (Phase::Teardown, rank, container.number.unwrap_or(0));
            let node = draft.add(key, found.host, step, reason);
            if let Some(before) = nodes.last() {
                draft.after(node, *before);
            }
            nodes.push(node);
        }
        let stopped = nodes.get(stops.saturating_sub(1)).copied();
        Some(Ends { first: *nodes.first()?, stopped: stopped?, last: *nodes.last()? })
    }

    fn grace(&self, service: Option<&ServiceName>) -> Duration {
        let known = || self.last.and_then(|last| last.graph.services.get(service?)).map(|service| service.stop_grace);
        self.timeout.or_else(known).unwrap_or(DEFAULT_GRACE)
    }

    /// Returns pairs of services (dependent, dependency): from the last desired state, and from the containers' labels
    /// where that does not know the service.
    fn edges<'c>(&self, containers: &'c [(Found<'a>, Ends)]) -> BTreeSet<(&'c ServiceName, &'c ServiceName)>
    where
        'a: 'c,
    {
        let names: BTreeMap<&str, &ServiceName> = containers
            .iter()
            .filter_map(|(found, _)| found.container.service.as_ref())
            .map(|name| (name.as_str(), name))
            .collect();
        let mut edges = BTreeSet::new();
        for (found, _) in containers {
            let Some(name) = &found.container.service else { continue };
            if let Some(service) = self.last.and_then(|last| last.graph.services.get(name)) {
                edges.extend(service.dependencies().map(|other| (name, other)));
            } else if let Some(label) = found.container.labels.get(DEPENDS_ON_LABEL) {
                let others = label.split(',').filter_map(|item| item.split(':').next());
                edges.extend(others.filter_map(|other| names.get(other)).map(|other| (name, *other)));
            }
        }
        edges
    }

    /// Adds the removal of a host's networks and volumes, by label; what is external was never given the label.
    fn sweep(&self, draft: &mut Draft, host: &HostName, seen: &ObservedHost, containers: &[Node], volumes: bool) {
        let networks = seen.networks.values().filter(|network| network.belongs_to(self.project));
        let mut steps: Vec<Step> = networks.map(|network| Step::RemoveNetwork { name: network.name.clone() }).collect();
        // What a pod has for itself goes with it.
        let ours = seen.volumes.values().filter(|volume| volume.belongs_to(self.project));
        let goes = ours.filter(|volume| volumes || volume.is_of_pod());
        steps.extend(goes.map(|volume| Step::RemoveVolume { name: volume.name.clone() }));
        for step in steps {
            let node = draft.add((Phase::Sweep, 0, 0), host, step, Reason::Down);
            for container in containers {
                draft.after(node, *container);
            }
        }
    }
}
