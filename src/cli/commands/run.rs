//! `orch run`: a one-off container of a service, on a host that can take it, with the user's terminal where there is
//! one.
//!
//! What it depends on is brought up first, as by `up`. The seat says which host it runs on, the agent there makes it,
//! and from then on it is between the command line and that host's engine. Removed with `--rm` by the engine itself, so
//! that it goes also when the command line is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::api::client::{Client, ProgressStream};
use crate::api::types::{BeginOneoff, EndOneoff, MakeOneoff, PlaceOneoff, Progress, UpRequest};
use crate::cli::args::{RunArgs, RunPull, Selection, TextFormat};
use crate::cli::builds::{self, MakeOptions, When, Wish};
use crate::cli::consent::{self, Deed};
use crate::cli::context::{Context, agent_options, ensure_demo_image, logins};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::fleet::Fleet;
use crate::cli::images::{self, Place, PullOptions};
use crate::cli::lastwords;
use crate::cli::progress::{Step, follow, step};
use crate::cli::project::{self, Project};
use crate::cli::session::{DetachKeys, Ended, Process, Session};
use crate::cli::signals::{Forwarded, Interrupts};
use crate::cli::source::Source;
use crate::cli::spread::{self, Needs};
use crate::controller::oneoff::parts;
use crate::engine::by_hand::{AttachSpec, Attached, ByHand as _, WaitFor};
use crate::engine::docker::DockerEngine;
use crate::engine::{Engine, EngineError};
use crate::graph::{Graph, PullPolicy, Service};
use crate::ids::{HostName, ProjectName, ServiceName};
use crate::plan::{Caller, UpOptions};
use crate::transport::ssh::quoted;

use super::exec::has_terminal;
use super::plan;
use overrides::Surroundings;

mod overrides;

/// Digits of a one-off's slug that are in its name.
const IN_NAME: usize = 12;

/// Runs a command in a container of its own. The result is the command's exit code.
///
/// # Errors
/// When the files are wrong, what it depends on cannot come up, no host can take it, or the engine refuses it.
pub(crate) async fn run(context: &mut Context<'_>, args: &RunArgs) -> Result<Exit, CliError> {
    if args.quiet {
        context.ui.hush();
    }
    let mut interrupts = Interrupts::listen()?;
    let selection = Selection {
        no_deps: args.no_deps,
        remove_orphans: args.remove_orphans,
        services: vec![args.service.clone()],
        ..Selection::default()
    };
    let project = context.load_graph(&selection)?;
    let local = context.fleet()?.is_none();
    let environment = project::variables(&context.global)?;
    let variable = |name: &str| environment.get(name).cloned();
    let directory = std::env::current_dir().map_err(CliError::Directory)?;
    let directory = directory.to_string_lossy().into_owned();
    let around = Surroundings { variable: &variable, directory, terminal: has_terminal(), local };
    let graph = overrides::graph_of(&project.graph, args, &around)?;
    if context.global.dry_run {
        let previewed = preview(context, &project, &selection, args, &graph);
        return Box::pin(interrupts.unless(previewed)).await.map(|()| Exit::Success);
    }
    let made = Box::pin(interrupts.unless(make(context, &project, &selection, args, graph))).await?;
    drop(interrupts);
    let tty = has_terminal() && args.wants_terminal();
    start(context, args, made, tty).await
}

/// Says what would be built, what it would bring up before, and what would be run.
async fn preview(
    context: &mut Context<'_>,
    project: &Project,
    selection: &Selection,
    args: &RunArgs,
    graph: &Graph,
) -> Result<(), CliError> {
    let needed = needed(&project.graph, &args.service, args.no_deps);
    let mut builds = project.builds();
    builds.retain(|build| needed.contains(&build.service) || graph.services.contains_key(&build.service));
    let pull = args.pull.and_then(policy);
    super::up::preview_builds(context, &builds, &wish(args, context.global.parallel, pull), TextFormat::Text).await?;
    let options = UpOptions { only_dependencies: true, ..plan::options(project, selection)? };
    plan::show(context, project, options, TextFormat::Text).await?;
    let name = args.name.clone().unwrap_or_else(|| format!("{}-{}-run-…", project.name(), args.service));
    let container = graph.services.get(&args.service).map(|service| &service.container);
    let command = container.into_iter().flat_map(|one| [&one.entrypoint, &one.command]).flatten().flatten();
    let command = match quoted(&command.collect::<Vec<_>>()) {
        none if none.is_empty() => "what its image runs".to_owned(),
        command => command,
    };
    context.ui.line(&format!("run in a new container {name} of service {}: {command}", args.service))
}

