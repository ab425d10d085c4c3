//! Server and client against each other, and the server against callers that misbehave, over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::api::client::{Client, ClientError};
use crate::graph::Graph;
use crate::lb::BalancerStats;

/// Answers from what it holds; progress comes from a channel that the test feeds.
#[derive(Default)]
struct FakeHandler {
    error: Option<ApiError>,
    progress: tokio::sync::Mutex<Option<mpsc::Receiver<Progress>>>,
}

impl FakeHandler {
    async fn stream(&self) -> Result<mpsc::Receiver<Progress>, ApiError> {
        Ok(self.progress.lock().await.take().expect("one stream a test"))
    }
}

#[async_trait]
impl Handler for FakeHandler {
    async fn info(&self) -> Result<AgentInfo, ApiError> {
        self.error.clone().map_or_else(|| Ok(info()), Err)
    }
    async fn projects(&self) -> Result<Vec<ProjectSummary>, ApiError> {
        Ok(vec![ProjectSummary {
            name: shop(),
            revision: Some(3),
            states: BTreeMap::from([("running".to_owned(), 2)]),
            config_files: vec!["compose.yaml".to_owned()],
            unplaced: Vec::new(),
        }])
    }
    async fn project(&self, project: &ProjectName) -> Result<ProjectStatus, ApiError> {
        Err(ApiError { message: format!("no project `{project}`"), kind: ErrorKind::NotFound })
    }
    async fn plan(&self, project: ProjectName, _: UpRequest) -> Result<Plan, ApiError> {
        let notes = vec!["nothing to do".to_owned()];
        Ok(Plan { project, steps: Vec::new(), notes, failures: Vec::new(), watched: Vec::new() })
    }
    async fn up(&self, _: ProjectName, _: UpRequest) -> Result<mpsc::Receiver<Progress>, ApiError> {
        self.stream().await
    }
    async fn down(&self, _: ProjectName, _: DownRequest) -> Result<mpsc::Receiver<Progress>, ApiError> {
        self.stream().await
    }
    async fn stop(&self, _: ProjectName, _: StopRequest) -> Result<mpsc::Receiver<Progress>, ApiError> {
        self.stream().await
    }
    async fn ask(&self, _: ProjectName, _: AskRequest) -> Result<mpsc::Receiver<Progress>, ApiError> {
        self.stream().await
    }
    async fn place_oneoff(&self, _: ProjectName, _: PlaceOneoff) -> Result<mpsc::Receiver<Progress>, ApiError> {
        self.stream().await
    }
    async fn begin_oneoff(&self, _: ProjectName, _: BeginOneoff) -> Result<mpsc::Receiver<Progress>, ApiError> {
        self.stream().await
    }
    async fn end_oneoff(&self, _: ProjectName, _: EndOneoff) -> Result<mpsc::Receiver<Progress>, ApiError> {
        self.stream().await
    }
    async fn make_oneoff(&self, project: ProjectName, _: MakeOneoff) -> Result<OneoffMade, ApiError> {
        Err(ApiError { message: format!("no project `{project}`"), kind: ErrorKind::NotFound })
    }
    async fn dns(&self, project: ProjectName, _: NameQuestion) -> Result<NameTold, ApiError> {
        Err(ApiError { message: format!("no project `{project}`"), kind: ErrorKind::NotFound })
    }
    async fn why(&self, project: ProjectName, _: WhyQuestion) -> Result<WhyTold, ApiError> {
        Err(ApiError { message: format!("no project `{project}`"), kind: ErrorKind::NotFound })
    }
    async fn metrics(&self, _: MetricsForm) -> Result<String, ApiError> {
        Ok("# EOF\n".to_owned())
    }
    async fn expose_metrics(&self, _: ExposeRequest) -> Result<(), ApiError> {
        Ok(())
    }
    async fn access_log(&self, _: AccessLogRequest) -> Result<(), ApiError> {
        Ok(())
    }
    async fn route(&self, question: RouteQuestion) -> Result<WhyTold, ApiError> {
        Ok(WhyTold { about: question.url, findings: Vec::new() })
    }
    async fn traffic(&self) -> Result<Traffic, ApiError> {
        Ok(Traffic {
            host: HostName::local(),
            balancer: BalancerStats::default(),
            ambassadors: Vec::new(),
            services: Vec::new(),
        })
    }
    async fn cluster(&self) -> Result<ClusterStatus, ApiError> {
        let (host, seat) = (HostName::local(), HostName::local());
        Ok(ClusterStatus { cluster: None, host, seat, epoch: 0, hosts: Vec::new() })
    }
    async fn found(&self, _: FoundRequest) -> Result<(), ApiError> {
        Ok(())
    }
    async fn key(&self, _: KeyRequest) -> Result<KeyAnswer, ApiError> {
        Ok(KeyAnswer { request: "PEM".to_owned(), cluster: None })
    }
    async fn admit(&self, request: AdmitRequest) -> Result<Admission, ApiError> {
        Err(ApiError { message: format!("no room for `{}`", request.name), kind: ErrorKind::Conflict })
    }
    async fn join(&self, _: Admission) -> Result<(), ApiError> {
        Ok(())
    }
    async fn leave(&self) -> Result<(), ApiError> {
        Ok(())
    }
    async fn seat(&self, request: SeatRequest) -> Result<SeatAnswer, ApiError> {
        Err(ApiError { message: format!("no host `{}`", request.host), kind: ErrorKind::NotFound })
    }
    async fn change_host(&self, host: &HostName, _: HostChange) -> Result<(), ApiError> {
        Err(ApiError { message: format!("no host `{host}`"), kind: ErrorKind::NotFound })
    }
    async fn remove_host(&self, _: &HostName, _: RemoveHost) -> Result<(), ApiError> {
        Ok(())
    }
    async fn missing_snapshots(&self, asked: SnapshotList) -> Result<SnapshotList, ApiError> {
        Ok(asked)
    }
    async fn put_snapshot(&self, hash: &SnapshotHash, archive: ByteStream) -> Result<(), ApiError> {
        let size = archive.try_fold(0, |size, piece| async move { Ok(size + piece.len()) }).await;
        match size {
            Ok(size) => Err(ApiError { message: format!("{hash}: {size} bytes"), kind: ErrorKind::Conflict }),
            Err(error) => Err(ApiError { message: error.to_string(), kind: ErrorKind::Host }),
        }
    }
    async fn offer_image(&self, request: OfferImage) -> Result<ImageOffer, ApiError> {
        Ok(ImageOffer { ticket: request.reference })
    }
    async fn fetch_image(&self, _: FetchImage) -> Result<mpsc::Receiver<Progress>, ApiError> {
        self.stream().await
    }
    async fn uninstall(&self) -> Result<(), ApiError> {
        Ok(())
    }
}

