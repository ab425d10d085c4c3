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

mod among;
mod attach;
mod board;
mod builds;
mod carry;
mod consent;
mod context;
mod develop;
mod dockercontext;
mod drawing;
mod fleet;
mod foreground;
mod images;
mod join;
mod lastwords;
mod life;
mod logline;
mod menu;
mod order;
mod preview;
mod progress;
mod project;
mod rmi;
mod session;
mod signals;
mod size;
mod source;
mod spread;
mod table;
mod tail;
mod template;
mod terminal;
mod time;
mod travel;
mod unsaid;
mod watch;
mod words;

use std::collections::BTreeMap;
use std::future::Future;

pub use args::Cli;
pub use exit::Exit;

use args::{AgentArgs, Command};
use context::Context;
use error::CliError;
use ui::Ui;

/// Docker Compose's variable for names with `_`.
const COMPATIBILITY: &str = "COMPOSE_COMPATIBILITY";

/// Runs the command and says how the process ends. Prints what went wrong, once.
pub fn run(cli: Cli) -> Exit {
    let Cli { version: (), mut global, command } = cli;
    let environment = if is_of_project(&command) { project::variables(&global) } else { Ok(BTreeMap::new()) };
    let said = environment.and_then(|environment| unsaid::apply(&mut global, &environment).map(|()| environment));
    let mut ui = Ui::stdio(&global);
    let environment = match said {
        Ok(environment) => environment,
        Err(error) => {
            ui.error(&error);
            return Exit::of(&error);
        }
    };
    let compatible = std::env::var(COMPATIBILITY).ok();
    if compatible.as_ref().or_else(|| environment.get(COMPATIBILITY)).is_some_and(|value| ui::is_yes(value)) {
        ui.warn(&format!("{COMPATIBILITY} has no effect: names of containers have `-` between their parts"));
    }
    let result = match command {
        Command::Version(args) => commands::version::run(&mut ui, &args).map(|()| Exit::Success),
        Command::Completion(args) => commands::completion::run(&mut ui, &args).map(|()| Exit::Success),
        Command::Man(args) => commands::man::run(&mut ui, &args, global.dry_run).map(|()| Exit::Success),
        // What these two do is all that they are for.
        Command::Demo(_) if global.dry_run => Err(CliError::Flag { flag: "--dry-run", command: "demo" }),
        Command::Agent(AgentArgs { verb: None, run: Some(_) }) if global.dry_run => {
            Err(CliError::Flag { flag: "--dry-run", command: "agent" })
        }
        Command::Demo(args) => Ok(crate::demo::main(args)),
        Command::Agent(AgentArgs { verb: None, run: Some(run) }) => commands::agent::serve(run),
        command => block_on(dispatch(&mut Context::new(global, &mut ui), command)),
    };
    result.unwrap_or_else(|error| {
        ui.error(&error);
        Exit::of(&error)
    })
}

/// Returns whether a command looks at compose files and what is beside them.
fn is_of_project(command: &Command) -> bool {
    !matches!(
        command,
        Command::Version(_)
            | Command::Completion(_)
            | Command::Man(_)
            | Command::Demo(_)
            | Command::Agent(_)
            | Command::Host(_)
            | Command::Ls(_)
    )
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
        agent, attach, build, commit, config, cp, create, dns, down, events, exec, export, graph, host, images, kill,
        lb, logs, ls, pattern,
    };
    use commands::{
        pause, plan, port, ps, pull, push, restart, rm, run, scale, start, stats, status, stop, top, up, volumes, wait,
        watch, why,
    };
    match command {
        Command::Up(args) => return up::run(context, &args).await,
        Command::Create(args) => return create::run(context, args).await,
        Command::Scale(args) => return scale::run(context, &args).await,
        Command::Logs(args) => return logs::run(context, args).await,
        Command::Events(args) => return events::run(context, &args).await,
        Command::Exec(args) => return exec::run(context, args).await,
        Command::Run(args) => return Box::pin(run::run(context, &args)).await,
        Command::Wait(args) => return wait::run(context, &args).await,
        Command::Watch(args) => return Box::pin(watch::run(context, &args)).await,
        Command::Attach(args) => return attach::run(context, &args).await,
        Command::Agent(AgentArgs { verb: Some(verb), run: _ }) => return agent::run(context, verb).await,
        Command::Build(args) => build::run(context, &args).await?,
        Command::Pull(args) => pull::run(context, &args).await?,
        Command::Push(args) => push::run(context, &args).await?,
        Command::Down(args) => down::run(context, &args).await?,
        Command::Stop(args) => stop::run(context, &args).await?,
        Command::Start(args) => start::run(context, &args).await?,
        Command::Restart(args) => restart::run(context, &args).await?,
        Command::Kill(args) => kill::run(context, &args).await?,
        Command::Rm(args) => rm::run(context, &args).await?,
        Command::Pause(args) => pause::pause(context, &args).await?,
        Command::Unpause(args) => pause::unpause(context, &args).await?,
        Command::Plan(args) => plan::run(context, &args).await?,
        Command::Ps(args) => ps::run(context, &args).await?,
        Command::Port(args) => port::run(context, &args).await?,
        Command::Images(args) => images::run(context, &args).await?,
        Command::Volumes(args) => volumes::run(context, &args).await?,
        Command::Top(args) => top::run(context, &args).await?,
        Command::Cp(args) => cp::run(context, &args).await?,
        Command::Export(args) => export::run(context, &args).await?,
        Command::Commit(args) => commit::run(context, &args).await?,
        Command::Stats(args) => stats::run(context, &args).await?,
        Command::Config(args) => config::run(context, &args).await?,
        Command::Pattern(args) => pattern::run(context, args)?,
        Command::Host(args) => host::run(context, args.verb).await?,
        Command::Status(args) => status::run(context, &args).await?,
        Command::Ls(args) => ls::run(context, &args).await?,
        Command::Why(args) => why::run(context, args).await?,
        Command::Dns(args) => dns::run(context, args).await?,
        Command::Lb(args) => lb::run(context, args).await?,
        Command::Graph(args) => graph::run(context, &args).await?,
        Command::Version(_)
        | Command::Completion(_)
        | Command::Man(_)
        | Command::Demo(_)
        | Command::Agent(AgentArgs { verb: None, run: _ }) => {
            unreachable!("run before there is a runtime")
        }
    }
    Ok(Exit::Success)
}
