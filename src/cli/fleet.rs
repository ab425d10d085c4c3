//! The hosts that a command works with, each over one SSH connection that is kept for the command's life.
//!
//! Start at [`Fleet`]. Which host decides (the seat) is asked of any that answers; a host of the cluster that nobody
//! named is reached where the cluster says. What one host cannot answer never keeps the others from answering.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use crate::api::client::Client;
use crate::api::types::{ClusterStatus, HostState};
use crate::diag::chain;
use crate::engine::docker::DockerEngine;
use crate::hosts::HostEntry;
use crate::ids::HostName;
use crate::transport::reach::Reach as _;
use crate::transport::ssh::{HostLook, Interaction, SshConnection, SshSettings};

use super::error::CliError;

/// Time that the other hosts have once one has answered: what is down must not hold up what is not. A user who types a
/// passphrase takes longer.
const REST_WITHIN: Duration = Duration::from_secs(5);
const REST_WITHIN_ASKING: Duration = Duration::from_mins(2);

/// How long it holds that nobody had a newer word than a host that hears few of the others: a command that asks several
/// times waits once for a host that is down, and one that runs for days asks again.
const CONFIRMED_FOR: Duration = Duration::from_secs(30);

/// A host reached by SSH.
pub(crate) struct Host {
    /// What is known of it.
    pub entry: HostEntry,
    ssh: SshConnection,
    engine: OnceCell<DockerEngine>,
}

impl Host {
    fn new(entry: HostEntry, settings: &SshSettings) -> Self {
        let ssh = SshConnection::new(entry.reach.clone(), settings.clone());
        Self { entry, ssh, engine: OnceCell::new() }
    }

    /// Returns its name.
    pub(crate) fn name(&self) -> &HostName {
        &self.entry.name
    }

    /// Returns its engine, connected: a connection that ended is made anew, under the same path.
    ///
    /// # Errors
    /// Why the host or its engine cannot be reached, with the host's name.
    pub(crate) async fn engine(&self) -> Result<DockerEngine, CliError> {
        let connected = async {
            let socket = self.ssh.engine_socket().await?;
            let address = format!("unix://{}", socket.display());
            let engine = self.engine.get_or_try_init(|| DockerEngine::connect(Some(&address))).await?;
            Ok::<_, CliError>(engine.clone())
        };
        connected.await.map_err(|error| self.failed(error))
    }

    /// Returns a client of its agent, which need not be there.
    ///
    /// # Errors
    /// Why the host cannot be reached, with the host's name.
    pub(crate) async fn agent(&self) -> Result<Client, CliError> {
        self.ssh.agent_socket().await.map(Client::new).map_err(|error| self.failed(error))
    }

    /// Looks at the machine.
    ///
    /// # Errors
    /// Why the host cannot be reached, with the host's name.
    pub(crate) async fn look(&self) -> Result<HostLook, CliError> {
        self.ssh.look().await.map_err(|error| self.failed(error))
    }

    /// Ends the connection for everybody: the host is forgotten. That this fails harms nobody: it ends by itself.
    pub(crate) async fn close(&self) {
        drop(self.ssh.close().await);
    }

    /// Says of an error which host it is of.
    pub(crate) fn failed(&self, error: impl Into<CliError>) -> CliError {
        CliError::on_host(self.name(), error)
    }

    /// Asks its agent for the cluster.
    ///
    /// # Errors
    /// Why the host or its agent cannot be reached, with the host's name.
    pub(crate) async fn cluster(&self) -> Result<(Client, ClusterStatus), CliError> {
        let client = self.agent().await?;
        let status = client.cluster().await.map_err(|error| self.failed(error))?;
        Ok((client, status))
    }
}

/// The hosts that were named, and how others are reached.
pub(crate) struct Fleet {
    hosts: Vec<Arc<Host>>,
    settings: SshSettings,
    confirmed: Mutex<Option<Confirmed>>,
}

/// Whose word was the newest there was, and when that was found.
#[derive(Clone)]
struct Confirmed {
    host: HostName,
    epoch: u64,
    at: Instant,
    /// Why the seat did not answer then, where that is another host.
    seat: Option<String>,
}

/// The cluster, seen from one of its hosts.
pub(crate) struct Seen {
    /// The agent of the host that answered.
    pub client: Client,
    /// What it said.
    pub status: ClusterStatus,
    /// Hosts that did not answer before, and why.
    pub silent: Vec<CliError>,
}

