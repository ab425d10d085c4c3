//! Input that nobody writes, by the thousand: no panic, nothing over a second, memory bounded.
//!
//! `ORCH_FUZZ_INPUTS=N` says how many (default 2,000), `ORCH_FUZZ_SEED=N` where to begin; the same number makes the same input,
//! so that `ORCH_FUZZ_SEED=N ORCH_FUZZ_INPUTS=1` is one again. [`inputs`] has the kinds. Run a million with
//! `ORCH_FUZZ_INPUTS=1000000 cargo test --test spec fuzz -- --nocapture`; should the process end as a whole (no stack left), the
//! files `fuzz-*` in the directory of temporary files that cargo gives to tests hold the numbers of the last inputs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use orch::expand;
use orch::load::{FileKind, Loaded, OwnKeys, Selection, edit_hosts, parse_hosts, patterns, render_json, render_yaml};

use crate::generated::number;
use crate::limits::{LIMIT_MS, spent_ms};
use crate::project::Project;
use crate::properties::placeless;

mod inputs;

use inputs::{Corpus, Input};

/// Megabytes that the whole process may come to hold: the most that one input takes, for each thread, and what the test itself
/// keeps.
const MEMORY_MB: u64 = 1024;

/// Failures that are told; more tell nobody more.
const TOLD: usize = 10;

/// What is known of the inputs of one kind.
#[derive(Default)]
struct Tally {
    inputs: u64,
    accepted: u64,
    slowest: (u64, u64),
}

/// What is known of all.
#[derive(Default)]
struct Seen {
    kinds: BTreeMap<&'static str, Tally>,
    /// Megabytes at most, and the input after which they were first seen.
    memory: (u64, u64),
    failures: Vec<String>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        for (kind, tally) in other.kinds {
            let own = self.kinds.entry(kind).or_default();
            own.inputs += tally.inputs;
            own.accepted += tally.accepted;
            own.slowest = own.slowest.max(tally.slowest);
        }
        self.memory = self.memory.max(other.memory);
        self.failures.extend(other.failures);
    }

    fn table(&self) -> String {
        let row = |(kind, tally): (&&str, &Tally)| {
            let Tally { inputs, accepted, slowest: (ms, seed) } = tally;
            format!("{kind}: {inputs} inputs, {accepted} accepted, slowest {ms} ms (input {seed})\n")
        };
        let (mb, seed) = self.memory;
        self.kinds.iter().map(row).collect::<String>() + &format!("memory at most {mb} MB (input {seed})\n")
    }
}

/// Megabytes that this process had in memory at most.
fn most_memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells this");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has this line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Does with an input what any command may do. Returns whether it is accepted, and the milliseconds that loading took.
fn use_it(input: &Input) -> (bool, u64) {
    let before = spent_ms();
    match input {
        Input::Project(project) => {
            let loaded = project.load();
            let spent = spent_ms() - before;
            match loaded {
                Ok(loaded) => accepted(project, &loaded),
                Err(problems) => {
                    assert!(problems.has_errors());
                    assert!(!problems.to_string().contains("cannot be represented"), "{problems}");
                    drop(problems.to_json());
                    return (false, spent);
                }
            }
            (true, spent)
        }
        Input::Pattern(text) => {
            let problems = patterns::lint("mine", "mine.yaml", text);
            drop(problems.to_string());
            (!problems.has_errors(), spent_ms() - before)
        }
        Input::Hosts(text) => {
            let hosts = parse_hosts("hosts.yaml", text);
            if let Ok(hosts) = &hosts {
                let fewer = &hosts[..hosts.len() / 2];
                let edited = parse_hosts("hosts.yaml", &edit_hosts(text, fewer));
                assert_eq!(edited.expect("what orch writes it reads"), fewer);
            }
            (hosts.is_ok(), spent_ms() - before)
        }
    }
}

