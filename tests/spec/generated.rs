//! Files that nobody wrote, valid ones and slightly broken ones, through orch and through Docker Compose: what one refuses
//! the other refuses, and what both accept is the same, but for [`STRICTER`] and [`WIDER`].
//!
//! `ORCH_SPEC_GENERATED=N` says how many (default 300), `ORCH_SPEC_SEED=N` where to begin. A file that shows a difference is
//! made smaller as long as it shows one.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde_yaml::Value;

use crate::hashes::Written;
use crate::parallel;
use crate::project::Project;
use crate::reference::{Difference, Verdict, both, not_covered, reference};

mod coverage;
pub(crate) mod grammar;
mod merging;
mod variables;

use grammar::{Dice, Grammar};

/// What Docker Compose accepts and orch refuses on purpose; `case` is part of what orch says.
#[rustfmt::skip]
pub(crate) const STRICTER: &[Difference] = &[
    Difference { case: "`-1` is not a number and a unit", element: "sizes of -1",
        theirs: "takes -1 for any number of bytes, and the engine refuses it", ours: "takes it where it means no limit" },
    Difference { case: "`count` must be `all` or 1 or more", element: "services.*.gpus.[].count",
        theirs: "takes 0 devices", ours: "refuses it: nothing is asked for" },
    Difference { case: "is no key", element: "services.*.build.ssh",
        theirs: "takes a mapping with a name that has no path, and does not read what it prints then", ours: "refuses it, as in a list" },
    Difference { case: "an entry of `build.secrets` of", element: "services.*.build.secrets",
        theirs: "takes one without a `source` with `--no-consistency`", ours: "refuses it as ever" },
    Difference { case: "an entry of `devices` of", element: "services.*.devices",
        theirs: "takes an empty path, as by a variable that is not set, and the engine refuses it", ours: "refuses it" },
    Difference { case: "env_file` must be a list, not a mapping", element: "services.*.env_file",
        theirs: "takes an empty mapping", ours: "refuses it" },
    Difference { case: "ends in a space", element: "services.*.environment",
        theirs: "takes a name that ends in a space where another file replaces the whole", ours: "refuses it there too" },
    Difference { case: "is not an absolute path in the container", element: "services.*.volumes.[].target",
        theirs: "takes a relative path, and the engine refuses it", ours: "refuses it" },
    Difference { case: "this quote has no end", element: "services.*.command",
        theirs: "does not look into commands with `--no-interpolate`", ours: "refuses a quote without an end as ever" },
    Difference { case: "must be an octal file mode", element: "services.*.secrets.[].mode",
        theirs: "does not look at modes with `--no-interpolate`", ours: "refuses what is none as ever" },
    Difference { case: "must be a name, not nothing", element: "`!reset` in a list",
        theirs: "takes an item that is reset for none with `--no-consistency`", ours: "refuses it as ever" },
    Difference { case: "is not a port that a service can expose", element: "services.*.expose",
        theirs: "takes any word", ours: "takes ports and ranges, with a protocol or without" },
    Difference { case: "cannot be part of a variable's name", element: "services.*.label_file",
        theirs: "takes a line with spaces for a label's name", ours: "refuses it, as in files of variables" },
    Difference { case: "of Windows", element: "services.*.volumes",
        theirs: "takes `C:\\data:/data` and `v:/data` for paths on the drive of a Windows machine, and the engine refuses them",
        ours: "refuses them: hosts run Linux" },
    Difference { case: "a Windows path", element: "services.*.volumes",
        theirs: "takes `v:/data` for a path in the container", ours: "refuses it" },
    Difference { case: "is negative", element: "durations below 0",
        theirs: "takes durations below 0", ours: "refuses them" },
    Difference { case: "has both `", element: "configs.*.external",
        theirs: "takes `external` beside `file` and the like where they come from two files", ours: "refuses the two, as in one file" },
    Difference { case: "has no image", element: "services.*.image",
        theirs: "takes a service without an image that is switched off, with `--no-normalize`", ours: "refuses it as ever" },
    Difference { case: "is not a restart policy", element: "services.*.restart",
        theirs: "takes any word, and the engine refuses it", ours: "refuses what is none" },
    Difference { case: "is for a shell, but no shell", element: "services.*.command",
        theirs: "drops the rest of a command behind `\\|`, `;`, `>` and `&`", ours: "refuses it" },
    Difference { case: ".mode` must be one of", element: "services.*.deploy.mode",
        theirs: "takes any word", ours: "refuses those that it does not know" },
    Difference { case: "failure_action` must be one of", element: "services.*.deploy.update_config.failure_action",
        theirs: "takes any word", ours: "refuses those that it does not know" },
    Difference { case: "is not a protocol", element: "services.*.ports.[].protocol",
        theirs: "takes any word, and the engine refuses it", ours: "refuses what is none" },
    Difference { case: "is not a valid container name", element: "services.*.container_name",
        theirs: "takes any text, and the engine refuses it", ours: "refuses what is none" },
    Difference { case: "is not a port or range of ports", element: "services.*.ports.[].published",
        theirs: "takes any text, and the engine refuses it", ours: "refuses what is none" },
    Difference { case: "has nothing to run after", element: "services.*.healthcheck.test",
        theirs: "takes `CMD` alone", ours: "refuses it: nothing would be checked" },
    Difference { case: "must be 65535 or less", element: "services.*.blkio_config.weight",
        theirs: "takes any number", ours: "refuses those that no engine takes" },
    Difference { case: "must be a number of 0 or more", element: "services.*.cpus",
        theirs: "takes numbers below 0", ours: "refuses them" },
    Difference { case: "an entry of `blkio_config", element: "services.*.blkio_config.device_read_bps.[].rate",
        theirs: "takes an entry without one", ours: "refuses it" },
    Difference { case: "is not an IPv4 address", element: "services.*.networks.*.ipv4_address",
        theirs: "takes any text, and the engine refuses it", ours: "refuses what is none" },
    Difference { case: "is not an IPv6 address", element: "services.*.networks.*.ipv6_address",
        theirs: "takes any text, and the engine refuses it", ours: "refuses what is none" },
    Difference { case: "must be a subnet such as", element: "networks.*.ipam.config.[].subnet",
        theirs: "takes any text, and the engine refuses it", ours: "refuses what is none" },
    Difference { case: "must be an IP address, not", element: "networks.*.ipam.config.[].gateway",
        theirs: "takes any text, and the engine refuses it", ours: "refuses what is none" },
    Difference { case: "`services.a.environment` must be", element: "services.*.environment",
        theirs: "takes a number where another file has a mapping, and leaves it out", ours: "refuses it" },
    Difference { case: "must be a whole number, not a decimal number", element: "`.inf` as a number",
        theirs: "takes it for a whole number at some places", ours: "refuses it" },
];

