//! What is run before a service: once for it as it is, in order, and again only for one that is made anew.

use super::super::fixture::{World, brief, pod};
use super::{check, exited, heal};
use crate::ids::ServiceName;
use crate::plan::Step;

const STEPS: &str = "web: {scale: 2, pre_start: [{command: [a]}, {command: [b]}]}";

/// Runs what is planned until nothing is left, and returns the starts in the order in which they came. Steps whose name `fails`
/// says end with 3.
fn starts(world: &mut World, fails: &str) -> String {
    let mut told = Vec::new();
    for _ in 0..30 {
        let plan = world.plan();
        let mut done = std::collections::BTreeSet::new();
        while let Some(step) = plan.runnable(&done, &world.observed, Some(&world.desired)).first().map(|s| (*s).clone())
        {
            world.apply(&step);
            if let Step::StartContainer { name, .. } = &step.step {
                told.push(name.replace("shop-", ""));
            }
            done.insert(step.id);
        }
        super::super::simulate::settle(&mut world.observed, &world.desired);
        let all = world.observed.hosts.values_mut().flat_map(|host| host.containers.values_mut());
        for container in all.filter(|one| !fails.is_empty() && one.name.ends_with(fails)) {
            if !container.started_at.is_empty() {
                exited(3)(container);
            }
        }
        if done.is_empty() {
            return told.join(", ");
        }
    }
    panic!("it never ends: {}", told.join(", "));
}

#[test]
fn steps_come_in_order_before_all_replicas() {
    let mut world = World::new(STEPS, &["local"]);
    assert_eq!(starts(&mut world, ""), "web-pre_start-0, web-pre_start-1, web-1, web-2");
    let project = "{web: {depends_on: {db: {condition: service_started}}, pre_start: [{command: [a]}]}, db: {}, api: {depends_on: {web: {condition: service_started}}}}";
    let mut world = World::new(project, &["local"]);
    assert_eq!(starts(&mut world, ""), "db-1, web-pre_start-0, web-1, api-1");
}

#[test]
fn what_has_run_is_not_run_again() {
    check(STEPS, STEPS, "");
    check(STEPS, &STEPS.replace("scale: 2", "scale: 3"), "create web-3 (missing), start web-3 (missing)");
    heal(STEPS, |world| world.touch("web.1", exited(1)), "start web-1 (exited with 1)");
    heal(STEPS, |world| world.remove("web.1"), "create web-1 (missing), start web-1 (missing)");
    heal(STEPS, |world| world.remove("web.pre_start-0.1"), "");
    // As after `docker container prune`: neither healing, nor an `up`, nor more replicas need what is gone.
    let mut world = World::running(STEPS, &["local"]);
    world.remove("web.pre_start-0.1");
    world.remove("web.pre_start-1.1");
    world.remove("web.2");
    assert_eq!(starts(&mut world, ""), "web-2");
    world.up(&STEPS.replace("scale: 2", "scale: 3"));
    assert_eq!(starts(&mut world, ""), "web-3");
}

#[test]
fn a_service_that_is_made_anew_is_prepared_again_before_it_stops() {
    for change in [("[a]", "[c]"), ("scale: 2", "scale: 2, environment: {A: b}")] {
        let mut world = World::running(STEPS, &["local"]);
        world.up(&STEPS.replace(change.0, change.1));
        let plan = world.plan();
        let at = |wanted: &str| {
            plan.steps.iter().position(|step| super::render::action(&step.step).ends_with(wanted)).expect("a step")
        };
        assert!(at("start container shop-web-pre_start-1") < at("drain web.1"), "{}", brief(&plan));
        assert_eq!(starts(&mut world, ""), "web-pre_start-0, web-pre_start-1, web-1, web-2");
    }
    // `--force-recreate` names the steps with their service.
    let mut world = World::running(STEPS, &["local"]);
    world.up(STEPS);
    let generation = world.desired.generation;
    let names = ["web", "web.pre_start-0", "web.pre_start-1"];
    world.desired.recreate_before = names.map(|name| (ServiceName::new(name).expect("valid"), generation)).into();
    assert_eq!(starts(&mut world, ""), "web-pre_start-0, web-pre_start-1, web-1, web-2");
}

