//! What every [`Engine`] must do, as cases that run against the fake and against a real engine.
//!
//! A case gets a [`World`] of its own: an engine, an image whose program obeys [`script`]s, and names that nobody else
//! uses. It panics where the engine breaks the contract. `tests/engine/main.rs` runs them against the real one.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt};
use ipnet::Ipv4Net;

use super::{
    ContainerSpec, Engine, EngineError, EngineEvent, ExecSpec, HostPort, LogQuery, NetworkSpec, SpecAttachment,
    SpecNetwork, VolumeSpec, label,
};
use crate::graph::{Healthcheck, Mount, MountSource, Protocol};
use crate::ids::ProjectName;
use crate::observed::{ContainerState, Health, ObservedContainer};

/// Where a case runs.
#[async_trait]
pub trait World: Send + Sync {
    /// The engine under test.
    fn engine(&self) -> &dyn Engine;
    /// A project that nobody else uses; all names of the case begin with it.
    fn project(&self) -> ProjectName;
    /// An image that is there; its entry point obeys one argument, a [`script`].
    fn image(&self) -> String;
    /// The archive that the image was loaded from, with another reference: the second value.
    fn other_image(&self) -> (bytes::Bytes, String);
    /// The program in the image that obeys a script, with what comes before the script.
    fn program(&self) -> Vec<String>;
    /// A free subnet; another one for another `number`.
    fn subnet(&self, number: u8) -> Ipv4Net;
    /// A free TCP port on the host.
    fn free_port(&self) -> u16;
    /// Brings the next verdict of the container's passing health check about, if it does not come by itself.
    async fn check_health(&self, id: &str);
}

/// One thing that a container of a case does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Writes a line to standard output.
    Out(String),
    /// Writes a line to standard error.
    Err(String),
    /// Ends with this code.
    Exit(i32),
    /// Writes the line `sleeping` to standard output and runs until it is stopped; a stop signal ends it with 143.
    Sleep,
}

/// Reads a script: `out hello; err oops; exit 3`, or `sleep`. It ends with 0 where it does not say otherwise.
///
/// # Panics
/// At unknown words: scripts are part of the tests.
pub fn script(text: &str) -> Vec<Act> {
    let act = |part: &str| {
        let (word, rest) = part.trim().split_once(' ').unwrap_or((part.trim(), ""));
        match word {
            "out" => Act::Out(rest.to_owned()),
            "err" => Act::Err(rest.to_owned()),
            "exit" => Act::Exit(rest.parse().expect("a number")),
            "sleep" => Act::Sleep,
            other => panic!("`{other}` is not a word of a script"),
        }
    };
    text.split(';').map(act).collect()
}

/// A case's future.
pub type Run<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
/// A case: its name, and what it does.
pub type Case = (&'static str, for<'a> fn(&'a dyn World) -> Run<'a>);

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// All cases.
        pub const CASES: &[Case] = &[$((stringify!($name), |world| Box::pin($name(world)))),*];
    };
}

cases![
    says_what_it_is,
    networks_are_made_once,
    volumes_are_made_once,
    images_are_loaded_and_removed,
    creation_is_idempotent,
    creation_that_fails_leaves_nothing,
    memberships_are_there_before_the_start,
    a_start_gives_address_and_time,
    lists_and_inspects_say_the_same,
    exit_codes_are_kept,
    stopping_and_removing_twice_is_fine,
    what_is_not_there_is_not_found,
    events_tell_a_life,
    logs_have_both_streams,
    commands_run_inside,
    names_can_change,
    anonymous_volumes_move_on,
    a_port_in_use_is_a_conflict,
    health_is_observed,
];

/// Removes all that a case left behind.
///
/// # Panics
/// When the engine does not let it.
pub async fn clean(world: &dyn World) {
    let engine = world.engine();
    let project = world.project();
    let host = engine.observe(Some(&project)).await.expect("the engine answers");
    for id in host.containers.keys() {
        engine.remove_container(id, true).await.expect("containers can be removed");
    }
    let ours =
        |labels: &BTreeMap<String, String>| labels.get(label::PROJECT).map(String::as_str) == Some(project.as_str());
    for network in host.networks.values().filter(|network| ours(&network.labels)) {
        engine.remove_network(&network.name).await.expect("networks can be removed");
    }
    for volume in host.volumes.values().filter(|volume| ours(&volume.labels)) {
        engine.remove_volume(&volume.name).await.expect("volumes can be removed");
    }
}