/// What orch accepts and Docker Compose 2.40 refuses; `case` is part of what that says.
#[rustfmt::skip]
pub(crate) const WIDER: &[Difference] = &[
    Difference { case: "got unconvertible type", element: "numbers and booleans as text, and text as number",
        theirs: "refuses them at some places", ours: "casts wherever a number, a boolean or text belongs" },
    Difference { case: "invalid type string for external", element: "services.*.build.ulimits",
        theirs: "takes no text there, so no variable either", ours: "casts it as everywhere" },
    Difference { case: "initial_sync must be a boolean", element: "services.*.develop.watch.[].initial_sync",
        theirs: "takes no text there, so no variable either", ours: "casts it as everywhere" },
    Difference { case: "limits.memory must be a string", element: "services.*.deploy.resources.limits.memory",
        theirs: "takes no number there", ours: "takes bytes, as everywhere" },
    Difference { case: "reservations.memory must be a string", element: "services.*.deploy.resources.reservations.memory",
        theirs: "takes no number there", ours: "takes bytes, as everywhere" },
    Difference { case: "required must be a boolean", element: "services.*.depends_on.*.required",
        theirs: "takes no text there, so no variable either", ours: "casts it as everywhere" },
    Difference { case: "use_api_socket must be a boolean", element: "services.*.use_api_socket",
        theirs: "takes no text there, so no variable either", ours: "casts it as everywhere" },
    Difference { case: "can't set distinct values on", element: "`mem_limit` and the like beside `deploy.resources`",
        theirs: "refuses one where `deploy.resources.limits` is there and does not say the same, be it nothing",
        ours: "refuses values that differ only" },
    Difference { case: "panic: interface conversion", element: "services.*.build.ulimits.*.soft",
        theirs: "crashes at text, so at a variable", ours: "casts it as everywhere" },
    Difference { case: "is missing a mount target", element: "services.*.devices.[].target",
        theirs: "prints such a device with `--no-interpolate`, which it does not read", ours: "prints it too" },
    Difference { case: "ports.[]: invalid ip address", element: "services.*.ports.[].host_ip",
        theirs: "refuses empty text, as by a variable that is not set", ours: "takes it for nothing said" },
    Difference { case: "invalid size: '-1'", element: "services.*.memswap_limit",
        theirs: "reads -1 as a number only, and prints it as text", ours: "reads both" },
    Difference { case: "attributes are mutually exclusive", element: "what `--no-interpolate` prints",
        theirs: "merges `file` and `content` of two files, and does not read what it prints then", ours: "prints the same" },
    Difference { case: "condition value must be one of", element: "services.*.depends_on.*.condition",
        theirs: "takes no variable there", ours: "replaces it as everywhere" },
    Difference { case: "not found for network_mode", element: "services.*.network_mode",
        theirs: "refuses a service that is not there also with `--no-normalize`", ours: "looks for it when it normalises" },
    Difference { case: "refers to undefined network default", element: "services.*.provider",
        theirs: "refuses the default network of a service with a provider", ours: "takes it" },
    Difference { case: "must be a mapping or null", element: "what another file replaces",
        theirs: "checks each file by itself, also what a later one resets or replaces", ours: "checks what they make together" },
    Difference { case: "are equal", element: "lists without doubles",
        theirs: "refuses a list that says the same twice", ours: "takes it once" },
    Difference { case: "top-level object must be a mapping", element: "empty documents",
        theirs: "refuses an empty document, as a `---` at the end of a file makes one", ours: "leaves it out" },
];

