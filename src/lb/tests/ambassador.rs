//! Ambassadors over real sockets: targets that refuse, hang or speak TLS.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::site::{in_time, rest};
use crate::host::sockets::{BindTo, listen_shared};
use crate::ids::{PodId, ProjectName, ServiceName};
use crate::lb::table::{AmbassadorEntry, AmbassadorKey, AmbassadorTls, AmbassadorWay, Backend, Exported, LbTable};
use crate::lb::{AmbassadorStats, Balancer, BalancerOptions};
use crate::model::{Balance, Breaker, Export};

/// A balancer with one ambassador that listens on loopback.
struct Stand {
    balancer: Balancer,
    entry: AmbassadorEntry,
    address: SocketAddr,
}

fn key() -> AmbassadorKey {
    let service = ServiceName::new("web").expect("valid");
    AmbassadorKey {
        project: ProjectName::new("shop").expect("valid"),
        pod: PodId::new(service, 1),
        name: "cache".to_owned(),
    }
}

impl Stand {
    fn new(targets: &[AmbassadorWay]) -> Self {
        let balancer = Balancer::start(BalancerOptions { threads: 2, ..BalancerOptions::default() }).expect("threads");
        let sockets = listen_shared((Ipv4Addr::LOCALHOST, 0).into(), BindTo::Present, 2).expect("listens");
        let address = sockets[0].local_addr().expect("an address");
        let entry = AmbassadorEntry {
            address: None,
            targets: targets.to_vec(),
            tls: None,
            timeout: Duration::from_millis(300),
            retries: 0,
            breaker: Breaker { failures: 2, pause: Duration::from_mins(1) },
        };
        let stand = Self { balancer, entry, address };
        stand.set(&stand.entry);
        stand.balancer.add_ambassador(key(), sockets).expect("served");
        stand
    }

    fn set(&self, entry: &AmbassadorEntry) {
        let ambassadors = BTreeMap::from([(key(), entry.clone())]);
        // A service none of whose pods is ready.
        let (project, service) = empty();
        let backend = Arc::new(Backend {
            project: project.clone(),
            service: service.clone(),
            http: BTreeMap::new(),
            balance: Balance::default(),
            endpoints: Vec::new(),
        });
        let exports = BTreeMap::from([((project, service), Exported { export: Export::All, backend })]);
        drop(self.balancer.set_table(&LbTable { ambassadors, exports, ..LbTable::default() }));
    }

    async fn ask(&self, word: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(word.as_bytes()).await?;
        stream.shutdown().await?;
        in_time(rest(&mut stream)).await
    }

    fn stats(&self) -> AmbassadorStats {
        self.balancer.ambassador_stats().pop().expect("one ambassador")
    }
}

fn empty() -> (ProjectName, ServiceName) {
    (ProjectName::new("other").expect("valid"), ServiceName::new("db").expect("valid"))
}

fn outside(address: SocketAddr) -> AmbassadorWay {
    AmbassadorWay::Outside { host: address.ip().to_string(), port: address.port() }
}

/// A server that gives back what it got, after its name.
async fn server(name: &'static str) -> AmbassadorWay {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let way = outside(listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = String::new();
                if stream.read_to_string(&mut asked).await.is_ok() {
                    stream.write_all(format!("{name} {asked}").as_bytes()).await.ok();
                }
            });
        }
    });
    way
}

/// An address where nobody listens.
async fn nobody() -> AmbassadorWay {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    outside(listener.local_addr().expect("an address"))
}

#[tokio::test]
async fn the_first_target_that_takes_the_connection_has_it() {
    let stand = Stand::new(&[nobody().await, server("second").await, server("third").await]);
    assert_eq!(stand.ask("hello").await.expect("an answer"), "second hello");
    let stats = stand.stats();
    assert!(stats.listens);
    assert_eq!((stats.connections, stats.failed), (1, 0));
    let each: Vec<(u64, u64)> = stats.targets.iter().map(|target| (target.connections, target.failed)).collect();
    assert_eq!(each, [(0, 1), (1, 0), (0, 0)]);
    assert!(stats.targets[0].last_error.as_deref().is_some_and(|error| error.contains("refused")), "{stats:?}");
}

#[tokio::test]
async fn a_target_that_fails_in_a_row_is_left_alone() {
    let stand = Stand::new(&[nobody().await, server("second").await]);
    for _ in 0..5 {
        stand.ask("hello").await.expect("an answer");
    }
    let stats = stand.stats();
    assert_eq!((stats.targets[0].failed, stats.targets[1].connections), (2, 5));
    assert!(stats.targets[0].is_open_circuit && !stats.targets[1].is_open_circuit);
}

