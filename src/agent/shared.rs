//! What the parts of an agent share: the edges, and one handle for each project.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::types::{DownRequest, Progress, StopRequest};
use crate::clock::Clock;
use crate::controller;
use crate::engine::{Engine, EngineInfo};
use crate::host::asking::Asker;
use crate::host::files::HostFiles;
use crate::ids::{HostName, ProjectName};
use crate::mesh::Mesh;
use crate::plan::{Desired, History, Observed, Plan};
use crate::snapshot::Snapshots;
use crate::store::{Store, StoreError, Write};

use super::AgentOptions;
use super::ambassadors::Ambassadors;
use super::dataplane::Dataplane;
use super::fleet::identity::IdentityFiles;
use super::fleet::members::{Fleet, HostRecord, host_key};
use super::fleet::peers::Peers;
use super::fleet::picture::{Machine, Picture, Report};
use super::hooks::Hooks;
use super::images::Images;
use super::informer::Informer;
use super::metrics::expose::Exposure;
use super::oneoff::pod::Unstarted;
use super::passing::Offers;
use super::probes;

/// Progress events that a slow reader may fall behind before it loses some.
const PROGRESS_BACKLOG: usize = 4096;

/// The edges and the projects of one agent.
pub struct Shared {
    /// What it was started with.
    pub options: AgentOptions,
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// What the engine said of itself at the start.
    pub engine_info: EngineInfo,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Who asks containers whether they are ready.
    pub asker: Arc<dyn Asker>,
    /// The picture of the engine.
    pub informer: Arc<Informer>,
    /// Names, addresses, load balancer.
    pub dataplane: Arc<Dataplane>,
    /// Files that containers mount.
    pub files: Arc<HostFiles>,
    /// What image references mean here.
    pub images: Images,
    /// Which runs of containers their hooks were run for.
    pub(super) hooks: Hooks,
    /// What listens inside pods.
    pub(super) ambassadors: Ambassadors,
    /// Pods that `run` has made and not started yet.
    pub(super) oneoffs: Unstarted,
    /// Where metrics are told over TCP.
    pub(super) exposure: Exposure,
    /// Held while a desired state is computed and written, so that two projects never take the same address.
    pub admission: tokio::sync::Mutex<()>,
    /// Held while files are written: their calls must come one after the other.
    pub writing_files: tokio::sync::Mutex<()>,
    /// Files that came from the machine which loaded a project.
    pub snapshots: Arc<Snapshots>,
    /// Held while a snapshot is fetched from another host.
    pub fetching: tokio::sync::Mutex<()>,
    /// What other hosts may have of this one's images.
    pub offers: Offers,
    /// Tasks of clients that follow a project.
    pub clients: TaskTracker,
    /// The files by which this host proves who it is.
    pub identity: IdentityFiles,
    /// The connections to the other hosts, where there is a cluster.
    pub mesh: OnceLock<Mesh>,
    /// Cancelled when this agent is to start anew: it became another host, or one of a cluster.
    pub restart: CancellationToken,
    /// Told when the seat says that this host is not of the cluster any more.
    pub expelled: tokio::sync::Notify,
    /// Set once this host gives up what the cluster wants of it.
    leaving: AtomicBool,
    /// The other hosts of the cluster.
    pub peers: Arc<Peers>,
    fleet: ArcSwap<Fleet>,
    /// What this host shows to the others, with its number.
    own: watch::Sender<(u64, Arc<Picture>)>,
    machine: Mutex<Machine>,
    /// What the seat wants and could not be written down here, and why.
    unwritten: Mutex<BTreeMap<ProjectName, Report>>,
    /// Grows with every change of what shall be.
    records: watch::Sender<u64>,
    /// Progress of all projects, for the other hosts.
    progress: broadcast::Sender<(ProjectName, Progress)>,
    projects: Mutex<BTreeMap<ProjectName, Arc<ProjectHandle>>>,
    new_projects: mpsc::UnboundedSender<Arc<ProjectHandle>>,
}

/// What an error is of that is a host's whole part of a project: it could not be written down.
pub const STORE_OBJECT: &str = "Store";

