//! From compose files to the typed model: all of the Compose Specification's own steps, in Docker Compose's order.
//!
//! Start at [`load`]: it reads like the list of phases. Each phase is a function over the tree of [`node`]s, which
//! keeps the place of everything; what may stand where is in ONE table, [`rules`]. Nothing here knows a clock, the
//! process environment or the network, and files are read through [`Files`] only. Problems are collected, not returned
//! one by one: a phase goes on with what it understands.
//!
//! Limits: 4 MiB a file, 100 levels, 250,000 values of a file and 100,000 more by aliases, 250,000 of all files that
//! are included or extended, 1 MiB of a text with variables and 32 MiB of all that variables and their files make, so that no
//! input takes long or fills the memory.

mod applied;
mod assemble;
mod check;
mod discover;
mod dotenv;
mod emit;
mod expanded;
mod extends;
pub mod flags;
mod helpers;
mod hosts;
mod include;
mod indents;
pub mod interpolate;
mod keys;
mod long;
mod merge;
mod node;
mod normalise;
mod path;
pub mod patterns;
mod profiles;
mod rebase;
mod report;
mod resolve;
mod rules;
mod scalar;
mod schema;
mod slips;
mod source;
mod typed;
mod validate;
mod values;
pub mod views;
mod words;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::diag::{Diagnostics, Span};
use crate::ids::{ProjectName, ResourceKey, ServiceName};
use crate::model::{ComposeHashes, Model, compose_hashes};

use assemble::{Document, Reading, Scope};
use node::{Node, Value};
use report::Report;
use rules::{Keys, Rules};
use values::Variables;

pub use applied::{Element, Standing, elements};
pub use discover::NO_FILE;
pub use emit::to_yaml;
pub use hosts::{edit_hosts, parse_hosts};
pub use schema::schema;
pub use source::{Files, MAX_FILE, MemoryFiles, OsFiles};
pub use views::{render_json, render_yaml};

/// What to load. Everything that a process would look up by itself is a value here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadRequest {
    /// Directory that the command runs in; absolute.
    pub cwd: PathBuf,
    /// `-f`: files, later ones over earlier ones; `-` is standard input. Empty: `COMPOSE_FILE`, then a search upwards.
    pub files: Vec<String>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--project-directory`.
    pub project_directory: Option<String>,
    /// `--env-file`, instead of `.env`.
    pub env_files: Vec<String>,
    /// `--profile`; empty: `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    /// Services named on the command line: their profiles are switched on, and [`LoadOptions::selection`] applies.
    pub services: Vec<String>,
    /// Environment of the process; it wins over `.env`.
    pub environment: BTreeMap<String, String>,
    /// How far to go.
    pub options: LoadOptions,
}

/// How far to go; the default is what `up` needs. Each is an option of `config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Replace variables (off: `--no-interpolate`).
    pub interpolate: bool,
    /// Fill in names, the default network and implied dependencies (off: `--no-normalize`).
    pub normalise: bool,
    /// Make paths absolute (off: `--no-path-resolution`).
    pub resolve_paths: bool,
    /// Check that what is referred to exists (off: `--no-consistency`).
    pub consistency: bool,
    /// Read `env_file`s (off: `--no-env-resolution`).
    pub resolve_environment: bool,
    /// Keep networks, volumes, configs and secrets that no service uses (`--all-resources`).
    pub all_resources: bool,
    /// Refuse what is understood, but not applied yet (see `docs/compose-compat.md`).
    pub applied: bool,
    /// Read what configs and secrets hold into [`Loaded::contents`], and what seccomp profiles hold into the model; a
    /// missing file is an error only then.
    pub contents: bool,
    /// Compute Docker Compose's hashes ([`Model::hashes`]), which takes a tenth of the time.
    pub hashes: bool,
    /// What becomes of services that were not named when others were.
    pub selection: Selection,
    /// What becomes of orch's own keys.
    pub own_keys: OwnKeys,
}

/// What becomes of orch's own keys in what [`render_yaml`] prints. What they mean is in the model either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnKeys {
    /// Patterns are used; services without any are printed as they are written.
    #[default]
    Used,
    /// Patterns are left alone, and all is printed as it is written, as Docker Compose does: for `config`.
    AsWritten,
    /// Patterns are used, and all is printed in its long form: for `config --expanded`.
    Expanded,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            interpolate: true,
            normalise: true,
            resolve_paths: true,
            consistency: true,
            resolve_environment: true,
            all_resources: false,
            applied: true,
            contents: true,
            hashes: true,
            selection: Selection::All,
            own_keys: OwnKeys::Used,
        }
    }
}

/// Which services stay in the model when some are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Selection {
    /// All that are enabled: for `up`, which must know the whole project.
    #[default]
    All,
    /// Those named and what they depend on: for `config SERVICE…`.
    WithDependencies,
    /// Those named only: for `--no-deps`.
    Named,
}

/// Whether a file is a config or a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// Of the top level's `configs`.
    Config,
    /// Of the top level's `secrets`.
    Secret,
}

