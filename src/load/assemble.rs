//! From files to one tree: variables are replaced, short forms made long, what a file includes and what its services
//! extend is taken over, and later documents are merged onto earlier ones.
//!
//! `include` comes before `extends`, so that what is included can be extended: the order of Docker Compose since 2026.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};

use crate::diag::{Diagnostic, SourceId, Span};

use super::discover::{read, read_named};
use super::extends::Extender;
use super::node::{Map, Node, Tag, Value};
use super::report::Report;
use super::rules::{Keys, Rules};
use super::source::Files;
use super::values::{self, Variables};
use super::views;
use super::{include, long, merge, yaml};

/// What files that others include or extend may add to a project in all: values, and the text of files, [`BYTES`] for
/// one. As many as one file may have.
const BUDGET: usize = 250_000;

/// Bytes of a file that count as one value: what one takes in files that people write.
const BYTES: usize = 25;

/// What the least file costs of it: bounds the number of files.
const COST_OF_A_FILE: usize = 100;

/// What all files of one run share.
pub(super) struct Reading<'a> {
    pub(super) files: &'a dyn Files,
    /// Directory that messages name files from.
    pub(super) cwd: &'a FilePath,
    /// Off for `config --no-interpolate`.
    pub(super) interpolate: bool,
    /// Variables that files ask for.
    pub(super) variables: views::Variables,
    /// Values that secrets and configs of included projects take from variables which only those projects know.
    pub(super) given: BTreeMap<Given, String>,
    missed: BTreeSet<String>,
    budget: usize,
}

/// A config or secret that is made of a variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Given {
    /// `configs` or `secrets`.
    pub(super) section: &'static str,
    /// Its key there.
    pub(super) key: String,
    /// The variable.
    pub(super) variable: String,
}

/// A project that is read: the main one, or one that another includes.
pub(super) struct Scope<'a> {
    /// Where its relative paths start; absolute.
    pub(super) directory: &'a FilePath,
    /// Its environment.
    pub(super) environment: &'a BTreeMap<String, String>,
    /// The files that include it, from the main one on, each with the place that names the next.
    pub(super) chain: Vec<(PathBuf, Span)>,
}

/// A document of a file.
pub(super) struct Document {
    /// The file.
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) node: Node,
}

impl<'a> Reading<'a> {
    /// Starts to read the files of a project.
    pub(super) fn new(files: &'a dyn Files, cwd: &'a FilePath, interpolate: bool) -> Self {
        let (variables, given, missed) = (views::Variables::new(), BTreeMap::new(), BTreeSet::new());
        Self { files, cwd, interpolate, variables, given, missed, budget: BUDGET }
    }

    /// Returns the keys that can be understood.
    pub(super) fn keys(&self) -> Keys {
        if self.interpolate { Keys::All } else { Keys::Specification }
    }

    /// Takes `cost` of what further files may add. Returns whether there was enough; the first that finds none says so.
    pub(super) fn spend(&mut self, cost: usize, span: Span, report: &mut Report) -> bool {
        if self.budget == 0 {
            return false;
        }
        self.budget = self.budget.saturating_sub(cost);
        if self.budget == 0 {
            let message =
                format!("files that others include or extend make this project too large: more than {BUDGET} values");
            report.push(Diagnostic::error(message).at(span, "reached here").spec("14-include.md"));
        }
        self.budget > 0
    }

    /// Reads the text of a file that is named at `span`.
    pub(super) fn text(&mut self, path: &FilePath, span: Span, report: &mut Report) -> Option<SourceId> {
        let source = read(self.files, path, self.cwd, true, report)?;
        let cost = COST_OF_A_FILE + report.sources.text(source).len() / BYTES;
        self.spend(cost, span, report).then_some(source)
    }

