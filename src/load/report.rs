//! The problems found so far, and the text that they point into.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::diag::{Diagnostic, Diagnostics, Severity, SourceId, SourceMap, Span};

use super::node::Node;
use super::slips;

/// Problems that are kept; more tell nobody more.
const MAX_PROBLEMS: usize = 100;

/// Values of patterns whose places are kept: more tell nobody more.
const MAX_VALUES: usize = 10_000;

/// Ports that the files of a project may name, ranges counted out, published and exposed together. Room for the longest
/// range that people are told to write (10,000 to 20,000, media of telephone servers) once published and once exposed.
const MAX_PORTS: usize = 20_480;

/// Bytes of text that a project may make of variables and of files of variables and labels. Each of these is small, but one text
/// may be in many values, and one file be read by many services: a thousand with 30 KB each fit.
const MAX_TEXT: usize = 32 << 20;

/// Collects problems through all phases.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Files read so far.
    pub(super) sources: SourceMap,
    problems: Vec<Diagnostic>,
    left_out: usize,
    errors: usize,
    ports: usize,
    text: usize,
    /// Sources that others name: patterns and further compose files, each with the place that does and its words.
    uses: BTreeMap<SourceId, (Span, &'static str)>,
    /// Values given to patterns, with the places in the patterns that they are put at.
    values: Vec<(Span, Span)>,
    /// What is defined at a wrong place, which is told: its kind (`networks`) and name.
    meant: BTreeSet<(String, String)>,
    /// What is doubtful if nothing else is told of its place.
    doubts: Vec<Diagnostic>,
}

impl Report {
    /// Counts ports of an entry at `span`. Returns whether they may be counted out; the first that may not are reported.
    pub(super) fn takes_ports(&mut self, count: usize, span: Span) -> bool {
        let before = self.ports;
        self.ports = before.saturating_add(count);
        if self.ports <= MAX_PORTS {
            return true;
        }
        if before <= MAX_PORTS {
            let problem =
                Diagnostic::error(format!("more than {MAX_PORTS} ports are published and exposed up to here"));
            let help = "services reach each other at any port without `expose`; with `network_mode: host` no port needs \
                        to be published";
            self.push(problem.at(span, "").help(help).spec("05-services.md#ports"));
        }
        false
    }

    /// Counts text that a variable stands for, or of a file that a service reads, at `span`. Returns whether it may be kept; the
    /// first that may not is reported.
    pub(super) fn takes_text(&mut self, bytes: usize, span: Span) -> bool {
        let before = self.text;
        self.text = before.saturating_add(bytes);
        if before <= MAX_TEXT && self.text > MAX_TEXT {
            let message = format!(
                "variables and their files make this project too large: more than {} MiB of text",
                MAX_TEXT >> 20
            );
            self.push(Diagnostic::error(message).at(span, "reached here").spec("12-interpolation.md"));
        }
        self.text <= MAX_TEXT
    }

    /// Notes that a source is the pattern that is used at `span`: problems in one are told with the other.
    pub(super) fn note_use(&mut self, pattern: SourceId, span: Span) {
        self.note_origin(pattern, span, "used here");
    }

    /// Notes that a source is read because of what stands at `span`, which `words` says of it in a message.
    pub(super) fn note_origin(&mut self, source: SourceId, span: Span, words: &'static str) {
        self.uses.insert(source, (span, words));
    }

    /// Notes where in a pattern a value is put.
    pub(super) fn note_value(&mut self, value: Span, place: Span) {
        if value.source != place.source && self.values.len() < MAX_VALUES {
            self.values.push((value, place));
        }
    }

    /// Returns the other place of a problem that has to do with a pattern: its use, or where it puts the value.
    fn origin(&self, problem: &Diagnostic) -> Option<(Span, &'static str)> {
        let span = problem.primary.as_ref()?.span;
        if let Some(used) = self.uses.get(&span.source) {
            let told = problem.secondary.iter().any(|label| label.span.source != span.source);
            return (!told).then_some(*used);
        }
        let told = problem.secondary.iter().any(|label| self.uses.contains_key(&label.span.source));
        let within = |value: &Span| value.source == span.source && value.start <= span.start && span.end <= value.end;
        let (_, place) = self.values.iter().find(|(value, _)| !told && within(value))?;
        Some((*place, "the pattern puts it here"))
    }

    /// Returns the errors within a span.
    fn within(&self, span: Span) -> impl Iterator<Item = &Diagnostic> {
        let is_within = move |at: Span| at.source == span.source && span.start <= at.start && at.end <= span.end;
        let errors = self.problems.iter().filter(|problem| problem.severity == Severity::Error);
        errors.filter(move |problem| problem.primary.as_ref().is_some_and(|label| is_within(label.span)))
    }

    /// Returns whether there is an error within a span.
    pub(super) fn tells_of(&self, span: Span) -> bool {
        self.within(span).next().is_some()
    }

