//! How long containers live, what is run in them on the way, and whose mounts they have.

use std::time::Duration;

use super::*;
use crate::graph::{Hook, Namespace, RestartPace, VolumesFrom};

#[test]
fn a_restart_policy_counts_instead_of_restart() {
    let of = |policy: &str| {
        let graph = graph(&format!("{{a: {{restart: 'no', deploy: {{restart_policy: {{{policy}}}}}}}}}"));
        let service = &graph.services[&name("a")];
        (service.restart, service.restart_pace.clone())
    };
    let pace = |delay, window: Option<u64>, max_attempts| RestartPace {
        delay: Duration::from_secs(delay),
        window: window.map(Duration::from_secs),
        max_attempts,
    };
    assert_eq!(of("condition: none"), (Restart::No, pace(0, None, None)));
    // Words of `restart`, which people write here too.
    assert_eq!(of("condition: no"), (Restart::No, pace(0, None, None)));
    assert_eq!(of("condition: always, delay: 1s"), (Restart::Always, pace(1, None, None)));
    assert_eq!(of("condition: unless-stopped"), (Restart::UnlessStopped, pace(0, None, None)));
    assert_eq!(of("condition: any"), (Restart::UnlessStopped, pace(0, None, None)));
    assert_eq!(of("delay: 5s, window: 1m0s"), (Restart::UnlessStopped, pace(5, Some(60), None)));
    let counted = of("condition: on-failure, max_attempts: 3, delay: 2s");
    assert_eq!(counted, (Restart::OnFailure { max_attempts: Some(3) }, pace(2, None, None)));
    assert_eq!(of("condition: any, max_attempts: 2"), (Restart::UnlessStopped, pace(0, None, Some(2))));
    let endless = of("condition: on-failure, max_attempts: 0, delay: 0s");
    assert_eq!(endless, (Restart::OnFailure { max_attempts: None }, pace(0, None, None)));
}

#[test]
fn hooks_have_a_command_and_change_the_hash() {
    let hooks = "post_start: [{command: [a, b], environment: {A: '1', B: null}, user: u, working_dir: /w, privileged: true}], \
        pre_stop: [{command: [c]}]";
    let done = graph(&format!("{{a: {{{hooks}}}, b: {{}}}}"));
    let service = &done.services[&name("a")];
    let first = Hook {
        command: vec!["a".to_owned(), "b".to_owned()],
        environment: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
        unset: BTreeSet::from(["B".to_owned()]),
        user: Some("u".to_owned()),
        working_dir: Some("/w".to_owned()),
        privileged: true,
    };
    assert_eq!(service.container.post_start, [first]);
    assert_eq!(service.container.pre_stop, [Hook { command: vec!["c".to_owned()], ..Hook::default() }]);
    let keys: Vec<&str> = service.spec_parts.keys().map(String::as_str).collect();
    assert_eq!(keys, ["image", "networks", "post_start", "pre_stop"]);
    refused(
        "{a: {pre_stop: [{command: null}]}}",
        "services.a.pre_stop[0].command: `` is not a valid command, expected what is to be run in the container",
    );
}

#[test]
fn volumes_from_name_a_service_or_a_container() {
    let done = graph("{a: {volumes_from: ['b:ro', 'container:c', 'container:d:ro']}, b: {}}");
    let from = |of: Namespace, read_only| VolumesFrom { of, read_only };
    let engine = |text: &str| Namespace::Engine(text.to_owned());
    let expected = [
        from(Namespace::Service(name("b")), true),
        from(engine("container:c"), false),
        from(engine("container:d"), true),
    ];
    assert_eq!(done.services[&name("a")].container.volumes_from, expected);
    assert_eq!(done.namespace_root(&name("a")), &name("b"), "they are placed together");
    let expected = "expected `SERVICE` or `container:NAME`, and after it `:ro` or `:rw`";
    refused(
        "{a: {volumes_from: ['b:x']}, b: {}}",
        &format!("services.a.volumes_from[0]: `b:x` is not a valid source of volumes, {expected}"),
    );
    refused("{a: {volumes_from: [nix]}}", "services.a.volumes_from[0]: no such service: nix");
    refused(
        "{a: {scale: 2, volumes_from: [b]}, b: {}}",
        "services.a.volumes_from: 2 replicas are to share the volumes of `b`, one with each of its replicas, which are 1",
    );
}

#[test]
fn a_rollout_is_as_the_file_says_or_as_in_a_swarm() {
    use crate::graph::{OnFailure, Rollout};
    let of = |config: &str| {
        let graph = graph(&format!("{{a: {{deploy: {{update_config: {config}}}}}}}"));
        graph.services[&name("a")].rollout.clone()
    };
    let plain = Rollout {
        parallelism: 1,
        delay: Duration::ZERO,
        monitor: Duration::from_secs(5),
        on_failure: OnFailure::Pause,
        failures_borne: 0,
    };
    assert_eq!(of("null"), None);
    assert_eq!(of("{}"), Some(plain.clone()));
    assert_eq!(of("{order: stop-first, failure_action: pause}"), Some(plain));
    let all = "{parallelism: 0, delay: 1m30s, monitor: 1m0s, failure_action: continue, max_failure_ratio: 0.25}";
    let said = Rollout {
        parallelism: 0,
        delay: Duration::from_secs(90),
        monitor: Duration::from_mins(1),
        on_failure: OnFailure::Continue,
        failures_borne: 250_000,
    };
    assert!(said.is_too_much(2, 4) && !said.is_too_much(1, 4) && !said.is_too_much(0, 0));
    assert_eq!(of(all), Some(said));
    for (config, complaint) in [
        ("max_failure_ratio: 1.5", "max_failure_ratio: a share of 1.5 is not supported, give one from 0 to 1"),
        ("order: start-first", "order: `start-first` is not supported, use `stop-first`"),
        ("failure_action: rollback", "failure_action: `rollback` is not supported, use `pause` or `continue`"),
    ] {
        refused(
            &format!("{{a: {{deploy: {{update_config: {{{config}}}}}}}}}"),
            &format!("services.a.deploy.update_config.{complaint}"),
        );
    }
    refused(
        "{a: {}, b: {network_mode: 'service:a', deploy: {update_config: {}}}}",
        "services.b.deploy.update_config: is for nothing here: its replicas are replaced together with those of `a`, whose \
         network or volumes they share",
    );
}

#[test]
fn how_it_is_rolled_out_makes_no_container_anew() {
    let of = |config: &str| graph(&format!("{{a: {{{config}}}}}")).services[&name("a")].spec_hash.clone();
    assert_eq!(of(""), of("deploy: {update_config: {parallelism: 3}}"));
}
