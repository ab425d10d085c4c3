//! What `config` prints: the whole model as JSON or YAML, and the short lists.

use serde::Serialize;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::ServiceName;
use crate::model::Model;

use super::Loaded;
use super::emit;
use super::helpers::Kind;
use super::interpolate::{self, OperatorKind, Part};
use super::node::{Node, Value};

/// Returns the model as Docker Compose's `config --format json` prints it, with `$` doubled so that it loads again.
///
/// One difference: Docker Compose leaves `x-` keys below the top level out of its JSON; here they stay.
///
/// # Panics
/// Never: all keys of a model are text.
pub fn render_json(model: &Model) -> String {
    format!("{:#}\n", printed(model))
}

/// Returns the model as Docker Compose's `config` prints it, with `$` doubled so that it loads again.
///
/// # Panics
/// Never: all keys of a model are text.
pub fn render_yaml(model: &Model) -> String {
    let mut json = printed(model);
    without_what_says_nothing(&mut json);
    emit::to_yaml(&json)
}

/// Leaves out what Docker Compose prints in its JSON alone: keys that are there whether the file has them or not.
fn without_what_says_nothing(project: &mut Json) {
    fn drop_empty(of: &mut Json, keys: &[&str]) {
        let says_nothing = |value: &Json| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
        if let Some(map) = of.as_object_mut() {
            map.retain(|key, value| !keys.contains(&key.as_str()) || !says_nothing(value));
        }
    }
    fn entries<'a>(of: &'a mut Json, key: &str) -> impl Iterator<Item = &'a mut Json> {
        of.get_mut(key).and_then(Json::as_object_mut).into_iter().flat_map(serde_json::Map::values_mut)
    }
    for network in entries(project, "networks") {
        drop_empty(network, &["ipam"]);
    }
    for service in entries(project, "services") {
        drop_empty(service, &["command", "entrypoint"]);
        service.get_mut("deploy").into_iter().for_each(|deploy| drop_empty(deploy, &["placement", "resources"]));
        let watched = service.get_mut("develop").and_then(|develop| develop.get_mut("watch")?.as_array_mut());
        for watched in watched.into_iter().flatten() {
            watched.get_mut("exec").into_iter().for_each(|exec| drop_empty(exec, &["command"]));
            drop_empty(watched, &["exec"]);
        }
    }
}

/// The model with `$` doubled in values. Docker Compose doubles it in keys as well, but does not undo that on loading.
fn printed(model: &Model) -> Json {
    let mut json = serde_json::to_value(model).expect("a model has text keys only");
    // What is not applied yet is a part of its own, but printed among the rest.
    for service in json["services"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        service.as_object_mut().into_iter().for_each(serde_json::Map::sort_keys);
    }
    double(&mut json);
    json
}

fn double(json: &mut Json) {
    match json {
        Json::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Json::Array(items) => items.iter_mut().for_each(double),
        Json::Object(map) => map.values_mut().for_each(double),
        _ => {}
    }
}

/// Returns the enabled services: `config --services`.
pub fn services(model: &Model) -> Vec<&str> {
    model.services.keys().map(ServiceName::as_str).collect()
}

/// Returns the keys of volumes: `config --volumes`.
pub fn volumes(model: &Model) -> Vec<&str> {
    model.volumes.keys().map(AsRef::as_ref).collect()
}

/// Returns the keys of networks: `config --networks`.
pub fn networks(model: &Model) -> Vec<&str> {
    model.networks.keys().map(AsRef::as_ref).collect()
}

/// Returns the image of each service: `config --images`. One that is built has a name of the project's where none is given.
pub fn images(model: &Model) -> Vec<String> {
    model.services.iter().filter_map(|(name, service)| service.image_name(&model.name, name)).collect()
}

/// Returns the models by the names that they have outside of the project: `config --models`.
pub fn models(loaded: &Loaded) -> Vec<&str> {
    loaded.tree.entries("models").filter_map(|(_, entry)| entry.node.str("model")).collect()
}

/// Returns the images that services and the containers beside them name.
pub fn named_images(model: &Model) -> BTreeSet<String> {
    let services = || model.services.values();
    let helpers = services().flat_map(|service| service.keys.helpers()).map(|(_, _, container)| container);
    services().chain(helpers).filter_map(|service| service.image.clone()).collect()
}

/// Puts pinned references in place of the images that name them: `config --resolve-image-digests`.
pub fn pin(model: &mut Model, pinned: &BTreeMap<String, String>) {
    let replace = |image: &mut String| {
        if let Some(reference) = pinned.get(image) {
            image.clone_from(reference);
        }
    };
    for service in model.services.values_mut() {
        service.image.iter_mut().for_each(replace);
        for kind in Kind::ALL {
            let group = service.extensions.get_mut(kind.key()).and_then(Json::as_object_mut);
            for helper in group.into_iter().flat_map(|group| group.values_mut()) {
                if let Some(Json::String(image)) = helper.get_mut("image") {
                    replace(image);
                }
            }
        }
    }
}

