//! Each folder of `compose-examples` does what its page says.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::fleet::{add, spread};
use crate::host::Host;
use crate::project::{Project, host_name};
use crate::wait::{becomes, eventually, secs};

/// Asks the host's published port as its user would, until it answers.
#[track_caller]
fn curl(host: &Host, url: &str) -> String {
    curl_with(host, &[], url)
}

/// The same with more arguments of curl.
#[track_caller]
fn curl_with(host: &Host, args: &[&str], url: &str) -> String {
    eventually(secs(20), url, || {
        let done = host.exec(&[&["curl", "-fsS", "-m", "2"], args, &[url]].concat());
        if done.code == 0 { Ok(done.stdout) } else { Err(done.stderr) }
    })
}

/// Boots three hosts, which the desk knows as `a`, `b` and `c`.
fn three_hosts(images: &[&str]) -> Cluster {
    let cluster = Cluster::boot(3, images);
    add(&cluster, &[1, 2, 3]).ok();
    cluster
}

/// Returns the host that a pod runs on, by `ps`.
fn host_of<'a>(cluster: &'a Cluster, project: &Project, service: &str) -> &'a Host {
    let pod: Value = serde_json::from_str(&project.orch(&["ps", "--format", "json", service]).ok()).expect("one pod");
    let number = ["a", "b", "c"].iter().position(|name| pod["Host"] == *name).expect("a host of the cluster");
    &cluster.nodes()[number]
}

/// How many pods each host has, as [`spread`] gives it.
fn on(hosts: &[(&str, usize)]) -> Vec<(String, usize)> {
    hosts.iter().map(|(host, count)| ((*host).to_owned(), *count)).collect()
}

#[test]
fn hello_answers_from_each_replica() {
    let host = Host::boot(&[]);
    let hello = Project::example(&host, "hello");
    hello.up();
    let answered = (0..20).map(|_| host_name(&curl(&host, "http://127.0.0.1:8080/"))).collect();
    assert_eq!(hello.running("web"), answered, "every replica answers, and nobody else");
    hello.down();
}

#[test]
fn build_makes_an_image_of_what_lies_beside_the_compose_file() {
    let host = Host::boot(&[]);
    let build = Project::example(&host, "build");
    build.up();
    let greeting = || curl(&host, "http://127.0.0.1:8094/env?name=DEMO_GREETING").trim().to_owned();
    let page = |index| build.orch(&["exec", "-T", "--index", index, "web", "/orch", "demo", "cat", "/page.txt"]).ok();
    assert_eq!(greeting(), "hello");
    assert_eq!(page("2"), "made of the source beside the compose file");
    host.write("/root/build/page.txt", "another page\n");
    host.sh("cd build; GREETING=bonjour /opt/orch/orch up -d --wait --build");
    eventually(secs(10), "both replicas to be new", || {
        let greetings = [greeting(), greeting(), greeting()];
        if greetings.iter().all(|said| said == "bonjour") { Ok(()) } else { Err(greetings.join(" ")) }
    });
    assert_eq!((page("1"), page("2")), ("another page".to_owned(), "another page".to_owned()));
    build.down();
}

#[test]
fn links_name_the_servers_for_the_proxy() {
    let host = Host::boot(&["haproxy"]);
    let links = Project::example(&host, "links");
    links.up();
    let answers: Vec<String> = (0..10).map(|_| curl(&host, "http://127.0.0.1:8081/")).collect();
    for site in ["weba", "webb"] {
        assert!(answers.iter().any(|answer| answer.contains(site)), "no answer of {site} in {answers:?}");
    }
    links.down();
}

#[test]
fn guestbook_keeps_its_entries_over_down_and_up() {
    let host = Host::boot(&["busybox", "redis"]);
    let guestbook = Project::example(&host, "guestbook");
    guestbook.up();
    curl(&host, "http://127.0.0.1:8082/cgi-bin/guestbook?ada");
    assert!(curl(&host, "http://127.0.0.1:8082/cgi-bin/guestbook").contains("ada"));
    guestbook.orch(&["down"]).ok();
    guestbook.up();
    assert!(curl(&host, "http://127.0.0.1:8082/cgi-bin/guestbook").contains("ada"), "the volume was kept");
    guestbook.down();
    assert_eq!(host.docker(&["volume", "ls", "-q"]), "", "`down -v` takes the volume");
}

