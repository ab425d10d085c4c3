//! The keys of an `up` in the foreground (`--menu`), and the line below all output that tells of them.
//!
//! The terminal then hands over each key at once and does not show it; Ctrl-C stays the signal that it is. The line is
//! taken away before anything is written and drawn again after it, in the same write, so that it never stands between
//! or in lines of containers. Whatever ends the menu, the terminal is as it was.

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Write as _};
use std::rc::Rc;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt as _, Stdin};

use super::board::fit;
use super::error::CliError;
use super::terminal;

/// A line that stays below what is written; empty: there is none. Those of one terminal share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Footer(Rc<RefCell<String>>);

impl Footer {
    /// Sets the text; the next write shows it.
    fn set(&self, text: String) {
        *self.0.borrow_mut() = text;
    }

    fn is_shown(&self) -> bool {
        !self.0.borrow().is_empty()
    }

    /// Returns what is to be written for `bytes`, so that the line goes before them and comes back after them.
    pub(crate) fn around<'a>(&self, bytes: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        let text = self.0.borrow();
        if text.is_empty() {
            return bytes.into();
        }
        let width = terminal::size().map_or(80, |(columns, _)| usize::from(columns));
        framed(bytes, &text, width).into()
    }

    /// Takes it away for good, if it is there.
    pub(crate) fn hide(&self) {
        if self.is_shown() {
            self.set(String::new());
            let mut out = io::stdout();
            // The terminal may be gone, and the line with it.
            out.write_all(ERASE.as_bytes()).and_then(|()| out.flush()).ok();
        }
    }
}

/// To the beginning of the line, which is emptied.
const ERASE: &str = "\r\x1b[K";

/// A line that is cut off stays on one row: the last column stays empty.
fn framed(bytes: &[u8], footer: &str, width: usize) -> Vec<u8> {
    let mut all = ERASE.as_bytes().to_vec();
    all.extend(bytes);
    // What ends in the middle of a line would lose it with the next write.
    if bytes.last().is_some_and(|last| *last != b'\n') {
        all.push(b'\n');
    }
    all.extend(fit(footer, width.saturating_sub(1)).as_bytes());
    all
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// Leave the containers running, and end.
    Detach,
    /// Begin to watch the source, or end that.
    Watch,
}

impl Key {
    fn of(byte: u8) -> Option<Self> {
        match byte.to_ascii_lowercase() {
            b'd' => Some(Self::Detach),
            b'w' => Some(Self::Watch),
            _ => None,
        }
    }
}

/// The menu, while it is shown.
pub(crate) struct Menu {
    before: Termios,
    footer: Footer,
    stdin: Stdin,
    /// Whether there is something that can be watched.
    can_watch: bool,
}

impl Menu {
    /// Returns whether there is a terminal on both sides.
    pub(crate) fn is_possible() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()
    }

    /// Begins to hand over keys, and shows them below what is written with `footer`.
    ///
    /// # Errors
    /// What the terminal cannot do.
    pub(crate) fn open(footer: Footer, can_watch: bool, watches: bool) -> Result<Self, CliError> {
        let before = tcgetattr(io::stdin()).map_err(|error| CliError::Terminal(error.into()))?;
        let mut keys = before.clone();
        keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &keys).map_err(|error| CliError::Terminal(error.into()))?;
        let menu = Self { before, footer, stdin: tokio::io::stdin(), can_watch };
        menu.show(watches);
        Ok(menu)
    }

    /// Shows the keys as they are now.
    pub(crate) fn show(&self, watches: bool) {
        let watch = match (self.can_watch, watches) {
            (false, _) => "",
            (_, true) => "   w Disable Watch",
            (_, false) => "   w Enable Watch",
        };
        self.footer.set(format!("   d Detach{watch}   ctrl-c Stop"));
        let mut out = io::stdout();
        // Nobody sees it where the terminal is gone.
        out.write_all(&self.footer.around(b"")).and_then(|()| out.flush()).ok();
    }

    /// Waits for a key that means something; for ever once the menu is not shown any more.
    ///
    /// # Errors
    /// What the terminal says.
    pub(crate) async fn key(&mut self) -> Result<Key, CliError> {
        let mut byte = [0];
        loop {
            let count = self.stdin.read(&mut byte).await.map_err(CliError::Terminal)?;
            if count == 0 {
                return std::future::pending().await;
            }
            let can = |key: &Key| self.footer.is_shown() && (self.can_watch || *key != Key::Watch);
            if let Some(key) = Key::of(byte[0]).filter(can) {
                return Ok(key);
            }
        }
    }
}

impl Drop for Menu {
    fn drop(&mut self) {
        self.footer.hide();
        // The terminal may be gone; then there is nothing to restore.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_the_keys_below_them() {
        let text = |bytes: &[u8], width| String::from_utf8(framed(bytes, "d Detach", width)).expect("text");
        assert_eq!(text(b"web-1  | one\n", 80), "\r\x1b[Kweb-1  | one\nd Detach");
        assert_eq!(text(b"| no end", 80), "\r\x1b[K| no end\nd Detach");
        assert_eq!(text(b"", 80), "\r\x1b[Kd Detach");
        assert_eq!(text(b"one\n", 5), "\r\x1b[Kone\nd D…");
        assert_eq!(*Footer::default().around(b"no end"), *b"no end");
    }

    #[test]
    fn keys_that_mean_something() {
        assert_eq!([b'd', b'W', b'x', 3].map(Key::of), [Some(Key::Detach), Some(Key::Watch), None, None]);
    }
}
