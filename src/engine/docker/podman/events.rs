//! Podman's events in Docker's words. Start at [`translated`].
//!
//! Two things it does not say at all, and what tells them:
//!
//! * **A stop by hand.** `docker stop` brings the event `died` only, as an end by itself does (`stop` follows some of the
//!   time). But who stops a container also cleans up after it, and the container's own monitor does so in any case: a
//!   second `cleanup` within moments of the end says that somebody stopped it. Docker's `stop` comes after the end as well.
//! * **What a health check found.** `health_status` comes when a check begins. It is done when its command has ended
//!   (`exec_died`), and written down a moment later.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, future, stream};
use tokio::time::Instant;

use crate::engine::{BoxStream, EngineEvent, EventQuery, Result};

/// Podman's words of what changes what runs. Source: podman, libpod/events/config.go.
pub(in crate::engine::docker) const EVENTS: &[&str] = &[
    "create",
    "start",
    "died",
    "stop",
    "kill",
    "pause",
    "unpause",
    "restart",
    "rename",
    "remove",
    "cleanup",
    "exec_died",
    "connect",
    "disconnect",
    "prune",
];

/// The kinds of things that these are asked of: bollard refuses those that Docker has not (`pod`, `system`).
pub(in crate::engine::docker) const KINDS: &[&str] = &["container", "network", "volume"];

/// How long after an end a second clean-up belongs to it. Both follow within a second even where the machine is busy;
/// somebody who stops what has ended long ago means nothing by it.
const TOGETHER: i64 = 5_000_000_000;

/// How long it takes until what a check found can be read: up to 0.3 s were seen on a busy machine.
const WRITTEN_DOWN: Duration = Duration::from_millis(500);

/// By how much a time may be wrong, and more.
const INEXACT: i64 = 1_000;

/// Most containers whose ends are remembered at once; then all are forgotten, which costs no more than that a stop by
/// hand at that moment is taken for an end by itself.
const MOST_ENDS: usize = 4096;

/// For whom events are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::docker) enum Reader {
    /// The agent, which looks again where something happened.
    Agent,
    /// Somebody who reads all that happens to a project.
    Person,
}

/// Returns Podman's events as Docker would have sent them.
///
/// It reads times as floating-point numbers, which are right to a quarter of a microsecond in our age, so that it is asked
/// for a little more ([`widened`]); what is not between `since` and `until` is left out here.
pub(in crate::engine::docker) fn translated(
    events: BoxStream<'static, Result<EngineEvent>>,
    reader: Reader,
    query: &EventQuery,
) -> BoxStream<'static, Result<EngineEvent>> {
    let (since, until) = (query.since.unwrap_or(i64::MIN), query.until.unwrap_or(i64::MAX));
    let asked = move |event: &Result<EngineEvent>| {
        future::ready(event.as_ref().map_or(true, |event| (since..=until).contains(&event.time_nanos)))
    };
    let events = events.filter(asked);
    let state = (events, Words { reader, ends: BTreeMap::new() }, Late::default());
    let translated = stream::unfold(state, |(mut events, mut words, mut late)| async move {
        loop {
            let due = late.due();
            let next = tokio::select! {
                next = events.next() => next,
                () = at(due) => match late.take() {
                    Some(event) => return Some((Ok(event), (events, words, late))),
                    None => continue,
                },
            };
            match next? {
                Err(error) => return Some((Err(error), (events, words, late))),
                Ok(event) => match words.translate(event) {
                    Some((event, false)) => return Some((Ok(event), (events, words, late))),
                    Some((event, true)) => late.put(event),
                    None => {}
                },
            }
        }
    });
    translated.boxed()
}

