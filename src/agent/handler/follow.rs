//! Follows a project's loop for one client until what the client asked for has come true or cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::api::types::{PodStatus, Progress};
use crate::graph::{Part, Restart, Role};
use crate::ids::{PodId, ServiceName};
use crate::plan::{Asked, ContainerState, Desired, Health, Plan, PlannedStep};

use super::super::execute;
use super::super::memory::{STEADY, forgiven_after, steady_again};
use super::super::shared::{Aim, Following, ProjectState, Record, STORE_OBJECT, Shared};
use super::{asking, status};

/// Time without an end after which the client is told what is waited for, again each time that it has passed twice.
const TELL_AFTER: Duration = Duration::from_secs(30);

/// Things that are waited for, told at most.
const TOLD: usize = 5;

/// One client's view of a project's loop.
pub(super) struct Follow {
    shared: Arc<Shared>,
    following: Following,
    /// Until every pod is ready or done, not only started.
    wait: bool,
    /// Only what becomes of these matters; `None`: all does.
    about: Option<BTreeSet<PodId>>,
    /// The services that were asked for, with what they depend on: others may fail as they did before. `None`: all.
    of: Option<BTreeSet<ServiceName>>,
    /// The run of each container without a check, and since when it is known.
    runs: BTreeMap<PodId, (String, Instant)>,
    /// When one of them will have run for long enough.
    look_at: Option<Instant>,
}

impl Follow {
    /// Follows what `following` was asked for; with `wait` until every pod is ready or done, not only started.
    pub(super) fn new(shared: Arc<Shared>, following: Following, wait: bool) -> Self {
        Self { shared, following, wait, about: None, of: None, runs: BTreeMap::new(), look_at: None }
    }

    /// Follows only what becomes of these pods.
    pub(super) fn about(self, pods: BTreeSet<PodId>) -> Self {
        Self { about: Some(pods), ..self }
    }

    /// Follows what becomes of these services, `None`: of all.
    pub(super) fn of(self, services: Option<BTreeSet<ServiceName>>) -> Self {
        Self { of: services, ..self }
    }

