//! Names that must exist, and dependencies that must not close a circle.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Span, did_you_mean};
use crate::load::node::Node;
use crate::load::normalise::{RESOURCES, uses};
use crate::load::profiles::Disabled;
use crate::load::report::Report;

/// Checks what enabled services refer to.
pub(in crate::load) fn references(tree: &mut Node, disabled: &Disabled, report: &mut Report) {
    for (name, service) in tree.entries("services") {
        for kind in RESOURCES {
            for (target, span) in uses(&service.node, kind) {
                if tree.get(kind).is_none_or(|map| map.get(&target).is_none()) {
                    report.push(undefined(tree, name, kind, &target, span));
                }
            }
        }
    }
    let mut dropped = Vec::new();
    for (name, service) in tree.entries("services") {
        for (target, entry) in service.node.entries("depends_on") {
            if tree.get("services").is_some_and(|services| services.get(target).is_some()) {
                continue;
            }
            let required = entry.node.get("required").is_none_or(|node| node.value != super::Value::Bool(false));
            match disabled.get(target) {
                Some(_) if !required => dropped.push((name.clone(), target.clone())),
                Some(profiles) => report.push(switched_off(name, target, profiles, entry.key)),
                None => report.push(unknown_service(tree, name, target, entry.key)),
            }
        }
    }
    for (name, target) in dropped {
        let service = tree.get_mut("services").and_then(|services| services.get_mut(&name));
        let depends_on = service.and_then(|service| service.get_mut("depends_on")).and_then(Node::as_map_mut);
        if let Some(map) = depends_on {
            map.shift_remove(&target);
        }
    }
    cycles(tree, report);
}

fn undefined(tree: &Node, service: &str, kind: &str, target: &str, span: Span) -> Diagnostic {
    let singular = kind.trim_end_matches('s');
    let problem =
        Diagnostic::error(format!("service `{service}` refers to {singular} `{target}`, which is not defined"));
    let problem = problem.at(span, format!("not under the top level's `{kind}`"));
    let meant = did_you_mean(target, tree.entries(kind).map(|(key, _)| key.as_str()));
    let help = match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if kind == "volumes" && target.contains('/') => format!("a path starts with `./`: `./{target}`"),
        None => format!("add `{target}:` under the top level's `{kind}`"),
    };
    problem.help(help).spec(match kind {
        "networks" => "06-networks.md",
        "volumes" => "07-volumes.md",
        "configs" => "08-configs.md",
        _ => "09-secrets.md",
    })
}

fn unknown_service(tree: &Node, service: &str, target: &str, span: Span) -> Diagnostic {
    let problem = Diagnostic::error(format!("service `{service}` depends on `{target}`, which no file defines"));
    let mut problem = problem.at(span, "not a service of this project").spec("05-services.md#depends_on");
    if let Some(meant) = did_you_mean(target, tree.entries("services").map(|(name, _)| name.as_str())) {
        problem = problem.help(format!("did you mean `{meant}`?"));
    }
    problem
}

fn switched_off(service: &str, target: &str, profiles: &[String], span: Span) -> Diagnostic {
    let problem = Diagnostic::error(format!("service `{service}` depends on `{target}`, which is switched off"));
    let one = profiles.first().map(String::as_str).unwrap_or_default();
    problem
        .at(span, format!("has the profiles {}", profiles.join(", ")))
        .help(format!("switch it on with `--profile {one}`, or say `required: false`"))
        .spec("15-profiles.md")
}

/// Reports each circle of dependencies once, with the path that closes it.
fn cycles(tree: &Node, report: &mut Report) {
    let edges: BTreeMap<&str, Vec<(&str, Span)>> = tree
        .entries("services")
        .map(|(name, service)| {
            let targets = service.node.entries("depends_on").map(|(target, entry)| (target.as_str(), entry.key));
            (name.as_str(), targets.collect())
        })
        .collect();
    let mut done: BTreeMap<&str, bool> = BTreeMap::new();
    for start in edges.keys() {
        // A stack of our own: a chain of services may be as long as the file.
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((name, next)) = path.last_mut() {
            let name = *name;
            if *next == 0 && done.insert(name, false) == Some(true) {
                done.insert(name, true);
                path.pop();
                continue;
            }
            let Some((target, span)) = edges.get(name).and_then(|targets| targets.get(*next)).copied() else {
                done.insert(name, true);
                path.pop();
                continue;
            };
            *next += 1;
            if let Some(from) = path.iter().position(|(name, _)| *name == target) {
                let names: Vec<&str> = path[from..].iter().map(|(name, _)| *name).chain([target]).collect();
                let message = format!("dependency cycle detected: {}", names.join(" -> "));
                let problem = Diagnostic::error(message).at(span, "this closes the circle");
                report.push(
                    problem.help("links and shared namespaces count as dependencies").spec("05-services.md#depends_on"),
                );
            } else if done.get(target) != Some(&true) {
                path.push((target, 0));
            }
        }
    }
}
