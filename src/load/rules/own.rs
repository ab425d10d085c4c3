//! The rows of orch's own keys, which all start with `x-`. See `docs/patterns.md`, which has a section for each.
//!
//! Containers beside the main one of a pod (`x-init`, `x-sidecars`, and `x-ambassadors` that are an image) take what a
//! service takes: their rows are made of the service's own, but for what the pod has as a whole, which is refused there.

use crate::diag::did_you_mean;

use super::super::long;
use super::super::merge::Merge;
use super::super::path::Path;
use super::table::PORT;
use super::{Rule, Rules, Shape, Unapplied, row};

use Shape::{
    Any, BoolOrList, BoolOrMap, Bytes, Duration, Int, List, Map, Open, Percent, Scalar, Text, TextOrNumber, Word,
    WordOrMap,
};

/// Where each key belongs: a mapping of this section (of none: the file itself), as a message says it.
#[rustfmt::skip]
const PLACES: &[(&str, &[&str], &str)] = &[
    ("", &["x-hosts"], "at the top level"),
    ("services",
        &["x-ambassadors", "x-balance", "x-export", "x-init", "x-patterns", "x-probe", "x-route", "x-sidecars"],
        "in a service"),
    ("volumes", &["x-pod"], "in a volume of the top level"),
];

const SIDECARS: &str = "docs/patterns.md#x-sidecars";
const INIT: &str = "docs/patterns.md#x-init";
const AMBASSADORS: &str = "docs/patterns.md#x-ambassadors";
const EXPORT: &str = "docs/patterns.md#x-export";
const ROUTE: &str = "docs/patterns.md#x-route";
const BALANCE: &str = "docs/patterns.md#x-balance";
const PROBE: &str = "docs/patterns.md#x-probe";
const PATTERNS: &str = "docs/patterns.md#x-patterns";
const POD: &str = "docs/patterns.md#x-pod";

const COUNT: Shape = Int(1, 1_000);

