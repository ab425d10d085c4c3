//! What commands for containers that are there have in common: the seat is asked, and what follows is shown.

use std::time::Duration;

use crate::api::client::{Client, ClientError, ProgressStream};
use crate::api::types::{ApiError, AskRequest, ErrorKind, Progress};
use crate::engine::Engine as _;
use crate::ids::{ProjectName, ServiceName};
use crate::observed::ObservedContainer;
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
    /// Whether it is about the engine of this machine.
    local: bool,
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
        let (client, local) = match context.fleet()? {
            Some(fleet) => {
                let seen = fleet.seat().await?;
                context.tell_down(&seen.status);
                (seen.client, false)
            }
            None => (context.client().await?, true),
        };
        let request = AskRequest { ask, services: services.to_vec(), wait: false, dry_run: false };
        Ok(Self { project, client, request, local })
    }

    /// Returns its name.
    pub(crate) fn project(&self) -> &ProjectName {
        &self.project
    }

    async fn send(&self, context: &mut Context<'_>, request: &AskRequest) -> Result<Option<ProgressStream>, CliError> {
        match self.client.ask(&self.project, request).await {
            Err(error) if self.local && is_absent(&error) => self.without_agent(context, error).await,
            answer => if_there(answer),
        }
    }

    /// No agent knows the project. That is as it should be where nothing of it is there.
    async fn without_agent(
        &self,
        context: &mut Context<'_>,
        error: ClientError,
    ) -> Result<Option<ProgressStream>, CliError> {
        let host = context.engine().await?.observe(Some(&self.project)).await?;
        let is_known = matches!(error, ClientError::Api(_));
        if !is_known && host.containers.values().any(|one| one.spec_hash.is_some()) {
            return Err(error.into());
        }
        if host.containers.values().any(ObservedContainer::is_of_docker_compose) {
            return Err(ClientError::Api(ApiError::not_ours(&self.project)).into());
        }
        Ok(None)
    }

    /// Returns what would be done; `None`: orch runs no such project.
    ///
    /// # Errors
    /// When it is not possible.
    pub(crate) async fn plan(&self, context: &mut Context<'_>) -> Result<Option<Plan>, CliError> {
        let request = AskRequest { dry_run: true, ..self.request.clone() };
        let Some(mut stream) = self.send(context, &request).await? else { return Ok(None) };
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
            let Some(plan) = self.plan(context).await? else { return Ok(None) };
            if how.json {
                context.ui.json(&plan)?;
            } else {
                context.ui.data(render::render(&plan).as_bytes())?;
            }
            return Ok(Some(Ended { revision: 0, moved: true }));
        }
        let mut interrupts = Interrupts::listen()?;
        let request = AskRequest { wait: how.wait, ..self.request.clone() };
        let Some(stream) = interrupts.unless(self.send(context, &request)).await? else { return Ok(None) };
        let done = interrupts.unless(follow(context.ui, title(&self.request.ask), stream));
        match how.wait_timeout {
            Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), done)
                .await
                .unwrap_or(Err(CliError::WaitTimeout { seconds, missing: Vec::new() })),
            None => done.await,
        }
        .map(Some)
    }
}

/// Docker Compose's words for what is under way.
fn title(ask: &Ask) -> &'static str {
    match ask {
        Ask::Stop { .. } => "Stopping",
        Ask::Restart { .. } => "Restarting",
        Ask::Kill { .. } => "Killing",
        Ask::Remove { .. } => "Removing",
        Ask::Pause => "Pausing",
        Ask::Start | Ask::Unpause => "Running",
    }
}

/// Returns whether an error says that no agent knows the project.
fn is_absent(error: &ClientError) -> bool {
    match error {
        ClientError::NotInstalled { .. } | ClientError::NotAnswering { .. } => true,
        ClientError::Api(error) => error.kind == ErrorKind::NotFound,
        _ => false,
    }
}
