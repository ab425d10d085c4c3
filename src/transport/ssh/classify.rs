//! From ssh's words to what is wrong. Its exit code is 255 for everything; the words are those of OpenSSH 7.4 to 10 with
//! `LC_ALL=C`.

use super::error::Problem;

/// Returns what is wrong, by what `ssh` said on standard error and in its log.
///
/// With a jump host two programs speak, the jump's first: so the most telling line decides, wherever it stands.
pub(super) fn classify(said: &str) -> Problem {
    let says = |words: &[&str]| words.iter().any(|&words| said.contains(words));
    if says(&["REMOTE HOST IDENTIFICATION HAS CHANGED", "REVOKED HOST KEY DETECTED"]) {
        return Problem::HostKeyChanged { fingerprint: fingerprint(said), remove: remove_with(said) };
    }
    if says(&["Host key verification failed", "host key is known for"]) {
        return Problem::HostKeyUnknown { fingerprint: None };
    }
    if says(&["Permission denied (", "Too many authentication failures", "No supported authentication methods"]) {
        return Problem::KeyRefused;
    }
    if let Some((_, rest)) = said.split_once("Could not resolve hostname ") {
        return Problem::UnknownName { name: rest.split(':').next().unwrap_or_default().trim().to_owned() };
    }
    if says(&["No space left on device", "Disk quota exceeded"]) {
        return Problem::NoSpace;
    }
    if let Some(reason) = unreachable_because(said) {
        return Problem::Unreachable { reason };
    }
    if says(&["administratively prohibited", "unknown channel type"]) {
        return Problem::ForwardingForbidden;
    }
    Problem::Failed
}

/// Returns the fingerprint that the host showed.
pub(super) fn fingerprint(said: &str) -> Option<String> {
    let words = said.split_whitespace().filter(|word| word.starts_with("SHA256:") || word.starts_with("MD5:"));
    words.map(|word| word.trim_end_matches('.').to_owned()).next()
}

/// Returns the fingerprint in the output of `ssh -v`.
pub(super) fn fingerprint_seen(verbose: &str) -> Option<String> {
    verbose.lines().filter(|line| line.contains("Server host key:")).find_map(fingerprint)
}

/// Returns the output of `ssh -v` without what only `-v` adds; `None`: nothing is left.
pub(super) fn without_debug(verbose: &str) -> Option<String> {
    let added = |line: &&str| line.starts_with("debug") || line.starts_with("OpenSSH_") || line.trim().is_empty();
    let left: Vec<&str> = verbose.lines().filter(|line| !added(line)).collect();
    (!left.is_empty()).then(|| left.join("\n"))
}

/// Returns the command by which ssh says that the old key is removed.
fn remove_with(said: &str) -> Option<String> {
    let mut lines = said.lines().skip_while(|line| !line.trim().starts_with("remove with:")).skip(1);
    lines.next().map(|line| line.trim().to_owned()).filter(|line| line.starts_with("ssh-keygen"))
}

