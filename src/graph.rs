//! The container graph: what the compose file asks for, resolved down to what an engine needs, before anything is placed.
//!
//! A [`Graph`] is made by `expand` from a `Model`, travels to the agent as JSON, is stored as the heart of a revision,
//! and is read by `place` and `plan`. It holds no unresolved text: environment files are read, variables replaced,
//! contents of configs and secrets are in [`Graph::files`]. It must never hold anything that depends on a host's state.

mod clash;
mod container;
mod fold;
mod network;
mod off;
mod pod;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{PodId, ProjectName, ResourceKey, ServiceName, SnapshotHash};
use crate::model::{Ambassador, ComposeHash, Export, ExternalLink, Serving};

pub use container::{
    Container, DeviceRequest, FileMount, Healthcheck, Hook, Logging, Mount, MountSource, Namespace, Recursion,
    Resources, VolumesFrom,
};
pub use network::{Attachment, ExposedPort, Ipv6Pool, Network, NetworkMode, Port, PortMode, Protocol};
pub use off::Off;
pub use pod::{HOLDER, HOLDER_IMAGE, Part, PodVolume, Role, member_name, pre_start_member};
pub use rules::{
    Condition, Constraint, Dependency, EndpointMode, Link, OnFailure, Placement, PullPolicy, Restart, RestartPace,
    Rollout, Scale,
};

/// Containers that a project can have: far above what one load balancer and one list are made for, and low enough that
/// a slip of the finger (`replicas: 4000000000`) is refused before anything is made for each. A service that runs once
/// on every host counts as one.
pub const MAX_PODS: u32 = 5_000;

/// A whole project, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// The project.
    pub project: ProjectName,
    /// Directory that relative paths of the file refer to, for the label of the same name.
    pub working_dir: String,
    /// The files that the project was loaded from, for the label of the same name.
    pub config_files: Vec<String>,
    /// Services by name.
    pub services: BTreeMap<ServiceName, Service>,
    /// Networks that enabled services use, by key.
    pub networks: BTreeMap<ResourceKey, Network>,
    /// Named volumes that enabled services use, by key.
    pub volumes: BTreeMap<ResourceKey, Volume>,
    /// Volumes that each pod has one of, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_volumes: BTreeMap<ResourceKey, PodVolume>,
    /// Services of the file that no active profile enables: their containers are no orphans and are left as they are.
    #[serde(default)]
    pub disabled: BTreeSet<ServiceName>,
    /// The profiles of those.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<ServiceName, Vec<String>>,
    /// Contents of configs and secrets, by lower-case hex SHA-256 of the content.
    pub files: BTreeMap<String, FileContent>,
}

/// Contents of one config or secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct FileContent {
    /// The bytes, base64 in JSON.
    #[serde(with = "base64_bytes")]
    pub bytes: Vec<u8>,
    /// Whether it must never reach a disk, a log or a listing.
    pub secret: bool,
}

impl std::fmt::Debug for FileContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileContent").field("len", &self.bytes.len()).field("secret", &self.secret).finish()
    }
}

/// One service: how its containers look, how many there are, and what they are bound to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// How many replicas, and where from that number comes.
    pub scale: Scale,
    /// What each replica's container looks like.
    pub container: Container,
    /// Where its containers are connected.
    pub network: NetworkMode,
    /// What must be so before a replica starts; sorted by service.
    pub depends_on: Vec<Dependency>,
    /// Extra names of other services that only this service sees.
    pub links: Vec<Link>,
    /// Ports published to the outside.
    pub ports: Vec<Port>,
    /// Ports that it says it listens on (`expose`, targets of `ports`): the DNS table's SRV records. Sorted, no repeats.
    pub expose: Vec<ExposedPort>,
    /// What happens when its container ends.
    pub restart: Restart,
    /// How fast and how often it is started again.
    #[serde(default, skip_serializing_if = "RestartPace::is_default")]
    pub restart_pace: RestartPace,
    /// How a change is rolled out over its replicas; `None`: one after the other, each once all others are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Rules for the choice of a host.
    pub placement: Placement,
    /// How its name resolves.
    pub endpoint_mode: EndpointMode,
    /// Seconds that a container has from its stop signal to its end.
    pub stop_grace: Duration,
    /// Whether `up` attaches to its logs.
    pub attach: bool,
    /// When the image is pulled.
    pub pull: PullPolicy,
    /// What it is in a pod of several containers, or for another service; `None`: its containers are pods by themselves, and
    /// what the service is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// Stand-ins that its pods find inside their namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ambassadors: Vec<Ambassador>,
    /// Services of other projects that it knows by names of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_links: Vec<ExternalLink>,
    /// What other projects may reach of it.
    #[serde(default)]
    pub export: Export,
    /// How it is served.
    #[serde(default)]
    pub serving: Serving,
    /// Lower-case hex SHA-256 over everything above that an existing container cannot take on without being made anew.
    /// Computed by `expand`; never contains scale, `depends_on`, placement, ingress ports, restart or pull policy.
    pub spec_hash: String,
    /// What is in that hash, by the key of the compose file that says it: the first digits of a hash of its own, by which
    /// a change is told apart. What is at its default is absent.
    #[serde(default)]
    pub spec_parts: BTreeMap<String, String>,
    /// Docker Compose's own hash, by which it knows its containers. Nothing that orch made is made anew for it.
    #[serde(default)]
    pub compose_hash: ComposeHash,
}