/// What the flags say of images.
fn wish(args: &RunArgs, parallel: i32, pull: Option<PullPolicy>) -> Wish {
    Wish {
        when: if args.build { When::Always } else { When::Missing },
        pull,
        quiet_pull: args.quiet || args.quiet_pull,
        make: MakeOptions { quiet: args.quiet || args.quiet_build, parallel, ..MakeOptions::of_environment() },
    }
}

/// A container that was made and not started.
struct Made {
    engine: DockerEngine,
    id: String,
    /// For messages.
    name: String,
    /// The pod of several containers that it is in.
    pod: Option<Pod>,
}

/// The pod of a one-off, where that has several containers: the agent starts the others before it, and takes them away.
struct Pod {
    agent: Client,
    project: ProjectName,
    slug: String,
}

impl Pod {
    /// Has it brought to an end, and waits for that.
    async fn end(&self, remove: bool) -> Result<(), CliError> {
        let request = EndOneoff { slug: self.slug.clone(), remove };
        let mut stream = self.agent.end_oneoff(&self.project, &request).await?;
        loop {
            if let Step::Done(_) = step(stream.next().await)? {
                return Ok(());
            }
        }
    }
}

/// Brings up what the one-off depends on, and makes it where it can run.
async fn make(
    context: &mut Context<'_>,
    project: &Project,
    selection: &Selection,
    args: &RunArgs,
    graph: Graph,
) -> Result<Made, CliError> {
    let fleet = context.fleet()?;
    let mut caller = consent::caller(fleet.is_none(), false);
    let options = UpOptions { only_dependencies: true, ..plan::options(project, selection)? };
    let hosts = context.project_hosts();
    let request = UpRequest { options, caller: caller.clone(), hosts, ..UpRequest::new(project.graph.clone()) };
    let parallel = context.global.parallel;
    let platform = project.default_platform();
    let quiet_pull = args.quiet || args.quiet_pull;
    let pull = |policy| PullOptions { policy, quiet: quiet_pull, parallel, platform: platform.clone() };
    let (of_file, of_flag) = (pull(None), pull(args.pull.and_then(policy)));
    let (needed, own) = (needed(&project.graph, &args.service, args.no_deps), graph.clone());
    let (mut builds, all) = (project.builds(), builds::services(&project.builds()));
    let own_build: Vec<_> = builds.extract_if(.., |build| own.services.contains_key(&build.service)).collect();
    builds.retain(|build| needed.contains(&build.service));
    let alone = None::<DockerEngine>;
    let (seat, local) = if let Some(fleet) = &fleet {
        let needs = Needs { wish: wish(args, parallel, of_file.policy), pull: of_file, builds };
        let ready = spread::ready(context, fleet, project, request.clone(), &needs, false).await?;
        caller = ready.1;
        (ready.0.seat, alone)
    } else {
        let engine = context.engine().await?;
        context.client_for(&engine).await?; // before images are pulled to an engine whose agent is not there
        context.check_fit(project, &engine).await?;
        let logins = logins();
        builds.extend(own_build.clone());
        builds::ensure(context.ui, &engine, builds, BTreeMap::new(), &wish(args, parallel, of_flag.policy), &logins)
            .await?;
        images::ensure(context.ui, &engine, &restricted(&project.graph, &needed), &all, of_file, &logins).await?;
        images::ensure(context.ui, &engine, &own, &all, of_flag.clone(), &logins).await?;
        if images::needs_demo(&project.graph) {
            ensure_demo_image(&engine).await?;
        }
        (context.agent_with(&engine, agent_options(&engine)).await?, Some(engine))
    };
    let stream = bring_up(context, project, &seat, &request, &mut caller).await?;
    follow(context.ui, "Running", stream).await?;
    let place = PlaceOneoff { graph: graph.clone(), service: args.service.clone(), no_deps: args.no_deps };
    let host = placed(seat.place_oneoff(project.name(), &place).await?).await?;
    let (client, engine) = match (&fleet, local) {
        (_, Some(engine)) => (seat, engine),
        (Some(fleet), None) => {
            let needs = Needs { wish: wish(args, parallel, of_flag.policy), pull: of_flag, builds: own_build };
            on_host(context, fleet, &host, &own, needs).await?
        }
        (None, None) => return Err(CliError::NoHosts),
    };
    let request = oneoff(project, args, graph)?;
    let made = client.make_oneoff(project.name(), &request).await;
    let made = made.map_err(|error| if fleet.is_some() { CliError::on_host(&host, error) } else { error.into() })?;
    let pod = request.graph.services.get(&args.service).and_then(|service| service.part.as_ref());
    let pod = pod.map(|_| Pod { agent: client, project: project.name().clone(), slug: request.slug.clone() });
    if let Some(pod) = &pod {
        begin(context, pod, request.graph, &args.service, &engine).await?;
    }
    Ok(Made { engine, id: made.container, name: request.name, pod })
}

