//! Everything that the other tests accept, run through Docker Compose itself and compared as JSON.
//!
//! Needs Docker Compose 2.40 or later 2.x: the program named by `ORCH_COMPOSE_REFERENCE`, or `docker-compose` in PATH.
//! Where there is none the test says so loudly; set `ORCH_COMPOSE_REFERENCE=required` to make that a failure (as CI does).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use orch::load::{LoadRequest, OsFiles, OwnKeys, Selection, load, render_json};
use serde_json::Value;

use crate::project::{ENVIRONMENT, Project, SHARED};
use crate::{cases, files, table};

/// Cases in which orch differs on purpose: part of the file's name or of the row, and the reason.
const DIFFERENT: &[(&str, &str)] = &[
    ("create_host_path: false", "2.40 prints neither `true` nor `false` then, and would load its own output wrongly"),
    ("::1:6000:6000", "the specification allows it"),
    ("c: {condition: service_started, required: false}", "2.40 refuses what is not required but not there"),
    ("12-interpolation/keys.yaml", "2.40 doubles `$` in the keys that it prints, but not in those that it reads"),
    ("mode: host}, 81", "2.40 does not see that a port given as number and as text is the same"),
    ("/run/secrets/c", "2.40 mounts two secrets at one path"),
    ("size=2", "2.40 mounts two memory file systems at one path"),
    (
        "05-services/extends-tags.yaml",
        "2.40 does not obey `!reset` where the base is of the same document; later ones do",
    ),
    ("14-include/conflict.yaml", "2.40 refuses definitions that differ; compose-go merges them since 2025-11"),
    ("14-include/extended.yaml", "2.40 extends before it includes; compose-go does so after it since 2026-03"),
    ("x-keys/extends.yaml", "2.40 knows no paths in keys that it does not know"),
    ("x-keys/forms.yaml", "2.40 does not know that a list and a mapping are the same in keys that it does not know"),
];

/// Cases that are run once more without what the loader fills in: paths show then whose directory they are seen from.
const AS_WRITTEN: &[&str] = &["extends", "14-include", "label-file", "/all.yaml"];

/// Chapter of orch's own keys: its files need configs and the like that Docker Compose does not see a use of.
const OWN: &str = "tests/spec/x-";

#[expect(clippy::disallowed_methods, reason = "the reference is a program")]
fn command(program: &Path) -> Command {
    Command::new(program)
}

fn reference() -> Option<PathBuf> {
    let named = std::env::var_os("ORCH_COMPOSE_REFERENCE").filter(|name| name != "required").map(PathBuf::from);
    let program = named.unwrap_or_else(|| PathBuf::from("docker-compose"));
    let output = command(&program).args(["version", "--short"]).output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v').to_owned();
    let minor: u32 = version.strip_prefix("2.")?.split('.').next()?.parse().ok()?;
    (minor >= 40).then_some(program)
}

/// What Docker Compose says of a project in `directory`, in a form; `None` if it refuses.
fn theirs(program: &Path, directory: &Path, request: &LoadRequest, form: &str) -> Option<Vec<u8>> {
    let mut run = command(program);
    run.current_dir(directory).env_clear().envs(ENVIRONMENT).env("HOME", "/home/u");
    for file in &request.files {
        run.args(["-f", file]);
    }
    for profile in &request.profiles {
        run.args(["--profile", profile]);
    }
    if request.options.all_resources {
        run.arg("--all-resources");
    }
    let off = [("--no-normalize", request.options.normalise), ("--no-path-resolution", request.options.resolve_paths)];
    let off = off.iter().filter(|(_, on)| !on).map(|(flag, _)| *flag);
    let output =
        run.args(["config", "--format", form]).args(off).args(&request.services).output().expect("it ran before");
    output.status.success().then_some(output.stdout)
}

/// Returns the `x-` keys of a project, by their paths.
fn extensions(project: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for section in ["services", "volumes"] {
        for (name, entry) in project[section].as_object().into_iter().flatten() {
            let keys = entry.as_object().into_iter().flatten().filter(|(key, _)| key.starts_with("x-"));
            found.extend(keys.map(|(key, value)| (format!("{section}.{name}.{key}"), value.clone())));
        }
    }
    found
}

