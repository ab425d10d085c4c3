//! The general path: pingora's HTTP proxy, lent a connection for one request, or for good where the client speaks HTTP/2.
//!
//! It does what the fast path does not: HTTP/2 and gRPC on either side, protocols that take over, uploads, chunked requests, `Expect`,
//! HTTP/1.0. Which pod a request goes to, what it is told of the client, and what is counted is the same on both.
//!
//! Each thread has one proxy, and with it connections to pods of its own.

mod fields;
mod lend;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::time::Instant;

use super::Http;
use super::answer::Fault;
use super::count::{Counting, Ending};
use super::head::{is_idempotent, is_ill};
use super::held::{Held, LITTLE};
use super::link::{self, Connector, Link};
use super::log::AccessAsked;
use super::refusal::Refusal;
use super::visit::{Busy, Destination, Visit, Way, way};
use crate::lb::Trouble;
use crate::lb::balance::Wish;
use crate::lb::choose::{Failure, Next, Search};
use fields::Facts;
use lend::visit_of;

pub(super) use lend::{serve_http2, serve_request};

/// Requests at a time on one connection to a pod that speaks HTTP/2.
const STREAMS: usize = 128;

/// Kept connections of HTTP/2 that a request may fail on before that counts as any other failure, and pods that may break it
/// off before that is told.
const MAX_STALE: u32 = 2;
const MAX_BROKEN: u32 = 1;

/// Bytes of a body that pingora keeps to send it again.
const KEPT_BODY: usize = 64 * 1024;

/// What pingora asks.
pub(super) struct General {
    http: Arc<Http>,
}

/// What is known of a request on its way.
pub(super) struct Ctx {
    began: Instant,
    visit: Option<Arc<Visit>>,
    _busy: Option<Busy>,
    to: Option<Destination>,
    /// What of it counts in the choice of a pod.
    wish: Wish,
    search: Option<Search>,
    /// The pod that it goes to.
    next: Option<Next>,
    connector: Option<Arc<Connector>>,
    link: Option<Arc<Link>>,
    stale: u32,
    broken: u32,
    /// Whether anything of an answer came.
    has_begun: bool,
    /// Whether the pod failed by the status of its answer.
    is_ill: bool,
    /// Whether the body of the answer ends with the connection.
    until_close: bool,
    /// Why its head is not passed on.
    fault: Option<Fault>,
    refusal: Option<Refusal>,
    made_id: OnceLock<[u8; 32]>,
    counting: Counting,
    line: Option<AccessAsked>,
    /// What is held of its head, and of its body until its answer has begun.
    held: Held,
    head: usize,
    body: usize,
}

/// An error that ends a request with an answer of ours.
fn refuse<T>(ctx: &mut Ctx, refusal: Refusal) -> Result<T> {
    ctx.refusal = Some(refusal);
    Err(Error::new_in(ErrorType::HTTPStatus(refusal.status())))
}

