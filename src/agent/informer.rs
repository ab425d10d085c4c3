//! The agent's picture of its engine: listed once, kept current by events, checked against a new list now and then.
//!
//! Readers take a snapshot and compare levels; events only say where to look again. An answer that was asked for
//! earlier never overwrites one that was asked for later, so the picture does not go back in time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, EngineEvent, EventQuery, label};
use crate::ids::{HostName, ProjectName, ServiceName};
use crate::plan::{ContainerState, Observed, ObservedContainer, ObservedHost, Probed};
use crate::store::{Store, Write};

use super::probes::Probing;

/// How often the picture is checked against a full list although no event asked for it.
const RESYNC: Duration = Duration::from_secs(30);

/// Pause before events are asked for again after their stream ended.
const RECONNECT: Duration = Duration::from_millis(250);

/// How long an end waits for the event that explains it: events may lag behind answers. After an agent's absence or an
/// engine's restart none comes, and this is what a container waits before it is brought back.
const SETTLE: Duration = Duration::from_millis(700);

/// Prefix of the store's keys that say which container ended by itself.
const EXITS: &str = "exits/";

/// Signals that tell a process something without ending it by custom.
const TALKING_SIGNALS: [&str; 4] = ["1", "10", "12", "28"];

/// That a container ended by itself, seen by an agent: what tells a finished job from a stopped service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Start time of the run that ended.
    pub started_at: String,
    /// Generation of the project's desired state at that time.
    pub generation: u64,
}

/// The engine as last seen.
#[derive(Debug, Default)]
struct World {
    host: ObservedHost,
    /// Ticket of the newest answer applied, by container; of one that is gone until the next list, so that an answer from
    /// before does not bring it back.
    tickets: BTreeMap<String, u64>,
    /// Containers that somebody asked to end, until they start again.
    asked_to_end: BTreeSet<String>,
    /// Runs that ended by themselves, by container.
    exits: BTreeMap<String, Exit>,
    /// Generation of each project's desired state.
    generations: BTreeMap<ProjectName, u64>,
    /// What is known from asking containers (`x-probe`).
    probing: Probing,
    /// Ends that no event explained yet; they show as [`ContainerState::Restarting`], which nobody acts on.
    unexplained: BTreeMap<String, Unexplained>,
}

/// An end that no event explained yet.
#[derive(Debug)]
struct Unexplained {
    /// Start time of the run that ended.
    started_at: String,
    code: i32,
    /// When it was first seen.
    seen: Instant,
}

/// Keeps the picture of one engine.
pub struct Informer {
    engine: Arc<dyn Engine>,
    store: Arc<dyn Store>,
    host: HostName,
    world: Mutex<World>,
    tickets: AtomicU64,
    /// What [`Informer::everything`] returned last, until the picture changes.
    snapshot: Mutex<Option<Arc<Observed>>>,
    changed: watch::Sender<u64>,
}

impl Informer {
    /// Makes an informer with an empty picture; [`Informer::resync`] fills it.
    pub fn new(engine: Arc<dyn Engine>, store: Arc<dyn Store>, host: HostName) -> Self {
        let (changed, _) = watch::channel(0);
        Self {
            engine,
            store,
            host,
            world: Mutex::default(),
            tickets: AtomicU64::new(1),
            snapshot: Mutex::default(),
            changed,
        }
    }

    /// Returns what wakes those who follow the picture, for other things that they must look at.
    pub fn waker(&self) -> watch::Sender<u64> {
        self.changed.clone()
    }

    /// Returns a receiver that wakes at each change of the picture.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Returns the whole picture; the same one to all who ask until it changes.
    pub fn everything(&self) -> Arc<Observed> {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.get_or_insert_with(|| Arc::new(self.observed(None))).clone()
    }

    /// Returns the picture with the containers of one project only (`None`: of all), and without images.
    pub fn observed(&self, project: Option<&ProjectName>) -> Observed {
        let world = self.lock();
        let containers = world
            .host
            .containers
            .iter()
            .filter(|(_, container)| project.is_none() || container.project.as_ref() == project)
            .map(|(id, container)| (id.clone(), container.clone()))
            .collect();
        let host = ObservedHost {
            containers,
            networks: world.host.networks.clone(),
            volumes: world.host.volumes.clone(),
            images: BTreeMap::new(),
        };
        drop(world);
        Observed { hosts: BTreeMap::from([(self.host.clone(), host)]) }
    }

