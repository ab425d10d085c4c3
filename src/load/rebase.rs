//! Relative paths of a tree, seen from another directory: made absolute at the end, and made relative to the project's
//! directory when a part of another file is taken over.
//!
//! Source of the places: `paths/resolve.go` of compose-go.

use std::path::{Path as FilePath, PathBuf};

use super::helpers::each_container;
use super::node::{Entry, Node, Value};
use super::patterns::library;
use super::source::{Files, absolute, relative};

/// What paths are seen from.
pub(super) struct Base<'a> {
    /// The directory that they are written for: absolute, or relative to the project's directory.
    pub(super) directory: PathBuf,
    /// What `~` stands for.
    pub(super) home: Option<&'a str>,
}

impl Base<'_> {
    /// Docker Compose leaves absolute paths as they are and cleans the others.
    fn path(&self, text: &str) -> String {
        if text.starts_with('/') || is_of_windows(text) {
            return text.to_owned();
        }
        let path = match (text.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                absolute(FilePath::new(home), rest.trim_start_matches('/'))
            }
            _ => absolute(&self.directory, text),
        };
        path.display().to_string()
    }

    fn change(&self, node: &mut Node) {
        if let Some(path) = node.as_str().filter(|path| !path.is_empty()).map(|path| self.path(path)) {
            node.value = Value::Str(path);
            node.short = None;
        }
    }

    fn key(&self, parent: &mut Node, key: &str) {
        if let Some(node) = parent.get_mut(key) {
            self.change(node);
            parent.short = None;
        }
    }

    /// A build context, which may be no path at all.
    fn context(&self, node: &mut Node) {
        if node.as_str().is_some_and(|text| !is_elsewhere(text)) {
            self.change(node);
        }
    }
}

/// Returns whether a build context is no directory of this machine.
pub(super) fn is_elsewhere(context: &str) -> bool {
    let starts = ["service:", "github.com/", "git@"];
    context.contains("://") || starts.iter().any(|start| context.starts_with(start))
}

/// Returns whether a path is absolute on Windows: `C:\dir`, `C:/dir`, `\\host\share`.
fn is_of_windows(path: &str) -> bool {
    let mut rest = path.chars();
    let drive = rest.next().is_some_and(|c| c.is_ascii_alphabetic()) && rest.next() == Some(':');
    drive && rest.next().is_some_and(|c| matches!(c, '/' | '\\')) || path.starts_with("\\\\")
}

/// Changes all paths of a tree.
pub(super) fn paths(tree: &mut Node, base: &Base<'_>) {
    each_container(tree, &mut |service| container(service, base));
    for kind in ["configs", "secrets"] {
        values(tree.get_mut(kind), |entry| base.key(&mut entry.node, "file"));
    }
    values(tree.get_mut("volumes"), |entry| {
        let local = entry.node.str("driver").is_none_or(|driver| driver.is_empty() || driver == "local");
        if let Some(options) = entry.node.get_mut("driver_opts")
            && local
            && options.str("o").is_some_and(|options| options.split(',').any(|option| option == "bind"))
        {
            if options.str("device") == Some("") {
                options.set("device", Value::Str(".".to_owned()));
            }
            base.key(options, "device");
        }
    });
}

fn values(node: Option<&mut Node>, change: impl FnMut(&mut Entry)) {
    node.and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut()).for_each(change);
}

/// Calls `change` with each item of a list. A list of orch's own keys is then no longer as it is written.
fn items(parent: &mut Node, key: &str, change: impl FnMut(&mut Node)) {
    let Some(list) = parent.get_mut(key).filter(|list| list.as_seq().is_some_and(|items| !items.is_empty())) else {
        return;
    };
    list.short = None;
    list.as_seq_mut().into_iter().flatten().for_each(change);
}

fn container(service: &mut Node, base: &Base<'_>) {
    items(service, "volumes", |volume| {
        if volume.str("type") == Some("bind") {
            base.key(volume, "source");
        }
    });
    items(service, "env_file", |file| base.key(file, "path"));
    items(service, "label_file", |file| base.change(file));
    if let Some(build) = service.get_mut("build") {
        base.context(build);
        if let Some(context) = build.get_mut("context") {
            base.context(context);
        }
        values(build.get_mut("additional_contexts"), |entry| base.context(&mut entry.node));
        values(build.get_mut("ssh"), |entry| base.change(&mut entry.node));
    }
    if let Some(develop) = service.get_mut("develop") {
        items(develop, "watch", |rule| base.key(rule, "path"));
    }
}

/// A file of another directory, parts of which are taken over into a project.
pub(super) struct Foreign<'a> {
    /// Where its relative paths start; absolute.
    pub(super) directory: &'a FilePath,
    /// Where those of the project start; absolute.
    pub(super) project: &'a FilePath,
    /// What `~` stands for.
    pub(super) home: Option<&'a str>,
    pub(super) files: &'a dyn Files,
}

/// Makes all paths of a file of another directory relative to the project's.
pub(super) fn foreign(tree: &mut Node, file: &Foreign<'_>) {
    let base = Base { directory: relative(file.project, file.directory), home: file.home };
    paths(tree, &base);
    for entry in tree.get_mut("services").and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut()) {
        items(&mut entry.node, "x-patterns", |item| pattern(item, file, &base));
    }
}

/// A pattern that is named by its path, or is among those of the file's own directory.
fn pattern(item: &mut Node, file: &Foreign<'_>, base: &Base<'_>) {
    let Some(name) = item.str("use") else { return };
    let path = if library::is_path(name) {
        Some(name.to_owned())
    } else {
        let candidates = library::ENDINGS.map(|ending| format!("{}/{name}.{ending}", library::DIRECTORY));
        candidates.into_iter().find(|path| file.files.is_file(&absolute(file.directory, path)))
    };
    let Some(path) = path.map(|path| base.path(&path)) else { return };
    // Without a slash it could be a name.
    let path = if path.contains('/') { path } else { format!("./{path}") };
    item.set("use", Value::Str(path));
    item.short = None;
}
