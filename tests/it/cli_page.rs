//! `docs/cli.md` is made of the command line's own tree: every command and flag with its help, how it ends, and what it
//! reads of the environment. What Docker Compose has is in `compose_flags.rs`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command, CommandFactory as _};
use orch::cli::Cli;
use orch::cli::args::REFUSED;

/// How the process ends.
const EXITS: &[(&str, &str)] = &[
    ("0", "it was done; also `down` of what is not there, `--help`, and `up` whose containers all ended by themselves"),
    (
        "1",
        "it was not done, and standard error says why: wrong flags, files or names, an engine or host that does not answer, \
         a container that failed while `up --wait` waited for it",
    ),
    ("130", "the user cancelled (Ctrl-C), or SIGTERM came"),
    (
        "any other",
        "the code of what ran in a container: `exec`, `run` and `wait` hand it on, and `up` with `--exit-code-from`, \
         `--abort-on-container-exit` or `--abort-on-container-failure`; 128 and the signal's number where a signal ended it",
    ),
];

/// Variables that are read, with what they mean.
const VARIABLES: &[(&str, &str)] = &[
    ("COMPOSE_ANSI", "as `--ansi`; also in `.env`"),
    (
        "COMPOSE_COMPATIBILITY",
        "has no effect but a warning: names of containers have `-` between their parts, as with Docker Compose's default; \
         also in `.env`",
    ),
    ("COMPOSE_CONVERT_WINDOWS_PATHS", "has no effect: orch does not run on Windows, and paths stay as they are"),
    ("COMPOSE_DISABLE_ENV_FILE", "yes: `.env` is not read"),
    ("COMPOSE_ENV_FILES", "files with variables instead of `.env`, with commas between; as `--env-file`"),
    ("COMPOSE_FILE", "compose files, with `:` between; as `-f`"),
    (
        "COMPOSE_IGNORE_ORPHANS",
        "yes: nothing is said of containers of services that the file does not have; also in `.env`",
    ),
    ("COMPOSE_MENU", "yes: as `up --menu`; also in `.env`"),
    ("COMPOSE_PARALLEL_LIMIT", "as `--parallel`; also in `.env`"),
    ("COMPOSE_PATH_SEPARATOR", "what stands between the files of `COMPOSE_FILE`, instead of `:`"),
    ("COMPOSE_PROFILES", "profiles that are enabled, with commas between; as `--profile`"),
    ("COMPOSE_PROGRESS", "as `--progress`"),
    ("COMPOSE_PROJECT_NAME", "name of the project; as `-p`"),
    ("COMPOSE_REMOVE_ORPHANS", "yes: as `--remove-orphans`; also in `.env`"),
    ("COMPOSE_STATUS_STDOUT", "yes: progress goes to standard output; warnings and errors do not"),
    ("DOCKER_BUILDKIT", "`0`: builds are done by the classic builder, also where the engine has BuildKit"),
    ("DOCKER_CONFIG", "directory of the Docker client's configuration (logins, contexts), instead of `~/.docker`"),
    ("DOCKER_CONTEXT", "the engine of this context of Docker's client; without it, that of `docker context use`"),
    (
        "DOCKER_DEFAULT_PLATFORM",
        "platform of images that are pulled or built and whose service names none; also in `.env`",
    ),
    ("DOCKER_HOST", "address of the engine: `unix:///path`; other machines are named by `--host`"),
    ("HOME", "where `.docker`, `.config` and `.ssh` are"),
    ("NO_COLOR", "not empty: no colours, unless `--ansi always`"),
    ("ORCH_AGENT_SOCKET", "socket of the agent, instead of `/run/orch/agent.sock`; whoever sets it runs the agent"),
    (
        "ORCH_ENGINE_SOCKET",
        "set by orch for an agent whose engine has its socket elsewhere than at `/var/run/docker.sock`",
    ),
    ("ORCH_HOSTS_FILE", "the user's hosts file, instead of `$XDG_CONFIG_HOME/orch/hosts.yaml`"),
    ("ORCH_LOG", "what is logged to standard error: `debug`, `orch::plan=trace,info`; the agent's own log too"),
    ("ORCH_SSH_CONFIG", "configuration file of `ssh`, instead of the user's"),
    ("ORCH_USER", "who changes a project, for those who look later, instead of the login's name"),
    ("SSH_AUTH_SOCK", "the user's SSH agent, which `ssh` uses"),
    ("TERM", "`dumb`: neither colours nor other control characters"),
    ("USER", "who changes a project, where `ORCH_USER` does not say it"),
    ("XDG_CONFIG_HOME", "where the user's hosts file is, instead of `~/.config`"),
    ("XDG_RUNTIME_DIR", "where connections to other hosts are kept, instead of `/tmp`"),
];

