//! Pods that fail, clients that are slow or gone: who hears what of it, on both paths.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::script::read_message;
use super::site::{Answer, Dialog, HttpSite, Then, short};
use crate::lb::http::{HttpOptions, Limits};
use crate::lb::tests::site::{container, until};
use crate::lb::{BalancerOptions, Trouble};
use crate::model::AppProtocol;

const GET: &str = "GET / HTTP/1.1|Host: a||";
const POST: &str = "POST / HTTP/1.1|Host: a|Content-Length: 5||hello";
const CHUNKED: &str = "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0||";

fn ok() -> Answer {
    Answer::new("HTTP/1.1 200 OK|Content-Length: 2||ok")
}

async fn impatient(is_fast: bool, limits: Limits, hold: Duration) -> HttpSite {
    let http = HttpOptions { is_fast, limits, ..HttpOptions::default() };
    HttpSite::of(BalancerOptions { hold, http, ..BalancerOptions::default() }, AppProtocol::Http).await
}

/// What went wrong with a pod, and how often.
fn troubles(site: &HttpSite, number: u8) -> Vec<(Trouble, u64)> {
    site.stats(number).troubles.iter().map(|one| (one.what, one.count)).collect()
}

#[tokio::test]
async fn a_pod_that_takes_no_connection_is_passed_over_whatever_the_method() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let pod = site.scripted(2, &[ok()]).await;
        site.set(&[1, 2]);
        let mut client = Dialog::new(&site).await;
        for request in [POST, CHUNKED, GET].iter().cycle().take(30) {
            assert_eq!(client.ask(request).await.body, b"ok");
        }
        assert_eq!(pod.heard().len(), 30);
        let dead = site.stats(1);
        assert!((1..15).contains(&dead.failed), "marked down after a failure: {dead:?}");
    }
}

#[tokio::test]
async fn a_request_waits_for_a_pod() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        site.set(&[]);
        let mut client = Dialog::new(&site).await;
        client.write(POST).await;
        until(|| site.service().http.in_flight, |waiting| *waiting == 1).await;
        site.set(&[]);
        let _pod = site.scripted(1, &[ok()]).await;
        site.set(&[1]);
        assert_eq!(client.read().await.body, b"ok");
    }
}