    /// Takes note of the generation that a project's ends are recorded with from now on.
    pub fn set_generation(&self, project: &ProjectName, generation: u64) {
        self.lock().generations.insert(project.clone(), generation);
    }

    /// Takes note of the services of a project whose containers are asked whether they are ready.
    pub fn set_probed(&self, project: &ProjectName, services: BTreeSet<ServiceName>) {
        let mut world = self.lock();
        let World { host, probing, .. } = &mut *world;
        if !probing.set_probed(project, services, host.containers.values()) {
            return;
        }
        for container in host.containers.values_mut() {
            container.probe = probing.of(container);
        }
        drop(world);
        self.wake();
    }

    /// Takes note that everything that ran as the agent started was asked: who runs while it begins to be asked keeps what
    /// it has until it answers badly.
    pub fn set_probing(&self) {
        self.lock().probing.has_begun = true;
    }

    /// Takes note of what was heard from a container's run.
    pub fn set_probe(&self, id: &str, started_at: &str, probed: Probed) {
        let mut world = self.lock();
        let World { host, probing, .. } = &mut *world;
        let Some(container) = host.containers.get_mut(id).filter(|one| one.started_at == started_at) else { return };
        probing.note(container, probed);
        let now = probing.of(container);
        let changed = now != container.probe;
        container.probe = now;
        drop(world);
        if changed {
            self.wake();
        }
    }

    /// Returns the generation in which a container's last run ended by itself, if it did.
    pub fn generation_of_exit(&self, container: &ObservedContainer) -> Option<u64> {
        let world = self.lock();
        let exit = world.exits.get(&container.id)?;
        (exit.started_at == container.started_at).then_some(exit.generation)
    }

    /// Lists everything anew.
    ///
    /// # Errors
    /// What the engine says; the picture stays as it was.
    pub async fn resync(&self) -> Result<(), EngineError> {
        let ticket = self.ticket();
        let listed = self.engine.observe(None).await?;
        let mut world = self.lock();
        let known: BTreeSet<String> = world.host.containers.keys().cloned().collect();
        for id in known.difference(&listed.containers.keys().cloned().collect()) {
            if world.tickets.get(id).is_none_or(|newest| *newest < ticket) {
                forget(&mut world, id, ticket);
            }
        }
        world.tickets.retain(|id, newest| *newest >= ticket || listed.containers.contains_key(id));
        for (id, container) in listed.containers {
            apply(&mut world, ticket, id, container);
        }
        world.host.networks = listed.networks;
        world.host.volumes = listed.volumes;
        drop(world);
        self.wake();
        Ok(())
    }

    /// Looks at one container anew; one that is gone leaves the picture.
    ///
    /// # Errors
    /// What the engine says, but not that the container is gone.
    pub async fn refresh(&self, id: &str) -> Result<(), EngineError> {
        let ticket = self.ticket();
        match self.engine.inspect_container(id).await {
            Ok(container) => {
                let mut world = self.lock();
                apply(&mut world, ticket, container.id.clone(), container);
            }
            Err(EngineError::NotFound { .. }) => forget(&mut self.lock(), id, ticket),
            Err(error) => return Err(error),
        }
        self.wake();
        Ok(())
    }

    /// Puts in what an own call returned, without asking the engine again.
    pub fn put(&self, container: ObservedContainer) {
        let ticket = self.ticket();
        let mut world = self.lock();
        world.asked_to_end.remove(&container.id);
        apply(&mut world, ticket, container.id.clone(), container);
        drop(world);
        self.wake();
    }

    /// Takes note that an own call is about to end a container: its end needs no event to explain it.
    pub fn expect_end(&self, id: &str) {
        self.lock().asked_to_end.insert(id.to_owned());
    }

    /// Takes a container out of the picture after an own call removed it.
    pub fn remove(&self, id: &str) {
        let ticket = self.ticket();
        forget(&mut self.lock(), id, ticket);
        self.wake();
    }

