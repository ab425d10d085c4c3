//! Cases of what containers tell, and of what is done with those that run.

use std::time::Duration;

use futures_util::{Stream, StreamExt};

use super::super::{EngineEvent, EngineKind, EventQuery, ExecSpec, HostPort, LogQuery, Result, SpecNetwork, label};
use super::{World, asleep, conflict, container, eventually, member, name, network, not_found, observed, start};
use crate::graph::{Healthcheck, Mount, MountSource, Protocol};
use crate::ids::ProjectName;
use crate::observed::{ContainerState, Health};

/// Takes events of the project's containers until one has the action.
async fn events_until(
    world: &dyn World,
    stream: &mut (impl Stream<Item = Result<EngineEvent>> + Unpin),
    action: &str,
) -> Vec<EngineEvent> {
    let mut seen = Vec::new();
    let project = world.project();
    let collect = async {
        while let Some(event) = stream.next().await {
            let event = event.expect("the stream goes on");
            let ours = event.attributes.get(label::PROJECT).map(String::as_str) == Some(project.as_str());
            if ours && event.kind == "container" {
                seen.push(event);
                if seen.last().is_some_and(|event| event.action == action) {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), collect).await.unwrap_or_else(|_| panic!("no `{action}` in 20 s"));
    seen
}

pub(super) async fn events_tell_a_life(world: &dyn World) {
    let engine = world.engine();
    let mut live = engine.events(&EventQuery::default());
    let first = engine.create_container(&container(world, "first", "sleep")).await.expect("can be made");
    // The stream is surely open once an event of it was seen.
    let opened = async { events_until(world, &mut live, "start").await };
    let (seen, _) = tokio::join!(opened, engine.start_container(&first));
    let begun = seen.last().expect("a start").time_nanos;
    asleep(world, &first).await;
    engine.stop_container(&first, Duration::from_secs(5)).await.expect("can be stopped");
    let events = events_until(world, &mut live, "stop").await;
    // Podman tells only now and then how it stops a container, but always that it did.
    let is_podman = engine.info().await.expect("it answers").kind == EngineKind::Podman;
    let actions = |events: &[EngineEvent]| -> Vec<String> {
        let told = events.iter().filter(|event| !is_podman || event.action != "kill");
        told.map(|event| event.action.clone()).collect()
    };
    let stopped: &[_] = if is_podman { &["die", "stop"] } else { &["kill", "die", "stop"] };
    assert_eq!(actions(&events), stopped);
    assert!(events.iter().all(|event| event.action != "kill" || event.attributes["signal"] == "15"), "{events:?}");
    let death = events.iter().find(|event| event.action == "die").expect("it ended");
    assert_eq!(death.attributes["exitCode"], "143");
    assert!(events.iter().all(|event| event.id == first && event.time_nanos >= begun), "{events:?}");

    let job = start(world, &container(world, "job", "exit 3")).await;
    let events = events_until(world, &mut live, "die").await;
    assert!(events.iter().all(|event| event.id == job.id && event.action != "kill"), "ended by itself: {events:?}");
    assert_eq!(events.last().expect("an end").attributes["exitCode"], "3");
    engine.remove_container(&job.id, true).await.expect("can be removed");
    events_until(world, &mut live, "destroy").await;

    let since = EventQuery { since: Some(begun), ..EventQuery::default() };
    let replayed = events_until(world, &mut engine.events(&since), "destroy").await;
    assert_eq!(actions(&replayed), [&["start"], stopped, &["create", "start", "die", "destroy"]].concat());

    // Up to now it is a list that ends.
    let until = Some(engine.now_nanos().await.expect("it has a clock"));
    assert!(until >= replayed.last().map(|event| event.time_nanos), "its clock is that of its events");
    let past = EventQuery { until, project: Some(world.project()), ..since };
    let listed: Vec<_> = engine.events(&past).map(|event| event.expect("the list goes on")).collect().await;
    assert!(listed.iter().all(|event| event.kind == "container"), "{listed:?}");
    assert_eq!(listed.iter().filter(|event| !event.action.starts_with("exec")).count(), replayed.len());
    let other = EventQuery { project: Some(ProjectName::new("nobody-has-this").expect("a name")), ..past };
    assert_eq!(engine.events(&other).count().await, 0);
}

pub(super) async fn logs_have_both_streams(world: &dyn World) {
    let engine = world.engine();
    let ended = start(world, &container(world, "web", "out one; err two; out three")).await;
    engine.wait_container(&ended.id).await.expect("ends");
    let read = async |query: LogQuery| {
        let (mut out, mut err) = (String::new(), String::new());
        let mut chunks = engine.logs(&ended.id, &query);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.expect("the logs go on");
            let text = String::from_utf8(chunk.bytes.to_vec()).expect("text");
            if chunk.stderr { err.push_str(&text) } else { out.push_str(&text) }
        }
        (out, err)
    };
    assert_eq!(read(LogQuery::default()).await, ("one\nthree\n".to_owned(), "two\n".to_owned()));
    let (out, err) = read(LogQuery { tail: Some(1), ..LogQuery::default() }).await;
    assert_eq!(out.lines().count() + err.lines().count(), 1);
    let (stamped, _) = read(LogQuery { timestamps: true, ..LogQuery::default() }).await;
    assert!(stamped.starts_with("20") && stamped.contains("Z one\n"), "{stamped}");
    let following = LogQuery { follow: true, ..LogQuery::default() };
    assert_eq!(read(following).await.0, "one\nthree\n", "following ends with the container");
}

pub(super) async fn commands_run_inside(world: &dyn World) {
    let engine = world.engine();
    let running = start(world, &container(world, "web", "sleep")).await;
    let mut command = world.program();
    command.push("out hello; err oops; exit 4".to_owned());
    let spec = ExecSpec { command, ..ExecSpec::default() };
    let mut session = engine.exec(&running.id, &spec).await.expect("can be run");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = session.output.next().await {
        let chunk = chunk.expect("the output goes on");
        if chunk.stderr { err.extend(chunk.bytes) } else { out.extend(chunk.bytes) }
    }
    assert_eq!((out.as_slice(), err.as_slice()), (&b"hello\n"[..], &b"oops\n"[..]));
    let code = eventually("the command's exit code", || async { engine.exec_exit_code(&session.id).await.ok() }).await;
    assert_eq!(code, 4);
    engine.stop_container(&running.id, Duration::from_secs(5)).await.expect("can be stopped");
    conflict(&engine.exec(&running.id, &spec).await.map(drop));
}

pub(super) async fn names_can_change(world: &dyn World) {
    let engine = world.engine();
    let id = engine.create_container(&container(world, "old", "sleep")).await.expect("can be made");
    let other = engine.create_container(&container(world, "taken", "sleep")).await.expect("can be made");
    conflict(&engine.rename_container(&id, &name(world, "taken")).await);
    engine.rename_container(&id, &name(world, "new")).await.expect("can be renamed");
    assert_eq!(engine.inspect_container(&name(world, "new")).await.expect("is there").id, id);
    assert_eq!(engine.inspect_container(&name(world, "taken")).await.expect("is there").id, other);
    not_found(&engine.inspect_container(&name(world, "old")).await, "container");
}

pub(super) async fn anonymous_volumes_move_on(world: &dyn World) {
    let engine = world.engine();
    let mut spec = container(world, "db", "sleep");
    spec.container.mounts =
        vec![Mount { target: "/data".to_owned(), read_only: false, source: MountSource::anonymous() }];
    let first = engine.create_container(&spec).await.expect("can be made");
    let volumes = observed(world, &first).await.expect("is there").volumes;
    assert_eq!(volumes.len(), 1, "{volumes:?}");
    engine.remove_container(&first, false).await.expect("can be removed");
    spec.carried_volumes.clone_from(&volumes);
    let second = engine.create_container(&spec).await.expect("can be made");
    assert_eq!(observed(world, &second).await.expect("is there").volumes, volumes);
    engine.remove_container(&second, true).await.expect("can be removed");
    let left = engine.observe(Some(&world.project())).await.expect("the engine answers").volumes;
    assert!(volumes.values().all(|name| !left.contains_key(name)), "a volume taken over goes with its container");
}

pub(super) async fn a_port_in_use_is_a_conflict(world: &dyn World) {
    let engine = world.engine();
    let net = network(world, "net", 0);
    engine.ensure_network(&net).await.expect("can be made");
    let port = world.free_port();
    let publishing = |rest: &str| {
        let mut spec = container(world, rest, "sleep");
        spec.network = SpecNetwork::Networks(vec![member(&net)]);
        let host_ip = Some("127.0.0.1".parse().expect("an address"));
        spec.host_ports =
            vec![HostPort { host_ip, published: Some((port, port)), target: 80, protocol: Protocol::Tcp }];
        spec
    };
    start(world, &publishing("first")).await;
    let second = engine.create_container(&publishing("second")).await.expect("ports are taken by the start");
    conflict(&engine.start_container(&second).await);
    assert_eq!(observed(world, &second).await.expect("is there").state, ContainerState::Created);
}

pub(super) async fn health_is_observed(world: &dyn World) {
    let engine = world.engine();
    let mut spec = container(world, "web", "sleep");
    let mut test = world.program();
    test.insert(0, "CMD".to_owned());
    test.push("out all is well; exit 0".to_owned());
    spec.container.healthcheck = Some(Healthcheck {
        test,
        // Before the first check there is time to see that there was none, also on a busy machine.
        interval: Some(Duration::from_secs(3)),
        timeout: Some(Duration::from_secs(5)),
        retries: Some(1),
        start_period: None,
        start_interval: None,
    });
    let running = start(world, &spec).await;
    assert_eq!(running.state, ContainerState::Running { health: Health::Starting });
    assert!(!running.is_ready());
    assert_eq!(engine.health_output(&running.id).await.expect("is there"), None);
    world.check_health(&running.id).await;
    eventually("a healthy container", || async {
        let seen = observed(world, &running.id).await.expect("is there");
        matches!(seen.state, ContainerState::Running { health: Health::Healthy }).then_some(())
    })
    .await;
    let said = engine.health_output(&running.id).await.expect("is there").expect("it was checked");
    let kept = if world.keeps_health_output().await { "all is well" } else { "" };
    assert_eq!(said.trim_end(), kept);
}
