//! Pods of several containers: started in order, replaced as one, healed one by one.

use super::super::fixture::{World, brief, pod};
use super::{check, exited, heal, killed, state};
use crate::observed::{ContainerState, Health};

const POD: &str = "web: {x-init: {migrate: {}}, x-sidecars: {sync: {}, log: {}}}";

/// Runs what is planned until nothing is left, and returns the starts, stops and removals in the order in which they came.
fn story(world: &mut World) -> String {
    let mut told = Vec::new();
    for _ in 0..30 {
        let plan = world.plan();
        if plan.steps.is_empty() {
            return told.join(", ");
        }
        let mut done = std::collections::BTreeSet::new();
        while let Some(step) = plan.runnable(&done, &world.observed, Some(&world.desired)).first().map(|s| (*s).clone())
        {
            let what = super::render::action(&step.step).replace("container shop-", "");
            if !what.starts_with("create") {
                told.push(what);
            }
            world.apply(&step);
            done.insert(step.id);
        }
        super::super::simulate::settle(&mut world.observed, &world.desired);
    }
    panic!("it never ends: {}", told.join(", "));
}

#[test]
fn containers_of_a_pod_start_one_after_the_other() {
    let mut world = World::new(POD, &["local"]);
    assert_eq!(
        story(&mut world),
        "start web-1-pod, start web-1-migrate, start web-1-sync, start web-1-log, start web-1"
    );
    assert_eq!(brief(&world.plan()), "");
}

#[test]
fn a_sidecar_with_a_check_is_waited_for() {
    let world = World::new("web: {x-sidecars: {proxy: {healthcheck: {test: [CMD, ok]}}}}", &["local"]);
    let plan = world.plan();
    let main = plan.steps.last().expect("a step");
    assert!(matches!(&main.step, super::super::Step::StartContainer { name, .. } if name == "shop-web-1"));
    assert_eq!(main.waits_for(&world.desired, &world.observed).as_deref(), Some("`web.proxy.1` does not exist yet"));
}

#[test]
fn what_a_service_depends_on_comes_before_all_of_its_pod() {
    let project = "{web: {depends_on: {db: {condition: service_started}}, x-init: {migrate: {}}}, db: {}}";
    let mut world = World::new(project, &["local"]);
    assert_eq!(story(&mut world), "start db-1, start web-1-pod, start web-1-migrate, start web-1");
}

#[test]
fn an_up_that_changes_nothing_runs_nothing_again() {
    check(POD, POD, "");
}

#[test]
fn one_that_ends_comes_back_alone() {
    heal(POD, |world| world.touch("web.1", exited(1)), "start web-1 (exited with 1)");
    heal(POD, |world| world.touch("web.1", killed(137)), "start web-1 (stopped by hand, 137)");
    heal(POD, |world| world.touch("web.sync.1", exited(0)), "start web-1-sync (exited with 0)");
    heal(POD, |world| world.remove("web.log.1"), "create web-1-log (missing), start web-1-log (missing)");
    heal(POD, |world| world.remove("web.1"), "create web-1 (missing), start web-1 (missing)");
    heal(POD, |world| world.remove("web.migrate.1"), "");
    heal(
        POD,
        |world| world.touch("web.sync.1", state(ContainerState::Running { health: Health::Unhealthy })),
        "stop web-1-sync, remove web-1-sync (unhealthy), create web-1-sync (unhealthy), start web-1-sync (unhealthy)",
    );
}

#[test]
fn what_prepared_a_pod_is_not_needed_again_by_what_comes_back() {
    let mut world = World::running(POD, &["local"]);
    world.remove("web.migrate.1");
    world.touch("web.sync.1", killed(137));
    assert_eq!(story(&mut world), "start web-1-sync");
    world.touch("web.log.1", killed(137));
    world.touch("web.1", killed(137));
    assert_eq!(story(&mut world), "start web-1-log, start web-1");
}

#[test]
fn a_holder_that_was_killed_takes_all_along_in_order() {
    let mut world = World::running(POD, &["local"]);
    world.touch("web.pod.1", killed(137));
    assert_eq!(
        story(&mut world),
        "stop web-1, stop web-1-log, stop web-1-sync, start web-1-pod, start web-1-migrate, start web-1-sync, \
         start web-1-log, start web-1"
    );
}

#[test]
fn a_holder_started_again_by_somebody_else_takes_all_along() {
    let mut world = World::running(POD, &["local"]);
    world.touch("web.pod.1", |holder| holder.started_at = "2040-01-01T00:00:00Z".to_owned());
    let brief = brief(&world.plan());
    assert!(brief.contains("start web-1-migrate (the pod was started anew)"), "{brief}");
    assert!(brief.contains("stop web-1"), "{brief}");
}

