#![expect(clippy::too_many_lines, reason = "one spec with every field, and what becomes of it")]

use std::collections::BTreeMap;

use super::*;
use crate::graph::{Mount, MountSource, Namespace, Protocol, Recursion};

/// A spec in which everything is asked for that a compose file can ask for.
fn full() -> ContainerSpec {
    let mount = |target: &str, read_only, source| Mount { target: target.to_owned(), read_only, source };
    let bind = |path: &str, create, selinux: Option<&str>| MountSource::Bind {
        path: path.to_owned(),
        create,
        propagation: Some("rslave".to_owned()),
        selinux: selinux.map(str::to_owned),
        recursion: Recursion::Enabled,
    };
    let volume = |no_copy| MountSource::Volume { volume: "data".parse().expect("a key"), no_copy, subpath: None };
    let tmpfs =
        |options: &str| MountSource::Tmpfs { size: Some(1 << 20), mode: Some(0o1777), options: options.to_owned() };
    let container = Container {
        image: "nginx".to_owned(),
        entrypoint: Some(Vec::new()),
        command: Some(vec!["serve".to_owned()]),
        environment: BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())]),
        unset: std::collections::BTreeSet::from(["C".to_owned()]),
        hostname: Some("web".to_owned()),
        domainname: Some("example.com".to_owned()),
        user: Some("1000:1000".to_owned()),
        group_add: vec!["wheel".to_owned()],
        working_dir: Some("/srv".to_owned()),
        mounts: vec![
            mount("/bind", true, bind("/host", false, None)),
            mount("/made", false, bind("/host/made", true, None)),
            mount("/labelled", true, bind("/host/labelled", false, Some("Z"))),
            mount("/colon", false, bind("/host/a:b", true, None)),
            mount("/data", false, volume(false)),
            mount("/data2", true, volume(true)),
            mount("/carried", false, MountSource::anonymous()),
            mount("/anonymous", false, MountSource::anonymous()),
            mount("/tmpfs", false, tmpfs("")),
            mount("/tmpfs2", true, tmpfs("noexec")),
        ],
        healthcheck: Some(Healthcheck {
            test: vec!["CMD".to_owned(), "true".to_owned()],
            interval: Some(Duration::from_secs(2)),
            timeout: None,
            retries: Some(3),
            start_period: Some(Duration::from_millis(500)),
            start_interval: Some(Duration::from_millis(100)),
        }),
        stop_signal: Some("SIGQUIT".to_owned()),
        init: Some(true),
        read_only: true,
        tty: true,
        stdin_open: true,
        privileged: true,
        cap_add: vec!["NET_ADMIN".to_owned()],
        cap_drop: vec!["ALL".to_owned()],
        security_opt: vec!["no-new-privileges".to_owned()],
        sysctls: BTreeMap::from([("net.core.somaxconn".to_owned(), "1024".to_owned())]),
        ulimits: BTreeMap::from([("nofile".to_owned(), (1024, 2048))]),
        extra_hosts: vec![("db".to_owned(), "10.0.0.1".to_owned())],
        dns: vec!["1.1.1.1".to_owned()],
        dns_search: vec!["example.com".to_owned()],
        dns_opt: vec!["ndots:1".to_owned()],
        resources: Resources {
            nano_cpus: Some(500_000_000),
            memory: Some(1 << 26),
            pids: Some(100),
            reserved_nano_cpus: Some(1),
            reserved_memory: Some(1 << 25),
        },
        logging: Some(Logging {
            driver: Some("json-file".to_owned()),
            options: BTreeMap::from([("max-size".to_owned(), "1m".to_owned())]),
        }),
        shm_size: Some(1 << 27),
        platform: Some("linux/amd64".to_owned()),
        runtime: Some("runc".to_owned()),
        devices: vec![("/dev/fuse".to_owned(), "/dev/fuse".to_owned(), "rwm".to_owned())],
        pid: Some(Namespace::Engine("host".to_owned())),
        ipc: Some(Namespace::Engine("shareable".to_owned())),
        ..Container::default()
    };
    let published = |published, host_ip: Option<&str>| HostPort {
        host_ip: host_ip.map(|text| text.parse().expect("an address")),
        published,
        target: 80,
        protocol: Protocol::Tcp,
    };
    let attachment = |network: &str, ipv4: Option<&str>| SpecAttachment {
        network: network.to_owned(),
        aliases: vec!["web".to_owned()],
        ipv4: ipv4.map(|text| text.parse().expect("an address")),
        ..SpecAttachment::default()
    };
    ContainerSpec {
        container,
        image: "sha256:aa".to_owned(),
        labels: BTreeMap::from([(label::PROJECT.to_owned(), "shop".to_owned())]),
        network: SpecNetwork::Networks(vec![attachment("shop_front", Some("10.0.0.9")), attachment("shop_back", None)]),
        volume_names: BTreeMap::from([("data".to_owned(), "shop_data".to_owned())]),
        carried_volumes: BTreeMap::from([("/carried".to_owned(), "beef".to_owned())]),
        file_binds: vec![("/var/lib/orch/resolv".to_owned(), "/etc/resolv.conf".to_owned())],
        host_ports: vec![
            published(Some((8080, 8080)), Some("127.0.0.1")),
            published(Some((9000, 9002)), None),
            published(None, None),
        ],
        exposed: vec![(80, Protocol::Tcp), (53, Protocol::Udp)],
        stop_grace: Duration::from_millis(1500),
        ..ContainerSpec::new("shop-web-1", "nginx")
    }
}

