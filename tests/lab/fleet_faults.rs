//! What breaks on one host while requests come in on another.

use crate::cluster::Cluster;
use crate::fleet::{add, hosts, states};
use crate::host::Host;
use crate::probe::Probe;
use crate::project::Project;
use crate::restarts::{agent_answers, kill_agent};
use crate::wait::{apart, eventually, secs, timed};

/// Requests a second of each probe.
const RATE: u32 = 50;

/// The ids of the web servers that run on a host.
fn servers(host: &Host) -> Vec<String> {
    let ids = host.docker(&["ps", "-q", "--filter", "label=com.docker.compose.service=web"]);
    ids.lines().map(str::to_owned).collect()
}

/// Three hosts; the first takes requests and has no web server, so that each of them crosses to another host.
fn crossing<'a>(cluster: &'a Cluster, name: &str) -> (Project<'a>, String) {
    add(cluster, &[1, 2, 3]).ok();
    let yaml = "\
services:
  web: {<<: *web, ports: ['8080:80'], deploy: {replicas: 4, placement: {constraints: ['node.hostname != node1']}}}
";
    let project = Project::new(&cluster.desk, name, yaml);
    project.up();
    assert!(servers(&cluster[1]).is_empty() && servers(&cluster[2]).len() == 2 && servers(&cluster[3]).len() == 2);
    (project, format!("http://{}:8080/", cluster[1].address()))
}

#[test]
fn containers_agents_and_connections_killed_lose_no_more_than_was_in_flight_on_them() {
    const CONTAINERS: u32 = 6;
    const AGENTS: u32 = 2;
    let cluster = Cluster::boot(3, &["busybox"]);
    let (project, url) = crossing(&cluster, "killed");
    let new = Probe::from_machine(RATE, 45, &[&url]);
    let kept = Probe::from_machine_kept(RATE, 45, &[&url]);
    apart(secs(1)); // a good while before
    for round in 0..CONTAINERS {
        let host = &cluster[2 + round as usize % 2];
        let victim = servers(host).remove(0);
        host.sh(&format!("kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {victim})"));
        eventually(secs(10), "all run again", || match servers(host).len() {
            2 => Ok(()),
            running => Err(running),
        });
        apart(secs(1));
    }
    for host in [&cluster[2], &cluster[3]] {
        kill_agent(host);
        agent_answers(host);
        apart(secs(2));
    }
    // Who has used SSH is of no matter to what runs.
    cluster
        .desk
        .sh("cd /tmp/orch-0; for s in *; do case $s in *[.-]*) ;; *) ssh -O exit -S $PWD/$s x 2>&1;; esac; done");
    // A kept connection stays on its replica: eight need not be on all of them.
    for (what, report, replicas) in [("new", new.finish(), 4), ("kept", kept.finish(), 2)] {
        assert!(report.requests > RATE * 40, "{what}: {report:?}");
        // An agent relays what is in flight to its containers: that is lost with it.
        assert!(report.failed <= CONTAINERS + AGENTS * 8, "{what}: more than was in flight: {report:?}");
        assert!(report.answered_by >= replicas, "{what}: all replicas take part: {report:?}");
    }
    project.down();
}

#[test]
fn a_host_that_loses_its_power_costs_what_is_sent_to_it_before_that_is_noticed() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let (project, url) = crossing(&cluster, "power");
    let new = Probe::from_machine(RATE, 30, &[&url]);
    apart(secs(2)); // a good while before
    let ((), took) = timed(|| {
        cluster[3].power_off();
        eventually(secs(20), "its pods to run elsewhere", || match servers(&cluster[2]).len() {
            4 => Ok(()),
            running => Err(running),
        });
    });
    assert!(took < secs(10), "elsewhere only after {took:?}");
    let report = new.finish();
    assert!(report.failed <= RATE * 4, "more than was sent before it was noticed: {report:?}");
    assert!(report.outage_secs <= 3.5, "some replica always answers: {report:?}");

    // Back, it gives up what runs elsewhere now.
    cluster[3].power_on();
    eventually(secs(30), "each pod once", || {
        let now = (
            servers(&cluster[2]).len(),
            servers(&cluster[3]).len(),
            cluster[3].exec(&["docker", "ps", "-aq"]).stdout.lines().count(),
        );
        if now == (4, 0, 1) { Ok(()) } else { Err(now) }
    });
    project.down();
}

