//! What the agent reads of its own process and of the engine's socket.

use std::os::unix::fs::MetadataExt;

/// The engine's socket, where it is mounted into the agent's container and where it is on the host.
const ENGINE_SOCKET: &str = "/var/run/docker.sock";

/// Returns the resident memory of this process in bytes; 0 where the kernel does not say.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or_default();
    pages * rustix::param::page_size() as u64
}

/// Returns the group that may use the engine, which is the group that may use the agent; root's if there is no socket.
pub fn engine_group() -> u32 {
    std::fs::metadata(ENGINE_SOCKET).map_or(0, |socket| socket.gid())
}
