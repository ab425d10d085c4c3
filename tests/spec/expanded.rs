//! `config --expanded`: every line says where it comes from.

use orch::load::OwnKeys;

use crate::project::Project;
use crate::{cases, expect};

#[test]
fn every_line_says_where_it_comes_from() {
    let mut failures = Vec::new();
    let case = cases().into_iter().find(|case| case.ends_with("x-patterns/use.yaml")).expect("it is there");
    let mut project = Project::of_case(&case);
    project.request.options.own_keys = OwnKeys::Expanded;
    let text = project.load().unwrap_or_else(|problems| panic!("{problems}")).render_expanded();
    expect(&case.with_extension("expanded.txt"), &text, &mut failures);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(text.lines().all(|line| line.contains(" # ")), "{text}");
}

#[test]
fn patterns_are_left_alone_where_docker_compose_is_to_understand_the_output() {
    let text = "services: {web: {image: x, x-patterns: [redis-ambassador], x-sidecars: {a: {image: y, tmpfs: /t}}}}\n\
                x-redis: {}\n";
    let mut project = Project::new([text]);
    project.request.options.own_keys = OwnKeys::AsWritten;
    project.request.options.consistency = false;
    let written = project.load().unwrap_or_else(|problems| panic!("{problems}"));
    assert!(!written.with_patterns);
    let service = serde_json::to_value(&written.model.services["web"]).expect("JSON");
    assert_eq!(service["x-patterns"], serde_json::json!(["redis-ambassador"]));
    assert_eq!(service["x-sidecars"], serde_json::json!({"a": {"image": "y", "tmpfs": "/t"}}));
    project.request.options.own_keys = OwnKeys::Used;
    let used = project.load().unwrap_or_else(|problems| panic!("{problems}"));
    assert!(used.with_patterns);
    let service = serde_json::to_value(&used.model.services["web"]).expect("JSON");
    assert_eq!(service["x-patterns"], serde_json::Value::Null);
    assert_eq!(service["environment"]["REDIS_URL"], "redis://127.0.0.1:6379");
}
