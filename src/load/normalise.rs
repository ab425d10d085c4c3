//! What a file leaves unsaid and Docker Compose fills in: names on the engine, the default network, dependencies that
//! follow from links and shared namespaces, targets of secrets.

use std::collections::BTreeSet;

use crate::diag::Span;

use super::helpers::{self, each_container};
use super::keys;
use super::node::{Entry, Map, Node, Value};

/// Resources of the top level that have names on the engine.
pub(super) const RESOURCES: [&str; 4] = ["networks", "volumes", "configs", "secrets"];

/// Fills in what follows from the rest.
pub(super) fn normalise(tree: &mut Node, project: &str) {
    let mut default_used = None;
    for entry in services_mut(tree) {
        let service = &mut entry.node;
        if service.get("networks").is_none_or(|networks| networks.as_map().is_some_and(Map::is_empty))
            && service.str("network_mode").is_none_or(str::is_empty)
        {
            service.set("networks", Value::Null);
            let span = Span { end: service.span.start, ..service.span };
            if let Some(networks) = service.get_mut("networks") {
                *networks = Node::map(span, [("default", Value::Null)]);
            }
        }
        if service.get("networks").is_some_and(|networks| networks.get("default").is_some()) {
            default_used.get_or_insert(service.span);
        }
        imply(service);
        sort_hosts(service);
    }
    each_container(tree, &mut secret_targets);
    if let Some(span) = default_used {
        ensure_default_network(tree, span);
    }
    for kind in RESOURCES {
        for (key, entry) in top_mut(tree, kind) {
            named(&mut entry.node, &key, project);
        }
    }
}

/// Services that are mappings.
pub(super) fn services_mut(tree: &mut Node) -> impl Iterator<Item = &mut Entry> {
    let services = tree.get_mut("services").and_then(Node::as_map_mut);
    services.into_iter().flat_map(|map| map.values_mut()).filter(|entry| entry.node.as_map().is_some())
}

fn top_mut<'a>(tree: &'a mut Node, kind: &str) -> impl Iterator<Item = (String, &'a mut Entry)> {
    let map = tree.get_mut(kind).and_then(Node::as_map_mut);
    map.into_iter().flat_map(|map| map.iter_mut().map(|(key, entry)| (key.clone(), entry)))
}

fn ensure_default_network(tree: &mut Node, span: Span) {
    if tree.get("networks").is_none() {
        tree.set("networks", Value::Map(Map::new()));
    }
    if let Some(networks) = tree.get_mut("networks").and_then(Node::as_map_mut) {
        let span = Span { end: span.start, ..span };
        let empty = || Entry::new(span, Node::new(span, Value::Map(Map::new())));
        networks.entry("default".to_owned()).or_insert_with(empty);
    }
}

/// The name on the engine: `<project>_<key>`, of what others manage the key itself.
fn named(resource: &mut Node, key: &str, project: &str) {
    if resource.is_null() {
        resource.value = Value::Map(Map::new());
    }
    if resource.str("name").is_none_or(str::is_empty) {
        let external = resource.get("external").is_some_and(|external| external.value == Value::Bool(true));
        let name = if external { key.to_owned() } else { format!("{project}_{key}") };
        resource.set("name", Value::Str(name));
    }
}

/// Services that another one needs without saying so under `depends_on`, each with the place that says it.
pub(super) fn implied(service: &Node) -> Vec<(String, Span)> {
    let links = service.items("links").iter().filter_map(|link| {
        let text = link.as_str()?;
        Some((text.split(':').next().unwrap_or(text).to_owned(), link.span))
    });
    let shared = ["network_mode", "ipc", "pid"].into_iter().filter_map(|key| {
        let node = service.get(key)?;
        Some((node.as_str()?.strip_prefix("service:")?.to_owned(), node.span))
    });
    links.chain(shared).collect()
}

fn imply(service: &mut Node) {
    for (name, span) in implied(service) {
        if service.get("depends_on").is_none() {
            service.set("depends_on", Value::Map(Map::new()));
        }
        if let Some(map) = service.get_mut("depends_on").and_then(Node::as_map_mut) {
            let started = Value::Str("service_started".to_owned());
            let entries = [("condition", started), ("restart", Value::Bool(true)), ("required", Value::Bool(true))];
            map.entry(name).or_insert_with(|| Entry::new(span, Node::map(span, entries)));
        }
    }
}

/// Docker Compose prints the target of secrets, but not of configs.
pub(super) fn secret_targets(service: &mut Node) {
    let secrets = service.get_mut("secrets").and_then(Node::as_seq_mut);
    for secret in secrets.into_iter().flatten() {
        if secret.str("target").is_none_or(str::is_empty)
            && let Some(source) = secret.str("source").map(|source| format!("/run/secrets/{source}"))
        {
            secret.set("target", Value::Str(source));
        }
    }
}

fn sort_hosts(service: &mut Node) {
    if let Some(hosts) = service.get_mut("extra_hosts").and_then(Node::as_seq_mut) {
        hosts.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
}

/// Removes networks, volumes, configs and secrets that no service uses, as Docker Compose does, but for those that are
/// needed by orch's own keys.
pub(super) fn drop_unused(tree: &mut Node) {
    for kind in RESOURCES {
        let of_containers = helpers::containers(tree).flat_map(|(_, container)| uses(&container.node, kind));
        let of_keys = tree.entries("services").flat_map(|(_, service)| keys::uses(tree, &service.node, kind));
        let used: BTreeSet<String> = of_containers.chain(of_keys).map(|(name, _)| name).collect();
        if let Some(map) = tree.get_mut(kind).and_then(Node::as_map_mut) {
            map.retain(|key, _| used.contains(key));
        }
    }
}

/// The resources of a kind that a service refers to, with the places that say so.
pub(super) fn uses(service: &Node, kind: &str) -> Vec<(String, Span)> {
    match kind {
        "networks" => service.entries("networks").map(|(key, entry)| (key.clone(), entry.key)).collect(),
        "volumes" => service
            .items("volumes")
            .iter()
            .filter(|volume| volume.str("type") == Some("volume"))
            .filter_map(|volume| volume.get("source"))
            .filter_map(|source| Some((source.as_str()?.to_owned(), source.span)))
            .collect(),
        kind => service
            .items(kind)
            .iter()
            .filter_map(|reference| reference.get("source"))
            .filter_map(|source| Some((source.as_str()?.to_owned(), source.span)))
            .collect(),
    }
}
