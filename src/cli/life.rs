//! What commands for containers that are there have in common: the seat is asked, and what follows is shown.

use std::time::Duration;

use crate::api::client::{Client, ProgressStream};
use crate::api::types::{AskRequest, Progress};
use crate::ids::{ProjectName, ServiceName};
use crate::plan::{Ask, Plan, render};

use futures_util::StreamExt as _;

use super::context::{Context, if_there};
use super::error::CliError;
use super::progress::{Ended, follow};
use super::signals::Interrupts;

/// A command for containers of a project.
pub(crate) struct Life {
    project: ProjectName,
    client: Client,
    request: AskRequest,
}

/// Options beside what is asked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    /// Wait until what was started is ready.
    pub wait: bool,
    /// Seconds to wait at most.
    pub wait_timeout: Option<u64>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// As JSON.
    pub json: bool,
}

impl Life {
    /// Finds the project and who decides about it.
    ///
    /// # Errors
    /// When the files are wrong, no such service is in them, or no host answers.
    pub(crate) async fn new(context: &mut Context<'_>, ask: Ask, services: &[ServiceName]) -> Result<Self, CliError> {
        let project = context.project_name()?;
        if context.knows_services() {
            context.check_services(services, |_| false)?;
        }
        let client = match context.fleet()? {
            Some(fleet) => fleet.seat().await?.client,
            None => context.client().await?,
        };
        let request = AskRequest { ask, services: services.to_vec(), wait: false, dry_run: false };
        Ok(Self { project, client, request })
    }

    /// Returns its name.
    pub(crate) fn project(&self) -> &ProjectName {
        &self.project
    }

    async fn send(&self, request: &AskRequest) -> Result<Option<ProgressStream>, CliError> {
        if_there(self.client.ask(&self.project, request).await)
    }

    /// Returns what would be done; `None`: orch runs no such project.
    ///
    /// # Errors
    /// When it is not possible.
    pub(crate) async fn plan(&self) -> Result<Option<Plan>, CliError> {
        let request = AskRequest { dry_run: true, ..self.request.clone() };
        let Some(mut stream) = self.send(&request).await? else { return Ok(None) };
        while let Some(progress) = stream.next().await {
            if let Progress::Accepted { plan, .. } = progress? {
                return Ok(Some(plan));
            }
        }
        Err(CliError::Cut)
    }

    /// Does it and shows it, or says what would be done. Returns how it ended; `None`: orch runs no such project.
    ///
    /// # Errors
    /// When it is not possible, or not done.
    pub(crate) async fn run(&self, context: &mut Context<'_>, how: How) -> Result<Option<Ended>, CliError> {
        if how.dry_run || context.global.dry_run {
            let Some(plan) = self.plan().await? else { return Ok(None) };
            if how.json {
                context.ui.json(&plan)?;
            } else {
                context.ui.data(render::render(&plan).as_bytes())?;
            }
            return Ok(Some(Ended { revision: 0, moved: true }));
        }
        let mut interrupts = Interrupts::listen()?;
        let request = AskRequest { wait: how.wait, ..self.request.clone() };
        let Some(stream) = interrupts.unless(self.send(&request)).await? else { return Ok(None) };
        let done = interrupts.unless(follow(context.ui, "Running", stream));
        match how.wait_timeout {
            Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), done)
                .await
                .unwrap_or(Err(CliError::WaitTimeout { seconds })),
            None => done.await,
        }
        .map(Some)
    }
}
