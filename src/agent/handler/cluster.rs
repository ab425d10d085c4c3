//! The requests about the cluster: founding it, admitting, changing and removing hosts, showing them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::types::{
    Admission, AdmitRequest, ApiError, AuthorityKey, ClusterStatus, ErrorKind, FoundRequest, HostChange, HostState,
    HostStatus, KeyAnswer, KeyRequest, RemoveHost, SeatAnswer, SeatRequest,
};
use crate::ids::HostName;
use crate::mesh::{Authority, AuthorityPem, identity};

use super::super::fleet::members::{self, Fleet, HostRecord};
use super::super::fleet::succession::{self, Seat};
use super::super::fleet::{renew, withdraw};
use super::super::shared::Shared;
use super::{chain, error, internal, unstored};

/// Longest that a host may take to stop what runs on it when it leaves.
const LEAVE: Duration = Duration::from_secs(100);

/// Clocks that differ by more are told: lines of logs are in the wrong order long before certificates are refused.
const NOTABLE_SKEW: Duration = Duration::from_mins(1);

/// Longest that the next seat may take to hear of all that shall run.
const HEARS: Duration = Duration::from_secs(5);

/// Refuses where this agent does not decide.
pub(super) fn only_seat(shared: &Shared) -> Result<(), ApiError> {
    let fleet = shared.fleet();
    if fleet.is_seat() {
        return Ok(());
    }
    let message = format!("host `{}` decides, not `{}`: ask there", fleet.seat, fleet.own);
    Err(error(ErrorKind::Conflict, message))
}

/// Shows the cluster as this agent sees it.
pub(super) fn status(shared: &Shared) -> ClusterStatus {
    let fleet = shared.fleet();
    let (states, machines) = (shared.peers.states(), shared.peers.all_machines());
    let records = shared.desired();
    let pods = |name: &HostName| -> usize {
        let desired = records.iter().filter_map(|record| record.running());
        desired.flat_map(|desired| desired.assignments.pods.values()).filter(|host| *host == name).count()
    };
    let own = shared.machine();
    let hosts = fleet.hosts.iter().map(|(name, record)| {
        let peer = states.get(name);
        let machine = if *name == fleet.own { Some(&own) } else { machines.get(name) };
        let state = match peer {
            _ if *name == fleet.own => HostState::Ready,
            Some(peer) if peer.alive => HostState::Ready,
            Some(_) if machine.is_none() => HostState::Unknown,
            _ => HostState::Down,
        };
        let mut problems = machine.map(|machine| machine.problems.clone()).unwrap_or_default();
        if let Some(peer) = peer
            && peer.skew.unsigned_abs() > NOTABLE_SKEW
        {
            let direction = if peer.skew.is_negative() { "behind" } else { "ahead of" };
            let by = peer.skew.unsigned_abs().as_secs();
            problems.push(format!(
                "its clock is {} h {} min {direction} that of `{}`: set it right; more than a day, and hosts refuse each \
                 other's certificates",
                by / 3600,
                by / 60 % 60,
                fleet.own
            ));
        }
        if let Some(peer) = peer.filter(|_| state != HostState::Ready) {
            let silent = format!("silent for {} s", peer.silent.as_secs());
            problems.insert(0, peer.problem.clone().map_or(silent.clone(), |problem| format!("{silent}: {problem}")));
        }
        HostStatus {
            name: name.clone(),
            ssh: record.ssh.clone(),
            address: Some(record.address),
            labels: record.labels.clone(),
            draining: record.draining,
            state,
            problems,
            engine: machine.map(|machine| machine.engine.clone()).unwrap_or_default(),
            facts: machine.map(|machine| machine.facts.clone()).unwrap_or_default(),
            load: machine.map_or(0, |machine| machine.load),
            skew_ms: peer.map_or(0, |peer| i64::try_from(peer.skew.as_millis()).unwrap_or(i64::MAX)),
            pods: pods(name),
        }
    });
    let mut hosts: Vec<HostStatus> = hosts.collect();
    if hosts.is_empty() {
        hosts.push(alone(shared, own, pods(&fleet.own)));
    }
    ClusterStatus {
        cluster: fleet.cluster.clone(),
        host: fleet.own.clone(),
        seat: fleet.seat.clone(),
        epoch: fleet.epoch,
        hosts,
    }
}

