//! The user's terminal, handed to a command in a container: every key goes there, also Ctrl-C.

use std::io;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;

/// The terminal in raw mode; dropped, it is as it was.
pub(crate) struct RawTerminal {
    before: Termios,
    resizes: Signal,
}

impl RawTerminal {
    /// Switches the terminal of standard input to raw mode.
    pub(crate) fn enter() -> Result<Self, CliError> {
        let before = tcgetattr(io::stdin()).map_err(|error| CliError::Terminal(error.into()))?;
        let resizes = signal(SignalKind::window_change()).map_err(CliError::Terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(|error| CliError::Terminal(error.into()))?;
        Ok(Self { before, resizes })
    }

    /// Waits until the user changes the size.
    pub(crate) async fn resized(&mut self) {
        if self.resizes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns columns and rows of the terminal that standard output is.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some((size.ws_col, size.ws_row))
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.before).ok();
    }
}
