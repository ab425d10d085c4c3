//! Every flag of `config`, through the binary and through Docker Compose, in the same directory: both print the same, or
//! both refuse, but for [`FLAGGED`].
//!
//! Each project is run with some of the flags; `ORCH_SPEC_FLAGS=all` runs all with all.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::hashes::Written;
use crate::parallel;
use crate::project::{ENVIRONMENT, Project};
use crate::reference::{
    Difference, OWN, OWN_MISTAKES, Verdict, comparable, extensions, fold, lines, mend, not_covered, reference,
};

/// What flags of `config` do otherwise. `case` is a flag, and behind a blank part of a file's name where it is about that
/// alone; it is empty where nothing of the kind is compared.
#[rustfmt::skip]
pub(crate) const FLAGGED: &[Difference] = &[
    Difference { case: "--images provider", element: "`config --images`",
        theirs: "prints the name of an image also for a service with a provider", ours: "leaves it out: there is no image" },
    Difference { case: "--variables photos", element: "`config --variables`, variables in `extends` and `include`",
        theirs: "takes them as they are written, and does not find the file or the service", ours: "replaces them" },
    Difference { case: "--variables name-of-the-last-file", element: "`config --variables`, variables in `name`",
        theirs: "leaves them out", ours: "lists them" },
    Difference { case: "", element: "`config --variables`, a variable that is used in several ways",
        theirs: "prints one of its defaults, and whether one use requires it, another one each time",
        ours: "prints the last default, and whether any use requires it" },
    Difference { case: "", element: "`config --services SERVICE`, and `--networks`, `--volumes`, `--models`, `--variables`",
        theirs: "looks past the services named", ours: "prints what those need; refuses one that is not there" },
    Difference { case: "--hash extensions-everywhere", element: "`config --hash`, labels and the like with `x-` names",
        theirs: "hashes them as one text, `#extensions`", ours: "hashes them as labels, so that such containers are made anew" },
    Difference { case: "--no-normalize name", element: "`config --no-normalize`, a name that is none (`My App`)",
        theirs: "prints it as it is", ours: "prints the name that the project has" },
    Difference { case: "--no-normalize selected", element: "`config --no-normalize SERVICE`",
        theirs: "leaves out what the service needs by its links, namespaces and mounts", ours: "brings it along" },
    Difference { case: "", element: "`config --services` and other lists, `config --environment`, `config --hash`",
        theirs: "take two services with the same container name", ours: "refuse them, as `config` does" },
    Difference { case: "", element: "`config --no-interpolate`",
        theirs: "looks at little of what is wrong where there is no variable, but at what excludes one another",
        ours: "looks at all that is long without variables, and at nothing that needs several values" },
    Difference { case: "--no-interpolate optional", element: "`config --no-interpolate`, a dependency that is not required",
        theirs: "does not read what it prints where the service is switched off", ours: "reads it" },
    Difference { case: "", element: "`config --no-interpolate --services`, and `--volumes`, `--networks`",
        theirs: "prints services that profiles switch off; volumes and networks that are used",
        ours: "prints services that are on; all volumes and networks" },
    Difference { case: "", element: "`config --no-interpolate --images`, and other lists that need no variables",
        theirs: "refuses short forms with a variable", ours: "takes them" },
    Difference { case: "", element: "`config -q --services` and other lists",
        theirs: "prints the list", ours: "prints nothing" },
    Difference { case: "", element: "`config -o FILE --services` and other lists",
        theirs: "prints the list, and writes nothing", ours: "writes it" },
    Difference { case: "", element: "`config --services --volumes`, and other lists together",
        theirs: "prints one of them", ours: "refuses them" },
    Difference { case: "", element: "`config --resolve-image-digests`, `config --lock-image-digests`",
        theirs: "asks the registry of each image", ours: "asks the engine which digests the images that it has are of" },
    Difference { case: "", element: "`config --lock-image-digests --format json`",
        theirs: "prints an empty `name`, which it does not read", ours: "prints images alone" },
];

/// What is printed.
#[derive(Clone, Copy)]
enum Form {
    /// Nothing.
    Nothing,
    /// A name, or a name and a value, a line: in any order.
    Lines,
    /// Variables in columns.
    Columns,
    /// Variables.
    Variables,
    /// The project.
    Json,
    /// The project.
    Yaml,
    /// The project with its variables: what both programs make of that must be the same.
    AsWritten,
}

