//! Tables: what a change of the file, or of the world, makes of a running project.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::ProjectName;
use crate::observed::{ContainerState, Health, ObservedContainer, PodMemory};

use super::fixture::{World, brief, host, pod};
use super::{Intent, Plan, plan, render};

/// `before` runs on one host, `after` is wanted: the plan says `expected`, and leads there.
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

fn state(state: ContainerState) -> impl FnOnce(&mut ObservedContainer) {
    move |container| container.state = state
}

fn exited(code: i32) -> impl FnOnce(&mut ObservedContainer) {
    state(ContainerState::Exited { code, by_itself: true })
}

fn killed(code: i32) -> impl FnOnce(&mut ObservedContainer) {
    state(ContainerState::Exited { code, by_itself: false })
}

fn health(health: Health) -> impl FnOnce(&mut ObservedContainer) {
    state(ContainerState::Running { health })
}

mod adopted;
mod asked;
mod changes;
mod companions;
mod large;
mod oneoffs;
mod pods;
mod prestart;
mod probed;
mod rollout;
mod unplaced;

const HEALTHY_DB: &str =
    "{web: {depends_on: {db: {condition: service_healthy}}}, db: {healthcheck: {test: [CMD, ok]}}}";
const JOB: &str = "{web: {depends_on: {job: {condition: service_completed_successfully}}}, job: {}}";
const SIDECAR: &str = "{web: {scale: 2}, log: {scale: 2, network_mode: 'service:web'}}";

#[test]
fn a_first_up_makes_networks_then_containers_then_starts_them_in_order() {
    let world = World::new("{web: {depends_on: {db: {condition: service_started}}}, db: {}}", &["local"]);
    assert_eq!(
        brief(&world.plan()),
        "create network default (missing), create db-1 (missing), create web-1 (missing), \
            start db-1 (missing), start web-1 (missing)"
    );
    let volume = "volumes: {data: {}}\nservices: {db: {volumes: [{type: volume, source: data, target: /data}]}}";
    assert_eq!(
        brief(&World::new(volume, &["local"]).plan()),
        "create network default (missing), create volume data (missing), create db-1 (missing), \
            start db-1 (missing)"
    );
}

#[test]
fn nothing_changed_is_nothing_to_do() {
    check(HEALTHY_DB, HEALTHY_DB, "");
}

#[test]
fn scaling() {
    check(
        "web: {}",
        "web: {scale: 3}",
        "create web-2 (missing), create web-3 (missing), start web-2 (missing), start web-3 (missing)",
    );
    check(
        "web: {scale: 3}",
        "web: {scale: 1}",
        "drain web.3, stop web-3, remove web-3 (scaled down to 1), drain web.2, stop web-2, \
            remove web-2 (scaled down to 1)",
    );
    check(
        "web: {scale: 2}",
        "web: {scale: 0}",
        "stop web-2, remove web-2 (scaled down to 0), stop web-1, remove web-1 (scaled down to 0)",
    );
}

#[test]
fn a_changed_spec_is_a_new_container() {
    check(
        "web: {}",
        "web: {environment: {A: b}}",
        "drain web.1, stop web-1, remove web-1 (configuration changed: environment), \
            create web-1 (configuration changed: environment), start web-1 (configuration changed: environment)",
    );
    check(
        "{a: {}, b: {}}",
        "{a: {hostname: x}, b: {}}",
        "drain a.1, stop a-1, remove a-1 (configuration changed: hostname), create a-1 (configuration changed: hostname), \
            start a-1 (configuration changed: hostname)",
    );
    // What can change without: the number, order, policy, and the ports of the load balancer.
    check("web: {}", "web: {restart: always, ports: [{target: 80, published: '80'}], stop_grace_period: 1s}", "");
    check(
        "web: {}",
        "web: {ports: [{target: 80, published: '80', mode: host}]}",
        "drain web.1, stop web-1, remove web-1 (configuration changed: ports), \
            create web-1 (configuration changed: ports), start web-1 (configuration changed: ports)",
    );
}

