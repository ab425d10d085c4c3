//! One-off containers (`run`): the seat says where one can run, and the agent there makes it, with the project's
//! networks, names, configs and secrets. Nothing is written down: a one-off belongs to whoever runs it. He starts it,
//! waits for its end and removes it; the reconciler sees that it is nobody's pod and leaves it alone, `down` takes it
//! with all else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::api::types::{ApiError, ErrorKind, MakeOneoff, ObjectState, OneoffMade, PlaceOneoff, Progress, UpRequest};
use crate::controller::oneoff::{host_for, narrowed, outward, with_oneoff};
use crate::graph::NetworkMode;
use crate::ids::{HostName, PodId, ProjectName, ServiceName};
use crate::plan::gates::{GateState, dependencies};
use crate::plan::{Desired, Observed};

use super::execute;
use super::fleet::seat;
use super::shared::{Aim, Record, Shared};
use super::spec::{self, OneoffParts};

pub(super) mod pod;

fn error(kind: ErrorKind, message: impl Into<String>) -> ApiError {
    ApiError { message: message.into(), kind }
}

fn record(shared: &Shared, project: &ProjectName) -> Result<Arc<Record>, ApiError> {
    let record = shared.project(project).and_then(|handle| handle.record.borrow().clone());
    let running = record.filter(|record| record.running().is_some());
    running.ok_or_else(|| error(ErrorKind::NotFound, format!("no project `{project}` that runs")))
}

/// Makes of a request to go `up` what it means before a one-off, and says which one-offs go with the orphans: those
/// that have ended by now. Returns the desired state until now where another one than the record's counts.
pub(super) fn prepare(
    request: &mut UpRequest,
    record: Option<&Record>,
    observed: &Observed,
    now: Timestamp,
) -> Option<Desired> {
    let previous = record.and_then(|record| record.desired.as_ref());
    let mut containers = observed.hosts.values().flat_map(|host| host.containers.values());
    let any_over = containers.any(|one| one.oneoff && !one.state.is_active());
    let before = previous.and_then(|previous| previous.oneoffs_before.clone());
    request.options.oneoffs_before =
        if request.options.remove_orphans && any_over { Some(now.to_string()) } else { before };
    if !request.options.only_dependencies {
        return None;
    }
    request.graph = narrowed(request.graph.clone(), &request.options, previous);
    // What is stopped or going stays so but for what the one-off depends on.
    let is_up = record.is_some_and(|record| record.aim == Aim::Up);
    let previous = previous.filter(|_| !is_up)?;
    Some(Desired { enabled: BTreeSet::new(), ..previous.clone() })
}

/// Waits until what the one-off depends on is as it demands, and says which host it can run on. Ends when nobody
/// listens.
pub(super) async fn place(
    shared: Arc<Shared>,
    project: ProjectName,
    request: PlaceOneoff,
    sender: mpsc::Sender<Progress>,
) {
    let placed = tokio::select! {
        placed = placed(&shared, &project, &request) => placed,
        () = sender.closed() => return,
    };
    let events = match placed {
        Ok(host) => vec![
            Progress::Object {
                kind: "Container".to_owned(),
                name: request.service.to_string(),
                host,
                status: "Placed".to_owned(),
                state: ObjectState::Done,
                detail: None,
            },
            Progress::Done { revision: 0 },
        ],
        Err(message) => vec![Progress::Failed { messages: vec![message] }],
    };
    for event in events {
        // A client that is gone does not need it.
        if sender.send(event).await.is_err() {
            return;
        }
    }
}

async fn placed(shared: &Shared, project: &ProjectName, request: &PlaceOneoff) -> Result<HostName, String> {
    let mut pictures = shared.informer.subscribe();
    loop {
        pictures.mark_unchanged();
        let record = record(shared, project).map_err(|error| error.message)?;
        let desired = desired(&record).map_err(|error| error.message)?;
        let observed = shared.observed(Some(project));
        let service = outward(&request.graph, &request.service);
        let service = service.ok_or_else(|| format!("no such service: {}", request.service))?;
        match dependencies(desired, &service, &observed) {
            GateState::Failed(why) if !request.no_deps => return Err(why),
            GateState::Waiting(_) if !request.no_deps => {
                // The agent that is asked ends with its picture.
                pictures.changed().await.map_err(|_| "the agent ends".to_owned())?;
            }
            _ => {
                let members = shared.fleet().hosts.keys().cloned().collect();
                let hosts = seat::hosts(shared, project);
                return host_for(desired, &request.graph, &request.service, &hosts, &members, &observed);
            }
        }
    }
}

fn desired(record: &Record) -> Result<&Desired, ApiError> {
    record.running().ok_or_else(|| error(ErrorKind::Internal, "the project does not run"))
}

