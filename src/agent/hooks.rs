//! Commands that are run inside a container after its start and before its stop (`post_start`, `pre_stop`).
//!
//! Those after the start are run once for each run of a container, whoever started it; which run that was is kept in the
//! store, so that an agent that ends in between runs them again and one that starts anew does not. Where one fails, those
//! after it are not run, and the plan says so for as long as that run lasts. Those before the stop are written on the
//! container: they are its own, also once the file says something else or is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::{Engine, EngineError, ExecSpec, label};
use crate::graph::{Hook, Service};
use crate::ids::{PodId, ProjectName};
use crate::observed::{Hooked, ObservedContainer};
use crate::plan::Desired;
use crate::store::{Store, StoreError, Write};

use super::informer::Informer;
use super::shared::{Aim, ProjectHandle, Shared};

/// Prefix of the store's keys; the container's id follows.
const PREFIX: &str = "hooks/";

/// Time that the engine has to say how a command ended, once its output has.
const CODE_DEADLINE: Duration = Duration::from_secs(5);
/// Pause between two such questions.
const CODE_PAUSE: Duration = Duration::from_millis(10);

/// How much of a command's output is kept for who asks what went wrong: its end.
const TOLD: usize = 2_000;

/// The last run of each container that its hooks were run for, by the container's id.
#[derive(Debug, Default)]
pub(super) struct Hooks(Mutex<BTreeMap<String, Hooked>>);

