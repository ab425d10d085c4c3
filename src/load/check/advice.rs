//! What to do about what a place does not take: guessed from slips that lead to it.

use crate::diag::did_you_mean;
use crate::load::long::Long;
use crate::load::node::{Node, Value};
use crate::load::path::Path;
use crate::load::rules::{self, Rules, Shape};
use crate::load::slips;

use super::is_name;

/// What to do about a value of the wrong kind, where a slip is known that leads to it.
pub(super) fn of_value(path: &Path<'_>, rules: &Rules, value: &Value) -> Option<String> {
    let rule = rules.rule();
    let shape = rule.shape;
    let takes_list = shape == Shape::List || shape == Shape::Open && matches!(rule.long, Long::Value(_));
    let is_of_services = |name: &str| rules::of_service().names().any(|key| key == name);
    // `interval 5s`, but not `interval:5s`, of which more is said below.
    let lacks_colon = |text: &str| shape == Shape::Map && starts_with_key(text, rules) && !text.contains(':');
    if let Some(help) = of_named(path, rules, value) {
        return Some(help);
    }
    match (path, value) {
        (Path::Key(Path::Root, _), Value::Seq(_)) if shape == Shape::Open => {
            Some("name each by a key: `NAME:` instead of `- NAME`".to_owned())
        }
        (_, Value::Str(text)) if lacks_colon(text) => {
            let word = text.split_whitespace().next().unwrap_or_default();
            Some(format!("a colon is missing after `{word}`"))
        }
        (_, Value::Str(text)) if shape == Shape::Number && number(text).is_some() => {
            number(text).map(|number| format!("write `{number}`"))
        }
        (_, Value::Str(text)) if matches!(shape, Shape::Bytes | Shape::BytesOrUnlimited) && text.ends_with('i') => {
            Some(format!("write `{}`", text.trim_end_matches('i').to_lowercase()))
        }
        (Path::Key(Path::Key(Path::Root, "services"), _), Value::Str(text)) => match text.split_once(':') {
            Some((key, _)) if is_of_services(key) => Some(format!("a space is missing after `{key}:`")),
            _ => Some(match text.split_once('=') {
                Some((key, value)) if is_of_services(key.trim()) => format!("write `{}: {}`", key.trim(), value.trim()),
                _ => "name its image below it: `image: NAME`".to_owned(),
            }),
        },
        (Path::Key(Path::Key(Path::Root, "services"), _), Value::Null) => {
            Some("name its image below it: `image: NAME`".to_owned())
        }
        (Path::Key(Path::Key(Path::Root, "configs" | "secrets"), _), Value::Str(_)) => {
            Some("name its file below it: `file: PATH`".to_owned())
        }
        (Path::Key(Path::Key(Path::Root, "networks" | "volumes"), _), Value::Str(_)) => {
            Some("name its driver below it: `driver: NAME`".to_owned())
        }
        (_, Value::Str(text)) if (takes_list || shape == Shape::List) && text.starts_with('-') => {
            Some("a space is missing after `-`".to_owned())
        }
        (_, Value::Map(_)) if shape == Shape::List => Some("write a list: `- ` before each item".to_owned()),
        (Path::Key(Path::Root, _), Value::Str(word)) if shape == Shape::Open && is_name(word) => {
            Some(format!("a colon is missing after `{word}`"))
        }
        (_, Value::Str(text)) if text.ends_with(['"', '\'']) => {
            Some("this quote has no beginning: take it out, or put one before the text".to_owned())
        }
        (_, Value::Str(text)) if shape == Shape::Map && text.split_once(':').is_some_and(|(key, _)| is_name(key)) => {
            let (key, _) = text.split_once(':').unwrap_or_default();
            Some(format!("a space is missing after `{key}:`"))
        }
        (_, Value::Seq(items))
            if shape == Shape::Map && !items.is_empty() && items.iter().all(|item| item.as_map().is_some()) =>
        {
            Some("write its keys without a list around them".to_owned())
        }
        (_, Value::Str(text)) if shape == Shape::Duration && text.contains(char::is_alphabetic) => {
            Some("units are `ms`, `s`, `m`, `h` and `d`".to_owned())
        }
        (_, Value::Str(text))
            if matches!(shape, Shape::Bytes | Shape::BytesOrUnlimited) && text.contains(char::is_alphabetic) =>
        {
            Some("units are `k`, `m` and `g`".to_owned())
        }
        (_, Value::Int(number)) if shape == Shape::Duration => Some(format!("write its unit, too: `{number}s`")),
        (Path::Item(..), Value::Int(_) | Value::Float(_) | Value::Bool(_)) if shape == Shape::Text => {
            Some(format!("put it in quotes: `\"{}\"`", value.scalar_text().unwrap_or_default()))
        }
        (_, Value::Str(_) | Value::Int(_)) if takes_list => Some("write a list: `- ` before each item".to_owned()),
        (_, Value::Str(word)) if shape == Shape::Bool && matches!(&*word.to_lowercase(), "yes" | "on") => {
            Some("write `true`".to_owned())
        }
        (_, Value::Str(word)) if shape == Shape::Bool && matches!(&*word.to_lowercase(), "no" | "off") => {
            Some("write `false`".to_owned())
        }
        _ => None,
    }
}

