//! YAML text to nodes with places: anchors, `<<`, tags, duplicate keys and limits are dealt with here.
//!
//! Built on saphyr's events with a stack of its own, so that no input can overflow the call stack. All phases after
//! this one may recurse, because nesting is at most [`MAX_DEPTH`].

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag as YamlTag};

use crate::diag::{Diagnostic, SourceId, SourceMap, Span};

use super::indents::Mended;
use super::node::{Entry, Map, Node, Tag, Value};
use super::{scalar, slips};

/// Deepest nesting. The specification's own elements nest about ten deep; the rest is room for `x-` keys.
const MAX_DEPTH: usize = 100;
/// Text that is read again, over and over, for tabs behind colons and dashes, and for lines too far left within brackets
/// and quotes, which the parser does not take.
const MENDED_BYTES: usize = 4 << 20;
/// Nodes that aliases may add to one file; the limit of compose-go since 2026. Text counts, 100 bytes for a node.
const MAX_ALIAS_NODES: usize = 100_000;
/// Nodes that one file may have without its aliases: bounds the work of all later phases. A thousand services with
/// everything that people write have about 50,000.
const MAX_NODES: usize = 250_000;

/// Returns the documents of a file.
///
/// # Errors
/// What is wrong with the YAML itself. After an error of syntax nothing is known about the rest of the file, so that
/// it is the last; duplicate keys and the like are all reported.
pub(super) fn parse(source: SourceId, sources: &SourceMap) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let text = sources.text(source);
    let mut mended = Mended::new(text);
    let mut left = MENDED_BYTES / text.len().max(1);
    loop {
        let (seen, offsets) = mended.text();
        let mut reader = Reader::new(source, text, offsets);
        let slip = reader.read(&seen).filter(|_| left > 0);
        left = left.saturating_sub(1);
        let again = match slip {
            Some(Slip::Tab(at)) => {
                mended.tab(at);
                true
            }
            Some(Slip::Flow(at)) => mended.flow(at),
            Some(Slip::Quoted(at)) => mended.quoted(at),
            None => false,
        };
        if !again {
            return if reader.problems.is_empty() { Ok(reader.documents) } else { Err(reader.problems) };
        }
    }
}

/// What YAML, or Docker Compose, takes where the parser does not, as a byte offset.
enum Slip {
    /// A tab in the place of a space.
    Tab(usize),
    /// Too far left within brackets or braces.
    Flow(usize),
    /// Text in quotes of which a further line is too far left.
    Quoted(usize),
}

type Step = Result<(), Box<Diagnostic>>;

/// A collection that is not closed yet.
struct Open {
    span: Span,
    tag: Option<Tag>,
    anchor: usize,
    weight: usize,
    kind: OpenKind,
}

enum OpenKind {
    Seq(Vec<Node>),
    Map(Builder),
}

/// A mapping being read: its explicit entries, what `<<` brings, and the key that waits for its value.
#[derive(Default)]
struct Builder {
    entries: Map,
    merges: Vec<Node>,
    merge_key: Option<Span>,
    key: Option<(Span, Key)>,
}

enum Key {
    Text(String),
    Merge,
}

