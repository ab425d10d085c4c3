//! Hosts become part of the cluster: agent up, then the first one founds it and the others are admitted by the seat.
//!
//! What is to be done next is looked up each time: a run that was killed at any point is finished by the next one, and
//! a host that is in already is left alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::api::client::{Client, ClientError};
use crate::api::types::{
    AdmitRequest, ClusterStatus, ErrorKind, FoundRequest, HostChange, HostState, KeyRequest, ObjectState, RemoveHost,
};
use crate::engine::Engine as _;
use crate::hosts::{HostEntry, InventoryError, PeerAddress};
use crate::ids::HostName;
use crate::transport::bootstrap::{self, AgentOptions, BootstrapError};
use crate::transport::image::Build;

use super::board::Event;
use super::error::CliError;
use super::fleet::{Fleet, Host, Seen};
use super::progress::while_shown;
use super::ui::Ui;

/// Time between two looks at something that changes within moments.
const PAUSE: Duration = Duration::from_millis(30);
/// An agent that was told to restart answers again within this time.
const RESTARTS_WITHIN: Duration = Duration::from_secs(30);
/// The seat reaches a new host within this time, or never: agents try each other again every second or so.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// A member that the seat does not reach within this time gets a new certificate: that may be what is wrong.
const MEMBER_READY_WITHIN: Duration = Duration::from_secs(5);

/// A host that shall be part of the cluster.
pub(crate) struct Newcomer {
    /// The host.
    pub host: Arc<Host>,
    /// What it shall be: a file that the connection is by may say other labels.
    pub entry: HostEntry,
    /// Port of its agent for the others.
    pub port: u16,
}

/// How it went.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Hosts that are part of the cluster.
    pub added: Vec<HostName>,
    /// What went wrong on the others.
    pub errors: Vec<(HostName, CliError)>,
}

impl Joined {
    /// Tells the errors.
    ///
    /// # Errors
    /// The error of the only host that has one, else which hosts failed.
    pub(crate) fn result(mut self, ui: &mut Ui, what: &'static str) -> Result<(), CliError> {
        match self.errors.len() {
            0 => Ok(()),
            1 => self.errors.pop().map_or(Ok(()), |(_, error)| Err(error)),
            _ => {
                self.errors.iter().for_each(|(_, error)| ui.error(error));
                Err(CliError::SomeHosts { what, hosts: self.errors.into_iter().map(|(host, _)| host).collect() })
            }
        }
    }

    fn take<T>(&mut self, name: &HostName, result: Result<T, CliError>) -> Option<T> {
        result.map_err(|error| self.errors.push((name.clone(), CliError::on_host(name, error)))).ok()
    }
}

/// How often an agent is asked that answered when it was started and then does not.
const TRIES: u32 = 3;

/// Returns what an agent says of the cluster, and whether projects run there on their own.
async fn standing(client: &Client) -> Result<(ClusterStatus, bool), ClientError> {
    let status = client.cluster().await?;
    let busy = status.cluster.is_none() && client.projects().await?.iter().any(|project| project.revision.is_some());
    Ok((status, busy))
}

/// A host whose agent answers.
struct Ready {
    host: Arc<Host>,
    entry: HostEntry,
    client: Client,
    /// What its agent says of the cluster.
    status: ClusterStatus,
    address: SocketAddr,
    /// Whether projects run there on their own.
    busy: bool,
}

/// Makes hosts part of the cluster of the hosts that are known; where there is none, of a new one.
pub(crate) async fn add(ui: &mut Ui, known: &Fleet, newcomers: Vec<Newcomer>, allow_downgrade: bool) -> Joined {
    while_shown(ui, "Adding", async |show| {
        let adding = Adding { show, allow_downgrade };
        let mut joined = Joined::default();
        // Both take as long as a connection does.
        let (seen, ready) = tokio::join!(known.seat(), adding.ready_all(&newcomers, &mut joined));
        if let Err(error) = adding.join(known, seen, ready, &mut joined).await {
            joined.errors.push((newcomers.first().map_or_else(HostName::local, |one| one.host.name().clone()), error));
        }
        for (name, error) in &joined.errors {
            adding.event(name, "Error", ObjectState::Error, Some(error.to_string()));
        }
        joined
    })
    .await
}

