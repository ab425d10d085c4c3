//! Builds by the engine's own builder, and pushes. Both are requests of our own: bollard has no words for several names,
//! limits of processes and more memory than 2 GiB, nor for what layer a push is about.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bollard::errors::Error;
use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use serde_json::{Value, json};

use super::plain::{self, Post, word};
use super::{DockerEngine, Tried, error};
use crate::engine::{BoxStream, BuildSpec, BuildStep, EngineError, EngineKind, PullProgress, RegistryLogin, Result};

impl DockerEngine {
    pub(super) fn build_image<'a>(
        &'a self,
        spec: &'a BuildSpec,
        context: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> BoxStream<'a, Result<BuildStep>> {
        self.count("image_build");
        let path = format!("/v{}/build?{}", self.api, parameters(spec, self.kind));
        let mut headers = vec![("Content-Type", "application/x-tar".to_owned())];
        if !spec.logins.is_empty() {
            let logins: BTreeMap<&str, Value> =
                spec.logins.iter().map(|login| (login.registry.as_str(), credentials(login))).collect();
            headers.push(("X-Registry-Config", encoded(&json!(logins))));
        }
        let tried = Tried::new("build image", spec.name()).at(&self.socket);
        let answers = plain::post(Post { socket: self.socket.clone(), path, headers }, context);
        let steps = answers.map(move |answer| match answer {
            Ok(answer) => step(&answer).map_err(|message| failed_step(message, &tried)),
            Err(error) => Err(error::classify(error, &tried)),
        });
        steps.filter_map(|step| future::ready(step.transpose())).boxed()
    }

    pub(super) fn push_image<'a>(
        &'a self,
        reference: &'a str,
        login: Option<&RegistryLogin>,
    ) -> BoxStream<'a, Result<PullProgress>> {
        self.count("image_push");
        let (name, tag) = parts(reference);
        let path = format!("/v{}/images/{name}/push?tag={}", self.api, word(tag));
        // The engine wants the header, also of those who have no login.
        let login = login.map_or_else(|| json!({}), credentials);
        let request = Post { socket: self.socket.clone(), path, headers: vec![("X-Registry-Auth", encoded(&login))] };
        let tried = Tried::new("push image", reference).what("image").at(&self.socket);
        let answers = plain::post(request, stream::empty().boxed());
        let steps = answers.map(move |answer| {
            let answer = answer.map_err(|error| error::classify(error, &tried))?;
            match said_error(&answer) {
                // Source: moby, distribution/push.go `Push`.
                Some(error) if error.contains("does not exist locally") || error.ends_with("image not known") => {
                    Err(EngineError::NotFound { what: "image", name: reference.to_owned() })
                }
                Some(error) => Err(error::classify(Error::DockerStreamError { error }, &tried)),
                None => Ok(progress(&answer)),
            }
        });
        steps.boxed()
    }
}

/// Source: moby, `client/image_build.go`, `imageBuildOptionsToQuery`.
fn parameters(spec: &BuildSpec, kind: EngineKind) -> String {
    let BuildSpec {
        dockerfile,
        names,
        args,
        labels,
        target,
        cache_from,
        network,
        extra_hosts,
        shm_size,
        memory,
        ulimits,
        no_cache,
        pull,
        platform,
        logins: _,
    } = spec;
    // Podman takes its own flag's words, and one list of hosts.
    let limit = |(name, (soft, hard)): (&String, &(i64, i64))| match kind {
        EngineKind::Docker => json!({ "Name": name, "Soft": soft, "Hard": hard }),
        EngineKind::Podman => json!(format!("{name}={soft}:{hard}")),
    };
    let ulimits: Vec<Value> = ulimits.iter().map(limit).collect();
    let flag = |set: bool| set.then(|| "1".to_owned());
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| json!(list).to_string());
    let number = |number: &Option<u64>| number.map(|number| number.to_string());
    let mut all: Vec<(&str, String)> = names.iter().map(|name| ("t", name.clone())).collect();
    match kind {
        EngineKind::Docker => all.extend(extra_hosts.iter().map(|line| ("extrahosts", line.clone()))),
        EngineKind::Podman => all.extend(list(extra_hosts).map(|lines| ("extrahosts", lines))),
    }
    let once = [
        ("version", Some("1".to_owned())),
        ("dockerfile", Some(dockerfile.clone())),
        ("rm", flag(true)),
        ("forcerm", flag(true)),
        ("nocache", flag(*no_cache)),
        ("pull", flag(*pull)),
        ("buildargs", (!args.is_empty()).then(|| json!(args).to_string())),
        ("labels", (!labels.is_empty()).then(|| json!(labels).to_string())),
        ("cachefrom", list(cache_from)),
        ("target", target.clone()),
        ("networkmode", network.clone()),
        ("shmsize", number(shm_size)),
        ("memory", number(memory)),
        ("ulimits", (!ulimits.is_empty()).then(|| json!(ulimits).to_string())),
        ("platform", platform.as_ref().map(|platform| platform.to_lowercase())),
    ];
    all.extend(once.into_iter().filter_map(|(name, value)| Some((name, value?))));
    all.iter().map(|(name, value)| format!("{name}={}", word(value))).collect::<Vec<_>>().join("&")
}

