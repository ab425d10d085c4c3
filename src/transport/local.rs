//! The local host: where its engine's and its agent's sockets are, and what to do when they cannot be used.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::reach::Reach;
use super::ssh::SshError;
use crate::engine::{EngineError, ONLY_SOCKETS};

/// Variable by which an agent is told where the engine's socket is on its host, if it is not at the usual place.
pub const ENGINE_SOCKET_VARIABLE: &str = "ORCH_ENGINE_SOCKET";

/// Directory of the agent's state on every host.
pub const STATE_DIR: &str = "/var/lib/orch";
/// Directory of the agent's socket and of secrets on every host; empty after a reboot.
pub const RUN_DIR: &str = "/run/orch";
/// Name of the agent's socket in its run directory.
pub const SOCKET_NAME: &str = "agent.sock";

/// Returns where the agent's socket is: `chosen`, the value of `ORCH_AGENT_SOCKET`, or in [`RUN_DIR`].
pub fn agent_socket(chosen: Option<&Path>) -> PathBuf {
    match chosen {
        Some(path) if !path.as_os_str().is_empty() => path.to_owned(),
        _ => Path::new(RUN_DIR).join(SOCKET_NAME),
    }
}

/// The local host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReach {
    /// The engine's socket.
    pub engine: PathBuf,
    /// The agent's socket.
    pub agent: PathBuf,
}

#[async_trait]
impl Reach for LocalReach {
    async fn engine_socket(&self) -> Result<PathBuf, SshError> {
        Ok(self.engine.clone())
    }

    async fn agent_socket(&self) -> Result<PathBuf, SshError> {
        Ok(self.agent.clone())
    }
}

/// Returns what the user can do about an engine that cannot be used; `None` where the error itself says all.
pub fn engine_help(error: &EngineError) -> Option<String> {
    match error {
        EngineError::Unreachable { address, .. } => Some(format!(
            "start the engine (`systemctl start docker`), or name the socket of one that runs: \
             `DOCKER_HOST=unix://…` (now `unix://{address}`)"
        )),
        EngineError::Permission { .. } => Some(
            "run orch as root, or as a member of the group `docker`: `usermod -aG docker USER`, then log in again"
                .to_owned(),
        ),
        EngineError::NoSpace { .. } => Some(
            "free some space, for example `docker image prune` and `docker builder prune`, and run the same command again"
                .to_owned(),
        ),
        EngineError::Refused { message, .. } if message.contains(ONLY_SOCKETS) => Some(
            "name hosts with `--host NAME=ssh://USER@ADDRESS`, or once for all with `orch host add`; DOCKER_HOST and contexts of \
             Docker's client name the engine of this machine"
                .to_owned(),
        ),
        EngineError::NotFound { .. }
        | EngineError::Conflict { .. }
        | EngineError::Refused { .. }
        | EngineError::Failed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_socket() {
        assert_eq!(agent_socket(None), Path::new("/run/orch/agent.sock"));
        assert_eq!(agent_socket(Some(Path::new(""))), Path::new("/run/orch/agent.sock"));
        assert_eq!(agent_socket(Some(Path::new("/tmp/a.sock"))), Path::new("/tmp/a.sock"));
    }

    #[test]
    fn every_error_of_a_socket_has_help() {
        let source = Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let down = EngineError::Unreachable { address: "/run/docker.sock".to_owned(), source };
        assert!(engine_help(&down).is_some_and(|help| help.contains("systemctl start docker")));
        let denied = EngineError::Permission { address: "/run/docker.sock".to_owned() };
        assert!(engine_help(&denied).is_some_and(|help| help.contains("usermod")));
        let message = ONLY_SOCKETS.to_owned();
        let far = EngineError::Refused { action: "connect to `ssh://root@a`".to_owned(), message };
        assert!(engine_help(&far).is_some_and(|help| help.contains("orch host add")));
    }
}
