//! Why requests and connections do not reach a service, as this host's load balancer and the kernel see it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::api::types::{Finding, Weight};
use crate::graph::Protocol;
use crate::host::listening;
use crate::ids::{PodId, ServiceName};
use crate::lb::http::{HttpStats, REFUSALS};
use crate::lb::{EndpointStats, Trouble, TroubleStats};
use crate::model::{AppProtocol, RouteAction};
use crate::place::Listening;

use super::seeing::{Seen, finding, problem, waiting};
use super::words;

/// Pods that are looked into for one question.
const LOOKED_INTO: usize = 64;

/// What went wrong longer ago is told no more.
const LATELY_SECS: u64 = 600;

impl Seen<'_> {
    /// Looks where the ready pods of this host listen, and what others wrote last. A pod that ends meanwhile is left out.
    pub(super) async fn look_inside(&mut self) {
        let Some(here) = self.observed.hosts.get(self.shared.host()) else { return };
        self.words = words::last(self.shared.engine.as_ref(), here.containers.values()).await;
        self.look_for_taken_ports().await;
        let Some(here) = self.observed.hosts.get(self.shared.host()) else { return };
        let ready = here.containers.values().filter(|container| container.is_ready());
        let pods: Vec<(PodId, String)> =
            ready.filter_map(|container| Some((container.pod()?, container.id.clone()))).take(LOOKED_INTO).collect();
        for (pod, container) in pods {
            let Ok(Some(pid)) = self.shared.engine.container_pid(&container).await else { continue };
            if let Ok(found) = listening::inside(pid) {
                self.inside.insert(pod, found);
            }
        }
    }

    /// Says what keeps requests and connections from a service.
    pub(super) fn reached(&self, front: &ServiceName) -> Vec<Finding> {
        let mut findings = Vec::new();
        let ports = self.served_ports(front);
        for (pod, found) in self.inside.range(PodId::all_of(front)) {
            findings.extend(ports.iter().filter_map(|port| deaf(pod, *port, found)));
        }
        let project = &self.desired.graph.project;
        let stats = self.shared.dataplane.balancer_stats();
        let endpoints = stats.endpoints.iter().filter(|one| one.project == *project && one.pod.service == *front);
        for endpoint in endpoints {
            for trouble in endpoint.troubles.iter().filter(|one| one.last_secs <= LATELY_SECS) {
                let is_explained = findings.iter().any(|one| one.text.contains(&format!("`{}`", endpoint.pod)));
                findings.push(told(endpoint, trouble, self.speaks(front, trouble.port), is_explained));
            }
            findings.extend(own_errors(endpoint));
        }
        let services = stats.services.iter().filter(|one| one.project == *project && one.service == *front);
        findings.extend(services.flat_map(|service| refusals(front, &service.http)));
        findings
    }

    /// Returns what a port of its pods is said to speak; `None`: it is not balanced by request.
    fn speaks(&self, front: &ServiceName, port: u16) -> Option<AppProtocol> {
        let serving = &self.desired.graph.services.get(front)?.serving;
        let routed = || serving.routes.iter().any(|route| route.port == port).then_some(AppProtocol::Http);
        serving.http.get(&port).copied().or_else(routed)
    }

    /// The ports of its pods that requests and connections from outside go to, and those that are balanced by request.
    fn served_ports(&self, front: &ServiceName) -> BTreeSet<u16> {
        let published = self.desired.addresses.ports.iter();
        let published =
            published.filter(|port| port.service == *front && port.protocol == Protocol::Tcp).map(|port| port.target);
        let mut ports: BTreeSet<u16> = published.collect();
        if let Some(service) = self.desired.graph.services.get(front) {
            ports.extend(service.serving.http.keys());
            let forwards = |action: &RouteAction| matches!(action, RouteAction::Forward { .. });
            ports.extend(service.serving.routes.iter().filter(|one| forwards(&one.action)).map(|one| one.port));
        }
        ports
    }
}

