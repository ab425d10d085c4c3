//! Images that are built: which ones, of what, and on which engine. Each is built once, by one engine; other hosts get what
//! it made.

mod bases;
mod make;
mod push;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;

use crate::api::types::ObjectState;
use crate::engine::{Engine, EngineError};
use crate::graph::PullPolicy;
use crate::ids::ServiceName;
use crate::model::{self, Model};
use crate::transport::login::Logins;

use super::board::Event;
use super::error::CliError;
use super::progress::while_shown;
use super::ui::Ui;

pub(crate) use make::{MakeOptions, make};
pub(crate) use push::{PushOptions, push};

/// An image that a service has built for itself.
#[derive(Debug, Clone, PartialEq)]
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
}

/// Returns what the services of a model have built.
pub(crate) fn of(model: &Model) -> Vec<BuiltImage> {
    let build = |(name, service): (&ServiceName, &model::Service)| {
        let source = service.build.clone()?;
        let platform = source.platforms.first().or(service.platform.as_ref()).filter(|platform| !platform.is_empty());
        Some(BuiltImage {
            service: name.clone(),
            project: model.name.to_string(),
            image: service.image_name(&model.name, name)?,
            named: service.image.as_ref().is_some_and(|image| !image.is_empty()),
            platform: platform.cloned(),
            policy: service.pull_policy.clone(),
            after: service.depends_on.keys().cloned().collect(),
            source,
        })
    };
    model.services.iter().filter_map(build).collect()
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
