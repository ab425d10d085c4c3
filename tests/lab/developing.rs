//! `watch`: the same edits under Docker Compose and under orch on one host, and over three hosts.

use std::path::Path;

use crate::cluster::Cluster;
use crate::fleet::{add, even, running};
use crate::host::{Done, Host, ORCH, Started};
use crate::project::Project;
use crate::wait::{becomes, eventually, secs, stays};

const YAML: &str = "\
services:
  app:
    build: app
    # Who has run, and how often.
    command: [sh, -c, 'echo started >>/log; trap \"exit 0\" TERM; while :; do sleep 1 & wait; done']
    develop:
      watch:
        - {path: app/src, action: sync, target: /srv/src, ignore: [skip/, '*.tmp', '!kept.tmp']}
        - {path: app/only, action: sync, target: /srv/only/, include: ['**/*.txt']}
        - {path: app/conf, action: sync+restart, target: /srv/conf}
        - {path: app/hook/h, action: sync+exec, target: /srv/hook/h, exec: {command: [sh, -c, 'echo said; cat /srv/hook/h >>/srv/seen']}}
        - {path: app/package, action: rebuild}
        - {path: app/again, action: restart}
  other:
    build: app
    command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 1 & wait; done']
    develop: {watch: [{path: app/src, action: sync, target: /tmp/src}, {path: app/hook, action: sync, target: /tmp/hook, initial_sync: true}]}
";

/// Files at the beginning.
const FILES: &str = "mkdir -p app/src/old/deep app/only app/conf app/hook; cd app
    printf 'FROM busybox\\nWORKDIR /srv\\nCOPY . .\\n' >Dockerfile
    echo '**/*.log' >.dockerignore
    for f in src/a src/b src/old/deep/c src/old/d only/t.txt conf/c hook/h package again; do echo one >$f; done
    # At the beginning Docker Compose 2.40 brings what is younger than the image.
    touch -d '1 hour' hook/h";

/// Everything that is below `/srv` and `/tmp`, how often the program was started, and what the commands saw.
const STATE: &str = "find /srv /tmp | sort | while read f; do stat -c '%n %A %u %g' $f; test -L $f && readlink $f; \
    test -f $f && md5sum <$f; done; cat /log 2>/dev/null | wc -l";

/// A program that watches a project of its own.
struct Watcher<'a> {
    host: &'a Host,
    folder: &'a str,
    program: Started<'a>,
}

impl<'a> Watcher<'a> {
    fn start(host: &'a Host, folder: &'a str, program: &str) -> Self {
        host.write(&format!("/root/{folder}/compose.yaml"), YAML);
        host.sh(&format!("cd {folder}; {FILES}"));
        let script = format!(
            "cd {folder}; export DOCKER_BUILDKIT=0; exec {program} -p {folder} watch >/var/{folder}.out 2>/var/{folder}.err"
        );
        Self { host, folder, program: host.start(&["sh", "-c", &script]) }
    }

    /// What it has printed, and what it has said.
    fn printed(&self) -> String {
        let files = ["out", "err"].map(|end| format!("/var/{}.{end}", self.folder));
        self.host.exec(&["cat", &files[0], &files[1]]).stdout
    }

    fn says(&self, words: &str) {
        eventually(secs(90), words, || {
            let text = self.printed();
            if text.contains(words) { Ok(()) } else { Err(text) }
        });
    }

    fn within(&self, service: &str, script: &str) -> Done {
        self.host.exec(&["docker", "exec", &format!("{}-{service}-1", self.folder), "sh", "-c", script])
    }

    fn state(&self) -> String {
        ["app", "other"].map(|service| self.within(service, STATE).stdout).concat()
    }

    fn id(&self) -> String {
        self.host.docker(&["inspect", "-f", "{{.Id}}", &format!("{}-app-1", self.folder)])
    }
}