fn name(world: &dyn World, rest: &str) -> String {
    format!("{}-{rest}", world.project())
}

fn labels(world: &dyn World) -> BTreeMap<String, String> {
    BTreeMap::from([(label::PROJECT.to_owned(), world.project().to_string())])
}

fn container(world: &dyn World, rest: &str, script: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::new(name(world, rest), world.image());
    spec.container.command = Some(vec![script.to_owned()]);
    spec.labels = labels(world);
    spec.labels.insert(label::SERVICE.to_owned(), rest.to_owned());
    spec.labels.insert(label::NUMBER.to_owned(), "1".to_owned());
    spec.labels.insert(label::SPEC_HASH.to_owned(), "cafe".to_owned());
    spec.labels.insert(label::GENERATION.to_owned(), "1".to_owned());
    spec
}

/// The lower half is for containers, as orch cuts its networks.
fn network(world: &dyn World, rest: &str, number: u8) -> NetworkSpec {
    let subnet = world.subnet(number);
    let ip_range = Ipv4Net::new(subnet.network(), subnet.prefix_len() + 1).expect("a shorter range");
    NetworkSpec {
        name: name(world, rest),
        driver: "bridge".to_owned(),
        driver_opts: BTreeMap::new(),
        internal: false,
        attachable: false,
        subnet,
        gateway: subnet.hosts().next().expect("a subnet has addresses"),
        ip_range,
        labels: labels(world),
    }
}

fn member(network: &NetworkSpec) -> SpecAttachment {
    SpecAttachment { network: network.name.clone(), aliases: vec!["alias".to_owned()], ipv4: None, mac: None }
}

async fn start(world: &dyn World, spec: &ContainerSpec) -> ObservedContainer {
    let engine = world.engine();
    let id = engine.create_container(spec).await.expect("can be made");
    let started = engine.start_container(&id).await.expect("can be started");
    if spec.container.command.as_ref().is_some_and(|words| words.iter().any(|word| word == "sleep")) {
        asleep(world, &id).await;
    }
    started
}

/// Waits until the container sleeps: the first process of a container that has no signal handler yet ignores signals.
async fn asleep(world: &dyn World, id: &str) {
    let query = LogQuery { follow: true, ..LogQuery::default() };
    let mut logs = world.engine().logs(id, &query);
    let chunk = logs.next().await.expect("a line").expect("the logs can be read");
    assert_eq!(chunk.bytes, "sleeping\n");
}

async fn observed(world: &dyn World, id: &str) -> Option<ObservedContainer> {
    let mut host = world.engine().observe(Some(&world.project())).await.expect("the engine answers");
    host.containers.remove(id)
}

