//! The access log: one event for each request, at level debug of the target `orch::access`, which nobody sees unless
//! `ORCH_LOG` asks for it.

use super::count::Ending;
use super::visit::{Destination, Visit};
use crate::lb::choose::Next;

/// The target of its events.
const TARGET: &str = "orch::access";

/// What is kept of a request for its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) request_id: String,
    pub(super) protocol: &'static str,
}

/// Returns whether somebody wants lines: else nothing is kept for them.
pub(super) fn is_on() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// Writes the line of a request that has ended.
pub(super) fn write(line: &Line, visit: &Visit, to: Option<&Destination>, pod: Option<&Next>, ending: &Ending) {
    let Line { method, host, path, request_id, protocol } = line;
    let Ending { status, refusal: _, is_whole, took, sent, received } = *ending;
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let text = |value: Option<&dyn std::fmt::Display>| value.map(ToString::to_string);
    let project = text(to.map(|to| &to.pool.project as _));
    let service = text(to.map(|to| &to.pool.service as _));
    let rule = to.and_then(|to| to.rule.as_ref()).map(|rule| rule.name.as_str());
    let pod = text(pod.map(|pod| pod.pod() as _));
    tracing::debug!(
        target: TARGET,
        client = %visit.peer,
        protocol,
        method,
        host,
        path,
        status,
        is_whole,
        micros,
        sent,
        received,
        project,
        service,
        rule,
        pod,
        request_id,
        "request"
    );
}
