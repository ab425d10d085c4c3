//! From other agents: handshakes within their bounds, then one stream after the other on each connection.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::identity::Statement;
use super::pool::Home;
use super::socket::Socket;
use super::stream::{Connection, MeshStream};
use super::verify::{PeerError, Tls};
use super::wire::{Frame, Kind, Refusal};
use super::{Inner, Mesh};
use crate::host::sockets::{self, BindTo};
use crate::ids::HostName;

/// Pause of the accept loop when the process is out of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What is done with a stream that a peer asks for.
pub trait Handle: Send + Sync + 'static {
    /// Serves one stream: [`Incoming::accept`] or [`Incoming::refuse`] first. It may hand the stream to somebody else
    /// and return. Dropped when the peer is removed from the cluster, and the stream with it.
    fn handle(&self, incoming: Incoming) -> impl Future<Output = ()> + Send;
}

/// A stream that a peer asks for. Dropped without an answer it ends the peer's connection.
#[derive(Debug)]
pub struct Incoming {
    /// The host that calls, as its certificate says.
    pub peer: HostName,
    /// What it asks for.
    pub kind: Kind,
    connection: Connection,
    home: oneshot::Sender<Connection>,
}

impl Incoming {
    /// Grants the stream.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn accept(self) -> io::Result<MeshStream> {
        let Self { peer: _, kind: _, mut connection, home } = self;
        connection.send(Frame::Accept, &[]).await?;
        Ok(MeshStream::new(connection, Home::Server(home)))
    }

    /// Denies it; the peer may ask for another.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn refuse(self, reason: &Refusal) -> io::Result<()> {
        let Self { peer: _, kind: _, mut connection, home } = self;
        refuse(&mut connection, reason).await?;
        Home::Server(home).give_back(connection);
        Ok(())
    }
}

/// A listener that runs until this is dropped; its connections go on.
#[derive(Debug)]
pub struct MeshListener {
    /// Where, with the port that was chosen.
    pub address: SocketAddr,
    _stop: DropGuard,
}

impl Mesh {
    /// Listens on the current runtime.
    ///
    /// # Errors
    /// What `bind` or `listen` said.
    pub fn listen<H: Handle>(&self, address: SocketAddr, handler: Arc<H>) -> io::Result<MeshListener> {
        let socket = sockets::listen_shared(address, BindTo::Present, 1)?.pop();
        let listener = TcpListener::from_std(socket.ok_or(io::ErrorKind::NotFound)?)?;
        let address = listener.local_addr()?;
        let (mesh, stop) = (self.clone(), CancellationToken::new());
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move {
            let accepting = async {
                loop {
                    match listener.accept().await {
                        Ok((tcp, from)) => {
                            let (mesh, handler) = (mesh.clone(), Arc::clone(&handler));
                            tokio::spawn(async move { mesh.serve(tcp, from, &*handler).await });
                        }
                        Err(error) if sockets::is_exhausted(&error) => {
                            tracing::warn!(%error, "cannot accept agents' connections, trying again");
                            tokio::time::sleep(BACK_OFF).await;
                        }
                        Err(error) => tracing::debug!(%error, "a connection failed before it was accepted"),
                    }
                }
            };
            stop.run_until_cancelled(accepting).await;
        });
        Ok(MeshListener { address, _stop: guard })
    }

    /// Serves one accepted connection to its end.
    pub async fn serve<H: Handle>(&self, tcp: TcpStream, from: SocketAddr, handler: &H) {
        let mesh = &*self.0;
        let Some(slot) = Slot::take(mesh, from.ip()) else {
            mesh.counters.turned_away.fetch_add(1, Ordering::Relaxed);
            sockets::reset_on_close(&tcp);
            return;
        };
        // Handshakes are large and soon over.
        match Box::pin(mesh.greet(tcp)).await {
            Ok((connection, first, tls)) => {
                drop(slot);
                mesh.accepted(connection, first, &tls, handler).await;
            }
            Err(error) => {
                mesh.counters.failed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%from, %error, "no agent of this cluster");
            }
        }
    }
}

