//! Asking web servers: once (`probe`, `/fetch`), and many times while things break (`client`).

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;

use super::sockets::connect_any;
use super::{DemoError, Exit, asked_to_end, say_line};

/// Requests under way at the same time at most; what would come on top is counted as `skipped`.
const MAX_UNDER_WAY: usize = 1024;
/// Kinds of errors that are told apart; the rest is counted together.
const MAX_KINDS: usize = 20;

/// `orch demo client`: sends requests at a fixed rate, whether answers come or not, and prints counts as JSON.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// Address, `http://web/`
    url: Uri,
    /// Requests a second
    #[arg(long, default_value_t = 50.0, value_name = "N", value_parser = parse_rate)]
    rate: f64,
    /// How long
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    seconds: u64,
    /// Which connections requests use
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    connections: Connections,
    /// Milliseconds for one request
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    timeout_ms: u64,
}

/// Which connections requests use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Connections {
    /// Every other request a new one, the rest kept ones.
    #[default]
    Both,
    /// A new one for each request.
    New,
    /// Kept ones, opened when none is free.
    Kept,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Asks once. Exit 0 when the answer is a success (2xx or 3xx).
pub(super) async fn probe(url: &Uri, limit: Duration, print: bool) -> Result<Exit, DemoError> {
    let late = || DemoError::Answer(format!("{url} did not answer in {} s", limit.as_secs()));
    let answer = timeout(limit, get(url)).await.unwrap_or_else(|_| Err(late()))?;
    if print {
        say_line(String::from_utf8_lossy(&answer.body).trim_end());
    }
    if is_good(answer.status) {
        return Ok(Exit::Success);
    }
    Err(DemoError::Answer(format!("{url} answered {}", answer.status)))
}

/// Asks once, over a new connection.
pub(super) async fn get(url: &Uri) -> Result<Answer, DemoError> {
    let mut sender = open(url).await.map_err(Failure::into_error)?;
    ask(&mut sender, url).await.map_err(Failure::into_error)
}

/// Runs the load and prints the result.
pub(super) async fn run(args: &ClientArgs) -> Result<Exit, DemoError> {
    let report = measure(args).await?;
    say_line(&serde_json::to_string(&report).map_err(|error| DemoError::Answer(error.to_string()))?);
    Ok(Exit::Success)
}

