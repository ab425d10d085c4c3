//! Commands that look at or into a project, compared with Docker Compose on one host, and over three hosts.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::{Done, Host};
use crate::project::Project;
use crate::wait::{secs, stays};

const YAML: &str = "\
services:
  web:
    <<: *client
    deploy: {replicas: 2}
    volumes: ['data:/data', 'other:/other']
    ports: ['8080:80', '127.0.0.1:8081:81/udp', {target: 90, mode: host}]
  db: {<<: *client, volumes: ['data:/data']}
  job: {image: busybox, command: ['false'], profiles: [job]}
volumes: {data: {}, other: {}}
";

/// Docker Compose on the same engine, for the same project.
pub(crate) struct Reference<'a> {
    host: &'a Host,
    program: String,
    project: &'a str,
}

impl<'a> Reference<'a> {
    pub(crate) fn on(host: &'a Host, project: &'a str) -> Self {
        let program = std::env::var("ORCH_COMPOSE_REFERENCE").expect(
            "ORCH_COMPOSE_REFERENCE names a Docker Compose 2.40: `scripts/setup test` unpacks one, `scripts/test` sets it",
        );
        Self { host, program: host.give("docker-compose", program.as_ref()), project }
    }

    /// Returns where its program is on the host.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let file = format!("/root/{}/compose.yaml", self.project);
        self.host.exec(&[&[self.program.as_str(), "-p", self.project, "-f", &file], args].concat())
    }
}

/// Words of a table, row by row: how wide columns are depends on what is in them.
fn words(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn port_images_volumes_and_top_say_what_docker_compose_says() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "look", YAML);
    project.up();
    let reference = Reference::on(&host, "look");

    // Published by the balancer, which Docker Compose does not know.
    for (args, address) in [
        (&["port", "web", "80"][..], "0.0.0.0:8080"),
        (&["port", "--protocol", "udp", "web", "81"], "127.0.0.1:8081"),
        (&["port", "--index", "2", "web", "80"], "0.0.0.0:8080"),
    ] {
        assert_eq!(project.orch(args).ok(), address, "{args:?}");
    }
    // Published by the engine, for each replica another port.
    for index in ["1", "2"] {
        let args = ["port", "--index", index, "web", "90"];
        assert_eq!(project.orch(&args).ok(), reference.run(&args).ok());
    }
    for args in [
        &["port", "web", "91"][..],
        &["port", "db", "80"],
        &["port", "--index", "3", "web", "80"],
        &["port", "nobody", "80"],
        &["port", "web", "x"],
        &["port", "web"],
    ] {
        assert_eq!((project.orch(args).code, reference.run(args).code), (1, 1), "{args:?}");
    }
    project.orch(&["port", "web", "91"]).refused(1, &["no port 91/tcp for container look-web-1: 8080/tcp"]);

    let both = |args: &[&str]| (project.orch(args).ok(), reference.run(args).ok());
    let (ours, theirs) = both(&["images"]);
    // The age is that of the image; theirs is that of nothing, 292 years. A container that was made from an id has no
    // name in theirs.
    let rows = |text: &str| {
        let rows = words(text).into_iter().skip(1);
        rows.map(|row| [0, 3, 4, 5].map(|column| row[column].clone())).collect::<Vec<_>>()
    };
    assert_eq!(rows(&ours), rows(&theirs));
    let titles = |text: &str| words(text).into_iter().next().unwrap_or_default();
    assert_eq!(titles(&ours), titles(&theirs));
    assert!(words(&ours)[1..].iter().all(|row| row[1..3] == ["busybox", "latest"]), "{ours}");
    let (ours, theirs) = both(&["images", "-q"]);
    assert_eq!(ours, theirs);
    let (ours, theirs) = both(&["images", "--format", "json", "db"]);
    let json = |text: &str| serde_json::from_str::<Vec<Value>>(text).expect("a list of images");
    let (ours, theirs) = (json(&ours), json(&theirs));
    assert_eq!((ours.len(), theirs.len()), (1, 1));
    let theirs = theirs[0].as_object().expect("an object");
    for (key, value) in theirs.iter().filter(|(key, _)| !["Repository", "Tag"].contains(&key.as_str())) {
        assert_eq!(&ours[0][key], value, "{key}");
    }

    for args in [&["volumes"][..], &["volumes", "-q"], &["volumes", "web"], &["volumes", "db"]] {
        let (ours, theirs) = both(args);
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&ours), sorted(&theirs), "{args:?}");
    }
    let (ours, theirs) = both(&["volumes", "--format", "json", "db"]);
    let (mut ours, mut theirs): (Value, Value) =
        (serde_json::from_str(&ours).expect("an object"), serde_json::from_str(&theirs).expect("an object"));
    // In whatever order the engine has them.
    for volume in [&mut ours, &mut theirs] {
        let mut labels: Vec<&str> = volume["Labels"].as_str().expect("text").split(',').collect();
        labels.sort_unstable();
        volume["Labels"] = labels.join(",").into();
    }
    assert_eq!(ours, theirs);
    project.orch(&["volumes", "nobody"]).refused(1, &["no such service: nobody"]);
    assert_eq!(reference.run(&["volumes", "nobody"]).code, 1);

    for args in [&["top"][..], &["top", "db"]] {
        let (ours, theirs) = both(args);
        assert_eq!(ours, theirs, "{args:?}");
    }
    assert_eq!(project.orch(&["top", "job"]).ok(), "", "what does not run");
    project.down();
}

