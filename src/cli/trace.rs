//! Tracing: the agent logs what it does, the command line only when asked (`ORCH_LOG=debug`).

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::args::{Cli, Command};

/// Variable with the filter, in the syntax of `tracing`: `debug`, `orch::plan=trace,info`.
const VARIABLE: &str = "ORCH_LOG";

/// Starts tracing to standard error.
pub fn start(cli: &Cli) {
    let is_agent = matches!(&cli.command, Command::Agent(agent) if agent.verb.is_none());
    let asked = std::env::var(VARIABLE).ok();
    if !is_agent && asked.is_none() {
        return; // Nothing to start: the filter alone costs more than parsing all flags.
    }
    let default = if is_agent { LevelFilter::INFO } else { LevelFilter::WARN };
    let filter = EnvFilter::builder().with_default_directive(default.into()).parse_lossy(asked.unwrap_or_default());
    // A second start can only come from a test, which then keeps the first.
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(io::stderr).try_init().ok();
}
