use std::fmt::Write as _;

use super::*;
use crate::graph::Graph;
use crate::ids::ProjectName;
use crate::net::fixtures::{Project, graph};
use crate::plan::{ContainerState, Health};

/// One line for each virtual address and published port: who is behind it.
fn text(table: &LbTable) -> String {
    let mut text = String::new();
    let mut line = |door: String, backend: &Backend, port: String| {
        let endpoints: Vec<String> =
            backend.endpoints.iter().map(|endpoint| format!(" {}={}", endpoint.pod, endpoint.address)).collect();
        writeln!(text, "{door} {}{port}:{}", backend.service, endpoints.concat()).expect("memory");
    };
    for vip in table.vips.values() {
        line(format!("{}/{}", vip.network.project, vip.network.network), &vip.backend, String::new());
    }
    for (key, published) in &table.published {
        let address = key.host_ip.map_or("*".to_owned(), |ip| ip.to_string());
        line(format!("{address}:{}/{}", key.port, key.protocol), &published.backend, format!(":{}", published.target));
    }
    text.trim_end().to_owned()
}

fn build(project: &Project, draining: &[&str]) -> LbTable {
    let draining: Draining = draining.iter().map(|pod| id(project, pod)).collect();
    LbTable::build(7, &[project.view()], &draining)
}

/// The engine's id of a pod's container.
fn id(project: &Project, pod: &str) -> String {
    let mut containers = project.observed.hosts.values().flat_map(|host| host.containers.values());
    let found = containers.find(|container| container.pod().is_some_and(|id| id.to_string() == pod));
    found.unwrap_or_else(|| panic!("no container of {pod}")).id.clone()
}

fn demo(services: &str) -> Graph {
    graph("demo", "back\nfront", services)
}

#[track_caller]
fn check(services: &str, containers: &str, draining: &[&str], expected: &[&str]) {
    let project = Project::new(demo(services), containers, &[]);
    assert_eq!(text(&build(&project, draining)), expected.join("\n"));
}

#[test]
fn ready_pods_stand_behind_each_network_of_their_service() {
    check(
        "db back\nweb front back +x3",
        "web.2 back=10.0.0.2 front=10.1.0.2\nweb.1 front=10.1.0.1 back=10.0.0.1\nweb.3 back=10.0.0.3\ndb.1 back=10.0.0.9",
        &[],
        &[
            "demo/back db: db.1=10.0.0.9",
            "demo/back web: web.1=10.0.0.1 web.2=10.0.0.2 web.3=10.0.0.3",
            "demo/front web: web.1=10.1.0.1 web.2=10.1.0.2",
        ],
    );
}

#[test]
fn what_is_not_ready_or_is_draining_is_no_endpoint_but_its_service_stays() {
    check(
        "web back +x4",
        "web.1 back=10.0.0.1 starting\nweb.2 back=10.0.0.2 stopped\nweb.3 back=10.0.0.3\nweb.4 back=10.0.0.4 oneoff",
        &["web.3"],
        &["demo/back web:"],
    );
}

#[test]
fn health_decides() {
    for (health, ready) in
        [(Health::None, true), (Health::Healthy, true), (Health::Starting, false), (Health::Unhealthy, false)]
    {
        let mut project = Project::new(demo("web back"), "web.1 back=10.0.0.1", &[]);
        let host = project.observed.hosts.values_mut().next().expect("one host");
        let container = host.containers.values_mut().next().expect("one container");
        container.state = ContainerState::Running { health };
        let endpoints = build(&project, &[]).vips.into_values().next().expect("one address").backend.endpoints.len();
        assert_eq!(endpoints == 1, ready, "{health:?}");
    }
}

#[test]
fn a_published_port_reaches_pods_in_their_first_network() {
    check(
        "web front back +x2 +publish=8080:80 +publish=127.0.0.1@8443:443",
        "web.1 back=10.0.0.1 front=10.1.0.1\nweb.2 back=10.0.0.2",
        &[],
        &[
            "demo/back web: web.1=10.0.0.1 web.2=10.0.0.2",
            "demo/front web: web.1=10.1.0.1",
            "*:8080/tcp web:80: web.1=10.1.0.1 web.2=10.0.0.2",
            "127.0.0.1:8443/tcp web:443: web.1=10.1.0.1 web.2=10.0.0.2",
        ],
    );
}

#[test]
fn a_pod_in_the_namespace_of_another_is_reached_there() {
    check(
        "app back +x2\nproxy +in=app +x2 +publish=8080:80",
        "app.1 back=10.0.0.1\napp.2 back=10.0.0.2 stopped\nproxy.1\nproxy.2",
        &[],
        &["demo/back app: app.1=10.0.0.1", "*:8080/tcp proxy:80: proxy.1=10.0.0.1"],
    );
    let app_goes = &["app.1"];
    let (services, containers) = ("app back\nproxy +in=app +publish=8080:80", "app.1 back=10.0.0.1\nproxy.1");
    check(services, containers, app_goes, &["demo/back app:", "*:8080/tcp proxy:80:"]);
    check("a +in=b +publish=1:1\nb +in=a", "a.1\nb.1", &[], &["*:1/tcp a:1:"]);
}

#[test]
fn only_tcp_of_services_asked_to_run_is_published() {
    let mut project = Project::new(
        demo("dns back +publish=53:53/udp\nweb back +publish=80:80\njob back +publish=81:81"),
        "web.1 back=10.0.0.1",
        &[],
    );
    project.desired.enabled.retain(|service| service.as_str() != "job");
    let published: Vec<u16> = build(&project, &[]).published.keys().map(|key| key.port).collect();
    assert_eq!(published, [80]);
}

#[test]
fn pods_of_other_hosts_carry_their_host() {
    let mut project = Project::new(demo("web back +x2"), "web.1 back=10.0.0.1\nweb.2 back=10.0.0.2", &[]);
    let id = id(&project, "web.2");
    let here = project.observed.hosts.values_mut().next().expect("one host");
    let moved = here.containers.remove(&id).expect("web.2");
    let there = crate::plan::ObservedHost { containers: [(moved.id.clone(), moved)].into(), ..Default::default() };
    project.observed.hosts.insert(HostName::new("b").expect("valid"), there);
    let table = build(&project, &[]);
    let hosts: Vec<String> = table
        .vips
        .into_values()
        .next()
        .expect("one address")
        .backend
        .endpoints
        .iter()
        .map(|endpoint| format!("{} on {}", endpoint.pod, endpoint.host))
        .collect();
    assert_eq!(hosts, ["web.1 on local", "web.2 on b"]);
}

#[test]
fn projects_share_a_table_and_nothing_else() {
    let one = Project::new(demo("web back"), "web.1 back=10.0.0.1", &[]);
    let taken: Vec<ipnet::Ipv4Net> = one.desired.addresses.networks.values().map(|network| network.subnet).collect();
    let mut other = Project::new(demo("web back"), "web.1 back=10.2.0.1", &taken);
    other.desired.graph.project = ProjectName::new("other").expect("valid");
    let table = LbTable::build(1, &[one.view(), other.view()], &Draining::new());
    assert_eq!(text(&table), "demo/back web: web.1=10.0.0.1\nother/back web: web.1=10.2.0.1");
    let mut reversed = LbTable::build(1, &[other.view(), one.view()], &Draining::new());
    reversed.version = table.version;
    assert_eq!(reversed, table, "the order of projects does not matter");
}
