//! What is asked of containers that are there: stop, start, restart, kill, rm, pause, scale, as Docker Compose does it.

use crate::cluster::Cluster;
use crate::fleet::{even, name, running, spread};
use crate::host::Host;
use crate::project::Project;
use crate::wait::{eventually, secs, stays, timed};

const SHOP: &str = "\
services:
  db: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL}
  web: {<<: *web, depends_on: {db: {condition: service_started, restart: true}}, volumes: [/cache]}
  client: *client
";

/// The containers of a project with their states, as the engine has them.
fn states(project: &Project) -> String {
    let label = format!("label=com.docker.compose.project={}", project.name);
    let format = "{{.Names}} {{.State}}";
    let lines = project.host.docker(&["ps", "-a", "--filter", &label, "--format", format]);
    let prefix = format!("{}-", project.name);
    let mut lines: Vec<&str> = lines.lines().map(|line| line.strip_prefix(&prefix).unwrap_or(line)).collect();
    lines.sort_unstable();
    lines.join(", ")
}

/// What a command that shows progress said of each container, in the order of names: `web-1 Stopping Stopped`.
fn said(project: &Project, stderr: &str) -> String {
    let mut words: Vec<(String, Vec<String>)> = Vec::new();
    let prefix = format!("Container {}-", project.name);
    for line in stderr.lines().filter_map(|line| line.trim().strip_prefix(&prefix)) {
        let (name, word) = line.split_once("  ").expect("a name and a word");
        match words.iter_mut().find(|(known, _)| known == name) {
            Some((_, words)) => words.push(word.to_owned()),
            None => words.push((name.to_owned(), vec![word.to_owned()])),
        }
    }
    words.sort();
    let lines = words.iter().map(|(name, words)| format!("{name} {}", words.join(" ")));
    lines.collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_stopped_killed_paused_or_removed_stays_so_until_it_is_started() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "life", SHOP);
    project.up();
    let all = "client-1 running, db-1 running, web-1 running";
    assert_eq!(states(&project), all);
    let ask = |args: &[&str]| {
        let done = project.orch(args);
        let words = said(&project, &done.stderr);
        done.ok();
        words
    };

    // Nothing is changed by looking.
    let lives = project.lives();
    for command in ["stop", "restart", "kill", "pause"] {
        let plan = project.orch(&[command, "--dry-run", "web"]).ok();
        assert!(plan.contains("life-web-1") && !plan.contains("life-client-1"), "{command}: {plan}");
        assert!(project.orch(&["--dry-run", command]).ok().contains("life-client-1"), "{command}");
    }
    assert_eq!((states(&project).as_str(), project.lives()), (all, lives));

    // A stopped service is not healed, has no endpoint, and outlives the agent.
    assert_eq!(ask(&["stop", "web"]), "web-1 Stopping Stopped");
    let down = "client-1 running, db-1 running, web-1 exited";
    assert_eq!(states(&project), down);
    assert_ne!(project.within("life-client-1", "wget -T 3 -q -O - http://web/").code, 0, "nobody answers");
    host.docker(&["restart", "-t", "5", "orch-agent"]);
    stays(secs(4), "what was stopped", || states(&project));
    assert_eq!(ask(&["stop", "web"]), "", "it is stopped");
    assert_eq!(project.orch(&["ps", "-q"]).ok().lines().count(), 2);
    assert!(project.orch(&["ps", "-a"]).ok().contains("Exited"));
    // What somebody else stops is healed as ever.
    host.docker(&["stop", "-t", "0", "life-client-1"]);
    eventually(
        secs(15),
        "the client is back",
        || if states(&project) == down { Ok(()) } else { Err(states(&project)) },
    );
    assert_eq!(ask(&["start", "web"]), "web-1 Starting Started");
    assert_eq!(states(&project), all);
    project.fetch("life-client-1", "http://web/");

    let done = project.orch(&["stop", "-t", "1"]);
    // A process may have ended a moment before that is said, so the engine is asked for the order.
    let ended = |name: &str| host.docker(&["inspect", "--format", "{{.State.FinishedAt}}", name]);
    assert!(ended("life-web-1") < ended("life-db-1"), "dependents first: {}", done.stderr);
    assert_eq!(states(&project), "client-1 exited, db-1 exited, web-1 exited");
    assert_eq!(ask(&["start", "web"]), "db-1 Starting Started, web-1 Starting Started", "with what it depends on");
    assert_eq!(ask(&["start", "--wait", "--wait-timeout", "20"]), "client-1 Starting Started");
    assert_eq!(states(&project), all);

    // What was stopped is brought up by `up`, of its own service only.
    ask(&["stop"]);
    project.orch(&["up", "-d", "client"]).ok();
    assert_eq!(states(&project), "client-1 running, db-1 exited, web-1 exited");
    project.up();

    assert_eq!(ask(&["kill", "db"]), "db-1 Killing Killed");
    stays(secs(3), "what was killed", || states(&project));
    assert_eq!(states(&project), "client-1 running, db-1 exited, web-1 running");
    assert!(project.orch(&["kill", "db"]).stderr.contains("no container to kill"));
    ask(&["start"]);
    let before = project.lives();
    assert_eq!(ask(&["kill", "-s", "WINCH", "web"]), "web-1 Killing Killed");
    assert_eq!(project.lives(), before, "it does not end by that");
    project.orch(&["kill", "-s", "BOGUS"]).refused(1, &["Invalid signal: BOGUS"]);

    assert_eq!(ask(&["pause", "web"]), "web-1 Pausing Paused");
    assert_eq!(states(&project), "client-1 running, db-1 running, web-1 paused");
    host.docker(&["restart", "-t", "5", "orch-agent"]);
    stays(secs(3), "what was paused", || states(&project));
    assert_ne!(project.within("life-client-1", "wget -T 3 -q -O - http://web/").code, 0, "it gets no connection");
    project.orch(&["pause", "web"]).refused(1, &["is already paused"]);
    project.orch(&["start", "web"]).refused(1, &["cannot start a paused container, try unpause instead"]);
    assert_eq!(ask(&["unpause"]), "web-1 Unpausing Unpaused");
    project.orch(&["unpause", "web"]).refused(1, &["is not paused"]);
    assert_eq!(project.lives(), before);

    // Its anonymous volume goes with it only where that is asked for; the next one has a volume of its own.
    let volume = || project.inspect("life-web-1", "{{range .Mounts}}{{.Name}}{{end}}");
    let first = volume();
    let left = |name: &str| host.docker(&["volume", "ls", "-q"]).contains(name);
    assert!(project.orch(&["rm", "-f"]).stderr.contains("No stopped containers"));
    ask(&["stop", "web"]);
    project.orch(&["rm"]).ok();
    assert!(states(&project).contains("web-1 exited"), "nobody said yes");
    let done = project.orch(&["rm", "-f"]);
    assert!(done.stderr.contains("Going to remove life-web-1"), "{done:?}");
    stays(secs(3), "what was removed", || states(&project));
    assert_eq!(states(&project), "client-1 running, db-1 running");
    assert!(left(&first));
    project.up();
    let second = volume();
    assert_ne!(first, second, "as in Docker Compose");
    assert_eq!(ask(&["rm", "-s", "-f", "-v", "web"]), "web-1 Stopping Stopped Removing Removed");
    assert!(!left(&second) && left(&first));
    project.up();
    assert_eq!(states(&project), all);

    project.orch(&["stop", "nobody"]).refused(1, &["no such service: nobody"]);
    project.down();
    project.orch(&["start"]).refused(1, &["no container found for project \"life\": not found"]);
    for command in ["stop", "restart", "pause", "unpause", "kill", "rm"] {
        project.orch(&[command]).ok();
    }
}

