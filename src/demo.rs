//! Demo workloads.
