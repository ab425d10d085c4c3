//! Rules for requests from outside: who gets what, by which certificate, at which address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http2;
use super::site::{Answer, Dialog, HttpSite, Scripted, exchange};
use crate::lb::http::HttpOptions;
use crate::lb::table::{Certificate, LbTable, RouteRule};
use crate::lb::tests::site::{in_time, until};
use crate::lb::{DryRequest, DryRun, Miss};
use crate::model::{AppProtocol, PathRewrite, Route, RouteAction, RoutePort};
use crate::testing;

/// A site with rules at a port of its own.
struct Ruled {
    site: HttpSite,
    front: SocketAddr,
}

impl Ruled {
    async fn new(is_fast: bool) -> Self {
        let options = HttpOptions { is_fast, ..HttpOptions::default() };
        let site = HttpSite::with(options, AppProtocol::Http).await;
        let free = TcpListener::bind((site.front.ip(), 0)).await.expect("loopback");
        let front = free.local_addr().expect("bound");
        Self { site, front }
    }

    fn route(&self, host: &str, path: &str) -> Route {
        let host = if host.is_empty() { String::new() } else { format!("host={host}") };
        let words = format!("{host} path={path} listen={}@{}", self.front.ip(), self.front.port());
        Route { port: self.site.target, ..testing::route(&words) }
    }

    /// Sets rules, each with the pods of a service of its own.
    #[track_caller]
    fn set(&self, rules: Vec<(Route, &[u8])>) {
        self.set_with(rules, None);
    }

    #[track_caller]
    fn set_with(&self, rules: Vec<(Route, &[u8])>, certificates: Option<&[Arc<Certificate>]>) {
        let mut table = LbTable { version: self.site.table(&[]).version, ..LbTable::default() };
        for (number, (route, pods)) in rules.into_iter().enumerate() {
            let from = self.site.http_table(pods).published.into_values().next().expect("one port");
            let mut backend = (*from.backend).clone();
            backend.service = crate::ids::ServiceName::new(format!("web{number}")).expect("valid");
            let certificate = certificates.map(|all| Arc::clone(&all[number]));
            table.routes.push(RouteRule { route: Arc::new(route), number: 0, backend: Arc::new(backend), certificate });
        }
        let errors = self.site.balancer.set_table(&table);
        assert!(errors.is_empty(), "{errors:?}");
    }

    async fn pod(&self, number: u8, text: &str) -> Scripted {
        let answer = Answer::new(&format!("HTTP/1.1 200 OK|Content-Length: {}||{text}", text.len()));
        self.site.scripted(number, &[answer]).await
    }

    async fn get(&self, request: &str) -> String {
        let stream = TcpStream::connect(self.front).await.expect("the port of the rules listens");
        let reply = exchange(stream, request.replace('|', "\r\n").as_bytes()).await;
        String::from_utf8_lossy(&reply.bytes).into_owned()
    }

    async fn body(&self, host: &str, path: &str) -> String {
        let answer = self.get(&format!("GET {path} HTTP/1.1|Host: {host}||")).await;
        answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
    }
}

/// Rules look at a path as it is, pods resolve it: where these two lead apart nobody gets past a rule.
#[tokio::test]
async fn a_path_that_is_another_rules_once_it_is_resolved_is_refused() {
    for is_fast in [true, false] {
        let ruled = Ruled::new(is_fast).await;
        let (_one, _two) = (ruled.pod(1, "one").await, ruled.pod(2, "two").await);
        ruled.set(vec![(ruled.route("a.test", "/"), &[1]), (ruled.route("a.test", "/admin"), &[2])]);
        let refused = "400 Bad Request: the request is malformed\n";
        for (path, expected) in [
            ("/a/../b", "one"),
            ("/a//b/./c", "one"),
            ("/.well-known/x", "one"),
            ("/a%20b/%2e%2e/c", "one"),
            ("/admin/../admin/x", "two"),
            ("/admin/./x", "two"),
            ("/x?to=/../admin", "one"),
            ("/x/../admin", refused),
            ("/admin/../x", refused),
            ("/admin/..", refused),
            ("//admin", refused),
            ("/%61dmin/x", refused),
            ("/x/%2E%2e/admin", refused),
            ("/x/..%2Fadmin", refused),
            ("/admin/%2e%2e%2fx", refused),
        ] {
            assert_eq!(ruled.body("a.test", path).await, expected, "{path}");
        }
    }
}

