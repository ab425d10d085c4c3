//! Hosts that are full, slow, rebooting or cut off while a project goes up on them.

use crate::cluster::Cluster;
use crate::fleet::{add, hosts, named, spread, states};
use crate::host::Host;
use crate::project::Project;
use crate::wait::{apart, becomes, eventually, secs, stays, timed};

/// Leaves no room on a host's disk.
fn fill(host: &Host) {
    host.sh("dd if=/dev/zero of=/var/lib/fill bs=1M 2>/dev/null || true; dd if=/dev/zero of=/var/lib/fill2 bs=512 2>/dev/null || true");
}

fn make_room(host: &Host) {
    host.sh("rm -f /var/lib/fill /var/lib/fill2");
}

/// How many pods of `web` there are in all, and how many of them on a host.
fn counts(project: &Project, host: &str) -> (usize, usize) {
    let all = spread(project, "web");
    let of = all.iter().find(|(name, _)| name == host).map_or(0, |(_, count)| *count);
    (all.iter().map(|(_, count)| count).sum(), of)
}

#[test]
fn a_host_without_room_is_named_at_every_step_and_the_next_run_finishes() {
    let cluster = Cluster::boot_with_disk("node2=400m", 3, &[]);
    // From a machine with an engine of its own, whose images are sent.
    let here = cluster.let_in(1);
    here.load(&["busybox"]);
    let full = &cluster[2];
    fill(full);
    let arguments = named(&cluster, &[2, 3]);
    let words: Vec<&str> = ["host", "add"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    here.orch(&words).refused(1, &["host `b`: ", "no space left", "free some space"]);
    assert_eq!(full.docker(&["ps", "-aq"]), "", "nothing half made");
    make_room(full);
    here.orch(&words).ok();
    assert_eq!(states(here), "b Ready, c Ready");

    // No room for an image that is sent.
    let yaml = "services: {web: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, deploy: {replicas: 4}}}\n";
    let project = Project::new(here, "full", yaml);
    fill(full);
    let sent = project.orch(&["up", "-d", "--wait"]);
    sent.refused(1, &["host `b`: image `busybox` of service `web` could not be sent", "no space left", "free some space"]);
    // The agent goes on, and says it.
    eventually(secs(15), "the host to say that its disk is full", || {
        let done = here.orch(&["host", "ls"]);
        if done.stderr.contains("host b: the disk of /var/lib/orch has only") { Ok(()) } else { Err(done) }
    });
    assert!(here.orch(&["status"]).stderr.contains("host b: the disk of /var/lib/orch has only"));
    assert_eq!(states(here), "b Ready, c Ready");
    make_room(full);
    project.up();
    assert_eq!(counts(&project, "b"), (4, 2));

    // No room for what the seat wants, nor for containers.
    fill(full);
    let more = yaml.replace("replicas: 4", "replicas: 8");
    project.rewrite(&more);
    let (done, took) = timed(|| project.orch(&["up", "-d", "--wait"]));
    done.refused(1, &["on `b`", "no space left", "free some space"]);
    assert!(took < secs(30), "{took:?}");
    assert!(counts(&project, "b").0 >= 4, "what runs goes on");
    make_room(full);
    project.up();
    assert_eq!(counts(&project, "b"), (8, 4));
    project.down();
}

#[test]
fn slow_hosts_that_lose_packets_are_not_taken_for_lost() {
    let cluster = Cluster::boot(3, &["busybox"]);
    add(&cluster, &[1, 2, 3]).ok();
    for node in cluster.nodes() {
        cluster.lossy(node.name(), 100, 1);
    }
    let project = Project::new(&cluster.desk, "slow", "services: {web: {<<: *web, deploy: {replicas: 6}}}\n");
    project.up();
    let before = spread(&project, "web");
    let said = || cluster[1].exec(&["docker", "logs", "orch-agent"]).stderr.matches("placed anew").count();
    let placed = said();
    let lives = || cluster.nodes().iter().map(|node| node.docker(&["ps", "-q"])).collect::<Vec<_>>();
    stays(secs(8), "what runs on hosts that are slow", lives);
    assert_eq!(said(), placed, "nobody was declared lost");
    assert_eq!(states(&cluster.desk), "a Ready, b Ready, c Ready");
    project.orch(&["up", "-d", "--wait", "--scale", "web=9"]).ok();
    assert_eq!(spread(&project, "web").iter().map(|(_, count)| count).sum::<usize>(), 9, "{before:?}");
    for node in cluster.nodes() {
        cluster.slow(node.name(), 0);
    }
    project.down();
}

#[test]
fn a_host_that_reboots_in_the_middle_of_an_up_takes_its_part_in_the_next() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let project = Project::new(desk, "boot", "services: {web: {<<: *web, deploy: {replicas: 6}}}\n");
    let arguments = project.args(&["up", "-d", "--wait"]);
    // The last is the seat.
    for (number, step) in [(2, "Creating"), (3, "Started"), (1, "Creating")] {
        let mut up = desk.start_orch(&arguments);
        assert!(up.says(step), "`{step}`: {:?}", up.finish());
        let node = &cluster[number];
        node.power_off();
        node.power_on();
        let done = up.finish();
        assert!(done.code == 0 || done.stderr.contains("help: "), "it says what to do: {done:?}");
        let up = eventually(secs(30), "the host to be reached again", || {
            let done = project.orch(&["up", "-d", "--wait"]);
            if done.code == 0 { Ok(done) } else { Err(done) }
        });
        becomes(secs(30), "all hosts", &"a Ready, b Ready, c Ready".to_owned(), || states(desk));
        // Each once: what was placed elsewhere meanwhile is not there twice.
        becomes(secs(30), "each pod once", &6, || {
            cluster.nodes().iter().map(|node| node.docker(&["ps", "-q", "--filter", "name=boot-web"]).lines().count()).sum()
        });
        drop(up);
        project.orch(&["down"]).ok();
    }
}

