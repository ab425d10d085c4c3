//! To another host: one stream to its agent, which carries all sessions of a worker with pods there.
//!
//! A stream for each session would cost a handshake for each name that is looked up. The price of sharing one: what is
//! lost on the way between the hosts holds up all of them for as long as it takes to be sent again.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, BufReader};
use tokio::time::timeout;

use super::count;
use super::frame::{self, What};
use super::lane::Lane;
use super::outbox::{self, Frames, Outbox, Share};
use super::session::{Back, Key, Pulse, note_answer};
use crate::lb::choose::{Failure, REMOTE_CONNECT, failure_of};
use crate::lb::endpoint::{EndpointState, PortKey};
use crate::lb::routing::RemoteHost;
use crate::mesh::{DialError, Kind, Mesh, PeerAddr, Refusal, Target};

/// A stream that carries nothing is closed after this to twice as long.
const UNUSED: Duration = Duration::from_secs(30);

/// Bytes that are read ahead.
const AHEAD: usize = 64 * 1024;

/// The sessions with the pods of one other host.
#[derive(Debug)]
pub(super) struct Carrier {
    outbox: Outbox,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    open: HashMap<u32, Arc<Callee>>,
    last: u32,
    /// It takes no more: the stream has ended.
    ended: bool,
}

/// Whom a session is with, and whose it is.
#[derive(Debug)]
pub(super) struct Callee {
    pub(super) key: Key,
    pub(super) endpoint: Arc<EndpointState>,
    pub(super) port: PortKey,
    pub(super) pulse: Arc<Pulse>,
    pub(super) back: Back,
}

/// A session over a carrier; dropping it tells the other side that it is over.
#[derive(Debug)]
pub(super) struct Call {
    carrier: Arc<Carrier>,
    number: u32,
    share: Share,
}

impl Call {
    /// Passes a datagram on.
    ///
    /// # Errors
    /// There is no room, or the stream has ended.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.carrier.outbox.datagram(self.number, bytes, &self.share)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.carrier.lock().open.remove(&self.number).is_some() {
            // Where it is not heard, silence ends the session there.
            let _told = self.carrier.outbox.message(self.number, What::Close, &[]);
        }
    }
}

/// Why a carrier ended.
enum End {
    /// Nothing went over it.
    Unused,
    /// For each session on it.
    Failed(Failure),
}

impl Carrier {
    /// Begins to call a host; sessions may be opened at once.
    pub(super) fn start(lane: &Arc<Lane>, host: &Arc<RemoteHost>, mesh: Arc<Mesh>, peer: PeerAddr) -> Arc<Self> {
        let (outbox, frames) = Outbox::new();
        let carrier = Arc::new(Self { outbox, calls: Mutex::default() });
        let (lane, host, own) = (Arc::downgrade(lane), Arc::clone(host), Arc::clone(&carrier));
        tokio::spawn(async move {
            let end = own.carry(&lane, &host, &mesh, &peer, frames).await;
            own.end(&lane, &host, &end);
        });
        carrier
    }

    /// Returns whether sessions can be opened.
    pub(super) fn is_alive(&self) -> bool {
        !self.lock().ended
    }

    /// Opens a session; `None` if there is no room for it.
    pub(super) fn call(self: &Arc<Self>, target: &Target, callee: Callee) -> Option<Call> {
        let request = serde_json::to_vec(target).ok()?;
        let mut calls = self.lock();
        if calls.ended {
            return None;
        }
        // After four thousand million the numbers begin anew.
        let number = std::iter::successors(Some(calls.last.wrapping_add(1)), |number| Some(number.wrapping_add(1)))
            .find(|number| !calls.open.contains_key(number))?;
        self.outbox.message(number, What::Open, &request).ok()?;
        calls.last = number;
        calls.open.insert(number, Arc::new(callee));
        drop(calls);
        Some(Call { carrier: Arc::clone(self), number, share: Share::default() })
    }

