//! Balancers of several hosts in one process, over real TLS on loopback.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::site::{DEADLINE, Pod, Site, ask, container, in_time, refusal, rest, until};
use crate::host::sockets::{BindTo, listen_shared, reset_on_close};
use crate::ids::{HostName, PodId, ProjectName, ResourceKey, ServiceName};
use crate::lb::table::{
    AmbassadorEntry, AmbassadorKey, AmbassadorWay, Backend, Endpoint, Exported, LbTable, NetworkId, PodAddress,
    Published, Vip,
};
use crate::lb::{BalancerOptions, EndpointStats};
use crate::mesh::tests::site::{ANY, Cluster, chain, host};
use crate::mesh::{Incoming, Kind, Mesh, PeerAddr, Target, TargetDoor};
use crate::model::{Algorithm, AppProtocol, Balance, Breaker, Export, HashKey};

/// A host of a cluster: a balancer, its way to the others, and where it listens for them.
pub(super) struct Member {
    name: &'static str,
    pub(super) site: Site,
    pub(super) mesh: Mesh,
    pub(super) addr: PeerAddr,
    control: mpsc::Receiver<Incoming>,
}

/// Hosts that know each other, and pods that are told to be on one of them each.
pub(super) struct Hosts {
    cluster: Cluster,
    pub(super) members: Vec<Member>,
}

