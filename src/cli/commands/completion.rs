//! `orch completion`: scripts that complete commands, flags and names of services in a shell.
//!
//! clap makes them of the tree of commands. What they lack are names that only the files know: where clap leaves a place for
//! a service, the scripts for bash, zsh and fish ask `orch config --services`, which takes milliseconds.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::args::{Cli, CompletionArgs};
use crate::cli::error::CliError;
use crate::cli::ui::Ui;

/// What prints the names of services; nothing where there is no file, or a wrong one.
const SERVICES: &str = "orch config --services 2>/dev/null";

/// Prints the script.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn run(ui: &mut Ui, args: &CompletionArgs) -> Result<(), CliError> {
    ui.data(script(args.shell).as_bytes())
}

fn script(shell: Shell) -> String {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "orch", &mut bytes);
    let script = String::from_utf8_lossy(&bytes).into_owned();
    match shell {
        Shell::Bash => bash(&script),
        Shell::Zsh => zsh(&script),
        Shell::Fish => fish(script),
        _ => script,
    }
}

/// For bash clap completes flags only. Each command has a case with its words: where it takes services, and no flag is
/// begun, they are the words.
fn bash(script: &str) -> String {
    let takers: Vec<String> = takers().map(|name| format!("orch__subcmd__{name})")).collect();
    let mut lines = Vec::new();
    let mut takes = false;
    for line in script.lines() {
        lines.push(line.to_owned());
        let word = line.trim();
        if word.starts_with("orch__") && word.ends_with(')') {
            takes = takers.iter().any(|taker| taker == word);
        } else if takes && word.starts_with("opts=") {
            lines.push(format!("            [[ ${{cur}} == -* ]] || opts=\"$({SERVICES})\""));
            takes = false;
        }
    }
    lines.join("\n") + "\n"
}

/// For zsh clap completes places by file names (`:_default`).
fn zsh(script: &str) -> String {
    let is_service = |line: &str| {
        let place = line.trim_start_matches(['\'', '*', ':']);
        ["service -- Service", "services -- Services", "names -- Services"].iter().any(|start| place.starts_with(start))
    };
    let line = |line: &str| {
        if is_service(line) { line.replace(":_default'", ":_orch_services'") } else { line.to_owned() }
    };
    let lines: Vec<String> = script.lines().map(line).collect();
    let function =
        format!("_orch_services() {{\n    local names; names=(${{(f)\"$({SERVICES})\"}})\n    compadd -a names\n}}\n");
    // After the first line, which must stay the first: `#compdef orch`.
    lines.join("\n").replacen('\n', &format!("\n\n{function}\n"), 1) + "\n"
}

/// For fish clap completes no places at all.
fn fish(mut script: String) -> String {
    for name in takers() {
        let line = ["complete -c orch -n \"__fish_orch_using_subcommand ", &name, "\" -f -a \"(", SERVICES, ")\"\n"];
        script += &line.concat();
    }
    script
}

/// The commands that take services.
fn takers() -> impl Iterator<Item = String> {
    let takes = |command: &clap::Command| {
        command.get_positionals().any(|place| {
            let names = place.get_value_names().unwrap_or_default();
            names.iter().any(|name| name.as_str() == "SERVICE") || place.get_id() == "service"
        })
    };
    let mut cli = Cli::command();
    cli.build();
    let names: Vec<String> =
        cli.get_subcommands().filter(|one| takes(one)).map(|one| one.get_name().to_owned()).collect();
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }

    #[test]
    fn names_of_services_are_asked_for_where_services_are_meant() {
        let count = takers().count();
        assert!(count > 25, "{count}");
        assert_eq!(script(Shell::Bash).matches(SERVICES).count(), count);
        assert_eq!(script(Shell::Fish).matches(SERVICES).count(), count);
        // `convert` is another name of `config`.
        assert_eq!(script(Shell::Zsh).matches(":_orch_services'").count(), count + 1);
        assert!(script(Shell::Zsh).starts_with("#compdef orch\n"));
    }

    /// Lets a real bash complete, with an `orch` that names two services.
    #[test]
    fn bash_completes_commands_flags_and_services() {
        let script = format!(
            "orch() {{ [ \"$1\" = config ] && printf 'web\\nworker\\n'; }}\n{}\n\
             complete_words() {{ COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); \
             _orch orch \"${{@: -1}}\" \"${{@:$#-1:1}}\"; echo \"${{COMPREPLY[*]}}\"; }}\n\
             complete_words orch vers\ncomplete_words orch up --force\ncomplete_words orch up w\ncomplete_words orch host la\n",
            script(Shell::Bash)
        );
        #[expect(clippy::disallowed_methods, reason = "bash is what is tested")]
        let done = std::process::Command::new("bash").args(["--norc", "-c", &script]).output().expect("run bash");
        let lines = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(
            lines,
            "version\n--force-recreate\nweb worker\nlabel\n",
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}