#[test]
fn edits_get_where_docker_compose_brings_them() {
    let host = Host::boot(&["busybox"]);
    let reference = std::env::var("ORCH_COMPOSE_REFERENCE").expect(
        "ORCH_COMPOSE_REFERENCE names a Docker Compose 2.40: `scripts/setup test` unpacks one, `scripts/test` sets it",
    );
    let compose = host.give("docker-compose", Path::new(&reference));
    let theirs = Watcher::start(&host, "theirs", &compose);
    theirs.says("Watch enabled");
    let ours = Watcher::start(&host, "ours", ORCH);
    ours.says("Watch enabled");
    let both = [&theirs, &ours];
    // Files that are changed last in each step tell that all was brought.
    let step = |name: &str, edits: &str| {
        for watcher in both {
            host.sh(&format!("cd {}/app; {edits}; echo '{name}' >src/marker", watcher.folder));
        }
        for watcher in both {
            becomes(secs(30), name, &name.to_owned(), || {
                watcher.within("app", "cat /srv/src/marker").stdout.trim().to_owned()
            });
        }
        eventually(secs(30), name, || {
            let [theirs, ours] = both.map(Watcher::state);
            if theirs == ours { Ok(()) } else { Err(format!("theirs:\n{theirs}ours:\n{ours}")) }
        });
        ours.state()
    };
    let seen = step("begin", "true");
    assert!(seen.contains("/tmp/hook/h") && seen.contains("/srv/only/t.txt"), "{seen}");
    let seen = step(
        "create",
        "echo two >src/new; mkdir -p src/deep/er; echo two >src/deep/er/x; ln -s new src/link; mkdir src/empty",
    );
    for words in ["/srv/src/deep/er/x", "/srv/src/link", "/srv/src/empty", "/tmp/src/new"] {
        assert!(seen.contains(words), "no {words}:\n{seen}");
    }
    step("edit", "echo three >>src/a; chmod 750 src/b; echo new >src/.a.swp; printf four >src/t~; mv src/t~ src/new");
    let seen = step(
        "ignore",
        "mkdir src/skip; echo x >src/skip/x; echo x >src/c.tmp; echo x >src/kept.tmp; echo x >src/y.log; \
         echo x >only/no; mkdir only/deep; echo x >only/deep/yes.txt",
    );
    for (path, there) in [
        ("/srv/src/skip", false),
        ("/srv/src/c.tmp", false),
        ("/srv/src/kept.tmp", true),
        ("/srv/src/y.log", false),
        ("/tmp/src/c.tmp", true),
        ("/tmp/src/y.log", false),
        ("/srv/only/no", false),
        ("/srv/only/deep/yes.txt", true),
    ] {
        assert_eq!(seen.contains(&format!("{path} ")), there, "{path}:\n{seen}");
    }
    step("delete", "rm src/b; rm -r src/old src/empty");
    step("rename", "mv src/deep src/moved; mv src/a src/z; echo in >>src/moved/er/x");
    step(
        "many",
        "i=0; while [ $i -lt 400 ]; do mkdir -p src/m/$((i % 20)); echo $i >src/m/$((i % 20))/$i; i=$((i + 1)); done",
    );
    step("gone", "rm -r src/m");
    let seen = step("restart", "echo two >conf/c");
    assert!(seen.contains("\n2\n"), "started twice:\n{seen}");
    let seen = step("exec", "echo two >hook/h");
    assert!(seen.contains("/srv/seen"), "{seen}");
    for watcher in both {
        watcher.says("said");
    }
    let seen = step("again", "echo two >again");
    assert!(seen.contains("\n3\n"), "started three times:\n{seen}");
    let before = both.map(Watcher::id);
    for watcher in both {
        host.sh(&format!("cd {}/app; echo two >package", watcher.folder));
        watcher.says("successfully built");
    }
    eventually(secs(30), "both are made anew", || {
        let now = both.map(Watcher::id);
        if now[0] != before[0] && now[1] != before[1] { Ok(()) } else { Err(now) }
    });
    let seen = step("rebuild", "true");
    assert!(seen.contains("\n1\n"), "started once since:\n{seen}");
    assert_eq!(host.sh("docker images -q --filter dangling=true --filter label=com.docker.compose.project=ours"), "");
    for Watcher { program, folder, .. } in [theirs, ours] {
        assert_eq!(program.signal("INT").code, 130, "{folder}");
    }
}

