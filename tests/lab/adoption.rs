//! Docker Compose and orch on one engine: each understands what the other has made of the same file.

use crate::host::{Done, Host, ORCH};
use crate::project::Project;
use crate::wait::{becomes, eventually, secs};

/// `web` shows what `db` wrote into the volume, at port 80.
const FILE: &str = "\
services:
  db:
    image: busybox
    command: [sh, -c, 'mkdir -p /data; echo kept > /data/index.html; exec sleep 1000000']
    stop_signal: SIGKILL
    labels: {made: first}
    volumes: ['data:/data']
  web:
    image: busybox
    command: [busybox, httpd, -f, -p, '80', -h, /data]
    stop_signal: SIGKILL
    environment: {TEXT: 'a<b>&c $$x'}
    ports: ['8080:80']
    volumes: ['data:/data:ro']
    depends_on: [db]
  side:
    image: busybox
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    network_mode: 'service:web'
volumes: {data: null}
";

/// The real Docker Compose on a host, for one project.
struct Reference<'a> {
    project: &'a Project<'a>,
    program: String,
}

impl<'a> Reference<'a> {
    fn new(project: &'a Project<'a>) -> Self {
        let program = std::env::var("ORCH_COMPOSE_REFERENCE").expect(
            "ORCH_COMPOSE_REFERENCE names a Docker Compose 2.40: `scripts/setup test` unpacks one, `scripts/test` sets it",
        );
        Self { project, program: project.host.give("docker-compose", program.as_ref()) }
    }

    fn run(&self, args: &[&str]) -> Done {
        self.project.host.exec(&[&[self.program.as_str()], self.project.args(args).as_slice()].concat())
    }
}

/// Returns what a command did that must succeed.
#[track_caller]
fn good(done: Done) -> Done {
    assert_eq!(done.code, 0, "{done:?}");
    done
}

fn said(done: &Done) -> String {
    format!("{}{}", done.stdout, done.stderr)
}

fn page(host: &Host) -> String {
    host.exec(&["curl", "-fsS", "-m", "2", "http://127.0.0.1:8080/"]).stdout
}

#[track_caller]
fn is_served(host: &Host) {
    becomes(secs(10), "port 8080", &"kept\n".to_owned(), || page(host));
}

#[test]
fn what_docker_compose_started_is_adopted_as_it_runs() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "shop", FILE);
    let compose = Reference::new(&project);
    compose.run(&["up", "-d"]).ok();
    is_served(&host);
    let before = project.lives();
    let network = host.docker(&["network", "inspect", "-f", "{{.Id}}", "shop_default"]);

    let plan = good(project.orch(&["plan"]));
    assert!(said(&plan).contains("adopted as Docker Compose made them"), "{plan:?}");
    let up = good(project.orch(&["up", "-d", "--wait"]));
    let names = "adopted as Docker Compose made them: shop-db-1, shop-side-1, shop-web-1";
    assert!(up.stderr.contains(names) && up.stderr.contains("--force-recreate"), "{up:?}");
    assert_eq!(project.lives(), before);
    assert_eq!(host.docker(&["network", "inspect", "-f", "{{.Id}}", "shop_default"]), network);
    let ps = good(project.orch(&["ps"]));
    assert!(["shop-db-1", "shop-side-1", "shop-web-1"].iter().all(|name| ps.stdout.contains(name)), "{ps:?}");
    is_served(&host);
    project.orch(&["logs", "web"]).ok();
    // It is healed, as it is and made anew.
    host.docker(&["kill", "shop-web-1"]);
    eventually(secs(10), "web runs again", || {
        let now = project.lives();
        let has = |name: &str| now.iter().any(|life| life.starts_with(&format!("/{name} ")));
        if has("shop-web-1") && has("shop-side-1") { Ok(()) } else { Err(now) }
    });
    is_served(&host);
    host.docker(&["rm", "-f", "shop-web-1"]);
    eventually(secs(15), "web is made anew", || {
        let hash = host.exec(&["docker", "inspect", "-f", "{{index .Config.Labels \"orch.spec-hash\"}}", "shop-web-1"]);
        if hash.code == 0 && !hash.stdout.trim().is_empty() { Ok(()) } else { Err(hash) }
    });
    is_served(&host);
    // From inside it the virtual address of the other service answers, on Docker Compose's network.
    let looked_up = project.within("shop-web-1", "nslookup db");
    assert!(looked_up.stdout.contains(".255."), "{looked_up:?}");
    // What the file says otherwise is made anew, and why is said; what the volume holds is kept.
    host.docker(&["exec", "shop-db-1", "sh", "-c", "echo more >/data/more"]);
    project.rewrite(&FILE.replace("made: first", "made: second"));
    let plan = good(project.orch(&["plan"]));
    assert!(said(&plan).contains("configuration changed: made by Docker Compose"), "{plan:?}");
    let up = good(project.orch(&["up", "-d", "--wait"]));
    assert!(!up.stderr.contains("adopted"), "{up:?}");
    is_served(&host);
    assert_eq!(host.docker(&["exec", "shop-db-1", "cat", "/data/more"]), "more");
    project.orch(&["down"]).ok();
    let of_project = "label=com.docker.compose.project=shop";
    assert_eq!(host.docker(&["ps", "-aq", "--filter", of_project]).trim(), "");
    assert_eq!(host.docker(&["network", "ls", "-q", "--filter", of_project]).trim(), "");
    assert_eq!(host.docker(&["volume", "ls", "-q", "--filter", of_project]).trim(), "shop_data");
    compose.run(&["up", "-d"]).ok();
    project.orch(&["up", "-d", "--wait"]).ok();
    project.orch(&["up", "-d", "--wait", "--force-recreate"]).ok();
    let made_by = "{{index .Config.Labels \"orch.spec-hash\"}}";
    assert!(
        ["db", "web", "side"].iter().all(|one| !project.inspect(&project.container(one, 1), made_by).trim().is_empty())
    );
    is_served(&host);
    project.down();
    assert_eq!(host.docker(&["volume", "ls", "-q", "--filter", of_project]).trim(), "");
}

