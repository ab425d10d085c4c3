//! UDP: by name, at published ports, over hosts, while pods come and go.
#![expect(clippy::print_stdout, reason = "figures, for who asks for the output of tests that pass")]

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::Host;
use crate::names::dig;
use crate::project::Project;
use crate::wait::{eventually, secs};

/// What a client of datagrams counted.
#[derive(Debug)]
struct Counted {
    sent: u64,
    answered: u64,
    doubled: u64,
    by: BTreeSet<String>,
    longest_gap_ms: u64,
}

impl Counted {
    fn read(text: &str) -> Self {
        let report: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("no counts: {text}"));
        let number = |key: &str| report[key].as_u64().expect("a number");
        Self {
            sent: number("sent"),
            answered: number("answered"),
            doubled: number("doubled"),
            by: report["by"].as_object().expect("names").keys().cloned().collect(),
            longest_gap_ms: number("longest_gap_ms"),
        }
    }

    #[track_caller]
    fn all(self, what: &str) -> BTreeSet<String> {
        assert_eq!((self.answered, self.doubled), (self.sent, 0), "{what}: {self:?}");
        self.by
    }
}

/// Sends datagrams from a container of the project that is orch itself.
#[track_caller]
fn from_container(project: &Project, container: &str, target: &str, args: &[&str]) -> Counted {
    let argv = [&["docker", "exec", container, "/orch", "demo", "datagrams", target], args].concat();
    Counted::read(&project.host.exec(&argv).ok())
}

/// Sends datagrams from a host.
#[track_caller]
fn from_host(host: &Host, target: &str, args: &[&str]) -> Counted {
    Counted::read(&host.orch(&[&["demo", "datagrams", target], args].concat()).ok())
}

/// Enough clients that each of a few pods has some.
const SPREAD: &[&str] = &["--count", "60", "--sockets", "30"];

#[test]
fn udp_example_answers_by_name_and_at_its_port_and_loses_nothing() {
    let host = Host::boot(&[]);
    let udp = Project::example(&host, "udp");
    udp.up();
    let pods = udp.running("echo");
    assert_eq!(from_container(&udp, "udp-client-1", "echo:7", SPREAD).all("by name"), pods);
    for address in ["127.0.0.1", &host.address().to_string()] {
        assert_eq!(from_host(&host, &format!("{address}:8093"), SPREAD).all(address), pods);
    }
    let thousand = &["--count", "1000", "--rate", "5000"];
    assert_eq!(
        from_container(&udp, "udp-client-1", "echo:7", thousand).all("a thousand").len(),
        1,
        "one client, one pod"
    );
    let large = &["--count", "20", "--size", "60000", "--rate", "100"];
    from_container(&udp, "udp-client-1", "echo:7", large).all("large ones");
    from_host(&host, "127.0.0.1:8093", large).all("large ones");

    // Nobody declared this one: refused as without a load balancer.
    let vip =
        host.orch(&["-f", "/root/udp/compose.yaml", "exec", "-T", "client", "/orch", "demo", "resolve", "echo"]).ok();
    let vip = vip.split_whitespace().last().expect("an address").to_owned();
    let script = format!("exec 3<>/dev/udp/{vip}/8; echo x >&3; sleep 0.2; echo x >&3");
    let done = host.exec_beside("udp-client-1", &["bash", "-ec", &script]);
    assert!(done.stderr.contains("Connection refused"), "{done:?}");

    udp.down();
    let done = host.exec(&["bash", "-ec", "exec 3<>/dev/udp/127.0.0.1/8093; echo x >&3; sleep 0.2; echo x >&3"]);
    assert!(done.stderr.contains("Connection refused"), "after `down`: {done:?}");
}

