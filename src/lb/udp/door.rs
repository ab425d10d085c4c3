//! The sockets that clients send to.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use super::times::Limits;
use crate::host::datagrams::{self, LARGEST};
use crate::lb::routing::Door;
use crate::lb::table::{NetworkId, PublishedKey};

/// Datagrams taken from a socket before other tasks of the worker have their turn.
pub(super) const BATCH: usize = 64;

/// Pause after a failure that is no client's, so as not to spin.
const PAUSE: Duration = Duration::from_millis(50);

thread_local! {
    /// Where a worker reads datagrams into.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; LARGEST]);
}

/// Lends the worker's buffer. What is done with it must not come here again.
pub(super) fn with_scratch<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| use_it(scratch))
}

/// What a door's datagrams are for.
#[derive(Debug, Clone)]
pub(in crate::lb) enum Inlet {
    /// For this port of the virtual addresses of a network, or of those of its pods on other hosts.
    Bridge(NetworkId, u16),
    /// For a published port.
    Published(PublishedKey),
}

/// One of a door's sockets.
#[derive(Debug)]
pub(super) struct DoorSocket {
    /// The door's number: no other one ever has it.
    pub(super) number: u64,
    pub(super) limits: Limits,
    socket: UdpSocket,
    inlet: Inlet,
}

impl DoorSocket {
    /// To be called on the worker that serves it.
    pub(super) fn new(number: u64, socket: std::net::UdpSocket, inlet: Inlet, limits: Limits) -> io::Result<Self> {
        Ok(Self { number, limits, socket: UdpSocket::from_std(socket)?, inlet })
    }

    /// Returns what a datagram is for that was sent to this address.
    pub(super) fn destination(&self, to: IpAddr) -> Option<Door> {
        match (&self.inlet, to) {
            (Inlet::Published(key), _) => Some(Door::Published(*key)),
            (Inlet::Bridge(network, port), IpAddr::V4(address)) => {
                Some(Door::Vip { network: network.clone(), address, port: *port })
            }
            (Inlet::Bridge(..), IpAddr::V6(_)) => None,
        }
    }

    /// Sends an answer from the address that was asked.
    pub(super) fn answer(&self, bytes: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<()> {
        datagrams::send_from(&self.socket, bytes, from, to)
    }

    /// The same, once there is room for it.
    pub(super) async fn answer_later(&self, bytes: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<()> {
        self.socket.async_io(Interest::WRITABLE, || self.answer(bytes, from, to)).await
    }
}

/// Takes what comes in at a socket until it is to stop; its sessions end then.
pub(super) async fn receive(lane: &Arc<Lane>, door: &Arc<DoorSocket>, stop: &CancellationToken) {
    let receiving = async {
        loop {
            if door.socket.readable().await.is_err() || !take(lane, door) {
                tokio::time::sleep(PAUSE).await;
            }
            tokio::task::yield_now().await;
        }
    };
    stop.run_until_cancelled(receiving).await;
    lane.close(door.number);
}

/// Takes some of what is there; `false` if that failed.
fn take(lane: &Arc<Lane>, door: &Arc<DoorSocket>) -> bool {
    for _ in 0..BATCH {
        let taken = with_scratch(|buffer| {
            let received = door.socket.try_io(Interest::READABLE, || datagrams::receive(&door.socket, buffer))?;
            lane.forward(door, received.from, received.to, &buffer[..received.length]);
            Ok::<_, io::Error>(())
        });
        match taken {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            // Without an address: not for us to guess.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(error) => {
                tracing::debug!(%error, "cannot read datagrams");
                return false;
            }
        }
    }
    true
}
