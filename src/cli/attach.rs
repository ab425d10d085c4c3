//! Following containers: their output, also of those that start later or again, and how they end.

use std::collections::BTreeMap;

use crate::engine::{EngineEvent, EventQuery, LogQuery, label};
use crate::ids::{PodId, ProjectName, ServiceName};
use crate::observed::{ObservedContainer, part_of};

use super::error::CliError;
use super::logline::Names;
use super::order::Waiting;
use super::source::Source;
use super::tail::{Choice, FromReader, Line, Merged, Readers, Said, ToReader, channel, short_name};
use super::ui::Ui;
use super::watch::{Heard, Watch};

/// Containers that are followed.
pub(crate) struct Attachment {
    choice: Choice,
    show: Show,
    names: Names,
    readers: Readers,
    said: (ToReader, FromReader),
    watch: Watch,
    /// By engine id.
    followed: BTreeMap<String, Followed>,
    sources: Vec<Source>,
    /// Lines of several hosts that wait for earlier ones, with the ids of their containers.
    waiting: Waiting<String, (String, Line)>,
}

/// What is shown beside the text of lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Show {
    /// Names before lines.
    pub prefix: bool,
    /// Colours.
    pub colour: bool,
    /// The engine's time.
    pub timestamps: bool,
    /// How containers end.
    pub exits: bool,
}

struct Followed {
    /// Place of its engine in the list.
    source: usize,
    name: String,
    pod: PodId,
    /// Whether its output is being read.
    open: bool,
    /// Time of the last line shown.
    last: String,
    /// Lines up to there were shown by an earlier reading.
    skip: String,
    /// Its exit code, not told yet because its last lines are still to come.
    ended: Option<i64>,
}

/// A container that moved.
struct Moved {
    id: String,
    name: String,
    pod: PodId,
    seconds: i64,
    what: Move,
}

enum Move {
    Started,
    Ended(i64),
}

/// What the follower's owner may want to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A container ended, and all it wrote was shown.
    Exited {
        /// Its pod.
        pod: PodId,
        /// Its exit code.
        code: i64,
    },
    /// Nothing is being read any more.
    Quiet,
}

impl Attachment {
    /// Begins to listen for what happens to the containers of the choice. Reads nothing yet.
    pub(crate) fn listen(sources: Vec<Source>, choice: Choice, show: Show) -> Self {
        let query = EventQuery { project: Some(choice.project.clone()), ..EventQuery::default() };
        let watch = Watch::open(&sources, &query);
        Self {
            choice,
            show,
            names: Names::new(show.prefix, show.colour),
            readers: Readers::default(),
            said: channel(),
            watch,
            followed: BTreeMap::new(),
            sources,
            waiting: Waiting::new(),
        }
    }

    /// Returns the engines.
    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Reads a container that is there. Returns its short name.
    pub(crate) fn add(&mut self, source: usize, container: &ObservedContainer, query: &LogQuery) -> Option<String> {
        let pod = container.pod()?;
        let name = short_name(&self.choice.project, &container.name).to_owned();
        self.open(source, &container.id, &name, pod, query);
        Some(name)
    }

    /// Shows what containers have written so far, in the order of its times however long each host's way is, and reads on
    /// from there.
    pub(crate) async fn catch_up(
        &mut self,
        ui: &mut Ui,
        containers: &[(usize, ObservedContainer)],
        query: &LogQuery,
    ) -> Result<(), CliError> {
        let so_far = LogQuery { follow: false, ..query.clone() };
        let (mut readers, mut begun) = (Readers::default(), Vec::new());
        for (source, container) in containers {
            let name = short_name(&self.choice.project, &container.name).to_owned();
            self.names.add(&name);
            let (to, from) = channel();
            if let Some(source) = self.sources.get(*source) {
                readers.read(source, &container.id, &so_far, to);
            }
            begun.push(((container.id.clone(), name), from));
        }
        let (mut merged, mut last) = (Merged::new(begun), BTreeMap::new());
        // What cannot be read now comes with what follows: each container is read on from its last line.
        while let Ok(Some(((id, name), line))) = merged.next().await {
            write_line(ui, &self.names, &name, &line, self.show.timestamps)?;
            if let Ok(time) = line.time.parse::<jiff::Timestamp>() {
                last.insert(id, (line.time, time.as_second()));
            }
        }
        for (source, container) in containers {
            let (read, since) = match last.remove(&container.id) {
                Some((time, second)) => (time, LogQuery { since: Some(second), tail: None, ..query.clone() }),
                None => (String::new(), query.clone()),
            };
            let Some(pod) = container.pod() else { continue };
            let name = short_name(&self.choice.project, &container.name).to_owned();
            self.follow(*source, &container.id, &name, pod).last = read;
            self.add(*source, container, &since);
        }
        Ok(())
    }