/// What shall become of a project, as stored under `projects/NAME`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What is asked for.
    pub aim: Aim,
    /// The last desired state; `None` for a project that orch did not start and only takes down.
    pub desired: Option<Desired>,
    /// Grows with every record of the project that the seat writes.
    #[serde(default)]
    pub serial: u64,
    /// Set on other hosts than the seat once the seat has forgotten the project: what is left of it here goes.
    #[serde(default)]
    pub released: bool,
    /// Who changed what is asked for, and what.
    #[serde(default)]
    pub history: History,
}

/// What is asked for a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// As desired.
    Up,
    /// Its containers there, but stopped.
    Stopped(StopRequest),
    /// Gone.
    Down(DownRequest),
}

/// How far a project's loop has come.
#[derive(Debug, Clone, Default)]
pub struct ProjectState {
    /// Passes made; 0: none yet.
    pub passes: u64,
    /// Steps of this host that were done.
    pub steps_done: u64,
    /// Steps of this host that failed.
    pub steps_failed: u64,
    /// The record that the last pass worked for.
    pub record: Option<Arc<Record>>,
    /// What is still to do, as of the last pass.
    pub plan: Option<Plan>,
    /// Steps that failed and will be tried again, on whichever host: object to message.
    pub errors: BTreeMap<String, String>,
    /// What the others must know of this host's part.
    pub report: Report,
    /// Objects that a step of this host is under way for.
    pub busy: BTreeSet<String>,
    /// Whether no step is under way on the other hosts.
    pub others_idle: bool,
    /// Whether all hosts have heard of the record.
    pub heard: bool,
    /// Whether nothing is left to do or wait for, other than errors and what the plan says cannot come true.
    pub settled: bool,
    /// Whether the project is gone, with its rules and files.
    pub gone: bool,
}

/// The way to a project's loop.
pub struct ProjectHandle {
    /// The project.
    pub name: ProjectName,
    /// What is asked for; `None`: nothing, the loop ends.
    pub record: watch::Sender<Option<Arc<Record>>>,
    /// How far it is.
    pub state: watch::Sender<ProjectState>,
    /// What happens, for who listens.
    pub progress: broadcast::Sender<Progress>,
}

/// A client's grip on a project's loop, taken before the loop is told anything, so that no event is missed.
pub struct Following {
    /// The loop.
    pub handle: Arc<ProjectHandle>,
    /// What it was told.
    pub wanted: Option<Arc<Record>>,
    /// What happens from then on.
    pub events: broadcast::Receiver<Progress>,
}

/// Returns the store's key of a project.
pub fn project_key(project: &ProjectName) -> String {
    format!("projects/{project}")
}

/// The parts of [`Shared`] that are given from outside.
pub struct Edges {
    /// See [`Shared::engine`].
    pub engine: Arc<dyn Engine>,
    /// See [`Shared::engine_info`].
    pub engine_info: EngineInfo,
    /// See [`Shared::store`].
    pub store: Arc<dyn Store>,
    /// See [`Shared::clock`].
    pub clock: Arc<dyn Clock>,
    /// See [`Shared::asker`].
    pub asker: Arc<dyn Asker>,
    /// See [`Shared::informer`].
    pub informer: Arc<Informer>,
    /// See [`Shared::dataplane`].
    pub dataplane: Arc<Dataplane>,
    /// See [`Shared::files`].
    pub files: Arc<HostFiles>,
}

