//! Keeps the source tree as ARCHITECTURE.md describes it. A rule that must give way is changed here and there together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the bottom up: values and pure functions over them.
const PURE: &[&str] = &["ids", "diag", "hosts", "model", "load", "graph", "expand", "observed", "place", "plan"];

/// The edges, each over the pure part, and the edges that each may import besides.
const EDGES: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("engine", &[]),
    ("host", &[]),
    ("store", &["clock"]),
    ("net", &["clock"]),
    ("snapshot", &[]),
    ("mesh", &["clock", "host"]),
    ("lb", &["clock", "host", "mesh", "net"]),
    ("transport", &["engine"]),
    ("api", &["transport", "lb"]),
];

/// The shells: they wire, and may import all that is above.
const SHELLS: &[&str] = &["agent", "cli", "controller", "demo", "testing", "lib", "main"];

/// What one pure module may not import although it stands below: loading text and the graph do not know each other.
const APART: &[(&str, &str)] = &[("graph", "load"), ("expand", "load"), ("place", "load"), ("plan", "load")];

/// Parts of the pure modules and of edges that are pure too.
const PURE_FILES: &[&str] = &[
    "net/addr.rs",
    "net/names.rs",
    "lb/build.rs",
    "lb/pick.rs",
    "lb/table.rs",
    "lb/http/answer.rs",
    "lb/http/chunked.rs",
    "lb/http/forward.rs",
    "lb/http/head.rs",
    "lb/http/refusal.rs",
    "lb/http/route.rs",
    "engine/translate.rs",
];

/// The one file of a pure module with an edge in it: a trait for reading files, beside its real implementation.
const PURE_EDGE: &str = "load/source.rs";

/// Concrete edge types, each with its module, and who else may name them: only the places that wire.
const CONCRETE: &[(&str, &str)] = &[("DockerEngine", "engine"), ("Embedded", "store"), ("LinuxHostNetwork", "host")];
const WIRES: &[&str] = &["agent/wire.rs", "cli", "main.rs"];

/// Longest file, in lines; past it, look for the seam.
const LONGEST: usize = 600;

/// A source file with its path below `src/`.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Returns the module of the crate that the file belongs to: `plan` for `plan/diff.rs`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Returns whether the file, or a folder that it is in, is declared for tests only.
    fn for_tests(&self) -> bool {
        let parts: Vec<&str> = self.path.trim_end_matches(".rs").split('/').collect();
        (1..parts.len()).any(|depth| {
            let parent = fs::read_to_string(root().join("src").join(parts[..depth].join("/")).with_extension("rs"));
            let declaration = format!("mod {};", parts[depth]);
            let text = parent.unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            lines.windows(2).any(|pair| {
                pair[0].starts_with("#[cfg(") && pair[0].contains("test") && pair[1].ends_with(&declaration)
            })
        })
    }

    /// Returns the lines of code that are not for tests, numbered, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.for_tests() { 0 } else { usize::MAX };
        self.text
            .lines()
            .enumerate()
            .take(end)
            .take_while(|(_, line)| *line != "#[cfg(test)]")
            .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every file below `folder`, without what git ignores and git's own.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the project").map(|entry| entry.expect("readable")) {
        let path = entry.path();
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        if entry.file_type().expect("readable").is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let rust = files(&src).into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    rust.map(|path| Source {
        path: path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned(),
        text: fs::read_to_string(&path).expect("text"),
    })
    .collect()
}

/// Returns the modules that `module` may import; `None`: it is a shell, or not known here.
fn may_import(module: &str) -> Option<BTreeSet<&'static str>> {
    if let Some(place) = PURE.iter().position(|&pure| pure == module) {
        let apart = |below: &&str| !APART.contains(&(module, *below));
        return Some(PURE[..place].iter().copied().filter(apart).collect());
    }
    let (_, others) = EDGES.iter().find(|(edge, _)| *edge == module)?;
    Some(PURE.iter().filter(|&&pure| pure != "load").chain(*others).copied().collect())
}

/// Returns the modules of the crate that a line of code names.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").map(|(at, found)| {
        let rest = &line[at + found.len()..];
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
    })
}

#[track_caller]
fn none(problems: &[String], rule: &str) {
    assert!(problems.is_empty(), "{rule}:\n{}", problems.join("\n"));
}

#[test]
fn imports_follow_the_arrows() {
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(Source::module).collect();
    let mut problems = Vec::new();
    for source in &sources {
        let Some(allowed) = may_import(source.module()) else {
            if !SHELLS.contains(&source.module()) {
                problems.push(format!("src/{}: module `{}` has no place in the order", source.path, source.module()));
            }
            continue;
        };
        for (number, line) in source.code() {
            let wrong = imports(line)
                .filter(|&name| modules.contains(name) && name != source.module() && !allowed.contains(name));
            problems.extend(wrong.map(|name| format!("src/{}:{number}: imports `{name}`", source.path)));
        }
    }
    none(&problems, "imports against the arrows of ARCHITECTURE.md");
}

#[test]
fn shells_do_not_import_each_other() {
    let mut problems = Vec::new();
    for source in sources() {
        let forbidden: &[&str] = match source.module() {
            "agent" => &["cli", "load", "demo"],
            "demo" => &["agent", "engine", "store", "api"], // `cli` for its exit codes
            _ => continue,
        };
        for (number, line) in source.code() {
            let wrong = imports(line).filter(|name| forbidden.contains(name));
            problems.extend(wrong.map(|name| format!("src/{}:{number}: imports `{name}`", source.path)));
        }
    }
    none(&problems, "a shell imports what is above it or beside it");
}

