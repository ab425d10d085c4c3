//! Builds: several at once, those that start alike one after the other, so that the later ones find the earlier ones' layers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use futures_util::{StreamExt as _, stream};

use crate::api::types::ObjectState;
use crate::cli::board::Event;
use crate::cli::context::ensure_demo_image;
use crate::cli::error::CliError;
use crate::cli::images::is_own;
use crate::cli::progress::while_shown;
use crate::cli::ui::Ui;
use crate::engine::{BuildSpec, BuildStep, Engine, EngineError, label};
use crate::ids::ServiceName;
use crate::model::{self, Repository, Ulimit};
use crate::snapshot::context::{Context, Instructions, Problem};
use crate::transport::git::{self, Checkout};
use crate::transport::login::Logins;

use super::choice::{Builder, Offered, choose, parse_cache, refuse};
use super::kit::{self, Held};
use super::{BuiltImage, bases};

/// Most builds at once where nobody says otherwise: each is work for the engine's disk and processors.
const AT_ONCE: usize = 4;

/// Lines of a build that are shown when it fails.
const LAST_LINES: usize = 10;

/// How images are built.
#[derive(Debug, Clone, Default)]
pub(crate) struct MakeOptions {
    /// Take no layers of earlier builds.
    pub no_cache: bool,
    /// Pull base images anew.
    pub pull: bool,
    /// Variables, over those of the file.
    pub args: BTreeMap<String, String>,
    /// Bytes of memory at most.
    pub memory: Option<u64>,
    /// Do not show what the builds say.
    pub quiet: bool,
    /// At the same time; below 1: a few.
    pub parallel: i32,
    /// Agents and keys, over those of the file: `default`, `ID=PATH`.
    pub ssh: Vec<String>,
    /// What is attested of how the image was made, over what the file says: `true`, `false`, `mode=max`.
    pub provenance: Option<String>,
    /// Whether what is in the image is attested, over what the file says: `true`, `false`, `generator=…`.
    pub sbom: Option<String>,
    /// Whether `BuildKit` is wanted: the value of `DOCKER_BUILDKIT`.
    pub buildkit: Option<String>,
}

impl MakeOptions {
    /// Returns what the environment says of builds.
    pub(crate) fn of_environment() -> Self {
        Self { buildkit: std::env::var("DOCKER_BUILDKIT").ok(), ..Self::default() }
    }
}

/// Builds images. Returns their ids, by name.
///
/// # Errors
/// [`CliError::Builds`] with all that failed.
pub(crate) async fn make(
    ui: &mut Ui,
    engine: &dyn Engine,
    builds: Vec<BuiltImage>,
    options: &MakeOptions,
    logins: &Logins,
) -> Result<BTreeMap<String, String>, CliError> {
    let offered = check(engine, &builds, options).await?;
    let at_once = usize::try_from(options.parallel).ok().filter(|limit| *limit > 0).unwrap_or(AT_ONCE);
    let (mut ids, mut failures) = (BTreeMap::new(), Vec::new());
    for wave in waves(builds) {
        let done = while_shown(ui, "Building", async |show| {
            let rows = stream::iter(rows(wave)).map(async |row: Vec<BuiltImage>| {
                let mut done = Vec::new();
                for build in row {
                    let builder = choose(&build, options, &offered).unwrap_or(Builder::Classic);
                    let how = How { builder, options, logins };
                    done.push((build.image.clone(), one(engine, &build, how, show).await));
                }
                done
            });
            rows.buffer_unordered(at_once).collect::<Vec<_>>().await.concat()
        });
        for (image, result) in done.await {
            match result {
                Ok(id) => drop(ids.insert(image, id)),
                Err(message) => failures.push(message),
            }
        }
        logins.take_problems().iter().for_each(|problem| ui.warn(problem));
        if !failures.is_empty() {
            failures.sort_unstable();
            return Err(CliError::Builds(failures));
        }
    }
    Ok(ids)
}

/// Looks whether all of it can be built on an engine, before anything is. Returns what there is to build with.
///
/// # Errors
/// What no builder at hand can do, each with its place.
pub(crate) async fn check(
    engine: &dyn Engine,
    builds: impl IntoIterator<Item = &BuiltImage>,
    options: &MakeOptions,
) -> Result<Offered, CliError> {
    let offered = Offered::new(engine.buildkit().await?, options.buildkit.as_deref())?;
    let refused = builds.into_iter().filter_map(|build| Some((build, choose(build, options, &offered).err()?)));
    let refused: Vec<_> = refused.collect();
    if refused.is_empty() { Ok(offered) } else { Err(refuse(&refused)) }
}