/// A named volume of the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Name on the engine.
    pub name: String,
    /// Made and removed by somebody else.
    pub external: bool,
    /// Driver; `None`: `local`.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels that the user gave.
    pub labels: BTreeMap<String, String>,
    /// Lower-case hex SHA-256 over driver and options. Computed by `expand`.
    #[serde(default)]
    pub spec_hash: String,
    /// Docker Compose's own hash.
    #[serde(default)]
    pub compose_hash: String,
}

impl Service {
    /// Returns the ids of its replicas where their number does not depend on the hosts; none for [`Scale::Global`].
    pub fn replicas(&self, name: &ServiceName) -> impl Iterator<Item = PodId> {
        let count = match self.scale {
            Scale::Replicas(count) => count,
            Scale::Global => 0,
        };
        (1..=count).map(move |number| PodId::new(name.clone(), number))
    }

    /// Returns whether it is run once for each `up`, by its own rule.
    pub fn is_job(&self) -> bool {
        self.restart == Restart::No
    }

    /// Returns whether a container of it that ended stays so by its restart rule, as far as the code alone says.
    pub fn stays_ended(&self, code: i32, by_itself: bool) -> bool {
        match self.restart {
            Restart::No => true,
            Restart::Unset | Restart::OnFailure { .. } => by_itself && code == 0,
            Restart::Always | Restart::UnlessStopped => false,
        }
    }

    /// Returns the keys of the named volumes that its containers mount.
    pub fn volumes(&self) -> impl Iterator<Item = &ResourceKey> {
        self.container.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { volume, .. } => Some(volume),
            _ => None,
        })
    }

    /// Returns the images whose content its containers mount.
    pub fn mounted_images(&self) -> impl Iterator<Item = &str> {
        self.container.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Image { image, .. } => Some(image.as_str()),
            _ => None,
        })
    }

    /// Returns the snapshots that its containers mount.
    pub fn snapshots(&self) -> impl Iterator<Item = &SnapshotHash> {
        self.container.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Snapshot { hash, .. } => Some(hash),
            _ => None,
        })
    }

    /// Returns the external link that an alias means: of what the name of a container may mean the first whose service `is_there`
    /// counts, and where none is the first.
    pub fn external_link(&self, alias: &str, is_there: impl Fn(&ExternalLink) -> bool) -> Option<&ExternalLink> {
        let meant = || self.external_links.iter().filter(|link| link.alias.to_lowercase() == alias);
        meant().find(|link| is_there(link)).or_else(|| meant().next())
    }

    /// Returns the services that this one depends on: by `depends_on`, and by sharing namespaces and mounts.
    pub fn dependencies(&self) -> impl Iterator<Item = &ServiceName> {
        self.depends_on.iter().map(|dependency| &dependency.service).chain(self.companions())
    }

    /// Returns the services with whose replicas of the same number those of this one are placed and replaced: the owners of
    /// their namespaces, and those whose mounts they have.
    pub fn companions(&self) -> impl Iterator<Item = &ServiceName> {
        self.owners().chain(self.mounted_services())
    }

    /// Returns the services whose mounts its containers have (`volumes_from`).
    pub fn mounted_services(&self) -> impl Iterator<Item = &ServiceName> {
        self.container.volumes_from.iter().filter_map(|from| match &from.of {
            Namespace::Service(service) => Some(service),
            Namespace::Engine(_) => None,
        })
    }

    /// Returns the services whose containers own the namespaces that those of this one live in: of the network first, then
    /// of IPC, then of processes.
    pub fn owners(&self) -> impl Iterator<Item = &ServiceName> {
        let network = match &self.network {
            NetworkMode::Service(owner) => Some(owner),
            _ => None,
        };
        let shared = [&self.container.ipc, &self.container.pid].into_iter().filter_map(|namespace| match namespace {
            Some(Namespace::Service(owner)) => Some(owner),
            _ => None,
        });
        network.into_iter().chain(shared)
    }
}

impl Graph {
    /// Returns the snapshots that containers mount.
    pub fn snapshots(&self) -> BTreeSet<&SnapshotHash> {
        self.services.values().flat_map(Service::snapshots).collect()
    }