#[test]
fn a_watch_says_what_is_wrong_and_goes_on() {
    let host = Host::boot(&["busybox"]);
    let yaml = |more: &str, word: &str| {
        format!(
            "services:\n  app:\n    image: busybox\n    command: [sleep, '1000000']\n    stop_signal: SIGKILL\n    \
             env_file: app.env\n    environment: {{WORD: {word}}}\n    develop:\n      watch:\n        \
             - {{path: src, action: sync, target: /srv}}\n        \
             - {{path: run, action: sync+exec, target: /run/it, exec: {{command: [sh, /run/it/x]}}}}\n  \
             user: {{image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, user: '1234:567', \
             develop: {{watch: [{{path: src, action: sync, target: /srv/own}}]}}}}\n{more}"
        )
    };
    let project = Project::new(&host, "app", "");
    project.rewrite_all(&yaml("", "one"));
    host.write("/root/app/app.env", "A=1\n");
    host.sh("mkdir app/src app/run");
    let (out, err) = ("/var/watch.out", "/var/watch.err");
    let start = format!("exec {ORCH} -f app/compose.yaml watch >{out} 2>{err}");
    let program = host.start(&["sh", "-c", &start]);
    let says = |words: &str| {
        eventually(secs(60), words, || {
            let text = host.exec(&["cat", out, err]).stdout;
            if text.contains(words) { Ok(()) } else { Err(text) }
        });
    };
    let container = project.container("app", 1);
    let cat = |path: &str| project.within(&container, &format!("cat {path}")).stdout.trim().to_owned();
    says("Watch enabled");
    host.sh("echo 1 >app/src/a");
    becomes(secs(20), "a file", &"1".to_owned(), || cat("/srv/a"));
    says("Synced service \"app\": 1 path in 1 container");
    let owner = || project.within(&project.container("user", 1), "stat -c %u:%g /srv/own/a").stdout.trim().to_owned();
    becomes(secs(20), "files are the user's, whom only the container knows", &"1234:567".to_owned(), owner);
    // A command that fails.
    host.sh("echo 'echo no good; exit 7' >app/run/x");
    says("no good");
    says("`sh /run/it/x` ended with 7");
    host.sh("echo 2 >app/src/a");
    becomes(secs(20), "a file after that", &"2".to_owned(), || cat("/srv/a"));
    // A directory that becomes a file, which Docker Compose cannot do.
    host.sh("mkdir app/src/it; echo x >app/src/it/x; ln -s a app/src/link");
    becomes(secs(20), "a directory", &"x".to_owned(), || cat("/srv/it/x"));
    host.sh("rm -r app/src/it app/src/link; echo file >app/src/it; mkdir app/src/link; echo y >app/src/link/y");
    becomes(secs(20), "a file instead", &"file".to_owned(), || cat("/srv/it"));
    becomes(secs(20), "a directory instead of a link", &"y".to_owned(), || cat("/srv/link/y"));
    // A file that does not load.
    project.rewrite_all(&yaml("  broken: [\n", "one"));
    says("going on with what they said before");
    host.sh("echo 3 >app/src/a");
    becomes(secs(20), "a file meanwhile", &"3".to_owned(), || cat("/srv/a"));
    // One that does: what was brought to the old container is brought to the new one.
    project.rewrite_all(&yaml("", "two"));
    becomes(secs(60), "the new file is applied", &"two 3".to_owned(), || cat("/srv/a >/a; echo $WORD $(cat /a)"));
    host.write("/root/app/app.env", "A=2\n");
    becomes(secs(60), "the env file is applied", &"2 3".to_owned(), || cat("/srv/a >/a; echo $A $(cat /a)"));
    // What takes its place by itself gets it, too.
    let before = project.inspect(&container, "{{.Id}}");
    host.docker(&["rm", "-f", &before]);
    becomes(secs(60), "another container has it", &"3".to_owned(), || cat("/srv/a"));
    assert_ne!(project.inspect(&container, "{{.Id}}"), before);
    let done = program.signal("TERM");
    assert_eq!(done.code, 130);
    // What cannot be watched at all.
    project.rewrite_all("services: {app: {image: busybox}}\n");
    project.orch(&["watch"]).refused(1, &["none of the selected services is configured for watch", "develop"]);
    project.rewrite_all("services: {app: {image: busybox, develop: {watch: [{path: x, action: rebuild}]}}}\n");
    project.orch(&["watch"]).refused(1, &["service `app` cannot be rebuilt", "compose.yaml:1:"]);
}

