//! Where each pod runs: filter the hosts, score what is left, keep what runs where it runs. Pure and deterministic.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{HostName, PodId};

/// A host as the placer sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    /// Labels that the user gave the host (`node.labels.*`).
    pub labels: BTreeMap<String, String>,
    /// Labels of its engine (`engine.labels.*`).
    pub engine_labels: BTreeMap<String, String>,
    /// The machine's own name (`node.hostname`).
    pub hostname: String,
    /// Stable id of the engine (`node.id`).
    pub id: String,
    /// `linux`.
    pub os: String,
    /// `x86_64`, `aarch64`, as the engine says; compared with their Docker names too.
    pub arch: String,
    /// CPUs, in billionths.
    pub nano_cpus: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Reserved by pods of other projects: CPUs in billionths, memory in bytes.
    pub reserved: (i64, i64),
    /// Takes no new pods.
    pub draining: bool,
}

/// The placer's answer: a host for each pod, or why not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assignments {
    /// Host of each placed pod. Pods of global services have the number of their host in the order of names, from 1.
    #[serde(with = "crate::place::pods_as_list")]
    pub pods: BTreeMap<PodId, HostName>,
    /// Pods without a host.
    pub unplaced: Vec<Unplaced>,
}

/// A pod that no host can take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    /// The pod.
    pub pod: PodId,
    /// Per host, why not.
    pub refusals: BTreeMap<HostName, String>,
    /// The same in one line, equal reasons counted: ``memory short on 2 hosts, `b` is draining``.
    #[serde(default)]
    pub summary: String,
}

/// JSON has no maps with structured keys: `[[pod, host], …]`.
pub(crate) mod pods_as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::ids::{HostName, PodId};

    pub(crate) fn serialize<S: Serializer>(pods: &BTreeMap<PodId, HostName>, serializer: S) -> Result<S::Ok, S::Error> {
        pods.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<PodId, HostName>, D::Error> {
        Ok(Vec::<(PodId, HostName)>::deserialize(deserializer)?.into_iter().collect())
    }
}
