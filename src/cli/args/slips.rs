//! Arguments that are known, but not where they were written, and other slips: what the parser's own words lack.

use std::error::Error as _;
use std::ffi::OsString;
use std::num::ParseIntError;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory as _};

use super::Cli;

/// `orch help up` is `orch up --help`, as in Docker Compose.
pub(super) fn help(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|word| word == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    arguments
}

/// Adds to the parser's complaint what was meant.
pub(super) fn explain(error: clap::Error, arguments: &[OsString]) -> clap::Error {
    match error.kind() {
        ErrorKind::UnknownArgument => match misplaced(&error, arguments) {
            Some(tip) => with_tip(error, tip),
            None => error,
        },
        ErrorKind::ValueValidation if error.source().is_some_and(<dyn std::error::Error>::is::<ParseIntError>) => {
            // The words of the library are about digits and strings.
            let mut plain = clap::Error::new(ErrorKind::ValueValidation).with_cmd(&Cli::command());
            for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue] {
                if let Some(value) = error.get(kind) {
                    plain.insert(kind, value.clone());
                }
            }
            with_tip(plain, "a whole number is expected".to_owned())
        }
        _ => error,
    }
}

fn with_tip(mut error: clap::Error, tip: String) -> clap::Error {
    error.remove(ContextKind::SuggestedArg);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    error
}

/// A flag that goes before the command and was written behind it, or the other way round.
fn misplaced(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = given.split('=').next().unwrap_or_default();
    let cli = Cli::command();
    let words: Vec<&str> = arguments.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let command = words.iter().find_map(|word| cli.find_subcommand(word))?;
    let at = words.iter().position(|word| *word == command.get_name());
    let is_behind = words.iter().position(|word| word.starts_with(flag)) > at;
    let takes = |of: &Command| of.get_arguments().find(|arg| is_named(arg, flag)).is_some();
    if is_behind {
        return takes(&cli)
            .then(|| format!("`{flag}` goes before the command: `orch {flag} … {}`", command.get_name()));
    }
    takes(command).then(|| format!("`{flag}` goes behind the command: `orch {} {flag} …`", command.get_name()))
}

fn is_named(arg: &Arg, flag: &str) -> bool {
    let long = flag.strip_prefix("--").is_some_and(|long| arg.get_long() == Some(long));
    long || flag.strip_prefix('-').is_some_and(|short| arg.get_short().is_some_and(|own| own.to_string() == short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let text = Cli::parse_args(line.split(' ')).expect_err("it is wrong").0.to_string();
        assert!(text.contains(expected), "{line}: no `{expected}` in:\n{text}");
    }

    #[test]
    fn slips_are_told_with_what_was_meant() {
        check("orch up -f compose.yaml", "`-f` goes before the command: `orch -f … up`");
        check("orch ps --profile=a", "`--profile` goes before the command: `orch --profile … ps`");
        check("orch -d up", "`-d` goes behind the command: `orch up -d …`");
        check("orch up -t soon", "a whole number is expected");
        check("orch up --detahc", "a similar argument exists: '--detach'");
        check("orch help up", "Usage: orch up");
        check("orch help", "Usage: orch");
        check("orch help nope", "unrecognized subcommand 'nope'");
    }
}
