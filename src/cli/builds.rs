//! Images that are built: which ones, of what, and on which engine. Each is built once, by one engine; other hosts get what
//! it made.

mod bases;
mod choice;
mod kit;
mod make;
mod push;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt as _;

use crate::api::types::ObjectState;
use crate::engine::{Engine, EngineError, SecretSource};
use crate::graph::PullPolicy;
use crate::ids::ServiceName;
use crate::load::Loaded;
use crate::model;
use crate::transport::login::Logins;

use super::board::Event;
use super::error::CliError;
use super::progress::while_shown;
use super::ui::Ui;

pub(crate) use make::{MakeOptions, check, make};
pub(crate) use push::{PushOptions, push};

/// An image that a service has built for itself.
#[derive(Debug, Clone)]
pub(crate) struct BuiltImage {
    /// The service.
    pub service: ServiceName,
    /// The project, for labels.
    pub project: String,
    /// Name of the image.
    pub image: String,
    /// Whether the file names the image: a registry may have it.
    pub named: bool,
    /// What it is built of.
    pub source: model::Build,
    /// Platform that it is for.
    pub platform: Option<String>,
    /// The file's `pull_policy`.
    pub policy: Option<String>,
    /// Services that are built before it, should they be built too.
    pub after: Vec<ServiceName>,
    /// Images of services that it is built of besides, by their names.
    pub images: BTreeMap<String, String>,
    /// Secrets that it may read, by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Why it cannot have others that it asks for.
    pub lacking: Vec<String>,
    /// Where it is written.
    pub places: Option<choice::Places>,
}

/// Returns what the services of a project have built.
pub(crate) fn of(loaded: &Loaded) -> Vec<BuiltImage> {
    let model = &loaded.model;
    let sources = Arc::new(loaded.warnings.sources().clone());
    let build = |(name, service): (&ServiceName, &model::Service)| {
        let source = service.build.clone()?;
        let platform = source.platforms.first().or(service.platform.as_ref()).filter(|platform| !platform.is_empty());
        let images = other_images(model, &source);
        let (secrets, lacking) = secrets(loaded, &source);
        let others = images.keys().filter_map(|name| name.parse().ok());
        Some(BuiltImage {
            service: name.clone(),
            project: model.name.to_string(),
            image: service.image_name(&model.name, name)?,
            named: service.image.as_ref().is_some_and(|image| !image.is_empty()),
            platform: platform.cloned(),
            policy: service.pull_policy.clone(),
            after: service.depends_on.keys().cloned().chain(others).collect(),
            secrets,
            lacking,
            places: Some(choice::Places::of(loaded, name, &sources)),
            images,
            source,
        })
    };
    model.services.iter().filter_map(build).collect()
}

/// Returns the images of the services whose images a build has for further contexts.
fn other_images(model: &model::Model, source: &model::Build) -> BTreeMap<String, String> {
    let named = source.additional_contexts.values().filter_map(|place| place.strip_prefix("service:"));
    let image = |name: &str| {
        let (name, service) = model.services.iter().find(|(other, _)| other.as_str() == name)?;
        Some((name.to_string(), service.image_name(&model.name, name)?))
    };
    named.filter_map(image).collect()
}

/// Returns the secrets of a build by id, as the reference calls them, else as the top level does; and why others are not there.
fn secrets(loaded: &Loaded, source: &model::Build) -> (BTreeMap<String, SecretSource>, Vec<String>) {
    let (mut secrets, mut lacking) = (BTreeMap::new(), Vec::new());
    for reference in &source.secrets {
        let name = &reference.source;
        let secret = loaded.model.secrets.iter().find(|(key, _)| key.as_ref() == *name).map(|(_, secret)| secret);
        let (file, variable) =
            secret.map_or((None, None), |secret| (secret.file.as_ref(), secret.environment.as_ref()));
        let value = |variable: &String| loaded.environment.get(variable).cloned();
        let found = match (file, variable) {
            (Some(file), _) => Ok(SecretSource::File(PathBuf::from(file))),
            (None, Some(variable)) => value(variable)
                .map(SecretSource::Value)
                .ok_or_else(|| format!("the secret `{name}` is in the variable `{variable}`, which is not set")),
            (None, None) => Err(format!("the file does not say what the secret `{name}` holds")),
        };
        match found {
            Ok(found) => {
                let id = reference.target.as_ref().filter(|target| !target.is_empty()).unwrap_or(name);
                secrets.insert(id.clone(), found);
            }
            Err(why) => lacking.push(why),
        }
    }
    (secrets, lacking)
}

