//! A client's connection over HTTP/1: request after request, each by the path that can serve it.
//!
//! ```text
//! wait ─→ read a head ─→ simple? ─→ fast path ─────────→ wait
//!            │ bad: answer, close     └─→ general path ─→ wait (or the end, when it became something else)
//! ```
//!
//! Bytes of the client are taken from its connection here only, and are in `unread` until the request that they belong to
//! is served: so neither path ever sees a byte of another request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::buffer::Buffer;
use super::count::{Counting, Ending};
use super::fast::Job;
use super::forward::{self, Onward, request_id};
use super::head::{self, Begins, Body, MAX_HEAD, RequestHead};
use super::held::Held;
use super::log::AccessAsked;
use super::refusal::{Refusal, write_redirect};
use super::route::{Asked, split_target};
use super::stream::{ClientIo, Fence, close};
use super::transfer::{Lost, receive, receive_late, send};
use super::visit::{Visit, Way, way};
use super::watch::{On, Over, Watch};
use super::wish::wish;
use super::{Http, general};

/// Room for more of a head.
const MORE: usize = 1024;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) http: Arc<Http>,
    pub(super) visit: Arc<Visit>,
    pub(super) io: ClientIo,
    /// Read, but of no request that was served.
    pub(super) unread: Buffer,
    pub(super) watch: Watch,
    /// What it holds while it waits.
    pub(super) held: Held,
}

/// What comes after a request.
pub(super) enum Step {
    /// The next one.
    Again,
    /// The end, after all was sent.
    Close,
    /// The end, with something unsent: the client must notice.
    Abort,
    /// The general path serves the request.
    Lend(Fence),
    /// The client speaks HTTP/2.
    Http2,
}

/// What is to be done with a head.
enum Plan {
    Partial,
    Http2,
    Refuse(Refusal),
    General(Fence),
    /// To answer it here, once its body was read.
    Answer(Box<Own>),
    Fast(Box<Job>),
}

/// An answer of the balancer's own.
struct Own {
    answer: Vec<u8>,
    status: u16,
    request: Request,
    counting: Counting,
}

/// What is kept of a simple request while it is served.
#[derive(Debug)]
pub(super) struct Request {
    /// Bytes of its head and body.
    pub(super) head: usize,
    pub(super) body: usize,
    pub(super) is_head: bool,
    pub(super) keep_alive: bool,
    pub(super) began: Instant,
    /// For the access log, if that is on.
    pub(super) line: Option<AccessAsked>,
}

/// Serves a connection to its end.
pub(super) async fn serve(http: Arc<Http>, visit: Arc<Visit>, io: ClientIo) {
    let is_http2 = io.chose_http2();
    let watch = Watch::new(&http.stop);
    let mut connection = Connection { http, visit, io, unread: Buffer::default(), watch, held: Held::default() };
    if is_http2 {
        return Box::pin(general::serve_http2(connection)).await;
    }
    loop {
        match connection.step().await {
            Step::Again => {}
            Step::Close => return Box::pin(close(connection.io)).await,
            Step::Abort => return connection.io.abort(),
            Step::Http2 => return Box::pin(general::serve_http2(connection)).await,
            Step::Lend(fence) => match Box::pin(general::serve_request(connection, fence)).await {
                Some(back) => connection = back,
                None => return,
            },
        }
    }
}

impl Connection {
    /// Serves one request, or says who is to.
    async fn step(&mut self) -> Step {
        if self.unread.is_empty() {
            let limit = self.http.limits.idle;
            let most = self.http.room.whole;
            let first = receive_late(&mut self.io, &mut self.unread, &mut self.watch, limit, On::Balancer, most).await;
            if !matches!(first, Ok(read) if read > 0) {
                return Step::Close;
            }
        }
        match self.read_head().await {
            Err(step) => step,
            Ok(Plan::Partial | Plan::Http2) => Step::Http2,
            Ok(Plan::Refuse(refusal)) => self.refuse(refusal).await,
            Ok(Plan::General(fence)) => Step::Lend(fence),
            Ok(Plan::Fast(job)) => match self.read_body(&job.request).await {
                Ok(()) => self.exchange(*job).await,
                Err(step) => step,
            },
            Ok(Plan::Answer(own)) => match self.read_body(&own.request).await {
                Ok(()) => self.answer(*own).await,
                Err(step) => step,
            },
        }
    }

