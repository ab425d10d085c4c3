use super::*;
use crate::testing::route as rule;
use proptest::prelude::*;

/// A request as text: `GET host/path h=NAME:VALUE…`.
fn find(table: &RouteTable<usize>, request: &str, turn: u64) -> Option<usize> {
    let mut words = request.split_whitespace();
    let method = words.next().expect("a method");
    let (host, path) = words.next().map(|url| url.split_at(url.find('/').expect("a path"))).expect("host and path");
    let headers: Vec<&str> = words.map(|word| word.strip_prefix("h=").expect("a header")).collect();
    let has_header = |name: &str, value: &str| headers.contains(&format!("{name}:{value}").as_str());
    let asked = Asked { host: host.as_bytes(), path: path.as_bytes(), method, has_header: &has_header };
    table.find(&asked, |_| turn).copied()
}

#[track_caller]
fn check(rules: &[&str], cases: &[(&str, Option<usize>)]) {
    let routes: Vec<Route> = rules.iter().map(|text| rule(text)).collect();
    // Where precedence decides, the order in which rules are written does not: ties are tested apart.
    let forward = RouteTable::new(routes.iter().enumerate().map(|(number, route)| (route, number)));
    let backward = RouteTable::new(routes.iter().enumerate().rev().map(|(number, route)| (route, number)));
    for (request, expected) in cases {
        assert_eq!(find(&forward, request, 0), *expected, "{request} among {rules:?}");
        assert_eq!(find(&backward, request, 0), *expected, "{request} among {rules:?}, read backwards");
    }
}

#[test]
fn the_most_exact_host_wins() {
    check(
        &["host=a.example.com", "host=*.example.com", "host=*.b.example.com", "path=/"],
        &[
            ("GET a.example.com/", Some(0)),
            ("GET A.Example.COM:8080/", Some(0)),
            ("GET a.example.com./x", Some(0)),
            ("GET b.example.com/", Some(1)),
            ("GET x.y.example.com/", Some(1)),
            ("GET x.b.example.com/", Some(2)),
            ("GET example.com/", Some(3)),
            ("GET other/", Some(3)),
            ("GET /", Some(3)),
            ("GET [::1]:80/", Some(3)),
        ],
    );
}

#[test]
fn a_host_whose_paths_do_not_match_leaves_the_request_to_a_wider_one() {
    check(
        &["host=a.example.com path=/api", "host=*.example.com path=/x", "path=/"],
        &[
            ("GET a.example.com/api", Some(0)),
            ("GET a.example.com/x", Some(1)),
            ("GET a.example.com/other", Some(2)),
            ("GET b.example.com/api", Some(2)),
        ],
    );
    check(&["host=a"], &[("GET a/", Some(0)), ("GET b/", None), ("GET /", None)]);
}

#[test]
fn the_most_exact_path_wins() {
    check(
        &["path=/", "path=/api", "path=/api/v1/", "path=/api$", "path=/api/v1/x$"],
        &[
            ("GET a/", Some(0)),
            ("GET a/apix", Some(0)),
            ("GET a/api", Some(3)),
            ("GET a/api/", Some(1)),
            ("GET a/api/v2", Some(1)),
            ("GET a/api/v1", Some(2)),
            ("GET a/api/v1/", Some(2)),
            ("GET a/api/v1/y", Some(2)),
            ("GET a/api/v1/x", Some(4)),
            ("GET a/api/v1/x/", Some(2)),
        ],
    );
}

#[test]
fn methods_come_before_headers_and_more_headers_before_fewer() {
    check(
        &["path=/", "h=a:1", "h=a:1 h=b:2", "method=GET", "method=GET method=PUT h=b:2"],
        &[
            ("POST a/", Some(0)),
            ("POST a/ h=a:1", Some(1)),
            ("POST a/ h=a:2", Some(0)),
            ("POST a/ h=a:1 h=b:2", Some(2)),
            ("GET a/ h=a:1", Some(3)),
            ("GET a/ h=a:1 h=b:2", Some(4)),
            ("PUT a/ h=b:2", Some(4)),
            ("PUT a/", Some(0)),
        ],
    );
    // The path comes before all of that.
    check(&["path=/api", "path=/ method=GET h=a:1"], &[("GET a/api h=a:1", Some(0)), ("GET a/ h=a:1", Some(1))]);
}

#[test]
fn the_first_one_wins_where_nothing_else_decides() {
    let routes = [rule("h=a:1"), rule("h=b:1"), rule("path=/"), rule("path=/")];
    let table = RouteTable::new(routes.iter().enumerate().map(|(number, route)| (route, number)));
    assert_eq!(find(&table, "GET x/ h=a:1 h=b:1", 0), Some(0));
    assert_eq!(find(&table, "GET x/ h=b:1", 0), Some(1));
    assert_eq!(find(&table, "GET x/", 7), Some(2));
}

