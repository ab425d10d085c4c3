//! All metrics that an agent tells: their names, types, labels and what they mean. `docs/metrics.md` is this table, which a
//! test checks.
//!
//! How many series there are is bounded by what is there now: by the pods, services, rules and ambassadors of the tables in
//! use, and by the hosts of the cluster; never by what clients ask for.

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Begins the name of each.
pub(super) const PREFIX: &str = "orch";

/// One metric, with its labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    /// Without prefix, unit and the suffix of its type.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Measure,
    /// Beside `host`, which all have: the host whose agent tells it.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// The types that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// The units that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    None,
    Bytes,
    Seconds,
}

impl Family {
    pub(super) fn metric_type(&self) -> MetricType {
        match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        }
    }

    pub(super) fn unit(&self) -> Option<Unit> {
        match self.unit {
            Measure::None => None,
            Measure::Bytes => Some(Unit::Bytes),
            Measure::Seconds => Some(Unit::Seconds),
        }
    }

    /// Returns the name that queries use.
    #[cfg(test)]
    pub(super) fn full_name(&self) -> String {
        let unit = self.unit().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{PREFIX}_{}{unit}{suffix}", self.name)
    }
}

macro_rules! families {
    ($($id:ident: $kind:ident $name:literal $unit:ident [$($label:literal),*] $help:literal;)*) => {
        $(
            pub(super) const $id: Family = Family {
                name: $name,
                kind: Kind::$kind,
                unit: Measure::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All of them, in the order in which they are told.
        pub(super) const TABLE: &[Family] = &[$($id),*];
    };
}

families! {
    BUILD: Info "build" None ["version", "build", "engine"] "The agent, and the version of its engine";
    START_TIME: Gauge "start_time" Seconds [] "When the agent started, since 1970";
    MEMORY: Gauge "resident_memory" Bytes [] "Memory of the agent";
    STORE: Gauge "store_size" Bytes [] "Size of the agent's store on the disk";
    TABLE_VERSION: Gauge "table_version" None ["table"] "Number of the table in use, of `names` or of the load balancer (`lb`)";
    SEAT: Gauge "seat" None [] "1 on the host that decides for the cluster";
    HOSTS: Gauge "hosts" None ["state"] "Hosts of the cluster as this one sees them: `ready`, `unknown`, `down`";
    HOST_UP: Gauge "host_up" None ["peer"] "1 while the other host answers this one";

    PASSES: Counter "reconcile_passes" None ["project"] "Looks at what is there and what shall be";
    STEPS: Counter "steps" None ["project", "outcome"] "Steps on the engine that were `done` or `failed`";
    SETTLED: Gauge "project_settled" None ["project"] "1 while nothing is left to do for the project";
    PODS: Gauge "pods" None ["project", "service", "state"] "Pods that shall run on this host: `ready`, `not_ready`";

    DNS: Counter "dns_answers" None ["source", "answer"]
        "Answers by where they came from (`table`, `cache`, `resolver`) and what they said (`found`, `empty`, `no_name`, `failed`, `refused`, `other`)";
    DNS_IGNORED: Counter "dns_ignored" None [] "Messages to the DNS that were no questions";

    CONNECTIONS: Gauge "connections" None [] "Connections that the load balancer has open, held ones and those of other hosts included";
    ACCEPTED: Counter "connections_accepted" None [] "Connections that the load balancer took";
    REFUSED: Counter "connections_refused" None [] "Connections that were closed because no pod took them";
    DENIED: Counter "connections_denied" None [] "Connections to other hosts' pods that the agent there denied";
    MALFORMED: Counter "http_malformed" None [] "Connections that brought what was no request that could be served";
    CROWDED: Counter "http_crowded" None [] "Requests that were refused because too much was held in memory for others (503)";
    UNLOGGED: Counter "http_unlogged" None [] "Requests without a line in the access log, because lines were written too slowly";
    SESSIONS: Gauge "datagram_sessions" None [] "Sessions of datagrams";
    DATAGRAMS: Counter "datagrams" None ["direction"] "Datagrams from clients (`question`) and from pods (`answer`)";
    DROPPED: Counter "datagrams_dropped" None [] "Datagrams for which there was no room, or nobody to take them";
    EVICTED: Counter "datagram_sessions_evicted" None [] "Sessions that ended because there were too many";
    UNSERVED: Counter "datagram_sessions_unserved" None [] "Sessions that ended because no pod took what they sent";

    SERVICE_REQUESTS: Counter "service_requests" None ["project", "service", "code"] "Answers to requests for a service, by class of their status";
    SERVICE_REFUSALS: Counter "service_refusals" None ["project", "service", "reason"]
        "Of these, the load balancer's own: no pod was ready (`none_ready`, 503), none took the request (`not_taken`, 502), one broke off (`broken`, 502) or took too long (`late`, 504), the host is out of sockets (`exhausted`, 503), the head of a pod's answer was too large (`large_answer`, 502) or contradicted itself (`unclear_answer`, 502), or its answer was no HTTP (`no_http`, 502)";
    SERVICE_UNANSWERED: Counter "service_requests_unanswered" None ["project", "service"] "Requests that ended without an answer, most of them because the client was gone";
    SERVICE_BROKEN_OFF: Counter "service_answers_broken_off" None ["project", "service"] "Answers whose end did not reach the client";
    SERVICE_IN_FLIGHT: Gauge "service_requests_in_flight" None ["project", "service"] "Requests under way";
    SERVICE_SENT: Counter "service_request" Bytes ["project", "service"] "Bytes of requests";
    SERVICE_RECEIVED: Counter "service_answer" Bytes ["project", "service"] "Bytes of answers";
    SERVICE_DURATION: Histogram "service_request_duration" Seconds ["project", "service"] "From the head of a request to the last byte of its answer";
    SERVICE_ENDPOINTS: Gauge "service_endpoints" None ["project", "service"] "Pods that get connections or requests, on all hosts";

    ROUTE_REQUESTS: Counter "route_requests" None ["project", "service", "rule", "route", "code"] "Answers to requests that a rule took, by class of their status";
    ROUTE_UNANSWERED: Counter "route_requests_unanswered" None ["project", "service", "rule", "route"] "Requests that ended without an answer";
    ROUTE_IN_FLIGHT: Gauge "route_requests_in_flight" None ["project", "service", "rule", "route"] "Requests under way";
    ROUTE_SENT: Counter "route_request" Bytes ["project", "service", "rule", "route"] "Bytes of requests";
    ROUTE_RECEIVED: Counter "route_answer" Bytes ["project", "service", "rule", "route"] "Bytes of answers";
    ROUTE_DURATION: Histogram "route_request_duration" Seconds ["project", "service", "rule", "route"] "From the head of a request to the last byte of its answer";

    ENDPOINT_OPEN: Gauge "endpoint_open" None ["project", "service", "pod", "pod_host"] "Connections to a pod and sessions with it that are open";
    ENDPOINT_CONNECTIONS: Counter "endpoint_connections" None ["project", "service", "pod", "pod_host"] "Connections that were made, and sessions that were answered";
    ENDPOINT_FAILED: Counter "endpoint_failures" None ["project", "service", "pod", "pod_host"] "Connections that the pod did not take, sessions that it refused, and requests that it broke off";
    ENDPOINT_AVOIDED: Gauge "endpoint_avoided" None ["project", "service", "pod", "pod_host"] "1 while others are preferred, because the pod or its host failed lately";
    ENDPOINT_EJECTED: Gauge "endpoint_ejected" None ["project", "service", "pod", "pod_host"] "1 while it is passed over because it answered badly too often";
    ENDPOINT_SENT: Counter "endpoint_sent" Bytes ["project", "service", "pod", "pod_host"] "Bytes sent to it";
    ENDPOINT_RECEIVED: Counter "endpoint_received" Bytes ["project", "service", "pod", "pod_host"] "Bytes received from it";
    ENDPOINT_REQUESTS: Counter "endpoint_requests" None ["project", "service", "pod", "pod_host", "code"] "Its answers to requests, by class of their status";
    ENDPOINT_IN_FLIGHT: Gauge "endpoint_requests_in_flight" None ["project", "service", "pod", "pod_host"] "Requests that it is at";

    AMBASSADOR_LISTENS: Gauge "ambassador_listening" None ["project", "pod", "ambassador"] "1 while it listens in its pod";
    AMBASSADOR_OPEN: Gauge "ambassador_open" None ["project", "pod", "ambassador"] "Connections open";
    AMBASSADOR_CONNECTIONS: Counter "ambassador_connections" None ["project", "pod", "ambassador"] "Connections that came";
    AMBASSADOR_FAILED: Counter "ambassador_failures" None ["project", "pod", "ambassador"] "Those that no target took";
    TARGET_CONNECTIONS: Counter "ambassador_target_connections" None ["project", "pod", "ambassador", "target"] "Connections that the target took";
    TARGET_FAILED: Counter "ambassador_target_failures" None ["project", "pod", "ambassador", "target"] "Attempts that it did not take";
    TARGET_SENT: Counter "ambassador_target_sent" Bytes ["project", "pod", "ambassador", "target"] "Bytes sent to it";
    TARGET_RECEIVED: Counter "ambassador_target_received" Bytes ["project", "pod", "ambassador", "target"] "Bytes received from it";
    TARGET_OPEN_CIRCUIT: Gauge "ambassador_target_open_circuit" None ["project", "pod", "ambassador", "target"] "1 while the target is left alone because it failed too often";
}
