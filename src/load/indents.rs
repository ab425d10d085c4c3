//! Lines further left than the parser wants, within brackets, braces and quotes: Docker Compose takes them in any column.
//!
//! The parser gets the text with those lines indented; [`Mended::text`] tells the way from that text back to the file.

use std::collections::BTreeMap;

/// Widest indentation that is put before a line.
const MAX_WIDTH: usize = 1000;

/// A file's text as the parser gets it.
pub(super) struct Mended<'a> {
    text: &'a str,
    /// Tabs that become spaces, as byte offsets.
    tabs: Vec<usize>,
    /// Spaces put before lines, by the byte offset of the line.
    lines: BTreeMap<usize, usize>,
}

impl<'a> Mended<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, tabs: Vec::new(), lines: BTreeMap::new() }
    }

    /// Makes a tab a space.
    pub(super) fn tab(&mut self, at: usize) {
        self.tabs.push(at);
    }

    /// Indents the line of `at`, a place within brackets or braces, and those after it that certainly are within them
    /// too: they end with a closing bracket or brace. Returns whether there was something to do.
    pub(super) fn flow(&mut self, at: usize) -> bool {
        let line = self.line(at);
        let rest = self.text.get(at..).unwrap_or("");
        let end = rest.find([']', '}']).map_or(self.text.len(), |found| at + found);
        self.indent(line, end)
    }

    /// Indents the further lines of the text in quotes that begins at `at`. Returns whether there was something to do.
    pub(super) fn quoted(&mut self, at: usize) -> bool {
        if !self.text.get(at..).is_some_and(|rest| rest.starts_with(['"', '\''])) {
            return false;
        }
        let end = end_of_quoted(self.text, at).map_or(self.text.len(), |end| end - 1);
        let Some(next) = self.text[at..end].find('\n') else { return false };
        self.indent(at + next + 1, end)
    }

    /// Where the line of `at` begins; a byte order mark is not of the line.
    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or("");
        before.rfind('\n').map_or(if before.starts_with('\u{feff}') { 3 } else { 0 }, |found| found + 1)
    }

    /// Indents the lines that begin in `start..=end` by more than any block before them is indented.
    fn indent(&mut self, start: usize, end: usize) -> bool {
        let before = self.text.get(..start).unwrap_or("");
        let column = |line: &str| line.len() - line.trim_start_matches([' ', '\t', '-', '?', ':']).len();
        let width = 2 + before.lines().map(column).max().unwrap_or(0);
        if width > MAX_WIDTH {
            return false;
        }
        let known = self.lines.len();
        let mut line = start;
        while line <= end {
            let text = self.text.get(line..).unwrap_or("");
            // These end the document, or are for the parser alone, in their column only.
            if text.is_empty() || ["---", "...", "%"].iter().any(|mark| text.starts_with(mark)) {
                break;
            }
            self.lines.entry(line).or_insert(width);
            match text.find('\n') {
                Some(next) => line += next + 1,
                None => break,
            }
        }
        self.lines.len() > known
    }

    /// The text, without a byte order mark, and of each of its characters the byte offset in the file. Without offsets
    /// both are the same.
    pub(super) fn text(&self) -> (std::borrow::Cow<'a, str>, Vec<u32>) {
        let skipped = if self.text.starts_with('\u{feff}') { 3 } else { 0 };
        let seen = &self.text[skipped..];
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        if self.tabs.is_empty() && self.lines.is_empty() {
            let offsets = if self.text.is_ascii() {
                Vec::new()
            } else {
                seen.char_indices().map(|(at, _)| offset(skipped + at)).collect()
            };
            return (seen.into(), offsets);
        }
        let (mut text, mut offsets) = (String::with_capacity(seen.len()), Vec::with_capacity(seen.len()));
        let (mut lines, mut tabs) = (self.lines.iter().peekable(), self.tabs.clone());
        tabs.sort_unstable();
        let mut tabs = tabs.into_iter().peekable();
        for (at, character) in seen.char_indices().map(|(at, character)| (skipped + at, character)) {
            if let Some((_, width)) = lines.next_if(|(line, _)| **line == at) {
                text.extend(std::iter::repeat_n(' ', *width));
                offsets.extend(std::iter::repeat_n(offset(at), *width));
            }
            text.push(if tabs.next_if_eq(&at).is_some() { ' ' } else { character });
            offsets.push(offset(at));
        }
        (text.into(), offsets)
    }
}

