//! Pods that are asked whether they are ready (`x-probe`).

use super::*;
use crate::model::{Probe, ProbeKind};

const PORT: u16 = 8080;

/// A project whose `web` is asked: quickly, and one bad answer is forgiven.
fn probed(services: &[&str]) -> Graph {
    let interval = Duration::from_millis(20);
    let probe = Probe { kind: ProbeKind::Tcp, port: PORT, interval, timeout: interval, failures: 2, successes: 1 };
    let mut graph = graph(services);
    graph.services.get_mut("web").expect("it is there").serving.probe = Some(probe);
    graph
}

/// An engine, a store and what containers answer, for one agent after the other.
struct Place {
    engine: Arc<FakeEngine>,
    dir: tempfile::TempDir,
    asker: Arc<FakeAsker>,
}

impl Place {
    /// Nobody answers.
    fn silent() -> Self {
        Self { engine: engine(), dir: tempfile::tempdir().expect("a directory"), asker: Arc::default() }
    }

    /// All is well.
    fn answering() -> Self {
        let place = Self::silent();
        place.asker.set(PORT, true, "200 OK");
        place
    }

    async fn start(&self) -> Agent {
        let (fleet, clock) = (Fleet::alone(HostName::local()), Arc::new(SystemClock));
        Agent::start_asking(&self.engine, self.dir.path(), fleet, clock, self.asker.clone()).await
    }

    /// Starts an agent and brings a project up, until its `web` is ready.
    async fn up(&self, graph: &Graph) -> Agent {
        let agent = self.start().await;
        agent.up(graph).await;
        agent.becomes("ready", is_ready).await;
        agent
    }

    /// Waits until the port was asked so many times more.
    async fn asked_again(&self, times: usize) {
        let before = self.asker.asked(PORT);
        let asked = async {
            while self.asker.asked(PORT) < before + times {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, asked).await.expect("it is asked");
    }
}

fn web(all: &BTreeMap<String, ObservedContainer>) -> Option<&ObservedContainer> {
    all.get("shop-web-1")
}

fn is_ready(all: &BTreeMap<String, ObservedContainer>) -> bool {
    web(all).is_some_and(ObservedContainer::is_ready)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_pod_waits_for_its_first_good_answer() {
    let place = Place::silent();
    let agent = place.start().await;
    let mut graph = probed(&["app", "web"]);
    let on_web = Dependency {
        service: service_name("web"),
        condition: Condition::ServiceHealthy,
        restart: false,
        required: true,
    };
    graph.services.get_mut("app").expect("it is there").depends_on = vec![on_web];
    let request = UpRequest { wait: true, ..UpRequest::new(graph.clone()) };
    let progress = agent.handler.up(graph.project.clone(), request).await.expect("accepted");
    agent.becomes("asked in vain", |all| web(all).is_some_and(|web| web.is_running() && !web.is_ready())).await;
    place.asked_again(3).await;
    let seen = agent.containers();
    let probed = seen["shop-web-1"].probe.clone().expect("it is asked");
    assert_eq!((probed.health, probed.said.as_str()), (Health::Starting, "connection refused"));
    assert!(!seen.get("shop-app-1").is_some_and(ObservedContainer::is_running), "it waits");
    place.asker.set(PORT, true, "connected");
    let events = drain(progress).await;
    assert!(is_done(&events), "{events:#?}");
    assert!(is_ready(&agent.containers()));
    assert!(agent.containers()["shop-app-1"].is_running());
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_answers_take_a_pod_out_and_leave_it_alone() {
    let place = Place::answering();
    let agent = place.up(&probed(&["web"])).await;
    let before = agent.containers()["shop-web-1"].clone();
    place.asker.set(PORT, false, "503 Service Unavailable");
    agent.becomes("taken out", |all| web(all).is_some_and(|web| !web.is_ready())).await;
    place.asked_again(5).await;
    agent.settles().await;
    let now = agent.containers()["shop-web-1"].clone();
    assert_eq!((&now.id, &now.started_at), (&before.id, &before.started_at), "it is neither replaced nor restarted");
    assert!(matches!(now.checked_state(), ContainerState::Running { health: Health::Unhealthy }));
    let version = agent.shared.refresh_own_picture();
    let (told, picture) = agent.shared.own_pictures().borrow().clone();
    assert!(told == version && !picture.observed.containers[&now.id].is_ready(), "the other hosts know");
    place.asker.set(PORT, true, "200 OK");
    agent.becomes("back", is_ready).await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_again_finds_ready_what_was_ready() {
    let place = Place::answering();
    let agent = place.up(&probed(&["web"])).await;
    agent.kill().await;

    let before = place.asker.asked(PORT);
    let agent = place.start().await;
    assert!(is_ready(&agent.containers()), "before anything was told to anybody");
    assert!(place.asker.asked(PORT) > before);
    agent.kill().await;

    place.asker.set(PORT, false, "500 Oops");
    let agent = place.start().await;
    assert!(!is_ready(&agent.containers()), "it was ready once, and is not now");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serves_goes_on_while_it_begins_to_be_asked() {
    let place = Place::answering();
    let agent = place.up(&graph(&["web"])).await;
    let before = agent.containers()["shop-web-1"].id.clone();
    // Looks at each picture that there is from now on.
    let mut pictures = agent.shared.informer.subscribe();
    let informer = agent.shared.informer.clone();
    let watch = tokio::spawn(async move {
        while pictures.changed().await.is_ok() {
            let seen = informer.everything();
            let all = seen.hosts.values().flat_map(|host| host.containers.values());
            if all.into_iter().any(|one| !one.is_ready()) {
                return;
            }
        }
    });
    agent.up(&probed(&["web"])).await;
    place.asked_again(3).await;
    agent
        .becomes("asked", |all| web(all).and_then(|web| web.probe.as_ref()).is_some_and(|one| one.said == "200 OK"))
        .await;
    assert!(!watch.is_finished(), "it was ready all the time");
    watch.abort();
    assert_eq!(agent.containers()["shop-web-1"].id, before, "nothing is made anew for a question");
    agent.up(&graph(&["web"])).await;
    agent.becomes("asked no more", |all| web(all).is_some_and(|web| web.probe.is_none() && web.is_ready())).await;
    agent.kill().await;
}
