//! One project over several hosts, from a desk that reaches them by SSH alone.
#![expect(clippy::print_stdout, reason = "figures, for who asks for the output of tests that pass")]

use crate::cluster::Cluster;
use crate::host::{Done, Host};
use crate::project::Project;
use crate::wait::{eventually, secs, timed};

/// Returns the arguments of `host add` for these nodes, named `a`, `b`, ….
pub(crate) fn named(cluster: &Cluster, numbers: &[usize]) -> Vec<String> {
    let pair = |&number: &usize| [name(number).to_owned(), format!("ssh://root@{}", cluster[number].address())];
    numbers.iter().flat_map(pair).collect()
}

pub(crate) fn name(number: usize) -> &'static str {
    ["a", "b", "c", "d", "e"][number - 1]
}

/// Adds nodes from the desk.
pub(crate) fn add(cluster: &Cluster, numbers: &[usize]) -> Done {
    let hosts = named(cluster, numbers);
    let words: Vec<&str> = ["host", "add"].into_iter().chain(hosts.iter().map(String::as_str)).collect();
    cluster.desk.orch(&words)
}

/// Returns a value of each host, by its name.
pub(crate) fn hosts(desk: &Host, key: &str) -> Vec<(String, String)> {
    let lines = desk.orch(&["host", "ls", "--format", "json"]).ok();
    let value = |line: &str| -> serde_json::Value { serde_json::from_str(line).expect("JSON") };
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    lines.lines().map(value).map(|host| (text(&host["Name"]), text(&host[key]))).collect()
}

