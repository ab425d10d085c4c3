//! One project over several hosts, from a desk that reaches them by SSH alone.

use crate::cluster::Cluster;
use crate::host::{Done, Host};
use crate::project::Project;
use crate::wait::{eventually, secs, timed};

/// Returns the arguments of `host add` for these nodes, named `a`, `b`, ….
fn named(cluster: &Cluster, numbers: &[usize]) -> Vec<String> {
    let pair = |&number: &usize| [name(number).to_owned(), format!("ssh://root@{}", cluster[number].address())];
    numbers.iter().flat_map(pair).collect()
}

fn name(number: usize) -> &'static str {
    ["a", "b", "c", "d", "e"][number - 1]
}

/// Adds nodes from the desk.
fn add(cluster: &Cluster, numbers: &[usize]) -> Done {
    let hosts = named(cluster, numbers);
    let words: Vec<&str> = ["host", "add"].into_iter().chain(hosts.iter().map(String::as_str)).collect();
    cluster.desk.orch(&words)
}

/// Returns a value of each host, by its name.
fn hosts(desk: &Host, key: &str) -> Vec<(String, String)> {
    let lines = desk.orch(&["host", "ls", "--format", "json"]).ok();
    let value = |line: &str| -> serde_json::Value { serde_json::from_str(line).expect("JSON") };
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    lines.lines().map(value).map(|host| (text(&host["Name"]), text(&host[key]))).collect()
}

fn states(desk: &Host) -> String {
    let states = hosts(desk, "State");
    states.iter().map(|(name, state)| format!("{name} {state}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn three_bare_hosts_are_a_cluster_within_ten_seconds_and_adding_is_idempotent() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    desk.orch(&["host", "ls"]).refused(1, &["no hosts are named", "orch host add"]);
    let (done, took) = timed(|| add(&cluster, &[1, 2, 3]));
    let said = done.stderr.clone();
    done.ok();
    std::println!("three hosts added in {took:?}\n{said}");
    assert!(took < secs(10), "three hosts took {took:?}");
    assert_eq!(states(desk), "a Ready, b Ready, c Ready");
    std::println!("{}", desk.orch(&["host", "ls"]).ok());
    std::println!("{}", desk.orch(&["status"]).ok());
    let agents = |cluster: &Cluster| -> Vec<String> {
        let id = |host: &Host| host.docker(&["inspect", "-f", "{{.Id}} {{.State.StartedAt}}", "orch-agent"]);
        cluster.nodes().iter().map(id).collect()
    };
    let before = agents(&cluster);
    let (done, took) = timed(|| add(&cluster, &[1, 2, 3]));
    done.ok();
    std::println!("and again in {took:?}");
    assert_eq!(agents(&cluster), before, "nothing was restarted");

    desk.orch(&["host", "label", "b", "disk=ssd", "rack=2"]).ok();
    desk.orch(&["host", "label", "b", "rack-"]).ok();
    assert_eq!(hosts(desk, "Labels")[1].1, r#"{"disk":"ssd"}"#);
    desk.orch(&["host", "drain", "b"]).ok();
    assert_eq!(states(desk), "a Ready, b Draining, c Ready");
    desk.orch(&["host", "uncordon", "b"]).ok();
    assert_eq!(states(desk), "a Ready, b Ready, c Ready");
    desk.orch(&["host", "drain", "bb"]).refused(1, &["no host `bb` is known", "did you mean `b`?"]);
    let inspected = desk.orch(&["host", "inspect", "b"]).ok();
    assert!(inspected.contains("\"disk\": \"ssd\""), "{inspected}");

    desk.orch(&["host", "rm", "a"]).refused(1, &["`a` decides for the cluster"]);
    desk.orch(&["host", "rm", "b", "c"]).ok();
    assert_eq!(states(desk), "a Ready");
    desk.orch(&["host", "rm", "a"]).ok();
    desk.orch(&["host", "ls"]).refused(1, &["no hosts are named"]);
    for node in cluster.nodes() {
        assert_eq!(node.docker(&["ps", "-aq"]), "", "{}", node.name());
        assert_eq!(node.sh("ls /var/lib/orch 2>/dev/null | wc -l"), "0", "{}", node.name());
    }
    // All over again: nothing of the old cluster is left.
    add(&cluster, &[2, 1]).ok();
    assert_eq!(states(desk), "a Ready, b Ready");
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
