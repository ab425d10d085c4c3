//! What has become of the containers that rollouts made on this host (`deploy.update_config`): since when each is ready, and
//! how it failed.
//!
//! Pure: time is an argument. It is the time on the wall, and what is known is kept in the store, so that an agent that starts
//! anew neither forgets a failure nor waits for a whole `delay` once more. A clock that is set makes one pause shorter or longer, by
//! no more than the pause.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Rollout};
use crate::ids::PodId;
use crate::observed::Rolled;
use crate::plan::{ContainerState, Desired, Health, ObservedContainer};

use super::memory::is_crash;

/// Tries in a row to make or start a container of which none came of, after which it counts as failed: an engine that is busy, or a name
/// that is not free yet, refuses once or twice. They are one and two seconds apart.
pub(super) const TRIES: u32 = 3;

/// What is known of one pod, as stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Generation of the desired state that the container was made for.
    generation: u64,
    /// The container. One that comes in its place in the same generation once it was ready heals, and is no part of the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    /// When it was first seen ready, or to have ended well, since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready_at: Option<Duration>,
    /// How it failed, for the reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// The last run that failed, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Run>,
    /// Whether it failed before an `up` asked for the same once more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    retried: bool,
    /// Whether it was about to be replaced in this generation: what was made before is not what is looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replaced: bool,
}

/// A run of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    container: String,
    started_at: String,
}

impl Run {
    fn of(container: &ObservedContainer) -> Self {
        Self { container: container.id.clone(), started_at: container.started_at.clone() }
    }
}

impl Seen {
    /// Nothing yet.
    fn new(generation: u64) -> Self {
        Self { generation, ..Self::default() }
    }

    fn is_ready_for(&self, time: Duration, now: Duration) -> bool {
        self.ready_at.is_some_and(|at| now.saturating_sub(at) >= time)
    }

    /// Returns what is still of matter after an `up` that asked for the same; `None`: its part of the rollout is over.
    fn carried(&self, rollout: &Rollout, generation: u64, now: Duration) -> Option<Self> {
        let before = Self { generation, replaced: false, ..self.clone() };
        if self.failure.is_some() {
            return Some(Self { failed: self.failed.clone(), retried: true, ..Self::new(generation) });
        }
        if self.is_ready_for(rollout.monitor, now) {
            // It has done well, if not for long.
            return (!self.is_ready_for(rollout.delay, now)).then_some(Self { retried: false, ..before });
        }
        Some(before)
    }

    /// Returns whether what a container does is still of matter.
    fn is_about(&self, container: &ObservedContainer) -> bool {
        let heals = self.ready_at.is_some() && self.container.as_ref().is_some_and(|id| *id != container.id);
        self.failure.is_none() && !heals
    }
}

/// What is known of a project's pods on this host.
#[derive(Debug, Default)]
pub struct Rollouts {
    pods: BTreeMap<PodId, Seen>,
    /// Those of which something else is known than what was stored last.
    changed: BTreeSet<PodId>,
}

/// What a container shows of how it does.
enum Sign {
    /// It serves, or has done its work.
    Good,
    /// It failed: how.
    Bad(String),
    /// Nothing yet.
    None,
}

impl Rollouts {
    /// Knows what was stored.
    pub fn new(stored: BTreeMap<PodId, Seen>) -> Self {
        Self { pods: stored, changed: BTreeSet::new() }
    }

