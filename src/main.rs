//! Parses flags, starts tracing, calls the command line, maps the result to an exit code; nothing else.

use std::process::ExitCode;

use orch::agent::hold;
use orch::cli::{self, Cli};

fn main() -> ExitCode {
    // There may be hundreds of these on a host: they do not pay for what the others need.
    if std::env::args_os().nth(1).is_some_and(|word| word == hold::WORD) {
        return hold::main();
    }
    let cli = match Cli::parse_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(usage) => return usage.print().into(),
    };
    cli::trace::start(&cli);
    cli::run(cli).into()
}
