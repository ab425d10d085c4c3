//! What a service says of its ports: `ports` and `expose`, and what they speak.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::{Diagnostic, Span, did_you_mean};
use crate::load::node::Node;
use crate::model::{AppProtocol, Route, RouteAction};

use super::{Subject, address};

/// A port in the container, or a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) is_tcp: bool,
    pub(super) span: Span,
}

impl Declared {
    /// Returns the TCP ports among them.
    pub(super) fn tcp(&self) -> impl Iterator<Item = u16> + use<> {
        (self.first..=self.last).filter({
            let is_tcp = self.is_tcp;
            move |_| is_tcp
        })
    }
}

/// Returns the ports that a container says it listens on.
pub(super) fn declared(container: &Node) -> Vec<Declared> {
    let published = container.items("ports").iter().filter_map(|port| {
        let target = super::port(port.get("target")?)?;
        let is_tcp = port.str("protocol").is_none_or(|protocol| matches!(protocol, "" | "tcp"));
        let span = port.get("target").map_or(port.span, |target| target.span);
        Some(Declared { first: target, last: target, is_tcp, span })
    });
    let exposed = container.items("expose").iter().filter_map(|port| {
        let (ports, protocol) = port.as_str()?.split_once('/').unwrap_or((port.as_str()?, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (address::port_number(first)?, address::port_number(last)?);
        Some(Declared { first, last, is_tcp: protocol.eq_ignore_ascii_case("tcp"), span: port.span })
    });
    published.chain(exposed).collect()
}

/// What TCP ports of a service speak, as far as it says so.
#[derive(Debug)]
pub(super) struct Speaks {
    /// By `app_protocol`, with its place; `None`: something that is passed on as it is.
    pub(super) said: BTreeMap<u16, (Option<AppProtocol>, Span)>,
    /// The one port that requests can be meant for: the one that is said to speak HTTP, else the one that is declared and
    /// not said to speak something else.
    pub(super) http_port: Result<u16, NoPort>,
}

/// Ports that a message lists.
const LISTED: usize = 5;

/// Why there is no port to take where none is given.
#[derive(Debug, Clone)]
pub(super) enum NoPort {
    /// None is declared.
    None,
    /// Several are, as a message lists them.
    Several(String),
}

impl Speaks {
    /// Returns whether a port speaks HTTP in any of its forms.
    pub(super) fn any_http(&self) -> bool {
        self.said.values().any(|(protocol, _)| protocol.is_some())
    }

    /// Returns the ports that are balanced by request: those that say so, and those that routes lead to.
    pub(super) fn http(&self, routes: &[Route]) -> BTreeMap<u16, AppProtocol> {
        let said = self.said.iter().filter_map(|(port, (protocol, _))| Some((*port, (*protocol)?)));
        let forwarding = routes.iter().filter(|route| matches!(route.action, RouteAction::Forward { .. }));
        let routed = forwarding.map(|route| (route.port, AppProtocol::Http));
        routed.chain(said).collect()
    }
}

/// See [`Speaks::http_port`]; `single` are the TCP ports that are declared, and beside them there may be ranges.
fn http_port(
    said: &BTreeMap<u16, (Option<AppProtocol>, Span)>,
    single: &BTreeSet<u16>,
    ranges: bool,
) -> Result<u16, NoPort> {
    let http = said.iter().filter(|(_, (protocol, _))| protocol.is_some()).map(|(port, _)| *port).collect::<Vec<_>>();
    let is_said = !http.is_empty();
    let candidates =
        if is_said { http } else { single.iter().copied().filter(|port| !said.contains_key(port)).collect() };
    match candidates.as_slice() {
        [port] if is_said || !ranges => Ok(*port),
        [] if !ranges => Err(NoPort::None),
        ports => {
            let single = ports.iter().take(LISTED).map(|port| format!("`{port}`"));
            let range = (ranges && !is_said).then(|| "a range".to_owned());
            let more = (ports.len() > LISTED).then(|| "…".to_owned());
            Err(NoPort::Several(single.chain(more).chain(range).collect::<Vec<_>>().join(", ")))
        }
    }
}

impl NoPort {
    /// Returns what to say of `service`.
    pub(super) fn reason(&self, service: &str) -> String {
        match self {
            Self::None => format!("`{service}` declares no port"),
            Self::Several(ports) => format!("`{service}` declares several ports ({ports})"),
        }
    }
}

impl Subject<'_, '_> {
    /// Reads `app_protocol` of the published ports.
    pub(super) fn speaks(&mut self) -> Speaks {
        let mut said: BTreeMap<u16, (Option<AppProtocol>, Span)> = BTreeMap::new();
        let tcp = declared(self.node()).into_iter().filter(|declared| declared.is_tcp);
        let (single, ranges): (Vec<_>, Vec<_>) = tcp.partition(|declared| declared.first == declared.last);
        let single: BTreeSet<u16> = single.into_iter().map(|declared| declared.first).collect();
        for port in self.node().items("ports") {
            let is_tcp = port.str("protocol").is_none_or(|protocol| matches!(protocol, "" | "tcp"));
            let (Some(target), Some(word)) = (port.get("target").and_then(super::port), port.get("app_protocol"))
            else {
                continue;
            };
            let Some(text) = word.as_str().filter(|text| is_tcp && !text.is_empty()) else { continue };
            let protocol = app_protocol(text);
            if protocol.is_none() && !KNOWN_OTHERS.contains(&text) {
                self.perhaps_http(text, word.span);
            }
            self.is_one_thing(target, (protocol, word.span), &mut said);
        }
        let http_port = http_port(&said, &single, !ranges.is_empty());
        Speaks { said, http_port }
    }

    /// Notes what a port speaks that a route leads to.
    pub(super) fn speaks_too(&mut self, port: u16, word: &Node, speaks: &mut Speaks) {
        if let Some(protocol) = word.as_str().and_then(app_protocol) {
            self.is_one_thing(port, (Some(protocol), word.span), &mut speaks.said);
        }
    }

    /// Notes what a port speaks, which must be the same wherever it is said.
    fn is_one_thing(
        &mut self,
        port: u16,
        (protocol, word): (Option<AppProtocol>, Span),
        said: &mut BTreeMap<u16, (Option<AppProtocol>, Span)>,
    ) {
        if let Some((before, span)) = said.insert(port, (protocol, word))
            && before != protocol
        {
            let message = format!("port {port} of service `{}` speaks two things", self.name);
            let problem = Diagnostic::error(message).at(word, "this").also(span, "and this");
            self.report.push(problem.help("it is one port of the container: say the same").spec(SPEC));
        }
    }

    /// A word that nobody knows is passed on as it is, which is not what a slip of the pen meant.
    fn perhaps_http(&mut self, text: &str, span: Span) {
        if let Some(meant) = did_you_mean(text, HTTP.iter().map(|(word, _)| *word)) {
            let message = format!("the application protocol `{text}` is unknown: the port is balanced as plain TCP");
            self.report
                .push(Diagnostic::warning(message).at(span, "").help(format!("did you mean `{meant}`?")).spec(SPEC));
        }
    }
}

const SPEC: &str = "05-services.md#ports";

/// Words for what is balanced by request.
const HTTP: &[(&str, AppProtocol)] = &[
    ("http", AppProtocol::Http),
    ("h2c", AppProtocol::H2c),
    ("http2", AppProtocol::H2c),
    ("kubernetes.io/h2c", AppProtocol::H2c),
    ("grpc", AppProtocol::Grpc),
    ("ws", AppProtocol::Ws),
    ("kubernetes.io/ws", AppProtocol::Ws),
];

/// Words near those that mean something else: TLS that the container itself speaks is passed on.
const KNOWN_OTHERS: [&str; 7] = ["tcp", "tls", "https", "wss", "kubernetes.io/wss", "udp", "ssh"];

/// Returns what an `app_protocol` stands for; `None`: it is passed on as it is.
fn app_protocol(text: &str) -> Option<AppProtocol> {
    let lower = text.to_ascii_lowercase();
    HTTP.iter().find(|(word, _)| *word == lower).map(|(_, protocol)| *protocol)
}
