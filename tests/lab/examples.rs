//! Each folder of `compose-examples` does what its page says.

use crate::host::Host;
use crate::project::{Project, host_name};
use crate::wait::{eventually, secs};

/// Asks the host's published port as its user would, until it answers.
#[track_caller]
fn curl(host: &Host, url: &str) -> String {
    eventually(secs(10), url, || {
        let done = host.exec(&["curl", "-fsS", "-m", "2", url]);
        if done.code == 0 { Ok(done.stdout) } else { Err(done.stderr) }
    })
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
