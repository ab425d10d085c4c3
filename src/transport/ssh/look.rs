//! Small scripts that look at a host, and what their output says. They change nothing.

use std::net::IpAddr;

/// What a host is and has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLook {
    /// The address that this machine has for it.
    pub client: Option<IpAddr>,
    /// The address at which it was reached; behind a port forwarding or a jump host another than the one asked for.
    pub server: Option<IpAddr>,
    /// Name of the kernel: `Linux`.
    pub system: String,
    /// Its processor as the kernel names it: `x86_64`, `aarch64`.
    pub machine: String,
    /// Bytes that are free where engines keep images.
    pub free: Option<u64>,
}

/// Prints the client's and the server's address, the kernel, and the free kilobytes where images are kept.
/// In words that any shell takes: no quotes inside, no line break.
pub(super) const SCRIPT: &str = "echo connection $SSH_CONNECTION; echo system $(uname -s) $(uname -m); \
    echo disk $(df -Pk /var/lib/docker 2>/dev/null || df -Pk /var/lib)";

/// Reads what [`SCRIPT`] printed.
pub(super) fn parse(output: &str) -> Option<HostLook> {
    let words = |start: &str| -> Option<Vec<&str>> {
        let line = output.lines().find_map(|line| line.strip_prefix(start))?;
        Some(line.split_whitespace().collect())
    };
    let (connection, system, disk) = (words("connection")?, words("system")?, words("disk")?);
    let address = |at: usize| connection.get(at).and_then(|word| word.parse().ok());
    let [system, machine] = system[..] else { return None };
    // Size, used, available, percent, mount point are the last five. Source: POSIX, df -P.
    let free = disk.len().checked_sub(3).and_then(|at| disk[at].parse::<u64>().ok());
    Some(HostLook {
        client: address(0),
        server: address(2),
        system: system.to_owned(),
        machine: machine.to_owned(),
        free: free.map(|kilobytes| kilobytes.saturating_mul(1024)),
    })
}

/// What is at the place of a socket, as the user on the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Socket {
    Missing,
    /// The user may not write to it.
    Denied,
    /// Nobody listens.
    Deaf,
    Fine,
}

/// Returns a script that says what is at `path` (of plain letters) and who looks.
pub(super) fn socket_script(path: &str) -> String {
    // The kernel's list has the path as it was bound, often without the link that /var/run is; 00010000 is "listens".
    let file = path.rsplit('/').next().unwrap_or(path);
    format!(
        "id -un; if test ! -S {path}; then echo missing; elif test ! -w {path}; then echo denied; \
         elif grep -q \" 00010000 .*/{file}\\$\" /proc/net/unix; then echo fine; else echo deaf; fi"
    )
}

/// Reads what [`socket_script`] printed; `None`: that is not its output.
pub(super) fn parse_socket(output: &str) -> Option<(String, Socket)> {
    let mut lines = output.lines().rev();
    let socket = match lines.next()?.trim() {
        "missing" => Socket::Missing,
        "denied" => Socket::Denied,
        "deaf" => Socket::Deaf,
        "fine" => Socket::Fine,
        _ => return None,
    };
    Some((lines.next()?.trim().to_owned(), socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_read() {
        let output = "connection 10.0.0.1 42824 10.0.0.11 22\nsystem Linux x86_64\n\
                      disk Filesystem 1024-blocks Used Available Capacity Mounted on /dev/sda 100 40 60 40% /\n";
        let look = parse(output).expect("a look");
        assert_eq!((look.client, look.server), ("10.0.0.1".parse().ok(), "10.0.0.11".parse().ok()));
        assert_eq!((look.system.as_str(), look.machine.as_str(), look.free), ("Linux", "x86_64", Some(61440)));
        let bare = parse("welcome\nconnection\nsystem Linux riscv64\ndisk\n").expect("a look");
        assert_eq!((bare.client, bare.free), (None, None));
        assert_eq!(parse("This account is not available"), None);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the host's shell is a shell")]
    fn what_is_at_a_socket_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("engine.sock");
        let look = || {
            let script = socket_script(&path.to_string_lossy());
            let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            parse_socket(&text).unwrap_or_else(|| panic!("{text}")).1
        };
        assert_eq!(look(), Socket::Missing);
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        assert_eq!(look(), Socket::Fine);
        drop(listener);
        assert_eq!(look(), Socket::Deaf);
        assert_eq!(parse_socket("nologin\n"), None);
    }
}