impl Seen {
    /// Returns whether the seat itself answered.
    pub(crate) fn is_from_seat(&self) -> bool {
        self.status.host == self.status.seat
    }
}

impl Fleet {
    /// Takes the hosts that were named; nothing is opened yet.
    pub(crate) fn new(entries: Vec<HostEntry>) -> Self {
        let interaction = if std::io::stdin().is_terminal() { Interaction::Ask } else { Interaction::Never };
        let settings = SshSettings::of_user(&|name| std::env::var_os(name), interaction);
        let hosts = entries.into_iter().map(|entry| Arc::new(Host::new(entry, &settings))).collect();
        Self { hosts, settings, confirmed: Mutex::default() }
    }

    /// Returns the hosts that were named, in their order.
    pub(crate) fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// Returns the host of an entry: the one that is connected already where the address is the same.
    pub(crate) fn host(&self, entry: HostEntry) -> Arc<Host> {
        let same = |host: &&Arc<Host>| host.entry.reach == entry.reach && host.entry.name == entry.name;
        self.hosts.iter().find(same).cloned().unwrap_or_else(|| Arc::new(Host::new(entry, &self.settings)))
    }

    /// Returns a host of the cluster by name: as it was named, else where the cluster says.
    ///
    /// # Errors
    /// [`CliError::NoSuchHost`] when nobody knows it.
    pub(crate) fn member(&self, status: &ClusterStatus, name: &HostName) -> Result<Arc<Host>, CliError> {
        if let Some(host) = self.hosts.iter().find(|host| host.name() == name) {
            return Ok(Arc::clone(host));
        }
        let member = status.hosts.iter().find(|host| host.name == *name);
        let reach = member.and_then(|member| member.ssh.parse().ok());
        let entry = reach.map(|reach| HostEntry::new(name.clone(), reach));
        entry.map(|entry| self.host(entry)).ok_or_else(|| {
            let known = status.hosts.iter().map(|host| host.name.as_str());
            let similar = crate::diag::did_you_mean(name.as_str(), known).map(str::to_owned);
            CliError::NoSuchHost { name: name.clone(), similar }
        })
    }

    /// Returns all hosts of the cluster.
    pub(crate) fn members(&self, status: &ClusterStatus) -> Vec<Arc<Host>> {
        status.hosts.iter().filter_map(|host| self.member(status, &host.name).ok()).collect()
    }

    /// Asks the first host that answers for the cluster: the seat, where that can be reached.
    ///
    /// # Errors
    /// [`CliError::NoCluster`] when none belongs to one, [`CliError::NoHostAnswers`] when none answers.
    pub(crate) async fn look(&self) -> Result<Seen, CliError> {
        let (seen, away) = self.newest(self.any().await?).await;
        if seen.is_from_seat() {
            return Ok(seen);
        }
        let seat = self.member(&seen.status, &seen.status.seat)?;
        let Seen { client, status, mut silent } = seen;
        if let Some(error) = away {
            silent.push(error);
            return Ok(Seen { client, status, silent });
        }
        match tokio::time::timeout(self.rest_within(), seat.cluster()).await {
            Ok(Ok((client, status))) => Ok(Seen { client, status, silent }),
            Ok(Err(error)) => {
                silent.push(error);
                Ok(Seen { client, status, silent })
            }
            Err(_) => {
                silent.push(CliError::HostSilent { host: seat.name().clone() });
                Ok(Seen { client, status, silent })
            }
        }
    }

    /// Returns the seat's agent and what it says of the cluster.
    ///
    /// # Errors
    /// As [`Fleet::look`], and why the seat cannot be reached.
    pub(crate) async fn seat(&self) -> Result<Seen, CliError> {
        let mut seen = self.look().await?;
        if seen.is_from_seat() {
            return Ok(seen);
        }
        let seat = seen.status.seat.clone();
        let cause = seen.silent.pop().unwrap_or_else(|| CliError::HostSilent { host: seat.clone() });
        Err(CliError::NoSeat { seat, cause: Box::new(cause) })
    }

