//! One-offs of services whose pods have several containers: holder, ambassadors, what prepares the pod and its sidecars
//! come before the container that `run` is about, and go after it.
//!
//! Sidecars that end while their main container runs are started again, with pauses that grow, whatever the code: they help
//! as long as there is something to help. Source: Kubernetes' KEP-753.
//!
//! Nothing is written down here either. All containers of such a pod have the same digits (`slug`) on a label; what is
//! left of one whose main container has ended or is gone is stopped or removed, whoever made it and whatever became of
//! him. Only while it is being made, and until whoever asked for it has had time to start it, is it left alone although
//! its main container does not run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::types::{BeginOneoff, EndOneoff, ObjectState, Progress};
use crate::engine::EngineError;
use crate::graph::{Condition, Graph, Role};
use crate::ids::{ProjectName, ServiceName};
use crate::observed::{ContainerState, Health, ObservedContainer, ObservedHost};

use super::super::dataplane::CHECK;
use super::super::execute::{self, text};
use super::super::hooks;
use super::super::memory;
use super::super::shared::Shared;
use super::record;

/// How long one may be made and not started: after that nobody comes who will.
const UNSTARTED: Duration = Duration::from_mins(1);

/// Grace of a helper that the project does not know any more.
const GRACE: Duration = Duration::from_secs(10);

/// The one-offs that are left alone although their main container does not run, by their digits.
#[derive(Debug, Default)]
pub(in crate::agent) struct Unstarted {
    alone: Mutex<Alone>,
    changed: Notify,
}

/// Which one-offs are left alone at one time.
#[derive(Debug, Clone, Default)]
struct Alone {
    /// Until when; `None`: as long as somebody works at it.
    until: BTreeMap<String, Option<Instant>>,
    /// How often somebody has begun or ended to work at one.
    changes: u64,
}

impl Unstarted {
    /// Leaves one alone while the result lives, and for a while after that.
    pub(super) fn hold<'a>(&'a self, slug: &'a str) -> Held<'a> {
        self.change(|until| until.insert(slug.to_owned(), None));
        Held { all: self, slug }
    }

    pub(super) fn release(&self, slug: &str) {
        self.change(|until| until.remove(slug));
        self.changed.notify_one();
    }

