//! Engines that containers are read from: the local one, or those of all hosts, each found again when its connection ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::engine::{Engine, EngineError};
use crate::ids::{HostName, ProjectName};
use crate::observed::{ObservedContainer, ObservedHost};

use super::error::CliError;
use super::fleet::Host;
use super::tail::Choice;

/// Time between two attempts to reach a host again.
const AGAIN: Duration = Duration::from_millis(500);

/// One host's engine.
#[derive(Clone)]
pub(crate) struct Source {
    /// The host's name.
    pub name: HostName,
    /// Its engine.
    pub engine: Arc<dyn Engine>,
    /// How it is reached; `None`: the local engine.
    host: Option<Arc<Host>>,
}

impl Source {
    /// The local engine.
    pub(crate) fn local(engine: Arc<dyn Engine>) -> Self {
        Self { name: HostName::local(), engine, host: None }
    }

    /// A host's engine.
    pub(crate) fn over(host: Arc<Host>, engine: Arc<dyn Engine>) -> Self {
        Self { name: host.name().clone(), engine, host: Some(host) }
    }

    /// Returns whether its connection may end and be made anew.
    pub(crate) fn is_remote(&self) -> bool {
        self.host.is_some()
    }

    /// Says where something is: ` on b`; the local engine goes without saying.
    pub(crate) fn on(&self) -> String {
        if self.is_remote() { format!(" on {}", self.name) } else { String::new() }
    }

    /// Waits until the engine answers again.
    pub(crate) async fn reached(&self) {
        while !self.answers().await {
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn answers(&self) -> bool {
        match &self.host {
            Some(host) => host.engine().await.is_ok(),
            None => self.engine.now_nanos().await.is_ok(),
        }
    }

    /// Says of an error which host it is of; the local one goes without saying.
    pub(crate) fn failed(&self, error: EngineError) -> CliError {
        if self.is_remote() { CliError::on_host(&self.name, error) } else { error.into() }
    }
}

/// Answers, each with its source's place in the list, and what could not be asked.
pub(crate) type Partial<T> = (Vec<(usize, T)>, Vec<CliError>);

/// What several engines show.
pub(crate) struct Found<T> {
    /// By the source's place in the list.
    pub answers: Vec<(usize, T)>,
    /// What could not be asked.
    pub errors: Vec<CliError>,
}

impl<T> Found<T> {
    /// Returns the answers and the errors to tell.
    ///
    /// # Errors
    /// The first error where nothing answered.
    pub(crate) fn some(mut self) -> Result<Partial<T>, CliError> {
        if self.answers.is_empty() && !self.errors.is_empty() {
            return Err(self.errors.swap_remove(0));
        }
        Ok((self.answers, self.errors))
    }
}

/// Looks at all engines at once.
pub(crate) async fn observe(sources: &[Source], project: &ProjectName) -> Found<ObservedHost> {
    let looks = sources.iter().map(|source| source.engine.observe(Some(project)));
    let mut found = Found { answers: Vec::new(), errors: Vec::new() };
    for (at, look) in join_all(looks).await.into_iter().enumerate() {
        match look {
            Ok(host) => found.answers.push((at, host)),
            Err(error) => found.errors.push(sources[at].failed(error)),
        }
    }
    found
}

/// Lists the containers of the choice on all engines, in order of their names, each with the place of its engine.
///
/// # Errors
/// As [`Found::some`].
pub(crate) async fn containers(sources: &[Source], choice: &Choice) -> Result<Partial<ObservedContainer>, CliError> {
    matching(sources, &choice.project, |one| choice.takes(one)).await
}

/// Lists those of a project's containers that are meant, as [`containers`] does.
///
/// # Errors
/// As [`Found::some`].
pub(crate) async fn matching(
    sources: &[Source],
    project: &ProjectName,
    is_meant: impl Fn(&ObservedContainer) -> bool,
) -> Result<Partial<ObservedContainer>, CliError> {
    let (hosts, errors) = observe(sources, project).await.some()?;
    let all = hosts.into_iter().flat_map(|(at, host)| host.containers.into_values().map(move |one| (at, one)));
    let mut containers: Vec<_> = all.filter(|(_, one)| is_meant(one)).collect();
    containers.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    Ok((containers, errors))
}
