//! First phase on a file's tree: variables are replaced, and text is cast where a number or boolean belongs.
//!
//! Keys are never interpolated. Casting comes after, so that `"${N}"` may feed `replicas`.
//! Source: compose-spec 12-interpolation.md.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::Diagnostic;

use super::interpolate::{self, Failure};
use super::long::Long;
use super::merge::Merge;
use super::node::{Node, Value};
use super::path::Path;
use super::report::Report;
use super::rules::{self, Keys, Rule, Rules, Shape};

const SPEC: &str = "12-interpolation.md";

/// What variables stand for, and which were missed already: each is warned about once.
pub(super) struct Variables<'a> {
    /// The project's environment.
    pub(super) environment: &'a BTreeMap<String, String>,
    /// Names warned about.
    pub(super) missed: BTreeSet<String>,
    /// Off for `config --no-interpolate`.
    pub(super) enabled: bool,
}

impl Variables<'_> {
    /// Returns the keys that can be understood.
    pub(super) fn keys(&self) -> Keys {
        if self.enabled { Keys::All } else { Keys::Specification }
    }
}

/// Replaces variables and casts, in all of `node`.
pub(super) fn interpolate(node: &mut Node, variables: &mut Variables<'_>, report: &mut Report) {
    walk(node, rules::root(variables.keys()), &Path::Root, variables, report);
}

/// Replaces the variables of one text, outside of a tree (`name` of the project); the report gets what is wrong.
pub(super) fn text(node: &mut Node, path: &Path<'_>, variables: &mut Variables<'_>, report: &mut Report) {
    let Some(before) = node.as_str().filter(|text| variables.enabled && text.contains('$')) else { return };
    let lookup = |name: &str| variables.environment.get(name).map(String::as_str);
    match interpolate::replace(before, &lookup) {
        Ok(replaced) => {
            for (name, range) in replaced.missing {
                if variables.missed.insert(name.clone()) {
                    let span = report.part(node, range.start, range.end);
                    let message = format!("the variable `{name}` is not set, an empty text stands in for it");
                    report.push(Diagnostic::warning(message).at(span, "").spec(SPEC));
                }
            }
            let is_taken = report.takes_text(replaced.text.len(), node.span);
            node.value = if is_taken { Value::Str(replaced.text) } else { Value::Unknown };
        }
        Err(failure) => {
            let (range, written) = (failure.range(), before.get(failure.range()).unwrap_or_default());
            let problem = describe(&failure, written, path, report.part(node, range.start, range.end));
            report.push(problem);
            node.value = Value::Unknown;
        }
    }
}

/// How a variable is written.
const FORMS: &str = "a variable is `${NAME}`, `${NAME:-default}`, `${NAME:?message}` or `${NAME:+replacement}`; write `$$` for a plain `$`";

/// What was meant by a variable that lacks its end, has blanks around its name, or `:=` of a shell.
fn almost(written: &str) -> Option<String> {
    let rest = written.strip_prefix("${")?;
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let Some(inner) = rest.strip_suffix('}') else {
        let name = rest.split([':', '-', '?', '+']).next().filter(|name| is_name(name))?;
        return Some(format!("the `${{` of `{name}` has no `}}`"));
    };
    if inner != inner.trim() && is_name(inner.trim()) {
        return Some(format!("did you mean `${{{}}}`?", inner.trim()));
    }
    let (name, word) = inner.split_once(":=").or_else(|| inner.split_once('='))?;
    is_name(name).then(|| format!("did you mean `${{{name}:-{word}}}`?"))
}

/// What was meant by a variable with a word behind a colon, and nothing that says what the word is for.
fn with_default(written: &str) -> Option<String> {
    let (name, word) = written.strip_prefix("${")?.strip_suffix('}')?.split_once(':')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_word = word.len() <= 64 && word.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '/' | '.'));
    (is_name && is_word).then(|| format!("did you mean `${{{name}:-{word}}}`?"))
}

