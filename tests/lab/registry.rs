//! Images from a registry that wants to know who asks.

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::Host;
use crate::looking::Reference;
use crate::project::Project;
use crate::wait::{eventually, secs};

const PASSWORD: &str = "s3cret-of-the-lab";
/// `me:s3cret-of-the-lab`, as `docker login` writes it.
pub(crate) const RIGHT: &str = "bWU6czNjcmV0LW9mLXRoZS1sYWI=";
/// `me:another`.
const WRONG: &str = "bWU6YW5vdGhlcg==";
/// The password as the registry knows it.
const HTPASSWD: &str = "me:$2b$05$75Hy/.Cq.gP42xnKIoLzqeGnCZX7GXmoMl.AysTTKjGIQ7YXkH.WS\n";

/// A registry on a host, at port 5000, which lets `me` in.
pub(crate) fn serve(host: &Host) -> String {
    host.write("/root/registry/htpasswd", HTPASSWD);
    host.write(
        "/root/registry/config.yml",
        "version: 0.1\nstorage: {filesystem: {rootdirectory: /root/registry/data}}\nhttp: {addr: ':5000'}\n\
         auth: {htpasswd: {realm: lab, path: /root/registry/htpasswd}}\n",
    );
    host.sh("setsid docker-registry serve /root/registry/config.yml </dev/null >/var/log/registry.log 2>&1 &");
    let address = format!("{}:5000", host.address());
    eventually(secs(20), "the registry to let its user in", || {
        let done = host.exec(&["docker", "login", "-u", "me", "-p", PASSWORD, &address]);
        if done.code == 0 { Ok(()) } else { Err(done.stderr) }
    });
    address
}

/// Makes an image of its own in the registry that no engine has any more.
pub(crate) fn publish(host: &Host, address: &str, tag: &str) -> String {
    let image = format!("{address}/team/app:{tag}");
    host.docker(&["run", "--name", "make", "--network", "none", "busybox", "sh", "-c", &format!("echo {tag} >/tag")]);
    host.docker(&["commit", "make", &image]);
    host.docker(&["rm", "make"]);
    host.docker(&["push", &image]);
    host.docker(&["rmi", &image]);
    image
}

