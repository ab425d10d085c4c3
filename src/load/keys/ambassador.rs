//! `x-ambassadors` that the agent itself is: `cache: {listen: 6379, to: [redis:6379]}`.

use std::net::IpAddr;
use std::time::Duration;

use crate::diag::{Diagnostic, did_you_mean};
use crate::ids::{ProjectName, ServiceName};
use crate::load::helpers::is_image;
use crate::load::node::{Entry, Node, Value};
use crate::model::quantity::parse_duration;
use crate::model::{Ambassador, AmbassadorTarget, AmbassadorTls, Breaker};

use super::address::{HostPort, host_name, host_port, listen_in_pod};
use super::certificate::Needs;
use super::{Problem, Subject};

const SPEC: &str = "docs/patterns.md#x-ambassadors";

/// What only a built-in ambassador has.
const OWN: [&str; 6] = ["listen", "to", "tls", "timeout", "retries", "breaker"];

/// Time for one connect where none is given: twice what the farthest way round the earth takes with TLS.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Further rounds over the targets where none are given.
const RETRIES: u32 = 2;

const HELP_TARGET: &str = "write `SERVICE:PORT`, `PROJECT/SERVICE:PORT` or an outside `HOST:PORT`";
const HELP_LISTEN: &str = "write a port, or `ADDRESS:PORT` with an IPv4 address of the pod";

