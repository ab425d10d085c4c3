//! `x-route`: by which host, path, header and method requests from outside come to a service.

mod action;
mod claims;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::diag::{Diagnostic, Span};
use crate::load::node::Node;
use crate::model::{HostMatch, PathMatch, Route, RouteAction, RoutePort, RouteTls, resolved};

use super::address::{host_name, listen};
use super::certificate::Needs;
use super::grammar;
use super::ports::Speaks;
use super::{Problem, Subject};

pub(super) use claims::Claims;

const SPEC: &str = "docs/patterns.md#x-route";

/// Ports that browsers ask at.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// Most items of a list in one route: each is looked up on its own.
const MAX_ITEMS: usize = 100;

/// Where a route is reached, and what plain HTTP gets beside TLS.
struct Listen {
    host_ip: Option<IpAddr>,
    ports: Vec<RoutePort>,
    /// The port of plain HTTP that sends clients to TLS.
    redirect: Option<u16>,
}

impl Subject<'_, '_> {
    /// Returns the routes in the order of the file; one that TLS is spoken for is followed by the one that sends plain HTTP
    /// there.
    pub(super) fn routes(&mut self, speaks: &mut Speaks, claims: &mut Claims) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        let mut said: BTreeMap<String, String> = BTreeMap::new();
        for node in self.node().items("x-route").iter().filter(|node| node.as_map().is_some()) {
            let Some((route, redirect)) = self.route(node, speaks) else { continue };
            // By its text: of thousands each would be compared with each.
            let text = serde_json::to_string(&Route { place: String::new(), ..route.clone() }).unwrap_or_default();
            if let Some(place) = said.get(&text) {
                let problem = Diagnostic::warning(format!("this route of service `{}` is said twice", self.name));
                let problem = problem.at(node.span, "").help(format!("it is at {place} already: remove one"));
                self.report.push(problem.spec(SPEC));
                continue;
            }
            said.insert(text, route.place.clone());
            let is_own = claims.take(&route, self.name, node.span, claims::Origin::File, self.report);
            let redirect = redirect
                .map(|port| to_tls(&route, port))
                .filter(|redirect| claims.take(redirect, self.name, node.span, claims::Origin::Implied, self.report));
            routes.extend(is_own.then_some(route).into_iter().chain(redirect));
        }
        routes
    }

    /// Reads one route, and at which port plain HTTP is sent to TLS.
    fn route(&mut self, node: &Node, speaks: &mut Speaks) -> Option<(Route, Option<u16>)> {
        let before = self.report.errors();
        let hosts = self.hosts(node);
        let path = self.path_match(node.get("path"));
        let methods = self.methods(node);
        let headers = self.headers(node);
        let tls = match node.get("tls") {
            None => Some(None),
            Some(tls) => self.certificate(tls).map(Some),
        };
        let weight = match node.get("weight") {
            None => Some(None),
            Some(weight) => super::count(Some(weight)).map(Some),
        };
        let listen = self.listen_at(node, hosts.as_deref().unwrap_or_default());
        let matched = action::Matched {
            hosts: hosts.as_deref().unwrap_or_default(),
            path: path.as_ref(),
            methods: &methods,
            listen: listen.as_ref().map(|listen| listen.ports.as_slice()).unwrap_or_default(),
        };
        let action = self.action(node, &matched);
        let port = match &action {
            Some(RouteAction::Forward { .. }) => {
                let port = self.route_port(node, speaks);
                if let Some((port, word)) = port.zip(node.get("app_protocol")) {
                    self.speaks_too(port, word, speaks);
                }
                port
            }
            _ => Some(0),
        };
        let timeout = match node.get("timeout") {
            None => Some(None),
            Some(timeout) => self.time(Some(timeout), "timeout", std::time::Duration::MAX).map(Some),
        };
        let Listen { host_ip, ports, redirect } = listen?;
        let route = Route {
            hosts: hosts?,
            path: path?,
            methods,
            headers,
            port: port?,
            weight: weight?,
            action: action?,
            listen: ports,
            host_ip,
            tls: tls?,
            timeout: timeout?,
            place: self.report.sources.locate(node.span).to_string(),
        };
        (self.report.errors() == before).then_some((route, redirect))
    }

    fn hosts(&mut self, node: &Node) -> Option<Vec<HostMatch>> {
        let mut hosts: Vec<HostMatch> = Vec::new();
        let items = node.items("host");
        self.not_too_many(items, "host");
        for item in items.iter().take(MAX_ITEMS) {
            let text = item.as_str()?;
            if text == "*" {
                return Some(Vec::new());
            }
            let below = text.strip_prefix("*.");
            let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let host = match host_name(below.or(bare).unwrap_or(text)) {
                Ok(name) if below.is_some() => HostMatch::Below(name),
                // As requests write it. Source: RFC 3986, section 3.2.2.
                Ok(name) if name.contains(':') => HostMatch::Exact(in_brackets(&name)),
                Ok(name) => HostMatch::Exact(name),
                Err(message) => {
                    let help = if text.contains("://") || text.contains(':') {
                        "a route's host is a name alone: ports are said by `listen`, paths by `path`"
                    } else {
                        "write `app.example.com`, or `*.example.com` for all names below it"
                    };
                    self.error(item.span, message, help, SPEC);
                    return None;
                }
            };
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        hosts.sort();
        Some(hosts)
    }

    fn not_too_many(&mut self, items: &[Node], what: &str) {
        if let Some(item) = items.get(MAX_ITEMS) {
            self.too_many(item.span, what);
        }
    }

    fn too_many(&mut self, span: Span, what: &str) {
        let message = format!("a route has at most {MAX_ITEMS} entries of `{what}`");
        self.error(span, message, "make several routes of it", SPEC);
    }

    fn path_match(&mut self, node: Option<&Node>) -> Option<PathMatch> {
        let Some(node) = node else { return Some(PathMatch::Prefix("/".to_owned())) };
        let map = node.as_map()?;
        match (map.get("exact"), map.get("prefix")) {
            (Some(exact), None) => {
                let path = self.path(&exact.node)?;
                self.is_reachable(&exact.node, &path).then_some(PathMatch::Exact(path))
            }
            (None, Some(prefix)) => {
                let path = self.path(&prefix.node)?;
                let bare = path.trim_end_matches('/');
                let bare = if bare.is_empty() { "/" } else { bare };
                self.is_reachable(&prefix.node, bare).then(|| PathMatch::Prefix(bare.to_owned()))
            }
            (Some(exact), Some(prefix)) => {
                let problem = Diagnostic::error("a path is matched by `exact` or by `prefix`, not by both");
                let problem = problem.at(prefix.key, "this").also(exact.key, "and this");
                self.report.push(problem.help("keep one of them").spec(SPEC));
                None
            }
            (None, None) => {
                self.error(node.span, "`path` says nothing", "write `path: /api`, or `path: {exact: /api}`", SPEC);
                None
            }
        }
    }

    /// Returns whether requests can be for a path. Those that have it as it is written mean another one to who resolves it, and
    /// are refused (`lb/http/visit.rs`, `unclear`).
    fn is_reachable(&mut self, node: &Node, path: &str) -> bool {
        let Some(other) = resolved(path.as_bytes()) else { return true };
        let other = String::from_utf8_lossy(&other).into_owned();
        let message = format!("no request comes by the path `{path}`, which is `{other}` to servers");
        let help = format!("write `{other}`; requests that write it otherwise are refused (400)");
        self.error(node.span, message, help, SPEC);
        false
    }

    /// A path, checked.
    fn path(&mut self, node: &Node) -> Option<String> {
        let text = node.as_str()?;
        match grammar::path(text) {
            Ok(()) => Some(text.to_owned()),
            Err(reason) => {
                let help = match grammar::as_path(text) {
                    Some(path) => format!("write it as `{path}`"),
                    None => format!("a path has at most {} bytes", grammar::MAX_PATH),
                };
                self.error(node.span, format!("the path `{text}` {reason}"), help, SPEC);
                None
            }
        }
    }

    fn methods(&mut self, node: &Node) -> Vec<String> {
        let items = node.items("method");
        self.not_too_many(items, "method");
        let mut methods: Vec<String> = items
            .iter()
            .take(MAX_ITEMS)
            .filter_map(|item| {
                let text = item.as_str()?.to_ascii_uppercase();
                if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                    self.error(item.span, format!("`{text}` is not a method"), "write `GET`, `POST` and so on", SPEC);
                } else if text == "CONNECT" {
                    let help = "it is refused (405) whatever it is for: leave it out";
                    self.error(item.span, "no request comes by the method `CONNECT`", help, SPEC);
                }
                Some(text)
            })
            .collect();
        methods.sort();
        methods.dedup();
        methods
    }

    fn headers(&mut self, node: &Node) -> Vec<(String, String)> {
        let mut headers: Vec<(String, String)> = Vec::new();
        if let Some((_, entry)) = node.entries("headers").nth(MAX_ITEMS) {
            self.too_many(entry.key, "headers");
        }
        for (name, entry) in node.entries("headers").take(MAX_ITEMS) {
            let Some(value) = entry.node.as_str() else { continue };
            let lower = name.to_ascii_lowercase();
            if lower == "host" {
                self.error(entry.key, "the header field `Host` is matched by `host`", "move it there", SPEC);
            } else if !grammar::is_token(name) {
                let message = format!("`{name}` is not the name of a header field");
                self.error(entry.key, message, "use letters, digits and hyphens", SPEC);
            } else if !grammar::is_field_value(value) {
                let message = format!("a header field cannot have this value for `{name}`");
                self.error(entry.node.span, message, "leave out line breaks, and spaces at its ends", SPEC);
            } else if headers.iter().any(|(known, _)| *known == lower) {
                let message = format!("the header field `{name}` is matched twice");
                self.error(entry.key, message, "upper and lower case are the same in names of header fields", SPEC);
            } else {
                headers.push((lower, value.to_owned()));
            }
        }
        headers.sort();
        headers
    }

    fn certificate(&mut self, node: &Node) -> Option<RouteTls> {
        let map = node.as_map()?;
        let (Some(cert), Some(key)) = (map.get("cert"), map.get("key")) else {
            let help = "write `tls: NAME` for a secret that holds chain and key, or `tls: {cert: NAME, key: NAME}`";
            self.error(node.span, "a certificate needs both `cert` and `key`", help, SPEC);
            return None;
        };
        let key = self.file(&key.node, Needs::Secret, SPEC)?;
        let same = cert.node.as_str() == Some(key.as_str());
        let certificate = if same { key.clone() } else { self.file(&cert.node, Needs::Any, SPEC)? };
        Some(RouteTls { certificate, key })
    }

    /// `listen` and `http`: with TLS, port 80 is for plain HTTP, which is sent to TLS unless `http` says otherwise.
    fn listen_at(&mut self, node: &Node, hosts: &[HostMatch]) -> Option<Listen> {
        let is_tls = node.get("tls").is_some();
        let mut ports: Vec<(u16, Span)> = Vec::new();
        let mut address: Option<(Option<IpAddr>, Span)> = None;
        // A port alone says no address, so that names of this machine stay at the loopback one.
        let mut is_said = false;
        let items = node.items("listen");
        self.not_too_many(items, "listen");
        for item in items.iter().take(MAX_ITEMS) {
            let text = item.as_str()?;
            let help = "write a port, or `ADDRESS:PORT` with an address of the hosts";
            let (host_ip, port) = match listen(text) {
                Ok(place) => place,
                Err(Problem { message, range }) => {
                    self.in_text(item, Problem { message, range }, help, SPEC);
                    return None;
                }
            };
            is_said |= host_ip.is_some();
            let host_ip = host_ip.filter(|address| !address.is_unspecified());
            if let Some((other, before)) = address
                && other != host_ip
            {
                let problem = Diagnostic::error("a route listens at one address").at(item.span, "this");
                self.report.push(problem.also(before, "and this").help("make two routes of it").spec(SPEC));
                return None;
            }
            address.get_or_insert((host_ip, item.span));
            if !ports.iter().any(|(known, _)| *known == port) {
                ports.push((port, item.span));
            }
        }
        let usual = ports.is_empty() || ports.iter().any(|(port, _)| matches!(*port, HTTP | HTTPS));
        let http = self.plain_http(node, is_tls, usual)?;
        let mut listen: Vec<RoutePort> =
            ports.iter().map(|(port, _)| RoutePort { port: *port, tls: is_tls && *port != HTTP }).collect();
        if is_tls {
            listen.retain(|port| port.tls);
            if listen.is_empty() {
                listen.push(RoutePort { port: HTTPS, tls: true });
            }
            if http == "serve" {
                listen.push(RoutePort { port: HTTP, tls: false });
            }
        } else if listen.is_empty() {
            listen.push(RoutePort { port: HTTP, tls: false });
        }
        listen.sort();
        let host_ip = match address {
            Some((address, _)) if is_said => address,
            _ => self.loopback(node, hosts)?,
        };
        Some(Listen { host_ip, ports: listen, redirect: (http == "redirect").then_some(HTTP) })
    }

    /// What plain HTTP gets: `redirect`, `serve` or `off`.
    fn plain_http<'n>(&mut self, node: &'n Node, is_tls: bool, usual: bool) -> Option<&'n str> {
        match node.get("http") {
            Some(http) if !is_tls => {
                let help = "without `tls` a route speaks plain HTTP anyway";
                self.error(http.span, "`http` says what plain HTTP gets beside TLS, and there is no `tls`", help, SPEC);
                None
            }
            Some(http) => http.as_str(),
            None if is_tls && usual => Some("redirect"),
            None => Some("off"),
        }
    }

    /// Names below `localhost` mean this machine, so nobody else shall reach what they lead to.
    #[expect(clippy::option_option, reason = "wrong, everywhere, and an address are three things")]
    fn loopback(&mut self, node: &Node, hosts: &[HostMatch]) -> Option<Option<IpAddr>> {
        let (here, elsewhere): (Vec<_>, Vec<_>) = hosts.iter().partition(|host| is_localhost(host));
        if here.is_empty() {
            return Some(None);
        }
        if !elsewhere.is_empty() {
            let span = node.get("host").map_or(node.span, |host| host.span);
            let message = "names of this machine (`localhost`) and others cannot be in one route";
            let help = "make two routes of it: the one for `localhost` is reached at the loopback address only";
            self.error(span, message, help, SPEC);
            return None;
        }
        Some(Some(Ipv4Addr::LOCALHOST.into()))
    }

    fn route_port(&mut self, node: &Node, speaks: &Speaks) -> Option<u16> {
        let Some(said) = node.get("port") else {
            return match &speaks.http_port {
                Ok(port) => Some(*port),
                Err(reason) => {
                    let message = format!("where this route leads is not clear: {}", reason.reason(self.name));
                    self.error(node.span, message, "add `port: PORT`, the port in the container", SPEC);
                    None
                }
            };
        };
        let port = super::port(said)?;
        if let Some((None, word)) = speaks.said.get(&port) {
            let message = format!("this route leads to port {port}, which does not speak HTTP");
            let problem = Diagnostic::error(message).at(said.span, "").also(*word, "said here");
            self.report.push(problem.help("say `app_protocol: http` there, or leave it out").spec(SPEC));
            return None;
        }
        Some(port)
    }
}

/// Returns an address of IPv6 as requests name it; `name` is one in lower case.
fn in_brackets(name: &str) -> String {
    let address = name.parse::<Ipv6Addr>().map_or_else(|_| name.to_owned(), |address| address.to_string());
    format!("[{address}]")
}

/// Returns whether a name is `localhost` or one below it.
fn is_localhost(host: &HostMatch) -> bool {
    let (HostMatch::Exact(name) | HostMatch::Below(name)) = host;
    name == "localhost" || name.ends_with(".localhost")
}

/// The route that sends what comes to `port` without TLS to `route`, which speaks it.
fn to_tls(route: &Route, port: u16) -> Route {
    let tls = route.listen.iter().find(|port| port.tls).map_or(HTTPS, |port| port.port);
    let action = RouteAction::Redirect {
        scheme: Some("https".to_owned()),
        host: None,
        port: (tls != HTTPS).then_some(tls),
        path: None,
        status: 308,
    };
    let listen = vec![RoutePort { port, tls: false }];
    Route { action, listen, port: 0, tls: None, timeout: None, ..route.clone() }
}
