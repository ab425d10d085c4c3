//! Ports on the host, and ports of virtual addresses.

use crate::ambassadors::certificates;
use crate::host::Host;
use crate::project::{Project, host_name};
use crate::wait::{eventually, secs, timed};

/// Returns whether something answers HTTP at this address of the host, asked from inside it.
fn answers(host: &Host, address: &str) -> bool {
    host.exec(&["curl", "-fsS", "-m", "2", "-o", "/dev/null", &format!("http://{address}/")]).code == 0
}

#[track_caller]
fn listening(host: &Host, address: &str) {
    eventually(secs(15), address, || if answers(host, address) { Ok(()) } else { Err("no answer") });
}

/// Returns the published ports of a service, as the API names them.
#[track_caller]
fn published(project: &Project, target: u16) -> Vec<u16> {
    let rows = project.orch(&["ps", "--format", "json"]).ok();
    let objects = rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).expect("an object a line"));
    let mut ports: Vec<u16> = objects
        .flat_map(|row| row["Publishers"].as_array().cloned().unwrap_or_default())
        .filter(|port| port["TargetPort"] == target)
        .filter_map(|port| u16::try_from(port["PublishedPort"].as_u64()?).ok())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[test]
fn published_ports_honour_addresses_ranges_and_mode_host() {
    let host = Host::boot(&[]);
    let yaml = "\
services:
  web: {<<: *web, deploy: {replicas: 2}, ports: ['8080:80', '127.0.0.1:8081:80', '8090-8092:80', '80']}
  direct: {<<: *web, ports: [{target: 80, published: '8085', mode: host}]}
";
    let project = Project::new(&host, "ports", yaml);
    project.up();
    let address = host.address().to_string();
    listening(&host, "127.0.0.1:8080");
    listening(&host, &format!("{address}:8080"));
    listening(&host, "127.0.0.1:8081");
    assert!(!answers(&host, &format!("{address}:8081")), "127.0.0.1 is not every address");
    listening(&host, &format!("{address}:8085"));

    let chosen = published(&project, 80);
    let in_range: Vec<u16> = chosen.iter().copied().filter(|port| (8090..=8092).contains(port)).collect();
    assert_eq!(in_range.len(), 1, "one port of the range, in {chosen:?}");
    let ephemeral: Vec<u16> = chosen.iter().copied().filter(|port| *port >= 32768).collect();
    assert_eq!(ephemeral.len(), 1, "one port of the engine's range, in {chosen:?}");
    for port in in_range.iter().chain(&ephemeral) {
        listening(&host, &format!("127.0.0.1:{port}"));
    }

    let engine =
        project.inspect("ports-direct-1", "{{(index (index .HostConfig.PortBindings \"80/tcp\") 0).HostPort}}");
    assert_eq!(engine, "8085", "mode: host is the engine's own");
    project.up();
    assert_eq!(published(&project, 80), chosen, "what was chosen once stays");

    project.down();
    for port in [8080, 8081, 8085].iter().chain(&chosen) {
        assert!(!answers(&host, &format!("127.0.0.1:{port}")), "{port} still answers after `down`");
    }
}

#[test]
fn a_port_used_on_the_host_does_not_disturb_the_same_port_of_a_service() {
    let host = Host::boot(&["busybox"]);
    let address = host.address().to_string();
    // A server of the host itself, on every address, at the port of the service.
    host.sh("mkdir -p /root/own && echo 'Hostname: host' >/root/own/index.html");
    host.sh("cd /root/own && nohup python3 -m http.server 80 >/dev/null 2>&1 &");
    listening(&host, &format!("{address}:80"));
    let yaml = "\
services:
  web: *web
  client: *client
";
    let project = Project::new(&host, "same", yaml);
    project.up();
    assert_eq!(project.answering("same-client-1", "http://web/", 5), project.running("web"));
    assert_eq!(host_name(&project.fetch("same-client-1", &format!("http://{address}/"))), "host");
}

#[test]
fn every_port_of_a_service_is_reached_without_being_declared() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  server: {image: busybox, stop_signal: SIGKILL, command: [sh, -c, 'mkdir /www; echo yes >/www/index.html; for p in 80 5432 9999; do httpd -p $$p -h /www; done; exec sleep 1000000'], networks: [in, out]}
  client: {<<: *client, networks: [in]}
  other: {<<: *client, networks: [out]}
