//! Pods of several containers: who is what in them, and what they share.
//!
//! In the graph each container of such a pod is a service of its own, so that placement, order, gates and healing are those of
//! services that share a namespace: `web` is the main container, `web.pod` the holder of the namespaces, `web.NAME` each helper.
//! A [`Part`] says so. `expand` makes them; nothing else makes up such names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::ServiceName;
use crate::model::Medium;

/// Last part of the name of a holder: no helper may be called so.
pub const HOLDER: &str = "pod";

/// What a service is in a pod of several containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The service of the compose file that the pod is a replica of: the main container's.
    pub of: ServiceName,
    /// What it does there.
    pub role: Role,
}

/// What a container does in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Owns the namespaces and does nothing else.
    Holder,
    /// Runs to its end before the next one starts (`x-init`): anew only with a new holder, or when that was started anew.
    Init,
    /// Runs beside the main container (`x-sidecars`): from before its start until after its end.
    Sidecar,
    /// What the service is for.
    Main,
}

/// A volume that each pod has one of (`x-pod`): made with it, gone with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodVolume {
    /// Bytes at most; only memory has a limit.
    pub size: Option<u64>,
    /// Where its content is.
    pub medium: Medium,
    /// Labels that the user gave.
    pub labels: BTreeMap<String, String>,
}
