//! What a load balancer tells of itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::endpoint::EndpointState;
use super::http::{HttpStats, Rule, Tally};
use super::routing::{Pool, Routing};
use super::table::PublishedKey;
use super::trouble::TroubleStats;
use crate::graph::Protocol;
use crate::ids::{HostName, PodId, ProjectName, ServiceName};
use crate::model::RouteAction;

/// Counters of a [`super::Balancer`], as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerStats {
    /// Version of the table in use.
    pub table_version: u64,
    /// Connections now, held ones and those of other hosts' agents included.
    pub open: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Of these, closed because no endpoint took them.
    pub refused: u64,
    /// Requests of this host that another host's agent denied.
    #[serde(default)]
    pub denied: u64,
    /// What is done with datagrams.
    #[serde(default)]
    pub datagrams: DatagramStats,
    /// Connections that brought what was no request that could be served.
    #[serde(default)]
    pub malformed: u64,
    /// Requests that were refused because too much was held for others already.
    #[serde(default)]
    pub crowded: u64,
    /// Requests without a line in the access log, because there was no room.
    #[serde(default)]
    pub unlogged: u64,
    /// Endpoints of the table in use, by project and pod.
    pub endpoints: Vec<EndpointStats>,
    /// Those that left it and still have connections.
    #[serde(default)]
    pub leaving: Vec<EndpointStats>,
    /// Services with a port that is balanced by request, or with rules.
    #[serde(default)]
    pub services: Vec<ServiceStats>,
    /// Rules of the table in use, by service and place.
    #[serde(default)]
    pub routes: Vec<RouteStats>,
    /// Published ports of the table in use, and where they lead.
    #[serde(default)]
    pub published: Vec<PublishedStats>,
}

/// Where a published port leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedStats {
    /// The project.
    pub project: ProjectName,
    /// The service.
    pub service: ServiceName,
    /// Address of the host; `None`: all.
    pub host_ip: Option<std::net::IpAddr>,
    /// Port of the host.
    pub published: u16,
    /// Port in the pods.
    pub target: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Requests of one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceStats {
    /// The project.
    pub project: ProjectName,
    /// The service.
    pub service: ServiceName,
    /// Its requests.
    pub http: HttpStats,
}

/// Requests of one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteStats {
    /// The project.
    pub project: ProjectName,
    /// The service that it is written at.
    pub service: ServiceName,
    /// Its place among the rules of the service.
    pub number: usize,
    /// Its first host, and its path.
    pub name: String,
    /// Ports of the host that it listens at.
    #[serde(default)]
    pub listen: Vec<u16>,
    /// Port in the pods; `None`: it answers by itself.
    #[serde(default)]
    pub target: Option<u16>,
    /// Its requests.
    pub http: HttpStats,
}

/// Counters of datagrams since the start, those of other hosts' agents included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramStats {
    /// Sessions now.
    pub sessions: usize,
    /// Datagrams from clients.
    pub questions: u64,
    /// Datagrams from endpoints.
    pub answers: u64,
    /// Of both, those that were dropped: there was no room for them, or nobody to take them.
    pub dropped: u64,
    /// Sessions that ended because there were too many.
    pub evicted: u64,
    /// Sessions that ended because no endpoint took what they sent.
    pub unserved: u64,
}

/// Counters of one endpoint since it turned ready.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointStats {
    /// The project.
    pub project: ProjectName,
    /// The pod.
    pub pod: PodId,
    /// Engine id of its container.
    pub container: String,
    /// Whether it is on another host.
    pub remote: bool,
    /// The host that it is on.
    #[serde(default = "HostName::local")]
    pub host: HostName,
    /// Connections open or being opened, and sessions of datagrams.
    pub open: usize,
    /// Connections made, and sessions that were answered.
    pub connected: u64,
    /// Connects that failed, and sessions that were refused.
    pub failed: u64,
    /// Whether others are preferred at the moment: it, or its host's agent, failed lately.
    #[serde(default)]
    pub avoided: bool,
    /// Whether that is because of its host's agent.
    #[serde(default)]
    pub away: bool,
    /// Whether it is passed over at the moment because it answered badly too often.
    #[serde(default)]
    pub ejected: bool,
    /// Bytes sent to it.
    pub sent: u64,
    /// Bytes received from it.
    pub received: u64,
    /// Requests that went to it.
    #[serde(default)]
    pub http: HttpStats,
    /// What went wrong with it of late.
    #[serde(default)]
    pub troubles: Vec<TroubleStats>,
}

