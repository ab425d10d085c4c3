//! What somebody asked for by hand: what it makes of a project, that it is done once, and that an `up` ends it.

use crate::plan::asked::{AskError, ask};
use crate::plan::{Ask, Asked};

use super::*;

const SHOP: &str = "{web: {depends_on: {db: {condition: service_started, restart: true}}}, db: {}, other: {}}";
const POD: &str = "web: {x-init: {prep: {}}, x-sidecars: {sync: {}}}";

fn stop() -> Ask {
    Ask::Stop { timeout_secs: None }
}

fn restart() -> Ask {
    Ask::Restart { timeout_secs: None, no_deps: false }
}

fn kill(signal: &str) -> Ask {
    Ask::Kill { signal: signal.into(), remove_orphans: false }
}

fn remove(stop: bool) -> Ask {
    Ask::Remove { stop, volumes: false, timeout_secs: None }
}

impl World {
    fn try_ask(&mut self, what: &Ask, services: &[&str]) -> Result<(), AskError> {
        let services: Vec<_> = services.iter().map(|name| name.parse().expect("a name")).collect();
        self.serial += 1;
        self.desired = ask(&self.desired, &self.observed, what, &services, self.serial.into())?.desired;
        Ok(())
    }

    #[track_caller]
    fn ask(&mut self, what: &Ask, services: &[&str], expected: &str) -> &mut Self {
        self.try_ask(what, services).expect("possible");
        assert_eq!(brief(&self.plan()), expected, "{what:?} {services:?}");
        // Whatever is asked for is done once, also when the plan is made again after each step.
        for _ in 0..100 {
            let plan = self.plan();
            // Drains leave no trace in the world.
            let drains = plan.steps.iter().filter(|planned| matches!(planned.step, crate::plan::Step::Drain { .. }));
            let most = drains.count() + 1;
            if self.run(&plan, most, |_| {}) == 0 {
                break;
            }
        }
        assert_eq!(brief(&self.plan()), "", "after {what:?} {services:?}");
        self
    }

    fn states(&self) -> String {
        let containers = self.observed.hosts.values().flat_map(|host| host.containers.values());
        let mut states: Vec<String> =
            containers.map(|one| format!("{} {}", one.name.replace("shop-", ""), one.state.word())).collect();
        states.sort();
        states.join(", ")
    }
}

fn shop() -> World {
    World::running(SHOP, &["local"])
}

#[test]
fn what_is_stopped_stays_so_until_it_is_started_or_brought_up() {
    let mut world = shop();
    world.ask(&stop(), &["web"], "drain web.1, stop web-1 (asked for)");
    assert_eq!(world.states(), "db-1 running, other-1 running, web-1 exited");
    world.ask(&stop(), &["web"], "");
    world.ask(&Ask::Start, &["web"], "start web-1 (asked for)");
    world.ask(&Ask::Start, &[], "");
    world.ask(&stop(), &["web"], "drain web.1, stop web-1 (asked for)");
    world.remove("web.1");
    assert_eq!(brief(&world.plan()), "", "taken away by hand while it is stopped");
    world.up(SHOP);
    assert_eq!(brief(&world.plan()), "create web-1 (missing), start web-1 (missing)");
}

#[test]
fn dependents_stop_first_and_dependencies_start_first() {
    let mut world = shop();
    world.ask(
        &stop(),
        &[],
        "drain db.1, drain other.1, stop other-1 (asked for), drain web.1, stop web-1 (asked for), stop db-1 (asked for)",
    );
    world.ask(&Ask::Start, &["web"], "start db-1 (asked for), start web-1 (asked for)");
    assert_eq!(world.states(), "db-1 running, other-1 exited, web-1 running");
}

#[test]
fn the_time_to_stop_can_be_asked_for() {
    let mut world = shop();
    world.try_ask(&Ask::Stop { timeout_secs: Some(3) }, &["web"]).expect("possible");
    let plan = world.plan();
    let grace = plan.steps.iter().find_map(|planned| match planned.step {
        crate::plan::Step::StopContainer { grace, .. } => Some(grace),
        _ => None,
    });
    assert_eq!(grace, Some(Duration::from_secs(3)));
}

