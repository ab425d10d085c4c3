//! All files and rows of the other tests, run through Docker Compose itself: what one program refuses the other refuses, and
//! what both accept is the same JSON, but for what is listed.
//!
//! Needs Docker Compose 2.40 or later 2.x: the program named by `ORCH_COMPOSE_REFERENCE`, or `docker-compose` in PATH.
//! Where there is none the test says so loudly; set `ORCH_COMPOSE_REFERENCE=required` to make that a failure (as CI does).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use orch::diag::Severity;
use orch::load::{LoadOptions, LoadRequest, OsFiles, OwnKeys, Selection, load, render_json};
use serde_json::Value;

use crate::generated::{STRICTER, WIDER};
use crate::project::{ENVIRONMENT, Project, SHARED};
use crate::{cases, files, parallel, table};

/// A case in which orch differs on purpose.
pub(crate) struct Difference {
    /// Part of the file's name or of the row.
    pub(crate) case: &'static str,
    /// The element.
    pub(crate) element: &'static str,
    /// What Docker Compose 2.40 does, and orch does not.
    pub(crate) theirs: &'static str,
    /// What orch does.
    pub(crate) ours: &'static str,
}

/// All such cases; `docs/compose-compat.md` shows them.
#[rustfmt::skip]
pub(crate) const DIFFERENT: &[Difference] = &[
    Difference { case: "create_host_path: false", element: "services.*.volumes.[].bind.create_host_path",
        theirs: "prints neither `true` nor `false` for `false`, and would load its own output wrongly",
        ours: "prints `false`" },
    Difference { case: "::1:6000:6000", element: "services.*.ports",
        theirs: "refuses an IPv6 address without brackets", ours: "takes it, as the specification does" },
    Difference { case: "c: {condition: service_started, required: false}", element: "services.*.depends_on.*.required",
        theirs: "refuses a dependency that is not required and not there", ours: "warns" },
    Difference { case: "mem_limit: 1e9", element: "sizes with a point or an exponent, without quotes (`5.5`, `1e9`)",
        theirs: "leaves them out, so that there is no limit", ours: "takes them, as in quotes" },
    Difference { case: "12-interpolation/keys.yaml", element: "keys with `$`",
        theirs: "doubles `$` in keys that it prints, but not in those that it reads", ours: "leaves keys alone" },
    Difference { case: "mode: host}, 81", element: "services.*.ports",
        theirs: "does not see that a port given as number and as text is the same", ours: "takes the later one" },
    Difference { case: "/run/secrets/c", element: "services.*.secrets",
        theirs: "mounts two secrets at one path", ours: "takes the later one" },
    Difference { case: "source: ss, target: \"${UNSET}\"", element: "services.*.secrets",
        theirs: "does not see that an empty target is the one by default", ours: "takes the later one" },
    Difference { case: "source: cc, target: \"\"", element: "services.*.configs",
        theirs: "does not see that an empty target is the one by default", ours: "takes the later one" },
    Difference { case: "size=2", element: "services.*.tmpfs",
        theirs: "mounts two memory file systems at one path", ours: "takes the later one" },
    Difference { case: "x-keys/forms.yaml", element: "keys with `x-`",
        theirs: "does not know that a list and a mapping are the same in keys that it does not know",
        ours: "merges its own keys as it merges the specification's" },
    Difference { case: "whole-files/login.yaml", element: "`!reset` beside `<<`",
        theirs: "takes out the key that is reset, so that the one that `<<` brings is there again", ours: "takes out both" },
    Difference { case: "07-volumes/empty-names.yaml", element: "`name` of networks, volumes, configs and secrets",
        theirs: "leaves out an empty name, as by a variable that is not set, and then lacks one",
        ours: "takes it for nothing said" },
    Difference { case: "network_mode: \"\"", element: "services.*.network_mode",
        theirs: "takes an empty one, as by a variable that is not set, for no network at all",
        ours: "takes it for nothing said" },
    Difference { case: "{RESET: !reset null}", element: "`!reset` of one name, where another file has a list",
        theirs: "does not find the name in a list (`[NAME=1]`), and leaves it", ours: "takes it out, as of a mapping" },
    Difference { case: "{reset: !reset null}", element: "services.*.extra_hosts",
        theirs: "does not find a host that has `!reset` or `!override` in a list (`[\"host=1.1.1.1\"]`), and leaves it",
        ours: "finds it, as in a mapping" },
    Difference { case: "05-services/extends-tags.yaml", element: "services.*.extends",
        theirs: "does not obey `!reset` where the base is of the same document; later ones do", ours: "obeys it" },
    Difference { case: "14-include/conflict.yaml", element: "include",
        theirs: "refuses definitions that differ; compose-go merges them since 2025-11", ours: "merges them" },
    Difference { case: "14-include/extended.yaml", element: "include",
        theirs: "extends before it includes; compose-go does so after it since 2026-03", ours: "includes before it extends" },
    Difference { case: "x-keys/extends.yaml", element: "keys with `x-`",
        theirs: "knows no paths in keys that it does not know", ours: "rebases the paths in its own keys" },
    Difference { case: "07-volumes/bound-otherwise.yaml", element: "volumes.*.driver_opts",
        theirs: "makes `device` absolute only with `driver: local` and `o: bind` alone, and the engine refuses the rest",
        ours: "makes it absolute whenever `o` has `bind` and the driver is the local one" },
    Difference { case: "myproject", element: "services.*.build.ssh",
        theirs: "cannot print keys with a path as JSON", ours: "prints `ID=PATH`, which it reads again" },
    Difference { case: "pre_start", element: "services.*.pre_start",
        theirs: "does not know it; 5.3 and later do", ours: "prints it, and runs it" },
    Difference { case: "no_cache_filter", element: "services.*.build.no_cache_filter",
        theirs: "does not know it yet", ours: "loads and prints it" },
    Difference { case: "--no-env-resolution", element: "services.*.env_file",
        theirs: "reads the files with `--no-env-resolution` all the same, unless variables stay too",
        ours: "leaves them unread and prints their names, as its help says" },
];

