//! What cannot become so: said with exit code 1, without an end that never comes or claims of what is not there.

use crate::api::types::ErrorKind;
use crate::graph::{Constraint, Volume};

use super::*;

fn failed(events: &[Progress]) -> &[String] {
    match events.last() {
        Some(Progress::Failed { messages }) => messages,
        other => panic!("no failure at the end: {other:#?}"),
    }
}

fn says_running(events: &[Progress]) -> bool {
    events.iter().any(|event| matches!(event, Progress::Object { status, .. } if status == "Running"))
}

/// `web` can run nowhere, `ok` depends on it, `other` on nothing.
fn nowhere() -> Graph {
    let mut graph = graph(&["ok", "other", "web"]);
    let constraint = Constraint { key: "node.labels.disk".into(), equal: true, value: "ssd".into() };
    graph.services.get_mut("web").expect("it is there").placement.constraints.push(constraint);
    graph.services.get_mut("ok").expect("it is there").depends_on = vec![Dependency {
        service: service_name("web"),
        condition: Condition::ServiceStarted,
        restart: false,
        required: true,
    }];
    graph
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_host_fails_up_and_the_rest_is_made() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    for wait in [false, true] {
        let request = UpRequest { wait, ..UpRequest::new(nowhere()) };
        let events = drain(agent.handler.up(shop(), request).await.expect("accepted")).await;
        let why = "no host can take `web.1`: `local`: constraint `node.labels.disk == ssd` not met";
        assert_eq!(failed(&events), [why]);
        let note = Progress::Note { message: "`ok.1` waits for `web`: `web.1` has no host".into(), is_warning: false };
        assert!(events.contains(&note), "{events:#?}");
    }
    let containers = agent.containers();
    assert!(containers["shop-other-1"].is_running());
    assert_eq!(containers["shop-ok-1"].state, ContainerState::Created, "it waits");
    assert!(!containers.contains_key("shop-web-1"));
    agent.kill().await;
}

/// `web` mounts a volume that somebody else shall have made.
fn external() -> Graph {
    let mut graph = graph(&["db", "web"]);
    let key = ResourceKey::new("data").expect("valid");
    let volume = Volume {
        name: "elsewhere".into(),
        external: true,
        driver: None,
        driver_opts: BTreeMap::new(),
        spec_hash: String::new(),
        compose_hash: String::new(),
        labels: BTreeMap::new(),
    };
    graph.volumes.insert(key.clone(), volume);
    let source = crate::graph::MountSource::Volume { volume: key, no_copy: false, subpath: None };
    let mount = crate::graph::Mount { target: "/data".into(), read_only: false, source };
    graph.services.get_mut("web").expect("it is there").container.mounts.push(mount);
    graph
}

#[tokio::test(flavor = "multi_thread")]
async fn an_up_that_lacks_an_external_volume_leaves_nothing_behind() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let up = |graph: Graph| {
        let request = UpRequest::new(graph);
        agent.handler.up(shop(), request)
    };
    let stored = agent.shared.store.list("").await.expect("a list").0;
    let refused = up(external()).await.expect_err("refused");
    assert_eq!((refused.kind, refused.message.as_str()), (ErrorKind::User, "external volume \"elsewhere\" not found"));
    assert_eq!(agent.shared.store.list("").await.expect("a list").0, stored);
    assert!(agent.shared.projects().is_empty(), "nothing is in the way of `agent uninstall`");

    agent.up(&graph(&["db"])).await;
    let before = agent.shared.project(&shop()).expect("up").record.borrow().clone();
    up(external()).await.expect_err("refused while it is up, too");
    assert_eq!(agent.shared.project(&shop()).expect("up").record.borrow().clone(), before);
    assert!(all_run(&agent.containers(), &["shop-db-1"]));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_pods_than_a_project_can_have_are_refused() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let mut many = graph(&["web"]);
    many.services.get_mut("web").expect("it is there").scale = crate::graph::Scale::Replicas(4_000_000_000);
    let request = |graph| UpRequest::new(graph);
    let refused = agent.handler.plan(shop(), request(many.clone())).await.expect_err("refused");
    assert_eq!(refused.message, "4000000000 containers are wanted, and a project can have 5000");
    agent.handler.up(shop(), request(many)).await.expect_err("refused");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_is_not_in_the_way_of_who_changes_something() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    // As long as somebody changes something.
    let admitted = agent.shared.admission.lock().await;
    let request = UpRequest::new(graph(&["web"]));
    let plan = tokio::time::timeout(DEADLINE, agent.handler.plan(shop(), request)).await.expect("in time");
    assert_eq!(plan.expect("planned").steps.len(), 3);
    drop(admitted);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_runs_is_said_to_run() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let events = agent.up(&nowhere()).await;
    assert!(!says_running(&events), "{events:#?}");
    let events = agent.up(&nowhere()).await;
    let running: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Progress::Object { name, status, .. } if status == "Running" => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(running, ["shop-other-1"]);
    agent.kill().await;
}
