//! `orch status`: the cluster at a glance.

use std::fmt::Write as _;

use serde::Serialize;

use crate::api::types::ProjectSummary;
use crate::cli::args::{StatusArgs, TextFormat};
use crate::cli::commands::host::list::{Row, rows};
use crate::cli::context::{Context, if_there};
use crate::cli::error::CliError;
use crate::ids::HostName;

use super::version::VERSION;

/// Shows hosts, seat, versions and projects.
///
/// # Errors
/// When no host answers.
pub(crate) async fn run(context: &mut Context<'_>, args: &StatusArgs) -> Result<(), CliError> {
    let status = if let Some(fleet) = context.fleet_without_project()? {
        let seen = fleet.look().await?;
        let projects = seen.client.projects().await?;
        let (hosts, silent) = rows(&fleet).await?;
        for host in &hosts {
            host.warn_of_problems(context.ui);
        }
        context.ui.warn_all(&silent);
        context.ui.warn_all(&seen.silent);
        Status { orch: VERSION, cluster: seen.status.cluster, seat: Some(seen.status.seat), hosts, projects }
    } else {
        let projects = if_there(context.client().await?.projects().await)?.unwrap_or_default();
        Status { orch: VERSION, cluster: None, seat: None, hosts: Vec::new(), projects }
    };
    match args.format {
        TextFormat::Json => context.ui.json(&status),
        TextFormat::Text => context.ui.data(status.text().as_bytes()),
    }
}

#[derive(Serialize)]
struct Status {
    orch: &'static str,
    cluster: Option<String>,
    seat: Option<HostName>,
    hosts: Vec<Row>,
    projects: Vec<ProjectSummary>,
}

impl Status {
    fn text(&self) -> String {
        let mut text = format!("orch      {}\n", self.orch);
        let mut line = |word: &str, rest: &str| writeln!(text, "{word:<9} {rest}").expect("a string takes all");
        match (&self.cluster, &self.seat) {
            (Some(cluster), Some(seat)) => {
                line("cluster", cluster);
                line("seat", &format!("{seat}: decides and keeps what shall run; the other hosts have full copies"));
            }
            _ => line("cluster", "none: the local engine alone"),
        }
        for host in &self.hosts {
            let agent = if host.agent.is_empty() { String::new() } else { format!(", agent {}", host.agent) };
            line("host", &format!("{}: {}{agent}", host.name, host.state));
        }
        for project in &self.projects {
            let states = project.states.iter().map(|(state, count)| format!("{state}({count})"));
            let states = states.collect::<Vec<_>>().join(", ");
            let revision = project.revision.map(|revision| format!("revision {revision}, ")).unwrap_or_default();
            line("project", &format!("{}: {revision}{states}", project.name));
            project.unplaced.iter().for_each(|why| line("", why));
        }
        if self.projects.is_empty() {
            line("projects", "none");
        }
        text
    }
}
