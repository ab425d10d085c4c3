//! Builds by the engine's `BuildKit`: its control API at `/grpc` is told what to build, and calls back over `/session` for what
//! it needs. Both are HTTP/2 over the engine's socket.
//!
//! The control API rather than `POST /build?version=2`: that one has no words for stages without cache, further contexts, rights
//! and attestations. Its few messages are written by hand ([`proto`]), its calls by [`grpc`] over `h2`, which the balancer needs
//! anyway: bollard's feature for it brings tonic and generated code of everything that `BuildKit` can do.
//!
//! Source: moby/buildkit, api/services/control/control.proto and client/solve.go; docker/buildx, build/opt.go.

mod agent;
mod files;
mod grpc;
mod progress;
mod proto;
mod session;
mod upgrade;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::errors::Error;
use futures_util::{StreamExt as _, stream};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::mpsc;

use self::grpc::{Client, Status};
use self::progress::Steps;
use self::proto::Message;
use self::session::Offers;
use super::{DockerEngine, Tried, error, plain};
use crate::engine::{BoxStream, BuildKit, BuildSpec, BuildStep, CacheEntry, EngineError, EngineKind, Kit, Result};

/// Steps that wait for the one who reads them.
const STEPS: usize = 64;

/// Longest that the last words of a build may take once it has ended.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);

/// The exporter that puts images into the engine's own store.
const EXPORTER: &str = "moby";

impl DockerEngine {
    /// Docker has had `BuildKit` since 18.09. Its header says what it takes by itself: since 23.0 "2"; "1" where its owner has
    /// turned `BuildKit` off.
    pub(super) async fn kit_offered(&self) -> Result<Option<BuildKit>> {
        if self.kind == EngineKind::Podman {
            return Ok(None);
        }
        let tried = Tried::new("ask the engine for its builder", "").at(&self.socket);
        self.count("ping");
        let header = plain::header(&self.socket, "/_ping", "Builder-Version").await;
        let header = header.map_err(|source| error::classify(source, &tried))?;
        let info = self.call("info", Tried::new("ask the engine what it is", ""), self.docker.info()).await?;
        let version_text = info.server_version.unwrap_or_default();
        let of_containerd =
            |status: &Vec<String>| status.last().is_some_and(|kind| kind.contains("containerd.snapshotter"));
        Ok(Some(BuildKit {
            version: major_and_minor(&version_text),
            has_containerd_store: info.driver_status.iter().flatten().any(of_containerd),
            is_preferred: header.as_deref() != Some("1"),
            version_text,
        }))
    }

    pub(super) fn build_with_kit<'a>(&'a self, spec: &'a BuildSpec, kit: Kit) -> BoxStream<'a, Result<BuildStep>> {
        self.count("image_build");
        let (to, from) = mpsc::channel(STEPS);
        let (engine, spec) = (self.clone(), spec.clone());
        // Who reads no further ends the build.
        drop(tokio::spawn(async move {
            tokio::select! {
                () = to.closed() => {}
                done = engine.solve(&spec, kit, &to) => if let Err(error) = done {
                    to.send(Err(error)).await.ok();
                },
            }
        }));
        stream::unfold(from, |mut from| async move { from.recv().await.map(|step| (step, from)) }).boxed()
    }

    async fn solve(&self, spec: &BuildSpec, kit: Kit, to: &mpsc::Sender<Result<BuildStep>>) -> Result<()> {
        let tried = Tried::new("build image", spec.name()).at(&self.socket);
        let broken = |source: Error| error::classify(source, &tried);
        let lost = |status: Status| broken(Error::DockerStreamError { error: status.message });
        let api = format!("/v{}", self.api);
        let (id, session_id) = (random()?, random()?);
        let offers = Arc::new(Offers { kit, logins: spec.logins.clone(), problem: OnceLock::new() });
        let _session = session::open(&self.socket, &api, &session_id, offers.clone()).await.map_err(broken)?;
        let (stream, _carrier) = upgrade::upgraded(&self.socket, &format!("{api}/grpc"), &[]).await.map_err(broken)?;
        let client = Client::over(stream).await.map_err(lost)?;
        let request = request(&id, &session_id, spec, &offers.kit).into_bytes();
        let mut steps = Steps::default();
        let solved = async {
            let mut answers = client.call("/moby.buildkit.v1.Control/Solve", &request).await?;
            let answer = answers.next().await?;
            Ok::<_, Status>(answer.unwrap_or_default())
        };
        let ended = {
            let mut watched = std::pin::pin!(watch(&client, &id, &mut steps, to));
            let mut solved = std::pin::pin!(solved);
            tokio::select! {
                ended = &mut solved => {
                    // The words of the last step may come later than the answer.
                    tokio::time::timeout(LAST_WORDS_WITHIN, watched).await.ok();
                    ended
                }
                watched = &mut watched => {
                    if let Err(error) = watched {
                        tracing::debug!(%error, "no status of the build");
                    }
                    solved.await
                }
            }
        };
        match ended {
            Ok(answer) => {
                to.send(Ok(BuildStep::Made(made(&answer).map_err(|error| lost(error.into()))?))).await.ok();
                Ok(())
            }
            Err(status) if status.code == Status::UNAVAILABLE => Err(lost(status)),
            Err(status) => {
                let failed = steps.failed();
                let message = match (offers.problem.get(), &failed) {
                    (Some(problem), _) => problem.clone(),
                    (None, Some((step, _))) => format!("{step}: {}", plain_words(&status.message)),
                    (None, None) => plain_words(&status.message).to_owned(),
                };
                let last = failed.map(|(_, last)| last).unwrap_or_default();
                to.send(Ok(BuildStep::Failing(last))).await.ok();
                Err(super::build::failed_step(message, &tried))
            }
        }
    }
}

