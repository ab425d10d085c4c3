//! Names and addresses in text: `redis:6379`, `shop/db:5432`, `127.0.0.1:8080`, `*.example.com`.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::Problem;

/// Longest name of a host. Source: RFC 1035, 2.3.4.
const MAX_NAME: usize = 253;
/// Longest label of one.
const MAX_LABEL: usize = 63;

/// `HOST:PORT`, taken apart; the host without brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPort<'a> {
    pub(super) host: &'a str,
    /// Where the host is in the text.
    pub(super) range: Range<usize>,
    pub(super) port: u16,
}

/// Takes `HOST:PORT` apart. An IPv6 address stands in brackets.
pub(super) fn host_port(text: &str) -> Result<HostPort<'_>, Problem> {
    if let Some(at) = text.find("://") {
        return Err(Problem::new(format!("`{text}` is not `HOST:PORT`"), 0..at + 3));
    }
    let colon = text.rfind(':').filter(|colon| !text[*colon..].contains(']'));
    let Some(colon) = colon.filter(|colon| *colon > 0) else {
        return Err(Problem::new(format!("`{text}` says no port"), 0..text.len()));
    };
    let (host, port) = (&text[..colon], &text[colon + 1..]);
    let Some(port) = port_number(port) else {
        return Err(Problem::new(format!("`{port}` is not a port"), colon + 1..text.len()));
    };
    if let Some(bare) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Ok(HostPort { host: bare, range: 1..colon - 1, port });
    }
    if host.contains(':') {
        return Err(Problem::new(format!("`{host}` must stand in brackets"), 0..colon));
    }
    Ok(HostPort { host, range: 0..colon, port })
}

/// Reads a port: digits only, not 0.
pub(super) fn port_number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// `PORT` or `ADDRESS:PORT`; an address of all zeros is the same as `*`.
pub(super) fn listen(text: &str) -> Result<(Option<IpAddr>, u16), Problem> {
    if let Some(port) = port_number(text) {
        return Ok((None, port));
    }
    let HostPort { host, range, port } = host_port(text)?;
    match host.parse() {
        Ok(address) => Ok((Some(address), port)),
        Err(_) => Err(Problem::new(format!("`{host}` is not an IP address"), range)),
    }
}

/// As [`listen`], of a pod: IPv4 only, the loopback address where none is given.
pub(super) fn listen_in_pod(text: &str) -> Result<(Ipv4Addr, u16), Problem> {
    match listen(text)? {
        (None, port) => Ok((Ipv4Addr::LOCALHOST, port)),
        (Some(IpAddr::V4(address)), port) => Ok((address, port)),
        (Some(IpAddr::V6(address)), _) => Err(Problem::new(format!("`{address}` is not IPv4"), 0..text.len())),
    }
}

/// Checks a host's name or address as a request or a certificate has it; returns it in lower case, without a last dot.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    if name.parse::<IpAddr>().is_ok() {
        return Ok(name.to_owned());
    }
    if !name.is_ascii() {
        return Err(format!("`{text}` has letters beyond ASCII, write it as `xn--…`"));
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let valid = name.len() <= MAX_NAME && name.split('.').all(label);
    if valid { Ok(name.to_owned()) } else { Err(format!("`{text}` is not the name of a host")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let show = |text: &str| match host_port(text) {
            Ok(HostPort { host, range, port }) => format!("{host} {port} @{range:?}"),
            Err(problem) => format!("{} @{:?}", problem.message, problem.range),
        };
        for (text, expected) in [
            ("redis:6379", "redis 6379 @0..5"),
            ("shop/db:5432", "shop/db 5432 @0..7"),
            ("[::1]:80", "::1 80 @1..4"),
            ("::1:80", "`::1` must stand in brackets @0..3"),
            ("[::1]", "`[::1]` says no port @0..5"),
            ("redis", "`redis` says no port @0..5"),
            (":80", "`:80` says no port @0..3"),
            ("redis:", "`` is not a port @6..6"),
            ("redis:0", "`0` is not a port @6..7"),
            ("redis:+1", "`+1` is not a port @6..8"),
            ("redis:65536", "`65536` is not a port @6..11"),
            ("https://a:1", "`https://a:1` is not `HOST:PORT` @0..8"),
            ("", "`` says no port @0..0"),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_of_a_pod() {
        for (text, expected) in [
            ("6379", Ok("127.0.0.1:6379")),
            ("0.0.0.0:80", Ok("0.0.0.0:80")),
            ("127.0.0.2:80", Ok("127.0.0.2:80")),
            ("[::1]:80", Err("`::1` is not IPv4")),
            ("web:80", Err("`web` is not an IP address")),
            ("web", Err("`web` says no port")),
        ] {
            let shown = listen_in_pod(text).map(|(address, port)| format!("{address}:{port}"));
            assert_eq!(shown.as_deref().map_err(|problem| problem.message.as_str()), expected, "{text}");
        }
    }

    #[test]
    fn names_of_hosts() {
        for (text, expected) in [
            ("App.Example.COM.", Some("app.example.com")),
            ("a_b.local", Some("a_b.local")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("::1", Some("::1")),
            ("", None),
            ("a..b", None),
            ("-a.b", None),
            ("a b", None),
            ("a:80", None),
            ("é.example.com", None),
        ] {
            assert_eq!(host_name(text).ok().as_deref(), expected, "{text}");
        }
        assert!(host_name(&"a".repeat(64)).is_err());
        assert!(host_name(&["abcdefghi"; 26].join(".")).is_err());
    }
}
