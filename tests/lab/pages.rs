//! Every example of the pages about orch's own keys and about networking comes up as it is, and does what its page says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::ambassadors::certificates;
use crate::cluster::Cluster;
use crate::host::{Done, Host};
use crate::project::{Project, host_name};
use crate::wait::{becomes, eventually, secs};

/// The pages.
const PAGES: [&str; 2] = ["patterns", "networking"];

/// Which examples are brought up together, on what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// What is in a pod and what it reaches, on one host.
    Pods,
    /// What comes from outside, on one host.
    Requests,
    /// What needs two hosts, `host-a` and `host-b`.
    Hosts,
}

/// What a page says of an example.
struct Check {
    /// The page and the section.
    example: &'static str,
    /// Name of the project that it becomes.
    project: &'static str,
    group: Group,
    /// Whether it stays for those that come after it, which lead to it.
    stays: bool,
    holds: fn(&Project<'_>, &[&Host]),
}

const fn check(example: &'static str, project: &'static str, holds: fn(&Project<'_>, &[&Host])) -> Check {
    Check { example, project, group: Group::Pods, stays: false, holds }
}

const fn request(example: &'static str, project: &'static str, holds: fn(&Project<'_>, &[&Host])) -> Check {
    Check { group: Group::Requests, ..check(example, project, holds) }
}

/// A check for each example, in the order in which they are brought up.
const CHECKS: [Check; 14] = [
    check("patterns#x-sidecars", "sidecars", a_sidecar_writes_what_the_main_container_serves),
    check("patterns#x-init", "init", what_prepares_a_pod_has_ended_before_it_serves),
    check("patterns#pre_start", "pre", steps_run_once_before_the_service),
    check("patterns#x-pod", "pods", each_pod_has_a_volume_of_its_own),
    Check { stays: true, ..check("patterns#x-export", "shop", only_what_is_exported_is_reached) },
    check("patterns#external_links", "linked", links_name_services_of_another_project),
    check("patterns#x-ambassadors", "ambassadors", ambassadors_lead_wherever_they_are_told),
    request("patterns#x-route", "routes", requests_go_where_the_routes_say),
    request("patterns#x-probe", "probes", what_answers_badly_is_not_ready_and_lives_on),
    request("patterns#x-patterns", "used", patterns_add_what_they_say),
    request("patterns#writing-a-pattern", "written", a_pattern_of_ones_own_serves_numbers),
    request("networking#http", "http", requests_of_one_connection_go_to_all_pods_and_grpc_is_spoken),
    request("networking#routes", "shares", the_more_exact_route_wins_and_shares_hold),
    Check {
        group: Group::Hosts,
        ..check("patterns#x-balance", "balance", clients_keep_their_pods_and_hosts_get_their_share)
    },
];

/// The examples of the pages.
#[derive(Default)]
struct Examples {
    /// Whole compose files, by page and section; the second one of a section has `-2` behind that.
    files: BTreeMap<String, String>,
    /// Patterns, by their names.
    patterns: BTreeMap<String, String>,
}

fn examples() -> Examples {
    let mut found = Examples::default();
    for page in PAGES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/{page}.md"));
        let text = std::fs::read_to_string(path).expect("the page");
        let (mut section, mut block) = (String::new(), None::<(String, String)>);
        for line in text.lines() {
            match &mut block {
                Some(_) if line == "```" => {
                    let (kind, text) = block.take().expect("it is there");
                    found.add(&kind, &format!("{page}#{section}"), text);
                }
                Some((_, text)) => text.extend([line, "\n"]),
                None if line.starts_with("```") => block = Some((line[3..].to_owned(), String::new())),
                None if line.starts_with('#') => {
                    section = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                }
                None => {}
            }
        }
        assert!(block.is_none(), "{page}: a block has no end");
    }
    found
}

impl Examples {
    fn add(&mut self, kind: &str, place: &str, text: String) {
        match kind {
            "yaml" => {
                let mut keys = std::iter::once(place.to_owned()).chain((2..).map(|number| format!("{place}-{number}")));
                let key = keys.find(|key| !self.files.contains_key(key)).expect("there is no end of them");
                self.files.insert(key, text);
            }
            "yaml pattern" => {
                let name = text.lines().find_map(|line| line.strip_prefix("name: ")).expect("its name").to_owned();
                self.patterns.insert(name, text);
            }
            // What is shown of output.
            "" => {}
            other => panic!("{place}: what is a block of `{other}`?"),
        }
    }

    /// Writes an example, with the files that it names, as a project on `desk`.
    fn project<'a>(&self, desk: &'a Host, check: &Check) -> Project<'a> {
        let project = Project::new(desk, check.project, "");
        project.rewrite_all(&self.files[check.example]);
        for (name, text) in &self.patterns {
            desk.write(&format!("/root/{}/patterns/{name}.yaml", check.project), text);
        }
        desk.sh(&format!(
            "cd {}; cp /root/keys/ca.pem authorities.pem; \
             for file in client chain-and-key; do cp '/root/keys/*.example.com.pem' $file.pem; done",
            check.project
        ));
        project
    }