/// The same, of some keys alone.
fn of_named(path: &Path<'_>, rules: &Rules, value: &Value) -> Option<String> {
    let is_map = rules.rule().shape == Shape::Map;
    match (path, value) {
        (Path::Key(parent, name), _) if is_map && owners(parent).is_some() && rules.key(name).is_some() => {
            let owners = owners(parent).unwrap_or_default();
            Some(format!("`{name}` is a key of {owners}: indent it below the name of one"))
        }
        (Path::Key(Path::Key(..), "depends_on") | Path::Key(Path::Key(_, "depends_on"), _), Value::Null) => {
            Some("write a list of names, or what is waited for: `condition: service_started`".to_owned())
        }
        (Path::Key(Path::Key(_, "depends_on"), _), Value::Str(word)) if word.starts_with("service_") => {
            Some(format!("write it below: `condition: {word}`"))
        }
        (Path::Key(_, "healthcheck"), Value::Str(text)) if !starts_with_key(text, rules) => {
            Some("name it below: `test: COMMAND`".to_owned())
        }
        (Path::Key(_, "logging"), Value::Str(text)) if is_name(text) => {
            Some(format!("name it below: `driver: {text}`"))
        }
        (Path::Key(_, "build"), Value::Seq(_)) => Some("write one path: `build: PATH`".to_owned()),
        (Path::Key(_, "restart"), Value::Bool(true)) => Some("write `always`".to_owned()),
        _ => None,
    }
}

/// What to do about a key that `rules` do not know. `is_alone`: there is no other beside it.
pub(super) fn of_unknown_key(key: &str, node: &Node, is_alone: bool, rules: &Rules, path: &Path<'_>) -> Option<String> {
    let own = format!("x-{key}");
    let first = key.split([':', ' ']).next().unwrap_or_default();
    if let Some(blank) = key.chars().next().filter(|c| c.is_whitespace()) {
        return Some(format!("indent with plain spaces: it starts with U+{:04X}", u32::from(blank)));
    }
    if let Some((_, help)) = slips::comment(key).or_else(|| slips::elsewhere(key)) {
        return Some(help);
    }
    if rules.names().any(|name| name == own) {
        return Some(format!("did you mean `{own}`?"));
    }
    if node.is_null() && key.starts_with(&format!("{first}:")) && rules.key(first).is_some() {
        return Some(format!("a space is missing after `{first}:`"));
    }
    if let Some(meant) = did_you_mean(key, rules.names()) {
        return Some(format!("did you mean `{meant}`?"));
    }
    if let Path::Item(Path::Key(_, list), _) = path
        && is_alone
    {
        match (*list, &node.value) {
            ("volumes" | "devices" | "ports", Value::Str(_) | Value::Int(_)) => {
                return Some(format!("take out the space after `{key}:`"));
            }
            ("secrets" | "configs", Value::Map(_) | Value::Null) => {
                return Some(format!("write `source: {key}`, with the other keys beside it"));
            }
            _ => {}
        }
    }
    rules::astray(key, path)
        .or_else(|| service_elsewhere(path, node))
        .or_else(|| resource_elsewhere(path, node))
        .or_else(|| matches!(path, Path::Root).then(|| "keys of your own start with `x-`".to_owned()))
}

/// A network, volume and the like, or a service's connection with one, that stands in another one.
pub(super) fn resource_elsewhere(path: &Path<'_>, node: &Node) -> Option<String> {
    let Path::Key(parent, name) = path else { return None };
    let kinds = owners(parent).filter(|kinds| *kinds != "services")?;
    let is_one = node.is_null() || node.as_map().is_some();
    is_one.then(|| format!("{kinds} stand side by side: align it with `{name}`"))
}

/// What the entries of a mapping are, whose keys are for the user to choose, and which have keys of ours.
fn owners(path: &Path<'_>) -> Option<&'static str> {
    match path {
        Path::Key(Path::Root, kind) => {
            let kinds = ["services", "networks", "volumes", "configs", "secrets", "models"];
            kinds.into_iter().find(|other| other == kind)
        }
        Path::Key(_, "depends_on") => Some("dependencies"),
        Path::Key(Path::Key(Path::Key(Path::Root, "services"), _), "networks") => Some("networks"),
        _ => None,
    }
}

fn starts_with_key(text: &str, rules: &Rules) -> bool {
    let parts = text.split_once(char::is_whitespace).filter(|(_, rest)| !rest.trim_start().starts_with('='));
    let is_key = |word: &str| is_name(word) && rules.key(word).is_some();
    parts.is_some_and(|(word, _)| is_key(word)) || text.split_once(':').is_some_and(|(word, _)| is_key(word))
}

/// The number that was meant by `0,5` or, in thousandths, by `500m`.
fn number(text: &str) -> Option<f64> {
    match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().ok().map(|number: f64| number / 1000.0),
        None => text.replacen(',', ".", 1).parse().ok(),
    }
}

/// Where a service belongs that stands elsewhere: at the top level, as in files of the first version, or in another one.
pub(super) fn service_elsewhere(path: &Path<'_>, node: &Node) -> Option<String> {
    if node.get("image").is_none() && node.get("build").is_none() {
        return None;
    }
    match path {
        Path::Root => Some("services stand below `services:`".to_owned()),
        Path::Key(Path::Key(Path::Root, "services"), name) => {
            Some(format!("services stand side by side: align it with `{name}`"))
        }
        _ => None,
    }
}
