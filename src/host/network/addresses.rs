//! Addresses of bridges and routes, through rtnetlink in the caller's own network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use ipnet::Ipv4Net;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder};
use tokio_util::task::AbortOnDropHandle;

use super::{BridgeSpec, HostNetworkError, Result};

/// `IFA_PROTO` of our addresses, so that they are known even when rules are gone. The kernel and the `ip` tool use 0 to
/// 3 (`linux/if_addr.h`); kernels before 5.18 do not keep it, there the network tells.
const OURS: AddressProtocol = AddressProtocol::Other(b'o');
/// The kernel's table of the host's own addresses (`RT_TABLE_LOCAL` of `linux/rtnetlink.h`).
const LOCAL_TABLE: u8 = 255;

/// A connection to the kernel; it ends with this value.
pub(super) struct Netlink {
    handle: Handle,
    _connection: AbortOnDropHandle<()>,
}

/// An IPv4 address that an interface has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
    ours: bool,
}

/// What has to change: pairs of interface and address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    add: BTreeSet<(u32, Ipv4Addr)>,
    remove: BTreeSet<(u32, Ipv4Addr)>,
}

impl Netlink {
    pub(super) fn open() -> Result<Self> {
        let opened = rtnetlink::new_connection().map_err(|error| kernel("cannot talk to the kernel", &error));
        let (connection, handle, _) = opened?;
        Ok(Self { handle, _connection: AbortOnDropHandle::new(tokio::spawn(connection)) })
    }

    /// Gives each bridge exactly its secondary addresses, and those in `gone`, as far as they exist, none; returns what was
    /// changed.
    pub(super) async fn ensure(&self, bridges: &[BridgeSpec], gone: &[BridgeSpec]) -> Result<Vec<String>> {
        let links = self.links().await?;
        let missing = bridges.iter().filter(|spec| !spec.on_demand && !links.contains_key(&spec.bridge));
        let missing: Vec<&str> = missing.map(|spec| spec.bridge.as_str()).collect();
        let mended = self.apply(&changes(&[bridges, gone].concat(), &links, &self.held().await?), &links).await?;
        if missing.is_empty() {
            return Ok(mended);
        }
        Err(kernel(&format!("cannot set addresses of {}", missing.join(", ")), &"no such interface"))
    }

    /// Lets bridges keep the hardware addresses that they have.
    ///
    /// The kernel gives a bridge the lowest one of its ports' (`br_stp_recalculate_bridge_id`), so that it gets another
    /// with a container that comes or goes, and containers that know the old one do not reach the gateway for five seconds
    /// and more. Docker sets one itself; netavark 1.4, Podman's, does not.
    pub(super) async fn keep_hardware_addresses(&self, bridges: &[BridgeSpec]) -> Result<()> {
        let mut theirs: Vec<&BridgeSpec> = bridges.iter().filter(|spec| spec.on_demand).collect();
        theirs.retain(|spec| !is_kept(&spec.bridge));
        if theirs.is_empty() {
            return Ok(());
        }
        let all = self.all_links().await?;
        for spec in theirs {
            let found = all.iter().find(|link| name(link) == Some(&spec.bridge));
            let Some((link, address)) = found.and_then(|link| Some((link, hardware_address(link)?))) else { continue };
            let same = LinkUnspec::new_with_index(link.header.index).address(address).build();
            tolerate(&[libc::ENODEV], self.handle.link().set(same).execute().await)
                .map_err(|error| kernel(&format!("cannot keep the hardware address of {}", spec.bridge), &error))?;
        }
        Ok(())
    }

    async fn apply(&self, changes: &Changes, links: &BTreeMap<String, u32>) -> Result<Vec<String>> {
        let name = |index: u32| links.iter().find(|(_, i)| **i == index).map_or("?", |(name, _)| name.as_str());
        let mut mended = Vec::new();
        for &(index, address) in &changes.remove {
            let text = format!("address {address} of {}", name(index));
            // Gone already, with or without its interface: as wanted.
            tolerate(&[libc::EADDRNOTAVAIL, libc::ENODEV], self.remove(index, address).await)
                .map_err(|error| kernel(&format!("cannot remove {text}"), &error))?;
            mended.push(format!("removed {text}"));
        }
        for &(index, address) in &changes.add {
            let text = format!("address {address} to {}", name(index));
            tolerate(&[libc::EEXIST], self.add(index, address).await)
                .map_err(|error| kernel(&format!("cannot add {text}"), &error))?;
            mended.push(format!("added {text}"));
        }
        Ok(mended)
    }

