//! What containers wrote last that keep a project from becoming as it shall be: the reason is seldom in their exit code.

use std::time::Duration;

use crate::engine::LogQuery;
use crate::observed::{ContainerState, Health, ObservedContainer};

use super::error::CliError;
use super::logline::Names;
use super::source::{self, Source};
use super::tail::{Choice, Merged, Readers, channel, short_name};
use super::ui::Ui;

/// Lines of each container.
const LINES: u64 = 10;
/// Containers whose lines are shown; more would hide the message.
const CONTAINERS: usize = 5;
/// Time for all of them: an engine that does not answer must not hold back the message.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shows the last lines of containers that ended badly or are unhealthy, where `error` is that a project failed.
pub(super) async fn show(ui: &mut Ui, sources: &[Source], choice: &Choice, error: &CliError) {
    let CliError::Failed(messages) = error else { return };
    let Ok(Ok((containers, _))) = tokio::time::timeout(PATIENCE, source::containers(sources, choice)).await else {
        return;
    };
    let concerned = |container: &ObservedContainer| messages.iter().any(|message| message.contains(&container.name));
    let mut failed: Vec<_> =
        containers.iter().filter(|(_, container)| has_failed(container) || concerned(container)).collect();
    // Those that the message names come first.
    failed.sort_by_key(|(_, container)| !concerned(container));
    failed.truncate(CONTAINERS);
    // It is a help, not the answer: the error itself comes after it in any case.
    let _shown = tokio::time::timeout(PATIENCE, lines(ui, sources, choice, &failed)).await;
}

fn has_failed(container: &ObservedContainer) -> bool {
    match container.state {
        ContainerState::Exited { code, .. } => code != 0,
        ContainerState::Running { health } => health == Health::Unhealthy,
        ContainerState::Restarting | ContainerState::Dead => true,
        ContainerState::Created | ContainerState::Paused | ContainerState::Removing => false,
    }
}

async fn lines(
    ui: &mut Ui,
    sources: &[Source],
    choice: &Choice,
    containers: &[&(usize, ObservedContainer)],
) -> Result<(), CliError> {
    let query = LogQuery { tail: Some(LINES), ..LogQuery::default() };
    let mut names = Names::new(true, ui.colour());
    for (at, container) in containers {
        let mut readers = Readers::default();
        let name = short_name(&choice.project, &container.name);
        names.add(name);
        let (to, from) = channel();
        readers.read(&sources[*at], &container.id, &query, to);
        let mut merged = Merged::new(vec![(name, from)]);
        let mut any = false;
        while let Some((name, line)) = merged.next().await? {
            if !any {
                ui.say(&format!("the last lines of {}:", container.name));
                any = true;
            }
            let text = names.line(name, &line.text);
            ui.say(String::from_utf8_lossy(&text).trim_end_matches('\n'));
        }
    }
    Ok(())
}
