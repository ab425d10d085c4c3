//! Requests for devices: `gpus` and `deploy.resources.reservations.devices`.
//!
//! Source: compose-spec deploy.md and 05-services.md#gpus; what they leave open follows runs of Docker Compose 2.40.

use crate::load::node::{Node, Value};
use crate::load::report::Report;

/// All that a host has.
const ALL: i128 = -1;

/// `all` becomes one request for all.
pub(super) fn gpus(node: Node, _: &mut Report) -> Node {
    if node.as_str() != Some("all") {
        return node;
    }
    let request = Node::map(node.span, [("count", Value::Int(ALL))]);
    Node::new(node.span, Value::Seq(vec![request]))
}

/// A request that says neither how many nor which is for all.
pub(super) fn request(mut node: Node, _: &mut Report) -> Vec<Node> {
    if node.as_map().is_some() && !node.says("count") && !node.says("device_ids") {
        node.set("count", Value::Int(ALL));
    }
    vec![node]
}

/// `all` becomes -1.
pub(super) fn count(node: Node, _: &mut Report) -> Node {
    if node.as_str() == Some("all") { node.with(Value::Int(ALL)) } else { node }
}