struct Reader<'a> {
    source: SourceId,
    text: &'a str,
    /// Byte offset of every character that the parser sees; empty where both are the same.
    offsets: Vec<u32>,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    aliased: usize,
    anchored: usize,
    nodes: usize,
    documents: Vec<Node>,
    problems: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    fn new(source: SourceId, text: &'a str, offsets: Vec<u32>) -> Self {
        Self {
            source,
            text,
            offsets,
            stack: Vec::new(),
            anchors: BTreeMap::new(),
            aliased: 0,
            anchored: 0,
            nodes: 0,
            documents: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Reads all of `text`. Returns what stopped the parser, if it can be mended.
    fn read(&mut self, text: &str) -> Option<Slip> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let step = match event {
                Ok((event, span)) => {
                    let span = self.span(span.start.index(), span.end.index());
                    self.event(event, span)
                }
                Err(error) => {
                    let problem = self.syntax(&error);
                    self.problems.push(problem);
                    return self.slip(&error);
                }
            };
            if let Err(problem) = step {
                self.problems.push(*problem);
                break;
            }
        }
        None
    }

    fn slip(&self, error: &ScanError) -> Option<Slip> {
        let at = self.span(error.marker().index(), error.marker().index()).start as usize;
        match error.info() {
            // Of blocks the parser says other things.
            "invalid indentation" | "invalid indentation in flow construct" => Some(Slip::Flow(at)),
            "invalid indentation in quoted scalar" => Some(Slip::Quoted(at)),
            info if info.contains("must be followed by a valid YAML whitespace") => {
                let is_tab = |at: &usize| self.text.as_bytes().get(*at) == Some(&b'\t');
                [at, at.saturating_sub(1)].into_iter().find(is_tab).map(Slip::Tab)
            }
            _ => None,
        }
    }

    /// Makes a span of character indices one of bytes.
    fn span(&self, start: usize, end: usize) -> Span {
        let length = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        let byte = |index: usize| {
            let offset = if self.offsets.is_empty() {
                u32::try_from(index).unwrap_or(u32::MAX)
            } else {
                self.offsets.get(index).copied().unwrap_or(length)
            };
            offset.min(length)
        };
        let (start, end) = (byte(start), byte(end));
        Span { source: self.source, start, end: end.max(start) }
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let at = error.marker().index();
        if error.info().contains("recursion limit") {
            return Diagnostic::error(format!("nested more than {MAX_DEPTH} deep")).at(self.span(at, at + 1), "");
        }
        let span = self.span(at, at + 1);
        let problem = Diagnostic::error(format!("this is not valid YAML: {}", error.info()));
        let Some(help) = slips::help(self.text, span.start as usize, error.info()) else { return problem.at(span, "") };
        // The slip is what is to be mended; where the parser saw it helps where that guess is wrong.
        let byte = |at: usize| u32::try_from(at).ok();
        let slip = help.slip.and_then(|slip| Some(Span { start: byte(slip.start)?, end: byte(slip.end)?, ..span }));
        let is_elsewhere = |slip: Span| {
            let (first, last) = (slip.start.min(span.start), slip.start.max(span.start));
            self.text.get(first as usize..last as usize).is_some_and(|between| between.contains('\n'))
        };
        let problem = match slip {
            Some(slip) if is_elsewhere(slip) => problem.at(slip, "").also(span, "seen here"),
            Some(slip) => problem.at(slip, ""),
            None => problem.at(span, ""),
        };
        problem.help(help.words)
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Step {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("this file is too large: more than {MAX_NODES} values");
            return Err(Box::new(Diagnostic::error(message).at(span, "reached here")));
        }
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Alias(id) => self.alias(id, span),
            Event::Scalar(text, style, anchor, tag) => {
                let is_key =
                    matches!(self.stack.last(), Some(Open { kind: OpenKind::Map(map), .. }) if map.key.is_none());
                if is_key {
                    return self.key(&text, style, anchor, tag.as_deref(), span);
                }
                let (value, tag) = Self::scalar(&text, style, tag.as_deref(), span)?;
                let weight = 1 + text.len() / 100;
                self.finish(Node { tag, ..Node::new(span, value) }, anchor, weight)
            }
            Event::SequenceStart(anchor, tag) => self.open(span, anchor, tag.as_deref(), OpenKind::Seq(Vec::new())),
            Event::MappingStart(anchor, tag) => {
                self.open(span, anchor, tag.as_deref(), OpenKind::Map(Builder::default()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
        }
    }

    fn open(&mut self, span: Span, anchor: usize, tag: Option<&YamlTag>, kind: OpenKind) -> Step {
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} deep");
            return Err(Box::new(Diagnostic::error(message).at(span, "")));
        }
        if let Some(Open { kind: OpenKind::Map(Builder { key: None, .. }), .. }) = self.stack.last() {
            let problem = Diagnostic::error("a key must be text").at(span, "");
            // `{{ name }}` of a template.
            let is_braces = self.text.get(..span.start as usize).is_some_and(|before| before.ends_with('{'));
            return Err(Box::new(if is_braces {
                problem.help("a text that starts with `{{` needs quotes")
            } else {
                problem
            }));
        }
        let tag = directive(tag, span, &["map", "seq"])?;
        self.stack.push(Open { span, tag, anchor, weight: 1, kind });
        Ok(())
    }

    fn close(&mut self, end: Span) -> Step {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.kind {
            OpenKind::Seq(items) => Value::Seq(items),
            OpenKind::Map(builder) => Value::map(builder.finish()),
        };
        let span = Span { end: self.trimmed_end(open.span.start, end), ..open.span };
        self.finish(Node { tag: open.tag, ..Node::new(span, value) }, open.anchor, open.weight)
    }

    /// Block collections end where the next line starts: the span ends after the last text before.
    fn trimmed_end(&self, start: u32, end: Span) -> u32 {
        let text = self.text.get(start as usize..end.end as usize).unwrap_or("");
        start + u32::try_from(text.trim_end().len()).unwrap_or(0)
    }

    /// Puts a finished value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, weight: usize) -> Step {
        if anchor > 0 {
            self.anchor(anchor, node.clone(), weight)?;
        }
        let Some(open) = self.stack.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        open.weight += weight;
        match &mut open.kind {
            OpenKind::Seq(items) => items.push(node),
            OpenKind::Map(builder) => match builder.key.take() {
                Some((span, Key::Text(key))) => {
                    builder.entries.insert(key, Entry::new(span, node));
                }
                Some((_, Key::Merge)) => return builder.merge(node),
                None => return Err(Box::new(Diagnostic::error("a key must be text").at(node.span, ""))),
            },
        }
        Ok(())
    }

    fn key(&mut self, text: &str, style: ScalarStyle, anchor: usize, tag: Option<&YamlTag>, span: Span) -> Step {
        let (value, _) = Self::scalar(text, style, tag, span)?;
        let merge = text == "<<" && style == ScalarStyle::Plain;
        let Some(Open { kind: OpenKind::Map(builder), .. }) = self.stack.last_mut() else { return Ok(()) };
        let key = match value {
            _ if merge => Key::Merge,
            Value::Str(key) => Key::Text(key),
            other => {
                let problem = Diagnostic::error(format!("a key must be text, `{text}` is {}", other.kind()));
                self.problems.push(problem.at(span, "").help("put it in quotes"));
                Key::Text(text.to_owned())
            }
        };
        let before = match &key {
            Key::Text(key) => builder.entries.get(key).map(|entry| entry.key),
            Key::Merge => builder.merge_key.replace(span),
        };
        builder.key = Some((span, key));
        if let Some(before) = before {
            let problem = Diagnostic::error(format!("`{text}` is given twice"));
            self.problems.push(problem.at(span, "again here").also(before, "first here"));
        }
        if anchor > 0 { self.anchor(anchor, Node::text(span, text), 1) } else { Ok(()) }
    }

    /// Keeps a copy of what an alias may stand for; anchors inside anchors make copies of copies, which has a limit too.
    fn anchor(&mut self, anchor: usize, node: Node, weight: usize) -> Step {
        self.anchored += weight;
        if self.anchored > MAX_NODES {
            let message = format!("anchors make this file too large: more than {MAX_NODES} values");
            return Err(Box::new(Diagnostic::error(message).at(node.span, "reached here")));
        }
        self.anchors.insert(anchor, (node, weight));
        Ok(())
    }

    fn alias(&mut self, id: usize, span: Span) -> Step {
        let Some((node, weight)) = self.anchors.get(&id) else {
            let problem = Diagnostic::error("this alias stands for something that contains the alias itself");
            return Err(Box::new(problem.at(span, "")));
        };
        self.aliased += weight;
        if self.aliased > MAX_ALIAS_NODES {
            let message = format!("aliases make this file too large: more than {MAX_ALIAS_NODES} values");
            return Err(Box::new(Diagnostic::error(message).at(span, "reached here")));
        }
        let (node, weight) = (node.clone(), *weight);
        if self.stack.len() + depth(&node) > MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} deep");
            return Err(Box::new(Diagnostic::error(message).at(span, "by this alias")));
        }
        if let Some(Open { kind: OpenKind::Map(Builder { key: None, .. }), .. }) = self.stack.last() {
            return match node.value {
                Value::Str(text) => self.key(&text, ScalarStyle::DoubleQuoted, 0, None, span),
                _ => Err(Box::new(Diagnostic::error("a key must be text").at(span, ""))),
            };
        }
        self.finish(node, 0, weight)
    }

    /// Resolves a scalar by its style and tag.
    fn scalar(
        text: &str,
        style: ScalarStyle,
        tag: Option<&YamlTag>,
        span: Span,
    ) -> Result<(Value, Option<Tag>), Box<Diagnostic>> {
        // The parser takes it for text within braces and brackets, where no block can be.
        if let Some(mark) = text.chars().next().filter(|mark| style == ScalarStyle::Plain && "|>".contains(*mark)) {
            let problem = Diagnostic::error(format!("text without quotes cannot begin with `{mark}`")).at(span, "");
            return Err(Box::new(
                problem.help("put it in quotes: there is no text of several lines within braces and brackets"),
            ));
        }
        let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
        let value = match core {
            Some("str") => Value::Str(text.to_owned()),
            Some("int" | "float" | "bool" | "null") => scalar::resolve(text),
            // What has a tag of somebody's own is text to Docker Compose, whatever it looks like.
            _ if style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.is_yaml_core_schema() || is_own(tag)) => {
                scalar::resolve(text)
            }
            _ => Value::Str(text.to_owned()),
        };
        Ok((value, directive(tag, span, &["str", "int", "float", "bool", "null", "timestamp", "merge"])?))
    }
}