/// Returns a file that pins images and says nothing else, to be put over others: `config --lock-image-digests`.
pub fn images_only(model: &Model) -> Json {
    let mut services = serde_json::Map::new();
    for (name, service) in &model.services {
        let mut only = serde_json::Map::new();
        only.extend(service.image.iter().map(|image| ("image".to_owned(), Json::from(image.as_str()))));
        for (group, helper, container) in service.keys.helpers() {
            let written = service.extensions.get(group).and_then(|group| group.get(helper)?.get("image"));
            let Some(image) = written.cloned().or_else(|| container.image.clone().map(Json::from)) else { continue };
            let group = only.entry(group).or_insert_with(|| Json::Object(serde_json::Map::new()));
            group[helper] = serde_json::json!({ "image": image });
        }
        services.insert(name.to_string(), Json::Object(only));
    }
    let mut json = serde_json::json!({ "services": services });
    double(&mut json);
    json
}

/// Returns a reference as the engine knows it, with registry, path and tag: `redis` is
/// `docker.io/library/redis:latest`.
fn full(image: &str) -> String {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    };
    let repository = match repository.split_once('/') {
        Some(("index.docker.io", path)) => format!("docker.io/{path}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => repository.to_owned(),
        Some(_) => format!("docker.io/{repository}"),
        None => format!("docker.io/library/{repository}"),
    };
    match (digest, tag) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, tag) => format!("{repository}:{}", tag.unwrap_or("latest")),
    }
}

/// Returns an image with one of the digests that registries gave it (`redis@sha256:…`); `None` if none is of its own
/// repository. One that has a digest keeps it.
pub fn pinned(image: &str, digests: &[String]) -> Option<String> {
    let own = full(image);
    if own.contains('@') {
        return Some(own);
    }
    let (repository, _) = own.rsplit_once(':')?;
    let of_it = |digest: &&str| full(digest).split_once('@').is_some_and(|(name, _)| name == repository);
    let digest = digests.iter().map(String::as_str).find(of_it)?;
    Some(format!("{own}@{}", digest.split_once('@')?.1))
}

/// A variable that a file asks for: `config --variables`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VariableUse {
    /// Name.
    pub name: String,
    /// `${NAME:?…}`.
    pub required: bool,
    /// `${NAME:-DEFAULT}`.
    pub default: Option<String>,
    /// `${NAME:+REPLACEMENT}`.
    pub alternate: Option<String>,
}

/// Variables by their names.
pub(super) type Variables = BTreeMap<String, VariableUse>;

/// Adds the variables of all values to those `found` before.
pub(super) fn variables(node: &Node, found: &mut Variables) {
    match &node.value {
        Value::Str(text) if text.contains('$') => {
            if let Ok(parts) = interpolate::parse(text) {
                collect(&parts, text, found);
            }
        }
        Value::Seq(items) => items.iter().for_each(|item| variables(item, found)),
        Value::Map(map) => map.values().for_each(|entry| variables(&entry.node, found)),
        _ => {}
    }
}

/// Adds variables found elsewhere.
pub(super) fn add_variables(found: &mut Variables, more: Variables) {
    for (name, VariableUse { name: _, required, default, alternate }) in more {
        let known = found.entry(name.clone()).or_default();
        known.name = name;
        known.required |= required;
        known.default = default.or(known.default.take());
        known.alternate = alternate.or(known.alternate.take());
    }
}

fn collect(parts: &[Part], text: &str, found: &mut Variables) {
    for part in parts {
        let Part::Variable(variable) = part else { continue };
        let known = found.entry(variable.name.clone()).or_default();
        known.name.clone_from(&variable.name);
        let Some(operator) = &variable.operator else { continue };
        let length = variable.name.len() + usize::from(operator.colon) + 3;
        let word = text.get(variable.range.start + length..variable.range.end - 1).unwrap_or_default().to_owned();
        match operator.kind {
            OperatorKind::Default => known.default = Some(word),
            OperatorKind::Required => known.required = true,
            OperatorKind::Replacement => known.alternate = Some(word),
        }
        collect(&operator.word, text, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Docker Compose 2.40 prints them.
    #[test]
    fn images_are_pinned_to_the_digest_of_their_own_repository() {
        let digests = ["redis@sha256:1", "me/app@sha256:2", "r.example.com:5000/x/y@sha256:3"].map(str::to_owned);
        for (image, expected) in [
            ("redis", Some("docker.io/library/redis:latest@sha256:1")),
            ("redis:7", Some("docker.io/library/redis:7@sha256:1")),
            ("docker.io/library/redis", Some("docker.io/library/redis:latest@sha256:1")),
            ("me/app:v1", Some("docker.io/me/app:v1@sha256:2")),
            ("r.example.com:5000/x/y", Some("r.example.com:5000/x/y:latest@sha256:3")),
            ("redis:7@sha256:9", Some("docker.io/library/redis@sha256:9")),
            ("other", None),
            ("localhost/redis", None),
        ] {
            assert_eq!(pinned(image, &digests).as_deref(), expected, "{image}");
        }
    }
}
