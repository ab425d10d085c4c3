//! The table of `orch lb`. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use crate::api::types::Traffic;
use crate::cli::table;
use crate::ids::{HostName, ProjectName, ServiceName};
use crate::lb::http::{DURATION_CLASSES, HttpStats};
use crate::lb::{AmbassadorStats, AmbassadorTargetStats, BalancerStats, EndpointStats, PublishedStats, RouteStats};

/// What a row is about, in the order in which a service's rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Service,
    Route,
    Endpoint,
    Ambassador,
}

/// What one host's load balancer does with a service, by a rule, with a pod, or in an ambassador.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) service: ServiceName,
    /// The service, `shop.example.com/api/*`, `web.1`, `web.1 redis → db:6379`.
    name: String,
    /// The host whose load balancer it is.
    host: HostName,
    /// Of a pod: the host that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_host: Option<HostName>,
    /// `8080->80/tcp` of a service, `80,443->8080` of a rule, where an ambassador listens.
    #[serde(skip_serializing_if = "String::is_empty")]
    ports: String,
    state: String,
    /// Of a service: why no pod of it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Connections and sessions of datagrams.
    open: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
    /// Requests a second since the look before.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_rate: Option<f64>,
    /// Connections a second since the look before.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_rate: Option<f64>,
    /// Half of the answers took no longer: since the look before, else since the counters began.
    #[serde(rename = "P50Micros", skip_serializing_if = "Option::is_none")]
    p50: Option<u64>,
    #[serde(rename = "P99Micros", skip_serializing_if = "Option::is_none")]
    p99: Option<u64>,
}

/// What only grows.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Counts {
    /// `None`: it is not about requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    client_errors: u64,
    server_errors: u64,
    connections: u64,
    failed: u64,
    sent: u64,
    received: u64,
    #[serde(skip)]
    durations: [u64; DURATION_CLASSES.len() + 1],
}

/// What stays the same from one look to the next.
pub(super) type Key = (ServiceName, Kind, String, HostName);

impl Counts {
    fn of_requests(http: &HttpStats) -> Self {
        Self {
            requests: Some(http.by_class.iter().sum()),
            client_errors: http.by_class[3],
            server_errors: http.by_class[4],
            durations: http.by_duration,
            sent: http.sent,
            received: http.received,
            ..Self::default()
        }
    }
}

impl Row {
    fn new(kind: Kind, service: &ServiceName, name: String, host: &HostName, counts: Counts) -> Self {
        Self {
            kind,
            service: service.clone(),
            name,
            host: host.clone(),
            pod_host: None,
            ports: String::new(),
            state: String::new(),
            reason: None,
            open: 0,
            request_rate: None,
            connection_rate: None,
            p50: quantile(&counts.durations, 50),
            p99: quantile(&counts.durations, 99),
            counts,
        }
    }

    pub(super) fn key(&self) -> Key {
        (self.service.clone(), self.kind, self.name.clone(), self.host.clone())
    }

    /// Says what happened since an earlier look. What was made anew meanwhile begins at zero.
    pub(super) fn measure(&mut self, earlier: &Counts, time: Duration) {
        let now = &self.counts;
        let rate = |now: u64, then: u64| per_second(now.checked_sub(then).unwrap_or(now), time);
        self.request_rate = now.requests.map(|requests| rate(requests, earlier.requests.unwrap_or_default()));
        self.connection_rate = Some(rate(now.connections, earlier.connections));
        let mut since = now.durations;
        for (count, then) in since.iter_mut().zip(earlier.durations) {
            *count = count.checked_sub(then).unwrap_or(*count);
        }
        (self.p50, self.p99) = (quantile(&since, 50), quantile(&since, 99));
    }
}