#[test]
fn what_is_paused_for_long_goes_on_as_it_was() {
    let host = Host::boot(&["busybox"]);
    let file = "\
services:
  web:
    image: busybox
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    healthcheck: {test: [CMD, 'true'], interval: 200ms, timeout: 2s, retries: 2}
";
    let project = Project::new(&host, "froze", file);
    project.up();
    let health = |wanted: &str| {
        eventually(secs(20), "its health", || match project.inspect("froze-web-1", "{{.State.Health.Status}}") {
            health if health == wanted => Ok(()),
            health => Err(health),
        });
    };
    health("healthy");
    let lives = project.lives();
    project.orch(&["pause"]).ok();
    // No check passes in what is frozen, which the engine holds against it.
    health("unhealthy");
    project.orch(&["unpause"]).ok();
    health("healthy");
    assert_eq!(project.lives(), lives, "it was neither started nor made anew");
}

#[test]
fn a_restart_is_done_once_and_takes_along_who_wants_to_be() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "again", SHOP);
    project.up();
    let started = |service: &str| project.inspect(&project.container(service, 1), "{{.Id}} {{.State.StartedAt}}");
    let all = || ["db", "web", "client"].map(started);
    let [db, web, client] = all();
    let done = project.orch(&["restart", "db"]);
    assert_eq!(said(&project, &done.stderr), "db-1 Restarting Started, web-1 Restarting Started");
    let [db2, web2, client2] = all();
    assert!(db != db2 && web != web2 && client == client2, "web depends on it with `restart: true`");
    assert_eq!(db[..64], db2[..64], "the same container");
    project.orch(&["restart", "--no-deps", "db"]).ok();
    let [db3, web3, _] = all();
    assert!(db2 != db3 && web2 == web3);
    // A change of the file is not applied by that, and the agent's own end in between changes nothing.
    project.rewrite(&SHOP.replace("db: {image", "db: {user: '1', image"));
    let mut restart = host.start_orch(&project.args(&["restart"]));
    assert!(restart.says("Restarting"));
    host.docker(&["restart", "-t", "0", "orch-agent"]);
    restart.finish();
    eventually(secs(20), "all are restarted", || {
        let now = all();
        if now[0] != db3 && now[1] != web3 && now[2] != client { Ok(()) } else { Err(now) }
    });
    project.orch(&["start", "--wait"]).ok();
    stays(secs(3), "once", all);
    assert_eq!(project.inspect("again-db-1", "{{.Config.User}}"), "");
    // One that does not run is started.
    project.orch(&["stop", "client"]).ok();
    project.orch(&["restart", "client"]).ok();
    assert_eq!(project.running("client").len(), 1);
}

