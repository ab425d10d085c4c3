use crate::net::fixtures::{Project, graph};

use super::*;

/// Who asks, from which address.
const WEB: &str = "10.192.16.2";
const DB: &str = "10.192.0.3";

/// web (front, back), db (back), api x2 (front); virtual addresses are front .31.x, back .15.x.
fn shop() -> Project {
    let services = "web front back/www +link=db:database +port=http:80 +expose=9\n\
                    db back/sql +name=db +expose=5432 +hostname=dbhost\n\
                    api front/rest/www +x3 +dnsrr +port=http:8080 +expose=53/udp";
    let graph = graph("shop", "back\nfront", services);
    let containers = "web.1 front=10.192.16.2 back=10.192.0.2\n\
                      db.1 back=10.192.0.3\n\
                      api.1 front=10.192.16.4\n\
                      api.2 front=10.192.16.5 starting\n\
                      api.3 front=10.192.16.6";
    Project::new(graph, containers, &[])
}

fn table(projects: &[&Project]) -> NameTable {
    NameTable::build(7, &projects.iter().map(|project| project.view()).collect::<Vec<_>>())
}

/// Writes an answer as short text.
fn show(answer: &Answer<'_>) -> String {
    let list = |items: Vec<String>, ttl: &u32| format!("{} ttl {ttl}", items.join(" "));
    match answer {
        Answer::Addresses { addresses, ttl_secs } => {
            list(addresses.iter().map(ToString::to_string).collect(), ttl_secs)
        }
        Answer::Pointer { name, ttl_secs } => format!("{name} ttl {ttl_secs}"),
        Answer::Services { records, ttl_secs } => {
            list(records.iter().map(|r| format!("{}:{}={}", r.target, r.port, r.address)).collect(), ttl_secs)
        }
        Answer::NoData { .. } => "empty".into(),
        Answer::NoName { .. } => "no name".into(),
        Answer::Forward { upstreams } if upstreams.is_empty() => "forward".into(),
        Answer::Forward { upstreams } => format!("forward to {upstreams:?}"),
        Answer::Refused => "refused".into(),
    }
}

fn ask(table: &NameTable, source: &str, name: &str, kind: RecordKind) -> String {
    show(&table.answer(source.parse().expect("an address"), name, kind))
}

#[track_caller]
fn check(table: &NameTable, source: &str, cases: &[(&str, &str)]) {
    for (name, expected) in cases {
        assert_eq!(ask(table, source, name, RecordKind::A), *expected, "{source} asks for {name}");
    }
}

#[test]
fn services_answer_with_their_virtual_address_on_the_first_shared_network() {
    let table = table(&[&shop()]);
    assert_eq!(table.version(), 7);
    check(
        &table,
        WEB,
        &[
            ("web", "10.192.31.1 ttl 30"), // it is on front first
            ("db", "10.192.15.0 ttl 30"),  // although its container has the name `db` too
            ("sql", "10.192.15.0 ttl 30"),
            ("db.shop.orch.internal", "10.192.15.0 ttl 30"),
            ("sql.shop.orch.internal", "10.192.15.0 ttl 30"),
        ],
    );
    check(&table, DB, &[("web", "10.192.15.1 ttl 30"), ("www", "10.192.15.1 ttl 30")]);
}

#[test]
fn tasks_and_dnsrr_answer_with_ready_pods() {
    let ready = "10.192.16.4 10.192.16.6 ttl 2";
    let table = table(&[&shop()]);
    let full = "tasks.api.shop.orch.internal";
    check(&table, WEB, &[("tasks.api", ready), ("api", ready), ("rest", ready), (full, ready)]);
    check(&table, WEB, &[("tasks.db", "10.192.0.3 ttl 2"), ("tasks.web", "10.192.16.2 ttl 2")]);
}

#[test]
fn single_pods_answer_when_they_run() {
    check(
        &table(&[&shop()]),
        WEB,
        &[
            ("1.api", "10.192.16.4 ttl 2"),
            ("2.api", "10.192.16.5 ttl 2"), // runs, but is not ready
            ("2.api.shop.orch.internal", "10.192.16.5 ttl 2"),
            ("4.api", "no name"),
            ("shop-api-3", "10.192.16.6 ttl 2"),
            ("dbhost", "10.192.0.3 ttl 2"),
            ("id-api-1-000", "10.192.16.4 ttl 2"),
            ("shop-web-1", "10.192.16.2 ttl 2"),
        ],
    );
}

