//! The kinds of input, each made of a number.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use orch::load::{OwnKeys, Selection};
use serde_yaml::Value;

use crate::generated::grammar::{Dice, Grammar};
use crate::project::Project;
use crate::{cases, files, table};

/// What is loaded.
pub(super) enum Input {
    /// A project.
    Project(Box<Project>),
    /// The file of a pattern.
    Pattern(String),
    /// A hosts file.
    Hosts(String),
}

impl Input {
    /// Returns its files, as far as somebody would read them.
    pub(super) fn shown(&self) -> String {
        let cut = |text: &str| text.chars().take(1_500).collect::<String>();
        match self {
            Self::Project(project) => {
                let mut shown = format!("{:?}\n", project.request.options);
                for (path, text) in &project.files.files {
                    _ = writeln!(shown, "== {}\n{}", path.display(), cut(&String::from_utf8_lossy(text)));
                }
                shown
            }
            Self::Pattern(text) | Self::Hosts(text) => cut(text),
        }
    }
}

/// What inputs are made of.
pub(super) struct Corpus {
    grammar: Grammar,
    texts: Vec<Vec<u8>>,
    values: Vec<Value>,
    words: Vec<String>,
    patterns: Vec<String>,
}

type Make = fn(&Corpus, &mut Dice) -> Input;

/// The kinds, with how many of a hundred inputs are of each.
const KINDS: &[(usize, &str, Make)] = &[
    (30, "real files, bytes changed", |corpus, dice| {
        let count = if dice.once_in(4) { 2 + dice.below(2) } else { 1 };
        let texts = (0..count).map(|_| corpus.changed(dice)).collect();
        corpus.project(texts, dice)
    }),
    (20, "real files, parts exchanged", |corpus, dice| {
        let count = if dice.once_in(4) { 2 } else { 1 };
        let texts = (0..count).map(|_| corpus.spliced(dice)).collect();
        corpus.project(texts, dice)
    }),
    (20, "files of the grammar", |corpus, dice| corpus.grown("document", "override", dice)),
    (13, "files of the grammar with keys of orch's own", |corpus, dice| {
        corpus.grown("own-document", "own-override", dice)
    }),
    (3, "patterns", |corpus, dice| Input::Pattern(corpus.pattern(dice))),
    (2, "hosts files", |corpus, dice| {
        let junk = [0, 8][dice.below(2)];
        let text = corpus.grammar.text("own-hosts", dice, junk).into_bytes();
        let text = if dice.once_in(2) { corpus.change(text, dice) } else { text };
        Input::Hosts(String::from_utf8_lossy(&text).into_owned())
    }),
    (6, "files of variables", |corpus, dice| corpus.variables(dice)),
    (5, "variables in values", |corpus, dice| {
        let values: Vec<String> = (0..=dice.below(4)).map(|_| interpolated(dice)).collect();
        corpus.project(vec![with_values(&values).into_bytes()], dice)
    }),
    (1, "input made to hurt", |corpus, dice| corpus.project(vec![hurtful(dice)], dice)),
];

/// Tokens that mean something in some place.
const TOKENS: &[&str] = &[
    "!reset ",
    "!override ",
    "!!str ",
    "!!binary ",
    "&a ",
    "*a",
    "<<: ",
    "<<: [*a, *a]",
    "${",
    "${A:-",
    "${A?",
    "${SET}",
    "$$",
    "}",
    "{",
    "[",
    "]",
    "{}",
    "[]",
    ": ",
    ":",
    "- ",
    "\n",
    "\n  ",
    "'",
    "\"",
    "\t",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "#",
    " #",
    "\u{feff}",
    "é",
    "\0",
    "~",
    "-1",
    "0x",
    "1e999",
    ".inf",
    ".nan",
    "? ",
    ", ",
    "null",
    "2001-01-01",
    "%TAG",
    "%YAML 1.2\n",
    "日本",
    "\u{202e}",
    "\u{200d}",
    "\u{85}",
    "\u{2028}",
    "\r\n",
    "\r",
    "\\",
    "\\u0000",
    "9223372036854775808",
    "1_000",
    "service:web",
    "container:x",
    "/../..",
    "..",
    "~/",
    "x-",
    "65536",
    "0",
    "1-65535",
    "127.0.0.1:",
    "[::1]:",
    "/udp",
    "extends: web",
    "include: [x]",
    "x-patterns: [redis-ambassador]",
];

