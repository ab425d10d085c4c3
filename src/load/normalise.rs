//! What a file leaves unsaid and Docker Compose fills in: names on the engine, the default network, dependencies that
//! follow from links and shared namespaces, targets of secrets.

use std::collections::BTreeSet;

use crate::diag::Span;

use super::helpers::{self, each_container};
use super::keys;
use super::node::{Entry, Map, Node, Value};

/// Resources of the top level that have names on the engine.
pub(super) const RESOURCES: [&str; 4] = ["networks", "volumes", "configs", "secrets"];

/// Resources of the top level that are left out where no service uses them.
pub(super) const USED: [&str; 5] = ["networks", "volumes", "configs", "secrets", "models"];

/// Fills in what is so by default.
pub(super) fn defaults(tree: &mut Node) {
    each_container(tree, &mut |service| {
        if let Some(build) = service.get_mut("build")
            && build.get("context").is_none_or(|context| context.is_null() || context.as_str() == Some(""))
        {
            build.set("context", Value::Str(".".to_owned()));
        }
        sort_hosts(service);
        // A variable that is not set names no resolver.
        if let Some(Value::Seq(dns)) = service.get_mut("dns").map(|dns| &mut dns.value) {
            dns.retain(|server| server.as_str() != Some(""));
        }
    });
}

/// `scale` is also what `deploy` says, where there is one.
pub(super) fn replicas(tree: &mut Node) {
    for entry in services_mut(tree) {
        let scale = entry.node.get("scale").filter(|scale| !scale.is_null()).cloned();
        if let (Some(scale), Some(deploy)) = (scale, entry.node.get_mut("deploy"))
            && deploy.get("replicas").is_none_or(Node::is_null)
        {
            deploy.set("replicas", scale.value);
        }
    }
}

/// Fills in what follows from the rest.
pub(super) fn normalise(tree: &mut Node, project: &str) {
    let mut default_used = None;
    for entry in services_mut(tree) {
        let service = &mut entry.node;
        if service.get("networks").is_none_or(|networks| networks.as_map().is_some_and(Map::is_empty))
            && service.str("network_mode").is_none_or(str::is_empty)
            && service.get("provider").is_none_or(Node::is_null)
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
        if service.str("pull_policy") == Some("if_not_present") {
            service.set("pull_policy", Value::Str("missing".to_owned()));
        }
        imply(service);
    }
    each_container(tree, &mut secret_targets);
    each_container(tree, &mut dockerfile);
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
        tree.set("networks", Value::map(Map::default()));
    }
    if let Some(networks) = tree.get_mut("networks").and_then(Node::as_map_mut) {
        let span = Span { end: span.start, ..span };
        let empty = || Entry::new(span, Node::new(span, Value::map(Map::default())));
        networks.entry("default".to_owned()).or_insert_with(empty);
    }
}

/// The name on the engine: `<project>_<key>`, of what others manage the key itself.
fn named(resource: &mut Node, key: &str, project: &str) {
    if resource.is_null() {
        resource.value = Value::map(Map::default());
    }
    if resource.str("name").is_none_or(str::is_empty) {
        let external = resource.get("external").is_some_and(|external| external.value == Value::Bool(true));
        let name = if external { key.to_owned() } else { format!("{project}_{key}") };
        resource.set("name", Value::Str(name));
    }
}

/// Keys that may name a service whose namespace is shared.
pub(super) const NAMESPACES: [&str; 4] = ["network_mode", "ipc", "pid", "uts"];

/// A dependency that nobody wrote under `depends_on`.
pub(super) struct Implied {
    /// The service that is needed.
    pub(super) name: String,
    /// The place that says so.
    pub(super) span: Span,
    /// Whether a restart of it restarts those that need it.
    restart: bool,
}

/// Services that another one needs without saying so under `depends_on`.
pub(super) fn implied(service: &Node) -> Vec<Implied> {
    let first = |node: &Node| node.as_str().and_then(|text| text.split(':').next()).map(str::to_owned);
    let links = service.items("links").iter().filter_map(|link| {
        let name = first(link)?;
        Some(Implied { name, span: link.span, restart: true })
    });
    let shared = NAMESPACES.into_iter().filter_map(|key| {
        let node = service.get(key)?;
        let name = node.as_str()?.strip_prefix("service:")?.to_owned();
        Some(Implied { name, span: node.span, restart: true })
    });
    let of_containers = |node: &Node| node.as_str().is_some_and(|text| text.starts_with("container:"));
    let mounted = service.items("volumes_from").iter().filter(move |node| !of_containers(node)).filter_map(|node| {
        let name = first(node)?;
        Some(Implied { name, span: node.span, restart: false })
    });
    links.chain(shared).chain(mounted).collect()
}

fn imply(service: &mut Node) {
    for Implied { name, span, restart } in implied(service) {
        if service.get("depends_on").is_none() {
            service.set("depends_on", Value::map(Map::default()));
        }
        if let Some(map) = service.get_mut("depends_on").and_then(Node::as_map_mut) {
            let started = Value::Str("service_started".to_owned());
            let entries = [("condition", started), ("restart", Value::Bool(restart)), ("required", Value::Bool(true))];
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

/// The name of the file of instructions, unless these are in the compose file.
fn dockerfile(service: &mut Node) {
    let Some(build) = service.get_mut("build") else { return };
    // A variable that is not set names no file.
    let said = |key: &str| build.get(key).is_some_and(|node| !node.is_null() && node.as_str() != Some(""));
    if !said("dockerfile") && !said("dockerfile_inline") {
        build.set("dockerfile", Value::Str("Dockerfile".to_owned()));
    }
}

fn sort_hosts(service: &mut Node) {
    let sort = |node: Option<&mut Node>| {
        if let Some(hosts) = node.and_then(Node::as_seq_mut) {
            hosts.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    };
    sort(service.get_mut("extra_hosts"));
    sort(service.get_mut("build").and_then(|build| build.get_mut("extra_hosts")));
}

/// Removes networks, volumes, configs, secrets and models that no service uses, as Docker Compose does, but for those that are
/// needed by orch's own keys.
pub(super) fn drop_unused(tree: &mut Node) {
    for kind in USED {
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
        "networks" | "models" => service.entries(kind).map(|(key, entry)| (key.clone(), entry.key)).collect(),
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
            .chain(service.get("build").map(|build| build.items(kind)).unwrap_or_default())
            .filter_map(|reference| reference.get("source"))
            .filter_map(|source| Some((source.as_str()?.to_owned(), source.span)))
            .collect(),
    }
}
