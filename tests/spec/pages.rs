//! What the pages about orch's own keys and about networking show is what orch understands.

use std::path::{Path, PathBuf};

use orch::load::patterns::{self, library::BUILT_IN};

use crate::project::Project;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/patterns.md")).expect("the page")
}

fn networking() -> String {
    std::fs::read_to_string(root().join("docs/networking.md")).expect("the page")
}

/// Returns the fenced examples of a kind on a page.
fn examples(page: &str, kind: &str) -> Vec<String> {
    let fence = format!("```{kind}\n");
    page.split(&fence).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

#[test]
fn examples_of_the_page_load_without_a_complaint() {
    let (keys, networking) = (examples(&page(), "yaml"), examples(&networking(), "yaml"));
    assert!(keys.len() > 8 && networking.len() > 1, "only {} and {} examples", keys.len(), networking.len());
    for text in keys.into_iter().chain(networking) {
        let mut project = Project::new([text.clone()]);
        for file in ["authorities.pem", "client.pem", "chain-and-key.pem"] {
            project.files.files.insert(format!("/project/{file}").into(), b"-----".to_vec());
        }
        for pattern in examples(&page(), "yaml pattern") {
            project.files.files.insert("/project/patterns/metrics.yaml".into(), pattern.into());
        }
        let loaded = project.load().unwrap_or_else(|problems| panic!("{text}\n{problems}"));
        assert!(loaded.warnings.is_empty(), "{text}\n{}", loaded.warnings);
    }
    for text in examples(&page(), "yaml pattern") {
        let problems = patterns::lint("metrics", "metrics.yaml", &text);
        assert!(problems.is_empty(), "{problems}");
    }
}

#[test]
fn pages_that_messages_cite_have_the_section() {
    fn visit(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                visit(&path, found);
            } else {
                let text = std::fs::read_to_string(&path).expect("text");
                let cited = text.split("docs/patterns.md#").skip(1).filter_map(|rest| rest.split(['"', '`']).next());
                found.extend(cited.map(|section| (path.clone(), section.to_owned())));
            }
        }
    }
    let headings: Vec<String> = page()
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let mut cited = Vec::new();
    visit(&root().join("src/load"), &mut cited);
    assert!(cited.len() > 20, "only {} places cite a section", cited.len());
    for (path, section) in cited {
        assert!(headings.contains(&section), "{}: no section `{section}` in {headings:?}", path.display());
    }
}

#[test]
fn patterns_of_the_repository_are_in_the_binary_and_right() {
    let mut files: Vec<String> = std::fs::read_dir(root().join("patterns"))
        .expect("patterns")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut known: Vec<String> = BUILT_IN.iter().map(|(name, _)| format!("{name}.yaml")).collect();
    known.sort();
    assert_eq!(files, known);
    for (name, text) in BUILT_IN {
        let problems = patterns::lint(name, name, text);
        assert!(problems.is_empty(), "{problems}");
        let described = patterns::describe(name, name, text).expect("it is right");
        let row = format!("| `{name}` |");
        let page = page();
        let row =
            page.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("{row} is not on the page"));
        for parameter in described.parameters {
            assert!(row.contains(&format!("`{}`", parameter.name)), "{name}: `{}` is not on the page", parameter.name);
        }
    }
}

#[test]
fn the_nearest_pattern_of_a_name_counts() {
    let pattern = |label: &str| format!("name: redis-ambassador\nservice: {{labels: {{from: {label}}}}}\n");
    let file =
        "services: {a: {image: x, x-patterns: redis-ambassador}, b: {image: x, x-patterns: ./mine/other.yaml}}\n";
    let mut project = Project::new([file]);
    let label = |project: &Project, service: &str| {
        let loaded = project.load().unwrap_or_else(|problems| panic!("{problems}"));
        loaded.model.services[service].labels.get("from").cloned()
    };
    project.files.files.insert("/project/mine/other.yaml".into(), pattern("path").into());
    let text = "services: {redis: {image: x}}\n";
    project.files.files.insert("/project/more.yaml".into(), text.into());
    project.request.files.push("more.yaml".to_owned());
    assert_eq!((label(&project, "a"), label(&project, "b")), (None, Some("path".to_owned())));
    project.files.files.insert("/home/u/.config/orch/patterns/redis-ambassador.yaml".into(), pattern("home").into());
    assert_eq!(label(&project, "a").as_deref(), Some("home"));
    project.request.environment.insert("XDG_CONFIG_HOME".to_owned(), "/xdg".to_owned());
    project.files.files.insert("/xdg/orch/patterns/redis-ambassador.yml".into(), pattern("xdg").into());
    assert_eq!(label(&project, "a").as_deref(), Some("xdg"));
    project.files.files.insert("/project/patterns/redis-ambassador.yaml".into(), pattern("project").into());
    assert_eq!(label(&project, "a").as_deref(), Some("project"));
}
