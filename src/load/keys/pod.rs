//! What the containers of a pod must agree about: names, ports, restarts.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::diag::{Diagnostic, Span};
use crate::load::helpers::{self, Kind, is_image};
use crate::load::node::{Node, Value};
use crate::model::{HOLDER, Probe};

use super::Subject;
use super::address::listen_in_pod;
use super::ports::declared;

const NAMES: &str = "docs/patterns.md#names";
const NETWORK: &str = "docs/patterns.md#x-route";
const ELSEWHERE: &str = "let the ambassador listen elsewhere: `listen: PORT`";
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

    /// What is balanced needs an address of its own, and what is asked one at all.
    pub(super) fn needs_network(&mut self) {
        let Some(mode) = self.node().get("network_mode") else { return };
        let Some(word) = mode.as_str().filter(|mode| !mode.is_empty()) else { return };
        if word == "none" {
            self.needs_address(mode.span);
        }
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

    /// A probe asks over the network.
    fn needs_address(&mut self, mode: Span) {
        let helpers = helpers::of(self.node()).map(|(_, _, entry)| &entry.node);
        let all: Vec<&Node> = std::iter::once(self.node()).chain(helpers).collect();
        for probe in all.iter().filter_map(|node| node.as_map()?.get("x-probe")) {
            if probe.node.value == Value::Null {
                continue;
            }
            let message = format!("service `{}` has no network, so that its `x-probe` can ask nobody", self.name);
            let problem = Diagnostic::error(message).at(probe.key, "").also(mode, "it has none");
            let help = "use `healthcheck`, which runs inside the container, or leave `network_mode` out";
            self.report.push(problem.help(help).spec("docs/patterns.md#x-probe"));
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
        let mut ambassadors = Listening::default();
        let of_service: BTreeMap<u16, Span> = listened(self.node()).into_iter().rev().collect();
        let of_guests = self.guests();
        for (name, entry) in self.node().entries("x-ambassadors").filter(|(_, entry)| !is_image(&entry.node)) {
            let Some((address, port, span)) = listens(&entry.node, entry.key) else { continue };
            if let Some((other, before)) = ambassadors.taken(address, port) {
                let message =
                    format!("ambassadors `{other}` and `{name}` of service `{}` listen on port {port}", self.name);
                self.taken(message, span, before, ELSEWHERE);
            } else {
                ambassadors.add(address, port, name, span);
            }
            if let Some(before) = of_service.get(&port) {
                let message =
                    format!("ambassador `{name}` listens on port {port}, which is service `{}`'s own", self.name);
                self.taken(message, span, *before, ELSEWHERE);
            } else if let Some((guest, before)) = of_guests.get(&port) {
                let message = format!(
                    "ambassador `{name}` listens on port {port}, which is that of service `{guest}` in the same network"
                );
                self.taken(message, span, *before, ELSEWHERE);
            }
        }
        // Ports of all files are limited in number, so that ranges may be counted out.
        let mut exposed: BTreeMap<(bool, u16), (&'a str, Span)> = BTreeMap::new();
        for (kind, name, entry) in helpers::of(self.node()).filter(|(kind, _, _)| *kind != Kind::Init) {
            let word = kind.word();
            for own in declared(&entry.node) {
                let mut clash = None;
                for port in own.first..=own.last {
                    let known = exposed.entry((own.is_tcp, port)).or_insert((name, own.span));
                    clash = clash.or_else(|| (known.0 != name).then_some((port, *known)));
                }
                if let Some((port, (other, before))) = clash {
                    let message = format!("{word} `{name}` and `{other}` of one pod both expose port {port}");
                    let help = "they share a network: let one of them listen elsewhere";
                    self.taken(message, own.span, before, help);
                }
                if let Some((other, before)) = own.tcp().find_map(|port| ambassadors.any(port)) {
                    let message = format!("{word} `{name}` exposes a port that ambassador `{other}` listens on");
                    self.taken(message, own.span, before, ELSEWHERE);
                }
            }
            let exposes = |port| declared(&entry.node).iter().any(|own| own.tcp().any(|one| one == port));
            for (port, span) in asked(&entry.node).into_iter().filter(|(port, _)| !exposes(*port)) {
                if let Some((other, before)) = ambassadors.any(port) {
                    let message = format!("{word} `{name}` is asked at a port that ambassador `{other}` listens on");
                    self.taken(message, span, before, ELSEWHERE);
                }
            }
        }
    }

    /// Returns the TCP ports of other services that share its network (`network_mode: service:NAME`).
    fn guests(&self) -> BTreeMap<u16, (&'a str, Span)> {
        let mut ports = BTreeMap::new();
        if self.node().entries("x-ambassadors").next().is_none() {
            return ports;
        }
        for name in self.project.services().filter(|name| *name != self.name) {
            let Some(entry) = self.project.service(name) else { continue };
            if std::ptr::eq(self.project.namespace_owner(&entry.node), self.node()) {
                ports.extend(listened(&entry.node).into_iter().rev().map(|(port, span)| (port, (name, span))));
            }
        }
        ports
    }

    fn taken(&mut self, message: String, span: Span, before: Span, help: &str) {
        let problem = Diagnostic::error(message).at(span, "").also(before, "here too");
        self.report.push(problem.help(help).spec(PORTS));
    }
}

/// What ambassadors listen at, by port and address.
#[derive(Default)]
struct Listening<'a>(BTreeMap<u16, BTreeMap<Ipv4Addr, (&'a str, Span)>>);

impl<'a> Listening<'a> {
    fn add(&mut self, address: Ipv4Addr, port: u16, name: &'a str, span: Span) {
        self.0.entry(port).or_default().insert(address, (name, span));
    }

    /// Who listens at a port already, at this address or at all.
    fn taken(&self, address: Ipv4Addr, port: u16) -> Option<(&'a str, Span)> {
        let at = self.0.get(&port)?;
        let everywhere = at.get(&Ipv4Addr::UNSPECIFIED).or_else(|| at.get(&address));
        everywhere.or_else(|| at.values().next().filter(|_| address.is_unspecified())).copied()
    }

    fn any(&self, port: u16) -> Option<(&'a str, Span)> {
        self.0.get(&port)?.values().next().copied()
    }
}

/// Returns the TCP ports that a container is asked at: by rules and by probes.
fn asked(container: &Node) -> Vec<(u16, Span)> {
    let routes = container.items("x-route").iter().filter_map(|route| route.get("port"));
    let probe = container.get("x-probe").and_then(|probe| probe.get("tcp").or_else(|| probe.get("port")));
    routes.chain(probe).filter_map(|port| Some((super::port(port)?, port.span))).collect()
}

/// Returns the TCP ports that a container listens on by what the file says of it, those that it declares first.
fn listened(container: &Node) -> Vec<(u16, Span)> {
    let declared = declared(container);
    let own = declared.iter().flat_map(|ports| ports.tcp().map(|port| (port, ports.span)));
    own.chain(asked(container)).collect()
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