impl<'a> Subject<'a, '_> {
    /// Returns the ambassadors that the agent is.
    pub(super) fn ambassadors(&mut self) -> Vec<Ambassador> {
        let mut all = Vec::new();
        for (name, entry) in self.node().entries("x-ambassadors").filter(|(_, entry)| entry.node.as_map().is_some()) {
            if is_image(&entry.node) {
                self.is_image_only(name, entry);
            } else if self.is_built_in_only(name, entry) {
                all.extend(self.ambassador(name, entry));
            }
        }
        if !all.is_empty() {
            self.needs_namespace();
        }
        all
    }

    fn is_image_only(&mut self, name: &str, entry: &Entry) {
        let Some((image, map)) = entry.node.as_map().and_then(|map| Some((map.get("image")?, map))) else { return };
        for (key, said) in map.iter().filter(|(key, _)| OWN.contains(&key.as_str())) {
            let message = format!("ambassador `{name}` is an image, which knows nothing of `{key}`");
            let problem = Diagnostic::error(message).at(said.key, "").also(image.key, "the image");
            let help = "say it to the image in its own way (`command`, `environment`), or leave `image` out";
            self.report.push(problem.help(help).spec(SPEC));
        }
    }

    fn is_built_in_only(&mut self, name: &str, entry: &Entry) -> bool {
        let others = entry.node.as_map().into_iter().flatten();
        let mut others =
            others.filter(|(key, _)| !OWN.contains(&key.as_str()) && !key.starts_with("x-") && *key != "image");
        let Some((key, said)) = others.next() else { return true };
        let message = format!("ambassador `{name}` is built in, so it has no `{key}`");
        let help = "add `image: NAME` to run a container, or leave it out";
        self.error(said.key, message, help, SPEC);
        false
    }

    fn ambassador(&mut self, name: &str, entry: &Entry) -> Option<Ambassador> {
        let node = &entry.node;
        let to = node.items("to");
        if to.is_empty() {
            if node.get("to").is_none_or(|to| to.as_seq().is_some() || to.is_null()) {
                let help = format!("say where to: `to: redis:6379`, or all of it at once: `{name}: redis:6379`");
                self.error(entry.key, format!("ambassador `{name}` leads to nothing"), help, SPEC);
            }
            return None;
        }
        let targets: Vec<_> = to.iter().map(|target| self.target(name, target)).collect();
        let listen = self.listen(name, entry, &targets);
        let tls = self.tls(node.get("tls"));
        let timeout = self.time(node.get("timeout"), "timeout", TIMEOUT);
        let (address, port) = listen?;
        Some(Ambassador {
            name: name.to_owned(),
            address,
            port,
            targets: targets.into_iter().collect::<Option<_>>()?,
            tls: tls?,
            timeout: timeout?,
            retries: super::count(node.get("retries")).unwrap_or(RETRIES),
            breaker: self.breaker(node.get("breaker"))?,
        })
    }

    /// Where it listens: as said, else at the port that its targets have.
    fn listen(
        &mut self,
        name: &str,
        entry: &Entry,
        targets: &[Option<AmbassadorTarget>],
    ) -> Option<(std::net::Ipv4Addr, u16)> {
        if let Some(node) = entry.node.get("listen").filter(|node| !node.is_null()) {
            let text = node.as_str()?;
            return listen_in_pod(text).map_err(|problem| self.in_text(node, problem, HELP_LISTEN, SPEC)).ok();
        }
        let ports: Option<Vec<u16>> = targets.iter().map(|target| Some(target.as_ref()?.port())).collect();
        let ports = ports?;
        if ports.iter().all(|port| *port == ports[0]) {
            return Some((std::net::Ipv4Addr::LOCALHOST, ports[0]));
        }
        let message = format!("ambassador `{name}` does not say where it listens, and its targets have several ports");
        self.error(entry.key, message, "add `listen: PORT`", SPEC);
        None
    }

    fn target(&mut self, name: &str, node: &Node) -> Option<AmbassadorTarget> {
        let text = node.as_str()?;
        let parsed = host_port(text).map_err(|problem| self.in_text(node, problem, HELP_TARGET, SPEC)).ok()?;
        let HostPort { host, range, port } = parsed;
        let span = self.report.part(node, range.start, range.end);
        if let Some((project, service)) = host.split_once('/') {
            // A service of the project itself may be named in full.
            let is_known =
                |name: &str| self.project.service(name).is_some() || self.project.disabled.contains_key(name);
            if project == self.project.name && is_known(service) {
                return self.service(name, service, port, node);
            }
            return self.exported(node, (project, service), port);
        }
        if self.project.service(host).is_some() || self.project.disabled.contains_key(host) {
            return self.service(name, host, port, node);
        }
        let outside = || Some(AmbassadorTarget::Outside { host: host.to_owned(), port });
        let address = host.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback() || address.is_unspecified()) {
            let help = "name a service; a process of the host is reached at an address of the host's own";
            self.error(span, format!("ambassador `{name}` leads to the pod itself"), help, SPEC);
            return None;
        }
        if address.is_some() {
            return outside();
        }
        if let Err(message) = host_name(host) {
            self.error(span, message, HELP_TARGET, SPEC);
            return None;
        }
        if host.contains('.') || !self.project.consistency {
            return outside();
        }
        let problem = Diagnostic::error(format!("ambassador `{name}` leads to nothing: there is no service `{host}`"));
        if self.report.is_full() {
            self.report.push(problem);
            return None;
        }
        let help = match did_you_mean(host, self.project.services()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!(
                "a service of another project is `PROJECT/{host}:{port}`; an outside name without a dot takes one at its \
                 end: `{host}.:{port}`"
            ),
        };
        self.report.push(problem.at(span, "not a service of this project").help(help).spec(SPEC));
        None
    }

    fn exported(&mut self, node: &Node, (project, service): (&str, &str), port: u16) -> Option<AmbassadorTarget> {
        let end = project.len() + 1 + service.len();
        let project = ProjectName::new(project).map_err(|error| (error.to_string(), 0..project.len()));
        let service = ServiceName::new(service).map_err(|error| (error.to_string(), end - service.len()..end));
        match (project, service) {
            (Ok(project), Ok(service)) if project.as_str() == self.project.name => {
                Some(AmbassadorTarget::Service { service, port })
            }
            (Ok(project), Ok(service)) => {
                let place = self.report.sources.locate(node.span).to_string();
                Some(AmbassadorTarget::Exported { project, service, port, place })
            }
            (Err((message, range)), _) | (_, Err((message, range))) => {
                self.in_text(node, Problem::new(message, range), HELP_TARGET, SPEC);
                None
            }
        }
    }

    /// A service of this project, which must be reachable.
    fn service(&mut self, name: &str, target: &str, port: u16, node: &Node) -> Option<AmbassadorTarget> {
        let span = self.report.part(node, 0, target.len());
        let service = ServiceName::new(target).ok()?;
        if target == self.name {
            let help = "the pod reaches its own containers at 127.0.0.1";
            self.error(span, format!("ambassador `{name}` leads to the pod itself"), help, SPEC);
            return None;
        }
        if let Some(profiles) = self.project.disabled.get(target).filter(|_| self.project.consistency) {
            let one = profiles.first().map(String::as_str).unwrap_or_default();
            let problem = Diagnostic::error(format!("ambassador `{name}` leads to `{target}`, which is switched off"));
            let problem = problem.at(span, format!("has the profiles {}", profiles.join(", ")));
            self.report.push(problem.help(format!("switch it on with `--profile {one}`")).spec("15-profiles.md"));
            return None;
        }
        if let Some(other) = self.project.service(target).filter(|_| self.project.consistency)
            && !self.shares_network(other)
        {
            let message = format!("ambassador `{name}` leads to `{target}`, and the two share no network");
            let problem = Diagnostic::error(message).at(span, "").also(other.key, "defined here");
            self.report.push(problem.help(format!("put `{}` and `{target}` on one network", self.name)).spec(SPEC));
            return None;
        }
        Some(AmbassadorTarget::Service { service, port })
    }

    /// Returns whether a service is on a network of this one; also when that is not known (`--no-normalize`).
    fn shares_network(&self, other: &'a Entry) -> bool {
        let known = |node: &Node| node.get("networks").is_some() || node.str("network_mode").is_some();
        let other = self.project.namespace_owner(&other.node);
        if !known(self.node()) || !known(other) {
            return true;
        }
        self.node().entries("networks").any(|(key, _)| other.get("networks").is_some_and(|all| all.get(key).is_some()))
    }

    /// Somebody must own the namespace that ambassadors listen in.
    fn needs_namespace(&mut self) {
        let Some(mode) = self.node().get("network_mode") else { return };
        let owner = match mode.as_str() {
            None | Some("" | "none" | "bridge") => return,
            Some("host") => "the host".to_owned(),
            Some(text) => format!("`{}`", text.split_once(':').map_or(text, |(_, name)| name)),
        };
        let listed = self.node().as_map().and_then(|map| map.get("x-ambassadors"));
        let message = format!("the pod has no network of its own to listen in: it shares that of {owner}");
        let problem = Diagnostic::error(message).at(listed.map_or(mode.span, |entry| entry.key), "");
        let help = "say `x-ambassadors` of the service whose network it is, or leave `network_mode` out";
        self.report.push(problem.also(mode.span, "shared here").help(help).spec(SPEC));
    }

    /// `None`: something is wrong. `Some(None)`: no TLS.
    #[expect(clippy::option_option, reason = "wrong, none, and some are three things")]
    fn tls(&mut self, node: Option<&Node>) -> Option<Option<AmbassadorTls>> {
        let node = match node {
            None => return Some(None),
            Some(node) => match &node.value {
                Value::Null | Value::Bool(false) => return Some(None),
                Value::Bool(true) | Value::Map(_) => node,
                _ => return None,
            },
        };
        let mut file = |key: &str, needs| match node.get(key) {
            Some(file) => self.file(file, needs, SPEC).map(Some),
            None => Some(None),
        };
        let (authorities, certificate, key) =
            (file("ca", Needs::Any), file("cert", Needs::Any), file("key", Needs::Secret));
        let server_name = match node.get("server_name").and_then(|name| Some((name, name.as_str()?))) {
            None => Some(None),
            Some((name, text)) => {
                let help = "it is the name that the far side's certificate has";
                host_name(text).map_err(|message| self.error(name.span, message, help, SPEC)).ok().map(Some)
            }
        };
        let identity = match (certificate?, key?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let message = "a certificate of the pod's own needs both `cert` and `key`";
                self.error(node.span, message, "both may name one secret that holds chain and key", SPEC);
                return None;
            }
        };
        Some(Some(AmbassadorTls { server_name: server_name?, authorities: authorities?, identity }))
    }

    fn breaker(&mut self, node: Option<&Node>) -> Option<Breaker> {
        let default = Breaker::default();
        match node.map(|node| (node, &node.value)) {
            None | Some((_, Value::Null | Value::Bool(true))) => Some(default),
            Some((_, Value::Bool(false))) => Some(Breaker { failures: 0, ..default }),
            Some((node, Value::Map(_))) => Some(Breaker {
                failures: super::count(node.get("failures")).unwrap_or(default.failures),
                pause: self.time(node.get("pause"), "pause", default.pause)?,
            }),
            Some(_) => None,
        }
    }

    /// A time of more than nothing.
    pub(super) fn time(&mut self, node: Option<&Node>, what: &str, default: Duration) -> Option<Duration> {
        let Some(node) = node.filter(|node| !node.is_null()) else { return Some(default) };
        let time = parse_duration(node.as_str()?).ok()?;
        if time.is_zero() {
            self.error(node.span, format!("`{what}` must be longer than nothing"), "write it as `2s` or `500ms`", "");
            return None;
        }
        Some(time)
    }
}
