//! `orch up`: files to Model to Graph, images in, agent up, then the agent makes it true while we watch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::client::{Client, ProgressStream};
use crate::api::types::{PodStatus, UpRequest};
use crate::cli::args::{Pull, TextFormat, UpArgs, WatchArgs};
use crate::cli::attach::{Attachment, Show};
use crate::cli::builds::{self, BuiltImage, MakeOptions, When, Wish};
use crate::cli::consent::{self, Deed};
use crate::cli::context::{Context, agent_options, ensure_demo_image, logins, now};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::foreground::{Foreground, Until};
use crate::cli::images::{self, PullOptions};
use crate::cli::lastwords;
use crate::cli::menu::{Key, Menu};
use crate::cli::progress::follow;
use crate::cli::project::{Project, with_dependencies};
use crate::cli::signals::Interrupts;
use crate::cli::source::Source;
use crate::cli::spread::{self, Ground, Needs};
use crate::cli::tail::Choice;
use crate::cli::ui::Style;
use crate::cli::words;
use crate::engine::docker::DockerEngine;
use crate::graph::{PullPolicy, Role};
use crate::observed::{ContainerState, Health};
use crate::plan::Caller;
use crate::transport::bootstrap::AgentOptions;

use super::{plan, watch};

/// Makes the project be as the files say.
///
/// # Errors
/// When the files are wrong, an image is missing, the agent cannot be started, or the project cannot become so.
pub(crate) async fn run(context: &mut Context<'_>, args: &UpArgs) -> Result<Exit, CliError> {
    let mut interrupts = Interrupts::listen()?;
    let project = context.load_graph(&args.selection)?;
    if args.dry_run || context.global.dry_run {
        return dry_run(context, &project, args).await.map(|()| Exit::Success);
    }
    let attached = !(args.detach || args.wait || args.selection.no_start);
    if args.menu == Some(true) && args.detach {
        return Err(CliError::Flag { flag: "--menu", command: "up -d" });
    }
    if args.format == TextFormat::Json {
        if attached {
            return Err(CliError::Flag { flag: "--format json", command: "up` without `-d" });
        }
        context.ui.tell_as_data();
    }
    let watched = WatchArgs { services: args.selection.services.clone(), ..WatchArgs::beside_up(args.quiet_build) };
    let prepared = if args.watch { Some(watch::prepare(context, &watched)?) } else { None };
    let fleet = context.fleet()?;
    let mut caller = consent::caller(fleet.is_none(), args.yes);
    let ground = if let Some(fleet) = fleet {
        let request = request(context, &project, args, &caller)?;
        let needs = needs(context, &project, args);
        let ready = spread::ready(context, &fleet, &project, request, &needs, args.allow_downgrade);
        let (ground, asked) = interrupts.unless(ready).await?;
        caller = asked;
        ground
    } else {
        let engine = context.engine().await?;
        context.client_for(&engine).await?; // before images are pulled to an engine whose agent is not there
        context.check_fit(&project, &engine).await?;
        interrupts.unless(ready(context, &project, engine, args)).await?
    };
    let sources = ground.sources.clone();
    let ended = if attached {
        let footer = context.ui.footer().clone();
        let watch = prepared.map(|prepared| -> Beside<'_> {
            Box::pin(watch::beside(context.global.clone(), &watched, prepared, footer))
        });
        in_foreground(context, &project, ground, &mut interrupts, args, caller, watch).await
    } else {
        detached(context, &project, &ground.seat, &mut interrupts, args, caller).await
    };
    if let Err(error) = &ended {
        lastwords::show(context.ui, &sources, &project.graph, error).await;
    }
    ended
}

/// Says what would be built, and then what the plan is.
async fn dry_run(context: &mut Context<'_>, project: &Project, args: &UpArgs) -> Result<(), CliError> {
    let Needs { builds, wish, .. } = needs(context, project, args);
    preview_builds(context, &builds, &wish, args.format).await?;
    plan::show(context, project, plan::options(project, &args.selection)?, args.format).await?;
    if args.watch && args.format == TextFormat::Text {
        let watched = WatchArgs { services: args.selection.services.clone(), ..WatchArgs::beside_up(args.quiet_build) };
        let prepared = watch::prepare(context, &watched)?;
        watch::preview(context, &prepared)?;
    }
    Ok(())
}

/// Says what would be built.
pub(super) async fn preview_builds(
    context: &mut Context<'_>,
    builds: &[BuiltImage],
    wish: &Wish,
    format: TextFormat,
) -> Result<(), CliError> {
    if builds.is_empty() {
        return Ok(());
    }
    let elsewhere = spread::on_hosts(context, builds).await?;
    let lines = match context.builder().await {
        Ok(builder) => builds::preview(&builder, builds, &elsewhere, wish).await?,
        // A host that is no member yet may have it.
        Err(_) => builds.iter().map(|build| format!("build image {} where it is missing", build.image)).collect(),
    };
    for line in lines {
        match format {
            TextFormat::Text => context.ui.line(&line)?,
            // The plan is all that is on standard output.
            TextFormat::Json => context.ui.say(&line),
        }
    }
    Ok(())
}

