//! The server side of the API: routes, limits and streams over a unix socket, in front of a [`Handler`].
//!
//! Start at [`serve`]. It spawns one task for each connection; all end with `stop`, those that still send progress
//! after [`DRAIN`]. What a request costs is bounded before the handler sees it: connections, head, body and the time
//! that both may take. It must never decide anything about projects: that is the handler's.

mod route;
mod scrape;
mod socket;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::route::Route;
pub use self::scrape::serve_metrics;
pub use self::socket::{BindError, bind_socket};
use super::types::{
    AccessLogRequest, Admission, AdmitRequest, AgentInfo, ApiError, AskRequest, BeginOneoff, ClusterStatus,
    DownRequest, EndOneoff, ErrorKind, ExposeRequest, FetchImage, FoundRequest, HostChange, ImageOffer, KeyAnswer,
    KeyRequest, MakeOneoff, MetricsForm, NameQuestion, NameTold, OfferImage, OneoffMade, PlaceOneoff, Progress,
    ProjectStatus, ProjectSummary, RemoveHost, RouteQuestion, SeatAnswer, SeatRequest, SnapshotList, StopRequest,
    Traffic, UpRequest, WhyQuestion, WhyTold,
};
use crate::ids::{HostName, ProjectName, SnapshotHash};
use crate::plan::Plan;

/// Largest body of a request. A graph carries the contents of configs and secrets, which Docker limits to 500 KiB each.
pub const MAX_BODY: usize = 64 << 20;
/// Most bytes of a request's head; ours have about a hundred.
const MAX_HEAD: usize = 16 << 10;
/// Most connections at a time; more wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 128;
/// Time for a head to arrive, and for a kept connection to be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a body to arrive whole: a local socket takes 64 MiB in well under a second.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that running answers have to end once the server stops.
pub const DRAIN: Duration = Duration::from_secs(5);

/// What the agent does for each request; the table in [`types`](super::types) says which.
///
/// A progress stream ends when its sender is dropped; a caller that goes away closes the receiver, which must not stop
/// what was accepted. A caller that does not read fills the channel: the sender must not make a reconcile pass wait.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Says who this agent is.
    async fn info(&self) -> Result<AgentInfo, ApiError>;
    /// Lists the projects.
    async fn projects(&self) -> Result<Vec<ProjectSummary>, ApiError>;
    /// Shows one project.
    async fn project(&self, project: &ProjectName) -> Result<ProjectStatus, ApiError>;
    /// Says what `up` would do, and does nothing.
    async fn plan(&self, project: ProjectName, request: UpRequest) -> Result<Plan, ApiError>;
    /// Makes the graph the project's desired state.
    async fn up(&self, project: ProjectName, request: UpRequest) -> Result<mpsc::Receiver<Progress>, ApiError>;
    /// Removes the project.
    async fn down(&self, project: ProjectName, request: DownRequest) -> Result<mpsc::Receiver<Progress>, ApiError>;
    /// Stops a project's containers and keeps them.
    async fn stop(&self, project: ProjectName, request: StopRequest) -> Result<mpsc::Receiver<Progress>, ApiError>;
    /// Asks something of a project's containers.
    async fn ask(&self, project: ProjectName, request: AskRequest) -> Result<mpsc::Receiver<Progress>, ApiError>;
    /// Waits until what a one-off depends on is as it demands, and says where it can run.
    async fn place_oneoff(
        &self,
        project: ProjectName,
        request: PlaceOneoff,
    ) -> Result<mpsc::Receiver<Progress>, ApiError>;
    /// Makes a one-off on this host.
    async fn make_oneoff(&self, project: ProjectName, request: MakeOneoff) -> Result<OneoffMade, ApiError>;
    /// Starts what comes before the main container of a one-off's pod.
    async fn begin_oneoff(
        &self,
        project: ProjectName,
        request: BeginOneoff,
    ) -> Result<mpsc::Receiver<Progress>, ApiError>;
    /// Lets go of a one-off's pod.
    async fn end_oneoff(&self, project: ProjectName, request: EndOneoff) -> Result<mpsc::Receiver<Progress>, ApiError>;
    /// Says what a name means to a container of a project.
    async fn dns(&self, project: ProjectName, question: NameQuestion) -> Result<NameTold, ApiError>;
    /// Says why something of a project is as it is.
    async fn why(&self, project: ProjectName, question: WhyQuestion) -> Result<WhyTold, ApiError>;
    /// Says what the load balancer of this host does.
    async fn traffic(&self) -> Result<Traffic, ApiError>;
    /// Says what Prometheus collects.
    async fn metrics(&self, form: MetricsForm) -> Result<String, ApiError>;
    /// Lets it be collected at an address of the host, or no more.
    async fn expose_metrics(&self, request: ExposeRequest) -> Result<(), ApiError>;
    /// Has requests told in its log, or no more.
    async fn access_log(&self, request: AccessLogRequest) -> Result<(), ApiError>;
    /// Says which rule a request would be for, and why.
    async fn route(&self, question: RouteQuestion) -> Result<WhyTold, ApiError>;
    /// Shows the cluster.
    async fn cluster(&self) -> Result<ClusterStatus, ApiError>;
    /// Makes this host the first one of a new cluster.
    async fn found(&self, request: FoundRequest) -> Result<(), ApiError>;
    /// Says what the seat needs to admit this host.
    async fn key(&self, request: KeyRequest) -> Result<KeyAnswer, ApiError>;
    /// Admits a host to the cluster.
    async fn admit(&self, request: AdmitRequest) -> Result<Admission, ApiError>;
    /// Makes this host one of a cluster.
    async fn join(&self, admission: Admission) -> Result<(), ApiError>;
    /// Takes down what runs on this host and makes it alone again.
    async fn leave(&self) -> Result<(), ApiError>;
    /// Makes a host the seat, as far as this one is concerned.
    async fn seat(&self, request: SeatRequest) -> Result<SeatAnswer, ApiError>;
    /// Changes a host's labels or whether it takes pods.
    async fn change_host(&self, host: &HostName, change: HostChange) -> Result<(), ApiError>;
    /// Takes a host out of the cluster.
    async fn remove_host(&self, host: &HostName, request: RemoveHost) -> Result<(), ApiError>;
    /// Says which of these snapshots this host does not have.
    async fn missing_snapshots(&self, asked: SnapshotList) -> Result<SnapshotList, ApiError>;
    /// Takes in a snapshot.
    async fn put_snapshot(&self, hash: &SnapshotHash, archive: ByteStream) -> Result<(), ApiError>;
    /// Lets other hosts of the cluster have an image.
    async fn offer_image(&self, request: OfferImage) -> Result<ImageOffer, ApiError>;
    /// Gets an image from another host of the cluster.
    async fn fetch_image(&self, request: FetchImage) -> Result<mpsc::Receiver<Progress>, ApiError>;
    /// Removes all that the agent made on its host below the engine.
    async fn uninstall(&self) -> Result<(), ApiError>;
}

