//! What somebody asks of containers that are there becomes part of what shall be; see [`crate::plan::asked`].

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;

use crate::api::types::{ApiError, AskRequest, ErrorKind, Progress};
use crate::ids::{PodId, ProjectName};
use crate::plan::asked::{Answer, all_stopped, ask};
use crate::plan::{Ask, Desired, Observed, Plan, PlannedStep, Step, StepId};

use super::super::execute;
use super::super::shared::{Aim, Record, project_key};
use super::follow::Follow;
use super::{AgentHandler, STREAM_BACKLOG, cluster, error, internal, memory_for, next_serial, plan_for};

impl AgentHandler {
    /// Writes down what is asked for and follows it.
    pub(super) async fn asked(
        &self,
        project: ProjectName,
        request: AskRequest,
    ) -> Result<mpsc::Receiver<Progress>, ApiError> {
        let shared = &self.shared;
        let AskRequest { ask: what, services, wait, dry_run } = request;
        let guard = shared.admission.lock().await;
        cluster::only_seat(shared)?;
        // Right after this agent's start the other hosts have not said yet what is there.
        shared.peers.wait_until_told().await;
        let entry = shared.store.get(&project_key(&project)).await.map_err(internal)?;
        let stored = entry.as_ref().map(|entry| entry.modified);
        let record: Option<Record> =
            entry.map(|entry| serde_json::from_slice(&entry.value)).transpose().map_err(internal)?;
        let observed = shared.observed(Some(&project));
        let Some((record, now)) = record.and_then(|record| {
            let now = match (&record.aim, &record.desired) {
                (Aim::Up, Some(desired)) => desired.clone(),
                (Aim::Stopped(_), Some(desired)) => all_stopped(desired),
                (Aim::Down(_), _) | (_, None) => return None,
            };
            Some((record, now))
        }) else {
            return Err(not_ours(&project, &observed));
        };
        let serial = next_serial(Some(&record));
        let Answer { desired, pods } = ask(&now, &observed, &what, &services, serial)
            .map_err(|cause| error(ErrorKind::User, cause.to_string()))?;
        let revision = desired.revision;
        let next = Record { aim: Aim::Up, desired: Some(desired), serial, ..record.clone() };
        let memory = memory_for(shared, &next, &observed);
        let plan = plan_for(&project, &next, &observed, &memory);
        let whole = matches!(what, Ask::Kill { remove_orphans: true, .. });
        let plan = match next.desired.as_ref().filter(|_| !whole) {
            Some(desired) => about(plan, &pods, &objects(desired, &observed, &pods)),
            None => plan,
        };
        let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
        let accepted = Progress::Accepted { revision, plan };
        if dry_run || next.desired == record.desired && record.aim == Aim::Up && !wait {
            for event in [accepted, Progress::Done { revision }] {
                // The channel is empty and has room for both.
                drop(sender.try_send(event));
            }
            return Ok(receiver);
        }
        let following = self.write(&project, next, stored, None).await?;
        drop(guard);
        let follow = Follow::new(shared.clone(), following, wait);
        let follow = if whole { follow } else { follow.about(pods) };
        shared.spawn(async move {
            if sender.send(accepted).await.is_ok() {
                follow.run(sender).await;
            }
        });
        Ok(receiver)
    }
}

/// Returns the engine objects of pods: those that are there, and those that shall be.
pub(super) fn objects(desired: &Desired, observed: &Observed, pods: &BTreeSet<PodId>) -> BTreeSet<String> {
    let containers = observed.hosts.values().flat_map(|host| host.containers.values());
    let seen = containers.filter(|one| one.pod().is_some_and(|pod| pods.contains(&pod))).map(|one| one.name.clone());
    let wanted = pods.iter().map(|pod| desired.graph.container_name(pod));
    seen.chain(wanted).map(|name| format!("Container {name}")).collect()
}

/// What is to do for the pods that something was asked of; the rest would be done anyway.
fn about(plan: Plan, pods: &BTreeSet<PodId>, objects: &BTreeSet<String>) -> Plan {
    let is_meant = |step: &Step| {
        step.pod().is_some_and(|pod| pods.contains(pod)) || objects.contains(&execute::object(step, None))
    };
    let mut steps: Vec<PlannedStep> = plan.steps.into_iter().filter(|planned| is_meant(&planned.step)).collect();
    let ids: BTreeMap<StepId, StepId> = (0..).zip(&steps).map(|(at, planned)| (planned.id, StepId(at))).collect();
    for planned in &mut steps {
        planned.id = ids.get(&planned.id).copied().unwrap_or(planned.id);
        planned.after = planned.after.iter().filter_map(|before| ids.get(before).copied()).collect();
    }
    Plan { steps, notes: Vec::new(), failures: Vec::new(), watched: Vec::new(), ..plan }
}

/// The project was never brought up, or is going down.
fn not_ours(project: &ProjectName, observed: &Observed) -> ApiError {
    let mut containers = observed.hosts.values().flat_map(|host| host.containers.values());
    if containers.any(|container| container.project.as_ref() == Some(project) && container.spec_hash.is_none()) {
        return ApiError::not_ours(project);
    }
    error(ErrorKind::NotFound, format!("no project `{project}`"))
}
