//! Addresses of hosts, checked once: what ends up among the arguments of `ssh` can be no option of it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a host. Source: RFC 1035, 2.3.4.
const LONGEST_HOST: usize = 253;
/// Longest name of a user; more than any system takes.
const LONGEST_USER: usize = 256;

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {reason}")]
pub struct InvalidAddress {
    /// What it was to be.
    pub kind: &'static str,
    /// The text as given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl InvalidAddress {
    /// Returns what a good address over SSH looks like.
    pub const HELP: &'static str = "an address looks like `ssh://user@host:port`, where user and port may be left out; \
                                    the host may be a name of ~/.ssh/config";
}

/// Where a host is reached by SSH: `ssh://user@host:port`, user and port optional.
///
/// The host may be an alias of the user's ssh configuration. `Display` gives the form with `ssh://`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SshAddress {
    user: Option<String>,
    host: String,
    port: Option<NonZeroU16>,
}

impl SshAddress {
    /// Returns the user; `None`: whom ssh's configuration says.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the host without brackets: a name, an alias of ssh's configuration or an IP address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port; `None`: what ssh's configuration says.
    pub fn port(&self) -> Option<u16> {
        self.port.map(NonZeroU16::get)
    }

    /// Returns the arguments by which `ssh` reaches it: `-p 2222 -l user -- host`.
    pub fn arguments(&self) -> Vec<String> {
        let port = self.port.into_iter().flat_map(|port| ["-p".to_owned(), port.to_string()]);
        let user = self.user.iter().flat_map(|user| ["-l".to_owned(), user.clone()]);
        port.chain(user).chain(["--".to_owned(), self.host.clone()]).collect()
    }

    /// Returns the same as somebody would type it: `ssh -p 2222 user@host`.
    pub fn command_line(&self) -> String {
        let port = self.port.map_or(String::new(), |port| format!("-p {port} "));
        let user = self.user.as_ref().map_or(String::new(), |user| format!("{user}@"));
        format!("ssh {port}{user}{}", self.host)
    }
}

