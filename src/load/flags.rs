//! Texts of flags that mean what they mean in a compose file: ports, commands, files with variables.

use std::net::IpAddr;

use crate::diag::Diagnostics;

use super::dotenv;
use super::long::ports;
use super::report::Report;
use super::words;

/// A port to be published, as a flag says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagPort {
    /// Address on the host; `None`: all.
    pub host_ip: Option<IpAddr>,
    /// Ports on the host that may be taken, first to last; `None`: any free one.
    pub published: Option<(u16, u16)>,
    /// Port in the container.
    pub target: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
}

/// Reads `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]`, a port for each of a range.
///
/// # Errors
/// What is wrong with it, for the reader.
pub fn port(text: &str) -> Result<Vec<FlagPort>, String> {
    let short = ports::parse(text).map_err(|(message, _)| message)?;
    let paired = short.target.len() > 1;
    let one = |(index, target): (usize, u16)| {
        let range = short.published.as_ref().filter(|range| *range.start() > 0);
        let published = range.map(|range| match range.clone().nth(index) {
            Some(port) if paired => (port, port),
            _ => (*range.start(), *range.end()),
        });
        let host_ip = short.address.and_then(|address| address.parse().ok());
        FlagPort { host_ip, published, target, protocol: short.protocol.clone() }
    };
    Ok(short.target.clone().enumerate().map(one).collect())
}

/// Splits a command into words as a shell would, without running one.
///
/// # Errors
/// What is wrong with it, for the reader.
pub fn command(text: &str) -> Result<Vec<String>, String> {
    words::split(text).map_err(|error| error.to_string())
}

/// Reads the variables of a file, in its order; those that it refers to are looked up.
///
/// # Errors
/// All that is wrong with it, with its places.
pub fn env_file(
    name: &str,
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Diagnostics> {
    let mut report = Report::default();
    let source = report.sources.add(name, text);
    let pairs = dotenv::parse(source, lookup, &mut report);
    if report.failed() { Err(report.finish()) } else { Ok(pairs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_flags() {
        let show = |text: &str| match port(text) {
            Ok(ports) => {
                let show = |port: &FlagPort| {
                    let ip = port.host_ip.map_or("*".to_owned(), |ip| ip.to_string());
                    let published = port.published.map_or("-".to_owned(), |(first, last)| format!("{first}-{last}"));
                    format!("{ip} {published} {}/{}", port.target, port.protocol)
                };
                ports.iter().map(show).collect::<Vec<_>>().join(", ")
            }
            Err(message) => message,
        };
        for (text, expected) in [
            ("80", "* - 80/tcp"),
            ("0:80", "* - 80/tcp"),
            ("127.0.0.1:8080:80/udp", "127.0.0.1 8080-8080 80/udp"),
            ("8000-8010:80", "* 8000-8010 80/tcp"),
            ("8080-8081:80-81", "* 8080-8080 80/tcp, * 8081-8081 81/tcp"),
            ("x:80", "`x` is not a published port or range of ports"),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }

    #[test]
    fn files_and_commands_of_flags() {
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let pairs = env_file("x.env", "A=1\n# no\nB=\"${HOME}/$A\"\n", &lookup).expect("variables");
        assert_eq!(pairs, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "/root/1".to_owned())]);
        let wrong = env_file("x.env", "A='\n", &lookup).expect_err("a quote without an end").to_string();
        assert!(wrong.contains("x.env:1:"), "{wrong}");
        assert_eq!(command("sh -c 'a b'").expect("words"), ["sh", "-c", "a b"]);
        assert!(command("a | b").is_err());
    }
}
