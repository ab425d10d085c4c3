//! The commands as a user types them, on a real engine: what they print and how they end.

use std::collections::BTreeSet;

use serde_json::Value;

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
    for name in ["again-web-1", "again-web-2", "again-talker-1"] {
        assert!(plan.contains(&format!("\"{name}\"")), "{name} is to be made: {plan}");
    }
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

    let streams = eventually(secs(15), "both streams in the logs", || {
        let done = project.orch(&["logs", "--no-log-prefix", "talker"]);
        if done.stdout.contains("one") && done.stderr.contains("two") { Ok(done) } else { Err(done) }
    });
    assert_eq!((streams.stdout.as_str(), streams.stderr.as_str()), ("one\n", "two\n"), "each on its own stream");
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

/// What a plan in JSON says that will be done, in the words in which it is told when it is.
fn planned(project: &Project<'_>, plan: &str) -> BTreeSet<(String, String)> {
    let plan: Value = serde_json::from_str(plan).expect("a plan");
    let steps = plan["steps"].as_array().expect("steps");
    let done = steps.iter().filter_map(|planned| {
        let step = &planned["step"];
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        let (id, status) = match step["action"].as_str().expect("an action") {
            "create_network" => (format!("Network {}_{}", project.name, text("network")), "Created"),
            "create_container" => (format!("Container {}", text("name")), "Created"),
            "start_container" => (format!("Container {}", text("name")), "Started"),
            "stop_container" => (format!("Container {}", text("name")), "Stopped"),
            "remove_container" => (format!("Container {}", text("name")), "Removed"),
            "remove_network" => (format!("Network {}", text("name")), "Removed"),
            // What the load balancer does before a stop is no change of the engine's and not told.
            "drain" => return None,
            other => panic!("a step that this test does not expect: {other}"),
        };
        Some((id, status.to_owned()))
    });
    done.collect()
}

/// What was told as JSON, an object a line, that was done.
#[track_caller]
fn told(done: crate::host::Done) -> BTreeSet<(String, String)> {
    let lines = done.ok();
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object a line"));
    let pair = |event: Value| Some((event["id"].as_str()?.to_owned(), event["status"].as_str()?.to_owned()));
    let changes = ["Created", "Started", "Stopped", "Removed"];
    events.filter_map(pair).filter(|(_, status)| changes.contains(&status.as_str())).collect()
}

#[test]
fn up_and_down_do_exactly_what_their_plans_print() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "exact");
    // The first time the plan is that of the command line alone: there is no agent yet.
    for yaml in [None, Some("services:\n  web: {<<: *web, environment: {A: b}}\n  other: *client\n")] {
        if let Some(yaml) = yaml {
            project.rewrite(yaml);
        }
        let plan = project.orch(&["plan", "--remove-orphans", "--format", "json"]).ok();
        let dry = project.orch(&["up", "--dry-run", "--remove-orphans", "--format", "json"]).ok();
        assert_eq!(planned(&project, &dry), planned(&project, &plan), "one plan by two names");
        let wanted = planned(&project, &plan);
        assert!(wanted.len() > 3, "{wanted:?}");
        let up = ["up", "-d", "--wait", "--remove-orphans", "--format", "json"];
        assert_eq!(told(project.orch(&up)), wanted);
        assert_eq!(told(project.orch(&up)), BTreeSet::new(), "and then nothing");
        assert_eq!(planned(&project, &project.orch(&["plan", "--format", "json"]).ok()), BTreeSet::new());
    }
    project.orch(&["up", "--format", "json"]).refused(1, &["--format json", "-d"]);
    let wanted = planned(&project, &project.orch(&["down", "--dry-run", "--format", "json"]).ok());
    assert_eq!(told(project.orch(&["down", "--format", "json"])), wanted);
}

#[test]
fn a_newer_agent_is_replaced_only_when_asked_for() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "newer");
    let labels = ["orch.role=agent", "orch.agent.version=99.0.0", "orch.agent.build=ffffffffffff"];
    let labels = labels.iter().flat_map(|label| ["--label", label]).collect::<Vec<_>>();
    let run = ["run", "-d", "--name", "orch-agent", "--stop-signal", "KILL"];
    host.docker(&[&run, labels.as_slice(), &["busybox", "sleep", "1000"]].concat());
    project.orch(&["up", "-d"]).refused(1, &["99.0.0", "`orch up --allow-downgrade`"]);
    assert_eq!(project.running("").len(), 0);
    project.orch(&["up", "-d", "--wait", "--allow-downgrade"]).ok();
    assert_eq!(project.running("web").len(), 2);
}

#[test]
fn what_the_client_reads_for_the_engine_and_what_the_engine_is_too_old_for() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *web, ports: [{target: 53, published: '5353', protocol: udp, mode: host}]}
  tight:
    <<: *client
    security_opt: ['seccomp=./profile.json', 'systempaths=unconfined']
    healthcheck: {test: [CMD, 'true'], interval: 1s, start_period: 5s, start_interval: 100ms}
";
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    let project = Project::new(&host, "reads", yaml);
    host.write("/root/reads/profile.json", profile);
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(done.stderr.contains("compose.yaml:8:"), "an old engine's limits have a place: {}", done.stderr);
    assert!(done.stderr.contains("`start_interval` of service `tight` has no effect"), "{}", done.stderr);
    done.ok();
    let refused = project.within("reads-tight-1", "mkdir /tmp/x");
    assert!(refused.stderr.contains("Operation not permitted"), "the profile is applied: {refused:?}");
    assert_eq!(project.inspect("reads-tight-1", "{{len .HostConfig.MaskedPaths}}"), "0");
    let bound = "{{(index (index .HostConfig.PortBindings \"53/udp\") 0).HostPort}}";
    assert_eq!(project.inspect("reads-web-1", bound), "5353", "UDP of `mode: host` is the engine's");
    // Another profile is another container.
    let before = project.running("tight");
    host.write("/root/reads/profile.json", "{\"defaultAction\": \"SCMP_ACT_ALLOW\"}");
    project.up();
    assert_ne!(project.running("tight"), before);
    project.within("reads-tight-1", "mkdir /tmp/x").ok();
}

#[test]
fn the_agent_shows_its_log_and_how_it_is_and_can_be_stopped() {
    let host = Host::boot(&["busybox"]);
    host.orch(&["agent", "status"]).refused(1, &["no agent is installed", "`orch up` starts it"]);
    let project = project(&host, "looked");
    project.up();
    let logs = host.orch(&["agent", "logs"]).ok();
    assert!(logs.contains("agent ready"), "{logs}");
    assert_eq!(host.orch(&["agent", "logs", "-n", "1"]).ok().lines().count(), 1);
    let status: Value = serde_json::from_str(&host.orch(&["agent", "status", "--format", "json"]).ok()).expect("JSON");
    assert_eq!((&status["host"], &status["problems"]), (&"local".into(), &serde_json::json!([])));
    assert_eq!(status["engine_id"], host.docker(&["info", "-f", "{{.ID}}"]));
    host.orch(&["agent", "stop"]).ok();
    host.orch(&["agent", "status"]).refused(1, &["`orch agent logs` says why"]);
    assert!(host.orch(&["agent", "logs"]).ok().contains("agent ready"), "its log stays");
}