/// What 2.40 reads and leaves out of its JSON, or has otherwise there than in its YAML; compared all the same as far as that goes.
#[rustfmt::skip]
pub(crate) const MENDED: &[Difference] = &[
    Difference { case: "", element: "models",
        theirs: "leaves it out of its JSON (its YAML has it)", ours: "prints it in both" },
    Difference { case: "", element: "keys with `x-` inside others",
        theirs: "leaves them out of its JSON (its YAML has them); labels, variables and options with such names are one text, `#extensions`, in both",
        ours: "prints them in both; a label is a label" },
    Difference { case: "", element: "keys with `x-` in `networks.*.ipam.config`",
        theirs: "leaves them out of its YAML, too", ours: "prints them" },
    Difference { case: "", element: "dates and `.inf` in keys with `x-`",
        theirs: "makes a time of a date (`2024-01-01T00:00:00Z`), and has no JSON for `.inf` and `.nan`",
        ours: "prints dates as they are written, and the numbers as text" },
    Difference { case: "", element: "`config --no-interpolate`",
        theirs: "prints most short forms as they are, and services of profiles that are off",
        ours: "prints long forms of what has no variables, and what is on" },
    Difference { case: "", element: "sizes of more than 64 bits (`1e30`)",
        theirs: "makes -9223372036854775808 of them", ours: "refuses them" },
    Difference { case: "", element: "whole numbers with a point (`scale: 1.0`)",
        theirs: "takes them", ours: "refuses them" },
    Difference { case: "", element: "a key within braces whose `:` is in the next line",
        theirs: "refuses it, as YAML does", ours: "takes it" },
    Difference { case: "", element: "`:` before `,`, `}` or `]` within braces and brackets (`{A:}`)",
        theirs: "takes it for a part of the text", ours: "takes it for the end of a key, as YAML does" },
    Difference { case: "", element: "`!!binary`",
        theirs: "decodes it", ours: "refuses it" },
    Difference { case: "", element: "`!!bool yes` and the like",
        theirs: "refuses them", ours: "takes them, with a warning" },
    Difference { case: "", element: "decimal numbers as text (`group_add: [1.5]`), spaces before a size",
        theirs: "refuses them at some places", ours: "takes them" },
    Difference { case: "", element: "`services.*.pull_policy`, `services.*.container_name`",
        theirs: "refuses empty text, as by a variable that is not set", ours: "takes it for nothing said" },
    Difference { case: "", element: "`x-` keys in `blkio_config` and in items of `env_file`",
        theirs: "refuses them", ours: "takes them, as elsewhere" },
    Difference { case: "", element: "variables in variables' defaults",
        theirs: "has no limit for how deep", ours: "refuses more than some 48 levels" },
    Difference { case: "", element: "`${A:-${B:?…}}` and the like",
        theirs: "refuses what a word requires that is not used", ours: "looks at words that are used only" },
    Difference { case: "", element: "a name without a value at the end of a file of variables that has no end of line",
        theirs: "takes it for the value of a variable without a name", ours: "takes its value from the environment, as of every other" },
    Difference { case: "", element: "`COMPOSE_FILE=` and `COMPOSE_FILE=compose.yaml:`",
        theirs: "takes the directory for a file, and refuses it", ours: "leaves out empty names; of no name it searches a file" },
    Difference { case: "", element: "`COMPOSE_DISABLE_ENV_FILE` of `yes`, `no`, `on`, `off` and nothing",
        theirs: "refuses them", ours: "takes them" },
    Difference { case: "", element: "`~NAME/` at the start of a path",
        theirs: "takes it for `NAME/` in the home of who runs it", ours: "takes it for a directory called `~NAME`" },
    Difference { case: "", element: "lines without a name in files of variables (`=x`)",
        theirs: "takes an empty name", ours: "refuses them" },
    Difference { case: "", element: "`include.[].project_directory`",
        theirs: "takes the directory above one that is not there", ours: "takes it as it is" },
    Difference { case: "", element: "`config --services`",
        theirs: "prints services in the order of their dependencies", ours: "prints them by name" },
    Difference { case: "", element: "networks.*.ipam.options",
        theirs: "leaves it out of what it prints", ours: "prints it" },
    Difference { case: "", element: "services.*.pull_refresh_after",
        theirs: "leaves it out of what it prints", ours: "prints it" },
    Difference { case: "", element: "services.*.build.context",
        theirs: "leaves it out where it is empty, as by a variable that is not set", ours: "prints the project's directory" },
    Difference { case: "", element: "services.*.build.dockerfile",
        theirs: "leaves it out where it is empty, as by a variable that is not set", ours: "prints the name of the file that is read" },
    Difference { case: "", element: "services.*.secrets.[].target",
        theirs: "leaves it out where it is empty, as by a variable that is not set", ours: "prints where the secret will be" },
    Difference { case: "", element: "services.*.ulimits.*.soft",
        theirs: "leaves 0 out of what it prints, which it does not read then", ours: "prints it" },
    Difference { case: "", element: "services.*.blkio_config",
        theirs: "prints `Path`, `Rate` and `Weight` in its JSON, which it does not read", ours: "prints `path`, `rate` and `weight`" },
];