#[rustfmt::skip]
static OWN: &[Rule] = &[
    row("services.*.x-init", Open, INIT).or_null(),
    row("services.*.x-init.*", Map, INIT),
    row("services.*.x-sidecars", Open, SIDECARS).or_null(),
    row("services.*.x-sidecars.*", Map, SIDECARS),
    row("services.*.x-ambassadors", Open, AMBASSADORS).or_null(),
    row("services.*.x-ambassadors.*", Map, AMBASSADORS).long(long::AMBASSADOR)
        .expected("a target such as `redis:6379`, a list of them, or a mapping with `listen` and `to`"),
    row("services.*.x-ambassadors.*.listen", TextOrNumber, AMBASSADORS),
    row("services.*.x-ambassadors.*.to", List, AMBASSADORS).long(long::ONE_OR_MORE).merge(Merge::Replace)
        .expected("a target such as `redis:6379` or a list of them"),
    row("services.*.x-ambassadors.*.to.[]", Text, AMBASSADORS).expected("a target such as `redis:6379`"),
    row("services.*.x-ambassadors.*.tls", BoolOrMap, AMBASSADORS)
        .expected("`true`, `false` or a mapping with `server_name`, `ca`, `cert` and `key`"),
    row("services.*.x-ambassadors.*.tls.server_name", Text, AMBASSADORS),
    row("services.*.x-ambassadors.*.tls.ca", Text, AMBASSADORS),
    row("services.*.x-ambassadors.*.tls.cert", Text, AMBASSADORS),
    row("services.*.x-ambassadors.*.tls.key", Text, AMBASSADORS),
    row("services.*.x-ambassadors.*.timeout", Duration, AMBASSADORS),
    row("services.*.x-ambassadors.*.retries", Int(0, 100), AMBASSADORS),
    row("services.*.x-ambassadors.*.breaker", BoolOrMap, AMBASSADORS)
        .expected("`true`, `false` or a mapping with `failures` and `pause`"),
    row("services.*.x-ambassadors.*.breaker.failures", COUNT, AMBASSADORS),
    row("services.*.x-ambassadors.*.breaker.pause", Duration, AMBASSADORS),

    row("services.*.x-export", BoolOrList, EXPORT).long(long::PORTS).merge(Merge::Distinct)
        .expected("`true`, `false`, a port or a list of ports"),
    row("services.*.x-export.[]", PORT, EXPORT).expected("a port"),

    row("services.*.x-route", List, ROUTE).long(long::ONE_OR_MORE_OF_ANY).or_null()
        .expected("a host such as `app.example.com`, a mapping, or a list of them"),
    row("services.*.x-route.[]", Map, ROUTE).long(long::ROUTE)
        .expected("a host such as `app.example.com`, or a mapping"),
    row("services.*.x-route.[].host", List, ROUTE).long(long::ONE_OR_MORE).expected("a host or a list of them"),
    row("services.*.x-route.[].host.[]", Text, ROUTE),
    row("services.*.x-route.[].path", Map, ROUTE).long(long::PATH)
        .expected("a path, or a mapping with `exact` or `prefix`"),
    row("services.*.x-route.[].path.exact", Text, ROUTE),
    row("services.*.x-route.[].path.prefix", Text, ROUTE),
    row("services.*.x-route.[].method", List, ROUTE).long(long::ONE_OR_MORE).expected("a method or a list of them"),
    row("services.*.x-route.[].method.[]", Text, ROUTE),
    row("services.*.x-route.[].headers", Open, ROUTE).long(long::LABELS)
        .expected("a mapping of header fields to their values"),
    row("services.*.x-route.[].headers.*", Scalar, ROUTE),
    row("services.*.x-route.[].port", PORT, ROUTE),
    row("services.*.x-route.[].app_protocol", Word(&["http", "h2c", "grpc", "ws"], &[]), ROUTE),
    row("services.*.x-route.[].weight", Int(0, 1_000_000), ROUTE),
    row("services.*.x-route.[].timeout", Duration, ROUTE),
    row("services.*.x-route.[].rewrite", Map, ROUTE).long(long::REWRITE)
        .expected("a path, or a mapping with `path` or `prefix`, and `host`"),
    row("services.*.x-route.[].rewrite.path", Text, ROUTE),
    row("services.*.x-route.[].rewrite.prefix", Text, ROUTE),
    row("services.*.x-route.[].rewrite.host", Text, ROUTE),
    row("services.*.x-route.[].redirect", Map, ROUTE).long(long::REDIRECT)
        .expected("an address such as `https://example.com`, a path, or a mapping"),
    row("services.*.x-route.[].redirect.scheme", Word(&["http", "https"], &[]), ROUTE),
    row("services.*.x-route.[].redirect.host", Text, ROUTE),
    row("services.*.x-route.[].redirect.port", PORT, ROUTE),
    row("services.*.x-route.[].redirect.path", Text, ROUTE),
    row("services.*.x-route.[].redirect.prefix", Text, ROUTE),
    row("services.*.x-route.[].redirect.status", Int(301, 308), ROUTE),
    row("services.*.x-route.[].tls", Map, ROUTE).long(long::TLS)
        .expected("the name of a secret with chain and key, or a mapping with `cert` and `key`"),
    row("services.*.x-route.[].tls.cert", Text, ROUTE),
    row("services.*.x-route.[].tls.key", Text, ROUTE),
    row("services.*.x-route.[].listen", List, ROUTE).long(long::ONE_OR_MORE_OF_ANY)
        .expected("a port, text such as `127.0.0.1:8080`, or a list of them"),
    row("services.*.x-route.[].listen.[]", TextOrNumber, ROUTE)
        .expected("a port, or text such as `127.0.0.1:8080`"),
    row("services.*.x-route.[].http", Word(&["redirect", "serve", "off"], &[]), ROUTE),

    row("services.*.x-balance", Map, BALANCE).long(long::BALANCE)
        .expected("the name of an algorithm such as `round-robin`, or a mapping"),
    row("services.*.x-balance.by", WordOrMap(&["least-connections", "round-robin", "power-of-two", "source"]), BALANCE)
        .merge(Merge::Replace),
    row("services.*.x-balance.by.header", Text, BALANCE),
    row("services.*.x-balance.by.cookie", Text, BALANCE),
    row("services.*.x-balance.sticky", Map, BALANCE).long(long::STICKY)
        .expected("the name of a cookie, or a mapping with `cookie` and `ttl`"),
    row("services.*.x-balance.sticky.cookie", Text, BALANCE),
    row("services.*.x-balance.sticky.ttl", Duration, BALANCE),
    row("services.*.x-balance.eject", BoolOrMap, BALANCE)
        .expected("`true`, `false` or a mapping with `failures`, `pause` and `at_most`"),
    row("services.*.x-balance.eject.failures", COUNT, BALANCE),
    row("services.*.x-balance.eject.pause", Duration, BALANCE),
    row("services.*.x-balance.eject.at_most", Percent, BALANCE),
    row("services.*.x-balance.weights", Open, BALANCE).expected("a mapping of hosts to shares"),
    row("services.*.x-balance.weights.*", Int(0, 1_000_000), BALANCE),

    row("services.*.x-probe", Map, PROBE).long(long::PROBE)
        .expected("a path such as `/healthz`, a port, or a mapping with `http` or `tcp`"),
    row("services.*.x-probe.http", Text, PROBE),
    row("services.*.x-probe.tcp", PORT, PROBE),
    row("services.*.x-probe.port", PORT, PROBE),
    row("services.*.x-probe.host", Text, PROBE),
    row("services.*.x-probe.interval", Duration, PROBE),
    row("services.*.x-probe.timeout", Duration, PROBE),
    row("services.*.x-probe.failures", COUNT, PROBE),
    row("services.*.x-probe.successes", COUNT, PROBE),

    row("services.*.x-patterns", List, PATTERNS).long(long::ONE_OR_MORE_OF_ANY).or_null()
        .expected("the name of a pattern, a mapping with `use`, or a list of them"),
    row("services.*.x-patterns.[]", Map, PATTERNS).long(long::PATTERN)
        .expected("the name of a pattern, or a mapping with `use`"),
    row("services.*.x-patterns.[].use", Text, PATTERNS),
    row("services.*.x-patterns.[].with", Open, PATTERNS).expected("a mapping of parameters to values").or_null(),
    row("services.*.x-patterns.[].with.*", Any, PATTERNS),

    row("volumes.*.x-pod", BoolOrMap, POD).expected("`true`, `false` or a mapping with `size` and `medium`"),
    row("volumes.*.x-pod.size", Bytes, POD),
    row("volumes.*.x-pod.medium", Word(&["disk", "memory"], &[]), POD),
];

