//! The loop of one project: look at desired and observed, plan, start what can be started, say when to look again.
//!
//! Level-triggered: every pass plans anew from what is, so it does not matter which event woke it, what was cut off
//! before, or who else changed something. Steps run beside the loop; a step whose object is under way is not started
//! a second time. The loop never waits for a step, so a slow stop does not delay the healing of another container.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::types::{ObjectState, Progress};
use crate::graph::Condition;
use crate::host::memory;
use crate::ids::{HostName, PodId, ProjectName, ServiceName};
use crate::lb::table::PublishedKey;
use crate::observed::Rolled;
use crate::plan::{Desired, Gate, Intent, Observed, Plan, PlannedStep, PodMemory, Reason, Step, StepId, plan};

use super::execute::{self, Outcome};
use super::fleet::picture::Report;
use super::informer::Informer;
use super::memory::Failures;
use super::rollouts::Rollouts;
use super::shared::{Aim, ProjectHandle, ProjectState, Record, STORE_OBJECT, Shared};

mod remembering;
mod rolling;

/// Steps of one project that run at the same time. The engine works through them with all cores; more only queue there.
const PARALLEL_STEPS: usize = 16;

/// Pause before a failed step is tried again: doubles from this…
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// …up to this.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// How often a step may be done and still be planned before that is an error.
const REPEATS: u32 = 5;

/// Changes of the picture within this time are planned for at once: an `up` of many containers brings hundreds.
const COALESCE: Duration = Duration::from_millis(3);

/// A failed step's object.
#[derive(Debug, Clone)]
struct Failure {
    message: String,
    attempts: u32,
    not_before: Duration,
    /// Whether nobody is told yet: a rollout bears it, and trying again may mend it.
    is_borne: bool,
}

/// A stop under way, which a shorter one overtakes.
#[derive(Debug)]
struct Stopping {
    /// The container.
    id: String,
    /// When the engine kills it at the latest.
    ends: Duration,
    /// The time it has from the signal to the kill.
    grace: watch::Sender<Duration>,
}

impl Stopping {
    /// Shortens the stop if `grace` from `now` on is shorter than what is left of it: somebody is in a hurry now.
    fn hurry(&mut self, id: &str, grace: Duration, now: Duration) {
        let ends = now.saturating_add(grace);
        // One that goes on beyond its end waits for what is run in the container before the signal.
        let helps = ends < self.ends || now >= self.ends;
        if self.id == id && helps && grace < *self.grace.borrow() {
            self.ends = ends;
            self.grace.send_replace(grace);
        }
    }
}

/// One project's loop.
struct Loop {
    shared: Arc<Shared>,
    handle: Arc<ProjectHandle>,
    failures: Failures,
    rollouts: Rollouts,
    /// How rollouts failed on other hosts: that is so also while those do not answer.
    failed_elsewhere: BTreeMap<PodId, Rolled>,
    /// Objects with a step under way; with the stop if it is one.
    under_way: BTreeMap<String, Option<Stopping>>,
    running: FuturesUnordered<BoxFuture<'static, (String, Step, Outcome)>>,
    /// Failed steps by object.
    errors: BTreeMap<String, Failure>,
    /// Steps that were done and are still planned, with how often.
    repeated: BTreeMap<String, (Step, u32)>,
    /// Containers whose connections have ended: their drain is done although nothing on the engine shows it.
    drained: BTreeSet<String>,
    /// Gates that somebody was told about.
    waiting: BTreeSet<(ServiceName, Condition)>,
    /// Record whose files were swept.
    swept: Option<Arc<Record>>,
    /// Record that the errors belong to.
    last: Option<Arc<Record>>,
    /// Steps that ended so far, well or not.
    steps_done: u64,
    steps_failed: u64,
    /// All times of the loop are since then: wall time may jump.
    begun: Instant,
}