/// Files of the project, as far as they are compose files, patterns or files of variables.
fn real_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|one| one.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            real_files(&path, found);
        } else if path.extension().is_some_and(|kind| matches!(kind.to_string_lossy().as_ref(), "yaml" | "yml" | "env"))
        {
            found.push(path);
        }
    }
}

impl Corpus {
    pub(super) fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut paths = Vec::new();
        for folder in ["tests", "compose-examples", "patterns"] {
            real_files(&root.join(folder), &mut paths);
        }
        let read = |path: &PathBuf| std::fs::read(path).expect("a file of the project");
        let mut texts: Vec<Vec<u8>> = paths.iter().map(read).collect();
        for table in files(".table") {
            let rows = table::rows(&table);
            let project = |row| table::project(&table, row).files.files[Path::new("/project/0.yaml")].clone();
            texts.extend(rows.iter().map(project));
        }
        assert!(texts.len() > cases().len() + 300, "only {} texts", texts.len());
        let values: Vec<Value> = texts
            .iter()
            .filter_map(|text| serde_yaml::from_slice::<Value>(text).ok())
            .filter(serde_yaml::Value::is_mapping)
            .collect();
        let mut words: Vec<String> = texts
            .iter()
            .flat_map(|text| {
                let text = String::from_utf8_lossy(text).into_owned();
                text.split(|c: char| c.is_whitespace() || "{}[],".contains(c)).map(str::to_owned).collect::<Vec<_>>()
            })
            .filter(|word| !word.is_empty() && word.len() < 60)
            .collect();
        words.sort();
        words.dedup();
        let mut folder = Vec::new();
        real_files(&root.join("patterns"), &mut folder);
        let patterns = folder.iter().map(|path| String::from_utf8_lossy(&read(path)).into_owned()).collect();
        Self { grammar: Grammar::new(), texts, values, words, patterns }
    }

    /// Returns the input with a number, and what kind it is of.
    pub(super) fn input(&self, seed: u64) -> (&'static str, Input) {
        let dice = &mut Dice::new(seed);
        let mut at = dice.below(100);
        for (share, kind, make) in KINDS {
            if at < *share {
                return (kind, make(self, dice));
            }
            at -= share;
        }
        panic!("the shares are not a hundred")
    }

    /// A project of these files, loaded in some way.
    fn project(&self, texts: Vec<Vec<u8>>, dice: &mut Dice) -> Input {
        let mut project = Project::new(texts);
        let options = &mut project.request.options;
        if dice.once_in(2) {
            options.interpolate = !dice.once_in(6);
            options.normalise = !dice.once_in(4);
            options.resolve_paths = !dice.once_in(4);
            options.consistency = !dice.once_in(4);
            options.resolve_environment = !dice.once_in(4);
            options.all_resources = dice.once_in(2);
            options.applied = dice.once_in(3);
            options.contents = dice.once_in(2);
            options.own_keys = [OwnKeys::Used, OwnKeys::AsWritten, OwnKeys::Expanded][dice.below(3)];
            options.selection = [Selection::All, Selection::WithDependencies, Selection::Named][dice.below(3)];
            if dice.once_in(3) {
                let name = ["a", "b", "web", "db"][dice.below(4)];
                project.request.services.push(name.to_owned());
            }
        } else {
            // Nothing but the file decides, so that more is accepted.
            options.contents = false;
        }
        if !dice.once_in(3) {
            project.request.profiles = vec!["*".to_owned()];
        }
        let shared = "services: {shared: {image: s, labels: [s=1], environment: {S: ~, T: 2}, volumes: [./x:/x]}}\n";
        let base = "services: {base: {image: b, build: ., env_file: e.env, volumes: [\"../x:/y\", \"./z:/z\"]}}\n";
        for (path, text) in [("shared.yaml", shared), ("sub/base.yaml", base), ("sub/e.env", "BASE=1\n")] {
            project.files.files.insert(format!("/project/{path}").into(), text.into());
        }
        project.files.files.insert("/project/patterns/mine.yaml".into(), self.pattern(dice).into_bytes());
        if dice.once_in(8) {
            project.files.files.insert("/project/shared.yaml".into(), self.changed(dice));
        }
        Input::Project(Box::new(project))
    }

    fn text(&self, dice: &mut Dice) -> Vec<u8> {
        self.texts[dice.below(self.texts.len())].clone()
    }

    /// A real file with some changes.
    fn changed(&self, dice: &mut Dice) -> Vec<u8> {
        let text = self.text(dice);
        if dice.once_in(10) { text } else { self.change(text, dice) }
    }

    fn change(&self, mut text: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
        let changes = if dice.once_in(2) { 1 } else { 1 + dice.below(5) };
        for _ in 0..changes {
            self.change_once(&mut text, dice);
        }
        text
    }

    fn change_once(&self, text: &mut Vec<u8>, dice: &mut Dice) {
        let at = dice.below(text.len() + 1);
        let end = (at + 1 + dice.below(40)).min(text.len());
        match dice.below(10) {
            0 | 1 => {
                let token = TOKENS[dice.below(TOKENS.len())];
                text.splice(at..at, token.bytes());
            }
            2 => {
                let word = &self.words[dice.below(self.words.len())];
                text.splice(word_at(text, at), word.bytes());
            }
            3 => {
                text.splice(word_at(text, at), TOKENS[dice.below(TOKENS.len())].bytes());
            }
            4 => drop(text.drain(at..end)),
            5 => {
                let piece = text[at..end].to_vec();
                let to = dice.below(text.len() + 1);
                text.splice(to..to, piece);
            }
            6 => {
                let bytes: Vec<u8> =
                    (0..=dice.below(3)).map(|_| u8::try_from(dice.below(256)).expect("a byte")).collect();
                text.splice(at..at, bytes);
            }
            7 => {
                // A line twice, perhaps deeper.
                let line = line_at(text, at);
                let mut copy = b" ".repeat(2 * dice.below(2));
                copy.extend(&text[line.clone()]);
                text.splice(line.end..line.end, copy);
            }
            8 => {
                let other = self.text(dice);
                let line = line_at(&other, dice.below(other.len() + 1));
                let to = line_at(text, at).end;
                text.splice(to..to, other[line].to_vec());
            }
            _ => {
                if let Some(byte) = text.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
        }
    }

    /// A real file with parts of others in place of its own.
    fn spliced(&self, dice: &mut Dice) -> Vec<u8> {
        let mut value = self.values[dice.below(self.values.len())].clone();
        let changes = if dice.once_in(2) { 1 } else { 1 + dice.below(5) };
        for _ in 0..changes {
            let mut donor = self.values[dice.below(self.values.len())].clone();
            if !dice.once_in(3) && give(&mut value, &donor, dice) {
                continue;
            }
            let nth = dice.below(size(&donor));
            let Some(part) = nth_part(&mut donor, &mut { nth }).cloned() else { continue };
            let nth = dice.below(size(&value));
            if let Some(place) = nth_part(&mut value, &mut { nth }) {
                put(place, part, dice);
            }
        }
        serde_yaml::to_string(&value).unwrap_or_default().into_bytes()
    }

    /// Files of the grammar, a part of them broken.
    fn grown(&self, first: &str, further: &str, dice: &mut Dice) -> Input {
        let junk = [0, 0, 0, 100, 10][dice.below(5)];
        let mut texts = vec![self.grammar.text(first, dice, junk)];
        while texts.len() < 4 && dice.once_in(3) {
            texts.push(self.grammar.text(further, dice, junk));
        }
        let changed = dice.once_in(4);
        let texts = texts
            .into_iter()
            .map(|text| if changed { self.change(text.into_bytes(), dice) } else { text.into_bytes() });
        let texts = texts.collect();
        self.project(texts, dice)
    }

    fn pattern(&self, dice: &mut Dice) -> String {
        let text = if dice.once_in(4) {
            self.patterns[dice.below(self.patterns.len())].clone()
        } else {
            let junk = [0, 0, 30][dice.below(3)];
            self.grammar.text("own-pattern", dice, junk)
        };
        if dice.once_in(2) {
            return text;
        }
        String::from_utf8_lossy(&self.change(text.into_bytes(), dice)).into_owned()
    }

    /// Files of variables and labels, read in all ways.
    fn variables(&self, dice: &mut Dice) -> Input {
        let text = "services:\n  web:\n    image: x:${A}\n    env_file: [one.env, {path: raw.env, format: raw}, one.env]\n    \
                    label_file: [labels.env]\n    environment: [A, 'B=${B:-$C}', C=]\n  db: {image: '${D:-y}', env_file: two.env}\n";
        let Input::Project(mut project) = self.project(vec![text.into()], dice) else { panic!("it makes a project") };
        for name in ["one.env", "two.env", "raw.env", "labels.env", ".env"] {
            if !dice.once_in(10) {
                project.files.files.insert(format!("/project/{name}").into(), env_text(dice));
            }
        }
        Input::Project(project)
    }
}

