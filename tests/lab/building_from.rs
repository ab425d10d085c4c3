//! What builds take from elsewhere: repositories over SSH, base images that only a login gets, rights that an engine gives.

use crate::cluster::Cluster;
use crate::host::Host;
use crate::project::Project;
use crate::registry::{RIGHT, publish, serve};

/// A repository of two commits, of which `v1` has a directory `sub` that builds on `base`.
fn repository(host: &Host, base: &str) {
    host.sh(&format!(
        "mkdir repo; cd repo; git init -q -b main; mkdir sub; printf 'FROM {base}\\nCOPY page /page\\n' >sub/Dockerfile; \
         echo kept >sub/page; git add .; git -c user.name=me -c user.email=me@a.example commit -qm one; git tag v1; \
         git rm -qr sub; git -c user.name=me -c user.email=me@a.example commit -qm two"
    ));
}

#[test]
fn a_repository_comes_over_ssh_and_its_private_base_by_the_users_login_with_either_builder() {
    let cluster = Cluster::boot(2, &[]);
    let (desk, origin) = (cluster.let_in(1), &cluster[2]);
    origin.load(&["busybox"]);
    let registry = serve(origin);
    let base = publish(origin, &registry, "base");
    repository(origin, &base);
    // To BuildKit of this engine a registry without certificates is one that is named so, and not by its network.
    desk.sh(&format!("sed -i 's#\"insecure-registries\": \\[#&\"http://{registry}\", #' /etc/docker/daemon.json"));
    desk.restart_engine();
    let built = format!("{registry}/team/built:1");
    let address = origin.address();
    let project = Project::new(desk, "from", "");
    let of =
        |context: &str| project.rewrite_all(&format!("services: {{web: {{image: '{built}', build: '{context}'}}}}\n"));
    let build = |kit: &str, flags: &str| {
        let script =
            format!("DOCKER_BUILDKIT={kit} /opt/orch/orch -f /root/from/compose.yaml build --no-cache {flags}");
        desk.exec(&["sh", "-c", &script])
    };
    let auths = |secret: &str| format!(r#"{{"auths": {{"{registry}": {{"auth": "{secret}"}}}}}}"#);
    of(&format!("ssh://root@{address}/root/repo#v1:sub"));
    for kit in ["0", "1"] {
        desk.write("/root/.docker/config.json", "{}");
        build(kit, "").refused(1, &["service `web` could not be built: "]);
        desk.write("/root/.docker/config.json", &auths(RIGHT));
        build(kit, "--push").ok();
        assert_eq!(desk.docker(&["run", "--rm", "--network", "none", &built, "cat", "/tag", "/page"]), "base\nkept");
        // What was pushed is what was built, and the engine keeps neither.
        let id = |host: &Host| host.docker(&["image", "inspect", "-f", "{{.Id}}", &built]);
        let made = id(desk);
        desk.sh(&format!("docker rmi {built} && docker image prune -af && docker builder prune -af"));
        project.orch(&["pull", "-q"]).ok();
        assert_eq!(id(desk), made);
        desk.sh(&format!("docker rmi {built} && docker image prune -af"));
    }
    // The other form of an address over SSH, of whoever `git` is there.
    origin.sh(
        "useradd -m git; usermod -p '*' git; mkdir -p /home/git/.ssh; cp /root/.ssh/authorized_keys /home/git/.ssh/; \
         cp -r repo /home/git/; chown -R git: /home/git",
    );
    of(&format!("git@{address}:repo#v1:sub"));
    build("1", "").ok();
    of(&format!("ssh://root@{address}/root/repo#v2"));
    build("1", "").refused(1, &["git could not fetch", &format!("ssh://root@{address}/root/repo")]);
    of(&format!("ssh://root@{address}/root/repo#main:sub"));
    build("1", "").refused(1, &[&format!("the repository `ssh://root@{address}/root/repo` has no directory `sub`")]);
    assert_eq!(desk.sh("ls -d /tmp/orch-build-* 2>/dev/null | wc -l"), "0");
    let found =
        desk.exec(&["sh", "-c", &format!("grep -rlFa -e {RIGHT} /var/lib/docker/image /var/lib/docker/buildkit /tmp")]);
    assert_eq!(found.stdout, "", "the login stays with the user");
}

#[test]
fn a_build_has_the_rights_that_the_file_asks_for_and_the_engine_gives() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "rights", "");
    let of = |rights: &str| {
        let run = "FROM busybox\\nRUN grep -c docker0 /proc/net/dev >/seen; true\\n";
        project.rewrite_all(&format!("services: {{web: {{build: {{{rights}, dockerfile_inline: \"{run}\"}}}}}}\n"));
        project.orch(&["build", "--no-cache"])
    };
    let seen = || host.docker(&["run", "--rm", "--network", "none", "rights-web", "cat", "/seen"]);
    of("network: none").ok();
    assert_eq!(seen(), "0");
    of("network: host, entitlements: [network.host]").ok();
    assert_eq!(seen(), "1");
    for asked in ["privileged: true", "entitlements: [security.insecure]"] {
        of(asked).refused(1, &["service `web` could not be built: ", "security.insecure is not allowed"]);
    }
    host.write("/etc/docker/daemon.json", r#"{"builder": {"Entitlements": {"security-insecure": true}}}"#);
    host.restart_engine();
    of("privileged: true, entitlements: [network.host]").ok();
}
