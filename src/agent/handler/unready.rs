//! Why nobody answers for a service: what keeps its pods from being ready, in few words.

use std::collections::BTreeMap;

use crate::api::types::ServiceSeen;
use crate::graph::{NetworkMode, Role, Service};
use crate::ids::{HostName, PodId, ServiceName};
use crate::plan::{Asked, ContainerState, Desired, Health, Observed, ObservedContainer};

use super::super::shared::{Aim, Shared};

/// Reasons that are told at most.
const TOLD: usize = 3;

/// The pods of a project that are there, each as one container.
pub(super) struct Pods<'a> {
    observed: &'a Observed,
    containers: BTreeMap<PodId, &'a ObservedContainer>,
    /// The containers of pods of several, by who is to be blamed first.
    members: BTreeMap<PodId, BTreeMap<(Blame, PodId), &'a ObservedContainer>>,
    ready: BTreeMap<ServiceName, usize>,
}

/// Which container of a pod is to be blamed before others: without the first the next ones do not start, and sidecars end with
/// the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Blame {
    Init,
    Main,
    Sidecar,
    Holder,
}

impl<'a> Pods<'a> {
    /// Looks at what is of a project: all of it, and `folded` with each pod as one container.
    pub(super) fn of(folded: &'a Observed, all: &'a Observed) -> Self {
        let (containers, ready) = (BTreeMap::new(), BTreeMap::new());
        let mut pods = Self { observed: folded, containers, members: members(all), ready };
        for container in folded.hosts.values().flat_map(|host| host.containers.values()) {
            let Some(pod) = container.pod() else { continue };
            if container.is_ready() {
                *pods.ready.entry(pod.service.clone()).or_default() += 1;
            }
            // Two containers may be one pod while it is made anew.
            let runs = pods.containers.get(&pod).is_some_and(|other| other.is_running());
            if !runs {
                pods.containers.insert(pod, container);
            }
        }
        pods
    }

