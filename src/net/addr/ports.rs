//! Numbers for published ports.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::graph::{NetworkMode, Port, PortMode, Protocol};
use crate::ids::ServiceName;
use crate::place::meet;
use crate::plan::desired::PublishedPort;

use super::error::{AddressError, PortOwner};
use super::{Allocation, PortCandidate, PortFree, PortTrouble, routes};

/// Where ports that the file leaves open come from: Linux' own default for outgoing connections, which Docker uses too.
const EPHEMERAL: (u16, u16) = (32768, 60999);

/// Resolves every published port of the graph to one number.
pub(super) fn choose(
    allocation: &Allocation<'_>,
    port_free: &mut PortFree<'_>,
    errors: &mut Vec<AddressError>,
) -> Vec<PublishedPort> {
    let mut wanted = wanted_ports(allocation);
    // Who has no choice goes first: a range must not take the number that another service names.
    wanted.sort_by_key(|(_, port)| match port.published {
        Some((first, last)) => u32::from(last) - u32::from(first.min(last)),
        None => u32::MAX,
    });
    let mut chooser = Chooser { allocation, port_free, chosen: Vec::new() };
    for (service, port) in wanted {
        match chooser.choose(service, port) {
            Ok(published) if chooser.chosen.contains(&published) => {}
            Ok(published) => chooser.chosen.push(published),
            Err(error) => errors.push(error),
        }
    }
    let mut chosen = chooser.chosen;
    chosen.sort();
    chosen
}

/// Returns the ports that the load balancer publishes. A service without a network of its own has none to publish:
/// `network_mode: host` listens on the host itself, `none` nowhere.
fn wanted_ports<'a>(allocation: &Allocation<'a>) -> Vec<(&'a ServiceName, &'a Port)> {
    let services = allocation.graph.services.iter();
    services
        .filter(|(_, service)| !matches!(service.network, NetworkMode::Host | NetworkMode::None))
        .flat_map(|(name, service)| service.ports.iter().map(move |port| (name, port)))
        .filter(|(_, port)| port.mode == PortMode::Ingress)
        .collect()
}

struct Chooser<'a, 'b> {
    allocation: &'b Allocation<'a>,
    port_free: &'b mut PortFree<'b>,
    chosen: Vec<PublishedPort>,
}

impl Chooser<'_, '_> {
    fn choose(&mut self, service: &ServiceName, port: &Port) -> Result<PublishedPort, AddressError> {
        if port.protocol == Protocol::Sctp {
            return Err(AddressError::SctpNeedsHostMode { service: service.clone(), target: port.target });
        }
        let with = |published| PublishedPort {
            service: service.clone(),
            host_ip: port.host_ip,
            published,
            target: port.target,
            protocol: port.protocol,
        };
        let (first, last) = port.published.unwrap_or(EPHEMERAL);
        if first == last && port.published.is_some() {
            return self.check(with(first));
        }
        if let Some(kept) = self.kept(&with(0), first, last) {
            return Ok(kept);
        }
        let span = u32::from(last.max(first)) - u32::from(first) + 1;
        let start = if port.published.is_some() { 0 } else { self.hash(service, port) % span };
        let numbers = (0..span).filter_map(|step| u16::try_from(u32::from(first) + (start + step) % span).ok());
        for number in numbers {
            match self.check(with(number)) {
                Err(AddressError::PortUnavailable { trouble, .. }) if trouble.cause == PortTrouble::InUse => {}
                Err(AddressError::PortClash { .. }) => {}
                // Another number would not help.
                done => return done,
            }
        }
        Err(AddressError::NoFreePort { service: service.clone(), target: port.target, range: (first, last) })
    }

    /// Returns the number that this port has already, if that is still good. It is not asked for: the project itself
    /// listens there.
    fn kept(&self, port: &PublishedPort, first: u16, last: u16) -> Option<PublishedPort> {
        let same = |had: &&PublishedPort| {
            PublishedPort { published: 0, ..(*had).clone() } == *port && (first..=last).contains(&had.published)
        };
        self.allocation.previous.ports.iter().filter(same).find(|had| self.clash(had).is_none()).cloned()
    }

    /// Returns the port if nobody has it.
    fn check(&mut self, port: PublishedPort) -> Result<PublishedPort, AddressError> {
        if self.chosen.contains(&port) {
            return Ok(port);
        }
        if let Some(owner) = self.clash(&port) {
            let PublishedPort { service, host_ip, published, protocol, .. } = port;
            return Err(AddressError::PortClash { service, host_ip, port: published, protocol, owner });
        }
        let place = |port: &PublishedPort| (port.host_ip, port.published, port.protocol);
        let ours = self.allocation.previous.ports.iter().any(|had| place(had) == place(&port));
        let PublishedPort { service, host_ip, published, protocol, .. } = port.clone();
        let held = routes::is_held(self.allocation, host_ip, published, protocol);
        let candidate = PortCandidate { service, host_ip, port: published, protocol, held, for_routes: false };
        if ours {
            return Ok(port);
        }
        (self.port_free)(&candidate)
            .map(|()| port)
            .map_err(|trouble| AddressError::PortUnavailable { candidate, trouble })
    }

    /// Returns who else in any project has that port.
    fn clash(&self, port: &PublishedPort) -> Option<PortOwner> {
        let same = |host_ip, published, protocol| {
            published == port.published && protocol == port.protocol && meet(host_ip, port.host_ip)
        };
        let here = self.chosen.iter().find(|other| same(other.host_ip, other.published, other.protocol));
        if let Some(other) = here {
            return Some(PortOwner { project: None, service: other.service.clone(), route: None });
        }
        let elsewhere = self.allocation.published_elsewhere.iter();
        let elsewhere = elsewhere.map(|(project, other)| (project, other));
        let mut clashing = elsewhere.filter(|(_, other)| same(other.host_ip, other.published, other.protocol));
        if let Some((project, other)) = clashing.next() {
            let (project, service) = (Some(project.clone()), other.service.clone());
            return Some(PortOwner { project, service, route: None });
        }
        let is_tcp = port.protocol == Protocol::Tcp;
        let route = is_tcp.then(|| routes::listener(self.allocation, port.host_ip, port.published));
        self.host_mode(&same).or(route.flatten())
    }

    /// Returns the service whose containers have that port by `mode: host`.
    fn host_mode(&self, same: &dyn Fn(Option<IpAddr>, u16, Protocol) -> bool) -> Option<PortOwner> {
        let services = self.allocation.graph.services.iter();
        let mut ports = services.flat_map(|(name, service)| service.ports.iter().map(move |port| (name, port)));
        let (name, _) = ports.find(|(_, port)| {
            let fixed = port.published.filter(|(first, last)| first == last);
            port.mode == PortMode::Host && fixed.is_some_and(|(number, _)| same(port.host_ip, number, port.protocol))
        })?;
        Some(PortOwner { project: None, service: name.clone(), route: None })
    }

    /// A number that depends only on what the port is, so that a project made again tends to get the same ports.
    fn hash(&self, service: &ServiceName, port: &Port) -> u32 {
        let Port { name: _, host_ip, published: _, target, protocol, mode: _ } = port;
        let text = format!("{}/{service}/{host_ip:?}/{target}/{protocol}", self.allocation.graph.project);
        let digest = Sha256::digest(text.as_bytes());
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }
}
