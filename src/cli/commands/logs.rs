//! `orch logs`: what containers wrote, in the order of its time; with `-f` also what they write.

use jiff::Timestamp;

use crate::cli::args::LogsArgs;
use crate::cli::attach::{Attachment, Happening, Show, write_line};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::logline::Names;
use crate::cli::signals::Interrupts;
use crate::cli::source::{self, Source};
use crate::cli::tail::{Choice, Merged, Readers, channel, short_name};
use crate::cli::time::time;
use crate::cli::ui::Ui;
use crate::engine::LogQuery;
use crate::observed::{ContainerState, ObservedContainer};

/// Shows the output of the project's containers.
///
/// # Errors
/// When there is no project, an unknown service is named, a time makes no sense, or the engine does not answer.
pub(crate) async fn run(context: &mut Context<'_>, args: LogsArgs) -> Result<Exit, CliError> {
    let project = context.project_name()?;
    let sources = context.sources().await?;
    let query = LogQuery {
        follow: args.follow,
        tail: args.tail.lines(),
        since: time(args.since.as_deref())?.map(Timestamp::as_second),
        until: time(args.until.as_deref())?.map(Timestamp::as_second),
        timestamps: args.timestamps,
    };
    let choice = Choice { project, services: args.services.clone(), but: Vec::new(), index: args.index };
    let show = Show {
        prefix: !args.look.no_log_prefix,
        colour: context.ui.colour() && !args.look.no_color,
        timestamps: args.timestamps,
        exits: false,
    };
    if !args.follow {
        let (containers, errors) = source::containers(&sources, &choice).await?;
        context.check_services(&args.services, |name| has_service(&containers, name))?;
        context.ui.warn_all(&errors);
        return print(context.ui, &sources, &choice, &containers, &query, show).await.map(|()| Exit::Success);
    }
    let mut interrupts = Interrupts::listen()?;
    // Before looking at what is there, so that nothing that starts in between is missed.
    let attachment = Attachment::listen(sources.clone(), choice.clone(), show);
    let (containers, errors) = source::containers(&sources, &choice).await?;
    context.check_services(&args.services, |name| has_service(&containers, name))?;
    context.ui.warn_all(&errors);
    let followed = follow(context.ui, &choice, attachment, &containers, &query);
    interrupts.unless(followed).await.map(|()| Exit::Success)
}

fn has_service(containers: &[(usize, ObservedContainer)], name: &crate::ids::ServiceName) -> bool {
    containers.iter().any(|(_, container)| container.service.as_ref() == Some(name))
}

/// Prints what is there, lines of all containers in the order of their times.
async fn print(
    ui: &mut Ui,
    engines: &[Source],
    choice: &Choice,
    containers: &[(usize, ObservedContainer)],
    query: &LogQuery,
    show: Show,
) -> Result<(), CliError> {
    let mut readers = Readers::default();
    let mut names = Names::new(show.prefix, show.colour);
    let sources = containers.iter().map(|(at, container)| {
        let name = short_name(&choice.project, &container.name);
        names.add(name);
        let (to, from) = channel();
        readers.read(&engines[*at], &container.id, query, to);
        (name, from)
    });
    let mut merged = Merged::new(sources.collect::<Vec<_>>());
    while let Some((name, line)) = merged.next().await? {
        write_line(ui, &names, name, &line, show.timestamps)?;
    }
    Ok(())
}

/// Shows what comes until none of the containers runs and none will by itself.
async fn follow(
    ui: &mut Ui,
    choice: &Choice,
    mut attachment: Attachment,
    containers: &[(usize, ObservedContainer)],
    query: &LogQuery,
) -> Result<(), CliError> {
    attachment.catch_up(ui, containers, query).await?;
    let mut quiet = containers.is_empty();
    loop {
        if quiet {
            // A host that cannot be asked may have some that run.
            let (containers, errors) = source::containers(attachment.sources(), choice).await?;
            if errors.is_empty() && containers.iter().all(|(_, container)| is_over(container)) {
                return Ok(());
            }
        }
        quiet = attachment.next(ui).await? == Happening::Quiet;
    }
}

/// Returns whether a container neither writes nor will be started again by the agent: a crash is healed, an end with 0 is not.
fn is_over(container: &ObservedContainer) -> bool {
    matches!(container.state, ContainerState::Exited { code: 0, .. } | ContainerState::Dead | ContainerState::Removing)
}