#[test]
fn every_replica_on_every_host_gets_what_changes() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    add(&cluster, &[1, 2, 3]).ok();
    let project = Project::new(
        desk,
        "far",
        "services:
  web:
    build: app
    deploy: {replicas: 3}
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    develop: {watch: [{path: app/src, action: sync, target: /srv/src}, {path: app/package, action: rebuild}]}
",
    );
    desk.sh("mkdir -p far/app/src; cd far/app; printf 'FROM busybox\\nCOPY . /srv\\n' >Dockerfile; echo 1 >src/a; echo 1 >package");
    let start = format!("exec {ORCH} -f far/compose.yaml watch >/var/watch.out 2>/var/watch.err");
    let program = desk.start(&["sh", "-c", &start]);
    let says = |words: &str| {
        eventually(secs(90), words, || {
            let text = desk.exec(&["cat", "/var/watch.out", "/var/watch.err"]).stdout;
            if text.contains(words) { Ok(()) } else { Err(text) }
        });
    };
    says("Watch enabled");
    assert_eq!(running(&project, "web"), Ok(even(1)));
    let containers = |number: usize| -> Vec<String> {
        let ids = cluster[number].docker(&["ps", "-q", "--filter", "label=com.docker.compose.service=web"]);
        ids.split_whitespace().map(str::to_owned).collect()
    };
    let cat = |numbers: &[usize], path: &str| -> Vec<String> {
        let hosts = numbers.iter().flat_map(|number| containers(*number).into_iter().map(|id| (*number, id)));
        hosts
            .map(|(number, id)| cluster[number].exec(&["docker", "exec", &id, "cat", path]).stdout.trim().to_owned())
            .collect()
    };
    let all = |text: &str, count: usize| vec![text.to_owned(); count];
    desk.sh("echo 2 >far/app/src/a; mkdir far/app/src/deep; echo 2 >far/app/src/deep/b");
    becomes(secs(20), "an edit", &all("2", 3), || cat(&[1, 2, 3], "/srv/src/a"));
    becomes(secs(20), "another", &all("2", 3), || cat(&[1, 2, 3], "/srv/src/deep/b"));
    says("in 3 containers on 3 hosts");
    // One that is made anew has them too.
    let old = containers(2);
    cluster[2].docker(&["rm", "-f", &old[0]]);
    eventually(secs(60), "another one has what was brought before", || {
        let new = containers(2);
        if new != old && cat(&[2], "/srv/src/deep/b") == all("2", 1) { Ok(()) } else { Err(new) }
    });
    // A host that does not answer holds up nobody, and gets what it lacks once it does.
    cluster.cut("desk", "node3");
    desk.sh("echo 3 >far/app/src/a; rm -r far/app/src/deep");
    becomes(secs(20), "the others have it", &all("3", 2), || cat(&[1, 2], "/srv/src/a"));
    says("host `c` does not answer");
    stays(secs(1), "nothing gets there", || cat(&[3], "/srv/src/a"));
    assert_eq!(cat(&[3], "/srv/src/a"), all("2", 1));
    cluster.heal();
    becomes(secs(90), "it has it too", &all("3", 1), || cat(&[3], "/srv/src/a"));
    becomes(secs(20), "what was removed is gone", &all("", 1), || cat(&[3], "/srv/src/deep/b"));
    // What is built anew runs everywhere.
    desk.sh("echo 4 >far/app/package");
    says("successfully built");
    becomes(secs(60), "the image is everywhere", &all("4", 3), || cat(&[1, 2, 3], "/srv/package"));
    becomes(secs(20), "with what was brought", &all("3", 3), || cat(&[1, 2, 3], "/srv/src/a"));
    assert_eq!(program.signal("INT").code, 130);
}