#[tokio::test]
async fn each_request_goes_where_its_rule_says() {
    for is_fast in [true, false] {
        let ruled = Ruled::new(is_fast).await;
        let (_one, _two, _three) = (ruled.pod(1, "one").await, ruled.pod(2, "two").await, ruled.pod(3, "three").await);
        ruled.set(vec![
            (ruled.route("a.test", "/"), &[1]),
            (ruled.route("a.test", "/api"), &[2]),
            (ruled.route("*.test", "/"), &[3]),
        ]);
        for (host, path, expected) in [
            ("a.test", "/", "one"),
            ("A.TEST:8080", "/apix", "one"),
            ("a.test", "/api/x?y", "two"),
            ("b.test", "/api", "three"),
            ("other", "/", "404 Not Found: nothing is served here by this name\n"),
        ] {
            assert_eq!(ruled.body(host, path).await, expected, "{host}{path}");
        }
        // All of them on one connection.
        let stream = TcpStream::connect(ruled.front).await.expect("listens");
        let mut client = Dialog::on(stream);
        for (host, expected) in [("a.test", "one"), ("b.test", "three"), ("a.test", "one")] {
            let answer = client.ask(&format!("GET / HTTP/1.1|Host: {host}||")).await;
            assert_eq!(answer.body, expected.as_bytes());
        }
        let counted = || {
            let routes = ruled.site.balancer.stats().routes;
            routes.into_iter().map(|one| (one.name, one.http.by_class[1])).collect::<Vec<_>>()
        };
        let expected = [("a.test/*", 4), ("a.test/api/*", 1), ("*.test/*", 2)];
        until(counted, |counted| counted.iter().map(|(name, count)| (name.as_str(), *count)).eq(expected)).await;
        // The whole address, and HTTP/2.
        let whole = ruled.get("GET http://a.test/api HTTP/1.1|Host: a.test||").await;
        assert!(whole.ends_with("two"), "{whole}");
        let (client, _driver) = http2::connect(TcpStream::connect(ruled.front).await.expect("listens")).await;
        for (uri, expected) in [("http://a.test/api", "two"), ("http://b.test/", "three")] {
            let (answer, body, _) = http2::ask(&client, http2::get(uri), &[]).await.expect("answered");
            assert_eq!((answer.status().as_u16(), &body[..]), (200, expected.as_bytes()));
        }
        let (answer, ..) = http2::ask(&client, http2::get("http://other/"), &[]).await.expect("answered");
        assert_eq!(answer.status(), 404);
    }
}

