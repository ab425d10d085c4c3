//! Following containers: their output, also of those that start later or again, and how they end.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::engine::{BoxStream, EngineError, EngineEvent, LogQuery, label};
use crate::ids::{PodId, ServiceName};
use crate::observed::ObservedContainer;

use super::error::CliError;
use super::logline::Names;
use super::source::Source;
use super::tail::{Choice, FromReader, Line, Readers, Said, ToReader, channel, short_name};
use super::ui::Ui;

/// Events that may wait while something else is shown (an `up` that makes hundreds of containers).
const EVENTS: usize = 16 * 1024;

/// Containers that are followed.
pub(crate) struct Attachment {
    choice: Choice,
    show: Show,
    names: Names,
    readers: Readers,
    said: (ToReader, FromReader),
    events: mpsc::Receiver<Result<Moved, CliError>>,
    /// By engine id.
    followed: BTreeMap<String, Followed>,
    sources: Vec<Source>,
    /// Lines of several hosts that wait for earlier ones, with the ids of their containers.
    waiting: Vec<(String, Line)>,
    /// When they are shown.
    show_at: Instant,
    _listeners: JoinSet<()>,
}

/// Lines of several hosts wait this long for earlier ones of another host, whose way is longer.
const REORDER: Duration = Duration::from_millis(80);
/// So many at most.
const MOST_WAITING: usize = 4096;

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
    /// Place of its engine in the list; set by the listener.
    source: usize,
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
        let (to, events) = mpsc::channel(EVENTS);
        let mut listeners = JoinSet::new();
        for (at, source) in sources.iter().enumerate() {
            let listener = Listener { at, first: source.engine.events(None), source: source.clone() };
            listeners.spawn(listener.run(choice.clone(), to.clone()));
        }
        Self {
            choice,
            show,
            names: Names::new(show.prefix, show.colour),
            readers: Readers::default(),
            said: channel(),
            events,
            followed: BTreeMap::new(),
            sources,
            waiting: Vec::new(),
            show_at: Instant::now(),
            _listeners: listeners,
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

    fn open(&mut self, source: usize, id: &str, name: &str, pod: PodId, query: &LogQuery) {
        self.names.add(name);
        let fresh = || Followed {
            source,
            name: name.to_owned(),
            pod,
            open: false,
            last: String::new(),
            skip: String::new(),
            ended: None,
        };
        let followed = self.followed.entry(id.to_owned()).or_insert_with(fresh);
        if !followed.open {
            followed.open = true;
            followed.skip.clone_from(&followed.last);
            followed.ended = None;
            let query = LogQuery { follow: true, ..query.clone() };
            if let Some(source) = self.sources.get(followed.source) {
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
                () = sleep_until(self.show_at), if !self.waiting.is_empty() => {
                    self.show_waiting(ui)?;
                    None
                }
                event = self.events.recv() => match event {
                    Some(moved) => self.moved(ui, moved?),
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
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by(|(_, a), (_, b)| a.time.cmp(&b.time));
        for (id, line) in waiting {
            if let Some(followed) = self.followed.get(&id) {
                write_line(ui, &self.names, &followed.name, &line, self.show.timestamps)?;
            }
        }
        Ok(())
    }

    fn said(&mut self, ui: &mut Ui, id: &str, said: Said) -> Result<Option<Happening>, CliError> {
        if !matches!(said, Said::Line(_)) || self.waiting.len() >= MOST_WAITING || self.show_at.elapsed() > REORDER {
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
                        if self.waiting.is_empty() {
                            self.show_at = Instant::now() + REORDER;
                        }
                        self.waiting.push((id.to_owned(), line));
                    }
                }
                Ok(None)
            }
            Said::Interrupted(error) => {
                ui.warn(&format!(
                    "the output of {} is interrupted, and read on once its host answers: {error}",
                    followed.name
                ));
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

    fn moved(&mut self, ui: &mut Ui, moved: Moved) -> Option<Happening> {
        match moved.what {
            Move::Started => {
                let query = &LogQuery { since: Some(moved.seconds), ..LogQuery::default() };
                let name = short_name(&self.choice.project, &moved.name).to_owned();
                self.open(moved.source, &moved.id, &name, moved.pod, query);
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

/// Watches one engine.
struct Listener {
    at: usize,
    first: BoxStream<'static, Result<EngineEvent, EngineError>>,
    source: Source,
}

impl Listener {
    /// Passes on what happens until nobody listens. A connection to another host that ends is made anew, and what
    /// happened meanwhile is asked for.
    async fn run(self, choice: Choice, to: mpsc::Sender<Result<Moved, CliError>>) {
        let Self { at, first: mut stream, source } = self;
        let mut last = None;
        loop {
            let failed = loop {
                match stream.next().await {
                    Some(Ok(event)) => {
                        last = Some(event.time_nanos);
                        if let Some(moved) = moved(&event, &choice)
                            && to.send(Ok(Moved { source: at, ..moved })).await.is_err()
                        {
                            return;
                        }
                    }
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            };
            if !source.is_remote() {
                if let Some(error) = failed {
                    drop(to.send(Err(error.into())).await);
                }
                return;
            }
            source.reached().await;
            stream = source.engine.events(last.map(|nanos| nanos + 1));
        }
    }
}

/// What an event of the engine means for the containers of a choice.
fn moved(event: &EngineEvent, choice: &Choice) -> Option<Moved> {
    let attribute = |key: &str| event.attributes.get(key);
    if event.kind != "container" || attribute(label::PROJECT)? != choice.project.as_str() {
        return None;
    }
    let service = ServiceName::new(attribute(label::SERVICE)?.as_str()).ok()?;
    let pod = PodId::new(service, attribute(label::NUMBER)?.parse().ok()?);
    let oneoff = attribute(label::ONEOFF).is_some_and(|value| value == "True");
    let what = match event.action.as_str() {
        "start" => Move::Started,
        "die" => Move::Ended(attribute("exitCode").and_then(|code| code.parse().ok()).unwrap_or(0)),
        _ => return None,
    };
    let (id, name, seconds) = (event.id.clone(), attribute("name")?.clone(), event.time_nanos / 1_000_000_000);
    (!oneoff && choice.takes_pod(&pod)).then_some(Moved { source: 0, id, name, pod, seconds, what })
}
