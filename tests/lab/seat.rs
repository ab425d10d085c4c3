//! The host that decides is another one from now on: while it can be reached, and when it is gone.

use crate::cluster::Cluster;
use crate::fleet::{add, running, spread, states};
use crate::project::Project;
use crate::wait::{eventually, secs};

#[test]
fn another_host_decides_by_hand_and_the_one_that_did_obeys_when_it_is_back() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2]).ok();
    let project = Project::new(desk, "moved", "services: {web: {<<: *web, deploy: {replicas: 4}}}\n");
    project.up();
    let starts = |number: usize| {
        cluster[number].docker(&[
            "ps",
            "--filter",
            "label=com.docker.compose.project=moved",
            "--format",
            "{{.ID}} {{.Names}}",
        ])
    };
    let before = [starts(1), starts(2)];

    // In order: what runs is not touched, and the new seat does all that the old one did.
    desk.orch(&["host", "seat", "x"]).refused(1, &["no host `x` is known"]);
    let moved = desk.orch(&["host", "seat", "b"]);
    assert!(moved.stderr.contains("host b decides") && !moved.stderr.contains("warning"), "{}", moved.stderr);
    moved.ok();
    desk.orch(&["host", "seat", "b"]).ok();
    assert!(desk.orch(&["status"]).ok().contains("seat      b:"));
    assert_eq!([starts(1), starts(2)], before, "nothing was made anew");
    add(&cluster, &[3]).ok();
    assert_eq!(states(desk), "a Ready, b Ready, c Ready");
    project.orch(&["up", "-d", "--wait", "--scale", "web=6"]).ok();
    assert_eq!(spread(&project, "web").iter().map(|(_, count)| count).sum::<usize>(), 6);

    // Without power: only by force.
    cluster[2].power_off();
    eventually(secs(20), "b is down", || {
        let seen = states(desk);
        if seen == "a Ready, b Down, c Ready" { Ok(()) } else { Err(seen) }
    });
    project
        .orch(&["up", "-d"])
        .refused(1, &["`b`, which decides for the cluster, cannot be reached", "orch host seat NAME --force"]);
    desk.orch(&["host", "seat", "c"]).refused(1, &["`b`, which decides now, cannot be reached", "`--force`"]);
    let forced = desk.orch(&["host", "seat", "c", "--force"]);
    assert!(forced.stderr.contains("the key of the cluster's authority stayed"), "{}", forced.stderr);
    forced.ok();
    eventually(secs(30), "all pods on the hosts that are left", || {
        let seen = running(&project, "web")?;
        let all: usize = seen.iter().map(|(_, count)| count).sum();
        if all == 6 && seen.iter().all(|(host, _)| host != "b") { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    project.orch(&["up", "-d", "--wait", "--scale", "web=3"]).ok();

    // Back, the host that decided before obeys, gives up what runs elsewhere, and hands over the key.
    cluster[2].power_on();
    eventually(secs(40), "b to obey", || {
        let status = ["curl", "-s", "--unix-socket", "/run/orch/agent.sock", "http://orch/v1/cluster"];
        let own = cluster[2].exec(&status).stdout;
        if own.contains(r#""seat":"c","epoch":2"#) { Ok(()) } else { Err(own) }
    });
    eventually(secs(20), "b to give up what runs elsewhere", || {
        let seen = (states(desk), cluster[2].exec(&["docker", "ps", "--format", "{{.Names}}"]).stdout);
        if seen.0 == "a Ready, b Ready, c Ready" && seen.1.trim() == "orch-agent" { Ok(()) } else { Err(seen) }
    });
    desk.orch(&["host", "rm", "b"])
        .refused(1, &["the key of the cluster's authority is not on `c`", "orch host seat c"]);
    add(&cluster, &[2]).ok();
    let again = desk.orch(&["host", "seat", "c"]);
    assert!(!again.stderr.contains("warning"), "{}", again.stderr);
    again.ok();
    for (number, keys) in [(1, "0"), (2, "0"), (3, "1")] {
        assert_eq!(cluster[number].sh("ls /var/lib/orch/identity | grep -c authority.key || :"), keys, "node{number}");
    }
    desk.orch(&["host", "rm", "b"]).ok();
    add(&cluster, &[2]).ok();
    assert_eq!(states(desk), "a Ready, b Ready, c Ready");
    project.down();
}
