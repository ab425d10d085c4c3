//! The same file brought up by Docker Compose and by orch on one engine, and what `docker inspect` says of each container,
//! network and volume compared, field by field. What differs by design is listed with its reason; each entry of a list must be seen.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::host::{Done, Host};

/// What runs.
const FILE: &str = include_str!("parity.yaml");
/// What is only made: nobody here has a second disk.
const CREATED: &str = include_str!("parity-created.yaml");

/// Where orch does otherwise: a path, with `*` for any key (or its rest), and the reason.
const DELIBERATE: &[(&str, &str)] = &[
    ("Config.Image", "containers are made of the image's id, so that a tag that is moved meanwhile changes nothing"),
    ("Config.Labels.orch.*", "what orch knows its containers by"),
    ("Config.Labels.com.docker.compose.config-hash", "has in it the ids of containers that something is shared with"),
    ("Config.Labels.com.docker.compose.version", "the version of the tool"),
    ("Config.StopTimeout", "said always, so that whoever stops the container by hand gives it its time"),
    ("Config.AttachStdout", "nobody is attached to containers that an agent makes"),
    ("Config.AttachStderr", "nobody is attached to containers that an agent makes"),
    ("HostConfig.RestartPolicy.Name", "the agent starts containers again, in order, and the engine none"),
    ("HostConfig.PortBindings.80/tcp.*", "the load balancer publishes it, on every host"),
    ("HostConfig.Dns", "asked by orch's own DNS, which is in the container's `resolv.conf`"),
    ("HostConfig.DnsSearch", "in the container's own `resolv.conf`"),
    ("HostConfig.DnsOptions", "in the container's own `resolv.conf`"),
    ("Mounts./etc/resolv.conf.*", "orch's own DNS"),
    (
        "Mounts./run/secrets/docker/config.json.*",
        "the user's logins are a secret in memory, and not copied into the container",
    ),
    ("Network.IPAM.Config.0.*", "a network is the same on all hosts, so orch chooses its addresses of IPv4"),
    ("Network.Labels.orch.*", "what orch knows its networks by"),
    ("Network.Labels.com.docker.compose.version", "the version of the tool"),
    ("Volume.Labels.orch.*", "what orch knows its volumes by"),
    ("Volume.Labels.com.docker.compose.version", "the version of the tool"),
];

/// Parts of an inspection that say what was asked for. The rest says what became of it this time: ids, times, addresses.
fn asked(container: &Value) -> Value {
    let mut asked = serde_json::Map::new();
    for part in ["Config", "HostConfig"] {
        asked.insert(part.to_owned(), container[part].clone());
    }
    if let Some(host) = asked["HostConfig"].as_object_mut() {
        // What comes of these is in `Mounts`, whichever of the engine's forms it was asked for in.
        for form in ["Binds", "Mounts", "VolumesFrom"] {
            host.remove(form);
        }
    }
    if let Some(limits) = container["HostConfig"]["Ulimits"].as_array() {
        let by_name = limits.iter().map(|limit| (limit["Name"].as_str().expect("a name").to_owned(), limit.clone()));
        asked["HostConfig"]["Ulimits"] = Value::Object(by_name.collect());
    }
    let mounts = container["Mounts"].as_array().expect("a list").iter().map(|mount| {
        let mut mount = mount.clone();
        let target = mount["Destination"].as_str().expect("a path").to_owned();
        let without_name = mount["Name"].as_str().is_some_and(|name| name.len() == 64);
        let fields = mount.as_object_mut().expect("an object");
        // `z` stands for nothing on an engine without SELinux; a volume without a name has one of the engine's.
        for field in ["Mode", "Source"].into_iter().chain(without_name.then_some("Name")) {
            fields.remove(field);
        }
        (target, mount)
    });
    asked.insert("Mounts".to_owned(), Value::Object(mounts.collect()));
    let networks = container["NetworkSettings"]["Networks"].as_object().expect("an object").iter();
    let networks = networks.map(|(name, endpoint)| {
        let fields = ["IPAMConfig", "Links", "Aliases", "DriverOpts"];
        (name.clone(), fields.into_iter().map(|field| (field.to_owned(), endpoint[field].clone())).collect())
    });
    asked.insert("NetworkSettings".to_owned(), serde_json::json!({"Networks": Value::Object(networks.collect())}));
    Value::Object(asked)
}

