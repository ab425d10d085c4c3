//! What the agent answers on its socket: reads and writes records, follows loops; decides nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::api::server::{ByteStream, Handler};
use crate::api::types::{
    AccessLogRequest, Admission, AdmitRequest, AgentInfo, ApiError, AskRequest, BeginOneoff, ClusterStatus,
    DownRequest, EndOneoff, ErrorKind, ExposeRequest, FetchImage, FoundRequest, HostChange, ImageOffer, KeyAnswer,
    KeyRequest, MakeOneoff, MetricsForm, NameQuestion, NameTold, OfferImage, OneoffMade, PlaceOneoff, Progress,
    ProjectStatus, ProjectSummary, RemoveHost, RouteQuestion, SeatAnswer, SeatRequest, SnapshotList, StopRequest,
    Traffic, UpRequest, WhyQuestion, WhyTold,
};
use crate::controller;
use crate::diag::chain;
use crate::graph::{Graph, MAX_PODS};
use crate::ids::{HostName, PodId, ProjectName, SnapshotHash};
use crate::plan::{Caller, History, Observed, Plan};
use crate::snapshot::SnapshotError;
use crate::store::StoreError;

mod asking;
mod cluster;
mod elsewhere;
mod follow;
mod prepared;
mod reached;
mod routing;
mod seeing;
mod status;
mod unready;
mod words;

use super::admission;
use super::fleet::seat;
use super::images;
use super::memory::Failures;
use super::metrics::{self, expose::SetError};
use super::oneoff;
use super::passing;
use super::reconcile::{plan_for, recall};
use super::shared::{Aim, Following, Record, Shared, project_key};
use follow::Follow;
use prepared::{Prepared, Work};
use seeing::Seen;
use status::{addresses, oneoffs, pods, published, summary_of, unplaced};

/// Progress lines that a slow client may fall behind before the agent waits for it.
const STREAM_BACKLOG: usize = 256;

/// Plans made at the same time that only shall be shown: those who ask for more wait, and who goes away meanwhile is
/// forgotten.
const PLANS_AT_ONCE: usize = 2;

/// The agent's side of the API.
pub struct AgentHandler {
    shared: Arc<Shared>,
    started: Instant,
    /// The same by the clock on the wall, since 1970.
    started_at: std::time::Duration,
    build: String,
    uninstalled: tokio_util::sync::CancellationToken,
    /// Held while a plan is made that only shall be shown.
    planning: Semaphore,
}

fn error(kind: ErrorKind, message: impl Into<String>) -> ApiError {
    ApiError { message: message.into(), kind }
}

impl AgentHandler {
    /// Answers for `shared`; `build` is the content hash of the binary. `uninstalled` is cancelled when nothing of orch
    /// may be touched any more.
    pub fn new(shared: Arc<Shared>, build: String, uninstalled: tokio_util::sync::CancellationToken) -> Self {
        let (started, started_at) = (Instant::now(), shared.clock.now());
        Self { shared, started, started_at, build, uninstalled, planning: Semaphore::new(PLANS_AT_ONCE) }
    }

    fn record(&self, project: &ProjectName) -> Option<Arc<Record>> {
        self.shared.project(project).and_then(|handle| handle.record.borrow().clone())
    }

    async fn prepare(&self, project: &ProjectName, request: UpRequest) -> Result<Prepared, ApiError> {
        let shared = &self.shared;
        cluster::only_seat(shared)?;
        check_size(&request.graph)?;
        // Right after this agent's start the other hosts have not said yet what is there.
        shared.peers.wait_until_told().await;
        let entry = shared.store.get(&project_key(project)).await.map_err(internal)?;
        let stored = entry.as_ref().map(|entry| entry.modified);
        let record: Option<Record> =
            entry.map(|entry| serde_json::from_slice(&entry.value)).transpose().map_err(internal)?;
        let images = images::look_up(shared.engine.as_ref(), &request.graph).await.map_err(host_error)?;
        let mut observed = shared.observed(Some(project));
        observed.hosts.entry(shared.host().clone()).or_default().images.clone_from(&images);
        let inputs = admission::inputs(shared, project, &request.hosts).await.map_err(host_error)?;
        let hosts = seat::hosts(shared, project);
        let work = Work { project: project.clone(), request, record, stored, images, observed, inputs, hosts };
        // Other work of this thread must not wait for it.
        let shared = shared.clone();
        tokio::task::spawn_blocking(move || work.run(&shared)).await.map_err(internal)?
    }

