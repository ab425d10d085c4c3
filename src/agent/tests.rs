//! The loop over fakes: what it makes true, and that it does so again whatever is broken in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::server::Handler as _;
use crate::api::types::{DownRequest, Progress, StopRequest, UpRequest};
use crate::clock::{Clock, SystemClock};
use crate::engine::Engine as _;
use crate::engine::fake::{FakeEngine, Fault};
use crate::graph::{Attachment, Condition, Dependency, Graph, NetworkMode, Restart};
use crate::host::asking::FakeAsker;
use crate::host::files::HostFiles;
use crate::host::network::FakeHostNetwork;
use crate::host::tools::HostTools;
use crate::ids::{HostName, ProjectName, ResourceKey, ServiceName};
use crate::lb::{Balancer, BalancerOptions};
use crate::net::dns::DnsServer;
use crate::net::names::NameTable;
use crate::plan::{ContainerState, Health, ObservedContainer, Reason, UpOptions};
use crate::store::embedded::Embedded;
use crate::store::sealed::Sealed;
use crate::testing;

use super::AgentOptions;
use super::dataplane::Dataplane;
use super::fleet::members::Fleet;
use super::handler::AgentHandler;
use super::informer::Informer;
use super::shared::{Edges, ProjectState, Shared};
use super::wire;

/// Longest that any of these tests waits; paused time would stop the real store's threads.
const DEADLINE: Duration = Duration::from_secs(20);

mod asked;
mod elsewhere;
mod files;
mod fleet;
mod hooks;
mod oneoff;
mod people;
mod probing;
mod refused;
mod rollouts;
mod routes;
mod several;

/// An agent over fakes.
struct Agent {
    shared: Arc<Shared>,
    handler: AgentHandler,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Agent {
    /// Starts an agent over this engine and the store in `dir`, as `wire` does.
    async fn start(engine: &Arc<FakeEngine>, dir: &Path) -> Self {
        Self::start_in(engine, dir, Fleet::alone(HostName::local())).await
    }

    /// Starts an agent of this fleet.
    async fn start_in(engine: &Arc<FakeEngine>, dir: &Path, fleet: Fleet) -> Self {
        Self::start_at(engine, dir, fleet, Arc::new(SystemClock)).await
    }

    /// Starts an agent that goes by this clock.
    async fn start_at(engine: &Arc<FakeEngine>, dir: &Path, fleet: Fleet, clock: Arc<dyn Clock>) -> Self {
        Self::start_asking(engine, dir, fleet, clock, Arc::new(FakeAsker::default())).await
    }

    /// Starts an agent that hears this from containers.
    async fn start_asking(
        engine: &Arc<FakeEngine>,
        dir: &Path,
        fleet: Fleet,
        clock: Arc<dyn Clock>,
        asker: Arc<FakeAsker>,
    ) -> Self {
        let host = fleet.own.clone();
        let store = Arc::new(Embedded::open(dir.join("store.db")).await.expect("a store"));
        let store = Arc::new(Sealed::open(store, dir.join("secrets.key")).await.expect("a key"));
        let engine: Arc<dyn crate::engine::Engine> = engine.clone();
        let informer = Arc::new(Informer::new(engine.clone(), store.clone(), host.clone()));
        let names = Arc::new(ArcSwap::from_pointee(NameTable::default()));
        let dns = DnsServer::new(tokio::runtime::Handle::current(), names.clone());
        let options = BalancerOptions { threads: 1, own_host: host.clone(), ..BalancerOptions::default() };
        let balancer = Balancer::start(options).expect("threads");
        let dataplane = Arc::new(Dataplane::new(names, dns, balancer, Arc::new(FakeHostNetwork::default())));
        let files = Arc::new(HostFiles::new(dir.join("state"), dir.join("run"), HostTools::here()));
        let engine_info = engine.info().await.expect("it answers");
        let edges = Edges { engine, engine_info, store, clock, asker, informer, dataplane, files };
        let options = AgentOptions {
            state_dir: dir.join("state"),
            run_dir: dir.join("run"),
            engine: None,
            host,
            subnet_pool: "10.192.0.0/10".parse().expect("a network"),
            lb_threads: 1,
        };
        let (announce, announced) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(options, fleet, edges, announce));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        wire::start(&shared, announced, &stop, &tasks).await.expect("it starts");
        let handler = AgentHandler::new(shared.clone(), "build".into(), stop.child_token());
        Self { shared, handler, stop, tasks }
    }

