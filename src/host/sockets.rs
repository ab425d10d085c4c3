//! Socket options that the load balancer needs from Linux: shared listeners, original destinations, keepalive, resets,
//! pipes for `splice(2)`, what became of sent data. It must never wait for anything.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that the kernel completes ahead of `accept`, for each socket of a listener.
///
/// The kernel lowers it to `net.core.somaxconn` (4096 since Linux 5.4). When it is full, the kernel drops SYNs and
/// clients send them again, first after one second.
const BACKLOG: i32 = 4096;

/// Silence after which a peer is asked whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered questions that end the connection: a host that died silently is noticed after 30 + 6 × 10 seconds.
const KEEPALIVE_PROBES: u32 = 6;

/// The same for connections to other hosts' agents: one that died silently is noticed after 1 + 2 × 1 seconds.
const PEER_KEEPALIVE: Duration = Duration::from_secs(1);
const PEER_KEEPALIVE_PROBES: u32 = 2;

/// Repeats of a segment, or questions to a peer whose window is closed, without any answer after which the peer is
/// dead: the kernel sends them 0.2, 0.4, 0.8, 1.6 … seconds apart, so that about three seconds have passed.
const DEAD_AFTER: u8 = 4;

/// Bytes asked for in a pipe. Beyond a limit per user (`fs.pipe-user-pages-soft`) the kernel gives less, which only costs speed.
const PIPE_SIZE: usize = 256 * 1024;

/// Whether a listener's address must exist when it is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindTo {
    /// It must: an address that the user wrote.
    Present,
    /// It may come and go (`IP_FREEBIND`): a bridge that is made later, or made anew.
    Any,
}

/// Returns `count` listening sockets on one address, between which the kernel spreads new connections (`SO_REUSEPORT`).
///
/// Port 0 takes any free port, the same for all. Unlike plain `SO_REUSEPORT`, the port is refused when any other
/// socket of the machine listens there, even one that would share it: the first socket is bound before it takes the
/// option. Accepted connections inherit `TCP_NODELAY` and keepalive, which saves five system calls for each.
///
/// # Errors
/// What `bind` or `listen` said: `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`.
pub fn listen_shared(address: SocketAddr, bind_to: BindTo, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let first = listener(address, bind_to, Sharing::AfterBind)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(listener(bound, bind_to, Sharing::BeforeBind)?);
    }
    Ok(sockets)
}

/// When a socket takes `SO_REUSEPORT`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    BeforeBind,
    AfterBind,
}

fn listener(address: SocketAddr, bind_to: BindTo, sharing: Sharing) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if bind_to == BindTo::Any && address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    }
    if sharing == Sharing::BeforeBind {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    if sharing == Sharing::AfterBind {
        socket.set_reuse_port(true)?;
    }
    keep_alive(&socket)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Returns a TCP socket, not yet connected, that does not wait, for a connection to `address`.
///
/// # Errors
/// Out of descriptors or memory.
pub fn client(address: SocketAddr) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    keep_alive(&socket)?;
    Ok(socket.into())
}

/// Sets `TCP_NODELAY` and keepalive, which listeners pass on to what they accept.
fn keep_alive(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES),
    )
}

/// Makes the kernel ask an idle peer every second whether it is still there: silence ends the connection after three.
///
/// Data that is on its way is [`delivery`]'s matter. `TCP_USER_TIMEOUT` would do for both, but it also ends a
/// connection whose peer is alive and has only stopped reading for so long (Linux, `tcp_probe_timer`): a client that
/// pauses a download would lose it.
///
/// # Errors
/// It is no TCP socket.
pub fn notice_dead_peer(stream: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(PEER_KEEPALIVE)
            .with_interval(PEER_KEEPALIVE)
            .with_retries(PEER_KEEPALIVE_PROBES),
    )
}

/// What became of the data sent on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// All has arrived.
    Done,
    /// Some is on its way, or waits for a peer that takes no more at present.
    Pending,
    /// The peer does not answer.
    Dead,
}

/// Returns what became of the data sent so far (`TCP_INFO`).
///
/// # Errors
/// It is no TCP socket.
#[expect(unsafe_code, reason = "rustix and socket2 have no TCP_INFO")]
pub fn delivery(stream: &impl AsFd) -> io::Result<Delivery> {
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or_default();
    let fd = stream.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes into `info`, which is as long and outlives the call.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers only, and all were zero before the kernel wrote.
    let info = unsafe { info.assume_init() };
    let mut unsent: libc::c_int = 0;
    // SAFETY: the kernel writes one integer. SIOCOUTQ counts what is not acknowledged, sent or not.
    let asked = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut unsent) };
    Ok(if info.tcpi_retransmits >= DEAD_AFTER || info.tcpi_probes >= DEAD_AFTER {
        Delivery::Dead
    } else if asked == 0 && unsent == 0 {
        Delivery::Done
    } else {
        Delivery::Pending
    })
}

/// Returns where a connection was going before a packet filter's REDIRECT brought it here (`SO_ORIGINAL_DST`).
///
/// # Errors
/// `NotFound` when the connection was not redirected and is not tracked.
pub fn original_destination(stream: &impl AsFd) -> io::Result<SocketAddrV4> {
    Ok(rustix::net::sockopt::ip_original_dst(stream)?)
}

