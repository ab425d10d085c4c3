//! What one container looks like: its process, its files, its limits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ResourceKey, ServiceName, SnapshotHash};
use crate::model::HostOptions;

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
    /// Environment.
    pub environment: BTreeMap<String, String>,
    /// Variables that it does not have, although its image may: none of [`environment`](Self::environment).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unset: BTreeSet<String>,
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
    /// Devices that the engine's drivers hand to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_requests: Vec<DeviceRequest>,
    /// What must be free on the host of things that are only counted, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub generic_resources: BTreeMap<String, i64>,
    /// Namespace of processes; `None`: its own.
    pub pid: Option<Namespace>,
    /// Namespace of System V IPC, POSIX queues and `/dev/shm`; `None`: as the engine is set up.
    pub ipc: Option<Namespace>,
    /// What the engine takes as it is.
    #[serde(skip_serializing_if = "HostOptions::is_empty")]
    pub host: HostOptions,
    /// Containers whose mounts it has too, but for those at paths where it has its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<VolumesFrom>,
    /// Run inside it after each start, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_start: Vec<Hook>,
    /// Run inside it before orch stops it, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_stop: Vec<Hook>,
}

impl Container {
    /// Gives it a variable.
    pub fn set_variable(&mut self, name: String, value: String) {
        self.unset.remove(&name);
        self.environment.insert(name, value);
    }

    /// Returns the environment as engines take it, see [`Hook::variables`].
    pub fn variables(&self) -> Vec<String> {
        variables(&self.environment, &self.unset)
    }
}

/// `KEY=value`, and the bare names of those that are taken away, as Docker Compose has it.
fn variables(environment: &BTreeMap<String, String>, unset: &BTreeSet<String>) -> Vec<String> {
    let given = environment.iter().map(|(name, value)| format!("{name}={value}"));
    given.chain(unset.iter().cloned()).collect()
}

/// A container whose mounts another one has, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// Whose: that of the replica with the same number, or `container:NAME`.
    pub of: Namespace,
    /// Whether none of them can be written.
    pub read_only: bool,
}

/// A command that is run inside a container at some moment of its life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Environment beside the container's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Variables of the container that it does not have.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unset: BTreeSet<String>,
    /// User; else the container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Working directory; else the container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// All rights.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
}

impl Hook {
    /// Returns the environment as engines take it: `KEY=value`, or a name alone, which takes the variable away.
    pub fn variables(&self) -> Vec<String> {
        variables(&self.environment, &self.unset)
    }
}

/// Devices that a driver of the engine chooses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// Driver; `None`: the first that has the capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// How many; -1: all of the host. `None`: those of `device_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// Certain ones, in the words of the driver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_ids: Vec<String>,
    /// What a device must be able to do; all of them.
    pub capabilities: Vec<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl DeviceRequest {
    /// Returns what is asked for, in few words.
    pub fn name(&self) -> String {
        let what = self.capabilities.first().map_or("any device", String::as_str);
        match &self.driver {
            Some(driver) => format!("{what} of driver {driver}"),
            None => what.to_owned(),
        }
    }
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

/// Whose namespace a container lives in. In JSON a word, as in the compose file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Namespace {
    /// That of the replica with the same number of that service, on the same host.
    Service(ServiceName),
    /// As the engine takes it: `host`, `private`, `shareable`, `none`, `container:NAME`.
    Engine(String),
}

impl From<String> for Namespace {
    fn from(text: String) -> Self {
        match text.strip_prefix("service:").map(ServiceName::new) {
            Some(Ok(service)) => Self::Service(service),
            _ => Self::Engine(text),
        }
    }
}

impl From<Namespace> for String {
    fn from(namespace: Namespace) -> Self {
        match namespace {
            Namespace::Service(service) => format!("service:{service}"),
            Namespace::Engine(mode) => mode,
        }
    }
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
        /// What becomes of what is mounted below.
        #[serde(default, skip_serializing_if = "Recursion::is_engines")]
        recursion: Recursion,
    },
    /// What a path of the machine that loaded the files held, brought to the host. Never writable.
    Snapshot {
        /// Which.
        hash: SnapshotHash,
        /// Relabel it for `SELinux` (`z`; also for `Z`, because other containers mount the same files).
        #[serde(default)]
        selinux: bool,
    },
    /// A named volume of [`volumes`](super::Graph::volumes).
    Volume {
        /// Its key.
        volume: ResourceKey,
        /// Do not copy the image's content into a new volume.
        no_copy: bool,
        /// Path inside the volume.
        subpath: Option<String>,
    },
    /// The pod's own volume of this key of [`pod_volumes`](super::Graph::pod_volumes), shared by its containers.
    PodVolume {
        /// Its key.
        volume: ResourceKey,
    },
    /// A volume without a name, carried over when the container is made anew.
    Anonymous {
        /// Do not copy the image's content into it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_copy: bool,
        /// Labels that it is made with.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
    },
    /// The socket of the engine that the container is on.
    EngineSocket,
    /// Content of an image.
    Image {
        /// Which.
        image: String,
        /// Path inside it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subpath: Option<String>,
    },
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

impl MountSource {
    /// Returns a volume without a name of which nothing more is said.
    pub fn anonymous() -> Self {
        Self::Anonymous { no_copy: false, labels: BTreeMap::new() }
    }
}

/// What becomes of mounts below a path that is mounted. Source: compose-spec 05-services.md#volumes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recursion {
    /// They come along, and are as writable as the engine makes them.
    #[default]
    Enabled,
    /// They do not come along.
    Disabled,
    /// They come along and stay writable although the mount is read-only.
    Writable,
    /// They come along and are read-only, or the container does not start.
    Readonly,
}

impl Recursion {
    /// Returns whether it is what the engine does if nothing is said.
    pub fn is_engines(&self) -> bool {
        *self == Self::Enabled
    }
}

/// A config or secret as a file in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// Absolute path in the container.
    pub target: String,
    /// Key of [`files`](super::Graph::files).
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