#[test]
fn the_same_is_said_of_three_hosts_with_the_host_of_each() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let yaml = "\
services:
  web: {<<: *client, deploy: {replicas: 3}, ports: ['8080:80', {target: 90, mode: host}]}
  db: {<<: *client, volumes: ['data:/data']}
volumes: {data: {}}
";
    let project = Project::new(desk, "spread", yaml);
    project.up();
    assert_eq!(project.orch(&["port", "web", "80"]).ok(), "0.0.0.0:8080");
    let of = |node: usize, number: &str| {
        let name = format!("spread-web-{number}");
        let done = cluster[node].exec(&["docker", "port", &name, "90"]);
        (done.code == 0).then(|| done.stdout.lines().next().unwrap_or_default().to_owned())
    };
    for number in ["1", "2", "3"] {
        let there = (1..=3).find_map(|node| of(node, number)).expect("it runs somewhere");
        assert_eq!(project.orch(&["port", "--index", number, "web", "90"]).ok(), there);
    }
    let hosts = |text: &str, column: usize| {
        let mut hosts: Vec<String> = words(text).into_iter().skip(1).map(|row| row[column].clone()).collect();
        hosts.sort();
        hosts
    };
    assert_eq!(hosts(&project.orch(&["images", "web"]).ok(), 1), ["a", "b", "c"]);
    assert_eq!(hosts(&project.orch(&["top", "web"]).ok(), 2), ["a", "b", "c"]);
    let volumes = project.orch(&["volumes"]).ok();
    let db = project.orch(&["ps", "--format", "json", "db"]).ok();
    let db: Value = serde_json::from_str(&db).expect("one object");
    assert_eq!(words(&volumes)[1], ["local", "spread_data", db["Host"].as_str().expect("a host")], "{volumes}");

    // What one host cannot answer is said, and the rest is shown.
    cluster.cut("desk", "node2");
    let done = project.orch(&["top", "web"]);
    assert!(done.stderr.contains("host `b`"), "{}", done.stderr);
    assert_eq!(hosts(&done.ok(), 2), ["a", "c"]);
    cluster.heal();
    project.down();
}

