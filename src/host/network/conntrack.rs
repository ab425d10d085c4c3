//! The kernel's memory of datagrams on their way: forgets what was decided before the rules of now.
//!
//! Whether an address or port is rewritten is decided for the first datagram of a flow and remembered for as long as the
//! flow goes on. A client that sends again and again from one socket would never come to a rule that was made after its
//! first datagram. Connections need none of this: each begins anew.
//!
//! Source: Linux, `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::io;
use std::net::Ipv4Addr;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::BridgeSpec;

/// Subsystem and messages of `nfnetlink`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

/// Kinds of messages that end an answer.
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;

/// Attributes of a flow…
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// …of the addresses and the protocol of a direction…
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
/// …and of these.
const DESTINATION: u16 = 2;
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// Says that an attribute holds others, or how its number is written.
const FLAGS: u16 = 0xC000;

/// Bytes of the heads of `netlink` and `nfnetlink`.
const HEAD: usize = 16;
const FAMILY: usize = 4;

/// A flow of datagrams as the kernel remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flow {
    /// Where its first datagram was sent…
    address: Ipv4Addr,
    port: u16,
    /// …and the port that it was given instead; often the same.
    given: u16,
    /// The attributes that name it, as they came.
    name: Vec<u8>,
}

/// Forgets the flows to addresses of `bridges` that go another way than their rules say now. Returns how many there were.
///
/// # Errors
/// What the kernel says; one without this memory to look at has no subsystem for it.
pub(super) fn forget(bridges: &[BridgeSpec]) -> io::Result<usize> {
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
    let kernel = SocketAddrNetlink::new(0, 0);
    let ask = |bytes: &[u8]| rustix::net::sendto(&socket, bytes, SendFlags::empty(), &kernel);
    ask(&message(GET, REQUEST | DUMP, &[]))?;
    let mut stale = Vec::new();
    answers(&socket, |content| stale.extend(flow(content).filter(|flow| is_stale(flow, bridges))))?;
    for flow in &stale {
        ask(&message(DELETE, REQUEST | ACKNOWLEDGE, &flow.name))?;
        match answers(&socket, |_| {}) {
            // It ended by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            outcome => outcome?,
        }
    }
    Ok(stale.len())
}

/// Reads the messages of one answer.
fn answers(socket: &impl std::os::fd::AsFd, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some(size) = number(rest, 0, 4).filter(|size| (HEAD..=rest.len()).contains(size)) {
            let (whole, after) = rest.split_at(size);
            let content = &whole[HEAD..];
            match u16::from_ne_bytes([whole[4], whole[5]]) {
                DONE => return Ok(()),
                ERROR => {
                    let code = content.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => each(content),
            }
            rest = &after[(size.next_multiple_of(4) - size).min(after.len())..];
        }
    }
}

/// Reads a number in the machine's order.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + length)?;
    match length {
        2 => Some(usize::from(u16::from_ne_bytes(bytes.try_into().ok()?))),
        _ => usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok(),
    }
}

/// Writes a message about flows of IPv4.
fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEAD + FAMILY + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Number and sender: one question at a time on a socket of its own needs neither.
    bytes.extend([0; 8]);
    let [family, _] = AddressFamily::INET.as_raw().to_le_bytes();
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

/// Returns the attributes in some bytes: number, whole, content.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = number(bytes, 0, 2).filter(|length| (4..=bytes.len()).contains(length))?;
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & !FLAGS;
        let (whole, content) = (&bytes[..length.next_multiple_of(4).min(bytes.len())], &bytes[4..length]);
        bytes = &bytes[whole.len()..];
        Some((kind, whole, content))
    })
}

fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, ..)| *kind == wanted).map(|(.., content)| content)
}

fn port(protocol: &[u8], which: u16) -> Option<u16> {
    attribute(protocol, which)?.try_into().ok().map(u16::from_be_bytes)
}

/// Reads what the kernel says of a flow; `None`: it is none of datagrams over IPv4.
fn flow(content: &[u8]) -> Option<Flow> {
    let all = content.get(FAMILY..)?;
    let original = attribute(all, ORIGINAL)?;
    let protocol = attribute(original, PROTOCOL)?;
    if attribute(protocol, NUMBER)? != [17] {
        return None;
    }
    let address = attribute(attribute(original, ADDRESSES)?, DESTINATION)?;
    let address: [u8; 4] = address.try_into().ok()?;
    let reply = attribute(attribute(all, REPLY)?, PROTOCOL)?;
    let names = attributes(all).filter(|(kind, ..)| matches!(*kind, ORIGINAL | ID | ZONE));
    Some(Flow {
        address: Ipv4Addr::from(address),
        port: port(protocol, DESTINATION_PORT)?,
        given: port(reply, SOURCE_PORT)?,
        name: names.flat_map(|(_, whole, _)| whole).copied().collect(),
    })
}