#[test]
fn isolation_shows_nothing_of_a_network_not_shared() {
    let host = Host::boot(&["busybox"]);
    let isolation = Project::example(&host, "isolation");
    isolation.up();
    let (front, middle) = (isolation.container("front", 1), isolation.container("middle", 1));
    isolation.fetch(&front, "http://middle/");
    isolation.fetch(&middle, "http://vault/");

    let lookup = isolation.within(&front, "nslookup vault");
    assert_ne!(lookup.code, 0, "a name of a network not shared resolves: {}", lookup.stdout);
    for address in [
        isolation.within(&middle, "nslookup vault | awk '/^Address/ {a=$NF} END {print a}'").ok(),
        isolation.inspect(&isolation.container("vault", 1), "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"),
    ] {
        let done = isolation.within(&front, &format!("timeout 2 wget -q -O - http://{address}/"));
        assert_ne!(done.code, 0, "vault answers front at {address}: {}", done.stdout);
    }
    isolation.down();
}

#[test]
fn sidecar_keeps_pages_fresh_beside_a_server_that_comes_and_goes() {
    let host = Host::boot(&["nginx", "busybox"]);
    let sidecar = Project::example(&host, "sidecar");
    sidecar.up();
    let page = || curl(&host, "http://127.0.0.1:8083/");
    let pods: BTreeSet<String> =
        (1..=2).map(|number| sidecar.inspect(&format!("sidecar-web-{number}-pod"), "{{.Config.Hostname}}")).collect();
    let of = |page: &str| page.split([' ', ',', '.']).find(|word| pods.contains(*word)).map(str::to_owned);
    let seen: BTreeSet<String> = (0..10).filter_map(|_| of(&page())).collect();
    assert_eq!(seen, pods, "each replica has pages of its own");
    eventually(secs(10), "pages that were written while the server served", || {
        let page = page();
        if page.contains("served before: yes") { Ok(()) } else { Err(page) }
    });
    host.docker(&["kill", "sidecar-web-1"]);
    becomes(secs(10), "both replicas", &pods, || (0..10).filter_map(|_| of(&page())).collect());
    sidecar.down();
    assert_eq!(host.docker(&["volume", "ls", "-q"]), "");
}

#[test]
fn ambassador_counts_wherever_redis_is() {
    let host = Host::boot(&["busybox", "redis"]);
    let ambassador = Project::example(&host, "ambassador");
    ambassador.up();
    let count = || curl(&host, "http://127.0.0.1:8084/cgi-bin/counter").trim().parse::<u32>();
    assert_eq!(count(), Ok(1));
    assert_eq!(count(), Ok(2));
    // What the stand-in leads to is looked at anew for each connection.
    host.docker(&["pause", "ambassador-redis-1"]);
    eventually(secs(15), "the spare one counts", || {
        let counted = count();
        if counted == Ok(1) { Ok(()) } else { Err(counted) }
    });
    ambassador.down();
}

#[test]
fn patterns_refresh_a_page_that_is_counted_wherever_redis_is() {
    let host = Host::boot(&["nginx", "busybox", "redis"]);
    let patterns = Project::example(&host, "patterns");
    let expanded = patterns.orch(&["config", "--expanded"]).ok();
    assert!(
        expanded.contains("# pattern content-refresher:") && expanded.contains("# pattern redis-ambassador:"),
        "{expanded}"
    );
    patterns.up();
    let page = || curl(&host, "http://127.0.0.1:8087/").trim().parse::<u32>();
    let first = page().expect("the init container has fetched before the server starts");
    eventually(secs(15), "a page that was fetched again and again", || match page() {
        Ok(count) if count >= first + 2 => Ok(()),
        other => Err(format!("first {first}, now {other:?}")),
    });
    patterns.down();
    assert_eq!(host.docker(&["volume", "ls", "-q"]), "");
}

/// Asks by a name that is this machine, as browsers and newer versions of curl do for names below `localhost`.
fn shop(host: &Host, args: &[&str], name: &str, path: &str) -> String {
    let here = format!("{name}:8088:127.0.0.1");
    curl_with(host, &[&["--resolve", &here], args].concat(), &format!("http://{name}:8088{path}"))
}

