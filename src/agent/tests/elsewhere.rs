//! What leads to nobody, in other projects and in this one: `up`, `plan`, `why` and `orch lb` say so.

use std::net::Ipv4Addr;

use crate::api::types::{Finding, ServiceSeen, Weight, WhyQuestion};
use crate::model::{Ambassador, AmbassadorTarget, Breaker, Export, ExternalLink};

use super::*;

/// A project of these services.
fn project(name: &str, services: &[&str]) -> Graph {
    let mut graph = graph(services);
    graph.project = ProjectName::new(name).expect("valid");
    for network in graph.networks.values_mut() {
        network.name = format!("{name}_default");
    }
    graph
}

fn other() -> ProjectName {
    ProjectName::new("other").expect("valid")
}

fn to(target: AmbassadorTarget) -> Ambassador {
    Ambassador {
        name: "far".to_owned(),
        address: Ipv4Addr::LOCALHOST,
        port: 5432,
        targets: vec![target],
        tls: None,
        timeout: Duration::from_secs(1),
        retries: 0,
        breaker: Breaker::default(),
    }
}

/// `web` links to `db` of another project, and has an ambassador to it.
fn linking() -> Graph {
    let mut graph = graph(&["web"]);
    let web = graph.services.get_mut("web").expect("it is there");
    web.external_links = vec![ExternalLink {
        project: other(),
        service: service_name("db"),
        alias: "store".to_owned(),
        place: "compose.yaml:3:24".to_owned(),
    }];
    let place = "compose.yaml:4:30".to_owned();
    web.ambassadors =
        vec![to(AmbassadorTarget::Exported { project: other(), service: service_name("db"), port: 5432, place })];
    graph
}

/// Brings a project up; returns what it is warned of.
async fn warned(agent: &Agent, graph: &Graph) -> Vec<String> {
    let events =
        drain(agent.handler.up(graph.project.clone(), UpRequest::new(graph.clone())).await.expect("taken")).await;
    assert!(is_done(&events), "{events:#?}");
    let warnings = events.into_iter().filter_map(|event| match event {
        Progress::Note { message, is_warning: true } => Some(message),
        _ => None,
    });
    warnings.collect()
}

