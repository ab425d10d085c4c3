//! Progress as it is shown: in place on a terminal, a line for each change elsewhere, or JSON.

use std::cell::RefCell;

use futures_util::StreamExt as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::api::client::{ClientError, ProgressStream};
use crate::api::types::{ObjectState, Progress};
use crate::ids::HostName;

use super::board::{Board, Canvas, Event, FRAME};
use super::error::CliError;
use super::ui::{Style, Ui};

/// What is under way, shown while it lives. What was shown last stays.
pub(crate) struct Live<'u> {
    ui: &'u mut Ui,
    title: &'static str,
    board: Board,
    begun: Instant,
    /// Lines of the last frame, which the next one replaces where they are others.
    drawn: Vec<String>,
    /// What that was drawn on.
    canvas: Option<Canvas>,
    /// When that was.
    shown: Option<Instant>,
}

impl<'u> Live<'u> {
    /// Begins; nothing is shown before the first event.
    pub(crate) fn new(ui: &'u mut Ui, title: &'static str) -> Self {
        Self { ui, title, board: Board::default(), begun: Instant::now(), drawn: Vec::new(), canvas: None, shown: None }
    }

    /// Shows a change.
    pub(crate) fn event(&mut self, event: Event) {
        match self.ui.style() {
            Style::Live => {
                self.board.apply(event, self.begun.elapsed());
                if self.shown.is_none_or(|shown| shown.elapsed() >= FRAME) {
                    self.draw();
                }
            }
            Style::Plain | Style::Json | Style::Quiet => {
                // Off a terminal a change that says the same again is no news.
                if self.board.apply(event.clone(), self.begun.elapsed()) {
                    show(self.ui, &event);
                }
            }
        }
    }

    /// Says something beside the objects: above them where they are rewritten in place.
    pub(crate) fn say(&mut self, text: &str) {
        self.erase();
        self.ui.say(text);
        self.draw();
    }

    /// Warns of something.
    fn warn(&mut self, text: &str) {
        self.erase();
        self.ui.warn(text);
        self.draw();
    }

    /// Shows how time goes by; to be called once every [`FRAME`].
    pub(crate) fn tick(&mut self) {
        self.draw();
    }

    /// Draws the objects over what was drawn before: only the lines that have changed, in one write, so that nothing
    /// flickers. The cursor is never hidden: whatever ends orch, there is nothing to put back.
    fn draw(&mut self) {
        if self.ui.style() != Style::Live || self.board.is_empty() {
            return;
        }
        let canvas = self.ui.canvas();
        let lines = self.board.lines(self.title, self.begun.elapsed(), canvas);
        // What a terminal of another size makes of the lines that it has is its own matter.
        let stays = self.canvas == Some(canvas);
        self.shown = Some(Instant::now());
        if stays && self.drawn == lines {
            return;
        }
        let mut frame = self.to_top();
        for (at, line) in lines.iter().enumerate() {
            if !stays || self.drawn.get(at) != Some(line) {
                frame.push_str(line);
                frame.push_str("\x1b[K");
            }
            frame.push_str("\r\n");
        }
        if !stays || self.drawn.len() > lines.len() {
            frame.push_str("\x1b[J");
        }
        self.drawn = lines;
        self.canvas = Some(canvas);
        self.ui.draw(&frame);
    }

    fn erase(&mut self) {
        if !self.drawn.is_empty() {
            let erase = format!("{}\x1b[J", self.to_top());
            self.drawn.clear();
            self.ui.draw(&erase);
        }
    }

    fn to_top(&self) -> String {
        if self.drawn.is_empty() { String::new() } else { format!("\x1b[{}A\r", self.drawn.len()) }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.draw();
    }
}

/// ` Container shop-web-1  Started`, as Docker Compose has it.
fn plain(event: &Event, colour: bool) -> String {
    let detail = event.detail.as_ref().map(|detail| format!("  {detail}")).unwrap_or_default();
    format!(" {}  {}{detail}\n", event.id, event.painted_status(colour))
}

fn json(event: &Event) -> String {
    let mut value = serde_json::json!({ "id": event.id, "status": event.status });
    if let Some(detail) = &event.detail {
        value["text"] = detail.as_str().into();
    }
    if event.state == ObjectState::Error {
        value["error"] = true.into();
    }
    format!("{value}\n")
}

