//! What every [`Engine`] must do, as cases that run against the fake and against a real engine.
//!
//! A case gets a [`World`] of its own: an engine, an image whose program obeys [`script`]s, and names that nobody else
//! uses. It panics where the engine breaks the contract. `tests/engine/main.rs` runs them against the real one.

mod hands;
mod images;
mod lives;
mod streams;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use ipnet::Ipv4Net;

use super::{ContainerSpec, Engine, EngineError, LogQuery, NetworkSpec, SpecAttachment, label};
use crate::ids::ProjectName;
use crate::observed::ObservedContainer;

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
    /// Whether the engine keeps what health checks write.
    async fn keeps_health_output(&self) -> bool {
        true
    }
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
    ($($file:ident::$name:ident),* $(,)?) => {
        /// All cases.
        pub const CASES: &[Case] = &[$((stringify!($name), |world| Box::pin($file::$name(world)))),*];
    };
}

cases![
    lives::says_what_it_is,
    lives::networks_are_made_once,
    lives::volumes_are_made_once,
    lives::images_are_loaded_and_removed,
    images::images_are_built_of_a_context,
    images::a_step_that_fails_is_said_and_makes_nothing,
    images::what_is_not_there_is_not_pushed,
    lives::creation_is_idempotent,
    lives::creation_that_fails_leaves_nothing,
    lives::memberships_are_there_before_the_start,
    lives::a_start_gives_address_and_time,
    lives::lists_and_inspects_say_the_same,
    lives::exit_codes_are_kept,
    lives::stopping_and_removing_twice_is_fine,
    lives::what_is_not_there_is_not_found,
    streams::events_tell_a_life,
    streams::logs_have_both_streams,
    streams::commands_run_inside,
    streams::names_can_change,
    streams::anonymous_volumes_move_on,
    streams::a_port_in_use_is_a_conflict,
    streams::health_is_observed,
    hands::files_go_in_and_out,
    hands::a_container_becomes_an_archive_and_an_image,
    hands::ends_are_waited_for_before_they_come,
    hands::what_runs_is_looked_into,
    hands::images_and_volumes_are_looked_at,
    hands::one_attaches_to_what_runs,
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
        aux_addresses: BTreeMap::new(),
        enable_ipv6: None,
        ipv6_pools: Vec::new(),
        ipam_options: BTreeMap::new(),
        labels: labels(world),
    }
}

fn member(network: &NetworkSpec) -> SpecAttachment {
    SpecAttachment { network: network.name.clone(), aliases: vec!["alias".to_owned()], ..SpecAttachment::default() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts() {
        let expected = [Act::Out("hello you".into()), Act::Err("oops".into()), Act::Exit(3), Act::Sleep];
        assert_eq!(script("out hello you; err oops;exit 3; sleep"), expected);
    }
}
