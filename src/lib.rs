//! orch: compose files over one or many hosts, with names, virtual addresses and a load balancer.
//!
//! ARCHITECTURE.md is the map; the modules below are in the order in which data flows through them.

pub mod diag;
pub mod ids;

// Pure: values in, values out. No async, clock, network, environment or randomness.
pub mod expand;
pub mod graph;
pub mod hosts;
pub mod load;
pub mod model;
pub mod observed;
pub mod place;
pub mod plan;

// Edges: one small trait each, the real thing and a fake side by side.
pub mod api;
pub mod clock;
pub mod engine;
pub mod host;
pub mod lb;
pub mod mesh;
pub mod net;
pub mod snapshot;
pub mod store;
pub mod transport;

// Shells: they wire, they do not decide.
pub mod agent;
pub mod cli;
pub mod controller;
pub mod demo;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
