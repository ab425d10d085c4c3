//! What is valid YAML, but stands in a column that makes it part of something else: told once, where it stands, and what would only
//! follow from it is left out.

use std::collections::BTreeSet;

use crate::diag::{Diagnostic, Span, did_you_mean};
use crate::load::node::{Map, Node, Value};
use crate::load::normalise::RESOURCES;
use crate::load::path::Path;
use crate::load::report::Report;
use crate::load::rules::{Rules, Shape};

use super::advice;

/// Reports entries that stand beside one that has nothing below it, as if they were below it. Returns their keys.
pub(super) fn entries(map: &mut Map, rules: &Rules, path: &Path<'_>, report: &mut Report) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    if !map.values().any(|entry| entry.node.is_null()) {
        return told;
    }
    let mut order: Vec<(Span, String)> = map.iter().map(|(key, entry)| (entry.key, key.clone())).collect();
    order.sort_by_key(|(span, _)| (span.source, span.start));
    let mut above: Option<(Span, String)> = None;
    for (span, key) in order {
        let Some(entry) = map.get(&key) else { continue };
        match &above {
            Some((at, name)) if at.source == span.source && is_meant_below(name, &key, &entry.node, rules, path) => {
                if told.insert(name.clone()) {
                    let problem = Diagnostic::error(format!("`{key}` stands beside `{name}`, not below it"));
                    let problem = problem.at(span, "").also(*at, "has nothing below it");
                    let help = format!("indent it, and what else belongs to `{name}`");
                    report.push(problem.help(help).spec(rules.rule().spec));
                }
                if matches!(path, Path::Root) {
                    report.note_meant(name, &key);
                }
                told.insert(key);
            }
            _ => above = entry.node.is_null().then_some((span, key)),
        }
    }
    for key in &told {
        if let Some(entry) = map.get_mut(key) {
            entry.node.value = Value::Unknown;
        }
    }
    told
}

/// Whether `key` cannot be where it is, and could be below `name`, which stands before it.
fn is_meant_below(name: &str, key: &str, node: &Node, rules: &Rules, path: &Path<'_>) -> bool {
    let Some(of_name) = rules.key(name).filter(|_| !key.starts_with("x-")) else { return false };
    let shape = of_name.rule().shape;
    if rules.rule().shape == Shape::Open {
        // The keys here are for the user to choose: it is the value that cannot be here.
        let is_wrong = match &node.value {
            Value::Map(map) => !map.is_empty() && !map.keys().any(|key| of_name.key(key).is_some()),
            Value::Null | Value::Unknown | Value::Variable(_) => false,
            _ => true,
        };
        return shape == Shape::Map && is_wrong && of_name.key(key).is_some();
    }
    let takes_more = matches!(shape, Shape::Map | Shape::Open | Shape::List | Shape::BoolOrMap | Shape::BoolOrList);
    let is_service = name != "services" && advice::service_elsewhere(path, node).is_some();
    takes_more && rules.key(key).is_none() && !is_service && did_you_mean(key, rules.names()).is_none()
}

/// Notes what an unknown key defines that stands in a wrong place, so that nobody misses it.
pub(super) fn resource_elsewhere(key: &str, path: &Path<'_>, node: &Node, report: &mut Report) {
    if advice::service_elsewhere(path, node).is_some() {
        report.note_meant("services", key);
    } else if let Path::Key(Path::Key(Path::Root, kind), _) = path
        && advice::resource_elsewhere(path, node).is_some()
    {
        report.note_meant(kind, key);
    }
}

/// Reports what is no service, but a part of one or of the project that was indented wrongly. Returns whether it is that.
pub(super) fn indented_wrongly(node: &Node, rules: &Rules, path: &Path<'_>, report: &mut Report) -> bool {
    let Path::Key(Path::Key(Path::Root, "services"), name) = path else { return false };
    let Some(map) = node.as_map() else { return false };
    let is_service = map.is_empty() || map.keys().any(|key| key.starts_with("x-") || rules.key(key).is_some());
    if is_service || rules.key(name).is_none() {
        return false;
    }
    let help = if RESOURCES.contains(name) {
        map.keys().for_each(|key| report.note_meant(name, key));
        format!("indent it below a service, or not at all where it is the project's `{name}`")
    } else {
        format!("`{name}` is a key of services: indent it below the name of one")
    };
    let problem = Diagnostic::error(format!("`{path}` has nothing that a service has")).at(node.span, "");
    report.push(problem.help(help).spec(rules.rule().spec));
    true
}
