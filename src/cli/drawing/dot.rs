//! A drawing in the language of Graphviz. Source: <https://graphviz.org/doc/info/lang.html>.

use std::fmt::Write as _;

use super::{Drawing, Kind, Means};

impl Drawing {
    /// Writes it for `dot`.
    pub(crate) fn dot(&self) -> String {
        let mut text = format!("digraph {} {{\n", quote(&self.project));
        text += "  rankdir=TB;\n  node [fontname=\"monospace\", fontsize=11, shape=box, style=rounded];\n";
        text += "  edge [fontname=\"monospace\", fontsize=9];\n";
        for node in &self.nodes {
            let lines = std::iter::once(&node.name).chain(&node.lines).map(|line| escape(line)).collect::<Vec<_>>();
            let shape = match node.kind {
                Kind::Entry => "shape=cds, style=solid",
                Kind::Service => "shape=box, style=rounded",
                Kind::Outside => "shape=box, style=dashed",
                Kind::Network => "shape=hexagon, style=solid",
                Kind::Volume => "shape=cylinder, style=solid",
            };
            _ = writeln!(text, "  {} [label=\"{}\", {shape}];", id(node.kind, &node.name), lines.join("\\n"));
        }
        for edge in &self.edges {
            let look = match edge.means {
                Means::Enters => "style=bold",
                Means::DependsOn => "style=solid",
                Means::Shares => "style=solid, dir=both",
                Means::Links | Means::Ambassador => "style=dashed",
                Means::On => "style=dotted, arrowhead=none",
                Means::Mounts => "style=solid, arrowhead=dot",
            };
            let (from, to) = (id(edge.from.0, &edge.from.1), id(edge.to.0, &edge.to.1));
            _ = writeln!(text, "  {from} -> {to} [label={}, {look}];", quote(&edge.label));
        }
        text + "}\n"
    }
}

/// Names of different kinds may be the same.
fn id(kind: Kind, name: &str) -> String {
    let kind = match kind {
        Kind::Entry => "entry",
        Kind::Service => "service",
        Kind::Outside => "outside",
        Kind::Network => "network",
        Kind::Volume => "volume",
    };
    quote(&format!("{kind} {name}"))
}

fn quote(text: &str) -> String {
    format!("\"{}\"", escape(text))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ")
}