    /// Reads until there is a whole head, and decides what to do with it.
    async fn read_head(&mut self) -> Result<Plan, Step> {
        let mut until = None;
        let mut looked = 0;
        loop {
            // The first bytes show at once what is no HTTP; after that only an end of lines may end a head.
            if looked == 0 || may_end(&self.unread, looked) {
                match self.plan() {
                    Plan::Partial => {}
                    plan => return Ok(plan),
                }
            }
            looked = self.unread.len();
            self.unread.ready().reserve(MORE);
            if !self.held.set(self.unread.capacity(), self.http.room.begun) {
                return Err(self.refuse(Refusal::Exhausted).await);
            }
            let now = Instant::now();
            let left = until.get_or_insert(now + self.http.limits.head).saturating_duration_since(now);
            let read = receive(&mut self.io, &mut self.unread, &mut self.watch, left, On::Nothing).await;
            match read {
                Ok(read) if read > 0 => {}
                Err(Lost::Over(Over::Time)) => return Err(self.refuse(Refusal::SlowClient).await),
                // Who has said all that he will is told what was wrong with it, however it arrived.
                Ok(_) => match self.plan() {
                    plan @ Plan::Refuse(_) => return Ok(plan),
                    _ => return Err(Step::Close),
                },
                Err(_) => return Err(Step::Close),
            }
        }
    }

    /// Reads until the body of a request is there. What has come takes room, not what was announced.
    async fn read_body(&mut self, request: &Request) -> Result<(), Step> {
        let whole = request.head + request.body;
        while self.unread.len() < whole {
            if !self.held.set(self.unread.capacity(), self.http.room.begun) {
                return Err(self.refuse(Refusal::Exhausted).await);
            }
            let (limit, most) = (self.http.limits.body, self.http.room.whole);
            match receive_late(&mut self.io, &mut self.unread, &mut self.watch, limit, On::Nothing, most).await {
                Ok(read) if read > 0 => {}
                Err(Lost::Over(Over::Time)) => return Err(self.refuse(Refusal::SlowClient).await),
                _ => return Err(Step::Close),
            }
        }
        Ok(())
    }

    /// Decides what to do with what was read so far.
    fn plan(&self) -> Plan {
        let mut room = head::room();
        let head = match head::read(&self.unread, &mut room) {
            Begins::Partial => return Plan::Partial,
            Begins::Http2 => return Plan::Http2,
            Begins::Wrong(wrong) => return Plan::Refuse(wrong.into()),
            Begins::Head(head) => head,
        };
        if !head.is_simple || !self.http.is_fast {
            let fence = if head.is_upgrade { Fence::None } else { Fence::around(head.length, head.body) };
            return Plan::General(fence);
        }
        self.plan_simple(&head)
    }