const FLAGS: &[(&[&str], Form)] = &[
    (&["-q"], Form::Nothing),
    (&["--services"], Form::Lines),
    (&["--volumes"], Form::Lines),
    (&["--networks"], Form::Lines),
    (&["--images"], Form::Lines),
    (&["--profiles"], Form::Lines),
    (&["--models"], Form::Lines),
    (&["--environment"], Form::Lines),
    (&["--hash", "*"], Form::Lines),
    (&["--variables"], Form::Columns),
    (&["--variables", "--format", "json"], Form::Variables),
    (&[], Form::Yaml),
    (&["--format", "yaml", "--no-normalize"], Form::Yaml),
    (&["--no-path-resolution"], Form::Yaml),
    (&["--format", "json", "--no-normalize"], Form::Json),
    (&["--format", "json", "--no-path-resolution"], Form::Json),
    (&["--format", "json", "--no-consistency"], Form::Json),
    (&["--no-consistency", "--no-normalize", "--no-path-resolution"], Form::Yaml),
    (&["--format", "json", "--no-env-resolution"], Form::Json),
    (&["--no-interpolate"], Form::AsWritten),
    (&["--no-interpolate", "--format", "json", "--no-normalize"], Form::AsWritten),
];

/// A project in a directory, where both programs are run.
struct Place<'a> {
    program: &'a Path,
    name: &'a str,
    written: Written,
    services: Vec<String>,
}

impl<'a> Place<'a> {
    fn new(program: &'a Path, name: &'a str, project: &Project) -> Self {
        Self { program, name, written: Written::new(project), services: project.request.services.clone() }
    }

    #[expect(clippy::disallowed_methods, reason = "programs to be compared")]
    fn run(&self, program: &Path, files: &[String], flags: &[&str]) -> Output {
        let mut run = Command::new(program);
        run.current_dir(self.written.path()).env_clear().envs(ENVIRONMENT).env("HOME", "/home/u");
        // Neither is to find an engine.
        run.env("DOCKER_HOST", format!("unix://{}/no-engine", self.written.path().display()));
        run.args(self.written.arguments(files)).arg("config").args(flags).args(&self.services);
        run.output().expect("it can be run")
    }

    /// What both do; files are those of the project.
    fn both(&self, flags: &[&str]) -> [Output; 2] {
        let files = self.written.files();
        [Path::new(env!("CARGO_BIN_EXE_orch")), self.program].map(|program| self.run(program, files, flags))
    }

    fn verdict(&self, flags: &[&str], form: Form) -> Verdict {
        let [ours, theirs] = self.both(flags);
        let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
        match (ours.status.success(), theirs.status.success()) {
            (true, true) => {}
            (false, false) => return Verdict::BothRefuse,
            (true, false) => return Verdict::OnlyOurs(said(&theirs)),
            (false, true) => {
                return Verdict::OnlyTheirs(said(&ours).split("error: ").skip(1).map(str::to_owned).collect());
            }
        }
        let [ours, theirs] = [ours, theirs].map(|output| String::from_utf8(output.stdout).expect("text"));
        match form {
            Form::Nothing => compared(&theirs.into(), &ours.into()),
            Form::Lines => compared(&lined(&theirs), &lined(&ours)),
            Form::Columns => compared(&self.columns(&theirs), &self.columns(&ours)),
            Form::Variables => compared(&self.variables(&theirs), &self.variables(&ours)),
            Form::Json | Form::Yaml => {
                let read = |text: &str| -> Value { serde_yaml::from_str(text).expect("YAML, as all JSON is") };
                let (mut ours, mut theirs) = (read(&ours), read(&theirs));
                let printed = theirs.clone();
                let yaml = || match form {
                    Form::Yaml => printed.clone(),
                    _ => read(&String::from_utf8_lossy(&self.run(self.program, self.written.files(), &[]).stdout)),
                };
                mend(&mut ours, &mut theirs, &yaml);
                fold(&mut ours, &theirs);
                // They are compared in `reference.rs`.
                extensions(&mut ours);
                extensions(&mut theirs);
                compared(&theirs, &ours)
            }
            Form::AsWritten => self.again(&[&ours, &theirs]),
        }
    }

