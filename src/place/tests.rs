//! Tables of placements on small fleets, and what holds for all of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::graph::{Graph, Protocol};
use crate::ids::HostName;
use crate::observed::{Observed, ObservedHost, ObservedVolume};
use crate::plan::fixture::{graph, host, pod};

use super::{Assignments, HostFacts, Listening, PortHolder, TakenPort, place};

/// Hosts, what is on them, and the last answer.
#[derive(Default)]
struct Fleet {
    hosts: BTreeMap<HostName, HostFacts>,
    observed: Observed,
    previous: Assignments,
}

impl Fleet {
    fn of(names: &[&str]) -> Self {
        let mut fleet = Self::default();
        for name in names {
            fleet.hosts.insert(host(name), HostFacts::default());
            fleet.observed.hosts.insert(host(name), ObservedHost::default());
        }
        fleet
    }

    fn with(mut self, name: &str, change: impl FnOnce(&mut HostFacts)) -> Self {
        change(self.hosts.get_mut(&host(name)).expect("the host"));
        self
    }

    fn labelled(self, name: &str, key: &str, value: &str) -> Self {
        self.with(name, |facts| drop(facts.labels.insert(key.to_owned(), value.to_owned())))
    }

    fn volume(mut self, name: &str, volume: &str) -> Self {
        let seen = self.observed.hosts.get_mut(&host(name)).expect("the host");
        let made = ObservedVolume { name: volume.to_owned(), driver: "local".to_owned(), labels: BTreeMap::new() };
        seen.volumes.insert(volume.to_owned(), made);
        self
    }

    fn before(mut self, pods: &[(&str, &str)]) -> Self {
        self.previous.pods = pods.iter().map(|(name, on)| (pod(name), host(on))).collect();
        self
    }

    fn place(&self, graph: &Graph) -> Assignments {
        place(graph, &self.hosts, &self.previous, &self.observed)
    }

    #[track_caller]
    fn check(&self, project: &str, expected: &str) {
        assert_eq!(brief(&self.place(&graph(project))), expected);
    }
}

/// `web.1 a, web.2 b; db.1: why not`.
fn brief(answer: &Assignments) -> String {
    let placed: Vec<String> = answer.pods.iter().map(|(pod, host)| format!("{pod} {host}")).collect();
    let refused = answer.unplaced.iter().map(|unplaced| format!("{}: {}", unplaced.pod, unplaced.summary));
    std::iter::once(placed.join(", ")).chain(refused).collect::<Vec<_>>().join("; ")
}

const DATA: &str = "volumes: {data: {}}\nservices: ";

fn mounts(name: &str, more: &str) -> String {
    format!("{name}: {{volumes: [{{type: volume, source: data, target: /d}}]{more}}}")
}

#[test]
fn pods_spread_over_hosts() {
    let fleet = Fleet::of(&["a", "b", "c"]);
    fleet.check("{web: {scale: 3}}", "web.1 a, web.2 b, web.3 c");
    fleet.check("{db: {}, web: {scale: 3}}", "db.1 a, web.1 b, web.2 c, web.3 a");
    Fleet::of(&[]).check("web: {}", "; web.1: there is no host");
}

#[test]
fn labels_are_spread_over_first() {
    let fleet =
        Fleet::of(&["a", "b", "c"]).labelled("a", "zone", "x").labelled("b", "zone", "x").labelled("c", "zone", "y");
    let spread = "{web: {scale: 4, deploy: {placement: {preferences: [{spread: node.labels.zone}]}}}}";
    fleet.check(spread, "web.1 a, web.2 c, web.3 b, web.4 c");
}

#[test]
fn what_runs_stays() {
    let fleet = Fleet::of(&["a", "b", "c"]).before(&[("web.1", "c"), ("web.2", "c")]);
    fleet.check("web: {scale: 3}", "web.1 c, web.2 c, web.3 a");
}

#[test]
fn what_is_observed_is_adopted() {
    let mut world = crate::plan::fixture::World::running("web: {scale: 2}", &["a", "b"]);
    world.hosts.insert(host("_"), HostFacts::default());
    world.desired.assignments = Assignments::default();
    world.up("web: {scale: 2}");
    assert_eq!(brief(&world.desired.assignments), "web.1 a, web.2 b");
}

