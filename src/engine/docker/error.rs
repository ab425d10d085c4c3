//! From bollard's errors to [`EngineError`]: what was tried, whose fault it is, whether to try again.
//!
//! The engine's status codes say little (20.10 answers 500 for a port in use and 403 for a subnet that overlaps), so
//! that some classes are found by the engine's words, which have been the same for years; the source is named beside.

use std::io;

use bollard::errors::Error;

use crate::diag::chain;
use crate::engine::{EngineError, Result};

/// What a request tries to do, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tried<'a> {
    action: &'static str,
    /// The kind of thing that `name` names, for "does not exist".
    what: &'static str,
    pub(super) name: &'a str,
    socket: &'a str,
}

impl<'a> Tried<'a> {
    /// `action` reads with the name behind it: "remove network".
    pub(super) fn new(action: &'static str, name: &'a str) -> Self {
        Self { action, what: "object", name, socket: name }
    }

    pub(super) fn what(self, what: &'static str) -> Self {
        Self { what, ..self }
    }

    pub(super) fn at(self, socket: &'a str) -> Self {
        Self { socket, ..self }
    }

    fn text(&self) -> String {
        if self.name.is_empty() { self.action.to_owned() } else { format!("{} `{}`", self.action, self.name) }
    }
}

/// Removing what is not there is done already.
pub(super) fn ignore_not_found(result: Result<()>) -> Result<()> {
    match result {
        Err(EngineError::NotFound { .. }) => Ok(()),
        other => other,
    }
}

pub(super) fn classify(source: Error, tried: &Tried<'_>) -> EngineError {
    match source {
        Error::DockerResponseServerError { status_code, message } => answered(status_code, message, tried),
        Error::DockerStreamError { error } => answered(0, error, tried),
        Error::SocketNotFoundError(_) => {
            let missing = io::Error::new(io::ErrorKind::NotFound, "the socket does not exist");
            EngineError::Unreachable { address: tried.socket.to_owned(), source: Box::new(missing) }
        }
        Error::RequestTimeoutError => failed(tried, "the engine did not answer in time"),
        other => match io_kind(&other) {
            Some(io::ErrorKind::PermissionDenied) => EngineError::Permission { address: tried.socket.to_owned() },
            Some(_) => EngineError::Unreachable { address: tried.socket.to_owned(), source: Box::new(other) },
            None => failed(tried, &chain(&other)),
        },
    }
}

fn failed(tried: &Tried<'_>, message: &str) -> EngineError {
    EngineError::Failed { action: tried.text(), message: message.to_owned() }
}

/// Classifies an answer of the engine. `status` 0: an error inside a stream that began well.
fn answered(status: u16, message: String, tried: &Tried<'_>) -> EngineError {
    let action = tried.text();
    if message.contains("no space left on device") || message.contains("disk quota exceeded") {
        return EngineError::NoSpace { action };
    }
    if let Some((what, name)) = missing(status, &message, tried) {
        return EngineError::NotFound { what, name };
    }
    if is_conflict(status, &message) {
        return EngineError::Conflict { action, message };
    }
    match status {
        // 400 and 422 are said of the request; 404 that names nothing known is about what the request refers to.
        400..=499 => EngineError::Refused { action, message },
        0 if PULL_REFUSALS.iter().any(|words| message.contains(words)) => EngineError::Refused { action, message },
        // What runc says of the user's program or mounts; the same request fails in the same way.
        // Source: moby, daemon/errors.go `translateContainerdStartErr`, which turns most but not all of these to 400.
        _ if message.contains("OCI runtime") => EngineError::Refused { action, message },
        _ => EngineError::Failed { action, message },
    }
}

/// Said by registries inside a pull's stream. Source: moby, distribution/errors.go.
const PULL_REFUSALS: &[&str] = &["manifest unknown", "not found", "denied", "unauthorized", "no matching manifest"];

/// What is in the way, by the engine's words. Sources: moby, daemon/names.go, libnetwork/portallocator,
/// libnetwork/ipam/errors.go, libnetwork/error.go, daemon/network.go; the last four are Podman's, libpod/define/errors.go
/// and containers/common, libnetwork, all with status 500.
const CONFLICTS: &[&str] = &[
    "is already in use",
    "already exists",
    "port is already allocated",
    "address already in use",
    "Address already in use",
    "Pool overlaps",
    "has active endpoints",
    "endpoint with name",
    "already used",
    "network is being used",
    "container state improper",
    "volume is being used",
];

fn is_conflict(status: u16, message: &str) -> bool {
    status == 409 || CONFLICTS.iter().any(|words| message.contains(words))
}

