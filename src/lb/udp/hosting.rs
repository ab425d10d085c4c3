//! From other hosts: sessions that another host's agent asks for, with containers of this one.
//!
//! Each is checked by this host's own table, as connections are, and counts towards its endpoint, so that a drain waits
//! for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, BufReader};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use super::frame::{self, What};
use super::lane::LOOK;
use super::ledger::{Entry, Ledger};
use super::outbox::{self, Outbox, Share};
use super::session::{Answers, Back, Pulse};
use super::times::Limits;
use super::{Common, Place, count, count_all};
use crate::graph::Protocol;
use crate::host::datagrams;
use crate::lb::choose::is_own_limit;
use crate::lb::endpoint::{Lease, PortKey};
use crate::mesh::{MeshStream, Refusal, Target};

/// Bytes that are read ahead.
const AHEAD: usize = 64 * 1024;

/// Sessions that one stream of another host may have; beyond, its oldest end.
const PER_STREAM: usize = 8192;

/// The sessions of one stream.
struct Hosting {
    common: Arc<Common>,
    guests: Mutex<Ledger<u32, Guest>>,
    outbox: Outbox,
}

/// A session of another host's.
struct Guest {
    socket: Arc<UdpSocket>,
    lease: Lease,
    port: u16,
    pulse: Arc<Pulse>,
    _hearing: AbortOnDropHandle<()>,
    _place: Place,
}

impl Entry for Guest {
    /// All are the other host's.
    fn client(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }

    fn last(&self) -> Duration {
        self.pulse.times().last()
    }
}

impl Guest {
    fn is_over(&self, now: Duration) -> bool {
        self.lease.is_gone() || self.pulse.times().is_over(now, Limits::plain(), self.lease.is_retired())
    }
}

/// Serves a stream of datagrams to its end.
pub(in crate::lb) async fn host(common: &Arc<Common>, stream: MeshStream) {
    let (outbox, frames) = Outbox::new();
    let guests = Mutex::new(Ledger::new(PER_STREAM));
    let hosting = Arc::new(Hosting { common: Arc::clone(common), guests, outbox });
    let (read, write) = tokio::io::split(stream);
    let ended = tokio::select! {
        heard = hosting.hear(BufReader::with_capacity(AHEAD, read)) => heard,
        written = outbox::write(frames, write) => written,
        () = hosting.watch() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a stream of another host's datagrams broke");
    }
}

impl Hosting {
    async fn hear(self: &Arc<Self>, mut from: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut content = Vec::new();
        while let Some(head) = frame::read(&mut from, &mut content).await? {
            let content = &content[..head.length];
            match head.what {
                What::Open => {
                    let target: Target = serde_json::from_slice(content)?;
                    if let Err(reason) = self.open(head.session, &target) {
                        tracing::debug!(container = target.container, port = target.port, %reason, "denied");
                        self.refuse(head.session, &reason);
                    }
                }
                What::Datagram => self.send(head.session, content),
                What::Close => drop(self.lock().remove(&head.session)),
                What::Refuse => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }

    /// Begins a session, if the caller may have it.
    fn open(self: &Arc<Self>, session: u32, target: &Target) -> Result<(), Refusal> {
        let shared = &self.common.shared;
        let busy = |what: &str| Refusal::Busy { reason: what.to_owned() };
        let place = self.place().ok_or_else(|| busy("too many sessions"))?;
        let (address, lease) = {
            let routing = shared.routing();
            let found = routing.grant(target, Protocol::Udp)?;
            let unknown = || Refusal::UnknownEndpoint { container: target.container.clone() };
            (SocketAddr::new(IpAddr::V4(found.address), target.port), found.state.lease().ok_or_else(unknown)?)
        };
        let port = PortKey::datagrams(target.port);
        let socket = datagrams::connect(address).and_then(UdpSocket::from_std).map_err(|error| {
            if is_own_limit(&error) {
                return busy(&error.to_string());
            }
            lease.note_failure(port, shared.now());
            Refusal::Unconnected { reason: error.to_string() }
        })?;
        let (socket, pulse) = (Arc::new(socket), Arc::new(Pulse::new(shared.now())));
        let answers = Answers {
            common: Arc::clone(&self.common),
            socket: Arc::clone(&socket),
            endpoint: lease.endpoint(),
            port,
            pulse: Arc::clone(&pulse),
            back: Back::Peer { outbox: self.outbox.clone(), session, share: Share::default() },
        };
        let own = Arc::downgrade(self);
        let hearing = tokio::spawn(async move {
            answers.pass_on().await;
            own.upgrade().inspect(|own| own.failed(session));
        });
        let hearing = AbortOnDropHandle::new(hearing);
        let guest = Guest { socket, lease, port: target.port, pulse, _hearing: hearing, _place: place };
        let gone = self.lock().insert(session, guest);
        count_all(&self.common.counters.evicted, &gone);
        Ok(())
    }

    /// Passes a datagram on to a container.
    fn send(&self, session: u32, bytes: &[u8]) {
        let now = self.common.shared.now();
        let mut guests = self.lock();
        let Some(guest) = guests.get_mut(&session).filter(|guest| !guest.is_over(now)) else {
            drop(guests.remove(&session));
            return self.tell(session, What::Close, &[]);
        };
        guest.pulse.note_question(now);
        match datagrams::send(&guest.socket, bytes) {
            Ok(()) => {
                count(&self.common.counters.questions);
                guest.lease.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                drop(guests);
                self.failed(session);
            }
            Err(_) => count(&self.common.counters.dropped),
        }
    }

    /// Ends a session because nobody listens at its port.
    fn failed(&self, session: u32) {
        let Some(guest) = self.lock().remove(&session) else { return };
        guest.lease.note_failure(PortKey::datagrams(guest.port), self.common.shared.now());
        self.refuse(session, &Refusal::Unconnected { reason: "connection refused".to_owned() });
    }

    fn refuse(&self, session: u32, reason: &Refusal) {
        self.tell(session, What::Refuse, &serde_json::to_vec(reason).unwrap_or_default());
    }

    fn tell(&self, session: u32, what: What, content: &[u8]) {
        // Where it is not heard, the next datagram is answered the same way.
        let _told = self.outbox.message(session, what, content);
    }

    fn place(&self) -> Option<Place> {
        let room = &self.common.room;
        room.enter().or_else(|| {
            let gone = self.lock().evict_oldest();
            count_all(&self.common.counters.evicted, &gone);
            drop(gone);
            room.enter()
        })
    }

    /// Ends the sessions that are over. Never resolves.
    async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.common.shared.now();
            let mut over = Vec::new();
            let is_over = |session: &u32, guest: &Guest| {
                let is_over = guest.is_over(now);
                over.extend(is_over.then_some(*session));
                is_over
            };
            drop(self.lock().sweep(is_over));
            for session in over {
                self.tell(session, What::Close, &[]);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger<u32, Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
