//! The observed side: what engines said is there. Filled by the `engine` edge, read by `place` and `plan`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::graph::{Part, Protocol, Role};
use crate::ids::{HostName, PodId, ProjectName, ServiceName};

/// Label by which networks and volumes belong to a project; Docker Compose's own, also `engine::label::PROJECT`.
pub const PROJECT_LABEL: &str = "com.docker.compose.project";

/// Label with Docker Compose's own hash of what something was made for.
pub const CONFIG_HASH_LABEL: &str = "com.docker.compose.config-hash";

/// Label that says which spec something was made for; also `engine::label::SPEC_HASH`.
pub const SPEC_HASH_LABEL: &str = "orch.spec-hash";

/// Label with the parts of a container's spec, `command=0f3a81c2,image=…`: what tells which part of it has changed.
pub const SPEC_PARTS_LABEL: &str = "orch.spec-parts";

/// Label that names the service of the file whose pod a container is part of, where that has several.
pub const POD_LABEL: &str = "orch.pod";

/// Label that says what a container does in its pod: `holder`, `init`, `sidecar`, `main`.
pub const ROLE_LABEL: &str = "orch.pod.role";

/// Label with the containers whose namespaces one lives in, `web.pod=ID,db=ID`.
pub const OWNERS_LABEL: &str = "orch.owners";

/// Label of a one-off that is also reached by its service's names.
pub const ALIASES_LABEL: &str = "orch.use-aliases";

/// Label with the random digits of a one-off, which tell its containers from others'.
pub const SLUG_LABEL: &str = "com.docker.compose.slug";

/// Label with the ambassadors in the pod of a one-off, as JSON.
pub const AMBASSADORS_LABEL: &str = "orch.ambassadors";

/// Label of a volume that one pod has for itself: `web.1`, or `web.run-` and the first digits of a one-off.
pub const POD_VOLUME_LABEL: &str = "orch.pod-volume";

/// All hosts' observed state of one project, and what of the rest matters to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// By host. A host that does not answer is absent.
    pub hosts: BTreeMap<HostName, ObservedHost>,
}

/// What is on one host's engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedHost {
    /// Containers of the project, by engine id.
    pub containers: BTreeMap<String, ObservedContainer>,
    /// Networks, of anyone, by engine name.
    pub networks: BTreeMap<String, ObservedNetwork>,
    /// Volumes, of anyone, by engine name.
    pub volumes: BTreeMap<String, ObservedVolume>,
    /// Image references that the project names, with the id of the image they mean here: as the last `up` found them, or for
    /// the plan of an `up` as they are now. Missing ones are absent.
    pub images: BTreeMap<String, String>,
}

/// A container as the engine shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedContainer {
    /// Engine id, 64 hex digits.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Label `com.docker.compose.project`.
    pub project: Option<ProjectName>,
    /// Label `com.docker.compose.service`.
    pub service: Option<ServiceName>,
    /// Label `com.docker.compose.container-number`.
    pub number: Option<u32>,
    /// Label `com.docker.compose.oneoff` is `True`: made by `run`.
    pub oneoff: bool,
    /// Label `orch.spec-hash`; absent on containers that Docker Compose made.
    pub spec_hash: Option<String>,
    /// Label `orch.generation`: the desired state's generation when it was made.
    pub generation: Option<u64>,
    /// Id of the image it was made from.
    pub image_id: String,
    /// Its state.
    pub state: ContainerState,
    /// When it was made, RFC 3339.
    #[serde(default)]
    pub created_at: String,
    /// When it was last started, RFC 3339; empty if never.
    pub started_at: String,
    /// When it last ended, RFC 3339; empty if never.
    #[serde(default)]
    pub finished_at: String,
    /// Program and arguments, joined by spaces, for the reader.
    #[serde(default)]
    pub command: String,
    /// Engine names of its networks, with its address where it has one.
    pub networks: BTreeMap<String, Option<Ipv4Addr>>,
    /// `host`, `none`, `container:<id>`, or the first network's name.
    pub network_mode: String,
    /// Engine names of the named and anonymous volumes it mounts, by target.
    pub volumes: BTreeMap<String, String>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Ports of the host that its engine publishes for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<EnginePort>,
    /// What its host's agent hears when it asks it (`x-probe`); `None`: it is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probed>,
}

/// A port of the host that an engine publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EnginePort {
    /// Address; `None`: all, of both families.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// What an agent hears from a container that it asks (`x-probe`). Says whether anything is sent there, and nothing else: the
/// container is not replaced for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The verdict on its present run.
    pub health: Health,
    /// What the last answer was, for the reader.
    #[serde(default)]
    pub said: String,
}

/// State of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Running.
    Running {
        /// What its health check says.
        health: Health,
    },
    /// Frozen by `pause`.
    Paused,
    /// Between two starts by the engine's own restart policy.
    Restarting,
    /// Ended.
    Exited {
        /// Exit code.
        code: i32,
        /// Whether it ended by itself and that end was seen: only then may it count as a finished job. An end by
        /// `docker stop`, `docker kill` or the engine's own shutdown, or one that nobody saw, is not.
        by_itself: bool,
    },
    /// The engine failed to remove it.
    Dead,
    /// The engine is removing it.
    Removing,
}