#[test]
fn pods_killed_four_times_lose_no_more_than_fifty_of_eight_thousand_datagrams() {
    let host = Host::boot(&[]);
    let udp = Project::example(&host, "udp");
    udp.up();
    let args = ["demo", "datagrams", "127.0.0.1:8093", "--count", "8000", "--rate", "1000", "--sockets", "20"];
    let probe = host.start_orch(&args);
    for number in [1, 2, 3, 1] {
        crate::wait::apart(secs(1));
        let name = udp.container("echo", number);
        let before = udp.inspect(&name, "{{.State.StartedAt}}");
        host.sh(&format!("kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {name})"));
        eventually(secs(15), "it runs again", || {
            let now = udp.inspect(&name, "{{.State.StartedAt}} {{.State.Running}}");
            if now != format!("{before} false") && now.ends_with("true") && !now.starts_with(&before) {
                Ok(())
            } else {
                Err(now)
            }
        });
    }
    let counted = Counted::read(&probe.finish().ok());
    assert_eq!(counted.sent, 8000);
    println!("four kills: {counted:?}");
    // What a pod did not answer before it died is asked of another one, as far as it is kept.
    assert!(counted.answered >= 7950, "{counted:?}");
    assert!(counted.longest_gap_ms < 1500, "every client went on: {counted:?}");
    udp.down();
}

#[test]
fn scaling_and_replacing_lose_no_datagram() {
    let host = Host::boot(&[]);
    let udp = Project::example(&host, "udp");
    udp.up();
    let args = ["demo", "datagrams", "127.0.0.1:8093", "--count", "10000", "--rate", "500", "--sockets", "10"];
    let probe = host.start_orch(&args);
    for scale in ["echo=1", "echo=4", "echo=2"] {
        udp.orch(&["up", "-d", "--wait", "--scale", scale]).ok();
    }
    let counted = Counted::read(&probe.finish().ok());
    assert_eq!(counted.answered, counted.sent, "{counted:?}");
    udp.down();
}

#[test]
fn a_real_dns_server_is_asked_by_name_also_behind_a_firewall_that_drops() {
    let host = Host::boot(&["busybox"]);
    host.sh(
        "iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; \
         iptables -A INPUT -p tcp --dport 22 -j ACCEPT; iptables -P INPUT DROP",
    );
    // Another server of the host itself, on every address, at the same port.
    host.sh("python3 -c 'import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind((\"0.0.0.0\", 53))\ntime.sleep(1000)' >/dev/null 2>&1 &");
    let yaml = "\
services:
  dns: {<<: *client, expose: ['53/udp', '53'], ports: ['5300:53/udp'], networks: [in, out]}
  inside: {<<: *client, networks: [in]}
  outside: {<<: *client, networks: [out]}
networks: {in: {internal: true}, out: {}}
";
    let project = Project::new(&host, "dns", yaml);
    project.up();
    host.write(
        "/root/unbound.conf",
        "server:\n interface: 0.0.0.0\n access-control: 0.0.0.0/0 allow\n username: \"\"\n chroot: \"\"\n do-daemonize: yes\n \
         directory: \"/root\"\n pidfile: \"/run/unbound-test.pid\"\n use-syslog: no\n logfile: \"/run/unbound.log\"\n \
         local-zone: \"lab.\" static\n local-data: \"answer.lab. A 192.0.2.42\"\n",
    );
    host.exec_beside("dns-dns-1", &["unbound", "-c", "/root/unbound.conf"]).ok();
    let ask = |client: &str, server: &str, more: &[&str]| {
        let question = [&["dig", "+short", "+tries=1", "+time=3"], more, &[server, "answer.lab"]].concat();
        eventually(secs(10), &format!("{client} asks {server}"), || {
            let done = host.exec_beside(client, &question);
            if done.stdout.trim() == "192.0.2.42" { Ok(()) } else { Err(done) }
        });
    };
    for client in ["dns-inside-1", "dns-outside-1"] {
        let vip = dig(&project, client, "dns").into_iter().next().expect("an address");
        let server = format!("@{vip}");
        ask(client, &server, &[]);
        ask(client, &server, &["+tcp"]);
        // From one socket, again and again, while the rules are taken away: what the kernel remembers must not be in the way.
        host.sh("iptables -t nat -F PREROUTING; iptables -F ORCH-INPUT");
        ask(client, &server, &["-b", "0.0.0.0#4000"]);
        ask(client, &server, &["-b", "0.0.0.0#4000"]);
    }
    let published = format!("@{}", host.address());
    let question = ["dig", "+short", "+tries=2", "+time=3", "-p", "5300", &published, "answer.lab"];
    assert_eq!(host.exec(&question).ok(), "192.0.2.42", "published");
    // Agents come and go, and clients that keep their socket do not notice.
    let vip = dig(&project, "dns-outside-1", "dns").into_iter().next().expect("an address");
    let same = &["-b", "0.0.0.0#4001"];
    ask("dns-outside-1", &format!("@{vip}"), same);
    host.docker(&["restart", "-t", "1", "orch-agent"]);
    ask("dns-outside-1", &format!("@{vip}"), same);
    project.down();
}

