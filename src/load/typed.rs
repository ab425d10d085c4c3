//! Last phase: the checked tree becomes the typed model.

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde_json::{Map as JsonMap, Number, Value as Json};

use crate::diag::Diagnostic;
use crate::ids::ServiceName;
use crate::model::{Model, Service, ServiceKeys};

use super::helpers::{self, Kind};
use super::keys::Understood;
use super::node::{Entry, Node, Value};
use super::report::Report;
use super::rules::{self, Keys, Rules, Shape};

/// Returns the model, or reports why the tree is none, which the checks before should have found.
pub(super) fn typed(tree: &Node, name: &str, mut understood: Understood, report: &mut Report) -> Option<Model> {
    let rules = rules::root(Keys::All);
    let mut json = convert(&tree.value, Some(rules));
    if let Json::Object(map) = &mut json {
        map.insert("name".to_owned(), Json::String(name.to_owned()));
        map.remove("version");
    }
    let mut model: Model = read(json, report)?;
    let services = rules.key("services").and_then(|rules| rules.key("*"));
    for (name, entry) in tree.entries("services") {
        let Some(service) = ServiceName::new(name.as_str()).ok().and_then(|name| model.services.get_mut(&name)) else {
            continue;
        };
        let mut keys = understood.services.remove(name).unwrap_or_default();
        add_helpers(&mut keys, entry, services, report)?;
        for (helper, probe) in understood.probes.remove(name).unwrap_or_default() {
            if let Some(container) = keys.sidecars.get_mut(&helper) {
                container.keys.probe = Some(probe);
            }
        }
        service.keys = keys;
    }
    for (key, pod) in understood.volumes {
        if let Some(volume) = model.volumes.get_mut(key.as_str()) {
            volume.pod = Some(pod);
        }
    }
    Some(model)
}

/// Returns the tree as it is printed where variables stay.
pub(super) fn as_written(tree: &Node, name: &str) -> Json {
    let mut json = convert(&tree.value, Some(rules::root(Keys::All)));
    if let Json::Object(map) = &mut json {
        map.insert("name".to_owned(), Json::String(name.to_owned()));
        map.remove("version");
    }
    json
}

/// Returns the model of a tree in which variables stay, as far as it does not depend on them: for lists of what there is.
pub(super) fn outline(tree: &Node, name: &str) -> Option<Model> {
    let mut unheard = Report::default();
    let understood = || Understood::default();
    let known = known(tree).and_then(|tree| typed(&tree, name, understood(), &mut unheard));
    known.or_else(|| {
        let mut bare = tree.clone();
        for (_, entry) in bare.get_mut("services").and_then(Node::as_map_mut).into_iter().flatten() {
            let image = entry.node.str("image").map(|image| ("image", Value::Str(image.to_owned())));
            entry.node = Node::map(entry.node.span, image);
        }
        bare.as_map_mut()?.retain(|key, _| key == "services");
        typed(&bare, name, understood(), &mut unheard)
    })
}

/// Leaves out variables, and items of lists that have one.
fn known(node: &Node) -> Option<Node> {
    let is_variable = |node: &Node| matches!(node.value, Value::Variable(_));
    let value = match &node.value {
        Value::Variable(_) => return None,
        Value::Map(map) => {
            let entries = map
                .iter()
                .filter_map(|(key, entry)| Some((key.clone(), Entry { node: known(&entry.node)?, ..entry.clone() })));
            Value::map(entries.collect())
        }
        Value::Seq(items) => {
            let whole =
                |item: &&Node| item.as_map().is_none_or(|map| !map.values().any(|entry| is_variable(&entry.node)));
            Value::Seq(items.iter().filter(whole).filter_map(known).collect())
        }
        other => other.clone(),
    };
    Some(node.with(value))
}

fn read<T: DeserializeOwned>(json: Json, report: &mut Report) -> Option<T> {
    match serde_json::from_value(json) {
        Ok(value) => Some(value),
        Err(error) => {
            report.push(Diagnostic::error(format!("this project cannot be represented: {error}")));
            None
        }
    }
}

/// Adds the containers beside the main one, in the order in which they start.
fn add_helpers(keys: &mut ServiceKeys, service: &Entry, rules: Option<&Rules>, report: &mut Report) -> Option<()> {
    for (kind, name, entry) in helpers::of(&service.node) {
        let rules = rules.and_then(|rules| rules.key(kind.key())).and_then(|rules| rules.key(name));
        let container: Service = read(convert(&entry.node.value, rules), report)?;
        let group: &mut IndexMap<String, Service> =
            if kind == Kind::Init { &mut keys.init } else { &mut keys.sidecars };
        group.insert(name.clone(), container);
        if kind == Kind::Ambassador {
            keys.images.insert(name.clone());
        }
    }
    Some(())
}

/// Leaves out what says nothing: empty text where text is optional, and nulls where they mean nothing.
fn convert(value: &Value, rules: Option<&Rules>) -> Json {
    match value {
        Value::Unknown | Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => i64::try_from(*value)
            .map(Number::from)
            .or_else(|_| u64::try_from(*value).map(Number::from))
            .map_or_else(|_| Json::String(value.to_string()), Json::Number),
        Value::Float(value) => {
            // 1.0 prints as 1, as in Docker Compose.
            #[expect(clippy::cast_possible_truncation, reason = "whole and small enough")]
            if value.fract() == 0.0 && value.abs() < 1e15 {
                Json::from(*value as i64)
            } else {
                Number::from_f64(*value).map_or_else(|| Json::String(super::scalar::go_float(*value)), Json::Number)
            }
        }
        Value::Date(text) | Value::Str(text) | Value::Variable(text) => Json::String(text.clone()),
        Value::Seq(items) => items.iter().map(|item| convert(&item.value, rules.map(Rules::item))).collect(),
        Value::Map(map) => {
            let mut object = JsonMap::new();
            for (key, entry) in map.iter() {
                let child = rules.and_then(|rules| rules.key(key));
                if let Some(written) = &entry.written {
                    object.insert(key.clone(), convert(written, None));
                } else if !says_nothing(&entry.node, rules, child) {
                    object.insert(key.clone(), convert(&entry.node.value, child));
                }
            }
            Json::Object(object)
        }
    }
}

fn says_nothing(node: &Node, parent: Option<&Rules>, child: Option<&Rules>) -> bool {
    let (Some(parent), Some(child)) = (parent, child) else { return false };
    if parent.rule().shape == Shape::Open {
        return false;
    }
    let path = child.rule().path;
    let optional_text = matches!(child.rule().shape, Shape::Text | Shape::TextOrNumber | Shape::Scalar)
        && !path.ends_with(".content")
        && !path.ends_with("env_file.[].path");
    node.is_null() || optional_text && node.as_str() == Some("")
}
