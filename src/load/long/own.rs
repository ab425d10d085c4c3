//! Short forms of orch's own keys; `docs/patterns.md` has them all.

use crate::diag::Diagnostic;
use crate::load::node::{Entry, Map, Node, Value};
use crate::load::report::Report;

/// Anything but a list becomes a list of one.
pub(super) fn one_or_more(node: Node, _: &mut Report) -> Node {
    match node.value {
        Value::Seq(_) | Value::Null | Value::Unknown => node,
        _ => {
            let list = Node::new(node.span, Value::Null);
            list.with(Value::Seq(vec![Node { tag: None, ..node }]))
        }
    }
}

/// `x-export: 5432`
pub(super) fn ports(node: Node, report: &mut Report) -> Node {
    if matches!(node.value, Value::Bool(_) | Value::Map(_)) { node } else { one_or_more(node, report) }
}

/// Text becomes a mapping with it at `key`.
fn text_at(node: Node, key: &str) -> Node {
    if node.as_str().is_some() { wrapped(node, key) } else { node }
}

/// Returns a mapping with one entry, the value as it is.
fn wrapped(node: Node, key: &str) -> Node {
    let span = node.span;
    let map: Map = [(key.to_owned(), Entry::new(span, Node { tag: None, ..node }))].into_iter().collect();
    Node::new(span, Value::map(map))
}

/// `cache: redis:6379` and `cache: [redis:6379, redis2:6379]`
pub(super) fn ambassador(node: Node, _: &mut Report) -> Node {
    if matches!(node.value, Value::Str(_) | Value::Seq(_)) { wrapped(node, "to") } else { node }
}

/// `app.example.com` and `app.example.com/api`
pub(super) fn route(node: Node, report: &mut Report) -> Vec<Node> {
    let Some(text) = node.as_str() else { return vec![node] };
    let Some(slash) = text.find('/').filter(|_| !text.contains("://")) else { return vec![wrapped(node, "host")] };
    let (host, path) = text.split_at(slash);
    let mut map = Map::default();
    if !host.is_empty() {
        let span = report.part(&node, 0, slash);
        map.insert("host".to_owned(), Entry::new(span, Node::text(span, host)));
    }
    let span = report.part(&node, slash, text.len());
    map.insert("path".to_owned(), Entry::new(span, Node::text(span, path)));
    vec![Node::new(node.span, Value::map(map))]
}

/// `path: /api`
pub(super) fn path(node: Node, _: &mut Report) -> Node {
    text_at(node, "prefix")
}

/// `rewrite: /v2`
pub(super) fn rewrite(node: Node, _: &mut Report) -> Node {
    text_at(node, "prefix")
}

/// `tls: app-certificate`
pub(super) fn tls(node: Node, report: &mut Report) -> Node {
    let Some(name) = node.as_str() else { return node };
    if name == "acme" {
        let problem = Diagnostic::error("certificates by ACME are not built yet").at(node.span, "");
        let help =
            "name a secret that holds chain and key; one that is itself called `acme`: `tls: {cert: acme, key: acme}`";
        report.push(problem.help(help).spec("docs/patterns.md#x-route"));
        return node.with(Value::Unknown);
    }
    let name = Value::Str(name.to_owned());
    Node::map(node.span, [("cert", name.clone()), ("key", name)])
}

/// `redirect: https://example.com:8443/path`, `redirect: https`, `redirect: /path`
pub(super) fn redirect(node: Node, report: &mut Report) -> Node {
    let Some(text) = node.as_str() else { return node };
    if text == "https" || text == "http" {
        return wrapped(node, "scheme");
    }
    if text.starts_with('/') {
        return wrapped(node, "path");
    }
    let Some((scheme, rest)) = text.split_once("://").filter(|(_, rest)| !rest.is_empty() && !rest.starts_with('/'))
    else {
        let problem = Diagnostic::error(format!("`{text}` is not where a request can be sent")).at(node.span, "");
        let help = "write `https://example.com/path`, `https` for the same address with TLS, or `/path`";
        report.push(problem.help(help).spec("docs/patterns.md#x-route"));
        return node.with(Value::Unknown);
    };
    let at = scheme.len() + "://".len();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let colon = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
    let (host, port) = authority.split_at(colon.unwrap_or(authority.len()));
    let mut map = Map::default();
    let mut put = |key: &str, value: Value, start: usize, end: usize| {
        let span = report.part(&node, start, end);
        map.insert(key.to_owned(), Entry::new(span, Node::new(span, value)));
    };
    put("scheme", Value::Str(scheme.to_owned()), 0, scheme.len());
    put("host", Value::Str(host.to_owned()), at, at + host.len());
    if let Some(port) = port.strip_prefix(':') {
        // What is no number is told by the check of shapes.
        let value = port.parse().map_or_else(|_| Value::Str(port.to_owned()), Value::Int);
        put("port", value, at + host.len() + 1, at + authority.len());
    }
    if !path.is_empty() {
        put("path", Value::Str(path.to_owned()), at + authority.len(), text.len());
    }
    Node::new(node.span, Value::map(map))
}

/// `x-balance: round-robin`
pub(super) fn balance(node: Node, _: &mut Report) -> Node {
    text_at(node, "by")
}

/// `sticky: session`
pub(super) fn sticky(node: Node, _: &mut Report) -> Node {
    text_at(node, "cookie")
}

/// `x-probe: /healthz`, `x-probe: 5432`
pub(super) fn probe(node: Node, _: &mut Report) -> Node {
    match &node.value {
        Value::Int(_) => wrapped(node, "tcp"),
        Value::Str(text) => match text.parse() {
            Ok(port) => {
                let port = node.with(Value::Int(port));
                wrapped(port, "tcp")
            }
            Err(_) => wrapped(node, "http"),
        },
        _ => node,
    }
}

/// `x-patterns: content-refresher`
pub(super) fn pattern(node: Node, _: &mut Report) -> Vec<Node> {
    vec![text_at(node, "use")]
}
