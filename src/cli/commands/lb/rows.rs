//! The table of `orch lb`. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::api::types::Traffic;
use crate::cli::table;
use crate::ids::{HostName, ProjectName, ServiceName};
use crate::lb::http::{DURATION_CLASSES, HttpStats};
use crate::lb::{AmbassadorStats, EndpointStats};

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
    state: String,
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
            state: String::new(),
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
    for Traffic { host, balancer, ambassadors } in traffic {
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
        for (name, mut row) in services {
            row.state = format!("{} ready", ready.get(name).copied().unwrap_or_default());
            add(row);
        }
        for route in balancer.routes.iter().filter(|one| one.project == *project) {
            // Rules that differ in their methods or header fields only have one name.
            let same = balancer.routes.iter().filter(|one| (&one.project, &one.name) == (project, &route.name)).count();
            let name = if same > 1 { format!("{} #{}", route.name, route.number + 1) } else { route.name.clone() };
            add(Row::new(Kind::Route, &route.service, name, host, Counts::of_requests(&route.http)));
        }
        for ambassador in ambassadors.iter().filter(|one| one.key.project == *project) {
            ambassador_rows(ambassador, host).for_each(&mut add);
        }
    }
    rows.into_values().collect()
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
    let state = match (is_leaving, endpoint.away, endpoint.avoided) {
        (true, ..) => "draining",
        (_, true, _) => "away",
        (_, _, true) => "avoided",
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

fn ambassador_rows(ambassador: &AmbassadorStats, host: &HostName) -> impl Iterator<Item = Row> {
    let AmbassadorStats { key, listens, open, connections: _, failed: _, targets } = ambassador;
    targets.iter().map(move |target| {
        let counts = Counts { connections: target.connections, failed: target.failed, ..Counts::default() };
        let name = format!("{} {} → {}", key.pod, key.name, target.target);
        let state = match (listens, target.is_open_circuit) {
            (false, _) => "not listening",
            (true, true) => "left alone",
            (true, false) => "listening",
        };
        Row {
            state: state.to_owned(),
            open: *open as u64,
            ..Row::new(Kind::Ambassador, &key.pod.service, name, host, counts)
        }
    })
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
    let lines: Vec<[String; 13]> = rows.iter().map(line).collect();
    table::render(
        [
            "NAME",
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

fn line(row: &Row) -> [String; 13] {
    let none = || "-".to_owned();
    let rate = |rate: Option<f64>| rate.map_or_else(none, |rate| format!("{rate:.1}"));
    let counts = &row.counts;
    let of_requests = |count: u64| counts.requests.map_or_else(none, |_| count.to_string());
    let of_connections = |text: String| if row.kind == Kind::Route { none() } else { text };
    [
        if row.kind == Kind::Service { row.name.clone() } else { format!("  {}", row.name) },
        row.host.to_string(),
        row.pod_host.as_ref().map_or_else(none, ToString::to_string),
        if row.state.is_empty() { none() } else { row.state.clone() },
        rate(row.request_rate),
        of_connections(rate(row.connection_rate)),
        of_connections(row.open.to_string()),
        of_connections(counts.failed.to_string()),
        of_requests(counts.client_errors),
        of_requests(counts.server_errors),
        row.p50.map_or_else(none, duration),
        row.p99.map_or_else(none, duration),
        if row.kind == Kind::Ambassador {
            none()
        } else {
            format!("{} / {}", bytes(counts.sent), bytes(counts.received))
        },
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
    use crate::ids::PodId;
    use crate::lb::table::AmbassadorKey;
    use crate::lb::{AmbassadorTargetStats, BalancerStats, RouteStats, ServiceStats};

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
            http: requests(count),
        };
        let ambassador = AmbassadorStats {
            key: AmbassadorKey { project: project.clone(), pod: PodId::new(service("web"), 1), name: "db".to_owned() },
            listens: true,
            open: 1,
            connections: 3,
            failed: 0,
            targets: vec![AmbassadorTargetStats {
                target: "db:5432".to_owned(),
                connections: 3,
                failed: 0,
                is_open_circuit: false,
                last_error: None,
            }],
        };
        Traffic {
            host: HostName::new("a").expect("valid"),
            balancer: BalancerStats {
                endpoints: vec![endpoint("db", 1, "a"), web, away, other],
                leaving: vec![endpoint("web", 1, "a")],
                services: vec![ServiceStats { project, service: service("web"), http: requests(count) }],
                routes: vec![route],
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
        NAME                   HOST      POD ON    STATE       REQ/S     NEW/S     OPEN      FAILED    4XX       5XX       P50       P99       SENT / RECEIVED
        db                     a         -         1 ready     -         0.0       1         0         -         -         -         -         1.2kB / 34MB
          db.1                 a         a         ready       -         0.0       1         0         -         -         -         -         1.2kB / 34MB
        web                    a         -         2 ready     10.0      0.0       3         0         2         1         750us     1.0ms     3.6kB / 102MB
          shop.example.com/*   a         -         -           10.0      -         -         -         2         1         750us     1.0ms     0B / 0B
          web.1                a         a         ready       10.0      0.0       1         0         2         1         750us     1.0ms     1.2kB / 34MB
          web.1 (old)          a         a         draining    -         0.0       1         0         -         -         -         -         1.2kB / 34MB
          web.2                a         b         away        -         0.0       1         0         -         -         -         -         1.2kB / 34MB
          web.1 db → db:5432   a         -         listening   -         0.0       1         0         -         -         -         -         -
        ");
        let json = serde_json::to_value(&now[3]).expect("written");
        assert_eq!((&json["Kind"], &json["Host"], &json["Requests"]), (&"route".into(), &"a".into(), &123.into()));
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
