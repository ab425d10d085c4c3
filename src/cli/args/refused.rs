//! Commands and flags of Docker Compose that orch refuses, each with the reason: what the parser's own words lack.

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Cli;

/// A command, or a flag, that Docker Compose has and orch has not.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// The command, or the one that the flag belongs to; empty: the flag goes before the command.
    pub command: &'static str,
    /// The flag; empty: the whole command.
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
        command: "alpha",
        flag: "",
        reason: "these are experiments of Docker Compose; `orch graph --format dot` draws what `alpha viz` does",
    },
    Refused {
        command: "bridge",
        flag: "",
        reason: "orch runs compose files itself, on as many hosts as there are; `docker compose bridge` makes those of \
                 Kubernetes from what `orch config` prints",
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
    Refused {
        command: "publish",
        flag: "",
        reason: "orch reads compose files of directories, not of registries: hand on the file that `orch config` prints",
    },
];

impl Refused {
    /// What it is called: `build --check`.
    pub fn name(&self) -> String {
        format!("{} {}", self.command, self.flag).trim().to_owned()
    }
}

/// Says of a command or a flag that orch does not have why, in place of the parser's refusal.
pub(super) fn explain(error: clap::Error) -> clap::Error {
    let Some(refused) = find(&error) else { return error };
    let mut cli = Cli::command();
    cli.build();
    let message = format!("not supported: `{}`: {}", refused.name(), refused.reason);
    let command = if cli.find_subcommand(refused.command).is_some() {
        cli.find_subcommand_mut(refused.command).expect("it was found")
    } else {
        &mut cli
    };
    command.error(error.kind(), message)
}

fn find(error: &clap::Error) -> Option<&'static Refused> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let given = text(ContextKind::InvalidSubcommand)?;
            REFUSED.iter().find(|refused| refused.flag.is_empty() && refused.command == given)
        }
        ErrorKind::UnknownArgument => {
            let flag = text(ContextKind::InvalidArg)?.split('=').next().unwrap_or_default();
            let usage = match error.get(ContextKind::Usage) {
                Some(ContextValue::StyledStr(usage)) => usage.to_string(),
                _ => String::new(),
            };
            let is_of =
                |command: &str| usage.split_whitespace().skip_while(|word| *word != "orch").nth(1) == Some(command);
            let is_meant = |refused: &&Refused| refused.command.is_empty() || is_of(refused.command);
            REFUSED.iter().find(|refused| refused.flag == flag && is_meant(refused))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_refused_with_its_reason() {
        for refused in REFUSED {
            let words = ["orch", refused.command, refused.flag];
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            for more in [&[][..], &["word"], &["--flag"]] {
                let text = Cli::parse_args([words.as_slice(), more].concat()).expect_err("it is refused").0.to_string();
                assert!(text.contains(&format!("not supported: `{}`: {}", refused.name(), refused.reason)), "{text}");
            }
        }
        let text = Cli::parse_args(["orch", "build", "--check=true"]).expect_err("no such flag").0.to_string();
        assert!(text.contains("not supported: `build --check`: ") && text.contains("Usage: orch build "), "{text}");
        for other in [&["orch", "pull", "--check"][..], &["orch", "publis"], &["orch", "up", "publish", "--check"]] {
            let text = Cli::parse_args(other).expect_err("it is wrong").0.to_string();
            assert!(!text.contains("not supported"), "{text}");
        }
    }

    #[test]
    fn refused_flags_belong_to_commands_that_are_there() {
        let cli = Cli::command();
        for refused in REFUSED {
            let is_there = refused.command.is_empty() || cli.find_subcommand(refused.command).is_some();
            assert_eq!(is_there, !refused.flag.is_empty(), "{refused:?}");
        }
    }
}