/// What configs and secrets hold.
pub type Contents = BTreeMap<(FileKind, ResourceKey), Vec<u8>>;

/// A loaded project.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The project.
    pub model: Model,
    /// What is doubtful, with the text of all files read.
    pub warnings: Diagnostics,
    /// Directory that relative paths start from.
    pub working_dir: PathBuf,
    /// The compose files, absolute (`-` is standard input); for the label `config_files`.
    pub config_files: Vec<PathBuf>,
    /// The project's environment: of the process, then `.env` or `--env-file`.
    pub environment: BTreeMap<String, String>,
    /// What configs and secrets hold, so that nothing after this reads a file.
    pub contents: Contents,
    /// Services that their profiles switch off, with those profiles.
    pub disabled: BTreeMap<ServiceName, Vec<String>>,
    /// All profiles that any service names.
    pub profiles: BTreeSet<String>,
    /// Variables that the files ask for.
    pub variables: Vec<views::VariableUse>,
    /// Whether patterns were used.
    pub with_patterns: bool,
    tree: Node,
}

impl Loaded {
    /// Returns the project as YAML with a comment behind each line that says where it comes from. For what was loaded
    /// with [`OwnKeys::Expanded`].
    pub fn render_expanded(&self) -> String {
        expanded::render(&self.tree, self.model.name.as_str(), self.warnings.sources())
    }

    /// Returns the project with its variables as they are written, for what was loaded without [`LoadOptions::interpolate`]:
    /// the model lacks what depends on them.
    pub fn as_written(&self) -> serde_json::Value {
        typed::as_written(&self.tree, self.model.name.as_str())
    }

    /// Returns where the value at `path` (`["services", "web", "ports", "0"]`) is written, or the nearest place above.
    pub fn place(&self, path: &[&str]) -> Option<Span> {
        let mut at = &self.tree;
        let mut span = None;
        for step in path {
            let next = match &at.value {
                Value::Map(map) => map.get(*step).map(|entry| (&entry.node, entry.key)),
                Value::Seq(items) => step.parse().ok().and_then(|n: usize| items.get(n)).map(|node| (node, node.span)),
                _ => None,
            };
            let Some((node, place)) = next else { break };
            (at, span) = (node, Some(place));
        }
        span
    }
}

/// Loads a project.
///
/// # Errors
/// All problems that could be found in one run.
pub fn load(files: &dyn Files, request: &LoadRequest) -> Result<Loaded, Diagnostics> {
    let mut report = Report::default();
    match run(files, request, &mut report) {
        Some(loaded) if !report.failed() => Ok(Loaded { warnings: report.finish(), ..loaded }),
        _ => Err(report.finish()),
    }
}

/// Returns the directory that relative paths of a project start from, also where there is no file.
pub fn working_dir(files: &dyn Files, request: &LoadRequest) -> PathBuf {
    discover::discover(files, request, &mut Report::default()).working_dir
}

/// Returns the variables that files are loaded with: those of the request, then those of files of variables.
pub fn variables(files: &dyn Files, request: &LoadRequest) -> BTreeMap<String, String> {
    discover::discover(files, request, &mut Report::default()).environment
}