    /// Returns a picture, and which are left alone in it: nobody began or ended to work at one while it was taken. A picture
    /// from before the last container was made, beside a list from after that, would show a pod whose main container is gone.
    fn beside<T>(&self, picture: impl Fn() -> T) -> (T, Alone) {
        loop {
            let before = self.lock().changes;
            let seen = picture();
            let alone = self.lock().clone();
            if alone.changes == before {
                return (seen, alone);
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Option<Instant>>) -> T) {
        let mut alone = self.lock();
        let now = Instant::now();
        alone.until.retain(|_, until| until.is_none_or(|until| until > now));
        change(&mut alone.until);
        alone.changes += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Alone> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alone {
    /// Returns whether one is still made at `now`, or its main container may still be started.
    fn has(&self, slug: &str, main: Option<ContainerState>, now: Instant) -> bool {
        let until = self.until.get(slug).filter(|until| until.is_none_or(|until| until > now));
        until.is_some_and(|until| until.is_none() || main == Some(ContainerState::Created))
    }
}

/// Somebody works at a one-off.
pub(super) struct Held<'a> {
    all: &'a Unstarted,
    slug: &'a str,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.change(|until| until.insert(self.slug.to_owned(), Some(Instant::now() + UNSTARTED)));
    }
}

/// Returns the parts of a pod in the order in which they start: the holder first, `main` last.
pub(super) fn in_order<'a>(graph: &'a Graph, main: &'a ServiceName) -> Vec<&'a ServiceName> {
    let parts: BTreeSet<&ServiceName> = graph.parts(main).map(|(part, _)| part).collect();
    let mut order = vec![main];
    let mut at = main;
    while let Some(service) = graph.services.get(at)
        && let Some(before) = service.depends_on.iter().map(|one| &one.service).find(|name| parts.contains(name))
        && !order.contains(&before)
    {
        order.push(before);
        at = before;
    }
    order.reverse();
    order
}

/// Starts all of a pod but its main container, each part once the one before is as it shall be. Ends with the client:
/// then all of it goes.
pub(in crate::agent) async fn begin(
    shared: Arc<Shared>,
    project: ProjectName,
    request: BeginOneoff,
    sender: mpsc::Sender<Progress>,
) {
    // Whoever asked looks at what has failed before it goes.
    let held = shared.oneoffs.hold(&request.slug);
    let begun = tokio::select! {
        begun = begun(&shared, &project, &request, &sender) => begun,
        () = sender.closed() => {
            drop(held);
            let end = EndOneoff { slug: request.slug.clone(), remove: true };
            if let Err(message) = over(&shared, &project, &end).await {
                tracing::warn!(%project, message, "a one-off that nobody waits for is still here");
            }
            return;
        }
    };
    drop(held);
    let last = match begun {
        Ok(()) => Progress::Done { revision: 0 },
        Err(message) => Progress::Failed { messages: vec![message] },
    };
    // A client that is gone does not need it.
    sender.send(last).await.ok();
}

async fn begun(
    shared: &Shared,
    project: &ProjectName,
    request: &BeginOneoff,
    sender: &mpsc::Sender<Progress>,
) -> Result<(), String> {
    let graph = &request.graph;
    let order = in_order(graph, &request.service);
    for (part, next) in order.iter().zip(order.iter().skip(1)) {
        let (Some(service), Some(next)) = (graph.services.get(*part), graph.services.get(*next)) else { continue };
        let seen = of_slug(&here(shared, project), &request.slug);
        let container = seen.into_iter().find(|one| one.service.as_ref() == Some(*part));
        let container = container.ok_or_else(|| format!("a container of `{part}` was made and is gone"))?;
        let tell = async |status: &str, state| {
            let event = Progress::Object {
                kind: "Container".to_owned(),
                name: container.name.clone(),
                host: shared.host().clone(),
                status: status.to_owned(),
                state,
                detail: None,
            };
            // A client that is gone does not need it.
            sender.send(event).await.ok();
        };
        tell("Starting", ObjectState::Working).await;
        let started = shared.engine.start_container(&container.id).await.map_err(text)?;
        shared.informer.put(started.clone());
        if started.part().is_some_and(|part| part.role == Role::Holder) {
            // What starts in the pod finds names, and what listens for it there.
            shared.dataplane.refresh_tables(shared);
            shared.ambassadors.ensure_oneoff(shared, &started).await?;
        }
        hooks::after_start(shared, &started, service).await?;
        let condition = next.depends_on.iter().find(|one| one.service == **part).map(|one| one.condition);
        let told = match condition {
            None | Some(Condition::ServiceStarted) => "Started",
            Some(condition) => {
                tell("Waiting", ObjectState::Working).await;
                wait(shared, project, &started, condition).await?;
                if condition == Condition::ServiceHealthy { "Healthy" } else { "Exited" }
            }
        };
        tell(told, ObjectState::Done).await;
    }
    Ok(())
}

/// Waits until a container is as what comes after it demands.
async fn wait(
    shared: &Shared,
    project: &ProjectName,
    started: &ObservedContainer,
    condition: Condition,
) -> Result<(), String> {
    let name = &started.name;
    let mut pictures = shared.informer.subscribe();
    loop {
        pictures.mark_unchanged();
        let host = here(shared, project);
        let container = host.containers.get(&started.id).ok_or_else(|| format!("container {name} was removed"))?;
        match container.state {
            ContainerState::Exited { code: 0, .. } if condition == Condition::ServiceCompletedSuccessfully => {
                return Ok(());
            }
            ContainerState::Exited { code, .. } if condition == Condition::ServiceCompletedSuccessfully => {
                return Err(format!("container {name} failed: it prepares its pod, and ended with {code}"));
            }
            ContainerState::Exited { code, .. } => {
                return Err(format!("container {name} failed: it ended with {code} before it was healthy"));
            }
            ContainerState::Running { health: Health::Unhealthy } if condition == Condition::ServiceHealthy => {
                return Err(format!("container {name} is unhealthy"));
            }
            _ if condition == Condition::ServiceHealthy && container.is_ready() => return Ok(()),
            _ => {}
        }
        pictures.changed().await.map_err(|_| "the agent ends".to_owned())?;
    }
}

/// Lets go of a pod, and waits until what is left of it is as it shall be. Ends when nobody listens.
pub(in crate::agent) async fn end(
    shared: Arc<Shared>,
    project: ProjectName,
    request: EndOneoff,
    sender: mpsc::Sender<Progress>,
) {
    let over = tokio::select! {
        over = over(&shared, &project, &request) => over,
        () = sender.closed() => return,
    };
    let last = match over {
        Ok(()) => Progress::Done { revision: 0 },
        Err(message) => Progress::Failed { messages: vec![message] },
    };
    // A client that is gone does not need it.
    sender.send(last).await.ok();
}

async fn over(shared: &Shared, project: &ProjectName, request: &EndOneoff) -> Result<(), String> {
    let EndOneoff { slug, remove } = request;
    let mut pictures = shared.informer.subscribe();
    for container in of_slug(&here(shared, project), slug) {
        shared.informer.refresh(&container.id).await.map_err(text)?;
    }
    let main = of_slug(&here(shared, project), slug).into_iter().find(|one| !one.helps_oneoff());
    if let Some(main) = main.filter(|main| *remove && !main.state.is_active()) {
        shared.engine.remove_container(&main.id, true).await.map_err(text)?;
        shared.informer.remove(&main.id);
    }
    shared.oneoffs.release(slug);
    loop {
        pictures.mark_unchanged();
        if left(&here(shared, project), |other, _| other != slug).is_empty() {
            return Ok(());
        }
        pictures.changed().await.map_err(|_| "the agent ends".to_owned())?;
    }
}

/// What is on this host of a project.
fn here(shared: &Shared, project: &ProjectName) -> ObservedHost {
    shared.observed(Some(project)).hosts.remove(shared.host()).unwrap_or_default()
}

fn of_slug(host: &ObservedHost, slug: &str) -> Vec<ObservedContainer> {
    host.containers.values().filter(|one| one.slug() == Some(slug)).cloned().collect()
}

/// What is left of a one-off's pod and is not needed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    slug: String,
    /// To be stopped, in this order.
    stop: Vec<ObservedContainer>,
    /// To be removed after that, in this order.
    remove: Vec<ObservedContainer>,
}

