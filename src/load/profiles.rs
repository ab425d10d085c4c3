//! Which services are on: by profiles, and by being named. Source: compose-spec 15-profiles.md.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::{Diagnostic, instead};

use super::node::{Entry, Node, Value};
use super::normalise::implied;
use super::report::Report;
use super::{LoadRequest, Selection};

/// Services taken out of the model, with their profiles.
pub(super) type Disabled = BTreeMap<String, Vec<String>>;

/// Takes disabled services out of the tree and returns them.
pub(super) fn apply(
    tree: &mut Node,
    request: &LoadRequest,
    environment: &BTreeMap<String, String>,
    report: &mut Report,
) -> Disabled {
    let mut active: BTreeSet<String> = request.profiles.iter().cloned().collect();
    if active.is_empty() {
        let list = environment.get("COMPOSE_PROFILES").map(String::as_str).unwrap_or_default();
        active = list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    }
    for name in &request.services {
        if let Some(service) = tree.get("services").and_then(|services| services.get(name)) {
            active.extend(profiles(service));
            continue;
        }
        let problem = Diagnostic::error(format!("no such service: {name}"));
        let list = || "`orch config --services` lists them".to_owned();
        let known = tree.entries("services").map(|(name, _)| name.as_str());
        report.push(problem.help(instead(name, known).unwrap_or_else(list)));
    }
    let disabled = take(tree, |_, entry| {
        let own = profiles(&entry.node);
        own.is_empty() || active.contains("*") || own.iter().any(|name| active.contains(name))
    });
    disabled.into_iter().map(|(name, entry)| (name, profiles(&entry.node))).collect()
}

/// Takes out what was not asked for by name.
pub(super) fn select(tree: &mut Node, request: &LoadRequest) {
    if request.services.is_empty() || request.options.selection == Selection::All {
        return;
    }
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut next: Vec<String> = request.services.clone();
    while let Some(name) = next.pop() {
        let Some(service) = tree.get("services").and_then(|services| services.get(&name)) else { continue };
        if wanted.insert(name) && request.options.selection == Selection::WithDependencies {
            next.extend(service.entries("depends_on").map(|(name, _)| name.clone()));
            next.extend(implied(service).into_iter().map(|implied| implied.name));
        }
    }
    drop(take(tree, |name, _| wanted.contains(name)));
    if request.options.selection == Selection::WithDependencies {
        forget_wishes(tree);
    }
}

/// Takes out dependencies that are not required on services that are not there.
fn forget_wishes(tree: &mut Node) {
    let there: BTreeSet<String> = tree.entries("services").map(|(name, _)| name.clone()).collect();
    let services = tree.get_mut("services").and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut());
    for service in services {
        let Some(wanted) = service.node.get_mut("depends_on").and_then(Node::as_map_mut) else { continue };
        let is_required =
            |entry: &Entry| entry.node.get("required").is_none_or(|node| node.value != Value::Bool(false));
        wanted.retain(|name, entry| there.contains(name) || is_required(entry));
    }
}

fn take(tree: &mut Node, keep: impl Fn(&str, &Entry) -> bool) -> Vec<(String, Entry)> {
    let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) else { return Vec::new() };
    let (kept, taken): (Vec<_>, Vec<_>) =
        std::mem::take(services).into_iter().partition(|(name, entry)| keep(name, entry));
    *services = kept.into_iter().collect();
    taken
}

/// The profiles of a service.
pub(super) fn profiles(service: &Node) -> Vec<String> {
    service.items("profiles").iter().filter_map(Node::as_str).map(str::to_owned).collect()
}
