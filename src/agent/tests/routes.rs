//! Two projects that claim the same requests or ports: the later one is refused, and nothing changes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::api::types::{ApiError, ErrorKind, WhyQuestion};
use crate::graph::{Port, PortMode, Protocol, Scale};
use crate::model::Route;

use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Returns a port that nobody has just now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(SocketAddr::new(LOOPBACK, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

fn route(host: &str, port: u16) -> Route {
    let words = format!("host={host} listen={LOOPBACK}@{port}");
    Route { place: "compose.yaml:14:9".to_owned(), ..testing::route(&words) }
}

/// A project whose `web` has these routes and publishes these ports.
fn project(name: &str, routes: Vec<Route>, ports: &[u16]) -> Graph {
    let mut graph = graph(&["web"]);
    graph.project = ProjectName::new(name).expect("valid");
    for network in graph.networks.values_mut() {
        network.name = format!("{name}_default");
    }
    let web = graph.services.get_mut("web").expect("it is there");
    web.serving.routes = routes;
    web.ports = ports.iter().copied().map(published).collect();
    graph
}

fn published(port: u16) -> Port {
    Port {
        name: None,
        host_ip: Some(LOOPBACK),
        published: Some((port, port)),
        target: 80,
        protocol: Protocol::Tcp,
        mode: PortMode::Ingress,
    }
}

async fn up(agent: &Agent, graph: Graph) -> Result<Vec<Progress>, ApiError> {
    Ok(drain(agent.handler.up(graph.project.clone(), UpRequest::new(graph)).await?).await)
}

/// Checks that `plan` and `up` refuse it with the same words and that nothing is written; returns the first line.
async fn refused(agent: &Agent, graph: Graph) -> String {
    let stored = agent.shared.store.list("").await.expect("a list");
    let request = || UpRequest::new(graph.clone());
    let planned = agent.handler.plan(graph.project.clone(), request()).await.expect_err("refused");
    let error = agent.handler.up(graph.project.clone(), request()).await.expect_err("refused");
    assert_eq!((planned.message, error.kind), (error.message.clone(), ErrorKind::User));
    assert_eq!(agent.shared.store.list("").await.expect("a list"), stored, "nothing is written");
    let (first, help) = error.message.split_once('\n').expect("what to do about it");
    assert!(help.contains("= help: "), "{help}");
    first.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_another_project_has_is_refused_with_both_places() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let port = free_port();
    up(&agent, project("shop", vec![route("a.test", port)], &[])).await.expect("the first one");

    let other = Route { place: "compose.yaml:3:7".to_owned(), ..route("a.test", port) };
    let said = refused(&agent, project("blog", vec![other], &[])).await;
    assert_eq!(
        said,
        format!(
            "a route of service `web` (compose.yaml:3:7) and a route of service `web` of project `shop` \
             (compose.yaml:14:9) match the same requests: `a.test/*` at port {port}"
        )
    );
    let said = refused(&agent, project("blog", vec![], &[port])).await;
    assert_eq!(
        said,
        format!(
            "service `web` cannot publish port {port}/tcp on 127.0.0.1: a route of service `web` of project `shop` \
             (compose.yaml:14:9) listens there"
        )
    );
    // Another name at the same port, and the same again, are fine; so is the first name once nobody has it.
    up(&agent, project("blog", vec![route("b.test", port)], &[])).await.expect("another host");
    up(&agent, project("shop", vec![route("a.test", port)], &[])).await.expect("its own");
    up(&agent, project("shop", vec![route("c.test", port)], &[])).await.expect("another one instead");
    up(&agent, project("blog", vec![route("a.test", port), route("b.test", port)], &[])).await.expect("free by now");
    refused(&agent, project("shop", vec![route("b.test", port)], &[])).await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_others_have_is_not_for_routes() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    // A process of the host.
    let process = TcpListener::bind(SocketAddr::new(LOOPBACK, 0)).expect("a port");
    let taken = process.local_addr().expect("an address").port();
    let said = refused(&agent, project("shop", vec![route("a.test", taken)], &[])).await;
    let own = "a route of service `web` (compose.yaml:14:9) cannot listen at port";
    // The process is the test's own, as the agent is: it is not told apart, and need not be.
    assert_eq!(said, format!("{own} {taken}/tcp on 127.0.0.1: it is in use on the host"));

    let elsewhere = Route { host_ip: Some(Ipv4Addr::new(192, 0, 2, 1).into()), ..route("a.test", taken) };
    let said = refused(&agent, project("shop", vec![elsewhere], &[])).await;
    assert_eq!(said, format!("{own} {taken}/tcp on 192.0.2.1: there is no such address on the host"));

    let port = free_port();
    up(&agent, project("shop", vec![], &[port])).await.expect("published");
    let said = refused(&agent, project("blog", vec![route("a.test", port)], &[])).await;
    assert_eq!(said, format!("{own} {port}/tcp on 127.0.0.1: service `web` of project `shop` publishes it"));

    // The same project may turn one into the other: it has the port.
    up(&agent, project("shop", vec![route("a.test", port)], &[])).await.expect("a route instead");
    up(&agent, project("shop", vec![], &[port])).await.expect("and back");
    drop(process);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_is_refused() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let port = free_port();
    let names = ["one", "two", "three", "four"];
    let wishes = names.map(|name| up(&agent, project(name, vec![route("a.test", port)], &[])));
    let answers = futures_util::future::join_all(wishes).await;
    let refused: Vec<&ApiError> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert_eq!(refused.len(), names.len() - 1, "{answers:#?}");
    assert!(refused.iter().all(|error| error.message.contains("match the same requests")), "{refused:#?}");
    assert_eq!(agent.shared.projects().len(), 1, "nothing is left of the others");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_routes_are_open_whatever_the_firewall_says() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let port = free_port();
    up(&agent, project("shop", vec![route("a.test", port)], &[])).await.expect("up");
    let (spec, _) = agent.shared.dataplane.wanted(&agent.shared).await;
    assert!(spec.published.iter().any(|open| (open.host_ip, open.port) == (Some(LOOPBACK), port)), "{spec:#?}");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_asks_nothing_of_the_engine_is_in_the_tables_when_up_is_done() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let port = free_port();
    for host in ["a.example.com", "b.example.com", "c.example.com"] {
        let events = up(&agent, project("shop", vec![route(host, port)], &[])).await.expect("accepted");
        assert!(is_done(&events), "{events:#?}");
        let routes = agent.shared.dataplane.balancer_stats().routes;
        let names: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(names, [format!("{host}/*")]);
    }
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_host_alone_saw_is_told_however_a_service_is_named() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let (port, published) = (free_port(), free_port());
    let mut without_pods = project("shop", vec![route("a.test", port)], &[published]);
    without_pods.services.get_mut("web").expect("it is there").scale = Scale::Replicas(0);
    up(&agent, without_pods).await.expect("up");
    let mut stream = tokio::net::TcpStream::connect((LOOPBACK, port)).await.expect("it listens");
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("open");
    let mut answer = String::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await;
    read.expect("in time").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let why = async |about: &str, only_here| {
        let question = WhyQuestion { about: about.to_owned(), only_here };
        let told = agent.handler.why(shop(), question).await.expect("it is there");
        told.findings.into_iter().map(|finding| finding.text).collect::<Vec<_>>()
    };
    for about in ["web", &published.to_string(), "a.test"] {
        let (all, here) = (why(about, false).await, why(about, true).await);
        assert!(here.iter().any(|text| text.contains("that came to this host")), "{about}: {here:#?}");
        let is_known_everywhere = |text: &String| text.contains("no pod of `web` is wanted");
        assert!(all.iter().any(is_known_everywhere) && !here.iter().any(is_known_everywhere), "{about}: {here:#?}");
    }
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_nobody_asked_for_may_lack_its_port() {
    let (engine, dir) = (engine(), tempfile::tempdir().expect("a directory"));
    let agent = Agent::start(&engine, dir.path()).await;
    let busy = TcpListener::bind((LOOPBACK, 0)).expect("a port");
    let mut graph = graph(&["db", "web"]);
    let port = published(busy.local_addr().expect("an address").port());
    graph.services.get_mut("web").expect("it is there").ports = vec![port];
    let mut only = UpRequest::new(graph.clone());
    only.options.services = vec![service_name("db")];
    let events = drain(agent.handler.up(shop(), only).await.expect("accepted")).await;
    assert!(is_done(&events), "{events:#?}");
    let error = up(&agent, graph.clone()).await.expect_err("somebody has the port");
    assert!(error.message.contains("in use"), "{error:?}");
    drop(busy);
    let events = up(&agent, graph).await.expect("the port is free");
    assert!(is_done(&events), "{events:#?}");
    agent.kill().await;
}