    /// Writes a record, unless somebody else wrote one since, and tells the project's loop.
    /// With `images`, the meaning of image references that goes with the desired state.
    async fn write(
        &self,
        project: &ProjectName,
        record: Record,
        stored: Option<u64>,
        images: Option<BTreeMap<String, String>>,
    ) -> Result<Following, ApiError> {
        let written = seat::write(&self.shared, project, record, stored, images).await;
        let written = written.map_err(|cause| self.unstored_here(cause))?;
        written.ok_or_else(|| {
            error(ErrorKind::Conflict, format!("somebody else changed `{project}` at the same time; try again"))
        })
    }

    /// What the store says when it is written to, with the host where there are several.
    fn unstored_here(&self, cause: StoreError) -> ApiError {
        let answer = unstored(cause);
        let fleet = self.shared.fleet();
        if fleet.hosts.is_empty() {
            return answer;
        }
        ApiError { message: format!("host `{}`: {}", fleet.own, answer.message), ..answer }
    }

    /// Changes what is asked for a project without a new desired state, and follows it.
    async fn aim(&self, project: ProjectName, aim: Aim, caller: &Caller) -> Result<mpsc::Receiver<Progress>, ApiError> {
        let shared = &self.shared;
        let guard = shared.admission.lock().await;
        cluster::only_seat(shared)?;
        let entry = shared.store.get(&project_key(&project)).await.map_err(internal)?;
        let stored = entry.as_ref().map(|entry| entry.modified);
        let record: Option<Record> =
            entry.map(|entry| serde_json::from_slice(&entry.value)).transpose().map_err(internal)?;
        let serial = next_serial(record.as_ref());
        let history = match (&record, &aim) {
            (Some(Record { aim: Aim::Down(_), history, .. }), Aim::Down(_)) => history.clone(),
            (Some(Record { history, .. }), Aim::Down(_)) => {
                next_history(&project, history, caller, Some(vec!["taken down".to_owned()]), now(shared))?
            }
            (record, _) => record.as_ref().map(|record| record.history.clone()).unwrap_or_default(),
        };
        let desired = record.and_then(|record| record.desired);
        let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
        let observed = shared.observed(Some(&project));
        let record = Record { aim, desired, serial, released: false, history };
        if record.desired.is_none() && plan_for(&project, &record, &observed, &BTreeMap::new()).steps.is_empty() {
            // The channel is empty and has room.
            drop(sender.try_send(Progress::Done { revision: 0 }));
            return Ok(receiver);
        }
        let following = self.write(&project, record, stored, None).await?;
        drop(guard);
        shared.spawn(Follow::new(shared.clone(), following, false).run(sender));
        Ok(receiver)
    }
}

