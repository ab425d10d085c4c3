//! What the agent remembers of pods beyond what the engine shows: crashes in a row, and when the next start may be.
//!
//! Pure: time is an argument. Nothing here is stored; after the agent's own restart every pod starts with a clean slate,
//! which costs a crash-looping container one quick restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::graph::{Graph, Restart};
use crate::ids::PodId;
use crate::plan::{ContainerState, Health, ObservedContainer, PodMemory};

/// Longest pause between two starts of a pod that keeps failing.
///
/// Kubernetes waits up to five minutes; small teams watch, and a minute keeps a mended dependency's outage short.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Good running that makes earlier failures forgotten. Docker's own restart policy forgives after as long.
pub(super) const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// How long what nobody asks for its health must have run to be taken for running: as long as Docker Compose lets pass before it
/// looks.
pub(super) const STEADY: Duration = Duration::from_millis(500);

/// Failures of all pods of one project.
#[derive(Debug, Default)]
pub struct Failures(BTreeMap<PodId, Record>);

#[derive(Debug, Default, Clone)]
struct Record {
    /// Failures in a row.
    count: u32,
    /// Whether it failed in an earlier run, and no run has been good for long since, although its failures were forgiven.
    frail: bool,
    /// Image of its container.
    image: String,
    /// The run (container id and start time) that was counted last: each is counted once.
    counted: Option<(String, String)>,
    /// No start before this time.
    not_before: Duration,
    /// Its present run, if that is in order.
    good: Option<Good>,
    /// Its container that was found unhealthy.
    condemned: Option<String>,
    /// Its container that was frozen, until it is found healthy.
    frozen: Option<String>,
    /// Bad health that the engine found while it was frozen counts from this time on.
    judged_at: Option<Duration>,
    /// Generation in which it was last started by this agent.
    started_generation: Option<u64>,
    /// Number of the last wish for a signal that was sent to it.
    signalled: u64,
}

/// A run that is in order.
#[derive(Debug, Clone)]
struct Good {
    /// Container id and start time.
    run: (String, String),
    /// When it was first seen so.
    since: Duration,
    /// Whether somebody asks for its health.
    checked: bool,
    /// Time after which earlier failures are forgotten.
    forgiven_after: Duration,
}

impl Good {
    /// Returns when it is taken for steady, after so many failures of earlier runs.
    fn steady_at(&self, failures: u32) -> Duration {
        if failures == 0 { self.since + STEADY } else { self.sound_at() }
    }

    /// Returns when it is taken for steady whatever was before.
    fn sound_at(&self) -> Duration {
        self.since + steady_again(self.forgiven_after)
    }

    fn forgiven_at(&self) -> Duration {
        self.since + self.forgiven_after
    }
}

/// Returns how long what has failed must run in order to be waited for no longer: nobody waits for a long window.
pub(super) fn steady_again(forgiven_after: Duration) -> Duration {
    forgiven_after.clamp(STEADY, FORGIVEN_AFTER)
}

/// Returns how long a pod must run in order for its earlier failures to be forgotten.
pub fn forgiven_after(graph: &Graph, pod: &PodId) -> Duration {
    let window = graph.services.get(&pod.service).and_then(|service| service.restart_pace.window);
    window.unwrap_or(FORGIVEN_AFTER)
}

/// Pause before the start that follows failure number `count` (from 1): none, 0.1 s, 0.2 s, 0.4 s … 60 s, as Docker's
/// own restart policy pauses.
pub(super) fn pause(count: u32) -> Duration {
    match count {
        0 | 1 => Duration::ZERO,
        n => Duration::from_millis(100).saturating_mul(1u32.checked_shl(n - 2).unwrap_or(u32::MAX)).min(LONGEST_PAUSE),
    }
}

impl Record {
    /// The run that was in order is over: if it was long enough, earlier failures are forgotten.
    fn end_run(&mut self, now: Duration) {
        self.frail = self.is_frail(now);
        if self.good.take().is_some_and(|good| good.forgiven_at() <= now) {
            self.count = 0;
        }
    }

    fn is_frail(&self, now: Duration) -> bool {
        self.frail && self.good.as_ref().is_none_or(|good| now < good.sound_at())
    }