fn alone(shared: &Shared, machine: super::super::fleet::picture::Machine, pods: usize) -> HostStatus {
    HostStatus {
        name: shared.host().clone(),
        ssh: String::new(),
        address: None,
        labels: BTreeMap::new(),
        draining: false,
        state: HostState::Ready,
        problems: machine.problems,
        engine: shared.engine_info.version.clone(),
        facts: shared.engine_info.facts.clone(),
        load: machine.load,
        skew_ms: 0,
        pods,
    }
}

/// What this host is, as written down: what it has become a moment ago counts from its next start on.
async fn written(shared: &Shared) -> Result<Fleet, ApiError> {
    members::load(shared.store.as_ref(), shared.host()).await.map_err(internal)
}

/// Makes this host the first one of a new cluster; nothing when it is that already.
pub(super) async fn found(shared: &Shared, request: FoundRequest) -> Result<(), ApiError> {
    let _guard = shared.admission.lock().await;
    let fleet = written(shared).await?;
    if let Some(cluster) = &fleet.cluster {
        if fleet.own == request.name && fleet.is_seat() {
            if shared.fleet().cluster.is_none() {
                shared.restart.cancel();
            }
            return Ok(());
        }
        return Err(member_already(&fleet, cluster));
    }
    let FoundRequest { name, ssh, address, labels } = request;
    let now = shared.clock.now();
    let authority = Authority::create(now).map_err(internal)?;
    let key = shared.identity.key().map_err(internal)?;
    let signing = key.request().map_err(internal)?;
    let signed = authority.sign(&signing, &name, now, identity::VALIDITY).map_err(user)?;
    shared.identity.keep_authority(&authority).map_err(internal)?;
    shared.identity.keep(authority.certificate(), &signed.certificate).map_err(internal)?;
    let record = HostRecord { ssh, address, labels, index: 0, draining: false };
    let founded = Fleet {
        own: name.clone(),
        seat: name.clone(),
        epoch: 0,
        cluster: Some(authority.cluster().to_string()),
        hosts: BTreeMap::from([(name, record)]),
    };
    members::save(shared.store.as_ref(), &fleet.own, &founded).await.map_err(unstored)?;
    shared.restart.cancel();
    Ok(())
}

/// Says what the seat needs to admit this host.
pub(super) async fn key(shared: &Shared, _request: &KeyRequest) -> Result<KeyAnswer, ApiError> {
    // Two who ask at once must not make two keys.
    let _guard = shared.admission.lock().await;
    let request = shared.identity.key().map_err(internal)?.request().map_err(internal)?;
    Ok(KeyAnswer { request, cluster: written(shared).await?.cluster })
}

/// Admits a host, or gives one that was admitted before what it needs once more.
pub(super) async fn admit(shared: &Shared, request: AdmitRequest) -> Result<Admission, ApiError> {
    let _guard = shared.admission.lock().await;
    only_seat(shared)?;
    let fleet = shared.fleet();
    let Some(cluster) = fleet.cluster.clone() else {
        return Err(error(ErrorKind::Conflict, "this host is alone: it founds a cluster first"));
    };
    let AdmitRequest { name, ssh, address, labels, request } = request;
    if name == fleet.own {
        return Err(error(ErrorKind::User, format!("`{name}` is the seat itself")));
    }
    let taken = fleet.hosts.iter().find(|(other, record)| **other != name && record.address == address);
    if let Some((other, _)) = taken {
        return Err(error(ErrorKind::User, format!("{address} is host `{other}` already: is it the same machine?")));
    }
    // Certificates do not tell capitals from small letters.
    let alike = |other: &&HostName| **other != name && other.as_str().eq_ignore_ascii_case(name.as_str());
    if let Some(other) = fleet.hosts.keys().find(alike) {
        let message = format!("there is a host `{other}` already: capitals alone do not tell two hosts apart");
        return Err(error(ErrorKind::User, message));
    }
    let earlier = fleet.hosts.get(&name);
    if let Some(earlier) = earlier.filter(|earlier| earlier.address != address) {
        let message = format!(
            "there is a host `{name}` at {} already: choose another name, or take it out first (`orch host rm {name}`)",
            earlier.address
        );
        return Err(error(ErrorKind::Conflict, message));
    }
    let index = earlier.map_or_else(|| fleet.free_index(), |earlier| earlier.index);
    let draining = earlier.is_some_and(|earlier| earlier.draining);
    let Some(authority) = shared.identity.authority().map_err(internal)? else {
        let message = format!(
            "the key of the cluster's authority is not on `{0}`: it stayed on the host that decided before; once that one \
             can be reached, `orch host seat {0}` brings it",
            fleet.own
        );
        return Err(error(ErrorKind::Conflict, message));
    };
    let authority = authority.certificate().to_owned();
    let certificate = renew::sign(shared, &name, &request)
        .ok_or_else(|| error(ErrorKind::User, format!("no certificate can be made for `{name}`")))?;
    let mut next = Fleet::clone(&fleet);
    next.hosts.insert(name.clone(), HostRecord { ssh, address, labels, index, draining });
    members::save(shared.store.as_ref(), &fleet.own, &next).await.map_err(unstored)?;
    shared.set_fleet(next.clone());
    Ok(Admission {
        cluster,
        name,
        seat: fleet.seat.clone(),
        epoch: fleet.epoch,
        authority,
        certificate,
        hosts: next.hosts,
    })
}

