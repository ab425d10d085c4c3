//! Hosts that are full, slow, rebooting or cut off while a project goes up on them.
#![expect(clippy::print_stdout, reason = "figures, for who asks for the output of tests that pass")]

use crate::cluster::Cluster;
use crate::fleet::{add, even, named, spread, states};
use crate::host::Host;
use crate::project::Project;
use crate::wait::{becomes, eventually, secs, stays, timed};

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
    let arguments = named(&cluster, &[3, 2]);
    let words: Vec<&str> = ["host", "add"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    here.orch(&words).refused(1, &["host `b`: ", "no space left", "free some space"]);
    assert_eq!(full.docker(&["ps", "-aq"]), "", "nothing half made");
    make_room(full);
    here.orch(&words).ok();
    assert_eq!(states(here), "b Ready, c Ready", "`c` decides");

    // No room for an image that is sent.
    let yaml =
        "services: {web: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, deploy: {replicas: 4}}}\n";
    let project = Project::new(here, "full", yaml);
    fill(full);
    let sent = project.orch(&["up", "-d", "--wait"]);
    sent.refused(
        1,
        &["host `b`: image `busybox` of service `web` could not be sent", "no space left", "free some space"],
    );
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
    // 200 ms from host to host.
    for node in cluster.nodes() {
        cluster.lossy(node.name(), 100, 1);
    }
    let project = Project::new(&cluster.desk, "slow", "services: {web: {<<: *web, deploy: {replicas: 6}}}\n");
    let (_, took) = timed(|| project.up());
    println!("up over slow lines took {took:?}");
    let lives = || cluster.nodes().iter().map(|node| node.docker(&["ps", "-q"])).collect::<Vec<_>>();
    stays(secs(8), "what runs on hosts that are slow", lives);
    let placed_anew = cluster[1].sh("docker logs orch-agent 2>&1 | grep -c 'placed anew' || :");
    assert_eq!(placed_anew, "0", "nobody was taken for lost");
    assert_eq!(states(&cluster.desk), "a Ready, b Ready, c Ready");
    for node in cluster.nodes() {
        cluster.slow(node.name(), 0);
    }
    assert_eq!(spread(&project, "web"), even(2));
}

#[test]
fn a_host_that_reboots_in_the_middle_of_an_up_takes_its_part_in_the_next() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let project = Project::new(desk, "boot", "services: {web: {<<: *web, deploy: {replicas: 6}}}\n");
    // The last is the seat.
    for (number, step) in [(2, "Creating"), (1, "Started")] {
        let mut up = desk.start_orch(&project.args(&["up", "-d", "--wait"]));
        assert!(up.says(step), "`{step}`: {:?}", up.finish());
        cluster[number].power_off();
        cluster[number].power_on();
        let done = up.finish();
        assert!(done.code == 0 || done.stderr.contains("help: "), "it says what to do: {done:?}");
        eventually(secs(30), "the next to finish", || match project.orch(&["up", "-d", "--wait"]) {
            done if done.code == 0 => Ok(()),
            done => Err(done),
        });
        becomes(secs(30), "all hosts", &"a Ready, b Ready, c Ready".to_owned(), || states(desk));
        // What was placed elsewhere meanwhile is not there twice.
        becomes(secs(30), "each pod once", &6, || running(&cluster, "boot").iter().sum());
        project.orch(&["down"]).ok();
    }
}

/// How many containers of a project run on each host.
fn running(cluster: &Cluster, project: &str) -> Vec<usize> {
    let label = format!("label=com.docker.compose.project={project}");
    cluster.nodes().iter().map(|node| node.docker(&["ps", "-q", "--filter", &label]).lines().count()).collect()
}

#[test]
fn lines_that_are_cut_part_what_is_known_and_not_what_runs() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    // Takes so long that the cut comes before its end.
    let yaml = "\
services:
  first: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, healthcheck: {test: [CMD, sleep, '2'], interval: 1s}}
  last: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, depends_on: {first: {condition: service_healthy}}}
  web: {<<: *web, ports: ['8080:80'], deploy: {replicas: 3}}