#[async_trait]
impl ProxyHttp for General {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx {
            began: Instant::now(),
            visit: None,
            _busy: None,
            to: None,
            wish: Wish::default(),
            search: None,
            next: None,
            connector: None,
            link: None,
            stale: 0,
            broken: 0,
            has_begun: false,
            is_ill: false,
            until_close: false,
            fault: None,
            refusal: None,
            made_id: OnceLock::new(),
            counting: Counting::default(),
            line: None,
            held: Held::default(),
            head: 0,
            body: 0,
        }
    }

    /// Compression is between the client and the pod.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let visit = session.digest().and_then(|digest| visit_of(digest.proxy_digest.as_ref()?)).cloned();
        let visit = visit.ok_or_else(|| Error::new_in(ErrorType::InternalError))?;
        ctx._busy = Some(visit.begin());
        if session.is_http2() {
            session.set_write_timeout(Some(self.http.limits.write));
        } else if session.is_upgrade_req() || fields::closes(session.req_header()) {
            // Whatever comes of an upgrade, nothing of this protocol follows. Who closes may say so in any line.
            session.set_keepalive(None);
        }
        if session.req_header().version == http::Version::HTTP_10 {
            // It knows no answer before the answer, nor how to wait for one. Source: RFC 9110, sections 10.1.1, 15.2.
            session.req_header_mut().remove_header(&http::header::EXPECT);
            session.set_ignore_info_resp(true);
        }
        ctx.head = fields::size(session.req_header());
        // What is not whole has less; so have protocols that take over and large heads, which pingora keeps as long as it lasts.
        let room = self.http.room;
        let is_short = session.is_body_empty() && !session.is_upgrade_req() && ctx.head <= LITTLE;
        if !ctx.held.set(ctx.head, if is_short { room.whole } else { room.begun }) {
            self.http.count_crowded();
            return refuse(ctx, Refusal::Exhausted);
        }
        let facts = match Facts::of(session.req_header()) {
            Ok(facts) => facts,
            Err(wrong) => return refuse(ctx, wrong.into()),
        };
        let way = {
            let routing = self.http.shared.routing();
            way(&visit, &routing, &facts.asked(&|name, value| facts.has_header(name, value)), &facts.target)
        };
        if self.http.log.is_on() {
            ctx.line =
                Some(fields::line(session.req_header(), &facts, ctx.made_id.get_or_init(super::forward::request_id)));
        }
        ctx.visit = Some(visit);
        match way {
            Way::To(to) => {
                ctx.counting.with(&to.pool().tally);
                if let Some(rule) = to.rule() {
                    ctx.counting.with(&rule.tally);
                }
                ctx.wish = facts.wish(&to.pool().balanced);
                ctx.to = Some(to);
                Ok(false)
            }
            Way::Redirect { rule, status, location } => {
                ctx.counting.with(&rule.tally);
                let mut answer = ResponseHeader::build(status, Some(3))?;
                answer.insert_header(http::header::LOCATION, location)?;
                answer.insert_header(http::header::CONTENT_LENGTH, 0)?;
                session.write_response_header(Box::new(answer), true).await?;
                Ok(true)
            }
            Way::NoRule => refuse(ctx, Refusal::NoRule),
            Way::Unclear => refuse(ctx, Refusal::Malformed),
            Way::Gone => refuse(ctx, Refusal::NoneReady),
        }
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let (Some(to), Some(visit)) = (&ctx.to, &ctx.visit) else {
            return Err(Error::new_in(ErrorType::InternalError));
        };
        let search = ctx.search.get_or_insert_with(|| {
            let (door, client) = (Arc::clone(to.door()), visit.peer.ip());
            Search::new(&self.http.shared, door, client, self.http.hold).wishing(ctx.wish)
        });
        let next = match search.next().await {
            Ok(next) => next,
            Err(fruitless) => return refuse(ctx, fruitless.into()),
        };
        let connector = Connector::new(search.dial(&next));
        let peer = peer(&next, to, Arc::clone(&connector), self.http.limits.write);
        ctx.counting.with(&next.lease.tally);
        (ctx.next, ctx.connector) = (Some(next), Some(connector));
        Ok(Box::new(peer))
    }

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
        let failure = ctx.connector.take().map_or(Failure::Endpoint, |connector| connector.failure());
        ctx.give_up(failure);
        // Nothing was sent: whatever the method, another pod may take it. The search ends by its time.
        error.set_retry(true);
        error
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        _: &HttpPeer,
        _: std::os::fd::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let Some(next) = &ctx.next else { return Ok(()) };
        if !reused {
            next.lease.note_success(next.address().port());
        }
        ctx.link = link::of(digest);
        if let Some(link) = &ctx.link {
            link.begin();
        }
        if !session.is_body_empty() {
            self.expect_more(session, ctx);
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        bytes: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let Some(bytes) = bytes.as_ref().filter(|_| !ctx.has_begun) {
            ctx.body = (ctx.body + bytes.len()).min(KEPT_BODY);
            let room = self.http.room;
            if !ctx.held.set(ctx.head + ctx.body, if end { room.whole } else { room.begun }) {
                self.http.count_crowded();
                return refuse(ctx, Refusal::Exhausted);
            }
        }
        if !end {
            self.expect_more(session, ctx);
            return Ok(());
        }
        // While the client sends it is the client's time. One connection of HTTP/2 has many requests: each has its own
        // limit there.
        if let Some((link, to)) = ctx.link.as_ref().zip(ctx.to.as_ref())
            && !to.protocol().is_http2()
        {
            if ctx.has_begun { link.sent() } else { link.expect(self.http.answer_within(to)) }
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let (Some(to), Some(visit)) = (&ctx.to, &ctx.visit) else { return Ok(()) };
        let id = ctx.made_id.get_or_init(super::forward::request_id);
        fields::forward(session.req_header(), request, to, &visit.client, id)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.has_begun = true;
        ctx.held.force(ctx.head);
        if let Some(fault) = fields::fault(answer, session.is_upgrade_req()) {
            ctx.fault = Some(fault);
            return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
        }
        if fields::bare(answer)
            && let Some(link) = &ctx.link
        {
            link.part();
        }
        if answer.status.is_informational() && answer.status.as_u16() != 101 {
            return Ok(());
        }
        if let Some(link) = &ctx.link {
            link.answered();
        }
        ctx.until_close = fields::ends_with_connection(session.req_header(), answer);
        fields::clean(answer)?;
        if let Some((next, visit)) = ctx.next.as_ref().zip(ctx.visit.as_ref()) {
            ctx.is_ill = is_ill(answer.status.as_u16());
            if ctx.is_ill {
                next.note_ill(&self.http.shared);
            }
            if let Some(cookie) = next.cookie(ctx.wish, visit.client.is_tls) {
                answer.append_header(http::header::SET_COOKIE, cookie)?;
            }
        }
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, answer: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        if session.is_http2() {
            return Ok(());
        }
        let is_final = !answer.status.is_informational();
        if is_final && session.req_header().version == http::Version::HTTP_10 {
            if fields::is_chunked_later(session.req_header(), answer) {
                return refuse(ctx, Refusal::Version);
            }
            // It reads no chunks: the answer ends with the connection. Source: RFC 9112, section 6.1.
            if answer.remove_header(&http::header::TRANSFER_ENCODING).is_some() {
                session.set_keepalive(None);
            }
        }
        if is_final && self.http.is_stopping() {
            session.set_keepalive(None);
        }
        answer.set_version(http::Version::HTTP_11);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        // The end of a connection that broke is not the end of an answer.
        if end && ctx.until_close && ctx.link.as_ref().is_some_and(|link| link.is_broken()) {
            return Err(Error::new_up(ErrorType::ConnectionClosed));
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Ctx,
        reused: bool,
    ) -> Box<Error> {
        let is_starved = ctx.link.as_ref().is_some_and(|link| link.is_starved());
        let is_theirs = *error.esource() == ErrorSource::Upstream && !is_starved;
        let is_late = ctx.link.as_ref().is_some_and(|link| link.is_late())
            || matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout) && is_theirs;
        // One of HTTP/1 went with its request; one of HTTP/2 may be found again and again.
        let is_http2 = ctx.to.as_ref().is_some_and(|to| to.protocol().is_http2());
        let is_stale = reused && (!is_http2 || ctx.stale < MAX_STALE);
        // What goes wrong once its head is known is its body.
        let is_head = is_theirs && !has_answer(session);
        let fault = ctx.fault.or_else(|| fields::fault_of(&error).filter(|_| is_head));
        // Whatever the method: the pod says that it did nothing. How often it may say so is up to the search.
        let is_untouched = fields::is_untouched(&error);
        let is_harmless = is_idempotent(session.req_header().method.as_str()) && (is_stale || ctx.broken < MAX_BROKEN);
        let may_repeat = (is_untouched || is_harmless)
            && !session.as_ref().retry_buffer_truncated()
            && !ctx.has_begun
            && fault.is_none()
            && *error.etype() != ErrorType::InvalidHTTPHeader
            && !is_late
            && is_theirs;
        if is_starved {
            ctx.refusal = Some(Refusal::SlowClient);
        } else if is_late {
            ctx.refusal = Some(Refusal::Late);
        } else if is_theirs && ctx.refusal.is_none() {
            ctx.refusal = Some(fault.map_or(Refusal::Broken, Refusal::Answer));
        }
        let what = match fault {
            _ if is_late => Some(Trouble::Late),
            Some(fault) => Some(fault.into()),
            None => (is_theirs && !is_untouched).then_some(Trouble::Broken),
        };
        // A kept connection may end at any time.
        let is_told = is_late || fault.is_some() || !reused || ctx.has_begun;
        if let Some((what, next)) = what.filter(|_| is_told).zip(ctx.next.as_ref()) {
            next.lease.troubles.note(next.address().port(), what, self.http.shared.now());
        }
        if may_repeat {
            ctx.refusal = None;
            let is_stale = is_stale || (is_untouched && ctx.stale == 0);
            let count = if is_stale { &mut ctx.stale } else { &mut ctx.broken };
            *count += 1;
            ctx.give_up(if is_stale { Failure::Overtaken } else { Failure::Endpoint });
        }
        error.set_retry(may_repeat);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        let refusal = ctx.refusal.or_else(|| fields::refusal(error));
        ctx.refusal = refusal;
        let mut code = refusal.map_or(0, Refusal::status);
        if let Some(refusal) = refusal.filter(|_| !has_answer(session)) {
            let is_head = session.req_header().method == http::Method::HEAD;
            let answered = fields::answer(refusal, is_head);
            let sent = match answered {
                Ok((answer, body)) => session.write_error_response(answer, body).await,
                Err(error) => Err(error),
            };
            if sent.is_err() {
                code = 0;
            }
        }
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        if let Some(link) = ctx.link.take() {
            link.end();
        }
        let status = session.response_written().map_or(0, |answer| answer.status.as_u16());
        let (sent, received) = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
        let refusal = ctx.refusal.filter(|refusal| refusal.status() == status);
        let is_whole = error.is_none() || refusal.is_some();
        if let Some(visit) = ctx.visit.as_ref().filter(|_| status > 0 && !is_whole && !session.is_http2()) {
            visit.cut();
        }
        ctx.counting.ending = Ending { status, refusal, is_whole, took: ctx.began.elapsed(), sent, received };
        if let Some(next) = &ctx.next {
            let is_theirs = match ctx.refusal {
                Some(Refusal::Broken | Refusal::Answer(_) | Refusal::Late) => true,
                Some(Refusal::SlowClient) => false,
                _ => error.is_some_and(|error| *error.esource() == ErrorSource::Upstream),
            };
            match error {
                // It was noted when its head came.
                _ if ctx.is_ill => {}
                None => next.note_well(),
                Some(_) if is_theirs => next.note_ill(&self.http.shared),
                Some(_) => {}
            }
            next.lease.sent.fetch_add(sent, std::sync::atomic::Ordering::Relaxed);
            next.lease.received.fetch_add(received, std::sync::atomic::Ordering::Relaxed);
        }
        if let Some((line, visit)) = ctx.line.take().zip(ctx.visit.as_ref()) {
            self.http.log.write(&line, visit, ctx.to.as_ref(), ctx.next.as_ref(), &ctx.counting.ending);
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Ctx, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

impl Ctx {
    /// Leaves the pod that it was sent to.
    fn give_up(&mut self, failure: Failure) {
        if let Some(link) = self.link.take() {
            link.end();
        }
        let Some(next) = self.next.take() else { return };
        self.counting.without(&next.lease.tally);
        if let Some(search) = &mut self.search {
            search.note_failure(&next, failure);
        }
    }
}

impl General {
    /// Bounds the wait for more of a request of HTTP/2. Those of HTTP/1 are bounded where they are read, and calls of pods that
    /// speak HTTP/2 may say nothing for hours.
    fn expect_more(&self, session: &Session, ctx: &Ctx) {
        if let Some((link, to)) = ctx.link.as_ref().zip(ctx.to.as_ref())
            && session.is_http2()
            && !to.protocol().is_http2()
        {
            link.expect_more(self.http.limits.body);
        }
    }
}

impl Http {
    /// Returns the time for the head of an answer.
    fn answer_within(&self, to: &Destination) -> Duration {
        to.timeout().unwrap_or(self.limits.answer)
    }
}

/// Returns whether the client has the head of its answer. Those before it (`1xx`) are none, but for the one that ends the protocol.
fn has_answer(session: &Session) -> bool {
    session.response_written().is_some_and(|answer| !answer.status.is_informational() || answer.status.as_u16() == 101)
}

/// Returns what pingora connects to, or takes from its pool.
fn peer(next: &Next, to: &Destination, connector: Arc<Connector>, write: Duration) -> HttpPeer {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    // A stream to another host has no address of its own. This one is never connected to, and passes for every socket's.
    let address = match next.remote() {
        Some(_) => std::net::SocketAddr::from(([0, 0, 0, 0], next.address().port())),
        None => next.address(),
    };
    let mut peer = HttpPeer::new(address, false, String::new());
    let mut hasher = DefaultHasher::new();
    (next.lease.number, next.address()).hash(&mut hasher);
    peer.group_key = hasher.finish();
    peer.options.custom_l4 = Some(connector);
    peer.options.write_timeout = Some(write);
    if to.protocol().is_http2() {
        peer.options.set_http_version(2, 2);
        peer.options.max_h2_streams = STREAMS;
        peer.options.read_timeout = to.timeout();
    }
    peer
}