    /// Compares what Docker Compose makes of what was printed, or of the files, which each has its own way to tell.
    fn again(&self, [ours, theirs]: &[&String; 2]) -> Verdict {
        let json = |files: &[String]| {
            let output = self.run(self.program, files, &["--format", "json"]);
            if output.status.success() {
                Ok(serde_json::from_slice::<Value>(&output.stdout).expect("JSON"))
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        };
        let printed = |text: &str| {
            std::fs::write(self.written.path().join("printed.yaml"), text).expect("written");
            json(&["printed.yaml".to_owned()])
        };
        let Ok(wanted) = json(self.written.files()) else { return Verdict::BothRefuse };
        let ours = match printed(ours) {
            Ok(ours) if ours == wanted => return Verdict::Same,
            Ok(ours) => ours,
            Err(message) => return Verdict::OnlyOurs(message),
        };
        // What is included has variables of its own, which are lost in both.
        match printed(theirs) {
            Ok(theirs) => compared(&theirs, &ours),
            Err(_) => compared(&wanted, &ours),
        }
    }

    /// Names that are used more than once in the project's files.
    fn is_used_often(&self, variable: &str) -> bool {
        let uses = |file: &String| {
            let text = std::fs::read_to_string(self.written.path().join(file)).unwrap_or_default();
            let names = text.split('$').skip(1).map(|rest| rest.trim_start_matches('{'));
            names.filter(|rest| rest.strip_prefix(variable).is_some_and(|rest| !rest.starts_with(is_of_name))).count()
        };
        self.written.files().iter().map(uses).sum::<usize>() != 1
    }

    fn columns(&self, text: &str) -> Value {
        let rows = text.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words.first().copied().unwrap_or_default();
            if self.is_used_often(name) && name != "NAME" { name.to_owned() } else { words.join(" ") }
        });
        rows.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn variables(&self, text: &str) -> Value {
        let mut all: Value = serde_json::from_str(text).expect("JSON");
        for (name, variable) in all.as_object_mut().into_iter().flatten() {
            if self.is_used_often(name) {
                *variable = Value::Null;
            }
        }
        all
    }
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn lined(text: &str) -> Value {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines.into()
}

fn compared(theirs: &Value, ours: &Value) -> Verdict {
    let [mut theirs, mut ours] = [theirs.clone(), ours.clone()];
    theirs.sort_all_objects();
    ours.sort_all_objects();
    if theirs == ours { Verdict::Same } else { Verdict::Differ(lines(&theirs, &ours)) }
}

/// Whether a file has keys of orch's own, which Docker Compose does not look into.
fn is_own(name: &str) -> bool {
    name.contains(OWN) || OWN_MISTAKES.iter().any(|part| name.contains(part))
}

/// Whether a run is about something that both do in their own ways.
fn is_otherwise(name: &str, project: &Project, flags: &[&str]) -> bool {
    let listed = FLAGGED.iter().filter(|flagged| !flagged.case.is_empty()).any(|flagged| {
        let (flag, part) = flagged.case.split_once(' ').unwrap_or((flagged.case, ""));
        flags.contains(&flag) && name.contains(part)
    });
    let looks_past = ["--services", "--networks", "--volumes", "--models", "--variables", "--no-interpolate"];
    // What `--no-env-resolution` does with files of variables is among the differences of files.
    let has = |part: &str| project.files.files.values().any(|text| String::from_utf8_lossy(text).contains(part));
    let reads = flags.contains(&"--no-env-resolution") && has("env_file");
    // What is included has variables of its own, which are lost in what both print.
    let has_lost = flags.contains(&"--no-interpolate") && has("include:");
    listed
        || reads
        || has_lost
        || !project.request.services.is_empty() && flags.iter().any(|flag| looks_past.contains(flag))
        || name.contains("container-name") && !flags.is_empty()
        // What is refused as a whole is looked at less closely with these, by both in their own ways.
        || flags.iter().any(|flag| ["--no-interpolate", "--variables"].contains(flag)) && project.load().is_err()
}

#[test]
fn docker_compose_prints_the_same_with_every_flag_of_config() {
    let Some(program) = reference() else { return not_covered() };
    let is_whole = std::env::var("ORCH_SPEC_FLAGS").is_ok_and(|which| which == "all");
    let all: Vec<_> = comparable().into_iter().filter(|(name, _)| !is_own(name)).collect();
    let chosen = all.iter().enumerate().flat_map(|(index, (name, project))| {
        let is_large = name.contains("whole-files");
        FLAGS.iter().enumerate().filter_map(move |(at, (flags, form))| {
            let every = if is_large { 6 } else { 4 * FLAGS.len() };
            let is_chosen = is_whole || (index + at) % every == 0;
            (is_chosen && !is_otherwise(name, project, flags)).then_some((name, project, *flags, *form))
        })
    });
    let chosen: Vec<_> = chosen.collect();
    let (same, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures = parallel::each(&chosen, |(name, project, flags, form)| {
        let place = Place::new(&program, name, project);
        let verdict = place.verdict(flags, *form);
        same.fetch_add(usize::from(matches!(verdict, Verdict::Same)), Ordering::Relaxed);
        refused.fetch_add(usize::from(matches!(verdict, Verdict::BothRefuse)), Ordering::Relaxed);
        verdict.unknown().map(|difference| format!("{} {}\n{difference}", place.name, flags.join(" ")))
    });
    let failures: Vec<_> = failures.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{} of {} differ\n{}", failures.len(), chosen.len(), failures.join("\n"));
    let (same, refused) = (same.into_inner(), refused.into_inner());
    assert!(same > 200 && refused > 20, "the same {same} times, refused by both {refused} times");
}

/// A project of one text.
fn of(text: &str) -> Project {
    Project::new([text.to_owned()])
}

#[test]
fn a_file_is_written_and_nothing_printed() {
    let Some(program) = reference() else { return not_covered() };
    let project = of("services: {a: {image: \"x:${N}\", command: [b, c]}}\n");
    let place = Place::new(&program, "written", &project);
    for flags in [&[][..], &["--format", "json"], &["--no-interpolate"]] {
        let [printed, _] = place.both(flags);
        for output in place.both(&[flags, &["-o", "out"]].concat()) {
            assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        }
        // Docker Compose wrote it last.
        let theirs = std::fs::read(place.written.path().join("out")).expect("it wrote it");
        let output =
            place.run(Path::new(env!("CARGO_BIN_EXE_orch")), place.written.files(), &[flags, &["-o", "out"]].concat());
        assert!(output.status.success(), "{output:?}");
        let ours = std::fs::read(place.written.path().join("out")).expect("it wrote it");
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&printed.stdout));
        let read = |text: &[u8]| -> Value { serde_yaml::from_slice(text).expect("YAML, as all JSON is") };
        assert_eq!(read(&ours), read(&theirs), "{flags:?}");
    }
}