    /// Reads the documents of a file that is named at `span`, which `words` says of it in a message.
    pub(super) fn further(
        &mut self,
        path: &FilePath,
        (span, words): (Span, &'static str),
        report: &mut Report,
    ) -> Option<Vec<Document>> {
        let source = self.text(path, span, report)?;
        report.note_origin(source, span, words);
        let documents = documents(source, path, report)?;
        let values = documents.iter().map(|document| weight(&document.node)).sum();
        self.spend(values, span, report).then_some(documents)
    }

    /// Replaces variables and makes short forms long.
    pub(super) fn prepare(&mut self, node: &mut Node, environment: &BTreeMap<String, String>, report: &mut Report) {
        let missed = std::mem::take(&mut self.missed);
        let mut variables = Variables { environment, missed, enabled: self.interpolate };
        values::interpolate(node, &mut variables, report);
        self.missed = variables.missed;
        long::lengthen(node, self.keys(), report);
    }
}

/// Reads the files of the command line; `None` if there is no file or no document.
pub(super) fn parse(paths: &[PathBuf], reading: &Reading<'_>, report: &mut Report) -> Option<Vec<Document>> {
    let mut all = Vec::new();
    let mut empty = Vec::new();
    for path in paths {
        let Some(source) = read_named(reading.files, path, paths, reading.cwd, report) else { continue };
        let Some(read) = documents(source, path, report) else { continue };
        if read.is_empty() {
            empty.push(format!("empty compose file: `{}`", report.sources.name(source)));
        }
        all.extend(read);
    }
    // One that lies over others may be empty, as when a script makes it; with nothing at all there is no project.
    let kind = if all.is_empty() { Diagnostic::error } else { Diagnostic::warning };
    for message in empty {
        report.push(kind(message).spec("03-compose-file.md"));
    }
    all.retain(|document: &Document| {
        let is_map = document.node.as_map().is_some();
        if !is_map {
            let message = format!("a compose file must be a mapping, not {}", document.node.value.kind());
            report.push(Diagnostic::error(message).at(document.node.span, "").spec("03-compose-file.md"));
        }
        is_map
    });
    (!all.is_empty()).then_some(all)
}

/// Returns the documents of a file that say something.
fn documents(source: SourceId, path: &FilePath, report: &mut Report) -> Option<Vec<Document>> {
    match yaml::parse(source, &report.sources) {
        Ok(read) => {
            let says = |document: &Node| !document.is_null() && document.as_map().is_none_or(|map| !map.is_empty());
            let document = |node| Document { path: path.to_owned(), node };
            Some(read.into_iter().filter(says).map(document).collect())
        }
        Err(problems) => {
            for problem in problems {
                report.push(problem);
            }
            None
        }
    }
}

/// Makes one tree of all documents of a project.
pub(super) fn unify(
    documents: Vec<Document>,
    scope: &Scope<'_>,
    reading: &mut Reading<'_>,
    report: &mut Report,
) -> Option<Node> {
    let mut tree = None;
    let mut extender = Extender::new(scope);
    for Document { path, mut node } in documents {
        views::variables(&node, &mut reading.variables);
        obsolete(&mut node, report);
        reading.prepare(&mut node, scope.environment, report);
        include::apply(&mut node, &path, scope, reading, report);
        extender.apply(&mut node, path, reading, report);
        tree = Some(merge::merge(tree, node, reading.keys()));
    }
    tree
}

/// `version` means nothing any more.
fn obsolete(document: &mut Node, report: &mut Report) {
    if let Some(entry) = document.as_map_mut().and_then(|map: &mut Map| map.shift_remove("version")) {
        let problem = Diagnostic::warning("`version` is obsolete and has no effect").at(entry.key, "");
        report.push(problem.help("remove it").spec("04-version-and-name.md"));
    }
}

/// Returns `own` merged onto what it is based on. Tags stay in place, so that they also steer the merge onto what
/// earlier documents say.
pub(super) fn beneath(base: Node, own: Node, rules: &Rules) -> Node {
    let (span, tagged) = (own.span, has_tags(&own).then(|| own.clone()));
    let mut merged = merge::node(base, own, rules);
    merged.span = span;
    if let Some(own) = tagged {
        keep_tags(&mut merged, &own);
    }
    merged
}

fn has_tags(node: &Node) -> bool {
    node.tag.is_some() || node.as_map().is_some_and(|map| map.values().any(|entry| has_tags(&entry.node)))
}

fn keep_tags(merged: &mut Node, own: &Node) {
    merged.tag = own.tag;
    if own.tag.is_some() {
        return;
    }
    for (key, entry) in own.as_map().into_iter().flatten() {
        if entry.node.tag == Some(Tag::Reset) {
            if let Some(map) = merged.as_map_mut() {
                map.insert(key.clone(), entry.clone());
            }
        } else if let Some(merged) = merged.get_mut(key) {
            keep_tags(merged, &entry.node);
        }
    }
}

/// Returns how many values there are in one, itself counted; text counts 100 bytes for one.
pub(super) fn weight(node: &Node) -> usize {
    1 + match &node.value {
        Value::Str(text) => text.len() / 100,
        Value::Seq(items) => items.iter().map(weight).sum(),
        Value::Map(map) => map.values().map(|entry| weight(&entry.node)).sum(),
        _ => 0,
    }
}

/// Returns whether a text names a file that Docker Compose would fetch from elsewhere. Refused, with its place.
pub(super) fn refuse_remote(node: &Node, spec: &'static str, report: &mut Report) -> bool {
    let text = node.as_str().unwrap_or_default();
    let remote = text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/");
    if remote {
        let problem = Diagnostic::error(format!("`{text}` is not a file of this machine")).at(node.span, "");
        report.push(problem.help("orch fetches no compose files: get it first, then name its path").spec(spec));
    }
    remote
}
