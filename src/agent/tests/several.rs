//! Several wishes at a time, in a hurry or not, and what is left when a project has gone.

use std::path::PathBuf;

use base64::Engine as _;
use tokio::time::Instant;

use crate::graph::{FileContent, FileMount};

use super::*;

/// Waits for an event of an object with this status.
async fn until(progress: &mut mpsc::Receiver<Progress>, wanted: &str) {
    let seen = async {
        loop {
            match progress.recv().await {
                Some(Progress::Object { status, .. }) if status == wanted => return,
                Some(_) => {}
                None => panic!("the stream ended before `{wanted}`"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.expect("in time");
}

/// A project whose only container ignores its stop signal for an hour.
async fn stubborn(agent: &Agent, engine: &FakeEngine) {
    let mut graph = graph(&["web"]);
    graph.services.get_mut("web").expect("it is there").stop_grace = Duration::from_hours(1);
    agent.up(&graph).await;
    engine.ignore_stop_signal("shop-web-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_grace_overtakes_a_stop_under_way() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    stubborn(&agent, &engine).await;
    let mut slow = agent.handler.stop(shop(), StopRequest { timeout_secs: None }).await.expect("accepted");
    until(&mut slow, "Stopping").await;
    let forced = agent.handler.stop(shop(), StopRequest { timeout_secs: Some(0) }).await.expect("accepted");
    let events = drain(forced).await;
    assert!(is_done(&events), "{events:#?}");
    assert_eq!(agent.containers()["shop-web-1"].state, ContainerState::Exited { code: 137, by_itself: false });
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_down_in_a_hurry_overtakes_a_slow_one() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    stubborn(&agent, &engine).await;
    let mut slow = agent.handler.down(shop(), DownRequest::default()).await.expect("accepted");
    until(&mut slow, "Stopping").await;
    let request = DownRequest { timeout_secs: Some(0), ..DownRequest::default() };
    let events = drain(agent.handler.down(shop(), request).await.expect("accepted")).await;
    assert!(is_done(&events), "{events:#?}");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_wish_the_same_at_once_both_get_it() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    // Nothing can be started yet, so that neither wish comes true before the other is heard.
    engine.fail("start_container", Fault::Before, 1);
    let up = |graph: Graph| {
        let request = UpRequest { wait: true, ..UpRequest::new(graph) };
        agent.handler.up(shop(), request)
    };
    let one = up(graph(&["db", "web"])).await.expect("accepted");
    let two = up(graph(&["db", "web"])).await.expect("accepted");
    let (one, two) = tokio::join!(drain(one), drain(two));
    let changed = |events: &[Progress]| format!("{events:?}").contains("somebody else");
    assert!(!changed(&one) && !changed(&two), "{one:#?}\n{two:#?}");

    let other = up(graph(&["web"])).await.expect("accepted");
    let (one, two) =
        tokio::join!(drain(agent.handler.down(shop(), DownRequest::default()).await.expect("accepted")), drain(other));
    assert!(is_done(&one), "{one:#?}");
    assert!(is_done(&two) || changed(&two), "another wish is said: {two:#?}");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_while_somebody_waits_must_go_on_running() {
    const WINDOW: Duration = Duration::from_secs(2);
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let mut graph = graph(&["db", "web"]);
    graph.services.get_mut("db").expect("it is there").restart_pace.window = Some(WINDOW);
    // Its check keeps the others waiting while the other one fails.
    let web = graph.services.get_mut("web").expect("it is there");
    web.container.healthcheck = Some(crate::testing::healthcheck());
    let request = UpRequest { wait: true, ..UpRequest::new(graph) };
    let progress = agent.handler.up(shop(), request).await.expect("accepted");
    agent.becomes("both run", |all| all_run(all, &["shop-db-1", "shop-web-1"])).await;
    let (first, before) = (agent.containers()["shop-db-1"].clone(), Instant::now());
    engine.crash("shop-db-1", 1);
    agent.becomes("again", |all| all["shop-db-1"].is_running() && all["shop-db-1"] != first).await;
    engine.set_health("shop-web-1", Health::Healthy);
    let events = drain(progress).await;
    assert!(is_done(&events), "{events:#?}");
    assert!(before.elapsed() >= WINDOW, "it had run for {:?} at most", before.elapsed());
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wait_for_in_vain_is_nothing_to_who_asks_for_something_else() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let mut graph = graph(&["job", "other", "web"]);
    graph.services.get_mut("job").expect("it is there").restart = Restart::No;
    graph.services.get_mut("web").expect("it is there").depends_on = vec![Dependency {
        service: service_name("job"),
        condition: Condition::ServiceCompletedSuccessfully,
        restart: false,
        required: true,
    }];
    let of = |service: &str| {
        let mut request = UpRequest { wait: true, ..UpRequest::new(graph.clone()) };
        request.options.services = vec![service_name(service)];
        request
    };
    let job_runs =
        |all: &BTreeMap<String, ObservedContainer>| all.get("shop-job-1").is_some_and(ObservedContainer::is_running);
    let waiting = agent.handler.up(shop(), of("web")).await.expect("accepted");
    agent.becomes("the job runs", job_runs).await;
    engine.crash("shop-job-1", 3);
    let ended = drain(waiting).await;
    assert!(matches!(ended.last(), Some(Progress::Failed { .. })), "{ended:#?}");
    // It is run again, and the web server waits for it once more.
    let ended = drain(agent.handler.up(shop(), of("other")).await.expect("accepted")).await;
    assert!(is_done(&ended), "{ended:#?}");
    agent.becomes("the job runs again", job_runs).await;
    engine.crash("shop-job-1", 3);
    let ended = drain(agent.handler.up(shop(), of("other")).await.expect("accepted")).await;
    assert!(is_done(&ended), "{ended:#?}");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_the_engine_still_clears_is_waited_for() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["web"])).await;
    engine.let_endpoints_linger("shop_default", 3);
    let events = agent.down().await;
    assert!(is_done(&events), "{events:#?}");
    assert_eq!(engine.calls()["remove_network"], 4);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_the_engine_never_clears_is_cleared() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["web"])).await;
    engine.let_endpoints_linger("shop_default", usize::MAX);
    let events = agent.down().await;
    assert!(is_done(&events), "{events:#?}");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_somebody_uses_is_said_with_who() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["web"])).await;
    let attachment = crate::engine::SpecAttachment { network: "shop_default".into(), ..Default::default() };
    let guest = crate::engine::ContainerSpec {
        name: "guest".into(),
        image: "app".into(),
        network: crate::engine::SpecNetwork::Networks(vec![attachment]),
        ..crate::engine::ContainerSpec::default()
    };
    engine.create_container(&guest).await.expect("made");
    engine.start_container("guest").await.expect("started");
    let events = agent.down().await;
    let said = "Network shop_default: network shop_default is still used by container `guest`";
    assert_eq!(events.last(), Some(&Progress::Failed { messages: vec![said.into()] }));
    agent.kill().await;
}

