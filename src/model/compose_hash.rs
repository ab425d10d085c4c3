//! Docker Compose's own hash of a service, a network and a volume: what `config --hash` prints and the label
//! `com.docker.compose.config-hash` holds, so that each of the two programs knows the other's containers.
//!
//! It is the SHA-256 of the JSON that Go writes of compose-go's structures: fields in the order of their declaration, keys of
//! mappings sorted, `<`, `>` and `&` escaped. [`Shape`] has that order; values are the printed model's, which is equal but for
//! what [`Shape`] mends. It must never decide what orch itself makes anew: for that there is the spec hash.
//!
//! Sources: docker/compose 2.40, `pkg/compose/hash.go` and `pkg/compose/convergence.go`; compose-go 2.9.1, package `types`;
//! Go, `encoding/json`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::ids::{ResourceKey, ServiceName};

use super::{Model, Network, Service, Volume};

mod shape;

use shape::Shape;

/// Docker Compose's hashes of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComposeHashes {
    /// Of its services.
    pub services: BTreeMap<ServiceName, ComposeHash>,
    /// Of its networks.
    pub networks: BTreeMap<ResourceKey, String>,
    /// Of its volumes.
    pub volumes: BTreeMap<ResourceKey, String>,
}

/// Docker Compose's hash of a service.
///
/// Where the service shares namespaces or mounts of others, the ids of their containers are part of it, and known only once
/// those are there: then this is what is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComposeHash {
    /// Lower-case hex.
    Hash(String),
    /// The text that is hashed, in pieces.
    Text(Vec<Piece>),
}

/// A piece of a text that is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// As it is.
    Text(String),
    /// What names a container.
    Container {
        /// In the file: `service:db`, `db:ro`.
        written: String,
        /// On the engine, before the container's id: `container:`, or nothing.
        prefix: String,
        /// The service whose container it is; `None`: the prefix says all.
        of: Option<ServiceName>,
    },
}

impl Default for ComposeHash {
    fn default() -> Self {
        Self::Hash(String::new())
    }
}

impl ComposeHash {
    /// Returns what `config --hash` prints.
    pub fn of_file(&self) -> String {
        self.complete(|piece| match piece {
            Piece::Text(text) => Some(text.clone()),
            Piece::Container { written, .. } => Some(written.clone()),
        })
        .unwrap_or_default()
    }

    /// Returns what the label of a container says, with the ids of the containers that it shares something with; `None` if
    /// one of them is not there.
    pub fn of_container<'a>(&self, id: impl Fn(&ServiceName) -> Option<&'a str>) -> Option<String> {
        self.complete(|piece| match piece {
            Piece::Text(text) => Some(text.clone()),
            Piece::Container { of: Some(of), prefix, .. } => Some(format!("{prefix}{}", id(of)?)),
            Piece::Container { of: None, prefix, .. } => Some(prefix.clone()),
        })
    }

    fn complete(&self, say: impl Fn(&Piece) -> Option<String>) -> Option<String> {
        match self {
            Self::Hash(hash) => Some(hash.clone()),
            Self::Text(pieces) => Some(sha256(&pieces.iter().map(say).collect::<Option<String>>()?)),
        }
    }
}

/// Returns the hashes of a model, in which nothing is orch's own yet: no pattern used, no profile of seccomp read.
pub fn compose_hashes(model: &Model) -> ComposeHashes {
    let Model {
        name: _,
        services,
        networks,
        volumes,
        configs: _,
        secrets: _,
        models: _,
        hosts: _,
        hashes: _,
        extensions: _,
    } = model;
    ComposeHashes {
        services: services.iter().map(|(name, service)| (name.clone(), service_hash(service))).collect(),
        networks: networks.iter().map(|(key, network)| (key.clone(), network_hash(network))).collect(),
        volumes: volumes.iter().map(|(key, volume)| (key.clone(), volume_hash(volume))).collect(),
    }
}