#[test]
fn up_watches_beside_the_output_of_containers() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(
        &host,
        "both",
        "services: {app: {image: busybox, command: [sh, -c, 'echo hello; exec sleep 1000000'], stop_signal: SIGKILL, \
         develop: {watch: [{path: src, action: sync+restart, target: /srv}]}}}\n",
    );
    host.sh("mkdir both/src");
    let start = format!("exec {ORCH} -f both/compose.yaml up --watch >/var/both.out 2>/var/both.err");
    let program = host.start(&["sh", "-c", &start]);
    let says = |words: &str, times: usize| {
        eventually(secs(60), words, || {
            let text = host.exec(&["cat", "/var/both.out", "/var/both.err"]).stdout;
            if text.matches(words).count() >= times { Ok(()) } else { Err(text) }
        });
    };
    says(" ⦿ Watch enabled", 1);
    says("hello", 1);
    host.sh("echo 1 >both/src/a");
    says("service(s) [\"app\"] restarted", 1);
    says("hello", 2);
    let container = project.container("app", 1);
    assert_eq!(project.within(&container, "cat /srv/a").stdout.trim(), "1");
    assert_eq!(program.signal("INT").code, 130);
    assert_eq!(project.running("app").len(), 0, "they are stopped");
}

/// Waits until a watch, whose output is in these files, says something. Returns all that it has said.
fn says(host: &Host, name: &str, words: &str) -> String {
    eventually(secs(90), words, || {
        let text = host.exec(&["cat", &format!("/var/{name}.out"), &format!("/var/{name}.err")]).stdout;
        if text.contains(words) { Ok(text) } else { Err(text) }
    })
}

#[test]
fn flags_of_watch_and_a_change_of_the_ignore_file_alone() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(
        &host,
        "flags",
        "services:
  app:
    build: app
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    develop: {watch: [{path: app/src, action: sync, target: /srv/src}, {path: app/package, action: rebuild}]}
",
    );
    host.sh("mkdir -p flags/app/src; cd flags/app; echo '**/*.log' >.dockerignore; echo 1 >package; \
         printf 'FROM busybox\\nCOPY . /srv\\nRUN echo this is $((40 + 2))\\n' >Dockerfile");
    let watch = |name: &str, flags: &str| {
        let script = format!(
            "export DOCKER_BUILDKIT=0; exec {ORCH} -f flags/compose.yaml watch {flags} >/var/{name}.out 2>/var/{name}.err"
        );
        let program = host.start(&["sh", "-c", &script]);
        says(&host, name, "Watch enabled");
        program
    };
    let dangling = || {
        let filter = ["--filter", "dangling=true", "--filter", "label=com.docker.compose.project=flags"];
        host.docker(&[&["images", "-q"][..], &filter].concat()).lines().count()
    };
    let cat = |path: &str| project.within("flags-app-1", &format!("cat {path}")).stdout.trim().to_owned();

    // Nothing is brought up, and what is brought up meanwhile gets what changes.
    let program = watch("loud", "--no-up --prune=false");
    assert_eq!(host.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=flags"]), "");
    project.up();
    host.sh("cd flags/app/src; echo 1 >a.tmp; echo 1 >a.log; echo 1 >a");
    becomes(secs(20), "an edit", &"1".to_owned(), || cat("/srv/src/a"));
    becomes(secs(20), "another", &"1".to_owned(), || cat("/srv/src/a.tmp"));
    assert_eq!(cat("/srv/src/a.log"), "");
    // What was ignored and is not any more gets there; what was brought and is ignored now is left alone.
    host.sh("echo '**/*.tmp' >flags/app/.dockerignore");
    becomes(secs(20), "what is not ignored any more", &"1".to_owned(), || cat("/srv/src/a.log"));
    host.sh("cd flags/app/src; echo 2 >a.tmp; echo 2 >a");
    becomes(secs(20), "another edit", &"2".to_owned(), || cat("/srv/src/a"));
    assert_eq!(cat("/srv/src/a.tmp"), "1");
    host.sh("rm flags/app/.dockerignore");
    becomes(secs(20), "without an ignore file", &"2".to_owned(), || cat("/srv/src/a.tmp"));
    // The image that a build has taken the name of stays.
    host.sh("echo 2 >flags/app/package");
    let told = says(&host, "loud", "successfully built");
    assert!(told.contains("this is 42"), "{told}");
    assert_eq!(dangling(), 1);
    assert_eq!(program.signal("INT").code, 130);

    // Nothing of a build is shown, and what it has taken the name of is removed.
    let program = watch("hushed", "--quiet");
    host.sh("echo 3 >flags/app/package");
    let told = says(&host, "hushed", "successfully built");
    assert!(!told.contains("this is 42"), "{told}");
    becomes(secs(10), "that of before alone", &1, dangling);
    assert_eq!(program.signal("INT").code, 130);
}
