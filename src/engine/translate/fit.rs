//! What of a project an engine cannot take, told before anything is made. Pure.

use crate::graph::{Attachment, Graph, MountSource, Network, NetworkMode, Recursion, Service};
use crate::ids::{ResourceKey, ServiceName};

use super::super::{EngineInfo, EngineKind};
use super::{ApiVersion, mounts};

/// Fewest CPUs that an engine takes for a limit, in billionths. Source: moby, `daemon/daemon_unix.go`.
const LEAST_NANO_CPUS: i64 = 10_000_000;

/// Least memory that Docker takes for a limit or a reservation, in bytes. Source: moby, `daemon/daemon_unix.go`
/// (`linuxMinMemory`), since 20.10.
const LEAST_MEMORY: i64 = 6 << 20;

/// Something of a project that an engine cannot take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Where the file may say it, as paths of the model; the first that is there counts.
    pub paths: Vec<String>,
    /// Whether the container cannot be made; else it is made without that.
    pub fatal: bool,
    /// What it is.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// Returns whether some engine could be unfit for the project, so that it must be asked what it is.
pub fn is_demanding(graph: &Graph) -> bool {
    let demands = |(name, service): (&ServiceName, &Service)| {
        service.container.resources.nano_cpus.is_some_and(|cpus| cpus != 0)
            || memory(name, service).next().is_some()
            || start_interval(service).is_some()
            || !service.container.device_requests.is_empty()
            || !service.container.unset.is_empty()
            || attachments(service).iter().any(|attachment| attachment.mac.is_some() || attachment.interface.is_some())
            || !service.container.host.annotations.is_empty()
            || for_windows(service).next().is_some()
            || read_only_below(service).next().is_some()
            || service.mounted_images().next().is_some()
    };
    graph.services.iter().any(demands) || with_ipv6(graph).next().is_some()
}

/// Returns what an engine cannot take, in the order of the services' names.
pub fn misfits(graph: &Graph, engine: &EngineInfo) -> Vec<Misfit> {
    let api = ApiVersion::parse(&engine.api_version).unwrap_or(ApiVersion::OLDEST);
    let mut found = Vec::new();
    for (key, network) in with_ipv6(graph) {
        found.extend((network.ipv6_pools.is_empty() && !engine.has_ipv6_pool).then(|| no_ipv6_pool(key)));
    }
    for (name, service) in &graph.services {
        found.extend(cpus(name, service, engine.facts.nano_cpus));
        if engine.kind == EngineKind::Docker {
            found.extend(memory(name, service));
        }
        if engine.kind == EngineKind::Podman && !service.container.device_requests.is_empty() {
            found.push(no_requests(name));
        }
        if engine.kind == EngineKind::Podman {
            found.extend(service.container.unset.iter().map(|variable| kept_variable(name, variable)));
        }
        if api < ApiVersion::MANY_NETWORKS {
            found.extend(start_interval(service).map(|()| late_start_interval(name, api)));
            found.extend(macs(name, service, api));
        }
        found.extend(for_windows(service).map(|key| no_windows(name, key)));
        found.extend(newer(name, service, api));
    }
    found
}

/// Networks that the engine is to make with addresses of IPv6.
fn with_ipv6(graph: &Graph) -> impl Iterator<Item = (&ResourceKey, &Network)> {
    graph.networks.iter().filter(|(_, network)| network.enable_ipv6 == Some(true) && !network.external)
}

fn no_ipv6_pool(key: &ResourceKey) -> Misfit {
    Misfit {
        paths: vec![format!("networks.{key}.enable_ipv6"), format!("networks.{key}")],
        fatal: true,
        message: format!("this engine has no subnet of IPv6 for network `{key}`"),
        help: "give it one (`ipam: {config: [{subnet: 'fd12:3456:789a::/64'}]}`), or give the engine `default-address-pools` of \
               IPv6; Docker Engine 27 and later find one by themselves"
            .to_owned(),
    }
}

fn start_interval(service: &Service) -> Option<()> {
    service.container.healthcheck.as_ref()?.start_interval.map(drop)
}

fn attachments(service: &Service) -> &[Attachment] {
    match &service.network {
        NetworkMode::Networks(attachments) => attachments,
        _ => &[],
    }
}

