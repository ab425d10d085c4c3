//! From other hosts: a peer's request for a container of this host is checked by this host's own table, then relayed.
//!
//! The caller's word counts only as far as the table here agrees: the container must be a ready endpoint of this host,
//! of a service that the caller's service shares the named network with, or that publishes the port. Asked for by its own
//! address, it need not be ready. A granted connection counts towards its endpoint like any other, so that a drain waits
//! for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::choose::{CONNECT, connect, is_own_limit};
use super::endpoint::Lease;
use super::listeners::Serve;
use super::relay::relay;
use super::routing::Shared;
use super::trouble::Trouble;
use super::udp;
use crate::graph::Protocol;
use crate::mesh::{Handle, Incoming, Kind, Mesh, Refusal, Target};

/// Serves the connections of other hosts' agents.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) shared: Arc<Shared>,
    pub(super) mesh: Mesh,
    /// What serves their datagrams.
    pub(super) datagrams: Arc<udp::Common>,
    /// Who takes the agents' own conversations.
    pub(super) control: mpsc::Sender<Incoming>,
}

impl Serve for Inbound {
    async fn serve(self: Arc<Self>, tcp: TcpStream, from: SocketAddr) {
        self.mesh.serve(tcp, from, &*self).await;
    }
}

impl Handle for Inbound {
    async fn handle(&self, incoming: Incoming) {
        match &incoming.kind {
            Kind::Control | Kind::Snapshot(_) | Kind::Image(_) => {
                if let Err(error) = self.control.try_send(incoming) {
                    let reason = match &error {
                        mpsc::error::TrySendError::Full(_) => {
                            Refusal::Busy { reason: "too many agents call".to_owned() }
                        }
                        mpsc::error::TrySendError::Closed(_) => Refusal::NotServed,
                    };
                    deny(error.into_inner(), &reason).await;
                }
            }
            // Each session on it is checked by itself.
            Kind::Datagrams if self.mesh.peer(&incoming.peer).is_none() => deny(incoming, &Refusal::NotMember).await,
            Kind::Datagrams => match incoming.accept().await {
                Ok(stream) => udp::host(&self.datagrams, stream).await,
                Err(error) => tracing::debug!(%error, "a peer was gone before its stream was granted"),
            },
            Kind::Tcp(target) => match self.open(&incoming, target).await {
                Ok((server, lease)) => match incoming.accept().await {
                    Ok(client) => relay(client, server, &lease).await,
                    Err(error) => tracing::debug!(%error, "a peer was gone before its connection was granted"),
                },
                Err(reason) => deny(incoming, &reason).await,
            },
        }
    }
}

impl Inbound {
    /// Connects to what a peer asks for, if it may.
    async fn open(&self, incoming: &Incoming, target: &Target) -> Result<(TcpStream, Lease), Refusal> {
        if self.mesh.peer(&incoming.peer).is_none() {
            return Err(Refusal::NotMember);
        }
        let unknown = || Refusal::UnknownEndpoint { container: target.container.clone() };
        let (address, lease) = {
            let routing = self.shared.routing();
            let found = routing.grant(target, Protocol::Tcp)?;
            (SocketAddr::new(IpAddr::V4(found.address), target.port), found.state.lease().ok_or_else(unknown)?)
        };
        let failed = |reason: String| {
            lease.note_failure(target.port, self.shared.now());
            Refusal::Unconnected { reason }
        };
        match timeout(CONNECT, connect(address)).await {
            Ok(Ok(server)) => {
                lease.note_success(target.port);
                Ok((server, lease))
            }
            Ok(Err(error)) if is_own_limit(&error) => Err(Refusal::Busy { reason: error.to_string() }),
            Ok(Err(error)) => {
                lease.troubles.note(target.port, Trouble::of(&error), self.shared.now());
                Err(failed(error.to_string()))
            }
            Err(_) => Err(failed(format!("no answer within {CONNECT:?}"))),
        }
    }
}

async fn deny(incoming: Incoming, reason: &Refusal) {
    tracing::debug!(peer = %incoming.peer, %reason, "denied");
    if let Err(error) = incoming.refuse(reason).await {
        tracing::debug!(%error, "a peer was gone before it was denied");
    }
}
