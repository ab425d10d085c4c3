//! From what is counted anyway to samples. Pure.

use std::collections::BTreeMap;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::table::{self, Family, TABLE};
use super::{AgentFacts, ProjectFacts, Snapshot};
use crate::api::types::{ClusterStatus, HostState};
use crate::lb::http::{DURATION_CLASSES, HttpStats, REFUSALS};
use crate::lb::{AmbassadorStats, BalancerStats, EndpointStats};
use crate::net::dns::DnsStats;

/// Names of the classes of [`HttpStats::by_class`].
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What is told of all metrics of [`TABLE`] at one moment. Two samples with the same labels are added up: two containers of
/// one pod may serve while it is made anew.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<&'static str, BTreeMap<Vec<String>, Value>>);

#[derive(Debug)]
enum Value {
    Counter(u64),
    Gauge(i64),
    Durations { classes: [u64; DURATION_CLASSES.len() + 1], micros: u64 },
    Info,
}

impl Samples {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let Snapshot { agent, cluster, projects, dns, balancer, ambassadors } = snapshot;
        let mut samples = Self::default();
        samples.agent(agent);
        samples.cluster(cluster);
        for project in projects {
            samples.project(project);
        }
        samples.dns(dns);
        samples.balancer(balancer);
        for ambassador in ambassadors {
            samples.ambassador(ambassador);
        }
        samples
    }

    fn agent(&mut self, agent: &AgentFacts) {
        let AgentFacts { version, build, engine, started, memory, store, names_version } = agent;
        self.add(table::BUILD, &[version, build, engine], Value::Info);
        self.gauge(table::START_TIME, &[], *started);
        self.gauge(table::MEMORY, &[], *memory);
        self.gauge(table::STORE, &[], *store);
        self.gauge(table::TABLE_VERSION, &["names"], *names_version);
    }

    fn cluster(&mut self, cluster: &ClusterStatus) {
        let ClusterStatus { cluster: _, host, seat, epoch: _, hosts } = cluster;
        self.gauge(table::SEAT, &[], u64::from(host == seat));
        for (state, word) in [(HostState::Ready, "ready"), (HostState::Unknown, "unknown"), (HostState::Down, "down")] {
            self.gauge(table::HOSTS, &[word], hosts.iter().filter(|host| host.state == state).count() as u64);
        }
        for peer in hosts.iter().filter(|peer| peer.name != *host) {
            self.gauge(table::HOST_UP, &[peer.name.as_str()], u64::from(peer.state == HostState::Ready));
        }
    }

    fn project(&mut self, project: &ProjectFacts) {
        let ProjectFacts { name, passes, steps_done, steps_failed, is_settled, pods } = project;
        let name = name.as_str();
        self.counter(table::PASSES, &[name], *passes);
        self.counter(table::STEPS, &[name, "done"], *steps_done);
        self.counter(table::STEPS, &[name, "failed"], *steps_failed);
        self.gauge(table::SETTLED, &[name], u64::from(*is_settled));
        for (service, is_ready) in pods {
            // Both, so that a service of which no pod is ready has a 0 there.
            self.gauge(table::PODS, &[name, service.as_str(), "ready"], u64::from(*is_ready));
            self.gauge(table::PODS, &[name, service.as_str(), "not_ready"], u64::from(!is_ready));
        }
    }

    fn dns(&mut self, dns: &DnsStats) {
        let DnsStats { answers, ignored } = dns;
        for (origin, said, count) in answers {
            self.counter(table::DNS, &[origin.word(), said.word()], *count);
        }
        self.counter(table::DNS_IGNORED, &[], *ignored);
    }

    fn balancer(&mut self, stats: &BalancerStats) {
        self.gauge(table::TABLE_VERSION, &["lb"], stats.table_version);
        self.gauge(table::CONNECTIONS, &[], stats.open as u64);
        self.counter(table::ACCEPTED, &[], stats.accepted);
        self.counter(table::REFUSED, &[], stats.refused);
        self.counter(table::DENIED, &[], stats.denied);
        self.counter(table::MALFORMED, &[], stats.malformed);
        self.counter(table::CROWDED, &[], stats.crowded);
        self.counter(table::UNLOGGED, &[], stats.unlogged);
        let datagrams = &stats.datagrams;
        self.gauge(table::SESSIONS, &[], datagrams.sessions as u64);
        self.counter(table::DATAGRAMS, &["question"], datagrams.questions);
        self.counter(table::DATAGRAMS, &["answer"], datagrams.answers);
        self.counter(table::DROPPED, &[], datagrams.dropped);
        self.counter(table::EVICTED, &[], datagrams.evicted);
        self.counter(table::UNSERVED, &[], datagrams.unserved);
        for service in &stats.services {
            let labels = [service.project.as_str(), service.service.as_str()];
            self.requests(table::SERVICE_REQUESTS, &labels, &service.http);
            for (reason, count) in REFUSALS.iter().zip(service.http.by_refusal) {
                self.counter(table::SERVICE_REFUSALS, &[labels[0], labels[1], reason], count);
            }
            self.counter(table::SERVICE_UNANSWERED, &labels, service.http.unanswered);
            self.counter(table::SERVICE_BROKEN_OFF, &labels, service.http.broken_off);
            self.gauge(table::SERVICE_IN_FLIGHT, &labels, service.http.in_flight);
            self.counter(table::SERVICE_SENT, &labels, service.http.sent);
            self.counter(table::SERVICE_RECEIVED, &labels, service.http.received);
            self.durations(table::SERVICE_DURATION, &labels, &service.http);
            // A service without a pod is told too.
            self.gauge(table::SERVICE_ENDPOINTS, &labels, 0);
        }
        for route in &stats.routes {
            let rule = route.number.to_string();
            let labels = [route.project.as_str(), route.service.as_str(), &rule, &route.name];
            self.requests(table::ROUTE_REQUESTS, &labels, &route.http);
            self.counter(table::ROUTE_UNANSWERED, &labels, route.http.unanswered);
            self.gauge(table::ROUTE_IN_FLIGHT, &labels, route.http.in_flight);
            self.counter(table::ROUTE_SENT, &labels, route.http.sent);
            self.counter(table::ROUTE_RECEIVED, &labels, route.http.received);
            self.durations(table::ROUTE_DURATION, &labels, &route.http);
        }
        stats.endpoints.iter().for_each(|endpoint| self.endpoint(endpoint));
    }

    fn endpoint(&mut self, endpoint: &EndpointStats) {
        let (project, service, pod) =
            (endpoint.project.as_str(), endpoint.pod.service.as_str(), endpoint.pod.to_string());
        let labels = [project, service, &pod, endpoint.host.as_str()];
        self.gauge(table::SERVICE_ENDPOINTS, &[project, service], 1);
        self.gauge(table::ENDPOINT_OPEN, &labels, endpoint.open as u64);
        self.counter(table::ENDPOINT_CONNECTIONS, &labels, endpoint.connected);
        self.counter(table::ENDPOINT_FAILED, &labels, endpoint.failed);
        self.gauge(table::ENDPOINT_AVOIDED, &labels, u64::from(endpoint.avoided));
        self.gauge(table::ENDPOINT_EJECTED, &labels, u64::from(endpoint.ejected));
        self.counter(table::ENDPOINT_SENT, &labels, endpoint.sent);
        self.counter(table::ENDPOINT_RECEIVED, &labels, endpoint.received);
        self.requests(table::ENDPOINT_REQUESTS, &labels, &endpoint.http);
        self.gauge(table::ENDPOINT_IN_FLIGHT, &labels, endpoint.http.in_flight);
    }

    fn ambassador(&mut self, ambassador: &AmbassadorStats) {
        let AmbassadorStats { key, listens, address: _, open, connections, failed, targets } = ambassador;
        let pod = key.pod.to_string();
        let labels = [key.project.as_str(), &pod, &key.name];
        self.gauge(table::AMBASSADOR_LISTENS, &labels, u64::from(*listens));
        self.gauge(table::AMBASSADOR_OPEN, &labels, *open as u64);
        self.counter(table::AMBASSADOR_CONNECTIONS, &labels, *connections);
        self.counter(table::AMBASSADOR_FAILED, &labels, *failed);
        for target in targets {
            let labels = [labels[0], labels[1], labels[2], &target.target];
            self.counter(table::TARGET_CONNECTIONS, &labels, target.connections);
            self.counter(table::TARGET_FAILED, &labels, target.failed);
            self.counter(table::TARGET_SENT, &labels, target.sent);
            self.counter(table::TARGET_RECEIVED, &labels, target.received);
            self.gauge(table::TARGET_OPEN_CIRCUIT, &labels, u64::from(target.is_open_circuit));
        }
    }

    fn requests(&mut self, family: Family, labels: &[&str], stats: &HttpStats) {
        for (class, count) in CLASSES.iter().zip(stats.by_class) {
            self.counter(family, &[labels, &[*class]].concat(), count);
        }
    }

    fn durations(&mut self, family: Family, labels: &[&str], stats: &HttpStats) {
        self.add(family, labels, Value::Durations { classes: stats.by_duration, micros: stats.micros });
    }

    fn counter(&mut self, family: Family, labels: &[&str], count: u64) {
        self.add(family, labels, Value::Counter(count));
    }

    fn gauge(&mut self, family: Family, labels: &[&str], count: u64) {
        self.add(family, labels, Value::Gauge(i64::try_from(count).unwrap_or(i64::MAX)));
    }

    fn add(&mut self, family: Family, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), family.labels.len(), "labels of {}", family.name);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let samples = self.0.entry(family.name).or_default();
        match samples.entry(labels) {
            std::collections::btree_map::Entry::Vacant(free) => drop(free.insert(value)),
            std::collections::btree_map::Entry::Occupied(mut there) => there.get_mut().merge(value),
        }
    }
}

