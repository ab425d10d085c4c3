//! TCP through the balancer: find what the connection is for, an endpoint that takes it, then relay bytes. Connections to a
//! port that speaks HTTP are handed over to `http` instead.
//!
//! A connection that no endpoint takes at once is held for a while. It is never answered by something else: when the
//! patience is over the client gets a reset, as near to "connection refused" as an accepted connection can come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;

use super::choose::{Search, Server};
use super::http::Http;
use super::listeners::Serve;
use super::relay::relay;
use super::routing::{Door, Shared};
use super::table::{NetworkId, PublishedKey};
use crate::host::sockets;

/// What a listener's connections are for.
#[derive(Debug, Clone)]
pub(super) enum Inlet {
    /// Redirected from the virtual addresses of a network, or those of its pods on other hosts.
    Vip(NetworkId),
    /// Made to a published port.
    Published(PublishedKey),
}

/// Serves the connections of one listener.
#[derive(Debug)]
pub(super) struct L4 {
    pub(super) shared: Arc<Shared>,
    pub(super) inlet: Inlet,
    pub(super) hold: Duration,
    pub(super) refused: Arc<AtomicU64>,
    /// Who serves connections that are for a port that is balanced by request.
    pub(super) http: Arc<Http>,
}

impl Serve for L4 {
    async fn serve(self: Arc<Self>, client: TcpStream, peer: SocketAddr) {
        let door = self.door(&client).map(Arc::new);
        if let Some(door) = door.as_ref().filter(|door| self.shared.routing().protocol(door).is_some()) {
            let (http, door) = (Arc::clone(&self.http), Arc::clone(door));
            let port = door.port();
            return Box::pin(http.serve_door(client, peer, door, port)).await;
        }
        let link = match door {
            Some(door) => Search::new(&self.shared, door, peer.ip(), self.hold).link().await.ok(),
            None => None,
        };
        if let Some((server, lease)) = link {
            match server {
                Server::Here(server) => relay(client, server, &lease).await,
                Server::There(server) => relay(client, *server, &lease).await,
            }
        } else {
            tracing::debug!(inlet = ?self.inlet, %peer, "connection refused: no endpoint took it");
            self.refused.fetch_add(1, Ordering::Relaxed);
            sockets::reset_on_close(&client);
        }
    }

    fn is_for_anybody(&self) -> bool {
        matches!(self.inlet, Inlet::Published(_))
    }
}

impl L4 {
    /// What the client asked for; `None` if it came to the listener without a redirect.
    fn door(&self, client: &TcpStream) -> Option<Door> {
        match &self.inlet {
            Inlet::Published(key) => Some(Door::Published(*key)),
            Inlet::Vip(network) => {
                let destination = sockets::original_destination(client).ok()?;
                Some(Door::Vip { network: network.clone(), address: *destination.ip(), port: destination.port() })
            }
        }
    }
}