/// Why there is no connection, in one form for all ways to say it.
fn unreachable_because(said: &str) -> Option<String> {
    let after = |start: &str| {
        let line = said.lines().find(|line| line.contains(start))?;
        line.rsplit_once(": ").map(|(_, reason)| reason.trim().to_owned())
    };
    let reason = after("connect to host ").or_else(|| after("connect failed: "));
    match reason.as_deref() {
        Some("Connection refused") => return Some("the connection was refused".to_owned()),
        Some(reason) if reason.ends_with("timed out") => return Some("it did not answer in time".to_owned()),
        // Said of a unix socket: nothing about the connection itself.
        Some("open failed") | None => {}
        Some(reason) => return Some(reason.to_lowercase()),
    }
    let closed = ["Connection closed by", "Connection reset", "kex_exchange_identification", "Broken pipe"];
    if said.contains("timed out") {
        Some("it did not answer in time".to_owned())
    } else if closed.iter().any(|words| said.contains(words)) {
        Some("it closed the connection".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGED: &str = "\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
The fingerprint for the ED25519 key sent by the remote host is
SHA256:DsJV5Cp8sOIkGF2ilB1UkdWYbyyYJHdA47ATQLTr5WI.
Please contact your system administrator.
Add correct host key in /root/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /root/.ssh/known_hosts:1
  remove with:
  ssh-keygen -f \"/root/.ssh/known_hosts\" -R \"10.90.0.11\"
Host key for 10.90.0.11 has changed and you have requested strict checking.
Host key verification failed.";

    fn unreachable(reason: &str) -> Problem {
        Problem::Unreachable { reason: reason.to_owned() }
    }

    #[test]
    fn real_words_of_ssh_are_understood() {
        let unknown = || Problem::HostKeyUnknown { fingerprint: None };
        let changed = Problem::HostKeyChanged {
            fingerprint: Some("SHA256:DsJV5Cp8sOIkGF2ilB1UkdWYbyyYJHdA47ATQLTr5WI".to_owned()),
            remove: Some("ssh-keygen -f \"/root/.ssh/known_hosts\" -R \"10.90.0.11\"".to_owned()),
        };
        for (said, expected) in [
            (
                "ssh: connect to host 10.0.0.1 port 22: Connection refused\r\n",
                unreachable("the connection was refused"),
            ),
            ("ssh: connect to host 10.0.0.1 port 22: Connection timed out", unreachable("it did not answer in time")),
            ("ssh: connect to host 10.0.0.1 port 22: Operation timed out", unreachable("it did not answer in time")),
            ("ssh: connect to host 10.0.0.1 port 22: No route to host", unreachable("no route to host")),
            ("ssh: connect to host h port 22: Network is unreachable", unreachable("network is unreachable")),
            (
                "Connection timed out during banner exchange\nConnection to 10.91.0.77 port 22 timed out",
                unreachable("it did not answer in time"),
            ),
            (
                "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 10.0.0.1 port 22",
                unreachable("it closed the connection"),
            ),
            // Through a jump host: its ssh speaks first.
            (
                "ssh: connect to host jump port 2222: Connection refused\n\
                 kex_exchange_identification: Connection closed by remote host\n\
                 Connection closed by UNKNOWN port 65535",
                unreachable("the connection was refused"),
            ),
            (
                "channel 0: open failed: connect failed: No route to host\nstdio forwarding failed\n\
                 kex_exchange_identification: Connection closed by remote host",
                unreachable("no route to host"),
            ),
            ("Host key verification failed.\nConnection closed by UNKNOWN port 65535", unknown()),
            (
                "ssh: Could not resolve hostname no-such.invalid: Name or service not known",
                Problem::UnknownName { name: "no-such.invalid".to_owned() },
            ),
            ("root@10.0.0.1: Permission denied (publickey,keyboard-interactive).", Problem::KeyRefused),
            ("Permission denied (publickey).", Problem::KeyRefused),
            (
                "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\n\
                 Disconnected from 10.0.0.1 port 22",
                Problem::KeyRefused,
            ),
            ("Host key verification failed.", unknown()),
            (
                "No ED25519 host key is known for 10.0.0.1 and you have requested strict checking.\n\
                 Host key verification failed.",
                unknown(),
            ),
            (CHANGED, changed),
            ("channel 1: open failed: administratively prohibited: open failed", Problem::ForwardingForbidden),
            ("channel 1: open failed: unknown channel type: unsupported channel type", Problem::ForwardingForbidden),
            ("unix_listener: cannot bind to path /tmp/x: No space left on device", Problem::NoSpace),
            ("/root/.ssh/config: line 1: Bad configuration option: foo", Problem::Failed),
            ("Load key \"/root/.ssh/id\": Permission denied\n", Problem::Failed),
            ("channel 1: open failed: connect failed: open failed", Problem::Failed),
            ("", Problem::Failed),
        ] {
            assert_eq!(classify(said), expected, "{said}");
        }
    }

    #[test]
    fn the_fingerprint_is_that_of_the_server() {
        let verbose = "debug1: identity file /root/.ssh/id SHA256:mine\n\
                       debug1: Server host key: ssh-ed25519 SHA256:theirs\nHost key verification failed.";
        assert_eq!(fingerprint_seen(verbose).as_deref(), Some("SHA256:theirs"));
        assert_eq!(without_debug(verbose).as_deref(), Some("Host key verification failed."));
        assert_eq!(fingerprint_seen("kex_exchange_identification: closed"), None);
        assert_eq!(without_debug("OpenSSH_9.2p1, OpenSSL 3.0\r\ndebug1: x\r\n"), None);
    }
}