struct Adding<'s> {
    show: &'s dyn Fn(Event),
    allow_downgrade: bool,
}

impl Adding<'_> {
    fn event(&self, host: &HostName, status: &str, state: ObjectState, detail: Option<String>) {
        (self.show)(Event { id: format!("Host {host}"), status: status.to_owned(), state, detail });
    }

    fn working(&self, host: &HostName, status: &str) {
        self.event(host, status, ObjectState::Working, None);
    }

    async fn ready_all(&self, newcomers: &[Newcomer], joined: &mut Joined) -> Vec<Ready> {
        let all = join_all(newcomers.iter().map(|newcomer| self.ready(newcomer))).await;
        let named = newcomers.iter().zip(all);
        named.filter_map(|(newcomer, ready)| joined.take(newcomer.host.name(), ready)).collect()
    }

    /// Connects, and makes sure of the agent.
    async fn ready(&self, newcomer: &Newcomer) -> Result<Ready, CliError> {
        let host = &newcomer.host;
        self.working(host.name(), "Connecting");
        let engine = host.engine().await?;
        let address = self.address(newcomer).await?;
        let client = host.agent().await?;
        self.working(host.name(), "Starting agent");
        let build = Build::own().map_err(BootstrapError::Binary)?;
        let options = AgentOptions { allow_downgrade: self.allow_downgrade, ..AgentOptions::default() };
        let mut tries = 1;
        let (status, busy) = loop {
            bootstrap::ensure_agent(&engine, &client, &build, &options).await?;
            match standing(&client).await {
                // Somebody else makes the agent anew at the same time.
                Err(ClientError::NotAnswering { .. }) if tries < TRIES => tries += 1,
                told => break told?,
            }
        };
        Ok(Ready { host: Arc::clone(host), entry: newcomer.entry.clone(), client, status, address, busy })
    }

    /// Where the other hosts reach it: what the user says, else where SSH came in.
    async fn address(&self, newcomer: &Newcomer) -> Result<SocketAddr, CliError> {
        let (host, port) = (&newcomer.host, newcomer.port);
        let unknown = |reason: String| CliError::NoTunnelAddress { host: host.name().clone(), reason };
        match &newcomer.entry.address {
            Some(PeerAddress::Ip(ip)) => Ok(SocketAddr::new(*ip, port)),
            Some(PeerAddress::Name(name)) => {
                let found = tokio::net::lookup_host((name.as_str(), port)).await;
                let mut found = found.map_err(|error| unknown(format!("`{name}` could not be looked up: {error}")))?;
                found.next().ok_or_else(|| unknown(format!("`{name}` has no address")))
            }
            None => {
                let server = host.look().await?.server;
                let server = server.ok_or_else(|| unknown("its sshd does not say where it was reached".to_owned()))?;
                if server.is_loopback() {
                    return Err(unknown(format!("it was reached at {server}, where no other host can reach it")));
                }
                Ok(SocketAddr::new(server, port))
            }
        }
    }

    async fn join(
        &self,
        known: &Fleet,
        seen: Result<Seen, CliError>,
        ready: Vec<Ready>,
        joined: &mut Joined,
    ) -> Result<(), CliError> {
        let (seat, status, ready) = match seen {
            Ok(seen) => (seen.client, seen.status, ready),
            Err(error @ CliError::NoSeat { .. }) => return Err(error),
            Err(error) => {
                // One that is another's by another name says nothing of the cluster that is meant.
                let (strangers, ready): (Vec<_>, _) = ready.into_iter().partition(Ready::is_stranger);
                let found = self.seat_among(known, error, ready, joined).await;
                for one in strangers {
                    let wanted = format!("`{}`", one.host.name());
                    joined.take::<()>(one.host.name(), Err(other_cluster(&one.host, &one.status, wanted)));
                }
                match found? {
                    Some(found) => found,
                    None => return Ok(()),
                }
            }
        };
        let ready = only_own_engines(&status, ready, joined);
        let all = join_all(ready.iter().map(|one| self.join_one(&seat, &status, one))).await;
        for (one, result) in ready.iter().zip(all) {
            let name = one.host.name();
            if joined.take(name, result).is_some() {
                joined.added.push(name.clone());
                self.event(name, "Added", ObjectState::Done, None);
            }
        }
        Ok(())
    }

    /// Where none of the known hosts belongs to a cluster: one of the newcomers does, or founds one.
    async fn seat_among(
        &self,
        known: &Fleet,
        error: CliError,
        mut ready: Vec<Ready>,
        joined: &mut Joined,
    ) -> Result<Option<(Client, ClusterStatus, Vec<Ready>)>, CliError> {
        if let Some(member) = ready.iter().find(|one| one.status.cluster.is_some()) {
            let status = &member.status;
            if status.seat == status.host {
                return Ok(Some((member.client.clone(), status.clone(), ready)));
            }
            if let Some(seat) =
                ready.iter().find(|one| one.status.host == status.seat && one.status.cluster == status.cluster)
            {
                return Ok(Some((seat.client.clone(), seat.status.clone(), ready)));
            }
            let seat = known.member(status, &status.seat)?.agent().await?;
            let status = seat.cluster().await?;
            return Ok(Some((seat, status, ready)));
        }
        // A host that does not answer may belong to a cluster: founding another one would part what belongs together.
        let reached = |host: &&Arc<Host>| ready.iter().any(|one| one.host.name() == host.name());
        if !matches!(error, CliError::NoCluster) && !known.hosts().iter().all(|host| reached(&host)) {
            return if joined.errors.is_empty() { Err(error) } else { Ok(None) };
        }
        for host in known.hosts().iter().filter(|host| !reached(host)) {
            if host.engine().await?.inspect_container(&AgentOptions::default().name).await.is_ok()
                && host.agent().await?.cluster().await.is_err()
            {
                return Err(CliError::HostSilent { host: host.name().clone() });
            }
        }
        // What runs already can only be taken over by the host that founds.
        if !joined.errors.is_empty() {
            for one in &ready {
                let why = "no cluster is founded while a host cannot be asked whether it belongs to one".to_owned();
                self.event(one.host.name(), "Not added", ObjectState::Warning, Some(why));
            }
            return Ok(None);
        }
        let Some(at) = ready.iter().position(|one| one.busy).or((!ready.is_empty()).then_some(0)) else {
            return Ok(None);
        };
        let founder = ready.swap_remove(at);
        let name = founder.host.name().clone();
        let Some(mut status) = joined.take(&name, self.found(&founder).await) else {
            for one in &ready {
                let why = format!("no cluster was founded by `{name}`");
                self.event(one.host.name(), "Not added", ObjectState::Warning, Some(why));
            }
            return Ok(None);
        };
        joined.added.push(name.clone());
        self.event(&name, "Added", ObjectState::Done, Some("founded the cluster".to_owned()));
        let engine = founder.engine_id().to_owned();
        // Its agent has just started anew, and may not have looked at its machine yet.
        for host in status.hosts.iter_mut().filter(|host| host.name == name) {
            host.facts.id.clone_from(&engine);
        }
        Ok(Some((founder.client, status, ready)))
    }

    async fn found(&self, founder: &Ready) -> Result<ClusterStatus, CliError> {
        let entry = &founder.entry;
        self.working(&entry.name, "Founding");
        let request = FoundRequest {
            name: entry.name.clone(),
            ssh: entry.reach.to_string(),
            address: founder.address,
            labels: entry.labels.clone(),
        };
        match answered(&founder.host, || founder.client.found(&request)).await {
            // Somebody else was faster.
            Err(error) if is_conflict(&error) => {
                let status = founder.client.cluster().await?;
                return Err(match status.cluster {
                    Some(_) => other_cluster(&founder.host, &status, "a new one".to_owned()),
                    None => error,
                });
            }
            founded => founded?,
        }
        restarted(founder, None).await
    }

    async fn join_one(&self, seat: &Client, cluster: &ClusterStatus, one: &Ready) -> Result<(), CliError> {
        let name = one.host.name();
        let id = cluster.cluster.clone().unwrap_or_default();
        if let Some(theirs) = &one.status.cluster
            && (*theirs != id || one.status.host != *name)
        {
            let wanted = if *theirs == id { format!("`{name}`") } else { format!("cluster {id}") };
            return Err(other_cluster(&one.host, &one.status, wanted));
        }
        let is_known = cluster.hosts.iter().any(|host| host.name == *name);
        let is_member = one.status.cluster.is_some() && is_known;
        let moves = one.entry.address.is_some() && is_elsewhere(cluster, one);
        if !is_member || moves {
            self.working(name, "Joining");
            self.admit(seat, &id, is_known, one).await?;
        }
        if let Some(change) = label_change(cluster, one) {
            seat.change_host(name, &change).await?;
        }
        self.working(name, "Waiting for the other hosts");
        let patience = if is_member { MEMBER_READY_WITHIN } else { READY_WITHIN };
        match seen_ready(seat, one, patience).await {
            Err(CliError::NotReady { .. }) if is_member => {
                self.working(name, "Renewing the certificate");
                self.admit(seat, &id, true, one).await?;
                seen_ready(seat, one, READY_WITHIN).await
            }
            seen => seen,
        }
    }

    /// Has the seat certify the host's key, and the host take that in. `is_known`: the seat has it on its list already.
    async fn admit(&self, seat: &Client, id: &str, is_known: bool, one: &Ready) -> Result<(), CliError> {
        let entry = &one.entry;
        let request = KeyRequest { name: entry.name.clone() };
        let key = answered(&one.host, || one.client.key(&request)).await?;
        if key.cluster.is_some_and(|theirs| theirs != id) {
            return Err(self.lost(id, one, None).await);
        }
        let request = AdmitRequest {
            name: entry.name.clone(),
            ssh: entry.reach.to_string(),
            address: one.address,
            labels: entry.labels.clone(),
            request: key.request,
        };
        let admission = seat.admit(&request).await?;
        match answered(&one.host, || one.client.join(&admission)).await {
            Err(error) if is_conflict(&error) => {
                if !is_known {
                    // Nothing half made stays; should this fail, `orch host rm` does it.
                    drop(seat.remove_host(&entry.name, &RemoveHost { force: true }).await);
                }
                return Err(self.lost(id, one, Some(error)).await);
            }
            joined => joined?,
        }
        restarted(one, Some(id)).await.map(drop)
    }

    /// Says whose the host has become meanwhile; where it is nobody's, `error`.
    async fn lost(&self, id: &str, one: &Ready, error: Option<CliError>) -> CliError {
        match (answered(&one.host, || one.client.cluster()).await, error) {
            (Ok(status), _) if status.cluster.as_deref().is_some_and(|theirs| theirs != id) => {
                other_cluster(&one.host, &status, format!("cluster {id}"))
            }
            (Err(error), None) | (_, Some(error)) => error,
            (Ok(_), None) => CliError::Cut,
        }
    }
}