#[test]
fn pure_parts_know_no_clock_network_or_file() {
    const WORLD: &[&str] = &[
        "tokio::",
        "std::fs",
        "std::env",
        "std::process",
        "std::thread",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "SystemTime",
        "Instant::now",
        "async fn",
        "bollard",
    ];
    let mut problems = Vec::new();
    for source in sources() {
        let pure = PURE.contains(&source.module()) || PURE_FILES.contains(&source.path.as_str());
        if !pure || source.path == PURE_EDGE {
            continue;
        }
        for (number, line) in source.code() {
            let wrong =
                WORLD.iter().filter(|word| line.contains(**word) && !source.path.starts_with("engine/translate"));
            problems.extend(wrong.map(|word| format!("src/{}:{number}: `{word}`", source.path)));
        }
    }
    none(&problems, "a pure part touches the world");
}

#[test]
fn only_the_wiring_names_concrete_edges() {
    let mut problems = Vec::new();
    for source in sources() {
        if WIRES.iter().any(|wire| source.path.starts_with(wire)) {
            continue;
        }
        for (number, line) in source.code() {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let wrong = CONCRETE.iter().filter(|(name, own)| *own != source.module() && words.contains(name));
            problems.extend(wrong.map(|(name, _)| format!("src/{}:{number}: names `{name}`", source.path)));
        }
    }
    none(&problems, "a concrete edge type outside the wiring");
}

#[test]
fn unsafe_code_and_bollard_stay_in_their_places() {
    let mut problems = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let outside = |word: &str, place: &str| words.contains(&word) && !source.path.starts_with(place);
            if outside("unsafe", "host") || outside("unsafe_code", "host") {
                problems.push(format!("src/{}:{number}: unsafe code outside src/host", source.path));
            }
            if outside("bollard", "engine/") {
                problems.push(format!("src/{}:{number}: bollard outside src/engine", source.path));
            }
        }
    }
    none(&problems, "something is out of its place");
}

#[test]
fn files_stay_short() {
    let mut problems = Vec::new();
    for path in files(&root().join("src")).into_iter().chain(files(&root().join("tests"))) {
        let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        if path.extension().is_none_or(|ext| ext != "rs") {
            continue;
        }
        let lines = fs::read_to_string(&path).expect("text").lines().count();
        if lines > LONGEST {
            problems.push(format!("{name}: {lines} lines, at most {LONGEST}"));
        }
    }
    none(&problems, "files to split");
}

#[test]
fn no_source_file_is_forgotten() {
    let all: Vec<PathBuf> = files(&root().join("src")).into_iter().chain(files(&root().join("tests"))).collect();
    let mut problems = Vec::new();
    for path in all.iter().filter(|path| path.extension().is_some_and(|ext| ext == "rs")) {
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let folder = path.parent().expect("a folder");
        if matches!(stem.as_str(), "main" | "lib") || folder == root().join("tests") {
            continue;
        }
        let parents = [folder.join("main.rs"), folder.join("lib.rs"), folder.with_extension("rs")];
        let declared = parents.iter().filter_map(|parent| fs::read_to_string(parent).ok()).any(|text| {
            text.lines().any(|line| {
                line.trim_start_matches("pub ").trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ")
                    == format!("mod {stem};")
            }) || text.contains(&format!("/{stem}.rs\""))
        });
        if !declared {
            problems.push(format!("{}: no `mod {stem};` names it", path.display()));
        }
    }
    none(&problems, "source files that nothing compiles");
}

#[test]
fn every_example_is_run_by_a_test_and_every_page_is_linked() {
    let lab: String = files(&root().join("tests/lab"))
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .map(|path| fs::read_to_string(path).expect("text"))
        .collect();
    let pages: String = ["README.md", "ARCHITECTURE.md"]
        .iter()
        .map(|page| fs::read_to_string(root().join(page)).expect(page))
        .collect();
    let mut problems = Vec::new();
    for example in
        fs::read_dir(root().join("compose-examples")).expect("examples").map(|entry| entry.expect("readable"))
    {
        let name = example.file_name().to_string_lossy().into_owned();
        if !lab.contains(&format!("\"{name}\"")) {
            problems.push(format!("compose-examples/{name}: no test in tests/lab runs it"));
        }
        if !example.path().join("README.md").exists() {
            problems.push(format!("compose-examples/{name}: no README.md"));
        }
    }
    for page in files(&root().join("docs")) {
        let name = page.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        if page.extension().is_some_and(|ext| ext == "md") && !pages.contains(&name) {
            problems.push(format!("{name}: neither README.md nor ARCHITECTURE.md links it"));
        }
    }
    none(&problems, "forgotten examples or pages");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut problems = Vec::new();
    for page in files(root()).into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "md")) {
        let text = fs::read_to_string(&page).expect("text");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            if !page.parent().expect("a folder").join(file).exists() {
                problems.push(format!("{}: {target}", page.display()));
            }
        }
    }
    none(&problems, "links to nothing");
}

#[test]
fn no_file_names_a_machine_or_a_registry() {
    // Written apart, so that this file does not name them itself.
    let forbidden = [
        concat!("/work", "/main"),
        concat!("/work", "/w/"),
        concat!("/work", "/shared"),
        concat!("/opt", "/ref"),
        concat!("deb.debian", ".org"),
        concat!("pypi", ".org"),
        concat!("pythonhosted", ".org"),
        concat!("static.crates", ".io"),
        concat!("index.crates", ".io"),
    ];
    let mut problems = Vec::new();
    for path in files(root()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            let wrong = forbidden.iter().filter(|word| line.contains(**word));
            problems.extend(wrong.map(|word| format!("{}:{}: `{word}`", path.display(), number + 1)));
        }
    }
    none(&problems, "places that exist on one machine only");
}