#[test]
fn what_fails_keeps_the_service_and_its_dependents_from_starting_and_runs_again_with_the_next_up() {
    let project =
        "{web: {pre_start: [{command: [a]}, {command: [b]}]}, api: {depends_on: {web: {condition: service_started}}}}";
    let mut world = World::new(project, &["local"]);
    assert_eq!(starts(&mut world, "pre_start-1"), "web-pre_start-0, web-pre_start-1");
    let failures: Vec<String> = world.plan().failures.iter().map(ToString::to_string).collect();
    assert!(failures.iter().any(|one| one.contains("service \"web\" pre_start[1] exited with code 3")), "{failures:?}");
    world.up(project);
    assert_eq!(starts(&mut world, ""), "web-pre_start-1, web-1, api-1", "what ended well is not run again");
    // A change that fails leaves what runs alone.
    let mut world = World::running(project, &["local"]);
    world.up(&project.replace("[b]", "[c]"));
    assert_eq!(starts(&mut world, "pre_start-1"), "web-pre_start-0, web-pre_start-1");
    world.touch("web.1", |one| assert!(one.is_running()));
}

#[test]
fn steps_are_placed_with_the_first_replica_and_run_again_only_where_nothing_goes_on() {
    let project = |on: &str| {
        format!(
            "web: {{scale: 1, deploy: {{placement: {{constraints: ['node.hostname == {on}']}}}}, pre_start: [{{command: [a]}}]}}"
        )
    };
    let mut world = World::running(&project("b"), &["a", "b"]);
    let host = |world: &World, name: &str| world.desired.assignments.pods[&pod(name)].to_string();
    assert_eq!((host(&world, "web.1"), host(&world, "web.pre_start-0.1")), ("b".to_owned(), "b".to_owned()));
    world.up(&project("a"));
    assert_eq!(host(&world, "web.pre_start-0.1"), "a");
    assert_eq!(starts(&mut world, ""), "web-pre_start-0, web-1");
    let spread = "web: {scale: 2, pre_start: [{command: [a]}]}";
    let mut world = World::running(spread, &["a", "b"]);
    assert_eq!((host(&world, "web.1"), host(&world, "web.2")), ("a".to_owned(), "b".to_owned()));
    world.hosts.values_mut().next().expect("a host").draining = true;
    world.up(spread);
    assert_eq!(starts(&mut world, ""), "web-1", "the other replica was prepared by it, too");
}

#[test]
fn a_step_that_the_file_does_not_have_any_more_goes() {
    let mut world = World::running(STEPS, &["local"]);
    world.up(&STEPS.replace(", {command: [b]}", ""));
    assert!(brief(&world.plan()).contains("remove web-pre_start-1"), "{}", brief(&world.plan()));
    world.converge();
    let mut world = World::running("web: {pre_start: [{command: [a]}]}", &["local"]);
    world.up("web: {}");
    world.converge();
    let left: Vec<&str> =
        world.observed.hosts.values().flat_map(|host| host.containers.values()).map(|one| one.name.as_str()).collect();
    assert_eq!(left, ["shop-web-1"]);
}

#[test]
fn a_step_for_each_replica_is_run_for_each_and_again_where_it_failed() {
    let each = "web: {scale: 2, pre_start: [{command: [a]}, {command: [b], per_replica: true}]}";
    let mut world = World::new(each, &["local"]);
    let started = starts(&mut world, "");
    assert!(
        started.starts_with("web-pre_start-0, web-1-pod, web-2-pod, web-1-pre_start-1, web-2-pre_start-1"),
        "{started}"
    );
    world.up(&each.replace("scale: 2", "scale: 3"));
    assert_eq!(starts(&mut world, ""), "web-3-pod, web-3-pre_start-1, web-3");
    let mut world = World::new(&each.replace("scale: 2", "scale: 1"), &["local"]);
    assert_eq!(starts(&mut world, "web-1-pre_start-1"), "web-pre_start-0, web-1-pod, web-1-pre_start-1");
    world.up(&each.replace("scale: 2", "scale: 1"));
    assert_eq!(starts(&mut world, ""), "web-1-pre_start-1, web-1");
    // So it is with what prepares the pod of a job, which is not tried again either.
    let mut world = World::new("web: {restart: 'no', x-init: {migrate: {}}}", &["local"]);
    assert_eq!(starts(&mut world, "web-1-migrate"), "web-1-pod, web-1-migrate");
}
