//! More than there is room for in memory: what came last is refused, what was there goes on, and whole requests come first.

use tokio::io::AsyncWriteExt;

use super::script::read_message;
use super::site::{Dialog, HttpSite};
use crate::lb::http::HttpOptions;
use crate::lb::tests::site::until;
use crate::model::AppProtocol;

/// For two threads: 64 KiB each, of which those that are slow may have 48.
const HELD: usize = 128 * 1024;

/// What each client sends, and how many of those fit at most.
const PIECE: usize = 12 * 1024;
const FIT: usize = HELD / PIECE;

const CLIENTS: usize = 30;

async fn narrow(is_fast: bool) -> HttpSite {
    HttpSite::with(HttpOptions { is_fast, held: HELD, ..HttpOptions::default() }, AppProtocol::Http).await
}

/// Returns how many requests were refused for want of room.
fn crowded(site: &HttpSite) -> u64 {
    site.balancer.stats().crowded
}

#[tokio::test]
async fn heads_that_never_end_are_refused_while_whole_requests_are_served() {
    let site = narrow(true).await;
    let body = "x".repeat(1 << 20);
    let answer = format!("HTTP/1.1 200 OK|Content-Length: {}||{body}", body.len());
    let _pod = site.scripted(1, &[super::site::Answer::new(&answer)]).await;
    site.set(&[1]);
    let mut slow = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Dialog::new(&site).await;
        client.write(&format!("GET / HTTP/1.1|Host: a|X: {}", "x".repeat(PIECE))).await;
        slow.push(client);
    }
    // Those that are left wait for the end of their heads, which has ten seconds.
    until(|| crowded(&site), |refused| *refused >= (CLIENTS - FIT) as u64).await;
    let whole = Dialog::new(&site).await.ask("GET / HTTP/1.1|Host: a||").await;
    assert_eq!((whole.start.as_str(), whole.body.len()), ("HTTP/1.1 200 OK", body.len()));
    // All of them were looked at, and those that were refused are gone.
    until(|| site.balancer.stats(), |stats| stats.accepted == CLIENTS as u64 + 1 && stats.open <= FIT).await;
    let mut refused = 0;
    for mut client in slow {
        if client.has_ended().await {
            let said = client.read_all().await;
            // What it had sent and was not read may have made the end a reset.
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 503 "), "{said}");
            refused += 1;
        }
    }
    assert_eq!(refused, crowded(&site));
    assert!(
        ((CLIENTS - FIT) as u64..CLIENTS as u64).contains(&refused),
        "{refused} of {CLIENTS}: some are there, and few"
    );
    // With those that were slow their bytes went, too.
    until(|| site.balancer.stats().open, |open| *open == 0).await;
    let mut late = Dialog::new(&site).await;
    late.write(&format!("GET / HTTP/1.1|Host: a|X: {}", "x".repeat(PIECE))).await;
    assert!(!late.has_ended().await);
    assert_eq!(late.ask("||").await.body.len(), body.len());
}

#[tokio::test]
async fn requests_that_wait_for_their_answers_take_room_until_they_have_them() {
    for is_fast in [true, false] {
        let site = narrow(is_fast).await;
        let (tell, told) = tokio::sync::watch::channel(false);
        let _pod = site
            .pod(1, move |mut stream| {
                let mut told = told.clone();
                async move {
                    let mut unread = Vec::new();
                    while read_message(&mut stream, &mut unread).await.is_some() {
                        told.wait_for(|told| *told).await.expect("the test goes on");
                        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                            return;
                        }
                    }
                }
            })
            .await;
        site.set(&[1]);
        let request = format!("POST / HTTP/1.1|Host: a|Content-Length: {PIECE}||{}", "x".repeat(PIECE));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = Dialog::new(&site).await;
            client.write(&request).await;
            clients.push(client);
        }
        until(|| crowded(&site), |refused| *refused >= (CLIENTS - FIT) as u64).await;
        assert!(crowded(&site) < CLIENTS as u64, "some found room");
        tell.send_replace(true);
        let (mut served, mut refused) = (0, 0);
        for mut client in clients {
            let answer = client.read().await;
            match answer.start.get(9..12) {
                Some("200") => served += 1,
                Some("503") => refused += 1,
                _ => panic!("{answer:?}"),
            }
        }
        assert_eq!((served + refused, refused), (CLIENTS, usize::try_from(crowded(&site)).expect("few")));
        let again = Dialog::new(&site).await.ask(&request).await;
        assert_eq!(again.body, b"ok", "there is room again");
    }
}