    /// Takes note of a pod's container as seen at `now`.
    pub fn observe(&mut self, desired: &Desired, pod: &PodId, container: &ObservedContainer, now: Duration) {
        let Some((rollout, seen)) = self.of(desired, pod, now) else { return };
        if !is_made(desired, pod, &seen, container) {
            return;
        }
        let sign = sign(&desired.graph, pod, container);
        if !seen.is_about(container) {
            // Healing tries what has failed on. Which run was the last one must be known when somebody asks for it once more.
            if matches!(sign, Sign::Bad(_)) && seen.failure.is_some() {
                self.keep(pod, Seen { failed: Some(Run::of(container)), ..seen });
            }
            return;
        }
        let mut after = Seen { container: Some(container.id.clone()), ..seen };
        match sign {
            // The clock may have been set back.
            Sign::Good => {
                after.ready_at = Some(after.ready_at.map_or(now, |at| at.min(now)));
                after.failed = None;
            }
            // It has failed before, and is about to be tried again.
            Sign::Bad(_) if after.failed.as_ref() == Some(&Run::of(container)) => return,
            Sign::Bad(how) => {
                let since = after.ready_at;
                let ended = ended_at(container).filter(|at| *at <= now && since.is_none_or(|since| since <= *at));
                let ran = |since: Duration| ended.unwrap_or(now).saturating_sub(since);
                after.failure = since.is_none_or(|since| ran(since) <= rollout.monitor).then_some(how);
                after.failed = Some(Run::of(container)).filter(|_| after.failure.is_some());
            }
            Sign::None => {}
        }
        self.keep(pod, after);
    }

    /// Takes note that a pod is about to be replaced. Returns whether that was not known.
    pub fn replaces(&mut self, desired: &Desired, pod: &PodId) -> bool {
        let known = self.pods.get(pod).filter(|seen| seen.generation == desired.generation);
        if desired.graph.rollout(&pod.service).is_none() || known.is_some_and(|seen| seen.replaced) {
            return false;
        }
        self.keep(pod, Seen { replaced: true, ..Seen::new(desired.generation) });
        true
    }

    /// Takes note of how a pod failed on another host, which does not answer any more.
    pub fn inherit(&mut self, desired: &Desired, pod: &PodId, told: &Rolled) {
        let Some(rollout) = desired.graph.rollout(&pod.service) else { return };
        let own = self.pods.get(pod).filter(|seen| seen.generation >= told.generation);
        if own.is_none() && told.failure.is_some() {
            let seen = Seen { failure: told.failure.clone(), ..Seen::new(told.generation) };
            let now = if told.generation == desired.generation {
                Some(seen)
            } else {
                seen.carried(rollout, desired.generation, Duration::ZERO)
            };
            if let Some(seen) = now {
                self.keep(pod, seen);
            }
        }
    }

    /// Takes note that what a rollout wants of a pod could not be made or started so many times in a row. Returns whether that is
    /// borne for now.
    pub fn failed(
        &mut self,
        desired: &Desired,
        pod: &PodId,
        (name, message): (&str, &str),
        times: u32,
        now: Duration,
    ) -> bool {
        let Some((_, seen)) = self.of(desired, pod, now) else { return false };
        if seen.failure.is_some() || seen.ready_at.is_some() {
            return false;
        }
        if times < TRIES {
            return true;
        }
        let failure = Some(format!("container {name} could not be started: {message}"));
        self.keep(pod, Seen { failure, ..seen });
        false
    }

    /// Takes note that what is run in a pod's container after its start (`post_start`) failed.
    pub fn hook_failed(
        &mut self,
        desired: &Desired,
        pod: &PodId,
        container: &ObservedContainer,
        (message, now): (&str, Duration),
    ) {
        let Some((_, seen)) = self.of(desired, pod, now) else { return };
        if seen.is_about(container) && is_made(desired, pod, &seen, container) {
            let (failed, failure) = (Some(Run::of(container)), Some(message.to_owned()));
            self.keep(pod, Seen { container: Some(container.id.clone()), failure, failed, ..seen });
        }
    }

    /// Returns what planning needs to know of a pod at `now`.
    pub fn view(&self, desired: &Desired, pod: &PodId, now: Duration) -> Option<Rolled> {
        let (rollout, seen) = self.of(desired, pod, now)?;
        Some(Rolled {
            generation: seen.generation,
            rested: seen.is_ready_for(rollout.delay, now),
            watched: seen.is_ready_for(rollout.monitor, now),
            retried: seen.retried,
            failure: seen.failure,
        })
    }

