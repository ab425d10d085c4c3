//! Cases of what is made, started, stopped and removed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;

use super::super::{ContainerSpec, ExecSpec, LogQuery, NetworkSpec, SpecAttachment, SpecNetwork, VolumeSpec, label};
use super::{World, conflict, container, labels, member, name, network, not_found, observed, start};
use crate::graph::{Mount, MountSource};
use crate::observed::{ContainerState, ObservedContainer};

pub(super) async fn says_what_it_is(world: &dyn World) {
    let info = world.engine().info().await.expect("the engine answers");
    assert!(!info.version.is_empty() && !info.facts.id.is_empty(), "{info:?}");
    assert!(info.facts.nano_cpus >= 1_000_000_000 && info.facts.memory > 0, "{info:?}");
    assert_eq!(info.facts.os, "linux");
}

pub(super) async fn networks_are_made_once(world: &dyn World) {
    let engine = world.engine();
    let spec = network(world, "net", 0);
    let id = engine.ensure_network(&spec).await.expect("can be made");
    assert_eq!(engine.ensure_network(&spec).await.expect("is there"), id);
    let host = engine.observe(Some(&world.project())).await.expect("the engine answers");
    let seen = &host.networks[&spec.name];
    assert_eq!((seen.subnet, seen.gateway), (Some(spec.subnet), Some(spec.gateway)));
    assert_eq!((seen.id.as_str(), seen.internal), (id.as_str(), false));
    assert!(!seen.bridge.is_empty() && seen.bridge.len() < 16, "{seen:?}");
    assert!(!seen.ipv6, "{seen:?}");
    conflict(&engine.ensure_network(&NetworkSpec { name: name(world, "same-subnet"), ..spec.clone() }).await);

    let mut member_spec = container(world, "member", "sleep");
    member_spec.network = SpecNetwork::Networks(vec![member(&spec)]);
    let running = start(world, &member_spec).await;
    conflict(&engine.remove_network(&spec.name).await);
    let users = engine.network_users(&spec.name).await.expect("is there");
    assert_eq!(users, std::slice::from_ref(&running.name));
    engine.clear_network(&spec.name).await.expect("is there");
    assert_eq!(engine.network_users(&spec.name).await.expect("is there"), users, "who runs stays");
    engine.remove_container(&running.id, true).await.expect("can be removed");
    assert!(engine.network_users(&spec.name).await.expect("is there").is_empty());
    engine.remove_network(&spec.name).await.expect("can be removed");
    engine.remove_network(&spec.name).await.expect("is gone already");
    assert!(engine.network_users(&spec.name).await.expect("no error").is_empty());
    engine.clear_network(&spec.name).await.expect("no error");
}

pub(super) async fn volumes_are_made_once(world: &dyn World) {
    let engine = world.engine();
    let spec = VolumeSpec {
        name: name(world, "data"),
        driver: "local".to_owned(),
        driver_opts: BTreeMap::new(),
        labels: labels(world),
    };
    engine.ensure_volume(&spec).await.expect("can be made");
    engine.ensure_volume(&spec).await.expect("is there");
    let mut user = container(world, "user", "sleep");
    let source = MountSource::Volume { volume: "data".parse().expect("a key"), no_copy: false, subpath: None };
    user.container.mounts = vec![Mount { target: "/data".to_owned(), read_only: false, source }];
    user.volume_names.insert("data".to_owned(), spec.name.clone());
    let id = engine.create_container(&user).await.expect("can be made");
    let host = engine.observe(Some(&world.project())).await.expect("the engine answers");
    assert_eq!(host.volumes[&spec.name].labels, spec.labels);
    assert_eq!(host.containers[&id].volumes, BTreeMap::from([("/data".to_owned(), spec.name.clone())]));
    conflict(&engine.remove_volume(&spec.name).await);
    engine.remove_container(&id, true).await.expect("can be removed");
    let host = engine.observe(Some(&world.project())).await.expect("the engine answers");
    assert!(host.volumes.contains_key(&spec.name), "a named volume outlives its containers");
    engine.remove_volume(&spec.name).await.expect("can be removed");
    engine.remove_volume(&spec.name).await.expect("is gone already");
}

pub(super) async fn images_are_loaded_and_removed(world: &dyn World) {
    let engine = world.engine();
    assert_eq!(engine.image_id("orch-contract/absent:latest").await.expect("the engine answers"), None);
    let (archive, reference) = world.other_image();
    engine.load_image(archive.clone()).await.expect("can be loaded");
    engine.load_image(archive).await.expect("can be loaded again");
    let id = engine.image_id(&reference).await.expect("the engine answers").expect("is there now");
    assert!(id.starts_with("sha256:"), "{id}");
    let repository = reference.rsplit_once(':').expect("a tag").0;
    let references = engine.image_references(repository).await.expect("the engine answers");
    assert_eq!(references, std::slice::from_ref(&reference));
    engine.remove_image(&reference).await.expect("can be removed");
    engine.remove_image(&reference).await.expect("is gone already");
    assert_eq!(engine.image_id(&reference).await.expect("the engine answers"), None);
}

