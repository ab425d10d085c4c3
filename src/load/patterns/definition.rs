//! The file of a pattern, read and checked.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use crate::diag::{Diagnostic, SourceId, Span, did_you_mean};
use crate::load::node::{Node, Value};
use crate::load::path::Path;
use crate::load::report::Report;
use crate::load::{check, rules, values, yaml};

use super::fill::{self, Given};
use super::parameter::{Kind, Parameter};
use super::{SECTIONS, SPEC};

const WRITING: &str = "docs/patterns.md#writing-a-pattern";

/// A pattern.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    pub(super) description: Option<String>,
    pub(super) parameters: IndexMap<String, Parameter>,
    /// Where the parameters are.
    pub(super) parameters_span: Span,
    /// What it adds to the service that uses it.
    pub(super) service: Option<Node>,
    /// What it adds to sections of the top level.
    pub(super) sections: Vec<(&'static str, Node)>,
}

impl Definition {
    /// Reads the pattern in a source, which is used as `name`.
    pub(super) fn read(source: SourceId, name: &str, report: &mut Report) -> Option<Self> {
        let mut node = one_document(source, report)?;
        let before = report.errors();
        values::cast_all(&mut node, rules::of_pattern(), &Path::Root, report);
        check::walk(&mut node, rules::of_pattern(), &Path::Root, report);
        node.as_map()?;
        let said = node.get("name").and_then(|said| Some((said, said.as_str()?)));
        if let Some((said, text)) = said.filter(|(_, text)| super::library::is_name(name) && *text != name) {
            let problem = Diagnostic::warning(format!("this pattern is used as `{name}` and calls itself `{text}`"));
            report.push(problem.at(said.span, "").help("its file's name counts: say the same here").spec(WRITING));
        }
        let mut parameters = IndexMap::new();
        for (name, entry) in node.entries("parameters") {
            if !fill::is_name(name) {
                let problem = Diagnostic::error(format!("`{name}` is not the name of a parameter")).at(entry.key, "");
                let help = "a letter, then letters, digits, hyphens and underscores";
                report.push(problem.help(help).spec(WRITING));
                continue;
            }
            if let Some(parameter) = Parameter::new(name, entry.key, &entry.node, report) {
                parameters.insert(name.clone(), parameter);
            }
        }
        let sections: Vec<(&'static str, Node)> =
            SECTIONS.into_iter().filter_map(|section| Some((section, node.get(section)?.clone()))).collect();
        let service = node.get("service").cloned();
        if service.is_none() && sections.is_empty() {
            let problem = Diagnostic::error("this pattern adds nothing").at(node.span, "");
            report.push(problem.help("add `service:` with what it adds to the service that uses it").spec(WRITING));
        }
        let parameters_span = node.get("parameters").map_or(node.span, |parameters| parameters.span);
        let description = node.str("description").map(str::to_owned);
        (report.errors() == before).then_some(Self { description, parameters, parameters_span, service, sections })
    }

    /// Returns the same with all its places in another copy of its text.
    pub(super) fn moved(&self, from: SourceId, to: SourceId) -> Self {
        let mut moved = self.clone();
        let place = |span: &mut Span| {
            if span.source == from {
                span.source = to;
            }
        };
        place(&mut moved.parameters_span);
        for parameter in moved.parameters.values_mut() {
            place(&mut parameter.span);
            for value in [&mut parameter.default, &mut parameter.example].into_iter().flatten() {
                value.each_span(&place);
            }
        }
        let sections = moved.sections.iter_mut().map(|(_, node)| node);
        moved.service.iter_mut().chain(sections).for_each(|node| node.each_span(&place));
        moved
    }

    /// Returns the values that a use gives, and those that stand in; what is wrong with them is reported.
    pub(super) fn given(&self, item: &Node, services: &BTreeSet<String>, report: &mut Report) -> Option<Given> {
        let before = report.errors();
        for (name, entry) in item.entries("with") {
            if !self.parameters.contains_key(name) {
                let mut problem = Diagnostic::error(format!("the pattern has no parameter `{name}`")).at(entry.key, "");
                let names = self.parameters.keys().map(String::as_str);
                problem = match did_you_mean(name, names.clone()) {
                    Some(meant) => problem.help(format!("did you mean `{meant}`?")),
                    None => problem.help(format!("it has {}", names.collect::<Vec<_>>().join(", "))),
                };
                let first = self.parameters.values().next().map_or(self.parameters_span, |parameter| parameter.span);
                report.push(problem.also(first, "its parameters").spec(SPEC));
            }
        }
        let mut given = Given::new();
        for (name, parameter) in &self.parameters {
            let said = item.get("with").and_then(|with| with.get(name)).filter(|said| !said.is_null());
            let value = match (said, &parameter.default) {
                (Some(said), _) if said.is_unknown() => said.clone(),
                (Some(said), _) => match parameter.check(said, Some(services)) {
                    Ok(value) => Node::new(said.span, value),
                    Err(reason) => {
                        let problem = Diagnostic::error(format!("`{name}` {reason}"));
                        let mut problem = problem.at(said.span, "").also(parameter.span, "as the pattern says here");
                        let meant = said.as_str().filter(|_| parameter.kind == Kind::Service && !report.is_full());
                        let meant = meant.and_then(|text| did_you_mean(text, services.iter().map(String::as_str)));
                        if let Some(meant) = meant {
                            problem = problem.help(format!("did you mean `{meant}`?"));
                        }
                        report.push(problem.spec(SPEC));
                        continue;
                    }
                },
                (None, Some(default)) => default.clone(),
                (None, None) => {
                    let problem = Diagnostic::error(format!("the pattern needs a value for `{name}`"));
                    let place = item.get("with").or_else(|| item.get("use")).unwrap_or(item);
                    let problem = problem.at(place.span, "").also(parameter.span, "its parameter");
                    let example = parameter.example.as_ref().and_then(|example| example.value.scalar_text());
                    let example = example.unwrap_or_else(|| parameter.kind.word().to_uppercase());
                    report.push(problem.help(format!("add `with: {{{name}: {example}}}`")).spec(SPEC));
                    continue;
                }
            };
            given.insert(name.clone(), value);
        }
        (report.errors() == before).then_some(given)
    }

    /// Returns values to try the pattern with: defaults and examples, and nothing known of the rest.
    pub(super) fn examples(&self) -> Given {
        let value = |parameter: &Parameter| {
            let known = parameter.default.clone().or_else(|| parameter.example.clone());
            known.unwrap_or_else(|| Node::new(parameter.span, Value::Unknown))
        };
        self.parameters.iter().map(|(name, parameter)| (name.clone(), value(parameter))).collect()
    }
}

/// The one document of a pattern's file.
fn one_document(source: SourceId, report: &mut Report) -> Option<Node> {
    let mut documents = match yaml::parse(source, &report.sources) {
        Ok(documents) => documents,
        Err(problems) => {
            for problem in problems {
                report.push(problem);
            }
            return None;
        }
    };
    documents.retain(|document| !document.is_null());
    if let Some(second) = documents.get(1) {
        report.push(Diagnostic::error("a pattern's file has one document only").at(second.span, "").spec(WRITING));
        return None;
    }
    if documents.is_empty() {
        let start = Span { source, start: 0, end: 0 };
        report.push(Diagnostic::error("this pattern's file is empty").at(start, "").spec(WRITING));
        return None;
    }
    Some(documents.swap_remove(0))
}
