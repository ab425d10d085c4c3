//! Pods that come and go under a thousand requests a second on kept connections: no request fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::script::read_message;
use super::site::{Dialog, HttpSite};
use crate::lb::tests::site::{Pod, container, in_time};
use tokio::io::AsyncWriteExt;

/// How often the table changes, and how long each lasts.
const CHANGES: u8 = 100;
const EACH: Duration = Duration::from_millis(60);

/// Clients, and the time between two requests of each: a thousand a second.
const CLIENTS: usize = 20;
const PACE: Duration = Duration::from_millis(20);

/// How long is looked what the machine does by itself.
const CALM: Duration = Duration::from_secs(1);

/// How long a pod has to finish what it was asked.
const GRACE: Duration = Duration::from_secs(5);

/// A pod that takes its time, and whose connections end with it.
struct Worker {
    pod: Pod,
    end: watch::Sender<bool>,
}

async fn start(site: &HttpSite, number: u8) -> Worker {
    let (end, ended) = watch::channel(false);
    let talk = move |mut stream: tokio::net::TcpStream| {
        let mut ended = ended.clone();
        async move {
            let work = async {
                let mut unread = Vec::new();
                while read_message(&mut stream, &mut unread).await.is_some() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! { () = work => {}, _ = ended.wait_for(|ended| *ended) => {} }
        }
    };
    Worker { pod: site.pod(number, talk).await, end }
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
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = |number: usize| {
        let (site, over, asked) = (Arc::clone(&site), Arc::clone(&over), Arc::clone(&asked));
        tokio::spawn(async move {
            let mut client = Dialog::new(&site).await;
            let mut pace = interval(PACE);
            // What a busy machine was late for is made up for.
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while !over.load(Ordering::Relaxed) {
                pace.tick().await;
                let request = match number % 3 {
                    0 => "POST / HTTP/1.1|Host: a|Content-Length: 2||ab",
                    1 => "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||2|ab|0||",
                    _ => "GET / HTTP/1.1|Host: a||",
                };
                let answer = client.ask(request).await;
                assert_eq!((answer.start.as_str(), &answer.body[..]), ("HTTP/1.1 200 OK", &b"ok"[..]));
                asked.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    // What this machine does of the thousand a second while nothing changes.
    let calm = {
        let (before, began) = (asked.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(CALM).await;
        per_second(asked.load(Ordering::Relaxed) - before, began.elapsed())
    };
    let (before, began) = (asked.load(Ordering::Relaxed), Instant::now());
    let mut changes = 0;
    for change in 0..CHANGES {
        let next = Instant::now() + EACH;
        workers.push_back(start(&site, number(change + 3)).await);
        site.set(&[change + 1, change + 2, change + 3].map(number));
        let oldest = workers.pop_front().expect("three and the new one");
        assert_eq!(stop(&site, number(change), oldest).await, 0, "none had to be cut off");
        changes += 1;
        tokio::time::sleep_until(next).await;
    }
    let rate = per_second(asked.load(Ordering::Relaxed) - before, began.elapsed());
    over.store(true, Ordering::Relaxed);
    for client in clients {
        in_time(client).await.expect("no request failed");
    }
    let asked = asked.load(Ordering::Relaxed) as u64;
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
    println!(
        "{changes} changes under {rate} requests a second ({calm} before), {asked} requests, {:?}",
        stats.by_class
    );
    assert_eq!(changes, CHANGES, "all of them while requests came");
    assert_eq!((stats.by_class[4], stats.unanswered, stats.broken_off), (0, 0, 0), "{stats:?}");
    assert_eq!(stats.by_class[1], asked, "each was answered with 200, and none twice");
    // What of the thousand a second was reached is said above: a machine that builds meanwhile gives less.
    assert!(rate >= 250, "{rate} requests a second are no load, and {calm} came while nothing changed");
}

fn per_second(count: usize, time: Duration) -> u64 {
    u64::try_from(count as u128 * 1_000 / time.as_millis().max(1)).unwrap_or(u64::MAX)
}
