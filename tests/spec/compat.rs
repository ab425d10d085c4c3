//! `docs/compose-compat.md` is made of the table of rules and of the differences that the comparison with Docker Compose
//! allows; this test keeps it true. `ORCH_SPEC_UPDATE=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use orch::load::{Element, Standing, elements};

use crate::expect;
use crate::flags::FLAGGED;
use crate::generated::{STRICTER, WIDER};
use crate::project::Project;
use crate::reference::{DIFFERENT, Difference, MENDED};

const HEAD: &str = "\
# What of the Compose Specification orch does

Every element of the specification, as of Docker Compose 2.40 and later drafts, and what becomes of it. `orch config` prints
what it loads as Docker Compose's `config` does. What orch does not apply yet is never ignored: `orch up`, `orch plan` and the
like refuse it, with its place in the file and what to do instead, before anything is changed. What has no effect in Docker
Compose on Linux either brings a warning then. `KEY: !reset null` in a further
file (`-f compose.yaml -f orch.yaml`) leaves an element out without a change to the first.

`*` stands for a name that the user chooses, `[]` for the items of a list. Short forms and merging are those of the
specification. This page is made of the table in `src/load/rules/table.rs` and of `tests/spec/reference.rs`; after a change of
these run `ORCH_SPEC_UPDATE=1 cargo test --test spec compat`.

";

/// Elements that mean something only elsewhere, or not what one might think.
const NOTES: &[(&str, &str)] = &[
    ("version", "obsolete: a warning, no effect"),
    ("services.*.deploy.labels", "kept; no container gets them, as in Docker Compose"),
    (
        "services.*.deploy.update_config",
        "applied, but to what shares namespaces or volumes with another service: it is replaced with that one",
    ),
    ("services.*.deploy.update_config.parallelism", "applied, over all hosts together; 1 where it is not given"),
    (
        "services.*.deploy.update_config.delay",
        "applied: from when a new replica is ready until the next one is replaced in its place",
    ),
    (
        "services.*.deploy.update_config.monitor",
        "applied: from when a new replica is ready; 5 s where it is not given, as in a swarm; `up` ends after it",
    ),
    ("services.*.deploy.update_config.max_failure_ratio", "applied; `up` refuses more than 1"),
    ("services.*.volumes.[].consistency", "kept; no effect on Linux, as in Docker Compose"),
    ("configs.*.external", "loaded; `up` refuses `true`: the file must say what a config holds"),
    ("secrets.*.external", "loaded; `up` refuses `true`: the file must say what a secret holds"),
    ("configs.*.name", "kept; nothing on the engine has this name"),
    ("secrets.*.name", "kept; nothing on the engine has this name"),
    ("configs.*.labels", "kept; nothing on the engine has them"),
    ("secrets.*.labels", "kept; nothing on the engine has them"),
    ("services.*.profiles", "decides which services there are"),
    ("services.*.build.context", "applied to directories and git repositories; `up` refuses other addresses"),
    ("services.*.build.additional_contexts", "applied by BuildKit of Docker Engine 23.0 and later; else refused"),
    (
        "services.*.build.cache_to",
        "applied by BuildKit; other types than `inline` need containerd's store of images; else refused",
    ),
    ("services.*.build.entitlements", "applied by BuildKit; else refused"),
    ("services.*.build.no_cache_filter", "applied by BuildKit; else refused"),
    (
        "services.*.build.platforms",
        "applied; more than one by BuildKit with containerd's store of images, else refused",
    ),
    ("services.*.build.privileged", "applied by BuildKit (`security.insecure`); else refused"),
    (
        "services.*.build.provenance",
        "applied by BuildKit with containerd's store of images; else refused, but for `false`",
    ),
    ("services.*.build.sbom", "applied by BuildKit with containerd's store of images; else refused, but for `false`"),
    ("services.*.build.secrets", "applied by BuildKit; else refused"),
    (
        "services.*.build.shm_size",
        "applied by the classic builder, and by BuildKit of Docker Engine 23.0 and later; else refused",
    ),
    ("services.*.build.ssh", "applied by BuildKit; else refused"),
    (
        "services.*.build.ulimits",
        "applied by the classic builder, and by BuildKit of Docker Engine 23.0 and later; else refused",
    ),
    ("services.*.attach", "`up` shows the logs or not"),
    ("services.*.develop", "applied by `watch`; `up` looks past it, as in Docker Compose"),
    ("services.*.volumes.[].image", "applied where the engine speaks API 1.48 (Docker Engine 28); else refused"),
    ("services.*.annotations", "applied where the engine speaks API 1.43 (Docker Engine 24); else a warning"),
    ("services.*.cpu_count", "a warning: only containers of Windows take it"),
    ("services.*.cpu_percent", "a warning: only containers of Windows take it"),
    (
        "services.*.networks.*.interface_name",
        "applied where the engine speaks API 1.49 (Docker Engine 28.1); else refused",
    ),
    ("services.*.networks.*.mac_address", "applied where the engine speaks API 1.44 (Docker Engine 25); else refused"),
    ("services.*.mac_address", "applied where the engine speaks API 1.44 (Docker Engine 25); else refused"),
    (
        "services.*.volumes.[].bind.recursive",
        "applied; `writable` and `readonly` where the engine speaks API 1.44 (Docker Engine 25), else refused",
    ),
    ("services.*.volumes.[].volume.labels", "applied to a volume without a name; else a warning"),
];