impl Hosts {
    pub(super) async fn start(names: &[&'static str]) -> Self {
        let cluster = Cluster::new();
        let mut members = Vec::new();
        for name in names {
            let options = BalancerOptions { own_host: host(name), hold: DEADLINE, ..BalancerOptions::default() };
            let (site, mesh) = (Site::new(options).await, cluster.mesh(name));
            let (sender, control) = mpsc::channel(1);
            let address = site.balancer.join(mesh.clone(), ANY, sender).expect("a free port");
            members.push(Member { name, site, mesh, addr: PeerAddr { host: host(name), address }, control });
        }
        let peers: BTreeMap<_, _> = members.iter().map(|m| (m.addr.host.clone(), m.addr.address)).collect();
        for member in &members {
            member.mesh.set_peers(peers.clone());
        }
        Self { cluster, members }
    }

    pub(super) fn at(&self, name: &str) -> &Member {
        self.members.iter().find(|member| member.name == name).expect("a member")
    }

    /// Where all pods listen, each on an address of the first member's.
    pub(super) fn port(&self) -> u16 {
        self.members[0].site.target
    }

    async fn echo(&self, number: u8) -> Pod {
        self.members[0].site.echo(number).await
    }

    /// The site whose addresses pods have.
    pub(super) fn pods(&self) -> &Site {
        &self.members[0].site
    }

    /// Gives every member the same pods, `a1 b2`: pod 1 on host a, pod 2 on host b. With `~b3` pod 3 runs, but is not
    /// ready.
    #[track_caller]
    pub(super) fn set(&self, pods: &str) {
        self.set_speaking(None, pods);
    }

    /// The same, with pods that are balanced by request.
    #[track_caller]
    pub(super) fn set_speaking(&self, protocol: Option<AppProtocol>, pods: &str) {
        self.set_balanced(protocol, &Balance::default(), pods);
    }

    /// The same, chosen in this way.
    #[track_caller]
    fn set_balanced(&self, protocol: Option<AppProtocol>, balance: &Balance, pods: &str) {
        let service = ServiceName::new("web").expect("valid");
        let endpoint = |word: &str| {
            let (on, number) = word.trim_start_matches('~').split_at(1);
            let number: u8 = number.parse().expect("a number");
            let IpAddr::V4(address) = self.members[0].site.pod_address(number).ip() else { unreachable!("IPv4") };
            let pod = PodId::new(service.clone(), u32::from(number));
            Endpoint { pod, container: container(number), host: host(on), address }
        };
        let project = ProjectName::new("demo").expect("valid");
        let (ready, all) = (pods.split_whitespace().filter(|word| !word.starts_with('~')), pods.split_whitespace());
        let endpoints = ready.map(endpoint).collect();
        let http = protocol.map(|protocol| (self.port(), protocol)).into_iter().collect();
        let (service, balance) = (service.clone(), balance.clone());
        let backend = Arc::new(Backend { project: project.clone(), service, http, balance, endpoints });
        let network = NetworkId { project, network: ResourceKey::new("back").expect("valid") };
        let pod = |endpoint: Endpoint| (endpoint.address, PodAddress { network: network.clone(), endpoint });
        let vip = |backend: &Arc<Backend>| Vip { network: network.clone(), backend: Arc::clone(backend) };
        let caller =
            Backend { service: ServiceName::new("shop").expect("valid"), endpoints: vec![], ..(*backend).clone() };
        for member in &self.members {
            let published = Published { target: self.port(), backend: Arc::clone(&backend) };
            let table = LbTable {
                version: member.site.table(&[]).version,
                vips: BTreeMap::from([
                    (Ipv4Addr::new(10, 0, 0, 1), vip(&backend)),
                    (Ipv4Addr::new(10, 0, 0, 2), vip(&Arc::new(caller.clone()))),
                ]),
                published: member.site.keys().map(|key| (key, published.clone())).into(),
                pods: all.clone().map(endpoint).map(pod).collect(),
                ambassadors: BTreeMap::from([0, 1].map(|above| (stand_in(above), self.leads_to(above)))),
                exports: BTreeMap::from([exported(&backend, &[self.port()])]),
                ..LbTable::default()
            };
            let errors = member.site.balancer.set_table(&table);
            assert!(errors.is_empty(), "{errors:?}");
        }
    }

    /// Where the ambassadors lead: to the port that is exported, and to the one above it, which the other host's agent is asked
    /// for only where the caller takes it for exported, too.
    fn leads_to(&self, above: u16) -> AmbassadorEntry {
        let (project, service) = (ProjectName::new("demo").expect("valid"), ServiceName::new("web").expect("valid"));
        AmbassadorEntry {
            address: None,
            targets: vec![AmbassadorWay::Exported { project, service, port: self.port() + above }],
            tls: None,
            timeout: Duration::from_secs(2),
            retries: 0,
            breaker: Breaker { failures: 0, pause: DEADLINE },
        }
    }

    /// Asks at one host, on a connection of its own that ends cleanly.
    async fn ask(&self, at: &str, word: &str) -> std::io::Result<String> {
        let mut client = self.at(at).site.connect().await;
        in_time(ask(&mut client, word)).await?;
        client.shutdown().await?;
        in_time(rest(&mut client)).await
    }

    pub(super) fn stats(&self, at: &str, number: u8) -> EndpointStats {
        self.at(at).site.stats(number)
    }
}

fn stand_in(above: u16) -> AmbassadorKey {
    let (project, service) = (ProjectName::new("front").expect("valid"), ServiceName::new("app").expect("valid"));
    AmbassadorKey { project, pod: PodId::new(service, 1), name: format!("back-{above}") }
}

fn exported(backend: &Arc<Backend>, ports: &[u16]) -> ((ProjectName, ServiceName), Exported) {
    let key = (backend.project.clone(), backend.service.clone());
    (key, Exported { export: Export::Ports(ports.to_vec()), backend: Arc::clone(backend) })
}

#[tokio::test]
async fn what_another_project_exports_is_reached_on_other_hosts_and_checked_there() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pod = hosts.echo(2).await;
    hosts.set("b2");
    let here = &hosts.at("a").site.balancer;
    let listen = |above: u16| {
        let sockets = listen_shared((Ipv4Addr::LOCALHOST, 0).into(), BindTo::Present, 2).expect("listens");
        let address = sockets[0].local_addr().expect("an address");
        here.add_ambassador(stand_in(above), sockets).expect("served");
        address
    };
    let [open, closed] = [0, 1].map(listen);
    let mut client = TcpStream::connect(open).await.expect("listens");
    assert_eq!(in_time(ask(&mut client, "hello")).await.expect("served"), "hello");
    assert_eq!(hosts.stats("b", 2).connected, 1, "by the other host");
    assert_eq!(refusal(closed).await, ErrorKind::ConnectionReset, "it is not exported");
    assert_eq!(here.stats().denied, 0, "nobody was asked for it");
    // The other host's own table decides, whatever the caller's says.
    let there = &hosts.at("b").site;
    drop(there.balancer.set_table(&LbTable { exports: BTreeMap::new(), ..there.table(&[2]) }));
    assert_eq!(refusal(open).await, ErrorKind::ConnectionReset, "it is exported no longer");
    assert!(here.stats().denied > 0, "the other host denied it");
}