#[test]
fn a_desk_that_is_cut_off_in_the_middle_of_an_up_says_so_and_the_next_finishes() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    // Takes so long that the cut comes before its end.
    let yaml = "\
services:
  first: {<<: *web, healthcheck: {test: [CMD-SHELL, 'sleep 3'], interval: 1s, retries: 20, timeout: 10s}}
  web: {<<: *web, deploy: {replicas: 6}, depends_on: {first: {condition: service_healthy}}}
";
    let project = Project::new(desk, "cut", yaml);
    for whom in ["node1", "node3"] {
        let mut up = desk.start_orch(&project.args(&["up", "-d", "--wait"]));
        assert!(up.says("first-1 on"), "{:?}", up.finish());
        let ((), took) = timed(|| {
            cluster.cut("desk", whom);
            let done = up.finish();
            if whom == "node1" {
                done.refused(1, &["the agent, or the connection to it, ended", "run the same command again"]);
            } else {
                // Only the seat is needed once all is accepted.
                done.ok();
            }
        });
        assert!(took < secs(25), "{took:?}");
        cluster.heal();
        project.up();
        assert_eq!(counts(&project, "a").0, 6);
        project.orch(&["down"]).ok();
    }
}

#[test]
fn hosts_that_are_cut_off_from_each_other_both_serve_and_agree_again_later() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let project =
        Project::new(desk, "parted", "services: {web: {<<: *web, ports: ['8080:80'], deploy: {replicas: 3}}}\n");
    project.up();
    let running = || -> Vec<usize> {
        let count = |node: &Host| node.docker(&["ps", "-q", "--filter", "name=parted-web"]).lines().count();
        cluster.nodes().iter().map(count).collect()
    };
    assert_eq!(running(), [1, 1, 1]);
    let old = cluster[3].docker(&["ps", "-q", "--filter", "name=parted-web"]);
    cluster.cut("node3", "node1");
    cluster.cut("node3", "node2");
    // The seat's side makes up for what it lost; the other goes on with what it has.
    eventually(secs(20), "three on the seat's side", || match running().as_slice() {
        [one, other, 1] if one + other == 3 => Ok(()),
        seen => Err(seen.to_vec()),
    });
    let answers = |node: &Host| {
        let url = format!("http://{}:8080/", node.address());
        eventually(secs(10), &url, || {
            let done = node.exec(&["curl", "-fsS", "-m", "2", &url]);
            if done.code == 0 { Ok(()) } else { Err(done) }
        });
    };
    cluster.nodes().iter().for_each(answers);
    assert_eq!(states(desk), "a Ready, b Ready, c Down");
    cluster[3].docker(&["kill", &old]);
    eventually(secs(10), "the side without the seat to heal itself", || {
        let now = cluster[3].docker(&["ps", "-q", "--filter", "name=parted-web"]);
        if now.is_empty() || now == old { Err(now) } else { Ok(()) }
    });
    // What changes meanwhile comes later there.
    project.orch(&["up", "-d", "--wait", "--scale", "web=4"]).ok();
    let ((), took) = timed(|| {
        cluster.heal();
        eventually(secs(20), "each pod once", || {
            let seen = running();
            if seen.iter().sum::<usize>() == 4 { Ok(()) } else { Err(seen) }
        });
    });
    assert!(took < secs(15), "doubled for {took:?}");
    becomes(secs(20), "all hosts", &"a Ready, b Ready, c Ready".to_owned(), || states(desk));
    cluster.nodes().iter().for_each(answers);
    apart(secs(1)); // another look at what settled
    assert_eq!(running().iter().sum::<usize>(), 4);
    assert_eq!(hosts(desk, "Problems").iter().filter(|(_, problems)| problems != "[]").count(), 0);
    project.down();
}
