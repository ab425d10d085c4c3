//! Who changed a project, and what of it: kept with its record, so that the next person sees what would be overwritten.
//! Pure: time and names come in as values.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Service};
use crate::ids::HostName;

use super::Desired;

/// Changes that are kept; older ones are forgotten.
const KEPT: usize = 32;

/// One change of what somebody wants of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Grows by one with each change of the project, from 1.
    pub number: u64,
    /// Who made it: `user@machine`; empty: nobody said.
    pub by: String,
    /// When, by the seat's clock.
    pub at: Timestamp,
    /// What changed, for the reader; empty: somebody took note of what others had changed, and wants the same.
    pub what: Vec<String>,
}

/// Who asks for something, and what he knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Caller {
    /// Who: `user@machine`; empty: nobody says, and nothing is asked.
    pub name: String,
    /// Newest change that he was shown; his own and those before his last one he knows anyway.
    pub seen: u64,
}

impl Caller {
    /// Returns one who overwrites whatever others changed.
    pub fn regardless(name: String) -> Self {
        Self { name, seen: u64::MAX }
    }
}

/// The last changes of a project, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<Change>);

impl History {
    /// Returns all changes that are kept, oldest first.
    pub fn changes(&self) -> &[Change] {
        &self.0
    }

    /// Returns who made the newest change.
    pub fn last_by(&self) -> Option<&str> {
        self.0.last().map(|change| change.by.as_str())
    }

    /// Returns what others changed since the caller last asked for something or was shown something.
    pub fn unseen(&self, caller: &Caller) -> Vec<&Change> {
        if caller.name.is_empty() {
            return Vec::new();
        }
        let own = self.0.iter().filter(|change| change.by == caller.name).map(|change| change.number).max();
        let known = own.unwrap_or_default().max(caller.seen);
        let news = self.0.iter().filter(|change| change.number > known && !change.by.is_empty());
        news.filter(|change| !change.what.is_empty()).collect()
    }

    /// Returns the history with another change.
    #[must_use]
    pub fn with(&self, by: &str, at: Timestamp, what: Vec<String>) -> Self {
        let number = self.0.last().map_or(0, |change| change.number) + 1;
        let mut changes = self.0.clone();
        changes.push(Change { number, by: by.to_owned(), at, what });
        changes.drain(..changes.len().saturating_sub(KEPT));
        Self(changes)
    }
}

/// Returns what is another wish in `now` than in `before`, for the reader: a line a service, and one for the rest.
pub fn differences(before: Option<&Desired>, now: &Desired) -> Vec<String> {
    let nothing = Graph { services: [].into(), ..now.graph.clone() };
    let earlier = before.map_or(&nothing, |desired| &desired.graph);
    let names: BTreeSet<_> = earlier.services.keys().chain(now.graph.services.keys()).collect();
    let mut lines: Vec<String> = Vec::new();
    for name in names {
        match (earlier.services.get(name), now.graph.services.get(name)) {
            (None, Some(_)) => lines.push(format!("{name} added")),
            (Some(_), None) => lines.push(format!("{name} removed")),
            (Some(old), Some(new)) if old != new => {
                let parts = changed_parts(old, new).join(", ");
                lines.push(if parts.is_empty() {
                    format!("{name} changed")
                } else {
                    format!("{name} changed ({parts})")
                });
            }
            _ => {}
        }
    }
    if earlier.networks != now.graph.networks && before.is_some() {
        lines.push("networks changed".to_owned());
    }
    if (&earlier.volumes, &earlier.pod_volumes) != (&now.graph.volumes, &now.graph.pod_volumes) && before.is_some() {
        lines.push("volumes changed".to_owned());
    }
    if let Some(before) = before.filter(|before| before.hosts != now.hosts) {
        lines.push(format!("hosts changed from {} to {}", list(&before.hosts), list(&now.hosts)));
    }
    if lines.is_empty() {
        lines.push("asked for in another way (services named, flags, files)".to_owned());
    }
    lines
}

fn list(hosts: &BTreeSet<HostName>) -> String {
    let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    if names.is_empty() { "all".to_owned() } else { names.join(", ") }
}

