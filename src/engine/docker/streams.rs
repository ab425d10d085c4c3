//! Requests whose answers come in pieces: logs, events, pulls, loads, exec.

use std::collections::HashMap;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{CreateImageInfo, EventMessage};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, EventsOptions, EventsOptionsBuilder, ImportImageOptionsBuilder, LogsOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{DockerEngine, SLOW_ANSWER_WITHIN, Tried, error, podman};
use crate::engine::{
    BoxStream, EngineError, EngineEvent, EngineKind, EventQuery, ExecSession, ExecSpec, LogChunk, LogQuery,
    PullProgress, RegistryLogin, Result, label,
};

/// Events worth a look. Without this list every health check of every container would wake the agent three times
/// (`exec_create`, `exec_start`, `exec_die`). With `health_status` among them the engine compares beginnings (moby, daemon/events/filter.go).
const EVENTS: &[&str] = &[
    "create",
    "start",
    "die",
    "stop",
    "kill",
    "oom",
    "pause",
    "unpause",
    "restart",
    "rename",
    "destroy",
    "update",
    "health_status",
    "connect",
    "disconnect",
    "remove",
    "delete",
    "prune",
    "pull",
    "load",
    "tag",
    "untag",
    "import",
    "reload",
];

impl DockerEngine {
    pub(super) fn log_stream<'a>(&'a self, container: &'a str, query: &LogQuery) -> BoxStream<'a, Result<LogChunk>> {
        self.count("container_logs");
        match self.kind {
            EngineKind::Docker => self.raw_logs(container, query),
            EngineKind::Podman => self.podman_logs(container, query),
        }
    }

    /// Returns the output of a container as the engine sends it.
    pub(super) fn raw_logs<'a>(&'a self, container: &'a str, query: &LogQuery) -> BoxStream<'a, Result<LogChunk>> {
        let LogQuery { follow, tail, since, until, timestamps } = *query;
        let mut options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(follow).timestamps(timestamps);
        if let Some(tail) = tail {
            options = options.tail(&tail.to_string());
        }
        // bollard has 32 bits for times: later ones are as good as never.
        if let Some(since) = since {
            options = options.since(i32::try_from(since).unwrap_or(i32::MAX));
        }
        if let Some(until) = until {
            options = options.until(i32::try_from(until).unwrap_or(i32::MAX));
        }
        let tried = Tried::new("read the logs of container", container).what("container").at(&self.socket);
        let chunks = self.docker.logs(container, Some(options.build()));
        chunks.map_ok(chunk).map_err(move |source| error::classify(source, &tried)).boxed()
    }

    pub(super) fn event_stream(&self, query: &EventQuery) -> BoxStream<'static, Result<EngineEvent>> {
        let of_project = query.project.as_ref().map(|project| format!("{}={project}", label::PROJECT));
        let filters = match (&of_project, self.kind) {
            (Some(label), _) => HashMap::from([("type", vec!["container"]), ("label", vec![label.as_str()])]),
            (None, EngineKind::Docker) => HashMap::from([("event", EVENTS.to_vec())]),
            (None, EngineKind::Podman) => {
                HashMap::from([("event", podman::events::EVENTS.to_vec()), ("type", podman::events::KINDS.to_vec())])
            }
        };
        let options = |query: &EventQuery| {
            let mut options = EventsOptionsBuilder::default().filters(&filters);
            if let Some(nanos) = query.since {
                options = options.since(&seconds_text(nanos));
            }
            if let Some(nanos) = query.until {
                options = options.until(&seconds_text(nanos));
            }
            options.build()
        };
        self.count("events");
        match self.kind {
            EngineKind::Docker => self.raw_events(&self.docker, options(query)),
            EngineKind::Podman => self.podman_events(options, query),
        }
    }

    /// Returns the engine's events as they are.
    pub(super) fn raw_events(
        &self,
        docker: &Docker,
        options: EventsOptions,
    ) -> BoxStream<'static, Result<EngineEvent>> {
        let socket = self.socket.clone();
        docker
            .events(Some(options))
            .map_ok(event)
            .map_err(move |source| error::classify(source, &Tried::new("watch the engine's events", "").at(&socket)))
            .boxed()
    }

    pub(super) fn pull_image<'a>(
        &'a self,
        reference: &'a str,
        platform: Option<&str>,
        login: Option<&RegistryLogin>,
    ) -> BoxStream<'a, Result<PullProgress>> {
        let mut options = CreateImageOptionsBuilder::default();
        let full = with_tag(reference);
        options = options.from_image(&full);
        if let Some(platform) = platform {
            options = options.platform(platform);
        }
        self.count("image_pull");
        let docker = self.patient(SLOW_ANSWER_WITHIN);
        let tried = Tried::new("pull image", reference).at(&self.socket);
        let answers = docker.create_image(Some(options.build()), None, login.map(credentials));
        answers.map(move |answer| progress(answer, &tried)).boxed()
    }

    pub(super) async fn load_archive(&self, archive: Bytes) -> Result<()> {
        let docker = self.patient(SLOW_ANSWER_WITHIN);
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let answers = docker.import_image(options, bollard::body_full(archive), None);
        let done = answers.try_for_each(|answer| async move {
            match answer.error_detail.and_then(|detail| detail.message) {
                Some(error) => Err(bollard::errors::Error::DockerStreamError { error }),
                None => Ok(()),
            }
        });
        self.call("image_load", Tried::new("load an image archive", ""), done).await
    }

    /// Two requests: make it, start it.
    pub(super) async fn exec_session(&self, container: &str, spec: &ExecSpec) -> Result<ExecSession> {
        let ExecSpec { command, mut env, user, working_dir, tty, stdin, detach, privileged } = spec.clone();
        if self.kind == EngineKind::Podman {
            podman::without_bare_names(Some(&mut env));
        }
        let options = CreateExecOptions {
            attach_stdin: Some(stdin && !detach),
            attach_stdout: Some(!detach),
            attach_stderr: Some(!detach),
            tty: Some(tty),
            detach_keys: None,
            env: (!env.is_empty()).then_some(env),
            cmd: Some(command),
            privileged: Some(privileged),
            user,
            working_dir,
        };
        let tried = Tried::new("run a command in container", container).what("container");
        let id = self.call("exec_create", tried, self.docker.create_exec(container, options)).await?.id;
        let start = StartExecOptions { detach, tty, output_capacity: None };
        match self.call("exec_start", tried, self.docker.start_exec(&id, Some(start))).await? {
            StartExecResults::Attached { output, input } => {
                let (socket, name) = (self.socket.clone(), container.to_owned());
                let output = output.map_ok(chunk).map_err(move |source| {
                    error::classify(source, &Tried::new("run a command in container", &name).at(&socket))
                });
                Ok(ExecSession { id, output: output.boxed(), input })
            }
            StartExecResults::Detached => {
                Ok(ExecSession { id, output: stream::empty().boxed(), input: Box::pin(tokio::io::sink()) })
            }
        }
    }
}

