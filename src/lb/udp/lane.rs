//! The sessions of one worker.
//!
//! All of it runs on that worker, but that a door may be closed from elsewhere. Locks are held for as long as a datagram
//! takes to be passed on, never while something is waited for.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::carrier::{Callee, Carrier};
use super::door::DoorSocket;
use super::ledger::Ledger;
use super::session::{Answers, Back, Kept, Key, Link, Pulse, Session, To, Way};
use super::{Common, Place, count, count_all};
use crate::host::datagrams;
use crate::ids::HostName;
use crate::lb::choose::{Failure, Fruitless, Next, Search, is_own_limit};
use crate::lb::endpoint::{EndpointState, PortKey};
use crate::lb::routing::RemoteHost;

/// How often it is looked which sessions are over. Those that go on being used are looked at with each datagram, too.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// …and how soon after the table has changed: an `up` brings many of them.
const SOON: Duration = Duration::from_millis(20);

/// The sessions of one worker.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) common: Arc<Common>,
    sessions: Mutex<Sessions>,
    /// Streams to the agents of other hosts.
    carriers: Mutex<BTreeMap<HostName, Arc<Carrier>>>,
}

#[derive(Debug)]
struct Sessions {
    ledger: Ledger<Key, Session>,
    /// Whether a task looks which are over.
    watched: bool,
}

/// Whether a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    GoesOn,
    Ends,
}

impl Lane {
    pub(super) fn new(common: Arc<Common>, per_client: usize) -> Arc<Self> {
        let sessions = Sessions { ledger: Ledger::new(per_client), watched: false };
        Arc::new(Self { common, sessions: Mutex::new(sessions), carriers: Mutex::default() })
    }

    /// Passes on a datagram that came in at a door.
    pub(super) fn forward(self: &Arc<Self>, door: &Arc<DoorSocket>, client: SocketAddr, to: IpAddr, bytes: &[u8]) {
        let common = &self.common;
        count(&common.counters.questions);
        let (key, now) = (Key { door: door.number, client, to }, common.shared.now());
        let mut sessions = self.lock();
        match sessions.ledger.get_mut(&key) {
            Some(session) if !session.is_over(now) => {
                // What a dead endpoint did not answer goes to another one first.
                let lost = session.is_bereft() && self.search_on(&key, session, Failure::Overtaken) == Fate::Ends;
                if lost || self.send(&key, session, bytes, now) == Fate::Ends {
                    sessions.ledger.remove(&key);
                }
                return;
            }
            Some(_) => drop(sessions.ledger.remove(&key)),
            None => {}
        }
        let Some(destination) = door.destination(to) else { return count(&common.counters.dropped) };
        let Some(place) = self.place(&mut sessions) else { return count(&common.counters.dropped) };
        let mut session = Session {
            client,
            pulse: Arc::new(Pulse::new(now)),
            back: Back::Client { door: Arc::clone(door), client, from: to },
            way: Way::Waiting(None),
            search: Some(Search::of_datagrams(&common.shared, Arc::new(destination), client.ip(), common.hold)),
            kept: Kept::new(common),
            limits: door.limits,
            _place: place,
        };
        let kept = session.note_question(bytes, now);
        if self.link(&key, &mut session) == Fate::Ends {
            return;
        }
        if !kept {
            // Too large to be kept: it has this one chance.
            let sent = matches!(&session.way, Way::Linked(link) if link.send(bytes).is_ok());
            if !sent {
                count(&common.counters.dropped);
            }
        }
        let gone = sessions.ledger.insert(key, session);
        count_all(&common.counters.evicted, &gone);
        if !std::mem::replace(&mut sessions.watched, true) {
            tokio::spawn(watch(Arc::clone(self)));
        }
    }

    /// Ends the sessions of a door.
    pub(super) fn close(&self, door: u64) {
        self.lock().ledger.sweep(|key, _| key.door == door);
    }

