//! Bad input and a bad world: each a clear message with its place and what to do, exit code 1, and nothing changed.

use std::collections::BTreeSet;

use crate::host::Host;
use crate::looking::Reference;
use crate::project::Project;
use crate::wait::{secs, timed};

/// What an `up` could have changed on a host that runs nothing yet.
fn made(host: &Host) -> String {
    host.sh("docker ps -aq; docker network ls -q --filter label=com.docker.compose.project; docker volume ls -q; iptables-save -t nat | grep -ic orch || true")
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_place() {
    let host = Host::boot(&[]);
    let before = made(&host);
    for (what, services, words) in [
        ("YAML that cannot be read", "  web: [", &["compose.yaml:3:1"][..]),
        ("an unknown key", "  web:\n    image: x\n    imagge: x", &["compose.yaml:4:5", "imagge", "image"]),
        ("a bad value", "  web: {image: x, ports: ['80:http']}", &["compose.yaml:2:3", "http"]),
        ("a wrong type", "  web: {image: [a]}", &["compose.yaml:2:16"]),
        ("an undefined network", "  web: {image: x, networks: [nowhere]}", &["compose.yaml:2:30", "nowhere"]),
        ("an undefined volume", "  web: {image: x, volumes: ['data:/d']}", &["compose.yaml:2:29", "data"]),
        (
            "an undefined service",
            "  database: {image: x}\n  web: {image: x, depends_on: [databaze]}",
            &["compose.yaml:3:32", "databaze", "`database`"],
        ),
        ("a cycle", "  a: {image: x, depends_on: [b]}\n  b: {image: x, links: [a]}", &["a -> b -> a"]),
        ("no image", "  web: {command: [x]}", &["compose.yaml:2", "image"]),
        (
            "an element not applied yet",
            "  web: {image: x, deploy: {update_config: {order: start-first}}}",
            &["compose.yaml:2:51", "start-first"],
        ),
    ] {
        let project = Project::new(&host, "bad", "");
        project.rewrite_all(&format!("services:\n{services}\n"));
        for verb in [&["up", "-d"][..], &["config"], &["plan"]] {
            let done = project.orch(verb);
            // What is not applied is printed all the same.
            if what.ends_with("not applied yet") && verb == ["config"] {
                done.ok();
                continue;
            }
            assert_eq!(done.code, 1, "{what}, {verb:?}: {done:?}");
            for word in words {
                assert!(done.stderr.contains(word), "{what}, {verb:?}: no `{word}` in: {}", done.stderr);
            }
        }
    }
    let missing = host.orch(&["-f", "/root/none.yaml", "up", "-d"]);
    missing.refused(1, &["none.yaml", "could not be read"]);
    assert_eq!(made(&host), before);
}

#[test]
fn what_the_engine_would_refuse_is_said_with_its_place_before_anything_is_made() {
    let host = Host::boot(&[]);
    let before = made(&host);
    for (what, service, words) in [
        ("SCTP for the load balancer", "ports: ['90:90/sctp']", &["compose.yaml:3:32", "SCTP", "`mode: host`"][..]),
        ("too many replicas", "deploy: {replicas: 4000000000}", &["compose.yaml:3:33", "5000"]),
        ("a resolver that is none", "dns: ['notanip']", &["compose.yaml:3:30", "notanip"]),
        ("a capability that is none", "cap_add: [NET_ADMINN]", &["compose.yaml:3:34", "`NET_ADMIN`"]),
        ("CPUs that are not there", "cpus: 4000", &["compose.yaml:3:24", "4000.00"]),
        ("CPUs in the other place", "deploy: {resources: {limits: {cpus: 4000}}}", &["compose.yaml:3:54", "4000.00"]),
        ("a profile that is not there", "security_opt: ['seccomp=none.json']", &["compose.yaml:3:39", "none.json"]),
        ("a signal that is none", "stop_signal: NOPE", &["compose.yaml:3:24", "`NOPE`"]),
        ("a variable without a name", "environment: ['=x']", &["compose.yaml:3:39", "`=x`"]),
        ("a relative directory", "working_dir: sub", &["compose.yaml:3:24", "`sub`"]),
        ("memory for nothing", "mem_limit: 1k", &["compose.yaml:3:24", "1024 bytes", "6m"]),
        (
            "a promise of more than the limit",
            "mem_limit: 8m, mem_reservation: 9m",
            &["compose.yaml:3:39", "more memory"],
        ),
        ("a setting of the whole host", "sysctls: {vm.swappiness: 1}", &["compose.yaml:3:34", "`vm.swappiness`"]),
        ("a limit that is none", "ulimits: {files: 5}", &["compose.yaml:3:34", "`files`"]),
    ] {
        let project = Project::new(&host, "bad", "");
        project.rewrite_all(&format!("services:\n  web:\n    {{image: orch/demo, {service}}}\n"));
        for verb in [&["up", "-d"][..], &["plan"]] {
            let (done, took) = timed(|| project.orch(verb));
            assert_eq!(done.code, 1, "{what}, {verb:?}: {done:?}");
            for word in words {
                assert!(done.stderr.contains(word), "{what}, {verb:?}: no `{word}` in: {}", done.stderr);
            }
            assert!(took < secs(1), "{what}, {verb:?}: {took:?}");
        }
    }
    let project = Project::new(&host, "bad", "");
    project.rewrite_all("services:\n  web:\n    image: Foo Bar\n");
    for verb in [&["up", "-d"][..], &["plan"]] {
        project.orch(verb).refused(1, &["compose.yaml:3:5", "`Foo Bar`", "small letters"]);
    }
    assert_eq!(made(&host), before);
}

/// What is refused before is what an engine refuses, and what Docker Compose hands on to it.
#[test]
fn what_is_refused_before_is_refused_by_the_engine() {
    let host = Host::boot(&["busybox"]);
    let reference = Reference::on(&host, "bad");
    let project = Project::new(&host, "bad", "");
    for service in [
        "stop_signal: NOPE",
        "stop_signal: '0'",
        "environment: ['=x']",
        "working_dir: sub",
        "mem_limit: 1k",
        "mem_limit: 8m, mem_reservation: 9m",
        "sysctls: {vm.swappiness: 1}",
        "ulimits: {files: 5}",
        "cpus: 0.005",
    ] {
        project.rewrite_all(&format!("services:\n  web: {{image: busybox, command: [sleep, '9'], {service}}}\n"));
        project.orch(&["up", "-d"]).refused(1, &["compose.yaml:2:"]);
        let theirs = reference.run(&["up", "-d"]);
        assert_eq!(theirs.code, 1, "{service}: {theirs:?}");
        reference.run(&["down", "-t", "0"]).ok();
    }
    // And what is taken is run: the border is where the engine's is.
    for service in [
        "stop_signal: SIGRTMIN+3",
        "stop_signal: '99'",
        "mem_limit: 6m",
        "sysctls: {kernel.shmmax: 100000}",
        "cpus: 0.01",
    ] {
        project.rewrite_all(&format!("services:\n  web: {{image: busybox, command: [sleep, '9'], {service}}}\n"));
        project.orch(&["up", "-d"]).ok();
        project.down();
    }
}

#[test]
fn huge_and_hostile_files_are_refused_within_a_second() {
    let host = Host::boot(&[]);
    let mut bomb = "x-a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in ('b'..='z').zip('a'..) {
        let nine = vec![format!("*{before}"); 9].join(", ");
        bomb.extend(["x-", name.encode_utf8(&mut [0; 4]), ": &", name.encode_utf8(&mut [0; 4]), " [", &nine, "]\n"]);
    }
    bomb += "services: {web: {image: x, labels: *z}}\n";
    let deep = format!("services: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!("services:\n  web: {{image: x, command: '{}'}}\n", "y".repeat(64 << 20));
    for (what, yaml) in [("alias bomb", bomb), ("deep nesting", deep), ("huge file", huge)] {
        let project = Project::new(&host, "hostile", "");
        project.rewrite_all(&yaml);
        let (done, took) = timed(|| project.orch(&["config"]));
        assert_eq!(done.code, 1, "{what}: {}", done.stderr);
        assert!(took < secs(1) + secs(1), "{what}: took {took:?}"); // the second one: this test builds orch without optimisation
        assert!(done.stderr.len() < 10_000, "{what}: a message of {} bytes", done.stderr.len());
    }
}

#[test]
fn an_engine_that_is_down_or_forbidden_is_named() {
    let host = Host::boot(&[]);
    let project = Project::new(
        &host,
        "engine",
        "\
services:
  web: *web
",
    );
    let file = "/root/engine/compose.yaml";
    host.sh("chmod 755 /root /root/engine /opt/orch; chmod 644 /root/engine/compose.yaml");
    let nobody =
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/opt/orch/orch", "-f", file, "up", "-d"];
    host.exec(&nobody).refused(1, &["permission", "/var/run/docker.sock"]);
    let down = ["env", "DOCKER_HOST=unix:///run/none.sock", "/opt/orch/orch", "-f", file, "up", "-d"];
    host.exec(&down).refused(1, &["/run/none.sock"]);
    assert_eq!(host.docker(&["ps", "-aq"]), "");
    project.orch(&["config", "-q"]).ok();
}

/// An engine that says what it is, and nothing else.
const OTHER_ENGINE: &str = r#"
import http.server, json, socketserver
class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "ID": "SOME:OTHER", "NCPU": 2, "Containers": 0}
        body = json.dumps([] if self.path.endswith("/json") else answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return ""
socketserver.UnixStreamServer("/run/other.sock", Engine).serve_forever()
"#;

#[test]
fn a_command_for_another_engine_is_not_done_by_the_agent_of_this_one() {
    let host = Host::boot(&[]);
    let project = Project::new(&host, "own", "services:\n  web: *web\n");
    project.up();
    let lives = project.lives();
    host.write("/root/engine.py", OTHER_ENGINE);
    host.sh("nohup python3 /root/engine.py >/root/engine.log 2>&1 &");
    let within = secs(5);
    crate::wait::eventually(within, "the other engine", || {
        let done = host.exec(&["curl", "-fs", "--unix-socket", "/run/other.sock", "http://engine/info"]);
        if done.stdout.contains("SOME:OTHER") { Ok(()) } else { Err(done) }
    });
    let on = |engine: &str, args: &[&str]| {
        let engine = format!("DOCKER_HOST=unix://{engine}");
        host.exec(&[&["env", &engine, "/opt/orch/orch", "-f", "/root/own/compose.yaml"], args].concat())
    };
    for command in [
        &["down"][..],
        &["up", "-d"],
        &["up", "-d", "--dry-run"],
        &["plan"],
        &["ps"],
        &["ls"],
        &["agent", "status"],
        &["agent", "uninstall", "--force"],
    ] {
        on("/run/nope.sock", command).refused(1, &["no container engine answers at /run/nope.sock", "DOCKER_HOST"]);
        on("/run/other.sock", command).refused(1, &["/run/orch/agent.sock", "/run/other.sock", "unset DOCKER_HOST"]);
        assert_eq!(project.lives(), lives, "{command:?}");
    }
    // The same engine by another name is the same.
    host.sh("ln -s /var/run/docker.sock /run/same.sock");
    assert!(on("/run/same.sock", &["ps"]).ok().contains("own-web-1"));
    on("/run/same.sock", &["up", "-d", "--wait"]).ok();
    assert_eq!(project.lives(), lives);
    on("/run/same.sock", &["down"]).ok();
    assert_eq!(project.running("").len(), 0);
}

#[test]
fn a_port_in_use_is_named_and_the_rest_says_what_it_did() {
    let host = Host::boot(&[]);
    host.sh("nohup python3 -m http.server 8080 >/dev/null 2>&1 &");
    crate::wait::eventually(secs(15), "the port's owner", || {
        match host.exec(&["curl", "-fs", "-o", "/dev/null", "http://127.0.0.1:8080/"]).code {
            0 => Ok(()),
            code => Err(code),
        }
    });
    let project = Project::new(
        &host,
        "port",
        "\
services:
  web: {<<: *web, ports: ['8080:80']}
",
    );
    project.orch(&["up", "-d", "--wait"]).refused(1, &["8080", "web"]);
    project.down();

    let engine = "\
services:
  web: {image: orch/demo, command: [web], ports: [{target: 80, published: '8080', mode: host}]}
";
    let project = Project::new(&host, "port", engine);
    project.orch(&["up", "-d", "--wait"]).refused(1, &["8080"]);
    project.down();
    assert_eq!(host.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=port"]), "");
}

#[test]
fn an_image_that_is_missing_is_named_before_anything_is_made() {
    let host = Host::boot(&[]);
    let project = Project::new(
        &host,
        "image",
        "\
services:
  web: *web
  other: {image: 'nobody/has-this:1'}
",
    );
    project.orch(&["up", "-d"]).refused(1, &["nobody/has-this:1", "other"]);
    assert_eq!(host.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=image"]), "");
    assert_eq!(host.docker(&["network", "ls", "-q", "--filter", "label=com.docker.compose.project=image"]), "");
}

#[test]
fn a_subnet_that_clashes_is_named_with_what_it_clashes_with() {
    let host = Host::boot(&["busybox"]);
    host.docker(&["network", "create", "--subnet", "10.55.0.0/16", "mine"]);
    let yaml = |subnet: &str| {
        let ipam = format!("{{config: [{{subnet: {subnet}}}]}}");
        format!("services:\n  client: *client\nnetworks:\n  default: {{ipam: {ipam}}}\n")
    };
    let project = Project::new(&host, "subnet", &yaml("10.55.3.0/24"));
    project.orch(&["up", "-d"]).refused(1, &["10.55.3.0/24", "mine"]);
    let host_route = host.address().to_string().replace(".11", ".0/24");
    project.rewrite(&yaml(&host_route));
    project.orch(&["up", "-d"]).refused(1, &[&host_route]);
    assert_eq!(host.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=subnet"]), "");
    project.rewrite(&yaml("10.56.3.0/24"));
    project.up();
    let subnet = host.docker(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "subnet_default"]);
    assert_eq!(subnet, "10.56.3.0/24", "what the file asks for is honoured");
}

#[test]
fn a_full_disk_is_said_and_up_goes_on_when_there_is_room() {
    let host = Host::boot_with_disk("400m", &["busybox"]);
    let project = Project::new(
        &host,
        "full",
        "\
services:
  client: *client
",
    );
    project.up();
    project.down();
    host.sh("dd if=/dev/zero of=/var/lib/fill bs=64k 2>/dev/null || true");
    let done = project.orch(&["up", "-d", "--wait", "--wait-timeout", "20"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("no space left"), "{}", done.stderr);
    host.sh("rm /var/lib/fill");
    project.up();
    assert_eq!(project.running("client").len(), 1);
}

#[test]
fn an_agent_of_another_version_is_replaced_or_named() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(
        &host,
        "version",
        "\
services:
  web: *web
  client: *client
",
    );
    project.up();
    let lives = project.lives();
    let old = host.docker(&["inspect", "-f", "{{.Config.Image}}", "orch-agent"]);
    // Another build: the same program with a byte more has another content hash.
    host.sh("printf x >>/opt/orch/orch");
    project.up();
    let new = host.docker(&["inspect", "-f", "{{.Config.Image}}", "orch-agent"]);
    assert_ne!(new, old, "the agent is of the build that asked");
    // The web server runs orch's own image, which is another one now.
    let client = |lives: BTreeSet<String>| lives.into_iter().find(|life| life.contains("client"));
    assert_eq!(client(project.lives()), client(lives), "and no other container was touched");
    assert_eq!(project.answering("version-client-1", "http://web/", 3), project.running("web"));
}

#[test]
fn an_agent_of_another_build_answers_who_looks_and_takes_down() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "build", "services:\n  web: *web\n  client: *client\n");
    project.up();
    let agent = || host.docker(&["inspect", "-f", "{{.Id}} {{.Config.Image}}", "orch-agent"]);
    let old = agent();
    let lives = project.lives();
    host.sh("printf x >>/opt/orch/orch");
    let shown = project.orch(&["ps"]);
    assert!(shown.code == 0 && shown.stdout.contains("build-web-1"), "{shown:?}");
    project.orch(&["plan"]).ok();
    assert_eq!((agent(), project.lives()), (old, lives), "who only looks changes nothing");
    project.orch(&["down"]).ok();
    assert_eq!(host.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=build"]), "");
}

#[test]
fn what_cannot_be_there_is_said_and_leaves_nothing() {
    let host = Host::boot(&["busybox"]);
    let external = "services:\n  web: {<<: *web, volumes: ['vv:/d']}\nvolumes: {vv: {external: true}}\n";
    let project = Project::new(&host, "extv", external);
    let done = project.orch(&["up", "-d"]);
    assert!(!format!("{}{}", done.stdout, done.stderr).contains("Running"), "{done:?}");
    done.refused(1, &["external volume \"vv\" not found"]);
    assert!(!host.orch(&["ls", "-a"]).stdout.contains("extv"), "no record is left");
    host.orch(&["agent", "uninstall"]).ok();

    let nowhere = "\
services:
  web: {<<: *web, deploy: {placement: {constraints: ['node.labels.disk == ssd']}}}
  ok: {<<: *web, depends_on: [web]}
  other: *web
";
    let project = Project::new(&host, "nowhere", nowhere);
    for up in [&["up", "-d"][..], &["up", "-d", "--wait"]] {
        project.orch(up).refused(1, &["no host can take `web.1`", "node.labels.disk == ssd", "`ok.1` waits for `web`"]);
    }
    assert_eq!((project.running("other").len(), project.running("ok").len()), (1, 0));
    project.down();
}
