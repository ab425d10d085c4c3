//! The client's connection, and how it is lent to the general path for a request.
//!
//! What is lent shows the bytes of one request only: what the client sent after its end stays for the next one, and that
//! the client has sent all that it will is no reason to withhold its answer. Writes are gathered until they are flushed,
//! so that head and body leave together.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::buffer::Buffer;
use super::chunked::Chunks;
use super::head::Body;
use super::held::{Held, LITTLE, Room};
use super::watch::{On, Over, Watch};
use crate::host::sockets;

/// Writes up to this size are gathered.
const GATHERED: usize = 16 * 1024;

/// Most bytes of later requests that are read ahead while one is served.
const READ_AHEAD: usize = 64 * 1024;

/// Time between two looks whether a client is still there of which nothing is read: a wait that is over before that costs nothing for it.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// A client's connection.
#[derive(Debug)]
pub(super) enum ClientIo {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted. Boxed: it is a kilobyte.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ClientIo {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Makes its close a reset: the client must not take what it got for all.
    pub(super) fn abort(&self) {
        sockets::reset_on_close(self.tcp());
    }

    /// Returns whether the client chose HTTP/2 when it began to speak TLS.
    pub(super) fn chose_http2(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2"))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// Up to where a borrower may read.
#[derive(Debug)]
pub(super) enum Fence {
    /// So many bytes, then a chunked body if there is one.
    Request { left: u64, chunks: Option<Chunks> },
    /// No end: another protocol is spoken, or may be.
    None,
}

impl Fence {
    /// Returns the fence around a request.
    pub(super) fn around(head: usize, body: Body) -> Self {
        let (length, chunks) = match body {
            Body::Length(length) => (length, None),
            Body::Chunked => (0, Some(Chunks::default())),
            Body::None | Body::UntilClose => (0, None),
        };
        Self::Request { left: head as u64 + length, chunks }
    }

    fn is_reached(&self) -> bool {
        match self {
            Self::Request { left, chunks } => *left == 0 && chunks.as_ref().is_none_or(Chunks::is_done),
            Self::None => false,
        }
    }

    /// Returns how many of `bytes` are within, and moves on by as many.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self::Request { left, chunks } = self else { return Ok(bytes.len()) };
        let first = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        *left -= first as u64;
        // A head is shown by itself: what is wrong with the body is to be answered.
        let Some(chunks) = chunks.as_mut().filter(|_| first == 0) else { return Ok(first) };
        chunks.follow(bytes).map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))
    }
}

/// Limits of time for what the client does while its connection is lent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For more of its request.
    pub(super) read: Duration,
    /// For it to take some of its answer.
    pub(super) write: Duration,
    /// Says for HTTP/2 whether a request is under way; while none is, `read` is the time for another one.
    pub(super) idle: Option<fn(&ProxyDigest) -> bool>,
    /// Whether an answer was cut off.
    pub(super) is_cut: fn(&ProxyDigest) -> bool,
}

/// A client's connection as the general path sees it.
pub(super) struct Lent {
    /// There until it is given back or dropped.
    io: Option<ClientIo>,
    /// Read but not yet shown, from `shown` on.
    unread: Buffer,
    shown: usize,
    fence: Fence,
    /// The client sends no more.
    has_ended: bool,
    gathered: Buffer,
    sent: usize,
    reading: Watch,
    writing: Watch,
    patience: Patience,
    room: Room,
    held: Held,
    is_http2: bool,
    visit: Arc<ProxyDigest>,
    socket: Arc<SocketDigest>,
    id: UniqueIDType,
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").field("fence", &self.fence).finish_non_exhaustive()
    }
}

/// What is lent, and how.
pub(super) struct Loan {
    pub(super) io: ClientIo,
    /// What was read of it already.
    pub(super) unread: Buffer,
    /// What counts that.
    pub(super) held: Held,
    pub(super) fence: Fence,
    pub(super) peer: SocketAddr,
    pub(super) watches: [Watch; 2],
    pub(super) patience: Patience,
    pub(super) room: Room,
    pub(super) is_http2: bool,
    /// What the connection is, for whoever serves a request of it.
    pub(super) visit: Arc<ProxyDigest>,
}

impl Lent {
    pub(super) fn new(loan: Loan) -> Self {
        let Loan { io, unread, mut held, fence, peer, watches, patience, room, is_http2, visit } = loan;
        let [reading, writing] = watches;
        held.force(unread.capacity());
        let socket = SocketDigest::from_raw_fd(io.tcp().as_raw_fd());
        let _first = socket.peer_addr.set(Some(peer.into()));
        Self {
            id: io.tcp().as_raw_fd(),
            io: Some(io),
            unread,
            shown: 0,
            fence,
            has_ended: false,
            gathered: Buffer::default(),
            sent: 0,
            reading,
            writing,
            patience,
            room,
            held,
            is_http2,
            visit,
            socket: Arc::new(socket),
        }
    }

    /// Gives the connection back with what was read after the request; `None` if a part of the request was not read, or
    /// of the answer not sent.
    pub(super) fn give_back(mut self) -> Option<(ClientIo, Buffer)> {
        if !self.fence.is_reached() || !self.gathered.is_empty() {
            return None;
        }
        self.unread.drain(..self.shown);
        if self.unread.is_empty() {
            self.unread.release();
        }
        Some((self.io.take()?, std::mem::take(&mut self.unread)))
    }