/// Whether a tag is one of Compose's own.
fn is_own(tag: &YamlTag) -> bool {
    tag.handle == "!" && matches!(tag.suffix.as_str(), "reset" | "override")
}

/// Compose's own tags; `core` are those of YAML that fit the kind of value.
fn directive(tag: Option<&YamlTag>, span: Span, core: &[&str]) -> Result<Option<Tag>, Box<Diagnostic>> {
    let Some(tag) = tag else { return Ok(None) };
    match (tag.handle.as_str(), tag.suffix.as_str()) {
        ("!", "reset") => Ok(Some(Tag::Reset)),
        ("!", "override") => Ok(Some(Tag::Override)),
        _ if tag.is_yaml_core_schema() && !core.contains(&tag.suffix.as_str()) => {
            let problem = Diagnostic::error(format!("the tag `!!{}` does not fit here", tag.suffix));
            Err(Box::new(problem.at(span, "")))
        }
        // Docker Compose ignores all other tags.
        _ => Ok(None),
    }
}

impl Builder {
    /// Takes what `<<` refers to: a mapping, or a list of mappings.
    fn merge(&mut self, node: Node) -> Step {
        match node.value {
            Value::Map(_) => self.merges.push(node),
            Value::Seq(items) if items.iter().all(|item| item.as_map().is_some()) => self.merges.extend(items),
            other => {
                let message = format!("`<<` takes a mapping or a list of mappings, not {}", other.kind());
                return Err(Box::new(Diagnostic::error(message).at(node.span, "").spec("10-fragments.md")));
            }
        }
        Ok(())
    }

    /// What the mapping itself says comes first, then what earlier merged mappings say.
    fn finish(mut self) -> Map {
        for merged in self.merges {
            if let Value::Map(map) = merged.value {
                for (key, entry) in *map {
                    self.entries.entry(key).or_insert(entry);
                }
            }
        }
        self.entries
    }
}

/// How deep a value nests; its own depth is bounded, so that this recursion is too.
fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Seq(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(map) => 1 + map.values().map(|entry| depth(&entry.node)).max().unwrap_or(0),
        _ => 0,
    }
}