    /// Sends progress until it is as asked, cannot become so, or the client is gone.
    pub(super) async fn run(mut self, sender: mpsc::Sender<Progress>) {
        let mut states = self.following.handle.state.subscribe();
        let mut pictures = self.shared.informer.subscribe();
        let mut pause = TELL_AFTER;
        let mut tell_at = Instant::now() + pause;
        loop {
            let end = self.end(&states.borrow_and_update());
            if let Some(last) = end {
                while let Ok(event) = self.following.events.try_recv() {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
                // A client that is gone does not need its end.
                drop(sender.send(last).await);
                return;
            }
            tokio::select! {
                event = self.following.events.recv() => match event {
                    Ok(event) => if sender.send(event).await.is_err() { return },
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                changed = states.changed() => if changed.is_err() { return },
                _ = pictures.changed() => {}
                () = sleep_until(self.look_at.unwrap_or(tell_at)), if self.look_at.is_some() => {}
                () = sleep_until(tell_at) => {
                    let pending = self.pending(&states.borrow());
                    if !pending.is_empty() && sender.send(note(&pending)).await.is_err() {
                        return;
                    }
                    pause *= 2;
                    tell_at = Instant::now() + pause;
                }
                () = sender.closed() => return,
            }
        }
    }

    /// Returns the last event if the loop has come to an end of what the client asked for.
    fn end(&mut self, state: &ProjectState) -> Option<Progress> {
        self.look_at = None;
        let now = self.following.handle.record.borrow().clone();
        if state.gone {
            return Some(Progress::Done { revision: 0 });
        }
        // Another record for the same wish is no change: somebody asked for the same at the same time.
        if let (Some(now), Some(wanted)) = (&now, &self.following.wanted)
            && !Arc::ptr_eq(now, wanted)
            && !self.is_same(now, wanted)
        {
            let who = now.history.last_by().filter(|by| !by.is_empty() && now.history != wanted.history);
            let who = who.map_or_else(|| "somebody else".to_owned(), |by| format!("`{by}`"));
            let message = format!("{who} changed `{}` meanwhile", self.following.handle.name);
            return Some(Progress::Failed { messages: vec![message] });
        }
        let is_of_now = now.zip(state.record.as_ref()).is_some_and(|(now, seen)| Arc::ptr_eq(&now, seen));
        if !is_of_now {
            return None;
        }
        let record = self.following.wanted.clone()?;
        let plan = state.plan.as_ref()?;
        if let (Some(pods), Some(desired)) = (self.about.clone(), &record.desired)
            && let ended @ Some(_) = self.pods_end(desired, state, plan, &pods)
        {
            // What is wrong elsewhere was so before.
            return ended;
        }
        if !state.settled
            && !record.desired.as_ref().is_some_and(|desired| self.has_done_its_part(desired, state, plan))
        {
            return None;
        }
        let failures =
            plan.failures.iter().filter(|one| one.service.as_ref().is_none_or(|name| self.is_asked_for(name)));
        let mut messages: Vec<String> = failures.map(ToString::to_string).collect();
        let others = record.desired.as_ref().map(|desired| self.objects_of_others(desired)).unwrap_or_default();
        let errors = state.errors.iter().filter(|(object, _)| !others.contains(*object));
        messages.extend(by_message(errors));
        if !messages.is_empty() {
            return Some(Progress::Failed { messages });
        }
        match record.aim {
            Aim::Down(_) => None,
            Aim::Stopped(_) => Some(Progress::Done { revision: 0 }),
            Aim::Up => self.up_end(record.desired.as_ref()?, state),
        }
    }

    /// Returns whether a service was asked for, or is depended on by one that was.
    fn is_asked_for(&self, service: &ServiceName) -> bool {
        self.of.as_ref().is_none_or(|services| services.contains(service))
    }

    /// Returns the objects of pods of services that nobody asked for now.
    fn objects_of_others(&self, desired: &Desired) -> BTreeSet<String> {
        let others: BTreeSet<PodId> =
            desired.assignments.pods.keys().filter(|pod| !self.is_asked_for(&pod.service)).cloned().collect();
        if others.is_empty() {
            return BTreeSet::new();
        }
        asking::objects(desired, &self.shared.observed(Some(&desired.graph.project)), &others)
    }

    /// Returns what keeps it from being as asked, for the reader.
    fn pending(&self, state: &ProjectState) -> Vec<String> {
        let Some(record) = self.following.wanted.as_ref() else { return Vec::new() };
        let Some(desired) = record.desired.as_ref().filter(|_| record.aim == Aim::Up) else { return Vec::new() };
        let observed = self.shared.observed(Some(&desired.graph.project));
        let pods = status::pods(Some(desired), &observed, state);
        let now = self.shared.clock.now();
        let mut pending: Vec<String> = pods.iter().filter_map(|pod| unfinished(desired, pod, now)).collect();
        let steps = state.plan.as_ref().map(|plan| plan.steps.as_slice()).unwrap_or_default();
        for step in steps.iter().filter_map(|step| step.waits_for(desired, &observed)) {
            if !pending.iter().any(|one| shares_container(one, &step)) {
                pending.push(step);
            }
        }
        let watched = state.plan.iter().flat_map(|plan| &plan.watched);
        pending.extend(watched.map(|pod| format!("`{pod}` was replaced, and is watched until `monitor` is over")));
        if self.wait {
            let unready = pods.iter().filter(|pod| pod.wanted && !pod.ready && pod.state.is_some());
            let reasons = unready.filter_map(|pod| Some((format!("container {}", pod.name), pod.reason.as_ref()?)));
            pending.extend(by_message(reasons));
            let failures = self.failures(desired, state);
            for pod in pods.iter().filter(|pod| pod.wanted && is_unchecked(pod)) {
                let count = failures.get(&pod.pod).copied().unwrap_or(0);
                let again = steady_again(forgiven_after(&desired.graph, &pod.pod)).as_secs_f64();
                if count > 0 {
                    pending.push(format!(
                        "container {} has failed {count} times in a row, and has no health check: it must run for {again} s",
                        pod.name
                    ));
                }
            }
        }
        pending
    }

    /// Returns the last event if what was asked of some pods is done, or failed.
    fn pods_end(
        &mut self,
        desired: &Desired,
        state: &ProjectState,
        plan: &Plan,
        pods: &BTreeSet<PodId>,
    ) -> Option<Progress> {
        let observed = self.shared.observed(Some(&desired.graph.project));
        let objects = asking::objects(desired, &observed, pods);
        let wrong = state.errors.iter().filter(|(object, _)| objects.contains(*object) || *object == STORE_OBJECT);
        let messages: Vec<String> = wrong.map(|(object, message)| format!("{object}: {message}")).collect();
        if !messages.is_empty() {
            return Some(Progress::Failed { messages });
        }
        if is_under_way(state, plan, pods, &objects) { None } else { self.up_end(desired, state) }
    }

    /// Returns whether nothing is left to do for the services that were asked for, whatever is for others.
    fn has_done_its_part(&self, desired: &Desired, state: &ProjectState, plan: &Plan) -> bool {
        let Some(services) = &self.of else { return false };
        let pods = desired.assignments.pods.keys().filter(|pod| services.contains(&pod.service)).cloned().collect();
        let objects = asking::objects(desired, &self.shared.observed(Some(&desired.graph.project)), &pods);
        !is_under_way(state, plan, &pods, &objects) && !plan.watched.iter().any(|pod| pods.contains(pod))
    }

    /// Returns whether a record asks for the same as the one that is followed, as far as that matters here.
    fn is_same(&self, now: &Record, wanted: &Record) -> bool {
        let Some(pods) = &self.about else { return now.is_same_wish(wanted) };
        let asked = |record: &Record| -> Option<Vec<Option<Asked>>> {
            let asked = &record.desired.as_ref()?.asked;
            Some(pods.iter().map(|pod| asked.get(pod).cloned()).collect())
        };
        now.aim == wanted.aim && asked(now) == asked(wanted)
    }

    fn up_end(&mut self, desired: &Desired, state: &ProjectState) -> Option<Progress> {
        let done = Progress::Done { revision: desired.revision };
        if !self.wait {
            return Some(done);
        }
        let observed = self.shared.observed(Some(&desired.graph.project));
        let pods = status::pods(Some(desired), &observed, state);
        let unsteady = self.unsteady(desired, &pods, state);
        let mut messages = Vec::new();
        let awaited = |pod: &PodId| {
            desired.enabled.contains(&pod.service)
                && !desired.unstarted.contains(pod)
                && !desired.rests(pod)
                && self.about.as_ref().is_none_or(|about| about.contains(pod))
                && self.is_asked_for(&pod.service)
        };
        for pod in pods.iter().filter(|pod| pod.wanted && awaited(&pod.pod)) {
            match pod.state {
                _ if has_ended_with_main(pod, &pods) => {}
                _ if unsteady.contains(&pod.pod) => return None,
                _ if pod.ready => {}
                // What it was run for goes on without its container.
                None if pod.part.as_ref().is_some_and(|part| part.role == Role::PreStart) => {}
                Some(ContainerState::Exited { code: 0, by_itself: true }) => {}
                Some(ContainerState::Exited { code, by_itself: true }) if is_job(desired, &pod.pod) => {
                    messages.push(format!("container {} exited ({code})", pod.name));
                }
                Some(ContainerState::Running { health: Health::Unhealthy }) => {
                    messages.push(format!("container {} is unhealthy", pod.name));
                }
                _ => match &pod.reason {
                    Some(reason) if reason.contains("in a row") => messages.push(format!("{}: {reason}", pod.name)),
                    _ => return None,
                },
            }
        }
        if messages.is_empty() { Some(done) } else { Some(Progress::Failed { messages }) }
    }

    /// Returns how often pods have failed in a row, as their own hosts' agents say.
    fn failures(&self, desired: &Desired, state: &ProjectState) -> BTreeMap<PodId, u32> {
        let mut failures: BTreeMap<PodId, u32> = BTreeMap::new();
        let elsewhere = self.shared.peers.memory(&desired.graph.project);
        let told = elsewhere.values().flatten();
        for (pod, memory) in state.report.memory.iter().chain(told) {
            let most = failures.entry(pod.clone()).or_default();
            *most = memory.failures.max(*most);
        }
        failures
    }

    /// Returns which pods run, are asked by nobody for their health, and have not run for long enough to be taken at that;
    /// notes when to look again.
    fn unsteady(&mut self, desired: &Desired, pods: &[PodStatus], state: &ProjectState) -> BTreeSet<PodId> {
        let failures = self.failures(desired, state);
        let (now, wall) = (Instant::now(), self.shared.clock.now());
        let mut unsteady = BTreeSet::new();
        for pod in pods {
            if !is_unchecked(pod) {
                self.runs.remove(&pod.pod);
                continue;
            }
            let run = format!("{} {}", pod.container.as_deref().unwrap_or_default(), pod.started_at);
            let known = self.runs.entry(pod.pod.clone()).or_insert_with(|| (run.clone(), now));
            if known.0 != run {
                *known = (run, now);
            }
            let seen = now.duration_since(known.1);
            // What runs for long already need not be looked at any longer. Of what runs elsewhere the times are another clock's.
            let is_here = desired.assignments.pods.get(&pod.pod) == Some(self.shared.host());
            let age = if is_here { age(pod, wall) } else { Duration::ZERO };
            let left = if failures.get(&pod.pod).is_none_or(|count| *count == 0) {
                STEADY.saturating_sub(seen.max(age))
            } else {
                steady_again(forgiven_after(&desired.graph, &pod.pod)).saturating_sub(seen)
            };
            if !left.is_zero() {
                unsteady.insert(pod.pod.clone());
                self.look_at = Some(self.look_at.map_or(now + left, |at| at.min(now + left)));
            }
        }
        unsteady
    }
}

/// Returns whether a container runs and nobody asks for its health.
fn is_unchecked(pod: &PodStatus) -> bool {
    matches!(pod.state, Some(ContainerState::Running { health: Health::None }))
}

/// Returns whether something is still done, or to be done, for these pods and objects.
fn is_under_way(state: &ProjectState, plan: &Plan, pods: &BTreeSet<PodId>, objects: &BTreeSet<String>) -> bool {
    let is_open = |planned: &PlannedStep| {
        planned.step.pod().is_some_and(|pod| pods.contains(pod))
            || objects.contains(&execute::object(&planned.step, None))
    };
    // The engine shows what a step did before the step has ended and was told.
    let busy = !state.others_idle || state.busy.iter().any(|object| objects.contains(object));
    !state.heard || busy || plan.steps.iter().any(is_open)
}

/// Returns for how long a container of this host has run: nothing where that makes no sense, as of one whose clock was set.
fn age(pod: &PodStatus, now: Duration) -> Duration {
    let started = pod.started_at.parse::<jiff::Timestamp>().ok();
    let started = started.and_then(|at| u64::try_from(at.as_millisecond()).ok()).map(Duration::from_millis);
    started.and_then(|started| now.checked_sub(started)).unwrap_or_default()
}

/// Says of a container that others wait for to end that it runs, and since when.
fn unfinished(desired: &Desired, pod: &PodStatus, now: Duration) -> Option<String> {
    let prepares = pod.part.as_ref().is_some_and(|part| part.role.prepares());
    let is_awaited = prepares || desired.graph.is_awaited_job(&pod.pod.service);
    if !is_awaited || !matches!(pod.state, Some(ContainerState::Running { .. })) {
        return None;
    }
    let started: jiff::Timestamp = pod.started_at.parse().ok()?;
    let secs = i64::try_from(now.as_secs()).ok()? - started.as_second();
    Some(format!("container {} has not ended, and has run for {secs} s", pod.name))
}

/// Says what is wrong with things; of those with which the same is, it is said once.
fn by_message<'a>(told: impl Iterator<Item = (impl fmt::Display, &'a String)>) -> Vec<String> {
    let mut messages: IndexMap<&String, Vec<String>> = IndexMap::new();
    for (what, message) in told {
        messages.entry(message).or_default().push(what.to_string());
    }
    messages.into_iter().map(|(message, of)| format!("{}: {message}", of.join(", "))).collect()
}