    /// Brings up the examples of a group, one after the other, and checks each.
    fn run(&self, desk: &Host, nodes: &[&Host], group: Group) {
        let mut stay = Vec::new();
        for check in CHECKS.iter().filter(|check| check.group == group) {
            let project = self.project(desk, check);
            project.up();
            (check.holds)(&project, nodes);
            if check.stays {
                stay.push(project);
            } else {
                end(&project, nodes);
            }
        }
        for project in &stay {
            end(project, nodes);
        }
    }
}

/// Takes a project away with all that it has; nothing of it need end in peace.
fn end(project: &Project<'_>, nodes: &[&Host]) {
    project.orch(&["down", "-v", "-t", "0"]).ok();
    let label = format!("label=com.docker.compose.project={}", project.name);
    for node in nodes {
        for kind in [&["ps", "-a"][..], &["volume", "ls"], &["network", "ls"]] {
            let left = node.docker(&[kind, &["-q", "--filter", &label]].concat());
            assert_eq!(left, "", "{}: left on {}: {kind:?}", project.name, node.name());
        }
    }
}

#[test]
fn each_example_has_a_check_and_each_check_an_example() {
    let found = examples();
    let checked: BTreeSet<&str> = CHECKS.iter().map(|check| check.example).collect();
    let there: BTreeSet<&str> = found.files.keys().map(String::as_str).collect();
    assert_eq!(there, checked, "of each page and section");
    assert_eq!(checked.len(), CHECKS.len(), "one each");
    assert_eq!(found.patterns.keys().collect::<Vec<_>>(), ["metrics"]);
}

#[test]
fn examples_of_pods_do_what_their_pages_say() {
    let host = Host::boot(&["busybox", "nginx", "redis", "postgres", "haproxy"]);
    // What is outside: names that the host knows, authorities that it trusts, an address and a server that are elsewhere.
    certificates(&host, "/root/keys", &["*.example.com"]);
    host.sh("echo '127.0.0.1 redis.example.com bank.example.com bank2.example.com' >> /etc/hosts\n\
         cat /root/keys/ca.pem >> /etc/ssl/certs/ca-certificates.crt\n\
         ip address add 192.0.2.7/32 dev lo\n\
         docker run -d --name elsewhere -p 127.0.0.1:6380:6379 redis:7");
    examples().run(&host, &[&host], Group::Pods);
}

#[test]
fn examples_of_requests_do_what_their_pages_say() {
    let host = Host::boot(&["busybox", "nginx", "redis"]);
    certificates(&host, "/root/keys", &["*.example.com"]);
    examples().run(&host, &[&host], Group::Requests);
}

#[test]
fn examples_of_several_hosts_do_what_their_pages_say() {
    let cluster = Cluster::boot(2, &["nginx", "redis"]);
    let [a, b] = [1, 2].map(|number| format!("ssh://root@{}", cluster[number].address()));
    certificates(&cluster.desk, "/root/keys", &["*.example.com"]);
    cluster.desk.orch(&["host", "add", "host-a", &a, "host-b", &b]).ok();
    examples().run(&cluster.desk, &[&cluster[1], &cluster[2]], Group::Hosts);
}

