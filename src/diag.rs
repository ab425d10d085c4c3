//! Diagnostics: what is wrong in a file, where, what else belongs to it and what to do.
//!
//! A [`Diagnostic`] is a value that is made where the problem is found; nothing is printed here. [`Diagnostics`] is
//! what a failed `load` returns: all problems of one run with the text they point into, so that it can be shown as
//! text ([`std::fmt::Display`]) or as JSON ([`Diagnostics::to_json`]) without reading a file again.

mod cause;
mod render;
mod source;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use cause::{causes, chain, plain};
pub use source::{Location, SourceId, SourceMap, Span};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing can be done with this input.
    Error,
    /// It works, but perhaps not as meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a file, with a few words on its part in the problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// Shown behind the carets; may be empty.
    pub text: String,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// What is wrong: lower case, no full stop, names in backticks.
    pub message: String,
    /// Where it is wrong; `None` for problems outside of any file.
    pub primary: Option<Label>,
    /// Other places that belong to it, in any file.
    pub secondary: Vec<Label>,
    /// What to do.
    pub help: Option<String>,
    /// Chapter of the specification (`05-services.md#links`), or page of orch's own (`docs/patterns.md#x-route`).
    pub spec: Option<Cow<'static, str>>,
}

impl Diagnostic {
    /// Returns an error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message.into())
    }

    /// Returns a warning without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message.into())
    }

    fn new(severity: Severity, message: String) -> Self {
        Self { severity, message, primary: None, secondary: Vec::new(), help: None, spec: None }
    }

    /// Sets where the problem is; `text` is shown behind the carets and may be empty.
    #[must_use]
    pub fn at(mut self, span: Span, text: impl Into<String>) -> Self {
        self.primary = Some(Label { span, text: text.into() });
        self
    }

    /// Adds another place that belongs to the problem.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.secondary.push(Label { span, text: text.into() });
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Cites the specification; an empty section cites nothing.
    #[must_use]
    pub fn spec(mut self, section: impl Into<Cow<'static, str>>) -> Self {
        let section = section.into();
        self.spec = (!section.is_empty()).then_some(section);
        self
    }
}

/// Problems of one run, with the files that they point into.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    sources: Arc<SourceMap>,
}

impl Diagnostics {
    /// Returns `list` with the files that its spans belong to; errors come first, otherwise the order is kept.
    pub fn new(mut list: Vec<Diagnostic>, sources: Arc<SourceMap>) -> Self {
        list.sort_by_key(|problem| problem.severity);
        Self { list, sources }
    }

    /// Returns the problems, errors first.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Returns whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns how many problems there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Returns the files that the spans point into.
    pub fn sources(&self) -> &SourceMap {
        &self.sources
    }

    /// Returns one problem as text, as `Display` shows it.
    pub fn render(&self, problem: &Diagnostic) -> String {
        render::text(problem, &self.sources)
    }

    /// Returns one problem in one line, with its place where it has one.
    pub fn line(&self, problem: &Diagnostic) -> String {
        match &problem.primary {
            Some(label) => format!("{}: {}", self.sources.locate(label.span), problem.message),
            None => problem.message.clone(),
        }
    }

    /// Returns all problems as a JSON list, for `--format json`.
    pub fn to_json(&self) -> serde_json::Value {
        self.list.iter().map(|problem| render::json(problem, &self.sources)).collect()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.render(problem))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Returns the candidate closest to `word`, if it is close enough to be what was meant.
///
/// Closeness is the number of letters added, left out, changed or swapped; a third of the word may differ, and nothing but case in words of one or two letters.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count() / 3;
    if word.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Most names that are listed for somebody who named another.
const LISTED: usize = 12;

/// Returns what to say to somebody who named something that is not there: the name that was meant, else those that there are;
/// `None` where there are none, or too many to be read.
pub fn instead<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    if let Some(meant) = did_you_mean(word, candidates.iter().copied()) {
        return Some(format!("did you mean `{meant}`?"));
    }
    match candidates.as_slice() {
        [only] => Some(format!("there is `{only}` only")),
        [first @ .., last] if candidates.len() <= LISTED => {
            let first: Vec<String> = first.iter().map(|name| format!("`{name}`")).collect();
            Some(format!("there are {} and `{last}`", first.join(", ")))
        }
        _ => None,
    }
}

/// Optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_close_or_absent() {
        let keys = ["image", "ports", "volumes", "depends_on"];
        for (word, expected) in [
            ("imgae", Some("image")),
            ("port", Some("ports")),
            ("dependson", Some("depends_on")),
            ("Image", Some("image")),
            ("foo", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(word, keys), expected, "{word}");
        }
    }

    #[test]
    fn names_that_are_there_are_told_while_they_can_be_read() {
        let told = |word, names: &[&str]| instead(word, names.iter().copied());
        assert_eq!(told("webb", &["db", "web"]).as_deref(), Some("did you mean `web`?"));
        assert_eq!(told("nginx", &["db", "web"]).as_deref(), Some("there are `db` and `web`"));
        assert_eq!(told("nginx", &["web"]).as_deref(), Some("there is `web` only"));
        assert_eq!(told("nginx", &[]), None);
        assert_eq!(told("nginx", &["a"; LISTED + 1]), None);
    }
}
