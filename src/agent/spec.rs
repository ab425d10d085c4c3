//! From desired state to what the engine is asked to make: names, labels, addresses, host paths. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::engine::{ContainerSpec, HostPort, NetworkSpec, SpecAttachment, SpecNetwork, VolumeSpec, label};
use crate::graph::{Attachment, Condition, Container, Mount, MountSource, NetworkMode, PortMode, Service};
use crate::ids::{PodId, ResourceKey, SnapshotHash};
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
    /// Where the snapshots are on the host that it mounts.
    pub snapshots: BTreeMap<SnapshotHash, PathBuf>,
    /// Anonymous volumes taken over: target to engine name.
    pub carried_volumes: BTreeMap<String, String>,
    /// Engine id of the container whose network namespace is shared.
    pub namespace_owner: Option<&'a str>,
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
    Some(NetworkSpec {
        name: network.name.clone(),
        driver: network.driver.clone().unwrap_or_else(|| "bridge".into()),
        driver_opts: network.driver_opts.clone(),
        internal: network.internal,
        attachable: network.attachable,
        subnet,
        gateway,
        ip_range,
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
        container: placed(&service.container, &parts.snapshots),
        image: parts.image.to_owned(),
        labels: container_labels(desired, pod, service, parts.image),
        network: spec_network(desired, pod, service, parts),
        volume_names: desired
            .graph
            .volumes
            .iter()
            .map(|(key, volume)| (key.to_string(), volume.name.clone()))
            .collect(),
        carried_volumes: parts.carried_volumes.clone(),
        file_binds,
        host_ports: host_ports(service),
        exposed: service.expose.iter().map(|exposed| (exposed.port, exposed.protocol)).collect(),
        stop_grace: service.stop_grace,
        ..ContainerSpec::default()
    })
}

/// Puts the place of each snapshot on this host into a container's mounts.
fn placed(container: &Container, snapshots: &BTreeMap<SnapshotHash, PathBuf>) -> Container {
    let mut container = container.clone();
    for mount in &mut container.mounts {
        if let MountSource::Snapshot { hash, selinux } = &mount.source
            && let Some(path) = snapshots.get(hash)
        {
            let (path, selinux) = (path.display().to_string(), selinux.then(|| "z".to_owned()));
            *mount = Mount {
                target: mount.target.clone(),
                read_only: true,
                source: MountSource::Bind { path, create: false, propagation: None, selinux },
            };
        }
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
        NetworkMode::Service(_) => {
            SpecNetwork::Mode(format!("container:{}", parts.namespace_owner.unwrap_or_default()))
        }
        NetworkMode::Engine(mode) => SpecNetwork::Mode(mode.clone()),
    }
}

/// The aliases are Docker Compose's, for tools that look; orch's own DNS does not read them.
fn attachment(desired: &Desired, pod: &PodId, attachment: &Attachment) -> SpecAttachment {
    let network = desired.graph.networks.get(&attachment.network);
    let mut aliases = vec![desired.graph.container_name(pod), pod.service.to_string()];
    aliases.extend(attachment.aliases.iter().cloned());
    aliases.dedup();
    SpecAttachment {
        network: network.map_or_else(|| attachment.network.to_string(), |network| network.name.clone()),
        aliases,
        ipv4: attachment.ipv4,
        mac: attachment.mac.clone(),
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

fn container_labels(desired: &Desired, pod: &PodId, service: &Service, image: &str) -> BTreeMap<String, String> {
    let graph = &desired.graph;
    let mut labels = service.container.labels.clone();
    let own = [
        (label::PROJECT, graph.project.to_string()),
        (label::SERVICE, pod.service.to_string()),
        (label::NUMBER, pod.number.to_string()),
        (label::ONEOFF, "False".to_owned()),
        (label::CONFIG_HASH, service.spec_hash.clone()),
        (label::IMAGE, image.to_owned()),
        (label::DEPENDS_ON, depends_on_label(service)),
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
    labels
}

/// `db:service_healthy:true,…`, as Docker Compose writes it.
fn depends_on_label(service: &Service) -> String {
    let mut parts: Vec<String> = service
        .depends_on
        .iter()
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
