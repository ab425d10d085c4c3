//! Which requests are taken already: two routes of a project that match the same are refused, unless they share by weight.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::diag::{Diagnostic, Span};
use crate::load::keys::Project;
use crate::load::report::Report;
use crate::model::{HostMatch, PathMatch, Route};

use super::SPEC;

/// Whether a route is in the file, or follows from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    File,
    /// Plain HTTP that is sent to TLS.
    Implied,
}

/// Most pairs of host and port that the routes of a project may name: each is looked up on its own.
const MAX_MATCHES: usize = 100_000;

/// What a route matches, for one host and port; methods are compared one by one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    host: Option<HostMatch>,
    path: PathMatch,
    headers: Vec<(String, String)>,
    port: u16,
    host_ip: Option<IpAddr>,
}

struct Claim {
    weight: Option<u32>,
    /// Sorted; empty: any.
    methods: Vec<String>,
    service: String,
    span: Span,
    origin: Origin,
}

/// The requests and ports that routes have claimed so far.
#[derive(Default)]
pub(in crate::load::keys) struct Claims {
    matches: BTreeMap<Match, Vec<Claim>>,
    count: usize,
    /// Whether a port speaks TLS, and who said so.
    ports: BTreeMap<u16, (bool, Span)>,
    /// Where routes listen, for those that publish the same port.
    listen: BTreeMap<(u16, Option<IpAddr>), Span>,
}

impl Claims {
    /// Takes what a route matches; what is taken already is reported. Returns whether all was free.
    pub(super) fn take(
        &mut self,
        route: &Route,
        service: &str,
        span: Span,
        origin: Origin,
        report: &mut Report,
    ) -> bool {
        for port in &route.listen {
            if let Some((tls, before)) = self.ports.get(&port.port).filter(|(tls, _)| *tls != port.tls) {
                let words = if *tls { ["plain HTTP", "TLS"] } else { ["TLS", "plain HTTP"] };
                let message = format!("port {} would speak both TLS and plain HTTP", port.port);
                let problem = Diagnostic::error(message).at(span, words[0]).also(*before, words[1]);
                report.push(problem.help("let one of them listen elsewhere: `listen: PORT`").spec(SPEC));
                return false;
            }
            self.ports.insert(port.port, (port.tls, span));
            self.listen.insert((port.port, route.host_ip), span);
        }
        let before = self.count;
        self.count = before.saturating_add(route.hosts.len().max(1) * route.listen.len());
        if self.count > MAX_MATCHES {
            if before <= MAX_MATCHES {
                let message = format!("routes name more than {MAX_MATCHES} pairs of host and port up to here");
                let help = "`*.example.com` takes all names below it";
                report.push(Diagnostic::error(message).at(span, "").help(help).spec(SPEC));
            }
            return false;
        }
        let weight = route.weight;
        for one in matches(route) {
            let claims = self.matches.entry(one).or_default();
            let methods = &route.methods;
            // Those that share are for the same methods: of others the first one takes all that both are for.
            let share = |other: &Claim| weight.is_some() && other.weight.is_some() && *methods == other.methods;
            let both = |other: &&Claim| !share(other) && overlap(methods, &other.methods);
            if let Some(other) = claims.iter().find(both) {
                report.push(clash(service, span, (weight, origin), other));
                return false;
            }
            let (methods, service) = (methods.clone(), service.to_owned());
            claims.push(Claim { weight, methods, service, span, origin });
        }
        true
    }

