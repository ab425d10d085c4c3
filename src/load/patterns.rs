//! `x-patterns`: reusable parts of services, with parameters. See `docs/patterns.md`.
//!
//! A pattern is a file: what it adds to the service that uses it, in the words of a compose file, and the parameters of that.
//! [`library`] finds it, [`definition`] reads it, [`parameter`] checks the values that a use gives, [`fill`] puts them in.
//! Here the result is merged: beneath what the service says itself, whose values win. That comes after all files are merged
//! and before anything is checked, so that what a pattern adds is looked at like the rest.

mod definition;
mod fill;
pub mod library;
mod lint;
mod parameter;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;

use crate::diag::{Diagnostic, SourceId, SourceMap, Span};

use super::node::{Entry, Map, Node, Value};
use super::path::Path;
use super::report::Report;
use super::rules::{self, Keys, Rules};
use super::source::Files;
use super::{check, long, merge, values};

pub use lint::{Described, DescribedParameter, describe, lint};

use definition::Definition;

const SPEC: &str = "docs/patterns.md#x-patterns";

/// Most uses in one project: each is a copy of the pattern.
const MAX_USES: usize = 1_000;

/// Sections of the top level that a pattern may add to.
const SECTIONS: [&str; 3] = ["volumes", "configs", "secrets"];

/// Keys whose entries are one's own: two patterns cannot both make one.
const GROUPS: [&str; 3] = ["x-init", "x-sidecars", "x-ambassadors"];

/// Where patterns are looked for.
pub(super) struct Places<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) cwd: &'a FilePath,
    pub(super) working_dir: &'a FilePath,
    /// Environment of the process, for the user's own directory.
    pub(super) environment: &'a BTreeMap<String, String>,
}

/// One use of a pattern.
struct Use {
    /// What it is called, for messages.
    name: String,
    /// Where it is used.
    span: Span,
    /// What it adds to the service.
    service: Node,
    /// What it adds to the top level.
    sections: Vec<(&'static str, Node)>,
}

/// What a use adds to a section of the top level, with the pattern's name and the place of the use.
type Section = (&'static str, Node, String, Span);

/// Puts patterns in place of their uses. Returns whether there were any.
pub(super) fn apply(tree: &mut Node, places: &Places<'_>, report: &mut Report) -> bool {
    let services: BTreeSet<String> = tree.entries("services").map(|(name, _)| name.clone()).collect();
    let mut applied = Applied {
        places,
        left: MAX_USES,
        budget: fill::BUDGET,
        known: BTreeMap::new(),
        services: &services,
        top: Vec::new(),
    };
    let mut any = false;
    for name in &services {
        let service = tree.get_mut("services").and_then(|services| services.get_mut(name));
        let Some(map) = service.and_then(Node::as_map_mut) else { continue };
        let Some(mut entry) = map.shift_remove("x-patterns") else { continue };
        any = true;
        let path = Path::Root.key("services");
        let path = path.key(name);
        let list = rules::of_service().key("x-patterns");
        if let Some(list) = list {
            check::walk(&mut entry.node, list, &path.key("x-patterns"), report);
        }
        let uses = applied.uses(&entry.node, report);
        let Some(uses) = without_clashes(name, uses, report) else { continue };
        let service = tree.get_mut("services").and_then(|services| services.get_mut(name));
        if let Some(service) = service {
            put_beneath(service, uses, &mut applied.top, &path, report);
        }
    }
    sections(tree, &applied.top, report);
    any
}

/// What is known while patterns are applied.
struct Applied<'a> {
    places: &'a Places<'a>,
    /// Uses that may still come.
    left: usize,
    /// What they may still add.
    budget: usize,
    /// Patterns that were read, each with its source; `None`: it is wrong.
    known: BTreeMap<String, (SourceId, Option<Definition>)>,
    /// Names of all services.
    services: &'a BTreeSet<String>,
    /// What patterns add to the top level, with the use that does.
    top: Vec<Section>,
}

impl Applied<'_> {
    /// Reads the uses of one service. What is wrong with one is reported, and leaves it out.
    fn uses(&mut self, list: &Node, report: &mut Report) -> Vec<Use> {
        let mut seen: Vec<&Node> = Vec::new();
        let mut uses = Vec::new();
        for item in list.as_seq().into_iter().flatten().filter(|item| item.as_map().is_some()) {
            if let Some(before) = seen.iter().find(|other| same(other, item)) {
                let problem = Diagnostic::warning("this pattern is used twice with the same values");
                let problem = problem.at(item.span, "again").also(before.span, "first");
                report.push(problem.help("remove one of them").spec(SPEC));
                continue;
            }
            seen.push(item);
            if self.budget == 0 {
                break;
            }
            if self.left == 0 {
                let message = format!("patterns are used more than {MAX_USES} times up to here");
                report.push(Diagnostic::error(message).at(item.span, "").spec(SPEC));
                break;
            }
            self.left -= 1;
            uses.extend(self.one(item, report));
        }
        uses
    }