    /// Returns the time from `now` until planning needs to know something else.
    pub fn next(&self, desired: &Desired, now: Duration) -> Option<Duration> {
        let of_now = self.pods.iter().filter(|(_, seen)| seen.generation == desired.generation);
        let times = of_now.filter_map(|(pod, seen)| {
            let (rollout, ready_at) = (desired.graph.rollout(&pod.service)?, seen.ready_at?);
            let ends = [rollout.delay, rollout.monitor].map(|time| ready_at.saturating_add(time));
            ends.into_iter().filter(|end| *end > now).min()
        });
        times.min().map(|end| end.saturating_sub(now))
    }

    /// Returns what is to be stored, which counts as stored from then on.
    pub fn take_changes(&mut self) -> BTreeMap<PodId, Seen> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|pod| Some((pod.clone(), self.pods.get(&pod)?.clone()))).collect()
    }

    /// Is told that these could not be stored after all.
    pub fn put_back(&mut self, changes: impl IntoIterator<Item = PodId>) {
        self.changed.extend(changes);
    }

    /// Returns what is known of a pod's part of the rollout that goes on now; `None`: it has none.
    fn of<'a>(&self, desired: &'a Desired, pod: &PodId, now: Duration) -> Option<(&'a Rollout, Seen)> {
        let rollout = desired.graph.rollout(&pod.service)?;
        let (since, generation) = (desired.rolling_since(&pod.service), desired.generation);
        let seen = match self.pods.get(pod) {
            Some(seen) if seen.generation == generation => Some(seen.clone()),
            Some(seen) if (since..generation).contains(&seen.generation) => seen.carried(rollout, generation, now),
            _ => None,
        };
        let is_rolled = || desired.rolled.contains(pod).then(|| Seen::new(generation));
        Some((rollout, seen.or_else(is_rolled)?))
    }

    fn keep(&mut self, pod: &PodId, seen: Seen) {
        if self.pods.get(pod) != Some(&seen) {
            self.changed.insert(pod.clone());
            self.pods.insert(pod.clone(), seen);
        }
    }
}

/// Returns whether a container was made by what is known of the rollout.
fn is_made(desired: &Desired, pod: &PodId, seen: &Seen, container: &ObservedContainer) -> bool {
    let of_this_up = seen.replaced || desired.rolled.contains(pod);
    let least = if of_this_up { desired.generation } else { desired.rolling_since(&pod.service) };
    container.generation.is_some_and(|made| made >= least)
}

fn sign(graph: &Graph, pod: &PodId, container: &ObservedContainer) -> Sign {
    let name = &container.name;
    match container.state {
        _ if container.is_ready() => Sign::Good,
        ContainerState::Exited { code, by_itself: true } if code != 0 || is_crash(graph, pod, code) => {
            Sign::Bad(format!("container {name} ended with {code}"))
        }
        ContainerState::Exited { by_itself: true, .. } => Sign::Good,
        ContainerState::Running { health: Health::Unhealthy } => Sign::Bad(format!("container {name} is unhealthy")),
        _ => Sign::None,
    }
}

