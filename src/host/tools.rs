//! Runs programs of the host: in its mount namespace, as the agent's own image holds nothing but orch.
//!
//! The child enters the namespace between fork and exec, so the agent itself never leaves its own. That needs the
//! host's PID namespace and the capabilities `SYS_PTRACE` (to open `/proc/1/ns/mnt`), `SYS_ADMIN` and `SYS_CHROOT` (to
//! enter it). The network namespace is whatever the caller is in: the agent's container has the host's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use super::engine_process::engine_process;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Where administrators' programs are on every distribution.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest run of a tool. `iptables` itself waits at most 5 s for its lock.
const LIMIT: Duration = Duration::from_secs(20);

/// A tool of the host that could not do its work.
#[derive(Debug, thiserror::Error)]
#[error("`{command}` failed on the host: {message}")]
pub struct ToolError {
    /// What was run.
    pub command: String,
    /// Its last words.
    pub message: String,
}

/// Runs programs of one host and reaches its files.
#[derive(Debug, Clone)]
pub struct HostTools {
    /// How to get to the host's mounts; `None`: we see them.
    elsewhere: Option<Elsewhere>,
}

#[derive(Debug, Clone)]
struct Elsewhere {
    /// Its mount namespace.
    mounts: Arc<OwnedFd>,
    /// A path that leads to its root directory.
    root: PathBuf,
}

impl HostTools {
    /// Returns the tools of the host that this container runs on.
    ///
    /// # Errors
    /// When the host's namespaces cannot be seen: no `--pid host`, or a capability is missing.
    pub fn of_host() -> io::Result<Self> {
        // Process 1 of some virtual machines lets nobody look at it; the engine sees the same mounts.
        Self::of(Path::new("/proc/1")).or_else(|error| Self::of(&engine_process().map_err(|_| error)?))
    }

    /// Returns the tools of what the process or thread with this directory in `/proc` sees.
    pub(super) fn of(process: &Path) -> io::Result<Self> {
        let mounts = Arc::new(OwnedFd::from(File::open(process.join("ns/mnt"))?));
        Ok(Self { elsewhere: Some(Elsewhere { mounts, root: process.join("root") }) })
    }

    /// Returns the tools of where this process runs itself.
    pub fn here() -> Self {
        Self { elsewhere: None }
    }

    /// Returns where this process finds the host's `path`, also what was mounted there after this process started.
    ///
    /// Absolute links on the way lead to our own files instead: use it for paths without any.
    pub fn reach(&self, path: &Path) -> PathBuf {
        match &self.elsewhere {
            None => path.to_owned(),
            Some(Elsewhere { root, .. }) => root.join(path.strip_prefix("/").unwrap_or(path)),
        }
    }

    /// Runs a program with `input` and returns what it printed.
    ///
    /// # Errors
    /// When it is not there, takes longer than 20 s (it is killed), or ends with another code than 0.
    pub async fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String, ToolError> {
        let failed = |message: String| ToolError { command: [&[program], args].concat().join(" "), message };
        let mut child = self.command(program, args).spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed("it is not installed".to_owned()),
            _ => failed(format!("it cannot be started: {error}")),
        })?;
        let stdin = child.stdin.take();
        let work = async {
            let feed = async {
                // A program that does not read has a reason, which is in what it says.
                if let Some(mut stdin) = stdin {
                    drop(stdin.write_all(input.as_bytes()).await);
                }
            };
            tokio::join!(feed, child.wait_with_output()).1
        };
        let output = tokio::time::timeout(LIMIT, work)
            .await
            .map_err(|_| failed(format!("it took longer than {} s", LIMIT.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let words: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let words = words[words.len().saturating_sub(3)..].join("; ");
        Err(failed(if words.is_empty() { output.status.to_string() } else { words }))
    }

    #[expect(clippy::disallowed_methods, reason = "this is where the host's programs are started")]
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(Elsewhere { mounts, .. }) = self.elsewhere.clone() {
            enter(&mut command, mounts);
        }
        command
    }
}

/// Makes the child enter a mount namespace before it looks for its program.
#[expect(unsafe_code, reason = "there is no other way to act between fork and exec")]
fn enter(command: &mut Command, mounts: Arc<OwnedFd>) {
    let enter = move || {
        move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
        rustix::process::chdir(c"/")?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe things may happen, as other threads may hold any lock. The
    // closure makes two system calls on values that exist already: it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(enter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_and_last_words_come_back() {
        let tools = HostTools::here();
        assert_eq!(tools.run("cat", &[], "in\n").await.expect("it runs"), "in\n");
        let error = tools.run("sh", &["-c", "echo one >&2; echo two >&2; exit 3"], "").await.expect_err("it fails");
        assert_eq!(error.message, "one; two");
        let error = tools.run("sh", &["-c", "exit 3"], "unread").await.expect_err("it fails");
        assert_eq!(error.to_string(), "`sh -c exit 3` failed on the host: exit status: 3");
        let error = tools.run("orch-no-such-tool", &[], "").await.expect_err("it is not there");
        assert_eq!(error.message, "it is not installed");
    }

    #[test]
    fn the_child_sees_the_hosts_files_and_we_do_not() {
        // This thread, with mounts of its own, stands for the agent; the process that it is of stands for the host.
        crate::host::namespace::in_new_host(async || {
            let mark = tempfile::tempdir().expect("a directory");
            let host = HostTools::of(Path::new("/proc/self")).expect("ours");
            let here = HostTools::here();
            let path = mark.path().display().to_string();
            here.run("mount", &["-t", "tmpfs", "tmpfs", &path], "").await.expect("mounted");
            let kind = ["-f", "-c", "%T", &path];
            assert_eq!(here.run("stat", &kind, "").await.expect("it runs").trim(), "tmpfs");
            assert_ne!(host.run("stat", &kind, "").await.expect("it runs").trim(), "tmpfs");
            assert_eq!(host.run("pwd", &[], "").await.expect("it runs").trim(), "/");
            here.run("umount", &[&path], "").await.expect("unmounted");
        });
    }
}
