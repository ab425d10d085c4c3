//! Datagrams through the balancer, on one host and between several in one process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::cluster::Hosts;
use super::site::{DEADLINE, Site, container, in_time, until};
use crate::graph::Protocol;
use crate::host::datagrams;
use crate::ids::{HostName, ProjectName, ResourceKey, ServiceName};
use crate::lb::BalancerOptions;
use crate::lb::table::{Published, PublishedKey};
use crate::mesh::tests::site::{ANY, host};
use crate::mesh::{Incoming, Kind, Refusal, Target, TargetDoor};

/// A program that answers each datagram with its number before it; dropping it ends the program.
struct Pod(JoinHandle<()>);

impl Pod {
    fn start(address: SocketAddr, number: u8) -> Self {
        // With room for bursts, as the balancer's own.
        let socket = datagrams::bind_shared(address, None, 1).expect("the address is this test's own").remove(0);
        let socket = UdpSocket::from_std(socket).expect("a socket");
        Self(tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                // What a client that is gone makes of an answer is its own matter.
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let text = buffer[..length].to_vec();
                let answer = if length > 60_000 { text } else { [&[b'0' + number, b' '], &text[..]].concat() };
                let _answered = socket.send_to(&answer, from).await;
            }
        }))
    }

    async fn stop(mut self) {
        self.0.abort();
        let _aborted = (&mut self.0).await;
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn pod(site: &Site, number: u8) -> Pod {
    Pod::start(site.pod_address(number), number)
}

/// A client of a published port.
struct Client(UdpSocket);

impl Client {
    fn new(server: SocketAddr) -> Self {
        // Hears that one address and port only.
        Self(UdpSocket::from_std(datagrams::connect(server).expect("a way there")).expect("a socket"))
    }

    async fn send(&self, text: &str) {
        self.0.send(text.as_bytes()).await.expect("room");
    }

    async fn hear(&self) -> String {
        let mut buffer = vec![0; 65_536];
        let length = in_time(self.0.recv(&mut buffer)).await.expect("an answer");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    async fn ask(&self, text: &str) -> String {
        self.send(text).await;
        self.hear().await
    }

    /// Asks, and says which pod answered.
    async fn who(&self) -> u8 {
        let answer = self.ask("who").await;
        answer.strip_suffix(" who").expect("the answer to this").parse().expect("a number")
    }

    async fn is_silent(&self) -> bool {
        timeout(Duration::from_millis(200), self.0.recv(&mut [0; 16])).await.is_err()
    }
}

#[tokio::test]
async fn the_first_datagram_of_any_size_is_answered() {
    let site = Site::patient().await;
    let _pod = pod(&site, 1);
    site.set(&[1]);
    for size in [0, 1, 512, 1472, 1473, 9000, 60_000, 65_507] {
        let client = Client::new(site.front);
        let text = "x".repeat(size);
        let answer = client.ask(&text).await;
        let expected = if size > 60_000 { text } else { format!("1 {text}") };
        assert!(answer == expected, "{size}: {} bytes", answer.len());
    }
    let stats = site.balancer.stats();
    assert_eq!((stats.datagrams.sessions, stats.datagrams.questions, stats.datagrams.answers), (8, 8, 8));
    assert_eq!((stats.datagrams.dropped, stats.datagrams.unserved), (0, 0));
    let pod = site.stats(1);
    assert_eq!((pod.open, pod.connected, pod.failed), (8, 8, 0));
}

#[tokio::test]
async fn a_session_keeps_its_pod_and_sessions_spread() {
    let site = Site::patient().await;
    let _pods = [pod(&site, 1), pod(&site, 2)];
    site.set(&[1, 2]);
    let mut counts = [0; 3];
    let mut clients = Vec::new();
    for _ in 0..10 {
        let client = Client::new(site.front);
        let first = client.who().await;
        for _ in 0..10 {
            assert_eq!(client.who().await, first);
        }
        counts[usize::from(first)] += 1;
        clients.push(client);
    }
    assert_eq!(counts, [0, 5, 5]);
}

#[tokio::test]
async fn a_thousand_datagrams_at_once_are_all_answered() {
    let site = Site::patient().await;
    let _pod = pod(&site, 1);
    site.set(&[1]);
    let client = Client::new(site.front);
    let mut missing: std::collections::BTreeSet<String> = (0..1000).map(|number| format!("1 {number}")).collect();
    // The client's own socket holds few: it reads while it sends.
    for number in 0..1000 {
        client.send(&number.to_string()).await;
        let mut buffer = [0; 64];
        while let Ok(length) = client.0.try_recv(&mut buffer) {
            assert!(missing.remove(&String::from_utf8_lossy(&buffer[..length]).into_owned()), "doubled");
        }
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    while !missing.is_empty() {
        let answer = client.hear().await;
        assert!(missing.remove(&answer), "{answer} came twice");
    }
    assert_eq!(site.balancer.stats().datagrams.dropped, 0);
}

#[tokio::test]
async fn what_a_pod_refuses_is_taken_by_another() {
    let site = Site::patient().await;
    // Nobody listens at the first.
    let _pod = pod(&site, 2);
    site.set(&[1, 2]);
    // All at once: the port of a client that is gone may be the next one's, and its session too.
    let clients: Vec<Client> = (0..20).map(|_| Client::new(site.front)).collect();
    for client in &clients {
        assert_eq!(client.who().await, 2);
    }
    let (dead, live) = (site.stats(1), site.stats(2));
    assert_eq!((dead.connected, dead.open, live.connected), (0, 0, 20));
    assert!((1..10).contains(&dead.failed), "marked down after a failure: {dead:?}");
    assert_eq!(site.balancer.stats().datagrams.dropped, 0);
}

#[tokio::test]
async fn a_pod_that_dies_is_left_at_the_next_datagram() {
    let site = Site::patient().await;
    let (first, second) = (pod(&site, 1), pod(&site, 2));
    site.set(&[1]);
    let client = Client::new(site.front);
    assert_eq!(client.who().await, 1);
    site.set(&[1, 2]);
    assert_eq!(client.who().await, 1, "there is no reason to leave it");
    // Its program ends: the datagram that finds that out is not lost.
    first.stop().await;
    client.send("one").await;
    client.send("two").await;
    let mut answers = [client.hear().await, client.hear().await];
    answers.sort();
    assert_eq!(answers, ["2 one", "2 two"]);
    // Its container is gone, without a word.
    drop(second);
    let _first = pod(&site, 1);
    site.set(&[1]);
    site.balancer.close_connections(&container(2));
    assert_eq!(client.who().await, 1);
}

#[tokio::test]
async fn what_a_dead_pod_did_not_answer_goes_to_another() {
    let site = Site::patient().await;
    // It takes what comes, and dies before it answers.
    let silent = UdpSocket::bind(site.pod_address(2)).await.expect("free");
    site.set(&[2]);
    let client = Client::new(site.front);
    client.send("one").await;
    client.send("two").await;
    let mut buffer = [0; 8];
    for _ in 0..2 {
        in_time(silent.recv(&mut buffer)).await.expect("passed on");
    }
    drop(silent);
    let _pod = pod(&site, 1);
    // It is not ready any more, and then it does not run any more: only now there is no answer to come.
    site.set(&[1]);
    assert!(client.is_silent().await);
    let mut table = site.table(&[1]);
    table.pods.retain(|_, pod| pod.endpoint.container != container(2));
    site.balancer.set_table(&table);
    assert_eq!([client.hear().await, client.hear().await], ["1 one", "1 two"]);
    assert_eq!(client.who().await, 1);
}

#[tokio::test]
async fn a_datagram_waits_for_a_pod_that_turns_ready() {
    let site = Site::patient().await;
    site.set(&[]);
    let client = Client::new(site.front);
    client.send("early").await;
    until(|| site.balancer.stats().datagrams.questions, |seen| *seen == 1).await;
    client.send("bird").await;
    let _pod = pod(&site, 1);
    site.set(&[1]);
    assert_eq!([client.hear().await, client.hear().await], ["1 early", "1 bird"]);
    // A container is ready before its program listens.
    let started = Client::new(site.front);
    site.set(&[2]);
    started.send("patience").await;
    until(|| site.stats(2).failed, |failed| *failed >= 2).await;
    let _pod = pod(&site, 2);
    assert_eq!(started.hear().await, "2 patience");
}

#[tokio::test]
async fn what_nobody_takes_is_dropped_in_the_end() {
    let options = BalancerOptions { hold: Duration::from_millis(100), ..BalancerOptions::default() };
    let site = Site::new(options).await;
    site.set(&[]);
    let client = Client::new(site.front);
    client.send("nobody").await;
    until(|| site.balancer.stats().datagrams, |stats| (stats.unserved, stats.sessions) == (1, 0)).await;
    assert!(client.is_silent().await);
    let _pod = pod(&site, 1);
    site.set(&[1]);
    assert_eq!(client.who().await, 1, "the next one is as good as new");
}

#[tokio::test]
async fn a_drain_lets_sessions_end_and_begins_none() {
    let site = Site::patient().await;
    let _pods = [pod(&site, 1), pod(&site, 2)];
    site.set(&[1]);
    let (asking, answered) = (Client::new(site.front), Client::new(site.front));
    assert_eq!((asking.who().await, answered.who().await), (1, 1));
    site.set(&[2]);
    let begun = Instant::now();
    let first = container(1);
    let draining = site.balancer.drain(&first, Instant::now() + DEADLINE);
    let talking = async {
        for _ in 0..15 {
            assert_eq!(asking.who().await, 1, "it goes on while it lasts");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(Client::new(site.front).who().await, 2);
    };
    let (left, ()) = in_time(async { tokio::join!(draining, talking) }).await;
    assert_eq!(left, 0);
    assert!(begun.elapsed() > Duration::from_millis(1500), "it waited for the one that went on");
    assert_eq!((asking.who().await, answered.who().await), (2, 2));
}

#[tokio::test]
async fn answers_leave_from_the_address_that_was_asked() {
    let site = Site::patient().await;
    let _pod = pod(&site, 1);
    let mut table = site.table(&[1]);
    let published: Published = table.published.values().next().expect("one").clone();
    table.published.clear();
    let free = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await.expect("a port").local_addr().expect("bound").port();
    let key = PublishedKey { host_ip: None, port: free, protocol: Protocol::Udp };
    table.published.insert(key, published);
    assert!(site.balancer.set_table(&table).is_empty());
    for address in ["127.0.0.1", "127.1.2.3", "::1"] {
        let address = SocketAddr::new(address.parse().expect("valid"), free);
        let client = Client::new(address);
        assert_eq!(client.who().await, 1, "{address}");
    }
    // Nobody else may have it, and it is free again once it is not published any more.
    UdpSocket::bind((Ipv4Addr::LOCALHOST, free)).await.expect_err("in use");
    table.published.clear();
    table.version += 1;
    site.balancer.set_table(&table);
    let deadline = Instant::now() + DEADLINE;
    while UdpSocket::bind((Ipv4Addr::LOCALHOST, free)).await.is_err() {
        assert!(Instant::now() < deadline, "it is still bound");
        tokio::task::yield_now().await;
    }
    // Sessions end with their door.
    until(|| site.balancer.stats().datagrams.sessions, |sessions| *sessions == 0).await;
}

#[tokio::test]
async fn a_port_that_somebody_has_is_told() {
    let site = Site::patient().await;
    let taken = UdpSocket::bind(site.front).await.expect("free");
    let errors = site.balancer.set_table(&site.table(&[1]));
    let keys: Vec<_> = errors.keys().collect();
    assert_eq!(keys, [&PublishedKey { protocol: Protocol::Udp, ..site.key() }]);
    drop(taken);
    assert!(site.balancer.sync_published().is_empty());
}

#[tokio::test]
async fn a_client_with_many_sessions_keeps_its_latest() {
    let site = Site::patient().await;
    let _pod = pod(&site, 1);
    site.set(&[1]);
    let other = {
        let socket = UdpSocket::bind(SocketAddr::new(IpAddr::from([127, 0, 0, 77]), 0)).await.expect("a port");
        socket.connect(site.front).await.expect("a way there");
        Client(socket)
    };
    assert_eq!(other.who().await, 1);
    let mut last = Vec::new();
    for _ in 0..2500 {
        let client = Client::new(site.front);
        assert_eq!(client.who().await, 1);
        last.push(client);
        if last.len() > 64 {
            last.remove(0);
        }
    }
    let stats = site.balancer.stats().datagrams;
    assert!(stats.evicted > 0 && stats.sessions < 2100, "{stats:?}");
    assert_eq!(stats.dropped, 0);
    // The first of the other client has been silent for longer than all of these.
    let before = site.stats(1).connected;
    assert_eq!(other.who().await, 1);
    assert_eq!(site.stats(1).connected, before, "its session is still there");
}

#[tokio::test]
async fn pods_of_other_hosts_are_reached_through_their_agents() {
    let hosts = Hosts::start(&["a", "b", "c"]).await;
    let site = &hosts.members[0].site;
    let pods = [pod(site, 1), pod(site, 2), pod(site, 3)];
    hosts.set("a1 b2 c3");
    for (at, own) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(Client::new(hosts.at(at).site.front).who().await, own, "the own pod first");
    }
    hosts.set("b2 c3");
    let front = hosts.at("a").site.front;
    let mut clients = Vec::new();
    for size in [1, 1400, 9000, 50_000] {
        for _ in 0..2 {
            let client = Client::new(front);
            let text = "x".repeat(size);
            let answer = client.ask(&text).await;
            assert!(answer.ends_with(&text) && answer.len() == size + 2, "{size}: {} bytes", answer.len());
            clients.push(client);
        }
    }
    let open = |number| hosts.stats("a", number).open;
    assert_eq!((open(2), open(3)), (4, 4));
    assert_eq!(
        (hosts.stats("b", 2).connected, hosts.stats("c", 3).connected),
        (5, 5),
        "counted where the pods are, too"
    );
    let largest = Client::new(front);
    assert_eq!(largest.ask(&"x".repeat(65_507)).await.len(), 65_507);
    // Few streams carry them all: one for each worker and host, and two workers have clients here.
    assert!(hosts.at("a").mesh.stats().dialled <= 4);
    // The program of one ends: its host says so, and the other one takes over without a loss.
    let [_, second, _] = pods;
    second.stop().await;
    for client in &clients {
        assert_eq!(client.who().await, 3);
    }
}

#[tokio::test]
async fn a_host_that_goes_takes_no_datagram_with_it_that_others_could_serve() {
    let mut hosts = Hosts::start(&["a", "b", "c"]).await;
    let site = &hosts.members[0].site;
    let _pods = [pod(site, 2), pod(site, 3)];
    hosts.set("b2");
    let front = hosts.at("a").site.front;
    let client = Client::new(front);
    assert_eq!(client.who().await, 2);
    hosts.set("b2 c3");
    hosts.members.remove(1).site.balancer.stop(Instant::now()).await;
    until(|| hosts.stats("a", 2).open, |open| *open == 0).await;
    assert_eq!(client.who().await, 3);
    for _ in 0..10 {
        assert_eq!(Client::new(front).who().await, 3);
    }
}

#[tokio::test]
async fn a_drain_waits_for_sessions_of_other_hosts() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let site = &hosts.members[0].site;
    let _pods = [pod(site, 1), pod(site, 2)];
    hosts.set("b2");
    let client = Client::new(hosts.at("a").site.front);
    assert_eq!(client.who().await, 2);
    let balancer = &hosts.at("b").site.balancer;
    assert_eq!(balancer.open_connections(&container(2)), 1);
    hosts.set("a1 ~b2");
    assert_eq!(client.who().await, 2, "it goes on");
    assert_eq!(balancer.drain(&container(2), Instant::now() + DEADLINE).await, 0);
    assert_eq!(client.who().await, 1);
}

/// What goes over a stream of datagrams: a frame of session 1.
fn frame(what: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    [&[0, 0, 0, 1, what], &length[..], content].concat()
}

#[tokio::test]
async fn only_what_the_own_table_allows_is_granted() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pod = pod(&hosts.members[0].site, 2);
    hosts.set("b2 a1");
    let network = |network: &str, source: Option<&str>| TargetDoor::Network {
        network: ResourceKey::new(network).expect("valid"),
        source: source.map(|source| ServiceName::new(source).expect("valid")),
    };
    let target = |door, port: u16, number: u8| Target {
        project: ProjectName::new("demo").expect("valid"),
        service: ServiceName::new("web").expect("valid"),
        container: container(number),
        port,
        door,
    };
    let (mesh, peer) = (hosts.at("a").mesh.clone(), hosts.at("b").addr.clone());
    let call = async |target: Target| {
        let mut stream = in_time(mesh.dial(&peer, &Kind::Datagrams)).await.expect("members may");
        let open = frame(1, &serde_json::to_vec(&target).expect("plain data"));
        in_time(stream.write_all(&[open, frame(2, b"hello")].concat())).await.expect("open");
        in_time(stream.flush()).await.expect("open");
        let mut head = [0; 7];
        in_time(stream.read_exact(&mut head)).await.expect("an answer");
        let mut content = vec![0; usize::from(u16::from_be_bytes([head[5], head[6]]))];
        in_time(stream.read_exact(&mut content)).await.expect("whole");
        (head[4], String::from_utf8_lossy(&content).into_owned())
    };
    let port = hosts.port();
    for door in [network("back", None), network("back", Some("shop")), TargetDoor::Published] {
        assert_eq!(call(target(door, port, 2)).await, (2, "2 hello".to_owned()));
    }
    for (denied, reason) in [
        (target(network("front", None), port, 2), "no network `front` here"),
        (target(network("back", Some("spy")), port, 2), "`spy` is not in network `back`"),
        (target(TargetDoor::Published, 1, 2), "does not publish its port 1"),
        (target(TargetDoor::Published, port, 9), "container-9"),
        (target(network("back", None), port, 1), "container-1"),
    ] {
        let (what, text) = call(denied).await;
        let refusal: Refusal = serde_json::from_str(&text).expect("a refusal");
        assert!(what == 4 && refusal.to_string().contains(reason), "{refusal}");
    }
    // A session that is not there is closed, whoever forgot it.
    let mut stream = in_time(mesh.dial(&peer, &Kind::Datagrams)).await.expect("members may");
    in_time(stream.write_all(&frame(2, b"lost"))).await.expect("open");
    in_time(stream.flush()).await.expect("open");
    let mut head = [0; 7];
    in_time(stream.read_exact(&mut head)).await.expect("an answer");
    assert_eq!(head, [0, 0, 0, 1, 3, 0, 0]);
    // What is no frame ends the stream, and nothing else.
    in_time(stream.write_all(&[9; 7])).await.expect("open");
    in_time(stream.flush()).await.expect("open");
    in_time(stream.read_u8()).await.expect_err("ended");
    assert_eq!(call(target(TargetDoor::Published, port, 2)).await.0, 2);
}

#[tokio::test]
async fn an_agent_that_does_not_know_datagrams_keeps_its_connections() {
    struct Older;
    impl crate::mesh::Handle for Older {
        async fn handle(&self, incoming: Incoming) {
            let _gone = incoming.refuse(&Refusal::NotUnderstood).await;
        }
    }
    let hosts = Hosts::start(&["a", "b", "c"]).await;
    let site = &hosts.members[0].site;
    let _pod = pod(site, 3);
    let old = hosts.at("b").mesh.listen(ANY, std::sync::Arc::new(Older)).expect("a free port");
    let peers = [(host("b"), old.address), (host("c"), hosts.at("c").addr.address)];
    hosts.at("a").mesh.set_peers(peers.into());
    hosts.set("b2 c3");
    for _ in 0..10 {
        assert_eq!(Client::new(hosts.at("a").site.front).who().await, 3);
    }
    let failed = hosts.stats("a", 2).failed;
    assert!((1..8).contains(&failed), "avoided for datagrams: {failed}");
}

#[tokio::test]
async fn outside_a_cluster_other_hosts_pods_get_no_datagrams() {
    let options = BalancerOptions { hold: Duration::from_millis(100), ..BalancerOptions::default() };
    let site = Site::new(options).await;
    let mut table = site.table(&[1]);
    for published in table.published.values_mut() {
        let mut backend = (*published.backend).clone();
        backend.endpoints.iter_mut().for_each(|endpoint| endpoint.host = HostName::new("b").expect("valid"));
        published.backend = std::sync::Arc::new(backend);
    }
    let _pod = pod(&site, 1);
    site.balancer.set_table(&table);
    let client = Client::new(site.front);
    client.send("hello").await;
    until(|| site.balancer.stats().datagrams.unserved, |unserved| *unserved == 1).await;
    assert!(client.is_silent().await);
}
