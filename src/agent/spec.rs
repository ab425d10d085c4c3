//! From desired state to what the engine is asked to make: names, labels, addresses, host paths. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::engine::{ContainerSpec, HostPort, NetworkSpec, SpecAttachment, SpecNetwork, VolumeSpec, label};
use crate::graph::{
    Attachment, Condition, Container, Graph, Mount, MountSource, Namespace, NetworkMode, PortMode, Recursion, Role,
    Service,
};
use crate::ids::{PodId, ResourceKey, ServiceName, SnapshotHash};
use crate::model::Medium;
use crate::net::addr::container_slice;
use crate::observed::spec_parts_label;
use crate::plan::Desired;
use crate::plan::desired::NetworkAddresses;

/// What a container spec needs that the desired state does not hold.
#[derive(Debug, Clone, Default)]
pub struct HostParts<'a> {
    /// Id of the image on this host.
    pub image: &'a str,
    /// `resolv.conf` on the host; `None`: the engine's.
    pub resolv_conf: Option<&'a Path>,
    /// Contents of configs and secrets on the host, by target in the container.
    pub files: BTreeMap<String, PathBuf>,
    /// The engine's socket on the host.
    pub engine_socket: &'a str,
    /// Where the snapshots are on the host that it mounts.
    pub snapshots: BTreeMap<SnapshotHash, PathBuf>,
    /// Anonymous volumes taken over: target to engine name.
    pub carried_volumes: BTreeMap<String, String>,
    /// Engine ids of the containers whose namespaces are shared, by their services.
    pub owners: BTreeMap<ServiceName, String>,
}

/// Returns what to ask the engine for to make a network of the project on the host with this slice of it; `None` for one
/// that orch does not make, or that has no slice for so many hosts.
pub fn network(desired: &Desired, key: &ResourceKey, host_index: u32) -> Option<NetworkSpec> {
    let network = desired.graph.networks.get(key)?;
    let addresses = desired.addresses.networks.get(key)?;
    let NetworkAddresses { subnet, gateway, vips, ip_range, .. } = *addresses;
    let ip_range = container_slice(subnet, vips, ip_range, host_index)?;
    let mut labels = network.labels.clone();
    labels.insert(label::PROJECT.into(), desired.graph.project.to_string());
    labels.insert(label::NETWORK.into(), key.to_string());
    labels.insert(label::VERSION.into(), env!("CARGO_PKG_VERSION").into());
    labels.insert(label::REVISION.into(), desired.revision.to_string());
    labels.insert(label::SPEC_HASH.into(), network.spec_hash.clone());
    if !network.compose_hash.is_empty() {
        labels.insert(label::CONFIG_HASH.into(), network.compose_hash.clone());
    }
    Some(NetworkSpec {
        name: network.name.clone(),
        driver: network.driver.clone().unwrap_or_else(|| "bridge".into()),
        driver_opts: network.driver_opts.clone(),
        internal: network.internal,
        attachable: network.attachable,
        subnet,
        gateway,
        ip_range,
        aux_addresses: network.aux_addresses.clone(),
        enable_ipv6: network.enable_ipv6,
        ipv6_pools: network.ipv6_pools.clone(),
        ipam_options: network.ipam_options.clone(),
        labels,
    })
}

/// Returns what to ask the engine for to make a volume of the project; `None` for one that orch does not make.
pub fn volume(desired: &Desired, key: &ResourceKey) -> Option<VolumeSpec> {
    let volume = desired.graph.volumes.get(key).filter(|volume| !volume.external)?;
    let mut labels = volume.labels.clone();
    labels.insert(label::PROJECT.into(), desired.graph.project.to_string());
    labels.insert(label::VOLUME.into(), key.to_string());
    labels.insert(label::VERSION.into(), env!("CARGO_PKG_VERSION").into());
    labels.insert(label::SPEC_HASH.into(), volume.spec_hash.clone());
    if !volume.compose_hash.is_empty() {
        labels.insert(label::CONFIG_HASH.into(), volume.compose_hash.clone());
    }
    Some(VolumeSpec {
        name: volume.name.clone(),
        driver: volume.driver.clone().unwrap_or_else(|| "local".into()),
        driver_opts: volume.driver_opts.clone(),
        labels,
    })
}