#[test]
fn weights_share_what_matches_the_same() {
    let routes = [rule("weight=90"), rule("weight=10"), rule("weight=0"), rule("h=a:1 weight=1")];
    let table = RouteTable::new(routes.iter().enumerate().map(|(number, route)| (route, number)));
    for turn in 0..50 {
        let of_ten = (turn..turn + 10).map(|turn| find(&table, "GET x/", turn).expect("found"));
        let shares = of_ten.fold([0; 4], |mut shares, rule| {
            shares[rule] += 1;
            shares
        });
        assert_eq!(shares, [9, 1, 0, 0], "from turn {turn}");
    }
    assert_eq!(find(&table, "GET x/ h=a:1", 5), Some(3));
    let nothing = [rule("weight=0")];
    let table = RouteTable::new([(&nothing[0], 0)]);
    assert_eq!(find(&table, "GET x/", 9), Some(0), "a rule without a share still is the one that matches");
}

#[test]
fn turns_are_counted_only_where_rules_share_and_with_the_first_of_them() {
    let routes = [rule("weight=1"), rule("weight=1"), rule("path=/alone weight=1"), rule("path=/plain")];
    let table = RouteTable::new(routes.iter().enumerate().map(|(number, route)| (route, number)));
    let asked_of = |path: &str| {
        let asked = Asked { host: b"a", path: path.as_bytes(), method: "GET", has_header: &|_, _| false };
        let counted = std::cell::Cell::new(None);
        table.find(&asked, |first| {
            counted.set(Some(*first));
            1
        });
        counted.get()
    };
    assert_eq!((asked_of("/"), asked_of("/alone"), asked_of("/plain")), (Some(0), None, None));
}

#[test]
fn many_hosts_and_long_paths_are_found_at_once() {
    let routes: Vec<Route> = (0..5000).map(|number| rule(&format!("host=svc{number}.test path=/api"))).collect();
    let table = RouteTable::new(routes.iter().enumerate().map(|(number, route)| (route, number)));
    let slashes = "/".repeat(60_000);
    for number in (0..5000).step_by(7) {
        assert_eq!(find(&table, &format!("GET svc{number}.test/api{slashes}"), 0), Some(number));
    }
    assert_eq!(find(&table, &format!("GET {}/api", "x.".repeat(400)), 0), None);
}

#[test]
fn many_paths_of_one_host_are_found_and_share_by_weight() {
    let routes: Vec<Route> = (0..2000)
        .map(|number| {
            rule(&format!("host=a path=/p{}{} weight=1", number / 2, if number % 4 < 2 { "" } else { "/x$" }))
        })
        .collect();
    let table = RouteTable::new(routes.iter().enumerate().map(|(number, route)| (route, number)));
    for pair in 0..1000 {
        let path = format!("/p{pair}/x");
        for turn in 0..2 {
            assert_eq!(find(&table, &format!("GET a{path}"), turn), Some(pair * 2 + usize::from(turn == 1)), "{path}");
        }
        assert_eq!(find(&table, &format!("GET a{path}y"), 0), (pair % 2 == 0).then_some(pair * 2));
    }
}

#[track_caller]
fn check_rewrite(path: &str, rewrite: PathRewrite, cases: &[(&str, &str)]) {
    let mut route = rule(&format!("path={path}"));
    route.action = RouteAction::Forward { path: Some(rewrite), host: None };
    for (target, expected) in cases {
        assert_eq!(rewritten(&route, target).as_deref(), Some(*expected), "{target}");
    }
}

#[test]
fn paths_are_rewritten_by_whole_parts() {
    let prefix = |text: &str| PathRewrite::Prefix(text.to_owned());
    check_rewrite(
        "/foo",
        prefix("/xyz"),
        &[("/foo", "/xyz"), ("/foo/", "/xyz/"), ("/foo/bar?q=1", "/xyz/bar?q=1"), ("/foo?a=/foo", "/xyz?a=/foo")],
    );
    check_rewrite("/foo/", prefix("/xyz/"), &[("/foo/bar", "/xyz/bar"), ("/foo", "/xyz/")]);
    check_rewrite("/foo", prefix("/"), &[("/foo/bar", "/bar"), ("/foo", "/"), ("/foo/", "/")]);
    check_rewrite("/", prefix("/v2"), &[("/", "/v2/"), ("/a", "/v2/a")]);
    check_rewrite("/a$", prefix("/b"), &[("/a", "/b"), ("/a?x", "/b?x")]);
    check_rewrite("/a", PathRewrite::Full("/only".to_owned()), &[("/a/b?x=1", "/only?x=1")]);
    assert_eq!(rewritten(&rule("path=/"), "/a"), None);
}