// -- asking -----------------------------------------------------------------------------------

/// Asks the host itself, whatever name the address has.
fn curl(host: &Host, args: &[&str], url: &str) -> Done {
    let here = ["curl", "-sS", "-m", "5", "--cacert", "/root/keys/ca.pem", "--connect-to", "::127.0.0.1:"];
    host.exec(&[&here[..], args, &[url]].concat())
}

/// The same until it answers as `is_right` says.
#[track_caller]
fn answer(host: &Host, args: &[&str], url: &str, is_right: impl Fn(&str) -> bool) -> String {
    eventually(secs(20), url, || match curl(host, args, url) {
        done if done.code == 0 && is_right(&done.stdout) => Ok(done.stdout),
        done => Err(done),
    })
}

/// Returns the first line that a port of a container's loopback answers to `text`, which `printf` prints.
#[track_caller]
fn inside(project: &Project<'_>, container: &str, port: u16, text: &str) -> String {
    let talk = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{text}' >&3; timeout 5 head -n 1 <&3");
    eventually(secs(15), &format!("an answer at port {port} of {container}"), || {
        match project.host.exec_beside(container, &["bash", "-c", &talk]) {
            done if done.code == 0 && !done.stdout.is_empty() => Ok(done.stdout.trim().to_owned()),
            done => Err(done),
        }
    })
}

const PING: &str = "PING\\r\\n";
const GET: &str = "GET / HTTP/1.0\\r\\n\\r\\n";

/// When something happened to a container (`StartedAt`, `FinishedAt`), by the engine.
fn when(project: &Project<'_>, what: &str, containers: &[&str]) -> Vec<String> {
    containers.iter().map(|name| project.inspect(name, &format!("{{{{.State.{what}}}}}"))).collect()
}

/// How many requests an nginx has logged.
fn logged(host: &Host, container: &str) -> usize {
    host.docker(&["logs", container]).lines().filter(|line| line.contains("\"GET /")).count()
}

// -- what the pages say -----------------------------------------------------------------------

fn a_sidecar_writes_what_the_main_container_serves(project: &Project<'_>, _: &[&Host]) {
    let [main, sidecar] = ["sidecars-web-1", "sidecars-web-1-sync"];
    eventually(secs(10), "the page that the sidecar wrote", || {
        let written = project.within(sidecar, "cat /data/index.html").ok();
        let served = curl(project.host, &[], "http://127.0.0.1:8080/").ok();
        if served == written && !served.is_empty() { Ok(()) } else { Err((served, written)) }
    });
    assert!(when(project, "StartedAt", &[sidecar, main]).is_sorted(), "the sidecar is there first");
    assert_eq!(project.inspect(sidecar, "{{.HostConfig.Memory}} {{.State.Health.Status}}"), "67108864 healthy");
}

fn what_prepares_a_pod_has_ended_before_it_serves(project: &Project<'_>, _: &[&Host]) {
    assert_eq!(project.fetch("init-web-1", "http://127.0.0.1/"), "hello, world\n");
    let [write, check] = ["init-web-1-write", "init-web-1-check"];
    let mut order = when(project, "FinishedAt", &[write, check]);
    order.extend(when(project, "StartedAt", &["init-web-1"]));
    assert!(order.is_sorted(), "one after the other, then the main container: {order:?}");
}

fn steps_run_once_before_the_service(project: &Project<'_>, _: &[&Host]) {
    let tables = project.within("pre-db-1", "psql -h /run -U postgres -t -c '\\dt'").ok();
    assert!(tables.contains("visits"), "{tables}");
    assert_eq!(project.within("pre-web-1", "stat -c %u /data; ls /cache").ok(), "1000\nwarm");
    let steps = ["pre-web-pre_start-0", "pre-web-pre_start-1"];
    let ran = when(project, "StartedAt", &steps);
    project.orch(&["up", "-d", "--wait", "--scale", "web=2"]).ok();
    assert_eq!(when(project, "StartedAt", &steps), ran, "not again for another replica");
    assert_eq!(project.within("pre-web-2", "ls /cache").ok(), "warm", "but what is for each is");
}