/// Every value by its path. What says nothing (`null`, 0, `false`, nothing in it) is as if it was not there.
fn flat(value: &Value, path: &str, all: &mut BTreeMap<String, String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flat(value, &below(key), all)),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().enumerate().for_each(|(index, value)| flat(value, &below(&index.to_string()), all));
        }
        Value::Array(list) if list.is_empty() => {}
        Value::Array(list) => {
            // Order counts in commands only.
            let mut words: Vec<String> = list.iter().map(Value::to_string).collect();
            if !path.ends_with("Cmd") && !path.ends_with("Entrypoint") {
                words.sort();
            }
            all.insert(path.to_owned(), words.join(" "));
        }
        Value::Null | Value::Bool(false) => {}
        Value::Number(number) if number.as_f64() == Some(0.0) => {}
        Value::String(text) if text.is_empty() => {}
        scalar => drop(all.insert(path.to_owned(), scalar.to_string())),
    }
}

/// Returns what was asked of the engine for each container of the project, by its name.
fn containers(host: &Host) -> BTreeMap<String, BTreeMap<String, String>> {
    let ids = host.docker(&["ps", "-aq", "--no-trunc", "--filter", "label=com.docker.compose.project=parity"]);
    let ids: Vec<&str> = ids.split_whitespace().collect();
    let text = host.docker(&[&["inspect"], ids.as_slice()].concat());
    let list: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let names: Vec<(String, String)> = list
        .iter()
        .map(|container| {
            let word = |field: &str| container[field].as_str().expect("text").trim_start_matches('/').to_owned();
            (word("Id"), word("Name"))
        })
        .collect();
    let one = |container: &Value| {
        // Ids of containers are names of this time.
        let mut text = asked(container).to_string();
        for (id, name) in &names {
            text = text.replace(id.as_str(), &format!("<{name}>")).replace(&id[..12], &format!("<{name}>"));
        }
        let mut all = BTreeMap::new();
        flat(&serde_json::from_str(&text).expect("JSON"), "", &mut all);
        (container["Name"].as_str().expect("a name").trim_start_matches('/').to_owned(), all)
    };
    list.iter().map(one).collect()
}

/// Returns what was asked of the engine for each network and volume of the project, by kind and name.
fn shared(host: &Host) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (kind, title, fields) in [
        (
            "network",
            "Network",
            &["Driver", "EnableIPv6", "IPAM", "Internal", "Attachable", "Options", "Labels", "Scope"][..],
        ),
        ("volume", "Volume", &["Driver", "Options", "Labels", "Scope"]),
    ] {
        let names = host.docker(&[kind, "ls", "-q", "--filter", "label=com.docker.compose.project=parity"]);
        for name in names.split_whitespace() {
            let text = host.docker(&[kind, "inspect", name]);
            let list: Vec<Value> = serde_json::from_str(&text).expect("JSON");
            let asked: serde_json::Map<_, _> =
                fields.iter().map(|field| ((*field).to_owned(), list[0][*field].clone())).collect();
            let mut values = BTreeMap::new();
            flat(&Value::Object(asked), title, &mut values);
            all.insert(format!("{kind} {}", list[0]["Name"].as_str().expect("a name")), values);
        }
    }
    all
}