/// Runs a project's loop until the project is gone or the agent stops. Started by `wire` only.
///
/// Reads the project's record and the picture of the engine; writes the engine, the project's state and
/// progress.
pub async fn run(shared: Arc<Shared>, handle: Arc<ProjectHandle>, stop: CancellationToken) {
    let mut records = handle.record.subscribe();
    let mut pictures = shared.informer.subscribe();
    let mut project = Loop {
        shared,
        handle,
        failures: Failures::default(),
        rollouts: Rollouts::default(),
        failed_elsewhere: BTreeMap::new(),
        under_way: BTreeMap::new(),
        running: FuturesUnordered::new(),
        errors: BTreeMap::new(),
        repeated: BTreeMap::new(),
        drained: BTreeSet::new(),
        waiting: BTreeSet::new(),
        swept: None,
        last: None,
        steps_done: 0,
        steps_failed: 0,
        begun: Instant::now(),
    };
    project.recall_signals().await;
    project.recall_rollouts().await;
    loop {
        pictures.mark_unchanged();
        let record = records.borrow_and_update().clone();
        let Some(record) = record else { return };
        let wake = project.pass(&record).await;
        if project.is_gone(&record).await {
            return;
        }
        let timer = async {
            match wake {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = records.changed() => {}
            _ = pictures.changed() => tokio::time::sleep(COALESCE).await,
            Some((object, step, outcome)) = project.running.next(), if !project.running.is_empty() => {
                project.finish(&object, &step, outcome);
            }
            () = timer => {}
        }
    }
}

impl Loop {
    /// Plans once and starts what can be started. Returns when to look again if nothing else wakes the loop.
    async fn pass(&mut self, record: &Arc<Record>) -> Option<Duration> {
        if !self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, record)) {
            self.begin(record);
        }
        let images = images_of(&self.shared, record).await;
        let now = self.begun.elapsed();
        let mut observed = self.shared.observed(Some(&self.handle.name));
        observed.hosts.entry(self.shared.host().clone()).or_default().images.clone_from(&images);
        let mut memory = self.remember(record, &observed, now);
        let mut plan = plan_for(&self.handle.name, record, &observed, &memory);
        if record.running().is_some_and(|desired| self.note_replaced(desired, &plan)) {
            memory = self.remember(record, &observed, now);
            plan = plan_for(&self.handle.name, record, &observed, &memory);
        }
        self.keep_rollouts().await;
        let done = self.done_drains(&plan);
        let planned: BTreeSet<String> =
            plan.steps.iter().map(|planned| execute::object(&planned.step, record.desired.as_ref())).collect();
        self.repeated.retain(|object, _| planned.contains(object));
        self.announce_gates(record, &plan, &observed);
        // Every host plans for all of them, from the same values, and does its own part.
        let own = self.shared.host();
        let runnable = plan.runnable(&done, &observed, record.desired.as_ref()).into_iter();
        let runnable = runnable.filter(|planned| &planned.host == own && self.may_roll(record, planned));
        let runnable: Vec<_> = runnable.cloned().collect();
        for planned in runnable {
            self.start(record, planned.step, planned.reason, now);
        }
        if plan.steps.is_empty() && self.running.is_empty() {
            self.sweep(record).await;
        }
        let next_error = self.errors.values().map(|failure| failure.not_before).filter(|time| *time > now).min();
        let next = self.failures.next_start(now).into_iter().chain(next_error).min();
        self.publish(record, plan, memory, images, &observed);
        let settled = record.running().and_then(|desired| self.rollouts.next(desired, self.shared.clock.now()));
        next.map(|time| time.saturating_sub(now)).into_iter().chain(settled).min()
    }

    /// A new record: what failed for the old one is tried at once, and what it changes without any step, such as the
    /// host of a route, holds before the first pass says that nothing is left to do.
    fn begin(&mut self, record: &Arc<Record>) {
        self.errors.clear();
        self.waiting.clear();
        if let Some(desired) = &record.desired {
            self.shared.informer.set_generation(&self.handle.name, desired.generation);
            self.forgive(desired);
        }
        self.last = Some(record.clone());
        // Nothing here may wait: steps under way go on only between the passes, and one of them may be what is waited for.
        self.shared.dataplane.refresh_tables(&self.shared);
    }

    /// Drains leave no trace on the engine: those done count as done while the plan still has them.
    fn done_drains(&mut self, plan: &Plan) -> BTreeSet<StepId> {
        let mut wanted = BTreeSet::new();
        let mut done = BTreeSet::new();
        for planned in &plan.steps {
            match &planned.step {
                Step::Drain { id, .. } => {
                    wanted.insert(id.clone());
                    if self.drained.contains(id) {
                        done.insert(planned.id);
                    }
                }
                Step::StopContainer { id, .. } | Step::RemoveContainer { id, .. } | Step::Pause { id, .. } => {
                    wanted.insert(id.clone());
                }
                _ => {}
            }
        }
        self.drained.retain(|id| wanted.contains(id));
        self.shared.dataplane.keep_draining(&self.handle.name, &wanted);
        done
    }

    fn start(&mut self, record: &Arc<Record>, step: Step, reason: Reason, now: Duration) {
        let object = execute::object(&step, record.desired.as_ref());
        if let Some(under_way) = self.under_way.get_mut(&object) {
            if let (Some(stopping), Step::StopContainer { id, grace, .. }) = (under_way, &step) {
                stopping.hurry(id, *grace, now);
            }
            return;
        }
        let too_early = self.errors.get(&object).is_some_and(|failure| failure.not_before > now);
        if too_early || self.running.len() >= PARALLEL_STEPS {
            return;
        }
        let (sender, graces) = watch::channel(Duration::ZERO);
        let stopping = match &step {
            Step::StopContainer { id, grace, .. } => {
                sender.send_replace(*grace);
                Some(Stopping { id: id.clone(), ends: now.saturating_add(*grace), grace: sender })
            }
            _ => None,
        };
        self.under_way.insert(object.clone(), stopping);
        let (shared, handle, record) = (self.shared.clone(), self.handle.clone(), record.clone());
        self.running.push(Box::pin(async move {
            let outcome = execute::run(&shared, &handle, &record, (&step, &reason), graces).await;
            (object, step, outcome)
        }));
    }

    fn finish(&mut self, object: &str, step: &Step, outcome: Outcome) {
        self.under_way.remove(object);
        match outcome {
            Outcome::Done => {
                self.steps_done += 1;
                self.errors.remove(object);
                self.pace(object, step);
                match step {
                    Step::Drain { id, .. } => drop(self.drained.insert(id.clone())),
                    Step::Kill { pod, number, .. } => self.failures.signalled(pod, *number),
                    Step::StartContainer { pod, .. } => {
                        let generation =
                            self.last.as_ref().and_then(|record| record.desired.as_ref()).map_or(0, |d| d.generation);
                        self.failures.started(pod, generation);
                    }
                    _ => {}
                }
            }
            Outcome::Failed(message) => {
                self.steps_failed += 1;
                let attempts = self.errors.get(object).map_or(0, |failure| failure.attempts) + 1;
                let mut is_borne = false;
                if let (Step::CreateContainer { pod, name, .. } | Step::StartContainer { pod, name }, Some(desired)) =
                    (step, self.last.as_ref().and_then(|record| record.running()))
                {
                    let now = self.shared.clock.now();
                    is_borne = self.rollouts.failed(desired, pod, (name, &message), attempts, now);
                }
                let pause = FIRST_RETRY.saturating_mul(1 << (attempts - 1).min(10)).min(LAST_RETRY);
                let not_before = self.begun.elapsed() + pause;
                tracing::warn!(project = %self.handle.name, object, message, ?pause, "a step failed");
                self.errors.insert(object.to_owned(), Failure { message, attempts, not_before, is_borne });
            }
        }
    }

    /// A step that is done again and again and stays planned does not do what it should: it is slowed down, not
    /// repeated as fast as the engine can.
    fn pace(&mut self, object: &str, step: &Step) {
        let (last, times) = self.repeated.entry(object.to_owned()).or_insert_with(|| (step.clone(), 0));
        if last != step {
            (*last, *times) = (step.clone(), 0);
        }
        *times += 1;
        if *times > REPEATS {
            let message = format!("done {times} times, and still to do");
            let not_before = self.begun.elapsed() + FIRST_RETRY;
            tracing::warn!(project = %self.handle.name, object, message, "a step has no effect");
            self.errors.insert(object.to_owned(), Failure { message, attempts: 1, not_before, is_borne: false });
        }
    }

    /// Removes files of earlier revisions, and gives back what memory the work needed; once for each record that has come
    /// true.
    async fn sweep(&mut self, record: &Arc<Record>) {
        let Some(desired) = record.running() else { return };
        if self.swept.as_ref().is_some_and(|swept| Arc::ptr_eq(swept, record)) {
            return;
        }
        if let Err(message) = execute::sweep_files(&self.shared, desired).await {
            tracing::warn!(project = %self.handle.name, message, "cannot remove files of earlier revisions");
        }
        self.swept = Some(record.clone());
        give_back_memory();
    }

    /// Tells who listens what is waited for, and when that is over, in Docker Compose's words.
    fn announce_gates(&mut self, record: &Record, plan: &Plan, observed: &Observed) {
        let now: BTreeSet<(ServiceName, Condition)> = plan
            .steps
            .iter()
            .flat_map(|step| &step.gates)
            .filter(|gate| gate.condition != Condition::ServiceStarted)
            .map(|Gate { service, condition, .. }| (service.clone(), *condition))
            .collect();
        let Some(desired) = record.desired.as_ref() else { return };
        for (service, _) in now.difference(&self.waiting) {
            self.announce(desired, service, "Waiting", ObjectState::Working);
        }
        for (service, condition) in self.waiting.difference(&now) {
            let healthy = *condition == Condition::ServiceHealthy;
            let ready = pods_of(observed, service).all(|container| !healthy || container.is_ready());
            if ready {
                self.announce(desired, service, if healthy { "Healthy" } else { "Exited" }, ObjectState::Done);
            }
        }
        self.waiting = now;
    }

    fn announce(&self, desired: &Desired, service: &ServiceName, status: &str, state: ObjectState) {
        for (pod, host) in desired.assignments.pods.iter().filter(|(pod, _)| &pod.service == service) {
            let event = Progress::Object {
                kind: "Container".into(),
                name: desired.graph.container_name(pod),
                host: host.clone(),
                status: status.into(),
                state,
                detail: None,
            };
            self.shared.announce(&self.handle, event);
        }
    }

    fn publish(
        &self,
        record: &Arc<Record>,
        plan: Plan,
        memory: BTreeMap<PodId, PodMemory>,
        images: BTreeMap<String, String>,
        observed: &Observed,
    ) {
        let own = self.shared.host();
        let own_errors = self.errors.iter().filter(|(_, failure)| !failure.is_borne);
        let own_errors = own_errors.map(|(object, failure)| (object.clone(), failure.message.clone()));
        let here = |pod: &PodId| record.desired.as_ref().is_some_and(|d| d.assignments.pods.get(pod) == Some(own));
        let mut report = Report {
            serial: record.serial,
            memory: memory.into_iter().filter(|(pod, _)| here(pod)).collect(),
            images,
            under_way: self.running.len(),
            errors: own_errors.collect(),
        };
        if !self.shared.fleet().is_seat() {
            // The seat looks at its own ports before it accepts them; those of other hosts show only there.
            report.errors.extend(self.unpublished(record));
        }
        for (pod, failed) in self.told_of_failures().filter(|(pod, _)| !here(pod)) {
            report.memory.insert(pod, failed);
        }
        let others = self.shared.peers.reports(&self.handle.name);
        let mut by_host: BTreeMap<&HostName, &BTreeMap<String, String>> =
            others.iter().map(|(host, report)| (host, &report.errors)).collect();
        by_host.insert(own, &report.errors);
        let mut errors = BTreeMap::new();
        for (host, object, message) in by_host
            .iter()
            .flat_map(|(host, errors)| errors.iter().map(move |(object, message)| (*host, object, message)))
        {
            let told = if host == own { message.clone() } else { format!("on `{host}`: {message}") };
            let entry: &mut String = errors.entry(object.clone()).or_default();
            *entry = if entry.is_empty() { told } else { format!("{entry}; {told}") };
        }
        let others_idle = others.values().all(|report| report.under_way == 0);
        let idle = self.running.is_empty() && others_idle;
        let busy = self.under_way.keys().cloned().collect();
        // Who has not heard of the record yet may have something to do for it.
        let all_know = !self.shared.fleet().is_seat() || self.shared.peers.all_know(&self.handle.name, record.serial);
        let desired = record.desired.as_ref();
        let failed = |planned: &PlannedStep| {
            let object = execute::object(&planned.step, desired);
            let failed =
                |errors: &&BTreeMap<String, String>| errors.contains_key(&object) || errors.contains_key(STORE_OBJECT);
            by_host.get(&planned.host).is_some_and(failed)
        };
        let stuck = plan.is_stuck(observed, desired, failed);
        let heard = all_know;
        let is_over = plan.steps.is_empty() && plan.watched.is_empty();
        let settled = idle && all_know && (is_over || stuck || plan.is_hopeless());
        self.handle.state.send_modify(|state| {
            *state = ProjectState {
                passes: state.passes + 1,
                steps_done: self.steps_done,
                steps_failed: self.steps_failed,
                record: Some(record.clone()),
                plan: Some(plan),
                errors,
                report,
                busy,
                others_idle,
                heard,
                settled,
                gone: false,
            };
        });
        if !self.shared.fleet().hosts.is_empty() {
            self.shared.refresh_own_picture();
        }
    }

    /// Ends the loop of a project that was to go and is gone.
    async fn is_gone(&mut self, record: &Arc<Record>) -> bool {
        if !matches!(record.aim, Aim::Down(_)) || !self.running.is_empty() {
            return false;
        }
        // The seat forgets a project when it is gone everywhere; the others when the seat has.
        let (seat, own) = (self.shared.fleet().is_seat(), self.shared.host());
        if !seat && !record.released {
            return false;
        }
        let empty = {
            let state = self.handle.state.borrow();
            let mut steps = state.plan.iter().flat_map(|plan| &plan.steps);
            state.plan.is_some() && !steps.any(|planned| seat || &planned.host == own)
        };
        if !empty {
            return false;
        }
        if let Err(message) = execute::forget_project(&self.shared, &self.handle.name).await {
            tracing::warn!(project = %self.handle.name, message, "cannot forget a project that is gone");
            return false;
        }
        if !self.shared.forget(&self.handle, record) {
            return false;
        }
        // Ports and rules last: the tables are made from the projects that are known.
        self.shared.dataplane.refresh_tables(&self.shared);
        if let Err(error) = self.shared.dataplane.ensure_if_changed(&self.shared).await {
            tracing::warn!(project = %self.handle.name, %error, "rules of a project that is gone are still there");
        }
        self.handle.state.send_modify(|state| state.gone = true);
        give_back_memory();
        true
    }
}

