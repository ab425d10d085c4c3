//! Readies a host: orch's image into its engine, its agent up and answering. Start at [`ensure_agent`].
//!
//! What is to be done next is decided by [`decide`](mod@decide) from what is there; the loop around it does that one thing and looks
//! again. So two command lines at the same time, one that was killed half way, or an agent that somebody stopped by
//! hand are all the same case. This module must never touch a container that is not an agent's.

mod decide;
mod spec;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::time::Instant;

pub use self::decide::{Decision, Refusal, decide};
pub use self::spec::agent_spec;
use super::image::Build;
use super::local;
use crate::engine::{Engine, EngineError, LogQuery};
use crate::observed::ObservedContainer;

/// What is asked of an agent over its socket. The API's client is one.
#[async_trait]
pub trait AgentApi: Send + Sync {
    /// Returns the build of the agent that answers, or why none does.
    async fn build(&self) -> Result<String, String>;
    /// Makes it remove its rules, addresses, mounts and files.
    async fn uninstall(&self) -> Result<(), String>;
}

/// Where the agent lives on its host. Others than the default are for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOptions {
    /// Name of its container.
    pub name: String,
    /// The engine's socket on the engine's host.
    pub engine_socket: String,
    /// Directory of its state.
    pub state_dir: String,
    /// Directory of its socket.
    pub run_dir: String,
    /// Environment, `RUST_LOG` for one.
    pub environment: Vec<(String, String)>,
    /// Replace a newer agent too.
    pub allow_downgrade: bool,
    /// How long it may take until it answers.
    pub deadline: Duration,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            name: "orch-agent".to_owned(),
            engine_socket: "/var/run/docker.sock".to_owned(),
            state_dir: local::STATE_DIR.to_owned(),
            run_dir: local::RUN_DIR.to_owned(),
            environment: Vec::new(),
            allow_downgrade: false,
            deadline: Duration::from_secs(30),
        }
    }
}

impl AgentOptions {
    /// Returns the path of its socket.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(&self.run_dir).join(local::SOCKET_NAME)
    }
}

/// An agent that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStatus {
    /// What had to be done, in order; empty: it was there.
    pub done: Vec<Done>,
    /// Engine id of its container.
    pub container: String,
}

/// Something that [`ensure_agent`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Loaded its image.
    Loaded,
    /// Removed another version or build.
    Removed {
        /// Its version.
        version: String,
    },
    /// Made the container.
    Created,
    /// Started it.
    Started,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The engine.
    #[error("the agent could not be started on this host")]
    Engine(#[from] EngineError),
    /// orch's own binary.
    #[error("orch's image could not be made from its own binary")]
    Binary(#[source] std::io::Error),
    /// What is there may not be replaced.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It runs or crashes, but does not answer.
    #[error("the agent did not answer within {} s: {message}{}", .waited.as_secs(), last_words(.log))]
    Silent {
        /// How long it was waited for.
        waited: Duration,
        /// What was seen last.
        message: String,
        /// Its last lines.
        log: String,
    },
    /// It was asked to clean up and could not.
    #[error("the agent could not remove what it made on this host: {message}")]
    NotCleaned {
        /// The agent's words.
        message: String,
    },
}

fn last_words(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("\nthe last lines of its log:\n{}", log.trim_end()) }
}

