//! Which hosts a command works on. Pure values: an entry per host, and the one list that flags, compose file and the
//! user's hosts file make together. Start at [`inventory`].

mod address;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::diag::did_you_mean;
use crate::ids::{HostName, InvalidName};

pub use address::{InvalidAddress, PeerAddress, SshAddress};

/// Longest name of a host, and longest word of it between dots.
const LONGEST_NAME: usize = 190;
const LONGEST_WORD: usize = 63;

/// A host by name, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// Its name; never `local`, which is the local engine's host.
    pub name: HostName,
    /// Where SSH finds it.
    pub reach: SshAddress,
    /// Where the other hosts find it; `None`: where SSH does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<PeerAddress>,
    /// Labels, for constraints such as `node.labels.disk == ssd`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl HostEntry {
    /// Returns a host with nothing but a name and where SSH finds it.
    pub fn new(name: HostName, reach: SshAddress) -> Self {
        Self { name, reach, address: None, labels: BTreeMap::new() }
    }
}

/// Checks the name of a host that is reached by SSH.
///
/// # Errors
/// When it is no name of a host, or `local`.
pub fn host_name(text: &str) -> Result<HostName, InvalidName> {
    let name = HostName::new(text)?;
    let refused = |rule| Err(InvalidName { kind: "host name", text: text.to_owned(), rule });
    if name == HostName::local() {
        return refused("it is the name of the host that runs the local engine");
    }
    if text.starts_with('-') {
        return refused("it must not begin with `-`");
    }
    // Certificates name hosts as parts of DNS names, with the cluster's domain behind. Source: RFC 1035, section 2.3.4.
    let is_word =
        |word: &str| (1..=LONGEST_WORD).contains(&word.len()) && !word.starts_with('-') && !word.ends_with('-');
    if text.len() > LONGEST_NAME || !text.split('.').all(is_word) {
        return refused(
            "it must be at most 190 letters long, in words of 1 to 63 letters with dots between them, which neither begin \
             nor end with a hyphen",
        );
    }
    Ok(name)
}

/// The value of `--host`: `NAME=ssh://…`, or the `NAME` of a host that a file describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFlag {
    /// The name.
    pub name: HostName,
    /// Where it is; `None`: a file says so.
    pub reach: Option<SshAddress>,
}

/// Why the value of `--host` is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHostFlag {
    /// The name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The address.
    #[error("{0}; {help}", help = InvalidAddress::HELP)]
    Address(#[from] InvalidAddress),
    /// An address alone.
    #[error("`{0}` has no name: write `NAME={0}`")]
    Nameless(String),
}

impl FromStr for HostFlag {
    type Err = InvalidHostFlag;

    fn from_str(text: &str) -> Result<Self, InvalidHostFlag> {
        match text.split_once('=') {
            Some((name, reach)) => Ok(Self { name: host_name(name)?, reach: Some(reach.parse()?) }),
            None if text.contains("://") || text.contains('@') => Err(InvalidHostFlag::Nameless(text.to_owned())),
            None => Ok(Self { name: host_name(text)?, reach: None }),
        }
    }
}

/// Where hosts may be named, the strongest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// `--host`, in the order given.
    pub flags: &'a [HostFlag],
    /// `x-hosts` of the compose files.
    pub file: &'a [HostEntry],
    /// The user's hosts file.
    pub user: &'a [HostEntry],
}

/// Why there is no inventory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// `--host NAME` of a name that no file describes.
    #[error("no host `{name}` is known")]
    Unknown {
        /// The name.
        name: HostName,
        /// A known one that is almost the same.
        similar: Option<String>,
    },
    /// One name is there twice.
    #[error("`{0}` is named twice")]
    Twice(HostName),
    /// Two names for one address: the host would be counted twice.
    #[error("`{first}` and `{second}` are both {reach}")]
    SameAddress {
        /// One.
        first: HostName,
        /// The other.
        second: HostName,
        /// The address of both.
        reach: Box<SshAddress>,
    },
    /// Two hosts have one engine, or a copy of it.
    #[error("host `{host}` is not added: its engine has the id of that of `{other}`, {id}")]
    SameEngine {
        /// The host that was to be added.
        host: HostName,
        /// The one that has it already.
        other: HostName,
        /// The engine's id.
        id: String,
    },
}

