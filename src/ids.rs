//! Names that are checked once and trusted after: a function that takes a [`ServiceName`] need not look at it again.
//!
//! Every name here ends up in container names, DNS labels, file names or label values, so the character sets are
//! those of the Compose Specification, which are subsets of what all of these accept.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a name of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {rule}")]
pub struct InvalidName {
    /// What the text was to name, as the user would say it.
    pub kind: &'static str,
    /// The text as given.
    pub text: String,
    /// What a valid name looks like.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `text` and wraps it.
            ///
            /// # Errors
            /// [`InvalidName`] with the rule that the text breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(InvalidName { kind: $kind, text, rule: $rule }) }
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Source: compose-spec 04-version-and-name.md.
fn is_project(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
}

/// Source: compose-spec schema, `patternProperties` of services, networks, volumes, configs and secrets.
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// SHA-256 as text.
fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

name!(
    /// Name of a project: the scope of everything that one compose application owns.
    ProjectName, "project name",
    "it must consist of lower-case letters, digits, hyphens and underscores, and start with a letter or digit",
    is_project
);
name!(
    /// Name of a service of the compose file.
    ServiceName, "service name", "it must consist of letters, digits, dots, hyphens and underscores", is_key
);
name!(
    /// Key of a network, volume, config or secret in the compose file (not its name on the engine).
    ResourceKey, "name", "it must consist of letters, digits, dots, hyphens and underscores", is_key
);
name!(
    /// Name of a host. The local engine's host is [`HostName::local`] where nobody named it.
    HostName, "host name", "it must consist of letters, digits, dots, hyphens and underscores", is_key
);
name!(
    /// Hash over names, owners, modes and contents of a file or directory that travels to other hosts.
    SnapshotHash, "snapshot", "it must consist of 64 lower-case hexadecimal digits", is_digest
);

impl HostName {
    /// Returns the name of the host that runs the local engine: `local`.
    pub fn local() -> Self {
        Self("local".to_owned())
    }
}

/// One replica of a service: the unit that is placed, addressed, drained and replaced as a whole.
///
/// `Display` gives `web.2`, the form of plans and messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodId {
    /// The service that the pod is a replica of.
    pub service: ServiceName,
    /// Number of the replica, from 1; also Docker Compose's `container-number`.
    pub number: u32,
}

impl PodId {
    /// Returns the id of replica `number` (from 1) of `service`.
    pub fn new(service: ServiceName, number: u32) -> Self {
        Self { service, number }
    }

    /// Returns the range that holds the ids of all replicas of `service` and no others.
    pub fn all_of(service: &ServiceName) -> std::ops::RangeInclusive<Self> {
        Self::new(service.clone(), 0)..=Self::new(service.clone(), u32::MAX)
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_names_follow_the_specification() {
        for good in ["a", "0", "my-app_2"] {
            assert!(ProjectName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a.b", "a b"] {
            assert!(ProjectName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_snapshot_is_named_by_a_digest_and_by_nothing_that_is_a_path() {
        assert!(SnapshotHash::new("0f".repeat(32)).is_ok());
        for bad in ["", "..", "0f", &"0F".repeat(32), &"/.".repeat(32), &"0f".repeat(33)] {
            assert!(SnapshotHash::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pod_reads_as_service_and_number() {
        let pod = PodId::new(ServiceName::new("web").expect("valid"), 2);
        assert_eq!(pod.to_string(), "web.2");
    }
}
