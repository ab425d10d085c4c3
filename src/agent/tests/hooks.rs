//! What is run inside containers after their start and before their stop.

use super::*;
use crate::graph::Hook;

fn hook(script: &str) -> Hook {
    Hook { command: vec![script.to_owned()], ..Hook::default() }
}

/// A project whose `web` has these hooks.
fn hooked(post_start: &[&str], pre_stop: &[&str]) -> Graph {
    let mut graph = graph(&["web"]);
    let container = &mut graph.services.get_mut("web").expect("it is there").container;
    container.post_start = post_start.iter().map(|script| hook(script)).collect();
    container.pre_stop = pre_stop.iter().map(|script| hook(script)).collect();
    graph
}

fn runs(engine: &FakeEngine) -> u64 {
    engine.calls().get("exec").copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_after_the_start_are_run_once_for_each_run() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let graph = hooked(&["out one", "out two"], &[]);
    assert!(is_done(&agent.up(&graph).await));
    assert_eq!(runs(&engine), 2);
    assert!(is_done(&agent.up(&graph).await));
    assert_eq!(runs(&engine), 2, "nothing was started");
    agent.kill().await;

    let agent = Agent::start(&engine, dir.path()).await;
    assert!(is_done(&agent.up(&graph).await));
    assert_eq!(runs(&engine), 2, "another agent knows of it");
    let before = agent.containers()["shop-web-1"].started_at.clone();
    engine.crash("shop-web-1", 1);
    let again = |all: &BTreeMap<String, ObservedContainer>| {
        all_run(all, &["shop-web-1"]) && all["shop-web-1"].started_at != before
    };
    agent.becomes("another run", again).await;
    agent.settles().await;
    assert_eq!(runs(&engine), 4);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_fails_the_start_and_is_not_tried_again() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let graph = hooked(&["exit 3", "out never"], &[]);
    for _ in 0..2 {
        let events = agent.up(&graph).await;
        let told = format!("{events:?}");
        assert!(!is_done(&events) && told.contains("web hook exited with status 3"), "{events:#?}");
        assert_eq!(runs(&engine), 1, "the run goes on, and those after it are not run");
        assert!(all_run(&agent.containers(), &["shop-web-1"]));
    }
    let mended = hooked(&["exit 0", "out then"], &[]);
    let mut mended = mended;
    mended.services.get_mut("web").expect("it is there").spec_hash = "mended".into();
    assert!(is_done(&agent.up(&mended).await));
    assert_eq!(runs(&engine), 3);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_before_the_stop_are_the_containers_own_and_keep_nothing_from_ending() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&hooked(&[], &["out bye", "exit 1"])).await;
    assert_eq!(runs(&engine), 0);
    // The file has no hooks any more, and asks for another container.
    let mut changed = hooked(&[], &[]);
    changed.services.get_mut("web").expect("it is there").spec_hash = "changed".into();
    assert!(is_done(&agent.up(&changed).await));
    assert_eq!(runs(&engine), 2, "those of the container that went");
    agent.down().await;
    assert_eq!(runs(&engine), 2);
    agent.kill().await;
}
