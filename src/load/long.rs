//! Second phase on a file's tree: short forms become long ones, so that merging and checking see one form only.
//!
//! A value that is no known short form is left as it is; the check of shapes reports it. Each function names its source
//! in the table of `rules`.

mod devices;
mod mounts;
mod own;
pub(super) mod ports;

use crate::diag::Diagnostic;

use super::node::{Entry, Map, Node, Tag, Value};
use super::path::Path;
use super::report::Report;
use super::rules::{self, Keys, Rules, Shape};
use super::words;

/// How a short form becomes long.
#[derive(Debug, Clone, Copy)]
pub(super) enum Long {
    /// There is no short form.
    None,
    /// One value becomes one.
    Value(fn(Node, &mut Report) -> Node),
    /// An item of a list becomes several.
    Items(fn(Node, &mut Report) -> Vec<Node>),
}

pub(super) const COMMAND: Long = Long::Value(command);
pub(super) const ONE_OR_MORE: Long = Long::Value(one_or_more);
pub(super) const KEYS: Long = Long::Value(keys);
pub(super) const DEPENDS_ON: Long = Long::Value(depends_on);
pub(super) const ENVIRONMENT: Long = Long::Value(environment);
pub(super) const LABELS: Long = Long::Value(labels);
pub(super) const EXTRA_HOSTS: Long = Long::Value(extra_hosts);
pub(super) const EXTRA_HOST: Long = Long::Items(extra_host);
pub(super) const BUILD: Long = Long::Value(build);
pub(super) const ARGUMENTS: Long = Long::Value(arguments);
pub(super) const CONTEXTS: Long = Long::Value(contexts);
pub(super) const SSH: Long = Long::Value(ssh);
pub(super) const HEALTH_TEST: Long = Long::Value(health_test);
pub(super) const RESOURCE: Long = Long::Value(resource);
pub(super) const FILE_REFERENCE: Long = Long::Items(file_reference);
pub(super) const ENV_FILE: Long = Long::Items(env_file);
pub(super) const ONE_OR_MORE_OF_ANY: Long = Long::Value(own::one_or_more);
pub(super) const PORTS: Long = Long::Value(own::ports);
pub(super) const AMBASSADOR: Long = Long::Value(own::ambassador);
pub(super) const ROUTE: Long = Long::Items(own::route);
pub(super) const PATH: Long = Long::Value(own::path);
pub(super) const REWRITE: Long = Long::Value(own::rewrite);
pub(super) const REDIRECT: Long = Long::Value(own::redirect);
pub(super) const TLS: Long = Long::Value(own::tls);
pub(super) const BALANCE: Long = Long::Value(own::balance);
pub(super) const STICKY: Long = Long::Value(own::sticky);
pub(super) const PROBE: Long = Long::Value(own::probe);
pub(super) const PATTERN: Long = Long::Items(own::pattern);
pub(super) const EXPOSE: Long = Long::Items(ports::expose);
pub(super) const PORT: Long = Long::Items(ports::port);
pub(super) const VOLUME: Long = Long::Items(mounts::volume);
pub(super) const GPUS: Long = Long::Value(devices::gpus);
pub(super) const DEVICE_REQUEST: Long = Long::Items(devices::request);
pub(super) const COUNT: Long = Long::Value(devices::count);
pub(super) const DEVICE: Long = Long::Items(mounts::device);

pub(super) use mounts::target;
pub(super) use ports::{is_published, port_key};

/// Makes all short forms of a file long.
pub(super) fn lengthen(node: &mut Node, keys: Keys, report: &mut Report) {
    walk(node, rules::root(keys), &Path::Root, report);
}

