//! The master: found if it lives, started if none does.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::process::{self, NotRun};
use super::{Interaction, Problem, SshConnection, SshError, State, classify, directory};

/// Pause between two looks whether another orch has started the master.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// A start that asks nobody ends by itself after ssh's own limit; this is for one that does not.
const START_SLACK: Duration = Duration::from_secs(20);

/// Pause between two looks whether a master listens that another orch began, which was ended since.
const OTHER_PAUSE: Duration = Duration::from_millis(100);
/// Time that an ssh has to go to the background once a master listens; after that the master is not its own.
const OTHER_GRACE: Duration = Duration::from_secs(2);

/// Part of what ssh says when the program that should have connected it, a jump host's ssh for one, has ended.
const BEHIND_A_JUMP: &str = "UNKNOWN port 65535";

/// Only one ssh of this process asks on the terminal.
static TERMINAL: Mutex<()> = Mutex::const_new(());

/// An open connection to the master's control socket: the master stays while somebody has one, and closes it when it
/// ends, so that a look at it costs no process.
#[derive(Debug)]
pub(super) struct Held(std::os::unix::net::UnixStream);

impl Held {
    /// Connects to the master; `None`: nobody listens there.
    async fn take(control: &Path) -> io::Result<Option<Self>> {
        match UnixStream::connect(control).await {
            Ok(stream) => Ok(Some(Self(stream.into_std()?))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns whether the master has not ended.
    pub(super) fn lives(&mut self) -> bool {
        use std::io::Read as _;
        loop {
            match self.0.read(&mut [0; 64]) {
                Ok(0) => return false,
                Ok(_) => {} // Its greeting.
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

/// How a start ended that gave no master.
struct NoMaster {
    problem: Problem,
    said: String,
}

impl SshConnection {
    /// Makes sure that `state` has a living master.
    pub(super) async fn ensure_master(&self, state: &mut State) -> Result<(), SshError> {
        if state.master.as_mut().is_some_and(Held::lives) {
            return Ok(());
        }
        *state = State::default();
        directory::ensure(&self.settings.directory, self.settings.uid).map_err(|reason| {
            self.error(Problem::Directory { path: self.settings.directory.clone(), reason }, String::new())
        })?;
        state.master = Some(self.found_or_started().await?);
        Ok(())
    }

    async fn found_or_started(&self) -> Result<Held, SshError> {
        let here = |error: io::Error| {
            let path = self.settings.directory.clone();
            self.error(Problem::Directory { path, reason: error.to_string() }, String::new())
        };
        if let Some(held) = Held::take(&self.files.control).await.map_err(here)? {
            return Ok(held);
        }
        let _lock = self.lock().await.map_err(here)?;
        if let Some(held) = Held::take(&self.files.control).await.map_err(here)? {
            return Ok(held);
        }
        // A master that was killed leaves its socket, and a new one would refuse to take its place.
        match std::fs::remove_file(&self.files.control) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(here(error)),
            _ => {}
        }
        self.start().await?;
        let held = Held::take(&self.files.control).await.map_err(here)?;
        held.ok_or_else(|| self.error(Problem::Ended, self.log()))
    }

    /// Waits until nobody else starts a master of this host. The lock goes with the process that holds it.
    async fn lock(&self) -> io::Result<File> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.files.lock)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                // No waiting in the kernel: that could not be cancelled while another orch asks its user something.
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Starts a master: first without asking anything, so that many hosts can do it at once; then, where a question
    /// would help and can be asked, one after the other.
    async fn start(&self) -> Result<(), SshError> {
        let Err(NoMaster { problem, said }) = self.attempt(Interaction::Never).await? else { return Ok(()) };
        let can_be_asked = matches!(problem, Problem::HostKeyUnknown { .. } | Problem::KeyRefused);
        if can_be_asked && self.settings.interaction == Interaction::Ask {
            let _terminal = TERMINAL.lock().await;
            let Err(NoMaster { problem, said }) = self.attempt(Interaction::Ask).await? else { return Ok(()) };
            return Err(self.error(problem, said));
        }
        if !matches!(problem, Problem::HostKeyUnknown { .. }) && !said.contains(BEHIND_A_JUMP) {
            return Err(self.error(problem, said));
        }
        let verbose = self.verbose_attempt().await;
        let said = classify::without_debug(&verbose).unwrap_or(said);
        let mut problem = classify::classify(&said);
        if let Problem::HostKeyUnknown { fingerprint } = &mut problem {
            *fingerprint = classify::fingerprint_seen(&verbose);
        }
        Err(self.error(problem, said))
    }

    /// Runs ssh until it has gone to the background as a master, or failed.
    async fn attempt(&self, interaction: Interaction) -> Result<Result<(), NoMaster>, SshError> {
        let log = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&self.files.log);
        // Appending, as ssh itself does with its own messages; what a jump host's ssh says comes here as well.
        let log = log.and_then(|_| OpenOptions::new().append(true).open(&self.files.log));
        let log = log.map_err(|error| {
            let path = self.settings.directory.clone();
            self.error(Problem::Directory { path, reason: error.to_string() }, String::new())
        })?;
        let mut command = process::ssh(&self.settings);
        command.args(["-M", "-N", "-T", "-S"]).arg(process::escaped(&self.files.control));
        command.arg("-E").arg(&self.files.log);
        for option in self.options() {
            command.args(["-o", &option]);
        }
        let limit = match interaction {
            Interaction::Ask => {
                command.stderr(Stdio::inherit());
                None
            }
            Interaction::Never => {
                self.ask_nothing(&mut command);
                command.stderr(log);
                Some(self.settings.connect_timeout + START_SLACK)
            }
        };
        self.add_host(&mut command);
        let mut child = command.spawn().map_err(|error| self.could_not_run(NotRun::from(error)))?;
        let ended = async {
            match limit {
                None => Ok(child.wait().await),
                Some(limit) => tokio::time::timeout(limit, child.wait()).await,
            }
        };
        let status = tokio::select! {
            status = ended => status.map_err(|_| self.could_not_run(NotRun::TooLong))?,
            () = self.another_listens() => return Ok(Ok(())),
        };
        let status = status.map_err(|error| self.could_not_run(NotRun::Other(error)))?;
        if status.success() {
            return Ok(Ok(()));
        }
        let said = self.log();
        Ok(Err(NoMaster { problem: classify::classify(&said), said }))
    }

    /// Waits until a master listens that is not of the ssh that was started just now.
    ///
    /// An orch that is killed leaves an ssh that connects, and its lock is free. That ssh becomes the master, and one
    /// that comes second finds the socket taken and would stay in the foreground without being one, for ever.
    async fn another_listens(&self) {
        loop {
            if matches!(Held::take(&self.files.control).await, Ok(Some(_))) {
                return tokio::time::sleep(OTHER_GRACE).await;
            }
            tokio::time::sleep(OTHER_PAUSE).await;
        }
    }

    /// Options that win over the user's configuration, as ssh takes the first value that it meets.
    fn options(&self) -> Vec<String> {
        let settings = &self.settings;
        let mut options = vec![
            format!("ControlPersist={}", settings.persist.as_secs().max(1)),
            format!("ConnectTimeout={}", settings.connect_timeout.as_secs().max(1)),
            format!("ServerAliveInterval={}", settings.alive_interval.as_secs().max(1)),
        ];
        // Forwardings and commands of the configuration belong to the user's own sessions. A log level that is quiet
        // would hide why something fails.
        let fixed = [
            "ServerAliveCountMax=3",
            "ConnectionAttempts=1",
            "ClearAllForwardings=yes",
            "StreamLocalBindUnlink=yes",
            "StreamLocalBindMask=0177",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
            "Tunnel=no",
            "LogLevel=INFO",
        ];
        options.extend(fixed.map(str::to_owned));
        options
    }

    /// Makes ssh, and the ssh that it starts for a jump host, ask nothing although orch may have a terminal.
    fn ask_nothing(&self, command: &mut tokio::process::Command) {
        command.args(["-o", "BatchMode=yes"]);
        if self.settings.interaction == Interaction::Ask {
            command.env("SSH_ASKPASS", "false").env("SSH_ASKPASS_REQUIRE", "force");
        }
    }

    fn add_host(&self, command: &mut tokio::process::Command) {
        if let Some(config) = &self.settings.config {
            command.arg("-F").arg(config);
        }
        command.args(self.address.arguments());
    }

    /// Returns all that ssh says of an attempt without a master: only then it tells a host's fingerprint, and passes on what a
    /// jump host's ssh says. Empty where that cannot be had.
    async fn verbose_attempt(&self) -> String {
        let mut command = process::ssh(&self.settings);
        command.args(["-v", "-n", "-T", "-o", "ControlPath=none"]).stderr(Stdio::piped());
        let not_here = ["LogLevel", "ControlPersist"];
        for option in self.options().iter().filter(|option| !not_here.iter().any(|name| option.starts_with(name))) {
            command.args(["-o", option]);
        }
        self.ask_nothing(&mut command);
        self.add_host(&mut command);
        command.arg("true");
        let Ok(child) = command.spawn() else { return String::new() };
        let limit = self.settings.connect_timeout + START_SLACK;
        match tokio::time::timeout(limit, child.wait_with_output()).await {
            Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).into_owned(),
            _ => String::new(),
        }
    }
}
