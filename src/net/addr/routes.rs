//! Ports that routes listen at, and requests that routes of two projects would both take.
//!
//! Any number of projects may have routes at one port; what each takes must differ. A request goes to the most exact
//! route (`lb/http/route.rs` has the order), so two that differ in exactness are no clash.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::graph::{Graph, Protocol};
use crate::ids::{ProjectName, ServiceName};
use crate::model::{HostMatch, PathMatch, Route};
use crate::place::meet;
use crate::plan::desired::PublishedPort;

use super::error::{AddressError, PortOwner};
use super::{Allocation, PortCandidate, PortFree};

/// A route of another project.
#[derive(Debug, Clone, Copy)]
pub struct OtherRoute<'a> {
    /// The project.
    pub project: &'a ProjectName,
    /// The service that it leads to.
    pub service: &'a ServiceName,
    /// What it says.
    pub route: &'a Route,
}

impl OtherRoute<'_> {
    fn owner(&self) -> PortOwner {
        PortOwner {
            project: Some(self.project.clone()),
            service: self.service.clone(),
            route: Some(self.route.place.clone()),
        }
    }
}

/// Returns every route of a graph with its service.
pub fn routes(graph: &Graph) -> impl Iterator<Item = (&ServiceName, &Route)> {
    graph.services.iter().flat_map(|(name, service)| service.serving.routes.iter().map(move |route| (name, route)))
}

/// Returns whether a route listens where a listener at `host_ip` and `port` would.
fn listens_at(route: &Route, host_ip: Option<IpAddr>, port: u16) -> bool {
    meet(route.host_ip, host_ip) && route.listen.iter().any(|listen| listen.port == port)
}

/// Returns the route that listens at a TCP port: one of the project itself first.
pub(super) fn listener(allocation: &Allocation<'_>, host_ip: Option<IpAddr>, port: u16) -> Option<PortOwner> {
    let own = routes(allocation.graph).find(|(_, route)| listens_at(route, host_ip, port));
    let own = own.map(|(service, route)| PortOwner {
        project: None,
        service: service.clone(),
        route: Some(route.place.clone()),
    });
    let other = || allocation.routes_elsewhere.iter().find(|other| listens_at(other.route, host_ip, port));
    own.or_else(|| other().map(OtherRoute::owner))
}

/// Returns whether orch itself may be listening there now: for routes, or for what the project publishes so far.
pub(super) fn is_held(allocation: &Allocation<'_>, host_ip: Option<IpAddr>, port: u16, protocol: Protocol) -> bool {
    let published =
        |had: &PublishedPort| had.published == port && had.protocol == protocol && meet(had.host_ip, host_ip);
    let had = allocation.previous_graph.into_iter().flat_map(routes).map(|(_, route)| route);
    let mut routes = allocation.routes_elsewhere.iter().map(|other| other.route).chain(had);
    allocation.previous.ports.iter().any(published)
        || protocol == Protocol::Tcp && routes.any(|route| listens_at(route, host_ip, port))
}

/// What a route matches, for one host and port; methods and addresses are compared one by one.
type Match<'a> = (u16, Option<&'a HostMatch>, &'a PathMatch, &'a [(String, String)]);

fn matches(route: &Route) -> impl Iterator<Item = Match<'_>> {
    let any = route.hosts.is_empty().then_some(None);
    let hosts = any.into_iter().chain(route.hosts.iter().map(Some));
    hosts.flat_map(move |host| {
        route.listen.iter().map(move |listen| (listen.port, host, &route.path, route.headers.as_slice()))
    })
}

