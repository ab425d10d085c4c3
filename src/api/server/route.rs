//! From method and path to what is asked for. Pure.

use hyper::{Method, StatusCode};

use super::Refusal;
use crate::api::types::{ApiError, ErrorKind};
use crate::ids::{HostName, ProjectName, SnapshotHash};

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Info,
    Projects,
    Project(ProjectName),
    Plan(ProjectName),
    Up(ProjectName),
    Down(ProjectName),
    Stop(ProjectName),
    Ask(ProjectName),
    PlaceOneoff(ProjectName),
    MakeOneoff(ProjectName),
    BeginOneoff(ProjectName),
    EndOneoff(ProjectName),
    Dns(ProjectName),
    Why(ProjectName),
    Traffic,
    Metrics,
    ExposeMetrics,
    AccessLog,
    Rule,
    Cluster,
    Found,
    Key,
    Admit,
    Join,
    Leave,
    Seat,
    ChangeHost(HostName),
    RemoveHost(HostName),
    MissingSnapshots,
    Snapshot(SnapshotHash),
    OfferImage,
    FetchImage,
    Uninstall,
}

/// Reads a request line; the table is in [`types`](crate::api::types).
pub(super) fn parse(method: &Method, path: &str) -> Result<Route, Refusal> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (wanted, route) = match segments[..] {
        ["v1", "info"] => (Method::GET, Route::Info),
        ["v1", "projects"] => (Method::GET, Route::Projects),
        ["v1", "projects", name] => (Method::GET, Route::Project(project(name)?)),
        ["v1", "projects", name, "plan"] => (Method::POST, Route::Plan(project(name)?)),
        ["v1", "projects", name, "up"] => (Method::POST, Route::Up(project(name)?)),
        ["v1", "projects", name, "stop"] => (Method::POST, Route::Stop(project(name)?)),
        ["v1", "projects", name, "ask"] => (Method::POST, Route::Ask(project(name)?)),
        ["v1", "projects", name, "down"] => (Method::POST, Route::Down(project(name)?)),
        ["v1", "projects", name, "dns"] => (Method::POST, Route::Dns(project(name)?)),
        ["v1", "projects", name, "why"] => (Method::POST, Route::Why(project(name)?)),
        ["v1", "traffic"] => (Method::GET, Route::Traffic),
        ["v1", "metrics", "expose"] => (Method::POST, Route::ExposeMetrics),
        ["v1", "access-log"] => (Method::POST, Route::AccessLog),
        ["v1", "route"] => (Method::POST, Route::Rule),
        ["metrics"] => (Method::GET, Route::Metrics),
        ["v1", "cluster"] => (Method::GET, Route::Cluster),
        ["v1", "cluster", "found"] => (Method::POST, Route::Found),
        ["v1", "projects", name, "oneoffs", "place"] => (Method::POST, Route::PlaceOneoff(project(name)?)),
        ["v1", "projects", name, "oneoffs", "begin"] => (Method::POST, Route::BeginOneoff(project(name)?)),
        ["v1", "projects", name, "oneoffs", "end"] => (Method::POST, Route::EndOneoff(project(name)?)),
        ["v1", "projects", name, "oneoffs"] => (Method::POST, Route::MakeOneoff(project(name)?)),
        ["v1", "cluster", "key"] => (Method::POST, Route::Key),
        ["v1", "cluster", "admit"] => (Method::POST, Route::Admit),
        ["v1", "cluster", "join"] => (Method::POST, Route::Join),
        ["v1", "cluster", "leave"] => (Method::POST, Route::Leave),
        ["v1", "cluster", "seat"] => (Method::POST, Route::Seat),
        ["v1", "hosts", name, "change"] => (Method::POST, Route::ChangeHost(host(name)?)),
        ["v1", "hosts", name, "remove"] => (Method::POST, Route::RemoveHost(host(name)?)),
        ["v1", "snapshots", "missing"] => (Method::POST, Route::MissingSnapshots),
        ["v1", "snapshots", hash] => (Method::POST, Route::Snapshot(snapshot(hash)?)),
        ["v1", "images", "offer"] => (Method::POST, Route::OfferImage),
        ["v1", "images", "fetch"] => (Method::POST, Route::FetchImage),
        ["v1", "uninstall"] => (Method::POST, Route::Uninstall),
        _ => {
            let message = format!("the agent has no `{path}`; is it of another version of orch?");
            return Err(ApiError { message, kind: ErrorKind::NotFound }.into());
        }
    };
    if *method == wanted {
        return Ok(route);
    }
    Err(Refusal::user(StatusCode::METHOD_NOT_ALLOWED, format!("`{path}` takes {wanted}, not {method}")))
}

fn project(name: &str) -> Result<ProjectName, Refusal> {
    ProjectName::new(name).map_err(|error| Refusal::user(StatusCode::BAD_REQUEST, error.to_string()))
}

fn host(name: &str) -> Result<HostName, Refusal> {
    HostName::new(name).map_err(|error| Refusal::user(StatusCode::BAD_REQUEST, error.to_string()))
}

fn snapshot(hash: &str) -> Result<SnapshotHash, Refusal> {
    SnapshotHash::new(hash).map_err(|error| Refusal::user(StatusCode::BAD_REQUEST, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documented table is what the router does: every row parses, with the other method it does not.
    #[test]
    fn the_documented_routes_exist() {
        let rows: Vec<(&str, &str)> = include_str!("../types.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `")?.split_once('`')?.0.split_once(' '))
            .collect();
        let is_row = |line: &str| line.trim_start().starts_with("[\"") && line.contains("] => (Method::");
        let routed = include_str!("route.rs").lines().filter(|line| is_row(line)).count();
        assert_eq!(rows.len(), routed, "rows of the table in types.rs, and of the router");
        for (method, path) in rows {
            let path = path.replace("NAME", "shop").replace("HASH", &"0".repeat(64));
            let other = if method == "GET" { Method::POST } else { Method::GET };
            assert!(parse(&method.parse().expect("a method"), &path).is_ok(), "{method} {path}");
            let refusal = parse(&other, &path).expect_err("the other method is refused");
            assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED, "{other} {path}");
        }
    }

    #[test]
    fn what_is_not_a_route_is_refused() {
        let status = |path: &str| parse(&Method::GET, path).err().map(|refusal| refusal.status.as_u16());
        for path in ["", "/", "/v1", "/v2/info", "/v1/info/", "/v1/projects/a/b/c", "/v1/projects/a/kill"] {
            assert_eq!(status(path), Some(404), "{path}");
        }
        for path in [
            "/v1/projects/",
            "/v1/projects/A",
            "/v1/projects/..",
            "/v1/projects/%61",
            "/v1/snapshots/..",
            "/v1/snapshots/0F",
        ] {
            assert_eq!(status(path), Some(400), "{path}");
        }
    }
}