/// Returns what the load balancers do for a project, service by service.
pub(super) fn rows(project: &ProjectName, traffic: &[Traffic]) -> Vec<Row> {
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    for Traffic { host, balancer, ambassadors, services: known } in traffic {
        let mut add = |row: Row| drop(rows.insert(row.key(), row));
        let mut services: BTreeMap<&ServiceName, Row> = BTreeMap::new();
        for service in balancer.services.iter().filter(|one| one.project == *project) {
            let counts = Counts { sent: 0, received: 0, ..Counts::of_requests(&service.http) };
            let row = Row::new(Kind::Service, &service.service, service.service.to_string(), host, counts);
            services.insert(&service.service, row);
        }
        let endpoints = balancer.endpoints.iter().map(|one| (one, false));
        let leaving = balancer.leaving.iter().map(|one| (one, true));
        let own = endpoints.chain(leaving).filter(|(one, _)| one.project == *project);
        let mut ready: BTreeMap<&ServiceName, usize> = BTreeMap::new();
        for (endpoint, is_leaving) in own {
            let name = &endpoint.pod.service;
            let new = || Row::new(Kind::Service, name, name.to_string(), host, Counts::default());
            let service = services.entry(name).or_insert_with(new);
            service.open += endpoint.open as u64;
            service.counts.connections += endpoint.connected;
            service.counts.failed += endpoint.failed;
            service.counts.sent += endpoint.sent;
            service.counts.received += endpoint.received;
            *ready.entry(name).or_default() += usize::from(!is_leaving);
            add(endpoint_row(endpoint, is_leaving, host));
        }
        let known: BTreeMap<&ServiceName, Option<&String>> =
            known.iter().filter(|one| one.project == *project).map(|one| (&one.service, one.why.as_ref())).collect();
        for name in known.keys() {
            let new = || Row::new(Kind::Service, name, name.to_string(), host, Counts::default());
            services.entry(name).or_insert_with(new);
        }
        for (name, mut row) in services {
            let ready = ready.get(name).copied().unwrap_or_default();
            row.state = format!("{ready} ready");
            row.reason = known.get(name).copied().flatten().filter(|_| ready == 0).cloned();
            row.ports = published(balancer, project, name);
            add(row);
        }
        for route in balancer.routes.iter().filter(|one| one.project == *project) {
            // Rules that differ in their methods or header fields only have one name.
            let same = balancer.routes.iter().filter(|one| (&one.project, &one.name) == (project, &route.name)).count();
            let name = if same > 1 { format!("{} #{}", route.name, route.number + 1) } else { route.name.clone() };
            let ports = route_ports(route);
            add(Row { ports, ..Row::new(Kind::Route, &route.service, name, host, Counts::of_requests(&route.http)) });
        }
        for ambassador in ambassadors.iter().filter(|one| one.key.project == *project) {
            ambassador_rows(ambassador, host).into_iter().for_each(&mut add);
        }
    }
    rows.into_values().collect()
}

/// Writes the published ports of a service as `docker ps` does: `8080->80/tcp, 127.0.0.1:53->53/udp`.
fn published(balancer: &BalancerStats, project: &ProjectName, service: &ServiceName) -> String {
    let own = balancer.published.iter().filter(|one| one.project == *project && one.service == *service);
    let text = own.map(|PublishedStats { host_ip, published, target, protocol, .. }| match host_ip {
        Some(IpAddr::V6(ip)) => format!("[{ip}]:{published}->{target}/{protocol}"),
        Some(ip) => format!("{ip}:{published}->{target}/{protocol}"),
        None => format!("{published}->{target}/{protocol}"),
    });
    text.collect::<Vec<_>>().join(", ")
}

/// Writes where a rule listens, and the port in the pods: `80,443->8080`.
fn route_ports(route: &RouteStats) -> String {
    let listen = route.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match route.target {
        Some(target) => format!("{listen}->{target}"),
        None => listen,
    }
}

fn endpoint_row(endpoint: &EndpointStats, is_leaving: bool, host: &HostName) -> Row {
    let http = &endpoint.http;
    let has_requests = http.in_flight > 0 || http.unanswered > 0 || http.by_class.iter().any(|count| *count > 0);
    let counts = Counts {
        connections: endpoint.connected,
        failed: endpoint.failed,
        sent: endpoint.sent,
        received: endpoint.received,
        ..if has_requests { Counts::of_requests(http) } else { Counts::default() }
    };
    let state = match (is_leaving, endpoint.away, endpoint.ejected, endpoint.avoided) {
        (true, ..) => "draining",
        (_, true, ..) => "away",
        (_, _, true, _) => "ejected",
        (.., true) => "avoided",
        _ => "ready",
    };
    // Two containers may be one pod while it is made anew.
    let name = if is_leaving { format!("{} (old)", endpoint.pod) } else { endpoint.pod.to_string() };
    Row {
        state: state.to_owned(),
        open: endpoint.open as u64,
        pod_host: Some(endpoint.host.clone()),
        ..Row::new(Kind::Endpoint, &endpoint.pod.service, name, host, counts)
    }
}

