//! A compose project on a lab host, and what the engine says of its containers.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::host::{Done, Host};
use crate::wait::{eventually, secs};

/// Put before each test's own YAML, which merges these in.
///
/// `web` answers every HTTP request at port 80 with its host name, which is its container's short id;
/// commands can be run in `client`.
const ANCHORS: &str = "\
x-web: &web {image: orch/demo, command: [web]}
x-client: &client {image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL}
";

/// A compose file on a host.
pub(crate) struct Project<'a> {
    /// Its host.
    pub(crate) host: &'a Host,
    /// Name of the project.
    pub(crate) name: String,
    file: String,
}

impl<'a> Project<'a> {
    /// Writes `yaml`, which may use [`ANCHORS`], as the compose file of a project; nothing runs yet.
    pub(crate) fn new(host: &'a Host, name: &str, yaml: &str) -> Self {
        let project = Self { host, name: name.to_owned(), file: format!("/root/{name}/compose.yaml") };
        project.rewrite(yaml);
        project
    }

    /// Copies an example of the folder `compose-examples`.
    pub(crate) fn example(host: &'a Host, name: &str) -> Self {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("compose-examples").join(name);
        let text = |path: &std::path::Path| std::fs::read_to_string(path).expect("a file of the example");
        for file in std::fs::read_dir(&folder).expect("an example").map(|entry| entry.expect("readable")) {
            host.write(&format!("/root/{name}/{}", file.file_name().to_string_lossy()), &text(&file.path()));
        }
        Self { host, name: name.to_owned(), file: format!("/root/{name}/compose.yaml") }
    }

    /// Writes other YAML into the compose file.
    pub(crate) fn rewrite(&self, yaml: &str) {
        self.rewrite_all(&format!("{ANCHORS}{yaml}"));
    }

    /// Writes exactly this text into the compose file.
    pub(crate) fn rewrite_all(&self, text: &str) {
        self.host.write(&self.file, text);
    }

    /// Runs orch on the project.
    pub(crate) fn orch(&self, args: &[&str]) -> Done {
        self.host.orch(&self.args(args))
    }

    /// Returns orch's arguments with the file before them.
    pub(crate) fn args<'b>(&'b self, args: &[&'b str]) -> Vec<&'b str> {
        [&["-f", self.file.as_str()], args].concat()
    }

    /// `orch up -d --wait`, which must succeed.
    #[track_caller]
    pub(crate) fn up(&self) -> &Self {
        self.orch(&["up", "-d", "--wait"]).ok();
        self
    }

    /// `orch down -v`, which must succeed.
    #[track_caller]
    pub(crate) fn down(&self) {
        self.orch(&["down", "-v"]).ok();
    }

    /// Returns the name of a container on the engine.
    pub(crate) fn container(&self, service: &str, number: u32) -> String {
        format!("{}-{service}-{number}", self.name)
    }

    /// Returns the ids of the running containers of a service, short as host names are; empty: all services.
    pub(crate) fn running(&self, service: &str) -> BTreeSet<String> {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let mut args = vec!["docker", "ps", "-q", "--filter", &project];
        let service = format!("label=com.docker.compose.service={service}");
        if !service.ends_with('=') {
            args.extend(["--filter", &service]);
        }
        self.host.exec(&args).stdout.split_whitespace().map(str::to_owned).collect()
    }

    /// Returns what `docker inspect` prints for a container in a template.
    #[track_caller]
    pub(crate) fn inspect(&self, container: &str, template: &str) -> String {
        self.host.docker(&["inspect", "-f", template, container])
    }

    /// Returns what tells two runs of the project's containers apart: names, ids and start times. A container that goes away
    /// meanwhile is not among them.
    pub(crate) fn lives(&self) -> BTreeSet<String> {
        let template = "{{.Name}} {{.Id}} {{.State.StartedAt}}";
        let inspect = |id: &String| self.host.exec(&["docker", "inspect", "-f", template, id]);
        self.running("").iter().map(inspect).filter(|done| done.code == 0).map(Done::ok).collect()
    }

    /// Runs a shell script in a container of the project.
    pub(crate) fn within(&self, container: &str, script: &str) -> Done {
        self.host.exec(&["docker", "exec", container, "timeout", "10", "sh", "-c", script])
    }

    /// Returns the body that a URL gives to a container; it must answer within ten seconds.
    #[track_caller]
    pub(crate) fn fetch(&self, container: &str, url: &str) -> String {
        eventually(secs(10), url, || {
            let done = self.within(container, &format!("wget -q -O - {url}"));
            if done.code == 0 { Ok(done.stdout) } else { Err(done) }
        })
    }

    /// Returns which containers answer at a URL that `container` asks `times` times.
    #[track_caller]
    pub(crate) fn answering(&self, container: &str, url: &str, times: usize) -> BTreeSet<String> {
        (0..times).map(|_| host_name(&self.fetch(container, url))).collect()
    }

    /// Checks that a container of the service runs within `within` that is not one of `old`.
    #[track_caller]
    pub(crate) fn replaced(&self, service: &str, old: &BTreeSet<String>, within: Duration) {
        eventually(within, &format!("a new container of {service}"), || {
            let now = self.running(service);
            if now.len() == old.len() && now != *old { Ok(()) } else { Err(now) }
        });
    }
}

/// Returns the host name in an answer of `web`.
#[track_caller]
pub(crate) fn host_name(answer: &str) -> String {
    let line = answer.lines().find_map(|line| line.strip_prefix("Hostname: "));
    line.unwrap_or_else(|| panic!("no host name in: {answer}")).to_owned()
}

/// Returns the host names in an answer of `web`: one, or none where it is no answer.
pub(crate) fn host_names(answer: &str) -> BTreeSet<String> {
    answer.lines().filter_map(|line| line.strip_prefix("Hostname: ")).map(str::to_owned).collect()
}