#[test]
fn a_stopped_pod_has_a_name_without_an_address() {
    let graph = graph("p", "n", "a n +x2 +dnsrr\nb n");
    let table = table(&[&Project::new(graph, "a.1 stopped\nb.1 n=10.192.0.2", &[])]);
    let cases = [("a", "empty"), ("tasks.a", "empty"), ("1.a", "empty"), ("2.a", "empty"), ("3.a", "no name")];
    check(&table, "10.192.0.2", &cases);
}

#[test]
fn a_pod_that_is_scaled_away_is_no_task_any_more() {
    let graph = graph("p", "n", "a n +dnsrr");
    let table = table(&[&Project::new(graph, "a.1 n=10.192.0.2\na.2 n=10.192.0.3", &[])]);
    check(&table, "10.192.0.2", &[("a", "10.192.0.2 ttl 2"), ("2.a", "10.192.0.3 ttl 2")]);
}

#[test]
fn links_are_for_the_linking_service_only() {
    let table = table(&[&shop()]);
    check(
        &table,
        WEB,
        &[
            ("database", "10.192.15.0 ttl 30"),
            ("tasks.database", "10.192.0.3 ttl 2"),
            ("1.database", "10.192.0.3 ttl 2"),
            ("db-1", "10.192.0.3 ttl 2"),
        ],
    );
    check(&table, DB, &[("database", "forward"), ("db-1", "forward")]);
}

#[test]
fn a_link_wins_over_a_service_of_the_same_name_but_needs_a_shared_network() {
    let services = "a n/blue +link=b:c +link=far:near\nb n\nc n\nfar m";
    let project = Project::new(graph("p", "m\nn", services), "a.1 n=10.192.16.2\nb.1 n=10.192.16.3", &[]);
    let table = table(&[&project]);
    check(&table, "10.192.16.2", &[("c", "10.192.31.1 ttl 30"), ("near", "forward"), ("far", "forward")]);
    check(&table, "10.192.16.3", &[("c", "10.192.31.2 ttl 30")]);
}

#[test]
fn a_link_means_the_service_and_not_an_alias_that_reads_the_same() {
    let services = "a m n +link=b:x\nb n\nc m/b";
    let project = Project::new(graph("p", "m\nn", services), "a.1 m=10.192.0.2 n=10.192.16.2", &[]);
    check(&table(&[&project]), "10.192.0.2", &[("x", "10.192.31.1 ttl 30"), ("b", "10.192.15.1 ttl 30")]);
}

#[test]
fn networks_that_are_not_shared_hide_everything() {
    let table = table(&[&shop()]);
    for name in ["api", "rest", "shop-api-1", "id-api-1-000"] {
        check(&table, DB, &[(name, "forward"), (&format!("{name}.shop.orch.internal"), "no name")]);
    }
    // These cannot be names of the outside, or would tell more than the asker may know.
    assert_eq!(ask(&table, DB, "4.16.192.10.in-addr.arpa", RecordKind::Ptr), "no name");
    assert_eq!(ask(&table, DB, "_http._tcp.api", RecordKind::Srv), "forward");
}

#[test]
fn projects_do_not_see_each_other() {
    let one = shop();
    let taken: Vec<Ipv4Net> = one.desired.addresses.networks.values().map(|network| network.subnet).collect();
    let two = Project::new(graph("other", "n", "db n\nmine n"), "mine.1 n=10.192.32.2", &taken);
    let table = table(&[&one, &two]);
    let asker = "10.192.32.2";
    check(
        &table,
        asker,
        &[
            ("db", "10.192.47.0 ttl 30"),
            ("web", "forward"),
            ("web.shop.orch.internal", "no name"),
            ("shop.orch.internal", "no name"),
            ("db.other.orch.internal", "10.192.47.0 ttl 30"),
            ("other.orch.internal", "empty"),
        ],
    );
    assert_eq!(ask(&table, asker, "0.15.192.10.in-addr.arpa", RecordKind::Ptr), "no name");
    check(&table, WEB, &[("mine", "forward"), ("db", "10.192.15.0 ttl 30")]);
}

