//! What containers wrote last that keep others waiting: seldom is the reason anywhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::api::types::{Finding, Weight};
use crate::engine::{Engine, LogQuery};
use crate::ids::ServiceName;
use crate::observed::{ContainerState, Health, ObservedContainer};

use super::seeing::Seen;

/// Lines of each container.
const LINES: usize = 3;

/// Lines of a run that are searched for why it ended; a program may write where it was after that.
const LOOKED_AT: u64 = 40;

/// Containers that are looked into for one question.
const CONTAINERS: usize = 8;

/// Characters of a line.
const LENGTH: usize = 200;

/// Bytes that are read of one.
const BYTES: usize = 64 * 1024;

/// Time for all of them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Returns what those wrote last, or their health checks, that prepare a pod and do not end, are unhealthy, or ended badly,
/// by engine id.
pub(super) async fn last<'a>(
    engine: &dyn Engine,
    containers: impl Iterator<Item = &'a ObservedContainer>,
) -> BTreeMap<String, String> {
    let mut words = BTreeMap::new();
    let reading = async {
        for container in containers.filter(|one| is_of_interest(one)).take(CONTAINERS) {
            let check = match container.state {
                ContainerState::Running { health: Health::Unhealthy } => engine.health_output(&container.id).await,
                _ => Ok(None),
            };
            let check = check.ok().flatten().map(|text| lines(text.as_bytes())).unwrap_or_default();
            let told =
                [told("its health check said:", &check), told("it wrote last:", &of(engine, &container.id).await)];
            let told: Vec<String> = told.into_iter().flatten().collect();
            if !told.is_empty() {
                words.insert(container.id.clone(), told.join("\n"));
            }
        }
    };
    // What was read by then is what there is to tell.
    let _in_time = tokio::time::timeout(PATIENCE, reading).await;
    words
}

impl Seen<'_> {
    /// Looks which containers of this host, of those that fail where ambassadors listen, could not have their port.
    pub(super) async fn look_for_taken_ports(&mut self) {
        let graph = &self.desired.graph;
        let fails = |one: &ObservedContainer| {
            let failures = one.pod().and_then(|pod| self.memory(&pod)).map_or(0, |memory| memory.failures);
            is_of_interest(one) || failures > 0
        };
        let here = self.observed.hosts.get(self.shared.host()).into_iter().flat_map(|host| host.containers.values());
        let with_ambassadors =
            here.filter(|one| one.service.as_ref().is_some_and(|service| !graph.ambassadors_in(service).is_empty()));
        self.last_runs = of_last_runs(self.shared.engine.as_ref(), with_ambassadors.filter(|one| fails(one))).await;
    }

    /// Says which ambassadors have the ports that containers of this host wanted, as they wrote themselves: those of all pods of
    /// a service, or of one.
    pub(super) fn taken_ports(&self, front: &ServiceName, number: Option<u32>) -> Vec<Finding> {
        let graph = &self.desired.graph;
        let here = self.observed.hosts.get(self.shared.host());
        let containers = here.into_iter().flat_map(|host| host.containers.values());
        let meant = containers.filter(|one| number.is_none() || one.number == number);
        let told = meant.filter_map(|one| {
            let service = one.service.as_ref().filter(|service| graph.front(service) == front)?;
            let taken = graph.taken_port(service, self.last_runs.get(&one.id)?)?;
            let hint = "let the ambassador listen elsewhere (`listen: PORT`), or the program";
            let text = format!("container {} cannot have its port: {taken}", one.name);
            Some(Finding { weight: Weight::Problem, text, hint: Some(hint.to_owned()) })
        });
        told.collect()
    }
}

fn is_of_interest(container: &ObservedContainer) -> bool {
    match container.state {
        ContainerState::Running { health: Health::Unhealthy } | ContainerState::Restarting => true,
        ContainerState::Running { .. } => container.part().is_some_and(|part| part.role.prepares()),
        ContainerState::Exited { code, .. } => code != 0,
        ContainerState::Created | ContainerState::Paused | ContainerState::Dead | ContainerState::Removing => false,
    }
}

/// Returns what containers wrote in their last run, by engine id.
pub(super) async fn of_last_runs<'a>(
    engine: &dyn Engine,
    containers: impl Iterator<Item = &'a ObservedContainer>,
) -> BTreeMap<String, String> {
    let mut words = BTreeMap::new();
    let reading = async {
        for container in containers.take(CONTAINERS) {
            // An earlier run may have ended for another reason.
            let begin = container.started_at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second);
            let query = LogQuery { tail: Some(LOOKED_AT), since: begin, ..LogQuery::default() };
            let bytes = read(engine, &container.id, &query).await;
            words.insert(container.id.clone(), String::from_utf8_lossy(&bytes).into_owned());
        }
    };
    // As above.
    let _in_time = tokio::time::timeout(PATIENCE, reading).await;
    words
}

async fn of(engine: &dyn Engine, container: &str) -> Vec<String> {
    let query = LogQuery { tail: Some(LINES as u64), ..LogQuery::default() };
    lines(&read(engine, container, &query).await)
}

async fn read(engine: &dyn Engine, container: &str, query: &LogQuery) -> Vec<u8> {
    let mut chunks = engine.logs(container, query);
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        bytes.extend_from_slice(&chunk.bytes);
        if bytes.len() > BYTES {
            break;
        }
    }
    bytes
}

/// Returns the last lines of a text, fit for a terminal.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let shown = |line: &str| line.chars().filter(|one| !one.is_control()).take(LENGTH).collect::<String>();
    let lines: Vec<String> = text.lines().map(shown).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].to_vec()
}

/// Puts lines below their title; `None`: there are none.
fn told(title: &str, lines: &[String]) -> Option<String> {
    (!lines.is_empty()).then(|| format!("{title}\n  {}", lines.join("\n  ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_lines_are_kept_and_none_that_a_terminal_obeys() {
        let text = format!("one\ntwo\n\nthree\x1b[2J\r\n{}\n", "x".repeat(1000));
        let kept = lines(text.as_bytes());
        assert_eq!(kept[..2], ["two".to_owned(), "three[2J".to_owned()]);
        assert_eq!((kept.len(), kept[2].len()), (LINES, LENGTH));
        assert_eq!(lines(b"\n \n"), Vec::<String>::new());
        assert_eq!(told("it wrote last:", &kept[..1]).as_deref(), Some("it wrote last:\n  two"));
        assert_eq!(told("it wrote last:", &[]), None);
    }
}
