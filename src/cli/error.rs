//! What can go wrong on the command line, whose fault it is, and what to do about it.

use std::io;

use crate::agent::AgentError;
use crate::api::client::ClientError;
use crate::api::types::ErrorKind;
use crate::diag::Diagnostics;
use crate::engine::EngineError;
use crate::hosts::InventoryError;
use crate::ids::{InvalidName, ServiceName};
use crate::transport::bootstrap::BootstrapError;
use crate::transport::local::engine_help;
use crate::transport::ssh::SshError;

use super::exit::Kind;

/// What went wrong. `Display` says it alone; causes are the sources; [`CliError::help`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The runtime cannot be made.
    #[error("the runtime could not be started")]
    Runtime(#[source] io::Error),
    /// Standard output or error cannot be written.
    #[error("output could not be written")]
    Output(#[source] io::Error),
    /// A file asked for by a flag cannot be written.
    #[error("`{path}` could not be written")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file of the user's own cannot be read.
    #[error("`{path}` could not be read")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The hosts named make no list.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// A host cannot be reached, or not be used.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The directory that the command runs in is gone.
    #[error("the current directory cannot be read")]
    Directory(#[source] io::Error),
    /// The files are wrong.
    #[error("{0}")]
    Files(Diagnostics),
    /// A name given on the command line or in the environment is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// There is no agent and none could be started.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Projects still need the agent.
    #[error("the agent is still needed by: {}", .0.join(", "))]
    AgentNeeded(Vec<String>),
    /// The agent itself, run by `orch agent`.
    #[error(transparent)]
    RunAgent(#[from] AgentError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The agent failed, refused, or cannot be reached.
    #[error(transparent)]
    Agent(#[from] ClientError),
    /// `DOCKER_HOST` names an engine, and the agent here belongs to another one.
    #[error("the agent at {agent} is not that of the engine at {address}, which DOCKER_HOST names")]
    OtherEngine {
        /// The engine's address.
        address: String,
        /// The agent's socket.
        agent: String,
    },
    /// The agent went away before it had said how it ended.
    #[error("the agent ended before it had said the result")]
    Cut,
    /// A service named on the command line is not in the file.
    #[error("no such service: {name}")]
    NoSuchService {
        /// What was named.
        name: ServiceName,
        /// A service of almost that name.
        similar: Option<String>,
    },
    /// Nothing to work on.
    #[error("no service selected")]
    NoService,
    /// The service has no running container.
    #[error("service \"{name}\" is not running")]
    NotRunning {
        /// The service.
        name: ServiceName,
        /// The replica asked for; 0: any.
        index: u32,
    },
    /// A flag's value that the parser cannot judge.
    #[error("`{value}` is not a valid {what}")]
    Value {
        /// What it should be.
        what: &'static str,
        /// What was given.
        value: String,
        /// What a good one looks like.
        expected: &'static str,
    },
    /// The flag cannot act with this command.
    #[error("`{flag}` cannot be used with `{command}`")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// The command.
        command: &'static str,
    },
    /// Images are missing and cannot be pulled.
    #[error("{}", .0.join("\n"))]
    Images(Vec<String>),
    /// The agent, or a container, could not do what was asked.
    #[error("{}", .0.join("\n"))]
    Failed(Vec<String>),
    /// It did not become so in time.
    #[error("not all services were ready after {seconds} s")]
    WaitTimeout {
        /// The limit.
        seconds: u64,
    },
    /// The user cancelled.
    #[error("cancelled")]
    Cancelled,
    /// An error that reached the command line through the other half of an operation, told already.
    #[error("the terminal could not be set up")]
    Terminal(#[source] io::Error),
}

impl CliError {
    /// Returns whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuchService { .. }
            | Self::NoService
            | Self::NotRunning { .. }
            | Self::Value { .. }
            | Self::Files(_)
            | Self::Name(_)
            | Self::AgentNeeded(_)
            | Self::OtherEngine { .. }
            | Self::Flag { .. }
            | Self::Inventory(_)
            | Self::Read { .. }
            | Self::Write { .. } => Kind::User,
            Self::Engine(EngineError::Conflict { .. }) | Self::Bootstrap(BootstrapError::Refused(_)) => Kind::Conflict,
            Self::Agent(error) => agent_kind(error),
            Self::Bootstrap(_)
            | Self::RunAgent(_)
            | Self::Directory(_)
            | Self::Ssh(_)
            | Self::Engine(_)
            | Self::Cut
            | Self::Images(_)
            | Self::Failed(_)
            | Self::WaitTimeout { .. }
            | Self::Terminal(_) => Kind::Host,
            Self::Runtime(_) | Self::Output(_) => Kind::Internal,
            Self::Cancelled => Kind::Cancelled,
        }
    }

    /// Returns whether there is nothing to say: the reader of the output has gone, or the user knows.
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Cancelled => true,
            _ => false,
        }
    }

    /// Returns what to do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Engine(error)
            | Self::Bootstrap(BootstrapError::Engine(error))
            | Self::RunAgent(AgentError::Engine(error)) => engine_help(error),
            Self::Inventory(error) => Some(error.help()),
            Self::Ssh(error) => Some(error.help()),
            Self::AgentNeeded(projects) => Some(format!(
                "take them down first (`orch -p {} down`), or use `--force`: their containers stay, without names and \
                 addresses",
                projects.first().map_or("NAME", String::as_str)
            )),
            Self::Agent(error) => agent_help(error).map(str::to_owned),
            Self::OtherEngine { .. } => Some(
                "nothing was read or changed; unset DOCKER_HOST to work with the agent's engine; where the other engine \
                 has an agent of its own, name its socket with ORCH_AGENT_SOCKET"
                    .to_owned(),
            ),
            Self::Cut => Some(
                "it is started again and goes on with what it accepted; run the same command again to see it"
                    .to_owned(),
            ),
            Self::Images(_) => Some(
                "nothing was changed. `docker pull IMAGE` shows more, `docker build -t IMAGE .` makes one, \
                 `docker load -i FILE` brings one from elsewhere"
                    .to_owned(),
            ),
            Self::NoSuchService { similar: Some(similar), .. } => Some(format!("did you mean `{similar}`?")),
            Self::NoService => Some(
                "the file defines no service that is enabled: add one, or name its profile with `--profile`".to_owned(),
            ),
            Self::NotRunning { index: 0, .. } => {
                Some("start it with `orch up -d`; `orch ps -a` shows what is there".to_owned())
            }
            Self::NotRunning { index, .. } => {
                Some(format!("replica {index} does not run; `orch ps -a` shows what is there"))
            }
            Self::Value { expected, .. } => Some(format!("expected {expected}")),
            Self::WaitTimeout { .. } => Some("`orch ps` shows what is missing; the agent goes on trying".to_owned()),
            _ => None,
        }
    }
}

fn agent_kind(error: &ClientError) -> Kind {
    match error {
        ClientError::Api(error) => match error.kind {
            ErrorKind::User | ErrorKind::NotFound => Kind::User,
            ErrorKind::Conflict => Kind::Conflict,
            ErrorKind::Host => Kind::Host,
            ErrorKind::Internal => Kind::Internal,
        },
        ClientError::NotUnderstood { .. } => Kind::Internal,
        _ => Kind::Host,
    }
}

/// What to do about an agent's error.
fn agent_help(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::NotInstalled { .. } => Some("`orch up` starts it"),
        ClientError::NoPermission { .. } => Some(
            "add yourself to the group `docker` (`sudo usermod -aG docker $USER`, then log in anew), or use `sudo`",
        ),
        ClientError::NotAnswering { .. } => Some("`orch agent logs` says why; `orch up` starts it again"),
        ClientError::NotUnderstood { .. } => Some("`orch up` replaces the agent by one of this version"),
        ClientError::Api(_) => None,
    }
}
