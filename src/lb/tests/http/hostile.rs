//! Requests that mean harm: each is refused with its status and the end of its connection, no pod sees a part of it, and
//! nobody else's answer is another one for it.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::script::{answers, read_message};
use super::site::{Dialog, End, HttpSite, exchange, short};
use crate::lb::BalancerOptions;
use crate::lb::http::HttpOptions;
use crate::lb::tests::site::{DEADLINE, Pod};
use crate::model::AppProtocol;
use std::sync::{Arc, Mutex};

/// A pod that answers with what it was asked for, and the requests that it got.
pub(super) async fn mirror(site: &HttpSite) -> (Pod, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&heard);
    let talk = move |mut stream: tokio::net::TcpStream| {
        let log = Arc::clone(&log);
        async move {
            let mut unread = Vec::new();
            while let Some(request) = read_message(&mut stream, &mut unread).await {
                let path = request.start.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = String::from_utf8_lossy(&request.body).into_owned();
                let text = format!("{path} {body}");
                log.lock().expect("not poisoned").push(text.trim().to_owned());
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    };
    (site.pod(1, talk).await, heard)
}

/// What is sent (`|` is a line end), the statuses that come back, and what the pod hears of it.
struct Case {
    sent: String,
    statuses: &'static str,
    heard: &'static [&'static str],
}

fn refused(statuses: &'static str, sent: &str) -> Case {
    Case { sent: sent.to_owned(), statuses, heard: &[] }
}

fn served(sent: &str, heard: &'static [&'static str]) -> Case {
    Case { sent: sent.to_owned(), statuses: "200", heard }
}

/// A request that somebody may try to hide in another one.
const HIDDEN: &str = "GET /hidden HTTP/1.1|Host: a||";