impl Shared {
    /// Puts the parts together; each new project is announced on `new_projects`.
    pub fn new(
        options: AgentOptions,
        fleet: Fleet,
        edges: Edges,
        new_projects: mpsc::UnboundedSender<Arc<ProjectHandle>>,
    ) -> Self {
        let Edges { engine, engine_info, store, clock, asker, informer, dataplane, files } = edges;
        let peers = Arc::new(Peers::new(informer.waker()));
        let identity = IdentityFiles::below(&options.state_dir);
        let snapshots = Arc::new(Snapshots::below(&options.state_dir));
        peers.set(&fleet.others().map(|(name, _)| name.clone()).collect());
        Self {
            options,
            engine,
            engine_info,
            store,
            clock,
            asker,
            informer,
            dataplane,
            files,
            images: Images::default(),
            hooks: Hooks::default(),
            ambassadors: Ambassadors::default(),
            oneoffs: Unstarted::default(),
            exposure: Exposure::default(),
            admission: tokio::sync::Mutex::default(),
            writing_files: tokio::sync::Mutex::default(),
            snapshots,
            fetching: tokio::sync::Mutex::default(),
            offers: Offers::default(),
            clients: TaskTracker::new(),
            identity,
            mesh: OnceLock::new(),
            restart: CancellationToken::new(),
            expelled: tokio::sync::Notify::new(),
            leaving: AtomicBool::new(false),
            peers,
            fleet: ArcSwap::from_pointee(fleet),
            own: watch::Sender::new((0, Arc::default())),
            machine: Mutex::default(),
            unwritten: Mutex::default(),
            records: watch::Sender::new(0),
            progress: broadcast::Sender::new(PROGRESS_BACKLOG),
            projects: Mutex::default(),
            new_projects,
        }
    }

    /// Returns this host's name.
    pub fn host(&self) -> &HostName {
        &self.options.host
    }

    /// Returns a project's handle, if it has a loop.
    pub fn project(&self, name: &ProjectName) -> Option<Arc<ProjectHandle>> {
        self.projects.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Returns all handles.
    pub fn projects(&self) -> Vec<Arc<ProjectHandle>> {
        self.projects.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Tells a project's loop what is asked for now, and starts the loop if there is none.
    pub fn tell(&self, name: &ProjectName, record: Record) -> Following {
        let probed = record.desired.as_ref().map(|desired| probes::probed(&desired.graph)).unwrap_or_default();
        let wanted = Some(Arc::new(record));
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        // Before anything is started for it: what is asked is not ready until it has answered.
        self.informer.set_probed(name, probed);
        if let Some(handle) = projects.get(name) {
            let events = handle.progress.subscribe();
            handle.record.send_replace(wanted.clone());
            self.records.send_modify(|revision| *revision += 1);
            return Following { handle: handle.clone(), wanted, events };
        }
        let handle = Arc::new(ProjectHandle {
            name: name.clone(),
            record: watch::Sender::new(wanted.clone()),
            state: watch::Sender::new(ProjectState::default()),
            progress: broadcast::Sender::new(PROGRESS_BACKLOG),
        });
        let events = handle.progress.subscribe();
        projects.insert(name.clone(), handle.clone());
        self.records.send_modify(|revision| *revision += 1);
        // Nobody receives only while the agent stops.
        drop(self.new_projects.send(handle.clone()));
        Following { handle, wanted, events }
    }

    /// Follows a project's loop without telling it anything.
    pub fn follow(&self, name: &ProjectName) -> Option<Following> {
        let handle = self.project(name)?;
        let events = handle.progress.subscribe();
        let wanted = handle.record.borrow().clone();
        Some(Following { handle, wanted, events })
    }

    /// Runs a client's task until the agent stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.clients.spawn(task);
    }

    /// Forgets a project that is gone, unless something was asked for it meanwhile.
    pub fn forget(&self, handle: &ProjectHandle, done: &Arc<Record>) -> bool {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        let unchanged = handle.record.borrow().as_ref().is_some_and(|now| Arc::ptr_eq(now, done));
        if unchanged {
            projects.remove(&handle.name);
            self.informer.set_probed(&handle.name, BTreeSet::new());
            handle.record.send_replace(None);
            self.records.send_modify(|revision| *revision += 1);
        }
        unchanged
    }

    /// Returns the desired state of every project that is up.
    pub fn desired(&self) -> Vec<Arc<Record>> {
        self.projects().iter().filter_map(|handle| handle.record.borrow().clone()).collect()
    }
}

impl Record {
    /// Returns whether the other record is for the same wish of a user, however often it was wished and wherever its pods
    /// are placed.
    pub fn is_same_wish(&self, other: &Self) -> bool {
        let same = match (&self.desired, &other.desired) {
            (Some(one), Some(other)) => controller::is_same_wish(one, other),
            (None, None) => true,
            _ => false,
        };
        self.aim == other.aim && same
    }

