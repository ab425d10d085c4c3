//! How hosts are reached: the local engine's socket now. Readies a host: orch's image in, agent up.

pub mod bootstrap;
mod elf;
pub mod image;
pub mod local;