    fn io(&mut self) -> io::Result<Pin<&mut ClientIo>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Shows what was read before; `Ready` if there was any.
    fn show(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<bool> {
        let rest = &self.unread[self.shown..];
        let piece = &rest[..rest.len().min(buffer.remaining())];
        let within = self.fence.pass(piece)?;
        buffer.put_slice(&piece[..within]);
        self.shown += within;
        if self.shown == self.unread.len() {
            self.unread.release();
            self.shown = 0;
            self.count();
        }
        Ok(within > 0)
    }

    /// Counts what it holds.
    fn count(&mut self) {
        self.held.force(self.unread.capacity() + self.gathered.capacity());
    }

    /// Returns whether the thread would hold no more than `most` with so many bytes more of this.
    fn fits(&self, more: usize, most: usize) -> bool {
        self.held.fits(self.unread.capacity() + self.gathered.capacity() + more, most)
    }

    /// Reads ahead after the end of the request, to notice a client that is gone, while there is room. Never ready but then.
    fn poll_beyond(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.has_ended && self.unread.len() < READ_AHEAD && self.fits(LITTLE, self.room.begun) {
                let mut bytes = [MaybeUninit::uninit(); LITTLE];
                let mut beyond = ReadBuf::uninit(&mut bytes);
                ready!(self.io()?.poll_read(cx, &mut beyond))?;
                self.has_ended = beyond.filled().is_empty();
                if !self.has_ended {
                    self.unread.ready().extend_from_slice(beyond.filled());
                    self.count();
                }
            }
            // Its socket says nothing to who does not read.
            ready!(self.reading.poll_over(cx, LOOK, On::Nothing));
            if sockets::has_been_reset(self.io()?.tcp()) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
    }

    fn poll_within(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.io()?.poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        let within = self.fence.pass(read)?;
        if within < read.len() {
            self.unread.ready().extend_from_slice(&read[within..]);
            self.count();
        }
        buffer.set_filled(before + within);
        Poll::Ready(Ok(()))
    }

    /// Bounds the wait for the client's bytes; what is not HTTP/1 may be silent for as long as it likes.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_request = matches!(self.fence, Fence::Request { .. });
        let Some(limit) = is_request.then_some(self.patience.read).or(self.patience.idle.map(|_| self.patience.read))
        else {
            return Poll::Pending;
        };
        loop {
            let over = ready!(self.reading.poll_over(cx, limit, On::Nothing));
            let is_busy = self.patience.idle.is_some_and(|is_busy| is_busy(&self.visit));
            if over != Over::Time || !is_busy {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
            self.sent += ready!(Pin::new(io).poll_write(cx, &self.gathered[self.sent..]))?;
            self.writing.disarm();
        }
        self.gathered.release();
        self.sent = 0;
        self.count();
        Poll::Ready(Ok(()))
    }

    /// Bounds a wait for the client to take something.
    fn patiently<T>(&mut self, cx: &Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.writing.disarm();
            return outcome;
        }
        let over = self.writing.poll_over(cx, self.patience.write, On::Nothing);
        over.map(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let lent = self.get_mut();
        if lent.fence.is_reached() {
            return lent.poll_beyond(cx);
        }
        if lent.shown < lent.unread.len() && lent.show(buffer)? {
            return Poll::Ready(Ok(()));
        }
        let outcome = lent.poll_within(cx, buffer);
        if outcome.is_pending() {
            return lent.poll_patience(cx);
        }
        lent.reading.disarm();
        outcome
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let lent = self.get_mut();
        let most = if lent.fits(bytes.len().min(GATHERED), lent.room.bulk) { GATHERED } else { LITTLE };
        if lent.gathered.len() + bytes.len() > most {
            let sent = lent.poll_send(cx);
            ready!(lent.patiently(cx, sent))?;
        }
        if bytes.len() < most {
            lent.gathered.ready().extend_from_slice(bytes);
            lent.count();
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = lent.io()?.poll_write(cx, bytes);
        lent.patiently(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let lent = self.get_mut();
        let sent = match lent.poll_send(cx) {
            Poll::Ready(Ok(())) => lent.io()?.poll_flush(cx),
            other => other,
        };
        lent.patiently(cx, sent)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let lent = self.get_mut();
        let sent = match lent.poll_send(cx) {
            Poll::Ready(Ok(())) => lent.io()?.poll_shutdown(cx),
            other => other,
        };
        lent.patiently(cx, sent)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // What was cut off is sent as far as it goes: the client shall see that there was an answer.
        let mut cx = Context::from_waker(Waker::noop());
        let _as_far_as_it_goes = self.poll_send(&mut cx);
        let Some(io) = self.io.take() else { return };
        if (self.patience.is_cut)(&self.visit) {
            io.abort();
        } else if !self.is_http2 {
            tokio::spawn(close(io));
        }
    }
}

/// Bytes that are read of a client after the last answer, so that it reads that before it hears of the close.
const LINGER_BYTES: u64 = 256 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// Ends a connection so that the client reads all that was sent: closed with something unread it would be reset.
pub(super) async fn close(mut io: ClientIo) {
    let ending = async {
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _in_peace = tokio::time::timeout(LINGER, ending).await;
}

#[async_trait]
impl Shutdown for Lent {
    async fn shutdown(&mut self) {
        // A client that is gone is no matter.
        let _gone = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Lent {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl Ssl for Lent {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.is_http2.then_some(ALPN::H2)
    }
}

#[async_trait]
impl Peek for Lent {}

impl GetTimingDigest for Lent {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Lent {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.visit))
    }
}

impl GetSocketDigest for Lent {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket))
    }
}
