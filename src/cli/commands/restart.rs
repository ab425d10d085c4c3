//! `orch restart`: containers are stopped and started as they are; changes of the file are for `up`.

use crate::cli::args::RestartArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::life::{How, Life};
use crate::plan::Ask;

/// Restarts containers.
///
/// # Errors
/// When there is no such service, or something cannot be stopped or started.
pub(crate) async fn run(context: &mut Context<'_>, args: &RestartArgs) -> Result<(), CliError> {
    let ask = Ask::Restart { timeout_secs: args.timeout, no_deps: args.no_deps };
    let how = How { dry_run: args.dry_run, ..How::default() };
    Life::new(context, ask, &args.services).await?.run(context, how).await.map(drop)
}