    /// Returns when its present run, which nobody checks, is taken for steady.
    fn steady_at(&self, now: Duration) -> Option<Duration> {
        let good = self.good.as_ref().filter(|good| !good.checked)?;
        Some(good.steady_at(self.failures(now).max(u32::from(self.frail))))
    }

    /// Returns how many failures in a row nothing has made forgotten yet.
    fn failures(&self, now: Duration) -> u32 {
        if self.good.as_ref().is_some_and(|good| good.forgiven_at() <= now) { 0 } else { self.count }
    }
}

impl Failures {
    /// Takes note of a pod's container as seen at `now`.
    ///
    /// A failure is an end by itself that its restart rule heals, or bad health. Ends by hand are no failures, so they
    /// are healed at once however often they happen.
    pub fn observe(&mut self, graph: &Graph, pod: &PodId, container: &ObservedContainer, now: Duration) {
        // What runs for the first time that this agent knows of may have failed before it was there to see it.
        let frail = container.state.is_active() && has_ended_before(container);
        let record = self.0.entry(pod.clone()).or_insert(Record { frail, ..Record::default() });
        if record.image != container.image_id {
            // What has failed was another one.
            record.frail &= record.image.is_empty();
            record.image.clone_from(&container.image_id);
        }
        let pace = graph.services.get(&pod.service).map(|service| &service.restart_pace);
        let forgiven_after = forgiven_after(graph, pod);
        let delay = pace.map(|pace| pace.delay).filter(|delay| !delay.is_zero());
        if record.frozen.as_ref().is_some_and(|id| *id != container.id) {
            (record.frozen, record.judged_at) = (None, None);
        }
        let failed = match container.state {
            ContainerState::Exited { code, by_itself } => by_itself && is_crash(graph, pod, code),
            // No health check passes in a container that is frozen, and the engine counts that.
            ContainerState::Running { health: Health::Unhealthy }
                if record.frozen.as_ref() == Some(&container.id)
                    && now < *record.judged_at.get_or_insert_with(|| now + until_checked(graph, pod)) =>
            {
                return;
            }
            ContainerState::Running { health: Health::Unhealthy } => {
                record.condemned = Some(container.id.clone());
                true
            }
            ContainerState::Running { health: health @ (Health::None | Health::Healthy) } => {
                (record.frozen, record.judged_at) = (None, None);
                // It, or what came in its place, is well.
                record.condemned = record.condemned.take().filter(|_| health == Health::None);
                let run = (container.id.clone(), container.started_at.clone());
                if record.good.as_ref().is_none_or(|good| good.run != run) {
                    // The end of the run before may have been seen by nobody.
                    record.end_run(now);
                    let checked = health == Health::Healthy;
                    record.good = Some(Good { run, since: now, checked, forgiven_after });
                }
                return;
            }
            ContainerState::Paused => {
                (record.frozen, record.judged_at) = (Some(container.id.clone()), None);
                return;
            }
            _ => false,
        };
        if !matches!(container.state, ContainerState::Running { .. }) {
            (record.frozen, record.judged_at) = (None, None);
        }
        record.end_run(now);
        let run = (container.id.clone(), container.started_at.clone());
        if failed && record.counted.as_ref() != Some(&run) {
            record.count += 1;
            record.counted = Some(run);
            record.not_before = now + delay.unwrap_or_else(|| pause(record.count));
        }
    }

    /// Takes note of all pods that have a container. Of another nothing is left to be judged.
    pub fn only(&mut self, seen: &BTreeSet<PodId>) {
        for (pod, record) in &mut self.0 {
            if record.frozen.is_some() && !seen.contains(pod) {
                (record.frozen, record.judged_at) = (None, None);
            }
        }
    }

    /// Takes note that orch started the pod in this generation.
    pub fn started(&mut self, pod: &PodId, generation: u64) {
        self.0.entry(pod.clone()).or_default().started_generation = Some(generation);
    }

    /// Takes note that the signal of this wish was sent.
    pub fn signalled(&mut self, pod: &PodId, number: u64) {
        self.0.entry(pod.clone()).or_default().signalled = number;
    }

