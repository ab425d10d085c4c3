//! The client side of the API. One connection for each call, so that a call that is dropped leaves nothing behind.
//!
//! The errors tell apart what a user has to do: install the agent, get permission, look why it does not answer, or
//! read what it says.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::server::{ByteStream, MAX_BODY, too_large};
use super::types::{
    AccessLogRequest, Admission, AdmitRequest, AgentInfo, ApiError, AskRequest, BeginOneoff, ClusterStatus,
    DownRequest, EndOneoff, ExposeRequest, FetchImage, FoundRequest, HostChange, ImageOffer, KeyAnswer, KeyRequest,
    MakeOneoff, MetricsForm, NameQuestion, NameTold, OfferImage, OneoffMade, PlaceOneoff, Progress, ProjectStatus,
    ProjectSummary, RemoveHost, RouteQuestion, SeatAnswer, SeatRequest, SnapshotList, StopRequest, Traffic, UpRequest,
    WhyQuestion, WhyTold,
};
use crate::ids::{HostName, ProjectName, SnapshotHash};
use crate::plan::Plan;

/// Time for an answer that needs only the agent's memory and one look at the engine.
const QUICK: Duration = Duration::from_secs(15);
/// Time for an answer before which the agent works: it plans, allocates addresses, or takes its rules away.
const WORKING: Duration = Duration::from_mins(2);
/// Bytes a second over the slowest line that is waited for.
const SLOWEST: u64 = 32 << 10;
/// Longest line of a stream that is kept: a plan of thousands of steps has a few megabytes.
const MAX_LINE: usize = 64 << 20;

/// Why a call did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket: the agent was never started here, or is uninstalled.
    #[error("no agent is installed on this host ({} does not exist)", .path.display())]
    NotInstalled {
        /// The socket.
        path: PathBuf,
    },
    /// The caller may not use the socket.
    #[error("no permission to talk to the agent at {}; it is open to those who may use Docker's socket", .path.display())]
    NoPermission {
        /// The socket.
        path: PathBuf,
    },
    /// There is a socket and nobody answers, or not in time, or not to the end. Worth trying again.
    #[error("the agent at {} does not answer: {message}", .path.display())]
    NotAnswering {
        /// The socket.
        path: PathBuf,
        /// What happened.
        message: String,
    },
    /// The answer makes no sense: an agent of another version, or something else at that socket.
    #[error("the agent at {} gave an answer that this orch does not understand: {message}", .path.display())]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The agent says no.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// Progress of an `up` or `down`, as it happens. The last item is `Done`, `Failed` or an error.
pub type ProgressStream = Pin<Box<dyn Stream<Item = Result<Progress, ClientError>> + Send>>;

/// What a request carries.
trait Body:
    hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static
{
}

impl<B> Body for B where
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static
{
}

