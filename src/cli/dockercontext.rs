//! Which engine the user's Docker client would talk to: `DOCKER_HOST`, then `DOCKER_CONTEXT`, then what
//! `docker context use` chose.
//!
//! Only the address is taken of a context. Source: docker/cli, cli/command/cli.go `resolveContextName`,
//! cli/context/store.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::CliError;

/// Name of the context that means the local engine.
const DEFAULT: &str = "default";

/// An engine that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedEngine {
    /// Its address: `unix:///run/user/1000/docker.sock`.
    pub address: String,
    /// Whether the environment says so, for this command; else it is the user's usual one.
    pub by_environment: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    current_context: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    name: String,
    #[serde(default)]
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoints {
    docker: Endpoint,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Endpoint {
    host: String,
}

/// Returns the engine that is named; `None`: the local one. `variable` looks up the process environment.
///
/// # Errors
/// When a context is named that Docker's client does not have.
pub(crate) fn engine(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<NamedEngine>, CliError> {
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok()).filter(|text| !text.is_empty());
    if let Some(address) = text("DOCKER_HOST") {
        return Ok(Some(NamedEngine { address, by_environment: true }));
    }
    let Some(folder) = folder(variable) else { return Ok(None) };
    let chosen = text("DOCKER_CONTEXT");
    let by_environment = chosen.is_some();
    let name = chosen.unwrap_or_else(|| current(&folder));
    if name.is_empty() || name == DEFAULT {
        return Ok(None);
    }
    let address = address(&folder, &name).ok_or_else(|| CliError::Value {
        what: "context of Docker's client",
        value: name.clone(),
        expected: "one that `docker context ls` lists",
    })?;
    Ok(Some(NamedEngine { address, by_environment }))
}

/// The directory of the Docker client's configuration.
fn folder(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))
}

/// What `docker context use` wrote down. What cannot be read is as nothing: it is told where logins are read.
fn current(folder: &Path) -> String {
    let text = std::fs::read(folder.join("config.json")).unwrap_or_default();
    serde_json::from_slice::<Config>(&text).unwrap_or_default().current_context
}

fn address(folder: &Path, name: &str) -> Option<String> {
    let contexts = std::fs::read_dir(folder.join("contexts/meta")).ok()?;
    let metas = contexts.filter_map(|entry| std::fs::read(entry.ok()?.path().join("meta.json")).ok());
    let mut metas = metas.filter_map(|text| serde_json::from_slice::<Meta>(&text).ok());
    metas.find(|meta| meta.name == name).map(|meta| meta.endpoints.docker.host).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A client's configuration with one context, `far`.
    fn configuration(current: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a directory");
        let meta = folder.path().join("contexts/meta/0123");
        std::fs::create_dir_all(&meta).expect("a directory");
        let text =
            r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///far.sock","SkipTLSVerify":false}}}"#;
        std::fs::write(meta.join("meta.json"), text).expect("written");
        std::fs::write(folder.path().join("config.json"), format!(r#"{{"currentContext":"{current}"}}"#))
            .expect("written");
        folder
    }

    #[track_caller]
    fn check(current: &str, variables: &[(&str, &str)], expected: Option<(&str, bool)>) {
        let folder = configuration(current);
        let mut variables: BTreeMap<&str, OsString> =
            variables.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
        variables.insert("DOCKER_CONFIG", folder.path().as_os_str().to_owned());
        let named = engine(&|name| variables.get(name).cloned()).expect("a known context");
        assert_eq!(named.as_ref().map(|one| (one.address.as_str(), one.by_environment)), expected, "{variables:?}");
    }

    #[test]
    fn an_address_comes_before_a_context_and_that_of_the_environment_before_the_usual_one() {
        check("", &[], None);
        check("default", &[], None);
        check("far", &[], Some(("unix:///far.sock", false)));
        check("", &[("DOCKER_CONTEXT", "far")], Some(("unix:///far.sock", true)));
        check("far", &[("DOCKER_CONTEXT", "default")], None);
        check("far", &[("DOCKER_HOST", "unix:///x")], Some(("unix:///x", true)));
        check("", &[("DOCKER_HOST", "unix:///x"), ("DOCKER_CONTEXT", "far")], Some(("unix:///x", true)));
        check("", &[("DOCKER_HOST", "")], None);
    }

    #[test]
    fn a_context_that_is_not_there_is_an_error() {
        let folder = configuration("");
        let variable = |name: &str| match name {
            "DOCKER_CONFIG" => Some(folder.path().as_os_str().to_owned()),
            "DOCKER_CONTEXT" => Some("near".into()),
            _ => None,
        };
        assert!(engine(&variable).expect_err("no such context").to_string().contains("`near`"));
    }
}
