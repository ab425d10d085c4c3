//! Pods that speak HTTP/2 and do not take a call: which of them it is tried with again, and how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::Reason;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http2::{ask, connect, echo, get};
use super::site::HttpSite;
use crate::lb::BalancerOptions;
use crate::lb::http::HttpOptions;
use crate::lb::tests::site::Pod;
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