/// The phases in order; `None` when there is nothing left to work on.
fn run(files: &dyn Files, request: &LoadRequest, report: &mut Report) -> Option<Loaded> {
    let options = &request.options;
    let mut discovered = discover::discover(files, request, report);
    let mut reading = Reading::new(files, &request.cwd, options.interpolate);
    let documents = assemble::parse(&discovered.config_files, &reading, report)?;
    let name = project_name(request, &mut discovered, &documents, report)?;
    let (directory, environment) = (&discovered.working_dir, &discovered.environment);
    let scope = Scope { directory, environment, chain: Vec::new() };
    let mut tree = assemble::unify(documents, &scope, &mut reading, report)?;
    let known = reading.keys();
    if options.own_keys != OwnKeys::Expanded || known == Keys::Specification {
        keep_written(&mut tree, rules::root(Keys::All), known);
    }
    let places = patterns::Places {
        files,
        cwd: &request.cwd,
        working_dir: &discovered.working_dir,
        environment: &request.environment,
    };
    let with_patterns = options.own_keys != OwnKeys::AsWritten && patterns::apply(&mut tree, &places, report);
    check::check(&mut tree, known, report);
    // Where variables stay, what they would make right or wrong is not known.
    if options.interpolate {
        validate::validate(&tree, options.consistency, report);
    }
    // A variable that stays as it is written is no address.
    let hosts = tree.get("x-hosts").filter(|_| options.interpolate);
    let hosts = hosts.map(|node| hosts::hosts(node, "x-hosts.", report)).unwrap_or_default();

    let profiles = tree.entries("services").flat_map(|(_, service)| profiles::profiles(&service.node)).collect();
    let disabled = profiles::apply(&mut tree, request, &discovered.environment, report);
    normalise::defaults(&mut tree);
    if options.consistency {
        normalise::replicas(&mut tree);
    }
    if options.normalise {
        normalise::normalise(&mut tree, name.as_str());
        resolve::build_arguments(&mut tree, &discovered.environment, report);
    } else {
        fill_nulls(&mut tree);
        helpers::each_container(&mut tree, &mut normalise::secret_targets);
    }
    let understood = keys::understand(&tree, name.as_str(), &disabled, options, report);
    // Services that are named alone may need others all the same, as those do whose image is built.
    let before = options.selection == Selection::Named;
    let references = |tree: &Node, report: &mut Report| match (options.interpolate, options.consistency) {
        (false, _) => {}
        (true, true) => validate::references(tree, &disabled, report),
        (true, false) => validate::names(tree, report),
    };
    if before {
        references(&tree, report);
    }
    profiles::select(&mut tree, request);
    if !before {
        references(&tree, report);
    }
    if !options.all_resources && options.interpolate {
        normalise::drop_unused(&mut tree);
    }
    if options.applied {
        applied::refuse(&tree, report);
    }
    let around = resolve::Surroundings {
        files,
        cwd: &request.cwd,
        working_dir: &discovered.working_dir,
        environment: &discovered.environment,
        given: &reading.given,
    };
    resolved(&mut tree, options, &around, report);
    let written = resolve::security_options(&tree);
    let contents = if options.contents { resolve::contents(&tree, &around, report) } else { Contents::new() };
    if options.contents {
        resolve::profiles(&mut tree, &around, report);
    }
    if report.failed() {
        return None;
    }
    let model = if options.interpolate {
        typed::typed(&tree, name.as_str(), understood, report)?
    } else {
        typed::outline(&tree, name.as_str())?
    };
    let hashes = if options.hashes && options.interpolate { hashes(&model, written) } else { ComposeHashes::default() };
    Some(Loaded {
        model: Model { hosts, hashes, ..model },
        warnings: Diagnostics::default(),
        working_dir: discovered.working_dir,
        config_files: discovered.config_files,
        environment: discovered.environment,
        contents,
        disabled: disabled.into_iter().filter_map(|(name, of)| Some((ServiceName::new(name).ok()?, of))).collect(),
        profiles,
        variables: reading.variables.into_values().collect(),
        with_patterns,
        tree,
    })
}

/// Makes paths absolute, and gives names without a value and files of variables and labels theirs, as far as that is asked for.
fn resolved(tree: &mut Node, options: &LoadOptions, around: &resolve::Surroundings<'_>, report: &mut Report) {
    if options.resolve_paths {
        resolve::paths(tree, around);
    }
    if !options.interpolate {
        return;
    }
    if options.resolve_environment {
        resolve::environment(tree, around, report);
    } else {
        resolve::names(tree, around.environment);
    }
    resolve::labels(tree, around, report);
}

/// Docker Compose's hashes. It reads profiles of seccomp after that only.
fn hashes(model: &Model, security_options: BTreeMap<ServiceName, Vec<String>>) -> ComposeHashes {
    if security_options.is_empty() {
        return compose_hashes(model);
    }
    let mut written = model.clone();
    for (name, options) in security_options {
        if let Some(service) = written.services.get_mut(&name) {
            service.security_opt = options;
        }
    }
    compose_hashes(&written)
}

/// The project's name, which the files' variables may use as `COMPOSE_PROJECT_NAME`.
fn project_name(
    request: &LoadRequest,
    discovered: &mut discover::Discovered,
    documents: &[Document],
    report: &mut Report,
) -> Option<ProjectName> {
    let mut from_file = documents.iter().rev().find_map(|document| document.node.get("name")).cloned();
    if let Some(node) = &mut from_file {
        let enabled = request.options.interpolate;
        let mut variables = Variables { environment: &discovered.environment, missed: BTreeSet::new(), enabled };
        // What is wrong with it is reported when the whole file is interpolated.
        let mut unheard = Report::default();
        values::text(node, &path::Path::Root.key("name"), &mut variables, &mut unheard);
    }
    let name = discover::project_name(request, discovered, from_file.as_ref().and_then(Node::as_str), report)?;
    discovered.environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.to_string());
    Some(name)
}

/// A network, volume and the like about which nothing is said is one all the same.
fn fill_nulls(tree: &mut Node) {
    for kind in normalise::RESOURCES {
        let entries = tree.get_mut(kind).and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut());
        for entry in entries.filter(|entry| entry.node.is_null()) {
            entry.node.value = Value::map(node::Map::default());
        }
    }
}

/// Keeps how orch's own keys are written, which is what `config` prints, before anything is filled in or resolved.
/// Where they cannot be understood, nobody shall try.
fn keep_written(node: &mut Node, rules: &Rules, known: Keys) {
    for (key, entry) in node.as_map_mut().into_iter().flatten() {
        let Some(rules) = rules.key(key) else { continue };
        if !rules.rule().is_own() {
            keep_written(&mut entry.node, rules, known);
            continue;
        }
        entry.written = Some(Box::new(entry.node.as_written()));
        if known == Keys::Specification {
            entry.node.value = Value::Unknown;
        }
    }
}