    /// Ends the agent as a kill would: nothing is said to anybody.
    async fn kill(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn up(&self, graph: &Graph) -> Vec<Progress> {
        self.up_as(graph, UpOptions::default()).await
    }

    async fn up_as(&self, graph: &Graph, options: UpOptions) -> Vec<Progress> {
        let request = UpRequest { options, ..UpRequest::new(graph.clone()) };
        drain(self.handler.up(graph.project.clone(), request).await.expect("accepted")).await
    }

    async fn down(&self) -> Vec<Progress> {
        drain(self.handler.down(shop(), DownRequest::default()).await.expect("accepted")).await
    }

    /// Waits until the project's loop has looked at the picture of now and has nothing to do.
    async fn settles(&self) {
        self.shared.informer.resync().await.expect("listed");
        let handle = self.shared.project(&shop()).expect("it is up");
        let mut states = handle.state.subscribe();
        let passes = states.borrow().passes;
        let quiet = |state: &ProjectState| {
            let idle = state.plan.as_ref().is_some_and(|plan| plan.steps.is_empty());
            state.passes > passes && state.report.under_way == 0 && idle
        };
        let in_time = tokio::time::timeout(DEADLINE, states.wait_for(quiet)).await;
        assert!(in_time.is_ok(), "never quiet: {:#?}", handle.state.borrow().plan);
    }

    /// Returns the project's containers by name.
    fn containers(&self) -> BTreeMap<String, ObservedContainer> {
        let observed = self.shared.informer.observed(Some(&shop()));
        let containers = observed.hosts.into_values().flat_map(|host| host.containers.into_values());
        containers.map(|container| (container.name.clone(), container)).collect()
    }

    /// Waits until `condition` holds of the containers.
    #[track_caller]
    fn becomes(
        &self,
        what: &'static str,
        condition: impl Fn(&BTreeMap<String, ObservedContainer>) -> bool,
    ) -> impl Future<Output = ()> {
        let mut pictures = self.shared.informer.subscribe();
        async move {
            let wait = async {
                while !condition(&self.containers()) {
                    pictures.changed().await.expect("the agent runs");
                }
            };
            let in_time = tokio::time::timeout(DEADLINE, wait).await;
            assert!(in_time.is_ok(), "not in time: {what}; last seen: {:#?}", self.containers());
        }
    }
}

async fn drain(mut progress: mpsc::Receiver<Progress>) -> Vec<Progress> {
    let mut events = Vec::new();
    let all = async {
        while let Some(event) = progress.recv().await {
            events.push(event);
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("progress ends");
    events
}

fn shop() -> ProjectName {
    ProjectName::new("shop").expect("valid")
}

fn service_name(name: &str) -> ServiceName {
    ServiceName::new(name).expect("valid")
}

/// A project of these services on one network.
fn graph(services: &[&str]) -> Graph {
    let key = ResourceKey::new("default").expect("valid");
    let mut graph = testing::graph("shop", services);
    for service in graph.services.values_mut() {
        let attachment = Attachment::new(key.clone());
        service.network = NetworkMode::Networks(vec![attachment]);
    }
    graph.networks.insert(key, testing::network("shop_default"));
    graph
}

fn engine() -> Arc<FakeEngine> {
    let engine = FakeEngine::new();
    engine.add_image("app");
    Arc::new(engine)
}

fn is_done(events: &[Progress]) -> bool {
    matches!(events.last(), Some(Progress::Done { .. }))
}

fn all_run(containers: &BTreeMap<String, ObservedContainer>, names: &[&str]) -> bool {
    containers.keys().map(String::as_str).eq(names.iter().copied())
        && containers.values().all(ObservedContainer::is_running)
}

#[tokio::test(flavor = "multi_thread")]
async fn up_makes_what_is_asked_for_and_a_second_up_changes_nothing() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let events = agent.up(&graph(&["db", "web"])).await;
    assert!(is_done(&events), "{events:#?}");
    assert!(all_run(&agent.containers(), &["shop-db-1", "shop-web-1"]));

    engine.reset_calls();
    let stored = agent.shared.store.list("").await.expect("a list");
    let events = agent.up(&graph(&["db", "web"])).await;
    assert!(is_done(&events), "{events:#?}");
    let changing = ["create_container", "start_container", "stop_container", "remove_container", "ensure_network"];
    let calls = engine.calls();
    assert!(changing.iter().all(|method| !calls.contains_key(method)), "{calls:?}");
    assert_eq!(agent.shared.store.list("").await.expect("a list"), stored, "nothing is written either");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_away_comes_back() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["web"])).await;

