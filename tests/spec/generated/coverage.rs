//! Every key that the table of rules knows is in files of the grammar, so that it is compared and fuzzed.

use std::collections::BTreeSet;

use orch::load::elements;
use serde_yaml::Value;

use super::grammar::{Dice, Grammar};

/// Elements that no file has which is compared with Docker Compose, with the reason.
const LEFT_OUT: &[(&str, &str)] =
    &[("services.*.build.no_cache_filter", "2.40 does not know it"), ("services.*.pre_start", "2.40 does not know it")];

/// Paths of a table, and those that values reach.
struct Walk {
    known: BTreeSet<&'static str>,
    reached: BTreeSet<String>,
}

impl Walk {
    fn new(known: impl IntoIterator<Item = &'static str>) -> Self {
        Self { known: known.into_iter().collect(), reached: BTreeSet::new() }
    }

    /// Walks the values of some files.
    fn files(&mut self, names: &[&str], count: u64) {
        let grammar = Grammar::new();
        for seed in 0..count {
            let dice = &mut Dice::new(seed);
            let text = grammar.text(names[dice.below(names.len())], dice, 0);
            // Some say a key twice.
            let Ok(mut value) = serde_yaml::from_str::<Value>(&text) else { continue };
            if value.apply_merge().is_ok() {
                self.walk(&value, "");
            }
        }
    }

    fn walk(&mut self, value: &Value, path: &str) {
        self.reached.insert(path.to_owned());
        let below = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
        match value {
            Value::Mapping(map) => {
                for (key, value) in map {
                    let any = below("*");
                    let next = if self.known.contains(&*any) { any } else { below(key.as_str().unwrap_or_default()) };
                    if self.known.contains(&*next) {
                        self.walk(value, &next);
                    }
                }
            }
            Value::Sequence(items) if self.known.contains(&*below("[]")) => {
                for item in items {
                    self.walk(item, &below("[]"));
                }
            }
            Value::Tagged(tagged) => self.walk(&tagged.value, path),
            _ => {}
        }
    }

    /// Returns what no file has.
    fn missed(&self) -> Vec<&'static str> {
        self.known.iter().copied().filter(|path| !self.reached.contains(*path)).collect()
    }
}

fn is_at(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[test]
fn every_element_of_the_specification_is_in_the_grammar() {
    let mut walk = Walk::new(elements().iter().map(|element| element.path));
    walk.files(&["document", "document", "override"], 2_500);
    let is_left_out = |path: &str| LEFT_OUT.iter().any(|(above, _)| is_at(path, above));
    let missed: Vec<_> = walk.missed().into_iter().filter(|path| !is_left_out(path)).collect();
    assert!(missed.is_empty(), "no file of the grammar has {missed:#?}");
    for (path, _) in LEFT_OUT {
        assert!(walk.known.contains(path) && !walk.reached.contains(*path), "`{path}` is in the grammar, or nowhere");
    }
}

#[test]
fn every_key_of_orchs_own_is_in_the_grammar_and_so_is_what_docker_compose_does_not_know() {
    let table = include_str!("../../../src/load/rules/own.rs");
    let own =
        table.split("row(\"").skip(1).filter_map(|rest| rest.split('"').next()).filter(|path| path.contains(".x-"));
    let own: Vec<_> = own.collect();
    assert!(own.len() > 80, "only {} rows found", own.len());
    let rows = elements();
    let left_out = |path: &str| LEFT_OUT.iter().any(|(above, _)| is_at(path, above));
    let above = ["services", "services.*", "services.*.build", "volumes", "volumes.*"];
    let newer = rows.iter().map(|element| element.path).filter(|path| left_out(path) || above.contains(path));
    let mut walk = Walk::new(own.into_iter().chain(newer));
    walk.files(&["own-document", "own-override"], 2_500);
    assert!(walk.missed().is_empty(), "no file of the grammar has {:#?}", walk.missed());
}
