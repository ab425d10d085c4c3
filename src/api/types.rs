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
//! | `POST /v1/projects/NAME/ask` | [`AskRequest`] | stream of [`Progress`] |
//! | `POST /v1/projects/NAME/oneoffs/place` | [`PlaceOneoff`] | stream of [`Progress`], from the seat; the object before `Done` has the host |
//! | `POST /v1/projects/NAME/oneoffs` | [`MakeOneoff`] | [`OneoffMade`], from the host that it is for |
//! | `POST /v1/projects/NAME/oneoffs/begin` | [`BeginOneoff`] | stream of [`Progress`], from that host |
//! | `POST /v1/projects/NAME/oneoffs/end` | [`EndOneoff`] | stream of [`Progress`], from that host |
//! | `POST /v1/projects/NAME/dns` | [`NameQuestion`] | [`NameTold`] |
//! | `POST /v1/projects/NAME/why` | [`WhyQuestion`] | [`WhyTold`] |
//! | `GET /v1/traffic` | | [`Traffic`] |
//! | `GET /metrics` | | text for Prometheus, in the form that `Accept` asks for: [`MetricsForm`] |
//! | `POST /v1/metrics/expose` | [`ExposeRequest`] | `{}` once it listens there, which it does from then on |
//! | `POST /v1/access-log` | [`AccessLogRequest`] | `{}` once it is so, and will be |
//! | `POST /v1/route` | [`RouteQuestion`] | [`WhyTold`] |
//! | `GET /v1/cluster` | | [`ClusterStatus`] |
//! | `POST /v1/cluster/found` | [`FoundRequest`] | `{}`; the agent restarts as the seat of a new cluster |
//! | `POST /v1/cluster/key` | [`KeyRequest`] | [`KeyAnswer`] of a host that is to be added |
//! | `POST /v1/cluster/admit` | [`AdmitRequest`] | [`Admission`], from the seat |
//! | `POST /v1/cluster/join` | [`Admission`] | `{}`; the agent restarts as a host of the cluster |
//! | `POST /v1/cluster/leave` | | `{}`; what runs on the host is stopped, and the agent restarts alone |
//! | `POST /v1/cluster/seat` | [`SeatRequest`] | [`SeatAnswer`], from any host |
//! | `POST /v1/hosts/NAME/change` | [`HostChange`] | `{}`, from the seat |
//! | `POST /v1/hosts/NAME/remove` | [`RemoveHost`] | `{}`, from the seat |
//! | `POST /v1/snapshots/missing` | [`SnapshotList`] | [`SnapshotList`] of those that are not there |
//! | `POST /v1/snapshots/HASH` | the snapshot's archive, of any size | `{}` once it is whole and on the disk |
//! | `POST /v1/images/offer` | [`OfferImage`] | [`ImageOffer`] |
//! | `POST /v1/images/fetch` | [`FetchImage`] | stream of [`Progress`]; it ends with its caller |
//! | `POST /v1/uninstall` | | `{}` once rules, addresses, mounts and files are gone |
//!
//! Errors have a status of 400 and above and an [`ApiError`] as body. Beside the statuses of [`ErrorKind`] there are 405
//! (another method), 408 (the body came too slowly) and 413 (it is larger than
//! 64 MiB, and no snapshot). The project of a graph must be the
//! path's. A stream that ends without `Done` or `Failed` was cut: what was accepted goes on.

mod oneoff;
mod seeing;

pub use oneoff::{BeginOneoff, EndOneoff, MakeOneoff, OneoffMade, PlaceOneoff};
pub use seeing::{
    AccessLogRequest, ExposeRequest, Finding, MetricsForm, NameQuestion, NameSays, NameTold, RouteQuestion,
    ServiceSeen, ServiceTold, Traffic, Weight, WhyQuestion, WhyTold,
};

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Part, Protocol};
use crate::ids::{HostName, PodId, ProjectName, ResourceKey, ServiceName, SnapshotHash};
use crate::place::HostFacts;
use crate::plan::{Ask, Caller, ContainerState, History, ObservedContainer, Plan, UpOptions};

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Version of orch.
    pub version: String,
    /// Content hash of its binary: what its image's tag holds.
    pub build: String,
    /// Its host.
    pub host: HostName,
    /// Id of its cluster; `None`: it is alone.
    #[serde(default)]
    pub cluster: Option<String>,
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
    /// Where its metrics are told over TCP.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Whether requests have lines in its log.
    #[serde(default)]
    pub access_log: bool,
}

/// Asks a host to let other hosts of the cluster have an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferImage {
    /// The image.
    pub reference: String,
}

