//! End to end, on hosts in namespaces, each with its own real engine, address and disk.
//!
//! Needs root, the engine's programs and what `scripts/setup test` installs; images come from `tests/images/make`.
//! A test that cannot have its host fails. `tests/lab/lab down-all` removes what a killed run left.

mod cluster;
mod host;
mod lab;
mod probe;
mod project;
#[path = "../it/pty.rs"]
mod pty;
mod wait;

mod adoption;
mod ambassadors;
mod bad_input;
mod building;
mod building_from;
mod choosing;
mod command_line;
mod datagrams;
mod developing;
mod dry_run;
mod elsewhere;
mod ending;
mod engine_api;
mod everyday;
mod examples;
mod files;
mod firewall;
mod fleet;
mod fleet_bad_hosts;
mod fleet_faults;
mod fleet_killed;
mod healing;
mod hooks;
mod ipv6;
mod lab_itself;
mod life;
mod looking;
mod names;
mod oneoff;
mod pages;
mod parity;
mod passing;
mod people;
mod placement;
mod podman;
mod pods;
mod ports;
mod preparing;
mod registry;
mod restarts;
mod rollout;
mod seat;
mod seeing;
mod ssh;
mod terminals;
mod traffic;
mod watching;