#[test]
fn replicas_are_replaced_one_at_a_time() {
    check(
        "web: {scale: 2}",
        "web: {scale: 2, user: '1'}",
        "drain web.1, stop web-1, remove web-1 (configuration changed: user), \
            create web-1 (configuration changed: user), start web-1 (configuration changed: user), drain web.2, \
            stop web-2, remove web-2 (configuration changed: user), create web-2 (configuration changed: user), \
            start web-2 (configuration changed: user)",
    );
    check(
        "web: {scale: 2}",
        "web: {scale: 3, user: '1'}",
        "create web-3 (missing), start web-3 (missing), drain web.1, stop web-1, \
            remove web-1 (configuration changed: user), create web-1 (configuration changed: user), \
            start web-1 (configuration changed: user), drain web.2, stop web-2, \
            remove web-2 (configuration changed: user), create web-2 (configuration changed: user), \
            start web-2 (configuration changed: user)",
    );
}

#[test]
fn a_rollout_waits_for_the_other_replicas() {
    let healthy = "web: {scale: 2, healthcheck: {test: [CMD, ok]}}";
    let mut world = World::running(healthy, &["local"]);
    world.up("web: {scale: 2, user: '1', healthcheck: {test: [CMD, ok]}}");
    let plan = world.plan();
    assert_eq!(world.run(&plan, usize::MAX, |_| {}), 5, "one replica, which is not healthy yet");
    let next = world.plan();
    assert_eq!(next.steps[0].waits_for(&world.desired, &world.observed).as_deref(), Some("`web.1` is not ready"));
    world.touch("web.1", health(Health::Unhealthy));
    assert_eq!(
        brief(&world.plan()),
        "stop web-1, remove web-1 (unhealthy), create web-1 (unhealthy), start web-1 (unhealthy), \
            drain web.2, stop web-2, remove web-2 (configuration changed: user), \
            create web-2 (configuration changed: user), start web-2 (configuration changed: user)"
    );
    world.touch("web.1", health(Health::Healthy));
    assert_eq!(world.run(&next, usize::MAX, |_| {}), 5);
}

#[test]
fn services_that_go_away_are_orphans() {
    check(
        "{web: {}, old: {}}",
        "web: {}",
        "\
            note: Found orphan containers ([shop-old-1]) for this project. If you removed or renamed this service in your compose file, \
            you can run this command with the --remove-orphans flag to clean it up.",
    );
    let mut world = World::running("{web: {}, old: {}}", &["local"]);
    world.up("web: {}");
    world.desired.remove_orphans = true;
    assert_eq!(brief(&world.plan()), "stop old-1, remove old-1 (its service is not in the file any more)");
    world.desired.graph.disabled.insert("old".parse().expect("a name"));
    assert_eq!(brief(&world.plan()), "");
}

#[test]
fn services_that_up_did_not_name_are_left_alone() {
    let mut world = World::running("{web: {depends_on: {db: {condition: service_started}}}, db: {}}", &["local"]);
    world.desired.enabled = ["web".parse().expect("a name")].into();
    world.remove("db.1");
    world.touch("web.1", killed(137));
    assert_eq!(brief(&world.plan()), "start web-1 (stopped by hand, 137)");
    assert_eq!(world.plan().steps[0].gates, []);
}

#[test]
fn what_was_stopped_or_removed_by_hand_comes_back() {
    heal("web: {}", |world| world.touch("web.1", killed(137)), "start web-1 (stopped by hand, 137)");
    heal("web: {}", |world| world.remove("web.1"), "create web-1 (missing), start web-1 (missing)");
    heal("web: {}", |world| world.touch("web.1", state(ContainerState::Paused)), "unpause web-1 (paused by hand)");
    heal("web: {}", |world| world.touch("web.1", state(ContainerState::Created)), "start web-1 (created)");
    heal(
        "web: {}",
        |world| world.touch("web.1", state(ContainerState::Dead)),
        "remove web-1 (left over from an earlier run), create web-1 (left over from an earlier run), \
            start web-1 (left over from an earlier run)",
    );
    heal(
        "web: {restart: 'no'}",
        |world| world.touch("web.1", killed(137)),
        "note: `web.1` exited with 137 and is not started again",
    );
}