/// The request as the engine reads it; maps sorted, so that it is the same every time.
fn text(value: &impl serde::Serialize) -> String {
    fn sorted(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let map: BTreeMap<_, _> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                map.into_iter().collect()
            }
            serde_json::Value::Array(list) => list.into_iter().map(sorted).collect(),
            other => other,
        }
    }
    serde_json::to_string_pretty(&sorted(serde_json::to_value(value).expect("serialises"))).expect("serialises")
}

#[test]
fn everything_for_an_old_engine() {
    let request = create_request(&full(), ApiVersion::OLDEST).expect("can be said");
    assert_eq!(request.platform.as_deref(), Some("linux/amd64"));
    insta::assert_snapshot!(text(&request.body), @r#"
    {
      "Cmd": [
        "serve"
      ],
      "Domainname": "example.com",
      "Entrypoint": [
        ""
      ],
      "Env": [
        "A=1",
        "B=",
        "C"
      ],
      "ExposedPorts": {
        "53/udp": {},
        "80/tcp": {}
      },
      "Healthcheck": {
        "Interval": 2000000000,
        "Retries": 3,
        "StartPeriod": 500000000,
        "Test": [
          "CMD",
          "true"
        ]
      },
      "HostConfig": {
        "Binds": [
          "/host/made:/made:rw,rslave",
          "/host/labelled:/labelled:ro,Z,rslave"
        ],
        "CapAdd": [
          "CAP_NET_ADMIN"
        ],
        "CapDrop": [
          "ALL"
        ],
        "Devices": [
          {
            "CgroupPermissions": "rwm",
            "PathInContainer": "/dev/fuse",
            "PathOnHost": "/dev/fuse"
          }
        ],
        "ExtraHosts": [
          "db:10.0.0.1"
        ],
        "GroupAdd": [
          "wheel"
        ],
        "Init": true,
        "IpcMode": "shareable",
        "LogConfig": {
          "Config": {
            "max-size": "1m"
          },
          "Type": "json-file"
        },
        "Memory": 67108864,
        "MemoryReservation": 33554432,
        "Mounts": [
          {
            "BindOptions": {
              "Propagation": "rslave"
            },
            "ReadOnly": true,
            "Source": "/host",
            "Target": "/bind",
            "Type": "bind"
          },
          {
            "BindOptions": {
              "Propagation": "rslave"
            },
            "Source": "/host/a:b",
            "Target": "/colon",
            "Type": "bind"
          },
          {
            "Source": "shop_data",
            "Target": "/data",
            "Type": "volume"
          },
          {
            "ReadOnly": true,
            "Source": "shop_data",
            "Target": "/data2",
            "Type": "volume",
            "VolumeOptions": {
              "NoCopy": true
            }
          },
          {
            "Source": "beef",
            "Target": "/carried",
            "Type": "volume"
          },
          {
            "Target": "/anonymous",
            "Type": "volume"
          },
          {
            "Target": "/tmpfs",
            "TmpfsOptions": {
              "Mode": 1023,
              "SizeBytes": 1048576
            },
            "Type": "tmpfs"
          },
          {
            "ReadOnly": true,
            "Source": "/var/lib/orch/resolv",
            "Target": "/etc/resolv.conf",
            "Type": "bind"
          }
        ],
        "NanoCpus": 500000000,
        "NetworkMode": "shop_front",
        "PidMode": "host",
        "PidsLimit": 100,
        "PortBindings": {
          "80/tcp": [
            {
              "HostIp": "127.0.0.1",
              "HostPort": "8080"
            },
            {
              "HostPort": "9000-9002"
            },
            {
              "HostPort": ""
            }
          ]
        },
        "Privileged": true,
        "ReadonlyRootfs": true,
        "RestartPolicy": {
          "Name": "no"
        },
        "Runtime": "runc",
        "SecurityOpt": [
          "no-new-privileges"
        ],
        "ShmSize": 134217728,
        "Sysctls": {
          "net.core.somaxconn": "1024"
        },
        "Tmpfs": {
          "/tmpfs2": "noexec,size=1048576,mode=1777,ro"
        },
        "Ulimits": [
          {
            "Hard": 2048,
            "Name": "nofile",
            "Soft": 1024
          }
        ]
      },
      "Hostname": "web",
      "Image": "sha256:aa",
      "Labels": {
        "com.docker.compose.project": "shop",
        "orch.carried-volumes": "beef"
      },
      "NetworkingConfig": {
        "EndpointsConfig": {
          "shop_front": {
            "Aliases": [
              "web"
            ],
            "IPAMConfig": {
              "IPv4Address": "10.0.0.9"
            }
          }
        }
      },
      "OpenStdin": true,
      "StopSignal": "SIGQUIT",
      "StopTimeout": 2,
      "Tty": true,
      "User": "1000:1000",
      "WorkingDir": "/srv"
    }
    "#);
    insta::assert_snapshot!(text(&request.connect), @r#"
    [
      [
        "shop_back",
        {
          "Aliases": [
            "web"
          ]
        }
      ]
    ]
    "#);
}

/// Only what differs from the old engine's request.
#[test]
fn everything_for_a_new_engine() {
    let old = text(&create_request(&full(), ApiVersion::OLDEST).expect("can be said").body);
    let new = create_request(&full(), ApiVersion(1, 48)).expect("can be said");
    assert!(new.connect.is_empty());
    let new = text(&new.body);
    let changes = similar::TextDiff::from_lines(&old, &new);
    let changed = changes.iter_all_changes().filter(|change| change.tag() != similar::ChangeTag::Equal);
    let lines: Vec<_> = changed.map(|change| format!("{}{}", change.tag(), change.value().trim_end())).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    +    "StartInterval": 100000000,
    -      "/host/made:/made:rw,rslave",
    +          "CreateMountpoint": true,
    +        "Source": "/host/made",
    +        "Target": "/made",
    +        "Type": "bind"
    +      },
    +      {
    +        "BindOptions": {
    +          "CreateMountpoint": true,
    +          "Propagation": "rslave"
    +        },
    +      "shop_back": {
    +        "Aliases": [
    +          "web"
    +        ],
    +        "GwPriority": 1
    +      },
    +        "GwPriority": 2,
    "#);
}

#[test]
fn members_of_another_namespace_have_no_ports_or_names_of_their_own() {
    let spec =
        ContainerSpec { network: SpecNetwork::Mode("container:abc".to_owned()), file_binds: Vec::new(), ..full() };
    let body = create_request(&spec, ApiVersion::OLDEST).expect("can be said").body;
    let host = body.host_config.expect("is always there");
    assert_eq!((body.exposed_ports, host.dns, body.networking_config), (None, None, None));
    assert_eq!(host.network_mode.as_deref(), Some("container:abc"));
}

#[test]
fn what_an_engine_is_too_old_for_is_said() {
    let check = |change: &dyn Fn(&mut ContainerSpec), expected: &str| {
        let mut spec = ContainerSpec::new("web", "nginx");
        change(&mut spec);
        let error = create_request(&spec, ApiVersion::OLDEST).expect_err("is refused");
        assert_eq!(error.to_string(), expected);
    };
    let mount = |subpath: Option<&str>| Mount {
        target: "/data".to_owned(),
        read_only: false,
        source: MountSource::Volume {
            volume: "data".parse().expect("a key"),
            no_copy: false,
            subpath: subpath.map(str::to_owned),
        },
    };
    check(
        &|spec| spec.container.mounts = vec![mount(Some("a"))],
        "`volume.subpath` needs engine API 1.45, this engine speaks 1.41",
    );
    check(
        &|spec| spec.container.mounts = vec![mount(None)],
        "volume `data` of the container has no name on the engine",
    );
    let mac = Some("02:42:ac:11:00:02".to_owned());
    let member = SpecAttachment { network: "net".to_owned(), mac, ..SpecAttachment::default() };
    check(
        &|spec| spec.network = SpecNetwork::Networks(vec![member.clone()]),
        "`mac_address` needs engine API 1.44, this engine speaks 1.41",
    );
}

#[test]
fn versions() {
    assert_eq!(ApiVersion::parse("1.41"), Some(ApiVersion(1, 41)));
    assert_eq!(ApiVersion::parse("1"), None);
    assert!(ApiVersion(1, 9) < ApiVersion(1, 41));
}

#[test]
fn grace_periods_are_rounded_up() {
    assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
    assert_eq!(whole_seconds(Duration::from_secs(10)), 10);
    assert_eq!(whole_seconds(Duration::ZERO), 0);
    assert_eq!(whole_seconds(Duration::MAX), i64::from(i32::MAX));
}

#[test]
fn unconfined_system_paths_are_two_empty_lists() {
    let mut spec = ContainerSpec::new("a", "x");
    let request = |spec: &ContainerSpec| create_request(spec, ApiVersion(1, 41)).expect("possible").body.host_config;
    spec.container.security_opt = vec!["label=disable".to_owned()];
    let config = request(&spec).expect("a host config");
    assert_eq!((config.masked_paths, config.readonly_paths), (None, None));
    spec.container.security_opt.push("systempaths=unconfined".to_owned());
    let config = request(&spec).expect("a host config");
    assert_eq!((config.masked_paths, config.readonly_paths), (Some(Vec::new()), Some(Vec::new())));
    assert_eq!(config.security_opt, Some(vec!["label=disable".to_owned()]));
}

/// The one membership of a container, as the engine reads it.
fn endpoint_text(member: SpecAttachment, api: ApiVersion) -> serde_json::Value {
    let mut spec = ContainerSpec::new("a", "x");
    spec.network = SpecNetwork::Networks(vec![SpecAttachment { network: "net".to_owned(), ..member }]);
    let request = create_request(&spec, api).expect("possible");
    let endpoints = request.body.networking_config.expect("a network").endpoints_config.expect("a network");
    let mut endpoint = serde_json::to_value(&endpoints["net"]).expect("serialises");
    endpoint.as_object_mut().expect("an object").remove("GwPriority");
    endpoint
}

#[test]
fn a_network_has_one_subnet_of_orchs_and_those_of_ipv6_as_the_file_has_them() {
    let pool = |subnet: &str, gateway: Option<&str>| crate::graph::Ipv6Pool {
        subnet: subnet.parse().expect("a subnet"),
        gateway: gateway.map(|text| text.parse().expect("an address")),
        ip_range: gateway.map(|_| "fd00::/80".parse().expect("a range")),
        aux_addresses: gateway.map(|_| ("x".to_owned(), "fd00::9".parse().expect("an address"))).into_iter().collect(),
    };
    let spec = NetworkSpec {
        name: "net".to_owned(),
        driver: "bridge".to_owned(),
        driver_opts: BTreeMap::new(),
        internal: false,
        attachable: true,
        subnet: "10.0.0.0/20".parse().expect("a subnet"),
        gateway: "10.0.0.1".parse().expect("an address"),
        ip_range: "10.0.0.0/24".parse().expect("a range"),
        aux_addresses: BTreeMap::new(),
        enable_ipv6: Some(true),
        ipv6_pools: vec![pool("fd00::/64", Some("fd00::1")), pool("fd01::/64", None)],
        ipam_options: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        labels: BTreeMap::new(),
    };
    let expected = serde_json::json!({
        "Name": "net", "Driver": "bridge", "Internal": false, "Attachable": true, "EnableIPv6": true,
        "IPAM": {
            "Driver": "default",
            "Config": [
                {"Subnet": "10.0.0.0/20", "IPRange": "10.0.0.0/24", "Gateway": "10.0.0.1"},
                {"Subnet": "fd00::/64", "IPRange": "fd00::/80", "Gateway": "fd00::1", "AuxiliaryAddresses": {"x": "fd00::9"}},
                {"Subnet": "fd01::/64"},
            ],
            "Options": {"a": "b"},
        },
    });
    assert_eq!(serde_json::to_value(network_request(&spec)).expect("serialises"), expected);
    let plain = NetworkSpec { enable_ipv6: None, ipv6_pools: Vec::new(), ipam_options: BTreeMap::new(), ..spec };
    let plain = serde_json::to_value(network_request(&plain)).expect("serialises");
    assert_eq!((plain.get("EnableIPv6"), plain["IPAM"].get("Options")), (None, None));
    let fixed = SpecAttachment { ipv6: "fd00::5".parse().ok(), ..SpecAttachment::default() };
    let expected = serde_json::json!({"IPAMConfig": {"IPv6Address": "fd00::5"}});
    assert_eq!(endpoint_text(fixed, ApiVersion::OLDEST), expected);
}

#[test]
fn what_is_said_of_a_membership_is_sent() {
    let linked = SpecAttachment {
        link_local: vec!["169.254.8.8".parse().expect("an address"), "fe80::8".parse().expect("an address")],
        driver_opts: BTreeMap::from([("com.example.o".to_owned(), "1".to_owned())]),
        ..SpecAttachment::default()
    };
    let expected = serde_json::json!({
        "IPAMConfig": {"LinkLocalIPs": ["169.254.8.8", "fe80::8"]},
        "DriverOpts": {"com.example.o": "1"},
    });
    assert_eq!(endpoint_text(linked, ApiVersion::OLDEST), expected);
    let named = SpecAttachment { interface: Some("front0".to_owned()), ..SpecAttachment::default() };
    let expected = serde_json::json!({"DriverOpts": {"com.docker.network.endpoint.ifname": "front0"}});
    assert_eq!(endpoint_text(named, ApiVersion::NEWEST), expected);
    assert_eq!(endpoint_text(SpecAttachment::default(), ApiVersion::NEWEST), serde_json::json!({}));
}

/// The one mount of a container, as the engine reads it: typed, or a text.
fn mount_text(read_only: bool, source: MountSource, api: ApiVersion) -> String {
    let mut spec = ContainerSpec::new("a", "x");
    spec.container.mounts = vec![Mount { target: "/t".to_owned(), read_only, source }];
    let config = create_request(&spec, api).expect("possible").body.host_config.expect("a host config");
    let typed = config.mounts.into_iter().flatten().map(|mount| text(&mount).split_whitespace().collect::<String>());
    typed.chain(config.binds.into_iter().flatten()).collect()
}

#[test]
fn what_is_mounted_below_comes_along_or_not() {
    let bind = |recursion| MountSource::Bind {
        path: "/h".to_owned(),
        create: true,
        propagation: None,
        selinux: None,
        recursion,
    };
    let api = ApiVersion::NEWEST;
    let options = |words: &str, read_only: &str| {
        format!(
            r#"{{"BindOptions":{{"CreateMountpoint":true{words}}},{read_only}"Source":"/h","Target":"/t","Type":"bind"}}"#
        )
    };
    let read_only = r#""ReadOnly":true,"#;
    assert_eq!(mount_text(false, bind(Recursion::Enabled), api), options("", ""));
    assert_eq!(mount_text(false, bind(Recursion::Disabled), api), options(r#","NonRecursive":true"#, ""));
    let writable = mount_text(true, bind(Recursion::Writable), api);
    assert_eq!(writable, options(r#","ReadOnlyNonRecursive":true"#, read_only));
    let forced = mount_text(true, bind(Recursion::Readonly), api);
    assert_eq!(forced, options(r#","ReadOnlyForceRecursive":true"#, read_only));
    assert_eq!(mount_text(false, bind(Recursion::Enabled), ApiVersion::OLDEST), "/h:/t:rw");
    // Texts cannot say it.
    let old = mount_text(false, bind(Recursion::Disabled), ApiVersion::OLDEST);
    assert_eq!(old, r#"{"BindOptions":{"NonRecursive":true},"Source":"/h","Target":"/t","Type":"bind"}"#);
}

#[test]
fn a_volume_without_a_name_has_its_labels() {
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let made = mount_text(false, MountSource::Anonymous { no_copy: true, labels }, ApiVersion::OLDEST);
    assert_eq!(made, r#"{"Target":"/t","Type":"volume","VolumeOptions":{"Labels":{"a":"b"},"NoCopy":true}}"#);
}

#[test]
fn the_content_of_an_image_is_mounted_where_the_engine_can() {
    let source = |subpath: Option<&str>| MountSource::Image {
        image: "content:1".to_owned(),
        subpath: subpath.map(str::to_owned),
    };
    let api = ApiVersion(1, 48);
    let whole = mount_text(true, source(None), api);
    assert_eq!(whole, r#"{"ReadOnly":true,"Source":"content:1","Target":"/t","Type":"image"}"#);
    let part = mount_text(false, source(Some("a/b")), api);
    assert_eq!(part, r#"{"ImageOptions":{"Subpath":"a/b"},"Source":"content:1","Target":"/t","Type":"image"}"#);
    let mut spec = ContainerSpec::new("a", "x");
    spec.container.mounts = vec![Mount { target: "/t".to_owned(), read_only: false, source: source(None) }];
    let refused = create_request(&spec, ApiVersion(1, 47)).expect_err("too old").to_string();
    assert_eq!(refused, "a mount of type `image` needs engine API 1.48, this engine speaks 1.47");
}

#[test]
fn mounts_of_other_containers_are_theirs_by_id() {
    let mut spec = ContainerSpec::new("a", "x");
    let from = |of: &str, read_only| VolumesFrom { of: Namespace::Engine(of.to_owned()), read_only };
    spec.container.volumes_from = vec![from("container:beef", false), from("container:named", true)];
    let request = create_request(&spec, ApiVersion::OLDEST).expect("possible");
    let config = request.body.host_config.expect("a host config");
    assert_eq!(config.volumes_from, Some(vec!["beef".to_owned(), "named:ro".to_owned()]));
}
