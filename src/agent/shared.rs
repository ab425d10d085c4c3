//! What the parts of an agent share: the edges, and one handle for each project.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::api::types::{DownRequest, Progress, StopRequest};
use crate::clock::Clock;
use crate::controller;
use crate::engine::{Engine, EngineInfo};
use crate::host::files::HostFiles;
use crate::ids::{HostName, ProjectName};
use crate::plan::{Desired, Plan};
use crate::store::Store;

use super::AgentOptions;
use super::dataplane::Dataplane;
use super::images::Images;
use super::informer::Informer;

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
    /// The picture of the engine.
    pub informer: Arc<Informer>,
    /// Names, addresses, load balancer.
    pub dataplane: Arc<Dataplane>,
    /// Files that containers mount.
    pub files: Arc<HostFiles>,
    /// What image references mean here.
    pub images: Images,
    /// Held while a desired state is computed and written, so that two projects never take the same address.
    pub admission: tokio::sync::Mutex<()>,
    /// Held while files are written: their calls must come one after the other.
    pub writing_files: tokio::sync::Mutex<()>,
    /// Tasks of clients that follow a project.
    pub clients: TaskTracker,
    projects: Mutex<BTreeMap<ProjectName, Arc<ProjectHandle>>>,
    new_projects: mpsc::UnboundedSender<Arc<ProjectHandle>>,
}

/// What shall become of a project, as stored under `projects/NAME`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What is asked for.
    pub aim: Aim,
    /// The last desired state; `None` for a project that orch did not start and only takes down.
    pub desired: Option<Desired>,
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
    /// The record that the last pass worked for.
    pub record: Option<Arc<Record>>,
    /// What is still to do, as of the last pass.
    pub plan: Option<Plan>,
    /// Steps under way.
    pub under_way: usize,
    /// Steps that failed and will be tried again, with the reason: object to message.
    pub errors: BTreeMap<String, String>,
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
    /// See [`Shared::informer`].
    pub informer: Arc<Informer>,
    /// See [`Shared::dataplane`].
    pub dataplane: Arc<Dataplane>,
    /// See [`Shared::files`].
    pub files: Arc<HostFiles>,
}

impl Shared {
    /// Puts the parts together; each new project is announced on `new_projects`.
    pub fn new(options: AgentOptions, edges: Edges, new_projects: mpsc::UnboundedSender<Arc<ProjectHandle>>) -> Self {
        let Edges { engine, engine_info, store, clock, informer, dataplane, files } = edges;
        Self {
            options,
            engine,
            engine_info,
            store,
            clock,
            informer,
            dataplane,
            files,
            images: Images::default(),
            admission: tokio::sync::Mutex::default(),
            writing_files: tokio::sync::Mutex::default(),
            clients: TaskTracker::new(),
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
        let wanted = Some(Arc::new(record));
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = projects.get(name) {
            let events = handle.progress.subscribe();
            handle.record.send_replace(wanted.clone());
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
            handle.record.send_replace(None);
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