/// The keys of the compose file whose values differ, as far as they are told apart.
fn changed_parts(old: &Service, new: &Service) -> Vec<String> {
    let keys: BTreeSet<&String> = old.spec_parts.keys().chain(new.spec_parts.keys()).collect();
    let differ = keys.into_iter().filter(|key| old.spec_parts.get(*key) != new.spec_parts.get(*key));
    let mut parts: Vec<String> = differ.cloned().collect();
    let mut also = |differs: bool, word: &str| {
        if differs && !parts.iter().any(|part| part == word) {
            parts.push(word.to_owned());
        }
    };
    also(old.scale != new.scale, "replicas");
    also(old.placement != new.placement, "placement");
    also(old.ports != new.ports, "ports");
    also(old.depends_on != new.depends_on, "depends_on");
    also(old.restart != new.restart || old.restart_pace != new.restart_pace, "restart");
    also(old.rollout != new.rollout, "update_config");
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::graph;
    use crate::testing;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).expect("a time")
    }

    fn caller(name: &str, seen: u64) -> Caller {
        Caller { name: name.to_owned(), seen }
    }

    /// `ann: web added; bob: -`, from the oldest.
    fn history(text: &str) -> History {
        let changes = text.split("; ").filter_map(|change| change.split_once(": "));
        changes.fold(History::default(), |history, (by, what)| {
            let what = if what == "-" { Vec::new() } else { vec![what.to_owned()] };
            history.with(if by == "nobody" { "" } else { by }, at(1), what)
        })
    }

    #[track_caller]
    fn check(text: &str, caller: &Caller, expected: &[u64]) {
        let history = history(text);
        let unseen: Vec<u64> = history.unseen(caller).iter().map(|change| change.number).collect();
        assert_eq!(unseen, expected, "{text}, {caller:?}");
    }

    #[test]
    fn what_others_did_since_is_unseen_and_what_is_ones_own_is_not() {
        check("", &caller("ann", 0), &[]);
        check("ann: web added; ann: db added", &caller("ann", 0), &[]);
        check("ann: web added; bob: db added; eve: db removed", &caller("ann", 0), &[2, 3]);
        check("ann: web added; bob: db added; ann: db removed", &caller("ann", 0), &[]);
        check("ann: web added; bob: db added", &caller("bob", 0), &[]);
        check("ann: web added", &caller("bob", 0), &[1]);
        check("ann: web added; ann: db added", &caller("bob", 1), &[2]);
        check("ann: web added; bob: -", &caller("ann", 0), &[]);
        check("ann: web added; bob: -; ann: db added", &caller("bob", 0), &[3]);
        check("nobody: web added", &caller("ann", 0), &[]);
        check("ann: web added", &caller("", 0), &[]);
        check("ann: web added", &Caller::regardless("bob".to_owned()), &[]);
    }

    #[test]
    fn old_changes_are_forgotten_and_numbers_go_on() {
        let long = (0..100).fold(History::default(), |history, _| history.with("ann", at(1), vec!["x".to_owned()]));
        assert_eq!(long.changes().len(), KEPT);
        assert_eq!(long.changes().last().map(|change| change.number), Some(100));
    }

    #[test]
    fn differences_are_named_by_service() {
        let desired = |text: &str| testing::desired(graph(text));
        let check = |before: Option<&str>, now: &str, expected: &str| {
            let before = before.map(desired);
            assert_eq!(differences(before.as_ref(), &desired(now)).join("; "), expected);
        };
        check(None, "{db: {}, web: {}}", "db added; web added");
        check(Some("{db: {}, web: {}}"), "{cache: {}, web: {}}", "cache added; db removed");
        check(Some("web: {image: a:1}"), "web: {image: a:2}", "web changed (image)");
        check(Some("web: {scale: 1}"), "web: {scale: 2}", "web changed (replicas)");
        check(
            Some("web: {}"),
            "{web: {deploy: {placement: {constraints: [node.hostname == a]}}}}",
            "web changed (placement)",
        );
        check(Some("web: {}"), "web: {}", "asked for in another way (services named, flags, files)");
    }
}
