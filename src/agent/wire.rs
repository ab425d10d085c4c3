//! Puts the agent together. The one place that names the concrete edges and starts tasks.
//!
//! | task | reads | writes | ends |
//! |---|---|---|---|
//! | informer | the engine's events | the picture, records of exits | with the agent |
//! | dataplane | picture, records | tables, listeners, rules, addresses | with the agent |
//! | ambassadors | picture, records | listeners inside pods | with the agent |
//! | one-offs | the picture | what is left of pods that `run` made | with the agent |
//! | probes | picture, records, what containers answer | the picture | with the agent |
//! | machine | the host | what is told of it | with the agent |
//! | show | the picture | what the other hosts are told | with the agent |
//! | seat | all hosts' pictures | records | with the agent |
//! | link | the cluster's hosts | streams to and from them | with the agent |
//! | snapshots | records, the picture, other hosts | files that containers mount | with the agent |
//! | one loop a project | its record, picture | the engine, progress | when the project is gone |
//! | API server | its socket | records | with the agent |
//! | metrics | what is counted | its listener, where one is asked for | with the agent |
//! | access log | requests that were served, where that is asked for | the agent's log | with the agent |
//! | clients | progress, states | their streams | with their client |
//!
//! Order at the start: store, picture, what containers answer, rules and names, and only then loops: what is started finds its names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SystemClock;
use crate::engine::docker::DockerEngine;
use crate::engine::{Engine as _, EngineError};
use crate::host::asking::HostAsker;
use crate::host::engine_process::EngineDirectory;
use crate::host::files::HostFiles;
use crate::host::network::LinuxHostNetwork;
use crate::host::tools::HostTools;
use crate::ids::ProjectName;
use crate::lb::{Balancer, BalancerOptions};
use crate::mesh::{Mesh, MeshOptions};
use crate::net::dns::DnsServer;
use crate::net::names::NameTable;
use crate::store::embedded::Embedded;
use crate::store::sealed::Sealed;
use crate::store::{Entry, Store};
use crate::transport::image::Build;

use super::dataplane::Dataplane;
use super::fleet::{link, members};
use super::handler::AgentHandler;
use super::informer::Informer;
use super::metrics::expose;
use super::shared::{Edges, ProjectHandle, Record, Shared};
use super::{AgentError, AgentOptions, reconcile};

/// Pause between two attempts to reach an engine that does not answer yet.
const ENGINE_RETRY: Duration = Duration::from_millis(200);

/// How long an agent waits for its engine before it gives up and lets itself be restarted.
const ENGINE_DEADLINE: Duration = Duration::from_mins(1);

/// What has systemd make the run directory at boot, for engines that do not.
const MADE_AT_BOOT: &str = "/etc/tmpfiles.d/orch.conf";

/// Time that clients' streams have to end when the agent stops.
const CLIENT_DRAIN: Duration = Duration::from_millis(500);

/// Runs an agent until SIGTERM or SIGINT. What runs on the engine goes on.
///
/// # Errors
/// Why it could not start.
pub async fn run(options: AgentOptions) -> Result<(), AgentError> {
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (announce, announced) = mpsc::unbounded_channel();
    let shared = Arc::new(assemble(options, announce).await?);
    let uninstalled = start(&shared, announced, &stop, &tasks).await?;
    start_mesh(&shared, &stop, &tasks)?;
    let listener = bind(&shared)?;
    let build = Build::own().map_err(io("cannot read", Path::new("/proc/self/exe")))?.hash;
    let handler = Arc::new(AgentHandler::new(shared.clone(), build, uninstalled));
    tasks.spawn(crate::api::server::serve(listener, handler.clone(), stop.clone()));
    tasks.spawn(expose::run(shared.clone(), handler, stop.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), host = %shared.host(), "agent ready");
    tokio::select! {
        asked = until_asked_to_stop() => asked?,
        // The engine starts it again at once, as what it has become.
        () = shared.restart.cancelled() => tracing::info!("starting anew as another host of a cluster"),
    }
    stop.cancel();
    shared.clients.close();
    // Streams that are still open end with the process.
    let _ = tokio::time::timeout(CLIENT_DRAIN, shared.clients.wait()).await;
    tracing::info!("agent stops; containers go on");
    Ok(())
}