#[test]
fn restart_rules_after_an_end_by_itself() {
    for (restart, code, expected) in [
        ("", 0, ""),
        ("", 1, "start web-1 (exited with 1)"),
        ("restart: 'no'", 0, ""),
        ("restart: 'no'", 1, "note: `web.1` exited with 1 and is not started again"),
        ("restart: always", 0, "start web-1 (exited with 0)"),
        ("restart: unless-stopped", 1, "start web-1 (exited with 1)"),
        ("restart: on-failure", 0, ""),
        ("restart: on-failure", 1, "start web-1 (exited with 1)"),
    ] {
        heal(&format!("web: {{{restart}}}"), |world| world.touch("web.1", exited(code)), expected);
    }
    let tired = |failures: u32| {
        move |world: &mut World| {
            world.touch("web.1", exited(1));
            world.memory.entry(pod("web.1")).or_default().failures = failures;
        }
    };
    heal("web: {restart: 'on-failure:2'}", tired(2), "start web-1 (exited with 1)");
    heal("web: {restart: 'on-failure:2'}", tired(3), "note: `web.1` exited with 1 and is not started again");
}

#[test]
fn who_is_held_back_is_said_and_left() {
    let held = |world: &mut World| {
        world.memory.entry(pod("web.1")).or_default().held = Some("crashed 3 times, next start in 4 s".to_owned());
    };
    heal(
        "web: {}",
        |world| {
            world.touch("web.1", exited(1));
            held(world);
        },
        "note: `web.1` is not started now: crashed 3 times, next start in 4 s",
    );
    heal(
        "web: {}",
        |world| {
            world.touch("web.1", health(Health::Unhealthy));
            held(world);
        },
        "note: `web.1` is unhealthy, and not made anew yet: crashed 3 times, next start in 4 s",
    );
    heal(
        "web: {}",
        |world| {
            world.touch("web.1", health(Health::Unhealthy));
        },
        "stop web-1, remove web-1 (unhealthy), create web-1 (unhealthy), start web-1 (unhealthy)",
    );
}

#[test]
fn a_new_spec_is_not_held_back() {
    let mut world = World::running("web: {}", &["local"]);
    world.touch("web.1", exited(1));
    world.memory.insert(pod("web.1"), PodMemory { held: Some("crashed".to_owned()), ..PodMemory::default() });
    world.up("web: {user: '1'}");
    assert_eq!(
        brief(&world.plan()),
        "remove web-1 (configuration changed: user), create web-1 (configuration changed: user), \
            start web-1 (configuration changed: user)"
    );
}

#[test]
fn dependents_wait_for_health() {
    let mut world = World::new(HEALTHY_DB, &["local"]);
    let plan = world.plan();
    world.run(&plan, usize::MAX, |_| {});
    let next = world.plan();
    assert_eq!(brief(&next), "start web-1 (created)");
    let waits = |world: &World| next.steps[0].waits_for(&world.desired, &world.observed);
    assert_eq!(waits(&world).as_deref(), Some("container shop-db-1 is not healthy yet"));
    world.touch("db.1", health(Health::Healthy));
    assert_eq!(waits(&world), None);
    world.touch("db.1", health(Health::Unhealthy));
    let failure = |world: &World| world.plan().failures.iter().map(ToString::to_string).collect::<String>();
    assert_eq!(failure(&world), "dependency failed to start: container shop-db-1 is unhealthy");
    world.touch("db.1", health(Health::None));
    assert_eq!(failure(&world), "dependency failed to start: container shop-db-1 has no healthcheck configured");
}

#[test]
fn jobs_run_once_for_each_up() {
    let mut world = World::running(JOB, &["local"]);
    assert_eq!(brief(&world.plan()), "");
    world.remove("job.1");
    assert_eq!(brief(&world.plan()), "", "who ended well need not come back");
    world.remove("web.1");
    assert_eq!(
        brief(&world.plan()),
        "create job-1 (missing), create web-1 (missing), start job-1 (missing), start web-1 (missing)",
        "unless somebody waits for it again"
    );
    world.converge();
    world.up(JOB);
    assert_eq!(brief(&world.plan()), "start job-1 (exited with 0)");
}