/// A body that may be larger than memory.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves `handler` on `listener` until `stop`, then for at most [`DRAIN`] what is still being answered.
pub async fn serve(listener: UnixListener, handler: Arc<dyn Handler>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async {
        // The semaphore is never closed.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let serving = connection(stream, Arc::clone(&handler), stop.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(slot);
                    });
                }
                // Out of descriptors or memory: accepting again at once would only spin.
                Err(error) => {
                    tracing::warn!(%error, "the API could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop.cancelled() => {}
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Answers the requests of one connection.
async fn connection(stream: UnixStream, handler: Arc<dyn Handler>, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(answer(&*handler, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an API connection ended early");
    }
}

/// An answer that is an error: most have the status of their kind, refusals of the protocol their own.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: ApiError,
}

impl Refusal {
    fn user(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, error: ApiError { message: message.into(), kind: ErrorKind::User } }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let status = match error.kind {
            ErrorKind::User => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict | ErrorKind::Unseen => StatusCode::CONFLICT,
            ErrorKind::Host => StatusCode::BAD_GATEWAY,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, error }
    }
}

async fn answer(handler: &dyn Handler, request: Request<Incoming>) -> Response<Body> {
    match dispatch(handler, request).await {
        Ok(response) => response,
        Err(Refusal { status, error }) => {
            tracing::debug!(%status, %error, "refused an API request");
            let text = serde_json::to_vec(&error).expect("an error is plain text");
            response(status, "application/json", Full::new(text.into()).boxed_unsync())
        }
    }
}

async fn dispatch(handler: &dyn Handler, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    match route::parse(request.method(), request.uri().path())? {
        Route::Info => json(&handler.info().await?),
        Route::Projects => json(&handler.projects().await?),
        Route::Project(project) => json(&handler.project(&project).await?),
        Route::Plan(project) => {
            let up = read_up(&project, request).await?;
            json(&handler.plan(project, up).await?)
        }
        Route::Up(project) => {
            let up = read_up(&project, request).await?;
            Ok(progress(handler.up(project, up).await?))
        }
        Route::Stop(project) => {
            let stop = read(request).await?;
            Ok(progress(handler.stop(project, stop).await?))
        }
        Route::Ask(project) => {
            let ask = read(request).await?;
            Ok(progress(handler.ask(project, ask).await?))
        }
        Route::Down(project) => {
            let down = read(request).await?;
            Ok(progress(handler.down(project, down).await?))
        }
        Route::PlaceOneoff(project) => Ok(progress(handler.place_oneoff(project, read(request).await?).await?)),
        Route::MakeOneoff(project) => json(&handler.make_oneoff(project, read(request).await?).await?),
        Route::BeginOneoff(project) => Ok(progress(handler.begin_oneoff(project, read(request).await?).await?)),
        Route::EndOneoff(project) => Ok(progress(handler.end_oneoff(project, read(request).await?).await?)),
        Route::Dns(project) => json(&handler.dns(project, read(request).await?).await?),
        Route::Why(project) => json(&handler.why(project, read(request).await?).await?),
        Route::Metrics => metrics(handler, &request).await,
        Route::ExposeMetrics => nothing(handler.expose_metrics(read(request).await?).await),
        Route::AccessLog => nothing(handler.access_log(read(request).await?).await),
        Route::Rule => json(&handler.route(read(request).await?).await?),
        Route::Traffic => json(&handler.traffic().await?),
        Route::Cluster => json(&handler.cluster().await?),
        Route::Found => nothing(handler.found(read(request).await?).await),
        Route::Key => json(&handler.key(read(request).await?).await?),
        Route::Admit => json(&handler.admit(read(request).await?).await?),
        Route::Join => nothing(handler.join(read(request).await?).await),
        Route::Leave => nothing(handler.leave().await),
        Route::Seat => json(&handler.seat(read(request).await?).await?),
        Route::ChangeHost(host) => nothing(handler.change_host(&host, read(request).await?).await),
        Route::RemoveHost(host) => nothing(handler.remove_host(&host, read(request).await?).await),
        Route::MissingSnapshots => json(&handler.missing_snapshots(read(request).await?).await?),
        Route::Snapshot(hash) => {
            let archive = request.into_body().into_data_stream().map_err(io::Error::other);
            nothing(handler.put_snapshot(&hash, Box::pin(archive)).await)
        }
        Route::OfferImage => json(&handler.offer_image(read(request).await?).await?),
        Route::FetchImage => Ok(progress(handler.fetch_image(read(request).await?).await?)),
        Route::Uninstall => {
            handler.uninstall().await?;
            json(&serde_json::Map::new())
        }
    }
}

async fn metrics<B: Send>(handler: &dyn Handler, request: &Request<B>) -> Result<Response<Body>, Refusal> {
    let accept = request.headers().get(http::header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let form = MetricsForm::accepted(accept.unwrap_or_default());
    let text = handler.metrics(form).await?;
    Ok(response(StatusCode::OK, form.content_type(), Full::new(text.into()).boxed_unsync()))
}

fn nothing(done: Result<(), ApiError>) -> Result<Response<Body>, Refusal> {
    done?;
    json(&serde_json::Map::new())
}

/// Reads the body of `up` and `plan`; its graph must be of the project that the path names.
async fn read_up(project: &ProjectName, request: Request<Incoming>) -> Result<UpRequest, Refusal> {
    let up: UpRequest = read(request).await?;
    if up.graph.project == *project {
        return Ok(up);
    }
    let message = format!("the path names project `{project}`, the graph is of `{}`", up.graph.project);
    Err(Refusal::user(StatusCode::BAD_REQUEST, message))
}

async fn read<T: DeserializeOwned + Send + 'static>(request: Request<Incoming>) -> Result<T, Refusal> {
    if request.body().size_hint().lower() > MAX_BODY as u64 {
        return Err(Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, error: too_large() });
    }
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let collected = tokio::time::timeout(BODY_TIMEOUT, body).await.map_err(|_| {
        Refusal::user(StatusCode::REQUEST_TIMEOUT, format!("the body took longer than {} s", BODY_TIMEOUT.as_secs()))
    })?;
    let bytes = collected
        .map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, error: too_large() },
            Err(error) => Refusal::user(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}")),
        })?
        .to_bytes();
    // Tens of megabytes of JSON take longer than other work of this thread should wait.
    let parsed = if bytes.len() < 256 << 10 {
        serde_json::from_slice(&bytes)
    } else {
        tokio::task::spawn_blocking(move || serde_json::from_slice(&bytes)).await.map_err(|error| ApiError {
            message: format!("reading the request was interrupted: {error}"),
            kind: ErrorKind::Internal,
        })?
    };
    parsed.map_err(|error| {
        let message = format!("the agent does not understand the request: {error}; is it of another version of orch?");
        Refusal::user(StatusCode::BAD_REQUEST, message)
    })
}

