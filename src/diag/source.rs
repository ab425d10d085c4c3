//! The texts that diagnostics point into.

use std::sync::Arc;

/// A file of a [`SourceMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(u32);

/// A range of bytes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The file.
    pub source: SourceId,
    /// First byte.
    pub start: u32,
    /// Byte after the last; equal to `start` for a place without text, such as an empty value.
    pub end: u32,
}

impl Span {
    /// Returns the part of this span from byte `start` to byte `end` of it, kept within it.
    #[must_use]
    pub fn part(self, start: usize, end: usize) -> Self {
        let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX).saturating_add(self.start).min(self.end);
        Self { source: self.source, start: at(start), end: at(end) }
    }
}

/// Where a span starts, as a person counts: from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Name of the file, as given by the user where possible.
    pub file: String,
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: Arc<str>,
    /// Byte offset of each line's start.
    lines: Vec<u32>,
}

/// Files by id.
#[derive(Debug, Clone, Default)]
pub struct SourceMap {
    sources: Vec<Source>,
}

impl SourceMap {
    /// Adds a file and returns its id. Text past 4 GiB cannot be pointed at; `load` refuses such files long before.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<Arc<str>>) -> SourceId {
        let text = text.into();
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).filter_map(|at| u32::try_from(at).ok()).collect();
        self.sources.push(Source { name: name.into(), text, lines });
        SourceId(u32::try_from(self.sources.len() - 1).unwrap_or(u32::MAX))
    }

    /// Returns the name that the file was added under.
    pub fn name(&self, id: SourceId) -> &str {
        self.get(id).map_or("", |source| &source.name)
    }

    /// Returns the text of a file.
    pub fn text(&self, id: SourceId) -> &str {
        self.get(id).map_or("", |source| &source.text)
    }

    /// Returns the text that a span covers.
    pub fn slice(&self, span: Span) -> &str {
        self.text(span.source).get(span.start as usize..span.end as usize).unwrap_or("")
    }

    /// Returns where a span starts.
    pub fn locate(&self, span: Span) -> Location {
        let (line, column) = self.position(span.source, span.start);
        Location { file: self.name(span.source).to_owned(), line, column }
    }

    /// Returns line and column, from 1, of a byte of a file.
    pub(super) fn position(&self, id: SourceId, offset: u32) -> (usize, usize) {
        let Some(source) = self.get(id) else { return (1, 1) };
        let line = source.lines.partition_point(|start| *start <= offset).max(1);
        let start = source.lines[line - 1] as usize;
        let before = source.text.get(start..offset as usize).unwrap_or("");
        (line, before.chars().count() + 1)
    }

    /// Returns the byte range of a line (from 1) without its end of line.
    pub(super) fn line(&self, id: SourceId, line: usize) -> (usize, &str) {
        let Some(source) = self.get(id) else { return (0, "") };
        let start = source.lines.get(line - 1).map_or(source.text.len(), |start| *start as usize);
        let end = source.lines.get(line).map_or(source.text.len(), |next| *next as usize);
        (start, source.text.get(start..end).unwrap_or("").trim_end_matches(['\n', '\r']))
    }

    fn get(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(id.0 as usize)
    }
}
