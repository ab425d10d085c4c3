//! Which files are read, from where, and what the project is called. All rows were run through Docker Compose 2.40.

use std::collections::BTreeMap;

use orch::load::{LoadRequest, Loaded, MemoryFiles, load};

use crate::project::Project;

const MODEL: &str = "services: {a: {image: x, environment: {A: '${A-}', B: '${B-}', C: '${C-}'}}}\n";

/// A run in `/w`: files, command line and environment.
#[derive(Default)]
struct Run<'a> {
    files: &'a [(&'a str, &'a str)],
    cwd: &'a str,
    args: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
}

impl Run<'_> {
    fn load(&self) -> Result<Loaded, String> {
        let text = |text: &str| if text == "MODEL" { MODEL.to_owned() } else { text.to_owned() };
        let mut files =
            MemoryFiles::new(self.files.iter().map(|(path, content)| (format!("/w/{path}"), text(content))));
        files.stdin = MODEL.into();
        let environment: BTreeMap<String, String> =
            self.environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut request = LoadRequest { cwd: format!("/w/{}", self.cwd).into(), environment, ..LoadRequest::default() };
        request.cwd = request.cwd.components().collect();
        for pair in self.args.chunks(2) {
            let value = pair[1].to_owned();
            match pair[0] {
                "-f" => request.files.push(value),
                "-p" => request.project_name = Some(value),
                "--project-directory" => request.project_directory = Some(value),
                "--env-file" => request.env_files.push(value),
                other => panic!("{other}"),
            }
        }
        load(&files, &request).map_err(|problems| problems.iter().next().map_or(String::new(), |p| p.message.clone()))
    }

    /// Compares with `NAME A B C FILES`, or the message of the first problem.
    #[track_caller]
    fn gives(&self, expected: &str) {
        let shown = match self.load() {
            Err(message) => message,
            Ok(loaded) => {
                let service = &loaded.model.services["a"];
                let value =
                    |name: &str| service.environment[name].clone().filter(|v| !v.is_empty()).unwrap_or("-".to_owned());
                let files = loaded.config_files.iter().map(|path| path.display().to_string().replace("/w/", ""));
                let values = [value("A"), value("B"), value("C")].join(" ");
                format!("{} {values} {}", loaded.model.name, files.collect::<Vec<_>>().join(","))
            }
        };
        assert_eq!(shown, expected);
    }
}

#[test]
fn compose_files_are_searched_upwards_with_their_override() {
    let run = |files, cwd, expected: &str| Run { files, cwd, ..Run::default() }.gives(expected);
    run(&[("p/compose.yaml", "MODEL")], "p", "p - - - p/compose.yaml");
    run(&[("p/compose.yml", "MODEL"), ("p/docker-compose.yaml", "x")], "p/a/b", "p - - - p/compose.yml");
    run(&[("p/docker-compose.yaml", "MODEL")], "p", "p - - - p/docker-compose.yaml");
    run(
        &[("p/compose.yaml", "MODEL"), ("p/compose.override.yml", "services: {a: {environment: {B: o}}}")],
        "p/sub",
        "p - o - p/compose.yaml,p/compose.override.yml",
    );
    run(&[("q/compose.yaml", "MODEL")], "p", "no configuration file provided: not found");
    run(&[("p/compose.yaml", "")], "p", "empty compose file: `compose.yaml`");
}

#[test]
fn a_file_that_is_not_there_is_told_with_the_one_that_is() {
    for (named, there) in
        [("compose.yml", "compose.yaml"), ("sub/x.yaml", "sub/docker-compose.yml"), ("sub", "sub/docker-compose.yml")]
    {
        let files = MemoryFiles::new([("/w/compose.yaml", MODEL), ("/w/sub/docker-compose.yml", MODEL)]);
        let request = LoadRequest { cwd: "/w".into(), files: vec![named.to_owned()], ..LoadRequest::default() };
        let problems = load(&files, &request).expect_err("it is not there").to_string();
        assert!(problems.contains(&format!("help: `{there}` is there")), "{problems}");
    }
}

#[test]
fn two_candidates_are_warned_about() {
    let files = &[("p/compose.yml", "MODEL"), ("p/docker-compose.yaml", "x")];
    let loaded = Run { files, cwd: "p", ..Run::default() }.load().expect("loads");
    let warnings = loaded.warnings.to_string();
    assert!(warnings.contains("several files were found, `/w/p/compose.yml` is used"), "{warnings}");
}

