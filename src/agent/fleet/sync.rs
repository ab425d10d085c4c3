//! What travels between two agents: each tells the other its picture, over a stream that it opened itself, and the seat
//! tells what shall be. Frames of JSON, each led by its length.
//!
//! Level-triggered: who connects anew starts with everything, and after that only differences go. Whatever was lost on
//! the way is in the next whole picture. Nothing is asked and answered but "heard up to here".

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::api::types::Progress;
use crate::ids::{HostName, ProjectName};
use crate::mesh::Mesh;

use super::super::shared::{Record, Shared};
use super::members::HostRecord;
use super::picture::{Picture, Update};
use super::renew;
use super::succession::{self, Seat};

/// Version of what agents say to each other. Fields that may be left out and are ignored by who does not know them need no
/// other one; whatever else changes does, and agents that differ in it do not listen to each other.
pub const LANGUAGE: u32 = 1;

/// Pause between two signs of life when there is nothing to tell.
pub const BEAT: Duration = Duration::from_millis(700);

/// Pause before a certificate is asked for again.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// Largest frame: a whole picture or a graph with the contents of its configs, as large as the API takes one.
const MAX_FRAME: usize = 64 << 20;

/// What the one who opened the stream says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Message {
    /// First of all.
    Hello {
        /// Version of its orch.
        version: String,
        /// See [`LANGUAGE`].
        #[serde(default)]
        language: u32,
        /// Its wall time.
        at: Timestamp,
        /// Which host it obeys.
        #[serde(default)]
        seat: Option<Seat>,
    },
    /// What is on its host.
    Picture {
        /// Number of the picture that this leads to.
        version: u64,
        /// Whether it starts from nothing.
        whole: bool,
        /// What changed.
        update: Box<Update>,
    },
    /// What shall be; only the seat's word counts.
    Records {
        /// Number of the state that this leads to.
        revision: u64,
        /// Whether projects that are not named are gone.
        whole: bool,
        /// Projects that are new or changed.
        projects: Vec<(ProjectName, Box<Record>)>,
        /// Projects that are gone.
        gone: Vec<ProjectName>,
        /// All hosts of the cluster, if any of that changed.
        hosts: Option<BTreeMap<HostName, HostRecord>>,
    },
    /// Something that its part of a project did, for who follows it at the seat.
    Progress {
        /// The project.
        project: ProjectName,
        /// What happened.
        event: Progress,
    },
    /// Asks the seat for the next certificate of the host that says this.
    Renew {
        /// Request for it, PEM.
        request: String,
    },
    /// A sign of life.
    Beat {
        /// Its wall time.
        at: Timestamp,
        /// Which host it obeys.
        #[serde(default)]
        seat: Option<Seat>,
    },
}

