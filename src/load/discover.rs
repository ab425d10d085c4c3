//! Which files, which directory, which environment, which project name.
//!
//! Source: compose-spec 03-compose-file.md and 04-version-and-name.md; order of environment files and of the search
//! follow runs of Docker Compose 2.40.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diag::{Diagnostic, SourceId};
use crate::ids::ProjectName;

use super::LoadRequest;
use super::dotenv;
use super::report::Report;
use super::source::{Files, absolute};

/// Message where nobody named a file and none is found. Source: Docker Compose.
pub const NO_FILE: &str = "no configuration file provided: not found";

const BASE: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDE: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// What is known before a compose file is read.
#[derive(Debug, Default)]
pub(super) struct Discovered {
    /// Absolute paths of the compose files; `-` is standard input.
    pub(super) config_files: Vec<PathBuf>,
    /// Directory that relative paths start from.
    pub(super) working_dir: PathBuf,
    /// The project's environment.
    pub(super) environment: BTreeMap<String, String>,
}

/// Finds files and environment.
pub(super) fn discover(files: &dyn Files, request: &LoadRequest, report: &mut Report) -> Discovered {
    let mut environment = request.environment.clone();
    environment.entry("PWD".to_owned()).or_insert_with(|| request.cwd.display().to_string());
    if let Some(wrong) = environment.get("COMPOSE_DISABLE_ENV_FILE").filter(|value| !is_true(value) && !is_false(value))
    {
        let problem = format!("`COMPOSE_DISABLE_ENV_FILE` must be `true` or `false`, not `{wrong}`");
        report.push(Diagnostic::error(problem));
    }
    let explicit = explicit_env_files(request);
    let mut finder = Finder { files, request, report, environment };
    // First `.env` of where the command starts: it may hold COMPOSE_FILE and the like.
    let first = request.files.iter().find(|file| *file != "-");
    let start = match (&request.project_directory, first) {
        (Some(directory), _) => absolute(&request.cwd, directory),
        (None, Some(file)) => parent(&absolute(&request.cwd, file)),
        (None, None) => request.cwd.clone(),
    };
    if explicit.is_empty() {
        finder.default_env(&start);
    } else {
        finder.env_files(&explicit.iter().map(|path| absolute(&request.cwd, path)).collect::<Vec<_>>(), true);
    }
    let config_files = finder.config_files();
    // Standard input is in no directory.
    let first = config_files.iter().find(|file| file.as_os_str() != "-");
    let working_dir = match (&request.project_directory, first) {
        (Some(directory), _) => absolute(&request.cwd, directory),
        (None, Some(file)) => parent(file),
        (None, None) => request.cwd.clone(),
    };
    if explicit.is_empty() && working_dir != start {
        finder.default_env(&working_dir);
    }
    Discovered { config_files, working_dir, environment: finder.environment }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

fn explicit_env_files(request: &LoadRequest) -> Vec<String> {
    if !request.env_files.is_empty() {
        return request.env_files.clone();
    }
    let list = request.environment.get("COMPOSE_ENV_FILES").map(String::as_str).unwrap_or_default();
    list.split(',').filter(|file| !file.is_empty()).map(str::to_owned).collect()
}

struct Finder<'a> {
    files: &'a dyn Files,
    request: &'a LoadRequest,
    report: &'a mut Report,
    environment: BTreeMap<String, String>,
}

impl Finder<'_> {
    /// Reads the `.env` of a directory, if there is one and it is not switched off.
    fn default_env(&mut self, directory: &Path) {
        let path = directory.join(".env");
        if !Self::is_disabled(&self.environment) && self.files.is_file(&path) {
            self.env_files(&[path], false);
        }
    }

    /// Whether `COMPOSE_DISABLE_ENV_FILE` is among variables.
    fn is_disabled(variables: &BTreeMap<String, String>) -> bool {
        variables.get("COMPOSE_DISABLE_ENV_FILE").is_some_and(|value| is_true(value))
    }

    /// Adds what files say and nobody said before; of several files the later wins.
    fn env_files(&mut self, paths: &[PathBuf], required: bool) {
        let mut own = BTreeMap::new();
        for path in paths {
            let Some(source) = read(self.files, path, &self.request.cwd, required, self.report) else { continue };
            let lookup = |name: &str| self.environment.get(name).cloned();
            dotenv::parse_onto(source, &lookup, &mut own, self.report);
        }
        // A `.env` that says itself that there is none says how to run only, not what variables are.
        let is_disabled = !required && Self::is_disabled(&own);
        for (name, value) in own {
            if !is_disabled || name.starts_with("COMPOSE_") {
                self.environment.entry(name).or_insert(value);
            }
        }
    }

    fn config_files(&mut self) -> Vec<PathBuf> {
        let listed = if self.request.files.is_empty() { self.listed() } else { self.request.files.clone() };
        if listed.is_empty() {
            return self.search();
        }
        let absolute = |file: &String| if file == "-" { PathBuf::from("-") } else { absolute(&self.request.cwd, file) };
        listed.iter().map(absolute).collect()
    }

    /// `COMPOSE_FILE`, split by `COMPOSE_PATH_SEPARATOR`.
    fn listed(&self) -> Vec<String> {
        let separator = self.environment.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty());
        let list = self.environment.get("COMPOSE_FILE").map(String::as_str).unwrap_or_default();
        let files = list.split(separator.map_or(":", String::as_str));
        files.filter(|file| !file.is_empty()).map(str::to_owned).collect()
    }

    /// The first directory upwards that holds a compose file, and an override file beside it.
    fn search(&mut self) -> Vec<PathBuf> {
        for directory in self.request.cwd.ancestors() {
            let base = self.first_of(directory, &BASE);
            if let Some(base) = base {
                return std::iter::once(base).chain(self.first_of(directory, &OVERRIDE)).collect();
            }
        }
        let problem = Diagnostic::error(NO_FILE);
        let help =
            format!("looked for {} in `{}` and above; name one with -f", BASE.join(", "), self.request.cwd.display());
        self.report.push(problem.help(help).spec("03-compose-file.md"));
        Vec::new()
    }

    fn first_of(&mut self, directory: &Path, names: &[&str]) -> Option<PathBuf> {
        let mut found = names.iter().map(|name| directory.join(name)).filter(|path| self.files.is_file(path));
        let first = found.next()?;
        if let Some(second) = found.next() {
            let message = format!("several files were found, `{}` is used", first.display());
            let help = format!("`{}` is not read; name the files with -f", second.display());
            self.report.push(Diagnostic::warning(message).help(help));
        }
        Some(first)
    }
}

