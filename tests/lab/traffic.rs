//! Clients that go on asking while things are taken from under them.

use std::time::Duration;

use crate::host::Host;
use crate::probe::Probe;
use crate::project::Project;
use crate::wait::{apart, eventually, secs};

/// A published server of three replicas, and a client that reaches it by name.
fn project<'a>(host: &'a Host, name: &str) -> Project<'a> {
    let yaml = "\
services:
  web: {<<: *web, ports: ['8080:80'], deploy: {replicas: 3}}
  client: *client
";
    Project::new(host, name, yaml)
}

#[test]
fn a_container_killed_twenty_times_loses_only_what_was_in_flight_on_it() {
    const KILLS: u32 = 20;
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "kills");
    project.up();
    let url = format!("http://{}:8080/", host.address());
    let new = Probe::from_machine(50, 40, &[&url]);
    let kept = Probe::from_machine_kept(50, 40, &[&url]);
    let inside = Probe::beside(&project, "kills-client-1", 50, 40, &["http://web/"]);
    apart(secs(1)); // a good while before
    for round in 0..KILLS {
        let name = project.container("web", round % 3 + 1);
        host.sh(&format!("kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {name})"));
        eventually(secs(15), "it runs again", || match project.inspect(&name, "{{.State.Running}}").as_str() {
            "true" => Ok(()),
            other => Err(other.to_owned()),
        });
        apart(Duration::from_millis(400));
    }
    // A request takes about a millisecond: at 50 a second hardly one is in flight on the container at a kill.
    for (what, report) in [("new", new.finish()), ("kept", kept.finish()), ("inside", inside.finish())] {
        assert!(report.requests > 1900, "{what}: {report:?}");
        assert!(report.failed <= KILLS, "{what}: more than what was in flight: {report:?}");
        assert!(report.answered_by >= 3, "{what}: all replicas take part: {report:?}");
    }
}

#[test]
fn connections_to_a_container_that_vanished_without_a_word_are_reset_when_it_is_removed() {
    let host = Host::boot(&["busybox"]);
    let yaml = "services: {web: *web, client: *client}\n";
    let project = Project::new(&host, "silent", yaml);
    project.up();
    // Nothing of it may hold on to the output, or the shell that starts it would not end.
    let script = "mkfifo /tmp/in; exec >/dev/null 2>&1; sleep 1000 >/tmp/in & (nc web 80 </tmp/in; : >/tmp/ended) &";
    project.within("silent-client-1", script).ok();
    let in_use = "cat /proc/net/tcp | awk '$4 == \"01\"' | grep -c .";
    eventually(secs(15), "the connection", || match project.within("silent-client-1", in_use) {
        done if done.code == 0 => Ok(()),
        done => Err(done),
    });
    // Without its network nothing that the container says at its end comes through.
    host.docker(&["network", "disconnect", "-f", "silent_default", "silent-web-1"]);
    host.docker(&["rm", "-f", "silent-web-1"]);
    eventually(secs(15), "the end of the connection", || match project.within("silent-client-1", "ls /tmp/ended") {
        done if done.code == 0 => Ok(()),
        done => Err(done),
    });
}

#[test]
fn scaling_and_replacing_lose_no_request_on_new_connections() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "drain");
    project.up();
    let url = format!("http://{}:8080/", host.address());
    let probe = Probe::from_machine(50, 20, &[&url]);
    for scale in ["web=1", "web=4", "web=2", "web=3"] {
        project.orch(&["up", "-d", "--wait", "--scale", scale]).ok();
    }
    let report = probe.finish();
    assert_eq!(report.failed, 0, "{report:?}");
    assert!(report.requests > 900, "{report:?}");
}

#[test]
fn scaling_and_replacing_lose_no_request_on_kept_connections() {
    let host = Host::boot(&[]);
    let yaml = |extra: &str| {
        format!(
            "services:\n  web: {{<<: *web, ports: [{{target: 80, published: '8080', app_protocol: http}}], \
             x-route: {{listen: 8081, port: 80}}, deploy: {{replicas: 3}}{extra}}}\n"
        )
    };
    let project = Project::new(&host, "requests", &yaml(""));
    project.up();
    // Each connection outlives many changes of what is behind it, by a published port and by a route.
    let urls = [8080, 8081].map(|port| format!("http://{}:{port}/", host.address()));
    let probe = Probe::from_machine_kept(200, 25, &urls.each_ref().map(String::as_str));
    for scale in ["web=1", "web=5", "web=2", "web=4"] {
        project.orch(&["up", "-d", "--wait", "--scale", scale]).ok();
    }
    project.rewrite(&yaml(", labels: {made: anew}"));
    project.up();
    let report = probe.finish();
    assert_eq!(report.failed, 0, "{report:?}");
    assert!(report.requests > 3000 && report.answered_by > 5, "{report:?}");
}

#[test]
fn a_service_without_a_ready_pod_refuses_within_seconds() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *web, healthcheck: {test: [CMD, /orch, demo, probe, 'http://127.0.0.1:1/'], interval: 300ms, retries: 1000}}
  client: *client
";
    let project = Project::new(&host, "none", yaml);
    project.orch(&["up", "-d"]).ok();
    let asked = project.within("none-client-1", "timeout 8 wget -q -O - http://web/");
    assert_ne!(asked.code, 0);
    assert!(asked.stderr.contains("refused") || asked.stderr.contains("reset"), "not a time-out: {asked:?}");
}
