//! A JSON schema of orch's own keys, for editors: beside the Compose Specification's own schema it completes and checks
//! what stands under `x-`.
//!
//! It is made of the table of rules, row by row. Short forms are found by trying: what a row's conversion makes of a
//! value of each kind says whether that kind may stand there. It takes every file that `load` takes; what only a
//! value's own grammar can tell is left to `orch config`.

use serde_json::{Map as JsonMap, Value as Json, json};

use crate::diag::Span;

use super::long::Long;
use super::node::{Map, Node, Value};
use super::report::Report;
use super::rules::{self, Keys, Rules, Shape};

/// Returns the schema.
pub fn schema() -> Json {
    let root = rules::root(Keys::All);
    let mut properties = JsonMap::new();
    properties.insert("x-hosts".to_owned(), hosts());
    for section in ["services", "volumes"] {
        let Some(rules) = root.key(section).and_then(|rules| rules.key("*")) else { continue };
        let own = rules.names().filter(|name| name.starts_with("x-"));
        let keys: JsonMap<String, Json> =
            own.filter_map(|name| Some((name.to_owned(), schema_of(rules.key(name)?)))).collect();
        let entry = json!({ "type": ["object", "null"], "properties": keys });
        properties.insert(section.to_owned(), json!({ "type": ["object", "null"], "additionalProperties": entry }));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "orch's own keys in a compose file",
        "type": "object",
        "properties": properties,
    })
}

/// `x-hosts` has no row: see [`super::hosts`].
fn hosts() -> Json {
    let text = json!({ "type": "string" });
    let scalar = json!({ "type": ["string", "number", "boolean", "null"] });
    let labels = json!({ "anyOf": [
        { "type": "object", "additionalProperties": scalar },
        { "type": "array", "items": text },
        { "type": "null" },
    ] });
    // Of several files each may say a part.
    let long = json!({
        "type": "object",
        "properties": { "ssh": text, "address": { "type": ["string", "null"] }, "labels": labels },
        "patternProperties": { "^x-": {} },
        "additionalProperties": false,
    });
    json!({
        "description": "hosts by their names: an address such as `ssh://user@host`, or a mapping",
        "type": ["object", "null"],
        "additionalProperties": { "anyOf": [text, long] },
    })
}

fn schema_of(rules: &Rules) -> Json {
    let rule = rules.rule();
    let mut forms = match long_form(rules) {
        Json::Object(mut form) if form.len() == 1 && form.contains_key("anyOf") => match form.remove("anyOf") {
            Some(Json::Array(forms)) => forms,
            _ => Vec::new(),
        },
        form => vec![form],
    };
    forms.extend(short_forms(rules));
    if rule.nullable {
        forms.push(json!({ "type": "null" }));
    }
    let mut schema = match <[Json; 1]>::try_from(forms) {
        Ok([Json::Object(form)]) => form,
        Ok([other]) => return other,
        Err(forms) => JsonMap::from_iter([("anyOf".to_owned(), Json::Array(forms))]),
    };
    let text = match (rule.expected, rule.spec) {
        ("", spec) => spec.to_owned(),
        (says, "") => says.to_owned(),
        (says, spec) => format!("{says} ({spec})"),
    };
    if !text.is_empty() && rule.shape != Shape::Any {
        schema.insert("description".to_owned(), Json::String(text));
    }
    Json::Object(schema)
}

/// What the row takes, once short forms are long.
fn long_form(rules: &Rules) -> Json {
    let one_of = |words: &[&str]| json!({ "enum": words });
    // Text with a variable in it may become anything.
    let or_variable = |form: Json| json!({ "anyOf": [form, { "type": "string", "pattern": "\\$" }] });
    let list = || json!({ "type": "array", "items": schema_of(rules.item()) });
    match rules.rule().shape {
        Shape::Elsewhere(_) => json!({ "not": {} }),
        Shape::Any => json!({}),
        Shape::Text | Shape::Duration => json!({ "type": "string" }),
        Shape::Word(words, _) => or_variable(one_of(words)),
        Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Shape::ScalarOrList => json!({ "anyOf": [{ "type": ["string", "number", "boolean"] }, list()] }),
        Shape::TextOrNumber => json!({ "type": ["string", "number", "null"] }),
        Shape::Bool => boolean(),
        Shape::Int(least, most) => integer(least, most),
        Shape::Number => json!({ "anyOf": [{ "type": "number", "minimum": 0 }, { "type": "string" }] }),
        Shape::Bytes | Shape::BytesOrUnlimited | Shape::Mode | Shape::Percent => {
            json!({ "type": ["string", "number"] })
        }
        Shape::IntOrMap => json!({ "anyOf": [integer(i64::MIN, i64::MAX), mapping(rules)] }),
        Shape::BoolOrMap => json!({ "anyOf": [boolean(), mapping(rules)] }),
        Shape::BoolOrList => json!({ "anyOf": [boolean(), list()] }),
        Shape::WordOrMap(words) => json!({ "anyOf": [or_variable(one_of(words)), mapping(rules)] }),
        Shape::Map => mapping(rules),
        Shape::Open => json!({ "type": "object", "additionalProperties": rules.key("").map(schema_of) }),
        Shape::List => list(),
    }
}

