//! What the agent says of projects and pods: put together from desired state, picture and loops. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::types::{ObjectState, PodStatus, Progress, ProjectSummary, PublishedStatus};
use crate::ids::{HostName, PodId, ProjectName, ServiceName};
use crate::lb::table::PublishedKey;
use crate::plan::{Asked, ContainerState, Desired, Health, Observed, ObservedContainer, Plan, Probed};

use super::super::shared::{ProjectState, Shared};

/// `Running` for every container of the services asked for that runs and that the plan leaves alone, as Docker Compose says
/// it; `Created` for those that are there and shall not be started.
pub(super) fn unmoved(
    desired: &Desired,
    asked: &BTreeSet<ServiceName>,
    plan: &Plan,
    observed: &Observed,
) -> Vec<Progress> {
    let moved: BTreeSet<String> =
        plan.steps.iter().map(|planned| super::super::execute::object(&planned.step, Some(desired))).collect();
    let containers =
        observed.hosts.iter().flat_map(|(host, seen)| seen.containers.values().map(move |one| (host, one)));
    let mut said: BTreeMap<PodId, Progress> = BTreeMap::new();
    for (host, container) in containers.filter(|(_, one)| !moved.contains(&format!("Container {}", one.name))) {
        let Some(pod) = container.pod().filter(|pod| desired.assignments.pods.get(pod) == Some(host)) else { continue };
        if !asked.contains(&pod.service) {
            continue;
        }
        let unstarted = desired.unstarted.contains(&pod);
        let word = match container.state {
            ContainerState::Running { .. } if !unstarted => "Running",
            ContainerState::Created if unstarted => "Created",
            _ => continue,
        };
        let event = Progress::Object {
            kind: "Container".into(),
            name: container.name.clone(),
            host: host.clone(),
            status: word.into(),
            state: ObjectState::Done,
            detail: None,
        };
        said.insert(pod, event);
    }
    said.into_values().collect()
}

pub(super) fn summary_of<'a>(
    summaries: &'a mut BTreeMap<ProjectName, ProjectSummary>,
    name: &ProjectName,
) -> &'a mut ProjectSummary {
    summaries.entry(name.clone()).or_insert_with(|| ProjectSummary {
        name: name.clone(),
        revision: None,
        states: BTreeMap::new(),
        config_files: Vec::new(),
        unplaced: Vec::new(),
    })
}

/// Returns of the pods that have no host why, a sentence for each.
pub(super) fn unplaced(desired: &Desired) -> Vec<String> {
    let wanted = desired.assignments.unplaced.iter().filter(|one| desired.enabled.contains(&one.pod.service));
    wanted.map(|one| one.sentence(&format!("`{}`", one.pod), false)).collect()
}

pub(super) fn pods(desired: Option<&Desired>, observed: &Observed, state: &ProjectState) -> Vec<PodStatus> {
    let mut found: BTreeMap<PodId, (&HostName, &ObservedContainer)> = BTreeMap::new();
    for (host, seen) in &observed.hosts {
        for container in seen.containers.values() {
            if let Some(pod) = container.pod() {
                let running = found.get(&pod).is_some_and(|(_, other)| other.is_running());
                if !running {
                    found.insert(pod, (host, container));
                }
            }
        }
    }
    let wanted: BTreeMap<PodId, HostName> = desired.map(|d| d.assignments.pods.clone()).unwrap_or_default();
    let unplaced = desired.into_iter().flat_map(|d| &d.assignments.unplaced).map(|one| &one.pod);
    let ids: std::collections::BTreeSet<PodId> = wanted.keys().chain(found.keys()).chain(unplaced).cloned().collect();
    ids.into_iter()
        .map(|pod| {
            let host = found.get(&pod).map(|(host, _)| (*host).clone());
            let seen = found.get(&pod).map(|(_, container)| *container);
            let name = seen.map_or_else(
                || desired.map(|d| d.graph.container_name(&pod)).unwrap_or_default(),
                |container| container.name.clone(),
            );
            let image = desired
                .and_then(|d| d.graph.services.get(&pod.service))
                .map_or_else(|| seen.map(|c| c.image_id.clone()).unwrap_or_default(), |s| s.container.image.clone());
            PodStatus {
                host: host.or_else(|| wanted.get(&pod).cloned()),
                container: seen.map(|container| container.id.clone()),
                image,
                state: seen.map(ObservedContainer::checked_state),
                created_at: seen.map(|container| container.created_at.clone()).unwrap_or_default(),
                started_at: seen.map(|container| container.started_at.clone()).unwrap_or_default(),
                finished_at: seen.map(|container| container.finished_at.clone()).unwrap_or_default(),
                command: seen.map(|container| container.command.clone()).unwrap_or_default(),
                ready: seen.is_some_and(ObservedContainer::is_ready),
                reason: by_hand(desired, &pod, seen).or_else(|| reason(&pod, &name, seen, state)),
                resting: is_resting(desired, &pod, seen),
                wanted: wanted.contains_key(&pod),
                part: seen.and_then(ObservedContainer::part).or_else(|| {
                    desired.and_then(|d| d.graph.services.get(&pod.service)).and_then(|service| service.part.clone())
                }),
                name,
                pod,
            }
        })
        .collect()
}

