//! As many pods as a project can have: every part of planning must be about linear, or this takes minutes.

use std::fmt::Write as _;

use crate::graph::MAX_PODS;
use crate::plan::simulate;

use super::*;

/// Plans a first `up` of so many pods, runs it, and plans to change and to remove all of it.
#[track_caller]
fn plan_all(pods: u32, project: &str, changed: &str) {
    let pods = usize::try_from(pods).expect("a number of pods");
    let mut world = World::new(project, &["local"]);
    let plan = world.plan();
    let containers = plan.steps.iter().filter(|step| matches!(step.step, crate::plan::Step::CreateContainer { .. }));
    assert_eq!(containers.count(), pods);
    assert!(!plan.runnable(&BTreeSet::new(), &world.observed, Some(&world.desired)).is_empty());
    assert!(!plan.is_stuck(&world.observed, Some(&world.desired), |_| false));
    for step in &plan.steps {
        world.apply(step);
    }
    simulate::settle(&mut world.observed, &world.desired);
    assert_eq!(world.plan().steps, []);
    world.up(changed);
    assert!(world.plan().steps.len() >= 4 * pods);
    let project = ProjectName::new("shop").expect("a name");
    let last = Some(&world.desired);
    let down = Intent::Down { project: &project, last, volumes: true, timeout: None };
    assert!(plan_down(down, &world).steps.len() >= 2 * pods);
}

fn plan_down(intent: Intent<'_>, world: &World) -> Plan {
    super::plan(intent, &world.observed, &world.memory)
}

#[test]
fn many_services_in_a_row() {
    // Half as many: the simulated engine takes longer than the plan.
    let count = MAX_PODS / 2;
    let services = |user: u32| {
        (0..count).fold(String::new(), |mut text, number| {
            let depends = match number {
                0 => String::new(),
                other => format!(", depends_on: {{s{}: {{condition: service_started, restart: true}}}}", other - 1),
            };
            // Writing to a String cannot fail.
            writeln!(text, "s{number}: {{user: '{user}'{depends}}}").ok();
            text
        })
    };
    plan_all(count, &services(1), &services(2));
}

#[test]
fn many_replicas_of_one_service() {
    let scale = MAX_PODS - 1;
    let services = |user: u32| {
        format!(
            "{{db: {{user: '{user}'}}, web: {{scale: {scale}, user: '{user}', depends_on: {{db: {{condition: service_started}}}}}}}}"
        )
    };
    plan_all(MAX_PODS, &services(1), &services(2));
}