/// Returns the files below `dir` that hold one of `texts`, but for the directory that is in memory on a real host.
fn files_with(dir: &Path, texts: &[&[u8]]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("readable")) {
        let path = entry.path();
        if entry.file_type().expect("known").is_dir() {
            if path.file_name().is_none_or(|name| name != "run") {
                found.extend(files_with(&path, texts));
            }
        } else if let Ok(bytes) = std::fs::read(&path)
            && texts.iter().any(|text| bytes.windows(text.len()).any(|window| window == *text))
        {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_of_secrets_are_in_no_file_of_the_state_up_or_down() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let secret = b"correct horse battery staple".to_vec();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&secret);
    let mut graph = graph(&["web"]);
    let (hash, target) = ("5e".repeat(32), "/run/secrets/password".to_owned());
    let mount = FileMount { target, hash: hash.clone(), secret: true, uid: 0, gid: 0, mode: 0o444 };
    graph.services.get_mut("web").expect("it is there").container.files.push(mount);
    graph.files.insert(hash, FileContent { bytes: secret.clone(), secret: true });
    let texts = [secret.as_slice(), base64.as_bytes()];
    // Not under an owner of its own: changing that is for root.
    let events = agent.up(&graph).await;
    assert!(!events.is_empty());
    assert!(!files_with(dir.path(), &[b"projects/shop"]).is_empty(), "the search finds what is there");
    assert_eq!(files_with(dir.path(), &texts), Vec::<PathBuf>::new(), "while it is up");
    let record = agent.shared.project(&shop()).expect("up").record.borrow().clone().expect("a record");
    assert_eq!(record.desired.as_ref().expect("desired").graph.files.values().next().expect("a file").bytes, secret);
    agent.down().await;
    assert_eq!(files_with(dir.path(), &texts), Vec::<PathBuf>::new(), "after `down`");
    agent.kill().await;
}
