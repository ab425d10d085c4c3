//! The desired side: a placed, addressed graph with a revision number.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::graph::{Dependency, Graph};
use crate::ids::{HostName, PodId, ResourceKey, ServiceName};
use crate::observed::ObservedContainer;
use crate::place::Assignments;

use super::Asked;

/// What a project shall be: an immutable, numbered, fully resolved picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Number of the revision, from 1; grows when graph, assignments or addresses change.
    pub revision: u64,
    /// Grows with every `up`, also one that changes nothing: what a finished job must be older than to be run again.
    pub generation: u64,
    /// What shall run.
    pub graph: Graph,
    /// Where it shall run.
    pub assignments: Assignments,
    /// Its subnets, virtual addresses and published ports.
    pub addresses: Addresses,
    /// Services that this and earlier `up`s named (with their dependencies); others of the graph are not started.
    pub enabled: BTreeSet<ServiceName>,
    /// Containers with another spec than desired are left alone (`--no-recreate`).
    pub no_recreate: bool,
    /// Containers older than this generation are made anew (`--force-recreate`).
    pub recreate_before: BTreeMap<ServiceName, u64>,
    /// What comes in the place of containers older than this generation gets new anonymous volumes (`-V`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub renew_before: BTreeMap<ServiceName, u64>,
    /// Containers of services that the graph does not have are removed.
    pub remove_orphans: bool,
    /// Nothing is said of containers of such services (`COMPOSE_IGNORE_ORPHANS`).
    #[serde(default)]
    pub ignore_orphans: bool,
    /// One-off containers that have ended and were made before then (RFC 3339) are removed with the orphans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oneoffs_before: Option<String>,
    /// Pods that are made and not started (`--no-start`), until an `up` without it asks for their service. Those that ran
    /// as they should at that time are not among them.
    #[serde(default)]
    pub unstarted: BTreeSet<PodId>,
    /// Pods whose container was made for something else when the last `up` was asked for, of services that say how a change is
    /// rolled out: what is made for them since is part of a rollout. What images mean is known on each host, and not looked at.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rolled: BTreeSet<PodId>,
    /// The `up` that was the first to ask for what a service is rolled out to now, if it was not the last one: by the service of
    /// the file, its generation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rolling_since: BTreeMap<ServiceName, u64>,
    /// What somebody asked of pods by hand since the last `up` of their service.
    #[serde(default, with = "super::asked::as_list", skip_serializing_if = "BTreeMap::is_empty")]
    pub asked: BTreeMap<PodId, Asked>,
    /// Time between stop signal and kill for what the plan for this state stops (`-t`), instead of each service's own.
    #[serde(default)]
    pub stop_timeout: Option<Duration>,
    /// The hosts that it is for (`x-hosts`, `--host`); empty: all of the cluster, also those that are added later.
    #[serde(default)]
    pub hosts: BTreeSet<HostName>,
}

/// Addresses that must not change while a project lives: chosen once, kept in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addresses {
    /// By network; external networks have none.
    pub networks: BTreeMap<ResourceKey, NetworkAddresses>,
    /// Ports published by the load balancer, each resolved to one number.
    pub ports: Vec<PublishedPort>,
}

/// Addresses of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAddresses {
    /// The whole network, the same on all hosts.
    pub subnet: Ipv4Net,
    /// Address of the bridge.
    pub gateway: Ipv4Addr,
    /// Where the file wants the containers' addresses to come from, if it says so. Which slice of the network is which
    /// host's follows from it (`net::addr::container_slice`).
    #[serde(default)]
    pub ip_range: Option<Ipv4Net>,
    /// Where virtual addresses come from; disjoint from every host's slice.
    pub vips: Ipv4Net,
    /// Virtual address of each service that is a member.
    pub services: BTreeMap<ServiceName, Ipv4Addr>,
    /// The virtual address given last: the next one is looked for after it, so that a released one is reused last.
    #[serde(default)]
    pub last_vip: Option<Ipv4Addr>,
}

/// A port that the load balancer publishes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The service behind it.
    pub service: ServiceName,
    /// Address on the host; `None`: all.
    pub host_ip: Option<std::net::IpAddr>,
    /// Port on the host.
    pub published: u16,
    /// Port in the container.
    pub target: u16,
    /// Protocol.
    pub protocol: crate::graph::Protocol,
}

/// What the user asked of one `up`, beside the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpOptions {
    /// Services named on the command line; empty: all.
    pub services: Vec<ServiceName>,
    /// Leave out what the named services depend on.
    pub no_deps: bool,
    /// `--force-recreate`.
    pub force_recreate: bool,
    /// `--no-recreate`.
    pub no_recreate: bool,
    /// `--always-recreate-deps`.
    pub recreate_deps: bool,
    /// `--renew-anon-volumes`.
    pub renew_volumes: bool,
    /// `--remove-orphans`.
    pub remove_orphans: bool,
    /// `COMPOSE_IGNORE_ORPHANS`: say nothing of them.
    pub ignore_orphans: bool,
    /// `--no-start`: make containers, do not start them.
    pub no_start: bool,
    /// `-t`: seconds instead of each service's grace period.
    pub timeout_secs: Option<u64>,
    /// Only what the named services depend on, for a one-off (`run`) of theirs; nothing else changes.
    pub only_dependencies: bool,
    /// See [`Desired::oneoffs_before`]; the seat says when that is.
    pub oneoffs_before: Option<String>,
}

impl Desired {
    /// Returns every pod that shall exist, in a fixed order.
    pub fn pods(&self) -> impl Iterator<Item = &PodId> {
        self.assignments.pods.keys()
    }

    /// Returns the first generation in which the service was wanted as it is now: what was rolled out since belongs together.
    pub fn rolling_since(&self, service: &ServiceName) -> u64 {
        self.rolling_since.get(self.graph.rolled_with(service)).copied().unwrap_or(self.generation)
    }

    /// Returns whether what comes in the place of a container gets that one's anonymous volumes.
    pub fn keeps_volumes(&self, pod: &PodId, container: &ObservedContainer) -> bool {
        let renewed = self.renew_before.get(&pod.service).copied().unwrap_or(0);
        // Who removes a container by hand gets new ones with the next, as in Docker Compose.
        container.generation.unwrap_or(0) >= renewed && !matches!(self.asked.get(pod), Some(Asked::Removed { .. }))
    }

    /// Returns whether the project is for this host: pods may run there, and its published ports answer there.
    pub fn is_for(&self, host: &HostName) -> bool {
        self.hosts.is_empty() || self.hosts.contains(host)
    }

    /// Returns whether pods wait for what `dependency` promises: not where it is on a service that shall not be
    /// started, or that somebody stopped.
    pub fn awaits(&self, dependency: &Dependency) -> bool {
        let name = &dependency.service;
        self.enabled.contains(name)
            && !self.unstarted.iter().any(|pod| &pod.service == name)
            && !self.is_put_to_rest(name)
    }
}
