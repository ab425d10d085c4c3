//! The user's side of a process in a container: standard input and output, the terminal, signals.

use std::pin::Pin;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::engine::{BoxStream, Engine, LogChunk, Result as EngineResult};

use super::error::CliError;
use super::signals::Forwarded;
use super::terminal::{self, RawTerminal};
use super::ui::Ui;

/// Piece of standard input that is passed on at once.
const PIECE: usize = 16 * 1024;

/// The process at the other end.
#[derive(Clone, Copy)]
pub(crate) enum Process<'a> {
    /// A command of `exec`, by its engine id.
    Exec(&'a str),
    /// The main process of a container, by its engine id.
    Main(&'a str),
}

/// A connection to a process.
pub(crate) struct Session<'a> {
    /// Its engine.
    pub engine: &'a dyn Engine,
    /// Which it is.
    pub process: Process<'a>,
    /// What it writes, until it ends.
    pub output: BoxStream<'static, EngineResult<LogChunk>>,
    /// What it reads; `None`: nothing is passed on.
    pub input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// Whether the end of standard input is passed on.
    pub ends_input: bool,
    /// Whether it has the user's terminal.
    pub tty: bool,
    /// Keys that end the connection and not the process.
    pub detach: DetachKeys,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process writes nothing any more.
    Output,
    /// The user pressed the keys for it: the process goes on.
    Detached,
}

impl Session<'_> {
    /// Passes everything on, both ways, until it ends. `signals` are passed on too, where they are listened to.
    ///
    /// # Errors
    /// What the engine says, and what the terminal cannot do.
    pub(crate) async fn run(mut self, ui: &mut Ui, mut signals: Option<Forwarded>) -> Result<Ended, CliError> {
        let mut raw = self.tty.then(RawTerminal::enter).transpose()?;
        if raw.is_some() {
            self.resize().await;
        }
        let mut stdin = tokio::io::stdin();
        let mut piece = vec![0; PIECE];
        let mut reads = self.input.is_some();
        loop {
            tokio::select! {
                chunk = self.output.next() => match chunk {
                    Some(chunk) => {
                        let chunk = chunk?;
                        ui.output(chunk.stderr, &chunk.bytes)?;
                    }
                    None => return Ok(Ended::Output),
                },
                read = stdin.read(&mut piece), if reads => {
                    let length = read.map_err(CliError::Terminal)?;
                    let pressed = &piece[..length];
                    let (passed, detached) =
                        if self.tty { self.detach.see(pressed) } else { (pressed.to_vec(), false) };
                    if !passed.is_empty() || length == 0 {
                        reads = self.pass(&passed).await;
                    }
                    if detached {
                        return Ok(Ended::Detached);
                    }
                }
                () = resized(&mut raw) => self.resize().await,
                signal = next(&mut signals) => self.signal(signal).await,
            }
        }
    }

    /// Returns whether more is to be read. A process that does not read its input any more goes on to its end without.
    async fn pass(&mut self, piece: &[u8]) -> bool {
        let Some(input) = &mut self.input else { return false };
        if !piece.is_empty() {
            return input.write_all(piece).await.is_ok();
        }
        // Where the process does not learn of the end, the engine would take it for the end of the connection.
        if self.ends_input {
            input.shutdown().await.ok();
        }
        false
    }

    /// A process whose terminal has the wrong size still works.
    async fn resize(&self) {
        let Some((columns, rows)) = terminal::size() else { return };
        match self.process {
            Process::Exec(id) => self.engine.exec_resize(id, rows, columns).await.ok(),
            Process::Main(id) => self.engine.resize_terminal(id, rows, columns).await.ok(),
        };
    }

    /// One that has just ended takes no signal any more.
    async fn signal(&self, name: &str) {
        if let Process::Main(id) = self.process {
            self.engine.kill_container(id, name).await.ok();
        }
    }
}

async fn resized(terminal: &mut Option<RawTerminal>) {
    match terminal {
        Some(terminal) => terminal.resized().await,
        None => std::future::pending().await,
    }
}

async fn next(signals: &mut Option<Forwarded>) -> &'static str {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

/// Keys that end a connection, and how many of them were pressed.
///
/// They are not passed on, as Docker's own client does not: an engine that sees them ends a command of `exec` with the
/// connection, and a terminal would show them, to nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    pressed: usize,
}

impl DetachKeys {
    /// Those of the engine where nobody says otherwise: ctrl-p, ctrl-q.
    pub(crate) fn usual() -> Self {
        Self { keys: vec![16, 17], pressed: 0 }
    }

    /// Reads `a`, `ctrl-p`, or several with commas between. Source: moby/term, ascii.go `ToBytes`.
    ///
    /// # Errors
    /// [`CliError::Value`].
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let key = |word: &str| match word.as_bytes() {
            [key] => Some(*key),
            [b'c', b't', b'r', b'l', b'-', key] => match key.to_ascii_lowercase() {
                letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
                sign @ b'['..=b'_' => Some(sign - b'@'),
                b'@' => Some(0),
                _ => None,
            },
            _ => None,
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        keys.map(|keys| Self { keys, pressed: 0 }).ok_or_else(|| CliError::Value {
            what: "sequence of keys",
            value: text.to_owned(),
            expected: "keys with commas between, each one character or `ctrl-` and a letter or one of `@[\\]^_`",
        })
    }

    /// Takes note of what was pressed. Returns what of it is passed on, without what may be the beginning of the keys until
    /// that is known; and whether the connection ends. At the end of all input nothing is kept back.
    fn see(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.keys.get(self.pressed) != Some(byte) {
                passed.extend(&self.keys[..self.pressed]);
                self.pressed = 0;
            }
            if self.keys.get(self.pressed) == Some(byte) {
                self.pressed += 1;
            } else {
                passed.push(*byte);
            }
            if self.pressed == self.keys.len() {
                return (passed, true);
            }
        }
        if bytes.is_empty() {
            passed.extend(&self.keys[..std::mem::take(&mut self.pressed)]);
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_detach() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").expect("keys"), DetachKeys::usual());
        assert_eq!(DetachKeys::parse("ctrl-[,x,ctrl-@").expect("keys").keys, [27, b'x', 0]);
        for wrong in ["", "ctrl-", "ctrl-1", "xy", "a,,b"] {
            assert!(DetachKeys::parse(wrong).is_err(), "{wrong}");
        }
        let mut keys = DetachKeys::usual();
        let mut see = |bytes: &[u8]| keys.see(bytes);
        assert_eq!(see(b"ls\r"), (b"ls\r".to_vec(), false));
        assert_eq!(see(&[16]), (Vec::new(), false), "kept back");
        assert_eq!(see(b"x"), (vec![16, b'x'], false), "it was something else");
        assert_eq!((see(&[17]), see(&[16, 16])), ((vec![17], false), (vec![16], false)));
        assert_eq!(see(b"y"), (vec![16, b'y'], false));
        assert_eq!((see(&[b'a', 16]), see(&[17, b'b'])), ((vec![b'a'], false), (Vec::new(), true)), "in two pieces");
    }
}
