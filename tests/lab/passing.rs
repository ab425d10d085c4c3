//! Images that no registry has, from a desk whose way to the hosts is slow.
#![expect(clippy::print_stdout, reason = "figures, for who asks for the output of tests that pass")]

use crate::cluster::Cluster;
use crate::host::Host;
use crate::project::Project;
use crate::wait::timed;

const MEGABYTE: u64 = 1 << 20;

/// Bytes that a host sent and received so far.
fn traffic(host: &Host) -> (u64, u64) {
    let count = |name: &str| host.sh(&format!("cat /sys/class/net/eth0/statistics/{name}_bytes"));
    (count("tx").parse().expect("a number"), count("rx").parse().expect("a number"))
}

#[test]
fn an_image_leaves_a_desk_with_a_slow_way_once_and_hosts_pass_on_what_the_others_lack() {
    let cluster = Cluster::boot(4, &[]);
    // From a machine with an engine of its own.
    let desk = cluster.let_in(1);
    desk.load(&["busybox"]);
    let commit = |from: &str, script: &str, to: &str| {
        desk.docker(&["run", "--name", "make", "--network", "none", from, "sh", "-c", script]);
        desk.docker(&["commit", "make", to]);
        desk.docker(&["rm", "make"]);
    };
    commit("busybox", "dd if=/dev/urandom of=/big bs=1M count=24", "app:1");
    commit("app:1", "dd if=/dev/urandom of=/small bs=1M count=6; echo two >/version", "app:2");
    let hosts = [("b", 2), ("c", 3), ("d", 4)];
    let lines = hosts.map(|(name, number)| format!("  {name}: ssh://root@{}\n", cluster[number].address()));
    let yaml = |version: u32| {
        format!(
            "x-hosts:\n{}services: {{web: {{image: 'app:{version}', deploy: {{replicas: 3}}, command: [sleep, '1000'], stop_signal: SIGKILL}}}}\n",
            lines.concat()
        )
    };
    let project = Project::new(desk, "pass", &yaml(1));
    project.orch(&["host", "add", "b", "c", "d"]).ok();
    let up = |what: &str, megabytes: u64| {
        let machines = [1, 2, 3, 4];
        let before = machines.map(|number| traffic(&cluster[number]));
        cluster.slow("node1", 100);
        let (done, took) = timed(|| project.orch(&["up", "-d"]));
        cluster.slow("node1", 0);
        let said = done.stderr.clone();
        done.ok();
        let after = machines.map(|number| traffic(&cluster[number]));
        let sent: Vec<u64> = before.iter().zip(&after).map(|(before, after)| after.0 - before.0).collect();
        let received: Vec<u64> = before.iter().zip(&after).map(|(before, after)| after.1 - before.1).collect();
        println!("{what} in {took:?}: sent {sent:?}, received {received:?}");
        let (least, most) = (megabytes * MEGABYTE, (megabytes + 6) * MEGABYTE);
        assert!((least..most).contains(&sent[0]), "{what} leaves the desk once: {sent:?}\n{said}");
        assert!(received[1..].iter().all(|bytes| (least..most).contains(bytes)), "{what}: {received:?}\n{said}");
        assert_eq!(said.matches("  Sent  by host ").count(), 2, "{said}");
    };
    up("the whole image", 24);
    project.rewrite(&yaml(2));
    up("a changed layer", 6);
    let id = |host: &Host| host.docker(&["image", "inspect", "-f", "{{.Id}}", "app:2"]);
    for (name, number) in hosts {
        assert_eq!(id(&cluster[number]), id(desk), "{name}");
    }
    project.orch(&["up", "-d", "--wait"]).ok();
    assert_eq!(project.orch(&["exec", "-T", "--index", "3", "web", "cat", "/version"]).ok(), "two");

    // What the desk does not have any more, a host has.
    project.orch(&["down"]).ok();
    cluster[3].docker(&["rmi", "app:1", "app:2"]);
    desk.docker(&["rmi", "app:2"]);
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(done.stderr.contains("Image app:2 on c  Sent  by host "), "{}", done.stderr);
    done.ok();
    project.down();
}
