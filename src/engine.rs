//! The container engine of one host: a narrow trait, the real one over the Docker API, and a strict fake.
//!
//! Every `ensure_*`, `start`, `stop` and `remove` is idempotent: done twice, the second does nothing and succeeds.

pub mod build;
pub mod by_hand;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod copy;
pub mod docker;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod label;
pub mod translate;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;

pub use build::{BuildKit, BuildSpec, BuildStep, CacheEntry, Directory, DirectoryEntry, Kit, SecretSource};

pub use self::by_hand::ByHand;
use crate::graph::{Container, Ipv6Pool, Protocol};
use crate::ids::ProjectName;
use crate::observed::{ObservedContainer, ObservedHost};
use crate::place::HostFacts;

/// What is said of an engine's address that is no socket's.
pub const ONLY_SOCKETS: &str = "only addresses like `unix:///var/run/docker.sock` are supported";

/// What went wrong, whose fault it is and whether to try again.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine answers at the address.
    #[error("no container engine answers at {address}")]
    Unreachable {
        /// The socket tried.
        address: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The socket may not be opened.
    #[error("no permission to use the container engine at {address}")]
    Permission {
        /// The socket tried.
        address: String,
    },
    /// The thing named is not there.
    #[error("{what} `{name}` does not exist")]
    NotFound {
        /// `container`, `network`, `volume`, `image`.
        what: &'static str,
        /// Its name or id.
        name: String,
    },
    /// The engine refused because of something that is there already: a name, a subnet, a container in use.
    #[error("{action}: {message}")]
    Conflict {
        /// What was tried.
        action: String,
        /// The engine's words.
        message: String,
    },
    /// The engine has no room left.
    #[error("{action}: no space left on the engine's disk")]
    NoSpace {
        /// What was tried.
        action: String,
    },
    /// The engine refused the request as wrong (400); trying again will not help.
    #[error("{action}: {message}")]
    Refused {
        /// What was tried.
        action: String,
        /// The engine's words.
        message: String,
    },
    /// Anything else; worth trying again.
    #[error("{action}: {message}")]
    Failed {
        /// What was tried.
        action: String,
        /// The engine's words, or the transport's.
        message: String,
    },
}

impl EngineError {
    /// Returns whether the same request may succeed later without anybody changing the project.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoSpace { .. } | Self::Failed { .. })
    }
}

/// Result of an engine call.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Everything needed to make one container, addresses and host paths resolved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name on the engine.
    pub name: String,
    /// What the compose file asks for.
    pub container: Container,
    /// Image id or reference to make it from.
    pub image: String,
    /// All labels, orch's, Compose's and the user's.
    pub labels: BTreeMap<String, String>,
    /// Network namespace.
    pub network: SpecNetwork,
    /// Engine names of volumes, by key of the graph.
    pub volume_names: BTreeMap<String, String>,
    /// Anonymous volumes to take over: target to engine name.
    pub carried_volumes: BTreeMap<String, String>,
    /// Read-only file mounts that orch adds: host path to container path (`resolv.conf`, configs, secrets).
    pub file_binds: Vec<(String, String)>,
    /// Ports that the engine publishes (`mode: host`).
    pub host_ports: Vec<HostPort>,
    /// Ports to mark as exposed.
    pub exposed: Vec<(u16, Protocol)>,
    /// Seconds between stop signal and kill.
    pub stop_grace: Duration,
    /// Whether the engine itself starts it again, at boot and when it ends.
    #[serde(default)]
    pub restart: EngineRestart,
    /// Whether its standard input ends with the first who is attached to it.
    #[serde(default)]
    pub stdin_once: bool,
    /// Whether the engine removes it, with its anonymous volumes, once it has ended.
    #[serde(default)]
    pub auto_remove: bool,
}

/// The engine's own restart policy of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineRestart {
    /// Never: the agent is the only one who restarts pods.
    #[default]
    No,
    /// Always: the agent's own container.
    Always,
}

impl ContainerSpec {
    /// Returns the spec of a container that has nothing but a name and an image, no network, and 10 s to stop.
    pub fn new(name: impl Into<String>, image: impl Into<String>) -> Self {
        let image = image.into();
        Self {
            name: name.into(),
            container: Container { image: image.clone(), ..Container::default() },
            image,
            labels: BTreeMap::new(),
            network: SpecNetwork::Mode("none".to_owned()),
            volume_names: BTreeMap::new(),
            carried_volumes: BTreeMap::new(),
            file_binds: Vec::new(),
            host_ports: Vec::new(),
            exposed: Vec::new(),
            stop_grace: Duration::from_secs(10),
            restart: EngineRestart::No,
            stdin_once: false,
            auto_remove: false,
        }
    }
}

