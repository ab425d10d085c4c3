//! What the cluster says of its hosts, as a table or JSON.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::api::types::{AgentInfo, ClusterStatus, HostState, HostStatus};
use crate::cli::args::{HostLsArgs, TableFormat};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::fleet::{Fleet, Host};
use crate::cli::table;
use crate::cli::ui::Ui;
use crate::ids::HostName;

/// Clocks that are less apart than this are shown as the same: so long an answer may take.
const SAME_TIME_MS: u64 = 50;
/// Time for the agent of a host that the others hold for down.
const DOWN_WITHIN: Duration = Duration::from_secs(1);

/// Lists the hosts of the cluster, and those that were named and do not belong to it.
pub(super) async fn list(context: &mut Context<'_>, args: &HostLsArgs) -> Result<(), CliError> {
    let fleet = context.fleet_without_project()?.ok_or(CliError::NoHosts)?;
    let (rows, errors) = rows(&fleet).await?;
    if args.quiet {
        return rows.iter().try_for_each(|row| context.ui.line(row.name.as_str()));
    }
    match args.format {
        TableFormat::Json => rows.iter().try_for_each(|row| context.ui.json(row))?,
        TableFormat::Table => {
            let cells: Vec<_> = rows.iter().map(Row::cells).collect();
            let header = ["NAME", "STATE", "ENGINE", "CPUS", "MEMORY", "LOAD", "PODS", "AGENT", "SKEW", "ADDRESS"];
            context.ui.data(table::render(header, &cells).as_bytes())?;
            for row in &rows {
                row.warn_of_problems(context.ui);
            }
        }
    }
    context.ui.warn_all(&errors);
    Ok(())
}

/// Shows one host.
pub(super) async fn inspect(context: &mut Context<'_>, name: &HostName) -> Result<(), CliError> {
    let fleet = super::some_fleet(context)?;
    let seen = fleet.look().await?;
    super::check_known(&fleet, &seen.status, name)?;
    let status = seen.status.hosts.iter().find(|host| host.name == *name);
    let host = fleet.member(&seen.status, name)?;
    let agent = info(host).await;
    if let Err(error) = &agent {
        context.ui.warn(&error.to_string());
    }
    let value = serde_json::json!({ "host": status, "seat": seen.status.seat, "cluster": seen.status.cluster,
        "agent": agent.ok() });
    let text = serde_json::to_string_pretty(&value).map_err(|error| CliError::Output(error.into()))?;
    context.ui.line(&text)
}

/// Asks the cluster, and every host for its agent. Returns what could not be asked, too.
pub(crate) async fn rows(fleet: &Fleet) -> Result<(Vec<Row>, Vec<CliError>), CliError> {
    let seen = match fleet.look().await {
        Ok(seen) => Some(seen.status),
        Err(CliError::NoCluster) => None,
        Err(error) => return Err(error),
    };
    let mut hosts = seen.as_ref().map(|status| fleet.members(status)).unwrap_or_default();
    let others = fleet.hosts().iter().filter(|host| !hosts.iter().any(|member| member.name() == host.name()));
    let others: Vec<Arc<Host>> = others.cloned().collect();
    hosts.extend(others);
    let mut errors = Vec::new();
    let mut rows = Vec::new();
    let is_down = |name: &HostName| {
        seen.as_ref().and_then(|seen| member(seen, name)).is_some_and(|status| status.state == HostState::Down)
    };
    let ask = |host: Arc<Host>| {
        let down = is_down(host.name());
        async move {
            if !down {
                return info(host).await;
            }
            // The other hosts do not hear it; from here it may be reached all the same.
            let silent = CliError::HostSilent { host: host.name().clone() };
            tokio::time::timeout(DOWN_WITHIN, info(host)).await.unwrap_or(Err(silent))
        }
    };
    for (host, answer) in fleet.ask_all(&hosts, ask).await {
        let status = seen.as_ref().and_then(|seen| member(seen, host.name()));
        let agent = match answer {
            Ok(agent) => Some(agent),
            Err(error) => {
                if status.is_some() || !error.is_agent_missing() {
                    errors.push(error);
                }
                None
            }
        };
        rows.push(Row::new(&host, status, agent.as_ref()));
    }
    Ok((rows, errors))
}

