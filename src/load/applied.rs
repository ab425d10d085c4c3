//! What orch understands and does not apply yet: refused with its place where something is to be run, so that nothing that a
//! file asks for is ignored. What has no effect in Docker Compose on Linux either brings a warning there. `config` prints both.
//! Which elements these are is in the table of [`rules`].

use crate::diag::{Diagnostic, Span};
use crate::model::Repository;

use super::node::{Node, Value};
use super::path::Path;
use super::rebase::is_elsewhere;
use super::report::Report;
use super::rules::{self, Keys, Rule, Rules, Shape, Unapplied};

/// Reports every element of the tree that is not applied.
pub(super) fn refuse(tree: &Node, report: &mut Report) {
    walk(tree, rules::root(Keys::All), &Path::Root, report);
    for (name, service) in tree.get("services").and_then(Node::as_map).into_iter().flatten() {
        if let Some(build) = service.node.get("build") {
            refuse_build(name, build, report);
        }
        refuse_order(name, service.node.items("pre_start"), report);
    }
}

/// What no builder takes, although the element as such is applied.
fn refuse_build(service: &str, build: &Node, report: &mut Report) {
    let at = format!("services.{service}.build");
    let problem =
        |what: &str, span, spec| Diagnostic::error(format!("`{at}.{what} is not applied yet")).at(span, "").spec(spec);
    if let Some(context) = build.get("context")
        && let Some(address) = context.as_str().filter(|text| is_elsewhere(text) && Repository::parse(text).is_none())
    {
        let problem = problem(&format!("context: {address}`"), context.span, "build.md#context");
        report.push(problem.help("name a directory, or a git repository (`https://….git#REFERENCE:DIRECTORY`)"));
    }
}

/// What is run once for a service is run before any of its replicas starts, so before what is run for each.
fn refuse_order(service: &str, steps: &[Node], report: &mut Report) {
    let is_for_each =
        |step: &&Node| step.get("per_replica").is_some_and(|node| matches!(node.value, Value::Bool(true)));
    let Some(each) = steps.iter().find(is_for_each) else { return };
    let mut after = steps.iter().skip_while(|step| !is_for_each(step));
    if let Some(once) = after.find(|step| !is_for_each(step)) {
        let message =
            format!("`pre_start` of service `{service}` has a step for the whole service after one for each replica");
        let problem = Diagnostic::error(message)
            .at(once.span, "once for the service, before any replica starts")
            .also(each.span, "for each replica");
        let help = "put the steps with `per_replica: true` last, or say it of both";
        report.push(problem.help(help).spec("05-services.md#pre_start"));
    }
}

fn walk(node: &Node, rules: &Rules, path: &Path<'_>, report: &mut Report) {
    match &node.value {
        Value::Map(map) => {
            for (key, entry) in map.iter() {
                let Some(rules) = rules.key(key) else { continue };
                let path = path.key(key);
                match rules.rule().unapplied {
                    Some(unapplied) if asks(&entry.node, unapplied) => {
                        let instead = unapplied.instead;
                        let help = if path.is_in_list() {
                            instead.to_owned()
                        } else {
                            format!("{instead}; `{key}: !reset null` in a further file leaves it out")
                        };
                        let what = format!("`{path}`");
                        let problem = if unapplied.is_refused {
                            problem(&what, entry.key, rules.rule())
                        } else {
                            let warning = Diagnostic::warning(format!("{what} has no effect"));
                            warning.at(entry.key, "").spec(rules.rule().spec)
                        };
                        report.push(problem.help(help));
                    }
                    Some(_) => {}
                    None => walk(&entry.node, rules, &path, report),
                }
            }
        }
        Value::Seq(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, rules.item(), &path.item(index), report);
            }
        }
        Value::Str(word) => {
            if let Shape::Word(words, later) = rules.rule().shape
                && later.contains(&word.as_str())
            {
                let problem = problem(&format!("`{path}: {word}`"), node.span, rules.rule());
                report.push(problem.help(format!("use one of {}", words.join(", "))));
            }
        }
        _ => {}
    }
}

fn problem(what: &str, span: Span, rule: &Rule) -> Diagnostic {
    Diagnostic::error(format!("{what} is not applied yet")).at(span, "").spec(rule.spec)
}

/// Returns whether a value asks for something.
fn asks(node: &Node, unapplied: Unapplied) -> bool {
    match &node.value {
        Value::Null | Value::Unknown => false,
        Value::Map(map) => map.values().any(|entry| !is_empty(&entry.node)),
        Value::Seq(items) => !items.is_empty(),
        scalar => {
            let text = scalar.scalar_text().unwrap_or_default();
            !text.is_empty() && !unapplied.harmless.contains(&text.as_str())
        }
    }
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Map(map) => map.is_empty(),
        Value::Seq(items) => items.is_empty(),
        _ => false,
    }
}

/// What becomes of an element of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// `up` does what it says.
    Applied,
    /// As `Applied`, but for these words, which `config` prints and `up` refuses.
    AppliedBut(&'static [&'static str]),
    /// `config` prints it, `up` refuses it.
    Refused {
        /// What to do instead.
        instead: &'static str,
        /// Values that ask for nothing, which `up` takes.
        harmless: &'static [&'static str],
    },
    /// `config` prints it, `up` warns that it has no effect.
    WithoutEffect {
        /// What to do instead.
        instead: &'static str,
        /// Values that ask for nothing.
        harmless: &'static [&'static str],
    },
    /// It goes with the element above it, which `up` refuses.
    RefusedAbove(&'static str),
}

/// An element of the specification, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// Where: `services.*.ports.[].target`; `*` stands for a key that the user chooses, `[]` for the items of a list.
    pub path: &'static str,
    /// What becomes of it.
    pub standing: Standing,
    /// Chapter of the specification.
    pub spec: &'static str,
}

/// Returns all elements of the specification, those above before those below; orch's own keys are none.
pub fn elements() -> Vec<Element> {
    let rows = rules::root(Keys::Specification).rows();
    let above = |path: &str| {
        let of = |rule: &&Rule| path.strip_prefix(rule.path).is_some_and(|rest| rest.starts_with('.'));
        rows.iter().filter(|rule| rule.unapplied.is_some()).find(of).map(|rule| rule.path)
    };
    let standing = |rule: &Rule| match (rule.unapplied, rule.shape) {
        (Some(Unapplied { instead, harmless, is_refused: true }), _) => Standing::Refused { instead, harmless },
        (Some(Unapplied { instead, harmless, is_refused: false }), _) => Standing::WithoutEffect { instead, harmless },
        (None, shape) => match (above(rule.path), shape) {
            (Some(above), _) => Standing::RefusedAbove(above),
            (None, Shape::Word(_, later @ [_, ..])) => Standing::AppliedBut(later),
            _ => Standing::Applied,
        },
    };
    let named = rows.iter().filter(|rule| !rule.path.is_empty());
    named.map(|rule| Element { path: rule.path, standing: standing(rule), spec: rule.spec }).collect()
}