/// Returns whether two sentences are about the same container.
fn shares_container(one: &str, other: &str) -> bool {
    let name =
        |text: &str| text.split_once("container ").and_then(|(_, rest)| rest.split(' ').next().map(str::to_owned));
    name(one).is_some_and(|first| name(other) == Some(first))
}

fn note(pending: &[String]) -> Progress {
    let mut message = format!("still waiting: {}", pending[..pending.len().min(TOLD)].join("; "));
    if pending.len() > TOLD {
        message.push_str("; and more");
    }
    Progress::Note { message, is_warning: false }
}

/// Returns whether a container helps one that has ended by itself, and ended for that reason.
pub(super) fn has_ended_with_main(helper: &PodStatus, pods: &[PodStatus]) -> bool {
    let helps = |part: &&Part| !matches!(part.role, Role::Main | Role::PreStart);
    let Some(part) = helper.part.as_ref().filter(helps) else { return false };
    let is_main = |pod: &&PodStatus| pod.pod.service == part.of && pod.pod.number == helper.pod.number;
    let main = pods.iter().find(is_main).and_then(|main| main.state);
    matches!(main, Some(ContainerState::Exited { by_itself: true, .. }))
}

fn is_job(desired: &Desired, pod: &PodId) -> bool {
    let service = desired.graph.services.get(&pod.service);
    service.is_some_and(|service| matches!(service.restart, Restart::No)) || desired.graph.is_awaited_job(&pod.service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_several_is_told_once() {
        let (taken, other) = ("its port is taken".to_owned(), "no such image".to_owned());
        let told = [("Container a", &taken), ("Container b", &other), ("Container c", &taken)];
        assert_eq!(
            by_message(told.into_iter()),
            ["Container a, Container c: its port is taken", "Container b: no such image"]
        );
    }

    #[test]
    fn what_is_waited_for_is_told_once_and_not_at_any_length() {
        let one = "container shop-web-1-setup has not ended, and has run for 30 s";
        assert!(shares_container(one, "container shop-web-1-setup has not ended yet"));
        assert!(!shares_container(one, "container shop-web-1 is not started yet"));
        assert!(!shares_container("`web.2` is not ready", "`web.3` is not ready"));
        let Progress::Note { message, .. } = note(&vec![one.to_owned(); 9]) else { panic!("a note") };
        assert!(message.starts_with("still waiting: container shop") && message.ends_with("; and more"), "{message}");
    }
}
