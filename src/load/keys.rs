//! What orch's own keys say: the checked tree becomes the types of the model, with every complaint at its place.
//!
//! Shapes, words, ranges and unknown keys are the table's matter (`rules/own`); here is what only a value's own grammar or
//! a look at other parts of the project can tell: a target of an ambassador, a route's host, two that want one port.
//! `docs/patterns.md` describes the keys.

mod address;
mod ambassador;
mod certificate;
mod circle;
mod grammar;
mod link;
mod pod;
mod ports;
mod route;
mod serving;

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Span};
use crate::model::{Export, Medium, Probe, ServiceKeys, VolumeKeys};

use super::LoadOptions;
use super::node::{Entry, Node, Value};
use super::profiles::Disabled;
use super::report::Report;

pub(super) use certificate::uses;

/// What the keys of a project say, by the names of services and volumes. Containers beside the main one are added when
/// their own files and paths are resolved.
#[derive(Debug, Default)]
pub(super) struct Understood {
    pub(super) services: BTreeMap<String, ServiceKeys>,
    /// What the containers beside the main one of a service are asked, by their names.
    pub(super) probes: BTreeMap<String, Vec<(String, Probe)>>,
    pub(super) volumes: BTreeMap<String, VolumeKeys>,
}

/// What a service's keys are seen against.
struct Project<'a> {
    /// Its name.
    name: &'a str,
    /// The whole tree, without services that are switched off.
    tree: &'a Node,
    /// Those.
    disabled: &'a Disabled,
    /// Whether what is referred to must exist (off: `--no-consistency`).
    consistency: bool,
    /// Whether what cannot be applied is an error (off for `config`, which prints it as it is).
    applied: bool,
}

impl<'a> Project<'a> {
    fn service(&self, name: &str) -> Option<&'a Entry> {
        self.tree.get("services")?.as_map()?.get(name)
    }

    /// Returns the service whose network namespace one lives in; often itself.
    fn namespace_owner(&self, service: &'a Node) -> &'a Node {
        let mut owner = service;
        // A ring is reported with the dependencies; here it must only end.
        for _ in 0..16 {
            let shared = owner.str("network_mode").and_then(|mode| mode.strip_prefix("service:"));
            match shared.and_then(|name| self.service(name)) {
                Some(entry) => owner = &entry.node,
                None => break,
            }
        }
        owner
    }

    fn services(&self) -> impl Iterator<Item = &'a str> {
        self.tree.entries("services").map(|(name, _)| name.as_str())
    }
}

/// A service, and what is wrong with it.
struct Subject<'a, 'r> {
    project: &'a Project<'a>,
    name: &'a str,
    entry: &'a Entry,
    report: &'r mut Report,
}

impl<'a> Subject<'a, '_> {
    fn node(&self) -> &'a Node {
        &self.entry.node
    }

    /// Reports an error at a place.
    fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>, spec: &'static str) {
        self.report.push(Diagnostic::error(message).at(span, "").help(help).spec(spec));
    }

    /// Reports an error in a part of a text.
    fn in_text(&mut self, node: &Node, problem: Problem, help: &str, spec: &'static str) {
        let Problem { message, range } = problem;
        let span = self.report.part(node, range.start, range.end);
        self.error(span, message, help, spec);
    }
}

/// What is wrong with a text, and in which part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    message: String,
    range: std::ops::Range<usize>,
}

impl Problem {
    fn new(message: impl Into<String>, range: std::ops::Range<usize>) -> Self {
        Self { message: message.into(), range }
    }
}

