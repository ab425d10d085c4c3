//! The DNS server: listeners at the gateways of bridges, answering from the [`NameTable`], forwarding the rest.
//!
//! Start at [`DnsServer::listen`] and `serve.rs`. What a name means is decided in `net/names.rs`; here are only sockets,
//! messages, the forwarder and its cache. It must never answer anyone whom the table does not know (no open resolver),
//! never send more than it got in reply to what it cannot read, and never hold more than its bounds.
//!
//! **Tasks.** Each listener has two, one for UDP and one for TCP, on the runtime whose handle [`DnsServer::new`] was given.
//! They read the table and the resolvers as they are at each question, so both can be swapped while serving. Questions
//! that the table or the cache answers are answered in the UDP task itself; each forwarded question and each TCP
//! connection has a task of its own that ends with its listener. Dropping a [`DnsListener`] ends all of its tasks;
//! [`DnsListener::stop`] also waits until the port is free.
//!
//! **Bounds.** Per listener: [`FORWARDS`] forwarded questions at a time and [`CONNECTIONS`] TCP connections, of which one
//! source may have a quarter; more are answered `SERVFAIL` and closed respectively. A connection must send a question
//! every ten seconds. The cache of all listeners together holds at most 4096 answers and 4 MiB; each UDP
//! loop keeps 1024 answers of the present table at most, of 512 bytes at most (`memo.rs`).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::names::NameTable;

mod cache;
mod count;
mod forward;
mod gate;
mod memo;
mod message;
mod serve;
#[cfg(test)]
mod tests;
mod upstreams;

pub use count::{DnsStats, Origin, Said};
pub use upstreams::Upstreams;

/// Forwarded questions that one listener has open at most.
pub const FORWARDS: usize = 256;

/// TCP connections that one listener has open at most.
pub const CONNECTIONS: usize = 64;

/// How often a port for both protocols is looked for before giving up.
const PORT_ATTEMPTS: usize = 64;

/// Room for questions that wait while the server is busy: about 2000 of them.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Answers questions on any number of addresses.
#[derive(Debug, Clone)]
pub struct DnsServer {
    handle: Handle,
    shared: Arc<Shared>,
}

/// What all listeners have in common.
#[derive(Debug)]
struct Shared {
    table: Arc<ArcSwap<NameTable>>,
    upstreams: ArcSwap<Upstreams>,
    cache: cache::Cache,
    strangers: gate::Strangers,
    counts: count::Counts,
    /// Where the next answer with several addresses begins.
    rotation: AtomicUsize,
}

/// One address that is served until this is dropped.
#[derive(Debug)]
#[must_use = "dropping a listener closes it"]
pub struct DnsListener {
    address: SocketAddrV4,
    tasks: [JoinHandle<()>; 2],
}

impl DnsServer {
    /// Makes a server that runs its tasks on `handle` and reads names from `table`. It forwards nothing until
    /// [`DnsServer::set_upstreams`] is called.
    pub fn new(handle: Handle, table: Arc<ArcSwap<NameTable>>) -> Self {
        let shared = Shared {
            table,
            upstreams: ArcSwap::from_pointee(Upstreams::default()),
            cache: cache::Cache::default(),
            strangers: gate::Strangers::default(),
            counts: count::Counts::default(),
            rotation: AtomicUsize::new(0),
        };
        Self { handle, shared: Arc::new(shared) }
    }

    /// Sets the resolvers that unknown names are forwarded to, and forgets what others said if they changed.
    pub fn set_upstreams(&self, upstreams: Upstreams) {
        if *self.shared.upstreams.load_full() != upstreams {
            self.shared.upstreams.store(Arc::new(upstreams));
            self.shared.cache.clear();
        }
    }

    /// Returns how many answers all listeners gave so far.
    pub fn stats(&self) -> DnsStats {
        self.shared.counts.stats()
    }

    /// Begins to serve UDP and TCP on one port of `gateway`: `port_hint` if both are free there, else any port.
    ///
    /// # Errors
    /// The address is not one of the host's (`AddrNotAvailable`), or no port could be had.
    pub fn listen(&self, gateway: Ipv4Addr, port_hint: Option<u16>) -> io::Result<DnsListener> {
        let (udp, tcp) = match port_hint.map(|port| bind(SocketAddrV4::new(gateway, port))) {
            Some(Ok(sockets)) => sockets,
            Some(Err(error)) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
            Some(Err(_)) | None => bind_any(gateway)?,
        };
        let _runtime = self.handle.enter();
        let (udp, tcp) = (UdpSocket::from_std(udp.into())?, TcpListener::from_std(tcp.into())?);
        let address = SocketAddrV4::new(gateway, tcp.local_addr()?.port());
        let udp = self.handle.spawn(serve::udp(Arc::clone(&self.shared), udp));
        let tcp = self.handle.spawn(serve::tcp(Arc::clone(&self.shared), tcp));
        Ok(DnsListener { address, tasks: [udp, tcp] })
    }
}

impl DnsListener {
    /// Returns where it listens, for UDP and TCP alike.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Closes it and waits until its sockets are closed.
    pub async fn stop(mut self) {
        for task in &mut self.tasks {
            task.abort();
            // It was aborted or is done: either way its sockets are gone.
            drop(task.await);
        }
    }
}

impl Drop for DnsListener {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn bind_any(gateway: Ipv4Addr) -> io::Result<(Socket, Socket)> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match bind(SocketAddrV4::new(gateway, 0)) {
            // The kernel chose a UDP port that another program has for TCP.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < PORT_ATTEMPTS => {}
            result => return result,
        }
    }
}

/// Binds UDP, and TCP to the port that UDP got.
fn bind(address: SocketAddrV4) -> io::Result<(Socket, Socket)> {
    let udp = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    udp.set_nonblocking(true)?;
    // More than `net.core.rmem_max` is not granted, which is no error.
    udp.set_recv_buffer_size(RECEIVE_BUFFER)?;
    udp.bind(&address.into())?;
    let tcp = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    tcp.set_nonblocking(true)?;
    // Connections of the agent before a restart may be in TIME_WAIT on this port.
    tcp.set_reuse_address(true)?;
    tcp.bind(&udp.local_addr()?)?;
    tcp.listen(128)?;
    Ok((udp, tcp))
}
