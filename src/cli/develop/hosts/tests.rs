use super::*;
use crate::cli::develop::picture::{Picture, Told};
use crate::cli::develop::rules::tests::watched;
use crate::engine::by_hand::ByHand as _;
use crate::engine::fake::{FakeEngine, Fault};
use crate::engine::{ContainerSpec, Engine as _, label};

#[test]
fn what_containers_got_is_told_once_for_each_service() {
    let name = |text: &str| ServiceName::new(text).expect("a name");
    let host = |text: &str| HostName::new(text).expect("a name");
    let mut tally = Tally::default();
    for (service, on, paths) in [("web", "a", 3), ("web", "b", 3), ("web", "b", 5), ("db", "a", 1)] {
        tally.add(name(service), host(on), paths);
    }
    let told = [
        "Synced service \"db\": 1 path in 1 container, 0.2s",
        "Synced service \"web\": 5 paths in 3 containers on 2 hosts, 0.2s",
    ];
    assert_eq!(tally.tell(Duration::from_millis(240)), told);
    assert!(tally.tell(Duration::ZERO).is_empty());
}

/// Two engines, each with a container of service `web`, and a directory that is synced to `/app`.
struct Scene {
    engines: [FakeEngine; 2],
    hosts: Hosts,
    dir: tempfile::TempDir,
    all: Vec<Tracked>,
    number: Number,
    troubles: Vec<String>,
    paths: usize,
}

async fn container(engine: &FakeEngine) -> String {
    let mut spec = ContainerSpec::new("shop-web-1", "app:1");
    let labels = [(label::PROJECT, "shop"), (label::SERVICE, "web"), (label::NUMBER, "1"), (label::ONEOFF, "False")];
    spec.labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let id = engine.create_container(&spec).await.expect("made");
    engine.start_container(&id).await.expect("started");
    id
}

impl Scene {
    async fn new() -> Self {
        let engines = [FakeEngine::new(), FakeEngine::new()];
        for engine in &engines {
            engine.add_image("app:1");
            container(engine).await;
        }
        let sources = engines.iter().map(|engine| Source::local(Arc::new(engine.clone()))).collect();
        let hosts = Hosts::open(ProjectName::new("shop").expect("a name"), sources, Vec::new());
        let dir = tempfile::tempdir().expect("a directory");
        let rule = format!("{{path: {}, action: sync, target: /app}}", dir.path().display());
        let rule = watched(&format!("{{image: x, develop: {{watch: [{rule}]}}}}")).expect("read").rules.remove(0);
        let mut picture = Picture::new(&rule.path);
        picture.look(&rule.filter, &Told { all: true, ..Told::default() }, &mut |_| Ok(()));
        let all = vec![Tracked::new(rule, picture, 1)];
        Self { engines, hosts, dir, all, number: 1, troubles: Vec::new(), paths: 0 }
    }

    /// Writes files, and has that brought to whoever can be reached.
    async fn write(&mut self, names: &[&str]) {
        for name in names {
            std::fs::write(self.dir.path().join(name), name).expect("written");
        }
        self.number += 1;
        let tracked = &mut self.all[0];
        let told = Told { all: true, ..Told::default() };
        let (changes, _) = tracked.picture.look(&tracked.rule.filter, &told, &mut |_| Ok(()));
        tracked.take(&changes, self.number);
        self.hosts.wake();
        self.until(Hosts::is_settled).await;
    }

    /// Goes on until something is so.
    async fn until(&mut self, is_so: impl Fn(&Hosts) -> bool) {
        let built = BTreeMap::new();
        while !is_so(&self.hosts) {
            let woke = timeout(Duration::from_mins(1), self.hosts.next()).await.expect("something happens");
            for happening in self.hosts.take(woke, Wanted { all: &self.all, number: self.number, built: &built }) {
                match happening {
                    Happening::Trouble(text) => self.troubles.push(text),
                    Happening::Brought { paths, .. } => self.paths += paths,
                    Happening::Output(_) => {}
                }
            }
        }
    }

    async fn has(&self, at: usize, name: &str) -> bool {
        self.engines[at].path_stat("shop-web-1", &format!("/app/{name}")).await.is_ok()
    }
}

#[tokio::test]
async fn whoever_lacks_something_gets_it() {
    let mut scene = Scene::new().await;
    scene.write(&["a"]).await;
    assert!(scene.has(0, "a").await && scene.has(1, "a").await);
    assert_eq!(scene.paths, 2);
    // A container that is made anew gets what was brought to the one before.
    scene.engines[1].remove_container("shop-web-1", true).await.expect("removed");
    let id = container(&scene.engines[1]).await;
    let number = scene.number;
    scene.until(|hosts| hosts.held.get(&id).is_some_and(|held| held.has == number)).await;
    assert!(scene.has(1, "a").await);
    assert_eq!(scene.paths, 3, "and nobody else gets it again");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_said_once_and_holds_up_nobody() {
    let mut scene = Scene::new().await;
    scene.write(&["a"]).await;
    scene.engines[1].set_unreachable(true);
    scene.write(&["b"]).await;
    scene.write(&["c"]).await;
    assert!(scene.has(0, "b").await && scene.has(0, "c").await);
    assert!(scene.hosts.all[1].phase == Phase::Away);
    let silent = |scene: &Scene| scene.troubles.iter().filter(|text| text.contains("does not answer")).count();
    assert_eq!(silent(&scene), 1, "{:?}", scene.troubles);
    scene.engines[1].set_unreachable(false);
    scene.until(|hosts| hosts.all[1].phase == Phase::Idle && !hosts.all[1].open).await;
    assert!(scene.has(1, "b").await && scene.has(1, "c").await);
    assert_eq!(silent(&scene), 1);
}

#[tokio::test]
async fn what_an_engine_refuses_is_said_and_tried_again() {
    let mut scene = Scene::new().await;
    scene.engines[1].fail("write_archive", Fault::Before, 2);
    scene.write(&["a"]).await;
    assert!(scene.has(0, "a").await && !scene.has(1, "a").await);
    scene.until(|hosts| hosts.all[1].phase == Phase::Idle && !hosts.all[1].open).await;
    assert!(scene.has(1, "a").await);
    let said = scene.troubles.iter().filter(|text| text.contains("shop-web-1: not synced")).count();
    assert_eq!(said, 1, "{:?}", scene.troubles);
}