/// Keeps the hosts that have an engine of their own. Where two engines have one id, of a virtual machine that was copied, nothing tells
/// whose containers and agent are meant. Members are left alone.
fn only_own_engines(cluster: &ClusterStatus, ready: Vec<Ready>, joined: &mut Joined) -> Vec<Ready> {
    let known = cluster.hosts.iter().map(|host| (host.facts.id.clone(), host.name.clone()));
    let mut owners: BTreeMap<String, HostName> = known.filter(|(id, _)| !id.is_empty()).collect();
    let mut keep = |one: &Ready| {
        let (name, id) = (one.host.name(), one.engine_id());
        if id.is_empty() || one.status.cluster.is_some() {
            return true;
        }
        let owner = owners.entry(id.to_owned()).or_insert_with(|| name.clone());
        if owner == name {
            return true;
        }
        let same = InventoryError::SameEngine { host: name.clone(), other: owner.clone(), id: id.to_owned() };
        joined.take::<()>(name, Err(same.into()));
        false
    };
    ready.into_iter().filter(|one| keep(one)).collect()
}

impl Ready {
    /// The id of its engine, as its agent says.
    fn engine_id(&self) -> &str {
        let own = self.status.hosts.iter().find(|host| host.name == self.status.host);
        own.map_or("", |host| host.facts.id.as_str())
    }

