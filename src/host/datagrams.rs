//! UDP sockets for the load balancer: shared by several threads, tied to an interface, and with the address that a
//! datagram was sent to. No call waits: what cannot be sent now is [`io::ErrorKind::WouldBlock`].
//!
//! The calls go to the kernel at once, not by way of a runtime's memory of what is ready: that knows nothing of a socket
//! that was just made, and the first datagram of each client would be lost to it.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Most bytes in a datagram, its length in the header of UDP less that header (RFC 768); IPv4's own limit is lower.
pub const LARGEST: usize = 65_527;

/// Bytes of datagrams that wait to be read, for sockets that many clients share. The kernel counts its own bookkeeping
/// too, some 800 bytes for a small datagram: the usual limit of 208 KiB would hold fewer than 300 of them.
const SHARED_BUFFER: usize = 4 << 20;

/// The same for a socket with one peer.
const OWN_BUFFER: usize = 1 << 20;

/// Room for the one control message that is asked for.
const CONTROL: usize = 64;

/// A datagram that was read into a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes of it.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// The address of this host that it was sent to.
    pub to: IpAddr,
}

/// Returns `count` sockets on one address, between which the kernel spreads clients (`SO_REUSEPORT`): all datagrams of one
/// client come to the same one. With `device` only what came in by that interface does.
///
/// Port 0 takes any free port, the same for all. The port is refused when any other socket of the machine has it.
///
/// # Errors
/// What the kernel said: `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`; `ENODEV` where there is no such interface.
pub fn bind_shared(address: SocketAddr, device: Option<&str>, count: usize) -> io::Result<Vec<UdpSocket>> {
    let first = open(address)?;
    first.bind_device(device.map(str::as_bytes))?;
    first.bind(&address.into())?;
    // After it is bound: with it, a port that somebody else shares would be taken for free.
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first.into()];
    for _ in 1..count {
        let another = open(address)?;
        another.bind_device(device.map(str::as_bytes))?;
        another.set_reuse_port(true)?;
        another.bind(&bound)?;
        sockets.push(another.into());
    }
    Ok(sockets)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    let on: libc::c_int = 1;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, on)?;
    } else {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, on)?;
    }
    grow(&socket, SHARED_BUFFER);
    Ok(socket)
}

/// Returns a socket that sends to `address`, and hears that one only.
///
/// # Errors
/// Out of descriptors, memory or ports; no route.
pub fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    grow(&socket, OWN_BUFFER);
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// Makes room for bursts, as far as that is allowed.
fn grow(socket: &Socket, bytes: usize) {
    let size = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    for forced in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        if set_option(socket, libc::SOL_SOCKET, forced, size).is_err() {
            // Without the right to it (`NET_ADMIN`) the host's limit holds.
            let allowed = if forced == libc::SO_RCVBUFFORCE { libc::SO_RCVBUF } else { libc::SO_SNDBUF };
            let _smaller = set_option(socket, libc::SOL_SOCKET, allowed, size);
        }
    }
}