#[tokio::test]
async fn paths_and_hosts_are_rewritten_and_clients_sent_elsewhere() {
    for is_fast in [true, false] {
        let ruled = Ruled::new(is_fast).await;
        let pod = ruled.pod(1, "ok").await;
        let mut rewriting = ruled.route("a.test", "/old");
        let path = Some(PathRewrite::Prefix("/new".to_owned()));
        rewriting.action = RouteAction::Forward { path, host: Some("internal".to_owned()) };
        let mut redirecting = ruled.route("b.test", "/");
        redirecting.action =
            RouteAction::Redirect { scheme: Some("https".to_owned()), host: None, port: None, path: None, status: 308 };
        ruled.set(vec![(rewriting, &[1]), (redirecting, &[])]);
        assert_eq!(ruled.body("a.test", "/old/x?y=z").await, "ok");
        let heard = pod.heard().remove(0);
        assert_eq!((heard.start.as_str(), heard.field("host")), ("GET /new/x?y=z HTTP/1.1", Some("internal")));
        assert_eq!(heard.field("x-forwarded-host"), Some("a.test"));
        let answer = ruled.get("POST /p?q HTTP/1.1|Host: b.test:81|Content-Length: 2||ab").await;
        let answer = answer.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 308 permanent redirect\r\n"), "{answer}");
        assert!(answer.contains("\r\nlocation: https://b.test/p?q\r\n"), "{answer}");
        let (client, _driver) = http2::connect(TcpStream::connect(ruled.front).await.expect("listens")).await;
        let (answer, ..) = http2::ask(&client, http2::get("http://a.test/old"), &[]).await.expect("answered");
        assert_eq!(answer.status(), 200);
        assert_eq!(pod.heard().last().expect("some").start, "GET /new HTTP/1.1");
        let (answer, ..) = http2::ask(&client, http2::get("http://b.test/x"), &[]).await.expect("answered");
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["location"].as_bytes()),
            (308, &b"https://b.test/x"[..])
        );
    }
}

#[tokio::test]
async fn methods_fields_and_weights_decide() {
    let ruled = Ruled::new(true).await;
    let (_old, _new, _put) = (ruled.pod(1, "old").await, ruled.pod(2, "new").await, ruled.pod(3, "put").await);
    let weighted = |weight| Route { weight: Some(weight), ..ruled.route("a.test", "/") };
    let canary = Route { headers: vec![("x-canary".to_owned(), "1".to_owned())], ..ruled.route("a.test", "/") };
    let put = Route { methods: vec!["PUT".to_owned()], ..ruled.route("a.test", "/") };
    let set = || {
        ruled.set(vec![(weighted(80), &[1]), (weighted(20), &[2]), (canary.clone(), &[2]), (put.clone(), &[3])]);
    };
    // By number, whichever connections and paths they come by, and over tables that follow one another.
    for round in 0..5 {
        set();
        let mut new = 0;
        for _ in 0..5 {
            let stream = TcpStream::connect(ruled.front).await.expect("listens");
            let mut client = Dialog::on(stream);
            for request in
                ["GET / HTTP/1.1|Host: a.test||", "POST / HTTP/1.1|Host: a.test|Transfer-Encoding: chunked||0||"]
            {
                for _ in 0..2 {
                    new += u32::from(client.ask(request).await.body == b"new");
                }
            }
        }
        assert_eq!(new, 4, "of 20 requests of round {round}");
    }
    let stream = TcpStream::connect(ruled.front).await.expect("listens");
    let mut client = Dialog::on(stream);
    for request in [
        "GET / HTTP/1.1|Host: a.test|X-Canary: 1||",
        "POST / HTTP/1.1|Host: a.test|x-canary: 1|Transfer-Encoding: chunked||0||",
    ] {
        assert_eq!(client.ask(request).await.body, b"new");
    }
    assert_eq!(client.ask("PUT / HTTP/1.1|Host: a.test|X-Canary: 1||").await.body, b"put");
}

#[tokio::test]
async fn tables_with_other_rules_are_for_the_next_request() {
    let ruled = Ruled::new(true).await;
    let (_one, _two) = (ruled.pod(1, "one").await, ruled.pod(2, "two").await);
    ruled.set(vec![(ruled.route("a.test", "/"), &[1])]);
    let mut client = Dialog::on(TcpStream::connect(ruled.front).await.expect("listens"));
    assert_eq!(client.ask("GET / HTTP/1.1|Host: a.test||").await.body, b"one");
    ruled.set(vec![(ruled.route("a.test", "/"), &[2])]);
    assert_eq!(client.ask("GET / HTTP/1.1|Host: a.test||").await.body, b"two");
    ruled.set(vec![(ruled.route("b.test", "/"), &[2])]);
    assert!(client.ask("GET / HTTP/1.1|Host: a.test||").await.start.contains("404"));
    // With the last rule the port is closed; the connection ends with its next request.
    ruled.set(vec![]);
    let refused = || std::net::TcpStream::connect(ruled.front).is_err();
    until(refused, |refused| *refused).await;
    client.write("GET / HTTP/1.1|Host: a.test||").await;
    let answer = client.read_all().await;
    assert!(answer.contains("503") && answer.contains("Connection: close"), "{answer}");
}