/// What the other side answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Newest picture that counts in its tables now.
    pub picture: u64,
    /// Newest records that it has written down.
    pub records: u64,
    /// Its wall time.
    pub at: Timestamp,
    /// The certificate that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Why nothing more is listened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Why a stream between two agents ended.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// It was cut.
    #[error("the connection was cut")]
    Cut(#[from] std::io::Error),
    /// It ended in order.
    #[error("the other agent closed the connection")]
    Closed,
    /// One of the two is of a version that the other does not understand.
    #[error("{0}: `orch up` brings all agents to one version")]
    OtherLanguage(String),
    /// The other side says what this one does not understand: another version.
    #[error("it says what this version of orch does not understand")]
    NotUnderstood(#[from] serde_json::Error),
    /// It says what shall be, and is not the seat as far as is known here. When it says so anew, that may be otherwise.
    #[error("it says what shall be, but is not the seat")]
    NotSeat,
    /// What was told could not be written down.
    #[error("what the seat wants could not be written down")]
    Store(#[from] crate::store::StoreError),
}

type Frames<S> = Framed<S, LengthDelimitedCodec>;

fn frames<S: AsyncRead + AsyncWrite>(stream: S) -> Frames<S> {
    LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_framed(stream)
}

fn wall_time(shared: &Shared) -> Timestamp {
    let since_1970 = shared.clock.now();
    Timestamp::from_duration(since_1970.try_into().unwrap_or_default()).unwrap_or_default()
}

/// What the other side was told last.
#[derive(Default)]
struct Told {
    picture: Option<(u64, Arc<Picture>)>,
    revision: Option<u64>,
    projects: BTreeMap<ProjectName, u64>,
    hosts: BTreeMap<HostName, HostRecord>,
}

/// Tells `peer` what is on this host, and at the seat what shall be, until the stream breaks.
///
/// Reads this host's picture and the projects' records; writes what the peer has heard.
///
/// # Errors
/// Always ends with one: why.
pub async fn tell<S>(shared: &Arc<Shared>, peer: &HostName, stream: S) -> Result<Infallible, SyncError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = frames(stream);
    let mut pictures = shared.own_pictures();
    let mut records = shared.records_changed();
    let mut progress = shared.progress_of_all();
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Told::default();
    let mut asked = None;
    shared.peers.acknowledged(peer, 0, 0);
    let (version, seat) = (env!("CARGO_PKG_VERSION").to_owned(), Some(Seat::of(&shared.fleet())));
    let hello = Message::Hello { version, language: LANGUAGE, at: wall_time(shared), seat };
    send(&mut frames, &hello).await?;
    loop {
        let own = pictures.borrow_and_update().clone();
        // First what led to it: who follows an `up` is told of its end once the picture shows it.
        while let Ok((project, event)) = progress.try_recv() {
            if *peer == shared.fleet().seat {
                send(&mut frames, &Message::Progress { project, event }).await?;
            }
        }
        if let Some(message) = told.picture(own) {
            send(&mut frames, &message).await?;
        }
        records.mark_unchanged();
        if shared.fleet().is_seat()
            && let Some(message) = told.records(shared)
        {
            send(&mut frames, &message).await?;
        }
        tokio::select! {
            changed = pictures.changed() => if changed.is_err() { return Err(SyncError::Closed) },
            changed = records.changed() => if changed.is_err() { return Err(SyncError::Closed) },
            event = progress.recv() => match event {
                Ok((project, event)) if *peer == shared.fleet().seat => {
                    send(&mut frames, &Message::Progress { project, event }).await?;
                }
                // Progress is for the eye: what a slow line loses, the end of the `up` makes good.
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return Err(SyncError::Closed),
            },
            frame = frames.next() => {
                let frame = frame.ok_or(SyncError::Closed)??;
                let heard: Heard = serde_json::from_slice(&frame)?;
                if let Some(why) = heard.refused {
                    return Err(SyncError::OtherLanguage(why));
                }
                shared.peers.acknowledged(peer, heard.picture, heard.records);
                shared.peers.beat(peer, Some(heard.at.duration_since(wall_time(shared))));
                if let (Some(certificate), Some(mesh)) = (heard.certificate, shared.mesh.get()) {
                    match renew::take(shared, mesh, &certificate) {
                        Ok(()) => asked = None,
                        // Asked for again in a while.
                        Err(error) => tracing::error!(
                            error = crate::diag::chain(&error),
                            "the next certificate cannot be taken into use"
                        ),
                    }
                }
            }
            _ = beat.tick() => {
                let seat = Some(Seat::of(&shared.fleet()));
                send(&mut frames, &Message::Beat { at: wall_time(shared), seat }).await?;
                let wants = *peer == shared.fleet().seat && shared.mesh.get().is_some_and(Mesh::wants_renewal);
                if wants && asked.is_none_or(|at: Instant| at.elapsed() > ASK_AGAIN)
                    && let Some(request) = renew::request(shared)
                {
                    asked = Some(Instant::now());
                    send(&mut frames, &Message::Renew { request }).await?;
                }
            }
        }
    }
}

impl Told {
    /// Returns what is to be told of this host's picture, and counts it as told.
    fn picture(&mut self, (version, picture): (u64, Arc<Picture>)) -> Option<Message> {
        let nothing = Arc::new(Picture::default());
        let (whole, before) = match &self.picture {
            Some((told, _)) if *told == version => return None,
            Some((_, before)) => (false, before),
            None => (true, &nothing),
        };
        let update = Box::new(picture.since(before).unwrap_or_default());
        self.picture = Some((version, picture));
        Some(Message::Picture { version, whole, update })
    }

    /// Returns what is to be told of what shall be, and counts it as told.
    fn records(&mut self, shared: &Shared) -> Option<Message> {
        let (revision, now) = shared.records();
        if self.revision == Some(revision) {
            return None;
        }
        let whole = self.revision.replace(revision).is_none();
        let changed = now.iter().filter(|(name, record)| self.projects.get(*name) != Some(&record.serial));
        let projects = changed.map(|(name, record)| (name.clone(), Box::new(Record::clone(record)))).collect();
        let gone = self.projects.keys().filter(|name| !now.contains_key(*name)).cloned().collect();
        self.projects = now.iter().map(|(name, record)| (name.clone(), record.serial)).collect();
        let fleet = shared.fleet();
        let hosts = (whole || fleet.hosts != self.hosts).then(|| fleet.hosts.clone());
        self.hosts.clone_from(&fleet.hosts);
        Some(Message::Records { revision, whole, projects, gone, hosts })
    }
}

/// Takes in what `peer` tells over a stream that it opened, until the stream breaks.
///
/// Writes what the peer shows, and on other hosts than the seat what the seat wants.
///
/// # Errors
/// Always ends with one: why.
pub async fn hear<S>(shared: &Arc<Shared>, peer: &HostName, stream: S) -> Result<Infallible, SyncError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = frames(stream);
    let mut heard = Heard { picture: 0, records: 0, at: wall_time(shared), certificate: None, refused: None };
    let mut orders = Orders::default();
    loop {
        let frame = frames.next().await.ok_or(SyncError::Closed)??;
        let message: Message = serde_json::from_slice(&frame)?;
        let mut skew = None;
        match message {
            Message::Hello { version, language, .. } if language != LANGUAGE => {
                let own = env!("CARGO_PKG_VERSION");
                let why = format!(
                    "orch {version} of `{peer}` and orch {own} of `{}` do not understand each other (language {language} \
                     and {LANGUAGE})",
                    shared.host()
                );
                heard.refused = Some(why.clone());
                frames.send(Bytes::from(serde_json::to_vec(&heard)?)).await?;
                return Err(SyncError::OtherLanguage(why));
            }
            Message::Hello { at, seat, .. } | Message::Beat { at, seat } => {
                skew = Some(at.duration_since(wall_time(shared)));
                if let Some(seat) = seat {
                    let claims = shared.peers.obeys(peer, seat);
                    if let Some(seat) = succession::verdict(&shared.fleet(), &claims) {
                        succession::obey(shared, seat).await?;
                    }
                }
            }
            Message::Picture { version, whole, update } => {
                shared.peers.update(peer, *update, whole);
                // Counts only once no new connection is made by the old tables.
                shared.dataplane.refresh_tables(shared);
                heard.picture = version;
            }
            Message::Records { revision, whole, projects, gone, hosts } => {
                if *peer != shared.fleet().seat {
                    tracing::warn!(%peer, "a host that is not the seat says what shall be; not listened to");
                    return Err(SyncError::NotSeat);
                }
                orders.add(Orders {
                    revision: Some(revision),
                    whole,
                    projects: projects.into_iter().map(|(name, record)| (name, *record)).collect(),
                    gone: gone.into_iter().collect(),
                    hosts,
                });
            }
            Message::Renew { request } => {
                // The connection's certificate says who asks.
                heard.certificate = renew::sign(shared, peer, &request);
            }
            Message::Progress { project, event } => {
                if let Some(handle) = shared.project(&project) {
                    // Nobody listens most of the time.
                    drop(handle.progress.send(event));
                }
            }
        }
        // Beats come often enough for another attempt at what could not be written down.
        heard.records = orders.carry_out(shared, peer).await.unwrap_or(heard.records);
        shared.peers.beat(peer, skew);
        heard.at = wall_time(shared);
        let frame = serde_json::to_vec(&heard)?;
        frames.send(Bytes::from(frame)).await?;
        heard.certificate = None;
    }
}

