//! Files of the desk in containers of other hosts.

use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::Host;
use crate::project::Project;
use crate::wait::{eventually, secs};

/// Returns the ids of a service's running containers on a host.
fn running(host: &Host, service: &str) -> BTreeSet<String> {
    let label = format!("label=com.docker.compose.service={service}");
    host.docker(&["ps", "-q", "--filter", &label]).lines().map(str::to_owned).collect()
}

/// Runs a shell script in the one container of a service on a host.
#[track_caller]
fn within(host: &Host, service: &str, script: &str) -> String {
    let ids = running(host, service);
    let id = ids.first().unwrap_or_else(|| panic!("no container of {service} on {}", host.name()));
    host.docker(&["exec", id, "sh", "-ec", script])
}

/// The most memory that the agent of a host had so far, in kilobytes.
fn most_memory(host: &Host) -> u64 {
    let pid = host.docker(&["inspect", "-f", "{{.State.Pid}}", "orch-agent"]);
    host.sh(&format!("awk '/VmHWM/ {{print $2}}' /proc/{pid}/status")).parse().expect("kilobytes")
}

/// How many snapshots a host keeps, and what is not whole.
fn kept(host: &Host) -> String {
    host.sh("ls -A /var/lib/orch/snapshots 2>/dev/null | wc -l")
}

#[track_caller]
fn keeps(cluster: &Cluster, count: &str) {
    for node in cluster.nodes() {
        eventually(secs(30), &format!("{count} snapshots on {}", node.name()), || {
            let now = kept(node);
            if now == count { Ok(()) } else { Err(now) }
        });
    }
}

