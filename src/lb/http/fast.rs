//! The fast path: plain HTTP/1.1 requests whose body is short, to pods that speak HTTP/1.1.
//!
//! One buffer and one write for each direction, no task, no channel, no map of header fields. A request is sent to another
//! pod, or again, where that can do no harm: when no connection was made, or when no head of an answer came and the method
//! says that twice is as good as once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{self, AnswerHead, Answers, Fault, Towards};
use super::buffer::Buffer;
use super::connection::{Connection, Request, Step};
use super::count::{Counting, Ending};
use super::head::{self, Body, is_ill};
use super::held::{LITTLE, is_full};
use super::pool;
use super::refusal::Refusal;
use super::stream::LOOK;
use super::transfer::{Following, Lost, Passed, pass_on, receive, receive_late, send};
use super::visit::Destination;
use super::watch::{On, Over};
use crate::host::sockets;
use crate::lb;
use crate::lb::balance::Wish;
use crate::lb::choose::{Failure, Next, Search, Server, first};

/// Room for more of the head of an answer.
const ANSWER: usize = 16 * 1024;

/// First bytes of a body that are copied behind the head rather than written apart.
const TOGETHER: usize = 8 * 1024;

/// Kept connections that may turn out dead before a new one is made, and pods that may break off before that is told.
const MAX_STALE: u32 = 2;
const MAX_BROKEN: u32 = 1;

/// A request to be passed on.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) to: Destination,
    /// Its head for the pod.
    pub(super) bytes: Buffer,
    pub(super) request: Request,
    /// Whether it may be sent twice.
    pub(super) may_repeat: bool,
    /// What of it counts in the choice of a pod.
    pub(super) wish: Wish,
    pub(super) counting: Counting,
}

/// A pod that answers.
struct Answering {
    next: Next,
    server: Server,
    head: AnswerHead,
    /// What was read of it, its head included.
    bytes: Buffer,
    /// Its head for the client.
    out: Buffer,
}

/// Why a pod did not.
enum Trouble {
    /// Its connection ended before a whole head came.
    Silent,
    /// It took too long.
    Late,
    /// It broke off.
    Broken,
    /// What it says cannot be passed on.
    Wrong(Fault),
    /// The client is gone.
    ClientGone,
}

impl Connection {
    /// Passes a request on, and its answer back.
    pub(super) async fn exchange(&mut self, mut job: Job) -> Step {
        let body = job.request.head..job.request.head + job.request.body;
        job.bytes.extend_from_slice(&self.unread[body]);
        // All that there is of it goes on from there; while the pod thinks it need not be here too.
        self.forget(&job.request);
        let room = self.http.room;
        // What follows it has only begun.
        let most = if self.unread.is_empty() { room.whole } else { room.begun };
        let is_room = self.held.set(job.bytes.capacity() + self.unread.capacity(), most);
        let outcome = if is_room {
            self.ask(&mut job).await
        } else {
            self.http.count_crowded();
            Err(Some(Refusal::Exhausted))
        };
        let (keep_alive, pod) = match outcome {
            Ok(answering) => {
                let (step, next) = self.pass_back(&mut job, answering).await;
                match step {
                    Ok(keep_alive) => (keep_alive, Some(next)),
                    Err(abort) => {
                        self.account(&mut job, Some(&next));
                        return abort;
                    }
                }
            }
            Err(None) => {
                self.account(&mut job, None);
                return Step::Abort;
            }
            Err(Some(refusal)) => {
                job.bytes.release();
                self.held.force(self.unread.capacity());
                let mut out = Buffer::default();
                refusal.write(job.request.is_head, job.request.keep_alive, out.ready());
                let is_whole = self.send(&out).await.is_ok();
                let (status, refused) = (refusal.status(), Some(refusal));
                job.counting.ending = Ending { status, refusal: refused, is_whole, ..job.counting.ending };
                (is_whole && job.request.keep_alive, None)
            }
        };
        self.account(&mut job, pod.as_ref());
        self.held.clear();
        if keep_alive { Step::Again } else { Step::Close }
    }

    /// Notes the end of a request.
    fn account(&self, job: &mut Job, pod: Option<&Next>) {
        let ending = &mut job.counting.ending;
        ending.took = job.request.began.elapsed();
        if let Some(line) = &job.request.line {
            self.http.log.write(line, &self.visit, Some(&job.to), pod, ending);
        }
    }

