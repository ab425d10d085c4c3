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
    assert!(plan.contains("web"), "{plan}");
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
