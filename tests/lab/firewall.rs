//! Firewalls that drop by default, and rules that somebody flushes.

use crate::host::Host;
use crate::project::Project;
use crate::wait::{eventually, secs};

/// A published server on a normal and an internal network, and a client on each.
fn project<'a>(host: &'a Host, name: &str) -> Project<'a> {
    let yaml = "\
services:
  web: {<<: *web, networks: [in, out], ports: ['8080:80']}
  inside: {<<: *client, networks: [in]}
  outside: {<<: *client, networks: [out]}
networks: {in: {internal: true}, out: {}}
";
    Project::new(host, name, yaml)
}

#[track_caller]
fn everything_works(project: &Project, what: &str) {
    for client in ["inside", "outside"] {
        let answered = project.answering(&project.container(client, 1), "http://web/", 2);
        assert_eq!(answered, project.running("web"), "{what}: {client}");
    }
    let url = format!("http://{}:8080/", project.host.address());
    eventually(secs(15), what, || {
        // From this machine, so through the host's own INPUT chain from outside.
        match std::net::TcpStream::connect_timeout(
            &format!("{}:8080", project.host.address()).parse().expect("an address"),
            secs(2),
        ) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{url}: {error}")),
        }
    });
}

#[test]
fn a_firewall_that_drops_by_default_does_not_stop_names_addresses_or_published_ports() {
    let host = Host::boot(&["busybox"]);
    host.sh(
        "iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; \
         iptables -A INPUT -p tcp --dport 22 -j ACCEPT; iptables -P INPUT DROP",
    );
    let project = project(&host, "drop");
    project.up();
    everything_works(&project, "INPUT DROP");
    project.down();
    host.orch(&["agent", "uninstall"]).ok();
    assert!(host.sh("iptables -S INPUT").starts_with("-P INPUT DROP"), "the user's own policy is not touched");
    assert_eq!(host.sh("iptables -S INPUT | grep -c ACCEPT"), "3", "nor are the user's rules");
}

#[test]
fn rules_and_addresses_that_somebody_removes_are_put_back() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "flush");
    project.up();
    everything_works(&project, "before");
    let lives = project.lives();
    for flush in [
        "iptables -t nat -F PREROUTING",
        "iptables -F INPUT",
        "iptables-save -t nat | grep -i '^:orch' | cut -d' ' -f1 | tr -d : | while read -r c; do iptables -t nat -F $c; done",
        "for b in $(ls /sys/class/net | grep '^br-'); do ip -4 -o addr show $b | grep '/32' | awk '{print $4}' | while read -r a; do ip addr del $a dev $b; done; done",
        // In front of orch's own jump: the position counts.
        "iptables -t nat -I PREROUTING 1 -p tcp --dport 80 -j ACCEPT; sleep 6; iptables -t nat -D PREROUTING -p tcp --dport 80 -j ACCEPT",
    ] {
        host.sh(flush);
        everything_works(&project, flush);
    }
    assert_eq!(project.lives(), lives, "no container was touched for it");
}