fn each_pod_has_a_volume_of_its_own(project: &Project<'_>, _: &[&Host]) {
    let pages = ["pods-web-1", "pods-web-2"].map(|pod| {
        let page = project.fetch(pod, "http://127.0.0.1/");
        assert_eq!(page.trim(), project.within(pod, "hostname").ok(), "{pod} serves what its sidecar wrote");
        assert_eq!(project.within(pod, "df -mP /tmp | awk 'END {print $1, $2}'").ok(), "tmpfs 16");
        page
    });
    assert_ne!(pages[0], pages[1]);
}

fn only_what_is_exported_is_reached(_: &Project<'_>, nodes: &[&Host]) {
    let yaml = "\
services:
  client: {image: nginx, external_links: ['shop/db', 'shop/web', 'shop/cache']}
";
    let asking = Project::new(nodes[0], "asking", yaml);
    asking.up();
    reaches_postgres(&asking, "asking-client-1", "db");
    reaches_redis(&asking, "asking-client-1", "cache");
    assert!(asking.fetch("asking-client-1", "http://web/").contains("nginx"));
    let other = asking.within("asking-client-1", "timeout 5 wget -q -O - http://web:81/");
    assert_ne!(other.code, 0, "a port that is not exported answers: {}", other.stdout);
    end(&asking, nodes);
}

/// Asks for TLS, which the database answers with one letter.
#[track_caller]
fn reaches_postgres(project: &Project<'_>, container: &str, name: &str) {
    let ask = format!("printf '\\0\\0\\0\\010\\004\\322\\026\\057' | timeout 3 nc {name} 5432 | head -c 1");
    becomes(secs(15), name, &"N".to_owned(), || project.within(container, &ask).stdout);
}

#[track_caller]
fn reaches_redis(project: &Project<'_>, container: &str, name: &str) {
    let ask = format!("printf 'PING\\r\\nQUIT\\r\\n' | timeout 3 nc {name} 6379 | head -n 1");
    becomes(secs(15), name, &"+PONG".to_owned(), || project.within(container, &ask).stdout.trim().to_owned());
}

fn links_name_services_of_another_project(project: &Project<'_>, _: &[&Host]) {
    for name in ["db", "database"] {
        reaches_postgres(project, "linked-web-1", name);
    }
    reaches_redis(project, "linked-web-1", "memory");
}

fn ambassadors_lead_wherever_they_are_told(project: &Project<'_>, nodes: &[&Host]) {
    let host = nodes[0];
    // One server that asks for a certificate, and one that does not.
    let pem = "/root/keys/*.example.com.pem";
    let serve = ["openssl", "s_server", "-quiet", "-www", "-cert", pem, "-CAfile", "/root/keys/ca.pem"];
    let bank = host.start(&[&serve[..], &["-accept", "443"]].concat());
    let ledger = host.start(&[&serve[..], &["-accept", "8444", "-Verify", "1", "-verify_return_error"]].concat());

    let said = |port, text| inside(project, "ambassadors-web-1", port, text);
    assert_eq!(said(6379, PING), "+PONG", "a service of the project");
    assert_eq!(said(6380, PING), "+PONG", "the next target, as the first one does not answer");
    assert_eq!(said(6381, PING), "+PONG", "a container of the pod");
    for port in [8443, 8444] {
        assert!(said(port, GET).contains("200 ok"), "over TLS, at port {port}");
    }
    assert_eq!(said(5432, "\\0\\0\\0\\010\\004\\322\\026\\057Q").chars().next(), Some('N'), "another project's");

    bank.signal("KILL");
    ledger.signal("KILL");
}

