//! `orch man`: manual pages, made of the tree of commands.

use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::args::{Cli, ManArgs};
use crate::cli::error::CliError;
use crate::cli::ui::Ui;

/// Prints the page of orch itself, or writes one for each command.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn run(ui: &mut Ui, args: &ManArgs, dry_run: bool) -> Result<(), CliError> {
    if let Some(directory) = args.directory.as_ref().filter(|_| dry_run) {
        return ui.line(&format!("write a manual page for each command to {}", directory.display()));
    }
    if let Some(directory) = &args.directory {
        return write(directory).map_err(|source| CliError::Write { path: directory.display().to_string(), source });
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(CliError::Output)?;
    ui.data(&page)
}

fn write(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ui::{Style, testing};

    #[test]
    fn each_command_has_a_page_with_its_flags() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut ui, out, _) = testing::ui(Style::Plain);
        run(&mut ui, &ManArgs { directory: Some(directory.path().join("man1")) }, false).expect("written");
        let page = |name: &str| std::fs::read_to_string(directory.path().join("man1").join(name)).expect(name);
        for command in Cli::command().get_subcommands() {
            assert!(page(&format!("orch-{}.1", command.get_name())).contains(".TH"));
        }
        assert!(page("orch-up.1").contains("force\\-recreate") && page("orch-host-add.1").contains("label"));
        run(&mut ui, &ManArgs::default(), false).expect("printed");
        assert!(out.take().contains(".TH orch 1"));
    }
}
