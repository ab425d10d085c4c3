//! Files to Model to Graph, as the flags say. All that the process knows by itself goes in here as values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::diag::{Diagnostic, Diagnostics};
use crate::engine::translate::Misfit;
use crate::expand::{self, ExpandError, Expanded};
use crate::graph::Graph;
use crate::hosts::HostEntry;
use crate::ids::{ProjectName, ServiceName};
use crate::load::{self, Files, LoadOptions, LoadRequest, Loaded, OsFiles};
use crate::model::{Model, Service};
use crate::plan::UpOptions;

use super::args::{Global, Selection};
use super::builds::{self, BuiltImage};
use super::context::logins;
use super::error::CliError;
use super::travel::Luggage;
use super::ui::is_yes;

/// Variable that names the project; read before any file, as `-p` is.
const PROJECT_NAME_VARIABLE: &str = "COMPOSE_PROJECT_NAME";

/// Variables about containers of services that the file does not have: also `.env` may set them.
const IGNORE_ORPHANS: &str = "COMPOSE_IGNORE_ORPHANS";
const REMOVE_ORPHANS: &str = "COMPOSE_REMOVE_ORPHANS";

/// A project, resolved down to what the agent takes.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// What shall run.
    pub graph: Graph,
    /// What is doubtful, of all stages.
    pub warnings: Vec<Diagnostics>,
    /// Files that its pods mount on other hosts.
    pub luggage: Luggage,
    /// The files, for the places of what shows later.
    loaded: Loaded,
}

impl Project {
    /// Returns its name.
    pub(crate) fn name(&self) -> &ProjectName {
        &self.graph.project
    }

    /// Returns what its services have built.
    pub(crate) fn builds(&self) -> Vec<BuiltImage> {
        let mut builds = builds::of(&self.loaded);
        for build in &mut builds {
            build.platform = build.platform.take().or_else(|| self.default_platform());
        }
        builds
    }

    /// Returns the platform of images whose service names none (`DOCKER_DEFAULT_PLATFORM`).
    pub(crate) fn default_platform(&self) -> Option<String> {
        self.loaded.environment.get("DOCKER_DEFAULT_PLATFORM").filter(|platform| !platform.is_empty()).cloned()
    }

    /// Returns whether a variable of the project's environment (that of the process, then `.env`) says yes.
    fn says_yes(&self, variable: &str) -> bool {
        self.loaded.environment.get(variable).is_some_and(|value| is_yes(value))
    }

    /// Returns whether the environment wants keys below the output of an `up` (`COMPOSE_MENU`).
    pub(crate) fn wants_menu(&self) -> bool {
        self.says_yes("COMPOSE_MENU")
    }

    /// Returns whether there is something that can be watched.
    pub(crate) fn is_watched(&self) -> bool {
        self.loaded.model.services.values().any(|service| service.develop.is_some())
    }

    /// Adds to the flags of one `up` what the environment says of orphans.
    ///
    /// # Errors
    /// When they shall be removed and be left alone.
    pub(crate) fn orphans(&self, options: &mut UpOptions) -> Result<(), CliError> {
        options.ignore_orphans = self.says_yes(IGNORE_ORPHANS);
        if options.ignore_orphans && options.remove_orphans {
            return Err(CliError::Flag { flag: "--remove-orphans", command: "COMPOSE_IGNORE_ORPHANS=true" });
        }
        options.remove_orphans |= self.says_yes(REMOVE_ORPHANS) && !options.ignore_orphans;
        Ok(())
    }

    /// Turns what an engine cannot take into problems with their places: those that are to be told only.
    ///
    /// # Errors
    /// All of them, where a container could not be made.
    pub(crate) fn judge(&self, misfits: &[Misfit]) -> Result<Diagnostics, CliError> {
        let problem = |misfit: &Misfit| {
            let new = if misfit.fatal { Diagnostic::error } else { Diagnostic::warning };
            let written = misfit.paths.iter().find(|path| is_written(&self.loaded, path)).or(misfit.paths.first());
            place(&self.loaded, written.map_or("", String::as_str), new(&misfit.message).help(&misfit.help))
        };
        let sources = Arc::new(self.loaded.warnings.sources().clone());
        let problems = Diagnostics::new(misfits.iter().map(problem).collect(), sources);
        if misfits.iter().any(|misfit| misfit.fatal) { Err(CliError::Files(problems)) } else { Ok(problems) }
    }
}

/// Loads the files that the flags and the environment name.
///
/// # Errors
/// All problems that were found, each at its place.
pub(crate) fn load(global: &Global, services: &[ServiceName], options: &LoadOptions) -> Result<Loaded, CliError> {
    load_from(&OsFiles, global, services, options)
}

/// As [`load`](fn@load), with files that are read in another way.
///
/// # Errors
/// As [`load`](fn@load).
pub(crate) fn load_from(
    files: &dyn Files,
    global: &Global,
    services: &[ServiceName],
    options: &LoadOptions,
) -> Result<Loaded, CliError> {
    load::load(files, &request(global, services, options)?).map_err(CliError::Files)
}

