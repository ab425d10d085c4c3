//! Datagrams through the balancer: a session for each client and destination, with one endpoint.
//!
//! Start here: [`Udp::listen`] opens a door; what comes in there goes to the [`lane::Lane`] of the worker that got it, which
//! finds or begins the session. A session keeps to its endpoint while that is in the table and takes what is sent; a
//! datagram that is refused before any answer goes to another endpoint, so that the first one of a client is not lost to a
//! pod that does not listen. Nothing waits for a slow client or pod: what cannot be passed on at once is dropped, as the
//! network itself would.
//!
//! Endpoints of this host have a socket for each session, so that answers cannot be mixed up; those of another host are
//! reached through its agent, all sessions of a worker over one stream ([`carrier`], [`hosting`]).
//!
//! | file | what |
//! |---|---|
//! | `times`, `ledger`, `frame` | when a session is over, who may have one, what goes between hosts: values |
//! | `door` | sockets that clients send to |
//! | `lane`, `session` | the sessions of one worker |
//! | `outbox`, `carrier`, `hosting` | to and from other hosts |
//!
//! Tasks, all on the worker whose they are: one for each socket of a door; one for each session with a pod of this host, or
//! that waits for a pod; one for each host called; one that looks which sessions are over, while there are any.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::listeners::Workers;
use super::routing::Shared;
use super::stats::DatagramStats;
use crate::host::datagrams;

mod carrier;
mod door;
mod frame;
mod hosting;
mod lane;
mod ledger;
mod outbox;
mod session;
mod times;

pub(super) use door::Inlet;
pub(super) use hosting::host;
pub(super) use times::Limits;

use door::DoorSocket;
use lane::Lane;

/// Workers that take datagrams, at most: a few are enough for any network card, and each door has a socket on each.
const LANES: usize = 8;

/// Doors up to which each has a socket on every lane; further ones (ranges of thousands of ports) have one each.
const WIDE_DOORS: u64 = 256;

/// Sockets of doors in all.
const DOOR_SOCKETS: usize = 24_576;

/// The share of the sessions that one client may have; it loses its own oldest for more.
const CLIENT_SHARE: usize = 8;

/// Sessions that one client may have whatever the share is.
const CLIENT_LEAST: usize = 64;

/// Bytes of datagrams that are kept until it is known that they were taken, in all.
const KEPT_IN_ALL: usize = 16 << 20;

/// Says that there are too many doors.
#[derive(Debug, thiserror::Error)]
#[error("{DOOR_SOCKETS} sockets for UDP ports are open, and that is the limit")]
struct TooMany;

/// The part of a balancer that is for datagrams.
#[derive(Debug)]
pub(super) struct Udp {
    lanes: Vec<(tokio::runtime::Handle, Arc<Lane>)>,
    common: Arc<Common>,
    doors: AtomicU64,
    sockets: Arc<AtomicUsize>,
}

/// What all lanes and all callers share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) shared: Arc<Shared>,
    /// How long a datagram waits for an endpoint.
    hold: Duration,
    room: Arc<Room>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    questions: AtomicU64,
    answers: AtomicU64,
    dropped: AtomicU64,
    evicted: AtomicU64,
    unserved: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn count_all<T>(counter: &AtomicU64, gone: &[T]) {
    counter.fetch_add(gone.len() as u64, Ordering::Relaxed);
}

/// How many sessions there may be, here and for other hosts, and how much is kept for them.
#[derive(Debug)]
struct Room {
    limit: usize,
    taken: AtomicUsize,
    kept: AtomicUsize,
}

impl Room {
    /// Takes a place for as long as the result lives.
    fn enter(self: &Arc<Self>) -> Option<Place> {
        let place = Place(Arc::clone(self));
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(place)
    }
}

/// One session's place.
#[derive(Debug)]
struct Place(Arc<Room>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A door that is open until this is dropped; its sessions end with it.
#[derive(Debug)]
pub(super) struct Listening {
    /// Where, with the port that was chosen.
    pub(super) address: SocketAddr,
    _stop: DropGuard,
    _sockets: Sockets,
}

/// A door's share of the sockets.
#[derive(Debug)]
struct Sockets {
    all: Arc<AtomicUsize>,
    count: usize,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.all.fetch_sub(self.count, Ordering::Relaxed);
    }
}

impl Udp {
    /// Makes a lane on each of the first workers, for `sessions` in all.
    pub(super) fn new(shared: &Arc<Shared>, workers: &Workers, hold: Duration, sessions: usize) -> Self {
        let room = Room { limit: sessions, taken: AtomicUsize::default(), kept: AtomicUsize::default() };
        let common = Common { shared: Arc::clone(shared), hold, room: Arc::new(room), counters: Counters::default() };
        let common = Arc::new(common);
        let handles: Vec<_> = workers.handles().iter().take(LANES).cloned().collect();
        let per_client = (sessions / CLIENT_SHARE).max(CLIENT_LEAST) / handles.len().max(1);
        let lanes = handles.into_iter().map(|handle| (handle, Lane::new(Arc::clone(&common), per_client))).collect();
        Self { lanes, common, doors: AtomicU64::default(), sockets: Arc::default() }
    }

    /// Returns what is shared with those who serve other hosts.
    pub(super) fn common(&self) -> &Arc<Common> {
        &self.common
    }

    /// Opens a door at `address`; with `device` for what comes in by that interface only.
    ///
    /// # Errors
    /// What the kernel said to `bind`, or that there are too many doors.
    pub(super) fn listen(
        &self,
        address: SocketAddr,
        device: Option<&str>,
        inlet: &Inlet,
        limits: Limits,
    ) -> io::Result<Listening> {
        let number = self.doors.fetch_add(1, Ordering::Relaxed);
        let open = self.sockets.load(Ordering::Relaxed);
        let wide = open < usize::try_from(WIDE_DOORS).unwrap_or(usize::MAX) * self.lanes.len();
        let width = if wide { self.lanes.len() } else { 1 };
        let share = Sockets { all: Arc::clone(&self.sockets), count: width };
        if self.sockets.fetch_add(width, Ordering::Relaxed) + width > DOOR_SOCKETS {
            return Err(io::Error::other(TooMany));
        }
        let sockets = datagrams::bind_shared(address, device, width)?;
        let address = sockets.first().map_or(Ok(address), std::net::UdpSocket::local_addr)?;
        let stop = CancellationToken::new();
        // Narrow doors take turns.
        let first = usize::try_from(number).unwrap_or_default() % self.lanes.len().max(1);
        let lanes = self.lanes.iter().cycle().skip(if wide { 0 } else { first });
        for ((worker, lane), socket) in lanes.zip(sockets) {
            let (lane, inlet, stop) = (Arc::clone(lane), inlet.clone(), stop.clone());
            worker.spawn(async move {
                match DoorSocket::new(number, socket, inlet, limits) {
                    Ok(door) => door::receive(&lane, &Arc::new(door), &stop).await,
                    Err(error) => tracing::error!(%address, %error, "cannot watch a socket: its share is not served"),
                }
            });
        }
        Ok(Listening { address, _stop: stop.drop_guard(), _sockets: share })
    }

    /// Returns what it does at the moment.
    pub(super) fn stats(&self) -> DatagramStats {
        let Common { room, counters, .. } = &*self.common;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DatagramStats {
            sessions: room.taken.load(Ordering::Relaxed),
            questions: read(&counters.questions),
            answers: read(&counters.answers),
            dropped: read(&counters.dropped),
            evicted: read(&counters.evicted),
            unserved: read(&counters.unserved),
        }
    }
}
