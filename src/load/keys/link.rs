//! `external_links`: names for services of other projects.

use std::collections::BTreeMap;

use crate::diag::Diagnostic;
use crate::ids::{ProjectName, ServiceName};
use crate::load::node::Node;
use crate::model::ExternalLink;

use super::Subject;

const SPEC: &str = "05-services.md#external_links";
const HELP: &str =
    "write `PROJECT/SERVICE` or `PROJECT/SERVICE:ALIAS`; a container's name `PROJECT-SERVICE-NUMBER` is understood too";

/// Longest name of a container that is understood.
const MAX_NAME: usize = 255;
/// Most hyphens in one: it is looked up by each.
const MAX_HYPHENS: usize = 8;

/// What a link may mean: `PROJECT/SERVICE` means one thing; a container's name is cut at any of its hyphens.
fn meanings(text: &str) -> Vec<(ProjectName, ServiceName)> {
    let pair = |project: &str, service: &str| Some((ProjectName::new(project).ok()?, ServiceName::new(service).ok()?));
    if let Some((project, service)) = text.split_once('/') {
        return pair(project, service).into_iter().collect();
    }
    if text.len() > MAX_NAME {
        return Vec::new();
    }
    let Some((name, number)) = text.rsplit_once(['-', '_']) else { return Vec::new() };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Vec::new();
    }
    if name.matches(['-', '_']).count() > MAX_HYPHENS {
        return Vec::new();
    }
    // The longest project first: people name services by one word more often than projects.
    name.rmatch_indices(['-', '_']).filter_map(|(at, _)| pair(&name[..at], &name[at + 1..])).collect()
}

impl Subject<'_, '_> {
    /// Returns the links; one that may mean several things is there once for each, in order of likelihood.
    pub(super) fn external_links(&mut self) -> Vec<ExternalLink> {
        let mut links = Vec::new();
        let mut aliases: BTreeMap<String, &Node> = BTreeMap::new();
        for link in self.node().items("links") {
            if let Some(text) = link.as_str() {
                aliases.insert(text.rsplit(':').next().unwrap_or(text).to_owned(), link);
            }
        }
        for node in self.node().items("external_links") {
            let Some(text) = node.as_str() else { continue };
            let (target, alias) = text.split_once(':').unwrap_or((text, ""));
            let meanings = meanings(target);
            if meanings.is_empty() && !self.project.applied {
                continue;
            }
            if meanings.is_empty() {
                let span = self.report.part(node, 0, target.len());
                self.error(span, format!("`{target}` does not say which service of which project"), HELP, SPEC);
                continue;
            }
            // Docker Compose knows a container without an alias by the container's own name.
            let own = target.split_once('/').map_or(target, |(_, service)| service);
            let written = text.len() > target.len();
            let alias = if written { alias } else { own };
            let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if alias.is_empty() || !alias.chars().all(valid) {
                let span = self.report.part(node, target.len(), text.len());
                let help = "use letters, digits, dots, hyphens and underscores";
                let message = match alias {
                    "" => "the alias of this link is empty".to_owned(),
                    alias => format!("`{alias}` is not a name that a container can look up"),
                };
                self.error(span, message, help, SPEC);
                continue;
            }
            if let Some(before) = aliases.insert(alias.to_owned(), node) {
                let message = format!("service `{}` links two things as `{alias}`", self.name);
                let problem = Diagnostic::error(message).at(node.span, "again").also(before.span, "first");
                self.report.push(problem.help("give one of them another alias").spec(SPEC));
                continue;
            }
            let place = self.report.sources.locate(node.span).to_string();
            let link =
                |(project, service)| ExternalLink { project, service, alias: alias.to_owned(), place: place.clone() };
            links.extend(meanings.into_iter().map(link));
        }
        links
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_may_mean() {
        for (text, expected) in [
            ("shop/db", "shop/db"),
            ("shop-db-1", "shop/db"),
            ("shop_db_1", "shop/db"),
            ("my-shop-web-db-12", "my-shop-web/db my-shop/web-db my/shop-web-db"),
            ("db", ""),
            ("db-1", ""),
            ("shop-db-x", ""),
            ("shop-db-", ""),
            ("Shop/db", ""),
            ("shop/", ""),
            ("/db", ""),
            ("-db-1", ""),
            ("a-b-c-d-e-f-g-h-i-j-k-1", ""),
        ] {
            let shown: Vec<String> =
                meanings(text).iter().map(|(project, service)| format!("{project}/{service}")).collect();
            assert_eq!(shown.join(" "), expected, "{text}");
        }
    }
}
