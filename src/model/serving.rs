//! How a service is served: what its ports speak, by which routes it is reached from outside, and how a pod is chosen.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// How a service is served by the load balancer. The default is plain TCP, spread by open connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Serving {
    /// Ports in the container that are balanced by request, with what they speak; all others are TCP.
    #[serde(deserialize_with = "by_port")]
    pub http: BTreeMap<u16, AppProtocol>,
    /// Rules by which requests from outside come to it (`x-route`), in the order of the file.
    pub routes: Vec<Route>,
    /// How a pod is chosen (`x-balance`).
    pub balance: Balance,
    /// What the agent itself asks each pod before it is sent anything (`x-probe`).
    pub probe: Option<Probe>,
}

/// Reads a map whose keys are ports. They are text in JSON, and stay it where serde has to look at an object before it
/// knows what it is: in all that agents tell each other.
fn by_port<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<u16, AppProtocol>, D::Error> {
    let ports = BTreeMap::<String, AppProtocol>::deserialize(from)?;
    ports.into_iter().map(|(port, speaks)| Ok((port.parse().map_err(D::Error::custom)?, speaks))).collect()
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppProtocol {
    /// HTTP/1.1 to the pods; clients may use HTTP/2.
    Http,
    /// HTTP/2 without TLS to the pods.
    H2c,
    /// gRPC: HTTP/2 without TLS, trailers kept.
    Grpc,
    /// HTTP/1.1 that becomes a WebSocket.
    Ws,
}

impl AppProtocol {
    /// Returns whether the pods speak HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::H2c | Self::Grpc)
    }
}

/// A rule for requests from outside. What it does not name, it does not look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Names that a request may be for; empty: any.
    pub hosts: Vec<HostMatch>,
    /// Path that a request must have.
    pub path: PathMatch,
    /// Methods in capitals; empty: any.
    pub methods: Vec<String>,
    /// Header fields that must be there with this value; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Port in the container; unused by redirects.
    pub port: u16,
    /// Share of the requests among rules that match the same.
    pub weight: Option<u32>,
    /// What happens to the request.
    pub action: RouteAction,
    /// Ports of every host that it is reached at.
    pub listen: Vec<RoutePort>,
    /// Address of the hosts that it is reached at; `None`: all. `*.localhost` is reached at the loopback address only.
    #[serde(default)]
    pub host_ip: Option<std::net::IpAddr>,
    /// The certificate that is shown for its hosts, on ports with TLS.
    pub tls: Option<RouteTls>,
    /// Time from the request to the end of its answer's head; `None`: the balancer's own.
    pub timeout: Option<Duration>,
    /// Where it is written, for messages about two that claim the same: `compose.yaml:14:9`.
    #[serde(default)]
    pub place: String,
}

impl Route {
    /// Returns how it is named: the first of its hosts, and its path.
    pub fn name(&self) -> String {
        Self::text_of(self.hosts.first(), &self.path)
    }

    /// Returns what matches one host (`None`: any) and a path, as people write it: `*.example.com/api/*`.
    pub fn text_of(host: Option<&HostMatch>, path: &PathMatch) -> String {
        let host = match host {
            None => "*".to_owned(),
            Some(HostMatch::Exact(name)) => name.clone(),
            Some(HostMatch::Below(name)) => format!("*.{name}"),
        };
        match path {
            PathMatch::Exact(path) => format!("{host}{path}"),
            PathMatch::Prefix(path) => format!("{host}{}/*", path.trim_end_matches('/')),
        }
    }
}

/// A name that a request is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostMatch {
    /// This one, in lower case.
    Exact(String),
    /// Every name below this one, at any depth (`*.example.com` holds `example.com`), in lower case.
    Below(String),
}

impl HostMatch {
    /// Returns whether a request for `host`, in lower case and without port, is meant.
    pub fn takes(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(name) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

/// The path that a request must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// Exactly this one.
    Exact(String),
    /// This one or one below it: `/api` takes `/api` and `/api/x`, not `/apix`.
    Prefix(String),
}

/// What happens to a request that matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteAction {
    /// It goes to a pod, changed as said.
    Forward {
        /// The path instead of what matched.
        path: Option<PathRewrite>,
        /// The host instead of what was asked for.
        host: Option<String>,
    },
    /// The client is sent elsewhere.
    Redirect {
        /// `http` or `https`; `None`: as it came.
        scheme: Option<String>,
        /// `None`: the one asked for.
        host: Option<String>,
        /// `None`: the scheme's own, or the one asked at where that did not change.
        port: Option<u16>,
        /// `None`: the one asked for.
        path: Option<PathRewrite>,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
}

/// A path instead of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathRewrite {
    /// This instead of the whole path.
    Full(String),
    /// This instead of the prefix that matched.
    Prefix(String),
}

/// A port of the hosts that routes are reached at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoutePort {
    /// Number.
    pub port: u16,
    /// Whether clients speak TLS there.
    pub tls: bool,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteTls {
    /// Key of contents in the graph, or in the model of a config or secret, with the chain, PEM.
    pub certificate: String,
    /// Key of contents in the graph, or in the model of a secret, with the private key, PEM.
    pub key: String,
}

/// How a pod is chosen for a connection or request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balance {
    /// By what.
    pub algorithm: Algorithm,
    /// Keeps a client at the pod that it first got, by a cookie; requests only.
    pub sticky: Option<Sticky>,
    /// When a pod that answers badly is passed over for a while.
    pub eject: Option<Ejection>,
    /// Shares of pods by their host, 100 where it is not named; 0: only where no other pod can take it.
    pub weights: BTreeMap<crate::ids::HostName, u32>,
}

/// By what a pod is chosen among those that are ready and near.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// The fewest open connections or requests; all are looked at where they are few, else the better of two.
    #[default]
    LeastConnections,
    /// One after the other.
    RoundRobin,
    /// The better of two taken at random.
    PowerOfTwo,
    /// The same for the same key, and few keys change when pods come and go.
    Hash(HashKey),
}

/// What is hashed. Connections know the source only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The client's address.
    Source,
    /// A header field, by its name in lower case; the source where it is absent.
    Header(String),
    /// A cookie, by its name; the source where it is absent.
    Cookie(String),
}

/// A cookie that names the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sticky {
    /// Name of the cookie.
    pub cookie: String,
    /// How long the client shall keep it; `None`: until its session ends.
    pub ttl: Option<Duration>,
}

/// When a pod is passed over for what it answers: connects that fail, and for requests answers of 500 and above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// Failures in a row.
    pub failures: u32,
    /// For how long at first; twice as long each time it happens again, up to ten times this.
    pub pause: Duration,
    /// Never more than this share of a service's pods, in percent; one at least may always be passed over.
    pub at_most: u8,
}

/// What the agent asks a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub kind: ProbeKind,
    /// Port in the container.
    pub port: u16,
    /// Time between two questions.
    pub interval: Duration,
    /// Time for an answer.
    pub timeout: Duration,
    /// Bad answers in a row after which it gets nothing.
    pub failures: u32,
    /// Good answers in a row after which it does.
    pub successes: u32,
}

/// What a [`Probe`] asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// Whether a connection is taken.
    Tcp,
    /// Whether `GET PATH` is answered by 200 to 399.
    Http {
        /// Path.
        path: String,
        /// Value of `Host`; `None`: the address.
        host: Option<String>,
    },
}
