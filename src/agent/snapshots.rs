//! Files that travel: every host has the snapshots of all projects, as it has their records, so that a pod finds its
//! files wherever it is placed, also when the machine that they came from is away.
//!
//! A command line gives them to the seat; the others fetch what records name from whoever has it. A snapshot goes when
//! neither a record names it nor a container of this host mounts it; containers say by label what they mount, so that
//! one that is replaced later, or never, keeps its files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use crate::diag::chain;
use crate::engine::label;
use crate::graph::Service;
use crate::ids::SnapshotHash;
use crate::mesh::{Incoming, Kind, Mesh, PeerAddr, Refusal};

use super::shared::{Aim, Shared};

/// Changes within this time are looked at together.
const COALESCE: Duration = Duration::from_millis(300);

/// Pause before what no host had is asked for again: doubles from this…
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// …up to this.
const LAST_RETRY: Duration = Duration::from_mins(1);

/// Pause between two looks when nothing changes: what somebody sent and never asked for goes, too.
const IDLE: Duration = Duration::from_mins(5);

/// Makes sure of what a service's containers mount. Returns where each snapshot is on the host.
///
/// # Errors
/// The reason for the reader.
pub async fn ensure(shared: &Shared, service: &Service) -> Result<BTreeMap<SnapshotHash, PathBuf>, String> {
    let mut paths = BTreeMap::new();
    for hash in service.snapshots() {
        fetch(shared, hash).await?;
        paths.insert(hash.clone(), shared.snapshots.path(hash));
    }
    Ok(paths)
}

/// Fetches a snapshot that is not here from the seat, else from any other host that has it.
async fn fetch(shared: &Shared, hash: &SnapshotHash) -> Result<(), String> {
    // One at a time: several pods mount the same files.
    let _turn = shared.fetching.lock().await;
    if shared.snapshots.has(hash) {
        return Ok(());
    }
    let (fleet, states) = (shared.fleet(), shared.peers.states());
    let mut hosts: Vec<_> = fleet.others().collect();
    hosts.sort_by_key(|(name, _)| **name != fleet.seat);
    let mut problems = Vec::new();
    for (name, record) in hosts {
        let Some(mesh) = shared.mesh.get().filter(|_| states.get(name).is_some_and(|state| state.alive)) else {
            continue;
        };
        let peer = PeerAddr { host: name.clone(), address: record.address };
        match fetch_from(shared, mesh, &peer, hash).await {
            Ok(()) => {
                tracing::info!(%hash, from = %name, "fetched files that pods mount");
                return Ok(());
            }
            Err(problem) => problems.push(format!("`{name}`: {problem}")),
        }
    }
    let problems = if problems.is_empty() { String::new() } else { format!(" ({})", problems.join("; ")) };
    Err(format!("files that it mounts could not be had from any other host{problems}; `orch up` sends them again"))
}

async fn fetch_from(shared: &Shared, mesh: &Mesh, peer: &PeerAddr, hash: &SnapshotHash) -> Result<(), String> {
    let stream = mesh.dial(peer, &Kind::Snapshot(hash.clone())).await.map_err(|error| chain(&error))?;
    let archive = Box::pin(ReaderStream::with_capacity(stream, 64 << 10));
    shared.snapshots.receive(hash, archive).await.map_err(|error| chain(&error))
}

/// Gives a snapshot to a host of the cluster that asks for it.
pub async fn serve(shared: Arc<Shared>, call: Incoming) {
    let Kind::Snapshot(hash) = call.kind.clone() else { return };
    let peer = call.peer.clone();
    let given = async {
        let mut archive = match shared.snapshots.send(&hash).await {
            Ok(archive) => archive,
            Err(error) => return call.refuse(&Refusal::NoSnapshot { reason: chain(&error) }).await,
        };
        let mut stream = call.accept().await?;
        while let Some(piece) = archive.next().await {
            stream.write_all(&piece?).await?;
        }
        stream.shutdown().await
    };
    if let Err(error) = given.await {
        tracing::debug!(%peer, %hash, %error, "files could not be given to a host");
    }
}

/// Fetches what records name and removes what nobody needs, until stopped. Started by `wire` only.
///
/// Reads the records and the picture of the engine; writes snapshots.
pub async fn keep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut records = shared.records_changed();
    let mut pictures = shared.informer.subscribe();
    let mut pause = FIRST_RETRY;
    loop {
        records.mark_unchanged();
        pictures.mark_unchanged();
        let mut next = Instant::now() + IDLE;
        if fetch_all(&shared).await {
            pause = FIRST_RETRY;
        } else {
            next = Instant::now() + pause;
            pause = (pause * 2).min(LAST_RETRY);
        }
        if let Some(time) = sweep(&shared).await {
            next = next.min(time);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = records.changed() => tokio::time::sleep(COALESCE).await,
            _ = pictures.changed() => tokio::time::sleep(COALESCE).await,
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// Returns whether all that records name is here.
async fn fetch_all(shared: &Shared) -> bool {
    let mut all = true;
    for hash in wanted(shared) {
        if let Err(problem) = fetch(shared, &hash).await {
            tracing::debug!(%hash, problem, "files of a project are not here");
            all = false;
        }
    }
    all
}

/// Removes what nobody needs. Returns when to look again.
async fn sweep(shared: &Shared) -> Option<Instant> {
    let mut needed = wanted(shared);
    needed.extend(mounted(shared));
    let snapshots = shared.snapshots.clone();
    let swept = tokio::task::spawn_blocking(move || snapshots.sweep(&needed)).await;
    match swept {
        Ok(Ok(next)) => next,
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "files that nobody needs are still here");
            Some(Instant::now() + LAST_RETRY)
        }
        Err(error) => {
            tracing::error!(%error, "looking for files that nobody needs failed");
            Some(Instant::now() + LAST_RETRY)
        }
    }
}

/// What the records name of projects that are not to go.
fn wanted(shared: &Shared) -> BTreeSet<SnapshotHash> {
    let records = shared.desired();
    let stay = records.iter().filter(|record| !matches!(record.aim, Aim::Down(_)));
    let graphs = stay.filter_map(|record| record.desired.as_ref()).map(|desired| &desired.graph);
    graphs.flat_map(|graph| graph.snapshots().into_iter().cloned()).collect()
}

/// What containers of this host mount.
fn mounted(shared: &Shared) -> BTreeSet<SnapshotHash> {
    let everything = shared.informer.everything();
    let containers = everything.hosts.values().flat_map(|host| host.containers.values());
    let labels = containers.filter_map(|container| container.labels.get(label::SNAPSHOTS));
    labels.flat_map(|text| text.split(',')).filter_map(|hash| SnapshotHash::new(hash).ok()).collect()
}