#[test]
fn create_and_scale_and_a_part_taken_down() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "parts", SHOP);
    project.orch(&["scale", "client=2"]).ok();
    assert_eq!(states(&project), "client-1 running, client-2 running");
    project.orch(&["scale", "--no-deps", "web=1", "client=1"]).ok();
    assert_eq!(states(&project), "client-1 running, web-1 running");
    project.orch(&["scale", "nobody=2"]).refused(1, &["no such service: nobody"]);
    project.down();

    for _ in 0..2 {
        project.orch(&["create"]).ok();
        assert_eq!(states(&project), "client-1 created, db-1 created, web-1 created");
    }
    project.orch(&["start", "web"]).ok();
    assert_eq!(states(&project), "client-1 created, db-1 running, web-1 running");
    project.up();
    let all = "client-1 running, db-1 running, web-1 running";
    assert_eq!(states(&project), all);
    let volume = || project.inspect("parts-web-1", "{{range .Mounts}}{{.Name}}{{end}}");
    let first = volume();
    project.orch(&["up", "-d", "--force-recreate", "web"]).ok();
    assert_eq!(volume(), first);
    project.orch(&["up", "-d", "--force-recreate", "-V", "web"]).ok();
    let second = volume();
    assert_ne!(second, first);
    let ids = || ["db", "web", "client"].map(|service| project.inspect(&project.container(service, 1), "{{.Id}}"));
    let old = ids();
    project.orch(&["up", "-d", "--always-recreate-deps", "web"]).ok();
    let new = ids();
    assert!(new[0] != old[0] && new[2] == old[2], "{old:?} {new:?}");

    project.orch(&["down", "web", "--dry-run"]).ok();
    assert_eq!(states(&project), all);
    project.orch(&["down", "web"]).ok();
    stays(secs(3), "a part that was taken down", || states(&project));
    assert_eq!(states(&project), "client-1 running, db-1 running");
    project.orch(&["down", "nobody"]).refused(1, &["no such service: nobody"]);
    project.orch(&["down", "--rmi", "local"]).ok();
    assert!(host.docker(&["images"]).contains("busybox"), "it has a name of its own");
    project.up();
    let done = project.orch(&["down", "--rmi", "all"]);
    assert!(done.stderr.contains("Image busybox  Removed"), "{done:?}");
    assert!(!host.docker(&["images"]).contains("busybox"));
}

