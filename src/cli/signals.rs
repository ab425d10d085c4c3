//! Ctrl-C and its like: asked for as values, so that a command decides what they mean.

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;

/// Signals that a process in a container gets in place of orch. Not among them: SIGCHLD, SIGPIPE, SIGURG and SIGWINCH,
/// which mean orch itself.
const FORWARDED: [(i32, &str); 6] = [
    (libc::SIGINT, "SIGINT"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGUSR2, "SIGUSR2"),
];

/// Signals to be passed on, from now on.
pub(crate) struct Forwarded {
    signals: Vec<(&'static str, Signal)>,
}

impl Forwarded {
    /// Begins to listen: from here on the signals do not end the process by themselves.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let mut signals = Vec::new();
        for (number, name) in FORWARDED {
            signals.push((name, signal(SignalKind::from_raw(number)).map_err(CliError::Runtime)?));
        }
        Ok(Self { signals })
    }

    /// Waits for the next one. Returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        let waits = self.signals.iter_mut().map(|(name, signal)| {
            Box::pin(async move {
                signal.recv().await;
                *name
            })
        });
        select_all(waits).await.0
    }
}

/// SIGINT and SIGTERM, from now on.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Begins to listen: from here on the signals do not end the process by themselves.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::Runtime);
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Runs `work` unless a signal comes first: then it is dropped and the result is [`CliError::Cancelled`].
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        tokio::select! {
            result = work => result,
            () = self.next() => Err(CliError::Cancelled),
        }
    }
}