/// Rows of compose.md's "Project environment precedence".
#[test]
fn env_files_fill_in_what_the_process_does_not_say() {
    let cwd = "A=cwd\nC=onlycwd\nCOMPOSE_PROJECT_NAME=cwdname\n";
    let sub = "A=sub\nB=sub\nCOMPOSE_PROJECT_NAME=subname\n";
    let files: &[(&str, &str)] = &[
        (".env", cwd),
        ("sub/.env", sub),
        ("sub/x.yaml", "MODEL"),
        ("compose.yaml", "MODEL"),
        ("o.env", "A=o\nB=${A}"),
    ];
    let run = |args, environment, expected: &str| Run { files, args, environment, cwd: "" }.gives(expected);
    run(&[], &[], "cwdname cwd - onlycwd compose.yaml");
    run(&["-f", "sub/x.yaml"], &[], "subname sub sub - sub/x.yaml");
    run(&[], &[("COMPOSE_FILE", "sub/x.yaml")], "cwdname cwd sub onlycwd sub/x.yaml");
    run(&["--project-directory", "sub", "-f", "sub/x.yaml"], &[], "subname sub sub - sub/x.yaml");
    run(&["--project-directory", ".", "-f", "sub/x.yaml"], &[], "cwdname cwd - onlycwd sub/x.yaml");
    run(&[], &[("A", "process")], "cwdname process - onlycwd compose.yaml");
    run(&["--env-file", "o.env"], &[], "w o o - compose.yaml");
    run(&["--env-file", "o.env", "--env-file", "sub/.env"], &[], "subname sub sub - compose.yaml");
    run(&["--env-file", "o.env"], &[("A", "process")], "w process process - compose.yaml");
    run(&[], &[("COMPOSE_ENV_FILES", "o.env,sub/.env")], "subname sub sub - compose.yaml");
    run(&[], &[("COMPOSE_DISABLE_ENV_FILE", "1")], "w - - - compose.yaml");
    run(&[], &[("COMPOSE_DISABLE_ENV_FILE", "off")], "cwdname cwd - onlycwd compose.yaml");
    let wrong = "`COMPOSE_DISABLE_ENV_FILE` must be `true` or `false`, not `x`";
    run(&[], &[("COMPOSE_DISABLE_ENV_FILE", "x")], wrong);
    run(&["--env-file", "nope.env"], &[], "`nope.env` could not be read: not found");
    // Standard input is in no directory: the first file that is in one counts.
    run(&["-f", "-"], &[], "cwdname cwd - onlycwd -");
    run(&["-f", "-", "-f", "sub/x.yaml"], &[], "subname sub sub - -,sub/x.yaml");
    run(&[], &[("COMPOSE_FILE", "-:sub/x.yaml")], "cwdname cwd sub onlycwd -,sub/x.yaml");
    run(&["-f", "."], &[], "`.` could not be read: not found");
    run(&["-f", "sub"], &[], "`sub` could not be read: not found");
}

#[test]
fn dot_env_that_says_that_there_is_none_is_about_the_command_only() {
    let files: &[(&str, &str)] = &[
        (".env", "A=cwd\nCOMPOSE_FILE=sub/x.yaml\nCOMPOSE_PROJECT_NAME=own\nCOMPOSE_DISABLE_ENV_FILE=1\n"),
        ("sub/.env", "B=sub\n"),
        ("sub/x.yaml", "MODEL"),
    ];
    Run { files, ..Run::default() }.gives("own - - - sub/x.yaml");
}

#[test]
fn compose_file_may_stand_in_dot_env() {
    let run = |env, environment, expected: &str| {
        let files = &[(".env", env), ("sub/x.yaml", "MODEL"), ("y.yaml", "services: {a: {environment: {B: y}}}")];
        Run { files, environment, ..Run::default() }.gives(expected);
    };
    run("COMPOSE_FILE=sub/x.yaml", &[], "sub - - - sub/x.yaml");
    run("COMPOSE_FILE=sub/x.yaml:y.yaml", &[], "sub - y - sub/x.yaml,y.yaml");
    run("COMPOSE_FILE=sub/x.yaml;y.yaml\nCOMPOSE_PATH_SEPARATOR=;", &[], "sub - y - sub/x.yaml,y.yaml");
    run("COMPOSE_FILE=nope.yaml", &[("COMPOSE_FILE", "sub/x.yaml")], "sub - - - sub/x.yaml");
}