/// Hands on what the builder says of a build, until that has ended.
async fn watch(
    client: &Client,
    id: &str,
    steps: &mut Steps,
    to: &mpsc::Sender<Result<BuildStep>>,
) -> std::result::Result<(), Status> {
    let mut answers =
        client.call("/moby.buildkit.v1.Control/Status", &Message::default().text(1, id).into_bytes()).await?;
    while let Some(status) = answers.next().await? {
        for line in steps.take(&status)? {
            to.send(Ok(BuildStep::Said(line + "\n"))).await.ok();
        }
    }
    Ok(())
}

/// Returns the id of the image. Source: moby, builder/builder-next/builder.go `Build`; buildx since 0.11 takes the other one.
fn made(answer: &[u8]) -> std::result::Result<String, proto::Malformed> {
    let mut all = BTreeMap::new();
    for field in proto::fields(answer) {
        if let (1, value) = field? {
            all.insert(proto::text(value.bytes(), 1)?, proto::text(value.bytes(), 2)?);
        }
    }
    let keys = ["containerimage.config.digest", "containerimage.digest"];
    Ok(keys.iter().find_map(|key| all.remove(*key)).unwrap_or_default())
}

/// Source: moby/buildkit, control.proto `SolveRequest`. Exporter and its attributes are where all versions look for them.
fn request(id: &str, session: &str, spec: &BuildSpec, kit: &Kit) -> Message {
    let exporter = BTreeMap::from([("name".to_owned(), spec.names.join(","))]);
    let attributes = attributes(spec, kit);
    let mut rights = kit.entitlements.clone();
    if spec.network.as_deref() == Some("host") && !rights.iter().any(|right| right == "network.host") {
        rights.push("network.host".to_owned());
    }
    let entry = |entry: &CacheEntry| Message::default().text(1, &entry.kind).map(2, &entry.attributes);
    let cache = kit.cache_to.iter().fold(Message::default(), |cache, to| cache.message(4, &entry(to)));
    let cache = kit.cache_from.iter().fold(cache, |cache, from| cache.message(5, &entry(from)));
    let request = Message::default()
        .text(1, id)
        .text(3, EXPORTER)
        .map(4, &exporter)
        .text(5, session)
        .text(6, "dockerfile.v0")
        .map(7, &attributes)
        .message(8, &cache);
    rights.iter().fold(request, |request, right| request.text(9, right))
}

/// What the frontend is told. Source: moby/buildkit, frontend/dockerui/config.go; docker/buildx, build/opt.go.
fn attributes(spec: &BuildSpec, kit: &Kit) -> BTreeMap<String, String> {
    let BuildSpec {
        dockerfile,
        names: _,
        args,
        labels,
        target,
        cache_from: _,
        network,
        extra_hosts,
        shm_size,
        // No words for it: see `cli/builds/choice`.
        memory: _,
        ulimits,
        no_cache,
        pull,
        platform,
        logins: _,
    } = spec;
    let mut all = BTreeMap::from([("filename".to_owned(), dockerfile.clone())]);
    let mut put = |name: &str, value: String| drop(all.insert(name.to_owned(), value));
    for (name, value) in args {
        put(&format!("build-arg:{name}"), value.clone());
    }
    for (name, value) in labels {
        put(&format!("label:{name}"), value.clone());
    }
    for (name, value) in &kit.contexts {
        put(&format!("context:{name}"), value.clone());
    }
    for (kind, value) in &kit.attestations {
        put(&format!("attest:{kind}"), value.clone());
    }
    if let Some(target) = target {
        put("target", target.clone());
    }
    let platforms: Vec<String> =
        if kit.platforms.is_empty() { platform.iter().cloned().collect() } else { kit.platforms.clone() };
    if !platforms.is_empty() {
        put("platform", platforms.join(",").to_lowercase());
    }
    if *no_cache || !kit.no_cache_filter.is_empty() {
        // Nothing: all stages.
        put("no-cache", if *no_cache { String::new() } else { kit.no_cache_filter.join(",") });
    }
    put("image-resolve-mode", if *pull { "pull" } else { "default" }.to_owned());
    if let Some(network @ ("host" | "none")) = network.as_deref() {
        put("force-network-mode", network.to_owned());
    }
    if !extra_hosts.is_empty() {
        let line = |line: &String| line.replacen(':', "=", 1);
        put("add-hosts", extra_hosts.iter().map(line).collect::<Vec<_>>().join(","));
    }
    if let Some(size) = shm_size {
        put("shm-size", size.to_string());
    }
    if !ulimits.is_empty() {
        let limit = |(name, (soft, hard)): (&String, &(i64, i64))| format!("{name}={soft}:{hard}");
        put("ulimit", ulimits.iter().map(limit).collect::<Vec<_>>().join(","));
    }
    all
}

/// Leaves out who handed an error on to whom.
fn plain_words(message: &str) -> &str {
    let mut words = message;
    loop {
        let found = ["failed to solve: ", "failed to solve with frontend dockerfile.v0: ", "failed to build LLB: "];
        let shorter = found.iter().find_map(|start| words.strip_prefix(start));
        let coded = || words.strip_prefix("rpc error: code = ").and_then(|rest| Some(rest.split_once(" desc = ")?.1));
        match shorter.or_else(coded) {
            Some(shorter) => words = shorter,
            None => return words.trim(),
        }
    }
}

fn major_and_minor(version: &str) -> (u32, u32) {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Returns an id that nobody else has.
fn random() -> Result<String> {
    let mut bytes = [0; 12];
    SystemRandom::new().fill(&mut bytes).map_err(|_| EngineError::Failed {
        action: "build an image".to_owned(),
        message: "the system gave no random numbers".to_owned(),
    })?;
    Ok(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}

#[cfg(test)]
mod tests;