#[async_trait]
impl Handler for AgentHandler {
    async fn info(&self) -> Result<AgentInfo, ApiError> {
        Ok(AgentInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: self.build.clone(),
            host: self.shared.host().clone(),
            cluster: self.shared.fleet().cluster.clone(),
            engine: self.shared.engine_info.version.clone(),
            engine_id: self.shared.engine_info.facts.id.clone(),
            uptime_secs: self.started.elapsed().as_secs(),
            memory: super::process::resident_bytes(),
            problems: super::fleet::machine::problems(&self.shared).await,
            metrics: self.shared.exposure.address(),
            access_log: self.shared.dataplane.access_log().is_on(),
        })
    }

    async fn projects(&self) -> Result<Vec<ProjectSummary>, ApiError> {
        // Others' containers come and go too: a list is worth a fresh look.
        self.shared.informer.resync().await.map_err(host_error)?;
        let observed = self.shared.observed(None);
        let mut summaries: BTreeMap<ProjectName, ProjectSummary> = BTreeMap::new();
        for handle in self.shared.projects() {
            let record = handle.record.borrow().clone();
            let desired = record.as_ref().and_then(|record| record.desired.as_ref());
            let summary = summary_of(&mut summaries, &handle.name);
            summary.revision = desired.map(|desired| desired.revision);
            summary.config_files = desired.map(|desired| desired.graph.config_files.clone()).unwrap_or_default();
            summary.unplaced = record.as_ref().and_then(|record| record.running()).map(unplaced).unwrap_or_default();
        }
        for container in observed.hosts.values().flat_map(|host| host.containers.values()) {
            let Some(project) = &container.project else { continue };
            let summary = summary_of(&mut summaries, project);
            *summary.states.entry(container.state.word().to_owned()).or_default() += 1;
            if summary.config_files.is_empty()
                && let Some(files) = container.labels.get(crate::engine::label::CONFIG_FILES)
            {
                summary.config_files = files.split(',').map(str::to_owned).collect();
            }
        }
        Ok(summaries.into_values().collect())
    }

    async fn project(&self, project: &ProjectName) -> Result<ProjectStatus, ApiError> {
        let shared = &self.shared;
        let handle = shared.project(project);
        let record = handle.as_ref().and_then(|handle| handle.record.borrow().clone());
        let state = handle.map(|handle| handle.state.borrow().clone()).unwrap_or_default();
        let observed = shared.observed(Some(project));
        let seen = observed.hosts.values().any(|host| !host.containers.is_empty());
        if record.is_none() && !seen {
            return Err(error(ErrorKind::NotFound, format!("no project `{project}`")));
        }
        let desired = record.as_ref().and_then(|record| record.desired.as_ref());
        let mut failures: Vec<String> =
            state.plan.iter().flat_map(|plan| &plan.failures).map(ToString::to_string).collect();
        failures.extend(state.errors.iter().map(|(object, message)| format!("{object}: {message}")));
        Ok(ProjectStatus {
            name: project.clone(),
            revision: desired.map_or(0, |desired| desired.revision),
            pods: pods(desired, &observed, &state),
            oneoffs: oneoffs(desired, &observed),
            published: desired.map(|desired| published(shared, desired)).unwrap_or_default(),
            addresses: desired.map(addresses).unwrap_or_default(),
            failures,
            history: record.as_ref().map(|record| record.history.clone()).unwrap_or_default(),
        })
    }

    async fn dns(&self, project: ProjectName, question: NameQuestion) -> Result<NameTold, ApiError> {
        let record = self.record(&project);
        Seen::of(&self.shared, &project, record.as_deref())?.name(&question)
    }

    async fn why(&self, project: ProjectName, question: WhyQuestion) -> Result<WhyTold, ApiError> {
        let record = self.record(&project);
        let mut seen = Seen::of(&self.shared, &project, record.as_deref())?;
        seen.look_inside().await;
        seen.why(&question)
    }

    async fn traffic(&self) -> Result<Traffic, ApiError> {
        Ok(seeing::traffic(&self.shared))
    }

    async fn expose_metrics(&self, request: ExposeRequest) -> Result<(), ApiError> {
        let set = self.shared.exposure.set(self.shared.store.as_ref(), request.address).await;
        set.map_err(|cause| match cause {
            SetError::Bind { .. } => error(ErrorKind::Host, cause.to_string()),
            SetError::Store(cause) => unstored(cause),
        })
    }

    async fn access_log(&self, request: AccessLogRequest) -> Result<(), ApiError> {
        super::access::set(&self.shared, request.on).await.map_err(unstored)
    }

    async fn route(&self, question: RouteQuestion) -> Result<WhyTold, ApiError> {
        routing::route(&self.shared, &question)
    }

    async fn metrics(&self, form: MetricsForm) -> Result<String, ApiError> {
        let shared = &self.shared;
        let snapshot = metrics::Snapshot {
            agent: metrics::AgentFacts {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                build: self.build.clone(),
                engine: shared.engine_info.version.clone(),
                started: self.started_at.as_secs(),
                memory: super::process::resident_bytes(),
                store: metrics::store_bytes(&shared.options.state_dir),
                names_version: shared.dataplane.name_table().version(),
            },
            cluster: cluster::status(shared),
            projects: metrics::projects(shared),
            dns: shared.dataplane.dns_stats(),
            balancer: shared.dataplane.balancer_stats(),
            ambassadors: shared.dataplane.ambassador_stats(),
        };
        metrics::text(&snapshot, form).map_err(internal)
    }

    async fn plan(&self, project: ProjectName, request: UpRequest) -> Result<Plan, ApiError> {
        // It gives nothing away, so that nobody who changes something has to wait for it.
        let _turn = self.planning.acquire().await.map_err(internal)?;
        let Prepared { mut plan, warnings, .. } = self.prepare(&project, request).await?;
        plan.notes.extend(warnings);
        Ok(plan)
    }

    async fn up(&self, project: ProjectName, request: UpRequest) -> Result<mpsc::Receiver<Progress>, ApiError> {
        let shared = &self.shared;
        let guard = shared.admission.lock().await;
        let wait = request.wait;
        let options = &request.options;
        let of = (!options.services.is_empty()).then(|| controller::selected(&request.graph, options));
        // What it names now stays here until the record is written.
        let snapshots: Vec<SnapshotHash> = request.graph.snapshots().into_iter().cloned().collect();
        if !shared.snapshots.missing(&snapshots).is_empty() {
            let message = "files that pods are to mount are not on this host any more; run `orch up` again";
            return Err(error(ErrorKind::Conflict, message));
        }
        let Prepared { record, plan, unchanged, stored, images, unmoved, warnings } =
            self.prepare(&project, request).await?;
        if let blocked @ [_, ..] = plan.blocked().as_slice() {
            return Err(error(ErrorKind::User, blocked.join("\n")));
        }
        let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
        let desired = record.desired.as_ref();
        let revision = desired.map_or(0, |desired| desired.revision);
        let following = match shared.follow(&project).filter(|_| unchanged) {
            Some(following) => following,
            None => self.write(&project, record, stored, Some(images)).await?,
        };
        drop(guard);
        let follow = Follow::new(shared.clone(), following, wait).of(of);
        let note = |is_warning| move |message| Progress::Note { message, is_warning };
        let notes: Vec<Progress> =
            plan.notes.iter().cloned().map(note(false)).chain(warnings.into_iter().map(note(true))).collect();
        let accepted = Progress::Accepted { revision, plan };
        shared.spawn(async move {
            for event in std::iter::once(accepted).chain(notes).chain(unmoved) {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
            follow.run(sender).await;
        });
        Ok(receiver)
    }

    async fn down(&self, project: ProjectName, request: DownRequest) -> Result<mpsc::Receiver<Progress>, ApiError> {
        let DownRequest { volumes, timeout_secs, caller } = request;
        // Two who want it gone want the same.
        let request = DownRequest { volumes, timeout_secs, caller: Caller::default() };
        self.aim(project, Aim::Down(request), &caller).await
    }

    async fn stop(&self, project: ProjectName, request: StopRequest) -> Result<mpsc::Receiver<Progress>, ApiError> {
        self.aim(project, Aim::Stopped(request), &Caller::default()).await
    }

    async fn ask(&self, project: ProjectName, request: AskRequest) -> Result<mpsc::Receiver<Progress>, ApiError> {
        self.asked(project, request).await
    }

    async fn place_oneoff(
        &self,
        project: ProjectName,
        request: PlaceOneoff,
    ) -> Result<mpsc::Receiver<Progress>, ApiError> {
        cluster::only_seat(&self.shared)?;
        let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
        self.shared.spawn(oneoff::place(self.shared.clone(), project, request, sender));
        Ok(receiver)
    }

    async fn make_oneoff(&self, project: ProjectName, request: MakeOneoff) -> Result<OneoffMade, ApiError> {
        oneoff::make(&self.shared, &project, &request).await
    }

    async fn begin_oneoff(
        &self,
        project: ProjectName,
        request: BeginOneoff,
    ) -> Result<mpsc::Receiver<Progress>, ApiError> {
        let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
        self.shared.spawn(oneoff::pod::begin(self.shared.clone(), project, request, sender));
        Ok(receiver)
    }

    async fn end_oneoff(&self, project: ProjectName, request: EndOneoff) -> Result<mpsc::Receiver<Progress>, ApiError> {
        let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
        self.shared.spawn(oneoff::pod::end(self.shared.clone(), project, request, sender));
        Ok(receiver)
    }

    async fn cluster(&self) -> Result<ClusterStatus, ApiError> {
        Ok(cluster::status(&self.shared))
    }

    async fn found(&self, request: FoundRequest) -> Result<(), ApiError> {
        cluster::found(&self.shared, request).await
    }

    async fn key(&self, request: KeyRequest) -> Result<KeyAnswer, ApiError> {
        cluster::key(&self.shared, &request).await
    }

    async fn admit(&self, request: AdmitRequest) -> Result<Admission, ApiError> {
        cluster::admit(&self.shared, request).await
    }

    async fn join(&self, admission: Admission) -> Result<(), ApiError> {
        cluster::join(&self.shared, admission).await
    }

    async fn leave(&self) -> Result<(), ApiError> {
        cluster::leave(&self.shared).await
    }

    async fn seat(&self, request: SeatRequest) -> Result<SeatAnswer, ApiError> {
        cluster::seat(&self.shared, request).await
    }

    async fn change_host(&self, host: &HostName, change: HostChange) -> Result<(), ApiError> {
        cluster::change(&self.shared, host, change).await
    }

    async fn remove_host(&self, host: &HostName, request: RemoveHost) -> Result<(), ApiError> {
        cluster::remove(&self.shared, host, &request).await
    }

    async fn missing_snapshots(&self, asked: SnapshotList) -> Result<SnapshotList, ApiError> {
        Ok(SnapshotList { hashes: self.shared.snapshots.missing(&asked.hashes) })
    }

    async fn put_snapshot(&self, hash: &SnapshotHash, archive: ByteStream) -> Result<(), ApiError> {
        self.shared.snapshots.receive(hash, archive).await.map_err(|cause| {
            let kind = match cause {
                SnapshotError::Io { .. } => ErrorKind::Host,
                SnapshotError::Cut(_) | SnapshotError::Refused(_) | SnapshotError::Missing => ErrorKind::User,
                SnapshotError::Changed { .. } => ErrorKind::Conflict,
            };
            error(kind, chain(&cause))
        })
    }

    async fn offer_image(&self, request: OfferImage) -> Result<ImageOffer, ApiError> {
        passing::offer(&self.shared, &request.reference).await
    }

    async fn fetch_image(&self, request: FetchImage) -> Result<mpsc::Receiver<Progress>, ApiError> {
        let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
        self.shared.clients.spawn(passing::fetch(self.shared.clone(), request, sender));
        Ok(receiver)
    }

    async fn uninstall(&self) -> Result<(), ApiError> {
        let fleet = self.shared.fleet();
        if fleet.is_seat() && fleet.others().next().is_some() {
            let message = format!("`{}` is the seat of other hosts: take those out first (`orch host rm`)", fleet.own);
            return Err(error(ErrorKind::Conflict, message));
        }
        // A host that leaves a cluster takes nothing with it: what shall run is written down at the seat.
        let decides = self.shared.fleet().is_seat();
        let projects = if decides { self.shared.projects() } else { Vec::new() };
        if !projects.is_empty() {
            let names: Vec<String> = projects.iter().map(|handle| format!("`{}`", handle.name)).collect();
            let message = format!("{} still up: take down first (`orch -p NAME down`)", names.join(", "));
            return Err(error(ErrorKind::Conflict, message));
        }
        self.uninstalled.cancel();
        self.shared.dataplane.remove_all().await.map_err(host_error)?;
        self.shared.files.remove_all().await.map_err(host_error)
    }
}

