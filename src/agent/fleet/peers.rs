//! What the other hosts show, and what they have heard from this one. Kept in memory only: after a restart they tell it
//! anew, and until then what was known of them before does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::ids::{HostName, PodId, ProjectName};
use crate::plan::{Observed, ObservedHost, PodMemory};

use super::picture::{Machine, Picture, Report, Update};
use super::succession::Seat;

/// A host that was silent for longer is out of every table. Three missed beats.
pub const SILENCE: Duration = Duration::from_secs(3);

/// A host that is away for longer gets its pods placed elsewhere: long enough for an agent to be restarted or replaced.
pub const LOST: Duration = Duration::from_secs(6);

/// One other host.
#[derive(Debug, Clone)]
struct Peer {
    picture: Picture,
    /// Whether it told its picture since this agent started.
    told: bool,
    /// When it was last heard of; the time it was added until then.
    heard: Instant,
    /// Newest picture of this host that it has taken in.
    has_picture: u64,
    /// Newest record of the seat that it has taken in.
    has_records: u64,
    /// Why it cannot be talked to.
    problem: Option<String>,
    /// How far its clock is ahead of this host's.
    skew: jiff::SignedDuration,
    /// Which host it obeys.
    seat: Option<Seat>,
}

/// A host as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// Whether it counts: it was heard of lately.
    pub alive: bool,
    /// For how long it was silent.
    pub silent: Duration,
    /// Why it cannot be talked to, for the reader.
    pub problem: Option<String>,
    /// How far its clock is ahead of this host's.
    pub skew: jiff::SignedDuration,
}

/// The other hosts of the cluster.
pub struct Peers {
    hosts: Mutex<BTreeMap<HostName, Peer>>,
    /// Wakes whoever plans or makes tables; shared with the picture of the own engine.
    changed: watch::Sender<u64>,
    /// Wakes who waits for acknowledgements.
    heard: watch::Sender<u64>,
}

impl Peers {
    /// Returns no peers; `changed` is woken when what they show changes.
    pub fn new(changed: watch::Sender<u64>) -> Self {
        Self { hosts: Mutex::default(), changed, heard: watch::channel(0).0 }
    }

    /// Makes these the other hosts of the cluster.
    pub fn set(&self, names: &BTreeSet<HostName>) {
        let mut peers = self.lock();
        peers.retain(|name, _| names.contains(name));
        for name in names {
            peers.entry(name.clone()).or_insert_with(|| Peer {
                picture: Picture::default(),
                told: false,
                heard: Instant::now(),
                has_picture: 0,
                has_records: 0,
                problem: None,
                skew: jiff::SignedDuration::ZERO,
                seat: None,
            });
        }
        drop(peers);
        self.wake();
    }

    /// Takes in what a host tells of itself; `whole`: it starts anew.
    pub fn update(&self, name: &HostName, update: Update, whole: bool) {
        if let Some(peer) = self.lock().get_mut(name) {
            if whole {
                peer.picture = Picture::default();
            }
            peer.picture.apply(update);
            peer.told = true;
            peer.heard = Instant::now();
        }
        self.wake();
    }

    /// Takes note that a host is there, and of its clock.
    pub fn beat(&self, name: &HostName, skew: Option<jiff::SignedDuration>) {
        let mut back = false;
        if let Some(peer) = self.lock().get_mut(name) {
            back = peer.heard.elapsed() >= SILENCE;
            peer.heard = Instant::now();
            peer.problem = None;
            peer.skew = skew.unwrap_or(peer.skew);
        }
        if back {
            self.wake();
        }
    }

    /// Takes note of which host another one obeys. Returns what all that are alive say.
    pub fn obeys(&self, name: &HostName, seat: Seat) -> BTreeMap<HostName, Seat> {
        let mut peers = self.lock();
        if let Some(peer) = peers.get_mut(name) {
            peer.seat = Some(seat);
        }
        let alive = peers.iter().filter(|(_, peer)| is_alive(peer));
        alive.filter_map(|(name, peer)| Some((name.clone(), peer.seat.clone()?))).collect()
    }

    /// Takes note of why a host cannot be talked to.
    pub fn failed(&self, name: &HostName, problem: String) {
        if let Some(peer) = self.lock().get_mut(name) {
            peer.problem = Some(problem);
        }
    }