/// Reads one answer of a build; `None`: nothing that matters.
fn step(answer: &Value) -> Result<Option<BuildStep>, String> {
    if let Some(error) = said_error(answer) {
        return Err(error);
    }
    if let Some(text) = answer.get("stream").and_then(Value::as_str) {
        return Ok(Some(BuildStep::Said(text.to_owned())));
    }
    if let Some(id) = answer.pointer("/aux/ID").and_then(Value::as_str) {
        return Ok(Some(BuildStep::Made(id.to_owned())));
    }
    Ok(answer.get("status").map(|_| BuildStep::Pulling(progress(answer))))
}

fn said_error(answer: &Value) -> Option<String> {
    let message = answer.pointer("/errorDetail/message").or_else(|| answer.get("error"))?;
    message.as_str().map(|text| text.trim().to_owned())
}

/// A step that fails does so again, unless the engine has no room.
pub(super) fn failed_step(message: String, tried: &Tried<'_>) -> EngineError {
    match error::classify(Error::DockerStreamError { error: message }, tried) {
        EngineError::Failed { action, message } | EngineError::Conflict { action, message } => {
            EngineError::Refused { action, message }
        }
        other => other,
    }
}

fn progress(answer: &Value) -> PullProgress {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let bytes = |key: &str| answer.pointer(key).and_then(Value::as_u64).unwrap_or_default();
    PullProgress {
        id: text("id"),
        status: text("status"),
        current: bytes("/progressDetail/current"),
        total: bytes("/progressDetail/total"),
    }
}

fn credentials(login: &RegistryLogin) -> Value {
    let RegistryLogin { registry, username, password, identity_token, registry_token } = login;
    json!({
        "username": username,
        "password": password,
        "serveraddress": registry,
        "identitytoken": identity_token,
        "registrytoken": registry_token,
    })
}

fn encoded(value: &Value) -> String {
    URL_SAFE.encode(value.to_string())
}

/// Returns name and tag of a reference: `latest` where it has none.
pub(super) fn parts(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_dockers_own_client() {
        let spec = BuildSpec {
            dockerfile: "Dockerfile".to_owned(),
            names: vec!["shop-web".to_owned(), "other:1".to_owned()],
            args: BTreeMap::from([("A".to_owned(), "b c".to_owned())]),
            ulimits: BTreeMap::from([("nofile".to_owned(), (1, 2))]),
            extra_hosts: vec!["a:1.2.3.4".to_owned(), "b:::1".to_owned()],
            memory: Some(1 << 32),
            no_cache: true,
            ..BuildSpec::default()
        };
        let docker = "t=shop-web&t=other%3A1&extrahosts=a%3A1.2.3.4&extrahosts=b%3A%3A%3A1&version=1&dockerfile=Dockerfile\
                      &rm=1&forcerm=1&nocache=1&buildargs=%7B%22A%22%3A%22b%20c%22%7D&memory=4294967296\
                      &ulimits=%5B%7B%22Name%22%3A%22nofile%22%2C%22Soft%22%3A1%2C%22Hard%22%3A2%7D%5D";
        assert_eq!(parameters(&spec, EngineKind::Docker), docker);
        let podman = parameters(&spec, EngineKind::Podman);
        assert!(podman.ends_with("&ulimits=%5B%22nofile%3D1%3A2%22%5D"), "{podman}");
        assert!(podman.contains("&extrahosts=%5B%22a%3A1.2.3.4%22%2C%22b%3A%3A%3A1%22%5D&"), "{podman}");
    }

    #[test]
    fn what_a_build_says() {
        let check = |answer: Value, expected: Result<Option<BuildStep>, &str>| {
            assert_eq!(step(&answer), expected.map_err(str::to_owned), "{answer}");
        };
        check(json!({ "stream": "Step 1/2" }), Ok(Some(BuildStep::Said("Step 1/2".to_owned()))));
        check(json!({ "aux": { "ID": "sha256:1" } }), Ok(Some(BuildStep::Made("sha256:1".to_owned()))));
        check(
            json!({ "errorDetail": { "code": 3, "message": "it returned 3\n" }, "error": "x" }),
            Err("it returned 3"),
        );
        check(json!({ "error": "x" }), Err("x"));
        check(json!({ "other": 1 }), Ok(None));
    }

    #[test]
    fn references_have_a_name_and_a_tag() {
        assert_eq!(parts("a.example:5000/team/app"), ("a.example:5000/team/app", "latest"));
        assert_eq!(parts("a.example:5000/team/app:2"), ("a.example:5000/team/app", "2"));
    }
}
