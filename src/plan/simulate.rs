//! Engines as values: what a step does to the observed state, for tests of plans.
//!
//! Stricter than the real thing: a step whose ground was not prepared by the steps before it panics here (a network in
//! use, a name taken, a namespace whose owner does not run), where an engine might get by or fail late.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::graph::{MountSource, NetworkMode, Service};
use crate::ids::{HostName, PodId, ResourceKey, ServiceName};
use crate::observed::{
    ContainerState, Health, OWNERS_LABEL, Observed, ObservedContainer, ObservedHost, ObservedNetwork, ObservedVolume,
    POD_LABEL, PROJECT_LABEL, ROLE_LABEL, SPEC_HASH_LABEL, SPEC_PARTS_LABEL, spec_parts_label,
};

use super::{Desired, PlannedStep, Step};

/// Makes `step` come true in `observed`. `desired` is needed for steps that make or start something; `serial` grows from
/// call to call and gives ids and times.
///
/// # Panics
/// When the step is not possible in that state.
pub fn apply(step: &PlannedStep, serial: u32, observed: &mut Observed, desired: Option<&Desired>) {
    let now = (Timestamp::UNIX_EPOCH + SignedDuration::from_secs(i64::from(serial))).to_string();
    let id = format!("{serial:064x}");
    let host = observed.hosts.get_mut(&step.host).expect("the host answers");
    match (&step.step, desired) {
        (Step::CreateNetwork { network }, Some(desired)) => create_network(host, network, desired),
        (Step::CreateVolume { volume }, Some(desired)) => create_volume(host, volume, desired),
        (Step::CreateContainer { pod, name, replaces }, Some(desired)) => {
            assert!(
                replaces.as_ref().is_none_or(|old| !host.containers.contains_key(old)),
                "{pod} replaces one that is there"
            );
            let container = New { pod, name, id, now, desired }.container(host);
            host.containers.insert(container.id.clone(), container);
        }
        (Step::StartContainer { pod, name }, Some(desired)) => start(host, pod, name, now, desired),
        (Step::Drain { id, .. }, _) => assert!(host.containers.contains_key(id), "drained container is there"),
        (Step::StopContainer { id, .. }, _) => {
            let container = host.containers.get_mut(id).expect("stopped container is there");
            assert!(matches!(container.state, ContainerState::Running { .. } | ContainerState::Restarting), "it runs");
            container.state = ContainerState::Exited { code: 0, by_itself: false };
        }
        (Step::RemoveContainer { id, .. }, _) => {
            let container = host.containers.remove(id).expect("removed container is there");
            assert!(!container.state.is_active(), "{} is removed while it runs", container.name);
        }
        (Step::Pause { id, .. }, _) => {
            let container = host.containers.get_mut(id).expect("paused container is there");
            assert!(container.is_running(), "{} runs", container.name);
            container.state = ContainerState::Paused;
        }
        (Step::Kill { id, .. }, _) => {
            let container = host.containers.get_mut(id).expect("killed container is there");
            assert!(container.state.is_active(), "{} runs", container.name);
            container.state = ContainerState::Exited { code: 137, by_itself: false };
        }
        (Step::Unpause { id, .. }, _) => {
            let container = host.containers.get_mut(id).expect("paused container is there");
            assert_eq!(container.state, ContainerState::Paused);
            let service = container.service.as_ref().zip(desired).and_then(|(name, d)| d.graph.services.get(name));
            container.state = ContainerState::Running { health: service.map_or(Health::None, first_health) };
        }
        (Step::RemoveNetwork { name }, _) => {
            let user = host.containers.values().find(|c| c.state.is_active() && c.networks.contains_key(name));
            assert!(user.is_none(), "network {name} is removed while {user:?} is on it");
            host.networks.remove(name).expect("removed network is there");
        }
        (Step::RemoveVolume { name }, _) => {
            assert!(!host.containers.values().any(|c| c.volumes.values().any(|v| v == name)), "{name} is mounted");
            host.volumes.remove(name).expect("removed volume is there");
        }
        (step, None) => panic!("{step:?} in a plan without a desired state"),
    }
}