/// Returns what to ask the engine for to make a pod's container under `name`; `None` if the graph does not have it.
pub fn container(desired: &Desired, pod: &PodId, name: &str, parts: &HostParts<'_>) -> Option<ContainerSpec> {
    let service = desired.graph.services.get(&pod.service)?;
    let mut file_binds: Vec<(String, String)> = Vec::new();
    if let Some(path) = parts.resolv_conf {
        file_binds.push((path.display().to_string(), "/etc/resolv.conf".into()));
    }
    file_binds.extend(parts.files.iter().map(|(target, path)| (path.display().to_string(), target.clone())));
    Some(ContainerSpec {
        name: name.to_owned(),
        container: placed(&service.container, parts),
        image: parts.image.to_owned(),
        labels: container_labels(desired, pod, service, parts),
        network: spec_network(desired, pod, service, parts),
        volume_names: volume_names(desired, pod, service),
        carried_volumes: parts.carried_volumes.clone(),
        file_binds,
        host_ports: host_ports(service),
        exposed: service.expose.iter().map(|exposed| (exposed.port, exposed.protocol)).collect(),
        stop_grace: service.stop_grace,
        ..ContainerSpec::default()
    })
}

/// Digits of a one-off's slug that are in names.
const SLUG_IN_NAME: usize = 12;

/// What is said of a one-off beside its service.
#[derive(Debug, Clone)]
pub struct OneoffParts<'a> {
    /// 64 hex digits, of which its name has the first.
    pub slug: &'a str,
    /// Labels that the user gave.
    pub labels: &'a BTreeMap<String, String>,
    /// Whether it is also reached by its service's names.
    pub use_aliases: bool,
    /// Whether the engine removes it when it has ended.
    pub auto_remove: bool,
    /// Whether its standard input ends with whoever is attached first.
    pub stdin_once: bool,
}

/// Returns what to ask the engine for to make a one-off (`run`) of a service under `name`; `None` if the graph does
/// not have it.
///
/// It carries neither a number nor the hash of a spec: it is nobody's pod, and never taken for one. `service` may be any
/// part of a pod of several containers.
pub fn oneoff(
    desired: &Desired,
    service: &ServiceName,
    name: &str,
    parts: &HostParts<'_>,
    oneoff: &OneoffParts<'_>,
) -> Option<ContainerSpec> {
    // Where namespaces are shared, they are those of the first replica.
    let pod = PodId::new(service.clone(), 1);
    let mut spec = container(desired, &pod, name, parts)?;
    for key in [label::NUMBER, label::SPEC_HASH, label::SPEC_PARTS, label::GENERATION, label::REVISION] {
        spec.labels.remove(key);
    }
    spec.labels.extend(oneoff.labels.clone());
    spec.labels.insert(label::ONEOFF.to_owned(), "True".to_owned());
    spec.labels.insert(label::SLUG.to_owned(), oneoff.slug.to_owned());
    if oneoff.use_aliases {
        spec.labels.insert(label::ALIASES.to_owned(), "True".to_owned());
    }
    let front = PodId::new(desired.graph.front(service).clone(), 1);
    let graph_service = desired.graph.services.get(service)?;
    let volumes = oneoff_volumes(desired, &front.service, oneoff.slug, graph_service);
    spec.volume_names.extend(volumes.map(|(key, volume)| (key.to_string(), volume.name)));
    let ambassadors = desired.graph.services.get(&front.service).map(|front| &front.ambassadors);
    let has_them = graph_service.part.as_ref().is_some_and(|part| matches!(part.role, Role::Holder | Role::Main));
    if let Some(ambassadors) = ambassadors.filter(|all| has_them && !all.is_empty())
        && let Ok(text) = serde_json::to_string(ambassadors)
    {
        spec.labels.insert(label::AMBASSADORS.to_owned(), text);
    }
    if let SpecNetwork::Networks(attachments) = &mut spec.network {
        let main = desired.graph.container_name(&front);
        for attachment in attachments {
            attachment.aliases.retain(|alias| oneoff.use_aliases && *alias != main);
        }
    }
    spec.auto_remove = oneoff.auto_remove;
    spec.stdin_once = oneoff.stdin_once;
    Some(spec)
}

/// Returns the engine's names of volumes by key: the project's, and those of the pod itself.
fn volume_names(desired: &Desired, pod: &PodId, service: &Service) -> BTreeMap<String, String> {
    let graph = &desired.graph;
    let mut names: BTreeMap<String, String> =
        graph.volumes.iter().map(|(key, volume)| (key.to_string(), volume.name.clone())).collect();
    names.extend(pod_volumes(desired, pod, service).map(|(key, volume)| (key.to_string(), volume.name)));
    names
}

/// Returns what to ask the engine for to make the volumes that a pod has for itself, as far as this container mounts them.
pub fn pod_volumes<'a>(
    desired: &'a Desired,
    pod: &PodId,
    service: &'a Service,
) -> impl Iterator<Item = (&'a ResourceKey, VolumeSpec)> {
    let front = desired.graph.front(&pod.service);
    volumes_of(desired, format!("{front}_{}", pod.number), format!("{front}.{}", pod.number), service)
}