/// What Docker refuses of memory. Podman takes it.
fn memory<'a>(name: &'a ServiceName, service: &'a Service) -> impl Iterator<Item = Misfit> + 'a {
    let resources = &service.container.resources;
    let both = [
        (resources.memory, "limited to", ["mem_limit", "deploy.resources.limits.memory"]),
        (resources.reserved_memory, "promised", ["mem_reservation", "deploy.resources.reservations.memory"]),
    ];
    let paths = move |keys: [&str; 2]| keys.map(|key| format!("services.{name}.{key}")).to_vec();
    let small = both.into_iter().filter_map(move |(bytes, what, keys)| {
        let bytes = bytes.filter(|bytes| (1..LEAST_MEMORY).contains(bytes))?;
        Some(Misfit {
            paths: paths(keys),
            fatal: true,
            message: format!("service `{name}` cannot be {what} {bytes} bytes of memory"),
            help: "the engine takes at least 6m".to_owned(),
        })
    });
    let (limit, reserved) = (resources.memory.unwrap_or_default(), resources.reserved_memory.unwrap_or_default());
    let over = (limit > 0 && reserved > limit).then(|| Misfit {
        paths: paths(["mem_reservation", "deploy.resources.reservations.memory"]),
        fatal: true,
        message: format!("service `{name}` cannot be promised more memory than it is limited to"),
        help: "let the limit be as much as the reservation, or more".to_owned(),
    });
    small.chain(over)
}

/// Docker itself takes less than a hundred thousandth of a CPU for no limit at all, and fails at what is more than that when it
/// starts the container; neither is what the file says. `here`: those of the engine's host; 0 where it does not say.
fn cpus(name: &ServiceName, service: &Service, here: i64) -> Option<Misfit> {
    let wanted = service.container.resources.nano_cpus.filter(|cpus| *cpus != 0)?;
    if wanted >= LEAST_NANO_CPUS && (here == 0 || wanted <= here) {
        return None;
    }
    let count = |nanos: i64| format!("{}.{:02}", nanos / 1_000_000_000, nanos % 1_000_000_000 / 10_000_000);
    let most = if here == 0 { String::new() } else { format!(" and at most {}, which its host has", count(here)) };
    let limit = |key: &str| format!("services.{name}.{key}");
    Some(Misfit {
        paths: vec![limit("cpus"), limit("deploy.resources.limits.cpus")],
        fatal: true,
        message: format!("service `{name}` cannot be limited to {} CPUs here", count(wanted)),
        help: format!("the engine takes at least {}{most}", count(LEAST_NANO_CPUS)),
    })
}

/// Keys that only containers of Windows take: the engine ignores them elsewhere, as Docker Compose lets it.
fn for_windows(service: &Service) -> impl Iterator<Item = &'static str> {
    let host = &service.container.host;
    let keys = [("cpu_count", host.cpu_count), ("cpu_percent", host.cpu_percent)];
    keys.into_iter().filter(|(_, number)| *number != 0).map(|(key, _)| key)
}

fn no_windows(name: &ServiceName, key: &str) -> Misfit {
    Misfit {
        paths: vec![format!("services.{name}.{key}")],
        fatal: false,
        message: format!("`{key}` of service `{name}` has no effect on this engine"),
        help: "it is for containers of Windows; use `cpus`".to_owned(),
    }
}

/// Mounts whose like below them are to be told apart from them.
fn read_only_below(service: &Service) -> impl Iterator<Item = &str> {
    service.container.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Bind { recursion: Recursion::Writable | Recursion::Readonly, .. } => Some(mount.target.as_str()),
        _ => None,
    })
}

/// What came with an engine later than this one, one key each.
fn newer(name: &ServiceName, service: &Service, api: ApiVersion) -> Vec<Misfit> {
    let key = |key: &str| format!("services.{name}.{key}");
    let help = |needs: ApiVersion, engine: &str| {
        format!(
            "that needs API {needs} (Docker Engine {engine}), this one speaks {api}: leave it out, or upgrade the engine"
        )
    };
    let mut found = Vec::new();
    if !service.container.host.annotations.is_empty() && api < ApiVersion::ANNOTATIONS {
        found.push(Misfit {
            paths: vec![key("annotations")],
            fatal: false,
            message: format!("`annotations` of service `{name}` have no effect on this engine"),
            help: help(ApiVersion::ANNOTATIONS, "24"),
        });
    }
    for attachment in attachments(service).iter().filter(|one| one.interface.is_some()) {
        if api < ApiVersion::INTERFACE_NAMES {
            let network = &attachment.network;
            found.push(Misfit {
                paths: vec![key(&format!("networks.{network}.interface_name"))],
                fatal: true,
                message: format!("this engine cannot name the interface of service `{name}` in network `{network}`"),
                help: help(ApiVersion::INTERFACE_NAMES, "28.1"),
            });
        }
    }
    if service.mounted_images().next().is_some() && api < mounts::IMAGES {
        found.push(Misfit {
            paths: vec![key("volumes")],
            fatal: true,
            message: format!("this engine cannot mount the content of an image, as service `{name}` wants it"),
            help: help(mounts::IMAGES, "28"),
        });
    }
    for target in read_only_below(service) {
        if api < mounts::RECURSIVELY_READ_ONLY {
            found.push(Misfit {
                paths: vec![key("volumes")],
                fatal: true,
                message: format!(
                    "this engine cannot tell what is mounted below `{target}` of service `{name}` from it"
                ),
                help: help(mounts::RECURSIVELY_READ_ONLY, "25"),
            });
        }
    }
    found
}

