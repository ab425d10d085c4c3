//! What holds for every input.

use std::sync::LazyLock;

use orch::load::{LoadOptions, LoadRequest, OwnKeys, Selection, render_json, render_yaml};
use orch::model::{AmbassadorTarget, Model};
use proptest::prelude::*;

use crate::project::Project;
use crate::{cases, files, table};

/// Texts of all cases: seeds for mutation.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let whole = cases().into_iter().map(|case| std::fs::read(case).expect("a case"));
    let rows = files(".table").into_iter().flat_map(|table| {
        let rows = table::rows(&table);
        rows.into_iter()
            .map(move |row| table::project(&table, &row).files.files[std::path::Path::new("/project/0.yaml")].clone())
    });
    whole.chain(rows).collect()
});

#[derive(Debug, Clone)]
enum Mutation {
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let pieces = prop::sample::select(vec![
        "!reset ",
        "!override ",
        "&a ",
        "*a",
        "<<: ",
        "${",
        "${A:-",
        "}",
        "{",
        "[",
        "]",
        ": ",
        "- ",
        "\n",
        "'",
        "\"",
        "\t",
        "|\n",
        "---\n",
        "\u{feff}",
        "é",
        "\0",
        "~",
        "-1",
        "0x",
        "1e999",
        "? ",
        ", ",
        "null",
        "2001-01-01",
        "%TAG",
        "日本",
    ]);
    let index = || any::<prop::sample::Index>();
    prop_oneof![
        3 => (index(), pieces).prop_map(|(at, text)| Mutation::Insert(at, text.as_bytes().to_vec())),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..4)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (index(), 1_usize..20).prop_map(|(at, count)| Mutation::Remove(at, count)),
        2 => (index(), index(), 1_usize..40).prop_map(|(from, to, count)| Mutation::Copy(from, to, count)),
    ]
}

fn mutate(mut text: Vec<u8>, mutations: Vec<Mutation>) -> Vec<u8> {
    for mutation in mutations {
        let length = text.len() + 1;
        match mutation {
            Mutation::Insert(at, bytes) => {
                let at = at.index(length);
                text.splice(at..at, bytes);
            }
            Mutation::Remove(at, count) => {
                let at = at.index(length);
                text.drain(at..(at + count).min(length - 1));
            }
            Mutation::Copy(from, to, count) => {
                let from = from.index(length);
                let piece = text[from..(from + count).min(length - 1)].to_vec();
                let to = to.index(length);
                text.splice(to..to, piece);
            }
        }
    }
    text
}

/// The model without the places of its routes, which are others in what `config` prints.
pub(crate) fn placeless(mut model: Model) -> Model {
    for service in model.services.values_mut() {
        service.keys.routes.iter_mut().for_each(|route| route.place.clear());
        service.keys.external_links.iter_mut().for_each(|link| link.place.clear());
        for target in service.keys.ambassadors.iter_mut().flat_map(|ambassador| &mut ambassador.targets) {
            if let AmbassadorTarget::Exported { place, .. } = target {
                place.clear();
            }
        }
    }
    model
}

/// Loads, and shows all problems, which must not fail either.
fn survives(texts: Vec<Vec<u8>>) {
    match Project::new(texts).load() {
        Ok(loaded) => {
            let again = Project::new([render_json(&loaded.model)]).load().expect("its own output loads");
            assert_eq!(placeless(again.model), placeless(loaded.model));
        }
        Err(problems) => {
            assert!(problems.has_errors());
            assert!(!problems.to_string().contains("cannot be represented"), "{problems}");
            drop(problems.to_json());
        }
    }
}