    /// Returns the desired state while the project shall run.
    pub fn running(&self) -> Option<&Desired> {
        match self.aim {
            Aim::Up => self.desired.as_ref(),
            Aim::Stopped(_) | Aim::Down(_) => None,
        }
    }
}

/// Several hosts.
impl Shared {
    /// Returns the cluster as this agent knows it.
    pub fn fleet(&self) -> Arc<Fleet> {
        self.fleet.load_full()
    }

    /// Makes this the cluster that this agent knows.
    pub fn set_fleet(&self, fleet: Fleet) {
        let others: BTreeSet<HostName> = fleet.others().map(|(name, _)| name.clone()).collect();
        self.fleet.store(Arc::new(fleet));
        self.peers.set(&others);
        self.records.send_modify(|revision| *revision += 1);
    }

    /// Returns what is there of one project (`None`: of all), on every host that answers.
    pub fn observed(&self, project: Option<&ProjectName>) -> Observed {
        let mut observed = self.informer.observed(project);
        observed.hosts.extend(self.peers.observed(project).hosts);
        observed
    }

    /// Returns a receiver of this host's pictures, for the other hosts.
    pub fn own_pictures(&self) -> watch::Receiver<(u64, Arc<Picture>)> {
        self.own.subscribe()
    }

    /// Makes the picture for the other hosts anew. Returns its number.
    pub fn refresh_own_picture(&self) -> u64 {
        let machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reports = self.projects().into_iter().map(|handle| {
            let state = handle.state.borrow();
            (handle.name.clone(), state.report.clone())
        });
        let mut reports: BTreeMap<ProjectName, Report> = reports.collect();
        for (name, unwritten) in self.unwritten() {
            let report = reports.entry(name).or_default();
            // It was looked at, and will not come true: who waits for it is told.
            report.serial = unwritten.serial;
            report.errors.extend(unwritten.errors);
        }
        let picture = Picture {
            observed: self.informer.observed(None).hosts.remove(self.host()).unwrap_or_default(),
            draining: self.dataplane.draining_here(),
            reports,
            machine,
        };
        self.own.send_if_modified(|(version, now)| {
            let changed = **now != picture;
            if changed {
                (*version, *now) = (*version + 1, Arc::new(picture));
            }
            changed
        });
        self.own.borrow().0
    }

    /// Takes note of how the machine is.
    pub fn set_machine(&self, machine: Machine) {
        *self.machine.lock().unwrap_or_else(PoisonError::into_inner) = machine;
    }

    /// Returns how the machine is.
    pub fn machine(&self) -> Machine {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of what the seat wants and could not be written down; empty: all is.
    pub fn set_unwritten(&self, projects: &BTreeMap<ProjectName, Record>, why: &str) {
        let message = format!("what is wanted could not be written down: {why}");
        let report = |record: &Record| {
            let errors = BTreeMap::from([(STORE_OBJECT.to_owned(), message.clone())]);
            Report { serial: record.serial, errors, ..Report::default() }
        };
        let unwritten = projects.iter().map(|(name, record)| (name.clone(), report(record))).collect();
        let before = std::mem::replace(&mut *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner), unwritten);
        if before != self.unwritten() {
            self.refresh_own_picture();
        }
    }

    fn unwritten(&self) -> BTreeMap<ProjectName, Report> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns why what the seat wants could not be written down, for the reader.
    pub fn unwritten_problem(&self) -> Option<String> {
        self.unwritten().into_values().next()?.errors.remove(STORE_OBJECT)
    }

    /// Returns what wakes when what shall be changes.
    pub fn records_changed(&self) -> watch::Receiver<u64> {
        self.records.subscribe()
    }

