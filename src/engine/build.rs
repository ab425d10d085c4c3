//! What an image is built of, and what is heard of it meanwhile.
//!
//! This is the engine's own builder (`POST /build`), which every engine has. What only `BuildKit` can do is not here.

use std::collections::BTreeMap;

use super::{PullProgress, RegistryLogin};

/// How an image is to be made of a context: a tar archive with the file of instructions and what it copies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuildSpec {
    /// Path of the file of instructions in the context.
    pub dockerfile: String,
    /// Names that the image gets; the first one is for messages.
    pub names: Vec<String>,
    /// Variables.
    pub args: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The stage that is wanted; `None`: the last.
    pub target: Option<String>,
    /// Images whose layers may be taken.
    pub cache_from: Vec<String>,
    /// Network of the containers that it runs in; `None`: the engine's own.
    pub network: Option<String>,
    /// Lines of `/etc/hosts`, `name:address`.
    pub extra_hosts: Vec<String>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// Bytes of memory at most.
    pub memory: Option<u64>,
    /// Limits of processes: soft and hard.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// Technology that separates containers (Windows).
    pub isolation: Option<String>,
    /// Take no layers of earlier builds.
    pub no_cache: bool,
    /// Pull base images anew.
    pub pull: bool,
    /// Platform: `linux/amd64`.
    pub platform: Option<String>,
    /// Logins to the registries of base images.
    pub logins: Vec<RegistryLogin>,
}

impl BuildSpec {
    /// Returns the name for messages.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// Something that a build says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildStep {
    /// A piece of its output, line ends included.
    Said(String),
    /// A base image is pulled.
    Pulling(PullProgress),
    /// The id of an image that it made; the last one is the result.
    Made(String),
}
