//! What neither a flag nor the process's environment says and a file of variables (`.env`, `--env-file`) does.
//!
//! Source: runs of Docker Compose 2.40, which takes from there what is about files, projects, profiles and orphans (as
//! `load` has it), `COMPOSE_ANSI`, `COMPOSE_PARALLEL_LIMIT`, `COMPOSE_MENU` and `COMPOSE_COMPATIBILITY`, but not `COMPOSE_PROGRESS`,
//! `COMPOSE_STATUS_STDOUT`, `COMPOSE_ENV_FILES`, nor anything of Docker's own client (`DOCKER_HOST`, `DOCKER_CONTEXT`).

use std::collections::BTreeMap;

use clap::ValueEnum as _;

use super::args::{Ansi, Global};
use super::error::CliError;

/// Sets of the flags what files of variables say in their place.
///
/// # Errors
/// [`CliError::Value`].
pub(crate) fn apply(global: &mut Global, environment: &BTreeMap<String, String>) -> Result<(), CliError> {
    if let Some(text) = environment.get("COMPOSE_ANSI").filter(|_| global.unsaid.ansi) {
        global.ansi = Ansi::from_str(text, false).map_err(|_| CliError::Value {
            what: "`COMPOSE_ANSI` in a file of variables",
            value: text.clone(),
            expected: "`auto`, `always` or `never`",
        })?;
    }
    if let Some(text) = environment.get("COMPOSE_PARALLEL_LIMIT").filter(|_| global.unsaid.parallel) {
        global.parallel = text.parse().map_err(|_| CliError::Value {
            what: "`COMPOSE_PARALLEL_LIMIT` in a file of variables",
            value: text.clone(),
            expected: "a whole number",
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::args::Cli;
    use super::*;

    #[track_caller]
    fn check(words: &str, file: &[(&str, &str)], expected: Result<(Ansi, i32), &str>) {
        let words = ["orch"].into_iter().chain(words.split_whitespace());
        let mut global = Cli::parse_args(words).expect("arguments").global;
        let environment = file.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let result = apply(&mut global, &environment).map(|()| (global.ansi, global.parallel));
        assert_eq!(result.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn files_of_variables_say_what_flags_do_not() {
        let file = [("COMPOSE_ANSI", "never"), ("COMPOSE_PARALLEL_LIMIT", "3"), ("COMPOSE_PROGRESS", "json")];
        check("ps", &file, Ok((Ansi::Never, 3)));
        check("--ansi always --parallel 2 ps", &file, Ok((Ansi::Always, 2)));
        check("ps", &[], Ok((Ansi::Auto, -1)));
        let wrong = "`x` is not a valid `COMPOSE_PARALLEL_LIMIT` in a file of variables";
        check("ps", &[("COMPOSE_PARALLEL_LIMIT", "x")], Err(wrong));
        check("ps", &[("COMPOSE_ANSI", "x")], Err("`x` is not a valid `COMPOSE_ANSI` in a file of variables"));
    }
}