fn service_hash(service: &Service) -> ComposeHash {
    let mut json = json_of(service);
    if let Some(deploy) = json.get_mut("deploy").and_then(Value::as_object_mut) {
        deploy.shift_remove("replicas");
    }
    if let Some(Value::Array(files)) = json.get_mut("env_file") {
        *files = once_each(std::mem::take(files));
    }
    let added = if service.use_api_socket { with_api_socket(service, &json) } else { Map::new() };
    let mut pieces = Vec::new();
    let mut text = String::new();
    for (key, shape) in shape::SERVICE {
        if let Some(made) = added.get(*key) {
            let pair = |value: Option<&Value>| value.map(|value| written_pair(key, *shape, value)).unwrap_or_default();
            let piece = Piece::Container { written: pair(json.get(*key)), prefix: pair(Some(made)), of: None };
            pieces.extend([Piece::Text(std::mem::take(&mut text)), piece]);
            continue;
        }
        let Some(value) = json.get(*key) else { continue };
        text.push(if text.is_empty() && pieces.is_empty() { '{' } else { ',' });
        shape::write_text(key, &mut text);
        text.push(':');
        let named = containers(key, value);
        if named.is_empty() {
            shape.write(value, &mut text);
            continue;
        }
        text.push_str(if value.is_array() { "[\"" } else { "\"" });
        for (index, container) in named.into_iter().enumerate() {
            if index > 0 {
                text.push_str("\",\"");
            }
            pieces.extend([Piece::Text(std::mem::take(&mut text)), container]);
        }
        text.push_str(if value.is_array() { "\"]" } else { "\"" });
    }
    text.push('}');
    if pieces.is_empty() {
        return ComposeHash::Hash(sha256(&text));
    }
    pieces.push(Piece::Text(text));
    ComposeHash::Text(pieces)
}

/// Returns what `use_api_socket` makes of a service before its containers are made. Source: docker/compose 2.40,
/// `pkg/compose/apiSocket.go`.
fn with_api_socket(service: &Service, json: &Map<String, Value>) -> Map<String, Value> {
    let list = |key: &str, more: Value| {
        let mut items = json.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        items.push(more);
        Value::Array(items)
    };
    let socket = "/var/run/docker.sock";
    let mut made = Map::new();
    made.insert("volumes".to_owned(), list("volumes", json!({"type": "bind", "source": socket, "target": socket})));
    let file = json!({"source": "#apisocket", "target": "/run/secrets/docker/config.json"});
    made.insert("configs".to_owned(), list("configs", file));
    if !service.environment.contains_key("DOCKER_CONFIG") {
        let mut environment = json.get("environment").and_then(Value::as_object).cloned().unwrap_or_default();
        environment.insert("DOCKER_CONFIG".to_owned(), "/run/secrets/docker".into());
        made.insert("environment".to_owned(), Value::Object(environment));
    }
    made
}

/// `,"key":value`: no key of a service that is added comes first.
fn written_pair(key: &str, shape: Shape, value: &Value) -> String {
    let mut text = ",".to_owned();
    shape::write_text(key, &mut text);
    text.push(':');
    shape.write(value, &mut text);
    text
}

/// A file of variables that is named twice is hashed once: in its first place, as it was named last.
fn once_each(files: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for file in files {
        match kept.iter_mut().find(|other| other.get("path") == file.get("path")) {
            Some(other) => *other = file,
            None => kept.push(file),
        }
    }
    kept
}

/// Returns what Docker Compose puts the names of containers in the place of. Source: `resolveServiceReferences`.
fn containers(key: &str, value: &Value) -> Vec<Piece> {
    match (key, value) {
        ("network_mode" | "ipc" | "pid", Value::String(written)) => {
            let of = written.strip_prefix("service:").and_then(|name| ServiceName::new(name).ok());
            of.map(|of| Piece::Container { written: written.clone(), prefix: "container:".to_owned(), of: Some(of) })
                .into_iter()
                .collect()
        }
        ("volumes_from", Value::Array(items)) => {
            let one = |written: &str| {
                let mut words = written.split(':');
                let (prefix, of) = match words.next() {
                    Some("container") => (words.next().unwrap_or_default().to_owned(), None),
                    name => (String::new(), name.and_then(|name| ServiceName::new(name).ok())),
                };
                Piece::Container { written: written.to_owned(), prefix, of }
            };
            items.iter().filter_map(Value::as_str).map(one).collect()
        }
        _ => Vec::new(),
    }
}

fn network_hash(network: &Network) -> String {
    let mut text = String::new();
    Shape::Fields(shape::NETWORK).write(&json_of(network).into(), &mut text);
    sha256(&text)
}

/// One without a driver is hashed as of the local one.
fn volume_hash(volume: &Volume) -> String {
    let mut json = json_of(volume);
    json.entry("driver").or_insert_with(|| "local".into());
    let mut text = String::new();
    Shape::Fields(shape::VOLUME).write(&json.into(), &mut text);
    sha256(&text)
}

