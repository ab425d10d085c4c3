//! Images are made present before anything is changed: a missing image is an error that leaves all as it was.

mod pass;
mod pull;
mod send;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use tokio::time::interval;

use crate::api::types::ObjectState;
use crate::engine::docker::DockerEngine;
use crate::engine::{Engine, EngineError, PullProgress};
use crate::graph::{Graph, PullPolicy};
use crate::ids::ServiceName;
use crate::transport::image::{DEMO_IMAGE, HOLDER_IMAGE};
use crate::transport::login::{Logins, registry_name};

pub(crate) use pull::{Puller, pull_on};

use super::board::{Event, FRAME};
use super::error::CliError;
use super::fleet::Host;
use super::progress::{Live, while_shown};
use super::ui::Ui;

/// An image that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    reference: String,
    platform: Option<String>,
    policy: PullPolicy,
    /// A service that runs it, for messages.
    service: ServiceName,
    /// The id that it must have: it was built, and no registry has it.
    built: Option<String>,
}

impl Wanted {
    /// Returns whether it is to be pulled although the engine has it.
    async fn is_due(&self, engine: &dyn Engine) -> Result<bool, EngineError> {
        match self.policy {
            PullPolicy::Always => Ok(true),
            PullPolicy::Missing | PullPolicy::Never => Ok(false),
            PullPolicy::Every(age) => {
                let Some(tagged_at) = engine.image_tagged_at(&self.reference).await? else { return Ok(false) };
                let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
                Ok(engine.now_nanos().await?.saturating_sub(tagged_at) > age)
            }
        }
    }

    /// Returns whether an engine has it.
    async fn is_on(&self, engine: &dyn Engine) -> Result<bool, EngineError> {
        let id = engine.image_id(&self.reference).await?;
        Ok(id.is_some() && (self.built.is_none() || id == self.built))
    }
}

/// What the user asked for on the command line.
#[derive(Debug, Clone)]
pub(crate) struct PullOptions {
    /// Instead of each service's own policy.
    pub policy: Option<PullPolicy>,
    /// Pull without showing progress.
    pub quiet: bool,
    /// At the same time; below 0: all.
    pub parallel: i32,
    /// Platform of images whose service names none (`DOCKER_DEFAULT_PLATFORM`).
    pub platform: Option<String>,
}

/// Pulls what is missing and what is to be pulled anew. `built` are services whose images are seen to elsewhere.
///
/// # Errors
/// [`CliError::Images`] with all that are missing and cannot be pulled.
pub(crate) async fn ensure(
    ui: &mut Ui,
    engine: &dyn Engine,
    graph: &Graph,
    built: &BTreeSet<ServiceName>,
    options: PullOptions,
    logins: &Logins,
) -> Result<(), CliError> {
    let mut pulls = Vec::new();
    let mut failures = Vec::new();
    for wanted in wanted(graph, options.policy, options.platform.as_ref(), &BTreeMap::new(), |service| {
        !built.contains(owner_of_image(graph, service))
    }) {
        let here = !wanted.is_due(engine).await? && engine.image_id(&wanted.reference).await?.is_some();
        match wanted.policy {
            _ if here => {}
            PullPolicy::Never => failures.push(Missing::new(wanted, None)),
            PullPolicy::Missing | PullPolicy::Every(_) | PullPolicy::Always => pulls.push(wanted),
        }
    }
    if failures.is_empty() && !pulls.is_empty() {
        failures = pull_all(ui, engine, pulls, options, logins).await;
        logins.take_problems().iter().for_each(|problem| ui.warn(problem));
    }
    if failures.is_empty() { Ok(()) } else { Err(CliError::Images(failures.iter().map(Missing::message).collect())) }
}

