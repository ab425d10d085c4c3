//! `orch lb`: what the load balancers of all hosts do, by service, rule, pod and ambassador; on a terminal again and again.

mod rows;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::api::types::{HostState, Traffic};
use crate::cli::args::{LbArgs, TableFormat};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::signals::Interrupts;
use crate::cli::ui::Style;
use crate::ids::HostName;

use rows::{Counts, Key, render, rows};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Shows the project's services with their rules, pods and ambassadors.
///
/// # Errors
/// When there is no project, an unknown service is named, or no agent answers.
pub(crate) async fn run(context: &mut Context<'_>, args: LbArgs) -> Result<(), CliError> {
    let project = context.project_name()?;
    let live = args.format == TableFormat::Table && !args.no_stream && std::io::stdout().is_terminal();
    let mut interrupts = Interrupts::listen()?;
    let mut before: Option<(Instant, BTreeMap<Key, Counts>)> = None;
    loop {
        let traffic = look(context).await?;
        let now = Instant::now();
        let mut rows = rows(&project, &traffic);
        let known = |name: &_| rows.iter().any(|row| row.service == *name);
        context.check_services(&args.names, known)?;
        rows.retain(|row| args.names.is_empty() || args.names.contains(&row.service));
        let counts = rows.iter().map(|row| (row.key(), row.counts.clone())).collect();
        if let Some((then, earlier)) = &before {
            for row in &mut rows {
                if let Some(earlier) = earlier.get(&row.key()) {
                    row.measure(earlier, now - *then);
                }
            }
        }
        before = Some((now, counts));
        match args.format {
            TableFormat::Json => return context.ui.json(&rows),
            TableFormat::Table if live => {
                // Clears the screen: the table is as long as there are pods.
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
