//! All output. Standard output carries data and nothing else; what is said about the work goes to standard error.
//!
//! Nothing is said by colour alone, and colours are used on a terminal only, unless `--ansi` says otherwise.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::diag::{Diagnostics, causes, plain};

use super::args::{Ansi, Global, ProgressKind};
use super::board::{Canvas, fit};
use super::error::CliError;
use super::menu::Footer;

/// Where output goes, and how it may look there.
pub struct Ui {
    out: Stream,
    err: Stream,
    progress: Style,
    /// Whether what is told goes to standard output.
    told_is_data: bool,
    /// Whether progress goes to standard output (`COMPOSE_STATUS_STDOUT`); errors and warnings do not.
    progress_on_stdout: bool,
    /// Whether lines of progress, too, have colours (`--ansi always`).
    paints_lines: bool,
    size: Size,
}

/// How progress is shown, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Rewritten in place.
    Live,
    /// A line for each change.
    Plain,
    /// A JSON object for each change.
    Json,
    /// None.
    Quiet,
}

struct Stream {
    to: Box<dyn Write>,
    colour: bool,
    /// What stays below all that is written.
    footer: Footer,
}

/// Where the size of the terminal is known from.
enum Size {
    /// Asked anew for every frame: the user may resize it.
    Terminal,
    /// Does not change.
    #[cfg(test)]
    Fixed(usize, usize),
}

/// Size taken where a terminal does not tell.
const UNKNOWN_SIZE: (usize, usize) = (80, 24);

