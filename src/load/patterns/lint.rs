//! What can be said of a pattern alone: for `orch pattern ls`, `show` and `lint`.

use serde::Serialize;

use crate::diag::{Diagnostic, Diagnostics, SourceId};
use crate::load::node::{Entry, Map, Node, Value};
use crate::load::path::Path;
use crate::load::profiles::Disabled;
use crate::load::report::Report;
use crate::load::rules::{self, Keys};
use crate::load::{LoadOptions, check, keys, validate};

use super::definition::Definition;
use super::fill::{self, Filler};
use super::{SECTIONS, prepare};

/// A pattern as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Described {
    /// Its name, which is that of its file.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its parameters in their order.
    pub parameters: Vec<DescribedParameter>,
}

/// A parameter as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DescribedParameter {
    /// Its name.
    pub name: String,
    /// What it takes, in a few words: `integer, from 1 to 10`.
    pub takes: String,
    /// What stands in where nothing is given; `None`: something must be given.
    pub default: Option<String>,
    /// What it is for.
    pub description: String,
}

/// Reads the pattern `name` from its text. `source` is how messages call the text.
///
/// # Errors
/// What is wrong with its head and its parameters.
pub fn describe(name: &str, source: &str, text: &str) -> Result<Described, Diagnostics> {
    let mut report = Report::default();
    let source = report.sources.add(source, text);
    let Some(definition) = Definition::read(source, name, &mut report) else { return Err(report.finish()) };
    let text = |value: &Option<Node>| value.as_ref().and_then(|node| node.value.scalar_text());
    let parameters = definition.parameters.iter().map(|(name, parameter)| DescribedParameter {
        name: name.clone(),
        takes: parameter.takes(),
        default: text(&parameter.default),
        description: parameter.description.clone().unwrap_or_default(),
    });
    Ok(Described {
        name: name.to_owned(),
        description: definition.description.clone().unwrap_or_default(),
        parameters: parameters.collect(),
    })
}

/// Checks the pattern `name` as far as that goes without a project: its head, its parameters, and what it adds once defaults
/// and examples are put in. Returns errors and warnings.
pub fn lint(name: &str, source: &str, text: &str) -> Diagnostics {
    let mut report = Report::default();
    let source = report.sources.add(source, text);
    if let Some(definition) = Definition::read(source, name, &mut report) {
        advise(&definition, source, &mut report);
        try_out(&definition, &mut report);
    }
    report.finish()
}

/// What is missing for those who read it.
fn advise(definition: &Definition, source: SourceId, report: &mut Report) {
    if definition.description.is_none() {
        let start = crate::diag::Span { source, start: 0, end: 0 };
        let problem = Diagnostic::warning("this pattern does not say what it is for").at(start, "");
        report.push(problem.help("add `description:`"));
    }
    for (name, parameter) in definition.parameters.iter().filter(|(_, parameter)| parameter.description.is_none()) {
        let problem = Diagnostic::warning(format!("the parameter `{name}` does not say what it is for"));
        report.push(problem.at(parameter.span, "").help("add `description:`"));
    }
}

/// The port that the service has of which a pattern knows nothing.
const OWN_PORT: &str = "65535";

/// Makes a project of one service that uses the pattern, and checks that.
fn try_out(definition: &Definition, report: &mut Report) {
    let before = report.errors();
    let given = definition.examples();
    let mut budget = fill::BUDGET;
    let mut filler = Filler::new(&given, &mut budget, report);
    let service = definition.service.as_ref().map(|service| filler.node(service));
    let sections: Vec<_> = definition.sections.iter().map(|(section, node)| (*section, filler.node(node))).collect();
    let used = filler.used;
    for (name, parameter) in definition.parameters.iter().filter(|(name, _)| !used.contains(*name)) {
        let problem = Diagnostic::warning(format!("nothing of the pattern uses the parameter `{name}`"));
        report.push(problem.at(parameter.span, "").help(format!("write `${{param.{name}}}` where it belongs")));
    }
    let mut service = service.unwrap_or_else(|| Node::new(definition.parameters_span, Value::map(Map::default())));
    let path = Path::Root.key("service");
    prepare(&mut service, rules::of_service(), &path, report);
    check::walk(&mut service, rules::of_service(), &path, report);
    let mut top = Map::default();
    for (section, mut node) in sections {
        if let Some(rules) = rules::root(Keys::All).key(section) {
            prepare(&mut node, rules, &Path::Root.key(section), report);
            check::walk(&mut node, rules, &Path::Root.key(section), report);
        }
        top.insert(section.to_owned(), Entry::new(node.span, node));
    }
    if report.errors() > before {
        return;
    }
    // An image is what a service that uses the pattern has itself.
    if service.get("image").is_none() {
        service.set("image", Value::Str("image".to_owned()));
    }
    // So is the port that routes lead to where they name none.
    if !service.items("x-route").is_empty() && service.get("ports").is_none() && service.get("expose").is_none() {
        let port = Node::new(service.span, Value::Str(OWN_PORT.to_owned()));
        service.set("expose", Value::Seq(vec![port]));
    }
    let span = service.span;
    let services: Map = [("service".to_owned(), Entry::new(span, service))].into_iter().collect();
    top.insert("services".to_owned(), Entry::new(span, Node::new(span, Value::map(services))));
    debug_assert!(top.keys().all(|key| key == "services" || SECTIONS.contains(&key.as_str())), "sections of a pattern");
    let tree = Node::new(span, Value::map(top));
    validate::validate(&tree, true, report);
    let options = LoadOptions { consistency: false, ..LoadOptions::default() };
    drop(keys::understand(&tree, "pattern", &Disabled::new(), &options, report));
}