/// Makes the short forms of a part of a file long.
pub(super) fn walk(node: &mut Node, rules: &Rules, path: &Path<'_>, report: &mut Report) {
    if rules.rule().shape == Shape::Any {
        return;
    }
    if let Long::Value(convert) = rules.rule().long
        && !matches!(node.value, Value::Variable(_))
    {
        let before = Before::of(node, rules);
        let taken = std::mem::replace(node, Node::new(node.span, Value::Null));
        let tag = taken.tag;
        *node = convert(taken, report);
        node.tag = tag;
        before.note(node);
    }
    match &mut node.value {
        Value::Map(map) => {
            for (key, entry) in map.iter_mut() {
                if let Some(rules) = rules.key(key) {
                    walk(&mut entry.node, rules, &path.key(key), report);
                }
            }
        }
        Value::Seq(items) => {
            if let Long::Items(convert) = rules.item().rule().long {
                let made = std::mem::take(items).into_iter().flat_map(|item| {
                    if matches!(item.value, Value::Variable(_)) {
                        return vec![item];
                    }
                    let before = Before::of(&item, rules.item());
                    let mut made = convert(item, report);
                    if let [one] = made.as_mut_slice() {
                        before.note(one);
                    }
                    made
                });
                *items = made.collect();
            }
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, rules.item(), &path.item(index), report);
            }
        }
        _ => {}
    }
}

/// A value before it is made long: of orch's own keys the short form is what is printed.
struct Before(Option<(Value, Value)>);

impl Before {
    fn of(node: &Node, rules: &Rules) -> Self {
        Self(rules.rule().is_own().then(|| (node.as_written(), node.value.clone())))
    }

    fn note(self, node: &mut Node) {
        if let Some((written, value)) = self.0
            && node.value != value
        {
            node.short = Some(Box::new(written));
        }
    }
}

/// Text is split into words as a shell would.
fn command(node: Node, report: &mut Report) -> Node {
    let Some(text) = node.as_str() else { return node };
    match words::split(text) {
        Ok(words) => {
            let words = words.into_iter().map(|word| Node::text(node.span, word)).collect();
            node.with(Value::Seq(words))
        }
        Err(problem) => {
            let range = problem.range();
            let span = report.part(&node, range.start, range.end);
            let help = match problem {
                words::Unsplittable::Shell(..) => {
                    "put it in quotes, or run a shell: `[\"sh\", \"-c\", \"…\"]` (Docker Compose drops the rest in silence)"
                }
                _ => "close it, or write the command as a list",
            };
            report.push(Diagnostic::error(problem.to_string()).at(span, "").help(help).spec("05-services.md#command"));
            node.with(Value::Unknown)
        }
    }
}

fn one_or_more(node: Node, _: &mut Report) -> Node {
    if node.as_str().is_some() { Node::new(node.span, Value::Seq(vec![node])) } else { node }
}

/// A list of names becomes a mapping with those keys and `value` each.
fn named(node: Node, value: impl Fn(&Node) -> Node, report: &mut Report) -> Node {
    let Value::Seq(items) = &node.value else { return node };
    let mut map = Map::default();
    for item in items {
        match item.as_str() {
            Some(name) if !map.contains_key(name) => {
                map.insert(name.to_owned(), Entry::new(item.span, value(item)));
            }
            Some(_) => {}
            None if item.is_unknown() => {}
            None => return wrong_item(&node, item, "a name", report),
        }
    }
    node.with(Value::map(map))
}

/// Reports an item that a list cannot hold; nothing more is said of that list.
fn wrong_item(list: &Node, item: &Node, expected: &str, report: &mut Report) -> Node {
    let message = format!("an item of this list must be {expected}, not {}", item.value.kind());
    let entry = item.as_map().and_then(|map| map.iter().next());
    let help = match entry.map(|(key, entry)| (key, entry.node.value.scalar_text())) {
        Some((key, Some(_))) if key.contains('=') => "put it in quotes: it has `: ` in it".to_owned(),
        Some((key, Some(value))) if expected.contains('=') => {
            format!("write `{key}={value}`, or write all of them without `-`")
        }
        Some(_) => "write all of them without `-`".to_owned(),
        None => "perhaps quotes are missing".to_owned(),
    };
    report.push(Diagnostic::error(message).at(item.span, "").help(help));
    list.with(Value::Unknown)
}

