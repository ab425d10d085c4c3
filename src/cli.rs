//! The command line: a shell around the pure parts and the agent's API. It wires, it does not decide.
//!
//! Start at [`run`]. `args` is the tree of commands and their help, `commands` has one file for each, and everything that
//! is printed goes through `ui`: standard output is for data, standard error for the rest.

pub mod args;
pub mod commands;
pub mod error;
pub mod exit;
pub mod trace;
pub mod ui;

pub use args::Cli;
pub use exit::Exit;

use args::Command;

use ui::Ui;

/// Runs the command and says how the process ends. Prints what went wrong, once.
pub fn run(cli: Cli) -> Exit {
    let Cli { global, command } = cli;
    let mut ui = Ui::stdio(&global);
    let result = match command {
        Command::Version(args) => commands::version::run(&mut ui, &args).map(|()| Exit::Success),
        Command::Demo(args) => Ok(crate::demo::main(args)),
    };
    result.unwrap_or_else(|error| {
        ui.error(&error);
        Exit::of(&error)
    })
}
