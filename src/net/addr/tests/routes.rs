//! Routes of two projects, and ports that both want.

use crate::model::Route;
use crate::testing;

use super::*;

/// A route as text, written at `compose.yaml:LINE:5`.
fn route(line: usize, text: &str) -> Route {
    Route { place: format!("compose.yaml:{line}:5"), ..testing::route(text) }
}

/// A graph whose service `web` has these routes and ports.
fn with_routes(routes: &str, ports: &str) -> Graph {
    let mut made = graph("p", "n", &format!("web n {ports}"));
    let web = made.services.get_mut("web").expect("it is there");
    web.serving.routes = routes.lines().enumerate().map(|(at, text)| route(at + 1, text)).collect();
    made
}

/// What stands against the routes `own` and `ports` of a project, `other` and `published` being those of another one, and
/// `had` its own until now.
struct Asked<'a> {
    own: &'a str,
    ports: &'a str,
    other: &'a str,
    published: &'a [PublishedPort],
    had: Option<&'a str>,
}

const NOTHING: Asked<'static> = Asked { own: "", ports: "", other: "", published: &[], had: None };

impl Asked<'_> {
    /// Returns the messages, and the ports that the host was asked for.
    fn run(&self) -> (String, Vec<(u16, bool, bool)>) {
        let graph = with_routes(self.own, self.ports);
        let had = self.had.map(|routes| with_routes(routes, ""));
        let (blog, site) = (ProjectName::new("blog").expect("valid"), service_name("site"));
        let others: Vec<Route> = self.other.lines().map(|text| route(9, text)).collect();
        let others: Vec<OtherRoute<'_>> =
            others.iter().map(|route| OtherRoute { project: &blog, service: &site, route }).collect();
        let elsewhere: Vec<(ProjectName, PublishedPort)> =
            self.published.iter().map(|port| (blog.clone(), port.clone())).collect();
        let allocation = Allocation {
            graph: &graph,
            previous: &Addresses::default(),
            previous_graph: had.as_ref(),
            taken: &[],
            published_elsewhere: &elsewhere,
            routes_elsewhere: &others,
            pool: &Pool::default(),
            host_index: 0,
        };
        let mut asked = Vec::new();
        let result = allocate(&allocation, &mut |port| {
            asked.push((port.port, port.held, port.for_routes));
            if port.port == 4444 {
                Err(Unavailable { hosts: vec![HostName::new("b").expect("valid")], ..in_use() })
            } else {
                Ok(())
            }
        });
        let errors = result.err().unwrap_or_default();
        assert!(errors.iter().all(|error| !error.help().is_empty()));
        (text(&errors), asked)
    }
}

#[track_caller]
fn check(own: &str, other: &str, expected: &str) {
    assert_eq!(Asked { own, other, ..NOTHING }.run().0, expected, "{own} beside {other}");
}

#[test]
fn two_projects_that_claim_the_same_requests_are_refused_with_both_places() {
    let clash = |name: &str, port: u16| {
        format!(
            "a route of service `web` (compose.yaml:1:5) and a route of service `site` of project `blog` (compose.yaml:9:5) \
             match the same requests: `{name}` at port {port}"
        )
    };
    check("host=a.test", "host=a.test", &clash("a.test/*", 80));
    check("host=a.test host=b.test", "host=c.test host=b.test", &clash("b.test/*", 80));
    check("path=/", "path=/", &clash("*/*", 80));
    check("host=*.a.test path=/x", "host=*.a.test path=/x", &clash("*.a.test/x/*", 80));
    check("path=/x$ listen=8080 listen=8081", "path=/x$ listen=8081", &clash("*/x", 8081));
    check("tls=443 host=a.test", "tls=443 host=a.test", &clash("a.test/*", 443));
    check("h=x:1 method=GET method=PUT", "method=PUT h=x:1", &clash("*/*", 80));
    check("listen=127.0.0.1@80", "path=/", &clash("*/*", 80));
    // Shares are among the routes of one project.
    check("host=a.test weight=1", "host=a.test weight=9", &clash("a.test/*", 80));
}

