//! `orch wait`: until containers of services have ended.

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::cli::among::{self, Which};
use crate::cli::args::{DownArgs, WaitArgs};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::signals::Interrupts;

use super::down;

/// Waits for the containers of the services that run now. The result is the exit code of the last that ended.
///
/// # Errors
/// When none runs, or a host does not answer.
pub(crate) async fn run(context: &mut Context<'_>, args: &WaitArgs) -> Result<Exit, CliError> {
    let mut interrupts = Interrupts::listen()?;
    let which = Which { services: &args.services, stopped: false, oneoffs: true };
    let among = among::find(context, which).await?;
    if among.containers.is_empty() {
        return Err(CliError::NothingRuns(among.project));
    }
    let among = &among;
    if context.global.dry_run {
        for (at, one) in &among.containers {
            context.ui.line(&format!("wait for the end of container {}{}", one.name, among.source(*at).on()))?;
        }
        if args.down_project {
            down::run(context, &DownArgs::default()).await?;
        }
        return Ok(Exit::Success);
    }
    let mut waits: FuturesUnordered<_> = among
        .containers
        .iter()
        .map(|(at, one)| async move {
            let source = among.source(*at);
            let code = source.engine.wait_container(&one.id).await.map_err(|error| source.failed(error))?;
            Ok::<_, CliError>((one.id.as_str(), code))
        })
        .collect();
    let mut last = Exit::Success;
    while let Some((id, code)) = interrupts.unless(async { waits.next().await.transpose() }).await? {
        context.ui.line(&format!("container \"{id}\" exited with status code {code}"))?;
        last = Exit::of_container(code);
    }
    drop(waits);
    if args.down_project {
        down::run(context, &DownArgs::default()).await?;
    }
    Ok(last)
}