/// By what right another host may ask for an image.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOffer {
    /// To be shown to the host that made it, for some minutes.
    pub ticket: String,
}

/// Has a host get an image from another one of its cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchImage {
    /// The image.
    pub reference: String,
    /// The host that has it.
    pub from: HostName,
    /// Of that host's [`ImageOffer`].
    pub ticket: String,
}

/// The cluster as its seat, or any other of its agents, sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Id of the cluster; `None`: this host is alone.
    pub cluster: Option<String>,
    /// Name of the host that answers.
    pub host: HostName,
    /// Name of the host that decides; requests that change something go there.
    pub seat: HostName,
    /// How often the seat has moved: of two answers the one with the higher number holds.
    #[serde(default)]
    pub epoch: u64,
    /// The hosts, in order of their names.
    pub hosts: Vec<HostStatus>,
}

/// A host of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its name.
    pub name: HostName,
    /// How command lines reach it; empty: the local engine.
    pub ssh: String,
    /// Where its agent listens for the others.
    pub address: Option<SocketAddr>,
    /// Labels that the user gave it.
    pub labels: BTreeMap<String, String>,
    /// Takes no new pods.
    pub draining: bool,
    /// How it is, seen from the host that answers.
    pub state: HostState,
    /// Why it is not ready, or what is wrong there; for the reader.
    pub problems: Vec<String>,
    /// Version of its engine; empty while nothing was heard of it.
    pub engine: String,
    /// Its own name, platform and size.
    pub facts: HostFacts,
    /// Load average of the last minute, in hundredths.
    pub load: u32,
    /// How far its clock is ahead of the answering host's, in milliseconds.
    pub skew_ms: i64,
    /// Pods placed there.
    pub pods: usize,
}

/// How a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It answers.
    Ready,
    /// Nothing was heard of it since the answering agent started.
    Unknown,
    /// It does not answer; its pods may be placed elsewhere.
    Down,
}

/// Body of `cluster/found`: make this host the first one of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRequest {
    /// Its name.
    pub name: HostName,
    /// How command lines reach it; empty: the local engine.
    pub ssh: String,
    /// Where its agent is to listen for the others.
    pub address: SocketAddr,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Body of `cluster/key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRequest {
    /// Name that the host shall have.
    pub name: HostName,
}

/// What a host answers that is to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAnswer {
    /// Request for a certificate, PEM. The key never leaves the host.
    pub request: String,
    /// The cluster that it belongs to already.
    pub cluster: Option<String>,
}

/// Body of `cluster/admit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmitRequest {
    /// Name of the host.
    pub name: HostName,
    /// How command lines reach it; empty: the local engine.
    pub ssh: String,
    /// Where its agent is to listen for the others.
    pub address: SocketAddr,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// See [`KeyAnswer::request`].
    pub request: String,
}

/// What makes a host one of the cluster; body of `cluster/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Id of the cluster.
    pub cluster: String,
    /// Name of the host.
    pub name: HostName,
    /// The host that decides.
    pub seat: HostName,
    /// How often the seat has moved.
    #[serde(default)]
    pub epoch: u64,
    /// Certificate of the cluster's authority, PEM.
    pub authority: String,
    /// Certificate of the host, PEM.
    pub certificate: String,
    /// The hosts of the cluster, this one too.
    pub hosts: BTreeMap<HostName, HostRecord>,
}

/// A host of the cluster, as the seat has it written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// How command lines reach it (`ssh://user@host:port`); empty: by the local engine.
    pub ssh: String,
    /// Where its agent listens for the others.
    pub address: SocketAddr,
    /// Labels that the user gave it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Which slice of each network its containers get: the lowest that was free when it was added.
    pub index: u32,
    /// Takes no new pods.
    #[serde(default)]
    pub draining: bool,
}

/// Body of `cluster/seat`: a host decides from now on, which the host that is asked obeys, or becomes itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeatRequest {
    /// The host.
    pub host: HostName,
    /// How often the seat has moved with this: one more than before.
    pub epoch: u64,
    /// The cluster's authority with its key, for the host that becomes the seat.
    #[serde(default)]
    pub authority: Option<AuthorityKey>,
    /// The host is the seat already: what this one holds and that one has not heard of does not count any more.
    #[serde(default)]
    pub taken: bool,
    /// Remove the authority's key from the host that is asked: the seat has it.
    #[serde(default)]
    pub forget_authority: bool,
}

/// The authority of a cluster on its way to a new seat: as good as the cluster itself.
#[derive(Clone, Serialize, Deserialize)]
pub struct AuthorityKey {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

impl std::fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityKey").finish_non_exhaustive()
    }
}

