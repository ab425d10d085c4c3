//! What only the seat does: it knows all hosts as the placer sees them, and places pods anew when hosts come, go or
//! change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::controller;
use crate::graph::{PortMode, Protocol};
use crate::ids::{HostName, ProjectName, ServiceName};
use crate::net::addr::{PortCandidate, PortTrouble, Unavailable, routes};
use crate::place::{HostFacts, Listening, PortHolder, TakenPort};
use crate::store::{Compare, Outcome, StoreError, Write};

use super::super::shared::{Following, Record, Shared, project_key};
use super::super::{admission, images};

/// Changes within this time are one: a host that boots changes its picture many times.
const COALESCE: Duration = Duration::from_millis(100);

/// Returns the hosts that count, as the placer sees them for one project.
pub fn hosts(shared: &Shared, project: &ProjectName) -> BTreeMap<HostName, HostFacts> {
    let fleet = shared.fleet();
    let mut hosts: BTreeMap<HostName, HostFacts> =
        shared.peers.machines().into_iter().map(|(name, machine)| (name, machine.facts)).collect();
    hosts.insert(shared.host().clone(), shared.engine_info.facts.clone());
    for (name, facts) in &mut hosts {
        if let Some(record) = fleet.hosts.get(name) {
            facts.labels.clone_from(&record.labels);
            facts.draining = record.draining;
        }
    }
    if !fleet.hosts.is_empty() {
        add_ports(shared, project, &mut hosts);
    }
    for record in shared.desired() {
        let Some(desired) = record.running().filter(|desired| &desired.graph.project != project) else { continue };
        for (pod, host) in &desired.assignments.pods {
            let service = desired.graph.services.get(&pod.service);
            if let (Some(service), Some(facts)) = (service, hosts.get_mut(host)) {
                facts.reserved.0 += service.container.resources.reserved_nano_cpus.unwrap_or_default();
                facts.reserved.1 += service.container.resources.reserved_memory.unwrap_or_default();
                for (kind, number) in facts.devices.needs(&service.container).unwrap_or_default() {
                    *facts.reserved_devices.entry(kind).or_default() += number;
                }
            }
        }
    }
    hosts
}

/// Says of each host which of its ports others than the project have.
fn add_ports(shared: &Shared, project: &ProjectName, hosts: &mut BTreeMap<HostName, HostFacts>) {
    let mut listening = shared.peers.machines();
    listening.insert(shared.host().clone(), shared.machine());
    for (name, machine) in listening {
        let taken = machine.listening.into_iter().map(|at| TakenPort { at, by: PortHolder::Process });
        if let Some(facts) = hosts.get_mut(&name) {
            facts.ports.extend(taken);
        }
    }
    for record in shared.desired() {
        let Some(desired) = record.running().filter(|desired| &desired.graph.project != project) else { continue };
        let by = |service: &ServiceName| PortHolder::Service(desired.graph.project.clone(), service.clone());
        for (_, facts) in hosts.iter_mut().filter(|(name, _)| desired.is_for(name)) {
            facts.ports.extend(desired.addresses.ports.iter().map(|port| {
                let at = Listening { address: port.host_ip, port: port.published, protocol: port.protocol };
                TakenPort { at, by: by(&port.service) }
            }));
            for (service, route) in routes(&desired.graph) {
                let by = PortHolder::Route(desired.graph.project.clone(), service.clone());
                let at = |port| Listening { address: route.host_ip, port, protocol: Protocol::Tcp };
                facts.ports.extend(route.listen.iter().map(|one| TakenPort { at: at(one.port), by: by.clone() }));
            }
        }
        for (pod, host) in &desired.assignments.pods {
            let (Some(service), Some(facts)) = (desired.graph.services.get(&pod.service), hosts.get_mut(host)) else {
                continue;
            };
            for port in service.ports.iter().filter(|port| port.mode == PortMode::Host) {
                // Which one of a range it has only the engine knows.
                let Some((number, last)) = port.published else { continue };
                if number == last {
                    let at = Listening { address: port.host_ip, port: number, protocol: port.protocol };
                    facts.ports.push(TakenPort { at, by: by(&pod.service) });
                }
            }
        }
    }
}

/// Looks whether all hosts of the project could listen at a port.
///
/// # Errors
/// Why some cannot.
pub fn port_available(
    candidate: &PortCandidate,
    hosts: &BTreeMap<HostName, HostFacts>,
    own: &HostName,
    among: &BTreeSet<HostName>,
) -> Result<(), Unavailable> {
    let wanted = Listening { address: candidate.host_ip, port: candidate.port, protocol: candidate.protocol };
    let concerned = hosts.iter().filter(|(name, _)| among.is_empty() || among.contains(*name));
    let trouble = |(name, facts): (&HostName, &HostFacts)| {
        let foreign = |taken: &&TakenPort| name != own || taken.by != PortHolder::Process;
        let shared = |taken: &&TakenPort| candidate.for_routes && matches!(taken.by, PortHolder::Route(..));
        let mut ports = facts.ports.iter().filter(foreign).filter(|taken| !shared(taken));
        let known = ports.any(|taken| taken.at.clashes(&wanted));
        if known {
            return Some((PortTrouble::InUse, name.clone()));
        }
        // This host is asked itself: what it says now is never old.
        let tried = if name == own { admission::port_free(candidate) } else { Ok(()) };
        tried.err().map(|trouble| (trouble, name.clone()))
    };
    let mut troubles: Vec<_> = concerned.filter_map(trouble).collect();
    troubles.sort();
    // One thing at a time, and first what somebody has there.
    let Some((cause, _)) = troubles.first().cloned() else { return Ok(()) };
    let hosts = troubles.into_iter().filter(|(other, _)| *other == cause).map(|(_, name)| name).collect();
    Err(Unavailable { cause, hosts })
}