/// What both sides say of a body over [`MAX_BODY`].
pub(super) fn too_large() -> ApiError {
    let message = format!("the request is larger than {} MiB: are configs or secrets that large?", MAX_BODY >> 20);
    ApiError { message, kind: ErrorKind::User }
}

fn json(value: &impl Serialize) -> Result<Response<Body>, Refusal> {
    let text = serde_json::to_vec(value).map_err(|error| ApiError {
        message: format!("the answer could not be written as JSON: {error}"),
        kind: ErrorKind::Internal,
    })?;
    Ok(response(StatusCode::OK, "application/json", Full::new(text.into()).boxed_unsync()))
}

/// One JSON object a line; each is a chunk of its own, so that it reaches the caller at once.
fn progress(events: mpsc::Receiver<Progress>) -> Response<Body> {
    let lines = stream::unfold(events, |mut events| async {
        let event = events.recv().await?;
        let mut line = serde_json::to_vec(&event).expect("progress has only text keys");
        line.push(b'\n');
        Some((Ok(Frame::data(Bytes::from(line))), events))
    });
    response(StatusCode::OK, "application/x-ndjson", StreamBody::new(lines).boxed_unsync())
}

fn response(status: StatusCode, content: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content));
    response
}

#[cfg(test)]
mod tests;
