//! One client's datagrams to one destination.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use super::carrier::Call;
use super::door::{BATCH, DoorSocket, with_scratch};
use super::ledger::Entry;
use super::outbox::{Outbox, Share};
use super::times::{Limits, Times};
use super::{Common, KEPT_IN_ALL, Place, count};
use crate::host::datagrams;
use crate::lb::choose::{Next, Search};
use crate::lb::endpoint::{EndpointState, PortKey};

/// How long a datagram that was passed on is kept for another endpoint: who does not listen says so at once, and another
/// host's agent within its time for a connect.
const KEEP: Duration = Duration::from_secs(2);

/// Datagrams that a session keeps, and their bytes.
const KEPT: usize = 64;
const KEPT_BYTES: usize = 64 * 1024;

/// Bytes that stay allocated for the next.
const SPARE: usize = 512;

/// How long an answer waits for room in the socket that it goes out by.
const PATIENCE: Duration = Duration::from_millis(50);

/// Which session: the door that it came in by, its client, and the address that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) door: u64,
    pub(super) client: SocketAddr,
    pub(super) to: IpAddr,
}

/// What came when, noted from both directions.
#[derive(Debug)]
pub(super) struct Pulse {
    began: u64,
    asked: AtomicU64,
    /// One more than the moment; 0: nothing waits for an answer.
    waits_since: AtomicU64,
    /// One more than the moment; 0: never.
    answered: AtomicU64,
}

impl Pulse {
    pub(super) fn new(now: Duration) -> Self {
        let now = millis(now);
        Self { began: now, asked: now.into(), waits_since: AtomicU64::default(), answered: AtomicU64::default() }
    }

