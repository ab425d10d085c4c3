//! Which pod is chosen: by what pods answer to their host's agent, and by what a service says.

use std::collections::BTreeSet;

use crate::host::Host;
use crate::project::{Project, host_name};
use crate::wait::{becomes, eventually, secs};

/// Asks from the host; returns what curl prints of the answer, with its head.
fn curl(host: &Host, args: &[&str]) -> String {
    let argv = [&["curl", "-s", "-m", "5"], args].concat();
    host.exec(&argv).ok()
}

/// The containers that answer `times` requests, by their short ids.
fn answering(host: &Host, times: usize, args: &[&str]) -> BTreeSet<String> {
    (0..times).map(|_| host_name(&curl(host, args))).collect()
}

fn short_id(project: &Project<'_>, container: &str) -> String {
    project.inspect(container, "{{.Id}}")[..12].to_owned()
}

/// Has a web server answer `/health` badly, or well again.
fn set_health(project: &Project<'_>, client: &str, container: &str, ok: bool) {
    // The answer to a bad one is bad itself.
    project.within(client, &format!("wget -q -O - 'http://{container}/health?ok={ok}'"));
}

#[test]
fn a_pod_that_answers_its_probe_badly_gets_nothing_and_lives_on() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web:
    <<: *web
    ports: ['8080:80']
    deploy: {replicas: 2}
    x-probe: {http: /health, port: 80, interval: 200ms, failures: 2}
  client:
    <<: *client
    depends_on: {web: {condition: service_healthy}}
";
    let project = Project::new(&host, "asked", yaml);
    project.up();
    let url = format!("http://{}:8080/", host.address());
    let [first, second] = ["asked-web-1", "asked-web-2"].map(|name| short_id(&project, name));
    let listed = || project.orch(&["ps"]).ok();
    assert_eq!(listed().matches("(healthy)").count(), 2, "{}", listed());
    assert_eq!(answering(&host, 20, &[&url]), BTreeSet::from([first.clone(), second.clone()]));

    let lives = project.lives();
    set_health(&project, "asked-client-1", "asked-web-1", false);
    becomes(secs(10), "shown as the engine's would be", &1, || listed().matches("(unhealthy)").count());
    assert_eq!(answering(&host, 20, &[&url]), BTreeSet::from([second.clone()]));
    let why = project.orch(&["why", "web"]);
    let told = format!("{}{}", why.stdout, why.stderr);
    assert!(told.contains("its probe fails: 503 Service Unavailable"), "{told}");
    assert_eq!(
        project.within("asked-client-1", "nslookup tasks.web").stdout.matches("Address").count(),
        2,
        "server and one"
    );

    // Another agent asks before it tells anybody anything.
    host.sh("kill -9 $(docker inspect -f {{.State.Pid}} orch-agent)");
    eventually(secs(20), "the agent is back", || match project.orch(&["ps"]) {
        done if done.code == 0 && done.stdout.contains("(healthy)") => Ok(()),
        done => Err(done),
    });
    assert_eq!(answering(&host, 20, &[&url]), BTreeSet::from([second.clone()]));

    set_health(&project, "asked-client-1", "asked-web-1", true);
    becomes(secs(10), "ready again", &2, || listed().matches("(healthy)").count());
    assert_eq!(answering(&host, 20, &[&url]), BTreeSet::from([first, second]));
    assert_eq!(project.lives(), lives, "nothing was restarted");
}

#[test]
fn a_client_keeps_its_pod_until_that_answers_too_badly() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web:
    <<: *web
    ports: [{target: 80, published: '8080', app_protocol: http}]
    deploy: {replicas: 3}
    x-balance: {by: round-robin, sticky: {cookie: pod, ttl: 1h}, eject: {failures: 3, pause: 2m, at_most: 50%}}
  client: *client
";
    let project = Project::new(&host, "sticky", yaml);
    project.up();
    let url = format!("http://{}:8080/", host.address());
    let all: BTreeSet<String> = (1..=3).map(|number| short_id(&project, &project.container("web", number))).collect();
    assert_eq!(answering(&host, 3, &[&url]), all, "one after the other");
    let answer = curl(&host, &["-i", &url]);
    let set =
        answer.lines().find_map(|line| line.strip_prefix("Set-Cookie: pod=")).expect("a cookie").trim().to_owned();
    let (token, attributes) = set.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
    let cookie = format!("Cookie: pod={token}");
    let own = answering(&host, 10, &["-H", &cookie, &url]);
    assert_eq!(own.len(), 1, "{own:?}");
    let own = own.first().expect("one").clone();
    assert!(!curl(&host, &["-i", "-H", &cookie, &url]).contains("Set-Cookie"), "it has it");

    let name = (1..=3).map(|number| project.container("web", number));
    let name = name.into_iter().find(|name| short_id(&project, name) == own).expect("one of them");
    set_health(&project, "sticky-client-1", &name, false);
    let health = format!("{url}health");
    let status = |args: &[&str]| curl(&host, &[&["-o", "/dev/null", "-w", "%{http_code}"], args].concat());
    for _ in 0..3 {
        assert_eq!(status(&["-H", &cookie, &health]), "503", "the pod's own answer");
    }
    assert_eq!(status(&["-H", &cookie, &health]), "200", "another one's");
    let others: BTreeSet<String> = all.into_iter().filter(|id| *id != own).collect();
    assert_eq!(answering(&host, 10, &[&url]), others);
    let moved = curl(&host, &["-i", "-H", &cookie, &url]);
    let set = moved.lines().find(|line| line.starts_with("Set-Cookie: pod=")).expect("a cookie");
    assert!(!set.contains(token), "{set} after {token}");
    let shown = project.orch(&["lb", "--no-stream"]).ok();
    assert_eq!(shown.matches("ejected").count(), 1, "{shown}");
}