#[test]
fn a_holder_that_was_removed_makes_all_anew() {
    let mut world = World::running(POD, &["local"]);
    world.remove("web.pod.1");
    let story = story(&mut world);
    assert!(story.starts_with("stop web-1, remove web-1, stop web-1-log, remove web-1-log,"), "{story}");
    assert!(
        story.ends_with("start web-1-pod, start web-1-migrate, start web-1-sync, start web-1-log, start web-1"),
        "{story}"
    );
}

#[test]
fn a_change_of_one_replaces_the_whole_pod_and_one_pod_after_the_other() {
    let before = "web: {scale: 2, x-sidecars: {sync: {}}}";
    let mut world = World::running(before, &["local"]);
    world.up("web: {scale: 2, x-sidecars: {sync: {image: other}}}");
    let reasons = brief(&world.plan());
    assert!(reasons.contains("create web-1-sync (configuration changed: image, sync)"), "{reasons}");
    assert!(reasons.contains("create web-1 (configuration changed: sync)"), "{reasons}");
    let one = |n: u32| {
        format!(
            "drain web.{n}, stop web-{n}, remove web-{n}, stop web-{n}-sync, remove web-{n}-sync, stop web-{n}-pod, \
             remove web-{n}-pod, start web-{n}-pod, start web-{n}-sync, start web-{n}"
        )
    };
    assert_eq!(story(&mut world), format!("{}, {}", one(1), one(2)));
}

#[test]
fn helpers_that_come_and_go_are_a_change_of_the_pod() {
    let mut world = World::running("web: {}", &["local"]);
    world.up("web: {x-sidecars: {sync: {}}}");
    assert_eq!(
        story(&mut world),
        "drain web.1, stop web-1, remove web-1, start web-1-pod, start web-1-sync, start web-1"
    );
    world.up("web: {}");
    assert_eq!(
        story(&mut world),
        "drain web.1, stop web-1, remove web-1, stop web-1-sync, remove web-1-sync, stop web-1-pod, remove web-1-pod, \
         start web-1"
    );
}

#[test]
fn a_job_ends_with_its_main_container_and_runs_again_with_the_next_up() {
    const JOB: &str = "job: {restart: 'no', x-init: {fetch: {}}, x-sidecars: {proxy: {}}}";
    let mut world = World::running(JOB, &["local"]);
    world.touch("job.1", exited(0));
    assert_eq!(story(&mut world), "stop job-1-proxy, stop job-1-pod");
    world.touch("job.proxy.1", exited(143));
    world.touch("job.pod.1", exited(0));
    assert_eq!(brief(&world.plan()), "");
    world.remove("job.proxy.1");
    world.remove("job.pod.1");
    assert_eq!(brief(&world.plan()), "", "nothing of a job that has ended comes back");
    let mut world = World::running(JOB, &["local"]);
    world.touch("job.1", exited(0));
    story(&mut world);
    world.up(JOB);
    assert_eq!(story(&mut world), "start job-1-pod, start job-1-fetch, start job-1-proxy, start job-1");
}

#[test]
fn scaling_down_takes_whole_pods() {
    let mut world = World::running("web: {scale: 2, x-sidecars: {sync: {}}}", &["local"]);
    world.up("web: {scale: 1, x-sidecars: {sync: {}}}");
    let story = story(&mut world);
    let position = |what: &str| story.find(what).unwrap_or_else(|| panic!("{what} in {story}"));
    assert!(position("stop web-2") < position("stop web-2-sync"), "{story}");
    assert!(position("remove web-2-sync") < position("remove web-2-pod"), "{story}");
    assert!(!story.contains("web-1"), "{story}");
}

#[test]
fn pods_are_placed_as_a_whole() {
    let world = World::running("web: {scale: 4, x-init: {migrate: {}}, x-sidecars: {sync: {}}}", &["a", "b"]);
    for number in 1..=4 {
        let of = |service: &str| world.desired.assignments.pods[&pod(&format!("{service}.{number}"))].clone();
        assert_eq!(of("web"), of("web.pod"));
        assert_eq!(of("web"), of("web.migrate"));
        assert_eq!(of("web"), of("web.sync"));
    }
    let on_a = (1..=4).filter(|number| world.desired.assignments.pods[&pod(&format!("web.{number}"))].as_str() == "a");
    assert_eq!(on_a.count(), 2);
}

#[test]
fn what_prepares_a_pod_and_fails_again_and_again_is_said_and_tried_on() {
    let mut world = World::running(POD, &["local"]);
    world.remove("web.1");
    world.remove("web.sync.1");
    world.remove("web.log.1");
    world.touch("web.migrate.1", exited(3));
    world.memory.entry(pod("web.migrate.1")).or_default().failures = 4;
    let plan = world.plan();
    let failures: Vec<String> = plan.failures.iter().map(ToString::to_string).collect();
    assert_eq!(
        failures,
        ["dependency failed to start: container shop-web-1-migrate failed 4 times in a row, the last time with 3"]
    );
    assert!(brief(&plan).contains("start web-1-migrate (exited with 3)"), "{}", brief(&plan));
}