/// Makes sure that an agent of this build runs and answers; replaces one of an older version or another build.
///
/// Safe to run by several at once, and to be cut off at any point.
///
/// # Errors
/// [`BootstrapError`]; with [`BootstrapError::Refused`] nothing was changed.
pub async fn ensure_agent(
    engine: &dyn Engine,
    api: &dyn AgentApi,
    build: &Build,
    options: &AgentOptions,
) -> Result<AgentStatus, BootstrapError> {
    let mut pass = Pass {
        engine,
        build,
        options,
        done: Vec::new(),
        seen: String::new(),
        begun: Instant::now(),
        down: 0,
        runs: BTreeSet::new(),
    };
    loop {
        let there = pass.look().await?;
        let next = decide(there.as_ref(), build, options.allow_downgrade)?;
        if next == Decision::Ask {
            match api.build().await {
                Ok(hash) if hash == build.hash => {
                    pass.forget_old_images().await?;
                    let container = there.map(|container| container.id).unwrap_or_default();
                    return Ok(AgentStatus { done: pass.done, container });
                }
                Ok(hash) => pass.seen = format!("build {hash} answers instead of {}", build.hash),
                Err(message) => pass.seen = message,
            }
        }
        if let Some(message) = pass.give_up(&next, there.as_ref()) {
            let waited = pass.begun.elapsed();
            if next == Decision::WaitForEngine || pass.runs.len() >= Pass::MOST_RUNS {
                // Else the engine would start it for ever; stopped, its log can be read and the next run starts it.
                pass.stop_for_good().await;
            }
            return Err(BootstrapError::Silent { waited, message, log: last_lines(engine, &options.name).await });
        }
        pass.act(next, there.as_ref()).await?;
    }
}

/// One run of [`ensure_agent`].
struct Pass<'a> {
    engine: &'a dyn Engine,
    build: &'a Build,
    options: &'a AgentOptions,
    done: Vec<Done>,
    /// What stood in the way last.
    seen: String,
    begun: Instant,
    /// Looks in a row at which the engine had it down after a crash.
    down: u32,
    /// When it was started, as often as that was seen: Podman starts what crashes again at once, so that it is hardly ever
    /// seen to be down.
    runs: BTreeSet<String>,
}