";
    let project = Project::new(desk, "parted", yaml);
    let mut up = desk.start_orch(&project.args(&["up", "-d", "--wait"]));
    assert!(up.says("first-1 on"), "{:?}", up.finish());
    cluster.cut("desk", "node1");
    let (done, took) = timed(|| up.finish());
    done.refused(1, &["the agent, or the connection to it, ended", "run the same command again"]);
    assert!(took < secs(20), "said after {took:?}");
    cluster.heal();
    project.up();
    assert_eq!(counts(&project, "a").0, 3, "what was accepted went on");

    // Two hosts against one.
    let web = |node: &Host| node.docker(&["ps", "-q", "--filter", "name=parted-web"]);
    let old = web(&cluster[3]);
    assert_eq!(old.lines().count(), 1);
    cluster.cut("node3", "node1");
    cluster.cut("node3", "node2");
    eventually(secs(20), "the seat's side to make up for what it lost", || {
        let seen = [1, 2, 3].map(|number| web(&cluster[number]).lines().count());
        if seen[0] + seen[1] == 3 && seen[2] == 1 { Ok(()) } else { Err(seen) }
    });
    let answers = |node: &Host| {
        let url = format!("http://{}:8080/", node.address());
        eventually(secs(10), &url, || match node.exec(&["curl", "-fsS", "-m", "2", &url]) {
            done if done.code == 0 => Ok(()),
            done => Err(done),
        });
    };
    cluster.nodes().iter().for_each(answers);
    assert_eq!(states(desk), "a Ready, b Ready, c Down");
    cluster[3].docker(&["rm", "-f", &old]);
    eventually(secs(10), "the side without the seat to heal itself", || match web(&cluster[3]) {
        now if now.is_empty() || now == old => Err(now),
        _ => Ok(()),
    });
    answers(&cluster[3]);
    // What is asked for meanwhile comes later there.
    project.orch(&["up", "-d", "--wait", "--scale", "web=4"]).ok();
    cluster.heal();
    becomes(secs(15), "each pod once", &6, || running(&cluster, "parted").iter().sum());
    becomes(secs(15), "all hosts", &"a Ready, b Ready, c Ready".to_owned(), || states(desk));
    project.up();
    cluster.nodes().iter().for_each(answers);
}

#[test]
fn agents_of_two_builds_work_together_and_an_upgrade_cut_short_is_finished() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let yaml = "\
services:
  web: {<<: *web, ports: ['8080:80'], deploy: {mode: global}}
  idle: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, deploy: {mode: global}}
";
    let project = Project::new(desk, "mixed", yaml);
    project.up();
    let idle = || cluster.nodes().iter().map(|node| node.docker(&["ps", "-q", "--filter", "name=idle"]));
    let before: Vec<String> = idle().collect();
    let agents =
        || cluster.nodes().iter().map(|node| node.docker(&["inspect", "-f", "{{.Config.Image}}", "orch-agent"]));
    let old: Vec<String> = agents().collect();
    // Another build: the same program with a byte more has another content hash.
    desk.sh("printf x >>/opt/orch/orch");
    add(&cluster, &[2]).ok();
    let mixed: Vec<String> = agents().collect();
    assert!(mixed[0] == old[0] && mixed[1] != old[1] && mixed[2] == old[2], "{mixed:?}");
    assert_eq!(states(desk), "a Ready, b Ready, c Ready");
    for node in cluster.nodes() {
        let url = format!("http://{}:8080/", node.address());
        desk.exec(&["curl", "-fsS", "-m", "5", &url]).ok();
    }
    let up = desk.start_orch(&project.args(&["up", "-d", "--wait"]));
    eventually(secs(20), "an agent to be replaced", || {
        let node = &cluster[3];
        let now = node.exec(&["docker", "inspect", "-f", "{{.Config.Image}}", "orch-agent"]).stdout;
        if now.trim() == mixed[2] { Err(now) } else { Ok(()) }
    });
    up.signal("KILL");
    project.up();
    assert!(agents().all(|now| now == mixed[1]), "all of the new build");
    becomes(secs(20), "all hosts", &"a Ready, b Ready, c Ready".to_owned(), || states(desk));
    assert_eq!(idle().collect::<Vec<_>>(), before, "and no other container was touched");
}