    /// Finds a pod that answers. The error is what the client is told, if it is there.
    async fn ask(&mut self, job: &mut Job) -> Result<Answering, Option<Refusal>> {
        let (mut stale, mut broken) = (0, 0);
        let mut search: Option<Search> = None;
        loop {
            let found = match &mut search {
                None => {
                    let now = self.http.shared.at(job.request.began);
                    first(job.to.pool(), job.to.port(), now, self.visit.peer.ip(), job.wish)
                }
                Some(search) => Some(search.next().await.map_err(Refusal::from)?),
            };
            let Some(next) = found else {
                search = Some(self.search(job));
                continue;
            };
            let kept = if stale < MAX_STALE { pool::take(&next, job.may_repeat) } else { None };
            let is_new = kept.is_none();
            let server = match kept {
                Some(server) => Some(server),
                None => Box::pin(search.get_or_insert_with(|| self.search(job)).connect(&next)).await,
            };
            let Some(mut server) = server else { continue };
            job.counting.with(&next.lease.tally);
            let trouble = match self.talk(job, &next, &mut server).await {
                Ok((head, bytes, out)) => return Ok(Answering { next, server, head, bytes, out }),
                Err(trouble) => trouble,
            };
            // With what was read of its answer its share goes.
            self.held.force(job.bytes.capacity() + self.unread.capacity());
            job.counting.without(&next.lease.tally);
            self.note(&next, &trouble, is_new);
            match trouble {
                Trouble::ClientGone => return Err(None),
                Trouble::Late => {
                    next.note_ill(&self.http.shared);
                    return Err(Some(Refusal::Late));
                }
                Trouble::Silent if job.may_repeat && !is_new => stale += 1,
                Trouble::Silent if job.may_repeat && broken < MAX_BROKEN => {
                    broken += 1;
                    search.get_or_insert_with(|| self.search(job)).note_failure(&next, Failure::Endpoint);
                }
                Trouble::Wrong(fault) => {
                    next.note_ill(&self.http.shared);
                    return Err(Some(Refusal::Answer(fault)));
                }
                Trouble::Silent | Trouble::Broken => {
                    next.note_ill(&self.http.shared);
                    return Err(Some(Refusal::Broken));
                }
            }
        }
    }

    /// Keeps what went wrong with a pod for who asks why.
    fn note(&self, next: &Next, trouble: &Trouble, is_new: bool) {
        let what = match trouble {
            Trouble::Late => lb::Trouble::Late,
            Trouble::Broken => lb::Trouble::Broken,
            Trouble::Wrong(fault) => (*fault).into(),
            Trouble::Silent if is_new => lb::Trouble::Broken,
            // A kept connection may end at any time.
            Trouble::Silent | Trouble::ClientGone => return,
        };
        next.lease.troubles.note(next.address().port(), what, self.http.shared.now());
    }

    fn search(&self, job: &Job) -> Search {
        let (door, client) = (Arc::clone(job.to.door()), self.visit.peer.ip());
        Search::new(&self.http.shared, door, client, self.http.hold).wishing(job.wish)
    }

    /// Sends the request and reads the head of the answer. Returns what was read, and the head for the client.
    async fn talk(
        &mut self,
        job: &mut Job,
        next: &Next,
        server: &mut Server,
    ) -> Result<(AnswerHead, Buffer, Buffer), Trouble> {
        let on = On::Endpoint(next.lease.state());
        let limits = self.http.limits;
        let until_answer = job.to.timeout().unwrap_or(limits.answer);
        send(server, &job.bytes, &mut self.watch, limits.write, on).await.map_err(|_| Trouble::Silent)?;
        job.counting.ending.sent += job.bytes.len() as u64;
        let cookie = next.cookie(job.wish, self.visit.client.is_tls);
        let (mut bytes, mut out) = (Buffer::default(), Buffer::default());
        let mut has_begun = false;
        loop {
            out.clear();
            // Who stops meanwhile says so in the answer.
            job.request.keep_alive &= !self.http.is_stopping();
            let Request { is_head, keep_alive, .. } = job.request;
            let towards = Towards { is_head, keep_alive, cookie: cookie.as_deref() };
            let found = if bytes.is_empty() {
                Answers::Partial
            } else {
                answer::read(&bytes, &mut head::room(), towards, out.ready())
            };
            match found {
                Answers::Wrong(fault) => return Err(Trouble::Wrong(fault)),
                Answers::Head(head) if head.status < 200 => {
                    has_begun = true;
                    self.send(&out).await.map_err(|_| Trouble::ClientGone)?;
                    bytes.drain(..head.length);
                    continue;
                }
                Answers::Head(head) => {
                    if is_ill(head.status) {
                        next.note_ill(&self.http.shared);
                    }
                    return Ok((head, bytes, out));
                }
                Answers::Partial => {}
            }
            let received = if bytes.is_empty() {
                self.receive_first(server, &mut bytes, until_answer, on).await?
            } else {
                bytes.reserve(if is_full(self.http.room.bulk) { LITTLE } else { ANSWER });
                self.held.force(job.bytes.capacity() + self.unread.capacity() + bytes.capacity());
                receive(server, &mut bytes, &mut self.watch, until_answer, on).await
            };
            match received {
                Ok(read) if read > 0 => job.counting.ending.received += read as u64,
                Err(Lost::Over(Over::Time)) => return Err(Trouble::Late),
                _ if !has_begun => return Err(Trouble::Silent),
                _ => return Err(Trouble::Broken),
            }
        }
    }

