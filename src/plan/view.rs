//! A project as the data plane sees it: what shall be, beside what is, and each pod as one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::graph::{Graph, Role};
use crate::ids::PodId;
use crate::observed::{ContainerState, Health, ObservedContainer, ObservedHost};

use super::{Desired, Observed};

/// Input of the DNS and load-balancer tables.
#[derive(Debug, Clone, Copy)]
pub struct ProjectView<'a> {
    /// What shall be.
    pub desired: &'a Desired,
    /// What is, on all hosts.
    pub observed: &'a Observed,
}

impl Desired {
    /// Returns the same with each pod as one service.
    pub fn folded(&self) -> Cow<'_, Self> {
        match self.graph.folded() {
            Cow::Borrowed(_) => Cow::Borrowed(self),
            Cow::Owned(graph) => Cow::Owned(Self { graph, ..self.clone() }),
        }
    }
}

impl Observed {
    /// Returns the same with one container for each pod of several: the main one with the addresses of the holder, ready when
    /// all of them are; while it does not run the holder stands for it, so that who asks from inside is known.
    ///
    /// `graph` tells which helpers a pod shall have: one that lacks a helper is not ready.
    pub fn folded(&self, graph: &Graph) -> Cow<'_, Self> {
        let mut all = self.hosts.values().flat_map(|host| host.containers.values());
        if !all.any(|container| container.part().is_some()) {
            return Cow::Borrowed(self);
        }
        let hosts = self.hosts.iter().map(|(name, host)| (name.clone(), folded_host(host, graph)));
        Cow::Owned(Self { hosts: hosts.collect() })
    }
}

/// The containers of one pod.
#[derive(Default)]
struct Members<'a> {
    holder: Option<&'a ObservedContainer>,
    main: Option<&'a ObservedContainer>,
    sidecars: Vec<&'a ObservedContainer>,
}

fn folded_host(host: &ObservedHost, graph: &Graph) -> ObservedHost {
    let mut pods: BTreeMap<(PodId, &str), Members<'_>> = BTreeMap::new();
    let mut containers = BTreeMap::new();
    for (id, container) in &host.containers {
        // Those of a one-off have its digits, and no number.
        let number = if container.oneoff { container.slug().map(|_| 0) } else { container.number };
        let pod = container.part().zip(number);
        if let Some((part, _)) = pod.as_ref().filter(|(part, _)| part.role == Role::PreStart) {
            // It may reach what the service may, and is none of its pods.
            let guest =
                ObservedContainer { service: Some(part.of.clone()), number: None, oneoff: true, ..container.clone() };
            containers.insert(id.clone(), guest);
            continue;
        }
        let Some((part, number)) = pod else {
            containers.insert(id.clone(), container.clone());
            continue;
        };
        let pod = (PodId::new(part.of, number), container.slug().unwrap_or_default());
        let members = pods.entry(pod).or_default();
        match part.role {
            Role::Holder => members.holder = Some(newer(members.holder, container)),
            Role::Main => members.main = Some(newer(members.main, container)),
            Role::Sidecar => members.sidecars.push(container),
            Role::Init | Role::PreStart => {}
        }
    }
    for ((pod, _), members) in &pods {
        if let Some(container) = members.fold(pod, graph) {
            containers.insert(container.id.clone(), container);
        }
    }
    let ObservedHost { containers: _, networks, volumes, images } = host;
    ObservedHost { containers, networks: networks.clone(), volumes: volumes.clone(), images: images.clone() }
}

/// Of two that say they are the same, the one that runs, else the one that was made last.
fn newer<'a>(one: Option<&'a ObservedContainer>, other: &'a ObservedContainer) -> &'a ObservedContainer {
    let rank = |container: &ObservedContainer| (container.is_running(), container.created_at.clone());
    one.filter(|one| rank(one) >= rank(other)).unwrap_or(other)
}

impl Members<'_> {
    /// Of a one-off nothing is asked but that it runs: its helpers were as they shall be before it was started.
    fn fold(&self, pod: &PodId, graph: &Graph) -> Option<ObservedContainer> {
        let main = self.main.filter(|main| main.state.is_active());
        let base = main.or(self.holder).or(self.main)?;
        let mut folded = base.clone();
        folded.service = Some(pod.service.clone());
        if main.is_none() {
            folded.name = self.main.map_or_else(|| graph.container_name(pod), |main| main.name.clone());
        }
        let holder = self.holder.filter(|holder| holder.is_running());
        folded.networks = holder.map(|holder| holder.networks.clone()).unwrap_or_default();
        if let ContainerState::Running { health } = &mut folded.state
            && !folded.oneoff
            && !self.is_ready(pod, graph)
            && *health != Health::Unhealthy
        {
            *health = Health::Starting;
        }
        Some(folded)
    }

    fn is_ready(&self, pod: &PodId, graph: &Graph) -> bool {
        let (Some(holder), Some(main)) = (self.holder, self.main) else { return false };
        let lives = |container: &ObservedContainer| container.network_mode == format!("container:{}", holder.id);
        let wanted = graph.parts(&pod.service).filter(|(_, role)| *role == Role::Sidecar);
        let has =
            |name| self.sidecars.iter().any(|one| one.service.as_ref() == Some(name) && one.is_ready() && lives(one));
        holder.is_running() && main.is_ready() && lives(main) && wanted.map(|(name, _)| name).all(has)
    }
}
