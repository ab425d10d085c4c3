//! Follows a request through the rules without serving it, for who asks why it is answered as it is.
//!
//! The rule is found as for a real request ([`PortRules::shares`](super::ports::PortRules)); where there is none, all rules of
//! the port are looked at for what keeps them from taking it.

use std::net::IpAddr;
use std::sync::Arc;

use super::head::{self, Begins};
use super::ports::{PortRules, Rule};
use super::refusal::Refusal;
use super::route::{Asked, CameBy, bare_host, is_reached_at, redirect, split_target, takes_path};
use super::visit::unclear;
use crate::ids::{HostName, PodId, ProjectName, ServiceName};
use crate::lb::routing::{Pool, Shared};
use crate::model::Route;

/// Rules that nearly take a request, told at most.
const NEAR: usize = 5;

/// A request as rules see it.
#[derive(Debug, Clone)]
pub struct DryRequest {
    /// Port of the host.
    pub port: u16,
    /// Address of the host that it comes to; unspecified: one that no rule names.
    pub local: IpAddr,
    /// Value of `Host`.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Method.
    pub method: String,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// What would become of a request.
#[derive(Debug)]
pub enum DryRun {
    /// No rule is for its port.
    NoRules {
        /// The service that has the port for itself.
        published: Option<PublishedTold>,
        /// Ports that rules are for.
        ports: Vec<u16>,
    },
    /// It is refused before any rule is asked: by its method, or because it is no request that is served.
    Refused {
        /// What clients speak at the port.
        spoken: Spoken,
        /// The status of the answer.
        status: u16,
        /// What the client reads.
        text: &'static str,
    },
    /// None of the port's rules takes it.
    NoRule {
        /// What clients speak at the port.
        spoken: Spoken,
        /// Those that come next to it; all where none is for its host.
        near: Vec<Near>,
    },
    /// One would, and another one takes what its path means to who resolves it: it is refused.
    Unclear {
        /// What clients speak at the port.
        spoken: Spoken,
        /// The path that is meant.
        path: String,
    },
    /// One of these does.
    Taken {
        /// What clients speak at the port.
        spoken: Spoken,
        /// One, or those that share such requests.
        shares: Vec<Share>,
    },
}

/// What clients speak at a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP as it is.
    Plain,
    /// TLS, and there is a certificate for the host.
    Tls,
    /// TLS, and there is no certificate for the host, but for these: the handshake is refused.
    TlsWithout(Vec<String>),
}

/// A service that has a port for itself.
#[derive(Debug, Clone)]
pub struct PublishedTold {
    /// The project.
    pub project: ProjectName,
    /// The service.
    pub service: ServiceName,
    /// The port in its pods.
    pub target: u16,
    /// The pods that are ready.
    pub pods: Vec<(PodId, HostName)>,
}

/// A rule.
#[derive(Debug, Clone)]
pub struct RuleTold {
    /// The project.
    pub project: ProjectName,
    /// The service that it is written at.
    pub service: ServiceName,
    /// Its first host, and its path.
    pub name: String,
    /// What it says.
    pub route: Arc<Route>,
}

/// A rule that does not take a request.
#[derive(Debug, Clone)]
pub struct Near {
    /// The rule.
    pub rule: RuleTold,
    /// What keeps it from taking it.
    pub miss: Miss,
}

/// What keeps a rule from taking a request, in the order in which it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Miss {
    /// It is for other hosts.
    Host,
    /// It is for another address of this host.
    Address(IpAddr),
    /// It is for other paths.
    Path,
    /// It is for other methods.
    Method,
    /// It wants a header field with this value.
    Header(String, String),
}

impl Miss {
    fn rank(&self) -> u8 {
        match self {
            Self::Host => 0,
            Self::Address(_) => 1,
            Self::Path => 2,
            Self::Method => 3,
            Self::Header(..) => 4,
        }
    }
}

/// A rule that takes a share of such requests.
#[derive(Debug)]
pub struct Share {
    /// The rule.
    pub rule: RuleTold,
    /// Its share…
    pub weight: u64,
    /// …of this.
    pub of: u64,
    /// Where clients are sent by it, and with what status.
    pub redirect: Option<(u16, String)>,
    /// The pods that are ready.
    pub pods: Vec<(PodId, HostName)>,
}

