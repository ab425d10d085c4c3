//! `down --rmi`: which images go with a project, and their removal on every host.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use crate::api::types::ObjectState;
use crate::engine::EngineError;
use crate::graph::Role;
use crate::ids::{ProjectName, ServiceName};

use super::args::Rmi;
use super::board::Event;
use super::context::{Context, if_there, lenient};
use super::error::CliError;
use super::progress::while_shown;
use super::source::Source;

/// What is to be removed, and where from.
pub(crate) struct Images {
    references: BTreeSet<String>,
    sources: Vec<Source>,
}

/// Finds the images of the services (empty: all): those that the file names, and those that containers are of. To be called
/// before the project is gone.
///
/// # Errors
/// When no engine answers.
pub(crate) async fn find(
    context: &mut Context<'_>,
    project: &ProjectName,
    which: Rmi,
    services: &[ServiceName],
) -> Result<Images, CliError> {
    let is_meant = |service: &ServiceName| services.is_empty() || services.contains(service);
    let mut named: BTreeSet<(ServiceName, String)> = BTreeSet::new();
    // Without a file the containers alone tell.
    if let Ok(loaded) = context.load_quietly(&[], &lenient()) {
        let default = |service: &ServiceName| format!("{project}-{service}");
        named.extend(loaded.model.services.into_iter().map(|(name, service)| {
            let image = service.image.unwrap_or_else(|| default(&name));
            (name, image)
        }));
    }
    if let Some(status) = if_there(context.any_agent().await?.project(project).await)? {
        let pods = status.pods.into_iter().filter(|pod| pod.part.as_ref().is_none_or(|part| part.role != Role::Holder));
        named.extend(pods.map(|pod| {
            let service = pod.part.map_or(pod.pod.service, |part| part.of);
            (service, pod.image)
        }));
    }
    let is_chosen = |(service, image): &(ServiceName, String)| match which {
        Rmi::All => true,
        Rmi::Local => *image == format!("{project}-{service}"),
    };
    let chosen = named.into_iter().filter(|one| is_meant(&one.0) && is_chosen(one));
    Ok(Images { references: chosen.map(|(_, image)| image).collect(), sources: context.sources().await? })
}

impl Images {
    /// Says what would be removed: whether others use it shows only then.
    ///
    /// # Errors
    /// When an engine does not answer.
    pub(crate) async fn preview(&self, context: &mut Context<'_>) -> Result<(), CliError> {
        for source in &self.sources {
            for image in &self.references {
                if source.engine.image_id(image).await.map_err(|error| source.failed(error))?.is_some() {
                    context.ui.say(&format!("remove image {image}{}, unless something else uses it", source.on()));
                }
            }
        }
        Ok(())
    }

    /// Removes them. What is used by others stays, which is said.
    ///
    /// # Errors
    /// What goes wrong otherwise.
    pub(crate) async fn remove(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let Self { references, sources } = self;
        let all = sources.iter().flat_map(|source| references.iter().map(move |image| (source, image)));
        let failures = while_shown(context.ui, "Running", async |show| {
            let removals = all.map(async |(source, image)| {
                let tell = |status: &str, state| {
                    show(Event {
                        id: format!("Image {image}{}", source.on()),
                        status: status.to_owned(),
                        state,
                        detail: None,
                    });
                };
                if source.engine.image_id(image).await.map_err(|error| source.failed(error))?.is_none() {
                    return Ok(());
                }
                tell("Removing", ObjectState::Working);
                match source.engine.remove_image(image).await {
                    Ok(()) => tell("Removed", ObjectState::Done),
                    Err(EngineError::Conflict { .. }) => tell("Resource is still in use", ObjectState::Warning),
                    Err(error) => {
                        tell("Error", ObjectState::Error);
                        return Err(source.failed(error));
                    }
                }
                Ok(())
            });
            join_all(removals).await
        })
        .await;
        failures.into_iter().collect()
    }
}