async fn measure(args: &ClientArgs) -> Result<Report, DemoError> {
    target(&args.url)?;
    let load = Arc::new(Load {
        url: args.url.clone(),
        limit: Duration::from_millis(args.timeout_ms),
        begun: Instant::now(),
        kept: Mutex::default(),
        counts: Mutex::default(),
    });
    let room = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let tasks = TaskTracker::new();
    let send_all = async {
        let mut ticks = interval(Duration::from_secs_f64(1.0 / args.rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let end = load.begun + Duration::from_secs(args.seconds);
        for number in 0_u64.. {
            ticks.tick().await;
            if Instant::now() >= end {
                break;
            }
            let kept = match args.connections {
                Connections::Both => number % 2 == 1,
                Connections::New => false,
                Connections::Kept => true,
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                load.counts().skipped += 1;
                continue;
            };
            let load = Arc::clone(&load);
            tasks.spawn(async move {
                load.one(kept).await;
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = send_all => {}
        end = asked_to_end() => { end?; }
    }
    tasks.close();
    tasks.wait().await;
    Ok(load.counts().report())
}

struct Load {
    url: Uri,
    limit: Duration,
    begun: Instant,
    kept: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
    counts: Mutex<Counts>,
}

impl Load {
    async fn one(&self, kept: bool) {
        let at = Instant::now();
        let result = timeout(self.limit, self.request(kept)).await.unwrap_or(Err(Failure::TimedOut));
        let done = Done { at: at - self.begun, took: at.elapsed(), kept, result };
        self.counts().add(done);
    }

    async fn request(&self, kept: bool) -> Result<Answer, Failure> {
        if !kept {
            return ask(&mut open(&self.url).await?, &self.url).await;
        }
        let free = || self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(mut sender) = free() {
            // A connection that the server closed while it was idle: nothing was sent, so another one is tried.
            if sender.ready().await.is_err() {
                self.counts().reopened += 1;
                continue;
            }
            match ask(&mut sender, &self.url).await {
                Err(Failure::NotSent) => self.counts().reopened += 1,
                answer => return self.keep(sender, answer),
            }
        }
        let mut sender = open(&self.url).await?;
        let answer = ask(&mut sender, &self.url).await;
        self.keep(sender, answer)
    }

    fn keep(&self, sender: SendRequest<Empty<Bytes>>, answer: Result<Answer, Failure>) -> Result<Answer, Failure> {
        if answer.is_ok() {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
        answer
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request got no answer.
#[derive(Debug)]
enum Failure {
    /// Nobody took the connection.
    Refused(String),
    /// The name, the connection or the answer failed.
    Broken(String),
    /// The connection was closed before the request went out.
    NotSent,
    /// No answer in time.
    TimedOut,
}

impl Failure {
    fn into_error(self) -> DemoError {
        DemoError::Answer(match self {
            Self::Refused(text) | Self::Broken(text) => text,
            Self::NotSent => "the connection was closed".to_owned(),
            Self::TimedOut => "no answer in time".to_owned(),
        })
    }
}

fn is_good(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// Host and port of an address.
fn target(url: &Uri) -> Result<(&str, u16), DemoError> {
    match (url.scheme_str(), url.host()) {
        (Some("http"), Some(host)) => Ok((host, url.port_u16().unwrap_or(80))),
        _ => Err(DemoError::Address(url.to_string())),
    }
}

async fn open(url: &Uri) -> Result<SendRequest<Empty<Bytes>>, Failure> {
    let broken = |error: &dyn std::fmt::Display| Failure::Broken(error.to_string());
    let (host, port) = target(url).map_err(|error| broken(&error))?;
    let stream = connect_any(host, port).await.map_err(|error| match &error {
        DemoError::Io { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
            Failure::Refused(error.to_string())
        }
        _ => broken(&error),
    })?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // Its error is the one that the request gets too.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, url: &Uri) -> Result<Answer, Failure> {
    let broken = |error: hyper::Error| {
        if error.is_canceled() { Failure::NotSent } else { Failure::Broken(error_text(&error)) }
    };
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let host = url.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path).header(http::header::HOST, host).body(Empty::new());
    let request = request.map_err(|error| Failure::Broken(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
    Ok(Answer { status, body })
}

/// An error with its cause: hyper's own text is only `connection error`.
fn error_text(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// A request that is over.
struct Done {
    at: Duration,
    took: Duration,
    kept: bool,
    result: Result<Answer, Failure>,
}

/// What came back, while it comes.
#[derive(Default)]
struct Counts {
    skipped: u64,
    reopened: u64,
    new: Tally,
    kept: Tally,
    servers: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    latencies: Vec<Duration>,
    /// When each request was sent, and whether it got its answer.
    history: Vec<(Duration, bool)>,
}

/// How requests of one kind of connection ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Tally {
    /// Answered with 2xx or 3xx.
    ok: u64,
    /// Answered with anything else.
    bad_status: u64,
    /// Nobody took the connection.
    refused: u64,
    /// Cut off, or not to be understood, or without an address.
    broken: u64,
    /// Not answered in time.
    timed_out: u64,
}

impl Counts {
    fn add(&mut self, done: Done) {
        let tally = if done.kept { &mut self.kept } else { &mut self.new };
        let mut error = None;
        let answered = matches!(&done.result, Ok(answer) if is_good(answer.status));
        match done.result {
            Ok(answer) if is_good(answer.status) => {
                tally.ok += 1;
                self.latencies.push(done.took);
                if let Some(server) = server_name(&answer.body) {
                    *self.servers.entry(server).or_default() += 1;
                }
            }
            Ok(answer) => {
                tally.bad_status += 1;
                error = Some(answer.status.to_string());
            }
            Err(Failure::Refused(text)) => {
                tally.refused += 1;
                error = Some(text);
            }
            Err(Failure::TimedOut) => tally.timed_out += 1,
            Err(failure @ (Failure::Broken(_) | Failure::NotSent)) => {
                tally.broken += 1;
                error = Some(failure.into_error().to_string());
            }
        }
        self.history.push((done.at, answered));
        if let Some(text) = error {
            let room = self.errors.len() < MAX_KINDS || self.errors.contains_key(&text);
            *self.errors.entry(if room { text } else { "other".to_owned() }).or_default() += 1;
        }
    }

    fn report(&mut self) -> Report {
        let sum = |get: fn(&Tally) -> u64| get(&self.new) + get(&self.kept);
        let ok = sum(|tally| tally.ok);
        let refused = sum(|tally| tally.refused);
        let failed = sum(|tally| tally.bad_status + tally.broken + tally.timed_out);
        self.latencies.sort_unstable();
        self.history.sort_unstable();
        Report {
            requests: ok + refused + failed,
            ok,
            failed,
            refused,
            skipped: self.skipped,
            reopened: self.reopened,
            new: self.new,
            kept: self.kept,
            p50_ms: percentile(&self.latencies, 50),
            p99_ms: percentile(&self.latencies, 99),
            max_ms: percentile(&self.latencies, 100),
            longest_outage_ms: longest_outage(&self.history).as_secs_f64() * 1000.0,
            servers: self.servers.clone(),
            errors: self.errors.clone(),
        }
    }
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct Report {
    /// Requests made.
    requests: u64,
    /// Answered with 2xx or 3xx.
    ok: u64,
    /// All that are neither ok nor refused.
    failed: u64,
    /// Nobody took the connection.
    refused: u64,
    /// Not sent, because too many were under way.
    skipped: u64,
    /// Kept connections found closed before anything was sent on them; those requests went over new ones.
    reopened: u64,
    /// Requests over new connections.
    new: Tally,
    /// Requests over kept connections.
    kept: Tally,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Longest time from the first request that failed to the next that did not.
    longest_outage_ms: f64,
    /// Answers by `Hostname:`.
    servers: BTreeMap<String, u64>,
    /// Failures by their text.
    errors: BTreeMap<String, u64>,
}

fn server_name(body: &[u8]) -> Option<String> {
    let line = body.split(|byte| *byte == b'\n').next()?;
    Some(std::str::from_utf8(line).ok()?.strip_prefix("Hostname: ")?.to_owned())
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
}

/// `history` is in order of time. An outage that lasts to the end counts up to the last request.
fn longest_outage(history: &[(Duration, bool)]) -> Duration {
    let mut longest = Duration::ZERO;
    let mut since = None;
    for (at, ok) in history {
        if let Some(since) = since {
            longest = longest.max(at.saturating_sub(since));
        }
        since = if *ok { None } else { since.or(Some(*at)) };
    }
    longest
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.01..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("expected requests a second, from 0.01 to 100000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::web::testing::with_server;
    use super::*;

    fn args(url: &str, connections: Connections) -> ClientArgs {
        let url = url.parse().expect("an address");
        ClientArgs { url, rate: 200.0, seconds: 1, connections, timeout_ms: 2000 }
    }

    #[tokio::test]
    async fn every_request_is_counted_once() {
        let report = with_server(|at| async move { measure(&args(&format!("http://{at}/"), Connections::Both)).await });
        let report = report.await.expect("a report");
        assert!(report.requests >= 150, "{report:?}");
        assert_eq!((report.ok, report.failed, report.refused), (report.requests, 0, 0), "{report:?}");
        assert!(report.new.ok > 0 && report.kept.ok > 0, "{report:?}");
        assert_eq!(report.servers.values().sum::<u64>(), report.ok);
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let report = measure(&args("http://127.0.0.1:1/", Connections::New)).await.expect("a report");
        assert!(report.refused > 0 && report.ok == 0 && report.failed == 0, "{report:?}");
        assert!(report.longest_outage_ms > 500.0, "{report:?}");
    }

    #[tokio::test]
    async fn a_probe_fails_unless_the_answer_is_a_success() {
        with_server(|at| async move {
            let probe = |path: &str| probe_of(format!("http://{at}{path}"));
            assert!(probe("/health").await.is_ok());
            assert!(probe("/health?ok=false").await.is_err());
        })
        .await;
        assert!(probe_of("http://127.0.0.1:1/".to_owned()).await.is_err());
        assert!(probe_of("https://127.0.0.1/".to_owned()).await.is_err());
    }

    async fn probe_of(url: String) -> Result<Exit, DemoError> {
        probe(&url.parse().expect("an address"), Duration::from_secs(5), false).await
    }

    #[test]
    fn an_outage_lasts_from_the_first_failure_to_the_next_success() {
        let at = Duration::from_millis;
        let history = [(0, true), (10, false), (20, false), (40, true), (50, false), (55, true)];
        let history: Vec<_> = history.map(|(ms, ok)| (at(ms), ok)).into();
        assert_eq!(longest_outage(&history), at(30));
        assert_eq!(longest_outage(&history[..1]), at(0));
        assert_eq!(longest_outage(&[(at(5), false), (at(25), false)]), at(20));
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let list: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        let near = |percent, ms: f64| assert!((percentile(&list, percent) - ms).abs() < 1e-6, "{percent}");
        near(50, 50.0);
        near(99, 99.0);
        near(100, 100.0);
    }
}
