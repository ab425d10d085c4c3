//! One-off containers (`run`), compared with Docker Compose on one host, and over three hosts.

use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::{Done, Host};
use crate::looking::Reference;
use crate::project::Project;
use crate::wait::{eventually, secs};

const YAML: &str = "\
services:
  web:
    image: busybox
    command: [sh, -c, 'echo the service; exec sleep 1000000']
    stop_signal: SIGKILL
    environment: {A: b}
    volumes: ['data:/data']
    configs: [{source: note, target: /note}]
    secrets: [word]
    ports: ['8080:80']
    depends_on: [db]
  db: {<<: *web}
  late:
    image: busybox
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    healthcheck: {test: [CMD, test, -e, /ready], interval: 200ms, retries: 1000, start_period: 60s}
  idle: {<<: *web, profiles: [idle]}
  needs: {image: busybox, depends_on: {late: {condition: service_healthy}}}
volumes: {data: {}}
configs: {note: {content: a note}}
secrets: {word: {file: ./word}}
";

fn project<'a>(host: &'a Host, name: &str) -> Project<'a> {
    host.write(&format!("/root/{name}/word"), "a secret");
    Project::new(host, name, YAML)
}

/// Names of the one-offs of a project on a host, in whatever state.
fn oneoffs(host: &Host, name: &str) -> BTreeSet<String> {
    let project = format!("label=com.docker.compose.project={name}");
    let args = ["ps", "-a", "--format", "{{.Names}}", "--filter", &project];
    let args = [&args[..], &["--filter", "label=com.docker.compose.oneoff=True"]].concat();
    host.docker(&args).split_whitespace().map(str::to_owned).collect()
}

fn told(done: &Done) -> (i32, String, String) {
    (done.code, done.stdout.clone(), done.stderr.lines().filter(|line| !line.starts_with(' ')).collect())
}

