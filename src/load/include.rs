//! `include`: whole projects become part of this one, each with its own directory and environment.
//!
//! What they define lands in one namespace, beneath what the including document says itself: its definitions are merged
//! onto those that it includes, the rule of compose-go since 2025-11 (Docker Compose 2.40 refuses definitions that
//! differ). The environment of the including project wins over the included one's `.env`. Source: compose-spec
//! 14-include.md; what it leaves open follows runs of Docker Compose 2.40.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use indexmap::map::Entry as Slot;

use crate::diag::{Diagnostic, Span};

use super::assemble::{Document, Given, Reading, Scope, beneath, refuse_remote, unify, weight};
use super::helpers::each_container;
use super::long::Long;
use super::node::{Entry, Map, Node, Tag, Value};
use super::path::Path;
use super::rebase::{self, Foreign};
use super::report::Report;
use super::rules::{self, Rules};
use super::source::absolute;
use super::{check, dotenv};

const SPEC: &str = "14-include.md";

/// Most files that include each other in a row: bounds the call stack.
const MAX_CHAIN: usize = 50;

/// What is taken over of an included project. Its `name` and its `x-` keys are its own, but for the hosts.
const SECTIONS: [&str; 7] = ["services", "networks", "volumes", "configs", "secrets", "models", "x-hosts"];

/// The short form: a path.
pub(super) const LONG: Long = Long::Items(long);

fn long(node: Node, _: &mut Report) -> Vec<Node> {
    if node.as_str().is_none() {
        return vec![node];
    }
    vec![Node::map(node.span, [("path", Value::Seq(vec![node]))])]
}

/// Replaces the `include` of a document by what it stands for.
pub(super) fn apply(
    document: &mut Node,
    path: &FilePath,
    scope: &Scope<'_>,
    reading: &mut Reading<'_>,
    report: &mut Report,
) {
    let Some(mut entry) = document.as_map_mut().and_then(|map| map.shift_remove("include")) else { return };
    if entry.node.tag == Some(Tag::Reset) {
        return;
    }
    let before = report.errors();
    if let Some(rules) = rules::root(reading.keys()).key("include") {
        check::walk(&mut entry.node, rules, &Path::Root.key("include"), report);
    }
    if report.errors() > before {
        return;
    }
    for item in entry.node.as_seq().into_iter().flatten() {
        let Some((tree, span)) = Include { path, scope, reading, report }.tree(item) else { continue };
        import(document, tree, span, reading, report);
    }
}

/// Puts what was included beneath what the document says itself.
fn import(document: &mut Node, mut tree: Node, span: Span, reading: &mut Reading<'_>, report: &mut Report) {
    static NONE: std::sync::LazyLock<Rules> = std::sync::LazyLock::new(Rules::default);
    for section in SECTIONS {
        let Some(from) = tree.get_mut(section).and_then(Node::as_map_mut).map(std::mem::take) else { continue };
        let own = document.get(section);
        if own.is_some_and(|own| own.tag == Some(Tag::Reset) || own.as_map().is_none() && !own.is_null()) {
            continue;
        }
        if own.is_none_or(Node::is_null) {
            document.set(section, Value::map(Map::default()));
        }
        let rules = rules::root(reading.keys()).key(section).unwrap_or(&NONE);
        let Some(to) = document.get_mut(section).and_then(Node::as_map_mut) else { continue };
        for (name, entry) in from {
            let rules = rules.key(&name).unwrap_or(&NONE);
            match to.entry(name) {
                Slot::Occupied(mut slot) => {
                    let own = &mut slot.get_mut().node;
                    if own.tag == Some(Tag::Reset) || !reading.spend(weight(own), span, report) {
                        continue;
                    }
                    let taken = std::mem::replace(own, Node::new(own.span, Value::Null));
                    *own = beneath(entry.node, taken, rules);
                }
                Slot::Vacant(slot) => drop(slot.insert(entry)),
            }
        }
    }
}

