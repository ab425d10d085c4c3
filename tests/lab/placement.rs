//! Where pods go, on hosts of true size: rules of the file, what hosts have, and which hosts the project is for.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::project::Project;
use crate::wait::{eventually, secs};

/// The hosts of each service's pods, by `ps` from the desk: `web a b c`.
fn places(project: &Project) -> BTreeMap<String, String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in project.orch(&["ps", "--format", "json"]).ok().lines() {
        let pod: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let text = |key: &str| pod[key].as_str().expect("text").to_owned();
        places.entry(text("Service")).or_default().push(text("Host"));
    }
    let joined = places.into_iter().map(|(service, mut hosts)| {
        hosts.sort();
        (service, hosts.join(" "))
    });
    joined.collect()
}

#[track_caller]
fn become_placed(project: &Project, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(service, hosts)| ((*service).to_owned(), (*hosts).to_owned())).collect();
    eventually(secs(30), "pods on their hosts", || {
        let seen = places(project);
        if seen == expected { Ok(()) } else { Err(seen) }
    });
}

/// A process that is nothing of orch's listens on a port of a host.
fn occupy(cluster: &Cluster, number: usize, port: u16) {
    let node = &cluster[number];
    node.sh(&format!("setsid python3 -m http.server {port} >/dev/null 2>&1 </dev/null & :"));
    eventually(secs(15), "a listener", || {
        let seen = node.exec(&["sh", "-c", &format!("ss -Hltn 'sport = :{port}'")]).stdout;
        if seen.is_empty() { Err("none") } else { Ok(()) }
    });
}

#[test]
fn pods_go_where_rules_and_room_allow_and_what_has_no_place_says_why_of_each_host() {
    let cluster = Cluster::boot(4, &[]);
    let desk = &cluster.desk;
    let engine =
        r#"{"labels": ["gpu=1"], "node-generic-resources": ["license=3", "NVIDIA-GPU=one", "NVIDIA-GPU=two"]}"#;
    cluster[3].write("/etc/docker/daemon.json", engine);
    cluster[3].restart_engine();
    occupy(&cluster, 2, 8081);
    add(&cluster, &[1, 2, 3]).ok();
    desk.orch(&["host", "label", "b", "disk=ssd"]).ok();
    let yaml = "\
x-at: &at {stop_grace_period: 1s}
services:
  spread: {<<: *web, deploy: {replicas: 3}}
  everywhere: {<<: *web, deploy: {mode: global}}
  ssd: {<<: *web, deploy: {replicas: 2, placement: {constraints: ['node.labels.disk == ssd']}}}
  named: {<<: *web, deploy: {placement: {constraints: ['node.hostname == node3', 'node.platform.os == linux']}}}
  gpu: {<<: *web, deploy: {placement: {constraints: ['engine.labels.gpu == 1']}}}
  nowhere: {<<: *web, deploy: {placement: {constraints: ['node.platform.arch == s390x']}}}
  most: {<<: *web, deploy: {replicas: 4, placement: {max_replicas_per_node: 1}}}
  door: {<<: *web, deploy: {replicas: 3}, ports: [{target: 80, published: 8081, mode: host}]}
  huge: {<<: *web, deploy: {resources: {reservations: {memory: 4000G}}}}
  greedy: {<<: *web, deploy: {replicas: 4, resources: {reservations: {cpus: '1.1'}}}}
  licensed: {<<: *web, deploy: {replicas: 2, resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: license, value: 2}}]}}}}
  db: {<<: *web, volumes: ['data:/data'], deploy: {placement: {constraints: ['node.labels.disk == ssd']}}}
  backup: {<<: *web, volumes: ['data:/data']}