fn shop() -> ProjectName {
    ProjectName::new("shop").expect("valid")
}

fn info() -> AgentInfo {
    AgentInfo {
        version: "0.1.0".to_owned(),
        build: "abc".to_owned(),
        host: HostName::local(),
        cluster: None,
        engine: "20.10.24".to_owned(),
        engine_id: "ABCD:EFGH".to_owned(),
        uptime_secs: 5,
        memory: 20 << 20,
        metrics: None,
        access_log: false,
        problems: vec![],
    }
}

fn request() -> UpRequest {
    let graph = Graph {
        project: shop(),
        working_dir: "/srv".to_owned(),
        config_files: Vec::new(),
        services: BTreeMap::new(),
        disabled: BTreeSet::new(),
        profiles: BTreeMap::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        pod_volumes: BTreeMap::new(),
        files: BTreeMap::new(),
    };
    UpRequest::new(graph)
}

fn note(text: &str) -> Progress {
    Progress::Note { message: text.to_owned(), is_warning: false }
}

/// A server with its client; it ends with the test.
struct Served {
    client: Client,
    path: PathBuf,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn served(handler: FakeHandler) -> Served {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).expect("a free path");
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, Arc::new(handler), stop.clone()));
    Served { client: Client::new(&path), path, stop, server, _dir: dir }
}

/// A server whose next stream is fed by the sender.
fn streaming(bound: usize) -> (Served, mpsc::Sender<Progress>) {
    let (sender, receiver) = mpsc::channel(bound);
    (served(FakeHandler { progress: Some(receiver).into(), ..FakeHandler::default() }), sender)
}