/// Puts what others depend on before them: an image may start from another one.
fn waves(mut builds: Vec<BuiltImage>) -> Vec<Vec<BuiltImage>> {
    let mut waves = Vec::new();
    while !builds.is_empty() {
        let left: BTreeSet<ServiceName> = builds.iter().map(|build| build.service.clone()).collect();
        let waits = |build: &BuiltImage| build.after.iter().any(|name| left.contains(name));
        let (later, mut now): (Vec<_>, Vec<_>) = builds.into_iter().partition(waits);
        builds = later;
        if now.is_empty() {
            // A circle, which `up` refuses and a build does not care about.
            now = std::mem::take(&mut builds);
        }
        waves.push(now);
    }
    waves
}

/// Puts together what is built of the same instructions, or makes the same image. What is built twice in all is left out.
fn rows(builds: Vec<BuiltImage>) -> Vec<Vec<BuiltImage>> {
    let mut rows: Vec<Vec<BuiltImage>> = Vec::new();
    let start = |build: &BuiltImage| {
        let model::Build { context, dockerfile, dockerfile_inline, .. } = &build.source;
        (context.clone(), dockerfile.clone(), dockerfile_inline.clone())
    };
    for build in builds {
        let alike = |other: &BuiltImage| start(other) == start(&build) || other.image == build.image;
        match rows.iter_mut().find(|row| row.iter().any(alike)) {
            Some(row) if row.iter().any(|other| other.image == build.image && other.source == build.source) => {}
            Some(row) => row.push(build),
            None => rows.push(vec![build]),
        }
    }
    rows
}

/// How one image is built.
#[derive(Clone, Copy)]
struct How<'a> {
    builder: Builder,
    options: &'a MakeOptions,
    logins: &'a Logins,
}

/// Builds one image. Returns its id, or what went wrong as text for the user.
async fn one(engine: &dyn Engine, build: &BuiltImage, how: How<'_>, show: &dyn Fn(Event)) -> Result<String, String> {
    let tell = |status: &str, state, detail| {
        show(Event { id: format!("Service {}", build.service), status: status.to_owned(), state, detail });
    };
    tell("Building", ObjectState::Working, None);
    let mut last = VecDeque::new();
    let said = |line: &str| {
        if !how.options.quiet {
            tell("Building", ObjectState::Working, Some(line.to_owned()));
        }
    };
    match run(engine, build, how, &mut last, &said).await {
        Ok(id) => {
            tell("Built", ObjectState::Done, None);
            Ok(id)
        }
        Err(why) => {
            tell("Error", ObjectState::Error, None);
            let why = format!("service `{}` could not be built: {why}", build.service);
            Err(last.into_iter().fold(why, |text, line| text + "\n  | " + &line))
        }
    }
}

async fn run(
    engine: &dyn Engine,
    build: &BuiltImage,
    how: How<'_>,
    last: &mut VecDeque<String>,
    said: &dyn Fn(&str),
) -> Result<String, String> {
    let source = &build.source;
    let inline = source.dockerfile_inline.as_deref().filter(|text| !text.is_empty());
    let file = source.dockerfile.as_deref().unwrap_or_default();
    let instructions = inline.map_or(Instructions::File(file), Instructions::Text);
    let named = source.context.as_deref().unwrap_or(".");
    let repository = Repository::parse(named);
    let fetched = match &repository {
        Some(repository) => {
            said(&format!("Fetching {named}"));
            Some(git::fetch(repository).await.map_err(|error| error.to_string())?)
        }
        None => None,
    };
    let root = fetched.as_ref().map_or(Path::new(named), Checkout::directory);
    let context = Context::open(root, instructions).map_err(|error| error.to_string())?;
    let mut spec = spec(build, how);
    let cached =
        source.cache_from.iter().map(|entry| parse_cache(entry)).filter_map(|mut entry| entry.attributes.remove("ref"));
    let further = source.additional_contexts.values().filter_map(|place| place.strip_prefix("docker-image://"));
    let named = cached.chain(further.map(str::to_owned));
    for image in bases::images(context.instructions(), &spec.args).into_iter().chain(named) {
        if is_own(&image) {
            ensure_demo_image(engine).await.map_err(|error| error.to_string())?;
            continue;
        }
        let login = how.logins.find(&image).await;
        spec.logins.extend(login.filter(|login| !spec.logins.contains(login)));
    }
    let (mut held, mut problem) = (Held::default(), Problem::default());
    let mut steps = match how.builder {
        Builder::Classic => {
            context.dockerfile().clone_into(&mut spec.dockerfile);
            let (archive, found) = context.packed();
            problem = found;
            engine.build(&spec, archive)
        }
        Builder::Kit => {
            let kit = kit::kit(build, how.options, context, &mut held, said).await?;
            engine.build_with(&spec, kit)
        }
    };
    let mut made = None;
    let mut line = String::new();
    while let Some(step) = steps.next().await {
        match step {
            Ok(BuildStep::Said(text)) => {
                line.push_str(&text);
                while let Some((whole, rest)) = line.split_once('\n') {
                    hear(whole, last, said);
                    line = rest.to_owned();
                }
            }
            Ok(BuildStep::Pulling(_)) => {}
            Ok(BuildStep::Failing(lines)) => *last = lines.into(),
            Ok(BuildStep::Made(id)) => made = Some(id),
            Err(error) => {
                hear(&line, last, said);
                return Err(problem.get().map_or_else(|| words(&error), ToString::to_string));
            }
        }
    }
    drop(steps);
    match made {
        // By its name, which is what containers are made of.
        Some(_) => {
            let id = engine.image_id(spec.name()).await.map_err(|error| error.to_string())?;
            id.ok_or_else(|| "the engine does not have the image that it made".to_owned())
        }
        None => Err("the engine did not say what it made".to_owned()),
    }
}