/// The loader refuses what is too large, with its place; but anybody may speak to the agent.
fn check_size(graph: &Graph) -> Result<(), ApiError> {
    match graph.wanted_pods() {
        wanted if wanted > u64::from(MAX_PODS) => {
            Err(error(ErrorKind::User, format!("{wanted} containers are wanted, and a project can have {MAX_PODS}")))
        }
        _ => Ok(()),
    }
}

fn next_serial(now: Option<&Record>) -> u64 {
    now.map_or(0, |record| record.serial) + 1
}

/// Returns the history after what the caller asks for: `what` changes by it, `None` when it is what is asked for already.
///
/// # Errors
/// [`ErrorKind::Unseen`] when that would overwrite what others changed and the caller has not seen.
fn next_history(
    project: &ProjectName,
    before: &History,
    caller: &Caller,
    what: Option<Vec<String>>,
    now: Timestamp,
) -> Result<History, ApiError> {
    let unseen = before.unseen(caller);
    match what {
        Some(_) if !unseen.is_empty() => {
            let changes = unseen.iter().map(|one| format!("{} at {}: {}", one.by, one.at, one.what.join(", ")));
            let changes = changes.collect::<Vec<_>>().join("; ");
            Err(error(ErrorKind::Unseen, format!("`{project}` was changed meanwhile by {changes}")))
        }
        Some(what) => Ok(before.with(&caller.name, now, what)),
        None if unseen.is_empty() => Ok(before.clone()),
        // Wants the same, and so knows of it from now on.
        None => Ok(before.with(&caller.name, now, Vec::new())),
    }
}

fn now(shared: &Shared) -> Timestamp {
    let since_1970 = shared.clock.now();
    Timestamp::from_duration(since_1970.try_into().unwrap_or_default()).unwrap_or_default()
}

fn internal(cause: impl std::error::Error) -> ApiError {
    error(ErrorKind::Internal, chain(&cause))
}

/// What the store says when it is written to.
fn unstored(cause: StoreError) -> ApiError {
    if matches!(cause, StoreError::NoSpace { .. }) { host_error(cause) } else { internal(cause) }
}

fn host_error(cause: impl std::error::Error) -> ApiError {
    error(ErrorKind::Host, chain(&cause))
}

/// What a first look remembers: no crashes, and finished jobs of earlier generations.
fn memory_for(shared: &Shared, record: &Record, observed: &Observed) -> BTreeMap<PodId, crate::plan::PodMemory> {
    let Some(desired) = &record.desired else { return BTreeMap::new() };
    recall(&shared.informer, desired, observed, &Failures::default(), shared.clock.now())
}
