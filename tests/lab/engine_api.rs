//! `use_api_socket`: containers that command the engine that they are on, with the logins of the user.

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::Host;
use crate::project::Project;

const YAML: &str = "\
services:
  ops: {<<: *client, use_api_socket: true}
  own: {<<: *client, use_api_socket: true, environment: {DOCKER_CONFIG: /mine}}
  other: {<<: *client}
";

#[test]
fn a_container_has_the_engines_socket_and_the_users_logins_which_are_kept_as_a_secret() {
    let host = Host::boot(&["busybox"]);
    // `me:s3cret`
    host.write("/root/.docker/config.json", "{\"auths\": {\"registry.example\": {\"auth\": \"bWU6czNjcmV0\"}}, \"credHelpers\": {\"gone.example\": \"gone\"}}");
    let project = Project::new(&host, "api", YAML);
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(done.stderr.contains("rules the host") && done.stderr.contains("gone.example"), "{}", done.stderr);
    assert!(!done.stderr.contains("s3cret") && !done.stderr.contains("bWU6czNjcmV0"), "{}", done.stderr);
    done.ok();
    assert!(host.docker(&["exec", "api-ops-1", "ls", "-l", "/var/run/docker.sock"]).starts_with('s'));
    let config = |container: &str| project.within(container, "cat $DOCKER_CONFIG/config.json").stdout;
    assert!(config("api-ops-1").contains("\"auth\": \"bWU6czNjcmV0\""), "{}", config("api-ops-1"));
    assert_ne!(project.within("api-ops-1", "echo >> /run/secrets/docker/config.json").code, 0, "it is read-only");
    let mounts = project.inspect("api-own-1", "{{range .Mounts}}{{.Destination}} {{end}}");
    assert!(mounts.contains("/var/run/docker.sock") && !mounts.contains("config.json"), "{mounts}");
    assert_ne!(project.within("api-other-1", "test -e /var/run/docker.sock").code, 0);
    // Neither what the engine shows nor what is kept on disk tells it.
    let shown = host.docker(&["inspect", "api-ops-1"]);
    assert!(!shown.contains("bWU6czNjcmV0") && !shown.contains("s3cret"), "{shown}");
    assert_eq!(host.sh("grep -rl bWU6czNjcmV0 /var/lib/orch | wc -l"), "0");
    assert_eq!(host.sh("docker logs orch-agent 2>&1 | grep -c bWU6czNjcmV0 || true"), "0");
    assert!(!project.orch(&["config"]).ok().contains("bWU6czNjcmV0"));
    let before = (project.running("ops"), project.running("other"));
    project.up();
    assert_eq!((project.running("ops"), project.running("other")), before, "nothing changed");
    host.write("/root/.docker/config.json", "{\"auths\": {\"registry.example\": {\"auth\": \"bWU6bmV3\"}}}");
    project.up();
    assert!(config("api-ops-1").contains("bWU6bmV3"));
    assert_ne!(project.running("ops"), before.0, "the logins changed");
    assert_eq!(project.running("other"), before.1);
    host.write("/root/.docker/config.json", "{\"auths\": ");
    project.orch(&["up", "-d"]).refused(1, &["use_api_socket", "config.json"]);
    project.down();
}

#[test]
fn on_several_hosts_it_is_the_engine_of_the_containers_own_host() {
    let cluster = Cluster::boot(2, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2]).ok();
    desk.write("/root/.docker/config.json", "{\"auths\": {\"registry.example\": {\"auth\": \"bWU6czNjcmV0\"}}}");
    let project =
        Project::new(desk, "far", "services:\n  ops: {<<: *client, use_api_socket: true, deploy: {mode: global}}\n");
    project.orch(&["up", "-d", "--wait"]).ok();
    for (node, number) in [(1, 1), (2, 2)] {
        let container = format!("far-ops-{number}");
        let there = cluster[node].docker(&[
            "exec",
            &container,
            "sh",
            "-c",
            "cat $DOCKER_CONFIG/config.json; stat -c %i /var/run/docker.sock",
        ]);
        let socket = cluster[node].sh("stat -c %i /var/run/docker.sock");
        assert!(there.contains("bWU6czNjcmV0") && there.ends_with(&socket), "{there}, and the socket is {socket}");
    }
    project.orch(&["down"]).ok();
}
