//! The accept loop and the threads that it runs on: the same for every protocol, generic over what serves a connection.
//!
//! Each worker is a thread with a single-threaded runtime; each listener has one socket on every worker, and the kernel
//! spreads new connections over them by a hash (`SO_REUSEPORT`). A connection stays on its worker for life: nothing is
//! shared or stolen on the way of the data. With few connections the workers may be unevenly loaded; that is accepted.
//!
//! Stops: a listener by its own token, a worker by the balancer's end. What waits in the queue of a listener that ends is
//! reset by the kernel, as it would be here: a listener ends when nothing is behind it any more.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::sockets::{self, BindTo};

/// First and longest pause of an accept loop when the process or the machine is out of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// One of so many connections is kept back from anybody: however many come from outside, a host goes on serving its
/// containers and answering the other hosts.
const KEPT_BACK: usize = 4;

/// Time for the workers to close a listener's sockets. They do it at once, unless they wait for connections to end because
/// there are as many as may be.
const CLOSING: Duration = Duration::from_millis(100);

/// What is done with an accepted connection.
pub trait Serve: Send + Sync + 'static {
    /// Serves one connection to its end. Runs as a task of its own on the worker that accepted it.
    fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> + Send;

    /// Returns whether anybody may connect: then connections leave room for those of containers and of other hosts' agents.
    fn is_for_anybody(&self) -> bool {
        false
    }
}

/// The threads that accept and serve.
#[derive(Debug)]
pub(super) struct Workers {
    handles: Vec<tokio::runtime::Handle>,
    threads: Vec<std::thread::JoinHandle<()>>,
    end: CancellationToken,
    gate: Arc<Gate>,
}

/// What all listeners share.
#[derive(Debug)]
pub(super) struct Gate {
    /// One permit for each connection. When all are out, the loops stop accepting; the kernel's queue holds what comes,
    /// and beyond that clients repeat their SYN: nothing is dropped, all is later.
    permits: Arc<Semaphore>,
    /// The share of them that connections of anybody may have.
    of_anybody: Arc<Semaphore>,
    /// The tasks of all connections.
    pub(super) connections: TaskTracker,
    /// Connections accepted so far.
    pub(super) accepted: AtomicU64,
}

/// A listener that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Listening {
    /// Where, with the port that was chosen.
    pub(super) address: SocketAddr,
    stop: tokio_util::sync::DropGuard,
    /// Ends once no worker has its socket any more.
    open: mpsc::Receiver<()>,
}

impl Listening {
    /// Ends it, and waits until its port is free for another, or for [`CLOSING`].
    pub(super) fn close(self) {
        drop(self.stop);
        self.open.recv_timeout(CLOSING).ok();
    }
}

impl Workers {
    /// Starts `count` workers (at least one) that together hold `max_connections` connections at most.
    pub(super) fn start(count: usize, max_connections: usize) -> io::Result<Self> {
        let most = max_connections.clamp(1, Semaphore::MAX_PERMITS);
        let gate = Gate {
            permits: Arc::new(Semaphore::new(most)),
            of_anybody: Arc::new(Semaphore::new(most - most / KEPT_BACK)),
            connections: TaskTracker::new(),
            accepted: AtomicU64::default(),
        };
        let end = CancellationToken::new();
        let mut workers = Self { handles: Vec::new(), threads: Vec::new(), end, gate: Arc::new(gate) };
        for index in 0..count.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            workers.handles.push(runtime.handle().clone());
            let end = workers.end.clone();
            let body = move || runtime.block_on(end.cancelled_owned());
            workers.threads.push(std::thread::Builder::new().name(format!("orch-lb-{index}")).spawn(body)?);
        }
        Ok(workers)
    }

    /// Returns the runtimes of the workers.
    pub(super) fn handles(&self) -> &[tokio::runtime::Handle] {
        &self.handles
    }

    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Starts to listen on `address`, with one socket for each worker.
    pub(super) fn listen<S: Serve>(&self, address: SocketAddr, bind_to: BindTo, serve: S) -> io::Result<Listening> {
        self.serve(sockets::listen_shared(address, bind_to, self.handles.len())?, serve)
    }

    /// Returns how many workers there are.
    pub(super) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Accepts on `listeners`, one for each worker.
    pub(super) fn serve<S: Serve>(&self, listeners: Vec<std::net::TcpListener>, serve: S) -> io::Result<Listening> {
        let first = listeners.first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let address = first.local_addr()?;
        let (stop, serve) = (CancellationToken::new(), Arc::new(serve));
        let (is_open, open) = mpsc::channel::<()>();
        for (worker, listener) in self.handles.iter().zip(listeners) {
            let (gate, serve, stop) = (Arc::clone(&self.gate), Arc::clone(&serve), stop.clone());
            let is_open = is_open.clone();
            worker.spawn(async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => accept_loop(&listener, &serve, &gate, &stop).await,
                    Err(error) => tracing::error!(%address, %error, "cannot watch a listener: its share is not served"),
                }
                drop(is_open);
            });
        }
        Ok(Listening { address, stop: stop.drop_guard(), open })
    }

    /// Ends the workers and with them every connection that is left.
    pub(super) async fn stop(mut self) {
        self.end.cancel();
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok())).await;
        if !joined.unwrap_or(false) {
            tracing::error!("a load balancer thread had panicked");
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

async fn accept_loop<S: Serve>(listener: &TcpListener, serve: &Arc<S>, gate: &Gate, stop: &CancellationToken) {
    let mut stopped = std::pin::pin!(stop.cancelled());
    let mut back_off = BACK_OFF;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                back_off = BACK_OFF;
                gate.serve(serve, stream, peer).await;
            }
            Err(error) if sockets::is_exhausted(&error) => {
                tracing::warn!(%error, "cannot accept connections, trying again in {back_off:?}");
                tokio::select! {
                    () = &mut stopped => break,
                    () = tokio::time::sleep(back_off) => back_off = (back_off * 2).min(BACK_OFF_MAX),
                }
            }
            // The client was gone before its turn came. Source: accept(2), "Error handling".
            Err(error) => tracing::debug!(%error, "a connection failed before it was accepted"),
        }
    }
}

impl Gate {
    /// Waits for a permit, then serves the connection in a task of its own.
    async fn serve<S: Serve>(&self, serve: &Arc<S>, stream: TcpStream, peer: SocketAddr) {
        // The semaphores are never closed.
        let share = if serve.is_for_anybody() { Arc::clone(&self.of_anybody).acquire_owned().await.ok() } else { None };
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let serve = Arc::clone(serve);
        self.connections.spawn(async move {
            serve.serve(stream, peer).await;
            drop((permit, share));
        });
    }
}
