//! Pods of several containers: who is what in them, and what they share.
//!
//! In the graph each container of such a pod is a service of its own, so that placement, order, gates and healing are those of
//! services that share a namespace: `web` is the main container, `web.pod` the holder of the namespaces, `web.NAME` each helper.
//! A [`Part`] says so. `expand` makes them; nothing else makes up such names.
//!
//! What is run once before any pod of a service is a service of the graph, too, and in none of the pods: `web.pre_start-0`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Graph, Service};
use crate::ids::{InvalidName, ServiceName};
use crate::model::Medium;

/// Last part of the name of a holder: no helper may be called so.
pub use crate::model::HOLDER;

/// What a service is in a pod of several containers, or for the pods of another one.
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
    /// In no pod: runs to its end before any pod of the service starts (`pre_start`), once for all of them.
    PreStart,
}

/// A volume that each pod has one of (`x-pod`): made with it, gone with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodVolume {
    /// Bytes at most; only memory has a limit.
    pub size: Option<u64>,
    /// Where its content is.
    pub medium: Medium,
    /// Options of memory, as mount(8) takes them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
    /// Labels that the user gave.
    pub labels: BTreeMap<String, String>,
}

/// Reference of the image that holders run: orch's own binary, on every host that has an agent.
pub const HOLDER_IMAGE: &str = "orch/holder:latest";

/// Returns what the step of `pre_start` at `index` is called beside its service: `pre_start-0` of `web.pre_start-0`, counted as
/// Docker Compose does.
pub fn pre_start_member(index: usize) -> String {
    format!("pre_start-{index}")
}

/// Returns the name, as a service of the graph, of a helper of the pods of `service`: `web.sync`.
///
/// # Errors
/// `member` has characters that no service's name has.
pub fn member_name(service: &ServiceName, member: &str) -> Result<ServiceName, InvalidName> {
    ServiceName::new(format!("{service}.{member}"))
}

impl Role {
    /// Returns the word for it in labels and listings.
    pub fn word(self) -> &'static str {
        match self {
            Self::Holder => "holder",
            Self::Init => "init",
            Self::Sidecar => "sidecar",
            Self::Main => "main",
            Self::PreStart => "pre_start",
        }
    }

    /// Returns whether others start only after its end.
    pub fn prepares(self) -> bool {
        matches!(self, Self::Init | Self::PreStart)
    }
}

impl Part {
    /// Returns what the container called `service` in the graph is called inside its pod: `sync` of `web.sync`, nothing for
    /// the main one.
    pub fn member<'a>(&self, service: &'a ServiceName) -> &'a str {
        service.as_str().strip_prefix(self.of.as_str()).map_or("", |rest| rest.trim_start_matches('.'))
    }
}

impl Part {
    /// Returns of which service the one called `name` in the graph is a step of `pre_start`, and which; `None`: it is none.
    pub fn step(&self, name: &str) -> Option<(&ServiceName, usize)> {
        let index = name.strip_prefix(self.of.as_str())?.strip_prefix(".pre_start-")?;
        Some((&self.of, index.parse().ok()?))
    }
}

impl Graph {
    /// Returns the service of the compose file that `name` is or works for: `web` for `web`, `web.sync` and `web.pod`.
    pub fn front<'a>(&'a self, name: &'a ServiceName) -> &'a ServiceName {
        self.services.get(name).and_then(|service| service.part.as_ref()).map_or(name, |part| &part.of)
    }

    /// Returns the services that make up the pods of `front`, itself among them, with what they do there; none where its
    /// containers are pods by themselves.
    pub fn parts<'a>(&'a self, front: &'a ServiceName) -> impl Iterator<Item = (&'a ServiceName, Role)> {
        self.services.iter().filter_map(move |(name, service)| {
            let part = service.pod_part().filter(|part| part.of == *front)?;
            Some((name, part.role))
        })
    }

    /// Returns the services that are run once before any pod of `front` starts, in the order of their names.
    pub fn before_start<'a>(&'a self, front: &'a ServiceName) -> impl Iterator<Item = &'a ServiceName> {
        let steps = self.services.iter().filter(move |(_, service)| service.prepares_service() == Some(front));
        steps.map(|(name, _)| name)
    }

    /// Returns the services that own the namespaces of pods with several containers, by the service that they hold them for.
    pub fn holders(&self) -> BTreeMap<&ServiceName, &ServiceName> {
        let parts = self.services.iter().filter_map(|(name, service)| Some((name, service.part.as_ref()?)));
        parts.filter(|(_, part)| part.role == Role::Holder).map(|(name, part)| (&part.of, name)).collect()
    }
}

impl Service {
    /// Returns what it is in a pod of several containers; `None`: its containers are pods by themselves.
    pub fn pod_part(&self) -> Option<&Part> {
        self.part.as_ref().filter(|part| part.role != Role::PreStart)
    }

    /// Returns the service before whose pods it is run once, if it is there for that.
    pub fn prepares_service(&self) -> Option<&ServiceName> {
        self.part.as_ref().filter(|part| part.role == Role::PreStart).map(|part| &part.of)
    }
}