    /// Forgets all failures of a pod: the user asked for something else.
    pub fn forgive(&mut self, pod: &PodId) {
        self.try_again(pod);
        if let Some(record) = self.0.get_mut(pod) {
            record.frail = false;
        }
    }

    /// Lets a pod be tried at once: the user asked for the same once more. Its failures count for nothing but its being relied upon.
    pub fn try_again(&mut self, pod: &PodId) {
        if let Some(record) = self.0.get_mut(pod) {
            record.frail |= record.count > 0;
            record.count = 0;
            record.not_before = Duration::ZERO;
        }
    }

    /// Returns what planning needs to know at `now`.
    ///
    /// `known_generation` answers for pods that this agent did not start itself.
    pub fn view(
        &self,
        pods: &[PodId],
        now: Duration,
        known_generation: impl Fn(&PodId) -> u64,
    ) -> BTreeMap<PodId, PodMemory> {
        pods.iter()
            .map(|pod| {
                let record = self.0.get(pod).cloned().unwrap_or_default();
                let left = |time: Duration| time.saturating_sub(now).as_secs_f64().ceil();
                let judged_at = record.judged_at.filter(|time| now < *time);
                let held = if now < record.not_before {
                    Some(format!("failed {} times in a row, next start in {} s", record.count, left(record.not_before)))
                } else {
                    judged_at
                        .map(|time| format!("it was paused: its health is known in {} s at the latest", left(time)))
                };
                let started_generation = record.started_generation.unwrap_or_else(|| known_generation(pod));
                let failures = record.failures(now);
                (
                    pod.clone(),
                    PodMemory {
                        started_generation,
                        failures,
                        unsteady: record.steady_at(now).is_some_and(|at| now < at),
                        frail: record.is_frail(now),
                        condemned: record.condemned.clone(),
                        signalled: record.signalled,
                        held,
                        hooked: None,
                        rolled: None,
                    },
                )
            })
            .collect()
    }

    /// Returns the earliest time after `now` at which a held pod may start, or be replaced, or one is taken for steady.
    pub fn next_start(&self, now: Duration) -> Option<Duration> {
        let times = self.0.values().flat_map(|record| {
            let good = record.good.as_ref();
            let steady = record.steady_at(now);
            let forgiven = good.filter(|_| record.count > 0).map(Good::forgiven_at);
            [Some(record.not_before), record.judged_at, steady, forgiven]
        });
        times.flatten().filter(|time| *time > now).min()
    }
}

/// Returns whether a container has ended before its present run.
fn has_ended_before(container: &ObservedContainer) -> bool {
    !container.finished_at.is_empty()
}

/// Returns the time within which the engine has looked anew at the health of a pod: the longest until the next check, and
/// how long that may take. Source of the defaults: moby, daemon/health.go.
fn until_checked(graph: &Graph, pod: &PodId) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(30);
    const SLACK: Duration = Duration::from_secs(1);
    let check = graph.services.get(&pod.service).and_then(|service| service.container.healthcheck.as_ref());
    let or_default = |time: Option<Duration>| time.filter(|time| !time.is_zero()).unwrap_or(DEFAULT);
    or_default(check.and_then(|check| check.interval)) + or_default(check.and_then(|check| check.timeout)) + SLACK
}

