//! The one thing that an agent answers over TCP, and only where the user asked for it: `GET /metrics`.
//!
//! Whoever reaches the address may ask, so little is to be had: no other request is served, a connection is for one request
//! and a few seconds, and there are few at a time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Body, Handler, metrics, response};

/// Most connections at a time; more wait in the socket's backlog.
const CONNECTIONS: usize = 16;
/// Time for a whole connection.
const WHOLE: Duration = Duration::from_secs(10);
/// Most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;

/// Serves metrics on `listener` until it is dropped, with its connections.
pub async fn serve_metrics(listener: TcpListener, handler: Arc<dyn Handler>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let handler = Arc::clone(&handler);
                connections.spawn(async move {
                    connection(stream, handler).await;
                    drop(slot);
                });
            }
            // Out of descriptors or memory: accepting again at once would only spin.
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection for metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, handler: Arc<dyn Handler>) {
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(answer(&*handler, &request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(WHOLE)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(WHOLE, serving).await {
        tracing::debug!(%error, "a connection for metrics ended early");
    }
}

async fn answer(handler: &dyn Handler, request: &Request<Incoming>) -> Response<Body> {
    let refuse = |status, text: &'static str| response(status, "text/plain", Full::new(text.into()).boxed_unsync());
    if request.uri().path() != "/metrics" {
        return refuse(StatusCode::NOT_FOUND, "only /metrics is here\n");
    }
    if request.method() != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n");
    }
    match metrics(handler, request).await {
        Ok(answer) => answer,
        Err(refusal) => refuse(refusal.status, "the metrics cannot be told\n"),
    }
}
