//! Podman as the engine, at its Docker-compatible socket: Debian's, in hosts of the lab that have no Docker.
#![expect(clippy::print_stdout, reason = "figures, for who asks for the output of tests that pass")]

use std::time::Duration;

use crate::cluster::Cluster;
use crate::fleet::{add, running, states};
use crate::host::Host;
use crate::names::dig;
use crate::probe::Probe;
use crate::project::{Project, host_name};
use crate::wait::{becomes, eventually, secs, stays, timed};

/// How long a container taken away by hand may be missing: Podman tells of it a tenth of a second later, and needs four
/// for a start.
const BACK: Duration = secs(3);

/// What orch could leave behind on a host, one thing a line.
const TRACES: &str = "
podman ps -a --format 'container {{.Names}}'
podman network ls --format 'network {{.Name}}' | grep -v '^network podman$' || true
podman volume ls --format 'volume {{.Name}}'
podman images --format 'image {{.Repository}}:{{.Tag}}' | grep orch || true
ip -o -4 addr show | grep -v -e ' lo ' -e ' eth0 ' || true
iptables-save | grep -i orch || true
grep orch /proc/1/mounts | grep -v /orch-lab/ || true
ls -d /var/lib/orch /run/orch /etc/tmpfiles.d/orch.conf 2>/dev/null || true
";

#[test]
fn a_project_on_podman_is_named_published_healed_and_taken_down_as_on_docker() {
    let cluster = Cluster::boot_with_podman("node1", 1, &["busybox"]);
    let (desk, node) = (&cluster.desk, &cluster[1]);
    assert!(node.docker(&["version"]).contains("Podman Engine"), "the engine under test");
    let traces = || node.sh(TRACES);
    assert_eq!(traces(), "");
    add(&cluster, &[1]).ok();
    let yaml = "\
services:
  web: {<<: *web, deploy: {replicas: 2}, ports: ['8080:80'], networks: [front]}
  inner: {<<: *web, networks: [back]}
  talker: {image: busybox, command: [sh, -c, 'echo one; echo two >&2; exec sleep 1000000'], stop_signal: SIGKILL}
  job: {image: busybox, command: [sh, -c, 'exit 0']}
  client:
    <<: *client
    networks: [front, back]
    depends_on: {job: {condition: service_completed_successfully}, sound: {condition: service_healthy}}
  sound: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, healthcheck: {test: ['CMD', 'test', '!', '-e', '/sick'], interval: 300ms, retries: 1}}
networks: {front: {}, back: {internal: true}}
";
    let project = Project::new(desk, "pod", yaml);
    let (done, took) = timed(|| project.orch(&["up", "-d", "--wait"]));
    println!("up took {took:?}");
    done.ok();
    assert_eq!(states(desk), "a Ready", "{}", desk.orch(&["host", "ls"]).stdout);

    // The same project, as the host itself sees it.
    let here = Project::new(node, "pod", yaml);
    let lives = here.lives();
    project.up();
    assert_eq!(here.lives(), lives, "a second `up` changes nothing");

    let vip = dig(&here, "pod-client-1", "web");
    assert_eq!(vip.len(), 1, "{vip:?}");
    assert!(node.sh("ip -4 -br addr").contains(vip.first().expect("one")), "the virtual address is a bridge's");
    assert_eq!(dig(&here, "pod-client-1", "tasks.web").len(), 2);
    assert_eq!(here.answering("pod-client-1", "http://web/", 10), here.running("web"));
    assert_eq!(here.answering("pod-client-1", "http://inner/", 3), here.running("inner"), "an internal network");
    let url = format!("http://{}:8080/", node.address());
    let published = || host_name(&desk.exec(&["curl", "-fsS", "-m", "5", &url]).ok());
    assert!((0..10).map(|_| published()).collect::<std::collections::BTreeSet<_>>() == here.running("web"));
    project.orch(&["exec", "-T", "web", "/orch", "demo", "probe", "http://127.0.0.1/"]).ok();
    let done = project.orch(&["exec", "-T", "talker", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((done.code, done.stdout.trim(), done.stderr.trim()), (7, "out", "err"));
    let said = project.orch(&["logs", "--no-log-prefix", "talker"]);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("one\n", "two\n"));
    let rows = project.orch(&["ps", "-a"]).ok();
    for name in ["pod-web-2", "pod-job-1", "pod-sound-1", "8080->80/tcp", "(healthy)", "Exited (0)"] {
        assert!(rows.contains(name), "{name}: {rows}");
    }

    heals(&here);
    let sick = here.inspect("pod-sound-1", "{{.Id}}");
    here.within("pod-sound-1", "touch /sick").ok();
    eventually(secs(10), "a healthy container in place of a sick one", || {
        let now = node.sh("docker inspect -f '{{.Id}} {{.State.Health.Status}}' pod-sound-1 2>&1 || true");
        if !now.starts_with(&sick) && now.ends_with(" healthy") { Ok(()) } else { Err(now) }
    });
    tells_what_happened(&project);

    project.down();
    assert_eq!(node.docker(&["ps", "-a", "--format", "{{.Names}}"]), "orch-agent");
    assert_eq!(node.sh("podman network ls --format '{{.Name}}'"), "podman");
    desk.orch(&["host", "rm", "a"]).ok();
    assert_eq!(traces(), "");
}

