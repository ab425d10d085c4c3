//! Where patterns are: in the binary, in the project's directory, in the user's own.
//!
//! A name is looked for beside the project first, then among the user's own, then in the binary, so that a copy may be
//! changed. What has a slash or ends in `.yaml` is a path, relative to the project's directory as all paths of a compose file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diag::{Diagnostic, SourceId, did_you_mean};
use crate::load::discover::read;
use crate::load::node::Node;
use crate::load::report::Report;
use crate::load::source::absolute;

use super::{Places, SPEC};

/// The patterns in the binary: name and text.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("content-refresher", include_str!("../../../patterns/content-refresher.yaml")),
    ("redis-ambassador", include_str!("../../../patterns/redis-ambassador.yaml")),
];

/// Directory of a project that patterns are looked for in.
pub const DIRECTORY: &str = "patterns";

/// How files of patterns end.
pub const ENDINGS: [&str; 2] = ["yaml", "yml"];

/// Returns the name that a built-in pattern has as a source of messages.
pub fn source_name(name: &str) -> String {
    format!("pattern {name}")
}

/// Returns the directories that patterns are looked for in, the nearest first: the project's, the user's.
pub fn directories(working_dir: &Path, environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let set = |name: &str| environment.get(name).filter(|value| value.starts_with('/')).map(PathBuf::from);
    let user = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let user = user.map(|config| config.join("orch").join(DIRECTORY));
    std::iter::once(working_dir.join(DIRECTORY)).chain(user).collect()
}

/// Returns whether a text can be the name of a pattern.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !text.starts_with('.')
}

/// Returns whether a text that names a pattern is a path.
pub(in crate::load) fn is_path(text: &str) -> bool {
    let is_file = ENDINGS.iter().any(|ending| Path::new(text).extension().is_some_and(|own| own == *ending));
    text.contains('/') || is_file
}

/// Finds the pattern that a use names and reads it into the sources of messages.
pub(super) fn find(name: &Node, places: &Places<'_>, report: &mut Report) -> Option<SourceId> {
    let text = name.as_str()?;
    if is_path(text) {
        let path = absolute(places.working_dir, text);
        if !places.files.is_file(&path) {
            let problem = Diagnostic::error(format!("the pattern `{text}` was not found")).at(name.span, "");
            report.push(problem.help(format!("there is no file `{}`", path.display())).spec(SPEC));
            return None;
        }
        return read(places.files, &path, places.cwd, true, report);
    }
    if !is_name(text) {
        let problem = Diagnostic::error(format!("`{text}` is not the name of a pattern")).at(name.span, "");
        report.push(problem.help("a name has letters, digits, dots, hyphens and underscores").spec(SPEC));
        return None;
    }
    let directories = directories(places.working_dir, places.environment);
    let candidates =
        directories.iter().flat_map(|directory| ENDINGS.map(|ending| directory.join(format!("{text}.{ending}"))));
    if let Some(path) = candidates.into_iter().find(|path| places.files.is_file(path)) {
        return read(places.files, &path, places.cwd, true, report);
    }
    if let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == text) {
        return Some(report.sources.add(source_name(name), *text));
    }
    let looked: Vec<String> = directories.iter().map(|directory| format!("`{}`", directory.display())).collect();
    let help = match did_you_mean(text, BUILT_IN.iter().map(|(name, _)| *name)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("`orch pattern ls` lists them; looked in {} and in the binary", looked.join(", ")),
    };
    report.push(Diagnostic::error(format!("there is no pattern `{text}`")).at(name.span, "").help(help).spec(SPEC));
    None
}