/// Returns the service that the file gives the image of `name` to: what is run before a service has that one's, unless it has
/// its own.
pub(crate) fn owner_of_image<'a>(graph: &'a Graph, name: &'a ServiceName) -> &'a ServiceName {
    let image = |name: &ServiceName| graph.services.get(name).map(|service| &service.container.image);
    let of = graph.services.get(name).and_then(|service| service.part.as_ref()).map(|part| &part.of);
    of.filter(|of| image(of) == image(name)).unwrap_or(name)
}

/// A host that needs images.
pub(crate) struct Place<'e> {
    /// The host.
    pub host: Arc<Host>,
    /// Its engine.
    pub engine: &'e DockerEngine,
    /// The services that run there.
    pub services: BTreeSet<ServiceName>,
}

/// Brings each host the images of the services that run there, all at once: what is there stays, the rest is pulled by
/// the host, and what cannot be pulled is sent from the local engine where that has it, or by another host. `built` are
/// the ids of images that were built: nobody pulls those, and every host gets this one.
///
/// # Errors
/// [`CliError::Images`] with all that are missing and cannot be had, by host.
pub(crate) async fn ensure_on(
    ui: &mut Ui,
    places: Vec<Place<'_>>,
    local: Option<&DockerEngine>,
    graph: &Graph,
    built: &BTreeMap<String, String>,
    options: PullOptions,
    logins: &Logins,
) -> Result<(), CliError> {
    let supply = Supply { local, logins, places: &places };
    let failures = while_shown(ui, "Images", async |show| {
        let hidden = |_: Event| ();
        let show: &dyn Fn(Event) = if options.quiet { &hidden } else { show };
        let mut images: BTreeMap<_, Vec<Need<'_>>> = BTreeMap::new();
        for place in &places {
            for wanted in wanted(graph, options.policy, options.platform.as_ref(), built, |service| {
                place.services.contains(service)
            }) {
                let key = (wanted.reference.clone(), wanted.platform.clone());
                images.entry(key).or_default().push(Need { place, wanted });
            }
        }
        let at_once = usize::try_from(options.parallel).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX >> 1);
        let all = stream::iter(images.into_values()).map(|needs| ensure_image(needs, &supply, show));
        all.buffer_unordered(at_once.min(64)).collect::<Vec<_>>().await.concat()
    });
    let mut failures: Vec<String> = failures.await;
    logins.take_problems().iter().for_each(|problem| ui.warn(problem));
    failures.sort_unstable();
    if failures.is_empty() { Ok(()) } else { Err(CliError::Images(failures)) }
}

/// Where images come from.
struct Supply<'s> {
    /// The engine of this machine, if it has one.
    local: Option<&'s DockerEngine>,
    /// The user's logins to registries.
    logins: &'s Logins,
    /// The hosts.
    places: &'s [Place<'s>],
}

/// An image that a host needs.
struct Need<'p> {
    place: &'p Place<'p>,
    wanted: Wanted,
}

impl Need<'_> {
    fn show(&self, show: &dyn Fn(Event), event: Event) {
        show(Event { id: format!("{} on {}", event.id, self.place.host.name()), ..event });
    }

    /// Whether the host has it and need not pull it anew.
    async fn is_met(&self) -> Result<bool, EngineError> {
        let anew = self.wanted.built.is_none() && self.wanted.is_due(self.place.engine).await?;
        Ok(!anew && self.wanted.is_on(self.place.engine).await?)
    }

    fn failed(&self, cause: Option<EngineError>) -> String {
        self.missing(&Missing::new(self.wanted.clone(), cause))
    }

    fn missing(&self, missing: &Missing) -> String {
        format!("host `{}`: {}", self.place.host.name(), missing.message())
    }

    /// Pulls it to the host. That this fails is not shown: it may be had otherwise.
    async fn pull(&self, logins: &Logins, show: &dyn Fn(Event)) -> Result<(), Missing> {
        if self.wanted.policy == PullPolicy::Never || self.wanted.built.is_some() {
            return Err(Missing::new(self.wanted.clone(), None));
        }
        let show = |event: Event| {
            if event.state != ObjectState::Error {
                self.show(show, event);
            }
        };
        pull(self.place.engine, self.wanted.clone(), logins, &show).await
    }
}

