//! Asking resolvers: UDP with a fresh port and id each time, TCP where the answer was truncated, one after another.

use std::hash::BuildHasher as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Shared;
use super::cache::Key;
use super::count::Origin;
use super::message::{Request, encode};

/// Time for one resolver before the next is asked.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// Time for all of it: glibc and musl ask again after five seconds.
const TOTAL: Duration = Duration::from_millis(4500);

/// How often the list is gone through.
const ROUNDS: usize = 2;

/// Largest UDP answer that is asked for.
const UDP_PAYLOAD: u16 = 1232;

/// A longer datagram than a resolver may send; one that fills it is asked for again by TCP.
const LONGEST_DATAGRAM: usize = 4096;

/// What a resolver said.
struct Reply {
    bytes: Vec<u8>,
    /// `None`: the codec could not read it; the client may.
    message: Option<Message>,
}

impl Shared {
    /// Returns whom to ask: the container's own resolvers, else the host's.
    pub(super) fn resolvers(&self, own: &Arc<[SocketAddr]>) -> Arc<[SocketAddr]> {
        if own.is_empty() { Arc::clone(self.upstreams.load().addresses()) } else { Arc::clone(own) }
    }

    /// Returns the answer if it is known already.
    pub(super) fn cached(&self, request: &Request, resolvers: &Arc<[SocketAddr]>) -> Option<Vec<u8>> {
        let message = self.cache.get(&Key::new(request, resolvers))?;
        Some(self.counted(Origin::Cache, encode(for_client(message, request), request)))
    }

    /// Asks the resolvers and returns the answer for the client; `SERVFAIL` where none has one.
    pub(super) async fn forward(&self, request: &Request, resolvers: &Arc<[SocketAddr]>) -> Vec<u8> {
        let reply = timeout(TOTAL, self.ask_all(request, resolvers)).await.ok().flatten();
        let Some(Reply { mut bytes, message }) = reply else {
            return self.failure(request);
        };
        let Some(message) = message else {
            bytes[..2].copy_from_slice(&request.id.to_be_bytes());
            let fits = bytes.len() <= request.limit();
            return self.counted(Origin::Resolver, if fits { bytes } else { encode(truncated(request), request) });
        };
        self.cache.put(Key::new(request, resolvers), &bytes, &message);
        self.counted(Origin::Resolver, encode(for_client(message, request), request))
    }

    /// Asks one resolver after another, beginning with the one that answered last, until one has an answer. What the last
    /// one said stands where none has.
    async fn ask_all(&self, request: &Request, resolvers: &Arc<[SocketAddr]>) -> Option<Reply> {
        let host = self.upstreams.load_full();
        let is_host = Arc::ptr_eq(host.addresses(), resolvers);
        let first = if is_host { host.preferred() } else { 0 };
        let mut last = None;
        for step in 0..resolvers.len() * ROUNDS {
            let index = (first + step) % resolvers.len();
            let Ok(Ok(reply)) = timeout(ATTEMPT, ask(request, resolvers[index])).await else { continue };
            let code = reply.message.as_ref().map(|message| message.metadata.response_code);
            if matches!(code, Some(ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp)) {
                last = Some(reply);
                if step + 1 >= resolvers.len() {
                    break; // all were heard or timed out: asking again brings nothing new
                }
                continue;
            }
            if is_host {
                host.prefer(index);
            }
            return Some(reply);
        }
        last
    }
}

/// Asks one resolver.
async fn ask(request: &Request, resolver: SocketAddr) -> io::Result<Reply> {
    let question = question(request)?;
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(&question).await?;
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = accept(&buffer[..length], &question) {
            let truncated = buffer[2] & 0x02 != 0 || length == LONGEST_DATAGRAM;
            return if truncated { ask_tcp(resolver, &question).await } else { Ok(reply) };
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, question: &[u8]) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    accept(&bytes, question).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Writes the question as ours: a new id, and none of the client's EDNS options (cookies, its subnet).
fn question(request: &Request) -> io::Result<Vec<u8>> {
    let mut message = Message::new(random_id(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.authentic_data = request.authentic_data;
    message.metadata.checking_disabled = request.checking_disabled;
    message.queries.push(request.query.clone());
    message.edns = request.edns.map(|client| {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(client.dnssec_ok);
        edns
    });
    message.to_vec().map_err(io::Error::other)
}

/// Returns the reply if it is one to this question. Anything else may come from somebody who guesses.
fn accept(bytes: &[u8], question: &[u8]) -> Option<Reply> {
    let header = bytes.first_chunk::<12>()?;
    // Our id, a response to a query, one question: the one that was asked.
    let ours = header[..2] == *question.first_chunk::<2>()? && header[2] & 0xf8 == 0x80 && header[4..6] == [0, 1];
    let (name, kind) = asked(question)?;
    let (reply_name, reply_kind) = asked(bytes)?;
    if !ours || kind != reply_kind || !name.eq_ignore_ascii_case(reply_name) {
        return None;
    }
    Some(Reply { bytes: bytes.to_vec(), message: Message::from_vec(bytes).ok() })
}

/// Returns a message's question as it is written: name, then type and class.
fn asked(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let question = message.get(12..)?;
    let mut end = 0;
    loop {
        match usize::from(*question.get(end)?) {
            0 => break,
            length if length < 64 => end += length + 1,
            _ => return None, // a pointer: there is nothing that a first name could point to
        }
    }
    Some((question.get(..=end)?, question.get(end + 1..end + 5)?))
}

/// Makes a resolver's answer one to the client's question.
fn for_client(from: Message, request: &Request) -> Message {
    let mut message = request.empty();
    message.metadata.response_code = from.metadata.response_code;
    let dnssec_ok = request.edns.is_some_and(|edns| edns.dnssec_ok);
    message.metadata.authentic_data = from.metadata.authentic_data && (request.authentic_data || dnssec_ok);
    message.answers = from.answers;
    message.authorities = from.authorities;
    message.additionals = from.additionals;
    message
}

fn truncated(request: &Request) -> Message {
    let mut message = request.empty();
    message.metadata.truncation = true;
    message
}

/// Returns a number that an outsider cannot foresee: the hasher's keys are random.
fn random_id() -> u16 {
    let hash = std::hash::RandomState::new().hash_one(0_u8).to_ne_bytes();
    u16::from_ne_bytes([hash[0], hash[1]])
}