fn member<'s>(status: &'s ClusterStatus, name: &HostName) -> Option<&'s HostStatus> {
    status.hosts.iter().find(|host| host.name == *name)
}

async fn info(host: Arc<Host>) -> Result<AgentInfo, CliError> {
    host.agent().await?.info().await.map_err(|error| host.failed(error))
}

/// A host in the list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Row {
    /// Its name.
    pub name: HostName,
    /// `Ready`, `Draining`, `Unknown`, `Down`, `Not added`.
    pub state: String,
    engine: String,
    #[serde(rename = "CPUs")]
    cpus: f64,
    memory: i64,
    load: f64,
    pods: usize,
    /// Version of its agent; empty where it does not answer.
    pub agent: String,
    build: String,
    skew_ms: i64,
    address: String,
    #[serde(rename = "SSH")]
    ssh: String,
    labels: std::collections::BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Row {
    fn new(host: &Host, status: Option<&HostStatus>, agent: Option<&AgentInfo>) -> Self {
        let state = match status {
            None => "Not added",
            Some(status) => match status.state {
                HostState::Ready if status.draining => "Draining",
                HostState::Ready => "Ready",
                HostState::Unknown => "Unknown",
                HostState::Down => "Down",
            },
        };
        Self {
            name: host.name().clone(),
            state: state.to_owned(),
            engine: status.map(|status| status.engine.clone()).unwrap_or_default(),
            cpus: status.map_or(0.0, |status| billionths(status.facts.nano_cpus)),
            memory: status.map_or(0, |status| status.facts.memory),
            load: status.map_or(0.0, |status| f64::from(status.load) / 100.0),
            pods: status.map_or(0, |status| status.pods),
            agent: agent.map(|agent| agent.version.clone()).unwrap_or_default(),
            build: agent.map(|agent| agent.build.clone()).unwrap_or_default(),
            skew_ms: status.map_or(0, |status| status.skew_ms),
            address: status.and_then(|status| status.address).map(|address| address.to_string()).unwrap_or_default(),
            ssh: host.entry.reach.to_string(),
            labels: status.map(|status| status.labels.clone()).unwrap_or_default(),
            problems: status.map(|status| status.problems.clone()).unwrap_or_default(),
        }
    }

    /// Tells what is wrong there.
    pub(crate) fn warn_of_problems(&self, ui: &mut Ui) {
        self.problems.iter().for_each(|problem| ui.warn(&format!("host {}: {problem}", self.name)));
    }

    fn cells(&self) -> [String; 10] {
        let added = self.state != "Not added";
        let known = |text: String| if added && !self.engine.is_empty() { text } else { "-".to_owned() };
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        [
            self.name.to_string(),
            self.state.clone(),
            or_dash(&self.engine),
            known(format!("{}", self.cpus)),
            known(gigabytes(self.memory)),
            known(format!("{:.2}", self.load)),
            if added { self.pods.to_string() } else { "-".to_owned() },
            or_dash(&self.agent),
            known(skew(self.skew_ms)),
            if self.address.is_empty() { self.ssh.clone() } else { self.address.clone() },
        ]
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of processors for the reader")]
fn billionths(count: i64) -> f64 {
    count as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "a size for the reader")]
fn gigabytes(bytes: i64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// How far a clock is ahead, in words.
fn skew(millis: i64) -> String {
    let sign = if millis < 0 { '-' } else { '+' };
    match millis.unsigned_abs() {
        ..SAME_TIME_MS => "0s".to_owned(),
        apart => format!("{sign}{}.{}s", apart / 1000, apart % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skews_are_read_at_a_glance() {
        for (millis, text) in [(0, "0s"), (-49, "0s"), (50, "+0.0s"), (1250, "+1.2s"), (-61_900, "-61.9s")] {
            assert_eq!(skew(millis), text);
        }
    }
}
