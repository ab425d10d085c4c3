//! What touches the host below Docker: packet filter, addresses, mounts, files. All `unsafe` and all child processes
//! (but ssh) live here.

pub mod asking;
pub mod changes;
pub mod datagrams;
pub mod disk;
pub mod engine_process;
pub mod files;
pub mod inside;
pub mod listening;
pub mod memory;
pub mod network;
pub mod sockets;
pub mod tools;

#[cfg(test)]
pub(crate) mod namespace;
