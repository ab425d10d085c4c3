//! End to end, on hosts in namespaces, each with its own real engine, address and disk.
//!
//! Needs root, the engine's programs and what `scripts/setup test` installs; images come from `tests/images/make`.
//! A test that cannot have its host fails. `tests/lab/lab down-all` removes what a killed run left.
#![expect(dead_code, reason = "the scenarios that use the rest of the harness come with the agent")]

mod host;
mod wait;

mod lab_itself;
