//! `config --expanded`: the project as orch understands it, patterns put in and every short form long, and behind each line
//! where it comes from.

use crate::diag::{SourceMap, Span};

use super::node::{Node, Value};
use super::rules::{self, Keys, Rules, Shape};

/// Column that comments start at where the line leaves room for it.
const COMMENTS: usize = 56;

/// What is said of a value that no file holds.
const FILLED_IN: &str = "by default";

/// A line on its way out.
struct Line {
    depth: usize,
    /// How many `- ` stand before it.
    dashes: usize,
    text: String,
    from: Option<Span>,
}

/// Returns the tree as YAML with comments; it loads again as the same project.
pub(super) fn render(tree: &Node, name: &str, sources: &SourceMap) -> String {
    let mut lines = Vec::new();
    let from = tree.get("name").map(|node| node.span);
    lines.push(Line { depth: 0, dashes: 0, text: format!("name: {}", scalar(&Value::Str(name.to_owned()))), from });
    map(tree, Some(rules::root(Keys::All)), 0, &mut lines);
    lines.iter().fold(String::new(), |out, line| out + &line.shown(sources))
}

impl Line {
    fn shown(&self, sources: &SourceMap) -> String {
        let start = " ".repeat(self.depth.saturating_sub(self.dashes) * 2) + &"- ".repeat(self.dashes);
        let text = format!("{start}{}", self.text);
        let comment = match self.from {
            Some(span) if span.start == span.end => FILLED_IN.to_owned(),
            Some(span) => {
                let place = sources.locate(span);
                format!("{}:{}", place.file, place.line)
            }
            None => FILLED_IN.to_owned(),
        };
        let width = text.chars().count();
        let gap = if width < COMMENTS { COMMENTS - width } else { 2 };
        format!("{text}{}# {comment}\n", " ".repeat(gap))
    }
}

fn map(node: &Node, rules: Option<&Rules>, depth: usize, lines: &mut Vec<Line>) {
    let mut entries: Vec<_> = node.as_map().into_iter().flatten().collect();
    if rules.is_some_and(|rules| rules.rule().shape == Shape::Map && rules.rule().path.ends_with(".*")) {
        // Of services and the like, as `config` prints them: what a pattern puts in stands beside its like.
        entries.sort_by_key(|(key, _)| *key);
    }
    for (key, entry) in entries {
        if depth == 0 && matches!(key.as_str(), "name" | "version") {
            continue;
        }
        let child = rules.and_then(|rules| rules.key(key));
        if says_nothing(&entry.node, rules) && !child.is_some_and(|child| child.rule().is_needed()) {
            continue;
        }
        let key = quoted(key);
        let from = Some(if is_block(&entry.node) { entry.key } else { place(&entry.node, entry.key) });
        let line = |text: String| Line { depth, dashes: 0, text, from };
        if is_block(&entry.node) {
            lines.push(line(format!("{key}:")));
            below(&entry.node, child, depth + 1, lines);
        } else {
            lines.push(line(format!("{key}: {}", scalar(&entry.node.value))));
        }
    }
}

/// A mapping or list that has something in it.
fn below(node: &Node, rules: Option<&Rules>, depth: usize, lines: &mut Vec<Line>) {
    let Some(items) = node.as_seq() else { return map(node, rules, depth, lines) };
    for item in items {
        let start = lines.len();
        if is_block(item) {
            below(item, rules.map(Rules::item), depth + 1, lines);
        } else {
            let text = scalar(&item.value);
            lines.push(Line { depth: depth + 1, dashes: 0, text, from: Some(item.span) });
        }
        if let Some(first) = lines.get_mut(start) {
            first.dashes += 1;
        }
    }
}

/// Where a value is, or its key where it has no text of its own.
fn place(node: &Node, key: Span) -> Span {
    if node.is_null() { key } else { node.span }
}

fn is_block(node: &Node) -> bool {
    match &node.value {
        Value::Map(map) => !map.is_empty(),
        Value::Seq(items) => !items.is_empty(),
        _ => false,
    }
}

/// Nothing said where nothing means nothing.
fn says_nothing(node: &Node, parent: Option<&Rules>) -> bool {
    node.is_null() && parent.is_some_and(|parent| parent.rule().shape != Shape::Open)
}

/// A value on one line. `$` is doubled, so that it is none of a variable when it is loaded again.
fn scalar(value: &Value) -> String {
    let text = match value {
        Value::Unknown | Value::Null => return "null".to_owned(),
        Value::Map(_) => return "{}".to_owned(),
        Value::Seq(_) => return "[]".to_owned(),
        Value::Str(text) | Value::Date(text) | Value::Variable(text) => text.replace('$', "$$"),
        other => return other.scalar_text().unwrap_or_default(),
    };
    quoted(&text)
}

/// A text as YAML has it on one line; names of mappings hold no variables, so nothing is doubled in them.
fn quoted(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// Returns whether a text is itself without quotes: nothing in it means anything to YAML, and it is no number or the like.
fn is_plain(text: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/_.-+=@".contains(c);
    let start = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_' | '.'));
    let word = matches!(text.to_ascii_lowercase().as_str(), "y" | "n" | "yes" | "no" | "on" | "off");
    start && !word && text.chars().all(safe) && matches!(super::scalar::resolve(text), Value::Str(_))
}
