//! The command line: a shell around the pure parts and the agent's API. It wires, it does not decide.
//!
//! Start at [`run`]. `args` is the tree of commands and their help, `commands` has one file for each, and everything that
//! is printed goes through `ui`: standard output is for data, standard error for the rest.

pub mod args;
pub mod commands;
pub mod error;
pub mod exit;
pub mod hosts;
pub mod trace;
pub mod ui;

mod attach;
mod board;
mod builds;
mod consent;
mod context;
mod fleet;
mod foreground;
mod images;
mod join;
mod lastwords;
mod logline;
mod order;
mod preview;
mod progress;
mod project;
mod signals;
mod source;
mod spread;
mod table;
mod tail;
mod terminal;
mod time;
mod travel;
mod watch;
mod words;

use std::future::Future;

pub use args::Cli;
pub use exit::Exit;

use args::{AgentArgs, Command};
use context::Context;
use error::CliError;
use ui::Ui;

/// Runs the command and says how the process ends. Prints what went wrong, once.
pub fn run(cli: Cli) -> Exit {
    let Cli { global, command } = cli;
    let mut ui = Ui::stdio(&global);
    let result = match command {
        Command::Version(args) => commands::version::run(&mut ui, &args).map(|()| Exit::Success),
        Command::Demo(args) => Ok(crate::demo::main(args)),
        Command::Agent(AgentArgs { verb: None, run: Some(run) }) => commands::agent::serve(run),
        command => block_on(dispatch(&mut Context::new(global, &mut ui), command)),
    };
    result.unwrap_or_else(|error| {
        ui.error(&error);
        Exit::of(&error)
    })
}

/// Runs `future` on this thread. The runtime is made here, after parsing, so that `orch --help` does not pay for it.
fn block_on(future: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    let result = runtime.block_on(future);
    // A read of standard input that never ends (`exec`) must not hold back the end of the process.
    runtime.shutdown_background();
    result
}

async fn dispatch(context: &mut Context<'_>, command: Command) -> Result<Exit, CliError> {
    use commands::{
        agent, build, config, dns, down, events, exec, host, lb, logs, ls, pattern, plan, ps, pull, push, status, up,
        why,
    };
    match command {
        Command::Up(args) => return up::run(context, &args).await,
        Command::Logs(args) => return logs::run(context, args).await,
        Command::Events(args) => return events::run(context, &args).await,
        Command::Exec(args) => return exec::run(context, args).await,
        Command::Agent(AgentArgs { verb: Some(verb), run: _ }) => return agent::run(context, verb).await,
        Command::Build(args) => build::run(context, &args).await?,
        Command::Pull(args) => pull::run(context, &args).await?,
        Command::Push(args) => push::run(context, &args).await?,
        Command::Down(args) => down::run(context, &args).await?,
        Command::Plan(args) => plan::run(context, &args).await?,
        Command::Ps(args) => ps::run(context, &args).await?,
        Command::Config(args) => config::run(context, &args).await?,
        Command::Pattern(args) => pattern::run(context, args)?,
        Command::Host(args) => host::run(context, args.verb).await?,
        Command::Status(args) => status::run(context, &args).await?,
        Command::Ls(args) => ls::run(context, &args).await?,
        Command::Why(args) => why::run(context, args).await?,
        Command::Dns(args) => dns::run(context, args).await?,
        Command::Lb(args) => lb::run(context, args).await?,
        Command::Version(_) | Command::Demo(_) | Command::Agent(AgentArgs { verb: None, run: _ }) => {
            unreachable!("run before there is a runtime")
        }
    }
    Ok(Exit::Success)
}