#[test]
fn routes_tell_services_apart_by_host_path_method_header_and_weight() {
    let host = Host::boot(&["nginx"]);
    let routes = Project::example(&host, "routes");
    routes.up();
    let ask = |args: &[&str], name: &str, path: &str| shop(&host, args, name, path);
    assert_eq!(ask(&[], "shop.localhost", "/"), "Welcome to the shop.\n");
    let orders = ask(&["-d", "book"], "shop.localhost", "/api/orders");
    assert!(orders.contains("orders") && orders.contains("POST /api/orders"), "{orders}");
    let next = ask(&["-H", "X-Version: next"], "shop.localhost", "/api/prices?of=tea");
    assert!(next.contains("api-next") && next.contains("GET /prices?of=tea"), "{next}");
    assert!(ask(&[], "mia.shop.localhost", "/").contains("tenants"));

    // Shares are by number of requests, not by chance: of twenty, four.
    let here = "shop.localhost:8088:127.0.0.1";
    let prices = "http://shop.localhost:8088/api/prices?[1-20]";
    let answers = host.exec(&["curl", "-fsS", "-m", "20", "--resolve", here, "-w", "|", prices]).ok();
    let answers: Vec<&str> = answers.split_terminator('|').collect();
    let next = answers.iter().filter(|answer| answer.contains("api-next")).count();
    assert_eq!((next, answers.len()), (4, 20), "a fifth of {answers:?}");

    let sent = ask(&["-i"], "www.shop.localhost", "/sale?half=yes");
    assert!(sent.starts_with("HTTP/1.1 302") && sent.contains("http://shop.localhost:8088/sale?half=yes"), "{sent}");
    let status =
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: elsewhere", "http://127.0.0.1:8088/"];
    assert_eq!(host.exec(&status).stdout, "404");
    let tunnel = ["curl", "-s", "--resolve", here, "-X", "CONNECT", "http://shop.localhost:8088/"];
    let tunnel = host.exec(&tunnel).stdout;
    assert!(tunnel.starts_with("405 Method Not Allowed"), "{tunnel}");
    let why = host.orch(&["why", "-X", "CONNECT", "http://shop.localhost:8088/"]);
    assert!(why.stdout.contains("answered with 405"), "{why:?}");

    routes.down();
    assert_ne!(host.exec(&["curl", "-s", "-m", "2", "http://127.0.0.1:8088/"]).code, 0, "nobody listens any more");
}

#[test]
fn grpc_calls_of_one_connection_are_spread() {
    let host = Host::boot(&[]);
    let grpc = Project::example(&host, "grpc");
    grpc.up();
    let say = |args: &[&str]| host.orch(&[&["demo", "grpc-say", "127.0.0.1:8089"], args].concat());
    let answers = say(&["hello", "--calls", "6"]).ok();
    let names: BTreeSet<&str> = answers.lines().filter_map(|line| line.strip_suffix(" hello")).collect();
    let replicas = grpc.running("echo");
    assert_eq!(names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), replicas, "{answers}");

    let stream = say(&["one", "two", "three"]).ok();
    let names: BTreeSet<&str> = stream.lines().filter_map(|line| line.split_once(' ')).map(|(name, _)| name).collect();
    assert_eq!(names.len(), 2, "one replica, and the line with the status: {stream}");
    assert_eq!(say(&["fail 5"]).code, 5, "the status is in the trailers");
    let by_name = grpc.orch(&["exec", "-T", "client", "/orch", "demo", "grpc-say", "echo:50051", "hello"]).ok();
    assert!(by_name.contains(" hello") && by_name.contains("status 0"), "{by_name}");
    grpc.down();
}

#[test]
fn websocket_stays_with_its_server_beside_pages_at_one_port() {
    let host = Host::boot(&["nginx"]);
    let websocket = Project::example(&host, "websocket");
    websocket.up();
    assert!(curl(&host, "http://127.0.0.1:8090/").contains("new WebSocket(`ws://${location.host}/talk`)"));
    let say =
        |words: &[&str]| host.orch(&[&["demo", "ws-say", "127.0.0.1:8090", "--path", "/talk"], words].concat()).ok();
    let who = |answers: &str| -> BTreeSet<String> {
        answers.lines().filter_map(|line| line.split_once(' ')).map(|(name, _)| name.to_owned()).collect()
    };
    let one = say(&["hello", "again", "--pause", "1"]);
    assert_eq!((one.lines().count(), who(&one).len()), (2, 1), "{one}");
    let all: BTreeSet<String> = (0..12).flat_map(|_| who(&say(&["hello"]))).collect();
    assert_eq!(all, websocket.running("talk"), "each socket may have another");
    websocket.down();
}

