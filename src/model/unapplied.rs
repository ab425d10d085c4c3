//! What a compose file may say of a service and `up` does not do yet: loaded and printed, so that `config` has all of a file,
//! and refused with its place by `load` before anything is run. What is applied one day moves to [`Service`](super::Service).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::ResourceKey;

/// Attributes of a service that `up` refuses; see `docs/compose-compat.md`.
///
/// Numbers are 0 and lists empty where nothing is said: Docker Compose does not tell the two apart either.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unapplied {
    /// Managed service account (Windows).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_spec: Option<CredentialSpec>,
    /// Technology that separates containers (Windows).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// Language models that it uses, by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<ResourceKey, Option<ServiceModel>>,
    /// Whoever provides the service instead of a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Age at which an image is pulled again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_refresh_after: Option<String>,
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