/// Whose counters they are.
#[derive(Debug, Clone)]
pub(super) struct Whose {
    pub(super) project: ProjectName,
    pub(super) pod: PodId,
    pub(super) host: HostName,
}

impl EndpointState {
    /// Returns its counters.
    pub(super) fn stats(&self, whose: &Whose, own: &HostName, now: Duration) -> EndpointStats {
        let Whose { project, pod, host } = whose.clone();
        EndpointStats {
            project,
            pod,
            container: self.container.clone(),
            remote: host != *own,
            host,
            open: self.open(),
            connected: self.connected.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            avoided: self.is_avoided(now),
            away: false,
            ejected: false,
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            http: self.tally.stats(),
            troubles: self.troubles.stats(now),
        }
    }
}

impl Routing {
    /// Returns the counters of every rule.
    pub(super) fn route_stats(&self) -> Vec<RouteStats> {
        let stats = |rule: &Arc<Rule>| RouteStats {
            project: rule.pool.project.clone(),
            service: rule.pool.service.clone(),
            number: rule.number,
            name: rule.name.clone(),
            listen: rule.route.listen.iter().map(|listen| listen.port).collect(),
            target: matches!(rule.route.action, RouteAction::Forward { .. }).then_some(rule.route.port),
            http: rule.tally.stats(),
        };
        self.all_rules().map(stats).collect()
    }

    /// Returns where published ports lead.
    pub(super) fn published_stats(&self) -> Vec<PublishedStats> {
        let stats = |(key, target, pool): (PublishedKey, u16, &Arc<Pool>)| PublishedStats {
            project: pool.project.clone(),
            service: pool.service.clone(),
            host_ip: key.host_ip,
            published: key.port,
            target,
            protocol: key.protocol,
        };
        self.published().map(stats).collect()
    }

    /// Returns the counters of every endpoint, each once although it may stand behind several addresses.
    pub(super) fn endpoint_stats(&self, own: &HostName, now: Duration) -> Vec<EndpointStats> {
        let mut all: Vec<EndpointStats> = self
            .pools()
            .flat_map(|pool| pool.targets.iter().map(move |target| (pool, target)))
            .map(|(pool, target)| {
                let host = target.remote.as_ref();
                let away = host.is_some_and(|host| host.is_marked_down(now));
                let host = host.map_or(own, |host| &host.name).clone();
                let whose = Whose { project: pool.project.clone(), pod: target.pod.clone(), host };
                let stats = target.state.stats(&whose, own, now);
                let ejected = pool.balanced.ejects() && target.state.is_ejected(now);
                EndpointStats { avoided: stats.avoided || away, away, ejected, ..stats }
            })
            .collect();
        all.sort();
        all.dedup_by(|a, b| a.container == b.container);
        all
    }

    /// Returns the counters of every service with requests, each once although it may have several addresses.
    pub(super) fn service_stats(&self) -> Vec<ServiceStats> {
        let with_http = self.pools().filter(|pool| !pool.http.is_empty());
        let with_http = with_http.chain(self.all_rules().map(|rule| &rule.pool));
        let all: BTreeMap<_, _> = with_http.map(|pool| ((&pool.project, &pool.service), &pool.tally)).collect();
        let stats = |((project, service), tally): ((&ProjectName, &ServiceName), &Arc<Tally>)| ServiceStats {
            project: project.clone(),
            service: service.clone(),
            http: tally.stats(),
        };
        all.into_iter().map(stats).collect()
    }
}