    fn follow(&mut self, source: usize, id: &str, name: &str, pod: PodId) -> &mut Followed {
        let fresh = || Followed {
            source,
            name: name.to_owned(),
            pod,
            open: false,
            last: String::new(),
            skip: String::new(),
            ended: None,
        };
        self.followed.entry(id.to_owned()).or_insert_with(fresh)
    }

    fn open(&mut self, source: usize, id: &str, name: &str, pod: PodId, query: &LogQuery) {
        self.names.add(name);
        let followed = self.follow(source, id, name, pod);
        if !followed.open {
            followed.open = true;
            followed.skip.clone_from(&followed.last);
            followed.ended = None;
            let query = LogQuery { follow: true, ..query.clone() };
            let source = followed.source;
            if let Some(source) = self.sources.get(source) {
                self.readers.read(source, id, &query, self.said.0.clone());
            }
        }
    }

    /// Shows what comes until something happens. May be dropped and called again at any moment.
    pub(crate) async fn next(&mut self, ui: &mut Ui) -> Result<Happening, CliError> {
        loop {
            let happening = tokio::select! {
                // What a container wrote before what happened to it.
                biased;
                Some((id, said)) = self.said.1.recv() => self.said(ui, &id, said)?,
                () = self.waiting.due() => {
                    self.show_waiting(ui)?;
                    None
                }
                heard = self.watch.next() => match heard {
                    Some((source, heard)) => self.heard(ui, source, heard)?,
                    None => return Err(CliError::Cut),
                },
            };
            if let Some(happening) = happening {
                return Ok(happening);
            }
        }
    }

    /// Shows the lines that wait, in the order of their times.
    fn show_waiting(&mut self, ui: &mut Ui) -> Result<(), CliError> {
        for (id, line) in self.waiting.take() {
            if let Some(followed) = self.followed.get(&id) {
                write_line(ui, &self.names, &followed.name, &line, self.show.timestamps)?;
            }
        }
        Ok(())
    }

    fn said(&mut self, ui: &mut Ui, id: &str, said: Said) -> Result<Option<Happening>, CliError> {
        if !matches!(said, Said::Line(_)) || self.waiting.is_full() || self.waiting.is_due() {
            self.show_waiting(ui)?;
        }
        let Some(followed) = self.followed.get_mut(id) else { return Ok(None) };
        match said {
            Said::Line(line) => {
                if line.time.is_empty() || line.time > followed.skip {
                    followed.last.clone_from(&line.time);
                    // A line without a time belongs right after the one before it.
                    if self.sources.len() == 1 || (line.time.is_empty() && self.waiting.is_empty()) {
                        write_line(ui, &self.names, &followed.name, &line, self.show.timestamps)?;
                    } else {
                        self.waiting.push(line.time.clone(), (id.to_owned(), line));
                    }
                }
                Ok(None)
            }
            Said::Interrupted(error) => {
                let name = &followed.name;
                let remote = self.sources.get(followed.source).filter(|source| source.is_remote());
                ui.warn(&match remote {
                    Some(Source { name: host, .. }) => {
                        format!("the output of {name} is interrupted, and read on once host `{host}` answers")
                    }
                    None => {
                        format!("the output of {name} is interrupted, and read on once the engine answers: {error}")
                    }
                });
                Ok(None)
            }
            Said::Failed(error) => {
                ui.warn(&format!("the output of {} cannot be read: {error}", followed.name));
                Ok(None)
            }
            Said::Ended => {
                followed.open = false;
                let ended = followed.ended.take();
                let exited = ended.map(|code| exited(ui, self.show, followed, code));
                let quiet = || self.followed.values().all(|one| !one.open).then_some(Happening::Quiet);
                Ok(exited.or_else(quiet))
            }
        }
    }

