//! `extends`: a service is merged onto another one, of the same document or of another file.
//!
//! The base is copied as it stands in its file, its own base beneath it; its paths are made relative to the project's
//! directory, its variables are those of the project that extends it. Only the service is taken over: networks, volumes
//! and other services that it names must be in the project. Source: compose-spec 05-services.md#extends; what it leaves
//! open follows runs of Docker Compose 2.40.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use crate::diag::{Diagnostic, Span, did_you_mean};

use super::assemble::{Document, Reading, Scope, beneath, refuse_remote, weight};
use super::long::Long;
use super::node::{Entry, Map, Node, Tag, Value};
use super::path::Path;
use super::rebase::{self, Foreign};
use super::report::Report;
use super::rules::{self, Rules};
use super::source::absolute;
use super::{check, merge, views};

const SPEC: &str = "05-services.md#extends";

/// Most services in a row that extend each other: bounds the call stack.
const MAX_CHAIN: usize = 100;

/// The short form: the name of a service of the same file.
pub(super) const LONG: Long = Long::Value(long);

fn long(node: Node, _: &mut Report) -> Node {
    if node.as_str().is_none() {
        return node;
    }
    let name = ("service".to_owned(), Entry::new(node.span, Node::new(node.span, node.value.clone())));
    node.with(Value::map(Map::from_iter([name])))
}

/// Services that may extend each other by their names.
struct Source {
    /// The file.
    path: PathBuf,
    /// Where paths in `extends` start; absolute.
    directory: PathBuf,
    services: Map,
    /// Variables that each asks for; of a document of the project they are known already.
    variables: BTreeMap<String, views::Variables>,
}

/// A service that extends the next one of the chain.
struct Link {
    path: PathBuf,
    service: String,
    /// Where it names the next.
    span: Span,
}

/// Applies the `extends` of a project's documents.
pub(super) struct Extender<'a> {
    scope: &'a Scope<'a>,
    /// First the document itself, then other files.
    sources: Vec<Source>,
    /// Other files that were read, with their places among the sources; `None`: it is wrong, and that was told.
    known: BTreeMap<PathBuf, Option<usize>>,
    chain: Vec<Link>,
}

impl<'a> Extender<'a> {
    /// Returns what applies the `extends` of a project.
    pub(super) fn new(scope: &'a Scope<'a>) -> Self {
        Self { scope, sources: Vec::new(), known: BTreeMap::new(), chain: Vec::new() }
    }

    /// Applies the `extends` of one document.
    pub(super) fn apply(&mut self, document: &mut Node, path: PathBuf, reading: &mut Reading<'_>, report: &mut Report) {
        let Some(services) = document.get_mut("services").and_then(Node::as_map_mut) else { return };
        let names: Vec<String> = services
            .iter()
            .filter(|(_, entry)| entry.node.get("extends").is_some())
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() {
            return;
        }
        let taken = std::mem::take(services);
        let directory = self.scope.directory.to_owned();
        let own = Source { path, directory, services: taken, variables: BTreeMap::new() };
        match self.sources.first_mut() {
            Some(first) => *first = own,
            None => self.sources.push(own),
        }
        for name in names {
            self.resolve(0, &name, reading, report);
        }
        *services = std::mem::take(&mut self.sources[0].services);
    }

    /// Merges a service onto what it extends. Returns whether it is whole; why not is told.
    fn resolve(&mut self, at: usize, name: &str, reading: &mut Reading<'_>, report: &mut Report) -> bool {
        let Some(entry) = self.sources[at].services.get_mut(name).filter(|entry| !entry.node.is_unknown()) else {
            return false;
        };
        let Some(extends) = entry.node.as_map_mut().and_then(|map| map.shift_remove("extends")) else { return true };
        if extends.node.tag == Some(Tag::Reset) {
            return true;
        }
        let base = self.base(at, name, extends.node, reading, report);
        let Some(entry) = self.sources[at].services.get_mut(name) else { return false };
        let mut own = std::mem::replace(&mut entry.node, Node::new(entry.key, Value::Unknown));
        let Some(base) = base else { return false };
        // A tag of the whole service is about what earlier documents say of it, not about its base.
        let tag = own.tag.take();
        entry.node = Node { tag, ..beneath(base, own, of_service(reading)) };
        true
    }