/// Network namespace of a container to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecNetwork {
    /// Member of these networks, default route first.
    Networks(Vec<SpecAttachment>),
    /// `host`, `none`, `bridge`, `container:<id>`.
    Mode(String),
}

impl Default for SpecNetwork {
    fn default() -> Self {
        Self::Networks(Vec::new())
    }
}

/// Membership of a container to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecAttachment {
    /// Engine name of the network.
    pub network: String,
    /// Aliases that the engine shows (orch's DNS does not read them).
    pub aliases: Vec<String>,
    /// Fixed address.
    pub ipv4: Option<Ipv4Addr>,
    /// Fixed address of IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// Fixed hardware address.
    pub mac: Option<String>,
    /// Further addresses, of the link only.
    pub link_local: Vec<IpAddr>,
    /// Options of the network's driver for this member.
    pub driver_opts: BTreeMap<String, String>,
    /// Name of the interface in the container.
    pub interface: Option<String>,
}

/// A port that the engine publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// Address on the host.
    pub host_ip: Option<IpAddr>,
    /// Port or range on the host; `None`: the engine chooses.
    pub published: Option<(u16, u16)>,
    /// Port in the container.
    pub target: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A network to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Name on the engine.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// No way out.
    pub internal: bool,
    /// Others may attach.
    pub attachable: bool,
    /// Subnet.
    pub subnet: Ipv4Net,
    /// Address of the bridge.
    pub gateway: Ipv4Addr,
    /// Range for this host's containers.
    pub ip_range: Ipv4Net,
    /// Addresses that others have, by name.
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
    /// Whether it has addresses of IPv6, too; `None`: as the engine has it.
    #[serde(default)]
    pub enable_ipv6: Option<bool>,
    /// Where these come from; empty: the engine chooses.
    #[serde(default)]
    pub ipv6_pools: Vec<Ipv6Pool>,
    /// Options of the driver for addresses.
    #[serde(default)]
    pub ipam_options: BTreeMap<String, String>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Name on the engine.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
}

/// Something that happened on the engine; says where to look, never what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// `container`, `network`, `volume`, `image`, `daemon`.
    pub kind: String,
    /// `die`, `start`, `health_status: healthy`, `kill`, `stop`, `destroy`, `connect`, …
    pub action: String,
    /// Id of the thing.
    pub id: String,
    /// The engine's attributes: name, labels, `exitCode`, `signal`.
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub time_nanos: i64,
}

/// Which events are asked for; times are the engine's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// From then on, nanoseconds since 1970, where the engine still knows them; `None`: from now on.
    pub since: Option<i64>,
    /// Until then, where the stream ends; `None`: for ever.
    pub until: Option<i64>,
    /// All that happens to the containers of this project; `None`: what changes what runs, whosever it is.
    pub project: Option<ProjectName>,
}

/// A piece of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Whether it came from standard error.
    pub stderr: bool,
    /// Bytes as written; a line may be split over chunks.
    pub bytes: Bytes,
}

/// What part of the logs is asked for.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Stay and send what comes.
    pub follow: bool,
    /// Only this many last lines; `None`: all.
    pub tail: Option<u64>,
    /// Only since then, seconds since 1970.
    pub since: Option<i64>,
    /// Only until then, seconds since 1970.
    pub until: Option<i64>,
    /// Put the engine's RFC 3339 time before each line.
    pub timestamps: bool,
}

/// A command to run inside a running container.
#[derive(Debug, Clone, Default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// User.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Allocate a terminal.
    pub tty: bool,
    /// Connect standard input.
    pub stdin: bool,
    /// Do not wait nor connect.
    pub detach: bool,
    /// All rights.
    pub privileged: bool,
}

/// A running `exec`.
pub struct ExecSession {
    /// Engine id, for [`Engine::exec_exit_code`] and [`Engine::exec_resize`].
    pub id: String,
    /// Its output until it ends.
    pub output: BoxStream<'static, Result<LogChunk>>,
    /// Its standard input; shut down to pass on the end of file.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// A stream that can be sent between tasks.
pub type BoxStream<'a, T> = Pin<Box<dyn Stream<Item = T> + Send + 'a>>;

/// Which engine is behind the API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// Docker Engine.
    #[default]
    Docker,
    /// Podman, at its Docker-compatible socket.
    Podman,
}