    /// Returns whether an error within a span says that `key` was meant.
    pub(super) fn means(&self, span: Span, key: &str) -> bool {
        let meant = [format!("did you mean `{key}`?"), format!("a space is missing after `{key}:`")];
        // With something in it that cannot be seen.
        let seen = |at: Span| self.sources.slice(at).chars().filter(char::is_ascii).eq(key.chars());
        self.within(span).any(|problem| {
            problem.help.as_ref().is_some_and(|help| meant.contains(help))
                || problem.primary.as_ref().is_some_and(|label| seen(label.span))
        })
    }

    /// Notes that a network, volume and so on is defined at a wrong place, which is told: nobody need miss it.
    pub(super) fn note_meant(&mut self, kind: &str, name: &str) {
        self.meant.insert((kind.to_owned(), name.to_owned()));
    }

    /// Returns whether something is defined at a wrong place.
    pub(super) fn is_meant(&self, kind: &str, name: &str) -> bool {
        self.meant.contains(&(kind.to_owned(), name.to_owned()))
    }

    /// Adds what is doubtful only if nothing is told of the line where it begins.
    pub(super) fn doubt(&mut self, problem: Diagnostic) {
        if self.doubts.len() < MAX_PROBLEMS {
            self.doubts.push(problem);
        }
    }

    /// Returns whether the same is told already: what an alias stands for is wrong at each place where the alias is.
    fn is_told(&self, problem: &Diagnostic) -> bool {
        let place = |problem: &Diagnostic| problem.primary.as_ref().map(|label| label.span);
        let is_same = |told: &Diagnostic| {
            place(told) == place(problem)
                && told.severity == problem.severity
                && told.help == problem.help
                && told.secondary.len() == problem.secondary.len()
                && without_path(&told.message).eq(without_path(&problem.message))
        };
        place(problem).is_some() && self.problems.iter().any(is_same)
    }

    /// Adds a problem.
    pub(super) fn push(&mut self, problem: Diagnostic) {
        self.errors += usize::from(problem.severity == Severity::Error);
        let problem = match self.origin(&problem) {
            Some((span, text)) => problem.also(span, text),
            None => problem,
        };
        let problem = match self.slip(&problem) {
            Some(help) => problem.help(help),
            None => problem,
        };
        if self.is_told(&problem) {
            return;
        }
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        } else {
            self.left_out += 1;
        }
    }

    /// What to do about an error in a text that is wrong because of a slip around it, whatever it should be.
    fn slip(&self, problem: &Diagnostic) -> Option<String> {
        let span = problem.primary.as_ref().filter(|_| problem.severity == Severity::Error)?.span;
        let text = self.sources.text(span.source);
        slips::swallowed(text, span.start as usize).or_else(|| {
            let (_, help) = slips::elsewhere(self.sources.slice(span).lines().next()?)?;
            Some(help)
        })
    }

    /// Returns whether further problems are counted only, so that nobody need make them helpful.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS
    }

    /// Returns how many errors there are.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// Returns whether there is an error.
    pub(super) fn failed(&self) -> bool {
        self.errors > 0
    }

    /// Ends the run.
    pub(super) fn finish(mut self) -> Diagnostics {
        for doubt in std::mem::take(&mut self.doubts) {
            let span = doubt.primary.as_ref().map(|label| label.span);
            let is_told = span.is_some_and(|span| {
                let primary = self.problems.iter().filter_map(|problem| problem.primary.as_ref());
                primary.map(|label| label.span).any(|at| {
                    let (source, line) = (at.source, self.sources.locate(at).line);
                    source == span.source && line == self.sources.locate(span).line
                })
            });
            if !is_told {
                self.push(doubt);
            }
        }
        if self.left_out > 0 {
            self.problems.push(Diagnostic::error(format!("and {} more problems, not shown", self.left_out)));
        }
        Diagnostics::new(self.problems, Arc::new(self.sources))
    }

    /// Returns where bytes `start` to `end` of a text stand in its file.
    ///
    /// Known only while the text is as written; the whole value where quotes, escapes or variables changed it.
    pub(super) fn part(&self, node: &Node, start: usize, end: usize) -> Span {
        let (written, text) = (self.sources.slice(node.span), node.as_str().unwrap_or_default());
        if text.is_empty() || start > end {
            return node.span;
        }
        if written == text {
            return node.span.part(start, end);
        }
        let inner = written.strip_prefix(['"', '\'']).and_then(|rest| rest.strip_suffix(['"', '\'']));
        if inner == Some(text) { node.span.part(start + 1, end + 1) } else { node.span }
    }
}

/// The words of a message without paths (`services.web.image`).
fn without_path(message: &str) -> impl Iterator<Item = &str> {
    message
        .split('`')
        .enumerate()
        .filter(|(index, part)| index % 2 == 0 || !part.starts_with("services."))
        .map(|(_, part)| part)
}
