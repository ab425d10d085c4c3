//! What can go wrong on the command line, whose fault it is, and what to do about it.

use std::io;

use crate::engine::EngineError;
use crate::ids::ServiceName;

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
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A service named on the command line is not in the file.
    #[error("no such service: {name}")]
    NoSuchService {
        /// What was named.
        name: ServiceName,
        /// A service of almost that name.
        similar: Option<ServiceName>,
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
            | Self::Flag { .. }
            | Self::Write { .. } => Kind::User,
            Self::Engine(EngineError::Conflict { .. }) => Kind::Conflict,
            Self::Engine(_) | Self::Failed(_) | Self::WaitTimeout { .. } | Self::Terminal(_) => Kind::Host,
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
            Self::Engine(error) => engine_help(error).map(str::to_owned),
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

/// What to do about an engine's error.
fn engine_help(error: &EngineError) -> Option<&'static str> {
    match error {
        EngineError::Unreachable { .. } => {
            Some("start Docker (`sudo systemctl start docker`), or name another engine with DOCKER_HOST")
        }
        EngineError::Permission { .. } => Some(
            "add yourself to the group `docker` (`sudo usermod -aG docker $USER`, then log in anew), or use `sudo`",
        ),
        EngineError::NoSpace { .. } => Some("free some with `docker system prune`, or make the disk larger"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_errors_say_what_to_do() {
        let address = "unix:///var/run/docker.sock".to_owned();
        let source = Box::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        for (error, word) in [
            (EngineError::Unreachable { address: address.clone(), source }, "start Docker"),
            (EngineError::Permission { address }, "group `docker`"),
            (EngineError::NoSpace { action: "pull".to_owned() }, "free some"),
        ] {
            let help = CliError::from(error).help().unwrap_or_default();
            assert!(help.contains(word), "{help}");
        }
    }
}
