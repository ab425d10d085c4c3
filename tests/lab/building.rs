//! Images that are built of what the compose file says.

use std::path::Path;

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::Host;
use crate::project::Project;
use crate::registry::{RIGHT, serve};

/// What the images of a test are built of.
fn source(host: &Host, folder: &str) {
    let write = |path: &str, text: &str| host.write(&format!("{folder}/{path}"), text);
    write(
        "app/Dockerfile",
        "ARG BASE=busybox\nFROM $BASE AS wanted\nARG WORD\nARG FROM_ENV\n\
         ENV WORD=$WORD FROM_ENV=$FROM_ENV\nWORKDIR /srv\nCOPY . .\nCOPY --chown=5:6 bin/run /start\nCMD [\"/start\"]\n\
         FROM wanted\nRUN false\n",
    );
    write("app/.dockerignore", "# nothing of these\nsecret*\n*/left-out\n!secret-but-known\nDockerfile\n");
    write("app/bin/run", "#!/bin/sh\ntrap 'exit 0' TERM\ncat /srv/page\nwhile :; do sleep 1 & wait; done\n");
    write("app/page", "one\n");
    write("app/secret", "not this\n");
    write("app/secret-but-known", "this\n");
    write("app/deep/er/left-in", "left in\n");
    write("app/deep/left-out", "left out\n");
    host.sh(&format!(
        "cd {folder}/app; chmod 755 bin/run; chmod 4750 deep/er/left-in; chmod 711 deep; chown 1000:1000 page; \
         ln -s ../page deep/link; ln -s /nowhere out; ln page same; mkfifo -m 640 pipe"
    ));
}

const SERVICE: &str = "services:
  web:
    build:
      context: app
      target: wanted
      args: {WORD: one two, FROM_ENV: }
      labels: {made.by: 'the lab, \"quoted\"'}
      tags: ['shop/other:7']
      shm_size: 96m
      ulimits: {nofile: {soft: 900, hard: 1000}}
      extra_hosts: ['somewhere=10.1.2.3']
      network: none
    stop_grace_period: 2s
";

fn image(host: &Host, reference: &str, template: &str) -> String {
    host.docker(&["image", "inspect", "-f", template, reference])
}

const ID: &str = "{{.Id}}";

