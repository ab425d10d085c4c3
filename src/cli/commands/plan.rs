//! `orch plan`: what `up` would do, and why.

use crate::api::types::UpRequest;
use crate::cli::args::{PlanArgs, Selection, TextFormat};
use crate::cli::context::{Context, if_there};
use crate::cli::error::CliError;
use crate::cli::preview;
use crate::cli::project::Project;
use crate::engine::translate::is_demanding;
use crate::plan::{UpOptions, render};

/// Prints the plan.
///
/// # Errors
/// When the files are wrong, or the project cannot become so.
pub(crate) async fn run(context: &mut Context<'_>, args: &PlanArgs) -> Result<(), CliError> {
    let project = context.load_graph(&args.selection)?;
    show(context, &project, &args.selection, args.format).await
}

/// Prints the plan of `up`: the agent's, or without one what it would plan for an engine without agent.
pub(super) async fn show(
    context: &mut Context<'_>,
    project: &Project,
    selection: &Selection,
    format: TextFormat,
) -> Result<(), CliError> {
    if is_demanding(&project.graph) {
        let engine = context.engine().await?;
        context.check_fit(project, &engine).await?;
    }
    let request =
        UpRequest { graph: project.graph.clone(), options: options(selection), expected_revision: None, wait: false };
    let plan = match if_there(context.client().await?.plan(project.name(), &request).await)? {
        Some(plan) => plan,
        None => preview::plan(&context.engine().await?, request).await?,
    };
    match format {
        TextFormat::Json => context.ui.json(&plan),
        TextFormat::Text => context.ui.data(render::render(&plan).as_bytes()),
    }
}

/// The flags that the agent gets.
pub(super) fn options(selection: &Selection) -> UpOptions {
    let Selection { force_recreate, no_recreate, no_deps, no_start, remove_orphans, scales: _, timeout, services } =
        selection;
    UpOptions {
        services: services.clone(),
        no_deps: *no_deps,
        force_recreate: *force_recreate,
        no_recreate: *no_recreate,
        remove_orphans: *remove_orphans,
        no_start: *no_start,
        timeout_secs: *timeout,
    }
}
