//! Runs one step of a plan against the engine and brings the result into the agent's picture. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::types::{ObjectState, Progress};
use crate::diag::chain;
use crate::engine::{Engine, EngineError};
use crate::graph::{Mount, MountSource, NetworkMode, Role, Service};
use crate::host::files::Resolv;
use crate::ids::{HostName, PodId, ProjectName, ServiceName, SnapshotHash};
use crate::plan::{Desired, ObservedContainer, ObservedHost, Reason, Step};
use crate::store::Write;

use super::rollouts::Seen;
use super::shared::{ProjectHandle, Record, Shared, project_key};
use super::spec::{self, HostParts};
use super::{hooks, images, snapshots};

/// How long the engine may take to let go of a network that nobody uses any more.
const ENDPOINTS_GO: Duration = Duration::from_secs(15);
/// After how long it counts as having forgotten to.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);
/// Pause between two looks at such a network: doubles from this…
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// …up to this.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or there was nothing to do.
    Done,
    /// Not done; the reason for the reader.
    Failed(String),
}

/// Returns the engine object that a step changes: two steps of one object never run at the same time.
pub fn object(step: &Step, desired: Option<&Desired>) -> String {
    let network = |key| desired.and_then(|d| d.graph.networks.get(key)).map(|network| network.name.clone());
    let volume = |key| desired.and_then(|d| d.graph.volumes.get(key)).map(|volume| volume.name.clone());
    match step {
        Step::CreateNetwork { network: key } => format!("Network {}", network(key).unwrap_or_else(|| key.to_string())),
        Step::RemoveNetwork { name } => format!("Network {name}"),
        Step::CreateVolume { volume: key } => format!("Volume {}", volume(key).unwrap_or_else(|| key.to_string())),
        Step::RemoveVolume { name } => format!("Volume {name}"),
        Step::CreateContainer { name, .. }
        | Step::StartContainer { name, .. }
        | Step::StopContainer { name, .. }
        | Step::RemoveContainer { name, .. }
        | Step::Kill { name, .. }
        | Step::Pause { name, .. }
        | Step::Unpause { name, .. } => format!("Container {name}"),
        Step::Drain { id, .. } => format!("Drain {id}"),
    }
}

/// The words for a step: under way, and done, if that is worth a word.
fn words(step: &Step, reason: &Reason) -> Option<(&'static str, Option<&'static str>)> {
    let (working, done) = match step {
        Step::StopContainer { .. } if *reason == Reason::Restarted => return Some(("Restarting", None)),
        Step::StartContainer { .. } if *reason == Reason::Restarted => ("Restarting", "Started"),
        Step::CreateNetwork { .. } | Step::CreateVolume { .. } | Step::CreateContainer { replaces: None, .. } => {
            ("Creating", "Created")
        }
        Step::CreateContainer { replaces: Some(_), .. } => ("Recreate", "Recreated"),
        Step::StartContainer { .. } => ("Starting", "Started"),
        Step::StopContainer { .. } => ("Stopping", "Stopped"),
        Step::Kill { .. } => ("Killing", "Killed"),
        Step::Pause { .. } => ("Pausing", "Paused"),
        Step::Unpause { .. } => ("Unpausing", "Unpaused"),
        Step::RemoveContainer { .. } | Step::RemoveNetwork { .. } | Step::RemoveVolume { .. } => {
            ("Removing", "Removed")
        }
        Step::Drain { .. } => return None,
    };
    Some((working, Some(done)))
}

/// Runs a step, tells progress, and leaves the picture of the engine as the step made it.
///
/// `graces` holds the time that a container has from its stop signal to the kill, also when that is shortened on the way.
pub async fn run(
    shared: &Shared,
    handle: &ProjectHandle,
    record: &Record,
    (step, reason): (&Step, &Reason),
    graces: watch::Receiver<Duration>,
) -> Outcome {
    let object = object(step, record.desired.as_ref());
    let tell = |status: &str, state, detail| {
        let (kind, name) = object.split_once(' ').unwrap_or(("Container", &object));
        let event = Progress::Object {
            kind: kind.into(),
            name: name.into(),
            host: shared.host().clone(),
            status: status.into(),
            state,
            detail,
        };
        shared.announce(handle, event);
    };
    let words = words(step, reason);
    if let Some((working, _)) = words {
        tell(working, ObjectState::Working, None);
    }
    let mut result = act(shared, handle, record, step, graces).await;
    if result.is_ok() {
        if let Some((_, Some(done))) = words {
            tell(done, ObjectState::Done, None);
        }
        result = let_in(shared, step).await;
    }
    match result {
        Ok(()) => Outcome::Done,
        Err(message) => {
            tell("Error", ObjectState::Error, Some(message.clone()));
            Outcome::Failed(message)
        }
    }
}