/// One entry of a document's `include`.
struct Include<'a, 'r, 'f> {
    /// The document's file.
    path: &'a FilePath,
    scope: &'a Scope<'a>,
    reading: &'a mut Reading<'f>,
    report: &'r mut Report,
}

impl Include<'_, '_, '_> {
    /// Returns the project that is included, and where it is named; what is wrong with it is told.
    fn tree(&mut self, item: &Node) -> Option<(Node, Span)> {
        let mut paths: Vec<(PathBuf, Span)> = Vec::new();
        for node in item.items("path") {
            paths.push((self.file(node)?, node.span));
        }
        let Some((first, span)) = paths.first().cloned() else {
            let problem = Diagnostic::error("this does not say which file is included").at(item.span, "");
            self.report.push(problem.help("add `path: FILE`").spec(SPEC));
            return None;
        };
        let directory = match item.str("project_directory").filter(|text| !text.is_empty()) {
            Some(text) => absolute(self.scope.directory, text),
            None => first.parent().unwrap_or(&first).to_owned(),
        };
        let environment = self.environment(item, &directory, span)?;
        let mut tree = None;
        let mut documents = Vec::new();
        for (path, span) in paths {
            documents.push((span, self.reading.further(&path, (span, "included here"), self.report)?));
        }
        let mut chain = self.scope.chain.clone();
        chain.push((self.path.to_owned(), span));
        let scope = Scope { directory: &directory, environment: &environment, chain };
        let documents = documents.into_iter().flat_map(|(_, documents)| documents).collect();
        if let Some(documents) = self.proper(documents) {
            tree = unify(documents, &scope, self.reading, self.report);
        }
        let mut tree = tree?;
        self.close(&mut tree, &scope);
        Some((tree, span))
    }

    /// Returns the documents without what nobody would look at any more, which is checked here.
    fn proper(&mut self, mut documents: Vec<Document>) -> Option<Vec<Document>> {
        let before = self.report.errors();
        for Document { node, .. } in &mut documents {
            let Some(map) = node.as_map_mut() else {
                let message = format!("a compose file must be a mapping, not {}", node.value.kind());
                self.report.push(Diagnostic::error(message).at(node.span, "").spec("03-compose-file.md"));
                continue;
            };
            let read = |key: &str| SECTIONS.contains(&key) || matches!(key, "include" | "version");
            let keys: Vec<String> = map.keys().filter(|key| !read(key)).cloned().collect();
            let rest = keys.iter().filter_map(|key| Some((key.clone(), map.shift_remove(key)?))).collect();
            let mut rest = Node::new(node.span, Value::map(rest));
            check::walk(&mut rest, rules::root(self.reading.keys()), &Path::Root, self.report);
        }
        (self.report.errors() == before).then_some(documents)
    }

    /// Returns the absolute path of a file to include.
    fn file(&mut self, node: &Node) -> Option<PathBuf> {
        let text = node.as_str()?;
        if refuse_remote(node, SPEC, self.report) {
            return None;
        }
        let path = absolute(self.scope.directory, text);
        if !self.reading.files.is_file(&path) {
            let problem = Diagnostic::error(format!("the included file `{text}` was not found")).at(node.span, "");
            self.report.push(problem.help(format!("there is no file `{}`", path.display())).spec(SPEC));
            return None;
        }
        (!self.closes_a_circle(&path, node)).then_some(path)
    }

    /// Reports a file that includes itself, or a chain that is too long.
    fn closes_a_circle(&mut self, path: &FilePath, node: &Node) -> bool {
        let chain = &self.scope.chain;
        let mut links: Vec<(&FilePath, Span)> = chain.iter().map(|(file, span)| (file.as_path(), *span)).collect();
        links.push((self.path, node.span));
        let Some(start) = links.iter().position(|(file, _)| *file == path) else {
            if links.len() > MAX_CHAIN {
                let message = format!("more than {MAX_CHAIN} files include each other in a row");
                self.report.push(Diagnostic::error(message).at(node.span, "reached here").spec(SPEC));
            }
            return links.len() > MAX_CHAIN;
        };
        let ring = &links[start..];
        let shown = |file: &FilePath| file.strip_prefix(self.reading.cwd).unwrap_or(file).display().to_string();
        let names: Vec<String> = ring.iter().map(|(file, _)| *file).chain([path]).map(shown).collect();
        let message = format!("files include each other in a circle: {}", names.join(" -> "));
        let mut problem = Diagnostic::error(message).at(node.span, "this closes the circle");
        for (_, span) in &ring[..ring.len() - 1] {
            problem = problem.also(*span, "included here");
        }
        self.report.push(problem.spec(SPEC));
        true
    }

    /// Returns the environment of the project: this one's, then what its environment files add.
    fn environment(&mut self, item: &Node, directory: &FilePath, span: Span) -> Option<BTreeMap<String, String>> {
        let named = item.items("env_file");
        let mut files: Vec<(PathBuf, Span)> = Vec::new();
        for node in named {
            let text = node.as_str()?;
            if text == "/dev/null" {
                continue;
            }
            let path = absolute(self.scope.directory, text);
            if !self.reading.files.is_file(&path) {
                let problem = Diagnostic::error(format!("the environment file `{text}` was not found"));
                let help = format!("there is no file `{}`; `/dev/null` stands for none", path.display());
                self.report.push(problem.at(node.span, "").help(help).spec(SPEC));
                return None;
            }
            files.push((path, node.span));
        }
        let default = directory.join(".env");
        if named.is_empty() && self.reading.files.is_file(&default) {
            files.push((default, span));
        }
        let mut own: BTreeMap<String, String> = BTreeMap::new();
        for (path, span) in files {
            let source = self.reading.text(&path, span, self.report)?;
            let lookup = |name: &str| self.scope.environment.get(name).or_else(|| own.get(name)).cloned();
            let pairs = dotenv::parse(source, &lookup, self.report);
            own.extend(pairs);
        }
        let mut environment = self.scope.environment.clone();
        for (name, value) in own {
            environment.entry(name).or_insert(value);
        }
        Some(environment)
    }

    /// Makes what the project says mean the same in this one: its paths, and what it takes from its environment.
    fn close(&mut self, tree: &mut Node, scope: &Scope<'_>) {
        let (directory, project, files) = (scope.directory, self.scope.directory, self.reading.files);
        let home = scope.environment.get("HOME").map(String::as_str);
        each_container(tree, &mut |container| {
            if let Some(build) = container.get_mut("build")
                && build.as_map().is_some_and(|map| !map.contains_key("context"))
            {
                build.set("context", Value::Str(".".to_owned()));
            }
            bare_names(container, scope.environment);
        });
        rebase::foreign(tree, &Foreign { directory, project, home, files });
        for section in ["configs", "secrets"] {
            for (key, entry) in tree.entries(section) {
                let Some(variable) = entry.node.str("environment") else { continue };
                if let Some(value) = scope.environment.get(variable) {
                    let given = Given { section, key: key.clone(), variable: variable.to_owned() };
                    self.reading.given.insert(given, value.clone());
                }
            }
        }
    }
}

/// Gives names without a value the value of the project's environment.
fn bare_names(container: &mut Node, environment: &BTreeMap<String, String>) {
    let Some(list) = container.get_mut("environment") else { return };
    let mut changed = false;
    for (name, Entry { node, .. }) in list.as_map_mut().into_iter().flatten().filter(|(_, entry)| entry.node.is_null())
    {
        if let Some(value) = environment.get(name) {
            node.value = Value::Str(value.clone());
            changed = true;
        }
    }
    if changed {
        list.short = None;
    }
}
