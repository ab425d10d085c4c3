//! Each variable of the environment that the page tells of, with the real program: what changes with it.

use std::process::{Command, Output};

use serde_json::Value;

use crate::peers::Peer;

/// A directory with two compose files, and the sockets of an agent and an engine.
struct Desk {
    folder: tempfile::TempDir,
    agent: Peer,
    engine: Peer,
}

const FILE: &str = "services:\n  web: {image: busybox}\n  extra: {image: busybox, profiles: [more]}\n";

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let path = |name: &str| folder.path().join(name);
        let (agent, engine) = (Peer::listen(&path("agent.sock")), Peer::listen(&path("engine.sock")));
        engine.says("GET /version", 200, r#"{"Version":"24.0.0","ApiVersion":"1.43","Os":"linux","Arch":"amd64"}"#);
        std::fs::write(path("compose.yaml"), FILE).expect("written");
        std::fs::write(path("other.yaml"), "name: other\nservices: {db: {image: 'busybox:${TAG:-none}'}}\n")
            .expect("written");
        std::fs::write(path(".env"), "TAG=of-dotenv\n").expect("written");
        std::fs::write(path("own.env"), "TAG=of-own\n").expect("written");
        Self { folder, agent, engine }
    }

    #[expect(clippy::disallowed_methods, reason = "the program is run as a user would")]
    fn orch(&self, words: &str, variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orch"));
        command.args(words.split_whitespace()).current_dir(self.folder.path());
        command.env_clear().env("HOME", self.folder.path()).env("ORCH_AGENT_SOCKET", self.agent.path());
        command.envs(variables.iter().copied()).output().expect("run orch")
    }

    #[track_caller]
    fn says(&self, words: &str, variables: &[(&str, &str)], expected: &str) {
        let output = self.orch(words, variables);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(expected), "{variables:?} orch {words}: no `{expected}` in:\n{text}");
    }

    fn engine_address(&self) -> String {
        format!("unix://{}", self.engine.path().display())
    }
}

