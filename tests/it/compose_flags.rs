//! Docker Compose's commands and flags, one by one: each is there, or refused with a reason (`docs/cli.md` lists those).
//!
//! `compose_flags.txt` is what the help of Docker Compose 2.40 says; where the program is there (`ORCH_COMPOSE_REFERENCE`,
//! `scripts/setup reference`), it is gone through again. `ORCH_SPEC_UPDATE=1` writes the file anew.
#![expect(clippy::disallowed_methods, reason = "the reference is a program")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Command as Tree;
use orch::cli::args::REFUSED;

use crate::cli_page::{tree, words};

/// A command's words, empty for what goes before the command, and its flags.
type Commands = BTreeMap<String, BTreeSet<String>>;

/// What its help does not show, and people type.
const HIDDEN: &[(&str, &str)] = &[
    ("alpha", ""),
    ("convert", "-q --format"),
    ("exec", "-i --interactive -t --tty --no-TTY"),
    ("run", "-t --tty --no-tty"),
    ("start", "--wait --wait-timeout"),
];

/// How the first line of the file calls what goes before the command.
const PROGRAM: &str = "docker compose";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/compose_flags.txt")
}

/// Reads lines of `COMMAND: FLAGS`.
fn read(text: &str) -> Commands {
    let line = |line: &str| {
        let (command, flags) = line.split_once(':').expect("COMMAND: FLAGS");
        let command = if command == PROGRAM { "" } else { command };
        (command.to_owned(), flags.split_whitespace().map(str::to_owned).collect())
    };
    text.lines().map(line).collect()
}

fn write(commands: &Commands) -> String {
    let line = |(command, flags): (&String, &BTreeSet<String>)| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        format!("{}: {}\n", if command.is_empty() { PROGRAM } else { command }, flags.join(" "))
    };
    commands.iter().map(line).collect()
}

/// All that Docker Compose has.
fn all() -> Commands {
    let mut commands = read(&std::fs::read_to_string(file()).expect("the file is there"));
    for (command, flags) in HIDDEN {
        commands.entry((*command).to_owned()).or_default().extend(flags.split_whitespace().map(str::to_owned));
    }
    commands
}

/// The help of a command: the commands below it, and its flags.
fn help(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut commands, mut flags) = (BTreeSet::new(), BTreeSet::new());
    let mut section = "";
    for line in text.lines() {
        if let Some(title) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            section = title;
            continue;
        }
        // `  -f, --file`, `      --ansi`; what goes on from the line before is further right, and may begin with a flag, too.
        let indent = line.len() - line.trim_start().len();
        let mut row = line.split_whitespace();
        let first = row.next().unwrap_or_default();
        if section == "Options" && matches!(indent, 2 | 6) && first.starts_with('-') {
            let second = row.next().filter(|_| first.ends_with(','));
            flags.extend([Some(first.trim_end_matches(',')), second].into_iter().flatten().map(str::to_owned));
        } else if section.ends_with("Commands") && indent == 2 {
            commands.insert(first.to_owned());
        }
    }
    (commands, flags)
}

/// Goes through the help of a program, from one command to those below it.
fn walk(program: &Path, command: &str, found: &mut Commands) {
    let output = Command::new(program).args(command.split_whitespace()).arg("--help").output().expect("it runs");
    let (below, flags) = help(&String::from_utf8_lossy(&output.stdout));
    assert!(flags.contains("--dry-run"), "{command}: {output:?}");
    found.insert(command.to_owned(), flags);
    for one in below {
        walk(program, format!("{command} {one}").trim(), found);
    }
}

fn reference() -> Option<PathBuf> {
    let named = std::env::var_os("ORCH_COMPOSE_REFERENCE").filter(|name| name != "required").map(PathBuf::from);
    let program = named.unwrap_or_else(|| PathBuf::from("docker-compose"));
    let output = Command::new(&program).args(["version", "--short"]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v').starts_with("2.40.").then_some(program)
}

#[test]
fn the_flags_are_those_of_docker_composes_help() {
    let Some(program) = reference() else {
        let required = std::env::var_os("ORCH_COMPOSE_REFERENCE").is_some();
        assert!(!required, "ORCH_COMPOSE_REFERENCE is set, but there is no Docker Compose 2.40");
        let mut stderr = std::io::stderr();
        std::io::Write::write_all(&mut stderr, b"NOT COVERED: no Docker Compose 2.40 to compare with\n")
            .expect("stderr");
        return;
    };
    let mut found = Commands::new();
    walk(&program, "", &mut found);
    if std::env::var_os("ORCH_SPEC_UPDATE").is_some() {
        std::fs::write(file(), write(&found)).expect("can be written");
    }
    let written = read(&std::fs::read_to_string(file()).expect("the file is there"));
    assert_eq!(written, found, "run with ORCH_SPEC_UPDATE=1, and read what changed");
    assert!(found.len() > 35 && found.contains_key("bridge transformations list"), "{found:?}");
}

/// The command of orch with these words.
fn there<'a>(cli: &'a Tree, command: &str) -> Option<&'a Tree> {
    command.split_whitespace().try_fold(cli, |tree, word| tree.find_subcommand(word))
}

fn is_refused(command: &str, flag: &str) -> bool {
    let with_all =
        |whole: &str| command == whole || command.strip_prefix(whole).is_some_and(|rest| rest.starts_with(' '));
    REFUSED
        .iter()
        .any(|one| if one.flag.is_empty() { with_all(one.command) } else { one.command == command && one.flag == flag })
}

#[test]
fn every_command_and_flag_of_docker_compose_is_there_or_refused_with_a_reason() {
    let cli = tree();
    let mut missing = Vec::new();
    for (command, flags) in all() {
        let Some(there) = there(&cli, &command) else {
            missing.extend(Some(command.clone()).filter(|command| !is_refused(command, "")));
            continue;
        };
        let has = |flag: &String| there.get_arguments().any(|arg| words(arg).contains(flag));
        let lacking = flags.iter().filter(|flag| !has(flag) && !is_refused(&command, flag));
        missing.extend(lacking.map(|flag| format!("{command} {flag}")));
    }
    assert_eq!(missing, Vec::<String>::new(), "do them, or refuse them in src/cli/args/refused.rs");
}

#[test]
fn what_is_refused_is_something_that_docker_compose_has_and_orch_has_not() {
    let (cli, compose) = (tree(), all());
    for refused in REFUSED {
        let flags = compose.get(refused.command);
        let is_theirs = flags.is_some_and(|flags| refused.flag.is_empty() || flags.contains(refused.flag));
        assert!(is_theirs, "Docker Compose has no `{}`", refused.name());
        let ours = there(&cli, refused.command);
        let has = |tree: &Tree| tree.get_arguments().any(|arg| words(arg).iter().any(|word| word == refused.flag));
        let is_ours = ours.is_some_and(|tree| refused.flag.is_empty() || has(tree));
        assert!(!is_ours, "orch has `{}`: take it out of src/cli/args/refused.rs", refused.name());
    }
}

#[test]
fn help_is_read_as_it_is_written() {
    let text = "\
Usage:  docker compose [OPTIONS] COMMAND

Options:
      --ansi string                Control when to print ANSI control
                                   characters. Incompatible with
                                   --other.
  -f, --file stringArray           Compose configuration files

Management Commands:
  bridge      Convert compose files into another model

Commands:
  scale       Scale services 
  wait        Block until containers of all (or specified) services stop.

Run 'docker compose COMMAND --help' for more information on a command.
";
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(help(text), (set(&["bridge", "scale", "wait"]), set(&["--ansi", "--file", "-f"])));
}
