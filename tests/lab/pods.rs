//! Pods of several containers: what comes and goes together, and what stays.

use crate::host::Host;
use crate::project::{Project, host_name};
use crate::wait::{becomes, eventually, secs, stays};

/// A pod of each kind of container. What prepares it, and its sidecar, write down when they ran.
const POD: &str = "\
services:
  web:
    <<: *web
    x-init:
      first: {image: busybox, command: [sh, -c, 'echo first >> /log/order; echo ready'], volumes: ['log:/log']}
      second: {image: busybox, command: [sh, -c, 'echo second >> /log/order'], volumes: ['log:/log']}
    x-sidecars:
      helper:
        image: busybox
        init: true
        command: [sh, -c, 'echo helper >> /log/order; exec sleep 1000000']
        volumes: ['log:/log']
  client: *client
volumes:
  log: {x-pod: {medium: memory}}
";

impl Project<'_> {
    /// Returns when a container was started last, by the engine.
    fn started(&self, container: &str) -> String {
        self.inspect(container, "{{.State.StartedAt}}")
    }

    /// Returns the address of the pod that a container is in.
    fn pod_address(&self, container: &str) -> String {
        self.within(container, "ip -4 -o addr show dev eth0 | awk '{print $4}'").ok()
    }

    /// Returns what the pod's containers wrote down, in one line.
    fn order(&self, helper: &str) -> String {
        self.within(helper, "tr '\\n' ' ' < /log/order").ok().trim().to_owned()
    }
}

#[test]
fn containers_of_a_pod_start_in_order_and_share_address_and_volume() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "pod", POD);
    project.up();
    assert_eq!(project.order("pod-web-1-helper"), "first second helper");
    let answer = project.fetch("pod-client-1", "http://web/");
    assert!(answer.contains("Hostname:"), "{answer}");
    let inside = project.fetch("pod-web-1-helper", "http://127.0.0.1/");
    assert_eq!(host_name(&inside), host_name(&project.fetch("pod-client-1", "http://1.web/")));
    // Names from inside: the pod is its service, whoever of it asks.
    project.fetch("pod-web-1-helper", "http://web/");
    let second = project.orch(&["up", "-d"]).ok();
    assert!(!second.contains("Start"), "{second}");
    let all = project.orch(&["ps", "-a", "--format", "json"]).ok();
    let brief = project.orch(&["ps", "--format", "json"]).ok();
    assert!(all.contains("pod-web-1-pod") && !brief.contains("pod-web-1-pod"), "{brief}");
    assert!(project.orch(&["logs", "web"]).ok().contains("ready"));
    assert_eq!(project.orch(&["exec", "-T", "web.helper", "echo", "in"]).ok(), "in");
    project.down();
    assert_eq!(host.docker(&["volume", "ls", "-q"]), "", "a pod's volumes go with it");
    assert_eq!(host.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=pod"]), "");
}

#[test]
fn a_main_container_comes_back_into_its_pod_within_two_seconds_and_the_rest_stays() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "stay", POD);
    project.up();
    let (address, helper) = (project.pod_address("stay-web-1-helper"), project.started("stay-web-1-helper"));
    let holder = project.started("stay-web-1-pod");
    for by_hand in ["docker kill stay-web-1", "docker rm -f stay-web-1"] {
        let before = project.inspect("stay-web-1", "{{.Id}} {{.State.StartedAt}}");
        host.sh(by_hand);
        eventually(secs(2), by_hand, || {
            let now =
                host.sh("docker inspect -f '{{.Id}} {{.State.StartedAt}} {{.State.Running}}' stay-web-1 2>&1 || true");
            if now.ends_with("true") && !now.starts_with(&before) { Ok(()) } else { Err(now) }
        });
        assert_eq!(project.pod_address("stay-web-1-helper"), address);
        assert_eq!(
            (project.started("stay-web-1-helper"), project.started("stay-web-1-pod")),
            (helper.clone(), holder.clone())
        );
        eventually(secs(3), "an answer", || {
            let answer = project.within("stay-client-1", "timeout 2 wget -q -O - http://web/");
            if answer.code == 0 { Ok(()) } else { Err(answer.stderr) }
        });
    }
    assert_eq!(project.order("stay-web-1-helper"), "first second helper", "what prepares a pod ran once");
}