    fn one(&mut self, item: &Node, report: &mut Report) -> Option<Use> {
        let Some(name) = item.get("use") else {
            let problem = Diagnostic::error("this does not say which pattern is used").at(item.span, "");
            report.push(problem.help("add `use: NAME`; `orch pattern ls` lists them").spec(SPEC));
            return None;
        };
        let source = library::find(name, self.places, report)?;
        report.note_use(source, name.span);
        if !fill::spend(&mut self.budget, report.sources.text(source).len() / 100, name.span, report) {
            return None;
        }
        let definition = self.definition(source, name.as_str()?, report)?;
        let given = definition.given(item, self.services, report)?;
        let mut filler = fill::Filler::new(&given, &mut self.budget, report);
        let service = definition.service.as_ref().map(|node| filler.node(node));
        let sections = definition.sections.iter().map(|(section, node)| (*section, filler.node(node))).collect();
        let service = service.unwrap_or_else(|| Node::new(item.span, Value::map(Map::default())));
        Some(Use { name: name.as_str()?.to_owned(), span: name.span, service, sections })
    }

    /// Reads a pattern, or moves what was read for another use of it to this use's copy of the text. What is wrong with one
    /// is told once.
    fn definition(&mut self, source: SourceId, name: &str, report: &mut Report) -> Option<Definition> {
        if let Some((first, known)) = self.known.get(name) {
            return known.as_ref().map(|definition| definition.moved(*first, source));
        }
        let definition = Definition::read(source, name, report);
        self.known.insert(name.to_owned(), (source, definition.clone()));
        definition
    }
}

/// Makes short forms long, and refuses what two patterns say both.
fn without_clashes(service: &str, mut uses: Vec<Use>, report: &mut Report) -> Option<Vec<Use>> {
    let before = report.errors();
    let path = Path::Root.key("services");
    let path = path.key(service);
    for one in &mut uses {
        prepare(&mut one.service, rules::of_service(), &path, report);
    }
    // What was said first, by its path, with the use that says it.
    let mut said: BTreeMap<String, (Said<'_>, usize)> = BTreeMap::new();
    for (index, one) in uses.iter().enumerate() {
        let mut told: BTreeSet<usize> = BTreeSet::new();
        for second in said_by(&one.service) {
            let Some((first, by)) = said.get(&second.path) else {
                said.insert(second.path.clone(), (second, index));
                continue;
            };
            if *by != index && !first.agrees(&second) && told.insert(*by) {
                report.push(both_say(service, (&uses[*by], first), (one, &second), &report.sources));
            }
        }
    }
    (report.errors() == before).then_some(uses)
}

/// Makes what a pattern adds like what a compose file says once it is read.
fn prepare(node: &mut Node, rules: &Rules, path: &Path<'_>, report: &mut Report) {
    values::cast_all(node, rules, path, report);
    long::walk(node, rules, path, report);
}

/// Merges what patterns add to a service beneath what it says itself.
fn put_beneath(service: &mut Node, uses: Vec<Use>, top: &mut Vec<Section>, path: &Path<'_>, report: &mut Report) {
    let mut base = Node::new(service.span, Value::map(Map::default()));
    for Use { name, span, service, sections } in uses {
        if service.as_map().is_none() {
            let message = format!("`service` of a pattern must be a mapping, not {}", service.value.kind());
            report.push(Diagnostic::error(message).at(service.span, "").spec("docs/patterns.md#writing-a-pattern"));
            continue;
        }
        if let Some(own) = service.as_map().and_then(|map| map.get("x-patterns")) {
            let problem = Diagnostic::error(format!("a pattern cannot use patterns (in `{path}`)")).at(own.key, "");
            report.push(problem.help("let the service use both").spec("docs/patterns.md#writing-a-pattern"));
        }
        base = merge::node(base, service, rules::of_service());
        top.extend(sections.into_iter().map(|(section, node)| (section, node, name.clone(), span)));
    }
    let own = std::mem::replace(service, Node::new(service.span, Value::Null));
    *service = merge::node(base, own, rules::of_service());
}

/// Adds what patterns say of volumes, configs and secrets, beneath what the files say themselves.
fn sections(tree: &mut Node, all: &[Section], report: &mut Report) {
    for section in SECTIONS {
        let Some(rules) = rules::root(Keys::All).key(section) else { continue };
        let path = Path::Root.key(section);
        // By key: the first that a pattern gave, and which use gave it.
        let mut seen: BTreeMap<String, (Entry, Span)> = BTreeMap::new();
        let mut base = Map::default();
        for (_, mut node, name, span) in all.iter().filter(|(of, ..)| *of == section).cloned() {
            if node.as_map().is_none() {
                let message = format!("`{section}` of pattern `{name}` must be a mapping, not {}", node.value.kind());
                report.push(Diagnostic::error(message).at(node.span, "").spec("docs/patterns.md#writing-a-pattern"));
                continue;
            }
            prepare(&mut node, rules, &path, report);
            for (key, entry) in node.as_map().cloned().unwrap_or_default() {
                match seen.get(&key) {
                    Some((other, _)) if same(&other.node, &entry.node) => {}
                    Some((other, first)) => {
                        let message = format!("two patterns add different things under `{section}.{key}`");
                        let problem = Diagnostic::error(message).at(span, "this").also(*first, "and this");
                        let problem = problem.also(entry.key, "here");
                        let same = report.sources.locate(entry.key) == report.sources.locate(other.key);
                        let problem = if same { problem } else { problem.also(other.key, "and here") };
                        report.push(
                            problem.help("give one of them another name, where it has a parameter for it").spec(SPEC),
                        );
                    }
                    None => {
                        seen.insert(key.clone(), (entry.clone(), span));
                        base.insert(key, entry);
                    }
                }
            }
        }
        if base.is_empty() {
            continue;
        }
        if tree.get(section).is_none_or(Node::is_null) {
            tree.set(section, Value::map(Map::default()));
        }
        if let Some(own) = tree.get_mut(section).filter(|own| own.as_map().is_some()) {
            let taken = std::mem::replace(own, Node::new(own.span, Value::Null));
            let base = Node::new(taken.span, Value::map(base));
            *own = merge::node(base, taken, rules);
        }
    }
}

/// A value that a pattern says where only one can win, or a container that it makes.
struct Said<'a> {
    path: String,
    span: Span,
    /// The value; `None`: a container.
    value: Option<&'a Value>,
}