    /// Returns the destinations that a new subnet must not overlap.
    pub(super) async fn routes(&self) -> Result<Vec<Ipv4Net>> {
        let all = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let all: Vec<RouteMessage> =
            all.try_collect().await.map_err(|error| kernel("cannot list the host's routes", &error))?;
        Ok(all.iter().filter_map(taken).collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn all_links(&self) -> Result<Vec<LinkMessage>> {
        let all = self.handle.link().get().execute().try_collect().await;
        all.map_err(|error| kernel("cannot list the host's interfaces", &error))
    }

    /// Returns interfaces by name.
    async fn links(&self) -> Result<BTreeMap<String, u32>> {
        Ok(self
            .all_links()
            .await?
            .iter()
            .filter_map(|link| Some((name(link)?.to_owned(), link.header.index)))
            .collect())
    }

    async fn held(&self) -> Result<Vec<Held>> {
        let all: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| kernel("cannot list the host's addresses", &error))?;
        Ok(all.iter().filter_map(held).collect())
    }

    async fn add(&self, index: u32, address: Ipv4Addr) -> Result<(), rtnetlink::Error> {
        let mut request = self.handle.address().add(index, IpAddr::V4(address), 32);
        request.message_mut().attributes.push(AddressAttribute::Protocol(OURS));
        request.execute().await
    }

    async fn remove(&self, index: u32, address: Ipv4Addr) -> Result<(), rtnetlink::Error> {
        let message = rtnetlink::AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, 32).build();
        self.handle.address().del(message).execute().await
    }
}

/// Returns the names of bridges as they are made, until the kernel cannot be heard any more.
pub(super) fn new_bridges() -> BoxStream<'static, String> {
    let (connection, _, messages) = match rtnetlink::new_multicast_connection(&[MulticastGroup::Link]) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(%error, "cannot hear of new interfaces");
            return stream::empty().boxed();
        }
    };
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut bridges = Bridges::default();
    let made = messages.filter_map(move |(message, _)| {
        let name = match &message.payload {
            NetlinkPayload::InnerMessage(message) => bridges.take(message),
            _ => None,
        };
        std::future::ready(name)
    });
    // The connection lives as long as the stream does.
    made.map(move |name| (name, &connection).0).boxed()
}

/// Bridges that were heard of, by index. An interface is told of again whenever something about it changes.
#[derive(Debug, Default)]
struct Bridges(BTreeSet<u32>);

impl Bridges {
    /// Returns the name of a bridge that was not heard of before.
    fn take(&mut self, message: &RouteNetlinkMessage) -> Option<String> {
        match message {
            RouteNetlinkMessage::NewLink(link) if is_bridge(link) => {
                self.0.insert(link.header.index).then(|| name(link).map(str::to_owned)).flatten()
            }
            RouteNetlinkMessage::DelLink(link) => {
                self.0.remove(&link.header.index);
                None
            }
            _ => None,
        }
    }
}

fn is_bridge(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
        _ => false,
    })
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn hardware_address(link: &LinkMessage) -> Option<Vec<u8>> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => Some(address.clone()),
        _ => None,
    })
}

/// Returns whether somebody gave the interface its hardware address; where the kernel does not say, `false`.
fn is_kept(interface: &str) -> bool {
    /// `NET_ADDR_SET` of `linux/netdevice.h`.
    const SET: &str = "3";
    let kind = std::fs::read_to_string(format!("/sys/class/net/{interface}/addr_assign_type"));
    kind.is_ok_and(|kind| kind.trim() == SET)
}