#[test]
fn a_failed_job_fails_who_waits_for_it() {
    let mut world = World::new(JOB, &["local"]);
    let plan = world.plan();
    world.run(&plan, usize::MAX, |_| {});
    world.touch("job.1", exited(7));
    assert_eq!(
        brief(&world.plan()),
        "start web-1 (created), note: `job.1` exited with 7 and is not started again, \
            failure: service \"job\" didn't complete successfully: exit 7"
    );
    let optional = "{web: {depends_on: {job: {condition: service_completed_successfully, required: false}}}, \
            job: {}}";
    let mut world = World::new(optional, &["local"]);
    let plan = world.plan();
    world.run(&plan, usize::MAX, |_| {});
    world.touch("job.1", exited(7));
    let plan = world.plan();
    assert_eq!(
        brief(&plan),
        "start web-1 (created), note: `job.1` exited with 7 and is not started again, \
            note: optional dependency `job`: service \"job\" didn't complete successfully: exit 7"
    );
    assert_eq!(world.run(&plan, usize::MAX, |_| {}), 1, "the dependent starts all the same");
}

#[test]
fn a_crash_does_not_wait_for_dependencies_but_a_reboot_does() {
    let mut world = World::running(HEALTHY_DB, &["local"]);
    world.touch("db.1", health(Health::Starting));
    world.touch("web.1", exited(1));
    assert_eq!(world.plan().steps[0].gates, []);
    world.touch("db.1", killed(255));
    world.touch("web.1", killed(255));
    assert_eq!(brief(&world.plan()), "start db-1 (stopped by hand, 255), start web-1 (stopped by hand, 255)");
}

#[test]
fn restart_true_takes_dependents_along() {
    let project = |user: u8, scale: u8| {
        format!(
            "{{db: {{user: '{user}'}}, web: {{scale: {scale}, \
                depends_on: {{db: {{condition: service_started, restart: true}}}}}}}}"
        )
    };
    check(
        &project(1, 1),
        &project(2, 1),
        "drain web.1, stop web-1 (goes with `db`), drain db.1, stop db-1, \
            remove db-1 (configuration changed: user), create db-1 (configuration changed: user), \
            start db-1 (configuration changed: user), start web-1 (goes with `db`)",
    );
    check(
        &project(1, 2),
        &project(2, 2),
        "drain db.1, stop db-1, remove db-1 (configuration changed: user), \
            create db-1 (configuration changed: user), start db-1 (configuration changed: user), drain web.1, \
            stop web-1 (goes with `db`), start web-1 (goes with `db`), drain web.2, \
            stop web-2 (goes with `db`), start web-2 (goes with `db`)",
    );
    // Cut off after the dependency: the dependent's last start is of an earlier `up` than the other container.
    let mut world = World::running(&project(1, 2), &["local"]);
    world.up(&project(2, 2));
    let plan = world.plan();
    world.run(&plan, 5, |_| {});
    assert_eq!(
        brief(&world.plan()),
        "drain web.1, stop web-1 (goes with `db`), start web-1 (goes with `db`), drain web.2, \
            stop web-2 (goes with `db`), start web-2 (goes with `db`)"
    );
}

#[test]
fn who_shares_a_namespace_goes_with_its_owner() {
    check(
        SIDECAR,
        &SIDECAR.replace("web: {", "web: {user: '1', "),
        "drain web.1, stop log-1, remove log-1 (goes with `web`), stop web-1, \
            remove web-1 (configuration changed: user), create web-1 (configuration changed: user), \
            create log-1 (goes with `web`), start web-1 (configuration changed: user), \
            start log-1 (goes with `web`), drain web.2, stop log-2, remove log-2 (goes with `web`), \
            stop web-2, remove web-2 (configuration changed: user), create web-2 (configuration changed: user), \
            create log-2 (goes with `web`), start web-2 (configuration changed: user), \
            start log-2 (goes with `web`)",
    );
    heal(
        SIDECAR,
        |world| world.touch("web.2", exited(1)),
        "stop log-2 (goes with `web`), start web-2 (exited with 1), start log-2 (goes with `web`)",
    );
    heal(
        SIDECAR,
        |world| world.remove("web.1"),
        "stop log-1, remove log-1 (goes with `web`), create web-1 (missing), \
            create log-1 (goes with `web`), start web-1 (missing), start log-1 (goes with `web`)",
    );
    heal(
        SIDECAR,
        |world| world.touch("web.1", |c| c.started_at = "2030-01-01T00:00:00.5Z".to_owned()),
        "stop log-1 (goes with `web`), start log-1 (goes with `web`)",
    );
}