/// Podman takes requests for devices and hands over none. Source: containers/podman, issue 22645.
fn no_requests(name: &ServiceName) -> Misfit {
    let key = |key: &str| format!("services.{name}.{key}");
    Misfit {
        paths: vec![key("gpus"), key("deploy.resources.reservations.devices")],
        fatal: true,
        message: format!("this engine, Podman, cannot hand devices to service `{name}` by a request"),
        help: "name them under `devices` by their paths".to_owned(),
    }
}

/// Source: containers/podman, `pkg/env/env.go`: a name without a value asks for the engine's own.
fn kept_variable(name: &ServiceName, variable: &str) -> Misfit {
    Misfit {
        paths: vec![format!("services.{name}.environment.{variable}"), format!("services.{name}.environment")],
        fatal: false,
        message: format!("this engine, Podman, leaves service `{name}` the `{variable}` that its image has"),
        help: format!("nobody gives it a value: set it, or say `{variable}=`"),
    }
}

fn late_start_interval(name: &ServiceName, api: ApiVersion) -> Misfit {
    Misfit {
        paths: vec![format!("services.{name}.healthcheck.start_interval")],
        fatal: false,
        message: format!("`start_interval` of service `{name}` has no effect on this engine"),
        help: format!(
            "it needs API {} (Docker Engine 25), this one speaks {api}: until the container has started, checks come \
             at the normal `interval`",
            ApiVersion::MANY_NETWORKS
        ),
    }
}

