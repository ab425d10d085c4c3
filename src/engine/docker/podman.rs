//! Podman behind the Docker API: where its answers differ, and how they are read. Seen on 4.3.1.
//!
//! * Containers have states that Docker has not (`stopped`: ended, not yet cleaned up), and its list says neither health
//!   nor network mode: so each container is looked at. See [`container`].
//! * Only its own API says which interface a network has, and the interface is there only while a container runs on the
//!   network. See [`network`].
//! * Events have words of their own, and no word for a stop by hand. See [`events`].
//! * Logs have whole seconds. See [`logs`].
//! * It says another id of itself whenever it is asked. See [`id`].
//! * Its list of processes is asked of its own API, and the exit code of a container that removes itself before it is
//!   gone.
//! * Images that no registry was named for are `localhost/NAME`. See [`own_name`].
//!
//! What is the same but for its words is in [`super::error`].

mod archive;
pub(super) mod events;
pub(super) mod logs;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerTopResponse, RestartPolicyNameEnum, SystemVersion,
};
use bollard::query_parameters::EventsOptions;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::events::Reader;
use super::{DockerEngine, Tried, observe, plain};
use crate::engine::{BoxStream, Engine as _, EngineError, EngineEvent, EventQuery, LogChunk, LogQuery, Result};
use crate::observed::{ObservedContainer, ObservedNetwork};

/// The oldest version of its own API, which it has kept since.
const OWN_API: &str = "/v4.0.0/libpod";

/// Inspects under way at once, as many as for Docker.
const PARALLEL_INSPECTS: usize = 8;

/// Within this it has started again what is to run always: it takes it some 0.2 s to clean up.
const STARTED_AGAIN: Duration = Duration::from_millis(500);

/// How often one container is looked at when its process ends at that very moment, and how long after each other: one
/// that crashes at once and is started again does so some four times a second.
const MOST_LOOKS: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Exit code of what a power loss ended; Docker's.
const LOST: i64 = 255;

/// Returns whether an engine says that it is Podman.
pub(super) fn is_podman(version: &SystemVersion) -> bool {
    version.components.iter().flatten().any(|component| component.name == "Podman Engine")
}

/// Returns whether a look failed because the process ended between two reads of Podman's below `/proc`.
fn ended_meanwhile(error: &Error) -> bool {
    let Error::DockerResponseServerError { status_code: 500, message } = error else { return false };
    let gone = ["no such process", "no such file or directory"];
    message.contains("/proc/") && gone.iter().any(|words| message.to_lowercase().contains(words))
}

impl DockerEngine {
    /// One request for the list and one for each container on it. `filter` is a label, with or without its value.
    pub(super) async fn podman_containers(&self, filter: &str) -> Result<BTreeMap<String, ObservedContainer>> {
        let filters = serde_json::json!({"label": [filter]}).to_string();
        let path = format!("/containers/json?all=true&filters={}", plain::word(&filters));
        let listed = self.call("container_list", Tried::new("list containers", ""), self.plain(&path)).await?;
        stream::iter(ids(&listed))
            .map(|id| async move { self.inspect(&id).await })
            .buffer_unordered(PARALLEL_INSPECTS)
            // One that went away since it was listed.
            .filter(|answer| future::ready(!matches!(answer, Err(EngineError::NotFound { .. }))))
            .map_ok(|answer| {
                let container = self.known.remember(observe::inspected(answer));
                (container.id.clone(), container)
            })
            .try_collect()
            .await
    }

