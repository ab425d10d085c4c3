//! What can be wrong with a host that is reached by SSH, one message and one help for each.

use std::fmt;
use std::path::PathBuf;

use crate::hosts::SshAddress;

/// Why a host could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .address)]
pub struct SshError {
    /// The host.
    pub address: Box<SshAddress>,
    /// What is wrong.
    pub problem: Problem,
    /// What ssh, or the program on the host, said about it; may be empty.
    pub detail: String,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// This machine has no `ssh`.
    NoProgram {
        /// What was looked for.
        program: PathBuf,
    },
    /// The directory of the connections' sockets cannot be used.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No connection to the host, or to the jump host before it.
    Unreachable {
        /// Why, in a few words.
        reason: String,
    },
    /// The host's name is not known.
    UnknownName {
        /// The name as ssh looked it up.
        name: String,
    },
    /// The host let none of the user's keys in.
    KeyRefused,
    /// The host's key is not in `known_hosts`.
    HostKeyUnknown {
        /// Fingerprint of the key that it showed.
        fingerprint: Option<String>,
    },
    /// The host's key is another one than in `known_hosts`.
    HostKeyChanged {
        /// Fingerprint of the key that it showed.
        fingerprint: Option<String>,
        /// The command that removes the old one.
        remove: Option<String>,
    },
    /// sshd does not forward unix sockets.
    ForwardingForbidden,
    /// No engine answers on the host.
    NoEngine {
        /// The engine's socket on the host.
        socket: String,
        /// What is there instead.
        found: Found,
    },
    /// The user may not use the engine's socket.
    NoPermission {
        /// The socket on the host.
        socket: String,
        /// The user on the host.
        user: String,
    },
    /// The disk is full.
    NoSpace,
    /// The connection ended while it was used.
    Ended,
    /// A program on the host failed.
    Command {
        /// The program.
        program: String,
        /// Its exit code.
        code: i32,
    },
    /// Something else, which only the detail says.
    Failed,
}

/// What is at the place of an engine's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A socket that nobody listens to.
    NobodyListening,
    /// Somebody who gives no answer.
    NoAnswer,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram { program } => write!(f, "the program `{}` is not installed here", program.display()),
            Self::Directory { path, reason } => write!(f, "`{}` cannot hold connections: {reason}", path.display()),
            Self::Unreachable { reason } => write!(f, "the host could not be reached: {reason}"),
            Self::UnknownName { name } => write!(f, "the name `{name}` is not known"),
            Self::KeyRefused => f.write_str("the host accepted none of your keys"),
            Self::HostKeyUnknown { fingerprint: Some(fingerprint) } => {
                write!(f, "the host's key is not known yet: {fingerprint}")
            }
            Self::HostKeyUnknown { fingerprint: None } => f.write_str("the host's key is not known yet"),
            Self::HostKeyChanged { fingerprint, .. } => {
                f.write_str("the host's key has CHANGED: it was set up anew, or somebody stands in between")?;
                fingerprint.as_ref().map_or(Ok(()), |fingerprint| write!(f, "; it is now {fingerprint}"))
            }
            Self::ForwardingForbidden => f.write_str("the host's sshd does not forward unix sockets"),
            Self::NoEngine { socket, found } => match found {
                Found::Nothing => write!(f, "there is no container engine: `{socket}` does not exist"),
                Found::NobodyListening => write!(f, "the container engine does not run: nobody listens at `{socket}`"),
                Found::NoAnswer => write!(f, "the container engine at `{socket}` does not answer"),
            },
            Self::NoPermission { socket, user } => write!(f, "the user `{user}` may not use `{socket}`"),
            Self::NoSpace => f.write_str("no space is left"),
            Self::Ended => f.write_str("the connection ended"),
            Self::Command { program, code } => write!(f, "`{program}` ended with {code}"),
            Self::Failed => f.write_str("ssh failed"),
        }
    }
}

