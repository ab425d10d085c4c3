//! Several agents over fakes, joined by pipes that the tests cut.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::task::JoinHandle;

use crate::api::types::{ApiError, SeatRequest};

use super::super::fleet::members::HostRecord;
use super::super::fleet::succession::{self, Seat};
use super::super::fleet::sync::{self, Heard, LANGUAGE, Message, SyncError};
use super::super::shared::{Aim, Record};
use super::*;
use crate::clock::ManualClock;
use crate::graph::{Constraint, Scale};
use crate::plan::History;

mod rollouts;

/// A host with its engine and its agent.
struct Node {
    name: HostName,
    engine: Arc<FakeEngine>,
    dir: tempfile::TempDir,
    agent: Option<Agent>,
    clock: Arc<ManualClock>,
}

/// Hosts that know each other.
struct Cluster {
    nodes: Vec<Node>,
    /// Streams, with the hosts at their ends.
    lines: Vec<([usize; 2], JoinHandle<()>)>,
}

/// Some time of day.
const NOON: Duration = Duration::from_hours(500_004);

fn host(name: &str) -> HostName {
    HostName::new(name).expect("valid")
}

impl Cluster {
    /// Starts hosts `a`, `b`, …; the first is the seat.
    async fn start(count: usize) -> Self {
        Self::start_with_clocks(&vec![NOON; count]).await
    }

    /// As [`Cluster::start`], with a clock for each host.
    async fn start_with_clocks(times: &[Duration]) -> Self {
        let count = times.len();
        let names = ["a", "b", "c", "d"];
        let mut cluster = Self { nodes: Vec::new(), lines: Vec::new() };
        for (name, time) in names.iter().zip(times) {
            let dir = tempfile::tempdir().expect("a directory");
            let clock = Arc::new(ManualClock::default());
            clock.advance(*time);
            cluster.nodes.push(Node { name: host(name), engine: engine(), dir, agent: None, clock });
        }
        for at in 0..count {
            cluster.boot(at).await;
        }
        cluster
    }

