//! Changes that are rolled out as the file says: pauses go by the clock, and outlive the agent as failures do.

use crate::clock::ManualClock;
use crate::graph::{OnFailure, Rollout, Scale};

use super::*;

/// Some time of day.
const NOON: Duration = Duration::from_hours(500_004);

/// Three replicas of this spec.
pub(super) fn wanted(spec: &str, on_failure: OnFailure) -> Graph {
    let mut graph = graph(&["web"]);
    let web = graph.services.get_mut("web").expect("it is there");
    web.scale = Scale::Replicas(3);
    web.spec_hash = spec.to_owned();
    web.rollout = Some(Rollout {
        parallelism: 1,
        delay: Duration::from_mins(10),
        monitor: Duration::from_mins(5),
        on_failure,
        failures_borne: 0,
    });
    graph
}

impl Agent {
    /// Waits until the loop has looked twice at what is now, and does nothing.
    async fn looks(&self) {
        let handle = self.shared.project(&shop()).expect("it is up");
        let mut states = handle.state.subscribe();
        for _ in 0..2 {
            let passes = states.borrow().passes;
            self.shared.informer.resync().await.expect("listed");
            let quiet = |state: &ProjectState| state.passes > passes && state.report.under_way == 0;
            let in_time = tokio::time::timeout(DEADLINE, states.wait_for(quiet)).await;
            assert!(in_time.is_ok(), "never quiet: {:#?}", handle.state.borrow().plan);
        }
    }

    /// How many replicas run with this spec.
    fn with(&self, spec: &str) -> usize {
        self.containers().values().filter(|one| one.is_running() && one.spec_hash.as_deref() == Some(spec)).count()
    }

    async fn become_with(&self, spec: &'static str, count: usize) {
        let is_so = |all: &BTreeMap<String, ObservedContainer>| {
            let mut with = all.values().filter(|one| one.spec_hash.as_deref() == Some(spec));
            all.len() == 3 && all.values().all(ObservedContainer::is_running) && with.by_ref().count() == count
        };
        self.becomes("so many are replaced", is_so).await;
    }

    /// Asks for another `up` and does not wait for its end.
    async fn begin(&self, graph: &Graph) -> mpsc::Receiver<Progress> {
        self.handler.up(shop(), UpRequest::new(graph.clone())).await.expect("accepted")
    }

    fn is_settled(&self) -> bool {
        self.shared.project(&shop()).expect("it is up").state.borrow().settled
    }
}