/// Returns where the text ends whose quote is at `at`, behind its other quote; `None`: it has none.
pub(super) fn end_of_quoted(text: &str, at: usize) -> Option<usize> {
    let mut rest = text.get(at..)?.char_indices();
    let (_, quote) = rest.next()?;
    while let Some((index, character)) = rest.next() {
        let end = at + index + 1;
        if character == '\\' && quote == '"' {
            rest.next();
        } else if character == quote && quote == '\'' && text[end..].starts_with('\'') {
            // A doubled quote stands for itself.
            rest.next();
        } else if character == quote {
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text after the mending, of which every character must lead to itself, or to the line that it indents.
    fn mended(text: &str, mend: impl FnOnce(&mut Mended<'_>) -> bool) -> Option<String> {
        let mut mended = Mended::new(text);
        if !mend(&mut mended) {
            return None;
        }
        let (seen, offsets) = mended.text();
        assert_eq!(seen.chars().count(), offsets.len());
        for (character, offset) in seen.chars().zip(&offsets) {
            let there = text[*offset as usize..].chars().next();
            assert!(there == Some(character) || character == ' ', "{character:?} leads to {there:?} in {text:?}");
        }
        Some(seen.into_owned())
    }

    #[test]
    fn lines_within_brackets_are_indented_up_to_the_next_that_closes() {
        let text = "a: [\n\"é\",\nb\n]\nc: d\n";
        let seen = mended(text, |mended| mended.flow(text.find('"').expect("it is there")));
        assert_eq!(seen.as_deref(), Some("a: [\n  \"é\",\n  b\n  ]\nc: d\n"));
        let text = "a:\n  - b: [\nc, [d],\ne]\n";
        let seen = mended(text, |mended| mended.flow(text.find("c,").expect("it is there")));
        assert_eq!(seen.as_deref(), Some("a:\n  - b: [\n      c, [d],\ne]\n"));
    }

    #[test]
    fn marks_of_documents_stay_in_their_column() {
        let text = "a: [\nb,\n---\n]\n";
        let seen = mended(text, |mended| mended.flow(text.find('b').expect("it is there")));
        assert_eq!(seen.as_deref(), Some("a: [\n  b,\n---\n]\n"));
        assert_eq!(mended(text, |mended| mended.flow(text.find("---").expect("it is there"))), None);
    }

    #[test]
    fn text_in_quotes_is_indented_to_its_end() {
        for (text, expected) in [
            ("a: \"b\n\\\"\nc\"\nd: e\n", "a: \"b\n  \\\"\n  c\"\nd: e\n"),
            ("a: 'b\n''\nc'\nd: e\n", "a: 'b\n  ''\n  c'\nd: e\n"),
        ] {
            let seen = mended(text, |mended| mended.quoted(3));
            assert_eq!(seen.as_deref(), Some(expected));
        }
        assert_eq!(mended("a: 'b'\nc: d\n", |mended| mended.quoted(3)), None);
    }

    #[test]
    fn the_same_line_is_mended_once_and_no_line_without_end() {
        let text = "a: [\nb]\n";
        let mut once = Mended::new(text);
        assert!(once.flow(5) && !once.flow(5));
        let text = "a: [\nb, \"]\nc\"]\n";
        let mut more = Mended::new(text);
        assert!(more.flow(5) && more.quoted(8) && !more.quoted(8));
        let wide = format!("{}a: [\nb]\n", " ".repeat(MAX_WIDTH));
        assert_eq!(mended(&wide, |mended| mended.flow(wide.len() - 3)), None);
    }
}