/// Has what comes before the main container of a pod started. Where that fails its last lines are shown, and all of it goes.
async fn begin(
    context: &mut Context<'_>,
    pod: &Pod,
    graph: Graph,
    service: &ServiceName,
    engine: &DockerEngine,
) -> Result<(), CliError> {
    let request = BeginOneoff { graph, service: service.clone(), slug: pod.slug.clone() };
    let stream = pod.agent.begin_oneoff(&pod.project, &request).await?;
    let Err(error) = follow(context.ui, "Running", stream).await else { return Ok(()) };
    let source = Source::local(Arc::new(engine.clone()));
    lastwords::show_of_oneoff(context.ui, &source, &pod.project, &pod.slug, &error).await;
    pod.end(true).await?;
    Err(error)
}

fn policy(flag: RunPull) -> Option<PullPolicy> {
    match flag {
        RunPull::Always => Some(PullPolicy::Always),
        RunPull::Missing => Some(PullPolicy::Missing),
        RunPull::Never => Some(PullPolicy::Never),
        RunPull::Policy => None,
    }
}

/// The services that a one-off depends on.
fn needed(graph: &Graph, name: &ServiceName, no_deps: bool) -> BTreeSet<ServiceName> {
    let mut queue: Vec<&ServiceName> = Vec::new();
    let of = |name: &ServiceName| graph.services.get(name).into_iter().flat_map(crate::graph::Service::dependencies);
    // What its pod consists of is made with it; what is run before the service is not, as in Docker Compose.
    let own: BTreeSet<&ServiceName> = parts(graph, name).collect();
    let is_step = |other: &ServiceName| graph.services.get(other).and_then(Service::prepares_service) == Some(name);
    let outside = |other: &&ServiceName| !no_deps && !own.contains(other) && !is_step(other);
    queue.extend(own.iter().flat_map(|part| of(part)).filter(outside));
    let mut seen = BTreeSet::new();
    while let Some(next) = queue.pop() {
        if seen.insert(next.clone()) {
            queue.extend(of(next));
            queue.extend(graph.parts(graph.front(next)).map(|(part, _)| part));
            queue.extend(graph.before_start(next));
        }
    }
    seen
}

fn restricted(graph: &Graph, names: &BTreeSet<ServiceName>) -> Graph {
    let mut graph = graph.clone();
    graph.services.retain(|name, _| names.contains(name));
    graph
}

async fn bring_up(
    context: &mut Context<'_>,
    project: &Project,
    seat: &Client,
    request: &UpRequest,
    caller: &mut Caller,
) -> Result<ProgressStream, CliError> {
    consent::ask(context.ui, seat, project.name(), Deed::Overwrite, caller, async |caller| {
        let request = UpRequest { caller: caller.clone(), ..request.clone() };
        Ok(seat.up(project.name(), &request).await?)
    })
    .await
}

/// Waits for what the seat says.
async fn placed(mut stream: ProgressStream) -> Result<HostName, CliError> {
    let mut chosen = None;
    loop {
        let item = stream.next().await;
        if let Some(Ok(Progress::Object { host, .. })) = &item {
            chosen = Some(host.clone());
        }
        if let Step::Done(_) = step(item)? {
            return chosen.ok_or(CliError::Cut);
        }
    }
}