pub(crate) fn tree() -> Command {
    let mut cli = Cli::command();
    cli.build();
    cli
}

/// The words by which a flag is given.
pub(crate) fn words(arg: &Arg) -> Vec<String> {
    let short = arg.get_short().map(|letter| format!("-{letter}"));
    let long = arg.get_long().map(|word| format!("--{word}"));
    let aliases = arg.get_all_aliases().unwrap_or_default().into_iter().map(|word| format!("--{word}"));
    short.into_iter().chain(long).chain(aliases).collect()
}

/// The page.
fn page() -> String {
    let cli = tree();
    let mut page = "\
# The command line

Words and flags are Docker Compose's; what orch adds is `plan`, `graph`, `why`, `dns`, `lb`, `pattern`, `host`, `status`,
`agent` and a few flags. This page is made of the program's own help by a test (`tests/it/cli_page.rs`), which says how to make
it anew. `orch COMMAND --help` prints the same; `orch man DIR` writes it as manual pages, `orch completion SHELL` prints a script
that completes it.

Data goes to standard output, everything else (progress, warnings, errors) to standard error.

## Commands

| command | what it does |
|---|---|
"
    .to_owned();
    for command in shown(&cli) {
        let name = command.get_name();
        _ = writeln!(page, "| [`{name}`](#orch-{name}) | {} |", about(command));
    }
    page += "\n## Before the command\n\n";
    page += &flags(&cli, &[]);
    for command in shown(&cli) {
        write(&mut page, command, &["orch".to_owned()]);
    }
    page += "\n## What Docker Compose has and orch refuses\n\nEverything else of Docker Compose 2.40 is there: a test \
             (`tests/it/compose_flags.rs`) goes through its help.\n\n| command or flag | why |\n|---|---|\n";
    for refused in REFUSED {
        _ = writeln!(page, "| `{}` | {} |", refused.name(), escape(refused.reason));
    }
    page += "\n## How it ends\n\n| code | when |\n|---|---|\n";
    for (code, when) in EXITS {
        _ = writeln!(page, "| {code} | {} |", escape(when));
    }
    page += "\n## What is read of the environment\n\n\
             Yes is `1`, `t`, `true`, `y` or `yes`. A flag goes before its variable.\n\n| variable | meaning |\n|---|---|\n";
    for (name, meaning) in VARIABLES {
        _ = writeln!(page, "| `{name}` | {} |", escape(meaning));
    }
    page
}

/// Commands that users are shown.
fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help")
}

fn write(page: &mut String, command: &Command, above: &[String]) {
    let name: Vec<String> = above.iter().cloned().chain([command.get_name().to_owned()]).collect();
    let level = "#".repeat(above.len() + 1);
    _ = writeln!(page, "\n{level} {}\n\n{}.", name.join(" "), about(command));
    let aliases: Vec<String> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        _ = writeln!(page, "Also called {}.", aliases.join(", "));
    }
    let usage = command.clone().render_usage().to_string();
    _ = writeln!(page, "\n```\n{}\n```", usage.trim_start_matches("Usage: ").trim());
    let global: Vec<&str> = vec!["dry_run", "progress"];
    let table = flags(command, &global);
    if !table.is_empty() {
        _ = write!(page, "\n{table}");
    }
    for one in shown(command) {
        write(page, one, &name);
    }
}

fn about(command: &Command) -> String {
    escape(&command.get_about().map(ToString::to_string).unwrap_or_default())
}