#[test]
fn of_five_hosts_two_are_lost_at_once_and_the_rest_serves_for_all() {
    let cluster = Cluster::boot(5, &["busybox"]);
    add(&cluster, &[1, 2, 3, 4, 5]).ok();
    let yaml = "services: {web: {<<: *web, ports: ['8080:80'], deploy: {replicas: 5}}}\n";
    let project = Project::new(&cluster.desk, "five", yaml);
    project.up();
    let counts = |hosts: usize| cluster.nodes()[..hosts].iter().map(|node| servers(node).len()).collect::<Vec<_>>();
    assert_eq!(counts(5), [1, 1, 1, 1, 1]);
    cluster[4].power_off();
    cluster[5].power_off();
    eventually(secs(20), "all of them on three hosts, spread", || {
        let mut now = counts(3);
        now.sort_unstable();
        if now == [1, 2, 2] { Ok(()) } else { Err(now) }
    });
    for node in &cluster.nodes()[..3] {
        let url = format!("http://{}:8080/", node.address());
        assert!(cluster.desk.exec(&["curl", "-fsS", "-m", "5", &url]).ok().contains("Hostname: "), "{url}");
    }
    cluster[4].power_on();
    cluster[5].power_on();
    eventually(secs(40), "each pod once", || {
        let ready = hosts(&cluster.desk, "State").iter().filter(|(_, state)| state == "Ready").count();
        let now = (0..5).map(|at| cluster.nodes()[at].exec(&["docker", "ps", "-q"]).stdout.lines().count());
        // Each has its agent.
        match now.sum::<usize>() {
            10 if ready == 5 => Ok(()),
            other => Err((ready, other)),
        }
    });
    project.down();
}

#[test]
fn with_one_host_of_two_down_every_command_ends_soon_and_says_which() {
    /// A connection that is tried in vain ends within five seconds; the rest is what a busy machine takes.
    const SOON: u64 = 14;
    let cluster = Cluster::boot(2, &["busybox"]);
    add(&cluster, &[1, 2]).ok();
    let desk = &cluster.desk;
    let yaml = "\
services:
  web: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, deploy: {replicas: 4}}
";
    let project = Project::new(desk, "half", yaml);
    project.up();
    let check = |args: &[&str], code: i32, words: &[&str]| {
        let (done, took) = timed(|| project.orch(args));
        assert!(took < secs(SOON), "{args:?} took {took:?}: {done:?}");
        assert_eq!(done.code, code, "{args:?}: {done:?}");
        for word in words {
            assert!(done.stderr.contains(word), "{args:?}: no `{word}`: {done:?}");
        }
    };
    cluster[2].power_off();
    eventually(secs(30), "its pods to run on the other host", || match servers(&cluster[1]).len() {
        4 => Ok(()),
        running => Err(running),
    });
    let down = &["host `b` is down"][..];
    for args in [
        &["ps"][..],
        &["logs", "-n", "1"],
        &["exec", "-T", "web", "true"],
        &["run", "--rm", "-T", "web", "true"],
        &["cp", "web:/etc/hostname", "/tmp/name"],
        &["top"],
        &["images"],
        &["why", "web"],
        &["up", "-d"],
        &["scale", "web=3"],
    ] {
        check(args, 0, down);
    }
    for args in [&["stop"][..], &["start"], &["restart"], &["ls"], &["config", "-q"]] {
        check(args, 0, &[]);
    }

    // The other way round: who decides is away.
    cluster[2].power_on();
    eventually(secs(40), "both to be back", || match states(desk) {
        states if states == "a Ready, b Ready" => Ok(()),
        states => Err(states),
    });
    project.up();
    cluster[1].power_off();
    eventually(secs(30), "it to be noticed", || match states(desk) {
        states if states == "a Down, b Ready" => Ok(()),
        states => Err(states),
    });
    check(&["ps"], 0, &["host `a` is down"]);
    check(&["logs", "-n", "1"], 0, &["host `a` is down"]);
    for args in [&["up", "-d"][..], &["stop"], &["restart"], &["scale", "web=2"], &["down"]] {
        check(args, 1, &["host `a`, which decides for the cluster, cannot be reached", "orch host seat NAME --force"]);
    }
    cluster[1].power_on();
    eventually(secs(40), "both to be back", || match states(desk) {
        states if states == "a Ready, b Ready" => Ok(()),
        states => Err(states),
    });
    project.down();
}