/// Cases that are run once more without what the loader fills in: paths show then whose directory they are seen from.
const AS_WRITTEN: &[&str] = &["extends", "14-include", "label-file", "/all.yaml"];

/// Files with mistakes in orch's own keys.
pub(crate) const OWN_MISTAKES: &[&str] = &[OWN, "hosts-wrong"];

/// How a difference starts that is a file that orch refuses.
const ONLY_THEIRS: &str = "only Docker Compose accepts it";

/// What Docker Compose prints in the place of `x-` keys in labels and the like.
const FOLDED: &str = "#extensions";

/// Chapter of orch's own keys: its files need configs and the like that Docker Compose does not see a use of.
pub(crate) const OWN: &str = "tests/spec/x-";

#[expect(clippy::disallowed_methods, reason = "the reference is a program")]
fn command(program: &Path) -> Command {
    Command::new(program)
}

pub(crate) fn reference() -> Option<PathBuf> {
    let named = std::env::var_os("ORCH_COMPOSE_REFERENCE").filter(|name| name != "required").map(PathBuf::from);
    let program = named.unwrap_or_else(|| PathBuf::from("docker-compose"));
    let output = command(&program).args(["version", "--short"]).output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v').to_owned();
    let minor: u32 = version.strip_prefix("2.")?.split('.').next()?.parse().ok()?;
    (minor >= 40).then_some(program)
}