pub(super) async fn creation_is_idempotent(world: &dyn World) {
    let engine = world.engine();
    let spec = container(world, "web", "sleep");
    let id = engine.create_container(&spec).await.expect("can be made");
    assert_eq!(engine.create_container(&spec).await.expect("is there"), id);
    engine.start_container(&id).await.expect("can be started");
    assert_eq!(engine.create_container(&spec).await.expect("is there and runs"), id);
    for (key, value) in [(label::SPEC_HASH, "other"), (label::GENERATION, "2"), (label::PROJECT, "other")] {
        let mut other = spec.clone();
        other.labels.insert(key.to_owned(), value.to_owned());
        conflict(&engine.create_container(&other).await);
    }
    let mut foreign = spec.clone();
    foreign.labels.remove(label::SPEC_HASH);
    conflict(&engine.create_container(&foreign).await);
    let seen = observed(world, &id).await.expect("is there");
    assert_eq!((seen.spec_hash.as_deref(), seen.generation), (Some("cafe"), Some(1)));
    assert_eq!((seen.name, seen.number, seen.oneoff), (spec.name, Some(1), false));
}

pub(super) async fn creation_that_fails_leaves_nothing(world: &dyn World) {
    let engine = world.engine();
    let missing_image =
        ContainerSpec { image: "orch-contract/absent:latest".to_owned(), ..container(world, "a", "sleep") };
    not_found(&engine.create_container(&missing_image).await, "image");
    let net = network(world, "net", 0);
    engine.ensure_network(&net).await.expect("can be made");
    let absent = SpecAttachment { network: name(world, "absent"), ..member(&net) };
    let mut spec = container(world, "b", "sleep");
    // The second membership fails, on old engines after the creation.
    spec.network = SpecNetwork::Networks(vec![member(&net), absent]);
    let result = match engine.create_container(&spec).await {
        Ok(id) => engine.start_container(&id).await.map(drop),
        Err(error) => Err(error),
    };
    not_found(&result, "network");
    for (_, left) in engine.observe(Some(&world.project())).await.expect("the engine answers").containers {
        assert_eq!(left.state, ContainerState::Created, "new engines look for networks at the start only");
        engine.remove_container(&left.id, true).await.expect("can be removed");
    }
}

pub(super) async fn memberships_are_there_before_the_start(world: &dyn World) {
    let engine = world.engine();
    let (front, back) = (network(world, "front", 0), network(world, "back", 1));
    for net in [&front, &back] {
        engine.ensure_network(net).await.expect("can be made");
    }
    let fixed = back.subnet.hosts().nth(10).expect("a subnet has addresses");
    let mut spec = container(world, "web", "sleep");
    let on_back = SpecAttachment { ipv4: Some(fixed), ..member(&back) };
    spec.network = SpecNetwork::Networks(vec![member(&front), on_back]);
    let id = engine.create_container(&spec).await.expect("can be made");
    let made = observed(world, &id).await.expect("is there");
    assert_eq!(made.state, ContainerState::Created);
    assert_eq!(made.networks.keys().collect::<Vec<_>>(), [&back.name, &front.name]);
    assert_eq!(made.networks.values().flatten().count(), 0, "addresses come with the start");
    let running = engine.start_container(&id).await.expect("can be started");
    assert_eq!(running.networks[&back.name], Some(fixed));
    let address = running.networks[&front.name].expect("an address");
    assert!(front.ip_range.contains(&address), "{address} is not in {}", front.ip_range);
    // Podman has one word for all networks that are not modes.
    assert!([front.name.as_str(), "bridge"].contains(&running.network_mode.as_str()), "{running:?}");
}

pub(super) async fn a_start_gives_address_and_time(world: &dyn World) {
    let engine = world.engine();
    let running = start(world, &container(world, "web", "sleep")).await;
    assert!(running.is_running() && !running.started_at.is_empty(), "{running:?}");
    let again = engine.start_container(&running.id).await.expect("runs already");
    assert_eq!(again.started_at, running.started_at);
    assert!(engine.container_pid(&running.id).await.expect("is there").is_some());
    engine.stop_container(&running.id, Duration::from_secs(5)).await.expect("can be stopped");
    assert_eq!(engine.container_pid(&running.id).await.expect("is there"), None);
    let anew = engine.start_container(&running.id).await.expect("can be started again");
    assert_ne!(anew.started_at, running.started_at);
    assert_eq!(observed(world, &running.id).await.expect("is there").started_at, anew.started_at);
}