#[test]
fn an_external_network_answers_with_pods_and_joins_projects() {
    let make =
        |project, services, containers| Project::new(graph(project, "edge external=edge", services), containers, &[]);
    let one = make("one", "proxy edge\nweb edge", "proxy.1 edge=192.168.0.2\nweb.1 edge=192.168.0.3");
    let two = make("two", "web edge\nshop edge/store", "web.1 edge=192.168.0.4\nshop.1 edge=192.168.0.5");
    check(
        &table(&[&one, &two]),
        "192.168.0.2",
        &[
            ("web", "192.168.0.3 ttl 2"), // the own project's first
            ("web.two.orch.internal", "192.168.0.4 ttl 2"),
            ("store", "192.168.0.5 ttl 2"),
        ],
    );
    check(&table(&[&one, &two]), "192.168.0.9", &[("proxy", "192.168.0.2 ttl 2")]);
}

#[test]
fn services_that_share_an_alias_answer_together() {
    let project = Project::new(graph("p", "n", "a n/x\nb n/x/a\nc n/a"), "a.1 n=10.192.0.2", &[]);
    let cases = [("x", "10.192.15.0 10.192.15.1 ttl 30"), ("a", "10.192.15.0 ttl 30")];
    check(&table(&[&project]), "10.192.0.2", &cases);
}

#[test]
fn ports_are_found_by_name_and_number() {
    let table = table(&[&shop()]);
    let cases = [
        (WEB, "_http._tcp.web", "web.shop.orch.internal:80=10.192.31.1 ttl 30"),
        (WEB, "_80._tcp.web.shop.orch.internal", "web.shop.orch.internal:80=10.192.31.1 ttl 30"),
        (DB, "_tcp.web", "web.shop.orch.internal:9=10.192.15.1 web.shop.orch.internal:80=10.192.15.1 ttl 30"),
        (WEB, "_tcp.database", "db.shop.orch.internal:5432=10.192.15.0 ttl 30"),
        (
            WEB,
            "_http._tcp.api",
            "1.api.shop.orch.internal:8080=10.192.16.4 3.api.shop.orch.internal:8080=10.192.16.6 ttl 2",
        ),
        (WEB, "_53._udp.2.api", "2.api.shop.orch.internal:53=10.192.16.5 ttl 2"),
        (WEB, "_81._tcp.web", "no name"),
        (WEB, "_http._udp.web", "no name"),
        (WEB, "_ldap._tcp.example.com", "forward"),
        (WEB, "web", "empty"),
    ];
    for (source, name, expected) in cases {
        assert_eq!(ask(&table, source, name, RecordKind::Srv), expected, "{name}");
    }
    check(&table, WEB, &[("_http._tcp.web", "empty"), ("_x._tcp", "forward"), ("_", "forward"), ("_.", "forward")]);
}

#[test]
fn addresses_have_names() {
    let table = table(&[&shop()]);
    let cases = [
        ("1.31.192.10.in-addr.arpa", "web.shop.orch.internal ttl 2"),
        ("5.16.192.10.in-addr.arpa", "2.api.shop.orch.internal ttl 2"),
        ("9.16.192.10.in-addr.arpa", "no name"),
        ("8.8.8.8.in-addr.arpa", "forward"),
        ("16.192.10.in-addr.arpa", "forward"),
        ("1.5.16.192.10.in-addr.arpa", "forward"),
        ("x.16.192.10.in-addr.arpa", "forward"),
    ];
    for (name, expected) in cases {
        assert_eq!(ask(&table, WEB, name, RecordKind::Ptr), expected, "{name}");
    }
    check(&table, WEB, &[("5.16.192.10.in-addr.arpa", "empty")]);
}

#[test]
fn other_types_of_known_names_are_empty_and_unknown_names_go_out() {
    let table = table(&[&shop()]);
    for (name, expected) in [("web", "empty"), ("database", "empty"), ("example.com", "forward"), ("nope", "forward")] {
        assert_eq!(ask(&table, WEB, name, RecordKind::Other), expected, "{name}");
    }
    let cases = [("", "forward"), (".", "forward"), ("orch.internal", "empty"), ("x.orch.internal", "no name")];
    check(&table, WEB, &cases);
    check(&table, WEB, &[("notorch.internal", "forward"), ("tasks.nope", "forward"), ("5.com", "forward")]);
}