fn requests_go_where_the_routes_say(project: &Project<'_>, nodes: &[&Host]) {
    let host = project.host;
    let at = |args: &[&str], url: &str, words: &str| answer(host, args, url, |said| said.contains(words));
    assert!(at(&[], "https://app.example.com/x?y", "GET /x?y").contains("Name: web"));
    let sent = at(&["-i"], "http://app.example.com/x?y", "HTTP/1.1 3").to_lowercase();
    assert!(sent.contains("location: https://app.example.com/x?y"), "{sent}");
    at(&[], "http://app.example.com/healthz", "GET /healthz");
    let sent = at(&["-i"], "http://old.example.com/x", "HTTP/1.1 302").to_lowercase();
    assert!(sent.contains("location: https://app.example.com/x"), "{sent}");
    for name in ["a.example.com", "more.b.example.com"] {
        assert!(at(&[], &format!("http://{name}/api/x"), "GET /v2/x").contains("Name: web"));
    }
    assert!(at(&["-H", "X-Canary: 1"], "http://a.example.com/api/x", "GET /api/x").contains("Name: canary"));
    assert!(at(&["-H", "X-Canary: 1", "-d", ""], "http://a.example.com/api/x", "POST /v2/x").contains("Name: web"));
    at(&[], "http://web.localhost:8080/", "Name: web");
    // From anywhere else than the machine itself names below `localhost` are not reached.
    let own = nodes[0].address().to_string();
    let from_outside = host.exec(&["curl", "-sS", "-m", "2", &format!("http://{own}:8080/")]);
    assert_ne!(from_outside.code, 0, "{from_outside:?}");
}

fn what_answers_badly_is_not_ready_and_lives_on(project: &Project<'_>, _: &[&Host]) {
    let listed = || project.orch(&["ps"]).ok();
    assert_eq!(listed().matches("(healthy)").count(), 2, "both are asked: {}", listed());
    let lives = project.lives();
    let set = |ok| {
        let url = format!("GET /health?ok={ok} HTTP/1.0\\r\\n\\r\\n");
        inside(project, "probes-web-1", 80, &url);
    };
    set(false);
    becomes(secs(20), "shown as unhealthy", &1, || listed().matches("(unhealthy)").count());
    set(true);
    becomes(secs(10), "ready again", &2, || listed().matches("(healthy)").count());
    assert_eq!(project.lives(), lives, "nothing was restarted");
}

fn patterns_add_what_they_say(project: &Project<'_>, _: &[&Host]) {
    let page = project.fetch("used-web-1", "http://127.0.0.1/");
    assert!(page.contains("nginx"), "{page}");
    assert_eq!(page, project.fetch("used-origin-1", "http://127.0.0.1/"), "the origin's");
    assert!(project.within("used-web-1", "touch /usr/share/nginx/html/x").code != 0, "it cannot be written there");
    assert!(project.inspect("used-app-1", "{{.Config.Env}}").contains("REDIS_URL=redis://127.0.0.1:6379"));
    assert_eq!(inside(project, "used-app-1", 6379, PING), "+PONG");
}

fn a_pattern_of_ones_own_serves_numbers(project: &Project<'_>, _: &[&Host]) {
    let numbers = answer(project.host, &[], "http://127.0.0.1:9113/metrics", |page| page.contains("Hostname: "));
    let own = project.inspect("written-web-1-pod", "{{.Config.Hostname}}");
    assert_eq!(host_name(&numbers), own, "of the main container of the same pod");
    assert_eq!(project.inspect("written-web-1", "{{index .Config.Labels \"metrics\"}}"), "9113");
}

fn requests_of_one_connection_go_to_all_pods_and_grpc_is_spoken(project: &Project<'_>, _: &[&Host]) {
    let host = project.host;
    let connects = curl(host, &["-o", "/dev/null", "-w", "%{num_connects}"], "http://127.0.0.1:8080/?[1-30]").ok();
    assert_eq!(connects, format!("1{}", "0".repeat(29)), "one connection");
    becomes(secs(5), "each of thirty requests at a pod", &30, || {
        (1..=3).map(|number| logged(host, &format!("http-web-{number}"))).sum()
    });
    for number in 1..=3 {
        assert_ne!(logged(host, &format!("http-web-{number}")), 0, "pod {number} had none of them");
    }
    // A message of one field, the text `hello`.
    host.write("/root/hello", "\0\0\0\0\u{7}\n\u{5}hello");
    let call = [
        "-i",
        "--http2",
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        "--data-binary",
        "@/root/hello",
    ];
    let said = answer(host, &call, "https://greeter.example.com:8443/demo.Echo/Say", |said| said.contains(" hello"));
    assert!(said.starts_with("HTTP/2 200") && said.contains("grpc-status: 0"), "{said}");
}

