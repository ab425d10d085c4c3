//! gRPC over one HTTP/2 connection: messages with their frames, calls with their status, both as who asks and as who answers.
//!
//! Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::fmt;
use std::future::poll_fn;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

/// Largest message that is taken: status of many steps with what they said.
const MOST: usize = 32 << 20;

/// Bytes of a stream, and of all, that the other side may send before they are read.
pub(super) const WINDOW: u32 = 1 << 20;

/// How a call ended that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) struct Status {
    /// Source: <https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>.
    pub(super) code: u16,
    /// The words.
    pub(super) message: String,
}

impl Status {
    /// Whatever went wrong.
    pub(super) const UNKNOWN: u16 = 2;
    /// What was asked for is not there.
    pub(super) const NOT_FOUND: u16 = 5;
    /// There is no such method.
    pub(super) const UNIMPLEMENTED: u16 = 12;
    /// The connection is gone.
    pub(super) const UNAVAILABLE: u16 = 14;

    pub(super) fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<h2::Error> for Status {
    fn from(error: h2::Error) -> Self {
        Self::new(Self::UNAVAILABLE, format!("the connection broke: {error}"))
    }
}

impl From<super::proto::Malformed> for Status {
    fn from(error: super::proto::Malformed) -> Self {
        Self::new(Self::UNKNOWN, error.to_string())
    }
}

/// Messages that come in.
#[derive(Debug)]
pub(super) struct Received {
    body: RecvStream,
    rest: BytesMut,
}

impl Received {
    pub(super) fn new(body: RecvStream) -> Self {
        Self { body, rest: BytesMut::new() }
    }

    /// Returns the next message; `None`: there are no more. Nothing is lost where this is dropped half way.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(message));
            }
            let Some(piece) = self.body.data().await else { return Ok(None) };
            let piece = piece?;
            self.body.flow_control().release_capacity(piece.len())?;
            self.rest.extend_from_slice(&piece);
        }
    }

    fn whole(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((head, _)) = self.rest.split_first_chunk::<5>() else { return Ok(None) };
        let [compressed, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if compressed != 0 || length > MOST {
            return Err(Status::new(Status::UNKNOWN, "a message is compressed or too long"));
        }
        if self.rest.len() < 5 + length {
            return Ok(None);
        }
        self.rest.advance(5);
        Ok(Some(self.rest.split_to(length).freeze()))
    }
}

/// Sends a message as fast as it is taken.
pub(super) async fn send(to: &mut SendStream<Bytes>, message: &[u8]) -> Result<(), Status> {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).map_err(|_| Status::new(Status::UNKNOWN, "a message is too long"))?);
    framed.put_slice(message);
    let mut framed = framed.freeze();
    while !framed.is_empty() {
        to.reserve_capacity(framed.len());
        let granted = poll_fn(|context| to.poll_capacity(context)).await;
        let granted = granted.ok_or_else(|| Status::new(Status::UNAVAILABLE, "nobody listens any more"))??;
        to.send_data(framed.split_to(granted.min(framed.len())), false)?;
    }
    Ok(())
}

/// The side of a connection that asks.
#[derive(Debug)]
pub(super) struct Client {
    requests: SendRequest<Bytes>,
    _connection: AbortOnDropHandle<()>,
}

impl Client {
    /// Begins to speak over a connection.
    pub(super) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, Status> {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let (requests, connection) = builder.handshake(stream).await?;
        // What goes wrong on it is said by the calls.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.unwrap_or_default() }));
        Ok(Self { requests, _connection: connection })
    }

    /// Calls a method with one message.
    pub(super) async fn call(&self, method: &str, message: &[u8]) -> Result<Answers, Status> {
        let request = Request::post(format!("http://localhost{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("orch/", env!("CARGO_PKG_VERSION")))
            .body(());
        let request = request.map_err(|error| Status::new(Status::UNKNOWN, error.to_string()))?;
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut body) = requests.send_request(request, false)?;
        send(&mut body, message).await?;
        body.send_data(Bytes::new(), true)?;
        let response = response.await?;
        if let Some(status) = status(response.headers()) {
            status?;
        }
        Ok(Answers { received: Received::new(response.into_body()) })
    }
}

/// What a method answers.
#[derive(Debug)]
pub(super) struct Answers {
    received: Received,
}

impl Answers {
    /// Returns the next message; `None`: the call has ended well.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(message) = self.received.next().await? {
            return Ok(Some(message));
        }
        let trailers = self.received.body.trailers().await?;
        trailers.as_ref().and_then(status).unwrap_or(Ok(())).map(|()| None)
    }
}

/// Reads how a call ended; `None`: nothing is said of it.
fn status(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().unwrap_or(Status::UNKNOWN);
    let message = headers.get("grpc-message").map(|message| plain(message.as_bytes())).unwrap_or_default();
    Some(if code == 0 { Ok(()) } else { Err(Status { code, message }) })
}

/// The side of a call that answers.
#[derive(Debug)]
pub(super) struct Answer {
    to: SendStream<Bytes>,
}

impl Answer {
    /// Begins to answer.
    pub(super) fn begin(mut respond: SendResponse<Bytes>) -> Result<Self, Status> {
        let response = Response::builder().header("content-type", "application/grpc").body(());
        let response = response.map_err(|error| Status::new(Status::UNKNOWN, error.to_string()))?;
        Ok(Self { to: respond.send_response(response, false)? })
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), Status> {
        send(&mut self.to, message).await
    }

    /// Says how it ended.
    pub(super) fn end(mut self, result: &Result<(), Status>) -> Result<(), Status> {
        let (code, message) = result.as_ref().err().map_or((0, ""), |status| (status.code, status.message.as_str()));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(code));
        if let Ok(message) = HeaderValue::from_str(&escaped(message)) {
            trailers.insert("grpc-message", message);
        }
        Ok(self.to.send_trailers(trailers)?)
    }
}

/// Undoes what [`escaped`] does.
fn plain(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_status_survive_the_header() {
        let words = "exit 1: 100 %\nzwölf %41";
        assert_eq!(plain(escaped(words).as_bytes()), words);
        assert_eq!(plain(b"a%zz%4"), "a%zz%4");
        assert!(HeaderValue::from_str(&escaped(words)).is_ok());
    }

    /// Answers each message with itself, and ends as the first one says.
    async fn echo(stream: tokio::io::DuplexStream) {
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(call) = connection.accept().await {
            let Ok((request, respond)) = call else { return };
            drop(tokio::spawn(async move {
                let mut received = Received::new(request.into_body());
                let mut answer = Answer::begin(respond).expect("answers");
                let mut end = Ok(());
                while let Ok(Some(message)) = received.next().await {
                    if message.starts_with(b"fail") {
                        end = Err(Status::new(Status::NOT_FOUND, "as asked: 5 %"));
                        break;
                    }
                    answer.send(&message).await.expect("sent");
                }
                answer.end(&end).expect("ended");
            }));
        }
    }

    #[tokio::test]
    async fn calls_carry_long_messages_and_end_with_their_status() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let server = AbortOnDropHandle::new(tokio::spawn(echo(there)));
        let client = Client::over(here).await.expect("a client");
        let long = vec![7; 3 << 20];
        let mut answers = client.call("/x.Y/Z", &long).await.expect("an answer");
        assert_eq!(answers.next().await, Ok(Some(Bytes::from(long))));
        assert_eq!(answers.next().await, Ok(None));
        let mut failing = client.call("/x.Y/Z", b"fail").await.expect("an answer");
        assert_eq!(failing.next().await, Err(Status::new(5, "as asked: 5 %")));
        drop(server);
    }
}