pub(super) async fn lists_and_inspects_say_the_same(world: &dyn World) {
    let engine = world.engine();
    let net = network(world, "net", 0);
    engine.ensure_network(&net).await.expect("can be made");
    let mut spec = container(world, "web", "sleep");
    spec.network = SpecNetwork::Networks(vec![member(&net)]);
    let id = engine.create_container(&spec).await.expect("can be made");
    let same = async |when: &str| {
        let listed = observed(world, &id).await.expect("is listed");
        let inspected = engine.inspect_container(&id).await.expect("is there");
        // Programs and arguments are abbreviated differently by engines.
        let plain = |container: ObservedContainer| ObservedContainer { command: String::new(), ..container };
        assert_eq!(plain(listed), plain(inspected), "{when}");
    };
    same("made").await;
    engine.start_container(&id).await.expect("can be started");
    same("running").await;
    engine.stop_container(&id, Duration::from_secs(5)).await.expect("can be stopped");
    same("stopped").await;
    engine.start_container(&id).await.expect("can be started again");
    same("running again").await;
    assert!(engine.observe(None).await.expect("the engine answers").containers.contains_key(&id), "all projects");
}

pub(super) async fn exit_codes_are_kept(world: &dyn World) {
    let engine = world.engine();
    for (rest, code) in [("job", 0), ("broken", 3)] {
        let id = engine.create_container(&container(world, rest, &format!("exit {code}"))).await.expect("can be made");
        engine.start_container(&id).await.expect("can be started");
        assert_eq!(engine.wait_container(&id).await.expect("is there"), i64::from(code));
        let ended = observed(world, &id).await.expect("is there");
        assert_eq!(ended.state, ContainerState::Exited { code, by_itself: false });
        assert!(!ended.finished_at.is_empty() && !ended.started_at.is_empty(), "{ended:?}");
    }
}

pub(super) async fn stopping_and_removing_twice_is_fine(world: &dyn World) {
    let engine = world.engine();
    let running = start(world, &container(world, "web", "sleep")).await;
    for _ in 0..2 {
        engine.stop_container(&running.id, Duration::from_secs(5)).await.expect("can be stopped");
    }
    let stopped = observed(world, &running.id).await.expect("is there");
    assert_eq!(stopped.state, ContainerState::Exited { code: 143, by_itself: false });
    conflict(&engine.kill_container(&running.id, "SIGTERM").await);
    conflict(&engine.pause_container(&running.id).await);
    engine.start_container(&running.id).await.expect("can be started");
    engine.unpause_container(&running.id).await.expect("is not paused");
    for _ in 0..2 {
        engine.pause_container(&running.id).await.expect("can be paused");
    }
    assert_eq!(observed(world, &running.id).await.expect("is there").state, ContainerState::Paused);
    engine.unpause_container(&running.id).await.expect("can be thawed");
    assert!(observed(world, &running.id).await.expect("is there").is_running());
    engine.kill_container(&running.id, "SIGKILL").await.expect("can be killed");
    assert_eq!(engine.wait_container(&running.id).await.expect("is there"), 137);
    engine.start_container(&running.id).await.expect("can be started");
    for _ in 0..2 {
        engine.remove_container(&running.id, true).await.expect("can be removed while it runs");
    }
    engine.stop_container(&running.id, Duration::from_secs(5)).await.expect("one that is gone is stopped");
}

pub(super) async fn what_is_not_there_is_not_found(world: &dyn World) {
    let engine = world.engine();
    let absent = name(world, "absent");
    not_found(&engine.inspect_container(&absent).await, "container");
    not_found(&engine.start_container(&absent).await, "container");
    not_found(&engine.kill_container(&absent, "SIGTERM").await, "container");
    not_found(&engine.pause_container(&absent).await, "container");
    not_found(&engine.unpause_container(&absent).await, "container");
    not_found(&engine.rename_container(&absent, "other").await, "container");
    not_found(&engine.wait_container(&absent).await, "container");
    not_found(&engine.container_pid(&absent).await, "container");
    not_found(&engine.health_output(&absent).await, "container");
    let exec = ExecSpec { command: world.program(), ..ExecSpec::default() };
    not_found(&engine.exec(&absent, &exec).await.map(drop), "container");
    let mut logs = engine.logs(&absent, &LogQuery::default());
    not_found(&logs.next().await.expect("an answer"), "container");
    engine.stop_container(&absent, Duration::ZERO).await.expect("is stopped");
    engine.remove_container(&absent, true).await.expect("is gone");
}