impl InventoryError {
    /// Returns what to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Unknown { similar: Some(similar), .. } => format!("did you mean `{similar}`?"),
            Self::Unknown { name, .. } => format!("say where it is: `--host {name}=ssh://user@host`"),
            Self::Twice(_) => "give each host once".to_owned(),
            Self::SameAddress { .. } => "one host has one name: leave one of them out".to_owned(),
            Self::SameEngine { host, other, id: _ } => format!(
                "where `{host}` is a copy of `{other}`, let its engine make an id of its own: on `{host}`, remove \
                 /var/lib/docker/engine-id (before Docker 24: /etc/docker/key.json), restart the engine, and run the same command \
                 again; where both are one machine, leave one out"
            ),
        }
    }
}

/// Returns the hosts to work on, in order; empty: the local engine alone.
///
/// The strongest source that names any host decides which: `--host`, else `x-hosts`, else the user's hosts file. So a
/// file that names its hosts never runs on others that the user happens to have. What a stronger source leaves open about
/// one of its hosts (address for others, labels, for a flag also where it is) comes from the weaker ones.
///
/// # Errors
/// [`InventoryError`].
pub fn inventory(sources: &Sources<'_>) -> Result<Vec<HostEntry>, InventoryError> {
    let Sources { flags, file, user } = *sources;
    let entries = if flags.is_empty() {
        let (own, weaker): (_, &[HostEntry]) = if file.is_empty() { (user, &[]) } else { (file, user) };
        own.iter().map(|entry| filled(entry.clone(), find(weaker, &entry.name))).collect()
    } else {
        flags.iter().map(|flag| named(flag, file, user)).collect::<Result<Vec<_>, _>>()?
    };
    check_distinct(&entries)?;
    Ok(entries)
}

fn find<'a>(entries: &'a [HostEntry], name: &HostName) -> Option<&'a HostEntry> {
    entries.iter().find(|entry| entry.name == *name)
}

/// The host of a flag.
fn named(flag: &HostFlag, file: &[HostEntry], user: &[HostEntry]) -> Result<HostEntry, InventoryError> {
    let HostFlag { name, reach } = flag;
    let (first, second) = (find(file, name), find(user, name));
    match (reach, first.or(second)) {
        (Some(reach), _) => {
            let entry = filled(HostEntry::new(name.clone(), reach.clone()), first);
            Ok(filled(entry, second))
        }
        (None, Some(known)) => Ok(filled(known.clone(), second)),
        (None, None) => {
            let known: BTreeSet<&str> = file.iter().chain(user).map(|entry| entry.name.as_str()).collect();
            let similar = did_you_mean(name.as_str(), known).map(str::to_owned);
            Err(InventoryError::Unknown { name: name.clone(), similar })
        }
    }
}

/// Takes from `weaker` what `entry` leaves open.
fn filled(entry: HostEntry, weaker: Option<&HostEntry>) -> HostEntry {
    let Some(HostEntry { name: _, reach: _, address, labels }) = weaker else { return entry };
    let labels = labels.iter().map(|(key, value)| (key.clone(), value.clone())).chain(entry.labels).collect();
    HostEntry { address: entry.address.or_else(|| address.clone()), labels, ..entry }
}

