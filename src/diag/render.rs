//! The two printed forms of a diagnostic: text with the line and carets, and JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;
use unicode_width::UnicodeWidthChar;

use super::source::{SourceId, SourceMap, Span};
use super::{Diagnostic, Label};

/// Columns of a source line that are shown; longer lines are cut round the carets.
const WINDOW: usize = 120;
/// Columns that a tab takes.
const TAB: usize = 4;

/// Returns the text form, ending in a newline.
pub(super) fn text(problem: &Diagnostic, sources: &SourceMap) -> String {
    let mut out = format!("{}: {}\n", problem.severity, problem.message);
    let blocks = blocks(problem, sources);
    let last = blocks.iter().flat_map(|block| block.lines.keys()).max().copied().unwrap_or(1);
    let gutter = last.to_string().len();
    for (index, block) in blocks.iter().enumerate() {
        let arrow = if index == 0 { "-->" } else { ":::" };
        _ = writeln!(out, "{:gutter$}{arrow} {}", "", block.place);
        let mut previous = None;
        for (line, marks) in &block.lines {
            if previous.is_some_and(|before| before + 1 < *line) {
                _ = writeln!(out, "{:gutter$}...", "");
            }
            previous = Some(*line);
            snippet(&mut out, gutter, *line, marks, block.source, sources);
        }
    }
    let notes = [("help", problem.help.as_deref().map(str::to_owned)), ("spec", spec(problem))];
    for (kind, note) in notes.into_iter().filter_map(|(kind, note)| Some((kind, note?))) {
        let note = note.replace('\n', &format!("\n{:gutter$}           ", ""));
        _ = writeln!(out, "{:gutter$} = {kind}: {note}", "");
    }
    out
}

fn spec(problem: &Diagnostic) -> Option<String> {
    let section = problem.spec.as_ref()?;
    // Orch's own keys are described in its own pages.
    Some(if section.starts_with("docs/") { section.to_string() } else { format!("compose-spec {section}") })
}

/// The labels that lie in one file.
struct Block<'a> {
    source: SourceId,
    place: String,
    lines: BTreeMap<usize, Vec<Mark<'a>>>,
}

#[derive(Clone, Copy)]
struct Mark<'a> {
    label: &'a Label,
    caret: char,
}

/// Groups the labels by file, the primary label's file first.
fn blocks<'a>(problem: &'a Diagnostic, sources: &SourceMap) -> Vec<Block<'a>> {
    let marks = problem
        .primary
        .iter()
        .map(|label| Mark { label, caret: '^' })
        .chain(problem.secondary.iter().map(|label| Mark { label, caret: '-' }));
    let mut blocks: Vec<Block<'a>> = Vec::new();
    for mark in marks {
        let span = mark.label.span;
        let index = blocks.iter().position(|block| block.source == span.source).unwrap_or_else(|| {
            let place = sources.locate(span).to_string();
            blocks.push(Block { source: span.source, place, lines: BTreeMap::new() });
            blocks.len() - 1
        });
        let line = sources.position(span.source, span.start).0;
        blocks[index].lines.entry(line).or_default().push(mark);
    }
    blocks
}

