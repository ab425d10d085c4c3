//! `pre_start`: what runs to its end before a service starts, in order, and not again while nothing changes.

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::Host;
use crate::project::Project;
use crate::wait::{becomes, eventually, secs};

/// Steps and a service that write down, in a volume, who ran with what.
const STEPS: &str = "\
services:
  db: {<<: *web}
  web:
    image: busybox
    command: [sh, -c, 'echo \"web $$HOSTNAME\" >> /log/order; exec sleep 1000000']
    stop_signal: SIGKILL
    depends_on: [db]
    environment: {FROM: service, WHO: service}
    user: '0'
    volumes: ['log:/log']
    configs: [{source: note, target: /note}]
    ports: ['8080:80']
    healthcheck: {test: [CMD, 'true'], interval: 200ms}
    pre_start:
      - command: [sh, -c, 'timeout 5 wget -q -O - http://db/ > /tmp/answer && echo \"first $$FROM $$WHO $$PWD $$(cat /note)\" >> /log/order']
        working_dir: /tmp
        environment: {WHO: step}
      - command: [sh, -c, 'sleep 1; echo \"second $$(id -u)\" >> /log/order']
  client: {<<: *client, volumes: ['log:/log']}
volumes: {log: }
configs: {note: {content: noted}}
";

impl Project<'_> {
    /// Returns what was written down, in one line and without the names of hosts.
    fn told(&self) -> String {
        self.within(&self.container("client", 1), "cut -d' ' -f1-5 /log/order | sed 's/^web .*/web/' | tr '\\n' ','")
            .ok()
    }
}

#[test]
fn steps_run_in_order_before_the_service_and_once_while_nothing_changes() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "steps", STEPS);
    project.up();
    let once = "first service step /tmp noted,second 0,web,";
    assert_eq!(project.told(), once);
    let second = project.orch(&["up", "-d"]).ok();
    assert!(!second.contains("Start"), "{second}");
    assert_eq!(project.told(), once, "a second `up` runs nothing");
    project.orch(&["up", "-d", "--wait", "--scale", "web=3"]).ok();
    assert_eq!(project.told(), format!("{once}web,web,"), "more replicas need none");
    // What is listed, and what others find.
    let all = project.orch(&["ps", "-a", "--format", "json"]).ok();
    let brief = project.orch(&["ps", "--format", "json"]).ok();
    assert!(all.contains("steps-web-pre_start-0") && !brief.contains("pre_start"), "{brief}");
    assert_eq!(project.running("web").len(), 3);
    let tasks = project.within("steps-client-1", "nslookup tasks.web | tail -n +3 | grep -c '^Address'").ok();
    assert_eq!(tasks, "3", "steps are no replicas");
    assert_eq!(
        project.inspect("steps-web-pre_start-0", "{{.HostConfig.PortBindings}} {{json .Config.Healthcheck.Test}}"),
        "map[] [\"NONE\"]"
    );
    // What ended is removed by hand: nothing needs it.
    host.sh("docker rm steps-web-pre_start-0 steps-web-pre_start-1");
    project.up();
    host.sh("docker kill steps-web-1");
    becomes(secs(20), "the replica is back", &"true".to_owned(), || {
        project.inspect("steps-web-1", "{{.State.Running}}")
    });
    assert!(!project.told()[once.len()..].contains("first"), "{}", project.told());
    project.down();
    assert_eq!(host.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=steps"]), "");
}

#[test]
fn steps_run_again_for_a_service_that_is_made_anew() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "anew", STEPS);
    project.up();
    let count = || project.within("anew-client-1", "grep -c first /log/order").ok();
    assert_eq!(count(), "1");
    project.rewrite(&STEPS.replace("WHO: step}", "WHO: other}"));
    project.up();
    assert_eq!(count(), "2", "the step changed");
    project.rewrite(&STEPS.replace("WHO: step}", "WHO: other}").replace("WHO: service}", "WHO: changed}"));
    project.up();
    assert_eq!(count(), "3", "the service changed");
    project.orch(&["up", "-d", "--wait", "--force-recreate", "--no-deps", "web"]).ok();
    assert_eq!(count(), "4", "it was asked for");
    project.orch(&["stop", "web"]).ok();
    project.orch(&["start", "web"]).ok();
    project.orch(&["restart", "web"]).ok();
    assert_eq!(count(), "4", "it was started again only");
    project.orch(&["rm", "-fs", "web"]).ok();
    assert_eq!(
        host.docker(&["ps", "-aq", "--filter", "name=anew-web"]),
        "",
        "with the service went what ran before it"
    );
    project.up();
    assert_eq!(count(), "5", "it was removed and made again");
    project.orch(&["run", "--rm", "web", "true"]).ok();
    assert_eq!(count(), "5", "a one-off is not prepared");
    project.down();
}

#[test]
fn a_step_that_fails_fails_up_with_its_last_lines_and_keeps_all_that_comes_after_it() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web:
    <<: *client
    pre_start:
      - {command: ['true']}
      - {command: [sh, -c, 'echo the schema is too old >&2; test -e /state/fine || exit 3']}
    volumes: ['state:/state']
  api: {<<: *client, depends_on: [web]}
  other: {<<: *client, volumes: ['state:/state']}
