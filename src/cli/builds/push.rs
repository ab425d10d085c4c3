//! Images that are built are pushed to the registries of their names, by the engine that built them.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};

use crate::api::types::ObjectState;
use crate::cli::board::Event;
use crate::cli::error::CliError;
use crate::cli::images::login_hint;
use crate::cli::progress::while_shown;
use crate::cli::ui::Ui;
use crate::engine::Engine;
use crate::transport::login::Logins;

use super::BuiltImage;

/// Most pushes at once where nobody says otherwise.
const AT_ONCE: usize = 4;

/// How images are pushed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PushOptions {
    /// Say what fails, and end well.
    pub ignore_failures: bool,
    /// Do not show progress.
    pub quiet: bool,
    /// At the same time; below 1: a few.
    pub parallel: i32,
}

/// Pushes the images of `builds` that the file names, by all their names; the others are for this project alone.
///
/// # Errors
/// [`CliError::Pushes`] with all that failed.
pub(crate) async fn push(
    ui: &mut Ui,
    engine: &dyn Engine,
    builds: &[BuiltImage],
    options: PushOptions,
    logins: &Logins,
) -> Result<(), CliError> {
    let named = builds.iter().filter(|build| build.named);
    let references: BTreeSet<&String> =
        named.flat_map(|build| std::iter::once(&build.image).chain(&build.source.tags)).collect();
    let at_once = usize::try_from(options.parallel).ok().filter(|limit| *limit > 0).unwrap_or(AT_ONCE);
    let mut failures: Vec<String> = while_shown(ui, "Pushing", async |show| {
        let hidden = |_: Event| ();
        let show: &dyn Fn(Event) = if options.quiet { &hidden } else { show };
        let pushes = stream::iter(references).map(|reference| one(engine, reference, logins, show));
        pushes.buffer_unordered(at_once).collect::<Vec<_>>().await.into_iter().flatten().collect()
    })
    .await;
    logins.take_problems().iter().for_each(|problem| ui.warn(problem));
    failures.sort_unstable();
    if options.ignore_failures {
        for failure in failures.drain(..) {
            ui.warn(&failure);
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(CliError::Pushes(failures)) }
}

async fn one(engine: &dyn Engine, reference: &str, logins: &Logins, show: &dyn Fn(Event)) -> Option<String> {
    let tell = |status: &str, state, detail| {
        show(Event { id: format!("Image {reference}"), status: status.to_owned(), state, detail });
    };
    tell("Pushing", ObjectState::Working, None);
    let login = logins.find(reference).await;
    let mut steps = engine.push(reference, login.as_ref());
    while let Some(step) = steps.next().await {
        if let Err(error) = step {
            tell("Error", ObjectState::Error, Some(error.to_string()));
            let hint = login_hint(&error, reference, login.is_some());
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            return Some(format!("image `{reference}` could not be pushed: {error}{hint}"));
        }
    }
    tell("Pushed", ObjectState::Done, None);
    None
}