    /// Says why no pod of a service is ready; `None`: one is.
    pub(super) fn unready(&self, desired: &Desired, service: &ServiceName) -> Option<String> {
        if self.ready.contains_key(service) {
            return None;
        }
        if let Some(off) = desired.graph.off(service) {
            return Some(format!("`{service}` is {off}"));
        }
        if !desired.enabled.contains(service) {
            return Some(format!("`{service}` was never asked to run"));
        }
        let mut reasons: Vec<String> = Vec::new();
        let placed = desired.assignments.pods.range(PodId::all_of(service)).map(|(pod, host)| (pod, Some(host)));
        // One whose host is away may be both: no other one can take it.
        let is_placed = |pod: &&PodId| desired.assignments.pods.contains_key(*pod);
        let unplaced = desired.assignments.unplaced.iter().map(|one| &one.pod);
        let unplaced = unplaced.filter(|pod| pod.service == *service && !is_placed(pod));
        for (pod, host) in placed.chain(unplaced.map(|pod| (pod, None))) {
            let reason = self.reason(desired, pod, host);
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        if reasons.is_empty() {
            return Some(format!("`{service}` has no pods (scale 0)"));
        }
        let more = reasons.len().saturating_sub(TOLD);
        reasons.truncate(TOLD);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        Some(format!("{}{more}", reasons.join(", ")))
    }

    fn reason(&self, desired: &Desired, pod: &PodId, host: Option<&HostName>) -> String {
        let Some(host) = host else { return format!("no host can take `{pod}`") };
        if !self.observed.hosts.contains_key(host) {
            return format!("host `{host}` does not answer");
        }
        if desired.asked.get(pod).is_some_and(Asked::is_rest) {
            return format!("`{pod}` was stopped by hand");
        }
        // While the main one does not run, the holder stands for the pod, which always does.
        if let Some(told) = self.members.get(pod).and_then(failed) {
            return told;
        }
        let Some(container) = self.containers.get(pod) else { return format!("`{pod}` has no container yet") };
        told(pod, container.checked_state())
    }

    /// Returns whether all that is wanted of a service has ended well and stays so.
    fn is_done(&self, desired: &Desired, name: &ServiceName, service: &Service) -> bool {
        let mut pods = desired.assignments.pods.range(PodId::all_of(name)).map(|(pod, _)| pod).peekable();
        pods.peek().is_some()
            && pods.all(|pod| match self.containers.get(pod).map(|one| one.state) {
                Some(ContainerState::Exited { code: 0, by_itself }) => service.stays_ended(0, by_itself),
                _ => false,
            })
    }
}

/// Says how a container that is not ready is.
fn told(pod: &PodId, state: ContainerState) -> String {
    match state {
        ContainerState::Running { health: Health::Unhealthy } => format!("`{pod}` is unhealthy"),
        ContainerState::Running { .. } => format!("`{pod}` starts"),
        ContainerState::Restarting => format!("`{pod}` ends again and again"),
        ContainerState::Exited { code, .. } => format!("`{pod}` ended with {code}"),
        other => format!("`{pod}` is {}", other.word()),
    }
}

/// Returns the containers of pods of several.
fn members(observed: &Observed) -> BTreeMap<PodId, BTreeMap<(Blame, PodId), &ObservedContainer>> {
    let mut pods: BTreeMap<_, BTreeMap<_, &ObservedContainer>> = BTreeMap::new();
    for container in observed.hosts.values().flat_map(|host| host.containers.values()) {
        let Some((part, own)) = container.part().zip(container.pod()) else { continue };
        let blame = match part.role {
            Role::Init => Blame::Init,
            Role::Main => Blame::Main,
            Role::Sidecar => Blame::Sidecar,
            Role::Holder => Blame::Holder,
            Role::PreStart => continue,
        };
        let key = (blame, own.clone());
        let members = pods.entry(PodId::new(part.of, own.number)).or_default();
        if !members.get(&key).is_some_and(|other| other.is_running()) {
            members.insert(key, container);
        }
    }
    pods
}

/// Says which container of a pod has failed, and how; `None`: none has.
fn failed(members: &BTreeMap<(Blame, PodId), &ObservedContainer>) -> Option<String> {
    members.iter().find_map(|((blame, own), container)| match container.checked_state() {
        // It has prepared the pod.
        ContainerState::Exited { code: 0, .. } if *blame == Blame::Init => None,
        state @ (ContainerState::Exited { .. }
        | ContainerState::Restarting
        | ContainerState::Running { health: Health::Unhealthy }) => Some(told(own, state)),
        _ => None,
    })
}

/// Returns the services of all projects that others reach, with the reason where no pod of one is ready. Those whose work is
/// done are not among them.
pub(super) fn services(shared: &Shared) -> Vec<ServiceSeen> {
    let mut all = Vec::new();
    for record in shared.desired() {
        let Some(desired) = record.desired.as_ref().filter(|_| !matches!(record.aim, Aim::Down(_))) else { continue };
        let project = &desired.graph.project;
        let observed = shared.observed(Some(project));
        let folded = observed.folded(&desired.graph);
        let pods = Pods::of(&folded, &observed);
        let fronts = desired.graph.services.iter().filter(|(name, _)| desired.graph.front(name) == *name);
        for (name, service) in fronts.filter(|(name, _)| desired.enabled.contains(*name)) {
            if !is_reached(desired, name, service) {
                continue;
            }
            let why = match record.aim {
                Aim::Stopped(_) => Some("it is stopped".to_owned()).filter(|_| !pods.ready.contains_key(name)),
                _ => pods.unready(desired, name),
            };
            if why.is_none() || !pods.is_done(desired, name, service) {
                all.push(ServiceSeen { project: project.clone(), service: name.clone(), why });
            }
        }
    }
    all
}

/// Returns whether a service has an address or port that leads to it.
fn is_reached(desired: &Desired, name: &ServiceName, service: &Service) -> bool {
    let published = || desired.addresses.ports.iter().any(|port| port.service == *name);
    let holds = |owner: &ServiceName| desired.graph.front(owner) == name;
    match &service.network {
        NetworkMode::Networks(_) => true,
        // That of the pod's own holder.
        NetworkMode::Service(owner) if holds(owner) => {
            let holder = desired.graph.services.get(owner);
            holder.is_some_and(|holder| matches!(holder.network, NetworkMode::Networks(_))) || published()
        }
        _ => published() || !service.serving.routes.is_empty(),
    }
}