/// Connects this host with the others of its cluster, if it has one.
fn start_mesh(shared: &Arc<Shared>, stop: &CancellationToken, tasks: &TaskTracker) -> Result<(), AgentError> {
    if shared.fleet().cluster.is_none() {
        return Ok(());
    }
    let identity = shared.identity.identity()?.ok_or(AgentError::NoIdentity)?;
    let mesh = Mesh::new(identity, shared.clock.clone(), MeshOptions::default()).map_err(AgentError::Identity)?;
    drop(shared.mesh.set(mesh.clone()));
    tasks.spawn(link::run(shared.clone(), mesh, stop.clone()));
    Ok(())
}

/// Brings the agent's parts to life in their order. Returns what to cancel when nothing may be touched any more.
pub(super) async fn start(
    shared: &Arc<Shared>,
    announced: mpsc::UnboundedReceiver<Arc<ProjectHandle>>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<CancellationToken, AgentError> {
    if let Err(error) = shared.snapshots.clean() {
        tracing::warn!(error = crate::diag::chain(&error), "files of a transfer that was cut off are still here");
    }
    if let Err(error) = shared.files.ensure_made_at_boot().await {
        tracing::warn!(%error, "after a boot this agent may not start");
    }
    shared.exposure.load(shared.store.as_ref()).await?;
    super::access::load(shared).await?;
    shared.informer.load_exits().await?;
    shared.images.load(shared.store.as_ref()).await?;
    shared.informer.resync().await?;
    shared.informer.prune_exits().await?;
    shared.hooks.load(shared.store.as_ref(), &shared.informer).await?;
    load_projects(shared).await?;
    super::probes::ask_at_start(shared).await;
    shared.dataplane.refresh_tables(shared);
    if let Err(error) = shared.dataplane.ensure_host(shared).await {
        // Containers that run must not wait for a broken firewall; the check repeats.
        tracing::error!(%error, "rules and addresses are not in order");
    }
    let uninstalled = stop.child_token();
    tasks.spawn(shared.informer.clone().run(stop.clone()));
    tasks.spawn(shared.dataplane.clone().run(shared.clone(), uninstalled.clone()));
    tasks.spawn(super::ambassadors::run(shared.clone(), uninstalled.clone()));
    tasks.spawn(super::oneoff::pod::run(shared.clone(), uninstalled.clone()));
    tasks.spawn(super::access::run(shared.clone(), stop.clone()));
    tasks.spawn(super::probes::run(shared.clone(), stop.clone()));
    tasks.spawn(super::fleet::seat::run(shared.clone(), stop.clone()));
    tasks.spawn(super::fleet::machine::run(shared.clone(), stop.clone()));
    tasks.spawn(super::fleet::show(shared.clone(), stop.clone()));
    tasks.spawn(super::snapshots::keep(shared.clone(), stop.clone()));
    tasks.spawn(start_loops(shared.clone(), announced, stop.clone(), tasks.clone()));
    Ok(uninstalled)
}

async fn assemble(
    mut options: AgentOptions,
    announce: mpsc::UnboundedSender<Arc<ProjectHandle>>,
) -> Result<Shared, AgentError> {
    let engine = Arc::new(match &options.engine {
        Some(address) => connect(Some(address)).await?,
        None => connect_lasting().await?,
    });
    let engine_info = engine.info().await?;
    std::fs::create_dir_all(&options.state_dir).map_err(io("cannot make", &options.state_dir))?;
    let store = Embedded::open(options.state_dir.join("store.db")).await?;
    let store: Arc<dyn Store> = Arc::new(Sealed::open(Arc::new(store), options.state_dir.join("secrets.key")).await?);
    let fleet = members::load(store.as_ref(), &options.host).await?;
    options.host.clone_from(&fleet.own);
    let informer = Arc::new(Informer::new(engine.clone(), store.clone(), options.host.clone()));
    let names = Arc::new(ArcSwap::from_pointee(NameTable::default()));
    let dns = DnsServer::new(tokio::runtime::Handle::current(), names.clone());
    let balancer_options =
        BalancerOptions { threads: options.lb_threads, own_host: options.host.clone(), ..BalancerOptions::default() };
    let balancer = Balancer::start(balancer_options).map_err(|source| AgentError::Io {
        what: "cannot start the threads of",
        path: "the load balancer".into(),
        source,
    })?;
    let host_network = LinuxHostNetwork::of_host().map_err(io("cannot enter", Path::new("/proc/1/ns/mnt")))?;
    let tools = HostTools::of_host().map_err(io("cannot enter", Path::new("/proc/1/ns/mnt")))?;
    let files = HostFiles::new(&options.state_dir, &options.run_dir, tools);
    let files = if engine_info.makes_missing_mounts() { files } else { files.made_at_boot(MADE_AT_BOOT) };
    let files = Arc::new(files);
    let dataplane = Arc::new(Dataplane::new(names, dns, balancer, Arc::new(host_network)));
    let clock = Arc::new(SystemClock);
    let asker = Arc::new(HostAsker);
    let edges = Edges { engine, engine_info, store, clock, asker, informer, dataplane, files };
    Ok(Shared::new(options, fleet, edges, announce))
}

/// Connects to the engine of this host by a path that leads to the next engine's socket, too.
async fn connect_lasting() -> Result<DockerEngine, EngineError> {
    // The first connect waits until the engine is there.
    let mounted = connect(None).await?;
    let directory = match tokio::task::spawn_blocking(EngineDirectory::of_host).await.map_err(std::io::Error::other) {
        Ok(Ok(directory)) => directory,
        Ok(Err(error)) | Err(error) => {
            tracing::warn!(%error, "only the mounted socket of the engine is seen: a restart with live-restore cuts it");
            return Ok(mounted);
        }
    };
    let path = directory.socket().to_string_lossy().into_owned();
    // Held for as long as the process lives: the path leads through it.
    std::mem::forget(directory);
    connect(Some(&path)).await
}

/// Connects to the engine, waiting a while: after a reboot it may come up later than its own containers seem to.
async fn connect(address: Option<&str>) -> Result<DockerEngine, EngineError> {
    let deadline = tokio::time::Instant::now() + ENGINE_DEADLINE;
    loop {
        match DockerEngine::connect(address).await {
            Err(error) if error.is_transient() && tokio::time::Instant::now() < deadline => {
                tracing::warn!(%error, "waiting for the engine");
                tokio::time::sleep(ENGINE_RETRY).await;
            }
            result => return result,
        }
    }
}

/// Reads the projects' records; each gets its loop once the loops start.
async fn load_projects(shared: &Shared) -> Result<(), AgentError> {
    let (entries, _) = shared.store.list("projects/").await?;
    for Entry { key, value, .. } in entries {
        let name = ProjectName::new(key.trim_start_matches("projects/"));
        match (name, serde_json::from_slice::<Record>(&value)) {
            (Ok(name), Ok(record)) => drop(shared.tell(&name, record)),
            (Err(error), _) => tracing::error!(key, %error, "the store holds a project without a valid name"),
            (_, Err(error)) => tracing::error!(key, %error, "the store holds a project that cannot be read"),
        }
    }
    Ok(())
}

/// Starts a loop for each project that is announced.
async fn start_loops(
    shared: Arc<Shared>,
    mut announced: mpsc::UnboundedReceiver<Arc<ProjectHandle>>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            handle = announced.recv() => match handle {
                Some(handle) => drop(tasks.spawn(reconcile::run(shared.clone(), handle, stop.clone()))),
                None => return,
            },
        }
    }
}

fn bind(shared: &Shared) -> Result<tokio::net::UnixListener, AgentError> {
    let path = shared.options.run_dir.join("agent.sock");
    std::fs::create_dir_all(&shared.options.run_dir).map_err(io("cannot make", &shared.options.run_dir))?;
    crate::api::server::bind_socket(&path, super::process::engine_group()).map_err(AgentError::Socket)
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> AgentError {
    let path = path.display().to_string();
    move |source| AgentError::Io { what, path, source }
}

async fn until_asked_to_stop() -> Result<(), AgentError> {
    let no_signals = |source| AgentError::Io { what: "cannot receive signals of", path: "this process".into(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