networks: {in: {internal: true}, out: {}}
";
    let project = Project::new(&host, "any", yaml);
    project.up();
    for client in ["any-client-1", "any-other-1"] {
        for port in [80, 5432, 9999] {
            assert_eq!(project.fetch(client, &format!("http://server:{port}/")).trim(), "yes", "{client} {port}");
        }
    }
    // The connection is taken, for nobody knows yet what is behind it, and reset as soon as no endpoint takes it.
    for (client, from) in [("any-client-1", "an internal network"), ("any-other-1", "a normal one")] {
        let (done, took) = timed(|| project.within(client, "wget -q -O - http://server:4444/"));
        assert_eq!((done.code, done.stdout.as_str()), (1, ""), "from {from}: {done:?}");
        let said = ["Connection reset by peer", "Connection refused"].iter().any(|word| done.stderr.contains(word));
        assert!(said, "from {from}: {}", done.stderr);
        // Up to three seconds are left to a service that has just been started.
        assert!(took < secs(5), "a port that nobody listens on is told soon, from {from}: {took:?}");
    }
}

#[test]
fn a_service_reaches_itself_and_its_address_answers_ping() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {image: busybox, stop_signal: SIGKILL, command: [sh, -c, 'mkdir /www; echo me >/www/index.html; exec httpd -f -p 80 -h /www']}
";
    let project = Project::new(&host, "self", yaml);
    project.up();
    assert_eq!(project.fetch("self-web-1", "http://web/").trim(), "me");
    project.within("self-web-1", "ping -c 1 -W 2 web").ok();
}

#[test]
fn routes_of_two_projects_are_refused_with_both_places_and_change_nothing() {
    let host = Host::boot(&[]);
    let yaml = "services:\n  web: {<<: *web, x-route: {host: a.test, listen: 8081, port: 80}}\n";
    let one = Project::new(&host, "one", yaml);
    one.up();
    let two = Project::new(&host, "two", yaml);
    let before = one.lives();
    for command in [&["plan"][..], &["up", "-d", "--dry-run"], &["up", "-d"]] {
        let refused = two.orch(command);
        assert_eq!(refused.code, 1, "{command:?}: {refused:?}");
        let said = &refused.stderr;
        assert!(
            said.contains("a route of service `web` (") && said.contains("service `web` of project `one` ("),
            "{said}"
        );
        assert!(said.contains("match the same requests: `a.test/*` at port 8081"), "{said}");
    }
    assert_eq!((one.lives(), two.running("").len()), (before, 0));
    // With ports of its own it may; published where the other listens it may not.
    two.rewrite("services:\n  web: {<<: *web, ports: ['8081:80']}\n");
    let refused = two.orch(&["up", "-d"]);
    assert!(refused.stderr.contains("a route of service `web` of project `one` ("), "{refused:?}");
    two.rewrite("services:\n  web: {<<: *web, x-route: {host: b.test, listen: 8081, port: 80}}\n");
    two.up();
    // What a process of the host has is nobody's.
    host.sh("nohup python3 -m http.server 8082 >/dev/null 2>&1 &");
    listening(&host, "127.0.0.1:8082");
    one.rewrite("services:\n  web: {<<: *web, x-route: {host: a.test, listen: 8082, port: 80}}\n");
    let refused = one.orch(&["up", "-d"]);
    assert!(
        refused.stderr.contains("cannot listen at port 8082/tcp on all addresses: it is in use on the host"),
        "{refused:?}"
    );
}

