//! The Docker Engine API, 1.41 and newer, over a unix socket. With [`super::translate`] the only place that names bollard.
//!
//! Start at the [`Engine`] implementation below: one method, one request where that is possible (what costs more says
//! so). Every request is counted by name, [`DockerEngine::calls`], so that benches can say what an `up` costs.
//! Nothing here decides anything or remembers desired state; the only memory is a cache of containers' times.
//! What Podman does in another way behind the same API is in [`podman`].

mod build;
mod buildkit;
mod by_hand;
mod create;
mod error;
mod observe;
mod plain;
mod podman;
mod streams;
mod transfer;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::NetworkDisconnectRequest;
use bollard::query_parameters::{
    InspectNetworkOptions, KillContainerOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, RemoveVolumeOptionsBuilder, RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use bytes::Bytes;

use self::error::{Tried, ignore_not_found};
use super::translate::{self, ApiVersion};
use super::{
    BoxStream, BuildKit, BuildSpec, BuildStep, ContainerSpec, Engine, EngineError, EngineEvent, EngineInfo, EngineKind,
    EventQuery, ExecSession, ExecSpec, Kit, LogChunk, LogQuery, NetworkSpec, ONLY_SOCKETS, PullProgress, RegistryLogin,
    Result, VolumeSpec,
};
use crate::ids::ProjectName;
use crate::observed::{ObservedContainer, ObservedHost};

/// Where Docker's packages put the socket.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Longest that an engine may take to begin its answer; stops add their grace period to it.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// The same for pulls and loads, which answer when they have something to say.
const SLOW_ANSWER_WITHIN: Duration = Duration::from_hours(1);

/// How often Podman is told to stop what it starts again whenever it ends.
const MOST_STOPS: u32 = 10;

/// One Docker Engine.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    docker: Docker,
    socket: String,
    api: ApiVersion,
    kind: EngineKind,
    calls: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    known: Arc<observe::Times>,
}

impl DockerEngine {
    /// Connects to `address`, the value of `DOCKER_HOST` (`unix:///path`), or where it is `None` to [`DEFAULT_SOCKET`].
    ///
    /// # Errors
    /// `Unreachable`, `Permission`, or `Refused` for another scheme and for an engine older than [`ApiVersion::OLDEST`].
    pub async fn connect(address: Option<&str>) -> Result<Self> {
        let socket = socket_path(address)?;
        let tried = Tried::new("connect to the container engine", &socket);
        let open = |version: &ClientVersion| Docker::connect_with_unix(&socket, ANSWER_WITHIN.as_secs(), version);
        let docker = open(API_DEFAULT_VERSION).map_err(|source| error::classify(source, &tried))?;
        let version = docker.version().await.map_err(|source| error::classify(source, &tried))?;
        let kind = if podman::is_podman(&version) { EngineKind::Podman } else { EngineKind::Docker };
        let said = version.api_version.unwrap_or_default();
        let api = ApiVersion::parse(&said).ok_or_else(|| EngineError::Failed {
            action: "connect to the container engine".to_owned(),
            message: format!("it says that its API version is `{said}`"),
        })?;
        if api < ApiVersion::OLDEST {
            let message = format!("it speaks API {api}, orch needs {} (Docker Engine 20.10)", ApiVersion::OLDEST);
            return Err(EngineError::Refused { action: "connect to the container engine".to_owned(), message });
        }
        let api = api.min(ApiVersion::NEWEST);
        let spoken = ClientVersion { major_version: api.0 as usize, minor_version: api.1 as usize };
        let docker = open(&spoken).map_err(|source| error::classify(source, &tried))?;
        Ok(Self { docker, socket, api, kind, calls: Arc::default(), known: Arc::default() })
    }

    /// Returns the path of the engine's socket.
    pub fn socket(&self) -> &str {
        &self.socket
    }

