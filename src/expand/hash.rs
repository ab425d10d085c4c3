//! The spec hash: equal for two services exactly when a container of one can stay as a container of the other; and the
//! like for networks and volumes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::graph::{Attachment, Container, Graph, MountSource, Network, NetworkMode, PortMode, Role, Service, Volume};
use crate::ids::ServiceName;

use super::file::sha256;

/// Changes when the meaning of the hash does: then every container is made anew once.
const VERSION: u32 = 1;

/// Digits of a part's hash: enough to tell a change, too few to tell a value by.
const PART_DIGITS: usize = 8;

/// Fills in every hash.
pub(super) fn seal(graph: &mut Graph) {
    let specs: Vec<Value> = graph.services.values().map(|service| spec(graph, service)).collect();
    for (service, spec) in graph.services.values_mut().zip(specs) {
        service.spec_hash = sha256(spec.to_string().as_bytes());
        service.spec_parts = parts(&spec);
    }
    seal_pods(graph);
    for network in graph.networks.values_mut() {
        network.spec_hash = network_hash(network);
    }
    for volume in graph.volumes.values_mut() {
        volume.spec_hash = volume_hash(volume);
    }
}

/// The containers of a pod are replaced as one, and what is run before a service is run again for a new one: the hash of each is
/// over all of them. Which helper changed is a part of its own.
fn seal_pods(graph: &mut Graph) {
    let prepared: BTreeSet<ServiceName> =
        graph.services.values().filter_map(|service| service.prepares_service().cloned()).collect();
    let of = |name: &ServiceName, service: &Service| match &service.part {
        Some(part) => Some(part.of.clone()),
        None => prepared.get(name).cloned(),
    };
    let mut pods: BTreeMap<ServiceName, Vec<(String, String)>> = BTreeMap::new();
    for (name, service) in &graph.services {
        let Some(front) = of(name, service) else { continue };
        let (member, order) = match &service.part {
            // Order counts: the names of the file do not sort as they run.
            Some(part) => match part.role {
                Role::Main => (front.to_string(), service.depends_on.as_slice()),
                Role::Holder => ("what its containers share".to_owned(), &[][..]),
                Role::Init | Role::Sidecar => (part.member(name).to_owned(), service.depends_on.as_slice()),
                Role::PreStart => (part.member(name).to_owned(), &[][..]),
            },
            None => (front.to_string(), &[][..]),
        };
        let spec = json!([service.spec_hash, order]).to_string();
        pods.entry(front).or_default().push((member, sha256(spec.as_bytes())));
    }
    let pods: BTreeMap<ServiceName, (String, BTreeMap<String, String>)> = pods
        .into_iter()
        .map(|(of, members)| {
            let whole = sha256(json!([VERSION, members]).to_string().as_bytes());
            let digits = |hash: &String| hash.get(..PART_DIGITS).unwrap_or_default().to_owned();
            (of, (whole, members.iter().map(|(member, hash)| (member.clone(), digits(hash))).collect()))
        })
        .collect();
    for (name, service) in &mut graph.services {
        let Some(front) = of(name, service) else { continue };
        let Some((whole, members)) = pods.get(&front) else { continue };
        service.spec_hash.clone_from(whole);
        // What is run before a service does not have what that one consists of.
        let is_own = |member: &str| service.prepares_service().is_none() && member == front.as_str();
        let others: Vec<(&String, &String)> =
            members.iter().filter(|(member, _)| !is_own(member) && !member.contains([',', '='])).collect();
        service.spec_parts.extend(others.into_iter().map(|(member, hash)| (member.clone(), hash.clone())));
    }
}

/// Hashes what makes Docker Compose 2.40 make a network anew, but for the addresses, which are compared with the engine's.
fn network_hash(network: &Network) -> String {
    let Network {
        name: _,
        external: _,
        internal,
        driver,
        driver_opts,
        labels,
        subnet: _,
        gateway: _,
        ip_range: _,
        aux_addresses,
        enable_ipv6,
        ipv6_pools,
        ipam_options,
        attachable,
        spec_hash: _,
        compose_hash: _,
    } = network;
    let mut spec =
        vec![json!(VERSION), json!(internal), json!(driver), json!(driver_opts), json!(labels), json!(attachable)];
    // Only where something is said, so that the hash of the others is as it was.
    spec.extend((!aux_addresses.is_empty()).then(|| json!(aux_addresses)));
    let says_more = *enable_ipv6 == Some(true) || !ipv6_pools.is_empty() || !ipam_options.is_empty();
    let more = || json!({"enable_ipv6": enable_ipv6, "ipv6_pools": ipv6_pools, "ipam_options": ipam_options});
    // In a list, which no mapping of addresses is taken for.
    spec.extend(says_more.then(|| json!([more()])));
    let spec = Value::Array(spec);
    sha256(spec.to_string().as_bytes())
}

/// Hashes what decides where the data of a volume is. Labels do not.
fn volume_hash(volume: &Volume) -> String {
    let Volume { name: _, external: _, driver, driver_opts, labels: _, spec_hash: _, compose_hash: _ } = volume;
    sha256(json!([VERSION, driver, driver_opts]).to_string().as_bytes())
}