impl Value {
    fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Counter(sum), Self::Counter(more)) => *sum += more,
            (Self::Gauge(sum), Self::Gauge(more)) => *sum += more,
            (Self::Durations { classes, micros }, Self::Durations { classes: more, micros: longer }) => {
                for (sum, more) in classes.iter_mut().zip(more) {
                    *sum += more;
                }
                *micros += longer;
            }
            // A family has one type.
            (mine, other) => *mine = other,
        }
    }
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in TABLE {
            let unit = family.unit();
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, unit.as_ref(), family.metric_type())?;
            for (values, value) in self.0.get(family.name).into_iter().flatten() {
                let labels: Vec<(&str, &str)> =
                    family.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                match value {
                    Value::Info => metric.encode_info(&labels)?,
                    Value::Counter(count) => {
                        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(count, None)?;
                    }
                    Value::Gauge(value) => metric.encode_family(&labels)?.encode_gauge(value)?,
                    Value::Durations { classes, micros } => {
                        let ends = DURATION_CLASSES.iter().map(|micros| seconds(*micros)).chain([f64::INFINITY]);
                        let buckets: Vec<(f64, u64)> = ends.zip(*classes).collect();
                        let count = classes.iter().sum();
                        let mut metric = metric.encode_family(&labels)?;
                        metric.encode_histogram::<NoLabelSet>(seconds(*micros), count, &buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn seconds(micros: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a sum of 285 years is exact to the microsecond")]
    let micros = micros as f64;
    micros / 1e6
}
