//! Requests whose answers are taken as plain JSON: for words that bollard's models refuse, for paths and parameters that
//! it does not know, and where it matters when the engine began to answer.

use std::fmt::Write as _;
use std::io;

use bollard::errors::Error;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::{BodyExt as _, Empty, Limited, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::ANSWER_WITHIN;
use crate::engine::BoxStream;

/// Lines of an answer that wait for the one who reads them.
const LINES: usize = 16;

/// Longest answer that is read: a list of 5,000 containers has about 10 MB.
const LONGEST: usize = 64 << 20;

/// Asks the engine at `socket` for `path`, which [`word`] has made safe where it names something.
pub(super) async fn get(socket: &str, path: &str) -> Result<Value, Error> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, exchange(socket, path));
    answer.await.map_err(|_| Error::RequestTimeoutError)?
}

/// Returns a header of the answer to `path`; `None`: it has none.
pub(super) async fn header(socket: &str, path: &str, name: &str) -> Result<Option<String>, Error> {
    let request = Request::get(path).header("Host", "engine").body(Empty::<Bytes>::new());
    let request = request.map_err(|err| Error::HttpClientError { err })?;
    let answer = tokio::time::timeout(ANSWER_WITHIN, send(socket, request));
    let (response, _connection) = answer.await.map_err(|_| Error::RequestTimeoutError)??;
    let value = response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    accepted(response).await.map(|_| value)
}

/// Posts nothing to `path`. Returns once the answer has begun, with what gives the rest of it, however long that takes.
pub(super) async fn begin(
    socket: &str,
    path: &str,
) -> Result<impl Future<Output = Result<Value, Error>> + Send + 'static, Error> {
    let request = Request::post(path).header("Host", "engine").body(Empty::<Bytes>::new());
    let request = request.map_err(|err| Error::HttpClientError { err })?;
    let begun = tokio::time::timeout(ANSWER_WITHIN, send(socket, request));
    let (response, connection) = begun.await.map_err(|_| Error::RequestTimeoutError)??;
    let answer = accepted(response).await?;
    Ok(async move {
        let _connection = connection;
        serde_json::from_slice(&whole(answer).await?).map_err(|err| Error::JsonSerdeError { err })
    })
}

async fn exchange(socket: &str, path: &str) -> Result<Value, Error> {
    let request = Request::get(path).header("Host", "engine").body(Empty::<Bytes>::new());
    let (response, _connection) = send(socket, request.map_err(|err| Error::HttpClientError { err })?).await?;
    let body = whole(accepted(response).await?).await?;
    serde_json::from_slice(&body).map_err(|err| Error::JsonSerdeError { err })
}

/// A request that sends something.
pub(super) struct Post {
    pub(super) socket: String,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// Sends a body while it comes. Returns the lines of the answer, each of which is JSON. Who reads no further ends the
/// request.
pub(super) fn post(
    request: Post,
    body: BoxStream<'static, io::Result<Bytes>>,
) -> BoxStream<'static, Result<Value, Error>> {
    let (to, from) = mpsc::channel(LINES);
    drop(tokio::spawn(async move {
        tokio::select! {
            () = to.closed() => {}
            done = exchange_pieces(request, body, &to) => if let Err(error) = done {
                // Nobody reads any more.
                to.send(Err(error)).await.ok();
            },
        }
    }));
    stream::unfold(from, |mut from| async move { from.recv().await.map(|line| (line, from)) }).boxed()
}

async fn exchange_pieces(
    Post { socket, path, headers }: Post,
    body: BoxStream<'static, io::Result<Bytes>>,
    to: &mpsc::Sender<Result<Value, Error>>,
) -> Result<(), Error> {
    let mut request = Request::post(path).header("Host", "engine");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(StreamBody::new(body.map_ok(Frame::data)));
    let (response, _connection) = send(&socket, request.map_err(|err| Error::HttpClientError { err })?).await?;
    let mut body = accepted(response).await?;
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|err| Error::HyperResponseError { err })?;
        rest.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = memchr::memchr(b'\n', &rest) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            hand_on(&line, to).await;
        }
        if rest.len() > LONGEST {
            return Err(Error::IOError { err: io::Error::other("a line of the answer is too long") });
        }
    }
    hand_on(&rest, to).await;
    Ok(())
}