#[test]
fn redirects_say_where_to() {
    let check = |action: RouteAction, target: &str, came: (&str, u16, bool), expected: &str| {
        let mut route = rule("path=/old");
        route.action = action;
        let came = CameBy { host: came.0, port: came.1, is_tls: came.2 };
        let (status, location) = redirect(&route, target, came).expect("a redirect");
        assert_eq!(format!("{status} {location}"), expected);
    };
    let to = |scheme: Option<&str>, host: Option<&str>, port, path, status| RouteAction::Redirect {
        scheme: scheme.map(str::to_owned),
        host: host.map(str::to_owned),
        port,
        path,
        status,
    };
    let https = || to(Some("https"), None, None, None, 301);
    check(https(), "/old?x=1", ("a.test", 80, false), "301 https://a.test/old?x=1");
    check(https(), "/", ("a.test:8080", 8080, false), "301 https://a.test/");
    check(https(), "/", ("[::1]:80", 80, false), "301 https://[::1]/");
    check(to(Some("https"), None, Some(8443), None, 308), "/", ("a.test", 80, false), "308 https://a.test:8443/");
    check(to(None, Some("b.test"), None, None, 302), "/x", ("a.test:8080", 8080, false), "302 http://b.test/x");
    check(to(None, None, None, None, 302), "/x", ("a.test:8080", 8080, false), "302 http://a.test:8080/x");
    check(to(None, None, None, None, 302), "/x", ("a.test", 8443, true), "302 https://a.test:8443/x");
    let new = Some(PathRewrite::Prefix("/new".to_owned()));
    check(to(None, None, None, new, 307), "/old/x?y", ("a.test", 443, true), "307 https://a.test/new/x?y");
    assert_eq!(redirect(&rule(""), "/", CameBy { host: "a", port: 80, is_tls: false }), None);
}

#[test]
fn loopback_is_one_address() {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    assert!(is_reached_at(None, ip("192.0.2.1")));
    assert!(is_reached_at(Some(ip("127.0.0.1")), ip("::1")) && is_reached_at(Some(ip("::1")), ip("127.0.0.5")));
    assert!(!is_reached_at(Some(ip("127.0.0.1")), ip("192.0.2.1")));
    assert!(!is_reached_at(Some(ip("192.0.2.2")), ip("192.0.2.1")));
}

fn any_rule() -> impl Strategy<Value = String> {
    let host = prop_oneof![Just(""), Just("host=a.b"), Just("host=*.b"), Just("host=*.a.b")];
    let path = prop_oneof![Just(""), Just("path=/x"), Just("path=/x$"), Just("path=/x/y"), Just("path=/x/y$")];
    let method = prop_oneof![Just(""), Just("method=GET"), Just("method=PUT method=GET")];
    let headers = prop_oneof![Just(""), Just("h=a:1"), Just("h=b:1"), Just("h=a:1 h=b:1")];
    (host, path, method, headers).prop_map(|(host, path, method, headers)| format!("{host} {path} {method} {headers}"))
}

/// How exact a rule is for a request that it matches; `None`: it does not.
fn precedence(route: &Route, host: &str, path: &str, method: &str, headers: &[&str]) -> Option<impl Ord> {
    let host = match route.hosts.first() {
        None => (0, 0),
        Some(HostMatch::Exact(name)) => (name == host).then_some((2, name.len()))?,
        Some(HostMatch::Below(name)) => host.ends_with(&format!(".{name}")).then_some((1, name.len()))?,
    };
    let path = match &route.path {
        PathMatch::Exact(exact) => (exact == path).then_some((1, exact.len()))?,
        PathMatch::Prefix(prefix) => {
            let prefix = bare_prefix(prefix);
            let rest = path.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((0, prefix.len()))?
        }
    };
    let has_method = route.methods.is_empty() || route.methods.iter().any(|one| one == method);
    let has = |(name, value): &(String, String)| headers.contains(&format!("{name}:{value}").as_str());
    (has_method && route.headers.iter().all(has)).then_some((
        host,
        path,
        !route.methods.is_empty(),
        route.headers.len(),
    ))
}

proptest! {
    #[test]
    fn it_finds_what_a_look_at_every_rule_finds(
        // With a few rules for a host and with many.
        rules in prop_oneof![proptest::collection::vec(any_rule(), 0..12), proptest::collection::vec(any_rule(), 30..90)],
        host in prop_oneof![Just("a.b"), Just("c.b"), Just("c.a.b"), Just("b"), Just("z")],
        path in prop_oneof![Just("/"), Just("/x"), Just("/x/"), Just("/x/y"), Just("/x/y/z"), Just("/xx")],
        method in prop_oneof![Just("GET"), Just("PUT"), Just("POST")],
        headers in prop_oneof![Just(vec![]), Just(vec!["a:1"]), Just(vec!["a:1", "b:1"]), Just(vec!["a:2"])],
    ) {
        let routes: Vec<Route> = rules.iter().map(|text| rule(text)).collect();
        let table = RouteTable::new(routes.iter().enumerate().map(|(number, route)| (route, number)));
        let words: Vec<String> = headers.iter().map(|header| format!("h={header}")).collect();
        let found = find(&table, &format!("{method} {host}{path} {}", words.join(" ")), 0);
        let best = routes
            .iter()
            .enumerate()
            .filter_map(|(number, route)| Some((precedence(route, host, path, method, &headers)?, number)))
            .max_by(|(one, first), (other, second)| one.cmp(other).then(second.cmp(first)))
            .map(|(_, number)| number);
        prop_assert_eq!(found, best);
    }
}
