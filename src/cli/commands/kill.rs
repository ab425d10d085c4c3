//! `orch kill`: a signal for containers that run; those that end by it stay so until they are started.

use crate::api::types::ObjectState;
use crate::cli::among::{self, Which};
use crate::cli::args::KillArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::life::{How, Life};
use crate::cli::progress;
use crate::engine::EngineError;
use crate::plan::Ask;

/// Sends a signal.
///
/// # Errors
/// When there is no such service or signal, or it cannot be sent.
pub(crate) async fn run(context: &mut Context<'_>, args: &KillArgs) -> Result<(), CliError> {
    let ask = Ask::Kill { signal: args.signal.clone(), remove_orphans: args.remove_orphans };
    let how = How { dry_run: args.dry_run, ..How::default() };
    let ended = Life::new(context, ask, &args.services).await?.run(context, how).await?;
    let any = if args.dry_run || context.global.dry_run { false } else { kill_oneoffs(context, args).await? };
    if !any && !ended.is_some_and(|ended| ended.moved) {
        context.ui.say("no container to kill");
    }
    Ok(())
}

/// Sends the signal to what `run` made, which is nobody's pod, as Docker Compose 2.40 does. Those that help it end with it.
async fn kill_oneoffs(context: &mut Context<'_>, args: &KillArgs) -> Result<bool, CliError> {
    let which = Which { services: &args.services, stopped: false, oneoffs: true };
    let among = among::find(context, which).await?;
    let mut any = false;
    for (at, one) in among.containers.iter().filter(|(_, one)| one.oneoff && !one.helps_oneoff()) {
        let source = among.source(*at);
        let mut tell = |status, state| {
            progress::show(context.ui, &progress::of_object("Container", &one.name, &source.name, status, state));
        };
        tell("Killing", ObjectState::Working);
        match source.engine.kill_container(&one.id, &args.signal).await {
            Ok(()) => tell("Killed", ObjectState::Done),
            // It has ended since.
            Err(EngineError::NotFound { .. } | EngineError::Conflict { .. }) => {}
            Err(error) => return Err(source.failed(error)),
        }
        any = true;
    }
    Ok(any)
}