/// What the flags say of images; only those of the services that are asked for are built.
fn needs(context: &Context<'_>, project: &Project, args: &UpArgs) -> Needs {
    let parallel = context.global.parallel;
    let named = &args.selection.services;
    let asked = if args.selection.no_deps { named.clone() } else { with_dependencies(&project.graph, named) };
    let mut builds = builds::with_contexts(project.builds(), |service| named.is_empty() || asked.contains(service));
    for build in builds.iter_mut().filter(|build| args.rebuilt.contains(&build.service)) {
        build.policy = Some("build".to_owned());
    }
    let when = match (args.build, args.no_build) {
        (true, _) => When::Always,
        (_, true) => When::Never,
        _ => When::Missing,
    };
    let platform = project.default_platform();
    let pull = PullOptions { policy: args.pull.and_then(policy), quiet: args.quiet_pull, parallel, platform };
    let make = MakeOptions { quiet: args.quiet_build, parallel, ..MakeOptions::of_environment() };
    Needs { wish: Wish { when, pull: pull.policy, quiet_pull: pull.quiet, make }, pull, builds }
}

/// Everything that must be there on the local engine before the project changes: images and the agent.
async fn ready(
    context: &mut Context<'_>,
    project: &Project,
    engine: DockerEngine,
    args: &UpArgs,
) -> Result<Ground, CliError> {
    let Needs { pull, builds, wish } = needs(context, project, args);
    let (logins, built) = (logins(), builds::services(&project.builds()));
    builds::ensure(context.ui, &engine, builds, BTreeMap::new(), &wish, &logins).await?;
    images::ensure(context.ui, &engine, &project.graph, &built, pull, &logins).await?;
    if images::needs_demo(&project.graph) {
        ensure_demo_image(&engine).await?;
    }
    let agent = AgentOptions { allow_downgrade: args.allow_downgrade, ..agent_options(&engine) };
    let seat = context.agent_with(&engine, agent).await?;
    Ok(Ground { seat, sources: vec![Source::local(Arc::new(engine))] })
}

fn policy(flag: Pull) -> Option<PullPolicy> {
    match flag {
        Pull::Always => Some(PullPolicy::Always),
        Pull::Missing => Some(PullPolicy::Missing),
        Pull::Never => Some(PullPolicy::Never),
        Pull::Policy => None,
    }
}

fn request(context: &Context<'_>, project: &Project, args: &UpArgs, caller: &Caller) -> Result<UpRequest, CliError> {
    let (options, hosts) = (plan::options(project, &args.selection)?, context.project_hosts());
    let (caller, wait) = (caller.clone(), args.wait);
    Ok(UpRequest { options, caller, hosts, wait, ..UpRequest::new(project.graph.clone()) })
}

/// Asks the seat for what the project shall be, and the user where others changed it meanwhile.
async fn start(
    context: &mut Context<'_>,
    project: &Project,
    client: &Client,
    args: &UpArgs,
    caller: &mut Caller,
) -> Result<ProgressStream, CliError> {
    let request = request(context, project, args, caller)?;
    consent::ask(context.ui, client, project.name(), Deed::Overwrite, caller, async |caller| {
        let request = UpRequest { caller: caller.clone(), ..request.clone() };
        Ok(client.up(project.name(), &request).await?)
    })
    .await
}

/// Leaves the containers running in the background.
async fn detached(
    context: &mut Context<'_>,
    project: &Project,
    client: &Client,
    interrupts: &mut Interrupts,
    args: &UpArgs,
    mut caller: Caller,
) -> Result<Exit, CliError> {
    let stream = interrupts.unless(start(context, project, client, args, &mut caller)).await?;
    let title = if args.selection.no_start { "Creating" } else { "Running" };
    let done = interrupts.unless(follow(context.ui, title, stream));
    let ended = match args.wait_timeout {
        Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), done).await {
            Ok(ended) => ended,
            Err(_) => Err(CliError::WaitTimeout { seconds, missing: missing(client, project).await }),
        },
        None => done.await,
    };
    if matches!(ended, Err(CliError::Cancelled)) {
        context.ui.say("the agent goes on; `orch down` takes it back");
    }
    ended.map(|_| Exit::Success)
}

/// Returns what a project still lacks, a sentence each; nothing where the agent does not say it.
async fn missing(client: &Client, project: &Project) -> Vec<String> {
    let Ok(status) = client.project(project.name()).await else { return Vec::new() };
    let now = now();
    status.pods.iter().filter(|pod| pod.wanted).filter_map(|pod| lacking(pod, now)).collect()
}