#[test]
fn a_part_that_is_taken_down_takes_its_own_network_along_and_kill_reaches_one_offs() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, networks: [only, both]}
  db: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, networks: [both]}
networks: {only: {}, both: {}}
";
    let project = Project::new(&host, "own", yaml);
    project.up();
    let networks = || {
        let filter = ["network", "ls", "--filter", "label=com.docker.compose.project=own", "--format", "{{.Name}}"];
        let mut names: Vec<String> = host.docker(&filter).lines().map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    let done = project.orch(&["down", "web"]);
    assert!(done.stderr.contains("Network own_only  Removed"), "{}", done.stderr);
    done.ok();
    stays(secs(3), "a network that nobody needs", networks);
    assert_eq!(networks(), ["own_both"]);
    project.up();
    assert_eq!(networks(), ["own_both", "own_only"]);
    // A one-off is on both: they stay.
    project.orch(&["run", "-d", "--name", "one", "web", "sleep", "1000000"]).ok();
    project.orch(&["down", "web"]).ok();
    assert_eq!(networks(), ["own_both", "own_only"]);

    project.orch(&["run", "-d", "--name", "other", "db", "sleep", "1000000"]).ok();
    let runs = |name: &str| project.inspect(name, "{{.State.Running}}") == "true";
    let done = project.orch(&["kill", "web"]);
    assert!(done.stderr.contains("Container one  Killed"), "{}", done.stderr);
    eventually(secs(15), "its end", || if runs("one") { Err("it runs") } else { Ok(()) });
    assert!(runs("other") && runs("own-db-1"));
    project.orch(&["stop", "db"]).ok();
    assert!(runs("other"), "it is nobody's to stop");
    project.orch(&["kill"]).ok();
    eventually(secs(15), "its end", || if runs("other") { Err("it runs") } else { Ok(()) });
    let done = project.orch(&["kill"]);
    assert!(done.code == 0 && done.stderr.contains("no container to kill"), "{done:?}");
    project.down();
}

#[test]
fn what_an_inactive_profile_left_runs_on_and_is_not_told() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "left", "services:\n  web: *client\n  extra: {<<: *client, profiles: [more]}\n");
    let both = project.orch(&["--profile", "more", "up", "-d", "--wait"]);
    assert!(both.stderr.contains("left-web-1") && both.stderr.contains("left-extra-1"), "{both:?}");
    let at = |words: &str| both.stderr.find(words).unwrap_or_else(|| panic!("no `{words}` in {}", both.stderr));
    assert!(at("Network left_default  Created") < at("Container left-web-1  Creating"), "{}", both.stderr);
    both.ok();
    let lives = project.lives();
    for up in [&["up", "-d"][..], &["up", "-d", "--wait"], &["up", "-d", "--wait", "web"]] {
        let one = project.orch(up);
        assert!(one.stderr.contains("left-web-1") && !one.stderr.contains("left-extra-1"), "{one:?}");
        one.ok();
    }
    assert_eq!(project.lives(), lives);
    project.down();
    assert_eq!(project.running("").len(), 0);
}