    /// Returns what shall be, with its number.
    pub fn records(&self) -> (u64, BTreeMap<ProjectName, Arc<Record>>) {
        let revision = *self.records.borrow();
        let handles = self.projects();
        let records = handles.iter().filter_map(|handle| Some((handle.name.clone(), handle.record.borrow().clone()?)));
        (revision, records.collect())
    }

    /// Returns a receiver of the progress of all projects on this host.
    pub fn progress_of_all(&self) -> broadcast::Receiver<(ProjectName, Progress)> {
        self.progress.subscribe()
    }

    /// Tells who follows the project, here and on the other hosts, what happens.
    pub fn announce(&self, handle: &ProjectHandle, event: Progress) {
        // Nobody listens most of the time.
        if self.progress.receiver_count() > 0 {
            drop(self.progress.send((handle.name.clone(), event.clone())));
        }
        drop(handle.progress.send(event));
    }

    /// Takes over what the seat says shall be: written down first, so that it is known after a restart without the seat.
    ///
    /// Projects that the seat no longer has go from this host too.
    ///
    /// # Errors
    /// What the store says; nothing is taken over then.
    pub async fn obey(
        &self,
        projects: Vec<(ProjectName, Record)>,
        gone: &[ProjectName],
        whole: bool,
        hosts: Option<BTreeMap<HostName, HostRecord>>,
    ) -> Result<(), StoreError> {
        let outside = hosts.as_ref().is_some_and(|hosts| !hosts.contains_key(self.host()));
        if outside {
            self.expelled.notify_one();
        }
        if outside || self.leaving.load(Ordering::Relaxed) {
            // What the cluster wants is no matter of this host any more.
            return Ok(());
        }
        self.take_over(projects, gone, whole, hosts).await
    }

    /// Releases all projects, and listens to the seat no more.
    ///
    /// # Errors
    /// What the store says.
    pub async fn release_all(&self) -> Result<(), StoreError> {
        self.leaving.store(true, Ordering::Relaxed);
        self.take_over(Vec::new(), &[], true, None).await
    }

    async fn take_over(
        &self,
        projects: Vec<(ProjectName, Record)>,
        gone: &[ProjectName],
        whole: bool,
        hosts: Option<BTreeMap<HostName, HostRecord>>,
    ) -> Result<(), StoreError> {
        let fleet = self.fleet();
        let named: BTreeSet<&ProjectName> = projects.iter().map(|(name, _)| name).collect();
        let mut news: Vec<(ProjectName, Record)> = Vec::new();
        for handle in self.projects() {
            let Some(now) = handle.record.borrow().clone() else { continue };
            if !now.released && (gone.contains(&handle.name) || whole && !named.contains(&handle.name)) {
                let aim = match &now.aim {
                    Aim::Down(request) => Aim::Down(request.clone()),
                    Aim::Up | Aim::Stopped(_) => Aim::Down(DownRequest::default()),
                };
                let record = Record { aim, released: true, ..Record::clone(&now) };
                news.push((handle.name.clone(), record));
            }
        }
        for (name, record) in projects {
            let now = self.project(&name).and_then(|handle| handle.record.borrow().clone());
            if now.as_deref() != Some(&record) {
                news.push((name, record));
            }
        }
        let mut writes = Vec::new();
        for (name, record) in &news {
            let value = encode(record)?;
            writes.push(Write::Put { key: project_key(name), value, lease: None });
        }
        for (name, record) in hosts.iter().flatten() {
            writes.push(Write::Put { key: host_key(name), value: encode(record)?, lease: None });
        }
        if let Some(hosts) = &hosts {
            let stale = fleet.hosts.keys().filter(|name| !hosts.contains_key(*name));
            writes.extend(stale.map(|name| Write::Delete(host_key(name))));
        }
        if !writes.is_empty() {
            self.store.transact(&[], &writes).await?;
        }
        if let Some(hosts) = hosts.filter(|hosts| *hosts != fleet.hosts) {
            self.set_fleet(Fleet { hosts, ..Fleet::clone(&fleet) });
        }
        for (name, record) in news {
            drop(self.tell(&name, record));
        }
        Ok(())
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Failed { message: error.to_string() })
}