/// Makes this host one of a cluster; where it is that already, only its certificate is new.
pub(super) async fn join(shared: &Shared, admission: Admission) -> Result<(), ApiError> {
    let _guard = shared.admission.lock().await;
    let fleet = written(shared).await?;
    let Admission { cluster, name, seat, epoch, authority, certificate, hosts } = admission;
    match &fleet.cluster {
        Some(own) if *own == cluster && fleet.own == name => {
            let Some(mesh) = shared.mesh.get() else {
                // Written down before, by somebody who may have gone before the agent was told to start anew.
                shared.restart.cancel();
                return Ok(());
            };
            return renew::take(shared, mesh, &certificate).map_err(internal);
        }
        Some(own) => return Err(member_already(&fleet, own)),
        None if !shared.projects().is_empty() => {
            let projects = shared.projects();
            let names: Vec<_> = projects.iter().map(|handle| format!("`{}`", handle.name)).collect();
            let message = format!(
                "{} run here on their own: take them down first (`orch down` on that host), or found the cluster with \
                 this host",
                names.join(", ")
            );
            return Err(error(ErrorKind::Conflict, message));
        }
        None => {}
    }
    shared.identity.keep(&authority, &certificate).map_err(internal)?;
    // Now, not at the next start: what was given must fit the key.
    shared.identity.identity().map_err(internal)?;
    let joined = Fleet { own: name, seat, epoch, cluster: Some(cluster), hosts };
    members::save(shared.store.as_ref(), &fleet.own, &joined).await.map_err(unstored)?;
    shared.restart.cancel();
    Ok(())
}

/// Takes down what runs here for the cluster, but for volumes, and makes this host alone again.
pub(super) async fn leave(shared: &Shared) -> Result<(), ApiError> {
    let fleet = shared.fleet();
    if fleet.cluster.is_none() {
        return Ok(());
    }
    if fleet.is_seat() && fleet.others().next().is_some() {
        let message = format!("`{}` is the seat of other hosts: take those out first (`orch host rm`)", fleet.own);
        return Err(error(ErrorKind::Conflict, message));
    }
    if fleet.is_seat() && !shared.projects().is_empty() {
        return Err(error(ErrorKind::Conflict, "projects are still up: take them down first (`orch -p NAME down`)"));
    }
    let withdrawn = tokio::time::timeout(LEAVE, withdraw(shared)).await;
    let late =
        |_| error(ErrorKind::Host, format!("what runs here could not be taken down within {} s", LEAVE.as_secs()));
    withdrawn.map_err(late)?.map_err(internal)
}

