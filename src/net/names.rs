//! Who may resolve what: a table from the asking container's address to the names of its own networks and links.
//!
//! Start at [`NameTable::build`] and [`NameTable::answer`]. Both are pure; the server in `net/dns.rs` asks the table and
//! turns answers into messages. A table must never let a container learn of a network that it is not in: every look-up
//! begins with the asker's own zones, there is no list of all names.
//!
//! | name | answer |
//! |---|---|
//! | `web`, its network aliases | the virtual address; with `endpoint_mode: dnsrr` or in an external network as `tasks.web` |
//! | a link's alias | the same, for the linking service only, before all other names |
//! | `tasks.web` | the ready pods |
//! | `2.web` | that pod, if it runs |
//! | container name, `hostname`, engine's short id | that container, if it runs |
//! | any of these + `.<project>.orch.internal` | the same (links excepted) |
//! | `_http._tcp.web`, `_80._tcp.web`, `_tcp.web` | SRV: ports by their name, their number, all that the file tells of |
//! | addresses under `in-addr.arpa` | PTR: `web.<project>.orch.internal`, `2.web.<project>.orch.internal` |
//!
//! A pod's address is its own, on whatever host it runs: this host's bridges answer for the pods of other hosts, and the
//! load balancer takes TCP there (`lb::table::LbTable::pods`). Both follow the same observed state as this table does.
//!
//! Where names meet, the upper row wins; services that share an alias answer together. A container on several networks
//! gets the address of the first one, in the order of its attachments, that has the name. Other types of a known name
//! (AAAA above all) are an empty answer. What is unknown goes to the host's resolvers, except below `orch.internal` and
//! for a number or `tasks` before a known service, which do not exist then. Containers that are only on internal networks
//! get nothing forwarded: a resolver would be a way out.
//!
//! An external network that several projects use makes their services known to each other there, as with Docker Compose.
//! It is taken for one network whatever host it is on: where hosts have separate external networks of one name, build the
//! table from the own host's observed state for these.
//!
//! The asker is identified by its address. Inside a project's subnet but not known (just started, or attached by hand):
//! the names of that one network, without links. Everyone else is refused: the agent is no open resolver.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::Ipv4Net;

use crate::graph::Protocol;
use crate::plan::ProjectView;

mod build;
mod explain;
#[cfg(test)]
mod tests;

pub use explain::explain;

/// The domain of full names: reserved for private use (ICANN resolution 2024.07.29.06), so it cannot become public.
pub const APEX: &str = "orch.internal";

/// Time to live of virtual addresses: they stay as long as the service is a member.
pub const VIP_TTL_SECS: u32 = 30;

/// Time to live of pod addresses, and of the absence of names: short, since the next reconcile pass may change them.
pub const POD_TTL_SECS: u32 = 2;

/// All names of all projects on a host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NameTable {
    version: u64,
    zones: Vec<Zone>,
    askers: HashMap<Ipv4Addr, Asker>,
    networks: Vec<KnownNetwork>,
}

/// The names of one project in one network.
#[derive(Debug, Clone, PartialEq)]
struct Zone {
    /// `.<project>.orch.internal`, lower case.
    suffix: String,
    /// Short names, lower case.
    names: HashMap<String, Entry>,
    /// Full names of virtual addresses and pods.
    reverse: HashMap<Ipv4Addr, String>,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    rank: build::Rank,
    ttl_secs: u32,
    addresses: Vec<Ipv4Addr>,
    /// Aligned with `addresses`: what listens there.
    ports: Vec<Arc<[NamedPort]>>,
}

/// A port that a service tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NamedPort {
    port: u16,
    protocol: Protocol,
    /// Lower case.
    names: Vec<String>,
}

/// A container that may ask.
#[derive(Debug, Clone, PartialEq)]
struct Asker {
    /// Zones that it sees, in order: those of its own project first.
    zones: Vec<usize>,
    /// Alias to service name, both lower case.
    links: Arc<HashMap<String, String>>,
    /// Its own resolvers; empty: the host's.
    upstreams: Arc<[SocketAddr]>,
    /// Whether it is on a network with a way out.
    outside: bool,
}

/// A network that containers may be in without being known.
#[derive(Debug, Clone, PartialEq)]
struct KnownNetwork {
    subnet: Ipv4Net,
    gateway: Option<Ipv4Addr>,
    asker: Asker,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// IPv4 addresses; also stands for ANY.
    A,
    /// The name of an address.
    Ptr,
    /// Port and host of a service.
    Srv,
    /// Anything else: known names have none.
    Other,
}