    /// Reports routes that share requests of which none gets any: whoever wrote it wants them to go somewhere. Envoy refuses it
    /// as well; other gateways of Kubernetes answer 500 or 503 to each of them.
    pub(in crate::load::keys) fn unshared(&self, report: &mut Report) {
        let mut told = BTreeSet::new();
        for (one, claims) in &self.matches {
            // Who is reached at one address shares with who is reached at all.
            let everywhere = one.host_ip.and_then(|_| self.matches.get(&Match { host_ip: None, ..one.clone() }));
            for claim in claims.iter().filter(|claim| claim.weight == Some(0) && claim.origin == Origin::File) {
                let same = |other: &&Claim| other.methods == claim.methods;
                let mut shares = claims.iter().chain(everywhere.into_iter().flatten()).filter(same);
                if told.contains(&claim.span) || shares.any(|other| other.weight != Some(0)) {
                    continue;
                }
                let others = claims.iter().filter(same).map(|other| other.span).filter(|span| *span != claim.span);
                let others: Vec<Span> = others.collect();
                told.insert(claim.span);
                told.extend(&others);
                // Some of what it matches, or all, may be for those too, which take it or leave it as a whole.
                let apart = claims.iter().chain(everywhere.into_iter().flatten()).filter(|other| !same(other));
                let apart: BTreeSet<Span> = apart.filter(|other| other.weight != Some(0)).map(|one| one.span).collect();
                let message = if apart.is_empty() {
                    "the requests that this matches go nowhere: there is no weight but 0"
                } else {
                    "the requests that come to this go nowhere: its weight is 0, and it shares with no other"
                };
                let problem = Diagnostic::error(message).at(claim.span, "");
                let problem = others.iter().fold(problem, |problem, span| problem.also(*span, "shares"));
                let problem = apart
                    .iter()
                    .fold(problem, |problem, span| problem.also(*span, "for other methods: shares nothing"));
                let help = if apart.is_empty() {
                    "give it a weight above 0; where nothing is to be served, leave the route out"
                } else {
                    "give both the same `method`, or this a weight above 0; where nothing is to be served, leave it out"
                };
                report.push(problem.help(help).spec(SPEC));
            }
        }
    }

    /// Reports ports of routes that a service publishes.
    pub(in crate::load::keys) fn published(&self, project: &Project<'_>, report: &mut Report) {
        for (name, service) in project.tree.entries("services") {
            for port in service.node.items("ports") {
                let is_tcp = port.str("protocol").is_none_or(|protocol| matches!(protocol, "" | "tcp"));
                let Some(published) = port.get("published").filter(|_| is_tcp) else { continue };
                let Some(number) = published.as_str().and_then(|text| text.parse::<u16>().ok()) else { continue };
                let address = port.str("host_ip").and_then(|text| text.parse::<IpAddr>().ok());
                let address = address.filter(|address| !address.is_unspecified());
                let at_port = self.listen.range((number, None)..).take_while(|((port, _), _)| *port == number);
                let mut clash =
                    at_port.filter(|((_, host_ip), _)| address.is_none() || host_ip.is_none() || address == *host_ip);
                let clash = clash.next();
                if let Some((_, route)) = clash {
                    let message = format!("port {number} is published by service `{name}`, and routes listen there");
                    let problem =
                        Diagnostic::error(message).at(published.span, "published here").also(*route, "a route");
                    let help = "publish another port, or let the route listen elsewhere: `listen: PORT`";
                    report.push(problem.help(help).spec(SPEC));
                }
            }
        }
    }
}

/// Every host and port of a route.
fn matches(route: &Route) -> Vec<Match> {
    let hosts: Vec<Option<HostMatch>> =
        if route.hosts.is_empty() { vec![None] } else { route.hosts.iter().cloned().map(Some).collect() };
    let one = |host: &Option<HostMatch>, port: u16| Match {
        host: host.clone(),
        path: route.path.clone(),
        headers: route.headers.clone(),
        port,
        host_ip: route.host_ip,
    };
    hosts.iter().flat_map(|host| route.listen.iter().map(|port| one(host, port.port))).collect()
}

/// Whether two lists of methods, of which an empty one means all, have one in common and make neither the more exact.
fn overlap(one: &[String], other: &[String]) -> bool {
    (one.is_empty() && other.is_empty()) || one.iter().any(|method| other.binary_search(method).is_ok())
}

fn clash(service: &str, span: Span, (weight, origin): (Option<u32>, Origin), other: &Claim) -> Diagnostic {
    let message = if other.service == service {
        format!("two routes of service `{service}` match the same requests")
    } else {
        format!("routes of services `{}` and `{service}` match the same requests", other.service)
    };
    let help = if weight.is_some() && other.weight.is_some() {
        "routes share by weight what both match: write the same `method` at both"
    } else if origin == Origin::File && other.origin == Origin::File {
        "change what one of them matches, or give each a `weight` to share the requests"
    } else {
        "a route with `tls` sends plain HTTP there to HTTPS: say `http: off` of it where another route takes plain HTTP"
    };
    let problem = Diagnostic::error(message).at(span, "this").also(other.span, "and this");
    problem.help(help).spec(SPEC)
}