#[test]
fn constraints() {
    let fleet = Fleet::of(&["a", "b", "c"]).labelled("b", "disk", "SSD").with("c", |facts| {
        facts.hostname = "big".to_owned();
        facts.arch = "aarch64".to_owned();
        facts.engine_labels.insert("gpu".to_owned(), "1".to_owned());
    });
    let check = |constraint: &str, expected: &str| {
        fleet.check(&format!("web: {{deploy: {{placement: {{constraints: ['{constraint}']}}}}}}"), expected);
    };
    check("node.labels.disk == ssd", "web.1 b");
    check("node.labels.disk!=ssd", "web.1 a");
    check("node.hostname == big", "web.1 c");
    check("node.hostname == b", "web.1 b");
    check("node.platform.arch == arm64", "web.1 c");
    check("engine.labels.gpu == 1", "web.1 c");
    check("node.role == manager", "web.1 a");
    check("node.labels.disk == tape", "; web.1: constraint `node.labels.disk == tape` not met on 3 hosts");
}

#[test]
fn refusals_are_counted() {
    let fleet = Fleet::of(&["a", "b", "c"])
        .with("a", |facts| facts.memory = 256 << 20)
        .with("b", |facts| facts.draining = true)
        .with("c", |facts| (facts.memory, facts.reserved.1) = (2 << 30, 1900 << 20));
    let project = "web: {deploy: {resources: {reservations: {memory: '536870912'}}}}";
    fleet.check(project, "; web.1: memory short on 2 hosts, `b` is draining");
    let answer = fleet.place(&graph(project));
    let why: Vec<&String> = answer.unplaced[0].refusals.values().collect();
    assert_eq!(
        why,
        ["memory short: 512 MiB needed, 256 MiB free", "it is draining", "memory short: 512 MiB needed, 148 MiB free"]
    );
}

#[test]
fn devices_are_given_out_once_and_counted_over_projects() {
    let known = |facts: &mut HostFacts, gpus: i64| {
        facts.devices.runtimes.insert("runc".to_owned());
        facts.devices.kinds.insert("gpu".to_owned(), gpus);
    };
    let fleet = Fleet::of(&["a", "b", "c"]).with("a", |facts| known(facts, 2)).with("b", |facts| {
        known(facts, 3);
        facts.reserved_devices.insert("gpu".to_owned(), 2);
    });
    let fleet = fleet.with("c", |facts| facts.devices.runtimes = std::iter::once("runc".to_owned()).collect());
    let project = "web: {scale: 4, deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}]}}}}";
    fleet
        .check(project, "web.1 a, web.2 b, web.3 a; web.4: devices `gpu` short on 2 hosts, no device for `gpu` on `c`");
    let counted = "web: {deploy: {resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: gpu, value: 3}}]}}}}";
    fleet.check(counted, "; web.1: devices `gpu` short on 2 hosts, no device for `gpu` on `c`");
}

#[test]
fn cpus_are_reserved_by_each_replica() {
    let fleet = Fleet::of(&["a"]).with("a", |facts| facts.nano_cpus = 2_000_000_000);
    let project = "web: {scale: 3, deploy: {resources: {reservations: {cpus: 0.75}}}}";
    fleet.check(project, "web.1 a, web.2 a; web.3: CPUs short on `a`");
}

#[test]
fn host_ports_clash() {
    let fleet = Fleet::of(&["a", "b"]);
    let port = |published: &str| format!("ports: [{{target: 80, published: '{published}', mode: host}}]");
    let web = |published: &str, scale: u8| format!("web: {{scale: {scale}, {}}}", port(published));
    fleet.check(&web("80", 3), "web.1 a, web.2 b; web.3: port 80/tcp taken on 2 hosts");
    fleet.check(&web("80-81", 3), "web.1 a, web.2 b, web.3 a");
    fleet.check(&web("0", 3), "web.1 a, web.2 b, web.3 a");
    fleet.check(&format!("{{x: {{{0}}}, y: {{{0}}}}}", port("80")), "x.1 a, y.1 b");
}

