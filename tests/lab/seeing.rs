//! What an agent tells of the traffic: metrics for Prometheus, `orch lb`, and `orch why` for what is answered with an error.

use orch::testing::openmetrics::Scrape;

use crate::host::Host;
use crate::project::Project;
use crate::wait::{eventually, secs};

const YAML: &str = "\
services:
  web:
    <<: *web
    deploy: {replicas: 2}
    expose: [80]
    x-route: [{host: shop.example.com, path: /api, rewrite: /, listen: 8080}, {host: shop.example.com, path: /old, listen: 8080, redirect: /api}]
  client: *client
";

impl Host {
    #[track_caller]
    fn scrape(&self) -> Scrape {
        let text = self.orch(&["agent", "metrics"]).ok();
        Scrape::read(&format!("{text}\n")).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
    }

    /// Returns the status of an answer, asked from the host itself.
    fn status(&self, url: &str, host: &str) -> String {
        let script = format!("curl -s -o /dev/null -m 10 -w '%{{http_code}}' -H 'Host: {host}' {url} || true");
        self.sh(&script).trim().to_owned()
    }
}

#[test]
fn metrics_grow_with_traffic_and_are_told_over_tcp_only_where_that_is_asked_for() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "seen", YAML);
    project.up();
    let url = format!("http://{}:8080/api", host.address());
    let count = |scrape: &Scrape, name: &str, labels: &[(&str, &str)]| scrape.sum(name, labels).unwrap_or_default();
    let web = [("project", "seen"), ("service", "web"), ("code", "2xx")];
    let before = host.scrape();
    for _ in 0..20 {
        assert_eq!(host.status(&url, "shop.example.com"), "200");
    }
    let after = host.scrape();
    for (name, labels, grown) in [
        ("orch_service_requests_total", &web[..], 20.0),
        ("orch_route_requests_total", &web[..], 20.0),
        ("orch_endpoint_requests_total", &web[..], 20.0),
        ("orch_service_request_duration_seconds_count", &web[..2], 20.0),
    ] {
        let (then, now) = (count(&before, name, labels), count(&after, name, labels));
        assert!((now - then - grown).abs() < 0.5, "{name}: {then} to {now}");
    }
    assert!(project.fetch("seen-client-1", "http://web/").contains("Hostname:"));
    let after = host.scrape();
    for (name, labels) in [
        ("orch_connections_accepted_total", &[][..]),
        ("orch_dns_answers_total", &[("source", "table"), ("answer", "found")]),
    ] {
        assert!(count(&after, name, labels) > count(&before, name, labels), "{name}");
    }
    assert_eq!(after.sum("orch_service_endpoints", &[("project", "seen"), ("service", "web")]), Some(2.0));
    assert_eq!(after.sum("orch_pods", &[("project", "seen"), ("state", "ready")]), Some(3.0));
    assert_eq!(after.sum("orch_project_settled", &[("project", "seen")]), Some(1.0));
    assert!(after.sum("orch_steps_total", &[("project", "seen"), ("outcome", "done")]).is_some_and(|done| done >= 3.0));
    assert!(after.sum("orch_store_size_bytes", &[]).is_some_and(|bytes| bytes > 1000.0));

    // Nobody listens by himself; told to, the agent does so from then on.
    let address = "127.0.0.1:9464";
    let collected = || host.status(&format!("http://{address}/metrics"), "prometheus");
    assert_eq!(collected(), "000");
    host.orch(&["agent", "metrics", "--listen", address]).ok();
    assert_eq!(collected(), "200");
    assert!(host.orch(&["agent", "status"]).ok().contains("http://127.0.0.1:9464/metrics"));
    for (request, status) in [("/", "404"), ("/v1/info", "404"), ("/metrics/", "404"), ("-X POST /metrics", "405")] {
        let (flags, path) = request.rsplit_once(' ').unwrap_or(("", request));
        assert_eq!(host.status(&format!("{flags} http://{address}{path}"), "x"), status, "{request}");
    }
    let accept = "application/openmetrics-text; version=1.0.0";
    let text = host.sh(&format!("curl -s -H 'Accept: {accept}' http://{address}/metrics"));
    let told = Scrape::read(&format!("{text}\n")).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
    assert_eq!(told.families.keys().collect::<Vec<_>>(), after.families.keys().collect::<Vec<_>>());
    host.docker(&["rm", "-f", "orch-agent"]);
    project.orch(&["up", "-d"]).ok();
    eventually(secs(10), "metrics of the new agent", || match collected().as_str() {
        "200" => Ok(()),
        other => Err(other.to_owned()),
    });
    // A port that somebody else has changes nothing.
    host.orch(&["agent", "metrics", "--listen", "0.0.0.0:8080"]).refused(1, &["cannot listen on 0.0.0.0:8080"]);
    assert_eq!(collected(), "200");
    host.orch(&["agent", "metrics", "--no-listen"]).ok();
    eventually(secs(5), "the end of the listener", || match collected().as_str() {
        "000" => Ok(()),
        other => Err(other.to_owned()),
    });
    project.down();
}