    /// Takes note of what a host has taken in of what this one told it.
    pub fn acknowledged(&self, name: &HostName, picture: u64, records: u64) {
        if let Some(peer) = self.lock().get_mut(name) {
            (peer.has_picture, peer.has_records) = (picture, records);
        }
        self.heard.send_modify(|count| *count += 1);
    }

    /// Waits until every host that is alive has this picture of the own host, at most for `deadline`.
    pub async fn wait_for_picture(&self, version: u64, deadline: Duration) {
        let mut heard = self.heard.subscribe();
        let all = async {
            while !self.lock().values().all(|peer| peer.has_picture >= version || !is_alive(peer)) {
                let silent = tokio::time::sleep(SILENCE / 10);
                tokio::select! {
                    changed = heard.changed() => if changed.is_err() { return },
                    () = silent => {}
                }
            }
        };
        // A host that does not answer in time must not keep this one from its work.
        tokio::time::timeout(deadline, all).await.ok();
    }

    /// Returns whether every host that is alive has taken in the seat's records up to `revision`.
    pub fn have_records(&self, revision: u64) -> bool {
        self.lock().values().all(|peer| peer.has_records >= revision || !is_alive(peer))
    }

    /// Waits until a host has taken in the seat's records up to `revision`, at most for `deadline` and as long as it is
    /// alive. Returns whether it has.
    pub async fn wait_for_records(&self, name: &HostName, revision: u64, deadline: Duration) -> bool {
        let mut heard = self.heard.subscribe();
        let state = || self.lock().get(name).map(|peer| (is_alive(peer), peer.has_records >= revision));
        let has = async {
            loop {
                match state() {
                    Some((true, has)) if has => return true,
                    Some((true, _)) => {}
                    Some((false, _)) | None => return false,
                }
                tokio::select! {
                    changed = heard.changed() => if changed.is_err() { return false },
                    () = tokio::time::sleep(SILENCE / 10) => {}
                }
            }
        };
        tokio::time::timeout(deadline, has).await.unwrap_or(false)
    }

    /// Returns what the hosts that are alive show of one project (`None`: of all).
    pub fn observed(&self, project: Option<&ProjectName>) -> Observed {
        let peers = self.lock();
        let hosts = peers.iter().filter(|(_, peer)| peer.told && is_alive(peer)).map(|(name, peer)| {
            let host = &peer.picture.observed;
            let containers = host.containers.iter();
            let containers = containers.filter(|(_, one)| project.is_none() || one.project.as_ref() == project);
            let containers = containers.map(|(id, one)| (id.clone(), one.clone())).collect();
            let report = project.and_then(|project| peer.picture.reports.get(project));
            let images = report.map(|report| report.images.clone()).unwrap_or_default();
            let (networks, volumes) = (host.networks.clone(), host.volumes.clone());
            (name.clone(), ObservedHost { containers, networks, volumes, images })
        });
        Observed { hosts: hosts.collect() }
    }

    /// Returns the machines of the hosts that count for placing: heard of lately, or silent for less than [`LOST`].
    pub fn machines(&self) -> BTreeMap<HostName, Machine> {
        let peers = self.lock();
        let there = peers.iter().filter(|(_, peer)| peer.told && peer.heard.elapsed() < LOST);
        there.map(|(name, peer)| (name.clone(), peer.picture.machine.clone())).collect()
    }

    /// Returns the machines of all hosts that told of theirs, dead or alive.
    pub fn all_machines(&self) -> BTreeMap<HostName, Machine> {
        let peers = self.lock();
        peers
            .iter()
            .filter(|(_, peer)| peer.told)
            .map(|(name, peer)| (name.clone(), peer.picture.machine.clone()))
            .collect()
    }

    /// Returns the containers that other hosts are about to stop.
    pub fn draining(&self) -> BTreeSet<String> {
        self.lock().values().flat_map(|peer| peer.picture.draining.iter().cloned()).collect()
    }

    /// Returns what the other hosts' agents say of a project.
    pub fn reports(&self, project: &ProjectName) -> BTreeMap<HostName, Report> {
        let peers = self.lock();
        let alive = peers.iter().filter(|(_, peer)| is_alive(peer));
        alive.filter_map(|(name, peer)| Some((name.clone(), peer.picture.reports.get(project)?.clone()))).collect()
    }