/// Returns a row for an ambassador, and one for each of its targets.
fn ambassador_rows(ambassador: &AmbassadorStats, host: &HostName) -> Vec<Row> {
    let AmbassadorStats { key, listens, address, open, connections, failed, targets } = ambassador;
    let name = format!("{} {}", key.pod, key.name);
    let sum = |of: fn(&AmbassadorTargetStats) -> u64| targets.iter().map(of).sum();
    let counts = Counts {
        connections: *connections,
        failed: *failed,
        sent: sum(|target| target.sent),
        received: sum(|target| target.received),
        ..Counts::default()
    };
    let has_nobody = targets.iter().all(|target| target.endpoints == Some(0));
    let state = match (*listens, has_nobody) {
        (false, _) => "not listening",
        (true, true) => "listening, no endpoint",
        (true, false) => "listening",
    };
    let mut rows = vec![Row {
        ports: address.map(|address| address.to_string()).unwrap_or_default(),
        state: state.to_owned(),
        open: *open as u64,
        ..Row::new(Kind::Ambassador, &key.pod.service, name.clone(), host, counts)
    }];
    rows.extend(targets.iter().map(|target| {
        let AmbassadorTargetStats {
            target,
            connections,
            failed,
            sent,
            received,
            is_open_circuit,
            endpoints,
            last_error: _,
        } = target;
        let (connections, failed, sent, received) = (*connections, *failed, *sent, *received);
        let counts = Counts { connections, failed, sent, received, ..Counts::default() };
        Row {
            state: match (*endpoints, *is_open_circuit) {
                (Some(0), _) => "no endpoint",
                (_, true) => "left alone",
                _ => "ready",
            }
            .to_owned(),
            ..Row::new(Kind::Ambassador, &key.pod.service, format!("{name} → {target}"), host, counts)
        }
    }));
    rows
}

/// Returns how long `percent` of the answers took at most, in microseconds: evenly spread within a class. `None`: there
/// were none. Of the last class, which has no end, its begin.
fn quantile(classes: &[u64; DURATION_CLASSES.len() + 1], percent: u64) -> Option<u64> {
    let total: u64 = classes.iter().sum();
    let wanted = (total * percent).div_ceil(100).max(1);
    let (mut before, mut begin) = (0, 0);
    for (count, end) in classes.iter().zip(DURATION_CLASSES.iter().map(Some).chain([None])) {
        if before + count >= wanted {
            let Some(end) = end else { return Some(begin) };
            return Some(begin + (end - begin) * (wanted - before) / count.max(&1));
        }
        before += count;
        begin = end.copied().unwrap_or(begin);
    }
    None
}

fn per_second(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a second are small")]
    let count = count as f64;
    count / time.as_secs_f64().max(0.001)
}

/// Returns the table.
pub(super) fn render(rows: &[Row]) -> String {
    let lines: Vec<[String; 14]> = rows.iter().map(line).collect();
    table::render(
        [
            "NAME",
            "PORTS",
            "HOST",
            "POD ON",
            "STATE",
            "REQ/S",
            "NEW/S",
            "OPEN",
            "FAILED",
            "4XX",
            "5XX",
            "P50",
            "P99",
            "SENT / RECEIVED",
        ],
        &lines,
    )
}

fn line(row: &Row) -> [String; 14] {
    let none = || "-".to_owned();
    let rate = |rate: Option<f64>| rate.map_or_else(none, |rate| format!("{rate:.1}"));
    let counts = &row.counts;
    let of_requests = |count: u64| counts.requests.map_or_else(none, |_| count.to_string());
    let of_connections = |text: String| if row.kind == Kind::Route { none() } else { text };
    [
        if row.kind == Kind::Service { row.name.clone() } else { format!("  {}", row.name) },
        if row.ports.is_empty() { none() } else { row.ports.clone() },
        row.host.to_string(),
        row.pod_host.as_ref().map_or_else(none, ToString::to_string),
        match &row.reason {
            _ if row.state.is_empty() => none(),
            Some(reason) => format!("{}: {reason}", row.state),
            None => row.state.clone(),
        },
        rate(row.request_rate),
        of_connections(rate(row.connection_rate)),
        of_connections(row.open.to_string()),
        of_connections(counts.failed.to_string()),
        of_requests(counts.client_errors),
        of_requests(counts.server_errors),
        row.p50.map_or_else(none, duration),
        row.p99.map_or_else(none, duration),
        format!("{} / {}", bytes(counts.sent), bytes(counts.received)),
    ]
}