/// Waits until `found` gives something, at most 20 s.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut found: impl FnMut() -> F) -> T {
    let search = async {
        loop {
            if let Some(thing) = found().await {
                return thing;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let Ok(thing) = tokio::time::timeout(Duration::from_secs(20), search).await else {
        panic!("waited 20 s for this in vain: {what}")
    };
    thing
}

#[track_caller]
fn conflict<T: std::fmt::Debug>(result: &Result<T, EngineError>) {
    assert!(matches!(result, Err(EngineError::Conflict { .. })), "a conflict, not {result:?}");
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(result: &Result<T, EngineError>, kind: &str) {
    assert!(matches!(result, Err(EngineError::NotFound { what, .. }) if *what == kind), "no {kind}, not {result:?}");
}

async fn says_what_it_is(world: &dyn World) {
    let info = world.engine().info().await.expect("the engine answers");
    assert!(!info.version.is_empty() && !info.facts.id.is_empty(), "{info:?}");
    assert!(info.facts.nano_cpus >= 1_000_000_000 && info.facts.memory > 0, "{info:?}");
    assert_eq!(info.facts.os, "linux");
}

async fn networks_are_made_once(world: &dyn World) {
    let engine = world.engine();
    let spec = network(world, "net", 0);
    let id = engine.ensure_network(&spec).await.expect("can be made");
    assert_eq!(engine.ensure_network(&spec).await.expect("is there"), id);
    let host = engine.observe(Some(&world.project())).await.expect("the engine answers");
    let seen = &host.networks[&spec.name];
    assert_eq!((seen.subnet, seen.gateway), (Some(spec.subnet), Some(spec.gateway)));
    assert_eq!((seen.id.as_str(), seen.internal), (id.as_str(), false));
    assert!(seen.bridge.starts_with("br-"), "{seen:?}");
    conflict(&engine.ensure_network(&NetworkSpec { name: name(world, "same-subnet"), ..spec.clone() }).await);

    let mut member_spec = container(world, "member", "sleep");
    member_spec.network = SpecNetwork::Networks(vec![member(&spec)]);
    let running = start(world, &member_spec).await;
    conflict(&engine.remove_network(&spec.name).await);
    engine.remove_container(&running.id, true).await.expect("can be removed");
    engine.remove_network(&spec.name).await.expect("can be removed");
    engine.remove_network(&spec.name).await.expect("is gone already");
}

async fn volumes_are_made_once(world: &dyn World) {
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

async fn images_are_loaded_and_removed(world: &dyn World) {
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

async fn creation_is_idempotent(world: &dyn World) {
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

async fn creation_that_fails_leaves_nothing(world: &dyn World) {
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

async fn memberships_are_there_before_the_start(world: &dyn World) {
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
    assert_eq!(running.network_mode, front.name);
}

async fn a_start_gives_address_and_time(world: &dyn World) {
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

async fn lists_and_inspects_say_the_same(world: &dyn World) {
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

async fn exit_codes_are_kept(world: &dyn World) {
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

async fn stopping_and_removing_twice_is_fine(world: &dyn World) {
    let engine = world.engine();
    let running = start(world, &container(world, "web", "sleep")).await;
    for _ in 0..2 {
        engine.stop_container(&running.id, Duration::from_secs(5)).await.expect("can be stopped");
    }
    let stopped = observed(world, &running.id).await.expect("is there");
    assert_eq!(stopped.state, ContainerState::Exited { code: 143, by_itself: false });
    conflict(&engine.kill_container(&running.id, "SIGTERM").await);
    engine.start_container(&running.id).await.expect("can be started");
    engine.unpause_container(&running.id).await.expect("is not paused");
    engine.kill_container(&running.id, "SIGKILL").await.expect("can be killed");
    assert_eq!(engine.wait_container(&running.id).await.expect("is there"), 137);
    engine.start_container(&running.id).await.expect("can be started");
    for _ in 0..2 {
        engine.remove_container(&running.id, true).await.expect("can be removed while it runs");
    }
    engine.stop_container(&running.id, Duration::from_secs(5)).await.expect("one that is gone is stopped");
}

async fn what_is_not_there_is_not_found(world: &dyn World) {
    let engine = world.engine();
    let absent = name(world, "absent");
    not_found(&engine.inspect_container(&absent).await, "container");
    not_found(&engine.start_container(&absent).await, "container");
    not_found(&engine.kill_container(&absent, "SIGTERM").await, "container");
    not_found(&engine.unpause_container(&absent).await, "container");
    not_found(&engine.rename_container(&absent, "other").await, "container");
    not_found(&engine.wait_container(&absent).await, "container");
    not_found(&engine.container_pid(&absent).await, "container");
    let exec = ExecSpec { command: world.program(), ..ExecSpec::default() };
    not_found(&engine.exec(&absent, &exec).await.map(drop), "container");
    let mut logs = engine.logs(&absent, &LogQuery::default());
    not_found(&logs.next().await.expect("an answer"), "container");
    engine.stop_container(&absent, Duration::ZERO).await.expect("is stopped");
    engine.remove_container(&absent, true).await.expect("is gone");
}

/// Takes events of the project's containers until one has the action.
async fn events_until(
    world: &dyn World,
    stream: &mut (impl Stream<Item = super::Result<EngineEvent>> + Unpin),
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

async fn events_tell_a_life(world: &dyn World) {
    let engine = world.engine();
    let mut live = engine.events(None);
    let first = engine.create_container(&container(world, "first", "sleep")).await.expect("can be made");
    // The stream is surely open once an event of it was seen.
    let opened = async { events_until(world, &mut live, "start").await };
    let (seen, _) = tokio::join!(opened, engine.start_container(&first));
    let begun = seen.last().expect("a start").time_nanos;
    asleep(world, &first).await;
    engine.stop_container(&first, Duration::from_secs(5)).await.expect("can be stopped");
    let events = events_until(world, &mut live, "stop").await;
    let actions: Vec<_> = events.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["kill", "die", "stop"]);
    assert_eq!(events[0].attributes["signal"], "15");
    assert_eq!(events[1].attributes["exitCode"], "143");
    assert!(events.iter().all(|event| event.id == first && event.time_nanos >= begun), "{events:?}");

    let job = start(world, &container(world, "job", "exit 3")).await;
    let events = events_until(world, &mut live, "die").await;
    assert!(events.iter().all(|event| event.id == job.id && event.action != "kill"), "ended by itself: {events:?}");
    assert_eq!(events.last().expect("an end").attributes["exitCode"], "3");
    engine.remove_container(&job.id, true).await.expect("can be removed");
    events_until(world, &mut live, "destroy").await;

    let replayed = events_until(world, &mut engine.events(Some(begun)), "destroy").await;
    let actions: Vec<_> = replayed.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["start", "kill", "die", "stop", "create", "start", "die", "destroy"]);
}

async fn logs_have_both_streams(world: &dyn World) {
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

async fn commands_run_inside(world: &dyn World) {
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

async fn names_can_change(world: &dyn World) {
    let engine = world.engine();
    let id = engine.create_container(&container(world, "old", "sleep")).await.expect("can be made");
    let other = engine.create_container(&container(world, "taken", "sleep")).await.expect("can be made");
    conflict(&engine.rename_container(&id, &name(world, "taken")).await);
    engine.rename_container(&id, &name(world, "new")).await.expect("can be renamed");
    assert_eq!(engine.inspect_container(&name(world, "new")).await.expect("is there").id, id);
    assert_eq!(engine.inspect_container(&name(world, "taken")).await.expect("is there").id, other);
    not_found(&engine.inspect_container(&name(world, "old")).await, "container");
}

async fn anonymous_volumes_move_on(world: &dyn World) {
    let engine = world.engine();
    let mut spec = container(world, "db", "sleep");
    spec.container.mounts =
        vec![Mount { target: "/data".to_owned(), read_only: false, source: MountSource::Anonymous }];
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

async fn a_port_in_use_is_a_conflict(world: &dyn World) {
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

async fn health_is_observed(world: &dyn World) {
    let mut spec = container(world, "web", "sleep");
    let mut test = world.program();
    test.insert(0, "CMD".to_owned());
    test.push("exit 0".to_owned());
    spec.container.healthcheck = Some(Healthcheck {
        test,
        interval: Some(Duration::from_millis(200)),
        timeout: Some(Duration::from_secs(5)),
        retries: Some(1),
        start_period: None,
        start_interval: None,
    });
    let running = start(world, &spec).await;
    assert_eq!(running.state, ContainerState::Running { health: Health::Starting });
    assert!(!running.is_ready());
    world.check_health(&running.id).await;
    eventually("a healthy container", || async {
        let seen = observed(world, &running.id).await.expect("is there");
        matches!(seen.state, ContainerState::Running { health: Health::Healthy }).then_some(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts() {
        let expected = [Act::Out("hello you".into()), Act::Err("oops".into()), Act::Exit(3), Act::Sleep];
        assert_eq!(script("out hello you; err oops;exit 3; sleep"), expected);
    }
}
