//! Two people with one project.

use crate::api::types::{ApiError, ErrorKind};
use crate::plan::Caller;

use super::*;

fn caller(name: &str, seen: u64) -> Caller {
    Caller { name: name.to_owned(), seen }
}

fn wish(services: &[&str], caller: Caller) -> UpRequest {
    UpRequest { caller, ..UpRequest::new(graph(services)) }
}

async fn up(agent: &Agent, services: &[&str], caller: Caller) -> Result<(), ApiError> {
    let events = drain(agent.handler.up(shop(), wish(services, caller)).await?).await;
    assert!(is_done(&events), "{events:#?}");
    Ok(())
}

/// What one who asks is refused for.
#[track_caller]
fn unseen<T>(answer: Result<T, ApiError>) -> String {
    let Err(error) = answer else { panic!("not refused") };
    assert_eq!(error.kind, ErrorKind::Unseen, "{error}");
    error.message
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_changed_is_overwritten_only_by_who_has_seen_it() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    up(&agent, &["web"], caller("ann", 0)).await.expect("the first one");
    up(&agent, &["web"], caller("bob", 0)).await.expect("the same");
    up(&agent, &["db", "web"], caller("ann", 0)).await.expect("her own");
    let stored = agent.shared.store.list("").await.expect("a list");

    let said = unseen(agent.handler.up(shop(), wish(&["web"], caller("bob", 0))).await);
    assert!(said.contains("`shop` was changed meanwhile by ann at ") && said.ends_with(": db added"), "{said}");
    unseen(agent.handler.plan(shop(), wish(&["web"], caller("bob", 0))).await);
    unseen(agent.handler.down(shop(), DownRequest { caller: caller("bob", 0), ..DownRequest::default() }).await);
    assert_eq!(agent.shared.store.list("").await.expect("a list"), stored, "nothing is written");
    assert!(all_run(&agent.containers(), &["shop-db-1", "shop-web-1"]));

    let status = agent.handler.project(&shop()).await.expect("it is up");
    let last = status.history.changes().last().expect("a change").number;
    up(&agent, &["web"], caller("bob", last)).await.expect("he has seen it");
    unseen(agent.handler.up(shop(), wish(&["db", "web"], caller("ann", last))).await);
    up(&agent, &["web"], caller("ann", last)).await.expect("the same, of which she takes note");
    up(&agent, &["db", "web"], caller("ann", last)).await.expect("now she knows");
    up(&agent, &["web"], Caller::regardless("eve".to_owned())).await.expect("whatever it is");
    up(&agent, &["db"], Caller::default()).await.expect("nobody is asked");

    let request = DownRequest { caller: Caller::regardless("ann".to_owned()), ..DownRequest::default() };
    let events = drain(agent.handler.down(shop(), request).await.expect("accepted")).await;
    assert!(is_done(&events), "{events:#?}");
    up(&agent, &["web"], caller("bob", 0)).await.expect("there is nothing to overwrite");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_wish_something_else_at_once_the_second_is_told() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    up(&agent, &["web"], caller("ann", 0)).await.expect("the first one");
    up(&agent, &["web"], caller("bob", 0)).await.expect("the same");
    // Both have the same before their eyes.
    let (one, two) = tokio::join!(
        agent.handler.up(shop(), wish(&["db", "web"], caller("ann", 1))),
        agent.handler.up(shop(), wish(&["cache", "web"], caller("bob", 1))),
    );
    assert!(one.is_ok() != two.is_ok(), "exactly one is accepted");
    unseen(one.and(two));
    agent.kill().await;
}
