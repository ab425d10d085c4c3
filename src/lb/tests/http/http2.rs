//! HTTP/2 without TLS: of clients, of pods, and of both, as gRPC has it.

use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::site::{Answer, HttpSite, short};
use crate::lb::BalancerOptions;
use crate::lb::http::HttpOptions;
use crate::lb::tests::site::{DEADLINE, in_time, until};
use crate::model::AppProtocol;

/// Connects as who knows that HTTP/2 is spoken.
pub(super) async fn connect(stream: TcpStream) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let driver = tokio::spawn(async move {
        let _ended = connection.await;
    });
    (client.ready().await.expect("open"), driver)
}

/// Asks; returns the head of the answer, its body and its trailers.
pub(super) async fn ask(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: &[&[u8]],
) -> Result<(Response<()>, Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut client = client.clone().ready().await?;
    let (answer, mut stream) = client.send_request(request, body.is_empty())?;
    for (at, piece) in body.iter().enumerate() {
        stream.send_data(Bytes::copy_from_slice(piece), at + 1 == body.len())?;
    }
    let (head, mut body) = in_time(answer).await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = in_time(body.data()).await.transpose()? {
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    let trailers = in_time(body.trailers()).await?;
    Ok((Response::from_parts(head, ()), bytes, trailers))
}

pub(super) fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).expect("valid")
}

/// A pod of HTTP/2 that sends each piece back as it comes, then trailers. Says what it was asked in a field.
pub(super) async fn echo(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut answer))) = connection.accept().await {
        tokio::spawn(async move {
            let forwarded = |name: &str| request.headers().get(name).cloned();
            let mut head = Response::builder().status(200).header("asked", request.uri().to_string());
            for name in ["x-forwarded-for", "x-forwarded-proto", "x-request-id", "te"] {
                if let Some(value) = forwarded(name) {
                    head = head.header(format!("got-{name}"), value);
                }
            }
            let mut out = answer.send_response(head.body(()).expect("valid"), false).expect("open");
            let mut body = request.into_body();
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).expect("received");
                out.send_data(piece, false).expect("open");
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("valid"));
            out.send_trailers(trailers).expect("open");
        });
    }
}

#[tokio::test]
async fn a_client_may_speak_http2_to_pods_that_do_not() {
    let site = HttpSite::new(true).await;
    let pod = site.scripted(1, &[Answer::new("HTTP/1.1 200 OK|Content-Length: 2|X-A: 1||ok")]).await;
    site.set(&[1]);
    let (client, _driver) = connect(site.connect().await).await;
    let asked = futures_util::future::join_all((0..20).map(|n| {
        let client = &client;
        async move { ask(client, get(&format!("http://x.test/{n}?q")), &[]).await.expect("answered") }
    }));
    for (answer, body, _) in asked.await {
        assert_eq!((answer.status().as_u16(), &body[..]), (200, &b"ok"[..]));
        assert_eq!(answer.headers()["x-a"], "1");
    }
    let post = Request::post("http://x.test/p").body(()).expect("valid");
    let (answer, ..) = ask(&client, post, &[b"hello", b" world"]).await.expect("answered");
    assert_eq!(answer.status(), 200);
    let heard = pod.heard();
    assert_eq!(heard.len(), 21);
    let last = heard.last().expect("some");
    assert_eq!((last.start.as_str(), &last.body[..]), ("POST /p HTTP/1.1", &b"hello world"[..]));
    assert_eq!((last.field("host"), last.field("x-forwarded-for")), (Some("x.test"), Some("127.0.0.1")));
    assert!(last.field("x-request-id").is_some_and(|id| id.len() == 32));
    assert_eq!(site.service().http.by_class[1], 21);
}