/// The word that a place is in, or nothing there.
fn word_at(text: &[u8], at: usize) -> std::ops::Range<usize> {
    let is_word = |byte: &u8| !byte.is_ascii_whitespace() && !b"{}[],:".contains(byte);
    let start = text[..at].iter().rposition(|byte| !is_word(byte)).map_or(0, |before| before + 1);
    let end = text[at..].iter().position(|byte| !is_word(byte)).map_or(text.len(), |more| at + more);
    start..end
}

/// The line that a place is in, with its end.
fn line_at(text: &[u8], at: usize) -> std::ops::Range<usize> {
    let start = text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    let end = text[at..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |more| at + more + 1);
    start..end
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Mapping(map) => map.values().map(size).sum(),
        Value::Sequence(items) => items.iter().map(size).sum(),
        Value::Tagged(tagged) => size(&tagged.value),
        _ => 0,
    }
}

/// Returns a part of a value by its number, counted from the outside.
fn nth_part<'v>(value: &'v mut Value, left: &mut usize) -> Option<&'v mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Mapping(map) => map.values_mut().find_map(|value| nth_part(value, left)),
        Value::Sequence(items) => items.iter_mut().find_map(|value| nth_part(value, left)),
        Value::Tagged(tagged) => nth_part(&mut tagged.value, left),
        _ => None,
    }
}