    /// Lists networks and volumes anew after an own call changed them.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn refresh_resources(&self) -> Result<(), EngineError> {
        self.resync().await
    }

    /// Reads from the store which containers ended by themselves.
    ///
    /// # Errors
    /// What the store says.
    pub async fn load_exits(&self) -> crate::store::Result<()> {
        let (entries, _) = self.store.list(EXITS).await?;
        let mut world = self.lock();
        for entry in entries {
            let id = entry.key.trim_start_matches(EXITS).to_owned();
            match serde_json::from_slice(&entry.value) {
                Ok(exit) => drop(world.exits.insert(id, exit)),
                Err(error) => tracing::warn!(container = id, %error, "unreadable record of an exit"),
            }
        }
        Ok(())
    }

    /// Removes records of containers that went away while no agent was there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn prune_exits(&self) -> crate::store::Result<()> {
        let stale: Vec<Write> = {
            let mut world = self.lock();
            let World { host, exits, .. } = &mut *world;
            let gone = exits.extract_if(.., |id, _| !host.containers.contains_key(id));
            gone.map(|(id, _)| Write::Delete(format!("{EXITS}{id}"))).collect()
        };
        if stale.is_empty() {
            return Ok(());
        }
        self.store.transact(&[], &stale).await.map(drop)
    }

    /// Follows the engine's events until stopped. Reads nothing else, writes the picture and records of exits.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        // The engine keeps its last 256 events: those tell what ended by itself while no agent was there.
        let mut since = Some(1);
        while !stop.is_cancelled() {
            let mut events = self.engine.events(&EventQuery { since, ..EventQuery::default() });
            let mut resync = tokio::time::interval(RESYNC);
            let mut wakes = self.subscribe();
            loop {
                let settle = self.settle();
                let settled = async {
                    match settle {
                        Some(time) => tokio::time::sleep_until(time).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = resync.tick() => self.try_resync().await,
                    () = settled => {}
                    // An own call may have brought an end into the picture.
                    _ = wakes.changed() => {}
                    event = events.next() => match event {
                        Some(Ok(event)) => {
                            since = Some(event.time_nanos + 1);
                            self.handle(&event).await;
                        }
                        Some(Err(error)) => { tracing::warn!(%error, "lost the engine's events"); break; }
                        None => break,
                    },
                }
            }
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(RECONNECT) => {} }
        }
    }

    async fn try_resync(&self) {
        if let Err(error) = self.resync().await {
            tracing::warn!(%error, "cannot list what is on the engine");
        }
    }

    async fn handle(&self, event: &EngineEvent) {
        match event.kind.as_str() {
            "container" => self.handle_container(event).await,
            "network" if matches!(event.action.as_str(), "create" | "destroy" | "remove") => self.try_resync().await,
            "volume" if matches!(event.action.as_str(), "create" | "destroy") => self.try_resync().await,
            _ => {}
        }
    }

    async fn handle_container(&self, event: &EngineEvent) {
        if !event.attributes.contains_key(label::PROJECT) {
            return;
        }
        let action = event.action.split(':').next().unwrap_or_default();
        match action {
            "kill" => {
                let signal = event.attributes.get("signal").map_or("9", String::as_str);
                if !TALKING_SIGNALS.contains(&signal) {
                    self.lock().asked_to_end.insert(event.id.clone());
                }
                return;
            }
            "start" => {
                self.lock().asked_to_end.remove(&event.id);
            }
            "die" => self.note_end(event).await,
            "stop" => self.note_stop(event).await,
            "destroy" => return self.handle_destroy(&event.id).await,
            "create" | "rename" | "pause" | "unpause" | "health_status" | "update" | "oom" => {}
            // exec_create and the like say nothing about the container's state.
            _ => return,
        }
        if let Err(error) = self.refresh(&event.id).await {
            tracing::warn!(%error, container = event.id, "cannot look at a container");
        }
    }

    /// Records that a run ended by itself, if nobody asked for its end. The record outlives the agent.
    async fn note_end(&self, event: &EngineEvent) {
        let id = event.id.as_str();
        if self.lock().asked_to_end.contains(id) {
            return;
        }
        let Ok(container) = self.engine.inspect_container(id).await else { return };
        let ended = matches!(container.state, ContainerState::Exited { .. });
        if !ended || container.project.is_none() || starts_after(&container, event.time_nanos) {
            return;
        }
        let generation = container.project.as_ref().and_then(|project| self.lock().generations.get(project).copied());
        let exit = Exit {
            started_at: container.started_at,
            generation: generation.or(container.generation).unwrap_or_default(),
        };
        if self.lock().exits.get(id) == Some(&exit) {
            return;
        }
        let value = serde_json::to_vec(&exit).unwrap_or_default();
        self.lock().exits.insert(id.to_owned(), exit);
        let write = Write::Put { key: format!("{EXITS}{id}"), value, lease: None };
        if let Err(error) = self.store.transact(&[], &[write]).await {
            tracing::warn!(%error, container = id, "cannot record the end of a container");
        }
    }

    /// Takes back that a run ended by itself: an engine may say only afterwards that somebody stopped it (Podman).
    async fn note_stop(&self, event: &EngineEvent) {
        let id = event.id.as_str();
        if !self.lock().exits.contains_key(id) {
            return;
        }
        let Ok(container) = self.engine.inspect_container(id).await else { return };
        let ended = matches!(container.state, ContainerState::Exited { .. });
        if !ended || starts_after(&container, event.time_nanos) {
            return;
        }
        self.lock().asked_to_end.insert(id.to_owned());
        self.forget_exit(id).await;
    }

    async fn handle_destroy(&self, id: &str) {
        self.forget_exit(id).await;
        self.remove(id);
    }

    async fn forget_exit(&self, id: &str) {
        let recorded = self.lock().exits.remove(id).is_some();
        if recorded && let Err(error) = self.store.transact(&[], &[Write::Delete(format!("{EXITS}{id}"))]).await {
            tracing::warn!(%error, container = id, "cannot forget the end of a container");
        }
    }

    /// Decides on ends that no event explained in time. Returns when to look again.
    fn settle(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut world = self.lock();
        let World { host, unexplained, .. } = &mut *world;
        let mut decided = false;
        unexplained.retain(|id, end| {
            let waits = end.seen + SETTLE > now;
            if !waits && let Some(container) = host.containers.get_mut(id) {
                container.state = ContainerState::Exited { code: end.code, by_itself: false };
                decided = true;
            }
            waits
        });
        let next = unexplained.values().map(|end| end.seen + SETTLE).min();
        drop(world);
        if decided {
            self.wake();
        }
        next
    }

    fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    fn wake(&self) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.changed.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the container's present run began after `nanos`: the event is of an earlier run.
