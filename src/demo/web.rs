//! A web server that says who it is. It has a few paths that tests need.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::client::get;
use super::{DemoError, Exit, asked_to_end, hostname, say_line};

/// Time for requests under way when it is told to end: less than the usual grace period of 10 s.
const DRAIN: Duration = Duration::from_secs(8);
/// Longest answer of `/slow`.
const SLOWEST: u64 = 60_000;
/// Largest answer of `/bytes`.
const MOST_BYTES: u64 = 16 << 30;
/// Time for `/fetch`.
const FETCH: Duration = Duration::from_secs(10);
/// Piece of a large answer.
const PIECE: u64 = 64 * 1024;

type Body = BoxBody<Bytes, hyper::Error>;

/// What the server knows, as help text.
const PATHS: &str = "Paths:
  /                      who answers, and what was asked
  /health                200, or 503 after /health?ok=false
  /slow?ms=N             answers after N milliseconds
  /bytes?n=N             N bytes
  /echo                  the body of the request
  /env?name=DEMO_X       a variable whose name starts with DEMO_
  /fetch?url=http://X/   asks another server and passes its answer on
  /exit?code=N           ends the process";

/// `orch demo web`.
/// Its paths are in [`PATHS`].
#[derive(Debug, Args)]
#[command(after_help = PATHS)]
pub struct WebArgs {
    /// Port to listen on; may be given several times
    #[arg(long = "port", default_value = "80", value_name = "PORT")]
    ports: Vec<u16>,

    /// Address to listen on
    #[arg(long, default_value_t = Ipv4Addr::UNSPECIFIED.into(), value_name = "ADDRESS")]
    address: std::net::IpAddr,

    /// Name to show
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Say so for each request
    #[arg(long)]
    log: bool,
}

struct Server {
    name: Option<String>,
    log: bool,
    served: AtomicU64,
    healthy: AtomicBool,
    exit: mpsc::Sender<u8>,
}

/// Serves until it is told to end, then finishes what is under way.
pub(super) async fn run(args: &WebArgs) -> Result<Exit, DemoError> {
    let mut listeners = Vec::new();
    for port in &args.ports {
        let address = SocketAddr::new(args.address, *port);
        let listener = TcpListener::bind(address).await.map_err(DemoError::io(format!("listen on {address}")))?;
        let local = listener.local_addr().map_err(DemoError::io("ask for the port"))?;
        say_line(&format!("listening on {local}"));
        listeners.push(listener);
    }
    serve(listeners, args, async { asked_to_end().await.map(|_| ()) }).await
}

/// Serves on `listeners` until `end`.
async fn serve(
    listeners: Vec<TcpListener>,
    args: &WebArgs,
    end: impl Future<Output = Result<(), DemoError>>,
) -> Result<Exit, DemoError> {
    let (exit, mut exits) = mpsc::channel(1);
    let (name, log) = (args.name.clone(), args.log);
    let server = Arc::new(Server { name, log, served: AtomicU64::new(0), healthy: AtomicBool::new(true), exit });
    let (stop, stopped) = watch::channel(false);
    let tasks = TaskTracker::new();
    for listener in listeners {
        tasks.spawn(accept(listener, Arc::clone(&server), stopped.clone(), tasks.clone()));
    }
    let code = tokio::select! {
        ended = end => { ended?; 0 }
        code = exits.recv() => return Ok(Exit::of_container(code.unwrap_or(0).into())),
    };
    stop.send_replace(true);
    tasks.close();
    // What is still under way after that is cut off, as it would be by SIGKILL.
    tokio::time::timeout(DRAIN, tasks.wait()).await.ok();
    Ok(Exit::of_container(code))
}