/// Makes the next close of `stream` a reset (`SO_LINGER` 0): the peer gets an error, not an end of data.
pub fn reset_on_close(stream: &impl AsFd) {
    // It fails only on a descriptor that is no socket; then there is nobody to tell.
    let _unset = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Ends the sending direction: the peer reads what was sent and then the end.
///
/// # Errors
/// `NotConnected` when the peer has reset the connection.
pub fn shutdown_write(stream: &impl AsFd) -> io::Result<()> {
    SockRef::from(stream).shutdown(std::net::Shutdown::Write)
}

/// Ends both directions: whoever holds the socket, by whatever descriptor, reads an end and can send no more.
///
/// # Errors
/// `NotConnected` when it has ended already.
pub fn shutdown(stream: &impl AsFd) -> io::Result<()> {
    SockRef::from(stream).shutdown(std::net::Shutdown::Both)
}

/// Returns whether the other side sends no more, or is gone altogether; also while something that it sent is unread.
pub fn has_hung_up(stream: &impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut looked_at = [PollFd::new(stream, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut looked_at, Some(&at_once)).is_ok_and(|found| found > 0)
}

/// Returns whether the connection is over in both directions: reset by the other side, or failed.
pub fn has_been_reset(stream: &impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // These two are told whatever is asked for.
    let mut looked_at = [PollFd::new(stream, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_found = poll(&mut looked_at, Some(&at_once)).is_ok_and(|found| found > 0);
    is_found && looked_at[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Returns whether an error means that a limit on descriptors or memory is reached, so that trying at once is useless.
pub fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

/// Returns whether an error means that the machine has no IPv6: compiled out, or switched off.
pub fn is_family_missing(error: &io::Error) -> bool {
    let missing = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| missing.contains(&errno))
}

/// Returns how many descriptors this process may open, after raising the soft limit to the hard one.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

/// A pipe between two sockets: `splice(2)` moves pages through it without copying them into this process.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    buffered: usize,
}

impl Pipe {
    /// Makes an empty pipe.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller pipe works as well.
        let _smaller = rustix::pipe::fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Self { read, write, buffered: 0 })
    }

    /// Returns how many bytes are in it.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// Moves what `source` has into the pipe; 0 is its end.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has nothing (call this on an empty pipe only: a full one looks the same).
    pub fn fill(&mut self, source: &impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let moved = rustix::pipe::splice(source, None, &self.write, None, PIPE_SIZE, flags)?;
        self.buffered += moved;
        Ok(moved)
    }

    /// Moves what is in the pipe to `target`, as far as it goes.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes nothing.
    pub fn flush(&mut self, target: &impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let moved = rustix::pipe::splice(&self.read, None, target, None, self.buffered, flags)?;
        self.buffered -= moved;
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn sockets_of_one_listener_share_a_port_that_others_cannot_take() {
        let sockets = listen_shared(ANY, BindTo::Present, 3).expect("a free port");
        let address = sockets[0].local_addr().expect("bound");
        assert!(sockets.iter().all(|socket| socket.local_addr().is_ok_and(|own| own == address)));
        let error = listen_shared(address, BindTo::Present, 1).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_address_that_is_not_there_is_refused_unless_it_may_come() {
        let absent: SocketAddr = "192.0.2.1:0".parse().expect("an address");
        let error = listen_shared(absent, BindTo::Present, 1).expect_err("no such address");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert!(listen_shared(absent, BindTo::Any, 2).is_ok());
    }

    #[test]
    fn both_sides_of_a_connection_have_keepalive_and_no_delay() {
        let sockets = listen_shared(ANY, BindTo::Present, 1).expect("a free port");
        sockets[0].set_nonblocking(false).expect("a socket");
        let made = TcpStream::connect(sockets[0].local_addr().expect("bound")).expect("listens");
        let (accepted, _) = sockets[0].accept().expect("connected");
        let client = client(ANY).expect("a socket");
        for socket in [SockRef::from(&accepted), SockRef::from(&client)] {
            assert!(socket.tcp_nodelay().expect("a socket") && socket.keepalive().expect("a socket"));
            assert_eq!(socket.tcp_keepalive_time().expect("a socket"), KEEPALIVE_IDLE);
            assert_eq!(socket.tcp_keepalive_interval().expect("a socket"), KEEPALIVE_INTERVAL);
            assert_eq!(socket.tcp_keepalive_retries().expect("a socket"), KEEPALIVE_PROBES);
        }
        drop(made);
    }

    #[test]
    fn limits_are_told_from_other_errors() {
        for (errno, exhausted, no_family) in [
            (Errno::MFILE, true, false),
            (Errno::NFILE, true, false),
            (Errno::NOBUFS, true, false),
            (Errno::CONNREFUSED, false, false),
            (Errno::AFNOSUPPORT, false, true),
            (Errno::ADDRNOTAVAIL, false, true),
            (Errno::ADDRINUSE, false, false),
        ] {
            let error = io::Error::from(errno);
            assert_eq!((is_exhausted(&error), is_family_missing(&error)), (exhausted, no_family), "{errno:?}");
        }
    }

    #[test]
    fn a_pipe_moves_bytes_between_sockets() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind(ANY).expect("a free port");
        let connect = || {
            let made = TcpStream::connect(listener.local_addr().expect("bound")).expect("listens");
            (made, listener.accept().expect("connected").0)
        };
        let ((mut source, from), (to, mut target)) = (connect(), connect());
        source.write_all(b"through the pipe").expect("open");
        let mut pipe = Pipe::new().expect("a pipe");
        assert_eq!(pipe.fill(&from).expect("sent"), 16);
        assert_eq!((pipe.flush(&to).expect("open"), pipe.buffered()), (16, 0));
        drop(source);
        assert_eq!(pipe.fill(&from).expect("the end"), 0);
        shutdown_write(&to).expect("open");
        let mut text = String::new();
        target.read_to_string(&mut text).expect("the end is passed on");
        assert_eq!(text, "through the pipe");
    }
}
