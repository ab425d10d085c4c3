//! SSH keys for a build that names files: they are in an agent of their own, `ssh-agent` as the system has it, which ends with
//! the build. So a build never gets a key, and a key that `ssh` can read is one that can be used.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

/// Longest that an agent may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A program of OpenSSH does not run.
    #[error("{program} could not be run: {source}")]
    NoProgram {
        /// Which.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is no key, or one with a passphrase.
    #[error("the SSH key `{}` cannot be used: {said} (one with a passphrase: `ssh-add` it to your agent, and name no file)", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The words of OpenSSH.
        said: String,
    },
    /// The disk.
    #[error("`{}` could not be made: {source}", .path.display())]
    Disk {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An agent that has some keys. It ends when this is dropped.
#[derive(Debug)]
pub struct KeyAgent {
    directory: PathBuf,
    socket: PathBuf,
    _agent: Child,
}

impl KeyAgent {
    /// Starts an agent and gives it the keys in these files.
    ///
    /// # Errors
    /// When a file has no key that can be used without asking, or OpenSSH is not there.
    #[expect(clippy::disallowed_methods, reason = "OpenSSH's own programs, as `ssh` is")]
    pub async fn with(keys: &[PathBuf]) -> Result<Self, KeyError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for key in keys {
            // Without a passphrase; nobody is asked for one.
            let mut check = Command::new("ssh-keygen");
            check.args(["-y", "-P", "", "-f"]).arg(key);
            run("ssh-keygen", check, key).await?;
        }
        let name = format!("orch-keys-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        let made = DirBuilder::new().mode(0o700).create(&directory);
        made.map_err(|source| KeyError::Disk { path: directory.clone(), source })?;
        let socket = directory.join("agent");
        let started = start(&socket).await;
        let agent = started.inspect_err(|_| drop(std::fs::remove_dir_all(&directory)))?;
        let agent = Self { directory, socket, _agent: agent };
        for key in keys {
            let mut add = Command::new("ssh-add");
            add.arg("-q").arg(key).env("SSH_AUTH_SOCK", &agent.socket);
            run("ssh-add", add, key).await?;
        }
        Ok(agent)
    }

    /// Returns the path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::debug!(path = %self.directory.display(), %error, "an agent's directory stays");
        }
    }
}

/// It says where it listens once it does.
#[expect(clippy::disallowed_methods, reason = "OpenSSH's own program, as `ssh` is")]
async fn start(socket: &Path) -> Result<Child, KeyError> {
    let no_agent = |source| KeyError::NoProgram { program: "ssh-agent", source };
    let mut command = Command::new("ssh-agent");
    command.arg("-D").arg("-a").arg(socket).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut agent = command.kill_on_drop(true).spawn().map_err(no_agent)?;
    let mut said = agent.stdout.take().ok_or_else(|| no_agent(io::ErrorKind::BrokenPipe.into()))?;
    let mut word = [0; 64];
    let begun = tokio::time::timeout(LISTENS_WITHIN, said.read(&mut word)).await;
    match begun {
        Ok(Ok(1..)) => Ok(agent),
        Ok(Err(source)) => Err(no_agent(source)),
        Ok(Ok(0)) | Err(_) => Err(no_agent(io::Error::other("it does not listen"))),
    }
}

async fn run(program: &'static str, mut command: Command, key: &Path) -> Result<(), KeyError> {
    command.stdin(Stdio::null()).env("SSH_ASKPASS_REQUIRE", "never").env_remove("DISPLAY").kill_on_drop(true);
    let done = command.output().await.map_err(|source| KeyError::NoProgram { program, source })?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let said = said.trim().lines().last().unwrap_or_default().to_owned();
    Err(KeyError::Key { path: key.to_owned(), said })
}
