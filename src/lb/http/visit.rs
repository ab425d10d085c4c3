//! A client's connection, and where each of its requests goes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::forward::Client;
use super::ports::{PortRules, Rule};
use super::route::{Asked, CameBy, redirect, rewritten};
use crate::lb::routing::{Door, Pool, Routing};
use crate::model::{AppProtocol, Route, RouteAction, resolved};

/// By which way requests come in.
#[derive(Debug)]
pub(super) enum Entry {
    /// For one port of one service: its virtual address or a published port.
    Door(Arc<Door>),
    /// For whatever the rules of a port say of those that come to an address of this host.
    Rules { port: u16, local: IpAddr },
}

/// A client's connection, for as long as it lasts.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) entry: Entry,
    pub(super) client: Client,
    pub(super) peer: SocketAddr,
    /// Requests of the general path that are under way.
    busy: AtomicUsize,
    /// Whether an answer of the general path was cut off, which ends a connection of HTTP/1.
    is_cut: AtomicBool,
}

impl Visit {
    pub(super) fn new(entry: Entry, client: Client, peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self { entry, client, peer, busy: AtomicUsize::default(), is_cut: AtomicBool::default() })
    }

    /// Notes that an answer was cut off.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    /// Returns whether an answer was cut off.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// Returns whether a request of the general path is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Notes a request of the general path until the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Visit>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a request goes, and who says so.
#[derive(Debug)]
pub(super) enum Destination {
    /// The door that it came through.
    Door { pool: Arc<Pool>, port: u16, door: Arc<Door> },
    /// A rule.
    Rule(Arc<Rule>),
}

impl Destination {
    /// Returns the service's pods.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        match self {
            Self::Door { pool, .. } => pool,
            Self::Rule(rule) => &rule.pool,
        }
    }

    /// Returns the port of the pods.
    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Door { port, .. } => *port,
            Self::Rule(rule) => rule.port,
        }
    }

    /// Returns by what the pods are found again in later tables.
    pub(super) fn door(&self) -> &Arc<Door> {
        match self {
            Self::Door { door, .. } => door,
            Self::Rule(rule) => &rule.door,
        }
    }

    /// Returns the rule that says so, if it is one.
    pub(super) fn rule(&self) -> Option<&Arc<Rule>> {
        match self {
            Self::Door { .. } => None,
            Self::Rule(rule) => Some(rule),
        }
    }

    /// Returns what the pods speak.
    pub(super) fn protocol(&self) -> AppProtocol {
        self.pool().http.get(&self.port()).copied().unwrap_or(AppProtocol::Http)
    }

    /// Returns the host that the pods are told instead of the one asked for.
    pub(super) fn host(&self) -> Option<&str> {
        match &self.rule()?.more()?.action {
            RouteAction::Forward { host, .. } => host.as_deref(),
            RouteAction::Redirect { .. } => None,
        }
    }

    /// Returns the path and query that a request goes on with; `None`: as they are.
    pub(super) fn rewritten(&self, target: &str) -> Option<String> {
        rewritten(self.rule()?.more()?, target)
    }

    /// Returns the time for the head of an answer, if the rule says one.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.rule()?.more()?.timeout
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Way {
    /// It goes to a pod.
    To(Destination),
    /// The client is sent elsewhere.
    Redirect { rule: Arc<Rule>, status: u16, location: String },
    /// No rule is for it.
    NoRule,
    /// Its path means one thing to the rules and another one to who resolves it (`/shop/../admin`): it is refused, since pods
    /// do resolve paths.
    Unclear,
    /// What it is for is no longer there.
    Gone,
}

/// Returns the path that is meant to who resolves it, if other rules are for that one.
pub(super) fn unclear(rules: &PortRules, local: IpAddr, asked: &Asked<'_>) -> Option<Vec<u8>> {
    let path = resolved(asked.path)?;
    let other = rules.shares(local, &Asked { path: &path, ..*asked });
    (!std::ptr::eq(other, rules.shares(local, asked))).then_some(path)
}

/// Returns what becomes of a request for `target`, by the table of the moment.
pub(super) fn way(visit: &Visit, routing: &Routing, asked: &Asked<'_>, target: &str) -> Way {
    let (port, local) = match &visit.entry {
        Entry::Door(door) => {
            return match routing.behind(door) {
                Some((pool, port)) => {
                    let (pool, door) = (Arc::clone(pool), Arc::clone(door));
                    Way::To(Destination::Door { pool, port, door })
                }
                None => Way::Gone,
            };
        }
        Entry::Rules { port, local } => (*port, *local),
    };
    let Some(rules) = routing.rules(port) else { return Way::Gone };
    let Some(rule) = rules.find(local, asked) else { return Way::NoRule };
    if unclear(rules, local, asked).is_some() {
        return Way::Unclear;
    }
    let redirect = |route: &Route| {
        let host = str::from_utf8(asked.host).unwrap_or_default();
        redirect(route, target, CameBy { host, port: visit.client.port, is_tls: visit.client.is_tls })
    };
    match rule.more().and_then(redirect) {
        Some((status, location)) => Way::Redirect { rule: Arc::clone(rule), status, location },
        None => Way::To(Destination::Rule(Arc::clone(rule))),
    }
}
