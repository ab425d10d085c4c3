//! Paths become absolute; files of variables and labels are read; names without a value take the project's.

use std::collections::BTreeMap;
use std::path::Path;

use crate::diag::{Diagnostic, SourceId, Span};
use crate::ids::ServiceName;

use super::assemble::Given;
use super::discover::{read, reason};
use super::dotenv;
use super::helpers::each_container;
use super::node::{Entry, Map, Node, Value};
use super::rebase::{self, Base};
use super::report::Report;
use super::source::{Files, absolute};

/// What relative paths and bare names refer to.
pub(super) struct Surroundings<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) cwd: &'a Path,
    pub(super) working_dir: &'a Path,
    pub(super) environment: &'a BTreeMap<String, String>,
    /// What included projects know besides.
    pub(super) given: &'a BTreeMap<Given, String>,
}

/// Makes all paths of the model absolute.
pub(super) fn paths(tree: &mut Node, around: &Surroundings<'_>) {
    let home = around.environment.get("HOME").map(String::as_str);
    rebase::paths(tree, &Base { directory: around.working_dir.to_owned(), home });
}

/// Gives arguments of builds without a value the project's value; what has none is left out.
pub(super) fn build_arguments(tree: &mut Node, environment: &BTreeMap<String, String>, report: &mut Report) {
    each_container(tree, &mut |service| {
        let arguments = service.get_mut("build").and_then(|build| build.get_mut("args")).and_then(Node::as_map_mut);
        let Some(arguments) = arguments else { return };
        arguments.retain(|name, entry| {
            if let (true, Some(value)) = (entry.node.is_null(), environment.get(name))
                && report.takes_text(value.len(), entry.key)
            {
                entry.node.value = Value::Str(value.clone());
            }
            !entry.node.is_null()
        });
    });
}

/// Gives names without a value the project's value, and puts what environment files say beneath.
pub(super) fn environment(tree: &mut Node, around: &Surroundings<'_>, report: &mut Report) {
    each_container(tree, &mut |service| {
        let mut below = Map::default();
        let own = service.get("environment").and_then(Node::as_map).cloned().unwrap_or_default();
        let mut known = BTreeMap::new();
        for file in service.items("env_file").to_vec() {
            for (name, value) in env_file(&file, around, &own, &mut known, report) {
                below.insert(name, Entry::new(file.span, Node::text(file.span, value)));
            }
        }
        for (name, mut entry) in own {
            if entry.node.is_null() {
                let value = around.environment.get(&name);
                let value = value.filter(|value| report.takes_text(value.len(), entry.key)).cloned();
                entry.node.value = value.map_or(Value::Null, Value::Str);
            }
            below.insert(name, entry);
        }
        if let Some(map) = service.as_map_mut() {
            map.shift_remove("env_file");
        }
        if !below.is_empty() {
            service.set("environment", Value::map(below));
        }
    });
}

/// Gives names without a value the project's value, where it has one, and reads no file: Docker Compose with
/// `--no-env-resolution`.
pub(super) fn names(tree: &mut Node, environment: &BTreeMap<String, String>) {
    each_container(tree, &mut |service| {
        for (name, entry) in service.get_mut("environment").and_then(Node::as_map_mut).into_iter().flatten() {
            if let (true, Some(value)) = (entry.node.is_null(), environment.get(name)) {
                entry.node.value = Value::Str(value.clone());
            }
        }
    });
}

/// Reads a file of variables. What its values name is looked up in the project's environment, then in the service's `own`, then in
/// what is `known` from before: by itself, and by the files before it.
fn env_file(
    file: &Node,
    around: &Surroundings<'_>,
    own: &Map,
    known: &mut BTreeMap<String, String>,
    report: &mut Report,
) -> dotenv::Pairs {
    let Some(path) = file.str("path") else { return dotenv::Pairs::new() };
    let absolute = absolute(around.working_dir, path);
    let required = file.get("required").is_none_or(|required| required.value != Value::Bool(false));
    if !around.files.is_file(&absolute) {
        if required {
            let problem = Diagnostic::error(format!("the environment file `{}` was not found", absolute.display()));
            let span = file.get("path").map_or(file.span, |path| path.span);
            let help = "create it, or say `required: false`";
            report.push(problem.at(span, "").help(help).spec("05-services.md#env_file"));
        }
        return dotenv::Pairs::new();
    }
    let Some(source) = read_counted(&absolute, file.span, around, report) else { return dotenv::Pairs::new() };
    let lookup = |name: &str| {
        let of = |map: &Map| map.get(name).filter(|entry| !entry.node.is_null())?.node.value.scalar_text();
        around.environment.get(name).cloned().or_else(|| of(own))
    };
    if file.str("format") == Some("raw") {
        let pairs = dotenv::parse_raw(source, &lookup, report);
        known.extend(pairs.iter().cloned());
        pairs
    } else {
        dotenv::parse_onto(source, &lookup, known, report)
    }
}

/// Reads a file that is named at `span`, unless the project has too much of them.
fn read_counted(path: &Path, span: Span, around: &Surroundings<'_>, report: &mut Report) -> Option<SourceId> {
    if !report.takes_text(0, span) {
        return None;
    }
    let source = read(around.files, path, around.cwd, true, report)?;
    let length = report.sources.text(source).len();
    report.takes_text(length, span).then_some(source)
}