fn certificate(names: &[&str]) -> (Arc<Certificate>, CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let certificate =
        Certificate { chain: made.cert.pem().into_bytes(), key: made.signing_key.serialize_pem().into_bytes() };
    (Arc::new(certificate), made.cert.der().clone())
}

async fn tls(
    front: SocketAddr,
    name: &str,
    trusted: &[&CertificateDer<'static>],
    protocols: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(front).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    in_time(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

const ALL: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

#[tokio::test]
async fn tls_shows_each_host_its_certificate_and_certificates_are_exchanged_while_running() {
    for is_fast in [true, false] {
        let ruled = Ruled::new(is_fast).await;
        let pod = ruled.pod(1, "one").await;
        let secure = |host: &str| {
            let mut route = ruled.route(host, "/");
            route.listen = vec![RoutePort { port: ruled.front.port(), tls: true }];
            route
        };
        let ((a, a_der), (wide, wide_der)) = (certificate(&["a.test"]), certificate(&["*.wide.test"]));
        let rules = || vec![(secure("a.test"), &[1_u8][..]), (secure("*.wide.test"), &[1][..])];
        ruled.set_with(rules(), Some(&[a, Arc::clone(&wide)]));
        for (name, der, versions) in [
            ("a.test", &a_der, ALL),
            ("x.wide.test", &wide_der, ALL),
            ("a.test", &a_der, &[&rustls::version::TLS12]),
            ("a.test", &a_der, &[&rustls::version::TLS13]),
        ] {
            let stream = tls(ruled.front, name, &[der], &["http/1.1"], versions).await.expect("its certificate");
            let mut client = Dialog::on(stream);
            for request in ["GET / HTTP/1.1", "POST / HTTP/1.1|Transfer-Encoding: chunked", "GET / HTTP/1.1"] {
                let end = if request.starts_with("POST") { "3|abc|0||" } else { "" };
                let answer = client.ask(&format!("{request}|Host: {name}||{end}")).await;
                assert_eq!(answer.body, b"one");
            }
        }
        let heard = pod.heard().remove(0);
        assert_eq!(heard.field("x-forwarded-proto"), Some("https"));
        assert_eq!(heard.field("x-forwarded-port"), Some(ruled.front.port().to_string().as_str()));
        // HTTP/2 as the client prefers it.
        let stream = tls(ruled.front, "a.test", &[&a_der], &["h2", "http/1.1"], ALL).await.expect("its certificate");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let driver = tokio::spawn(connection);
        let (answer, body, _) = http2::ask(&client, http2::get("https://a.test/"), &[]).await.expect("answered");
        assert_eq!((answer.status().as_u16(), &body[..]), (200, &b"one"[..]));
        driver.abort();
        // Nobody's name: an alert. And what is no TLS gets no answer.
        assert!(tls(ruled.front, "b.test", &[&a_der], &[], ALL).await.is_err());
        assert!(!ruled.get("GET / HTTP/1.1|Host: a.test||").await.starts_with("HTTP/"));
        // Another certificate, for the next connection; one that is open goes on.
        let mut open = Dialog::on(tls(ruled.front, "a.test", &[&a_der], &[], ALL).await.expect("the old one"));
        let (new, new_der) = certificate(&["a.test"]);
        ruled.set_with(rules(), Some(&[new, wide]));
        assert_eq!(open.ask("GET / HTTP/1.1|Host: a.test||").await.body, b"one");
        assert!(tls(ruled.front, "a.test", &[&a_der], &[], ALL).await.is_err(), "the old one is gone");
        assert!(tls(ruled.front, "a.test", &[&new_der], &[], ALL).await.is_ok());
    }
}

#[tokio::test]
async fn a_port_changes_between_plain_and_tls_with_its_rules() {
    let ruled = Ruled::new(true).await;
    let _pod = ruled.pod(1, "one").await;
    let (made, der) = certificate(&["a.test"]);
    ruled.set(vec![(ruled.route("a.test", "/"), &[1])]);
    assert_eq!(ruled.body("a.test", "/").await, "one");
    let mut secure = ruled.route("a.test", "/");
    secure.listen = vec![RoutePort { port: ruled.front.port(), tls: true }];
    ruled.set_with(vec![(secure, &[1])], Some(&[made]));
    let stream = tls(ruled.front, "a.test", &[&der], &[], ALL).await.expect("its certificate");
    assert_eq!(Dialog::on(stream).ask("GET / HTTP/1.1|Host: a.test||").await.body, b"one");
}

#[tokio::test]
async fn a_port_of_rules_that_is_taken_is_told_and_tried_again() {
    let ruled = Ruled::new(true).await;
    let taken = std::net::TcpListener::bind(ruled.front).expect("free");
    let mut table = LbTable::default();
    let backend = ruled.site.http_table(&[]).published.into_values().next().expect("one").backend;
    let rule = RouteRule { route: Arc::new(ruled.route("only.test", "/")), number: 0, backend, certificate: None };
    table.routes.push(rule);
    let errors = ruled.site.balancer.set_table(&table);
    let (key, error) = errors.first_key_value().expect("in use");
    assert_eq!((key.host_ip, key.port), (Some(ruled.front.ip()), ruled.front.port()));
    assert_eq!(error.to_string(), format!("cannot listen on {}", ruled.front));
    drop(taken);
    assert!(ruled.site.balancer.sync_published().is_empty());
    assert!(ruled.get("GET / HTTP/1.1|Host: a.test||").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn names_below_localhost_are_served_at_loopback_only() {
    let ruled = Ruled::new(true).await;
    let _pod = ruled.pod(1, "one").await;
    let loopback = Some(IpAddr::from([127, 0, 0, 1]));
    let local = Route { host_ip: loopback, ..ruled.route("app.localhost", "/") };
    let other = ruled.route("", "/other");
    ruled.set(vec![(local, &[1]), (other, &[1])]);
    let at = |ip: IpAddr| SocketAddr::new(ip, ruled.front.port());
    let ask = async |address: SocketAddr| {
        let stream = TcpStream::connect(address).await.expect("listens");
        let reply = exchange(stream, b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
        String::from_utf8_lossy(&reply.bytes).into_owned()
    };
    assert!(ask(at([127, 0, 0, 1].into())).await.ends_with("one"));
    // Loopback is one host whatever the address, and the machine may have no IPv6.
    let six = IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
    if TcpListener::bind((six, 0)).await.is_ok() {
        assert!(ask(at(six)).await.ends_with("one"));
    }
}

#[tokio::test]
async fn a_request_that_is_only_followed_ends_where_a_real_one_does() {
    let ruled = Ruled::new(true).await;
    let site = &ruled.site;
    let _pods = [ruled.pod(1, "one").await, ruled.pod(2, "two").await];
    let posts = Route { methods: vec!["POST".to_owned()], ..ruled.route("a.example.com", "/api") };
    let keyed = Route { headers: vec![("x-key".to_owned(), "1".to_owned())], ..ruled.route("b.example.com", "/") };
    let weighted = |weight| Route { weight: Some(weight), ..ruled.route("w.example.com", "/") };
    let rules: Vec<(Route, &[u8])> = vec![
        (posts, &[1]),
        (ruled.route("a.example.com", "/app"), &[2]),
        (keyed, &[1]),
        (weighted(3), &[1]),
        (weighted(1), &[2]),
        (weighted(0), &[2]),
    ];
    ruled.set(rules);
    let ask = |method: &str, host: &str, target: &str| {
        let (method, host, target) = (method.to_owned(), host.to_owned(), target.to_owned());
        let (port, local) = (ruled.front.port(), ruled.front.ip());
        site.balancer.dry_run(&DryRequest { port, local, host, target, method, headers: vec![] })
    };
    let pods = |run: DryRun| match run {
        DryRun::Taken { shares, .. } => {
            shares.iter().map(|one| (one.weight, one.of, one.pods[0].0.number)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let misses = |run: DryRun| match run {
        DryRun::NoRule { near, .. } => near.into_iter().map(|one| one.miss).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(pods(ask("GET", "A.example.com:80", "/app/x?y")), [(1, 1, 2)]);
    assert!(ruled.get("GET /app/x?y HTTP/1.1|Host: A.example.com:80|Connection: close||").await.ends_with("two"));
    assert_eq!(pods(ask("POST", "a.example.com", "/api")), [(1, 1, 1)]);
    // Methods that are refused, and others that look as if they were.
    for method in
        ["CONNECT", "TRACE", "PURGE", "get", "connect", "M-SEARCH", "PRI", "G(T", "A B", "", "GET /x", "\u{e9}"]
    {
        let answer = ruled.get(&format!("{method} /app HTTP/1.1|Host: a.example.com|Connection: close||")).await;
        let status = answer.split(' ').nth(1).expect("a status").to_owned();
        let said = match ask(method, "a.example.com", "/app") {
            DryRun::Refused { status, text, .. } => {
                assert!(answer.ends_with(&format!(": {text}\n")), "{method}: {answer}");
                status.to_string()
            }
            DryRun::Taken { .. } => "200".to_owned(),
            other => panic!("{method}: {other:?}"),
        };
        assert_eq!(said, status, "{method}: {answer}");
    }
    let refused = ask("CONNECT", "a.example.com", "/app");
    assert!(matches!(refused, DryRun::Refused { status: 405, .. }), "{refused:?}");
    assert_eq!(pods(ask("GET", "w.example.com", "/")), [(3, 4, 1), (1, 4, 2)]);
    assert_eq!(misses(ask("GET", "a.example.com", "/api")), [Miss::Method]);
    assert_eq!(misses(ask("GET", "a.example.com", "/apix")), [Miss::Path, Miss::Path]);
    assert_eq!(misses(ask("GET", "b.example.com", "/")), [Miss::Header("x-key".to_owned(), "1".to_owned())]);
    assert_eq!(misses(ask("GET", "c.example.com", "/")).first(), Some(&Miss::Host));
    let hosts: Vec<String> = (0..9).map(|number| format!("h{number}.example.com")).collect();
    ruled.set(hosts.iter().map(|host| (ruled.route(host, "/"), &[1][..])).collect());
    assert_eq!(misses(ask("GET", "c.example.com", "/")), vec![Miss::Host; 9], "all of them");
    // A server would take it for `/app`, of another rule.
    ruled.set(vec![(ruled.route("a.example.com", "/"), &[1]), (ruled.route("a.example.com", "/app"), &[2])]);
    let unclear = |run: DryRun| matches!(run, DryRun::Unclear { path, .. } if path == "/app");
    assert!(unclear(ask("GET", "a.example.com", "//app")) && unclear(ask("GET", "a.example.com", "/x/../app?y")));
    assert_eq!(pods(ask("GET", "a.example.com", "/app/./")), [(1, 1, 2)]);
    let elsewhere = DryRequest {
        port: ruled.front.port(),
        local: IpAddr::from([0, 0, 0, 0]),
        host: "a.example.com".to_owned(),
        target: "/app".to_owned(),
        method: "GET".to_owned(),
        headers: vec![],
    };
    assert_eq!(misses(site.balancer.dry_run(&elsewhere)).first(), Some(&Miss::Address(ruled.front.ip())));
    let nowhere = site.balancer.dry_run(&DryRequest { port: 1, ..elsewhere });
    assert!(matches!(nowhere, DryRun::NoRules { published: None, ports } if ports == [ruled.front.port()]));
}
