//! `orch top`: the processes of the project's containers, on all hosts.

use futures_util::future::join_all;

use crate::cli::among::{self, Which};
use crate::cli::args::TopArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::table::{self, Spacing};
use crate::engine::EngineError;
use crate::engine::by_hand::Processes;

/// Columns of the table. Source: observed from Docker Compose 2.40.
const SPACING: Spacing = Spacing { least: 4, gap: 2 };
/// What stands where a container does not have a column that another one has.
const NOTHING: &str = "-";

/// Lists the processes of the project's running containers.
///
/// # Errors
/// When there is no project, an unknown service is named, or an engine does not answer.
pub(crate) async fn run(context: &mut Context<'_>, args: &TopArgs) -> Result<(), CliError> {
    let which = Which { services: &args.services, stopped: false, oneoffs: true };
    let among = among::find(context, which).await?;
    let looks = among.containers.iter().map(|(at, one)| among.source(*at).engine.processes(&one.id));
    let mut listed = Vec::new();
    for (processes, (at, one)) in join_all(looks).await.into_iter().zip(&among.containers) {
        let source = among.source(*at);
        match processes {
            Ok(processes) => listed.push(Listed {
                service: one.service.as_ref().map(ToString::to_string).unwrap_or_default(),
                number: one.number.map(|number| number.to_string()).unwrap_or_default(),
                host: source.name.to_string(),
                processes,
            }),
            // It has ended since.
            Err(EngineError::NotFound { .. } | EngineError::Conflict { .. }) => {}
            Err(error) => return Err(source.failed(error)),
        }
    }
    let text = render(&listed, among.is_spread());
    context.ui.data(text.as_bytes())
}

/// A container's processes.
struct Listed {
    service: String,
    number: String,
    host: String,
    processes: Processes,
}

/// One table with the columns of all containers; nothing where nothing runs.
fn render(listed: &[Listed], is_spread: bool) -> String {
    let mut titles: Vec<&String> = Vec::new();
    for title in listed.iter().flat_map(|one| &one.processes.titles) {
        if !titles.contains(&title) {
            titles.push(title);
        }
    }
    let mut rows = Vec::new();
    for one in listed {
        for process in &one.processes.rows {
            let mut row = vec![one.service.clone(), one.number.clone()];
            if is_spread {
                row.push(one.host.clone());
            }
            row.extend(titles.iter().map(|title| {
                let at = one.processes.titles.iter().position(|own| own == *title);
                at.and_then(|at| process.get(at)).cloned().unwrap_or_else(|| NOTHING.to_owned())
            }));
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let first: &[&str] = if is_spread { &["SERVICE", "#", "HOST"] } else { &["SERVICE", "#"] };
    let header: Vec<String> =
        first.iter().map(|title| (*title).to_owned()).chain(titles.into_iter().cloned()).collect();
    table::render_spaced(&header, &rows, SPACING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(service: &str, host: &str, titles: &[&str], rows: &[&[&str]]) -> Listed {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Listed {
            service: service.to_owned(),
            number: "1".to_owned(),
            host: host.to_owned(),
            processes: Processes { titles: words(titles), rows: rows.iter().map(|row| words(row)).collect() },
        }
    }

    #[test]
    fn containers_share_one_table() {
        let all = [
            listed("db", "a", &["UID", "PID", "CMD"], &[&["root", "14173", "sleep 1000000"], &["root", "14", "sh"]]),
            listed("web", "b", &["PID", "COMMAND"], &[&["7", "nginx"]]),
        ];
        insta::assert_snapshot!(render(&all, false), @r"
        SERVICE  #   UID   PID    CMD            COMMAND
        db       1   root  14173  sleep 1000000  -
        db       1   root  14     sh             -
        web      1   -     7      -              nginx
        ");
        assert!(render(&all, true).starts_with("SERVICE  #   HOST  UID   PID"), "{}", render(&all, true));
        assert_eq!(render(&[], false), "");
    }
}
