//! The TCP side of a TLS connection: reads ahead when bulk comes, and sees when the peer is dead.
//!
//! rustls reads at most 4 KiB at a time. While reads come out full, this reads 64 KiB and hands on pieces: a sixteenth
//! of the system calls. The buffer is there only while bulk flows.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes read ahead.
const AHEAD: usize = 64 * 1024;

/// A read that fills at least this much is taken for a part of bulk.
const BULK: usize = 4096;

/// A TCP connection to another agent.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    ahead: Vec<u8>,
    taken: usize,
    bulk: bool,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, ahead: Vec::new(), taken: 0, bulk: false }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let left = &self.ahead[self.taken..];
        let piece = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..piece]);
        self.taken += piece;
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.taken < this.ahead.len() {
            this.give(buffer);
            return Poll::Ready(Ok(()));
        }
        this.taken = 0;
        if !this.bulk {
            this.ahead = Vec::new();
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.tcp).poll_read(cx, buffer))?;
            this.bulk = buffer.filled().len() - before >= BULK;
            return Poll::Ready(Ok(()));
        }
        this.ahead.resize(AHEAD, 0);
        let mut ahead = ReadBuf::new(&mut this.ahead);
        let outcome = Pin::new(&mut this.tcp).poll_read(cx, &mut ahead);
        let read = ahead.filled().len();
        this.ahead.truncate(read);
        this.bulk = read >= BULK;
        ready!(outcome)?;
        this.give(buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