fn cases() -> Vec<Case> {
    let post = |fields: &str, body: &str| format!("POST /p HTTP/1.1|Host: a|{fields}||{body}");
    let chunked = |body: &str| post("Transfer-Encoding: chunked", body);
    let get = |fields: &str| format!("GET /g HTTP/1.1|{fields}||{HIDDEN}");
    let long = |count: usize| "x".repeat(count);
    let hidden = |fields: &str| post(fields, &format!("0||{HIDDEN}"));
    let mut cases = vec![
        // Where a request ends.
        refused("400", &hidden("Content-Length: 5|Transfer-Encoding: chunked")),
        refused("400", &hidden("Transfer-Encoding: chunked|Content-Length: 5")),
        refused("400", &hidden("Content-Length: 0|Content-Length: 40")),
        refused("400", &hidden("Content-Length: 5|Content-Length: 5")),
        refused("400", &hidden("Content-Length: 5, 5")),
        refused("400", &hidden("Content-Length : 0")),
        refused("400", &hidden("Content-Length:")),
        refused("400", &hidden("Content-Length: 0x0")),
        refused("400", &hidden("Content-Length: 00000000000000000000")),
        refused("400", &hidden("Transfer-Encoding: chunked|Transfer-Encoding: identity")),
        refused("400", "POST /p HTTP/1.0|Host: a|Transfer-Encoding: chunked||0||"),
        // Heads in which a field can be hidden.
        refused("400", &get("Host: a|X: y\nZ: w")),
        refused("400", &get("Host: a|X: y\rZ: w")),
        refused("400", &get("Host: a|X: y| folded")),
        refused("400", &get("Host: a|X: y|\tfolded")),
        refused("400", &get("Host: a|X : y")),
        refused("400", &get("Host: a|X\0: y")),
        refused("400", &get("Host: a|X: \0")),
        refused("400", &get("Host: a|X: \u{7f}")),
        refused("400", &get("Host: a|: y")),
        refused("400", &get("Host: a|no colon")),
        refused("400", "\rGET /g HTTP/1.1|Host: a||"),
        refused("400", "GET /g HTTP/1.1\r\r\nHost: a||"),
        // Who is meant.
        refused("400", &get("X: no host")),
        refused("400", &get("Host: a|Host: b")),
        refused("400", &get("Host: a,b")),
        refused("400", &get("Host: a@b")),
        refused("400", &get("Host: a/b")),
        refused("400", "GET http://b/ HTTP/1.1|Host: a||"),
        refused("400", "GET http://a@b/ HTTP/1.1|Host: b||"),
        refused("400", "GET http:///abs HTTP/1.1|Host:||"),
        refused("400", "GET http://a\\b/ HTTP/1.0||"),
        refused("400", "GET //\0 HTTP/1.1|Host: a||"),
        refused("400", "GET /admin#.png HTTP/1.1|Host: a||"),
        refused("400", "GET /a?b#c HTTP/1.1|Host: a||"),
        refused("400", "GET http://a#b/ HTTP/1.1|Host: a||"),
        refused("400", "GET http://a/b# HTTP/1.0|Host: a||"),
        refused("400", &post("Connection: Content-Length|Content-Length: 33", HIDDEN)),
        refused("400", &post("Connection: close, transfer-encoding|Transfer-Encoding: chunked", "0||")),
        refused("400", &get("Host: a|Connection: Host")),
        // What is no HTTP/1.1.
        refused("400", "GET /g|"),
        refused("400", "GET /g\n\n"),
        refused("505", "GET /g HTTP/3.0|Host: a||"),
        refused("505", "GET /g HTTP/1.9|Host: a||"),
        refused("505", "PRI * HTTP/2.0||XX||"),
        refused("400", "GET /g HTTP/x.1|Host: a||"),
        refused("400", "GET /g http/1.1|Host: a||"),
        refused("405", "CONNECT a:80 HTTP/1.1|Host: a:80||"),
        // Sizes.
        refused("414", &format!("GET /{} HTTP/1.1|Host: a||", long(70_000))),
        refused("414", &format!("GET /{}", long(70_000))),
        refused("431", &get(&format!("Host: a|X: {}", long(70_000)))),
        refused("431", &get(&format!("Host: a|{}", "X: y|".repeat(101)))),
        refused("431", &format!("GET / HTTP/1.1|Host: a|{}", "X: y|".repeat(20_000))),
        // Chunks. Those that are whole are served, the others end the request for the pod, too.
        served(&chunked("5;name=value|hello|0||"), &["/p hello"]),
        served(&chunked("5 |hello|0||"), &["/p hello"]),
        served(&chunked("1|a|0|Content-Length: 5|Host: evil|Transfer-Encoding: chunked||"), &["/p a"]),
        refused("400", &chunked("5|hellox|0||")),
        refused("400", &chunked("5\nhello\n0\n\n")),
        refused("400", &chunked("0x5|hello|0||")),
        refused("400", &chunked("-5|hello|0||")),
        refused("400", &chunked("|hello|0||")),
        refused("400", &chunked("ffffffffffffffff|a")),
        refused("400", &chunked("10000000000000005|hello|0||")),
        refused("400", &chunked(&format!("5;{}|hello|0||", long(10_000)))),
        refused("400", &chunked(&format!("1|a|0|X: {}||", long(20_000)))),
        refused("400", &chunked(&format!("1|a|0|{HIDDEN}"))),
        refused("400", &chunked("1|a|0| folded||")),
    ];
    for coding in ["xchunked", "chunked, chunked", "gzip, chunked", "chunked;q=1", "\"chunked\"", "identity", ""] {
        cases.push(refused("501", &hidden(&format!("Transfer-Encoding: {coding}"))));
    }
    for coding in ["chunked", "CHUNKED", "\tchunked ", "chunKed"] {
        cases.push(Case {
            sent: hidden(&format!("Transfer-Encoding: {coding}")),
            statuses: "200 200",
            heard: &["/p", "/hidden"],
        });
    }
    cases
}