/// Differences that are looked at closely in one run: each takes a while to make small.
const SHRUNK: usize = 12;

/// Files of which both make the same.
static SAME: AtomicU64 = AtomicU64::new(0);

/// Returns what a variable of the environment says.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Files of a project: those of `-f`, and profiles.
#[derive(Clone)]
struct Case {
    texts: Vec<String>,
    profiles: Vec<String>,
    flags: &'static [&'static str],
}

/// Flags of `config` that a file may be loaded with.
const FLAGS: &[&[&str]] = &[
    &[],
    &[],
    &[],
    &["--no-normalize"],
    &["--no-path-resolution"],
    &["--no-normalize", "--no-path-resolution"],
    &["--no-interpolate"],
    &["--no-consistency"],
];

impl Case {
    fn new(grammar: &Grammar, seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let flags = FLAGS[dice.below(FLAGS.len())];
        // Where variables stay Docker Compose looks at little.
        let is_broken = dice.once_in(3) && !flags.contains(&"--no-interpolate");
        let junk = if is_broken { 25 } else { 0 };
        let mut texts = vec![grammar.text("document", dice, junk)];
        while texts.len() < 3 && dice.once_in(3) {
            texts.push(grammar.text("override", dice, junk));
        }
        if dice.once_in(3) {
            texts = texts.iter().map(|text| block(text).unwrap_or_else(|| text.clone())).collect();
        }
        let profiles = if dice.once_in(4) { vec![] } else { vec!["*".to_owned()] };
        Self { texts, profiles, flags }
    }

    fn project(&self) -> Project {
        let mut project = Project::new(self.texts.clone());
        project.request.profiles.clone_from(&self.profiles);
        // A name with a variable is another one where variables stay.
        project.request.project_name = self.flags.contains(&"--no-interpolate").then(|| "given".to_owned());
        let shared = "services: {shared: {image: s, labels: [s=1], environment: {S: ~, T: 2}, volumes: [./x:/x]}}\n";
        let base = "services: {base: {image: b, build: ., env_file: e.env, volumes: [\"../x:/y\", \"./z:/z\"]}}\n";
        for (path, text) in [("shared.yaml", shared), ("sub/base.yaml", base), ("sub/e.env", "BASE=1\n")] {
            project.files.files.insert(format!("/project/{path}").into(), text.into());
        }
        project
    }

    /// How the two programs differ.
    fn difference(&self, program: &Path) -> Option<String> {
        match both(program, "generated", &self.project(), self.flags) {
            Verdict::Same => {
                SAME.fetch_add(1, Ordering::Relaxed);
                // By default alone hashes are those of containers.
                let is_default = self.flags.is_empty();
                is_default.then(|| Written::new(&self.project()).difference(program, false).ok().flatten()).flatten()
            }
            verdict => verdict.unknown(),
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
    let shrunk = AtomicUsize::new(0);
    let failures = parallel::each(first..first + count, |seed| {
        let case = Case::new(&grammar, seed);
        let difference = case.difference(&program)?;
        let is_shrunk = shrunk.fetch_add(1, Ordering::Relaxed) < SHRUNK;
        let case = if is_shrunk { case.shrunk(&program, &difference) } else { case };
        let difference = case.difference(&program).unwrap_or(difference);
        let (flags, texts) = (case.flags.join(" "), case.texts.join("---\n"));
        Some(format!("seed {seed}: {flags}\n{texts}\n{difference}"))
    });
    let said: Vec<_> = failures.into_iter().flatten().collect();
    assert!(said.is_empty(), "{} of {count} differ\n{}", said.len(), said.join("\n\n"));
    let same = SAME.load(Ordering::Relaxed);
    assert!(same * 3 > count, "of {count} files only {same} are accepted");
}