/// Whether somebody ended it by hand, and it stays so.
fn is_resting(desired: Option<&Desired>, pod: &PodId, seen: Option<&ObservedContainer>) -> bool {
    let asked = desired.and_then(|desired| desired.asked.get(pod));
    asked.is_some_and(|asked| match asked {
        Asked::Killed { run, .. } => seen.is_some_and(|one| !one.state.is_active() && run.is_of(one)),
        asked => asked.is_rest(),
    })
}

/// What somebody made of a pod by hand.
fn by_hand(desired: Option<&Desired>, pod: &PodId, seen: Option<&ObservedContainer>) -> Option<String> {
    let asked = desired?.asked.get(pod)?;
    let paused = matches!(asked, Asked::Paused { .. }) && seen.is_some_and(|one| one.state == ContainerState::Paused);
    asked.told(pod).filter(|_| paused || is_resting(desired, pod, seen))
}

/// Returns the containers that `run` made, as pods of number 0.
pub(super) fn oneoffs(desired: Option<&Desired>, observed: &Observed) -> Vec<PodStatus> {
    let containers =
        observed.hosts.iter().flat_map(|(host, seen)| seen.containers.values().map(move |one| (host, one)));
    let oneoffs = containers.filter(|(_, one)| one.oneoff);
    let mut told: Vec<PodStatus> = oneoffs.filter_map(|(host, one)| PodStatus::of_oneoff(host, one)).collect();
    for one in &mut told {
        if let Some(service) = desired.and_then(|desired| desired.graph.services.get(&one.pod.service)) {
            one.image.clone_from(&service.container.image);
        }
    }
    told
}

/// Why a pod is not ready.
fn reason(pod: &PodId, name: &str, seen: Option<&ObservedContainer>, state: &ProjectState) -> Option<String> {
    if let Some(message) = state.errors.get(&format!("Container {name}")) {
        return Some(message.clone());
    }
    let plan = state.plan.as_ref()?;
    let prefix = format!("{pod} ");
    let quoted = format!("`{pod}`");
    let mut notes = plan.failures.iter().map(|failure| &failure.message).chain(&plan.notes);
    if let Some(note) = notes.find(|note| note.starts_with(&prefix) || note.contains(&quoted)) {
        return Some(note.clone());
    }
    let seen = seen?;
    match (seen.state, &seen.probe) {
        (ContainerState::Running { health: Health::Starting }, _) => Some("its health check has not passed yet".into()),
        (ContainerState::Running { health: Health::Unhealthy }, _) => Some("its health check fails".into()),
        (ContainerState::Running { .. }, Some(Probed { health: Health::Starting, said })) if said.is_empty() => {
            Some("its probe has no answer yet".into())
        }
        (ContainerState::Running { .. }, Some(Probed { health: Health::Starting, said })) => {
            Some(format!("its probe has not passed yet: {said}"))
        }
        (ContainerState::Running { .. }, Some(Probed { health: Health::Unhealthy, said })) => {
            Some(format!("its probe fails: {said}"))
        }
        _ => None,
    }
}

pub(super) fn published(shared: &Shared, desired: &Desired) -> Vec<PublishedStatus> {
    let problems = shared.dataplane.published_problems(shared);
    let ports = desired.addresses.ports.iter();
    ports
        .map(|port| {
            let key = PublishedKey { host_ip: port.host_ip, port: port.published, protocol: port.protocol };
            PublishedStatus {
                service: port.service.clone(),
                host_ip: port.host_ip,
                published: port.published,
                target: port.target,
                protocol: port.protocol,
                problem: problems.get(&key).cloned(),
            }
        })
        .collect()
}

pub(super) fn addresses(
    desired: &Desired,
) -> BTreeMap<crate::ids::ResourceKey, BTreeMap<crate::ids::ServiceName, std::net::Ipv4Addr>> {
    desired.addresses.networks.iter().map(|(key, network)| (key.clone(), network.services.clone())).collect()
}