#[test]
fn what_is_answered_with_an_error_is_explained() {
    let host = Host::boot(&["busybox"]);
    let yaml = YAML.replace(
        "  client",
        "  deaf: {<<: *web, command: [web, --port, '9000'], expose: [8000], x-route: {host: deaf.example.com, listen: 8080}}\n  client",
    );
    let project = Project::new(&host, "why", &yaml);
    project.up();
    let address = host.address();
    let at = |host_name: &str, path: &str| format!("http://{host_name}:8080{path}");
    let why = |about: &str| host.orch(&["-p", "why", "why", about]).ok();
    // As `curl --resolve` would, every name is this host's.
    for name in ["shop.example.com", "deaf.example.com", "none.example.com"] {
        host.sh(&format!("echo '{address} {name}' >> /etc/hosts"));
    }
    let told = why(&at("shop.example.com", "/api/x"));
    assert!(told.contains("`web` of project `why`") && told.contains("`web.1` on `local`"), "{told}");
    assert!(told.contains("compose.yaml:"), "the place of the rule: {told}");
    assert!(why(&at("shop.example.com", "/old")).contains("answers it with 302, to http://shop.example.com:8080/api"));
    let told = why(&at("shop.example.com", "/other"));
    assert!(told.contains("answered with 404") && told.contains("is for other paths"), "{told}");
    let told = why(&at("none.example.com", "/"));
    assert!(told.contains("there are rules for deaf.example.com, shop.example.com"), "{told}");
    assert!(why("http://shop.example.com:81/").contains("rules are for 8080"));

    // Nobody listens in the pod: known before anybody asks, and said of those who did.
    let told = why("deaf");
    assert!(told.contains("nobody listens at port 8000 of `deaf.1`"), "{told}");
    assert!(told.contains("somebody listens there at 9000\n"), "not at the engine's own resolver: {told}");
    assert_eq!(host.status(&at("deaf.example.com", "/"), "deaf.example.com"), "502");
    let told = why("deaf");
    assert!(told.contains("port 8000 of `deaf.1` refused connections"), "{told}");
    assert!(told.contains("502 because no pod took them"), "{told}");
    host.sh("docker exec -d why-deaf-1 /orch demo web --address 127.0.0.1 --port 8000");
    eventually(secs(5), "who listens for himself only", || {
        let told = why("deaf");
        if told.contains("listens at 127.0.0.1:8000") { Ok(()) } else { Err(told) }
    });
    assert!(why("web").contains("all of its 2 pods are ready"));

    let table = host.orch(&["-p", "why", "lb", "--no-stream"]).ok();
    for words in ["2 ready", "shop.example.com/api/*", "web.1", "deaf.1", "5XX"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let json = host.orch(&["-p", "why", "lb", "--format", "json", "deaf"]).ok();
    assert!(json.contains("\"ServerErrors\":1") && !json.contains("web.1"), "{json}");
    project.down();
}