/// Brings a host what the one-off needs. Returns its agent and engine.
async fn on_host(
    context: &mut Context<'_>,
    fleet: &Fleet,
    name: &HostName,
    own: &Graph,
    needs: Needs,
) -> Result<(Client, DockerEngine), CliError> {
    let seen = fleet.look().await?;
    let host = fleet.member(&seen.status, name)?;
    let engine = host.engine().await?;
    let local = DockerEngine::connect(None).await.ok();
    let logins = logins();
    let builder = local.as_ref().unwrap_or(&engine);
    let built = builds::ensure(context.ui, builder, needs.builds, BTreeMap::new(), &needs.wish, &logins).await?;
    let place = Place { host: Arc::clone(&host), engine: &engine, services: own.services.keys().cloned().collect() };
    images::ensure_on(context.ui, vec![place], local.as_ref(), own, &built, needs.pull, &logins).await?;
    Ok((host.agent().await?, engine))
}

fn oneoff(project: &Project, args: &RunArgs, graph: Graph) -> Result<MakeOneoff, CliError> {
    let mut random = [[0; 16]; 2];
    let failed = || CliError::Runtime(std::io::Error::other("the kernel gives no random numbers"));
    for half in &mut random {
        SystemRandom::new().fill(half).map_err(|_| failed())?;
    }
    let [first, second] = random.map(u128::from_be_bytes);
    let slug = format!("{first:032x}{second:032x}");
    let name = || format!("{}-{}-run-{}", project.name(), args.service, &slug[..IN_NAME]);
    Ok(MakeOneoff {
        name: args.name.clone().unwrap_or_else(name),
        graph,
        service: args.service.clone(),
        labels: std::collections::BTreeMap::new(),
        use_aliases: args.use_aliases,
        auto_remove: args.rm,
        stdin_once: args.interactive,
        slug,
    })
}

/// Starts it; unless it is to run in the background, stays until it has ended.
async fn start(context: &mut Context<'_>, args: &RunArgs, made: Made, tty: bool) -> Result<Exit, CliError> {
    let Made { engine, id, name, pod } = made;
    let engine = &engine;
    if args.detach {
        let started = started(engine, &name, args.rm).await;
        if let (Err(_), Some(pod)) = (&started, &pod) {
            pod.end(args.rm).await?;
        }
        started?;
        context.ui.line(&id)?;
        return Ok(Exit::Success);
    }
    let ended = watched(context, args, engine, &id, &name, tty).await;
    if let Some(pod) = pod.filter(|_| !matches!(ended, Ok(None))) {
        pod.end(args.rm).await?;
    }
    Ok(ended?.unwrap_or(Exit::Success))
}

/// Starts it and stays until it has ended; `None`: somebody went away from it before.
async fn watched(
    context: &mut Context<'_>,
    args: &RunArgs,
    engine: &DockerEngine,
    id: &str,
    name: &str,
    tty: bool,
) -> Result<Option<Exit>, CliError> {
    let signals = Forwarded::listen()?;
    let spec = AttachSpec { stdin: args.interactive, detach_keys: None };
    let Attached { output, input } = engine.attach(id, &spec).await?;
    let wait = if args.rm { WaitFor::Removed } else { WaitFor::NextExit };
    let exiting = engine.begin_wait(id, wait).await?;
    started(engine, name, args.rm).await?;
    let input = args.interactive.then_some(input);
    let detach = DetachKeys::usual();
    let session = Session { engine, process: Process::Main(id), output, input, ends_input: true, tty, detach };
    if session.run(context.ui, Some(signals)).await? == Ended::Detached {
        return Ok(None);
    }
    Ok(Some(Exit::of_container(exiting.await?)))
}

/// One that could not be started is not left behind where it would have removed itself.
async fn started(engine: &dyn Engine, name: &str, removes_itself: bool) -> Result<(), CliError> {
    match engine.start_container(name).await {
        Ok(_) => Ok(()),
        // It has ended and is gone already, before anybody could look at it.
        Err(EngineError::NotFound { what: "container", .. }) if removes_itself => Ok(()),
        Err(error) => {
            if removes_itself {
                engine.remove_container(name, true).await.ok();
            }
            Err(error.into())
        }
    }
}