#[test]
fn images_are_those_that_docker_compose_builds() {
    let host = Host::boot(&["busybox"]);
    source(&host, "/root/shop");
    let reference = std::env::var("ORCH_COMPOSE_REFERENCE").expect(
        "ORCH_COMPOSE_REFERENCE names a Docker Compose 2.40: `scripts/setup test` unpacks one, `scripts/test` sets it",
    );
    let compose = host.give("docker-compose", Path::new(&reference));
    let project = Project::new(&host, "shop", SERVICE);
    host.sh(&format!("cd shop; FROM_ENV=here DOCKER_BUILDKIT=0 {compose} -p theirs build"));
    // The engine itself finds that all steps are of the same files and words, but for the labels.
    let said = host.sh("cd shop; FROM_ENV=here /opt/orch/orch -p ours build 2>&1");
    assert!(said.matches("Using cache").count() >= 8, "{said}");
    let cached = image(&host, "ours-web", ID);
    host.sh("cd shop; FROM_ENV=here /opt/orch/orch -p ours build --no-cache -q");
    assert_ne!(image(&host, "ours-web", ID), cached);
    for what in ["{{json .Config.Env}}", "{{json .Config.Cmd}}", "{{.Config.WorkingDir}}", "{{.Os}}/{{.Architecture}}"]
    {
        assert_eq!(image(&host, "ours-web", what), image(&host, "theirs-web", what), "{what}");
    }
    assert_eq!(image(&host, "shop/other:7", ID), image(&host, "ours-web", ID));
    let label = |name: &str| image(&host, "ours-web", &format!("{{{{index .Config.Labels \"{name}\"}}}}"));
    assert_eq!(label("made.by"), "the lab, \"quoted\"");
    let service = [label("com.docker.compose.project"), label("com.docker.compose.service")];
    assert_eq!(service, ["ours", "web"]);
    // Directories have the time of the copy.
    let list = "cd /; find srv start | sort | while read f; do stat -c '%n %A %u %g %s' $f; test -d $f || stat -c %Y $f; done; \
                readlink srv/out srv/deep/link; cat srv/secret-but-known";
    let run = |image: &str| host.docker(&["run", "--rm", "--network", "none", image, "sh", "-c", list]);
    let files = run("ours-web");
    assert_eq!(files, run("theirs-web"));
    assert!(
        files.contains("srv/deep/er/left-in -rwxr-x--- 0 0 8") && files.contains("start -rwxr-xr-x 5 6"),
        "{files}"
    );
    assert!(
        files.contains("srv/pipe prw-r-----") && !files.contains("left-out") && !files.contains("srv/secret "),
        "{files}"
    );

    // Files of instructions from elsewhere, and one that brings its own ignore file.
    host.write("/root/shop/elsewhere/My.Dockerfile", "FROM busybox\nCOPY . /all/\n");
    host.write("/root/shop/app/Own", "FROM busybox\nCOPY . /all/\n");
    host.write("/root/shop/app/Own.dockerignore", "*\n!page\n");
    project.rewrite(
        "services:\n  elsewhere: {build: {context: app, dockerfile: ../elsewhere/My.Dockerfile}}\n  \
         inline: {build: {context: app, dockerfile_inline: \"FROM busybox\\nCOPY page /all/\\n\"}}\n  \
         own: {build: {context: app, dockerfile: Own}}\n",
    );
    let done = project.orch(&["build"]);
    let said = [" Service own  Built", "[internal] load build context", "[1/2] FROM docker.io/library/busybox"];
    assert!(said.iter().all(|words| done.stderr.contains(words)), "{}", done.stderr);
    done.ok();
    let all = |service: &str| {
        host.docker(&["run", "--rm", "--network", "none", &format!("shop-{service}"), "ls", "/all"]).replace('\n', " ")
    };
    assert_eq!(all("own"), "page");
    assert_eq!(all("inline"), "page");
    // A repository, by the user's own git.
    host.sh(
        "mkdir repo; cd repo; git init -q -b main; mkdir sub; printf 'FROM busybox\\nCOPY page /all/\\n' >sub/Dockerfile; \
         echo kept >sub/page; git add .; git -c user.name=me -c user.email=me@a.example commit -qm one; git tag v1; \
         git rm -qr sub; git -c user.name=me -c user.email=me@a.example commit -qm two",
    );
    let other = Project::new(&host, "repo-shop", "services: {web: {build: 'file:///root/repo#v1:sub'}}\n");
    other.orch(&["build", "-q"]).ok();
    assert_eq!(host.docker(&["run", "--rm", "--network", "none", "repo-shop-web", "cat", "/all/page"]), "kept");
    other.rewrite("services: {web: {build: 'file:///root/repo:sub'}}\n");
    other.orch(&["build"]).refused(1, &["service `web` could not be built: git could not fetch"]);
    assert_eq!(host.sh("ls -d /tmp/orch-build-* 2>/dev/null | wc -l"), "0");

    let all = all("elsewhere");
    assert!(all.contains("page") && !all.contains("My.Dockerfile") && !all.contains(".dockerfile"), "{all}");
}

