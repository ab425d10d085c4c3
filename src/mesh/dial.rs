//! To another agent: a connection that is kept or a new one, a stream on it, and why that failed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsConnector, TlsStream};

use super::identity::{IdentityError, dns_name};
use super::pool::{self, Home, Key, Limits};
use super::socket::Socket;
use super::stream::{Connection, MeshStream};
use super::verify::{PeerError, Tls, is_refused_by_peer, peer_error};
use super::wire::{Frame, Kind, PeerAddr, Refusal};
use super::{Inner, Mesh};
use crate::host::sockets;
use crate::ids::HostName;

/// Why a peer gave no stream.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address does not answer, or not as an agent.
    #[error("agent of `{host}` at {address} cannot be reached")]
    Unreachable {
        /// The host.
        host: HostName,
        /// Its agent's address.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The answer took too long.
    #[error("agent of `{host}` at {address} did not answer within {after:?}")]
    Deadline {
        /// The host.
        host: HostName,
        /// Its agent's address.
        address: SocketAddr,
        /// The patience.
        after: Duration,
    },
    /// It is not who it should be.
    #[error("agent at {address} is not accepted as `{host}`")]
    Untrusted {
        /// The host.
        host: HostName,
        /// Its agent's address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: PeerError,
    },
    /// It does not accept this host's certificate; its log says why.
    #[error("agent of `{host}` at {address} does not accept this host's certificate")]
    NotAccepted {
        /// The host.
        host: HostName,
        /// Its agent's address.
        address: SocketAddr,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// It denied the stream.
    #[error("agent of `{host}` refused: {reason}")]
    Refused {
        /// The host.
        host: HostName,
        /// Why.
        reason: Refusal,
    },
    /// This host has no descriptor, memory or port left.
    #[error("no room for another connection")]
    Exhausted(#[source] io::Error),
    /// The host's name is none that a certificate can hold.
    #[error("`{host}` cannot be called")]
    Name {
        /// The host.
        host: HostName,
        /// Why.
        #[source]
        source: IdentityError,
    },
}

/// One call.
struct Call<'a> {
    mesh: &'a Inner,
    peer: &'a PeerAddr,
    tls: Arc<Tls>,
    key: Key,
    request: Vec<u8>,
}

impl Mesh {
    /// Opens a stream to a peer: on a kept connection if this thread has one, else on a new one.
    ///
    /// The peer has granted the stream when this returns. Connections for [`Kind::Tcp`] are kept for the next call on
    /// this thread, if its runtime is single-threaded.
    ///
    /// # Errors
    /// Why there is no stream.
    pub async fn dial(&self, peer: &PeerAddr, kind: &Kind) -> Result<MeshStream, DialError> {
        let mesh = &*self.0;
        let tls = mesh.tls.load_full();
        let key = Key {
            epoch: (mesh.number, mesh.renewals.load(Ordering::Relaxed)),
            host: peer.host.clone(),
            address: peer.address,
        };
        let request = serde_json::to_vec(kind).map_err(|error| DialError::Unreachable {
            host: peer.host.clone(),
            address: peer.address,
            source: error.into(),
        })?;
        let call = Call { mesh, peer, tls, key, request };
        let keep = matches!(kind, Kind::Tcp(_)) && pool::is_possible();
        if keep {
            call.pooled().await
        } else {
            let connection = call.connect().await?;
            call.open(connection, Home::None).await
        }
    }
}

impl Call<'_> {
    /// On kept connections while they fail without an answer, then on a new one.
    async fn pooled(&self) -> Result<MeshStream, DialError> {
        self.check_admission()?;
        while let Some(connection) = pool::take(&self.key) {
            match self.open(connection, self.home()).await {
                // It had died meanwhile, and nothing was answered.
                Err(DialError::Unreachable { source, .. }) if !is_malformed(&source) => {}
                outcome => {
                    self.mesh.counters.reused.fetch_add(1, Ordering::Relaxed);
                    return outcome;
                }
            }
        }
        let connection = self.connect().await?;
        self.open(connection, self.home()).await
    }

    fn home(&self) -> Home {
        let options = &self.mesh.options;
        Home::Pool(self.key.clone(), Limits { count: options.idle_per_peer, idle: options.idle })
    }

    /// A host that was removed is not called, on kept connections neither.
    fn check_admission(&self) -> Result<(), DialError> {
        let removed = matches!(self.mesh.refusals.load().oldest.get(&self.peer.host), Some(None));
        if removed { Err(self.untrusted(PeerError::Removed(self.peer.host.clone()))) } else { Ok(()) }
    }

    /// Makes a connection, within the time for a handshake.
    async fn connect(&self) -> Result<Connection, DialError> {
        let after = self.mesh.options.handshake;
        match timeout_at(Instant::now() + after, Box::pin(self.handshake())).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.deadline(after)),
        }
    }

    async fn handshake(&self) -> Result<Connection, DialError> {
        let name = dns_name(&self.peer.host, &self.tls.identity.statement().cluster)
            .map_err(|source| DialError::Name { host: self.peer.host.clone(), source })?;
        // Bounded, so that a burst of calls stays below what the peer allows from one address.
        let dialling = self.mesh.dialling(&self.peer.host);
        let _turn = dialling.acquire().await.map_err(|_| self.unreachable(io::ErrorKind::NotConnected.into()))?;
        let socket = sockets::client(self.peer.address).map_err(DialError::Exhausted)?;
        let connected = TcpSocket::from_std_stream(socket).connect(self.peer.address).await;
        let tcp = connected.map_err(|error| self.failed(error))?;
        sockets::notice_dead_peer(&tcp).map_err(|error| self.failed(error))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls.client));
        let connected = connector.connect(ServerName::DnsName(name), Socket::new(tcp)).await;
        let stream = TlsStream::from(connected.map_err(|error| self.failed(error))?);
        // A resumed session has shown no certificate now.
        let certificate = Connection::certificate(&stream);
        let admitted = self.tls.examiner.admit(certificate, Some(&self.peer.host), self.mesh.clock.now());
        let statement = admitted.map_err(|error| self.untrusted(error))?;
        self.mesh.counters.dialled.fetch_add(1, Ordering::Relaxed);
        if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.mesh.counters.resumed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Connection::new(stream, statement.host))
    }

    /// Asks for the stream and awaits the answer.
    async fn open(&self, mut connection: Connection, home: Home) -> Result<MeshStream, DialError> {
        let conversation = async {
            connection.send(Frame::Open, &self.request).await?;
            connection.receive().await
        };
        let after = self.mesh.options.answer;
        let answer = timeout_at(Instant::now() + after, conversation).await.map_err(|_| self.deadline(after))?;
        match answer.map_err(|error| self.failed(error))? {
            Some((Frame::Accept, _)) => Ok(MeshStream::new(connection, home)),
            Some((Frame::Refuse, reason)) => {
                let reason = serde_json::from_slice(&reason).map_err(|error| self.failed(error.into()))?;
                home.give_back(connection);
                Err(DialError::Refused { host: self.peer.host.clone(), reason })
            }
            Some(_) => Err(self.failed(io::ErrorKind::InvalidData.into())),
            None => Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn failed(&self, source: io::Error) -> DialError {
        let (host, address) = (self.peer.host.clone(), self.peer.address);
        if let Some(reason) = peer_error(&source) {
            self.untrusted(reason)
        } else if is_refused_by_peer(&source) {
            DialError::NotAccepted { host, address, source }
        } else if sockets::is_exhausted(&source) || source.kind() == io::ErrorKind::AddrNotAvailable {
            DialError::Exhausted(source)
        } else {
            DialError::Unreachable { host, address, source }
        }
    }

    fn unreachable(&self, source: io::Error) -> DialError {
        DialError::Unreachable { host: self.peer.host.clone(), address: self.peer.address, source }
    }

    fn untrusted(&self, source: PeerError) -> DialError {
        DialError::Untrusted { host: self.peer.host.clone(), address: self.peer.address, source }
    }

    fn deadline(&self, after: Duration) -> DialError {
        DialError::Deadline { host: self.peer.host.clone(), address: self.peer.address, after }
    }
}

/// Whether the peer did answer, but not as an agent does.
fn is_malformed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}