    /// Takes note that an endpoint did not take what a session sent: it goes to another one.
    pub(super) fn failed(self: &Arc<Self>, key: &Key, endpoint: &Arc<EndpointState>, failure: Failure) {
        let mut sessions = self.lock();
        let Some(session) = sessions.ledger.get_mut(key).filter(|session| session.is_with(endpoint)) else { return };
        if self.search_on(key, session, failure) == Fate::Ends {
            sessions.ledger.remove(key);
        }
    }

    /// Ends a session that the other side has ended, but for what was not answered: that goes to another endpoint.
    pub(super) fn ended(self: &Arc<Self>, key: &Key, endpoint: &Arc<EndpointState>) {
        let mut sessions = self.lock();
        let Some(session) = sessions.ledger.get_mut(key).filter(|session| session.is_with(endpoint)) else { return };
        session.forget_kept(self.common.shared.now());
        if session.kept.is_empty() || self.search_on(key, session, Failure::Overtaken) == Fate::Ends {
            sessions.ledger.remove(key);
        }
    }

    /// Passes on a datagram of a session.
    fn send(self: &Arc<Self>, key: &Key, session: &mut Session, bytes: &[u8], now: Duration) -> Fate {
        let kept = session.note_question(bytes, now);
        let Way::Linked(link) = &session.way else {
            if !kept {
                count(&self.common.counters.dropped);
            }
            return Fate::GoesOn;
        };
        match link.send(bytes) {
            Ok(()) => Fate::GoesOn,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // An earlier one was refused, and this one not sent at all.
                if !kept && !session.kept.push(bytes) {
                    count(&self.common.counters.dropped);
                }
                self.search_on(key, session, Failure::Endpoint)
            }
            Err(_) => {
                count(&self.common.counters.dropped);
                Fate::GoesOn
            }
        }
    }

    /// Goes on to another endpoint.
    fn search_on(self: &Arc<Self>, key: &Key, session: &mut Session, failure: Failure) -> Fate {
        session.forget_kept(self.common.shared.now());
        let Way::Linked(link) = std::mem::replace(&mut session.way, Way::Waiting(None)) else { return Fate::GoesOn };
        let Some(search) = &mut session.search else { return Fate::Ends };
        if session.pulse.times().answered >= Some(link.since) {
            // It served: what was tried before it was found says nothing of now.
            *search = search.anew();
        }
        search.note_failure(&link.next, failure);
        drop(link);
        self.link(key, session)
    }

    /// Finds an endpoint that takes what is kept, or begins to wait for one.
    fn link(self: &Arc<Self>, key: &Key, session: &mut Session) -> Fate {
        loop {
            let Some(search) = &mut session.search else { return Fate::Ends };
            let Some(next) = search.next_now() else { break };
            let failure = match self.connect(key, session, &next) {
                Ok(to) => {
                    let link = Box::new(Link { next, to, since: self.common.shared.now() });
                    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
                    if !session.kept.iter().any(|bytes| link.send(bytes).is_err_and(refused)) {
                        session.way = Way::Linked(link);
                        return Fate::GoesOn;
                    }
                    (link.next, Failure::Endpoint)
                }
                Err(failure) => (next, failure),
            };
            if let Some(search) = &mut session.search {
                search.note_failure(&failure.0, failure.1);
            }
        }
        let Some(search) = session.search.take() else { return Fate::Ends };
        let waiting = tokio::spawn(wait(Arc::clone(self), *key, search));
        session.way = Way::Waiting(Some(AbortOnDropHandle::new(waiting)));
        Fate::GoesOn
    }

    /// Takes note of what the search of a session that waited has found.
    fn found(self: &Arc<Self>, key: &Key, search: Search, found: Result<(), Fruitless>) {
        let mut sessions = self.lock();
        let Some(session) = sessions.ledger.get_mut(key).filter(|session| session.search.is_none()) else { return };
        session.search = Some(search);
        let fate = match found {
            Ok(()) => self.link(key, session),
            Err(why) => {
                tracing::debug!(client = %key.client, to = %key.to, ?why, "datagrams dropped: no endpoint took them");
                count(&self.common.counters.unserved);
                Fate::Ends
            }
        };
        if fate == Fate::Ends {
            sessions.ledger.remove(key);
        }
    }

    /// Makes the way to an endpoint.
    fn connect(self: &Arc<Self>, key: &Key, session: &Session, next: &Next) -> Result<To, Failure> {
        let endpoint = next.lease.endpoint();
        let (pulse, back) = (Arc::clone(&session.pulse), session.back.clone());
        let port = PortKey::datagrams(next.address().port());
        if next.remote().is_none() {
            return self.connect_here(key, next.address(), endpoint, port, pulse, back);
        }
        let remote = session.search.as_ref().and_then(|search| search.remote(next));
        let (host, target) = remote.ok_or(Failure::Host)?;
        let callee = Callee { key: *key, endpoint, port, pulse, back };
        let call = self.carrier(&host)?.call(&target, callee);
        call.map(To::There).ok_or(Failure::Exhausted)
    }

    fn connect_here(
        self: &Arc<Self>,
        key: &Key,
        address: SocketAddr,
        endpoint: Arc<EndpointState>,
        port: PortKey,
        pulse: Arc<Pulse>,
        back: Back,
    ) -> Result<To, Failure> {
        let failure = |error: io::Error| if is_own_limit(&error) { Failure::Exhausted } else { Failure::Endpoint };
        let socket = datagrams::connect(address).and_then(UdpSocket::from_std).map_err(failure)?;
        let socket = Arc::new(socket);
        let common = Arc::clone(&self.common);
        let answers =
            Answers { common, socket: Arc::clone(&socket), endpoint: Arc::clone(&endpoint), port, pulse, back };
        let (lane, key) = (Arc::clone(self), *key);
        let hearing = tokio::spawn(async move {
            answers.pass_on().await;
            lane.failed(&key, &endpoint, Failure::Endpoint);
        });
        Ok(To::Here(socket, AbortOnDropHandle::new(hearing)))
    }

    /// Returns the stream to another host's agent; one that is only being made takes datagrams already.
    fn carrier(self: &Arc<Self>, host: &Arc<RemoteHost>) -> Result<Arc<Carrier>, Failure> {
        let mut carriers = self.carriers.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &host.name;
        if let Some(carrier) = carriers.get(name).filter(|carrier| carrier.is_alive()) {
            return Ok(Arc::clone(carrier));
        }
        let mesh = self.common.shared.mesh().ok_or(Failure::Host)?;
        let peer = mesh.peer(name).ok_or(Failure::Host)?;
        let carrier = Carrier::start(self, host, mesh, peer);
        carriers.insert(name.clone(), Arc::clone(&carrier));
        carriers.retain(|_, carrier| carrier.is_alive());
        Ok(carrier)
    }

    /// Returns a place for another session, at the cost of the oldest of this lane if need be.
    fn place(&self, sessions: &mut Sessions) -> Option<Place> {
        let room = &self.common.room;
        room.enter().or_else(|| {
            let gone = sessions.ledger.evict_oldest();
            count_all(&self.common.counters.evicted, &gone);
            drop(gone);
            room.enter()
        })
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for an endpoint for a session that none took yet.
async fn wait(lane: Arc<Lane>, key: Key, mut search: Search) {
    // Which one it is, is looked up again: it may be gone by the time that this is taken note of.
    let found = search.next().await.map(drop);
    lane.found(&key, search, found);
}

/// Ends the sessions that are over, as long as there are any.
async fn watch(lane: Arc<Lane>) {
    let mut changes = lane.common.shared.changes();
    loop {
        if timeout(LOOK, changes.changed()).await.is_ok() {
            tokio::time::sleep(SOON).await;
            changes.mark_unchanged();
        }
        let now = lane.common.shared.now();
        let mut sessions = lane.lock();
        let mut ended = Vec::new();
        for (key, session) in sessions.ledger.iter_mut() {
            session.forget_kept(now);
            if !session.is_over(now)
                && session.is_bereft()
                && lane.search_on(key, session, Failure::Overtaken) == Fate::Ends
            {
                ended.push(*key);
            }
        }
        sessions.ledger.sweep(|_, session| session.is_over(now));
        for key in ended {
            sessions.ledger.remove(&key);
        }
        if sessions.ledger.len() == 0 {
            sessions.watched = false;
            return;
        }
    }
}