/// What the engine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineInfo {
    /// Which one it is.
    pub kind: EngineKind,
    /// `20.10.24`; `podman 4.3.1`.
    pub version: String,
    /// Negotiated API version, `1.41`.
    pub api_version: String,
    /// What placement needs.
    pub facts: HostFacts,
    /// `apparmor`, `selinux`, `seccomp`, `userns`, `rootless`.
    pub security: Vec<String>,
    /// Directory of the engine's data.
    pub root_dir: String,
    /// Whether it has subnets of IPv6 for networks of which no one is said.
    pub has_ipv6_pool: bool,
}

impl EngineInfo {
    /// Returns whether the engine makes directories that a container mounts and that are missing each time that it starts
    /// it, after a boot too. Podman does so when it makes the container, and refuses to start it without them.
    pub fn makes_missing_mounts(&self) -> bool {
        self.kind == EngineKind::Docker
    }
}

/// Progress of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// Layer.
    pub id: String,
    /// `Downloading`, `Extracting`, …
    pub status: String,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all; 0: not known.
    pub total: u64,
}

/// A user's login to a registry. Sent with a pull; never written down nor shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The registry, as `docker login` names it.
    pub registry: String,
    /// Empty where there is a token.
    pub username: String,
    /// Empty where there is a token.
    pub password: String,
    /// Stands for user name and password, and gets a token for each pull.
    pub identity_token: String,
    /// Sent to the registry as it is.
    pub registry_token: String,
}

impl RegistryLogin {
    /// Returns whether it says nothing.
    pub fn is_empty(&self) -> bool {
        let Self { registry: _, username, password, identity_token, registry_token } = self;
        [username, password, identity_token, registry_token].into_iter().all(String::is_empty)
    }
}

/// Without the secrets.
impl std::fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryLogin").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// One host's container engine.
#[async_trait]
pub trait Engine: ByHand + Send + Sync {
    /// Says what it is; also the test whether it answers.
    async fn info(&self) -> Result<EngineInfo>;

    /// Lists the project's containers (all states), all networks, and all volumes.
    ///
    /// Exits are reported with `by_itself: false`: only who watched the events can know better.
    async fn observe(&self, project: Option<&ProjectName>) -> Result<ObservedHost>;

    /// Looks at one container, whosever it is.
    async fn inspect_container(&self, id_or_name: &str) -> Result<ObservedContainer>;

    /// Returns the id of the image that `reference` means here, or `None`.
    async fn image_id(&self, reference: &str) -> Result<Option<String>>;

    /// Returns when `reference` came to mean the image that it means here, by the engine's clock in nanoseconds since 1970;
    /// `None`: there is none, or the engine does not say.
    async fn image_tagged_at(&self, reference: &str) -> Result<Option<i64>>;

    /// Returns the digests that registries gave the image which `reference` means here (`redis@sha256:…`), or `None`.
    async fn image_digests(&self, reference: &str) -> Result<Option<Vec<String>>>;

