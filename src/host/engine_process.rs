//! Finds the process that serves the engine's socket: a way to the host's mounts where process 1 hides its own.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::net::sockopt::socket_peercred;

/// The engine's socket, in the agent's container and on the host alike.
const ENGINE_SOCKET: &str = "/var/run/docker.sock";

/// Returns the directory in `/proc` of the process that listens on the engine's socket.
///
/// Under socket activation that is process 1, which then was tried before.
///
/// # Errors
/// Nobody listens there, or the listener is in a PID namespace that this process does not see.
pub(super) fn engine_process() -> io::Result<PathBuf> {
    let credentials = socket_peercred(UnixStream::connect(ENGINE_SOCKET)?)?;
    Ok(Path::new("/proc").join(credentials.pid.as_raw_nonzero().to_string()))
}
