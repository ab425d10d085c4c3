//! The spec hash: equal for two services exactly when a container of one can stay as a container of the other.

use serde_json::{Map, Value, json};

use crate::graph::{Attachment, Container, Graph, NetworkMode, PortMode, Service};

use super::file::sha256;

/// Changes when the meaning of the hash does: then every container is made anew once.
const VERSION: u32 = 1;

/// Fills in every service's hash.
pub(super) fn seal(graph: &mut Graph) {
    let hashes: Vec<String> = graph.services.values().map(|service| spec_hash(graph, service)).collect();
    for (service, hash) in graph.services.values_mut().zip(hashes) {
        service.spec_hash = hash;
    }
}

/// Hashes what an existing container cannot take on.
///
/// Not in it: how many there are, what they wait for and where they run (`scale`, `depends_on`, `placement`); what orch
/// itself does and can change at any time (ingress `ports`, `expose`, `links`, aliases, `endpoint_mode`, `restart`, grace
/// period, pull policy). Engine names of networks and volumes are in it, the rest of them is compared with the engine.
fn spec_hash(graph: &Graph, service: &Service) -> String {
    let Service {
        container,
        network,
        ports,
        scale: _,
        depends_on: _,
        links: _,
        expose: _,
        restart: _,
        placement: _,
        endpoint_mode: _,
        stop_grace: _,
        attach: _,
        pull: _,
        spec_hash: _,
    } = service;
    let published: Vec<_> = ports.iter().filter(|port| port.mode == PortMode::Host).collect();
    let volumes: Vec<_> = service.volumes().filter_map(|key| Some((key, &graph.volumes.get(key)?.name))).collect();
    let spec = json!({
        "version": VERSION,
        "container": sparse(container),
        "network": network_spec(graph, network),
        "host_ports": published,
        "volumes": volumes,
    });
    sha256(spec.to_string().as_bytes())
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
                let Attachment { network, aliases: _, ipv4, mac } = attachment;
                json!([graph.networks.get(network).map(|network| &network.name), ipv4, mac])
            };
            attachments.iter().map(of).collect()
        }
        NetworkMode::Host => json!("host"),
        NetworkMode::None => json!("none"),
        NetworkMode::Service(owner) => json!(format!("service:{owner}")),
        NetworkMode::Engine(mode) => json!(mode),
    }
}
