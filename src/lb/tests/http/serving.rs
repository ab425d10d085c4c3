//! What a client and a pod see of a request that goes well, on both paths.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::script::read_message;
use super::site::{Answer, Dialog, HttpSite};
use crate::lb::tests::site::{DEADLINE, container, in_time, until};

const GET: &str = "GET / HTTP/1.1|Host: a||";

fn ok() -> Answer {
    Answer::new("HTTP/1.1 200 OK|Content-Length: 2||ok")
}

#[tokio::test]
async fn requests_of_one_connection_are_spread_and_connections_to_pods_are_used_again() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let pods = [site.scripted(1, &[ok()]).await, site.scripted(2, &[ok()]).await, site.scripted(3, &[ok()]).await];
        site.set(&[1, 2, 3]);
        let mut client = Dialog::new(&site).await;
        for _ in 0..60 {
            assert_eq!(client.ask(GET).await.start, "HTTP/1.1 200 OK");
        }
        until(|| site.service().http.in_flight, |waiting| *waiting == 0).await;
        for (pod, number) in pods.iter().zip(1..) {
            assert!((8..40).contains(&pod.heard().len()), "{} of 60", pod.heard().len());
            let stats = site.stats(number);
            assert_eq!(stats.connected, 1, "one after the other needs one connection");
            assert_eq!((stats.open, stats.http.by_class[1]), (0, pod.heard().len() as u64));
        }
        let stats = site.service().http;
        assert_eq!((stats.by_class, stats.in_flight, stats.broken_off), ([0, 60, 0, 0, 0], 0, 0));
        assert_eq!((stats.by_duration.iter().sum::<u64>(), stats.unanswered), (60, 0));
        assert!(stats.sent > 0 || !is_fast);
        assert!(stats.received >= 120);
    }
}

#[tokio::test]
async fn both_paths_take_turns_on_one_connection() {
    let site = HttpSite::new(true).await;
    let pod = site.scripted(1, &[ok()]).await;
    site.set(&[1]);
    let mut client = Dialog::new(&site).await;
    let chunked = "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0||";
    let expecting = "POST / HTTP/1.1|Host: a|Content-Length: 3|Expect: 100-continue||abc";
    for request in [GET, chunked, GET, GET, expecting, chunked, GET] {
        assert_eq!(client.ask(request).await.start, "HTTP/1.1 200 OK", "{request}");
    }
    let bodies: Vec<usize> = pod.heard().iter().map(|request| request.body.len()).collect();
    assert_eq!(bodies, [0, 5, 0, 0, 3, 5, 0]);
}

#[tokio::test]
async fn what_streams_arrives_as_it_is_sent() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let told = Arc::new(tokio::sync::Mutex::new(told));
        let _pod = site
            .pod(1, move |mut stream| {
                let told = Arc::clone(&told);
                async move {
                    read_message(&mut stream, &mut Vec::new()).await.expect("a request");
                    let head =
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                    stream.write_all(head).await.expect("open");
                    // Each event is sent only once the one before has arrived.
                    let mut told = told.lock().await;
                    while let Some(text) = told.recv().await {
                        let chunk: String = text;
                        stream.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).await.expect("open");
                    }
                    stream.write_all(b"0\r\n\r\n").await.expect("open");
                }
            })
            .await;
        site.set(&[1]);
        let mut client = Dialog::new(&site).await;
        client.write(GET).await;
        client.read_until("\r\n\r\n").await;
        for number in 0..5 {
            let text = format!("data: {number}\n\n");
            tell.send(text.clone()).expect("the pod listens");
            client.read_until(&format!("{text}\r\n")).await;
        }
        drop(tell);
        client.read_until("0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn an_upload_arrives_as_it_is_sent_and_may_be_answered_before_its_end() {
    let site = HttpSite::new(true).await;
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let _pod = site
        .pod(1, move |mut stream| {
            let heard = heard.clone();
            async move {
                let mut bytes = vec![0; 4096];
                let mut all = Vec::new();
                while !all.ends_with(b"last") {
                    let read = stream.read(&mut bytes).await.expect("open");
                    all.extend_from_slice(&bytes[..read]);
                    heard.send(bytes[..read].to_vec()).expect("the test waits");
                }
                let answer = b"HTTP/1.1 413 Enough\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop";
                stream.write_all(answer).await.expect("open");
            }
        })
        .await;
    site.set(&[1]);
    let mut client = Dialog::new(&site).await;
    client.write("POST / HTTP/1.1|Host: a|Content-Length: 10000000||").await;
    let mut seen = String::new();
    for piece in ["first", "second", "last"] {
        client.write(piece).await;
        while !seen.ends_with(piece) {
            seen.push_str(&String::from_utf8(in_time(hears.recv()).await.expect("sent")).expect("text"));
        }
    }
    client.read_until("stop").await;
}

