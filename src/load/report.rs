//! The problems found so far, and the text that they point into.

use std::sync::Arc;

use crate::diag::{Diagnostic, Diagnostics, Severity, SourceMap, Span};

use super::node::Node;

/// Problems that are kept; more tell nobody more.
const MAX_PROBLEMS: usize = 100;

/// Collects problems through all phases.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Files read so far.
    pub(super) sources: SourceMap,
    problems: Vec<Diagnostic>,
    left_out: usize,
    errors: usize,
}

impl Report {
    /// Adds a problem.
    pub(super) fn push(&mut self, problem: Diagnostic) {
        self.errors += usize::from(problem.severity == Severity::Error);
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        } else {
            self.left_out += 1;
        }
    }

    /// Returns whether further problems are counted only, so that nobody need make them helpful.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS
    }

    /// Returns whether there is an error.
    pub(super) fn failed(&self) -> bool {
        self.errors > 0
    }

    /// Ends the run.
    pub(super) fn finish(mut self) -> Diagnostics {
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
