//! The typed compose model: what `load` returns. Serialised it is Docker Compose's canonical form, so `orch config`
//! prints it as is; keys keep the specification's spelling and sorting.
//!
//! Everything here is resolved: variables replaced, files merged, short forms made long, relative paths absolute,
//! environment files read, implied dependencies and networks added, services of inactive profiles left out.

mod ambassador;
pub mod build;
mod certificate;
pub mod compose_hash;
pub mod deploy;
pub mod health;
pub mod hooks;
pub mod host;
pub mod keys;
pub mod network;
mod path;
pub mod quantity;
pub mod reference;
pub mod service;
mod serving;
pub mod signal;
pub mod unapplied;
pub mod volume;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::hosts::HostEntry;
use crate::ids::{ProjectName, ResourceKey, ServiceName};

pub use ambassador::{Ambassador, AmbassadorTarget, AmbassadorTls, Breaker, Export, ExternalLink, Medium};
pub use build::{Build, Repository};
pub use certificate::{Authorities, CertificateError, authorities, certified};
pub use compose_hash::{ComposeHash, ComposeHashes, Piece, compose_hashes};
pub use deploy::{
    Deploy, DeployMode, DeployPlacement, DeviceRequest, DiscreteResource, GenericResource, Preference, Reservations,
    ResourceLimits, ResourcesSpec, RestartPolicy, UpdateConfig,
};
pub use health::Healthcheck;
pub use hooks::{Develop, Hook, Watch};
pub use host::{BlkioConfig, DeviceRate, DeviceWeight, HostOptions};
pub use keys::{HOLDER, ServiceKeys, VolumeKeys};
pub use network::{Ipam, IpamConfig, Network, ServiceNetwork};
pub use path::resolved;
pub use quantity::{Bytes, Cpus, GoDuration, Ratio};
pub use service::{
    Command, ConditionName, DependsOn, Device, EnvFile, Extensions, FileReference, Logging, PortMapping, Service,
    Ulimit,
};
pub use serving::{
    Algorithm, AppProtocol, Balance, Ejection, HashKey, HostMatch, PathMatch, PathRewrite, Probe, ProbeKind, Route,
    RouteAction, RoutePort, RouteTls, Serving, Sticky,
};
pub use unapplied::{LanguageModel, Unapplied};
pub use volume::{BindOptions, ImageOptions, MountType, ServiceVolume, TmpfsOptions, Volume, VolumeOptions};

/// A project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: ProjectName,
    /// Enabled services.
    #[serde(default)]
    pub services: BTreeMap<ServiceName, Service>,
    /// Networks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<ResourceKey, Network>,
    /// Volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<ResourceKey, Volume>,
    /// Configs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<ResourceKey, FileObject>,
    /// Secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<ResourceKey, FileObject>,
    /// Language models.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<ResourceKey, LanguageModel>,
    /// `x-hosts` in the order of the files; printed with the other `x-` keys, as it was written.
    #[serde(skip)]
    pub hosts: Vec<HostEntry>,
    /// Docker Compose's own hashes of services, networks and volumes, as it would read the files.
    #[serde(skip)]
    pub hashes: ComposeHashes,
    /// Top-level `x-` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A config or a secret: exactly one of the sources is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileObject {
    /// Name on the platform.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Absolute path of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The content itself (configs only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Variable of the project's environment that holds the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Managed by somebody else.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Driver (secrets only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Options of the driver (secrets only).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// What fills in the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_driver: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Returns whether Docker Compose would print nothing: it does not tell 0 and `false` from what is not said.
#[expect(clippy::ref_option, reason = "serde calls it so")]
fn says_nothing<T: Default + PartialEq>(value: &Option<T>) -> bool {
    value.as_ref().is_none_or(is_default)
}

/// Reads what [`says_nothing`] prints: 0 and `false` are as if nothing was said.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default + PartialEq>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.filter(|value| !is_default(value)))
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