/// Browsers divide them; pods of HTTP/1.1 read one field, or join several by commas. Source: RFC 9113, section 8.2.3.
#[tokio::test]
async fn cookies_that_a_client_of_http2_divides_are_one_field_for_the_pod() {
    let site = HttpSite::new(true).await;
    let pod = site.scripted(1, &[Answer::new("HTTP/1.1 200 OK|Content-Length: 2||ok")]).await;
    site.set(&[1]);
    let (client, _driver) = connect(site.connect().await).await;
    for cookies in [&["a=1", "b=\"2\"", "c="][..], &["a=1; b=2"], &[]] {
        let mut request = get("http://x.test/");
        for cookie in cookies {
            request.headers_mut().append("cookie", cookie.parse().expect("valid"));
        }
        ask(&client, request, &[]).await.expect("answered");
        let heard = pod.heard().pop().expect("a request");
        let got: Vec<&str> =
            heard.fields.iter().filter(|(name, _)| name == "cookie").map(|(_, value)| value.as_str()).collect();
        let whole = cookies.join("; ");
        assert_eq!(got, Vec::from_iter((!cookies.is_empty()).then_some(whole.as_str())));
    }
}

#[tokio::test]
async fn a_client_that_sends_no_more_of_its_body_is_told_so() {
    let http = HttpOptions { limits: short(), ..HttpOptions::default() };
    let site =
        HttpSite::of(BalancerOptions { hold: DEADLINE, http, ..BalancerOptions::default() }, AppProtocol::Http).await;
    let pod = site.scripted(1, &[Answer::new("HTTP/1.1 200 OK|Content-Length: 2||ok")]).await;
    site.set(&[1]);
    let (client, _driver) = connect(site.connect().await).await;
    let post = || Request::post("http://x.test/").header("content-length", "6").body(()).expect("valid");
    for sent in [&[][..], &["he"], &["he", "ll"]] {
        let mut ready = client.clone().ready().await.expect("open");
        let (answer, mut stream) = ready.send_request(post(), false).expect("open");
        for piece in sent {
            stream.send_data(Bytes::from_static(piece.as_bytes()), false).expect("open");
        }
        assert_eq!(in_time(answer).await.expect("answered").status(), 408, "after {sent:?}");
    }
    assert!(pod.heard().is_empty());
    until(|| site.stats(1).open, |open| *open == 0).await;
    let stats = site.stats(1);
    assert!(!stats.ejected && stats.troubles.is_empty(), "it is not the pod's fault: {stats:?}");
    // Who goes on sending has all the time that takes.
    let mut ready = client.clone().ready().await.expect("open");
    let (answer, mut stream) = ready.send_request(post(), false).expect("open");
    for piece in ["he", "ll", "o!"] {
        tokio::time::sleep(short().body * 2 / 3).await;
        stream.send_data(Bytes::from_static(piece.as_bytes()), piece == "o!").expect("open");
    }
    assert_eq!(in_time(answer).await.expect("answered").status(), 200);
    assert_eq!(pod.heard().pop().expect("a request").body, b"hello!");
}

#[tokio::test]
async fn pods_may_speak_http2_to_clients_that_do_not() {
    let site = HttpSite::with(HttpOptions::default(), AppProtocol::H2c).await;
    let _pod = site.pod(1, echo).await;
    site.set(&[1]);
    let answer = site.get("POST /a?b HTTP/1.1|Host: x.test|Content-Length: 5|X-Request-Id: mine||hello").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for part in ["http://x.test/a?b", "got-x-forwarded-for: 127.0.0.1", "got-x-request-id: mine", "hello"] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
}

#[tokio::test]
async fn grpc_goes_both_ways_at_once_and_keeps_its_trailers() {
    let site = HttpSite::with(HttpOptions::default(), AppProtocol::Grpc).await;
    let _pods = [site.pod(1, echo).await, site.pod(2, echo).await];
    site.set(&[1, 2]);
    let (client, _driver) = connect(site.connect().await).await;
    let call = Request::post("http://x.test/pkg.Service/Call")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("valid");
    let mut ready = client.clone().ready().await.expect("open");
    let (answer, mut stream) = ready.send_request(call, false).expect("open");
    let (head, mut body) = in_time(answer).await.expect("the head comes before the request ends").into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["got-te"], "trailers");
    for text in ["one", "two", "three"] {
        stream.send_data(Bytes::copy_from_slice(text.as_bytes()), false).expect("open");
        let piece = in_time(body.data()).await.expect("open").expect("a piece");
        assert_eq!(piece, text.as_bytes(), "it comes before the next is sent");
        body.flow_control().release_capacity(piece.len()).expect("received");
    }
    stream.send_data(Bytes::new(), true).expect("open");
    assert!(in_time(body.data()).await.is_none());
    let trailers = in_time(body.trailers()).await.expect("open").expect("there are some");
    assert_eq!(trailers["grpc-status"], "0");
    // Once each pod has a connection, many calls at a time share them.
    while site.stats(1).connected == 0 || site.stats(2).connected == 0 {
        ask(&client, get("http://x.test/pkg.Service/Other"), &[]).await.expect("answered");
    }
    let calls = futures_util::future::join_all((0..60).map(|_| {
        let client = &client;
        async move { ask(client, get("http://x.test/pkg.Service/Other"), &[]).await.expect("answered") }
    }));
    assert!(calls.await.iter().all(|(answer, ..)| answer.status() == 200));
    let stats = [site.stats(1), site.stats(2)];
    assert!(stats.iter().all(|stats| stats.http.by_class[1] > 0 && stats.connected < 10), "{stats:?}");
}