/// What the seat wants and is not written down here yet.
#[derive(Default)]
struct Orders {
    /// The state that they lead to; `None`: there are none.
    revision: Option<u64>,
    whole: bool,
    projects: BTreeMap<ProjectName, Record>,
    gone: BTreeSet<ProjectName>,
    hosts: Option<BTreeMap<HostName, HostRecord>>,
}

impl Orders {
    /// Adds later ones.
    fn add(&mut self, later: Self) {
        if later.whole {
            *self = later;
            return;
        }
        let Self { revision, whole: _, projects, gone, hosts } = later;
        self.projects.retain(|name, _| !gone.contains(name));
        self.gone.retain(|name| !projects.contains_key(name));
        self.revision = revision;
        self.projects.extend(projects);
        self.gone.extend(gone);
        self.hosts = hosts.or(self.hosts.take());
    }

    /// Takes over what `peer` wants. Returns how far this host is now; what cannot be written down stays to be done, and
    /// that is told to all.
    ///
    /// Holds the lock under which the seat moves: what a host wanted while it was the seat is not carried out late, and
    /// does not undo the move.
    async fn carry_out(&mut self, shared: &Shared, peer: &HostName) -> Option<u64> {
        let revision = self.revision?;
        let _guard = shared.admission.lock().await;
        if *peer != shared.fleet().seat {
            *self = Self::default();
            return None;
        }
        let projects = self.projects.clone().into_iter().collect();
        let gone: Vec<ProjectName> = self.gone.iter().cloned().collect();
        match shared.obey(projects, &gone, self.whole, self.hosts.clone()).await {
            Ok(()) => {
                *self = Self::default();
                shared.set_unwritten(&BTreeMap::new(), "");
                Some(revision)
            }
            Err(error) => {
                let why = crate::diag::chain(&error);
                tracing::error!(error = why, "what the seat wants cannot be written down");
                shared.set_unwritten(&self.projects, &why);
                None
            }
        }
    }
}

