use super::*;
use crate::engine::docker::observe::Times;
use crate::observed::{ContainerState, Health};

#[test]
fn podman_says_so_among_its_components() {
    let version = |json: &str| is_podman(&serde_json::from_str(json).expect("is the engine's form"));
    assert!(version(
        r#"{"Components": [
              {"Name": "Podman Engine", "Version": "4.3.1", "Details": {"APIVersion": "4.3.1", "MinAPIVersion": "4.0.0"}},
              {"Name": "Conmon", "Version": "conmon version 2.1.6", "Details": {"Package": "Unknown"}}],
            "Version": "4.3.1", "ApiVersion": "1.41"}"#
    ));
    assert!(!version(
        r#"{"Components": [{"Name": "Engine", "Version": "20.10.24", "Details": {"ApiVersion": "1.41"}}],
            "Version": "20.10.24", "ApiVersion": "1.41"}"#
    ));
    assert!(!version(r#"{"ApiVersion": "1.41"}"#));
}

/// The answer of an inspect as Podman 4.3.1 sends it, shortened.
fn answer(status: &str, health: &str) -> Value {
    serde_json::json!({
        "Id": "10fb", "Created": "2026-11-28T16:23:36.177722529Z", "Path": "/orch", "Args": ["demo", "web"],
        "State": {
            "Status": status, "Running": status == "running", "Pid": 0, "ExitCode": 137, "Error": "",
            "StartedAt": "2026-11-28T16:23:36.286935287Z", "FinishedAt": "0001-01-01T00:00:00Z",
            "Health": {"Status": health, "FailingStreak": 0, "Log": null},
        },
        "Image": "sha256:903a", "Name": "/shop-web-1", "RestartCount": 0,
        "HostConfig": {
            "Binds": [], "NetworkMode": "bridge", "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "CgroupnsMode": "", "IpcMode": "shareable", "Isolation": "", "LogConfig": {"Type": "json-file", "Config": null},
        },
        "Mounts": [{"Type": "volume", "Name": "shop_data", "Source": "/v/shop_data/_data", "Destination": "/data"}],
        "Config": {"Labels": {"com.docker.compose.project": "shop"}, "Volumes": null, "StopSignal": "15"},
        "NetworkSettings": {"EndpointID": "", "Networks": {
            "shop_default": {"EndpointID": "", "IPAddress": "10.192.0.3", "Aliases": ["10fb"], "NetworkID": "shop_default"},
        }},
    })
}

#[test]
fn states_of_a_container_in_dockers_words() {
    let check = |word: &str, health: &str, expected: ContainerState| {
        let read = container(answer(word, health)).expect("is understood");
        let seen = Times::default().remember(observe::inspected(read));
        assert_eq!(seen.state, expected, "{word}");
        assert_eq!(seen.networks["shop_default"], Some([10, 192, 0, 3].into()));
        assert_eq!((seen.name.as_str(), seen.volumes["/data"].as_str()), ("shop-web-1", "shop_data"));
    };
    let exited = ContainerState::Exited { code: 137, by_itself: false };
    check("stopped", "", exited);
    check("exited", "", exited);
    let lost = ContainerState::Exited { code: 255, by_itself: false };
    check("created", "", lost);
    check("configured", "", lost);
    check("stopping", "", ContainerState::Running { health: Health::None });
    check("running", "", ContainerState::Running { health: Health::None });
    check("running", "starting", ContainerState::Running { health: Health::Starting });
    check("running", "unhealthy", ContainerState::Running { health: Health::Unhealthy });
    check("paused", "", ContainerState::Paused);
    check("removing", "", ContainerState::Removing);
    check("unknown", "", ContainerState::Dead);
    for word in ["created", "initialized", "configured"] {
        let mut answer = answer(word, "");
        answer["State"]["StartedAt"] = Value::from("0001-01-01T00:00:00Z");
        let seen = Times::default().remember(observe::inspected(container(answer).expect("is understood")));
        assert_eq!((seen.state, seen.started_at.as_str()), (ContainerState::Created, ""), "{word}");
    }
    assert!(container(answer("beheaded", "")).is_err(), "what nobody knows is not guessed");
}

#[test]
fn ids_of_a_list_whatever_the_states() {
    let listed = serde_json::json!([{"Id": "a", "State": "stopped"}, {"Id": "b", "State": "running"}, {"State": "x"}]);
    assert_eq!(ids(&listed), ["a", "b"]);
    assert!(ids(&Value::Null).is_empty());
}

#[test]
fn networks_have_the_interface_that_its_own_api_names() {
    let check = |json: &str, expected: &str| {
        let parsed: OwnNetwork = serde_json::from_str(json).expect("is the engine's form");
        let ObservedNetwork { name, subnet, gateway, bridge, bridge_on_demand, internal, .. } = network(parsed);
        let subnet = subnet.map(|net| net.to_string()).unwrap_or_default();
        let gateway = gateway.map(|address| address.to_string()).unwrap_or_default();
        assert_eq!(format!("{name} {subnet} {gateway} `{bridge}` {bridge_on_demand} {internal}"), expected);
    };
    check(
        r#"{"name": "n1", "id": "fdb7", "driver": "bridge", "network_interface": "podman1",
            "created": "2026-11-28T16:24:20.408144167Z", "subnets": [
              {"subnet": "fd00::/64", "gateway": "fd00::1"},
              {"subnet": "10.90.0.0/20", "gateway": "10.90.15.254",
               "lease_range": {"start_ip": "10.90.1.1", "end_ip": "10.90.1.255"}}],
            "ipv6_enabled": true, "internal": false, "dns_enabled": true, "labels": {"a": "b"},
            "ipam_options": {"driver": "host-local"}}"#,
        "n1 10.90.0.0/20 10.90.15.254 `podman1` true false",
    );
    check(
        r#"{"name": "in", "id": "1", "driver": "bridge", "network_interface": "podman2",
            "subnets": [{"subnet": "10.91.0.0/24"}], "internal": true}"#,
        "in 10.91.0.0/24  `podman2` true true",
    );
    let macvlan = r#"{"name": "lan", "id": "2", "driver": "macvlan", "network_interface": "eth0"}"#;
    check(macvlan, "lan   `` false false");
}