/// What a name means to the one who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'a> {
    /// IPv4 addresses, at least one; the server rotates them.
    Addresses {
        /// In order of the pods' numbers.
        addresses: &'a [Ipv4Addr],
        /// Time to live.
        ttl_secs: u32,
    },
    /// The name of an address.
    Pointer {
        /// Full name without the final dot.
        name: &'a str,
        /// Time to live.
        ttl_secs: u32,
    },
    /// Ports and hosts, at least one.
    Services {
        /// One for each port and address.
        records: Vec<ServiceRecord<'a>>,
        /// Time to live.
        ttl_secs: u32,
    },
    /// The name exists but has nothing of this kind (`NOERROR` without records).
    NoData {
        /// How long that may be remembered.
        ttl_secs: u32,
    },
    /// There is no such name (`NXDOMAIN`).
    NoName {
        /// How long that may be remembered.
        ttl_secs: u32,
    },
    /// Ask these; empty: the host's own.
    Forward {
        /// The asking container's resolvers.
        upstreams: &'a Arc<[SocketAddr]>,
    },
    /// The asker is nobody that this table serves.
    Refused,
}

/// Where a service listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceRecord<'a> {
    /// The port.
    pub port: u16,
    /// Full name of the host, without the final dot: of a virtual address or a pod.
    pub target: &'a str,
    /// Its address.
    pub address: Ipv4Addr,
}

impl NameTable {
    /// Returns the table of all projects on a host.
    pub fn build(version: u64, projects: &[ProjectView<'_>]) -> Self {
        build::table(version, projects)
    }

    /// Returns the number that it was built with.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns whether `source` is in a network of a project without being a container that this table knows: a newer
    /// table may know it, and then more names for it.
    pub fn is_newcomer(&self, source: Ipv4Addr) -> bool {
        !self.askers.contains_key(&source) && self.network_of(source).is_some()
    }

    /// Answers a question of the container at `source`. `name` is lower case and without the final dot.
    pub fn answer(&self, source: Ipv4Addr, name: &str, kind: RecordKind) -> Answer<'_> {
        let known = self.askers.get(&source);
        let Some(asker) = known.or_else(|| self.network_of(source).map(|network| &network.asker)) else {
            return Answer::Refused;
        };
        if let Some(entry) = self.find(asker, name) {
            return plain(entry, kind);
        }
        if name.starts_with('_')
            && let Some(answer) = self.services(asker, name, kind)
        {
            return answer;
        }
        if let Some(address) = reverse_address(name) {
            let full = asker.zones.iter().find_map(|zone| self.zones[*zone].reverse.get_key_value(&address));
            match (full, kind) {
                (Some((_, name)), RecordKind::Ptr) => return Answer::Pointer { name, ttl_secs: POD_TTL_SECS },
                (Some(_), _) => return Answer::NoData { ttl_secs: POD_TTL_SECS },
                (None, _) if self.network_of(address).is_some() => return Answer::NoName { ttl_secs: POD_TTL_SECS },
                (None, _) => {}
            }
        }
        self.unknown(asker, name)
    }

    /// Returns what to say to a name that no zone of the asker has.
    fn unknown<'a>(&'a self, asker: &'a Asker, name: &str) -> Answer<'a> {
        let ttl_secs = POD_TTL_SECS;
        if let Some(rest) = name.strip_suffix(APEX)
            && (rest.is_empty() || rest.ends_with('.'))
        {
            // A name above known ones exists without records: NXDOMAIN there would deny all that is below (RFC 8020).
            let above = |zone: &usize| self.zones[*zone].suffix.strip_prefix('.') == Some(name);
            let exists = rest.is_empty() || asker.zones.iter().any(above);
            return if exists { Answer::NoData { ttl_secs } } else { Answer::NoName { ttl_secs } };
        }
        let of_service = name.split_once('.').is_some_and(|(head, tail)| {
            (head == "tasks" || head.bytes().all(|b| b.is_ascii_digit())) && self.find(asker, tail).is_some()
        });
        if of_service || !asker.outside {
            return Answer::NoName { ttl_secs };
        }
        Answer::Forward { upstreams: &asker.upstreams }
    }

