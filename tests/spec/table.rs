//! Many short cases in one file: what service `a` becomes.
//!
//! ```text
//! environment: [A=1]          the service's keys
//! + environment: {B: 2}       a further file's, if any
//! = {"environment": …}        its canonical form, without image and networks
//! ? message                   and why `up` refuses it, if it does; or
//! ! message                   the first problem
//! ```
//! The file `prelude` of the chapter holds what else the project has.

use std::fmt::Write as _;
use std::path::Path;

use orch::diag::Diagnostics;
use orch::load::render_json;
use serde_json::Value;

use crate::project::Project;
use crate::{expect, files};

/// One case of a table.
pub(crate) struct Row {
    /// The service's keys, one entry for each file.
    pub(crate) layers: Vec<String>,
}

/// Returns the rows of a table.
pub(crate) fn rows(table: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(table).expect("tables are text");
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '=', '?', '!'])) {
        match (line.strip_prefix("+ "), rows.last_mut()) {
            (Some(layer), Some(row)) => row.layers.push(layer.to_owned()),
            _ => rows.push(Row { layers: vec![line.to_owned()] }),
        }
    }
    rows
}

/// Returns the project of a row: the chapter's prelude, and service `a` in it.
pub(crate) fn project(table: &Path, row: &Row) -> Project {
    let prelude =
        std::fs::read_to_string(table.with_file_name("prelude")).expect("a chapter with tables has a prelude");
    let layers = row.layers.iter().enumerate().map(|(index, keys)| {
        let image = if index > 0 || keys.starts_with("image:") { "" } else { "image: x, " };
        let rest = if index == 0 { prelude.as_str() } else { "" };
        format!("services:\n  a: {{{image}{keys}}}\n{rest}")
    });
    let mut project = Project::new(layers);
    project.request.profiles = vec!["*".to_owned()];
    project
}

/// The service without what all services have.
fn canonical(json: &str) -> String {
    let model: Value = serde_json::from_str(json).expect("JSON");
    let mut service = model["services"]["a"].clone();
    if let Some(map) = service.as_object_mut() {
        map.retain(|key, value| match key.as_str() {
            "image" => value != "x",
            "networks" => *value != serde_json::json!({"default": null}),
            "command" | "entrypoint" => !value.is_null(),
            _ => true,
        });
        map.sort_keys();
    }
    service.to_string()
}

fn first(problems: &Diagnostics) -> &str {
    problems.iter().next().map_or("", |problem| &problem.message)
}

fn outcome(project: &Project) -> String {
    match project.load() {
        Ok(loaded) => {
            let refused = project.load_to_run().err().map(|problems| format!("\n? {}", first(&problems)));
            format!("= {}{}", canonical(&render_json(&loaded.model)), refused.unwrap_or_default())
        }
        Err(problems) => format!("! {}", first(&problems)),
    }
}

#[test]
fn services_become_what_the_tables_say() {
    let mut failures = Vec::new();
    let mut count = 0;
    for table in files(".table") {
        let text = std::fs::read_to_string(&table).expect("tables are text");
        let head: String = text.split_inclusive('\n').take_while(|line| line.starts_with('#')).collect();
        let mut out = head;
        for row in rows(&table) {
            count += 1;
            _ = write!(out, "{}\n{}\n\n", row.layers.join("\n+ "), outcome(&project(&table, &row)));
        }
        expect(&table, &out, &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count > 150, "only {count} rows");
}