#[test]
fn run_does_what_docker_composes_does() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "once");
    // What it depends on comes up, and nothing else; the service itself neither.
    let done = project.orch(&["run", "--rm", "web", "sh", "-c", "echo out; echo err >&2; exit 5"]);
    let (code, stdout, stderr) = told(&done);
    assert_eq!((code, stdout.as_str()), (5, "out\n"), "{done:?}");
    assert!(stderr.contains("err"), "{done:?}");
    assert_eq!((project.running("db").len(), project.running("web").len(), project.running("late").len()), (1, 0, 0));
    assert_eq!(oneoffs(&host, "once"), BTreeSet::new());
    let db = project.lives();

    let reference = Reference::on(&host, "once");
    // The same container, as far as the engine shows it.
    let run = [
        "run", "-d", "-e", "X=1", "-e", "A", "-l", "mine=yes", "-w", "/tmp", "-u", "7", "--name", "one", "web",
        "sleep", "1000",
    ];
    let shape = "{{.Config.Cmd}} {{.Config.Entrypoint}} {{.Config.User}} {{.Config.WorkingDir}} \
                 {{.Config.Tty}} {{.Config.OpenStdin}} {{.Config.StdinOnce}} {{.HostConfig.AutoRemove}} {{.HostConfig.PortBindings}} \
                 {{.HostConfig.RestartPolicy.Name}}";
    let label = |key: &str| format!("{{{{index .Config.Labels \"{key}\"}}}}");
    let keys = [
        "com.docker.compose.oneoff",
        "com.docker.compose.service",
        "com.docker.compose.project",
        "mine",
        "com.docker.compose.container-number",
    ];
    let looked = |container: &str| {
        let labels: Vec<String> = keys.map(|key| project.inspect(container, &label(key))).to_vec();
        let mut variables: Vec<String> = project
            .inspect(container, "{{range .Config.Env}}{{println .}}{{end}}")
            .lines()
            .map(str::to_owned)
            .collect();
        variables.sort();
        (variables, project.inspect(container, shape).replace("no ", " "), labels)
    };
    let id = project.orch(&run).ok();
    assert_eq!(project.inspect("one", "{{.Id}}"), id.lines().last().expect("an id"));
    assert_eq!(project.inspect("one", &label("com.docker.compose.slug")).len(), 64);
    let ours = looked("one");
    host.docker(&["rm", "-f", "one"]);
    let compose = reference.run(&[&run[..1], &["--no-deps"], &run[1..]].concat());
    assert_eq!(compose.code, 0, "{compose:?}");
    let theirs = looked("one");
    host.docker(&["rm", "-f", "one"]);
    // Their restart policy is the empty one, ours says `no`.
    assert_eq!(ours.1.trim_end_matches("no").trim(), theirs.1.trim_end_matches("no").trim());
    assert_eq!((ours.0, ours.2), (theirs.0, theirs.2));

    // Configs, secrets, volumes and names are the project's.
    let script = "cat /note /run/secrets/word; echo; ls -d /data; wget -q -O - http://db/ | grep -c Hostname";
    let done = project.orch(&["run", "--rm", "-T", "web", "sh", "-c", script]);
    assert_eq!(done.stdout, "a notea secret\n/data\n1\n", "{done:?}");
    // Standard input, with an end and without.
    let piped = |flags: &str| {
        let file = format!("/root/{}/compose.yaml", project.name);
        host.exec(&["sh", "-c", &format!("echo hello | /opt/orch/orch -f {file} run --rm {flags} web cat")]).stdout
    };
    assert_eq!((piped("-T"), piped("-i=false")), ("hello\n".to_owned(), String::new()));
    // Nothing of this touched what runs.
    assert_eq!(project.lives(), db);

    for args in [
        &["run", "--rm", "nobody", "true"][..],
        &["run", "--rm", "web", "nosuchprogram"],
        &["run", "--rm", "-P", "-p", "1:1", "web"],
        &["run"],
    ] {
        assert_eq!((project.orch(args).code, reference.run(args).code), (1, 1), "{args:?}");
    }
    assert_eq!(oneoffs(&host, "once"), BTreeSet::new(), "what cannot be started is not left behind");
    let told = project.orch(&["run", "--rm", "--dry-run", "web", "true"]).ok();
    assert!(told.contains("run in a new container once-web-run-… of service web: true"), "{told}");
    assert_eq!(oneoffs(&host, "once"), BTreeSet::new());

    // Ports are published by the engine, where that is asked for.
    project.orch(&["run", "-d", "--rm", "-P", "--name", "ports", "web", "sleep", "1000"]).ok();
    assert!(host.docker(&["port", "ports"]).contains("80/tcp -> 0.0.0.0:8080"));
    host.docker(&["rm", "-f", "ports"]);
    project.down();
}