    /// Whether it belongs to a cluster by another name than the one that is meant.
    fn is_stranger(&self) -> bool {
        self.status.cluster.is_some() && self.status.host != *self.host.name()
    }
}

/// Whether the cluster knows the host by another address.
fn is_elsewhere(cluster: &ClusterStatus, one: &Ready) -> bool {
    let known = cluster.hosts.iter().find(|host| host.name == *one.host.name());
    known.and_then(|host| host.address).is_some_and(|address| address != one.address)
}

/// Returns the labels that a host of the cluster shall have and has not. Those that only the cluster knows stay.
fn label_change(cluster: &ClusterStatus, one: &Ready) -> Option<HostChange> {
    let known = cluster.hosts.iter().find(|host| host.name == *one.host.name())?;
    let wanted = one.entry.labels.iter().filter(|(key, value)| known.labels.get(*key) != Some(*value));
    let set_labels: BTreeMap<_, _> = wanted.map(|(key, value)| (key.clone(), value.clone())).collect();
    (!set_labels.is_empty()).then(|| HostChange { set_labels, ..HostChange::default() })
}

fn other_cluster(host: &Host, status: &ClusterStatus, wanted: String) -> CliError {
    CliError::OtherCluster {
        host: host.name().clone(),
        name: status.host.clone(),
        cluster: status.cluster.clone().unwrap_or_default(),
        wanted,
    }
}

