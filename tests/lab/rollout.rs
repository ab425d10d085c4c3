//! Changes that are rolled out as `deploy.update_config` says, over three hosts.

use crate::cluster::Cluster;
use crate::fleet::{add, even, spread, states};
use crate::project::Project;
use crate::wait::{eventually, secs};

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Six replicas that do this.
fn yaml(script: &str) -> String {
    format!(
        "\
services:
  web:
    image: busybox
    stop_signal: SIGKILL
    command: [sh, -c, '{script}']
    deploy: {{replicas: 6, update_config: {{parallelism: 2, delay: 2s, monitor: 1s}}}}
"
    )
}

/// When replicas ended and were started since then, on all hosts, as their engines say.
fn events(cluster: &Cluster, action: &str, since: &str) -> Vec<u64> {
    let all = cluster.nodes().iter().flat_map(|node| {
        let (event, label) = (format!("event={action}"), "label=com.docker.compose.service=web");
        let now = node.sh("date +%s.%N");
        let filters = ["--filter", &event, "--filter", label, "--format", "{{.TimeNano}}"];
        let words = [&["events", "--since", since, "--until", &now], filters.as_slice()].concat();
        let lines = node.docker(&words);
        lines.lines().map(|line| line.parse().expect("a time")).collect::<Vec<u64>>()
    });
    let mut all: Vec<u64> = all.collect();
    all.sort_unstable();
    all
}

#[test]
fn so_many_replicas_are_replaced_at_once_with_a_pause_and_a_failure_stops_it() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let project = Project::new(desk, "roll", &yaml("sleep 1000000"));
    project.up();
    assert_eq!(spread(&project, "web"), even(2));

    project.rewrite(&yaml("echo second; exec sleep 1000000"));
    let since = desk.sh("date +%s.%N");
    project.orch(&["up", "-d"]).ok();
    assert_eq!(spread(&project, "web"), even(2));
    let (ends, starts) = (events(&cluster, "die", &since), events(&cluster, "start", &since));
    assert_eq!((ends.len(), starts.len()), (6, 6), "each was replaced once: {ends:?}, {starts:?}");
    for (at, end) in ends.iter().enumerate().skip(2) {
        let earlier = starts[at - 2];
        assert!(
            *end >= earlier + 2 * SECOND,
            "number {at} ended {} ms after the start",
            end.saturating_sub(earlier) / 1_000_000
        );
    }
    let now: u64 = desk.sh("date +%s%N").parse().expect("a time");
    assert!(now >= starts[5] + SECOND, "the last one is watched");

    // One that fails keeps the others from being replaced.
    project.rewrite(&yaml("echo no such table; sleep 0.5; exit 3"));
    let said = [
        "the update of `web` is paused, ",
        " of 6 replicas failed: container roll-web-",
        " ended with 3",
        "until the next `orch up`",
        "no such table",
    ];
    project.orch(&["up", "-d"]).refused(1, &said);
    let old = |cluster: &Cluster| -> usize {
        let running = |node: &crate::host::Host| node.docker(&["ps", "-q", "--no-trunc", "--filter", "name=roll-web"]);
        let commands = cluster.nodes().iter().flat_map(|node| {
            let ids: Vec<String> = running(node).lines().map(str::to_owned).collect();
            ids.into_iter().map(|id| node.docker(&["inspect", "-f", "{{json .Config.Cmd}}", &id])).collect::<Vec<_>>()
        });
        commands.filter(|command| command.contains("echo second")).count()
    };
    assert!(old(&cluster) >= 4, "two at once at most were replaced: {}", old(&cluster));
    // Nor does an agent that starts anew go on with it.
    for node in cluster.nodes() {
        node.docker(&["restart", "-t", "1", "orch-agent"]);
    }
    eventually(secs(30), "all agents", || {
        let seen = states(desk);
        if seen == "a Ready, b Ready, c Ready" { Ok(()) } else { Err(seen) }
    });
    project.orch(&["status"]).ok();
    let left = old(&cluster);
    assert!(left >= 4, "still: {left}");
    // Nor does another `up` of the same take another one: it tries what failed.
    for _ in 0..2 {
        project.orch(&["up", "-d"]).refused(1, &said);
        assert_eq!(old(&cluster), left);
    }

    project.rewrite(&yaml("echo third; exec sleep 1000000"));
    project.orch(&["up", "-d"]).ok();
    assert_eq!(spread(&project, "web"), even(2));
    assert_eq!(old(&cluster), 0);
    project.down();
}