/// Says that nobody listens at a port of a pod where others would reach it.
fn deaf(pod: &PodId, port: u16, found: &BTreeSet<Listening>) -> Option<Finding> {
    let at: Vec<Option<IpAddr>> = found.iter().filter(|one| one.port == port).map(|one| one.address).collect();
    if at.iter().any(|address| address.is_none_or(|address| !address.is_loopback())) {
        return None;
    }
    if let Some(Some(address)) = at.first() {
        let text = format!("`{pod}` listens at {address}:{port}, where nothing outside of it gets to");
        let hint = Some("let its program listen at 0.0.0.0, or `::`".to_owned());
        return Some(Finding { weight: Weight::Problem, text, hint });
    }
    // Docker's own resolver listens in each container of a network.
    let is_own = |one: &&Listening| one.address != Some(IpAddr::from([127, 0, 0, 11]));
    let others: BTreeSet<u16> = found.iter().filter(is_own).map(|one| one.port).collect();
    let others = others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let hint = match others.as_str() {
        "" => "does its program still start, or is it another one?".to_owned(),
        others => format!("somebody listens there at {others}"),
    };
    Some(Finding {
        weight: Weight::Problem,
        text: format!("nobody listens at port {port} of `{pod}`"),
        hint: Some(hint),
    })
}

/// Says what went wrong with a pod.
fn told(endpoint: &EndpointStats, trouble: &TroubleStats, speaks: Option<AppProtocol>, is_explained: bool) -> Finding {
    let TroubleStats { port, what, count, first_secs, last_secs } = trouble;
    let (pod, host) = (&endpoint.pod, &endpoint.host);
    let times = if *count == 1 { "once".to_owned() } else { format!("{count} times since {first_secs} s ago") };
    let last = format!("{times}, the last time {last_secs} s ago");
    let (text, hint) = match what {
        Trouble::Refused => {
            let hint = format!("does its program listen at port {port}, and at 0.0.0.0 rather than at 127.0.0.1?");
            (format!("port {port} of `{pod}` refused connections {last}"), Some(hint).filter(|_| !is_explained))
        }
        Trouble::Silent => (
            format!("port {port} of `{pod}` gave no answer to connections {last}"),
            Some("is its program stopped, or has it a firewall of its own?".to_owned()),
        ),
        Trouble::Unreachable => (format!("port {port} of `{pod}` could not be connected to {last}"), None),
        Trouble::Host => (
            format!("the agent of host `{host}` made no connection to port {port} of `{pod}` {last}"),
            Some("`orch status` says how that host is".to_owned()),
        ),
        Trouble::LargeHead => (
            format!("`{pod}` answered at port {port} with a head of more than 64 KiB or 100 fields {last} (502)"),
            Some("fewer or shorter header fields get through, cookies among them; no setting raises the limit".to_owned()),
        ),
        Trouble::UnclearHead => (
            format!("`{pod}` answered at port {port} with a head that contradicts itself {last} (502)"),
            Some(
                "such as two different `Content-Length`, a `Transfer-Encoding` other than `chunked`, or another protocol that \
                 nobody asked for: does its program set these fields itself?"
                    .to_owned(),
            ),
        ),
        Trouble::NoHttp => (
            format!("`{pod}` answered at port {port} with what is no HTTP/1.1 {last} (502)"),
            Some(format!(
                "does its program speak something else there? where it speaks HTTP/2 only, `app_protocol: h2c` (or `grpc`) at \
                 port {port} says so; `orch logs {}`",
                pod.service
            )),
        ),
        Trouble::Broken => (
            format!("`{pod}` took requests at port {port} and ended the connection before a whole answer {last} (502)"),
            Some(match speaks {
                Some(protocol) if protocol.is_http2() => format!(
                    "does its program crash, or speak HTTP/1.1 there? it is asked in HTTP/2, because the port's `app_protocol` \
                     says so; `orch logs {}`",
                    pod.service
                ),
                _ => format!(
                    "does its program crash, or speak something other than HTTP/1.1 there? where it speaks HTTP/2 only, \
                     `app_protocol: h2c` (or `grpc`) at port {port} says so; `orch logs {}`",
                    pod.service
                ),
            }),
        ),
        Trouble::Late => (
            format!("`{pod}` took requests at port {port} and did not answer them in time {last} (504)"),
            Some("`timeout` of the rule in `x-route` gives it more time".to_owned()),
        ),
        Trouble::DatagramsRefused => (
            format!("port {port}/udp of `{pod}` refused datagrams {last}"),
            Some(format!("does its program listen at UDP port {port}, and at 0.0.0.0?")),
        ),
    };
    Finding { weight: Weight::Problem, text, hint }
}

