//! What must be there on hosts before a project changes: they belong to the cluster, have an agent of this build, and
//! the images and files of the pods that are to run there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;

use crate::api::client::Client;
use crate::api::types::{ClusterStatus, UpRequest};
use crate::engine::Engine;
use crate::engine::docker::DockerEngine;
use crate::engine::translate::{is_demanding, misfits};
use crate::ids::{HostName, ServiceName};
use crate::mesh::DEFAULT_PORT;
use crate::plan::{Caller, Plan, Step};
use crate::transport::bootstrap::{self, AgentOptions, BootstrapError, Done};
use crate::transport::image::Build;

use super::builds::{self, BuiltImage, Wish};
use super::consent::{self, Deed};
use super::context::{Context, if_there, logins};
use super::error::CliError;
use super::fleet::{Fleet, Host, Seen};
use super::images::{self, Place, PullOptions};
use super::join::{self, Newcomer};
use super::project::Project;
use super::source::Source;
use super::travel;

/// What `up` says of images.
pub(crate) struct Needs {
    /// How they are pulled.
    pub pull: PullOptions,
    /// What the services that are asked for have built.
    pub builds: Vec<BuiltImage>,
    /// When and how that is done.
    pub wish: Wish,
}

/// The hosts, ready for a project.
pub(crate) struct Ground {
    /// The agent of the seat.
    pub seat: Client,
    /// The engines, to read containers from.
    pub sources: Vec<Source>,
}

/// Readies the hosts for `request`: adds those that are named and not in the cluster, and brings agents and images.
///
/// Returns also who asks, with what he was shown meanwhile.
///
/// # Errors
/// What cannot be had; the project is as it was.
pub(crate) async fn ready(
    context: &mut Context<'_>,
    fleet: &Fleet,
    project: &Project,
    request: UpRequest,
    needs: &Needs,
    allow_downgrade: bool,
) -> Result<(Ground, Caller), CliError> {
    add_named(context, fleet, allow_downgrade).await?;
    let seen = seat(context, fleet, allow_downgrade).await?;
    let engines = engines(context, fleet, &seen.status).await?;
    let concerned = |host: &Arc<Host>| request.hosts.is_empty() || request.hosts.contains(host.name());
    let concerned: Vec<_> = engines.iter().filter(|(host, _)| concerned(host)).cloned().collect();
    check_fit(context, project, &concerned).await?;
    let outdated = renew_agents(context, &engines, allow_downgrade).await?;
    let seat = if outdated { fleet.seat().await?.client } else { seen.client };
    // Before anything is sent or pulled for what may not be wanted.
    let mut caller = request.caller.clone();
    let plan = consent::ask(context.ui, &seat, project.name(), Deed::Overwrite, &mut caller, async |caller| {
        let request = UpRequest { caller: caller.clone(), ..request.clone() };
        Ok(seat.plan(project.name(), &request).await?)
    })
    .await?;
    let services = services_by_host(&seat, project, plan).await?;
    let local = DockerEngine::connect(None).await.ok();
    let places = engines.iter().map(|(host, engine)| {
        let services = services.get(host.name()).cloned().unwrap_or_default();
        Place { host: Arc::clone(host), engine, services }
    });
    let (places, logins): (Vec<_>, _) = (places.collect(), logins());
    let runs = |build: &BuiltImage| places.iter().any(|place| place.services.contains(&build.service));
    let builds: Vec<_> = needs.builds.iter().filter(|build| runs(build)).cloned().collect();
    let built = match local.as_ref().or(engines.first().map(|(_, engine)| engine)) {
        Some(builder) if !builds.is_empty() => {
            let elsewhere = elsewhere(&places, &builds).await;
            builds::ensure(context.ui, builder, builds, elsewhere, &needs.wish, &logins).await?
        }
        _ => BTreeMap::new(),
    };
    images::ensure_on(context.ui, places, local.as_ref(), &project.graph, &built, needs.pull.clone(), &logins).await?;
    travel::send(context.ui, &seat, &seen.status.seat, &project.luggage).await?;
    let sources = engines.into_iter().map(|(host, engine)| Source::over(host, Arc::new(engine)));
    Ok((Ground { seat, sources: sources.collect() }, caller))
}

