//! Files that nobody wrote, valid ones and slightly broken ones, through orch and through Docker Compose: what one refuses
//! the other refuses, and what both accept is the same, but for [`STRICTER`] and [`WIDER`].
//!
//! `ORCH_SPEC_GENERATED=N` says how many (default 300), `ORCH_SPEC_SEED=N` where to begin. A file that shows a difference is
//! made smaller as long as it shows one.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde_yaml::Value;

use crate::project::Project;
use crate::reference::{Difference, Verdict, both, not_covered, reference};

mod grammar;

use grammar::{Dice, Grammar};

/// What Docker Compose accepts and orch refuses on purpose; `case` is part of what orch says.
#[rustfmt::skip]
pub(crate) const STRICTER: &[Difference] = &[
];

/// What orch accepts and Docker Compose 2.40 refuses; `case` is part of what that says.
#[rustfmt::skip]
pub(crate) const WIDER: &[Difference] = &[
];

/// Differences that are looked at closely in one run: each takes a while to make small.
const SHRUNK: usize = 12;

/// Files of which both make the same.
static SAME: AtomicU64 = AtomicU64::new(0);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Files of a project: those of `-f`, and profiles.
#[derive(Clone)]
struct Case {
    texts: Vec<String>,
    profiles: Vec<String>,
}

impl Case {
    fn new(grammar: &Grammar, seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let junk = if dice.once_in(3) { 25 } else { 0 };
        let mut texts = vec![grammar.text("document", dice, junk)];
        while texts.len() < 3 && dice.once_in(3) {
            texts.push(grammar.text("override", dice, junk));
        }
        if dice.once_in(3) {
            texts = texts.iter().map(|text| block(text).unwrap_or_else(|| text.clone())).collect();
        }
        let profiles = if dice.once_in(4) { vec![] } else { vec!["*".to_owned()] };
        Self { texts, profiles }
    }

    fn project(&self) -> Project {
        let mut project = Project::new(self.texts.clone());
        project.request.profiles.clone_from(&self.profiles);
        let shared = "services: {shared: {image: s, labels: [s=1], environment: {S: ~, T: 2}, volumes: [./x:/x]}}\n";
        let base = "services: {base: {image: b, build: ., env_file: e.env, volumes: [\"../x:/y\", \"./z:/z\"]}}\n";
        for (path, text) in [("shared.yaml", shared), ("sub/base.yaml", base), ("sub/e.env", "BASE=1\n")] {
            project.files.files.insert(format!("/project/{path}").into(), text.into());
        }
        project
    }

    /// How the two programs differ.
    fn difference(&self, program: &Path) -> Option<String> {
        match both(program, "generated", &self.project(), &[]) {
            Verdict::Same => {
                SAME.fetch_add(1, Ordering::Relaxed);
                None
            }
            Verdict::BothRefuse => None,
            Verdict::Differ(diff) => Some(diff),
            Verdict::OnlyOurs(message) => (!WIDER.iter().any(|wider| message.contains(wider.case)))
                .then(|| format!("only orch accepts it: {message}")),
            Verdict::OnlyTheirs(problems) => {
                let is_known = |problem: &String| STRICTER.iter().any(|stricter| problem.contains(stricter.case));
                let unknown: Vec<_> = problems.into_iter().filter(|problem| !is_known(problem)).collect();
                (!unknown.is_empty()).then(|| format!("only Docker Compose accepts it: {}", unknown.join("; ")))
            }
        }
    }

    /// Returns a smaller case that differs in the same way, as far as words tell.
    fn shrunk(self, program: &Path, kind: &str) -> Self {
        let kind = kind.split(':').next().unwrap_or_default().to_owned();
        let is_same = |case: &Self| case.difference(program).is_some_and(|other| other.starts_with(&kind));
        let Some(texts) = self.texts.iter().map(|text| block(text)).collect::<Option<Vec<_>>>() else { return self };
        let mut case = Self { texts, ..self.clone() };
        if !is_same(&case) {
            return self;
        }
        let mut is_smaller = true;
        while is_smaller {
            is_smaller = false;
            for index in (0..case.texts.len()).rev() {
                let mut fewer = case.clone();
                fewer.texts.remove(index);
                if !fewer.texts.is_empty() && is_same(&fewer) {
                    (case, is_smaller) = (fewer, true);
                    continue;
                }
                let mut at = 0;
                while let Some(text) = without(&case.texts[index], at) {
                    let mut fewer = case.clone();
                    fewer.texts[index] = text;
                    if is_same(&fewer) {
                        (case, is_smaller) = (fewer, true);
                    } else {
                        at += 1;
                    }
                }
            }
        }
        case
    }
}

/// The same in lines; `None` where it is no YAML, or means something else then.
fn block(text: &str) -> Option<String> {
    let value: Value = serde_yaml::from_str(text).ok()?;
    serde_yaml::to_string(&value).ok()
}

/// The text without its `nth` entry, counted from the outside; `None`: there are not so many.
fn without(text: &str, nth: usize) -> Option<String> {
    let mut value: Value = serde_yaml::from_str(text).ok()?;
    let mut left = nth;
    remove(&mut value, &mut left).then(|| serde_yaml::to_string(&value).ok())?
}

fn remove(value: &mut Value, left: &mut usize) -> bool {
    match value {
        Value::Mapping(map) => {
            let keys: Vec<Value> = map.keys().cloned().collect();
            if *left < keys.len() {
                map.shift_remove(&keys[*left]);
                return true;
            }
            *left -= keys.len();
            map.values_mut().any(|value| remove(value, left))
        }
        Value::Sequence(items) => {
            if *left < items.len() {
                items.remove(*left);
                return true;
            }
            *left -= items.len();
            items.iter_mut().any(|value| remove(value, left))
        }
        Value::Tagged(tagged) => remove(&mut tagged.value, left),
        _ => false,
    }
}

#[test]
fn docker_compose_makes_the_same_of_files_from_a_grammar() {
    let Some(program) = reference() else { return not_covered() };
    let (first, count) = (number("ORCH_SPEC_SEED", 1), number("ORCH_SPEC_GENERATED", 300));
    let grammar = Grammar::new();
    let (next, shrunk) = (AtomicU64::new(first), AtomicUsize::new(0));
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) * 2;
    let failures: Vec<(u64, String)> = std::thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    return failures;
                }
                let case = Case::new(&grammar, seed);
                let Some(difference) = case.difference(&program) else { continue };
                let case = if shrunk.fetch_add(1, Ordering::Relaxed) < SHRUNK {
                    case.shrunk(&program, &difference)
                } else {
                    case
                };
                let difference = case.difference(&program).unwrap_or(difference);
                failures.push((seed, format!("seed {seed}:\n{}\n{difference}", case.texts.join("---\n"))));
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic on any file")).collect()
    });
    let said: Vec<_> = failures.into_iter().map(|(_, text)| text).collect();
    assert!(said.is_empty(), "{} of {count} differ\n{}", said.len(), said.join("\n\n"));
    let same = SAME.load(Ordering::Relaxed);
    assert!(same * 3 > count, "of {count} files only {same} are accepted");
}
