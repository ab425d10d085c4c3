//! Bytes between two connections, both ways, until both ends are done. Each end is a socket or a stream to another host.
//!
//! A connection starts with copies through one buffer for each thread, so that an idle connection holds no memory of
//! ours. A direction that carries bulk changes to `splice(2)` through a pipe and gives the pipe back when the bulk is
//! over: 1.4 times the throughput at a third of the CPU on big bodies, nothing gained on small ones, and two
//! descriptors each. Between a socket and another host all is copied, because it is encrypted on the way. An end of data is passed on for each direction alone, a reset is passed on as a reset. There is no
//! idle time-out: databases keep connections for days; keepalive finds peers that are gone.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::endpoint::EndpointState;
use crate::host::sockets::{self, Pipe};
use crate::mesh::MeshStream;

/// Size of the buffer that a thread's connections share.
const BUFFER: usize = 64 * 1024;

/// A read of at least this many bytes is taken for a part of bulk.
const BULK_READ: usize = 16 * 1024;

/// Bulk in a row after which a direction takes a pipe.
const SPLICE_AFTER: usize = 64 * 1024;

/// A splice of fewer bytes is taken for small talk; so many in a row give the pipe back.
const SMALL_SPLICE: usize = 4 * 1024;
const SMALL_SPLICES: u32 = 8;

/// Reads of one direction before other tasks get their turn: at most 8 MiB, some milliseconds.
const ROUNDS: u32 = 32;

/// Empty pipes that a thread keeps for its next bulk.
const SPARE_PIPES: usize = 32;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// One end of a relay.
pub(super) trait End: AsyncRead + AsyncWrite + Unpin {
    /// Returns the socket, if it is a plain one.
    fn plain(&self) -> Option<&TcpStream>;

    /// Makes its close a reset.
    fn fail(&mut self);
}

impl End for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn fail(&mut self) {
        sockets::reset_on_close(self);
    }
}

impl End for MeshStream {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn fail(&mut self) {
        Self::fail(self);
    }
}

/// Moves bytes between `client` and `server` until both directions have ended, one side fails, or the endpoint's
/// connections are to be closed. Closes both: cleanly only when both ended cleanly, else with a reset.
pub(super) async fn relay(client: impl End, server: impl End, endpoint: &EndpointState) {
    let (up, down) = (Count::of(&endpoint.sent), Count::of(&endpoint.received));
    relay_counted(client, server, endpoint, up, down).await;
}

/// The same with counters of the caller's for what goes to `server`, and what comes from there.
pub(super) async fn relay_counted(
    mut client: impl End,
    mut server: impl End,
    endpoint: &EndpointState,
    sent: Count<'_>,
    received: Count<'_>,
) {
    let (mut up, mut down) = (Flow::default(), Flow::default());
    let mut closing = pin!(endpoint.closing().notified());
    let mut registered = false;
    let clean = std::future::poll_fn(|cx| {
        if !registered {
            // Once is enough: a task's waker stays the same, and the flag below is what counts.
            let _not_yet = closing.as_mut().poll(cx);
            registered = true;
        }
        if endpoint.is_closed() {
            return Poll::Ready(false);
        }
        let _progress = up.poll(cx, &mut client, &mut server, sent);
        let _progress = down.poll(cx, &mut server, &mut client, received);
        Flow::outcome(&up, &down)
    })
    .await;
    if !clean {
        client.fail();
        server.fail();
    }
}

/// Where the bytes of one direction are counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count<'a> {
    first: &'a AtomicU64,
    second: Option<&'a AtomicU64>,
}

impl<'a> Count<'a> {
    /// Once.
    pub(super) fn of(first: &'a AtomicU64) -> Self {
        Self { first, second: None }
    }

    /// In a second place too.
    pub(super) fn and(self, second: &'a AtomicU64) -> Self {
        Self { second: Some(second), ..self }
    }

    fn add(self, bytes: usize) {
        self.first.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(second) = self.second {
            second.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    phase: Phase,
    /// Read but not written yet, from `written` on.
    pending: Vec<u8>,
    written: usize,
    pipe: Option<Pipe>,
    bulk: usize,
    small_splices: u32,
}

/// How far a direction is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// The source has ended; what is left is to be written, then the end passed on.
    Ending,
    /// The end was passed on.
    Ended,
    /// The source failed.
    SourceLost,
    /// The target takes no more.
    TargetLost,
}

/// What went wrong, and on which side.
enum Failure {
    Source,
    Target,
}

impl Flow {
    /// Returns whether the connection is over, and if so whether cleanly.
    fn outcome(up: &Self, down: &Self) -> Poll<bool> {
        match (up.phase, down.phase) {
            (Phase::Ended, Phase::Ended) => Poll::Ready(true),
            (Phase::SourceLost, _) | (_, Phase::SourceLost) => Poll::Ready(false),
            // What the lost target had still sent (an early answer) is delivered first.
            (Phase::TargetLost, other) | (other, Phase::TargetLost)
                if matches!(other, Phase::Ended | Phase::TargetLost) =>
            {
                Poll::Ready(false)
            }
            _ => Poll::Pending,
        }
    }

