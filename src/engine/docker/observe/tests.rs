use super::*;

#[test]
fn states_by_the_words_of_a_list() {
    use ContainerSummaryStateEnum as State;
    let check = |state: State, status: &str, expected: ContainerState| {
        assert_eq!(listed_state(Some(state), status), expected, "{status}");
    };
    let running = |health| ContainerState::Running { health };
    let exited = |code| ContainerState::Exited { code, by_itself: false };
    check(State::RUNNING, "Up 3 seconds", running(Health::None));
    check(State::RUNNING, "Up About an hour (healthy)", running(Health::Healthy));
    check(State::RUNNING, "Up 2 minutes (unhealthy)", running(Health::Unhealthy));
    check(State::RUNNING, "Up 1 second (health: starting)", running(Health::Starting));
    check(State::PAUSED, "Up 2 minutes (Paused)", ContainerState::Paused);
    check(State::RESTARTING, "Restarting (1) 3 seconds ago", ContainerState::Restarting);
    check(State::EXITED, "Exited (0) Less than a second ago", exited(0));
    check(State::EXITED, "Exited (137) 3 seconds ago", exited(137));
    check(State::EXITED, "Exited", exited(-1));
    check(State::DEAD, "Dead", ContainerState::Dead);
    check(State::REMOVING, "Removal In Progress", ContainerState::Removing);
    check(State::CREATED, "Created", ContainerState::Created);
}

/// An entry of `GET /containers/json` as Docker Engine 20.10.24 sends it.
const LISTED: &str = r#"{
  "Id": "5f1c", "Names": ["/other/alias", "/shop-web-2"], "Image": "orch/demo", "ImageID": "sha256:aa", "Command": "/orch demo",
  "Created": 1763737200, "Ports": [], "State": "running", "Status": "Up 2 minutes (healthy)",
  "Labels": {
    "com.docker.compose.project": "shop", "com.docker.compose.service": "web",
    "com.docker.compose.container-number": "2", "com.docker.compose.oneoff": "False",
    "orch.spec-hash": "beef", "orch.generation": "7"
  },
  "HostConfig": {"NetworkMode": "shop_default"},
  "NetworkSettings": {"Networks": {
    "shop_default": {"IPAddress": "10.192.0.3", "EndpointID": "e1"}, "shop_back": {"IPAddress": "", "EndpointID": "e0"}
  }},
  "Mounts": [
    {"Type": "volume", "Name": "shop_data", "Source": "/var/lib/docker/volumes/shop_data/_data", "Destination": "/data"},
    {"Type": "bind", "Source": "/etc", "Destination": "/host"}
  ]
}"#;

#[test]
fn an_entry_of_the_list() {
    let summary: ContainerSummary = serde_json::from_str(LISTED).expect("is the engine's form");
    let seen = listed(summary);
    assert_eq!(seen.mark, "e0e1");
    let container = ObservedContainer { labels: BTreeMap::new(), ..seen.container };
    insta::assert_snapshot!(serde_json::to_string_pretty(&container).expect("serialises"), @r#"
    {
      "id": "5f1c",
      "name": "shop-web-2",
      "project": "shop",
      "service": "web",
      "number": 2,
      "oneoff": false,
      "spec_hash": "beef",
      "generation": 7,
      "image_id": "sha256:aa",
      "state": {
        "running": {
          "health": "healthy"
        }
      },
      "created_at": "2025-11-21T15:00:00Z",
      "started_at": "",
      "finished_at": "",
      "command": "/orch demo",
      "networks": {
        "shop_back": null,
        "shop_default": "10.192.0.3"
      },
      "network_mode": "shop_default",
      "volumes": {
        "/data": "shop_data"
      },
      "labels": {}
    }
    "#);
}

#[test]
fn times_are_known_until_the_next_start_or_end() {
    let seen = |mark: &str| {
        let summary: ContainerSummary = serde_json::from_str(LISTED).expect("is the engine's form");
        let Seen { container, .. } = listed(summary);
        Seen { container: ObservedContainer { started_at: "then".into(), ..container }, mark: mark.into() }
    };
    let times = Times::default();
    assert_eq!(times.of(&seen("a")), None);
    times.remember(seen("a"));
    assert_eq!(times.of(&seen("a")).map(|known| known.started_at).as_deref(), Some("then"));
    assert_eq!(times.of(&seen("b")), None, "it was restarted");
    times.remember(seen(""));
    assert_eq!(times.of(&seen("")), None, "without endpoints nothing tells starts apart");
    let ended = ContainerState::Exited { code: 3, by_itself: false };
    assert_eq!(mark(ended, &HashMap::new()), "ended with 3");
}

#[test]
fn networks_and_their_bridges() {
    let check = |json: &str, expected: &str| {
        let parsed: Network = serde_json::from_str(json).expect("is the engine's form");
        let ObservedNetwork { name, subnet, gateway, bridge, .. } = network(parsed);
        let subnet = subnet.map(|net| net.to_string()).unwrap_or_default();
        let gateway = gateway.map(|address| address.to_string()).unwrap_or_default();
        assert_eq!(format!("{name} {subnet} {gateway} {bridge}"), expected);
    };
    check(
        r#"{"Name": "a", "Id": "0123456789abcdef", "Driver": "bridge", "Options": {},
            "IPAM": {"Driver": "default", "Options": null, "Config": [
              {"Subnet": "fd00::/64", "Gateway": "fd00::1"}, {"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1"}]}}"#,
        "a 10.1.0.0/16 10.1.0.1 br-0123456789ab",
    );
    check(
        r#"{"Name": "bridge", "Id": "01", "Driver": "bridge", "Options": {"com.docker.network.bridge.name": "docker0"},
            "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}}"#,
        "bridge 172.17.0.0/16  docker0",
    );
    check(r#"{"Name": "host", "Id": "02", "Driver": "host", "IPAM": {"Config": null}}"#, "host   ");
}
