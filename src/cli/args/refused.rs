//! Flags of Docker Compose that orch refuses, each with the reason: what the parser's own words lack.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// A flag that Docker Compose has and orch has not.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// The command that it belongs to; empty: it goes before the command.
    pub command: &'static str,
    /// The flag.
    pub flag: &'static str,
    /// Why there is none, and what to do instead.
    pub reason: &'static str,
}

/// All of them; `docs/cli.md` lists them.
pub const REFUSED: &[Refused] = &[
    Refused {
        command: "",
        flag: "--compatibility",
        reason: "names of containers always have `-` between their parts, as Docker Compose's have without this flag",
    },
    Refused {
        command: "build",
        flag: "--builder",
        reason: "images are built by the engine that would run them, not by instances of buildx",
    },
    Refused {
        command: "build",
        flag: "--check",
        reason: "the engine's API has no call that checks a Dockerfile without building it: \
                 `docker buildx build --check` does",
    },
    Refused {
        command: "build",
        flag: "--print",
        reason: "nothing is handed to `docker buildx bake`; `orch config` shows what is built",
    },
];

/// Adds to the parser's refusal of a flag why orch does not have it.
pub(super) fn explain(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(refused) = find(&error)
    {
        let reason = StyledStr::from(format!("orch has no `{}`: {}", refused.flag, refused.reason));
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![reason]));
    }
    error
}

fn find(error: &clap::Error) -> Option<&'static Refused> {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = given.split('=').next().unwrap_or_default();
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    let is_of = |command: &str| usage.split_whitespace().skip_while(|word| *word != "orch").nth(1) == Some(command);
    REFUSED.iter().find(|refused| refused.flag == flag && (refused.command.is_empty() || is_of(refused.command)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::Cli;
    use super::REFUSED;

    #[test]
    fn a_refused_flag_is_refused_with_its_reason() {
        for refused in REFUSED {
            let line = ["orch", refused.command, refused.flag];
            let words = line.iter().filter(|word| !word.is_empty());
            let Err(usage) = Cli::parse_args(words) else { continue }; // it came to be
            let text = usage.0.to_string();
            assert!(text.contains(refused.reason), "{}: {text}", refused.flag);
        }
        let text = Cli::parse_args(["orch", "pull", "--check"]).expect_err("no such flag").0.to_string();
        assert!(!text.contains("Dockerfile"), "{text}");
    }

    #[test]
    fn refused_flags_belong_to_commands_that_are_there() {
        let cli = Cli::command();
        for refused in REFUSED {
            assert!(refused.command.is_empty() || cli.find_subcommand(refused.command).is_some(), "{refused:?}");
        }
    }
}