#[test]
fn resolvers_of_the_service_are_asked_instead_of_the_hosts() {
    let services = "a n +dns=192.0.2.1 +dns=192.0.2.2:5353 +dns=rubbish\nb n";
    let project = Project::new(graph("p", "n", services), "a.1 n=10.192.0.2\nb.1 n=10.192.0.3", &[]);
    let table = table(&[&project]);
    check(&table, "10.192.0.2", &[("example.com", "forward to [192.0.2.1:53, 192.0.2.2:5353]")]);
    check(&table, "10.192.0.3", &[("example.com", "forward")]);
}

#[test]
fn internal_networks_have_no_resolver_to_the_outside() {
    let services = "in i\nboth i o";
    let containers = "in.1 i=10.192.0.2\nboth.1 i=10.192.0.3 o=10.192.16.3";
    let table = table(&[&Project::new(graph("p", "i internal\no", services), containers, &[])]);
    check(&table, "10.192.0.2", &[("both", "10.192.15.0 ttl 30"), ("example.com", "no name")]);
    check(&table, "10.192.0.3", &[("example.com", "forward")]);
    check(&table, "10.192.0.9", &[("example.com", "no name")]);
}

#[test]
fn strangers_are_refused_and_newcomers_see_their_network() {
    let table = table(&[&shop()]);
    let newcomer = "10.192.16.77";
    check(&table, newcomer, &[("web", "10.192.31.1 ttl 30"), ("db", "forward"), ("database", "forward")]);
    assert!(table.is_newcomer(newcomer.parse().expect("an address")));
    assert!(!table.is_newcomer(WEB.parse().expect("an address")));
    for stranger in ["127.0.0.1", "8.8.8.8", "10.192.16.1"] {
        check(&table, stranger, &[("web", "refused"), ("example.com", "refused")]);
        assert!(!table.is_newcomer(stranger.parse().expect("an address")));
    }
    check(&NameTable::default(), WEB, &[("web", "refused")]);
}

#[test]
fn one_off_containers_ask_as_their_service_and_are_no_pods() {
    let graph = graph("p", "n", "a n +dnsrr +link=b:bee\nb n");
    let table = table(&[&Project::new(graph, "a.1 n=10.192.0.2 oneoff", &[])]);
    let cases = [("bee", "10.192.15.1 ttl 30"), ("a", "empty"), ("p-a-run-1", "10.192.0.2 ttl 2")];
    check(&table, "10.192.0.2", &cases);
}

#[test]
fn names_are_found_in_lower_case() {
    let project = Project::new(graph("p", "n", "Web n/WWW +port=HTTP:80"), "Web.1 n=10.192.0.2", &[]);
    let table = table(&[&project]);
    check(&table, "10.192.0.2", &[("web", "10.192.15.0 ttl 30"), ("www", "10.192.15.0 ttl 30")]);
    check(&table, "10.192.0.2", &[("tasks.web", "10.192.0.2 ttl 2")]);
    assert!(ask(&table, "10.192.0.2", "_http._tcp.web", RecordKind::Srv).starts_with("web.p."));
}

#[test]
fn every_pointer_leads_back_to_its_address() {
    let project = shop();
    let table = table(&[&project]);
    let source = WEB.parse().expect("an address");
    let pointers: Vec<(&Ipv4Addr, &String)> = table.zones.iter().flat_map(|zone| &zone.reverse).collect();
    assert_eq!(pointers.len(), 6 + 3, "containers on their networks, virtual addresses: {pointers:?}");
    let front = project.desired.addresses.networks["front"].subnet;
    for (address, name) in pointers {
        let answer = table.answer(source, name, RecordKind::A);
        let Answer::Addresses { addresses, .. } = answer else { panic!("{name}: {answer:?}") };
        // The asker is on both networks; of a name that is on both it gets the first one's address.
        let back_only = name.starts_with("db.") || name.starts_with("1.db.");
        assert!(addresses == [*address] || (!front.contains(address) && !back_only), "{name} {address} {addresses:?}");
    }
}
