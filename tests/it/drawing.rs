//! `orch graph` of every example, as the real program draws it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns what `orch graph` prints of an example.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "the program is run as a user would")]
fn graph(example: &Path, format: &str) -> String {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_orch"));
    command.arg("-f").arg(example).args(["graph", "--format", format]).env_clear().env("HOME", home.path());
    let output = command.output().expect("run orch");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{}: {}", example.display(), String::from_utf8_lossy(&output.stderr));
    text
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose-examples");
    let entries = std::fs::read_dir(folder).expect("examples").map(|entry| entry.expect("readable").path());
    entries.map(|path| path.join("compose.yaml")).collect()
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("compose-examples").join(name).join("compose.yaml")
}

/// Checks that every element of a picture is closed in order, and that its values are quoted and hold no sign of markup.
#[track_caller]
fn check_well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    while let Some((text, after)) = rest.split_once('<') {
        assert!(!text.contains('>'), "a bare `>` in {text}");
        let amps = text.match_indices('&').all(|(at, _)| text[at..].find(';').is_some_and(|end| end < 7));
        assert!(amps, "a bare `&` in {text}");
        let (tag, after) = after.split_once('>').expect("every `<` has its `>`");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed out of order");
            continue;
        }
        let name = tag.split([' ', '/']).next().expect("a name");
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of {tag}");
        assert!(!tag.contains('<'), "{tag}");
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "not closed: {open:?}");
}

/// Returns the numbers of an attribute of all elements of a kind.
fn numbers(svg: &str, element: &str, attribute: &str) -> Vec<f64> {
    let (key, start) = (format!(" {attribute}=\""), format!("<{element} class="));
    let elements = svg.split(start.as_str()).skip(1).map(|rest| rest.split('>').next().unwrap_or_default());
    elements.filter_map(|text| text.split(&key).nth(1)?.split('"').next()?.parse().ok()).collect()
}

#[test]
fn every_example_is_drawn_in_every_form() {
    for example in examples() {
        let text = graph(&example, "text");
        assert!(text.starts_with("project ") && !text.contains('\x1b'), "{text}");
        let json: serde_json::Value = serde_json::from_str(&graph(&example, "json")).expect("JSON");
        let (nodes, edges) = (json["nodes"].as_array().expect("nodes"), json["edges"].as_array().expect("edges"));
        let dot = graph(&example, "dot");
        assert_eq!(dot.matches(" -> ").count(), edges.len(), "{dot}");
        assert!(dot.starts_with("digraph ") && dot.ends_with("}\n"), "{dot}");

        let svg = graph(&example, "svg");
        check_well_formed(&svg);
        assert_eq!(svg.matches("<rect class=").count(), nodes.len());
        assert_eq!(svg.matches("<path class=").count(), edges.len());
        let all = ["x", "y", "width", "height"].map(|attribute| numbers(&svg, "rect", attribute));
        let [x, y, width, height] = &all;
        for one in 0..nodes.len() {
            for other in one + 1..nodes.len() {
                let apart =
                    |at: &[f64], long: &[f64]| at[one] + long[one] <= at[other] || at[other] + long[other] <= at[one];
                assert!(apart(x, width) || apart(y, height), "boxes overlap in {}: {svg}", example.display());
            }
        }
    }
}

#[test]
fn drawings_are_as_reviewed() {
    for name in ["sidecar", "ambassador", "routes", "voting"] {
        insta::assert_snapshot!(format!("{name}_text"), graph(&example(name), "text"));
    }
    insta::assert_snapshot!("sidecar_dot", graph(&example("sidecar"), "dot"));
}
