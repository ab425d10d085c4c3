//! The rules that a service is run by: how many, where, after whom, and what happens at its end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::ServiceName;

/// How many replicas of a service run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// This many over all hosts.
    Replicas(u32),
    /// One on every host that the constraints allow.
    Global,
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

/// How fast and how often a container is started again, where the file says it (`deploy.restart_policy`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPace {
    /// Time before each start; zero: a pause that grows with every failure.
    pub delay: Duration,
    /// Good running that makes earlier failures forgotten; `None`: as the agent has it.
    pub window: Option<Duration>,
    /// Starts again at most, whatever the code; `None`: as [`Restart`] says.
    pub max_attempts: Option<u32>,
}

impl RestartPace {
    /// Returns whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a change is rolled out over the replicas of a service (`deploy.update_config`).
///
/// Source: compose-spec deploy.md, `update_config`, and Docker Swarm's updater for what that leaves open: each of the
/// `parallelism` places is taken from the end of an old container until `delay` after the new one is ready, and `monitor`
/// holds nothing back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Replicas that are being replaced at the same time at most; 0: all.
    pub parallelism: u32,
    /// Time from when a new replica is ready until the next one is replaced in its place.
    #[serde(default)]
    pub delay: Duration,
    /// Time from when a new replica is ready in which its end, or bad health, is a failure of the rollout.
    #[serde(default)]
    pub monitor: Duration,
    /// What becomes of the rest after too many failures.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Failures that are borne, in millionths of the replicas to be replaced.
    #[serde(default)]
    pub failures_borne: u32,
}

/// What becomes of a rollout after too many failures (`deploy.update_config.failure_action`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// What was not replaced yet stays as it is until the next `up`.
    #[default]
    Pause,
    /// It goes on.
    Continue,
}

impl Rollout {
    /// Returns how many replicas may be away at the same time because of it.
    pub fn places(&self) -> usize {
        match self.parallelism {
            0 => usize::MAX,
            count => usize::try_from(count).unwrap_or(usize::MAX),
        }
    }

    /// Returns whether so many failures among so many replicas are too many.
    pub fn is_too_much(&self, failures: usize, replicas: usize) -> bool {
        let millionths = |count: usize, times: u32| u128::try_from(count).unwrap_or(u128::MAX) * u128::from(times);
        millionths(failures, 1_000_000) > millionths(replicas, self.failures_borne)
    }
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
    /// When it is not there, or the engine has had it for longer than this.
    Every(Duration),
    /// At each `up`.
    Always,
    /// Never.
    Never,
}