fn request(global: &Global, services: &[ServiceName], options: &LoadOptions) -> Result<LoadRequest, CliError> {
    Ok(LoadRequest {
        cwd: std::env::current_dir().map_err(CliError::Directory)?,
        files: global.files.clone(),
        project_name: global.project_name.clone(),
        project_directory: global.project_directory.as_ref().map(|path| path.to_string_lossy().into_owned()),
        env_files: global.env_files.clone(),
        profiles: global.profiles.clone(),
        services: services.iter().map(ToString::to_string).collect(),
        environment: environment(),
        options: LoadOptions { all_resources: global.all_resources, ..options.clone() },
    })
}

/// Returns the variables of the process and of the files of variables (`.env`, `--env-file`) that files are loaded with.
/// What is wrong with those is said when files are loaded.
///
/// # Errors
/// When this directory is gone.
pub(crate) fn variables(global: &Global) -> Result<BTreeMap<String, String>, CliError> {
    Ok(load::variables(&OsFiles, &request(global, &[], &LoadOptions::default())?))
}

/// Returns this directory, and those that patterns are looked for in, the nearest first.
///
/// # Errors
/// When this directory is gone.
pub(crate) fn pattern_directories(global: &Global) -> Result<(PathBuf, Vec<PathBuf>), CliError> {
    let request = request(global, &[], &LoadOptions::default())?;
    let directories =
        load::patterns::library::directories(&load::working_dir(&OsFiles, &request), &request.environment);
    Ok((request.cwd, directories))
}

