//! What to do next about the agent's container. Pure.

use std::cmp::Ordering;

use crate::engine::label;
use crate::observed::{ContainerState, ObservedContainer};
use crate::transport::image::Build;

/// Value of [`label::ROLE`] on an agent's container.
pub(super) const AGENT_ROLE: &str = "agent";

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Make it and start it.
    Create,
    /// Start it.
    Start,
    /// Unpause it.
    Thaw,
    /// Remove it, for it is of another build.
    Replace {
        /// Its version.
        version: String,
    },
    /// It runs: ask over its socket whether it is ready.
    Ask,
    /// The engine is about to start it again or to remove it.
    WaitForEngine,
}

/// Why what is there is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The container's name is taken by something else.
    #[error("a container named `{name}` is there that orch did not make: remove or rename it")]
    NotOurs {
        /// Its name.
        name: String,
    },
    /// The agent is newer than this orch.
    #[error(
        "the agent is version {agent}, this is {own}: upgrade orch, or go back to {own} with \
             `orch up --allow-downgrade`"
    )]
    Newer {
        /// Version of the agent.
        agent: String,
        /// Version of this orch.
        own: String,
    },
}

/// Refuses a container that is not an agent.
pub(super) fn check_ours(there: &ObservedContainer) -> Result<(), Refusal> {
    if there.labels.get(label::ROLE).map(String::as_str) == Some(AGENT_ROLE) {
        return Ok(());
    }
    Err(Refusal::NotOurs { name: there.name.clone() })
}

/// Decides from the container that has the agent's name.
///
/// # Errors
/// [`Refusal`]: somebody has to decide.
pub fn decide(there: Option<&ObservedContainer>, own: &Build, allow_downgrade: bool) -> Result<Decision, Refusal> {
    let Some(there) = there else { return Ok(Decision::Create) };
    check_ours(there)?;
    if there.state == ContainerState::Removing {
        return Ok(Decision::WaitForEngine);
    }
    let of = |key: &str| there.labels.get(key).cloned().unwrap_or_default();
    let (version, hash) = (of(label::AGENT_VERSION), of(label::AGENT_BUILD));
    if hash != own.hash {
        if compare(&version, &own.version) == Ordering::Greater && !allow_downgrade {
            return Err(Refusal::Newer { agent: version, own: own.version.clone() });
        }
        return Ok(Decision::Replace { version });
    }
    Ok(match there.state {
        ContainerState::Running { .. } => Decision::Ask,
        ContainerState::Paused => Decision::Thaw,
        ContainerState::Created | ContainerState::Exited { .. } => Decision::Start,
        ContainerState::Dead => Decision::Replace { version },
        ContainerState::Restarting | ContainerState::Removing => Decision::WaitForEngine,
    })
}

/// Compares versions by precedence; build metadata does not count. What is no version at all is older than any.
///
/// Source: semver.org 2.0.0, section 11.
fn compare(one: &str, other: &str) -> Ordering {
    match (Version::parse(one), Version::parse(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (one, other) => one.is_some().cmp(&other.is_some()),
    }
}

/// Fields in the order in which they count.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    core: [u64; 3],
    /// A release comes after all its pre-releases.
    is_release: bool,
    pre: Vec<Identifier>,
}

/// Part of a pre-release: numbers before words.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.split('+').next()?;
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let numbers: Vec<u64> = core.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        let identifier = |part: &str| match part.parse() {
            Ok(number) => Identifier::Number(number),
            Err(_) => Identifier::Word(part.to_owned()),
        };
        let parts = pre.map(|pre| pre.split('.').map(identifier).collect());
        Some(Self { core: numbers.try_into().ok()?, is_release: pre.is_none(), pre: parts.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_precedence() {
        let ascending = [
            "",
            "0.9.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0",
            "1.0.10",
        ];
        for (index, one) in ascending.iter().enumerate() {
            for (other_index, other) in ascending.iter().enumerate() {
                assert_eq!(compare(one, other), index.cmp(&other_index), "{one} {other}");
            }
        }
        assert_eq!(compare("1.0.0+a", "1.0.0+b"), Ordering::Equal);
    }
}
