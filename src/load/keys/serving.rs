//! `x-balance` and `x-probe`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diag::{Diagnostic, Span, did_you_mean};
use crate::ids::HostName;
use crate::load::node::{Node, Value};
use crate::model::{Algorithm, Balance, Ejection, HashKey, Probe, ProbeKind, Sticky};

use super::Subject;
use super::address::host_name;
use super::grammar;
use super::ports::Speaks;

const BALANCE: &str = "docs/patterns.md#x-balance";
const PROBE: &str = "docs/patterns.md#x-probe";

/// Times and counts where none are given.
const EJECTION: Ejection = Ejection { failures: 5, pause: Duration::from_secs(10), at_most: 50 };
const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
const FAILURES: u32 = 3;
const SUCCESSES: u32 = 1;
/// Shortest time between two questions: each pod is asked by its own host, and a host may have hundreds.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

impl Subject<'_, '_> {
    /// `x-balance`
    pub(super) fn balance(&mut self, is_http: bool) -> Balance {
        let Some(node) = self.node().get("x-balance").filter(|node| node.as_map().is_some()) else {
            return Balance::default();
        };
        let algorithm = node.get("by").and_then(|by| self.algorithm(by)).unwrap_or_default();
        let sticky = node.get("sticky").and_then(|sticky| self.sticky(sticky));
        let by_request = match algorithm {
            Algorithm::Hash(HashKey::Header(_) | HashKey::Cookie(_)) => node.get("by"),
            _ => node.get("sticky").filter(|_| sticky.is_some()),
        };
        if let Some(place) = by_request.filter(|_| !is_http) {
            let message =
                format!("service `{}` is balanced by connection, which has no headers and cookies", self.name);
            let help = "say `app_protocol: http` of its port (in the long form of `ports`), or give it an `x-route`";
            self.error(place.span, message, help, BALANCE);
        }
        let eject = node.get("eject").and_then(|eject| self.ejection(eject));
        Balance { algorithm, sticky, eject, weights: self.weights(node) }
    }

    fn algorithm(&mut self, by: &Node) -> Option<Algorithm> {
        if let Some(word) = by.as_str() {
            return match word {
                "least-connections" => Some(Algorithm::LeastConnections),
                "round-robin" => Some(Algorithm::RoundRobin),
                "power-of-two" => Some(Algorithm::PowerOfTwo),
                "source" => Some(Algorithm::Hash(HashKey::Source)),
                _ => None,
            };
        }
        let map = by.as_map()?;
        match (map.get("header"), map.get("cookie")) {
            (Some(header), None) => {
                let name = self.token(&header.node, "a header field", BALANCE)?;
                Some(Algorithm::Hash(HashKey::Header(name.to_ascii_lowercase())))
            }
            (None, Some(cookie)) => {
                Some(Algorithm::Hash(HashKey::Cookie(self.token(&cookie.node, "a cookie", BALANCE)?)))
            }
            (Some(header), Some(cookie)) => {
                let problem = Diagnostic::error("a pod is chosen by one thing, not by two");
                let problem = problem.at(cookie.key, "this").also(header.key, "and this");
                self.report.push(problem.help("keep one of them").spec(BALANCE));
                None
            }
            (None, None) => {
                self.error(by.span, "`by` says nothing to choose by", "add `header: NAME` or `cookie: NAME`", BALANCE);
                None
            }
        }
    }

    fn sticky(&mut self, node: &Node) -> Option<Sticky> {
        let map = node.as_map()?;
        let Some(cookie) = map.get("cookie") else {
            self.error(node.span, "`sticky` needs the name of a cookie", "write `sticky: NAME`", BALANCE);
            return None;
        };
        let cookie = self.token(&cookie.node, "a cookie", BALANCE)?;
        let ttl = match map.get("ttl") {
            None => None,
            Some(ttl) => Some(self.time(Some(&ttl.node), "ttl", Duration::MAX)?),
        };
        Some(Sticky { cookie, ttl })
    }

    fn ejection(&mut self, node: &Node) -> Option<Ejection> {
        match node.value {
            Value::Bool(true) => Some(EJECTION),
            Value::Map(_) => Some(Ejection {
                failures: super::count(node.get("failures")).unwrap_or(EJECTION.failures),
                pause: self.time(node.get("pause"), "pause", EJECTION.pause)?,
                at_most: super::count(node.get("at_most"))
                    .and_then(|share| u8::try_from(share).ok())
                    .unwrap_or(EJECTION.at_most),
            }),
            _ => None,
        }
    }

