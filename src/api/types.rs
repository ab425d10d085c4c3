//! Requests and answers of the agent's API.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/info` | | [`AgentInfo`] |
//! | `GET /v1/projects` | | list of [`ProjectSummary`] |
//! | `GET /v1/projects/NAME` | | [`ProjectStatus`] |
//! | `POST /v1/projects/NAME/plan` | [`UpRequest`] | [`Plan`] |
//! | `POST /v1/projects/NAME/up` | [`UpRequest`] | stream of [`Progress`], one JSON object a line |
//! | `POST /v1/projects/NAME/down` | [`DownRequest`] | stream of [`Progress`] |
//! | `POST /v1/projects/NAME/stop` | [`StopRequest`] | stream of [`Progress`] |
//! | `POST /v1/uninstall` | | `{}` once rules, addresses, mounts and files are gone |
//!
//! Errors have a status of 400 and above and an [`ApiError`] as body. Beside the statuses of [`ErrorKind`] there are 405
//! (another method), 408 (the body came too slowly) and 413 (it is larger than 64 MiB). The project of a graph must be the
//! path's. A stream that ends without `Done` or `Failed` was cut: what was accepted goes on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Protocol};
use crate::ids::{HostName, PodId, ProjectName, ResourceKey, ServiceName};
use crate::plan::{ContainerState, Plan, UpOptions};

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Version of orch.
    pub version: String,
    /// Content hash of its binary: what its image's tag holds.
    pub build: String,
    /// Its host.
    pub host: HostName,
    /// Version of its engine.
    pub engine: String,
    /// What its engine calls itself, so that a command for another engine can be told apart; empty: an agent from before.
    #[serde(default)]
    pub engine_id: String,
    /// Seconds since it started.
    pub uptime_secs: u64,
    /// Resident memory in bytes.
    pub memory: u64,
    /// What is wrong on this host and not any project's fault, for the reader.
    pub problems: Vec<String>,
}

/// Body of `up` and `plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpRequest {
    /// What shall run.
    pub graph: Graph,
    /// How.
    pub options: UpOptions,
    /// Refuse unless the project is at this revision now (0: not known yet); `None`: whatever it is.
    pub expected_revision: Option<u64>,
    /// Go on sending progress until every pod is ready or done (`--wait`), not only started.
    pub wait: bool,
}

/// Body of `down`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DownRequest {
    /// Remove the project's volumes too.
    pub volumes: bool,
    /// Seconds between stop signal and kill instead of each service's own.
    pub timeout_secs: Option<u64>,
}

/// Body of `stop`: containers are stopped and kept, and the agent leaves them so until the next `up`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopRequest {
    /// Seconds between stop signal and kill instead of each service's own; 0 kills at once.
    pub timeout_secs: Option<u64>,
}

/// One line of a progress stream. The last one is `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Progress {
    /// The desired state is written; from here on it comes true also if the caller goes away.
    Accepted {
        /// The revision it has.
        revision: u64,
        /// The steps that are to come.
        plan: Plan,
    },
    /// Something moves. Events of one object replace each other on a terminal.
    Object {
        /// `Container`, `Network`, `Volume`, `Image`.
        kind: String,
        /// Engine name.
        name: String,
        /// Where.
        host: HostName,
        /// Docker Compose's words: `Creating`, `Created`, `Starting`, `Started`, `Waiting`, `Healthy`, `Exited`,
        /// `Stopping`, `Stopped`, `Removing`, `Removed`, `Recreate`, `Recreated`, `Error`.
        status: String,
        /// What that means for the object.
        state: ObjectState,
        /// More, for the reader.
        detail: Option<String>,
    },
    /// Something to know that changes nothing.
    Note {
        /// The text.
        message: String,
    },
    /// It is as asked.
    Done {
        /// The revision reached.
        revision: u64,
    },
    /// It cannot become as asked; what was changed stays and is said by the objects before.
    Failed {
        /// What went wrong, one text for each thing.
        messages: Vec<String>,
    },
}

/// State of an object in a progress stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectState {
    /// Under way.
    Working,
    /// Done.
    Done,
    /// Done, with something to know.
    Warning,
    /// Failed.
    Error,
}

/// A project in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectSummary {
    /// Its name.
    pub name: ProjectName,
    /// Its revision; `None`: Docker Compose made it and orch only sees it.
    pub revision: Option<u64>,
    /// Containers by state word (`running`, `exited`, …).
    pub states: BTreeMap<String, usize>,
    /// The compose files.
    pub config_files: Vec<String>,
}

/// A project in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectStatus {
    /// Its name.
    pub name: ProjectName,
    /// Its revision.
    pub revision: u64,
    /// Its pods, those that are there and those that shall be.
    pub pods: Vec<PodStatus>,
    /// Ports published by the load balancer.
    pub published: Vec<PublishedStatus>,
    /// Virtual addresses: network to service to address.
    pub addresses: BTreeMap<ResourceKey, BTreeMap<ServiceName, std::net::Ipv4Addr>>,
    /// What is wrong now.
    pub failures: Vec<String>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    /// The pod.
    pub pod: PodId,
    /// Its host; `None`: not placed.
    pub host: Option<HostName>,
    /// Engine id of its container.
    pub container: Option<String>,
    /// Name of its container.
    pub name: String,
    /// Image.
    pub image: String,
    /// State of its container.
    pub state: Option<ContainerState>,
    /// When its container was made, RFC 3339; empty: there is none.
    #[serde(default)]
    pub created_at: String,
    /// When its container was last started, RFC 3339; empty if never.
    #[serde(default)]
    pub started_at: String,
    /// When its container last ended, RFC 3339; empty if never.
    #[serde(default)]
    pub finished_at: String,
    /// What its container runs, for the reader.
    #[serde(default)]
    pub command: String,
    /// Whether the load balancer sends to it.
    pub ready: bool,
    /// Why it is not ready, for the reader.
    pub reason: Option<String>,
    /// Whether it shall exist (not an orphan, not scaled down).
    pub wanted: bool,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedStatus {
    /// The service.
    pub service: ServiceName,
    /// Address; `None`: all.
    pub host_ip: Option<std::net::IpAddr>,
    /// Port on the host.
    pub published: u16,
    /// Port in the container.
    pub target: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Why nobody listens there, if so.
    pub problem: Option<String>,
}

/// An error as the API tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What went wrong, and the chain of causes.
    pub message: String,
    /// Whose fault.
    pub kind: ErrorKind,
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is wrong: status 400.
    User,
    /// The thing asked for is not there: 404.
    NotFound,
    /// Somebody else changed it: 409.
    Conflict,
    /// The host or its engine: 502.
    Host,
    /// orch: 500.
    Internal,
}