/// Returns what of the spec is not at its default, by the key of the compose file, as the first digits of a hash.
fn parts(spec: &Value) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let object = |value: &'static str| spec.get(value).and_then(Value::as_object).into_iter().flatten();
    for (key, value) in object("container") {
        let files = |secret: bool| {
            let all = value.as_array().into_iter().flatten();
            all.filter(|file| file.get("secret").and_then(Value::as_bool) == Some(secret)).cloned().collect::<Vec<_>>()
        };
        match key.as_str() {
            "files" => {
                values.entry("configs".to_owned()).or_default().extend(files(false));
                values.entry("secrets".to_owned()).or_default().extend(files(true));
            }
            "host" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    values.entry(key.clone()).or_default().push(value.clone());
                }
            }
            "unset" => values.entry("environment".to_owned()).or_default().push(value.clone()),
            "name" => values.entry("container_name".to_owned()).or_default().push(value.clone()),
            "mounts" => {
                for (content, hash) in contents(value) {
                    values.entry(content).or_default().push(hash);
                }
                values.entry("volumes".to_owned()).or_default().push(without_contents(value));
            }
            other => values.entry(other.to_owned()).or_default().push(value.clone()),
        }
    }
    for (part, key) in [("network", "networks"), ("host_ports", "ports"), ("volumes", "volumes")] {
        let value = spec.get(part).filter(|value| value.as_array().is_none_or(|list| !list.is_empty()));
        values.entry(key.to_owned()).or_default().extend(value.cloned());
    }
    values.retain(|_, values| !values.is_empty());
    let digits = |values: Vec<Value>| {
        let mut hash = sha256(json!(values).to_string().as_bytes());
        hash.truncate(PART_DIGITS);
        hash
    };
    values.into_iter().map(|(key, values)| (key, digits(values))).collect()
}

/// Returns the hashes of the snapshots that are mounted, by what a change of each is called.
fn contents(mounts: &Value) -> Vec<(String, Value)> {
    let content = |mount: &Value| {
        let (target, hash) = (mount.get("target")?.as_str()?, mount.get("source")?.get("hash")?.clone());
        // The parts are one text, divided by these.
        let plain = !target.contains([',', '=']);
        Some((if plain { format!("content of {target}") } else { "content of volumes".to_owned() }, hash))
    };
    mounts.as_array().into_iter().flatten().filter_map(content).collect()
}

fn without_contents(mounts: &Value) -> Value {
    let mut mounts = mounts.clone();
    for mount in mounts.as_array_mut().into_iter().flatten() {
        if let Some(source) = mount.get_mut("source").and_then(Value::as_object_mut) {
            source.remove("hash");
        }
    }
    mounts
}

/// Returns what an existing container cannot take on.
///
/// Not in it: how many there are, what they wait for and where they run (`scale`, `depends_on`, `placement`); what orch
/// itself does and can change at any time (ingress `ports`, `expose`, `links`, aliases, `endpoint_mode`, `restart`, grace
/// period, pull policy, `rollout`). Engine names of networks and volumes are in it, the rest of them is compared with the engine.
fn spec(graph: &Graph, service: &Service) -> Value {
    let Service {
        container,
        network,
        ports,
        scale: _,
        depends_on: _,
        links: _,
        expose: _,
        restart: _,
        restart_pace: _,
        rollout: _,
        placement: _,
        endpoint_mode: _,
        stop_grace: _,
        attach: _,
        pull: _,
        part: _,
        ambassadors: _,
        external_links: _,
        export: _,
        serving: _,
        spec_hash: _,
        spec_parts: _,
        compose_hash: _,
    } = service;
    let published: Vec<_> = ports.iter().filter(|port| port.mode == PortMode::Host).collect();
    let volumes: Vec<_> = service.volumes().filter_map(|key| Some((key, &graph.volumes.get(key)?.name))).collect();
    let mut spec = json!({
        "version": VERSION,
        "container": sparse(container),
        "network": network_spec(graph, network),
        "host_ports": published,
        "volumes": volumes,
    });
    let own = container.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::PodVolume { volume } => Some((volume.to_string(), json!(graph.pod_volumes.get(volume)))),
        _ => None,
    });
    let own: Map<String, Value> = own.collect();
    if let (Some(spec), false) = (spec.as_object_mut(), own.is_empty()) {
        spec.insert("pod_volumes".to_owned(), Value::Object(own));
    }
    spec
}

/// Returns the container without what is at its default, so that an attribute added in a later version of orch does not
/// change the hash of those that do not use it.
fn sparse(container: &Container) -> Map<String, Value> {
    let object = |container: &Container| match serde_json::to_value(container) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    let default = object(&Container::default());
    object(container).into_iter().filter(|(key, value)| default.get(key) != Some(value)).collect()
}

fn network_spec(graph: &Graph, network: &NetworkMode) -> Value {
    match network {
        NetworkMode::Networks(attachments) => {
            let of = |attachment: &Attachment| {
                let Attachment { network, aliases: _, ipv4, ipv6, mac, link_local, driver_opts, interface } =
                    attachment;
                let mut spec = vec![json!(graph.networks.get(network).map(|one| &one.name)), json!(ipv4), json!(mac)];
                // Only where something is said, so that the hash of the others is as it was.
                if !(link_local.is_empty() && driver_opts.is_empty() && interface.is_none()) {
                    spec.extend([json!(link_local), json!(driver_opts), json!(interface)]);
                }
                spec.extend(ipv6.map(|ipv6| json!({"ipv6": ipv6})));
                Value::Array(spec)
            };
            attachments.iter().map(of).collect()
        }
        NetworkMode::Host => json!("host"),
        NetworkMode::None => json!("none"),
        NetworkMode::Service(owner) => json!(format!("service:{owner}")),
        NetworkMode::Engine(mode) => json!(mode),
    }
}
