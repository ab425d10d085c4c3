//! ONE table of the specification: what may stand where, how it merges, which short forms it has.
//!
//! To know what becomes of a key, look for its row: in [`table`] those of the specification, in [`own`] those of orch's own
//! keys, in [`pattern`] those of a pattern's file. `*` stands for a key that the user chooses, `[]` for the items of a list.
//! The row says all that is about the key alone: what it must be ([`Shape`], which `check` compares), its short forms (named
//! in the row, written in `long`), how the values of two files become one ([`Merge`]), the chapter that a message cites, and,
//! by [`table::NOT_APPLIED`], that orch reads it and does not apply it: it is then refused with its place where something is
//! to be run, and never ignored; what stands in [`table::WITHOUT_EFFECT`] brings a warning. The phases that do this walk a
//! file's tree and this table side by side, and know no path of their own.
//!
//! What needs several keys at once is beside the table, each in the one module of its phase:
//! * `extends`, `include`, `patterns`: the keys that take something over from elsewhere;
//! * `validate`: values that must agree, what a long form cannot do without, names that must exist;
//! * `normalise`: what is filled in where a file says nothing, and what follows from links and shared namespaces;
//! * `rebase`: which values are paths; `resolve`: which files are read, and what takes the project's environment;
//! * `profiles`: which services there are; `keys`: what orch's own keys mean; `hosts`: `x-hosts`, the one key without a row,
//!   because a hosts file is the same without a project.

mod astray;
mod own;
mod pattern;
mod table;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::long::Long;
use super::merge::Merge;

use Shape::{Any, Open};
use table::{HOOK, HOOKS, NOT_APPLIED, SERVICES, SIMPLE, TABLE, WITHOUT_EFFECT};

/// What a value must be, once short forms are made long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// Part of the specification, but not said here; what to do instead.
    Elsewhere(&'static str),
    /// Anything: `x-` keys.
    Any,
    /// Text.
    Text,
    /// One of the words; the second ones are of the specification, but not applied yet.
    Word(&'static [&'static str], &'static [&'static str]),
    /// Text, number or boolean, kept as text.
    Scalar,
    /// Text or number, kept as text.
    TextOrNumber,
    /// `true` or `false`.
    Bool,
    /// A whole number in a range.
    Int(i64, i64),
    /// A number of 0 or more.
    Number,
    /// A duration, kept as Go prints it.
    Duration,
    /// A number of bytes, kept as decimal text.
    Bytes,
    /// A number of bytes, or -1 for no limit, kept as decimal text.
    BytesOrUnlimited,
    /// Text, number or boolean, kept as text, or a list of these.
    ScalarOrList,
    /// A file mode, kept as octal text.
    Mode,
    /// A share: 1 to 100, kept as a whole number; `50%` or `50`.
    Percent,
    /// A whole number, or a mapping with the keys of the table.
    IntOrMap,
    /// `true` or `false`, or a mapping with the keys of the table.
    BoolOrMap,
    /// `true` or `false`, or a list.
    BoolOrList,
    /// One of the words, or a mapping with the keys of the table.
    WordOrMap(&'static [&'static str]),
    /// A mapping with the keys of the table, and `x-` keys.
    Map,
    /// A mapping with keys that the user chooses.
    Open,
    /// A list.
    List,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Where, such as `services.*.ports`.
    pub(super) path: &'static str,
    /// What must be there.
    pub(super) shape: Shape,
    /// How the values of two files become one.
    pub(super) merge: Merge,
    /// How short forms become the long form.
    pub(super) long: Long,
    /// Whether nothing may be there.
    pub(super) nullable: bool,
    /// What is expected, as a message says it; empty: as the shape says.
    pub(super) expected: &'static str,
    /// Chapter of the specification, or page of orch's own.
    pub(super) spec: &'static str,
    /// Set where it is not applied.
    pub(super) unapplied: Option<Unapplied>,
}

/// What is said of an element that orch loads and prints, but does not apply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unapplied {
    /// Values that ask for nothing.
    pub(super) harmless: &'static [&'static str],
    /// What to do instead, as a message says it.
    pub(super) instead: &'static str,
    /// Whether it is refused where something is to be run; else a warning says that it has no effect.
    pub(super) is_refused: bool,
}

impl Rule {
    const fn merge(self, merge: Merge) -> Self {
        Self { merge, ..self }
    }

    const fn long(self, long: Long) -> Self {
        Self { long, ..self }
    }

    const fn or_null(self) -> Self {
        Self { nullable: true, ..self }
    }

    const fn expected(self, expected: &'static str) -> Self {
        Self { expected, ..self }
    }

    /// Returns whether what it is in cannot do without it, be it null: the command of a hook.
    pub(super) fn is_needed(&self) -> bool {
        self.nullable && self.path.ends_with(".[].command")
    }

