//! Connections to pods as the general path keeps them: pingora pools them, but does not know when a pod leaves, when an
//! answer is late, or what a stream to another host is.
//!
//! So each has a second descriptor here, by which it is shut when its time is over or its pod is gone, and pingora then
//! finds it ended. A stream to another host is a socket pair to pingora, whose other end is relayed: its pool tells
//! connections apart by their descriptors.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::GetProxyDigest as _;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::{Error, ErrorType};
use pingora_http::ResponseHeader;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::watch;
use crate::host::sockets;
use crate::lb::choose::{Dial, Failure, Server};
use crate::lb::endpoint::EndpointState;
use crate::mesh::MeshStream;

/// How long a connection is kept without a request, and how long while the pod has others.
const KEPT_FOR: Duration = Duration::from_secs(5);
const KEPT_FOR_AT_MOST: Duration = Duration::from_secs(50);

/// Time that a pod has to end its side once ours has ended.
const FAREWELL: Duration = Duration::from_secs(5);

/// What is known of a connection to a pod.
#[derive(Debug)]
pub(super) struct Link {
    endpoint: Arc<EndpointState>,
    /// The same socket: to shut it, whoever holds it.
    socket: OwnedFd,
    /// Requests on it; the one that it was made for counts from the start.
    busy: AtomicUsize,
    is_new: AtomicBool,
    /// When its request is late, or since when it has none.
    times: Mutex<Times>,
    is_late: AtomicBool,
    is_starved: AtomicBool,
    is_broken: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Times {
    late: Option<Late>,
    idle: Instant,
}

/// Until when something must come, and from whom.
#[derive(Debug, Clone, Copy)]
struct Late {
    at: Instant,
    /// More of the request, else the answer.
    of_client: bool,
}

thread_local!(static LINKS: RefCell<Vec<std::sync::Weak<Link>>> = RefCell::default());

impl Link {
    fn new(endpoint: Arc<EndpointState>, socket: &impl AsFd, is_broken: Arc<AtomicBool>) -> io::Result<Arc<Self>> {
        let link = Arc::new(Self {
            endpoint,
            socket: socket.as_fd().try_clone_to_owned()?,
            busy: AtomicUsize::new(1),
            is_new: AtomicBool::new(true),
            times: Mutex::new(Times { late: None, idle: Instant::now() }),
            is_late: AtomicBool::default(),
            is_starved: AtomicBool::default(),
            is_broken,
        });
        LINKS.with_borrow_mut(|links| links.push(Arc::downgrade(&link)));
        watch::look();
        Ok(link)
    }

    /// Notes a request.
    pub(super) fn begin(&self) {
        if !self.is_new.swap(false, Ordering::Relaxed) {
            self.busy.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a request was sent, whose answer is late after `limit`.
    pub(super) fn expect(&self, limit: Duration) {
        self.lock().late = Some(Late { at: Instant::now() + limit, of_client: false });
    }

    /// Notes that the client has more to send, for which it has `limit`.
    pub(super) fn expect_more(&self, limit: Duration) {
        self.lock().late = Some(Late { at: Instant::now() + limit, of_client: true });
    }

    /// Notes that an answer has begun.
    pub(super) fn answered(&self) {
        let mut times = self.lock();
        // What the client owes, it goes on owing.
        times.late = times.late.filter(|late| late.of_client);
    }

    /// Notes that the whole request was sent, whose answer has begun.
    pub(super) fn sent(&self) {
        self.lock().late = None;
    }

    /// Notes the end of a request.
    pub(super) fn end(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        *self.lock() = Times { late: None, idle: Instant::now() };
    }

    /// Returns whether it was shut because an answer was late.
    pub(super) fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Relaxed)
    }

    /// Returns whether it was shut because the client sent no more of its request.
    pub(super) fn is_starved(&self) -> bool {
        self.is_starved.load(Ordering::Relaxed)
    }

    /// Returns whether it ended otherwise than by its pod's wish.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::SeqCst)
    }