volumes: {data: {}}
";
    let project = Project::new(desk, "rules", yaml);
    let plan = project.orch(&["plan"]).ok();
    for host in ["on a:", "on b:", "on c:"] {
        assert!(plan.contains(host), "{plan}");
    }
    let why = [
        "no host can take `nowhere.1`: `a`: constraint `node.platform.arch == s390x` not met, `b`: constraint",
        "no host can take `most.4`: `a`: limit of 1 replicas a host reached, `b`: limit",
        "`b`: port 8081/tcp taken by a process there",
        "no host can take `huge.1`: `a`: memory short: 4096000 MiB needed, ",
        "no host can take `greedy.4`: `a`: CPUs short: 1.10 needed, 0.",
        "no host can take `licensed.2`: `a`: no device for `license`: its engine has neither a runtime nor",
        "`c`: devices `license` short: 2 needed, 1 free",
    ];
    for reason in why {
        assert!(plan.contains(reason), "no `{reason}` in: {plan}");
    }
    // What has no place is said and keeps nothing else from running.
    project.orch(&["up", "-d"]).refused(1, &why);
    let placed = |more: &str| {
        let (everywhere, most, door) = (format!("a b c{more}"), format!("a b c{more}"), format!("a c{more}"));
        let mut expected: Vec<(String, String)> = [
            ("spread", "a b c"),
            ("everywhere", &everywhere),
            ("ssd", "b b"),
            ("named", "c"),
            ("gpu", "c"),
            ("licensed", "c"),
            ("most", &most),
            ("door", &door),
            ("greedy", &everywhere),
            ("db", "b"),
            ("backup", "b"),
        ]
        .map(|(service, hosts)| (service.to_owned(), hosts.to_owned()))
        .to_vec();
        expected.sort();
        expected
    };
    let check = |more: &str| {
        let expected = placed(more);
        let expected: Vec<(&str, &str)> = expected.iter().map(|(one, other)| (one.as_str(), other.as_str())).collect();
        become_placed(&project, &expected);
    };
    check("");
    // A host that is added later takes what was waiting for it, and nothing moves.
    add(&cluster, &[4]).ok();
    check(" d");
    // What would publish a port that a process of any host has is refused before anything is made.
    let clash = Project::new(desk, "clash", "services: {web: {<<: *web, ports: ['8081:80']}}\n");
    clash
        .orch(&["up", "-d"])
        .refused(1, &["service `web` cannot publish port 8081/tcp on all addresses: it is in use on "]);
    clash.orch(&["plan"]).refused(1, &["`b`"]);
    assert_eq!(clash.orch(&["ps", "-aq"]).ok(), "");
    // Devices are counted by what engines say of them, and asked of the engine, which here has no driver.
    let device = "resources: {reservations: {devices: [{capabilities: [gpu], count: 2}]}}";
    let render =
        Project::new(desk, "render", &format!("services: {{gpu: {{<<: *web, deploy: {{replicas: 2, {device}}}}}}}\n"));
    let short = "`c`: devices `NVIDIA-GPU` short: 2 needed, 0 free";
    render.orch(&["up", "-d"]).refused(1, &["`a`: no device for `gpu`", short, "could not select device driver"]);
    render.down();
    project.down();
}