    /// Returns a copy of what service `name` extends, whole.
    fn base(
        &mut self,
        at: usize,
        name: &str,
        mut extends: Node,
        reading: &mut Reading<'_>,
        report: &mut Report,
    ) -> Option<Node> {
        let before = report.errors();
        let path = Path::Root.key("services");
        let path = path.key(name);
        check::walk(&mut extends, of_service(reading).key("extends")?, &path.key("extends"), report);
        if report.errors() > before {
            return None;
        }
        let Some(wanted) = extends.get("service") else {
            let problem = Diagnostic::error(format!("`{}` does not say which service", path.key("extends")));
            report.push(problem.at(extends.span, "").help("add `service: NAME`").spec(SPEC));
            return None;
        };
        let service = wanted.as_str()?;
        let target = match extends.get("file").filter(|file| !file.is_null()) {
            Some(file) => self.foreign(at, name, file, reading, report)?,
            None => at,
        };
        let link = Link { path: self.sources[at].path.clone(), service: name.to_owned(), span: wanted.span };
        self.chain.push(link);
        let whole = !self.closes_a_circle(target, wanted, reading.cwd, report)
            && self.is_there(target, wanted, reading, report)
            && (self.resolve(target, service, reading, report));
        self.chain.pop();
        if !whole {
            return None;
        }
        let source = &mut self.sources[target];
        if let Some(variables) = source.variables.remove(service) {
            views::add_variables(&mut reading.variables, variables);
        }
        let base = &source.services.get(service)?.node;
        if !reading.spend(weight(base), wanted.span, report) {
            return None;
        }
        // Merged onto nothing, so that its tags, which are about its own file, end here.
        let nothing = Node::new(base.span, Value::map(Map::default()));
        Some(merge::node(nothing, base.clone(), of_service(reading)))
    }

    /// Reports a service that is its own base, or a chain that is too long.
    fn closes_a_circle(&self, target: usize, wanted: &Node, cwd: &FilePath, report: &mut Report) -> bool {
        let (path, service) = (&self.sources[target].path, wanted.as_str().unwrap_or_default());
        let start = self.chain.iter().position(|link| link.service == service && link.path == *path);
        let Some(start) = start else {
            if self.chain.len() > MAX_CHAIN {
                let message = format!("more than {MAX_CHAIN} services extend each other in a row");
                report.push(Diagnostic::error(message).at(wanted.span, "reached here").spec(SPEC));
            }
            return self.chain.len() > MAX_CHAIN;
        };
        let ring = &self.chain[start..];
        let one_file = ring.iter().all(|link| link.path == *path);
        let shown = |file: &FilePath, service: &str| {
            let file = file.strip_prefix(cwd).unwrap_or(file).display();
            if one_file { service.to_owned() } else { format!("{service} in {file}") }
        };
        let mut names: Vec<String> = ring.iter().map(|link| shown(&link.path, &link.service)).collect();
        names.push(shown(path, service));
        let message = format!("services extend each other in a circle: {}", names.join(" -> "));
        let mut problem = Diagnostic::error(message).at(wanted.span, "this closes the circle");
        for link in ring.iter().take(ring.len() - 1) {
            problem = problem.also(link.span, format!("`{}` extends it here", link.service));
        }
        report.push(problem.help("move what they share to a service that extends none of them").spec(SPEC));
        true
    }

