//! `orch create`: an `up` that starts nothing.

use crate::cli::args::{CreateArgs, Selection, UpArgs};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

use super::up;

/// Makes containers.
///
/// # Errors
/// As [`up::run`].
pub(crate) async fn run(context: &mut Context<'_>, args: CreateArgs) -> Result<Exit, CliError> {
    let CreateArgs {
        force_recreate,
        no_recreate,
        build,
        no_build,
        remove_orphans,
        scales,
        pull,
        quiet_pull,
        dry_run,
        yes,
        services,
    } = args;
    let selection = Selection {
        force_recreate,
        no_recreate,
        remove_orphans,
        scales,
        services,
        no_start: true,
        ..Selection::default()
    };
    let up = UpArgs { selection, dry_run, build, no_build, pull, quiet_pull, yes, ..UpArgs::default() };
    up::run(context, &up).await
}