async fn accept(listener: TcpListener, server: Arc<Server>, mut stopped: watch::Receiver<bool>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                tasks.spawn(connection(stream, peer, Arc::clone(&server), stopped.clone()));
            }
            // Out of descriptors: the next accept may work once a connection has ended.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, server: Arc<Server>, mut stopped: watch::Receiver<bool>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request, peer).await) }
    });
    let mut connection =
        std::pin::pin!(http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A client that goes away or talks nonsense is not this server's error.
        ended = connection.as_mut() => { ended.ok(); return; }
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.ok();
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        self.served.fetch_add(1, Ordering::Relaxed);
        if self.log {
            say_line(&format!("{peer} {} {}", request.method(), request.uri()));
        }
        let query = Query(request.uri().query().unwrap_or_default());
        match request.uri().path() {
            "/health" => self.health(&query),
            "/slow" => {
                let wait = query.number("ms").unwrap_or(1000).min(SLOWEST);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                text(StatusCode::OK, self.about(&request, peer))
            }
            "/bytes" => bytes(query.number("n").unwrap_or(1024).min(MOST_BYTES)),
            "/echo" => Response::new(request.into_body().boxed()),
            "/env" => env(&query),
            "/fetch" => fetch(&query).await,
            "/exit" => {
                let code = query.number("code").and_then(|code| u8::try_from(code).ok()).unwrap_or(0);
                // Full: somebody asked before, and the process ends anyway.
                self.exit.try_send(code).ok();
                text(StatusCode::OK, "bye\n".to_owned())
            }
            _ => text(StatusCode::OK, self.about(&request, peer)),
        }
    }

    fn health(&self, query: &Query<'_>) -> Response<Body> {
        match query.get("ok").as_deref() {
            Some("false") => self.healthy.store(false, Ordering::Relaxed),
            Some(_) => self.healthy.store(true, Ordering::Relaxed),
            None => {}
        }
        if self.healthy.load(Ordering::Relaxed) {
            text(StatusCode::OK, "ok\n".to_owned())
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ok\n".to_owned())
        }
    }

    /// Who answers, and what was asked, line by line.
    fn about(&self, request: &Request<Incoming>, peer: SocketAddr) -> String {
        let mut text = format!("Hostname: {}\n", hostname());
        let mut line = |line: &str| writeln!(text, "{line}").expect("a string takes all");
        if let Some(name) = &self.name {
            line(&format!("Name: {name}"));
        }
        for address in addresses() {
            line(&format!("IP: {address}"));
        }
        line(&format!("RemoteAddr: {peer}"));
        line(&format!("Served: {}", self.served.load(Ordering::Relaxed)));
        line(&format!("{} {} {:?}", request.method(), request.uri(), request.version()));
        for (name, value) in request.headers() {
            line(&format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
        text
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn bytes(count: u64) -> Response<Body> {
    static PIECE_OF_X: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    let pieces = stream::unfold(count, |left| async move {
        let piece = usize::try_from(left.min(PIECE)).ok().filter(|piece| *piece > 0)?;
        Some((Ok(Frame::data(Bytes::from_static(&PIECE_OF_X[..piece]))), left - piece as u64))
    });
    let mut response = Response::new(BoxBody::new(StreamBody::new(pieces)));
    response.headers_mut().insert(http::header::CONTENT_LENGTH, count.into());
    response
}

/// Only names made for this: an environment may hold secrets.
fn env(query: &Query<'_>) -> Response<Body> {
    let name = query.get("name").unwrap_or_default();
    match std::env::var(&name) {
        Ok(value) if name.starts_with("DEMO_") => text(StatusCode::OK, format!("{value}\n")),
        _ => text(StatusCode::NOT_FOUND, "no such variable\n".to_owned()),
    }
}

async fn fetch(query: &Query<'_>) -> Response<Body> {
    let Some(url) = query.get("url").and_then(|url| url.parse().ok()) else {
        return text(StatusCode::BAD_REQUEST, "expected ?url=http://HOST/PATH\n".to_owned());
    };
    match tokio::time::timeout(FETCH, get(&url)).await {
        Ok(Ok(answer)) => {
            let mut response = Response::new(full(answer.body));
            *response.status_mut() = answer.status;
            response
        }
        Ok(Err(error)) => text(StatusCode::BAD_GATEWAY, format!("{error}\n")),
        Err(_) => text(StatusCode::GATEWAY_TIMEOUT, format!("{url} did not answer in {} s\n", FETCH.as_secs())),
    }
}

/// The part of an address after `?`.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| percent_decode(value))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The IPv4 addresses of this container but loopback's, from the kernel's table of what is local.
fn addresses() -> Vec<Ipv4Addr> {
    std::fs::read_to_string("/proc/net/fib_trie").map(|text| local_addresses(&text)).unwrap_or_default()
}

fn local_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut last = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            last = leaf.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            addresses.extend(last.filter(|address| !address.is_loopback()));
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Serves on a port of loopback while `test` runs, then is told to end. Returns what `test` returned.
    pub(in crate::demo) async fn with_server<T, F: Future<Output = T>>(test: impl FnOnce(SocketAddr) -> F) -> T {
        let args = WebArgs { ports: Vec::new(), address: Ipv4Addr::LOCALHOST.into(), name: None, log: false };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it has a port");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let end = async { stopped.await.map_err(|_| DemoError::Answer("the test failed".to_owned())) };
        let (served, value) = tokio::join!(serve(vec![listener], &args, end), async {
            let value = test(address).await;
            stop.send(()).ok();
            value
        });
        served.expect("it ends in peace");
        value
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::{Answer, get};
    use super::testing::with_server;
    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> Answer {
        get(&format!("http://{address}{path}").parse().expect("an address")).await.expect("an answer")
    }

    #[track_caller]
    fn check(answer: &Answer, status: u16, body: &str) {
        assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (status, body.as_bytes()));
    }

    #[tokio::test]
    async fn it_says_who_it_is_and_what_was_asked() {
        let answer = with_server(|at| async move { ask(at, "/some/path?x=1").await }).await;
        let body = String::from_utf8(answer.body.to_vec()).expect("text");
        assert!(body.starts_with(&format!("Hostname: {}\n", hostname())), "{body}");
        assert!(
            body.contains("\nRemoteAddr: 127.0.0.1:") && body.contains("\nGET /some/path?x=1 HTTP/1.1\n"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn health_can_be_taken_away_and_given_back() {
        with_server(|at| async move {
            check(&ask(at, "/health").await, 200, "ok\n");
            check(&ask(at, "/health?ok=false").await, 503, "not ok\n");
            check(&ask(at, "/health").await, 503, "not ok\n");
            check(&ask(at, "/health?ok=true").await, 200, "ok\n");
        })
        .await;
    }

    #[tokio::test]
    async fn it_sends_as_many_bytes_as_asked() {
        with_server(|at| async move {
            assert_eq!(ask(at, "/bytes?n=200001").await.body.len(), 200_001);
            assert_eq!(ask(at, "/bytes?n=0").await.body.len(), 0);
        })
        .await;
    }

    #[tokio::test]
    async fn it_shows_only_variables_that_are_made_for_it() {
        with_server(|at| async move { check(&ask(at, "/env?name=PATH").await, 404, "no such variable\n") }).await;
    }

    #[tokio::test]
    async fn it_asks_others() {
        with_server(|at| async move {
            check(&ask(at, &format!("/fetch?url=http%3A%2F%2F{at}%2Fhealth")).await, 200, "ok\n");
            assert_eq!(ask(at, "/fetch?url=http://127.0.0.1:1/").await.status.as_u16(), 502);
            assert_eq!(ask(at, "/fetch").await.status.as_u16(), 400);
        })
        .await;
    }

    #[tokio::test]
    async fn told_to_end_it_finishes_what_is_under_way() {
        let (sent, answers) = tokio::sync::oneshot::channel();
        with_server(|at| async move {
            tokio::spawn(async move { sent.send(ask(at, "/slow?ms=300").await.status).ok() });
            // The slow request was counted when the number grows by more than our own questions.
            let served = async |own: u64| {
                let body = ask(at, "/").await.body;
                !body.windows(12).any(|window| window.starts_with(format!("\nServed: {own}\n").as_bytes()))
            };
            let mut own = 1;
            while !served(own).await {
                own += 1;
                assert!(own < 10_000, "the slow request never came in");
            }
        })
        .await;
        assert_eq!(answers.await, Ok(StatusCode::OK));
    }

    #[test]
    fn local_addresses_come_from_the_kernels_table() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.2\n        \
                     /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        \
                     /32 host LOCAL\nLocal:\n     |-- 10.0.0.2\n        /32 host LOCAL\n";
        assert_eq!(local_addresses(table), [Ipv4Addr::new(10, 0, 0, 2)]);
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query("url=http%3A%2F%2Fa%2F%3Fx&ms=5&bad=%zz+1");
        assert_eq!(query.get("url").as_deref(), Some("http://a/?x"));
        assert_eq!(query.number("ms"), Some(5));
        assert_eq!(query.get("bad").as_deref(), Some("%zz 1"));
        assert_eq!(query.get("none"), None);
    }
}