/// Takes containers away in every way, while somebody asks by name all the time.
fn heals(here: &Project<'_>) {
    let node = here.host;
    let job = here.inspect("pod-job-1", "{{.State.StartedAt}}");
    let probe = Probe::beside(here, "pod-client-1", 20, 40, &["http://web/", "http://inner/"]);
    let run = |name: &str| {
        node.sh(&format!(
            "docker inspect -f '{{{{.State.Running}}}} {{{{.Id}}}} {{{{.State.StartedAt}}}}' {name} 2>&1 || true"
        ))
    };
    for (round, by_hand) in [
        "docker rm -f NAME",
        "docker stop -t 5 NAME", // ends with 0, as a job that is done would
        "podman stop NAME",
        "docker kill NAME",
        "kill -9 $(docker inspect -f {{.State.Pid}} NAME)",
        "docker rm -f NAME",
        "docker stop -t 5 NAME",
        "docker rm -f NAME",
    ]
    .iter()
    .enumerate()
    {
        let name = here.container("web", u32::try_from(round).expect("few") % 2 + 1);
        let before = run(&name);
        // Podman complains where it runs again before Podman is done with its end.
        let done = node.exec(&["sh", "-ec", &by_hand.replace("NAME", &name)]);
        assert!(done.code == 0 || done.stderr.contains("refusing to clean up"), "{by_hand}: {done:?}");
        let ((), took) = timed(|| {
            eventually(BACK, by_hand, || {
                let now = run(&name);
                if now.starts_with("true") && now != before { Ok(()) } else { Err(now) }
            });
        });
        println!("{by_hand}: back after {took:?}");
        becomes(secs(5), &format!("both take part after `{by_hand}`"), &here.running("web"), || {
            here.answering("pod-client-1", "http://web/", 6)
        });
    }
    let report = probe.finish();
    println!("{report:?}");
    assert!(report.requests > 750 && report.answered_by >= 5, "{report:?}");
    // No more than what is in flight on a container that goes; a name that is lost, or a bridge that is another one to
    // its containers, would cost seconds of them.
    assert!(report.failed <= 16 && report.outage_secs <= 1.0, "{report:?}");
    assert_eq!(here.inspect("pod-job-1", "{{.State.StartedAt}}"), job, "a job that is done is not run again");
}

/// `orch events` has Docker's words.
fn tells_what_happened(project: &Project<'_>) {
    let now = project.host.sh("date +%s");
    let past = project.orch(&["events", "--json", "--since", "10m", "--until", &now, "web"]).ok();
    let actions: Vec<String> = past
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|event| event["action"].as_str().expect("an action").to_owned())
        .collect();
    for word in ["create", "start", "kill", "die", "stop", "destroy"] {
        assert!(actions.iter().any(|action| action == word), "{word}: {past}");
    }
    for word in ["remove", "died", "cleanup", "init"] {
        assert!(actions.iter().all(|action| action != word), "{word}: {past}");
    }
}

#[test]
fn what_ran_on_podman_runs_again_after_a_power_loss() {
    let cluster = Cluster::boot_with_podman("node1", 1, &["busybox"]);
    let (desk, node) = (&cluster.desk, &cluster[1]);
    add(&cluster, &[1]).ok();
    let yaml = "\
services:
  web: {<<: *web, ports: ['8080:80'], deploy: {replicas: 2}, secrets: [token]}
  client: {<<: *client, depends_on: [web]}
  job: {image: busybox, command: ['true']}
secrets: {token: {file: ./token}}
";
    desk.write("/root/dark/token", "seldom seen\n");
    let project = Project::new(desk, "dark", yaml);
    project.up();
    let here = Project::new(node, "dark", yaml);
    let job = here.inspect("dark-job-1", "{{.State.StartedAt}}");
    let served = || {
        let all: std::collections::BTreeSet<_> = (0..10)
            .map(|_| here.within("dark-client-1", "wget -q -O - http://web/").stdout)
            .filter(|answer| !answer.is_empty())
            .map(|answer| host_name(&answer))
            .collect();
        if all.len() == 2 && all == here.running("web") { Ok(()) } else { Err(all) }
    };
    for _ in 0..2 {
        node.power_off();
        node.power_on();
        eventually(secs(30), "both to answer by name", served);
        let published = node.exec(&["curl", "-fsS", "-m", "5", &format!("http://{}:8080/", node.address())]);
        assert!(here.running("web").contains(&host_name(&published.ok())));
    }
    assert_eq!(here.inspect("dark-job-1", "{{.State.StartedAt}}"), job, "a job that is done is not run again");

    // As after a boot of a host where nothing makes the directory: the next command does.
    node.sh("docker stop orch-agent; rm -rf /run/orch");
    assert_ne!(node.exec(&["docker", "start", "orch-agent"]).code, 0, "Podman does not make it");
    let lives = here.lives();
    project.up();
    assert_eq!(here.lives(), lives, "pods are not touched");
    project.down();
}

