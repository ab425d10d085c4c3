//! Output of containers, read: one task for each container turns the engine's pieces into lines with their times.
//!
//! The engine's own times are always asked for, also where they are not shown: lines of several containers are put in
//! order by them, and lines that were shown before are told apart when a container starts again.

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engine::{EngineError, LogQuery};
use crate::graph::{Part, Role};
use crate::ids::{PodId, ProjectName, ServiceName};
use crate::observed::ObservedContainer;

use super::logline::Lines;
use super::source::Source;

/// Lines that a container may be ahead of the terminal before its task waits.
const AHEAD: usize = 256;

/// A line of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The engine's time, RFC 3339 with all nine digits: later is greater as text. Empty where there was none.
    pub time: String,
    /// Whether it came from standard error.
    pub stderr: bool,
    /// The text without its end.
    pub text: Vec<u8>,
}

/// What a reading task says.
#[derive(Debug)]
pub(crate) enum Said {
    /// The container wrote a line.
    Line(Line),
    /// Its output cannot be read.
    Failed(EngineError),
    /// The connection to its host ended; reading goes on once there is another.
    Interrupted(EngineError),
    /// It has ended, or what was asked for is all there.
    Ended,
}

/// Which containers are looked at.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// Of this project.
    pub project: ProjectName,
    /// Of these services, each with the helpers of its pods; empty: all.
    pub services: Vec<ServiceName>,
    /// Not of these.
    pub but: Vec<ServiceName>,
    /// Only the replica of this number.
    pub index: Option<u32>,
}

impl Choice {
    /// Returns whether a container is one of those.
    pub(crate) fn takes(&self, container: &ObservedContainer) -> bool {
        let part = container.part();
        container.project.as_ref() == Some(&self.project)
            && container.pod().is_some_and(|pod| self.takes_pod(&pod, part.as_ref()))
    }

    /// Returns whether a replica of the project is one of those; `part` is what it is in a pod of several containers. Holders
    /// never are: there is nothing in them.
    pub(crate) fn takes_pod(&self, pod: &PodId, part: Option<&Part>) -> bool {
        let named =
            |names: &[ServiceName]| names.contains(&pod.service) || part.is_some_and(|part| names.contains(&part.of));
        part.is_none_or(|part| part.role != Role::Holder)
            && (self.services.is_empty() || named(&self.services))
            && !named(&self.but)
            && self.index.is_none_or(|index| index == pod.number)
    }
}

/// The name before lines: the container's without the project's, as Docker Compose has it.
pub(crate) fn short_name<'c>(project: &ProjectName, container: &'c str) -> &'c str {
    let rest = container.strip_prefix(project.as_str()).and_then(|rest| rest.strip_prefix('-'));
    rest.filter(|rest| !rest.is_empty()).unwrap_or(container)
}

/// Tasks that read.
#[derive(Default)]
pub(crate) struct Readers {
    tasks: JoinSet<()>,
}

impl Readers {
    /// Reads a container's output; what it says carries the container's id.
    pub(crate) fn read(&mut self, source: &Source, id: &str, query: &LogQuery, to: ToReader) {
        let reading = Reading { source: source.clone(), id: id.to_owned(), to };
        let query = LogQuery { timestamps: true, ..query.clone() };
        self.tasks.spawn(async move { reading.run(query).await });
    }
}

/// Where [`Readers::read`] sends to, with the container's id.
pub(crate) type ToReader = mpsc::Sender<(String, Said)>;
/// The other end.
pub(crate) type FromReader = mpsc::Receiver<(String, Said)>;

/// Returns a channel for [`Readers::read`]: one for each container, or one for several.
pub(crate) fn channel() -> (ToReader, FromReader) {
    mpsc::channel(AHEAD)
}

/// One container's output on its way.
struct Reading {
    source: Source,
    id: String,
    to: ToReader,
}

/// How one stream of a container's output ended.
enum Stopped {
    /// It is all there.
    Done,
    /// The engine failed.
    Failed(EngineError),
    /// Nobody listens any more.
    Unheard,
}

impl Reading {
    /// Reads until the end, or until nobody listens any more. A connection to another host that ends is made anew, and
    /// reading goes on where it was.
    async fn run(&self, mut query: LogQuery) {
        let mut last = String::new();
        loop {
            match self.stream(&query, &mut last).await {
                Stopped::Unheard => return,
                Stopped::Done => break,
                Stopped::Failed(error) => {
                    let again = self.source.is_remote() && error.is_transient() && query.follow;
                    if !self.say(if again { Said::Interrupted(error) } else { Said::Failed(error) }).await {
                        return;
                    }
                    if !again {
                        break;
                    }
                    self.source.reached().await;
                    if let Ok(seen) = last.parse::<jiff::Timestamp>() {
                        query = LogQuery { since: Some(seen.as_second()), tail: None, ..query };
                    }
                }
            }
        }
        self.say(Said::Ended).await;
    }