/// The problems of `web` that are about what is elsewhere.
async fn problems(agent: &Agent) -> Vec<(String, String)> {
    let question = WhyQuestion { about: "web".to_owned(), only_here: false };
    let told = agent.handler.why(shop(), question).await.expect("told");
    let about = |one: &Finding| one.weight == Weight::Problem && one.text.contains("nobody is there");
    let found = told.findings.into_iter().filter(about);
    found.map(|one| (one.text, one.hint.unwrap_or_default())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_other_project_gives_is_told_with_its_place_and_what_to_do() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let link = "service `web` links to `other/db` as `store` (compose.yaml:3:24), and nobody is there";
    let ambassador =
        "ambassador `far` of service `web` leads to `other/db:5432` (compose.yaml:4:30), and nobody is there";
    let check = async |why: &str, help: [&str; 2]| {
        let said = [format!("{link}: {why}"), format!("{ambassador}: {why}")];
        let expected: Vec<String> = said.iter().zip(help).map(|(text, help)| format!("{text}; {help}")).collect();
        assert_eq!(warned(&agent, &linking()).await, expected);
        let plan = agent.handler.plan(shop(), UpRequest::new(linking())).await.expect("a plan");
        assert!(expected.iter().all(|text| plan.notes.contains(text)), "{:?}", plan.notes);
        let expected: Vec<(String, String)> = said.into_iter().zip(help.map(str::to_owned)).collect();
        assert_eq!(problems(&agent).await, expected);
    };
    let up = "`other` is to be brought up with its own files; `orch ls` lists those that are there";
    check("no project `other` is up", [up; 2]).await;
    warned(&agent, &project("other", &["cache", "web"])).await;
    let there = "there are `cache` and `web`";
    check("project `other` has no service `db`", [there; 2]).await;
    let mut there = project("other", &["db"]);
    warned(&agent, &there).await;
    let help = |what: &str| format!("`x-export: {what}` at that service lets other projects reach it");
    let (any, one) = (help("PORT"), help("5432"));
    check("service `db` of project `other` exports nothing", [&any, &one]).await;

    there.services.get_mut("db").expect("it is there").export = Export::Ports(vec![80]);
    warned(&agent, &there).await;
    let help = "5432 under `x-export` of that service lets other projects reach it";
    let text = format!("{ambassador}: service `db` of project `other` exports 80 only");
    assert_eq!(warned(&agent, &linking()).await, [format!("{text}; {help}")]);
    assert_eq!(problems(&agent).await, [(text, help.to_owned())]);

    there.services.get_mut("db").expect("it is there").export = Export::All;
    warned(&agent, &there).await;
    assert_eq!(warned(&agent, &linking()).await, Vec::<String>::new());
    assert_eq!(problems(&agent).await, []);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_off_is_told_with_what_switches_it_on() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let off = |mut graph: Graph| {
        graph.disabled.insert(service_name("db"));
        graph.profiles.insert(service_name("db"), vec!["later".to_owned()]);
        graph
    };
    warned(&agent, &off(project("other", &["web"]))).await;
    let (why, help) = ("is off by its profile `later`", "`--profile later` at the `up` of `other` switches it on");
    let text = |what: &str| format!("{what}, and nobody is there: service `db` of project `other` {why}");
    let link = text("service `web` links to `other/db` as `store` (compose.yaml:3:24)");
    let ambassador = text("ambassador `far` of service `web` leads to `other/db:5432` (compose.yaml:4:30)");
    assert_eq!(warned(&agent, &linking()).await, [format!("{link}; {help}"), format!("{ambassador}; {help}")]);
    assert_eq!(problems(&agent).await, [(link, help.to_owned()), (ambassador, help.to_owned())]);
    // In one's own project the file is refused, unless somebody asked for less to be checked.
    let mut own = off(graph(&["web"]));
    let target = AmbassadorTarget::Service { service: service_name("db"), port: 5432 };
    own.services.get_mut("web").expect("it is there").ambassadors = vec![to(target)];
    warned(&agent, &own).await;
    let text = format!("ambassador `far` of service `web` leads to `db:5432`, and nobody is there: `db` {why}");
    let help = "`--profile later` at its `up` switches it on".to_owned();
    assert_eq!(problems(&agent).await, [(text, help.clone())]);
    let question = WhyQuestion { about: "db".to_owned(), only_here: false };
    let told = agent.handler.why(shop(), question).await.expect("told").findings;
    let finding = Finding { weight: Weight::Problem, text: format!("`db` {why}"), hint: Some(help) };
    assert_eq!(told, [finding]);
    agent.kill().await;
}

/// An engine with `web`, whose pods have a sidecar.
fn with_sidecar() -> (Arc<FakeEngine>, Graph) {
    let engine = engine();
    engine.add_image(crate::graph::HOLDER_IMAGE);
    let web =
        "services:\n  web: {networks: {default: null}, x-sidecars: {sync: {image: app}}}\nnetworks: {default: {}}";
    (engine, crate::plan::fixture::graph(web))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_pod_of_several_it_is_told_which_container_ended() {
    let ((engine, mut graph), dir) = (with_sidecar(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    for service in graph.services.values_mut() {
        service.restart = Restart::No;
    }
    assert_eq!(warned(&agent, &graph).await, Vec::<String>::new());
    let why = async || {
        let all = agent.handler.traffic().await.expect("told").services;
        all.into_iter().find(|one| one.service == service_name("web")).and_then(|one| one.why)
    };
    let ended = |name: &'static str| {
        move |all: &BTreeMap<String, ObservedContainer>| {
            all[name].state == ContainerState::Exited { code: 3, by_itself: true }
        }
    };
    assert_eq!(why().await, None);
    engine.crash("shop-web-1-sync", 3);
    agent.becomes("the sidecar has ended", ended("shop-web-1-sync")).await;
    assert_eq!(why().await.as_deref(), Some("`web.sync.1` ended with 3"));
    engine.crash("shop-web-1", 3);
    agent.becomes("the main container has ended", ended("shop-web-1")).await;
    assert_eq!(why().await.as_deref(), Some("`web.1` ended with 3"));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_an_ambassador_from_listening_is_told_once() {
    let ((engine, mut graph), dir) = (with_sidecar(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let outside = AmbassadorTarget::Outside { host: "db.example.com".to_owned(), port: 5432 };
    // No pod has this address. Source: RFC 5737.
    let nowhere = Ambassador { address: Ipv4Addr::new(192, 0, 2, 1), ..to(outside) };
    graph.services.get_mut("web").expect("it is there").ambassadors = vec![nowhere];
    let events = agent.handler.up(shop(), UpRequest::new(graph)).await.expect("taken");
    let Some(Progress::Failed { messages }) = drain(events).await.pop() else { panic!("it cannot listen") };
    let said = "ambassador `far` of `web.1` cannot listen at 192.0.2.1:5432";
    assert_eq!(messages.iter().filter(|message| message.contains(said)).count(), 1, "{messages:#?}");
    for about in ["web", "web.1"] {
        let question = WhyQuestion { about: about.to_owned(), only_here: false };
        let told = agent.handler.why(shop(), question).await.expect("told").findings;
        assert_eq!(told.iter().filter(|one| one.text.contains(said)).count(), 1, "{about}: {told:#?}");
    }
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_ready_pod_keeps_its_row_and_those_who_lead_to_it_say_so() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let mut graph = graph(&["db", "job", "web"]);
    graph.services.get_mut("job").expect("it is there").restart = Restart::No;
    graph.services.get_mut("db").expect("it is there").container.healthcheck = Some(crate::testing::healthcheck());
    let target = AmbassadorTarget::Service { service: service_name("db"), port: 5432 };
    graph.services.get_mut("web").expect("it is there").ambassadors = vec![to(target)];
    assert_eq!(warned(&agent, &graph).await, Vec::<String>::new(), "it is no dependency");
    engine.crash("shop-job-1", 0);
    let ended = |all: &BTreeMap<String, ObservedContainer>| {
        all["shop-job-1"].state == ContainerState::Exited { code: 0, by_itself: true }
    };
    agent.becomes("its work is done", ended).await;
    let seen = async || {
        let all = agent.handler.traffic().await.expect("told").services;
        all.into_iter().map(|ServiceSeen { service, why, .. }| (service.to_string(), why)).collect::<Vec<_>>()
    };
    let row = |name: &str, why: Option<&str>| (name.to_owned(), why.map(str::to_owned));
    assert_eq!(seen().await, [row("db", Some("`db.1` starts")), row("web", None)]);
    let text = "ambassador `far` of service `web` leads to `db:5432`, and nobody is there: `db.1` starts";
    assert_eq!(problems(&agent).await, [(text.to_owned(), "`orch why db` says more".to_owned())]);
    engine.set_health("shop-db-1", Health::Healthy);
    agent.becomes("the database is ready", |all| all["shop-db-1"].is_ready()).await;
    assert_eq!(seen().await, [row("db", None), row("web", None)]);
    assert_eq!(problems(&agent).await, []);
    drain(agent.handler.stop(shop(), StopRequest::default()).await.expect("accepted")).await;
    let stopped = Some("it is stopped");
    assert_eq!(seen().await, [row("db", stopped), row("web", stopped)]);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_as_an_ambassador_has_its_port_is_told_which() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let mut graph = graph(&["web"]);
    let web = graph.services.get_mut("web").expect("it is there");
    web.ambassadors = vec![to(AmbassadorTarget::Outside { host: "192.0.2.7".to_owned(), port: 5432 })];
    let script = "err cannot bind to [::]:5432: Address already in use; exit 1";
    web.container.command = Some(["sh", "-c", script].map(str::to_owned).to_vec());
    drain(agent.handler.up(shop(), UpRequest::new(graph)).await.expect("accepted")).await;
    agent.becomes("failed", |all| matches!(all["shop-web-1"].state, ContainerState::Exited { code: 1, .. })).await;
    for about in ["web", "web.1"] {
        let question = WhyQuestion { about: about.to_owned(), only_here: false };
        let told = agent.handler.why(shop(), question).await.expect("told");
        let text =
            "container shop-web-1 cannot have its port: ambassador `far` has port 5432 (127.0.0.1:5432) in this pod";
        assert!(told.findings.iter().any(|one| one.weight == Weight::Problem && one.text == text), "{told:#?}");
    }
    agent.kill().await;
}