#[test]
fn guestbook_over_three_hosts_answers_the_same_on_each() {
    let cluster = three_hosts(&["busybox", "redis"]);
    let guestbook = Project::example(&cluster.desk, "guestbook");
    guestbook.up();
    let page = "http://127.0.0.1:8082/cgi-bin/guestbook";
    let everywhere = |wanted: &[&str]| {
        for node in cluster.nodes() {
            assert_eq!(curl(node, page).lines().collect::<Vec<_>>(), wanted, "{}", node.name());
        }
    };
    curl(&cluster[1], &format!("{page}?ada"));
    curl(&cluster[2], &format!("{page}?grace"));
    everywhere(&["ada", "grace"]);
    guestbook.orch(&["down"]).ok();
    guestbook.up();
    everywhere(&["ada", "grace"]);
    guestbook.down();
}

#[test]
fn multi_host_is_placed_by_spread_constraint_and_one_on_each() {
    let cluster = three_hosts(&[]);
    let desk = &cluster.desk;
    for (host, labels) in [("a", &["rack=1", "disk=ssd"][..]), ("b", &["rack=1"]), ("c", &["rack=2", "disk=ssd"])] {
        desk.orch(&[&["host", "label", host], labels].concat()).ok();
    }
    let project = Project::example(desk, "multi-host");
    let plan = project.orch(&["plan"]).ok();
    let planned = |host: &str, pod: &str| {
        let steps = plan.split("on ").find_map(|steps| steps.strip_prefix(&format!("{host}:\n"))).unwrap_or_default();
        steps.lines().any(|line| line.contains(&format!("create container multi-host-{pod}")))
    };
    for host in ["a", "b", "c"] {
        assert!(planned(host, "web") && planned(host, "watch"), "{host} in {plan}");
        assert_eq!(planned(host, "index"), host != "b", "{host} in {plan}");
    }
    project.up();
    assert_eq!(spread(&project, "web"), on(&[("a", 1), ("b", 1), ("c", 2)]));
    assert_eq!(spread(&project, "index"), on(&[("a", 1), ("c", 1)]));
    assert_eq!(spread(&project, "watch"), on(&[("a", 1), ("b", 1), ("c", 1)]));
    assert!(project.orch(&["ps"]).ok().lines().next().is_some_and(|head| head.contains("HOST")));

    let running = |service: &str| -> BTreeSet<String> {
        let on_each = cluster.nodes().iter().map(|node| Project::example(node, "multi-host").running(service));
        on_each.flatten().collect()
    };
    for (service, url) in [("web", "http://127.0.0.1:8085/"), ("index", "http://127.0.0.1:8086/")] {
        for node in cluster.nodes() {
            let answering = || -> BTreeSet<String> { (0..10).map(|_| host_name(&curl(node, url))).collect() };
            let answered = answering();
            assert!(answered.is_subset(&running(service)) && !answered.is_empty(), "{service} on {}", node.name());
        }
    }
    // On `b`, where none of it is, those of both other hosts answer.
    let answered = (0..20).map(|_| host_name(&curl(&cluster[2], "http://127.0.0.1:8086/"))).collect();
    assert_eq!(running("index"), answered);

    let refused = project.orch(&["up", "-d", "--wait", "--scale", "index=3"]);
    refused.refused(1, &["`b`: constraint `node.labels.disk == ssd` not met", "limit of 1 replicas a host reached"]);
    assert_eq!(spread(&project, "index"), on(&[("a", 1), ("c", 1)]));
    project.down();
}