/// Returns the entry of the list that a path is of.
fn deliberate(path: &str, list: &[(&'static str, &str)]) -> Option<&'static str> {
    list.iter().map(|(pattern, _)| *pattern).find(|pattern| {
        let mut parts = pattern.split('*');
        let mut rest = parts.next().and_then(|first| path.strip_prefix(first));
        for part in parts {
            rest = match rest {
                Some(_) if part.is_empty() => Some(""),
                Some(rest) => rest.find(part).map(|at| &rest[at + part.len()..]),
                None => None,
            };
        }
        rest == Some("")
    })
}

/// The program to compare with, on the host.
fn reference(host: &Host) -> String {
    let program = std::env::var_os("ORCH_COMPOSE_REFERENCE").filter(|name| name != "required");
    let program = program.expect("ORCH_COMPOSE_REFERENCE names Docker Compose 2.40, see `scripts/setup reference`");
    host.give("docker-compose", program.as_ref())
}

/// What was asked of the engine, by its name and then by its path.
type All = BTreeMap<String, BTreeMap<String, String>>;

/// Returns what Docker Compose has the engine make of a file, with `command`, and then what orch does.
#[track_caller]
fn made_by_both(host: &Host, yaml: &str, command: &[&str]) -> (All, All) {
    let compose = reference(host);
    host.write("/root/parity/compose.yaml", yaml);
    host.write("/root/parity/conf", "a=1\n");
    host.write("/root/parity/pass", "hunter2\n");
    host.write("/root/parity/vars.env", "OF_FILE=1\nQUOTED=\"a b\"\nBARE\n");
    host.write("/root/parity/more.labels", "of.file=1\n");
    host.write("/root/parity/dir/file", "content\n");
    let theirs =
        |args: &[&str]| -> Done { host.exec(&[&[compose.as_str(), "-f", "/root/parity/compose.yaml"], args].concat()) };
    let all = || -> All { containers(host).into_iter().chain(shared(host)).collect() };
    theirs(command).ok();
    let expected = all();
    theirs(&["down", "-v", "-t", "0"]).ok();
    host.orch(&[&["-f", "/root/parity/compose.yaml"], command].concat()).ok();
    (expected, all())
}

/// Has both programs make what a file says, with `command`, and compares.
#[track_caller]
fn compare(host: &Host, yaml: &str, command: &[&str], list: &[(&'static str, &str)]) -> usize {
    let (expected, made) = made_by_both(host, yaml, command);
    let names = |all: &All| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&made), names(&expected));

    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for (name, made) in &made {
        let expected = &expected[name];
        let paths: BTreeSet<&String> = made.keys().chain(expected.keys()).collect();
        for path in paths.into_iter().filter(|path| made.get(*path) != expected.get(*path)) {
            match deliberate(path, list) {
                Some(pattern) => drop(seen.insert(pattern)),
                None => wrong.push(format!("{name} {path}: {:?}, not {:?}", made.get(path), expected.get(path))),
            }
        }
    }
    let unseen: Vec<&str> =
        list.iter().map(|(pattern, _)| *pattern).filter(|pattern| !seen.contains(pattern)).collect();
    let (wrong, unseen) = (wrong.join("\n"), unseen.join("\n"));
    assert!(
        wrong.is_empty() && unseen.is_empty(),
        "orch, and not as Docker Compose:\n{wrong}\nlisted, and no difference:\n{unseen}"
    );
    made.values().map(BTreeMap::len).sum()
}

#[test]
fn containers_networks_and_volumes_are_what_docker_compose_makes_of_the_same_file_but_for_what_is_listed() {
    let host = Host::boot(&["busybox"]);
    let count = compare(&host, FILE, &["up", "-d"], DELIBERATE);
    assert!(count > 350, "only {count} fields compared");
}

#[test]
fn what_cannot_be_started_here_is_asked_of_the_engine_as_docker_compose_does() {
    let host = Host::boot(&["busybox"]);
    host.docker(&["network", "create", "outside"]);
    host.docker(&["volume", "create", "kept"]);
    let not_here = [
        "HostConfig.PortBindings.80/tcp.*",
        "HostConfig.Dns",
        "HostConfig.DnsSearch",
        "HostConfig.DnsOptions",
        "Mounts./run/secrets/docker/config.json.*",
    ];
    let mut list: Vec<_> = DELIBERATE.iter().copied().filter(|(path, _)| !not_here.contains(path)).collect();
    list.extend([
        ("NetworkSettings.Networks.*.Links", "links are names of orch's own DNS, on all hosts"),
        ("HostConfig.PortBindings.9*", "the balancer has the port, on all hosts"),
        ("HostConfig.RestartPolicy.MaximumRetryCount", "the agent starts it again"),
        ("HostConfig.Isolation", "the word for what is so anyway is not sent"),
        ("Mounts./scratch.*", "memory is a mount, which has a mode and a size of its own"),
    ]);
    let count = compare(&host, CREATED, &["create"], &list);
    assert!(count > 150, "only {count} fields compared");
}

/// Drivers are asked when a container starts only, so that none needs to be here.
const DEVICES: &str = "\
name: parity
services:
  all: {image: busybox, gpus: all}
  some:
    image: busybox
    gpus: [{driver: nvidia, count: 2, capabilities: [utility], options: {a: b, c: 1}}, {device_ids: ['0', GPU-3a]}]
  reserved:
    image: busybox
    deploy:
      resources:
        reservations:
          devices:
            - {capabilities: [gpu], count: 1}
            - {driver: nvidia, device_ids: ['1'], capabilities: [gpu, compute]}
            - {driver: nvidia, capabilities: [gpu], count: all, options: {virtualization: 'false'}}
            - {capabilities: [gpu]}
";

#[test]
fn devices_are_asked_of_the_engines_drivers_as_docker_compose_does() {
    let host = Host::boot(&["busybox"]);
    host.sh("sed -i 's#^{#{\"runtimes\": {\"nvidia\": {\"path\": \"/usr/bin/runc\"}}, #' /etc/docker/daemon.json");
    host.restart_engine();
    let (expected, made) = made_by_both(&host, DEVICES, &["create"]);
    let requests = |all: All| -> Vec<String> {
        let fields =
            all.into_iter().flat_map(|(name, fields)| fields.into_iter().map(move |field| (name.clone(), field)));
        let fields = fields.filter(|(_, (path, _))| path.starts_with("HostConfig.DeviceRequests."));
        fields.map(|(name, (path, value))| format!("{name} {path} {value}")).collect()
    };
    let (expected, made) = (requests(expected), requests(made));
    assert!(expected.len() > 15, "{expected:#?}");
    assert_eq!(made, expected);
}