#[tokio::test]
async fn local_pods_come_first_and_others_take_over() {
    let hosts = Hosts::start(&["a", "b", "c"]).await;
    let pods = [hosts.echo(1).await, hosts.echo(2).await, hosts.echo(3).await];
    hosts.set("a1 b2 c3");
    for at in ["a", "b", "c"] {
        for _ in 0..10 {
            hosts.ask(at, "hello").await.expect("served");
        }
    }
    let connected = |at, number| hosts.stats(at, number).connected;
    assert_eq!([connected("a", 1), connected("a", 2), connected("a", 3)], [10, 0, 0]);
    assert_eq!([connected("b", 2), connected("c", 3)], [10, 10]);
    // The program of the local pod is gone, its container is still in the table.
    let [first, ..] = pods;
    first.stop().await;
    for _ in 0..20 {
        hosts.ask("a", "hello").await.expect("served elsewhere");
    }
    assert_eq!(connected("a", 2) + connected("a", 3), 20);
    // And out of the table: both others share.
    hosts.set("b2 c3");
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut client = hosts.at("a").site.connect().await;
        in_time(ask(&mut client, "hello")).await.expect("served");
        open.push(client);
    }
    assert_eq!((hosts.stats("a", 2).open, hosts.stats("a", 3).open), (5, 5));
    assert_eq!((hosts.stats("b", 2).open, hosts.stats("c", 3).open), (5, 5), "counted where the pods are");
}

#[tokio::test]
async fn hosts_with_shares_get_them_from_everywhere() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pods = [hosts.echo(1).await, hosts.echo(2).await];
    let weights = |a: u32, b: u32| Balance {
        algorithm: Algorithm::RoundRobin,
        weights: BTreeMap::from([(host("a"), a), (host("b"), b)]),
        ..Balance::default()
    };
    hosts.set_balanced(None, &weights(25, 75), "a1 b2");
    for at in ["a", "b"].repeat(20) {
        hosts.ask(at, "hello").await.expect("served");
    }
    // Of those next door, that no other host's clients are counted with.
    let there = |at, number| hosts.stats(at, number).connected;
    assert!((14..=16).contains(&there("a", 2)) && (4..=6).contains(&there("b", 1)));
    // A share of none is only for when nobody else is there, also next door.
    hosts.set_balanced(None, &weights(0, 1), "a1 b2");
    let before = there("a", 2);
    for _ in 0..10 {
        hosts.ask("a", "hello").await.expect("served");
    }
    assert_eq!(there("a", 2), before + 10);
    hosts.set_balanced(None, &weights(0, 1), "a1");
    let before = there("b", 1);
    hosts.ask("b", "hello").await.expect("served");
    assert_eq!(there("b", 1), before + 1);
}

#[tokio::test]
async fn a_key_finds_the_same_pod_from_every_host() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pods = [hosts.echo(1).await, hosts.echo(2).await];
    let balance = Balance { algorithm: Algorithm::Hash(HashKey::Source), ..Balance::default() };
    hosts.set_balanced(None, &balance, "a1 b2");
    for at in ["a", "b"].repeat(5) {
        hosts.ask(at, "hello").await.expect("served");
    }
    // Both clients are of one address.
    let taken = [("a", 1), ("b", 1), ("a", 2), ("b", 2)].map(|(at, number)| hosts.stats(at, number).connected > 0);
    assert!(taken == [true, true, false, false] || taken == [false, false, true, true], "{taken:?}");
}

