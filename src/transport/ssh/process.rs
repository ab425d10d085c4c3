//! Runs `ssh`. With [`start`](super::master) the only place that does.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::SshSettings;

/// Longest that a request to the master, or a small program on the host, may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What a run of ssh gave.
#[derive(Debug)]
pub(super) struct Output {
    /// `None`: ended by a signal.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Output {
    pub(super) fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Why there was no run.
#[derive(Debug)]
pub(super) enum NotRun {
    NoProgram,
    TooLong,
    Other(io::Error),
}

impl From<io::Error> for NotRun {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::NoProgram } else { Self::Other(error) }
    }
}

/// Returns `ssh` with English messages, nothing to read, and ended when orch drops it.
#[expect(clippy::disallowed_methods, reason = "this is where ssh is started")]
pub(super) fn ssh(settings: &SshSettings) -> Command {
    let mut command = Command::new(&settings.program);
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// Returns arguments that reach the master at `control` and nothing else: no configuration, whose forwardings would be
/// asked for too, and no connection of its own where the master is gone.
fn through(control: &Path) -> Vec<OsString> {
    let fixed = ["-F", "/dev/null", "-T", "-o", "ProxyCommand=false", "-o", "ControlMaster=no", "-o", "BatchMode=yes"];
    let mut arguments: Vec<OsString> = fixed.iter().map(OsString::from).collect();
    arguments.extend(["-o", "LogLevel=ERROR", "-S"].map(OsString::from));
    arguments.push(escaped(control));
    arguments
}

/// ssh expands `%` in the path of the control socket.
pub(super) fn escaped(path: &Path) -> OsString {
    OsString::from(path.to_string_lossy().replace('%', "%%"))
}

/// The host that the master is asked for; it knows only one.
const THE_HOST: &str = "orch";

/// Asks the master at `control` for something: `forward`, `cancel`, `exit`.
pub(super) async fn control(
    settings: &SshSettings,
    control: &Path,
    what: &str,
    arguments: &[&str],
) -> Result<Output, NotRun> {
    let mut command = ssh(settings);
    command.args(through(control)).args(["-O", what]).args(arguments).arg(THE_HOST);
    finish(command, LIMIT).await
}

/// Runs a shell's line on the host.
pub(super) async fn session(settings: &SshSettings, control: &Path, line: &str) -> Result<Output, NotRun> {
    let mut command = ssh(settings);
    command.args(through(control)).arg(THE_HOST).arg(OsStr::new(line));
    finish(command, LIMIT).await
}

async fn finish(mut command: Command, limit: Duration) -> Result<Output, NotRun> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = tokio::time::timeout(limit, child.wait_with_output()).await.map_err(|_| NotRun::TooLong)??;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Returns the line by which a shell gets exactly these words.
pub(crate) fn quoted(argv: &[impl AsRef<str>]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | ',' | '=' | '@' | '+');
    let quote = |word: &str| {
        if !word.is_empty() && word.chars().all(plain) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    argv.iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a shell reads what was quoted")]
    async fn a_shell_reads_quoted_words_as_they_were() {
        let words = ["plain", "", "a b", "it's", "$(id) `id` \\ \"x\" *", "new\nline", "-o"];
        let line = format!("printf '<%s>' {}", quoted(&words));
        let output = Command::new("sh").args(["-c", &line]).output().await.expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("<{}>", words.join("><")));
        assert_eq!(quoted(&["df", "-Pk", "/var"]), "df -Pk /var");
    }
}