/// Takes out the `x-` keys below the top level, which Docker Compose leaves out of its JSON.
fn without_extensions(value: &mut Value, top: bool) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| top || !key.starts_with("x-"));
            map.values_mut().for_each(|value| without_extensions(value, false));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| without_extensions(item, false)),
        _ => {}
    }
}

#[test]
fn docker_compose_makes_the_same_of_every_file_that_orch_accepts() {
    let Some(program) = reference() else {
        let required = std::env::var_os("ORCH_COMPOSE_REFERENCE").is_some();
        assert!(!required, "ORCH_COMPOSE_REFERENCE is set, but there is no Docker Compose 2.40 or later 2.x");
        let mut stderr = std::io::stderr();
        std::io::Write::write_all(&mut stderr, b"NOT COVERED: no Docker Compose 2.40 to compare with\n")
            .expect("stderr");
        return;
    };
    let whole = cases().into_iter().map(|case| (case.display().to_string(), Project::of_case(&case)));
    let rows = files(".table").into_iter().flat_map(|table| {
        let rows = table::rows(&table);
        rows.into_iter().map(move |row| (row.layers.join(" + "), table::project(&table, &row)))
    });
    let mut failures = Vec::new();
    let mut compared = 0;
    for (name, project) in whole.chain(rows) {
        if DIFFERENT.iter().any(|(part, _)| name.contains(part)) {
            continue;
        }
        if let Some(failure) = compare(&program, &name, &project, &[], &mut compared) {
            failures.push(format!("{name}\n{failure}"));
        }
        if AS_WRITTEN.iter().any(|part| name.contains(part)) {
            let flags = ["--no-normalize", "--no-path-resolution"];
            let failure = compare(&program, &name, &project, &flags, &mut compared);
            failures.extend(failure.map(|failure| format!("{name} {}\n{failure}", flags.join(" "))));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(compared > 150, "only {compared} projects were compared");
}

/// Runs a project through both; `Some` says how they differ.
fn compare(program: &Path, name: &str, project: &Project, flags: &[&str], compared: &mut usize) -> Option<String> {
    let directory = tempfile::Builder::new().prefix("project").tempdir().expect("a directory");
    for (path, text) in &project.files.files {
        let path = directory.path().join(path.strip_prefix("/project").expect("all are there"));
        std::fs::create_dir_all(path.parent().expect("it is below another")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    for (name, text) in SHARED {
        std::fs::write(directory.path().join(name), text).expect("written");
    }
    let mut request = project.request.clone();
    request.cwd = directory.path().canonicalize().expect("it is there");
    request.options.contents = false;
    request.options.own_keys = OwnKeys::AsWritten;
    request.options.all_resources = name.contains(OWN);
    request.options.normalise = !flags.contains(&"--no-normalize");
    request.options.resolve_paths = !flags.contains(&"--no-path-resolution");
    if !request.services.is_empty() {
        request.options.selection = Selection::WithDependencies;
    }
    let loaded = load(&OsFiles, &request).ok()?;
    let mut ours: Value = serde_json::from_str(&render_json(&loaded.model)).expect("JSON");
    let Some(printed) = theirs(program, &request.cwd, &request, "json") else {
        return Some("Docker Compose refuses it".to_owned());
    };
    let mut theirs: Value = serde_json::from_slice(&printed).expect("it prints JSON");
    *compared += 1;
    // It leaves `x-` keys out of its JSON. Of several files each has its own rules to merge them, which is ours alone.
    if name.contains(OWN) && request.files.len() == 1 {
        let printed = self::theirs(program, &request.cwd, &request, "yaml").expect("as in JSON");
        let theirs: Value = serde_yaml::from_slice(&printed).expect("it prints YAML");
        let (ours, theirs) = (extensions(&ours), extensions(&theirs));
        if ours != theirs {
            return Some(format!("keys of orch's own:\n{ours:#?}\n{theirs:#?}"));
        }
    }
    without_extensions(&mut ours, true);
    without_extensions(&mut theirs, true);
    ours.sort_all_objects();
    theirs.sort_all_objects();
    let pretty = |value: &Value| format!("{value:#}\n");
    (ours != theirs).then(|| {
        similar::TextDiff::from_lines(pretty(&theirs).as_str(), pretty(&ours).as_str()).unified_diff().to_string()
    })
}