/// Returns a query for a little more than `query` asks for.
pub(in crate::engine::docker) fn widened(query: &EventQuery) -> EventQuery {
    let EventQuery { since, until, project } = query.clone();
    EventQuery {
        since: since.map(|nanos| nanos.saturating_sub(INEXACT)),
        until: until.map(|nanos| nanos.saturating_add(INEXACT)),
        project,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Events that are held back, at most one for a container.
#[derive(Default)]
struct Late(BTreeMap<String, (Instant, EngineEvent)>);

impl Late {
    fn put(&mut self, event: EngineEvent) {
        self.0.insert(event.id.clone(), (Instant::now() + WRITTEN_DOWN, event));
    }

    fn due(&self) -> Option<Instant> {
        self.0.values().map(|(time, _)| *time).min()
    }

    fn take(&mut self) -> Option<EngineEvent> {
        let due = self.due()?;
        let id = self.0.iter().find(|(_, (time, _))| *time == due).map(|(id, _)| id.clone())?;
        self.0.remove(&id).map(|(_, event)| event)
    }
}

/// What the end of a container was followed by so far.
#[derive(Debug, Clone, Copy)]
struct End {
    at: i64,
    cleanups: u8,
}

struct Words {
    reader: Reader,
    /// Containers that have ended, by id, until they start again.
    ends: BTreeMap<String, End>,
}

impl Words {
    /// Returns the event in Docker's words and whether it is to wait; `None`: Docker has nothing of the kind.
    fn translate(&mut self, event: EngineEvent) -> Option<(EngineEvent, bool)> {
        if event.kind != "container" {
            let action = if event.action == "remove" { "destroy".to_owned() } else { event.action.clone() };
            return Some((EngineEvent { action, ..event }, false));
        }
        let action = self.word(&event)?;
        let late = self.reader == Reader::Agent && event.action == "exec_died";
        let mut event = EngineEvent { action, ..event };
        if event.action == "kill" {
            // Podman does not say which. The one of a stop, which ends things by custom.
            event.attributes.entry("signal".to_owned()).or_insert_with(|| "15".to_owned());
        }
        event.attributes.remove("containerExitCode");
        event.attributes.remove("podId");
        Some((event, late))
    }

    fn word(&mut self, event: &EngineEvent) -> Option<String> {
        let word = match (event.action.as_str(), self.reader) {
            ("die" | "died", _) => {
                if self.ends.len() >= MOST_ENDS {
                    self.ends.clear();
                }
                self.ends.insert(event.id.clone(), End { at: event.time_nanos, cleanups: 0 });
                "die"
            }
            ("cleanup", _) => {
                let end = self.ends.get_mut(&event.id)?;
                end.cleanups = end.cleanups.saturating_add(1);
                let both = end.cleanups == 2 && event.time_nanos - end.at < TOGETHER;
                return both.then(|| "stop".to_owned());
            }
            ("stop", _) => {
                // Before the end: what brings it about. After it: as the second clean-up, which then says no more.
                match self.ends.get_mut(&event.id) {
                    None => "kill",
                    Some(end) if end.cleanups < 2 => {
                        end.cleanups = 2;
                        "stop"
                    }
                    Some(_) => return None,
                }
            }
            ("start", _) => {
                self.ends.remove(&event.id);
                "start"
            }
            ("remove", _) => {
                self.ends.remove(&event.id);
                "destroy"
            }
            ("exec_died", Reader::Agent) => "health_status",
            ("health_status", Reader::Agent) | ("init" | "sync" | "mount" | "unmount", _) => return None,
            ("health_status", Reader::Person) => {
                let found = event.attributes.get("health_status").map_or("starting", String::as_str);
                return Some(format!("health_status: {found}"));
            }
            ("exec", _) => "exec_start",
            ("exec_died", Reader::Person) => "exec_die",
            (other, _) => other,
        };
        Some(word.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, id: &str, millis: i64) -> EngineEvent {
        EngineEvent {
            kind: "container".to_owned(),
            action: action.to_owned(),
            id: id.to_owned(),
            attributes: BTreeMap::new(),
            time_nanos: millis * 1_000_000,
        }
    }

    /// `words` are Podman's, each with its time in milliseconds; `expected` are Docker's.
    #[track_caller]
    fn check(reader: Reader, words: &[(&str, i64)], expected: &[&str]) {
        let mut translator = Words { reader, ends: BTreeMap::new() };
        let said = words.iter().filter_map(|(word, at)| translator.translate(event(word, "a", *at)));
        assert_eq!(said.map(|(event, _)| event.action).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_end_by_itself_is_cleaned_up_once_and_one_by_hand_twice() {
        use Reader::{Agent, Person};
        let life = [("create", 0), ("init", 1), ("start", 2)];
        let with = |rest: &[(&'static str, i64)]| [&life, rest].concat();
        check(Agent, &with(&[("die", 9), ("cleanup", 200)]), &["create", "start", "die"]);
        check(Person, &with(&[("die", 9), ("cleanup", 200), ("remove", 300)]), &["create", "start", "die", "destroy"]);
        let stopped = [("died", 9), ("cleanup", 200), ("cleanup", 201)];
        check(Agent, &with(&stopped), &["create", "start", "die", "stop"]);
        // Some stops are told, before or after the end.
        check(Agent, &[("stop", 1), ("died", 9), ("cleanup", 20)], &["kill", "die"]);
        check(Agent, &[("died", 9), ("stop", 10), ("cleanup", 20), ("cleanup", 21)], &["die", "stop"]);
        check(Agent, &[("died", 9), ("cleanup", 10), ("stop", 20), ("cleanup", 21)], &["die", "stop"]);
        check(Agent, &[("kill", 1), ("died", 9), ("cleanup", 20)], &["kill", "die"]);
    }

    #[test]
    fn clean_ups_of_other_runs_and_of_what_ended_long_ago_say_nothing() {
        use Reader::Agent;
        let again = [("die", 1), ("cleanup", 2), ("start", 3), ("die", 4), ("cleanup", 5)];
        check(Agent, &again, &["die", "start", "die"]);
        check(Agent, &[("die", 1), ("cleanup", 2), ("cleanup", 60_000)], &["die"]);
        check(Agent, &[("cleanup", 2), ("cleanup", 3)], &[]);
        check(Agent, &[("die", 1), ("cleanup", 2), ("cleanup", 3), ("cleanup", 4)], &["die", "stop"]);
    }

    #[test]
    fn words_for_people_and_for_the_agent() {
        check(Reader::Person, &[("exec", 1), ("exec_died", 2), ("rename", 3)], &["exec_start", "exec_die", "rename"]);
        check(Reader::Agent, &[("health_status", 1), ("exec_died", 2)], &["health_status"]);
        let mut translator = Words { reader: Reader::Person, ends: BTreeMap::new() };
        let mut sick = event("health_status", "a", 1);
        sick.attributes.insert("health_status".to_owned(), "unhealthy".to_owned());
        let (said, _) = translator.translate(sick).expect("an event");
        assert_eq!(said.action, "health_status: unhealthy");
        let (said, _) = translator.translate(event("kill", "a", 2)).expect("an event");
        assert_eq!(said.attributes["signal"], "15");
        let volume = EngineEvent { kind: "volume".to_owned(), ..event("remove", "data", 3) };
        assert_eq!(translator.translate(volume).expect("an event").0.action, "destroy");
    }

    #[tokio::test]
    async fn what_was_not_asked_for_is_left_out_to_the_nanosecond() {
        let query = EventQuery { since: Some(2_000_000), until: Some(4_000_000), project: None };
        let wider = widened(&query);
        assert_eq!((wider.since, wider.until), (Some(1_999_000), Some(4_001_000)));
        let sent = [("start", 1), ("die", 2), ("pause", 4), ("rename", 5)];
        let sent = stream::iter(sent).map(|(word, at)| Ok(event(word, "a", at)));
        let heard = translated(sent.boxed(), Reader::Agent, &query).map(|event| event.expect("no error").action);
        assert_eq!(heard.collect::<Vec<_>>().await, ["die", "pause"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_agent_hears_of_a_check_when_its_result_can_be_read() {
        let (to, from) = tokio::sync::mpsc::unbounded_channel();
        let from = stream::unfold(from, |mut from| async move { from.recv().await.map(|event| (event, from)) });
        let mut heard = translated(from.boxed(), Reader::Agent, &EventQuery::default());
        let begun = Instant::now();
        for (word, id) in [("exec_died", "a"), ("exec_died", "b"), ("exec_died", "a"), ("start", "c")] {
            to.send(Ok(event(word, id, 1))).expect("it listens");
        }
        let mut next = async || {
            let event = heard.next().await.expect("an event").expect("no error");
            (event.action, event.id, begun.elapsed())
        };
        let said = |action: &str, id: &str, after| (action.to_owned(), id.to_owned(), after);
        assert_eq!(next().await, said("start", "c", Duration::ZERO));
        let mut late = [next().await, next().await];
        late.sort();
        let expected = ["a", "b"].map(|id| said("health_status", id, late[0].2));
        assert_eq!(late, expected, "one for each container");
        assert!(late[0].2 >= WRITTEN_DOWN, "{late:?}");
        drop(to);
        assert!(heard.next().await.is_none(), "it ends with what it translates");
    }
}