/// Returns the same for the pod of a one-off of `front`.
pub fn oneoff_volumes<'a>(
    desired: &'a Desired,
    front: &ServiceName,
    slug: &str,
    service: &'a Service,
) -> impl Iterator<Item = (&'a ResourceKey, VolumeSpec)> {
    let digits = slug.get(..SLUG_IN_NAME).unwrap_or(slug);
    volumes_of(desired, format!("{front}_run-{digits}"), format!("{front}.run-{digits}"), service)
}

/// Returns the volumes of a pod that is called `of` in their names and `pod` on their labels.
fn volumes_of<'a>(
    desired: &'a Desired,
    of: String,
    pod: String,
    service: &'a Service,
) -> impl Iterator<Item = (&'a ResourceKey, VolumeSpec)> {
    let keys = service.container.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::PodVolume { volume } => Some(volume),
        _ => None,
    });
    keys.filter_map(move |key| {
        let volume = desired.graph.pod_volumes.get(key)?;
        let mut labels = volume.labels.clone();
        labels.insert(label::PROJECT.into(), desired.graph.project.to_string());
        labels.insert(label::VOLUME.into(), key.to_string());
        labels.insert(label::VERSION.into(), env!("CARGO_PKG_VERSION").into());
        labels.insert(label::POD_VOLUME.into(), pod.clone());
        let mut driver_opts = BTreeMap::new();
        if volume.medium == Medium::Memory {
            let size = volume.size.map(|size| format!(",size={size}")).unwrap_or_default();
            let more = Some(&volume.options).filter(|text| !text.is_empty());
            let more = more.map(|options| format!(",{options}")).unwrap_or_default();
            driver_opts.extend([
                ("type", "tmpfs".to_owned()),
                ("device", "tmpfs".to_owned()),
                ("o", format!("mode=1777{size}{more}")),
            ]);
        }
        let spec = VolumeSpec {
            name: format!("{}_{key}_{of}", desired.graph.project),
            driver: "local".into(),
            driver_opts: driver_opts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            labels,
        };
        Some((key, spec))
    })
}

/// Puts what only this host knows into a container: where snapshots, the pod's volumes and the engine's socket are, and whose
/// namespaces it shares.
fn placed(container: &Container, parts: &HostParts<'_>) -> Container {
    let mut container = container.clone();
    for mount in &mut container.mounts {
        let source = match &mount.source {
            MountSource::Snapshot { hash, selinux } => parts.snapshots.get(hash).map(|path| {
                let (path, selinux) = (path.display().to_string(), selinux.then(|| "z".to_owned()));
                MountSource::Bind { path, create: false, propagation: None, selinux, recursion: Recursion::default() }
            }),
            MountSource::EngineSocket => Some(MountSource::Bind {
                path: parts.engine_socket.to_owned(),
                create: false,
                propagation: None,
                selinux: None,
                recursion: Recursion::default(),
            }),
            MountSource::PodVolume { volume } => {
                Some(MountSource::Volume { volume: volume.clone(), no_copy: true, subpath: None })
            }
            _ => None,
        };
        let read_only = mount.read_only || matches!(mount.source, MountSource::Snapshot { .. });
        if let Some(source) = source {
            *mount = Mount { target: mount.target.clone(), read_only, source };
        }
    }
    let id = |namespace: &mut Option<Namespace>| {
        if let Some(Namespace::Service(owner)) = namespace {
            let id = parts.owners.get(owner).map(String::as_str).unwrap_or_default();
            *namespace = Some(Namespace::Engine(format!("container:{id}")));
        }
    };
    id(&mut container.ipc);
    id(&mut container.pid);
    for from in &mut container.volumes_from {
        let mut of = Some(from.of.clone());
        id(&mut of);
        from.of = of.unwrap_or_else(|| from.of.clone());
    }
    container
}

fn spec_network(desired: &Desired, pod: &PodId, service: &Service, parts: &HostParts<'_>) -> SpecNetwork {
    match &service.network {
        NetworkMode::Networks(attachments) => {
            SpecNetwork::Networks(attachments.iter().map(|one| attachment(desired, pod, one)).collect())
        }
        NetworkMode::Host => SpecNetwork::Mode("host".into()),
        NetworkMode::None => SpecNetwork::Mode("none".into()),
        NetworkMode::Service(owner) => {
            SpecNetwork::Mode(format!("container:{}", parts.owners.get(owner).map(String::as_str).unwrap_or_default()))
        }
        NetworkMode::Engine(mode) => SpecNetwork::Mode(mode.clone()),
    }
}

