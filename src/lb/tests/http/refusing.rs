//! Pods that speak HTTP/2 and do not take a call, or answer it with a head that cannot be passed on: which of them it is tried with
//! again, how often, and what is said of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http2::{ask, connect, echo, get};
use super::site::HttpSite;
use crate::lb::http::HttpOptions;
use crate::lb::tests::site::Pod;
use crate::lb::{BalancerOptions, Trouble};
use crate::model::AppProtocol;

/// A pod that answers the first call of a connection, where `answers` says so, and resets all others; with the number of
/// those.
async fn resetting(site: &HttpSite, number: u8, reason: Reason, answers: bool) -> (Pod, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let resets = Arc::clone(&count);
    let talk = move |stream: TcpStream| {
        let resets = Arc::clone(&resets);
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            let mut answers = answers;
            while let Some(Ok((_, mut answer))) = connection.accept().await {
                if std::mem::take(&mut answers) {
                    answer.send_response(Response::new(()), true).expect("open");
                } else {
                    resets.fetch_add(1, Ordering::SeqCst);
                    answer.send_reset(reason);
                }
            }
        }
    };
    (site.pod(number, talk).await, count)
}

/// A pod that ends each connection when the first call comes, which it has not looked at.
async fn ending(mut stream: TcpStream) {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if stream.write_all(&settings).await.is_err() {
        return;
    }
    let mut bytes = Vec::new();
    let mut at = PREFACE;
    loop {
        while let Some(head) = bytes.get(at..at + 9) {
            if head[3] == HEADERS {
                let _gone = stream.write_all(&go_away).await;
                // What was sent is read, or the end would be a reset.
                let _gone = stream.shutdown().await;
                let _gone = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                return;
            }
            at += 9 + usize::from(head[0]) * 65_536 + usize::from(head[1]) * 256 + usize::from(head[2]);
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
    }
}

fn call() -> Request<()> {
    Request::post("http://x.test/pkg.Service/Call").header("content-type", "application/grpc").body(()).expect("valid")
}

#[tokio::test]
async fn a_call_that_a_pod_has_not_looked_at_goes_to_another_whatever_its_method() {
    let site = HttpSite::with(HttpOptions::default(), AppProtocol::Grpc).await;
    let (_refusing, refused) = resetting(&site, 1, Reason::REFUSED_STREAM, false).await;
    let _ending = site.pod(2, ending).await;
    let _good = site.pod(3, echo).await;
    for pods in [&[1, 3][..], &[2, 3]] {
        site.set(pods);
        let (client, _driver) = connect(site.connect().await).await;
        for number in 0..20 {
            let (answer, body, _) = ask(&client, call(), &[b"hello"]).await.expect("answered");
            assert_eq!((answer.status().as_u16(), &body[..]), (200, &b"hello"[..]), "call {number} of {pods:?}");
        }
    }
    assert!(refused.load(Ordering::SeqCst) > 0, "it was asked");
}

#[tokio::test]
async fn who_refuses_all_is_asked_for_a_while_and_no_longer() {
    let hold = std::time::Duration::from_millis(300);
    let site = HttpSite::of(BalancerOptions { hold, ..BalancerOptions::default() }, AppProtocol::Grpc).await;
    let (_refusing, refused) = resetting(&site, 1, Reason::REFUSED_STREAM, false).await;
    site.set(&[1]);
    let (client, _driver) = connect(site.connect().await).await;
    let (answer, ..) = ask(&client, call(), &[b"hello"]).await.expect("answered");
    assert_eq!(answer.status(), 502);
    let refused = refused.load(Ordering::SeqCst);
    assert!((2..50).contains(&refused), "asked {refused} times");
}

#[tokio::test]
async fn a_pod_that_resets_what_it_took_is_asked_few_times() {
    let site = HttpSite::with(HttpOptions::default(), AppProtocol::H2c).await;
    let (_pod, resets) = resetting(&site, 1, Reason::INTERNAL_ERROR, true).await;
    site.set(&[1]);
    let (client, _driver) = connect(site.connect().await).await;
    assert_eq!(ask(&client, get("http://x.test/"), &[]).await.expect("answered").0.status(), 200);
    // On a connection that is kept, and goes on being.
    let (answer, ..) = ask(&client, get("http://x.test/"), &[]).await.expect("answered");
    assert_eq!(answer.status(), 502);
    let asked = resets.swap(0, Ordering::SeqCst);
    assert!((2..6).contains(&asked), "asked {asked} times");
    // Nor is one that may have done something asked twice.
    let (answer, ..) = ask(&client, call(), &[b"hello"]).await.expect("answered");
    assert_eq!((answer.status().as_u16(), resets.load(Ordering::SeqCst)), (502, 1));
}

#[tokio::test]
async fn a_head_of_an_answer_over_http2_that_cannot_be_passed_on_is_told_as_that() {
    let large: fn(&mut HeaderMap) = |fields| {
        for _ in 0..120 {
            fields.append("a", HeaderValue::from_static("b"));
        }
    };
    let long: fn(&mut HeaderMap) = |fields| {
        for _ in 0..9 {
            fields.append("a", "x".repeat(8000).parse().expect("valid"));
        }
    };
    let differing: fn(&mut HeaderMap) = |fields| {
        fields.append("content-length", HeaderValue::from_static("2"));
        fields.append("content-length", HeaderValue::from_static("3"));
    };
    for (change, trouble, words) in [
        (large, Trouble::LargeHead, "is larger than 64 KiB or 100 fields\n"),
        (long, Trouble::LargeHead, "is larger than 64 KiB or 100 fields\n"),
        (differing, Trouble::UnclearHead, "contradicts itself\n"),
    ] {
        let site = HttpSite::with(HttpOptions::default(), AppProtocol::H2c).await;
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let talk = move |stream: TcpStream| {
            let count = Arc::clone(&count);
            async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((_, mut answer))) = connection.accept().await {
                    count.fetch_add(1, Ordering::SeqCst);
                    let mut head = Response::new(());
                    change(head.headers_mut());
                    let mut body = answer.send_response(head, false).expect("open");
                    let _refused = body.send_data("ok".into(), true);
                }
            }
        };
        let _pod = site.pod(1, talk).await;
        site.set(&[1]);
        let (client, _driver) = connect(site.connect().await).await;
        let (answer, body, _) = ask(&client, get("http://x.test/"), &[]).await.expect("answered");
        let body = String::from_utf8_lossy(&body);
        assert!(answer.status() == 502 && body.ends_with(words), "{}: {body}", answer.status());
        let text = site.get("GET / HTTP/1.1|Host: a||").await;
        assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && text.ends_with(words), "{text}");
        let troubles: Vec<(Trouble, u64)> = site.stats(1).troubles.iter().map(|one| (one.what, one.count)).collect();
        assert_eq!((troubles, asked.load(Ordering::SeqCst)), (vec![(trouble, 2)], 2));
    }
}