fn labels(desired: &Desired, key: &str, value: &str) -> BTreeMap<String, String> {
    let project = (PROJECT_LABEL.to_owned(), desired.graph.project.to_string());
    BTreeMap::from([project, (key.to_owned(), value.to_owned())])
}

fn create_network(host: &mut ObservedHost, key: &ResourceKey, desired: &Desired) {
    let network = &desired.graph.networks[key];
    let addresses = desired.addresses.networks.get(key);
    let made = ObservedNetwork {
        id: format!("id of {}", network.name),
        name: network.name.clone(),
        driver: network.driver.clone().unwrap_or_else(|| "bridge".to_owned()),
        subnet: addresses.map(|addresses| addresses.subnet),
        gateway: addresses.map(|addresses| addresses.gateway),
        ipv6: network.enable_ipv6.unwrap_or_default(),
        internal: network.internal,
        bridge: format!("br-{key}"),
        bridge_on_demand: false,
        labels: labels(desired, SPEC_HASH_LABEL, &network.spec_hash),
    };
    assert!(host.networks.insert(network.name.clone(), made).is_none(), "network {key} is there already");
}

fn create_volume(host: &mut ObservedHost, key: &ResourceKey, desired: &Desired) {
    let volume = &desired.graph.volumes[key];
    let made = ObservedVolume {
        name: volume.name.clone(),
        driver: volume.driver.clone().unwrap_or_else(|| "local".to_owned()),
        labels: labels(desired, SPEC_HASH_LABEL, &volume.spec_hash),
    };
    assert!(host.volumes.insert(volume.name.clone(), made).is_none(), "volume {key} is there already");
}

/// A container about to be made.
struct New<'a> {
    pod: &'a PodId,
    name: &'a str,
    id: String,
    now: String,
    desired: &'a Desired,
}

impl New<'_> {
    fn container(self, host: &mut ObservedHost) -> ObservedContainer {
        let Self { pod, name, id, now, desired } = self;
        let service = &desired.graph.services[&pod.service];
        assert!(host.containers.values().all(|other| other.name != name), "name {name} is taken");
        let image = service.container.image.clone();
        let image_id = host.images.entry(image.clone()).or_insert_with(|| format!("sha256:{image}")).clone();
        let networks = networks(host, service, desired);
        let network_mode = match &service.network {
            NetworkMode::Service(owner) => {
                let owner =
                    find(host, &PodId::new(owner.clone(), pod.number)).expect("owner of the namespace is there");
                format!("container:{}", owner.id)
            }
            NetworkMode::Networks(_) => networks.first().cloned().unwrap_or_default(),
            NetworkMode::Host => "host".to_owned(),
            NetworkMode::None => "none".to_owned(),
            NetworkMode::Engine(mode) => mode.clone(),
        };
        ObservedContainer {
            id,
            name: name.to_owned(),
            project: Some(desired.graph.project.clone()),
            service: Some(pod.service.clone()),
            number: Some(pod.number),
            oneoff: false,
            spec_hash: Some(service.spec_hash.clone()),
            generation: Some(desired.generation),
            image_id,
            state: ContainerState::Created,
            created_at: now,
            started_at: String::new(),
            finished_at: String::new(),
            command: String::new(),
            networks: networks.into_iter().map(|name| (name, None)).collect(),
            network_mode,
            volumes: volumes(host, service, desired),
            labels: container_labels(desired, service).into_iter().chain(mounted(host, pod, service)).collect(),
            published: Vec::new(),
            probe: None,
        }
    }
}