/// Brings one image to all hosts that need it. Returns what failed.
async fn ensure_image(needs: Vec<Need<'_>>, supply: &Supply<'_>, show: &dyn Fn(Event)) -> Vec<String> {
    let Supply { local, logins, places } = *supply;
    let mut failures = Vec::new();
    let mut missing = Vec::new();
    let met = join_all(needs.iter().map(Need::is_met)).await;
    for (need, met) in needs.iter().zip(met) {
        match met {
            Ok(true) => {}
            Ok(false) => missing.push(need),
            Err(error) => failures.push(need.failed(Some(error))),
        }
    }
    let Some(wanted) = missing.first().map(|need| need.wanted.clone()) else { return failures };
    let has = match local {
        Some(local) => wanted.is_on(local).await.unwrap_or_default(),
        None => false,
    };
    let reference = wanted.reference;
    let pulled = join_all(missing.iter().map(|need| need.pull(logins, show))).await;
    let (mut unsent, mut refused) = (Vec::new(), Vec::new());
    for (need, pulled) in missing.into_iter().zip(pulled) {
        match pulled {
            Ok(()) => {}
            Err(_) if has => unsent.push(need),
            Err(missing) => refused.push((need, missing)),
        }
    }
    if let Some(local) = local.filter(|_| !unsent.is_empty()) {
        failures.extend(send_to(&unsent, local, &reference, show).await);
    }
    failures.extend(ask_others(refused, places, &reference, show).await);
    failures
}

/// Brings an image from the local engine. Returns what failed.
async fn send_to(needs: &[&Need<'_>], local: &DockerEngine, reference: &str, show: &dyn Fn(Event)) -> Vec<String> {
    let tell = |need: &Need<'_>, status: &str, state| {
        let id = format!("Image {reference}");
        need.show(show, Event { id, status: status.to_owned(), state, detail: None });
    };
    for need in needs {
        tell(need, "Sending", ObjectState::Working);
    }
    let engines: Vec<&dyn Engine> = needs.iter().map(|need| need.place.engine as &dyn Engine).collect();
    let failures = RefCell::new(Vec::new());
    let pass = async |from: usize, to: usize| {
        let passed = pass::fetch(needs[from].place, needs[to].place, reference, show).await;
        if let Err(error) = &passed {
            tracing::warn!(%error, reference, "an image was not passed on");
            tell(needs[to], "Sending", ObjectState::Working);
        }
        passed.is_ok()
    };
    let sent = |to: usize, result: Result<(), EngineError>| match result {
        Ok(()) => tell(needs[to], "Sent", ObjectState::Done),
        Err(error) => {
            tell(needs[to], "Error", ObjectState::Error);
            let missing = Missing { tried: "sent", ..Missing::new(needs[to].wanted.clone(), Some(error)) };
            failures.borrow_mut().push(needs[to].missing(&missing));
        }
    };
    let far = if engines.len() > 1 { pass::far(&engines, reference).await } else { vec![false] };
    pass::bring(local, &engines, &far, reference, pass, &sent).await;
    failures.into_inner()
}