/// Where orch does otherwise by design, beyond what it prints.
const DESIGN: &[(&str, &str, &str)] = &[
    (
        "several hosts",
        "has one engine",
        "places replicas over the hosts of `x-hosts`; services reach one another by name",
    ),
    ("`deploy.placement`, `deploy.mode`", "ignores them", "applies them"),
    ("`deploy.resources.reservations.cpus`", "ignores it", "chooses a host that has them free"),
    (
        "a change of a service",
        "stops the old container, then starts the new one",
        "replaces replicas one after the other, or as `deploy.update_config` says; one without a health check must have run for half \
         a second (after a failure, well for 10 s) before the next goes, and `up` ends with 1 where one fails three times in a row: the \
         others stay until it runs",
    ),
    (
        "`deploy.update_config`",
        "ignores it",
        "applies it, as a swarm does; an `up` of what has paused tries what failed again, and goes on once that was well for `monitor`; \
         an `up` of something else begins anew",
    ),
    ("content of configs and secrets", "does not see that it changed", "makes the pods anew that mount it"),
    ("owner and mode of configs and secrets", "ignores them for files", "applies them"),
    ("relative paths on other hosts", "become empty directories there", "travel, or are refused"),
    (
        "names of images and of signals, a relative `working_dir`, variables without a name, `sysctls` that are the host's, unknown \
         `ulimits`, memory below 6 MiB",
        "hands them to the engine, which refuses them in the middle of `up`",
        "refuses them with their place before anything is made",
    ),
    (
        "an image that `commit` makes",
        "has the labels of the project, so that what is run of it is listed and taken down with it",
        "is of no project: the label is empty, as engines let none be taken away, so that `docker compose ls` shows what is run of it \
         in a row without a name",
    ),
    (
        "`cpus` below 0.01",
        "hands it to the engine, which takes less than 0.00001 for no limit, and cannot start the container with the rest",
        "refuses it with its place",
    ),
    ("`|`, `;`, `>` and `&` in commands that are one text", "drops the rest of the command", "refuses it"),
    ("options of mounts that it does not know", "ignores them", "warns"),
    ("words of `restart`, ports of `expose`", "leaves what is wrong to the engine", "refuses it with its place"),
    ("words of `deploy` (`failure_action`, `mode`)", "takes any", "refuses those that it does not know"),
    (
        "entries of lists without what they need (`rate`, `weight`), addresses that are none",
        "leaves them to the engine, or takes them for nothing",
        "refuses them with their place",
    ),
    ("lists that must have no doubles (`security_opt`, `volumes_from`)", "refuses a double", "drops it"),
    (
        "`post_start`",
        "run by the client, and not after a start that the engine does; a second `up` does not know that one failed",
        "run by the agent after each start; one that failed is told for as long as that run lasts",
    ),
    (
        "`pre_start`",
        "is refused as unknown; since 5.3 run by the client, whenever no replica runs, and not yet for each replica",
        "run by the agents: once for the service as it is, whatever is started again; `per_replica` as an init container of the pod",
    ),
    (
        "`pre_stop`",
        "of the file; one that fails keeps the container from being stopped",
        "of the container, whatever the file says by then; the container is stopped all the same",
    ),
    (
        "`deploy.restart_policy`",
        "ignores `delay` and `window`, and `max_attempts` is for `on-failure` only",
        "applies them; `max_attempts` counts for `any`, too",
    ),
    (
        "`use_api_socket`",
        "copies the user's logins into the container, also where it has a `DOCKER_CONFIG` of its own",
        "mounts them as a secret, where nothing says `DOCKER_CONFIG`, and the socket of the engine that the container is on",
    ),
    (
        "`volumes_from`",
        "is of the first container of the service, and says nothing of `:ro`",
        "is of the replica with the same number, on the same host, and has `:ro`",
    ),
    (
        "networks with IPv6",
        "have an AAAA for each service; before Docker Engine 27 anybody reaches their containers",
        "have names of IPv4; their containers are reached from their own network only",
    ),
    ("links", "are written into the container by the engine", "are names that only this service knows, on all hosts"),
    ("`.git` below a path of `develop.watch`", "is brought to containers, against its documentation", "stays behind"),
    (
        "a change of the compose file, or of a file that it reads, under `watch`",
        "is not noticed",
        "is applied, as `up` would; a file that does not load is said, and the old one holds",
    ),
    (
        "fewer replicas, where some are outdated (`up --scale`)",
        "removes those first, and keeps others whatever their numbers are; new ones are numbered after the highest",
        "keeps those of the lowest numbers, which are always 1 to N, and makes them anew one after the other",
    ),
    (
        "what `run` made, under `down`",
        "stays without `--remove-orphans`, and keeps its networks from being removed",
        "goes with the project",
    ),
    ("`down SERVICE`", "removes networks that only stopped containers are on, which then cannot start", "leaves them"),
    (
        "a container that is made anew under `watch`",
        "has what its image has",
        "gets what was brought to the one before, but for what its own image was built of since",
    ),
    ("a file with aliases that multiply", "may take minutes", "refuses it after 100,000 values"),
    (
        "what is wrong with a file",
        "tells the first thing, without its place",
        "tells all, each with file, line and column",
    ),
];