fn starts_after(container: &ObservedContainer, nanos: i64) -> bool {
    let started = container.started_at.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_nanosecond);
    started > i128::from(nanos)
}

/// Puts an answer into the picture unless a newer one is there.
fn apply(world: &mut World, ticket: u64, id: String, mut container: ObservedContainer) {
    let newest = world.tickets.entry(id.clone()).or_default();
    if *newest > ticket {
        return;
    }
    *newest = ticket;
    if let ContainerState::Exited { code, .. } = container.state {
        container.state = explain(world, &id, &container.started_at, code);
    } else {
        world.unexplained.remove(&id);
    }
    if container.project.is_some() {
        container.probe = world.probing.of(&container);
        world.host.containers.insert(id, container);
    }
}

/// Returns what an end is: explained by a record, by somebody's request, by what was decided before, or not yet.
fn explain(world: &mut World, id: &str, started_at: &str, code: i32) -> ContainerState {
    let recorded = world.exits.get(id).is_some_and(|exit| exit.started_at == started_at);
    let known = world.host.containers.get(id).filter(|known| known.started_at == started_at);
    let decided = known.is_some_and(|known| known.state.is_end_by_hand());
    if recorded || decided || world.asked_to_end.contains(id) {
        world.unexplained.remove(id);
        return ContainerState::Exited { code, by_itself: recorded };
    }
    let end = Unexplained { started_at: started_at.to_owned(), code, seen: Instant::now() };
    match world.unexplained.get(id) {
        Some(earlier) if earlier.started_at == started_at => {}
        _ => drop(world.unexplained.insert(id.to_owned(), end)),
    }
    ContainerState::Restarting
}

fn forget(world: &mut World, id: &str, ticket: u64) {
    let newest = world.tickets.entry(id.to_owned()).or_default();
    *newest = ticket.max(*newest);
    world.unexplained.remove(id);
    world.host.containers.remove(id);
    world.asked_to_end.remove(id);
    world.probing.forget(id);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn an_answer_from_before_the_removal_does_not_bring_a_container_back() {
        let mut world = World::default();
        let web = testing::container("shop", "web", 1);
        apply(&mut world, 1, web.id.clone(), web.clone());
        assert!(world.host.containers.contains_key(&web.id));
        forget(&mut world, &web.id, 3);
        apply(&mut world, 2, web.id.clone(), web.clone());
        assert!(world.host.containers.is_empty(), "{:?}", world.host.containers);
        apply(&mut world, 4, web.id.clone(), web.clone());
        assert!(world.host.containers.contains_key(&web.id), "a later one says that it is there");
    }
}