#[test]
fn project_names() {
    let named = "name: From-${N-File}\nservices: {a: {image: x, environment: {A: $COMPOSE_PROJECT_NAME, B: , C: }}}\n";
    let run = |text, cwd, args, environment, expected: &str| {
        let path = format!("{cwd}/compose.yaml");
        Run { files: &[(path.as_str(), text)], cwd, args, environment }.gives(expected);
    };
    run("MODEL", "My Proj.Dir_1", &[], &[], "myprojdir_1 - - - My Proj.Dir_1/compose.yaml");
    run("MODEL", "_-a", &[], &[], "a - - - _-a/compose.yaml");
    run("MODEL", "é", &[], &[], "the project name must not be empty");
    run(named, "d", &[], &[], "from-file from-file - - d/compose.yaml");
    run(named, "d", &[], &[("N", "Env")], "from-env from-env - - d/compose.yaml");
    run(named, "d", &[], &[("COMPOSE_PROJECT_NAME", "e")], "e e - - d/compose.yaml");
    run(named, "d", &["-p", "p"], &[("COMPOSE_PROJECT_NAME", "e")], "p p - - d/compose.yaml");
    let rule =
        "it must consist of lower-case letters, digits, hyphens and underscores, and start with a letter or digit";
    run(named, "d", &["-p", "P"], &[], &format!("-p: `P` is not a valid project name: {rule}"));
}