#[test]
fn images_are_pulled_on_all_hosts_with_the_users_login_which_stays_with_the_user() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    cluster[1].load(&["busybox"]);
    let registry = serve(&cluster[1]);
    let (one, two) = (publish(&cluster[1], &registry, "1"), publish(&cluster[1], &registry, "2"));
    cluster[1].sh("rm -r /root/.docker");
    add(&cluster, &[1, 2, 3]).ok();
    let yaml = |image: &str| {
        format!(
            "services: {{web: {{image: '{image}', deploy: {{replicas: 3}}, command: [sleep, '1000'], stop_signal: SIGKILL}}}}\n"
        )
    };
    let project = Project::new(desk, "private", &yaml(&one));
    let logins = |auths: &str| desk.write("/root/.docker/config.json", auths);
    let login = |secret: &str| logins(&format!(r#"{{"auths": {{"{registry}": {{"auth": "{secret}"}}}}}}"#));

    let none = format!("you have no login for `{registry}` on this machine; `docker login {registry}` makes one");
    let done = project.orch(&["up", "-d"]);
    for host in ["a", "b", "c"] {
        assert!(done.stderr.contains(&format!("host `{host}`: image `{one}` of service `web` could not be pulled")));
    }
    done.refused(1, &[&none]);
    login(WRONG);
    project.orch(&["up", "-d"]).refused(1, &[&format!("`{registry}` refused your login")]);
    assert_eq!(project.orch(&["ps", "-aq"]).ok(), "", "nothing was changed");
    login(RIGHT);
    let done = project.orch(&["up", "-d", "--wait"]);
    for host in ["a", "b", "c"] {
        assert!(done.stderr.contains(&format!("Image {one} on {host}  Pulled")), "{}", done.stderr);
    }
    done.ok();
    assert_eq!(project.orch(&["exec", "-T", "web", "cat", "/tag"]).ok(), "1");

    // A helper of the user's own has it.
    desk.sh(&format!(
        "printf '%s\\n' '#!/bin/sh' 'read -r r; echo \"$r\" >>/root/asked' \
         'echo \"{{\\\"ServerURL\\\":\\\"$r\\\",\\\"Username\\\":\\\"me\\\",\\\"Secret\\\":\\\"{PASSWORD}\\\"}}\"' \
         >/usr/local/bin/docker-credential-lab; chmod +x /usr/local/bin/docker-credential-lab"
    ));
    logins(&format!(r#"{{"credHelpers": {{"{registry}": "lab"}}}}"#));
    project.rewrite(&yaml(&two));
    project.orch(&["up", "-d", "--wait"]).ok();
    assert_eq!(project.orch(&["exec", "-T", "web", "cat", "/tag"]).ok(), "2");
    assert_eq!(desk.sh("cat /root/asked"), registry, "it was asked once for three hosts");

    // `always` asks the registry also where the image is, so that a login that is gone is noticed.
    logins("{}");
    project.orch(&["up", "-d", "--wait"]).ok();
    project.orch(&["up", "-d", "--pull", "always"]).refused(1, &[&none]);

    for node in cluster.nodes() {
        let places = "/root/.docker /var/lib/orch /run/orch /var/log /var/lib/docker/containers /var/lib/docker/image";
        let found = node.exec(&["sh", "-c", &format!("grep -rlFa -e {PASSWORD} -e {RIGHT} {places}")]);
        assert_eq!(found.stdout, "", "the login is kept on {}", node.name());
    }
    project.down();
}

#[test]
fn config_pins_images_to_digests_of_their_registry_as_docker_compose_does() {
    let host = Host::boot(&["busybox"]);
    let registry = serve(&host);
    let image = publish(&host, &registry, "1");
    let project = Project::new(&host, "pinned", "");
    let yaml = format!(
        "name: pinned\nservices:\n  one: {{image: '{image}', command: [cat, /tag], environment: {{A: 'b$$c'}}}}\n  \
         two: {{image: '{image}', profiles: [p]}}\n"
    );
    project.rewrite_all(&yaml);
    let away = format!("image `{image}` is not on this machine");
    project.orch(&["config", "--resolve-image-digests"]).refused(1, &[&away]);
    host.docker(&["pull", &image]);
    let digest = host.docker(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", &image]);
    let reference = Reference::on(&host, "pinned");
    // Its lock also says `command: null`, which would take the command away.
    let images = |text: &str| {
        let project: serde_json::Value = serde_json::from_str(text).expect("JSON");
        ["one", "two"].map(|service| project["services"][service]["image"].as_str().expect("an image").to_owned())
    };
    for flag in ["--resolve-image-digests", "--lock-image-digests"] {
        let args = ["--profile", "p", "config", flag, "--format", "json"];
        let (ours, theirs) = (images(&project.orch(&args).ok()), images(&reference.run(&args).ok()));
        assert_eq!(ours, theirs, "{flag}");
        let pinned = &ours[1];
        assert!(pinned.ends_with(digest.rsplit_once('@').expect("a digest").1), "{flag}: {pinned}");
    }

    // The lock over the file it is of: what runs is what was pinned, also once the tag is another image.
    project.orch(&["config", "--lock-image-digests", "-o", "/root/pinned/lock.yaml"]).ok();
    let first = host.docker(&["image", "inspect", "-f", "{{.Id}}", &image]);
    publish(&host, &registry, "2");
    host.docker(&["tag", "busybox", &image]);
    project.orch(&["-f", "/root/pinned/lock.yaml", "up", "-d"]).ok();
    assert_eq!(project.inspect("pinned-one-1", "{{.Image}}"), first);
    project.down();
    // One that no registry gave has none.
    project.rewrite_all("services: {a: {image: busybox}}\n");
    project.orch(&["config", "--lock-image-digests"]).refused(1, &["image `busybox` has no digest"]);
}
