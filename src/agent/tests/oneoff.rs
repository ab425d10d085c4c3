//! One-offs: made beside the project, and left alone by it.

use crate::api::types::{ApiError, BeginOneoff, EndOneoff, ErrorKind, MakeOneoff, PlaceOneoff};
use crate::engine::label;
use crate::graph::HOLDER_IMAGE;
use crate::plan::fixture;

use super::*;

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("valid")
}

fn before(service: &str) -> UpOptions {
    UpOptions { services: vec![name(service)], only_dependencies: true, ..UpOptions::default() }
}

fn request(graph: &Graph, service: &str, container: &str) -> MakeOneoff {
    MakeOneoff {
        graph: graph.clone(),
        service: name(service),
        name: container.to_owned(),
        slug: "0f".repeat(32),
        labels: BTreeMap::new(),
        use_aliases: false,
        auto_remove: false,
        stdin_once: false,
    }
}

/// Makes a one-off and starts it, as a command line does.
async fn run(agent: &Agent, graph: &Graph, service: &str, container: &str) -> Result<String, ApiError> {
    let request = request(graph, service, container);
    let made = agent.handler.make_oneoff(shop(), request).await?;
    agent.shared.engine.start_container(&made.container).await.expect("can be started");
    Ok(made.container)
}

fn state(agent: &Agent, container: &str) -> Option<ContainerState> {
    agent.containers().get(container).map(|one| one.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_one_off_depends_on_comes_up_and_it_is_left_alone() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let mut wanted = graph(&["db", "web"]);
    let needs =
        Dependency { service: name("db"), condition: Condition::ServiceStarted, restart: false, required: true };
    wanted.services.get_mut("web").expect("it is there").depends_on = vec![needs];
    assert!(is_done(&agent.up_as(&wanted, before("web")).await));
    assert!(all_run(&agent.containers(), &["shop-db-1"]));

    let place = PlaceOneoff { graph: wanted.clone(), service: name("web"), no_deps: false };
    let events = drain(agent.handler.place_oneoff(shop(), place).await.expect("accepted")).await;
    let [Progress::Object { host, .. }, Progress::Done { .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(host, &HostName::local());

    let id = run(&agent, &wanted, "web", "shop-web-run-0f0f0f0f0f0f").await.expect("can be made");
    agent.settles().await;
    let containers = agent.containers();
    let seen = &containers["shop-web-run-0f0f0f0f0f0f"];
    assert_eq!(seen.id, id);
    assert!(seen.oneoff && seen.number.is_none() && seen.spec_hash.is_none() && seen.is_running(), "{seen:?}");
    assert_eq!(seen.labels[label::SLUG], "0f".repeat(32));
    let status = agent.handler.project(&shop()).await.expect("it is up");
    assert_eq!((status.pods.len(), status.oneoffs.len()), (2, 1), "web is not wanted, but known");

    // It ends: nobody starts it again, and an `up` leaves it where nobody wants orphans gone.
    engine.crash(&id, 4);
    agent.settles().await;
    assert!(is_done(&agent.up(&wanted).await));
    assert!(matches!(state(&agent, "shop-web-run-0f0f0f0f0f0f"), Some(ContainerState::Exited { code: 4, .. })));
    run(&agent, &wanted, "web", "still").await.expect("can be made");
    let options = UpOptions { remove_orphans: true, ..UpOptions::default() };
    assert!(is_done(&agent.up_as(&wanted, options).await));
    agent.settles().await;
    assert_eq!(state(&agent, "shop-web-run-0f0f0f0f0f0f"), None);
    assert!(agent.containers()["still"].is_running());

    // A name that is taken is said, whoever has it.
    let taken = agent.handler.make_oneoff(shop(), request(&wanted, "web", "shop-db-1")).await;
    assert!(taken.is_err_and(|error| error.kind == ErrorKind::Host && error.message.contains("in use")));

    assert!(is_done(&agent.down().await));
    assert!(agent.containers().is_empty(), "it goes with the project");
    let gone = agent.handler.make_oneoff(shop(), request(&wanted, "web", "late")).await;
    assert!(gone.is_err_and(|error| error.kind == ErrorKind::NotFound));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_of_a_project_that_runs_changes_nothing_of_it() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let wanted = graph(&["db", "web"]);
    assert!(is_done(&agent.up(&wanted).await));
    let stored = agent.shared.store.list("projects/").await.expect("a list");
    let ids = || agent.containers().into_values().map(|one| one.id).collect::<Vec<_>>();
    let before_it = ids();
    let mut changed = wanted.clone();
    for service in changed.services.values_mut() {
        service.spec_hash.push_str("other");
    }
    assert!(is_done(&agent.up_as(&changed, before("web")).await));
    assert_eq!(agent.shared.store.list("projects/").await.expect("a list"), stored, "nothing is written");
    agent.settles().await;
    assert_eq!(ids(), before_it);
    agent.kill().await;
}

const ONE: &str = "shop-web-run-0f0f0f0f0f0f";

fn pod_graph() -> Graph {
    fixture::graph(
        "db: {image: app}\nweb: {image: app, depends_on: {db: {condition: service_started, required: true}}, \
         x-init: {first: {image: app}}, x-sidecars: {sync: {image: app}}}",
    )
}

/// States of the containers of the one-off, by what they are called after it.
fn pod_states(all: &BTreeMap<String, ObservedContainer>) -> BTreeMap<String, &'static str> {
    let of_it = all.values().filter(|one| one.oneoff);
    of_it.map(|one| (one.name.trim_start_matches(ONE).to_owned(), one.state.word())).collect()
}

fn states<const N: usize>(pairs: [(&str, &'static str); N]) -> BTreeMap<String, &'static str> {
    pairs.map(|(name, state)| (name.to_owned(), state)).into()
}

/// An agent with a project, and a one-off of a pod of several containers that was made.
async fn with_pod(engine: &Arc<FakeEngine>, dir: &Path, auto_remove: bool) -> (Agent, BeginOneoff) {
    engine.add_image(HOLDER_IMAGE);
    let agent = Agent::start(engine, dir).await;
    let graph = pod_graph();
    assert!(is_done(&agent.up_as(&graph, before("web")).await));
    assert!(all_run(&agent.containers(), &["shop-db-1"]), "no part of its pod is brought up as a replica");
    let place = PlaceOneoff { graph: graph.clone(), service: name("web"), no_deps: false };
    let events = drain(agent.handler.place_oneoff(shop(), place).await.expect("accepted")).await;
    assert!(is_done(&events), "{events:?}");
    let request = MakeOneoff { auto_remove, ..request(&graph, "web", ONE) };
    agent.handler.make_oneoff(shop(), request.clone()).await.expect("can be made");
    let made = [("-pod", "created"), ("-first", "created"), ("-sync", "created"), ("", "created")];
    assert_eq!(pod_states(&agent.containers()), states(made));
    let begin = BeginOneoff { graph, service: request.service, slug: request.slug };
    (agent, begin)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_of_several_containers_comes_in_order_and_goes_whole() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let (agent, begin) = with_pod(&engine, dir.path(), true).await;
    let end = EndOneoff { slug: begin.slug.clone(), remove: true };
    let begun = agent.handler.begin_oneoff(shop(), begin).await.expect("accepted");
    let only_first = [("-pod", "running"), ("-first", "running"), ("-sync", "created"), ("", "created")];
    agent.becomes("what prepares it runs", |all| pod_states(all) == states(only_first)).await;
    engine.crash(&format!("{ONE}-first"), 0);
    let events = drain(begun).await;
    assert!(is_done(&events), "{events:#?}");
    let begun = [("-pod", "running"), ("-first", "exited"), ("-sync", "running"), ("", "created")];
    assert_eq!(pod_states(&agent.containers()), states(begun));
    agent.shared.engine.start_container(ONE).await.expect("can be started");
    agent.settles().await;
    let main = agent.containers()[ONE].clone();
    assert!(main.network_mode.starts_with("container:") && main.number.is_none(), "{main:?}");

    // An `up` leaves all of it alone, also where orphans are to go.
    let options = UpOptions { remove_orphans: true, services: vec![name("db")], ..UpOptions::default() };
    assert!(is_done(&agent.up_as(&pod_graph(), options).await));
    agent.settles().await;
    let runs = [("-pod", "running"), ("-first", "exited"), ("-sync", "running"), ("", "running")];
    assert_eq!(pod_states(&agent.containers()), states(runs));

    // As the engine does with `--rm`.
    engine.crash(ONE, 3);
    agent.shared.engine.remove_container(ONE, true).await.expect("removed");
    let events = drain(agent.handler.end_oneoff(shop(), end).await.expect("accepted")).await;
    assert!(is_done(&events), "{events:#?}");
    assert!(all_run(&agent.containers(), &["shop-db-1"]), "{:#?}", agent.containers());
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helpers_of_a_one_off_that_is_kept_stop_with_it_and_go_with_it() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let (agent, begin) = with_pod(&engine, dir.path(), false).await;
    let begun = agent.handler.begin_oneoff(shop(), begin).await.expect("accepted");
    agent.becomes("it prepares", |all| pod_states(all).get("-first") == Some(&"running")).await;
    engine.crash(&format!("{ONE}-first"), 0);
    assert!(is_done(&drain(begun).await));
    agent.shared.engine.start_container(ONE).await.expect("can be started");
    agent.kill().await;

    // Whoever ran it is gone, and the agent was away when it ended.
    engine.crash(ONE, 3);
    let agent = Agent::start(&engine, dir.path()).await;
    let ended = [("-pod", "exited"), ("-first", "exited"), ("-sync", "exited"), ("", "exited")];
    agent.becomes("all has ended", |all| pod_states(all) == states(ended)).await;
    agent.shared.engine.remove_container(ONE, true).await.expect("removed");
    agent.becomes("all is gone", |all| pod_states(all).is_empty()).await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_that_cannot_be_prepared_is_said_and_one_that_nobody_waits_for_goes() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let (agent, begin) = with_pod(&engine, dir.path(), false).await;
    let first = format!("{ONE}-first");
    let begun = agent.handler.begin_oneoff(shop(), begin.clone()).await.expect("accepted");
    agent.becomes("it prepares", |all| pod_states(all).get("-first") == Some(&"running")).await;
    engine.crash(&first, 7);
    let said = format!("container {first} failed: it prepares its pod, and ended with 7");
    assert_eq!(drain(begun).await.last(), Some(&Progress::Failed { messages: vec![said] }));
    assert_eq!(pod_states(&agent.containers())["-pod"], "running", "its last lines can be read");
    let end = EndOneoff { slug: begin.slug.clone(), remove: true };
    assert!(is_done(&drain(agent.handler.end_oneoff(shop(), end).await.expect("accepted")).await));
    assert_eq!(pod_states(&agent.containers()), states([]));

    let graph = begin.graph.clone();
    agent.handler.make_oneoff(shop(), request(&graph, "web", ONE)).await.expect("can be made");
    let begun = agent.handler.begin_oneoff(shop(), begin).await.expect("accepted");
    agent.becomes("it prepares", |all| pod_states(all).get("-first") == Some(&"running")).await;
    drop(begun);
    agent.becomes("all is gone", |all| pod_states(all).is_empty()).await;
    agent.kill().await;
}
