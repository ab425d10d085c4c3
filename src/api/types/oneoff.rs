//! One-off containers: where they run, and their making.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::graph::Graph;
use crate::ids::ServiceName;

/// Body of `oneoffs/place`: a host for one more container of a service, once what it depends on is as it demands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceOneoff {
    /// The service as it is to be run, with its networks, volumes and files.
    pub graph: Graph,
    /// Its name.
    pub service: ServiceName,
    /// Do not wait for what it depends on.
    #[serde(default)]
    pub no_deps: bool,
}

/// Body of `oneoffs`: a container of a service is made and not started. It is nobody's pod: whoever has it made starts
/// it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MakeOneoff {
    /// The service as it is to be run, with its networks, volumes and files.
    pub graph: Graph,
    /// Its name.
    pub service: ServiceName,
    /// Name of the container.
    pub name: String,
    /// 64 random hex digits.
    pub slug: String,
    /// Labels beside the service's.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// It is also reached by its service's names.
    #[serde(default)]
    pub use_aliases: bool,
    /// The engine removes it, with its anonymous volumes, when it has ended.
    #[serde(default)]
    pub auto_remove: bool,
    /// Its standard input ends with whoever is attached first.
    #[serde(default)]
    pub stdin_once: bool,
}

/// Body of `oneoffs/begin`: what comes before the main container of a one-off that was made as a pod of several containers
/// is started, in order. Whoever goes away meanwhile does not want it any more: then all of it is removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BeginOneoff {
    /// The graph that it was made of.
    pub graph: Graph,
    /// The service of the main container.
    pub service: ServiceName,
    /// Its digits.
    pub slug: String,
}

/// Body of `oneoffs/end`: nobody starts or watches a one-off's pod any more. Done once what is left of it is as it shall
/// be: stopped beside a main container that has ended, gone with one that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOneoff {
    /// Its digits.
    pub slug: String,
    /// Remove the main container, where it does not run.
    #[serde(default)]
    pub remove: bool,
}

/// Answer to [`MakeOneoff`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneoffMade {
    /// Engine id of the container.
    pub container: String,
}