/// Returns what is left of pods of several containers whose main container does not run: where it has ended they are
/// stopped and kept beside it, where it is gone or never ran they go.
fn left(host: &ObservedHost, is_left_alone: impl Fn(&str, Option<ContainerState>) -> bool) -> Vec<Left> {
    let mut pods: BTreeMap<&str, Vec<&ObservedContainer>> = BTreeMap::new();
    for container in host.containers.values().filter(|one| one.part().is_some()) {
        if let Some(slug) = container.slug() {
            pods.entry(slug).or_default().push(container);
        }
    }
    let mut left = Vec::new();
    for (slug, mut members) in pods {
        let role = |one: &ObservedContainer| one.part().map_or(Role::Main, |part| part.role);
        // Main and sidecars before what they live in, what was started last first.
        let rank = |one: &ObservedContainer| (role(one) == Role::Holder, role(one) != Role::Main);
        members.sort_by(|a, b| (rank(a), &b.started_at).cmp(&(rank(b), &a.started_at)));
        let main = members.iter().find(|one| role(one) == Role::Main).map(|main| main.state);
        let is_at_work = main.is_some_and(|state| state.is_active() || state == ContainerState::Removing);
        if is_at_work || is_left_alone(slug, main) || members.iter().all(|one| !one.helps_oneoff()) {
            continue;
        }
        let helpers = members.iter().filter(|one| role(one) != Role::Main && one.state.is_active());
        let stop: Vec<ObservedContainer> = helpers.map(|one| (*one).clone()).collect();
        let goes = main.is_none_or(|state| state == ContainerState::Created);
        let remove = if goes { members.into_iter().cloned().collect() } else { Vec::new() };
        if !stop.is_empty() || !remove.is_empty() {
            left.push(Left { slug: slug.to_owned(), stop, remove });
        }
    }
    left
}