    /// Finds a name: a link first, then zone by zone.
    fn find(&self, asker: &Asker, name: &str) -> Option<&Entry> {
        let mut zones = asker.zones.iter().map(|zone| &self.zones[*zone]);
        if !asker.links.is_empty()
            && let Some(name) = linked_name(&asker.links, name)
        {
            // A link means a service of the own project, not an alias that happens to read the same.
            let own = zones.clone().next().map(|zone| &zone.suffix);
            let mut own_zones = zones.clone().filter(|zone| Some(&zone.suffix) == own);
            let is_service = |entry: &&Entry| matches!(entry.rank, build::Rank::Service | build::Rank::Pod);
            let entry = own_zones.find_map(|zone| zone.names.get(&name).filter(is_service));
            if entry.is_some() {
                return entry;
            }
        }
        let full = name.ends_with(APEX);
        zones.find_map(|zone| {
            let short = if full { name.strip_suffix(zone.suffix.as_str()) } else { None };
            // An alias may look like a full name: then it is found as it is written.
            short.and_then(|short| zone.names.get(short)).or_else(|| zone.names.get(name))
        })
    }

    /// Answers names of the form `_PORT._PROTOCOL.NAME` and `_PROTOCOL.NAME`, if NAME is known.
    fn services<'a>(&'a self, asker: &'a Asker, name: &str, kind: RecordKind) -> Option<Answer<'a>> {
        let (first, rest) = name.split_once('.')?;
        let (port, protocol, host) = if let Some(protocol) = protocol(first) {
            (None, protocol, rest)
        } else {
            let (second, host) = rest.split_once('.')?;
            (Some(first.strip_prefix('_')?), protocol(second)?, host)
        };
        let entry = self.find(asker, host)?;
        let number = port.and_then(|port| port.parse::<u16>().ok());
        let wanted = |known: &NamedPort| {
            known.protocol == protocol
                && port.is_none_or(|name| number == Some(known.port) || known.names.iter().any(|n| n == name))
        };
        let mut records = Vec::new();
        for (address, ports) in entry.addresses.iter().zip(&entry.ports) {
            let Some(target) = asker.zones.iter().find_map(|zone| self.zones[*zone].reverse.get(address)) else {
                continue;
            };
            let ports = ports.iter().filter(|known| wanted(known));
            records.extend(ports.map(|known| ServiceRecord { port: known.port, target, address: *address }));
        }
        let ttl_secs = entry.ttl_secs;
        Some(match (records.is_empty(), kind) {
            (true, _) if entry.addresses.is_empty() => Answer::NoData { ttl_secs },
            (true, _) => Answer::NoName { ttl_secs },
            (false, RecordKind::Srv) => Answer::Services { records, ttl_secs },
            (false, _) => Answer::NoData { ttl_secs },
        })
    }

    /// Returns the network that an address is in, not counting its gateway: that is the host itself.
    fn network_of(&self, address: Ipv4Addr) -> Option<&KnownNetwork> {
        let inside = |network: &&KnownNetwork| network.subnet.contains(&address);
        self.networks.iter().find(inside).filter(|network| network.gateway != Some(address))
    }
}

fn plain(entry: &Entry, kind: RecordKind) -> Answer<'_> {
    let ttl_secs = entry.ttl_secs;
    match kind {
        RecordKind::A if !entry.addresses.is_empty() => Answer::Addresses { addresses: &entry.addresses, ttl_secs },
        _ => Answer::NoData { ttl_secs },
    }
}

/// Returns what a link makes of a name: `db1` for its alias `database`, `tasks.db1` for `tasks.database`.
fn linked_name(links: &HashMap<String, String>, name: &str) -> Option<String> {
    if let Some(service) = links.get(name) {
        return Some(service.clone());
    }
    let (head, tail) = name.split_once('.')?;
    Some(format!("{head}.{}", links.get(tail)?))
}

fn protocol(label: &str) -> Option<Protocol> {
    match label {
        "_tcp" => Some(Protocol::Tcp),
        "_udp" => Some(Protocol::Udp),
        "_sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Returns the address that a name under `in-addr.arpa` stands for.
fn reverse_address(name: &str) -> Option<Ipv4Addr> {
    let mut labels = name.strip_suffix(".in-addr.arpa")?.split('.').rev();
    let mut octets = [0_u8; 4];
    for octet in &mut octets {
        *octet = labels.next()?.parse().ok()?;
    }
    labels.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Reads the entries of `dns:`; a port may be given (`192.0.2.1:5353`). What is no address is left out. They are asked
/// from the host's network, so a loopback address means the host's, not the container's.
fn parse_upstreams(texts: &[String]) -> Arc<[SocketAddr]> {
    let parse = |text: &String| match text.parse::<IpAddr>() {
        Ok(address) => Some(SocketAddr::new(address, 53)),
        Err(_) => text.parse().ok(),
    };
    texts.iter().filter_map(parse).collect()
}