/// Returns the hosts of the files; none where nobody named a file and none is found.
///
/// # Errors
/// As [`load`](fn@load).
pub(crate) fn hosts(global: &Global, options: &LoadOptions) -> Result<Vec<HostEntry>, CliError> {
    match load(global, &[], options) {
        Ok(loaded) => Ok(loaded.model.hosts),
        Err(CliError::Files(problems)) if problems.to_string().contains(load::NO_FILE) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The process environment; what is not text cannot be a value in a file.
fn environment() -> BTreeMap<String, String> {
    let text = |text: std::ffi::OsString| text.into_string().ok();
    std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

/// Returns the name of the project where it needs no file: `-p`, then the environment.
///
/// # Errors
/// When that is not a valid name.
pub(crate) fn given_name(global: &Global) -> Result<Option<ProjectName>, CliError> {
    let variable = || std::env::var(PROJECT_NAME_VARIABLE).ok();
    let given = global.project_name.clone().or_else(variable).filter(|name| !name.is_empty());
    Ok(given.map(ProjectName::new).transpose()?)
}

/// Turns a loaded project into its graph; `luggage` is what other hosts than this machine's need of its files.
///
/// # Errors
/// What only shows there: cycles, names taken twice, nothing to run.
pub(crate) fn expand(loaded: Loaded, selection: &Selection, luggage: Luggage) -> Result<Project, CliError> {
    check_services(&loaded, &selection.services)?;
    if loaded.model.services.is_empty() {
        return Err(CliError::NoService);
    }
    let scales: BTreeMap<_, _> = selection.scales.iter().cloned().collect();
    check_services(&loaded, &scales.keys().cloned().collect::<Vec<_>>())?;
    let contents = loaded.contents.iter().map(|((kind, key), bytes)| ((file_kind(*kind), key.clone()), bytes.clone()));
    let (logins, lacking) = logins_of(&loaded.model)?;
    let files: Vec<String> = loaded.config_files.iter().map(|path| path.display().to_string()).collect();
    let expanded = expand::expand(&expand::Input {
        model: &loaded.model,
        contents: &contents.collect(),
        logins: logins.as_deref(),
        snapshots: &luggage.snapshots,
        scales: &scales,
        disabled: &loaded.disabled,
        working_dir: &loaded.working_dir.display().to_string(),
        config_files: &files,
    });
    let diagnostics = |list| Diagnostics::new(list, Arc::new(loaded.warnings.sources().clone()));
    let Expanded { graph, warnings } = expanded.map_err(|errors| {
        CliError::Files(diagnostics(errors.iter().map(|error| diagnose(&loaded, error)).collect()))
    })?;
    let at = |path: &str, diagnostic| place(&loaded, path, diagnostic);
    let warnings = warnings.iter().map(|warning| at(&warning.path, Diagnostic::warning(&warning.text)));
    let warnings = warnings.chain(lacking.iter().map(Diagnostic::warning));
    let warnings = vec![loaded.warnings.clone(), diagnostics(warnings.collect())];
    Ok(Project { graph, warnings, luggage, loaded })
}

/// Returns a `config.json` with the user's logins where containers use the engine's API, and what of them could not be had.
fn logins_of(model: &Model) -> Result<(Option<Vec<u8>>, Vec<String>), CliError> {
    let helpers = |service: &Service| service.keys.helpers().any(|(_, _, helper)| helper.use_api_socket);
    if !model.services.values().any(|service| service.use_api_socket || helpers(service)) {
        return Ok((None, Vec::new()));
    }
    let failed =
        |cause: String| CliError::Failed(vec![format!("the logins for `use_api_socket` cannot be had: {cause}")]);
    let read = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(logins().config())
    };
    // Whoever loads files may be a task already, and waits for the helpers as for the files.
    let read = std::thread::scope(|scope| scope.spawn(read).join());
    let (config, lacking) = read.map_err(|_| failed("internal error".to_owned()))?.map_err(failed)?;
    Ok((Some(config), lacking))
}

fn file_kind(kind: load::FileKind) -> expand::FileKind {
    match kind {
        load::FileKind::Config => expand::FileKind::Config,
        load::FileKind::Secret => expand::FileKind::Secret,
    }
}

/// Docker Compose's error for a service named on the command line that the file does not have.
fn check_services(loaded: &Loaded, names: &[ServiceName]) -> Result<(), CliError> {
    let known: BTreeSet<&ServiceName> = loaded.model.services.keys().collect();
    names.iter().find(|name| !known.contains(name)).map_or(Ok(()), |name| Err(no_such_service(name, known)))
}

/// Returns the error for a service that is none of `known`.
pub(crate) fn no_such_service<'a>(name: &ServiceName, known: impl IntoIterator<Item = &'a ServiceName>) -> CliError {
    let instead = crate::diag::instead(name.as_str(), known.into_iter().map(ServiceName::as_str));
    CliError::NoSuchService { name: name.clone(), instead }
}

/// Returns services with all that they depend on.
pub(crate) fn with_dependencies(graph: &Graph, named: &[ServiceName]) -> Vec<ServiceName> {
    let mut all = named.to_vec();
    let mut at = 0;
    while let Some(service) = all.get(at).and_then(|name| graph.services.get(name)) {
        for name in service.dependencies() {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        at += 1;
    }
    all
}

fn diagnose(loaded: &Loaded, error: &ExpandError) -> Diagnostic {
    let problem = Diagnostic::error(error.problem.to_string());
    let problem = Diagnostic { help: error.problem.help(), ..problem };
    place(loaded, &error.path, problem)
}

/// Points a diagnostic at the place of a path in the model (`services.web.ports[0]`); one without a place keeps the path.
pub(super) fn place(loaded: &Loaded, path: &str, diagnostic: Diagnostic) -> Diagnostic {
    let services = loaded.model.services.keys().map(ServiceName::as_str);
    let steps = steps(path, services);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    match loaded.place(&steps) {
        Some(span) => diagnostic.at(span, ""),
        None => Diagnostic { message: format!("{path}: {}", diagnostic.message), ..diagnostic },
    }
}

/// Returns whether the files have a value at all of a path, and not only at its beginning.
fn is_written(loaded: &Loaded, path: &str) -> bool {
    let steps = steps(path, loaded.model.services.keys().map(ServiceName::as_str));
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    steps.split_last().is_some_and(|(_, above)| loaded.place(&steps) != loaded.place(above))
}

/// Takes a path apart. Names of services may have dots, so they are recognised rather than split.
pub(super) fn steps<'a>(path: &str, services: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = path;
    if let Some(after) = path.strip_prefix("services.") {
        let named =
            |name: &&str| after.strip_prefix(*name).is_some_and(|end| end.is_empty() || end.starts_with(['.', '[']));
        if let Some(name) = services.filter(named).max_by_key(|name| name.len()) {
            steps.extend(["services".to_owned(), name.to_owned()]);
            rest = after[name.len()..].trim_start_matches('.');
        }
    }
    while !rest.is_empty() {
        // What is in brackets is one step, whatever it is: an index, or a key with dots.
        let (word, after) = match rest.strip_prefix('[') {
            Some(inside) => inside.split_once(']').unwrap_or((inside, "")),
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        if rest.starts_with('[') || !word.is_empty() {
            steps.push(word.to_owned());
        }
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_around_names_with_dots() {
        let services = ["web", "web.v2"];
        for (path, expected) in [
            ("services.web.ports[0]", "services|web|ports|0"),
            ("services.web.v2.ports[10]", "services|web.v2|ports|10"),
            ("services.web", "services|web"),
            ("networks.front", "networks|front"),
            ("services.other.image", "services|other|image"),
            ("services.web.sysctls[net.ipv4.x]", "services|web|sysctls|net.ipv4.x"),
            ("services.web.environment[]", "services|web|environment|"),
            ("services.web.volumes[1].bind.path", "services|web|volumes|1|bind|path"),
        ] {
            assert_eq!(steps(path, services.into_iter()).join("|"), expected);
        }
    }
}