#[expect(unsafe_code, reason = "socket2 has no such options")]
fn set_option(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the kernel reads `length` bytes of `value`, which outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Control messages of one datagram, aligned as the kernel writes and reads them.
#[repr(align(8))]
struct Control([u8; CONTROL]);

/// Reads one datagram. What does not fit into `buffer` is lost.
///
/// # Errors
/// `WouldBlock` when there is none.
#[expect(unsafe_code, reason = "neither socket2 nor rustix reads which address a datagram was sent to")]
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut to = None;
    let mut length = 0;
    // SAFETY: `try_init` gives a place for an address with its size. Every pointer of the message leads to memory that
    // outlives the call and is as large as said. Control messages are walked by libc's own macros within the length that
    // the kernel wrote, and each is read as what its level and type say, unaligned.
    let ((), from) = unsafe {
        SockAddr::try_init(|storage, size| {
            let mut message = MaybeUninit::<libc::msghdr>::zeroed().assume_init();
            message.msg_name = storage.cast();
            message.msg_namelen = *size;
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = CONTROL as _;
            let read = libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT);
            length = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
            *size = message.msg_namelen;
            let mut at = libc::CMSG_FIRSTHDR(&raw const message);
            while let Some(head) = at.as_ref() {
                match (head.cmsg_level, head.cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = libc::CMSG_DATA(at).cast::<libc::in_pktinfo>().read_unaligned();
                        to = Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr))));
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = libc::CMSG_DATA(at).cast::<libc::in6_pktinfo>().read_unaligned();
                        to = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                    }
                    _ => {}
                }
                at = libc::CMSG_NXTHDR(&raw const message, at);
            }
            Ok(())
        })
    }?;
    match (from.as_socket(), to) {
        (Some(from), Some(to)) => Ok(Received { length, from, to }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram without addresses")),
    }
}

/// Sends a datagram to `to` as from this host's address `from`.
///
/// # Errors
/// `WouldBlock` when the socket takes no more now; an address that the host no longer has.
#[expect(unsafe_code, reason = "neither socket2 nor rustix lets say from which address a datagram is sent")]
pub fn send_from(socket: &impl AsFd, bytes: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<()> {
    let address = SockAddr::from(to);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; CONTROL]);
    // SAFETY: every pointer of the message leads to memory that outlives the call and is as large as said; the kernel only
    // reads it. The control buffer has room for the larger of the two messages, and is written through libc's own macros.
    let sent = unsafe {
        let mut message = MaybeUninit::<libc::msghdr>::zeroed().assume_init();
        message.msg_name = address.as_ptr().cast_mut().cast();
        message.msg_namelen = address.len();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL as _;
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        let size = match from {
            IpAddr::V4(from) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: from.to_bits().to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                ((*head).cmsg_level, (*head).cmsg_type) = (libc::IPPROTO_IP, libc::IP_PKTINFO);
                libc::CMSG_DATA(head).cast::<libc::in_pktinfo>().write_unaligned(info);
                size_of::<libc::in_pktinfo>()
            }
            IpAddr::V6(from) => {
                let address = libc::in6_addr { s6_addr: from.octets() };
                let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
                ((*head).cmsg_level, (*head).cmsg_type) = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
                libc::CMSG_DATA(head).cast::<libc::in6_pktinfo>().write_unaligned(info);
                size_of::<libc::in6_pktinfo>()
            }
        };
        let size = libc::c_uint::try_from(size).unwrap_or_default();
        (*head).cmsg_len = libc::CMSG_LEN(size) as _;
        message.msg_controllen = libc::CMSG_SPACE(size) as _;
        libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a datagram to the peer of a connected socket.
///
/// # Errors
/// `WouldBlock` when the socket takes no more now; `ConnectionRefused` when the peer's host said of an earlier datagram
/// that nobody listens there, and then this one is not sent.
pub fn send(socket: &impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    rustix::net::send(socket, bytes, flags)?;
    Ok(())
}

/// Reads a datagram of the peer of a connected socket. What does not fit into `buffer` is lost.
///
/// # Errors
/// `WouldBlock` when there is none; `ConnectionRefused` when the peer's host said that nobody listens there.
pub fn hear(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (length, _) = rustix::net::recv(socket, buffer, rustix::net::RecvFlags::DONTWAIT)?;
    Ok(length)
}

/// How long the kernel remembers a flow of datagrams: what it rewrites on their way, it does for so long after the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Where all datagrams came within the first two seconds.
    pub short: Duration,
    /// Where it lasted longer, with datagrams both ways.
    pub lasting: Duration,
}