volumes: {state: }
";
    let project = Project::new(&host, "fails", yaml);
    for _ in 0..2 {
        let done = project.orch(&["up", "-d"]);
        let said = done.stderr.clone();
        done.refused(1, &["service \"web\" pre_start[1] exited with code 3", "the schema is too old"]);
        assert!(said.contains("fails-web-pre_start-1"), "{said}");
        assert_eq!(
            (project.running("web").len(), project.running("api").len(), project.running("other").len()),
            (0, 0, 1)
        );
    }
    let attached = project.orch(&["up"]);
    attached.refused(1, &["the schema is too old"]);
    let first = project.inspect("fails-web-pre_start-0", "{{.State.StartedAt}}");
    project.within("fails-other-1", "touch /state/fine").ok();
    project.up();
    assert_eq!((project.running("web").len(), project.running("api").len()), (1, 1));
    assert_eq!(
        project.inspect("fails-web-pre_start-0", "{{.State.StartedAt}}"),
        first,
        "what ended well is not run again"
    );
    // A change that fails leaves what runs as it is.
    let before = project.running("web");
    project.rewrite(&yaml.replace("test -e /state/fine || exit 3", "exit 4"));
    project.orch(&["up", "-d"]).refused(1, &["pre_start[1] exited with code 4"]);
    assert_eq!(project.running("web"), before);
    project.orch(&["logs", "web"]).ok();
    project.down();
}

#[test]
fn a_step_for_each_replica_fills_the_memory_of_that_one() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web:
    <<: *web
    deploy: {replicas: 2}
    tmpfs: ['/cache:size=1m']
    volumes: ['log:/log']
    pre_start:
      - {image: busybox, command: [sh, -c, 'echo once >> /log/order']}
      - {command: [sh, -c, 'hostname > /cache/who; echo each >> /log/order'], image: busybox, per_replica: true}
  client: {<<: *client, volumes: ['log:/log']}
volumes: {log: }
";
    let project = Project::new(&host, "each", yaml);
    project.up();
    let order = || project.within("each-client-1", "tr '\\n' ' ' < /log/order").ok().trim().to_owned();
    assert_eq!(order(), "once each each");
    let own = |number: u32| {
        let pid = project.inspect(&project.container("web", number), "{{.State.Pid}}");
        host.sh(&format!(
            "cat /proc/{pid}/root/cache/who; df -k /proc/{pid}/root/cache | tail -n 1 | awk '{{print $2}}'"
        ))
    };
    let holder = |number: u32| project.inspect(&format!("each-web-{number}-pod"), "{{.Config.Hostname}}");
    assert_eq!(own(1), format!("{}\n1024", holder(1)));
    assert_eq!(own(2), format!("{}\n1024", holder(2)));
    project.up();
    assert_eq!(order(), "once each each");
    project.orch(&["up", "-d", "--wait", "--scale", "web=3"]).ok();
    assert_eq!(order(), "once each each each");
    project.rewrite(&yaml.replace("hostname > /cache/who", "echo no room here; exit 5"));
    project.orch(&["up", "-d"]).refused(1, &["service \"web\" pre_start[1] exited with code 5", "no room here"]);
    project.down();
    assert_eq!(host.sh("docker volume ls -q | grep -c tmpfs || true"), "0");
}

#[test]
fn steps_run_where_the_services_volume_is() {
    let cluster = Cluster::boot(2, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2]).ok();
    let yaml = "\
services:
  web:
    <<: *web
    volumes: ['data:/data', './conf:/conf:ro']
    deploy: {placement: {constraints: ['node.hostname == node2']}}
    pre_start:
      - {image: busybox, command: [sh, -c, 'cat /conf/name >> /data/made; hostname >> /data/made']}
  spread:
    <<: *web
    deploy: {replicas: 2}
    pre_start: [{image: busybox, command: ['true']}]
volumes: {data: }
";
    desk.write("/root/far/conf/name", "brought\n");
    let project = Project::new(desk, "far", yaml);
    project.orch(&["up", "-d", "--wait"]).ok();
    let made = || {
        cluster[2].sh("head -n 1 /var/lib/docker/volumes/far_data/_data/made; wc -l < /var/lib/docker/volumes/far_data/_data/made")
    };
    assert_eq!(made(), "brought\n2");
    assert_eq!(cluster[1].sh("docker ps -a --format '{{.Names}}' | grep -c far-web || true"), "0");
    assert_eq!(cluster[2].sh("docker ps -a --format '{{.Names}}' | grep -c far-web-pre_start-0"), "1");
    let ran =
        |node: usize| cluster[node].sh("docker ps -a --format '{{.Names}}' | grep -c far-spread-pre_start || true");
    assert_eq!((ran(1).as_str(), ran(2).as_str()), ("1", "0"), "once for the service");
    project.orch(&["up", "-d", "--wait"]).ok();
    project.orch(&["scale", "spread=4"]).ok();
    assert_eq!(made(), "brought\n2");
    // The host whose replica the step ran with goes, and the other replicas need it no more.
    let started = cluster[2].sh("docker ps --format '{{.Names}} {{.ID}}' | grep far-spread | sort");
    desk.orch(&["host", "drain", "a"]).ok();
    eventually(secs(40), "all replicas on the other host", || {
        let names = cluster[2].sh("docker ps --format '{{.Names}}' | grep far-spread | sort | tr '\\n' ' '");
        if names.split_whitespace().count() == 4 { Ok(()) } else { Err(names) }
    });
    let now = cluster[2].sh("docker ps --format '{{.Names}} {{.ID}}' | grep far-spread | sort");
    assert!(started.lines().all(|line| now.contains(line)), "{started} -> {now}");
    assert_eq!(ran(2), "0", "it is not run again for those");
    project.orch(&["down", "-v"]).ok();
}
