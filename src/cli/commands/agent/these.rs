//! Which agents a command is about.

use crate::api::client::{Client, ClientError};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::ids::HostName;

/// Says of an error which host it is of.
pub(super) fn failed(host: Option<&HostName>, error: ClientError) -> CliError {
    match host {
        Some(host) => CliError::on_host(host, error),
        None => error.into(),
    }
}

/// Says where an agent is: ` on b`; the local one goes without saying.
pub(super) fn on(host: Option<&HostName>) -> String {
    host.map(|host| format!(" on {host}")).unwrap_or_default()
}

/// Returns the agents that are meant: those of the hosts that `--host` names, else the local one.
pub(super) async fn agents(context: &mut Context<'_>) -> Result<Vec<(Option<HostName>, Client)>, CliError> {
    let named = !context.global.hosts.is_empty();
    let Some(fleet) = (if named { context.fleet()? } else { None }) else {
        return Ok(vec![(None, context.client().await?)]);
    };
    let mut agents = Vec::new();
    for host in fleet.hosts() {
        agents.push((Some(host.name().clone()), host.agent().await?));
    }
    Ok(agents)
}
