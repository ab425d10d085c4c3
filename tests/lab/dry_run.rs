//! `--dry-run` changes nothing, whatever the command: every command of the tree is run with it on real engines, and what there
//! is of containers, networks, volumes, images, records and files is the same as before.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory as _};
use orch::cli::Cli;

use crate::cluster::Cluster;
use crate::fleet::{add, states};
use crate::host::{Done, Host};
use crate::project::Project;

/// Where a command is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// On a host with a project that is up.
    Project,
    /// From the desk of a cluster.
    Desk,
}

use At::{Desk, Project as Up};

/// Every command: where it is tried, its line, and words that it says. A line with a `!` before is refused. Of commands that
/// would change something the words say what.
const LINES: &[(At, &str, &str)] = &[
    (Up, "up -d --build", "build image registry.invalid/team/app:1"),
    (Up, "up -d", "create container dry-db-1"),
    (Up, "up --watch", "watch /root/dry/app for service app: sync to /app"),
    (Up, "down", "remove container dry-db-1"),
    (Up, "down -v --rmi all", "remove image registry.invalid/team/app:1"),
    (Up, "create --force-recreate", "create container dry-web-1"),
    (Up, "start", "nothing to do"),
    (Up, "stop", "stop container dry-db-1"),
    (Up, "restart", "start container dry-db-1"),
    (Up, "kill", "send SIGKILL to container dry-db-1"),
    (Up, "rm -f -s -v", "remove container dry-db-1"),
    (Up, "pause", "pause container dry-db-1"),
    (Up, "unpause", "nothing to do"),
    (Up, "scale db=3", "create container dry-db-3"),
    (Up, "build", "build image registry.invalid/team/app:1 of service app"),
    (Up, "pull", "pull image busybox of service db"),
    (Up, "push", "push image registry.invalid/team/app:1 of service app"),
    (Up, "plan", "create container dry-db-1"),
    (Up, "ps", "dry-db-1"),
    (Up, "logs", ""),
    (Up, "events --since 1m --until 0s", ""),
    (Up, "exec db touch /tmp/made", "execute in container dry-db-1: touch /tmp/made"),
    (Up, "exec -d db touch /tmp/made", "execute in container dry-db-1: touch /tmp/made"),
    (Up, "port web 80", "8080"),
    (Up, "images", "busybox"),
    (Up, "volumes", "dry_data"),
    (Up, "top", "sleep"),
    (Up, "cp compose.yaml db:/tmp/made", "copy compose.yaml to dry-db-1:/tmp/made"),
    (Up, "cp db:/etc/hostname made", "copy dry-db-1:/etc/hostname to made"),
    (Up, "cp db:/etc/hostname -", "copy dry-db-1:/etc/hostname to -"),
    (Up, "export -o made db", "export container dry-db-1 to made"),
    (Up, "commit db made:1", "make an image named made:1 of container dry-db-1"),
    (Up, "stats --no-stream", "dry-db-1"),
    (Up, "run --rm tool touch /data/made", "run in a new container dry-tool-run-… of service tool: touch /data/made"),
    (Up, "run -d --name made tool", "run in a new container made of service tool: sleep 1000000"),
    (Up, "wait db", "wait for the end of container dry-db-1"),
    (Up, "wait --down-project db", "remove container dry-db-1"),
    (Up, "attach web", "attach to container dry-web-1"),
    (Up, "watch", "create container dry-db-1"),
    (Up, "watch --no-up", "watch /root/dry/app for service app: sync to /app"),
    (Up, "config", "services:"),
    (Up, "config -o made", "write made"),
    (Up, "graph -o made", "write made"),
    (Up, "why web", "web"),
    (Up, "dns web", "web"),
    (Up, "lb --no-stream", "web"),
    (Up, "ls", "dry"),
    (Up, "pattern ls", "redis-ambassador"),
    (Up, "pattern show redis-ambassador", "redis"),
    (Up, "pattern lint redis-ambassador", ""),
    (Up, "agent logs", ""),
    (Up, "agent status", "agent of host local"),
    (Up, "agent metrics", "orch_"),
    (Up, "agent metrics --listen 127.0.0.1:9999", "tell metrics at http://127.0.0.1:9999/metrics"),
    (Up, "agent access-log on", "turn the access log on"),
    (Up, "agent stop", "stop the agent"),
    (Up, "agent uninstall --force", "uninstall the agent"),
    (Up, "!agent --state /root/made --run /root/made", "`--dry-run` cannot be used with `agent`"),
    (Up, "!demo write /root/made text", "`--dry-run` cannot be used with `demo`"),
    (Up, "completion bash", "orch"),
    (Up, "man made", "write a manual page for each command to made"),
    (Up, "version", "orch"),
    (Desk, "up -d", "create container dry-db-1"),
    (Desk, "down", "remove container dry-db-1"),
    (Desk, "exec db touch /tmp/made", "execute in container dry-db-1 on "),
    (Desk, "run --rm db touch /tmp/made", "run in a new container dry-db-run-… of service db: touch /tmp/made"),
    (Desk, "status", "seat      a"),
    (Desk, "host add c ssh://root@192.0.2.1", "add host c (ssh://root@192.0.2.1)"),
    (Desk, "host ls", "Ready"),
    (Desk, "host inspect a", "a"),
    (Desk, "host label b disk=ssd rack-", "set label disk=ssd of host b"),
    (Desk, "host rm b", "remove host b"),
    (Desk, "host seat b", "let host b decide, instead of a"),
    (Desk, "host drain b", "let no new pods onto host b"),
    (Desk, "host uncordon b", "let pods onto host b"),
];

