//! Pods of other hosts, reached by their own addresses.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::host::Host;
use crate::names::dig;
use crate::project::{Project, host_name};
use crate::wait::{eventually, secs};

/// Asks the agent of a host. Returns what it answers; `Null`: nothing that can be read.
fn ask(host: &Host, method: &str, path: &str, body: &Value) -> Value {
    let (url, body) = (format!("http://orch/v1/{path}"), body.to_string());
    let mut argv = vec!["curl", "-s", "--unix-socket", "/run/orch/agent.sock", "-X", method, &url];
    if method == "POST" {
        argv.extend(["-H", "content-type: application/json", "-d", &body]);
    }
    serde_json::from_str(&host.exec(&argv).stdout).unwrap_or_default()
}

/// Waits until the agent of a host is the one of this name.
fn is_named(host: &Host, name: &str) {
    eventually(secs(20), "the agent to start anew", || {
        let info = ask(host, "GET", "info", &Value::Null);
        if info["host"] == name { Ok(()) } else { Err(info) }
    });
}

/// Makes one cluster of all nodes, with agent and images on each; `node1` decides.
fn join(cluster: &Cluster) {
    for node in cluster.nodes() {
        let first = Project::new(node, "first", "services: {web: *web}\n");
        first.up();
        first.down();
    }
    let member = |host: &Host| {
        let address = format!("{}:7653", host.address());
        json!({"name": host.name(), "ssh": format!("ssh://root@{}", host.address()), "address": address, "labels": {}})
    };
    let seat = &cluster[1];
    ask(seat, "POST", "cluster/found", &member(seat));
    is_named(seat, "node1");
    for node in &cluster.nodes()[1..] {
        let key = ask(node, "POST", "cluster/key", &json!({"name": node.name()}));
        let mut request = member(node);
        request["request"] = key["request"].clone();
        let admission = ask(seat, "POST", "cluster/admit", &request);
        ask(node, "POST", "cluster/join", &admission);
        is_named(node, node.name());
    }
    eventually(secs(20), "all hosts", || {
        let seen = ask(seat, "GET", "cluster", &Value::Null);
        let hosts = seen["hosts"].as_array().cloned().unwrap_or_default();
        let ready = hosts.iter().filter(|host| host["state"] == "ready").count();
        if ready == cluster.nodes().len() { Ok(()) } else { Err(seen) }
    });
}

/// Returns the secondary addresses of a host's bridges.
fn held(host: &Host) -> BTreeSet<String> {
    let text = host.sh("ip -4 -o addr show | awk '$2 ~ /^br-/ {print $4}'");
    text.lines().filter_map(|line| line.strip_suffix("/32")).map(str::to_owned).collect()
}

#[test]
fn every_pod_is_reached_by_its_own_address_from_every_host() {
    let cluster = Cluster::boot(2, &["busybox"]);
    join(&cluster);
    let yaml = "\
x-everywhere: &everywhere {mode: global}
services:
  web: {<<: *web, networks: [front], deploy: *everywhere}
  client: {<<: *client, networks: [front], deploy: *everywhere}
  inner: {<<: *web, networks: [back], deploy: {mode: global, endpoint_mode: dnsrr}}
  asker: {<<: *client, networks: [back], deploy: *everywhere}
networks: {front: {}, back: {internal: true}}
";
    let project = Project::new(&cluster[1], "far", yaml);
    project.up();
    let there = Project::new(&cluster[2], "far", yaml);
    let both = [&project, &there];
    let containers = |service: &str| both.map(|on| on.running(service));
    let mut far = BTreeSet::new();
    for (service, client, name) in [("web", "client", "tasks.web"), ("inner", "asker", "inner")] {
        let [own, others] = containers(service);
        assert_eq!((own.len(), others.len()), (1, 1), "one of {service} on each host");
        let all: BTreeSet<String> = own.union(&others).cloned().collect();
        for on in both {
            let asking = on.running(client).into_iter().next().expect("a client on each host");
            let addresses = eventually(secs(15), "both pods", || {
                let seen = dig(on, &asking, name);
                if seen.len() == 2 { Ok(seen) } else { Err(seen) }
            });
            let mut answered = BTreeSet::new();
            for address in &addresses {
                let said: BTreeSet<String> =
                    (0..5).map(|_| host_name(&on.fetch(&asking, &format!("http://{address}/")))).collect();
                assert_eq!(said.len(), 1, "{address} is one pod");
                answered.extend(said);
                on.within(&asking, &format!("ping -c 1 -W 2 {address}")).ok();
                let refused = on.within(&asking, &format!("wget -q -T 5 -O - http://{address}:81/"));
                assert_ne!(refused.code, 0, "no port 81 at {address}");
                // Those of the own host are the containers' alone.
                let local = on.running(service).iter().any(|id| {
                    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
                    on.inspect(id, template) == *address
                });
                assert_eq!(held(on.host).contains(address), !local, "{address} on {}", on.host.name());
                far.insert(address.clone());
            }
            assert_eq!(answered, all, "{name} from {}", on.host.name());
        }
    }
    project.rewrite(
        "services: {client: {<<: *client, networks: [front], deploy: {mode: global}}}\nnetworks: {front: {}}\n",
    );
    project.orch(&["up", "-d", "--wait", "--remove-orphans"]).ok();
    for on in both {
        eventually(secs(10), "no address of a pod that is gone", || {
            let left: Vec<String> = held(on.host).intersection(&far).cloned().collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}