    fn fleet(&self, own: usize) -> Fleet {
        let record = |index: usize| HostRecord {
            ssh: String::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            labels: BTreeMap::new(),
            index: u32::try_from(index).expect("few"),
            draining: false,
        };
        let hosts = self.nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), record(index)));
        Fleet {
            own: self.nodes[own].name.clone(),
            seat: host("a"),
            epoch: 0,
            cluster: Some("test".to_owned()),
            hosts: hosts.collect(),
        }
    }

    /// Starts the agent of a host and joins it with those that run.
    async fn boot(&mut self, at: usize) {
        let node = &self.nodes[at];
        let agent = Agent::start_at(&node.engine, node.dir.path(), self.fleet(at), node.clock.clone()).await;
        self.nodes[at].agent = Some(agent);
        for other in 0..self.nodes.len() {
            if other != at && self.nodes[other].agent.is_some() {
                self.join(at, other);
                self.join(other, at);
            }
        }
    }

    /// A stream by which `from` tells `to`.
    fn join(&mut self, from: usize, to: usize) {
        let (teller, hearer) = (self.agent(from).shared.clone(), self.agent(to).shared.clone());
        let (from_name, to_name) = (self.nodes[from].name.clone(), self.nodes[to].name.clone());
        let line = tokio::spawn(async move {
            loop {
                let (one, other) = tokio::io::duplex(1 << 16);
                // They always end with why, and begin anew.
                tokio::select! {
                    end = sync::tell(&teller, &to_name, one) => drop(end),
                    end = sync::hear(&hearer, &from_name, other) => drop(end),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        self.lines.push(([from, to], line));
    }

    /// Cuts all lines of a host.
    fn cut(&mut self, at: usize) {
        self.lines.retain(|(ends, line)| {
            let cut = ends.contains(&at);
            if cut {
                line.abort();
            }
            !cut
        });
    }

    /// Mends what [`Cluster::cut`] cut.
    fn heal(&mut self, at: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.join(at, other);
            self.join(other, at);
        }
    }

    fn agent(&self, at: usize) -> &Agent {
        self.nodes[at].agent.as_ref().expect("it runs")
    }

    /// The names of the containers that run on a host.
    async fn running(&self, at: usize) -> Vec<String> {
        let observed = self.nodes[at].engine.observe(None).await.expect("it answers");
        let mut names: Vec<_> =
            observed.containers.into_values().filter(ObservedContainer::is_running).map(|one| one.name).collect();
        names.sort();
        names
    }

    /// Waits until so many containers run on each host.
    async fn becomes(&self, what: &str, counts: &[usize]) {
        let begun = tokio::time::Instant::now();
        loop {
            let mut now = Vec::new();
            for at in 0..self.nodes.len() {
                now.push(self.running(at).await);
            }
            if now.iter().map(Vec::len).eq(counts.iter().copied()) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "not in time: {what}: {now:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        for (_, line) in self.lines {
            line.abort();
        }
        for node in self.nodes {
            if let Some(agent) = node.agent {
                agent.kill().await;
            }
        }
    }
}

fn replicas(graph: &mut Graph, service: &str, count: u32) {
    graph.services.get_mut(service).expect("it is there").scale = Scale::Replicas(count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_spread_and_goes_from_every_host() {
    let cluster = Cluster::start(3).await;
    let mut graph = graph(&["web"]);
    replicas(&mut graph, "web", 6);
    let events = cluster.agent(0).up(&graph).await;
    assert!(is_done(&events), "{events:#?}");
    cluster.becomes("two on each", &[2, 2, 2]).await;
    let hosts: std::collections::BTreeSet<_> = events
        .iter()
        .filter_map(|event| match event {
            Progress::Object { host, status, .. } if status == "Started" => Some(host.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(hosts.len(), 3, "progress of all hosts is told: {events:#?}");
    let slices: std::collections::BTreeSet<_> = {
        let mut slices = Vec::new();
        for node in &cluster.nodes {
            let observed = node.engine.observe(None).await.expect("it answers");
            slices.extend(observed.containers.into_values().flat_map(|one| one.networks.into_values().flatten()));
        }
        slices.into_iter().collect()
    };
    assert_eq!(slices.len(), 6, "addresses are unique over hosts");

    let events = cluster.agent(0).up(&graph).await;
    assert!(is_done(&events), "{events:#?}");
    let events = cluster.agent(0).down().await;
    assert!(is_done(&events), "{events:#?}");
    cluster.becomes("gone", &[0, 0, 0]).await;
    for node in &cluster.nodes {
        let shared = &node.agent.as_ref().expect("it runs").shared;
        let begun = tokio::time::Instant::now();
        while shared.project(&shop()).is_some() || !shared.store.list("projects/").await.expect("a list").0.is_empty() {
            assert!(begun.elapsed() < DEADLINE, "{} still knows the project", node.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_lost_host_run_elsewhere_and_are_not_doubled_when_it_returns() {
    let mut cluster = Cluster::start(3).await;
    let mut graph = graph(&["web"]);
    replicas(&mut graph, "web", 3);
    cluster.agent(0).up(&graph).await;
    cluster.becomes("one on each", &[1, 1, 1]).await;
    cluster.cut(2);
    cluster.becomes("the third one runs elsewhere, and there too", &[2, 1, 1]).await;
    let endpoints = cluster.agent(1).shared.observed(Some(&shop())).hosts.len();
    assert_eq!(endpoints, 2, "the lost host is in no table");
    cluster.heal(2);
    cluster.becomes("the one that came back gives way", &[2, 1, 0]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_host_is_lost_is_told_with_the_reason() {
    let mut cluster = Cluster::start(2).await;
    let mut graph = graph(&["db", "web"]);
    let constraint = Constraint { key: "node.hostname".into(), equal: true, value: "b".into() };
    graph.services.get_mut("db").expect("it is there").placement.constraints.push(constraint);
    cluster.agent(0).up(&graph).await;
    cluster.cut(1);
    let begun = tokio::time::Instant::now();
    let told = loop {
        let traffic = cluster.agent(0).handler.traffic().await.expect("told");
        let db = traffic.services.into_iter().find(|one| one.service == service_name("db")).expect("it has a row");
        match db.why {
            Some(why) => break why,
            None => assert!(begun.elapsed() < DEADLINE, "the host is not missed"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(told, "host `b` does not answer");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_goes_on_without_the_seat_and_obeys_it_again_later() {
    let mut cluster = Cluster::start(2).await;
    let mut graph = graph(&["web"]);
    replicas(&mut graph, "web", 2);
    cluster.agent(0).up(&graph).await;
    cluster.becomes("one on each", &[1, 1]).await;
    cluster.cut(1);
    // Also over a restart of its agent, it heals what it has.
    let agent = cluster.nodes[1].agent.take().expect("it runs");
    agent.kill().await;
    let name = cluster.running(1).await.remove(0);
    cluster.nodes[1].engine.crash(&name, 1);
    let node = &cluster.nodes[1];
    let agent = Agent::start_in(&node.engine, node.dir.path(), cluster.fleet(1)).await;
    cluster.nodes[1].agent = Some(agent);
    cluster.becomes("healed without the seat", &[2, 1]).await;
    let events = cluster.agent(0).down().await;
    assert!(is_done(&events), "a host that is away does not block: {events:#?}");
    cluster.becomes("gone where the seat reaches", &[0, 1]).await;
    cluster.heal(1);
    cluster.becomes("gone there too", &[0, 0]).await;
    cluster.end().await;
}

/// Tells a host's agent who decides, as a person does.
async fn seat(cluster: &Cluster, at: usize, name: &str, epoch: u64) -> Result<(), ApiError> {
    let request = SeatRequest { host: host(name), epoch, authority: None, taken: false, forget_authority: false };
    cluster.agent(at).handler.seat(request).await.map(drop)
}

/// Waits until a host obeys this seat.
async fn obeys(cluster: &Cluster, at: usize, name: &str) {
    let begun = tokio::time::Instant::now();
    while cluster.agent(at).shared.fleet().seat != host(name) {
        assert!(begun.elapsed() < DEADLINE, "{} does not obey {name}", cluster.nodes[at].name);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seat_moves_by_hand_and_the_others_hear_of_it() {
    let cluster = Cluster::start(3).await;
    let mut graph = graph(&["web"]);
    replicas(&mut graph, "web", 3);
    cluster.agent(0).up(&graph).await;
    cluster.becomes("one on each", &[1, 1, 1]).await;
    seat(&cluster, 0, "b", 1).await.expect("a gives it up");
    seat(&cluster, 1, "b", 1).await.expect("b takes it");
    obeys(&cluster, 2, "b").await;
    let refused = cluster.agent(0).handler.up(shop(), UpRequest::new(graph.clone())).await.expect_err("not the seat");
    assert!(refused.message.contains("host `b` decides"), "{refused}");
    replicas(&mut graph, "web", 6);
    let events = cluster.agent(1).up(&graph).await;
    assert!(is_done(&events), "{events:#?}");
    cluster.becomes("two on each", &[2, 2, 2]).await;
    // An older move, and another one of the same number, are refused.
    let late = seat(&cluster, 2, "a", 0).await.expect_err("older");
    assert!(late.message.contains("host `b` decides since a later move"), "{late}");
    seat(&cluster, 2, "c", 1).await.expect_err("two seats of one number");
    seat(&cluster, 1, "b", 1).await.expect("again is nothing new");
    let events = cluster.agent(1).down().await;
    assert!(is_done(&events), "{events:#?}");
    cluster.becomes("gone", &[0, 0, 0]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_that_was_away_obeys_the_one_that_was_made_meanwhile() {
    let mut cluster = Cluster::start(3).await;
    let mut graph = graph(&["web"]);
    replicas(&mut graph, "web", 3);
    cluster.agent(0).up(&graph).await;
    cluster.becomes("one on each", &[1, 1, 1]).await;
    cluster.cut(0);
    seat(&cluster, 1, "b", 1).await.expect("b takes it");
    obeys(&cluster, 1, "b").await;
    // One voice of two is not enough.
    assert_eq!(cluster.agent(2).shared.fleet().seat, host("a"));
    seat(&cluster, 2, "b", 1).await.expect("c is told");
    cluster.becomes("all on those that are left; the old seat keeps its own", &[3, 2, 1]).await;
    replicas(&mut graph, "web", 2);
    let events = cluster.agent(1).up(&graph).await;
    assert!(is_done(&events), "{events:#?}");
    cluster.heal(0);
    obeys(&cluster, 0, "b").await;
    cluster.becomes("each pod once", &[0, 2, 0]).await;
    // Also from its next start on.
    let loaded = super::super::fleet::members::load(cluster.agent(0).shared.store.as_ref(), &host("a")).await;
    let loaded = loaded.expect("readable");
    assert_eq!((loaded.seat, loaded.epoch), (host("b"), 1));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_that_hears_nobody_is_given_up_to_who_decides_already() {
    let mut cluster = Cluster::start(2).await;
    cluster.agent(0).up(&graph(&["web"])).await;
    cluster.cut(0);
    assert!(cluster.agent(0).shared.fleet().is_seat());
    let request = SeatRequest { host: host("b"), epoch: 1, authority: None, taken: true, forget_authority: false };
    cluster.agent(0).handler.seat(request).await.expect("b decides already");
    assert_eq!(cluster.agent(0).shared.fleet().seat, host("b"));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_of_some_hosts_keeps_to_them() {
    let mut cluster = Cluster::start(3).await;
    let mut graph = graph(&["web"]);
    replicas(&mut graph, "web", 4);
    let hosts: std::collections::BTreeSet<HostName> = [host("a"), host("b")].into();
    let request = UpRequest { hosts: hosts.clone(), ..UpRequest::new(graph.clone()) };
    let events = drain(cluster.agent(0).handler.up(shop(), request).await.expect("accepted")).await;
    assert!(is_done(&events), "{events:#?}");
    cluster.becomes("two on each of them", &[2, 2, 0]).await;
    cluster.cut(1);
    cluster.becomes("all on the one that is left", &[4, 2, 0]).await;
    cluster.heal(1);
    cluster.becomes("each once", &[4, 0, 0]).await;
    let events = cluster.agent(0).up(&graph).await;
    assert!(is_done(&events), "{events:#?}");
    let record = cluster.agent(0).shared.project(&shop()).expect("up").record.borrow().clone().expect("a record");
    assert!(record.desired.as_ref().expect("desired").hosts.is_empty(), "for all again");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_stays_with_its_volume_while_that_host_is_away() {
    let mut cluster = Cluster::start(2).await;
    let mut graph = graph(&["app", "db"]);
    let key = ResourceKey::new("data").expect("valid");
    let volume = crate::graph::Volume {
        name: "shop_data".into(),
        external: false,
        driver: None,
        driver_opts: BTreeMap::new(),
        labels: BTreeMap::new(),
        spec_hash: String::new(),
        compose_hash: String::new(),
    };
    graph.volumes.insert(key.clone(), volume);
    let db = graph.services.get_mut("db").expect("it is there");
    let source = crate::graph::MountSource::Volume { volume: key, no_copy: false, subpath: None };
    db.container.mounts.push(crate::graph::Mount { target: "/data".into(), read_only: false, source });
    let events = cluster.agent(0).up(&graph).await;
    assert!(is_done(&events), "{events:#?}");
    assert!(cluster.running(1).await.contains(&"shop-db-1".to_owned()), "the emptier host takes it: {events:#?}");
    cluster.cut(1);
    let begun = tokio::time::Instant::now();
    let shared = cluster.agent(0).shared.clone();
    let unplaced = || {
        let record = shared.project(&shop()).and_then(|handle| handle.record.borrow().clone()).expect("it is up");
        record.desired.as_ref().map(|desired| desired.assignments.unplaced.clone()).unwrap_or_default()
    };
    while unplaced().is_empty() {
        assert!(begun.elapsed() < DEADLINE, "the service is not said to be blocked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(unplaced()[0].refusals[&host("a")], "volume `data` is on `b`");
    let said = cluster.agent(0).handler.projects().await.expect("answered")[0].unplaced.concat();
    assert!(said.starts_with("`db.1` is blocked: volume `data` is on `b`, which does not answer"), "{said}");
    assert!(!cluster.running(0).await.contains(&"shop-db-1".to_owned()), "never with an empty new volume");
    cluster.heal(1);
    while !unplaced().is_empty() {
        assert!(begun.elapsed() < DEADLINE * 2, "it is not placed again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        cluster.running(1).await.contains(&"shop-db-1".to_owned()),
        "{:?} {:?}",
        cluster.running(0).await,
        cluster.running(1).await
    );
    // Lost for good, it is given up with what it held.
    cluster.cut(1);
    while unplaced().is_empty() {
        assert!(begun.elapsed() < DEADLINE * 3, "the service is not said to be blocked once more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let request = crate::api::types::RemoveHost { force: true };
    cluster.agent(0).handler.remove_host(&host("b"), request).await.expect("taken out");
    cluster.becomes("all on the host that is left", &[2, cluster.running(1).await.len()]).await;
    assert_eq!(unplaced(), []);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_taken_out_gives_up_what_the_cluster_wanted_of_it() {
    let cluster = Cluster::start(2).await;
    let mut graph = graph(&["web"]);
    replicas(&mut graph, "web", 2);
    cluster.agent(0).up(&graph).await;
    cluster.becomes("one on each", &[1, 1]).await;
    let (seat, other) = (cluster.agent(0).shared.clone(), cluster.agent(1).shared.clone());
    let mut fleet = Fleet::clone(&seat.fleet());
    fleet.hosts.remove(&host("b"));
    seat.set_fleet(fleet);
    tokio::time::timeout(DEADLINE, other.expelled.notified()).await.expect("it hears of it");
    super::super::fleet::withdraw(&other).await.expect("it goes");
    cluster.becomes("all at the seat, none where it was taken from", &[2, 0]).await;
    assert!(other.projects().is_empty() && other.restart.is_cancelled());
    assert_eq!(other.store.list("").await.expect("a list").0.iter().map(|one| &one.key).collect::<Vec<_>>(), [""; 0]);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_on_another_host_is_said_and_ends_the_up() {
    let cluster = Cluster::start(2).await;
    let mut graph = graph(&["web"]);
    replicas(&mut graph, "web", 2);
    cluster.nodes[1].engine.fail("create_container", Fault::Before, 1000);
    let events = cluster.agent(0).up(&graph).await;
    let failed = matches!(events.last(), Some(Progress::Failed { messages }) if messages.iter().any(|m| m.contains("shop-web-")));
    assert!(failed, "{events:#?}");
    cluster.nodes[1].engine.fail("create_container", Fault::Before, 0);
    cluster.becomes("it is tried again", &[1, 1]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_hours_apart_or_jump_are_told_and_change_nothing() {
    let hours = Duration::from_hours;
    let cluster = Cluster::start_with_clocks(&[NOON, NOON + hours(9), NOON.saturating_sub(hours(9))]).await;
    let mut graph = graph(&["web"]);
    replicas(&mut graph, "web", 3);
    let events = cluster.agent(0).up(&graph).await;
    assert!(is_done(&events), "{events:#?}");
    cluster.becomes("one on each", &[1, 1, 1]).await;
    let status = cluster.agent(0).handler.cluster().await.expect("it answers");
    let skews = status.hosts.iter().map(|host| host.skew_ms / 3_600_000).collect::<Vec<_>>();
    assert_eq!(skews, [0, 9, -9]);
    let said = |at: usize, words: &str| status.hosts[at].problems.iter().any(|problem| problem.contains(words));
    assert!(said(1, "its clock is 9 h 0 min ahead of that of `a`") && said(2, "9 h 0 min behind"), "{status:#?}");
    assert!(!said(0, "clock"));

    // Set right while something is to be tried again in a moment: a moment it stays.
    let node = &cluster.nodes[1];
    node.engine.fail("start_container", Fault::Before, 3);
    let name = cluster.running(1).await.remove(0);
    node.engine.crash(&name, 1);
    let shared = &cluster.agent(1).shared;
    let begun = tokio::time::Instant::now();
    while shared.project(&shop()).expect("it is up").state.borrow().errors.is_empty() {
        assert!(begun.elapsed() < DEADLINE, "the step does not fail");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    node.clock.set_back(hours(9));
    cluster.becomes("healed", &[1, 1, 1]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_seat_wants_while_it_is_given_up_is_not_carried_out_and_does_not_undo_the_move() {
    let mut cluster = Cluster::start(3).await;
    cluster.cut(1);
    let shared = cluster.agent(1).shared.clone();
    let hosts = shared.fleet().hosts.clone();
    let (one, other) = tokio::io::duplex(1 << 16);
    let mut frames = tokio_util::codec::LengthDelimitedCodec::builder().new_framed(one);
    let hearer = shared.clone();
    let hearing = tokio::spawn(async move { sync::hear(&hearer, &host("a"), other).await });

    let moving = shared.admission.lock().await;
    let record = Record { aim: Aim::Up, desired: None, serial: 7, released: false, history: History::default() };
    let projects = [(shop(), Box::new(record))].into_iter().collect();
    let records = Message::Records { revision: 99, whole: true, projects, gone: Vec::new(), hosts: Some(hosts) };
    frames.send(bytes::Bytes::from(serde_json::to_vec(&records).expect("JSON"))).await.expect("sent");
    tokio::time::timeout(Duration::from_millis(100), frames.next()).await.expect_err("it must wait for the move");
    let next = Seat { epoch: 1, host: host("c") };
    succession::take(&shared, &shared.fleet(), next.clone()).await.expect("written");
    drop(moving);

    let answer = frames.next().await.expect("an answer").expect("whole");
    let heard: Heard = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(heard.records, 0);
    assert_eq!(Seat::of(&shared.fleet()), next);
    assert!(shared.project(&shop()).is_none());
    hearing.abort();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_language_is_not_listened_to_and_both_say_so() {
    let cluster = Cluster::start(2).await;
    let shared = cluster.agent(1).shared.clone();
    let (one, other) = tokio::io::duplex(1 << 16);
    let mut frames = tokio_util::codec::LengthDelimitedCodec::builder().new_framed(one);
    let hearing = tokio::spawn(async move { sync::hear(&shared, &host("a"), other).await });
    let at = jiff::Timestamp::UNIX_EPOCH;
    let hello = Message::Hello { version: "9.1.0".into(), language: LANGUAGE + 1, at, seat: None };
    frames.send(bytes::Bytes::from(serde_json::to_vec(&hello).expect("JSON"))).await.expect("sent");
    let answer = frames.next().await.expect("an answer").expect("whole");
    let heard: Heard = serde_json::from_slice(&answer).expect("JSON");
    let ended = hearing.await.expect("no panic").expect_err("refused").to_string();
    assert!(ended.contains("orch 9.1.0 of `a`") && ended.contains("`orch up` brings all agents"), "{ended}");

    // And who is told so says it as what is wrong.
    let teller = cluster.agent(0).shared.clone();
    let (one, other) = tokio::io::duplex(1 << 16);
    let telling = tokio::spawn(async move { sync::tell(&teller, &host("b"), other).await });
    let mut frames = tokio_util::codec::LengthDelimitedCodec::builder().new_framed(one);
    frames.next().await.expect("a greeting").expect("whole");
    frames.send(answer.freeze()).await.expect("sent");
    let told = telling.await.expect("no panic").expect_err("refused");
    assert!(matches!(&told, SyncError::OtherLanguage(why) if Some(why) == heard.refused.as_ref()), "{told}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_down_on_a_host_is_told_and_not_waited_for() {
    let cluster = Cluster::start(2).await;
    let (seat, other) = (cluster.agent(0).shared.clone(), cluster.agent(1).shared.clone());
    cluster.agent(0).up(&graph(&["web"])).await;
    let begun = tokio::time::Instant::now();
    while !seat.peers.have_records(seat.records().0) {
        assert!(begun.elapsed() < DEADLINE, "the seat's first words are not heard");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let record = Record { aim: Aim::Up, desired: None, serial: 7, released: false, history: History::default() };
    other.set_unwritten(&BTreeMap::from([(shop(), record)]), "no space left");
    let said = "what is wanted could not be written down: no space left";
    assert_eq!(other.unwritten_problem().as_deref(), Some(said));
    let told = || seat.peers.reports(&shop()).get(&host("b")).and_then(|report| report.errors.get("Store").cloned());
    let becomes = async |wanted: Option<&str>| {
        let begun = tokio::time::Instant::now();
        while told().as_deref() != wanted {
            assert!(begun.elapsed() < DEADLINE, "not in time: {:?}", told());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    becomes(Some(said)).await;
    assert!(seat.peers.all_know(&shop(), 7));
    other.set_unwritten(&BTreeMap::new(), "");
    becomes(None).await;
    cluster.end().await;
}
