//! Pods that speak HTTP by script, and clients that show what came back.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::script::{Message, first_answer, read_message};
use crate::host::sockets::reset_on_close;
use crate::lb::http::{HttpOptions, Limits};
use crate::lb::table::{LbTable, Published};
use crate::lb::tests::site::{DEADLINE, Pod, Site, in_time};
use crate::lb::{Balancer, BalancerOptions, ServiceStats};
use crate::model::AppProtocol;

/// A site whose published port is balanced by request.
pub(super) struct HttpSite {
    site: Site,
    protocol: AppProtocol,
}

impl Deref for HttpSite {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl HttpSite {
    pub(super) async fn new(is_fast: bool) -> Self {
        Self::with(HttpOptions { is_fast, ..HttpOptions::default() }, AppProtocol::Http).await
    }

    pub(super) async fn with(http: HttpOptions, protocol: AppProtocol) -> Self {
        Self::of(BalancerOptions { hold: DEADLINE, http, ..BalancerOptions::default() }, protocol).await
    }

    pub(super) async fn of(options: BalancerOptions, protocol: AppProtocol) -> Self {
        Self { site: Site::new(options).await, protocol }
    }

    /// The table whose published port leads to these pods.
    pub(super) fn http_table(&self, pods: &[u8]) -> LbTable {
        let mut table = self.site.table(pods);
        for Published { target, backend } in table.published.values_mut() {
            let mut with_http = (**backend).clone();
            with_http.http = BTreeMap::from([(*target, self.protocol)]);
            *backend = Arc::new(with_http);
        }
        table
    }

    #[track_caller]
    pub(super) fn set(&self, pods: &[u8]) {
        let errors = self.balancer.set_table(&self.http_table(pods));
        assert!(errors.is_empty(), "{errors:?}");
    }

    /// Starts a pod that answers each request by the next of `answers`, the last one again and again.
    pub(super) async fn scripted(&self, number: u8, answers: &[Answer]) -> Scripted {
        scripted(&self.site, number, answers).await
    }

    pub(super) fn into_balancer(self) -> Balancer {
        self.site.balancer
    }

    pub(super) fn service(&self) -> ServiceStats {
        self.balancer.stats().services.into_iter().next().expect("one service")
    }

    /// Sends bytes on a connection of its own, and no more; returns all that comes back.
    pub(super) async fn send(&self, bytes: &[u8]) -> Reply {
        exchange(self.site.connect().await, bytes).await
    }

    /// Sends a request and returns the answer as text.
    pub(super) async fn get(&self, request: &str) -> String {
        let reply = self.send(request.replace('|', "\r\n").as_bytes()).await;
        String::from_utf8_lossy(&reply.bytes).into_owned()
    }
}

/// Starts a pod that answers each request by the next of `answers`, the last one again and again.
pub(super) async fn scripted(site: &Site, number: u8, answers: &[Answer]) -> Scripted {
    let heard: Arc<Mutex<Vec<Message>>> = Arc::default();
    let (answers, log): (Arc<[Answer]>, _) = (answers.into(), Arc::clone(&heard));
    let at = Arc::new(Mutex::new(0));
    let pod =
        site.pod(number, move |stream| talk(stream, Arc::clone(&answers), Arc::clone(&at), Arc::clone(&log))).await;
    Scripted { _pod: pod, heard }
}

/// A client that keeps its connection.
pub(super) struct Dialog<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

impl Dialog {
    pub(super) async fn new(site: &Site) -> Self {
        Self::on(site.connect().await)
    }