impl ContainerState {
    /// Returns the exit code of a container that has ended.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Exited { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Returns the engine's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { .. } => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited { .. } => "exited",
            Self::Dead => "dead",
            Self::Removing => "removing",
        }
    }

    /// Returns whether it has processes: it must be stopped before it is removed, and holds on to its networks.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running { .. } | Self::Paused | Self::Restarting)
    }

    /// Returns whether it ended because somebody stopped or killed it, or the engine went down.
    pub fn is_end_by_hand(self) -> bool {
        matches!(self, Self::Exited { by_itself: false, .. })
    }
}

/// What the engine's health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It has no health check.
    None,
    /// No verdict yet.
    Starting,
    /// Passes.
    Healthy,
    /// Failed `retries` times in a row.
    Unhealthy,
}

impl Health {
    /// Returns what two verdicts come to together.
    fn worse(self, other: Self) -> Self {
        let rank = |health| match health {
            Self::None => 0,
            Self::Healthy => 1,
            Self::Starting => 2,
            Self::Unhealthy => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// A network as the engine shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNetwork {
    /// Engine id.
    pub id: String,
    /// Engine name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// First IPv4 subnet.
    pub subnet: Option<Ipv4Net>,
    /// Its gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Whether it has addresses of IPv6, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
    /// No way out.
    pub internal: bool,
    /// Name of the bridge interface on the host.
    pub bridge: String,
    /// Whether that interface is there only while a container runs on the network (Podman).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bridge_on_demand: bool,
    /// All labels.
    pub labels: BTreeMap<String, String>,
}

/// A volume as the engine shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedVolume {
    /// Engine name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
}

impl Observed {
    /// Returns whether an engine publishes a port for a container that Docker Compose made: until that one is replaced nobody
    /// else can listen there, and afterwards orch does.
    pub fn is_published_by_docker_compose(&self, address: Option<IpAddr>, port: u16, protocol: Protocol) -> bool {
        let mut containers = self.hosts.values().flat_map(|host| host.containers.values());
        containers.any(|one| one.is_of_docker_compose() && one.publishes(address, port, protocol))
    }
}

impl ObservedContainer {
    /// Returns which replica this is, if its labels say so and it is not a one-off.
    pub fn pod(&self) -> Option<PodId> {
        match (&self.service, self.number) {
            (Some(service), Some(number)) if !self.oneoff => Some(PodId::new(service.clone(), number)),
            _ => None,
        }
    }

    /// Returns whose names a one-off answers to, if it was made to do so: the pod of number 0, which no replica is.
    pub fn stands_in(&self) -> Option<PodId> {
        let stands_in = self.oneoff && self.labels.get(ALIASES_LABEL).is_some_and(|value| value == "True");
        self.service.clone().filter(|_| stands_in).map(|service| PodId::new(service, 0))
    }

    /// Returns the digits that tell a one-off from others, which all containers of its pod have.
    pub fn slug(&self) -> Option<&str> {
        self.labels.get(SLUG_LABEL).map(String::as_str).filter(|_| self.oneoff)
    }

    /// Returns whether it is in the pod of a one-off beside what that is for.
    pub fn helps_oneoff(&self) -> bool {
        self.oneoff && self.part().is_some_and(|part| part.role != Role::Main)
    }

    /// Returns what it is in a pod of several containers, or for another service, if its labels say so.
    pub fn part(&self) -> Option<Part> {
        part_of(|label| self.labels.get(label).map(String::as_str))
    }

    /// Returns whether it prepares a pod.
    pub fn is_init(&self) -> bool {
        self.part().is_some_and(|part| part.role == Role::Init)
    }

    /// Returns whether Docker Compose made it: it is a replica and has none of orch's labels.
    pub fn is_of_docker_compose(&self) -> bool {
        !self.oneoff && self.spec_hash.is_none()
    }

    /// Returns whether its engine publishes a port for it as it is now, so that nobody else can listen there.
    pub fn publishes(&self, address: Option<IpAddr>, port: u16, protocol: Protocol) -> bool {
        let meets = |there: Option<IpAddr>| there.is_none() || address.is_none() || there == address;
        let mut published = self.published.iter();
        self.state.is_active() && published.any(|at| (at.port, at.protocol) == (port, protocol) && meets(at.address))
    }

    /// Returns whether it was made to live in the namespaces of `owner`, a container of `service`.
    ///
    /// The engine tells of the network's; of the others its own label does, which containers have that share more than that.
    /// Of what Docker Compose made its hash does, which has the id of the owner, the first replica.
    pub fn lives_with(&self, service: &ServiceName, owner: &Self) -> bool {
        if self.is_of_docker_compose() && self.number == Some(1) {
            return true;
        }
        let owners = self.labels.get(OWNERS_LABEL).map_or("", String::as_str);
        let mut owners = owners.split(',').filter_map(|item| item.split_once('='));
        match owners.find(|(name, _)| *name == service.as_str()) {
            Some((_, id)) => id == owner.id,
            None => self.network_mode == format!("container:{}", owner.id),
        }
    }