pub(crate) fn states(desk: &Host) -> String {
    let states = hosts(desk, "State");
    states.iter().map(|(name, state)| format!("{name} {state}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn three_bare_hosts_are_a_cluster_within_ten_seconds_and_adding_is_idempotent() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    desk.orch(&["host", "ls"]).refused(1, &["no hosts are named", "orch host add"]);
    desk.orch(&["host", "add", "a..b", &format!("ssh://root@{}", cluster[1].address())])
        .refused(1, &["`a..b` is not a valid host name"]);
    let (done, took) = timed(|| add(&cluster, &[1, 2, 3]));
    let said = done.stderr.clone();
    done.ok();
    println!("three hosts added in {took:?}");
    assert!(said.contains(" Host a  Added  founded the cluster"), "{said}");
    assert!(took < secs(10), "three hosts took {took:?}");
    assert_eq!(states(desk), "a Ready, b Ready, c Ready");
    let status = desk.orch(&["status"]).ok();
    assert!(status.contains("seat      a") && status.contains("host      b: Ready, agent "), "{status}");
    let agents = |cluster: &Cluster| -> Vec<String> {
        let id = |host: &Host| host.docker(&["inspect", "-f", "{{.Id}} {{.State.StartedAt}}", "orch-agent"]);
        cluster.nodes().iter().map(id).collect()
    };
    let before = agents(&cluster);
    let (done, took) = timed(|| add(&cluster, &[1, 2, 3]));
    done.ok();
    println!("and again in {took:?}");
    assert_eq!(agents(&cluster), before, "nothing was restarted");

    desk.orch(&["host", "label", "b", "disk=ssd", "rack=2"]).ok();
    desk.orch(&["host", "label", "b", "rack-"]).ok();
    assert_eq!(hosts(desk, "Labels")[1].1, r#"{"disk":"ssd"}"#);
    let again = format!("ssh://root@{}", cluster[2].address());
    desk.orch(&["host", "add", "--label", "disk=hdd", "--label", "zone=1", "b", &again]).ok();
    assert_eq!(hosts(desk, "Labels")[1].1, r#"{"disk":"hdd","zone":"1"}"#);
    desk.orch(&["host", "label", "b", "zone-", "disk=ssd"]).ok();
    let elsewhere = desk.orch(&["host", "add", "--address", "10.1.2.3", "b", &again]);
    elsewhere.refused(1, &["there is a host `b` at ", "orch host rm b"]);
    desk.orch(&["host", "drain", "b"]).ok();
    assert_eq!(states(desk), "a Ready, b Draining, c Ready");
    desk.orch(&["host", "uncordon", "b"]).ok();
    assert_eq!(states(desk), "a Ready, b Ready, c Ready");
    desk.orch(&["host", "drain", "x"]).refused(1, &["no host `x` is known", "orch host ls"]);
    let inspected = desk.orch(&["host", "inspect", "b"]).ok();
    assert!(inspected.contains("\"disk\": \"ssd\""), "{inspected}");

    desk.orch(&["host", "rm", "a"]).refused(1, &["`a` decides for the cluster"]);
    desk.orch(&["host", "rm", "b", "c"]).ok();
    assert_eq!(states(desk), "a Ready");
    desk.orch(&["host", "rm", "a"]).ok();
    desk.orch(&["host", "ls"]).refused(1, &["no hosts are named"]);
    for node in cluster.nodes() {
        assert_eq!(node.docker(&["ps", "-aq"]), "", "{}", node.name());
        assert_eq!(node.docker(&["images", "--format", "{{.Repository}}"]), "", "{}", node.name());
        assert_eq!(node.sh("ls /var/lib/orch 2>/dev/null | wc -l"), "0", "{}", node.name());
    }
    // All over again: nothing of the old cluster is left.
    add(&cluster, &[2, 1]).ok();
    assert_eq!(states(desk), "a Ready, b Ready");
    desk.orch(&["host", "add", "A", &format!("ssh://root@{}", cluster[3].address())])
        .refused(1, &["there is a host `a` already"]);
}

#[test]
fn a_host_of_another_cluster_is_refused_and_named() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    add(&cluster, &[1]).ok();
    let other = desk.exec(&[
        "env",
        "ORCH_HOSTS_FILE=/root/other.yaml",
        crate::host::ORCH,
        "host",
        "add",
        "x",
        &format!("ssh://root@{}", cluster[2].address()),
    ]);
    other.ok();
    add(&cluster, &[2, 3]).refused(1, &["host `b` is `x` of cluster", "orch host rm x"]);
    assert_eq!(states(desk), "a Ready, c Ready", "the others are added all the same");
}

#[test]
fn an_engine_that_is_a_copy_of_another_is_refused_until_it_has_an_id_of_its_own() {
    const IDS: [&str; 2] = ["/etc/docker/key.json", "/var/lib/docker/engine-id"];
    let cluster = Cluster::boot(2, &[]);
    let (first, copy) = (&cluster[1], &cluster[2]);
    for path in IDS.iter().filter(|path| first.exec(&["test", "-e", path]).code == 0) {
        copy.write(path, &first.sh(&format!("cat {path}")));
    }
    copy.restart_engine();
    let id = |node: &Host| node.docker(&["info", "-f", "{{.ID}}"]);
    assert_eq!(id(first), id(copy));
    let said = ["host `b` is not added: its engine has the id of that of `a`", "on `b`, remove", "engine-id"];
    add(&cluster, &[1, 2]).refused(1, &said);
    assert_eq!(states(&cluster.desk), "a Ready");
    add(&cluster, &[2]).refused(1, &said);

    copy.sh(&format!("rm -f {}", IDS.join(" ")));
    copy.restart_engine();
    assert_ne!(id(first), id(copy));
    add(&cluster, &[1, 2]).ok();
    assert_eq!(states(&cluster.desk), "a Ready, b Ready");
}

/// How many pods of a project each host has, by `ps` from the desk.
pub(crate) fn spread(project: &Project, service: &str) -> Vec<(String, usize)> {
    running(project, service).expect("all run")
}

/// The same; the line of one that does not run, if there is any.
pub(crate) fn running(project: &Project, service: &str) -> Result<Vec<(String, usize)>, String> {
    let lines = project.orch(&["ps", "--format", "json", service]).ok();
    let mut counts = std::collections::BTreeMap::new();
    for line in lines.lines() {
        let pod: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if pod["State"] != "running" {
            return Err(line.to_owned());
        }
        *counts.entry(pod["Host"].as_str().expect("a host").to_owned()).or_insert(0) += 1;
    }
    Ok(counts.into_iter().collect())
}

/// The lines of `count` pods, each on its host.
pub(crate) fn even(count: usize) -> Vec<(String, usize)> {
    ["a", "b", "c"].map(|name| (name.to_owned(), count)).to_vec()
}

#[test]
fn a_project_is_spread_over_hosts_and_all_commands_see_all_of_it() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    let yaml = "\
services:
  web: {<<: *web, deploy: {replicas: 6}, ports: ['8080:80']}
  say:
    image: busybox
    deploy: {replicas: 3}
    stop_signal: SIGKILL
    command: [sh, -c, 'i=0; while :; do i=$$((i+1)); echo $$HOSTNAME $$i; sleep 0.2; done']
";
    let hosts = [1, 2, 3].map(|number| format!("  {}: ssh://root@{}\n", name(number), cluster[number].address()));
    let project = Project::new(desk, "spread", &format!("x-hosts:\n{}{yaml}", hosts.concat()));
    let plan = project.orch(&["plan"]).ok();
    assert!(plan.contains("on c") || plan.contains("c:"), "{plan}");
    // Adds the hosts, which the file names.
    let (done, took) = timed(|| project.orch(&["up", "-d", "--wait"]));
    println!("up with three bare hosts took {took:?}");
    done.ok();
    desk.orch(&["host", "ls"]).refused(1, &["no hosts are named"]); // only the file names them
    assert!(project.orch(&["host", "ls", "-q"]).ok() == "a\nb\nc");
    assert_eq!(spread(&project, "web"), even(2));
    assert_eq!(spread(&project, "say"), even(1));
    let (done, took) = timed(|| project.orch(&["up", "-d", "--wait"]));
    println!("and again in {took:?}");
    done.ok();

    // Each says its own name, on whichever host it is.
    for number in 1..=3 {
        let name = project.orch(&["exec", "-T", "--index", &number.to_string(), "say", "hostname"]).ok();
        let logs = project.orch(&["logs", "--no-log-prefix", "--index", &number.to_string(), "say"]).ok();
        assert!(logs.lines().all(|line| line.starts_with(&name)), "{name}: {logs}");
    }
    let logs = eventually(secs(20), "20 lines of each", || {
        let logs = project.orch(&["logs", "-t", "-n", "20", "--no-log-prefix", "say"]).ok();
        if logs.lines().count() == 60 { Ok(logs) } else { Err(logs) }
    });
    let times: Vec<&str> = logs.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(times.is_sorted(), "lines of three hosts in the order of their times: {logs}");
    assert!(project.orch(&["ls"]).ok().contains("spread"));
    // What a follower is shown first, too, however much there is.
    let reading = desk.start_orch(&project.args(&["logs", "-f", "-t", "--no-log-prefix", "say"]));
    crate::wait::apart(secs(3));
    let said = reading.signal("INT").stdout;
    let times: Vec<&str> = said.lines().take(60).filter_map(|line| line.split(' ').next()).collect();
    assert!(times.len() == 60 && times.is_sorted(), "of three hosts: {said}");

    // Reading goes on when a connection is made anew.
    let arguments = project.args(&["logs", "-f", "-n", "0", "--no-log-prefix", "say"]);
    let reading = desk.start_orch(&arguments);
    crate::wait::apart(secs(2));
    desk.sh("cd /tmp/orch-0; for s in *; do case $s in *[.-]*) ;; *) ssh -O exit -S $PWD/$s x 2>&1;; esac; done");
    crate::wait::apart(secs(4));
    let said = reading.signal("INT");
    let mut last = std::collections::BTreeMap::new();
    for line in said.stdout.lines() {
        let (name, count) = line.split_once(' ').expect("a name and a count");
        let count: u32 = count.parse().expect("a count");
        if let Some(before) = last.insert(name.to_owned(), count) {
            assert_eq!(count, before + 1, "{name} lost or doubled a line: {}\n{}", said.stdout, said.stderr);
        }
    }
    assert_eq!(last.len(), 3, "{}", said.stdout);
    assert!(said.stderr.contains("the output of say-1 is interrupted"), "{}", said.stderr);

    project.orch(&["down", "-v"]).ok();
    for node in cluster.nodes() {
        assert_eq!(node.docker(&["ps", "-a", "--format", "{{.Names}}"]), "orch-agent", "{}", node.name());
        assert_eq!(node.docker(&["network", "ls", "-q", "--filter", "label=com.docker.compose.project"]), "");
    }
    project.orch(&["down"]).ok();
}

#[test]
fn a_host_that_is_off_is_down_is_forgotten_and_the_rest_is_shown() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let project = Project::new(desk, "off", "services: {web: {<<: *web, deploy: {replicas: 6}}}\n");
    project.up();
    assert_eq!(spread(&project, "web"), even(2));
    desk.orch(&["host", "drain", "b"]).ok();
    eventually(secs(20), "no pods on a host that is drained", || {
        let pods = hosts(desk, "Pods");
        if pods[1].1 == "0" { Ok(()) } else { Err(pods) }
    });
    desk.orch(&["host", "uncordon", "b"]).ok();
    cluster[3].power_off();
    eventually(secs(20), "c is down", || {
        let seen = states(desk);
        if seen == "a Ready, b Ready, c Down" { Ok(()) } else { Err(seen) }
    });
    let (done, took) = timed(|| desk.orch(&["host", "ls"]));
    println!("ls with a host that is off took {took:?}");
    assert!(done.stderr.contains("warning: host c: silent for "), "{}", done.stderr);
    let (done, took) = timed(|| project.orch(&["ps"]));
    println!("ps took {took:?}");
    assert!(done.stderr.contains("host `c` is down"), "{}", done.stderr);
    assert!(project.orch(&["logs", "web"]).code == 0);
    desk.orch(&["host", "rm", "c", "--force"]).ok();
    assert_eq!(states(desk), "a Ready, b Ready");
    project.up();
    assert_eq!(spread(&project, "web").iter().map(|(_, count)| count).sum::<usize>(), 6);
    // Back, it hears from the seat that it is no host of the cluster any more, and gives up what it ran for it.
    cluster[3].power_on();
    eventually(secs(40), "nothing but the agent", || {
        let seen = cluster[3].exec(&["docker", "ps", "-a", "--format", "{{.Names}}"]).stdout;
        if seen.trim() == "orch-agent" { Ok(()) } else { Err(seen) }
    });
    assert_eq!(spread(&project, "web").iter().map(|(_, count)| count).sum::<usize>(), 6);
    project.down();
}

/// Bytes that a host received so far.
fn received(host: &Host) -> u64 {
    host.sh("cat /sys/class/net/eth0/statistics/rx_bytes").parse().expect("a number")
}

#[test]
fn an_image_that_no_registry_has_is_sent_and_its_next_version_without_the_layers_that_are_there() {
    let cluster = Cluster::boot(3, &[]);
    // From a machine with an engine of its own.
    let here = cluster.let_in(1);
    here.load(&["busybox"]);
    let commit = |from: &str, script: &str, to: &str| {
        here.docker(&["run", "--name", "make", "--network", "none", from, "sh", "-c", script]);
        here.docker(&["commit", "make", to]);
        here.docker(&["rm", "make"]);
    };
    commit("busybox", "dd if=/dev/urandom of=/big bs=1M count=20", "app:1");
    commit("app:1", "echo changed >/small", "app:2");
    let hosts = [2, 3].map(|number| format!("  {}: ssh://root@{}\n", name(number), cluster[number].address()));
    let yaml = |version: u32| {
        format!(
            "x-hosts:\n{}services: {{web: {{image: 'app:{version}', deploy: {{replicas: 2}}, command: [sleep, '1000'], stop_signal: SIGKILL}}}}\n",
            hosts.concat()
        )
    };
    let project = Project::new(here, "send", &yaml(1));
    project.orch(&["host", "add", "b", "c"]).ok();
    let mut before = received(&cluster[2]);
    let mut sent = || {
        let now = received(&cluster[2]);
        std::mem::replace(&mut before, now).abs_diff(now)
    };
    project.orch(&["up", "-d", "--wait"]).ok();
    let whole = sent();
    assert!(whole > 20 << 20, "{whole} bytes");
    project.rewrite(&yaml(2));
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(done.stderr.contains("Image app:2 on b  Sent") && !done.stderr.contains("Error"), "{}", done.stderr);
    done.ok();
    let changed = sent();
    println!("the whole image: {whole} bytes, a changed layer: {changed} bytes");
    assert!(changed < 2 << 20, "{changed} bytes for a changed layer of a few");
    for node in [2, 3] {
        let id = |host: &Host| host.docker(&["image", "inspect", "-f", "{{.Id}}", "app:2"]);
        assert_eq!(id(&cluster[node]), id(here));
    }
    assert_eq!(project.orch(&["exec", "-T", "web", "cat", "/small"]).ok(), "changed");
    project.down();
}

#[test]
fn what_keeps_a_host_from_being_added_is_said_and_the_next_run_finishes() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    // Nobody founds a cluster while it is not known whether a host belongs to one.
    cluster[1].sh("kill -STOP $(cat /run/engine.service.pid)");
    cluster[2].power_off();
    add(&cluster, &[2, 3]).refused(1, &["host `b`: ssh://root@", "the host could not be reached"]);
    desk.orch(&["host", "ls"]).refused(1, &["no hosts are named"]);
    add(&cluster, &[3]).ok();
    // Others are not held up by one that cannot be reached, and one without an engine that answers says so.
    cluster[1].sh("kill -CONT $(cat /run/engine.service.pid)");
    add(&cluster, &[1, 2]).refused(1, &["host `b`: ssh://root@"]);
    assert_eq!(states(desk), "a Ready, c Ready");
    cluster[2].power_on();
    // The agent is there, and the others cannot reach it.
    cluster[2].sh("iptables -I INPUT -p tcp --dport 7653 -j DROP; iptables -I OUTPUT -p tcp --dport 7653 -j DROP");
    let refused = eventually(secs(30), "sshd again", || {
        let done = add(&cluster, &[2]);
        if done.stderr.contains("could not be reached") { Err(done.stderr) } else { Ok(done) }
    });
    refused.refused(1, &["does not reach its agent at", ":7653", "let TCP port 7653 of that host through"]);
    cluster[2].sh("iptables -D INPUT -p tcp --dport 7653 -j DROP; iptables -D OUTPUT -p tcp --dport 7653 -j DROP");
    add(&cluster, &[2]).ok();
    assert_eq!(states(desk), "a Ready, b Ready, c Ready");
}