#[test]
fn digests_that_are_there_need_no_engine_and_others_are_refused_without_one() {
    let Some(program) = reference() else { return not_covered() };
    let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let text = format!(
        "services: {{a: {{image: \"x@{digest}\"}}, b: {{image: \"r.example.com:5000/y/z:1@{digest}\"}}, c: {{build: .}}}}\n"
    );
    let project = of(&text);
    let place = Place::new(&program, "pinned", &project);
    for (flags, form) in [
        (&["--resolve-image-digests"][..], Form::Yaml),
        (&["--lock-image-digests"], Form::Yaml),
        (&["--resolve-image-digests", "--format", "json"], Form::Json),
    ] {
        let verdict = place.verdict(flags, form);
        assert!(matches!(verdict, Verdict::Same), "{flags:?} {:?}", verdict.unknown());
    }
    let project = of("services: {a: {image: \"x:1\"}}\n");
    let place = Place::new(&program, "not pinned", &project);
    for flag in ["--resolve-image-digests", "--lock-image-digests"] {
        assert!(matches!(place.verdict(&[flag], Form::Yaml), Verdict::BothRefuse), "{flag}");
    }
}

#[test]
fn both_refuse_a_form_and_a_service_that_they_do_not_know() {
    let Some(program) = reference() else { return not_covered() };
    let project = of("services: {a: {image: x}}\n");
    let place = Place::new(&program, "unknown", &project);
    for flags in [&["--format", "xml"][..], &["--hash", "b"], &["b"], &["--images", "b"], &["--no-such-flag"]] {
        assert!(matches!(place.verdict(flags, Form::Yaml), Verdict::BothRefuse), "{flags:?}");
    }
}