#[tokio::test]
async fn who_expects_to_be_told_to_go_on_is() {
    let site = HttpSite::new(true).await;
    let _pod = site
        .pod(1, |mut stream| async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("open"));
            }
            assert!(String::from_utf8_lossy(&head).to_ascii_lowercase().contains("expect: 100-continue"));
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.expect("open");
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.expect("open");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await.expect("open");
            stream.write_all(&body).await.expect("open");
        })
        .await;
    site.set(&[1]);
    let mut client = Dialog::new(&site).await;
    client.write("POST / HTTP/1.1|Host: a|Content-Length: 5|Expect: 100-continue||").await;
    client.read_until("100 Continue\r\n\r\n").await;
    client.write("hello").await;
    client.read_until("\r\n\r\nhello").await;
}

/// A pod that becomes a line of bytes both ways.
pub(super) async fn websocket(mut stream: TcpStream) {
    let request = read_message(&mut stream, &mut Vec::new()).await.expect("a request");
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(request.field("sec-websocket-key"), Some("x"));
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nwelcome";
    stream.write_all(answer).await.expect("open");
    let (mut read, mut write) = stream.split();
    let _ended = tokio::io::copy(&mut read, &mut write).await;
}

pub(super) const UPGRADE: &str =
    "GET /chat HTTP/1.1|Host: a|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Key: x||";

