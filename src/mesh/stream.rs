//! A TLS connection between two agents, and the one stream that it carries at a time.
//!
//! A stream that ended cleanly on both sides leaves its connection fit for the next: dropping it gives the connection
//! back to where it came from. A stream that is dropped before that resets, and its connection ends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsStream;

use super::pool::Home;
use super::socket::Socket;
use super::wire::{Frame, HEAD, MAX_DATA, head, parse_head};
use crate::host::sockets::{self, Delivery};
use crate::ids::HostName;

/// Time between two looks at whether what was sent has arrived.
const LOOK: Duration = Duration::from_secs(1);

/// A TLS connection whose peer is known.
#[derive(Debug)]
pub(super) struct Connection {
    /// Some kilobytes, in a box so that tasks do not carry them around.
    tls: Box<TlsStream<Socket>>,
    pub(super) peer: HostName,
    /// The part of the next frame's head that was read.
    head: [u8; HEAD],
    head_read: usize,
    delivery: DeliveryWatch,
}

/// Looks, while sent data has not all arrived, whether the peer still answers.
#[derive(Debug, Default)]
struct DeliveryWatch {
    /// Something was sent since all was known to have arrived.
    sent: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl DeliveryWatch {
    /// To be called when the connection waits for its peer: fails when that is dead, else wakes the task to look again.
    fn poll(&mut self, cx: &mut Context<'_>, socket: &Socket) -> io::Result<()> {
        if !self.sent {
            return Ok(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK)));
        while timer.as_mut().poll(cx).is_ready() {
            match sockets::delivery(socket.tcp())? {
                Delivery::Dead => return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not answer")),
                Delivery::Pending => timer.as_mut().reset(Instant::now() + LOOK),
                Delivery::Done => {
                    (self.sent, self.timer) = (false, None);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    pub(super) fn new(mut tls: TlsStream<Socket>, peer: HostName) -> Self {
        // A frame is handed over whole, and the next only when it is gone: the limit is MAX_DATA.
        match &mut tls {
            TlsStream::Client(client) => client.get_mut().1.set_buffer_limit(None),
            TlsStream::Server(server) => server.get_mut().1.set_buffer_limit(None),
        }
        Self { tls: Box::new(tls), peer, head: [0; HEAD], head_read: 0, delivery: DeliveryWatch::default() }
    }

    /// The certificate that the peer showed, in this session or the one that it resumes.
    pub(super) fn certificate(tls: &TlsStream<Socket>) -> Option<&CertificateDer<'static>> {
        tls.get_ref().1.peer_certificates()?.first()
    }

    /// The same, for as long as the connection is elsewhere.
    pub(super) fn certificate_bytes(&self) -> Option<CertificateDer<'static>> {
        Self::certificate(&self.tls).cloned()
    }

    /// Sends a message that opens or answers.
    pub(super) async fn send(&mut self, frame: Frame, content: &[u8]) -> io::Result<()> {
        let mut message = head(frame, content.len()).to_vec();
        message.extend_from_slice(content);
        self.delivery.sent = true;
        self.tls.write_all(&message).await?;
        self.tls.flush().await
    }

    /// Receives a message that opens or answers; `None` when the peer closed the connection before one.
    pub(super) async fn receive(&mut self) -> io::Result<Option<(Frame, Vec<u8>)>> {
        let next = std::future::poll_fn(|cx| {
            let outcome = self.poll_head(cx);
            self.watched(cx, outcome)
        });
        let Some((frame, length)) = next.await? else { return Ok(None) };
        if frame == Frame::Data {
            return Err(garbage());
        }
        let mut content = vec![0; length];
        self.tls.read_exact(&mut content).await?;
        Ok(Some((frame, content)))
    }

    /// Returns whether it is quiet and open, as a connection without a stream should be.
    pub(super) fn is_idle(&mut self) -> bool {
        // What is read here besides data (session tickets) is used up, and nobody else waits for this connection.
        let mut cx = Context::from_waker(Waker::noop());
        self.head_read == 0 && Pin::new(&mut self.tls).poll_fill_buf(&mut cx).is_pending()
    }

    /// Reads the head of a frame; `None` at the end of the connection between two frames.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<(Frame, usize)>>> {
        while self.head_read < HEAD {
            let mut buffer = ReadBuf::new(&mut self.head[self.head_read..]);
            ready!(Pin::new(&mut self.tls).poll_read(cx, &mut buffer))?;
            let read = buffer.filled().len();
            if read == 0 {
                let end = if self.head_read == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
                return Poll::Ready(end);
            }
            self.head_read += read;
        }
        self.head_read = 0;
        Poll::Ready(parse_head(self.head).map(Some).ok_or_else(garbage))
    }

    /// Hands on an outcome; when it is to wait, sees to it that a dead peer ends the wait.
    fn watched<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_pending()
            && let Err(error) = self.delivery.poll(cx, self.tls.get_ref().0)
        {
            return Poll::Ready(Err(error));
        }
        outcome
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.tls).poll_flush(cx);
        self.watched(cx, outcome)
    }

    /// Sends one frame once the one before is gone; returns how many bytes of `content` are in it.
    fn poll_frame(&mut self, cx: &mut Context<'_>, frame: Frame, content: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let content = &content[..content.len().min(MAX_DATA)];
        let head = head(frame, content.len());
        self.delivery.sent = true;
        let parts = [IoSlice::new(&head), IoSlice::new(content)];
        let written = ready!(Pin::new(&mut self.tls).poll_write_vectored(cx, &parts))?;
        if written == HEAD + content.len() {
            Poll::Ready(Ok(content.len()))
        } else {
            // Not without a limit on the buffer; half a frame could never be mended.
            Poll::Ready(Err(io::Error::other("TLS took a part of a frame only")))
        }
    }
}

