//! The commands as a user types them, on a real engine: what they print and how they end.

use crate::host::Host;
use crate::project::Project;
use crate::wait::eventually;
use crate::wait::secs;

fn project<'a>(host: &'a Host, name: &str) -> Project<'a> {
    let yaml = "\
services:
  web: {<<: *web, deploy: {replicas: 2}}
  talker: {image: busybox, command: [sh, -c, 'echo one; echo two >&2; exec sleep 1000000'], stop_signal: SIGKILL}
";
    Project::new(host, name, yaml)
}

#[test]
fn a_second_up_changes_nothing_and_a_plan_says_so() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "again");
    let plan = project.orch(&["plan", "--format", "json"]).ok();
    assert_eq!(
        host.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=again"]),
        "",
        "a plan changes nothing"
    );
    assert!(plan.contains("again-web-1") || plan.contains("web"), "{plan}");
    project.up();
    let lives = project.lives();
    project.up();
    assert_eq!(project.lives(), lives);

    project.rewrite(
        "\
services:
  web: {<<: *web, environment: {A: b}, deploy: {replicas: 1}}
",
    );
    let plan = project.orch(&["plan"]).ok();
    assert!(plan.contains("configuration changed: environment"), "{plan}");
    let orphans = project.orch(&["up", "-d", "--wait"]);
    assert!(orphans.stderr.contains("again-talker-1"), "an orphan is named: {}", orphans.stderr);
    assert_eq!((project.running("web").len(), project.running("talker").len()), (1, 1));
    assert_eq!(project.inspect("again-web-1", "{{range .Config.Env}}{{println .}}{{end}}").matches("A=b").count(), 1);
    project.orch(&["up", "-d", "--wait", "--remove-orphans"]).ok();
    assert_eq!(project.running("talker").len(), 0);
}

#[test]
fn ps_ls_logs_and_exec_tell_of_the_containers() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "tell");
    project.up();
    let rows = project.orch(&["ps"]).ok();
    for name in ["tell-web-1", "tell-web-2", "tell-talker-1"] {
        assert!(rows.contains(name), "{rows}");
    }
    assert_eq!(project.orch(&["ps", "-q"]).ok().lines().count(), 3);
    assert!(host.orch(&["ls"]).ok().contains("tell"));

    eventually(secs(5), "both streams in the logs", || {
        let done = project.orch(&["logs", "talker"]);
        let logs = format!("{}{}", done.stdout, done.stderr);
        if logs.contains("one") && logs.contains("two") { Ok(()) } else { Err(logs) }
    });
    let done = project.orch(&["exec", "-T", "talker", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((done.code, done.stdout.trim(), done.stderr.trim()), (7, "out", "err"));
    project.orch(&["exec", "-T", "nobody", "true"]).refused(1, &["nobody"]);
    project.orch(&["logs", "nobody"]).refused(1, &["nobody"]);
    assert!(host.orch(&["version"]).ok().contains(env!("CARGO_PKG_VERSION")));
    host.orch(&["upp"]).refused(1, &["upp", "up"]);
}

#[test]
fn docker_compose_sees_what_orch_made_and_the_other_way_round() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "both");
    project.up();
    let labels = project.inspect("both-web-2", "{{range $k, $v := .Config.Labels}}{{println $k \"=\" $v}}{{end}}");
    for label in [
        "com.docker.compose.project = both",
        "com.docker.compose.service = web",
        "com.docker.compose.container-number = 2",
        "com.docker.compose.oneoff = False",
    ] {
        assert!(labels.contains(label), "no `{label}` in {labels}");
    }
    host.docker(&[
        "run",
        "-d",
        "--name",
        "foreign-x-1",
        "--label",
        "com.docker.compose.project=foreign",
        "--label",
        "com.docker.compose.service=x",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert!(host.orch(&["ls"]).ok().contains("foreign"), "projects that orch did not make are listed");
    project.down();
    assert_eq!(host.docker(&["ps", "-q", "--filter", "name=foreign-x-1"]).lines().count(), 1, "and not touched");
}

#[test]
fn up_can_make_containers_without_a_start_and_can_be_told_how_long_a_stop_may_take() {
    let host = Host::boot(&["busybox"]);
    let yaml = |user: u8| {
        format!(
            "services:\n  slow: {{image: busybox, command: [sleep, '1000000'], stop_grace_period: 60s, user: '{user}'}}\n"
        )
    };
    let project = Project::new(&host, "made", &yaml(1));
    let state = || project.inspect("made-slow-1", "{{.State.Status}}");
    project.orch(&["up", "--no-start"]).ok();
    assert_eq!(state(), "created");
    host.docker(&["restart", "-t", "5", "orch-agent"]);
    project.orch(&["up", "--no-start"]).ok();
    assert_eq!(state(), "created", "left so by a new agent");
    project.orch(&["up", "-d"]).ok();
    assert_eq!(state(), "running");
    // It ignores the stop signal: `sleep` is process 1 of its container.
    project.rewrite(&yaml(2));
    let at = || host.sh("date +%s").parse::<u64>().expect("a time");
    let begun = at();
    project.orch(&["up", "-d", "-t", "1"]).ok();
    assert_eq!(project.inspect("made-slow-1", "{{.Config.User}}"), "2");
    assert!(at() - begun < 30, "stopped within the second that was asked for, not within its own minute");
    // Else the host would wait for it at its own end.
    project.orch(&["down", "-t", "0"]).ok();
}

#[test]
fn changed_options_make_a_network_anew_and_are_said_of_a_volume() {
    let host = Host::boot(&["busybox"]);
    let yaml = |mtu: u16, size: &str| {
        format!(
            "networks: {{default: {{driver_opts: {{com.docker.network.driver.mtu: '{mtu}'}}}}}}\n\
             volumes: {{data: {{driver_opts: {{type: tmpfs, device: tmpfs, o: size={size}}}}}}}\n\
             services: {{web: {{<<: *web, volumes: ['data:/data']}}, client: *client}}\n"
        )
    };
    let project = Project::new(&host, "options", &yaml(1400, "1m"));
    project.up();
    project.rewrite(&yaml(1300, "2m"));
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(done.stderr.contains("docker volume rm options_data"), "what to do is said: {}", done.stderr);
    done.ok();
    let template = "{{index .Options \"com.docker.network.driver.mtu\"}}";
    assert_eq!(host.docker(&["network", "inspect", "-f", template, "options_default"]), "1300");
    project.fetch("options-client-1", "http://web/");
    let lives = project.lives();
    project.orch(&["up", "-d", "--wait"]).ok();
    assert_eq!(project.lives(), lives);
}

#[test]
fn dependencies_are_waited_for_and_their_failure_is_named() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  db: {<<: *client, healthcheck: {test: [CMD, 'false'], interval: 200ms, retries: 2}}
  web: {<<: *web, depends_on: {db: {condition: service_healthy}}}
";
    let project = Project::new(&host, "deps", yaml);
    project.orch(&["up", "-d", "--wait"]).refused(1, &["db"]);
    assert_eq!(project.running("web").len(), 0);
    project.rewrite(
        "\
services:
  job: {image: busybox, command: [sh, -c, 'exit 7']}
  web: {<<: *web, depends_on: {job: {condition: service_completed_successfully}}}
",
    );
    project.orch(&["up", "-d", "--wait", "--remove-orphans"]).refused(1, &["job", "7"]);
    assert_eq!(project.running("web").len(), 0);
}