    /// Returns whether it is one of orch's own keys or below one: printed as written, whatever it means.
    pub(super) fn is_own(&self) -> bool {
        self.path.contains(".x-")
    }
}

const fn row(path: &'static str, shape: Shape, spec: &'static str) -> Rule {
    Rule { path, shape, merge: Merge::Auto, long: Long::None, nullable: false, expected: "", spec, unapplied: None }
}

/// The table as a tree, to be walked beside a file.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rule: Option<Rule>,
    keys: BTreeMap<&'static str, Rules>,
}

impl Rules {
    /// Returns the row of this place.
    pub(super) fn rule(&self) -> &Rule {
        static ANY: Rule = row("", Any, "");
        self.rule.as_ref().unwrap_or(&ANY)
    }

    /// Returns the rules of a key of this mapping; `None` if the specification does not know it.
    pub(super) fn key(&self, key: &str) -> Option<&Self> {
        if self.rule().shape == Open { self.keys.get("*") } else { self.keys.get(key) }
    }

    /// Returns the rules of the items of this list.
    pub(super) fn item(&self) -> &Self {
        static ANY: LazyLock<Rules> = LazyLock::new(Rules::default);
        self.keys.get("[]").unwrap_or(&ANY)
    }

    /// Returns the keys that this mapping may have and orch supports.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        let supported = |rules: &&Rules| !matches!(rules.rule().shape, Shape::Elsewhere(_));
        self.keys.iter().filter(move |(_, rules)| supported(rules)).map(|(name, _)| *name)
    }

    fn at(&mut self, path: &'static str) -> &mut Self {
        path.split('.').filter(|key| !key.is_empty()).fold(self, |at, key| at.keys.entry(key).or_default())
    }

    fn insert(&mut self, rule: Rule) {
        self.at(rule.path).rule = Some(rule);
    }

    /// Returns the rows of the tree, parents first.
    pub(super) fn rows(&self) -> Vec<Rule> {
        self.rule.into_iter().chain(self.keys.values().flat_map(Self::rows)).collect()
    }
}

/// Which keys the rules of a file know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// Those of the specification: orch's own are text with variables in it, which nobody can understand.
    Specification,
    /// Those, and orch's own.
    All,
}

/// Returns the rules of a whole file.
pub(super) fn root(keys: Keys) -> &'static Rules {
    static SPECIFICATION: LazyLock<Rules> = LazyLock::new(|| {
        let mut root = Rules::default();
        for rule in specification() {
            root.insert(rule);
        }
        for (rows, is_refused) in [(NOT_APPLIED, true), (WITHOUT_EFFECT, false)] {
            for (path, harmless, instead) in rows {
                if let Some(rule) = &mut root.at(path).rule {
                    rule.unapplied = Some(Unapplied { harmless, instead, is_refused });
                }
            }
        }
        root
    });
    static ALL: LazyLock<Rules> = LazyLock::new(|| {
        let mut root = Rules::default();
        for rule in SPECIFICATION.rows() {
            root.insert(rule);
        }
        for rule in own::rows(&SPECIFICATION) {
            root.insert(rule);
        }
        root
    });
    match keys {
        Keys::Specification => &SPECIFICATION,
        Keys::All => &ALL,
    }
}

/// Returns the rules of a pattern's file.
pub(super) fn of_pattern() -> &'static Rules {
    static PATTERN: LazyLock<Rules> = LazyLock::new(|| {
        let mut root = Rules::default();
        for rule in pattern::ROWS {
            root.insert(*rule);
        }
        root
    });
    &PATTERN
}

/// Returns the rules of a service.
pub(super) fn of_service() -> &'static Rules {
    static NONE: LazyLock<Rules> = LazyLock::new(Rules::default);
    root(Keys::All).key("services").and_then(|services| services.key("*")).unwrap_or(&NONE)
}

pub(super) use astray::astray;
pub(super) use own::{misplaced, near};

/// Returns the rows of the specification; which of them are applied is said elsewhere.
fn specification() -> Vec<Rule> {
    let mut rows = TABLE.to_vec();
    rows.extend(SIMPLE.iter().map(|(path, shape)| {
        let rule = row(path, *shape, chapter(path));
        if is_list_of_names(path) { rule.merge(Merge::Distinct) } else { rule }
    }));
    for parent in HOOKS {
        rows.extend(HOOK.iter().map(|rule| {
            let path: &'static str = format!("{parent}.{}", rule.path).leak();
            Rule { path, spec: chapter(path), ..*rule }
        }));
    }
    rows
}

