//! The [`Engine`] trait over the fake's state.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use super::FakeEngine;
use super::state::{FakeContainer, State};
use crate::engine::contract::{Act, script};
use crate::engine::{
    BoxStream, BuildSpec, BuildStep, ContainerSpec, Engine, EngineError, EngineEvent, EngineInfo, EngineKind,
    EventQuery, ExecSession, ExecSpec, LogChunk, LogQuery, NetworkSpec, PullProgress, RegistryLogin, Result,
    VolumeSpec, label,
};
use crate::ids::ProjectName;
use crate::observed::{ContainerState, ObservedContainer, ObservedHost};
use crate::place::HostFacts;

impl FakeEngine {
    /// Waits until `look` gives something; looks again at every change.
    pub(super) async fn when<T>(&self, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(found) = look(&self.lock()) {
                return found;
            }
            // The sender lives in `self`.
            changes.changed().await.expect("the engine is there");
        }
    }
}

#[async_trait]
impl Engine for FakeEngine {
    async fn info(&self) -> Result<EngineInfo> {
        self.call("info", |_| {
            Ok(EngineInfo {
                kind: EngineKind::Docker,
                version: "20.10.24".to_owned(),
                api_version: "1.41".to_owned(),
                facts: HostFacts {
                    hostname: "fake".to_owned(),
                    id: "FAKE".to_owned(),
                    os: "linux".to_owned(),
                    arch: "x86_64".to_owned(),
                    nano_cpus: 4_000_000_000,
                    memory: 8 << 30,
                    ..HostFacts::default()
                },
                security: vec!["seccomp".to_owned()],
                root_dir: "/var/lib/docker".to_owned(),
                has_ipv6_pool: false,
            })
        })
    }

    async fn observe(&self, project: Option<&ProjectName>) -> Result<ObservedHost> {
        self.call("observe", |state| {
            let wanted = |container: &ObservedContainer| match project {
                Some(project) => container.labels.get(label::PROJECT).map(String::as_str) == Some(project.as_str()),
                None => container.labels.contains_key(label::PROJECT),
            };
            let containers = state.containers.values().map(|container| &container.observed);
            let networks = state.networks.iter().map(|(name, network)| (name.clone(), network.observed.clone()));
            Ok(ObservedHost {
                containers: containers
                    .filter(|container| wanted(container))
                    .map(|container| (container.id.clone(), container.clone()))
                    .collect(),
                networks: networks.collect(),
                volumes: state.volumes.clone(),
                images: BTreeMap::new(),
            })
        })
    }

    async fn inspect_container(&self, id_or_name: &str) -> Result<ObservedContainer> {
        self.call("inspect_container", |state| Ok(state.containers[&state.id(id_or_name)?].observed.clone()))
    }

    async fn image_id(&self, reference: &str) -> Result<Option<String>> {
        self.call("image_id", |state| Ok(state.image(reference).cloned()))
    }

    async fn image_tagged_at(&self, reference: &str) -> Result<Option<i64>> {
        // All of them are an hour old.
        self.call("image_tagged_at", |state| Ok(state.image(reference).map(|_| state.now_nanos() - 3_600_000_000_000)))
    }