/// Says how many requests a pod answered with an error of its own, where that is a notable part.
fn own_errors(endpoint: &EndpointStats) -> Option<Finding> {
    let EndpointStats { pod, http, .. } = endpoint;
    // What the load balancer said in its stead is told otherwise.
    let refused: u64 = http.by_refusal.iter().sum();
    let errors = http.by_class[4].saturating_sub(refused);
    let all = http.by_class.iter().sum::<u64>().saturating_sub(refused);
    (errors > 0 && errors * 20 >= all).then(|| {
        let text = format!("`{pod}` itself answered {errors} of {all} requests with 5xx since it is ready");
        let hint = Some(format!("`orch logs {}` may show why", pod.service));
        Finding { weight: Weight::Waiting, text, hint }
    })
}

/// Says which requests got an answer of the load balancer's own.
fn refusals(front: &ServiceName, http: &HttpStats) -> Vec<Finding> {
    const WORDS: [&str; REFUSALS.len()] = [
        "503 because no pod was ready",
        "502 because no pod took them",
        "502 because a pod broke off",
        "504 because a pod took too long",
        "503 because this host had no sockets left",
        "502 because the head of a pod's answer was larger than 64 KiB or 100 fields",
        "502 because the head of a pod's answer contradicted itself",
        "502 because a pod's answer was no HTTP",
    ];
    let Some(last) = http.refused_secs.filter(|last| *last <= LATELY_SECS) else { return Vec::new() };
    let all: u64 = http.by_class.iter().sum();
    let some: Vec<String> = WORDS
        .iter()
        .zip(http.by_refusal)
        .filter(|(_, count)| *count > 0)
        .map(|(words, count)| format!("{count} with {words}"))
        .collect();
    let text = format!(
        "of {all} requests for `{front}` that came to this host it answered {}; the last one {last} s ago",
        some.join(", ")
    );
    vec![if last < 30 { problem(text) } else { waiting(text) }]
}