    pub(super) fn reset(self) {
        reset_on_close(&self.stream);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Dialog<S> {
    pub(super) fn on(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// Sends what is written; `|` is a line end.
    pub(super) async fn write(&mut self, text: &str) {
        assert!(self.try_write(text).await, "the connection is open");
    }

    pub(super) async fn try_write(&mut self, text: &str) -> bool {
        in_time(self.stream.write_all(text.replace('|', "\r\n").as_bytes())).await.is_ok()
    }

    /// Reads the next final answer.
    pub(super) async fn read(&mut self) -> Message {
        loop {
            if let Some((answer, used)) = first_answer(&self.unread) {
                self.unread.drain(..used);
                return answer;
            }
            let read = in_time(self.stream.read_buf(&mut self.unread)).await.expect("open");
            assert!(read > 0, "ended after {}", self.unread.escape_ascii());
        }
    }

    pub(super) async fn ask(&mut self, request: &str) -> Message {
        self.write(request).await;
        self.read().await
    }

    /// Reads until `text` has come, and takes it with all before it.
    pub(super) async fn read_until(&mut self, text: &str) {
        loop {
            if let Some(at) = self.unread.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.unread.drain(..at + text.len());
                return;
            }
            let read = in_time(self.stream.read_buf(&mut self.unread)).await.expect("open");
            assert!(read > 0, "ended after {}", self.unread.escape_ascii());
        }
    }

    /// Reads to the end.
    pub(super) async fn read_all(&mut self) -> String {
        // A reset is an end, too.
        let _end = in_time(self.stream.read_to_end(&mut self.unread)).await;
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// Reads to the end; returns whether that was a reset.
    pub(super) async fn is_reset(&mut self) -> bool {
        in_time(self.stream.read_to_end(&mut self.unread)).await.is_err()
    }

    /// Returns whether an answer or an end has come by now.
    pub(super) async fn has_ended(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.unread);
        tokio::time::timeout(Duration::from_millis(1), read).await.is_ok()
    }

    /// Returns whether the other side ends the connection without another word.
    pub(super) async fn is_over(&mut self) -> bool {
        self.read_all().await.is_empty()
    }

    pub(super) async fn close(mut self) {
        self.stream.shutdown().await.expect("open");
    }
}

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    /// How the connection ended.
    pub(super) end: End,
}

/// How a connection ended for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In peace.
    Closed,
    /// With a reset.
    Reset,
    /// Not within the time that a test has.
    Open,
}

/// Time for what should come at once.
const SOON: Duration = Duration::from_secs(8);

/// Sends bytes and then an end; returns all that comes back.
pub(super) async fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Reply {
    let (mut read, mut write) = stream.split();
    let mut got = Vec::new();
    let sending = async {
        // Who is refused in the middle of what it sends hears of it.
        let _refused = write.write_all(bytes).await;
        let _refused = write.shutdown().await;
    };
    let both = async { tokio::join!(sending, read.read_to_end(&mut got)).1 };
    let end = match tokio::time::timeout(SOON, both).await {
        Ok(Ok(_)) => End::Closed,
        Ok(Err(_)) => End::Reset,
        Err(_) => End::Open,
    };
    Reply { bytes: got, end }
}

/// What a pod answers to a request.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) then: Then,
}

/// What it does after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It waits for another request.
    Go,
    /// It closes its connection.
    Close,
    /// It resets its connection.
    Reset,
}

impl Answer {
    pub(super) fn new(text: &str) -> Self {
        Self { bytes: text.replace('|', "\r\n").into_bytes(), then: Then::Go }
    }

    pub(super) fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }
}

/// A pod that answers by script.
pub(super) struct Scripted {
    _pod: Pod,
    heard: Arc<Mutex<Vec<Message>>>,
}

impl Scripted {
    pub(super) fn heard(&self) -> Vec<Message> {
        self.heard.lock().expect("not poisoned").clone()
    }
}

async fn talk(mut stream: TcpStream, answers: Arc<[Answer]>, at: Arc<Mutex<usize>>, log: Arc<Mutex<Vec<Message>>>) {
    let mut unread = Vec::new();
    while let Some(message) = read_message(&mut stream, &mut unread).await {
        log.lock().expect("not poisoned").push(message);
        let Answer { bytes, then } = {
            let mut at = at.lock().expect("not poisoned");
            let answer = answers[(*at).min(answers.len() - 1)].clone();
            *at += 1;
            answer
        };
        // Bytes in pieces, as they may come over a network.
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        match then {
            Then::Go => {}
            Then::Close => return,
            Then::Reset => return reset_on_close(&stream),
        }
    }
}

/// Limits that a test need not wait long for.
pub(super) fn short() -> Limits {
    let [short, long] = [300, 20_000].map(Duration::from_millis);
    Limits { head: short, idle: long, body: short, write: long, answer: short }
}
