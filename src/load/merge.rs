//! Merges a later file onto what earlier files made. Both sides have long forms only.
//!
//! Source: compose-spec 13-merge.md; what it leaves open follows runs of Docker Compose 2.40.

use indexmap::map::Entry as Slot;

use super::node::{Entry, Map, Node, Tag, Value};
use super::rules::{self, Keys, Rules};

/// How two values become one. A null in the later file keeps the earlier value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Merge {
    /// Mappings key by key, lists one after the other, of all else the later.
    Auto,
    /// The later, even if null.
    Replace,
    /// Lists one after the other, equal items once.
    Distinct,
    /// As `Distinct`, of items `NAME=VALUE`; where one has a tag, those with its name in the earlier file are left out.
    Named,
    /// Lists one after the other; of items with the same key the later stands in the place of the earlier.
    Unique(fn(&Node) -> String),
    /// As `Unique`, but such items are merged.
    UniqueDeep(fn(&Node) -> String),
    /// `logging`: key by key unless the driver is another one.
    Logging,
}

/// Returns `later` merged onto `earlier`, doubles removed, and Compose's tags obeyed.
pub(super) fn merge(earlier: Option<Node>, later: Node, keys: Keys) -> Node {
    let base = earlier.unwrap_or_else(|| Node::new(later.span, Value::map(Map::default())));
    node(base, later, rules::root(keys))
}

/// A first value: nothing to merge with, but its own doubles and tags are dealt with.
fn first(mut node: Node, rules: &Rules) -> Option<Node> {
    settle(&mut node, rules).then_some(node)
}

/// Does so in place, as most of what is merged is first. Returns whether there is anything.
fn settle(node: &mut Node, rules: &Rules) -> bool {
    if node.tag.take() == Some(Tag::Reset) {
        return false;
    }
    match &mut node.value {
        Value::Map(map) => map.retain(|key, entry| {
            entry.written = None;
            settle(&mut entry.node, child(rules, key))
        }),
        Value::Seq(items) if rules.rule().is_own() => {
            // Of orch's own keys a list is printed with its doubles.
            let (length, written) = (items.len(), node.as_written());
            if let Value::Seq(items) = &mut node.value {
                distinct_of(items, rules);
                if items.len() != length {
                    node.short.get_or_insert_with(|| Box::new(written));
                }
            }
        }
        Value::Seq(items) => distinct_of(items, rules),
        _ => {}
    }
    true
}

/// Settles the items of a list and removes doubles.
fn distinct_of(items: &mut Vec<Node>, rules: &Rules) {
    items.retain_mut(|item| settle(item, rules.item()));
    *items = distinct(std::mem::take(items), rules);
}

fn child<'r>(rules: &'r Rules, key: &str) -> &'r Rules {
    static NONE: std::sync::LazyLock<Rules> = std::sync::LazyLock::new(Rules::default);
    rules.key(key).unwrap_or(&NONE)
}

/// Returns a part of `later` merged onto the same part of `earlier`.
pub(super) fn node(earlier: Node, later: Node, rules: &Rules) -> Node {
    let how = rules.rule().merge;
    let replaced = later.tag == Some(Tag::Override)
        || matches!(how, Merge::Replace)
        || matches!(how, Merge::Logging) && other_driver(&earlier, &later);
    if replaced {
        let span = later.span;
        return first(later, rules).unwrap_or(Node::new(span, Value::Null));
    }
    match (earlier.value, later.value) {
        (value, Value::Null) => Node { value, tag: None, ..earlier },
        (Value::Map(base), Value::Map(map)) => Node::new(earlier.span, Value::map(maps(*base, *map, rules))),
        (Value::Seq(mut base), Value::Seq(items)) => {
            if matches!(how, Merge::Named) {
                let replaced: Vec<&str> = items.iter().filter(|item| item.tag.is_some()).filter_map(name).collect();
                base.retain(|item| name(item).is_none_or(|name| !replaced.contains(&name)));
            }
            base.extend(items.into_iter().filter_map(|item| first(item, rules.item())));
            Node::new(later.span, Value::Seq(distinct(base, rules)))
        }
        (_, value) => {
            let later = Node { value, tag: None, ..later };
            first(later, rules).unwrap_or(Node::new(earlier.span, Value::Null))
        }
    }
}

fn maps(mut base: Map, later: Map, rules: &Rules) -> Map {
    for (key, entry) in later {
        let rules = child(rules, &key);
        if entry.node.tag == Some(Tag::Reset) {
            base.shift_remove(&key);
            continue;
        }
        match base.entry(key) {
            Slot::Occupied(mut slot) => {
                let span = slot.get().node.span;
                let earlier = std::mem::replace(&mut slot.get_mut().node, Node::new(span, Value::Null));
                slot.get_mut().node = node(earlier, entry.node, rules);
            }
            Slot::Vacant(slot) => {
                if let Some(node) = first(entry.node, rules) {
                    slot.insert(Entry::new(entry.key, node));
                }
            }
        }
    }
    base
}

/// The name of an item `NAME=VALUE`.
fn name(item: &Node) -> Option<&str> {
    Some(item.as_str()?.split_once('=')?.0)
}

fn other_driver(earlier: &Node, later: &Node) -> bool {
    matches!((earlier.str("driver"), later.str("driver")), (Some(a), Some(b)) if a != b)
}

/// Removes doubles by the rule of the list.
fn distinct(items: Vec<Node>, rules: &Rules) -> Vec<Node> {
    let key: fn(&Node) -> String = match rules.rule().merge {
        Merge::Distinct | Merge::Named => {
            |item| item.value.scalar_text().map(|text| format!("={text}")).unwrap_or_default()
        }
        Merge::Unique(key) | Merge::UniqueDeep(key) => key,
        _ => return items,
    };
    let deep = matches!(rules.rule().merge, Merge::UniqueDeep(_));
    let mut kept: indexmap::IndexMap<String, Node, foldhash::fast::RandomState> =
        indexmap::IndexMap::with_capacity_and_hasher(items.len(), foldhash::fast::RandomState::default());
    for (index, item) in items.into_iter().enumerate() {
        // What has no key (a wrong type, reported by the check, or a short form with variables that stay) is never a double.
        let key = Some(&item).filter(|item| !item.is_unknown()).map(key).filter(|key| !key.is_empty());
        let key = key.unwrap_or_else(|| format!("\0{index}"));
        match kept.entry(key) {
            Slot::Occupied(mut slot) if deep => {
                let earlier = slot.get().clone();
                slot.insert(node(earlier, item, rules.item()));
            }
            Slot::Occupied(mut slot) => {
                slot.insert(item);
            }
            Slot::Vacant(slot) => {
                slot.insert(item);
            }
        }
    }
    kept.into_values().collect()
}