#[tokio::test]
async fn a_websocket_is_a_line_both_ways_until_one_side_ends() {
    let site = HttpSite::new(true).await;
    let _pod = site.pod(1, websocket).await;
    site.set(&[1]);
    let mut client = Dialog::new(&site).await;
    client.write(UPGRADE).await;
    client.read_until("101 Switching Protocols").await;
    client.read_until("welcome").await;
    for text in ["one", "GET / HTTP/1.1\r\n\r\n", &"x".repeat(100_000)] {
        client.write(text).await;
        client.read_until(text).await;
    }
    assert_eq!(site.stats(1).open, 1, "a drain waits for it");
    client.close().await;
    until(|| site.stats(1).open, |open| *open == 0).await;
    let stats = site.service().http;
    assert_eq!(stats.by_class, [1, 0, 0, 0, 0]);
    // A pod that does not want to: an answer like any other, and the end.
    let plain = site.scripted(2, &[Answer::new("HTTP/1.1 403 No|Content-Length: 2||no")]).await;
    site.set(&[2]);
    let answer = site.get(UPGRADE).await;
    assert!(answer.starts_with("HTTP/1.1 403 No\r\n"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(plain.heard().len(), 1);
}

#[tokio::test]
async fn a_big_answer_goes_through_unchanged() {
    const SIZE: usize = 8 << 20;
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let body: Vec<u8> = (0..SIZE).map(|n| (n % 65_521).to_le_bytes()[0]).collect();
        let mut answer = Answer::new(&format!("HTTP/1.1 200 OK|Content-Length: {SIZE}||"));
        answer.bytes.extend_from_slice(&body);
        let _pod = site.scripted(1, &[answer]).await;
        site.set(&[1]);
        let reply = site.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let start = reply.bytes.len() - SIZE;
        assert!(reply.bytes[start..] == body, "changed");
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_holds_up_its_pod_only() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let written = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&written);
        let _pod = site
            .pod(1, move |mut stream| {
                let count = Arc::clone(&count);
                async move {
                    read_message(&mut stream, &mut Vec::new()).await.expect("a request");
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.expect("open");
                    while stream.write_all(&vec![b'x'; 65_536]).await.is_ok() {
                        count.fetch_add(65_536, Ordering::Relaxed);
                    }
                }
            })
            .await;
        let _other = site.scripted(2, &[ok()]).await;
        site.set(&[1]);
        let mut slow = Dialog::new(&site).await;
        slow.write(GET).await;
        slow.read_until("\r\n\r\n").await;
        // Once the buffers on the way are full nothing moves any more: nothing of it is kept in memory.
        let mut before = usize::MAX;
        while before != written.load(Ordering::Relaxed) {
            before = written.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(before < 40_000_000, "{before} bytes are somewhere");
        site.set(&[2]);
        let mut client = Dialog::new(&site).await;
        assert_eq!(client.ask(GET).await.body, b"ok");
    }
}

#[tokio::test]
async fn a_drain_waits_for_requests_and_not_for_connections() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let (finish, finished) = tokio::sync::watch::channel(false);
        let (heard, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (asked, count) = (Arc::clone(&heard), Arc::clone(&ended));
        let _slow = site
            .pod(1, move |mut stream| {
                let (mut finished, asked, count) = (finished.clone(), Arc::clone(&asked), Arc::clone(&count));
                async move {
                    let mut unread = Vec::new();
                    while read_message(&mut stream, &mut unread).await.is_some() {
                        asked.fetch_add(1, Ordering::SeqCst);
                        finished.wait_for(|finished| *finished).await.expect("the test goes on");
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await.expect("open");
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })
            .await;
        let _quick = site.scripted(2, &[ok()]).await;
        site.set(&[1]);
        let mut client = Dialog::new(&site).await;
        client.write(GET).await;
        // While it is being connected it may still go elsewhere.
        until(|| heard.load(Ordering::SeqCst), |heard| *heard == 1).await;
        site.set(&[2]);
        let soon = || Instant::now() + Duration::from_millis(100);
        assert_eq!(site.balancer.drain(&container(1), soon()).await, 1);
        finish.send_replace(true);
        assert_eq!(client.read().await.body, b"slow");
        assert_eq!(in_time(site.balancer.drain(&container(1), Instant::now() + DEADLINE)).await, 0);
        // The same connection of the client goes on elsewhere, and the one to the pod that left is closed.
        assert_eq!(client.ask(GET).await.body, b"ok");
        until(|| ended.load(Ordering::SeqCst), |ended| *ended == 1).await;
    }
}

#[tokio::test]
async fn when_it_stops_answers_say_so_and_idle_connections_end() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let (finish, finished) = tokio::sync::watch::channel(false);
        let heard = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&heard);
        let _pod = site
            .pod(1, move |mut stream| {
                let (mut finished, asked) = (finished.clone(), Arc::clone(&asked));
                async move {
                    let mut unread = Vec::new();
                    while let Some(request) = read_message(&mut stream, &mut unread).await {
                        asked.fetch_add(1, Ordering::SeqCst);
                        if request.start.contains("/slow") {
                            finished.wait_for(|finished| *finished).await.expect("the test goes on");
                        }
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("open");
                    }
                }
            })
            .await;
        site.set(&[1]);
        let (mut idle, mut busy) = (Dialog::new(&site).await, Dialog::new(&site).await);
        assert_eq!(idle.ask(GET).await.body, b"ok");
        busy.write("GET /slow HTTP/1.1|Host: a||").await;
        until(|| heard.load(Ordering::SeqCst), |heard| *heard == 2).await;
        let stopping = tokio::spawn(site.into_balancer().stop(Instant::now() + DEADLINE));
        assert!(idle.is_over().await);
        finish.send_replace(true);
        let last = busy.read().await;
        assert_eq!((&last.body[..], last.field("connection")), (&b"ok"[..], Some("close")));
        assert!(busy.is_over().await);
        assert_eq!(in_time(stopping).await.expect("no panic"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_tables_under_requests_fail_none() {
    for is_fast in [true, false] {
        let site = Arc::new(HttpSite::new(is_fast).await);
        let mut pods = Vec::new();
        for number in 1..=4 {
            pods.push(site.scripted(number, &[ok()]).await);
        }
        site.set(&[1, 2]);
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |number: usize| {
            let (site, stop, done) = (Arc::clone(&site), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut client = Dialog::new(&site).await;
                while !stop.load(Ordering::Relaxed) {
                    let request = match number % 3 {
                        0 => "POST / HTTP/1.1|Host: a|Content-Length: 2||ab",
                        1 => "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||2|ab|0||",
                        _ => GET,
                    };
                    let answer = client.ask(request).await;
                    assert_eq!((answer.start.as_str(), &answer.body[..]), ("HTTP/1.1 200 OK", &b"ok"[..]));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let clients: Vec<_> = (0..9).map(client).collect();
        for (table, pods) in [[1, 2], [3, 4], [2, 3], [4, 1]].iter().cycle().take(100).enumerate() {
            let before = done.load(Ordering::Relaxed);
            site.set(pods);
            until(|| done.load(Ordering::Relaxed), |done| *done >= before + 20).await;
            if table % 10 == 0 {
                site.set(&[]);
                site.set(pods);
            }
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.expect("no request failed");
        }
        let stats = site.service().http;
        assert_eq!((stats.by_class[4], stats.unanswered, stats.broken_off), (0, 0, 0), "{stats:?}");
    }
}