/// What a pod has as a whole: keys of a service, and what to do instead. The rest of a service may be said of each of its
/// containers.
#[rustfmt::skip]
static OF_THE_POD: &[(&[&str], &str)] = &[
    (&["networks", "network_mode", "mac_address"], "the containers of a pod share its network: say it of the service"),
    (&["ports"], "the containers of a pod share its ports: publish it with `ports` of the service"),
    (&["links", "external_links", "extra_hosts", "dns", "dns_opt", "dns_search"],
        "the containers of a pod know the same names: say it of the service"),
    (&["hostname", "domainname"], "the containers of a pod have one name: say it of the service"),
    (&["depends_on"], "the pod waits as a whole: say it of the service"),
    (&["pre_start"], "it is run before the pod starts: say it of the service, or put it into `x-init`"),
    (&["scale"], "there is one in each pod: `scale` of the service says how many pods there are"),
    (&["container_name"], "it is named after the service and its own key"),
    (&["profiles"], "it is there with its service: give the service the profile"),
    (&["x-init", "x-sidecars", "x-ambassadors"], "put it beside this one, in the service"),
    (&["ipc", "shm_size"], "the containers of a pod share memory: say it of the service"),
    (&["restart"], "init containers are tried again until they end with 0, all others are there as long as their pod"),
    (&["x-route", "x-export", "x-balance"], "the pod is served as a whole: say it of the service"),
    (&["x-patterns"], "patterns are used by services"),
    (&["extends"], "services extend each other: let the service extend one that has this container"),
    (&["provider"], "the containers of a pod are containers: give the provider a service of its own"),
    (&["develop"], "the service is developed as a whole: say it of the service"),
    (&["deploy.mode", "deploy.replicas", "deploy.placement", "deploy.endpoint_mode", "deploy.labels",
       "deploy.restart_policy", "deploy.rollback_config", "deploy.update_config"],
        "the pod is deployed as a whole: say it of the service; a container has `deploy.resources` only"),
];