    /// Returns how often each kind of request was made through this engine and its clones.
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, call: &'static str) {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(call).or_default() += 1;
    }

    /// Returns the names of the endpoints on a network: those of containers that run, and the others.
    async fn endpoints(&self, network: &str) -> Result<(Vec<String>, Vec<String>)> {
        let tried = Tried::new("look at network", network).what("network");
        let request = self.docker.inspect_network(network, None::<InspectNetworkOptions>);
        let network = match self.call("network_inspect", tried, request).await {
            Ok(network) => network,
            Err(EngineError::NotFound { .. }) => return Ok((Vec::new(), Vec::new())),
            Err(error) => return Err(error),
        };
        let (mut used, mut left) = (Vec::new(), Vec::new());
        // Endpoints that are being taken down are listed too, some without a container (moby, `buildContainerAttachments`).
        for (id, endpoint) in network.containers.unwrap_or_default() {
            match self.inspect_container(&id).await {
                Ok(container) if container.state.is_active() => used.push(endpoint.name.unwrap_or(container.name)),
                Ok(container) => left.push(endpoint.name.unwrap_or(container.name)),
                Err(EngineError::NotFound { .. }) => left.extend(endpoint.name),
                Err(error) => return Err(error),
            }
        }
        Ok((used, left))
    }

    /// Runs one request: counted, logged, its error classified. `what` is the kind of thing that `name` names.
    async fn call<T>(
        &self,
        call: &'static str,
        tried: Tried<'_>,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        self.count(call);
        let begun = tokio::time::Instant::now();
        let result = request.await;
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(call, name = tried.name, millis, ok = result.is_ok(), "engine");
        result.map_err(|source| error::classify(source, &tried.at(&self.socket)))
    }

    /// Returns a client whose requests may take `extra` longer than usual to be answered.
    fn patient(&self, extra: Duration) -> Docker {
        self.docker.clone().with_timeout(ANSWER_WITHIN.saturating_add(extra))
    }
}

/// Returns the path in a `unix://` address.
fn socket_path(address: Option<&str>) -> Result<String> {
    let Some(address) = address.filter(|text| !text.is_empty()) else { return Ok(DEFAULT_SOCKET.to_owned()) };
    let path = address.strip_prefix("unix://").or_else(|| address.starts_with('/').then_some(address));
    path.filter(|path| path.starts_with('/')).map(str::to_owned).ok_or_else(|| EngineError::Refused {
        action: format!("connect to the container engine at `{address}`"),
        message: ONLY_SOCKETS.to_owned(),
    })
}