/// Has hosts get an image that neither they could pull nor this machine has from another that has it. Returns what failed.
async fn ask_others(
    refused: Vec<(&Need<'_>, Missing)>,
    places: &[Place<'_>],
    reference: &str,
    show: &dyn Fn(Event),
) -> Vec<String> {
    let lacking: BTreeSet<_> = refused.iter().map(|(need, _)| need.place.host.name()).collect();
    let mut owner = None;
    let wanted = refused.first().map(|(need, _)| &need.wanted);
    for place in places.iter().filter(|place| !lacking.contains(place.host.name())) {
        if let Some(wanted) = wanted.filter(|_| owner.is_none())
            && wanted.is_on(place.engine).await.unwrap_or_default()
        {
            owner = Some(place);
        }
    }
    let failures = refused.iter().map(async |(need, missing)| {
        // What is to be pulled anew must not be an old one.
        let anew = need.wanted.built.is_none() && need.wanted.policy == PullPolicy::Always;
        if let Some(owner) = owner.filter(|_| !anew) {
            match pass::fetch(owner, need.place, reference, show).await {
                Ok(()) => return None,
                Err(error) => tracing::warn!(%error, reference, "an image was not passed on"),
            }
        }
        if let Some(cause) = &missing.cause {
            let (id, status) = (format!("Image {reference}"), "Error".to_owned());
            need.show(show, Event { id, status, state: ObjectState::Error, detail: Some(cause.to_string()) });
        }
        Some(need.missing(missing))
    });
    join_all(failures).await.into_iter().flatten().collect()
}

/// The images of the services that run, once each; orch's own is made by the caller.
fn wanted(
    graph: &Graph,
    policy: Option<PullPolicy>,
    default_platform: Option<&String>,
    built: &BTreeMap<String, String>,
    runs: impl Fn(&ServiceName) -> bool,
) -> Vec<Wanted> {
    let mut images: BTreeMap<(String, Option<String>), Wanted> = BTreeMap::new();
    for (name, service) in graph.services.iter().filter(|(name, _)| runs(name)) {
        let policy = policy.unwrap_or(service.pull);
        let references = std::iter::once(service.container.image.as_str()).chain(service.mounted_images());
        for reference in references.filter(|reference| !is_own(reference)) {
            let platform = service.container.platform.as_ref().or(default_platform).cloned();
            let wanted = images.entry((reference.to_owned(), platform.clone())).or_insert_with(|| Wanted {
                built: built.get(reference).cloned(),
                reference: reference.to_owned(),
                platform,
                policy,
                service: name.clone(),
            });
            // Where services of one image differ, the one that asks for most decides.
            if rank(policy) > rank(wanted.policy) {
                wanted.policy = policy;
            }
        }
    }
    images.into_values().collect()
}

fn rank(policy: PullPolicy) -> (u8, Reverse<Duration>) {
    match policy {
        PullPolicy::Never => (0, Reverse(Duration::ZERO)),
        PullPolicy::Missing => (1, Reverse(Duration::ZERO)),
        PullPolicy::Every(age) => (2, Reverse(age)),
        PullPolicy::Always => (3, Reverse(Duration::ZERO)),
    }
}

/// Returns whether a service of the graph runs orch's own demo image.
pub(crate) fn needs_demo(graph: &Graph) -> bool {
    graph.services.values().any(|service| is_own(&service.container.image))
}

/// `orch/demo` and `orch/holder`, in all the ways in which an engine takes them: every host with an agent has them.
pub(crate) fn is_own(reference: &str) -> bool {
    let reference = reference.strip_prefix("docker.io/").unwrap_or(reference);
    [DEMO_IMAGE, HOLDER_IMAGE].iter().any(|own| reference == *own || own.strip_suffix(":latest") == Some(reference))
}

async fn pull_all(
    ui: &mut Ui,
    engine: &dyn Engine,
    pulls: Vec<Wanted>,
    options: PullOptions,
    logins: &Logins,
) -> Vec<Missing> {
    let at_once = usize::try_from(options.parallel).ok().filter(|limit| *limit > 0).unwrap_or(pulls.len());
    let live = RefCell::new((!options.quiet).then(|| Live::new(ui, "Pulling")));
    let show = |event: Event| {
        if let Some(live) = live.borrow_mut().as_mut() {
            live.event(event);
        }
    };
    let pulls = stream::iter(pulls).map(|wanted| pull(engine, wanted, logins, &show)).buffer_unordered(at_once);
    let mut pulls = std::pin::pin!(pulls);
    let mut frames = interval(FRAME);
    let mut failures = Vec::new();
    loop {
        tokio::select! {
            pulled = pulls.next() => match pulled {
                Some(Ok(())) => {}
                Some(Err(missing)) => failures.push(missing),
                None => return failures,
            },
            _ = frames.tick() => if let Some(live) = live.borrow_mut().as_mut() {
                live.tick();
            }
        }
    }
}

async fn pull(engine: &dyn Engine, wanted: Wanted, logins: &Logins, show: &dyn Fn(Event)) -> Result<(), Missing> {
    let event = |status: &str, state, detail| {
        show(Event { id: format!("Image {}", wanted.reference), status: status.to_owned(), state, detail });
    };
    event("Pulling", ObjectState::Working, None);
    let login = logins.find(&wanted.reference).await;
    let mut progress = engine.pull(&wanted.reference, wanted.platform.as_deref(), login.as_ref());
    let mut layers = Layers::default();
    let mut failed = None;
    while let Some(step) = progress.next().await {
        match step {
            Ok(step) => {
                if layers.apply(step) {
                    event("Pulling", ObjectState::Working, layers.text());
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    drop(progress);
    let Some(error) = failed else {
        event("Pulled", ObjectState::Done, None);
        return Ok(());
    };
    event("Error", ObjectState::Error, Some(error.to_string()));
    let hint = login_hint(&error, &wanted.reference, login.is_some());
    Err(Missing { hint, ..Missing::new(wanted, Some(error)) })
}

/// Bytes of all layers of an image that is being pulled.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, (u64, u64)>);

/// A megabyte as registries and disks count.
const MEGABYTE: u64 = 1_000_000;

impl Layers {
    /// Takes in a step. Returns whether the text changes.
    fn apply(&mut self, step: PullProgress) -> bool {
        let before = self.text();
        match step.status.as_str() {
            "Downloading" => {
                self.0.insert(step.id, (step.current, step.total));
            }
            "Download complete" | "Pull complete" => {
                if let Some((current, total)) = self.0.get_mut(&step.id) {
                    *current = *total;
                }
            }
            _ => {}
        }
        self.text() != before
    }

    fn text(&self) -> Option<String> {
        let sum = |pick: fn(&(u64, u64)) -> u64| self.0.values().map(pick).sum::<u64>() / MEGABYTE;
        (!self.0.is_empty()).then(|| format!("{} of {} MB", sum(|layer| layer.0), sum(|layer| layer.1)))
    }
}

/// An image that is not there and could not be pulled.
#[derive(Debug)]
struct Missing {
    wanted: Wanted,
    /// What was tried, `pulled` or `sent`.
    tried: &'static str,
    cause: Option<EngineError>,
    /// What to do about it.
    hint: Option<String>,
}

/// Returns what to do where a registry wants another login. Registries differ in their words.
pub(crate) fn login_hint(error: &EngineError, reference: &str, sent: bool) -> Option<String> {
    let said = error.to_string();
    let words = ["unauthorized", "denied", "no basic auth credentials", "authentication required"];
    if !words.iter().any(|word| said.contains(word)) {
        return None;
    }
    let registry = registry_name(reference);
    Some(if sent {
        format!("`{registry}` refused your login; `docker login {registry}` makes another")
    } else {
        format!("you have no login for `{registry}` on this machine; `docker login {registry}` makes one")
    })
}

impl Missing {
    fn new(wanted: Wanted, cause: Option<EngineError>) -> Self {
        Self { wanted, tried: "pulled", cause, hint: None }
    }

    fn message(&self) -> String {
        let Wanted { reference, service, built, .. } = &self.wanted;
        let hint = self.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        match &self.cause {
            None if built.is_some() => {
                format!("image `{reference}` of service `{service}` was built, and cannot be brought there")
            }
            Some(cause) => {
                format!("image `{reference}` of service `{service}` could not be {}: {cause}{hint}", self.tried)
            }
            None => format!("image `{reference}` of service `{service}` is not there, and its pull policy is `never`"),
        }
    }
}

#[cfg(test)]
mod tests;