fn describe(failure: &Failure, written: &str, path: &Path<'_>, span: crate::diag::Span) -> Diagnostic {
    match failure {
        Failure::Format(_) => Diagnostic::error(format!("invalid interpolation format for `{path}`"))
            .at(span, "")
            .help(with_default(written).or_else(|| almost(written)).unwrap_or_else(|| FORMS.to_owned())),
        other => Diagnostic::error(format!("while interpolating `{path}`: {other}")).at(span, ""),
    }
    .spec(SPEC)
}

fn walk(node: &mut Node, rules: &Rules, path: &Path<'_>, variables: &mut Variables<'_>, report: &mut Report) {
    match &mut node.value {
        Value::Map(map) => {
            static NONE: std::sync::LazyLock<Rules> = std::sync::LazyLock::new(Rules::default);
            for (key, entry) in map.iter_mut() {
                walk(&mut entry.node, rules.key(key).unwrap_or(&NONE), &path.key(key), variables, report);
            }
        }
        Value::Seq(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, rules.item(), &path.item(index), variables, report);
            }
        }
        Value::Str(text) if !variables.enabled && needs_more(text, rules) => {
            node.value = Value::Variable(std::mem::take(text));
        }
        Value::Str(_) => {
            text(node, path, variables, report);
            cast(node, rules.rule(), path, report);
        }
        _ => {}
    }
}

/// Whether text means something at a place only once its variables are replaced: a number, a short form that is taken apart.
fn needs_more(text: &str, rules: &Rules) -> bool {
    let Rule { shape, merge, long, .. } = *rules.rule();
    let has_variable =
        text.split('$').skip(1).any(|rest| rest.starts_with(|c: char| c == '{' || c == '_' || c.is_ascii_alphabetic()));
    let is_taken_apart = matches!(long, Long::Items(_));
    has_variable
        && match shape {
            Shape::Any | Shape::Word(..) => false,
            Shape::Text | Shape::Scalar | Shape::ScalarOrList | Shape::TextOrNumber | Shape::Map | Shape::Open => {
                is_taken_apart
            }
            // One text may stand for a list of one, but not for the words of a command.
            Shape::List => matches!(merge, Merge::Replace),
            _ => true,
        }
}

/// Casts in all of `node`, whose text holds no variables: for what does not come from a compose file.
pub(super) fn cast_all(node: &mut Node, rules: &Rules, path: &Path<'_>, report: &mut Report) {
    let environment = BTreeMap::new();
    let mut variables = Variables { environment: &environment, missed: BTreeSet::new(), enabled: false };
    walk(node, rules, path, &mut variables, report);
}

/// Makes text a number or boolean where one belongs.
fn cast(node: &mut Node, rule: &Rule, path: &Path<'_>, report: &mut Report) {
    let Some(text) = node.as_str() else { return };
    let value = match rule.shape {
        Shape::BoolOrMap | Shape::BoolOrList if text.parse::<bool>().is_err() => return,
        Shape::Bool | Shape::BoolOrMap | Shape::BoolOrList => boolean(text, node, path, report),
        Shape::Int(..) | Shape::IntOrMap => text.parse::<i64>().ok().map(|number| Value::Int(number.into())),
        Shape::Number => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Float),
        _ => return,
    };
    // Text that is no number stays; the check of shapes says what is expected.
    if let Some(value) = value {
        let text = std::mem::replace(&mut node.value, value);
        node.short = rule.is_own().then(|| Box::new(text));
    }
}

fn boolean(text: &str, node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Value> {
    let value = match text.to_ascii_lowercase().as_str() {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        "y" | "yes" | "on" => true,
        "n" | "no" | "off" => false,
        _ => return None,
    };
    let message = format!("`{text}` for the boolean `{path}` is not YAML 1.2");
    report.push(Diagnostic::warning(message).at(node.span, "").help(format!("write `{value}`")));
    Some(Value::Bool(value))
}