/// Returns how long the kernel remembers flows; its default where it does not say.
pub fn remembered() -> Remembered {
    let read = |name: &str, default: u64| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/netfilter/{name}"));
        let secs = text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(default);
        Duration::from_secs(secs)
    };
    Remembered { short: read("nf_conntrack_udp_timeout", 30), lasting: read("nf_conntrack_udp_timeout_stream", 120) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::namespace::{in_new_network, tool};

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// Reads what comes within a second.
    fn wait(socket: &UdpSocket, buffer: &mut [u8]) -> Received {
        let ready = rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN);
        let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut [ready], Some(&second)).expect("a socket"), 1, "a datagram");
        receive(socket, buffer).expect("a datagram")
    }

    #[test]
    fn answers_come_from_the_address_that_was_asked() {
        for (every, one) in [("0.0.0.0:0", "127.9.8.7"), ("[::]:0", "::1")] {
            let server = bind_shared(every.parse().expect("valid"), None, 1).expect("a free port").remove(0);
            let mut asked: SocketAddr = server.local_addr().expect("bound");
            asked.set_ip(one.parse().expect("valid"));
            let client = connect(asked).expect("a way there");
            let large = vec![7; 65_507];
            for content in [&b""[..], b"hello", &large] {
                send(&client, content).expect("room");
                let mut buffer = vec![0; LARGEST];
                let Received { length, from, to } = wait(&server, &mut buffer);
                assert_eq!((&buffer[..length], to, from), (content, asked.ip(), client.local_addr().expect("bound")));
                send_from(&server, &buffer[..length], to, from).expect("room");
                // It hears nobody else.
                assert_eq!(client.recv(&mut buffer).ok(), Some(content.len()));
            }
        }
    }

    #[test]
    fn one_client_stays_with_one_of_the_sockets_and_the_port_is_nobody_elses() {
        let sockets = bind_shared(ANY, None, 4).expect("a free port");
        let address = sockets[0].local_addr().expect("bound");
        assert_eq!(bind_shared(address, None, 1).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
        for _ in 0..20 {
            let client = connect(address).expect("a way there");
            (0..5).for_each(|_| send(&client, b"x").expect("room"));
            let heard: Vec<usize> = sockets
                .iter()
                .map(|socket| std::iter::from_fn(|| receive(socket, &mut [0; 8]).ok()).count())
                .filter(|count| *count > 0)
                .collect();
            assert_eq!(heard, [5]);
        }
    }

    #[test]
    fn nobody_there_is_told_by_the_next_call() {
        let gone = bind_shared(ANY, None, 1).expect("a free port").remove(0).local_addr().expect("bound");
        let client = connect(gone).expect("a way there");
        send(&client, b"x").expect("room");
        assert_eq!(send(&client, b"y").expect_err("refused").kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(receive(&client, &mut [0; 8]).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn only_what_comes_in_by_the_interface_is_heard() {
        in_new_network(|| {
            tool("ip link add orch0 type bridge");
            tool("ip addr add 10.9.0.1/24 dev orch0");
            tool("ip link set orch0 up");
            let socket = |device: Option<&str>| bind_shared("0.0.0.0:4000".parse().expect("valid"), device, 1);
            let other = socket(Some("orch0")).expect("there is one").remove(0);
            let own = socket(Some("lo")).expect("another interface's").remove(0);
            assert!(socket(Some("orch9")).is_err(), "no such interface");
            // What a host sends to itself counts as by the interface that has the address.
            for (hears, silent, address) in [(&own, &other, [127, 0, 0, 1]), (&other, &own, [10, 9, 0, 1])] {
                let client = connect(SocketAddr::from((address, 4000))).expect("a way there");
                send(&client, b"x").expect("room");
                assert_eq!(wait(hears, &mut [0; 8]).to, IpAddr::from(address));
                assert!(receive(silent, &mut [0; 8]).is_err());
            }
        });
    }

    #[test]
    fn the_kernel_says_how_long_it_remembers() {
        let Remembered { short, lasting } = remembered();
        assert!(!short.is_zero() && lasting >= short);
    }
}
