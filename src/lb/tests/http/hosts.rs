//! Requests to pods of other hosts, over real TLS on loopback.

use bytes::Bytes;
use http::Request;
use tokio::io::AsyncWriteExt;

use super::http2;
use super::script::read_message;
use super::serving::{UPGRADE, websocket};
use super::site::{Answer, Dialog, scripted};
use crate::host::sockets::reset_on_close;
use crate::lb::tests::cluster::Hosts;
use crate::lb::tests::site::{container, in_time, until};
use crate::model::AppProtocol;

const GET: &str = "GET / HTTP/1.1|Host: a||";
const CHUNKED: &str = "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0||";

fn ok() -> Answer {
    Answer::new("HTTP/1.1 200 OK|Content-Length: 2||ok")
}

#[tokio::test]
async fn both_paths_reach_pods_of_other_hosts_and_use_their_connections_again() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let pod = scripted(hosts.pods(), 2, &[ok()]).await;
    hosts.set_speaking(Some(AppProtocol::Http), "b2");
    for request in [GET, CHUNKED] {
        let before = hosts.stats("b", 2).connected;
        let mut client = Dialog::new(&hosts.at("a").site).await;
        for _ in 0..30 {
            assert_eq!(client.ask(request).await.body, b"ok");
        }
        let connected = hosts.stats("b", 2).connected - before;
        assert!(connected <= 3, "{connected} connections for one request after the other");
    }
    assert_eq!(pod.heard().len(), 60);
    // A request is counted once its answer is with the client.
    let stats = until(|| hosts.stats("a", 2), |stats| stats.http.by_class[1] >= 60).await;
    assert_eq!((stats.remote, stats.http.by_class[1]), (true, 60));
}

#[tokio::test]
async fn local_pods_come_first_and_others_take_over() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let (here, there) = (scripted(hosts.pods(), 1, &[ok()]).await, scripted(hosts.pods(), 2, &[ok()]).await);
    hosts.set_speaking(Some(AppProtocol::Http), "a1 b2");
    let mut client = Dialog::new(&hosts.at("a").site).await;
    for request in [GET, CHUNKED, GET] {
        client.ask(request).await;
    }
    assert_eq!((here.heard().len(), there.heard().len()), (3, 0));
    hosts.set_speaking(Some(AppProtocol::Http), "b2");
    for request in [GET, CHUNKED, GET] {
        assert_eq!(client.ask(request).await.body, b"ok");
    }
    assert_eq!((here.heard().len(), there.heard().len()), (3, 3));
}

#[tokio::test]
async fn a_websocket_goes_over_hosts() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pod = hosts.pods().pod(2, websocket).await;
    hosts.set_speaking(Some(AppProtocol::Ws), "b2");
    let mut client = Dialog::new(&hosts.at("a").site).await;
    client.write(UPGRADE).await;
    client.read_until("welcome").await;
    for text in ["one", &"x".repeat(300_000)] {
        client.write(text).await;
        client.read_until(text).await;
    }
    let balancer = &hosts.at("b").site.balancer;
    assert_eq!(balancer.open_connections(&container(2)), 1, "a drain waits for it there");
    client.close().await;
    until(|| balancer.open_connections(&container(2)), |open| *open == 0).await;
}

#[tokio::test]
async fn grpc_goes_over_hosts() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pod = hosts.pods().pod(2, http2::echo).await;
    hosts.set_speaking(Some(AppProtocol::Grpc), "b2");
    let (client, _driver) = http2::connect(hosts.at("a").site.connect().await).await;
    let call = Request::post("http://x.test/").body(()).expect("valid");
    let mut ready = client.clone().ready().await.expect("open");
    let (answer, mut stream) = ready.send_request(call, false).expect("open");
    let mut body = in_time(answer).await.expect("answered").into_body();
    for text in ["one", "two"] {
        stream.send_data(Bytes::copy_from_slice(text.as_bytes()), false).expect("open");
        assert_eq!(in_time(body.data()).await.expect("open").expect("a piece"), text.as_bytes());
    }
    stream.send_data(Bytes::new(), true).expect("open");
    while in_time(body.data()).await.is_some() {}
    assert_eq!(in_time(body.trailers()).await.expect("open").expect("some")["grpc-status"], "0");
    for _ in 0..20 {
        let (answer, ..) = http2::ask(&client, http2::get("http://x.test/"), &[]).await.expect("answered");
        assert_eq!(answer.status(), 200);
    }
    assert!(hosts.stats("b", 2).connected <= 2, "calls share a connection");
}

#[tokio::test]
async fn an_answer_that_breaks_off_on_the_way_is_not_taken_for_whole() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let (break_off, broken_off) = tokio::sync::watch::channel(0);
    let _pod = hosts
        .pods()
        .pod(2, move |mut stream| {
            let mut broken_off = broken_off.clone();
            async move {
                read_message(&mut stream, &mut Vec::new()).await.expect("a request");
                broken_off.mark_unchanged();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegin").await.expect("open");
                broken_off.changed().await.expect("the test goes on");
                reset_on_close(&stream);
            }
        })
        .await;
    hosts.set_speaking(Some(AppProtocol::Http), "b2");
    for request in [GET, CHUNKED] {
        let mut client = Dialog::new(&hosts.at("a").site).await;
        client.write(request).await;
        client.read_until("begin").await;
        break_off.send_modify(|count| *count += 1);
        // A reset, or chunks without the last one.
        let is_cut = client.is_reset().await || client.read_all().await != "\r\n0\r\n\r\n";
        assert!(is_cut, "{request}");
    }
}