/// Says which pods are behind an address.
pub(super) fn pods_told<'a>(pods: impl Iterator<Item = &'a (PodId, crate::ids::HostName)>) -> Option<Finding> {
    let names: Vec<String> = pods.map(|(pod, host)| format!("`{pod}` on `{host}`")).collect();
    (!names.is_empty()).then(|| finding(Weight::Fine, format!("one of these answers it: {}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> PodId {
        PodId::new(ServiceName::new("web").expect("valid"), 1)
    }

    fn listening(text: &[&str]) -> BTreeSet<Listening> {
        let one = |text: &&str| {
            let (address, port) = text.rsplit_once(':').expect("both");
            let address = (!address.is_empty()).then(|| address.parse().expect("an address"));
            Listening { address, port: port.parse().expect("a port"), protocol: Protocol::Tcp }
        };
        text.iter().map(one).collect()
    }

    #[test]
    fn who_listens_for_himself_or_elsewhere_is_told() {
        let told =
            |found: &[&str]| deaf(&web(), 80, &listening(found)).map(|one| (one.text, one.hint.unwrap_or_default()));
        for reached in [&["0.0.0.0:80"][..], &[":80"], &["10.0.0.3:80"], &["127.0.0.1:80", "10.0.0.3:80"]] {
            assert_eq!(told(reached), None, "{reached:?}");
        }
        let (text, hint) = told(&["127.0.0.1:80"]).expect("told");
        assert!(text.contains("listens at 127.0.0.1:80") && hint.contains("0.0.0.0"), "{text} {hint}");
        let (text, hint) = told(&["0.0.0.0:8080", "0.0.0.0:9000", "127.0.0.11:40000"]).expect("told");
        assert!(text.contains("nobody listens at port 80") && hint.ends_with("8080, 9000"), "{text} {hint}");
    }

    fn endpoint(http: HttpStats) -> EndpointStats {
        EndpointStats {
            project: crate::ids::ProjectName::new("shop").expect("valid"),
            pod: web(),
            container: "f00".to_owned(),
            remote: false,
            host: crate::ids::HostName::local(),
            open: 0,
            connected: 0,
            failed: 0,
            avoided: false,
            away: false,
            ejected: false,
            sent: 0,
            received: 0,
            http,
            troubles: Vec::new(),
        }
    }

    #[test]
    fn only_what_a_pod_itself_answered_is_laid_at_its_door() {
        let told = |by_class, by_refusal| {
            own_errors(&endpoint(HttpStats { by_class, by_refusal, ..HttpStats::default() })).map(|one| one.text)
        };
        assert_eq!(told([0, 1, 0, 0, 8], [0, 2, 2, 1, 0, 1, 1, 1]), None);
        let text = "`web.1` itself answered 2 of 5 requests with 5xx since it is ready";
        assert_eq!(told([0, 3, 0, 0, 5], [0, 0, 1, 2, 0, 0, 0, 0]).as_deref(), Some(text));
    }

    #[test]
    fn who_speaks_another_http_is_told_how_to_say_so() {
        let trouble = TroubleStats { port: 80, what: Trouble::Broken, count: 1, first_secs: 3, last_secs: 3 };
        let hint = |speaks| told(&endpoint(HttpStats::default()), &trouble, speaks, false).hint.unwrap_or_default();
        assert!(hint(Some(AppProtocol::Http)).contains("`app_protocol: h2c` (or `grpc`) at port 80"));
        assert!(hint(Some(AppProtocol::Grpc)).contains("speak HTTP/1.1 there?"));
    }

    #[test]
    fn what_is_wrong_with_the_head_of_an_answer_is_told_as_that() {
        let told = |what| {
            let trouble = TroubleStats { port: 80, what, count: 2, first_secs: 3, last_secs: 1 };
            let Finding { text, hint, .. } = told(&endpoint(HttpStats::default()), &trouble, None, false);
            assert!(!text.contains("ended the connection"), "{text}");
            (text, hint.unwrap_or_default())
        };
        let (text, hint) = told(Trouble::LargeHead);
        assert_eq!(
            text,
            "`web.1` answered at port 80 with a head of more than 64 KiB or 100 fields 2 times since 3 s ago, the last time \
             1 s ago (502)"
        );
        assert!(hint.contains("cookies"), "{hint}");
        let (text, hint) = told(Trouble::UnclearHead);
        assert!(text.contains("contradicts itself") && hint.contains("`Content-Length`"), "{text} {hint}");
        let (text, hint) = told(Trouble::NoHttp);
        assert!(text.contains("no HTTP/1.1") && hint.contains("`app_protocol: h2c`"), "{text} {hint}");
        let by_refusal = [0, 0, 0, 0, 0, 2, 1, 1];
        let http = HttpStats { by_class: [0, 0, 0, 0, 4], by_refusal, refused_secs: Some(1), ..HttpStats::default() };
        let text = &refusals(&web().service, &http)[0].text;
        assert!(text.contains("2 with 502 because the head of a pod's answer was larger than 64 KiB"), "{text}");
        assert!(text.contains("1 with 502 because the head of a pod's answer contradicted itself"), "{text}");
    }

    #[test]
    fn answers_of_the_balancers_own_are_told_while_they_are_fresh() {
        let http =
            HttpStats { by_class: [0, 8, 0, 0, 4], by_refusal: [1, 3, 0, 0, 0, 0, 0, 0], ..HttpStats::default() };
        let told = |refused_secs| refusals(&web().service, &HttpStats { refused_secs, ..http.clone() });
        assert!(told(None).is_empty() && told(Some(10_000)).is_empty());
        let findings = told(Some(3));
        assert_eq!(
            findings[0].text,
            "of 12 requests for `web` that came to this host it answered 1 with 503 because no pod was ready, 3 with 502 \
             because no pod took them; the last one 3 s ago"
        );
        assert_eq!((findings[0].weight, told(Some(60))[0].weight), (Weight::Problem, Weight::Waiting));
    }
}