    /// Returns the parts of the spec that it was made for; `None`: it does not say.
    pub fn spec_parts(&self) -> Option<BTreeMap<&str, &str>> {
        let text = self.labels.get(SPEC_PARTS_LABEL)?;
        Some(text.split(',').filter_map(|part| part.split_once('=')).collect())
    }

    /// Returns whether a load balancer may send to it: it runs, and its health check and probe, if any, pass.
    pub fn is_ready(&self) -> bool {
        matches!(self.checked_state(), ContainerState::Running { health: Health::None | Health::Healthy })
    }

    /// Returns its state with what both the engine's health check and the agent's probe say: the worse of the two counts.
    ///
    /// What is done about bad health is done for the engine's alone, which is in `state`.
    pub fn checked_state(&self) -> ContainerState {
        match (self.state, &self.probe) {
            (ContainerState::Running { health }, Some(probe)) => {
                ContainerState::Running { health: health.worse(probe.health) }
            }
            (state, _) => state,
        }
    }

    /// Returns whether it runs, ready or not.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }
}

/// Returns what labels say of a container's part in a pod of several.
pub fn part_of<'a>(label: impl Fn(&str) -> Option<&'a str>) -> Option<Part> {
    let of = ServiceName::new(label(POD_LABEL)?).ok()?;
    let role = match label(ROLE_LABEL)? {
        "holder" => Role::Holder,
        "init" => Role::Init,
        "sidecar" => Role::Sidecar,
        "main" => Role::Main,
        "pre_start" => Role::PreStart,
        _ => return None,
    };
    Some(Part { of, role })
}

/// Returns the text of [`SPEC_PARTS_LABEL`].
pub fn spec_parts_label(parts: &BTreeMap<String, String>) -> String {
    let parts: Vec<String> = parts.iter().map(|(key, digits)| format!("{key}={digits}")).collect();
    parts.join(",")
}

impl ObservedNetwork {
    /// Returns whether it carries the label of `project`.
    pub fn belongs_to(&self, project: &ProjectName) -> bool {
        self.labels.get(PROJECT_LABEL).is_some_and(|name| name == project.as_str())
    }
}

impl ObservedVolume {
    /// Returns whether one pod has it for itself.
    pub fn is_of_pod(&self) -> bool {
        self.labels.contains_key(POD_VOLUME_LABEL)
    }

    /// Returns the pod that it is of, by its service of the file.
    pub fn pod(&self) -> Option<PodId> {
        let (service, number) = self.labels.get(POD_VOLUME_LABEL)?.rsplit_once('.')?;
        Some(PodId::new(ServiceName::new(service).ok()?, number.parse().ok()?))
    }

    /// Returns whether it carries the label of `project`.
    pub fn belongs_to(&self, project: &ProjectName) -> bool {
        self.labels.get(PROJECT_LABEL).is_some_and(|name| name == project.as_str())
    }
}

/// What the agent remembers of a pod beyond what the engine shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodMemory {
    /// Generation of the desired state when its container was last started by orch; 0: never. A finished job is
    /// started again when the desired generation is higher (`up` runs jobs again, healing does not).
    pub started_generation: u64,
    /// Starts in a row that ended in a crash or in bad health.
    pub failures: u32,
    /// Whether its container runs, nobody checks that, and it has not run for long enough to be taken at that. What an agent that
    /// does not know of this says nothing of is steady.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unsteady: bool,
    /// Whether it failed before the last `up`, which asked for the same, and has not run well for long since.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub frail: bool,
    /// Engine id of a container that was found unhealthy: it is replaced also when it was stopped for that meanwhile,
    /// never started again as it is.
    pub condemned: Option<String>,
    /// Number of the last wish for a signal that was sent to it.
    pub signalled: u64,
    /// Set while it must not be started or replaced: the reason for the reader (`crashed 3 times, next start in 4 s`).
    pub held: Option<String>,
    /// The last run of its container for which the hooks after the start were run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooked: Option<Hooked>,
    /// How its part of a rollout goes; `None`: there was none since the agent knows of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled: Option<Rolled>,
}

/// What has become of the container that a rollout made for a pod, as its own host's agent says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rolled {
    /// Generation of the desired state that it was made for.
    pub generation: u64,
    /// Whether it has been ready for as long as the rollout waits before it goes on in its place.
    pub rested: bool,
    /// Whether it has been watched for as long as the rollout says.
    pub watched: bool,
    /// Whether what it shall be has failed before an `up` asked for it once more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retried: bool,
    /// How it failed, for the reader: `container shop-web-1 ended with 1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A run of a container, and how the hooks after its start went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooked {
    /// When the run began, as the engine says.
    pub started_at: String,
    /// What went wrong, for the reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