    /// Pulls an image, with the login that its registry asks for; progress is sent until it ends.
    fn pull<'a>(
        &'a self,
        reference: &'a str,
        platform: Option<&'a str>,
        login: Option<&RegistryLogin>,
    ) -> BoxStream<'a, Result<PullProgress>>;

    /// Pushes an image to the registry of its name, with the login that this asks for; progress is sent until it ends.
    fn push<'a>(&'a self, reference: &'a str, login: Option<&RegistryLogin>) -> BoxStream<'a, Result<PullProgress>>;

    /// Builds an image of a context; what is said is sent until it ends. Nobody who listens any more ends it.
    ///
    /// # Errors
    /// `Refused` with the engine's words when a step fails.
    fn build<'a>(
        &'a self,
        spec: &'a BuildSpec,
        context: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> BoxStream<'a, Result<BuildStep>>;

    /// Returns what the engine's `BuildKit` can do; `None`: it has none.
    async fn buildkit(&self) -> Result<Option<BuildKit>> {
        Ok(None)
    }

    /// Builds an image with `BuildKit`, otherwise as [`Engine::build`].
    ///
    /// # Errors
    /// `Refused` with the words of the step that failed, or where the engine has no `BuildKit`.
    fn build_with<'a>(&'a self, spec: &'a BuildSpec, _kit: Kit) -> BoxStream<'a, Result<BuildStep>> {
        let action = format!("build image `{}`", spec.name());
        let refused = EngineError::Refused { action, message: "the engine has no BuildKit".to_owned() };
        Box::pin(futures_util::stream::iter([Err(refused)]))
    }

    /// Loads images from a `docker save` archive.
    async fn load_image(&self, archive: Bytes) -> Result<()>;

    /// Loads images from an archive of [`Engine::save`] while it comes.
    async fn load(&self, archive: BoxStream<'static, std::io::Result<Bytes>>) -> Result<()>;

    /// Returns an image as `docker save` writes it.
    fn save(&self, reference: &str) -> BoxStream<'static, Result<Bytes>>;

    /// Returns the content ids of an image's layers, lowest first.
    async fn layers(&self, reference: &str) -> Result<Vec<String>>;

    /// Returns the layers of every image that is there, as far as the engine takes archives without them.
    async fn all_layers(&self) -> Result<Vec<Vec<String>>>;

    /// Returns all references `repository:tag` of the images of one repository, sorted.
    async fn image_references(&self, repository: &str) -> Result<Vec<String>>;

    /// Removes an image's reference; `Ok` when it is not there.
    async fn remove_image(&self, reference: &str) -> Result<()>;

    /// Makes the network unless one of this name is there. Returns its id.
    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<String>;

    /// Removes a network; `Ok` when it is not there.
    async fn remove_network(&self, name: &str) -> Result<()>;

    /// Returns the names of the containers that run on a network, whosever they are, sorted; none when it is not there.
    async fn network_users(&self, name: &str) -> Result<Vec<String>>;

    /// Takes off a network what the engine has forgotten there: endpoints of containers that are gone or do not run.
    async fn clear_network(&self, name: &str) -> Result<()>;

    /// Makes the volume unless one of this name is there.
    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<()>;

    /// Removes a volume with its data; `Ok` when it is not there.
    async fn remove_volume(&self, name: &str) -> Result<()>;

    /// Makes a container, connected to all its networks, not started. Returns its id.
    ///
    /// # Errors
    /// `Conflict` when the name is taken by a container with other labels; the same spec hash and generation under
    /// the name is taken for ours and its id returned. On any error nothing half made is left.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<String>;

    /// Starts a container; `Ok` when it runs. Returns what it is now.
    async fn start_container(&self, id_or_name: &str) -> Result<ObservedContainer>;

    /// Stops a container; `Ok` when it is stopped or gone.
    async fn stop_container(&self, id_or_name: &str, grace: Duration) -> Result<()>;

    /// Sends a signal.
    async fn kill_container(&self, id_or_name: &str, signal: &str) -> Result<()>;

    /// Freezes a running container; `Ok` when it is frozen already.
    async fn pause_container(&self, id_or_name: &str) -> Result<()>;

    /// Thaws a paused container; `Ok` when it is not paused.
    async fn unpause_container(&self, id_or_name: &str) -> Result<()>;

    /// Removes a container, killing it if it runs; `Ok` when it is gone. `volumes`: its anonymous volumes too.
    async fn remove_container(&self, id_or_name: &str, volumes: bool) -> Result<()>;

    /// Renames a container.
    async fn rename_container(&self, id_or_name: &str, name: &str) -> Result<()>;

    /// Streams a container's output.
    fn logs<'a>(&'a self, id_or_name: &'a str, query: &LogQuery) -> BoxStream<'a, Result<LogChunk>>;

    /// Streams what happens.
    fn events(&self, query: &EventQuery) -> BoxStream<'static, Result<EngineEvent>>;

    /// Returns the time on the engine's own clock, nanoseconds since 1970.
    async fn now_nanos(&self) -> Result<i64>;

    /// Starts a command in a container.
    async fn exec(&self, id_or_name: &str, spec: &ExecSpec) -> Result<ExecSession>;

    /// Tells an exec's terminal its size.
    async fn exec_resize(&self, exec: &str, rows: u16, columns: u16) -> Result<()>;

    /// Returns the exit code of an ended exec.
    async fn exec_exit_code(&self, exec: &str) -> Result<i64>;

    /// Waits until the container does not run any more. Returns its exit code.
    async fn wait_container(&self, id_or_name: &str) -> Result<i64>;

    /// Returns what a container's health check wrote the last time that it ended; `None`: it has none, or none has ended
    /// since the start.
    async fn health_output(&self, id_or_name: &str) -> Result<Option<String>>;

    /// Returns the main process id of a running container, as seen on the engine's host.
    async fn container_pid(&self, id_or_name: &str) -> Result<Option<u32>>;
}
