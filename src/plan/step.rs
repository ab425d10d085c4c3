//! What a plan consists of: one idempotent engine action a step, the reason for it, and what it waits for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::graph::Condition;
use crate::ids::{HostName, PodId, ProjectName, ResourceKey, ServiceName};

/// Ordered steps. Those whose `after` and `gates` are met may run at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The project.
    pub project: ProjectName,
    /// In an order in which they could be run one after the other.
    pub steps: Vec<PlannedStep>,
    /// Things that are surprising and change nothing: orphans, a resource not made by orch, what is waited for.
    pub notes: Vec<String>,
    /// What cannot come true as things are. `up` ends with these and exit code 1.
    pub failures: Vec<Failure>,
    /// Pods whose new containers a rollout still watches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<PodId>,
}

/// Something of what is desired that cannot come true as things are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it means for the rest.
    pub kind: FailureKind,
    /// What is wrong, for the reader.
    pub message: String,
    /// The service that cannot become as it shall be; `None`: it is of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a [`Failure`] means for the rest of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Something that orch may not make is missing, or in the way: nothing is changed, and an `up` that finds it is
    /// refused.
    Blocked,
    /// What something waits for has failed: a job ended with an error, a dependency is unhealthy.
    Dependency,
    /// Too many of the containers that a rollout made have failed.
    Rollout,
    /// No host can take a pod: the rest is made all the same.
    Unplaced,
}

impl Plan {
    /// Returns why nothing may be changed, a text for each thing; empty: nothing speaks against it.
    pub fn blocked(&self) -> Vec<&str> {
        let blocked = self.failures.iter().filter(|failure| failure.kind == FailureKind::Blocked);
        blocked.map(|failure| failure.message.as_str()).collect()
    }

    /// Returns whether there is no use in waiting for what is still to do.
    pub fn is_hopeless(&self) -> bool {
        self.failures.iter().any(|failure| failure.kind != FailureKind::Unplaced)
    }
}

/// Position of a step in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId(pub u32);

/// A step with its place in the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its id; equal to its index in [`Plan::steps`].
    pub id: StepId,
    /// Where it happens.
    pub host: HostName,
    /// What happens.
    pub step: Step,
    /// Why.
    pub reason: Reason,
    /// Steps that must be done before.
    pub after: Vec<StepId>,
    /// Conditions on the observed state that must hold before; checked anew at every pass.
    pub gates: Vec<Gate>,
    /// Holds the step back until every other pod of this pod's service is ready (or a finished job): what keeps a
    /// rollout from taking away the second replica before the first is back.
    #[serde(default)]
    pub others_ready: Option<PodId>,
    /// So many of those may not be ready all the same (`deploy.update_config.parallelism`, and what has failed).
    #[serde(default, skip_serializing_if = "is_none")]
    pub others_away: usize,
    /// What it waits for that the engine does not show, for the reader: it must not be run as long as this is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