/// Returns what the keys of services and volumes say. Needs names and networks filled in.
pub(super) fn understand(
    tree: &Node,
    name: &str,
    disabled: &Disabled,
    options: &LoadOptions,
    report: &mut Report,
) -> Understood {
    let LoadOptions { consistency, applied, .. } = *options;
    let project = Project { name, tree, disabled, consistency, applied };
    let mut understood = Understood::default();
    let mut routes = route::Claims::default();
    for (name, entry) in tree.entries("services").filter(|(_, entry)| entry.node.as_map().is_some()) {
        let mut subject = Subject { project: &project, name, entry, report };
        let keys = subject.understand(&mut routes);
        understood.probes.insert(name.clone(), subject.helper_probes());
        understood.services.insert(name.clone(), keys);
    }
    for (key, entry) in tree.entries("volumes") {
        if let Some(pod) = pod_volume(key, entry, report) {
            understood.volumes.insert(key.clone(), pod);
        }
    }
    circle::check(&project, &understood.services, report);
    routes.unshared(report);
    routes.published(&project, report);
    understood
}

impl Subject<'_, '_> {
    fn understand(&mut self, claims: &mut route::Claims) -> ServiceKeys {
        self.names();
        self.namespaces();
        self.needs_network();
        let ambassadors = self.ambassadors();
        self.port_clashes();
        let mut speaks = self.speaks();
        let routes = self.routes(&mut speaks, claims);
        let is_http = !routes.is_empty() || speaks.any_http();
        ServiceKeys {
            ambassadors,
            http: speaks.http(&routes),
            routes,
            balance: self.balance(is_http),
            probe: self.probe(&speaks),
            export: export(self.node()),
            external_links: self.external_links(),
            ..ServiceKeys::default()
        }
    }
}

/// `x-export`
fn export(service: &Node) -> Export {
    match service.get("x-export").map(|node| &node.value) {
        Some(Value::Bool(true)) => Export::All,
        Some(Value::Seq(items)) => {
            let mut ports: Vec<u16> = items.iter().filter_map(port).collect();
            ports.sort_unstable();
            ports.dedup();
            if ports.is_empty() { Export::Nothing } else { Export::Ports(ports) }
        }
        _ => Export::Nothing,
    }
}

/// A port that the check of shapes has seen.
fn port(node: &Node) -> Option<u16> {
    if let Value::Int(number) = node.value { u16::try_from(number).ok().filter(|port| *port > 0) } else { None }
}

/// A count that the check of shapes has seen.
fn count(node: Option<&Node>) -> Option<u32> {
    if let Value::Int(number) = node?.value { u32::try_from(number).ok() } else { None }
}

/// `x-pod` of a volume.
fn pod_volume(key: &str, entry: &Entry, report: &mut Report) -> Option<VolumeKeys> {
    const SPEC: &str = "docs/patterns.md#x-pod";
    let (name, pod) = entry.node.as_map()?.get_key_value("x-pod")?;
    let (size, medium) = match &pod.node.value {
        Value::Bool(true) => (None, None),
        Value::Map(_) => (pod.node.get("size"), pod.node.get("medium")),
        _ => return None,
    };
    for (other, entry) in entry.node.as_map()?.iter().filter(|(key, _)| !matches!(key.as_str(), "labels" | "name")) {
        let says = !other.starts_with("x-") && !matches!(entry.node.value, Value::Null | Value::Bool(false));
        if says {
            let message = format!("volume `{key}` is each pod's own, so `{other}` has no effect");
            let problem = Diagnostic::error(message).at(entry.key, "").also(pod.key, format!("said by `{name}`"));
            report.push(problem.help("remove one of the two").spec(SPEC));
        }
    }
    let medium = match medium.and_then(Node::as_str) {
        Some("memory") => Medium::Memory,
        _ => Medium::Disk,
    };
    let bytes = size.and_then(Node::as_str).and_then(|text| text.parse::<i64>().ok());
    if let Some(size) = size {
        if bytes == Some(0) {
            report.push(Diagnostic::error(format!("volume `{key}` has no room at all")).at(size.span, "").spec(SPEC));
        } else if medium == Medium::Disk {
            let message = format!("the size of volume `{key}` cannot be limited on disk");
            let help = "add `medium: memory`, or leave `size` out";
            report.push(Diagnostic::error(message).at(size.span, "").help(help).spec(SPEC));
        }
    }
    Some(VolumeKeys { size: bytes.map(crate::model::Bytes), medium })
}