    /// Ends it after an answer that has come whole, so that no other request goes on it.
    pub(super) fn part(&self) {
        // It may have ended already.
        let _ended = sockets::shutdown(&self.socket);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, now: Instant) {
        let Times { late, idle } = *self.lock();
        let late = late.filter(|late| late.at <= now);
        let idle = now.duration_since(idle);
        // A request that is about to take it from pingora's pool has its share of the endpoint's count already.
        let may_be_wanted = self.endpoint.open() > 0;
        let is_old = idle >= if may_be_wanted { KEPT_FOR_AT_MOST } else { KEPT_FOR };
        let is_useless = is_old || (self.endpoint.is_retired() && !may_be_wanted);
        let is_useless = is_useless && self.busy.load(Ordering::Relaxed) == 0;
        if let Some(late) = late {
            let whose = if late.of_client { &self.is_starved } else { &self.is_late };
            whose.store(true, Ordering::Relaxed);
        }
        if late.is_some() || is_useless || self.endpoint.is_closed() {
            // It may have ended already.
            let _ended = sockets::shutdown(&self.socket);
        }
    }
}

/// Looks after the connections of this thread; returns how many there are.
pub(super) fn tidy(now: Instant) -> usize {
    LINKS.with_borrow_mut(|links| {
        links.retain(|link| {
            link.upgrade().is_some_and(|link| {
                link.look(now);
                true
            })
        });
        links.len()
    })
}

/// Makes one connection for pingora, the way that was chosen for the request.
#[derive(Debug)]
pub(super) struct Connector {
    dial: Dial,
    /// Why it failed, for who searches on.
    failure: Mutex<Option<Failure>>,
}

impl Connector {
    pub(super) fn new(dial: Dial) -> Arc<Self> {
        Arc::new(Self { dial, failure: Mutex::default() })
    }

    /// Returns why it failed; an endpoint's failure if it did not even try.
    pub(super) fn failure(&self) -> Failure {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(Failure::Endpoint)
    }

    async fn stream(&self) -> Result<Stream, Failure> {
        let is_broken = Arc::new(AtomicBool::default());
        let own = |_| Failure::Exhausted;
        let endpoint = || Arc::clone(self.dial.endpoint());
        let (mut stream, link) = match self.dial.connect().await? {
            Server::Here(tcp) => {
                let link = Link::new(endpoint(), &tcp, is_broken).map_err(own)?;
                (Stream::from(tcp), link)
            }
            Server::There(there) => {
                let (near, far) = UnixStream::pair().map_err(own)?;
                let link = Link::new(endpoint(), &near, Arc::clone(&is_broken)).map_err(own)?;
                tokio::spawn(relay(far, there, is_broken));
                (Stream::from(near), link)
            }
        };
        stream.set_proxy_digest(digest(Box::new(link)).map_err(|_| Failure::Exhausted)?);
        Ok(stream)
    }
}

/// Wraps what is ours so that pingora carries it along with a connection.
pub(super) fn digest(data: Box<dyn std::any::Any + Send + Sync>) -> pingora_core::Result<ProxyDigest> {
    Ok(ProxyDigest::new(Box::new(ResponseHeader::build(200, Some(0))?), Some(data)))
}

/// Returns what is known of the connection that a request goes on.
pub(super) fn of(digest: Option<&pingora_core::protocols::Digest>) -> Option<Arc<Link>> {
    digest?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref::<Arc<Link>>().cloned()
}

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, _: &SocketAddr) -> pingora_core::Result<Stream> {
        self.stream().await.map_err(|failure| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            Error::new_up(ErrorType::ConnectError)
        })
    }
}

/// Moves bytes between pingora and another host until both have ended.
async fn relay(mut near: UnixStream, mut there: Box<MeshStream>, is_broken: Arc<AtomicBool>) {
    let ended = {
        let (mut near_read, mut near_write) = near.split();
        let (mut there_read, mut there_write) = tokio::io::split(&mut *there);
        let up = async {
            tokio::io::copy(&mut near_read, &mut there_write).await?;
            there_write.shutdown().await
        };
        let down = async {
            let moved = tokio::io::copy(&mut there_read, &mut near_write).await;
            if moved.is_err() {
                // Before pingora sees an end, which it might take for the answer's.
                is_broken.store(true, Ordering::SeqCst);
            }
            near_write.shutdown().await?;
            moved
        };
        let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
        tokio::select! {
            up = &mut up => match up {
                Ok(()) => tokio::time::timeout(FAREWELL, down).await.is_ok_and(|down| down.is_ok()),
                Err(_) => false,
            },
            down = &mut down => down.is_ok() && up.await.is_ok(),
        }
    };
    if !ended {
        there.fail();
    }
}
