//! Every example loads without a warning, and is to orch what it is to Docker Compose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orch::load::{self, LoadOptions, LoadRequest, Loaded, OsFiles, OwnKeys};
use serde_json::Value;

/// Returns the compose files of all examples, by name.
fn examples() -> BTreeMap<String, PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose-examples");
    let entries = std::fs::read_dir(folder).expect("examples").map(|entry| entry.expect("readable"));
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path().join("compose.yaml"))).collect()
}

#[track_caller]
fn load(file: &Path) -> Loaded {
    load_as(file, OwnKeys::Used)
}

#[track_caller]
fn load_as(file: &Path, own_keys: OwnKeys) -> Loaded {
    let request = LoadRequest {
        options: LoadOptions { own_keys, ..LoadOptions::default() },
        cwd: file.parent().expect("a folder").to_owned(),
        files: vec![file.to_string_lossy().into_owned()],
        ..LoadRequest::default()
    };
    let loaded = load::load(&OsFiles, &request).unwrap_or_else(|problems| panic!("{}: {problems}", file.display()));
    assert!(loaded.warnings.is_empty(), "{}: {}", file.display(), loaded.warnings);
    loaded
}

#[test]
fn every_example_becomes_a_graph_without_a_warning_and_has_ports_of_its_own() {
    let mut ports: BTreeMap<u16, String> = BTreeMap::new();
    for (name, file) in examples() {
        let loaded = load(&file);
        let contents = loaded.contents.iter().map(|((kind, key), bytes)| {
            let kind = match kind {
                load::FileKind::Config => orch::expand::FileKind::Config,
                load::FileKind::Secret => orch::expand::FileKind::Secret,
            };
            ((kind, key.clone()), bytes.clone())
        });
        let expanded = orch::expand::expand(&orch::expand::Input {
            logins: None,
            model: &loaded.model,
            contents: &contents.collect(),
            snapshots: &BTreeMap::new(),
            scales: &BTreeMap::new(),
            disabled: &BTreeMap::new(),
            working_dir: "/",
            config_files: &[],
        });
        let expanded = expanded.unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        assert_eq!(expanded.warnings, [], "{name}");
        // All of them can be up on one machine.
        for service in expanded.graph.services.values() {
            let published = service.ports.iter().filter_map(|port| Some(port.published?.0));
            let routed = service.serving.routes.iter().flat_map(|route| &route.listen).map(|listen| listen.port);
            for port in published.chain(routed) {
                let owner = ports.entry(port).or_insert_with(|| name.clone());
                assert_eq!(*owner, name, "port {port} is of two examples");
            }
        }
    }
    assert!(ports.len() > 12, "{ports:?}");
}

/// Takes out the `x-` keys of services and volumes, which Docker Compose leaves out of its JSON.
fn without_extensions(project: &mut Value) {
    for section in ["services", "volumes"] {
        let entries = project.get_mut(section).and_then(Value::as_object_mut);
        for entry in entries.into_iter().flat_map(|map| map.values_mut()) {
            if let Some(map) = entry.as_object_mut() {
                map.retain(|key, _| !key.starts_with("x-"));
            }
        }
    }
}

#[test]
fn every_example_is_the_same_to_docker_compose() {
    let reference = std::env::var("ORCH_COMPOSE_REFERENCE").expect(
        "ORCH_COMPOSE_REFERENCE names a Docker Compose 2.40: `scripts/setup test` unpacks one, `scripts/test` sets it",
    );
    for (name, file) in examples() {
        #[expect(clippy::disallowed_methods, reason = "the reference is a program")]
        let output =
            std::process::Command::new(&reference).arg("-f").arg(&file).args(["config", "--format", "json"]).output();
        let output = output.expect("run the reference");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let theirs: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let ours = load::render_json(&load_as(&file, OwnKeys::AsWritten).model);
        let mut ours: Value = serde_json::from_str(&ours).expect("JSON");
        without_extensions(&mut ours);
        assert_eq!(ours, theirs, "{name}");
    }
}