/// When a container ended, since 1970, by the clock of its own host.
fn ended_at(container: &ObservedContainer) -> Option<Duration> {
    let at: Timestamp = container.finished_at.parse().ok()?;
    Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::OnFailure;
    use crate::ids::ServiceName;
    use crate::testing;

    fn at(seconds: u64) -> Duration {
        Duration::from_hours(500_000) + Duration::from_secs(seconds)
    }

    fn pod() -> PodId {
        PodId::new(ServiceName::new("web").expect("valid"), 1)
    }

    /// The second `up`, by which `web.1` is replaced.
    fn desired() -> Desired {
        let mut graph = testing::graph("shop", &["web"]);
        let rollout = Rollout {
            parallelism: 1,
            delay: Duration::from_secs(10),
            monitor: Duration::from_secs(5),
            on_failure: OnFailure::Pause,
            failures_borne: 0,
        };
        graph.services.get_mut("web").expect("it is there").rollout = Some(rollout);
        Desired { generation: 2, rolled: BTreeSet::from([pod()]), ..testing::desired(graph) }
    }

    fn made(state: ContainerState) -> ObservedContainer {
        ObservedContainer { generation: Some(2), state, ..testing::container("shop", "web", 1) }
    }

    fn ready() -> ObservedContainer {
        made(ContainerState::Running { health: Health::Healthy })
    }

    fn ended(code: i32, by_itself: bool) -> ObservedContainer {
        made(ContainerState::Exited { code, by_itself })
    }

    fn unhealthy() -> ObservedContainer {
        made(ContainerState::Running { health: Health::Unhealthy })
    }

    /// What is seen when, and what is known then: `rested`, `watched` and the failure, as far as there is any of it.
    #[track_caller]
    fn check(seen: &[(u64, ObservedContainer)], then: u64, expected: &str) {
        let mut rollouts = Rollouts::default();
        for (seconds, container) in seen {
            rollouts.observe(&desired(), &pod(), container, at(*seconds));
        }
        assert_eq!(told(&rollouts, then), expected);
        // The same is known after it was stored.
        let stored = serde_json::to_string(&rollouts.take_changes().remove(&pod())).expect("JSON");
        let stored: Option<Seen> = serde_json::from_str(&stored).expect("what was stored");
        let rollouts = Rollouts::new(stored.map(|seen| (pod(), seen)).into_iter().collect());
        assert_eq!(told(&rollouts, then), expected);
    }

    fn told(rollouts: &Rollouts, then: u64) -> String {
        let Some(rolled) = rollouts.view(&desired(), &pod(), at(then)) else { return "nothing".to_owned() };
        let words = [(rolled.rested, "rested"), (rolled.watched, "watched")];
        let words = words.iter().filter(|(is_so, _)| *is_so).map(|(_, word)| (*word).to_owned());
        words.chain(rolled.failure).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_is_ready_rests_and_is_watched_from_then_on() {
        check(&[], 0, "");
        check(&[(0, made(ContainerState::Running { health: Health::Starting }))], 60, "");
        check(&[(0, made(ContainerState::Running { health: Health::Starting })), (30, ready())], 34, "");
        check(&[(30, ready()), (33, ready())], 35, "watched");
        check(&[(30, ready())], 39, "watched");
        check(&[(30, ready())], 40, "rested, watched");
        // A clock that was set back holds nothing up for longer than the pause.
        check(&[(3600, ready()), (30, ready())], 40, "rested, watched");
    }

    #[test]
    fn an_end_or_bad_health_is_a_failure_before_it_is_ready_and_while_it_is_watched() {
        check(&[(0, ended(3, true))], 0, "container shop-web-1 ended with 3");
        check(&[(0, unhealthy())], 0, "container shop-web-1 is unhealthy");
        check(&[(0, ready()), (5, ended(3, true))], 5, "watched, container shop-web-1 ended with 3");
        check(&[(0, ready()), (4, unhealthy()), (5, ready())], 4, "container shop-web-1 is unhealthy");
        check(&[(0, ready()), (6, ended(3, true))], 6, "watched");
        check(&[(0, ready()), (6, unhealthy())], 60, "rested, watched");
        // Nobody was there to see it, but the engine says when it was.
        let mut early = ended(3, true);
        early.finished_at = Timestamp::try_from(std::time::SystemTime::UNIX_EPOCH + at(2)).expect("a time").to_string();
        check(&[(0, ready()), (60, early)], 60, "rested, watched, container shop-web-1 ended with 3");
    }

    #[test]
    fn an_end_by_hand_or_with_success_is_none() {
        check(&[(0, ended(137, false))], 60, "");
        check(&[(0, ended(0, true))], 60, "rested, watched");
    }

    #[test]
    fn what_heals_is_no_part_of_it() {
        let other = |container: ObservedContainer| ObservedContainer { id: "another".to_owned(), ..container };
        check(&[(0, ready()), (2, other(ended(3, true)))], 5, "watched");
        // What goes before it was ready is not: what comes in its place is what the rollout made.
        let starting = || made(ContainerState::Running { health: Health::Starting });
        check(&[(0, starting()), (2, other(starting())), (3, other(ready()))], 13, "rested, watched");
        check(&[(0, starting()), (2, other(ended(3, true)))], 5, "container shop-web-1 ended with 3");
        let old = |container: ObservedContainer| ObservedContainer { generation: Some(1), ..container };
        check(&[(0, old(ended(3, true)))], 5, "");
    }

    #[test]
    fn what_is_run_after_the_start_must_not_fail() {
        let mut rollouts = Rollouts::default();
        rollouts.observe(&desired(), &pod(), &ready(), at(0));
        let old = ObservedContainer { generation: Some(1), ..ready() };
        rollouts.hook_failed(&desired(), &pod(), &old, ("old hook exited with status 1", at(0)));
        let healed = ObservedContainer { id: "another".to_owned(), ..ready() };
        rollouts.hook_failed(&desired(), &pod(), &healed, ("hook of another exited with status 1", at(0)));
        assert_eq!(told(&rollouts, 0), "");
        rollouts.hook_failed(&desired(), &pod(), &ready(), ("web hook exited with status 1", at(0)));
        assert_eq!(told(&rollouts, 0), "web hook exited with status 1");
    }

    #[test]
    fn what_cannot_be_started_has_failed_after_some_tries() {
        let mut rollouts = Rollouts::default();
        let mut fails = |desired: &Desired, why, times| {
            let borne = rollouts.failed(desired, &pod(), ("shop-web-1", why), times, at(0));
            (borne, told(&rollouts, 0))
        };
        assert_eq!(fails(&desired(), "the name is taken", 1), (true, String::new()));
        assert_eq!(fails(&desired(), "the name is taken", 2), (true, String::new()));
        let failure = "container shop-web-1 could not be started: no such file".to_owned();
        assert_eq!(fails(&desired(), "no such file", 3), (false, failure.clone()));
        assert_eq!(fails(&desired(), "another one", 4), (false, failure));
        let mut rollouts = Rollouts::default();
        let none = Desired { rolled: BTreeSet::new(), ..desired() };
        assert!(!rollouts.failed(&none, &pod(), ("shop-web-1", "no such file"), 9, at(0)), "it is of no rollout");
        assert_eq!(rollouts.view(&none, &pod(), at(0)), None);
    }

    /// As many `up`s of the same later.
    fn again(ups: u64) -> Desired {
        let since = BTreeMap::from([(pod().service, 2)]);
        Desired { generation: 2 + ups, rolled: BTreeSet::new(), rolling_since: since, ..desired() }
    }

    fn told_of(rollouts: &Rollouts, desired: &Desired, then: u64) -> String {
        let Some(rolled) = rollouts.view(desired, &pod(), at(then)) else { return "nothing".to_owned() };
        assert_eq!(rolled.generation, desired.generation);
        let words = [(rolled.retried, "retried"), (rolled.rested, "rested"), (rolled.watched, "watched")];
        let words = words.iter().filter(|(is_so, _)| *is_so).map(|(_, word)| (*word).to_owned());
        words.chain(rolled.failure).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_has_failed_is_tried_again_by_the_next_up_of_the_same() {
        let run = |time: &str, state| ObservedContainer { started_at: time.to_owned(), ..made(state) };
        let bad = ContainerState::Exited { code: 3, by_itself: true };
        let good = ContainerState::Running { health: Health::None };
        let mut rollouts = Rollouts::default();
        rollouts.observe(&desired(), &pod(), &run("1", good), at(0));
        rollouts.observe(&desired(), &pod(), &run("1", bad), at(1));
        assert_eq!(told_of(&rollouts, &desired(), 1), "container shop-web-1 ended with 3");
        // It is tried on, and the last run that failed is none of the next `up`…
        rollouts.observe(&desired(), &pod(), &run("1b", bad), at(2));
        assert_eq!(told_of(&rollouts, &again(1), 9), "retried");
        rollouts.observe(&again(1), &pod(), &run("1b", bad), at(9));
        assert_eq!(told_of(&rollouts, &again(1), 9), "retried");
        // …and the one after it is, although its container was made for an earlier one.
        rollouts.observe(&again(1), &pod(), &run("2", good), at(10));
        assert_eq!(told_of(&rollouts, &again(1), 12), "retried");
        let mut lasting = Rollouts::new(rollouts.pods.clone());
        rollouts.observe(&again(1), &pod(), &run("2", bad), at(12));
        assert_eq!(told_of(&rollouts, &again(1), 12), "retried, container shop-web-1 ended with 3");
        assert_eq!(told_of(&rollouts, &again(2), 13), "retried");
        // Another one while it is still watched forgets nothing; after that it is as any other.
        assert_eq!(told_of(&lasting, &again(2), 14), "retried");
        assert_eq!(told_of(&lasting, &again(1), 15), "retried, watched");
        assert_eq!(told_of(&lasting, &again(2), 15), "watched");
        assert_eq!(told_of(&lasting, &again(2), 20), "nothing", "its part of the rollout is over");
        lasting.observe(&again(2), &pod(), &run("2", good), at(16));
        assert_eq!(told_of(&lasting, &again(2), 20), "rested, watched");
        // Something else that is wanted is another rollout.
        assert_eq!(told_of(&rollouts, &Desired { rolling_since: BTreeMap::new(), ..again(3) }, 13), "nothing");
    }

    #[test]
    fn what_is_replaced_for_its_image_begins_anew() {
        let mut rollouts = Rollouts::default();
        rollouts.observe(&desired(), &pod(), &ready(), at(0));
        let desired = again(1);
        assert!(rollouts.replaces(&desired, &pod()) && !rollouts.replaces(&desired, &pod()));
        rollouts.observe(&desired, &pod(), &ended(3, true), at(1));
        assert_eq!(told_of(&rollouts, &desired, 1), "", "that is the old one");
        let new = |state| ObservedContainer { id: "new".to_owned(), generation: Some(3), ..made(state) };
        rollouts.observe(&desired, &pod(), &new(ContainerState::Exited { code: 4, by_itself: true }), at(2));
        assert_eq!(told_of(&rollouts, &desired, 2), "container shop-web-1 ended with 4");
    }

    #[test]
    fn what_failed_on_a_host_that_is_lost_has_failed_where_it_comes_to() {
        let failed = |generation| Rolled {
            generation,
            failure: Some("container shop-web-1 ended with 3".to_owned()),
            ..Rolled::default()
        };
        let mut rollouts = Rollouts::default();
        rollouts.inherit(&again(1), &pod(), &failed(2));
        assert_eq!(told_of(&rollouts, &again(1), 0), "retried");
        rollouts.inherit(&again(1), &pod(), &failed(3));
        assert_eq!(told_of(&rollouts, &again(1), 0), "retried", "its own word is as new");
        let mut rollouts = Rollouts::default();
        rollouts.inherit(&again(1), &pod(), &failed(3));
        assert_eq!(told_of(&rollouts, &again(1), 0), "container shop-web-1 ended with 3");
    }

    #[test]
    fn one_is_told_when_to_look_again() {
        let mut rollouts = Rollouts::default();
        let next = |rollouts: &Rollouts, now| rollouts.next(&desired(), at(now)).map(|time| time.as_secs());
        assert_eq!(next(&rollouts, 0), None);
        rollouts.observe(&desired(), &pod(), &ready(), at(0));
        assert_eq!([0, 4, 5, 9, 10].map(|now| next(&rollouts, now)), [Some(5), Some(1), Some(5), Some(1), None]);
    }

    #[test]
    fn what_could_not_be_stored_is_stored_later() {
        let mut rollouts = Rollouts::default();
        rollouts.observe(&desired(), &pod(), &ready(), at(0));
        let changes = rollouts.take_changes();
        assert_eq!((changes.len(), rollouts.take_changes().len()), (1, 0));
        rollouts.put_back(changes.into_keys());
        assert_eq!(rollouts.take_changes().len(), 1);
    }
}