#[test]
fn a_one_off_is_left_alone_while_it_runs_and_goes_with_the_project() {
    let host = Host::boot(&["busybox"]);
    let project = project(&host, "kept");
    project.orch(&["up", "-d", "--wait", "web"]).ok();
    let web = project.running("web");
    // With the file changed: what runs is not changed by a one-off.
    project.rewrite(&YAML.replace("A: b", "A: c"));
    let done = project.orch(&["run", "web", "sh", "-c", "echo $A; exit 4"]);
    assert_eq!((done.code, done.stdout.as_str()), (4, "c\n"), "{done:?}");
    assert_eq!(project.running("web"), web);
    let id = project.orch(&["run", "-d", "--name", "long", "web", "sleep", "1000000"]).ok();
    let id = id.lines().last().expect("an id").to_owned();
    let names = oneoffs(&host, "kept");
    assert_eq!(names.len(), 2);
    let ended = names.iter().find(|name| *name != "long").expect("the first").clone();
    let slug = ended.strip_prefix("kept-web-run-").expect("its name");
    assert!(slug.len() == 12 && slug.bytes().all(|byte| byte.is_ascii_hexdigit()), "{ended}");

    // `ps` shows them as Docker Compose does: with `-a` only.
    assert!(!project.orch(&["ps"]).ok().contains("long"));
    let all = project.orch(&["ps", "-a"]).ok();
    assert!(all.lines().any(|line| line.starts_with("long ") && line.contains("Up ")), "{all}");
    assert!(all.lines().any(|line| line.starts_with(&ended) && line.contains("Exited (4)")), "{all}");
    project.orch(&["exec", "-T", "--index", "0", "long", "true"]).refused(1, &["long"]);

    // Neither healing nor an `up` touches one that runs; one that has ended is an orphan.
    let started = |container: &str| project.inspect(container, "{{.Id}} {{.State.StartedAt}}");
    let before = started("long");
    project.rewrite(YAML);
    let done = project.orch(&["up", "-d", "--wait", "web"]);
    assert!(done.stderr.contains(&format!("Found orphan containers ([{ended}])")), "{}", done.stderr);
    done.ok();
    host.docker(&["rm", "-f", "kept-web-1"]);
    eventually(secs(15), "another web", || match project.running("web") {
        now if now.len() == 1 && now != web => Ok(()),
        now => Err(now),
    });
    assert_eq!(started("long"), before);
    project.orch(&["up", "-d", "--wait", "--remove-orphans", "web"]).ok();
    assert_eq!(oneoffs(&host, "kept"), BTreeSet::from(["long".to_owned()]));
    assert_eq!(project.inspect("long", "{{.Id}}"), id);
    // Also the agent's restart is nothing to it.
    host.docker(&["restart", "-t", "1", "orch-agent"]);
    assert_eq!(project.orch(&["run", "--rm", "-T", "web", "echo", "again"]).ok().lines().last(), Some("again"));
    assert_eq!(started("long"), before);

    // Its names lead to it where that is asked for.
    let begin = |flags: &[&str]| {
        let words = ["run", "-d", "--rm", "--name", "alias", "--no-deps"];
        project.orch(&[&words[..], flags, &["idle"]].concat()).ok();
    };
    begin(&[]);
    assert!(project.fetch("kept-web-1", "http://alias/").contains("Hostname"), "its own name is known");
    assert_ne!(project.within("kept-web-1", "wget -q -O - http://idle/").code, 0);
    host.docker(&["rm", "-f", "alias"]);
    begin(&["--use-aliases"]);
    assert!(project.fetch("kept-web-1", "http://idle/").contains("Hostname"));
    host.docker(&["rm", "-f", "alias"]);

    // It waits for what it depends on to be healthy.
    let waiting = host.start_orch(&project.args(&["run", "--rm", "-T", "needs", "echo", "it is"]));
    eventually(secs(20), "late to run", || match project.running("late").len() {
        1 => Ok(()),
        count => Err(count),
    });
    assert!(oneoffs(&host, "kept").len() == 1, "not before");
    project.within("kept-late-1", "touch /ready").ok();
    let done = waiting.finish();
    assert_eq!((done.code, done.stdout.as_str()), (0, "it is\n"), "{done:?}");

    // With `--rm` it goes also when the command line is killed.
    let killed = host.start_orch(&project.args(&["run", "--rm", "--name", "killed", "web", "sleep", "5"]));
    eventually(secs(10), "it to run", || {
        let state = host.exec(&["docker", "inspect", "-f", "{{.State.Running}}", "killed"]).stdout;
        if state.trim() == "true" { Ok(()) } else { Err(state) }
    });
    killed.signal("KILL");
    eventually(secs(15), "it to be gone", || {
        let names = oneoffs(&host, "kept");
        if names.contains("killed") { Err(names) } else { Ok(()) }
    });
    // Signals are its own.
    let mut stopped = host.start_orch(&project.args(&[
        "run",
        "--rm",
        "--name",
        "stopped",
        "web",
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo ready >&2; while :; do sleep 0.1; done",
    ]));
    assert!(stopped.says("ready"));
    assert_eq!(stopped.signal("TERM").code, 9);

    project.down();
    assert_eq!(oneoffs(&host, "kept"), BTreeSet::new());
}

#[test]
fn a_one_off_runs_on_a_host_that_could_take_its_service() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let yaml = "\
services:
  db: {<<: *web}
  job:
    image: busybox
    depends_on: [db]
    configs: [{source: note, target: /note}]
    volumes: ['./beside:/beside:ro']
    deploy: {placement: {constraints: ['node.hostname == node2']}}
  nowhere: {image: busybox, deploy: {placement: {constraints: ['node.hostname == node9']}}}