#[test]
fn files_directories_configs_and_secrets_of_the_desk_are_read_on_every_host() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let project = Project::new(
        desk,
        "travel",
        "\
x-everywhere: &everywhere {mode: global}
services:
  reads: {<<: *client, deploy: *everywhere, volumes: ['./conf:/conf:ro', './one.txt:/one:ro', '/etc/hostname:/host:ro']}
  other: {<<: *client, deploy: *everywhere, volumes: ['./one.txt:/one:ro']}
  told: {<<: *client, deploy: *everywhere, configs: [app], secrets: [pass], env_file: told.env}
configs: {app: {file: app.conf}}
secrets: {pass: {file: pass.txt}}
",
    );
    for (file, text) in [
        ("conf/site/a.conf", "first\n"),
        ("conf/run.sh", "#!/bin/sh\n"),
        ("conf/debug.log", "left at home"),
        ("conf/.orchignore", "*.log\n"),
        ("one.txt", "alone\n"),
        ("app.conf", "setting=1\n"),
        ("pass.txt", "hunter2\n"),
        ("told.env", "TOLD=by the desk\n"),
    ] {
        desk.write(&format!("/root/travel/{file}"), text);
    }
    desk.sh(
        "cd /root/travel/conf; chmod 750 run.sh; chown 1234:2345 run.sh; ln -s site/a.conf link; touch -d @1000000000 run.sh",
    );
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(
        done.stderr.contains(" Files conf  Sent") && done.stderr.contains(" Files one.txt  Sent"),
        "{}",
        done.stderr
    );
    done.ok();
    for node in cluster.nodes() {
        let look = "cat /conf/link /one; stat -c '%a %u %g %Y' /conf/run.sh; ls -A /conf | tr '\\n' ' '; cat /host";
        let seen = within(node, "reads", look);
        let expected = format!("first\nalone\n750 1234 2345 1000000000\nlink run.sh site {}", node.name());
        assert_eq!(seen, expected, "{}", node.name());
        let refused = node.exec(&["docker", "exec", running(node, "reads").first().expect("one"), "touch", "/conf/x"]);
        assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
        let told = within(
            node,
            "told",
            "cat /app /run/secrets/pass; echo $TOLD; grep -c 'run/secrets/pass tmpfs' /proc/mounts",
        );
        assert_eq!(told, "setting=1\nhunter2\nby the desk\n1", "{}", node.name());
        assert_eq!(node.sh("grep -rl hunter2 /var/lib/orch || :"), "", "a secret on a disk of {}", node.name());
        assert_eq!(kept(node), "2");
    }

    // Again: nothing is sent, and nothing is touched or written.
    let state = |service: &str| -> Vec<BTreeSet<String>> {
        cluster.nodes().iter().map(|node| running(node, service)).collect()
    };
    let all = ["reads", "other", "told"];
    let before = all.map(state);
    let written = || {
        cluster[1].sh("stat -c '%Y %s' /var/lib/orch/store.db*; ls -lR --time-style=full-iso /var/lib/orch/snapshots")
    };
    let store = written();
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(!done.stderr.contains("Files"), "{}", done.stderr);
    done.ok();
    assert_eq!(all.map(state), before);
    assert_eq!(written(), store);

    // A change costs the pods that mount it, and nobody else.
    desk.write("/root/travel/conf/site/a.conf", "second\n");
    let plan = project.orch(&["plan"]).ok();
    let made = plan.lines().filter(|line| line.contains("+ create container travel-reads"));
    assert!(made.clone().all(|line| line.contains("(configuration changed: content of /conf)")), "{plan}");
    assert_eq!(made.count(), 3, "{plan}");
    assert!(!plan.contains("travel-other") && !plan.contains("travel-told"), "{plan}");
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(done.stderr.contains(" Files conf  Sent") && !done.stderr.contains("one.txt"), "{}", done.stderr);
    done.ok();
    for node in cluster.nodes() {
        assert_eq!(within(node, "reads", "cat /conf/site/a.conf"), "second", "{}", node.name());
    }
    let after = all.map(state);
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1..], before[1..]);
    keeps(&cluster, "2");

    // One that disappears by hand comes back from another host, and the pod with it.
    let node = &cluster[3];
    node.sh("rm -r /var/lib/orch/snapshots/*");
    node.sh("docker rm -f $(docker ps -q --filter label=com.docker.compose.service=reads)");
    eventually(secs(20), "the pod with its files", || {
        let now = running(node, "reads");
        if now.len() == 1 { Ok(()) } else { Err(now) }
    });
    assert_eq!(within(node, "reads", "cat /conf/site/a.conf /one"), "second\nalone");

    project.down();
    keeps(&cluster, "0");
    assert_eq!(cluster[2].sh("ls /run/orch/secrets 2>/dev/null || :"), "", "secrets are gone too");
}

#[test]
fn a_pod_of_a_lost_host_finds_its_files_where_it_runs_next() {
    let cluster = Cluster::boot(3, &["busybox"]);
    add(&cluster, &[1, 2]).ok();
    let project = Project::new(
        &cluster.desk,
        "moved",
        "\
services:
  reads:
    <<: *client
    volumes: ['./conf:/conf:ro']
    deploy: {placement: {constraints: ['node.hostname != node1']}}
",
    );
    cluster.desk.write("/root/moved/conf/a", "from the desk\n");
    project.up();
    assert_eq!(within(&cluster[2], "reads", "cat /conf/a"), "from the desk");
    // The desk has nothing to do with what happens from here on.
    add(&cluster, &[3]).ok();
    cluster.desk.sh("rm -r /root/moved/conf");
    eventually(secs(20), "the files on the host that came later", || {
        let now = kept(&cluster[3]);
        if now == "1" { Ok(()) } else { Err(now) }
    });
    cluster[2].power_off();
    eventually(secs(20), "the pod on the other host", || {
        let now = running(&cluster[3], "reads");
        if now.len() == 1 { Ok(()) } else { Err(now) }
    });
    assert_eq!(within(&cluster[3], "reads", "cat /conf/a"), "from the desk");
    cluster[2].power_on();
    // Cut in the middle of a transfer.
    cluster[2]
        .sh("mkdir -p /var/lib/orch/snapshots/.new-1/content; echo half >/var/lib/orch/snapshots/.new-1/content/a");
    eventually(secs(40), "the pod once", || {
        let now = (running(&cluster[2], "reads").len(), running(&cluster[3], "reads").len());
        if now == (0, 1) { Ok(()) } else { Err(now) }
    });
    cluster[2].docker(&["restart", "orch-agent"]);
    eventually(secs(20), "no rest of what was cut", || {
        let now = kept(&cluster[2]);
        if now == "1" { Ok(()) } else { Err(now) }
    });
    cluster.desk.write("/root/moved/conf/a", "from the desk\n");
    project.down();
    keeps(&cluster, "0");
}

