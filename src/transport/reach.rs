//! What it takes to work on a host: local paths of two unix sockets, wherever the host is.

use std::path::PathBuf;

use async_trait::async_trait;

use super::ssh::SshError;

/// A host that can be worked on.
#[async_trait]
pub trait Reach: Send + Sync {
    /// Returns a path of this machine where the host's engine answers. Ask again before each connection after a
    /// while: what leads there may have ended, and is then made anew.
    ///
    /// # Errors
    /// Why the host or its engine cannot be reached.
    async fn engine_socket(&self) -> Result<PathBuf, SshError>;

    /// Returns a path of this machine that leads to the socket of the host's agent, which need not be there yet.
    ///
    /// # Errors
    /// Why the host cannot be reached.
    async fn agent_socket(&self) -> Result<PathBuf, SshError>;
}
