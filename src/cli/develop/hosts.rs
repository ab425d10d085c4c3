//! The other side: containers on all hosts, and what each has. Hosts work side by side: one that does not answer is said, asked
//! again and again, and holds up nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cli::fleet::Host;
use crate::cli::source::Source;
use crate::cli::watch::{Heard, Watch};
use crate::engine::EventQuery;
use crate::graph::Role;
use crate::ids::{HostName, ProjectName, ServiceName};
use crate::observed::{ContainerState, ObservedContainer};

use super::deliver::{Outcome, Output, deliver};
use super::lacks::{Number, Parcel, Tracked, lacks};

/// Time that an engine has to list containers.
const LIST_WITHIN: Duration = Duration::from_secs(10);
/// Before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// What commands write that nobody has read yet.
const OUTPUTS: usize = 64;

/// What the hosts' containers are compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The rules with their files.
    pub all: &'a [Tracked],
    /// Number of the last change.
    pub number: Number,
    /// By service: what its image has.
    pub built: &'a BTreeMap<ServiceName, Number>,
}

/// All hosts.
pub(crate) struct Hosts {
    project: ProjectName,
    all: Vec<OneHost>,
    /// By engine id.
    held: BTreeMap<String, Held>,
    jobs: JoinSet<Finished>,
    events: Watch,
    outputs: (mpsc::Sender<Output>, mpsc::Receiver<Output>),
}

struct OneHost {
    source: Source,
    phase: Phase,
    /// Something may be lacking there.
    open: bool,
    /// That it does not answer was said.
    said: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Busy,
    Away,
}

/// What a container has.
#[derive(Debug, Clone, Default)]
struct Held {
    has: Number,
    /// What could not be brought to this run of it, and why.
    failed: Option<(Number, String, String)>,
}

/// A job that ended.
enum Finished {
    Looked(usize, Result<Vec<ObservedContainer>, String>),
    Delivered(usize, Vec<Delivered>),
    Back(usize),
    Joined(Source),
}

/// What a container is to get.
struct Job {
    container: ObservedContainer,
    service: ServiceName,
    number: Number,
    parcel: Parcel,
}

struct Delivered {
    job: Job,
    outcome: Outcome,
    troubles: Vec<String>,
}

impl Job {
    async fn run(self, source: Source, said: mpsc::Sender<Output>) -> Delivered {
        let (id, runs) = (&self.container.id, self.container.is_running());
        let (outcome, troubles) = deliver(source.engine.as_ref(), id, runs, &self.parcel, &said).await;
        Delivered { job: self, outcome, troubles }
    }
}

/// What happened.
pub(crate) enum Happening {
    /// A command in a container wrote something.
    Output(Output),
    /// Something is wrong somewhere.
    Trouble(String),
    /// A container got something.
    Brought {
        /// Its service.
        service: ServiceName,
        /// Its host.
        host: HostName,
        /// How many paths it was about.
        paths: usize,
        /// Whether its service is to be restarted.
        restart: bool,
    },
}

/// What woke the hosts, for [`Hosts::take`] only.
pub(crate) struct Woke(Waking);

enum Waking {
    Job(Finished),
    Event(usize, Heard),
    Output(Output),
}

impl Hosts {
    /// Begins with what is there.
    pub(crate) fn open(project: ProjectName, sources: Vec<Source>, missing: Vec<Arc<Host>>) -> Self {
        let events = Self::listen(&project, &sources);
        let mut jobs = JoinSet::new();
        for host in missing {
            jobs.spawn(join(host));
        }
        let mut hosts =
            Self { project, all: Vec::new(), held: BTreeMap::new(), jobs, events, outputs: mpsc::channel(OUTPUTS) };
        hosts.all = sources.into_iter().map(OneHost::new).collect();
        hosts
    }

    /// Uses these engines from now on; what containers have is still known.
    pub(crate) fn reopen(&mut self, sources: Vec<Source>, missing: Vec<Arc<Host>>) {
        let held = std::mem::take(&mut self.held);
        *self = Self { held, ..Self::open(self.project.clone(), sources, missing) };
    }

    fn listen(project: &ProjectName, sources: &[Source]) -> Watch {
        let query = EventQuery { project: Some(project.clone()), ..EventQuery::default() };
        Watch::open(sources, &query)
    }

