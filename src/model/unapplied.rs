//! What a compose file may say of a service and `up` does not do yet: loaded and printed, so that `config` has all of a file,
//! and refused with its place by `load` before anything is run. What is applied one day moves to [`Service`](super::Service).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::ResourceKey;

use super::{Bytes, Develop, Hook};

/// Attributes of a service that `up` refuses; see `docs/compose-compat.md`.
///
/// Numbers are 0 and lists empty where nothing is said: Docker Compose does not tell the two apart either.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unapplied {
    /// Annotations of the OCI runtime.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Limits of block devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_config: Option<BlkioConfig>,
    /// `host` or `private`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Parent of its control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// CPUs that may be used (Windows).
    #[serde(skip_serializing_if = "super::is_default")]
    pub cpu_count: i64,
    /// Share of the CPUs (Windows).
    #[serde(skip_serializing_if = "super::is_default")]
    pub cpu_percent: i64,
    /// Period of the CPU scheduler, in microseconds.
    #[serde(skip_serializing_if = "super::is_default")]
    pub cpu_period: i64,
    /// Quota in a period, in microseconds.
    #[serde(skip_serializing_if = "super::is_default")]
    pub cpu_quota: i64,
    /// Period of the real-time scheduler, in microseconds.
    #[serde(skip_serializing_if = "super::is_default")]
    pub cpu_rt_period: i64,
    /// Real time in a period, in microseconds.
    #[serde(skip_serializing_if = "super::is_default")]
    pub cpu_rt_runtime: i64,
    /// Weight among containers.
    #[serde(skip_serializing_if = "super::is_default")]
    pub cpu_shares: i64,
    /// CPUs by number: `0-3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
    /// Managed service account (Windows).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_spec: Option<CredentialSpec>,
    /// What is watched while somebody works on the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub develop: Option<Develop>,
    /// Rules for devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_cgroup_rules: Vec<String>,
    /// Technology that separates containers (Windows).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// How readily memory is swapped, in percent.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub mem_swappiness: Option<Bytes>,
    /// Memory and swap at most; -1: no limit.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub memswap_limit: Option<Bytes>,
    /// Language models that it uses, by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<ResourceKey, Option<ServiceModel>>,
    /// It is not killed when memory is short.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom_kill_disable: bool,
    /// How readily it is killed when memory is short.
    #[serde(skip_serializing_if = "super::is_default")]
    pub oom_score_adj: i64,
    /// Run in the container once it is started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_start: Vec<Hook>,
    /// Run to their end before it is started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_start: Vec<Hook>,
    /// Run in the container before it is stopped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_stop: Vec<Hook>,
    /// Whoever provides the service instead of a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Age at which an image is pulled again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_refresh_after: Option<String>,
    /// Options of the storage driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    /// It may use the engine's API.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_api_socket: bool,
    /// User namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns_mode: Option<String>,
    /// Namespace of the host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uts: Option<String>,
    /// Services and containers whose mounts it has too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<String>,
}

/// `blkio_config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioConfig {
    /// Bytes read in a second at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_read_bps: Vec<DeviceRate>,
    /// Reads in a second at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_read_iops: Vec<DeviceRate>,
    /// Bytes written in a second at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_write_bps: Vec<DeviceRate>,
    /// Writes in a second at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_write_iops: Vec<DeviceRate>,
    /// Weight among containers.
    #[serde(skip_serializing_if = "super::is_default")]
    pub weight: u16,
    /// Weight among containers, for each device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weight_device: Vec<DeviceWeight>,
}

/// A limit of a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    /// Device.
    pub path: String,
    /// In a second.
    pub rate: Bytes,
}

/// The weight of a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceWeight {
    /// Device.
    pub path: String,
    /// Weight.
    pub weight: u16,
}

/// `credential_spec`: exactly one of the sources is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CredentialSpec {
    /// Key of a config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// File.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Key of the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// How a service learns of a language model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceModel {
    /// Variable that gets its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_var: Option<String>,
    /// Variable that gets its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_var: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// A language model of the top level.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LanguageModel {
    /// Name on the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which one.
    pub model: String,
    /// Tokens of context.
    #[serde(skip_serializing_if = "super::is_default")]
    pub context_size: i64,
    /// Flags of whoever runs it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtime_flags: Vec<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// `provider`: a program that takes the place of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provider {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its options, each with one value or more.
    #[serde(deserialize_with = "one_or_more", skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, Vec<String>>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// Reads options of which each is one text or a list.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Values {
        One(String),
        More(Vec<String>),
    }
    let options = BTreeMap::<String, Values>::deserialize(deserializer)?;
    let listed = |values| match values {
        Values::One(value) => vec![value],
        Values::More(values) => values,
    };
    Ok(options.into_iter().map(|(name, values)| (name, listed(values))).collect())
}