/// Images are built for services.
const BUILT_ELSEWHERE: Unapplied = Unapplied {
    harmless: &[],
    instead: "let a service build the image, and name it here with `image`",
    is_refused: true,
};

const NOT_OF_INIT: (&[&str], &str) =
    (&["healthcheck", "x-probe"], "an init container is done when it has ended with 0");

/// Returns the rows; those of containers beside the main one are made of the service's in `specification`.
pub(super) fn rows(specification: &Rules) -> Vec<Rule> {
    let mut rows = OWN.to_vec();
    let service = specification.keys.get("services").and_then(|services| services.keys.get("*"));
    let of_services = service.map(Rules::rows).unwrap_or_default();
    for (group, spec) in [("x-init", INIT), ("x-sidecars", SIDECARS), ("x-ambassadors", AMBASSADORS)] {
        let more = (group == "x-init").then_some(&NOT_OF_INIT);
        let refused = OF_THE_POD.iter().chain(more);
        let refused: Vec<(&str, &str)> =
            refused.flat_map(|(keys, instead)| keys.iter().map(move |key| (*key, *instead))).collect();
        let probe = OWN.iter().filter(|rule| rule.path.starts_with("services.*.x-probe"));
        let path = |key: &str| -> &'static str { format!("services.*.{group}.*.{key}").leak() };
        for rule in of_services.iter().chain(probe) {
            let Some(key) = rule.path.strip_prefix("services.*.") else { continue };
            let is_refused = refused
                .iter()
                .any(|(no, _)| key.strip_prefix(no).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
            if !is_refused {
                let unapplied = if key == "build" { Some(BUILT_ELSEWHERE) } else { rule.unapplied };
                rows.push(Rule { path: path(key), unapplied, ..*rule });
            }
        }
        rows.extend(refused.into_iter().map(|(key, instead)| row(path(key), Shape::Elsewhere(instead), spec)));
    }
    rows
}

/// Returns where a key of orch's own belongs that is written in the mapping at `path`, if it is one and not there.
pub(in crate::load) fn misplaced(key: &str, path: &Path<'_>) -> Option<&'static str> {
    let (section, _, place) = PLACES.iter().find(|(_, keys, _)| keys.contains(&key))?;
    let right = match path {
        Path::Root => section.is_empty(),
        Path::Key(Path::Key(Path::Root, parent), _) => parent == section,
        _ => false,
    };
    (!right).then_some(*place)
}

/// Returns the key of orch's own that was perhaps meant by another one; `key` starts with `x-`.
pub(in crate::load) fn near(key: &str) -> Option<&'static str> {
    let known = || PLACES.iter().flat_map(|(_, keys, _)| keys.iter().copied());
    did_you_mean(key, known()).filter(|_| known().all(|known| known != key))
}
