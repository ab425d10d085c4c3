//! Hosts reached by the system's own `ssh`: so the user's configuration, keys, agents, jump hosts and hardware keys work.
//!
//! One connection per host, whatever the number of containers and commands: a multiplexing master in the background
//! that ssh itself keeps for a while after its last use, so that the next orch finds it ready. Over it the host's unix
//! sockets are forwarded to paths of this machine. Nothing here remembers what must be: each call looks whether the
//! master lives and makes another where it does not. Start at [`SshConnection::forward`].
//!
//! Several orchs at once share a master: a lock file per host lets one start it while the others wait. Sockets that a
//! dead master left are replaced. The only process that outlives orch is the master, which ends by itself.

mod classify;
mod directory;
mod error;
mod look;
mod master;
mod process;

pub(crate) use process::quoted;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use self::master::Held;
use super::local;
use super::reach::Reach;
use crate::hosts::SshAddress;

pub use self::error::{Found, Problem, SshError};
pub use self::look::HostLook;

/// The engine's socket on hosts.
const ENGINE_SOCKET: &str = "/var/run/docker.sock";
/// Longest that an engine may take for its first byte.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A request that every engine answers, and every other HTTP server too.
const PROBE: &[u8] = b"GET /_ping HTTP/1.0\r\nHost: orch\r\n\r\n";

/// Whether the user can be asked for a passphrase, or whether a host's key is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interaction {
    /// ssh itself asks on the terminal, for one host at a time, and only where it does not work without.
    Ask,
    /// There is no terminal: what would have to be asked is an error.
    Never,
}

/// How ssh is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSettings {
    /// The program.
    pub program: PathBuf,
    /// Configuration instead of the user's own.
    pub config: Option<PathBuf>,
    /// Directory of the connections' sockets, made where it is missing.
    pub directory: PathBuf,
    /// Who owns that directory.
    pub uid: u32,
    /// Whether the user can be asked.
    pub interaction: Interaction,
    /// Longest that a host may take to answer.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept; whole seconds.
    pub persist: Duration,
    /// Time between two checks that the host is still there; whole seconds. After three without answer it is not.
    pub alive_interval: Duration,
}

impl SshSettings {
    /// Returns the settings of this user. `variable` looks up the process environment: `ORCH_SSH_CONFIG` names a
    /// configuration instead of the user's own, `XDG_RUNTIME_DIR` where sockets belong.
    pub fn of_user(variable: &dyn Fn(&str) -> Option<OsString>, interaction: Interaction) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let uid = rustix::process::geteuid().as_raw();
        Self {
            program: PathBuf::from("ssh"),
            config: set("ORCH_SSH_CONFIG"),
            directory: directory::choose(set("XDG_RUNTIME_DIR").as_deref(), uid),
            uid,
            interaction,
            connect_timeout: Duration::from_secs(10),
            persist: Duration::from_mins(1),
            alive_interval: Duration::from_secs(3),
        }
    }
}

/// A host reached by SSH. Cheap until something is asked of it; while it lives and is in use, so does the master.
#[derive(Debug)]
pub struct SshConnection {
    address: SshAddress,
    settings: SshSettings,
    files: Files,
    state: Mutex<State>,
}

/// What a host has in the directory of connections.
#[derive(Debug)]
struct Files {
    /// The master's control socket.
    control: PathBuf,
    /// Whoever has it locked may start a master.
    lock: PathBuf,
    /// What the master says.
    log: PathBuf,
    /// Start of the names of forwarded sockets.
    stem: String,
}

/// What is known of the master.
#[derive(Debug, Default)]
struct State {
    master: Option<Held>,
    /// Sockets of the host that this master was asked to forward.
    forwarded: BTreeSet<String>,
}

impl SshConnection {
    /// Returns the host at `address`; nothing is started yet.
    pub fn new(address: SshAddress, settings: SshSettings) -> Self {
        let config = settings.config.as_deref().map_or(String::new(), |path| path.display().to_string());
        let stem = directory::name_of(&[&address.to_string(), &config]);
        let file = |end: &str| settings.directory.join(format!("{stem}{end}"));
        let files = Files { control: file(""), lock: file(".lock"), log: file(".log"), stem };
        Self { address, settings, files, state: Mutex::default() }
    }

    /// Returns its address.
    pub fn address(&self) -> &SshAddress {
        &self.address
    }