#[test]
fn editors_are_told_as_objects_what_is_wrong_with_a_file() {
    let desk = Desk::new();
    std::fs::write(desk.folder.path().join("wrong.yaml"), "services:\n  web:\n    imgae: busybox\n").expect("written");
    let output = desk.orch("-f wrong.yaml config -q --format json", &[]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let first = &told["diagnostics"][0];
    assert_eq!((output.status.code(), output.stderr), (Some(1), Vec::new()));
    assert_eq!(
        (&first["line"], &first["column"], &first["file"]),
        (&3.into(), &5.into(), &"wrong.yaml".into()),
        "{told}"
    );
    assert_eq!(first["help"], "did you mean `image`?", "{told}");
    let output = desk.orch("config -q --format json", &[]);
    assert_eq!((output.status.code(), output.stdout), (Some(0), Vec::new()));
}

#[test]
fn a_directory_that_is_named_for_a_file_is_told_with_the_file_in_it() {
    let desk = Desk::new();
    for directory in [".", "./"] {
        desk.says(&format!("-f {directory} config"), &[], "`.` could not be read: it is a directory");
        desk.says(&format!("-f {directory} config"), &[], "`compose.yaml` is there");
    }
}

#[test]
fn a_dry_run_leaves_the_agent_alone() {
    let desk = Desk::new();
    for command in ["agent stop", "agent uninstall", "agent uninstall --force"] {
        desk.orch(&format!("--dry-run {command}"), &[("DOCKER_HOST", &desk.engine_address())]);
        let heard: Vec<_> = [&desk.agent, &desk.engine].iter().flat_map(|peer| peer.heard()).collect();
        let changes = heard.iter().find(|(target, _)| !target.starts_with("GET ") && !target.starts_with("HEAD "));
        assert!(changes.is_none() && heard.len() > 1, "{command}: {heard:?}");
    }
}

#[test]
fn variables_about_files_and_projects_are_honoured() {
    let desk = Desk::new();
    desk.says("config --services", &[], "web\n");
    desk.says("config --services", &[("COMPOSE_FILE", "compose.yaml:other.yaml")], "db\n");
    desk.says(
        "config --services",
        &[("COMPOSE_FILE", "compose.yaml,other.yaml"), ("COMPOSE_PATH_SEPARATOR", ",")],
        "db\n",
    );
    desk.says("config --services", &[("COMPOSE_PROFILES", "more")], "extra\n");
    desk.says("config", &[("COMPOSE_PROJECT_NAME", "named")], "name: named\n");
    desk.says("-f other.yaml config --images", &[], "busybox:of-dotenv");
    desk.says("-f other.yaml config --images", &[("COMPOSE_ENV_FILES", "own.env")], "busybox:of-own");
    desk.says("-f other.yaml config --images", &[("COMPOSE_DISABLE_ENV_FILE", "1")], "busybox:none");
    // What has no effect is said to have none where it would change something.
    desk.says("config --services", &[("COMPOSE_COMPATIBILITY", "true")], "COMPOSE_COMPATIBILITY");
    let variable = "COMPOSE_CONVERT_WINDOWS_PATHS";
    assert_eq!(desk.orch("config", &[(variable, "1")]), desk.orch("config", &[]), "{variable}");
}

#[test]
fn variables_that_stand_for_flags_are_checked_like_them() {
    let desk = Desk::new();
    for variable in ["COMPOSE_ANSI", "COMPOSE_PROGRESS", "COMPOSE_PARALLEL_LIMIT"] {
        let output = desk.orch("version", &[(variable, "nonsense")]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains("nonsense"), "{variable}: {text}");
    }
}

#[test]
fn files_of_variables_say_what_they_say_to_docker_compose() {
    let desk = Desk::new();
    let dotenv = |text: &str| std::fs::write(desk.folder.path().join(".env"), text).expect("written");
    let wrong = |variable: &str| {
        let output = desk.orch("config -q", &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code() == Some(1), text.contains("nonsense")), (true, true), "{variable}: {text}");
    };
    for variable in ["COMPOSE_ANSI", "COMPOSE_PARALLEL_LIMIT"] {
        dotenv(&format!("{variable}=nonsense\n"));
        wrong(variable);
        desk.says("version", &[], "orch");
    }
    // Neither does 2.40 take these from there.
    for variable in ["COMPOSE_PROGRESS", "DOCKER_HOST", "DOCKER_CONTEXT", "COMPOSE_ENV_FILES"] {
        dotenv(&format!("{variable}=nonsense\n"));
        assert_eq!(desk.orch("config -q", &[]).status.code(), Some(0), "{variable}");
    }
    dotenv("COMPOSE_ANSI=always\nCOMPOSE_PROGRESS=json\n");
    let refused = |words: &str, variables: &[(&str, &str)]| {
        String::from_utf8_lossy(&desk.orch(words, variables).stderr).into_owned()
    };
    assert!(refused("up -d --menu", &[]).contains("\x1b["), "in colours, and no JSON");
    assert!(!refused("up -d --menu", &[("COMPOSE_ANSI", "never")]).contains('\x1b'));
    assert!(!refused("--ansi never up -d --menu", &[]).contains('\x1b'));
    dotenv("COMPOSE_COMPATIBILITY=1\n");
    desk.says("config --services", &[], "COMPOSE_COMPATIBILITY");
}

/// What the agent is asked of orphans.
#[track_caller]
fn orphans(desk: &Desk, words: &str, variables: &[(&str, &str)]) -> (bool, bool) {
    desk.agent.forget();
    desk.orch(words, variables);
    let asked = desk.agent.heard().into_iter().find(|(request, _)| request.ends_with("/plan"));
    let (_, body) = asked.expect("the agent is asked for a plan");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let flag = |name: &str| body["options"][name].as_bool().expect(name);
    (flag("remove_orphans"), flag("ignore_orphans"))
}