/// Takes the builds of some services, and those of whose images they are built.
pub(crate) fn with_contexts(all: Vec<BuiltImage>, is_asked: impl Fn(&ServiceName) -> bool) -> Vec<BuiltImage> {
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let asked = |build: &BuiltImage, wanted: &BTreeSet<String>| {
        is_asked(&build.service) || wanted.contains(build.service.as_str())
    };
    loop {
        let named = all.iter().filter(|build| asked(build, &wanted)).flat_map(|build| build.images.keys().cloned());
        let more: BTreeSet<String> = named.chain(wanted.iter().cloned()).collect();
        if more.len() == wanted.len() {
            break;
        }
        wanted = more;
    }
    all.into_iter().filter(|build| asked(build, &wanted)).collect()
}

#[cfg(test)]
impl BuiltImage {
    /// What a service builds that says nothing of it.
    fn of_service(service: ServiceName) -> Self {
        Self {
            project: "shop".to_owned(),
            image: format!("shop-{service}"),
            service,
            named: false,
            source: model::Build::default(),
            platform: None,
            policy: None,
            after: Vec::new(),
            images: BTreeMap::new(),
            secrets: BTreeMap::new(),
            lacking: Vec::new(),
            places: None,
        }
    }
}

/// When `up` builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum When {
    /// What is not there.
    #[default]
    Missing,
    /// All (`--build`).
    Always,
    /// Nothing (`--no-build`).
    Never,
}

/// What `up` does about images that are built.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// When they are built.
    pub when: When,
    /// `--pull`: instead of each service's own policy.
    pub pull: Option<PullPolicy>,
    /// Pull without showing progress.
    pub quiet_pull: bool,
    /// How.
    pub make: MakeOptions,
}

/// What is to be done about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is there.
    Keep,
    /// Build it.
    Build,
    /// Ask its registry, and build it where that has none.
    PullOrBuild,
    /// Ask its registry, and take what is there where that has none.
    PullOrKeep,
    /// Ask its registry.
    Pull,
    /// Nothing can be done.
    Lack,
}

impl BuiltImage {
    /// Source: Docker Compose 2.40, pkg/compose/pull.go `mustPull`, build.go `ensureImagesExists`.
    fn way(&self, here: bool, wish: &Wish) -> Way {
        let policy = match wish.pull {
            Some(PullPolicy::Always) => "always",
            Some(PullPolicy::Missing | PullPolicy::Every(_)) => "missing",
            Some(PullPolicy::Never) => "never",
            None => self.policy.as_deref().unwrap_or_default(),
        };
        let builds = wish.when == When::Always || policy == "build" && wish.when == When::Missing;
        let asks = self.named && !matches!(policy, "never" | "build");
        match (here, wish.when) {
            _ if builds => Way::Build,
            (true, _) if asks && policy == "always" => Way::PullOrKeep,
            (true, _) => Way::Keep,
            (false, When::Never) if asks => Way::Pull,
            (false, When::Never) => Way::Lack,
            (false, _) if asks => Way::PullOrBuild,
            (false, _) => Way::Build,
        }
    }
}