#[test]
fn what_cannot_travel_is_refused_with_its_place_and_nothing_changes() {
    let cluster = Cluster::boot(1, &[]);
    let desk = &cluster.desk;
    add(&cluster, &[1]).ok();
    let yaml = |volume: &str| format!("services:\n  web:\n    <<: *web\n    volumes:\n      - {volume}\n");
    let project = Project::new(desk, "files", &yaml("./empty:/x:ro"));
    desk.sh(
        "cd /root/files; mkdir -p big/cache link pipe sock empty; ln -s ../../../etc/passwd link/out; mkfifo pipe/p
         head -c 70000000 /dev/urandom >big/cache/blob; head -c 3000000 /dev/urandom >big/small
         python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock/s')\"",
    );
    for (volume, words) in [
        (
            "./big:/x:ro",
            ["big` holds 69.7 MiB, more than the 64 MiB", "`cache` 66.8 MiB, `small` 2.9 MiB", ".orchignore"],
        ),
        (
            "{type: bind, source: ./big, target: /x, read_only: true, x-max-size: 1m}",
            ["the 1 MiB that may", "`cache`", "x-max-size"],
        ),
        ("./link:/x:ro", ["link/out` leads outside, to `../../../etc/passwd`", "", "copy"]),
        ("./pipe:/x:ro", ["pipe/p` is a pipe", "", ".orchignore"]),
        ("./sock:/x:ro", ["sock/s` is a socket", "", ".orchignore"]),
        ("./none:/x:ro", ["none` does not exist", "", "create it"]),
        ("./empty:/x", ["empty` is mounted writable", "a copy that is never written to", "`:ro`"]),
        ("./empty:/x:ro,rshared", ["mount propagation `rshared`", "", "leave the propagation out"]),
    ] {
        project.rewrite(&yaml(volume));
        for command in [&["up", "-d"][..], &["plan"]] {
            let refused = project.orch(command);
            assert!(refused.stderr.contains("compose.yaml:7:9"), "{volume}: {}", refused.stderr);
            refused.refused(1, &words);
        }
    }
    project.rewrite(
        "services: {web: {<<: *web, volumes: ['data:/data']}}\nvolumes: {data: {driver_opts: {type: none, o: bind, device: ./empty}}}\n",
    );
    project.orch(&["up", "-d"]).refused(1, &["compose.yaml:4:", "/root/files/empty` is a path of this machine"]);
    assert_eq!(cluster[1].docker(&["ps", "-aq"]).lines().count(), 1, "only the agent");
    assert_eq!(kept(&cluster[1]), "0");
    // With what is in the way left out, or more allowed, it goes.
    desk.write("/root/files/big/.orchignore", "cache\n");
    project.rewrite(&yaml("./big:/x:ro"));
    project.up();
    let before = most_memory(&cluster[1]);
    desk.sh("rm /root/files/big/.orchignore");
    project.rewrite(&yaml("{type: bind, source: ./big, target: /x, read_only: true, x-max-size: 80m}"));
    project.up();
    let size = "stat -c %s /var/lib/orch/snapshots/*/content/cache/blob";
    assert_eq!(cluster[1].sh(size), "70000000");
    let grown = most_memory(&cluster[1]) - before;
    assert!(grown < 30_000, "the agent grew by {grown} kB: it holds pieces, not 70 MB");
    project.down();
    keeps(&cluster, "0");
}