fn the_more_exact_route_wins_and_shares_hold(project: &Project<'_>, _: &[&Host]) {
    let host = project.host;
    let at = |args: &[&str], url: &str, words: &str| answer(host, args, url, |said| said.contains(words));
    at(&[], "https://shop.example.com/cart", "Name: shop");
    at(&[], "http://shop.localhost:8080/cart", "Name: shop");
    let sent = at(&["-i"], "http://shop.example.com/cart", "HTTP/1.1 3").to_lowercase();
    assert!(sent.contains("location: https://shop.example.com/cart"), "{sent}");
    let prices = "https://shop.example.com/api/prices";
    for _ in 0..3 {
        assert!(at(&["-H", "X-Preview: 1"], prices, "GET /prices").contains("Name: api-next"));
    }
    // Shares are by number of requests, not by chance: of twenty, two.
    let answers: Vec<String> = (0..20).map(|_| at(&[], prices, "GET /prices")).collect();
    let next = answers.iter().filter(|said| said.contains("Name: api-next")).count();
    assert!((1..=4).contains(&next), "a tenth of them: {next}");
    assert!(answers.iter().all(|said| said.contains("Name: api")), "{answers:?}");
    let dotted =
        curl(host, &["--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"], "https://shop.example.com/x/../api");
    assert_eq!(dotted.ok(), "400", "a path that would be another rule's");
}

fn clients_keep_their_pods_and_hosts_get_their_share(_: &Project<'_>, nodes: &[&Host]) {
    const USERS: usize = 120;
    let url = "http://127.0.0.1:8080/";
    let session = |node: &Host, user: &str| {
        let head = answer_of(node, &["-i", "-H", &format!("X-User: {user}")], url);
        let cookie = head.lines().find_map(|line| line.trim().strip_prefix("Set-Cookie: session=")).map(str::to_owned);
        let cookie = cookie.unwrap_or_else(|| panic!("no cookie in {head}"));
        let (token, rest) = cookie.split_once("; ").expect("attributes");
        assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
        token.to_owned()
    };
    // Who asks by the same name comes to the same pod, by whatever host; the cookie tells pods apart.
    let of: Vec<BTreeSet<String>> =
        (0..8).map(|user| nodes.iter().map(|node| session(node, &user.to_string())).collect()).collect();
    assert!(of.iter().all(|pods| pods.len() == 1), "{of:?}");
    assert_eq!(of.into_iter().flatten().collect::<BTreeSet<_>>().len(), 2, "both pods have users");

    let requests = || {
        nodes.iter().map(|node| {
            let name =
                node.docker(&["ps", "--filter", "label=com.docker.compose.service=web", "--format", "{{.Names}}"]);
            assert_eq!(name.lines().count(), 1, "a pod on each host: {name}");
            logged(node, &name)
        })
    };
    let before: Vec<usize> = requests().collect();
    nodes[0].sh(&format!(
        "for user in $(seq {USERS}); do echo next; echo url={url}; echo header=X-User:user-$user; echo output=/dev/null; done \
         | tail -n +2 | curl -sS -K -"
    ));
    let shares = || -> Vec<usize> { requests().zip(&before).map(|(now, before)| now - before).collect() };
    becomes(secs(5), "all of them at a pod", &USERS, || shares().iter().sum());
    let shares = shares();
    assert!(shares[0] > USERS / 6 && shares[0] < USERS / 2, "a third for `host-a`: {shares:?}");

    // By source: a client has one pod of the cache, whatever its connection.
    let name = nodes[0].docker(&["ps", "--filter", "label=com.docker.compose.service=web", "--format", "{{.Names}}"]);
    let ask = "printf 'INFO server\\r\\nQUIT\\r\\n' | timeout 3 nc cache 6379 | grep run_id";
    let runs: BTreeSet<String> = (0..6).map(|_| nodes[0].docker(&["exec", &name, "sh", "-c", ask])).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
}

#[track_caller]
fn answer_of(node: &Host, args: &[&str], url: &str) -> String {
    node.exec(&[&["curl", "-sS", "-m", "5"], args, &[url]].concat()).ok()
}