/// Puts what files of labels say beneath the labels of services. Their variables are the labels before them.
///
/// Docker Compose 2.40 does this also where environment files are not read.
pub(super) fn labels(tree: &mut Node, around: &Surroundings<'_>, report: &mut Report) {
    each_container(tree, &mut |service| {
        let Some(files) = service.as_map_mut().and_then(|map| map.shift_remove("label_file")) else { return };
        let mut below = Map::default();
        for file in files.node.as_seq().into_iter().flatten() {
            for (name, value) in label_file(file, around, &below, report) {
                below.insert(name, Entry::new(file.span, Node::text(file.span, value)));
            }
        }
        below.extend(service.get("labels").and_then(Node::as_map).cloned().unwrap_or_default());
        if !below.is_empty() {
            service.set("labels", Value::map(below));
        }
    });
}

fn label_file(file: &Node, around: &Surroundings<'_>, below: &Map, report: &mut Report) -> dotenv::Pairs {
    let Some(text) = file.as_str() else { return dotenv::Pairs::new() };
    let path = absolute(around.working_dir, text);
    if !around.files.is_file(&path) {
        let problem = Diagnostic::error(format!("the label file `{}` was not found", path.display()));
        report.push(problem.at(file.span, "").help("create it").spec("05-services.md#label_file"));
        return dotenv::Pairs::new();
    }
    let Some(source) = read_counted(&path, file.span, around, report) else { return dotenv::Pairs::new() };
    let lookup = |name: &str| below.get(name).and_then(|entry| entry.node.as_str()).map(str::to_owned);
    dotenv::parse(source, &lookup, report)
}

/// Reads what configs and secrets hold, so that nothing after `load` reads a file.
pub(super) fn contents(tree: &Node, around: &Surroundings<'_>, report: &mut Report) -> super::Contents {
    let mut contents = super::Contents::new();
    for (kind, section) in [(super::FileKind::Config, "configs"), (super::FileKind::Secret, "secrets")] {
        for (key, entry) in tree.entries(section) {
            let Ok(name) = crate::ids::ResourceKey::new(key.as_str()) else { continue };
            if let Some(bytes) = content(&entry.node, section, key, around, report) {
                contents.insert((kind, name), bytes);
            }
        }
    }
    contents
}

/// Puts the content of seccomp profiles in place of their paths: the engine takes the JSON itself.
///
/// Source: Docker Compose 2.40, which looks for relative paths in the project's directory.
pub(super) fn profiles(tree: &mut Node, around: &Surroundings<'_>, report: &mut Report) {
    each_container(tree, &mut |container| {
        for option in container.get_mut("security_opt").and_then(Node::as_seq_mut).into_iter().flatten() {
            let text = option.as_str().unwrap_or_default();
            let path = text.strip_prefix("seccomp=").or_else(|| text.strip_prefix("seccomp:"));
            let Some(path) = path.filter(|path| !matches!(*path, "unconfined" | "builtin")) else { continue };
            match profile(path, around) {
                Ok(json) => option.value = Value::Str(format!("seccomp={json}")),
                Err(reason) => {
                    let message = format!("the seccomp profile `{path}` could not be read: {reason}");
                    report.push(Diagnostic::error(message).at(option.span, "").spec("05-services.md#security_opt"));
                }
            }
        }
    });
}

/// Returns the security options of services whose profiles [`profiles`] reads, as they are written.
pub(super) fn security_options(tree: &Node) -> BTreeMap<ServiceName, Vec<String>> {
    let written = tree.entries("services").filter_map(|(name, service)| {
        let options: Vec<String> =
            service.node.items("security_opt").iter().filter_map(|option| Some(option.as_str()?.to_owned())).collect();
        let named = options.iter().any(|option| option.starts_with("seccomp"));
        Some((ServiceName::new(name.as_str()).ok()?, options)).filter(|_| named)
    });
    written.collect()
}

fn profile(path: &str, around: &Surroundings<'_>) -> Result<serde_json::Value, String> {
    let bytes = around.files.read(&absolute(around.working_dir, path)).map_err(|error| reason(&error))?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| format!("it is no JSON: {error}"))?;
    if json.is_object() { Ok(json) } else { Err("it is no JSON object".to_owned()) }
}

fn content(
    object: &Node,
    section: &'static str,
    key: &str,
    around: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Vec<u8>> {
    let kind = section.trim_end_matches('s');
    let file = |key: &str| object.get(key).filter(|node| node.as_str().is_some_and(|text| !text.is_empty()));
    if let Some(path) = file("file") {
        return match around.files.read(&absolute(around.working_dir, path.as_str().unwrap_or_default())) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let shown = path.as_str().unwrap_or_default();
                let message = format!("the file of {kind} `{key}` could not be read: `{shown}`: {}", reason(&error));
                report.push(Diagnostic::error(message).at(path.span, ""));
                None
            }
        };
    }
    if let Some(name) = file("environment") {
        let variable = name.as_str().unwrap_or_default();
        let given = Given { section, key: key.to_owned(), variable: variable.to_owned() };
        if let Some(value) = around.environment.get(variable).or_else(|| around.given.get(&given)) {
            return Some(value.clone().into_bytes());
        }
        let message = format!("the variable `{variable}`, which {kind} `{key}` is made of, is not set");
        report.push(Diagnostic::error(message).at(name.span, ""));
        return None;
    }
    object.str("content").map(|content| content.as_bytes().to_vec())
}
