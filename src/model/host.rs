//! What a service says of its containers and the engine takes as it is: limits, namespaces and the like that nothing of
//! orch's own looks at. Printed among the service's other keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Bytes;

/// Attributes of a service that are one field of the engine's request each.
///
/// Numbers are 0 and lists empty where nothing is said: Docker Compose does not tell the two apart either.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostOptions {
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
    /// Rules for devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_cgroup_rules: Vec<String>,
    /// How readily memory is swapped, in percent.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub mem_swappiness: Option<Bytes>,
    /// Memory and swap at most; -1: no limit.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub memswap_limit: Option<Bytes>,
    /// It is not killed when memory is short.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom_kill_disable: bool,
    /// How readily it is killed when memory is short.
    #[serde(skip_serializing_if = "super::is_default")]
    pub oom_score_adj: i64,
    /// Options of the storage driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    /// User namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns_mode: Option<String>,
    /// Namespace of the host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uts: Option<String>,
}

impl HostOptions {
    /// Returns whether they ask for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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