/// Returns the sidecars that have ended although their main container runs.
fn ended(host: &ObservedHost) -> Vec<&ObservedContainer> {
    let is = |one: &ObservedContainer, role| one.part().is_some_and(|part| part.role == role);
    let main = host.containers.values().filter(|one| is(one, Role::Main) && one.state.is_active());
    let helped: BTreeSet<&str> = main.filter_map(ObservedContainer::slug).collect();
    let sidecars = host.containers.values().filter(|one| is(one, Role::Sidecar));
    let ended = sidecars.filter(|one| matches!(one.state, ContainerState::Exited { .. }));
    ended.filter(|one| one.slug().is_some_and(|slug| helped.contains(slug))).collect()
}

/// The ends of sidecars, by container, so that one that ends again and again is not started as fast as the engine can.
#[derive(Debug, Default)]
struct Ends(BTreeMap<String, End>);

#[derive(Debug)]
struct End {
    /// The start of the run that has ended.
    run: String,
    /// Ends in a row.
    count: u32,
    /// When the end was seen.
    seen: Instant,
}

impl Ends {
    /// Takes note of a sidecar's end as it shows at `now`. Returns when it may be started again.
    fn note(&mut self, sidecar: &ObservedContainer, now: Instant) -> Instant {
        let run = &sidecar.started_at;
        let end = self.0.entry(sidecar.id.clone()).or_insert_with(|| End { run: String::new(), count: 0, seen: now });
        if end.run != *run {
            let ran = now.saturating_duration_since(end.seen + memory::pause(end.count));
            let count = if ran >= memory::FORGIVEN_AFTER { 1 } else { end.count + 1 };
            *end = End { run: run.clone(), count, seen: now };
        }
        end.seen + memory::pause(end.count)
    }

    /// Forgets the containers that are gone.
    fn keep(&mut self, host: &ObservedHost) {
        self.0.retain(|id, _| host.containers.contains_key(id));
    }
}