#[test]
fn files_are_copied_as_by_docker_compose() {
    let host = Host::boot(&["busybox"]);
    let yaml = "services: {web: {<<: *client, deploy: {replicas: 2}}, job: {image: busybox, command: ['true']}}\n";
    let project = Project::new(&host, "copy", yaml);
    project.up();
    let reference = Reference::on(&host, "copy");
    host.sh("mkdir -p src/d/deep out && echo one > src/d/f && echo two > src/g && ln -s g src/l && chmod 751 src/d/f");
    // Each is done by orch, looked at, undone; then by the reference.
    let reset = "rm -rf out && mkdir out && for n in 1 2; do docker exec copy-web-$n sh -c 'rm -rf /x /tmp/* /y; mkdir -p /x/dir; echo old > /x/file'; done";
    let look = "cd out && find . -exec ls -ld {} + | awk '{print $1, $NF}' | sort; cd ..; \
                for n in 1 2; do docker exec copy-web-$n sh -c 'find /x /tmp /y 2>/dev/null | xargs ls -ld' | awk '{print $1, $NF}' | sort; done; \
                docker exec copy-web-1 sh -c 'cat /x/file /tmp/g 2>/dev/null' || true";
    for args in [
        &["src/g", "web:/tmp/"][..],
        &["src/g", "web:/x/file"],
        &["src/g", "web:/x/new"],
        &["src/g", "web:x/relative"],
        &["src/d", "web:/x"],
        &["src/d", "web:/y"],
        &["src/d/.", "web:/x/dir"],
        &["src/d/.", "web:/y"],
        &["--index", "2", "src/d", "web:/x/dir"],
        &["src/l", "web:/x"],
        &["-L", "src/l", "web:/x"],
        &["-a", "src/g", "web:/x"],
        &["web:/x", "out"],
        &["web:/x/.", "out"],
        &["web:/x", "out/new"],
        &["web:/x/file", "out/file"],
        &["web:/x/file", "out"],
        &["--index", "2", "web:/x/file", "out/f"],
        &["job:/bin/busybox", "out/bb"],
        &["--all", "web:/x/file", "out/f"],
        // Refused.
        &["src/d", "web:/x/file"],
        &["src/g", "web:/nowhere/"],
        &["src/d", "web:/nowhere/x"],
        &["src/nothing", "web:/x"],
        &["web:/nothing", "out"],
        &["web:/x", "nowhere/x"],
        &["web:/x", "src/g"],
        &["web:/x", "job:/x"],
        &["src", "out"],
        &["nobody:/x", "out"],
        &["--index", "3", "web:/x", "out"],
    ] {
        let seen = |run: &dyn Fn(&[&str]) -> Done| {
            host.sh(reset);
            let done = run(&[&["cp"], args].concat());
            (done.code, host.sh(look))
        };
        let ours = seen(&|args| project.orch(args));
        let theirs = seen(&|args| reference.run(args));
        assert_eq!(ours, theirs, "{args:?}");
    }
    let file = "/root/copy/compose.yaml";
    host.sh(reset);
    // Archives of standard input go into all replicas, and out comes what was in one.
    host.sh(&format!("tar c -C src . | /opt/orch/orch -f {file} cp - web:/x/dir"));
    for number in ["1", "2"] {
        assert_eq!(
            project.within(&project.container("web", number.parse().expect("a number")), "cat /x/dir/d/f").ok(),
            "one"
        );
    }
    assert_eq!(host.sh(&format!("/opt/orch/orch -f {file} cp web:/x/dir - | tar xO dir/g")), "two");
    project.orch(&["cp", "-", "web:/x/file"]).refused(1, &["must be a directory"]);
    // Much more than may be in memory.
    host.sh("truncate -s 300M src/large");
    let peak = "/usr/bin/env sh -c 'ulimit -v 600000; exec /opt/orch/orch -f /root/copy/compose.yaml cp --index 1 src/large web:/x/large'";
    host.sh(peak);
    assert_eq!(project.within("copy-web-1", "stat -c %s /x/large").ok(), "314572800");
    host.sh("/opt/orch/orch -f /root/copy/compose.yaml cp --index 1 web:/x/large out/large && cmp src/large out/large");
    project.down();
}