#[test]
fn variables_about_orphans_are_honoured_also_those_of_dotenv() {
    let desk = Desk::new();
    assert_eq!(orphans(&desk, "plan", &[]), (false, false));
    assert_eq!(orphans(&desk, "plan", &[("COMPOSE_REMOVE_ORPHANS", "1")]), (true, false));
    assert_eq!(orphans(&desk, "plan", &[("COMPOSE_IGNORE_ORPHANS", "true")]), (false, true));
    desk.says("plan --remove-orphans", &[("COMPOSE_IGNORE_ORPHANS", "1")], "`--remove-orphans` cannot be used");
    std::fs::write(desk.folder.path().join(".env"), "COMPOSE_REMOVE_ORPHANS=true\n").expect("written");
    assert_eq!(orphans(&desk, "plan", &[]), (true, false));
}

#[test]
fn variables_about_the_engine_are_honoured() {
    let desk = Desk::new();
    let asked = |variables: &[(&str, &str)]| {
        desk.engine.forget();
        desk.orch("ps", variables);
        !desk.engine.heard().is_empty()
    };
    let address = desk.engine_address();
    assert!(!asked(&[]));
    assert!(asked(&[("DOCKER_HOST", &address)]));
    let meta = desk.folder.path().join("docker/contexts/meta/00");
    std::fs::create_dir_all(&meta).expect("a directory");
    let text = serde_json::json!({"Name": "far", "Endpoints": {"docker": {"Host": address}}}).to_string();
    std::fs::write(meta.join("meta.json"), text).expect("written");
    let docker = desk.folder.path().join("docker").display().to_string();
    assert!(asked(&[("DOCKER_CONFIG", &docker), ("DOCKER_CONTEXT", "far")]));
    desk.says("ps", &[("DOCKER_CONTEXT", "near")], "`near` is not a valid context");
}

#[test]
fn the_default_platform_is_that_of_pulls() {
    let desk = Desk::new();
    let address = desk.engine_address();
    desk.orch("pull web", &[("DOCKER_HOST", &address), ("DOCKER_DEFAULT_PLATFORM", "linux/arm64")]);
    let targets: Vec<String> = desk.engine.heard().into_iter().map(|(target, _)| target).collect();
    assert!(targets.iter().any(|target| target.contains("/images/create") && target.contains("arm64")), "{targets:?}");
}

#[test]
fn progress_goes_to_standard_output_on_demand() {
    let desk = Desk::new();
    let lines = || {
        let lines = desk.agent.streams("POST /v1/projects/shop/ask");
        for line in [
            r#"{"type":"object","kind":"Container","name":"a","host":"local","status":"Stopped","state":"done","detail":null}"#,
            r#"{"type":"done","revision":1}"#,
        ] {
            lines.send(line.to_owned()).expect("it is listened to");
        }
    };
    let told = " Container a  Stopped\n";
    lines();
    let output = desk.orch("-p shop stop", &[]);
    assert_eq!((&*output.stdout, &*output.stderr), (&b""[..], told.as_bytes()));
    lines();
    let output = desk.orch("-p shop stop", &[("COMPOSE_STATUS_STDOUT", "1")]);
    assert_eq!((&*output.stdout, &*output.stderr), (told.as_bytes(), &b""[..]));
}

#[test]
fn what_is_about_no_project_needs_no_file_that_loads() {
    let desk = Desk::new();
    desk.agent.says("GET /v1/projects", 200, "[]");
    std::fs::write(desk.folder.path().join("compose.yaml"), "services:\n  web:\n    imgae: busybox\n")
        .expect("written");
    for (words, code, said) in
        [("ls", 0, "CONFIG FILES"), ("status", 0, "the local engine alone"), ("host ls", 1, "orch host add")]
    {
        let output = desk.orch(words, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = format!("{}{stderr}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.status.code(), Some(code), "{words}: {told}");
        assert!(told.contains(said), "{words}: {told}");
        let warning = "warning: hosts that the compose file names are not known: ";
        assert_eq!(stderr.matches(warning).count(), 1, "{words}: {stderr}");
        assert!(stderr.contains("compose.yaml:3:5: "), "{words}: {stderr}");
    }
    // What is about the project needs it.
    let output = desk.orch("ps", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error"), "{output:?}");
}