    async fn carry(&self, lane: &Weak<Lane>, host: &RemoteHost, mesh: &Mesh, peer: &PeerAddr, frames: Frames) -> End {
        let dialled = timeout(REMOTE_CONNECT, mesh.dial(peer, &Kind::Datagrams)).await;
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return End::Failed(no_stream(&error, peer)),
            Err(_) => return End::Failed(Failure::Host),
        };
        host.note_success();
        let (read, write) = tokio::io::split(stream);
        tokio::select! {
            heard = self.hear(lane, host, BufReader::with_capacity(AHEAD, read)) => {
                let why = heard.err().map_or_else(|| "it was closed".to_owned(), |error| error.to_string());
                tracing::debug!(host = %peer.host, why, "a stream of datagrams ended");
                End::Failed(Failure::Host)
            }
            _ended = outbox::write(frames, write) => End::Failed(Failure::Host),
            () = self.unused() => End::Unused,
        }
    }

    /// Takes what the other side sends.
    async fn hear(&self, lane: &Weak<Lane>, host: &RemoteHost, mut from: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut content = Vec::new();
        while let Some(head) = frame::read(&mut from, &mut content).await? {
            let content = &content[..head.length];
            let Some(lane) = lane.upgrade() else { return Ok(()) };
            // A session that ended here meanwhile: the other side has been told.
            let Some(callee) = self.lock().open.get(&head.session).cloned() else { continue };
            match head.what {
                What::Datagram => callee.take(&lane, content),
                What::Close => lane.ended(&callee.key, &callee.endpoint),
                What::Refuse => {
                    let reason: Refusal = serde_json::from_slice(content)?;
                    lane.common.shared.denied.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(host = %host.name, container = callee.endpoint.container, %reason, "denied");
                    let failure = failure_of(&reason);
                    if failure == Failure::Endpoint {
                        host.note_success();
                    }
                    lane.failed(&callee.key, &callee.endpoint, failure);
                }
                What::Open => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }

    /// Resolves when it has carried nothing for a while; it takes no more then.
    async fn unused(&self) {
        let mut was_empty = false;
        loop {
            tokio::time::sleep(UNUSED).await;
            let mut calls = self.lock();
            let is_empty = calls.open.is_empty();
            if was_empty && is_empty {
                calls.ended = true;
                return;
            }
            was_empty = is_empty;
        }
    }

    /// Gives its sessions back: they go on with other endpoints.
    fn end(&self, lane: &Weak<Lane>, host: &RemoteHost, end: &End) {
        let calls = {
            let mut calls = self.lock();
            calls.ended = true;
            std::mem::take(&mut calls.open)
        };
        let (Some(lane), End::Failed(failure)) = (lane.upgrade(), end) else { return };
        tracing::debug!(host = %host.name, sessions = calls.len(), ?failure, "datagrams to another host go elsewhere");
        // What is wrong with the host is noted once, not for each.
        let mut failure = *failure;
        for callee in calls.into_values() {
            lane.failed(&callee.key, &callee.endpoint, failure);
            failure = Failure::Endpoint;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Callee {
    /// Passes an answer on to the client.
    fn take(&self, lane: &Lane, answer: &[u8]) {
        note_answer(&lane.common, &self.pulse, &self.endpoint, self.port, answer.len());
        if self.back.give(answer).is_err() {
            // Not waited for: what comes next may be for others.
            count(&lane.common.counters.dropped);
        }
    }
}

/// Says whose failure it is that an agent gave no stream.
fn no_stream(error: &DialError, PeerAddr { host, address }: &PeerAddr) -> Failure {
    let address: &SocketAddr = address;
    match error {
        DialError::Exhausted(_) => Failure::Exhausted,
        // An agent of an earlier version: connections to its pods go on as ever.
        DialError::Refused { reason: Refusal::NotUnderstood, .. } => {
            tracing::warn!(%host, %address, "its agent does not know datagrams yet: `orch up` brings all to one version");
            Failure::Endpoint
        }
        error => {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%host, %error, cause, "cannot reach another host's endpoints");
            Failure::Host
        }
    }
}