    fn weights(&mut self, balance: &Node) -> BTreeMap<HostName, u32> {
        let mut weights = BTreeMap::new();
        for (host, entry) in balance.entries("weights") {
            match (HostName::new(host.as_str()), super::count(Some(&entry.node))) {
                (Ok(host), Some(weight)) => {
                    self.is_known_host(&host, entry.key);
                    weights.insert(host, weight);
                }
                (Err(error), _) => self.error(entry.key, error.to_string(), "weights are given by host", BALANCE),
                _ => {}
            }
        }
        weights
    }

    /// Warns of a host that the project names nowhere else, where it names its hosts. The cluster may have more.
    fn is_known_host(&mut self, host: &HostName, span: Span) {
        let hosts: Vec<&str> = self.project.tree.entries("x-hosts").map(|(name, _)| name.as_str()).collect();
        if hosts.is_empty() || hosts.contains(&host.as_str()) {
            return;
        }
        let message = format!("`{host}` is no host of `x-hosts`, so that its weight may count for nothing");
        let near = did_you_mean(host.as_str(), hosts.iter().copied());
        let help =
            near.map_or_else(|| format!("there are {}", hosts.join(", ")), |near| format!("did you mean `{near}`?"));
        self.report.push(Diagnostic::warning(message).at(span, "").help(help).spec(BALANCE));
    }

    /// `x-probe`
    pub(super) fn probe(&mut self, speaks: &Speaks) -> Option<Probe> {
        let (_, probe) = self.node().as_map()?.get_key_value("x-probe")?;
        let node = &probe.node;
        let map = node.as_map()?;
        let (kind, port) = match (map.get("http"), map.get("tcp")) {
            (Some(http), Some(tcp)) => {
                let problem = Diagnostic::error("a probe asks one thing, `http` or `tcp`");
                let problem = problem.at(tcp.key, "this").also(http.key, "and this");
                self.report.push(problem.help("keep one of them").spec(PROBE));
                return None;
            }
            (None, None) => {
                self.error(probe.key, "`x-probe` does not say what to ask", "add `http: /PATH` or `tcp: PORT`", PROBE);
                return None;
            }
            (Some(http), None) => {
                (self.http_probe(&http.node, map.get("host").map(|host| &host.node))?, self.probe_port(node, speaks)?)
            }
            (None, Some(tcp)) => {
                if let Some(other) = map.get("port").or_else(|| map.get("host")) {
                    let problem = Diagnostic::error("a probe by `tcp` has neither `port` nor `host`").at(other.key, "");
                    self.report.push(problem.also(tcp.key, "the port").help("write `tcp: PORT`").spec(PROBE));
                    return None;
                }
                (ProbeKind::Tcp, super::port(&tcp.node)?)
            }
        };
        let interval = self.time(node.get("interval"), "interval", INTERVAL)?;
        if interval < MIN_INTERVAL {
            let span = node.get("interval").map_or(node.span, |interval| interval.span);
            self.error(span, "a pod is asked ten times a second at most", "write `100ms` or more", PROBE);
            return None;
        }
        Some(Probe {
            kind,
            port,
            interval,
            timeout: self.time(node.get("timeout"), "timeout", TIMEOUT)?,
            failures: super::count(node.get("failures")).unwrap_or(FAILURES),
            successes: super::count(node.get("successes")).unwrap_or(SUCCESSES),
        })
    }

    fn http_probe(&mut self, path: &Node, host: Option<&Node>) -> Option<ProbeKind> {
        let text = path.as_str()?;
        // A probe may have a query; where requests go may not.
        let valid = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !valid {
            let help = if text.starts_with('/') {
                "it is sent as it is: blanks, `#` and other than ASCII are to be written as `%20` and the like"
            } else {
                "start it with `/`"
            };
            self.error(path.span, format!("`{text}` is not a path to ask for"), help, PROBE);
            return None;
        }
        let host = match host.and_then(|host| Some((host, host.as_str()?))) {
            None => None,
            Some((node, text)) => {
                let help = "it is what the request's `Host` says";
                Some(host_name(text).map_err(|message| self.error(node.span, message, help, PROBE)).ok()?)
            }
        };
        Some(ProbeKind::Http { path: text.to_owned(), host })
    }

    fn probe_port(&mut self, probe: &Node, speaks: &Speaks) -> Option<u16> {
        if let Some(port) = probe.get("port") {
            return super::port(port);
        }
        match &speaks.http_port {
            Ok(port) => Some(*port),
            Err(reason) => {
                let message = format!("which port to ask is not clear: {}", reason.reason(self.name));
                self.error(probe.span, message, "add `port: PORT`", PROBE);
                None
            }
        }
    }

    /// The name of a header field or cookie.
    pub(super) fn token(&mut self, node: &Node, what: &str, spec: &'static str) -> Option<String> {
        let text = node.as_str()?;
        if grammar::is_token(text) {
            return Some(text.to_owned());
        }
        self.error(node.span, format!("`{text}` is not the name of {what}"), "use letters, digits and hyphens", spec);
        None
    }
}