fn keys(node: Node, report: &mut Report) -> Node {
    named(node, |item| Node::new(item.span, Value::Null), report)
}

fn depends_on(node: Node, report: &mut Report) -> Node {
    let started = || [("condition", Value::Str("service_started".to_owned())), ("required", Value::Bool(true))];
    named(node, |item| Node::map(item.span, started()), report)
}

/// `KEY=VALUE` items become entries; `absent` is the value of a bare key.
fn pairs(node: Node, absent: &Value, report: &mut Report) -> Node {
    let Value::Seq(items) = &node.value else { return node };
    let mut map = Map::default();
    for item in items {
        if item.is_unknown() {
            continue;
        }
        let Some(text) = item.as_str() else { return wrong_item(&node, item, "text such as `KEY=VALUE`", report) };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Value::Str(value.to_owned())),
            None => (text, absent.clone()),
        };
        let key_span = report.part(item, 0, key.len());
        let span = if key.len() < text.len() { report.part(item, key.len() + 1, text.len()) } else { item.span };
        map.insert(key.to_owned(), Entry::new(key_span, Node::new(span, value)));
    }
    node.with(Value::map(map))
}

fn environment(node: Node, report: &mut Report) -> Node {
    variables(node, "environment variable", "05-services.md#environment", report)
}

fn variables(node: Node, what: &str, spec: &'static str, report: &mut Report) -> Node {
    let listed = node.as_seq().is_some();
    let node = pairs(node, &Value::Null, report);
    for (key, entry) in node.as_map().into_iter().flatten() {
        if listed && key.ends_with([' ', '\t']) {
            let message = format!("the name of the {what} `{key}` ends in a space");
            report.push(Diagnostic::error(message).at(entry.key, "").spec(spec));
        }
    }
    node
}

fn labels(node: Node, report: &mut Report) -> Node {
    let mut node = pairs(node, &Value::Str(String::new()), report);
    for entry in node.as_map_mut().into_iter().flat_map(|map| map.values_mut()) {
        if entry.node.is_null() && entry.node.tag.is_none() {
            entry.node.value = Value::Str(String::new());
        }
    }
    node
}

/// A path becomes a mapping with the context.
fn build(node: Node, _: &mut Report) -> Node {
    let Some(context) = node.as_str() else { return node };
    Node::map(node.span, [("context", Value::Str(context.to_owned()))])
}

/// A bare name takes the project's value.
fn arguments(node: Node, report: &mut Report) -> Node {
    variables(node, "build argument", "build.md#args", report)
}

/// `NAME=CONTEXT` items become entries; each needs a context.
fn contexts(node: Node, report: &mut Report) -> Node {
    let bare = |item: &&Node| item.as_str().is_some_and(|text| !text.contains('='));
    if let Some(item) = node.as_seq().into_iter().flatten().find(bare) {
        let message = format!("`{}` names no context", item.as_str().unwrap_or_default());
        let problem = Diagnostic::error(message).at(item.span, "").help("write `NAME=CONTEXT`");
        report.push(problem.spec("build.md#additional_contexts"));
        return node.with(Value::Unknown);
    }
    pairs(node, &Value::Null, report)
}

/// `ID=PATH` items become entries; only `default` needs no path.
fn ssh(node: Node, report: &mut Report) -> Node {
    let made = pairs(node, &Value::Null, report);
    let bare = |(name, entry): &(&String, &Entry)| {
        let key = &entry.node;
        *name != "default" && key.tag.is_none() && (key.is_null() || key.as_str() == Some(""))
    };
    let Some((name, entry)) = made.as_map().into_iter().flatten().find(bare) else { return made };
    let problem = Diagnostic::error(format!("`{name}` is no key")).at(entry.key, "");
    report.push(problem.help("write `default` or `ID=PATH`").spec("build.md#ssh"));
    made.with(Value::Unknown)
}