/// Writes a project's record unless somebody else wrote one since `stored`, and tells the project's loop. `None`:
/// somebody else did. With `images`, the meaning of image references on this host that goes with the desired state.
///
/// # Errors
/// What the store says.
pub async fn write(
    shared: &Shared,
    project: &ProjectName,
    record: Record,
    stored: Option<u64>,
    images: Option<BTreeMap<String, String>>,
) -> Result<Option<Following>, StoreError> {
    let failed = |error: serde_json::Error| StoreError::Failed { message: error.to_string() };
    let key = project_key(project);
    let compare = stored.map_or_else(|| Compare::Absent(key.clone()), |at| Compare::Modified(key.clone(), at));
    let value = serde_json::to_vec(&record).map_err(failed)?;
    let mut writes = vec![Write::Put { key, value, lease: None }];
    let meaning = record.desired.as_ref().zip(images);
    if let Some((desired, ids)) = &meaning {
        writes.push(images::write(desired, ids).map_err(failed)?);
    }
    match shared.store.transact(&[compare], &writes).await? {
        Outcome::Done(_) => {
            if let Some((desired, ids)) = meaning {
                shared.images.put(desired, ids);
            }
            Ok(Some(shared.tell(project, record)))
        }
        Outcome::Conflict => Ok(None),
    }
}

/// Places pods anew whenever the hosts change, while this agent is the seat. Started by `wire` only.
///
/// Reads the pictures of all hosts and the records; writes records.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut pictures = shared.informer.subscribe();
    let mut records = shared.records_changed();
    let mut placed = BTreeMap::new();
    loop {
        pictures.mark_unchanged();
        records.mark_unchanged();
        if shared.fleet().is_seat() && shared.peers.have_all_told() {
            pass(&shared, &mut placed).await;
        }
        let loss = async {
            match shared.peers.next_loss() {
                Some(time) => tokio::time::sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pictures.changed() => tokio::time::sleep(COALESCE).await,
            _ = records.changed() => tokio::time::sleep(COALESCE).await,
            // A host that falls silent changes no picture: tables and plans must be told.
            () = loss => shared.peers.wake(),
        }
    }
}

/// What a project was placed by: the number of its record, the hosts of the cluster, and those of them that answer.
#[derive(PartialEq)]
struct Basis {
    serial: u64,
    members: BTreeSet<HostName>,
    hosts: BTreeMap<HostName, HostFacts>,
}

async fn pass(shared: &Shared, placed: &mut BTreeMap<ProjectName, Basis>) {
    for handle in shared.projects() {
        let Some(record) = handle.record.borrow().clone() else { continue };
        if record.running().is_none() {
            continue;
        }
        let members = shared.fleet().hosts.keys().cloned().collect();
        let mut basis = Basis { serial: record.serial, members, hosts: hosts(shared, &handle.name) };
        if placed.get(&handle.name) == Some(&basis) {
            continue;
        }
        match place_anew(shared, &handle.name, &basis).await {
            Ok(serial) => {
                basis.serial = serial.unwrap_or(basis.serial);
                placed.insert(handle.name.clone(), basis);
            }
            Err(error) => tracing::warn!(project = %handle.name, %error, "pods cannot be placed anew"),
        }
    }
    placed.retain(|name, _| shared.project(name).is_some());
}

/// Returns the serial number of the record that was written, if one was.
async fn place_anew(
    shared: &Shared,
    project: &ProjectName,
    Basis { serial: _, members, hosts }: &Basis,
) -> Result<Option<u64>, StoreError> {
    let _guard = shared.admission.lock().await;
    if !shared.fleet().is_seat() {
        return Ok(None);
    }
    let Some(entry) = shared.store.get(&project_key(project)).await? else { return Ok(None) };
    let unreadable = |error: serde_json::Error| StoreError::Failed { message: error.to_string() };
    let record: Record = serde_json::from_slice(&entry.value).map_err(unreadable)?;
    let Some(desired) = record.running() else { return Ok(None) };
    let mut observed = shared.observed(Some(project));
    // Without its images this host would be the worse choice.
    let images = shared.images.in_force(shared.engine.as_ref(), shared.store.as_ref(), desired).await;
    observed.hosts.entry(shared.host().clone()).or_default().images = images.unwrap_or_default();
    let Some(desired) = controller::replace(desired, members, hosts, &observed) else { return Ok(None) };
    tracing::info!(%project, hosts = hosts.len(), "pods are placed anew");
    let serial = record.serial + 1;
    let record = Record { desired: Some(desired), serial, ..record };
    let written = write(shared, project, record, Some(entry.modified), None).await?;
    Ok(written.map(|_| serial))
}