/// Gives a service, or what is beside services, one key of another file. Returns whether there was something to give.
fn give(value: &mut Value, donor: &Value, dice: &mut Dice) -> bool {
    let Some(donor) = donor.as_mapping() else { return false };
    let (section, entries) = match donor.iter().nth(dice.below(donor.len().max(1))) {
        Some((section, Value::Mapping(entries))) if !entries.is_empty() => (section, entries),
        _ => return false,
    };
    let (name, entry) = entries.iter().nth(dice.below(entries.len())).expect("there are some");
    let Some(own) = value.get_mut(section).and_then(Value::as_mapping_mut) else {
        let Some(map) = value.as_mapping_mut() else { return false };
        map.insert(section.clone(), Value::Mapping(entries.clone()));
        return true;
    };
    let place = dice.below(own.len().max(1));
    match (own.values_mut().nth(place), entry) {
        (Some(Value::Mapping(into)), Value::Mapping(from)) if !from.is_empty() => {
            let (key, part) = from.iter().nth(dice.below(from.len())).expect("there are some");
            into.insert(key.clone(), part.clone());
        }
        _ => drop(own.insert(name.clone(), entry.clone())),
    }
    true
}

/// Puts a part in a place: instead of what is there, or, where both are mappings or lists, beside it.
fn put(place: &mut Value, part: Value, dice: &mut Dice) {
    match (place, part) {
        (Value::Mapping(map), Value::Mapping(more)) if !dice.once_in(3) => map.extend(more),
        (Value::Sequence(items), Value::Sequence(more)) if !dice.once_in(3) => items.extend(more),
        (Value::Sequence(items), item) if !dice.once_in(3) => items.push(item),
        (place, part) => *place = part,
    }
}