#[test]
fn a_project_keeps_to_its_hosts_and_answers_there_only() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    occupy(&cluster, 3, 8090);
    let hosts = |names: &[(&str, usize)]| {
        let lines = names.iter().map(|(name, number)| format!("  {name}: ssh://root@{}\n", cluster[*number].address()));
        lines.collect::<String>()
    };
    let yaml = |names: &[(&str, usize)]| {
        format!(
            "x-hosts:\n{}services:\n  web: {{<<: *web, ports: ['8090:80'], deploy: {{replicas: 4}}}}\n  each: {{<<: *web, deploy: {{mode: global}}}}\n  \
             far: {{<<: *web, deploy: {{placement: {{constraints: ['node.hostname == node3']}}}}}}\n",
            hosts(names)
        )
    };
    let project = Project::new(desk, "kept", &yaml(&[("a", 1), ("b", 2)]));
    let why = "no host can take `far.1`: `a`: constraint `node.hostname == node3` not met, `b`: constraint \
               `node.hostname == node3` not met, `c`: it is not among x-hosts";
    assert!(project.orch(&["plan"]).ok().contains(why));
    // The port is taken on a host that the project is not for.
    project.orch(&["up", "-d"]).refused(1, &[why]);
    become_placed(&project, &[("web", "a a b b"), ("each", "a b")]);
    let answers = |number: usize| {
        let url = format!("http://{}:8090/", cluster[number].address());
        desk.exec(&["curl", "-s", "-m", "5", &url]).stdout.contains("Hostname: ")
    };
    eventually(secs(10), "an answer on each of its hosts", || if answers(1) && answers(2) { Ok(()) } else { Err(()) });
    assert!(!answers(3), "a host that the project is not for");
    cluster[2].power_off();
    become_placed(&project, &[("web", "a a a a"), ("each", "a")]);
    assert!(answers(1));
    cluster[2].power_on();
    // Without x-hosts it is for all hosts, but for a port that is not free on one of them.
    project.rewrite("services: {web: {<<: *web, deploy: {replicas: 4}}, each: {<<: *web, deploy: {mode: global}}}\n");
    eventually(secs(30), "all hosts again", || {
        let done = project.orch(&["up", "-d", "--wait", "--remove-orphans"]);
        let seen = places(&project);
        if done.code == 0 && seen.get("each").is_some_and(|hosts| hosts == "a b c") {
            Ok(())
        } else {
            Err((done.stderr, seen))
        }
    });
    project.down();
}

#[test]
fn a_volume_on_a_lost_host_blocks_its_service_until_that_is_back_or_given_up() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let yaml = "\
services:
  db: {<<: *web, volumes: ['data:/data'], deploy: {placement: {constraints: ['node.hostname != node1']}}}
  web: {<<: *web, deploy: {replicas: 3}}
volumes: {data: {}}
";
    let project = Project::new(desk, "held", yaml);
    project.up();
    become_placed(&project, &[("db", "b"), ("web", "a b c")]);
    let mark = "/var/lib/docker/volumes/held_data/_data/mark";
    cluster[2].sh(&format!("touch {mark}"));
    cluster[2].power_off();
    let said = "`db.1` is blocked: volume `data` is on `b`, which does not answer; bring `b` back, or give up what the volume \
                holds: `orch host rm --force b`";
    let blocked = || {
        let shown = project.orch(&["ps", "-a"]).stdout;
        if shown.contains(said) { Ok(()) } else { Err(shown) }
    };
    eventually(secs(20), "a word on what is blocked", blocked);
    become_placed(&project, &[("db", "b"), ("web", "a a c")]);
    assert!(project.orch(&["why", "db"]).stdout.contains(said));
    assert!(desk.orch(&["status"]).stdout.contains(said));
    project.orch(&["up", "-d"]).refused(1, &[said]);

    cluster[2].power_on();
    eventually(secs(40), "what was blocked runs again", || {
        let seen = places(&project);
        let done = project.orch(&["exec", "-T", "db", "/orch", "demo", "probe", "http://127.0.0.1/"]);
        if seen.get("db").is_some_and(|hosts| hosts == "b") && done.code == 0 { Ok(()) } else { Err((seen, done)) }
    });
    cluster[2].sh(&format!("test -e {mark}"));

    cluster[2].power_off();
    eventually(secs(20), "a word on what is blocked", blocked);
    desk.orch(&["host", "rm", "--force", "b"]).ok();
    become_placed(&project, &[("db", "c"), ("web", "a a c")]);
    // Back and added anew, it has given up what runs elsewhere now, and keeps its volume for whoever wants it.
    cluster[2].power_on();
    eventually(
        secs(30),
        "its engine",
        || if cluster[2].exec(&["docker", "info"]).code == 0 { Ok(()) } else { Err(()) },
    );
    add(&cluster, &[2]).ok();
    eventually(secs(20), "nothing but its agent", || {
        match cluster[2].docker(&["ps", "-a", "--format", "{{.Names}}"]).as_str() {
            "orch-agent" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    cluster[2].sh(&format!("test -e {mark}"));
    project.down();
}
