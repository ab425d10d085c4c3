//! Names that must exist, and dependencies that must not close a circle.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Severity, Span, did_you_mean};
use crate::ids::{ResourceKey, ServiceName};
use crate::load::helpers::containers;
use crate::load::node::Node;
use crate::load::normalise::{NAMESPACES, USED, uses};
use crate::load::profiles::Disabled;
use crate::load::report::Report;

/// Checks what enabled services refer to.
pub(in crate::load) fn references(tree: &Node, disabled: &Disabled, report: &mut Report) {
    for (container, entry) in containers(tree) {
        for kind in USED {
            for (target, span) in uses(&entry.node, kind) {
                let defined = tree.get(kind);
                // What has another form, which is told, may well be meant to define it.
                let is_known = defined.is_none_or(|defined| defined.is_null() || defined.as_map().is_some());
                let is_known = is_known && !report.is_meant(kind, &target);
                if is_known && defined.is_none_or(|map| map.get(&target).is_none()) {
                    report.push(undefined(tree, &container, kind, &target, span));
                }
            }
        }
    }
    for (name, service) in tree.entries("services") {
        for (target, entry) in service.node.entries("depends_on") {
            let is_there = tree.get("services").is_some_and(|services| services.get(target).is_some());
            // What is wrong about the entry is told, or that its service stands elsewhere.
            let is_told = entry.node.as_map().is_none();
            if is_there || is_told || report.is_meant("services", target) {
                continue;
            }
            let wish = Wish::new(&service.node, target, entry.key, report);
            let required = entry.node.get("required").is_none_or(|node| node.value != super::Value::Bool(false));
            match disabled.get(target) {
                // Docker Compose prints such a dependency still; whoever starts the service does not find it.
                Some(_) if !required => {}
                Some(profiles) => report.push(wish.switched_off(name, target, profiles)),
                None if !required && ServiceName::new(target.as_str()).is_ok() => {
                    report.push(Diagnostic { severity: Severity::Warning, ..wish.unknown(tree, name, target) });
                }
                // What nothing can be called is a mistake in any case.
                None => report.push(wish.unknown(tree, name, target)),
            }
        }
    }
    contexts(tree, report);
    cycles(tree, report);
}

/// Checks that what services refer to has a name that something could have, where nobody asks whether it is there.
pub(in crate::load) fn names(tree: &Node, report: &mut Report) {
    for (container, entry) in containers(tree) {
        for kind in ["networks", "models"] {
            for (target, span) in uses(&entry.node, kind) {
                if ResourceKey::new(target.as_str()).is_err() {
                    report.push(undefined(tree, &container, kind, &target, span));
                }
            }
        }
    }
    for (name, service) in tree.entries("services") {
        for (target, entry) in service.node.entries("depends_on") {
            if ServiceName::new(target.as_str()).is_err() {
                report.push(Wish::new(&service.node, target, entry.key, report).unknown(tree, name, target));
            }
        }
    }
}

/// What is built of another service's image needs that service to be built as well.
fn contexts(tree: &Node, report: &mut Report) {
    for (container, entry) in containers(tree) {
        let build = entry.node.get("build");
        for (name, context) in build.map(|build| build.entries("additional_contexts")).into_iter().flatten() {
            let Some(target) = context.node.as_str().and_then(|text| text.strip_prefix("service:")) else { continue };
            let service = tree.get("services").and_then(|services| services.get(target));
            let (wrong, help) = match service.map(|service| service.get("build")) {
                Some(Some(_)) => continue,
                Some(None) => ("which is not built", format!("give it a `build`, or say `{name}=docker-image://NAME`")),
                None => ("which is not there", "name an enabled service that has a `build`".to_owned()),
            };
            let message = format!("the context `{name}` of {container} is of service `{target}`, {wrong}");
            let problem = Diagnostic::error(message).at(context.node.span, "").help(help);
            report.push(problem.spec("build.md#additional_contexts"));
        }
    }
}

fn undefined(tree: &Node, container: &str, kind: &str, target: &str, span: Span) -> Diagnostic {
    let singular = kind.trim_end_matches('s');
    let problem = Diagnostic::error(format!("{container} refers to {singular} `{target}`, which is not defined"));
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
        "models" => "05-services.md#models",
        _ => "09-secrets.md",
    })
}

/// A service that another one needs: how and where it says so.
struct Wish {
    verb: &'static str,
    spec: &'static str,
    span: Span,
}

impl Wish {
    fn new(service: &Node, target: &str, key: Span, report: &Report) -> Self {
        if let Some(link) = service.items("links").iter().find(|link| link.span == key) {
            return Self { verb: "links to", spec: "05-services.md#links", span: report.part(link, 0, target.len()) };
        }
        if let Some(from) = service.items("volumes_from").iter().find(|from| from.span == key) {
            let span = report.part(from, 0, target.len());
            return Self { verb: "mounts the volumes of", spec: "05-services.md#volumes_from", span };
        }
        for shared in NAMESPACES {
            if let Some(node) = service.get(shared).filter(|node| node.span == key) {
                let (start, end) = ("service:".len(), "service:".len() + target.len());
                let verb = "shares a namespace with";
                return Self { verb, spec: "05-services.md#network_mode", span: report.part(node, start, end) };
            }
        }
        Self { verb: "depends on", spec: "05-services.md#depends_on", span: key }
    }

    fn unknown(&self, tree: &Node, service: &str, target: &str) -> Diagnostic {
        let problem = Diagnostic::error(format!("service `{service}` {} `{target}`, which no file defines", self.verb));
        let mut problem = problem.at(self.span, "not a service of this project").spec(self.spec);
        let names = tree.get("services").and_then(Node::as_map).into_iter().flatten();
        if let Some(meant) = did_you_mean(target, names.clone().map(|(name, _)| name.as_str())) {
            problem = problem.help(format!("did you mean `{meant}`?"));
            if let Some((_, entry)) = names.into_iter().find(|(name, _)| *name == meant) {
                problem = problem.also(entry.key, "defined here");
            }
        }
        problem
    }

    fn switched_off(&self, service: &str, target: &str, profiles: &[String]) -> Diagnostic {
        let problem = Diagnostic::error(format!("service `{service}` {} `{target}`, which is switched off", self.verb));
        let one = profiles.first().map(String::as_str).unwrap_or_default();
        problem
            .at(self.span, format!("has the profiles {}", profiles.join(", ")))
            .help(format!("switch it on with `--profile {one}`, or say `required: false`"))
            .spec("15-profiles.md")
    }
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