/// Compares. What is not ours and outside the networks is not touched, nor is a bridge's own address.
fn changes(bridges: &[BridgeSpec], links: &BTreeMap<String, u32>, held: &[Held]) -> Changes {
    let known: Vec<(u32, &BridgeSpec)> =
        bridges.iter().filter_map(|spec| links.get(&spec.bridge).map(|index| (*index, spec))).collect();
    let wanted: BTreeSet<(u32, Ipv4Addr)> =
        known.iter().flat_map(|(index, spec)| spec.addresses.iter().map(|address| (*index, *address))).collect();
    let in_network = |held: &Held| {
        known.iter().any(|(index, spec)| {
            *index == held.index && spec.subnet.contains(&held.address) && held.address != spec.gateway
        })
    };
    let single: Vec<&Held> = held.iter().filter(|held| held.prefix == 32).collect();
    let there: BTreeSet<(u32, Ipv4Addr)> = single.iter().map(|held| (held.index, held.address)).collect();
    let removable = single.into_iter().filter(|held| held.ours || in_network(held));
    let remove = removable.map(|held| (held.index, held.address)).filter(|pair| !wanted.contains(pair)).collect();
    Changes { add: wanted.difference(&there).copied().collect(), remove }
}

fn held(message: &AddressMessage) -> Option<Held> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    let ours = message.attributes.contains(&AddressAttribute::Protocol(OURS));
    Some(Held { index: message.header.index, address, prefix: message.header.prefix_len, ours })
}

/// Returns the destination of a route that claims addresses.
///
/// Default routes claim nothing, also those that a VPN writes as two halves (`0.0.0.0/1` and `128.0.0.0/1`), else no
/// subnet would be left. Tables of policy routing count; the table of the host's own addresses does not.
fn taken(route: &RouteMessage) -> Option<Ipv4Net> {
    let claims = matches!(
        route.header.kind,
        RouteType::Unicast | RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit
    );
    if !claims || route.header.table == LOCAL_TABLE || route.header.destination_prefix_length < 2 {
        return None;
    }
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    Ipv4Net::new(destination, route.header.destination_prefix_length).ok()
}

/// Takes an answer of the kernel that means "it is so already" for a success.
fn tolerate(codes: &[i32], result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(answer)) if codes.contains(&-answer.raw_code()) => Ok(()),
        other => other,
    }
}

fn kernel(action: &str, error: &dyn std::fmt::Display) -> HostNetworkError {
    HostNetworkError::Kernel { action: action.to_owned(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_removed() {
        let ip = |last| Ipv4Addr::new(10, 0, 15, last);
        let elsewhere = |last| Ipv4Addr::new(10, 0, 1, last);
        let spec = BridgeSpec {
            bridge: "br-a".to_owned(),
            on_demand: false,
            gateway: ip(254),
            subnet: "10.0.0.0/20".parse().expect("a net"),
            vips: "10.0.15.0/24".parse().expect("a net"),
            addresses: vec![ip(1), ip(2), elsewhere(7)],
            lb_port: 1,
            udp: BTreeMap::new(),
            dns_port: 2,
        };
        let links = BTreeMap::from([("br-a".to_owned(), 5), ("eth0".to_owned(), 2)]);
        let held = |index, address, prefix, ours| Held { index, address, prefix, ours };
        let before = [
            held(5, ip(2), 32, true),                       // wanted
            held(5, ip(3), 32, false),                      // in the network, of an old kernel
            held(5, elsewhere(7), 32, true),                // of a pod on another host
            held(5, elsewhere(8), 32, false),               // of one that is gone, of an old kernel
            held(5, elsewhere(9), 32, true),                // of one that is gone
            held(2, ip(4), 32, true),                       // marked, on another interface
            held(2, ip(5), 32, false),                      // somebody else's
            held(5, ip(6), 24, false),                      // a network, not a virtual address
            held(5, ip(254), 32, false),                    // the gateway
            held(5, Ipv4Addr::new(10, 1, 0, 1), 32, false), // outside the network
        ];
        let found = changes(&[spec], &links, &before);
        assert_eq!(found.add, BTreeSet::from([(5, ip(1))]));
        assert_eq!(found.remove, BTreeSet::from([(5, ip(3)), (2, ip(4)), (5, elsewhere(8)), (5, elsewhere(9))]));
    }
}
