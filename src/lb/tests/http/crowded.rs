//! More than there is room for in memory: what came last is refused, what was there goes on, and whole requests come first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::script::read_message;
use super::serving::websocket;
use super::site::{Answer, Dialog, HttpSite};
use crate::lb::http::HttpOptions;
use crate::lb::tests::site::until;
use crate::model::AppProtocol;

/// For two threads: 64 KiB each, of which those that are slow may have 48.
const HELD: usize = 128 * 1024;

/// What each client sends, and how many of those fit at most.
const PIECE: usize = 12 * 1024;
const FIT: usize = HELD / PIECE;

const CLIENTS: usize = 30;

/// Requests one after the other, each on a connection of its own: some for either thread.
const REQUESTS: usize = 12;

async fn narrow(is_fast: bool) -> HttpSite {
    holding(HELD, is_fast).await
}

async fn holding(held: usize, is_fast: bool) -> HttpSite {
    HttpSite::with(HttpOptions { is_fast, held, ..HttpOptions::default() }, AppProtocol::Http).await
}

fn ok() -> Answer {
    Answer::new("HTTP/1.1 200 OK|Content-Length: 2||ok")
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
    let _pod = site.scripted(1, &[Answer::new(&answer)]).await;
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

#[tokio::test]
async fn answers_that_nobody_takes_leave_room_for_whole_requests() {
    const HELD: usize = 512 * 1024;
    const DOWNLOADS: usize = 16;
    let site = holding(HELD, true).await;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let _pod = site
        .pod(1, move |mut stream| {
            let count = Arc::clone(&count);
            async move {
                let mut unread = Vec::new();
                while let Some(request) = read_message(&mut stream, &mut unread).await {
                    let is_short = request.start.contains("/short");
                    let length: usize = if is_short { 2 } else { 1 << 30 };
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                    if stream.write_all(head.as_bytes()).await.is_err() {
                        return;
                    }
                    let part = vec![b'x'; length.min(64 * 1024)];
                    for _ in 0..length / part.len() {
                        if stream.write_all(&part).await.is_err() {
                            return;
                        }
                        count.fetch_add(part.len(), Ordering::Relaxed);
                    }
                }
            }
        })
        .await;
    site.set(&[1]);
    let mut downloads = Vec::new();
    for _ in 0..DOWNLOADS {
        let mut client = Dialog::new(&site).await;
        client.write("GET / HTTP/1.1|Host: a||").await;
        client.read_until("\r\n\r\n").await;
        downloads.push(client);
    }
    // What the kernel takes of them comes to an end.
    let mut before = 0;
    while before != written.load(Ordering::Relaxed) {
        before = written.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for _ in 0..REQUESTS {
        let short = Dialog::new(&site).await.ask("GET /short HTTP/1.1|Host: a||").await;
        assert_eq!((short.start.as_str(), short.body.as_slice()), ("HTTP/1.1 200 OK", b"xx".as_slice()));
    }
    assert_eq!(crowded(&site), 0);
    // Whoever takes his goes on.
    for client in &mut downloads {
        client.read_until(&"x".repeat(1 << 20)).await;
    }
}

#[tokio::test]
async fn bodies_take_room_as_they_come_and_not_as_they_are_announced() {
    const HELD: usize = 1 << 20;
    const LENGTH: usize = 65_000;
    let site = holding(HELD, true).await;
    let pod = site.scripted(1, &[ok()]).await;
    site.set(&[1]);
    let mut slow = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Dialog::new(&site).await;
        client.write(&format!("POST / HTTP/1.1|Host: a|Content-Length: {LENGTH}||x")).await;
        slow.push(client);
    }
    until(|| site.balancer.stats().accepted, |accepted| *accepted == CLIENTS as u64).await;
    let mut late = Dialog::new(&site).await;
    assert_eq!(late.ask("GET / HTTP/1.1|Host: a||").await.body, b"ok");
    for client in &mut slow {
        assert_eq!(client.ask(&"x".repeat(LENGTH - 1)).await.start, "HTTP/1.1 200 OK");
    }
    assert_eq!(crowded(&site), 0);
    assert!(pod.heard().iter().skip(1).all(|request| request.body.len() == LENGTH));
}

#[tokio::test]
async fn a_connection_that_another_protocol_took_over_counts_its_head_once() {
    const UPGRADED: usize = 16;
    let site = narrow(true).await;
    let _pod = site.pod(1, websocket).await;
    site.set(&[1]);
    let mut clients = Vec::new();
    for _ in 0..UPGRADED {
        let mut client = Dialog::new(&site).await;
        // In two parts: what is read waits for more, and takes room.
        let first = "GET /chat HTTP/1.1|Host: a|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Key: x|";
        client.write(&format!("{first}X: {}", "x".repeat(1800))).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        client.write(&format!("{}||", "x".repeat(700))).await;
        client.read_until("welcome").await;
        clients.push(client);
    }
    assert_eq!(crowded(&site), 0);
    drop(clients);
}

#[tokio::test]
async fn uploads_that_never_end_leave_room_for_whole_requests() {
    let site = narrow(true).await;
    let _pod = site.scripted(1, &[ok()]).await;
    site.set(&[1]);
    let mut slow = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Dialog::new(&site).await;
        let part = "x".repeat(PIECE);
        client.write(&format!("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||{PIECE:x}|{part}|")).await;
        slow.push(client);
    }
    until(|| crowded(&site), |refused| *refused >= (CLIENTS - FIT) as u64).await;
    until(|| site.balancer.stats(), |stats| stats.accepted == CLIENTS as u64 && stats.open <= FIT).await;
    let before = crowded(&site);
    assert!(before < CLIENTS as u64, "some found room");
    let whole = format!("GET / HTTP/1.1|Host: a|X: {}||", "x".repeat(PIECE / 2));
    for _ in 0..REQUESTS {
        assert_eq!(Dialog::new(&site).await.ask(&whole).await.body, b"ok");
    }
    // Those that found room have their answers.
    let mut served = 0;
    for client in &mut slow {
        if !client.has_ended().await {
            assert_eq!(client.ask("0||").await.body, b"ok");
            served += 1;
        }
    }
    assert_eq!(served + crowded(&site), CLIENTS as u64);
}