async fn started(engine: &Arc<FakeEngine>, dir: &Path, clock: &Arc<ManualClock>) -> Agent {
    Agent::start_at(engine, dir, Fleet::alone(HostName::local()), clock.clone()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_between_replicas_go_by_the_clock_also_when_the_agent_starts_anew() {
    let (engine, dir, clock) = (engine(), tempfile::tempdir().expect("a directory"), Arc::new(ManualClock::default()));
    clock.advance(NOON);
    let agent = started(&engine, dir.path(), &clock).await;
    assert!(is_done(&agent.up(&wanted("old", OnFailure::Pause)).await), "nothing is waited for the first time");
    let events = agent.begin(&wanted("new", OnFailure::Pause)).await;
    agent.become_with("new", 1).await;
    agent.looks().await;
    assert_eq!(agent.with("new"), 1);
    clock.advance(Duration::from_mins(9));
    agent.looks().await;
    assert_eq!(agent.with("new"), 1);
    drop(events);
    agent.kill().await;

    let agent = started(&engine, dir.path(), &clock).await;
    agent.looks().await;
    assert_eq!(agent.with("new"), 1, "the pause is not over");
    clock.advance(Duration::from_mins(1));
    agent.looks().await;
    agent.become_with("new", 2).await;
    agent.looks().await;
    assert_eq!(agent.with("new"), 2, "nor is the next one left out");
    clock.advance(Duration::from_mins(10));
    agent.looks().await;
    agent.become_with("new", 3).await;
    agent.looks().await;
    assert!(!agent.is_settled(), "the last one is watched");
    clock.advance(Duration::from_mins(5));
    agent.looks().await;
    assert!(agent.is_settled());
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_fails_ends_the_rollout_and_the_next_up_goes_on_once_it_is_well() {
    let (engine, dir, clock) = (engine(), tempfile::tempdir().expect("a directory"), Arc::new(ManualClock::default()));
    clock.advance(NOON);
    let agent = started(&engine, dir.path(), &clock).await;
    agent.up(&wanted("old", OnFailure::Pause)).await;
    let events = agent.begin(&wanted("new", OnFailure::Pause)).await;
    agent.become_with("new", 1).await;
    agent.looks().await;
    engine.crash("shop-web-1", 3);
    let events = drain(events).await;
    let Some(Progress::Failed { messages }) = events.last() else { panic!("it failed: {events:#?}") };
    assert!(
        messages[0].contains("update of `web` is paused, 1 of 3 replicas failed: container shop-web-1 ended with 3")
    );
    // What failed is healed as ever, and all the others stay, whatever time passes and whoever looks.
    agent.become_with("new", 1).await;
    clock.advance(Duration::from_hours(1));
    agent.looks().await;
    assert_eq!(agent.with("new"), 1);
    agent.kill().await;
    let agent = started(&engine, dir.path(), &clock).await;
    agent.looks().await;
    assert_eq!((agent.with("new"), agent.with("old")), (1, 2));
    let status = agent.handler.project(&shop()).await.expect("it is up");
    assert!(status.failures.iter().any(|failure| failure.contains("paused")), "{:?}", status.failures);

    // Who asks for the same once more loses no other replica to it.
    let events = agent.begin(&wanted("new", OnFailure::Pause)).await;
    agent.looks().await;
    clock.advance(Duration::from_mins(4));
    engine.crash("shop-web-1", 4);
    let events = drain(events).await;
    let Some(Progress::Failed { messages }) = events.last() else { panic!("it failed: {events:#?}") };
    assert!(messages[0].contains("paused, 1 of 3 replicas failed: container shop-web-1 ended with 4"), "{messages:?}");
    agent.become_with("new", 1).await;
    agent.looks().await;
    drop(agent.begin(&wanted("new", OnFailure::Pause)).await);
    agent.looks().await;
    assert_eq!((agent.with("new"), agent.with("old")), (1, 2));
    agent.kill().await;
    let agent = started(&engine, dir.path(), &clock).await;
    agent.looks().await;
    assert_eq!((agent.with("new"), agent.with("old")), (1, 2), "nor to an agent that starts anew");
    clock.advance(Duration::from_mins(5));
    agent.looks().await;
    assert_eq!((agent.with("new"), agent.with("old")), (1, 2), "it is well, and the pause is not over");
    let events = agent.begin(&wanted("new", OnFailure::Pause)).await;
    clock.advance(Duration::from_mins(5));
    agent.looks().await;
    agent.become_with("new", 2).await;
    agent.looks().await;
    clock.advance(Duration::from_mins(10));
    agent.looks().await;
    agent.become_with("new", 3).await;
    agent.looks().await;
    clock.advance(Duration::from_mins(10));
    agent.looks().await;
    let events = drain(events).await;
    assert!(is_done(&events), "{events:#?}");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_started_is_a_failure_too() {
    let (engine, dir, clock) = (engine(), tempfile::tempdir().expect("a directory"), Arc::new(ManualClock::default()));
    clock.advance(NOON);
    let agent = started(&engine, dir.path(), &clock).await;
    agent.up(&wanted("old", OnFailure::Pause)).await;
    engine.fail("start_container", Fault::Before, 3);
    let events = agent.up(&wanted("new", OnFailure::Pause)).await;
    let Some(Progress::Failed { messages }) = events.last() else { panic!("it failed: {events:#?}") };
    assert!(messages.iter().any(|one| one.contains("container shop-web-1 could not be started")), "{messages:?}");
    agent.become_with("new", 1).await;
    agent.looks().await;
    assert_eq!(agent.with("old"), 2);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_refuses_once_ends_no_rollout() {
    for what in ["create_container", "start_container"] {
        let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
        let clock = Arc::new(ManualClock::default());
        clock.advance(NOON);
        let agent = started(&engine, dir.path(), &clock).await;
        agent.up(&wanted("old", OnFailure::Pause)).await;
        engine.fail(what, Fault::Before, 1);
        let events = agent.begin(&wanted("new", OnFailure::Pause)).await;
        for count in 1..=3 {
            agent.become_with("new", count).await;
            agent.looks().await;
            clock.advance(Duration::from_mins(10));
            agent.looks().await;
        }
        let events = drain(events).await;
        assert!(is_done(&events), "{what}: {events:#?}");
        agent.kill().await;
    }
}

/// What was made by the first `up` is none of a rollout then, although both are of one generation.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_one_off_needs_is_waited_for_and_nothing_else() {
    let (engine, dir, clock) = (engine(), tempfile::tempdir().expect("a directory"), Arc::new(ManualClock::default()));
    clock.advance(NOON);
    let agent = started(&engine, dir.path(), &clock).await;
    let wanted = wanted("old", OnFailure::Pause);
    agent.up(&wanted).await;
    let services = vec![ServiceName::new("web").expect("valid")];
    let options = UpOptions { services, only_dependencies: true, ..UpOptions::default() };
    assert!(is_done(&agent.up_as(&wanted, options).await));
    agent.kill().await;
}
