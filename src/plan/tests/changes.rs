//! What a change is called, what is asked beside it, and what cannot simply be changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::Step;
use super::super::fixture::{World, brief, host, pod};
use super::{HEALTHY_DB, check};

#[track_caller]
fn reason(before: &str, after: &str, expected: &str) {
    let mut world = World::running(before, &["local"]);
    world.up(after);
    let plan = world.plan();
    let reasons: BTreeSet<String> = plan.steps.iter().map(|step| super::render::reason(&step.reason)).collect();
    let reasons: Vec<&str> = reasons.iter().map(String::as_str).filter(|reason| !reason.is_empty()).collect();
    assert_eq!(reasons, [expected], "{after}");
}

#[test]
fn a_reason_says_which_keys_changed_and_never_a_value() {
    for (service, keys) in [
        ("{image: other}", "image"),
        ("{command: [a]}", "command"),
        ("{entrypoint: [a]}", "entrypoint"),
        ("{environment: {PASSWORD: hunter2}}", "environment"),
        ("{environment: {PASSWORD: null}}", "environment"),
        ("{labels: {a: b}}", "labels"),
        ("{healthcheck: {test: [CMD, x]}}", "healthcheck"),
        ("{ports: [{target: 80, published: '80', mode: host}]}", "ports"),
        ("{tmpfs: [/x]}", "volumes"),
        ("{container_name: x}", "container_name"),
        ("{environment: {A: b}, user: '1', labels: {a: b}}", "environment, labels, user"),
    ] {
        reason("web: {}", &format!("web: {service}"), &format!("configuration changed: {keys}"));
        reason(&format!("web: {service}"), "web: {}", &format!("configuration changed: {keys}"));
    }
    reason("web: {}", "web: {network_mode: host}", "configuration changed: networks");
    let volume = |name: &str| {
        format!(
            "volumes: {{data: {{name: {name}}}}}\nservices: {{web: {{volumes: [{{type: volume, source: data, target: /d}}]}}}}"
        )
    };
    let mut world = World::running(&volume("one"), &["local"]);
    world.up(&volume("two"));
    assert!(brief(&world.plan()).contains("create web-1 (configuration changed: volumes)"), "{}", brief(&world.plan()));
    // A container of an earlier orch does not tell.
    let mut world = World::running("web: {}", &["local"]);
    world.touch("web.1", |container| container.labels.clear());
    world.up("web: {user: '1'}");
    assert!(brief(&world.plan()).ends_with("start web-1 (configuration changed)"));
}

#[test]
fn options_and_labels_of_a_network_make_it_anew() {
    let project =
        |more: &str| format!("networks: {{back: {{{more}}}}}\nservices: {{web: {{networks: {{back: null}}}}}}");
    for more in [
        "driver_opts: {mtu: '1400'}",
        "labels: {a: b}",
        "attachable: true",
        "enable_ipv6: true, ipam: {config: [{subnet: 'fd00::/64'}]}",
        "ipam: {config: [{subnet: 'fd00::/64'}]}",
        "ipam: {options: {a: b}}",
    ] {
        check(
            &project(""),
            &project(more),
            "drain web.1, stop web-1, remove web-1 (network shop_back changed), \
                remove network shop_back (network shop_back changed), \
                create network back (network shop_back changed), create web-1 (network shop_back changed), \
                start web-1 (network shop_back changed)",
        );
    }
    // As it is without that.
    check(&project(""), &project("enable_ipv6: false"), "");
}

#[test]
fn a_network_of_somebody_elses_has_ipv6_where_the_file_wants_it() {
    let plan = |said| {
        let graph =
            format!("networks: {{default: {{name: shop_default, enable_ipv6: {said}}}}}\nservices: {{web: {{}}}}");
        let mut world = World::new(&graph, &["local"]);
        let plan = world.plan();
        world.run(&plan, 1, |_| {});
        let networks = &mut world.observed.hosts.get_mut(&host("local")).expect("it").networks;
        let network = networks.get_mut("shop_default").expect("it");
        network.labels.clear();
        network.ipv6 = !network.ipv6;
        brief(&world.plan())
    };
    let start = "failure: network shop_default exists but was not created for project \"shop\" and";
    assert!(plan(true).starts_with(&format!("{start} is without IPv6: remove it")), "{}", plan(true));
    assert!(plan(false).starts_with(&format!("{start} is with IPv6: remove it")), "{}", plan(false));
}