impl Ui {
    /// Returns the process's own output, as the flags and `NO_COLOR` (<https://no-color.org>) want it.
    pub fn stdio(flags: &Global) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        // Such a terminal knows no control characters: an editor's shell, a serial line.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = |terminal: bool| match flags.ansi {
            Ansi::Auto => terminal && !no_color && !dumb,
            Ansi::Always => true,
            Ansi::Never => false,
        };
        let progress_on_stdout = std::env::var("COMPOSE_STATUS_STDOUT").is_ok_and(|value| is_yes(&value));
        let terminal = if progress_on_stdout { out.is_terminal() } else { err.is_terminal() };
        let progress = match flags.progress {
            ProgressKind::Auto if terminal && !dumb && flags.ansi != Ansi::Never => Style::Live,
            ProgressKind::Tty => Style::Live,
            ProgressKind::Auto | ProgressKind::Plain => Style::Plain,
            ProgressKind::Json => Style::Json,
            ProgressKind::Quiet => Style::Quiet,
        };
        let (out_colour, err_colour) = (colour(out.is_terminal()), colour(err.is_terminal()));
        let footer = Footer::default();
        Self {
            out: Stream { to: Box::new(out), colour: out_colour, footer: footer.clone() },
            err: Stream { to: Box::new(err), colour: err_colour, footer },
            progress,
            told_is_data: false,
            progress_on_stdout,
            paints_lines: flags.ansi == Ansi::Always,
            size: Size::Terminal,
        }
    }

    /// Writes data to standard output.
    ///
    /// # Errors
    /// [`CliError::Output`], which is silent when the reader has gone.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write(bytes).map_err(CliError::Output)
    }

    /// Writes a line of data to standard output.
    ///
    /// # Errors
    /// As [`Ui::data`].
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.data(format!("{text}\n").as_bytes())
    }

    /// Writes a table that takes the place of the one before: on a terminal from its top, cut to its size, without a moment
    /// at which it is empty; elsewhere one below the other.
    ///
    /// # Errors
    /// As [`Ui::data`].
    pub(crate) fn renew(&mut self, table: &str) -> Result<(), CliError> {
        match terminal_size(io::stdout()) {
            Some((width, height)) => self.data(renewed(table, width, height).as_bytes()),
            None => self.data(table.as_bytes()),
        }
    }

    /// Writes a value as one line of JSON to standard output.
    ///
    /// # Errors
    /// As [`Ui::data`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|error| CliError::Output(error.into()))?;
        self.line(&text)
    }

    /// Writes a piece of a container's output to the stream that the container wrote it to.
    ///
    /// # Errors
    /// As [`Ui::data`].
    pub fn output(&mut self, stderr: bool, bytes: &[u8]) -> Result<(), CliError> {
        let stream = if stderr { &mut self.err } else { &mut self.out };
        stream.write(bytes).map_err(CliError::Output)
    }

    /// Says something about the work, to standard error.
    pub fn say(&mut self, text: &str) {
        match self.progress {
            Style::Quiet => {}
            Style::Json => self.message(&serde_json::json!({ "message": text })),
            Style::Live | Style::Plain => self.tell(text),
        }
    }

    /// Returns whether somebody is there who can be asked and would see the question.
    pub(crate) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal() && self.progress != Style::Json && !self.told_is_data
    }

    /// Warns of something that the reader can do something about.
    pub fn warn(&mut self, text: &str) {
        if self.progress == Style::Json {
            self.message(&serde_json::json!({ "warning": true, "message": text }));
        } else {
            let word = self.err.paint("warning", "33;1");
            self.tell(&format!("{word}: {text}"));
        }
    }

    /// Warns of what some hosts could not answer; the rest is shown.
    pub(crate) fn warn_all(&mut self, errors: &[CliError]) {
        for error in errors {
            self.warn(&error.to_string());
        }
    }

    /// Tells what is doubtful about the files, each with its place.
    pub(crate) fn diagnostics(&mut self, warnings: &Diagnostics) {
        match self.progress {
            _ if warnings.is_empty() => {}
            Style::Json => self.message(&serde_json::json!({ "warning": true, "diagnostics": warnings.to_json() })),
            _ => self.report(&ended(&warnings.to_string())),
        }
    }

    /// Prints an error with its causes and what to do, once.
    pub fn error(&mut self, error: &CliError) {
        if error.is_silent() {
            return;
        }
        if let CliError::Files(problems) = error {
            match self.progress {
                Style::Json => self.message(&serde_json::json!({ "error": true, "diagnostics": problems.to_json() })),
                _ => self.report(&ended(&problems.to_string())),
            }
            return;
        }
        if self.progress == Style::Json {
            let message = std::iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": ");
            self.message(&serde_json::json!({ "error": true, "message": message, "help": error.help() }));
            return;
        }
        let word = self.err.paint("error", "31;1");
        let mut text = format!("{word}: {error}");
        for cause in causes(error) {
            text.push_str("\n  because: ");
            text.push_str(&cause);
        }
        if let Some(help) = error.help() {
            text.push_str("\n  help: ");
            text.push_str(&help);
        }
        self.tell(&text);
    }

    /// From now on tells all in JSON, an object a line, on standard output: it is the data that was asked for
    /// (`--format json`), where `--progress json` is how the telling beside the data looks.
    pub(crate) fn tell_as_data(&mut self) {
        self.progress = Style::Json;
        self.told_is_data = true;
    }

    /// Returns what stays below all that is written.
    pub(crate) fn footer(&self) -> &Footer {
        &self.out.footer
    }

    /// From now on writes to the terminal that has this below.
    pub(crate) fn share(&mut self, footer: &Footer) {
        self.out.footer = footer.clone();
        self.err.footer = footer.clone();
    }

    /// From now on says nothing about the work but warnings and errors.
    pub(crate) fn hush(&mut self) {
        self.progress = Style::Quiet;
    }

    /// Returns how progress is shown.
    pub(crate) fn style(&self) -> Style {
        self.progress
    }

    /// Returns whether colours may be used on standard output.
    pub(crate) fn colour(&self) -> bool {
        self.out.colour
    }

    /// Writes as is to where is told what happens: standard error, unless that is the data. Nobody can be told when that
    /// fails.
    pub(crate) fn draw(&mut self, text: &str) {
        let stream = if self.told_is_data || self.progress_on_stdout { &mut self.out } else { &mut self.err };
        stream.write(plain(text).as_bytes()).ok();
    }

    /// Writes what is no progress: errors, warnings and notes.
    fn report(&mut self, text: &str) {
        let stream = if self.told_is_data { &mut self.out } else { &mut self.err };
        stream.write(plain(text).as_bytes()).ok();
    }

    /// Returns whether lines of progress have colours.
    pub(crate) fn paints_lines(&self) -> bool {
        self.paints_lines
    }

    /// Returns what the board is drawn on.
    pub(crate) fn canvas(&self) -> Canvas {
        let (width, height) = match self.size {
            Size::Terminal if self.progress_on_stdout => terminal_size(io::stdout()).unwrap_or(UNKNOWN_SIZE),
            Size::Terminal => terminal_size(io::stderr()).unwrap_or(UNKNOWN_SIZE),
            #[cfg(test)]
            Size::Fixed(width, height) => (width, height),
        };
        let stream = if self.progress_on_stdout { &self.out } else { &self.err };
        Canvas { width, height, colour: stream.colour }
    }

    /// Returns the columns of the terminal that standard output is; `None`: it is none.
    pub(crate) fn columns(&self) -> Option<usize> {
        match self.size {
            Size::Terminal => terminal_size(io::stdout()).map(|(width, _)| width),
            #[cfg(test)]
            Size::Fixed(width, _) => (self.progress == Style::Live).then_some(width),
        }
    }

    fn tell(&mut self, text: &str) {
        self.report(&format!("{text}\n"));
    }

    fn message(&mut self, value: &serde_json::Value) {
        self.tell(&value.to_string());
    }
}

