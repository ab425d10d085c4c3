//! The JSON schema of orch's own keys takes what `load` takes of them, and refuses slips.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{cases, files, project::Project, table};

/// Returns why a value does not fit, with its path; only what the schema uses is known.
fn wrong(schema: &Value, value: &Value, path: &str) -> Option<String> {
    for (key, rule) in schema.as_object().expect("a schema is a mapping") {
        let problem = match key.as_str() {
            "$schema" | "title" | "description" | "patternProperties" | "additionalProperties" => None,
            "type" => (!is_of(rule, value)).then(|| format!("{path} is not {rule}")),
            "enum" => {
                let words = rule.as_array().expect("a list");
                (!words.contains(value)).then(|| format!("{path} is none of {rule}"))
            }
            "pattern" => {
                assert_eq!(rule, "\\$");
                value.as_str().is_some_and(|text| !text.contains('$')).then(|| format!("{path} has no variable"))
            }
            "minimum" => {
                value.as_f64().filter(|n| *n < rule.as_f64().expect("a number")).map(|n| format!("{path}: {n}"))
            }
            "maximum" => {
                value.as_f64().filter(|n| *n > rule.as_f64().expect("a number")).map(|n| format!("{path}: {n}"))
            }
            "not" => wrong(rule, value, path).is_none().then(|| format!("{path} must not be there")),
            "anyOf" => {
                let forms: Option<Vec<String>> =
                    rule.as_array().expect("a list").iter().map(|form| wrong(form, value, path)).collect();
                forms.map(|problems| problems.join("; "))
            }
            "items" => value.as_array().into_iter().flatten().find_map(|item| wrong(rule, item, &format!("{path}[]"))),
            "properties" => value.as_object().into_iter().flatten().find_map(|(key, value)| {
                rule.get(key).and_then(|schema| wrong(schema, value, &format!("{path}.{key}")))
            }),
            other => panic!("{other} is not known"),
        };
        if problem.is_some() {
            return problem;
        }
    }
    others(schema, value, path)
}

fn is_of(kinds: &Value, value: &Value) -> bool {
    let is = |kind: &Value| match kind.as_str().expect("a kind") {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is not known"),
    };
    kinds.as_array().map_or_else(|| is(kinds), |kinds| kinds.iter().any(is))
}

/// Keys that have no schema of their own.
fn others(schema: &Value, value: &Value, path: &str) -> Option<String> {
    let more = schema.get("additionalProperties")?;
    let own = |key: &str| key.starts_with("x-") && schema.get("patternProperties").is_some();
    let known = |key: &str| schema.get("properties").is_some_and(|keys| keys.get(key).is_some());
    let mut rest = value.as_object()?.iter().filter(|(key, _)| !known(key) && !own(key));
    match more {
        Value::Bool(false) => rest.next().map(|(key, _)| format!("{path}.{key} is not known")),
        more => rest.find_map(|(key, value)| wrong(more, value, &format!("{path}.{key}"))),
    }
}

fn examples() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose-examples");
    let folders = std::fs::read_dir(root).expect("it is there").flatten();
    folders.map(|folder| folder.path().join("compose.yaml")).filter(|path| path.exists()).collect()
}

#[test]
fn all_that_load_takes_fits_the_schema() {
    let schema = orch::load::schema();
    let mut projects: Vec<(String, Vec<u8>)> = Vec::new();
    for path in examples() {
        projects.push((path.display().to_string(), std::fs::read(&path).expect("an example")));
    }
    assert!(projects.len() > 8, "only {} examples found", projects.len());
    let whole = cases().into_iter().map(|case| (case.display().to_string(), Project::of_case(&case)));
    let rows = files(".table").into_iter().flat_map(|table| {
        let rows = table::rows(&table);
        rows.into_iter().map(move |row| (row.layers.join(" + "), table::project(&table, &row)))
    });
    for (name, project) in whole.chain(rows).filter(|(_, project)| project.load().is_ok()) {
        let texts = project
            .request
            .files
            .iter()
            .filter_map(|file| project.files.files.get(Path::new("/project").join(file).as_path()));
        projects.extend(texts.map(|text| (name.clone(), text.clone())));
    }
    let mut checked = 0;
    for (name, text) in projects {
        // Tags and several documents are what JSON cannot say.
        let Ok(mut value) = serde_yaml::from_slice::<serde_yaml::Value>(&text) else { continue };
        let Ok(value) = value.apply_merge().and_then(|()| serde_yaml::from_value::<Value>(value)) else { continue };
        checked += 1;
        assert_eq!(wrong(&schema, &value, ""), None, "{name}");
    }
    assert!(checked > 200, "only {checked} files");
}

/// Returns the schemas of a part of a value, in all its forms.
fn below<'s>(schema: &'s Value, step: &str) -> Vec<&'s Value> {
    let forms = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    let own = match step {
        "*" => schema.get("additionalProperties").filter(|more| more.is_object()),
        "[]" => schema.get("items"),
        key => schema.get("properties").and_then(|keys| keys.get(key)),
    };
    own.into_iter().chain(forms.flat_map(|form| below(form, step))).collect()
}

#[test]
fn every_row_of_our_own_keys_is_in_the_schema() {
    let schema = orch::load::schema();
    let table = include_str!("../../src/load/rules/own.rs");
    let rows =
        table.split("row(\"").skip(1).filter_map(|rest| rest.split('"').next()).filter(|path| path.contains(".x-"));
    let mut count = 0;
    for row in rows {
        count += 1;
        let found = row
            .split('.')
            .fold(vec![&schema], |at, step| at.into_iter().flat_map(|schema| below(schema, step)).collect());
        assert!(!found.is_empty(), "{row} is not in the schema");
    }
    assert!(count > 80, "only {count} rows found");
}

#[test]
fn slips_do_not_fit() {
    let schema = orch::load::schema();
    let service = |key: &str, value: Value| json!({ "services": { "web": { key: value } } });
    for (value, problem) in [
        (service("x-route", json!({ "hots": "a" })), "hots is not known"),
        (service("x-route", json!({ "host": "a", "port": 70_000 })), "70000"),
        (service("x-balance", json!({ "by": "random" })), "is none of"),
        (service("x-sidecars", json!({ "a": { "ports": ["80:80"] } })), "ports is not known"),
        (service("x-sidecars", json!({ "a": { "tty": [1] } })), ".tty"),
        (service("x-init", json!({ "a": { "healthcheck": {} } })), "healthcheck is not known"),
        (service("x-ambassadors", json!({ "a": { "retries": 101 } })), "101"),
        (service("x-probe", json!({ "interval": 3 })), "interval is not"),
        (service("x-patterns", json!([{ "uses": "x" }])), "uses is not known"),
        (service("x-export", json!({ "a": 1 })), "x-export is not"),
        (json!({ "volumes": { "v": { "x-pod": { "medium": "ram" } } } }), "is none of"),
        (json!({ "x-hosts": { "a": { "shh": "x" } } }), "shh is not known"),
    ] {
        let found = wrong(&schema, &value, "").unwrap_or_else(|| panic!("{value} fits"));
        assert!(found.contains(problem), "{found}");
    }
}
