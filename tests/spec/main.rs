//! The Compose Specification as files: what `load` makes of them, beside each.
//!
//! * A folder per chapter. `NAME.yaml` (and `NAME.2.yaml`, … as further `-f`) has `NAME.json`, the canonical model, or
//!   `NAME.txt`, the problems; where it loads, but cannot be run yet, `NAME.up.txt`, why; and where it has keys of orch's own
//!   `NAME.keys.json`, what they mean. Patterns of the project are `NAME.pattern-PATTERN.yaml`, other files of it are below
//!   `NAME.files/`. A first line `# args: …` holds profiles (`--profile P`) and services.
//! * `NAME.table` holds many short cases of one service; see [`table`].
//!
//! `ORCH_SPEC_UPDATE=1` writes what is expected anew, to be read in review. [`reference`] runs all that is accepted
//! through Docker Compose itself, where there is one.

mod carried;
mod compat;
mod discovery;
mod expanded;
mod flags;
mod fuzz;
mod generated;
mod hashes;
mod limits;
mod pages;
mod parallel;
mod project;
mod properties;
mod reference;
mod schema;
mod table;

use std::path::{Path, PathBuf};

use project::Project;

/// Compares with the file `expected`, or writes it.
fn expect(expected: &Path, actual: &str, failures: &mut Vec<String>) {
    if std::env::var_os("ORCH_SPEC_UPDATE").is_some() {
        std::fs::write(expected, actual).expect("expected files can be written");
        return;
    }
    let wanted = std::fs::read_to_string(expected).unwrap_or_default();
    if wanted != actual {
        let diff = similar::TextDiff::from_lines(&wanted, actual);
        failures.push(format!("{}\n{}", expected.display(), diff.unified_diff()));
    }
}

/// Returns the files below `tests/spec` whose names end in `suffix`, sorted.
fn files(suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec");
    for chapter in std::fs::read_dir(root).expect("the folder is there").flatten() {
        let Ok(entries) = std::fs::read_dir(chapter.path()) else { continue };
        found.extend(entries.flatten().map(|entry| entry.path()));
    }
    found.retain(|path| path.to_string_lossy().ends_with(suffix));
    found.sort();
    found
}

/// Returns the whole-file cases: the first file of each.
fn cases() -> Vec<PathBuf> {
    let further = |path: &PathBuf| path.file_stem().is_some_and(|stem| Path::new(stem).extension().is_some());
    files(".yaml").into_iter().filter(|path| !further(path)).collect()
}

/// Returns what orch's own keys of a project mean, without what is at its default; empty: there are none.
fn keys(model: &orch::model::Model) -> String {
    let default = serde_json::to_value(orch::model::ServiceKeys::default()).expect("JSON");
    let mut said = serde_json::Map::new();
    for (name, service) in &model.services {
        let mut keys = serde_json::to_value(&service.keys).expect("JSON");
        keys.as_object_mut().expect("a mapping").retain(|key, value| *value != default[key]);
        for (group, helper, container) in service.keys.helpers() {
            if let Some(probe) = &container.keys.probe {
                keys[format!("{group}.{helper}.x-probe")] = serde_json::to_value(probe).expect("JSON");
            }
        }
        if keys.as_object().is_some_and(|keys| !keys.is_empty()) {
            said.insert(format!("services.{name}"), keys);
        }
    }
    for (key, volume) in &model.volumes {
        if let Some(pod) = &volume.pod {
            said.insert(format!("volumes.{key}"), serde_json::to_value(pod).expect("JSON"));
        }
    }
    if said.is_empty() { String::new() } else { format!("{:#}\n", serde_json::Value::Object(said)) }
}

#[test]
fn files_load_as_written_beside_them() {
    let mut failures = Vec::new();
    let cases = cases();
    assert!(cases.len() > 20, "only {} cases found", cases.len());
    for case in cases {
        let project = Project::of_case(&case);
        let loaded = project.load();
        // What is expected of the other outcome would never be looked at.
        let others: &[&str] = if loaded.is_ok() { &["txt"] } else { &["json", "keys.json", "up.txt", "warnings.txt"] };
        let stale = others.iter().map(|suffix| case.with_extension(suffix)).filter(|path| path.exists());
        failures.extend(stale.map(|path| format!("{} belongs to another outcome", path.display())));
        match loaded {
            Ok(loaded) => {
                let keys = keys(&loaded.model);
                if !keys.is_empty() || case.with_extension("keys.json").exists() {
                    expect(&case.with_extension("keys.json"), &keys, &mut failures);
                }
                let warnings = loaded.warnings.to_string();
                let json = orch::load::render_json(&loaded.model);
                expect(&case.with_extension("json"), &json, &mut failures);
                let refused = project.load_to_run().err().map(|problems| problems.to_string()).unwrap_or_default();
                if !refused.is_empty() || case.with_extension("up.txt").exists() {
                    expect(&case.with_extension("up.txt"), &refused, &mut failures);
                }
                if !warnings.is_empty() || case.with_extension("warnings.txt").exists() {
                    expect(&case.with_extension("warnings.txt"), &warnings, &mut failures);
                }
            }
            Err(problems) => expect(&case.with_extension("txt"), &problems.to_string(), &mut failures),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