/// Makes the images of `builds` be on an engine. `elsewhere` are images that another host has: they are as good as there.
/// Returns their ids, by name.
///
/// # Errors
/// What cannot be built or had.
pub(crate) async fn ensure(
    ui: &mut Ui,
    engine: &dyn Engine,
    builds: Vec<BuiltImage>,
    elsewhere: BTreeMap<String, String>,
    wish: &Wish,
    logins: &Logins,
) -> Result<BTreeMap<String, String>, CliError> {
    let mut ids = elsewhere;
    let (mut todo, mut lacking) = (Vec::new(), Vec::new());
    for build in builds {
        let here = engine.image_id(&build.image).await?.or_else(|| ids.get(&build.image).cloned());
        match build.way(here.is_some(), wish) {
            Way::Keep => {
                ids.extend(here.map(|id| (build.image, id)));
            }
            Way::Build => todo.push(build),
            Way::Lack => lacking.push(missing(&build, None)),
            way @ (Way::PullOrBuild | Way::PullOrKeep | Way::Pull) => {
                match (pull(ui, engine, &build, wish.quiet_pull, logins).await, here, way) {
                    (Ok(Some(id)), _, _) | (Err(_) | Ok(None), Some(id), _) => {
                        ids.insert(build.image, id);
                    }
                    (Err(error), None, Way::Pull) => lacking.push(missing(&build, Some(&error))),
                    (_, None, _) => todo.push(build),
                }
            }
        }
    }
    logins.take_problems().iter().for_each(|problem| ui.warn(problem));
    if !lacking.is_empty() {
        return Err(CliError::Images(lacking));
    }
    if !todo.is_empty() {
        ids.extend(make(ui, engine, todo, &wish.make, logins).await?);
    }
    Ok(ids)
}

/// Returns what [`ensure`] would do about the images of `builds`, a line each, and changes nothing.
///
/// # Errors
/// What would not be built: see [`check`].
pub(crate) async fn preview(
    engine: &dyn Engine,
    builds: &[BuiltImage],
    elsewhere: &BTreeMap<String, String>,
    wish: &Wish,
) -> Result<Vec<String>, CliError> {
    let mut lines = Vec::new();
    let mut todo = Vec::new();
    for build in builds {
        let here = engine.image_id(&build.image).await?.is_some() || elsewhere.contains_key(&build.image);
        let what = match build.way(here, wish) {
            Way::Keep => continue,
            Way::Build => "build image",
            Way::PullOrBuild => "pull or build image",
            Way::PullOrKeep | Way::Pull => "pull image",
            Way::Lack => return Err(CliError::Images(vec![missing(build, None)])),
        };
        todo.extend(what.contains("build").then_some(build));
        lines.push(format!("{what} {} of service {}", build.image, build.service));
    }
    check(engine, todo, &wish.make).await?;
    Ok(lines)
}

/// Asks a registry for an image. That there is none is no fault: it can be built.
async fn pull(
    ui: &mut Ui,
    engine: &dyn Engine,
    build: &BuiltImage,
    quiet: bool,
    logins: &Logins,
) -> Result<Option<String>, EngineError> {
    let pulled = while_shown(ui, "Pulling", async |show| {
        let tell = |status: &str, state| {
            let id = format!("Image {}", build.image);
            if !quiet {
                show(Event { id, status: status.to_owned(), state, detail: None });
            }
        };
        tell("Pulling", ObjectState::Working);
        let pulled = ask(engine, build, logins).await;
        tell(if pulled.is_ok() { "Pulled" } else { "Not pulled" }, ObjectState::Done);
        pulled
    });
    pulled.await
}

async fn ask(engine: &dyn Engine, build: &BuiltImage, logins: &Logins) -> Result<Option<String>, EngineError> {
    let login = logins.find(&build.image).await;
    let mut steps = engine.pull(&build.image, build.platform.as_deref(), login.as_ref());
    while let Some(step) = steps.next().await {
        step?;
    }
    drop(steps);
    engine.image_id(&build.image).await
}

fn missing(build: &BuiltImage, cause: Option<&EngineError>) -> String {
    let BuiltImage { service, image, .. } = build;
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("image `{image}` of service `{service}` is not there, and `--no-build` forbids to build it{cause}")
}

/// Returns the services whose images are built here, whatever is pulled for the others.
pub(crate) fn services(builds: &[BuiltImage]) -> BTreeSet<ServiceName> {
    builds.iter().map(|build| build.service.clone()).collect()
}

#[cfg(test)]
mod tests;