async fn send<S>(frames: &mut Frames<S>, message: &Message) -> Result<(), SyncError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame = serde_json::to_vec(message)?;
    // A peer that does not read must be noticed as one that does not answer.
    let sent = tokio::time::timeout(super::peers::SILENCE * 2, frames.send(Bytes::from(frame))).await;
    sent.map_err(|_| SyncError::Cut(std::io::ErrorKind::TimedOut.into()))??;
    Ok(())
}

/// Keeps telling one peer: connects with `connect`, again after every break, until dropped.
pub async fn keep_telling<S, F>(shared: Arc<Shared>, peer: HostName, connect: impl Fn() -> F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = std::io::Result<S>>,
{
    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_secs(1);
    let mut pause = FIRST;
    loop {
        let begun = Instant::now();
        let problem = match connect().await {
            Ok(stream) => {
                shared.peers.beat(&peer, None);
                let Err(error) = tell(&shared, &peer, stream).await;
                error.to_string()
            }
            Err(error) => error.to_string(),
        };
        tracing::debug!(%peer, problem, "not connected");
        shared.peers.failed(&peer, problem);
        pause = if begun.elapsed() > LAST { FIRST } else { (pause * 2).min(LAST) };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::shared::Aim;
    use crate::ids::ServiceName;
    use crate::model::{Algorithm, AppProtocol, HashKey, Probe, ProbeKind, Sticky};
    use crate::plan::History;
    use crate::testing;

    fn orders(revision: u64, whole: bool, projects: &[(&str, u64)], gone: &[&str]) -> Orders {
        let project = |name: &str| ProjectName::new(name).expect("a name");
        let record =
            |serial: u64| Record { aim: Aim::Up, desired: None, serial, released: false, history: History::default() };
        Orders {
            revision: Some(revision),
            whole,
            projects: projects.iter().map(|(name, serial)| (project(name), record(*serial))).collect(),
            gone: gone.iter().map(|name| project(name)).collect(),
            hosts: None,
        }
    }

    fn shown(orders: &Orders) -> String {
        let projects = orders.projects.iter().map(|(name, record)| format!("{name} {}", record.serial));
        let gone = orders.gone.iter().map(|name| format!("no {name}"));
        let whole = if orders.whole { "all" } else { "more" };
        let words: Vec<String> = projects.chain(gone).collect();
        format!("{} {whole}: {}", orders.revision.unwrap_or_default(), words.join(", "))
    }

    #[test]
    fn orders_that_wait_are_added_to_and_the_last_word_counts() {
        let mut waiting = Orders::default();
        waiting.add(orders(1, true, &[("shop", 1), ("blog", 1)], &[]));
        waiting.add(orders(2, false, &[("shop", 2)], &["blog"]));
        assert_eq!(shown(&waiting), "2 all: shop 2, no blog");
        waiting.add(orders(3, false, &[("blog", 3)], &["shop"]));
        assert_eq!(shown(&waiting), "3 all: blog 3, no shop");
        waiting.add(orders(4, true, &[("wiki", 1)], &[]));
        assert_eq!(shown(&waiting), "4 all: wiki 1");
    }

    #[test]
    fn what_shall_be_is_understood_with_all_that_serves_a_service() {
        let (web, second) = (ServiceName::new("web").expect("valid"), Duration::from_secs(1));
        let mut graph = testing::graph("shop", &["web"]);
        let serving = &mut graph.services.get_mut(&web).expect("it is there").serving;
        serving.http = BTreeMap::from([(80, AppProtocol::Http), (50_051, AppProtocol::Grpc)]);
        serving.routes = vec![testing::route("host=a.test path=/x method=GET h=x:1 weight=3 tls=443")];
        serving.balance.algorithm = Algorithm::Hash(HashKey::Cookie("user".to_owned()));
        serving.balance.sticky = Some(Sticky { cookie: "pod".to_owned(), ttl: Some(second) });
        serving.balance.weights = BTreeMap::from([(HostName::local(), 3)]);
        let kind = ProbeKind::Tcp;
        serving.probe = Some(Probe { kind, port: 80, interval: second, timeout: second, failures: 2, successes: 1 });
        let (project, history) = (graph.project.clone(), History::default());
        let desired = Some(testing::desired(graph));
        let record = Box::new(Record { aim: Aim::Up, desired, serial: 1, released: false, history });
        let projects = vec![(project, record)];
        let told = Message::Records { revision: 1, whole: true, projects, gone: vec![], hosts: None };
        let text = serde_json::to_vec(&told).expect("written");
        let heard: Message = serde_json::from_slice(&text).expect("understood");
        assert_eq!(heard, told);
    }
}
