//! What `config` prints: the whole model as JSON or YAML, and the short lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use crate::ids::ServiceName;
use crate::model::{Model, Service};

use super::interpolate::{self, OperatorKind, Part};
use super::node::{Node, Value};

/// Returns the model as Docker Compose's `config --format json` prints it, with `$` doubled so that it loads again.
///
/// One difference: Docker Compose leaves `x-` keys below the top level out of its JSON; here they stay.
///
/// # Panics
/// Never: all keys of a model are text.
pub fn render_json(model: &Model) -> String {
    format!("{:#}\n", printed(model))
}

/// Returns the model as Docker Compose's `config` prints it, with `$` doubled so that it loads again.
///
/// # Panics
/// Never: all keys of a model are text.
pub fn render_yaml(model: &Model) -> String {
    serde_yaml::to_string(&printed(model)).expect("JSON is YAML")
}

/// The model with `$` doubled in values. Docker Compose doubles it in keys as well, but does not undo that on loading.
fn printed(model: &Model) -> Json {
    let mut json = serde_json::to_value(model).expect("a model has text keys only");
    double(&mut json);
    json
}

fn double(json: &mut Json) {
    match json {
        Json::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Json::Array(items) => items.iter_mut().for_each(double),
        Json::Object(map) => map.values_mut().for_each(double),
        _ => {}
    }
}

/// Returns the enabled services: `config --services`.
pub fn services(model: &Model) -> Vec<&str> {
    model.services.keys().map(ServiceName::as_str).collect()
}

/// Returns the keys of volumes: `config --volumes`.
pub fn volumes(model: &Model) -> Vec<&str> {
    model.volumes.keys().map(AsRef::as_ref).collect()
}

/// Returns the keys of networks: `config --networks`.
pub fn networks(model: &Model) -> Vec<&str> {
    model.networks.keys().map(AsRef::as_ref).collect()
}

/// Returns the images: `config --images`.
pub fn images(model: &Model) -> BTreeSet<&str> {
    model.services.values().filter_map(|service| service.image.as_deref()).collect()
}

/// Returns the hash of what a service's containers are made from: `config --hash`.
///
/// As in Docker Compose a change of `depends_on`, `profiles`, `pull_policy`, `scale` or `deploy.replicas` leaves it as
/// it is. The value itself is orch's own: Docker Compose hashes the printed form of its Go structures.
///
/// # Panics
/// Never: all keys of a model are text.
pub fn hash(service: &Service) -> String {
    let mut service = service.clone();
    service.depends_on.clear();
    service.profiles.clear();
    service.pull_policy = None;
    service.scale = None;
    if let Some(deploy) = &mut service.deploy {
        deploy.replicas = None;
    }
    let json = serde_json::to_vec(&service).expect("a service has text keys only");
    Sha256::digest(json).iter().fold(String::new(), |mut hex, byte| {
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A variable that a file asks for: `config --variables`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VariableUse {
    /// Name.
    pub name: String,
    /// `${NAME:?…}`.
    pub required: bool,
    /// `${NAME:-DEFAULT}`.
    pub default: Option<String>,
    /// `${NAME:+REPLACEMENT}`.
    pub alternate: Option<String>,
}

/// Variables by their names.
pub(super) type Variables = BTreeMap<String, VariableUse>;

/// Adds the variables of all values to those `found` before.
pub(super) fn variables(node: &Node, found: &mut Variables) {
    match &node.value {
        Value::Str(text) if text.contains('$') => {
            if let Ok(parts) = interpolate::parse(text) {
                collect(&parts, text, found);
            }
        }
        Value::Seq(items) => items.iter().for_each(|item| variables(item, found)),
        Value::Map(map) => map.values().for_each(|entry| variables(&entry.node, found)),
        _ => {}
    }
}

/// Adds variables found elsewhere.
pub(super) fn add_variables(found: &mut Variables, more: Variables) {
    for (name, VariableUse { name: _, required, default, alternate }) in more {
        let known = found.entry(name.clone()).or_default();
        known.name = name;
        known.required |= required;
        known.default = default.or(known.default.take());
        known.alternate = alternate.or(known.alternate.take());
    }
}

fn collect(parts: &[Part], text: &str, found: &mut Variables) {
    for part in parts {
        let Part::Variable(variable) = part else { continue };
        let known = found.entry(variable.name.clone()).or_default();
        known.name.clone_from(&variable.name);
        let Some(operator) = &variable.operator else { continue };
        let length = variable.name.len() + usize::from(operator.colon) + 3;
        let word = text.get(variable.range.start + length..variable.range.end - 1).unwrap_or_default().to_owned();
        match operator.kind {
            OperatorKind::Default => known.default = Some(word),
            OperatorKind::Required => known.required = true,
            OperatorKind::Replacement => known.alternate = Some(word),
        }
        collect(&operator.word, text, found);
    }
}