/// Pieces of files of variables.
#[rustfmt::skip]
const ENV: &[&str] = &[
    "A", "B", "C", "SET", "é", "1", "A.b-c[0]", "=", "=", "=", ":", ": ", "'", "\"", "'a'", "\"b\"", "\\", "\\n", "\\0101", "\\$", "$",
    "${A}", "${B:-x}", "${", "}", "${A:?m}", "${C:+${A}}", "\n", "\n", "\n", "\r\n", " # x", "#", " ", "\t", "export ", "\u{feff}",
    "\0", "\u{202e}", "word", "a b",
];

fn env_text(dice: &mut Dice) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..dice.below(12) {
        // One of many is anything.
        let value = if dice.once_in(20) {
            (0..dice.below(6)).map(|_| VALUE[dice.below(VALUE.len())]).collect()
        } else {
            ["", "a", "${SET}", "$$x", "a b", "é", "${UNSET:-${SET}}", "1"][dice.below(8)].to_owned()
        };
        let name = ["A", "B", "C", "SET", "A.b", "E_1"][dice.below(6)];
        match dice.below(12) {
            0 if dice.once_in(6) => text.extend((0..dice.below(10)).map(|_| ENV[dice.below(ENV.len())])),
            1 => _ = writeln!(text, "{name}='{value}'"),
            2 => _ = writeln!(text, "{name}=\"{value}\""),
            3 => _ = writeln!(text, "{name}"),
            4 => _ = writeln!(text, "export {name}={value} # x"),
            5 => _ = writeln!(text, "{name}=${{{name}:-{name}}}${name}"),
            6 => _ = writeln!(text, "{name}={value}"),
            _ => _ = writeln!(text, "{name}: a b"),
        }
    }
    if dice.once_in(30) {
        text = text.repeat(1 + dice.below(500));
    }
    let mut bytes = text.into_bytes();
    if dice.once_in(20) {
        bytes.push(0xff);
    }
    bytes
}

/// Pieces of values with variables.
#[rustfmt::skip]
const VALUE: &[&str] = &[
    "$", "$$", "{", "}", "${", "${", "${SET", "${UNSET:-", "${UNSET-", "${SET:+", "${EMPTY:?", "SET", ":-", ":+", "-", "?", ":", "a", " ", "é",
    "\"", "'", "\\", "/", "$SET", "${N}", "日本", "\u{301}",
];

fn interpolated(dice: &mut Dice) -> String {
    let count = if dice.once_in(50) { 20_000 } else { 1 + dice.below(25) };
    match dice.below(40) {
        0 => "${UNSET:-".repeat(count) + "x" + &"}".repeat(count),
        1 => "${SET:+".repeat(count),
        2 => "$".repeat(count) + "{A}",
        3 => "${SET}".repeat(count),
        _ => (0..count).map(|_| VALUE[dice.below(VALUE.len())]).collect(),
    }
}

/// A file whose service has these texts in places that are read in different ways.
fn with_values(values: &[String]) -> String {
    let quoted = |n: usize| serde_json::Value::from(values[n % values.len()].as_str()).to_string();
    format!(
        "services:\n  web:\n    image: x\n    command: {}\n    entrypoint: [{}]\n    environment: {{A: {}, B: {}}}\n    \
         labels: [{}]\n    hostname: {}\n    healthcheck: {{test: {}}}\n    x-other: {{a: {}}}\n",
        quoted(0),
        quoted(1),
        quoted(2),
        quoted(3),
        quoted(4),
        quoted(5),
        quoted(6),
        quoted(7)
    )
}

