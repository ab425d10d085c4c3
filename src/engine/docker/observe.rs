//! What is there: three list requests made at once, and their answers as [`ObservedHost`].
//!
//! A list says everything but when a container was started and when it ended. That is asked by an inspect once per
//! start and once per end, and kept. Starts are told apart by the ids of the container's endpoints, which the engine
//! makes anew each time (seen on 20.10); of ends that nobody saw in between only another exit code tells.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings,
    GenericResourcesInner, HealthStatusEnum, MountPoint, Network, PortBinding, PortMap, PortSummary,
    PortSummaryTypeEnum, SystemInfo, Volume,
};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptions, ListVolumesOptions,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::{DockerEngine, Tried, podman};
use crate::engine::translate::ApiVersion;
use crate::engine::{EngineError, EngineInfo, EngineKind, Result, label};
use crate::graph::Protocol;
use crate::ids::ProjectName;
use crate::observed::{
    ContainerState, EnginePort, Health, ObservedContainer, ObservedHost, ObservedNetwork, ObservedVolume,
};
use crate::place::{Devices, HostFacts, Kinds};

/// Inspects under way at once: enough to hide their latency, few enough not to crowd out others.
const PARALLEL_INSPECTS: usize = 8;

impl DockerEngine {
    /// Three list requests, and an inspect for each container whose last start or end this client has not asked for.
    pub(super) async fn observe_host(&self, project: Option<&ProjectName>) -> Result<ObservedHost> {
        let filter = match project {
            Some(project) => format!("{}={project}", label::PROJECT),
            None => label::PROJECT.to_owned(),
        };
        let volumes = self.call(
            "volume_list",
            Tried::new("list volumes", ""),
            self.docker.list_volumes(None::<ListVolumesOptions>),
        );
        if self.kind == EngineKind::Podman {
            let (containers, networks, volumes) =
                tokio::try_join!(self.podman_containers(&filter), self.podman_networks(), volumes)?;
            let volumes = volumes.volumes.unwrap_or_default().into_iter().map(volume).collect();
            return Ok(ObservedHost { containers, networks, volumes, images: BTreeMap::new() });
        }
        let filters = HashMap::from([("label", vec![filter.as_str()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let (containers, networks, volumes) = tokio::try_join!(
            self.call("container_list", Tried::new("list containers", ""), self.docker.list_containers(Some(options))),
            self.call(
                "network_list",
                Tried::new("list networks", ""),
                self.docker.list_networks(None::<ListNetworksOptions>)
            ),
            volumes,
        )?;
        let containers = stream::iter(containers)
            .map(|summary| self.listed_with_start(summary))
            .buffer_unordered(PARALLEL_INSPECTS)
            .try_filter_map(|found| async { Ok(found.map(|container| (container.id.clone(), container))) });
        Ok(ObservedHost {
            containers: containers.try_collect().await?,
            networks: networks.into_iter().map(network).map(|network| (network.name.clone(), network)).collect(),
            volumes: volumes.volumes.unwrap_or_default().into_iter().map(volume).collect(),
            images: BTreeMap::new(),
        })
    }

    /// Returns `None` for a container that went away since it was listed.
    async fn listed_with_start(&self, summary: ContainerSummary) -> Result<Option<ObservedContainer>> {
        let seen = listed(summary);
        if matches!(seen.container.state, ContainerState::Created) {
            return Ok(Some(seen.container));
        }
        if let Some(Known { started_at, finished_at, .. }) = self.known.of(&seen) {
            return Ok(Some(ObservedContainer { started_at, finished_at, ..seen.container }));
        }
        match self.inspect(&seen.container.id).await {
            Ok(response) => Ok(Some(self.known.remember(inspected(response)))),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for everything about one container.
    pub(super) async fn inspect(&self, id_or_name: &str) -> Result<ContainerInspectResponse> {
        let tried = Tried::new("look at container", id_or_name).what("container");
        if self.kind == EngineKind::Podman {
            return self.call("container_inspect", tried, self.podman_container(id_or_name)).await;
        }
        let request = self.docker.inspect_container(id_or_name, None::<InspectContainerOptions>);
        self.call("container_inspect", tried, request).await
    }
}

/// A container, and what tells this start or end of it from others; empty where the engine shows nothing of the kind.
#[derive(Debug)]
pub(super) struct Seen {
    container: ObservedContainer,
    mark: String,
}

/// What a list does not say of a container.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    mark: String,
    started_at: String,
    finished_at: String,
}

/// When containers were started and ended, by id.
#[derive(Debug, Default)]
pub(super) struct Times(Mutex<BTreeMap<String, Known>>);

impl Times {
    /// Forgotten all at once above this: nobody tells this cache what is gone for good.
    const LIMIT: usize = 4096;

    fn of(&self, seen: &Seen) -> Option<Known> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&seen.container.id).filter(|known| !known.mark.is_empty() && known.mark == seen.mark).cloned()
    }

    pub(super) fn remember(&self, seen: Seen) -> ObservedContainer {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::LIMIT {
            known.clear();
        }
        let Seen { container, mark } = seen;
        let (started_at, finished_at) = (container.started_at.clone(), container.finished_at.clone());
        known.insert(container.id.clone(), Known { mark, started_at, finished_at });
        container
    }
}

/// Returns the mark of a container that runs with these endpoints or has ended.
fn mark(state: ContainerState, endpoints: &HashMap<String, EndpointSettings>) -> String {
    if let ContainerState::Exited { code, .. } = state {
        return format!("ended with {code}");
    }
    let mut ids: Vec<_> = endpoints.values().filter_map(|endpoint| endpoint.endpoint_id.as_deref()).collect();
    ids.sort_unstable();
    ids.concat()
}

/// Reads an entry of the container list.
fn listed(summary: ContainerSummary) -> Seen {
    let endpoints = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let name = summary.names.unwrap_or_default().into_iter().find(|name| !name[1.min(name.len())..].contains('/'));
    let parts = Parts {
        id: summary.id.unwrap_or_default(),
        name: name.unwrap_or_default(),
        labels: summary.labels.unwrap_or_default(),
        image_id: summary.image_id.unwrap_or_default(),
        state: listed_state(summary.state, summary.status.as_deref().unwrap_or_default()),
        created_at: summary
            .created
            .and_then(|time| Timestamp::from_second(time).ok())
            .map(whole_seconds)
            .unwrap_or_default(),
        started_at: String::new(),
        finished_at: String::new(),
        command: summary.command.unwrap_or_default(),
        endpoints,
        network_mode: summary.host_config.and_then(|config| config.network_mode).unwrap_or_default(),
        mounts: summary.mounts.unwrap_or_default(),
        published: summary.ports.unwrap_or_default().iter().filter_map(listed_port).collect(),
    };
    parts.seen()
}

/// Reads the answer of an inspect.
pub(super) fn inspected(response: ContainerInspectResponse) -> Seen {
    let state = response.state.unwrap_or_default();
    // The engine's word for never.
    let time = |time: &Option<String>| time.clone().filter(|time| !time.starts_with("0001-")).unwrap_or_default();
    let words = response.path.into_iter().chain(response.args.unwrap_or_default());
    let config = response.config.unwrap_or_default();
    let settings = response.network_settings.unwrap_or_default();
    let parts = Parts {
        id: response.id.unwrap_or_default(),
        name: response.name.unwrap_or_default(),
        labels: config.labels.unwrap_or_default(),
        image_id: response.image.unwrap_or_default(),
        state: inspected_state(&state),
        created_at: response.created.and_then(|time| time.parse().ok()).map(whole_seconds).unwrap_or_default(),
        started_at: time(&state.started_at),
        finished_at: time(&state.finished_at),
        command: words.map(quoted).collect::<Vec<_>>().join(" "),
        endpoints: settings.networks.unwrap_or_default(),
        network_mode: response.host_config.and_then(|config| config.network_mode).unwrap_or_default(),
        mounts: response.mounts.unwrap_or_default(),
        published: inspected_ports(settings.ports.unwrap_or_default()),
    };
    parts.seen()
}

/// A word of a command as the engine's lists have it. Source: moby, daemon/list.go `refreshImage` and container/view.go.
fn quoted(word: String) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word }
}

/// What lists and inspects have in common.
struct Parts {
    id: String,
    name: String,
    labels: HashMap<String, String>,
    image_id: String,
    state: ContainerState,
    created_at: String,
    started_at: String,
    finished_at: String,
    command: String,
    endpoints: HashMap<String, EndpointSettings>,
    network_mode: String,
    mounts: Vec<MountPoint>,
    published: Vec<EnginePort>,
}

impl Parts {
    fn seen(self) -> Seen {
        let mark = mark(self.state, &self.endpoints);
        let mut published = self.published;
        published.sort_unstable();
        published.dedup();
        let labels: BTreeMap<_, _> = self.labels.into_iter().collect();
        let volumes = self.mounts.into_iter().filter_map(|mount| {
            let name = mount.name.filter(|name| !name.is_empty())?;
            Some((mount.destination?, name))
        });
        let container = ObservedContainer {
            id: self.id,
            name: self.name.trim_start_matches('/').to_owned(),
            project: parse_label(&labels, label::PROJECT),
            service: parse_label(&labels, label::SERVICE),
            number: parse_label(&labels, label::NUMBER),
            oneoff: labels.get(label::ONEOFF).is_some_and(|value| value == "True"),
            spec_hash: labels.get(label::SPEC_HASH).cloned(),
            generation: parse_label(&labels, label::GENERATION),
            image_id: self.image_id,
            state: self.state,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            command: self.command,
            networks: self.endpoints.iter().map(|(name, endpoint)| (name.clone(), address(endpoint))).collect(),
            network_mode: self.network_mode,
            volumes: volumes.collect(),
            labels,
            published,
            probe: None,
        };
        Seen { container, mark }
    }
}

/// Lists have whole seconds, inspects more: both shall say the same.
fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// Reads a port of a list; `None`: it is not published.
fn listed_port(port: &PortSummary) -> Option<EnginePort> {
    let protocol = match port.typ? {
        PortSummaryTypeEnum::UDP => Protocol::Udp,
        PortSummaryTypeEnum::SCTP => Protocol::Sctp,
        PortSummaryTypeEnum::TCP | PortSummaryTypeEnum::EMPTY => Protocol::Tcp,
    };
    Some(EnginePort { address: port_address(port.ip.as_deref()), port: port.public_port?, protocol })
}

/// Reads the ports of an inspect: by `80/tcp`, where each is published.
fn inspected_ports(ports: PortMap) -> Vec<EnginePort> {
    let bindings = ports.into_iter().flat_map(|(name, bindings)| {
        let protocol = match name.rsplit_once('/') {
            Some((_, "udp")) => Protocol::Udp,
            Some((_, "sctp")) => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        bindings.unwrap_or_default().into_iter().map(move |binding| (protocol, binding))
    });
    let port = |(protocol, binding): (Protocol, PortBinding)| {
        let port = binding.host_port?.parse().ok()?;
        Some(EnginePort { address: port_address(binding.host_ip.as_deref()), port, protocol })
    };
    bindings.filter_map(port).collect()
}

fn port_address(text: Option<&str>) -> Option<IpAddr> {
    text?.parse().ok().filter(|address: &IpAddr| !address.is_unspecified())
}

fn parse_label<T: std::str::FromStr>(labels: &BTreeMap<String, String>, key: &str) -> Option<T> {
    labels.get(key)?.parse().ok()
}

fn address(endpoint: &EndpointSettings) -> Option<Ipv4Addr> {
    endpoint.ip_address.as_deref()?.parse().ok()
}

/// Reads state and status of a list: `exited` and `Exited (137) 3 seconds ago`, `running` and `Up 2 minutes (healthy)`.
/// Source of the texts: moby, container/state.go `String`.
fn listed_state(state: Option<ContainerSummaryStateEnum>, status: &str) -> ContainerState {
    use ContainerSummaryStateEnum as State;
    match state.unwrap_or(State::EMPTY) {
        State::RUNNING | State::STOPPING => ContainerState::Running { health: listed_health(status) },
        State::PAUSED => ContainerState::Paused,
        State::RESTARTING => ContainerState::Restarting,
        State::REMOVING => ContainerState::Removing,
        State::EXITED => ContainerState::Exited { code: listed_code(status), by_itself: false },
        State::DEAD => ContainerState::Dead,
        State::CREATED | State::EMPTY => ContainerState::Created,
    }
}

fn listed_health(status: &str) -> Health {
    match status.rsplit_once('(').map(|(_, rest)| rest.trim_end_matches(')')) {
        Some("healthy") => Health::Healthy,
        Some("unhealthy") => Health::Unhealthy,
        Some("health: starting" | "starting") => Health::Starting,
        _ => Health::None,
    }
}

fn listed_code(status: &str) -> i32 {
    let number = status.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(number, _)| number);
    // -1 cannot be mistaken for success; no engine is known to leave the number out.
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(-1)
}

fn inspected_state(state: &bollard::models::ContainerState) -> ContainerState {
    use ContainerStateStatusEnum as Status;
    match state.status.unwrap_or(Status::EMPTY) {
        Status::RUNNING | Status::STOPPING => {
            let health = state.health.as_ref().and_then(|health| health.status).map(|status| match status {
                HealthStatusEnum::STARTING => Health::Starting,
                HealthStatusEnum::HEALTHY => Health::Healthy,
                HealthStatusEnum::UNHEALTHY => Health::Unhealthy,
                HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => Health::None,
            });
            ContainerState::Running { health: health.unwrap_or(Health::None) }
        }
        Status::PAUSED => ContainerState::Paused,
        Status::RESTARTING => ContainerState::Restarting,
        Status::REMOVING => ContainerState::Removing,
        Status::EXITED => {
            let code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
            ContainerState::Exited { code, by_itself: false }
        }
        Status::DEAD => ContainerState::Dead,
        Status::CREATED | Status::EMPTY => ContainerState::Created,
    }
}

/// Name of the bridge interface where the user gives none: Docker's own rule.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

fn network(network: Network) -> ObservedNetwork {
    let id = network.id.unwrap_or_default();
    let driver = network.driver.unwrap_or_default();
    let options = network.options.unwrap_or_default();
    let bridge = match options.get(BRIDGE_NAME) {
        Some(name) if !name.is_empty() => name.clone(),
        _ if driver == "bridge" => format!("br-{}", id.get(..12).unwrap_or(&id)),
        _ => String::new(),
    };
    let pools = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let ipv4 = pools.into_iter().find_map(|pool| Some((pool.subnet?.parse().ok()?, pool.gateway)));
    let (subnet, gateway) = ipv4.unzip();
    ObservedNetwork {
        id,
        name: network.name.unwrap_or_default(),
        driver,
        subnet,
        gateway: gateway.flatten().and_then(|text| text.split('/').next()?.parse().ok()),
        ipv6: network.enable_ipv6.unwrap_or_default(),
        internal: network.internal.unwrap_or_default(),
        bridge,
        bridge_on_demand: false,
        labels: network.labels.unwrap_or_default().into_iter().collect(),
    }
}

fn volume(volume: Volume) -> (String, ObservedVolume) {
    let labels = volume.labels.into_iter().collect();
    (volume.name.clone(), ObservedVolume { name: volume.name, driver: volume.driver, labels })
}

/// Counts what `node-generic-resources` say: a number of a kind, or names, each of which is one.
fn kinds(resources: Vec<GenericResourcesInner>) -> Kinds {
    let mut kinds = Kinds::new();
    for resource in resources {
        let numbered =
            resource.discrete_resource_spec.and_then(|spec| Some((spec.kind?, spec.value.unwrap_or_default())));
        let named = resource.named_resource_spec.and_then(|spec| Some((spec.kind?, 1)));
        for (kind, number) in numbered.into_iter().chain(named) {
            *kinds.entry(kind).or_default() += number;
        }
    }
    kinds
}

/// Reads what an engine says of itself.
pub(super) fn engine_info(info: SystemInfo, api: ApiVersion, kind: EngineKind) -> EngineInfo {
    let labels = info.labels.unwrap_or_default();
    let engine_labels = labels.iter().map(|text| text.split_once('=').unwrap_or((text, "")));
    // `name=seccomp,profile=default`
    let security = info.security_options.unwrap_or_default().into_iter().filter_map(|option| {
        let name = option.split(',').find_map(|part| part.strip_prefix("name=")).map(str::to_owned);
        name.or_else(|| option.split(',').next().map(str::to_owned))
    });
    let (hostname, root_dir) = (info.name.unwrap_or_default(), info.docker_root_dir.unwrap_or_default());
    let version = info.server_version.unwrap_or_default();
    let mut pools = info.default_address_pools.into_iter().flatten().filter_map(|pool| pool.base);
    let has_ipv6_pool = kind == EngineKind::Podman
        || api >= ApiVersion::OWN_IPV6_POOL
        || pools.any(|base| base.parse::<ipnet::Ipv6Net>().is_ok());
    let id = match kind {
        EngineKind::Docker => info.id.unwrap_or_default(),
        EngineKind::Podman => podman::id(&hostname, &root_dir),
    };
    EngineInfo {
        kind,
        version: match kind {
            EngineKind::Docker => version,
            EngineKind::Podman => format!("podman {version}"),
        },
        api_version: api.to_string(),
        facts: HostFacts {
            engine_labels: engine_labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            hostname,
            id,
            os: info.os_type.unwrap_or_default(),
            arch: info.architecture.unwrap_or_default(),
            nano_cpus: info.ncpu.unwrap_or_default().saturating_mul(1_000_000_000),
            memory: info.mem_total.unwrap_or_default(),
            devices: Devices {
                kinds: kinds(info.generic_resources.unwrap_or_default()),
                runtimes: info.runtimes.unwrap_or_default().into_keys().collect(),
            },
            ..HostFacts::default()
        },
        security: security.collect(),
        root_dir,
        has_ipv6_pool,
    }
}

#[cfg(test)]
mod tests;