#[test]
fn images_and_the_users_wish() {
    heal(
        "web: {}",
        |world| world.touch("web.1", |c| c.image_id = "sha256:old".to_owned()),
        "drain web.1, stop web-1, remove web-1 (image changed), create web-1 (image changed), \
            start web-1 (image changed)",
    );
    heal(
        "web: {}",
        |world| world.touch("web.1", |c| c.spec_hash = None),
        "drain web.1, stop web-1, remove web-1 (configuration changed: made by Docker Compose), \
            create web-1 (configuration changed: made by Docker Compose), \
            start web-1 (configuration changed: made by Docker Compose)",
    );
    let mut world = World::running("web: {}", &["local"]);
    world.up("web: {user: '1'}");
    world.desired.no_recreate = true;
    assert_eq!(brief(&world.plan()), "");
    let mut world = World::running("{web: {}, db: {}}", &["local"]);
    world.up("{web: {}, db: {}}");
    world.desired.recreate_before.insert("web".parse().expect("a name"), world.desired.generation);
    assert_eq!(
        brief(&world.plan()),
        "drain web.1, stop web-1, remove web-1 (asked for), create web-1 (asked for), \
            start web-1 (asked for)"
    );
    world.converge();
}

#[test]
fn networks_that_differ_are_made_anew_with_all_on_them() {
    let set = |internal: bool| {
        format!(
            "networks: {{back: {{internal: {internal}}}}}\nservices: {{web: {{scale: 2, networks: {{back: null}}}}, db: {{}}}}"
        )
    };
    check(
        &set(false),
        &set(true),
        "drain web.1, stop web-1, remove web-1 (network shop_back changed), drain web.2, stop web-2, \
            remove web-2 (network shop_back changed), \
            remove network shop_back (network shop_back changed), \
            create network back (network shop_back changed), create web-1 (network shop_back changed), \
            create web-2 (network shop_back changed), start web-1 (network shop_back changed), \
            start web-2 (network shop_back changed)",
    );
    let gone = |world: &mut World| {
        world.touch("web.1", killed(137));
        world.observed.hosts.get_mut(&host("local")).expect("the host").networks.clear();
    };
    heal(
        "web: {}",
        gone,
        "remove web-1 (network shop_default changed), create network default (missing), \
            create web-1 (network shop_default changed), start web-1 (network shop_default changed)",
    );
}

#[test]
fn networks_and_volumes_of_others() {
    let mut world = World::new("web: {}", &["local"]);
    let plan = world.plan();
    world.run(&plan, 1, |_| {});
    let network = |world: &mut World, change: fn(&mut crate::observed::ObservedNetwork)| {
        change(world.observed.hosts.get_mut(&host("local")).expect("it").networks.get_mut("shop_default").expect("it"));
    };
    network(&mut world, |network| network.labels.clear());
    assert_eq!(
        brief(&world.plan()),
        "create web-1 (missing), start web-1 (missing), \
            note: network shop_default exists but was not created for project \"shop\": set `external: true` to use an existing network"
    );
    network(&mut world, |network| network.subnet = None);
    assert_eq!(
        brief(&world.plan()),
        "\
            failure: network shop_default exists but was not created for project \"shop\" and has no subnet instead of 10.100.0.0/20: remove it, \
            give this one another `name`, or set `external: true` to use it as it is"
    );
    let external = "networks: {out: {external: true, name: out}}\nservices: {web: {networks: {out: null}}}";
    assert_eq!(
        brief(&World::new(external, &["local"]).plan()),
        "failure: network out declared as external, but could not be found"
    );
}