#[test]
fn docker_compose_understands_what_orch_made() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "shop", FILE);
    let compose = Reference::new(&project);
    project.up();
    is_served(&host);
    let before = project.lives();
    let up = good(compose.run(&["up", "-d"]));
    assert_eq!(project.lives(), before, "{up:?}");
    assert!(!up.stderr.contains("Recreate") && !up.stderr.contains("Creat"), "{up:?}");
    // Its hashes are what it would have written.
    for line in compose.run(&["config", "--hash", "db,web"]).ok().lines() {
        let (service, hash) = line.split_once(' ').expect("a service and its hash");
        let label = "{{index .Config.Labels \"com.docker.compose.config-hash\"}}";
        assert_eq!(project.inspect(&project.container(service, 1), label).trim(), hash, "{service}");
    }
    let ps = compose.run(&["ps", "--format", "{{.Name}} {{.Service}} {{.State}}"]).ok();
    assert_eq!(ps, "shop-db-1 db running\nshop-side-1 side running\nshop-web-1 web running");
    let ls = compose.run(&["ls"]).ok();
    assert!(ls.contains("shop") && ls.contains("running(3)"), "{ls}");
    compose.run(&["logs", "web"]).ok();
    // Without the agent, who would make it again at once, it takes down all there is.
    host.orch(&["agent", "stop"]).ok();
    compose.run(&["down", "-v", "-t", "0"]).ok();
    let of_project = "label=com.docker.compose.project=shop";
    for kind in ["container", "network", "volume"] {
        let all: &[&str] = if kind == "container" { &["-a"] } else { &[] };
        let left = host.docker(&[&[kind, "ls", "-q", "--filter", of_project], all].concat());
        assert_eq!(left.trim(), "", "{kind}");
    }
}

/// Checks that commands for what runs are refused with these words, and change nothing.
#[track_caller]
fn refused(project: &Project, words: &[&str]) {
    let before = project.lives();
    for command in COMMANDS {
        project.orch(&[command]).refused(1, words);
    }
    assert_eq!(project.lives(), before);
}

/// Commands for what runs.
const COMMANDS: [&str; 4] = ["stop", "restart", "kill", "pause"];

#[test]
fn commands_say_where_nobody_is_there_to_do_what_is_asked() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "shop", FILE);
    let compose = Reference::new(&project);
    let of_compose = ["started by Docker Compose; `orch up -d` takes it over"];
    // Where there is nothing it is as with Docker Compose.
    assert_eq!(good(project.orch(&["stop"])).stderr, "");
    compose.run(&["up", "-d"]).ok();
    refused(&project, &of_compose);
    compose.run(&["down", "-t", "0"]).ok();
    project.up();
    host.orch(&["agent", "stop"]).ok();
    refused(&project, &["agent", "`orch up` starts it"]);
    for command in COMMANDS {
        let words = ["env", "DOCKER_HOST=unix:///run/none.sock", ORCH];
        let done = host.exec(&[&words, project.args(&[command]).as_slice()].concat());
        done.refused(1, &["no container engine answers at /run/none.sock"]);
    }
    project.up();
    project.down();
    // An agent that is there says the same as where none is.
    compose.run(&["up", "-d"]).ok();
    refused(&project, &of_compose);
    compose.run(&["down", "-t", "0"]).ok();
}
