//! `orch scale`: an `up` of services with other numbers of replicas.

use crate::cli::args::{ScaleArgs, Selection, UpArgs};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

use super::up;

/// Makes services have so many replicas.
///
/// # Errors
/// As [`up::run`].
pub(crate) async fn run(context: &mut Context<'_>, args: &ScaleArgs) -> Result<Exit, CliError> {
    let selection = Selection {
        no_deps: args.no_deps,
        scales: args.scales.clone(),
        services: args.scales.iter().map(|(service, _)| service.clone()).collect(),
        ..Selection::default()
    };
    let up = UpArgs { selection, detach: true, dry_run: args.dry_run, yes: args.yes, ..UpArgs::default() };
    up::run(context, &up).await
}