#[tokio::test]
async fn without_a_pod_the_client_is_told_why() {
    for is_fast in [true, false] {
        let site = impatient(is_fast, Limits::default(), Duration::from_millis(200)).await;
        site.set(&[]);
        let answer = site.get(GET).await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n503 Service Unavailable: the service is not ready\n"), "{answer}");
        // Ready, but nobody listens.
        site.set(&[1]);
        let answer = site.get(GET).await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
        let http = site.service().http;
        assert_eq!((http.by_class, http.by_refusal), ([0, 0, 0, 0, 2], [1, 1, 0, 0, 0, 0, 0, 0]));
        assert!(http.refused_secs.is_some());
        let told = troubles(&site, 1);
        assert!(matches!(told.as_slice(), [(Trouble::Refused, 1..)]), "{told:?}");
        // Not even a service any more.
        let mut client = Dialog::new(&site).await;
        client.write(GET).await;
        assert!(client.read().await.start.contains("502"));
        site.balancer.set_table(&crate::lb::table::LbTable::default());
        client.write(GET).await;
        let answer = client.read_all().await;
        assert!(answer.contains("503") || answer.is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn a_pod_that_breaks_off_is_asked_again_or_another_one_where_twice_is_as_good() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let breaking = Answer::new("").then(Then::Reset);
        let bad = site.scripted(1, &[breaking]).await;
        site.set(&[1]);
        for (request, asked) in [(POST, 1), (CHUNKED, 2), (GET, 4)] {
            let answer = site.get(request).await;
            assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
            assert_eq!(bad.heard().len(), asked, "{request}");
        }
        assert_eq!(troubles(&site, 1), [(Trouble::Broken, 4)]);
        assert_eq!(site.service().http.by_refusal, [0, 0, 3, 0, 0, 0, 0, 0]);
        let good = site.scripted(2, &[ok()]).await;
        site.set(&[1, 2]);
        let mut client = Dialog::new(&site).await;
        for _ in 0..20 {
            assert_eq!(client.ask(GET).await.body, b"ok");
        }
        assert_eq!(good.heard().len(), 20);
        until(|| site.service().http.in_flight, |waiting| *waiting == 0).await;
    }
}

/// Neither is the pod asked again, nor is it said that it broke off.
#[tokio::test]
async fn a_head_of_an_answer_that_cannot_be_passed_on_is_told_as_that() {
    let long = |text: &str, count: usize| text.repeat(count);
    let large = ("the head of the service's answer is larger than 64 KiB or 100 fields", Trouble::LargeHead, 5);
    let unclear = ("the head of the service's answer contradicts itself", Trouble::UnclearHead, 6);
    let no_http = ("the answer of the service is no HTTP", Trouble::NoHttp, 7);
    let cases = [
        (format!("HTTP/1.1 200 OK|{}Content-Length: 2||ok", long("A: b|", 101)), large),
        (format!("HTTP/1.1 200 OK|{}Content-Length: 2||ok", long("A: b|", 300)), large),
        (format!("HTTP/1.1 200 OK|A: {}|Content-Length: 2||ok", long("x", 70_000)), large),
        (format!("HTTP/1.1 200 OK|A: {}|Content-Length: 2||ok", long("x", 2 << 20)), large),
        ("HTTP/1.1 200 OK|Content-Length: 2|Content-Length: 3||ok".to_owned(), unclear),
        ("HTTP/1.1 200 OK|Content-Length: 2, 2||ok".to_owned(), unclear),
        ("HTTP/1.1 200 OK|Content-Length: x||ok".to_owned(), unclear),
        ("HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked||2|ok|0||".to_owned(), unclear),
        ("HTTP/1.1 200 OK|Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||".to_owned(), unclear),
        ("HTTP/1.0 200 OK|Transfer-Encoding: chunked||0||".to_owned(), unclear),
        ("HTTP/1.1 101 Switching|Upgrade: x|Connection: Upgrade||".to_owned(), unclear),
        ("HTTP/1.1 103 Early Hints|A: b||HTTP/1.1 200 OK|Content-Length: x||ok".to_owned(), unclear),
        ("hello||".to_owned(), no_http),
        ("HTTP/1.1 099 OK|Content-Length: 2||ok".to_owned(), no_http),
        ("HTTP/2 200 OK|Content-Length: 2||ok".to_owned(), no_http),
    ];
    for is_fast in [true, false] {
        for (answer, (text, trouble, place)) in &cases {
            let site = HttpSite::new(is_fast).await;
            let pod = site.scripted(1, &[Answer::new(answer)]).await;
            site.set(&[1]);
            let name = format!("{}, fast {is_fast}", answer.chars().take(60).collect::<String>());
            let answer = site.get(GET).await;
            let expected = format!("\r\n\r\n502 Bad Gateway: {text}\n");
            assert!(answer.contains("HTTP/1.1 502 Bad Gateway\r\n") && answer.ends_with(&expected), "{name}: {answer}");
            assert_eq!((pod.heard().len(), troubles(&site, 1)), (1, vec![(*trouble, 1)]), "{name}");
            let counted = || site.service().http.by_refusal;
            let mut expected = [0; crate::lb::http::REFUSALS.len()];
            expected[*place] = 1;
            until(counted, |counted| *counted == expected).await;
        }
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_pod_has_closed_costs_no_request() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let _pod = site.scripted(1, &[ok().then(Then::Close)]).await;
        site.set(&[1]);
        let mut client = Dialog::new(&site).await;
        for request in [GET, POST, CHUNKED].iter().cycle().take(60) {
            assert_eq!(client.ask(request).await.body, b"ok", "{request}");
        }
    }
}

#[tokio::test]
async fn a_late_answer_is_not_waited_for() {
    for is_fast in [true, false] {
        let site = impatient(is_fast, short(), Duration::from_secs(5)).await;
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let _pod = site
            .pod(1, move |mut stream| {
                let count = Arc::clone(&count);
                async move {
                    let mut unread = Vec::new();
                    while read_message(&mut stream, &mut unread).await.is_some() {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
            .await;
        site.set(&[1]);
        let start = Instant::now();
        let answer = site.get(GET).await;
        assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{answer}");
        assert!(start.elapsed() < Duration::from_secs(4));
        assert_eq!(asked.load(Ordering::SeqCst), 1, "it is not asked again");
        assert_eq!((troubles(&site, 1), site.service().http.by_refusal[3]), (vec![(Trouble::Late, 1)], 1));
    }
}

#[tokio::test]
async fn what_comes_slowly_is_not_a_late_answer() {
    for is_fast in [true, false] {
        let site = impatient(is_fast, short(), Duration::from_secs(5)).await;
        let _pod = site
            .pod(1, |mut stream| async move {
                read_message(&mut stream, &mut Vec::new()).await.expect("a request");
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n").await.expect("open");
                for _ in 0..4 {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    stream.write_all(b"ok").await.expect("open");
                }
            })
            .await;
        site.set(&[1]);
        assert_eq!(Dialog::new(&site).await.ask(GET).await.body, b"okokokok");
    }
}

#[tokio::test]
async fn a_slow_client_is_told_so_and_an_idle_one_is_let_go() {
    for is_fast in [true, false] {
        let limits = Limits { idle: Duration::from_millis(300), ..short() };
        let site = impatient(is_fast, limits, Duration::from_secs(5)).await;
        let pod = site.scripted(1, &[ok()]).await;
        site.set(&[1]);
        let mut idle = Dialog::new(&site).await;
        assert_eq!(idle.ask(GET).await.body, b"ok");
        for part in ["GET / HT", "GET / HTTP/1.1|Host: a|", "POST / HTTP/1.1|Host: a|Content-Length: 5||he"] {
            let mut slow = Dialog::new(&site).await;
            slow.write(part).await;
            let answer = slow.read_all().await;
            assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{part}: {answer}");
        }
        assert!(idle.is_over().await);
        assert_eq!(pod.heard().len(), 1);
        // One byte at a time does not help.
        let mut drip = Dialog::new(&site).await;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(8) && drip.try_write("GET / HTTP/1.1|X: ").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(start.elapsed() < Duration::from_secs(8), "still read");
    }
}

#[tokio::test]
async fn requests_of_a_dead_container_go_elsewhere_or_are_told_at_once() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let silent = site.scripted(1, &[Answer::new("")]).await;
        let _good = site.scripted(2, &[ok()]).await;
        site.set(&[1]);
        let (mut get, mut post) = (Dialog::new(&site).await, Dialog::new(&site).await);
        get.write(GET).await;
        post.write(POST).await;
        until(|| silent.heard().len(), |heard| *heard == 2).await;
        site.set(&[2]);
        site.balancer.close_connections(&container(1));
        assert_eq!(get.read().await.body, b"ok");
        assert!(post.read().await.start.contains("502"));
    }
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed_and_counted() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let _pod = site
            .pod(1, |mut stream| async move {
                read_message(&mut stream, &mut Vec::new()).await.expect("a request");
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.expect("open");
                while stream.write_all(&vec![b'x'; 65_536]).await.is_ok() {}
            })
            .await;
        site.set(&[1]);
        let mut client = Dialog::new(&site).await;
        client.write(GET).await;
        client.read_until("\r\n\r\n").await;
        client.reset();
        until(|| site.service().http.broken_off, |broken| *broken == 1).await;
        until(|| site.stats(1).open, |open| *open == 0).await;
    }
}

/// A stream of events may be silent for hours, but not for a client that may be gone.
#[tokio::test]
async fn a_client_that_leaves_a_silent_stream_is_noticed_and_who_stays_is_not_cut_off() {
    let limits = Limits { idle: Duration::from_millis(300), ..short() };
    let site = impatient(true, limits, Duration::from_secs(5)).await;
    let (tell, told) = tokio::sync::watch::channel(false);
    let _pod = site
        .pod(1, move |mut stream| {
            let mut told = told.clone();
            async move {
                read_message(&mut stream, &mut Vec::new()).await.expect("a request");
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head).await.expect("open");
                let gone = async { stream.readable().await.is_ok() };
                let event = async { told.wait_for(|told| *told).await.is_ok() };
                tokio::select! { _ = gone => return, _ = event => {} }
                stream.write_all(b"5\r\nhello\r\n0\r\n\r\n").await.expect("open");
            }
        })
        .await;
    site.set(&[1]);
    let (mut stays, mut leaves) = (Dialog::new(&site).await, Dialog::new(&site).await);
    for client in [&mut stays, &mut leaves] {
        client.write(GET).await;
        client.read_until("\r\n\r\n").await;
    }
    // As a browser whose page is closed: an end, and nobody there any more.
    leaves.close().await;
    until(|| site.stats(1).open, |open| *open == 1).await;
    assert_eq!(site.service().http.broken_off, 1);
    tokio::time::sleep(limits.idle * 4).await;
    tell.send_replace(true);
    stays.read_until("5\r\nhello\r\n0\r\n\r\n").await;
}

/// While nothing of an answer has come: who has reset his connection wants none, who has only ended his side may still wait.
#[tokio::test]
async fn a_client_that_leaves_before_its_answer_is_noticed_and_who_stays_is_answered() {
    let (long, short_time) = (Duration::from_mins(1), Duration::from_secs(2));
    for (idle, resets) in [(long, true), (short_time, false)] {
        let limits = Limits { idle, answer: long, ..short() };
        let site = impatient(true, limits, Duration::from_secs(5)).await;
        let (tell, told) = tokio::sync::watch::channel(false);
        let _pod = site
            .pod(1, move |mut stream| {
                let mut told = told.clone();
                async move {
                    read_message(&mut stream, &mut Vec::new()).await.expect("a request");
                    let gone = async { stream.readable().await.is_ok() };
                    let answer = async { told.wait_for(|told| *told).await.is_ok() };
                    tokio::select! { _ = gone => return, _ = answer => {} }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("open");
                }
            })
            .await;
        site.set(&[1]);
        let (mut stays, mut leaves) = (Dialog::new(&site).await, Dialog::new(&site).await);
        for client in [&mut stays, &mut leaves] {
            client.write(GET).await;
        }
        until(|| site.stats(1).open, |open| *open == 2).await;
        let before = Instant::now();
        if resets {
            leaves.reset();
        } else {
            leaves.close().await;
        }
        until(|| site.stats(1).open, |open| *open == 1).await;
        assert!(resets || before.elapsed() >= idle, "it was given {:?} of {idle:?}", before.elapsed());
        until(|| site.service().http.unanswered, |unanswered| *unanswered == 1).await;
        tell.send_replace(true);
        assert_eq!(stays.read().await.body, b"ok");
    }
}

#[tokio::test]
async fn nonsense_is_counted_and_answered_before_the_close() {
    let site = HttpSite::new(true).await;
    site.set(&[]);
    // More than the kernel takes at once: a close without reading it would be a reset, and the answer lost.
    let long = format!("GET / HTTP/1.1|Host: a|X: {}||", "x".repeat(1 << 20));
    let answer = site.get(&long).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(site.balancer.stats().malformed, 1);
}
