//! Which changes of files matter to which service, and what follows from them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::cli::carry::Written;
use crate::cli::error::CliError;
use crate::cli::project::place;
use crate::diag::{Diagnostic, Diagnostics};
use crate::ids::ServiceName;
use crate::load::Loaded;
use crate::model::{self, Hook, MountType, Repository, Service};
use crate::snapshot::Rules;
use crate::snapshot::context::{Instructions, ignore_files, left_out};

/// What is never brought anywhere: what editors write beside the files that they are about, and the repository itself.
/// Source: Docker Compose 2.40, pkg/watch/ephemeral.go, and its documentation, which names `.git` too.
const NEVER: &str = "**/.git
**/*___jb_old___
**/*___jb_tmp___
**/.idea/**
**/.#*
**/#*#
**/4913
**/*~
**/.*.swp
**/.*.swx
**/.*.swo
**/.*.swn
**/.*.kate-swp
**/*-go-tmp-umask
";

/// What follows from a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The image is built and the containers are made anew.
    Rebuild,
    /// The containers are restarted.
    Restart,
    /// The files get into the containers.
    Sync,
    /// They do, and then the containers are restarted.
    SyncRestart,
    /// They do, and then a command is run there.
    SyncExec,
}

impl Action {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "rebuild" => Self::Rebuild,
            "restart" => Self::Restart,
            "sync" => Self::Sync,
            "sync+restart" => Self::SyncRestart,
            "sync+exec" => Self::SyncExec,
            _ => return None,
        })
    }

    /// Returns whether files get into containers.
    pub(crate) fn syncs(self) -> bool {
        matches!(self, Self::Sync | Self::SyncRestart | Self::SyncExec)
    }
}

/// A path that is watched for a service.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// The service.
    pub service: ServiceName,
    /// The path, absolute.
    pub path: PathBuf,
    /// What follows.
    pub action: Action,
    /// The path in containers, absolute; empty where nothing is brought there.
    pub target: String,
    /// What is run in containers.
    pub exec: Hook,
    /// Whether all is brought before the first change.
    pub initial: bool,
    /// What of the path matters.
    pub filter: Filter,
    /// As it is written, to know it again when the file has changed.
    written: model::Watch,
}

impl Rule {
    /// Returns whether two rules are about the same files and bring them to the same place.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.service == other.service && self.written == other.written
    }

    /// Returns whether a change of an absolute path may be one of the rule's files.
    pub(crate) fn concerns(&self, path: &Path) -> bool {
        match path.strip_prefix(&self.path) {
            Ok(below) => below.as_os_str().is_empty() || self.filter.enters(below),
            Err(_) => self.path.starts_with(path),
        }
    }

    /// Returns the path in a container of what has this path from the rule's own on.
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { PathBuf::from(&self.target) } else { Path::new(&self.target).join(path) }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, path, action: _, target, exec: _, initial: _, filter: _, written } = self;
        write!(f, "watch {} for service {service}: {}", path.display(), written.action)?;
        if target.is_empty() { Ok(()) } else { write!(f, " to {target}") }
    }
}

/// What of a path matters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    root: PathBuf,
    ignored: Rules,
    /// Nothing but this; `None`: all.
    included: Option<Rules>,
    never: Rules,
    /// The directory that the image is built of, and what such a build leaves out.
    context: Option<(PathBuf, Rules)>,
    /// Mounted from this machine: is there anyhow.
    mounted: Vec<PathBuf>,
}

impl Filter {
    /// Returns whether a change of `path`, from the rule's own on, matters.
    pub(crate) fn takes(&self, path: &Path) -> bool {
        let included = self.included.as_ref().is_none_or(|rules| rules.leave_out(path));
        included && !self.is_ignored(path).0
    }

    /// Returns whether something in the directory `path` may matter.
    pub(crate) fn enters(&self, path: &Path) -> bool {
        let (ignored, for_good) = self.is_ignored(path);
        !(ignored && for_good)
    }

    /// Whether it is left out, and whether that goes for all below too.
    fn is_ignored(&self, path: &Path) -> (bool, bool) {
        let whole = self.root.join(path);
        if self.mounted.iter().any(|mounted| whole.starts_with(mounted)) || self.never.leave_out(path) {
            return (true, true);
        }
        let context = self.context.as_ref().and_then(|(root, rules)| Some((rules, whole.strip_prefix(root).ok()?)));
        let fits = [Some((&self.ignored, path)), context].into_iter().flatten();
        let fits: Vec<_> = fits.filter(|(rules, path)| rules.leave_out(path)).collect();
        (!fits.is_empty(), fits.iter().any(|(rules, path)| !rules.take_back_below(path)))
    }
}

/// What is watched.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// The rules, in the order of services and of the file.
    pub rules: Vec<Rule>,
    /// What is doubtful.
    pub warnings: Vec<String>,
    /// The ignore files of builds that count, or would if they were there.
    pub ignore_files: BTreeSet<PathBuf>,
}

/// Reads what the chosen services, and those that they depend on, have watched; none chosen: all.
///
/// # Errors
/// What makes no sense, with its place; [`CliError::NothingWatched`].
pub(crate) fn read(loaded: &Loaded, chosen: &[ServiceName]) -> Result<Watched, CliError> {
    let (mut watched, mut problems) = (Watched::default(), Vec::new());
    for (name, service) in &loaded.model.services {
        if !chosen.is_empty() && !needed(loaded, chosen).contains(name) {
            continue;
        }
        let context = match context(service) {
            Ok(context) => context.map(|(root, rules, files)| {
                watched.ignore_files.extend(files.into_iter().filter(|_| service.develop.is_some()));
                (root, rules)
            }),
            Err(problem) => {
                problems.push(place(loaded, &format!("services.{name}.build"), Diagnostic::error(problem)));
                continue;
            }
        };
        let mounted = mounted(service);
        for (at, written) in service.develop.iter().flat_map(|develop| &develop.watch).enumerate() {
            let filter = Filter { context: context.clone(), mounted: mounted.clone(), ..Filter::default() };
            match rule(name, service, written, filter) {
                Ok(rule) if rule.action.syncs() && mounted.iter().any(|mounted| rule.path.starts_with(mounted)) => {
                    watched.warnings.push(format!(
                        "service `{name}`: `{}` is mounted into its containers already, and not watched",
                        rule.path.display()
                    ));
                }
                Ok(rule) => watched.rules.push(rule),
                Err(wrong) => {
                    let (key, problem) = *wrong;
                    let path = format!("services.{name}.develop.watch[{at}]{key}");
                    problems.push(place(loaded, &path, problem));
                }
            }
        }
    }
    if !problems.is_empty() {
        let sources = std::sync::Arc::new(loaded.warnings.sources().clone());
        return Err(CliError::Files(Diagnostics::new(problems, sources)));
    }
    if watched.rules.is_empty() && watched.warnings.is_empty() {
        return Err(CliError::NothingWatched);
    }
    Ok(watched)
}

/// The chosen services and all that they depend on.
fn needed(loaded: &Loaded, chosen: &[ServiceName]) -> Vec<ServiceName> {
    let mut all = chosen.to_vec();
    let mut at = 0;
    while let Some(name) = all.get(at) {
        let service = loaded.model.services.get(name);
        let further: Vec<_> = service.into_iter().flat_map(|service| service.depends_on.keys()).cloned().collect();
        all.extend(further.into_iter().filter(|name| !all.contains(name)).collect::<Vec<_>>());
        at += 1;
    }
    all
}

/// The directory that an image is built of, what the build leaves out, and the files that say so.
fn context(service: &Service) -> Result<Option<(PathBuf, Rules, Vec<PathBuf>)>, String> {
    let Some(build) = &service.build else { return Ok(None) };
    let named = build.context.as_deref().unwrap_or(".");
    if Repository::parse(named).is_some() {
        return Ok(None);
    }
    let inline = build.dockerfile_inline.as_deref().filter(|text| !text.is_empty());
    let file = build.dockerfile.as_deref().unwrap_or_default();
    let instructions = inline.map_or(Instructions::File(file), Instructions::Text);
    let rules = left_out(Path::new(named), instructions).map_err(|error| error.to_string())?;
    Ok(Some((PathBuf::from(named), rules, ignore_files(Path::new(named), instructions))))
}

fn mounted(service: &Service) -> Vec<PathBuf> {
    let binds = service.volumes.iter().filter(|volume| volume.kind == MountType::Bind);
    binds.filter_map(|volume| volume.source.as_ref().map(PathBuf::from)).collect()
}

fn rule(
    name: &ServiceName,
    service: &Service,
    written: &model::Watch,
    filter: Filter,
) -> Result<Rule, Box<(&'static str, Diagnostic)>> {
    let model::Watch { path, action, exec, ignore, include, initial_sync, target, extensions: _ } = written;
    let spec = "develop.md#action";
    let unknown = || Box::new((".action", Diagnostic::error(format!("`{action}` is no action")).spec(spec)));
    let action = Action::named(action).ok_or_else(unknown)?;
    if action == Action::Rebuild && service.build.is_none() {
        let problem = format!("service `{name}` cannot be rebuilt: nothing says how it is built");
        return Err(Box::new((
            ".action",
            Diagnostic::error(problem).help("give it a `build`, or use `restart`").spec(spec),
        )));
    }
    if action == Action::SyncExec && exec.command.as_ref().is_none_or(Vec::is_empty) {
        let problem = format!("service `{name}`: `sync+exec` has no command");
        return Err(Box::new((
            "",
            Diagnostic::error(problem).help("say it with `exec: {command: …}`").spec("develop.md#exec"),
        )));
    }
    let patterns = |key, list: &[String]| {
        Rules::parse(&list.join("\n")).map_err(|error| {
            let pattern = list.get(error.line - 1).map(String::as_str).unwrap_or_default();
            Box::new((key, Diagnostic::error(format!("`{pattern}` is no pattern: {}", error.reason))))
        })
    };
    let filter = Filter {
        root: PathBuf::from(path),
        ignored: patterns(".ignore", ignore)?,
        included: if include.is_empty() { None } else { Some(patterns(".include", include)?) },
        never: Rules::parse(NEVER).map_err(|error| Box::new(("", Diagnostic::error(error.to_string()))))?,
        // What is mounted changes by itself, which a restart may well follow.
        mounted: if action.syncs() { filter.mounted } else { Vec::new() },
        context: filter.context,
    };
    let target = target.as_ref().filter(|_| action.syncs());
    Ok(Rule {
        service: name.clone(),
        path: PathBuf::from(path),
        action,
        target: target.map(|target| Written::new(target, "").path).unwrap_or_default(),
        exec: exec.clone(),
        initial: *initial_sync && action.syncs(),
        filter,
        written: written.clone(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::load::{LoadRequest, MemoryFiles, load};

    /// Loads a service `web` that is watched so.
    pub(in super::super) fn watched(service: &str) -> Result<Watched, CliError> {
        let files = MemoryFiles::new([("/src/compose.yaml", format!("services:\n  web: {service}\n"))]);
        let request = LoadRequest {
            cwd: PathBuf::from("/src"),
            project_name: Some("shop".to_owned()),
            environment: BTreeMap::new(),
            ..LoadRequest::default()
        };
        read(&load(&files, &request).map_err(CliError::Files)?, &[])
    }

    fn only(rule: &str) -> Rule {
        let service = format!("{{image: x, develop: {{watch: [{rule}]}}}}");
        watched(&service).expect("read").rules.remove(0)
    }

    #[test]
    fn what_matters_is_said_by_patterns() {
        let sync = |more: &str| format!("{{path: ./app, action: sync, target: /app{more}}}");
        for (more, path, matters) in [
            ("", "main.py", true),
            ("", "deep/er/main.py", true),
            ("", ".git/index", false),
            ("", "deep/.git", false),
            ("", ".gitignore", true),
            ("", "main.py~", false),
            ("", ".main.py.swp", false),
            ("", "deep/4913", false),
            ("", "deep/.#main.py", false),
            ("", "deep/.idea/workspace.xml", false),
            (", ignore: node_modules/", "node_modules/x/y.js", false),
            (", ignore: node_modules/", "deep/node_modules/x/y.js", true),
            (", ignore: ['**/node_modules']", "deep/node_modules/x/y.js", false),
            (", ignore: ['*.md', '!README.md']", "README.md", true),
            (", ignore: ['*.md', '!README.md']", "NEWS.md", false),
            (", include: ['**/*.py']", "deep/main.py", true),
            (", include: ['**/*.py']", "deep/main.js", false),
            (", include: src, ignore: src/gen", "src/a.py", true),
            (", include: src, ignore: src/gen", "src/gen/a.py", false),
            (", include: src, ignore: src/gen", "main.py", false),
        ] {
            let rule = only(&sync(more));
            assert_eq!(rule.filter.takes(Path::new(path)), matters, "{more} {path}");
        }
    }

    #[test]
    fn directories_are_entered_where_something_in_them_may_matter() {
        let sync = |more: &str| format!("{{path: ./app, action: sync, target: /app{more}}}");
        for (more, path, enters) in [
            ("", "deep", true),
            ("", ".git", false),
            (", ignore: node_modules", "node_modules", false),
            (", ignore: [node_modules, '!node_modules/own']", "node_modules", true),
            (", ignore: [node_modules, '!node_modules/own']", "node_modules/own", true),
            (", ignore: [node_modules, '!node_modules/own']", "node_modules/other", false),
            (", ignore: [node_modules, '!kept']", "node_modules", false),
            (", ignore: [node_modules, '!**/kept']", "node_modules/x", true),
            (", include: ['**/*.py']", "deep", true),
        ] {
            assert_eq!(only(&sync(more)).filter.enters(Path::new(path)), enters, "{more} {path}");
        }
    }

    #[test]
    fn the_ignore_file_of_the_build_counts_from_the_context_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        std::fs::write(root.join(".dockerignore"), "app/*.log\n").expect("written");
        let filter = |dockerfile: &str| {
            let service = format!(
                "{{build: {{context: {0}, dockerfile: {dockerfile}}}, \
                 develop: {{watch: [{{path: {0}/app, action: sync, target: /app}}]}}}}",
                root.display()
            );
            watched(&service).expect("read").rules.remove(0).filter
        };
        assert!(!filter("Dockerfile").takes(Path::new("a.log")));
        assert!(filter("Dockerfile").takes(Path::new("deep/a.log")));
        std::fs::write(root.join("Other"), "FROM x\n").expect("written");
        std::fs::write(root.join("Other.dockerignore"), "**/*.tmp\n").expect("written");
        assert!(filter("Other").takes(Path::new("a.log")));
        assert!(!filter("Other").takes(Path::new("deep/a.tmp")));
    }

    #[test]
    fn what_is_mounted_is_not_watched() {
        let service = "{image: x, volumes: ['./app:/app', './app/data:/data'], develop: {watch: [
            {path: ./app, action: sync, target: /app}, {path: ./app/x, action: restart}, {path: ., action: sync, target: /srv}]}}";
        let Watched { rules, warnings, .. } = watched(service).expect("read");
        assert_eq!(warnings, ["service `web`: `/src/app` is mounted into its containers already, and not watched"]);
        assert_eq!(rules.iter().map(|rule| rule.action).collect::<Vec<_>>(), [Action::Restart, Action::Sync]);
        assert!(!rules[1].filter.takes(Path::new("app/x")) && rules[1].filter.takes(Path::new("application")));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (service, words) in [
            ("{image: x, develop: {watch: [{path: a, action: rebuild}]}}", "service `web` cannot be rebuilt"),
            ("{image: x, develop: {watch: [{path: a, action: sync+exec, target: /a}]}}", "`sync+exec` has no command"),
            ("{image: x, develop: {watch: [{path: a, action: restart, ignore: ['b', '[']}]}}", "`[` is no pattern"),
        ] {
            let error = watched(service).expect_err(service).to_string();
            assert!(error.contains(words) && error.contains("compose.yaml:2:"), "{error}");
        }
        assert!(matches!(watched("{image: x}"), Err(CliError::NothingWatched)));
    }
}