async fn hand_on(line: &[u8], to: &mpsc::Sender<Result<Value, Error>>) {
    let line = line.trim_ascii();
    if !line.is_empty() {
        let value = serde_json::from_slice(line).map_err(|err| Error::JsonSerdeError { err });
        to.send(value).await.ok();
    }
}

/// Returns the answer, and the connection, which must live as long as the answer is read.
async fn send<B>(socket: &str, request: Request<B>) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), Error>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = UnixStream::connect(socket).await.map_err(|err| Error::IOError { err })?;
    let failed = |err| Error::HyperResponseError { err };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // What goes wrong on it is said by the request.
    let connection = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.unwrap_or_default() }));
    Ok((sender.send_request(request).await.map_err(failed)?, connection))
}

async fn accepted(response: Response<Incoming>) -> Result<Incoming, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let body = whole(response.into_body()).await?;
    let said: Option<Value> = serde_json::from_slice(&body).ok();
    let message = said.and_then(|said| Some(said.get("message")?.as_str()?.to_owned()));
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
}

async fn whole(body: Incoming) -> Result<Bytes, Error> {
    let body = Limited::new(body, LONGEST).collect().await;
    Ok(body.map_err(|err| Error::IOError { err: io::Error::other(err) })?.to_bytes())
}

/// Returns a text as it can be a part of a path or the value of a parameter.
pub(super) fn word(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            let written = write!(safe, "%{byte:02X}");
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// Answers one request with `reply` and returns what was asked and what came of it.
    async fn ask(path: &str, reply: &'static str) -> (String, Result<Value, Error>) {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s").display().to_string();
        let listener = UnixListener::bind(&socket).expect("a socket");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.expect("a request");
            stream.write_all(reply.as_bytes()).await.expect("an answer");
            String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned()
        };
        tokio::join!(server, get(&socket, path))
    }

    #[test]
    fn words_of_paths() {
        assert_eq!(word("shop-web_1.x~"), "shop-web_1.x~");
        assert_eq!(word("a/../b?c=d e"), "a%2F..%2Fb%3Fc%3Dd%20e");
        assert_eq!(word(r#"{"label":["ä"]}"#), "%7B%22label%22%3A%5B%22%C3%A4%22%5D%7D");
    }

    #[tokio::test]
    async fn answers_and_refusals() {
        let (asked, answer) = ask("/x?a=b", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}").await;
        assert_eq!(asked, "GET /x?a=b HTTP/1.1");
        assert_eq!(answer.expect("an answer"), serde_json::json!({"a": 1}));

        let refusal = "HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\n{\"message\":\"no such\"} ";
        let (_, answer) = ask("/x", refusal).await;
        let Err(Error::DockerResponseServerError { status_code: 404, message }) = answer else { panic!("{answer:?}") };
        assert_eq!(message, "no such");

        let (_, answer) = ask("/x", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{oh").await;
        assert!(matches!(answer, Err(Error::JsonSerdeError { .. })), "{answer:?}");
        let (_, answer) = ask("/x", "").await;
        assert!(answer.is_err(), "a connection that is closed without a word");
        let pieces = stream::iter([Ok(Bytes::from_static(b"one")), Ok(Bytes::from_static(b"two"))]).boxed();
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s").display().to_string();
        let listener = UnixListener::bind(&socket).expect("a socket");
        let request = Post { socket, path: "/y".to_owned(), headers: vec![("X-Word", "w".to_owned())] };
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut asked = Vec::new();
            while !asked.ends_with(b"0\r\n\r\n") {
                let mut piece = [0; 4096];
                let length = stream.read(&mut piece).await.expect("a request");
                asked.extend_from_slice(&piece[..length]);
            }
            let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"a\":1}\n\n{\"b\":2}";
            stream.write_all(answer.as_bytes()).await.expect("an answer");
            String::from_utf8_lossy(&asked).to_lowercase()
        };
        let (asked, lines) = tokio::join!(server, post(request, pieces).try_collect::<Vec<_>>());
        assert!(
            asked.starts_with("post /y http/1.1") && asked.contains("x-word: w") && asked.contains("two"),
            "{asked}"
        );
        assert_eq!(lines.expect("lines"), [serde_json::json!({"a": 1}), serde_json::json!({"b": 2})]);

        let nobody = get("/nonexistent/socket", "/x").await;
        assert!(matches!(nobody, Err(Error::IOError { .. })), "{nobody:?}");
    }
}
