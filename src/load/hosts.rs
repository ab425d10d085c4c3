//! Hosts as files name them: `x-hosts` of a compose file, and the user's hosts file, which is such a mapping alone.
//!
//! `x-hosts` has no row in the table of rules: Docker Compose prints `x-` keys as they were written, and so must we.

use indexmap::IndexMap;
use serde::Serialize;

use crate::diag::{Diagnostic, Diagnostics, Span, did_you_mean};
use crate::hosts::{self, HostEntry, InvalidAddress, PeerAddress, SshAddress};

use super::emit;
use super::node::{Entry, Map, Node, Value};
use super::report::Report;
use super::yaml;

/// Keys of the long form.
const KEYS: [&str; 3] = ["ssh", "address", "labels"];

/// Returns the hosts of a mapping, in its order; what is wrong is reported.
pub(super) fn hosts(node: &Node, what: &str, report: &mut Report) -> Vec<HostEntry> {
    let mut found = Vec::new();
    match &node.value {
        Value::Unknown | Value::Null => {}
        Value::Map(map) => {
            for (name, entry) in map.iter() {
                found.extend(host(name, entry, &format!("{what}{name}"), report));
            }
        }
        other => {
            let message = format!("{} must be a mapping of names to addresses, not {}", named(what), other.kind());
            report.push(Diagnostic::error(message).at(node.span, "").help(InvalidAddress::HELP));
        }
    }
    found
}

fn named(what: &str) -> String {
    if what.is_empty() { "a hosts file".to_owned() } else { format!("`{}`", what.trim_end_matches('.')) }
}

fn host(name: &str, entry: &Entry, path: &str, report: &mut Report) -> Option<HostEntry> {
    let checked = hosts::host_name(name);
    if let Err(error) = &checked {
        report.push(Diagnostic::error(error.to_string()).at(entry.key, ""));
    }
    let long = match &entry.node.value {
        Value::Unknown => return None,
        Value::Str(_) => {
            let reach = ssh(&entry.node, report);
            return Some(HostEntry::new(checked.ok()?, reach?));
        }
        Value::Map(map) => map,
        other => {
            let message = format!("`{path}` must be an address or a mapping, not {}", other.kind());
            report.push(Diagnostic::error(message).at(place(entry), "").help(InvalidAddress::HELP));
            return None;
        }
    };
    for (key, unknown) in long.iter().filter(|(key, _)| !KEYS.contains(&key.as_str()) && !key.starts_with("x-")) {
        let problem = Diagnostic::error(format!("unknown key `{key}` in `{path}`")).at(unknown.key, "");
        let meant = did_you_mean(key, KEYS).map(|meant| format!("did you mean `{meant}`?"));
        report.push(problem.help(meant.unwrap_or_else(|| format!("a host has {}", KEYS.join(", ")))));
    }
    let reach = if let Some(node) = value(long, "ssh") {
        text(node, &format!("{path}.ssh"), report).and_then(|_| ssh(node, report))
    } else {
        let problem = Diagnostic::error(format!("`{path}` does not say where the host is")).at(entry.key, "");
        report.push(problem.help("add `ssh: ssh://user@host`"));
        None
    };
    let address = match value(long, "address") {
        None => None,
        Some(node) => Some(peer(node, &format!("{path}.address"), report)?),
    };
    let labels = value(long, "labels").map(|node| labels(node, &format!("{path}.labels"), report));
    Some(HostEntry { name: checked.ok()?, reach: reach?, address, labels: labels.unwrap_or_default() })
}

/// Where to point: what is empty has no text of its own.
fn place(entry: &Entry) -> Span {
    if entry.node.is_null() { entry.key } else { entry.node.span }
}

fn value<'a>(map: &'a Map, key: &str) -> Option<&'a Node> {
    map.get(key).map(|entry| &entry.node).filter(|node| !node.is_null() && !node.is_unknown())
}

fn text<'a>(node: &'a Node, path: &str, report: &mut Report) -> Option<&'a str> {
    if node.as_str().is_none() {
        let message = format!("`{path}` must be text, not {}", node.value.kind());
        report.push(Diagnostic::error(message).at(node.span, ""));
    }
    node.as_str()
}

fn ssh(node: &Node, report: &mut Report) -> Option<SshAddress> {
    let parsed = node.as_str()?.parse();
    parsed.map_err(|error| wrong(&error, node, InvalidAddress::HELP, report)).ok()
}

