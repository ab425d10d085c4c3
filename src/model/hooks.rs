//! What is run beside a container's own program: hooks, and what `develop` watches for.
//! Sources: compose-spec 05-services.md#post_start, develop.md.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Command;

/// A command that is run at some moment of a container's life.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// What is run; always printed.
    pub command: Command,
    /// Environment: a `None` value means a name that nobody gave a value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Option<String>>,
    /// Image of its own (`pre_start` only); else the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Once for each replica rather than once for the service (`pre_start` only).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub per_replica: bool,
    /// All rights.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// User.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// `develop` of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Develop {
    /// What is watched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<Watch>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// A path that is watched, and what follows from a change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// Absolute path.
    pub path: String,
    /// `rebuild`, `restart`, `sync`, `sync+restart`, `sync+exec`.
    pub action: String,
    /// What is run in the container (`sync+exec`); always printed by Docker Compose.
    pub exec: Hook,
    /// What is left out, as in `.dockerignore`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// What alone is watched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Bring all up to date first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub initial_sync: bool,
    /// Path in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}
