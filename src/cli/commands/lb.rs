//! `orch lb`: what the load balancers of all hosts do, by service, rule, pod and ambassador; on a terminal again and again.

mod rows;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::types::Traffic;
use crate::cli::args::{LbArgs, TableFormat};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::signals::Interrupts;
use crate::ids::HostName;

use rows::{Counts, Key, Row, render, rows};

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
        let Look { traffic, left_out } = look(context).await?;
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
            TableFormat::Table if live => context.ui.renew(&live_table(&rows, &left_out))?,
            TableFormat::Table => return context.ui.data(render(&rows).as_bytes()),
        }
        tokio::select! {
            () = sleep(PERIOD) => {}
            () = interrupts.next() => return Ok(()),
        }
    }
}

/// What the load balancers do, and the hosts whose one could not be asked.
struct Look {
    traffic: Vec<Traffic>,
    left_out: Vec<HostName>,
}

/// Asks all hosts at once; those that do not answer are told and left out.
async fn look(context: &mut Context<'_>) -> Result<Look, CliError> {
    let Some(fleet) = context.fleet()? else {
        return Ok(Look { traffic: vec![context.client().await?.traffic().await?], left_out: Vec::new() });
    };
    let seen = fleet.look().await?;
    let hosts = context.present(&fleet, &seen.status);
    let is_asked = |name: &HostName| hosts.iter().any(|host| host.name() == name);
    let away = seen.status.hosts.iter().map(|host| &host.name).filter(|name| !is_asked(name));
    let mut look = Look { traffic: Vec::new(), left_out: away.cloned().collect() };
    let answers = fleet.ask_all(&hosts, |host| async move {
        let client = host.agent().await?;
        client.traffic().await.map_err(|error| host.failed(error))
    });
    for (host, answer) in answers.await {
        match answer {
            Ok(traffic) => look.traffic.push(traffic),
            Err(error) => {
                context.leave_out(host.name(), &error.to_string());
                look.left_out.push(host.name().clone());
            }
        }
    }
    Ok(look)
}

/// The table that is renewed. A warning would be gone with the next one, so the hosts that it lacks are below it.
fn live_table(rows: &[Row], left_out: &[HostName]) -> String {
    let names: Vec<String> = left_out.iter().map(|host| format!("`{host}`")).collect();
    let lacks = if names.is_empty() { String::new() } else { format!("without {}\n", names.join(", ")) };
    format!("{}{lacks}", render(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_renewed_says_which_hosts_it_lacks() {
        let host = |name: &str| HostName::new(name).expect("valid");
        assert!(!live_table(&[], &[]).contains("without"));
        assert!(live_table(&[], &[host("b"), host("c")]).ends_with("\nwithout `b`, `c`\n"));
    }
}
