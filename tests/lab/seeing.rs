//! What an agent tells of the traffic: metrics for Prometheus, `orch lb`, and `orch why` for what is answered with an error.

use orch::testing::openmetrics::Scrape;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::fleet::{add, even, spread, states};
use crate::host::{Done, Host};
use crate::project::Project;
use crate::wait::{becomes, eventually, secs, timed};

const YAML: &str = "\
services:
  web:
    <<: *web
    deploy: {replicas: 2}
    expose: [80]
    x-route: [{host: shop.example.com, path: /api, rewrite: /, listen: 8080}, {host: shop.example.com, path: /old, listen: 8080, redirect: /api}]
  client: *client
";

/// Reads a page of metrics.
#[track_caller]
fn scrape(done: Done) -> Scrape {
    let text = done.ok();
    Scrape::read(&format!("{text}\n")).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
}

impl Host {
    #[track_caller]
    fn scrape(&self) -> Scrape {
        scrape(self.orch(&["agent", "metrics"]))
    }

    /// Returns the status of an answer, asked from the host itself.
    fn status(&self, url: &str, host: &str) -> String {
        let script = format!("curl -s -o /dev/null -m 10 -w '%{{http_code}}' -H 'Host: {host}' {url} || true");
        self.sh(&script).trim().to_owned()
    }
}