impl Served {
    /// Sends text as it is and returns all that comes back.
    async fn raw(&self, text: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.path).await.expect("it listens");
        // A server that refuses early closes while we write: what it said is what counts.
        drop(stream.write_all(text).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("within a minute")
}

#[tokio::test]
async fn every_call_reaches_the_handler_and_back() {
    let (served, events) = streaming(8);
    let client = &served.client;
    assert_eq!(client.info().await.expect("an answer"), info());
    assert_eq!(client.projects().await.expect("an answer")[0].name, shop());
    assert_eq!(client.plan(&shop(), &request()).await.expect("an answer").notes, ["nothing to do"]);
    client.uninstall().await.expect("an answer");
    let Err(ClientError::Api(error)) = client.project(&shop()).await else { panic!("an error of the agent") };
    assert_eq!(error, ApiError { message: "no project `shop`".to_owned(), kind: ErrorKind::NotFound });

    let mut stream = client.down(&shop(), &DownRequest::default()).await.expect("a stream");
    for event in [note("one"), note("two\nlines"), Progress::Done { revision: 4 }] {
        events.send(event.clone()).await.expect("the stream is open");
        // Each is there before the next one is sent: nothing waits in a buffer.
        assert_eq!(within(stream.next()).await.expect("an item").expect("progress"), event);
    }
    assert!(stream.next().await.is_none(), "`Done` is the last, also with the sender still there");
}

#[tokio::test]
async fn kinds_have_their_status() {
    for (kind, status) in [
        (ErrorKind::User, 400),
        (ErrorKind::NotFound, 404),
        (ErrorKind::Conflict, 409),
        (ErrorKind::Host, 502),
        (ErrorKind::Internal, 500),
    ] {
        let error = ApiError { message: "no".to_owned(), kind };
        let served = served(FakeHandler { error: Some(error.clone()), ..FakeHandler::default() });
        let answer = served.raw(b"GET /v1/info HTTP/1.1\r\nhost: orch\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(matches!(served.client.info().await, Err(ClientError::Api(told)) if told == error));
    }
}

#[tokio::test]
async fn a_snapshot_comes_in_pieces_of_whatever_number() {
    let served = served(FakeHandler::default());
    let hash = SnapshotHash::new("0".repeat(64)).expect("a hash");
    let missing = served.client.missing_snapshots(vec![hash.clone()]).await.expect("an answer");
    assert_eq!(missing, std::slice::from_ref(&hash));
    // More than any other body may have.
    let (piece, count) = (Bytes::from(vec![7; 1 << 20]), (MAX_BODY >> 20) + 3);
    let pieces = stream::iter(std::iter::repeat_n(piece, count).map(Ok));
    let sent = within(served.client.send_snapshot(&hash, 1, Box::pin(pieces))).await;
    let Err(ClientError::Api(error)) = sent else { panic!("what the handler says") };
    assert_eq!(error.to_string(), format!("{hash}: {} bytes", count << 20));
    // One that breaks is no shorter one.
    let broken = stream::iter([Ok(Bytes::from_static(b"begin")), Err(io::ErrorKind::Other.into())]);
    let sent = within(served.client.send_snapshot(&hash, 1, Box::pin(broken))).await;
    assert!(matches!(&sent, Err(ClientError::NotAnswering { .. })), "{sent:?}");
}

#[tokio::test]
async fn the_graph_must_be_of_the_project_in_the_path() {
    let served = served(FakeHandler::default());
    let other = ProjectName::new("other").expect("valid");
    let Err(ClientError::Api(error)) = served.client.plan(&other, &request()).await else { panic!("a refusal") };
    assert_eq!(error.to_string(), "the path names project `other`, the graph is of `shop`");
    assert_eq!(error.kind, ErrorKind::User);
}

#[tokio::test]
async fn a_caller_that_goes_away_closes_the_handlers_channel() {
    let (served, events) = streaming(1);
    let mut stream = served.client.up(&shop(), &request()).await.expect("a stream");
    events.send(note("one")).await.expect("open");
    within(stream.next()).await.expect("an item").expect("progress");
    drop(stream);
    within(events.closed()).await;
    served.client.info().await.expect("the server goes on");
}

#[tokio::test]
async fn a_stream_cut_short_is_an_error() {
    let (served, events) = streaming(1);
    let mut stream = served.client.up(&shop(), &request()).await.expect("a stream");
    drop(events);
    let end = within(stream.next()).await.expect("an item");
    assert!(matches!(end, Err(ClientError::NotAnswering { .. })), "{end:?}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_stopping_server_ends_answers_and_itself() {
    let (served, events) = streaming(1);
    let mut stream = served.client.up(&shop(), &request()).await.expect("a stream");
    served.stop.cancel();
    events.send(Progress::Done { revision: 1 }).await.expect("still open");
    let last = within(stream.next()).await.expect("an item").expect("what runs may end");
    assert_eq!(last, Progress::Done { revision: 1 });
    drop((stream, events));
    within(served.server).await.expect("it ended by itself");
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_waits_only_so_long() {
    let (served, _events) = streaming(1);
    let mut stream = served.client.up(&shop(), &request()).await.expect("a stream");
    served.stop.cancel();
    assert!(matches!(stream.next().await, Some(Err(ClientError::NotAnswering { .. }))));
    within(served.server).await.expect("it ended by itself");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let served = served(FakeHandler::default());
    let plan = |body: &str| {
        format!(
            "POST /v1/projects/shop/plan HTTP/1.1\r\nhost: o\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (text, expected) in [
        ("\0\0\0\0".to_owned(), "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), "HTTP/1.1 404"),
        ("DELETE /v1/info HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), "HTTP/1.1 405"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_HEAD)), "HTTP/1.1 431"),
        (format!("GET /v1/info HTTP/1.1\r\na: {}\r\n\r\n", "a".repeat(MAX_HEAD)), "HTTP/1.1 431"),
        (format!("GET /v1/info HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)), "HTTP/1.1 431"),
        (plan(""), "HTTP/1.1 400"),
        (plan("{"), "HTTP/1.1 400"),
        (plan("[]"), "HTTP/1.1 400"),
        (plan(&"[".repeat(100_000)), "HTTP/1.1 400"),
    ] {
        let answer = within(served.raw(text.as_bytes())).await;
        let shown = &text[..text.len().min(60)];
        assert!(answer.starts_with(expected), "{shown:?} gave {answer:?}");
    }
    served.client.info().await.expect("the server goes on");
}

#[tokio::test]
async fn oversized_bodies_are_refused_on_both_sides() {
    let served = served(FakeHandler::default());
    // Announced: refused before it is read.
    let head = format!("POST /v1/projects/shop/up HTTP/1.1\r\nhost: o\r\ncontent-length: {}\r\n\r\n", MAX_BODY + 1);
    assert!(within(served.raw(head.as_bytes())).await.starts_with("HTTP/1.1 413"));
    // Not announced: refused once it is too much. The last byte is held back, so the refusal does not wait for an end.
    let mut stream = UnixStream::connect(&served.path).await.expect("it listens");
    let head = b"POST /v1/projects/shop/up HTTP/1.1\r\nhost: o\r\ntransfer-encoding: chunked\r\n\r\n4000001\r\n";
    stream.write_all(head).await.expect("taken");
    let block = vec![b' '; 1 << 20];
    for _ in 0..64 {
        stream.write_all(&block).await.expect("up to the limit it is taken");
    }
    stream.write_all(b" ").await.expect("taken");
    let mut start = [0; 12];
    within(stream.read_exact(&mut start)).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 413");

    let mut large = request();
    large.graph.working_dir = "x".repeat(MAX_BODY);
    let Err(ClientError::Api(error)) = served.client.plan(&shop(), &large).await else { panic!("a refusal") };
    assert!(error.message.contains("larger than 64 MiB"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn slow_heads_and_bodies_are_cut() {
    let served = served(FakeHandler::default());
    for (text, expected) in [
        ("GET /v1/in", ""),
        ("POST /v1/projects/shop/up HTTP/1.1\r\nhost: o\r\ncontent-length: 9\r\n\r\n{", "HTTP/1.1 408"),
    ] {
        let mut stream = UnixStream::connect(&served.path).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("taken");
        let mut answer = String::new();
        let limit = HEAD_TIMEOUT + BODY_TIMEOUT + Duration::from_secs(1);
        tokio::time::timeout(limit, stream.read_to_string(&mut answer)).await.expect("in time").expect("text");
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let served = served(FakeHandler::default());
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(UnixStream::connect(&served.path).await.expect("it listens"));
    }
    let client = served.client.clone();
    let mut waiting = tokio::spawn(async move { client.info().await });
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err(), "no place is free");
    idle.pop();
    within(waiting).await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn an_agent_that_cannot_be_reached_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("agent.sock");
    let client = Client::new(&path);
    assert!(matches!(client.info().await, Err(ClientError::NotInstalled { .. })));
    // A socket whose owner was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
    let error = client.info().await.expect_err("nobody is there");
    assert!(matches!(error, ClientError::NotAnswering { .. }), "{error}");
    let denied = client.unreachable(&std::io::Error::from(std::io::ErrorKind::PermissionDenied));
    assert!(matches!(denied, ClientError::NoPermission { .. }), "{denied}");
}

#[tokio::test]
async fn answers_of_somebody_else_are_not_understood() {
    for (answer, silent) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", false),
        ("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno", false),
        ("", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[]", true),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&path).expect("a free path");
        let other = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            stream.read_exact(&mut [0; 20]).await.expect("a request");
            stream.write_all(answer.as_bytes()).await.expect("taken");
            stream.shutdown().await.expect("closed");
            // Until the caller has gone: closing with unread bytes would reset.
            stream.read_to_end(&mut Vec::new()).await
        });
        let error = within(Client::new(&path).info()).await.expect_err("not an agent");
        assert_eq!(matches!(error, ClientError::NotAnswering { .. }), silent, "{answer:?}: {error}");
        assert_eq!(matches!(error, ClientError::NotUnderstood { .. }), !silent, "{answer:?}: {error}");
        drop(within(other).await);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hangs_is_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("agent.sock");
    let _listener = UnixListener::bind(&path).expect("a free path");
    let error = Client::new(&path).info().await.expect_err("nobody accepts");
    assert!(error.to_string().contains("nothing came for 15 s"), "{error}");
}
