//! Tests that look at orch from outside without an engine: the source tree itself, and the command line over fakes.

mod cli_page;
mod compose_flags;
mod drawing;
mod environment;
mod examples;
mod peers;
mod pty;
mod terminal;
mod tidy;
