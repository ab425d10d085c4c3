//! The container graph: what the compose file asks for, resolved down to what an engine needs, before anything is placed.
//!
//! A [`Graph`] is made by `expand` from a `Model`, travels to the agent as JSON, is stored as the heart of a revision,
//! and is read by `place` and `plan`. It holds no unresolved text: environment files are read, variables replaced,
//! contents of configs and secrets are in [`Graph::files`]. It must never hold anything that depends on a host's state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::ids::{PodId, ProjectName, ResourceKey, ServiceName};

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
    /// Services of the file that no active profile enables: their containers are no orphans and are left as they are.
    #[serde(default)]
    pub disabled: BTreeSet<ServiceName>,
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
    /// Lower-case hex SHA-256 over everything above that an existing container cannot take on without being made anew.
    /// Computed by `expand`; never contains scale, `depends_on`, placement, ingress ports, restart or pull policy.
    pub spec_hash: String,
    /// What is in that hash, by the key of the compose file that says it: the first digits of a hash of its own, by which
    /// a change is told apart. What is at its default is absent.
    #[serde(default)]
    pub spec_parts: BTreeMap<String, String>,
}

/// How many replicas of a service run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// This many over all hosts.
    Replicas(u32),
    /// One on every host that the constraints allow.
    Global,
}

/// What a container looks like, engine neutral, without what the host adds (`resolv.conf`, addresses).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Image reference as written.
    pub image: String,
    /// `container_name`; else the name is made of project, service and number.
    pub name: Option<String>,
    /// `None`: the image's. `Some(vec![])`: cleared.
    pub entrypoint: Option<Vec<String>>,
    /// `None`: the image's. `Some(vec![])`: cleared.
    pub command: Option<Vec<String>>,
    /// Environment; `None` as value cannot occur (resolved by `load`).
    pub environment: BTreeMap<String, String>,
    /// Labels that the user gave.
    pub labels: BTreeMap<String, String>,
    /// Host name inside; else the engine's short id.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// User and group.
    pub user: Option<String>,
    /// Extra groups.
    pub group_add: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Mounts, in order of their target.
    pub mounts: Vec<Mount>,
    /// Configs and secrets that appear as files.
    pub files: Vec<FileMount>,
    /// Health check; `None`: the image's.
    pub healthcheck: Option<Healthcheck>,
    /// Signal that stops it; else the image's or SIGTERM.
    pub stop_signal: Option<String>,
    /// Run an init process as PID 1.
    pub init: Option<bool>,
    /// Read-only root filesystem.
    pub read_only: bool,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep standard input open.
    pub stdin_open: bool,
    /// Full access to the host's devices.
    pub privileged: bool,
    /// Capabilities added.
    pub cap_add: Vec<String>,
    /// Capabilities dropped.
    pub cap_drop: Vec<String>,
    /// Security options, as the engine takes them.
    pub security_opt: Vec<String>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of processes: name to (soft, hard).
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// Lines of `/etc/hosts`: (name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// Resolvers that the user asked for: orch's DNS forwards to them.
    pub dns: Vec<String>,
    /// Search list of `resolv.conf`.
    pub dns_search: Vec<String>,
    /// Options of `resolv.conf`.
    pub dns_opt: Vec<String>,
    /// Hard limits and soft reservations.
    pub resources: Resources,
    /// Log driver and options.
    pub logging: Option<Logging>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Platform asked for, `os/arch[/variant]`.
    pub platform: Option<String>,
    /// OCI runtime.
    pub runtime: Option<String>,
    /// Devices of the host: (host path, container path, permissions).
    pub devices: Vec<(String, String, String)>,
    /// `pid:` mode as the engine takes it (`host`).
    pub pid: Option<String>,
    /// `ipc:` mode as the engine takes it (`host`, `private`, `shareable`).
    pub ipc: Option<String>,
}

/// CPU, memory and process limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// CPUs at most, in billionths.
    pub nano_cpus: Option<i64>,
    /// Memory at most, in bytes.
    pub memory: Option<i64>,
    /// Processes at most.
    pub pids: Option<i64>,
    /// CPUs that must be free on the host, in billionths.
    pub reserved_nano_cpus: Option<i64>,
    /// Memory that must be free on the host, in bytes; also the engine's soft limit.
    pub reserved_memory: Option<i64>,
}

