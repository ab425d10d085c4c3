//! What happens to a request: `rewrite` and `redirect`.

use crate::diag::Diagnostic;
use crate::load::keys::Subject;
use crate::load::keys::address::host_name;
use crate::load::keys::grammar;
use crate::load::node::Node;
use crate::model::{HostMatch, PathMatch, PathRewrite, RouteAction, RoutePort, resolved};

use super::{HTTP, HTTPS, SPEC, in_brackets};

/// Where the file gives none: 302, Found. Source: Gateway API, `HTTPRequestRedirectFilter`.
const STATUS: u16 = 302;

/// What a route matches, as far as it is known.
pub(super) struct Matched<'a> {
    /// Empty: any.
    pub(super) hosts: &'a [HostMatch],
    pub(super) path: Option<&'a PathMatch>,
    /// Empty: any.
    pub(super) methods: &'a [String],
    pub(super) listen: &'a [RoutePort],
}

impl Subject<'_, '_> {
    pub(super) fn action(&mut self, node: &Node, matched: &Matched<'_>) -> Option<RouteAction> {
        let path = matched.path;
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
        if matched.leads_back(&action) {
            let mut help =
                "say another `scheme`, `host`, `port` or `path`; with `tls`, plain HTTP is sent to HTTPS anyway"
                    .to_owned();
            if let RouteAction::Redirect { host: Some(host), .. } = &action
                && matched.hosts.len() > 1
            {
                help = format!("leave `{host}` out of this route's `host`: those who ask for it are there already");
            }
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
            (Some(full), None) => Some(Some(PathRewrite::Full(self.other_path(&full.node)?))),
            (None, Some(prefix)) => {
                let path = self.other_path(&prefix.node)?;
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

    /// A path that requests go on with, checked: whoever gets it is to read it as it is written.
    fn other_path(&mut self, node: &Node) -> Option<String> {
        let path = self.path(node)?;
        let (message, instead) = if let Some(other) = resolved(path.as_bytes()) {
            let other = String::from_utf8_lossy(&other).into_owned();
            (format!("the path `{path}` is `{other}` to servers"), other)
        } else if let Some(escaped) = grammar::escaped(&path) {
            (format!("the path `{path}` has characters that a path cannot hold"), escaped)
        } else {
            return Some(path);
        };
        self.error(node.span, message, format!("write `{instead}`"), SPEC);
        None
    }

    #[expect(clippy::option_option, reason = "wrong, as it is, and another are three things")]
    fn other_host(&mut self, node: &Node) -> Option<Option<String>> {
        let Some(host) = node.get("host") else { return Some(None) };
        let text = host.as_str()?;
        match host_name(text.trim_start_matches('[').trim_end_matches(']')) {
            Ok(name) if name.contains(':') => Some(Some(in_brackets(&name))),
            Ok(name) => Some(Some(name)),
            Err(message) => {
                self.error(host.span, message, "write a host's name alone", SPEC);
                None
            }
        }
    }
}

impl Matched<'_> {
    /// Returns whether some requests are sent to the very address that they were for, and come by this route again: a loop,
    /// whatever other routes there are. What only other routes could end is none yet.
    fn leads_back(&self, action: &RouteAction) -> bool {
        let RouteAction::Redirect { scheme, host, port, path, status } = action else { return false };
        let same_host = host.as_ref().is_none_or(|host| self.hosts.contains(&HostMatch::Exact(host.clone())));
        let bare = |path: &str| path.trim_end_matches('/').to_owned();
        let same_path = match (path, self.path) {
            (None, _) => true,
            (Some(PathRewrite::Full(new)), Some(PathMatch::Exact(old))) => new == old,
            (Some(PathRewrite::Prefix(new)), Some(PathMatch::Prefix(old))) => bare(new) == bare(old),
            (Some(_), _) => false,
        };
        // Clients ask on by GET after 303, and after 301 and 302 instead of POST. Source: RFC 9110, section 15.4.
        let comes_again = |method: &String| match status {
            303 => matches!(method.as_str(), "GET" | "HEAD"),
            301 | 302 => method != "POST",
            _ => true,
        };
        let same_method = self.methods.is_empty() || self.methods.iter().any(comes_again);
        let same_port = |came: &RoutePort| {
            let is_tls = scheme.as_deref().map_or(came.tls, |scheme| scheme == "https");
            let usual = if is_tls { HTTPS } else { HTTP };
            let port = port.unwrap_or(if host.is_none() { came.port } else { usual });
            is_tls == came.tls && port == came.port
        };
        same_host && same_path && same_method && self.listen.iter().any(same_port)
    }
}
