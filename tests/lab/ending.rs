//! Ends: of the command line at any moment, of projects, of orch itself. Nothing half-made stays.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::host::Host;
use crate::project::Project;
use crate::wait::{apart, eventually, secs, timed};

/// A script that prints what orch could leave behind on a host, one thing a line.
const TRACES: &str = "
docker ps -a --format 'container {{.Names}}'
docker network ls --filter driver=bridge --format 'network {{.Name}}' | grep -v '^network bridge$' || true
docker volume ls --format 'volume {{.Name}}'
docker images --format 'image {{.Repository}}:{{.Tag}}' | grep orch || true
ip -o -4 addr show | grep -v -e ' lo ' -e ' eth0 ' -e ' docker0 ' || true
ip -o link show type bridge | grep -v docker0 || true
iptables-save | grep -i orch || true
grep orch /proc/1/mounts | grep -v /orch-lab/ || true
ls -d /var/lib/orch /run/orch 2>/dev/null || true
";

fn traces(host: &Host) -> BTreeSet<String> {
    host.sh(TRACES).lines().map(str::to_owned).collect()
}

#[test]
fn down_and_agent_uninstall_leave_nothing() {
    let host = Host::boot(&["busybox"]);
    let before = traces(&host);
    let rules = host.sh("iptables-save | grep -v -e '^#' -e '^:'");
    let yaml = "\
services:
  web: {<<: *web, ports: ['8080:80'], networks: [in, out], volumes: ['data:/data'], configs: [page], secrets: [token]}
  client: {<<: *client, networks: [in]}
networks: {in: {internal: true}, out: {}}
volumes: {data: {}}
configs: {page: {content: hello}}
secrets: {token: {file: ./token}}
";
    host.write("/root/gone/token", "seldom seen\n");
    let project = Project::new(&host, "gone", yaml);
    project.up();
    let in_clear = || host.sh("grep -rlF -e 'seldom seen' -e c2VsZG9tIHNlZW4 /var/lib/orch || true");
    assert_eq!(in_clear(), "", "contents of secrets are in no file, while it is up");
    assert_eq!(project.within("gone-client-1", "wget -q -O /dev/null http://web/").code, 0);

    project.orch(&["down"]).ok();
    assert_eq!(in_clear(), "", "nor after `down`");
    let left = traces(&host);
    assert!(left.contains("volume gone_data"), "`down` keeps volumes");
    assert!(
        !left.iter().any(|trace| trace.starts_with("network") || trace.contains("gone-")),
        "after `down`: {left:?}"
    );
    project.down();
    assert!(!traces(&host).iter().any(|trace| trace.starts_with("volume")), "`down -v` takes volumes");

    host.orch(&["agent", "uninstall"]).ok();
    assert_eq!(traces(&host), before);
    assert_eq!(host.sh("iptables-save | grep -v -e '^#' -e '^:'"), rules, "packet filter");
    project.orch(&["down"]).ok();
    assert_eq!(traces(&host), before, "`down` of what is not there brings nothing up");
}

#[test]
fn uninstall_refuses_while_projects_are_up() {
    let host = Host::boot(&[]);
    let project = Project::new(
        &host,
        "stay",
        "\
services:
  web: *web
",
    );
    project.up();
    let lives = project.lives();
    host.orch(&["agent", "uninstall"]).refused(1, &["stay"]);
    assert_eq!(project.lives(), lives);
}

#[test]
fn an_up_killed_at_any_moment_is_finished_by_the_next() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *web, deploy: {replicas: 4}, ports: ['8080:80'], networks: [in, out]}
  client: {<<: *client, networks: [in], depends_on: [web]}
networks: {in: {internal: true}, out: {}}
";
    let project = Project::new(&host, "cut", yaml);
    for signal in ["KILL", "INT"] {
        for millis in [0, 30, 80, 150, 250, 400, 700, 1200, 2000] {
            let up = host.start_orch(&project.args(&["up", "-d"]));
            apart(Duration::from_millis(millis));
            up.signal(signal);
            project.up();
            assert_eq!(project.running("").len(), 5, "{signal} after {millis} ms");
            assert_eq!(project.answering("cut-client-1", "http://web/", 1).len(), 1);
            let all = host.docker(&[
                "ps",
                "-a",
                "--format",
                "{{.Names}}",
                "--filter",
                "label=com.docker.compose.project=cut",
            ]);
            assert_eq!(all.lines().count(), 5, "half-made containers: {all}");
            project.down();
            let left = host.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=cut"]);
            assert_eq!(left, "", "{signal} after {millis} ms: left by `down`");
        }
    }
}

#[test]
fn a_down_killed_is_finished_by_the_next() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *web, deploy: {replicas: 6}}
  client: *client
";
    let project = Project::new(&host, "half", yaml);
    for millis in [0, 50, 150, 400] {
        project.up();
        let down = host.start_orch(&project.args(&["down"]));
        apart(Duration::from_millis(millis));
        down.signal("KILL");
        project.down();
        assert_eq!(
            host.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=half"]),
            "",
            "after {millis} ms"
        );
        assert_eq!(host.docker(&["network", "ls", "-q", "--filter", "name=half_"]), "", "after {millis} ms");
    }
}

#[test]
fn an_attached_up_shows_logs_and_stops_the_project_at_ctrl_c() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  talker: {image: busybox, init: true, command: [sh, -c, 'echo here I am; exec sleep 1000000']}
";
    let project = Project::new(&host, "attach", yaml);
    let up = host.start_orch(&project.args(&["up"]));
    eventually(secs(15), "a running container", || {
        let now = project.running("talker");
        if now.len() == 1 { Ok(()) } else { Err(now) }
    });
    apart(secs(1));
    let done = up.signal("INT");
    assert!(done.stdout.contains("here I am"), "the container's output: {done:?}");
    assert!(done.stdout.contains("talker-1"), "with its name: {done:?}");
    assert_eq!(done.code, 130, "as Docker Compose: {done:?}");
    assert_eq!(project.running(""), BTreeSet::new());
    project.up();
    assert_eq!(project.running("").len(), 1);
}

/// A service that does not listen to its stop signal, with nine seconds to do so.
const STUBBORN: &str = "\
services:
  deaf: {image: busybox, command: [sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done'], stop_grace_period: 9s}
";

#[test]
fn a_second_ctrl_c_ends_what_does_not_listen_to_the_first() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "deaf", STUBBORN);
    let mut up = host.start_orch(&project.args(&["up"]));
    eventually(secs(15), "a running container", || {
        let now = project.running("deaf");
        if now.len() == 1 { Ok(()) } else { Err(now) }
    });
    apart(secs(1));
    up.send("INT");
    apart(secs(1));
    let (done, took) = timed(|| up.signal("INT"));
    assert_eq!(done.code, 130, "{done:?}");
    assert!(took < secs(4), "took {took:?}: {done:?}");
    assert_eq!(project.running(""), BTreeSet::new());
}

#[test]
fn a_down_in_a_hurry_overtakes_a_slow_one() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "hurry", STUBBORN);
    project.up();
    let slow = host.start_orch(&project.args(&["down"]));
    apart(secs(1));
    let (done, took) = timed(|| project.orch(&["down", "-t", "0"]));
    assert_eq!(done.code, 0, "{done:?}");
    assert!(took < secs(4), "took {took:?}: {done:?}");
    slow.finish();
    assert_eq!(project.running(""), BTreeSet::new());
}
