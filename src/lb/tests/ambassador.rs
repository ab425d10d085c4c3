//! Ambassadors over real sockets: targets that refuse, hang or speak TLS.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::site::{in_time, rest, until};
use crate::host::sockets::{BindTo, listen_shared};
use crate::ids::{HostName, PodId, ProjectName, ServiceName};
use crate::lb::table::{
    AmbassadorEntry, AmbassadorKey, AmbassadorTls, AmbassadorWay, Backend, Endpoint, Exported, LbTable,
};
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
        Self::with(targets, BalancerOptions::default())
    }

    fn with(targets: &[AmbassadorWay], options: BalancerOptions) -> Self {
        let balancer = Balancer::start(BalancerOptions { threads: 2, ..options }).expect("threads");
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
        self.set_ready(entry, Vec::new());
    }

    /// As [`Self::set`], where these pods of the service are ready.
    fn set_ready(&self, entry: &AmbassadorEntry, endpoints: Vec<Endpoint>) {
        let ambassadors = BTreeMap::from([(key(), entry.clone())]);
        let (project, service) = empty();
        let backend = Arc::new(Backend {
            project: project.clone(),
            service: service.clone(),
            http: BTreeMap::new(),
            balance: Balance::default(),
            endpoints,
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

/// In a circle each connection makes another one.
#[tokio::test]
async fn an_ambassador_that_leads_to_itself_ends_what_comes_and_serves_on() {
    let options = BalancerOptions { max_connections: 64, ..BalancerOptions::default() };
    let mut stand = Stand::with(&[server("the server").await], options);
    let served = stand.entry.targets.clone();
    stand.entry.targets = vec![outside(stand.address)];
    stand.set(&stand.entry);
    // Whether it is reset or ended, it does not hang.
    drop(stand.ask("hello").await);
    let stats = until(|| stand.stats(), |stats| stats.open == 0).await;
    assert!(stats.connections > 16 && stats.failed > 0, "{stats:?}");
    let error = stats.targets[0].last_error.as_deref().unwrap_or_default();
    assert!(error.contains("does it lead back to itself?"), "{error}");
    stand.entry.targets = served;
    stand.set(&stand.entry);
    assert_eq!(stand.ask("hello").await.expect("an answer"), "the server hello");
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
async fn who_comes_when_a_pod_is_ready_again_is_not_sent_away_for_the_pause() {
    let AmbassadorWay::Outside { port, .. } = server("the pod").await else { unreachable!("it is outside") };
    let (project, service) = empty();
    let stand = Stand::new(&[AmbassadorWay::Exported { project, service: service.clone(), port }]);
    for _ in 0..2 {
        stand.ask("hello").await.expect_err("nobody is there");
    }
    assert!(stand.stats().targets[0].is_open_circuit);
    let endpoint = Endpoint {
        pod: PodId::new(service, 1),
        container: "c1".to_owned(),
        host: HostName::local(),
        address: Ipv4Addr::LOCALHOST,
    };
    stand.set_ready(&stand.entry, vec![endpoint]);
    let target = stand.stats().targets.remove(0);
    assert_eq!((target.is_open_circuit, target.last_error), (false, None), "it is over");
    assert_eq!(stand.ask("hello").await.expect("an answer"), "the pod hello");
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

/// What a server shows: its certificate, the key, and what its clients trust.
struct Shown {
    certificate: Certificate,
    key: KeyPair,
    ca: Vec<u8>,
}

/// What `change` makes of a certificate for a name, signed by itself.
fn by_itself(change: impl FnOnce(&mut CertificateParams)) -> Shown {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![BANK.to_owned()]).expect("a name");
    change(&mut params);
    let certificate = params.self_signed(&key).expect("signed");
    let ca = certificate.pem().into_bytes();
    Shown { certificate, key, ca }
}

/// The same, signed by an authority.
fn by_authority(change: impl FnOnce(&mut CertificateParams)) -> Shown {
    let mut authority = CertificateParams::new(Vec::new()).expect("no name");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    let authority_key = KeyPair::generate().expect("a key");
    let ca = authority.self_signed(&authority_key).expect("signed").pem().into_bytes();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![BANK.to_owned()]).expect("a name");
    change(&mut params);
    Shown { certificate: params.signed_by(&key, &issuer).expect("signed"), key, ca }
}

/// How a server speaks TLS, which asks for a certificate of one of `clients` if there are any.
fn tls_config(
    shown: &Shown,
    clients: Option<&Shown>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(&clients.ca).expect("a certificate")).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("roots"))
        }
    };
    let chain = vec![shown.certificate.der().clone()];
    let key = shown.key.serialize_der().try_into().expect("a key");
    Arc::new(builder.with_single_cert(chain, key).expect("a pair"))
}