impl Hooks {
    /// Reads what the store has kept, and forgets containers that are gone.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn load(&self, store: &dyn Store, informer: &Informer) -> Result<(), StoreError> {
        let seen = informer.everything();
        let (entries, _) = store.list(PREFIX).await?;
        let mut gone = Vec::new();
        for entry in entries {
            let id = entry.key.trim_start_matches(PREFIX).to_owned();
            let is_there = seen.hosts.values().any(|host| host.containers.contains_key(&id));
            match serde_json::from_slice::<Hooked>(&entry.value) {
                Ok(hooked) if is_there => drop(self.lock().insert(id, hooked)),
                _ => gone.push(Write::Delete(entry.key)),
            }
        }
        if gone.is_empty() { Ok(()) } else { store.transact(&[], &gone).await.map(drop) }
    }

    /// Returns the last run of a container that its hooks were run for.
    pub(super) fn of(&self, container: &ObservedContainer) -> Option<Hooked> {
        self.lock().get(&container.id).cloned()
    }

    /// Keeps how the hooks of a run went. Without the store it is known until this agent ends.
    async fn keep(&self, store: &dyn Store, id: &str, hooked: Hooked) {
        if let Ok(value) = serde_json::to_vec(&hooked) {
            let write = Write::Put { key: format!("{PREFIX}{id}"), value, lease: None };
            if let Err(error) = store.transact(&[], &[write]).await {
                tracing::warn!(container = id, %error, "cannot keep that hooks were run");
            }
        }
        self.lock().insert(id.to_owned(), hooked);
    }

    /// Forgets a container that is gone.
    pub(super) async fn forget(&self, store: &dyn Store, id: &str) {
        if self.lock().remove(id).is_none() {
            return;
        }
        if let Err(error) = store.transact(&[], &[Write::Delete(format!("{PREFIX}{id}"))]).await {
            tracing::warn!(container = id, %error, "cannot forget that hooks were run");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Hooked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what is to be run after the start of a container, unless it was for this run. A hook that never ends keeps nobody
/// from stopping the container: it is not waited for any more then.
///
/// # Errors
/// What may be better another time; that a hook failed is no error here, but in the plan from now on.
pub(super) async fn post_start(
    shared: &Shared,
    handle: &ProjectHandle,
    desired: &Desired,
    pod: &PodId,
    container: &ObservedContainer,
) -> Result<(), String> {
    let Some(service) = desired.graph.services.get(&pod.service) else { return Ok(()) };
    let hooks = &service.container.post_start;
    let was_run = shared.hooks.of(container).is_some_and(|hooked| hooked.started_at == container.started_at);
    if hooks.is_empty() || was_run || !container.is_running() {
        return Ok(());
    }
    let mut failure = None;
    for hook in hooks {
        let ended = tokio::select! {
            ended = run(shared.engine.as_ref(), &container.id, hook, service.container.tty) => ended,
            () = unwanted(handle, pod, &service.spec_hash) => return Ok(()),
        };
        match ended {
            Ok(Ended { code: 0, .. }) => {}
            Ok(ended) => {
                failure = Some(format!("{} hook {ended}", pod.service));
                break;
            }
            // It has ended meanwhile: its next run is another one.
            Err(EngineError::Conflict { .. } | EngineError::NotFound { .. }) => return Ok(()),
            Err(error) if error.is_transient() && !is_about_the_command(&error) => return Err(error.to_string()),
            Err(error) => {
                failure = Some(format!("{} hook: {error}", pod.service));
                break;
            }
        }
    }
    let hooked = Hooked { started_at: container.started_at.clone(), failure };
    shared.hooks.keep(shared.store.as_ref(), &container.id, hooked).await;
    Ok(())
}

/// Runs what is to be run after a start of a helper of a one-off. It is not kept that it was: whoever starts it runs it.
///
/// # Errors
/// How a hook failed.
pub(super) async fn after_start(
    shared: &Shared,
    container: &ObservedContainer,
    service: &Service,
) -> Result<(), String> {
    for hook in &service.container.post_start {
        match run(shared.engine.as_ref(), &container.id, hook, service.container.tty).await {
            Ok(Ended { code: 0, .. }) => {}
            Ok(ended) => return Err(format!("container {}: hook {ended}", container.name)),
            Err(error) => return Err(format!("container {}: hook: {error}", container.name)),
        }
    }
    Ok(())
}

/// The engine says that a program is not there as if something of its own was wrong.
fn is_about_the_command(error: &EngineError) -> bool {
    matches!(error, EngineError::Failed { message, .. } if message.contains("exec failed"))
}

/// Ends once the container is not to run any more as it is.
async fn unwanted(handle: &ProjectHandle, pod: &PodId, spec_hash: &str) {
    let mut records = handle.record.subscribe();
    loop {
        let wanted = records.borrow_and_update().as_ref().is_some_and(|record| {
            let service = record.desired.as_ref().and_then(|desired| desired.graph.services.get(&pod.service));
            record.aim == Aim::Up && service.is_some_and(|service| service.spec_hash == spec_hash)
        });
        if !wanted || records.changed().await.is_err() {
            return;
        }
    }
}

/// Runs what is to be run before the stop of a container. It is stopped whatever becomes of that, and at once if somebody
/// is in a hurry meanwhile.
pub(super) async fn pre_stop(shared: &Shared, project: &ProjectName, id: &str, mut graces: watch::Receiver<Duration>) {
    let observed = shared.observed(Some(project));
    let Some(container) = observed.hosts.values().find_map(|host| host.containers.get(id)) else { return };
    if !container.is_running() {
        return;
    }
    let hooks = match container.labels.get(label::PRE_STOP).map(|text| serde_json::from_str(text)) {
        Some(Ok::<Vec<Hook>, _>(hooks)) => hooks,
        Some(Err(error)) => {
            tracing::warn!(container = container.name, %error, "unreadable hooks: stopped without");
            return;
        }
        None if container.is_of_docker_compose() => of_file(shared, project, container),
        None => return,
    };
    graces.mark_unchanged();
    for hook in &hooks {
        tokio::select! {
            ended = run(shared.engine.as_ref(), id, hook, false) => match ended {
                Ok(Ended { code: 0, .. }) => {}
                Ok(ended) => tracing::warn!(container = container.name, %ended, "a hook before the stop failed"),
                Err(error) => tracing::warn!(container = container.name, %error, "a hook before the stop failed"),
            },
            Ok(()) = graces.changed() => {
                tracing::warn!(container = container.name, "a hook before the stop is not waited for any more");
                return;
            }
        }
    }
}

/// What the file says is to be run before the stop of a container that Docker Compose made, which has nothing of its own.
fn of_file(shared: &Shared, project: &ProjectName, container: &ObservedContainer) -> Vec<Hook> {
    let record = shared.project(project).and_then(|handle| handle.record.borrow().clone());
    let desired = record.as_ref().and_then(|record| record.desired.as_ref());
    let service = container.service.as_ref().and_then(|name| desired?.graph.services.get(name));
    service.map(|service| service.container.pre_stop.clone()).unwrap_or_default()
}

/// How a hook ended.
struct Ended {
    code: i64,
    /// The last line that it, or the engine for it, wrote.
    last_words: String,
}

/// Docker Compose's words, and the hook's own.
impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exited with status {}", self.code)?;
        if self.last_words.is_empty() { Ok(()) } else { write!(f, ": {}", self.last_words) }
    }
}

/// Runs a hook to its end.
async fn run(engine: &dyn Engine, id: &str, hook: &Hook, tty: bool) -> Result<Ended, EngineError> {
    let Hook { command, environment: _, unset: _, user, working_dir, privileged } = hook;
    let spec = ExecSpec {
        command: command.clone(),
        env: hook.variables(),
        user: user.clone(),
        working_dir: working_dir.clone(),
        tty,
        stdin: false,
        detach: false,
        privileged: *privileged,
    };
    let mut session = engine.exec(id, &spec).await?;
    let mut said = Vec::new();
    while let Some(chunk) = session.output.next().await {
        said.extend(chunk?.bytes);
        let surplus = said.len().saturating_sub(TOLD);
        said.drain(..surplus);
    }
    let given_up = Instant::now() + CODE_DEADLINE;
    // The output may end a moment before the engine knows how the command did.
    let code = loop {
        match engine.exec_exit_code(&session.id).await {
            Err(_) if Instant::now() < given_up => tokio::time::sleep(CODE_PAUSE).await,
            code => break code?,
        }
    };
    let said = String::from_utf8_lossy(&said);
    tracing::info!(container = id, command = command.join(" "), code, said = said.trim_end(), "hook");
    let last_words = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned();
    Ok(Ended { code, last_words })
}