#[test]
fn paths_start_at_the_first_file() {
    let files = &[
        ("sub/x.yaml", "services: {a: {image: x, volumes: ['./1:/1', '~/2:/2', '../3:/3']}}"),
        ("y.yaml", "services: {a: {volumes: ['./4:/4']}}"),
    ];
    let environment = &[("HOME", "/home/u")];
    let sources = |args| {
        let loaded = Run { files, args, environment, cwd: "" }.load().expect("loads");
        let volumes = loaded.model.services["a"].volumes.iter().filter_map(|volume| volume.source.clone());
        volumes.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(sources(&["-f", "sub/x.yaml", "-f", "y.yaml"]), "/w/sub/1 /home/u/2 /w/3 /w/sub/4");
    assert_eq!(
        sources(&["--project-directory", "d", "-f", "sub/x.yaml", "-f", "y.yaml"]),
        "/w/d/1 /home/u/2 /w/3 /w/d/4"
    );
}

#[test]
fn standard_input_starts_where_the_command_runs() {
    let stdin = b"services: {a: {image: x, volumes: ['./1:/1']}}".to_vec();
    let mut files = MemoryFiles { stdin, ..MemoryFiles::default() };
    let request = LoadRequest { cwd: "/w".into(), files: vec!["-".to_owned()], ..LoadRequest::default() };
    let loaded = load(&files, &request).expect("loads");
    assert_eq!(loaded.model.services["a"].volumes[0].source.as_deref(), Some("/w/1"));
    files.stdin = b"services: [".to_vec();
    let problems = load(&files, &request).expect_err("not YAML").to_string();
    assert!(problems.contains("--> <stdin>:1:12"), "{problems}");
}

#[test]
fn what_configs_and_secrets_hold_is_read() {
    use orch::load::FileKind::{Config, Secret};
    let model = "services: {a: {image: x, configs: [f, c], secrets: [e]}}
configs: {f: {file: ./f}, c: {content: 'a $$b'}, unused: {file: ./nope}}
secrets: {e: {environment: TOKEN}}";
    let files = &[("compose.yaml", model), ("f", "content\n")];
    let loaded = Run { files, environment: &[("TOKEN", "t")], ..Run::default() }.load().expect("loads");
    let held: Vec<String> = loaded
        .contents
        .iter()
        .map(|((kind, key), bytes)| format!("{kind:?} {key} {:?}", String::from_utf8_lossy(bytes)))
        .collect();
    assert_eq!(held, ["Config c \"a $b\"", "Config f \"content\\n\"", "Secret e \"t\""]);
    assert!(loaded.contents.keys().all(|(kind, _)| matches!(kind, Config | Secret)));
}

#[test]
fn places_of_values_are_known_afterwards() {
    let files = &[("compose.yaml", "services:\n  a:\n    image: x\n    ports:\n      - 80\n      - 81\n")];
    let loaded = Run { files, ..Run::default() }.load().expect("loads");
    let at = |path: &[&str]| loaded.place(path).map(|span| loaded.warnings.sources().locate(span).to_string());
    assert_eq!(at(&["services", "a", "ports", "1"]).as_deref(), Some("compose.yaml:6:9"));
    assert_eq!(at(&["services", "a", "ports", "7", "x"]).as_deref(), Some("compose.yaml:4:5"));
    assert_eq!(at(&["services", "b"]).as_deref(), Some("compose.yaml:1:1"));
    assert_eq!(at(&["nothing"]), None);
}

#[test]
fn views_list_what_config_lists() {
    use orch::load::views;
    let model =
        "services: {a: {image: 'x:${TAG:-1}', volumes: ['vv:/v'], hostname: '${H:?set it}${R:+r}'}, b: {image: y}}
volumes: {vv: }";
    let files = &[("compose.yaml", model)];
    let loaded = Run { files, environment: &[("H", "h")], ..Run::default() }.load().expect("loads");
    let model = &loaded.model;
    assert_eq!(views::services(model), ["a", "b"]);
    assert_eq!(views::volumes(model), ["vv"]);
    assert_eq!(views::networks(model), ["default"]);
    assert_eq!(views::images(model).into_iter().collect::<Vec<_>>(), ["x:1", "y"]);
    let variables: Vec<String> = loaded
        .variables
        .iter()
        .map(|v| format!("{} {} {:?} {:?}", v.name, v.required, v.default.as_deref(), v.alternate.as_deref()))
        .collect();
    assert_eq!(variables, ["H true None None", r#"R false None Some("r")"#, r#"TAG false Some("1") None"#]);
}

#[test]
fn seccomp_profiles_are_read_on_the_client_and_config_shows_their_path() {
    let services =
        "services: {a: {image: x, security_opt: ['seccomp=./p.json', 'seccomp:unconfined', 'label=disable']}}";
    let with = |profile: Option<&str>, contents: bool| {
        let mut project = Project::new([services]);
        project.files.files.extend(profile.map(|text| ("/project/p.json".into(), text.into())));
        project.request.options.contents = contents;
        project.load().map(|loaded| loaded.model.services["a"].security_opt.clone()).map_err(|error| error.to_string())
    };
    let json = "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}";
    let read = with(Some("{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }\n"), true);
    assert_eq!(read.expect("loads"), [json, "seccomp:unconfined", "label=disable"]);
    assert_eq!(with(None, false).expect("loads")[0], "seccomp=./p.json", "as `config` shows it");
    for (profile, message) in [
        (None, "the seccomp profile `./p.json` could not be read: not found"),
        (Some("{"), "the seccomp profile `./p.json` could not be read: it is no JSON"),
        (Some("[]"), "the seccomp profile `./p.json` could not be read: it is no JSON object"),
    ] {
        let problems = with(profile, true).expect_err("refused");
        assert!(problems.contains(message) && problems.contains("0.yaml:1:41"), "{problems}");
    }
}

/// A project in `/w` that includes one in `/w/sub`, which has an environment of its own.
const INCLUDING: &[(&str, &str)] = &[
    (
        "compose.yaml",
        "include: [sub/compose.yaml]\nservices: {a: {image: 'x:${A-}', environment: {A: '', B: '', C: ''}}}",
    ),
    (".env", "A=main"),
    ("sub/.env", "A=lost\nB=sub-${A}\nTOKEN=t"),
    (
        "sub/compose.yaml",
        "services: {b: {image: 'y:${B}', secrets: [s], configs: [c], environment: {B: , A: }}}
secrets: {s: {environment: TOKEN}}
configs: {c: {environment: TOKEN}}",
    ),
];

#[test]
fn included_projects_have_their_own_environment() {
    use orch::load::FileKind::{Config, Secret};
    let loaded = Run { files: INCLUDING, ..Run::default() }.load().expect("loads");
    let service = &loaded.model.services["b"];
    assert_eq!(service.image.as_deref(), Some("y:sub-main"));
    assert_eq!(
        (service.environment["A"].as_deref(), service.environment["B"].as_deref()),
        (Some("main"), Some("sub-main"))
    );
    assert_eq!(loaded.model.services["a"].image.as_deref(), Some("x:main"));
    assert!(!loaded.environment.contains_key("B"), "it stays with the included project");
    let content = |kind, key: &str| {
        let found = loaded.contents.iter().find(|((of, name), _)| *of == kind && AsRef::<str>::as_ref(name) == key);
        found.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned())
    };
    assert_eq!((content(Secret, "s"), content(Config, "c")), (Some("t".to_owned()), Some("t".to_owned())));
}

#[test]
fn variables_of_all_files_are_listed() {
    let files = &[
        (
            "compose.yaml",
            "include: [inc.yaml]\nservices: {a: {extends: {file: base.yaml, service: a}, command: ['$OWN']}}",
        ),
        ("inc.yaml", "services: {i: {image: 'x:${INCLUDED:-1}'}}"),
        ("base.yaml", "services: {a: {image: 'x:${BASE-2}'}, other: {image: 'x:${OTHER-}'}}"),
    ];
    let environment = &[("OWN", "o")];
    let loaded = Run { files, environment, ..Run::default() }.load().expect("loads");
    let names: Vec<&str> = loaded.variables.iter().map(|variable| variable.name.as_str()).collect();
    assert_eq!(names, ["BASE", "INCLUDED", "OWN"]);
}

/// Where a value is written: the file of a base, or of an included project.
#[test]
fn what_is_taken_over_keeps_its_place() {
    let files = &[
        (
            "compose.yaml",
            "include: [sub/i.yaml]\nservices:\n  a:\n    extends: {file: sub/b.yaml, service: a}\n    tty: true\n",
        ),
        ("sub/b.yaml", "services:\n  a:\n    image: x\n    volumes:\n      - ./v:/v\n"),
        ("sub/i.yaml", "services:\n  i:\n    image: x\n    volumes:\n      - ./v:/v\n"),
    ];
    let loaded = Run { files, ..Run::default() }.load().expect("loads");
    let place = |path: &[&str]| {
        let place = loaded.warnings.sources().locate(loaded.place(path).expect("it is there"));
        format!("{}:{}:{}", place.file, place.line, place.column)
    };
    assert_eq!(place(&["services", "a"]), "compose.yaml:3:3");
    assert_eq!(place(&["services", "a", "tty"]), "compose.yaml:5:5");
    assert_eq!(place(&["services", "a", "image"]), "sub/b.yaml:3:5");
    assert_eq!(place(&["services", "a", "volumes", "0"]), "sub/b.yaml:5:9");
    assert_eq!(place(&["services", "i", "volumes", "0"]), "sub/i.yaml:5:9");
    let volumes = ["a", "i"].map(|name| loaded.model.services[name].volumes[0].source.clone().unwrap_or_default());
    assert_eq!(volumes, ["/w/sub/v", "/w/sub/v"]);
}

#[test]
fn what_is_taken_over_is_printed_relative_where_paths_stay_as_they_are() {
    let files = &[
        (
            "compose.yaml",
            "include: [sub/i.yaml]\nservices: {a: {extends: {file: ../o/b.yaml, service: a}, volumes: ['./own:/own']}}",
        ),
        ("../o/b.yaml", "services: {a: {image: x, volumes: ['./v:/v', '../w:/w']}}"),
        ("sub/i.yaml", "services: {i: {image: x, volumes: ['./v:/v', '../up:/up']}}"),
    ];
    let files: Vec<(String, &str)> =
        files.iter().map(|(path, text)| (format!("/w/{path}").replace("w/../", ""), *text)).collect();
    let mut request = LoadRequest { cwd: "/w".into(), ..LoadRequest::default() };
    request.options.resolve_paths = false;
    let loaded = load(&MemoryFiles::new(files), &request).unwrap_or_else(|problems| panic!("{problems}"));
    let sources = |name: &str| {
        let volumes = loaded.model.services[name].volumes.iter();
        volumes.map(|volume| volume.source.clone().unwrap_or_default()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(sources("a"), "../o/v ../w ./own");
    assert_eq!(sources("i"), "sub/v up");
}
