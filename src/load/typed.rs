//! Last phase: the checked tree becomes the typed model.

use serde_json::{Map as JsonMap, Number, Value as Json};

use crate::diag::Diagnostic;
use crate::model::Model;

use super::node::{Node, Value};
use super::report::Report;
use super::rules::{self, Rules, Shape};

/// Returns the model, or reports why the tree is none, which the checks before should have found.
pub(super) fn typed(tree: &Node, name: &str, report: &mut Report) -> Option<Model> {
    let mut json = convert(tree, Some(rules::root()));
    if let Json::Object(map) = &mut json {
        map.insert("name".to_owned(), Json::String(name.to_owned()));
        map.remove("version");
    }
    match serde_json::from_value(json) {
        Ok(model) => Some(model),
        Err(error) => {
            report.push(Diagnostic::error(format!("this project cannot be represented: {error}")));
            None
        }
    }
}

/// Leaves out what says nothing: empty text where text is optional, and nulls where they mean nothing.
fn convert(node: &Node, rules: Option<&Rules>) -> Json {
    match &node.value {
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
        Value::Date(text) | Value::Str(text) => Json::String(text.clone()),
        Value::Seq(items) => items.iter().map(|item| convert(item, rules.map(Rules::item))).collect(),
        Value::Map(map) => {
            let mut object = JsonMap::new();
            for (key, entry) in map {
                let child = rules.and_then(|rules| rules.key(key));
                if !says_nothing(&entry.node, rules, child) {
                    object.insert(key.clone(), convert(&entry.node, child));
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
    let optional_text =
        matches!(child.rule().shape, Shape::Text | Shape::TextOrNumber) && !child.rule().path.ends_with(".content");
    node.is_null() || optional_text && node.as_str() == Some("")
}