/// Each request has a line while that is asked for, from the moment on and over a new agent, without what may be secret in it.
#[test]
fn requests_are_told_in_the_agents_log_while_that_is_asked_for() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "told", YAML);
    project.up();
    let url = |path: &str| format!("http://{}:8080/api/{path}", host.address());
    let ask = |path: &str| assert_eq!(host.status(&url(path), "shop.example.com"), "200");
    let log = || host.orch(&["agent", "logs"]).ok();
    let lines = |mark: &str| log().lines().filter(|line| line.contains(mark)).map(str::to_owned).collect::<Vec<_>>();
    let line = |mark: &str| {
        eventually(secs(10), "the request's line", || match lines(mark).as_slice() {
            [line] => Ok(line.clone()),
            other => Err(format!("{other:?}")),
        })
    };
    ask("before");
    host.orch(&["agent", "access-log", "on"]).ok();
    assert!(host.orch(&["agent", "status"]).ok().contains("requests  told in its log"));
    ask("first?token=hunter2");
    let told = line("/api/first");
    for part in [
        "orch::access: client=",
        "method=\"GET\" host=\"shop.example.com\" path=\"/api/first\" request_id=\"",
        " status=200 is_whole=true micros=",
        " project=told service=web rule=\"shop.example.com/api/*\" pod=web.",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(host.status(&url("none"), "other.example.com") == "404" && line("/api/none").contains("status=404"));
    let malformed = format!("-X 'A()' http://{}:8080/malformed", host.address());
    assert!(host.status(&malformed, "shop.example.com") == "400");
    assert!(line("status=400").contains("refusal=\"the request is malformed\""));
    // Another agent, which a new version would be as well, knows of it.
    host.docker(&["restart", "-t", "5", "orch-agent"]);
    project.up();
    ask("second");
    line("/api/second");
    host.orch(&["agent", "access-log", "off"]).ok();
    ask("third");
    // Lines come in order: the next one that is written shows that the one before is not to come.
    host.orch(&["agent", "access-log", "on"]).ok();
    ask("fourth");
    line("/api/fourth");
    assert_eq!((lines("/api/third"), lines("/api/before")), (vec![], vec![]));
    assert!(!log().contains("hunter2"));
    let gone = host.scrape().sum("orch_http_unlogged_total", &[]);
    assert_eq!(gone, Some(0.0));
    project.down();
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
    let told =
        scrape(host.exec(&["curl", "-s", "-H", &format!("Accept: {accept}"), &format!("http://{address}/metrics")]));
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
    eventually(secs(15), "the end of the listener", || match collected().as_str() {
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
    eventually(secs(15), "who listens for himself only", || {
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

/// What a name means and why: of services, pods, containers and ports, to whoever asks.
#[test]
fn names_are_explained_to_each_who_could_ask() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web:
    <<: *web
    deploy: {replicas: 2}
    expose: ['80']
    x-sidecars: {helper: *client}
  client: *client
  alone: {<<: *client, networks: [other]}
networks: {other: {}}
";
    let project = Project::new(&host, "named", yaml);
    project.up();
    let dns = |name: &str, from: &str| project.orch(&["dns", name, "--from", from]);
    let check = |name: &str, from: &str, words: &[&str]| {
        let told = dns(name, from).ok();
        assert!(words.iter().all(|word| told.contains(word)), "{name} from {from}: {words:?} in {told}");
    };
    check("web", "client", &["named-client-1 (", "because it is the virtual address of service `web`"]);
    check("2.web", "client", &["because `web.2` runs on host `local` and is ready"]);
    check("3.web", "client", &["no such name for it (NXDOMAIN)", "service `web` has no pod 3: it has 1 to 2"]);
    check("named-client-1", "web", &["it is the container of `client.1` on host `local`"]);
    check(
        "_80._tcp.web",
        "client",
        &["port 80 of web.named.orch.internal, which is 10.", "tells for service `web`: 80/tcp"],
    );
    check("_http._tcp.web", "client", &["NXDOMAIN", "`_http._tcp`"]);
    check("web", "alone", &["`web` is a service, and shares no network with `alone`"]);
    // A helper is its pod's main container to everybody, and a pod may be meant alone.
    check("client", "web.helper", &["named-web-1 (", "virtual address of service `client`"]);
    check("client", "web.2", &["named-web-2 ("]);
    dns("web", "nosuch").refused(1, &["project `named` has no service or pod `nosuch`"]);
    dns("web", "clint").refused(1, &["did you mean `client`?"]);
    project.down();
}

/// What is done, what never ends and what never becomes healthy is said, with what it wrote.
#[test]
fn what_is_done_and_what_is_waited_for_is_told_apart() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *web, expose: [80], x-route: [{host: shop.example.com, listen: 8080}]}
  job: {image: busybox, command: ['true'], restart: 'no'}
  client: *client
";
    let project = Project::new(&host, "waits", yaml);
    project.up();
    let why = |about: &str| project.orch(&["why", about]).ok();
    let told = why("job");
    assert!(told.contains("its pod has ended with 0") && told.contains("its work is done"), "{told}");
    assert!(!told.contains('!') && !told.contains("not ready"), "{told}");
    let told = why("8080");
    assert!(told.contains("port 8080, which is for routes of `web`"), "{told}");
    assert!(told.contains("requests for `shop.example.com/*` come to port 80 of service `web`"), "{told}");
    project.orch(&["why", "8081"]).refused(1, &["none of its routes listens there"]);

    let yaml = "\
services:
  slow:
    <<: *web
    x-init: {setup: {image: busybox, command: [sh, -c, 'echo waiting for the moon; exec sleep 100000'], stop_signal: SIGKILL}}
";
    project.rewrite(yaml);
    let done = project.orch(&["up", "-d", "--wait", "--wait-timeout", "8", "--remove-orphans"]);
    let words =
        ["container waits-slow-1-setup prepares its pod, has run for ", "and has not ended", "waiting for the moon"];
    done.refused(1, &words);
    let told = why("slow");
    assert!(told.contains("waits-slow-1-setup prepares the pod, and has run for "), "{told}");
    assert!(told.contains("it wrote last:\n      waiting for the moon"), "{told}");

    let check = "healthcheck: {test: 'echo no pulse; exit 1', interval: 1s, retries: 1}";
    project.rewrite(&format!("services:\n  sick: {{<<: *client, {check}}}\n"));
    // What the check said is shown with it where the container is still there: it is replaced at once.
    project.orch(&["up", "-d", "--wait", "--remove-orphans"]).refused(1, &["is unhealthy"]);
    // It is made anew in between, after ever longer pauses.
    eventually(secs(20), "what its check said", || {
        let told = why("sick");
        if told.contains("its health check said:\n      no pulse") { Ok(()) } else { Err(told) }
    });
    project.down();
}

/// A row of `orch lb`: whose load balancer, what, and what of it is counted.
#[derive(Debug, PartialEq)]
struct Row {
    host: String,
    name: String,
    pod_host: String,
    state: String,
    requests: u64,
}

/// The rows of one kind (`service`, `endpoint`), by host and name.
#[track_caller]
fn rows(project: &Project<'_>, kind: &str, service: &str) -> Vec<Row> {
    let told: Vec<Value> =
        serde_json::from_str(&project.orch(&["lb", "--format", "json", service]).ok()).expect("rows as JSON");
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let row = |row: &Value| Row {
        host: text(row, "Host"),
        name: text(row, "Name"),
        pod_host: text(row, "PodHost"),
        state: text(row, "State"),
        requests: row["Requests"].as_u64().unwrap_or_default(),
    };
    let mut rows: Vec<Row> = told.iter().filter(|row| row["Kind"] == kind).map(row).collect();
    rows.sort_by(|one, other| (&one.host, &one.name).cmp(&(&other.host, &other.name)));
    rows
}

/// A line of `orch why` without its mark, and without who saw it.
fn bare(line: &str) -> &str {
    let line = line.trim_start_matches([' ', '✓', '~', '!']);
    line.strip_prefix("seen from ").and_then(|line| line.split_once(": ")).map_or(line, |(_, line)| line)
}

#[test]
fn what_each_host_does_is_shown_from_the_desk_and_a_pod_out_of_reach_is_explained() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let yaml = "\
services:
  web: {<<: *web, deploy: {replicas: 3}, ports: [{target: 80, published: '8080', app_protocol: http}]}
  far:
    <<: *web
    deploy: {placement: {constraints: ['node.hostname == node3']}}
    ports: [{target: 80, published: '8081', app_protocol: http}]
";
    let project = Project::new(desk, "afar", yaml);
    project.up();
    assert_eq!(spread(&project, "web"), even(1));
    let ask = |node: usize, port: u16| {
        desk.status(&format!("http://{}:{port}/", cluster[node].address()), "shop.example.com")
    };
    let numbers = [1, 2, 3];
    for (node, times) in numbers.into_iter().zip([3, 5, 7]) {
        (0..times).for_each(|_| assert_eq!(ask(node, 8080), "200"));
    }
    assert_eq!([ask(1, 8081), ask(1, 8081)], ["200", "200"]);

    // Each host's load balancer has counted what came to it, wherever the pod is.
    let counted = |kind: &str, service: &str| -> Vec<(String, u64)> {
        rows(&project, kind, service).into_iter().map(|row| (row.host, row.requests)).collect()
    };
    let of = |counts: [u64; 3]| ["a", "b", "c"].map(str::to_owned).into_iter().zip(counts).collect::<Vec<_>>();
    becomes(secs(5), "the requests of each host", &of([3, 5, 7]), || counted("service", "web"));
    assert_eq!(counted("service", "far"), of([2, 0, 0]));
    assert_eq!(counted("endpoint", "far"), of([2, 0, 0]));
    let all = rows(&project, "service", "web");
    assert!(all.iter().all(|row| row.state == "3 ready" && row.name == "web"), "{all:#?}");
    // The nearest pod takes what comes to its host; all know all of them, and where they are.
    let all = rows(&project, "endpoint", "web");
    assert!(all.len() == 9 && all.iter().all(|row| row.state == "ready"), "{all:#?}");
    for row in &all {
        let here = row.host == row.pod_host;
        assert_eq!(row.requests, if here { u64::from(row.host.as_bytes()[0] - b'a') * 2 + 3 } else { 0 }, "{row:?}");
    }
    let table = project.orch(&["lb", "--no-stream"]).ok();
    let lines = table.lines().filter(|line| line.starts_with("web ")).count();
    assert_eq!(lines, 3, "a line for the service on each host: {table}");

    // One agent's page is one agent's.
    for (name, count) in ["a", "b", "c"].into_iter().zip([3.0, 5.0, 7.0]) {
        let page = scrape(desk.orch(&["agent", "metrics", "--host", name]));
        let sum = page.sum("orch_service_requests_total", &[("project", "afar"), ("service", "web")]);
        assert_eq!(sum, Some(count), "{name}");
        let samples = || page.families.values().flat_map(|family| &family.samples);
        assert!(samples().all(|sample| sample.labels.get("host").is_some_and(|host| host == name)), "{page:#?}");
    }
    desk.orch(&["agent", "metrics", "--host", "a", "--host", "b"]).refused(1, &["--host", "agent metrics"]);

    // What all hosts know is said once, however it is asked for.
    for about in ["web", "8080", "web.1"] {
        let told = project.orch(&["why", about]).ok();
        let mut lines: Vec<&str> = told.lines().map(bare).collect();
        let all = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), all, "{told}");
    }

    // A host that only the desk does not reach is told, and holds nothing up.
    cluster.cut("desk", "node2");
    let (done, took) = timed(|| project.orch(&["lb", "--no-stream"]));
    assert!(took < secs(15), "{took:?}");
    assert!(done.stderr.contains("host `b`") || done.stderr.contains("host b"), "{}", done.stderr);
    let table = done.ok();
    assert_eq!(table.lines().filter(|line| line.starts_with("web ")).count(), 2, "{table}");
    cluster.heal();

    // A host that nobody reaches, and a service that runs nowhere else.
    cluster.cut("node3", "all");
    eventually(secs(20), "c is down", || match states(desk) {
        seen if seen == "a Ready, b Ready, c Down" => Ok(()),
        seen => Err(seen),
    });
    assert_eq!(ask(2, 8081), "503", "after some seconds without a pod");
    let (done, took) = timed(|| project.orch(&["why", "far"]));
    assert!(took < secs(10), "{took:?}");
    assert!(done.stderr.contains("host `c` is down: it is left out"), "{}", done.stderr);
    let told = done.ok();
    for words in [
        "`far.1` is on host `c`, which does not answer",
        "no pod of `far` is ready",
        "seen from `b`: of 1 requests for `far` that came to this host it answered 1 with 503 because no pod was ready",
    ] {
        assert!(told.contains(words), "no `{words}` in: {told}");
    }
    assert!(!told.contains("seen from `a`"), "`a` was asked for all of it: {told}");
    let told = project.orch(&["why", ":8081"]).ok();
    assert_eq!(told.matches("which does not answer").count(), 1, "{told}");
    assert_eq!(told.matches("seen from `b`: ").count(), 1, "what only `b` saw: {told}");
    let all = rows(&project, "endpoint", "web");
    assert!(all.iter().all(|row| row.host != "c" && row.pod_host != "c"), "{all:#?}");
    cluster.heal();
    eventually(secs(30), "c is back", || match states(desk) {
        seen if seen == "a Ready, b Ready, c Ready" => Ok(()),
        seen => Err(seen),
    });
    project.down();
}