fn peer(node: &Node, path: &str, report: &mut Report) -> Option<PeerAddress> {
    let help = "it is where the other hosts reach this one: an IP address or a name";
    text(node, path, report)?.parse().map_err(|error| wrong(&error, node, help, report)).ok()
}

fn wrong(error: &InvalidAddress, node: &Node, help: &str, report: &mut Report) {
    report.push(Diagnostic::error(error.to_string()).at(node.span, "").help(help));
}

/// A mapping, or a list of `key=value`, as labels are everywhere in a compose file.
fn labels(node: &Node, path: &str, report: &mut Report) -> std::collections::BTreeMap<String, String> {
    let mut wrong = |node: &Node, must: &str| {
        report.push(Diagnostic::error(format!("`{path}` {must}, not {}", node.value.kind())).at(node.span, ""));
    };
    let mut found = std::collections::BTreeMap::new();
    match &node.value {
        Value::Map(map) => {
            for (key, entry) in map.iter() {
                match entry.node.value.scalar_text() {
                    Some(text) => drop(found.insert(key.clone(), text)),
                    None => wrong(&entry.node, "must have texts as values"),
                }
            }
        }
        Value::Seq(items) => {
            for item in items {
                match item.as_str() {
                    Some(text) => {
                        let (key, value) = text.split_once('=').unwrap_or((text, ""));
                        found.insert(key.to_owned(), value.to_owned());
                    }
                    None => wrong(item, "must be a list of `key=value`"),
                }
            }
        }
        _ => wrong(node, "must be a mapping"),
    }
    found
}

/// Reads a hosts file; `name` is how messages call it.
///
/// # Errors
/// All that is wrong with it, each at its place.
pub fn parse_hosts(name: &str, text: &str) -> Result<Vec<HostEntry>, Diagnostics> {
    let mut report = Report::default();
    let found = document(name, text, &mut report).map(|node| hosts(&node, "", &mut report)).unwrap_or_default();
    if report.failed() { Err(report.finish()) } else { Ok(found) }
}

/// The one document of a hosts file; `None`: it is empty, or what is wrong was reported.
fn document(name: &str, text: &str, report: &mut Report) -> Option<Node> {
    let source = report.sources.add(name, text);
    match yaml::parse(source, &report.sources) {
        Ok(mut documents) => {
            if let Some(second) = documents.get(1) {
                report.push(Diagnostic::error("a hosts file has one document only").at(second.span, ""));
            }
            (!documents.is_empty()).then(|| documents.swap_remove(0))
        }
        Err(problems) => {
            for problem in problems {
                report.push(problem);
            }
            None
        }
    }
}

/// Returns the text of a hosts file with `wanted` in it instead of what it held: comments, order and form of what stays
/// the same stay too.
pub fn edit_hosts(text: &str, wanted: &[HostEntry]) -> String {
    let says_so = |text: &String| parse_hosts("", text).is_ok_and(|found| found == wanted);
    let all = || wanted.iter().map(block).collect::<String>();
    // JSON is YAML, and quotes everything.
    let quoted = || {
        let map: IndexMap<&str, Written<'_>> = wanted.iter().map(|host| (host.name.as_str(), written(host))).collect();
        serde_json::to_string_pretty(&map).map_or_else(|_| String::new(), |json| json + "\n")
    };
    Some(edited(text, wanted)).filter(says_so).or_else(|| Some(all()).filter(says_so)).unwrap_or_else(quoted)
}

/// Changes the lines of those hosts that are not as wanted. Right for a mapping in block form, which the caller checks.
fn edited(text: &str, wanted: &[HostEntry]) -> String {
    let mut unheard = Report::default();
    let tree = document("", text, &mut unheard);
    let known = tree.as_ref().map(|node| hosts(node, "", &mut unheard)).unwrap_or_default();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let line_of = |offset: u32| text.get(..offset as usize).map_or(0, |before| before.matches('\n').count());
    let mut instead: Vec<Option<String>> = lines.iter().map(|line| Some((*line).to_owned())).collect();
    for (name, entry) in tree.iter().filter_map(Node::as_map).flatten() {
        let find = |list: &[HostEntry]| list.iter().find(|host| host.name.as_str() == name).cloned();
        let (before, after) = (find(&known), find(wanted));
        if before == after {
            continue;
        }
        let written = text.get(entry.key.start as usize..entry.node.span.end as usize).unwrap_or_default();
        let first = line_of(entry.key.start);
        let last = first + written.trim_end().matches('\n').count();
        for line in instead.iter_mut().take(last + 1).skip(first) {
            *line = None;
        }
        if let (Some(slot), Some(host)) = (instead.get_mut(first), after) {
            *slot = Some(block(&host));
        }
    }
    let mut out: String = instead.into_iter().flatten().collect();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    let new = wanted.iter().filter(|host| !known.iter().any(|old| old.name == host.name));
    out + &new.map(block).collect::<String>()
}

