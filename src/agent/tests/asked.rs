//! What is asked of containers that are there, over fakes: done once, kept, and told of the pods in question only.

use crate::api::types::AskRequest;
use crate::plan::Ask;

use super::*;

impl Agent {
    async fn ask(&self, ask: Ask, services: &[&str]) -> Vec<Progress> {
        let services = services.iter().map(|name| service_name(name)).collect();
        let request = AskRequest { ask, services, wait: false, dry_run: false };
        drain(self.handler.ask(shop(), request).await.expect("accepted")).await
    }
}

/// What was said of containers: `shop-web-1 Stopped`.
fn said(events: &[Progress]) -> Vec<String> {
    let told = events.iter().filter_map(|event| match event {
        Progress::Object { name, status, .. } => Some(format!("{name} {status}")),
        _ => None,
    });
    told.collect()
}

fn stop() -> Ask {
    Ask::Stop { timeout_secs: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stopped_stays_so_with_a_new_agent_and_what_others_stop_is_healed() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["db", "web"])).await;
    let events = agent.ask(stop(), &["db"]).await;
    assert!(is_done(&events), "{events:#?}");
    assert_eq!(said(&events), ["shop-db-1 Stopping", "shop-db-1 Stopped"]);
    agent.kill().await;

    let agent = Agent::start(&engine, dir.path()).await;
    agent.settles().await;
    assert!(!agent.containers()["shop-db-1"].is_running());
    let web = agent.containers()["shop-web-1"].clone();
    engine.stop_container("shop-web-1", Duration::ZERO).await.expect("stopped");
    agent.becomes("healed", |all| all["shop-web-1"].is_running() && all["shop-web-1"] != web).await;
    assert!(!agent.containers()["shop-db-1"].is_running());
    let mut words = said(&agent.ask(Ask::Start, &["db"]).await);
    words.retain(|word| word.starts_with("shop-db-1"));
    assert_eq!(words, ["shop-db-1 Starting", "shop-db-1 Started"]);
    assert!(all_run(&agent.containers(), &["shop-db-1", "shop-web-1"]));

    let restart = Ask::Restart { timeout_secs: None, no_deps: false };
    let events = agent.ask(restart, &["web"]).await;
    assert_eq!(said(&events), ["shop-web-1 Restarting", "shop-web-1 Restarting", "shop-web-1 Started"]);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_sent_once_also_with_a_new_agent() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["web"])).await;
    let hup = || Ask::Kill { signal: "HUP".into(), remove_orphans: false };
    let sent = |engine: &FakeEngine| engine.calls().get("kill_container").copied().unwrap_or(0);
    assert!(is_done(&agent.ask(hup(), &[]).await));
    assert_eq!(sent(&engine), 1);
    agent.kill().await;
    let agent = Agent::start(&engine, dir.path()).await;
    agent.settles().await;
    assert_eq!(sent(&engine), 1);
    assert!(is_done(&agent.ask(hup(), &[]).await));
    assert_eq!(sent(&engine), 2, "asked for once more");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_asks_is_not_kept_waiting_by_what_fails_elsewhere() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    agent.up(&graph(&["db", "web"])).await;
    engine.fail("start_container", Fault::Before, 1000);
    engine.crash("shop-db-1", 1);
    agent.becomes("crashed", |all| !all["shop-db-1"].is_running()).await;
    let events = agent.ask(stop(), &["web"]).await;
    assert!(is_done(&events), "{events:#?}");
    agent.kill().await;
}