/// Follows the picture of the engine until stopped, starts again what helps one-offs, and takes away what is left of pods.
/// Started by `wire` only.
pub(in crate::agent) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut pictures = shared.informer.subscribe();
    let mut check = tokio::time::interval(CHECK);
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut under_way: FuturesUnordered<BoxFuture<'_, String>> = FuturesUnordered::new();
    let mut busy: BTreeSet<String> = BTreeSet::new();
    let mut ends = Ends::default();
    loop {
        pictures.mark_unchanged();
        let (everything, alone) = shared.oneoffs.beside(|| shared.informer.everything());
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        if let Some(host) = everything.hosts.get(shared.host()) {
            for left in left(host, |slug, main| alone.has(slug, main, now)) {
                if busy.insert(left.slug.clone()) {
                    under_way.push(take_away(&shared, left).boxed());
                }
            }
            ends.keep(host);
            for sidecar in ended(host) {
                // What goes with its project is not held up.
                let is_up = sidecar.project.as_ref().is_some_and(|project| record(&shared, project).is_ok());
                let at = ends.note(sidecar, now);
                if at > now {
                    next = Some(next.map_or(at, |next| next.min(at)));
                } else if is_up && busy.insert(sidecar.id.clone()) {
                    under_way.push(start_again(&shared, sidecar.clone()).boxed());
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = pictures.changed() => if changed.is_err() { return },
            () = shared.oneoffs.changed.notified() => {}
            _ = check.tick() => {}
            () = tokio::time::sleep_until(next.unwrap_or(now + CHECK)) => {}
            Some(over) = under_way.next(), if !under_way.is_empty() => drop(busy.remove(&over)),
        }
    }
}

/// Returns the id of the sidecar, once it runs or is to be tried again.
async fn start_again(shared: &Shared, sidecar: ObservedContainer) -> String {
    if let Err(message) = started_again(shared, &sidecar).await {
        tracing::warn!(container = sidecar.name, message, "what helps a one-off was not started again");
        tokio::time::sleep(CHECK).await;
    }
    sidecar.id
}

async fn started_again(shared: &Shared, sidecar: &ObservedContainer) -> Result<(), String> {
    let started = match shared.engine.start_container(&sidecar.id).await {
        // The pod went meanwhile.
        Err(EngineError::NotFound { .. }) => return Ok(()),
        started => started.map_err(text)?,
    };
    shared.informer.put(started.clone());
    let record = started.project.as_ref().and_then(|project| record(shared, project).ok());
    let desired = record.as_ref().and_then(|record| record.desired.as_ref());
    match started.service.as_ref().and_then(|name| desired?.graph.services.get(name)) {
        Some(service) => hooks::after_start(shared, &started, service).await,
        None => Ok(()),
    }
}

/// Returns the digits of the pod, once it is done or is to be tried again.
async fn take_away(shared: &Shared, left: Left) -> String {
    if let Err(message) = taken_away(shared, &left).await {
        tracing::warn!(message, "what is left of a one-off is still here");
        tokio::time::sleep(CHECK).await;
    }
    left.slug
}

async fn taken_away(shared: &Shared, left: &Left) -> Result<(), String> {
    for container in &left.stop {
        let Some(project) = &container.project else { continue };
        let (_keep, graces) = watch::channel(grace(shared, project, container));
        let grace = *graces.borrow();
        shared.informer.expect_end(&container.id);
        hooks::pre_stop(shared, project, &container.id, graces).await;
        shared.engine.stop_container(&container.id, grace).await.map_err(text)?;
        shared.informer.refresh(&container.id).await.map_err(text)?;
    }
    for container in &left.remove {
        shared.engine.remove_container(&container.id, true).await.map_err(text)?;
        shared.informer.remove(&container.id);
        execute::remove_pod_volumes(shared, container).await?;
    }
    Ok(())
}

fn grace(shared: &Shared, project: &ProjectName, container: &ObservedContainer) -> Duration {
    let record = shared.project(project).and_then(|handle| handle.record.borrow().clone());
    let desired = record.as_ref().and_then(|record| record.desired.as_ref());
    let service = container.service.as_ref().and_then(|name| desired?.graph.services.get(name));
    service.map_or(GRACE, |service| service.stop_grace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::label;
    use crate::testing;

    /// A pod of a one-off: `main STATE`, where `-` means that it is not there.
    fn pod(main: Option<ContainerState>, sidecar: ContainerState) -> ObservedHost {
        let mut host = ObservedHost::default();
        let roles = [("web", "main", main), ("web.sync", "sidecar", Some(sidecar)), ("web.pod", "holder", Some(RUNS))];
        for (service, role, state) in roles {
            let Some(state) = state else { continue };
            let mut container = testing::container("shop", service, 1);
            (container.oneoff, container.number, container.state) = (true, None, state);
            let labels = [(label::SLUG, "0f"), (label::POD, "web"), (label::POD_ROLE, role)];
            container.labels.extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
            host.containers.insert(container.id.clone(), container);
        }
        host
    }

    const RUNS: ContainerState = ContainerState::Running { health: Health::None };
    const ENDED: ContainerState = ContainerState::Exited { code: 0, by_itself: true };

    #[track_caller]
    fn check(host: &ObservedHost, stop: &[&str], remove: &[&str]) {
        let names = |list: &[ObservedContainer]| -> Vec<String> {
            list.iter().map(|one| one.service.as_ref().expect("of one").to_string()).collect()
        };
        let left = left(host, |_, _| false);
        let shown = left.first().map(|left| (names(&left.stop), names(&left.remove))).unwrap_or_default();
        assert_eq!((shown.0.as_slice(), shown.1.as_slice()), (owned(stop).as_slice(), owned(remove).as_slice()));
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn helpers_end_with_what_they_help_and_go_with_it() {
        check(&pod(Some(RUNS), RUNS), &[], &[]);
        check(&pod(Some(RUNS), ENDED), &[], &[]);
        check(&pod(Some(ENDED), RUNS), &["web.sync", "web.pod"], &[]);
        check(&pod(Some(ContainerState::Removing), RUNS), &[], &[]);
        check(&pod(None, RUNS), &["web.sync", "web.pod"], &["web.sync", "web.pod"]);
        check(&pod(None, ENDED), &["web.pod"], &["web.sync", "web.pod"]);
        check(&pod(Some(ContainerState::Created), RUNS), &["web.sync", "web.pod"], &["web", "web.sync", "web.pod"]);
        assert_eq!(left(&pod(None, RUNS), |slug, _| slug == "0f"), [], "somebody is at it");
    }

    #[test]
    fn a_picture_of_a_pod_that_is_being_made_is_not_judged_by_what_counts_once_it_is_made() {
        let all = Unstarted::default();
        let work = std::cell::Cell::new(Some(all.hold("0f")));
        let (host, alone) = all.beside(|| {
            let main = if work.take().is_some() { None } else { Some(ContainerState::Created) };
            pod(main, ContainerState::Created)
        });
        assert_eq!(left(&host, |slug, main| alone.has(slug, main, Instant::now())), []);
        let later = Instant::now() + UNSTARTED;
        assert_eq!(left(&host, |slug, main| alone.has(slug, main, later)).len(), 1, "nobody has started it");
    }

    #[test]
    fn sidecars_that_end_are_started_again_while_they_help() {
        let names = |main, sidecar| -> Vec<String> {
            let host = pod(main, sidecar);
            ended(&host).iter().map(|one| one.service.as_ref().expect("of one").to_string()).collect()
        };
        let by_hand = ContainerState::Exited { code: 137, by_itself: false };
        for sidecar in [ENDED, by_hand] {
            assert_eq!(names(Some(RUNS), sidecar), ["web.sync"]);
            assert_eq!(names(Some(ContainerState::Paused), sidecar), ["web.sync"]);
        }
        for main in [Some(ENDED), Some(ContainerState::Created), Some(ContainerState::Removing), None] {
            assert_eq!(names(main, ENDED), [""; 0], "{main:?}");
        }
        for sidecar in [RUNS, ContainerState::Created, ContainerState::Removing] {
            assert_eq!(names(Some(RUNS), sidecar), [""; 0], "{sidecar:?}");
        }
    }

    #[test]
    fn pauses_grow_while_a_sidecar_ends_and_ends() {
        let (mut ends, mut now) = (Ends::default(), Instant::now());
        let mut sidecar = pod(Some(RUNS), ENDED).containers.into_values().next().expect("one");
        let mut end = |run: u32, after: Duration| {
            sidecar.started_at = run.to_string();
            now += after;
            let pause = ends.note(&sidecar, now) - now;
            assert_eq!(ends.note(&sidecar, now) - now, pause, "an end counts once");
            now += pause;
            pause
        };
        let short = Duration::from_millis(1);
        let pauses: Vec<_> = (0..5).map(|run| end(run, short).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800]);
        assert_eq!(end(5, memory::FORGIVEN_AFTER), Duration::ZERO);
        assert_eq!(end(6, short).as_millis(), 100);
    }
}