    /// Reads the first bytes of an answer, which may be long in coming, for a client that is there to take it.
    ///
    /// Who has ended its side is owed the answer, or may have gone without another word: nobody can tell, so that it has as
    /// long as while an answer that has begun is silent. Who has reset the connection wants nothing any more.
    ///
    /// # Errors
    /// The client is gone.
    async fn receive_first(
        &mut self,
        server: &mut Server,
        bytes: &mut Buffer,
        limit: Duration,
        on: On<'_>,
    ) -> Result<Result<usize, Lost>, Trouble> {
        let first = limit.min(LOOK);
        let most = self.http.room.bulk;
        let mut received = receive_late(server, bytes, &mut self.watch, first, on, most).await;
        if first == limit {
            return Ok(received);
        }
        let until = Instant::now() + limit.saturating_sub(first);
        let mut ended = None;
        while matches!(received, Err(Lost::Over(Over::Time))) {
            let now = Instant::now();
            if sockets::has_been_reset(self.io.tcp()) {
                return Err(Trouble::ClientGone);
            }
            if sockets::has_hung_up(self.io.tcp())
                && now.duration_since(*ended.get_or_insert(now)) >= self.http.limits.idle
            {
                return Err(Trouble::ClientGone);
            }
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                break;
            }
            received = receive_late(server, bytes, &mut self.watch, left.min(LOOK), on, most).await;
        }
        Ok(received)
    }

    /// Passes the answer back; returns whether another request may follow.
    async fn pass_back(&mut self, job: &mut Job, answering: Answering) -> (Result<bool, Step>, Next) {
        let Answering { next, mut server, head, mut bytes, mut out } = answering;
        // It is not sent again, however long the client takes for the answer.
        job.bytes.release();
        let ending = &mut job.counting.ending;
        ending.status = head.status;
        let mut body = Following::new(head.body);
        let read = bytes.len() - head.length;
        let Ok(within) = body.follow(&bytes[head.length..]) else {
            if !is_ill(head.status) {
                next.note_ill(&self.http.shared);
            }
            // What the client has seen of it must be cut off in any case.
            let _gone = self.send(&out).await;
            return (Err(Step::Abort), next);
        };
        let rest = head.length..head.length + within;
        let is_apart = within > TOGETHER;
        if !is_apart {
            out.extend_from_slice(&bytes[rest.clone()]);
            bytes.release();
        }
        self.held.force(self.unread.capacity() + bytes.capacity() + out.capacity());
        let mut sent = self.send(&out).await;
        if is_apart && sent.is_ok() {
            sent = self.send(&bytes[rest]).await;
        }
        let mut passed = match sent {
            Ok(()) => Passed::Whole { is_clean: within == read },
            Err(_) => Passed::ClientGone,
        };
        if passed == (Passed::Whole { is_clean: true }) && !body.is_done() {
            drop((bytes, out));
            self.held.force(self.unread.capacity());
            let (limits, room, endpoint) = (self.http.limits, self.http.room, next.lease.state());
            let Self { io, watch, .. } = self;
            let received = &mut ending.received;
            passed = Box::pin(pass_on(&mut server, io, &mut body, watch, (limits, room), endpoint, received)).await;
        }
        let count = |counter: &std::sync::atomic::AtomicU64, by| {
            counter.fetch_add(by, std::sync::atomic::Ordering::Relaxed);
        };
        count(&next.lease.sent, ending.sent);
        count(&next.lease.received, ending.received);
        let Passed::Whole { is_clean } = passed else {
            if passed == Passed::Broken && !is_ill(head.status) {
                next.note_ill(&self.http.shared);
            }
            return (Err(Step::Abort), next);
        };
        ending.is_whole = true;
        if !is_ill(head.status) {
            next.note_well();
        }
        if is_clean && head.keep_alive && head.body != Body::UntilClose {
            pool::keep(&next, server);
        } else {
            pool::part(server);
        }
        (Ok(job.request.keep_alive && head.body != Body::UntilClose), next)
    }
}