fn status(element: &Element) -> String {
    if let Some((_, note)) = NOTES.iter().find(|(path, _)| *path == element.path) {
        return (*note).to_owned();
    }
    match element.standing {
        Standing::Applied => "applied".to_owned(),
        Standing::AppliedBut(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            format!("applied, but for {}, which `up` refuses", words.join(", "))
        }
        Standing::Refused { instead, harmless: [] } => format!("loaded; `up` refuses it: {instead}"),
        Standing::Refused { instead, harmless } => {
            let takes: Vec<String> = harmless.iter().map(|value| format!("`{value}`")).collect();
            format!("loaded; `up` refuses it, but for {}: {instead}", takes.join(", "))
        }
        Standing::WithoutEffect { instead, .. } => format!("printed; no effect, of which `up` warns: {instead}"),
        Standing::RefusedAbove(above) => format!("loaded; goes with `{above}`"),
    }
}

fn all_differences() -> impl Iterator<Item = &'static Difference> {
    [DIFFERENT, MENDED, STRICTER, WIDER, FLAGGED].into_iter().flatten()
}

fn differences(element: &str) -> impl Iterator<Item = &'static Difference> {
    all_differences().filter(move |different| different.element == element)
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = String::new();
    // What the user names, and items that are one value, are no elements of their own.
    let is_element = |element: &&Element| !element.path.ends_with('*') && !element.path.ends_with("[]");
    let mut all = elements();
    let order = ["services", "networks", "volumes", "configs", "secrets", "models"];
    let top = |element: &Element| element.path.split('.').next().unwrap_or_default();
    all.sort_by_key(|element| order.iter().position(|section| *section == top(element)));
    for element in all.iter().filter(is_element) {
        let title = match top(element) {
            "version" | "name" | "include" => "Top level".to_owned(),
            top => format!("`{top}`"),
        };
        if title != section {
            _ = write!(
                page,
                "\n## {title}\n\n| element | what becomes of it | `config` | chapter |\n|---|---|---|---|\n"
            );
            section = title;
        }
        let printed = match differences(element.path).next() {
            Some(_) => "differs, see below",
            None => "as Docker Compose",
        };
        _ = writeln!(page, "| `{}` | {} | {printed} | {} |", element.path, status(element), element.spec);
    }
    page += "\n## Deliberate differences in what is loaded and printed\n\n| where | Docker Compose 2.40 | orch |\n|---|---|---|\n";
    for different in all_differences() {
        let Difference { element, theirs, ours, .. } = different;
        let element = if element.contains(['`', ' ']) { (*element).to_owned() } else { format!("`{element}`") };
        _ = writeln!(page, "| {element} | {theirs} | {ours} |");
    }
    page += "\n## Deliberate differences in what is done\n\n| what | Docker Compose 2.40 | orch |\n|---|---|---|\n";
    for (what, theirs, ours) in DESIGN {
        _ = writeln!(page, "| {} | {} | {} |", escape(what), escape(theirs), escape(ours));
    }
    page
}