/// Text becomes a boolean where one belongs.
fn boolean() -> Json {
    json!({ "type": ["boolean", "string"] })
}

/// Text becomes a number where one belongs.
fn integer(least: i64, most: i64) -> Json {
    let mut number = json!({ "type": "integer" });
    for (bound, value, none) in [("minimum", least, i64::MIN), ("maximum", most, i64::MAX)] {
        if value != none {
            number[bound] = json!(value);
        }
    }
    json!({ "anyOf": [number, { "type": "string" }] })
}

fn mapping(rules: &Rules) -> Json {
    let keys: JsonMap<String, Json> =
        rules.names().filter_map(|name| Some((name.to_owned(), schema_of(rules.key(name)?)))).collect();
    json!({
        "type": "object",
        "properties": keys,
        "patternProperties": { "^x-": {} },
        "additionalProperties": false,
    })
}

/// The kinds of values that become the long form.
fn short_forms(rules: &Rules) -> Vec<Json> {
    if wraps(rules) {
        return vec![schema_of(rules.item())];
    }
    let text = |text: &str| Value::Str(text.to_owned());
    let list = |value: Value| Value::Seq(vec![Node::new(nowhere(&mut Report::default()), value)]);
    let texts = ["x", "80", "a:1", "a=1", "/a", "https://a.example.com/b"];
    let number = Value::Int(80);
    let kinds = [
        (json!({ "type": "string" }), texts.map(text).to_vec()),
        (json!({ "type": "integer" }), vec![number.clone()]),
        (json!({ "type": "boolean" }), vec![Value::Bool(true)]),
        (json!({ "type": "array" }), texts.map(text).map(list).into_iter().chain([list(number)]).collect()),
        (json!({ "type": "object" }), vec![Value::map(Map::default())]),
    ];
    kinds
        .into_iter()
        .filter(|(_, samples)| samples.iter().any(|one| becomes_long(one, rules)))
        .map(|(form, _)| form)
        .collect()
}

/// Returns whether one item stands for a list with it.
fn wraps(rules: &Rules) -> bool {
    let Long::Value(convert) = rules.rule().long else { return false };
    let mut report = Report::default();
    let text = Node::text(nowhere(&mut report), "80");
    rules.rule().shape == Shape::List && convert(text.clone(), &mut report).as_seq() == Some(&[text])
}

/// Returns whether a conversion changes a value into one of the kind that the row takes.
fn becomes_long(value: &Value, rules: &Rules) -> bool {
    let mut report = Report::default();
    let node = Node::new(nowhere(&mut report), value.clone());
    let made = match rules.rule().long {
        Long::None => return false,
        Long::Value(convert) => vec![convert(node, &mut report)],
        Long::Items(convert) => convert(node, &mut report),
    };
    let fits = |value: &Value| match rules.rule().shape {
        Shape::Map | Shape::Open | Shape::BoolOrMap | Shape::WordOrMap(_) | Shape::IntOrMap => {
            matches!(value, Value::Map(_))
        }
        Shape::List | Shape::BoolOrList => matches!(value, Value::Seq(_)),
        _ => value.scalar_text().is_some(),
    };
    let other = |made: &Value| std::mem::discriminant(made) != std::mem::discriminant(value);
    !report.failed() && !made.is_empty() && made.iter().all(|made| fits(&made.value) && other(&made.value))
}

/// The place of a value that no file holds.
fn nowhere(report: &mut Report) -> Span {
    Span { source: report.sources.add("", ""), start: 0, end: 0 }
}