#[test]
fn what_was_stopped_by_others_than_orch_is_healed_beside_it() {
    let mut world = shop();
    world.ask(&stop(), &["other"], "drain other.1, stop other-1 (asked for)");
    world.touch("web.1", killed(137));
    assert_eq!(brief(&world.plan()), "start web-1 (stopped by hand, 137)");
}

#[test]
fn a_crash_does_not_wait_for_what_was_stopped() {
    let mut world = World::running(HEALTHY_DB, &["local"]);
    world.ask(&stop(), &["db"], "drain db.1, stop db-1 (asked for)");
    world.touch("web.1", killed(137));
    world.converge();
    assert_eq!(world.states(), "db-1 exited, web-1 running");
}

#[test]
fn a_restart_takes_along_who_wants_to_be() {
    let mut world = shop();
    world.ask(
        &restart(),
        &["db"],
        "drain web.1, stop web-1 (restart), drain db.1, stop db-1 (restart), start db-1 (restart), start web-1 (restart)",
    );
    world.ask(
        &Ask::Restart { timeout_secs: None, no_deps: true },
        &["db"],
        "drain db.1, stop db-1 (restart), start db-1 (restart)",
    );
    world.ask(&stop(), &["web"], "drain web.1, stop web-1 (asked for)");
    world.ask(&restart(), &["web"], "start web-1 (restart)");
}

#[test]
fn replicas_are_restarted_at_once() {
    let mut world = World::running("web: {scale: 2}", &["local"]);
    world.ask(
        &restart(),
        &[],
        "drain web.1, stop web-1 (restart), drain web.2, stop web-2 (restart), start web-1 (restart), \
            start web-2 (restart)",
    );
}

#[test]
fn a_restart_is_for_one_run() {
    let mut world = shop();
    world.try_ask(&restart(), &["other"]).expect("possible");
    world.touch("other.1", |container| container.started_at = "2026-01-01T00:00:00Z".into());
    assert_eq!(brief(&world.plan()), "", "somebody else restarted it meanwhile");
}

#[test]
fn what_is_killed_stays_so_and_a_signal_is_sent_once() {
    let mut world = shop();
    world.ask(&kill("SIGKILL"), &["db"], "send SIGKILL to db-1 (asked for)");
    assert_eq!(world.states(), "db-1 exited, other-1 running, web-1 running");
    world.ask(&kill("SIGKILL"), &["db"], "");
    world.ask(&Ask::Start, &[], "start db-1 (asked for)");

    world.try_ask(&kill("HUP"), &["db"]).expect("possible");
    assert_eq!(brief(&world.plan()), "send HUP to db-1 (asked for)");
    let sent = world.serial.into();
    world.memory.entry(pod("db.1")).or_default().signalled = sent;
    assert_eq!(brief(&world.plan()), "", "it lives on");
    world.try_ask(&kill("HUP"), &["db"]).expect("possible");
    assert_eq!(brief(&world.plan()), "send HUP to db-1 (asked for)", "asked for once more");
    world.memory.entry(pod("db.1")).or_default().signalled = world.serial.into();
    world.touch("db.1", killed(129));
    assert_eq!(brief(&world.plan()), "", "it ended by that");
    world.remove("db.1");
    assert_eq!(brief(&world.plan()), "create db-1 (missing), start db-1 (missing)", "that run is gone");
}

#[test]
fn what_does_not_run_is_removed_and_stays_away() {
    let mut world = shop();
    world.ask(&remove(false), &[], "");
    world.ask(&stop(), &["web"], "drain web.1, stop web-1 (asked for)");
    world.ask(&remove(false), &[], "remove web-1 (asked for)");
    world.ask(
        &remove(true),
        &["db", "other"],
        "drain db.1, stop db-1, remove db-1 (asked for), drain other.1, stop other-1, remove other-1 (asked for)",
    );
    assert_eq!(world.states(), "");
    assert_eq!(
        world.try_ask(&Ask::Start, &["web"]),
        Err(AskError::NoContainer("web".parse().expect("a name"))),
        "as in Docker Compose"
    );
    world.up(SHOP);
    world.converge();
    assert_eq!(world.states(), "db-1 running, other-1 running, web-1 running");
}