/// TLS of routes from end to end: the certificate by the name that is asked for, plain HTTP that is sent to TLS, names without a
/// certificate, and one that is replaced.
#[test]
fn routes_with_tls_show_the_certificate_of_the_name_that_is_asked_for() {
    let host = Host::boot(&[]);
    certificates(&host, "/root/tls", &["a.example.com", "b.example.com", "new"]);
    let yaml = |second: &str| {
        format!(
            "\
services:
  one: {{image: orch/demo, command: [web, --name, first], expose: [80], x-route: [{{host: a.example.com, tls: a}}]}}
  two: {{image: orch/demo, command: [web, --name, second], expose: [80], x-route: [{{host: b.example.com, tls: b}}]}}
secrets:
  a: {{file: ./a.example.com.pem}}
  b: {{file: ./{second}}}
"
        )
    };
    let project = Project::new(&host, "tls", &yaml("b.example.com.pem"));
    project.up();
    let address = host.address();
    let curl = |args: &[&str], url: &str| {
        let name = url.split('/').nth(2).expect("a name");
        let here = [80, 443].map(|port| format!("{name}:{port}:{address}"));
        let own =
            ["curl", "-sS", "-m", "5", "--cacert", "/root/tls/ca.pem", "--resolve", &here[0], "--resolve", &here[1]];
        host.exec(&[&own, args, &[url]].concat())
    };
    for (name, who) in [("a.example.com", "first"), ("b.example.com", "second")] {
        let done = curl(&["-i"], &format!("https://{name}/"));
        assert!(done.stdout.starts_with("HTTP/2 200") && done.stdout.contains(who), "{name}: {done:?}");
        let done = curl(&["-i", "--http1.1"], &format!("https://{name}/"));
        assert!(done.stdout.starts_with("HTTP/1.1 200") && done.stdout.contains(who), "{name}: {done:?}");
        let sent = curl(&["-i"], &format!("http://{name}/x?y=z")).ok();
        assert!(sent.starts_with("HTTP/1.1 308") && sent.contains(&format!("https://{name}/x?y=z")), "{sent}");
        assert!(curl(&["-L"], &format!("http://{name}/")).ok().contains(who));
    }
    // 35: the handshake failed, before any request.
    let done = curl(&[], "https://c.example.com/");
    assert_eq!(done.code, 35, "{done:?}");
    let told = host.orch(&["why", "https://c.example.com/"]).ok();
    assert!(told.contains("no certificate for `c.example.com` at port 443"), "{told}");
    assert!(told.contains("there are certificates for a.example.com, b.example.com"), "{told}");
    let told = host.orch(&["why", "http://a.example.com:443/"]).ok();
    assert!(told.contains("TLS is spoken at port 443"), "{told}");
    // A request in a connection for one name that asks for another's is that other's rule, as its host says.
    let crossed = curl(&["-H", "Host: b.example.com"], "https://a.example.com/");
    assert!(!crossed.stdout.contains("first"), "{crossed:?}");

    // Another certificate in its place holds for new connections.
    let serial = |name: &str| {
        let script = format!(
            "openssl s_client -connect {address}:443 -servername {name} </dev/null 2>/dev/null | openssl x509 -noout -subject"
        );
        host.sh(&script).trim().replace(' ', "")
    };
    assert_eq!(serial("b.example.com"), "subject=CN=b.example.com");
    project.rewrite(&yaml("new.pem"));
    project.up();
    assert_eq!(
        (serial("b.example.com"), serial("a.example.com")),
        ("subject=CN=new".to_owned(), "subject=CN=a.example.com".to_owned())
    );
    project.down();
}

/// `localhost` names mean this machine: a port alone is listened on at the loopback address, for other names at all of them.
#[test]
fn routes_for_localhost_are_reached_from_the_host_itself_only() {
    let host = Host::boot(&[]);
    let yaml = "\
services:
  here: {<<: *web, expose: [80], x-route: [{host: app.localhost, listen: 8080}]}
  all: {<<: *web, expose: [80], x-route: [{host: app.example.com, listen: 8081}]}
";
    let project = Project::new(&host, "loopback", yaml);
    project.up();
    let status = |address: &str, port: u16, name: &str| {
        let url = format!("http://{address}:{port}/");
        let header = format!("Host: {name}");
        let done = host.exec(&["curl", "-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", "-H", &header, &url]);
        done.stdout
    };
    let outside = host.address().to_string();
    assert_eq!(status("127.0.0.1", 8080, "app.localhost"), "200");
    assert_eq!(status(&outside, 8080, "app.localhost"), "000", "nobody listens at other addresses");
    for address in ["127.0.0.1", &outside] {
        assert_eq!(status(address, 8081, "app.example.com"), "200", "{address}");
    }
    let told = project.orch(&["why", "8080"]).ok();
    assert!(told.contains("at 127.0.0.1 only"), "{told}");
    project.down();
}
