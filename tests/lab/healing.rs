//! What is taken away by hand, or fails by itself, comes back.

use std::time::Duration;

use crate::host::Host;
use crate::project::Project;
use crate::wait::{becomes, eventually, secs, stays};

/// How long a container taken away by hand may be missing.
const BACK: Duration = secs(2);

#[test]
fn a_container_removed_stopped_or_crashed_by_hand_is_back_within_two_seconds() {
    let host = Host::boot(&[]);
    let yaml = "\
services:
  web: {<<: *web, deploy: {replicas: 2}}
  other: *web
";
    let project = Project::new(&host, "heal", yaml);
    project.up();
    let other = project.inspect("heal-other-1", "{{.Id}} {{.State.StartedAt}}");

    let before = project.running("web");
    host.docker(&["rm", "-f", "heal-web-1"]);
    project.replaced("web", &before, BACK);

    let running = || project.inspect("heal-web-2", "{{.State.Running}} {{.State.StartedAt}}");
    let mut last = running();
    for by_hand in [
        "docker stop -t 0 heal-web-2",
        "docker kill heal-web-2",
        "kill -9 $(docker inspect -f {{.State.Pid}} heal-web-2)",
    ] {
        host.sh(by_hand);
        last = eventually(BACK, by_hand, || {
            let now = running();
            if now.starts_with("true") && now != last { Ok(now) } else { Err(now) }
        });
    }
    assert_eq!(project.inspect("heal-other-1", "{{.Id}} {{.State.StartedAt}}"), other, "the others are not touched");
}

#[test]
fn an_unhealthy_container_is_replaced_and_gets_no_connections_meanwhile() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {image: busybox, stop_signal: SIGKILL, deploy: {replicas: 2}, command: [sh, -c, 'mkdir /www; echo \"Hostname: $$(hostname)\" >/www/index.html; exec httpd -f -p 80 -h /www'], healthcheck: {test: ['CMD', 'test', '!', '-e', '/sick'], interval: 200ms, timeout: 2s, retries: 1}}
  client: *client
";
    let project = Project::new(&host, "health", yaml);
    project.up();
    assert_eq!(project.answering("health-client-1", "http://web/", 10), project.running("web"));

    let before = project.running("web");
    let sick = project.inspect("health-web-1", "{{.Id}}");
    project.within("health-web-1", "touch /sick").ok();
    // Between the old container and the new one there is none of that name.
    let replaced = || host.sh("docker inspect -f '{{.Id}} {{.State.Health.Status}}' health-web-1 2>&1 || true");
    eventually(secs(10), "a healthy web-1 that is another container", || {
        let now = replaced();
        if !now.starts_with(&sick) && now.ends_with(" healthy") { Ok(()) } else { Err(now) }
    });
    assert_ne!(project.running("web"), before);
    becomes(secs(5), "both answer again", &project.running("web"), || {
        project.answering("health-client-1", "http://web/", 10)
    });
}

#[test]
fn a_container_that_crashes_by_itself_is_restarted_with_growing_pauses() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  bad: {image: busybox, command: [sh, -c, 'exit 3'], restart: always}
";
    let project = Project::new(&host, "crash", yaml);
    project.orch(&["up", "-d"]).ok();
    // When it was started, in milliseconds.
    let starts = || -> Vec<u64> {
        let mut args = vec!["events", "--since", "1h", "--until", "0s", "--format", "{{.TimeNano}}"];
        args.extend(["--filter", "event=start", "--filter", "label=com.docker.compose.project=crash"]);
        let text = host.docker(&args);
        text.lines().map(|line| line.trim().parse::<u64>().expect("a time") / 1_000_000).collect()
    };
    eventually(secs(30), "seven starts", || if starts().len() >= 7 { Ok(()) } else { Err(starts()) });
    let times = starts();
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // None before the first restart, then 0.1 s, 0.2 s … after each end; a run itself takes some time too.
    for (gap, pause) in gaps.iter().zip([0, 100, 200, 400, 800, 1600]) {
        assert!(*gap >= pause, "pauses of {gaps:?} ms between starts: one of {gap} where {pause} are due");
    }
}

#[test]
fn a_job_that_ended_well_is_not_run_again_until_up_asks() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  job: {image: busybox, command: ['true']}
  web: {<<: *web, depends_on: {job: {condition: service_completed_successfully}}}
";
    let project = Project::new(&host, "job", yaml);
    project.up();
    let started = || project.inspect("job-job-1", "{{.State.StartedAt}} {{.State.Status}}");
    stays(secs(3), "a finished job", started);
    let first = started();
    project.up();
    assert_ne!(started(), first, "`up` runs it again");
}