#[tokio::test]
async fn a_remote_pod_that_refuses_is_told_apart_from_its_host() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pod = hosts.echo(3).await;
    hosts.set("b2 b3");
    for _ in 0..50 {
        hosts.ask("a", "hello").await.expect("the other pod of the host serves");
    }
    let (dead, live) = (hosts.stats("a", 2), hosts.stats("a", 3));
    assert_eq!((dead.connected, live.connected), (0, 50));
    assert!((1..25).contains(&dead.failed), "marked down after a failure: {dead:?}");
    assert_eq!(hosts.at("a").site.balancer.stats().denied, dead.failed);
}

#[tokio::test]
async fn connections_through_the_tunnel_share_few_handshakes() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pod = hosts.echo(2).await;
    hosts.set("b2");
    for _ in 0..200 {
        hosts.ask("a", "hello").await.expect("served");
    }
    let stats = hosts.at("a").mesh.stats();
    assert!(stats.dialled <= 6, "one or two for each thread: {stats:?}");
    assert_eq!(stats.dialled + stats.reused, 200);
    let began = Instant::now();
    let Hosts { members, .. } = hosts;
    for member in members {
        member.site.balancer.stop(Instant::now() + DEADLINE).await;
    }
    assert!(began.elapsed() < DEADLINE / 2, "kept connections do not hold up the end");
}