/// Puts what containers need before they are made into the picture. Only after it was told: they are made from then on.
async fn let_in(shared: &Shared, step: &Step) -> Result<(), String> {
    if matches!(step, Step::CreateNetwork { .. } | Step::CreateVolume { .. }) {
        shared.informer.refresh_resources().await.map_err(text)?;
    }
    if matches!(step, Step::CreateNetwork { .. }) {
        // Rules and addresses first: what starts on the network needs its names at once.
        shared.dataplane.ensure_host(shared).await.map_err(text)?;
    }
    Ok(())
}

async fn act(
    shared: &Shared,
    handle: &ProjectHandle,
    record: &Record,
    step: &Step,
    graces: watch::Receiver<Duration>,
) -> Result<(), String> {
    let engine = &shared.engine;
    let informer = &shared.informer;
    match step {
        Step::CreateNetwork { network } => {
            let desired = desired(record)?;
            let spec = spec::network(desired, network, shared.fleet().index())
                .ok_or_else(|| format!("network `{network}` is not orch's"))?;
            engine.ensure_network(&spec).await.map(drop).map_err(text)
        }
        Step::RemoveNetwork { name } => {
            remove_network(engine.as_ref(), name).await?;
            informer.refresh_resources().await.map_err(text)
        }
        Step::CreateVolume { volume } => {
            let desired = desired(record)?;
            let spec = spec::volume(desired, volume).ok_or_else(|| format!("volume `{volume}` is not orch's"))?;
            engine.ensure_volume(&spec).await.map_err(text)
        }
        Step::RemoveVolume { name } => {
            engine.remove_volume(name).await.map_err(text)?;
            informer.refresh_resources().await.map_err(text)
        }
        Step::CreateContainer { pod, name, replaces } => {
            create(shared, desired(record)?, pod, name, replaces.as_deref()).await
        }
        Step::StartContainer { pod, name } => {
            // The desired state may have lost the pod's files to a reboot (secrets live in memory).
            files_of(shared, desired(record)?, pod).await?;
            if let Some(service) = desired(record)?.graph.services.get(&pod.service) {
                snapshots::ensure(shared, service).await?;
            }
            ambassadors_of(shared, desired(record)?, pod).await?;
            let started = engine.start_container(name).await.map_err(text)?;
            informer.put(started.clone());
            hooks::post_start(shared, handle, desired(record)?, pod, &started).await
        }
        Step::Drain { id, deadline, .. } => {
            shared.dataplane.drain(shared, &handle.name, id, *deadline).await;
            Ok(())
        }
        Step::StopContainer { id, .. } => {
            shared.dataplane.stop_sending(shared, &handle.name, id).await;
            informer.expect_end(id);
            hooks::pre_stop(shared, &handle.name, id, graces.clone()).await;
            stop(engine.as_ref(), id, graces).await.map_err(text)?;
            informer.refresh(id).await.map_err(text)
        }
        Step::RemoveContainer { id, volumes, .. } => {
            remember_anonymous_volumes(shared, record, id, *volumes).await?;
            let observed = shared.observed(Some(&handle.name));
            let container = observed.hosts.values().find_map(|host| host.containers.get(id)).cloned();
            engine.remove_container(id, *volumes).await.map_err(text)?;
            informer.remove(id);
            shared.hooks.forget(shared.store.as_ref(), id).await;
            match container {
                Some(container) => remove_pod_volumes(shared, &container).await,
                None => Ok(()),
            }
        }
        Step::Kill { pod, id, signal, number, .. } => {
            // Written down before: a signal that was sent is never sent again, whatever becomes of this agent.
            let value = serde_json::to_vec(number).map_err(text)?;
            let write = Write::Put { key: signalled_key(&handle.name, Some(pod)), value, lease: None };
            shared.store.transact(&[], &[write]).await.map_err(text)?;
            engine.kill_container(id, signal).await.map_err(text)?;
            informer.refresh(id).await.map_err(text)
        }
        Step::Pause { id, .. } => {
            shared.dataplane.stop_sending(shared, &handle.name, id).await;
            engine.pause_container(id).await.map_err(text)?;
            informer.refresh(id).await.map_err(text)
        }
        Step::Unpause { id, .. } => {
            engine.unpause_container(id).await.map_err(text)?;
            informer.refresh(id).await.map_err(text)
        }
    }
}