/// Returns whether an end with `code` is one that the pod's restart rule heals.
pub(super) fn is_crash(graph: &Graph, pod: &PodId, code: i32) -> bool {
    let Some(service) = graph.services.get(&pod.service) else { return false };
    match service.restart {
        Restart::No => false,
        Restart::Unset => code != 0 && !graph.is_awaited_job(&pod.service),
        Restart::OnFailure { .. } => code != 0,
        Restart::Always | Restart::UnlessStopped => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServiceName;
    use crate::testing;

    fn ended(run: &str, code: i32, by_itself: bool) -> ObservedContainer {
        let mut container = testing::container("shop", "web", 1);
        container.started_at = run.to_owned();
        container.state = ContainerState::Exited { code, by_itself };
        container
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn held(failures: &Failures, pod: &PodId, now: Duration) -> Option<String> {
        failures.view(std::slice::from_ref(pod), now, |_| 0).remove(pod).and_then(|memory| memory.held)
    }

    #[test]
    fn crashes_in_a_row_hold_a_pod_back_and_each_counts_once() {
        let (graph, pod) = (testing::graph("shop", &["web"]), PodId::new(ServiceName::new("web").expect("valid"), 1));
        let mut failures = Failures::default();
        failures.observe(&graph, &pod, &ended("run 1", 1, true), at(0));
        assert_eq!(held(&failures, &pod, at(0)), None, "the first restart is at once");
        failures.observe(&graph, &pod, &ended("run 2", 1, true), at(1));
        failures.observe(&graph, &pod, &ended("run 2", 1, true), at(1));
        assert_eq!(held(&failures, &pod, at(1)).as_deref(), Some("failed 2 times in a row, next start in 1 s"));
        assert_eq!(failures.next_start(at(1)), Some(Duration::from_millis(1100)));
        assert_eq!(held(&failures, &pod, at(2)), None);
    }

    #[test]
    fn ends_by_hand_are_no_failures() {
        let (graph, pod) = (testing::graph("shop", &["web"]), PodId::new(ServiceName::new("web").expect("valid"), 1));
        let mut failures = Failures::default();
        for run in 0..20 {
            failures.observe(&graph, &pod, &ended(&format!("run {run}"), 137, false), at(run));
            assert_eq!(held(&failures, &pod, at(run)), None);
        }
    }

    #[test]
    fn ten_seconds_of_good_running_are_forgiveness() {
        let (graph, pod) = (testing::graph("shop", &["web"]), PodId::new(ServiceName::new("web").expect("valid"), 1));
        let mut failures = Failures::default();
        for run in 0..4 {
            failures.observe(&graph, &pod, &ended(&format!("run {run}"), 1, true), at(0));
        }
        assert!(held(&failures, &pod, at(0)).is_some());
        failures.observe(&graph, &pod, &testing::container("shop", "web", 1), at(10));
        failures.observe(&graph, &pod, &ended("run 9", 1, true), at(20));
        assert_eq!(held(&failures, &pod, at(20)), None);
    }

    #[test]
    fn what_nobody_checks_is_steady_after_half_a_second_and_after_failures_when_they_are_forgotten() {
        let (mut graph, pod) =
            (testing::graph("shop", &["web"]), PodId::new(ServiceName::new("web").expect("valid"), 1));
        let look = |failures: &Failures, now| {
            let memory = failures.view(std::slice::from_ref(&pod), now, |_| 0).remove(&pod).expect("it is known");
            (memory.unsteady, memory.failures)
        };
        let run = |run: &str| ObservedContainer { started_at: run.to_owned(), ..testing::container("shop", "web", 1) };
        let mut failures = Failures::default();
        failures.observe(&graph, &pod, &run("1"), at(1));
        assert_eq!(look(&failures, at(1)), (true, 0));
        assert_eq!(failures.next_start(at(1)), Some(at(1) + STEADY));
        failures.observe(&graph, &pod, &run("1"), at(1) + STEADY);
        assert_eq!((look(&failures, at(1) + STEADY), failures.next_start(at(1) + STEADY)), ((false, 0), None));
        failures.observe(&graph, &pod, &run("2"), at(2));
        assert_eq!(look(&failures, at(2)), (true, 0), "another run, although nobody saw the end of the first");
        failures.observe(&graph, &pod, &ended("2", 1, true), at(3));
        assert_eq!(look(&failures, at(3)), (false, 1), "what does not run is not ready in the first place");
        failures.observe(&graph, &pod, &run("3"), at(4));
        assert_eq!((look(&failures, at(13)), failures.next_start(at(13))), ((true, 1), Some(at(14))));
        assert_eq!((look(&failures, at(14)), failures.next_start(at(14))), ((false, 0), None));

        // With a long window the failure is remembered for longer, and nobody waits for that.
        let web = graph.services.get_mut(&pod.service).expect("it is there");
        web.restart_pace.window = Some(at(100));
        let mut failures = Failures::default();
        failures.observe(&graph, &pod, &ended("1", 1, true), at(0));
        failures.observe(&graph, &pod, &run("2"), at(0));
        assert_eq!((look(&failures, at(9)), look(&failures, at(10))), ((true, 1), (false, 1)));
        assert_eq!(look(&failures, at(100)), (false, 0));
        // What is checked is taken at that.
        let healthy = ContainerState::Running { health: Health::Healthy };
        failures.observe(&graph, &pod, &ObservedContainer { state: healthy, ..run("3") }, at(101));
        assert!(!look(&failures, at(101)).0);
    }

    #[test]
    fn what_has_failed_and_is_asked_for_once_more_is_tried_at_once_and_not_relied_upon_before_it_has_run_well() {
        let (graph, pod) = (testing::graph("shop", &["web"]), PodId::new(ServiceName::new("web").expect("valid"), 1));
        let look = |failures: &Failures, now| {
            let memory = failures.view(std::slice::from_ref(&pod), now, |_| 0).remove(&pod).expect("it is known");
            (memory.held.is_some(), memory.failures, memory.unsteady, memory.frail)
        };
        let run = |run: &str| ObservedContainer { started_at: run.to_owned(), ..testing::container("shop", "web", 1) };
        let mut failures = Failures::default();
        for number in 0..3 {
            failures.observe(&graph, &pod, &ended(&format!("run {number}"), 1, true), at(0));
        }
        assert_eq!(look(&failures, at(0)), (true, 3, false, false));
        failures.try_again(&pod);
        assert_eq!(look(&failures, at(0)), (false, 0, false, true));
        failures.observe(&graph, &pod, &run("run 3"), at(1));
        assert_eq!((look(&failures, at(10)), failures.next_start(at(10))), ((false, 0, true, true), Some(at(11))));
        let mut forgiven = Failures(failures.0.clone());
        forgiven.forgive(&pod);
        assert_eq!(look(&forgiven, at(10)), (false, 0, false, false), "something else is wanted");
        // One that ends before does not run well.
        failures.observe(&graph, &pod, &ended("run 3", 1, true), at(10));
        failures.observe(&graph, &pod, &run("run 4"), at(10));
        assert_eq!((look(&failures, at(19)).3, look(&failures, at(20))), (true, (false, 0, false, false)));
        failures.observe(&graph, &pod, &ended("run 4", 1, true), at(20));
        assert_eq!(look(&failures, at(20)), (false, 1, false, false));
    }

    #[test]
    fn what_ended_before_the_agent_was_there_is_not_relied_upon_at_once() {
        let (graph, pod) = (testing::graph("shop", &["web"]), PodId::new(ServiceName::new("web").expect("valid"), 1));
        let again = ObservedContainer { finished_at: "before".to_owned(), ..testing::container("shop", "web", 1) };
        let mut failures = Failures::default();
        failures.observe(&graph, &pod, &again, at(0));
        let unsteady = |now| failures.view(std::slice::from_ref(&pod), now, |_| 0)[&pod].unsteady;
        assert_eq!([1, 9, 10].map(|second| unsteady(at(second))), [true, true, false]);
    }

    #[test]
    fn health_that_was_lost_while_frozen_is_looked_at_anew() {
        let (mut graph, pod) =
            (testing::graph("shop", &["web"]), PodId::new(ServiceName::new("web").expect("valid"), 1));
        let check = crate::graph::Healthcheck { interval: Some(at(2)), timeout: Some(at(3)), ..testing::healthcheck() };
        graph.services.get_mut(&pod.service).expect("it is there").container.healthcheck = Some(check);
        let mut failures = Failures::default();
        let mut see = |state, time| {
            let container = ObservedContainer { state, ..testing::container("shop", "web", 1) };
            failures.observe(&graph, &pod, &container, time);
            let memory = failures.view(std::slice::from_ref(&pod), time, |_| 0).remove(&pod).expect("it is known");
            (memory.held, memory.condemned.is_some(), failures.next_start(time))
        };
        let running = |health| ContainerState::Running { health };
        let waits = "it was paused: its health is known in 6 s at the latest".to_owned();
        see(running(Health::Healthy), at(0));
        assert_eq!(see(ContainerState::Paused, at(1)), (None, false, None));
        assert_eq!(see(running(Health::Unhealthy), at(100)), (Some(waits.clone()), false, Some(at(106))));
        assert_eq!(see(running(Health::Healthy), at(102)), (None, false, None));
        // What is bad after that is no matter of the pause.
        assert_eq!(see(running(Health::Unhealthy), at(103)), (None, true, None));
        assert_eq!(see(running(Health::Starting), at(104)), (None, true, None));
        assert!(!see(running(Health::Healthy), at(105)).1, "it is well again");

        let mut failures = Failures::default();
        let mut see = |state, time| {
            let container = ObservedContainer { state, ..testing::container("shop", "web", 1) };
            failures.observe(&graph, &pod, &container, time);
            let memory = failures.view(std::slice::from_ref(&pod), time, |_| 0).remove(&pod).expect("it is known");
            (memory.held, memory.condemned.is_some())
        };
        see(ContainerState::Paused, at(1));
        assert_eq!(see(running(Health::Unhealthy), at(2)), (Some(waits), false));
        assert_eq!(see(running(Health::Unhealthy), at(8)), (None, true), "the check has failed since, too");
    }

    #[test]
    fn what_is_gone_or_ended_is_not_held_for_a_pause() {
        let (graph, pod) = (testing::graph("shop", &["web"]), PodId::new(ServiceName::new("web").expect("valid"), 1));
        let seen = |failures: &mut Failures, state, time| {
            let container = ObservedContainer { state, ..testing::container("shop", "web", 1) };
            failures.observe(&graph, &pod, &container, time);
            held(failures, &pod, time)
        };
        let unhealthy = ContainerState::Running { health: Health::Unhealthy };
        let mut failures = Failures::default();
        seen(&mut failures, ContainerState::Paused, at(1));
        assert!(seen(&mut failures, unhealthy, at(2)).is_some());
        failures.only(&BTreeSet::from([pod.clone()]));
        assert!(held(&failures, &pod, at(2)).is_some(), "it is there");
        failures.only(&BTreeSet::new());
        assert_eq!(held(&failures, &pod, at(2)), None, "it is gone");

        let mut failures = Failures::default();
        seen(&mut failures, ContainerState::Paused, at(1));
        assert!(seen(&mut failures, unhealthy, at(2)).is_some());
        assert_eq!(seen(&mut failures, ContainerState::Exited { code: 137, by_itself: false }, at(3)), None);
    }

    #[test]
    fn a_policy_has_its_own_delay_and_window() {
        let (mut graph, pod) =
            (testing::graph("shop", &["web"]), PodId::new(ServiceName::new("web").expect("valid"), 1));
        let web = graph.services.get_mut(&pod.service).expect("it is there");
        web.restart = Restart::UnlessStopped;
        web.restart_pace =
            crate::graph::RestartPace { delay: at(5), window: Some(at(60)), ..crate::graph::RestartPace::default() };
        let mut failures = Failures::default();
        let count = |failures: &Failures| failures.view(std::slice::from_ref(&pod), at(0), |_| 0)[&pod].failures;
        failures.observe(&graph, &pod, &ended("run 1", 0, true), at(0));
        assert_eq!(held(&failures, &pod, at(0)).as_deref(), Some("failed 1 times in a row, next start in 5 s"));
        assert_eq!(failures.next_start(at(0)), Some(at(5)));
        failures.observe(&graph, &pod, &testing::container("shop", "web", 1), at(10));
        failures.observe(&graph, &pod, &ended("run 2", 0, true), at(69));
        assert_eq!(count(&failures), 2, "59 s of running are no success");
        failures.observe(&graph, &pod, &testing::container("shop", "web", 1), at(80));
        failures.observe(&graph, &pod, &ended("run 3", 0, true), at(140));
        assert_eq!(count(&failures), 1, "the run of 60 s was one");
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let millis: Vec<u128> = (0..14).map(|count| pause(count).as_millis()).collect();
        let doubled = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000];
        assert_eq!(millis, [&[0, 0], doubled.as_slice()].concat());
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