#[tokio::test]
async fn with_no_target_left_the_client_is_reset_and_a_later_round_may_help() {
    let mut stand = Stand::new(&[nobody().await]);
    stand.ask("hello").await.expect_err("nobody took it");
    assert_eq!(stand.stats().failed, 1);
    // A free port that somebody listens on a moment later.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound").local_addr().expect("an address");
    stand.entry.targets = vec![outside(free)];
    stand.entry.retries = 20;
    stand.entry.breaker.failures = 0;
    stand.set(&stand.entry);
    let late = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let listener = TcpListener::bind(free).await.expect("still free");
        let (mut stream, _) = listener.accept().await.expect("a connection");
        rest(&mut stream).await.expect("what was asked");
        stream.write_all(b"late").await.expect("taken");
    };
    let (answer, ()) = tokio::join!(stand.ask("hello"), late);
    assert_eq!(answer.expect("an answer"), "late");
}

#[tokio::test]
async fn a_target_that_does_not_answer_costs_its_time_only() {
    // A listener whose queue is full: connects hang.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
    let full = socket.listen(1).expect("listens");
    let address = full.local_addr().expect("an address");
    let mut queued = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        queued.push(connected.expect("queued"));
    }
    let stand = Stand::new(&[outside(address), server("second").await]);
    assert_eq!(stand.ask("hello").await.expect("an answer"), "second hello");
    assert!(stand.stats().targets[0].last_error.as_deref().is_some_and(|error| error.contains("no answer within")));
}

#[tokio::test]
async fn a_service_without_a_ready_pod_costs_no_time_where_there_is_another_target() {
    let (project, service) = empty();
    let none_ready = AmbassadorWay::Exported { project, service, port: 80 };
    let mut stand = Stand::new(&[none_ready.clone(), server("second").await]);
    stand.entry.timeout = Duration::from_secs(10);
    stand.set(&stand.entry);
    let began = Instant::now();
    assert_eq!(stand.ask("hello").await.expect("an answer"), "second hello");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let stats = stand.stats();
    assert_eq!(stats.targets[0].last_error.as_deref(), Some("none of its pods is ready"));
    assert_eq!((stats.targets[0].endpoints, stats.targets[1].endpoints), (Some(0), None), "the second one is outside");
    // Where there is no other it is worth the time: a pod may come up.
    stand.entry.targets = vec![none_ready];
    stand.entry.timeout = Duration::from_millis(500);
    stand.set(&stand.entry);
    let began = Instant::now();
    stand.ask("hello").await.expect_err("nobody comes up");
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn while_all_targets_are_left_alone_nobody_waits() {
    let mut stand = Stand::new(&[nobody().await]);
    for _ in 0..2 {
        stand.ask("hello").await.expect_err("nobody took it");
    }
    assert!(stand.stats().targets[0].is_open_circuit);
    stand.entry.retries = 20;
    stand.set(&stand.entry);
    let began = Instant::now();
    stand.ask("hello").await.expect_err("nobody is asked");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(stand.stats().targets[0].failed, 2, "nobody was asked");
}

/// A server that speaks TLS as `name`, and what its clients trust.
async fn tls_server(name: &str) -> (SocketAddr, Arc<[u8]>) {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec![name.to_owned()]).expect("a name").self_signed(&key).expect("signed");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().expect("a key"))
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut asked = String::new();
                stream.read_to_string(&mut asked).await.ok();
                stream.write_all(format!("secret {asked}").as_bytes()).await.ok();
                stream.shutdown().await.ok();
            });
        }
    });
    (address, certificate.pem().into_bytes().into())
}

#[tokio::test]
async fn tls_is_spoken_to_the_far_side_whose_name_is_checked() {
    let (address, authority) = tls_server("bank.example.com").await;
    let mut stand = Stand::new(&[outside(address)]);
    let tls = |server_name: Option<&str>, authorities: Option<Arc<[u8]>>| {
        Some(AmbassadorTls { server_name: server_name.map(str::to_owned), authorities, identity: None })
    };
    stand.entry.breaker.failures = 0;
    stand.entry.timeout = Duration::from_secs(5);
    stand.entry.tls = tls(Some("bank.example.com"), Some(authority.clone()));
    stand.set(&stand.entry);
    assert_eq!(stand.ask("hello").await.expect("an answer"), "secret hello");

    for (wrong, words) in [
        (tls(Some("other.example.com"), Some(authority.clone())), "not valid for name"),
        (tls(None, Some(authority)), "not valid for name"),
        (tls(Some("bank.example.com"), Some(tls_server("bank.example.com").await.1)), "no TLS with `bank.example.com`"),
        (tls(None, Some(b"no certificate".as_slice().into())), "there is no certificate in it"),
    ] {
        stand.entry.tls = wrong;
        stand.set(&stand.entry);
        stand.ask("hello").await.expect_err("it is not trusted");
        let error = stand.stats().targets[0].last_error.clone().unwrap_or_default();
        assert!(error.contains(words), "{words} in {error}");
    }
}

#[tokio::test]
async fn another_table_changes_where_new_connections_go_and_keeps_counts() {
    let mut stand = Stand::new(&[server("one").await]);
    stand.ask("").await.expect("an answer");
    stand.entry.targets = vec![server("two").await];
    stand.set(&stand.entry);
    assert_eq!(stand.ask("").await.expect("an answer"), "two ");
    assert_eq!(stand.stats().connections, 2);
    drop(stand.balancer.set_table(&LbTable::default()));
    stand.ask("").await.expect_err("it is gone");
}