/// Returns whether a flow would go another way if it began now.
fn is_stale(flow: &Flow, bridges: &[BridgeSpec]) -> bool {
    let bridge = bridges.iter().find(|spec| spec.subnet.contains(&flow.address) && spec.gateway != flow.address);
    bridge.is_some_and(|bridge| {
        // An address that is not the bridge's is that of a container here: what goes there is nobody's to rewrite.
        let declared = bridge.udp.get(&flow.port).filter(|_| bridge.addresses.contains(&flow.address));
        flow.given != declared.copied().unwrap_or(flow.port)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn bridge() -> BridgeSpec {
        BridgeSpec {
            bridge: "br-a".to_owned(),
            gateway: Ipv4Addr::new(10, 192, 1, 1),
            subnet: "10.192.1.0/24".parse().expect("a net"),
            vips: "10.192.1.128/25".parse().expect("a net"),
            addresses: vec![Ipv4Addr::new(10, 192, 1, 129), Ipv4Addr::new(10, 192, 1, 70)],
            lb_port: 1,
            udp: BTreeMap::from([(53, 4000)]),
            on_demand: false,
            dns_port: 2,
        }
    }

    #[test]
    fn a_flow_is_stale_when_it_would_go_another_way_now() {
        for (address, port, given, stale) in [
            ([10, 192, 1, 129], 53, 4000, false),
            ([10, 192, 1, 129], 53, 53, true),      // from before the rule
            ([10, 192, 1, 129], 53, 4001, true),    // an earlier listener's
            ([10, 192, 1, 129], 5000, 4001, true),  // no more declared
            ([10, 192, 1, 129], 5000, 5000, false), // never was
            ([10, 192, 1, 70], 53, 53, true),       // a pod that has moved away
            ([10, 192, 1, 71], 53, 4000, true),     // one that has come here
            ([10, 192, 1, 71], 53, 53, false),      // one that is here
            ([10, 192, 1, 1], 53, 5353, false),     // names
            ([10, 192, 2, 129], 53, 53, false),     // somebody else's
        ] {
            let flow = Flow { address: address.into(), port, given, name: Vec::new() };
            assert_eq!(is_stale(&flow, &[bridge()]), stale, "{flow:?}");
        }
    }

    /// What the kernel said of a datagram to 10.192.1.129, port 53, which was given port 4000.
    fn said() -> Vec<u8> {
        let attribute = |kind: u16, content: &[u8]| {
            let length = u16::try_from(content.len() + 4).expect("short").to_ne_bytes();
            let mut bytes = [length, kind.to_ne_bytes()].concat();
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let nested = |kind: u16, parts: &[Vec<u8>]| attribute(kind | 0x8000, &parts.concat());
        let direction = |kind: u16, to: [u8; 4], ports: [u16; 2]| {
            let addresses = [attribute(1, &[10, 192, 1, 5]), attribute(DESTINATION, &to)];
            let ports = ports.map(u16::to_be_bytes);
            let protocol = [attribute(NUMBER, &[17]), attribute(2, &ports[0]), attribute(3, &ports[1])];
            nested(kind, &[nested(ADDRESSES, &addresses), nested(PROTOCOL, &protocol)])
        };
        let original = direction(ORIGINAL, [10, 192, 1, 129], [40000, 53]);
        let reply = direction(REPLY, [10, 192, 1, 5], [4000, 40000]);
        [vec![2, 0, 0, 0], original, reply, attribute(3, &[0; 4]), attribute(ID, &[1, 2, 3, 4])].concat()
    }

    #[test]
    fn flows_are_read_and_named_as_the_kernel_writes_them() {
        let said = said();
        let found = flow(&said).expect("a flow");
        assert_eq!((found.address.octets(), found.port, found.given), ([10, 192, 1, 129], 53, 4000));
        let names: Vec<u16> = attributes(&found.name).map(|(kind, ..)| kind).collect();
        assert_eq!(names, [ORIGINAL, ID]);
        for end in 0..said.len() {
            let _nothing_or_less = flow(&said[..end]);
        }
        let tcp: Vec<u8> = said.iter().map(|byte| if *byte == 17 { 6 } else { *byte }).collect();
        assert_eq!(flow(&tcp), None);
    }
}
