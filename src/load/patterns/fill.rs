//! Puts the values of parameters into a pattern: `${param.NAME}`.
//!
//! A text that is one parameter and nothing else becomes its value, so that a number stays a number; in the midst of text it
//! is put as text. Names of mappings take parameters too. A pattern knows no variables of the environment: who uses it does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::diag::{Diagnostic, Span, did_you_mean};
use crate::load::node::{Entry, Map, Node, Value};
use crate::load::report::Report;

/// What patterns may add to a project in all: values, and text counts 100 bytes for one. As many as a file may have, twice.
pub(super) const BUDGET: usize = 500_000;

const SPEC: &str = "docs/patterns.md#writing-a-pattern";

/// The values of a pattern's parameters; [`Value::Unknown`] where none is known, which is passed on.
pub(super) type Given = BTreeMap<String, Node>;

/// A piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Parameter(String, Range<usize>),
}

/// Why a text cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong(Range<usize>);

/// Takes a text apart. `$$` is a plain `$`, as in compose files; a `$` that starts nothing stays.
fn pieces(text: &str) -> Result<Vec<Piece>, Wrong> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('$') {
        let dollar = at + found;
        plain.push_str(&text[at..dollar]);
        let rest = &text[dollar + 1..];
        if rest.starts_with('$') {
            plain.push('$');
            at = dollar + 2;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let end = inner.find('}').ok_or(Wrong(dollar..text.len()))?;
            let whole = dollar..dollar + 2 + end + 1;
            let name = inner[..end].strip_prefix("param.").filter(|name| is_name(name)).ok_or(Wrong(whole.clone()))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            at = whole.end;
            pieces.push(Piece::Parameter(name.to_owned(), whole));
        } else if rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            return Err(Wrong(dollar..dollar + 1 + end));
        } else {
            plain.push('$');
            at = dollar + 1;
        }
    }
    plain.push_str(&text[at..]);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// Returns whether a text can be the name of a parameter.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// Takes `cost` of what patterns may add. Returns whether there was enough; the first that finds none says so.
pub(super) fn spend(budget: &mut usize, cost: usize, span: Span, report: &mut Report) -> bool {
    if *budget == 0 {
        return false;
    }
    *budget = budget.saturating_sub(cost);
    if *budget == 0 {
        let message = format!("patterns make this project too large: more than {BUDGET} values");
        report.push(Diagnostic::error(message).at(span, "reached here").spec(SPEC));
    }
    *budget > 0
}

/// Fills one pattern.
pub(super) struct Filler<'a> {
    given: &'a Given,
    report: &'a mut Report,
    budget: &'a mut usize,
    /// Parameters that were asked for.
    pub(super) used: BTreeSet<String>,
}

impl<'a> Filler<'a> {
    pub(super) fn new(given: &'a Given, budget: &'a mut usize, report: &'a mut Report) -> Self {
        Self { given, report, budget, used: BTreeSet::new() }
    }

    /// Takes what a value costs.
    fn takes(&mut self, node: &Node, text: &str) -> bool {
        spend(self.budget, 1 + text.len() / 100, node.span, self.report)
    }

    /// Returns a part of the pattern with values in it.
    pub(super) fn node(&mut self, node: &Node) -> Node {
        if !self.takes(node, node.as_str().unwrap_or_default()) {
            return node.with(Value::Unknown);
        }
        match &node.value {
            Value::Str(_) => self.text(node),
            Value::Seq(items) => node.with(Value::Seq(items.iter().map(|item| self.node(item)).collect())),
            Value::Map(map) => {
                let mut filled = Map::default();
                for (key, entry) in map.iter() {
                    let value = self.node(&entry.node);
                    let Some(name) = self.key(key, entry) else { continue };
                    if let Some(before) = filled.insert(name.clone(), Entry::new(entry.key, value)) {
                        let problem =
                            Diagnostic::error(format!("`{name}` is given twice, once the parameters are put in"));
                        let problem = problem.at(entry.key, "again here").also(before.key, "first here");
                        self.report.push(problem.help("choose values that differ").spec(SPEC));
                    }
                }
                node.with(Value::map(filled))
            }
            _ => node.clone(),
        }
    }

