//! A drawing as text: service by service, then networks, volumes and what is outside.

use std::fmt::Write as _;

use super::{Drawing, Edge, Kind, Means, Node};

/// Width of the words before the values.
const WORD: usize = 11;

impl Drawing {
    /// Writes it for the reader.
    pub(crate) fn text(&self, colour: bool) -> String {
        let mut text = format!("project {}\n", self.project);
        for service in self.all(Kind::Service) {
            _ = write!(text, "\n{}\n", bold(&service.name, colour));
            for line in &service.lines {
                let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
                let known = ["image", "init", "sidecar", "ambassador"].contains(&word);
                text += &if known { row(word, rest) } else { row("", line) };
            }
            for edge in self.to(service, Means::Enters) {
                text += &row("from", &format!("{} to {}", edge.from.1, edge.label));
            }
            for (means, word) in [
                (Means::DependsOn, "needs"),
                (Means::Shares, "with"),
                (Means::Links, "links"),
                (Means::Ambassador, "reaches"),
                (Means::On, "network"),
                (Means::Mounts, "mounts"),
            ] {
                for edge in self.from(service, means) {
                    text += &row(word, &value(edge));
                }
            }
        }
        for (kind, title, means) in [
            (Kind::Network, "networks", Means::On),
            (Kind::Volume, "volumes", Means::Mounts),
            (Kind::Outside, "outside", Means::Ambassador),
        ] {
            text += &self.list(kind, title, means, colour);
        }
        text
    }

    fn list(&self, kind: Kind, title: &str, means: Means, colour: bool) -> String {
        let width = self.all(kind).map(|node| node.name.len()).max().unwrap_or(0);
        let line = |node: &Node| {
            let mut users: Vec<&str> =
                self.to(node, means).chain(self.to(node, Means::Links)).map(|edge| edge.from.1.as_str()).collect();
            users.dedup();
            let about = if node.lines.is_empty() { String::new() } else { format!(" ({})", node.lines.join(", ")) };
            format!("  {:width$}  {}{about}\n", node.name, users.join(", "))
        };
        let lines: String = self.all(kind).map(line).collect();
        if lines.is_empty() { lines } else { format!("\n{}\n{lines}", bold(title, colour)) }
    }
}

fn value(edge: &Edge) -> String {
    let Edge { to: (_, to), means, label, .. } = edge;
    match means {
        _ if label.is_empty() || label == to => to.clone(),
        Means::Mounts => format!("{to} at {label}"),
        Means::Links | Means::On => format!("{to} as {label}"),
        Means::Ambassador => format!("{to} by {label}"),
        _ => format!("{to} ({label})"),
    }
}

fn row(word: &str, value: &str) -> String {
    format!("  {word:WORD$}{value}\n")
}

fn bold(text: &str, colour: bool) -> String {
    if colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}
