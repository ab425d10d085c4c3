//! What can go wrong on the command line, whose fault it is, and what to do about it.

use std::io;
use std::net::SocketAddr;

use crate::agent::AgentError;
use crate::api::client::ClientError;
use crate::api::types::ErrorKind;
use crate::diag::{Diagnostics, chain};
use crate::engine::EngineError;
use crate::graph::Protocol;
use crate::hosts::InventoryError;
use crate::ids::{HostName, InvalidName, ProjectName, ServiceName};
use crate::transport::bootstrap::BootstrapError;
use crate::transport::local::engine_help;
use crate::transport::ssh::SshError;

pub use super::carry::CarryError;
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
    /// No service says what is watched.
    #[error("none of the selected services is configured for watch")]
    NothingWatched,
    /// Changes of a file cannot be noticed.
    #[error("`{}` cannot be watched", .path.display())]
    Watch {
        /// The file or directory.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The hosts named make no list.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// A host cannot be reached, or not be used.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// Something on one host.
    #[error("host `{host}`: {}", chain(.error.as_ref()))]
    OnHost {
        /// The host.
        host: HostName,
        /// What went wrong there.
        error: Box<CliError>,
    },
    /// A host did not answer while others did.
    #[error("host `{host}` does not answer")]
    HostSilent {
        /// The host.
        host: HostName,
    },
    /// No host at all answers.
    #[error("no host answers: {}", texts(.0))]
    NoHostAnswers(Vec<CliError>),
    /// The host that decides cannot be asked.
    #[error("host `{seat}`, which decides for the cluster, cannot be reached: {}", chain(.cause.as_ref()))]
    NoSeat {
        /// The host.
        seat: HostName,
        /// Why.
        cause: Box<CliError>,
    },
    /// No host is named anywhere.
    #[error("no hosts are named")]
    NoHosts,
    /// None of the hosts was added.
    #[error("none of the hosts belongs to a cluster yet")]
    NoCluster,
    /// A host that the cluster does not have.
    #[error("no host `{name}` is known")]
    NoSuchHost {
        /// The name.
        name: HostName,
        /// A known one that is almost the same.
        similar: Option<String>,
    },
    /// A host belongs to another cluster, or to this one by another name.
    #[error("host `{host}` is `{name}` of cluster {cluster} already, which is not {wanted}")]
    OtherCluster {
        /// The host.
        host: HostName,
        /// Its name there.
        name: HostName,
        /// The cluster that it belongs to.
        cluster: String,
        /// What it should be.
        wanted: String,
    },
    /// A host was added, and the others cannot reach its agent.
    #[error("host `{host}` was added, but `{seat}` does not reach its agent at {address}: {problem}")]
    NotReady {
        /// The host.
        host: HostName,
        /// Who cannot reach it.
        seat: HostName,
        /// Where it should be reached.
        address: SocketAddr,
        /// What the seat says.
        problem: String,
    },
    /// Where other hosts reach this one cannot be told.
    #[error("host `{host}`: {reason}")]
    NoTunnelAddress {
        /// The host.
        host: HostName,
        /// Why.
        reason: String,
    },
    /// Some hosts failed; each was told already.
    #[error("{what} failed on {}", names(.hosts))]
    SomeHosts {
        /// What was tried.
        what: &'static str,
        /// The hosts.
        hosts: Vec<HostName>,
    },
    /// The seat is not the last host.
    #[error("`{0}` decides for the cluster: what shall run is written down there")]
    SeatStays(HostName),
    /// The seat cannot be moved in order, because the host that has it cannot be asked.
    #[error("`{seat}`, which decides now, cannot be reached: {cause}")]
    SeatAway {
        /// The host.
        seat: HostName,
        /// Whether the other hosts still hear it.
        heard: bool,
        /// Why.
        cause: Box<CliError>,
    },
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
    #[error(
        "the agent at {agent} is not that of the engine at {address}, which DOCKER_HOST, or a context of Docker's client, names"
    )]
    OtherEngine {
        /// The engine's address.
        address: String,
        /// The agent's socket.
        agent: String,
    },
    /// The agent, or the connection to it, went away before it had said how it ended.
    #[error("the agent, or the connection to it, ended before it had said the result")]
    Cut,
    /// A service named on the command line is not in the file.
    #[error("no such service: {name}")]
    NoSuchService {
        /// What was named.
        name: ServiceName,
        /// What was meant, or which there are.
        instead: Option<String>,
    },
    /// An image whose digest is asked for, and that the local engine does not have.
    #[error("image `{0}` is not on this machine: its digest is not known")]
    NoImageHere(String),
    /// An image that came from no registry, so that it has no digest.
    #[error("image `{0}` has no digest: the engine has it from no registry of that name")]
    NoDigest(String),
    /// A pattern that is nowhere.
    #[error("no such pattern: {name}")]
    NoSuchPattern {
        /// What was named.
        name: String,
        /// A pattern of almost that name.
        similar: Option<String>,
    },
    /// Patterns that were checked and cannot be used; what is wrong was said.
    #[error("{wrong} of {of} patterns cannot be used")]
    WrongPatterns {
        /// How many.
        wrong: usize,
        /// Of how many.
        of: usize,
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
        /// Hosts that could not be asked.
        away: Vec<HostName>,
    },
    /// None of the containers runs that are to be waited for.
    #[error("no containers for project \"{0}\"")]
    NothingRuns(ProjectName),
    /// What `run` cannot do for a service.
    #[error("`{service}` cannot be run by itself: {reason}")]
    NoOneoff {
        /// The service.
        service: ServiceName,
        /// Why.
        reason: &'static str,
    },
    /// The port is not published.
    #[error("no port {port}/{protocol} for container {container}{}", if .known.is_empty() { ", which publishes none".to_owned() } else { format!(": {}", .known.join(", ")) })]
    NoPort {
        /// The port in the container.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The container.
        container: String,
        /// What is published instead, `8080/tcp`.
        known: Vec<String>,
    },
    /// Files cannot be copied.
    #[error(transparent)]
    Carry(#[from] CarryError),
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
    /// A template asks for what rows do not have.
    #[error("there is no field `{name}`: there are {known}")]
    NoField {
        /// The field.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// The flag cannot act with this command.
    #[error("`{flag}` cannot be used with `{command}`")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// The command.
        command: &'static str,
    },
    /// An archive would be shown.
    #[error("an archive is not written to a terminal")]
    NoTerminalForArchive,
    /// Images are missing and cannot be pulled.
    #[error("{}", .0.join("\n"))]
    Images(Vec<String>),
    /// Images could not be built.
    #[error("{}", .0.join("\n"))]
    Builds(Vec<String>),
    /// Images could not be pushed.
    #[error("{}", .0.join("\n"))]
    Pushes(Vec<String>),
    /// Files that pods mount did not arrive.
    #[error("the files of `{path}` could not be sent: {cause}")]
    NotSent {
        /// The file or directory.
        path: String,
        /// Why.
        cause: Box<CliError>,
    },
    /// The agent, or a container, could not do what was asked.
    #[error("{}", .0.join("\n"))]
    Failed(Vec<String>),
    /// It did not become so in time.
    #[error("{}", std::iter::once(format!("not all services were ready after {seconds} s")).chain(missing.iter().cloned()).collect::<Vec<_>>().join("\n"))]
    WaitTimeout {
        /// The limit.
        seconds: u64,
        /// What is missing, a sentence each.
        missing: Vec<String>,
    },
    /// Others changed the project, and the user cannot be asked whether to overwrite that.
    #[error("{changes}")]
    ChangedByOthers {
        /// Who, when and what.
        changes: String,
    },
    /// The user cancelled.
    #[error("cancelled")]
    Cancelled,
    /// An error that reached the command line through the other half of an operation, told already.
    #[error("the terminal could not be set up")]
    Terminal(#[source] io::Error),
}

impl CliError {
    /// Says of an error which host it is of, unless it says so itself.
    pub(crate) fn on_host(host: &HostName, error: impl Into<Self>) -> Self {
        match error.into() {
            named @ (Self::OnHost { .. }
            | Self::OtherCluster { .. }
            | Self::Inventory(_)
            | Self::NotReady { .. }
            | Self::NoTunnelAddress { .. }
            | Self::HostSilent { .. }) => named,
            error => Self::OnHost { host: host.clone(), error: Box::new(error) },
        }
    }

    /// Returns whether a host was reached that has no agent, or none that answers.
    pub(crate) fn is_agent_missing(&self) -> bool {
        match self {
            Self::OnHost { error, .. } => error.is_agent_missing(),
            Self::Agent(ClientError::NotInstalled { .. } | ClientError::NotAnswering { .. }) => true,
            _ => false,
        }
    }

    /// Returns whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::OnHost { error, .. } | Self::NotSent { cause: error, .. } => error.kind(),
            Self::NoHosts
            | Self::NoCluster
            | Self::NoSuchHost { .. }
            | Self::NoTunnelAddress { .. }
            | Self::NoSuchService { .. }
            | Self::NoSuchPattern { .. }
            | Self::NoImageHere(_)
            | Self::NoDigest(_)
            | Self::WrongPatterns { .. }
            | Self::NoService
            | Self::NothingWatched
            | Self::NoTerminalForArchive
            | Self::NotRunning { .. }
            | Self::NoPort { .. }
            | Self::NothingRuns(_)
            | Self::NoOneoff { .. }
            | Self::Carry(_)
            | Self::Value { .. }
            | Self::NoField { .. }
            | Self::Files(_)
            | Self::Name(_)
            | Self::AgentNeeded(_)
            | Self::OtherEngine { .. }
            | Self::Flag { .. }
            | Self::Inventory(_)
            | Self::Read { .. }
            | Self::Write { .. } => Kind::User,
            Self::Engine(EngineError::Conflict { .. })
            | Self::Bootstrap(BootstrapError::Refused(_))
            | Self::OtherCluster { .. }
            | Self::ChangedByOthers { .. }
            | Self::SeatAway { .. }
            | Self::SeatStays(_) => Kind::Conflict,
            Self::Agent(error) => agent_kind(error),
            Self::HostSilent { .. }
            | Self::NoHostAnswers(_)
            | Self::NoSeat { .. }
            | Self::NotReady { .. }
            | Self::SomeHosts { .. }
            | Self::Bootstrap(_)
            | Self::RunAgent(_)
            | Self::Directory(_)
            | Self::Ssh(_)
            | Self::Engine(_)
            | Self::Cut
            | Self::Images(_)
            | Self::Builds(_)
            | Self::Pushes(_)
            | Self::Failed(_)
            | Self::WaitTimeout { .. }
            | Self::Watch { .. }
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
            Self::Agent(ClientError::Api(error)) if says_full(&error.message) => Some(FREE_SPACE.to_owned()),
            Self::Agent(ClientError::Api(error)) if error.message.starts_with("no such service: ") => {
                Some("`orch ps -a` shows what is there".to_owned())
            }
            Self::Agent(error) => agent_help(error).map(str::to_owned),
            Self::OtherEngine { .. } => Some(
                "nothing was read or changed; unset DOCKER_HOST to work with the agent's engine; where the other engine \
                 has an agent of its own, name its socket with ORCH_AGENT_SOCKET"
                    .to_owned(),
            ),
            Self::Cut => Some(
                "the agent goes on with what it accepted. One that ended by itself is started again by the engine, one that \
                 was killed or stopped by hand by `orch up`; run the same command again to see it"
                    .to_owned(),
            ),
            Self::Images(messages) | Self::Builds(messages) | Self::Failed(messages) if messages.iter().any(|message| says_full(message)) => {
                Some(FREE_SPACE.to_owned())
            }
            Self::Images(_) => Some(
                "nothing was changed. `docker pull IMAGE` shows more, `docker build -t IMAGE .` makes one, \
                 `docker load -i FILE` brings one from elsewhere"
                    .to_owned(),
            ),
            Self::Carry(CarryError::NoneRemote) => {
                Some("one of the two is in a container: `SERVICE:PATH`; `./a:b` is a file of this machine".to_owned())
            }
            Self::NoImageHere(image) => Some(format!("get it first: `docker pull {image}`")),
            Self::NoTerminalForArchive => Some("name a file with `--output`, or hand it to a program".to_owned()),
            Self::NoDigest(_) => Some("push it to a registry first, or name another image".to_owned()),
            Self::NoSuchPattern { similar: None, .. } => {
                Some("`orch pattern ls` lists them; a file is named by its path".to_owned())
            }
            Self::NoSuchPattern { similar: Some(similar), .. }
            | Self::NoSuchHost { similar: Some(similar), .. } => Some(format!("did you mean `{similar}`?")),
            Self::NoSuchService { instead, .. } => {
                Some(instead.clone().unwrap_or_else(|| "`orch config --services` lists them".to_owned()))
            }
            Self::NoService => Some(
                "the file defines no service that is enabled: add one, or name its profile with `--profile`".to_owned(),
            ),
            Self::NothingWatched => {
                Some("say with `develop: {watch: […]}` of a service which paths matter, and what follows".to_owned())
            }
            Self::Watch { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some(
                "this user watches as many directories as the system allows: leave some out with `ignore`, or raise it \
                 (`sysctl fs.inotify.max_user_watches=…`)"
                    .to_owned(),
            ),
            Self::NotRunning { away, .. } if !away.is_empty() => Some(format!(
                "what runs on {} cannot be reached; `orch ps -a` shows what runs where",
                names(away)
            )),
            Self::NotRunning { index: 0, name, .. } => {
                Some(format!("start it with `orch up -d {name}`; `orch ps -a` shows what is there"))
            }
            Self::NotRunning { index, .. } => {
                Some(format!("replica {index} does not run; `orch ps -a` shows what is there"))
            }
            Self::Value { expected, .. } => Some(format!("expected {expected}")),
            Self::ChangedByOthers { .. } => Some(
                "nothing was changed; look at it (`orch plan`), and overwrite it with `--yes`, or take up what they changed"
                    .to_owned(),
            ),
            Self::WaitTimeout { .. } => Some("`orch ps` shows what is missing; the agent goes on trying".to_owned()),
            _ => self.fleet_help(),
        }
    }

    /// What to do about hosts.
    fn fleet_help(&self) -> Option<String> {
        match self {
            Self::OnHost { error, .. } => error.help(),
            Self::NotSent { cause, .. } => {
                cause.help().or_else(|| Some("nothing was changed; run the same command again".to_owned()))
            }
            Self::NoHostAnswers(errors) => errors.first().and_then(Self::help),
            Self::HostSilent { .. } => Some("`orch host ls` shows how it is".to_owned()),
            Self::NoHosts => Some("add one: `orch host add NAME ssh://user@address`".to_owned()),
            Self::NoCluster => Some("`orch up` adds the hosts that are named, or add them: `orch host add`".to_owned()),
            Self::NoSuchHost { similar: None, .. } => Some("`orch host ls` shows those that there are".to_owned()),
            Self::OtherCluster { name, .. } => Some(format!(
                "a host belongs to one cluster: take it out there first (`orch host rm {name}`), or leave it out here"
            )),
            Self::NotReady { address, .. } => Some(format!(
                "let TCP port {} of that host through from the other hosts, or say where they reach it (`--address`), \
                 and run the same command again",
                address.port()
            )),
            Self::NoTunnelAddress { .. } => Some("say where the other hosts reach it: `--address IP`".to_owned()),
            Self::SomeHosts { .. } => Some("what was done stays; run the same command again to finish".to_owned()),
            Self::SeatStays(_) => Some(
                "let another host decide first (`orch host seat NAME`), or take the other hosts out: the last one dissolves \
                 the cluster"
                    .to_owned(),
            ),
            Self::SeatAway { seat, heard: true, .. } => Some(format!(
                "the other hosts hear `{seat}`, so it still decides: two at once must not be; reach it, or power it off, and \
                 run the same command again"
            )),
            Self::SeatAway { seat, heard: false, .. } => Some(format!(
                "should `{seat}` be gone for good, `--force` lets the other host decide with what it has heard so far"
            )),
            Self::NoSeat { seat, .. } => Some(format!(
                "nothing that runs needs `{seat}`; where it is gone for good, let another host decide: \
                 `orch host seat NAME --force`"
            )),
            _ => None,
        }
    }
}

/// What to do about a disk that an agent or an engine says to be full.
const FREE_SPACE: &str =
    "free some space on that host, for example `docker image prune` there, and run the same command again";

fn says_full(message: &str) -> bool {
    message.to_lowercase().contains("no space left")
}

fn texts(errors: &[CliError]) -> String {
    errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; ")
}

fn names(hosts: &[HostName]) -> String {
    hosts.iter().map(|host| format!("`{host}`")).collect::<Vec<_>>().join(", ")
}

fn agent_kind(error: &ClientError) -> Kind {
    match error {
        ClientError::Api(error) => match error.kind {
            ErrorKind::User | ErrorKind::NotFound => Kind::User,
            ErrorKind::Conflict | ErrorKind::Unseen => Kind::Conflict,
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