#[test]
fn stats_wait_and_attach_are_docker_composes() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *client, deploy: {replicas: 2}}
  job: {image: busybox, command: [sh, -c, 'while [ ! -e /go ]; do sleep 0.1; done; exit 6'], restart: 'no'}
  trap: {image: busybox, command: [sh, -c, \"trap 'exit 9' USR1; while :; do echo ready >&2; sleep 0.1; done\"], stop_signal: SIGKILL, restart: 'no'}
  echo: {image: busybox, command: [sh, -c, 'while read line; do echo \"said $$line\"; [ \"$$line\" != b ] || exit 3; done'], stdin_open: true, restart: 'no'}
";
    let project = Project::new(&host, "live", yaml);
    project.orch(&["up", "-d"]).ok();
    let reference = Reference::on(&host, "live");
    let rows = |text: &str| {
        let mut rows: Vec<Vec<String>> = words(text).into_iter().map(|row| row[..2.min(row.len())].to_vec()).collect();
        rows[1..].sort();
        rows
    };
    for args in
        [&["stats", "--no-stream"][..], &["stats", "--no-stream", "web"], &["stats", "--no-stream", "-a", "--no-trunc"]]
    {
        assert_eq!(rows(&project.orch(args).ok()), rows(&reference.run(args).ok()), "{args:?}");
    }
    let json = |text: &str| {
        let mut all: Vec<Vec<String>> = Vec::new();
        for line in text.lines() {
            let one: Value = serde_json::from_str(line).expect("an object");
            all.push(one.as_object().expect("an object").keys().cloned().collect());
        }
        all
    };
    let args = ["stats", "--no-stream", "--format", "json", "web"];
    assert_eq!(json(&project.orch(&args).ok()), json(&reference.run(&args).ok()));
    let live = host.start_orch(&project.args(&["stats", "--format", "json", "web"]));
    host.sh("sleep 3");
    let done = live.signal("INT");
    assert!(done.code == 130 && done.stdout.lines().count() > 4, "{done:?}");

    // Waiting ends with the containers, and with the code of the last.
    for (program, code) in [("orch", 6), ("compose", 6)] {
        let args = ["wait", "job"];
        let wait = if program == "orch" {
            host.start_orch(&project.args(&args))
        } else {
            host.start(&[
                "sh",
                "-c",
                &format!("exec {} -p live -f /root/live/compose.yaml wait job", "/opt/orch/docker-compose"),
            ])
        };
        host.sh("sleep 1; docker exec live-job-1 touch /go");
        let done = wait.finish();
        assert_eq!(done.code, code, "{program}: {done:?}");
        assert!(done.stdout.contains("exited with status code 6"), "{program}: {done:?}");
        project.orch(&["wait", "job"]).refused(1, &["no containers for project \"live\""]);
        assert_eq!(reference.run(&["wait", "job"]).code, 1);
        host.sh("docker rm -f live-job-1");
        project.orch(&["up", "-d", "job"]).ok();
    }
    let attached = host.sh("(echo a; echo b) | /opt/orch/orch -f /root/live/compose.yaml attach echo || echo code $?");
    assert_eq!(attached, "said a\nsaid b\ncode 3");
    project.orch(&["attach", "job", "--detach-keys", "nonsense"]).refused(1, &["nonsense"]);
    project.orch(&["attach", "--index", "3", "web"]).refused(1, &["web"]);
    // Signals go to the container.
    let mut watching = host.start_orch(&project.args(&["attach", "--no-stdin", "trap"]));
    assert!(watching.says("ready"));
    assert_eq!(watching.signal("USR1").code, 9);
    project.down();
}

#[test]
fn a_container_is_written_out_and_becomes_an_image_as_with_docker_compose() {
    let host = Host::boot(&["busybox"]);
    let services = "services:\n  web: {<<: *client, deploy: {replicas: 2}}\n  off: {<<: *client, profiles: [off]}\n";
    let project = Project::new(&host, "saved", services);
    project.up();
    let lives = project.lives();
    let reference = Reference::on(&host, "saved");
    host.docker(&["exec", "saved-web-2", "touch", "/second"]);
    let run = |program: &str, args: &[&str]| if program == "ours" { project.orch(args) } else { reference.run(args) };
    let made = ["ours", "theirs"].map(|program| {
        let (archive, image) = (format!("/root/{program}.tar"), format!("saved/{program}:1"));
        run(program, &["export", "--index", "2", "-o", &archive, "web"]).ok();
        let names = host.sh(&format!("tar tf {archive} | sort"));
        assert!(names.lines().any(|name| name == "second"), "{names}");
        let commit = ["commit", "--index", "2", "-a", "who", "-m", "why", "-c", "ENV A=b", "-c", "CMD [\"ls\"]", "web"];
        run(program, &[&commit[..], &[&image]].concat()).ok();
        let about = "{{.Author}} {{.Comment}} {{.Config.Env}} {{.Config.Cmd}} {{.Config.StopSignal}}";
        let about = host.docker(&["image", "inspect", "-f", about, &image]);
        for wrong in [
            &["export", "off"][..],
            &["export", "nobody"],
            &["export", "--index", "3", "web"],
            &["export", "-o", "/root", "web"],
            &["export", "-o", "/root/nowhere/x", "web"],
            &["commit", "off", "x:1"],
            &["commit", "web", "UP PER"],
            &["commit", "-c", "NONSENSE", "web"],
        ] {
            let done = run(program, wrong);
            assert_eq!(done.code, 1, "{program} {wrong:?}: {done:?}");
        }
        (host.sh(&format!("stat -c %a {archive}")), names, about)
    });
    assert_eq!(made[0], made[1]);
    // What is run of it is nobody's: with the project's label the agent would take it away, as it does with Docker Compose's.
    host.docker(&["run", "-d", "--name", "other", "saved/ours:1", "sleep", "1000"]);
    stays(secs(3), "what is run of the image", || host.docker(&["inspect", "-f", "{{.State.Status}}", "other"]));
    assert_eq!(host.docker(&["exec", "other", "ls", "/second"]), "/second");
    host.docker(&["rm", "-f", "other"]);
    let piped = host.sh("/opt/orch/orch -f /root/saved/compose.yaml export web | tar t");
    assert!(piped.contains("bin/busybox") && !piped.contains("second"), "the first one's: {piped}");
    assert_eq!(host.sh("find /root -name '*.part'"), "");
    assert_eq!(project.lives(), lives);
}