    /// Returns what the other hosts' agents remember of a project's pods.
    pub fn memory(&self, project: &ProjectName) -> BTreeMap<HostName, BTreeMap<PodId, PodMemory>> {
        self.reports(project).into_iter().map(|(name, report)| (name, report.memory)).collect()
    }

    /// Returns whether every host told its picture since this agent started, but for those that are lost.
    pub fn have_all_told(&self) -> bool {
        self.lock().values().all(|peer| peer.told || peer.heard.elapsed() >= LOST)
    }

    /// Waits until every host told its picture, but for those that are lost.
    pub async fn wait_until_told(&self) {
        let mut changed = self.changed.subscribe();
        while !self.have_all_told() {
            tokio::select! {
                told = changed.changed() => if told.is_err() { return },
                () = tokio::time::sleep(SILENCE / 10) => {}
            }
        }
    }

    /// Returns whether every host that is alive has looked at this record of a project.
    pub fn all_know(&self, project: &ProjectName, serial: u64) -> bool {
        let know = |peer: &Peer| peer.picture.reports.get(project).is_some_and(|report| report.serial >= serial);
        self.lock().values().all(|peer| !peer.told || !is_alive(peer) || know(peer))
    }

    /// Returns how each host is.
    pub fn states(&self) -> BTreeMap<HostName, PeerState> {
        let peers = self.lock();
        let state = |peer: &Peer| PeerState {
            alive: peer.told && is_alive(peer),
            silent: peer.heard.elapsed(),
            problem: peer.problem.clone(),
            skew: peer.skew,
        };
        peers.iter().map(|(name, peer)| (name.clone(), state(peer))).collect()
    }

    /// Returns when the next host that is alive or not yet lost will be silent for too long, if it stays silent.
    pub fn next_loss(&self) -> Option<Instant> {
        let now = Instant::now();
        let peers = self.lock();
        let times = peers.values().flat_map(|peer| [peer.heard + SILENCE, peer.heard + LOST]);
        times.filter(|time| *time > now).min()
    }

    /// Wakes whoever plans or makes tables.
    pub fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<HostName, Peer>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_alive(peer: &Peer) -> bool {
    peer.heard.elapsed() < SILENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> HostName {
        HostName::new(name).expect("a name")
    }

    fn two() -> Peers {
        let peers = Peers::new(watch::channel(0).0);
        peers.set(&["b", "c"].map(name).into());
        peers
    }

    fn update(id: u32) -> Update {
        Update { containers: vec![crate::testing::container("shop", "web", id)], ..Update::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_host_leaves_and_is_lost_later() {
        let peers = two();
        assert!(peers.observed(None).hosts.is_empty(), "nobody told anything yet");
        peers.update(&name("b"), update(1), true);
        peers.update(&name("c"), update(2), true);
        assert_eq!(peers.observed(None).hosts.len(), 2);
        let step = SILENCE / 2;
        tokio::time::advance(step).await;
        peers.beat(&name("b"), None);
        tokio::time::advance(step).await;
        assert_eq!(peers.observed(None).hosts.into_keys().collect::<Vec<_>>(), [name("b")]);
        assert_eq!(peers.machines().len(), 2, "away, but it may be back");
        for _ in 0..3 {
            tokio::time::advance(step).await;
            peers.beat(&name("b"), None);
        }
        assert_eq!(peers.machines().into_keys().collect::<Vec<_>>(), [name("b")]);
        peers.beat(&name("c"), None);
        assert_eq!(peers.observed(None).hosts.len(), 2, "back with what it showed");
        peers.set(&[name("c")].into());
        assert_eq!(peers.states().into_keys().collect::<Vec<_>>(), [name("c")]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_is_waited_for_but_not_from_the_dead() {
        let peers = std::sync::Arc::new(two());
        peers.acknowledged(&name("b"), 4, 1);
        let begun = Instant::now();
        let waits = tokio::spawn({
            let peers = peers.clone();
            async move {
                peers.wait_for_picture(4, SILENCE * 10).await;
                begun.elapsed()
            }
        });
        tokio::time::advance(SILENCE / 2).await;
        peers.beat(&name("b"), None);
        assert!(!peers.have_records(1));
        let waited = waits.await.expect("no panic");
        assert!(waited >= SILENCE && waited < SILENCE * 2, "{waited:?}");
        assert!(peers.have_records(1), "the other one is silent");
        assert!(!peers.have_records(2));
    }
}
