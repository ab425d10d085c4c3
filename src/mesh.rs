//! Connections between the agents of a cluster: mutual TLS 1.3 on one TCP port of each host.
//!
//! Start here: [`Mesh::new`] with an [`identity::Identity`], then [`Mesh::dial`] and [`Mesh::listen`] (or
//! [`Mesh::serve`] for who has an accept loop). Knows hosts and streams, not what runs on them: whether a container
//! may be reached is the load balancer's matter. Both sides check chain, time, cluster and host of a certificate;
//! identity, refused hosts and peers' addresses are exchanged while running, and connections go on meanwhile.
//!
//! Tasks: one for each listener and each connection accepted by [`Mesh::listen`], and on threads that keep connections
//! one that closes those that nobody took; it ends with the last of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ids::HostName;

mod dial;
pub mod identity;
mod pool;
mod server;
mod socket;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod verify;
mod wire;

pub use dial::DialError;
pub use identity::{Authority, AuthorityPem, ClusterId, HostKey, Identity, IdentityError, Serial};
pub use server::{Handle, Incoming, MeshListener};
pub use stream::MeshStream;
pub use verify::{Moment, PeerError, Refusals};
pub use wire::{ImageTarget, Kind, PeerAddr, Refusal, Target, TargetDoor};

use server::Handshakes;
use verify::Tls;

/// The port on which agents listen for each other unless told otherwise. No service is registered for it with IANA,
/// and it lies below the range from which Linux takes ports for clients.
pub const DEFAULT_PORT: u16 = 7653;

/// How a [`Mesh`] behaves.
#[derive(Debug, Clone)]
pub struct MeshOptions {
    /// Time for connect and handshake, and for a caller's first message.
    pub handshake: Duration,
    /// Time for the answer to a request for a stream.
    pub answer: Duration,
    /// How long a connection is kept for the next stream.
    pub idle: Duration,
    /// Connections that each thread keeps for each peer.
    pub idle_per_peer: usize,
    /// Handshakes at a time that one address may have going on here. Hosts behind one address share it.
    pub handshakes_per_address: usize,
    /// Handshakes at a time with one peer that this host begins; further calls wait for their turn.
    pub dials_per_peer: usize,
}

impl Default for MeshOptions {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(3),
            answer: Duration::from_secs(5),
            idle: Duration::from_mins(1),
            idle_per_peer: 64,
            handshakes_per_address: 256,
            dials_per_peer: 32,
        }
    }
}

/// This host's end of all connections to other agents. Clones are the same mesh.
#[derive(Debug, Clone)]
pub struct Mesh(Arc<Inner>);

struct Inner {
    /// Tells meshes of one process apart: threads keep connections by it.
    number: u64,
    clock: Arc<dyn Clock>,
    options: MeshOptions,
    tls: ArcSwap<Tls>,
    renewals: AtomicU64,
    refusals: Arc<ArcSwap<Refusals>>,
    refusal_changes: watch::Sender<()>,
    peers: ArcSwap<BTreeMap<HostName, SocketAddr>>,
    handshakes: Handshakes,
    dialling: Mutex<BTreeMap<HostName, Arc<Semaphore>>>,
    counters: Counters,
    /// Connections without a stream are not to be kept any more.
    closing: CancellationToken,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("identity", &self.tls.load().identity).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Counters {
    dialled: AtomicU64,
    resumed: AtomicU64,
    reused: AtomicU64,
    accepted: AtomicU64,
    failed: AtomicU64,
    turned_away: AtomicU64,
}

/// Counters of a [`Mesh`] since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshStats {
    /// Connections made to other agents.
    pub dialled: u64,
    /// Of these, with a session of an earlier one: no certificates were shown.
    pub resumed: u64,
    /// Streams opened on a connection that was kept.
    pub reused: u64,
    /// Connections of other agents.
    pub accepted: u64,
    /// Connections that were no agent's of this cluster, or too slow.
    pub failed: u64,
    /// Connections closed at once: too many handshakes from one address.
    pub turned_away: u64,
}

