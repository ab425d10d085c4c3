//! The loops that take questions from sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::net::names::Answer;

use super::count::Origin;
use super::gate::Gate;
use super::memo::Memo;
use super::message::{Parsed, Protocol, Request, encode, parse};
use super::{CONNECTIONS, FORWARDS, Shared};

/// Longest UDP question that is read; real ones have less than 300 bytes.
const LONGEST_QUESTION: usize = 4096;

/// Questions taken from a socket before other tasks of the runtime have their turn.
const BATCH: usize = 64;

/// Time that a TCP client has for a whole question, and for taking its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause after a failure that is not the client's (out of descriptors, interface gone), so as not to spin.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a question of a container that the table does not know yet waits for a table that does. A container's first
/// questions come within milliseconds of its start, before the agent has seen its address.
const NEWCOMER: Duration = Duration::from_secs(1);

/// How often the table is looked at meanwhile.
const NEWCOMER_STEP: Duration = Duration::from_millis(10);

/// What becomes of a packet.
enum Outcome {
    /// Send this.
    Reply(Vec<u8>),
    /// Send this, and again to the same question of the same asker as long as the table is the same.
    Lasting(Vec<u8>),
    /// Say nothing.
    Ignore,
    /// It takes time.
    Later(Box<Request>),
}

/// Serves a UDP socket until the task is aborted.
pub(super) async fn udp(shared: Arc<Shared>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let gate = Gate::new(FORWARDS);
    let mut forwards = JoinSet::new();
    let mut memo = Memo::default();
    let mut buffer = [0; LONGEST_QUESTION];
    loop {
        if socket.readable().await.is_err() {
            sleep(PAUSE).await;
        }
        for _ in 0..BATCH {
            let (length, client) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    sleep(PAUSE).await;
                    break;
                }
            };
            let IpAddr::V4(source) = client.ip() else { continue };
            let question = &buffer[..length];
            if let Some(reply) = memo.reply(&shared.table.load(), source, question) {
                shared.counts.answer(Origin::Table, reply);
                send(&socket, reply, client).await;
                continue;
            }
            match shared.first_look(question, source, Protocol::Udp) {
                Outcome::Reply(reply) => send(&socket, &reply, client).await,
                Outcome::Lasting(reply) => {
                    send(&socket, &reply, client).await;
                    memo.keep(source, question, reply);
                }
                Outcome::Ignore => {}
                Outcome::Later(request) => {
                    let Some(pass) = gate.enter(source) else {
                        send(&socket, &shared.failure(&request), client).await;
                        continue;
                    };
                    // Weak: the socket is closed the moment this loop ends, whatever is still being forwarded.
                    let (shared, socket) = (Arc::clone(&shared), Arc::downgrade(&socket));
                    forwards.spawn(async move {
                        let reply = shared.take_time(&request, source).await;
                        if let Some(socket) = socket.upgrade() {
                            send(&socket, &reply, client).await;
                        }
                        drop(pass);
                    });
                }
            }
        }
        while forwards.try_join_next().is_some() {}
        tokio::task::yield_now().await;
    }
}

/// Sends a datagram. One that cannot be sent is lost, as datagrams may be: the client asks again.
async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    match socket.try_send_to(reply, client) {
        // Also what a new socket says before its first readiness event.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            drop(timeout(PAUSE, socket.send_to(reply, client)).await);
        }
        Ok(_) | Err(_) => {}
    }
}

/// Serves a TCP listener until the task is aborted.
pub(super) async fn tcp(shared: Arc<Shared>, listener: TcpListener) {
    let gate = Gate::new(CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let IpAddr::V4(source) = client.ip() else { continue };
        let Some(pass) = gate.enter(source) else { continue };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // A client that went away is nobody's fault.
            drop(connection(&shared, stream, source).await);
            drop(pass);
        });
    }
}

