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
        if let Ok(described) = pattern.describe() {
            rows.push((pattern.from, described));
        } else {
            let name = &pattern.name;
            context.ui.warn(&format!("pattern `{name}` cannot be used: `orch pattern lint {name}` says why"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Global;
    use crate::cli::ui::Style;
    use crate::cli::ui::testing::ui;

    /// Runs with two patterns of the project's own, one of which is wrong; returns what was printed, and what was told.
    fn show(verb: PatternVerb) -> (Result<(), String>, String, String) {
        let project = tempfile::tempdir().expect("a directory");
        let patterns = project.path().join("patterns");
        std::fs::create_dir(&patterns).expect("made");
        let own = "name: own\ndescription: mine\nparameters: {n: {type: port, default: 80, description: a port}}\n\
                   service: {expose: [\"${param.n}\"]}\n";
        for (name, text) in [("own.yaml", own), ("wrong.yml", "parameters: 5\n"), ("no-pattern.txt", "")] {
            std::fs::write(patterns.join(name), text).expect("written");
        }
        let (mut ui, out, err) = ui(Style::Plain);
        let global = Global { project_directory: Some(project.path().to_owned()), ..Global::default() };
        let mut context = Context::new(global, &mut ui);
        let result = run(&mut context, PatternArgs { verb }).map_err(|error| error.to_string());
        let clean = |text: String| text.replace(&project.path().display().to_string(), "DIR");
        (result, clean(out.take()), clean(err.take()))
    }

    #[test]
    fn patterns_are_listed_with_those_of_the_project() {
        let (result, out, err) = show(PatternVerb::Ls(PatternLsArgs::default()));
        assert_eq!(result, Ok(()));
        assert!(err.contains("pattern `wrong` cannot be used: `orch pattern lint wrong` says why"), "{err}");
        let row = |name: &str| out.lines().find(|line| line.split_whitespace().next() == Some(name));
        assert!(row("own").is_some_and(|row| row.contains("DIR/patterns/own.yaml") && row.ends_with("mine")), "{out}");
        for (name, _) in BUILT_IN {
            assert!(row(name).is_some_and(|row| row.contains(IN_BINARY)), "{out}");
        }
        let (_, out, _) = show(PatternVerb::Ls(PatternLsArgs { format: TableFormat::Json }));
        let list: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let own = list.as_array().expect("a list").iter().find(|one| one["name"] == "own").expect("it is there");
        let parameter = json!({ "name": "n", "takes": "port", "default": "80", "description": "a port" });
        assert_eq!(own["parameters"], json!([parameter]));
    }

    #[test]
    fn a_pattern_is_shown_as_it_is_and_as_what_it_takes() {
        let args = |name: &str, format| PatternVerb::Show(PatternShowArgs { name: name.to_owned(), format });
        let (result, out, _) = show(args("redis-ambassador", TextFormat::Text));
        assert_eq!((result, out.as_str()), (Ok(()), BUILT_IN[1].1));
        let (_, out, _) = show(args("own", TextFormat::Json));
        let shown: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((&shown["name"], &shown["from"]), (&json!("own"), &json!("DIR/patterns/own.yaml")));
        let (result, _, _) = show(args("nothing", TextFormat::Text));
        assert_eq!(result, Err("no such pattern: nothing".to_owned()));
    }

    #[test]
    fn what_is_wrong_with_a_pattern_is_said() {
        let args = |files: &[&str], format| {
            PatternVerb::Lint(PatternLintArgs { files: files.iter().map(|file| (*file).to_owned()).collect(), format })
        };
        let (result, out, _) = show(args(&["own", "wrong"], TextFormat::Text));
        assert_eq!(result, Err("1 of 2 patterns cannot be used".to_owned()));
        assert!(out.contains("own.yaml: nothing to complain about"), "{out}");
        assert!(out.contains("`parameters` must be a mapping, not a number"), "{out}");
        let (result, out, _) = show(args(&["own"], TextFormat::Json));
        assert_eq!(result, Ok(()));
        let shown: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(shown["diagnostics"], json!([]));
    }
}
