//! What a model becomes, and what is refused with which words.

mod host;
mod lives;
mod prestart;

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Condition, Graph, Healthcheck, MountSource, NetworkMode, PortMode, Restart, Scale};
use crate::ids::{ResourceKey, ServiceName, SnapshotHash};
use crate::model::Model;

use super::{Contents, Expanded, FileKind, Input, Problem, Snapshots, expand};

fn name(text: &str) -> ServiceName {
    text.parse().expect("a name")
}

fn contents() -> Contents {
    let key = |text: &str| ResourceKey::new(text).expect("a key");
    [((FileKind::Config, key("conf")), b"a=1".to_vec()), ((FileKind::Secret, key("pass")), b"hunter2".to_vec())].into()
}

/// Expands a project named `shop` given as YAML in canonical form.
fn run(text: &str, scales: &[(&str, u32)]) -> Result<Expanded, Vec<String>> {
    let text = if text.contains("services:") { text.to_owned() } else { format!("services: {text}") };
    let mut model: Model = serde_yaml::from_str(&format!("name: shop\n{text}")).expect("a model");
    for service in model.services.values_mut() {
        service.image.get_or_insert("app".to_owned());
    }
    let input = Input {
        model: &model,
        contents: &contents(),
        logins: None,
        snapshots: &snapshots(),
        scales: &scales.iter().map(|(service, count)| (name(service), *count)).collect(),
        disabled: &BTreeMap::new(),
        working_dir: "/src",
        config_files: &["/src/compose.yaml".to_owned()],
    };
    expand(&input).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn graph(text: &str) -> Graph {
    run(text, &[]).expect("no mistakes").graph
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(run(text, &[]).expect_err("a mistake").join("\n"), expected);
}

/// The service `snap` mounts one in place of its first volume.
fn snapshots() -> Snapshots {
    Snapshots::from([((name("snap"), 0), SnapshotHash::new("ab".repeat(32)).expect("a hash"))])
}

#[test]
fn a_bind_whose_files_travel_is_a_snapshot_and_a_change_of_them_is_told_apart() {
    let text =
        "{snap: {volumes: [{type: bind, source: /src/conf, target: /conf}, {type: bind, source: /x, target: /x}]}}";
    let of = |graph: &Graph| graph.services[&name("snap")].clone();
    let mut now = graph(text);
    let mounts = &of(&now).container.mounts;
    assert!(matches!(&mounts[0].source, MountSource::Snapshot { selinux: false, .. }) && mounts[0].read_only);
    assert!(matches!(&mounts[1].source, MountSource::Bind { .. }));
    assert_eq!(now.snapshots().len(), 1);
    let before = of(&now);
    let other = SnapshotHash::new("cd".repeat(32)).expect("a hash");
    now.services.get_mut(&name("snap")).expect("there").container.mounts[0].source =
        MountSource::Snapshot { hash: other, selinux: false };
    super::hash::seal(&mut now);
    let after = of(&now);
    assert_ne!(before.spec_hash, after.spec_hash);
    let changed: Vec<_> =
        after.spec_parts.iter().filter(|(key, digits)| before.spec_parts.get(*key) != Some(digits)).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(changed[0].0, "content of /conf");
}

#[test]
fn scales() {
    let scale =
        |text: &str, scales: &[(&str, u32)]| run(text, scales).map(|done| done.graph.services[&name("a")].scale);
    assert_eq!(scale("{a: {}}", &[]), Ok(Scale::Replicas(1)));
    assert_eq!(scale("{a: {scale: 2}}", &[]), Ok(Scale::Replicas(2)));
    assert_eq!(scale("{a: {deploy: {replicas: 3}}}", &[]), Ok(Scale::Replicas(3)));
    assert_eq!(scale("{a: {scale: 3, deploy: {replicas: 3}}}", &[("a", 5)]), Ok(Scale::Replicas(5)));
    assert_eq!(scale("{a: {deploy: {mode: global}}}", &[]), Ok(Scale::Global));
    refused(
        "{a: {scale: 2, deploy: {replicas: 3}}}",
        "services.a.scale: can't set distinct values on `scale` and `deploy.replicas`",
    );
    let global = "a service of mode `global` has one replica on each host, a number of replicas cannot be set";
    refused("{a: {deploy: {mode: global, replicas: 2}}}", &format!("services.a.deploy.replicas: {global}"));
    let errors = run("{a: {}}", &[("b", 2)]).expect_err("a mistake");
    assert_eq!(errors, ["--scale: no such service: b"]);
}

#[test]
fn containers_are_counted_before_anything_is_made_for_each() {
    let wanted = |count: u64| format!("{count} containers are wanted up to here, and a project can have 5000");
    let replicas = |count: u64| format!("{{a: {{deploy: {{replicas: {count}}}}}, b: {{}}}}");
    refused(&replicas(4_000_000_000), &format!("services.a.deploy.replicas: {}", wanted(4_000_000_000)));
    refused(&replicas(5_000), &format!("services.b.deploy.replicas: {}", wanted(5_001)));
    refused("{a: {scale: 5001}}", &format!("services.a.scale: {}", wanted(5_001)));
    let errors = run("{a: {}}", &[("a", u32::MAX)]).expect_err("too many");
    assert_eq!(errors, [format!("--scale: {}", wanted(u32::MAX.into()))]);
    assert!(run(&replicas(4_999), &[]).is_ok());
    let help = Problem::TooManyPods { wanted: 5_001 }.help().expect("help");
    assert!(help.contains("`deploy.replicas`"), "{help}");
}

#[test]
fn what_an_engine_would_refuse_is_refused_before() {
    refused(
        "{a: {cap_add: [NET_ADMIN, cap_net_raw, ALL, NET_ADMINN], cap_drop: [x]}}",
        "services.a.cap_add[3]: `NET_ADMINN` is not a capability, perhaps `NET_ADMIN`\n\
         services.a.cap_drop[0]: `x` is not a capability",
    );
    refused(
        "{a: {security_opt: [no-new-privileges, 'label:disable', 'apparmor=unconfined', nonsense]}}",
        "services.a.security_opt[3]: `nonsense` is not a valid security option, expected `NAME=VALUE` or `no-new-privileges`",
    );
    refused(
        "{a: {dns: [10.0.0.1, 'fd00::1', notanip]}}",
        "services.a.dns[2]: `notanip` is not a valid resolver, expected an IPv4 or IPv6 address",
    );
    refused(
        "{a: {stop_signal: NOPE}}",
        "services.a.stop_signal: `NOPE` is not a valid signal, expected a name such as `SIGTERM`, or a number",
    );
    refused(
        "{a: {working_dir: sub/dir}}",
        "services.a.working_dir: `sub/dir` is not a valid directory of a container, expected an absolute path",
    );
    refused(
        "{a: {environment: {'': x}}}",
        "services.a.environment[]: `=x` is not a valid variable, expected a name before `=`",
    );
    refused(
        "{a: {environment: {'': null}}}",
        "services.a.environment[]: `` is not a valid variable, expected a name before `=`",
    );
    let sysctl = "expected a setting that each container has of its own: `net.…`, `fs.mqueue.…`, `kernel.shm…`, `kernel.msg…` or `kernel.sem`";
    refused(
        "{a: {sysctls: {vm.swappiness: '1', net.core.somaxconn: '9', fs.mqueue.msg_max: '9', kernel.shmmax: '9', net/ipv4/conf/e.1/forwarding: '1'}}}",
        &format!("services.a.sysctls[vm.swappiness]: `vm.swappiness` is not a valid sysctl of a container, {sysctl}"),
    );
    assert!(run("{a: {runtime: kata, sysctls: {vm.swappiness: '1'}}}", &[]).is_ok(), "it may have a kernel of its own");
    refused(
        "{a: {ulimits: {nofile: 5, NPROC: 3, files: 5}}}",
        "services.a.ulimits.files: `files` is not a valid limit, expected one of getrlimit(2), such as `nofile` or `nproc`",
    );
    let image = "expected `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, with a name of small letters and digits";
    refused(
        "{a: {image: 'Foo Bar'}}",
        &format!("services.a.image: `Foo Bar` is not a valid name of an image, {image}"),
    );
    refused("{a: {image: 'x:'}}", &format!("services.a.image: `x:` is not a valid name of an image, {image}"));
}

#[test]
fn a_link_that_only_external_networks_carry_is_told() {
    let project = |more: &str, link: &str| {
        let networks = "networks: {far: {name: far, external: true}, own: {name: own}}";
        let services =
            format!("{{a: {{networks: {{far: null{more}}}, links: ['{link}']}}, b: {{networks: {{far: null}}}}}}");
        let done = run(&format!("{networks}\nservices: {services}"), &[]).expect("no mistake");
        done.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let warning = project("", "b:database");
    assert!(warning.starts_with("services.a.links[0]: `a` will not know `b` as `database`"), "{warning}");
    assert_eq!(project("", "b"), "", "the engine knows services by their names");
    assert_eq!(project(", own: null", "b:database"), "", "orch's DNS is asked where there is an own network");
}

#[test]
fn container_names_are_one_container_s() {
    refused(
        "{a: {container_name: x, scale: 2}}",
        "services.a.container_name: container name `x` can only be given to one container, and 2 replicas are wanted",
    );
    refused(
        "{a: {container_name: shop-b-1}, b: {}}",
        "services.a.container_name: container name `shop-b-1` is that of service `b` too",
    );
    assert!(run("{a: {container_name: x, deploy: {mode: global}}}", &[]).is_ok());
}

#[test]
fn links_imply_dependencies() {
    let graph =
        graph("{web: {links: ['db:database'], depends_on: {db: {condition: service_started, restart: true}}}, db: {}}");
    let web = &graph.services[&name("web")];
    assert_eq!(web.links[0].alias, "database");
    let db = &web.depends_on[0];
    assert_eq!(
        (db.service.as_str(), db.condition, db.restart, db.required),
        ("db", Condition::ServiceStarted, false, true)
    );
    refused("{web: {links: [nix]}}", "services.web.links[0]: no such service: nix");
    refused(
        "networks: {n: {name: n}}\nservices: {web: {links: [db]}, db: {networks: {n: null}}}",
        "services.web.links[0]: links to `db`, and the two share no network",
    );
}

#[test]
fn cycles_are_named() {
    refused(
        "{a: {depends_on: {b: {condition: service_started}}}, b: {links: [c]}, c: {network_mode: 'service:a'}}",
        "services.a.depends_on: dependency cycle detected: a -> b -> c -> a\n\
         services.b.links[0]: links to `c`, and the two share no network",
    );
    refused("{a: {links: [a]}}", "services.a.depends_on: dependency cycle detected: a -> a");
    refused("{a: {depends_on: {x: {condition: service_started}}}}", "services.a.depends_on.x: no such service: x");
    let optional = graph("{a: {depends_on: {x: {condition: service_started, required: false}}}}");
    assert_eq!(optional.services[&name("a")].depends_on, []);
}

#[test]
fn network_modes() {
    let mode =
        |mode: &str| graph(&format!("{{a: {{network_mode: '{mode}'}}, x: {{}}}}")).services[&name("a")].network.clone();
    assert_eq!(mode("host"), NetworkMode::Host);
    assert_eq!(mode("none"), NetworkMode::None);
    assert_eq!(mode("bridge"), NetworkMode::Engine("bridge".to_owned()));
    assert_eq!(mode("container:c"), NetworkMode::Engine("container:c".to_owned()));
    assert_eq!(mode("service:x"), NetworkMode::Service(name("x")));
    refused("{a: {network_mode: 'service:x'}}", "services.a.network_mode: no such service: x");
    refused(
        "{a: {network_mode: 'service:x', scale: 2}, x: {}}",
        "services.a.network_mode: 2 replicas are to share the network of `x`, one with each of its replicas, which are 1",
    );
}

#[test]
fn networks_are_in_order_of_the_default_route() {
    let graph = graph(
        "networks: {a: {name: a, internal: true}, b: {name: b}, c: {name: c}, unused: {name: u}}\n\
         services: {x: {networks: {a: null, b: {ipv4_address: 10.0.0.9}, c: {gw_priority: 1, aliases: [cc]}}, mac_address: '02:00:00:00:00:01'}}",
    );
    let NetworkMode::Networks(attachments) = &graph.services[&name("x")].network else { panic!("networks") };
    assert_eq!(attachments.iter().map(|a| a.network.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    assert_eq!(attachments[0].mac.as_deref(), Some("02:00:00:00:00:01"));
    assert_eq!(graph.networks.len(), 3, "only those that are used");
    let implied = super::tests::graph("{a: {}}");
    assert_eq!(implied.networks.values().next().map(|network| network.name.as_str()), Some("shop_default"));
}

#[test]
fn subnets_are_read() {
    let with = |config: &str| {
        format!(
            "networks: {{n: {{name: n, ipam: {{config: [{config}]}}}}}}\nservices: {{a: {{networks: {{n: null}}}}}}"
        )
    };
    let network = graph(&with("{subnet: 10.9.0.0/24, gateway: 10.9.0.1}")).networks.into_values().next().expect("one");
    assert_eq!(network.subnet, "10.9.0.0/24".parse().ok());
    assert_eq!(network.gateway, "10.9.0.1".parse().ok());
    refused(
        &with("{subnet: here}"),
        "networks.n.ipam.config[0].subnet: `here` is not a valid subnet, expected an IPv4 network such as 10.1.0.0/24",
    );
    refused(
        &with("{subnet: 10.9.0.0/24}, {subnet: 'fd00::/64'}, {subnet: 10.8.0.0/24}"),
        "networks.n.ipam.config[2]: more than one subnet of IPv4 is not supported, give one, beside any of IPv6",
    );
}

/// A network that an older build made is not made anew for what was without effect.
#[test]
fn that_a_network_has_no_ipv6_makes_none_anew() {
    let of = |config: &str| {
        let graph = graph(&format!("networks: {{n: {config}}}\nservices: {{a: {{networks: {{n: {{}}}}}}}}"));
        graph.networks.values().next().expect("one").spec_hash.clone()
    };
    assert_eq!(of("{}"), of("{enable_ipv6: false}"));
    assert_ne!(of("{}"), of("{enable_ipv6: true}"));
}

#[test]
fn subnets_and_addresses_of_ipv6_are_the_engines_matter_once_they_fit() {
    let one = |config: &str, member: &str| {
        format!(
            "networks: {{n: {{name: n, enable_ipv6: true, ipam: {{config: [{config}], options: {{a: b}}}}}}}}\n\
             services: {{a: {{networks: {{n: {member}}}}}}}"
        )
    };
    let pool = "{subnet: 'fd00::7/64', gateway: 'fd00::1', ip_range: 'fd00::f/120', aux_addresses: {x: 'fd00::9'}}";
    let made =
        graph(&one(&format!("{pool}, {{subnet: 10.9.0.0/24}}, {{subnet: 'fd01::/64'}}"), "{ipv6_address: 'fd00::5'}"));
    let network = made.networks.values().next().expect("one");
    insta::assert_snapshot!(
        serde_json::to_string(&(network.subnet, network.enable_ipv6, &network.ipv6_pools, &network.ipam_options)).expect("JSON"),
        @r#"["10.9.0.0/24",true,[{"subnet":"fd00::/64","gateway":"fd00::1","ip_range":"fd00::/120","aux_addresses":{"x":"fd00::9"}},{"subnet":"fd01::/64"}],{"a":"b"}]"#
    );
    let NetworkMode::Networks(attachments) = &made.services[&name("a")].network else { panic!("on networks") };
    assert_eq!(attachments[0].ipv6, "fd00::5".parse().ok());

    let place = "networks.n.ipam.config[0]";
    for (config, problem) in [
        (
            "gateway: 'fd01::1'",
            "gateway: `fd01::1` is not a valid gateway, expected an IPv6 address of the `subnet` beside it",
        ),
        (
            "ip_range: 'fd00::/48'",
            "ip_range: `fd00::/48` is not a valid ip_range, expected an IPv6 network that is part of the `subnet` beside it",
        ),
        (
            "aux_addresses: {x: 10.0.0.1}",
            "aux_addresses.x: `10.0.0.1` is not a valid reserved address, expected an IPv6 address of the `subnet` beside it",
        ),
    ] {
        refused(&one(&format!("{{subnet: 'fd00::/64', {config}}}"), "null"), &format!("{place}.{problem}"));
    }
    let expected = "expected an address of an IPv6 subnet under `ipam.config` of a network with `enable_ipv6: true`, not its gateway";
    for address in ["fd01::1", "fd00::1"] {
        refused(
            &one(pool, &format!("{{ipv6_address: '{address}'}}")),
            &format!("services.a.networks.n.ipv6_address: `{address}` is not a valid address, {expected}"),
        );
    }
    refused(
        &one(pool, "{ipv6_address: 'fd00::5'}").replace("enable_ipv6: true, ", ""),
        &format!("services.a.networks.n.ipv6_address: `fd00::5` is not a valid address, {expected}"),
    );
    refused(
        &one(pool, "{ipv6_address: 'fd00::5'}").replace("{a: {net", "{a: {scale: 2, net"),
        "services.a.networks.n.ipv6_address: a fixed address can only be given to one container, and 2 replicas are wanted",
    );
    refused(
        &one(pool, "{ipv6_address: 'fd00::5'}}}, b: {networks: {n: {ipv6_address: 'fd00:0::5'}"),
        "services.b.networks.n.ipv6_address: fd00::5 is the address of service `a` too",
    );
    refused(
        &one(&format!("{pool}, {{subnet: 'fd00::/48'}}"), "null"),
        "networks.n.ipam.config: fd00::/48 has addresses in common with fd00::/64 of network `n`",
    );
}

#[test]
fn ports() {
    let port = |text: &str| {
        graph(&format!("{{a: {{ports: [{{target: 80, {text}}}]}}}}")).services[&name("a")].ports[0].clone()
    };
    assert_eq!(port("published: '8080'").published, Some((8080, 8080)));
    assert_eq!(port("published: '8000-8010'").published, Some((8000, 8010)));
    assert_eq!(port("published: '0'").published, None);
    assert_eq!(port("mode: host").mode, PortMode::Host);
    assert_eq!(port("host_ip: 127.0.0.1").host_ip, "127.0.0.1".parse().ok());
    assert_eq!(port("host_ip: 0.0.0.0").host_ip, None);
    assert_eq!(port("protocol: udp, mode: host").protocol.to_string(), "udp");
    assert!(run("{a: {network_mode: bridge, ports: [{target: 53, protocol: udp}]}}", &[]).is_ok(), "the engine's");
    let bad = |text: &str, expected: &str| refused(&format!("{{a: {{ports: [{{target: 80, {text}}}]}}}}"), expected);
    bad(
        "published: '9-8'",
        "services.a.ports[0].published: `9-8` is not a valid port, expected a number from 0 to 65535 or a range of them",
    );
    bad(
        "host_ip: here",
        "services.a.ports[0].host_ip: `here` is not a valid address, expected an IPv4 or IPv6 address",
    );
    assert_eq!(port("protocol: udp").mode, PortMode::Ingress);
    bad("protocol: sctp", "services.a.ports[0]: SCTP port 80 cannot be published by the load balancer");
}

#[test]
fn ports_for_datagrams_are_those_that_services_of_a_network_tell_of() {
    let graph = graph(
        "services: {a: {expose: ['53/udp', '53', '90'], networks: {in: null}}, \
         b: {ports: [{target: 5353, protocol: udp}], networks: {in: null, out: null}}, \
         c: {network_mode: 'service:b', expose: ['161/udp']}, d: {network_mode: host, expose: ['1/udp']}}\n\
         networks: {in: {name: in}, out: {name: out}}",
    );
    let ports = |key: &str| {
        let ports = graph.datagram_ports(&crate::ids::ResourceKey::new(key).expect("valid"));
        ports.into_iter().collect::<Vec<_>>()
    };
    assert_eq!((ports("in"), ports("out"), ports("default")), (vec![53, 161, 5353], vec![161, 5353], vec![]));
}

#[test]
fn a_published_port_is_one_service_s() {
    let ports = |more: &str| format!("ports: [{{target: 80, published: '80'{more}}}]");
    let two = |a: &str, b: &str| format!("{{a: {{{}}}, b: {{{}}}}}", ports(a), ports(b));
    refused(&two("", ""), "services.b.ports[0]: port 80/tcp is published by service `a` too");
    refused(&two(", mode: host", ""), "services.b.ports[0]: port 80/tcp is published by service `a` too");
    for (a, b) in [
        (", mode: host", ", mode: host"),
        ("", ", protocol: udp, mode: host"),
        (", host_ip: 127.0.0.1", ", host_ip: 127.0.0.2"),
    ] {
        assert!(run(&two(a, b), &[]).is_ok(), "{a} {b}");
    }
}

#[test]
fn ports_without_an_address() {
    let done = run("{a: {network_mode: host, ports: [{target: 80}]}}", &[]).expect("no mistake");
    let warning =
        "services.a.ports: nothing is published: with `network_mode: host` the container's ports are the host's";
    assert_eq!(done.warnings[0].to_string(), warning);
    assert_eq!(done.graph.services[&name("a")].ports, []);
    refused(
        "{a: {network_mode: 'service:b', ports: [{target: 80}]}, b: {}}",
        "services.a.ports: ports of a service in the network of `b` must be published by that one",
    );
}

#[test]
fn expose_is_ports_and_what_is_published() {
    let graph = graph("{a: {expose: ['53/udp', '90-91'], ports: [{target: 80}, {target: 90}]}}");
    let exposed: Vec<_> =
        graph.services[&name("a")].expose.iter().map(|e| format!("{}/{}", e.port, e.protocol)).collect();
    assert_eq!(exposed, ["53/udp", "80/tcp", "90/tcp", "91/tcp"]);
    refused(
        "{a: {expose: [abc]}}",
        "services.a.expose[0]: `abc` is not a valid port, expected `80`, `53/udp` or `8000-8010`",
    );
}

#[test]
fn mounts() {
    let graph = graph(
        "volumes: {data: {name: shop_data}, unused: {name: u}}\n\
         services: {a: {tmpfs: ['/z:size=1m'], volumes: [{type: volume, source: data, target: /d}, {type: volume, target: /anon}, \
         {type: bind, source: /srv, target: /b, read_only: true, bind: {create_host_path: false}}]}}",
    );
    let mounts = &graph.services[&name("a")].container.mounts;
    assert_eq!(mounts.iter().map(|m| m.target.as_str()).collect::<Vec<_>>(), ["/anon", "/b", "/d", "/z"]);
    assert_eq!(mounts[0].source, MountSource::anonymous());
    assert!(mounts[1].read_only && matches!(&mounts[1].source, MountSource::Bind { create: false, .. }));
    assert_eq!(graph.volumes.len(), 1);
    refused("{a: {volumes: [{type: volume, source: x, target: /x}]}}", "services.a.volumes[0]: undefined volume `x`");
    refused("{a: {tmpfs: [/x, /x]}}", "services.a.tmpfs[1]: `/x` is mounted twice");
}

const FILES: &str = "configs: {conf: {name: c, file: /c}, far: {name: f, external: true}}\nsecrets: {pass: {name: p, file: /p}}\nservices: ";

#[test]
fn configs_and_secrets_are_content_addressed() {
    let graph = graph(&format!(
        "{FILES}{{a: {{configs: [{{source: conf}}], secrets: [{{source: pass, target: pw, uid: '7', mode: '0400'}}]}}}}"
    ));
    let files = &graph.services[&name("a")].container.files;
    assert_eq!((files[0].target.as_str(), files[0].mode, files[0].secret), ("/conf", 0o444, false));
    assert_eq!((files[1].target.as_str(), files[1].uid, files[1].mode), ("/run/secrets/pw", 7, 0o400));
    assert_eq!(graph.files[&files[1].hash].bytes, b"hunter2");
    assert!(graph.files[&files[1].hash].secret);
    assert_eq!(files[0].hash.len(), 64);
    refused(
        &format!("{FILES}{{a: {{configs: [{{source: far}}, {{source: nix}}, {{source: conf, mode: rw}}]}}}}"),
        "services.a.configs[0]: config `far` is external: orch reads its content from `file`, `environment` or `content`\n\
         services.a.configs[1]: undefined config `nix`\n\
         services.a.configs[2].mode: `rw` is not a valid file mode, expected octal digits",
    );
}

#[test]
fn restart_words() {
    let restart = |word: &str| graph(&format!("{{a: {{restart: '{word}'}}}}")).services[&name("a")].restart;
    assert_eq!(restart("no"), Restart::No);
    assert_eq!(restart("on-failure:3"), Restart::OnFailure { max_attempts: Some(3) });
    assert_eq!(restart("unless-stopped"), Restart::UnlessStopped);
    let expected = "expected `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`";
    for bad in ["never", "on-failure:", "on-failure:-1"] {
        refused(
            &format!("{{a: {{restart: '{bad}'}}}}"),
            &format!("services.a.restart: `{bad}` is not a valid restart policy, {expected}"),
        );
    }
}

#[test]
fn constraints_are_read() {
    let constraint = |text: &str| {
        let project = format!("{{a: {{deploy: {{placement: {{constraints: ['{text}']}}}}}}}}");
        run(&project, &[]).map(|done| {
            let found = &done.graph.services[&name("a")].placement.constraints[0];
            (found.key.clone(), found.equal, found.value.clone())
        })
    };
    let read = |key: &str, equal, value: &str| Ok((key.to_owned(), equal, value.to_owned()));
    assert_eq!(constraint("node.labels.disk == ssd"), read("node.labels.disk", true, "ssd"));
    assert_eq!(constraint("node.role!=manager"), read("node.role", false, "manager"));
    for bad in ["node.labels.disk", "node.labels. == x", "node.ip == 1", "node.id ==", "node.id == a == b"] {
        let error = constraint(bad).expect_err("a mistake").join("");
        assert!(error.contains(&format!("constraints[0]: `{bad}` is not a valid constraint")), "{error}");
    }
}

#[test]
fn limits_must_agree() {
    let limits = "deploy: {resources: {limits: {cpus: 0.5, memory: '1024'}, reservations: {memory: '512'}}}";
    let graph = graph(&format!("{{a: {{cpus: 0.5, {limits}}}}}"));
    let resources = graph.services[&name("a")].container.resources;
    assert_eq!(
        (resources.nano_cpus, resources.memory, resources.reserved_memory),
        (Some(500_000_000), Some(1024), Some(512))
    );
    refused(
        &format!("{{a: {{mem_limit: '2048', {limits}}}}}"),
        "services.a.mem_limit: can't set distinct values on `mem_limit` and `deploy.resources.limits.memory`",
    );
}

#[test]
fn a_disabled_health_check_is_none() {
    let graph = graph("{a: {healthcheck: {disable: true}}}");
    let check: &Healthcheck = graph.services[&name("a")].container.healthcheck.as_ref().expect("one");
    assert_eq!(check.test, ["NONE"]);
}

#[test]
fn the_hash_changes_with_what_needs_a_new_container() {
    let hash = |more: &str| graph(&format!("{FILES}{{a: {{{more}}}, b: {{}}}}")).services[&name("a")].spec_hash.clone();
    let plain = hash("");
    assert_eq!(plain, hash(""));
    for same in [
        "scale: 3",
        "depends_on: {b: {condition: service_started}}",
        "links: [b]",
        "restart: always",
        "ports: [{target: 80, published: '80'}]",
        "expose: ['80']",
        "pull_policy: always",
        "stop_grace_period: 1s",
        "attach: false",
        "networks: {default: {aliases: [x]}}",
        "deploy: {placement: {constraints: [node.hostname == a]}}",
    ] {
        assert_eq!(plain, hash(same), "{same}");
    }
    let mut seen = BTreeMap::from([(plain, "")]);
    for other in [
        "image: other",
        "command: []",
        "environment: {A: b}",
        "labels: {a: b}",
        "configs: [{source: conf}]",
        "network_mode: host",
        "networks: {default: {ipv4_address: 10.0.0.9}}",
        "ports: [{target: 80, published: '80', mode: host}]",
        "healthcheck: {test: [CMD, x]}",
        "deploy: {resources: {limits: {memory: '1024'}}}",
        "tmpfs: [/x]",
    ] {
        assert_eq!(seen.insert(hash(other), other), None, "{other}");
    }
}

#[test]
fn parts_of_the_hash_go_by_the_keys_of_the_file() {
    let parts = |more: &str| {
        let graph = graph(&format!("{FILES}{{a: {{{more}}}}}"));
        let keys: Vec<String> = graph.services[&name("a")].spec_parts.keys().cloned().collect();
        keys.join(" ")
    };
    assert_eq!(parts(""), "image networks");
    assert_eq!(parts("configs: [{source: conf}]"), "configs image networks");
    assert_eq!(parts("environment: {A: b}, mem_limit: '2048'"), "environment image networks resources");
}