/// What Docker Compose says of a project in `directory`, in a form; as error what it complains of.
fn theirs(program: &Path, directory: &Path, request: &LoadRequest, form: &str) -> Result<Vec<u8>, String> {
    let mut run = command(program);
    run.current_dir(directory).env_clear().envs(ENVIRONMENT).env("HOME", "/home/u");
    for file in &request.files {
        run.args(["-f", file]);
    }
    for file in &request.env_files {
        run.args(["--env-file", file]);
    }
    for profile in &request.profiles {
        run.args(["--profile", profile]);
    }
    if let Some(name) = &request.project_name {
        run.args(["-p", name]);
    }
    if request.options.all_resources {
        run.arg("--all-resources");
    }
    let LoadOptions { normalise, resolve_paths, interpolate, consistency, .. } = request.options;
    let off = [
        ("--no-normalize", normalise),
        ("--no-path-resolution", resolve_paths),
        ("--no-interpolate", interpolate),
        ("--no-consistency", consistency),
    ];
    let off = off.iter().filter(|(_, on)| !on).map(|(flag, _)| *flag);
    let output =
        run.args(["config", "--format", form]).args(off).args(&request.services).output().expect("it ran before");
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Whether keys at a path are names that the user chooses: one with `x-` is a name there as any other.
fn is_of_names(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        path[..],
        ["services" | "networks" | "volumes" | "configs" | "secrets" | "models"] | ["services", _, "depends_on"]
    )
}

/// Takes out the `x-` keys below the top level, and returns them by their paths: Docker Compose leaves them out of its JSON.
pub(crate) fn extensions(project: &mut Value) -> BTreeMap<String, Value> {
    fn walk(value: &mut Value, path: &mut Vec<String>, found: &mut BTreeMap<String, Value>) {
        let mut below = |step: String, value: &mut Value, path: &mut Vec<String>| {
            path.push(step);
            walk(value, path, found);
            path.pop();
        };
        match value {
            Value::Array(items) => {
                items.iter_mut().enumerate().for_each(|(index, item)| below(index.to_string(), item, path));
            }
            Value::Object(map) => {
                let is_extension = |key: &str| key.starts_with("x-") && !is_of_names(path);
                let (out, kept): (Vec<_>, Vec<_>) =
                    std::mem::take(map).into_iter().partition(|(key, _)| is_extension(key));
                *map = kept.into_iter().collect();
                map.iter_mut().for_each(|(key, value)| below(key.clone(), value, path));
                for (key, mut value) in out {
                    if path.is_empty() {
                        map.insert(key, value);
                        continue;
                    }
                    plain(&mut value);
                    found.insert(format!("{}.{key}", path.join(".")), value);
                }
            }
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    walk(project, &mut Vec::new(), &mut found);
    found
}

/// Puts the `x-` keys among other names of the user's, those of labels and the like, in the form that Docker Compose prints
/// them in.
pub(crate) fn fold(ours: &mut Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            if let Some(folded) = theirs.get(FOLDED) {
                let (mut named, rest): (Vec<_>, Vec<_>) =
                    std::mem::take(ours).into_iter().partition(|(key, _)| key.starts_with("x-"));
                *ours = rest.into_iter().collect();
                named.sort_by(|(one, _), (other, _)| one.cmp(other));
                let text = |value: &Value| {
                    // An option of a provider is a list.
                    let value = value.as_array().and_then(|items| items.first()).unwrap_or(value);
                    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
                };
                let named: Vec<_> = named.iter().map(|(key, value)| format!("{key}:{}", text(value))).collect();
                let named = Value::from(format!("map[{}]", named.join(" ")));
                ours.insert(FOLDED.to_owned(), if folded.is_array() { vec![named].into() } else { named });
            }
            for (key, ours) in ours {
                theirs.get(key).into_iter().for_each(|theirs| fold(ours, theirs));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| fold(ours, theirs));
        }
        _ => {}
    }
}

