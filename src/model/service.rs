//! A service as the compose file describes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ProjectName, ResourceKey, ServiceName};

use super::{
    Build, Bytes, Cpus, Deploy, Develop, DeviceRequest, GoDuration, Healthcheck, Hook, HostOptions, ServiceKeys,
    ServiceNetwork, ServiceVolume, Unapplied,
};

/// `x-` keys.
pub type Extensions = BTreeMap<String, serde_json::Value>;

/// `command` or `entrypoint`: `None` keeps the image's, an empty list clears it.
pub type Command = Option<Vec<String>>;

/// A service.
///
/// Sources: compose-spec 05-services.md; field order is that of the printed form (alphabetical).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// `up` shows its logs unless `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach: Option<bool>,
    /// How its image is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Capabilities added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Capabilities dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Arguments; always printed.
    pub command: Command,
    /// Configs it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<FileReference>,
    /// Fixed container name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// CPUs at most.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub cpus: Option<Cpus>,
    /// What must be so before it starts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<ServiceName, DependsOn>,
    /// Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Deploy>,
    /// What is watched while somebody works on the source: nothing that `up` looks at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub develop: Option<Develop>,
    /// Host devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Resolvers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_opt: Vec<String>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// NIS domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Program; always printed.
    pub entrypoint: Command,
    /// Files of variables; empty once they are read into `environment`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_file: Vec<EnvFile>,
    /// Environment: a `None` value means a name that nobody gave a value: the container does not have it, even if the image does.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Option<String>>,
    /// Ports that it listens on: `80`, `53/udp`, `8000-8010`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Names for services of other projects, as they are written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_links: Vec<String>,
    /// Lines of `/etc/hosts`, `name=address`, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,
    /// Graphics processors: device requests with the capability `gpu`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<DeviceRequest>,
    /// Extra groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Host name inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// An init process as PID 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// `ipc` mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `SERVICE` or `SERVICE:ALIAS`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// Log driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// Hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// Memory at most.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub mem_limit: Option<Bytes>,
    /// Memory softly reserved.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub mem_reservation: Option<Bytes>,
    /// Network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
    /// Networks that it is on, by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<ResourceKey, Option<ServiceNetwork>>,
    /// `pid` mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// Processes at most.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub pids_limit: Option<i64>,
    /// Platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Published ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// Run in the container once it is started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_start: Vec<Hook>,
    /// Run to their end before it is started, each in a container of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_start: Vec<Hook>,
    /// Run in the container before it is stopped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_stop: Vec<Hook>,
    /// All rights.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub privileged: Option<bool>,
    /// Profiles that enable it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// When its image is pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<String>,
    /// Read-only root.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub read_only: Option<bool>,
    /// `no`, `always`, `on-failure[:N]`, `unless-stopped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// OCI runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<u32>,
    /// Secrets it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<FileReference>,
    /// Security options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
    /// Size of `/dev/shm`.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub shm_size: Option<Bytes>,
    /// Keep standard input open.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub stdin_open: Option<bool>,
    /// Time between stop signal and kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<GoDuration>,
    /// Stop signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Kernel parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Memory file systems: `PATH[:OPTIONS]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<String>,
    /// A terminal.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub tty: Option<bool>,
    /// Limits of processes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// It may use the API of the engine that it runs on, with the user's logins.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_api_socket: bool,
    /// User.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<ServiceVolume>,
    /// Services and containers whose mounts it has too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// What the engine takes as it is.
    #[serde(flatten)]
    pub host: HostOptions,
    /// What `up` refuses.
    #[serde(flatten)]
    pub unapplied: Unapplied,
    /// What orch's own `x-` keys say.
    #[serde(skip)]
    pub keys: ServiceKeys,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
}

impl Service {
    /// Returns the image that it runs: the one named, else the one that is built for it, by Docker Compose's name.
    pub fn image_name(&self, project: &ProjectName, name: &ServiceName) -> Option<String> {
        let named = self.image.clone().filter(|image| !image.is_empty());
        named.or_else(|| self.build.is_some().then(|| format!("{project}-{name}")))
    }
}

/// A file of variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFile {
    /// Path.
    pub path: String,
    /// Whether it must exist.
    #[serde(default = "yes")]
    pub required: bool,
    /// `raw`: no quotes, comments and variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A dependency on another service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependsOn {
    /// What must be so.
    pub condition: ConditionName,
    /// Restart with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
    /// Whether it must be there at all.
    #[serde(default = "yes")]
    pub required: bool,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
}

fn yes() -> bool {
    true
}

/// The specification's words for a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionName {
    /// Started.
    ServiceStarted,
    /// Healthy.
    ServiceHealthy,
    /// Ended with 0.
    ServiceCompletedSuccessfully,
}

/// A config or secret that a service reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileReference {
    /// Key at the top level.
    pub source: String,
    /// Path in the container; `None` only for configs: `/<source>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// Permission bits, printed as Docker Compose prints them (octal text such as `"0440"`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A host device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// What it may be used for: some of `rwm`; empty: all of these.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub permissions: String,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Log driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// Driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A published port, long form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortMapping {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `ingress` or `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Address on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// Port in the container.
    pub target: u16,
    /// Port or range on the host, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
    /// `tcp`, `udp`, `sctp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Application protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A limit of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ulimit {
    /// Soft and hard at once.
    Single(i64),
    /// Each of its own.
    Pair {
        /// Hard limit.
        hard: i64,
        /// Soft limit.
        soft: i64,
    },
}