    fn plan_simple(&self, head: &RequestHead<'_, '_>) -> Plan {
        let has_header = |name: &str, value: &str| {
            let is =
                |field: &httparse::Header<'_>| field.name.eq_ignore_ascii_case(name) && field.value == value.as_bytes();
            head.fields().any(|(_, field)| is(field))
        };
        let path = split_target(head.target).0.as_bytes();
        let asked = Asked { host: head.host, path, method: head.method, has_header: &has_header };
        let routing = self.http.shared.routing();
        let way = way(&self.visit, &routing, &asked, head.target);
        let made = head.request_id.is_empty().then(request_id);
        let line = self.http.log.is_on().then(|| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            AccessAsked {
                method: head.method.to_owned(),
                host: text(head.host),
                path: AccessAsked::path_of(head.target),
                request_id: text(made.as_ref().map_or(head.request_id, |id| id)),
                protocol: "HTTP/1.1",
            }
        });
        let body = match head.body {
            Body::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Body::None | Body::Chunked | Body::UntilClose => 0,
        };
        let mut request = Request {
            head: head.length,
            body,
            is_head: head.method == "HEAD",
            keep_alive: head.keep_alive && !self.http.is_stopping(),
            began: Instant::now(),
            line,
        };
        let mut counting = Counting::default();
        let (answer, status) = match way {
            Way::To(to) => {
                if to.protocol().is_http2() {
                    return Plan::General(Fence::around(head.length, head.body));
                }
                counting.with(&to.pool().tally);
                if let Some(rule) = to.rule() {
                    counting.with(&rule.tally);
                }
                let target = to.rewritten(head.target);
                let onward = Onward {
                    target: target.as_deref().unwrap_or(head.target),
                    host: to.host(),
                    id: made.as_ref().map(<[u8; 32]>::as_slice),
                };
                let mut bytes = Buffer::default();
                forward::write(head, &self.visit.client, onward, bytes.ready());
                let may_repeat = head.is_idempotent();
                let wish = wish(&to.pool().balanced, head.host, &|name, each| {
                    let of_name = head.fields().filter(|(_, field)| field.name.eq_ignore_ascii_case(name));
                    of_name.for_each(|(_, field)| each(field.value));
                });
                return Plan::Fast(Box::new(Job { to, bytes, request, may_repeat, wish, counting }));
            }
            Way::Redirect { rule, status, location } => {
                counting.with(&rule.tally);
                let mut answer = Vec::new();
                write_redirect(status, &location, request.keep_alive, &mut answer);
                (answer, status)
            }
            Way::NoRule | Way::Gone | Way::Unclear => {
                let refusal = match way {
                    Way::Gone => Refusal::NoneReady,
                    Way::Unclear => Refusal::Malformed,
                    _ => Refusal::NoRule,
                };
                // What it was for may never come back.
                request.keep_alive &= refusal == Refusal::NoRule;
                let mut answer = Vec::new();
                refusal.write(request.is_head, request.keep_alive, &mut answer);
                (answer, refusal.status())
            }
        };
        Plan::Answer(Box::new(Own { answer, status, request, counting }))
    }

    /// Sends an answer of the balancer's own to a request that was read.
    async fn answer(&mut self, own: Own) -> Step {
        let Own { answer, status, request, mut counting } = own;
        self.forget(&request);
        let is_whole = self.send(&answer).await.is_ok();
        counting.ending = Ending { status, is_whole, took: request.began.elapsed(), ..Ending::default() };
        if let Some(line) = &request.line {
            self.http.log.write(line, &self.visit, None, None, &counting.ending);
        }
        if is_whole && request.keep_alive { Step::Again } else { Step::Close }
    }

    /// Forgets the bytes of a request that is served: what is left are those of later ones.
    pub(super) fn forget(&mut self, request: &Request) {
        let whole = request.head + request.body;
        self.held.clear();
        if whole >= self.unread.len() {
            // A connection that waits holds no memory.
            self.unread.release();
        } else {
            self.unread.drain(..whole);
        }
    }

    /// Refuses what cannot be told from what may follow it: the connection ends.
    async fn refuse(&mut self, refusal: Refusal) -> Step {
        let mut answer = Vec::new();
        refusal.write(false, false, &mut answer);
        self.unread.release();
        self.held.clear();
        if refusal == Refusal::Exhausted {
            self.http.count_crowded();
        } else {
            self.http.count_refused();
        }
        self.http.log.write_refused(self.visit.peer, refusal);
        if self.send(&answer).await.is_err() { Step::Abort } else { Step::Close }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        send(&mut self.io, bytes, &mut self.watch, self.http.limits.write, On::Nothing).await
    }
}

/// Returns whether a head may end in what was added to `bytes` since there were `looked`.
fn may_end(bytes: &[u8], looked: usize) -> bool {
    let new = &bytes[looked.saturating_sub(3)..];
    bytes.len() >= MAX_HEAD
        || bytes.starts_with(b"PRI ")
        || memchr::memmem::find(new, b"\n\r\n").is_some()
        || memchr::memmem::find(new, b"\n\n").is_some()
}

impl Http {
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