    /// Asks for everything about one container; again where its process ended under Podman's eyes.
    pub(super) async fn podman_container(&self, id_or_name: &str) -> Result<ContainerInspectResponse, Error> {
        let path = format!("/containers/{}/json", plain::word(id_or_name));
        let mut looks = 1;
        let answer = loop {
            match self.plain(&path).await {
                Err(error) if looks < MOST_LOOKS && ended_meanwhile(&error) => {
                    looks += 1;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                answer => break answer?,
            }
        };
        container(answer).map_err(|err| Error::JsonSerdeError { err })
    }

    /// Returns all networks by name.
    pub(super) async fn podman_networks(&self) -> Result<BTreeMap<String, ObservedNetwork>> {
        let path = format!("{OWN_API}/networks/json");
        let listed = async {
            let answer = self.plain(&path).await?;
            serde_json::from_value::<Vec<OwnNetwork>>(answer).map_err(|err| Error::JsonSerdeError { err })
        };
        let networks = self.call("network_list", Tried::new("list networks", ""), listed).await?;
        Ok(networks.into_iter().map(network).map(|network| (network.name.clone(), network)).collect())
    }

    /// Returns an image's archive with the names that its images have elsewhere.
    pub(super) fn podman_archive(
        reference: &str,
        archive: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        if own_name(reference) != reference {
            return archive; // so named by the user
        }
        let end = stream::once(future::ready(Ok(None)));
        let pieces = archive.map_ok(Some).chain(end);
        let mut renamed = archive::Renamed::default();
        let pieces = pieces.map_ok(move |piece| match piece {
            Some(piece) => renamed.take(&piece),
            None => renamed.rest(),
        });
        pieces.try_filter(|piece| future::ready(!piece.is_empty())).boxed()
    }

    /// Returns what is to be known after a stop: a container that it starts again whenever it ends can only be stopped while
    /// it runs, and crashes hide that.
    pub(super) async fn podman_stopped(&self, id_or_name: &str) -> Result<bool> {
        let runs = async || {
            let container = match self.inspect(id_or_name).await {
                Ok(container) => container,
                Err(EngineError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let policy = container.host_config.and_then(|config| config.restart_policy?.name);
            let state = container.state.unwrap_or_default();
            let always = policy == Some(RestartPolicyNameEnum::ALWAYS);
            Ok(always.then_some((state.running.unwrap_or_default(), state.started_at)))
        };
        let Some(first) = runs().await? else { return Ok(true) };
        tokio::time::sleep(STARTED_AGAIN).await;
        Ok(runs().await?.is_none_or(|second| second == first && !second.0))
    }

    /// Returns the output of a container, with times as Docker's.
    pub(super) fn podman_logs<'a>(&'a self, container: &'a str, query: &LogQuery) -> BoxStream<'a, Result<LogChunk>> {
        let query = query.clone();
        let opened = async move {
            // Following what has ended, it may leave out the last lines.
            let ended = query.follow
                && match self.inspect(container).await {
                    Ok(seen) => !seen.state.and_then(|state| state.running).unwrap_or_default(),
                    Err(EngineError::NotFound { .. }) => false, // as the logs will say
                    Err(error) => return Err(error),
                };
            let chunks = self.raw_logs(container, &LogQuery { follow: query.follow && !ended, ..query });
            let mut times = query.timestamps.then(logs::Times::default);
            Ok(chunks.map_ok(move |chunk| match &mut times {
                Some(times) => times.rewrite(chunk),
                None => chunk,
            }))
        };
        stream::once(opened).try_flatten().boxed()
    }

    /// Returns events in Docker's words.
    pub(super) fn podman_events(
        &self,
        options: impl Fn(&EventQuery) -> EventsOptions,
        query: &EventQuery,
    ) -> BoxStream<'static, Result<EngineEvent>> {
        let reader = if query.project.is_some() { Reader::Person } else { Reader::Agent };
        let wider = events::widened(query);
        let (stream, list) = (options(&wider), options(&EventQuery { until: None, ..wider }));
        let (engine, query) = (self.clone(), query.clone());
        let opened = async move {
            // Asked until a time that has come, it would say nothing at all.
            let over = match query.until {
                Some(until) => engine.now_nanos().await? >= until,
                None => false,
            };
            let events = if over {
                engine.raw_events(&engine.docker.clone().with_request_modifier(without_stream), list)
            } else {
                engine.raw_events(&engine.docker, stream)
            };
            Ok(events::translated(events, reader, &query))
        };
        stream::once(opened).try_flatten().boxed()
    }

    async fn plain(&self, path: &str) -> Result<Value, Error> {
        plain::get(&self.socket, path).await
    }
}

/// Asks for what is known and no more: a parameter that Docker has not.
fn without_stream(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    let uri = request.uri();
    let sign = if uri.query().is_some() { '&' } else { '?' };
    let mut parts = uri.clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", hyper::http::uri::PathAndQuery::as_str);
    parts.path_and_query = format!("{path}{sign}stream=false").parse().ok();
    if let Ok(uri) = hyper::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

fn ids(listed: &Value) -> Vec<String> {
    let ids = listed.as_array().into_iter().flatten().filter_map(|entry| entry.get("Id")?.as_str());
    ids.map(str::to_owned).collect()
}

/// Reads the answer of an inspect, with states in Docker's words.
fn container(mut answer: Value) -> Result<ContainerInspectResponse, serde_json::Error> {
    let text = |path: &str| answer.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let word = docker_state(text("/State/Status"));
    // After a boot what ran is as if it had never been started, but for that time.
    let lost = word == "created" && !text("/State/StartedAt").starts_with("0001-");
    let word = Value::from(if lost { "exited" } else { word });
    if let Some(state) = answer.get_mut("State").and_then(Value::as_object_mut) {
        state.insert("Status".to_owned(), word);
        if lost {
            state.insert("ExitCode".to_owned(), Value::from(LOST));
        }
    }
    serde_json::from_value(answer)
}

impl DockerEngine {
    /// Lists a container's processes. Behind Docker's API Podman runs `ps` inside the container, where there may be none.
    pub(super) async fn podman_processes(&self, id_or_name: &str) -> Result<ContainerTopResponse, Error> {
        let path = format!("{OWN_API}/containers/{}/top?stream=false", plain::word(id_or_name));
        let answer = match self.plain(&path).await {
            // It says nothing at all of one that does not run.
            Err(Error::JsonSerdeError { err }) if err.is_eof() => {
                let message = format!("container {id_or_name} is not running");
                Err(Error::DockerResponseServerError { status_code: 409, message })
            }
            answer => answer,
        };
        serde_json::from_value(answer?).map_err(|err| Error::JsonSerdeError { err })
    }
}

/// Source of the words: podman, libpod/define/containerstate.go.
fn docker_state(word: &str) -> &str {
    match word {
        "configured" | "initialized" => "created",
        "stopped" => "exited",
        // It cannot say what became of it.
        "unknown" => "dead",
        other => other,
    }
}

/// A network as Podman's own API has it.
#[derive(Debug, Deserialize)]
struct OwnNetwork {
    name: String,
    id: String,
    #[serde(default)]
    driver: String,
    #[serde(default)]
    network_interface: String,
    #[serde(default)]
    subnets: Option<Vec<OwnSubnet>>,
    #[serde(default)]
    ipv6_enabled: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct OwnSubnet {
    subnet: IpNet,
    #[serde(default)]
    gateway: Option<std::net::IpAddr>,
}

fn network(network: OwnNetwork) -> ObservedNetwork {
    let OwnNetwork { name, id, driver, network_interface, subnets, ipv6_enabled, internal, labels } = network;
    let ipv4 = subnets.into_iter().flatten().find_map(|pool| match (pool.subnet, pool.gateway) {
        (IpNet::V4(subnet), Some(std::net::IpAddr::V4(gateway))) => Some((subnet, Some(gateway))),
        (IpNet::V4(subnet), _) => Some((subnet, None)),
        (IpNet::V6(_), _) => None,
    });
    let (subnet, gateway) = ipv4.unzip();
    let is_bridge = driver == "bridge";
    ObservedNetwork {
        id,
        name,
        driver,
        subnet,
        gateway: gateway.flatten(),
        ipv6: ipv6_enabled,
        internal,
        // Of other drivers it is an interface of the host's own, which orch has nothing to do with.
        bridge: if is_bridge { network_interface } else { String::new() },
        bridge_on_demand: is_bridge,
        labels: labels.unwrap_or_default().into_iter().collect(),
    }
}

/// Returns an id for an engine that has none: the same whenever it is asked, and as good as the names of hosts are.
pub(super) fn id(hostname: &str, root_dir: &str) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(format!("{hostname}\0{root_dir}"));
    digest[..16].iter().fold("podman-".to_owned(), |mut text, byte| {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        text
    })
}

/// Asks for what an empty list of masked paths means to Docker, in its own way.
pub(super) fn unmask(body: &mut ContainerCreateBody) {
    let Some(config) = &mut body.host_config else { return };
    if config.masked_paths.as_ref().is_some_and(Vec::is_empty) {
        config.security_opt.get_or_insert_default().push("unmask=ALL".to_owned());
    }
}

/// Leaves out variables without a value: to Podman such a name asks for the value that the variable has for the engine itself.
/// Source: containers/podman, `pkg/env/env.go`.
pub(super) fn without_bare_names(variables: Option<&mut Vec<String>>) {
    if let Some(variables) = variables {
        variables.retain(|variable| variable.contains('='));
    }
}

/// Returns an image's name as it was loaded: what named no registry is under `localhost/` here.
pub(super) fn own_name(reference: &str) -> &str {
    reference.strip_prefix("localhost/").unwrap_or(reference)
}

#[cfg(test)]
mod tests;