    /// Returns the engines.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.all.iter().map(|host| &host.source)
    }

    /// Has all hosts looked at.
    pub(crate) fn wake(&mut self) {
        self.all.iter_mut().for_each(|host| host.open = true);
        self.work();
    }

    /// Returns whether all that can be reached have what they should.
    pub(crate) fn is_settled(&self) -> bool {
        self.all.iter().all(|host| host.phase == Phase::Away || host.phase == Phase::Idle && !host.open)
    }

    fn work(&mut self) {
        for (at, host) in self.all.iter_mut().enumerate() {
            if host.open && host.phase == Phase::Idle {
                (host.open, host.phase) = (false, Phase::Busy);
                self.jobs.spawn(look(at, host.source.clone(), self.project.clone()));
            }
        }
    }

    /// Waits until there is something to [`Hosts::take`]. Nothing is lost where the wait is given up.
    pub(crate) async fn next(&mut self) -> Woke {
        loop {
            tokio::select! {
                Some(output) = self.outputs.1.recv() => return Woke(Waking::Output(output)),
                Some(finished) = self.jobs.join_next() => match finished {
                    Ok(finished) => return Woke(Waking::Job(finished)),
                    Err(error) => tracing::error!(%error, "a job of the watch broke off"),
                },
                Some((at, heard)) = self.events.next() => return Woke(Waking::Event(at, heard)),
            }
        }
    }

    /// Takes in what woke the hosts, and goes on.
    pub(crate) fn take(&mut self, woke: Woke, wanted: Wanted<'_>) -> Vec<Happening> {
        let mut happenings = Vec::new();
        match woke.0 {
            Waking::Output(output) => happenings.push(Happening::Output(output)),
            Waking::Event(at, heard) => self.hear(at, &heard, &mut happenings),
            Waking::Job(Finished::Looked(at, Ok(containers))) => self.bring(at, containers, wanted),
            Waking::Job(Finished::Looked(at, Err(why))) => self.lose(at, &why, &mut happenings),
            Waking::Job(Finished::Delivered(at, all)) => self.brought(at, all, &mut happenings),
            Waking::Job(Finished::Back(at)) => {
                if let Some(host) = self.all.get_mut(at) {
                    (host.phase, host.open) = (Phase::Idle, true);
                }
            }
            Waking::Job(Finished::Joined(source)) => {
                happenings.push(Happening::Trouble(format!("host `{}` answers now", source.name)));
                self.all.push(OneHost { open: true, ..OneHost::new(source) });
                let sources: Vec<Source> = self.sources().cloned().collect();
                self.events = Self::listen(&self.project, &sources);
            }
        }
        self.work();
        happenings
    }

    fn hear(&mut self, at: usize, heard: &Heard, happenings: &mut Vec<Happening>) {
        let Some(host) = self.all.get_mut(at) else { return };
        match heard {
            Heard::Event(event) if event.kind == "container" && event.action == "start" => host.open = true,
            Heard::Back => host.open = true,
            Heard::Interrupted(_) => happenings.extend(host.say_silent("the connection ended")),
            Heard::Event(_) | Heard::Current | Heard::Done => {}
        }
    }

    /// A host does not answer: it is asked again until it does.
    fn lose(&mut self, at: usize, why: &str, happenings: &mut Vec<Happening>) {
        let Some(host) = self.all.get_mut(at) else { return };
        happenings.extend(host.say_silent(why));
        host.phase = Phase::Away;
        self.jobs.spawn(come_back(at, host.source.clone()));
    }

    /// Brings the containers of a host what they lack.
    fn bring(&mut self, at: usize, containers: Vec<ObservedContainer>, wanted: Wanted<'_>) {
        let Some(host) = self.all.get_mut(at) else { return };
        host.said = false;
        let mut parcels = Vec::new();
        for container in containers {
            let Some(service) = container.service.clone().filter(|_| is_meant(&container)) else { continue };
            let held = self.held.entry(container.id.clone()).or_default();
            let given_up = held
                .failed
                .as_ref()
                .is_some_and(|(number, run, _)| *number == wanted.number && *run == container.started_at);
            if given_up || held.has >= wanted.number {
                continue;
            }
            let built = wanted.built.get(&service).copied().unwrap_or_default();
            let parcel = lacks(wanted.all, &service, held.has, built);
            if parcel.is_empty() {
                held.has = wanted.number;
            } else {
                parcels.push((container, service, parcel));
            }
        }
        if parcels.is_empty() {
            host.phase = Phase::Idle;
            return;
        }
        let (source, number, said) = (host.source.clone(), wanted.number, self.outputs.0.clone());
        self.jobs.spawn(async move {
            let each = parcels.into_iter().map(|(container, service, parcel)| {
                let job = Job { container, service, number, parcel };
                job.run(source.clone(), said.clone())
            });
            Finished::Delivered(at, join_all(each).await)
        });
    }

    fn brought(&mut self, at: usize, all: Vec<Delivered>, happenings: &mut Vec<Happening>) {
        let Some(host) = self.all.get_mut(at) else { return };
        host.phase = Phase::Idle;
        let mut again = false;
        for Delivered { job, outcome, troubles } in all {
            let Job { container, service, number, parcel } = job;
            let name = call(&host.source, &container.name);
            happenings.extend(troubles.iter().map(|trouble| Happening::Trouble(format!("{name}: {trouble}"))));
            let held = self.held.entry(container.id.clone()).or_default();
            match outcome {
                Outcome::Done => {
                    *held = Held { has: number, failed: None };
                    let (host, paths, restart) = (host.source.name.clone(), parcel.len(), parcel.restart);
                    happenings.push(Happening::Brought { service, host, paths, restart });
                }
                // Its next start is told by its engine.
                Outcome::Later => {
                    happenings.push(Happening::Brought {
                        service,
                        host: host.source.name.clone(),
                        paths: parcel.put.len(),
                        restart: parcel.restart,
                    });
                    held.failed = Some((number, container.started_at, String::new()));
                }
                Outcome::Gone => {}
                Outcome::Failed { message, again: may_work } => {
                    if held.failed.as_ref().is_none_or(|(_, _, said)| *said != message) {
                        happenings.push(Happening::Trouble(format!("{name}: not synced: {message}")));
                    }
                    again |= may_work;
                    let number = if may_work { 0 } else { number };
                    held.failed = Some((number, container.started_at, message));
                }
            }
        }
        if again {
            host.phase = Phase::Away;
            self.jobs.spawn(come_back(at, host.source.clone()));
        }
    }
}