    /// Notes a datagram of the client; returns whether it is the first since the last answer.
    pub(super) fn note_question(&self, now: Duration) -> bool {
        let now = millis(now);
        self.asked.store(now, Ordering::Relaxed);
        self.waits_since.compare_exchange(0, now + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Notes an answer; returns whether it is the first.
    pub(super) fn note_answer(&self, now: Duration) -> bool {
        self.waits_since.store(0, Ordering::Relaxed);
        self.answered.swap(millis(now) + 1, Ordering::Relaxed) == 0
    }

    pub(super) fn times(&self) -> Times {
        let moment = |stored: u64| stored.checked_sub(1).map(Duration::from_millis);
        Times {
            began: Duration::from_millis(self.began),
            asked: Duration::from_millis(self.asked.load(Ordering::Relaxed)),
            waits_since: moment(self.waits_since.load(Ordering::Relaxed)),
            answered: moment(self.answered.load(Ordering::Relaxed)),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: SocketAddr,
    pub(super) pulse: Arc<Pulse>,
    pub(super) back: Back,
    pub(super) way: Way,
    /// Absent while a task waits with it.
    pub(super) search: Option<Search>,
    pub(super) kept: Kept,
    pub(super) limits: Limits,
    pub(super) _place: Place,
}

/// Where a session's datagrams go.
#[derive(Debug)]
pub(super) enum Way {
    /// No endpoint took any yet; the task waits for one.
    Waiting(#[expect(dead_code, reason = "ends the task")] Option<AbortOnDropHandle<()>>),
    /// To this one.
    Linked(Box<Link>),
}

/// The way to an endpoint.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) next: Next,
    pub(super) to: To,
    pub(super) since: Duration,
}

/// How an endpoint is sent to.
#[derive(Debug)]
pub(super) enum To {
    /// It is on this host; the task hears its answers.
    Here(Arc<UdpSocket>, #[expect(dead_code, reason = "ends the task")] AbortOnDropHandle<()>),
    /// It is on another one.
    There(Call),
}

impl Link {
    /// Passes a datagram on.
    ///
    /// # Errors
    /// `ConnectionRefused`: nobody listens there. Anything else: it is lost.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.to {
            To::Here(socket, _) => datagrams::send(socket, bytes)?,
            To::There(call) => call.send(bytes)?,
        }
        self.next.lease.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Session {
    /// Notes a datagram of the client, and keeps it for as long as it may be needed; returns whether it is kept.
    pub(super) fn note_question(&mut self, bytes: &[u8], now: Duration) -> bool {
        self.forget_kept(now);
        let is_first = self.pulse.note_question(now);
        // Who was never answered for so long sends to somebody who does not answer.
        let keep = is_first || !self.has_waited(now);
        keep && self.kept.push(bytes)
    }

    /// Lets go of what need not be kept any more.
    pub(super) fn forget_kept(&mut self, now: Duration) {
        if matches!(self.way, Way::Linked(_)) && (self.pulse.times().waits_since.is_none() || self.has_waited(now)) {
            self.kept.clear();
        }
    }

    fn has_waited(&self, now: Duration) -> bool {
        self.pulse.times().waits_since.is_some_and(|since| now.saturating_sub(since) > KEEP)
    }

    /// Returns whether it is over at `now`.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        match &self.way {
            Way::Waiting(_) => false,
            Way::Linked(link) => {
                let gone = link.next.lease.is_gone() && self.kept.is_empty();
                gone || self.pulse.times().is_over(now, self.limits, link.next.lease.is_retired())
            }
        }
    }

    /// Returns whether its endpoint is gone for good.
    pub(super) fn is_bereft(&self) -> bool {
        matches!(&self.way, Way::Linked(link) if link.next.lease.is_gone())
    }

    /// Returns whether this is where its datagrams go.
    pub(super) fn is_with(&self, endpoint: &Arc<EndpointState>) -> bool {
        matches!(&self.way, Way::Linked(link) if Arc::ptr_eq(&link.next.lease.endpoint(), endpoint))
    }
}

impl Entry for Session {
    fn client(&self) -> IpAddr {
        self.client.ip()
    }

    fn last(&self) -> Duration {
        self.pulse.times().last()
    }
}

/// Datagrams that no answer came after yet, for another endpoint if this one does not take them.
#[derive(Debug)]
pub(super) struct Kept {
    common: Arc<Common>,
    /// One after the other…
    bytes: Vec<u8>,
    /// …and where each ends.
    ends: Vec<usize>,
}

impl Kept {
    pub(super) fn new(common: &Arc<Common>) -> Self {
        Self { common: Arc::clone(common), bytes: Vec::new(), ends: Vec::new() }
    }

    /// Keeps a datagram, if there is room; returns whether.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let all = &self.common.room.kept;
        if self.ends.len() >= KEPT || self.bytes.len() + bytes.len() > KEPT_BYTES {
            return false;
        }
        if all.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len() > KEPT_IN_ALL {
            all.fetch_sub(bytes.len(), Ordering::Relaxed);
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end])
    }

    /// Forgets all of it.
    pub(super) fn clear(&mut self) {
        self.common.room.kept.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.bytes.clear();
        self.bytes.shrink_to(SPARE);
        self.ends.clear();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Where a session's answers go.
#[derive(Debug, Clone)]
pub(super) enum Back {
    /// To a client.
    Client {
        /// The door that it came in by.
        door: Arc<DoorSocket>,
        /// The client.
        client: SocketAddr,
        /// The address that it asked.
        from: IpAddr,
    },
    /// To another host's agent.
    Peer {
        /// What goes there.
        outbox: Outbox,
        /// The session, by the caller's number.
        session: u32,
        /// Its part of what waits there.
        share: Share,
    },
}

impl Back {
    /// Passes an answer on.
    ///
    /// # Errors
    /// `WouldBlock`: there is no room now.
    pub(super) fn give(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Client { door, client, from } => door.answer(bytes, *from, *client),
            Self::Peer { outbox, session, share } => outbox.datagram(*session, bytes, share),
        }
    }

    /// Waits a moment for room, then passes an answer on.
    async fn give_late(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Client { door, client, from } => {
                tokio::time::timeout(PATIENCE, door.answer_later(bytes, *from, *client)).await?
            }
            // The other side is as slow for all; the next answer may find room.
            Self::Peer { .. } => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// What an endpoint of this host sends, for one session.
pub(super) struct Answers {
    pub(super) common: Arc<Common>,
    pub(super) socket: Arc<UdpSocket>,
    pub(super) endpoint: Arc<EndpointState>,
    pub(super) port: PortKey,
    pub(super) pulse: Arc<Pulse>,
    pub(super) back: Back,
}

impl Answers {
    /// Passes answers on until the endpoint's host says that nobody listens there, or the socket fails.
    pub(super) async fn pass_on(self) {
        loop {
            // A refusal is no datagram: it alone does not make the socket readable.
            let Ok(ready) = self.socket.ready(Interest::READABLE | Interest::ERROR).await else { return };
            let what = if ready.is_error() { Interest::ERROR } else { Interest::READABLE };
            for _ in 0..BATCH {
                match with_scratch(|buffer| self.take(what, buffer)) {
                    Ok(None) => {}
                    Ok(Some(late)) => {
                        if self.back.give_late(&late).await.is_err() {
                            count(&self.common.counters.dropped);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        tracing::debug!(container = self.endpoint.container, %error, "no more answers of an endpoint");
                        return;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Passes one answer on; returns it where there was no room for it.
    fn take(&self, what: Interest, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        let length = self.socket.try_io(what, || datagrams::hear(&self.socket, buffer))?;
        let answer = &buffer[..length];
        note_answer(&self.common, &self.pulse, &self.endpoint, self.port, length);
        match self.back.give(answer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(answer.to_vec())),
            // A client, or an address, that is not there any more.
            Err(_) => {
                count(&self.common.counters.dropped);
                Ok(None)
            }
            Ok(()) => Ok(None),
        }
    }
}

/// Notes an answer of an endpoint.
pub(super) fn note_answer(common: &Common, pulse: &Pulse, endpoint: &EndpointState, port: PortKey, length: usize) {
    if pulse.note_answer(common.shared.now()) {
        endpoint.note_success(port);
        endpoint.note_well(port);
    }
    endpoint.received.fetch_add(length as u64, Ordering::Relaxed);
    count(&common.counters.answers);
}
