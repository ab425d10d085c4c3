//! `deploy.placement`: constraints and preferences as values.

use crate::graph::{Constraint, Placement};
use crate::model::DeployPlacement;

use super::{Part, Problem};

/// Keys without a label's name after them.
const KEYS: [&str; 5] = ["node.id", "node.hostname", "node.role", "node.platform.os", "node.platform.arch"];
/// Keys that a label's name follows.
const LABELS: [&str; 2] = ["node.labels.", "engine.labels."];

impl Part<'_, '_> {
    /// Source: compose-spec deploy.md#placement.
    pub(super) fn placement(&mut self) -> Placement {
        let Some(deploy) = &self.service.deploy else { return Placement::default() };
        let DeployPlacement { constraints, preferences, max_replicas_per_node, extensions: _ } = &deploy.placement;
        let mut placement = Placement { max_per_host: *max_replicas_per_node, ..Placement::default() };
        for (index, text) in constraints.iter().enumerate() {
            match parse_constraint(text) {
                Some(constraint) => placement.constraints.push(constraint),
                None => self.error(&format!("deploy.placement.constraints[{index}]"), Problem::Invalid {
                    what: "constraint",
                    text: text.clone(),
                    expected: "KEY == VALUE or KEY != VALUE with one of the keys node.id, node.hostname, node.role, \
                               node.platform.os, node.platform.arch, node.labels.NAME, engine.labels.NAME",
                }),
            }
        }
        for (index, preference) in preferences.iter().enumerate() {
            let spread = preference.spread.trim();
            if is_label(spread) {
                placement.spread.push(spread.to_owned());
            } else {
                let path = format!("deploy.placement.preferences[{index}].spread");
                self.invalid(&path, "label", spread, "`node.labels.NAME` or `engine.labels.NAME`");
            }
        }
        // 0 means no limit, as in Swarm.
        placement.max_per_host = placement.max_per_host.filter(|most| *most > 0);
        placement
    }
}

fn is_label(key: &str) -> bool {
    LABELS.iter().any(|prefix| key.strip_prefix(prefix).is_some_and(|name| !name.is_empty()))
}

/// Reads `KEY == VALUE` or `KEY != VALUE`; blanks around do not matter.
fn parse_constraint(text: &str) -> Option<Constraint> {
    let (key, equal, value) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((key, value)), None) => (key, true, value),
        (None, Some((key, value))) => (key, false, value),
        _ => return None,
    };
    let (key, value) = (key.trim(), value.trim());
    let known = KEYS.contains(&key) || is_label(key);
    let single = !value.is_empty() && !value.contains("==");
    (known && single).then(|| Constraint { key: key.to_owned(), equal, value: value.to_owned() })
}