/// Takes in a line that a build said.
fn hear(line: &str, last: &mut VecDeque<String>, said: &dyn Fn(&str)) {
    let line = line.trim_end();
    if line.trim().is_empty() {
        return;
    }
    said(line);
    last.push_back(line.to_owned());
    if last.len() > LAST_LINES {
        last.pop_front();
    }
}

/// The engine's words for a step that failed; what it is about is said by the caller.
fn words(error: &EngineError) -> String {
    match error {
        EngineError::Refused { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// Source of the labels: Docker Compose 2.40, pkg/compose/build.go `getImageBuildLabels`.
fn spec(build: &BuiltImage, How { builder, options, .. }: How<'_>) -> BuildSpec {
    let model::Build {
        args,
        cache_from,
        extra_hosts,
        // Loading warns of it.
        isolation: _,
        labels,
        network,
        no_cache,
        pull,
        shm_size,
        tags,
        target,
        ulimits,
        // Elsewhere: the context and its instructions, and the platform.
        context: _,
        dockerfile: _,
        dockerfile_inline: _,
        platforms: _,
        // `kit`, or refused by `choice`.
        additional_contexts: _,
        cache_to: _,
        entitlements: _,
        no_cache_filter: _,
        privileged: _,
        provenance: _,
        sbom: _,
        secrets: _,
        ssh: _,
        extensions: _,
    } = &build.source;
    let mut all_labels = labels.clone();
    all_labels.extend([
        (label::PROJECT.to_owned(), build.project.clone()),
        (label::SERVICE.to_owned(), build.service.to_string()),
        (label::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    if builder == Builder::Classic {
        all_labels.insert(label::IMAGE_BUILDER.to_owned(), "classic".to_owned());
    }
    let mut all_args: BTreeMap<String, String> =
        args.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
    all_args.extend(options.args.clone());
    let mut names = vec![build.image.clone()];
    names.extend(tags.iter().filter(|tag| **tag != build.image).cloned());
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let limit = |limit: &Ulimit| match *limit {
        Ulimit::Single(both) => (both, both),
        Ulimit::Pair { soft, hard } => (soft, hard),
    };
    BuildSpec {
        dockerfile: kit::DOCKERFILE.to_owned(),
        names,
        args: all_args,
        labels: all_labels,
        target: some(target),
        cache_from: cache_from
            .iter()
            .map(|entry| parse_cache(entry).attributes.remove("ref").unwrap_or_else(|| entry.clone()))
            .collect(),
        network: some(network),
        extra_hosts: extra_hosts.iter().map(|line| line.replacen('=', ":", 1)).collect(),
        shm_size: shm_size.and_then(|size| u64::try_from(size.0).ok()).filter(|size| *size > 0),
        memory: options.memory,
        ulimits: ulimits.iter().map(|(name, both)| (name.clone(), limit(both))).collect(),
        no_cache: *no_cache || options.no_cache,
        pull: *pull || options.pull,
        platform: build.platform.clone(),
        logins: Vec::new(),
    }
}