    /// Returns how many containers are wanted in all; see [`MAX_PODS`] for the limit and how services count.
    pub fn wanted_pods(&self) -> u64 {
        let count = |service: &Service| match service.scale {
            Scale::Replicas(count) => u64::from(count),
            Scale::Global => 1,
        };
        self.services.values().map(count).sum()
    }

    /// Returns the name of a pod's container: `container_name`, or Docker Compose's `<project>-<service>-<number>`. Those of a
    /// helper in a pod have its name after that: `shop-web-1-sync`; what is run once before all pods has that of the service:
    /// `shop-web-pre_start-0`.
    ///
    /// Sources: observed from Docker Compose 2.40; docker/compose 5.5, `pkg/compose/pre_start.go`.
    pub fn container_name(&self, pod: &PodId) -> String {
        let service = self.services.get(&pod.service);
        if let Some(part) = service.and_then(|service| service.part.as_ref()).filter(|part| part.role != Role::Main) {
            let of = match part.role {
                Role::PreStart => format!("{}-{}", self.project, part.of),
                _ => self.container_name(&PodId::new(part.of.clone(), pod.number)),
            };
            return format!("{of}-{}", part.member(&pod.service));
        }
        match service.and_then(|service| service.container.name.as_ref()) {
            Some(name) => name.clone(),
            None => format!("{}-{}-{}", self.project, pod.service, pod.number),
        }
    }

    /// Returns the services whose completion some other service waits for, which makes them jobs.
    pub fn awaited_jobs(&self) -> BTreeSet<&ServiceName> {
        let dependencies = self.services.values().flat_map(|service| &service.depends_on);
        let jobs = dependencies.filter(|one| one.condition == Condition::ServiceCompletedSuccessfully);
        jobs.map(|dependency| &dependency.service).collect()
    }

    /// Returns whether `name` is one of [`Self::awaited_jobs`].
    pub fn is_awaited_job(&self, name: &ServiceName) -> bool {
        self.services.values().flat_map(|service| &service.depends_on).any(|dependency| {
            &dependency.service == name && dependency.condition == Condition::ServiceCompletedSuccessfully
        })
    }

    /// Returns the ports of services in a network that take datagrams, as far as the file tells of them: those of services
    /// that live in the namespace of one in the network, too.
    pub fn datagram_ports(&self, network: &ResourceKey) -> BTreeSet<u16> {
        let is_in = |name: &ServiceName| match self.network_of(name) {
            Some(NetworkMode::Networks(attachments)) => attachments.iter().any(|one| one.network == *network),
            _ => false,
        };
        let told = self.services.iter().filter(|(_, service)| !service.expose.is_empty());
        let told = told.filter(|(name, _)| is_in(name)).flat_map(|(_, service)| &service.expose);
        told.filter(|exposed| exposed.protocol == Protocol::Udp).map(|exposed| exposed.port).collect()
    }

    /// Returns the network of the service itself, or that of the one in whose network it lives.
    fn network_of(&self, name: &ServiceName) -> Option<&NetworkMode> {
        let mut network = self.services.get(name).map(|service| &service.network);
        for _ in 0..self.services.len() {
            let Some(NetworkMode::Service(owner)) = network else { break };
            network = self.services.get(owner).map(|service| &service.network);
        }
        network
    }

    /// Returns the service with whose containers those of `name` are placed and replaced, because they live in their
    /// namespaces or have their mounts; often `name`.
    ///
    /// A name that the graph does not have is its own root. `expand` refuses rings, and companions that have not one root.
    pub fn namespace_root<'a>(&'a self, name: &'a ServiceName) -> &'a ServiceName {
        let mut root = name;
        for _ in 0..self.services.len() {
            match self.services.get(root).and_then(|service| service.companions().next()) {
                Some(owner) => root = owner,
                None => break,
            }
        }
        root
    }

    /// Returns how a change of a service is rolled out; `None`: one replica after the other. What shares namespaces is replaced
    /// as one, and it is the owner's word that counts.
    pub fn rollout(&self, name: &ServiceName) -> Option<&Rollout> {
        self.services.get(self.rolled_with(name))?.rollout.as_ref()
    }

    /// Returns the service of the compose file that `name` is replaced with, replica by replica; often its own.
    pub fn rolled_with<'a>(&'a self, name: &'a ServiceName) -> &'a ServiceName {
        self.front(self.namespace_root(name))
    }
}

impl Volume {
    /// Returns whether its data stays on the host where it was made.
    ///
    /// The `local` driver mounts network file systems too; those are the same wherever they are mounted.
    pub fn is_local(&self) -> bool {
        if self.driver.as_deref().is_some_and(|driver| driver != "local") {
            return false;
        }
        let remote = ["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p"];
        let by_type = self.driver_opts.get("type").is_some_and(|kind| remote.contains(&kind.as_str()));
        let by_address = self.driver_opts.get("o").is_some_and(|options| options.contains("addr="));
        !by_type && !by_address
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
