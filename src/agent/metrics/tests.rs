//! The text of metrics, read back strictly; and the page that lists them.

use std::fmt::Write as _;

use super::table::{Kind, Measure, TABLE};
use super::*;
use crate::api::types::{HostState, HostStatus};
use crate::ids::PodId;
use crate::lb::http::{DURATION_CLASSES, HttpStats};
use crate::lb::table::AmbassadorKey;
use crate::lb::{AmbassadorTargetStats, DatagramStats, EndpointStats, RouteStats, ServiceStats};
use crate::net::dns::{Origin, Said};
use crate::place::HostFacts;
use crate::testing::openmetrics::Scrape;

fn shop() -> ProjectName {
    ProjectName::new("shop").expect("valid")
}

fn web() -> ServiceName {
    ServiceName::new("web").expect("valid")
}

fn host(name: &str) -> HostName {
    HostName::new(name).expect("valid")
}

fn requests() -> HttpStats {
    let mut by_duration = [0; DURATION_CLASSES.len() + 1];
    (by_duration[0], by_duration[3], by_duration[13]) = (3, 2, 1);
    let (by_class, by_refusal) = ([0, 4, 0, 0, 2], [1, 0, 0, 1, 0, 0, 0, 0]);
    HttpStats {
        by_class,
        by_refusal,
        by_duration,
        micros: 12_345_678,
        sent: 100,
        received: 2000,
        ..HttpStats::default()
    }
}

fn endpoint(container: &str, at: &str) -> EndpointStats {
    EndpointStats {
        project: shop(),
        pod: PodId::new(web(), 1),
        container: container.to_owned(),
        remote: at != "a",
        host: host(at),
        open: 2,
        connected: 10,
        failed: 1,
        avoided: false,
        away: false,
        ejected: false,
        sent: 7,
        received: 8,
        http: requests(),
        troubles: Vec::new(),
    }
}

fn host_status(name: &str, state: HostState) -> HostStatus {
    HostStatus {
        name: host(name),
        ssh: String::new(),
        address: None,
        labels: std::collections::BTreeMap::new(),
        draining: false,
        state,
        problems: Vec::new(),
        engine: String::new(),
        facts: HostFacts::default(),
        load: 0,
        skew_ms: 0,
        pods: 0,
    }
}

fn snapshot() -> Snapshot {
    let route = RouteStats {
        project: shop(),
        service: web(),
        number: 0,
        // What a file may say as a path.
        name: "shop.example.com/\"a\\b\"/*".to_owned(),
        listen: vec![80],
        target: Some(80),
        http: requests(),
    };
    let ambassador = AmbassadorStats {
        key: AmbassadorKey { project: shop(), pod: PodId::new(web(), 1), name: "redis".to_owned() },
        listens: true,
        address: None,
        open: 1,
        connections: 5,
        failed: 2,
        targets: vec![AmbassadorTargetStats {
            target: "redis:6379".to_owned(),
            connections: 3,
            failed: 2,
            sent: 7,
            received: 8,
            is_open_circuit: true,
            endpoints: Some(1),
            last_error: None,
        }],
    };
    Snapshot {
        agent: AgentFacts {
            version: "1.2.3".to_owned(),
            build: "abc".to_owned(),
            engine: "29.0".to_owned(),
            started: 1_700_000_000,
            memory: 30_000_000,
            store: 4096,
            names_version: 17,
        },
        cluster: ClusterStatus {
            cluster: Some("id".to_owned()),
            host: host("a"),
            seat: host("a"),
            epoch: 0,
            hosts: vec![host_status("a", HostState::Ready), host_status("b", HostState::Down)],
        },
        projects: vec![ProjectFacts {
            name: shop(),
            passes: 12,
            steps_done: 4,
            steps_failed: 1,
            is_settled: true,
            pods: vec![(web(), true), (web(), false), (ServiceName::new("db").expect("valid"), false)],
        }],
        dns: DnsStats { answers: vec![(Origin::Table, Said::Found, 9), (Origin::Cache, Said::NoName, 1)], ignored: 3 },
        balancer: BalancerStats {
            table_version: 17,
            open: 3,
            accepted: 20,
            refused: 1,
            denied: 0,
            datagrams: DatagramStats { sessions: 1, questions: 2, answers: 3, ..DatagramStats::default() },
            malformed: 1,
            crowded: 3,
            unlogged: 2,
            published: Vec::new(),
            leaving: Vec::new(),
            // While a pod is made anew, two containers of it may serve.
            endpoints: vec![endpoint("one", "a"), endpoint("two", "a"), endpoint("three", "b")],
            services: vec![ServiceStats { project: shop(), service: web(), http: requests() }],
            routes: vec![route],
        },
        ambassadors: vec![ambassador],
    }
}

