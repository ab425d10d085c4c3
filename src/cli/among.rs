//! The containers of a project that a command is about, wherever they run.

use crate::graph::Role;
use crate::ids::{ProjectName, ServiceName};
use crate::observed::ObservedContainer;

use super::context::Context;
use super::error::CliError;
use super::source::{self, Source};

/// Which containers are meant.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Which<'a> {
    /// Of these services, each with the helpers of its pods; empty: all.
    pub services: &'a [ServiceName],
    /// Also those that do not run.
    pub stopped: bool,
    /// Also those that `run` made.
    pub oneoffs: bool,
}

/// What was found.
pub(crate) struct Among {
    /// The project.
    pub project: ProjectName,
    /// The engines.
    pub sources: Vec<Source>,
    /// The containers in order of their names, each with the place of its engine.
    pub containers: Vec<(usize, ObservedContainer)>,
}

impl Among {
    /// Returns whether tables say which host something is on.
    pub(crate) fn is_spread(&self) -> bool {
        self.sources.iter().any(Source::is_remote)
    }

    /// Returns the engine of a container.
    pub(crate) fn source(&self, at: usize) -> &Source {
        &self.sources[at]
    }
}

/// Finds the project's containers on all hosts. What cannot be asked is told.
///
/// # Errors
/// When there is no project, an unknown service is named, or no engine answers.
pub(crate) async fn find(context: &mut Context<'_>, which: Which<'_>) -> Result<Among, CliError> {
    let project = context.project_name()?;
    let sources = context.sources().await?;
    let of_project = |one: &ObservedContainer| one.project.as_ref() == Some(&project) && one.service.is_some();
    let (mut containers, errors) = source::matching(&sources, &project, of_project).await?;
    let known = |name: &ServiceName| containers.iter().any(|(_, one)| is_of(one, name));
    context.check_services(which.services, known)?;
    context.ui.warn_all(&errors);
    containers.retain(|(_, one)| is_meant(one, which));
    Ok(Among { project, sources, containers })
}

fn is_of(container: &ObservedContainer, name: &ServiceName) -> bool {
    container.service.as_ref() == Some(name) || container.part().is_some_and(|part| part.of == *name)
}

/// Holders never are: there is nothing in them.
fn is_meant(container: &ObservedContainer, which: Which<'_>) -> bool {
    let Which { services, stopped, oneoffs } = which;
    container.part().is_none_or(|part| part.role != Role::Holder)
        && (services.is_empty() || services.iter().any(|name| is_of(container, name)))
        && (stopped || container.state.is_active())
        && (oneoffs || !container.oneoff)
}

/// Of the containers of a service that run, the one with this number, else with the lowest; not a helper in its pod,
/// unless that is named (`web.sync`).
///
/// # Errors
/// [`CliError::NotRunning`].
pub(crate) fn replica<'a>(
    context: &Context<'_>,
    among: &'a Among,
    service: &ServiceName,
    index: u32,
) -> Result<(&'a Source, &'a ObservedContainer), CliError> {
    let meant = among.containers.iter().filter(|(_, one)| one.service.as_ref() == Some(service) && !one.oneoff);
    let meant = meant.filter(|(_, one)| index == 0 || one.number == Some(index));
    let found = meant.min_by_key(|(_, one)| one.number).map(|(at, one)| (among.source(*at), one));
    found.ok_or_else(|| CliError::NotRunning { name: service.clone(), index, away: context.left_out().to_vec() })
}