configs: {note: {content: a note}}
";
    desk.write("/root/far/beside/file", "from the desk");
    let project = Project::new(desk, "far", yaml);
    let script = "cat /note /beside/file; echo; wget -q -O - http://db/ | grep -c Hostname; exit 3";
    let done = project.orch(&["run", "--name", "one", "job", "sh", "-c", script]);
    assert_eq!((done.code, done.stdout.as_str()), (3, "a notefrom the desk\n1\n"), "{done:?}");
    assert_eq!([1, 2, 3].map(|node| oneoffs(&cluster[node], "far").len()), [0, 1, 0]);
    let all = project.orch(&["ps", "-a"]).ok();
    assert!(
        all.lines().any(|line| line.starts_with("one ") && line.contains(" b ") && line.contains("Exited (3)")),
        "{all}"
    );
    let done = project.orch(&["run", "--rm", "nowhere", "true"]);
    done.refused(1, &["no host can take a container of `nowhere`"]);
    project.orch(&["run", "--rm", "-v", "./x:/x", "job", "true"]).refused(1, &["./x:/x"]);
    project.orch(&["run", "-d", "--rm", "--name", "two", "job", "sleep", "1000"]).ok();
    project.down();
    assert_eq!([1, 2, 3].map(|node| oneoffs(&cluster[node], "far").len()), [0, 0, 0]);
}

/// A pod of each kind of container; what prepares it fails where `/data/bad` is.
const POD: &str = "\
services:
  web:
    image: busybox
    command: [sh, -c, 'exec sleep 1000000']
    stop_signal: SIGKILL
    volumes: ['log:/log', 'data:/data']
    ports: ['8080:80']
    depends_on: [db]
    x-init:
      first:
        image: busybox
        command: [sh, -c, 'if test -e /data/bad; then echo no such table; exit 7; fi; echo first >> /log/order']
        volumes: ['log:/log', 'data:/data']
    x-sidecars:
      helper:
        image: busybox
        init: true
        command: [sh, -c, 'echo helper >> /log/order; exec sleep 1000000']
        volumes: ['log:/log']
        healthcheck: {test: [CMD, grep, -q, helper, /log/order], interval: 200ms, retries: 100}
    x-ambassadors: {back: {listen: 8000, to: ['db:80']}}
  db: {<<: *web}
volumes: {log: {x-pod: {medium: memory}}, data: {}}
";

/// All that is there of one-offs, in whatever state, and the volumes of their pods.
fn left(host: &Host, name: &str) -> (BTreeSet<String>, String) {
    (oneoffs(host, name), host.docker(&["volume", "ls", "-q", "--filter", "label=orch.pod-volume"]))
}

fn is_gone(host: &Host, name: &str) {
    eventually(secs(20), "nothing of it to be left", || match left(host, name) {
        (names, volumes) if names.is_empty() && volumes.is_empty() => Ok(()),
        left => Err(left),
    });
}