/// Words that occur below orch's own keys, so that values get past the first check.
const WORDS: &[&str] = &[
    "",
    "a",
    "web",
    "db",
    "80",
    "0",
    "redis:6379",
    "db:80",
    "web:80",
    "shop/db:1",
    "a.example.com:443",
    "[::1]:80",
    ":",
    "127.0.0.1:80",
    "0.0.0.0:80",
    "*",
    "*.a.example.com",
    "a.localhost",
    "/",
    "/a",
    "/a*",
    "http://a/",
    "https",
    "acme",
    "s",
    "c",
    "50%",
    "2s",
    "0s",
    "16m",
    "true",
    "memory",
    "redirect",
    "source",
    "round-robin",
    "${SET}",
    "$$",
    "${",
    "service:db",
    "content-refresher",
    "redis-ambassador",
    "v:/data",
    "A=1",
    "GET",
    "é",
    "a\nb",
];
const OWN: &[&str] = &[
    "x-init",
    "x-sidecars",
    "x-ambassadors",
    "x-route",
    "x-balance",
    "x-probe",
    "x-export",
    "x-patterns",
    "external_links",
    "ports",
    "expose",
    "network_mode",
    "links",
];
const BELOW: &[&str] = &[
    "a",
    "pod",
    "image",
    "command",
    "environment",
    "volumes",
    "configs",
    "secrets",
    "env_file",
    "listen",
    "to",
    "tls",
    "cert",
    "key",
    "ca",
    "server_name",
    "timeout",
    "retries",
    "breaker",
    "failures",
    "pause",
    "host",
    "path",
    "exact",
    "prefix",
    "method",
    "headers",
    "port",
    "weight",
    "rewrite",
    "redirect",
    "scheme",
    "status",
    "http",
    "by",
    "header",
    "cookie",
    "sticky",
    "ttl",
    "eject",
    "at_most",
    "weights",
    "tcp",
    "interval",
    "use",
    "with",
    "target",
    "size",
    "medium",
    "expose",
    "restart",
    "deploy",
    "healthcheck",
    "test",
    "app_protocol",
    "published",
    "ports",
];