#[tokio::test]
async fn ends_and_resets_go_through_the_tunnel() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let site = &hosts.members[0].site;
    let _pod = site
        .pod(2, |mut stream: TcpStream| async move {
            let asked = rest(&mut stream).await;
            if let Ok(asked) = asked {
                stream.write_all(format!("heard {asked}").as_bytes()).await.expect("the other half is open");
            }
        })
        .await;
    hosts.set("b2");
    let mut client = site.connect().await;
    client.write_all(b"all").await.expect("open");
    client.shutdown().await.expect("open");
    assert_eq!(in_time(rest(&mut client)).await.expect("answered"), "heard all");

    let (ended, mut end) = mpsc::channel(1);
    let _pod = site
        .pod(3, move |mut stream: TcpStream| {
            let ended = ended.clone();
            async move {
                let first = stream.read_u8().await.expect("sent");
                if first == b'r' {
                    reset_on_close(&stream);
                    return;
                }
                stream.write_u8(first).await.expect("open");
                let error = stream.read_u8().await.expect_err("reset");
                ended.send(error.kind()).await.expect("the test waits");
            }
        })
        .await;
    hosts.set("b3");
    let mut client = site.connect().await;
    client.write_all(b"r").await.expect("open");
    assert_eq!(in_time(client.read_u8()).await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    let mut client = site.connect().await;
    assert_eq!(in_time(ask(&mut client, "?")).await.expect("echo"), "?");
    reset_on_close(&client);
    drop(client);
    assert_eq!(in_time(end.recv()).await, Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn bulk_goes_through_the_tunnel_unchanged() {
    const TOTAL: usize = 16 << 20;
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pod = hosts.echo(2).await;
    hosts.set("b2");
    let (mut read, mut write) = hosts.at("a").site.connect().await.into_split();
    let bulk: Vec<u8> = (0..TOTAL).map(|n| (n % 65_521).to_le_bytes()[0]).collect();
    let sent = bulk.clone();
    let sender = tokio::spawn(async move {
        write.write_all(&sent).await?;
        write.shutdown().await
    });
    let mut back = Vec::new();
    in_time(read.read_to_end(&mut back)).await.expect("whole");
    sender.await.expect("no panic").expect("open");
    assert!(back == bulk);
    let (here, there) = (hosts.stats("a", 2), hosts.stats("b", 2));
    assert_eq!((here.sent, here.received, there.sent, there.received), {
        let total = TOTAL as u64;
        (total, total, total, total)
    });
}

#[tokio::test]
async fn a_drain_waits_for_connections_of_other_hosts() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pod = hosts.echo(2).await;
    hosts.set("b2");
    let mut client = hosts.at("a").site.connect().await;
    in_time(ask(&mut client, "hello")).await.expect("served");
    let balancer = &hosts.at("b").site.balancer;
    assert_eq!(balancer.open_connections(&container(2)), 1);
    hosts.set("");
    assert_eq!(balancer.drain(&container(2), Instant::now() + Duration::from_millis(100)).await, 1);
    in_time(ask(&mut client, "still there")).await.expect("goes on");
    client.shutdown().await.expect("open");
    in_time(rest(&mut client)).await.expect("ends");
    assert_eq!(balancer.drain(&container(2), Instant::now() + DEADLINE).await, 0);
}

#[tokio::test]
async fn a_host_that_goes_takes_its_connections_only_and_others_serve() {
    let mut hosts = Hosts::start(&["a", "b", "c"]).await;
    let _pods = [hosts.echo(2).await, hosts.echo(3).await];
    hosts.set("b2");
    let mut lost = hosts.at("a").site.connect().await;
    in_time(ask(&mut lost, "hello")).await.expect("served");
    hosts.set("b2 c3");
    let gone = hosts.members.remove(1);
    gone.site.balancer.stop(Instant::now()).await;
    let error = in_time(lost.read_u8()).await.expect_err("its host is gone");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    for _ in 0..30 {
        hosts.ask("a", "hello").await.expect("another host serves");
    }
    let failed = hosts.stats("a", 2).failed;
    assert!((1..15).contains(&failed), "the host is marked down: {failed}");
    assert_eq!(hosts.stats("a", 3).connected, 30);
}

#[tokio::test]
async fn only_what_the_own_table_allows_is_granted() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pod = hosts.echo(2).await;
    hosts.set("b2 a1");
    let caller = &hosts.at("a").mesh;
    let network = |network: &str, source: Option<&str>| TargetDoor::Network {
        network: ResourceKey::new(network).expect("valid"),
        source: source.map(|source| ServiceName::new(source).expect("valid")),
    };
    let target = |door| Target {
        project: ProjectName::new("demo").expect("valid"),
        service: ServiceName::new("web").expect("valid"),
        container: container(2),
        port: hosts.port(),
        door,
    };
    let call = |mesh: Mesh, target: Target| {
        let peer = hosts.at("b").addr.clone();
        async move { in_time(mesh.dial(&peer, &Kind::Tcp(target))).await.map_err(|error| chain(&error)) }
    };
    for door in [network("back", None), network("back", Some("shop")), TargetDoor::Published] {
        call(caller.clone(), target(door)).await.expect("granted");
    }
    let published = target(TargetDoor::Published);
    let web = || ServiceName::new("shop").expect("valid");
    for (denied, reason) in [
        (target(network("front", None)), "no network `front` here"),
        (target(network("back", Some("spy"))), "`spy` is not in network `back`"),
        (Target { port: 1, ..published.clone() }, "does not publish its port 1"),
        (Target { service: web(), ..published.clone() }, "`shop` may not be reached so: it does not publish"),
        (Target { container: container(9), ..published.clone() }, "container container-9 is no endpoint there"),
        (Target { container: container(1), ..published.clone() }, "container container-1 is no endpoint there"),
        (Target { project: ProjectName::new("other").expect("valid"), ..published.clone() }, "does not publish"),
    ] {
        let error = call(caller.clone(), denied).await.expect_err("denied");
        assert!(error.contains(reason), "{error}");
    }
    let stranger = hosts.cluster.mesh("d");
    let error = call(stranger, published).await.expect_err("denied");
    assert!(error.contains("does not know this host as a member"), "{error}");
}