#[test]
fn hosts_on_docker_and_on_podman_are_one_cluster() {
    let cluster = Cluster::boot_with_podman("node2", 2, &["busybox"]);
    let desk = &cluster.desk;
    // Each has an image that the other lacks, and the desk neither.
    cluster[1].load(&["nginx"]);
    cluster[2].load(&["redis"]);
    add(&cluster, &[1, 2]).ok();
    assert_eq!(states(desk), "a Ready, b Ready");
    let yaml = "\
x-a: &a {placement: {constraints: ['node.hostname == node1']}}
x-b: &b {placement: {constraints: ['node.hostname == node2']}}
services:
  on-docker: {<<: *web, deploy: *a, ports: ['8081:80']}
  on-podman: {<<: *web, deploy: *b, ports: ['8082:80']}
  free: {<<: *web, deploy: {replicas: 4}, stop_grace_period: 1s}
  page: {image: nginx, deploy: *b}
  store: {image: 'redis:7', deploy: *a}
  client: {<<: *client, deploy: {mode: global}}
";
    let project = Project::new(desk, "mixed", yaml);
    let (done, took) = timed(|| project.orch(&["up", "-d", "--wait"]));
    println!("up took {took:?}\n{}", done.stderr);
    done.ok();
    let nodes = [1, 2].map(|number| Project::new(&cluster[number], "mixed", yaml));
    let lives = nodes.each_ref().map(Project::lives);
    project.up();
    assert_eq!(nodes.each_ref().map(Project::lives), lives, "a second `up` changes nothing");
    assert_eq!(running(&project, "free"), Ok(vec![("a".to_owned(), 2), ("b".to_owned(), 2)]));

    // Everything from both sides: by name, by a pod's own address, and by published ports of either host.
    let all_free = || nodes.iter().flat_map(|node| node.running("free")).collect::<std::collections::BTreeSet<_>>();
    for (number, node) in (1..).zip(&nodes) {
        let client = node.container("client", number);
        for (service, at) in [("on-docker", 0), ("on-podman", 1)] {
            let own = nodes[at].running(service);
            assert_eq!(node.answering(&client, &format!("http://{service}/"), 3), own, "{service} from {client}");
            let address = dig(node, &client, &format!("tasks.{service}"));
            let address = address.first().expect("an address");
            assert_eq!(node.answering(&client, &format!("http://{address}/"), 1), own, "{service} at {address}");
            let url = format!("http://{}:{}/", node.host.address(), 8081 + at);
            assert!(own.contains(&host_name(&desk.exec(&["curl", "-fsS", "-m", "5", &url]).ok())), "{url}");
        }
        // A free pod of its own host is nearer; the others answer at their addresses.
        let tasks = dig(node, &client, "tasks.free");
        let answers = tasks.iter().map(|address| host_name(&node.fetch(&client, &format!("http://{address}/"))));
        assert_eq!(answers.collect::<std::collections::BTreeSet<_>>(), all_free());
        assert!(node.fetch(&client, "http://page/").contains("nginx"));
        let pong = node.within(&client, "printf 'PING\\r\\n' | timeout 3 nc store 6379 | head -1").ok();
        assert_eq!(pong.trim(), "+PONG");
    }

    // What Podman had runs on Docker while it is away, and what only it may run waits for it.
    cluster[2].power_off();
    becomes(secs(30), "four on the host that is left", &4, || nodes[0].running("free").len());
    nodes[0].fetch("mixed-client-1", "http://free/");
    cluster[2].power_on();
    eventually(secs(40), "what is Podman's to answer from Docker again", || {
        let done = nodes[0].within("mixed-client-1", "wget -q -O - http://on-podman/");
        if done.code == 0 { Ok(()) } else { Err(done) }
    });
    eventually(secs(30), "each pod once", || match running(&project, "free") {
        Ok(counts) if counts.iter().map(|(_, count)| count).sum::<usize>() == 4 => Ok(()),
        other => Err(other),
    });
    project.down();
    for node in cluster.nodes() {
        assert_eq!(node.docker(&["ps", "-a", "--format", "{{.Names}}"]), "orch-agent", "{}", node.name());
    }
    desk.orch(&["host", "rm", "b", "a"]).ok();
    let left = |node: &Host| node.docker(&["ps", "-aq"]);
    stays(secs(1), "nothing is left", || cluster.nodes().iter().map(left).collect::<String>());
    assert_eq!(cluster.nodes().iter().map(left).collect::<String>(), "");
}
