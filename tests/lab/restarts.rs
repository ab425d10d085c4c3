//! The agent, the engine and the host itself end and come back.

use std::collections::BTreeSet;

use crate::host::Host;
use crate::probe::Probe;
use crate::project::Project;
use crate::wait::{apart, becomes, eventually, secs};

/// A published server, and a client that reaches it by name.
fn project<'a>(host: &'a Host, name: &str) -> Project<'a> {
    let yaml = "\
services:
  web: {<<: *web, ports: ['8080:80'], deploy: {replicas: 2}}
  client: {<<: *client, depends_on: [web]}
";
    Project::new(host, name, yaml)
}

/// Ends the agent as the kernel would when memory is short: its engine sees a crash, nobody's wish.
pub(crate) fn kill_agent(host: &Host) {
    host.sh("kill -9 $(docker inspect -f '{{.State.Pid}}' orch-agent)");
}

#[track_caller]
pub(crate) fn agent_answers(host: &Host) {
    eventually(secs(15), "the agent to answer", || {
        let done = host.orch(&["agent", "status"]);
        if done.code == 0 { Ok(()) } else { Err(done) }
    });
}

#[test]
fn a_new_agent_adopts_what_runs_and_touches_nothing() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "adopt");
    project.up();
    let limits = host.sh("grep 'open files' /proc/$(docker inspect -f '{{.State.Pid}}' orch-agent)/limits");
    let limits: Vec<&str> = limits.split_whitespace().collect();
    assert_eq!(limits[3], limits[4], "the agent has raised its soft limit on descriptors: {limits:?}");
    let before = project.lives();
    for end in ["docker restart -t 5 orch-agent", "docker stop orch-agent; docker start orch-agent"] {
        host.sh(end);
        agent_answers(&host);
    }
    kill_agent(&host);
    agent_answers(&host);
    assert_eq!(project.answering("adopt-client-1", "http://web/", 10), project.running("web"));
    assert_eq!(project.lives(), before);
}

#[test]
fn an_agent_killed_refuses_for_at_most_one_second_and_cuts_no_direct_connection() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "sigkill");
    project.up();
    let (rate, kills) = (50, 3);
    let seconds = 14 * kills + 4;
    let published = Probe::from_machine(rate, seconds, &[&format!("http://{}:8080/", host.address())]);
    let inside = Probe::beside(&project, "sigkill-client-1", rate, seconds, &["http://web/"]);
    for _ in 0..kills {
        // The engine waits longer before it restarts what ran for less than ten seconds.
        apart(secs(11));
        kill_agent(&host);
        agent_answers(&host);
    }
    for (what, report) in [("published port", published.finish()), ("virtual address", inside.finish())] {
        assert!(report.outage_secs <= 1.0, "{what}: failed for more than a second: {report:?}");
        assert!(report.failed <= kills * rate, "{what}: more than a second's requests failed a kill: {report:?}");
        assert!(report.requests > rate * seconds * 3 / 4, "{what}: too few requests to say anything: {report:?}");
    }
}

#[test]
fn pods_come_back_in_order_after_an_engine_restart_and_after_a_reboot() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  first: {<<: *web, healthcheck: {test: [CMD, /orch, demo, probe, 'http://127.0.0.1/'], interval: 300ms, retries: 5}}
  second: {<<: *web, depends_on: {first: {condition: service_healthy}}}
  client: {<<: *client, depends_on: [second], network_mode: 'service:second'}
  other: *client
";
    let project = Project::new(&host, "order", yaml);
    project.up();
    let started = |name: &str| project.inspect(&format!("order-{name}-1"), "{{.State.StartedAt}}");
    let all = project.running("");

    let engine = || host.restart_engine();
    let reboot = || {
        host.power_off();
        host.power_on();
    };
    for (what, restart) in [("engine restart", &engine as &dyn Fn()), ("reboot", &reboot)] {
        restart();
        becomes(secs(30), what, &all, || project.running(""));
        let order = ["first", "second", "client"].map(started);
        assert!(order.is_sorted(), "{what}: started at {order:?}");
        for name in ["first", "second"] {
            project.fetch("order-other-1", &format!("http://{name}/"));
        }
    }
}