#[tokio::test]
async fn by_its_own_address_a_pod_need_not_be_ready() {
    let hosts = Hosts::start(&["a", "b"]).await;
    let _pods = [hosts.echo(1).await, hosts.echo(2).await];
    hosts.set("a1 ~b2");
    let call = |number, network: &str, source: Option<&str>| {
        let door = TargetDoor::Pod {
            network: ResourceKey::new(network).expect("valid"),
            source: source.map(|source| ServiceName::new(source).expect("valid")),
        };
        let target = Target {
            project: ProjectName::new("demo").expect("valid"),
            service: ServiceName::new("web").expect("valid"),
            container: container(number),
            port: hosts.port(),
            door,
        };
        let (mesh, peer) = (hosts.at("a").mesh.clone(), hosts.at("b").addr.clone());
        async move { in_time(mesh.dial(&peer, &Kind::Tcp(target))).await.map_err(|error| chain(&error)) }
    };
    let mut stream = call(2, "back", Some("shop")).await.expect("granted");
    in_time(stream.write_all(b"hello")).await.expect("open");
    in_time(stream.flush()).await.expect("open");
    let mut answer = [0; 5];
    in_time(stream.read_exact(&mut answer)).await.expect("echo");
    let balancer = &hosts.at("b").site.balancer;
    assert_eq!(balancer.open_connections(&container(2)), 1, "a drain waits for it");
    for (number, network, source, reason) in [
        (2, "back", Some("spy"), "`spy` is not in network `back`"),
        (2, "front", None, "no network `front` here"),
        (1, "back", None, "container container-1 is no endpoint there"),
        (9, "back", None, "container container-9 is no endpoint there"),
    ] {
        let error = call(number, network, source).await.map(drop).expect_err("denied");
        assert!(error.contains(reason), "{error}");
    }
    // It has ended, without a word.
    hosts.set("a1");
    balancer.close_connections(&container(2));
    assert_eq!(in_time(stream.read_u8()).await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    call(2, "back", None).await.map(drop).expect_err("gone");
}

#[tokio::test]
async fn agents_conversations_are_handed_over_as_far_as_there_is_room() {
    let mut hosts = Hosts::start(&["a", "b"]).await;
    let peer = hosts.at("b").addr.clone();
    let caller = hosts.at("a").mesh.clone();
    let (first, second) = tokio::join!(async { in_time(caller.dial(&peer, &Kind::Control)).await }, async {
        let member = hosts.members.iter_mut().find(|member| member.name == "b").expect("a member");
        let incoming = in_time(member.control.recv()).await.expect("handed over");
        assert_eq!(incoming.peer, host("a"));
        incoming.accept().await
    });
    let (mut here, mut there) = (first.expect("granted"), second.expect("the peer is there"));
    here.write_all(b"line").await.expect("open");
    here.flush().await.expect("open");
    let mut heard = [0; 4];
    in_time(there.read_exact(&mut heard)).await.expect("sent");
    assert_eq!(&heard, b"line");
    // One more waits to be taken, the next is refused.
    let waiting = tokio::spawn({
        let (caller, peer) = (caller.clone(), peer.clone());
        async move { caller.dial(&peer, &Kind::Control).await.is_ok() }
    });
    let control = &hosts.at("b").control;
    until(|| control.len(), |waiting| *waiting == 1).await;
    let error = chain(&in_time(caller.dial(&peer, &Kind::Control)).await.expect_err("full"));
    assert!(error.contains("too many agents call"), "{error}");
    waiting.abort();
}

#[tokio::test]
async fn outside_a_cluster_other_hosts_pods_are_not_served() {
    let options = BalancerOptions { hold: Duration::from_millis(100), ..BalancerOptions::default() };
    let site = Site::new(options).await;
    let mut table = site.table(&[1]);
    for published in table.published.values_mut() {
        let mut backend = (*published.backend).clone();
        backend.endpoints.iter_mut().for_each(|endpoint| endpoint.host = HostName::new("b").expect("valid"));
        published.backend = Arc::new(backend);
    }
    let _pod = site.echo(1).await;
    site.balancer.set_table(&table);
    assert_eq!(super::site::refusal(site.front).await, ErrorKind::ConnectionReset);
}