fn json_of(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn sha256(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        // Writing to a String cannot fail.
        write!(hex, "{byte:02x}").ok();
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let text = r#"
name: shop
services:
  web: {image: "a<b>&c", scale: 2, depends_on: {db: {condition: service_started}}, command: ["é\t"],
        deploy: {replicas: 2}, cpus: 0.1, networks: {default: null}}
  db: {image: db, ulimits: {nofile: 10, core: {soft: 0, hard: 5}}, pull_policy: always, networks: {default: null}}
  side: {image: s, network_mode: "service:web", volumes_from: ["db:ro", "container:other:ro"]}
networks: {default: {name: shop_default}}
volumes: {data: {name: shop_data}}
"#;
        serde_yaml::from_str(text).expect("a model")
    }

    /// What `docker compose config --hash` 2.40 prints of that file, and what it labels networks and volumes with.
    #[test]
    fn hashes_are_docker_composes() {
        let hashes = compose_hashes(&model());
        let of = |name: &str| hashes.services.get(name).expect("it is there").of_file();
        assert_eq!(of("web"), "624255d12e4585eb95badfb50ee996782137a757aabb4476f0743af3beae27cd");
        assert_eq!(of("db"), "44b711975546d563b4139dbe773638866c6f34374014f5a0d60e2a31f6cf9d33");
        assert_eq!(of("side"), "bdca54cff38033a25a1e3100c5c7da8a9aed8a2a181213fd1a5b952acc47589d");
        let network = hashes.networks.values().next().map(String::as_str);
        assert_eq!(network, Some("cf68f29b281a26ea487d2f198485cc165808337181dfb0f69a28e1186000dcfa"));
        let volume = hashes.volumes.values().next().map(String::as_str);
        assert_eq!(volume, Some("4e9994dd3f18d2005754ebe423d777f4baca4d40768dce9f0f672cc616414856"));
    }

    #[test]
    fn containers_that_share_something_are_hashed_with_the_ids_of_the_others() {
        let hashes = compose_hashes(&model());
        let side = hashes.services.get("side").expect("it is there");
        let ids = |name: &ServiceName| Some(if name.as_str() == "web" { "1" } else { "2" });
        let text = r#"{"command":null,"entrypoint":null,"image":"s","network_mode":"container:1","volumes_from":["2","other"]}"#;
        assert_eq!(side.of_container(ids), Some(sha256(text)));
        assert_eq!(side.of_container(|_| None), None);
        let stored = serde_json::to_string(side).expect("JSON");
        assert_eq!(serde_json::from_str::<ComposeHash>(&stored).expect("the same"), *side);
    }

    #[test]
    fn a_container_that_uses_the_engine_is_hashed_with_what_it_is_given_for_that() {
        let text = "{name: shop, services: {web: {image: i, use_api_socket: true, networks: {default: null}}}}";
        let model: Model = serde_yaml::from_str(text).expect("a model");
        let hashes = compose_hashes(&model);
        let web = hashes.services.get("web").expect("it is there");
        let start = r#"{"command":null,"#;
        let plain =
            format!(r#"{start}"entrypoint":null,"image":"i","networks":{{"default":null}},"use_api_socket":true}}"#);
        assert_eq!(web.of_file(), sha256(&plain));
        let made = format!(
            r##"{start}"configs":[{{"source":"#apisocket","target":"/run/secrets/docker/config.json"}}],"entrypoint":null,"environment":{{"DOCKER_CONFIG":"/run/secrets/docker"}},"image":"i","networks":{{"default":null}},"use_api_socket":true,"volumes":[{{"type":"bind","source":"/var/run/docker.sock","target":"/var/run/docker.sock"}}]}}"##
        );
        assert_eq!(web.of_container(|_| None), Some(sha256(&made)));
    }

    #[test]
    fn numbers_and_texts_are_written_as_go_writes_them() {
        let float = |value: f64| {
            let mut text = String::new();
            Shape::Float.write(&json!(value), &mut text);
            text
        };
        assert_eq!([0.1, 0.123_456_789, 1e-7, 2.5e-9].map(float), ["0.1", "0.12345679", "1e-7", "2.5e-9"]);
        assert_eq!([1e21, 16_777_217.0].map(float), ["1e+21", "16777216"]);
        let mut text = String::new();
        shape::write_text("\"\\\n\r\t\u{8}\u{c}\u{1}\u{7f}<>&\u{2028}é", &mut text);
        assert_eq!(text, "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\u{7f}\\u003c\\u003e\\u0026\\u2028é\"");
    }
}
