//! What happens on several engines, each watched by a task of its own over all its connections.
//!
//! What happened while a connection was away is asked for with the next: from the last event that came, or from the time
//! that the engine had when the watch began. Clocks of hosts differ, so only an engine's own is ever asked for its events.

use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engine::{BoxStream, EngineError, EngineEvent, EventQuery};

use super::source::Source;

/// Events that may wait while something else is shown (an `up` that makes hundreds of containers).
const EVENTS: usize = 16 * 1024;
/// Before an engine that ended its events is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// What is heard of an engine.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Something happened.
    Event(EngineEvent),
    /// All that happened before the watch began and was asked for has been said.
    Current,
    /// Its events cannot be read for now, and are read on once it answers; `None`: it ended them without a word.
    Interrupted(Option<EngineError>),
    /// It answers again.
    Back,
    /// The time until which it was asked has come.
    Done,
}

/// Engines that are watched.
pub(crate) struct Watch {
    heard: mpsc::Receiver<(usize, Heard)>,
    _listeners: JoinSet<()>,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn open(sources: &[Source], query: &EventQuery) -> Self {
        let (to, heard) = mpsc::channel(EVENTS);
        let mut listeners = JoinSet::new();
        for (at, source) in sources.iter().enumerate() {
            let listener =
                Listener { at, source: source.clone(), query: query.clone(), begun: OnceLock::new(), to: to.clone() };
            listeners.spawn(listener.run());
        }
        Self { heard, _listeners: listeners }
    }

    /// Returns what is heard next, with the place of its engine in the list; `None` when all are done.
    pub(crate) async fn next(&mut self) -> Option<(usize, Heard)> {
        self.heard.recv().await
    }
}

/// Watches one engine.
struct Listener {
    at: usize,
    source: Source,
    query: EventQuery,
    /// What the engine's clock said when the watch began.
    begun: OnceLock<i64>,
    to: mpsc::Sender<(usize, Heard)>,
}

/// Nobody listens any more.
struct Unheard;

impl Listener {
    /// Says what happens until the end, or until nobody listens.
    async fn run(self) {
        let mut last = None;
        if self.watch(&mut last).await.is_ok() {
            self.say(Heard::Done).await.ok();
        }
    }

    async fn watch(&self, last: &mut Option<i64>) -> Result<(), Unheard> {
        let mut query = self.query.clone();
        self.list(&mut query, last).await?;
        self.say(Heard::Current).await?;
        loop {
            let stream = self.source.engine.events(&query);
            let error = self.pass(stream, last).await?;
            if error.is_none() && self.is_over().await {
                return Ok(());
            }
            self.say(Heard::Interrupted(error)).await?;
            tokio::time::sleep(AGAIN).await;
            self.source.reached().await;
            self.say(Heard::Back).await?;
            query.since = last.map(|nanos| nanos + 1).or(query.since).or_else(|| self.begun.get().copied());
        }
    }

    /// Passes on what happened before now and was asked for: a list that ends. What is to be asked for then is left in
    /// `query`.
    async fn list(&self, query: &mut EventQuery, last: &mut Option<i64>) -> Result<(), Unheard> {
        let Some(since) = query.since else { return Ok(()) };
        let Ok(now) = self.source.engine.now_nanos().await else { return Ok(()) };
        self.begun.set(now).ok();
        if since > now || query.until.is_some_and(|until| until <= now) {
            return Ok(());
        }
        let past = EventQuery { until: Some(now), ..query.clone() };
        let failed = self.pass(self.source.engine.events(&past), last).await?;
        query.since = if failed.is_none() { Some(now + 1) } else { last.map(|nanos| nanos + 1).or(query.since) };
        Ok(())
    }

    /// Passes on what one stream says. Returns why it ended.
    async fn pass(
        &self,
        mut stream: BoxStream<'static, Result<EngineEvent, EngineError>>,
        last: &mut Option<i64>,
    ) -> Result<Option<EngineError>, Unheard> {
        // Beside the stream, which is to be opened at once.
        let mut clock = std::pin::pin!(self.source.engine.now_nanos());
        let mut asks = self.begun.get().is_none();
        loop {
            let event = tokio::select! {
                now = &mut clock, if asks => {
                    asks = false;
                    if let Ok(now) = now {
                        self.begun.set(now).ok();
                    }
                    continue;
                }
                event = stream.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    *last = Some(event.time_nanos);
                    self.say(Heard::Event(event)).await?;
                }
                Some(Err(error)) => return Ok(Some(error)),
                None => return Ok(None),
            }
        }
    }

    /// Returns whether the time until which was asked has come.
    async fn is_over(&self) -> bool {
        let Some(until) = self.query.until else { return false };
        self.source.engine.now_nanos().await.is_ok_and(|now| now >= until)
    }

    async fn say(&self, heard: Heard) -> Result<(), Unheard> {
        self.to.send((self.at, heard)).await.map_err(|_| Unheard)
    }
}