#[tokio::test]
async fn a_call_that_no_pod_takes_is_told_so() {
    let options = crate::lb::BalancerOptions {
        hold: std::time::Duration::from_millis(200),
        ..crate::lb::BalancerOptions::default()
    };
    let site = HttpSite::of(options, AppProtocol::Grpc).await;
    site.set(&[]);
    let (client, _driver) = connect(site.connect().await).await;
    // By this a client of gRPC knows that it may call again: UNAVAILABLE.
    let (answer, body, _) = ask(&client, get("http://x.test/"), &[]).await.expect("answered");
    assert_eq!((answer.status().as_u16(), &body[..3]), (503, &b"503"[..]));
    site.set(&[1]);
    let (answer, ..) = ask(&client, get("http://x.test/"), &[]).await.expect("answered");
    assert_eq!(answer.status(), 502);
}

#[tokio::test]
async fn hosts_and_sizes_are_looked_at_in_http2_too() {
    let site = HttpSite::new(true).await;
    let pod = site.scripted(1, &[Answer::new("HTTP/1.1 200 OK|Content-Length: 2||ok")]).await;
    site.set(&[1]);
    let (client, _driver) = connect(site.connect().await).await;
    let mut many = get("http://x.test/");
    for number in 0..150 {
        many.headers_mut().insert(
            http::HeaderName::from_bytes(format!("x-{number}").as_bytes()).expect("valid"),
            http::HeaderValue::from_static("1"),
        );
    }
    let (answer, ..) = ask(&client, many, &[]).await.expect("answered");
    assert_eq!(answer.status(), 431);
    let tunnel = Request::connect("x.test:22").body(()).expect("valid");
    let (answer, ..) = ask(&client, tunnel, &[]).await.expect("answered");
    assert_eq!(answer.status(), 405);
    let mut large = get("http://x.test/");
    large.headers_mut().insert("x", "x".repeat(100_000).parse().expect("valid"));
    let outcome = ask(&client, large, &[]).await;
    assert!(outcome.is_err() || outcome.is_ok_and(|(answer, ..)| answer.status() == 431));
    assert!(pod.heard().is_empty());
}

#[tokio::test]
async fn when_it_stops_calls_end_and_then_the_connection() {
    let site = HttpSite::with(HttpOptions::default(), AppProtocol::Grpc).await;
    let _pod = site.pod(1, echo).await;
    site.set(&[1]);
    let (client, driver) = connect(site.connect().await).await;
    let mut ready = client.clone().ready().await.expect("open");
    let call = Request::post("http://x.test/").body(()).expect("valid");
    let (answer, mut stream) = ready.send_request(call, false).expect("open");
    let mut body = in_time(answer).await.expect("answered").into_body();
    let site = Arc::new(site);
    until(|| site.stats(1).open, |open| *open == 1).await;
    let site = Arc::into_inner(site).expect("ours");
    let stopping = tokio::spawn(site.into_balancer().stop(Instant::now() + DEADLINE));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    stream.send_data(Bytes::from_static(b"last words"), true).expect("the call goes on");
    assert_eq!(in_time(body.data()).await.expect("open").expect("a piece"), "last words");
    while in_time(body.data()).await.is_some() {}
    in_time(body.trailers()).await.expect("open");
    drop((ready, client, body, stream));
    in_time(driver).await.expect("the connection ends");
    assert_eq!(in_time(stopping).await.expect("no panic"), 0);
}