fn value() -> impl Strategy<Value = serde_json::Value> {
    let word = prop::sample::select(WORDS);
    let leaf = prop_oneof![
        1 => Just(serde_json::Value::Null),
        1 => any::<bool>().prop_map(Into::into),
        2 => prop::sample::select(vec![-1_i64, 0, 1, 80, 6379, 70_000, i64::MAX]).prop_map(Into::into),
        6 => word.prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map(prop::sample::select(BELOW), inner, 0..5).prop_map(|map| {
                map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_value_of_a_key_of_our_own_makes_load_panic(
        keys in prop::collection::hash_map(prop::sample::select(OWN), value(), 1..4),
        pod in value(),
        more in prop::collection::hash_map(prop::sample::select(OWN), value(), 0..2),
    ) {
        let mut web = serde_json::json!({"image": "x"});
        web.as_object_mut().expect("a mapping").extend(keys.into_iter().map(|(key, value)| (key.to_owned(), value)));
        let first = serde_json::json!({
            "services": {"web": web, "db": {"image": "y"}},
            "volumes": {"v": {"x-pod": pod}},
            "configs": {"c": {"content": "x"}},
            "secrets": {"s": {"file": "./x"}},
        });
        let more: serde_json::Map<_, _> = more.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut texts = vec![first.to_string().into_bytes()];
        if !more.is_empty() {
            texts.push(serde_json::json!({"services": {"web": more}}).to_string().into_bytes());
        }
        survives(texts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_load_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(vec![bytes]);
    }

    #[test]
    fn no_mutation_makes_load_panic(
        seed in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..6),
        other in any::<prop::sample::Index>(),
        merge in any::<bool>(),
    ) {
        let mut texts = vec![mutate(seed.get(&SEEDS).clone(), mutations)];
        if merge {
            texts.push(other.get(&SEEDS).clone());
        }
        survives(texts);
    }
}

/// All projects of the other tests that load.
fn accepted() -> Vec<Project> {
    let whole = cases().into_iter().map(|case| Project::of_case(&case));
    let rows = files(".table").into_iter().flat_map(|table| {
        let rows = table::rows(&table);
        rows.into_iter().map(move |row| table::project(&table, &row))
    });
    whole.chain(rows).filter(|project| project.load().is_ok()).collect()
}

#[test]
fn an_empty_override_changes_nothing() {
    for mut project in accepted() {
        let before = project.load().expect("accepted").model;
        for (index, text) in ["x-nothing: 1\n", "services: {}\n"].into_iter().enumerate() {
            project.files.files.insert(format!("/project/empty{index}.yaml").into(), text.into());
            project.request.files.push(format!("empty{index}.yaml"));
        }
        let mut after = project.load().expect("still accepted").model;
        after.extensions.remove("x-nothing");
        assert_eq!(before, after);
    }
}

#[test]
fn a_file_merged_onto_itself_changes_nothing_but_plain_lists() {
    for mut project in accepted() {
        let before = project.load().expect("accepted").model;
        let twice: Vec<String> = project.request.files.iter().chain(project.request.files.last()).cloned().collect();
        project.request.files = twice;
        let Ok(after) = project.load() else { panic!("{:?}", project.files) };
        let names = |model: &orch::model::Model| model.services.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&before), names(&after.model));
        for (name, service) in &before.services {
            let other = &after.model.services[name];
            let unique = |service: &orch::model::Service| {
                (service.ports.clone(), service.volumes.clone(), service.environment.clone(), service.networks.clone())
            };
            assert_eq!(unique(service), unique(other), "{name}");
        }
    }
}

/// Returns the request that makes of some files what can stand for them: nothing is done to it that will be done again.
pub(crate) fn for_the_first_files(request: &LoadRequest, files: &[String]) -> LoadRequest {
    LoadRequest {
        files: files.to_vec(),
        profiles: vec!["*".to_owned()],
        services: Vec::new(),
        options: LoadOptions {
            normalise: false,
            resolve_paths: false,
            consistency: false,
            resolve_environment: false,
            all_resources: true,
            contents: false,
            own_keys: OwnKeys::AsWritten,
            ..LoadOptions::default()
        },
        ..request.clone()
    }
}

/// Merging goes from the first file to the last, so what the first ones make can stand for them. Files of labels are
/// the exception: they are beneath the labels of all files.
#[test]
fn what_config_prints_of_the_first_files_stands_for_them() {
    let mut compared = 0;
    for mut project in accepted() {
        let Some((last, first)) =
            project.request.files.clone().split_last().map(|(last, rest)| (last.clone(), rest.to_vec()))
        else {
            continue;
        };
        let files = &project.files.files;
        let of_labels = files.values().any(|text| String::from_utf8_lossy(text).contains("label_file"));
        if first.is_empty() || of_labels {
            continue;
        }
        let whole = project.load().expect("accepted");
        let request = project.request.clone();
        project.request = for_the_first_files(&request, &first);
        // Alone they may be wrong.
        let Ok(loaded) = project.load() else { continue };
        let text = render_json(&loaded.model);
        project.files.files.insert("/project/first.json".into(), text.clone().into_bytes());
        project.request = LoadRequest { files: vec!["first.json".to_owned(), last], ..request };
        match project.load() {
            Ok(again) => assert_eq!(placeless(again.model), placeless(whole.model), "{text}"),
            Err(problems) => panic!("{text}\n{problems}"),
        }
        compared += 1;
    }
    assert!(compared > 40, "only {compared} projects were compared");
}

#[test]
fn what_config_prints_loads_as_the_same_model() {
    for project in accepted() {
        let loaded = project.load().expect("accepted");
        for text in [render_json(&loaded.model), render_yaml(&loaded.model)] {
            let mut again = Project::new([text.clone()]);
            again.request.profiles = vec!["*".to_owned()];
            match again.load() {
                Ok(again) => assert_eq!(placeless(again.model), placeless(loaded.model.clone()), "{text}"),
                Err(problems) => panic!("{text}\n{problems}"),
            }
        }
    }
}

#[test]
fn what_config_expanded_prints_loads_as_the_same_model() {
    for mut project in accepted() {
        project.request.options.own_keys = OwnKeys::Expanded;
        let loaded = project.load().expect("accepted");
        let text = loaded.render_expanded();
        let mut again = Project::new([text.clone()]);
        again.request.profiles = vec!["*".to_owned()];
        again.request.options.own_keys = OwnKeys::Expanded;
        match again.load() {
            Ok(again) => assert_eq!(placeless(again.model), placeless(loaded.model.clone()), "{text}"),
            Err(problems) => panic!("{text}\n{problems}"),
        }
    }
}

/// Where variables stay nothing needs to be known of what they stand for.
#[test]
fn variables_stay_wherever_they_are_written() {
    let text = r#"
services:
  a:
    image: "x:${TAG:-1}"
    ports: ["${PORT}:80", "81"]
    expose: ["${PORT}"]
    command: echo ${X} $$Y
    deploy: {replicas: "${N}", resources: {limits: {memory: "${M}b"}}}
    environment: ["A=${B}", "C=$$d"]
    env_file: ["${FILE}"]
    mem_limit: ${M}
    depends_on: [b]
    volumes: ["${V:-./x}:/x", "./y:/y"]
    privileged: "${P}"
    dns: ${D}
    healthcheck: {test: "curl ${U}", interval: "${I}"}
  b: {build: "${DIR}"}
networks: {n: {external: "${E}"}}
"#;
    let mut project = Project::new([text]);
    project.request.options.interpolate = false;
    let loaded = project.load().unwrap_or_else(|problems| panic!("{problems}"));
    let printed = serde_json::to_string_pretty(&loaded.as_written()).expect("JSON");
    let stay: Vec<&str> = text.split("${").skip(1).filter_map(|rest| rest.split('}').next()).collect();
    assert_eq!(stay.len(), 16);
    for variable in stay {
        assert!(printed.contains(&format!("${{{variable}}}")), "{variable} is not in\n{printed}");
    }
    assert_eq!(orch::load::views::services(&loaded.model), ["a", "b"]);
}

/// `build web` is for the image of one service, whatever that needs when it runs.
#[test]
fn a_service_named_alone_may_need_others() {
    let text = "services: {web: {build: ., depends_on: [db], links: [cache]}, db: {image: x}, cache: {image: y}}\n";
    let mut project = Project::new([text, "services: {web: {depends_on: {nobody: {condition: service_started}}}}"]);
    project.request.services = vec!["web".to_owned()];
    project.request.options.selection = Selection::Named;
    let problems = project.load().expect_err("nobody is needed").to_string();
    assert!(problems.contains("`web` depends on `nobody`") && !problems.contains("`db`"), "{problems}");
    project.request.files.pop();
    let loaded = project.load().unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(orch::load::views::services(&loaded.model), ["web"]);
}

/// Docker Compose 2.40 has the option and reads the files all the same.
#[test]
fn files_of_variables_stay_unread_where_that_is_asked_for() {
    let text = "services: {a: {image: x, env_file: [missing.env, e.env], environment: {SET: , A: 1}}}\n";
    let mut project = Project::new([text]);
    assert!(project.load().is_err(), "one is not there");
    project.request.options.resolve_environment = false;
    let loaded = project.load().unwrap_or_else(|problems| panic!("{problems}"));
    let printed: serde_json::Value = serde_json::from_str(&render_json(&loaded.model)).expect("JSON");
    let service = &printed["services"]["a"];
    assert_eq!(service["environment"], serde_json::json!({"SET": "v", "A": "1"}), "names take the project's values");
    let paths: Vec<_> = service["env_file"].as_array().expect("a list").iter().map(|file| &file["path"]).collect();
    assert_eq!(paths, ["/project/missing.env", "/project/e.env"]);
}

/// Nobody asks whether it is there, but nothing can have such a name.
#[test]
fn a_name_that_nothing_can_have_has_its_place_also_where_nothing_is_looked_for() {
    for key in ["networks", "depends_on", "links", "volumes_from", "models"] {
        let mut project = Project::new([format!("services: {{a: {{image: x, {key}: [n--- 1]}}}}\n")]);
        project.request.options.consistency = false;
        let problems = project.load().expect_err("no such name").to_string();
        assert!(problems.contains("`n--- 1`") && problems.contains("0.yaml:1:"), "{key}: {problems}");
    }
}

/// It names no file; Docker Compose prints it where variables stay.
#[test]
fn an_environment_file_may_have_an_empty_name_where_it_is_not_read() {
    for (is_read, is_interpolated) in [(true, true), (false, true), (false, false)] {
        let text = "services: {a: {image: x, env_file: [{path: '', required: false}, e.env]}}\n";
        let mut project = Project::new([text]);
        (project.request.options.resolve_environment, project.request.options.interpolate) = (is_read, is_interpolated);
        let loaded = project.load().unwrap_or_else(|problems| panic!("{problems}"));
        let files = &loaded.model.services.values().next().expect("one").env_file;
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, if is_read { vec![] } else { vec!["", "/project/e.env"] });
    }
}