/// Log driver and its options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// Driver; `None`: the engine's default.
    pub driver: Option<String>,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// A file system inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// What is mounted.
    pub source: MountSource,
}

/// What a [`Mount`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// Absolute path.
        path: String,
        /// Make the directory when it is missing.
        create: bool,
        /// `rprivate`, `shared`, …
        propagation: Option<String>,
        /// Relabelling under `SELinux`: `z` or `Z`.
        selinux: Option<String>,
    },
    /// A named volume of [`Graph::volumes`].
    Volume {
        /// Its key.
        volume: ResourceKey,
        /// Do not copy the image's content into a new volume.
        no_copy: bool,
        /// Path inside the volume.
        subpath: Option<String>,
    },
    /// A volume without a name, carried over when the container is made anew.
    Anonymous,
    /// Memory.
    Tmpfs {
        /// Size limit in bytes.
        size: Option<u64>,
        /// Permission bits.
        mode: Option<u32>,
        /// Options as text where the short form gave any.
        options: String,
    },
}

/// A config or secret as a file in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// Absolute path in the container.
    pub target: String,
    /// Key of [`Graph::files`].
    pub hash: String,
    /// Whether the content is secret (kept in memory only).
    pub secret: bool,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// How the engine checks a container's health. Zero durations mean the engine's default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// `NONE`, `CMD …` or `CMD-SHELL …`; empty: the image's test with the timings below.
    pub test: Vec<String>,
    /// Time between checks.
    pub interval: Option<Duration>,
    /// Time that one check may take.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
    /// Time after the start in which failures do not count.
    pub start_period: Option<Duration>,
    /// Time between checks in the start period (engine API 1.44).
    pub start_interval: Option<Duration>,
}

/// Where a service's containers are connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// To these networks of the project, the one with the default route first.
    Networks(Vec<Attachment>),
    /// The host's own network: no orch names inside.
    Host,
    /// Loopback only.
    None,
    /// The namespace of the replica with the same number of that service, on the same host.
    Service(ServiceName),
    /// The engine's own `bridge` network or a container's namespace, passed on as is.
    Engine(String),
}

/// A service's membership in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Key of [`Graph::networks`].
    pub network: ResourceKey,
    /// More names for the service, in this network only.
    pub aliases: Vec<String>,
    /// Fixed address of the container.
    pub ipv4: Option<Ipv4Addr>,
    /// Fixed hardware address.
    pub mac: Option<String>,
}

/// What must be so of another service before a replica starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The other service.
    pub service: ServiceName,
    /// What must be so.
    pub condition: Condition,
    /// Restart this service when orch makes the other one anew or restarts it.
    pub restart: bool,
    /// If not, a missing or failed dependency is a warning.
    pub required: bool,
}

/// Condition of a [`Dependency`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// All its containers were started.
    ServiceStarted,
    /// All its containers are healthy.
    ServiceHealthy,
    /// All its containers ended with 0.
    ServiceCompletedSuccessfully,
}

/// A name of another service that only the linking service sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The other service.
    pub service: ServiceName,
    /// The name, equal to the service's where none was given.
    pub alias: String,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: only with `mode: host`.
    Sctp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port that a service says it listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExposedPort {
    /// Number in the container.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Name of the port, if given.
    pub name: Option<String>,
    /// Address on the host; `None`: all.
    pub host_ip: Option<std::net::IpAddr>,
    /// Ports on the host that may be taken, first to last; `None`: any free one.
    pub published: Option<(u16, u16)>,
    /// Port in the container.
    pub target: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Who publishes.
    pub mode: PortMode,
}

/// Who publishes a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortMode {
    /// orch's load balancer, on every host of the project.
    Ingress,
    /// The engine, on the pod's host.
    Host,
}

/// What happens when a container ends.
///
/// `Unset` heals what crashed or was stopped by hand but takes an end with 0 for the end of a job; a service whose
/// completion others wait for is a job and never restarted then. Docker Compose leaves all of these stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Nothing said.
    Unset,
    /// `no`: a job, run once per `up`.
    No,
    /// Whatever the code.
    Always,
    /// Whatever the code (the engine's "unless stopped" is orch's "unless down").
    UnlessStopped,
    /// Codes other than 0, at most this many times in a row.
    OnFailure {
        /// `None`: without end.
        max_attempts: Option<u32>,
    },
}

