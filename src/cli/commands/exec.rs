//! `orch exec`: a command in a running container, with the user's terminal where there is one.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;

use crate::cli::args::ExecArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::project::{self, no_such_service};
use crate::cli::session::{DetachKeys, Ended, Process, Session};
use crate::cli::source;
use crate::cli::tail::Choice;
use crate::cli::ui::Ui;
use crate::engine::{Engine, ExecSession, ExecSpec};
use crate::ids::ServiceName;
use crate::observed::ObservedContainer;
use crate::transport::ssh::quoted;

/// Runs a command in a container of the service. The result is the command's exit code.
///
/// # Errors
/// When there is no project, the service does not run, or the engine refuses the command.
pub(crate) async fn run(context: &mut Context<'_>, args: ExecArgs) -> Result<Exit, CliError> {
    let project = context.project_name()?;
    let sources = context.sources().await?;
    let index = (args.index > 0).then_some(args.index);
    let choice = Choice { project, services: vec![args.service.clone()], but: Vec::new(), index };
    let (containers, errors) = source::containers(&sources, &choice).await?;
    let Some((at, target)) = target(&containers, &args.service) else {
        context.ui.warn_all(&errors);
        let (all, _) = source::containers(&sources, &Choice { services: Vec::new(), index: None, ..choice }).await?;
        let seen: BTreeSet<ServiceName> = all.into_iter().filter_map(|(_, container)| container.service).collect();
        unknown(&args.service, &context.file_services(), &seen)?;
        let away = context.left_out().to_vec();
        return Err(CliError::NotRunning { name: args.service.clone(), index: args.index, away });
    };
    if context.global.dry_run {
        let (name, on) = (&target.name, sources[at].on());
        context.ui.line(&format!("execute in container {name}{on}: {}", quoted(&args.command)))?;
        return Ok(Exit::Success);
    }
    let engine = sources[at].engine.as_ref();
    let environment = project::variables(&context.global)?;
    let spec = spec(&args, has_terminal(), &|name| environment.get(name).cloned());
    let session = engine.exec(&target.id, &spec).await?;
    if args.detach {
        return Ok(Exit::Success);
    }
    attach(context.ui, engine, session, args.wants_terminal() && has_terminal(), args.interactive).await
}

/// Of the containers that run, the one with the lowest number; not a helper in its pod, unless that is named (`web.sync`).
fn target<'a>(
    containers: &'a [(usize, ObservedContainer)],
    service: &ServiceName,
) -> Option<(usize, &'a ObservedContainer)> {
    let running = containers.iter().filter(|(_, container)| container.is_running());
    let meant = running.filter(|(_, container)| container.service.as_ref() == Some(service));
    meant.min_by_key(|(_, container)| container.number).map(|(at, container)| (*at, container))
}

/// Refuses a service that neither the file has nor any container is of. Where nothing at all is known of the project, it may be
/// one that does not run.
fn unknown(name: &ServiceName, file: &[ServiceName], seen: &BTreeSet<ServiceName>) -> Result<(), CliError> {
    let known: BTreeSet<&ServiceName> = file.iter().chain(seen).collect();
    if known.is_empty() || known.contains(name) { Ok(()) } else { Err(no_such_service(name, known)) }
}

pub(super) fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

fn spec(args: &ExecArgs, terminal: bool, variable: &dyn Fn(&str) -> Option<String>) -> ExecSpec {
    // A name without a value takes the caller's, or that of `.env`; where there is none the command does not have the variable, as in Docker Compose.
    let env = args.env.iter().map(|entry| match entry.split_once('=') {
        Some(_) => entry.clone(),
        None => variable(entry).map_or_else(|| entry.clone(), |value| format!("{entry}={value}")),
    });
    ExecSpec {
        command: args.command.clone(),
        env: env.collect(),
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        tty: terminal && args.wants_terminal() && !args.detach,
        stdin: args.interactive && !args.detach,
        detach: args.detach,
        privileged: args.privileged,
    }
}

/// Connects standard input and output to the command until it ends.
async fn attach(
    ui: &mut Ui,
    engine: &dyn Engine,
    session: ExecSession,
    tty: bool,
    interactive: bool,
) -> Result<Exit, CliError> {
    let ExecSession { id, output, input } = session;
    let (process, detach) = (Process::Exec(&id), DetachKeys::usual());
    let input = interactive.then_some(input);
    let session = Session { engine, process, output, input, ends_input: true, tty, detach };
    if session.run(ui, None).await? == Ended::Detached {
        return Ok(Exit::Success);
    }
    Ok(Exit::of_container(engine.exec_exit_code(&id).await?))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parse(line: &str) -> ExecArgs {
        let cli = Cli::try_parse_from(line.split(' ')).expect("arguments");
        let Command::Exec(args) = cli.command else { panic!("not exec") };
        args
    }

    #[test]
    fn flags_after_the_command_are_the_commands() {
        let args = parse("orch exec -T -u 1 -w /tmp -e A=b -e MINE -e NOBODYS web ls -l --all -T");
        assert_eq!(args.command, ["ls", "-l", "--all", "-T"]);
        let spec = spec(&args, true, &|name| (name == "MINE").then(|| "me".to_owned()));
        assert_eq!((spec.tty, spec.stdin), (false, true));
        assert_eq!(spec.env, ["A=b", "MINE=me", "NOBODYS"]);
        assert_eq!((spec.user.as_deref(), spec.working_dir.as_deref()), (Some("1"), Some("/tmp")));
    }

    #[test]
    fn a_terminal_is_given_on_only_where_there_is_one() {
        let tty = |line: &str, terminal| spec(&parse(line), terminal, &|_| None).tty;
        assert!(tty("orch exec web sh", true));
        assert!(!tty("orch exec web sh", false));
        assert!(!tty("orch exec -T web sh", true));
        assert!(!tty("orch exec -d web sh", true));
        assert!(tty("orch exec -it web sh", true) && !tty("orch exec -t=false web sh", true));
        let stdin = |line: &str| spec(&parse(line), true, &|_| None).stdin;
        assert!(stdin("orch exec -it web sh") && stdin("orch exec -ti web sh") && !stdin("orch exec -i=false web sh"));
    }

    #[test]
    fn a_service_that_the_project_does_not_have_cannot_be_started() {
        let name = |text: &str| ServiceName::new(text).expect("valid");
        let told = |named: &str, file: &[&str], seen: &[&str]| {
            let file: Vec<ServiceName> = file.iter().map(|text| name(text)).collect();
            let error = unknown(&name(named), &file, &seen.iter().map(|text| name(text)).collect()).err()?;
            assert_eq!(error.kind(), crate::cli::exit::Kind::User);
            Some((error.to_string(), error.help().unwrap_or_default()))
        };
        let (error, help) = told("frontned", &["frontend", "idle"], &["old"]).expect("refused");
        assert_eq!((error.as_str(), help.as_str()), ("no such service: frontned", "did you mean `frontend`?"));
        let (error, help) = told("nosuch", &["frontend"], &[]).expect("refused");
        assert_eq!((error.as_str(), help.as_str()), ("no such service: nosuch", "there is `frontend` only"));
        // What does not run can be started, and of a project that nobody knows nothing is known.
        assert_eq!(told("idle", &["frontend", "idle"], &["frontend"]), None);
        assert_eq!(told("old", &["frontend"], &["old"]), None);
        assert_eq!(told("nosuch", &[], &[]), None);
    }
}