/// Lists that the specification wants without doubles: a double is dropped.
fn is_list_of_names(path: &str) -> bool {
    let distinct = [
        "aliases",
        "cap_add",
        "cap_drop",
        "capabilities",
        "device_cgroup_rules",
        "device_ids",
        "group_add",
        "link_local_ips",
        "profiles",
        "security_opt",
        "volumes_from",
    ];
    path.rsplit('.').next().is_some_and(|last| distinct.contains(&last))
}

/// The chapter of a path that has no row in [`TABLE`]; services' own keys have an anchor each.
fn chapter(path: &str) -> &'static str {
    static CHAPTERS: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
        let keys = SIMPLE.iter().map(|(path, _)| *path).filter_map(|path| path.strip_prefix("services.*."));
        keys.map(|path| path.split('.').next().unwrap_or(path))
            .map(|key| (key, &*format!("{SERVICES}#{key}").leak()))
            .collect()
    });
    match path.split('.').filter(|key| !key.is_empty()).collect::<Vec<_>>().as_slice() {
        ["services", "*", "build", ..] => table::BUILD,
        ["services", "*", "deploy", ..] => table::DEPLOY,
        ["services", "*", "develop", ..] => table::DEVELOP,
        ["services", "*", key, ..] => CHAPTERS.get(key).copied().unwrap_or(SERVICES),
        ["include", ..] => "14-include.md",
        ["networks", ..] => table::NETWORKS,
        ["volumes", ..] => table::VOLUMES,
        ["configs", ..] => table::CONFIGS,
        ["secrets", ..] => table::SECRETS,
        _ => table::TOP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_has_two_rows() {
        let mut paths: Vec<String> = specification()
            .iter()
            .map(|rule| rule.path.to_owned())
            .chain(own::rows(root(Keys::Specification)).iter().map(|rule| rule.path.to_owned()))
            .collect();
        paths.sort();
        let twice: Vec<_> = paths.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn what_is_not_applied_has_a_row_and_is_listed_once() {
        let rows = specification();
        let mut seen = std::collections::BTreeSet::new();
        for (path, harmless, instead) in NOT_APPLIED.iter().chain(WITHOUT_EFFECT) {
            let row = rows.iter().find(|rule| rule.path == *path).unwrap_or_else(|| panic!("`{path}` has no row"));
            assert!(seen.insert(path), "`{path}` is listed twice");
            assert!(!instead.is_empty(), "`{path}`: what is to be done instead?");
            let scalar = matches!(row.shape, Shape::Bool | Shape::Text | Shape::Word(..) | Shape::Int(..));
            assert!(harmless.is_empty() || scalar, "`{path}`: {harmless:?} cannot be said");
            let above = NOT_APPLIED.iter().find(|(other, ..)| path.starts_with(&format!("{other}.")));
            assert!(above.is_none(), "`{path}` is in {above:?}");
        }
    }

    #[test]
    fn every_parent_has_a_row_that_takes_children() {
        fn visit(rules: &Rules, path: &str) {
            for (key, child) in &rules.keys {
                let shape = rules.rule().shape;
                let fits = match *key {
                    "*" => shape == Open,
                    "[]" => matches!(shape, Shape::List | Shape::BoolOrList | Shape::ScalarOrList),
                    _ => matches!(shape, Shape::Map | Shape::IntOrMap | Shape::BoolOrMap | Shape::WordOrMap(_)),
                };
                assert!(fits, "{path}.{key} under {shape:?}");
                assert!(child.rule.is_some(), "{path}.{key} has no row");
                visit(child, &format!("{path}.{key}"));
            }
            let (shape, keys) = (rules.rule().shape, rules.keys.len());
            let of_items = matches!(shape, Shape::List | Shape::BoolOrList | Shape::ScalarOrList | Open);
            assert!(!of_items || keys == 1, "{path} says nothing of its items");
        }
        visit(root(Keys::All), "");
        visit(of_pattern(), "");
    }

    #[test]
    fn containers_beside_the_main_one_have_the_rows_of_services() {
        let of = |key: &str| &root(Keys::All).keys["services"].keys["*"].keys[key].keys["*"];
        for group in ["x-init", "x-sidecars", "x-ambassadors"] {
            assert_eq!(of(group).keys["volumes"].keys["[]"].keys["bind"].keys.len(), 4, "{group}");
            assert!(of(group).keys["isolation"].rule().unapplied.is_some(), "{group}");
            assert!(matches!(of(group).keys["ports"].rule().shape, Shape::Elsewhere(_)), "{group}");
            assert!(of(group).keys["ports"].keys.is_empty(), "{group}");
            assert!(of(group).keys["build"].rule().unapplied.is_some(), "{group}");
            assert!(matches!(of(group).keys["provider"].rule().shape, Shape::Elsewhere(_)), "{group}");
            assert!(of(group).keys["image"].rule().is_own(), "{group}");
        }
    }
}