    /// A host that does not hear most of the others may not have heard either that another one decides by now: they are
    /// asked too. Returns also why the seat does not answer, where that has shown.
    async fn newest(&self, seen: Seen) -> (Seen, Option<CliError>) {
        let others = || seen.status.hosts.iter().filter(|host| host.name != seen.status.host);
        let down = others().filter(|host| host.state == HostState::Down).count();
        if down * 2 <= others().count() {
            return (seen, None);
        }
        if let Some(known) = self.known(&seen.status) {
            return (seen, known.seat.map(|why| CliError::Failed(vec![why])));
        }
        let answers = self.ask_all(&self.members(&seen.status), |host| async move { host.cluster().await }).await;
        let (mut newest, mut away): (Option<(Client, ClusterStatus)>, _) = (None, None);
        for (host, answer) in answers {
            match answer {
                Ok(said) if newest.as_ref().is_none_or(|(_, status)| said.1.epoch >= status.epoch) => {
                    newest = Some(said);
                }
                Err(error) if *host.name() == seen.status.seat => away = Some(error),
                _ => {}
            }
        }
        match newest {
            Some((client, status)) if status.epoch > seen.status.epoch => {
                (Seen { client, status, silent: seen.silent }, None)
            }
            // An agent that is missing may be there in a moment.
            _ if away.as_ref().is_some_and(CliError::is_agent_missing) => (seen, away),
            _ => {
                let (host, epoch) = (seen.status.host.clone(), seen.status.epoch);
                let seat = away.as_ref().map(|error| chain(error));
                *self.confirmed() = Some(Confirmed { host, epoch, at: Instant::now(), seat });
                (seen, away)
            }
        }
    }

    /// Returns what was found a moment ago, if that was the newest word then.
    fn known(&self, status: &ClusterStatus) -> Option<Confirmed> {
        let is_it = |one: &&Confirmed| one.host == status.host && one.epoch == status.epoch;
        self.confirmed().as_ref().filter(is_it).filter(|one| one.at.elapsed() < CONFIRMED_FOR).cloned()
    }

    fn confirmed(&self) -> MutexGuard<'_, Option<Confirmed>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn any(&self) -> Result<Seen, CliError> {
        let ask = |host: &Arc<Host>| {
            let host = Arc::clone(host);
            async move { host.cluster().await }
        };
        let mut asked: FuturesUnordered<_> = self.hosts.iter().map(ask).collect();
        let (mut silent, mut away) = (Vec::new(), false);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok((client, status)) if status.cluster.is_some() => return Ok(Seen { client, status, silent }),
                Ok(_) => {}
                Err(error) => {
                    // Reached by SSH, without an agent: not added yet. One that is not reached may belong to a cluster.
                    away |= !error.is_agent_missing();
                    silent.push(error);
                }
            }
        }
        if away { Err(CliError::NoHostAnswers(silent)) } else { Err(CliError::NoCluster) }
    }

    fn rest_within(&self) -> Duration {
        match self.settings.interaction {
            Interaction::Ask => REST_WITHIN_ASKING,
            Interaction::Never => REST_WITHIN,
        }
    }

    /// Asks all of `hosts` at once. Once one has answered, the others have a few seconds left. Answers are in the order
    /// of the hosts.
    pub(crate) async fn ask_all<T, F>(
        &self,
        hosts: &[Arc<Host>],
        ask: impl Fn(Arc<Host>) -> F,
    ) -> Vec<(Arc<Host>, Result<T, CliError>)>
    where
        F: Future<Output = Result<T, CliError>>,
    {
        let mut answers: Vec<Option<Result<T, CliError>>> = hosts.iter().map(|_| None).collect();
        let mut asked: FuturesUnordered<_> = hosts
            .iter()
            .enumerate()
            .map(|(at, host)| {
                let asked = ask(Arc::clone(host));
                async move { (at, asked.await) }
            })
            .collect();
        let mut deadline: Option<Instant> = None;
        loop {
            let next = match deadline {
                Some(deadline) => match timeout_at(deadline, asked.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
                None => asked.next().await,
            };
            let Some((at, answer)) = next else { break };
            if answer.is_ok() && deadline.is_none() {
                deadline = Some(Instant::now() + self.rest_within());
            }
            answers[at] = Some(answer);
        }
        drop(asked);
        let silent = |host: &Arc<Host>| Err(CliError::HostSilent { host: host.name().clone() });
        hosts
            .iter()
            .zip(answers)
            .map(|(host, answer)| (Arc::clone(host), answer.unwrap_or_else(|| silent(host))))
            .collect()
    }
}
