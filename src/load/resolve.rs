//! Paths become absolute; environment files are read; names without a value take the project's.

use std::collections::BTreeMap;
use std::path::Path;

use crate::diag::Diagnostic;

use super::discover::{read, reason};
use super::dotenv;
use super::helpers::each_container;
use super::node::{Entry, Map, Node, Value};
use super::report::Report;
use super::source::{Files, absolute};

/// What relative paths and bare names refer to.
pub(super) struct Surroundings<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) cwd: &'a Path,
    pub(super) working_dir: &'a Path,
    pub(super) environment: &'a BTreeMap<String, String>,
}

impl Surroundings<'_> {
    /// Docker Compose leaves absolute paths as they are and cleans the others.
    fn path(&self, text: &str) -> String {
        if text.starts_with('/') || is_of_windows(text) {
            return text.to_owned();
        }
        let home = self.environment.get("HOME").map(String::as_str);
        let path = match (text.strip_prefix('~'), home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                absolute(Path::new(home), rest.trim_start_matches('/'))
            }
            _ => absolute(self.working_dir, text),
        };
        path.display().to_string()
    }

    /// A context is a path, unless it is an address, another kind of context (`docker-image://…`) or a service.
    fn context(&self, text: &str) -> String {
        let remote = ["https://", "http://", "git://", "ssh://", "github.com/", "git@", "service:"];
        if text.is_empty() || text.contains("://") || remote.iter().any(|start| text.starts_with(start)) {
            return text.to_owned();
        }
        self.path(text)
    }

    /// What a build reads: its contexts and its keys.
    fn rebase_build(&self, build: &mut Node) {
        let context = |node: &mut Node| {
            if let Some(context) = node.as_str().map(|text| self.context(text)) {
                node.value = Value::Str(context);
            }
        };
        if let Some(node) = build.get_mut("context") {
            context(node);
        }
        for entry in
            build.get_mut("additional_contexts").and_then(Node::as_map_mut).into_iter().flat_map(Map::values_mut)
        {
            context(&mut entry.node);
        }
        if let Some(keys) = build.get_mut("ssh") {
            let ids: Vec<String> = keys.as_map().into_iter().flat_map(Map::keys).cloned().collect();
            for id in &ids {
                self.rebase(keys, id);
            }
        }
    }

    fn rebase(&self, parent: &mut Node, key: &str) {
        if let Some(node) = parent.get_mut(key)
            && let Some(path) = node.as_str().filter(|path| !path.is_empty()).map(|path| self.path(path))
        {
            node.value = Value::Str(path);
        }
    }
}

/// Returns whether a path is absolute on Windows: `C:\dir`, `C:/dir`, `\\host\share`.
fn is_of_windows(path: &str) -> bool {
    let mut rest = path.chars();
    let drive = rest.next().is_some_and(|c| c.is_ascii_alphabetic()) && rest.next() == Some(':');
    drive && rest.next().is_some_and(|c| matches!(c, '/' | '\\')) || path.starts_with("\\\\")
}

/// Makes all paths of the model absolute.
pub(super) fn paths(tree: &mut Node, around: &Surroundings<'_>) {
    each_container(tree, &mut |service| {
        for volume in service.get_mut("volumes").and_then(Node::as_seq_mut).into_iter().flatten() {
            if volume.str("type") == Some("bind") {
                around.rebase(volume, "source");
            }
        }
        if let Some(build) = service.get_mut("build") {
            around.rebase_build(build);
        }
        let watched = service.get_mut("develop").and_then(|develop| develop.get_mut("watch"));
        for watch in watched.and_then(Node::as_seq_mut).into_iter().flatten() {
            around.rebase(watch, "path");
        }
        for file in service.get_mut("env_file").and_then(Node::as_seq_mut).into_iter().flatten() {
            around.rebase(file, "path");
        }
    });
    for kind in ["configs", "secrets"] {
        for entry in tree.get_mut(kind).and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut()) {
            around.rebase(&mut entry.node, "file");
        }
    }
    for entry in tree.get_mut("volumes").and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut()) {
        let local = entry.node.str("driver").is_none_or(|driver| driver.is_empty() || driver == "local");
        if let Some(options) = entry.node.get_mut("driver_opts")
            && local
            && options.str("o").is_some_and(|options| options.split(',').any(|option| option == "bind"))
        {
            if options.str("device") == Some("") {
                options.set("device", Value::Str(".".to_owned()));
            }
            around.rebase(options, "device");
        }
    }
}

/// Gives arguments of builds without a value the project's value; what has none is left out.
pub(super) fn build_arguments(tree: &mut Node, environment: &BTreeMap<String, String>) {
    each_container(tree, &mut |service| {
        let arguments = service.get_mut("build").and_then(|build| build.get_mut("args")).and_then(Node::as_map_mut);
        let Some(arguments) = arguments else { return };
        arguments.retain(|name, entry| {
            if let (true, Some(value)) = (entry.node.is_null(), environment.get(name)) {
                entry.node.value = Value::Str(value.clone());
            }
            !entry.node.is_null()
        });
    });
}

/// Gives names without a value the project's value, and puts what environment files say beneath.
pub(super) fn environment(tree: &mut Node, around: &Surroundings<'_>, report: &mut Report) {
    each_container(tree, &mut |service| {
        let mut below = Map::new();
        for file in service.items("env_file").to_vec() {
            for (name, value) in env_file(&file, around, &below, report) {
                below.insert(name, Entry::new(file.span, Node::text(file.span, value)));
            }
        }
        let own = service.get("environment").and_then(Node::as_map).cloned().unwrap_or_default();
        for (name, mut entry) in own {
            if entry.node.is_null() {
                let value = around.environment.get(&name).cloned();
                entry.node.value = value.map_or(Value::Null, Value::Str);
            }
            below.insert(name, entry);
        }
        if let Some(map) = service.as_map_mut() {
            map.shift_remove("env_file");
        }
        if !below.is_empty() {
            service.set("environment", Value::Map(below));
        }
    });
}

fn env_file(file: &Node, around: &Surroundings<'_>, below: &Map, report: &mut Report) -> dotenv::Pairs {
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
    let Some(source) = read(around.files, &absolute, around.cwd, true, report) else { return dotenv::Pairs::new() };
    let lookup = |name: &str| {
        let earlier = || below.get(name).and_then(|entry| entry.node.as_str());
        around.environment.get(name).map(String::as_str).or_else(earlier).map(str::to_owned)
    };
    if file.str("format") == Some("raw") {
        dotenv::parse_raw(source, &lookup, report)
    } else {
        dotenv::parse(source, &lookup, report)
    }
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

fn profile(path: &str, around: &Surroundings<'_>) -> Result<serde_json::Value, String> {
    let bytes = around.files.read(&absolute(around.working_dir, path)).map_err(|error| reason(&error))?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| format!("it is no JSON: {error}"))?;
    if json.is_object() { Ok(json) } else { Err("it is no JSON object".to_owned()) }
}

fn content(object: &Node, section: &str, key: &str, around: &Surroundings<'_>, report: &mut Report) -> Option<Vec<u8>> {
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
        if let Some(value) = around.environment.get(variable) {
            return Some(value.clone().into_bytes());
        }
        let message = format!("the variable `{variable}`, which {kind} `{key}` is made of, is not set");
        report.push(Diagnostic::error(message).at(name.span, ""));
        return None;
    }
    object.str("content").map(|content| content.as_bytes().to_vec())
}