impl Loop {
    /// Returns the project's published ports that somebody else has on this host.
    fn unpublished(&self, record: &Record) -> BTreeMap<String, String> {
        let Some(desired) = record.running() else { return BTreeMap::new() };
        let problems = self.shared.dataplane.published_problems(&self.shared);
        let ports = desired.addresses.ports.iter().filter_map(|port| {
            let key = PublishedKey { host_ip: port.host_ip, port: port.published, protocol: port.protocol };
            let problem = problems.get(&key)?;
            Some((format!("Port {}/{}", port.published, port.protocol), format!("cannot be published: {problem}")))
        });
        ports.collect()
    }
}

/// On a thread of its own: nobody waits for it.
fn give_back_memory() {
    drop(tokio::task::spawn_blocking(memory::give_back));
}

/// Returns what planning needs to know of the desired pods beyond what the engine shows.
///
/// Of a pod that this agent did not start itself, the record of its end tells the generation it was started in; one
/// that was started and has no such record counts as started in the present one; one without a container never was.
pub fn recall(
    informer: &Informer,
    desired: &Desired,
    observed: &Observed,
    failures: &Failures,
    now: Duration,
) -> BTreeMap<PodId, PodMemory> {
    let mut started_in = BTreeMap::new();
    for container in observed.hosts.values().flat_map(|host| host.containers.values()) {
        if let Some(pod) = container.pod().filter(|_| !container.started_at.is_empty()) {
            let generation = informer.generation_of_exit(container).unwrap_or(desired.generation);
            started_in.insert(pod, generation);
        }
    }
    let pods: Vec<PodId> = desired.pods().cloned().collect();
    failures.view(&pods, now, |pod| started_in.get(pod).copied().unwrap_or_default())
}