impl Said<'_> {
    fn agrees(&self, other: &Self) -> bool {
        match (self.value, other.value) {
            (Some(Value::Unknown), Some(_)) | (Some(_), Some(Value::Unknown)) => true,
            (Some(one), Some(other)) => one == other,
            _ => false,
        }
    }
}

/// Returns what a part of a service says: lists are left out, because they go on behind each other.
fn said_by(service: &Node) -> Vec<Said<'_>> {
    let mut all = Vec::new();
    let mut next: Vec<(String, &Node)> = vec![(String::new(), service)];
    while let Some((path, node)) = next.pop() {
        for (key, entry) in node.as_map().into_iter().flatten() {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if GROUPS.contains(&path.as_str()) {
                all.push(Said { path: below, span: entry.key, value: None });
                continue;
            }
            match &entry.node.value {
                Value::Map(_) => next.push((below, &entry.node)),
                Value::Seq(_) => {}
                value => all.push(Said { path: below, span: entry.node.span, value: Some(value) }),
            }
        }
    }
    all
}

fn both_say(service: &str, first: (&Use, &Said<'_>), second: (&Use, &Said<'_>), sources: &SourceMap) -> Diagnostic {
    let ((first, earlier), (second, later)) = (first, second);
    let what = &later.path;
    let message = if first.name == second.name {
        format!("service `{service}` uses pattern `{}` twice, and both say `{what}`", first.name)
    } else {
        format!("patterns `{}` and `{}` of service `{service}` both say `{what}`", first.name, second.name)
    };
    let help = if later.value.is_none() {
        "give one of them another name, where it has a parameter for it"
    } else {
        "choose values that agree, or say it in the service itself without one of the patterns"
    };
    let problem = Diagnostic::error(message).at(second.span, "this").also(first.span, "and this");
    let problem = problem.also(later.span, "here");
    // Two uses of one pattern have a copy of its text each.
    let same = sources.locate(earlier.span) == sources.locate(later.span);
    let problem = if same { problem } else { problem.also(earlier.span, "and here") };
    problem.help(help).spec(SPEC)
}

/// Returns whether two values are the same, wherever they are written.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Seq(one), Value::Seq(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(a, b))
        }
        (Value::Map(one), Value::Map(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, entry)| other.get(key).is_some_and(|other| same(&entry.node, &other.node)))
        }
        (one, other) => one == other,
    }
}