const YAML: &str = "\
name: dry
services:
  web: {<<: *web, ports: ['8080:80'], depends_on: [db]}
  db: {<<: *client, volumes: ['data:/data'], environment: {WORD: one}}
  app:
    build: app
    image: registry.invalid/team/app:1
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    develop: {watch: [{path: app, action: sync, target: /app}]}
  tool: {<<: *client, volumes: ['data:/data'], profiles: [tools]}
volumes: {data: }
";

/// The commands of a tree that do something: those without further ones, and what `orch agent` is by itself.
fn leaves(command: &Command, above: &str, found: &mut BTreeSet<String>) {
    for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
        let name = format!("{above} {}", one.get_name()).trim().to_owned();
        // Workloads are all the same to it.
        let is_leaf = !one.has_subcommands() || name == "demo";
        if is_leaf || name == "agent" {
            found.insert(name.clone());
        }
        if !is_leaf {
            leaves(one, &name, found);
        }
    }
}

#[test]
fn no_command_is_left_out_of_what_is_tried_with_a_dry_run() {
    let mut all = BTreeSet::new();
    leaves(&Cli::command(), "", &mut all);
    let line = |line: &'static str| line.trim_start_matches('!');
    let is_tried = |name: &str| {
        LINES.iter().any(|(_, words, _)| {
            let rest = line(words).strip_prefix(name);
            let verb = rest.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
                && !all.contains(&format!("{name} {verb}"))
        })
    };
    let missing: Vec<&String> = all.iter().filter(|name| !is_tried(name)).collect();
    assert!(missing.is_empty() && all.len() > 45, "not tried: {missing:?} of {all:?}");
}

/// All that a command could have changed on a host.
fn state(host: &Host) -> String {
    host.sh(
        "echo containers; docker ps -aq --no-trunc | sort | while read id; do
             docker inspect -f '{{.Name}} {{.Id}} {{.State.Status}} {{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}' $id
             docker diff $id | sort
         done
         echo networks; docker network ls -q --no-trunc | sort
         echo volumes; docker volume ls -q | sort; find /var/lib/docker/volumes -type f -not -name metadata.db | sort
         echo images; docker images -a --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}' | sort
         echo records; curl -fs --unix-socket /run/orch/agent.sock http://agent/v1/projects 2>&1 || true
         echo; echo files; find /root /home /tmp /opt /etc -type f -size -2M -exec sha256sum {} + | sort -k 2
         find /opt -type f -not -size -2M -printf '%p %s %T@\n' | sort; find /root /tmp -type d | sort",
    )
}

/// Runs a line in the directory of the project.
fn run(host: &Host, line: &str) -> Done {
    let script = format!("cd /root/dry && exec /opt/orch/orch --profile '*' --dry-run {line}");
    host.exec(&["sh", "-c", &script])
}

#[track_caller]
fn check(host: &Host, line: &str, words: &str) {
    let done = run(host, line.trim_start_matches('!'));
    assert_eq!(done.code, i32::from(line.starts_with('!')), "{line}: {done:?}");
    let said = format!("{}{}", done.stdout, done.stderr);
    assert!(said.contains(words), "{line}: no `{words}` in:\n{said}");
}

#[test]
fn no_command_changes_anything_with_a_dry_run() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "dry", YAML);
    host.write("/root/dry/app/Dockerfile", "FROM busybox\nCOPY word /app/word\n");
    host.write("/root/dry/app/word", "one");
    let lines = || LINES.iter().filter(|(at, ..)| *at == Up);
    // Without an agent, and without anything of the project, also what only looks must leave it so.
    let before = state(&host);
    for (_, line, _) in lines() {
        let done = run(&host, line.trim_start_matches('!'));
        assert!(matches!(done.code, 0 | 1), "{line}: {done:?}");
        assert_eq!(state(&host), before, "{line}: {done:?}");
    }

    project.up();
    // There is something to change, so that saying nothing would be wrong.
    project.rewrite(&YAML.replace("WORD: one", "WORD: two"));
    host.write("/root/dry/app/word", "two");
    let before = state(&host);
    for (_, line, words) in lines() {
        check(&host, line, words);
        assert_eq!(state(&host), before, "{line}");
    }
    project.down();
}

#[test]
fn no_command_changes_anything_of_a_cluster_with_a_dry_run() {
    let cluster = Cluster::boot(2, &["busybox"]);
    add(&cluster, &[1, 2]).ok();
    let desk = &cluster.desk;
    let yaml = |word: &str| {
        format!(
            "name: dry\nservices:\n  db: {{<<: *client, environment: {{WORD: {word}}}}}\n  web: {{<<: *web, depends_on: [db]}}\n"
        )
    };
    let project = Project::new(desk, "dry", &yaml("one"));
    project.up();
    project.rewrite(&yaml("two"));
    let files = || desk.sh("find /root /home /tmp /etc -type f -exec sha256sum {} + | sort -k 2");
    let hosts = || {
        let labels = crate::fleet::hosts(desk, "Labels");
        (
            states(desk),
            labels,
            desk.orch(&["status"]).ok().lines().find(|line| line.starts_with("seat")).map(str::to_owned),
        )
    };
    let all = || (cluster.nodes().iter().map(state).collect::<Vec<_>>(), files(), hosts());
    let before = all();
    for (_, line, words) in LINES.iter().filter(|(at, ..)| *at == Desk) {
        check(desk, line, words);
        assert_eq!(all(), before, "{line}");
    }
    project.down();
}