#[tokio::test]
async fn each_is_refused_and_nobody_else_notices() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let (_pod, heard) = mirror(&site).await;
        site.set(&[1]);
        let mut other = Dialog::new(&site).await;
        let mut wrong = Vec::new();
        for (number, Case { sent, statuses, heard: expected }) in cases().into_iter().enumerate() {
            let reply = exchange(site.connect().await, sent.replace('|', "\r\n").as_bytes()).await;
            let found = answers(&reply.bytes, &[]);
            // Who is refused is told why.
            let is_told = found.iter().all(|answer| answer.start.contains(" 200 ") || answer.body.ends_with(b"\n"));
            let found: Vec<&str> = found.iter().map(|answer| answer.start.split(' ').nth(1).unwrap_or("?")).collect();
            let own = other.ask(&format!("GET /own-{number} HTTP/1.1|Host: a||")).await;
            let asked: Vec<String> = std::mem::take(&mut *heard.lock().expect("not poisoned"));
            let mut all = expected.to_vec();
            let last = format!("/own-{number}");
            all.push(&last);
            let is_right = found.join(" ") == statuses && is_told && asked == all && reply.end != End::Open;
            if !is_right || own.body != format!("/own-{number} ").as_bytes() {
                let sent: String = sent.chars().take(90).collect();
                let what = format!("{sent:?}: {} ({:?}), the pod heard {asked:?}", found.join(" "), reply.end);
                wrong.push(format!("{what} instead of {statuses} and {all:?}; {own:?}"));
            }
        }
        assert!(wrong.is_empty(), "fast: {is_fast}, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[tokio::test]
async fn one_byte_at_a_time_changes_nothing() {
    let site = HttpSite::new(true).await;
    let (_pod, heard) = mirror(&site).await;
    site.set(&[1]);
    let short = cases().into_iter().filter(|case| case.sent.len() < 200);
    let each = short.map(|Case { sent, statuses, .. }| {
        let site = &site;
        async move {
            let mut stream = site.connect().await;
            stream.set_nodelay(true).expect("a socket");
            let bytes = sent.replace('|', "\r\n").into_bytes();
            for byte in &bytes {
                // Who is refused in the middle need not be heard out.
                if stream.write_all(std::slice::from_ref(byte)).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let reply = exchange(stream, b"").await;
            let found = answers(&reply.bytes, &[]);
            let found: Vec<&str> = found.iter().map(|answer| answer.start.split(' ').nth(1).unwrap_or("?")).collect();
            let is_right = found.join(" ") == statuses;
            (!is_right).then(|| format!("{sent:?}: {} instead of {statuses}", found.join(" ")))
        }
    });
    let wrong: Vec<String> = futures_util::future::join_all(each).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(heard.lock().expect("not poisoned").iter().filter(|path| path.starts_with("/hidden")).count() == 4);
}

#[tokio::test]
async fn a_hundred_slow_heads_hold_up_nobody() {
    for is_fast in [true, false] {
        let http = HttpOptions { is_fast, limits: short(), ..HttpOptions::default() };
        let options = BalancerOptions { hold: DEADLINE, http, ..BalancerOptions::default() };
        let site = HttpSite::of(options, AppProtocol::Http).await;
        let (_pod, heard) = mirror(&site).await;
        site.set(&[1]);
        let slow = (0..100).map(|_| async {
            let mut slow = Dialog::new(&site).await;
            slow.write("GET /slow HTTP/1.1|Host: a|").await;
            // A field now and then does not make it another head.
            while slow.try_write("X: y|").await {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if slow.has_ended().await {
                    break;
                }
            }
            slow.read_all().await
        });
        let quick = async {
            let start = Instant::now();
            let mut client = Dialog::new(&site).await;
            for number in 0..50 {
                let answer = client.ask(&format!("GET /{number} HTTP/1.1|Host: a||")).await;
                assert_eq!(answer.body, format!("/{number} ").as_bytes());
            }
            start.elapsed()
        };
        let (slow, took) = tokio::join!(futures_util::future::join_all(slow), quick);
        assert!(took < Duration::from_secs(5), "{took:?}");
        let told = slow.iter().filter(|answer| answer.starts_with("HTTP/1.1 408 Request Timeout\r\n")).count();
        assert!(told >= 90, "{told} were told, the others reset: {:?}", slow.first());
        assert_eq!(heard.lock().expect("not poisoned").len(), 50);
    }
}

#[tokio::test]
async fn what_follows_the_preface_of_http2_and_is_none_reaches_no_pod() {
    let site = HttpSite::new(true).await;
    let (_pod, heard) = mirror(&site).await;
    site.set(&[1]);
    for after in [
        &b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\0\0\xff\x01\x25\0\0\0\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", after].concat();
        let reply = exchange(site.connect().await, &bytes).await;
        assert_ne!(reply.end, End::Open, "{}", after.escape_ascii());
        assert!(!reply.bytes.starts_with(b"HTTP/1"), "{}", reply.bytes.escape_ascii());
    }
    assert!(heard.lock().expect("not poisoned").is_empty());
}
