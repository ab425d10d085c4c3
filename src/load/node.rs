//! A YAML value with its place: what all phases work on until the last makes the typed model.

use indexmap::IndexMap;

use crate::diag::Span;

/// Compose's own tags, which steer the merge of several files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// `!reset`: what earlier files say here is deleted; the value does not matter.
    Reset,
    /// `!override`: what earlier files say here is replaced, not merged.
    Override,
}

/// A value and where it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Where; of collections the whole, of short forms made long the short form.
    pub(super) span: Span,
    /// A tag that steers merging.
    pub(super) tag: Option<Tag>,
    /// What.
    pub(super) value: Value,
    /// Of orch's own keys: the value as the file has it, where it was made long or was text for a number.
    pub(super) short: Option<Box<Value>>,
}

/// A mapping in the order of the file. Its hashes are seeded at random, and quicker than those of the standard library.
pub(super) type Map = IndexMap<String, Entry, foldhash::fast::RandomState>;

/// A value of a mapping, with the place of its key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Where the key is.
    pub(super) key: Span,
    /// The value.
    pub(super) node: Node,
    /// What is printed instead: `x-` keys are printed as they are written, whatever they mean.
    pub(super) written: Option<Box<Value>>,
}

/// A YAML value, resolved by the rules of go-yaml (see `scalar`).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Could not be known, which is reported: phases leave it alone, so that it causes no second message.
    Unknown,
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Another number.
    Float(f64),
    /// A bare date, which no place of a compose file takes.
    Date(String),
    /// Text.
    Str(String),
    /// Text whose variables stay (`config --no-interpolate`) where something else than text belongs, or a short form that
    /// cannot be taken apart without them. Printed, and else left alone as [`Value::Unknown`] is.
    Variable(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping; boxed, as most values are none, and a file's tree is as large as the largest kind.
    Map(Box<Map>),
}

impl Value {
    /// Returns a mapping.
    pub(super) fn map(map: Map) -> Self {
        Self::Map(Box::new(map))
    }
}

impl Node {
    /// Returns a value at a place, without a tag.
    pub(super) fn new(span: Span, value: Value) -> Self {
        Self { span, tag: None, value, short: None }
    }

    /// Returns text at a place.
    pub(super) fn text(span: Span, text: impl Into<String>) -> Self {
        Self::new(span, Value::Str(text.into()))
    }

    /// Returns a mapping whose keys all have the place of the whole: for short forms made long.
    pub(super) fn map<K: Into<String>>(span: Span, entries: impl IntoIterator<Item = (K, Value)>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key.into(), Entry::new(span, Self::new(span, value))));
        Self::new(span, Value::map(entries.collect()))
    }

    /// Returns the same place and tag with another value.
    #[must_use]
    pub(super) fn with(&self, value: Value) -> Self {
        Self { span: self.span, tag: self.tag, value, short: None }
    }

    /// Returns the value as the file has it, as far as it is not merged of several, without what it says is not there.
    pub(super) fn as_written(&self) -> Value {
        if let Some(short) = &self.short {
            return (**short).clone();
        }
        let is_there = |node: &Self| node.tag != Some(Tag::Reset);
        let again = |node: &Self| Self::new(node.span, node.as_written());
        match &self.value {
            Value::Seq(items) => Value::Seq(items.iter().filter(|item| is_there(item)).map(again).collect()),
            Value::Map(map) => {
                let entries = map.iter().filter(|(_, entry)| is_there(&entry.node));
                let again = |(key, entry): (&String, &Entry)| (key.clone(), Entry::new(entry.key, again(&entry.node)));
                Value::map(entries.map(again).collect())
            }
            other => other.clone(),
        }
    }

    /// Changes every place in it.
    pub(super) fn each_span(&mut self, change: &dyn Fn(&mut Span)) {
        change(&mut self.span);
        match &mut self.value {
            Value::Seq(items) => items.iter_mut().for_each(|item| item.each_span(change)),
            Value::Map(map) => {
                for entry in map.values_mut() {
                    change(&mut entry.key);
                    entry.node.each_span(change);
                }
            }
            _ => {}
        }
    }

    /// Returns the text, if it is text.
    pub(super) fn as_str(&self) -> Option<&str> {
        if let Value::Str(text) = &self.value { Some(text) } else { None }
    }

    /// Returns the mapping, if it is one.
    pub(super) fn as_map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value { Some(map) } else { None }
    }

    /// Returns the mapping, if it is one.
    pub(super) fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Value::Map(map) = &mut self.value { Some(map) } else { None }
    }

    /// Returns the list, if it is one.
    pub(super) fn as_seq(&self) -> Option<&[Self]> {
        if let Value::Seq(items) = &self.value { Some(items) } else { None }
    }

    /// Returns the list, if it is one.
    pub(super) fn as_seq_mut(&mut self) -> Option<&mut Vec<Self>> {
        if let Value::Seq(items) = &mut self.value { Some(items) } else { None }
    }

    /// Returns whether it is not known; see [`Value::Unknown`] and [`Value::Variable`].
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.value, Value::Unknown | Value::Variable(_))
    }

    /// Returns whether there is nothing.
    pub(super) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// Returns the value of a key, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map().and_then(|map| map.get(key)).map(|entry| &entry.node)
    }

    /// Returns whether this is a mapping that has a key, and not only to say that it is not there.
    pub(super) fn says(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value.tag != Some(Tag::Reset))
    }

    /// Returns the value of a key, if this is a mapping that has it.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.as_map_mut().and_then(|map| map.get_mut(key)).map(|entry| &mut entry.node)
    }

    /// Returns the text of a key, if this is a mapping that has text there.
    pub(super) fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::as_str)
    }

    /// Sets a key of a mapping: where a file has it, it stays there; else it has a place without text. Nothing happens to
    /// other values.
    pub(super) fn set(&mut self, key: &str, value: Value) {
        let span = Span { end: self.span.start, ..self.span };
        let Some(map) = self.as_map_mut() else { return };
        match map.get_mut(key) {
            Some(entry) => entry.node = Self::new(entry.node.span, value),
            None => drop(map.insert(key.to_owned(), Entry::new(span, Self::new(span, value)))),
        }
    }

    /// Returns entries of the mapping at `key`; none if there is no mapping.
    pub(super) fn entries(&self, key: &str) -> impl Iterator<Item = (&String, &Entry)> {
        self.get(key).and_then(Self::as_map).into_iter().flatten()
    }

    /// Returns items of the list at `key`; none if there is no list.
    pub(super) fn items(&self, key: &str) -> &[Self] {
        self.get(key).and_then(Self::as_seq).unwrap_or_default()
    }
}

impl Entry {
    /// Returns an entry whose key is at `key`.
    pub(super) fn new(key: Span, node: Node) -> Self {
        Self { key, node, written: None }
    }
}

impl Value {
    /// Returns what it is, as a message says it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Unknown | Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a number",
            Self::Float(_) => "a decimal number",
            Self::Date(_) => "a date",
            Self::Str(_) | Self::Variable(_) => "text",
            Self::Seq(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// Returns a scalar as Docker Compose prints it where text is wanted (`1.50` → `1.5`); `None` for collections.
    pub(super) fn scalar_text(&self) -> Option<String> {
        Some(match self {
            Self::Unknown | Self::Null => String::new(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => super::scalar::go_float(*value),
            Self::Date(text) | Self::Str(text) | Self::Variable(text) => text.clone(),
            Self::Seq(_) | Self::Map(_) => return None,
        })
    }
}