fn is_false(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "" | "0" | "f" | "false" | "n" | "no" | "off")
}

fn is_true(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "1" | "t" | "true" | "y" | "yes" | "on")
}

/// Reads a file of text into the report's sources, under the name that a user in `cwd` would use.
pub(super) fn read(
    files: &dyn Files,
    path: &Path,
    cwd: &Path,
    required: bool,
    report: &mut Report,
) -> Option<SourceId> {
    match text_of(files, path, cwd) {
        Ok((shown, text)) => Some(report.sources.add(shown, text)),
        Err(unread) if !required && unread.kind == Some(std::io::ErrorKind::NotFound) => None,
        Err(unread) => {
            report.push(*unread.problem);
            None
        }
    }
}

/// Reads a compose file that the command line names. Where it is not there, says which is.
pub(super) fn read_named(
    files: &dyn Files,
    path: &Path,
    named: &[PathBuf],
    cwd: &Path,
    report: &mut Report,
) -> Option<SourceId> {
    match text_of(files, path, cwd) {
        Ok((shown, text)) => Some(report.sources.add(shown, text)),
        Err(Unread { problem, kind }) => {
            let within = BASE.iter().map(|name| path.join(name));
            let mut all = within.chain(BASE.iter().map(|name| path.with_file_name(name)));
            let there = all.find(|path| kind.is_some() && files.is_file(path) && !named.contains(path));
            report.push(match there {
                Some(path) => problem.help(format!("`{}` is there", path.strip_prefix(cwd).unwrap_or(&path).display())),
                None => *problem,
            });
            None
        }
    }
}

/// What is wrong with a file, or with reading it, which then has a kind.
struct Unread {
    problem: Box<Diagnostic>,
    kind: Option<std::io::ErrorKind>,
}

/// Returns a file's text, with the name that a user in `cwd` would use.
fn text_of(files: &dyn Files, path: &Path, cwd: &Path) -> Result<(String, String), Unread> {
    let stdin = path.as_os_str() == "-";
    let shown = match path.strip_prefix(cwd) {
        _ if stdin => "<stdin>".to_owned(),
        Ok(here) if here.as_os_str().is_empty() => ".".to_owned(),
        Ok(below) => below.display().to_string(),
        Err(_) => path.display().to_string(),
    };
    let bytes = if stdin { files.read_stdin() } else { files.read(path) }.map_err(|error| {
        let problem = Diagnostic::error(format!("`{shown}` could not be read: {}", reason(&error)));
        Unread { problem: Box::new(problem), kind: Some(error.kind()) }
    })?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((shown, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at].split(|byte| *byte == b'\n').count();
            let problem = Diagnostic::error(format!("`{shown}` is not UTF-8 text: wrong byte in line {line}"));
            Err(Unread { problem: Box::new(problem), kind: None })
        }
    }
}

/// The system's words without its error number.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "not found".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// The name of the project: `-p`, `COMPOSE_PROJECT_NAME`, the file's `name`, the directory's name.
pub(super) fn project_name(
    request: &LoadRequest,
    discovered: &Discovered,
    from_file: Option<&str>,
    report: &mut Report,
) -> Option<ProjectName> {
    let variable = discovered.environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty());
    let given = request.project_name.as_ref().filter(|name| !name.is_empty()).map(|name| (name, "-p"));
    if let Some((name, origin)) = given.or(variable.map(|name| (name, "COMPOSE_PROJECT_NAME"))) {
        return match ProjectName::new(name.as_str()) {
            Ok(name) => Some(name),
            Err(error) => {
                report.push(Diagnostic::error(format!("{origin}: {error}")).spec("04-version-and-name.md"));
                None
            }
        };
    }
    let directory = discovered.working_dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let raw = from_file.filter(|name| !name.is_empty()).map(str::to_owned).or(directory).unwrap_or_default();
    let name = ProjectName::new(normalised(&raw)).ok();
    if name.is_none() {
        let problem = Diagnostic::error("the project name must not be empty");
        report.push(problem.help("set one with -p or `name:`").spec("04-version-and-name.md"));
    }
    name
}

/// Lower case, without what a project name cannot hold.
fn normalised(raw: &str) -> String {
    let kept: String = raw
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_names_are_normalised() {
        for (raw, name) in [("My Proj.Dir_1", "myprojdir_1"), ("_-a", "a"), ("é", ""), ("A-b", "a-b")] {
            assert_eq!(normalised(raw), name);
        }
    }
}