/// Whose mounts it has; these must be there.
fn mounted(host: &ObservedHost, pod: &PodId, service: &Service) -> Option<(String, String)> {
    let source = |service: &ServiceName| {
        let container = find(host, &PodId::new(service.clone(), pod.number)).expect("whose mounts it has is there");
        format!("{service}={}", container.id)
    };
    let sources: Vec<String> = service.mounted_services().map(source).collect();
    (!sources.is_empty()).then(|| (OWNERS_LABEL.to_owned(), sources.join(",")))
}

fn container_labels(desired: &Desired, service: &Service) -> BTreeMap<String, String> {
    let mut labels = labels(desired, SPEC_PARTS_LABEL, &spec_parts_label(&service.spec_parts));
    if let Some(part) = &service.part {
        labels.insert(POD_LABEL.to_owned(), part.of.to_string());
        labels.insert(ROLE_LABEL.to_owned(), part.role.word().to_owned());
    }
    labels
}

fn networks(host: &ObservedHost, service: &Service, desired: &Desired) -> Vec<String> {
    let NetworkMode::Networks(attachments) = &service.network else { return Vec::new() };
    let names = attachments.iter().map(|attachment| desired.graph.networks[&attachment.network].name.clone());
    names.inspect(|name| assert!(host.networks.contains_key(name), "network {name} is there")).collect()
}

fn volumes(host: &ObservedHost, service: &Service, desired: &Desired) -> BTreeMap<String, String> {
    let mounts = service.container.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { volume, .. } => Some((mount.target.clone(), desired.graph.volumes[volume].name.clone())),
        _ => None,
    });
    mounts.inspect(|(_, name)| assert!(host.volumes.contains_key(name), "volume {name} is there")).collect()
}

fn find<'a>(host: &'a ObservedHost, pod: &PodId) -> Option<&'a ObservedContainer> {
    host.containers.values().find(|container| container.pod().as_ref() == Some(pod))
}

fn start(host: &mut ObservedHost, pod: &PodId, name: &str, now: String, desired: &Desired) {
    let service = &desired.graph.services[&pod.service];
    if let NetworkMode::Service(owner) = &service.network {
        // Beside it there may be one that was left over.
        let owner = PodId::new(owner.clone(), pod.number);
        let mut owners =
            host.containers.values().filter(|container| container.pod().as_ref() == Some(&owner)).peekable();
        assert!(owners.peek().is_some(), "owner of the namespace is there");
        assert!(owners.any(ObservedContainer::is_running), "{pod} is started before the owner of its namespace");
    }
    let networks = host.networks.clone();
    let container = host.containers.values_mut().find(|container| container.name == name).expect("it is there");
    assert!(matches!(container.state, ContainerState::Created | ContainerState::Exited { .. }), "{pod} does not run");
    assert!(container.networks.keys().all(|name| networks.contains_key(name)), "networks of {pod} are there");
    container.state = ContainerState::Running { health: first_health(service) };
    container.started_at = now;
}

/// Health of a container that was started just now.
fn first_health(service: &Service) -> Health {
    let check = service.container.healthcheck.as_ref();
    match check.and_then(|check| check.test.first()).map(String::as_str) {
        None | Some("NONE") => Health::None,
        Some(_) => Health::Starting,
    }
}

/// Lets time pass: checks pass, and containers of services that others await end with 0.
pub fn settle(observed: &mut Observed, desired: &Desired) {
    for container in observed.hosts.values_mut().flat_map(|host| host.containers.values_mut()) {
        let job = container.service.as_ref().is_some_and(|name| desired.graph.is_awaited_job(name));
        container.state = match container.state {
            ContainerState::Running { .. } if job => ContainerState::Exited { code: 0, by_itself: true },
            ContainerState::Running { health: Health::Starting } => ContainerState::Running { health: Health::Healthy },
            state => state,
        };
    }
}

/// Returns an observed state of engines that answer and have nothing.
pub fn empty(hosts: impl IntoIterator<Item = HostName>) -> Observed {
    Observed { hosts: hosts.into_iter().map(|name| (name, ObservedHost::default())).collect() }
}
