//! Tables: what a change of the file, or of the world, makes of a running project.

use crate::observed::{ContainerState, Health, ObservedNetwork};

use super::fixture::{World, brief, host, pod};
use super::{Intent, plan};

/// `before` runs on one host, `after` is wanted: the plan says `expected`.
#[track_caller]
fn check(before: &str, after: &str, expected: &str) {
    let mut world = World::running(before, &["local"]);
    world.up(after);
    assert_eq!(brief(&world.plan()), expected);
    world.converge();
}

/// `project` runs on one host and `trouble` comes over it: the plan says `expected`.
#[track_caller]
fn heal(project: &str, trouble: impl FnOnce(&mut World), expected: &str) {
    let mut world = World::running(project, &["local"]);
    trouble(&mut world);
    assert_eq!(brief(&world.plan()), expected);
}

fn exited(code: i32, by_itself: bool) -> impl FnOnce(&mut crate::observed::ObservedContainer) {
    move |container| container.state = ContainerState::Exited { code, by_itself }
}

#[test]
fn a_first_up() {
    let mut world = World::new("{web: {}, db: {}}", &["local"]);
    let expected = "create network default (missing), create db-1 (missing), create web-1 (missing), start db-1 (missing), \
                    start web-1 (missing)";
    assert_eq!(brief(&world.plan()), expected);
    world.converge();
}