fn scrape() -> Scrape {
    let text = text(&snapshot(), MetricsForm::OpenMetrics).expect("written");
    Scrape::read(&text).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
}

#[test]
fn a_strict_reader_finds_all_metrics_with_their_labels() {
    let scrape = scrape();
    for family in TABLE {
        let full = family.full_name();
        let name = full.trim_end_matches("_total").trim_end_matches("_info");
        let told = scrape.families.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(!told.samples.is_empty(), "the snapshot of this test has nothing for {name}");
        for sample in &told.samples {
            let mut labels: Vec<&str> =
                sample.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
            let mut expected = [family.labels, &["host"]].concat();
            labels.sort_unstable();
            expected.sort_unstable();
            assert_eq!(labels, expected, "{name}");
            assert_eq!(sample.labels["host"], "a", "{name}");
        }
    }
    assert_eq!(scrape.families.len(), TABLE.len());
}

#[test]
fn values_are_those_that_were_counted() {
    let scrape = scrape();
    for (name, labels, value) in [
        ("orch_build_info", vec![("version", "1.2.3"), ("engine", "29.0")], 1.0),
        ("orch_start_time_seconds", vec![], 1.7e9),
        ("orch_table_version", vec![("table", "lb")], 17.0),
        ("orch_seat", vec![], 1.0),
        ("orch_hosts", vec![("state", "down")], 1.0),
        ("orch_host_up", vec![("peer", "b")], 0.0),
        ("orch_steps_total", vec![("project", "shop"), ("outcome", "failed")], 1.0),
        ("orch_pods", vec![("service", "web"), ("state", "ready")], 1.0),
        ("orch_pods", vec![("service", "web"), ("state", "not_ready")], 1.0),
        ("orch_pods", vec![("service", "db"), ("state", "ready")], 0.0),
        ("orch_dns_answers_total", vec![("source", "table"), ("answer", "found")], 9.0),
        ("orch_datagrams_total", vec![("direction", "answer")], 3.0),
        ("orch_service_requests_total", vec![("service", "web"), ("code", "5xx")], 2.0),
        ("orch_service_refusals_total", vec![("reason", "late")], 1.0),
        ("orch_service_endpoints", vec![("service", "web")], 3.0),
        ("orch_service_answer_bytes_total", vec![], 2000.0),
        ("orch_service_request_duration_seconds_count", vec![], 6.0),
        ("orch_service_request_duration_seconds_sum", vec![], 12.345_678),
        ("orch_service_request_duration_seconds_bucket", vec![("le", "0.0005")], 3.0),
        ("orch_service_request_duration_seconds_bucket", vec![("le", "10.0")], 5.0),
        ("orch_route_requests_total", vec![("route", "shop.example.com/\"a\\b\"/*"), ("code", "2xx")], 4.0),
        // The two containers of one pod are one.
        ("orch_endpoint_connections_total", vec![("pod", "web.1"), ("pod_host", "a")], 20.0),
        ("orch_endpoint_connections_total", vec![("pod", "web.1"), ("pod_host", "b")], 10.0),
        ("orch_ambassador_target_failures_total", vec![("ambassador", "redis"), ("target", "redis:6379")], 2.0),
    ] {
        let told = scrape.sum(name, &labels);
        assert!(told.is_some_and(|told| (told - value).abs() < 1e-9), "{name}{labels:?}: {told:?} for {value}");
    }
}

#[test]
fn who_does_not_ask_for_open_metrics_gets_the_older_text() {
    let text = text(&snapshot(), MetricsForm::accepted("text/plain")).expect("written");
    assert!(text.contains("# TYPE orch_service_requests_total counter\n"), "{text}");
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    assert_eq!(MetricsForm::accepted(accept), MetricsForm::OpenMetrics);
}

#[test]
fn the_page_lists_what_there_is() {
    let mut table = "| metric | type | labels | what |\n|---|---|---|---|\n".to_owned();
    for family in TABLE {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        };
        let unit = match family.unit {
            Measure::None => "",
            Measure::Bytes => ", bytes",
            Measure::Seconds => ", seconds",
        };
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
        writeln!(table, "| `{}` | {kind}{unit} | {labels} | {} |", family.full_name(), family.help).expect("text");
    }
    let page = include_str!("../../../docs/metrics.md");
    assert!(page.contains(&table), "docs/metrics.md is to have this table:\n{table}");
}