    /// Makes sure that a master lives: looks, and starts one where none does.
    ///
    /// # Errors
    /// Why there is no connection to the host.
    pub async fn ensure(&self) -> Result<(), SshError> {
        self.ensure_master(&mut *self.state.lock().await).await
    }

    /// Returns whether a master of this host lives that was used before through this value.
    pub async fn is_connected(&self) -> bool {
        self.state.lock().await.master.as_mut().is_some_and(Held::lives)
    }

    /// Returns a unix socket of this machine that reaches an HTTP server at the host's unix socket `remote`, tried out:
    /// that forwarding is forbidden, or nobody there, only shows at a first connection.
    ///
    /// # Errors
    /// Why the host or the socket on it cannot be reached.
    pub async fn forward(&self, remote: &str) -> Result<PathBuf, SshError> {
        let mut state = self.state.lock().await;
        let local = self.open(&mut state, remote).await?;
        let first = answer(&local).await;
        if first == Answer::Some {
            return Ok(local);
        }
        if !state.master.as_mut().is_some_and(Held::lives) {
            // It ended under us. Once more; if that fails too, the host has a reason.
            let local = self.open(&mut state, remote).await?;
            if answer(&local).await == Answer::Some {
                return Ok(local);
            }
        }
        let why = self.why_no_answer(&mut state, remote, first).await;
        if matches!(why.problem, Problem::ForwardingForbidden | Problem::NoPermission { .. }) {
            // What a login may do is settled when it is made: once that is put right, the next try needs one of its own.
            drop(self.end(&mut state).await);
        }
        Err(why)
    }

    /// Returns a unix socket of this machine that leads to the host's unix socket `remote`, which need not be there yet.
    ///
    /// # Errors
    /// Why the host cannot be reached.
    pub async fn forward_unchecked(&self, remote: &str) -> Result<PathBuf, SshError> {
        let mut state = self.state.lock().await;
        self.open(&mut state, remote).await
    }

    /// Makes the master listen for `remote`.
    async fn open(&self, state: &mut State, remote: &str) -> Result<PathBuf, SshError> {
        if !directory::is_plain(remote) {
            return Err(self.error(Problem::Failed, format!("`{remote}` is not a path that ssh can forward")));
        }
        let name = format!("{}-{}", self.files.stem, directory::name_of(&[remote]));
        let local = self.settings.directory.join(name);
        for _ in 0..2 {
            self.ensure_master(state).await?;
            if state.forwarded.contains(remote) && listens(&local).await {
                return Ok(local);
            }
            let spec = format!("{}:{remote}", local.display());
            let mut done = self.control("forward", &["-L", &spec]).await?;
            if done.ok() && !listens(&local).await {
                // The master has it on its list, but somebody removed the file: `/tmp` is cleaned now and then.
                drop(self.control("cancel", &["-L", &spec]).await?);
                done = self.control("forward", &["-L", &spec]).await?;
            }
            if done.ok() {
                state.forwarded.insert(remote.to_owned());
                return Ok(local);
            }
            if state.master.as_mut().is_some_and(Held::lives) {
                return Err(self.error(classify::classify(&done.stderr), done.stderr));
            }
        }
        Err(self.error(Problem::Ended, self.log()))
    }

    /// Finds out why nobody answered at a forwarded socket: the master's log does not say.
    async fn why_no_answer(&self, state: &mut State, remote: &str, answer: Answer) -> SshError {
        if answer == Answer::TooLate {
            return self.no_engine(remote, Found::NoAnswer);
        }
        let log = self.log();
        let script = look::socket_script(remote);
        let seen = match self.run_in(state, &["sh", "-c", &script]).await {
            Ok(output) => look::parse_socket(&output),
            Err(error) if error.problem == Problem::Ended => return error,
            Err(_) => None, // A shell that does nothing: what we know is that the socket is not forwarded.
        };
        let Some((user, seen)) = seen else { return self.error(Problem::ForwardingForbidden, log) };
        match seen {
            look::Socket::Missing => self.no_engine(remote, Found::Nothing),
            look::Socket::Deaf => self.no_engine(remote, Found::NobodyListening),
            look::Socket::Denied => {
                self.error(Problem::NoPermission { socket: remote.to_owned(), user }, String::new())
            }
            look::Socket::Fine => self.error(Problem::ForwardingForbidden, log),
        }
    }

    fn no_engine(&self, socket: &str, found: Found) -> SshError {
        self.error(Problem::NoEngine { socket: socket.to_owned(), found }, String::new())
    }