/// Docker Compose prints some empty lists below `x-` keys as `null`, dates as times, and numbers that JSON has not as such, which
/// are read as `null`.
fn plain(value: &mut Value) {
    match value {
        Value::Array(items) if items.is_empty() => *value = Value::Null,
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Object(map) => map.values_mut().for_each(plain),
        Value::String(text) if matches!(text.as_str(), "+Inf" | "-Inf" | "NaN") => *value = Value::Null,
        Value::String(text) => {
            if let Some(date) = text.strip_suffix("T00:00:00Z").filter(|date| date.len() == "2024-01-01".len()) {
                *text = date.to_owned();
            }
        }
        _ => {}
    }
}

fn entries<'a>(project: &'a mut Value, section: &str) -> impl Iterator<Item = &'a mut Value> {
    let map = project.get_mut(section).and_then(Value::as_object_mut);
    map.into_iter().flat_map(serde_json::Map::values_mut)
}

/// Returns the services with their names.
fn named(project: &Value) -> Vec<(Value, String)> {
    let services = project.get("services").and_then(Value::as_object).into_iter().flatten();
    services.map(|(name, service)| (service.clone(), name.clone())).collect()
}

/// Makes up for [`MENDED`]; `yaml` is what Docker Compose prints as YAML.
pub(crate) fn mend(ours: &mut Value, theirs: &mut Value, yaml: &dyn Fn() -> Value) {
    if ours.get("models").is_some() {
        theirs["models"] = yaml()["models"].take();
    }
    for network in entries(ours, "networks") {
        if let Some(ipam) = network.get_mut("ipam").and_then(Value::as_object_mut) {
            ipam.remove("options");
        }
    }
    for project in [&mut *ours, &mut *theirs] {
        for (_, value) in project.as_object_mut().into_iter().flatten().filter(|(key, _)| key.starts_with("x-")) {
            plain(value);
        }
    }
    for service in entries(ours, "services").filter_map(Value::as_object_mut) {
        service.remove("pull_refresh_after");
    }
    for service in entries(ours, "services") {
        let limits = |of: &mut Value| {
            entries(of, "ulimits")
                .filter_map(Value::as_object_mut)
                .for_each(|limit| limit.retain(|_, value| *value != 0));
        };
        limits(service);
        service.get_mut("build").into_iter().for_each(limits);
    }
    for (service, name) in named(ours) {
        let context = service.get("build").and_then(|build| build.get("context")).cloned();
        let build = theirs.get_mut("services").and_then(|services| services.get_mut(&name)?.get_mut("build"));
        if let (Some(context), Some(build)) = (context, build)
            && build.get("context").is_none()
        {
            build["context"] = context;
        }
        let wanted = service.get("build").and_then(|build| build.get("dockerfile")).cloned();
        let build = theirs.get_mut("services").and_then(|services| services.get_mut(&name)?.get_mut("build"));
        if let (Some("Dockerfile"), Some(build)) = (wanted.as_ref().and_then(Value::as_str), build)
            && build.get("dockerfile").is_none()
        {
            build["dockerfile"] = wanted.into();
        }
    }
    for service in entries(theirs, "services") {
        for secret in service.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
            if secret.get("target").is_none() {
                secret["target"] = format!("/run/secrets/{}", secret["source"].as_str().unwrap_or_default()).into();
            }
        }
        let Some(limits) = service.get_mut("blkio_config").and_then(Value::as_object_mut) else { continue };
        for device in limits.values_mut().filter_map(Value::as_array_mut).flatten().filter_map(Value::as_object_mut) {
            *device = std::mem::take(device).into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
        }
    }
}