/// A mapping of names to one or more addresses becomes `name=address` items.
fn extra_hosts(node: Node, _: &mut Report) -> Node {
    let Value::Map(map) = &node.value else { return node };
    let mut items = Vec::new();
    for (name, entry) in map.iter() {
        // What steers the merge of a host steers that of each of its addresses, or of none.
        let tag = entry.node.tag;
        if tag == Some(Tag::Reset) {
            items.push(Node { tag, ..Node::text(entry.node.span, format!("{name}=")) });
            continue;
        }
        let addresses = match &entry.node.value {
            Value::Seq(addresses) => addresses.as_slice(),
            _ => std::slice::from_ref(&entry.node),
        };
        for address in addresses {
            let Some(text) = address.as_str() else { return node };
            items.push(Node { tag, ..Node::text(address.span, format!("{name}={text}")) });
        }
    }
    node.with(Value::Seq(items))
}

/// `name:address`, `name=address`, with or without brackets, becomes `name=address`.
fn extra_host(node: Node, report: &mut Report) -> Vec<Node> {
    let Some(text) = node.as_str().filter(|_| node.tag != Some(Tag::Reset)) else { return vec![node] };
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, address)) = split.filter(|(name, address)| !name.is_empty() && !address.is_empty()) else {
        let problem = Diagnostic::error(format!("`{text}` names no host and address"));
        report.push(problem.at(node.span, "").help("write `NAME=ADDRESS`").spec("05-services.md#extra_hosts"));
        return Vec::new();
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    vec![Node { tag: node.tag, ..Node::text(node.span, format!("{name}={bare}")) }]
}

fn health_test(node: Node, _: &mut Report) -> Node {
    if node.as_str().is_none() {
        return node;
    }
    let shell = Node::text(node.span, "CMD-SHELL");
    Node::new(node.span, Value::Seq(vec![shell, node]))
}

/// `external: {name: X}`, long deprecated, becomes `external: true` and `name: X`.
fn resource(mut node: Node, report: &mut Report) -> Node {
    let Some(external) = node.get("external").filter(|external| external.as_map().is_some()).cloned() else {
        return node;
    };
    let problem = Diagnostic::warning("`external` as a mapping is deprecated").at(external.span, "");
    report.push(problem.help("write `external: true` and `name:` beside it"));
    if let (Some(name), Some(map)) = (external.as_map().and_then(|map| map.get("name")), node.as_map_mut()) {
        map.insert("name".to_owned(), name.clone());
    }
    node.set("external", Value::Bool(true));
    node
}

fn file_reference(node: Node, _: &mut Report) -> Vec<Node> {
    let Some(text) = node.as_str() else { return vec![node] };
    vec![Node::map(node.span, [("source", Value::Str(text.to_owned()))])]
}

fn env_file(node: Node, _: &mut Report) -> Vec<Node> {
    let Some(text) = node.as_str() else { return vec![node] };
    vec![Node::map(node.span, [("path", Value::Str(text.to_owned()))])]
}

/// What makes a config of a service unique: its path in the container.
pub(super) fn config_target(node: &Node) -> String {
    let said = node.str("target").filter(|target| !target.is_empty());
    let target = said.or_else(|| node.str("source")).unwrap_or_default();
    if target.starts_with('/') { target.to_owned() } else { format!("/{target}") }
}

/// What makes a secret of a service unique: its path in the container.
pub(super) fn secret_target(node: &Node) -> String {
    let said = node.str("target").filter(|target| !target.is_empty());
    let target = said.or_else(|| node.str("source")).unwrap_or_default();
    if target.starts_with('/') { target.to_owned() } else { format!("/run/secrets/{target}") }
}

/// What makes a memory file system unique: its path, so that an override may change its options.
pub(super) fn tmpfs_path(node: &Node) -> String {
    node.as_str().and_then(|text| text.split(':').next()).unwrap_or_default().to_owned()
}

/// What makes an environment file unique.
pub(super) fn path(node: &Node) -> String {
    node.str("path").unwrap_or_default().to_owned()
}

/// What makes an address range of a network unique.
pub(super) fn subnet(node: &Node) -> String {
    node.str("subnet").unwrap_or_default().to_owned()
}