/// Returns the ids of images that are built and that a host has already, from whichever machine.
async fn elsewhere(places: &[Place<'_>], builds: &[BuiltImage]) -> BTreeMap<String, String> {
    let mut ids = BTreeMap::new();
    for build in builds {
        let asked = places.iter().filter(|place| place.services.contains(&build.service));
        let found = join_all(asked.map(|place| place.engine.image_id(&build.image))).await;
        ids.extend(found.into_iter().flatten().flatten().next().map(|id| (build.image.clone(), id)));
    }
    ids
}

/// Returns the ids of images that are built and that some host of the cluster has; none where there is no cluster that answers.
pub(crate) async fn on_hosts(
    context: &mut Context<'_>,
    builds: &[BuiltImage],
) -> Result<BTreeMap<String, String>, CliError> {
    let Some(fleet) = context.fleet()? else { return Ok(BTreeMap::new()) };
    let Ok(seen) = fleet.look().await else { return Ok(BTreeMap::new()) };
    let mut ids = BTreeMap::new();
    for host in context.present(&fleet, &seen.status) {
        let Ok(engine) = host.engine().await else { continue };
        for build in builds {
            ids.extend(engine.image_id(&build.image).await.ok().flatten().map(|id| (build.image.clone(), id)));
        }
    }
    Ok(ids)
}

/// Asks the seat; where it has no agent that answers, an upgrade having been cut short for one, it gets one first.
async fn seat(context: &mut Context<'_>, fleet: &Fleet, allow_downgrade: bool) -> Result<Seen, CliError> {
    let error = match fleet.seat().await {
        Err(CliError::NoSeat { seat, cause }) if cause.is_agent_missing() => CliError::NoSeat { seat, cause },
        seen => return seen,
    };
    let status = fleet.look().await?.status;
    let host = fleet.member(&status, &status.seat)?;
    let Ok(engine) = host.engine().await else { return Err(error) };
    renew_agents(context, &[(host, engine)], allow_downgrade).await?;
    fleet.seat().await
}

/// Adds the hosts that are named and do not belong to the cluster.
async fn add_named(context: &mut Context<'_>, fleet: &Fleet, allow_downgrade: bool) -> Result<(), CliError> {
    let members: BTreeSet<HostName> = match fleet.look().await {
        Ok(seen) => seen.status.hosts.into_iter().map(|host| host.name).collect(),
        Err(CliError::NoCluster) => BTreeSet::new(),
        Err(error) => return Err(error),
    };
    let new = fleet.hosts().iter().filter(|host| !members.contains(host.name()));
    let new: Vec<_> =
        new.map(|host| Newcomer { host: Arc::clone(host), entry: host.entry.clone(), port: DEFAULT_PORT }).collect();
    if new.is_empty() {
        return Ok(());
    }
    join::add(context.ui, fleet, new, allow_downgrade).await.result(context.ui, "adding")
}

/// Returns the hosts of the cluster that can be reached, with their engines; the others are told.
async fn engines(
    context: &mut Context<'_>,
    fleet: &Fleet,
    status: &ClusterStatus,
) -> Result<Vec<(Arc<Host>, DockerEngine)>, CliError> {
    let members = context.present(fleet, status);
    let mut engines = Vec::new();
    let mut errors = Vec::new();
    for (host, engine) in fleet.ask_all(&members, |host| async move { host.engine().await }).await {
        match engine {
            Ok(engine) => engines.push((host, engine)),
            Err(error) => errors.push(error),
        }
    }
    if engines.is_empty() {
        return Err(CliError::NoHostAnswers(errors));
    }
    context.ui.warn_all(&errors);
    Ok(engines)
}

/// Tells what no host will apply of the project, and refuses what none can make: one host that can is enough.
async fn check_fit(
    context: &mut Context<'_>,
    project: &Project,
    engines: &[(Arc<Host>, DockerEngine)],
) -> Result<(), CliError> {
    if !is_demanding(&project.graph) {
        return Ok(());
    }
    let infos = join_all(engines.iter().map(|(_, engine)| engine.info())).await;
    let fits = infos.into_iter().flatten().map(|info| misfits(&project.graph, &info));
    let best = fits.min_by_key(|misfits| (misfits.iter().filter(|misfit| misfit.fatal).count(), misfits.len()));
    if let Some(misfits) = best {
        context.ui.diagnostics(&project.judge(&misfits)?);
    }
    Ok(())
}

/// Replaces agents of other builds. Returns whether there were any.
async fn renew_agents(
    context: &mut Context<'_>,
    engines: &[(Arc<Host>, DockerEngine)],
    allow_downgrade: bool,
) -> Result<bool, CliError> {
    let build = Build::own().map_err(BootstrapError::Binary)?;
    let renewed = join_all(engines.iter().map(|(host, engine)| renew_agent(host, engine, &build, allow_downgrade)));
    let mut any = false;
    for ((host, _), done) in engines.iter().zip(renewed.await) {
        for done in done? {
            any = true;
            match done {
                Done::Removed { version } => {
                    context.ui.say(&format!("the agent of version {version} on {} was replaced", host.name()));
                }
                Done::Started => context.ui.say(&format!("the agent on {} was started", host.name())),
                Done::Loaded | Done::Created => {}
            }
        }
    }
    Ok(any)
}

async fn renew_agent(
    host: &Host,
    engine: &DockerEngine,
    build: &Build,
    allow_downgrade: bool,
) -> Result<Vec<Done>, CliError> {
    let client = host.agent().await?;
    if client.info().await.is_ok_and(|info| info.build == build.hash) {
        return Ok(Vec::new());
    }
    let options = AgentOptions { allow_downgrade, ..AgentOptions::default() };
    let status = bootstrap::ensure_agent(engine, &client, build, &options).await;
    status.map(|status| status.done).map_err(|error| host.failed(error))
}

/// Which services run on each host once the project is as asked for: those that the seat plans, and those that stay.
async fn services_by_host(
    seat: &Client,
    project: &Project,
    plan: Plan,
) -> Result<BTreeMap<HostName, BTreeSet<ServiceName>>, CliError> {
    let status = seat.project(project.name()).await;
    let mut services: BTreeMap<HostName, BTreeSet<ServiceName>> = BTreeMap::new();
    for planned in plan.steps {
        if let Step::CreateContainer { pod, .. } = planned.step {
            services.entry(planned.host).or_default().insert(pod.service);
        }
    }
    for pod in if_there(status)?.map(|status| status.pods).unwrap_or_default() {
        if let Some(host) = pod.host.filter(|_| pod.wanted) {
            services.entry(host).or_default().insert(pod.pod.service);
        }
    }
    Ok(services)
}