/// A host as files have it.
#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    Short(&'a SshAddress),
    Long(Long<'a>),
}

#[derive(Serialize)]
struct Long<'a> {
    ssh: &'a SshAddress,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a PeerAddress>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    labels: &'a std::collections::BTreeMap<String, String>,
}

fn written(host: &HostEntry) -> Written<'_> {
    let HostEntry { name: _, reach, address, labels } = host;
    if address.is_none() && labels.is_empty() {
        return Written::Short(reach);
    }
    Written::Long(Long { ssh: reach, address: address.as_ref(), labels })
}

/// Lines of one host in block form.
fn block(host: &HostEntry) -> String {
    let entry = serde_json::to_value(written(host)).unwrap_or_default();
    emit::to_yaml(&serde_json::json!({ host.name.as_str(): entry }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# The fleet.
a: ssh://u@h1   # the first

# Bigger.
b:
  ssh: h2
  labels: {disk: ssd, n: 1}
c: {ssh: 'h3:2222', address: 10.0.0.3}
";

    fn parsed(text: &str) -> Vec<HostEntry> {
        parse_hosts("hosts.yaml", text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn both_forms_are_read_in_the_order_of_the_file() {
        let hosts = parsed(FILE);
        let seen: Vec<String> = hosts.iter().map(|host| format!("{} {}", host.name, host.reach)).collect();
        assert_eq!(seen, ["a ssh://u@h1", "b ssh://h2", "c ssh://h3:2222"]);
        assert_eq!(hosts[1].labels, [("disk", "ssd"), ("n", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(hosts[2].address, Some("10.0.0.3".parse().expect("an address")));
        assert_eq!(parsed(""), []);
        assert_eq!(parsed("# nothing\n"), []);
    }

    #[test]
    fn every_mistake_has_its_place() {
        let text = "a: tcp://h\nb: {labels: {x: [1]}}\nc: [h]\nlocal: h\nd: {ssh: h, lables: {}}\ne:\nf: {ssh: 1}\n\
                    g: {ssh: h, address: '-x'}\n-h: ssh://-o\n";
        let problems = parse_hosts("hosts.yaml", text).expect_err("all wrong").to_string();
        insta::assert_snapshot!(problems);
        let list = parse_hosts("hosts.yaml", "- a\n").expect_err("a list").to_string();
        assert!(list.contains("a hosts file must be a mapping of names to addresses, not a list"), "{list}");
    }

    #[test]
    fn an_edit_leaves_the_rest_as_it_is() {
        let mut hosts = parsed(FILE);
        assert_eq!(edit_hosts(FILE, &hosts), FILE);
        let added = HostEntry { labels: [("on".to_owned(), "y".to_owned())].into(), ..hosts[0].clone() };
        hosts.remove(1);
        hosts.push(HostEntry { name: "null".parse().expect("a name"), ..added });
        let edited = edit_hosts(FILE, &hosts);
        assert_eq!(parsed(&edited), hosts);
        assert!(edited.starts_with("# The fleet.\na: ssh://u@h1   # the first\n\n# Bigger.\nc: {ssh:"), "{edited}");
        hosts[0].address = Some("10.0.0.1".parse().expect("an address"));
        let edited = edit_hosts(&edited, &hosts);
        assert_eq!(parsed(&edited), hosts);
        assert!(edited.contains("# Bigger."), "{edited}");
    }

    #[test]
    fn any_form_of_file_can_be_edited() {
        let hosts = parsed(FILE);
        for before in ["", "# only a comment", "{a: h9, z: h8}", "a: h1", "{}", "--- # start\na: x\n"] {
            assert_eq!(parsed(&edit_hosts(before, &hosts)), hosts, "{before}");
            assert_eq!(parsed(&edit_hosts(before, &[])), [], "{before}");
        }
    }
}
