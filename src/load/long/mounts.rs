//! `volumes` and `devices`: `[SOURCE:]TARGET[:OPTIONS]`.

use crate::diag::Diagnostic;
use crate::load::node::{Node, Value};
use crate::load::report::Report;

const SPEC: &str = "05-services.md#volumes";

/// Makes a short mount long.
pub(super) fn volume(mut node: Node, report: &mut Report) -> Vec<Node> {
    let Some(text) = node.as_str().map(str::to_owned) else {
        if let Some(target) = node.str("target").map(clean) {
            let span = node.get("target").map_or(node.span, |target| target.span);
            if let Some(slot) = node.get_mut("target") {
                *slot = Node::text(span, target);
            }
        }
        return vec![node];
    };
    match split(&text) {
        Ok((source, target, options)) => vec![long(&node, source, target, options, report)],
        Err(message) => {
            let problem = Diagnostic::error(message).at(node.span, "");
            report.push(problem.help("write `[SOURCE:]TARGET[:OPTIONS]`").spec(SPEC));
            Vec::new()
        }
    }
}

/// Source, target and options. One or two characters are a target, as in Docker Compose.
fn split(text: &str) -> Result<(Option<&str>, &str, &str), String> {
    if text.is_empty() {
        return Err("a mount must not be empty".to_owned());
    }
    if text.chars().count() <= 2 {
        return Ok((None, text, ""));
    }
    let parts: Vec<&str> = text.split(':').collect();
    if let [drive, rest, ..] = parts.as_slice()
        && drive.len() == 1
        && drive.starts_with(|c: char| c.is_ascii_alphabetic())
        && rest.starts_with(['/', '\\'])
    {
        return Err(if rest.starts_with('\\') {
            format!("`{drive}:{rest}` is a path of Windows, and hosts run Linux")
        } else {
            format!("`{drive}:` is the drive of a Windows path to Docker Compose; name the volume otherwise")
        });
    }
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("`{text}` has an empty section between colons"));
    }
    match parts.as_slice() {
        [target] => Ok((None, target, "")),
        [source, target] => Ok((Some(source), target, "")),
        [source, target, options] => Ok((Some(source), target, options)),
        _ => Err(format!("`{text}` has too many colons")),
    }
}

fn long(node: &Node, source: Option<&str>, target: &str, options: &str, report: &mut Report) -> Node {
    let text = |text: &str| Value::Str(text.to_owned());
    let bind = source.is_some_and(is_path);
    let mut bind_options = Vec::new();
    let mut volume_options = Vec::new();
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "rw" => read_only = option == "ro",
            "z" | "Z" => bind_options.push(("selinux", text(option))),
            "nocopy" => volume_options.push(("nocopy", Value::Bool(true))),
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                bind_options.push(("propagation", text(option)));
            }
            "cached" | "delegated" | "consistent" => {}
            unknown => {
                let problem = Diagnostic::warning(format!("the mount option `{unknown}` is unknown and has no effect"));
                let at = node.as_str().and_then(|text| text.rfind(unknown)).unwrap_or(0);
                let span = report.part(node, at, at + unknown.len());
                report.push(problem.at(span, "").help("known are ro, rw, z, Z, nocopy and propagation").spec(SPEC));
            }
        }
    }
    if bind {
        bind_options.push(("create_host_path", Value::Bool(true)));
    }
    let mut entries = vec![("type", text(if bind { "bind" } else { "volume" }))];
    entries.extend(source.map(|source| ("source", text(source))));
    entries.push(("target", Value::Str(clean(target))));
    if read_only {
        entries.push(("read_only", Value::Bool(true)));
    }
    if !bind_options.is_empty() {
        entries.push(("bind", Node::map(node.span, bind_options).value));
    }
    let one_or_two = node.as_str().is_some_and(|text| text.chars().count() <= 2);
    if !bind && !one_or_two || !volume_options.is_empty() {
        entries.push(("volume", Node::map(node.span, volume_options).value));
    }
    Node::map(node.span, entries)
}

/// Whether a source is a path of the host rather than the name of a volume.
fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~', '\\'])
}

/// A path of a container without `.`, `..` and doubled slashes, as Go's `path.Clean`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// What makes a mount or a device unique: its path in the container.
pub(in crate::load) fn target(node: &Node) -> String {
    node.str("target").unwrap_or_default().to_owned()
}

/// Makes a short device long: `SOURCE[:TARGET[:PERMISSIONS]]`, or a CDI name.
pub(super) fn device(node: Node, report: &mut Report) -> Vec<Node> {
    let Some(text) = node.as_str() else { return vec![node] };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => {
            let problem = Diagnostic::error(format!("`{text}` is not a device")).at(node.span, "");
            let help = "write `SOURCE[:TARGET[:PERMISSIONS]]`";
            report.push(problem.help(help).spec("05-services.md#devices"));
            return Vec::new();
        }
    };
    let entries = [("source", source), ("target", target), ("permissions", permissions)];
    vec![Node::map(node.span, entries.map(|(key, value)| (key, Value::Str(value.to_owned()))))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_paths_are_cleaned() {
        for (path, expected) in
            [("/c/", "/c"), ("/a/../b", "/b"), ("/..", "/"), ("a//b/./", "a/b"), ("", "."), ("../a", "../a")]
        {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