fn garbage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the peer sent what is not a message of an agent")
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the peer reset the stream")
}

/// How far a direction of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    /// The end is written but not yet sent.
    Ending,
    Ended,
}

/// A stream of bytes to or from another agent.
///
/// Shutting it down ends one direction; the other goes on. Dropped before both directions have ended it resets the
/// stream: the peer reads an error, not an end.
#[derive(Debug)]
pub struct MeshStream {
    /// There until it is dropped.
    connection: Option<Connection>,
    home: Home,
    /// Bytes of the current frame that are not read yet.
    remaining: usize,
    reading: Direction,
    writing: Direction,
    failed: bool,
}

impl MeshStream {
    pub(super) fn new(connection: Connection, home: Home) -> Self {
        Self {
            connection: Some(connection),
            home,
            remaining: 0,
            reading: Direction::Open,
            writing: Direction::Open,
            failed: false,
        }
    }

    /// Makes the drop reset the stream even if both directions have ended.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    fn connection(&mut self) -> io::Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn note<T>(&mut self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.failed |= matches!(outcome, Poll::Ready(Err(_)));
        outcome
    }

    /// Reads until there is data in the current frame, or the end.
    fn poll_data(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.reading == Direction::Open && buffer.remaining() > 0 {
            let remaining = self.remaining;
            let connection = self.connection()?;
            if remaining == 0 {
                match ready!(connection.poll_head(cx))? {
                    Some((Frame::Data, length)) => self.remaining = length,
                    Some((Frame::Finish, _)) => self.reading = Direction::Ended,
                    Some((Frame::Reset, _)) | None => return Poll::Ready(Err(reset())),
                    Some(_) => return Poll::Ready(Err(garbage())),
                }
                continue;
            }
            let data = ready!(Pin::new(&mut connection.tls).poll_fill_buf(cx))?;
            let piece = data.len().min(remaining).min(buffer.remaining());
            if piece == 0 {
                return Poll::Ready(Err(reset()));
            }
            buffer.put_slice(&data[..piece]);
            Pin::new(&mut connection.tls).consume(piece);
            self.remaining -= piece;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing == Direction::Open {
            ready!(self.connection()?.poll_frame(cx, Frame::Finish, &[]))?;
            self.writing = Direction::Ending;
        }
        if self.writing == Direction::Ending {
            ready!(self.connection()?.poll_flush(cx))?;
            self.writing = Direction::Ended;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for MeshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let mut outcome = self.poll_data(cx, buffer);
        if outcome.is_pending() {
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            outcome = self.connection()?.watched(cx, outcome);
        }
        // What came before an error is delivered first; the error comes again.
        if matches!(outcome, Poll::Ready(Err(_))) && buffer.filled().len() > before {
            self.failed = true;
            return Poll::Ready(Ok(()));
        }
        self.note(outcome)
    }
}

impl AsyncWrite for MeshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.writing != Direction::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let outcome = self.connection()?.poll_frame(cx, Frame::Data, bytes);
        self.note(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.connection()?.poll_flush(cx);
        self.note(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.poll_end(cx);
        self.note(outcome)
    }
}

impl Drop for MeshStream {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if !self.failed && self.reading == Direction::Ended && self.writing == Direction::Ended {
            std::mem::take(&mut self.home).give_back(connection);
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let told =
            connection.poll_frame(&mut cx, Frame::Reset, &[]).is_ready() && connection.poll_flush(&mut cx).is_ready();
        if !told {
            sockets::reset_on_close(connection.tls.get_ref().0.tcp());
        }
    }
}