#[test]
fn voting_loses_no_vote_whatever_container_is_killed() {
    let cluster = three_hosts(&["busybox", "redis", "postgres"]);
    let voting = Project::example(&cluster.desk, "voting");
    voting.up();
    let vote = |at: usize, voter: u32, choice: &str| {
        let (cookie, body) = (format!("voter={voter}"), format!("choice={choice}"));
        let page = "http://127.0.0.1:8091/cgi-bin/vote";
        let answer = curl_with(&cluster[at], &["-b", &cookie, "-d", &body], page);
        assert!(answer.contains(&format!("voted for {choice}")), "{answer}");
    };
    let counted = |wanted: &str| {
        for node in cluster.nodes() {
            becomes(secs(30), &format!("the counts on {}", node.name()), &wanted.to_owned(), || {
                curl(node, "http://127.0.0.1:8092/")
            });
        }
    };
    vote(1, 1, "cats");
    vote(2, 2, "dogs");
    counted("cats 1\ndogs 1\n");
    vote(3, 2, "cats");
    counted("cats 2\n");
    let hidden = voting.orch(&["exec", "-T", "web", "nslookup", "postgres"]);
    assert_ne!(hidden.code, 0, "the voters' page sees the database: {}", hidden.stdout);

    for (count, service) in (0..).zip(["worker", "redis", "postgres", "worker"]) {
        for voter in 0..3 {
            vote(1, 10 + count * 10 + voter, "cats");
        }
        host_of(&cluster, &voting, service).docker(&["kill", &voting.container(service, 1)]);
        for voter in 3..6 {
            vote(2, 10 + count * 10 + voter, "dogs");
        }
    }
    counted("cats 14\ndogs 12\n");

    voting.orch(&["down"]).ok();
    voting.up();
    vote(3, 3, "dogs");
    counted("cats 14\ndogs 13\n");
    voting.down();
    for node in cluster.nodes() {
        let volumes = node.docker(&["volume", "ls", "-q", "--filter", "label=com.docker.compose.project=voting"]);
        assert_eq!(volumes, "", "`down -v` takes the volumes of {}", node.name());
    }
}

/// All examples that fit together are up at once on three hosts, and each answers at its place on each of them.
#[test]
fn each_address_of_each_example_answers_on_each_of_three_hosts() {
    let cluster = three_hosts(&["busybox", "nginx", "redis", "haproxy"]);
    let desk = &cluster.desk;
    let names = ["hello", "links", "guestbook", "sidecar", "ambassador", "routes", "grpc", "websocket", "udp"];
    let projects: Vec<Project<'_>> = names.into_iter().map(|name| Project::example(desk, name)).collect();
    for project in &projects {
        project.up();
    }
    for node in cluster.nodes() {
        for (url, words) in [
            ("http://127.0.0.1:8080/", "Hostname:"),
            ("http://127.0.0.1:8081/", ""),
            ("http://127.0.0.1:8082/cgi-bin/guestbook?ada", ""),
            ("http://127.0.0.1:8083/", "served before"),
            ("http://127.0.0.1:8084/cgi-bin/counter", ""),
            ("http://127.0.0.1:8090/", "new WebSocket("),
        ] {
            let answer = curl(node, url);
            assert!(answer.contains(words), "{url} on {}: {answer}", node.name());
        }
        assert_eq!(shop(node, &[], "shop.localhost", "/"), "Welcome to the shop.\n", "{}", node.name());
        assert!(shop(node, &[], "shop.localhost", "/api/prices").contains("GET /prices"), "{}", node.name());
        assert!(shop(node, &["-d", "book"], "shop.localhost", "/api/orders").contains("orders"), "{}", node.name());
        assert!(shop(node, &[], "mia.shop.localhost", "/").contains("tenants"), "{}", node.name());
        let said = node.orch(&["demo", "grpc-say", "127.0.0.1:8089", "hello"]).ok();
        assert!(said.contains(" hello") && said.contains("status 0"), "{}: {said}", node.name());
        let said = node.orch(&["demo", "ws-say", "127.0.0.1:8090", "--path", "/talk", "hello"]).ok();
        assert!(said.contains(" hello"), "{}: {said}", node.name());
        let said = node.orch(&["demo", "datagrams", "127.0.0.1:8093", "--count", "5"]).ok();
        let said: Value = serde_json::from_str(&said).expect("counts");
        assert_eq!((&said["sent"], &said["answered"]), (&5.into(), &5.into()), "{}: {said}", node.name());
    }

    // The agent that takes the requests of one host goes: the others answer on, and it does once it is back.
    let ask = |at: usize| {
        let here = "shop.localhost:8088:127.0.0.1";
        let url = "http://shop.localhost:8088/";
        cluster[at].exec(&["curl", "-fsS", "-m", "5", "--resolve", here, url]).code == 0
    };
    for round in 0..3 {
        cluster[1].sh("kill -9 $(docker inspect -f {{.State.Pid}} orch-agent)");
        assert!(ask(2) && ask(3), "round {round}: the other hosts answer meanwhile");
        becomes(secs(20), "it answers again", &true, || ask(1));
    }
    for project in projects.iter().rev() {
        project.down();
    }
}