    /// Takes in what is heard of an engine. That one of another host is away is told by who reads there.
    fn heard(&mut self, ui: &mut Ui, source: usize, heard: Heard) -> Result<Option<Happening>, CliError> {
        match heard {
            Heard::Event(event) => Ok(moved(&event, &self.choice).and_then(|moved| self.moved(ui, source, moved))),
            Heard::Interrupted(error) if !self.sources.get(source).is_some_and(Source::is_remote) => {
                Err(error.map_or(CliError::Cut, CliError::from))
            }
            Heard::Interrupted(_) | Heard::Current | Heard::Back | Heard::Done => Ok(None),
        }
    }

    fn moved(&mut self, ui: &mut Ui, source: usize, moved: Moved) -> Option<Happening> {
        match moved.what {
            Move::Started => {
                let query = &LogQuery { since: Some(moved.seconds), ..LogQuery::default() };
                let name = short_name(&self.choice.project, &moved.name).to_owned();
                self.open(source, &moved.id, &name, moved.pod, query);
                None
            }
            Move::Ended(code) => {
                let followed = self.followed.get_mut(&moved.id)?;
                if followed.open {
                    followed.ended = Some(code);
                    return None;
                }
                Some(exited(ui, self.show, followed, code))
            }
        }
    }
}

fn exited(ui: &mut Ui, show: Show, followed: &Followed, code: i64) -> Happening {
    if show.exits {
        ui.say(&format!("{} exited with code {code}", followed.name));
    }
    Happening::Exited { pod: followed.pod.clone(), code }
}

/// Writes a line to the stream that the container wrote it to.
pub(crate) fn write_line(
    ui: &mut Ui,
    names: &Names,
    name: &str,
    line: &Line,
    timestamps: bool,
) -> Result<(), CliError> {
    if timestamps && !line.time.is_empty() {
        let text = [line.time.as_bytes(), b" ", &line.text].concat();
        return ui.output(line.stderr, &names.line(name, &text));
    }
    ui.output(line.stderr, &names.line(name, &line.text))
}

/// What an event of the engine means for the containers of a choice.
fn moved(event: &EngineEvent, choice: &Choice) -> Option<Moved> {
    let attribute = |key: &str| event.attributes.get(key);
    let pod = PodId::new(happened_to(event, &choice.project)?, attribute(label::NUMBER)?.parse().ok()?);
    let what = match event.action.as_str() {
        "start" => Move::Started,
        "die" => Move::Ended(attribute("exitCode").and_then(|code| code.parse().ok()).unwrap_or(0)),
        _ => return None,
    };
    let (id, name, seconds) = (event.id.clone(), attribute("name")?.clone(), event.time_nanos / 1_000_000_000);
    let part = part_of(|label| attribute(label).map(String::as_str));
    choice.takes_pod(&pod, part.as_ref()).then_some(Moved { id, name, pod, seconds, what })
}

/// Returns the service of the project's container that an event is of; `None` too for those that `run` made.
pub(crate) fn happened_to(event: &EngineEvent, project: &ProjectName) -> Option<ServiceName> {
    let attribute = |key: &str| event.attributes.get(key);
    if event.kind != "container"
        || attribute(label::PROJECT)? != project.as_str()
        || attribute(label::ONEOFF).is_some_and(|value| value == "True")
    {
        return None;
    }
    ServiceName::new(attribute(label::SERVICE)?.as_str()).ok()
}
