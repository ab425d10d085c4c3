//! `orch agent metrics`: what Prometheus collects of an agent, and where.

use crate::cli::args::AgentMetricsArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;

use super::these::{agents, failed, on};

/// Prints the metrics of one agent, or has agents tell them at an address.
///
/// # Errors
/// When an agent does not answer, cannot listen there, or several are to be printed.
pub(crate) async fn run(context: &mut Context<'_>, args: &AgentMetricsArgs) -> Result<(), CliError> {
    let AgentMetricsArgs { listen, no_listen, hosts } = args;
    context.global.hosts.extend(hosts.iter().cloned());
    let changes = listen.is_some() || *no_listen;
    let agents = agents(context).await?;
    if changes {
        for (host, agent) in &agents {
            if context.global.dry_run {
                agent.info().await.map_err(|error| failed(host.as_ref(), error))?;
                let on = on(host.as_ref());
                context.ui.line(&match listen {
                    Some(address) => format!("tell metrics at http://{address}/metrics{on}"),
                    None => format!("tell metrics on the agent's socket only{on}"),
                })?;
                continue;
            }
            agent.expose_metrics(*listen).await.map_err(|error| failed(host.as_ref(), error))?;
            let on = host.as_ref().map(|host| format!(" of host {host}")).unwrap_or_default();
            context.ui.say(&match listen {
                Some(address) => format!("the agent{on} tells its metrics at http://{address}/metrics"),
                None => format!("the agent{on} tells its metrics on its socket only"),
            });
        }
        if listen.is_some_and(|address| !address.ip().is_loopback()) {
            context.ui.warn("whoever reaches that address can read the names of projects, services and pods");
        }
        return Ok(());
    }
    let [(host, agent)] = agents.as_slice() else {
        // Two texts one behind the other are none.
        return Err(CliError::Flag { flag: "--host", command: "agent metrics` of several hosts" });
    };
    let text = agent.metrics().await.map_err(|error| failed(host.as_ref(), error))?;
    context.ui.data(text.as_bytes())
}