#[test]
fn a_holder_that_is_killed_or_removed_takes_its_pod_along_in_order() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "hold", POD);
    project.up();
    host.docker(&["kill", "hold-web-1-pod"]);
    // In a volume in memory nothing outlives the moment in which nobody mounts it; helpers and main start after that.
    eventually(secs(15), "the pod serves again", || {
        let answer = project.within("hold-client-1", "timeout 2 wget -q -O - http://1.web/");
        if answer.code == 0 { Ok(()) } else { Err(answer.stderr) }
    });
    let times: Vec<String> = ["pod", "first", "second", "helper"]
        .iter()
        .map(|member| project.started(&format!("hold-web-1-{member}")))
        .chain([project.started("hold-web-1")])
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let made = project.inspect("hold-web-1", "{{.Id}}");
    host.docker(&["rm", "-f", "hold-web-1-pod"]);
    eventually(secs(15), "a new pod", || {
        let now = host.sh("docker inspect -f '{{.Id}} {{.State.Running}}' hold-web-1 2>&1 || true");
        if now.ends_with("true") && !now.starts_with(&made) { Ok(()) } else { Err(now) }
    });
    becomes(secs(5), "its containers ran in order", &"first second helper".to_owned(), || {
        project.order("hold-web-1-helper")
    });
    project.fetch("hold-client-1", "http://web/");
}

#[test]
fn a_change_of_a_helper_rolls_out_pod_by_pod_and_lose_no_request() {
    let host = Host::boot(&["busybox"]);
    let yaml = |version: u8| {
        format!(
            "services:\n  web:\n    <<: *web\n    deploy: {{replicas: 2}}\n    x-sidecars:\n      \
             helper: {{image: busybox, init: true, command: [sleep, '1000000'], environment: {{V: '{version}'}}}}\n  client: *client\n"
        )
    };
    let project = Project::new(&host, "roll", &yaml(1));
    project.up();
    let before = project.running("web");
    let probe = crate::probe::Probe::beside(&project, "roll-client-1", 50, 20, &["http://web/"]);
    project.rewrite(&yaml(2));
    project.orch(&["up", "-d", "--wait"]).ok();
    let report = probe.finish();
    assert_eq!(report.failed, 0, "{report:?}");
    assert!(project.running("web").is_disjoint(&before), "both pods are new");
    assert_eq!(project.within("roll-web-2-helper", "echo $V").ok(), "2");
}

#[test]
fn a_job_is_not_kept_from_ending_by_its_helpers() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  job:
    image: busybox
    restart: 'no'
    command: [sh, -c, 'echo done']
    x-sidecars:
      proxy: {image: busybox, init: true, command: [sleep, '1000000']}
  after: {<<: *web, depends_on: {job: {condition: service_completed_successfully}}}
";
    let project = Project::new(&host, "job", yaml);
    project.up();
    becomes(secs(5), "its helpers have ended", &String::new(), || {
        host.docker(&["ps", "-q", "--filter", "name=job-job-1"])
    });
    stays(secs(2), "nothing of it is started again", || project.started("job-job-1-pod"));
}

#[test]
fn what_never_prepares_a_pod_is_said_with_its_last_lines_and_up_ends() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web:
    <<: *web
    x-init:
      migrate: {image: busybox, command: [sh, -c, 'echo no such table; exit 7']}
";
    let project = Project::new(&host, "stuck", yaml);
    let done = project.orch(&["up", "-d"]);
    assert_eq!(done.code, 1);
    for words in ["stuck-web-1-migrate failed", "the last time with 7", "no such table"] {
        assert!(done.stderr.contains(words), "{words} in {}", done.stderr);
    }
    // It is tried on, and the pod comes up once it works.
    project
        .rewrite("services:\n  web:\n    <<: *web\n    x-init:\n      migrate: {image: busybox, command: ['true']}\n");
    project.up();
}

/// It runs whenever somebody looks, but for a moment: that is not what `--wait` waits for.
#[test]
fn a_helper_that_ends_again_and_again_lets_no_wait_succeed() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web:
    <<: *web
    x-sidecars:
      helper: {image: busybox, command: [sh, -c, 'sleep 0.3; echo no licence; exit 3']}
