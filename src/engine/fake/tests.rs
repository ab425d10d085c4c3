use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use ipnet::Ipv4Net;

use super::*;
use crate::engine::contract::{CASES, World};
use crate::engine::{ContainerSpec, Engine, EventQuery};
use crate::ids::ProjectName;
use crate::transport::image::{Entry, Image, archive};

struct FakeWorld(FakeEngine);

#[async_trait]
impl World for FakeWorld {
    fn engine(&self) -> &dyn Engine {
        &self.0
    }

    fn project(&self) -> ProjectName {
        "case".parse().expect("a name")
    }

    fn image(&self) -> String {
        "workload:1".to_owned()
    }

    fn other_image(&self) -> (Bytes, String) {
        let image = Image { reference: "other:1".to_owned(), entrypoint: Vec::new(), labels: BTreeMap::new() };
        (archive(&[Entry::file("note", 0o644, b"")], &[image]).expect("an archive"), "other:1".to_owned())
    }

    fn program(&self) -> Vec<String> {
        vec!["/workload".to_owned()]
    }

    fn subnet(&self, number: u8) -> Ipv4Net {
        Ipv4Net::new([10, 1, number, 0].into(), 24).expect("a prefix")
    }

    fn free_port(&self) -> u16 {
        8080
    }

    async fn check_health(&self, id: &str) {
        self.0.set_health(id, Health::Healthy);
    }
}

fn engine() -> FakeEngine {
    let engine = FakeEngine::new();
    engine.add_image("workload:1");
    engine
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    for (name, case) in CASES {
        let result = tokio::spawn(async move { case(&FakeWorld(engine())).await }).await;
        assert!(result.is_ok(), "case {name}");
    }
}

#[tokio::test]
async fn faults_come_before_or_after_the_effect() {
    let engine = engine();
    let spec = ContainerSpec::new("web", "workload:1");
    engine.fail("create_container", Fault::Before, 1);
    engine.create_container(&spec).await.expect_err("a test wants it");
    engine.inspect_container("web").await.expect_err("nothing happened");
    engine.fail("create_container", Fault::After, 1);
    engine.create_container(&spec).await.expect_err("a test wants it");
    engine.inspect_container("web").await.expect("it happened");
    assert_eq!(engine.calls()["create_container"], 2);
    engine.set_unreachable(true);
    assert!(engine.info().await.expect_err("nobody answers").is_transient());
}

#[tokio::test]
async fn a_crash_has_no_kill_before_it() {
    let engine = engine();
    let mut events = engine.events(&EventQuery::default());
    engine.create_container(&ContainerSpec::new("web", "workload:1")).await.expect("can be made");
    engine.start_container("web").await.expect("can be started");
    engine.crash("web", 139);
    let mut actions = Vec::new();
    while actions.last().is_none_or(|last| last != "die") {
        actions.push(events.next().await.expect("goes on").expect("goes on").action);
    }
    assert_eq!(actions, ["create", "start", "die"]);
    engine.restart_engine();
    assert!(!engine.inspect_container("web").await.expect("is there").is_running());
}
