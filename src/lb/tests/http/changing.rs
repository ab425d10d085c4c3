//! Pods that come and go under a thousand requests a second on kept connections: no request fails.
//!
//! What clients and pods do is made to cost little, so that the balancer of a debug build has the machine for itself. A slow machine
//! takes longer over it and sees no fewer requests: each change waits for so many answers after the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::site::HttpSite;
use crate::lb::tests::site::{Pod, container, in_time};

/// How often the table changes, and how many requests are answered between two changes, and after the last.
const CHANGES: u8 = 100;
const EACH: usize = 40;

/// Clients, and the time between two requests of each: a thousand a second, whether answers come or not.
const CLIENTS: usize = 20;
const PACE: Duration = Duration::from_millis(20);

/// How long a pod has to finish what it was asked.
const GRACE: Duration = Duration::from_secs(5);

/// What pods answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A pod that takes its time, and whose connections end with it.
struct Worker {
    pod: Pod,
    end: watch::Sender<bool>,
}

async fn start(site: &HttpSite, number: u8) -> Worker {
    let (end, ended) = watch::channel(false);
    let talk = move |stream: TcpStream| {
        let mut ended = ended.clone();
        async move {
            tokio::select! { () = work(stream) => {}, _ = ended.wait_for(|ended| *ended) => {} }
        }
    };
    Worker { pod: site.pod(number, talk).await, end }
}

/// Answers request after request.
async fn work(mut stream: TcpStream) {
    let mut unread = Vec::new();
    while matches!(stream.read_buf(&mut unread).await, Ok(read) if read > 0) {
        while let Some(length) = request(&unread) {
            unread.drain(..length);
            tokio::time::sleep(Duration::from_millis(2)).await;
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

/// Returns how long the first request is, if it is whole: one of those that the clients send.
fn request(bytes: &[u8]) -> Option<usize> {
    let find = |from: usize, what: &[u8]| memchr::memmem::find(&bytes[from..], what).map(|at| from + at + what.len());
    let head = find(0, b"\r\n\r\n")?;
    if memchr::memmem::find(&bytes[..head], b"hunked\r\n").is_some() {
        return find(head, b"0\r\n\r\n");
    }
    let has_body = memchr::memmem::find(&bytes[..head], b"ength: 2\r\n").is_some();
    let length = head + if has_body { 2 } else { 0 };
    (bytes.len() >= length).then_some(length)
}

/// Reads one answer, which must be the pods' and nothing else.
async fn answer(stream: &mut TcpStream, unread: &mut Vec<u8>) {
    unread.clear();
    while !unread.ends_with(b"\r\n\r\nok") {
        let read = in_time(stream.read_buf(unread)).await.expect("open");
        assert!(read > 0, "ended after {}", unread.escape_ascii());
    }
    assert!(unread.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", unread.escape_ascii());
    assert_eq!(memchr::memmem::find(unread, b"\r\n\r\n"), Some(unread.len() - 6), "{}", unread.escape_ascii());
}

/// Drains a pod that is in no table any more, and ends it as a kill would; returns how many requests it still had.
async fn stop(site: &HttpSite, number: u8, worker: Worker) -> usize {
    let left = in_time(site.balancer.drain(&container(number), Instant::now() + GRACE)).await;
    worker.pod.stop().await;
    worker.end.send_replace(true);
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_changes_under_a_thousand_requests_a_second_fail_none() {
    change(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_on_the_general_path() {
    change(false).await;
}

#[expect(clippy::print_stdout, reason = "the rate that was reached is part of what the test shows")]
async fn change(is_fast: bool) {
    let site = Arc::new(HttpSite::new(is_fast).await);
    // Of nine pods three serve; each change takes the oldest out and the next one in.
    let number = |at: u8| at % 9 + 1;
    let mut workers = std::collections::VecDeque::new();
    for at in 0..3 {
        workers.push_back(start(&site, number(at)).await);
    }
    site.set(&[0, 1, 2].map(number));
    let over = Arc::new(AtomicBool::new(false));
    let (count, mut answered) = watch::channel(0_usize);
    let count = Arc::new(count);
    let client = |number: usize| {
        let (site, over, count) = (Arc::clone(&site), Arc::clone(&over), Arc::clone(&count));
        tokio::spawn(async move {
            let request: &[u8] = match number % 3 {
                0 => b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
                1 => b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
                _ => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            };
            let (mut stream, mut unread) = (site.connect().await, Vec::new());
            let mut pace = interval(PACE);
            // What a busy machine was late for is made up for.
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while !over.load(Ordering::Relaxed) {
                pace.tick().await;
                in_time(stream.write_all(request)).await.expect("open");
                answer(&mut stream, &mut unread).await;
                count.send_modify(|count| *count += 1);
            }
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    // All of them are at work before the first change.
    in_time(answered.wait_for(|count| *count >= 2 * CLIENTS)).await.expect("clients ask");
    let (before, began) = (*answered.borrow(), Instant::now());
    for change in 0..CHANGES {
        let now = *answered.borrow();
        workers.push_back(start(&site, number(change + 3)).await);
        site.set(&[change + 1, change + 2, change + 3].map(number));
        let oldest = workers.pop_front().expect("three and the new one");
        assert_eq!(stop(&site, number(change), oldest).await, 0, "none had to be cut off");
        in_time(answered.wait_for(|count| *count >= now + EACH)).await.expect("clients ask");
    }
    let asked = *answered.borrow() - before;
    let rate = per_second(asked, began.elapsed());
    over.store(true, Ordering::Relaxed);
    for client in clients {
        in_time(client).await.expect("no request failed");
    }
    let all = *answered.borrow() as u64;
    // The last answers were here before they were counted.
    let stats = in_time(async {
        loop {
            let stats = site.service().http;
            if stats.in_flight == 0 {
                break stats;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    println!("{CHANGES} changes under {rate} requests a second, {all} requests, {:?}", stats.by_class);
    assert!(asked >= usize::from(CHANGES) * EACH, "only {asked} answers between the first change and the last");
    assert_eq!((stats.by_class[4], stats.unanswered, stats.broken_off), (0, 0, 0), "{stats:?}");
    assert_eq!(stats.by_class[1], all, "each was answered with 200, and none twice");
}

fn per_second(count: usize, time: Duration) -> u64 {
    u64::try_from(count as u128 * 1_000 / time.as_millis().max(1)).unwrap_or(u64::MAX)
}
