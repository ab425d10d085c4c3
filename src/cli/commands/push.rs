//! `orch push`: images that are built, from the engine that builds them to the registries of their names.

use crate::cli::args::PushArgs;
use crate::cli::builds::{self, PushOptions};
use crate::cli::context::{Context, logins};
use crate::cli::error::CliError;
use crate::cli::signals::Interrupts;

use super::build::wanted;

/// Pushes the images.
///
/// # Errors
/// When the files are wrong, there is no engine, or an image cannot be pushed.
pub(crate) async fn run(context: &mut Context<'_>, args: &PushArgs) -> Result<(), CliError> {
    let mut interrupts = Interrupts::listen()?;
    let builds = wanted(context, &args.services, args.include_deps)?;
    for build in builds.iter().filter(|build| !build.named) {
        context.ui.say(&format!(" {}  Skipped  no `image` says where it goes", build.service));
    }
    if context.global.dry_run {
        for build in builds.iter().filter(|build| build.named) {
            context.ui.line(&format!("push image {} of service {}", build.image, build.service))?;
        }
        return Ok(());
    }
    let engine = context.builder().await?;
    let parallel = context.global.parallel;
    let options = PushOptions { ignore_failures: args.ignore_push_failures, quiet: args.quiet, parallel };
    let logins = logins();
    interrupts.unless(builds::push(context.ui, &engine, &builds, options, &logins)).await
}