impl Mesh {
    /// Makes a mesh that knows no peers and listens nowhere yet.
    ///
    /// # Errors
    /// The identity's key cannot be used.
    pub fn new(identity: Identity, clock: Arc<dyn Clock>, options: MeshOptions) -> Result<Self, IdentityError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let refusals = Arc::new(ArcSwap::<Refusals>::default());
        let tls = Tls::new(identity, Arc::clone(&clock), Arc::clone(&refusals))?;
        Ok(Self(Arc::new(Inner {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            clock,
            options,
            tls: ArcSwap::from_pointee(tls),
            renewals: AtomicU64::default(),
            refusals,
            refusal_changes: watch::Sender::new(()),
            peers: ArcSwap::default(),
            handshakes: Handshakes::default(),
            dialling: Mutex::default(),
            counters: Counters::default(),
            closing: CancellationToken::new(),
        })))
    }

    /// Returns who this host is at present.
    pub fn identity(&self) -> Identity {
        self.0.tls.load().identity.clone()
    }

    /// Returns whether this host's certificate is to be replaced now.
    pub fn wants_renewal(&self) -> bool {
        self.0.tls.load().identity.wants_renewal(self.0.clock.now())
    }

    /// Takes another certificate for this host: handshakes from now on use it, connections go on with the old one.
    ///
    /// # Errors
    /// It is another host's or cluster's, or its key cannot be used.
    pub fn set_identity(&self, identity: Identity) -> Result<(), IdentityError> {
        let (old, new) = (self.identity(), identity.statement());
        if (&old.statement().host, &old.statement().cluster) != (&new.host, &new.cluster) {
            let what = format!("this host, `{}` of cluster `{}`", old.statement().host, old.statement().cluster);
            return Err(IdentityError::Mismatch { host: new.host.clone(), what });
        }
        let tls = Tls::new(identity, Arc::clone(&self.0.clock), Arc::clone(&self.0.refusals))?;
        self.0.tls.store(Arc::new(tls));
        self.0.renewals.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Sets the hosts that are no longer accepted. Streams that they opened here are reset.
    pub fn set_refusals(&self, refusals: Refusals) {
        self.0.refusals.store(Arc::new(refusals));
        self.0.refusal_changes.send_replace(());
    }

    /// Sets where the agents of the cluster's other hosts listen. Only hosts in it may open connections to containers.
    pub fn set_peers(&self, peers: BTreeMap<HostName, SocketAddr>) {
        self.0.dialling.lock().unwrap_or_else(PoisonError::into_inner).retain(|host, _| peers.contains_key(host));
        self.0.peers.store(Arc::new(peers));
    }

    /// Returns where a host's agent listens, if it is known.
    pub fn peer(&self, host: &HostName) -> Option<PeerAddr> {
        self.0.peers.load().get(host).map(|address| PeerAddr { host: host.clone(), address: *address })
    }

    /// Ends the connections that other agents keep to this host, each as soon as it carries no stream. For good.
    pub fn close_idle(&self) {
        self.0.closing.cancel();
    }

    /// Returns what it did so far.
    pub fn stats(&self) -> MeshStats {
        let Counters { dialled, resumed, reused, accepted, failed, turned_away } = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MeshStats {
            dialled: read(dialled),
            resumed: read(resumed),
            reused: read(reused),
            accepted: read(accepted),
            failed: read(failed),
            turned_away: read(turned_away),
        }
    }
}

impl Inner {
    /// What bounds the handshakes that this host begins with a peer.
    fn dialling(&self, host: &HostName) -> Arc<Semaphore> {
        let mut all = self.dialling.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(self.options.dials_per_peer.max(1)));
        Arc::clone(all.entry(host.clone()).or_insert_with(new))
    }
}
