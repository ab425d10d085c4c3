//! `orch events` from a desk: what happens on all hosts, over all that may happen to them.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::Done;
use crate::project::Project;
use crate::wait::{apart, eventually, secs};

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// How often something happened to a service on a host.
fn count(events: &[Value], host: &str, service: &str, action: &str) -> usize {
    let is = |event: &&Value| event["host"] == host && event["service"] == service && event["action"] == action;
    events.iter().filter(is).count()
}

#[test]
fn events_of_all_hosts_are_shown_in_order_over_connections_agents_and_engines_that_end() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let begun = desk.sh("date +%s.%N");
    let project = Project::new(desk, "seen", "services: {web: {<<: *web, deploy: {replicas: 3}}, db: *web}\n");
    project.orch(&["events", "--json", "nobody"]).refused(1, &["no such service: nobody"]);
    project.orch(&["events", "--since", "yesterday"]).refused(1, &["is not a valid time"]);
    let arguments = project.args(&["events", "--json", "--since", &begun, "web"]);
    let watching = desk.start_orch(&arguments);
    project.up();

    // A container on b, every connection of the desk, the agent of c, the engine of b: in this order.
    let kill = |node: usize| {
        let id = cluster[node].docker(&["ps", "-q", "--filter", "label=com.docker.compose.service=web"]);
        cluster[node].docker(&["kill", id.lines().next().expect("a pod of web")]);
    };
    let running = || project.orch(&["ps", "-q", "--status", "running"]).ok().lines().count();
    let healed = || {
        eventually(secs(60), "all four to run again", || {
            let now = running();
            if now == 4 { Ok(()) } else { Err(now) }
        });
    };
    kill(2);
    healed();
    desk.sh("cd /tmp/orch-0; for s in *; do case $s in *[.-]*) ;; *) ssh -O exit -S $PWD/$s x 2>&1;; esac; done");
    kill(1);
    healed();
    cluster[3].sh("kill -KILL $(docker inspect -f '{{.State.Pid}}' orch-agent)");
    cluster[2].restart_engine();
    healed();
    let labels = ["--label=com.docker.compose.project=seen", "--label=com.docker.compose.service=web"];
    cluster[2].docker(&[&["create", "--name", "by-hand"], &labels[..], &["orch/demo"]].concat());
    // By whom: the agent may be sooner.
    cluster[2].exec(&["docker", "rm", "by-hand"]);
    apart(secs(2));
    let Done { code, stdout, stderr } = watching.signal("INT");
    assert_eq!(code, 130, "{stderr}");
    let seen = events(&stdout);
    assert!(seen.iter().all(|event| event["service"] == "web"), "{stdout}");
    for host in ["a", "b", "c"] {
        assert!(count(&seen, host, "web", "create") >= 1, "{host}: {stdout}");
    }
    assert_eq!(count(&seen, "a", "web", "die"), 1, "what happened while the connection was made anew: {stdout}");
    assert!(count(&seen, "b", "web", "die") >= 1, "{stdout}");
    let by_hand = |event: &&Value| event["attributes"]["name"] == "by-hand" && event["host"] == "b";
    let after: Vec<&Value> = seen.iter().filter(by_hand).map(|event| &event["action"]).collect();
    assert_eq!(after, ["create", "destroy"], "after the engine's restart: {stdout}");
    assert!(stderr.contains("the events of host `b` are interrupted"), "{stderr}");
    assert!(stderr.contains("host `b` answers again"), "{stderr}");

    // From the past: sorted, and what Docker Compose shows on one host is what is shown of that host.
    let now = desk.sh("date +%s.%N");
    let past = ["events", "--json", "--since", &begun, "--until", &now];
    let shown = project.orch(&past).ok();
    let all = events(&shown);
    let times: Vec<&str> = all.iter().filter_map(|event| event["time"].as_str()).map(|time| &time[..26]).collect();
    assert!(times.len() == all.len() && times.is_sorted(), "{shown}");
    let reference = std::env::var("ORCH_COMPOSE_REFERENCE").expect(
        "ORCH_COMPOSE_REFERENCE names a Docker Compose 2.40: `scripts/setup test` unpacks one, `scripts/test` sets it",
    );
    let compose = cluster[1].give("docker-compose", reference.as_ref());
    let theirs = cluster[1].exec(&[&[compose.as_str(), "-p", "seen"], &past[..]].concat());
    let mut theirs = events(&theirs.stdout);
    for event in &mut theirs {
        let labels = event["attributes"].as_object_mut().expect("attributes");
        labels.retain(|key, _| !key.starts_with("orch."));
        event["host"] = "a".into();
    }
    let ours: Vec<Value> = all.into_iter().filter(|event| event["host"] == "a").collect();
    assert!(!ours.is_empty());
    assert_eq!(ours, theirs);
    let text = project.orch(&["events", "--since", &begun, "--until", &now]).ok();
    assert!(text.lines().all(|line| line.contains(" container ") && line.contains("(host=")), "{text}");

    // What one host cannot answer is said, and the rest is shown.
    cluster[3].power_off();
    let done = project.orch(&past);
    let rest = events(&done.stdout);
    assert!(done.stderr.contains("host `c`"), "{}", done.stderr);
    assert_eq!((count(&rest, "a", "web", "create"), count(&rest, "c", "web", "create")), (1, 0), "{}", done.stdout);
    done.ok();
    eventually(secs(20), "c to be down", || {
        let said = project.orch(&["ps"]).stderr;
        if said.contains("host `c` is down: it is left out") { Ok(()) } else { Err(said) }
    });
    project.orch(&["exec", "-T", "--index", "9", "web", "ls"]).refused(1, &["what runs on `c` cannot be reached"]);
    let done = project.orch(&["down"]);
    assert!(done.stderr.contains("host `c` is down: what it has of the project goes when it is back"));
    done.ok();
    cluster[3].power_on();
    eventually(secs(60), "what c has of the project to go", || {
        let of = ["--filter", "label=com.docker.compose.project=seen"];
        let left = ["ps -aq", "network ls -q"]
            .map(|list| cluster[3].docker(&[&list.split(' ').collect::<Vec<_>>()[..], &of].concat()));
        if left.iter().all(String::is_empty) { Ok(()) } else { Err(left) }
    });
    // Until the seat has heard that c has none of it any more.
    eventually(secs(20), "nothing to remove", || {
        let said = project.orch(&["down"]).stderr;
        if said.contains("No resource found to remove for project \"seen\"") { Ok(()) } else { Err(said) }
    });
}