/// Finds what does not exist. The engine answers 404 also for things that the request only refers to: an image or a
/// network at the creation of a container.
fn missing(status: u16, message: &str, tried: &Tried<'_>) -> Option<(&'static str, String)> {
    // Podman's words, at the creation of a container with 500; each is followed by what was known of it.
    let podman = |words: &str| {
        let rest = message.split_once(words)?.1;
        Some(rest.split(": ").next().unwrap_or(rest).trim_matches('"').to_owned())
    };
    if let Some(name) = podman("unable to find network with name or ID ") {
        return Some(("network", name));
    }
    // With 500 where it goes away while it is looked at.
    if message.ends_with("no such container") && tried.what == "container" {
        return Some(("container", tried.name.to_owned()));
    }
    if status != 404 {
        return None;
    }
    let after = |words: &str| message.split_once(words).map(|(_, rest)| name_at_start(rest));
    if let Some(name) = after("No such image: ") {
        return Some(("image", name));
    }
    if let Some(name) = after("No such container: ") {
        return Some(("container", name));
    }
    if let Some(name) = after("No such exec instance: ") {
        return Some(("command", name));
    }
    if let Some(name) = message.strip_prefix("network ").and_then(|rest| rest.strip_suffix(" not found")) {
        return Some(("network", name.to_owned()));
    }
    if let Some(name) = podman("no such image: ").or_else(|| podman("failed to find image ")) {
        return Some(("image", name));
    }
    if message.contains("no such volume") {
        return Some(("volume", tried.name.to_owned()));
    }
    // Words of other engines; the request itself names one thing then.
    (tried.what != "object").then(|| (tried.what, tried.name.to_owned()))
}

fn name_at_start(text: &str) -> String {
    text.trim().trim_matches('"').split_whitespace().next().unwrap_or_default().to_owned()
}

/// Finds the kind of an I/O error below hyper's layers.
fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    if let Error::IOError { err } = error {
        return Some(err.kind()); // bollard hides it from `source`
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, message: &str, expected: &str) {
        let tried = Tried::new("create container", "web").what("container").at("/run/docker.sock");
        let error = Error::DockerResponseServerError { status_code: status, message: message.to_owned() };
        let error = classify(error, &tried);
        let class = format!("{error:?}");
        let class = class.split_whitespace().next().unwrap_or_default();
        assert_eq!(format!("{class}: {error}"), expected);
    }

    /// Messages as Docker Engine 20.10.24 sends them.
    #[test]
    fn classes_of_answers() {
        check(404, "No such image: nginx:latest", "NotFound: image `nginx:latest` does not exist");
        check(404, "No such container: web", "NotFound: container `web` does not exist");
        check(404, "network shop_default not found", "NotFound: network `shop_default` does not exist");
        check(404, "page not found", "NotFound: container `web` does not exist");
        check(
            409,
            "Conflict. The container name \"/web\" is already in use by container \"1\".",
            "Conflict: create container `web`: Conflict. The container name \"/web\" is already in use by container \"1\".",
        );
        check(
            403,
            "Pool overlaps with other one on this address space",
            "Conflict: create container `web`: Pool overlaps with other one on this address space",
        );
        check(
            500,
            "driver failed programming external connectivity: Bind for 0.0.0.0:80 failed: port is already allocated",
            "Conflict: create container `web`: driver failed programming external connectivity: Bind for 0.0.0.0:80 \
             failed: port is already allocated",
        );
        check(
            500,
            "mkdir /var/lib/docker/overlay2/x: no space left on device",
            "NoSpace: create container `web`: no space left on the engine's disk",
        );
        check(400, "invalid mount config", "Refused: create container `web`: invalid mount config");
        check(500, "context deadline exceeded", "Failed: create container `web`: context deadline exceeded");
    }

    /// Messages as Podman 4.3.1 sends them.
    #[test]
    fn classes_of_podmans_answers() {
        let conflicts = [
            "subnet 10.90.0.0/20 is already used on the host or by another config",
            "network name n1 already used: network already exists",
            "\"n1\" has associated containers with it. Use -f to forcibly delete containers and pods: network is being used",
            "can only kill running containers. d9b4 is in state created: container state improper",
            "can only create exec sessions on running containers: container state improper",
            "container create: creating container storage: the container name \"q\" is already in use by c062. You have \
             to remove that container to be able to reuse that name: that name is already in use",
        ];
        for message in conflicts {
            check(500, message, &format!("Conflict: create container `web`: {message}"));
        }
        let message = "no such image: docker.io/orch/absent:latest: image not known";
        check(404, message, "NotFound: image `docker.io/orch/absent:latest` does not exist");
        let message = "failed to find image nope: docker.io/library/nope: No such image";
        check(404, message, "NotFound: image `nope` does not exist");
        let message = "container create: unable to find network with name or ID nope: network not found";
        check(500, message, "NotFound: network `nope` does not exist");
        let message = "no container with name or ID \"nope\" found: no such container";
        check(404, message, "NotFound: container `web` does not exist");
        let message = "container 9912 does not exist in database: no such container";
        check(500, message, "NotFound: container `web` does not exist");
        let message = "crun: executable file `/nothing` not found in $PATH: No such file or directory: OCI runtime \
                       attempted to invoke a command that was not found";
        check(500, message, &format!("Refused: create container `web`: {message}"));
    }

    #[test]
    fn sockets_that_do_not_answer() {
        let tried = Tried::new("connect to the container engine", "/run/docker.sock");
        let denied = Error::IOError { err: io::Error::from(io::ErrorKind::PermissionDenied) };
        assert!(matches!(classify(denied, &tried), EngineError::Permission { .. }));
        let refused = Error::IOError { err: io::Error::from(io::ErrorKind::ConnectionRefused) };
        assert!(matches!(classify(refused, &tried), EngineError::Unreachable { .. }));
    }
}