#[test]
fn what_one_takes_before_the_other_is_no_clash() {
    for (own, other) in [
        ("host=a.test", "host=b.test"),
        ("host=a.test", "path=/"),
        ("host=a.b.test", "host=*.b.test"),
        ("path=/x", "path=/x/y"),
        ("path=/x", "path=/x$"),
        ("method=GET", "method=PUT"),
        ("method=GET", "path=/"),
        ("h=x:1", "h=x:2"),
        ("h=x:1", "path=/"),
        ("listen=80", "listen=81"),
        ("listen=127.0.0.1@80", "listen=127.0.0.2@80"),
        // Two that are the same in one project are the loader's matter.
        ("host=a.test weight=1\nhost=a.test weight=2", "host=b.test"),
    ] {
        check(own, other, "");
        check(other, own, "");
    }
}

#[test]
fn a_port_speaks_tls_for_all_or_for_none() {
    check(
        "listen=8443",
        "tls=8443 host=b.test",
        "port 8443 would speak both TLS and plain HTTP: TLS for a route of service `site` of project `blog` \
         (compose.yaml:9:5), plain HTTP for a route of service `web` (compose.yaml:1:5)",
    );
}

fn published(host_ip: Option<&str>, port: u16, protocol: Protocol) -> PublishedPort {
    let host_ip = host_ip.map(|ip| ip.parse().expect("an address"));
    PublishedPort { service: service_name("site"), host_ip, published: port, target: 80, protocol }
}

#[test]
fn a_port_is_for_routes_or_is_published() {
    let at = |own: &str, port: PublishedPort| Asked { own, published: &[port], ..NOTHING }.run().0;
    let said = at("host=a.test listen=8080", published(None, 8080, Protocol::Tcp));
    assert_eq!(
        said,
        "a route of service `web` (compose.yaml:1:5) cannot listen at port 8080/tcp on all addresses: service `site` of \
         project `blog` publishes it"
    );
    assert_ne!(at("path=/", published(Some("127.0.0.1"), 80, Protocol::Tcp)), "");
    assert_eq!(at("listen=127.0.0.2@80", published(Some("127.0.0.1"), 80, Protocol::Tcp)), "");
    assert_eq!(at("path=/", published(None, 80, Protocol::Udp)), "");

    let publish = |ports: &str, other: &str| Asked { ports, other, ..NOTHING }.run();
    let said = "service `web` cannot publish port 80/tcp on all addresses: a route of service `site` of project `blog` \
                (compose.yaml:9:5) listens there";
    assert_eq!(publish("+publish=80:80", "host=b.test").0, said);
    assert_eq!(publish("+publish=80:80/udp", "host=b.test").0, "");
    // From a range another one is taken, also because of the project's own routes.
    assert_eq!(publish("+publish=80-81:80", "host=b.test"), (String::new(), vec![(81, false, false)]));
    let own = Asked { own: "host=a.test", ports: "+publish=80-81:80", ..NOTHING }.run();
    assert_eq!(own, (String::new(), vec![(81, false, false), (80, false, true)]));
}

#[test]
fn hosts_are_asked_whether_a_route_can_listen_unless_it_does() {
    let said = "a route of service `web` (compose.yaml:2:5) cannot listen at port 4444/tcp on all addresses: it is in use \
                on `b`";
    let asked = Asked { own: "host=a.test\nhost=b.test listen=4444\nhost=c.test listen=4444", ..NOTHING }.run();
    assert_eq!(asked, (said.to_owned(), vec![(80, false, true), (4444, false, true)]));
    // It listens already, also while something else would have the port by now.
    let asked = Asked { own: "listen=4444", had: Some("host=a.test listen=4444"), ..NOTHING }.run();
    assert_eq!(asked, (String::new(), vec![]));
    // Orch listens there, at one address or for another project: that is no obstacle, but somebody else may as well.
    let asked = Asked { own: "listen=8080", had: Some("listen=127.0.0.1@8080"), ..NOTHING }.run();
    assert_eq!(asked, (String::new(), vec![(8080, true, true)]));
    let asked = Asked { own: "host=a.test", other: "host=b.test", ..NOTHING }.run();
    assert_eq!(asked, (String::new(), vec![(80, true, true)]));
}