/// A file that asks for much work.
fn hurtful(dice: &mut Dice) -> Vec<u8> {
    let many = 1 + dice.below(20_000);
    let text = match dice.below(16) {
        0 => {
            let open = ["[", "{a: ", "- ", "? ", "{? ", "[&a ", "!override ", "a: &a [*a, "][dice.below(8)];
            format!("x-a: {}", open.repeat(many))
        }
        1 => {
            let (levels, width) = (2 + dice.below(30), 1 + dice.below(12));
            let mut text = "x-0: &a0 {k: v, l: [l, l]}\n".to_owned();
            for level in 1..levels {
                let alias = format!("*a{}", level - 1);
                let value = match dice.below(3) {
                    0 => format!("[{}]", vec![alias; width].join(", ")),
                    1 => format!("{{<<: [{}], k{level}: v}}", vec![alias; width].join(", ")),
                    _ => format!("{{{}}}", (0..width).map(|n| format!("k{n}: {alias}")).collect::<Vec<_>>().join(", ")),
                };
                _ = writeln!(text, "x-{level}: &a{level} {value}");
            }
            text + "services: {a: {image: x}}\n"
        }
        2 => format!("services: {{a: {{image: x, labels: {{l: \"{}\"}}}}}}\n", "é".repeat(many * 20)),
        3 => format!("services: {{a: {{image: x, command: \"{}\"}}}}\n", "a 'b' \\\\".repeat(many)),
        4 => (0..many).fold("services:\n  a:\n    image: x\n    labels:\n".to_owned(), |text, n| {
            text + &format!("      k{n}: v\n")
        }),
        5 => "---\nservices: {a: {image: x, labels: [a=1]}}\n".repeat(1 + many / 40),
        6 => format!("services: {{a: {{image: x, cpu_shares: {}, scale: {}}}}}\n", "9".repeat(many), "0".repeat(many)),
        7 => {
            // Each depends on all before it.
            let count = 2 + dice.below(250);
            (0..count).fold("services:\n".to_owned(), |text, n| {
                let all: Vec<String> = (0..n).map(|before| format!("s{before}")).collect();
                text + &format!("  s{n}: {{image: x, depends_on: [{}]}}\n", all.join(", "))
            })
        }
        8 => (0..=many / 10).fold("services:\n".to_owned(), |text, n| {
            text + &format!("  s{n}: {{image: x, network_mode: 'service:s{}', links: [s{}]}}\n", n + 1, n / 2)
        }),
        9 => format!(
            "services: {{a: {{image: x, ports: [{}]}}}}\n",
            vec!["'1000-1999:1000-1999'"; 1 + many / 100].join(", ")
        ),
        10 => format!("services:\n  a:\n    image: x\n    command: |\n{}", "      line\n\n\n".repeat(many)),
        11 => {
            let base = "  s0: {image: x, labels: {a: 1, b: 2}}\n".to_owned();
            let chain =
                (1..=1 + dice.below(150)).map(|n| format!("  s{n}: {{extends: s{}, labels: {{l{n}: 1}}}}\n", n - 1));
            format!("services:\n{base}{}", chain.collect::<String>())
        }
        12 => "\u{202e}\u{200d}\u{301}é\u{10ffff}".repeat(many),
        13 => format!("services: {{a: {{image: x}}}}\n{}", "# é\n".repeat(many)),
        14 => {
            let routes = vec!["{host: [a.b, '*.c.d'], path: /, listen: [1, 2, 3]}"; 1 + many / 20].join(", ");
            format!("services: {{a: {{image: x, expose: [80], x-route: [{routes}]}}}}\n")
        }
        _ => {
            let list = format!("x-l: &l [{}]\n", vec!["a=b"; 1 + dice.below(300)].join(", "));
            (0..=dice.below(300)).fold(list + "services:\n", |text, n| {
                text + &format!("  s{n}: {{image: x, labels: *l, environment: *l, volumes: ['v{n}:/x']}}\n")
            })
        }
    };
    text.into_bytes()
}