#[test]
fn an_engine_that_leaves_containers_running_is_found_again_after_its_restart() {
    let host = Host::boot(&["busybox"]);
    host.sh("sed -i 's/^{/{\"live-restore\": true, /' /etc/docker/daemon.json");
    host.restart_engine();
    assert_eq!(host.docker(&["info", "-f", "{{.LiveRestoreEnabled}}"]), "true");
    let project = project(&host, "live");
    project.up();
    let before = project.lives();
    host.restart_engine();
    assert_eq!(project.lives(), before, "the engine left them running");
    let old = project.running("client");
    host.docker(&["rm", "-f", "live-client-1"]);
    project.replaced("client", &old, secs(10));
    assert_eq!(project.answering("live-client-1", "http://web/", 10), project.running("web"));
}

#[test]
fn stopped_agents_leave_containers_running_and_up_starts_one_again() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "stopped");
    project.up();
    let before = project.lives();
    host.orch(&["agent", "stop"]).ok();
    assert_eq!(host.docker(&["ps", "-q", "--filter", "label=orch.role=agent"]), "");
    assert_eq!(project.lives(), before);
    project.up();
    assert_eq!(project.lives(), before);
    assert_eq!(project.answering("stopped-client-1", "http://web/", 10), project.running("web"));
}

#[test]
fn a_tag_moved_by_hand_rolls_out_with_the_next_up_and_not_with_a_new_agent() {
    let host = Host::boot(&["busybox"]);
    host.docker(&["tag", "busybox", "app:1"]);
    let project = Project::new(&host, "tag", "services: {web: {image: 'app:1', command: [sleep, '1000000']}}\n");
    project.up();
    let before = project.lives();
    host.sh("docker commit -c 'LABEL version=2' tag-web-1 app:1");
    kill_agent(&host);
    agent_answers(&host);
    host.orch(&["-f", "/root/tag/compose.yaml", "plan"]).ok();
    assert_eq!(project.lives(), before);
    // Healing keeps to the image that the last `up` meant.
    let image = project.inspect("tag-web-1", "{{.Image}}");
    host.docker(&["rm", "-f", "tag-web-1"]);
    eventually(secs(15), "a new container", || {
        let now = project.lives();
        if now.len() == 1 && now != before { Ok(()) } else { Err(now) }
    });
    assert_eq!(project.inspect("tag-web-1", "{{.Image}}"), image);
    project.up();
    assert_eq!(project.inspect("tag-web-1", "{{index .Config.Labels \"version\"}}"), "2");
}

#[test]
fn two_projects_do_not_see_each_other() {
    let host = Host::boot(&["busybox"]);
    let (a, b) = (
        Project::new(
            &host,
            "a",
            "\
services:
  web: *web
  client: *client
",
        ),
        Project::new(
            &host,
            "b",
            "\
services:
  web: *web
  only: *web
  client: *client
",
        ),
    );
    a.up();
    b.up();
    for project in [&a, &b] {
        let answered = project.answering(&project.container("client", 1), "http://web/", 5);
        assert_eq!(answered, project.running("web"), "each `web` is the project's own");
    }
    assert_ne!(a.within("a-client-1", "nslookup only").code, 0);
    let vip = b.within("b-client-1", "nslookup only | awk '/^Address/ {a=$NF} END {print a}'").ok();
    let pod = b.inspect("b-only-1", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    for address in [vip, pod] {
        assert_ne!(a.within("a-client-1", &format!("timeout 2 wget -q -O - http://{address}/")).code, 0, "{address}");
    }
    a.down();
    assert_eq!(a.running(""), BTreeSet::new());
    assert_eq!(b.answering("b-client-1", "http://only/", 3), b.running("only"));
}
