//! Pods that no host can take: who says so, who waits, and what is made all the same.

use super::*;

/// A service that no host can take, one that depends on it, and one that has nothing to do with either.
const NOWHERE: &str = "{web: {deploy: {placement: {constraints: ['node.labels.disk == ssd']}}}, \
    ok: {depends_on: {web: {condition: service_started}}}, other: {}}";

#[test]
fn what_no_host_can_take_is_a_failure_and_does_not_block_the_rest() {
    let mut world = World::new(NOWHERE, &["local"]);
    let plan = world.plan();
    assert_eq!(
        brief(&plan),
        "create network default (missing), create other-1 (missing), create ok-1 (missing), start other-1 (missing), \
            start ok-1 (missing), note: `ok.1` waits for `web`: `web.1` has no host, \
            failure: no host can take `web.1`: `local`: constraint `node.labels.disk == ssd` not met"
    );
    assert!(!plan.is_hopeless() && plan.blocked().is_empty());
    world.run(&plan, usize::MAX, |_| {});
    let rest = world.plan();
    assert_eq!(brief(&rest).split(',').next(), Some("start ok-1 (created)"));
    assert!(rest.is_stuck(&world.observed, Some(&world.desired), |_| false), "nothing is left to wait for");
    assert!(!plan.is_stuck(&World::new(NOWHERE, &["local"]).observed, Some(&world.desired), |_| false));
}

#[test]
fn an_optional_dependency_that_no_host_can_take_is_not_waited_for() {
    let optional = NOWHERE.replace("service_started", "service_started, required: false");
    let mut world = World::new(&optional, &["local"]);
    let plan = world.plan();
    assert_eq!(world.run(&plan, usize::MAX, |_| {}), plan.steps.len());
}

#[test]
fn replicas_with_the_same_reasons_are_said_once_and_services_not_asked_for_never() {
    let many = "web: {scale: 3, deploy: {placement: {constraints: ['node.labels.disk == ssd']}}}";
    let mut world = World::new(many, &["a", "b"]);
    let why = "`a`: constraint `node.labels.disk == ssd` not met, `b`: constraint `node.labels.disk == ssd` not met";
    assert_eq!(brief(&world.plan()), format!("failure: no host can take `web.1` and 2 more of `web`: {why}"));
    world.desired.enabled.clear();
    assert_eq!(brief(&world.plan()), "");
}
