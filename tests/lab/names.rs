//! What a container can resolve, and what the addresses it gets are good for.

use std::collections::BTreeSet;

use crate::host::Host;
use crate::project::Project;
use crate::wait::{becomes, eventually, secs};

/// Asks the resolver of a container as `dig` does, from the container's own address; `+short` form, sorted.
#[track_caller]
pub(crate) fn dig(project: &Project, container: &str, question: &str) -> BTreeSet<String> {
    let resolver = project.within(container, "awk '/^nameserver/ {print $2; exit}' /etc/resolv.conf").ok();
    let server = format!("@{resolver}");
    let words = ["dig", "+short", "+tries=1", "+time=3", &server];
    let argv: Vec<&str> = words.into_iter().chain(question.split(' ')).collect();
    let answer = eventually(secs(15), question, || {
        let done = project.host.exec_beside(container, &argv);
        if done.code == 0 { Ok(done.stdout) } else { Err(done) } // 9: no reply
    });
    answer.lines().map(str::to_owned).collect()
}

/// Returns the status (`NOERROR`, `NXDOMAIN`) of the answer to a question.
#[track_caller]
fn status(project: &Project, container: &str, question: &str) -> String {
    let resolver = project.within(container, "awk '/^nameserver/ {print $2; exit}' /etc/resolv.conf").ok();
    let server = format!("@{resolver}");
    let argv: Vec<&str> = ["dig", "+tries=1", "+time=3", &server].into_iter().chain(question.split(' ')).collect();
    let text = project.host.exec_beside(container, &argv).ok();
    let word = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
    word.unwrap_or_else(|| panic!("no status in: {text}")).to_owned()
}

fn addresses(project: &Project, service: &str) -> BTreeSet<String> {
    let ids = project.running(service);
    ids.iter().map(|id| project.inspect(id, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")).collect()
}

#[test]
fn services_aliases_tasks_and_replicas_have_names() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *web, container_name: web, networks: {default: {aliases: [www]}}, expose: ['80']}
  many: {<<: *web, deploy: {replicas: 3}, expose: ['80']}
  direct: {<<: *web, deploy: {replicas: 2, endpoint_mode: dnsrr}}
  client: {<<: *client, links: ['many:lots']}
  other: *client
";
    let project = Project::new(&host, "names", yaml);
    project.up();
    let client = "names-client-1";
    let ask = |question: &str| dig(&project, client, question);

    let vip = ask("web");
    assert_eq!(vip.len(), 1, "one address: {vip:?}");
    assert_ne!(vip, addresses(&project, "web"), "the virtual address, also where the container has the service's name");
    for same in ["www", "web.names.orch.internal", "WEB", "+tcp web"] {
        assert_eq!(ask(same), vip, "{same}");
    }
    assert_eq!(ask("lots"), ask("many"), "a link's alias");
    assert_eq!(dig(&project, "names-other-1", "lots"), BTreeSet::new(), "the alias is the linking service's own");
    assert_eq!(ask("tasks.many"), addresses(&project, "many"));
    assert_eq!(ask("direct"), addresses(&project, "direct"), "endpoint_mode: dnsrr");
    for number in 1..=3 {
        let address = project
            .inspect(&format!("names-many-{number}"), "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
        assert_eq!(ask(&format!("{number}.many")), BTreeSet::from([address.clone()]));
        let back = ask(&format!("-x {address}"));
        assert!(back.iter().any(|name| name.starts_with(&format!("{number}.many."))), "PTR of {address}: {back:?}");
    }
    let services = ask("_80._tcp.many SRV");
    assert!(
        services.iter().all(|row| row.split(' ').nth(2) == Some("80")) && !services.is_empty(),
        "SRV: {services:?}"
    );

    assert_eq!(status(&project, client, "web AAAA"), "NOERROR", "no IPv6 address is not an error");
    assert_eq!(status(&project, client, "nobody.names.orch.internal"), "NXDOMAIN");
}

#[test]
fn names_follow_the_containers() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *web, deploy: {replicas: 2}}
  client: *client
";
    let project = Project::new(&host, "follow", yaml);
    project.up();
    let vip = dig(&project, "follow-client-1", "web");
    for replicas in ["web=4", "web=1", "web=3"] {
        project.orch(&["up", "-d", "--wait", "--scale", replicas]).ok();
        becomes(secs(3), replicas, &addresses(&project, "web"), || dig(&project, "follow-client-1", "tasks.web"));
        assert_eq!(dig(&project, "follow-client-1", "web"), vip, "the virtual address stays");
    }
    assert_eq!(project.answering("follow-client-1", "http://web/", 12), project.running("web"));
}

#[test]
fn other_names_go_to_the_resolvers_of_the_host() {
    let host = Host::boot(&["busybox"]);
    // A resolver of the host's own, on an address that its containers reach.
    host.write("/root/unbound.conf", &format!(
        "server:\n  interface: {0}\n  access-control: 0.0.0.0/0 allow\n  username: ''\n  chroot: ''\n  pidfile: ''\n  \
         directory: /root\n  local-zone: example. static\n  local-data: 'www.example. 60 IN A 192.0.2.7'\n  \
         local-data: 'www.example. 60 IN AAAA 2001:db8::7'\n", host.address()));
    host.write("/etc/resolv.conf", &format!("nameserver {}\n", host.address()));
    host.sh("unbound -c /root/unbound.conf; true");
    let project = Project::new(
        &host,
        "forward",
        "\
services:
  client: *client
",
    );
    project.up();
    let ask = |question: &str| dig(&project, "forward-client-1", question);
    eventually(secs(15), "an answer of the host's resolver", || {
        let seen = ask("www.example");
        if seen == BTreeSet::from(["192.0.2.7".to_owned()]) { Ok(()) } else { Err(seen) }
    });
    assert_eq!(ask("www.example AAAA"), BTreeSet::from(["2001:db8::7".to_owned()]));
    assert_eq!(status(&project, "forward-client-1", "nothing.example"), "NXDOMAIN");
    host.sh("kill $(pidof unbound)");
    assert_eq!(ask("www.example"), BTreeSet::from(["192.0.2.7".to_owned()]), "from the cache");
}

#[test]
fn a_link_names_a_service_on_every_network_that_is_shared_and_no_other() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  db: {<<: *web, networks: [back]}
  app: {<<: *client, networks: [back, front], links: ['db:database']}
  page: {<<: *client, networks: [front]}
networks: {back: {internal: true}, front: {}}
";
    let project = Project::new(&host, "links", yaml);
    project.up();
    project.fetch("links-app-1", "http://database/");
    assert_eq!(dig(&project, "links-app-1", "database"), dig(&project, "links-app-1", "db"));
    assert_eq!(dig(&project, "links-page-1", "db"), BTreeSet::new());
    assert_eq!(dig(&project, "links-page-1", "database"), BTreeSet::new());
}
