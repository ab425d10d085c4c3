//! `orch agent access-log`: whether HTTP requests have lines in an agent's log.

use crate::cli::args::{AgentAccessLogArgs, Switch};
use crate::cli::context::Context;
use crate::cli::error::CliError;

use super::these::{agents, failed, on};

/// Turns it on or off.
///
/// # Errors
/// When an agent does not answer, or cannot write it down.
pub(crate) async fn run(context: &mut Context<'_>, args: &AgentAccessLogArgs) -> Result<(), CliError> {
    let AgentAccessLogArgs { wanted, hosts } = args;
    context.global.hosts.extend(hosts.iter().cloned());
    for (host, agent) in &agents(context).await? {
        if context.global.dry_run {
            agent.info().await.map_err(|error| failed(host.as_ref(), error))?;
            let switch = if *wanted == Switch::On { "on" } else { "off" };
            context.ui.line(&format!("turn the access log {switch}{}", on(host.as_ref())))?;
            continue;
        }
        agent.access_log(*wanted == Switch::On).await.map_err(|error| failed(host.as_ref(), error))?;
        let of = host.as_ref().map(|host| format!(" of host {host}")).unwrap_or_default();
        context.ui.say(&match wanted {
            Switch::On => format!("the log of the agent{of} tells of each HTTP request: `orch agent logs`"),
            Switch::Off => format!("the log of the agent{of} tells of no requests"),
        });
    }
    Ok(())
}
