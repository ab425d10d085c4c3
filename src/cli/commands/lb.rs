//! `orch lb`: what the load balancers of all hosts do, endpoint by endpoint; on a terminal again and again.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::api::types::{HostState, Traffic};
use crate::cli::args::{LbArgs, TableFormat};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::signals::Interrupts;
use crate::cli::table;
use crate::cli::ui::Style;
use crate::ids::{HostName, PodId, ProjectName};
use crate::lb::EndpointStats;

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Shows the endpoints of the project's services, and its ambassadors.
///
/// # Errors
/// When there is no project, an unknown service is named, or no agent answers.
pub(crate) async fn run(context: &mut Context<'_>, args: LbArgs) -> Result<(), CliError> {
    let project = context.project_name()?;
    let live = args.format == TableFormat::Table && !args.no_stream && std::io::stdout().is_terminal();
    let mut interrupts = Interrupts::listen()?;
    let mut before: Option<(Instant, BTreeMap<Key, u64>)> = None;
    loop {
        let traffic = look(context).await?;
        let now = Instant::now();
        let mut rows = rows(&project, &traffic);
        let known = |name: &_| rows.iter().any(|row| row.pod.service == *name);
        context.check_services(&args.names, known)?;
        rows.retain(|row| args.names.is_empty() || args.names.contains(&row.pod.service));
        let counts = rows.iter().map(|row| (row.key(), row.connected)).collect();
        if let Some((then, earlier)) = &before {
            for row in &mut rows {
                row.rate =
                    earlier.get(&row.key()).map(|count| per_second(row.connected.saturating_sub(*count), now - *then));
            }
        }
        before = Some((now, counts));
        match args.format {
            TableFormat::Json => return context.ui.json(&rows),
            TableFormat::Table if live => {
                // Clears the screen: the table is as long as there are endpoints.
                context.ui.data(format!("\x1b[H\x1b[2J{}", render(&rows)).as_bytes())?;
            }
            TableFormat::Table => return context.ui.data(render(&rows).as_bytes()),
        }
        tokio::select! {
            () = sleep(PERIOD) => {}
            () = interrupts.next() => return Ok(()),
        }
    }
}

/// Asks all hosts at once; those that do not answer are told and left out.
async fn look(context: &mut Context<'_>) -> Result<Vec<Traffic>, CliError> {
    let Some(fleet) = context.fleet()? else { return Ok(vec![context.client().await?.traffic().await?]) };
    let seen = fleet.look().await?;
    let up: Vec<HostName> =
        seen.status.hosts.iter().filter(|host| host.state != HostState::Down).map(|host| host.name.clone()).collect();
    let hosts = context.present(&fleet, &seen.status).into_iter().filter(|host| up.contains(host.name()));
    let asked = join_all(hosts.map(async |host| {
        let client = host.agent().await?;
        client.traffic().await.map_err(|error| host.failed(error))
    }));
    let (mut answers, mut errors) = (Vec::new(), Vec::new());
    for answer in asked.await {
        match answer {
            Ok(traffic) => answers.push(traffic),
            Err(error) => errors.push(error),
        }
    }
    if context.ui.style() != Style::Live || answers.is_empty() {
        context.ui.warn_all(&errors);
    }
    Ok(answers)
}

/// What one host's load balancer does with one endpoint, or one ambassador with one target.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    /// The host whose balancer it is.
    balancer: HostName,
    pod: PodId,
    /// What an ambassador of the pod leads to; empty: the pod itself is the endpoint.
    target: String,
    /// `here`, `other host`, `ambassador`.
    way: &'static str,
    state: String,
    open: usize,
    connected: u64,
    failed: u64,
    sent: u64,
    received: u64,
    /// Connections a second since the look before.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
}

type Key = (HostName, PodId, String);

impl Row {
    fn key(&self) -> Key {
        (self.balancer.clone(), self.pod.clone(), self.target.clone())
    }
}

fn rows(project: &ProjectName, traffic: &[Traffic]) -> Vec<Row> {
    let mut rows = Vec::new();
    for one in traffic {
        for endpoint in one.balancer.endpoints.iter().filter(|endpoint| endpoint.project == *project) {
            rows.push(Row {
                balancer: one.host.clone(),
                pod: endpoint.pod.clone(),
                target: String::new(),
                way: if endpoint.remote { "other host" } else { "here" },
                state: state(endpoint).to_owned(),
                open: endpoint.open,
                connected: endpoint.connected,
                failed: endpoint.failed,
                sent: endpoint.sent,
                received: endpoint.received,
                rate: None,
            });
        }
        for ambassador in one.ambassadors.iter().filter(|one| one.key.project == *project) {
            for target in &ambassador.targets {
                let state = match (ambassador.listens, target.is_open_circuit) {
                    (false, _) => "not listening",
                    (true, true) => "left alone",
                    (true, false) => "",
                };
                rows.push(Row {
                    balancer: one.host.clone(),
                    pod: ambassador.key.pod.clone(),
                    target: format!("{} → {}", ambassador.key.name, target.target),
                    way: "ambassador",
                    state: state.to_owned(),
                    open: ambassador.open,
                    connected: target.connections,
                    failed: target.failed,
                    sent: 0,
                    received: 0,
                    rate: None,
                });
            }
        }
    }
    rows.sort_by(|a, b| (&a.pod, &a.target, &a.balancer).cmp(&(&b.pod, &b.target, &b.balancer)));
    rows
}

fn state(endpoint: &EndpointStats) -> &'static str {
    match (endpoint.ejected, endpoint.avoided) {
        (true, _) => "ejected",
        (false, true) => "avoided",
        (false, false) => "ready",
    }
}

fn per_second(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a second are small")]
    let count = count as f64;
    count / time.as_secs_f64().max(0.001)
}

fn render(rows: &[Row]) -> String {
    let lines: Vec<[String; 9]> = rows
        .iter()
        .map(|row| {
            let name = if row.target.is_empty() { row.pod.to_string() } else { format!("{} {}", row.pod, row.target) };
            [
                name,
                row.balancer.to_string(),
                row.way.to_owned(),
                row.state.clone(),
                row.open.to_string(),
                row.rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
                row.connected.to_string(),
                row.failed.to_string(),
                format!("{} / {}", bytes(row.sent), bytes(row.received)),
            ]
        })
        .collect();
    table::render(
        ["ENDPOINT", "BALANCER", "WAY", "STATE", "OPEN", "NEW/S", "TOTAL", "FAILED", "SENT / RECEIVED"],
        &lines,
    )
}

/// `1.2MB`, in decimal units as `docker stats` has them.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count}B") } else { format!("{value:.*}{}", usize::from(value < 10.0), UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_decimal_units() {
        for (count, text) in [(0, "0B"), (999, "999B"), (1200, "1.2kB"), (25_000_000, "25MB"), (7_000_000_000, "7.0GB")]
        {
            assert_eq!(bytes(count), text);
        }
    }
}
