//! `orch stop`: containers are stopped and stay so until they are started.

use crate::cli::args::StopArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::life::{How, Life};
use crate::plan::Ask;

/// Stops containers.
///
/// # Errors
/// When there is no such service, or something cannot be stopped.
pub(crate) async fn run(context: &mut Context<'_>, args: &StopArgs) -> Result<(), CliError> {
    let ask = Ask::Stop { timeout_secs: args.timeout };
    let how = How { dry_run: args.dry_run, ..How::default() };
    Life::new(context, ask, &args.services).await?.run(context, how).await.map(drop)
}
