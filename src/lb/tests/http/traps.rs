//! Traps of a proxy that tables of requests and answers do not show: when something arrives, what its very bytes are, on
//! which connection, and who ends that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::http2;
use super::script::read_message;
use super::site::{Answer, Dialog, End, HttpSite, Scripted, Then};
use crate::lb::http::HttpOptions;
use crate::lb::tests::site::{Pod, until};
use crate::model::AppProtocol;

const GET: &str = "GET / HTTP/1.1|Host: a||";

fn ok() -> Answer {
    Answer::new("HTTP/1.1 200 OK|Content-Length: 2||ok")
}

/// A site with one pod that answers by script.
async fn with_pod(is_fast: bool, answers: &[Answer]) -> (HttpSite, Scripted) {
    let site = HttpSite::new(is_fast).await;
    let pod = site.scripted(1, answers).await;
    site.set(&[1]);
    (site, pod)
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_neither_answers_before_the_answer_nor_chunks() {
    let plain = "GET / HTTP/1.0|Connection: keep-alive||";
    let expecting = "POST / HTTP/1.0|Expect: 100-continue|Content-Length: 2||ab";
    for is_fast in [true, false] {
        for (request, answer) in [
            (plain, Answer::new("HTTP/1.1 103 Early Hints|Link: x||HTTP/1.1 200 OK|Content-Length: 5||hello")),
            (expecting, Answer::new("HTTP/1.1 100 Continue||HTTP/1.1 200 OK|Content-Length: 5||hello")),
            (plain, Answer::new("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|he|3|llo|0||")),
            (plain, Answer::new("HTTP/1.1 200 OK||hello").then(Then::Close)),
        ] {
            let what = String::from_utf8_lossy(&answer.bytes).into_owned();
            let (site, pod) = with_pod(is_fast, &[answer]).await;
            let text = site.get(request).await;
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{what:?}: {text}");
            let head = head.to_ascii_lowercase();
            assert!(!head.contains("transfer-encoding"), "{what:?}: {text}");
            assert_eq!(body, "hello", "{what:?}: {text}");
            let is_framed = head.contains("content-length: 5");
            assert!(is_framed || head.contains("connection: close"), "its end is known: {text}");
            assert_eq!(pod.heard().len(), 1);
            assert_eq!(pod.heard()[0].field("expect"), None, "nobody waits for what is not passed on");
        }
        // The end of its connection must not be taken for the end of what was cut off.
        let cut = Answer::new("HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|").then(Then::Close);
        let (site, _pod) = with_pod(is_fast, &[cut]).await;
        let reply = site.send(plain.replace('|', "\r\n").as_bytes()).await;
        assert_eq!(reply.end, End::Reset, "{}", reply.bytes.escape_ascii());
    }
}

#[tokio::test]
async fn who_speaks_http_1_0_is_told_where_a_pod_of_http2_does_not_say_how_long_its_answer_is() {
    let site = HttpSite::with(HttpOptions::default(), AppProtocol::H2c).await;
    let _pod = site.pod(1, http2::echo).await;
    site.set(&[1]);
    let answer = site.get("GET / HTTP/1.0|Host: x.test||").await;
    assert!(answer.starts_with("HTTP/1.1 505 HTTP Version Not Supported\r\n"), "{answer}");
    assert!(site.get("GET / HTTP/1.1|Host: x.test||").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn early_hints_do_not_wait_for_the_answer() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let (go_on, told) = watch::channel(false);
        let _pod = site
            .pod(1, move |mut stream| {
                let mut told = told.clone();
                async move {
                    read_message(&mut stream, &mut Vec::new()).await.expect("a request");
                    stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").await.expect("open");
                    told.wait_for(|told| *told).await.expect("the test goes on");
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("open");
                }
            })
            .await;
        site.set(&[1]);
        let mut client = Dialog::new(&site).await;
        client.write(GET).await;
        client.read_until("HTTP/1.1 103 Early Hints\r\n").await;
        client.read_until("\r\n\r\n").await;
        go_on.send_replace(true);
        assert_eq!(client.read().await.body, b"ok");
    }
}

#[tokio::test]
async fn chunks_go_on_as_the_pod_wrote_them() {
    // The general path makes chunks of its own, and drops trailers: nobody may rely on those without having asked for them.
    let chunks = "5;name=value|hello|01|!|0|X-Sum: 1||";
    let answer = Answer::new(&format!("HTTP/1.1 200 OK|Transfer-Encoding: chunked||{chunks}"));
    let (site, _pod) = with_pod(true, &[answer, ok()]).await;
    let text = site.get(&GET.repeat(2)).await;
    let (_, rest) = text.split_once("\r\n\r\n").expect("a head");
    assert!(rest.starts_with(&chunks.replace('|', "\r\n")), "{text}");
    assert!(text.ends_with("\r\n\r\nok"), "and the next answer follows: {text}");
}

#[tokio::test]
async fn a_pods_connection_is_used_again_only_where_its_answer_has_ended_for_sure() {
    for is_fast in [true, false] {
        for (answer, connections) in [
            ("HTTP/1.1 200 OK|Content-Length: 2||ok", 1),
            ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0||", 1),
            ("HTTP/1.1 204 No Content||", 1),
            ("HTTP/1.1 103 Early Hints||HTTP/1.1 200 OK|Content-Length: 2||ok", 1),
            ("HTTP/1.1 200 OK|Connection: close|Content-Length: 2||ok", 2),
            ("HTTP/1.0 200 OK|Content-Length: 2||ok", 2),
            ("HTTP/1.1 200 OK|Content-Length: 2||ok!", 2),
            ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0||!", 2),
            ("HTTP/1.1 204 No Content||!", 2),
        ] {
            let (site, pod) = with_pod(is_fast, &[Answer::new(answer), ok()]).await;
            let text = site.get(&GET.repeat(2)).await;
            assert!(text.ends_with("\r\n\r\nok"), "{answer}: {text}");
            assert_eq!(pod.heard().len(), 2, "{answer}");
            assert_eq!(site.stats(1).connected, connections, "{answer}, fast: {is_fast}");
        }
    }
}

#[tokio::test]
async fn who_ends_a_connection_says_so() {
    for is_fast in [true, false] {
        for (request, status) in [
            ("GET / HTTP/1.1|Host: a|Connection: close||", "200"),
            ("GET / HTTP/1.0||", "200"),
            ("GET / HTTP/1.1||", "400"),
            ("GET / HTTP/1.1|Host: a| folded||", "400"),
            ("CONNECT a:1 HTTP/1.1|Host: a||", "405"),
            ("POST / HTTP/1.1|Host: a|Transfer-Encoding: gzip||", "501"),
            ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||x|", "400"),
        ] {
            let (site, _pod) = with_pod(is_fast, &[ok()]).await;
            // What is sent behind it goes nowhere.
            let text = site.get(&format!("{request}{GET}")).await.to_ascii_lowercase();
            assert!(text.starts_with(&format!("http/1.1 {status} ")), "{request}: {text}");
            assert_eq!(text.matches("http/1.1 ").count(), 1, "{request}: {text}");
            assert!(text.contains("\r\nconnection: close\r\n"), "{request}: {text}");
        }
    }
    // Where an answer ends with its connection; the general path makes chunks of it.
    let (site, _pod) = with_pod(true, &[Answer::new("HTTP/1.1 200 OK||until the end").then(Then::Close)]).await;
    assert!(site.get(GET).await.contains("\r\nConnection: close\r\n"));
}

#[tokio::test]
async fn nobody_gets_past_the_balancer_by_an_upgrade_that_it_does_not_follow() {
    for (is_fast, protocol) in [(true, "h2c"), (false, "h2c"), (true, "x-own"), (false, "websocket, h2c")] {
        let fields = format!("Connection: Upgrade, HTTP2-Settings|Upgrade: {protocol}|HTTP2-Settings: AAMAAABk");
        let upgrade = format!("GET / HTTP/1.1|Host: a|{fields}||");
        let (site, pod) = with_pod(is_fast, &[ok()]).await;
        let text = site.get(&format!("{upgrade}GET /hidden HTTP/1.1|Host: a||")).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        let heard = pod.heard();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!((heard[0].field("upgrade"), heard[0].field("http2-settings")), (None, None), "{heard:?}");
        // A pod that would do it all the same.
        let switching = format!("HTTP/1.1 101 Switching Protocols|Connection: Upgrade|Upgrade: {protocol}||hidden");
        let (site, _pod) = with_pod(is_fast, &[Answer::new(&switching)]).await;
        let text = site.get(&upgrade).await;
        assert!(text.starts_with("HTTP/1.1 502 ") && !text.contains("hidden"), "{text}");
    }
}

/// What is sent behind a request for another protocol belongs to nobody until the pod has agreed to it.
#[tokio::test]
async fn nobody_gets_past_the_balancer_by_an_upgrade_that_the_pod_declines() {
    for is_fast in [true, false] {
        for fields in ["", "Content-Length: 3|"] {
            for answer in ["HTTP/1.1 403 No|Content-Length: 2||no", "HTTP/1.1 426 No|Content-Length: 0||"] {
                let (site, pod) = with_pod(is_fast, &[Answer::new(answer)]).await;
                let body = if fields.is_empty() { "" } else { "abc" };
                let upgrade =
                    format!("GET /chat HTTP/1.1|Host: a|Upgrade: websocket|Connection: Upgrade|{fields}|{body}");
                let text = site.get(&format!("{upgrade}GET /hidden HTTP/1.1|Host: a||")).await;
                assert!(text.starts_with("HTTP/1.1 4"), "{fields}: {text}");
                assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{fields}: {text}");
                let heard = pod.heard();
                assert!(heard.len() <= 1 && heard.iter().all(|heard| !heard.start.contains("hidden")), "{heard:?}");
                assert!(heard.iter().all(|heard| heard.body == body.as_bytes()), "{heard:?}");
            }
        }
    }
}

/// A pod that answers with what was asked for, once it may, and how many requests it got.
async fn late(site: &HttpSite) -> (Pod, watch::Sender<bool>, Arc<AtomicUsize>) {
    let ((go_on, told), asked) = (watch::channel(false), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let talk = move |mut stream: tokio::net::TcpStream| {
        let (mut told, count) = (told.clone(), Arc::clone(&count));
        async move {
            let mut unread = Vec::new();
            while let Some(request) = read_message(&mut stream, &mut unread).await {
                count.fetch_add(1, Ordering::SeqCst);
                told.wait_for(|told| *told).await.expect("the test goes on");
                let path = request.start.split(' ').nth(1).unwrap_or_default();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    };
    (site.pod(1, talk).await, go_on, asked)
}

#[tokio::test]
async fn a_client_that_is_gone_before_its_answer_leaves_nothing_for_others() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let (_pod, go_on, asked) = late(&site).await;
        site.set(&[1]);
        let mut gone = Dialog::new(&site).await;
        gone.write("GET /gone HTTP/1.1|Host: a||").await;
        until(|| asked.load(Ordering::SeqCst), |asked| *asked == 1).await;
        gone.reset();
        go_on.send_replace(true);
        // At the latest when its answer is written, it is noticed.
        let counted = || {
            let http = site.service().http;
            (http.in_flight, http.broken_off + http.unanswered, site.stats(1).open)
        };
        until(counted, |counted| *counted == (0, 1, 0)).await;
        for path in ["/one", "/two"] {
            let answer = Dialog::new(&site).await.ask(&format!("GET {path} HTTP/1.1|Host: a||")).await;
            assert_eq!(answer.body, path.as_bytes());
        }
    }
}

#[tokio::test]
async fn a_client_that_has_said_all_gets_its_answer_however_late() {
    for is_fast in [true, false] {
        let site = HttpSite::new(is_fast).await;
        let (_pod, go_on, asked) = late(&site).await;
        site.set(&[1]);
        let asking = async {
            let reply = site.send(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n").await;
            String::from_utf8_lossy(&reply.bytes).into_owned()
        };
        let answering = async {
            until(|| asked.load(Ordering::SeqCst), |asked| *asked == 1).await;
            go_on.send_replace(true);
        };
        let (text, ()) = tokio::join!(asking, answering);
        assert!(text.ends_with("\r\n\r\n/last"), "{text}");
    }
}

#[tokio::test]
async fn an_answer_that_has_no_body_does_not_say_how_long_that_is() {
    // Who says so of a body that cannot be may send it all the same, later: nothing else goes on its connection.
    for (said, is_kept) in
        [("Content-Length: 0", true), ("Content-Length: 5", false), ("Transfer-Encoding: chunked", false)]
    {
        for is_fast in [true, false] {
            let site = HttpSite::new(is_fast).await;
            let connections = Arc::new(AtomicUsize::new(0));
            let answer = format!("HTTP/1.1 103 Early Hints|{said}||HTTP/1.1 204 No Content|{said}|X-A: 1||");
            let (answer, count) = (answer.replace('|', "\r\n"), Arc::clone(&connections));
            let talk = move |mut stream: TcpStream| {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                async move {
                    let mut unread = Vec::new();
                    while read_message(&mut stream, &mut unread).await.is_some() {
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            };
            let _pod = site.pod(1, talk).await;
            site.set(&[1]);
            let mut dialog = Dialog::new(&site).await;
            for _ in 0..2 {
                dialog.write(GET).await;
                dialog.read_until("HTTP/1.1 103 Early Hints\r\n\r\n").await;
                let answer = dialog.read().await.without(&["connection", "date"]);
                let fields = [("x-a".to_owned(), "1".to_owned())];
                assert_eq!(
                    (answer.start.as_str(), &answer.fields[..]),
                    ("HTTP/1.1 204 No Content", &fields[..]),
                    "{said}"
                );
            }
            let first = connections.load(Ordering::SeqCst);
            assert_eq!(first, if is_kept { 1 } else { 2 }, "{said}, fast: {is_fast}");
            let (client, _driver) = http2::connect(site.connect().await).await;
            for _ in 0..2 {
                let (answer, body, _) = http2::ask(&client, http2::get("http://x.test/"), &[]).await.expect("answered");
                assert_eq!((answer.status().as_u16(), body.len()), (204, 0), "{said}");
                let framing = ["content-length", "transfer-encoding"].map(|name| answer.headers().get(name));
                assert_eq!(framing, [None, None], "{said}");
            }
            // Another thread, or path, has connections of its own.
            let all = connections.load(Ordering::SeqCst);
            assert!(if is_kept { all <= 2 } else { all == 4 }, "{all} for {said}, fast: {is_fast}");
        }
    }
}