    async fn image_digests(&self, reference: &str) -> Result<Option<Vec<String>>> {
        // Only what was pulled has digests, and nothing here is known to be.
        self.call("image_digests", |state| Ok(state.image(reference).map(|_| Vec::new())))
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        _platform: Option<&'a str>,
        login: Option<&RegistryLogin>,
    ) -> BoxStream<'a, Result<PullProgress>> {
        let pulled = self.call("pull", |state| {
            // A name for tests of what no registry has.
            if reference.contains("absent") {
                let (action, message) = (format!("pull image `{reference}`"), "no registry has it".to_owned());
                return Err(EngineError::Refused { action, message });
            }
            // And of what a registry gives to some only.
            if reference.starts_with("private.example/") && login.is_none_or(|login| login.password != "right") {
                let action = format!("pull image `{reference}`");
                return Err(EngineError::Failed { action, message: "no basic auth credentials".to_owned() });
            }
            state.add_image(reference);
            Ok(PullProgress { id: String::new(), status: "Download complete".to_owned(), current: 0, total: 0 })
        });
        stream::iter([pulled]).boxed()
    }

    fn push<'a>(&'a self, reference: &'a str, _login: Option<&RegistryLogin>) -> BoxStream<'a, Result<PullProgress>> {
        let pushed = self.call("push", |state| {
            state.push(reference)?;
            Ok(PullProgress { id: String::new(), status: "Pushed".to_owned(), current: 0, total: 0 })
        });
        stream::iter([pushed]).boxed()
    }

    fn build<'a>(
        &'a self,
        spec: &'a BuildSpec,
        context: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> BoxStream<'a, Result<BuildStep>> {
        let done = async move {
            let action = || format!("build image `{}`", spec.name());
            let pieces: Result<Vec<Bytes>, _> = context.try_collect().await;
            let pieces = pieces.map_err(|error| EngineError::Failed { action: action(), message: error.to_string() });
            let steps = pieces.and_then(|pieces| self.call("build", |state| state.build(spec, &pieces.concat())));
            stream::iter(steps.unwrap_or_else(|error| vec![Err(error)]))
        };
        stream::once(done).flatten().boxed()
    }

    async fn load_image(&self, archive: Bytes) -> Result<()> {
        self.call("load_image", |state| {
            for reference in references(&archive)? {
                state.add_image(&reference);
            }
            Ok(())
        })
    }

    async fn load(&self, archive: BoxStream<'static, std::io::Result<Bytes>>) -> Result<()> {
        let pieces: Vec<Bytes> = archive.try_collect().await.map_err(|error| EngineError::Failed {
            action: "load an image archive".to_owned(),
            message: error.to_string(),
        })?;
        self.load_image(pieces.concat().into()).await
    }

    /// With a layer's file that is named after the image and holds its name.
    fn save(&self, reference: &str) -> BoxStream<'static, Result<Bytes>> {
        let saved = self.call("save", |state| {
            let known = state.images.contains_key(reference);
            let missing = || EngineError::NotFound { what: "image", name: reference.to_owned() };
            known.then(|| saved(reference)).ok_or_else(missing)
        });
        stream::iter([saved]).boxed()
    }

    async fn layers(&self, reference: &str) -> Result<Vec<String>> {
        self.call("layers", |state| {
            let missing = || EngineError::NotFound { what: "image", name: reference.to_owned() };
            state.images.contains_key(reference).then(|| layers(reference)).ok_or_else(missing)
        })
    }

    async fn all_layers(&self) -> Result<Vec<Vec<String>>> {
        self.call("all_layers", |state| Ok(state.images.keys().map(|name| layers(name)).collect()))
    }

    async fn image_references(&self, repository: &str) -> Result<Vec<String>> {
        self.call("image_references", |state| {
            let of = |name: &&String| name.rsplit_once(':').is_some_and(|(repo, _)| repo == repository);
            Ok(state.images.keys().filter(of).cloned().collect())
        })
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        self.call("remove_image", |state| {
            let Some(id) = state.images.get(reference) else { return Ok(()) };
            let last = state.images.values().filter(|other| *other == id).count() == 1;
            if last && state.containers.values().any(|container| container.observed.image_id == *id) {
                let action = format!("remove image `{reference}`");
                return Err(EngineError::Conflict { action, message: "image is being used".to_owned() });
            }
            state.images.remove(reference);
            Ok(())
        })
    }

    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<String> {
        self.call("ensure_network", |state| state.create_network(spec))
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        self.call("remove_network", |state| state.remove_network(name))
    }

    async fn network_users(&self, name: &str) -> Result<Vec<String>> {
        self.call("network_users", |state| Ok(state.network_users(name)))
    }

    async fn clear_network(&self, name: &str) -> Result<()> {
        self.call("clear_network", |state| {
            state.clear_network(name);
            Ok(())
        })
    }

    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<()> {
        self.call("ensure_volume", |state| state.create_volume(spec))
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        self.call("remove_volume", |state| state.remove_volume(name))
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String> {
        self.call("create_container", |state| state.create(spec))
    }

    async fn start_container(&self, id_or_name: &str) -> Result<ObservedContainer> {
        self.call("start_container", |state| {
            let id = state.id(id_or_name)?;
            state.start(&id)?;
            // One that removes itself may be gone before it could be looked at.
            let gone = || EngineError::NotFound { what: "container", name: id_or_name.to_owned() };
            state.containers.get(&id).map(|container| container.observed.clone()).ok_or_else(gone)
        })
    }

    async fn stop_container(&self, id_or_name: &str, grace: Duration) -> Result<()> {
        let stubborn = self.call("stop_container", |state| {
            let Ok(id) = state.id(id_or_name) else { return Ok(None) };
            let container = &state.containers[&id];
            if container.is_up() && state.stubborn.contains(&container.observed.name) {
                state.tell(&id, "kill", &[("signal", "15".to_owned())]);
                return Ok(Some(id));
            }
            state.stop(&id);
            Ok(None)
        })?;
        let Some(id) = stubborn else { return Ok(()) };
        let ended = self.when(|state| (!state.containers.get(&id).is_some_and(FakeContainer::is_up)).then_some(()));
        if tokio::time::timeout(grace, ended).await.is_err() {
            self.change(|state| drop(state.kill(&id, "KILL")));
        }
        Ok(())
    }

    async fn kill_container(&self, id_or_name: &str, signal: &str) -> Result<()> {
        self.call("kill_container", |state| {
            let id = state.id(id_or_name)?;
            state.kill(&id, signal)
        })
    }

    async fn pause_container(&self, id_or_name: &str) -> Result<()> {
        self.call("pause_container", |state| {
            let id = state.id(id_or_name)?;
            let Some(container) = state.containers.get_mut(&id) else { return Ok(()) };
            if container.observed.state == ContainerState::Paused {
                return Ok(());
            }
            if !container.observed.is_running() {
                let message = format!("container {id_or_name} is not running");
                return Err(EngineError::Conflict { action: "pause container".to_owned(), message });
            }
            container.observed.state = ContainerState::Paused;
            state.tell(&id, "pause", &[]);
            Ok(())
        })
    }

    async fn unpause_container(&self, id_or_name: &str) -> Result<()> {
        self.call("unpause_container", |state| {
            let id = state.id(id_or_name)?;
            let has_check = state.containers[&id].spec.container.healthcheck.is_some();
            let health = if has_check { crate::observed::Health::Starting } else { crate::observed::Health::None };
            let Some(container) = state.containers.get_mut(&id) else { return Ok(()) };
            if container.observed.state == ContainerState::Paused {
                container.observed.state = ContainerState::Running { health };
                state.tell(&id, "unpause", &[]);
            }
            Ok(())
        })
    }

    async fn remove_container(&self, id_or_name: &str, volumes: bool) -> Result<()> {
        self.call("remove_container", |state| {
            if let Ok(id) = state.id(id_or_name) {
                state.remove(&id, volumes);
            }
            Ok(())
        })
    }

    async fn rename_container(&self, id_or_name: &str, name: &str) -> Result<()> {
        self.call("rename_container", |state| {
            let id = state.id(id_or_name)?;
            if state.named(name).is_some() {
                let message = format!("the name {name} is already in use");
                return Err(EngineError::Conflict { action: "rename container".to_owned(), message });
            }
            if let Some(container) = state.containers.get_mut(&id) {
                name.clone_into(&mut container.observed.name);
                name.clone_into(&mut container.spec.name);
            }
            state.tell(&id, "rename", &[]);
            Ok(())
        })
    }

    fn logs<'a>(&'a self, id_or_name: &'a str, query: &LogQuery) -> BoxStream<'a, Result<LogChunk>> {
        let id = match self.call("logs", |state| state.id(id_or_name)) {
            Ok(id) => id,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let LogQuery { follow, tail, since, until, timestamps } = *query;
        let all = self.lock().containers.get(&id).map_or(0, |container| container.logs.len());
        let first = tail.map_or(0, |tail| all.saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)));
        let next = move |at: usize| {
            let id = id.clone();
            async move {
                let look = |state: &State| {
                    let Some(container) = state.containers.get(&id) else { return Some(None) };
                    match container.logs.get(at) {
                        Some(entry) => Some(Some(entry.clone())),
                        None if follow && container.is_up() => None,
                        None => Some(None),
                    }
                };
                self.when(look).await.map(|entry| (entry, at + 1))
            }
        };
        let in_time = move |time: jiff::Timestamp| {
            since.is_none_or(|since| time.as_second() >= since) && until.is_none_or(|until| time.as_second() <= until)
        };
        stream::unfold(first, next)
            .filter_map(move |(time, chunk)| async move {
                let LogChunk { stderr, bytes } = chunk;
                let text = || [format!("{time} ").as_bytes(), &bytes].concat();
                let bytes = if timestamps { Bytes::from(text()) } else { bytes };
                in_time(time).then_some(Ok(LogChunk { stderr, bytes }))
            })
            .boxed()
    }

    /// Ends at once where `until` has passed; the fake's time does not pass by itself, so a later one never comes.
    fn events(&self, query: &EventQuery) -> BoxStream<'static, Result<EngineEvent>> {
        let EventQuery { since, until, project } = query.clone();
        let first = match self.call("events", |state| {
            let known = state.events.iter().position(|event| since.is_some_and(|since| event.time_nanos >= since));
            Ok(known.unwrap_or(state.events.len()))
        }) {
            Ok(first) => first,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let engine = self.clone();
        let next = move |at: usize| {
            let engine = engine.clone();
            async move {
                let look = |state: &State| match state.events.get(at) {
                    Some(event) => Some(until.is_none_or(|until| event.time_nanos <= until).then(|| event.clone())),
                    None => until.is_some_and(|until| until <= state.now_nanos()).then_some(None),
                };
                let event = engine.when(look).await?;
                Some((Ok(event), at + 1))
            }
        };
        let asked_for = move |event: &Result<EngineEvent>| {
            let of = event.as_ref().ok().and_then(|event| event.attributes.get(label::PROJECT));
            std::future::ready(project.as_ref().is_none_or(|project| of.is_some_and(|of| of == project.as_str())))
        };
        stream::unfold(first, next).filter(asked_for).boxed()
    }

    async fn now_nanos(&self) -> Result<i64> {
        self.call("now_nanos", |state| Ok(state.now_nanos()))
    }

    /// Obeys the script in the command's last word.
    async fn exec(&self, id_or_name: &str, spec: &ExecSpec) -> Result<ExecSession> {
        self.call("exec", |state| {
            let container = state.id(id_or_name)?;
            if !state.containers[&container].observed.is_running() {
                let action = format!("run a command in container `{id_or_name}`");
                return Err(EngineError::Conflict { action, message: "it does not run".to_owned() });
            }
            let (mut output, mut code) = (Vec::new(), 0);
            for act in spec.command.last().map(|text| script(text)).unwrap_or_default() {
                match act {
                    Act::Out(line) => output.push(Ok(LogChunk { stderr: false, bytes: format!("{line}\n").into() })),
                    Act::Err(line) => output.push(Ok(LogChunk { stderr: true, bytes: format!("{line}\n").into() })),
                    Act::Exit(number) => code = i64::from(number),
                    Act::Sleep => {}
                }
            }
            let id = format!("exec{}", state.execs.len());
            state.execs.insert(id.clone(), code);
            Ok(ExecSession { id, output: stream::iter(output).boxed(), input: Box::pin(tokio::io::sink()) })
        })
    }

    async fn exec_resize(&self, exec: &str, _rows: u16, _columns: u16) -> Result<()> {
        self.exec_exit_code(exec).await.map(drop)
    }

    async fn exec_exit_code(&self, exec: &str) -> Result<i64> {
        let missing = || EngineError::NotFound { what: "command", name: exec.to_owned() };
        self.call("exec_exit_code", |state| state.execs.get(exec).copied().ok_or_else(missing))
    }

    async fn wait_container(&self, id_or_name: &str) -> Result<i64> {
        let id = self.call("wait_container", |state| state.id(id_or_name))?;
        let gone = || EngineError::NotFound { what: "container", name: id_or_name.to_owned() };
        self.when(|state| match state.containers.get(&id).map(|container| container.observed.state) {
            Some(ContainerState::Running { .. } | ContainerState::Paused | ContainerState::Restarting) => None,
            Some(ContainerState::Exited { code, .. }) => Some(Ok(i64::from(code))),
            Some(_) => Some(Ok(0)),
            None => Some(Err(gone())),
        })
        .await
    }

    async fn health_output(&self, id_or_name: &str) -> Result<Option<String>> {
        self.call("health_output", |state| Ok(state.containers[&state.id(id_or_name)?].checked.clone()))
    }

    async fn container_pid(&self, id_or_name: &str) -> Result<Option<u32>> {
        self.call("container_pid", |state| {
            let container = &state.containers[&state.id(id_or_name)?];
            Ok(container.is_up().then_some(container.pid))
        })
    }
}

