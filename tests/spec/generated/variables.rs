//! Files of variables that nobody wrote, through orch and through Docker Compose: those of `env_file` in both formats, of
//! `label_file`, of `--env-file` and the project's own `.env`.
//!
//! `ORCH_SPEC_VARIABLES=N` says how many projects (default 150), `ORCH_SPEC_SEED=N` where to begin.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::grammar::{Dice, Grammar};
use super::number;
use crate::parallel;
use crate::project::Project;
use crate::reference::{Verdict, both, not_covered, reference};

/// What stands in the grammar for characters that cannot stand there.
const STAND_INS: [(char, &str); 6] = [('⏎', "\n"), ('␍', "\r"), ('⇥', "\t"), ('␠', " "), ('␣', "\u{feff}"), ('∅', "")];

/// Names of the files.
const FILES: [&str; 7] = ["a.env", "b.env", "raw.env", "labels", ".env", "c.env", "d.env"];

/// Returns the text of a file.
fn file(grammar: &Grammar, dice: &mut Dice) -> String {
    let text = grammar.text("variable-file", dice, 0);
    let mut text = STAND_INS.iter().fold(text, |text, (from, to)| text.replace(*from, to));
    // What Docker Compose makes of a name that ends the file, be it behind quotes, is among `MENDED`.
    let last = text.rsplit('\n').next().unwrap_or_default();
    if !last.trim().is_empty() && (!last.contains(['=', ':']) || last.contains(['"', '\''])) {
        text.push('\n');
    }
    text
}

/// Which files a project reads, and what they say.
#[derive(Clone)]
struct Case {
    compose: String,
    env_files: Vec<String>,
    files: Vec<(&'static str, String)>,
}

impl Case {
    fn new(grammar: &Grammar, seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let mut compose = "services:\n  s:\n    image: i\n".to_owned();
        let (mut read, mut lines) = (Vec::new(), String::new());
        let entries = [
            ("a.env", ""),
            ("b.env", ", required: false"),
            ("raw.env", ", format: raw"),
            ("missing.env", ", required: false"),
        ];
        for (name, rest) in entries {
            if dice.once_in(2) {
                writeln!(lines, "      - {{path: {name}{rest}}}").expect("text takes everything");
                read.push(name);
            }
        }
        // One more time: the file that is read last wins.
        if dice.once_in(6) && read.contains(&"a.env") {
            lines.push_str("      - a.env\n");
        }
        if !lines.is_empty() {
            write!(compose, "    env_file:\n{lines}").expect("text takes everything");
        }
        if dice.once_in(2) {
            let own = ["{A: own, B: }", "[A=${A:-own}, C]", "{A: \"$P\", UNSET: }", "{P: p$$A}"];
            writeln!(compose, "    environment: {}", own[dice.below(own.len())]).expect("text takes everything");
        }
        if dice.once_in(4) {
            compose.push_str("    label_file: [labels]\n");
            read.push("labels");
        }
        let mut env_files = Vec::new();
        if dice.once_in(3) {
            read.push("c.env");
            env_files.push("c.env".to_owned());
            if dice.once_in(2) {
                read.push("d.env");
                env_files.push("d.env".to_owned());
            }
        }
        if dice.once_in(2) {
            read.push(".env");
            compose.push_str("    labels: {of-a: \"${A}\", of-b: \"${B-none}\", of-p: \"${P}\"}\n");
        }
        let files = FILES.into_iter().filter(|name| read.contains(name)).map(|name| (name, file(grammar, dice)));
        let mut files: Vec<_> = files.collect();
        for (name, text) in &mut files {
            if *name == ".env" && dice.once_in(2) {
                text.insert_str(0, "P=of the project\n");
            }
        }
        Self { compose, env_files, files }
    }

    fn project(&self) -> Project {
        let mut project = Project::new([self.compose.clone()]);
        project.request.env_files.clone_from(&self.env_files);
        for (name, text) in &self.files {
            project.files.files.insert(format!("/project/{name}").into(), text.clone().into_bytes());
        }
        project
    }

    fn verdict(&self, program: &Path) -> Verdict {
        both(program, "variables", &self.project(), &[])
    }

    /// Returns a case with fewer lines that differs in the same way, as far as words tell.
    fn shrunk(self, program: &Path, kind: &str) -> Self {
        let start = |text: &str| text.chars().take(24).collect::<String>();
        let is_same = |case: &Self| case.verdict(program).unknown().is_some_and(|other| start(&other) == start(kind));
        let mut case = self;
        for index in 0..case.files.len() {
            let mut at = 0;
            loop {
                let mut lines: Vec<&str> = case.files[index].1.split_inclusive('\n').collect();
                if at >= lines.len() {
                    break;
                }
                lines.remove(at);
                let mut fewer = case.clone();
                fewer.files[index].1 = lines.concat();
                if is_same(&fewer) {
                    case = fewer;
                } else {
                    at += 1;
                }
            }
        }
        case
    }
}

#[test]
fn docker_compose_makes_the_same_of_files_of_variables() {
    let Some(program) = reference() else { return not_covered() };
    let (first, count) = (number("ORCH_SPEC_SEED", 1), number("ORCH_SPEC_VARIABLES", 150));
    let grammar = Grammar::new();
    let (same, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let shrunk = AtomicUsize::new(0);
    let failures = parallel::each(first..first + count, |seed| {
        let case = Case::new(&grammar, seed);
        let verdict = case.verdict(&program);
        same.fetch_add(u64::from(matches!(verdict, Verdict::Same)), Ordering::Relaxed);
        refused.fetch_add(u64::from(matches!(verdict, Verdict::BothRefuse)), Ordering::Relaxed);
        let difference = verdict.unknown()?;
        let is_shrunk = shrunk.fetch_add(1, Ordering::Relaxed) < super::SHRUNK;
        let case = if is_shrunk { case.shrunk(&program, &difference) } else { case };
        let difference = case.verdict(&program).unknown().unwrap_or(difference);
        let Case { compose, env_files, files } = case;
        Some(format!("seed {seed}: {env_files:?}\n{compose}{files:?}\n{difference}"))
    });
    let said: Vec<_> = failures.into_iter().flatten().collect();
    assert!(said.is_empty(), "{} of {count} differ\n{}", said.len(), said.join("\n\n"));
    let (same, refused) = (same.into_inner(), refused.into_inner());
    assert!(same * 3 > count && refused * 40 > count, "of {count} projects both accept {same} and refuse {refused}");
}