/// Reads when an image was tagged last; the engine has a time of its own for never.
fn tagged_at(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().filter(|nanos| *nanos > 0)
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo> {
        let info = self.call("info", Tried::new("ask the engine what it is", ""), self.docker.info()).await?;
        Ok(observe::engine_info(info, self.api, self.kind))
    }

    async fn observe(&self, project: Option<&ProjectName>) -> Result<ObservedHost> {
        self.observe_host(project).await
    }

    async fn inspect_container(&self, id_or_name: &str) -> Result<ObservedContainer> {
        let container = self.inspect(id_or_name).await?;
        Ok(self.known.remember(observe::inspected(container)))
    }

    async fn image_id(&self, reference: &str) -> Result<Option<String>> {
        let tried = Tried::new("look for image", reference).what("image");
        match self.call("image_inspect", tried, self.docker.inspect_image(reference)).await {
            Ok(image) => Ok(image.id),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn image_tagged_at(&self, reference: &str) -> Result<Option<i64>> {
        let tried = Tried::new("look for image", reference).what("image");
        match self.call("image_inspect", tried, self.docker.inspect_image(reference)).await {
            Ok(image) => Ok(image.metadata.and_then(|metadata| metadata.last_tag_time).as_deref().and_then(tagged_at)),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn image_digests(&self, reference: &str) -> Result<Option<Vec<String>>> {
        let tried = Tried::new("look for image", reference).what("image");
        match self.call("image_inspect", tried, self.docker.inspect_image(reference)).await {
            Ok(image) => Ok(Some(image.repo_digests.unwrap_or_default())),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        platform: Option<&'a str>,
        login: Option<&RegistryLogin>,
    ) -> BoxStream<'a, Result<PullProgress>> {
        self.pull_image(reference, platform, login)
    }

    fn push<'a>(&'a self, reference: &'a str, login: Option<&RegistryLogin>) -> BoxStream<'a, Result<PullProgress>> {
        self.push_image(reference, login)
    }

    fn build<'a>(
        &'a self,
        spec: &'a BuildSpec,
        context: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> BoxStream<'a, Result<BuildStep>> {
        self.build_image(spec, context)
    }

    async fn buildkit(&self) -> Result<Option<BuildKit>> {
        self.kit_offered().await
    }

    fn build_with<'a>(&'a self, spec: &'a BuildSpec, kit: Kit) -> BoxStream<'a, Result<BuildStep>> {
        self.build_with_kit(spec, kit)
    }

    async fn load_image(&self, archive: Bytes) -> Result<()> {
        self.load_archive(archive).await
    }

    async fn load(&self, archive: BoxStream<'static, std::io::Result<Bytes>>) -> Result<()> {
        self.load_pieces(archive).await
    }

    fn save(&self, reference: &str) -> BoxStream<'static, Result<Bytes>> {
        let archive = self.save_archive(reference);
        match self.kind {
            EngineKind::Docker => archive,
            EngineKind::Podman => Self::podman_archive(reference, archive),
        }
    }

    async fn layers(&self, reference: &str) -> Result<Vec<String>> {
        self.layers_of(reference).await
    }

    async fn all_layers(&self) -> Result<Vec<Vec<String>>> {
        match self.kind {
            EngineKind::Docker => self.layers_of_all().await,
            // It takes no archive that lacks any.
            EngineKind::Podman => Ok(Vec::new()),
        }
    }

    async fn image_references(&self, repository: &str) -> Result<Vec<String>> {
        let filters = HashMap::from([("reference", vec![repository])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let tried = Tried::new("list the images of repository", repository);
        let images = self.call("image_list", tried, self.docker.list_images(Some(options))).await?;
        let mut references: Vec<_> = images.into_iter().flat_map(|image| image.repo_tags).collect();
        if self.kind == EngineKind::Podman {
            references = references.iter().map(|name| podman::own_name(name).to_owned()).collect();
        }
        // An image has all its names in the answer, also those of other repositories.
        references.retain(|name| name.rsplit_once(':').is_some_and(|(repo, _)| repo == repository));
        references.sort_unstable();
        Ok(references)
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        let options = RemoveImageOptionsBuilder::default().build();
        let request = self.docker.remove_image(reference, Some(options), None);
        let tried = Tried::new("remove image", reference).what("image");
        ignore_not_found(self.call("image_remove", tried, request).await.map(drop))
    }

    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<String> {
        self.network_made(spec).await
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        let tried = Tried::new("remove network", name).what("network");
        ignore_not_found(self.call("network_remove", tried, self.docker.remove_network(name)).await)
    }

    async fn network_users(&self, name: &str) -> Result<Vec<String>> {
        let (mut users, _) = self.endpoints(name).await?;
        users.sort();
        Ok(users)
    }

    async fn clear_network(&self, name: &str) -> Result<()> {
        let (_, forgotten) = self.endpoints(name).await?;
        for endpoint in forgotten {
            // Without a container of that name the engine takes it for an endpoint's (moby, `ForceEndpointDelete`).
            let request = NetworkDisconnectRequest { container: endpoint.clone(), force: Some(true) };
            let tried = Tried::new("take off its network", &endpoint);
            let request = self.docker.disconnect_network(name, request);
            ignore_not_found(self.call("network_disconnect", tried, request).await)?;
        }
        Ok(())
    }

    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<()> {
        // The engine itself returns the one that is there.
        let tried = Tried::new("create volume", &spec.name).what("volume");
        let request = self.docker.create_volume(translate::volume_request(spec));
        self.call("volume_create", tried, request).await.map(drop)
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        let tried = Tried::new("remove volume", name).what("volume");
        let options = RemoveVolumeOptionsBuilder::default().build();
        ignore_not_found(self.call("volume_remove", tried, self.docker.remove_volume(name, Some(options))).await)
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String> {
        self.container_made(spec).await
    }

    /// Two requests: the start, and an inspect for what it is now.
    async fn start_container(&self, id_or_name: &str) -> Result<ObservedContainer> {
        let tried = Tried::new("start container", id_or_name).what("container");
        self.call("container_start", tried, self.docker.start_container(id_or_name, None)).await?;
        self.inspect_container(id_or_name).await
    }

    async fn stop_container(&self, id_or_name: &str, grace: Duration) -> Result<()> {
        let seconds = translate::whole_seconds(grace);
        let options = StopContainerOptionsBuilder::default().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build();
        let docker = self.patient(grace);
        let tried = Tried::new("stop container", id_or_name).what("container");
        for _ in 0..MOST_STOPS {
            let stop = docker.stop_container(id_or_name, Some(options.clone()));
            ignore_not_found(self.call("container_stop", tried, stop).await)?;
            if self.kind == EngineKind::Docker || self.podman_stopped(id_or_name).await? {
                return Ok(());
            }
        }
        let message = "it is started again and again".to_owned();
        Err(EngineError::Failed { action: format!("stop container `{id_or_name}`"), message })
    }

    async fn kill_container(&self, id_or_name: &str, signal: &str) -> Result<()> {
        let tried = Tried::new("send a signal to container", id_or_name).what("container");
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        self.call("container_kill", tried, self.docker.kill_container(id_or_name, Some(options))).await
    }

    async fn pause_container(&self, id_or_name: &str) -> Result<()> {
        let tried = Tried::new("pause container", id_or_name).what("container");
        let result = self.call("container_pause", tried, self.docker.pause_container(id_or_name)).await;
        match result {
            // Docker's word (moby, daemon/pause.go), and Podman's, which tells the state that it cannot pause from.
            Err(EngineError::Conflict { message, .. } | EngineError::Failed { message, .. })
                if message.contains("is already paused") || message.contains("\"paused\" is not running") =>
            {
                Ok(())
            }
            other => other,
        }
    }

    async fn unpause_container(&self, id_or_name: &str) -> Result<()> {
        let tried = Tried::new("unpause container", id_or_name).what("container");
        let result = self.call("container_unpause", tried, self.docker.unpause_container(id_or_name)).await;
        match result {
            // The engine's answer for one that is not paused; there is no other word for it (moby, daemon/unpause.go).
            Err(EngineError::Conflict { message, .. } | EngineError::Failed { message, .. })
                if message.contains("is not paused") =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// One request more with `volumes`: which volumes it took over from its predecessors is written in its labels.
    async fn remove_container(&self, id_or_name: &str, volumes: bool) -> Result<()> {
        let carried = if volumes { self.carried_volumes(id_or_name).await? } else { Vec::new() };
        let tried = Tried::new("remove container", id_or_name).what("container");
        let options = RemoveContainerOptionsBuilder::default().force(true).v(volumes).build();
        let result =
            self.call("container_remove", tried, self.docker.remove_container(id_or_name, Some(options))).await;
        match result {
            Err(EngineError::Conflict { message, .. }) if message.contains("already in progress") => {
                self.wait_until_removed(id_or_name).await?;
            }
            other => ignore_not_found(other)?,
        }
        for name in carried {
            self.remove_volume(&name).await?;
        }
        Ok(())
    }

    async fn rename_container(&self, id_or_name: &str, name: &str) -> Result<()> {
        let tried = Tried::new("rename container", id_or_name).what("container");
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        self.call("container_rename", tried, self.docker.rename_container(id_or_name, options)).await
    }

    fn logs<'a>(&'a self, id_or_name: &'a str, query: &LogQuery) -> BoxStream<'a, Result<LogChunk>> {
        self.log_stream(id_or_name, query)
    }

    fn events(&self, query: &EventQuery) -> BoxStream<'static, Result<EngineEvent>> {
        self.event_stream(query)
    }

    async fn now_nanos(&self) -> Result<i64> {
        let tried = Tried::new("ask the engine for its time", "");
        let info = self.call("info", tried, self.docker.info()).await?;
        let time = info.system_time.unwrap_or_default();
        let nanos = time.parse::<jiff::Timestamp>().ok().and_then(|time| i64::try_from(time.as_nanosecond()).ok());
        nanos.ok_or_else(|| EngineError::Failed {
            action: "ask the engine for its time".to_owned(),
            message: format!("it says that it is `{time}`"),
        })
    }

    async fn exec(&self, id_or_name: &str, spec: &ExecSpec) -> Result<ExecSession> {
        self.exec_session(id_or_name, spec).await
    }

    async fn exec_resize(&self, exec: &str, rows: u16, columns: u16) -> Result<()> {
        let size = bollard::exec::ResizeExecOptions { height: rows, width: columns };
        let tried = Tried::new("resize the terminal of command", exec).what("command");
        self.call("exec_resize", tried, self.docker.resize_exec(exec, size)).await
    }

    async fn exec_exit_code(&self, exec: &str) -> Result<i64> {
        let tried = Tried::new("look at command", exec).what("command");
        let state = self.call("exec_inspect", tried, self.docker.inspect_exec(exec)).await?;
        state.exit_code.ok_or_else(|| EngineError::Conflict {
            action: format!("read the exit code of command `{exec}`"),
            message: "it still runs".to_owned(),
        })
    }

    async fn wait_container(&self, id_or_name: &str) -> Result<i64> {
        self.wait_for(id_or_name, "not-running").await
    }

    async fn health_output(&self, id_or_name: &str) -> Result<Option<String>> {
        let health = self.inspect(id_or_name).await?.state.and_then(|state| state.health);
        let last = health.and_then(|health| health.log).and_then(|mut log| log.pop());
        Ok(last.and_then(|check| check.output))
    }

    async fn container_pid(&self, id_or_name: &str) -> Result<Option<u32>> {
        let state = self.inspect(id_or_name).await?.state;
        let pid = state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
        Ok(pid.filter(|&pid| pid != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_version_is_spoken_that_the_client_does_not_know() {
        let ApiVersion(major, minor) = ApiVersion::NEWEST;
        let known = ClientVersion { major_version: major as usize, minor_version: minor as usize };
        assert_eq!(known.to_string(), API_DEFAULT_VERSION.to_string());
    }

    #[test]
    fn addresses_of_engines() {
        let check = |address: Option<&str>, expected: Option<&str>| {
            assert_eq!(socket_path(address).ok().as_deref(), expected, "{address:?}");
        };
        check(None, Some("/var/run/docker.sock"));
        check(Some(""), Some("/var/run/docker.sock"));
        check(Some("unix:///run/user/1000/docker.sock"), Some("/run/user/1000/docker.sock"));
        check(Some("/run/docker.sock"), Some("/run/docker.sock"));
        check(Some("tcp://10.0.0.1:2375"), None);
        check(Some("unix://relative"), None);
    }
}