#[test]
fn what_is_paused_stays_so_for_that_run() {
    let mut world = shop();
    world.ask(&Ask::Pause, &["web"], "pause web-1 (asked for)");
    assert_eq!(world.states(), "db-1 running, other-1 running, web-1 paused");
    assert_eq!(world.try_ask(&Ask::Pause, &["web"]), Err(AskError::AlreadyPaused("shop-web-1".into())));
    assert_eq!(world.try_ask(&Ask::Start, &["web"]), Err(AskError::Frozen("shop-web-1".into())));
    assert_eq!(world.try_ask(&Ask::Unpause, &["db"]), Err(AskError::NotPaused("shop-db-1".into())));
    world.ask(&Ask::Unpause, &["web"], "unpause web-1 (paused by hand)");
    world.ask(&Ask::Pause, &["web"], "pause web-1 (asked for)");
    world.touch("web.1", killed(137));
    assert_eq!(brief(&world.plan()), "start web-1 (stopped by hand, 137)");
    world.converge();
    world.ask(&Ask::Pause, &["web"], "pause web-1 (asked for)");
    world.ask(&stop(), &["web"], "unpause web-1, stop web-1 (asked for)");
}

#[test]
fn what_the_project_does_not_have_cannot_be_asked_for() {
    let mut world = shop();
    let nobody = AskError::NoSuchService("nobody".parse().expect("a name"));
    assert_eq!(world.try_ask(&stop(), &["nobody"]), Err(nobody));
    assert_eq!(world.try_ask(&kill("BOGUS"), &[]), Err(AskError::Signal("BOGUS".into())));
}

#[test]
fn a_pod_of_several_is_stopped_started_and_restarted_as_one() {
    let mut world = World::running(POD, &["local"]);
    let running = world.states();
    world.try_ask(&stop(), &["web"]).expect("possible");
    world.converge();
    assert!(!world.states().contains("running"), "{}", world.states());
    assert!(world.desired.pods().all(|pod| matches!(world.desired.asked.get(pod), Some(Asked::Stopped { .. }))));
    world.try_ask(&Ask::Start, &["web"]).expect("possible");
    let plan = brief(&world.plan());
    assert!(plan.contains("start web-1-prep"), "it is prepared anew: {plan}");
    world.converge();
    assert_eq!(world.states(), running);

    world.try_ask(&restart(), &["web"]).expect("possible");
    let plan = brief(&world.plan());
    assert!(!plan.contains("web-1-pod") && !plan.contains("prep"), "{plan}");
    assert!(plan.contains("start web-1-sync") && plan.contains("start web-1 "), "{plan}");
    world.converge();
    assert_eq!(world.states(), running);

    world.try_ask(&kill("SIGKILL"), &["web"]).expect("possible");
    world.converge();
    assert!(!world.states().contains("running"), "helpers end with it: {}", world.states());
    world.try_ask(&Ask::Start, &["web"]).expect("possible");
    world.converge();
    assert_eq!(world.states(), running);
    world.try_ask(&remove(true), &["web"]).expect("possible");
    world.converge();
    assert_eq!(world.states(), "");
}

#[test]
fn what_is_stopped_stays_where_it_is_when_its_pod_belongs_elsewhere_and_is_removed_there() {
    let mut world = World::running("web: {}", &["a", "b"]);
    let from = world.desired.assignments.pods[&pod("web.1")].clone();
    let to = if from == host("a") { host("b") } else { host("a") };
    world.ask(&stop(), &["web"], "drain web.1, stop web-1 (asked for)");
    world.desired.assignments.pods.insert(pod("web.1"), to);
    world.converge();
    assert_eq!(world.states(), "web-1 exited");
    world.ask(&remove(false), &["web"], "remove web-1 (asked for)");
    assert_eq!(world.states(), "");
    world.up("web: {}");
    world.converge();
    assert_eq!(world.states(), "web-1 running");
}
