//! Reads and writes with limits of time, and the way of an answer's body through the fast path.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::Limits;
use super::buffer::Buffer;
use super::chunked::{BadChunk, Chunks};
use super::head::Body;
use super::held::{Held, LITTLE, Room, is_full};
use super::stream::ClientIo;
use super::watch::{On, Over, Watch};
use crate::host::sockets;

/// Size of the buffer that the connections of a thread share for what may be long in coming.
const SHARED: usize = 16 * 1024;

/// Size of the buffer that a body has of its own while it is bulk, and a read that is taken for a part of bulk.
const BULK: usize = 64 * 1024;
const BULK_READ: usize = 8 * 1024;

thread_local!(static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SHARED]));

/// Why a read or a write failed.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection failed.
    Failed,
    /// It was not waited any longer.
    Over(Over),
}

impl From<io::Error> for Lost {
    fn from(_: io::Error) -> Self {
        Self::Failed
    }
}

impl From<Over> for Lost {
    fn from(over: Over) -> Self {
        Self::Over(over)
    }
}

/// Reads what may be long in coming: the wait holds no buffer. Returns how many bytes came, few where `most` are held; 0 is the end.
pub(super) async fn receive_late(
    from: &mut (impl AsyncRead + Unpin),
    into: &mut Buffer,
    watch: &mut Watch,
    limit: Duration,
    on: On<'_>,
    most: usize,
) -> Result<usize, Lost> {
    let poll = |cx: &mut Context<'_>| {
        SCRATCH.with_borrow_mut(|scratch| {
            let size = if is_full(most) { LITTLE } else { SHARED };
            let mut buffer = ReadBuf::new(&mut scratch[..size]);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
            if !buffer.filled().is_empty() {
                into.ready().extend_from_slice(buffer.filled());
            }
            Poll::Ready(io::Result::Ok(buffer.filled().len()))
        })
    };
    Ok(watch.wait(limit, on, poll).await??)
}

/// Reads into the room that `into` has. Returns how many bytes came; 0 is the end.
pub(super) async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    into: &mut Vec<u8>,
    watch: &mut Watch,
    limit: Duration,
    on: On<'_>,
) -> Result<usize, Lost> {
    Ok(watch.wait(limit, on, |cx| poll_read_buf(Pin::new(&mut *from), cx, into)).await??)
}

/// Writes all of `bytes`, each part within `limit`.
pub(super) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    watch: &mut Watch,
    limit: Duration,
    on: On<'_>,
) -> Result<(), Lost> {
    let mut sent = 0;
    while sent < bytes.len() {
        sent += watch.wait(limit, on, |cx| Pin::new(&mut *to).poll_write(cx, &bytes[sent..])).await??;
    }
    Ok(watch.wait(limit, on, |cx| Pin::new(&mut *to).poll_flush(cx)).await??)
}

/// How far the body of an answer was followed.
#[derive(Debug)]
pub(super) enum Following {
    Length(u64),
    Chunks(Chunks),
    UntilClose,
}

impl Following {
    pub(super) fn new(body: Body) -> Self {
        match body {
            Body::None => Self::Length(0),
            Body::Length(length) => Self::Length(length),
            Body::Chunked => Self::Chunks(Chunks::default()),
            Body::UntilClose => Self::UntilClose,
        }
    }

    /// Returns whether all has come. One that ends with the connection never has.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunks(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Returns how many of `bytes` belong to it.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        match self {
            Self::Length(left) => {
                let within = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= within as u64;
                Ok(within)
            }
            Self::Chunks(chunks) => chunks.follow(bytes),
            Self::UntilClose => Ok(bytes.len()),
        }
    }
}

/// What became of the rest of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// All of it went to the client.
    Whole {
        /// Whether the pod's connection may be used again.
        is_clean: bool,
    },
    /// The pod broke it off, or what it sent makes no sense.
    Broken,
    /// The client is gone.
    ClientGone,
}

/// Passes on the rest of a body, whatever time it takes. Counts what was received in `received`.
///
/// Streams of events are silent for as long as they like, but not for a client that has ended its side: it may have gone
/// without another word, and the pod would go on for nobody.
pub(super) async fn pass_on(
    server: &mut (impl AsyncRead + Unpin),
    client: &mut ClientIo,
    body: &mut Following,
    watch: &mut Watch,
    (limits, room): (Limits, Room),
    endpoint: &Arc<crate::lb::endpoint::EndpointState>,
    received: &mut u64,
) -> Passed {
    let Limits { write, idle, .. } = limits;
    let mut held = Held::default();
    let mut buffer = Buffer::default();
    let mut last = 0;
    let mut is_clean = true;
    while !body.is_done() {
        buffer.clear();
        let on = On::Endpoint(endpoint);
        // Looked at for each part anew: what finds no room any more gives its buffer back.
        let outcome = if last >= BULK_READ && held.fits(BULK, room.bulk) {
            held.force(BULK);
            buffer.reserve(BULK);
            receive(server, &mut buffer, watch, idle, on).await
        } else {
            buffer.release();
            held.clear();
            receive_late(server, &mut buffer, watch, idle, on, room.bulk).await
        };
        last = match outcome {
            Err(Lost::Over(Over::Time)) if sockets::has_hung_up(client.tcp()) => return Passed::ClientGone,
            Err(Lost::Over(Over::Time)) => 0,
            Ok(0) if matches!(body, Following::UntilClose) => return Passed::Whole { is_clean: false },
            Ok(0) | Err(_) => return Passed::Broken,
            Ok(read) => read,
        };
        if last == 0 {
            continue;
        }
        *received += last as u64;
        held.force(buffer.capacity());
        let Ok(within) = body.follow(&buffer) else { return Passed::Broken };
        is_clean &= within == last;
        if send(client, &buffer[..within], watch, write, On::Nothing).await.is_err() {
            return Passed::ClientGone;
        }
    }
    Passed::Whole { is_clean }
}