    let run = || agent.containers()["shop-web-1"].started_at.clone();
    let first = run();
    engine.crash("shop-web-1", 1);
    let again = |all: &BTreeMap<String, ObservedContainer>, before: &str| {
        all_run(all, &["shop-web-1"]) && all["shop-web-1"].started_at != before
    };
    agent.becomes("running after a crash", |all| again(all, &first)).await;
    let second = run();
    engine.kill_container("shop-web-1", "KILL").await.expect("killed");
    agent.becomes("running after a kill", |all| again(all, &second)).await;
    let before = agent.containers()["shop-web-1"].id.clone();
    engine.remove_container("shop-web-1", false).await.expect("removed");
    agent
        .becomes("made anew after a removal", |all| all_run(all, &["shop-web-1"]) && all["shop-web-1"].id != before)
        .await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_engine_brings_everything_back() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["db", "web"])).await;
    let first = agent.containers()["shop-db-1"].started_at.clone();
    engine.restart_engine();
    agent
        .becomes("running after the restart", |all| {
            all_run(all, &["shop-db-1", "shop-web-1"]) && all["shop-db-1"].started_at != first
        })
        .await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_again_touches_nothing_that_is_in_order() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["db", "web"])).await;
    let before = agent.containers();
    agent.kill().await;

    engine.reset_calls();
    let agent = Agent::start(&engine, dir.path()).await;
    let events = agent.up(&graph(&["db", "web"])).await;
    assert!(is_done(&events), "{events:#?}");
    assert_eq!(agent.containers(), before);
    assert!(!engine.calls().contains_key("start_container"), "{:?}", engine.calls());
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_half_way_is_continued_by_the_next() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    engine.fail("start_container", Fault::Before, 1000);
    let events = agent.up(&graph(&["db", "web"])).await;
    assert!(matches!(events.last(), Some(Progress::Failed { .. })), "{events:#?}");
    agent.kill().await;

    engine.fail("start_container", Fault::Before, 0);
    let agent = Agent::start(&engine, dir.path()).await;
    agent.becomes("running without being asked again", |all| all_run(all, &["shop-db-1", "shop-web-1"])).await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_get_lost_lead_to_nothing_twice() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    for method in ["ensure_network", "create_container", "start_container"] {
        engine.fail(method, Fault::After, 1);
    }
    agent.up(&graph(&["web"])).await;
    agent.becomes("one container, running", |all| all_run(all, &["shop-web-1"])).await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_is_run_again_by_up_and_by_nothing_else() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let mut jobs = graph(&["job"]);
    jobs.services.get_mut("job").expect("it is there").restart = Restart::No;
    agent.up(&jobs).await;
    engine.crash("shop-job-1", 0);
    let finished =
        |container: &ObservedContainer| container.state == ContainerState::Exited { code: 0, by_itself: true };
    agent.becomes("finished", |all| all.get("shop-job-1").is_some_and(finished)).await;
    let first_run = agent.containers()["shop-job-1"].started_at.clone();
    agent.kill().await;

    let agent = Agent::start(&engine, dir.path()).await;
    agent.shared.informer.resync().await.expect("listed");
    assert!(finished(&agent.containers()["shop-job-1"]), "known over the agent's restart");
    let events = agent.up(&jobs).await;
    assert!(is_done(&events), "{events:#?}");
    agent.becomes("run again", |all| all["shop-job-1"].started_at != first_run).await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_stopped_after_its_end_was_not_finished() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["web"])).await;
    let first_run = agent.containers()["shop-web-1"].started_at.clone();
    engine.crash("shop-web-1", 0);
    let finished =
        |container: &ObservedContainer| container.state == ContainerState::Exited { code: 0, by_itself: true };
    agent.becomes("finished", |all| all.get("shop-web-1").is_some_and(finished)).await;
    engine.tell("shop-web-1", "stop");
    agent.becomes("run again", |all| all["shop-web-1"].started_at != first_run && all["shop-web-1"].is_running()).await;
    // What is said of an earlier run changes nothing.
    engine.tell("shop-web-1", "stop");
    engine.crash("shop-web-1", 0);
    agent.becomes("finished", |all| all.get("shop-web-1").is_some_and(finished)).await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_for_the_health_of_another_and_up_says_so() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let mut healthy = graph(&["db", "web"]);
    let db = healthy.services.get_mut("db").expect("it is there");
    db.container.healthcheck = Some(crate::testing::healthcheck());
    healthy.services.get_mut("web").expect("it is there").depends_on = vec![Dependency {
        service: service_name("db"),
        condition: Condition::ServiceHealthy,
        restart: false,
        required: true,
    }];
    let request = UpRequest::new(healthy.clone());
    let progress = agent.handler.up(shop(), request).await.expect("accepted");
    agent
        .becomes("the database runs and the web server is made", |all| {
            all.get("shop-db-1").is_some_and(ObservedContainer::is_running) && all.contains_key("shop-web-1")
        })
        .await;
    assert_eq!(agent.containers()["shop-web-1"].state, ContainerState::Created);
    engine.set_health("shop-db-1", Health::Healthy);
    let events = drain(progress).await;
    assert!(is_done(&events), "{events:#?}");
    let said = |wanted: &str| {
        events.iter().any(
            |event| matches!(event, Progress::Object { name, status, .. } if name == "shop-db-1" && status == wanted),
        )
    };
    assert!(said("Waiting") && said("Healthy"), "{events:#?}");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_moved_rolls_out_with_the_next_up_and_not_before() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["db", "web"])).await;
    let before = agent.containers();
    agent.kill().await;

    engine.move_tag("app");
    let agent = Agent::start(&engine, dir.path()).await;
    agent.settles().await;
    assert_eq!(agent.containers(), before, "the new agent leaves them alone");
    let asked = UpRequest::new(graph(&["db", "web"]));
    let plan = agent.handler.plan(shop(), asked).await.expect("a plan");
    assert!(plan.steps.iter().any(|step| step.reason == Reason::ImageChanged), "{plan:#?}");
    agent.settles().await;
    assert_eq!(agent.containers(), before, "asking what `up` would do moves nothing");

    engine.remove_container("shop-web-1", true).await.expect("removed");
    let id = &before["shop-web-1"].id;
    agent.becomes("healed", |all| all.get("shop-web-1").is_some_and(|one| one.is_running() && one.id != *id)).await;
    assert_eq!(agent.containers()["shop-web-1"].image_id, before["shop-web-1"].image_id, "healing keeps the image");

    agent.up(&graph(&["db", "web"])).await;
    let new = engine.image_id("app").await.expect("an answer").expect("it is there");
    assert!(agent.containers().values().all(|one| one.image_id == new && one.is_running()));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_image_is_gone_comes_back_from_what_the_tag_means_now() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["web"])).await;
    engine.move_tag("app");
    let before = agent.containers()["shop-web-1"].clone();
    engine.fail("create_container", Fault::Before, 1);
    engine.remove_container("shop-web-1", true).await.expect("removed");
    engine.prune_images();
    agent
        .becomes("healed", |all| all.get("shop-web-1").is_some_and(|one| one.is_running() && one.id != before.id))
        .await;
    agent.settles().await;
    let first = agent.containers();
    assert_ne!(first["shop-web-1"].image_id, before.image_id);
    agent.kill().await;

    let agent = Agent::start(&engine, dir.path()).await;
    agent.settles().await;
    assert_eq!(agent.containers(), first, "that is remembered");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn up_without_start_makes_containers_and_the_next_up_starts_them() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["web"])).await;
    let web = agent.containers()["shop-web-1"].clone();
    let no_start = || UpOptions { no_start: true, ..UpOptions::default() };
    let events = agent.up_as(&graph(&["db", "web"]), no_start()).await;
    assert!(is_done(&events), "{events:#?}");
    assert_eq!(agent.containers()["shop-web-1"], web, "what runs as it should goes on");
    assert_eq!(agent.containers()["shop-db-1"].state, ContainerState::Created);
    agent.kill().await;

    let agent = Agent::start(&engine, dir.path()).await;
    agent.settles().await;
    assert_eq!(agent.containers()["shop-db-1"].state, ContainerState::Created, "left so by a new agent, too");
    engine.crash("shop-web-1", 1);
    agent.becomes("healed", |all| all["shop-web-1"].is_running() && all["shop-web-1"] != web).await;
    let events = agent.up_as(&graph(&["db", "web"]), no_start()).await;
    assert!(is_done(&events), "{events:#?}");
    assert_eq!(agent.containers()["shop-db-1"].state, ContainerState::Created);

    let mut changed = graph(&["db", "web"]);
    changed.services.get_mut("web").expect("it is there").spec_hash = "other".to_owned();
    agent.up_as(&changed, no_start()).await;
    assert_eq!(agent.containers()["shop-web-1"].state, ContainerState::Created, "made anew, not started");
    assert!(is_done(&agent.up(&changed).await));
    assert!(all_run(&agent.containers(), &["shop-db-1", "shop-web-1"]));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_keeps_containers_and_down_leaves_nothing() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["db", "web"])).await;
    let events = drain(agent.handler.stop(shop(), StopRequest::default()).await.expect("accepted")).await;
    assert!(is_done(&events), "{events:#?}");
    assert_eq!(agent.containers().len(), 2);
    assert!(agent.containers().values().all(|container| !container.is_running()));

    let events = agent.down().await;
    assert!(is_done(&events), "{events:#?}");
    assert!(agent.containers().is_empty());
    let left = engine.observe(None).await.expect("a list");
    assert!(!left.networks.contains_key("shop_default"), "{left:#?}");
    assert_eq!(agent.shared.store.list("projects/").await.expect("a list").0, []);
    let events = agent.down().await;
    assert!(is_done(&events), "taking down nothing is no error: {events:#?}");
    agent.kill().await;
}