#[test]
fn up_builds_what_is_missing_and_a_rebuilt_image_makes_its_pods_anew() {
    let host = Host::boot(&["busybox"]);
    source(&host, "/root/shop");
    let project = Project::new(&host, "shop", SERVICE);
    project
        .orch(&["up", "-d", "--no-build"])
        .refused(1, &["image `shop-web` of service `web` is not there", "--no-build"]);
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(
        done.stderr.contains(" Service web  Building") && done.stderr.contains(" Service web  Built"),
        "{}",
        done.stderr
    );
    done.ok();
    let page = || project.orch(&["exec", "-T", "web", "cat", "/srv/page"]).ok();
    assert_eq!(page(), "one");
    let running = project.running("web");
    host.write("/root/shop/app/page", "two\n");
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(!done.stderr.contains("Building"), "{}", done.stderr);
    done.ok();
    assert_eq!((project.running("web"), page().as_str()), (running.clone(), "one"), "what is there is not built");
    project.orch(&["build", "-q"]).ok();
    assert_eq!(project.running("web"), running, "a build alone changes nothing that runs");
    let plan = project.orch(&["plan"]).ok();
    assert!(plan.contains("image"), "{plan}");
    project.up();
    assert_eq!(page(), "two");
    host.write("/root/shop/app/page", "three\n");
    project.orch(&["up", "-d", "--wait", "--build"]).ok();
    assert_eq!(page(), "three");

    let running = project.running("web");
    host.sh("sed -i 's/^COPY . .$/COPY gone ./' shop/app/Dockerfile");
    for command in [&["build"][..], &["up", "-d", "--build"]] {
        project.orch(command).refused(1, &["service `web` could not be built: ", "gone", "  | Step 7/14 : COPY gone"]);
    }
    assert_eq!(project.running("web"), running, "nothing was changed");
    project.rewrite("services: {web: {build: {context: none}}, far: {build: 'https://a.example/b.tar.gz'}}\n");
    project.orch(&["plan"]).refused(1, &["compose.yaml:", "`services.far.build.context: https://a.example/b.tar.gz`"]);
    project.rewrite("services: {web: {build: {context: none}}}\n");
    project.orch(&["build", "web"]).refused(1, &["the build context `/root/shop/none` does not exist"]);
    project.rewrite(SERVICE);
    project.down();
}

#[test]
fn an_image_is_built_once_and_is_the_same_on_all_hosts() {
    let cluster = Cluster::boot(4, &[]);
    // From a machine with an engine of its own, which is the only one with the base.
    let desk = cluster.let_in(1);
    desk.load(&["busybox"]);
    source(desk, "/root/built");
    let hosts = [("b", 2), ("c", 3), ("d", 4)];
    let lines = hosts.map(|(name, number)| format!("  {name}: ssh://root@{}\n", cluster[number].address()));
    let yaml = format!("x-hosts:\n{}{SERVICE}    deploy: {{replicas: 3}}\n", lines.concat());
    let project = Project::new(desk, "built", &yaml);
    let ids = || hosts.map(|(_, number)| image(&cluster[number], "built-web", ID));
    let up = |args: &[&str], page: &str| {
        let done = project.orch(&[&["up", "-d", "--wait"], args].concat());
        assert_eq!(done.stderr.matches(" Service web  Built").count(), 1, "{}", done.stderr);
        done.ok();
        let id = image(desk, "built-web", ID);
        assert_eq!(ids(), [id.as_str(); 3]);
        for number in ["1", "2", "3"] {
            assert_eq!(project.orch(&["exec", "-T", "--index", number, "web", "cat", "/srv/page"]).ok(), page);
        }
        id
    };
    let first = up(&[], "one");
    desk.write("/root/built/app/page", "two\n");
    let second = up(&["--build"], "two");
    assert_ne!(first, second);
    let done = project.orch(&["up", "-d", "--wait"]);
    assert!(!done.stderr.contains("Built") && !done.stderr.contains("Sent"), "{}", done.stderr);
    done.ok();

    // A desk without an engine has the first host build, and the others get it from there.
    source(&cluster.desk, "/root/built");
    cluster[2].load(&["busybox"]);
    let project = Project::new(&cluster.desk, "built", &yaml);
    cluster.desk.write("/root/built/app/page", "three\n");
    project.orch(&["build", "-q"]).ok();
    project.orch(&["up", "-d", "--wait", "--yes"]).ok();
    let made = ids();
    assert!(made.iter().all(|id| *id == made[0] && *id != second), "{made:?}");
    for number in ["1", "2", "3"] {
        assert_eq!(project.orch(&["exec", "-T", "--index", number, "web", "cat", "/srv/page"]).ok(), "three");
    }
    project.orch(&["down", "-v", "--yes"]).ok();
}

