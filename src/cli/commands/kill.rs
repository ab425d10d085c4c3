//! `orch kill`: a signal for containers that run; those that end by it stay so until they are started.

use crate::cli::args::KillArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::life::{How, Life};
use crate::plan::Ask;

/// Sends a signal.
///
/// # Errors
/// When there is no such service or signal, or it cannot be sent.
pub(crate) async fn run(context: &mut Context<'_>, args: &KillArgs) -> Result<(), CliError> {
    let ask = Ask::Kill { signal: args.signal.clone(), remove_orphans: args.remove_orphans };
    let how = How { dry_run: args.dry_run, ..How::default() };
    let ended = Life::new(context, ask, &args.services).await?.run(context, how).await?;
    if !ended.is_some_and(|ended| ended.moved) {
        context.ui.say("no container to kill");
    }
    Ok(())
}