    fn key(&mut self, key: &str, entry: &Entry) -> Option<String> {
        if !key.contains('$') {
            return Some(key.to_owned());
        }
        let filled = self.text(&Node::text(entry.key, key));
        match filled.value {
            Value::Unknown => None,
            other => other.scalar_text(),
        }
    }

    fn text(&mut self, node: &Node) -> Node {
        let text = node.as_str().unwrap_or_default();
        if !text.contains('$') {
            return node.clone();
        }
        let pieces = match pieces(text) {
            Ok(pieces) => pieces,
            Err(Wrong(range)) => {
                let message = format!("`{}` is not a parameter of this pattern", &text[range.clone()]);
                let help = "a pattern knows its own parameters only: `${param.NAME}`; write `$$` for a plain `$`";
                let span = self.report.part(node, range.start, range.end);
                self.report.push(Diagnostic::error(message).at(span, "").help(help).spec(SPEC));
                return node.with(Value::Unknown);
            }
        };
        if let [Piece::Parameter(name, range)] = pieces.as_slice() {
            return self.whole(node, name, range);
        }
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(&text),
                Piece::Parameter(name, range) => match self.value(node, &name, &range).value.scalar_text() {
                    Some(text) if self.given.get(&name).is_some_and(|value| !value.is_unknown()) => out.push_str(&text),
                    _ => return node.with(Value::Unknown),
                },
            }
        }
        node.with(Value::Str(out))
    }

    /// A text that is one parameter: the value takes its place, and stays where it is written.
    fn whole(&mut self, node: &Node, name: &str, range: &Range<usize>) -> Node {
        let value = self.value(node, name, range);
        self.report.note_value(value.span, node.span);
        Node { tag: node.tag, ..value }
    }

    fn value(&mut self, node: &Node, name: &str, range: &Range<usize>) -> Node {
        let Some(value) = self.given.get(name) else {
            let span = self.report.part(node, range.start, range.end);
            let problem = Diagnostic::error(format!("the pattern has no parameter `{name}`")).at(span, "");
            let help = match did_you_mean(name, self.given.keys().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("add `{name}:` under its `parameters`"),
            };
            self.report.push(problem.help(help).spec(SPEC));
            return node.with(Value::Unknown);
        };
        self.used.insert(name.to_owned());
        let value = value.clone();
        if self.takes(node, value.as_str().unwrap_or_default()) { value } else { node.with(Value::Unknown) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match pieces(text) {
            Ok(pieces) => {
                let show = |piece: &Piece| match piece {
                    Piece::Text(text) => format!("[{text}]"),
                    Piece::Parameter(name, range) => format!("<{name} {range:?}>"),
                };
                pieces.iter().map(show).collect()
            }
            Err(Wrong(range)) => format!("wrong {range:?}"),
        }
    }

    #[test]
    fn texts_are_taken_apart() {
        for (text, expected) in [
            ("", ""),
            ("a", "[a]"),
            ("${param.a}", "<a 0..10>"),
            ("x${param.a}y${param.b-c}", "[x]<a 1..11>[y]<b-c 12..24>"),
            ("$${param.a}", "[${param.a}]"),
            ("a$$b", "[a$b]"),
            ("wait $!; [ $# -gt 1 ] $", "[wait $!; [ $# -gt 1 ] $]"),
            ("$HOME", "wrong 0..5"),
            ("a ${HOME:-x} b", "wrong 2..12"),
            ("${param.}", "wrong 0..9"),
            ("${param.1}", "wrong 0..10"),
            ("${param.a", "wrong 0..9"),
            ("é${param.é}", "wrong 2..13"),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }
}
