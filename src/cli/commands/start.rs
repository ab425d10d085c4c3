//! `orch start`: containers that do not run are started, with those that they depend on.

use crate::cli::args::StartArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::life::{How, Life};
use crate::plan::Ask;

/// Starts containers.
///
/// # Errors
/// When there is no such service or no container, or something cannot be started.
pub(crate) async fn run(context: &mut Context<'_>, args: &StartArgs) -> Result<(), CliError> {
    let how = How { wait: args.wait, wait_timeout: args.wait_timeout, dry_run: args.dry_run, ..How::default() };
    let life = Life::new(context, Ask::Start, &args.services).await?;
    match life.run(context, how).await? {
        Some(_) => Ok(()),
        None => {
            Err(CliError::Failed(vec![format!("no container found for project \"{}\": not found", life.project())]))
        }
    }
}