";
    let project = Project::new(&host, "flaps", yaml);
    let done = project.orch(&["up", "-d", "--wait"]);
    assert_eq!(done.code, 1, "{done:?}");
    for words in ["flaps-web-1-helper", "times in a row", "no licence"] {
        assert!(done.stderr.contains(words), "{words} in {}", done.stderr);
    }
    // Once it works, a look is enough.
    project.rewrite(&yaml.replace("exit 3", "exec sleep 1000000"));
    project.up();
}

/// As Kubernetes ends pods with native sidecars: the main container first, then the sidecars, those that came last first.
#[test]
fn a_pod_ends_with_its_main_container_first_and_a_sidecar_that_ends_comes_back_alone() {
    let host = Host::boot(&["busybox"]);
    let ends = |name: &str| {
        // Who is told to end takes a second for it: the next one must wait for that.
        let last = format!("sleep 1; echo {name} >> /log/ends; exit");
        format!("[sh, -c, 'trap \"{last}\" TERM; while true; do sleep 1000000 & wait $$!; done']")
    };
    let (main, one, two) = (ends("main"), ends("one"), ends("two"));
    let yaml = format!(
        "\
services:
  web:
    image: busybox
    command: {main}
    volumes: ['log:/log']
    x-sidecars:
      one: {{image: busybox, command: {one}, volumes: ['log:/log']}}
      two: {{image: busybox, command: {two}, volumes: ['log:/log']}}
  client: {{<<: *client, volumes: ['log:/log']}}
volumes: {{log: {{}}}}
"
    );
    let project = Project::new(&host, "ends", &yaml);
    project.up();
    let others = || ["ends-web-1", "ends-web-1-pod", "ends-web-1-two"].map(|one| project.started(one));
    let (before, killed) = (others(), project.started("ends-web-1-one"));
    host.docker(&["kill", "ends-web-1-one"]);
    eventually(secs(10), "the sidecar runs again", || {
        let now = project.inspect("ends-web-1-one", "{{.State.Running}} {{.State.StartedAt}}");
        if now.starts_with("true") && !now.ends_with(&killed) { Ok(()) } else { Err(now) }
    });
    assert_eq!(others(), before, "nothing else was touched");
    project.orch(&["stop", "web"]).ok();
    assert_eq!(project.within("ends-client-1", "cat /log/ends").ok(), "main\ntwo\none");
    project.down();
}

/// Services may share the memory and the processes of another one's container, also of one that is made anew.
#[test]
fn services_share_memory_and_processes_of_others() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *web, ipc: shareable}
  memory: {<<: *client, ipc: 'service:web'}
  watch: {<<: *client, pid: 'service:web', ipc: 'service:web'}
";
    let project = Project::new(&host, "shared", yaml);
    project.up();
    let space = |container: &str, kind: &str| {
        // In between there may be none.
        let script = format!("readlink /proc/$(docker inspect -f '{{{{.State.Pid}}}}' {container})/ns/{kind} || true");
        host.sh(&script).trim().to_owned()
    };
    let all = || {
        let of = |kind: &str, peers: &[&str]| -> Vec<bool> {
            let own = space("shared-web-1", kind);
            peers.iter().map(|peer| !own.is_empty() && space(peer, kind) == own).collect()
        };
        (of("ipc", &["shared-memory-1", "shared-watch-1"]), of("pid", &["shared-watch-1", "shared-memory-1"]))
    };
    let shared = (vec![true, true], vec![true, false]);
    assert_eq!(all(), shared);
    let seen = project.within("shared-watch-1", "ps").ok();
    assert!(seen.contains("/orch demo") || seen.contains("web"), "the other one's program: {seen}");
    // Who lives in what is gone is made anew with it.
    host.docker(&["rm", "-f", "shared-web-1"]);
    becomes(secs(20), "spaces shared again", &shared, all);
    host.docker(&["kill", "shared-web-1"]);
    becomes(secs(20), "spaces shared again after a crash", &shared, all);
    assert!(!project.orch(&["up", "-d"]).ok().contains("Start"), "nothing is left to do");
    project.down();
}
