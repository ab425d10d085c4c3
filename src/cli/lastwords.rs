//! What containers wrote last that keep a project from becoming as it shall be: the reason is seldom in their exit code.

use std::time::Duration;

use crate::engine::LogQuery;
use crate::graph::Graph;
use crate::ids::ProjectName;
use crate::observed::{ContainerState, Health, ObservedContainer};

use super::error::CliError;
use super::logline::Names;
use super::source::{self, Source};
use super::tail::{Choice, Merged, Readers, channel, short_name};
use super::ui::Ui;

/// Lines of each container.
const LINES: u64 = 10;
/// Lines of a health check.
const CHECK_LINES: usize = 5;
/// Containers whose lines are shown; more would hide the message.
const CONTAINERS: usize = 5;
/// Time for all of them: an engine that does not answer must not hold back the message.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shows the last lines of containers that ended badly or are unhealthy, where `error` is that a project failed or
/// was not ready in time.
pub(super) async fn show(ui: &mut Ui, sources: &[Source], graph: &Graph, error: &CliError) {
    let (CliError::Failed(messages) | CliError::WaitTimeout { missing: messages, .. }) = error else { return };
    let all = Choice { project: graph.project.clone(), services: Vec::new(), but: Vec::new(), index: None };
    let Ok(Ok((containers, _))) = tokio::time::timeout(PATIENCE, source::containers(sources, &all)).await else {
        return;
    };
    let concerned = |container: &ObservedContainer| messages.iter().any(|message| names(message, &container.name));
    let mut failed: Vec<_> =
        containers.iter().filter(|(_, container)| has_failed(container) || concerned(container)).collect();
    // Those that the message names come first.
    failed.sort_by_key(|(_, container)| !concerned(container));
    failed.truncate(CONTAINERS);
    // It is a help, not the answer: the error itself comes after it in any case.
    let _shown = tokio::time::timeout(PATIENCE, lines(ui, sources, &graph.project, Some(graph), &failed)).await;
}

/// Shows the last lines of the containers of a one-off's pod that `error` names.
pub(super) async fn show_of_oneoff(ui: &mut Ui, source: &Source, project: &ProjectName, slug: &str, error: &CliError) {
    let CliError::Failed(messages) = error else { return };
    let Ok(Ok(seen)) = tokio::time::timeout(PATIENCE, source.engine.observe(Some(project))).await else { return };
    let containers = seen.containers.into_values().filter(|one| one.slug() == Some(slug));
    let concerned = |one: &ObservedContainer| messages.iter().any(|message| names(message, &one.name));
    let failed: Vec<(usize, ObservedContainer)> = containers.filter(concerned).map(|one| (0, one)).collect();
    let failed: Vec<_> = failed.iter().collect();
    // As above.
    let _shown = tokio::time::timeout(PATIENCE, lines(ui, std::slice::from_ref(source), project, None, &failed)).await;
}

/// Returns whether a message names a container, and not one whose name begins with its own.
fn names(message: &str, container: &str) -> bool {
    let is_of_name = |one: char| one.is_ascii_alphanumeric() || matches!(one, '_' | '.' | '-');
    message.split(|one| !is_of_name(one)).any(|word| word.trim_end_matches('.') == container)
}

fn has_failed(container: &ObservedContainer) -> bool {
    match container.state {
        ContainerState::Exited { code, .. } => code != 0,
        ContainerState::Running { health } => health == Health::Unhealthy,
        ContainerState::Restarting | ContainerState::Dead => true,
        ContainerState::Created | ContainerState::Paused | ContainerState::Removing => false,
    }
}

/// Shows what the health check of a container that is unhealthy wrote last: seldom is it in the container's own output.
async fn check(ui: &mut Ui, source: &Source, container: &ObservedContainer) {
    if !matches!(container.state, ContainerState::Running { health: Health::Unhealthy | Health::Starting }) {
        return;
    }
    let Ok(Some(said)) = source.engine.health_output(&container.id).await else { return };
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(CHECK_LINES)..];
    if !last.is_empty() {
        ui.say(&format!("the health check of {} said:", container.name));
        for line in last {
            ui.say(&fit(line));
        }
    }
}

/// Returns a line that a terminal shows and does not obey.
fn fit(line: &str) -> String {
    format!("  {}", line.chars().filter(|one| !one.is_control()).collect::<String>())
}

async fn lines(
    ui: &mut Ui,
    sources: &[Source],
    project: &ProjectName,
    graph: Option<&Graph>,
    containers: &[&(usize, ObservedContainer)],
) -> Result<(), CliError> {
    let query = LogQuery { tail: Some(LINES), ..LogQuery::default() };
    let mut names = Names::new(true, ui.colour());
    for (at, container) in containers {
        check(ui, &sources[*at], container).await;
        let mut readers = Readers::default();
        let name = short_name(project, &container.name);
        names.add(name);
        let (to, from) = channel();
        readers.read(&sources[*at], &container.id, &query, to);
        let mut merged = Merged::new(vec![(name, from)]);
        let (mut any, mut words) = (false, String::new());
        while let Some((name, line)) = merged.next().await? {
            if !any {
                ui.say(&format!("the last lines of {}:", container.name));
                any = true;
            }
            words.push_str(&String::from_utf8_lossy(&line.text));
            words.push('\n');
            let text = names.line(name, &line.text);
            ui.say(String::from_utf8_lossy(&text).trim_end_matches('\n'));
        }
        let taken =
            graph.zip(container.service.as_ref()).and_then(|(graph, service)| graph.taken_port(service, &words));
        if let Some(taken) = taken {
            ui.say(&format!("container {} cannot have its port: {taken}", container.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_a_helper_is_not_about_the_main_container() {
        let message = "container shop-web-1-setup prepares its pod, has run for 5 seconds, and has not ended";
        assert!(names(message, "shop-web-1-setup") && !names(message, "shop-web-1"));
        assert!(names("dependency failed to start: container shop-db-1 is unhealthy", "shop-db-1"));
        assert!(names("container shop-db-1: its health check fails", "shop-db-1"));
    }
}
