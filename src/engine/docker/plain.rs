//! Requests whose answers are taken as plain JSON: for words that bollard's models refuse, for paths that it does not
//! know, and where it matters when the engine began to answer.

use std::fmt::Write as _;

use bollard::errors::Error;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::ANSWER_WITHIN;

/// Longest answer that is read: a list of 5,000 containers has about 10 MB.
const LONGEST: usize = 64 << 20;

/// Asks the engine at `socket` for `path`, which [`word`] has made safe where it names something.
pub(super) async fn get(socket: &str, path: &str) -> Result<Value, Error> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, exchange(socket, path));
    answer.await.map_err(|_| Error::RequestTimeoutError)?
}

/// Posts nothing to `path`. Returns once the answer has begun, with what gives the rest of it, however long that takes.
pub(super) async fn post(
    socket: &str,
    path: &str,
) -> Result<impl Future<Output = Result<Value, Error>> + Send + 'static, Error> {
    let begun = tokio::time::timeout(ANSWER_WITHIN, begin(socket, Method::POST, path));
    let (response, connection) = begun.await.map_err(|_| Error::RequestTimeoutError)??;
    if !response.status().is_success() {
        return Err(rest(response).await.err().unwrap_or(Error::RequestTimeoutError));
    }
    Ok(async move {
        let _connection = connection;
        rest(response).await
    })
}

async fn exchange(socket: &str, path: &str) -> Result<Value, Error> {
    let (response, _connection) = begin(socket, Method::GET, path).await?;
    rest(response).await
}

/// Sends a request and returns the head of its answer; the rest comes as long as the handle is kept.
async fn begin(
    socket: &str,
    method: Method,
    path: &str,
) -> Result<(Response<Incoming>, AbortOnDropHandle<hyper::Result<()>>), Error> {
    let stream = UnixStream::connect(socket).await.map_err(|err| Error::IOError { err })?;
    let failed = |err| Error::HyperResponseError { err };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::builder().method(method).uri(path).header("Host", "engine").body(Empty::<Bytes>::new());
    let response = sender.send_request(request.map_err(|err| Error::HttpClientError { err })?).await.map_err(failed)?;
    Ok((response, connection))
}

async fn rest(response: Response<Incoming>) -> Result<Value, Error> {
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST).collect().await;
    let body = body.map_err(|err| Error::IOError { err: std::io::Error::other(err) })?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|err| Error::JsonSerdeError { err });
    }
    let said: Option<Value> = serde_json::from_slice(&body).ok();
    let message = said.and_then(|said| Some(said.get("message")?.as_str()?.to_owned()));
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
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
        let nobody = get("/nonexistent/socket", "/x").await;
        assert!(matches!(nobody, Err(Error::IOError { .. })), "{nobody:?}");
    }
}