/// Prints a project in all forms, and makes of it what is to be run; what is printed must load as the same.
fn accepted(project: &Project, loaded: &Loaded) {
    drop(loaded.warnings.to_string());
    if !project.request.options.interpolate {
        drop(loaded.as_written().to_string());
        return;
    }
    drop(render_yaml(&loaded.model));
    if project.request.options.own_keys == OwnKeys::Expanded {
        drop(loaded.render_expanded());
    }
    let options = &project.request.options;
    if !(options.normalise && options.consistency) {
        return;
    }
    // Of a selection stand-ins may lead to services that are not in it.
    let whole = options.selection == Selection::All && options.resolve_paths && options.resolve_environment;
    if whole && options.own_keys != OwnKeys::AsWritten {
        // Both forms in turn: YAML is what people keep.
        let text = if loaded.model.services.len().is_multiple_of(2) {
            render_yaml(&loaded.model)
        } else {
            render_json(&loaded.model)
        };
        let mut again = Project::new([text.clone()]);
        again.request.profiles = vec!["*".to_owned()];
        // It has the files of all cases only.
        again.request.options.contents = false;
        again.request.options.all_resources = options.all_resources;
        let again = again.load().unwrap_or_else(|problems| panic!("its own output does not load\n{text}\n{problems}"));
        let (before, after) = (placeless(loaded.model.clone()), placeless(again.model));
        if before != after {
            let (before, after) = (format!("{before:#?}"), format!("{after:#?}"));
            let diff = similar::TextDiff::from_lines(&before, &after).unified_diff().to_string();
            panic!("its own output loads as something else\n{diff}\n{text}");
        }
    }
    run(loaded);
}

/// Makes the graph, which may be refused.
fn run(loaded: &Loaded) {
    let contents = loaded.contents.iter().map(|((kind, key), bytes)| {
        let kind = if *kind == FileKind::Config { expand::FileKind::Config } else { expand::FileKind::Secret };
        ((kind, key.clone()), bytes.clone())
    });
    let expanded = expand::expand(&expand::Input {
        logins: None,
        model: &loaded.model,
        contents: &contents.collect(),
        snapshots: &BTreeMap::new(),
        scales: &BTreeMap::new(),
        disabled: &loaded.disabled,
        working_dir: "/project",
        config_files: &[],
    });
    if let Err(problems) = expanded {
        drop(problems.iter().map(ToString::to_string).collect::<String>());
    }
}

/// Looks at one input.
fn look(corpus: &Corpus, seed: u64, seen: &mut Seen) {
    let (kind, input) = corpus.input(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| use_it(&input)));
    let tally = seen.kinds.entry(kind).or_default();
    tally.inputs += 1;
    let failure = match outcome {
        Ok((accepted, spent)) => {
            tally.accepted += u64::from(accepted);
            tally.slowest = tally.slowest.max((spent, seed));
            (spent > LIMIT_MS).then(|| format!("it took {spent} ms"))
        }
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            Some(said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
        }
    };
    let memory = most_memory_mb();
    if memory > seen.memory.0 {
        seen.memory = (memory, seed);
    }
    if let Some(failure) = failure.filter(|_| seen.failures.len() < TOLD) {
        let failure: String = failure.chars().take(4_000).collect();
        seen.failures.push(format!("input {seed} ({kind}): {failure}\n{}", input.shown()));
    }
}

#[test]
fn fuzzed_input_neither_panics_nor_takes_long_nor_fills_the_memory() {
    let (first, count) = (number("ORCH_FUZZ_SEED", 1), number("ORCH_FUZZ_INPUTS", 2_000));
    let corpus = Corpus::new();
    let next = AtomicU64::new(first);
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = |worker: usize| {
        let note = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{worker}"));
        let note = std::fs::File::create(note).expect("cargo made the directory");
        let mut seen = Seen::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return seen;
            }
            note.write_all_at(format!("{seed:20}\n").as_bytes(), 0).expect("it can be written");
            look(&corpus, seed, &mut seen);
        }
    };
    let seen = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().fold(Seen::default(), |mut all, worker| {
            all.add(worker.join().expect("panics are caught"));
            all
        })
    });
    std::io::stderr().write_all(seen.table().as_bytes()).expect("stderr");
    assert!(seen.failures.is_empty(), "{}", seen.failures.join("\n\n"));
    assert!(seen.memory.0 < MEMORY_MB, "{} MB, first seen after input {}", seen.memory.0, seen.memory.1);
    for (kind, tally) in &seen.kinds {
        assert!(tally.inputs < 500 || tally.accepted * 100 > tally.inputs, "{kind}: nearly none is accepted");
    }
}