impl OneHost {
    fn new(source: Source) -> Self {
        Self { source, phase: Phase::Idle, open: false, said: false }
    }

    /// Says that it does not answer, once.
    fn say_silent(&mut self, why: &str) -> Option<Happening> {
        let who =
            if self.source.is_remote() { format!("host `{}`", self.source.name) } else { "the engine".to_owned() };
        let text = format!("{who} does not answer ({why}): its containers get what they lack once it does");
        (!std::mem::replace(&mut self.said, true)).then_some(Happening::Trouble(text))
    }
}

/// Returns how a container is called where there may be several hosts.
fn call(source: &Source, name: &str) -> String {
    if source.is_remote() { format!("{name} on {}", source.name) } else { name.to_owned() }
}

/// Files get into containers of services, also those that have ended: they may be started again.
fn is_meant(container: &ObservedContainer) -> bool {
    let is_holder = container.part().is_some_and(|part| part.role == Role::Holder);
    let is_there = !matches!(container.state, ContainerState::Dead | ContainerState::Removing);
    is_there && !is_holder && !container.oneoff
}

async fn look(at: usize, source: Source, project: ProjectName) -> Finished {
    let looked = match timeout(LIST_WITHIN, source.engine.observe(Some(&project))).await {
        Ok(Ok(seen)) => {
            let own = |one: &ObservedContainer| one.project.as_ref() == Some(&project);
            Ok(seen.containers.into_values().filter(own).collect())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("nothing within {} s", LIST_WITHIN.as_secs())),
    };
    Finished::Looked(at, looked)
}

async fn come_back(at: usize, source: Source) -> Finished {
    sleep(AGAIN).await;
    source.reached().await;
    Finished::Back(at)
}

/// Waits for a host that did not answer at the beginning.
async fn join(host: Arc<Host>) -> Finished {
    loop {
        match host.engine().await {
            Ok(engine) => return Finished::Joined(Source::over(host, Arc::new(engine))),
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// Says what containers got, once for each service.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<ServiceName, (usize, usize, BTreeSet<HostName>)>);

impl Tally {
    /// Counts a container that got so many paths.
    pub(crate) fn add(&mut self, service: ServiceName, host: HostName, paths: usize) {
        let (most, containers, hosts) = self.0.entry(service).or_default();
        *most = paths.max(*most);
        *containers += 1;
        hosts.insert(host);
    }

    /// Returns a sentence for each service, and begins anew.
    pub(crate) fn tell(&mut self, took: Duration) -> Vec<String> {
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let all = std::mem::take(&mut self.0);
        let each = all.into_iter().map(|(service, (paths, containers, hosts))| {
            let (paths, into) = (count(paths, "path"), count(containers, "container"));
            let hosts = hosts.len();
            let on = if hosts > 1 { format!(" on {hosts} hosts") } else { String::new() };
            format!("Synced service \"{service}\": {paths} in {into}{on}, {:.1}s", took.as_secs_f64())
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests;
