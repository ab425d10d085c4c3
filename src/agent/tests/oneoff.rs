//! One-offs: made beside the project, and left alone by it.

use crate::api::types::{ApiError, ErrorKind, MakeOneoff, PlaceOneoff};
use crate::engine::label;

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