impl FromStr for SshAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        parse(text).map_err(|reason| InvalidAddress { kind: "address of a host", text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<SshAddress, String> {
    let rest = match text.split_once("://") {
        Some(("ssh", rest)) => rest,
        Some((scheme, _)) => return Err(format!("hosts are reached by `ssh://`, not by `{scheme}://`")),
        None => text,
    };
    if rest.is_empty() {
        return Err("it names no host".to_owned());
    }
    if rest.contains(['/', '?', '#']) {
        return Err("it must end after host and port, without a path".to_owned());
    }
    // As ssh does it: names of users may have an `@`.
    let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    user.map_or(Ok(()), check_user)?;
    let (host, port) = host_and_port(rest)?;
    check_host(host)?;
    let number = |port: &str| Some(port).filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?.parse().ok();
    let port = port.map(|port| number(port).ok_or_else(|| format!("`{port}` is not a port from 1 to 65535")));
    Ok(SshAddress { user: user.map(str::to_owned), host: host.to_owned(), port: port.transpose()? })
}

fn host_and_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(inner) = text.strip_prefix('[') {
        let (host, after) = inner.split_once(']').ok_or("the bracket is not closed")?;
        let plain = host.split('%').next().unwrap_or_default();
        plain.parse::<Ipv6Addr>().map_err(|_| format!("`{plain}` is not an IPv6 address"))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(format!("`{after}` stands behind the bracket")),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Err("an IPv6 address must be in brackets: `[2001:db8::1]`".to_owned()),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn check_user(user: &str) -> Result<(), String> {
    if user.contains(':') {
        return Err("a password cannot be part of it; use a key or an agent".to_owned());
    }
    check_word("user", user, LONGEST_USER, |c| matches!(c, '.' | '_' | '-' | '+' | '@' | '\\'))
}

fn check_host(host: &str) -> Result<(), String> {
    check_word("host", host, LONGEST_HOST, |c| matches!(c, '.' | '_' | '-' | ':' | '%'))
}

/// Lets nothing pass that could be an option of ssh or mean something to a shell: a `ProxyCommand` may hold both.
fn check_word(what: &str, word: &str, longest: usize, also: fn(char) -> bool) -> Result<(), String> {
    if word.is_empty() {
        return Err(format!("it names no {what}"));
    }
    if word.starts_with('-') {
        return Err(format!("the {what} must not begin with `-`"));
    }
    if word.len() > longest {
        return Err(format!("the {what} is longer than {longest} letters"));
    }
    match word.chars().find(|&c| !c.is_ascii_alphanumeric() && !also(c)) {
        Some(c) => Err(format!("the {what} must not hold {c:?}")),
        None => Ok(()),
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Where other hosts reach a host: an IP address or a name that all of them can look up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PeerAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A name.
    Name(String),
}

impl FromStr for PeerAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let name = check_word("host", text, LONGEST_HOST, |c| matches!(c, '.' | '_' | '-'));
        name.map(|()| Self::Name(text.to_owned())).map_err(|reason| InvalidAddress {
            kind: "address for other hosts",
            text: text.to_owned(),
            reason,
        })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Text is how both are written in files.
macro_rules! as_text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = InvalidAddress;
            fn try_from(text: String) -> Result<Self, InvalidAddress> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(address: $type) -> Self {
                address.to_string()
            }
        }
    };
}
as_text!(SshAddress);
as_text!(PeerAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, printed, arguments) in [
            ("ssh://deploy@203.0.113.10", "ssh://deploy@203.0.113.10", "-l deploy -- 203.0.113.10"),
            ("deploy@203.0.113.11:2222", "ssh://deploy@203.0.113.11:2222", "-p 2222 -l deploy -- 203.0.113.11"),
            ("build-box", "ssh://build-box", "-- build-box"),
            ("ssh://a.example.com:22", "ssh://a.example.com:22", "-p 22 -- a.example.com"),
            ("ssh://u@[2001:db8::1]:22", "ssh://u@[2001:db8::1]:22", "-p 22 -l u -- 2001:db8::1"),
            ("[fe80::1%eth0]", "ssh://[fe80::1%eth0]", "-- fe80::1%eth0"),
            ("ann@corp.example@host", "ssh://ann@corp.example@host", "-l ann@corp.example -- host"),
        ] {
            let address: SshAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), printed);
            assert_eq!(address.arguments().join(" "), arguments);
            assert_eq!(address.to_string().parse::<SshAddress>().as_ref(), Ok(&address), "printed, it reads the same");
            let json = serde_json::to_string(&address).expect("text");
            assert_eq!(serde_json::from_str::<SshAddress>(&json).expect("read back"), address);
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, reason) in [
            ("", "it names no host"),
            ("ssh://", "it names no host"),
            ("u@", "it names no host"),
            ("@host", "it names no user"),
            ("-oProxyCommand=id", "the host must not begin with `-`"),
            ("ssh://-oProxyCommand=id", "the host must not begin with `-`"),
            ("-x@host", "the user must not begin with `-`"),
            ("host/path", "without a path"),
            ("ssh://host/", "without a path"),
            ("tcp://host:2375", "not by `tcp://`"),
            ("host:0", "`0` is not a port"),
            ("host:", "`` is not a port"),
            ("host:70000", "`70000` is not a port"),
            ("host:+22", "`+22` is not a port"),
            ("2001:db8::1", "must be in brackets"),
            ("[2001:db8::1", "not closed"),
            ("[host]", "not an IPv6 address"),
            ("[::1]22", "stands behind the bracket"),
            ("user:secret@host", "a password cannot be part"),
            ("ho st", "must not hold ' '"),
            ("host\n", "must not hold '\\n'"),
            ("$(id)", "must not hold '$'"),
            ("a`id`@host", "must not hold '`'"),
        ] {
            let error = text.parse::<SshAddress>().expect_err(text);
            assert!(error.reason.contains(reason), "{text:?}: {error}");
        }
        assert!("a".repeat(300).parse::<SshAddress>().is_err());
    }

    #[test]
    fn other_hosts_reach_an_ip_address_or_a_name() {
        assert_eq!("10.0.0.1".parse(), Ok(PeerAddress::Ip([10, 0, 0, 1].into())));
        assert_eq!("a.internal".parse(), Ok(PeerAddress::Name("a.internal".to_owned())));
        for bad in ["", "-a", "a b", "a:1"] {
            assert!(bad.parse::<PeerAddress>().is_err(), "{bad}");
        }
    }
}