/// Makes the ambassadors of a pod listen, whose target is not waited for: what starts in it finds them.
async fn ambassadors_of(shared: &Shared, desired: &Desired, pod: &PodId) -> Result<(), String> {
    let graph = &desired.graph;
    let helps = graph.services.get(&pod.service).and_then(|service| service.part.as_ref());
    let Some(part) = helps.filter(|part| part.role != Role::Holder) else { return Ok(()) };
    let has = graph.services.get(&part.of).is_some_and(|front| !front.ambassadors.is_empty());
    if !has {
        return Ok(());
    }
    // The table knows where they lead before the first connection comes.
    shared.dataplane.refresh_tables(shared);
    shared.ambassadors.ensure(shared, desired, &PodId::new(part.of.clone(), pod.number)).await
}

/// Stops a container; a grace that is shortened meanwhile is asked for anew, which the engine takes beside the first.
async fn stop(engine: &dyn Engine, id: &str, mut graces: watch::Receiver<Duration>) -> Result<(), EngineError> {
    loop {
        let grace = *graces.borrow_and_update();
        tokio::select! {
            stopped = engine.stop_container(id, grace) => return stopped,
            Ok(()) = graces.changed() => {}
        }
    }
}

/// Removes a network. Under load the engine takes containers off their networks a while after it says that they are
/// removed, or never: as long as nobody it knows is on the network, it is tried again.
async fn remove_network(engine: &dyn Engine, name: &str) -> Result<(), String> {
    let begun = Instant::now();
    let mut pause = FIRST_LOOK;
    loop {
        let error = match engine.remove_network(name).await {
            Err(error @ EngineError::Conflict { .. }) => error,
            result => return result.map_err(text),
        };
        let users = engine.network_users(name).await.map_err(text)?;
        if !users.is_empty() {
            let users: Vec<String> = users.iter().map(|user| format!("`{user}`")).collect();
            let noun = if users.len() == 1 { "container" } else { "containers" };
            return Err(format!("network {name} is still used by {noun} {}", users.join(", ")));
        }
        if begun.elapsed() >= ENDPOINTS_GO {
            return Err(text(error));
        }
        if begun.elapsed() >= FORGOTTEN_AFTER {
            engine.clear_network(name).await.map_err(text)?;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}

fn desired(record: &Record) -> Result<&Desired, String> {
    record.desired.as_ref().ok_or_else(|| "the project has no desired state".to_owned())
}

/// An engine error with its causes on one line.
pub(super) fn text(error: impl std::error::Error) -> String {
    chain(&error)
}

async fn create(
    shared: &Shared,
    desired: &Desired,
    pod: &PodId,
    name: &str,
    replaces: Option<&str>,
) -> Result<(), String> {
    let service = desired.graph.services.get(&pod.service).ok_or_else(|| format!("no service `{}`", pod.service))?;
    let reference = &service.container.image;
    let (engine, store) = (shared.engine.as_ref(), shared.store.as_ref());
    let Some(image) = shared.images.of(engine, store, desired, reference).await.map_err(text)? else {
        let host = shared.host();
        return Err(format!("image `{reference}` is not on host `{host}` any more; `orch up` pulls it again"));
    };
    if service.part.as_ref().is_some_and(|part| part.role == Role::Holder) {
        make_pod_volumes(shared, desired, pod, service).await?;
    }
    let parts = parts(shared, desired, pod, service, replaces).await?;
    let spec = spec::container(desired, pod, name, &parts.borrowed(&image));
    let spec = spec.ok_or_else(|| format!("pod `{pod}` is not desired"))?;
    let id = shared.engine.create_container(&spec).await.map_err(text)?;
    shared.informer.refresh(&id).await.map_err(text)
}

/// What a container needs of this host, but for its image.
pub(super) struct Parts {
    resolv_conf: Option<PathBuf>,
    files: BTreeMap<String, PathBuf>,
    engine_socket: String,
    snapshots: BTreeMap<SnapshotHash, PathBuf>,
    pub(super) carried_volumes: BTreeMap<String, String>,
    pub(super) owners: BTreeMap<ServiceName, String>,
}

impl Parts {
    /// Returns the same as `spec` takes it.
    pub(super) fn borrowed<'a>(&'a self, image: &'a str) -> HostParts<'a> {
        HostParts {
            image,
            resolv_conf: self.resolv_conf.as_deref(),
            files: self.files.clone(),
            engine_socket: &self.engine_socket,
            snapshots: self.snapshots.clone(),
            carried_volumes: self.carried_volumes.clone(),
            owners: self.owners.clone(),
        }
    }
}

/// Puts what a pod's container needs on the host.
pub(super) async fn parts(
    shared: &Shared,
    desired: &Desired,
    pod: &PodId,
    service: &Service,
    replaces: Option<&str>,
) -> Result<Parts, String> {
    let observed = shared.observed(Some(&desired.graph.project));
    Ok(Parts {
        resolv_conf: resolv_conf_of(shared, desired, service).await?,
        files: files_of(shared, desired, pod).await?,
        engine_socket: super::process::engine_socket(),
        snapshots: snapshots::ensure(shared, service).await?,
        carried_volumes: carried_volumes(shared, desired, pod, replaces).await?,
        owners: owners(&observed.hosts, desired, pod, service),
    })
}

/// Finds the containers whose namespaces or mounts the pod shares: the replicas with the same number.
fn owners(
    hosts: &BTreeMap<HostName, ObservedHost>,
    desired: &Desired,
    pod: &PodId,
    service: &Service,
) -> BTreeMap<ServiceName, String> {
    let find = |owner: &ServiceName| {
        let wanted = PodId::new(owner.clone(), pod.number);
        let name = desired.graph.container_name(&wanted);
        let containers = hosts.values().flat_map(|host| host.containers.values());
        let found: Option<&ObservedContainer> =
            containers.filter(|container| container.pod().as_ref() == Some(&wanted)).max_by_key(|one| one.name == name);
        found.map(|container| (owner.clone(), container.id.clone()))
    };
    service.companions().filter_map(find).collect()
}

/// Makes the volumes that a pod has for itself, empty: what an earlier pod of its name left goes.
async fn make_pod_volumes(shared: &Shared, desired: &Desired, pod: &PodId, service: &Service) -> Result<(), String> {
    let mut any = false;
    for (_, volume) in spec::pod_volumes(desired, pod, service) {
        any = true;
        shared.engine.remove_volume(&volume.name).await.map_err(text)?;
        shared.engine.ensure_volume(&volume).await.map_err(text)?;
    }
    if any { shared.informer.refresh_resources().await.map_err(text) } else { Ok(()) }
}

/// Removes the volumes of a pod whose holder is gone. One that cannot be removed yet is found again by the next plan.
pub(super) async fn remove_pod_volumes(shared: &Shared, holder: &ObservedContainer) -> Result<(), String> {
    if holder.volumes.is_empty() || holder.part().is_none_or(|part| part.role != Role::Holder) {
        return Ok(());
    }
    for name in holder.volumes.values() {
        if let Err(error) = shared.engine.remove_volume(name).await {
            tracing::warn!(volume = name, error = text(error), "a pod's volume is still there");
        }
    }
    shared.informer.refresh_resources().await.map_err(text)
}

async fn resolv_conf_of(shared: &Shared, desired: &Desired, service: &Service) -> Result<Option<PathBuf>, String> {
    let NetworkMode::Networks(attachments) = &service.network else { return Ok(None) };
    let gateway = attachments
        .iter()
        .find_map(|attachment| desired.addresses.networks.get(&attachment.network))
        .map(|addresses| addresses.gateway);
    let Some(gateway) = gateway else { return Ok(None) };
    let resolv =
        Resolv { gateway, search: service.container.dns_search.clone(), options: service.container.dns_opt.clone() };
    let _one_at_a_time = shared.writing_files.lock().await;
    shared.files.ensure_resolv(&desired.graph.project, &resolv).await.map(Some).map_err(text)
}

/// Puts the pod's configs and secrets on the host. Returns their paths by target.
async fn files_of(shared: &Shared, desired: &Desired, pod: &PodId) -> Result<BTreeMap<String, PathBuf>, String> {
    let Some(service) = desired.graph.services.get(&pod.service) else { return Ok(BTreeMap::new()) };
    let _one_at_a_time = shared.writing_files.lock().await;
    let mut paths = BTreeMap::new();
    for mount in &service.container.files {
        let content =
            desired.graph.files.get(&mount.hash).ok_or_else(|| format!("content of {} is lost", mount.target))?;
        let path = shared.files.ensure_file(&desired.graph.project, mount, content).await.map_err(text)?;
        paths.insert(mount.target.clone(), path);
    }
    Ok(paths)
}

/// Removes files that no pod of the desired state mounts any more.
///
/// # Errors
/// The reason for the reader.
pub async fn sweep_files(shared: &Shared, desired: &Desired) -> Result<(), String> {
    let mut used = BTreeSet::new();
    for (name, service) in &desired.graph.services {
        used.extend(resolv_conf_of(shared, desired, service).await?);
        used.extend(files_of(shared, desired, &PodId::new(name.clone(), 1)).await?.into_values());
    }
    let _one_at_a_time = shared.writing_files.lock().await;
    shared.files.sweep(&desired.graph.project, &used).await.map_err(text)
}

/// Puts every `resolv.conf` in order that somebody changed or removed.
pub async fn ensure_resolv_files(shared: &Shared) {
    for record in shared.desired() {
        let Some(desired) = record.running() else { continue };
        for service in desired.graph.services.values() {
            if let Err(message) = resolv_conf_of(shared, desired, service).await {
                tracing::warn!(project = %desired.graph.project, message, "cannot write a resolv.conf");
            }
        }
    }
}

/// Returns the store's key of the last signal that was sent to a pod; without one, what all of the project's begin with.
fn signalled_key(project: &ProjectName, pod: Option<&PodId>) -> String {
    pod.map_or_else(|| format!("signalled/{project}/"), |pod| format!("signalled/{project}/{pod}"))
}

/// Returns the number of the last wish for a signal that was sent, by pod.
///
/// # Errors
/// What the store says.
pub async fn signalled(shared: &Shared, project: &ProjectName) -> Result<BTreeMap<PodId, u64>, String> {
    by_pod(shared, &signalled_key(project, None)).await
}

/// Returns the store's key of what became of the container that a rollout made for a pod; without one, what all of the
/// project's begin with.
fn rolled_key(project: &ProjectName, pod: Option<&PodId>) -> String {
    pod.map_or_else(|| format!("rolled/{project}/"), |pod| format!("rolled/{project}/{pod}"))
}

/// Returns what was kept of rollouts on this host.
///
/// # Errors
/// What the store says.
pub async fn rolled(shared: &Shared, project: &ProjectName) -> Result<BTreeMap<PodId, Seen>, String> {
    by_pod(shared, &rolled_key(project, None)).await
}

/// Keeps what is known of rollouts on this host.
///
/// # Errors
/// What the store says.
pub async fn keep_rolled(
    shared: &Shared,
    project: &ProjectName,
    changes: &BTreeMap<PodId, Seen>,
) -> Result<(), String> {
    let put = |(pod, seen): (&PodId, &Seen)| {
        let value = serde_json::to_vec(seen).map_err(text)?;
        Ok(Write::Put { key: rolled_key(project, Some(pod)), value, lease: None })
    };
    let writes = changes.iter().map(put).collect::<Result<Vec<_>, String>>()?;
    shared.store.transact(&[], &writes).await.map(drop).map_err(text)
}

/// Returns what the store has under `prefix` and the ids of pods.
async fn by_pod<T: DeserializeOwned>(shared: &Shared, prefix: &str) -> Result<BTreeMap<PodId, T>, String> {
    let (entries, _) = shared.store.list(prefix).await.map_err(text)?;
    let found = entries.iter().filter_map(|entry| {
        let (service, number) = entry.key.strip_prefix(prefix)?.rsplit_once('.')?;
        let pod = PodId::new(ServiceName::new(service).ok()?, number.parse().ok()?);
        Some((pod, serde_json::from_slice(&entry.value).ok()?))
    });
    Ok(found.collect())
}

fn carried_key(project: &ProjectName, pod: &PodId) -> String {
    format!("carried/{project}/{pod}")
}

/// Writes down a container's anonymous volumes before it goes, so that its successor gets them even if the agent ends
/// in between.
async fn remember_anonymous_volumes(shared: &Shared, record: &Record, id: &str, drop_them: bool) -> Result<(), String> {
    let Some(desired) = record.running() else { return Ok(()) };
    let observed = shared.observed(Some(&desired.graph.project));
    let Some(container) = observed.hosts.values().find_map(|host| host.containers.get(id)) else { return Ok(()) };
    let Some(pod) = container.pod().filter(|pod| desired.assignments.pods.contains_key(pod)) else { return Ok(()) };
    let anonymous = anonymous_volumes(desired, container);
    if drop_them || !desired.keeps_volumes(&pod, container) {
        // What an earlier container left is not for the next one either.
        let delete = Write::Delete(carried_key(&desired.graph.project, &pod));
        return shared.store.transact(&[], &[delete]).await.map(drop).map_err(text);
    }
    if anonymous.is_empty() {
        return Ok(());
    }
    let value = serde_json::to_vec(&anonymous).map_err(text)?;
    let write = Write::Put { key: carried_key(&desired.graph.project, &pod), value, lease: None };
    shared.store.transact(&[], &[write]).await.map(drop).map_err(text)
}

/// A container's volumes that no volume of the file names, by target.
fn anonymous_volumes(desired: &Desired, container: &ObservedContainer) -> BTreeMap<String, String> {
    // Those of the pod itself are made with its holder, and go with it.
    let of_pod = container.part().zip(container.number).map(|(part, number)| format!("_{}_{number}", part.of));
    let of_pod = |name: &str| of_pod.as_ref().is_some_and(|end| name.ends_with(end.as_str()));
    let named = |name: &str| of_pod(name) || desired.graph.volumes.values().any(|volume| volume.name == name);
    let service = container.service.as_ref().and_then(|name| desired.graph.services.get(name));
    // Of one that has the mounts of another container these are that one's, but for those that it says itself.
    let foreign = |target: &str| {
        service.filter(|service| !service.container.volumes_from.is_empty()).is_some_and(|service| {
            let own = |mount: &Mount| mount.target == target && matches!(mount.source, MountSource::Anonymous { .. });
            !service.container.mounts.iter().any(own)
        })
    };
    container
        .volumes
        .iter()
        .filter(|(target, name)| !named(name) && !foreign(target))
        .map(|(target, name)| (target.clone(), name.clone()))
        .collect()
}

async fn carried_volumes(
    shared: &Shared,
    desired: &Desired,
    pod: &PodId,
    replaces: Option<&str>,
) -> Result<BTreeMap<String, String>, String> {
    let observed = shared.observed(Some(&desired.graph.project));
    let old = replaces.and_then(|id| observed.hosts.values().find_map(|host| host.containers.get(id)));
    if let Some(old) = old.filter(|old| desired.keeps_volumes(pod, old)) {
        return Ok(anonymous_volumes(desired, old));
    }
    let entry = shared.store.get(&carried_key(&desired.graph.project, pod)).await.map_err(text)?;
    let carried: BTreeMap<String, String> =
        entry.map(|entry| serde_json::from_slice(&entry.value)).transpose().map_err(text)?.unwrap_or_default();
    let volumes =
        observed.hosts.values().flat_map(|host| host.volumes.keys()).collect::<std::collections::BTreeSet<_>>();
    Ok(carried.into_iter().filter(|(_, name)| volumes.contains(name)).collect())
}

/// Removes what is stored of a project that is gone from the engine: its record and its files.
///
/// # Errors
/// The reason for the reader.
pub async fn forget_project(shared: &Shared, project: &ProjectName) -> Result<(), String> {
    let _one_at_a_time = shared.writing_files.lock().await;
    shared.files.remove_project(project).await.map_err(text)?;
    let writes = [
        Write::Delete(project_key(project)),
        Write::DeletePrefix(format!("carried/{project}/")),
        Write::DeletePrefix(signalled_key(project, None)),
        Write::DeletePrefix(rolled_key(project, None)),
        images::forget(project),
    ];
    shared.store.transact(&[], &writes).await.map(drop).map_err(text)?;
    shared.images.remove(project);
    // What was asked for once, and the secrets with it, is in nobody's way any more and of no use.
    if let Err(error) = shared.store.compact().await {
        tracing::warn!(%project, %error, "the history of a project that is gone is still in the store");
    }
    Ok(())
}