#[test]
fn host_ports_of_others_are_taken() {
    let taken = |address: Option<&str>, port: u16, by: PortHolder| {
        let at =
            Listening { address: address.map(|ip| ip.parse().expect("an address")), port, protocol: Protocol::Tcp };
        TakenPort { at, by }
    };
    let other = PortHolder::Service("other".parse().expect("a name"), "db".parse().expect("a name"));
    let fleet = Fleet::of(&["a", "b", "c"])
        .with("a", |facts| facts.ports = vec![taken(Some("127.0.0.1"), 80, PortHolder::Process)])
        .with("b", |facts| facts.ports = vec![taken(None, 80, other.clone()), taken(None, 81, other)]);
    let web = |published: &str, more: &str| {
        format!("web: {{scale: 2, ports: [{{target: 80, published: '{published}', mode: host{more}}}]}}")
    };
    fleet.check(&web("80", ""), "web.1 c; web.2: port 80/tcp taken on 3 hosts");
    let why: Vec<String> = fleet.place(&graph(&web("80", ""))).unplaced[0].refusals.values().cloned().collect();
    let said = ["a process there", "service `db` of project `other`", "another pod"];
    assert_eq!(why, said.map(|by| format!("port 80/tcp taken by {by}")));
    fleet.check(&web("80-81", ""), "web.1 a, web.2 c");
    fleet.check(&web("82", ""), "web.1 a, web.2 b");
    fleet.check(&web("80", ", host_ip: 10.0.0.1"), "web.1 a, web.2 c");
}

#[test]
fn a_project_keeps_to_its_hosts() {
    let fleet = Fleet::of(&["a", "b", "c"]).with("b", |facts| facts.excluded = true).before(&[("web.1", "b")]);
    fleet.check("web: {scale: 3}", "web.1 a, web.2 c, web.3 a");
    fleet.check("agent: {deploy: {mode: global}}", "agent.1 a, agent.2 c");
    let picky = "db: {deploy: {placement: {constraints: [node.hostname == b]}}}";
    fleet.check(picky, "; db.1: constraint `node.hostname == b` not met on 2 hosts, `b` is not among x-hosts");
}

#[test]
fn most_per_host() {
    let project = "web: {scale: 3, deploy: {placement: {max_replicas_per_node: 1}}}";
    Fleet::of(&["a", "b"]).check(project, "web.1 a, web.2 b; web.3: limit of 1 a host reached on 2 hosts");
}

#[test]
fn platforms() {
    let fleet = Fleet::of(&["a"]).with("a", |facts| (facts.os, facts.arch) = ("linux".to_owned(), "x86_64".to_owned()));
    fleet.check("web: {platform: linux/amd64}", "web.1 a");
    fleet.check("web: {platform: linux/arm64/v8}", "; web.1: platform `linux/arm64/v8` not on `a`");
}

#[test]
fn draining_hosts_are_emptied_where_that_is_possible() {
    let fleet =
        Fleet::of(&["a", "b"]).with("a", |facts| facts.draining = true).before(&[("web.1", "a"), ("db.1", "a")]);
    fleet.check("web: {}", "web.1 b");
    let alone = "db: {deploy: {placement: {constraints: [node.hostname == a]}}}";
    fleet.check(alone, "db.1 a");
}

#[test]
fn local_volumes_pin_their_services() {
    let project = format!("{DATA}{{{}, {}}}", mounts("db", ""), mounts("backup", ", scale: 2"));
    Fleet::of(&["a", "b"]).check(&project, "backup.1 a, backup.2 a, db.1 a");
    Fleet::of(&["a", "b"]).volume("b", "shop_data").check(&project, "backup.1 b, backup.2 b, db.1 b");
    let moved = Fleet::of(&["a", "b"]).volume("b", "shop_data").before(&[("db.1", "a")]);
    moved.check(&format!("{DATA}{{{}}}", mounts("db", "")), "db.1 b");
}

#[test]
fn a_volume_on_a_lost_host_is_waited_for() {
    let project = format!("{DATA}{{{}, web: {{}}}}", mounts("db", ""));
    let fleet = Fleet::of(&["a"]).before(&[("db.1", "lost"), ("web.1", "lost")]);
    fleet.check(&project, "db.1 lost, web.1 a; db.1: volume `data` not on `a`");
}

