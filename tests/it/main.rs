//! Tests that look at orch from outside without an engine: the source tree itself, and the command line over fakes.

mod examples;
mod tidy;