impl SshError {
    /// Returns what to do about it.
    pub fn help(&self) -> String {
        let login = self.address.command_line();
        match &self.problem {
            Problem::NoProgram { .. } => "install OpenSSH's client (package `openssh-client` or `openssh`)".to_owned(),
            Problem::Directory { path, .. } => {
                format!("`{}` must be a directory of yours that nobody else may enter", path.display())
            }
            Problem::Unreachable { .. } => {
                format!("is the host on, does sshd run, does a firewall let you through? `{login}` must work")
            }
            Problem::UnknownName { .. } => "correct the name, or give it a `HostName` in ~/.ssh/config".to_owned(),
            Problem::KeyRefused => format!(
                "`{login}` must work without a password: `ssh-copy-id` brings your key to the host, `ssh-add` unlocks it"
            ),
            Problem::HostKeyUnknown { .. } => format!(
                "compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows on the host itself; then \
                 accept it with `{login}`, or without a terminal `{}`",
                self.keyscan()
            ),
            Problem::HostKeyChanged { remove, .. } => {
                let default = format!("ssh-keygen -R {}", self.address.host());
                format!(
                    "find out why first; if the host was set up anew: `{}`, then `{login}`",
                    remove.as_ref().unwrap_or(&default)
                )
            }
            Problem::ForwardingForbidden => "orch needs `AllowStreamLocalForwarding yes` (sshd's default, \
                and not `DisableForwarding`) in the host's sshd_config, and no `restrict` or `no-port-forwarding` \
                at the key in authorized_keys"
                .to_owned(),
            Problem::NoEngine { found: Found::Nothing, .. } => {
                "install Docker Engine on the host: https://docs.docker.com/engine/install/; or for Podman the package \
                 `podman-docker`, and `systemctl enable --now podman.socket`"
                    .to_owned()
            }
            Problem::NoEngine { .. } => "start it on the host (`systemctl start docker`); `journalctl -u docker` says \
                why it does not run"
                .to_owned(),
            Problem::NoPermission { user, .. } => format!(
                "on the host: `sudo usermod -aG docker {user}`, then here `orch` again: or reach the host as root"
            ),
            Problem::NoSpace => "free some, for example `docker image prune` and `docker builder prune`".to_owned(),
            Problem::Ended => "run the same command again: it goes on where it was".to_owned(),
            Problem::Command { .. } | Problem::Failed => format!("`{login}` may show more"),
        }
    }

    /// Returns whether the same may work later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.problem,
            Problem::Unreachable { .. }
                | Problem::Ended
                | Problem::NoEngine { found: Found::NobodyListening | Found::NoAnswer, .. }
        )
    }

    fn keyscan(&self) -> String {
        let port = self.address.port().map_or(String::new(), |port| format!("-p {port} "));
        format!("ssh-keyscan {port}{} >>~/.ssh/known_hosts", self.address.host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_which_host_what_is_wrong_and_what_to_do() {
        let error = |problem| SshError {
            address: Box::new("u@h:2222".parse().expect("an address")),
            problem,
            detail: String::new(),
        };
        for (problem, message, help) in [
            (
                Problem::Unreachable { reason: "the connection was refused".to_owned() },
                "ssh://u@h:2222: the host could not be reached: the connection was refused",
                "`ssh -p 2222 u@h` must work",
            ),
            (
                Problem::HostKeyUnknown { fingerprint: Some("SHA256:x".to_owned()) },
                "the host's key is not known yet: SHA256:x",
                "`ssh-keyscan -p 2222 h >>~/.ssh/known_hosts`",
            ),
            (Problem::HostKeyChanged { fingerprint: None, remove: None }, "CHANGED", "`ssh-keygen -R h`"),
            (
                Problem::NoPermission { socket: "/var/run/docker.sock".to_owned(), user: "u".to_owned() },
                "the user `u` may not use `/var/run/docker.sock`",
                "usermod -aG docker u",
            ),
        ] {
            let error = error(problem);
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.help().contains(help), "{}", error.help());
        }
    }
}
