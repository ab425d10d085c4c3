//! `healthcheck`.

use serde::{Deserialize, Serialize};

use super::GoDuration;

/// `healthcheck` of a service. Source: compose-spec 05-services.md#healthcheck.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// No check, also not the image's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable: bool,
    /// `NONE`, `CMD …` or `CMD-SHELL …`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time that one check may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Time between checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,
    /// Failures in a row that make it unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Time after the start in which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<GoDuration>,
    /// Time between checks in the start period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<GoDuration>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}
