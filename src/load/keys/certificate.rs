//! Certificates, keys and authorities: names of secrets, or of configs where nothing about them is secret.
//!
//! A name is a secret's if there is one of that name, else a config's.

use crate::diag::{Diagnostic, Span, did_you_mean};
use crate::load::node::Node;

use super::Subject;

/// Where each kind of key names some: the key of a service whose entries or items have `tls`, and the keys in there.
const FILES: [&str; 3] = ["ca", "cert", "key"];

/// Whether a file may be known to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// A private key.
    Secret,
    /// A certificate, or authorities.
    Any,
}

/// Returns the configs or secrets (`kind`) that the keys of a service name, with the places.
pub(in crate::load) fn uses(tree: &Node, service: &Node, kind: &str) -> Vec<(String, Span)> {
    let is_secret = |name: &str| tree.get("secrets").is_some_and(|secrets| secrets.get(name).is_some());
    let ambassadors = service.entries("x-ambassadors").map(|(_, entry)| &entry.node);
    let said = ambassadors.chain(service.items("x-route")).filter_map(|node| node.get("tls"));
    let files = said.flat_map(|tls| FILES.into_iter().filter_map(|key| tls.get(key)));
    files
        .filter_map(|file| Some((file.as_str()?.to_owned(), file.span)))
        .filter(|(name, _)| match kind {
            "secrets" => is_secret(name),
            "configs" => !is_secret(name),
            _ => false,
        })
        .collect()
}

impl Subject<'_, '_> {
    /// Returns the name of a secret or config, if it is there and fit for its use.
    pub(super) fn file(&mut self, node: &Node, needs: Needs, spec: &'static str) -> Option<String> {
        let name = node.as_str()?;
        let of =
            |kind: &str| self.project.tree.get(kind).and_then(Node::as_map).and_then(|map| map.get_key_value(name));
        if of("secrets").is_some() || !self.project.consistency {
            return Some(name.to_owned());
        }
        if let Some((_, config)) = of("configs") {
            if needs == Needs::Any {
                return Some(name.to_owned());
            }
            let message = format!("`{name}` is a config, and a private key must be a secret");
            let problem = Diagnostic::error(message).at(node.span, "").also(config.key, "defined here");
            self.report.push(problem.help("define it under the top level's `secrets`").spec(spec));
            return None;
        }
        if self.report.is_full() {
            self.report.push(Diagnostic::error(format!("`{name}` is no secret")).at(node.span, ""));
            return None;
        }
        let kinds = if needs == Needs::Any { "secret or config" } else { "secret" };
        let sections: &[&str] = if needs == Needs::Any { &["secrets", "configs"] } else { &["secrets"] };
        let known = sections.iter().flat_map(|kind| self.project.tree.entries(kind)).map(|(name, _)| name.as_str());
        let help = match did_you_mean(name, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("add `{name}:` under the top level's `secrets`"),
        };
        self.error(node.span, format!("`{name}` is not a {kinds} of this project"), help, spec);
        None
    }
}
