//! `orch commit`: an image of a container as it is now, on the engine that the container is on.

use crate::api::types::ObjectState;
use crate::cli::among::{self, Which};
use crate::cli::args::CommitArgs;
use crate::cli::board::Event;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::progress::Live;
use crate::engine::by_hand::CommitSpec;
use crate::engine::label;

/// Makes the image.
///
/// # Errors
/// When the service does not run, or the engine refuses the name or a change.
pub(crate) async fn run(context: &mut Context<'_>, args: &CommitArgs) -> Result<(), CliError> {
    let CommitArgs { author, changes, index, message, pause, service, reference } = args;
    let services = [service.clone()];
    let among = among::find(context, Which { services: &services, ..Which::default() }).await?;
    let (source, container) = among::replica(context, &among, service, *index)?;
    if context.global.dry_run {
        let image = reference.as_ref().map_or_else(|| "without a name".to_owned(), |name| format!("named {name}"));
        return context.ui.line(&format!("make an image {image} of container {}{}", container.name, source.on()));
    }
    let mut live = Live::new(context.ui, "Committing");
    let mut tell = |status: String, state| {
        let id = format!("{}{}", container.name, source.on());
        live.event(Event { id, status: format!("Commit {} {status}", container.name), state, detail: None });
    };
    tell("Committing".to_owned(), ObjectState::Working);
    // The image has the container's labels. What is run of it would be a container of the project, which the agent takes away. The engine
    // lays those of the container below the ones that are given, so that none can be taken away, only emptied (moby, daemon/commit.go
    // `merge`).
    let of_no_project = format!("LABEL {}=", label::PROJECT);
    let spec = CommitSpec {
        reference: reference.clone(),
        author: author.clone(),
        message: message.clone(),
        changes: changes.iter().cloned().chain([of_no_project]).collect(),
        pause: *pause,
    };
    match source.engine.commit(&container.id, &spec).await {
        Ok(image) => {
            tell(format!("Committed as {image}"), ObjectState::Done);
            Ok(())
        }
        Err(error) => {
            tell("Error".to_owned(), ObjectState::Error);
            Err(source.failed(error))
        }
    }
}
