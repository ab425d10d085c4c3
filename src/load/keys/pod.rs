//! What the containers of a pod must agree about: names, ports, restarts.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::diag::{Diagnostic, Span};
use crate::load::helpers::{self, Kind, is_image};
use crate::load::node::{Node, Value};
use crate::model::{HOLDER, Probe};

use super::Subject;
use super::address::listen_in_pod;
use super::ports::{Declared, declared};

const NAMES: &str = "docs/patterns.md#names";
const NETWORK: &str = "docs/patterns.md#x-route";
const PORTS: &str = "docs/patterns.md#ports";

impl<'a> Subject<'a, '_> {
    /// Each container of a pod has a name of its own, and `SERVICE.NAME` is not another service's.
    pub(super) fn names(&mut self) {
        let mut taken: BTreeMap<&str, (&'static str, Span)> = BTreeMap::new();
        let mut holder = false;
        for kind in Kind::ALL {
            for (name, entry) in self.node().entries(kind.key()) {
                holder |= kind != Kind::Ambassador || is_image(&entry.node);
                let valid =
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
                if !valid {
                    let message = format!("`{name}` is not a valid name for a container of a pod");
                    self.error(entry.key, message, "use letters, digits, hyphens and underscores", NAMES);
                } else if name == HOLDER {
                    let message = format!("`{name}` is the container that holds the pod together");
                    self.error(entry.key, message, "choose another name", NAMES);
                } else if let Some((word, before)) = taken.insert(name, (kind.word(), entry.key)) {
                    let message = format!("`{name}` is {} and {} of service `{}`", a(word), a(kind.word()), self.name);
                    let problem = Diagnostic::error(message).at(entry.key, "again").also(before, "first");
                    self.report.push(problem.help("give one of them another name").spec(NAMES));
                }
            }
        }
        for (name, span) in taken.iter().map(|(name, (_, span))| (*name, *span)) {
            self.is_no_service(name, span);
        }
        if holder && let Some(key) = taken.values().map(|(_, span)| *span).next() {
            self.is_no_service(HOLDER, key);
        }
    }

    fn is_no_service(&mut self, name: &str, span: Span) {
        let full = format!("{}.{name}", self.name);
        if let Some(other) = self.project.service(&full) {
            let message = format!("`{full}` is a container of service `{}`, and a service", self.name);
            let problem = Diagnostic::error(message).at(span, "").also(other.key, "the service");
            self.report.push(problem.help("give one of them another name").spec(NAMES));
        }
    }

    /// What is balanced needs an address of its own.
    pub(super) fn needs_network(&mut self) {
        let Some(mode) = self.node().get("network_mode") else { return };
        let Some(word) = mode.as_str().filter(|mode| !mode.is_empty()) else { return };
        for key in ["x-route", "x-export"] {
            let said = self.node().as_map().and_then(|map| map.get(key));
            let Some(said) = said.filter(|said| !matches!(said.node.value, Value::Null | Value::Bool(false))) else {
                continue;
            };
            let message =
                format!("service `{}` is on no network of the project, so `{key}` cannot lead to it", self.name);
            let problem = Diagnostic::error(message).at(said.key, "").also(mode.span, "it is elsewhere");
            let help = match word.strip_prefix("service:") {
                Some(owner) => format!("say it of `{owner}`, whose network it shares"),
                None => "leave `network_mode` out".to_owned(),
            };
            self.report.push(problem.help(help).spec(NETWORK));
        }
    }

    /// Helpers start before the main container, and what belongs to the network is the pod's.
    pub(super) fn namespaces(&mut self) {
        for (kind, name, entry) in helpers::of(self.node()) {
            if let Some(mode) = entry.node.get("pid")
                && mode.as_str().is_some_and(|mode| mode.starts_with("service:"))
            {
                let message = format!("{} `{name}` cannot see the processes of a service", kind.word());
                let help = "it starts before the main container: leave `pid` out, or write `host`";
                self.error(mode.span, message, help, "docs/patterns.md#x-sidecars");
            }
            for (key, sysctl) in entry.node.entries("sysctls").filter(|(key, _)| key.starts_with("net.")) {
                let message = format!("`{key}` is of the network, which the containers of a pod share");
                let help = format!("say it under `sysctls` of service `{}`", self.name);
                self.error(sysctl.key, message, help, "docs/patterns.md#x-sidecars");
            }
        }
    }

    /// `x-probe` of containers beside the main one.
    pub(super) fn helper_probes(&mut self) -> Vec<(String, Probe)> {
        let mut probes = Vec::new();
        for (_, name, entry) in helpers::of(self.node()) {
            let mut helper = Subject { project: self.project, name, entry, report: self.report };
            let speaks = helper.speaks();
            probes.extend(helper.probe(&speaks).map(|probe| (name.clone(), probe)));
        }
        probes
    }

    /// The containers of a pod share one network, so a port of it is one's only.
    pub(super) fn port_clashes(&mut self) {
        let mut ambassadors: Vec<(&str, Ipv4Addr, u16, Span)> = Vec::new();
        for (name, entry) in self.node().entries("x-ambassadors").filter(|(_, entry)| !is_image(&entry.node)) {
            let Some((address, port, span)) = listens(&entry.node, entry.key) else { continue };
            let clash = ambassadors.iter().find(|(_, other, taken, _)| *taken == port && overlap(address, *other));
            if let Some((other, _, _, before)) = clash {
                let message =
                    format!("ambassadors `{other}` and `{name}` of service `{}` listen on port {port}", self.name);
                self.taken(message, span, *before, "let one of them listen elsewhere: `listen: PORT`");
            }
            ambassadors.push((name, address, port, span));
        }
        let service = declared(self.node());
        for (name, _, port, span) in &ambassadors {
            if let Some(before) = service.iter().find(|declared| declared.has(*port)) {
                let message =
                    format!("ambassador `{name}` listens on port {port}, which is service `{}`'s own", self.name);
                self.taken(message, *span, before.span, "let the ambassador listen elsewhere: `listen: PORT`");
            }
        }
        let mut exposed: Vec<(&'a str, Declared)> = Vec::new();
        for (kind, name, entry) in helpers::of(self.node()).filter(|(kind, _, _)| *kind != Kind::Init) {
            for own in declared(&entry.node) {
                let word = kind.word();
                let both = |declared: &Declared| {
                    declared.is_tcp == own.is_tcp && declared.first <= own.last && own.first <= declared.last
                };
                if let Some((other, before)) = exposed.iter().find(|(other, declared)| *other != name && both(declared))
                {
                    let port = own.first.max(before.first);
                    let message = format!("{word} `{name}` and `{other}` of one pod both expose port {port}");
                    self.taken(
                        message,
                        own.span,
                        before.span,
                        "they share a network: let one of them listen elsewhere",
                    );
                }
                if let Some((other, _, _, before)) = ambassadors.iter().find(|(_, _, port, _)| own.has(*port)) {
                    let message = format!("{word} `{name}` exposes a port that ambassador `{other}` listens on");
                    self.taken(message, own.span, *before, "let the ambassador listen elsewhere: `listen: PORT`");
                }
                exposed.push((name, own));
            }
        }
    }

    fn taken(&mut self, message: String, span: Span, before: Span, help: &str) {
        let problem = Diagnostic::error(message).at(span, "").also(before, "here too");
        self.report.push(problem.help(help).spec(PORTS));
    }
}

fn overlap(one: Ipv4Addr, other: Ipv4Addr) -> bool {
    one == other || one.is_unspecified() || other.is_unspecified()
}

/// Where a built-in ambassador listens, as far as that can be read.
fn listens(ambassador: &Node, key: Span) -> Option<(Ipv4Addr, u16, Span)> {
    if let Some(listen) = ambassador.get("listen") {
        let (address, port) = listen_in_pod(listen.as_str()?).ok()?;
        return Some((address, port, listen.span));
    }
    let first = ambassador.items("to").first()?;
    let port = super::address::host_port(first.as_str()?).ok()?.port;
    Some((Ipv4Addr::LOCALHOST, port, if first.span == ambassador.span { key } else { first.span }))
}

fn a(word: &str) -> String {
    let article = if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {word}")
}