/// Makes another host the seat, or this one; or takes note of one that is it already. Who gives the seat up hands over the
/// key of the authority, where it has that, as often as it is asked: whoever asks may have been killed in between.
pub(super) async fn seat(shared: &Shared, request: SeatRequest) -> Result<SeatAnswer, ApiError> {
    let SeatRequest { host, epoch, authority, taken, forget_authority } = request;
    let _guard = shared.admission.lock().await;
    let fleet = shared.fleet();
    if fleet.cluster.is_none() || !fleet.hosts.contains_key(&host) {
        return Err(no_such_host(&fleet, &host));
    }
    let (now, next) = (Seat::of(&fleet), Seat { epoch, host: host.clone() });
    if next.epoch < now.epoch || next.epoch == now.epoch && next != now {
        let message = format!("host `{}` decides since a later move ({}) than this one ({epoch})", now.host, now.epoch);
        return Err(error(ErrorKind::Conflict, message));
    }
    if fleet.is_seat() && next != now && !taken {
        let (revision, _) = shared.records();
        if !shared.peers.wait_for_records(&host, revision, HEARS).await {
            let message = format!(
                "`{host}` has not heard of all that shall run: it is away or behind (`orch host ls`); try again when it is \
                 ready"
            );
            return Err(error(ErrorKind::Conflict, message));
        }
    }
    if let Some(authority) = authority {
        let AuthorityKey { certificate, key } = authority;
        let authority = Authority::from_pem(&AuthorityPem { certificate, key }).map_err(user)?;
        if fleet.cluster.as_deref() != Some(authority.cluster().as_str()) {
            return Err(error(ErrorKind::User, "that is the authority of another cluster"));
        }
        shared.identity.keep_authority(&authority).map_err(internal)?;
    }
    if next != now {
        succession::take(shared, &fleet, next).await.map_err(internal)?;
    }
    if forget_authority && host != fleet.own {
        shared.identity.forget_authority().map_err(internal)?;
    }
    let authority = shared.identity.authority().map_err(internal)?.map(|authority| {
        let AuthorityPem { certificate, key } = authority.to_pem();
        AuthorityKey { certificate, key }
    });
    let has_authority = authority.is_some();
    Ok(SeatAnswer { authority: authority.filter(|_| host != fleet.own), has_authority })
}

/// Changes a host's labels, or whether it takes pods.
pub(super) async fn change(shared: &Shared, host: &HostName, change: HostChange) -> Result<(), ApiError> {
    let _guard = shared.admission.lock().await;
    only_seat(shared)?;
    let fleet = shared.fleet();
    let mut next = Fleet::clone(&fleet);
    let record = next.hosts.get_mut(host).ok_or_else(|| no_such_host(&fleet, host))?;
    record.labels.retain(|key, _| !change.remove_labels.contains(key));
    record.labels.extend(change.set_labels);
    record.draining = change.draining.unwrap_or(record.draining);
    members::save(shared.store.as_ref(), &fleet.own, &next).await.map_err(unstored)?;
    shared.set_fleet(next);
    Ok(())
}

/// Takes a host out of the cluster; nothing when it is not in it.
pub(super) async fn remove(shared: &Shared, host: &HostName, request: &RemoveHost) -> Result<(), ApiError> {
    let _guard = shared.admission.lock().await;
    only_seat(shared)?;
    let fleet = shared.fleet();
    if !fleet.hosts.contains_key(host) {
        return Err(no_such_host(&fleet, host));
    }
    if *host == fleet.own {
        let message = format!("`{host}` is the seat: what shall run is written down there");
        return Err(error(ErrorKind::Conflict, message));
    }
    let placed = shared
        .desired()
        .iter()
        .filter_map(|record| record.running())
        .any(|desired| desired.assignments.pods.values().any(|placed| placed == host));
    if placed && !request.force {
        let message = format!(
            "pods are placed on `{host}`: move them first (`orch host drain {host}`), or take it out all the same \
             with --force"
        );
        return Err(error(ErrorKind::Conflict, message));
    }
    if !request.force && shared.identity.authority().map_err(internal)?.is_none() {
        let message = format!(
            "the key of the cluster's authority is not on `{0}`, and may be on `{host}`: bring it first \
             (`orch host seat {0}`), or take the host out all the same with --force",
            fleet.own
        );
        return Err(error(ErrorKind::Conflict, message));
    }
    let mut next = Fleet::clone(&fleet);
    next.hosts.remove(host);
    members::save(shared.store.as_ref(), &fleet.own, &next).await.map_err(unstored)?;
    shared.set_fleet(next);
    Ok(())
}

fn member_already(fleet: &Fleet, cluster: &str) -> ApiError {
    let message = format!(
        "this host is `{}` of cluster {cluster} already: take it out there first (`orch host rm {}`)",
        fleet.own, fleet.own
    );
    error(ErrorKind::Conflict, message)
}

fn no_such_host(fleet: &Fleet, host: &HostName) -> ApiError {
    let names: Vec<_> = fleet.hosts.keys().map(|name| format!("`{name}`")).collect();
    let known = if names.is_empty() { "there is no cluster here".to_owned() } else { names.join(", ") };
    error(ErrorKind::NotFound, format!("no host `{host}`; there are: {known}"))
}

fn user(cause: impl std::error::Error) -> ApiError {
    error(ErrorKind::User, chain(&cause))
}
