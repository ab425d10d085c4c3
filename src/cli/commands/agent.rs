//! `orch agent`: the agent itself, and looking after it.

mod access_log;
mod metrics;
mod these;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::AgentOptions;
use crate::api::types::AgentInfo;
use crate::cli::args::{AgentLogsArgs, AgentRun, AgentStatusArgs, AgentUninstallArgs, AgentVerb, TextFormat};
use crate::cli::attach::write_line;
use crate::cli::context::{Context, agent_options, if_there};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::logline::Names;
use crate::cli::signals::Interrupts;
use crate::cli::source::Source;
use crate::cli::tail::{Line, Readers, Said, channel};
use crate::cli::words;
use crate::engine::LogQuery;
use crate::transport::bootstrap::{self, BootstrapError};
use crate::transport::image::Build;

/// Looks after the agent of this host.
///
/// # Errors
/// When the engine or the agent does not answer, or projects are still up (`uninstall`).
pub(crate) async fn run(context: &mut Context<'_>, verb: AgentVerb) -> Result<Exit, CliError> {
    match verb {
        AgentVerb::Logs(args) => return logs(context, &args).await,
        AgentVerb::Status(args) => status(context, &args).await?,
        AgentVerb::Metrics(args) => metrics::run(context, &args).await?,
        AgentVerb::AccessLog(args) => access_log::run(context, &args).await?,
        AgentVerb::Stop => stop(context).await?,
        AgentVerb::Uninstall(args) => uninstall(context, &args).await?,
    }
    Ok(Exit::Success)
}

async fn logs(context: &mut Context<'_>, args: &AgentLogsArgs) -> Result<Exit, CliError> {
    context.global.hosts.extend(args.hosts.iter().cloned());
    let (source, container) = source(context).await?;
    let mut interrupts = Interrupts::listen()?;
    let query = LogQuery { follow: args.follow, tail: args.tail.lines(), ..LogQuery::default() };
    let mut readers = Readers::default();
    let (to, mut lines) = channel();
    readers.read(&source, &container, &query, to);
    let names = Names::default();
    let ui = &mut *context.ui;
    let copied = async {
        while let Some((_, said)) = lines.recv().await {
            match said {
                // The agent writes its own times, and all of it to standard error; here it is the data asked for.
                Said::Line(line) => write_line(ui, &names, "", &Line { stderr: false, ..line }, false)?,
                Said::Failed(error) | Said::Interrupted(error) => return Err(error.into()),
                Said::Ended => break,
            }
        }
        Ok(Exit::Success)
    };
    interrupts.unless(copied).await
}

/// Returns the engine of the agent that is meant, and its container there.
async fn source(context: &mut Context<'_>) -> Result<(Source, String), CliError> {
    let named = !context.global.hosts.is_empty();
    let Some(fleet) = (if named { context.fleet()? } else { None }) else {
        let engine = context.engine().await?;
        let container = agent_options(&engine).name;
        return Ok((Source::local(Arc::new(engine)), container));
    };
    let [host] = fleet.hosts() else {
        return Err(CliError::Flag { flag: "--host", command: "agent logs` of several hosts" });
    };
    let engine = host.engine().await?;
    let container = agent_options(&engine).name;
    Ok((Source::over(Arc::clone(host), Arc::new(engine)), container))
}

async fn status(context: &mut Context<'_>, args: &AgentStatusArgs) -> Result<(), CliError> {
    let info = context.client().await?.info().await?;
    match args.format {
        TextFormat::Json => context.ui.json(&info),
        TextFormat::Text => context.ui.data(describe(&info).as_bytes()),
    }
}

fn describe(info: &AgentInfo) -> String {
    let AgentInfo {
        version,
        build,
        host,
        cluster,
        engine,
        engine_id: _,
        uptime_secs,
        memory,
        problems,
        metrics,
        access_log,
    } = info;
    let up = words::duration(Duration::from_secs(*uptime_secs));
    let mut text = format!(
        "agent of host {host}\nversion   {version} (build {build})\nengine    {engine}\nup        {up}\nmemory    {} MB\n",
        memory / 1_000_000
    );
    if let Some(cluster) = cluster {
        writeln!(text, "cluster   {cluster}").expect("a string takes all");
    }
    if let Some(address) = metrics {
        writeln!(text, "metrics   http://{address}/metrics").expect("a string takes all");
    }
    if *access_log {
        text.push_str("requests  told in its log: `orch agent logs`\n");
    }
    match problems.as_slice() {
        [] => text.push_str("problems  none\n"),
        problems => {
            for problem in problems {
                writeln!(text, "problem   {problem}").expect("a string takes all");
            }
        }
    }
    text
}

async fn stop(context: &mut Context<'_>) -> Result<(), CliError> {
    let engine = context.engine().await?;
    if context.global.dry_run {
        let runs = bootstrap::find_agent(&engine, &agent_options(&engine)).await?.is_some_and(|one| one.is_running());
        return context.ui.line(if runs { "stop the agent" } else { "the agent does not run" });
    }
    let ran = bootstrap::stop_agent(&engine, &agent_options(&engine)).await?;
    context.ui.say(if ran {
        "the agent is stopped: what runs goes on, but nothing heals, and names, virtual addresses and published ports \
         do not answer; `orch up` starts it again"
    } else {
        "the agent does not run"
    });
    Ok(())
}

async fn uninstall(context: &mut Context<'_>, args: &AgentUninstallArgs) -> Result<(), CliError> {
    let client = context.client().await?;
    if !args.force
        && let Some(projects) = if_there(client.projects().await)?
    {
        let ours = projects.into_iter().filter(|project| project.revision.is_some());
        let names: Vec<_> = ours.map(|project| project.name.to_string()).collect();
        if !names.is_empty() {
            return Err(CliError::AgentNeeded(names));
        }
    }
    let engine = context.engine().await?;
    let build = Build::own().map_err(BootstrapError::Binary)?;
    if context.global.dry_run {
        let there = bootstrap::find_agent(&engine, &agent_options(&engine)).await?;
        context.ui.line(if there.is_some() { "uninstall the agent" } else { "there is no agent here" })?;
        for image in bootstrap::own_images(&engine, &build).await? {
            context.ui.line(&format!("remove image {image}, unless a container uses it"))?;
        }
        return Ok(());
    }
    let done = bootstrap::uninstall_agent(&engine, &client, &build, &agent_options(&engine)).await?;
    for image in done.kept {
        context.ui.warn(&format!("image {image} stays: a container uses it"));
    }
    context.ui.say(if done.container { "the agent is uninstalled" } else { "there is no agent here" });
    Ok(())
}

/// Is the agent, until it is told to end.
///
/// # Errors
/// Why it could not start.
pub(crate) fn serve(run: AgentRun) -> Result<Exit, CliError> {
    let AgentRun { state, run, engine, host, subnet_pool, lb_threads } = run;
    let options = AgentOptions { state_dir: state, run_dir: run, engine, host, subnet_pool, lb_threads };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(crate::agent::run(options))?;
    Ok(Exit::Success)
}