/// Says what a pod lacks; `None`: nothing, or nothing of its own.
fn lacking(pod: &PodStatus, now: Timestamp) -> Option<String> {
    let name = &pod.name;
    let prepares = pod.part.as_ref().map(|part| part.role).filter(|role| role.prepares());
    let time = words::since(&pod.started_at, now).map(|time| words::duration(time).to_lowercase()).unwrap_or_default();
    let reason = || pod.reason.as_ref().map(|reason| format!("container {name}: {reason}"));
    match pod.state {
        Some(ContainerState::Running { .. }) if prepares.is_some() => {
            let what = if prepares == Some(Role::Init) { "pod" } else { "service" };
            Some(format!("container {name} prepares its {what}, has run for {time}, and has not ended"))
        }
        _ if pod.ready => None,
        Some(ContainerState::Running { health: Health::Starting }) => {
            let reason = pod.reason.as_deref().unwrap_or("its health check has not passed yet");
            Some(format!("container {name} has run for {time}: {reason}"))
        }
        Some(ContainerState::Exited { code: 0, by_itself: true }) => None,
        Some(ContainerState::Exited { code, .. }) => {
            reason().or_else(|| Some(format!("container {name} ended with {code}")))
        }
        Some(ContainerState::Running { .. } | ContainerState::Paused | ContainerState::Restarting) => reason(),
        _ => None,
    }
}

/// Watches the source beside the output of containers.
type Beside<'a> = Pin<Box<dyn Future<Output = Infallible> + 'a>>;

/// Shows the containers' output until they end or the user has had enough.
async fn in_foreground(
    context: &mut Context<'_>,
    project: &Project,
    ground: Ground,
    interrupts: &mut Interrupts,
    args: &UpArgs,
    mut caller: Caller,
    mut watch: Option<Beside<'_>>,
) -> Result<Exit, CliError> {
    let begun = now();
    let choice = choice(project, args);
    let show = Show {
        prefix: !args.look.no_log_prefix,
        colour: context.ui.colour() && !args.look.no_color,
        timestamps: args.timestamps,
        exits: true,
    };
    // Before anything starts: a job may have ended before the last container is up.
    let Ground { seat: client, sources } = ground;
    let client = &client;
    let attachment = Attachment::listen(sources, choice.clone(), show);
    let stream = interrupts.unless(start(context, project, client, args, &mut caller)).await?;
    let mut foreground =
        Foreground { client, project, attachment, choice, interrupts, timeout: args.selection.timeout };
    match foreground.interrupts.unless(follow(context.ui, "Running", stream)).await {
        Err(CliError::Cancelled) => return foreground.cancel(context.ui).await,
        ended => ended?,
    };
    let until = until(args);
    let (global, footer) = (context.global.clone(), context.ui.footer().clone());
    // Only where somebody asks for it, as with Docker Compose 2.40 without its desktop application, and on a terminal.
    let wanted = args.menu.unwrap_or_else(|| project.wants_menu()) && context.ui.style() == Style::Live;
    let open = || Menu::open(footer.clone(), project.is_watched(), watch.is_some());
    let mut menu = (wanted && Menu::is_possible()).then(open).transpose()?;
    let mut shown = Box::pin(foreground.run(context.ui, begun, &until));
    loop {
        tokio::select! {
            ended = &mut shown => return ended,
            never = always(&mut watch) => match never {},
            key = pressed(&mut menu) => match key? {
                Key::Detach => return Ok(Exit::Success),
                Key::Watch => {
                    watch = if watch.is_some() {
                        None
                    } else {
                        let services = args.selection.services.clone();
                        let args = WatchArgs { services, ..WatchArgs::beside_up(args.quiet_build) };
                        Some(Box::pin(watch::from_now_on(global.clone(), args, footer.clone())))
                    };
                    if let Some(menu) = &menu {
                        menu.show(watch.is_some());
                    }
                }
            },
        }
    }
}

async fn always(watch: &mut Option<Beside<'_>>) -> Infallible {
    match watch {
        Some(watch) => watch.await,
        None => std::future::pending().await,
    }
}

async fn pressed(menu: &mut Option<Menu>) -> Result<Key, CliError> {
    match menu {
        Some(menu) => menu.key().await,
        None => std::future::pending().await,
    }
}

fn until(args: &UpArgs) -> Until {
    match &args.exit_code_from {
        Some(service) => Until::ServiceEnds(service.clone()),
        None if args.abort_on_container_exit => Until::OneEnds,
        None if args.abort_on_container_failure => Until::OneFails,
        None if args.watch => Until::Nothing,
        None => Until::AllEnd,
    }
}

/// The services whose output is shown: those named (with their dependencies on demand), but for `attach: false` in the
/// file and `--no-attach`, unless `--attach` names them.
fn choice(project: &Project, args: &UpArgs) -> Choice {
    let graph = &project.graph;
    let services = if !args.attach.is_empty() {
        args.attach.clone()
    } else if args.attach_dependencies && !args.selection.services.is_empty() {
        with_dependencies(&project.graph, &args.selection.services)
    } else {
        args.selection.services.clone()
    };
    let unattached = graph.services.iter().filter(|(_, service)| !service.attach).map(|(name, _)| name.clone());
    let but = unattached.filter(|name| !args.attach.contains(name)).chain(args.no_attach.iter().cloned());
    Choice { project: project.name().clone(), services, but: but.collect(), index: None }
}
