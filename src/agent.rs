//! The agent of one host: makes the engine agree with the desired state and keeps names, addresses and load balancer
//! true. Start reading at [`wire`]; [`reconcile`] is the loop that everything else serves.
//!
//! It must never need the store, the network or another host to keep what runs running.

mod access;
pub mod admission;
mod ambassadors;
pub mod dataplane;
pub mod execute;
pub mod fleet;
mod folding;
pub mod handler;
pub mod hold;
mod hooks;
pub mod images;
pub mod informer;
pub mod memory;
mod metrics;
mod oneoff;
pub mod passing;
mod probes;
pub mod process;
pub mod reconcile;
pub mod rollouts;
pub mod shared;
pub mod snapshots;
pub mod spec;
pub mod wire;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::ids::HostName;

pub use wire::run;

/// What an agent is started with.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Directory that outlives reboots: store, `resolv.conf` files, contents of configs.
    pub state_dir: PathBuf,
    /// Directory in memory: the API's socket, contents of secrets.
    pub run_dir: PathBuf,
    /// Address of the engine (`unix:///…`); `None`: the default socket.
    pub engine: Option<String>,
    /// Name of this host.
    pub host: HostName,
    /// Where subnets of networks come from that the compose file gives none.
    pub subnet_pool: Ipv4Net,
    /// Threads of the load balancer; 0: one for each core.
    pub lb_threads: usize,
}

/// Why an agent ended or could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The engine.
    #[error("the container engine cannot be used")]
    Engine(#[from] crate::engine::EngineError),
    /// The store.
    #[error("the store cannot be used")]
    Store(#[from] crate::store::StoreError),
    /// The packet filter or the addresses of the host.
    #[error("the host's network cannot be set up")]
    HostNetwork(#[from] crate::host::network::HostNetworkError),
    /// The socket of its API.
    #[error("nobody can talk to this agent")]
    Socket(#[source] crate::api::server::BindError),
    /// The files by which it proves who it is.
    #[error("this host cannot prove who it is to the others")]
    Files(#[from] fleet::identity::FilesError),
    /// What is in them.
    #[error("this host cannot prove who it is to the others")]
    Identity(#[source] crate::mesh::IdentityError),
    /// They are not there.
    #[error("this host belongs to a cluster, but its certificate is gone; add it again (`orch host add`)")]
    NoIdentity,
    /// A file or thread of its own.
    #[error("{what} {path}")]
    Io {
        /// What was tried, with the word before the path.
        what: &'static str,
        /// The path.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