/// The table of places and flags, without those that are told of before the command.
fn flags(command: &Command, without: &[&str]) -> String {
    let is_shown = |arg: &&Arg| {
        let general = arg.is_global_set() && without.contains(&arg.get_id().as_str());
        !arg.is_hide_set() && !general && !matches!(arg.get_id().as_str(), "help" | "version")
    };
    let mut table = String::new();
    let places = command.get_positionals();
    let flags = command.get_arguments().filter(|arg| !arg.is_positional());
    for arg in places.chain(flags).filter(is_shown) {
        let values = arg.get_value_names().unwrap_or_default().iter().map(|name| format!("<{name}>"));
        let values: Vec<String> = if takes_value(arg) || arg.is_positional() { values.collect() } else { Vec::new() };
        let mut names: Vec<String> = words(arg);
        names.truncate(2);
        let name = [names.join(", "), values.join(" ")].join(" ");
        _ = writeln!(table, "| `{}` | {} |", escape(name.trim()), meaning(arg));
    }
    if table.is_empty() { table } else { format!("| | |\n|---|---|\n{table}") }
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// The help of a flag, its values, default and variable.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().or(arg.get_long_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = escape(help.split(" [env:").next().unwrap_or_default());
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(PossibleValue::get_name)
        .map(|name| format!("`{name}`"))
        .collect();
    if takes_value(arg) && !values.is_empty() && !values.contains(&"`true`".to_owned()) {
        _ = write!(text, ": {}", values.join(", "));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if takes_value(arg) && !defaults.is_empty() && !arg.is_hide_default_value_set() {
        _ = write!(text, "; default: `{}`", defaults.join(" "));
    }
    let named = help.split("[env: ").nth(1).and_then(|rest| rest.split(']').next()).map(str::to_owned);
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).or(named);
    if let Some(variable) = variable {
        _ = write!(text, " (`{variable}`)");
    }
    text
}

/// A bar ends a cell.
fn escape(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[test]
fn the_page_of_the_command_line_is_the_programs_help() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    if std::env::var_os("ORCH_DOCS_UPDATE").is_some() {
        std::fs::write(&path, page()).expect("write docs/cli.md");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let first =
        there.lines().zip(page().lines().map(str::to_owned).collect::<Vec<_>>()).find(|(one, other)| one != other);
    assert!(
        there == page(),
        "docs/cli.md is not what the program's help says, first at {first:?}: \
         run `ORCH_DOCS_UPDATE=1 cargo nextest run --test it the_page_of_the_command_line`, and read what changed"
    );
}

#[test]
fn every_command_and_flag_has_a_help_text() {
    fn check(command: &Command, name: &str) {
        assert!(!about(command).is_empty(), "{name} says nothing");
        for arg in command.get_arguments().filter(|arg| arg.get_id() != "help" && arg.get_id() != "version") {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() > 4 && !help.ends_with('.'), "{name} {}: `{help}`", arg.get_id());
            assert!(
                help.starts_with(|c: char| c.is_uppercase() || c == '`' || c == '-'),
                "{name} {}: `{help}`",
                arg.get_id()
            );
        }
        for one in command.get_subcommands() {
            check(one, &format!("{name} {}", one.get_name()));
        }
    }
    check(&tree(), "orch");
}

/// All Rust files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn every_variable_that_the_program_knows_is_on_the_page() {
    let known: BTreeSet<&str> = VARIABLES.iter().map(|(name, _)| *name).collect();
    let mut found = BTreeSet::new();
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&path).expect("readable");
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let ours = ["COMPOSE_", "DOCKER_", "ORCH_"]
                .iter()
                .any(|start| word.len() > start.len() && word.starts_with(start));
            let ours = ours && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            if ours && !word.starts_with("ORCH_TEST_") && word != "DOCKER_HUB" && !word.ends_with('_') {
                found.insert(word.to_owned());
            }
        }
    }
    let missing: Vec<&String> = found.iter().filter(|name| !known.contains(name.as_str())).collect();
    assert!(missing.is_empty() && found.len() > 15, "not on the page: {missing:?}");
}
