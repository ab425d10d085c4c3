//! The ports that processes of this host listen on, but for this process.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::graph::Protocol;
use crate::place::Listening;

/// A line of these tables: local address, peer's address, state, inode. Source: Linux, `Documentation/networking/proc_net_tcp.rst`.
const TABLES: &[(&str, Protocol)] =
    &[("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)];

/// The kernel's word for a TCP socket that listens…
const LISTEN: &str = "0A";
/// …and for a UDP socket that is connected to nobody.
const UNCONNECTED: &str = "07";

/// Returns the ports that other processes of this host listen on. UDP sockets at ports that the kernel gives to clients
/// are not among them: they come and go.
///
/// # Errors
/// The kernel's tables cannot be read.
pub fn by_others() -> io::Result<BTreeSet<Listening>> {
    let own = own_sockets(Path::new("/proc/self/fd"))?;
    let clients = client_ports(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default());
    let mut found = BTreeSet::new();
    for (table, protocol) in TABLES {
        let file = match fs::File::open(Path::new("/proc/self/net").join(table)) {
            // No IPv6 on this host.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        for line in BufReader::new(file).lines().skip(1) {
            let Some(socket) = Socket::read(&line?) else { continue };
            if *protocol == Protocol::Tcp && socket.state != LISTEN {
                // Those that listen come first; there may be very many others.
                break;
            }
            let serves = match protocol {
                Protocol::Udp => socket.state == UNCONNECTED && !clients.contains(&socket.port),
                Protocol::Tcp | Protocol::Sctp => true,
            };
            if serves && !own.contains(&socket.inode) {
                found.insert(Listening { address: socket.address, port: socket.port, protocol: *protocol });
            }
        }
    }
    Ok(found)
}

/// Returns where processes listen for connections in the network that the process `pid` is in.
///
/// # Errors
/// The kernel's tables cannot be read: the process is gone.
pub fn inside(pid: u32) -> io::Result<BTreeSet<Listening>> {
    let mut found = BTreeSet::new();
    for (table, protocol) in TABLES.iter().filter(|(_, protocol)| *protocol == Protocol::Tcp) {
        let file = match fs::File::open(format!("/proc/{pid}/net/{table}")) {
            // No IPv6 there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && *table == "tcp6" => continue,
            file => file?,
        };
        for line in BufReader::new(file).lines().skip(1) {
            let Some(socket) = Socket::read(&line?) else { continue };
            if socket.state != LISTEN {
                // Those that listen come first; there may be very many others.
                break;
            }
            found.insert(Listening { address: socket.address, port: socket.port, protocol: *protocol });
        }
    }
    Ok(found)
}

/// The inodes of the sockets that this process has.
fn own_sockets(folder: &Path) -> io::Result<BTreeSet<u64>> {
    let mut own = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        // One that is closed meanwhile is nobody's.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        own.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
    Ok(own)
}

fn client_ports(text: &str) -> std::ops::RangeInclusive<u16> {
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 32768..=60999,
    }
}

/// One line of a table.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: Option<IpAddr>,
    port: u16,
    state: String,
    inode: u64,
}

impl Socket {
    fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = words.get(1)?.split_once(':')?;
        let address = address_of(address)?;
        Some(Self {
            // Whoever listens on all of IPv6 has IPv4 too, unless he says otherwise, which these tables do not tell.
            address: Some(address).filter(|address| *address != IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            port: u16::from_str_radix(port, 16).ok()?,
            state: (*words.get(3)?).to_owned(),
            inode: words.get(9)?.parse().ok()?,
        })
    }
}

/// Words of 32 bits in the machine's order.
fn address_of(text: &str) -> Option<IpAddr> {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let word = |text: &[u8; 8]| u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok();
    let words: Vec<u32> = words.iter().map(word).collect::<Option<_>>().filter(|_| rest.is_empty())?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => Some(IpAddr::V4(Ipv4Addr::from(four))),
        Err(_) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).to_canonical()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_kernels_tables_are_read() {
        let read = |line: &str| Socket::read(line).map(|socket| (socket.address, socket.port, socket.inode));
        let four =
            "   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   102        0 4711 1 0 100";
        assert_eq!(read(four), Some((Some("127.0.0.1".parse().expect("valid")), 5432, 4711)));
        let all = four.replace("0100007F", "00000000000000000000000000000000");
        assert_eq!(read(&all), Some((None, 5432, 4711)));
        let mapped = four.replace("0100007F", "0000000000000000FFFF00000100007F");
        assert_eq!(read(&mapped), Some((Some("127.0.0.1".parse().expect("valid")), 5432, 4711)));
        for wrong in ["", "sl local_address", "0: 0100007F 0 0A", "0: 01007F:1 0 0A 0 0 0 0 0 4711"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(client_ports("32768\t60999\n"), 32768..=60999);
        assert_eq!(client_ports("1024 2048"), 1024..=2048);
    }

    #[test]
    fn what_listens_in_the_network_of_a_process_is_found() {
        let local = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let all = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
        let found = inside(std::process::id()).expect("the tables");
        let at = |listener: &std::net::TcpListener| {
            let port = listener.local_addr().expect("an address").port();
            found.iter().find(|one| one.port == port).map(|one| one.address)
        };
        assert_eq!(at(&local), Some(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))));
        assert!(at(&all).is_some_and(|address| address.is_none_or(|address| address.is_unspecified())));
        assert!(inside(u32::MAX).is_err());
    }

    #[test]
    fn what_this_process_listens_on_is_not_among_them() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        assert!(by_others().expect("the tables").iter().all(|one| one.port != port));
        let sockets = own_sockets(Path::new("/proc/self/fd")).expect("a list");
        assert!(!sockets.is_empty());
    }
}
