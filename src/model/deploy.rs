//! `deploy`: how many, where, with what resources. Source: compose-spec deploy.md.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Bytes, Cpus, GoDuration, Ratio};

/// `deploy` of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deploy {
    /// `replicated`, `global`, or one of the two as a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<DeployMode>,
    /// Replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Labels of the service (not of its containers).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How a change is rolled out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// How a change is taken back; `up` refuses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// Limits and reservations; always printed by Docker Compose.
    pub resources: ResourcesSpec,
    /// What becomes of containers that end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Choice of host; always printed by Docker Compose.
    pub placement: DeployPlacement,
    /// `vip` or `dnsrr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_mode: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// `deploy.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeployMode {
    /// A number of replicas.
    Replicated,
    /// One on each host.
    Global,
    /// A number of runs to their end; `up` refuses it.
    ReplicatedJob,
    /// One run to its end on each host; `up` refuses it.
    GlobalJob,
}

/// `deploy.update_config` and `deploy.rollback_config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateConfig {
    /// Replicas at once; 0: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u64>,
    /// Time between them.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub delay: Option<GoDuration>,
    /// `continue`, `rollback` or `pause`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_action: Option<String>,
    /// Time for which a replica is watched.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub monitor: Option<GoDuration>,
    /// Share of failures that is borne.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub max_failure_ratio: Option<Ratio>,
    /// `stop-first` or `start-first`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// `deploy.restart_policy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    /// `none`, `on-failure` or `any`, or a word of `restart`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Time between tries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<GoDuration>,
    /// Tries at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    /// Time after which a start counts as a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<GoDuration>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// `deploy.resources`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourcesSpec {
    /// At most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceLimits>,
    /// At least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<Reservations>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// `deploy.resources.limits`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// CPUs.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub cpus: Option<Cpus>,
    /// Memory.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub memory: Option<Bytes>,
    /// Processes.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub pids: Option<i64>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// `deploy.resources.reservations`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reservations {
    /// CPUs.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub cpus: Option<Cpus>,
    /// Memory.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub memory: Option<Bytes>,
    /// Devices that the engine hands to the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceRequest>,
    /// Things that hosts have a number of and that their engines only count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// An item of `deploy.resources.reservations.devices` or of `gpus`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// What the device must be able to do; all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Driver; `None`: the first that has the capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// How many; -1: all of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// Certain ones, in the words of the driver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_ids: Vec<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// An item of `deploy.resources.reservations.generic_resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenericResource {
    /// A number of a kind; Docker Compose takes an item without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discrete_resource_spec: Option<DiscreteResource>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// A number of something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiscreteResource {
    /// What, as the engine's `node-generic-resources` names it.
    pub kind: String,
    /// How many.
    pub value: i64,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// `deploy.placement`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployPlacement {
    /// `node.labels.disk == ssd`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// What to spread over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<Preference>,
    /// Replicas on one host at most.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub max_replicas_per_node: Option<u32>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// `deploy.placement.preferences`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preference {
    /// Label.
    pub spread: String,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}