impl Inner {
    /// Handshake and first message, both within the time for a handshake.
    async fn greet(&self, tcp: TcpStream) -> Result<(Connection, Vec<u8>, Arc<Tls>), io::Error> {
        let deadline = Instant::now() + self.options.handshake;
        let tls = self.tls.load_full();
        let greeting = async {
            sockets::notice_dead_peer(&tcp)?;
            let accepted = TlsAcceptor::from(Arc::clone(&tls.server)).accept(Socket::new(tcp)).await;
            let stream = TlsStream::from(accepted?);
            // A resumed session was not examined; it is before its first stream is granted.
            let statement = Connection::certificate(&stream).and_then(|der| Statement::read(der));
            let statement = statement.ok_or_else(|| io::Error::other(PeerError::Foreign))?;
            let mut connection = Connection::new(stream, statement.host);
            let first = open_request(&mut connection).await?;
            Ok::<_, io::Error>((connection, first))
        };
        let (connection, first) = timeout_at(deadline, greeting).await.map_err(|_| io::ErrorKind::TimedOut)??;
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        Ok((connection, first, tls))
    }

    /// Serves one stream after the other.
    async fn accepted<H: Handle>(&self, mut connection: Connection, first: Vec<u8>, tls: &Tls, handler: &H) {
        let mut refusals = self.refusal_changes.subscribe();
        let peer = connection.peer.clone();
        let certificate = connection.certificate_bytes();
        let admitted = || tls.examiner.admit(certificate.as_ref(), Some(&peer), self.clock.now());
        let mut request = first;
        loop {
            refusals.mark_unchanged();
            if let Err(error) = admitted() {
                let told = refuse(&mut connection, &Refusal::NotAccepted { reason: error.to_string() }).await;
                tracing::info!(%peer, %error, told = told.is_ok(), "an agent's connection ends");
                return;
            }
            let Ok(kind) = serde_json::from_slice(&request) else {
                let told = refuse(&mut connection, &Refusal::NotUnderstood).await;
                tracing::warn!(%peer, told = told.is_ok(), "an agent's request was not understood");
                return;
            };
            let (home, back) = oneshot::channel();
            let serving = async {
                handler.handle(Incoming { peer: peer.clone(), kind, connection, home }).await;
                back.await
            };
            let served = tokio::select! {
                served = serving => served,
                error = no_more_admitted(&mut refusals, &admitted) => {
                    tracing::info!(%peer, %error, "an agent's stream ends");
                    return;
                }
            };
            let Ok(returned) = served else { return };
            connection = returned;
            let until = Instant::now() + self.options.idle * 2;
            let next = timeout_at(until, open_request(&mut connection));
            match self.closing.run_until_cancelled(next).await {
                Some(Ok(Ok(next))) => request = next,
                // The peer closed what it did not need or keeps it for longer than it may, or this host's agent ends.
                Some(Ok(Err(_)) | Err(_)) | None => return,
            }
        }
    }
}

/// Resolves when the peer is no more accepted because its host was removed. A certificate that only expires does not
/// end a stream.
async fn no_more_admitted<T>(
    refusals: &mut watch::Receiver<()>,
    admitted: &impl Fn() -> Result<T, PeerError>,
) -> PeerError {
    while refusals.changed().await.is_ok() {
        if let Err(error @ (PeerError::Removed(_) | PeerError::Superseded(_))) = admitted() {
            return error;
        }
    }
    std::future::pending().await
}

async fn open_request(connection: &mut Connection) -> io::Result<Vec<u8>> {
    match connection.receive().await? {
        Some((Frame::Open, request)) => Ok(request),
        Some(_) => Err(io::ErrorKind::InvalidData.into()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn refuse(connection: &mut Connection, reason: &Refusal) -> io::Result<()> {
    connection.send(Frame::Refuse, &serde_json::to_vec(reason)?).await
}

/// Handshakes that go on now, by the address that they come from.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Mutex<BTreeMap<IpAddr, usize>>);

/// A place among the handshakes of one address.
struct Slot<'a> {
    mesh: &'a Inner,
    from: IpAddr,
}

impl<'a> Slot<'a> {
    fn take(mesh: &'a Inner, from: IpAddr) -> Option<Self> {
        let mut all = mesh.handshakes.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry(from).or_default();
        if *own >= mesh.options.handshakes_per_address {
            return None;
        }
        *own += 1;
        Some(Self { mesh, from })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut all = self.mesh.handshakes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(&self.from) {
            *own -= 1;
            if *own == 0 {
                all.remove(&self.from);
            }
        }
    }
}
