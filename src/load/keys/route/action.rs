//! What happens to a request: `rewrite` and `redirect`.

use crate::diag::Diagnostic;
use crate::load::keys::Subject;
use crate::load::keys::address::host_name;
use crate::load::node::Node;
use crate::model::{PathMatch, PathRewrite, RouteAction, RoutePort};

use super::SPEC;

/// Where the file gives none: 302, Found. Source: Gateway API, `HTTPRequestRedirectFilter`.
const STATUS: u16 = 302;

impl Subject<'_, '_> {
    pub(super) fn action(
        &mut self,
        node: &Node,
        path: Option<&PathMatch>,
        listen: Option<&[RoutePort]>,
    ) -> Option<RouteAction> {
        let map = node.as_map()?;
        let Some(redirect) = map.get("redirect") else {
            let Some(rewrite) = map.get("rewrite") else {
                return Some(RouteAction::Forward { path: None, host: None });
            };
            return self.forward(&rewrite.node, path);
        };
        let of_pods = ["rewrite", "port", "app_protocol"];
        if let Some((key, other)) = of_pods.into_iter().find_map(|key| Some((key, map.get(key)?))) {
            let message = format!("a request that is sent elsewhere never comes to the pod, so `{key}` has no effect");
            let problem = Diagnostic::error(message).at(other.key, "").also(redirect.key, "sent elsewhere here");
            let help = if key == "port" { "a port to send to is `redirect: {port: PORT}`" } else { "keep one of them" };
            self.report.push(problem.help(help).spec(SPEC));
            return None;
        }
        let action = self.redirect(&redirect.node, path)?;
        if listen.is_some_and(|listen| listen.iter().any(|port| leads_back(&action, *port))) {
            let help = "say another `scheme`, `host`, `port` or `path`; with `tls`, plain HTTP is sent to HTTPS anyway";
            self.error(redirect.node.span, "this sends requests back to where they came", help, SPEC);
            return None;
        }
        Some(action)
    }

    fn forward(&mut self, node: &Node, path: Option<&PathMatch>) -> Option<RouteAction> {
        let rewrite = self.path_rewrite(node, path)?;
        let host = self.other_host(node)?;
        if rewrite.is_none() && host.is_none() {
            self.error(node.span, "`rewrite` changes nothing", "add `path`, `prefix` or `host`", SPEC);
            return None;
        }
        Some(RouteAction::Forward { path: rewrite, host })
    }

    fn redirect(&mut self, node: &Node, path: Option<&PathMatch>) -> Option<RouteAction> {
        node.as_map()?;
        let status = match node.get("status") {
            None => STATUS,
            Some(said) => {
                let status = super::super::count(Some(said)).and_then(|status| u16::try_from(status).ok())?;
                if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                    let message = format!("{status} does not send a client elsewhere");
                    self.error(said.span, message, "use 301, 302, 303, 307 or 308", SPEC);
                    return None;
                }
                status
            }
        };
        Some(RouteAction::Redirect {
            scheme: node.str("scheme").map(str::to_owned),
            host: self.other_host(node)?,
            port: node.get("port").and_then(super::super::port),
            path: self.path_rewrite(node, path)?,
            status,
        })
    }

    /// `path` or `prefix`. `None`: something is wrong.
    #[expect(clippy::option_option, reason = "wrong, as it is, and another are three things")]
    fn path_rewrite(&mut self, node: &Node, matched: Option<&PathMatch>) -> Option<Option<PathRewrite>> {
        let map = node.as_map()?;
        match (map.get("path"), map.get("prefix")) {
            (None, None) => Some(None),
            (Some(full), None) => Some(Some(PathRewrite::Full(self.path(&full.node)?))),
            (None, Some(prefix)) => {
                let path = self.path(&prefix.node)?;
                // What was matched exactly has nothing below that could stay.
                let exact = matches!(matched, Some(PathMatch::Exact(_)));
                Some(Some(if exact { PathRewrite::Full(path) } else { PathRewrite::Prefix(path) }))
            }
            (Some(full), Some(prefix)) => {
                let problem = Diagnostic::error("a path is changed by `path` or by `prefix`, not by both");
                let problem = problem.at(prefix.key, "this").also(full.key, "and this");
                self.report.push(problem.help("`path` is the whole new path, `prefix` only what matched").spec(SPEC));
                None
            }
        }
    }

    #[expect(clippy::option_option, reason = "wrong, as it is, and another are three things")]
    fn other_host(&mut self, node: &Node) -> Option<Option<String>> {
        let Some(host) = node.get("host") else { return Some(None) };
        let text = host.as_str()?;
        match host_name(text.trim_start_matches('[').trim_end_matches(']')) {
            Ok(name) if name.contains(':') => Some(Some(format!("[{name}]"))),
            Ok(name) => Some(Some(name)),
            Err(message) => {
                self.error(host.span, message, "write a host's name alone", SPEC);
                None
            }
        }
    }
}

/// Returns whether a request that came to `port` is sent to the very same address.
fn leads_back(action: &RouteAction, port: RoutePort) -> bool {
    let RouteAction::Redirect { scheme, host: None, port: None, path: None, status: _ } = action else { return false };
    scheme.as_deref().is_none_or(|scheme| (scheme == "https") == port.tls)
}