/// Follows a request by the table of the moment.
pub(in crate::lb) fn run(shared: &Shared, request: &DryRequest) -> DryRun {
    let routing = shared.routing();
    let refused = |spoken| {
        let refusal = refusal(request)?;
        Some(DryRun::Refused { spoken, status: refusal.status(), text: refusal.text() })
    };
    let Some(rules) = routing.rules(request.port) else {
        let by_request = routing.published_at(request.port).filter(|(target, pool)| pool.http.contains_key(target));
        if let Some(run) = by_request.and_then(|_| refused(Spoken::Plain)) {
            return run;
        }
        let published = routing.published_at(request.port).map(|(target, pool)| PublishedTold {
            project: pool.project.clone(),
            service: pool.service.clone(),
            target,
            pods: pods(shared, pool),
        });
        return DryRun::NoRules { published, ports: routing.rule_ports().collect() };
    };
    let DryRequest { port, local, host, target, method, headers } = request;
    if let Some(run) = refused(spoken(rules, host)) {
        return run;
    }
    let has_header = |name: &str, value: &str| headers.iter().any(|(key, there)| key == name && there == value);
    let path = split_target(target).0;
    let asked = Asked { host: host.as_bytes(), path: path.as_bytes(), method, has_header: &has_header };
    let shares = rules.shares(*local, &asked);
    let Some((total, _)) = shares.last() else {
        let listens = |rule: &&Arc<Rule>| rule.route.listen.iter().any(|listen| listen.port == *port);
        let all = routing.all_rules().filter(listens);
        let mut near: Vec<Near> =
            all.filter_map(|rule| Some(Near { rule: told(rule), miss: miss(&rule.route, request, path)? })).collect();
        let nearest = near.iter().map(|one| one.miss.rank()).max().unwrap_or_default();
        near.retain(|one| one.miss.rank() == nearest);
        // Of rules for other hosts only those hosts are told, all of them.
        if near.iter().any(|one| one.miss != Miss::Host) {
            near.truncate(NEAR);
        }
        return DryRun::NoRule { spoken: spoken(rules, host), near };
    };
    if let Some(path) = unclear(rules, *local, &asked) {
        return DryRun::Unclear { spoken: spoken(rules, host), path: String::from_utf8_lossy(&path).into_owned() };
    }
    let mut before = 0;
    let shares = shares.iter().map(|(end, rule)| {
        let weight = end - std::mem::replace(&mut before, *end);
        let came = CameBy { host, port: *port, is_tls: rules.is_tls };
        let redirect = redirect(&rule.route, target, came);
        Share { rule: told(rule), weight, of: *total, redirect, pods: pods(shared, &rule.pool) }
    });
    let is_only = |share: &Share| share.of == 0 || share.weight > 0;
    DryRun::Taken { spoken: spoken(rules, host), shares: shares.filter(is_only).collect() }
}

/// Returns how a request is refused whatever it is for, judged as a real one is.
fn refusal(request: &DryRequest) -> Option<Refusal> {
    let DryRequest { host, target, method, headers, .. } = request;
    let fields = headers.iter().filter(|(name, _)| name != "host");
    let fields: String = fields.map(|(name, value)| [name.as_str(), ": ", value.as_str(), "\r\n"].concat()).collect();
    let bytes = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    match head::read(bytes.as_bytes(), &mut head::room()) {
        Begins::Wrong(wrong) => Some(wrong.into()),
        // A blank or a line end in one of its parts would make another request of it.
        Begins::Head(head) if (head.method, head.target, head.length) == (&**method, &**target, bytes.len()) => None,
        Begins::Head(_) | Begins::Partial | Begins::Http2 => Some(Refusal::Malformed),
    }
}

fn spoken(rules: &PortRules, host: &str) -> Spoken {
    if !rules.is_tls {
        return Spoken::Plain;
    }
    let name = String::from_utf8_lossy(bare_host(host.as_bytes()));
    // Who asks for an address names no host in the handshake.
    let name = Some(name.as_ref()).filter(|name| name.trim_matches(['[', ']']).parse::<IpAddr>().is_err());
    match rules.certificates.find(name) {
        Some(_) => Spoken::Tls,
        None => Spoken::TlsWithout(rules.certificates.names()),
    }
}

fn told(rule: &Rule) -> RuleTold {
    RuleTold {
        project: rule.pool.project.clone(),
        service: rule.pool.service.clone(),
        name: rule.name.clone(),
        route: Arc::clone(&rule.route),
    }
}

fn pods(shared: &Shared, pool: &Pool) -> Vec<(PodId, HostName)> {
    let host = |target: &crate::lb::routing::Target| match &target.remote {
        Some(remote) => remote.name.clone(),
        None => shared.own_host().clone(),
    };
    pool.targets.iter().map(|target| (target.pod.clone(), host(target))).collect()
}

/// Returns what keeps a rule from taking a request; `None`: nothing, but a rule that comes first does.
fn miss(route: &Route, request: &DryRequest, path: &str) -> Option<Miss> {
    let host = String::from_utf8_lossy(bare_host(request.host.as_bytes())).to_ascii_lowercase();
    if !route.hosts.is_empty() && !route.hosts.iter().any(|one| one.takes(&host)) {
        return Some(Miss::Host);
    }
    if let Some(address) = route.host_ip.filter(|address| !is_reached_at(Some(*address), request.local)) {
        return Some(Miss::Address(address));
    }
    if !takes_path(&route.path, path) {
        return Some(Miss::Path);
    }
    if !route.methods.is_empty() && !route.methods.contains(&request.method) {
        return Some(Miss::Method);
    }
    let missing = route.headers.iter().find(|wanted| !request.headers.contains(wanted));
    missing.map(|(name, value)| Miss::Header(name.clone(), value.clone()))
}
