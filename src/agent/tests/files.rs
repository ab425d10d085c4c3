//! Files that travel: what an `up` that names them needs, and how long they stay.

use std::time::Duration;

use crate::api::types::ErrorKind;
use crate::engine::label;
use crate::graph::{Graph, Mount, MountSource};
use crate::ids::SnapshotHash;
use crate::snapshot::{DEFAULT_LIMIT, packed, scan};

use super::*;

/// A graph whose `web` mounts a snapshot.
fn mounting(hash: &SnapshotHash) -> Graph {
    let mut graph = graph(&["web"]);
    let source = MountSource::Snapshot { hash: hash.clone(), selinux: false };
    let mount = Mount { target: "/conf".into(), read_only: true, source };
    graph.services.get_mut("web").expect("it is there").container.mounts.push(mount);
    graph
}

/// Gives an agent a snapshot of a file with this text, as the command line does.
async fn give(agent: &Agent, text: &str) -> SnapshotHash {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("conf");
    std::fs::write(&path, text).expect("written");
    let tree = scan(&path, DEFAULT_LIMIT).expect("it can travel");
    let hash = tree.hash();
    agent.handler.put_snapshot(&hash, packed(path, tree)).await.expect("taken in");
    hash
}

/// Waits until of these snapshots exactly those that are said to be here are.
async fn keeps(agent: &Agent, expected: &[(&SnapshotHash, bool)]) {
    let wait = async {
        while !expected.iter().all(|(hash, here)| agent.shared.snapshots.has(hash) == *here) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, wait).await;
    let seen: Vec<bool> = expected.iter().map(|(hash, _)| agent.shared.snapshots.has(hash)).collect();
    assert!(in_time.is_ok(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_stay_as_long_as_a_record_names_or_a_container_mounts_them() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let absent = SnapshotHash::new("0".repeat(64)).expect("a hash");
    let request = UpRequest::new(mounting(&absent));
    let plan = agent.handler.plan(shop(), request.clone()).await.expect("it can be planned without them");
    assert_eq!(plan.steps.len(), 3);
    let refused = agent.handler.up(shop(), request).await.expect_err("refused");
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.message.contains("run `orch up` again"), "{}", refused.message);
    assert!(agent.shared.projects().is_empty(), "nothing was written");

    let first = give(&agent, "first").await;
    assert!(is_done(&agent.up(&mounting(&first)).await));
    assert_eq!(agent.containers()["shop-web-1"].labels[label::SNAPSHOTS], first.as_str());
    // As if the container had to stay as it is: the record names the next one, and the container mounts the first.
    let next = give(&agent, "next").await;
    assert!(is_done(&agent.up(&mounting(&next)).await));
    assert_eq!(agent.containers()["shop-web-1"].labels[label::SNAPSHOTS], first.as_str());
    let unasked = give(&agent, "nobody asks for it").await;
    agent.kill().await;

    // Whatever is not needed now goes at the start.
    let agent = Agent::start(&engine, dir.path()).await;
    keeps(&agent, &[(&unasked, false), (&first, true), (&next, true)]).await;
    assert!(is_done(&agent.down().await));
    keeps(&agent, &[(&first, false), (&next, false)]).await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_no_host_has_any_more_are_said_and_brought_back_by_up() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let hash = give(&agent, "text").await;
    assert!(is_done(&agent.up(&mounting(&hash)).await));
    std::fs::remove_dir_all(agent.shared.snapshots.path(&hash).parent().expect("its directory")).expect("removed");
    let id = agent.containers()["shop-web-1"].id.clone();
    engine.remove_container(&id, false).await.expect("removed");
    agent.shared.informer.resync().await.expect("listed");
    let mut states = agent.shared.project(&shop()).expect("up").state.subscribe();
    let said = |state: &ProjectState| state.errors.values().any(|error| error.contains("`orch up` sends them again"));
    let in_time = tokio::time::timeout(DEADLINE, states.wait_for(said)).await.is_ok();
    assert!(in_time, "never an empty directory in silence: {:#?}", states.borrow().errors);
    assert!(!agent.containers().contains_key("shop-web-1"));
    assert_eq!(give(&agent, "text").await, hash);
    assert!(is_done(&agent.up(&mounting(&hash)).await));
    agent.becomes("there again", |containers| all_run(containers, &["shop-web-1"])).await;
    agent.kill().await;
}