    /// Runs a small program on the host and returns what it printed. For looking only: it may be run twice.
    ///
    /// # Errors
    /// [`Problem::Command`] with what it said where its exit code is not 0, or why the host cannot be reached.
    pub async fn run(&self, argv: &[&str]) -> Result<String, SshError> {
        self.run_in(&mut *self.state.lock().await, argv).await
    }

    async fn run_in(&self, state: &mut State, argv: &[&str]) -> Result<String, SshError> {
        let command = process::quoted(argv);
        for _ in 0..2 {
            self.ensure_master(state).await?;
            let done = process::session(&self.settings, &self.files.control, &command).await;
            let done = done.map_err(|failure| self.could_not_run(failure))?;
            if done.ok() {
                return Ok(done.stdout);
            }
            // ssh's own code for "no connection", which a program may use as well.
            if done.code != Some(255) || state.master.as_mut().is_some_and(Held::lives) {
                let program = argv.first().copied().unwrap_or_default().to_owned();
                let problem = match classify::classify(&done.stderr) {
                    Problem::NoSpace => Problem::NoSpace,
                    _ => Problem::Command { program, code: done.code.unwrap_or(-1) },
                };
                return Err(self.error(problem, done.stderr));
            }
        }
        Err(self.error(Problem::Ended, self.log()))
    }

    /// Looks at the host: who it is, and how much room it has.
    ///
    /// # Errors
    /// As [`SshConnection::run`].
    pub async fn look(&self) -> Result<HostLook, SshError> {
        let output = self.run(&["sh", "-c", look::SCRIPT]).await?;
        look::parse(&output).ok_or_else(|| self.error(Problem::Failed, output))
    }

    /// Ends the master for everybody who uses it: the host is forgotten.
    ///
    /// # Errors
    /// When ssh cannot be run.
    pub async fn close(&self) -> Result<(), SshError> {
        let mut state = self.state.lock().await;
        self.end(&mut state).await
    }

    async fn end(&self, state: &mut State) -> Result<(), SshError> {
        *state = State::default();
        if listens(&self.files.control).await {
            drop(self.control("exit", &[]).await?);
        }
        Ok(())
    }

    /// Tells the master something.
    async fn control(&self, what: &str, arguments: &[&str]) -> Result<process::Output, SshError> {
        let done = process::control(&self.settings, &self.files.control, what, arguments).await;
        done.map_err(|failure| self.could_not_run(failure))
    }

    fn could_not_run(&self, failure: process::NotRun) -> SshError {
        match failure {
            process::NotRun::NoProgram => {
                self.error(Problem::NoProgram { program: self.settings.program.clone() }, String::new())
            }
            process::NotRun::TooLong => {
                self.error(Problem::Unreachable { reason: "it did not answer in time".to_owned() }, self.log())
            }
            process::NotRun::Other(error) => self.error(Problem::Failed, error.to_string()),
        }
    }

    /// Returns what the master said so far; empty where that cannot be read.
    fn log(&self) -> String {
        std::fs::read_to_string(&self.files.log).unwrap_or_default()
    }

    fn error(&self, problem: Problem, detail: impl Into<String>) -> SshError {
        let detail = detail.into().replace('\r', "").trim().to_owned();
        SshError { address: Box::new(self.address.clone()), problem, detail }
    }
}

#[async_trait]
impl Reach for SshConnection {
    async fn engine_socket(&self) -> Result<PathBuf, SshError> {
        self.forward(ENGINE_SOCKET).await
    }

    async fn agent_socket(&self) -> Result<PathBuf, SshError> {
        self.forward_unchecked(&local::agent_socket(None).to_string_lossy()).await
    }
}

/// Returns whether somebody listens at a socket of this machine.
async fn listens(socket: &Path) -> bool {
    UnixStream::connect(socket).await.is_ok()
}

/// What came back through a forwarded socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Some,
    /// It was closed: the host let nobody through, or nobody is there.
    None,
    TooLate,
}

/// Asks something that any HTTP server answers.
async fn answer(socket: &Path) -> Answer {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(PROBE).await?;
        stream.read(&mut [0; 64]).await
    };
    match tokio::time::timeout(ANSWER_WITHIN, ask).await {
        Ok(Ok(1..)) => Answer::Some,
        Ok(_) => Answer::None,
        Err(_) => Answer::TooLate,
    }
}