/// Text that ends with a line end.
fn ended(text: &str) -> String {
    format!("{}\n", text.trim_end_matches('\n'))
}

/// Returns whether a variable's text says yes. Source: docker/compose 2.40, pkg/utils/stringutils.go.
pub(crate) fn is_yes(text: &str) -> bool {
    matches!(text.trim().to_lowercase().as_str(), "1" | "t" | "true" | "y" | "yes")
}

/// What draws a table over the one before. The last row stays empty, so that nothing scrolls.
fn renewed(table: &str, width: usize, height: usize) -> String {
    let room = height.saturating_sub(1).max(1);
    let count = table.lines().count();
    let shown = if count <= room { count } else { room.saturating_sub(1) };
    let mut text = "\x1b[H".to_owned();
    for line in table.lines().take(shown) {
        text.push_str(&fit(line, width));
        text.push_str("\x1b[K\r\n");
    }
    if shown < count {
        text.push_str(&fit(&format!("… and {} more", count - shown), width));
        text.push_str("\x1b[K\r\n");
    }
    text + "\x1b[J"
}

/// Columns and rows of a terminal.
fn terminal_size(stream: impl std::os::fd::AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    (size.ws_col > 0).then(|| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

impl Stream {
    /// One write and flush for each call: a line is never seen by half.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(&self.footer.around(bytes))?;
        self.to.flush()
    }

    fn paint(&self, text: &str, code: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Output that a test reads.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Rc<RefCell<Vec<u8>>>);

    impl Captured {
        /// Returns what was written since the last call, escapes as `ESC`.
        pub(crate) fn take(&self) -> String {
            let bytes = std::mem::take(&mut *self.0.borrow_mut());
            String::from_utf8_lossy(&bytes).replace('\x1b', "ESC").replace('\r', "CR")
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Ui {
        /// Gives the terminal another size.
        pub(crate) fn set_size(&mut self, width: usize, height: usize) {
            self.size = Size::Fixed(width, height);
        }
    }

    /// A terminal of 60 columns and 12 rows, its standard output and its standard error.
    pub(crate) fn ui(progress: Style) -> (Ui, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let ui = Ui {
            out: Stream { to: Box::new(out.clone()), colour: false, footer: Footer::default() },
            err: Stream { to: Box::new(err.clone()), colour: false, footer: Footer::default() },
            progress,
            told_is_data: false,
            progress_on_stdout: false,
            paints_lines: false,
            size: Size::Fixed(60, 12),
        };
        (ui, out, err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineError;

    fn unreachable() -> CliError {
        let source = Box::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        EngineError::Unreachable { address: "/run/docker.sock".to_owned(), source }.into()
    }

    #[test]
    fn errors_are_told_once_with_causes_and_help() {
        let (mut ui, out, err) = testing::ui(Style::Plain);
        ui.error(&unreachable());
        insta::assert_snapshot!(err.take(), @"
        error: no container engine answers at /run/docker.sock
          because: connection refused
          help: start the engine (`systemctl start docker`), or name the socket of one that runs: `DOCKER_HOST=unix://…` (now `unix:///run/docker.sock`)
        ");
        assert_eq!(out.take(), "");
    }

    #[test]
    fn errors_are_objects_where_progress_is_json() {
        let (mut ui, _, err) = testing::ui(Style::Json);
        ui.error(&unreachable());
        insta::assert_snapshot!(err.take(), @r#"{"error":true,"message":"no container engine answers at /run/docker.sock: connection refused","help":"start the engine (`systemctl start docker`), or name the socket of one that runs: `DOCKER_HOST=unix://…` (now `unix:///run/docker.sock`)"}"#);
    }

    #[test]
    fn what_is_told_can_be_the_data() {
        let (mut ui, out, err) = testing::ui(Style::Live);
        ui.tell_as_data();
        ui.say("hello");
        ui.error(&CliError::NoService);
        let lines = out.take();
        let objects: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
        assert_eq!((&objects[0]["message"], &objects[1]["error"]), (&"hello".into(), &true.into()));
        assert_eq!(err.take(), "");
    }

    #[test]
    fn a_table_that_is_renewed_fits_the_terminal() {
        assert_eq!(renewed("NAME\na\n", 10, 5), "\x1b[HNAME\x1b[K\r\na\x1b[K\r\n\x1b[J");
        assert_eq!(renewed("a long line\nb\nc\n", 6, 3), "\x1b[Ha lon…\x1b[K\r\n… and…\x1b[K\r\n\x1b[J");
    }

    #[test]
    fn a_reader_that_has_gone_is_not_told() {
        let (mut ui, _, err) = testing::ui(Style::Plain);
        ui.error(&CliError::Output(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(err.take(), "");
    }
}