#[test]
fn a_volume_is_never_made_anew_but_its_change_is_said() {
    let project = |more: &str| {
        format!(
            "volumes: {{data: {{{more}}}}}\nservices: {{web: {{volumes: [{{type: volume, source: data, target: /d}}]}}}}"
        )
    };
    let help = "it is kept as it is, with its data; to have it made anew, save what is in it, then `orch down`, \
                `docker volume rm shop_data` and `orch up`";
    check(
        &project(""),
        &project("driver_opts: {type: tmpfs}"),
        &format!("note: volume \"data\" was made with other `driver_opts` than the file says: {help}"),
    );
    check(
        &project(""),
        &project("driver: nfs"),
        &format!("note: volume \"data\" was made with the driver local and the file says nfs: {help}"),
    );
    check(&project(""), &project("labels: {a: b}"), "");
}

#[test]
fn pods_that_shall_not_be_started_are_made_and_left() {
    let mut world = World::new(HEALTHY_DB, &["local"]);
    world.desired.unstarted = BTreeSet::from([pod("web.1"), pod("db.1")]);
    assert_eq!(brief(&world.plan()), "create network default (missing), create db-1 (missing), create web-1 (missing)");
    world.converge();
    world.remove("web.1");
    assert_eq!(brief(&world.plan()), "create web-1 (missing)");
    world.converge();
    world.up(HEALTHY_DB);
    assert_eq!(brief(&world.plan()), "start db-1 (created), start web-1 (created)");
    world.converge();
}

#[test]
fn what_runs_is_replaced_without_a_start_and_nobody_waits_for_it() {
    let project =
        "{web: {scale: 2, depends_on: {db: {condition: service_healthy}}}, db: {healthcheck: {test: [CMD, ok]}}}";
    let mut world = World::running(project, &["local"]);
    world.up(&project
        .replace("scale: 2", "scale: 2, user: '1'")
        .replace("db: {healthcheck", "db: {user: '1', healthcheck"));
    world.desired.unstarted = BTreeSet::from([pod("web.1"), pod("web.2"), pod("db.1")]);
    world.converge();
    assert!(
        !world
            .observed
            .hosts
            .values()
            .any(|host| host.containers.values().any(crate::observed::ObservedContainer::is_running))
    );
    // One that is not asked for goes on by itself.
    let mut world = World::running(project, &["local"]);
    world.up(project);
    world.desired.unstarted = BTreeSet::from([pod("db.1")]);
    world.remove("db.1");
    world.remove("web.1");
    assert_eq!(brief(&world.plan()), "create db-1 (missing), create web-1 (missing), start web-1 (missing)");
    world.converge();
    let sidecar = "{web: {}, log: {network_mode: 'service:web'}}";
    let mut world = World::new(sidecar, &["local"]);
    world.desired.unstarted = BTreeSet::from([pod("web.1")]);
    world.converge();
    assert_eq!(brief(&world.plan()), "note: `log.1` is not started now: waits for `web.1`, which shall not be started");
}

#[test]
fn a_time_that_is_asked_for_goes_before_the_services_own() {
    let mut world = World::running("{web: {scale: 2, stop_grace_period: 30s}, old: {}}", &["local"]);
    world.up("web: {user: '1', stop_grace_period: 30s}");
    world.desired.remove_orphans = true;
    world.desired.stop_timeout = Some(Duration::from_secs(3));
    let graces: Vec<Duration> = world
        .plan()
        .steps
        .into_iter()
        .filter_map(|planned| match planned.step {
            Step::StopContainer { grace, .. } => Some(grace),
            Step::Drain { deadline, .. } => Some(deadline),
            _ => None,
        })
        .collect();
    assert_eq!(graces, [Duration::from_secs(3); 5], "two of them drain");
}

#[test]
fn weights_for_hosts_that_nobody_knows_are_noted_where_there_are_several() {
    let note = "note: `x-balance.weights` of `web` is for host `c`, and no host of that name answers";
    for (hosts, expected) in [(&["a", "b"][..], note), (&["a", "c"], ""), (&["local"], "")] {
        let mut world = World::running("web: {}", hosts);
        for service in world.desired.graph.services.values_mut() {
            service.serving.balance.weights = BTreeMap::from([(host(hosts[0]), 10), (host("c"), 20)]);
        }
        assert_eq!(brief(&world.plan()), expected, "{hosts:?}");
    }
}

#[test]
fn replicas_that_move_do_so_one_after_the_other_while_the_others_serve_where_they_are() {
    let project = "web: {scale: 4}";
    let mut world = World::running(project, &["a", "b"]);
    world.hosts.get_mut(&host("a")).expect("the host").draining = true;
    world.up(project);
    let ready = |world: &World, on: &str| {
        world.observed.hosts[&host(on)].containers.values().filter(|container| container.is_ready()).count()
    };
    let plan = world.plan();
    let done = world.run(&plan, usize::MAX, |world| assert!(ready(world, "a") + ready(world, "b") >= 3));
    assert_eq!((done, ready(&world, "b")), (plan.steps.len(), 4), "{}", brief(&plan));
}
