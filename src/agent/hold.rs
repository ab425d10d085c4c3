//! `orch hold`: the process that owns the namespaces of a pod of several containers. It does nothing, takes nearly no memory, and
//! ends when it is told to; as the first process of a shared namespace it also reaps what its parent has left.

use std::io;
use std::process::ExitCode;

use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};

/// The first argument that asks for this.
pub const WORD: &str = "hold";

/// Runs as a process of its own.
pub fn main() -> ExitCode {
    if run().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// The system gives no signals.
fn run() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut child = signal(SignalKind::child())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = child.recv() => while reap().is_some() {},
            }
        }
    })
}

/// Takes note of one child's end; `None`: no child has ended.
fn reap() -> Option<(Pid, WaitStatus)> {
    rustix::process::wait(WaitOptions::NOHANG).ok().flatten()
}