#[test]
fn who_is_blocked_by_a_lost_host_says_what_can_be_done_and_is_free_once_it_is_given_up() {
    let rules = ", deploy: {placement: {constraints: ['node.hostname != a']}}";
    let project = graph(&format!("{DATA}{{{}, web: {{scale: 2}}}}", mounts("db", rules)));
    let fleet = Fleet::of(&["a", "b"]).before(&[("db.1", "lost"), ("web.1", "lost"), ("web.2", "a")]);
    let blocked = fleet.place(&project);
    assert_eq!(
        brief(&blocked),
        "db.1 lost, web.1 b, web.2 a; db.1: constraint `node.hostname != a` not met on `a`, \
                                 volume `data` not on `b`"
    );
    let said = "`db.1` is blocked: volume `data` is on `lost`, which does not answer; bring `lost` back, or give up what the \
                volume holds: `orch host rm --force lost`";
    assert_eq!(blocked.unplaced[0].sentence("`db.1`", false), said);
    let members = [host("a"), host("b")].into();
    let given_up = Fleet { previous: blocked.on(&members), ..fleet };
    assert_eq!(brief(&given_up.place(&project)), "db.1 b, web.1 b, web.2 a");
}

#[test]
fn volumes_on_the_network_move() {
    let nfs = "volumes: {data: {driver_opts: {type: nfs, o: 'addr=10.0.0.1', device: ':/x'}}}\nservices: ";
    let project = format!("{nfs}{{{}}}", mounts("web", ", scale: 2"));
    Fleet::of(&["a", "b"]).check(&project, "web.1 a, web.2 b");
}

#[test]
fn a_new_volume_is_made_where_all_its_users_can_be() {
    let fleet = Fleet::of(&["a", "b"]).labelled("b", "disk", "ssd");
    let picky = mounts("z", ", deploy: {placement: {constraints: [node.labels.disk == ssd]}}");
    fleet.check(&format!("{DATA}{{{}, {picky}}}", mounts("db", "")), "db.1 b, z.1 b");
}

#[test]
fn who_shares_a_namespace_is_on_the_same_host() {
    let fleet = Fleet::of(&["a", "b"]).labelled("b", "disk", "ssd");
    fleet
        .check("{web: {scale: 2}, log: {network_mode: 'service:web', scale: 2}}", "log.1 a, log.2 b, web.1 a, web.2 b");
    let picky =
        "{web: {}, log: {network_mode: 'service:web', deploy: {placement: {constraints: [node.labels.disk == ssd]}}}}";
    fleet.check(picky, "log.1 b, web.1 b");
}

#[test]
fn global_services_are_on_every_host_that_they_may_be_on() {
    let fleet = Fleet::of(&["a", "b", "c"]).with("b", |facts| facts.draining = true);
    fleet.check("agent: {deploy: {mode: global}}", "agent.1 a, agent.2 c");
    let grown = Fleet::of(&["a", "b", "c"]).before(&[("agent.1", "a"), ("agent.2", "c")]);
    grown.check("agent: {deploy: {mode: global}}", "agent.1 a, agent.2 c, agent.3 b");
    let full = Fleet::of(&["a", "b"]).with("a", |facts| facts.memory = 1);
    let project = "agent: {deploy: {mode: global, resources: {reservations: {memory: '1024'}}}}";
    full.check(project, "agent.1 b; agent.1: memory short on `a`");
}

proptest! {
    #[test]
    fn placing_is_sticky_and_deterministic(
        scales in prop::collection::vec(0..6_u32, 3),
        grown in prop::collection::vec(0..6_u32, 3),
        hosts in 1..5_usize,
        more in 0..3_usize,
    ) {
        let project = |scales: &[u32]| {
            let services = scales.iter().enumerate().map(|(index, scale)| format!("s{index}: {{scale: {scale}}}"));
            graph(&format!("{{{}}}", services.collect::<Vec<_>>().join(", ")))
        };
        let names = ["a", "b", "c", "d", "e", "f"];
        let first = Fleet::of(&names[..hosts]).place(&project(&scales));
        prop_assert_eq!(&first, &Fleet::of(&names[..hosts]).place(&project(&scales)));
        let mut fleet = Fleet::of(&names[..hosts + more]);
        fleet.previous = first.clone();
        let second = fleet.place(&project(&grown));
        for (pod, host) in &second.pods {
            prop_assert!(first.pods.get(pod).is_none_or(|before| before == host), "{} moved", pod);
        }
        fleet.previous = second.clone();
        prop_assert_eq!(second, fleet.place(&project(&grown)));
    }
}
