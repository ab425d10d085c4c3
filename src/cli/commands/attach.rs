//! `orch attach`: the user's terminal at the main process of a container.

use std::io::IsTerminal as _;

use crate::cli::among::{self, Which};
use crate::cli::args::AttachArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::{DetachKeys, Ended, Process, Session};
use crate::cli::signals::Forwarded;
use crate::engine::by_hand::{AttachSpec, Attached};

/// Connects standard input and output to a container until it ends. The result is its exit code.
///
/// # Errors
/// When the service does not run, or its host does not answer.
pub(crate) async fn run(context: &mut Context<'_>, args: &AttachArgs) -> Result<Exit, CliError> {
    let detach = args.detach_keys.as_deref().map_or_else(|| Ok(DetachKeys::usual()), DetachKeys::parse)?;
    let services = [args.service.clone()];
    let among = among::find(context, Which { services: &services, ..Which::default() }).await?;
    let (source, container) = among::replica(context, &among, &args.service, args.index)?;
    if context.global.dry_run {
        context.ui.line(&format!("attach to container {}{}", container.name, source.on()))?;
        return Ok(Exit::Success);
    }
    let (engine, id) = (source.engine.as_ref(), container.id.as_str());
    let signals = args.sig_proxy.then(Forwarded::listen).transpose()?;
    let spec = AttachSpec { stdin: !args.no_stdin, detach_keys: args.detach_keys.clone() };
    let tty = engine.has_terminal(id).await.map_err(|error| source.failed(error))?;
    let Attached { output, input } = engine.attach(id, &spec).await.map_err(|error| source.failed(error))?;
    // A terminal of the container without one of the user's, or the other way round, is no more than a pipe.
    let tty = tty && !args.no_stdin && std::io::stdin().is_terminal();
    let input = (!args.no_stdin).then_some(input);
    let session = Session { engine, process: Process::Main(id), output, input, ends_input: false, tty, detach };
    if session.run(context.ui, signals).await? == Ended::Detached {
        return Ok(Exit::Success);
    }
    let code = engine.wait_container(id).await.map_err(|error| source.failed(error))?;
    Ok(Exit::of_container(code))
}