/// The aliases are Docker Compose's, for tools that look; orch's own DNS does not read them.
fn attachment(desired: &Desired, pod: &PodId, attachment: &Attachment) -> SpecAttachment {
    let network = desired.graph.networks.get(&attachment.network);
    let front = desired.graph.front(&pod.service).clone();
    let main = PodId::new(front.clone(), pod.number);
    let is_guest = desired.graph.services.get(&pod.service).is_some_and(|one| one.prepares_service().is_some());
    let mut aliases = if is_guest {
        // The names of the service are those of its pods.
        vec![desired.graph.container_name(pod)]
    } else {
        vec![desired.graph.container_name(&main), front.to_string()]
    };
    aliases.extend(attachment.aliases.iter().cloned());
    aliases.dedup();
    SpecAttachment {
        network: network.map_or_else(|| attachment.network.to_string(), |network| network.name.clone()),
        aliases,
        ipv4: attachment.ipv4,
        ipv6: attachment.ipv6,
        mac: attachment.mac.clone(),
        link_local: attachment.link_local.clone(),
        driver_opts: attachment.driver_opts.clone(),
        interface: attachment.interface.clone(),
    }
}

fn host_ports(service: &Service) -> Vec<HostPort> {
    service
        .ports
        .iter()
        .filter(|port| port.mode == PortMode::Host)
        .map(|port| HostPort {
            host_ip: port.host_ip,
            published: port.published,
            target: port.target,
            protocol: port.protocol,
        })
        .collect()
}

fn container_labels(
    desired: &Desired,
    pod: &PodId,
    service: &Service,
    parts: &HostParts<'_>,
) -> BTreeMap<String, String> {
    let (graph, image) = (&desired.graph, parts.image);
    let mut labels = service.container.labels.clone();
    let own = [
        (label::PROJECT, graph.project.to_string()),
        (label::SERVICE, pod.service.to_string()),
        (label::NUMBER, pod.number.to_string()),
        (label::ONEOFF, "False".to_owned()),
        (label::CONFIG_HASH, config_hash(service, parts)),
        (label::IMAGE, image.to_owned()),
        (label::DEPENDS_ON, depends_on_label(graph, service)),
        (label::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
        (label::WORKING_DIR, graph.working_dir.clone()),
        (label::CONFIG_FILES, graph.config_files.join(",")),
        (label::SPEC_HASH, service.spec_hash.clone()),
        (label::SPEC_PARTS, spec_parts_label(&service.spec_parts)),
        (label::REVISION, desired.revision.to_string()),
        (label::GENERATION, desired.generation.to_string()),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value)));
    let snapshots: Vec<&str> = service.snapshots().map(SnapshotHash::as_str).collect();
    if !snapshots.is_empty() {
        labels.insert(label::SNAPSHOTS.to_owned(), snapshots.join(","));
    }
    if !service.container.pre_stop.is_empty()
        && let Ok(hooks) = serde_json::to_string(&service.container.pre_stop)
    {
        labels.insert(label::PRE_STOP.to_owned(), hooks);
    }
    if let Some(part) = &service.part {
        labels.insert(label::POD.to_owned(), part.of.to_string());
        labels.insert(label::POD_ROLE.to_owned(), part.role.word().to_owned());
    }
    if !parts.owners.is_empty() {
        let owners: Vec<String> = parts.owners.iter().map(|(service, id)| format!("{service}={id}")).collect();
        labels.insert(label::OWNERS.to_owned(), owners.join(","));
    }
    labels
}

/// Docker Compose's hash, so that it finds nothing to do; it takes no container without one for its own. What it does not know,
/// such as a sidecar, has orch's.
fn config_hash(service: &Service, parts: &HostParts<'_>) -> String {
    let hash = service.compose_hash.of_container(|owner| parts.owners.get(owner).map(String::as_str));
    hash.filter(|hash| !hash.is_empty()).unwrap_or_else(|| service.spec_hash.clone())
}

/// `db:service_healthy:true,…`, as Docker Compose writes it.
fn depends_on_label(graph: &Graph, service: &Service) -> String {
    let is_own = |other: &ServiceName| graph.services.get(other).is_some_and(|one| one.prepares_service().is_some());
    let mut parts: Vec<String> = service
        .depends_on
        .iter()
        .filter(|dependency| !is_own(&dependency.service))
        .map(|dependency| {
            let condition = match dependency.condition {
                Condition::ServiceStarted => "service_started",
                Condition::ServiceHealthy => "service_healthy",
                Condition::ServiceCompletedSuccessfully => "service_completed_successfully",
            };
            format!("{}:{condition}:{}", dependency.service, dependency.restart)
        })
        .collect();
    parts.sort();
    parts.join(",")
}