/// Answer to [`SeatRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeatAnswer {
    /// The cluster's authority, from a host that has its key and is not the seat any more.
    pub authority: Option<AuthorityKey>,
    /// Whether the host that was asked has the authority's key.
    pub has_authority: bool,
}

/// Body of `hosts/NAME/change`: what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostChange {
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Labels to take away.
    pub remove_labels: Vec<String>,
    /// Whether it takes no new pods.
    pub draining: Option<bool>,
}

/// Body of `hosts/NAME/remove`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoveHost {
    /// Also when pods run there, or it does not answer.
    pub force: bool,
}

/// Body of `snapshots/missing`, and the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotList {
    /// The snapshots.
    pub hashes: Vec<SnapshotHash>,
}

/// Body of `up` and `plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpRequest {
    /// What shall run.
    pub graph: Graph,
    /// How.
    pub options: UpOptions,
    /// Who asks; refused with [`ErrorKind::Unseen`] where others changed what he has not seen, and he wants something else.
    #[serde(default)]
    pub caller: Caller,
    /// The hosts that the project is for; empty: all of the cluster.
    #[serde(default)]
    pub hosts: BTreeSet<HostName>,
    /// Go on sending progress until every pod is ready or done (`--wait`), not only started.
    pub wait: bool,
}

impl UpRequest {
    /// Returns a request of nobody in particular, without options.
    pub fn new(graph: Graph) -> Self {
        let (options, caller, hosts) = (UpOptions::default(), Caller::default(), BTreeSet::new());
        Self { graph, options, caller, hosts, wait: false }
    }
}

/// Body of `down`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DownRequest {
    /// Remove the project's volumes too.
    pub volumes: bool,
    /// Seconds between stop signal and kill instead of each service's own.
    pub timeout_secs: Option<u64>,
    /// Who asks; as in [`UpRequest::caller`].
    #[serde(skip_serializing_if = "is_nobody")]
    pub caller: Caller,
}

fn is_nobody(caller: &Caller) -> bool {
    *caller == Caller::default()
}

/// Body of `stop`: containers are stopped and kept, and the agent leaves them so until the next `up`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopRequest {
    /// Seconds between stop signal and kill instead of each service's own; 0 kills at once.
    pub timeout_secs: Option<u64>,
}

/// Body of `ask`: something for containers that are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskRequest {
    /// What.
    pub ask: Ask,
    /// Of which services; empty: all.
    #[serde(default)]
    pub services: Vec<ServiceName>,
    /// Go on sending progress until what was started is ready or done, not only started.
    #[serde(default)]
    pub wait: bool,
    /// Only say what would be done, in the plan of `Accepted`.
    #[serde(default)]
    pub dry_run: bool,
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
        /// `Stopping`, `Stopped`, `Restarting`, `Killing`, `Killed`, `Pausing`, `Paused`, `Unpausing`, `Unpaused`, `Removing`,
        /// `Removed`, `Recreate`, `Recreated`, `Error`.
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
        /// Whether the reader can do something about it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_warning: bool,
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
    /// Of pods that have no host, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unplaced: Vec<String>,
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
    /// Containers that `run` made, as pods of number 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub oneoffs: Vec<PodStatus>,
    /// Ports published by the load balancer.
    pub published: Vec<PublishedStatus>,
    /// Virtual addresses: network to service to address.
    pub addresses: BTreeMap<ResourceKey, BTreeMap<ServiceName, std::net::Ipv4Addr>>,
    /// What is wrong now.
    pub failures: Vec<String>,
    /// Who changed it, and what.
    #[serde(default)]
    pub history: History,
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
    /// Whether somebody stopped, killed or removed it by hand, and it stays so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resting: bool,
    /// Whether it shall exist (not an orphan, not scaled down).
    pub wanted: bool,
    /// What it does in a pod of several containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

impl PodStatus {
    /// Returns what is said of a container that `run` made: as a pod of number 0; `None` where it is of no service.
    pub fn of_oneoff(host: &HostName, container: &ObservedContainer) -> Option<Self> {
        Some(Self {
            pod: PodId::new(container.service.clone()?, 0),
            host: Some(host.clone()),
            container: Some(container.id.clone()),
            name: container.name.clone(),
            image: container.image_id.clone(),
            state: Some(container.state),
            created_at: container.created_at.clone(),
            started_at: container.started_at.clone(),
            finished_at: container.finished_at.clone(),
            command: container.command.clone(),
            ready: false,
            reason: None,
            resting: false,
            wanted: false,
            part: container.part(),
        })
    }
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
    /// Somebody else changed it since the caller last saw it, who is to be shown that and asked: 409.
    Unseen,
    /// The host or its engine: 502.
    Host,
    /// orch: 500.
    Internal,
}