/// Two layers: one that all images of a repository share, and one of the image's own.
fn layers(reference: &str) -> Vec<String> {
    let repository = reference.rsplit_once(':').map_or(reference, |(repository, _)| repository);
    vec![format!("{repository}/base"), format!("{reference}/top")]
}

/// An archive of an image, each layer's file holding its name.
fn saved(reference: &str) -> Bytes {
    let layers = layers(reference);
    let manifest = serde_json::json!([{ "RepoTags": [reference], "Layers": layers }]).to_string();
    let files = layers.iter().map(|layer| (layer.as_str(), layer.as_bytes()));
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files.chain([("manifest.json", manifest.as_bytes())]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content).expect("memory takes it");
    }
    builder.into_inner().expect("memory takes it").into()
}

/// Returns the references in a `docker save` archive.
fn references(archive: &[u8]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Image {
        #[serde(rename = "RepoTags")]
        tags: Vec<String>,
    }
    let refuse = |error: &dyn std::fmt::Display| EngineError::Refused {
        action: "load an image archive".to_owned(),
        message: error.to_string(),
    };
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(|error| refuse(&error))? {
        let entry = entry.map_err(|error| refuse(&error))?;
        if entry.path().is_ok_and(|path| path.as_os_str() == "manifest.json") {
            let images: Vec<Image> = serde_json::from_reader(entry).map_err(|error| refuse(&error))?;
            return Ok(images.into_iter().flat_map(|image| image.tags).collect());
        }
    }
    Err(refuse(&"it has no manifest.json"))
}
