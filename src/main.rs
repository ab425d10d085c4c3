//! Parses flags, starts tracing, calls the command line, maps the result to an exit code; nothing else.

use std::process::ExitCode;

use orch::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = match Cli::parse_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(usage) => return usage.print().into(),
    };
    cli::trace::start(&cli);
    cli::run(cli).into()
}