    /// Reports a base that its file does not have, or that is no service.
    fn is_there(&self, target: usize, wanted: &Node, reading: &Reading<'_>, report: &mut Report) -> bool {
        let source = &self.sources[target];
        let service = wanted.as_str().unwrap_or_default();
        let name = self.chain.last().map_or("", |link| link.service.as_str());
        if let Some(entry) = source.services.get(service) {
            let fits = matches!(entry.node.value, Value::Map(_) | Value::Null | Value::Unknown);
            // What is wrong in the document itself is told when it is checked.
            if !fits && target > 0 {
                let message = format!("`services.{service}` must be a mapping, not {}", entry.node.value.kind());
                report.push(Diagnostic::error(message).at(entry.node.span, "").spec(SPEC));
            }
            return fits;
        }
        let file = source.path.strip_prefix(reading.cwd).unwrap_or(&source.path).display();
        let message = format!("service `{name}` extends `{service}`, which `{file}` does not define");
        let problem = Diagnostic::error(message).at(wanted.span, "");
        let meant = did_you_mean(service, source.services.keys().map(String::as_str).filter(|other| *other != name));
        let help = match meant.and_then(|meant| Some((meant, source.services.get(meant)?.key))) {
            Some((meant, key)) => {
                let place = report.sources.locate(key);
                format!("did you mean `{meant}`? (defined at {}:{}:{})", place.file, place.line, place.column)
            }
            None if target == 0 => "name a service of this file or of one that it includes, or say `file:`".to_owned(),
            None => "name a service of that file".to_owned(),
        };
        report.push(problem.help(help).spec(SPEC));
        false
    }

    /// Returns the place among the sources of another file; what is wrong with one is told once.
    fn foreign(
        &mut self,
        at: usize,
        name: &str,
        file: &Node,
        reading: &mut Reading<'_>,
        report: &mut Report,
    ) -> Option<usize> {
        let text = file.as_str()?;
        if refuse_remote(file, SPEC, report) {
            return None;
        }
        let path = absolute(&self.sources[at].directory, text);
        if let Some(known) = self.known.get(&path) {
            return *known;
        }
        let source = if reading.files.is_file(&path) {
            self.read(&path, file.span, reading, report)
        } else {
            let message = format!("the file `{text}`, which service `{name}` extends, was not found");
            let problem = Diagnostic::error(message).at(file.span, "");
            report.push(problem.help(format!("there is no file `{}`", path.display())).spec(SPEC));
            None
        };
        let place = source.map(|source| {
            self.sources.push(source);
            self.sources.len() - 1
        });
        self.known.insert(path, place);
        place
    }

    /// Reads the services of another file, all its documents merged.
    fn read(&self, path: &FilePath, span: Span, reading: &mut Reading<'_>, report: &mut Report) -> Option<Source> {
        let before = report.errors();
        let directory = path.parent().unwrap_or(path);
        let mut variables: BTreeMap<String, views::Variables> = BTreeMap::new();
        let mut tree = None;
        for Document { mut node, .. } in reading.further(path, (span, "extended here"), report)? {
            if node.as_map().is_none() {
                let message = format!("a compose file must be a mapping, not {}", node.value.kind());
                report.push(Diagnostic::error(message).at(node.span, "").spec("03-compose-file.md"));
                return None;
            }
            for (name, entry) in node.entries("services") {
                views::variables(&entry.node, variables.entry(name.clone()).or_default());
            }
            reading.prepare(&mut node, self.scope.environment, report);
            tree = Some(merge::merge(tree, node, reading.keys()));
        }
        if report.errors() > before {
            return None;
        }
        let mut tree = tree.unwrap_or(Node::new(span, Value::map(Map::default())));
        let home = self.scope.environment.get("HOME").map(String::as_str);
        let project = self.scope.directory;
        rebase::foreign(&mut tree, &Foreign { directory, project, home, files: reading.files });
        let services = tree.get_mut("services").and_then(Node::as_map_mut).map(std::mem::take).unwrap_or_default();
        Some(Source { path: path.to_owned(), directory: directory.to_owned(), services, variables })
    }
}

fn of_service(reading: &Reading<'_>) -> &'static Rules {
    static NONE: std::sync::LazyLock<Rules> = std::sync::LazyLock::new(Rules::default);
    rules::root(reading.keys()).key("services").and_then(|services| services.key("*")).unwrap_or(&NONE)
}