/// One engine action. Running it again when it is already done does nothing and succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Step {
    /// Make a network.
    CreateNetwork {
        /// Its key.
        network: ResourceKey,
    },
    /// Remove a network that no container uses any more.
    RemoveNetwork {
        /// Engine name.
        name: String,
    },
    /// Make a volume.
    CreateVolume {
        /// Its key.
        volume: ResourceKey,
    },
    /// Remove a volume with its data.
    RemoveVolume {
        /// Engine name.
        name: String,
    },
    /// Make a pod's container, with all its networks.
    CreateContainer {
        /// The pod.
        pod: PodId,
        /// Name of the container to make.
        name: String,
        /// The container that it takes over anonymous volumes from (engine id), if it replaces one.
        replaces: Option<String>,
    },
    /// Start a pod's container.
    StartContainer {
        /// The pod.
        pod: PodId,
        /// Name of the container.
        name: String,
    },
    /// Take a pod out of every load balancer and wait for its connections to end, at most for `deadline`.
    Drain {
        /// The pod.
        pod: PodId,
        /// Engine id of the container.
        id: String,
        /// How long at most.
        deadline: Duration,
    },
    /// Stop a container: signal, grace period, kill.
    StopContainer {
        /// Engine id.
        id: String,
        /// Name.
        name: String,
        /// Time between signal and kill.
        grace: Duration,
    },
    /// Remove a stopped container.
    RemoveContainer {
        /// Engine id.
        id: String,
        /// Name.
        name: String,
        /// Remove its anonymous volumes too.
        volumes: bool,
    },
    /// Send a signal to a container that runs.
    Kill {
        /// The pod.
        pod: PodId,
        /// Engine id.
        id: String,
        /// Name.
        name: String,
        /// The signal.
        signal: String,
        /// Of the wish that it comes from; see [`super::Asked::Killed`].
        number: u64,
    },
    /// Freeze a container, which gets no new connections from then on.
    Pause {
        /// Engine id.
        id: String,
        /// Name.
        name: String,
    },
    /// Thaw a container that somebody paused by hand.
    Unpause {
        /// Engine id.
        id: String,
        /// Name.
        name: String,
    },
}

impl Step {
    /// Returns the pod that it is about; `None`: it is about none, or about a container that may be nobody's.
    pub fn pod(&self) -> Option<&PodId> {
        match self {
            Self::CreateContainer { pod, .. }
            | Self::StartContainer { pod, .. }
            | Self::Drain { pod, .. }
            | Self::Kill { pod, .. } => Some(pod),
            _ => None,
        }
    }
}

/// Why a step is in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Reason {
    /// It is not there.
    Missing,
    /// It is there and does not run.
    NotRunning {
        /// What is seen, for the reader: `exited with 1`, `created`.
        state: String,
    },
    /// Its spec differs; what differs where that is known.
    SpecChanged {
        /// For the reader: `image`, `environment`, …; empty when the old spec is not known.
        what: Vec<String>,
    },
    /// The image's tag means another image now.
    ImageChanged,
    /// The user asked (`--force-recreate`, `stop` and the like).
    Asked,
    /// The user asked for another run of it.
    Restarted,
    /// Its health check fails.
    Unhealthy,
    /// The service has fewer replicas now.
    ScaledDown {
        /// Replicas wanted now.
        to: u32,
    },
    /// The pod is placed on another host now.
    Moved {
        /// The other host.
        to: HostName,
    },
    /// Its service is not in the file any more.
    Orphan,
    /// `run` made it, and it has ended.
    OneoffOver,
    /// A service it depends on with `restart: true`, or whose namespace it shares, is made anew or restarted.
    DependencyReplaced {
        /// That service.
        service: ServiceName,
    },
    /// A network it is on is made anew, or it lacks one that it should be on.
    NetworkChanged {
        /// Key or engine name.
        network: String,
    },
    /// A left-over of an earlier step that was cut off.
    HalfMade,
    /// The project is going down.
    Down,
    /// A step of this plan needs it done first (a drain or stop before a replacement).
    Part,
    /// Somebody paused it by hand.
    Paused,
    /// What is run in it after its start (`post_start`) was not run yet.
    HooksPending,
    /// It helps a container that has done its work.
    MainEnded,
    /// The file gives pods of that service no such helper any more.
    NoPart {
        /// That service.
        of: ServiceName,
    },
}

impl Reason {
    /// Returns whether it is the change of the file, of an image or of the user's mind.
    pub fn is_change(&self) -> bool {
        matches!(self, Self::SpecChanged { .. } | Self::ImageChanged | Self::Asked)
    }
}

/// A condition on observed state that holds back a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// The service looked at.
    pub service: ServiceName,
    /// What must be so of it.
    pub condition: Condition,
    /// Only the replica of this number is looked at; else all of the service.
    #[serde(default)]
    pub number: Option<u32>,
    /// If not, the gate opens also when the condition cannot come true any more.
    pub required: bool,
}
