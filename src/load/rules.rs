//! ONE table of the specification: what may stand where, how it merges, which short forms it has.
//!
//! Every phase walks a file's tree and this table side by side; no phase knows a path of its own. A row per path:
//! `*` stands for a key that the user chooses, `[]` for the items of a list. An element of the specification that orch
//! does not model yet has a row of shape [`Shape::Refused`], so that it is refused with its place and never ignored.

mod own;
mod pattern;
mod table;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::long::Long;
use super::merge::Merge;

use Shape::{Any, Open, Refused};
use table::{REFUSED, SERVICES, SIMPLE, TABLE};

/// What a value must be, once short forms are made long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// Part of the specification, not modelled yet.
    Refused,
    /// Part of the specification, but not said here; what to do instead.
    Elsewhere(&'static str),
    /// Anything: `x-` keys.
    Any,
    /// Text.
    Text,
    /// One of the first words; the others are of the specification, but not modelled yet.
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

    /// Returns whether it is one of orch's own keys or below one: printed as written, whatever it means.
    pub(super) fn is_own(&self) -> bool {
        self.path.contains(".x-")
    }
}

const fn row(path: &'static str, shape: Shape, spec: &'static str) -> Rule {
    Rule { path, shape, merge: Merge::Auto, long: Long::None, nullable: false, expected: "", spec }
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
        let supported = |rules: &&Rules| !matches!(rules.rule().shape, Refused | Shape::Elsewhere(_));
        self.keys.iter().filter(move |(_, rules)| supported(rules)).map(|(name, _)| *name)
    }

    fn insert(&mut self, rule: Rule) {
        let mut at = self;
        for key in rule.path.split('.').filter(|key| !key.is_empty()) {
            at = at.keys.entry(key).or_default();
        }
        at.rule = Some(rule);
    }

    /// Returns the rows of the tree, parents first.
    fn rows(&self) -> Vec<Rule> {
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
        for rule in TABLE {
            root.insert(*rule);
        }
        for (path, shape) in SIMPLE {
            let rule = row(path, *shape, chapter(path));
            root.insert(if is_list_of_names(path) { rule.merge(Merge::Distinct) } else { rule });
        }
        for (parent, keys) in REFUSED {
            for key in *keys {
                let path: &'static str = format!("{parent}.{key}").leak();
                root.insert(row(path, Refused, chapter(path)));
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

pub(super) use own::{misplaced, near};

/// Lists that the specification wants without doubles: a double is dropped.
fn is_list_of_names(path: &str) -> bool {
    let distinct =
        ["cap_add", "cap_drop", "profiles", "aliases", "security_opt", "group_add", "capabilities", "device_ids"];
    path.rsplit('.').next().is_some_and(|last| distinct.contains(&last))
}

/// The chapter of a path that has no row in [`TABLE`]; services' own keys have an anchor each.
fn chapter(path: &str) -> &'static str {
    static CHAPTERS: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
        let keys = SIMPLE.iter().map(|(path, _)| *path).filter_map(|path| path.strip_prefix("services.*."));
        let refused = REFUSED.iter().filter(|(parent, _)| *parent == "services.*").flat_map(|(_, keys)| keys.iter());
        keys.map(|path| path.split('.').next().unwrap_or(path))
            .chain(refused.copied())
            .map(|key| (key, &*format!("{SERVICES}#{key}").leak()))
            .collect()
    });
    match path.split('.').filter(|key| !key.is_empty()).collect::<Vec<_>>().as_slice() {
        ["services", "*", "deploy", ..] => table::DEPLOY,
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
        let refused = REFUSED.iter().flat_map(|(parent, keys)| keys.iter().map(move |key| format!("{parent}.{key}")));
        let mut paths: Vec<String> = TABLE
            .iter()
            .map(|rule| rule.path.to_owned())
            .chain(SIMPLE.iter().map(|(path, _)| (*path).to_owned()))
            .chain(refused)
            .chain(own::rows(root(Keys::Specification)).iter().map(|rule| rule.path.to_owned()))
            .collect();
        paths.sort();
        let twice: Vec<_> = paths.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn every_parent_has_a_row_that_takes_children() {
        fn visit(rules: &Rules, path: &str) {
            for (key, child) in &rules.keys {
                let shape = rules.rule().shape;
                let fits = match *key {
                    "*" => shape == Open,
                    "[]" => matches!(shape, Shape::List | Shape::BoolOrList),
                    _ => matches!(shape, Shape::Map | Shape::IntOrMap | Shape::BoolOrMap | Shape::WordOrMap(_)),
                };
                assert!(fits, "{path}.{key} under {shape:?}");
                assert!(child.rule.is_some(), "{path}.{key} has no row");
                visit(child, &format!("{path}.{key}"));
            }
            let (shape, keys) = (rules.rule().shape, rules.keys.len());
            let of_items = matches!(shape, Shape::List | Shape::BoolOrList | Open);
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
            assert!(matches!(of(group).keys["ports"].rule().shape, Shape::Elsewhere(_)), "{group}");
            assert!(of(group).keys["ports"].keys.is_empty(), "{group}");
            assert_eq!(of(group).keys["build"].rule().shape, Refused, "{group}");
            assert!(of(group).keys["image"].rule().is_own(), "{group}");
        }
    }
}
