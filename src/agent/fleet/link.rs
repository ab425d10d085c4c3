//! The connections to the other agents: one stream to each that this host opens and tells its picture on, and those that
//! the others opened. Who is no host of the cluster is not listened to.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::ids::HostName;
use crate::mesh::{DialError, Incoming, Kind, Mesh, PeerAddr, Refusal};

use super::super::passing;
use super::super::shared::Shared;
use super::super::snapshots;
use super::sync;

/// Conversations that wait to be taken up.
const BACKLOG: usize = 64;

/// How often the mesh's port is tried again that somebody else has, and the certificate is looked at.
const CHECK: Duration = Duration::from_secs(2);

/// Keeps this host connected with the others until stopped. Started by `wire` only, where there is a cluster.
///
/// Reads the cluster's hosts; writes through [`sync`].
pub async fn run(shared: Arc<Shared>, mesh: Mesh, stop: CancellationToken) {
    let mut changed = shared.records_changed();
    let (control, mut incoming) = mpsc::channel::<Incoming>(BACKLOG);
    let mut telling: BTreeMap<HostName, (SocketAddr, AbortOnDropHandle<()>)> = BTreeMap::new();
    let mut hearing: BTreeMap<HostName, AbortOnDropHandle<()>> = BTreeMap::new();
    let mut check = tokio::time::interval(CHECK);
    let mut listens = false;
    loop {
        changed.mark_unchanged();
        let fleet = shared.fleet();
        let peers: BTreeMap<HostName, SocketAddr> =
            fleet.others().map(|(name, record)| (name.clone(), record.address)).collect();
        mesh.set_peers(peers.clone());
        hearing.retain(|name, task| peers.contains_key(name) && !task.is_finished());
        telling.retain(|name, (address, task)| peers.get(name) == Some(address) && !task.is_finished());
        for (name, address) in peers {
            telling.entry(name.clone()).or_insert_with(|| {
                (address, AbortOnDropHandle::new(tokio::spawn(tell(shared.clone(), mesh.clone(), name, address))))
            });
        }
        if !listens && let Some(own) = fleet.hosts.get(&fleet.own) {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), own.address.port());
            listens = listen(&shared, &mesh, address, &control);
        }
        tokio::select! {
            () = stop.cancelled() => {
                shared.dataplane.leave_mesh();
                return;
            }
            _ = changed.changed() => {}
            () = shared.expelled.notified() => {
                tracing::warn!("this host was taken out of the cluster: what runs here for it is taken down");
                if let Err(error) = super::withdraw(&shared).await {
                    tracing::error!(%error, "the cluster cannot be left");
                }
            }
            _ = check.tick() => super::renew::check(&shared, &mesh),
            Some(call) = incoming.recv() => {
                let peer = call.peer.clone();
                if !shared.fleet().hosts.contains_key(&peer) {
                    tracing::warn!(%peer, "a host that is not in the cluster calls");
                    tokio::spawn(async move { drop(call.refuse(&Refusal::NotMember).await) });
                    continue;
                }
                if matches!(call.kind, Kind::Snapshot(_)) {
                    tokio::spawn(snapshots::serve(shared.clone(), call));
                    continue;
                }
                if matches!(call.kind, Kind::Image(_)) {
                    tokio::spawn(passing::give(shared.clone(), call));
                    continue;
                }
                // A host that calls again has lost its earlier stream.
                let task = tokio::spawn(hear(shared.clone(), peer.clone(), call));
                hearing.insert(peer, AbortOnDropHandle::new(task));
            }
        }
    }
}

fn listen(shared: &Shared, mesh: &Mesh, address: SocketAddr, control: &mpsc::Sender<Incoming>) -> bool {
    match shared.dataplane.join_mesh(mesh.clone(), address, control.clone()) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%address, %error, "cannot listen for the other hosts");
            false
        }
    }
}

async fn tell(shared: Arc<Shared>, mesh: Mesh, name: HostName, address: SocketAddr) {
    let peer = PeerAddr { host: name.clone(), address };
    let connect = || async {
        let dialled = mesh.dial(&peer, &Kind::Control).await;
        // Only the seat knows who belongs to the cluster; its certificate says that it is the seat.
        if matches!(&dialled, Err(DialError::Refused { reason: Refusal::NotMember, .. }))
            && shared.fleet().seat == peer.host
        {
            shared.expelled.notify_one();
        }
        dialled.map_err(|error| io::Error::other(crate::diag::chain(&error)))
    };
    sync::keep_telling(shared.clone(), name, connect).await;
}

async fn hear(shared: Arc<Shared>, peer: HostName, call: Incoming) {
    let ended = match call.accept().await {
        Ok(stream) => match sync::hear(&shared, &peer, stream).await {
            Err(error) => {
                if matches!(error, sync::SyncError::OtherLanguage(_) | sync::SyncError::NotUnderstood(_)) {
                    tracing::warn!(%peer, %error, "not listened to");
                }
                error.to_string()
            }
            Ok(never) => match never {},
        },
        Err(error) => error.to_string(),
    };
    tracing::debug!(%peer, ended, "no longer heard");
}