/// Says that nothing was compared, which is a failure where there should be something to compare with.
pub(crate) fn not_covered() {
    let required = std::env::var_os("ORCH_COMPOSE_REFERENCE").is_some();
    assert!(!required, "ORCH_COMPOSE_REFERENCE is set, but there is no Docker Compose 2.40 or later 2.x");
    let mut stderr = std::io::stderr();
    std::io::Write::write_all(&mut stderr, b"NOT COVERED: no Docker Compose 2.40 to compare with\n").expect("stderr");
}

/// Returns the cases and rows that both programs take alike, with their names.
pub(crate) fn comparable() -> Vec<(String, Project)> {
    let whole = cases().into_iter().map(|case| (case.display().to_string(), Project::of_case(&case)));
    let rows = files(".table").into_iter().flat_map(|table| {
        let rows = table::rows(&table);
        rows.into_iter().map(move |row| (row.layers.join(" + "), table::project(&table, &row)))
    });
    let is_different = |name: &str| DIFFERENT.iter().any(|different| name.contains(different.case));
    whole.chain(rows).filter(|(name, _)| !is_different(name)).collect()
}

#[test]
fn docker_compose_makes_the_same_of_every_file() {
    let Some(program) = reference() else { return not_covered() };
    let all = comparable();
    let (accepted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures = parallel::each(&all, |(name, project)| {
        let as_written = AS_WRITTEN.iter().any(|part| name.contains(part));
        let all: &[&[&str]] = if as_written { &[&[], &["--no-normalize", "--no-path-resolution"]] } else { &[&[]] };
        // Docker Compose does not look into keys of orch's own.
        let is_own = OWN_MISTAKES.iter().any(|part| name.contains(part));
        let failed = all.iter().filter_map(|flags| {
            let verdict = both(&program, name, project, flags);
            accepted.fetch_add(usize::from(matches!(verdict, Verdict::Same)), Ordering::Relaxed);
            refused.fetch_add(usize::from(matches!(verdict, Verdict::BothRefuse)), Ordering::Relaxed);
            let failure = verdict.unknown().filter(|text| !is_own || !text.starts_with(ONLY_THEIRS))?;
            Some(format!("{name} {}\n{failure}", flags.join(" ")))
        });
        failed.collect::<Vec<_>>()
    });
    let failures = failures.concat();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let (accepted, refused) = (accepted.into_inner(), refused.into_inner());
    assert!(accepted > 500 && refused > 200, "both accept {accepted} and refuse {refused}");
}

/// What the two programs make of a project.
pub(crate) enum Verdict {
    /// The same.
    Same,
    /// Both accept it, and here is how what they print differs.
    Differ(String),
    /// Neither accepts it.
    BothRefuse,
    /// Only orch does; what Docker Compose says.
    OnlyOurs(String),
    /// Only Docker Compose does; what orch says.
    OnlyTheirs(Vec<String>),
}

impl Verdict {
    /// How the programs differ, but for what is listed in [`STRICTER`] and [`WIDER`].
    pub(crate) fn unknown(self) -> Option<String> {
        match self {
            Self::Same | Self::BothRefuse => None,
            Self::Differ(diff) => Some(diff),
            Self::OnlyOurs(message) => {
                let is_known = WIDER.iter().any(|wider| message.contains(wider.case));
                (!is_known).then(|| format!("only orch accepts it: {message}"))
            }
            Self::OnlyTheirs(problems) => {
                let is_known = |problem: &String| STRICTER.iter().any(|stricter| problem.contains(stricter.case));
                let unknown: Vec<_> = problems.into_iter().filter(|problem| !is_known(problem)).collect();
                (!unknown.is_empty()).then(|| format!("{ONLY_THEIRS}: {}", unknown.join("; ")))
            }
        }
    }
}

/// Runs a project through both.
pub(crate) fn both(program: &Path, name: &str, project: &Project, flags: &[&str]) -> Verdict {
    let directory = tempfile::Builder::new().prefix("project").tempdir().expect("a directory");
    for (path, text) in &project.files.files {
        let path = directory.path().join(path.strip_prefix("/project").expect("all are there"));
        std::fs::create_dir_all(path.parent().expect("it is below another")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    for (name, text) in SHARED {
        std::fs::write(directory.path().join(name), text).expect("written");
    }
    let mut request = project.request.clone();
    request.cwd = directory.path().canonicalize().expect("it is there");
    request.options.contents = false;
    request.options.own_keys = OwnKeys::AsWritten;
    request.options.all_resources = name.contains(OWN);
    request.options.normalise = !flags.contains(&"--no-normalize");
    request.options.resolve_paths = !flags.contains(&"--no-path-resolution");
    request.options.interpolate = !flags.contains(&"--no-interpolate");
    request.options.consistency = !flags.contains(&"--no-consistency");
    if !request.services.is_empty() {
        request.options.selection = Selection::WithDependencies;
    }
    let (loaded, printed) = match (load(&OsFiles, &request), theirs(program, &request.cwd, &request, "json")) {
        (Ok(loaded), Ok(printed)) => (loaded, printed),
        (Err(_), Err(_)) => return Verdict::BothRefuse,
        (Ok(_), Err(message)) => return Verdict::OnlyOurs(message),
        (Err(problems), Ok(_)) => {
            let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
            return Verdict::OnlyTheirs(errors.map(|problem| problem.message.clone()).collect());
        }
    };
    if !request.options.interpolate {
        return uninterpolated(program, &request, &loaded.as_written());
    }
    let mut ours: Value = serde_json::from_str(&render_json(&loaded.model)).expect("JSON");
    let mut theirs: Value = serde_json::from_slice(&printed).expect("it prints JSON");
    let yaml = || -> Value {
        let printed = self::theirs(program, &request.cwd, &request, "yaml").expect("as in JSON");
        serde_yaml::from_slice(&printed).expect("it prints YAML")
    };
    mend(&mut ours, &mut theirs, &yaml);
    fold(&mut ours, &theirs);
    let own = extensions(&mut ours);
    // Models are those of its YAML.
    extensions(&mut theirs);
    // Of several files each program has its own rules to merge the keys of orch's own.
    let is_merged_otherwise = name.contains(OWN) && request.files.len() > 1;
    if !own.is_empty() && !is_merged_otherwise {
        let theirs = extensions(&mut yaml());
        if own != theirs {
            return Verdict::Differ(format!(
                "`x-` keys:\n{}",
                lines(&serde_json::json!(theirs), &serde_json::json!(own))
            ));
        }
    }
    ours.sort_all_objects();
    theirs.sort_all_objects();
    if ours == theirs {
        return Verdict::Same;
    }
    Verdict::Differ(lines(&theirs, &ours))
}

/// Shows in lines how two values differ.
pub(crate) fn lines(theirs: &Value, ours: &Value) -> String {
    let pretty = |value: &Value| format!("{value:#}\n");
    similar::TextDiff::from_lines(pretty(theirs).as_str(), pretty(ours).as_str()).unified_diff().to_string()
}

/// Docker Compose prints what it has after some of its phases where variables stay. So what is compared is what it makes of
/// orch's output, and of the files themselves.
fn uninterpolated(program: &Path, request: &LoadRequest, ours: &Value) -> Verdict {
    std::fs::write(request.cwd.join("printed.json"), ours.to_string()).expect("written");
    let mut request = request.clone();
    request.options.interpolate = true;
    let Ok(wanted) = theirs(program, &request.cwd, &request, "json") else { return Verdict::BothRefuse };
    let printed = LoadRequest { files: vec!["printed.json".to_owned()], ..request };
    match theirs(program, &printed.cwd, &printed, "json") {
        Ok(made) if made == wanted => Verdict::Same,
        Ok(made) => {
            let [made, wanted] = [made, wanted].map(|text| String::from_utf8_lossy(&text).into_owned());
            Verdict::Differ(similar::TextDiff::from_lines(&wanted, &made).unified_diff().to_string())
        }
        Err(message) => Verdict::OnlyOurs(message),
    }
}