/// What became of the replicas of `web` since then on all hosts, in order: when, what, and of which number.
fn lives(cluster: &Cluster, project: &Project, since: &str) -> Vec<(u64, String, u32)> {
    let label = format!("label=com.docker.compose.project={}", project.name);
    let format = "{{.TimeNano}} {{.Action}} {{index .Actor.Attributes \"com.docker.compose.container-number\"}}";
    let all = cluster.nodes().iter().flat_map(|node| {
        let now = node.sh("date +%s.%N");
        let filters = ["--filter", &label, "--filter", "event=start", "--filter", "event=die", "--format", format];
        let lines = node.docker(&[&["events", "--since", since, "--until", &now], filters.as_slice()].concat());
        let event = |line: &str| {
            let mut words = line.split(' ');
            let mut word = || words.next().expect("three words");
            (word().parse().expect("a time"), word().to_owned(), word().parse().expect("a number"))
        };
        lines.lines().map(event).collect::<Vec<_>>()
    });
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all
}

/// Nobody checks the replicas, and the file says nothing of rollouts.
#[test]
fn one_replica_after_the_other_is_replaced_over_two_hosts_and_a_version_that_crashes_leaves_the_others() {
    let cluster = Cluster::boot(2, &["busybox", "nginx"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2]).ok();
    let mean = |image: &str| cluster.nodes().iter().for_each(|node| drop(node.docker(&["tag", image, "app:1"])));
    let with = |version: u32| {
        format!(
            "\
services:
  web:
    image: app:1
    stop_signal: SIGKILL
    environment: {{VERSION: '{version}'}}
    command: [sh, -c, 'test $$VERSION = 3 || exec sleep 1000000; echo no such table; sleep 0.1; exit 3']
    deploy: {{replicas: 4}}
"
        )
    };
    mean("busybox");
    let project = Project::new(desk, "plain", &with(1));
    project.up();
    let spread = spread(&project, "web");
    assert_eq!(spread, ["a", "b"].map(|name| (name.to_owned(), 2)), "both hosts have some");

    let one_by_one = |what: &str, change: &dyn Fn()| {
        change();
        let since = desk.sh("date +%s.%N");
        project.orch(&["up", "-d"]).ok();
        let lives = lives(&cluster, &project, &since);
        let told: Vec<String> = lives.iter().map(|(_, what, number)| format!("{what} {number}")).collect();
        let expected = (1..=4).flat_map(|number| [format!("die {number}"), format!("start {number}")]);
        assert_eq!(told, expected.collect::<Vec<_>>(), "{what}: never more than one is away");
        for pair in lives.windows(2).filter(|pair| pair[0].1 == "start") {
            let ran = pair[1].0.saturating_sub(pair[0].0);
            assert!(ran >= SECOND / 2, "{what}: the next one ended {} ms after a start", ran / 1_000_000);
        }
    };
    one_by_one("another environment", &|| project.rewrite(&with(2)));
    one_by_one("another image", &|| mean("nginx"));

    let runs = || -> Vec<String> {
        let label = format!("label=com.docker.compose.project={}", project.name);
        let ids = |node: &crate::host::Host| node.docker(&["ps", "--no-trunc", "-q", "--filter", &label]);
        let mut all: Vec<String> =
            cluster.nodes().iter().flat_map(|node| ids(node).lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        all.sort_unstable();
        all
    };
    let before = runs();
    project.rewrite(&with(3));
    let since = desk.sh("date +%s.%N");
    project.orch(&["up", "-d"]).refused(
        1,
        &[
            "the update of `web` waits: container plain-web-1 has failed 3 times in a row; the others stay as they are",
            "no such table",
        ],
    );
    let touched = lives(&cluster, &project, &since);
    assert!(touched.iter().all(|(_, _, number)| *number == 1), "{touched:?}");
    let stay = runs().iter().filter(|id| before.contains(id)).count();
    assert_eq!(stay, 3, "the others run as before");
    project.down();
}

#[test]
fn what_of_an_update_is_not_applied_is_refused_with_its_place() {
    let host = crate::host::Host::boot(&["busybox"]);
    let with = |config: &str| {
        format!("services:\n  web: {{image: busybox, deploy: {{replicas: 2, update_config: {{{config}}}}}}}\n")
    };
    let project = Project::new(&host, "not", &with("order: start-first"));
    project
        .orch(&["up", "-d"])
        .refused(1, &["`services.web.deploy.update_config.order: start-first` is not applied yet", "compose.yaml:4:"]);
    project.rewrite(&with("failure_action: rollback"));
    project
        .orch(&["up", "-d"])
        .refused(1, &["`services.web.deploy.update_config.failure_action: rollback` is not applied yet"]);
    project.rewrite(&with("max_failure_ratio: 1.5"));
    project
        .orch(&["up", "-d"])
        .refused(1, &["a share of 1.5 is not supported, give one from 0 to 1", "compose.yaml:4:"]);
    assert_eq!(host.docker(&["ps", "-aq", "--filter", "name=not-"]), "");
}

/// Nobody checks the replicas, and the file says nothing of rollouts.
#[test]
fn a_version_that_crashes_at_once_takes_one_replica_and_up_says_so() {
    let host = crate::host::Host::boot(&["busybox"]);
    let with = |script: &str| {
        format!(
            "services:\n  web: {{image: busybox, stop_signal: SIGKILL, deploy: {{replicas: 3}}, command: [sh, -c, '{script}']}}\n"
        )
    };
    let project = Project::new(&host, "bad", &with("echo first; exec sleep 1000000"));
    project.up();
    let ids = |number: u32| project.inspect(&format!("bad-web-{number}"), "{{.Id}} {{.State.StartedAt}}");
    let before = (ids(2), ids(3));

    project.rewrite(&with("echo no such table; sleep 0.1; exit 3"));
    let said = [
        "the update of `web` waits: container bad-web-1 has failed 3 times in a row; the others stay as they are until it runs",
        "no such table",
    ];
    project.orch(&["up", "-d"]).refused(1, &said);
    assert_eq!((ids(2), ids(3)), before, "the others are as they were");
    // Another `up` of the same changes nothing of that.
    project.orch(&["up", "-d"]).refused(1, &said);
    assert_eq!((ids(2), ids(3)), before, "the others are as they were");

    // What mends it goes through, and each has run for half a second before the next is replaced.
    project.rewrite(&with("echo third; exec sleep 1000000"));
    let since = host.sh("date +%s.%N");
    project.orch(&["up", "-d"]).ok();
    let times = |action: &str| -> Vec<u64> {
        let (event, label) = (format!("event={action}"), "label=com.docker.compose.project=bad");
        let now = host.sh("date +%s.%N");
        let filters = ["--filter", &event, "--filter", label, "--format", "{{.TimeNano}}"];
        let lines = host.docker(&[&["events", "--since", &since, "--until", &now], filters.as_slice()].concat());
        lines.lines().map(|line| line.parse().expect("a time")).collect()
    };
    let (starts, stops) = (times("start"), times("kill"));
    let (last_start, last_stop) = (starts.iter().rev().nth(1), stops.last());
    let (Some(start), Some(stop)) = (last_start, last_stop) else { panic!("{starts:?} {stops:?}") };
    assert!(
        *stop >= start + SECOND / 2,
        "the last was stopped {} ms after a start",
        stop.saturating_sub(*start) / 1_000_000
    );
    assert_eq!(project.running("web").len(), 3);
    project.down();
}