/// A server that speaks TLS, and asks for a certificate of one of `clients` if there are any.
async fn tls_server(shown: &Shown, clients: Option<&Shown>) -> SocketAddr {
    let acceptor = TlsAcceptor::from(tls_config(shown, clients, rustls::DEFAULT_VERSIONS));
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
    address
}

/// A server of TLS 1.2 that greets, and resets one connection at what its client answers: so the last word of one that refuses
/// is lost with what it did not read.
fn tls_server_that_resets(shown: &Shown, clients: Option<&Shown>) -> SocketAddr {
    let config = tls_config(shown, clients, &[&rustls::version::TLS12]);
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut tls = rustls::ServerConnection::new(config).expect("a server");
        while !tls.wants_write() {
            tls.read_tls(&mut stream).expect("a greeting");
            tls.process_new_packets().expect("TLS");
        }
        while tls.wants_write() {
            tls.write_tls(&mut stream).expect("taken");
        }
        assert!(stream.peek(&mut [0]).expect("an answer") > 0);
    });
    address
}

/// Whom the certificates of tests name.
const BANK: &str = "bank.example.com";

impl Stand {
    /// Speaks TLS to one target from now on.
    fn speak(&mut self, target: SocketAddr, server_name: Option<&str>, ca: Option<&[u8]>, own: Option<&Shown>) {
        let pem = |shown: &Shown| {
            (shown.certificate.pem().into_bytes().into(), shown.key.serialize_pem().into_bytes().into())
        };
        let server_name = server_name.map(str::to_owned);
        let tls = AmbassadorTls { server_name, authorities: ca.map(Into::into), identity: own.map(pem) };
        self.entry.targets = vec![outside(target)];
        (self.entry.tls, self.entry.timeout, self.entry.breaker.failures) = (Some(tls), Duration::from_secs(5), 0);
        self.set(&self.entry);
    }

    /// What is told of the one target.
    fn told(&self) -> String {
        self.stats().targets[0].last_error.clone().unwrap_or_default()
    }
}

#[tokio::test]
async fn tls_is_spoken_to_the_far_side_whose_name_is_checked() {
    let mut stand = Stand::new(&[]);
    let as_authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let signed = by_authority(|_| ());
    let itself = Shown { ca: signed.certificate.pem().into_bytes(), ..by_authority(|_| ()) };
    // By whom it is signed; by itself, as `openssl req -x509` does it, too; and one that is given although another signed it.
    for shown in [&signed, &by_itself(|_| ()), &by_itself(as_authority)] {
        let address = tls_server(shown, None).await;
        let pinned = shown.certificate.pem().into_bytes();
        for ca in [&shown.ca, &pinned, &[shown.ca.as_slice(), &itself.ca].concat()] {
            stand.speak(address, Some(BANK), Some(ca), None);
            assert_eq!(stand.ask("hello").await.expect("an answer"), "secret hello");
            for name in [Some("other.example.com"), None] {
                stand.speak(address, name, Some(ca), None);
                stand.ask("hello").await.expect_err("it has another name");
                assert!(
                    stand
                        .told()
                        .ends_with("its certificate is for bank.example.com: `server_name` says which one is meant"),
                    "{}",
                    stand.told()
                );
            }
        }
    }
}