/// Finds the routes that cannot be: others take the same requests, speak otherwise at the same port, or have the port.
pub(super) fn check(allocation: &Allocation<'_>, port_free: &mut PortFree<'_>, errors: &mut Vec<AddressError>) {
    let own: Vec<(&ServiceName, &Route)> = routes(allocation.graph).collect();
    let ports: BTreeSet<u16> = own.iter().flat_map(|(_, route)| &route.listen).map(|listen| listen.port).collect();
    let mut taken: BTreeMap<Match<'_>, Vec<&OtherRoute<'_>>> = BTreeMap::new();
    let mut speaks: BTreeMap<(u16, bool), &OtherRoute<'_>> = BTreeMap::new();
    for other in allocation.routes_elsewhere {
        for listen in other.route.listen.iter().filter(|listen| ports.contains(&listen.port)) {
            speaks.entry((listen.port, listen.tls)).or_insert(other);
        }
        for one in matches(other.route).filter(|(port, ..)| ports.contains(port)) {
            taken.entry(one).or_default().push(other);
        }
    }
    for (service, route) in &own {
        errors.extend(clash(service, route, &taken, &speaks));
    }
    let mut asked = BTreeSet::new();
    for (service, route) in own {
        for listen in route.listen.iter().filter(|listen| asked.insert((route.host_ip, listen.port))) {
            errors.extend(port_error(allocation, port_free, (service, route), listen.port));
        }
    }
}

fn owner(service: &ServiceName, route: &Route) -> PortOwner {
    PortOwner { project: None, service: service.clone(), route: Some(route.place.clone()) }
}

/// Returns which route of another project is in the way of one, if any is.
fn clash(
    service: &ServiceName,
    route: &Route,
    taken: &BTreeMap<Match<'_>, Vec<&OtherRoute<'_>>>,
    speaks: &BTreeMap<(u16, bool), &OtherRoute<'_>>,
) -> Option<AddressError> {
    for listen in &route.listen {
        if let Some(other) = speaks.get(&(listen.port, !listen.tls)) {
            let (own, other) = (owner(service, route), other.owner());
            let (tls, plain) = if listen.tls { (own, other) } else { (other, own) };
            return Some(AddressError::RoutesSpeak { port: listen.port, tls: Box::new(tls), plain: Box::new(plain) });
        }
    }
    matches(route).find_map(|one| {
        let same = |other: &&&OtherRoute<'_>| {
            meet(other.route.host_ip, route.host_ip) && overlap(&other.route.methods, &route.methods)
        };
        let other = taken.get(&one)?.iter().find(same)?;
        let (own, other) = (Box::new(owner(service, route)), Box::new(other.owner()));
        Some(AddressError::RouteClash { own, other, name: name(&one), port: one.0 })
    })
}

/// Returns whether two lists of methods, of which an empty one means all, make neither route the more exact one and have
/// one in common.
fn overlap(one: &[String], other: &[String]) -> bool {
    (one.is_empty() && other.is_empty()) || one.iter().any(|method| other.contains(method))
}

fn name((_, host, path, _): &Match<'_>) -> String {
    Route::text_of(*host, path)
}

/// Returns why nothing can listen for a route at a port.
fn port_error(
    allocation: &Allocation<'_>,
    port_free: &mut PortFree<'_>,
    (service, route): (&ServiceName, &Route),
    port: u16,
) -> Option<AddressError> {
    let (host_ip, protocol) = (route.host_ip, Protocol::Tcp);
    let is_it =
        |other: &PublishedPort| other.published == port && other.protocol == protocol && meet(other.host_ip, host_ip);
    if let Some((project, other)) = allocation.published_elsewhere.iter().find(|(_, other)| is_it(other)) {
        let other = PortOwner { project: Some(project.clone()), service: other.service.clone(), route: None };
        let (own, other) = (Box::new(owner(service, route)), Box::new(other));
        return Some(AddressError::RoutePortPublished { own, host_ip, port, other });
    }
    let mut had = allocation.previous_graph.into_iter().flat_map(routes);
    if had.any(|(_, had)| had.host_ip == host_ip && listens_at(had, host_ip, port)) {
        return None;
    }
    let held = is_held(allocation, host_ip, port, protocol);
    let candidate = PortCandidate { service: service.clone(), host_ip, port, protocol, held, for_routes: true };
    let trouble = port_free(&candidate).err()?;
    Some(AddressError::RoutePortUnavailable { own: Box::new(owner(service, route)), host_ip, port, trouble })
}