fn macs(name: &ServiceName, service: &Service, api: ApiVersion) -> impl Iterator<Item = Misfit> {
    let fixed = attachments(service).iter().filter(|attachment| attachment.mac.is_some());
    fixed.map(move |attachment| Misfit {
        paths: vec![
            format!("services.{name}.networks.{}.mac_address", attachment.network),
            format!("services.{name}.mac_address"),
        ],
        fatal: true,
        message: format!(
            "this engine cannot give service `{name}` a `mac_address` in network `{}`",
            attachment.network
        ),
        help: format!(
            "that needs API {} (Docker Engine 25), this one speaks {api}: leave it out, or upgrade the engine",
            ApiVersion::MANY_NETWORKS
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::graph::{Healthcheck, Ipv6Pool, Resources};
    use crate::place::HostFacts;
    use crate::testing;

    fn engine(api: &str, cpus: i64) -> EngineInfo {
        let facts = HostFacts { nano_cpus: cpus * 1_000_000_000, ..HostFacts::default() };
        EngineInfo { api_version: api.to_owned(), facts, ..EngineInfo::default() }
    }

    /// A project of one service `web`.
    fn project(change: impl FnOnce(&mut Service)) -> Graph {
        let mut graph = testing::graph("shop", &["web"]);
        graph.services.values_mut().for_each({
            let mut change = Some(change);
            move |service| {
                if let Some(change) = change.take() {
                    change(service);
                }
            }
        });
        graph
    }

    fn show(graph: &Graph, engine: &EngineInfo) -> String {
        let line = |misfit: &Misfit| {
            let kind = if misfit.fatal { "error" } else { "warning" };
            format!("{kind} at {}: {}; {}", misfit.paths.join(" or "), misfit.message, misfit.help)
        };
        misfits(graph, engine).iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_every_engine_takes_asks_for_no_look_at_it() {
        let graph = project(|_| ());
        assert!(!is_demanding(&graph));
        assert_eq!(show(&graph, &engine("1.41", 2)), "");
    }

    #[test]
    fn a_variable_without_a_value_is_not_taken_away_by_podman() {
        let project = project(|web| web.container.unset = std::collections::BTreeSet::from(["LANG".to_owned()]));
        let podman = EngineInfo { kind: EngineKind::Podman, ..engine("1.41", 2) };
        insta::assert_snapshot!(show(&project, &podman), @"warning at services.web.environment.LANG or services.web.environment: this engine, Podman, leaves service `web` the `LANG` that its image has; nobody gives it a value: set it, or say `LANG=`");
        assert!(is_demanding(&project) && show(&project, &engine("1.41", 2)).is_empty());
    }

    #[test]
    fn cpus_are_those_that_the_host_has() {
        let limited = |nano_cpus| {
            project(|web| web.container.resources = Resources { nano_cpus: Some(nano_cpus), ..Resources::default() })
        };
        assert!(is_demanding(&limited(2_500_000_000)));
        insta::assert_snapshot!(show(&limited(2_500_000_000), &engine("1.41", 2)), @"error at services.web.cpus or services.web.deploy.resources.limits.cpus: service `web` cannot be limited to 2.50 CPUs here; the engine takes at least 0.01 and at most 2.00, which its host has");
        assert!(show(&limited(1_000_000), &engine("1.41", 2)).contains("cannot be limited to 0.00 CPUs"));
        for fits in [0, 10_000_000, 2_000_000_000] {
            assert_eq!(show(&limited(fits), &engine("1.41", 2)), "");
        }
        assert_eq!(show(&limited(2_500_000_000), &engine("1.41", 0)), "", "an engine that does not say");
    }

    #[test]
    fn docker_takes_no_less_than_6_mib_and_no_reservation_beyond_the_limit() {
        let with = |memory, reserved_memory| {
            project(|web| web.container.resources = Resources { memory, reserved_memory, ..Resources::default() })
        };
        let mib = |count: i64| Some(count << 20);
        insta::assert_snapshot!(show(&with(Some(1024), None), &engine("1.41", 2)), @"error at services.web.mem_limit or services.web.deploy.resources.limits.memory: service `web` cannot be limited to 1024 bytes of memory; the engine takes at least 6m");
        insta::assert_snapshot!(show(&with(mib(10), Some(1)), &engine("1.41", 2)), @"error at services.web.mem_reservation or services.web.deploy.resources.reservations.memory: service `web` cannot be promised 1 bytes of memory; the engine takes at least 6m");
        insta::assert_snapshot!(show(&with(mib(10), mib(20)), &engine("1.41", 2)), @"error at services.web.mem_reservation or services.web.deploy.resources.reservations.memory: service `web` cannot be promised more memory than it is limited to; let the limit be as much as the reservation, or more");
        for wrong in [with(Some(1024), None), with(mib(10), mib(20))] {
            let podman = EngineInfo { kind: EngineKind::Podman, ..engine("1.41", 2) };
            assert!(is_demanding(&wrong) && show(&wrong, &podman).is_empty());
        }
        for fits in [with(mib(6), mib(6)), with(Some(0), mib(6)), with(Some(-1), None), with(None, None)] {
            assert!(!is_demanding(&fits) && show(&fits, &engine("1.41", 2)).is_empty());
        }
    }

    #[test]
    fn what_came_with_a_later_engine_is_told() {
        let check = Healthcheck {
            test: Vec::new(),
            interval: None,
            timeout: None,
            retries: None,
            start_period: None,
            start_interval: Some(Duration::from_secs(1)),
        };
        let mac = |service: &mut Service| {
            service.network = NetworkMode::Networks(vec![Attachment {
                mac: Some("02:00:00:00:00:01".to_owned()),
                ..Attachment::new("front".parse().expect("a key"))
            }]);
        };
        let health = project(|web| web.container.healthcheck = Some(check));
        insta::assert_snapshot!(show(&health, &engine("1.43", 2)), @"warning at services.web.healthcheck.start_interval: `start_interval` of service `web` has no effect on this engine; it needs API 1.44 (Docker Engine 25), this one speaks 1.43: until the container has started, checks come at the normal `interval`");
        insta::assert_snapshot!(show(&project(mac), &engine("1.43", 2)), @"error at services.web.networks.front.mac_address or services.web.mac_address: this engine cannot give service `web` a `mac_address` in network `front`; that needs API 1.44 (Docker Engine 25), this one speaks 1.43: leave it out, or upgrade the engine");
        assert_eq!(show(&health, &engine("1.44", 2)) + &show(&project(mac), &engine("1.44", 2)), "");
        assert!(is_demanding(&health) && is_demanding(&project(mac)));
    }

    #[test]
    fn a_network_with_ipv6_needs_a_subnet_before_engine_27() {
        let with = |change: fn(&mut Network)| {
            let mut graph = testing::graph("shop", &["web"]);
            let mut network = testing::network("shop_front");
            network.enable_ipv6 = Some(true);
            change(&mut network);
            graph.networks.insert("front".parse().expect("a key"), network);
            graph
        };
        let bare = with(|_| ());
        insta::assert_snapshot!(show(&bare, &engine("1.45", 2)), @"error at networks.front.enable_ipv6 or networks.front: this engine has no subnet of IPv6 for network `front`; give it one (`ipam: {config: [{subnet: 'fd12:3456:789a::/64'}]}`), or give the engine `default-address-pools` of IPv6; Docker Engine 27 and later find one by themselves");
        assert_eq!(show(&bare, &EngineInfo { has_ipv6_pool: true, ..engine("1.46", 2) }), "");
        assert!(is_demanding(&bare));
        let pool = |network: &mut Network| {
            let subnet = "fd00::/64".parse().expect("a subnet");
            let pool =
                Ipv6Pool { subnet, gateway: None, ip_range: None, aux_addresses: std::collections::BTreeMap::new() };
            network.ipv6_pools = vec![pool];
        };
        assert_eq!(show(&with(pool), &engine("1.45", 2)), "");
        let podman = EngineInfo { kind: EngineKind::Podman, has_ipv6_pool: true, ..engine("1.41", 2) };
        assert_eq!(show(&bare, &podman), "");
        for none in [with(|network| network.external = true), with(|network| network.enable_ipv6 = None)] {
            assert!(!is_demanding(&none) && show(&none, &engine("1.41", 2)).is_empty());
        }
    }

    #[test]
    fn keys_that_the_engine_is_too_old_for_or_not_of_the_kind() {
        let annotated = project(|web| {
            web.container.host.annotations.insert("a".to_owned(), "b".to_owned());
        });
        insta::assert_snapshot!(show(&annotated, &engine("1.42", 2)), @"warning at services.web.annotations: `annotations` of service `web` have no effect on this engine; that needs API 1.43 (Docker Engine 24), this one speaks 1.42: leave it out, or upgrade the engine");
        assert_eq!(show(&annotated, &engine("1.43", 2)), "");
        let named = project(|web| {
            let front = Attachment::new("front".parse().expect("a key"));
            web.network = NetworkMode::Networks(vec![Attachment { interface: Some("front0".to_owned()), ..front }]);
        });
        insta::assert_snapshot!(show(&named, &engine("1.48", 2)), @"error at services.web.networks.front.interface_name: this engine cannot name the interface of service `web` in network `front`; that needs API 1.49 (Docker Engine 28.1), this one speaks 1.48: leave it out, or upgrade the engine");
        assert_eq!(show(&named, &engine("1.49", 2)), "");
        let below = project(|web| {
            let source = MountSource::Bind {
                path: "/h".to_owned(),
                create: false,
                propagation: None,
                selinux: None,
                recursion: Recursion::Readonly,
            };
            web.container.mounts = vec![crate::graph::Mount { target: "/t".to_owned(), read_only: true, source }];
        });
        insta::assert_snapshot!(show(&below, &engine("1.43", 2)), @"error at services.web.volumes: this engine cannot tell what is mounted below `/t` of service `web` from it; that needs API 1.44 (Docker Engine 25), this one speaks 1.43: leave it out, or upgrade the engine");
        assert_eq!(show(&below, &engine("1.44", 2)), "");
        let content = project(|web| {
            let source = MountSource::Image { image: "content".to_owned(), subpath: None };
            web.container.mounts = vec![crate::graph::Mount { target: "/t".to_owned(), read_only: true, source }];
        });
        insta::assert_snapshot!(show(&content, &engine("1.47", 2)), @"error at services.web.volumes: this engine cannot mount the content of an image, as service `web` wants it; that needs API 1.48 (Docker Engine 28), this one speaks 1.47: leave it out, or upgrade the engine");
        assert_eq!(show(&content, &engine("1.48", 2)), "");
        let windows = project(|web| web.container.host.cpu_percent = 50);
        insta::assert_snapshot!(show(&windows, &engine("1.44", 2)), @"warning at services.web.cpu_percent: `cpu_percent` of service `web` has no effect on this engine; it is for containers of Windows; use `cpus`");
        assert!([annotated, named, below, content, windows].iter().all(is_demanding));
    }
}
