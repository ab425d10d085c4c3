//! How a change is rolled out where the file says it: how many at once, after what pause, and what failures do.

use std::collections::BTreeSet;

use crate::observed::Rolled;
use crate::plan::asked::Run;
use crate::plan::{Asked, FailureKind};

use super::*;

/// `web` runs with so many replicas and this `update_config`, and its spec has changed.
fn changed(replicas: u32, config: &str) -> World {
    changed_on(replicas, config, &["local"])
}

fn changed_on(replicas: u32, config: &str, hosts: &[&str]) -> World {
    let project = |more: &str| format!("web: {{scale: {replicas}, deploy: {{update_config: {{{config}}}}}{more}}}");
    let mut world = World::running(&project(""), hosts);
    world.up(&project(", user: '1'"));
    world
}

/// What may begin now.
fn begins(world: &World) -> String {
    let plan = world.plan();
    let steps = plan.runnable(&BTreeSet::new(), &world.observed, Some(&world.desired));
    steps
        .into_iter()
        .map(|step| render::action(&step.step).replace("container shop-", ""))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Runs what is about one pod until it is replaced. Nothing of the plan is kept between two steps, as with the agent.
fn replace(world: &mut World, name: &str) {
    let (wanted, container) = (pod(name), format!("shop-{}", name.replace('.', "-")));
    let mut drained = false;
    for _ in 0..5 {
        let plan = world.plan();
        let mine = |step: &super::super::PlannedStep| {
            step.step.pod() == Some(&wanted) || render::action(&step.step).ends_with(&format!(" {container}"))
        };
        let drains = plan
            .steps
            .iter()
            .filter(|step| drained && mine(step) && matches!(step.step, super::super::Step::Drain { .. }));
        let done = drains.map(|step| step.id).collect();
        let runnable = plan.runnable(&done, &world.observed, Some(&world.desired));
        let next = runnable.into_iter().find(|step| mine(step)).expect("it may go on").clone();
        drained |= matches!(next.step, super::super::Step::Drain { .. });
        world.apply(&next);
    }
    let is_ready = world.observed.hosts.values().flat_map(|host| host.containers.values()).any(|one| {
        one.pod().as_ref() == Some(&wanted) && one.generation == Some(world.desired.generation) && one.is_running()
    });
    assert!(is_ready, "{name} is replaced");
}

/// What the agent of its host says of a pod.
fn tell(world: &mut World, name: &str, rested: bool, failure: Option<&str>) {
    let rolled = Rolled {
        generation: world.desired.generation,
        rested,
        watched: rested,
        retried: false,
        failure: failure.map(|what| format!("container shop-{} {what}", name.replace('.', "-"))),
    };
    world.memory.entry(pod(name)).or_default().rolled = Some(rolled);
}

fn failures(world: &World) -> String {
    let plan = world.plan();
    assert!(plan.failures.iter().all(|failure| failure.kind == FailureKind::Rollout), "{:?}", plan.failures);
    plan.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn so_many_are_replaced_at_once() {
    assert_eq!(begins(&changed(4, "")), "drain web.1");
    assert_eq!(begins(&changed(4, "parallelism: 1")), "drain web.1");
    assert_eq!(begins(&changed(4, "parallelism: 3")), "drain web.1, drain web.2, drain web.3");
    assert_eq!(begins(&changed(4, "parallelism: 9")), "drain web.1, drain web.2, drain web.3, drain web.4");
    assert_eq!(begins(&changed(4, "parallelism: 0")), "drain web.1, drain web.2, drain web.3, drain web.4");
}

#[test]
fn a_place_is_given_to_the_next_as_soon_as_it_is_free() {
    let mut world = changed(4, "parallelism: 2");
    replace(&mut world, "web.2");
    assert_eq!(begins(&world), "drain web.1, drain web.3");
    replace(&mut world, "web.1");
    assert_eq!(begins(&world), "drain web.3, drain web.4");
    replace(&mut world, "web.3");
    replace(&mut world, "web.4");
    assert_eq!(begins(&world), "");
}

#[test]
fn hosts_that_plan_for_themselves_do_not_exceed_it_together() {
    let mut world = changed_on(6, "parallelism: 2", &["a", "b", "c"]);
    assert_eq!(begins(&world), "drain web.1, drain web.2");
    replace(&mut world, "web.1");
    world.touch("web.1", health(Health::Starting));
    assert_eq!(begins(&world), "drain web.2", "one that is not ready yet takes up a place");
    world.touch("web.1", health(Health::Healthy));
    assert_eq!(begins(&world), "drain web.2, drain web.3");
}

#[test]
fn what_does_not_serve_comes_first_and_takes_up_places() {
    let mut world = changed(4, "parallelism: 2");
    world.touch("web.4", exited(1));
    assert_eq!(begins(&world), "drain web.1, remove web-4");
    world.touch("web.3", exited(1));
    assert_eq!(begins(&world), "remove web-3, remove web-4", "nothing that serves goes before");
    // One that cannot be mended now: it crashes, and is not started again yet.
    let mut world = changed(3, "parallelism: 2");
    replace(&mut world, "web.1");
    world.touch("web.1", exited(1));
    world.memory.insert(pod("web.1"), PodMemory { held: Some("crashed".to_owned()), ..PodMemory::default() });
    assert_eq!(begins(&world), "drain web.2");
    let plan = world.plan();
    let last = plan.steps.iter().rfind(|step| step.step.pod() == Some(&pod("web.3")) && step.after.is_empty());
    let why = last.and_then(|step| step.waits_for(&world.desired, &world.observed));
    assert_eq!(why.as_deref(), Some("`web.1` is not ready"));
}

#[test]
fn replicas_that_come_with_the_change_are_no_part_of_it() {
    let project =
        |scale: u32, more: &str| format!("web: {{scale: {scale}, deploy: {{update_config: {{delay: 10s}}}}{more}}}");
    let mut world = World::running(&project(1, ""), &["local"]);
    assert!(world.plan().watched.is_empty(), "nor is a first `up` any change");
    world.up(&project(2, ", user: '1'"));
    assert_eq!(begins(&world), "create web-2");
    let plan = world.plan();
    world.run(&plan, 2, |_| {});
    assert_eq!(begins(&world), "drain web.1", "`delay` is for what is replaced");
}

#[test]
fn the_next_waits_until_the_last_has_rested() {
    let mut world = changed(3, "delay: 10s");
    assert_eq!(begins(&world), "drain web.1");
    let first = world.plan();
    replace(&mut world, "web.1");
    assert_eq!(begins(&world), "", "nobody has said that it has rested");
    tell(&mut world, "web.1", false, None);
    assert_eq!(begins(&world), "");
    let plan = world.plan();
    let why = plan.steps[0].waits_for(&world.desired, &world.observed);
    assert_eq!(why.as_deref(), Some("`web.1` was replaced, and `delay` says to wait 10s after each"));
    assert!(!plan.is_stuck(&world.observed, Some(&world.desired), |_| false), "it waits for time");
    tell(&mut world, "web.1", true, None);
    assert_eq!(begins(&world), "drain web.2");
    // Nor is a plan that is older than the replacement run beyond it.
    let mut world = changed(3, "delay: 10s");
    assert_eq!(first, world.plan());
    world.run(&first, usize::MAX, |_| {});
    assert_eq!(begins(&world), "");
}

#[test]
fn what_was_said_of_an_earlier_rollout_is_not_of_this_one() {
    let mut world = changed(2, "delay: 10s");
    world.converge();
    world.up("web: {scale: 2, deploy: {update_config: {delay: 10s}}, user: '2'}");
    replace(&mut world, "web.1");
    assert_eq!(begins(&world), "");
}

#[test]
fn each_place_has_its_own_pause() {
    let mut world = changed(5, "parallelism: 2, delay: 10s");
    replace(&mut world, "web.1");
    replace(&mut world, "web.2");
    tell(&mut world, "web.2", true, None);
    assert_eq!(begins(&world), "drain web.3");
    tell(&mut world, "web.1", true, None);
    assert_eq!(begins(&world), "drain web.3, drain web.4");
}

#[test]
fn what_was_replaced_is_watched() {
    let watched = |world: &World| world.plan().watched.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut world = changed(2, "");
    assert_eq!(watched(&world), "");
    replace(&mut world, "web.1");
    replace(&mut world, "web.2");
    assert_eq!(watched(&world), "web.1 web.2", "for five seconds where the file does not say how long");
    tell(&mut world, "web.1", true, None);
    tell(&mut world, "web.2", false, Some("ended with 1"));
    assert_eq!(watched(&world), "");
}

#[test]
fn a_failure_stops_it() {
    let mut world = changed(3, "");
    replace(&mut world, "web.1");
    world.touch("web.1", exited(1));
    tell(&mut world, "web.1", false, Some("ended with 1"));
    assert_eq!(begins(&world), "start web-1", "what failed is tried on, as ever");
    assert_eq!(
        failures(&world),
        "the update of `web` is paused, 1 of 3 replicas failed: container shop-web-1 ended with 1; the others stay as they \
         are until the next `orch up`, which tries what failed again before it goes on"
    );
    assert!(world.plan().is_hopeless(), "nobody waits for it any longer");
    // The others are healed as they are.
    world.touch("web.3", exited(2));
    assert_eq!(begins(&world), "start web-1, start web-3");
    // That is so however well it does afterwards…
    world.touch("web.1", health(Health::None));
    world.touch("web.3", health(Health::None));
    assert_eq!(begins(&world), "");
    // …until the next `up`.
    world.up("web: {scale: 3, deploy: {update_config: {}}, user: '1'}");
    assert_eq!(failures(&world), "");
    // Of something else that is wanted nothing has failed.
    world.up("web: {scale: 3, deploy: {update_config: {}}, user: '2'}");
    assert_eq!((begins(&world).as_str(), failures(&world).as_str()), ("drain web.1", ""));
}

/// `web` with these replicas, of which the first is new and has failed, and asked for once more as it is.
fn asked_again(replicas: u32, config: &str, hosts: &[&str]) -> World {
    let mut world = changed_on(replicas, config, hosts);
    replace(&mut world, "web.1");
    world.touch("web.1", exited(1));
    tell(&mut world, "web.1", false, Some("ended with 1"));
    world.up(&format!("web: {{scale: {replicas}, deploy: {{update_config: {{{config}}}}}, user: '1'}}"));
    world
}

/// What the agent of its host says of a pod that has failed before.
fn tell_again(world: &mut World, name: &str, watched: bool, failure: Option<&str>) {
    tell(world, name, watched, failure);
    let rolled = world.memory.get_mut(&pod(name)).and_then(|memory| memory.rolled.as_mut());
    rolled.expect("it was told").retried = true;
}

#[test]
fn an_up_of_the_same_tries_what_failed_and_takes_no_other_before_that_is_well() {
    for config in ["", "parallelism: 2", "parallelism: 0", "parallelism: 2, max_failure_ratio: 0.3"] {
        let mut world = asked_again(4, config, &["a", "b"]);
        assert_eq!(begins(&world), "start web-1", "with {config}");
        let plan = world.plan();
        let why = plan.steps.iter().find_map(|step| step.held.clone());
        let expected = "`web.1` has failed as it shall be, and must be well for 5s before others are replaced";
        assert_eq!(why.as_deref(), Some(expected));
        assert!(!plan.is_stuck(&world.observed, Some(&world.desired), |_| false), "it waits for time");
        world.touch("web.1", health(Health::None));
        assert_eq!(begins(&world), "", "nobody has said that it is well");
        tell_again(&mut world, "web.1", false, None);
        assert_eq!(begins(&world), "");
        assert_eq!(world.plan().watched, [pod("web.1")]);
        // However often it is asked for.
        let mut again = world.clone();
        again.up(&format!("web: {{scale: 4, deploy: {{update_config: {{{config}}}}}, user: '1'}}"));
        assert_eq!(begins(&again), "");
        tell_again(&mut world, "web.1", true, None);
        assert!(begins(&world).starts_with("drain web.2"), "with {config}: {}", begins(&world));
    }
}

#[test]
fn what_fails_once_more_stops_it_once_more() {
    let mut world = asked_again(4, "", &["local"]);
    world.touch("web.1", exited(1));
    tell_again(&mut world, "web.1", false, Some("ended with 1"));
    assert_eq!(begins(&world), "start web-1");
    assert!(
        failures(&world).starts_with("the update of `web` is paused, 1 of 4 replicas failed: container shop-web-1"),
        "{}",
        failures(&world)
    );
    world.up("web: {scale: 4, deploy: {update_config: {}}, user: '1'}");
    assert_eq!((begins(&world).as_str(), failures(&world).as_str()), ("start web-1", ""));
}

#[test]
fn what_failed_on_a_host_that_does_not_answer_is_not_well() {
    let mut world = asked_again(3, "", &["a", "b", "c"]);
    let gone = world.desired.assignments.pods[&pod("web.1")].clone();
    world.observed.hosts.remove(&gone);
    assert_eq!(begins(&world), "");
}

#[test]
fn nothing_is_tried_first_where_failures_stop_nothing_or_something_else_is_wanted() {
    let mut world = asked_again(3, "failure_action: continue", &["local"]);
    world.touch("web.1", health(Health::None));
    assert_eq!(begins(&world), "drain web.2");
    let mut world = asked_again(3, "", &["local"]);
    world.up("web: {scale: 3, deploy: {update_config: {}}, user: '2'}");
    assert_eq!(begins(&world), "remove web-1");
    // Its image is another one by now: that it has failed says nothing of the new one.
    let mut world = asked_again(3, "", &["local"]);
    let host = world.observed.hosts.values_mut().next().expect("a host");
    host.images.insert("app".to_owned(), "sha256:new".to_owned());
    world.touch("web.1", health(Health::None));
    assert_eq!(begins(&world), "drain web.1");
    // Its agent notes that before it begins.
    tell(&mut world, "web.1", false, None);
    replace(&mut world, "web.1");
    assert_eq!(begins(&world), "drain web.2");
}

#[test]
fn only_what_is_replaced_is_of_the_rollout() {
    let mut world = changed(4, "parallelism: 4");
    for name in ["web.1", "web.2"] {
        replace(&mut world, name);
    }
    tell(&mut world, "web.1", false, Some("ended with 1"));
    world.up("web: {scale: 4, deploy: {update_config: {parallelism: 4}}, user: '1'}");
    let rolled = world.desired.rolled.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(rolled, "web.3 web.4", "the others are as they shall be");
    // One that is healed meanwhile is none of it.
    world.remove("web.2");
    let plan = world.plan();
    let create = plan.runnable(&BTreeSet::new(), &world.observed, Some(&world.desired));
    let create = create.into_iter().find(|step| step.step.pod() == Some(&pod("web.2"))).expect("it is made").clone();
    world.apply(&create);
    tell_again(&mut world, "web.1", false, Some("ended with 1"));
    assert!(failures(&world).contains("1 of 3 replicas failed"), "{}", failures(&world));
}

#[test]
fn what_agents_of_older_versions_do_not_say_is_not_waited_for() {
    let mut world = changed(2, "delay: 10s");
    replace(&mut world, "web.1");
    world.memory.remove(&pod("web.1"));
    assert!(world.plan().watched.is_empty());
    assert_eq!(begins(&world), "drain web.2");
}

#[test]
fn the_last_one_can_fail_too() {
    let mut world = changed(2, "");
    replace(&mut world, "web.1");
    replace(&mut world, "web.2");
    tell(&mut world, "web.2", false, Some("is unhealthy"));
    assert_eq!(failures(&world), "the update of `web` failed, 1 of 2 replicas: container shop-web-2 is unhealthy");
}

#[test]
fn so_many_failures_are_borne() {
    let mut world = changed(4, "max_failure_ratio: 0.25");
    replace(&mut world, "web.1");
    world.touch("web.1", exited(1));
    world.memory.insert(pod("web.1"), PodMemory { held: Some("crashed".to_owned()), ..PodMemory::default() });
    tell(&mut world, "web.1", false, Some("ended with 1"));
    assert_eq!(failures(&world), "");
    let notes = world.plan().notes.join("; ");
    assert!(
        notes.contains("the update of `web` goes on, 1 of 4 replicas failed: container shop-web-1 ended with 1"),
        "{notes}"
    );
    assert_eq!(begins(&world), "drain web.2", "nothing waits for what has failed");
    replace(&mut world, "web.2");
    tell(&mut world, "web.2", false, Some("is unhealthy"));
    assert_eq!(begins(&world), "");
    assert!(
        failures(&world).starts_with("the update of `web` is paused, 2 of 4 replicas failed"),
        "{}",
        failures(&world)
    );
}

#[test]
fn failures_do_not_stop_what_shall_continue() {
    let mut world = changed(3, "failure_action: continue");
    for name in ["web.1", "web.2", "web.3"] {
        replace(&mut world, name);
        world.touch(name, exited(1));
        world.memory.insert(pod(name), PodMemory { held: Some("crashed".to_owned()), ..PodMemory::default() });
        tell(&mut world, name, false, Some("ended with 1"));
    }
    assert_eq!((begins(&world).as_str(), failures(&world).as_str()), ("", ""));
}

#[test]
fn a_failure_is_remembered_while_its_host_does_not_answer() {
    let mut world = changed_on(3, "", &["a", "b", "c"]);
    replace(&mut world, "web.1");
    tell(&mut world, "web.1", false, Some("ended with 1"));
    let gone = world.desired.assignments.pods[&pod("web.1")].clone();
    world.observed.hosts.remove(&gone);
    assert_eq!(begins(&world), "");
    assert!(failures(&world).contains("paused"));
}

#[test]
fn what_shares_a_namespace_goes_with_its_owner() {
    let project = |more: &str| {
        format!(
            "{{web: {{scale: 3, deploy: {{update_config: {{parallelism: 2}}}}{more}}}, log: {{scale: 3, network_mode: 'service:web'}}}}"
        )
    };
    let mut world = World::running(&project(""), &["local"]);
    world.up(&project(", user: '1'"));
    let begun = begins(&world);
    assert!(begun.contains("web.1") && begun.contains("web.2") && !begun.contains('3'), "{begun}");
    world.converge();
}

/// Three replicas of a service that says nothing of rollouts, of which the first was replaced.
fn unsaid() -> World {
    let mut world = World::running("web: {scale: 3}", &["local"]);
    world.up("web: {scale: 3, user: '1'}");
    replace(&mut world, "web.1");
    world
}

/// What its agent makes of a pod that nobody checks.
fn run_for_a_moment(world: &mut World, name: &str, failures: u32) {
    let memory = world.memory.entry(pod(name)).or_default();
    (memory.unsteady, memory.failures) = (true, failures);
}

#[test]
fn what_nobody_checks_holds_the_next_until_it_has_run_for_a_while() {
    let mut world = unsaid();
    assert_eq!(begins(&world), "drain web.2");
    for (failures, why) in [
        (0, "`web.1` was started just now"),
        (1, "`web.1` has failed, and has not run well for long since"),
        (2, "`web.1` has failed 2 times in a row"),
    ] {
        run_for_a_moment(&mut world, "web.1", failures);
        assert_eq!(begins(&world), "");
        let plan = world.plan();
        assert_eq!(plan.steps[0].waits_for(&world.desired, &world.observed).as_deref(), Some(why));
        assert!(!plan.is_stuck(&world.observed, Some(&world.desired), |_| false), "it waits for time");
    }
    world.memory.remove(&pod("web.1"));
    assert_eq!(begins(&world), "drain web.2");
}

#[test]
fn what_is_to_be_replaced_itself_holds_nothing_back() {
    let mut world = World::running("web: {scale: 3}", &["local"]);
    for name in ["web.1", "web.2", "web.3"] {
        run_for_a_moment(&mut world, name, 5);
    }
    world.up("web: {scale: 3, user: '1'}");
    assert_eq!((begins(&world).as_str(), failures(&world).as_str()), ("drain web.1", ""));
    // Nor does what somebody asked for.
    let mut world = unsaid();
    run_for_a_moment(&mut world, "web.1", 0);
    let run = |world: &World| {
        let containers = world.observed.hosts.values().flat_map(|host| host.containers.values());
        containers.filter(|one| one.pod() == Some(pod("web.1"))).map(Run::of).next().expect("it is there")
    };
    let asked = Asked::Paused { run: run(&world) };
    world.desired.asked.insert(pod("web.1"), asked);
    assert!(begins(&world).starts_with("pause web-1"), "{}", begins(&world));
    assert!(
        world
            .plan()
            .steps
            .iter()
            .all(|step| step.waits_for(&world.desired, &world.observed)
                != Some("`web.1` was started just now".to_owned()))
    );
}

#[test]
fn who_waits_is_told_of_a_replica_that_fails_again_and_again() {
    let mut world = unsaid();
    run_for_a_moment(&mut world, "web.1", 2);
    assert_eq!(failures(&world), "");
    world.touch("web.1", exited(1));
    let held = Some("failed 3 times in a row".to_owned());
    world.memory.insert(pod("web.1"), PodMemory { failures: 3, held, ..PodMemory::default() });
    assert_eq!(begins(&world), "");
    assert_eq!(
        failures(&world),
        "the update of `web` waits: container shop-web-1 has failed 3 times in a row; the others stay as they are until it runs"
    );
    assert!(world.plan().is_hopeless(), "nobody waits for it any longer");
    // It goes on by itself.
    world.touch("web.1", health(Health::None));
    world.memory.remove(&pod("web.1"));
    assert_eq!((begins(&world).as_str(), failures(&world).as_str()), ("drain web.2", ""));
    // Without others to replace there is no update that could wait.
    world.converge();
    world.memory.insert(pod("web.1"), PodMemory { failures: 9, ..PodMemory::default() });
    assert_eq!(failures(&world), "");
}

#[test]
fn bad_health_once_is_enough_to_say_so() {
    let project = |more: &str| format!("web: {{scale: 3, healthcheck: {{test: [CMD, 'true']}}{more}}}");
    let mut world = World::running(&project(""), &["local"]);
    world.up(&project(", user: '1'"));
    replace(&mut world, "web.1");
    world.touch("web.1", health(Health::Starting));
    let condemned = Some("another".to_owned());
    world.memory.insert(pod("web.1"), PodMemory { failures: 1, condemned, ..PodMemory::default() });
    assert_eq!(
        failures(&world),
        "the update of `web` waits: container shop-web-1 was found unhealthy; the others stay as they are until it runs"
    );
    world.touch("web.1", health(Health::Healthy));
    assert_eq!((begins(&world).as_str(), failures(&world).as_str()), ("drain web.2", ""));
}
