//! `orch agent metrics`: what Prometheus collects of an agent.

use crate::api::client::Client;
use crate::cli::args::AgentMetricsArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Prints the metrics of one agent.
///
/// # Errors
/// When the agent does not answer, or several are meant.
pub(crate) async fn run(context: &mut Context<'_>, _args: &AgentMetricsArgs) -> Result<(), CliError> {
    let agents = agents(context).await?;
    let [agent] = agents.as_slice() else {
        // Two texts one behind the other are none.
        return Err(CliError::Flag { flag: "--host", command: "agent metrics` of several hosts" });
    };
    let text = agent.metrics().await?;
    context.ui.data(text.as_bytes())
}

/// Returns the agents that are meant: those of the hosts that `--host` names, else the local one.
async fn agents(context: &mut Context<'_>) -> Result<Vec<Client>, CliError> {
    if context.global.hosts.is_empty() {
        return Ok(vec![context.client().await?]);
    }
    let Some(fleet) = context.fleet()? else { return Ok(vec![context.client().await?]) };
    let mut agents = Vec::new();
    for host in fleet.hosts() {
        agents.push(host.agent().await?);
    }
    Ok(agents)
}