/// `850us`, `1.2ms`, `3.4s`.
fn duration(micros: u64) -> String {
    match micros {
        ..1000 => format!("{micros}us"),
        1000..1_000_000 => format!("{}.{}ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{}.{}s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

/// `1.2MB`, in decimal units as `docker stats` has them.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count}B") } else { format!("{value:.*}{}", usize::from(value < 10.0), UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::ServiceSeen;
    use crate::graph::Protocol;
    use crate::ids::PodId;
    use crate::lb::ServiceStats;
    use crate::lb::table::AmbassadorKey;

    fn service(name: &str) -> ServiceName {
        ServiceName::new(name).expect("valid")
    }

    fn endpoint(service_name: &str, number: u32, at: &str) -> EndpointStats {
        EndpointStats {
            project: ProjectName::new("shop").expect("valid"),
            pod: PodId::new(service(service_name), number),
            container: format!("{service_name}-{number}"),
            remote: at != "a",
            host: HostName::new(at).expect("valid"),
            open: 1,
            connected: 10,
            failed: 0,
            avoided: false,
            away: false,
            ejected: false,
            sent: 1200,
            received: 34_000_000,
            http: HttpStats::default(),
            troubles: Vec::new(),
        }
    }

    fn requests(count: u64) -> HttpStats {
        let mut http = HttpStats { by_class: [0, count, 0, 2, 1], ..HttpStats::default() };
        (http.by_duration[1], http.by_duration[8]) = (count, 3);
        http
    }

    fn traffic(count: u64) -> Traffic {
        let project = ProjectName::new("shop").expect("valid");
        let web = EndpointStats { http: requests(count), ..endpoint("web", 1, "a") };
        let away = EndpointStats { away: true, avoided: true, ..endpoint("web", 2, "b") };
        let other = EndpointStats { project: ProjectName::new("other").expect("valid"), ..endpoint("web", 9, "a") };
        let route = RouteStats {
            project: project.clone(),
            service: service("web"),
            number: 0,
            name: "shop.example.com/*".to_owned(),
            listen: vec![80, 443],
            target: Some(8080),
            http: requests(count),
        };
        let ambassador = AmbassadorStats {
            key: AmbassadorKey { project: project.clone(), pod: PodId::new(service("web"), 1), name: "db".to_owned() },
            listens: true,
            address: Some(([127, 0, 0, 1], 5432).into()),
            open: 1,
            connections: 5,
            failed: 2,
            targets: vec![AmbassadorTargetStats {
                target: "db:5432".to_owned(),
                connections: 3,
                failed: 4,
                sent: 5000,
                received: 6000,
                is_open_circuit: false,
                endpoints: Some(1),
                last_error: None,
            }],
        };
        let seen = |name: &str, why: Option<&str>| ServiceSeen {
            project: project.clone(),
            service: service(name),
            why: why.map(str::to_owned),
        };
        let services = vec![seen("db", None), seen("far", Some("host `c` does not answer")), seen("web", None)];
        Traffic {
            services,
            host: HostName::new("a").expect("valid"),
            balancer: BalancerStats {
                endpoints: vec![endpoint("db", 1, "a"), web, away, other],
                leaving: vec![endpoint("web", 1, "a")],
                services: vec![ServiceStats { project, service: service("web"), http: requests(count) }],
                routes: vec![route],
                published: vec![PublishedStats {
                    project: ProjectName::new("shop").expect("valid"),
                    service: service("web"),
                    host_ip: None,
                    published: 8080,
                    target: 80,
                    protocol: Protocol::Tcp,
                }],
                ..BalancerStats::default()
            },
            ambassadors: vec![ambassador],
        }
    }

    #[test]
    fn services_are_shown_with_their_rules_pods_and_ambassadors() {
        let project = ProjectName::new("shop").expect("valid");
        let earlier = rows(&project, &[traffic(100)]);
        let mut now = rows(&project, &[traffic(120)]);
        for (row, earlier) in now.iter_mut().zip(&earlier) {
            row.measure(&earlier.counts, Duration::from_secs(2));
        }
        insta::assert_snapshot!(render(&now), @"
        NAME                   PORTS            HOST      POD ON    STATE                               REQ/S     NEW/S     OPEN      FAILED    4XX       5XX       P50       P99       SENT / RECEIVED
        db                     -                a         -         1 ready                             -         0.0       1         0         -         -         -         -         1.2kB / 34MB
          db.1                 -                a         a         ready                               -         0.0       1         0         -         -         -         -         1.2kB / 34MB
        far                    -                a         -         0 ready: host `c` does not answer   -         0.0       0         0         -         -         -         -         0B / 0B
        web                    8080->80/tcp     a         -         2 ready                             10.0      0.0       3         0         2         1         750us     1.0ms     3.6kB / 102MB
          shop.example.com/*   80,443->8080     a         -         -                                   10.0      -         -         -         2         1         750us     1.0ms     0B / 0B
          web.1                -                a         a         ready                               10.0      0.0       1         0         2         1         750us     1.0ms     1.2kB / 34MB
          web.1 (old)          -                a         a         draining                            -         0.0       1         0         -         -         -         -         1.2kB / 34MB
          web.2                -                a         b         away                                -         0.0       1         0         -         -         -         -         1.2kB / 34MB
          web.1 db             127.0.0.1:5432   a         -         listening                           -         0.0       1         2         -         -         -         -         5.0kB / 6.0kB
          web.1 db → db:5432   -                a         -         ready                               -         0.0       0         4         -         -         -         -         5.0kB / 6.0kB
        ");
        let far = now.iter().find(|row| row.service.as_str() == "far").expect("it has a row");
        let json = serde_json::to_value(far).expect("written");
        assert_eq!((&json["State"], &json["Reason"]), (&"0 ready".into(), &"host `c` does not answer".into()));
        let json = serde_json::to_value(&now[4]).expect("written");
        assert_eq!((&json["Kind"], &json["Host"], &json["Requests"]), (&"route".into(), &"a".into(), &123.into()));
    }

    #[test]
    fn an_ambassador_without_anybody_to_lead_to_says_so() {
        let project = ProjectName::new("shop").expect("valid");
        let states = |endpoints: [Option<usize>; 2], is_open_circuit: bool| {
            let mut traffic = traffic(0);
            let ambassador = &mut traffic.ambassadors[0];
            let mut second = ambassador.targets[0].clone();
            second.target = "other:5432".to_owned();
            ambassador.targets.push(second);
            for (target, endpoints) in ambassador.targets.iter_mut().zip(endpoints) {
                (target.endpoints, target.is_open_circuit) = (endpoints, is_open_circuit);
            }
            let rows = rows(&project, &[traffic]);
            let own = rows.iter().filter(|row| row.kind == Kind::Ambassador).map(|row| row.state.clone());
            own.collect::<Vec<_>>()
        };
        assert_eq!(states([Some(0), Some(2)], false), ["listening", "no endpoint", "ready"]);
        assert_eq!(states([Some(0), Some(0)], true), ["listening, no endpoint", "no endpoint", "no endpoint"]);
        assert_eq!(states([None, Some(0)], true), ["listening", "left alone", "no endpoint"]);
    }

    #[test]
    fn quantiles_are_read_from_classes() {
        let mut classes = [0; DURATION_CLASSES.len() + 1];
        assert_eq!(quantile(&classes, 50), None);
        classes[1] = 100;
        assert_eq!((quantile(&classes, 50), quantile(&classes, 99)), (Some(750), Some(995)));
        classes[13] = 100;
        assert_eq!((quantile(&classes, 50), quantile(&classes, 99)), (Some(1000), Some(10_000_000)));
    }

    #[test]
    fn units_fit_what_is_shown() {
        for (count, text) in [(0, "0B"), (999, "999B"), (1200, "1.2kB"), (25_000_000, "25MB"), (7_000_000_000, "7.0GB")]
        {
            assert_eq!(bytes(count), text);
        }
        assert_eq!([0, 999, 1234, 2_500_000].map(duration), ["0us", "999us", "1.2ms", "2.5s"]);
    }
}