/// Answers the questions of one connection, one after another.
async fn connection(shared: &Shared, mut stream: TcpStream, source: Ipv4Addr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let question = timeout(PATIENCE, read_question(&mut stream)).await??;
        let reply = match shared.first_look(&question, source, Protocol::Tcp) {
            Outcome::Reply(reply) | Outcome::Lasting(reply) => reply,
            Outcome::Ignore => return Ok(()),
            Outcome::Later(request) => shared.take_time(&request, source).await,
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        timeout(PATIENCE, stream.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat())).await??;
    }
}

async fn read_question(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST_QUESTION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

impl Shared {
    /// Answers what can be answered at once.
    fn first_look(&self, packet: &[u8], source: Ipv4Addr, protocol: Protocol) -> Outcome {
        let request = match parse(packet, protocol) {
            Parsed::Request(request) => request,
            Parsed::Refuse(reply) => {
                self.counts.answer(Origin::Table, &reply);
                return Outcome::Reply(reply);
            }
            Parsed::Ignore => {
                self.counts.ignore();
                return Outcome::Ignore;
            }
        };
        let table = self.table.load();
        let answer = table.answer(source, &request.name, request.kind());
        if may_change(&answer, &request) && table.is_newcomer(source) && !self.strangers.contains(source) {
            return Outcome::Later(request);
        }
        let Answer::Forward { upstreams } = answer else {
            let reply = self.local(&request, &answer);
            return if lasts(&answer) { Outcome::Lasting(reply) } else { Outcome::Reply(reply) };
        };
        let resolvers = self.resolvers(upstreams);
        if resolvers.is_empty() {
            return Outcome::Reply(self.failure(&request));
        }
        match self.cached(&request, &resolvers) {
            Some(reply) => Outcome::Reply(reply),
            None => Outcome::Later(request),
        }
    }

    /// Answers what takes time: waits for a table that knows the asker where that may help, then asks resolvers.
    async fn take_time(&self, request: &Request, source: Ipv4Addr) -> Vec<u8> {
        let begin = Instant::now();
        loop {
            let table = self.table.load_full();
            let answer = table.answer(source, &request.name, request.kind());
            let wait = may_change(&answer, request) && table.is_newcomer(source) && !self.strangers.contains(source);
            if wait && begin.elapsed() < NEWCOMER {
                sleep(NEWCOMER_STEP).await;
                continue;
            }
            if wait {
                self.strangers.insert(source);
            }
            let Answer::Forward { upstreams } = answer else { return self.local(request, &answer) };
            let resolvers = self.resolvers(upstreams);
            return match self.cached(request, &resolvers) {
                Some(reply) => reply,
                None => self.forward(request, &resolvers).await,
            };
        }
    }

    fn local(&self, request: &Request, answer: &Answer<'_>) -> Vec<u8> {
        let rotation = self.rotation.fetch_add(1, Ordering::Relaxed);
        self.counted(Origin::Table, encode(request.local(answer, rotation), request))
    }

    /// Says that no resolver has an answer.
    pub(super) fn failure(&self, request: &Request) -> Vec<u8> {
        self.counted(Origin::Resolver, encode(request.failure(ResponseCode::ServFail), request))
    }

    pub(super) fn counted(&self, origin: Origin, reply: Vec<u8>) -> Vec<u8> {
        self.counts.answer(origin, &reply);
        reply
    }
}

/// Returns whether the same question of the same asker has this very answer as long as the table is the same.
fn lasts(answer: &Answer<'_>) -> bool {
    match answer {
        // Several are rotated.
        Answer::Addresses { addresses, .. } => addresses.len() == 1,
        Answer::Pointer { .. } | Answer::NoData { .. } => true,
        // A name may come to be known, or the asker.
        Answer::Services { .. } | Answer::NoName { .. } | Answer::Forward { .. } | Answer::Refused => false,
    }
}

/// Returns whether the answer may be another one once the asker is known: a link, or a name of another of its networks.
fn may_change(answer: &Answer<'_>, request: &Request) -> bool {
    match answer {
        Answer::NoName { .. } => true,
        Answer::Forward { .. } => !request.name.contains('.'),
        _ => false,
    }
}