#[test]
fn what_is_pushed_is_pulled_on_every_host() {
    let cluster = Cluster::boot(3, &[]);
    cluster[1].load(&["busybox"]);
    let registry = serve(&cluster[1]);
    cluster[1].sh("rm -r /root/.docker");
    add(&cluster, &[1, 2, 3]).ok();
    let desk = &cluster.desk;
    source(desk, "/root/given");
    let image = format!("{registry}/team/app:1");
    let yaml = SERVICE.replace("shop/other:7", &format!("{registry}/team/app:also"));
    let yaml = format!(
        "{yaml}    image: '{image}'\n    deploy: {{mode: global}}\n  own: {{build: {{context: app, target: wanted}}}}\n"
    );
    let project = Project::new(desk, "given", &yaml);
    project
        .orch(&["build", "web", "--push", "-q"])
        .refused(1, &[&format!("image `{image}` could not be pushed"), "docker login"]);
    project.orch(&["push", "--ignore-push-failures"]).ok();
    desk.write("/root/.docker/config.json", &format!(r#"{{"auths": {{"{registry}": {{"auth": "{RIGHT}"}}}}}}"#));
    let done = project.orch(&["push"]);
    for name in ["1", "also"] {
        let pushed = format!(" Image {registry}/team/app:{name}  Pushed");
        assert!(done.stderr.contains(&pushed), "{}", done.stderr);
    }
    assert!(done.stderr.contains(" own  Skipped"), "{}", done.stderr);
    done.ok();
    cluster[1].docker(&["rmi", &image, &format!("{registry}/team/app:also")]);

    let done = project.orch(&["pull"]);
    for host in ["a", "b", "c"] {
        assert!(done.stderr.contains(&format!(" Image {image} on {host}  Pulled")), "{}", done.stderr);
    }
    done.ok();
    let id = |host: &Host| host.docker(&["image", "inspect", "-f", ID, &image]);
    assert_eq!([id(&cluster[2]), id(&cluster[3])], [id(&cluster[1]), id(&cluster[1])]);
    let done = project.orch(&["pull", "--policy", "missing"]);
    assert!(!done.stderr.contains("Pulled"), "{}", done.stderr);
    done.ok();
    assert_eq!(project.orch(&["pull", "--ignore-buildable"]).ok(), "");

    // What is missing and named is pulled by `up` rather than built.
    cluster[2].docker(&["rmi", &image]);
    let done = project.orch(&["up", "-d", "--wait", "web"]);
    assert!(!done.stderr.contains("Building"), "{}", done.stderr);
    done.ok();
    let absent = yaml.replace("app:1", "app:absent");
    project.rewrite(&absent);
    project.orch(&["pull", "-q"]).refused(1, &["app:absent` of service `web` could not be pulled", "orch build web"]);
    let done = project.orch(&["pull", "-q", "--ignore-pull-failures"]);
    assert!(done.stderr.contains("app:absent"), "{}", done.stderr);
    done.ok();
    project.down();
}

/// A project whose build gets secrets, an agent, a key and a cache. The image has `ssh-add` of this machine.
fn with_secrets(host: &Host) -> Project<'_> {
    let project = Project::new(
        host,
        "kit",
        "services:
  web:
    build:
      context: .
      secrets: [token, {source: of-env, target: other}]
      ssh: [default, 'deploy=./key']
      extra_hosts: ['somewhere=10.1.2.3']
secrets:
  token: {file: ./token}
  of-env: {environment: OF_ENV}
",
    );
    host.write("/root/kit/token", "sesame-of-a-file\n");
    host.write("/root/kit/.dockerignore", "*\n!tree\n");
    host.write(
        "/root/kit/Dockerfile",
        "FROM busybox
COPY tree /
RUN mkdir /out && grep somewhere /etc/hosts >/out/hosts
RUN --mount=type=secret,id=token --mount=type=secret,id=other,target=/there \\
    sha256sum </run/secrets/token >/out/token && sha256sum </there >/out/other
RUN --mount=type=ssh ssh-add -l >/out/default && ! ssh-add -D
RUN --mount=type=ssh,id=deploy ssh-add -l >/out/deploy
RUN --mount=type=cache,target=/kept echo again >>/kept/runs && wc -l </kept/runs >/out/runs
",
    );
    host.sh("cd kit; mkdir tree; cp -L --parents $(ldd /usr/bin/ssh-add | grep -o '/[^ ]*') /usr/bin/ssh-add tree; \
         for key in key own; do ssh-keygen -q -t ed25519 -N '' -C $key -f $key; done");
    project
}

#[test]
fn builds_by_buildkit_get_secrets_agents_and_caches_and_leave_no_trace_of_them() {
    let host = Host::boot(&["busybox"]);
    let project = with_secrets(&host);
    let build = "cd /root/kit; eval $(ssh-agent) >/dev/null; trap 'kill $SSH_AGENT_PID' EXIT; ssh-add -q own; \
                 OF_ENV=sesame-of-the-environment /opt/orch/orch build --no-cache 2>&1; ssh-add -l | wc -l";
    let said = host.sh(build);
    assert!(said.contains("RUN --mount=type=cache,target=/kept") && said.ends_with("\n1"), "{said}");
    let read =
        |name: &str| host.docker(&["run", "--rm", "--network", "none", "kit-web", "cat", &format!("/out/{name}")]);
    let digest = |text: &str| host.sh(&format!("printf '{text}' | sha256sum"));
    assert_eq!(read("token"), digest("sesame-of-a-file\\n"));
    assert_eq!(read("other"), digest("sesame-of-the-environment"));
    assert_eq!(read("hosts"), "10.1.2.3\tsomewhere");
    for (name, key) in [("default", "own"), ("deploy", "key")] {
        assert_eq!(read(name), host.sh(&format!("ssh-keygen -lf kit/{key}")));
    }
    assert_eq!(read("runs"), "1");
    // A step that is run again finds what it kept; with `--no-cache` this engine begins anew.
    host.sh("sed -i 's/echo again/echo once more/' kit/Dockerfile");
    host.sh(&build.replace("--no-cache", ""));
    assert_eq!(read("runs"), "2");
    let traces = host.sh(
        "set +e; docker save kit-web | tar x -O | grep -ac sesame; docker history --no-trunc kit-web | grep -c sesame; \
         docker inspect kit-web | grep -c sesame; ls -d /tmp/orch-keys-* /tmp/ssh-* 2>/dev/null | wc -l; true",
    );
    assert_eq!((traces.as_str(), said.contains("sesame")), ("0\n0\n0\n0", false));

    // What the engine or the environment does not offer is refused where it is written.
    let file = |build: &str| {
        project.rewrite(&format!(
            "services:\n  web:\n    build:\n      context: .\n      {build}\nsecrets: {{token: {{file: ./token}}}}\n"
        ));
    };
    file("secrets: [token]");
    let off = host.exec(&["sh", "-c", "cd /root/kit; DOCKER_BUILDKIT=0 /opt/orch/orch build"]);
    off.refused(
        1,
        &["`services.web.build.secrets` needs BuildKit, which DOCKER_BUILDKIT=0 turns off", "compose.yaml:7:7"],
    );
    file("additional_contexts: {other: ./tree}");
    let words =
        ["`services.web.build.additional_contexts` needs Docker Engine 23.0; this one is 20.10", "compose.yaml:7:7"];
    project.orch(&["build"]).refused(1, &words);
    project.orch(&["up", "-d", "--build", "--dry-run"]).refused(1, &words);
    file("ssh: [default]");
    project.orch(&["build"]).refused(1, &["no SSH agent runs for `default`: SSH_AUTH_SOCK is not set"]);
    file("secrets: [token]");
    host.write("/root/kit/Dockerfile", "FROM busybox\nRUN --mount=type=secret,id=token true\n");
    host.sh("rm kit/token");
    project.orch(&["build"]).refused(1, &["the secret `/root/kit/token` cannot be read"]);
}

#[test]
fn buildkit_makes_the_layers_that_docker_compose_makes_and_says_what_fails() {
    let host = Host::boot(&["busybox"]);
    source(&host, "/root/shop");
    let reference =
        std::env::var("ORCH_COMPOSE_REFERENCE").expect("ORCH_COMPOSE_REFERENCE names a Docker Compose 2.40");
    let compose = host.give("docker-compose", Path::new(&reference));
    let plain: Vec<&str> =
        SERVICE.lines().filter(|line| !line.contains("shm_size") && !line.contains("ulimits")).collect();
    let project = Project::new(&host, "shop", &(plain.join("\n") + "\n"));
    host.sh(&format!("cd shop; FROM_ENV=here DOCKER_BUILDKIT=1 {compose} -p theirs build"));
    let said = host.sh("cd shop; FROM_ENV=here /opt/orch/orch -p ours build 2>&1");
    // The engine itself finds that all steps are of the same files and words.
    assert!(said.matches("CACHED").count() >= 3, "{said}");
    let layers =
        "{{json .RootFS.Layers}} {{json .Config.Env}} {{json .Config.Cmd}} {{.Config.WorkingDir}} {{.Comment}}";
    assert_eq!(image(&host, "ours-web", layers), image(&host, "theirs-web", layers));
    assert_eq!(image(&host, "shop/other:7", ID), image(&host, "ours-web", ID));
    let labels = |name: &str| image(&host, name, "{{range $key, $value := .Config.Labels}}{{$key}} {{end}}");
    assert_eq!(labels("ours-web"), labels("theirs-web"));

    // Stages without cache, and a cache for others.
    project.rewrite(
        "services:\n  web:\n    build:\n      dockerfile_inline: |\n        FROM busybox AS kept\n        RUN cat /proc/sys/kernel/random/uuid >/kept\n        \
         FROM busybox AS anew\n        RUN cat /proc/sys/kernel/random/uuid >/anew\n        FROM busybox\n        COPY --from=kept /kept /\n        \
         COPY --from=anew /anew /\n      no_cache_filter: anew\n      cache_to: [type=inline]\n",
    );
    let files = || {
        project.orch(&["build"]).ok();
        let read = |file: &str| host.docker(&["run", "--rm", "--network", "none", "shop-web", "cat", file]);
        (read("/kept"), read("/anew"))
    };
    let (one, two) = (files(), files());
    assert!(one.0 == two.0 && one.1 != two.1, "{one:?} {two:?}");
    assert_eq!(host.sh("docker save shop-web | tar x -O | grep -ac moby.buildkit.cache.v0"), "1");

    // What is not there is said to be built, and is not.
    host.docker(&["rmi", "shop-web"]);
    let done = project.orch(&["up", "--dry-run"]);
    assert!(done.stdout.starts_with("build image shop-web of service web\n"), "{} {}", done.stdout, done.stderr);
    assert_eq!(host.docker(&["images", "-q", "shop-web"]), "");

    let failing = |instructions: &str| {
        project.rewrite(&format!(
            "services:\n  web:\n    build:\n      dockerfile_inline: |\n        {}\n",
            instructions.replace('\n', "\n        ")
        ));
        project.orch(&["build"])
    };
    failing("FROM busybox\nRUN echo of another\nRUN echo one; echo two; exit 3").refused(
        1,
        &["service `web` could not be built: [3/3] RUN echo one; echo two; exit 3: ", "exit code: 3\n  | one\n  | two"],
    );
    failing("FROM busybox\nCOPY nothing /").refused(1, &["service `web` could not be built: ", "/nothing"]);
    failing("FROM busybox\nRAN x").refused(1, &["unknown instruction: RAN"]);
    failing("FROM absent-from-everywhere").refused(1, &["absent-from-everywhere"]);
    // What only one of the two builders does.
    let mount = "FROM busybox\nRUN --mount=type=cache,target=/c true";
    failing(mount).ok();
    let classic = host.exec(&["sh", "-c", "cd /root/shop; DOCKER_BUILDKIT=0 /opt/orch/orch build"]);
    classic.refused(1, &["the --mount option requires BuildKit"]);
}