/// What image references mean for a record; nothing while nobody can say.
async fn images_of(shared: &Shared, record: &Record) -> BTreeMap<String, String> {
    let Some(desired) = &record.desired else { return BTreeMap::new() };
    let (engine, store) = (shared.engine.as_ref(), shared.store.as_ref());
    shared.images.in_force(engine, store, desired).await.unwrap_or_else(|error| {
        tracing::warn!(project = %desired.graph.project, %error, "cannot say what images mean");
        BTreeMap::new()
    })
}

/// Plans for what is asked of the project.
pub fn plan_for(
    project: &ProjectName,
    record: &Record,
    observed: &Observed,
    memory: &BTreeMap<PodId, PodMemory>,
) -> Plan {
    let seconds = |timeout: Option<u64>| timeout.map(Duration::from_secs);
    let last = record.desired.as_ref();
    let intent = match (&record.aim, last) {
        (Aim::Up, Some(desired)) => Intent::Up(desired),
        (Aim::Stopped(request), last) => Intent::Stop { project, last, timeout: seconds(request.timeout_secs) },
        (Aim::Down(request), last) => {
            Intent::Down { project, last, volumes: request.volumes, timeout: seconds(request.timeout_secs) }
        }
        (Aim::Up, None) => Intent::Stop { project, last: None, timeout: None },
    };
    plan(intent, observed, memory)
}

fn pods_of<'a>(
    observed: &'a Observed,
    service: &'a ServiceName,
) -> impl Iterator<Item = &'a crate::plan::ObservedContainer> {
    let containers = observed.hosts.values().flat_map(|host| host.containers.values());
    containers.filter(move |container| !container.oneoff && container.service.as_ref() == Some(service))
}
