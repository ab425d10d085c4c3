//! `orch plan`: what `up` would do, and why.

use std::collections::BTreeMap;

use crate::api::types::UpRequest;
use crate::cli::args::{PlanArgs, Selection, TextFormat};
use crate::cli::consent;
use crate::cli::context::{Context, if_there};
use crate::cli::error::CliError;
use crate::cli::fleet::Fleet;
use crate::cli::preview;
use crate::cli::project::Project;
use crate::engine::Engine;
use crate::engine::translate::is_demanding;
use crate::ids::HostName;
use crate::plan::{Plan, UpOptions, render};

/// Prints the plan.
///
/// # Errors
/// When the files are wrong, or the project cannot become so.
pub(crate) async fn run(context: &mut Context<'_>, args: &PlanArgs) -> Result<(), CliError> {
    let project = context.load_graph(&args.selection)?;
    let options = options(&project, &args.selection)?;
    show(context, &project, options, args.format).await
}

/// Prints the plan of `up`: the agent's, or without one what it would plan for an engine without agent.
pub(super) async fn show(
    context: &mut Context<'_>,
    project: &Project,
    options: UpOptions,
    format: TextFormat,
) -> Result<(), CliError> {
    let hosts = context.project_hosts();
    let request = UpRequest { options, hosts, ..UpRequest::new(project.graph.clone()) };
    let plan = match context.fleet()? {
        Some(fleet) => over_hosts(context, &fleet, project, request).await?,
        None => here(context, project, request).await?,
    };
    match format {
        TextFormat::Json => context.ui.json(&plan),
        TextFormat::Text => context.ui.data(render::render(&plan).as_bytes()),
    }
}

async fn here(context: &mut Context<'_>, project: &Project, request: UpRequest) -> Result<Plan, CliError> {
    if is_demanding(&project.graph) {
        let engine = context.engine().await?;
        context.check_fit(project, &engine).await?;
    }
    let client = context.client().await?;
    if let Some(plan) = if_there(client.plan(project.name(), &request).await)? {
        consent::note(context.ui, &client, project.name(), &consent::caller(true, false)).await;
        return Ok(plan);
    }
    let engine = context.engine().await?;
    let alone = BTreeMap::from([(HostName::local(), (&engine as &dyn Engine, BTreeMap::new()))]);
    preview::plan(&alone, request).await
}

/// The seat's plan; where no host was added yet, what would be planned for those that are named.
pub(super) async fn over_hosts(
    context: &mut Context<'_>,
    fleet: &Fleet,
    project: &Project,
    request: UpRequest,
) -> Result<Plan, CliError> {
    let seat = match fleet.seat().await {
        Ok(seat) => seat,
        Err(CliError::NoCluster) => {
            let mut engines = Vec::new();
            for (host, engine) in fleet.ask_all(fleet.hosts(), |host| async move { host.engine().await }).await {
                engines.push((host, engine?));
            }
            let named = engines
                .iter()
                .map(|(host, engine)| (host.name().clone(), (engine as &dyn Engine, host.entry.labels.clone())));
            context.ui.say("none of the hosts is added yet: `orch up` does it first");
            return preview::plan(&named.collect(), request).await;
        }
        Err(error) => return Err(error),
    };
    for host in fleet.hosts().iter().filter(|host| seat.status.hosts.iter().all(|one| one.name != *host.name())) {
        context.ui.say(&format!("host {} is not added yet, and not counted: `orch up` adds it", host.name()));
    }
    let plan = seat.client.plan(project.name(), &request).await?;
    consent::note(context.ui, &seat.client, project.name(), &consent::caller(false, false)).await;
    Ok(plan)
}

/// The flags that the agent gets, with what the project's environment says.
///
/// # Errors
/// When the two contradict each other.
pub(super) fn options(project: &Project, selection: &Selection) -> Result<UpOptions, CliError> {
    let mut options = flags(selection);
    project.orphans(&mut options)?;
    Ok(options)
}

fn flags(selection: &Selection) -> UpOptions {
    let Selection {
        force_recreate,
        no_recreate,
        always_recreate_deps,
        renew_anon_volumes,
        no_deps,
        no_start,
        remove_orphans,
        scales: _,
        timeout,
        services,
    } = selection;
    UpOptions {
        services: services.clone(),
        no_deps: *no_deps,
        force_recreate: *force_recreate,
        no_recreate: *no_recreate,
        recreate_deps: *always_recreate_deps,
        renew_volumes: *renew_anon_volumes,
        remove_orphans: *remove_orphans,
        no_start: *no_start,
        timeout_secs: *timeout,
        ..UpOptions::default()
    }
}