/// Writes a source line and the carets of each mark beneath it.
fn snippet(out: &mut String, gutter: usize, line: usize, marks: &[Mark<'_>], id: SourceId, sources: &SourceMap) {
    let (start, text) = sources.line(id, line);
    let cells = Cells::new(text);
    let first = marks.first().map_or(0, |mark| cells.columns(start, mark.label.span).0);
    let from = if cells.width() <= WINDOW { 0 } else { first.saturating_sub(WINDOW / 3) };
    let (shown, shift) = cells.window(from);
    _ = writeln!(out, "{}", format!("{line:gutter$} | {shown}").trim_end());
    for mark in marks {
        let (begin, end) = cells.columns(start, mark.label.span);
        let begin = (begin + shift).saturating_sub(from);
        let length = (end + shift).saturating_sub(from).min(WINDOW + shift).saturating_sub(begin).max(1);
        let carets = mark.caret.to_string().repeat(length);
        let row = format!("{:gutter$} | {:begin$}{carets} {}", "", "", mark.label.text);
        _ = writeln!(out, "{}", row.trim_end());
    }
}

/// A line as it is shown: tabs widened, control characters replaced; each with its byte offset and column.
struct Cells {
    cells: Vec<(usize, usize, String)>,
    end: (usize, usize),
}

impl Cells {
    fn new(text: &str) -> Self {
        let (mut cells, mut column) = (Vec::new(), 0);
        for (offset, c) in text.char_indices() {
            let shown = match c {
                '\t' => " ".repeat(TAB - column % TAB),
                c if c.is_control() => "\u{fffd}".to_owned(),
                c => c.to_string(),
            };
            let width = if c == '\t' { shown.len() } else { c.width().unwrap_or(1) };
            cells.push((offset, column, shown));
            column += width;
        }
        Self { cells, end: (text.len(), column) }
    }

    fn width(&self) -> usize {
        self.end.1
    }

    /// The columns that a span takes on the line that starts at byte `start`.
    fn columns(&self, start: usize, span: Span) -> (usize, usize) {
        let column = |offset: u32| {
            let offset = (offset as usize).saturating_sub(start);
            let at = self.cells.partition_point(|(at, _, _)| *at < offset);
            self.cells.get(at).map_or(self.end.1, |(_, column, _)| *column)
        };
        (column(span.start), column(span.end))
    }

    /// At most [`WINDOW`] columns from column `from`, and by how many columns the text was moved right.
    fn window(&self, from: usize) -> (String, usize) {
        let visible = |column: usize| column >= from && column < from + WINDOW;
        let text: String =
            self.cells.iter().filter(|(_, column, _)| visible(*column)).map(|(_, _, shown)| shown.as_str()).collect();
        let tail = if self.width() > from + WINDOW { "..." } else { "" };
        if from == 0 { (text + tail, 0) } else { (format!("...{text}{tail}"), 3) }
    }
}

/// Returns the JSON form: the place flat, other places under `related`.
pub(super) fn json(problem: &Diagnostic, sources: &SourceMap) -> serde_json::Value {
    let mut value = json!({"severity": problem.severity, "message": problem.message});
    if let (Some(object), Some(label)) = (value.as_object_mut(), &problem.primary)
        && let serde_json::Value::Object(place) = place(label, sources)
    {
        object.extend(place);
    }
    if !problem.secondary.is_empty() {
        value["related"] = problem.secondary.iter().map(|label| place(label, sources)).collect();
    }
    if let Some(help) = &problem.help {
        value["help"] = json!(help);
    }
    if let Some(section) = spec(problem) {
        value["spec"] = json!(section);
    }
    value
}

fn place(label: &Label, sources: &SourceMap) -> serde_json::Value {
    let start = sources.locate(label.span);
    let (end_line, end_column) = sources.position(label.span.source, label.span.end);
    json!({
        "file": start.file, "line": start.line, "column": start.column,
        "end_line": end_line, "end_column": end_column, "label": label.text,
    })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn span(sources: &SourceMap, source: SourceId, needle: &str) -> Span {
        let start = u32::try_from(sources.text(source).find(needle).expect("needle")).expect("small");
        Span { source, start, end: start + u32::try_from(needle.len()).expect("small") }
    }

    #[test]
    fn text_points_into_several_files() {
        let mut sources = SourceMap::default();
        let a = sources.add("compose.yaml", "services:\n  web:\n    links:\n      - db:database\n");
        let b = sources.add("base.yaml", "services:\n  db1: {}\n");
        let problem = Diagnostic::error("service `web` links to `db`, which no file defines")
            .at(span(&sources, a, "db"), "not a service of this project")
            .also(span(&sources, a, "web"), "linked from here")
            .also(span(&sources, b, "db1"), "a similar name")
            .help("did you mean `db1`?")
            .spec("05-services.md#links");
        assert_snapshot!(text(&problem, &sources), @r"
        error: service `web` links to `db`, which no file defines
         --> compose.yaml:4:9
        2 |   web:
          |   --- linked from here
         ...
        4 |       - db:database
          |         ^^ not a service of this project
         ::: base.yaml:2:3
        2 |   db1: {}
          |   --- a similar name
          = help: did you mean `db1`?
          = spec: compose-spec 05-services.md#links
        ");
        assert_snapshot!(json(&problem, &sources), @r#"{"severity":"error","message":"service `web` links to `db`, which no file defines","file":"compose.yaml","line":4,"column":9,"end_line":4,"end_column":11,"label":"not a service of this project","related":[{"file":"compose.yaml","line":2,"column":3,"end_line":2,"end_column":6,"label":"linked from here"},{"file":"base.yaml","line":2,"column":3,"end_line":2,"end_column":6,"label":"a similar name"}],"help":"did you mean `db1`?","spec":"compose-spec 05-services.md#links"}"#);
    }

    #[test]
    fn carets_stand_under_wide_characters_and_tabs() {
        let mut sources = SourceMap::default();
        let a = sources.add("a.yaml", "x:\t日本 bad\r\n");
        let problem = Diagnostic::warning("wide").at(span(&sources, a, "bad"), "here");
        assert_snapshot!(text(&problem, &sources), @r"
        warning: wide
         --> a.yaml:1:7
        1 | x:  日本 bad
          |          ^^^ here
        ");
    }

    #[test]
    fn long_lines_are_cut_round_the_place() {
        let mut sources = SourceMap::default();
        let a = sources.add("a.yaml", format!("{}bad{}", "-".repeat(500), "-".repeat(500)));
        let problem = Diagnostic::error("long").at(span(&sources, a, "bad"), "here");
        let shown = text(&problem, &sources);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[2].find("bad"), lines[3].find("^^^"), "{shown}");
        assert!(lines[2].len() < 140, "{shown}");
    }

    #[test]
    fn a_place_past_the_end_of_the_text_is_shown_at_its_end() {
        let mut sources = SourceMap::default();
        let source = sources.add("a.yaml", "a: 1");
        let problem = Diagnostic::error("end").at(Span { source, start: 90, end: 99 }, "");
        assert_snapshot!(text(&problem, &sources), @r"
        error: end
         --> a.yaml:1:1
        1 | a: 1
          |     ^
        ");
    }
}