#[test]
fn images_have_the_names_that_they_were_loaded_by() {
    assert_eq!(own_name("localhost/orch:0123"), "orch:0123");
    assert_eq!(own_name("docker.io/library/nginx:1"), "docker.io/library/nginx:1");
}

#[test]
fn a_list_that_ends_is_asked_for_by_a_parameter() {
    let asked = |uri: &str| {
        let request = hyper::Request::get(uri).body(bollard::body_full(bytes::Bytes::new())).expect("a request");
        without_stream(request).uri().to_string()
    };
    assert_eq!(asked("unix://2f72/events?since=1"), "unix://2f72/events?since=1&stream=false");
    assert_eq!(asked("unix://2f72/events"), "unix://2f72/events?stream=false");
}

#[test]
fn an_id_stays_the_same() {
    let own = id("node1", "/var/lib/containers/storage");
    assert_eq!(own, id("node1", "/var/lib/containers/storage"));
    assert_eq!((own.len(), own.starts_with("podman-")), (39, true));
    assert_ne!(own, id("node2", "/var/lib/containers/storage"));
    assert_ne!(own, id("node1", "/home/u/.local/share/containers/storage"), "one without root");
}

#[test]
fn a_variable_without_a_value_is_not_that_of_the_engine() {
    let mut variables = ["A=b", "HOME", "EMPTY="].map(str::to_owned).to_vec();
    without_bare_names(Some(&mut variables));
    assert_eq!(variables, ["A=b", "EMPTY="]);
}

#[test]
fn no_masked_paths_are_asked_for_in_podmans_way() {
    let options = |masked: Option<Vec<String>>| {
        let config = bollard::models::HostConfig { masked_paths: masked, ..Default::default() };
        let mut body = ContainerCreateBody { host_config: Some(config), ..ContainerCreateBody::default() };
        unmask(&mut body);
        body.host_config.and_then(|config| config.security_opt)
    };
    assert_eq!(options(Some(Vec::new())), Some(vec!["unmask=ALL".to_owned()]));
    assert_eq!(options(None), None);
}

#[test]
fn what_ended_while_podman_looked_is_looked_at_again() {
    let check = |status_code: u16, message: &str, expected: bool| {
        let error = Error::DockerResponseServerError { status_code, message: message.to_owned() };
        assert_eq!(ended_meanwhile(&error), expected, "{message}");
    };
    check(500, "read /proc/1511/cgroup: no such process", true);
    check(500, "open /proc/1511/cgroup: no such file or directory", true);
    check(404, "read /proc/1511/cgroup: no such process", false);
    check(500, "no such container", false);
}
