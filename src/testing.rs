//! Builders of values that many tests need. Behind feature `testing`, on for our own tests.

pub mod openmetrics;
mod route;

pub use route::route;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::graph::{
    Container, EndpointMode, Graph, Healthcheck, Network, NetworkMode, Placement, PullPolicy, Restart, RestartPace,
    Scale, Service,
};
use crate::ids::{ProjectName, ServiceName};
use crate::model::{ComposeHash, Export, Serving};
use crate::place::Assignments;
use crate::plan::{Addresses, ContainerState, Desired, Health, ObservedContainer};

/// Returns a graph of services that want one replica each and nothing else.
///
/// # Panics
/// On names that are not valid.
pub fn graph(project: &str, services: &[&str]) -> Graph {
    Graph {
        project: ProjectName::new(project).expect("a project name"),
        working_dir: "/project".into(),
        config_files: vec!["/project/compose.yaml".into()],
        services: services.iter().map(|name| (ServiceName::new(*name).expect("a service name"), service())).collect(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        pod_volumes: BTreeMap::new(),
        disabled: BTreeSet::new(),
        profiles: BTreeMap::new(),
        files: BTreeMap::new(),
    }
}

/// Returns a service with one replica of a container that says nothing but its image.
pub fn service() -> Service {
    Service {
        scale: Scale::Replicas(1),
        container: Container { image: "app".into(), ..Container::default() },
        network: NetworkMode::Networks(Vec::new()),
        depends_on: Vec::new(),
        links: Vec::new(),
        ports: Vec::new(),
        expose: Vec::new(),
        restart: Restart::Unset,
        restart_pace: RestartPace::default(),
        rollout: None,
        placement: Placement::default(),
        endpoint_mode: EndpointMode::Vip,
        stop_grace: Duration::from_secs(10),
        attach: true,
        pull: PullPolicy::Missing,
        part: None,
        ambassadors: Vec::new(),
        external_links: Vec::new(),
        export: Export::Nothing,
        serving: Serving::default(),
        spec_hash: "spec".into(),
        spec_parts: BTreeMap::new(),
        compose_hash: ComposeHash::default(),
    }
}

/// Returns a network that says nothing but its name.
pub fn network(name: &str) -> Network {
    Network {
        name: name.to_owned(),
        external: false,
        internal: false,
        driver: None,
        driver_opts: BTreeMap::new(),
        labels: BTreeMap::new(),
        subnet: None,
        gateway: None,
        ip_range: None,
        aux_addresses: BTreeMap::new(),
        enable_ipv6: None,
        ipv6_pools: Vec::new(),
        ipam_options: BTreeMap::new(),
        attachable: false,
        spec_hash: String::new(),
        compose_hash: String::new(),
    }
}

/// Returns a graph as desired state of the first `up`: not placed, not addressed, all services enabled.
pub fn desired(graph: Graph) -> Desired {
    Desired {
        revision: 1,
        generation: 1,
        enabled: graph.services.keys().cloned().collect(),
        graph,
        assignments: Assignments::default(),
        addresses: Addresses::default(),
        no_recreate: false,
        recreate_before: BTreeMap::new(),
        renew_before: BTreeMap::new(),
        remove_orphans: false,
        ignore_orphans: false,
        oneoffs_before: None,
        unstarted: BTreeSet::new(),
        rolled: BTreeSet::new(),
        rolling_since: BTreeMap::new(),
        asked: BTreeMap::new(),
        stop_timeout: None,
        hosts: BTreeSet::new(),
    }
}

/// Returns a check that runs `true`, and says nothing of times.
pub fn healthcheck() -> Healthcheck {
    let test = vec!["CMD".to_owned(), "true".to_owned()];
    Healthcheck { test, interval: None, timeout: None, retries: None, start_period: None, start_interval: None }
}

/// Returns a running container of replica `number` without a health check.
///
/// # Panics
/// On names that are not valid.
pub fn container(project: &str, service: &str, number: u32) -> ObservedContainer {
    ObservedContainer {
        id: format!("{project}-{service}-{number}-id"),
        name: format!("{project}-{service}-{number}"),
        project: Some(ProjectName::new(project).expect("a project name")),
        service: Some(ServiceName::new(service).expect("a service name")),
        number: Some(number),
        oneoff: false,
        spec_hash: Some("spec".into()),
        generation: Some(1),
        image_id: "image".into(),
        state: ContainerState::Running { health: Health::None },
        created_at: String::new(),
        started_at: "2026-01-01T00:00:00Z".into(),
        finished_at: String::new(),
        command: String::new(),
        networks: BTreeMap::new(),
        network_mode: String::new(),
        volumes: BTreeMap::new(),
        labels: BTreeMap::new(),
        published: Vec::new(),
        probe: None,
    }
}
