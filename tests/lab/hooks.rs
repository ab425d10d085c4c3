//! What happens in a container's life by the file's wish: commands after its start and before its stop, how it is started
//! again, and whose mounts it has.

use crate::host::Host;
use crate::project::Project;
use crate::wait::{becomes, eventually, secs, stays};

/// Hooks that write down, in a volume, who ran where and with what. `$$` is for the shell in the container.
const HOOKS: &str = "\
services:
  web:
    image: busybox
    command: [sh, -c, 'trap \"echo signal >> /log/order; exit\" TERM; sleep 1000000 & wait']
    volumes: ['log:/log']
    environment: {FROM: container}
    post_start:
      - {command: [sh, -c, 'echo \"start $$(id -u) $$PWD $$FROM $$WHO\" >> /log/order'], user: root, working_dir: /tmp, environment: {WHO: hook}}
      - {command: [sh, -c, 'echo second >> /log/order']}
    pre_stop:
      - {command: [sh, -c, 'echo stopping >> /log/order; sleep 1; echo stopped >> /log/order']}
  reader: {<<: *client, volumes: ['log:/log']}
volumes:
  log:
";

impl Project<'_> {
    fn log(&self) -> String {
        self.within(&self.container("reader", 1), "tr '\\n' ',' < /log/order").ok()
    }
}

#[test]
fn hooks_are_run_after_each_start_and_before_each_stop() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "hooks", HOOKS);
    project.up();
    let start = "start 0 /tmp container hook,second,";
    assert_eq!(project.log(), start);
    project.up();
    assert_eq!(project.log(), start, "nothing was started");
    host.sh("docker kill hooks-web-1");
    let twice = start.repeat(2);
    becomes(secs(10), "the hooks of the second run", &twice, || project.log());
    // Another spec: the container that goes is told before, the one that comes after.
    project.rewrite(&HOOKS.replace("FROM: container", "FROM: container, MORE: '1'"));
    project.up();
    let replaced = format!("{twice}stopping,stopped,signal,{start}");
    assert_eq!(project.log(), replaced);
    // Also the container of a service that the file does not have any more.
    project.rewrite("services: {reader: {<<: *client, volumes: ['log:/log']}}\nvolumes: {log: }\n");
    project.orch(&["up", "-d", "--wait", "--remove-orphans"]).ok();
    assert_eq!(project.log(), format!("{replaced}stopping,stopped,signal,"));
}

#[test]
fn a_hook_that_fails_fails_up_and_one_that_hangs_keeps_nobody_from_down() {
    let host = Host::boot(&["busybox"]);
    let failing =
        "services: {web: {<<: *client, post_start: [{command: [sh, -c, 'exit 7']}, {command: [touch, /never]}]}}";
    let project = Project::new(&host, "fails", failing);
    project.orch(&["up", "-d"]).refused(1, &["web hook exited with status 7"]);
    assert_eq!(project.running("web").len(), 1, "the container runs, as with Docker Compose");
    assert_ne!(project.within("fails-web-1", "test -e /never").code, 0);
    project.rewrite(&failing.replace("sh, -c, 'exit 7'", "no-such-program"));
    project.orch(&["up", "-d"]).refused(1, &["no-such-program"]);
    project.rewrite(&failing.replace("exit 7", "true"));
    project.up();
    assert_eq!(project.within("fails-web-1", "test -e /never").code, 0);
    project.rewrite(&failing.replace("exit 7", "touch /hangs; sleep 1000000"));
    let up = host.start_orch(&project.args(&["up", "-d"]));
    eventually(secs(20), "the hook that hangs", || {
        let done = project.within("fails-web-1", "test -e /hangs");
        if done.code == 0 { Ok(()) } else { Err(done) }
    });
    project.down();
    up.signal("KILL");
    assert_eq!(project.running("").len(), 0);
}

#[test]
fn a_restart_policy_has_its_delay_and_gives_up_after_its_attempts() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  job:
    image: busybox
    command: [sh, -c, 'date +%s >> /log/times; exit 1']
    volumes: ['log:/log']
    deploy: {restart_policy: {condition: on-failure, delay: 2s, max_attempts: 2}}
  reader: {<<: *client, volumes: ['log:/log']}
volumes: {log: }
";
    let project = Project::new(&host, "again", yaml);
    project.orch(&["up", "-d"]).ok();
    let times = || project.within("again-reader-1", "cat /log/times").stdout;
    becomes(secs(20), "three runs", &3, || times().lines().count());
    let seconds: Vec<u64> = times().lines().map(|line| line.parse().expect("a time")).collect();
    assert!(seconds.windows(2).all(|pair| pair[1] - pair[0] >= 2), "{seconds:?}");
    let policy = project.inspect("again-job-1", "{{.HostConfig.RestartPolicy.Name}}");
    assert!(matches!(policy.as_str(), "" | "no"), "the engine starts nothing: {policy}");
    stays(secs(5), "three runs", || times().lines().count());
}

#[test]
fn a_container_has_the_mounts_of_another_also_those_without_a_name() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  data: {image: busybox, command: [sh, -c, 'echo here > /a/file; echo named > /n/file'], volumes: [/a, 'named:/n'], restart: 'no'}
  web: {<<: *client, volumes_from: [data]}
  ro: {<<: *client, volumes_from: ['data:ro']}
volumes: {named: }
";
    let project = Project::new(&host, "from", yaml);
    project.up();
    let read = |container: &str| project.within(container, "cat /a/file /n/file").ok();
    assert_eq!(read("from-web-1"), "here\nnamed");
    assert_eq!(read("from-ro-1"), "here\nnamed");
    assert_ne!(project.within("from-ro-1", "touch /n/x").code, 0);
    project.within("from-web-1", "echo more >> /a/file").ok();
    let before = project.running("web");
    project.rewrite(&yaml.replace("echo here > /a/file;", "true;"));
    project.up();
    assert_ne!(project.running("web"), before, "it is made anew with the other one");
    assert_eq!(read("from-web-1"), "here\nmore\nnamed", "and the volume without a name moved on");
}