    /// Reads one stream; lines up to `last` were read before.
    async fn stream(&self, query: &LogQuery, last: &mut String) -> Stopped {
        let mut chunks = self.source.engine.logs(&self.id, query);
        let mut unfinished = [Lines::default(), Lines::default()];
        let before = last.clone();
        let mut failed = None;
        while let Some(chunk) = chunks.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            for text in unfinished[usize::from(chunk.stderr)].push(&chunk.bytes) {
                let line = split_time(text, chunk.stderr);
                if !line.time.is_empty() && line.time <= before {
                    continue;
                }
                if !line.time.is_empty() {
                    last.clone_from(&line.time);
                }
                if !self.say(Said::Line(line)).await {
                    return Stopped::Unheard;
                }
            }
        }
        if let Some(error) = failed {
            return Stopped::Failed(error);
        }
        for (stderr, lines) in [false, true].into_iter().zip(&mut unfinished) {
            if let Some(text) = lines.rest() {
                self.say(Said::Line(split_time(text, stderr))).await;
            }
        }
        Stopped::Done
    }

    /// Returns whether somebody listens.
    async fn say(&self, said: Said) -> bool {
        self.to.send((self.id.clone(), said)).await.is_ok()
    }
}

/// Takes the engine's time off a line.
fn split_time(text: Vec<u8>, stderr: bool) -> Line {
    let at = text.iter().position(|byte| *byte == b' ');
    let time = at.and_then(|at| std::str::from_utf8(&text[..at]).ok()).filter(|word| is_time(word));
    match (time, at) {
        (Some(time), Some(at)) => Line { time: time.to_owned(), stderr, text: text[at + 1..].to_vec() },
        _ => Line { time: String::new(), stderr, text },
    }
}

/// `2026-11-21T15:13:05.662514302Z`: the engine fills up to nine digits. A continued line (cut at 256 KiB) has none.
fn is_time(word: &str) -> bool {
    word.len() >= 30 && word.as_bytes()[4] == b'-' && word.as_bytes()[10] == b'T'
}

/// Puts the lines of several finished readings in the order of their times.
pub(crate) struct Merged<K> {
    sources: Vec<Finished<K>>,
}

struct Finished<K> {
    key: K,
    from: FromReader,
    next: Option<Line>,
    open: bool,
}

impl<K: Clone> Merged<K> {
    /// Takes the readings, each with a key of the caller's.
    pub(crate) fn new(sources: impl IntoIterator<Item = (K, FromReader)>) -> Self {
        let sources = sources.into_iter().map(|(key, from)| Finished { key, from, next: None, open: true });
        Self { sources: sources.collect() }
    }

    /// Returns the earliest line that was not returned yet; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<(K, Line)>, EngineError> {
        for source in &mut self.sources {
            source.fill().await?;
        }
        let earliest = self.sources.iter_mut().filter(|source| source.next.is_some());
        let earliest = earliest.min_by(|a, b| a.time().cmp(b.time()));
        Ok(earliest.and_then(|source| source.next.take().map(|line| (source.key.clone(), line))))
    }
}

impl<K> Finished<K> {
    fn time(&self) -> &str {
        self.next.as_ref().map_or("", |line| &line.time)
    }

    async fn fill(&mut self) -> Result<(), EngineError> {
        if self.open && self.next.is_none() {
            match self.from.recv().await {
                Some((_, Said::Line(line))) => self.next = Some(line),
                Some((_, Said::Failed(error) | Said::Interrupted(error))) => return Err(error),
                Some((_, Said::Ended)) | None => self.open = false,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: &str, text: &str) -> Line {
        Line { time: time.to_owned(), stderr: false, text: text.as_bytes().to_vec() }
    }

    #[test]
    fn times_are_taken_off_lines() {
        let time = "2026-11-21T15:13:05.662514302Z";
        assert_eq!(split_time(format!("{time} hello world").into(), false), line(time, "hello world"));
        assert_eq!(split_time(format!("{time} ").into(), false), line(time, ""));
        assert_eq!(split_time(b"no time here".to_vec(), false), line("", "no time here"));
    }

    #[test]
    fn short_names_leave_out_the_project() {
        let project = ProjectName::new("shop").expect("valid");
        for (container, name) in
            [("shop-web-1", "web-1"), ("mydb", "mydb"), ("shopping-1", "shopping-1"), ("shop-", "shop-")]
        {
            assert_eq!(short_name(&project, container), name);
        }
    }

    #[tokio::test]
    async fn lines_of_several_containers_come_in_the_order_of_their_times() {
        let source = |key, lines: Vec<Line>| {
            let (to, from) = channel();
            let say = |said| to.try_send((String::new(), said)).expect("room");
            lines.into_iter().map(Said::Line).chain([Said::Ended]).for_each(say);
            (key, from)
        };
        let mut merged = Merged::new([
            source("a", vec![line("1", "first"), line("4", "fourth")]),
            source("b", vec![line("2", "second"), line("3", "third"), line("5", "fifth")]),
            source("c", vec![]),
        ]);
        let mut order = String::new();
        while let Some((key, line)) = merged.next().await.expect("readable") {
            order.push_str(key);
            order.push_str(&line.time);
        }
        assert_eq!(order, "a1b2b3a4b5");
    }
}