#[test]
fn a_host_leaves_a_cluster_whose_projects_go_on() {
    let cluster = Cluster::boot(2, &[]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2]).ok();
    let project = Project::new(desk, "stay", "services: {web: {<<: *web, deploy: {replicas: 4}}}\n");
    project.up();
    desk.orch(&["host", "rm", "b"]).refused(1, &["pods are placed on `b`", "orch host drain b", "--force"]);
    desk.orch(&["host", "drain", "b"]).ok();
    eventually(secs(20), "no pods on a host that is drained", || {
        let pods = hosts(desk, "Pods");
        if pods[1].1 == "0" { Ok(()) } else { Err(pods) }
    });
    desk.orch(&["host", "rm", "b"]).ok();
    assert_eq!(states(desk), "a Ready");
    assert_eq!(cluster[2].docker(&["ps", "-aq"]), "");
    assert_eq!(cluster[2].docker(&["network", "ls", "-q", "--filter", "label=com.docker.compose.project"]), "");
    assert_eq!(cluster[2].sh("ls /var/lib/orch 2>/dev/null | wc -l; iptables-save | grep -ci orch || :"), "0\n0");
    eventually(secs(20), "4 on a", || {
        let pods = spread(&project, "web");
        if pods == [("a".to_owned(), 4)] { Ok(()) } else { Err(pods) }
    });
    // With pods on it too, when it must.
    add(&cluster, &[2]).ok();
    project.orch(&["up", "-d", "--wait", "--scale", "web=8"]).ok();
    assert!(spread(&project, "web").iter().any(|(host, _)| host == "b"));
    desk.orch(&["host", "rm", "b", "--force"]).ok();
    eventually(secs(20), "8 on a", || {
        let pods = spread(&project, "web");
        if pods == [("a".to_owned(), 8)] { Ok(()) } else { Err(pods) }
    });
    assert_eq!(cluster[2].docker(&["ps", "-aq"]), "", "its pods are taken away with its agent");
}