fn check_distinct(entries: &[HostEntry]) -> Result<(), InventoryError> {
    for (index, entry) in entries.iter().enumerate() {
        let earlier = &entries[..index];
        if find(earlier, &entry.name).is_some() {
            return Err(InventoryError::Twice(entry.name.clone()));
        }
        if let Some(same) = earlier.iter().find(|other| other.reach == entry.reach) {
            let (first, second) = (same.name.clone(), entry.name.clone());
            return Err(InventoryError::SameAddress { first, second, reach: Box::new(entry.reach.clone()) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries from `name reach address label=value…`, one a line.
    fn entries(text: &str) -> Vec<HostEntry> {
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            let mut next = || words.next().expect("a word");
            let name = host_name(next()).expect("a name");
            let reach = next().parse().expect("an address");
            let address = Some(next()).filter(|&word| word != "-").map(|word| word.parse().expect("an address"));
            let labels = words.filter_map(|word| word.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
            HostEntry { name, reach, address, labels: labels.collect() }
        };
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(entry).collect()
    }

    fn flags(text: &str) -> Vec<HostFlag> {
        text.split_whitespace().map(|flag| flag.parse().expect("a flag")).collect()
    }

    #[track_caller]
    fn check(flag: &str, file: &str, user: &str, expected: Result<&str, &str>) {
        let (flags, file, user) = (flags(flag), entries(file), entries(user));
        let got = inventory(&Sources { flags: &flags, file: &file, user: &user });
        match expected {
            Ok(expected) => assert_eq!(got.expect("an inventory"), entries(expected)),
            Err(message) => assert_eq!(got.expect_err("none").to_string(), message),
        }
    }

    #[test]
    fn the_strongest_source_decides_and_weaker_ones_fill_in() {
        check("", "", "", Ok(""));
        check("", "", "b h2 - \n a h1 -", Ok("b h2 - \n a h1 -"));
        check("", "a h1 -", "b h2 -", Ok("a h1 -"));
        check("", "a h1 - disk=hdd", "a h9 10.0.0.1 disk=ssd rack=2", Ok("a h1 10.0.0.1 disk=hdd rack=2"));
        check("b", "a h1 -", "b h2 - x=y", Ok("b h2 - x=y"));
        check("b a", "a h1 -", "b h2 -", Ok("b h2 - \n a h1 -"));
        check("a=u@h7:22", "a h1 - k=file", "a h2 n.example k=user", Ok("a u@h7:22 n.example k=file"));
    }

    #[test]
    fn what_cannot_be_one_list_is_refused() {
        check("web1", "", "web2 h -", Err("no host `web1` is known"));
        check("a=h1 a=h2", "", "", Err("`a` is named twice"));
        check("a=h1 b=h1", "", "", Err("`a` and `b` are both ssh://h1"));
        let user = entries("web-1 h -");
        let unknown = inventory(&Sources { flags: &flags("web1"), file: &[], user: &user }).expect_err("unknown");
        assert_eq!(unknown.help(), "did you mean `web-1`?");
    }

    #[test]
    fn names_of_hosts_can_stand_in_certificates() {
        let long = "a".repeat(63);
        for good in ["a", "A.b_c", "_", "1", "web-1.example.com", &long] {
            assert!(host_name(good).is_ok(), "{good}");
        }
        let longer = "a".repeat(64);
        let longest = ["a"; 100].join(".");
        for wrong in ["a..b", ".a", "a.", "a-", "a.-b", "a-.b", &longer, &longest] {
            let error = host_name(wrong).expect_err(wrong).to_string();
            assert!(error.contains("in words of 1 to 63 letters"), "{error}");
        }
    }

    #[test]
    fn flags_are_names_with_or_without_an_address() {
        for (text, reason) in [
            ("ssh://u@h", "has no name: write `NAME=ssh://u@h`"),
            ("u@h", "has no name"),
            ("a=", "it names no host"),
            ("=h", "is not a valid host name"),
            ("local", "the local engine"),
            ("a=tcp://h", "not by `tcp://`"),
            ("-a=h", "must not begin with `-`"),
        ] {
            let error = text.parse::<HostFlag>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