/// An engine starts again what ended by itself, not what somebody killed by it; and that is what is said.
#[test]
fn an_agent_that_is_killed_by_hand_during_an_up_is_started_by_the_next_one() {
    let host = Host::boot(&["busybox"]);
    let check = "{test: [CMD, test, -e, /ready], interval: 200ms, retries: 100000}";
    let project = Project::new(&host, "cut", &format!("services:\n  slow: {{<<: *client, healthcheck: {check}}}\n"));
    let up = host.start_orch(&project.args(&["up", "-d", "--wait"]));
    eventually(secs(20), "the container to run", || match project.running("slow").len() {
        1 => Ok(()),
        other => Err(other),
    });
    let lives = project.lives();
    host.docker(&["kill", "orch-agent"]);
    up.finish().refused(1, &["ended before it had said the result", "killed or stopped by hand by `orch up`"]);
    assert_eq!(host.docker(&["inspect", "-f", "{{.State.Status}}", "orch-agent"]), "exited");
    project.within("cut-slow-1", "touch /ready").ok();
    project.up();
    assert_eq!(project.lives(), lives);
    project.down();
}

#[test]
fn docker_compose_does_the_same() {
    let host = Host::boot(&["busybox"]);
    let reference = std::env::var("ORCH_COMPOSE_REFERENCE").expect(
        "ORCH_COMPOSE_REFERENCE names a Docker Compose 2.40: `scripts/setup test` unpacks one, `scripts/test` sets it",
    );
    let compose = host.give("docker-compose", reference.as_ref());
    let yaml = "services:\n  db: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL}\n  \
                web: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, depends_on: {db: {condition: \
                service_started, restart: true}}}\n";
    let ours = Project::new(&host, "ours", yaml);
    let theirs = Project::new(&host, "theirs", yaml);
    for line in [
        "stop",
        "start",
        "restart",
        "kill",
        "pause",
        "unpause",
        "rm -f",
        "up -d",
        "stop web",
        "stop nobody",
        "start web",
        "start nobody",
        "pause web",
        "pause web",
        "start web",
        "unpause web",
        "unpause web",
        "kill -s HUP web",
        "kill -s BOGUS web",
        "kill db",
        "kill db",
        "start",
        "restart db",
        "restart --no-deps db",
        "stop",
        "start web",
        "rm -f db",
        "rm -s -f web",
        "rm -f",
        "start db",
        "up -d",
        "scale web=2",
        "scale --no-deps web=1",
        "scale nobody=1",
        "kill",
        "rm",
        "up -d",
        "pause",
        "unpause",
        "stop -t 1 db",
        "restart -t 1",
        "down",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let one = ours.orch(&words);
        let other = host.exec(&[&[compose.as_str(), "-f", "/root/theirs/compose.yaml"], &words[..]].concat());
        assert_eq!(one.code, other.code, "{line}: {one:?} {other:?}");
        assert_eq!(states(&ours), states(&theirs), "{line}: {one:?} {other:?}");
    }
}

#[test]
fn a_pod_of_several_is_stopped_and_started_as_one() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *web, x-sidecars: {sync: {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL}}}
";
    let project = Project::new(&host, "pod", yaml);
    project.up();
    let all = states(&project);
    for (down, up) in [("stop web", "start web"), ("kill", "start"), ("stop", "restart"), ("rm -s -f", "up -d --wait")]
    {
        let words = |line: &'static str| line.split(' ').collect::<Vec<_>>();
        project.orch(&words(down)).ok();
        eventually(secs(15), "its helpers end with it", || {
            let now = states(&project);
            if now.contains("running") { Err(now) } else { Ok(()) }
        });
        stays(secs(3), down, || states(&project));
        project.orch(&words(up)).ok();
        eventually(secs(10), up, || if states(&project) == all { Ok(()) } else { Err(states(&project)) });
    }
    let before = project.lives();
    project.orch(&["pause"]).ok();
    project.orch(&["unpause"]).ok();
    assert_eq!(project.lives(), before);
}