/// A bar ends a cell.
fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn compat_page_says_what_the_table_of_rules_says() {
    let mut failures = Vec::new();
    expect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compose-compat.md"), &page(), &mut failures);
    assert!(failures.is_empty(), "run with ORCH_SPEC_UPDATE=1\n{}", failures.join("\n"));
}

#[test]
fn compat_page_has_no_empty_cell_and_every_note_an_element() {
    let page = page();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 250, "only {} rows", rows.len());
    for row in rows {
        let row = row.replace("\\|", "/");
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(matches!(cells.len(), 3 | 4) && cells.iter().all(|cell| !cell.is_empty()), "{row}");
    }
    let known = elements();
    let is_known = |path: &str| path.contains(['`', ' ']) || known.iter().any(|element| element.path == path);
    for path in NOTES.iter().map(|(path, _)| *path).chain(all_differences().map(|one| one.element)) {
        assert!(is_known(path), "`{path}` is no element");
    }
}

#[test]
fn what_has_no_effect_in_docker_compose_brings_a_warning_where_it_is_to_be_run() {
    let text = "services:\n  a:\n    image: i\n    isolation: hyperv\n    pull_refresh_after: 1d\n    build: {context: ., isolation: process}\n  b: {image: i, isolation: default, build: {context: ., isolation: default}}\n";
    let project = Project::new([text]);
    let warnings = project.load_to_run().expect("it is no mistake").warnings.to_string();
    assert!(warnings.contains("`services.a.isolation` has no effect") && warnings.contains("0.yaml:4:5"), "{warnings}");
    assert!(
        warnings.contains("`services.a.pull_refresh_after` has no effect") && warnings.contains("0.yaml:5:5"),
        "{warnings}"
    );
    assert!(
        warnings.contains("`services.a.build.isolation` has no effect") && warnings.contains("0.yaml:6:25"),
        "{warnings}"
    );
    assert!(!warnings.contains("services.b"), "{warnings}");
    assert_eq!(project.load().expect("it is no mistake").warnings.iter().count(), 0);
}