#[tokio::test]
async fn who_is_not_trusted_is_told_with_what_to_do() {
    let mut stand = Stand::new(&[]);
    let past = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 2, 3);
    let future = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(2400, 2, 3);
    let as_authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let past_itself = by_itself(|params| {
        past(params);
        as_authority(params);
    });
    let nameless = by_authority(|params| params.subject_alt_names.clear());
    let client_only = by_authority(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let good = by_authority(|_| ());
    let other = by_itself(as_authority).ca;
    for (shown, ca, words) in [
        (&good, other.as_slice(), "its certificate is neither in `ca` nor signed by one in there"),
        (
            &by_itself(as_authority),
            &other,
            "its certificate is an authority's own, which is trusted only where it is itself in `ca`",
        ),
        (&by_authority(past), b"", "its certificate has ended at 2020-02-03T00:00:00Z; it is "),
        (&past_itself, b"", "its certificate has ended at 2020-02-03T00:00:00Z; it is "),
        (&by_authority(future), b"", "its certificate only begins at 2400-02-03T00:00:00Z; it is "),
        (&by_itself(future), b"", "its certificate only begins at 2400-02-03T00:00:00Z; it is "),
        (&nameless, b"", "its certificate names no host"),
        (&client_only, b"", "its certificate is not one for servers"),
        (&good, b"no certificate", "`ca` cannot be used: the file holds no certificate in PEM"),
    ] {
        let ca = if ca.is_empty() { &shown.ca } else { ca };
        stand.speak(tls_server(shown, None).await, Some(BANK), Some(ca), None);
        stand.ask("hello").await.expect_err("it is not trusted");
        assert!(stand.told().contains(words), "{words} in {}", stand.told());
    }
}

#[tokio::test]
async fn who_speaks_no_tls_or_wants_a_certificate_is_told() {
    let mut stand = Stand::new(&[]);
    let (clients, strangers) = (by_authority(|_| ()), by_authority(|_| ()));
    let shown = by_authority(|_| ());
    let address = tls_server(&shown, Some(&clients)).await;
    stand.speak(address, Some(BANK), Some(&shown.ca), Some(&clients));
    assert_eq!(stand.ask("hello").await.expect("an answer"), "secret hello");
    // TLS 1.3 says so only after the handshake.
    for (own, words) in [
        (None, "it asks for a certificate: give it one by `cert` and `key` (CertificateRequired)"),
        (Some(&strangers), "it does not take the certificate in `cert` ("),
    ] {
        stand.speak(address, Some(BANK), Some(&shown.ca), own);
        let answer = stand.ask("hello").await;
        assert!(answer.as_ref().is_ok_and(String::is_empty) || answer.is_err(), "{answer:?}");
        until(|| stand.told(), |told| told.contains(words)).await;
    }
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = plain.local_addr().expect("an address");
    for (answer, words) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "no TLS with `bank.example.com`: what it answers is no TLS"),
        ("", "no TLS with `bank.example.com`: it ended the connection"),
    ] {
        stand.speak(address, Some(BANK), Some(&shown.ca), None);
        let talk = async {
            let (mut stream, _) = plain.accept().await.expect("a connection");
            let mut greeting = [0; 64];
            assert!(stream.read(&mut greeting).await.expect("a greeting") > 0);
            stream.write_all(answer.as_bytes()).await.expect("taken");
        };
        let (asked, ()) = tokio::join!(stand.ask("hello"), talk);
        asked.expect_err("there is no TLS");
        assert!(stand.told().starts_with(words), "{words} in {}", stand.told());
    }
}

#[tokio::test]
async fn of_who_ends_a_greeting_without_a_word_it_is_told_what_it_asked_for() {
    let mut stand = Stand::new(&[]);
    let (shown, clients) = (by_authority(|_| ()), by_authority(|_| ()));
    let asks = "no TLS with `bank.example.com`: it asked for a certificate, and ended the connection: ";
    for (asked, own, words) in [
        (Some(&clients), None, format!("{asks}give it one by `cert` and `key`")),
        (Some(&clients), Some(&clients), format!("{asks}it may not take the one in `cert`")),
        (
            None,
            Some(&clients),
            "no TLS with `bank.example.com`: it speaks TLS, but ended the connection before the greeting was over"
                .to_owned(),
        ),
    ] {
        stand.speak(tls_server_that_resets(&shown, asked), Some(BANK), Some(&shown.ca), own);
        stand.ask("hello").await.expect_err("there is no TLS");
        assert_eq!(stand.told(), words);
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
