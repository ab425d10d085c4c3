//! `.orchignore`: what of a directory stays behind. The syntax is that of `.dockerignore`; lists of such patterns elsewhere
//! are read by the same rules.
//!
//! Source: <https://docs.docker.com/build/concepts/context/#dockerignore-files>. Patterns start at the directory's root, `**`
//! stands for any number of directories, `!` takes back in, and the last line that fits decides. What fits a directory
//! fits all that is in it.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

/// Name of the file with the patterns. It does not travel itself.
pub const IGNORE_FILE: &str = ".orchignore";

/// A line that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of {IGNORE_FILE} is no pattern: {reason}")]
pub struct IgnoreError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// The patterns, in order.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    text: String,
    pattern: GlobMatcher,
    takes_back: bool,
}

impl Rules {
    /// Reads the file's text.
    ///
    /// # Errors
    /// A line that is no pattern.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (pattern, takes_back) = match line.strip_prefix('!') {
                Some(rest) => (rest.trim(), true),
                None => (line, false),
            };
            let failed = |reason: String| IgnoreError { line: at + 1, reason };
            let Some(cleaned) = clean(pattern).map_err(|reason| failed(reason.to_owned()))? else { continue };
            let glob = GlobBuilder::new(&cleaned).literal_separator(true).backslash_escape(true).build();
            let pattern = glob.map_err(|error| failed(error.kind().to_string()))?.compile_matcher();
            rules.push(Rule { text: cleaned, pattern, takes_back });
        }
        Ok(Self(rules))
    }

    /// Returns whether `path`, from the directory's root on, stays behind: fits a pattern.
    pub fn leave_out(&self, path: &Path) -> bool {
        let fits = |rule: &&Rule| {
            let mut ways = path.ancestors().filter(|way| !way.as_os_str().is_empty());
            ways.any(|way| rule.pattern.is_match(way))
        };
        self.0.iter().rev().find(fits).is_some_and(|rule| !rule.takes_back)
    }

    /// Returns whether something in a directory that stays behind may be taken along all the same.
    pub fn take_back(&self) -> bool {
        self.0.iter().any(|rule| rule.takes_back)
    }

    /// Returns whether something below the directory `path`, which stays behind, may be taken along all the same.
    pub fn take_back_below(&self, path: &Path) -> bool {
        let may_fit = |rule: &Rule| {
            let mut both = path.components().zip(Path::new(&rule.text).components());
            both.find_map(|(part, pattern)| {
                let pattern = pattern.as_os_str().to_string_lossy();
                if pattern.contains(['*', '?', '[', '\\']) {
                    return Some(true);
                }
                (part.as_os_str() != &*pattern).then_some(false)
            })
            .unwrap_or(true)
        };
        self.0.iter().any(|rule| rule.takes_back && may_fit(rule))
    }
}

/// Returns a pattern without `.`, `..` and doubled or outer slashes, in the words of `globset`, which has braces where
/// `.dockerignore` has none; `None`: it fits nothing.
fn clean(pattern: &str) -> Result<Option<String>, &'static str> {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or("it leads out of the directory")?;
            }
            part => parts.push(part),
        }
    }
    let joined = parts.join("/").replace('{', "[{]").replace('}', "[}]");
    Ok((!joined.is_empty()).then_some(joined))
}