/// Puts a container beside that of `web.1` which says that it is the same.
fn twin(world: &mut World, change: fn(&mut ObservedContainer)) {
    let containers = &mut world.observed.hosts.get_mut(&host("local")).expect("the host").containers;
    let mut twin = containers.values().next().expect("a container").clone();
    (twin.id, twin.name) = ("ffff".to_owned(), "0123456789ab_shop-web-1".to_owned());
    change(&mut twin);
    containers.insert("ffff".to_owned(), twin);
}

#[test]
fn left_overs_and_one_offs() {
    heal(
        "web: {}",
        |world| twin(world, |twin| twin.state = ContainerState::Created),
        "remove container 0123456789ab_shop-web-1 (left over from an earlier run)",
    );
    heal(
        "web: {}",
        |world| twin(world, |twin| twin.number = Some(7)),
        "drain web.7, stop container 0123456789ab_shop-web-1, \
            remove container 0123456789ab_shop-web-1 (scaled down to 1)",
    );
    heal("web: {}", |world| twin(world, |twin| twin.oneoff = true), "");
}

#[test]
fn several_hosts() {
    let mut world = World::running("web: {scale: 2}", &["a", "b"]);
    world.hosts.get_mut(&host("a")).expect("the host").draining = true;
    world.up("web: {scale: 2}");
    assert_eq!(
        brief(&world.plan()),
        "drain web.1 on a, stop web-1 on a, remove web-1 on a (moved to b), \
            create web-1 on b (moved to b), start web-1 on b (moved to b)"
    );
    world.observed.hosts.remove(&host("b"));
    assert_eq!(
        brief(&world.plan()),
        "note: host `b` does not answer: `web.1` is left as it is, \
            note: host `b` does not answer: `web.2` is left as it is"
    );
}

fn down(world: &World, volumes: bool, known: bool) -> Plan {
    let project = ProjectName::new("shop").expect("a name");
    let last = known.then_some(&world.desired);
    plan(Intent::Down { project: &project, last, volumes, timeout: None }, &world.observed, &world.memory)
}

#[test]
fn going_down_is_the_way_up_backwards() {
    let project = "volumes: {data: {}}\nservices: {web: {depends_on: {db: {condition: service_started}}}, db: {volumes: [{type: volume, source: data, target: /d}]}}";
    let mut world = World::running(project, &["local"]);
    assert_eq!(
        brief(&down(&world, false, true)),
        "stop web-1 (going down), remove web-1 (going down), stop db-1 (going down), \
            remove db-1 (going down), remove network shop_default (going down)"
    );
    assert_eq!(
        brief(&down(&world, true, true)),
        "stop web-1 (going down), remove web-1 and its anonymous volumes (going down), \
            stop db-1 (going down), remove db-1 and its anonymous volumes (going down), \
            remove network shop_default (going down), remove volume shop_data with its data (going down)"
    );
    world.touch("web.1", |c| {
        c.labels.insert("com.docker.compose.depends_on".to_owned(), "db:service_started:false".to_owned());
    });
    world.touch("db.1", state(ContainerState::Paused));
    assert_eq!(
        brief(&down(&world, false, false)),
        "stop web-1 (going down), unpause db-1, stop db-1 (going down), remove db-1 (going down), \
            remove web-1 (going down), remove network shop_default (going down)",
        "the labels know the order, too"
    );
}

#[test]
fn stopping_keeps_the_containers() {
    let world = World::running("{web: {depends_on: {db: {condition: service_started}}}, db: {}}", &["local"]);
    let project = ProjectName::new("shop").expect("a name");
    let timeout = Some(Duration::from_secs(3));
    let intent = Intent::Stop { project: &project, last: Some(&world.desired), timeout };
    assert_eq!(brief(&plan(intent, &world.observed, &world.memory)), "stop web-1 (asked for), stop db-1 (asked for)");
}

#[test]
fn a_plan_reads_well() {
    let mut world = World::running("{web: {scale: 2}, db: {}, old: {}}", &["a", "b"]);
    world.up("volumes: {data: {}}\nservices: {web: {scale: 3, user: '1'}, db: {volumes: [{type: volume, source: data, target: /d}]}}");
    insta::assert_snapshot!(render::render(&world.plan()));
    insta::assert_snapshot!(render::render(&World::running("web: {}", &["a"]).plan()));
}
