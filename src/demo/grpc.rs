//! A gRPC server that says who it is, and its client: HTTP/2 without TLS, messages of one text field, status in the trailers.
//!
//! Whatever method is called, each message of the request is answered by one as soon as it comes, so that the same server does for
//! unary calls and for streams both ways. A message `fail N` ends the call with status N.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use clap::Args;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::resolve::addresses;
use super::{DemoError, Exit, hostname, say_line, sockets};

/// Largest message that is taken.
const MOST: usize = 4 << 20;

/// `orch demo grpc-say`.
#[derive(Debug, Args)]
pub struct SayArgs {
    /// HOST:PORT
    target: String,
    /// Messages, sent one after the other, each when the answer to the one before is there
    #[arg(required = true)]
    texts: Vec<String>,
    /// How many times, one after the other over one connection
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Method to call
    #[arg(long, default_value = "/demo.Echo/Say", value_name = "PATH")]
    method: String,
    /// Name in `:authority`
    #[arg(long, value_name = "NAME")]
    authority: Option<String>,
    /// Seconds for everything
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    timeout: u64,
}

/// Serves until it is told to end.
pub(super) async fn serve(listen: SocketAddr) -> Result<Exit, DemoError> {
    sockets::serve(listen, connection).await
}

async fn connection(stream: TcpStream) -> Result<(), h2::Error> {
    stream.set_nodelay(true).ok();
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        tokio::spawn(async move { answer(request.into_body(), respond).await.ok() });
    }
    Ok(())
}

async fn answer(body: RecvStream, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let response = Response::builder().header("content-type", "application/grpc").body(());
    let Ok(response) = response else { return Ok(()) };
    let mut send = respond.send_response(response, false)?;
    let (mut messages, mut status) = (Messages::new(body), 0);
    while let Some(text) = messages.next().await? {
        if let Some(code) = text.strip_prefix("fail ").and_then(|code| code.parse().ok()) {
            status = code;
            break;
        }
        send_message(&mut send, &format!("{} {text}", hostname())).await?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status));
    trailers.insert("grpc-message", HeaderValue::from_static(if status == 0 { "" } else { "as asked" }));
    send.send_trailers(trailers)
}

/// Sends the messages and prints what comes back; the result is the call's status.
pub(super) async fn say(args: &SayArgs) -> Result<Exit, DemoError> {
    let wrong = || DemoError::Answer(format!("`{}` is not HOST:PORT", args.target));
    let (host, port) = args.target.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let address = addresses(host).await?.first().copied().ok_or_else(wrong)?;
    let authority = args.authority.clone().unwrap_or_else(|| args.target.clone());
    let calls = async {
        let client = connect(SocketAddr::new(address, port)).await?;
        for _ in 0..args.calls {
            let status = call(client.clone(), &authority, &args.method, &args.texts).await?;
            if status != 0 {
                return Ok(status);
            }
        }
        Ok(0)
    };
    let limit = Duration::from_secs(args.timeout);
    let status = timeout(limit, calls).await.map_err(|_| DemoError::Answer(format!("no end within {limit:?}")))??;
    say_line(&format!("status {status}"));
    Ok(Exit::of_container(status.into()))
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn failed(error: h2::Error) -> DemoError {
    DemoError::Answer(error.to_string())
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>, DemoError> {
    let stream = TcpStream::connect(address).await.map_err(DemoError::io(format!("connect to {address}")))?;
    stream.set_nodelay(true).ok();
    let (client, connection) = h2::client::handshake(stream).await.map_err(failed)?;
    tokio::spawn(async move { connection.await.ok() });
    Ok(client)
}

/// Makes one call, prints the answers and returns its status.
async fn call(client: SendRequest<Bytes>, authority: &str, method: &str, texts: &[String]) -> Result<u8, DemoError> {
    let mut client = client.ready().await.map_err(failed)?;
    let request = Request::post(format!("http://{authority}{method}"))
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| DemoError::Answer(error.to_string()))?;
    let (response, mut send) = client.send_request(request, false).map_err(failed)?;
    let mut texts = texts.iter();
    if let Some(first) = texts.next() {
        send_message(&mut send, first).await.map_err(failed)?;
    }
    let response = response.await.map_err(failed)?;
    if response.status() != http::StatusCode::OK {
        return Err(DemoError::Answer(format!("HTTP status {}", response.status())));
    }
    // An answer without messages has its status in the head.
    let head = response.headers().clone();
    let mut messages = Messages::new(response.into_body());
    let mut ended = false;
    while let Some(text) = messages.next().await.map_err(failed)? {
        say_line(&text);
        match texts.next() {
            Some(next) => send_message(&mut send, next).await.map_err(failed)?,
            None if !ended => {
                send.send_data(Bytes::new(), true).map_err(failed)?;
                ended = true;
            }
            None => {}
        }
    }
    let trailers = messages.trailers().await.map_err(failed)?.unwrap_or(head);
    let status = trailers.get("grpc-status").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    status.ok_or_else(|| DemoError::Answer("no status came with the trailers".to_owned()))
}

/// Sends a message with `text` in its first field, as the other side has room for it.
async fn send_message(send: &mut SendStream<Bytes>, text: &str) -> Result<(), h2::Error> {
    let mut message = BytesMut::with_capacity(text.len() + 16);
    // Field 1, of a length: as protobuf writes a text.
    message.extend_from_slice(&[0x0a]);
    let mut length = text.len();
    while length >= 0x80 {
        message.extend_from_slice(&[u8::try_from(length & 0x7f).unwrap_or_default() | 0x80]);
        length >>= 7;
    }
    message.extend_from_slice(&[u8::try_from(length).unwrap_or_default()]);
    message.extend_from_slice(text.as_bytes());
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    let mut framed = framed.freeze();
    while framed.has_remaining() {
        send.reserve_capacity(framed.len());
        let Some(room) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await.transpose()? else { return Ok(()) };
        send.send_data(framed.split_to(room.min(framed.len())), false)?;
    }
    Ok(())
}

/// The messages of one direction.
struct Messages {
    body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    fn new(body: RecvStream) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// Returns the text of the next message; `None` at the end, or where it makes no sense.
    async fn next(&mut self) -> Result<Option<String>, h2::Error> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if length > MOST {
                    return Ok(None);
                }
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Ok(Some(text(&self.buffer.split_to(length))));
                }
            }
            let Some(piece) = self.body.data().await.transpose()? else { return Ok(None) };
            self.body.flow_control().release_capacity(piece.len())?;
            self.buffer.extend_from_slice(&piece);
        }
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, h2::Error> {
        self.body.trailers().await
    }
}

/// Reads the text of a message's first field.
fn text(message: &[u8]) -> String {
    let Some((0x0a, rest)) = message.split_first() else { return String::new() };
    let varint = rest.iter().position(|byte| byte & 0x80 == 0).map_or(0, |at| at + 1);
    String::from_utf8_lossy(rest.get(varint..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn messages_are_answered_one_by_one_and_the_status_is_in_the_trailers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(async move { connection(stream).await.ok() });
            }
        });
        let client = connect(address).await.expect("connected");
        let say = async |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            call(client.clone(), "demo", "/demo.Echo/Say", &texts).await.expect("a status")
        };
        assert_eq!(say(&["one", "two", &"x".repeat(100_000)]).await, 0);
        assert_eq!(say(&["fail 5"]).await, 5);
    }
}