/// What goes into the header `X-Registry-Auth`.
fn credentials(login: &RegistryLogin) -> DockerCredentials {
    let RegistryLogin { registry, username, password, identity_token, registry_token } = login;
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    DockerCredentials {
        username: some(username),
        password: some(password),
        serveraddress: some(registry),
        identitytoken: some(identity_token),
        registrytoken: some(registry_token),
        ..DockerCredentials::default()
    }
}

pub(super) fn chunk(output: LogOutput) -> LogChunk {
    let stderr = matches!(output, LogOutput::StdErr { .. });
    LogChunk { stderr, bytes: output.into_bytes() }
}

fn event(message: EventMessage) -> EngineEvent {
    let actor = message.actor.unwrap_or_default();
    EngineEvent {
        kind: message.typ.map(|kind| kind.to_string()).unwrap_or_default(),
        action: message.action.unwrap_or_default(),
        id: actor.id.unwrap_or_default(),
        attributes: actor.attributes.unwrap_or_default().into_iter().collect(),
        time_nanos: message.time_nano.unwrap_or_default(),
    }
}

fn progress(
    answer: std::result::Result<CreateImageInfo, bollard::errors::Error>,
    tried: &Tried<'_>,
) -> Result<PullProgress> {
    let info = answer.map_err(|source| match error::classify(source, tried) {
        // The engine's words say whether it is the name, the tag or the login that is wrong.
        EngineError::NotFound { .. } => EngineError::Refused {
            action: format!("pull image `{}`", tried.name),
            message: "no registry has it".to_owned(),
        },
        other => other,
    })?;
    if let Some(error) = info.error_detail.and_then(|detail| detail.message) {
        return Err(error::classify(bollard::errors::Error::DockerStreamError { error }, tried));
    }
    let detail = info.progress_detail.unwrap_or_default();
    let bytes = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default();
    Ok(PullProgress {
        id: info.id.unwrap_or_default(),
        status: info.status.unwrap_or_default(),
        current: bytes(detail.current),
        total: bytes(detail.total),
    })
}

/// Returns the reference with `:latest` where it names neither tag nor digest: the engine would pull all tags.
fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains(':') || reference.contains('@') { reference.to_owned() } else { format!("{reference}:latest") }
}

/// Returns nanoseconds as the engine reads times: seconds, a point, nine digits.
fn seconds_text(nanos: i64) -> String {
    format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_without_tag_mean_latest() {
        assert_eq!(with_tag("nginx"), "nginx:latest");
        assert_eq!(with_tag("localhost:5000/nginx"), "localhost:5000/nginx:latest");
        assert_eq!(with_tag("nginx:1.27"), "nginx:1.27");
        assert_eq!(with_tag("nginx@sha256:00"), "nginx@sha256:00");
    }

    #[test]
    fn times_for_the_engine() {
        assert_eq!(seconds_text(1_700_000_000_000_000_005), "1700000000.000000005");
    }
}
