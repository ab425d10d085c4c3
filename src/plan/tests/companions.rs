//! Containers that have another one's mounts, and what is run in them after their start.

use super::super::fixture::{World, brief, pod};
use crate::observed::{ContainerState, Hooked, PodMemory};

const MOUNTED: &str = "data: {}\nweb: {volumes_from: [data], depends_on: {data: {condition: service_started}}}";

#[test]
fn a_container_is_made_anew_with_the_one_whose_mounts_it_has_and_outlives_its_crash() {
    let mut world = World::running(MOUNTED, &["a"]);
    assert_eq!(brief(&world.plan()), "");
    world.touch("data.1", |container| container.state = ContainerState::Exited { code: 1, by_itself: true });
    assert_eq!(brief(&world.plan()), "start data-1 (exited with 1)");
    world.converge();
    world.remove("data.1");
    let plan = brief(&world.plan());
    assert!(plan.contains("create data-1") && plan.contains("create web-1 (goes with `data`)"), "{plan}");
    let (first, second) = (plan.find("create data-1"), plan.find("create web-1"));
    assert!(first < second, "{plan}");
}

#[test]
fn what_is_run_after_a_start_is_run_for_each_run_and_a_failure_is_told() {
    let hooked = "web: {post_start: [{command: [x]}]}";
    let mut world = World::running(hooked, &["a"]);
    assert_eq!(brief(&world.plan()), "");
    let run = world.memory[&pod("web.1")].hooked.clone().expect("its hooks were run");
    world.memory.get_mut(&pod("web.1")).expect("it is there").hooked = None;
    assert_eq!(brief(&world.plan()), "start web-1 (its hooks are still to be run)");
    let failed = Hooked { failure: Some("web hook exited with status 3".to_owned()), ..run };
    world.memory.get_mut(&pod("web.1")).expect("it is there").hooked = Some(failed);
    assert_eq!(brief(&world.plan()), "failure: web hook exited with status 3");
    world.touch("web.1", |container| container.started_at = "2027-01-01T00:00:00Z".to_owned());
    assert_eq!(brief(&world.plan()), "start web-1 (its hooks are still to be run)");
}

#[test]
fn a_policy_gives_up_after_its_attempts_whatever_the_code() {
    let text = "web: {deploy: {restart_policy: {condition: any, max_attempts: 2}}}";
    let mut world = World::running(text, &["a"]);
    world.touch("web.1", |container| container.state = ContainerState::Exited { code: 0, by_itself: true });
    let tired = |failures| PodMemory { failures, started_generation: 1, ..PodMemory::default() };
    world.memory.insert(pod("web.1"), tired(2));
    assert_eq!(brief(&world.plan()), "start web-1 (exited with 0)");
    world.memory.insert(pod("web.1"), tired(3));
    assert_eq!(brief(&world.plan()), "");
}

#[test]
fn what_others_manage_must_be_on_each_host_that_needs_it() {
    let text = "networks: {out: {external: true, name: out}}\nservices: {web: {scale: 2, networks: {out: null}}}";
    let plan = World::new(text, &["a", "b"]).plan();
    let told = |host: &str| format!("network out declared as external, but could not be found on host `{host}`");
    assert_eq!(plan.blocked(), [told("a"), told("b")]);
}