#[test]
fn a_one_off_of_several_containers_is_a_pod_of_its_own_and_goes_whole() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "whole", POD);
    let script = "cat /log/order; wget -q -O - http://127.0.0.1:8000/ | grep -c Hostname; exit 3";
    let done = project.orch(&["run", "--rm", "-T", "web", "sh", "-c", script]);
    assert_eq!((done.code, done.stdout.as_str()), (3, "first\nhelper\n1\n"), "{done:?}");
    assert_eq!(left(&host, "whole"), (BTreeSet::new(), String::new()), "it is gone when the command ends");
    assert_eq!((project.running("db").len(), project.running("web").len()), (1, 0));

    // In the background: whoever began it is long gone when it ends.
    let run =
        ["run", "-d", "--rm", "-P", "--name", "one", "web", "sh", "-c", "until test -e /log/end; do sleep 0.1; done"];
    project.orch(&run).ok();
    let pod = ["one", "one-first", "one-helper", "one-pod"].map(str::to_owned);
    assert_eq!(oneoffs(&host, "whole"), BTreeSet::from(pod));
    assert!(host.docker(&["port", "one-pod"]).contains("80/tcp -> 0.0.0.0:8080"));
    assert!(!project.orch(&["ps"]).ok().contains("one"));
    let all = project.orch(&["ps", "-a"]).ok();
    assert!(all.lines().any(|line| line.starts_with("one-helper ") && line.contains("Up ")), "{all}");
    project.orch(&["exec", "-T", "web", "true"]).refused(1, &["web"]);
    assert!(!project.orch(&["logs"]).ok().contains("one-"));
    assert!(project.orch(&["rm", "-f"]).stderr.contains("No stopped containers"));
    // Neither an `up` nor the agent's restart is anything to it.
    let lives = || ["one", "one-helper", "one-pod"].map(|name| project.inspect(name, "{{.Id}} {{.State.StartedAt}}"));
    let before = lives();
    project.orch(&["up", "-d", "--remove-orphans", "db"]).ok();
    host.docker(&["restart", "-t", "1", "orch-agent"]);
    project.orch(&["run", "--rm", "-T", "web", "true"]).ok();
    assert_eq!(lives(), before);
    // A helper that ends comes back, also what was stopped by hand, for as long as there is something to help.
    for end in [["kill", "one-helper"], ["stop", "one-helper"]] {
        let before = project.inspect("one-helper", "{{.State.StartedAt}}");
        host.docker(&end);
        eventually(secs(20), "the helper to be started again", || {
            match project.inspect("one-helper", "{{.State.StartedAt}} {{.State.Running}}") {
                state if state.ends_with(" true") && !state.starts_with(&before) => Ok(()),
                state => Err(state),
            }
        });
    }
    assert_eq!([lives()[0].clone(), lives()[2].clone()], [before[0].clone(), before[2].clone()]);
    host.docker(&["exec", "one-helper", "touch", "/log/end"]);
    is_gone(&host, "whole");

    // Without `--rm` its helpers stop with it, stay beside it, and go with it.
    let done = project.orch(&["run", "--name", "kept", "web", "sh", "-c", "exit 4"]);
    assert_eq!(done.code, 4, "{done:?}");
    let states = host.docker(&["ps", "-a", "--filter", "name=kept", "--format", "{{.Names}} {{.State}}"]);
    let states: BTreeSet<&str> = states.lines().collect();
    assert_eq!(states, BTreeSet::from(["kept exited", "kept-first exited", "kept-helper exited", "kept-pod exited"]));
    let done = project.orch(&["up", "-d", "db"]);
    assert!(done.stderr.contains("Found orphan containers ([kept])"), "{}", done.stderr);
    project.orch(&["up", "-d", "--remove-orphans", "db"]).ok();
    is_gone(&host, "whole");

    // What prepares it fails: its last lines are said, and nothing is left.
    project.orch(&["run", "--rm", "-T", "--no-deps", "web", "touch", "/data/bad"]).ok();
    let done = project.orch(&["run", "--name", "bad", "web", "true"]);
    done.refused(1, &["container bad-first failed", "ended with 7", "no such table"]);
    assert_eq!(left(&host, "whole"), (BTreeSet::new(), String::new()));
    host.docker(&["run", "--rm", "-v", "whole_data:/data", "busybox", "rm", "/data/bad"]);

    // What cannot be started, and what is interrupted, leaves nothing either.
    let done = project.orch(&["run", "--rm", "web", "nosuchprogram"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert_eq!(left(&host, "whole"), (BTreeSet::new(), String::new()));
    project.rewrite(&POD.replace("echo first >> /log/order", "exec sleep 1000"));
    let waiting = host.start_orch(&project.args(&["run", "--name", "stopped", "web", "true"]));
    eventually(secs(20), "it to be prepared", || {
        let state = host.exec(&["docker", "inspect", "-f", "{{.State.Running}}", "stopped-first"]).stdout;
        if state.trim() == "true" { Ok(()) } else { Err(state) }
    });
    assert_eq!(waiting.signal("INT").code, 130);
    is_gone(&host, "whole");

    project.rewrite(POD);
    project.orch(&["run", "-d", "--name", "two", "web", "sleep", "1000"]).ok();
    project.down();
    assert_eq!(left(&host, "whole"), (BTreeSet::new(), String::new()));
}
