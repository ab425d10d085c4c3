//! Connections that begin as a request to the engine and go on as HTTP/2.

use bollard::errors::Error;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::docker::ANSWER_WITHIN;

/// Longest refusal that is read, in bytes.
const LONGEST: usize = 1 << 16;

/// Asks the engine at `socket` to go on with HTTP/2 at `path`. The task carries what is not HTTP yet.
pub(super) async fn upgraded(
    socket: &str,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(TokioIo<Upgraded>, AbortOnDropHandle<()>), Error> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, exchange(socket, path, headers));
    answer.await.map_err(|_| Error::RequestTimeoutError)?
}

async fn exchange(
    socket: &str,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(TokioIo<Upgraded>, AbortOnDropHandle<()>), Error> {
    let failed = |err| Error::HyperResponseError { err };
    let stream = UnixStream::connect(socket).await.map_err(|err| Error::IOError { err })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = connection.with_upgrades();
    let connection = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.unwrap_or_default() }));
    let mut request =
        Request::post(path).header("Host", "engine").header("Connection", "Upgrade").header("Upgrade", "h2c");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|err| Error::HttpClientError { err })?;
    let response = sender.send_request(request).await.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status_code = response.status().as_u16();
        let said = Limited::new(response.into_body(), LONGEST).collect().await;
        let said = said.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let message = String::from_utf8_lossy(&said).trim().to_owned();
        return Err(Error::DockerResponseServerError { status_code, message });
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    Ok((TokioIo::new(upgraded), connection))
}