/// Talks to one agent.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// Returns a client of the agent that listens at `path`; nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Returns the socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks the agent who it is.
    pub async fn info(&self) -> Result<AgentInfo, ClientError> {
        self.get("/v1/info").await
    }

    /// Lists the projects.
    pub async fn projects(&self) -> Result<Vec<ProjectSummary>, ClientError> {
        self.get("/v1/projects").await
    }

    /// Shows one project.
    pub async fn project(&self, project: &ProjectName) -> Result<ProjectStatus, ClientError> {
        self.get(&format!("/v1/projects/{project}")).await
    }

    /// Asks what `up` would do.
    pub async fn plan(&self, project: &ProjectName, request: &UpRequest) -> Result<Plan, ClientError> {
        self.value(self.post(&format!("/v1/projects/{project}/plan"), request)?, WORKING).await
    }

    /// Makes the graph the project's desired state. Dropping the stream does not stop what was accepted.
    pub async fn up(&self, project: &ProjectName, request: &UpRequest) -> Result<ProgressStream, ClientError> {
        self.stream(self.post(&format!("/v1/projects/{project}/up"), request)?).await
    }

    /// Stops the project's containers and keeps them. Dropping the stream does not stop what was accepted.
    pub async fn stop(&self, project: &ProjectName, request: &StopRequest) -> Result<ProgressStream, ClientError> {
        self.stream(self.post(&format!("/v1/projects/{project}/stop"), request)?).await
    }

    /// Asks something of the project's containers. Dropping the stream does not stop what was accepted.
    pub async fn ask(&self, project: &ProjectName, request: &AskRequest) -> Result<ProgressStream, ClientError> {
        self.stream(self.post(&format!("/v1/projects/{project}/ask"), request)?).await
    }

    /// Removes the project. Dropping the stream does not stop what was accepted.
    pub async fn down(&self, project: &ProjectName, request: &DownRequest) -> Result<ProgressStream, ClientError> {
        self.stream(self.post(&format!("/v1/projects/{project}/down"), request)?).await
    }

    /// Asks the seat where a one-off can run, once what it depends on is as it demands.
    pub async fn place_oneoff(
        &self,
        project: &ProjectName,
        request: &PlaceOneoff,
    ) -> Result<ProgressStream, ClientError> {
        self.stream(self.post(&format!("/v1/projects/{project}/oneoffs/place"), request)?).await
    }

    /// Has a one-off made on the agent's host; it is not started.
    pub async fn make_oneoff(&self, project: &ProjectName, request: &MakeOneoff) -> Result<OneoffMade, ClientError> {
        self.value(self.post(&format!("/v1/projects/{project}/oneoffs"), request)?, WORKING).await
    }

    /// Has what comes before the main container of a one-off's pod started. Dropping the stream before its end has all of
    /// it removed.
    pub async fn begin_oneoff(
        &self,
        project: &ProjectName,
        request: &BeginOneoff,
    ) -> Result<ProgressStream, ClientError> {
        self.stream(self.post(&format!("/v1/projects/{project}/oneoffs/begin"), request)?).await
    }

    /// Lets go of a one-off's pod. Dropping the stream does not keep it.
    pub async fn end_oneoff(&self, project: &ProjectName, request: &EndOneoff) -> Result<ProgressStream, ClientError> {
        self.stream(self.post(&format!("/v1/projects/{project}/oneoffs/end"), request)?).await
    }

    /// Asks what a name means to a container of a project.
    pub async fn dns(&self, project: &ProjectName, question: &NameQuestion) -> Result<NameTold, ClientError> {
        self.value(self.post(&format!("/v1/projects/{project}/dns"), question)?, WORKING).await
    }

    /// Asks why something of a project is as it is.
    pub async fn why(&self, project: &ProjectName, question: &WhyQuestion) -> Result<WhyTold, ClientError> {
        self.value(self.post(&format!("/v1/projects/{project}/why"), question)?, WORKING).await
    }

    /// Asks what the load balancer of the agent's host does.
    pub async fn traffic(&self) -> Result<Traffic, ClientError> {
        self.get("/v1/traffic").await
    }

    /// Has the agent tell its metrics at an address of its host from now on; `None`: no more.
    pub async fn expose_metrics(&self, address: Option<std::net::SocketAddr>) -> Result<(), ClientError> {
        self.order("/v1/metrics/expose", &ExposeRequest { address }).await
    }

    /// Has requests told in the agent's log from now on, or no more.
    pub async fn access_log(&self, on: bool) -> Result<(), ClientError> {
        self.order("/v1/access-log", &AccessLogRequest { on }).await
    }

    /// Asks which rule a request would be for.
    pub async fn route(&self, question: &RouteQuestion) -> Result<WhyTold, ClientError> {
        self.value(self.post("/v1/route", question)?, QUICK).await
    }

    /// Asks for the agent's metrics, as `OpenMetrics`.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let mut request = self.request(Method::GET, "/metrics", Full::<Bytes>::default())?;
        let accepted = http::HeaderValue::from_static(MetricsForm::OpenMetrics.content_type());
        request.headers_mut().insert(http::header::ACCEPT, accepted);
        let text = async {
            let (response, _connection) = self.send(request).await?;
            let body = response.into_body().collect().await.map_err(|error| self.not_answering(&error))?.to_bytes();
            String::from_utf8(body.into()).map_err(|error| self.not_understood(&error))
        };
        tokio::time::timeout(QUICK, text).await.unwrap_or_else(|_| Err(self.too_late(QUICK)))
    }

    /// Shows the cluster as the agent sees it.
    pub async fn cluster(&self) -> Result<ClusterStatus, ClientError> {
        self.get("/v1/cluster").await
    }

    /// Makes the agent's host the first one of a new cluster. The agent restarts.
    pub async fn found(&self, request: &FoundRequest) -> Result<(), ClientError> {
        self.order("/v1/cluster/found", request).await
    }

    /// Asks a host that is to be added for what the seat needs.
    pub async fn key(&self, request: &KeyRequest) -> Result<KeyAnswer, ClientError> {
        self.value(self.post("/v1/cluster/key", request)?, QUICK).await
    }

    /// Has the seat admit a host.
    pub async fn admit(&self, request: &AdmitRequest) -> Result<Admission, ClientError> {
        self.value(self.post("/v1/cluster/admit", request)?, QUICK).await
    }

    /// Makes the agent's host one of the cluster. The agent restarts.
    pub async fn join(&self, admission: &Admission) -> Result<(), ClientError> {
        self.order("/v1/cluster/join", admission).await
    }

    /// Makes the agent's host take down what runs on it and be alone again. The agent restarts.
    pub async fn leave(&self) -> Result<(), ClientError> {
        self.order("/v1/cluster/leave", &()).await
    }

    /// Tells an agent which host decides from now on.
    pub async fn seat(&self, request: &SeatRequest) -> Result<SeatAnswer, ClientError> {
        self.value(self.post("/v1/cluster/seat", request)?, QUICK).await
    }

    /// Has the seat change a host.
    pub async fn change_host(&self, host: &HostName, change: &HostChange) -> Result<(), ClientError> {
        self.order(&format!("/v1/hosts/{host}/change"), change).await
    }

    /// Has the seat take a host out of the cluster.
    pub async fn remove_host(&self, host: &HostName, request: &RemoveHost) -> Result<(), ClientError> {
        self.order(&format!("/v1/hosts/{host}/remove"), request).await
    }

    /// Asks which of these snapshots the agent's host does not have; the others it keeps for the `up` that names them.
    pub async fn missing_snapshots(&self, hashes: Vec<SnapshotHash>) -> Result<Vec<SnapshotHash>, ClientError> {
        let asked = SnapshotList { hashes };
        let missing: SnapshotList = self.value(self.post("/v1/snapshots/missing", &asked)?, QUICK).await?;
        Ok(missing.hashes)
    }

    /// Sends a snapshot's archive, of about `size` bytes, piece by piece.
    pub async fn send_snapshot(&self, hash: &SnapshotHash, size: u64, archive: ByteStream) -> Result<(), ClientError> {
        let body = StreamBody::new(archive.map_ok(Frame::data)).boxed_unsync();
        let request = self.request(Method::POST, &format!("/v1/snapshots/{hash}"), body)?;
        let _: serde::de::IgnoredAny = self.value(request, WORKING + Duration::from_secs(size / SLOWEST)).await?;
        Ok(())
    }

    /// Has the agent let other hosts of its cluster have an image.
    pub async fn offer_image(&self, reference: &str) -> Result<ImageOffer, ClientError> {
        self.value(self.post("/v1/images/offer", &OfferImage { reference: reference.to_owned() })?, QUICK).await
    }

    /// Has the agent get an image from another host of its cluster. Dropping the stream stops it.
    pub async fn fetch_image(&self, request: &FetchImage) -> Result<ProgressStream, ClientError> {
        self.stream(self.post("/v1/images/fetch", request)?).await
    }

    /// Makes the agent remove all that it made on its host below the engine.
    pub async fn uninstall(&self) -> Result<(), ClientError> {
        self.order("/v1/uninstall", &()).await
    }

    /// Sends a request whose answer says nothing.
    async fn order(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        let _: serde::de::IgnoredAny = self.value(self.post(path, body)?, WORKING).await?;
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.value(self.request(Method::GET, path, Full::default())?, QUICK).await
    }

    fn post(&self, path: &str, body: &impl Serialize) -> Result<Request<Full<Bytes>>, ClientError> {
        let text = serde_json::to_vec(body).map_err(|error| self.not_understood(&error))?;
        if text.len() > MAX_BODY {
            // The agent would refuse it too, but by closing the connection while we still send.
            return Err(ClientError::Api(too_large()));
        }
        self.request(Method::POST, path, Full::new(text.into()))
    }

    fn request<B>(&self, method: Method, path: &str, body: B) -> Result<Request<B>, ClientError> {
        Request::builder()
            .method(method)
            .uri(path)
            // HTTP/1.1 demands a host; a socket has none.
            .header(http::header::HOST, "orch")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| self.not_understood(&error))
    }

    /// Sends a request whose answer is one JSON value.
    async fn value<T: DeserializeOwned, B: Body>(
        &self,
        request: Request<B>,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let answer = async {
            let (response, _connection) = self.send(request).await?;
            let body = response.into_body().collect().await.map_err(|error| self.not_answering(&error))?.to_bytes();
            serde_json::from_slice(&body).map_err(|error| self.not_understood(&error))
        };
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(self.too_late(limit)))
    }

    /// Sends a request whose answer is a line of JSON for each step; only its head must come in time.
    async fn stream(&self, request: Request<Full<Bytes>>) -> Result<ProgressStream, ClientError> {
        let sent = tokio::time::timeout(WORKING, self.send(request)).await;
        let (response, connection) = sent.unwrap_or_else(|_| Err(self.too_late(WORKING)))?;
        let lines = Lines {
            client: self.clone(),
            body: response.into_body(),
            buffer: BytesMut::new(),
            searched: 0,
            ended: false,
            _connection: connection,
        };
        Ok(Box::pin(stream::unfold(lines, |mut lines| async {
            let item = lines.next().await?;
            Some((item, lines))
        })))
    }

    /// Sends a request and returns the answer's head once it is a success. The connection lives as long as the handle.
    async fn send<B: Body>(
        &self,
        request: Request<B>,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.not_answering(&error))?;
        // Its error is the one that the request or the body gets too.
        let connection = AbortOnDropHandle::new(tokio::spawn(async { drop(connection.await) }));
        let response = sender.send_request(request).await.map_err(|error| self.not_answering(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok((response, connection));
        }
        let body = response.into_body().collect().await.map_err(|error| self.not_answering(&error))?.to_bytes();
        Err(match serde_json::from_slice::<ApiError>(&body) {
            Ok(error) => ClientError::Api(error),
            Err(_) => self.not_understood(&format_args!("status {status} without a reason")),
        })
    }

    pub(super) fn unreachable(&self, error: &io::Error) -> ClientError {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::NotFound => ClientError::NotInstalled { path },
            io::ErrorKind::PermissionDenied => ClientError::NoPermission { path },
            _ => self.not_answering(error),
        }
    }

    fn not_answering(&self, error: &dyn std::error::Error) -> ClientError {
        // hyper's own words ("connection error") say little; its source has the cause.
        let message = match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        ClientError::NotAnswering { path: self.path.clone(), message }
    }

    fn too_late(&self, limit: Duration) -> ClientError {
        let message = format!("nothing came for {} s", limit.as_secs());
        ClientError::NotAnswering { path: self.path.clone(), message }
    }

    fn not_understood(&self, message: &dyn std::fmt::Display) -> ClientError {
        ClientError::NotUnderstood { path: self.path.clone(), message: message.to_string() }
    }
}

/// Cuts a body into lines and reads each.
struct Lines {
    client: Client,
    body: Incoming,
    buffer: BytesMut,
    /// Bytes of `buffer` that are known to hold no end of line.
    searched: usize,
    ended: bool,
    _connection: AbortOnDropHandle<()>,
}

impl Lines {
    async fn next(&mut self) -> Option<Result<Progress, ClientError>> {
        if self.ended {
            return None;
        }
        let item = self.read().await;
        self.ended = matches!(&item, Ok(Progress::Done { .. } | Progress::Failed { .. }) | Err(_));
        Some(item)
    }

    async fn read(&mut self) -> Result<Progress, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + end);
                self.buffer.advance(1);
                self.searched = 0;
                return serde_json::from_slice(&line).map_err(|error| self.client.not_understood(&error));
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE {
                return Err(self.client.not_understood(&"a line of progress without end"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(self.client.not_answering(&error)),
                None => {
                    return Err(ClientError::NotAnswering {
                        path: self.client.path.clone(),
                        message: "it stopped before the end; what it had accepted goes on once it is back".to_owned(),
                    });
                }
            }
        }
    }
}