impl Pass<'_> {
    /// Time between two looks.
    const PAUSE: Duration = Duration::from_millis(50);
    /// Crashes are worth so many looks: the first one may have been a hand-over that went wrong.
    const PATIENCE: u32 = 20;
    /// Looks in a row at which it does not run, after which it will not.
    const RESTS: u32 = 6;
    /// One that was started so often will not answer: an engine that pauses longer each time is given up sooner.
    const MOST_RUNS: usize = 10;

    async fn look(&self) -> Result<Option<ObservedContainer>, EngineError> {
        match self.engine.inspect_container(&self.options.name).await {
            Ok(container) => Ok(Some(container)),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stops it. Podman starts one again that ended by itself just before it was told to stop; what keeps running is left so.
    async fn stop_for_good(&self) {
        let mut rested = 0;
        for _ in 0..Self::PATIENCE {
            drop(self.engine.stop_container(&self.options.name, spec::STOP_GRACE).await);
            tokio::time::sleep(Self::PAUSE).await;
            let seen = self.engine.inspect_container(&self.options.name).await;
            rested = if seen.is_ok_and(|seen| seen.state.is_active()) { 0 } else { rested + 1 };
            if rested == Self::RESTS {
                return;
            }
        }
    }

    /// Returns why it makes no sense to go on.
    fn give_up(&mut self, next: &Decision, there: Option<&ObservedContainer>) -> Option<String> {
        let ours = self.done.contains(&Done::Started);
        self.down = if *next == Decision::WaitForEngine && ours { self.down + 1 } else { 0 };
        self.runs.extend(there.filter(|_| ours).map(|there| there.started_at.clone()));
        if self.down >= Self::PATIENCE || self.runs.len() >= Self::MOST_RUNS {
            return Some("it ends again and again".to_owned());
        }
        let replaced = self.done.iter().filter(|done| matches!(done, Done::Removed { .. })).count();
        if replaced > 2 {
            return Some("another orch replaces it at the same time".to_owned());
        }
        (self.begun.elapsed() > self.options.deadline).then(|| match next {
            Decision::WaitForEngine => "it ends again and again, or is being removed".to_owned(),
            Decision::Start => "it ended".to_owned(),
            _ => self.seen.clone(),
        })
    }

    async fn act(&mut self, next: Decision, there: Option<&ObservedContainer>) -> Result<(), BootstrapError> {
        // By id: the name may belong to a new container by now, which somebody else made.
        let id = there.map(|container| container.id.as_str()).unwrap_or_default();
        match next {
            Decision::Create => self.create().await?,
            Decision::Start => match self.engine.start_container(id).await {
                Ok(_) | Err(EngineError::NotFound { .. }) => self.done.push(Done::Started),
                Err(EngineError::Refused { message, .. }) if lacks_a_mount(&message, self.options) => {
                    // Engines that do not make it at the start make it with the container.
                    self.engine.remove_container(id, true).await?;
                }
                // The engine itself starts it at this moment, or somebody else does.
                Err(conflict @ EngineError::Conflict { .. }) => {
                    self.seen = conflict.to_string();
                    tokio::time::sleep(Self::PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            },
            Decision::Thaw => self.engine.unpause_container(id).await.or_else(gone_is_fine)?,
            Decision::Replace { version } => {
                self.ensure_image().await?;
                // One that crashes again and again can be hard to stop (Podman); removing it is what counts.
                drop(self.engine.stop_container(id, spec::STOP_GRACE).await);
                self.engine.remove_container(id, true).await?;
                self.done.push(Done::Removed { version });
            }
            Decision::Ask | Decision::WaitForEngine => tokio::time::sleep(Self::PAUSE).await,
        }
        Ok(())
    }

    async fn ensure_image(&mut self) -> Result<(), BootstrapError> {
        if load_unless_there(self.engine, self.build, &self.build.image()).await? {
            self.done.push(Done::Loaded);
        }
        Ok(())
    }

    /// Removes the images of builds that were replaced. What containers still use stays.
    async fn forget_old_images(&self) -> Result<(), EngineError> {
        if !self.done.iter().any(|done| matches!(done, Done::Removed { .. })) {
            return Ok(());
        }
        for reference in self.engine.image_references(self.build.repository()).await? {
            if reference == self.build.image() {
                continue;
            }
            match self.engine.remove_image(&reference).await {
                Ok(()) | Err(EngineError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<(), BootstrapError> {
        self.ensure_image().await?;
        let info = self.engine.info().await?;
        let spec = agent_spec(self.build, self.options, &info);
        let id = match self.engine.create_container(&spec).await {
            Ok(id) => id,
            // Somebody else makes it at this moment: the next look finds theirs.
            Err(conflict @ EngineError::Conflict { .. }) => {
                self.seen = conflict.to_string();
                tokio::time::sleep(Self::PAUSE).await;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.done.push(Done::Created);
        // By name, which reads better in errors; should it be another's by now, that one is to run too.
        match self.engine.start_container(&self.options.name).await {
            Ok(_) => self.done.push(Done::Started),
            Err(EngineError::NotFound { .. }) => {}
            Err(error) => {
                // Nothing half made stays; that this fails too is not more worth knowing than the first error.
                drop(self.engine.remove_container(&id, true).await);
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// Returns whether an engine did not start the agent because a directory that it mounts is gone, as `/run/orch` is after a
/// boot.
fn lacks_a_mount(message: &str, options: &AgentOptions) -> bool {
    let AgentOptions { state_dir, run_dir, .. } = options;
    message.to_lowercase().contains("no such file or directory")
        && [state_dir, run_dir].iter().any(|path| message.contains(path.as_str()))
}

fn gone_is_fine(error: EngineError) -> Result<(), EngineError> {
    if matches!(error, EngineError::NotFound { .. }) { Ok(()) } else { Err(error) }
}

/// Loads orch's images unless `reference` is there. Returns whether it did.
async fn load_unless_there(engine: &dyn Engine, build: &Build, reference: &str) -> Result<bool, BootstrapError> {
    if engine.image_id(reference).await?.is_some() {
        return Ok(false);
    }
    let build = build.clone();
    let archive = tokio::task::spawn_blocking(move || build.archive()).await;
    let archive = archive.map_err(std::io::Error::other).flatten().map_err(BootstrapError::Binary)?;
    engine.load_image(archive).await?;
    Ok(true)
}

/// Makes sure that the image of the demo workloads is there, of whatever build.
///
/// # Errors
/// [`BootstrapError`] of the engine or the binary.
pub async fn ensure_demo_image(engine: &dyn Engine, build: &Build) -> Result<(), BootstrapError> {
    load_unless_there(engine, build, &build.demo_image()).await.map(drop)
}

/// Stops the agent; projects keep running, without names that change, healing and load balancing. The engine does not
/// start it again by itself until its own restart. Returns whether it ran.
///
/// # Errors
/// The engine's.
pub async fn stop_agent(engine: &dyn Engine, options: &AgentOptions) -> Result<bool, BootstrapError> {
    let Some(container) = find_agent(engine, options).await? else { return Ok(false) };
    engine.stop_container(&container.id, spec::STOP_GRACE).await?;
    Ok(container.is_running())
}

/// Returns the agent's container, where there is one.
///
/// # Errors
/// The engine's; [`BootstrapError`] where something else has its name.
pub async fn find_agent(
    engine: &dyn Engine,
    options: &AgentOptions,
) -> Result<Option<ObservedContainer>, BootstrapError> {
    let container = match engine.inspect_container(&options.name).await {
        Ok(container) => container,
        Err(EngineError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    decide::check_ours(&container)?;
    Ok(Some(container))
}

/// Returns the references of orch's images that an engine has.
///
/// # Errors
/// The engine's.
pub async fn own_images(engine: &dyn Engine, build: &Build) -> Result<Vec<String>, BootstrapError> {
    let mut references = engine.image_references(build.repository()).await?;
    references.extend([build.demo_image(), build.holder_image()]);
    let mut there = Vec::new();
    for reference in references {
        if engine.image_id(&reference).await?.is_some() {
            there.push(reference);
        }
    }
    Ok(there)
}

/// What [`uninstall_agent`] removed and what it had to leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uninstalled {
    /// Whether there was a container.
    pub container: bool,
    /// References of removed images.
    pub images: Vec<String>,
    /// References of images that containers still use.
    pub kept: Vec<String>,
}

/// Makes the agent clean up its host, then removes its container and orch's images.
///
/// An agent that does not run is started for it: only it can undo what it did.
///
/// # Errors
/// [`BootstrapError::NotCleaned`] before anything is removed; else the engine's.
pub async fn uninstall_agent(
    engine: &dyn Engine,
    api: &dyn AgentApi,
    build: &Build,
    options: &AgentOptions,
) -> Result<Uninstalled, BootstrapError> {
    let mut result = Uninstalled::default();
    if find_agent(engine, options).await?.is_some() {
        if api.build().await.is_err() {
            ensure_agent(engine, api, build, &AgentOptions { allow_downgrade: true, ..options.clone() }).await?;
        }
        let mut cleaned = api.uninstall().await;
        if cleaned.is_err() {
            // An agent that hears just now that its host is out of the cluster starts anew; what it was asked is lost with it.
            ensure_agent(engine, api, build, &AgentOptions { allow_downgrade: true, ..options.clone() }).await?;
            cleaned = api.uninstall().await;
        }
        cleaned.map_err(|message| BootstrapError::NotCleaned { message })?;
        engine.stop_container(&options.name, spec::STOP_GRACE).await?;
        engine.remove_container(&options.name, true).await?;
        result.container = true;
    }
    for reference in own_images(engine, build).await? {
        match engine.remove_image(&reference).await {
            Ok(()) => result.images.push(reference),
            Err(EngineError::Conflict { .. }) => result.kept.push(reference),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(result)
}

/// Returns the last lines of a container's log; nothing where it cannot be read.
async fn last_lines(engine: &dyn Engine, name: &str) -> String {
    let query = LogQuery { tail: Some(15), ..LogQuery::default() };
    let mut chunks = engine.logs(name, &query);
    let mut text = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        text.extend_from_slice(&chunk.bytes);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests;
