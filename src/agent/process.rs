//! What the agent reads of its own process and of the engine's socket.

use std::os::unix::fs::MetadataExt;

use crate::transport::local::ENGINE_SOCKET_VARIABLE;

/// The engine's socket, where it is mounted into the agent's container, and where it is on the host unless something else is said.
const ENGINE_SOCKET: &str = "/var/run/docker.sock";

/// Returns the resident memory of this process in bytes; 0 where the kernel does not say.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or_default();
    pages * rustix::param::page_size() as u64
}

/// Returns where the engine's socket is on the host, as the command line said that started this agent.
pub fn engine_socket() -> String {
    let said = std::env::var(ENGINE_SOCKET_VARIABLE).ok().filter(|path| path.starts_with('/'));
    said.unwrap_or_else(|| ENGINE_SOCKET.to_owned())
}

/// Returns the group that may use the engine, which is the group that may use the agent; root's if there is no socket.
pub fn engine_group() -> u32 {
    std::fs::metadata(ENGINE_SOCKET).map_or(0, |socket| socket.gid())
}
