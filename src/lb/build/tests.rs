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
    LbTable::build(7, &HostName::local(), &[project.view()], &draining)
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
fn ports_of_a_project_answer_on_its_hosts_only() {
    let mut project = Project::new(demo("web back +publish=8080:80"), "web.1 back=10.0.0.1", &[]);
    assert_eq!(build(&project, &[]).published.len(), 1);
    project.desired.hosts = [HostName::new("b").expect("a name")].into();
    let table = build(&project, &[]);
    assert!(table.published.is_empty() && !table.vips.is_empty(), "names and addresses are everywhere");
    project.desired.hosts.insert(HostName::local());
    assert_eq!(build(&project, &[]).published.len(), 1);
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
fn ports_of_services_asked_to_run_are_published() {
    let services = "dns back +publish=53:53/udp +publish=53:5353\nweb back +publish=80:80\njob back +publish=81:81";
    let mut project = Project::new(demo(services), "dns.1 back=10.0.0.1", &[]);
    project.desired.enabled.retain(|service| service.as_str() != "job");
    let table = build(&project, &[]);
    let published: Vec<String> =
        table.published.iter().map(|(key, to)| format!("{}/{} to {}", key.port, key.protocol, to.target)).collect();
    assert_eq!(published, ["53/tcp to 5353", "53/udp to 53", "80/tcp to 80"]);
}

#[test]
fn pods_of_other_hosts_carry_their_host() {
    let mut project = Project::new(demo("web back +x2"), "web.1 back=10.0.0.1\nweb.2 back=10.0.0.2", &[]);
    move_to("b", &mut project, "web.2");
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

/// Moves a pod's container to another host.
fn move_to(host: &str, project: &mut Project, pod: &str) {
    let id = id(project, pod);
    let here = project.observed.hosts.get_mut(&HostName::local()).expect("one host");
    let moved = here.containers.remove(&id).expect("it is there");
    let there = project.observed.hosts.entry(HostName::new(host).expect("valid")).or_default();
    there.containers.insert(moved.id.clone(), moved);
}

#[test]
fn containers_that_run_are_reached_at_their_own_addresses() {
    let containers = "web.1 back=10.192.0.5 front=10.192.16.5\nweb.2 back=10.192.1.5 starting\n\
                      web.3 back=10.192.1.6\nweb.4 back=10.192.1.7 stopped\nweb.5 back=10.192.1.8 oneoff\n\
                      web.6 back=10.7.0.9\nweb.7 back=10.192.0.1\nweb.8 back=10.192.15.1";
    let mut project = Project::new(demo("web front back +x8"), containers, &[]);
    for number in 2..=8 {
        if number == 5 {
            continue;
        }
        move_to("b", &mut project, &format!("web.{number}"));
    }
    let table = build(&project, &["web.3"]);
    let pods: Vec<String> = table
        .pods
        .iter()
        .map(|(address, pod)| {
            format!("{} {address} {} on {}", pod.network.network, pod.endpoint.pod, pod.endpoint.host)
        })
        .collect();
    // Not web.4, which does not run, nor addresses that no container of the network can have.
    assert_eq!(
        pods,
        [
            "back 10.192.0.5 web.1 on local",
            "back 10.192.1.5 web.2 on b",
            "back 10.192.1.6 web.3 on b",
            "back 10.192.1.8 web.5 on local",
            "front 10.192.16.5 web.1 on local",
        ]
    );
    let elsewhere = |host| {
        let found = table.elsewhere(&HostName::new(host).expect("valid"));
        found.into_iter().map(|(id, addresses)| format!("{} {addresses:?}", id.network)).collect::<Vec<_>>()
    };
    assert_eq!(elsewhere("local"), ["back [10.192.1.5, 10.192.1.6]"]);
    assert_eq!(elsewhere("b"), ["back [10.192.0.5, 10.192.1.8]", "front [10.192.16.5]"]);
}

#[test]
fn of_two_with_one_address_the_own_one_counts_then_the_ready_one() {
    let containers = "web.1 back=10.192.0.5\nweb.2 back=10.192.0.5\nweb.3 back=10.192.0.5";
    let mut project = Project::new(demo("web back +x3"), containers, &[]);
    let at = |project: &Project, draining: &[&str]| {
        let table = build(project, draining);
        table.pods.values().map(|pod| pod.endpoint.pod.to_string()).collect::<Vec<_>>()
    };
    move_to("c", &mut project, "web.3");
    move_to("b", &mut project, "web.2");
    assert_eq!(at(&project, &["web.1"]), ["web.1"]);
    move_to("a", &mut project, "web.1");
    assert_eq!(at(&project, &["web.1", "web.3"]), ["web.2"]);
}

#[test]
fn projects_share_a_table_and_nothing_else() {
    let one = Project::new(demo("web back"), "web.1 back=10.0.0.1", &[]);
    let taken: Vec<ipnet::Ipv4Net> = one.desired.addresses.networks.values().map(|network| network.subnet).collect();
    let mut other = Project::new(demo("web back"), "web.1 back=10.2.0.1", &taken);
    other.desired.graph.project = ProjectName::new("other").expect("valid");
    let own = HostName::local();
    let table = LbTable::build(1, &own, &[one.view(), other.view()], &Draining::new());
    assert_eq!(text(&table), "demo/back web: web.1=10.0.0.1\nother/back web: web.1=10.2.0.1");
    let mut reversed = LbTable::build(1, &own, &[other.view(), one.view()], &Draining::new());
    reversed.version = table.version;
    assert_eq!(reversed, table, "the order of projects does not matter");
}