/// Does work that shows changes through the function it gets, while the time of what is shown goes on.
pub(crate) async fn while_shown<T>(ui: &mut Ui, title: &'static str, work: impl AsyncFnOnce(&dyn Fn(Event)) -> T) -> T {
    let live = RefCell::new(Live::new(ui, title));
    let show = |event: Event| live.borrow_mut().event(event);
    let mut work = std::pin::pin!(work(&show));
    let mut frames = interval_at(Instant::now() + FRAME, FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = frames.tick() => live.borrow_mut().tick(),
        }
    }
}

/// How a stream of progress ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The revision reached.
    pub revision: u64,
    /// Whether there was anything to do, or to say instead.
    pub moved: bool,
}

/// Shows what the agent does until it is done.
///
/// # Errors
/// [`CliError::Failed`] when it cannot become as asked, and what went wrong on the way to the agent.
pub(crate) async fn follow(ui: &mut Ui, title: &'static str, mut stream: ProgressStream) -> Result<Ended, CliError> {
    let mut live = Live::new(ui, title);
    let mut frames = interval_at(Instant::now() + FRAME, FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut moved = false;
    loop {
        let next = tokio::select! {
            biased;
            next = stream.next() => next,
            _ = frames.tick() => {
                live.tick();
                continue;
            }
        };
        match step(next)? {
            Step::Event(event) => {
                moved = true;
                live.event(event);
            }
            Step::Say(text) => {
                moved = true;
                live.say(&text);
            }
            Step::Warn(text) => live.warn(&text),
            Step::Done(revision) => return Ok(Ended { revision, moved }),
            Step::Nothing => {}
        }
    }
}

/// What an item of a stream of progress means for the one who shows it.
pub(crate) enum Step {
    /// Something moved.
    Event(Event),
    /// Something to say.
    Say(String),
    /// Something to warn of.
    Warn(String),
    /// It is as asked, at this revision.
    Done(u64),
    /// Nothing to show.
    Nothing,
}

/// Takes an item of a stream of progress.
///
/// # Errors
/// [`CliError::Failed`] for `Failed`, [`CliError::Cut`] for an end before `Done`.
pub(crate) fn step(item: Option<Result<Progress, ClientError>>) -> Result<Step, CliError> {
    match item {
        Some(Ok(Progress::Accepted { .. })) => Ok(Step::Nothing),
        Some(Ok(Progress::Object { kind, name, host, status, state, detail })) => {
            Ok(Step::Event(Event { id: object_id(&kind, &name, &host), status, state, detail }))
        }
        Some(Ok(Progress::Note { message, is_warning: true })) => Ok(Step::Warn(message)),
        Some(Ok(Progress::Note { message, is_warning: false })) => Ok(Step::Say(message)),
        Some(Ok(Progress::Done { revision })) => Ok(Step::Done(revision)),
        Some(Ok(Progress::Failed { messages })) => Err(CliError::Failed(messages)),
        Some(Err(error)) => Err(cut(error)),
        None => Err(CliError::Cut),
    }
}

/// Shows one change without a board: between lines of containers.
pub(crate) fn show(ui: &mut Ui, event: &Event) {
    match ui.style() {
        Style::Quiet => {}
        Style::Json => ui.draw(&json(event)),
        Style::Live | Style::Plain => ui.draw(&plain(event, ui.paints_lines())),
    }
}

/// Returns a change of an object.
pub(crate) fn of_object(kind: &str, name: &str, host: &HostName, status: &str, state: ObjectState) -> Event {
    Event { id: object_id(kind, name, host), status: status.to_owned(), state, detail: None }
}

/// The local host goes without saying.
fn object_id(kind: &str, name: &str, host: &HostName) -> String {
    if *host == HostName::local() { format!("{kind} {name}") } else { format!("{kind} {name} on {host}") }
}

/// An agent that goes away in the middle is back within a second and goes on with what it accepted.
fn cut(error: ClientError) -> CliError {
    match error {
        ClientError::NotAnswering { .. } => CliError::Cut,
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::cli::ui::testing::ui;

    fn object(name: &str, status: &str, state: ObjectState) -> Progress {
        let (kind, host) = ("Container".to_owned(), HostName::local());
        Progress::Object { kind, name: name.to_owned(), host, status: status.to_owned(), state, detail: None }
    }

    /// What the terminal, or the file, has got after `events`, one row for each write on a terminal.
    async fn show(style: Style, events: Vec<Progress>) -> (Result<Ended, CliError>, String) {
        let (mut ui, out, err) = ui(style);
        let stream = stream::iter(events.into_iter().map(Ok));
        let result = follow(&mut ui, "Running", Box::pin(stream)).await;
        assert_eq!(out.take(), "", "standard output is for data");
        (result, err.take())
    }

    fn up() -> Vec<Progress> {
        vec![
            object("a-web-1", "Creating", ObjectState::Working),
            object("a-web-1", "Created", ObjectState::Done),
            Progress::Note { message: "orphan containers: a-old-1".to_owned(), is_warning: false },
            object("a-web-1", "Starting", ObjectState::Working),
            object("a-web-1", "Starting", ObjectState::Working),
            object("a-web-1", "Started", ObjectState::Done),
            Progress::Done { revision: 3 },
        ]
    }

    #[tokio::test(start_paused = true)]
    async fn off_a_terminal_each_change_is_a_line() {
        let (result, text) = show(Style::Plain, up()).await;
        insta::assert_snapshot!(text, @"
         Container a-web-1  Creating
         Container a-web-1  Created
        orphan containers: a-old-1
         Container a-web-1  Starting
         Container a-web-1  Started
        ");
        assert_eq!(result.expect("done"), Ended { revision: 3, moved: true });
    }

    #[test]
    fn lines_have_the_colours_of_the_board_where_colours_are_used() {
        let told = |colour: bool| {
            let line = |state| {
                let status = "Stopped".to_owned();
                let event = Event { id: "Container a".to_owned(), status, state, detail: Some("why".to_owned()) };
                plain(&event, colour).replace('\x1b', "ESC")
            };
            [ObjectState::Working, ObjectState::Done, ObjectState::Warning, ObjectState::Error].map(line).concat()
        };
        insta::assert_snapshot!(told(true), @"
         Container a  Stopped  why
         Container a  ESC[32mStoppedESC[0m  why
         Container a  ESC[33mStoppedESC[0m  why
         Container a  ESC[31mStoppedESC[0m  why
        ");
        assert!(!told(false).contains("ESC"));
    }

    #[tokio::test(start_paused = true)]
    async fn json_has_an_object_for_each_change() {
        insta::assert_snapshot!(show(Style::Json, up()).await.1, @r#"
        {"id":"Container a-web-1","status":"Creating"}
        {"id":"Container a-web-1","status":"Created"}
        {"message":"orphan containers: a-old-1"}
        {"id":"Container a-web-1","status":"Starting"}
        {"id":"Container a-web-1","status":"Started"}
        "#);
    }

    #[tokio::test(start_paused = true)]
    async fn quiet_says_nothing() {
        assert_eq!(show(Style::Quiet, up()).await.1, "");
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_terminal_frames_replace_each_other() {
        insta::assert_snapshot!(show(Style::Live, up()).await.1, @"
        [+] Running 0/1ESC[KCR
         ⠋ Container a-web-1  Creating                         0.0sESC[KCR
        ESC[JESC[2ACRESC[Jorphan containers: a-old-1
        [+] Running 1/1ESC[KCR
         ✔ Container a-web-1  Created                          0.0sESC[KCR
        ESC[2ACRCR
         ✔ Container a-web-1  Started                          0.0sESC[KCR
        ");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_an_error_with_all_its_messages() {
        let messages = vec!["one".to_owned(), "two".to_owned()];
        let (result, _) = show(Style::Plain, vec![Progress::Failed { messages }]).await;
        assert_eq!(result.expect_err("failed").to_string(), "one\ntwo");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_cut_is_not_done() {
        let (result, _) = show(Style::Plain, vec![object("a", "Starting", ObjectState::Working)]).await;
        assert!(matches!(result, Err(CliError::Cut)), "{result:?}");
    }
}
