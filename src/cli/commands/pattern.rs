//! `orch pattern`: what patterns there are, what they take, whether they are right.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use crate::cli::args::{
    PatternArgs, PatternLintArgs, PatternLsArgs, PatternShowArgs, PatternVerb, TableFormat, TextFormat,
};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::{project, table};
use crate::diag::{Diagnostics, did_you_mean};
use crate::load::patterns::library::{self, BUILT_IN, ENDINGS};
use crate::load::patterns::{Described, describe, lint};

/// Where a pattern in the binary is said to be.
const IN_BINARY: &str = "built in";

/// Runs `orch pattern`.
///
/// # Errors
/// When there is no such pattern, when one cannot be read, and when one that is checked is wrong.
pub(crate) fn run(context: &mut Context<'_>, args: PatternArgs) -> Result<(), CliError> {
    match args.verb {
        PatternVerb::Ls(args) => list(context, &args),
        PatternVerb::Show(args) => show(context, &args),
        PatternVerb::Lint(args) => check(context, &args),
    }
}

/// The text of a pattern and where it is.
struct Found {
    name: String,
    /// As a list shows it.
    from: String,
    /// As messages call it.
    source: String,
    text: String,
}

impl Found {
    fn read(name: &str, path: &Path, cwd: &Path) -> Result<Self, CliError> {
        let shown = path.strip_prefix(cwd).unwrap_or(path).display().to_string();
        let failed = |source| CliError::Read { path: shown.clone(), source };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Ok(Self { name: name.to_owned(), from: shown.clone(), source: shown, text })
    }

    fn built_in(name: &str, text: &str) -> Self {
        let (name, text) = (name.to_owned(), text.to_owned());
        Self { from: IN_BINARY.to_owned(), source: library::source_name(&name), name, text }
    }

    fn describe(&self) -> Result<Described, Diagnostics> {
        describe(&self.name, &self.source, &self.text)
    }
}

/// Where patterns are looked for, as `x-patterns` does it.
struct Shelf {
    cwd: PathBuf,
    directories: Vec<PathBuf>,
}

impl Shelf {
    fn new(context: &Context<'_>) -> Result<Self, CliError> {
        let (cwd, directories) = project::pattern_directories(&context.global)?;
        Ok(Self { cwd, directories })
    }

    /// Returns all patterns that a name finds, in order of their names: the nearest of each.
    fn all(&self) -> Vec<Found> {
        let mut found: std::collections::BTreeMap<String, Found> = std::collections::BTreeMap::new();
        for directory in &self.directories {
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                let (Some(name), Some(ending)) = (path.file_stem(), path.extension()) else { continue };
                let name = name.to_string_lossy();
                if library::is_name(&name)
                    && ENDINGS.iter().any(|known| ending == *known)
                    && !found.contains_key(&*name)
                    && let Ok(pattern) = Found::read(&name, &path, &self.cwd)
                {
                    found.insert(name.into_owned(), pattern);
                }
            }
        }
        for (name, text) in BUILT_IN {
            found.entry((*name).to_owned()).or_insert_with(|| Found::built_in(name, text));
        }
        found.into_values().collect()
    }

    /// Finds a pattern by its file or its name.
    fn find(&self, wanted: &str) -> Result<Found, CliError> {
        let path = self.cwd.join(wanted);
        if path.is_file() {
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            return Found::read(&name, &path, &self.cwd);
        }
        let all = self.all();
        let similar = did_you_mean(wanted, all.iter().map(|pattern| pattern.name.as_str())).map(str::to_owned);
        let found = all.into_iter().find(|pattern| pattern.name == wanted);
        found.ok_or_else(|| CliError::NoSuchPattern { name: wanted.to_owned(), similar })
    }
}

/// A pattern as JSON.
#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    described: &'a Described,
    from: &'a str,
}

fn list(context: &mut Context<'_>, args: &PatternLsArgs) -> Result<(), CliError> {
    let mut rows = Vec::new();
    for pattern in Shelf::new(context)?.all() {
        match pattern.describe() {
            Ok(described) => rows.push((pattern.from, described)),
            Err(_) => {
                let name = &pattern.name;
                context.ui.warn(&format!("pattern `{name}` cannot be used: `orch pattern lint {name}` says why"));
            }
        }
    }
    match args.format {
        TableFormat::Json => {
            let objects: Vec<_> = rows.iter().map(|(from, described)| Object { described, from }).collect();
            context.ui.json(&objects)
        }
        TableFormat::Table => {
            let row = |(from, described): (String, Described)| [described.name, from, described.description];
            let rows: Vec<_> = rows.into_iter().map(row).collect();
            context.ui.data(table::render(["NAME", "FROM", "DESCRIPTION"], &rows).as_bytes())
        }
    }
}

fn show(context: &mut Context<'_>, args: &PatternShowArgs) -> Result<(), CliError> {
    let pattern = Shelf::new(context)?.find(&args.name)?;
    if args.format == TextFormat::Text {
        return context.ui.data(pattern.text.as_bytes());
    }
    let described = pattern.describe().map_err(CliError::Files)?;
    context.ui.json(&Object { described: &described, from: &pattern.from })
}

fn check(context: &mut Context<'_>, args: &PatternLintArgs) -> Result<(), CliError> {
    let shelf = Shelf::new(context)?;
    let mut wrong = 0;
    for name in &args.files {
        let pattern = shelf.find(name)?;
        let problems = lint(&pattern.name, &pattern.source, &pattern.text);
        wrong += usize::from(problems.has_errors());
        if args.format == TextFormat::Json {
            context
                .ui
                .json(&json!({ "name": pattern.name, "from": pattern.from, "diagnostics": problems.to_json() }))?;
        } else if problems.is_empty() {
            context.ui.line(&format!("{}: nothing to complain about", pattern.source))?;
        } else {
            context.ui.data(problems.to_string().as_bytes())?;
        }
    }
    if wrong > 0 { Err(CliError::WrongPatterns { wrong, of: args.files.len() }) } else { Ok(()) }
}