/// Rules for the choice of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// `node.labels.disk == ssd` and the like; all must hold.
    pub constraints: Vec<Constraint>,
    /// Labels to spread evenly over, first one first (`node.labels.zone`).
    pub spread: Vec<String>,
    /// Replicas on one host at most.
    pub max_per_host: Option<u32>,
}

/// One placement constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// `node.hostname`, `node.labels.X`, `node.platform.os`, `node.platform.arch`, `engine.labels.X`, `node.role`, `node.id`.
    pub key: String,
    /// Whether `==` (else `!=`).
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// How a service's name resolves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointMode {
    /// To its virtual address.
    #[default]
    Vip,
    /// To the addresses of its ready pods.
    Dnsrr,
}

/// When the image of a service is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// When it is not there.
    #[default]
    Missing,
    /// At each `up`.
    Always,
    /// Never.
    Never,
}

/// A network of the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Name on the engine.
    pub name: String,
    /// Made and removed by somebody else: no virtual addresses there, names give the pods' addresses.
    pub external: bool,
    /// No way out.
    pub internal: bool,
    /// Driver; `None`: `bridge`.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels that the user gave.
    pub labels: BTreeMap<String, String>,
    /// Subnet that the file asks for; else one from the pool.
    pub subnet: Option<Ipv4Net>,
    /// Gateway that the file asks for; else the first address.
    pub gateway: Option<Ipv4Addr>,
    /// Range for containers that the file asks for.
    pub ip_range: Option<Ipv4Net>,
    /// Other tools may attach containers (`attachable`).
    pub attachable: bool,
    /// Lower-case hex SHA-256 over what an existing network cannot take on and the engine does not show in comparable
    /// form: options, labels and the like. Computed by `expand`.
    #[serde(default)]
    pub spec_hash: String,
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
}

impl Service {
    /// Returns the ids of its replicas where their number does not depend on the hosts; empty for [`Scale::Global`].
    pub fn replicas(&self, name: &ServiceName) -> Vec<PodId> {
        match self.scale {
            Scale::Replicas(count) => (1..=count).map(|number| PodId::new(name.clone(), number)).collect(),
            Scale::Global => Vec::new(),
        }
    }

    /// Returns the keys of the named volumes that its containers mount.
    pub fn volumes(&self) -> impl Iterator<Item = &ResourceKey> {
        self.container.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { volume, .. } => Some(volume),
            _ => None,
        })
    }

    /// Returns the services that this one depends on: by `depends_on`, and by sharing a network namespace.
    pub fn dependencies(&self) -> impl Iterator<Item = &ServiceName> {
        let owner = match &self.network {
            NetworkMode::Service(owner) => Some(owner),
            _ => None,
        };
        self.depends_on.iter().map(|dependency| &dependency.service).chain(owner)
    }
}

impl Graph {
    /// Returns the name of a pod's container: `container_name`, or Docker Compose's `<project>-<service>-<number>`.
    ///
    /// Source: observed from Docker Compose 2.40.
    pub fn container_name(&self, pod: &PodId) -> String {
        match self.services.get(&pod.service).and_then(|service| service.container.name.as_ref()) {
            Some(name) => name.clone(),
            None => format!("{}-{}-{}", self.project, pod.service, pod.number),
        }
    }

    /// Returns whether some other service waits for the completion of `name`, which makes it a job.
    pub fn is_awaited_job(&self, name: &ServiceName) -> bool {
        self.services.values().flat_map(|service| &service.depends_on).any(|dependency| {
            &dependency.service == name && dependency.condition == Condition::ServiceCompletedSuccessfully
        })
    }

    /// Returns the service whose containers own the network namespace that those of `name` live in; often `name`.
    ///
    /// A name that the graph does not have is its own root; `expand` refuses rings.
    pub fn namespace_root<'a>(&'a self, name: &'a ServiceName) -> &'a ServiceName {
        let mut root = name;
        for _ in 0..self.services.len() {
            match self.services.get(root).map(|service| &service.network) {
                Some(NetworkMode::Service(owner)) => root = owner,
                _ => break,
            }
        }
        root
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