    /// Moves what can be moved now. `Ready` when this direction is over.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut impl End, to: &mut impl End, count: Count<'_>) -> Poll<()> {
        match self.poll_moving(cx, from, to, count) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => self.phase = Phase::Ended,
            Poll::Ready(Err(Failure::Source)) => self.phase = Phase::SourceLost,
            Poll::Ready(Err(Failure::Target)) => self.phase = Phase::TargetLost,
        }
        self.give_back_pipe();
        Poll::Ready(())
    }

    fn poll_moving(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl End,
        to: &mut impl End,
        count: Count<'_>,
    ) -> Poll<Result<(), Failure>> {
        for _ in 0..ROUNDS {
            match self.phase {
                Phase::Ended => return Poll::Ready(Ok(())),
                Phase::SourceLost => return Poll::Ready(Err(Failure::Source)),
                Phase::TargetLost => return Poll::Ready(Err(Failure::Target)),
                Phase::Open | Phase::Ending => {}
            }
            ready!(self.poll_flush(cx, to)).map_err(|_| Failure::Target)?;
            if self.phase == Phase::Ending {
                return Pin::new(&mut *to).poll_shutdown(cx).map_err(|_| Failure::Target);
            }
            let moved = match &self.pipe {
                Some(_) => ready!(self.poll_splice(cx, from))?,
                None => ready!(self.poll_copy(cx, from, to))?,
            };
            if moved == 0 {
                self.phase = Phase::Ending;
            }
            count.add(moved);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was read before; `Ready` when nothing is left.
    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &mut impl End) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            self.written += ready!(Pin::new(&mut *to).poll_write(cx, &self.pending[self.written..]))?;
        }
        if !self.pending.is_empty() {
            (self.pending, self.written) = (Vec::new(), 0);
        }
        // What was encrypted may not be sent yet; to a plain socket this is nothing.
        ready!(Pin::new(&mut *to).poll_flush(cx))?;
        while let Some((pipe, to)) = self.pipe.as_mut().filter(|pipe| pipe.buffered() > 0).zip(to.plain()) {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || pipe.flush(to)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    result?;
                }
            }
        }
        if self.small_splices >= SMALL_SPLICES {
            self.small_splices = 0;
            self.give_back_pipe();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into the thread's buffer and writes from there; what the target does not take is kept.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl End,
        to: &mut impl End,
    ) -> Poll<Result<usize, Failure>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            let plain = from.plain().is_some() && to.plain().is_some();
            ready!(Pin::new(from).poll_read(cx, &mut buffer)).map_err(|_| Failure::Source)?;
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let written = match Pin::new(to).poll_write(cx, read) {
                Poll::Pending => 0,
                Poll::Ready(result) => result.map_err(|_| Failure::Target)?,
            };
            self.pending.extend_from_slice(&read[written..]);
            if plain {
                self.note_copy(read.len());
            }
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Fills the pipe, which is empty.
    fn poll_splice(&mut self, cx: &mut Context<'_>, from: &mut impl End) -> Poll<Result<usize, Failure>> {
        // There is no pipe but between plain sockets.
        let Some((pipe, from)) = self.pipe.as_mut().zip(from.plain()) else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(from.poll_read_ready(cx)).map_err(|_| Failure::Source)?;
            match from.try_io(Interest::READABLE, || pipe.fill(from)) {
                Ok(moved) => {
                    self.note_splice(moved);
                    return Poll::Ready(Ok(moved));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(Failure::Source)),
            }
        }
    }

    /// Takes a pipe when this direction carries bulk; out of descriptors it goes on copying and asks again later.
    fn note_copy(&mut self, read: usize) {
        self.bulk = if read >= BULK_READ { self.bulk + read } else { 0 };
        if self.bulk >= SPLICE_AFTER {
            self.bulk = 0;
            self.small_splices = 0;
            self.pipe = PIPES.with_borrow_mut(Vec::pop).or_else(|| Pipe::new().ok());
        }
    }

    /// Counts towards the return of the pipe, which waits for the flush of what was just moved.
    fn note_splice(&mut self, moved: usize) {
        self.small_splices = if moved < SMALL_SPLICE { self.small_splices + 1 } else { 0 };
    }

    fn give_back_pipe(&mut self) {
        let empty = self.pipe.take().filter(|pipe| pipe.buffered() == 0);
        PIPES.with_borrow_mut(|spare| {
            if spare.len() < SPARE_PIPES {
                spare.extend(empty);
            }
        });
    }
}