fn is_conflict(error: &CliError) -> bool {
    matches!(error, CliError::Agent(ClientError::Api(error)) if error.kind == ErrorKind::Conflict)
}

/// Calls until there is an answer: somebody else may have told the agent to restart, or the connection was cut and is
/// made anew. Only for what may be said twice.
async fn answered<T, F>(host: &Host, call: impl Fn() -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let begun = Instant::now();
    loop {
        match call().await {
            Err(ClientError::NotAnswering { .. }) if begun.elapsed() < RESTARTS_WITHIN => {
                tokio::time::sleep(PAUSE).await;
                host.agent().await?;
            }
            answer => return Ok(answer?),
        }
    }
}

/// Waits until an agent that was told to restart answers by its new name, as one of `cluster`; `None`: of whichever.
async fn restarted(one: &Ready, cluster: Option<&str>) -> Result<ClusterStatus, CliError> {
    let begun = Instant::now();
    loop {
        let status = answered(&one.host, || one.client.cluster()).await?;
        let is_of = |id: &str| cluster.is_none_or(|wanted| id == wanted);
        if status.host == *one.host.name() && status.cluster.as_deref().is_some_and(is_of) {
            return Ok(status);
        }
        if begun.elapsed() > RESTARTS_WITHIN {
            return Err(CliError::Cut);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the seat reaches the host's agent.
async fn seen_ready(seat: &Client, one: &Ready, patience: Duration) -> Result<(), CliError> {
    let name = one.host.name();
    let begun = Instant::now();
    loop {
        let status = seat.cluster().await?;
        let host = status.hosts.iter().find(|host| host.name == *name);
        if host.is_some_and(|host| host.state == HostState::Ready) {
            return Ok(());
        }
        if begun.elapsed() > patience {
            let problem = host.and_then(|host| host.problems.first().cloned());
            return Err(CliError::NotReady {
                host: name.clone(),
                seat: status.seat,
                address: one.address,
                problem: problem.unwrap_or_else(|| "nothing was heard of it".to_owned()),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}