#[test]
fn datagrams_reach_pods_of_other_hosts_and_published_ports_of_all() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    for (host, side) in [("a", "client"), ("b", "server"), ("c", "server")] {
        desk.orch(&["host", "label", host, &format!("side={side}")]).ok();
    }
    let yaml = "\
services:
  echo:
    image: orch/demo
    command: [udp-echo]
    ports: ['9007:7/udp', '127.0.0.1:9008:7/udp']
    deploy: {replicas: 2, placement: {constraints: ['node.labels.side == server'], max_replicas_per_node: 1}}
  client:
    image: orch/demo
    command: [job, --seconds, '1000000']
    deploy: {placement: {constraints: ['node.labels.side == client']}}
";
    let project = Project::new(desk, "far", yaml);
    project.up();
    let here = Project::new(&cluster[1], "far", yaml);
    let on = |number: usize| Project::new(&cluster[number], "far", yaml).running("echo");
    let both: BTreeSet<String> = on(2).union(&on(3)).cloned().collect();
    assert_eq!(both.len(), 2);
    let client = "far-client-1";
    assert_eq!(from_container(&here, client, "echo:7", SPREAD).all("by name"), both);
    let thousand = &["--count", "1000", "--rate", "2000"];
    from_container(&here, client, "echo:7", thousand).all("a thousand");
    let large = &["--count", "20", "--size", "65000", "--rate", "100"];
    from_container(&here, client, "echo:7", large).all("large ones");
    // Single pods, by their own addresses.
    let mut single = BTreeSet::new();
    for number in [1, 2] {
        let answered = from_container(&here, client, &format!("{number}.echo:7"), SPREAD).all("a single one");
        assert_eq!(answered.len(), 1, "{number}.echo is one pod");
        single.extend(answered);
    }
    assert_eq!(single, both);
    // From outside, on each host; the local pod where there is one.
    for (number, node) in (1..).zip(cluster.nodes()) {
        let answered = from_host(desk, &format!("{}:9007", node.address()), SPREAD).all(node.name());
        assert_eq!(answered, if number == 1 { both.clone() } else { on(number) }, "{}", node.name());
        from_host(node, "127.0.0.1:9008", SPREAD).all("loopback");
        let refused = desk.exec(&[
            "bash",
            "-ec",
            &format!("exec 3<>/dev/udp/{}/9008; echo x >&3; sleep 0.3; echo x >&3", node.address()),
        ]);
        assert!(refused.stderr.contains("Connection refused"), "127.0.0.1 is not every address: {refused:?}");
    }

    // A host is lost: its clients go on with the other one.
    let args = [
        "docker",
        "exec",
        client,
        "/orch",
        "demo",
        "datagrams",
        "echo:7",
        "--count",
        "8000",
        "--rate",
        "500",
        "--sockets",
        "10",
    ];
    let probe = cluster[1].start(&args);
    crate::wait::apart(secs(3));
    cluster[3].power_off();
    let counted = Counted::read(&probe.finish().ok());
    println!("a host that is lost: {counted:?}");
    // Until its silence is noticed (three seconds) half of the clients ask in vain.
    assert!(counted.answered >= 6800, "{counted:?}");
    let after = from_container(&here, client, "echo:7", SPREAD).all("after the loss");
    assert_eq!(after, on(2));
    project.down();
}
