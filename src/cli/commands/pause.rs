//! `orch pause` and `orch unpause`: containers that run are frozen and thawed; nothing new is sent to them meanwhile.

use crate::cli::args::PauseArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::life::{How, Life};
use crate::plan::Ask;

/// Freezes containers.
///
/// # Errors
/// When there is no such service, or something cannot be frozen.
pub(crate) async fn pause(context: &mut Context<'_>, args: &PauseArgs) -> Result<(), CliError> {
    run(context, args, Ask::Pause).await
}

/// Thaws containers.
///
/// # Errors
/// When there is no such service, or something cannot be thawed.
pub(crate) async fn unpause(context: &mut Context<'_>, args: &PauseArgs) -> Result<(), CliError> {
    run(context, args, Ask::Unpause).await
}

async fn run(context: &mut Context<'_>, args: &PauseArgs, ask: Ask) -> Result<(), CliError> {
    let how = How { dry_run: args.dry_run, ..How::default() };
    Life::new(context, ask, &args.services).await?.run(context, how).await.map(drop)
}
