//! How hosts are reached: the local engine's socket, or the system's ssh. Readies a host: orch's image in, agent up.

pub mod bootstrap;
mod elf;
pub mod git;
pub mod image;
pub mod keys;
pub mod local;
pub mod login;
pub mod reach;
pub mod ssh;