#[test]
fn over_three_hosts_each_does_its_part() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    let yaml = "\
services:
  web: {<<: *web, deploy: {replicas: 6}}
  client: {<<: *client, deploy: {replicas: 3}}
";
    let hosts = [1, 2, 3].map(|number| format!("  {}: ssh://root@{}\n", name(number), cluster[number].address()));
    let project = Project::new(desk, "wide", &format!("x-hosts:\n{}{yaml}", hosts.concat()));
    project.up();
    assert_eq!(spread(&project, "web"), even(2));
    let on_engines = |status: &str| -> Vec<usize> {
        let filters = ["--filter", "label=com.docker.compose.service=web", "--filter"];
        let status = format!("status={status}");
        let list = |node: &Host| node.docker(&[&["ps", "-aq"], &filters[..], &[status.as_str()]].concat());
        cluster.nodes().iter().map(|node| list(node).lines().count()).collect()
    };
    let done = project.orch(&["stop", "web"]);
    for number in 1..=6 {
        assert!(done.stderr.contains(&format!("Container wide-web-{number}")), "{}", done.stderr);
    }
    done.ok();
    assert_eq!(on_engines("exited"), [2, 2, 2], "when it says so it is so");
    stays(secs(3), "stopped", || on_engines("exited"));
    project.orch(&["start", "--wait", "web"]).ok();
    assert_eq!(spread(&project, "web"), even(2));
    for (ask, status, back) in [("pause", "paused", "unpause"), ("kill", "exited", "start")] {
        project.orch(&[ask, "web"]).ok();
        assert_eq!(on_engines(status), [2, 2, 2], "{ask}");
        project.orch(&[back, "web"]).ok();
        assert_eq!(on_engines("running"), [2, 2, 2], "{back}");
    }
    let before = project.orch(&["ps", "--format", "json", "web"]).ok();
    project.orch(&["restart", "web"]).ok();
    assert_ne!(project.orch(&["ps", "--format", "json", "web"]).ok(), before);
    assert_eq!(running(&project, "client").expect("not touched"), even(1));

    // A host that is away hears of it when it is back.
    cluster[3].power_off();
    eventually(secs(20), "c to be down", || {
        let said = project.orch(&["ps"]).stderr;
        if said.contains("host `c` is down: it is left out") { Ok(()) } else { Err(said) }
    });
    for words in [&["pause", "client"][..], &["unpause", "client"], &["restart", "client"], &["stop"], &["ls", "-a"]] {
        let (done, took) = timed(|| project.orch(words));
        assert_eq!(done.stderr.matches("host `c` is down: it is left out").count(), 1, "{words:?}: {}", done.stderr);
        assert!(took < secs(30), "{words:?}: {took:?}");
        done.ok();
    }
    cluster[3].power_on();
    eventually(secs(60), "nothing to run anywhere", || {
        let all: usize = cluster
            .nodes()
            .iter()
            .map(|node| node.docker(&["ps", "-q", "--filter", "name=wide-"]).lines().count())
            .sum();
        if all == 0 { Ok(()) } else { Err(all) }
    });
    // Of a host that the seat has not heard yet nobody knows what there is to remove.
    eventually(secs(20), "none to be left", || {
        project.orch(&["rm", "-f"]).ok();
        let left = on_engines("exited");
        if left == [0, 0, 0] { Ok(()) } else { Err(left) }
    });
    project.down();
}