/// Makes a one-off on this host; it is not started.
///
/// # Errors
/// What is missing here, and what the engine refuses.
pub(super) async fn make(shared: &Shared, project: &ProjectName, request: &MakeOneoff) -> Result<OneoffMade, ApiError> {
    let record = record(shared, project)?;
    let name = &request.service;
    let desired = with_oneoff(desired(&record)?, &request.graph, name).ok_or_else(|| no_service(name))?;
    let host = |message: String| error(ErrorKind::Host, message);
    let order = pod::in_order(&desired.graph, name);
    if let [only] = order[..] {
        ensure_resources(shared, &desired, only).await.map_err(host)?;
        let container = make_part(shared, &desired, only, request, &BTreeMap::new()).await?;
        return Ok(OneoffMade { container });
    }
    let held = shared.oneoffs.hold(&request.slug);
    let made = make_pod(shared, &desired, &order, request).await;
    drop(held);
    if made.is_err() {
        shared.oneoffs.release(&request.slug);
    }
    Ok(OneoffMade { container: made? })
}

fn no_service(name: &ServiceName) -> ApiError {
    error(ErrorKind::User, format!("no such service: {name}"))
}

/// Makes the containers of a pod of several, in the order in which they start; none is. Returns the main one's id.
///
/// What was made of one that cannot be made whole is taken away as what is left of any other.
async fn make_pod(
    shared: &Shared,
    desired: &Desired,
    order: &[&ServiceName],
    request: &MakeOneoff,
) -> Result<String, ApiError> {
    let host = |message: String| error(ErrorKind::Host, message);
    let mut made = BTreeMap::new();
    let mut last = String::new();
    for part in order {
        ensure_resources(shared, desired, part).await.map_err(host)?;
        if let Some(service) = desired.graph.services.get(*part) {
            for (_, volume) in spec::oneoff_volumes(desired, &request.service, &request.slug, service) {
                shared.engine.ensure_volume(&volume).await.map_err(|cause| host(execute::text(cause)))?;
            }
        }
        last = make_part(shared, desired, part, request, &made).await?;
        made.insert((*part).clone(), last.clone());
    }
    Ok(last)
}

/// Makes one container of a one-off. `beside`: the ids of those of its pod that are there.
async fn make_part(
    shared: &Shared,
    desired: &Desired,
    name: &ServiceName,
    request: &MakeOneoff,
    beside: &BTreeMap<ServiceName, String>,
) -> Result<String, ApiError> {
    let host = |message: String| error(ErrorKind::Host, message);
    let service = desired.graph.services.get(name).ok_or_else(|| no_service(name))?;
    let reference = &service.container.image;
    let image = shared.engine.image_id(reference).await.map_err(|cause| host(execute::text(cause)))?;
    let Some(image) = image else {
        return Err(host(format!("image `{reference}` is not on host `{}`", shared.host())));
    };
    let pod = PodId::new(name.clone(), 1);
    let missing = |owner: &crate::ids::ServiceName| {
        let message = format!("it shares namespaces with `{owner}`, which does not run on host `{}`", shared.host());
        error(ErrorKind::Conflict, message)
    };
    let mut parts = execute::parts(shared, desired, &pod, service, None).await.map_err(host)?;
    let own = service.companions().filter_map(|owner| Some((owner.clone(), beside.get(owner)?.clone())));
    parts.owners.extend(own);
    if let Some(owner) = service.owners().find(|owner| !parts.owners.contains_key(*owner)) {
        return Err(missing(owner));
    }
    parts.carried_volumes.clear();
    let is_main = *name == request.service;
    let oneoff = OneoffParts {
        slug: &request.slug,
        labels: &request.labels,
        use_aliases: request.use_aliases,
        // The engine removes what ends by itself; the agent removes the rest of its pod after that.
        auto_remove: request.auto_remove && is_main,
        stdin_once: request.stdin_once && is_main,
    };
    let container = match &service.part {
        Some(part) if !is_main => format!("{}-{}", request.name, part.member(name)),
        _ => request.name.clone(),
    };
    let spec = spec::oneoff(desired, name, &container, &parts.borrowed(&image), &oneoff);
    let spec = spec.ok_or_else(|| no_service(name))?;
    let container = shared.engine.create_container(&spec).await.map_err(|cause| host(execute::text(cause)))?;
    shared.informer.refresh(&container).await.map_err(|cause| host(execute::text(cause)))?;
    Ok(container)
}

/// Makes the networks and volumes of the one-off that are not there: it may be the first of the project on this host.
async fn ensure_resources(shared: &Shared, desired: &Desired, name: &ServiceName) -> Result<(), String> {
    let Some(service) = desired.graph.services.get(name) else { return Ok(()) };
    let engine = shared.engine.as_ref();
    if let NetworkMode::Networks(attachments) = &service.network {
        for attachment in attachments {
            if let Some(spec) = spec::network(desired, &attachment.network, shared.fleet().index()) {
                engine.ensure_network(&spec).await.map_err(execute::text)?;
            }
        }
    }
    for key in service.volumes() {
        if let Some(spec) = spec::volume(desired, key) {
            engine.ensure_volume(&spec).await.map_err(execute::text)?;
        }
    }
    shared.informer.refresh_resources().await.map_err(execute::text)?;
    // Rules and addresses first: what starts on a network needs its names at once.
    shared.dataplane.ensure_if_changed(shared).await.map_err(execute::text)
}
