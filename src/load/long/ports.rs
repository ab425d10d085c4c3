//! `ports` and `expose`: `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]` with ranges.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::diag::Diagnostic;
use crate::load::node::{Node, Value};
use crate::load::report::Report;

const SPEC: &str = "05-services.md#ports";
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// A problem, with the part of the text that it lies in.
pub(in crate::load) type Problem = (String, std::ops::Range<usize>);

/// Makes a short port long; a range of targets becomes several. Long ones get their defaults.
pub(super) fn port(mut node: Node, report: &mut Report) -> Vec<Node> {
    let text = match &node.value {
        Value::Map(_) => {
            if !report.takes_ports(1, node.span) {
                return Vec::new();
            }
            let defaults = [("mode", "ingress"), ("protocol", "tcp")];
            for (key, value) in defaults {
                if !node.says(key) {
                    node.set(key, Value::Str(value.to_owned()));
                }
            }
            return vec![node];
        }
        Value::Str(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        _ => return vec![node],
    };
    match parse(&text) {
        Ok(short) if report.takes_ports(short.target.len(), node.span) => short.expand(&node),
        Ok(_) => Vec::new(),
        Err((message, range)) => {
            let span = report.part(&node, range.start, range.end);
            let help = if text.contains(['“', '”', '„', '‘', '’']) {
                "quotes of YAML are `\"` and `'`; these are a typesetter's"
            } else {
                "write `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]`, such as `127.0.0.1:8080:80`"
            };
            report.push(Diagnostic::error(message).at(span, "").help(help).spec(SPEC));
            Vec::new()
        }
    }
}

pub(in crate::load) struct Short<'a> {
    pub(in crate::load) address: Option<&'a str>,
    pub(in crate::load) published: Option<RangeInclusive<u16>>,
    pub(in crate::load) target: RangeInclusive<u16>,
    pub(in crate::load) protocol: String,
}

impl Short<'_> {
    fn expand(&self, node: &Node) -> Vec<Node> {
        let paired = self.target.len() > 1;
        let published = |index: usize| {
            let range = self.published.as_ref()?;
            Some(match range.clone().nth(index) {
                Some(port) if paired || range.len() == 1 => port.to_string(),
                _ => format!("{}-{}", range.start(), range.end()),
            })
        };
        let one = |(index, target): (usize, u16)| {
            let text = |text: &str| Value::Str(text.to_owned());
            let mut entries = vec![("mode", text("ingress"))];
            entries.extend(self.address.map(|address| ("host_ip", text(address))));
            entries.push(("target", Value::Int(target.into())));
            entries.extend(published(index).map(|published| ("published", Value::Str(published))));
            entries.push(("protocol", text(&self.protocol)));
            Node::map(node.span, entries)
        };
        self.target.clone().enumerate().map(one).collect()
    }
}

pub(in crate::load) fn parse(text: &str) -> Result<Short<'_>, Problem> {
    let (rest, protocol) = match text.rsplit_once('/') {
        Some((rest, protocol)) => (rest, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err((format!("`{protocol}` is not a protocol"), rest.len() + 1..text.len()));
    }
    let mut parts = rest.rsplitn(3, ':');
    let target = parts.next().unwrap_or_default();
    let (published, address) = (parts.next(), parts.next());
    let target_at = rest.len() - target.len();
    let target = range(target, 1).ok_or_else(|| (not_a_port(target, "target"), target_at..rest.len()))?;
    let published = match published {
        None | Some("") => None,
        Some(text) => {
            let at = target_at - 1 - text.len();
            Some(range(text, 0).ok_or_else(|| (not_a_port(text, "published"), at..target_at - 1))?)
        }
    };
    let address = match address {
        None | Some("") => None,
        Some(text) => {
            let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
            if bare.parse::<IpAddr>().is_err() {
                return Err((format!("`{text}` is not an IP address"), 0..text.len()));
            }
            Some(bare)
        }
    };
    if let Some(range) = &published
        && target.len() > 1
        && range.len() != target.len()
    {
        let message = format!("{} published ports do not fit {} targets", range.len(), target.len());
        return Err((message, 0..text.len()));
    }
    Ok(Short { address, published, target, protocol })
}

fn not_a_port(text: &str, which: &str) -> String {
    format!("`{text}` is not a {which} port or range of ports")
}

/// `80` or `80-82`.
fn range(text: &str, least: u16) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first >= least && first <= last).then_some(first..=last)
}

/// Returns whether text is a published port or range: `8080`, `8000-8010`; `0` lets orch choose.
pub(in crate::load) fn is_published(text: &str) -> bool {
    range(text, 0).is_some()
}

/// What makes a port unique among those of a service.
pub(in crate::load) fn port_key(node: &Node) -> String {
    let part = |key: &str| node.get(key).and_then(|node| node.value.scalar_text()).unwrap_or_default();
    let address = Some(part("host_ip")).filter(|address| !address.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
    format!("{address}:{}:{}/{}", part("published"), part("target"), part("protocol").to_ascii_lowercase())
}

/// Makes an exposed port text and checks it: `80`, `53/udp`, `8000-8010`.
pub(super) fn expose(node: Node, report: &mut Report) -> Vec<Node> {
    let text = match &node.value {
        Value::Null => String::new(),
        Value::Str(_) | Value::Int(_) | Value::Float(_) => node.value.scalar_text().unwrap_or_default(),
        _ => return vec![node],
    };
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((&text, "tcp"));
    let Some(range) = range(ports, 1).filter(|_| PROTOCOLS.contains(&protocol.to_ascii_lowercase().as_str())) else {
        let problem = Diagnostic::error(format!("`{text}` is not a port that a service can expose"));
        let help = "write `PORT`, `PORT/PROTOCOL` or `FIRST-LAST`; to publish a port on the host use `ports`";
        report.push(problem.at(node.span, "").help(help).spec("05-services.md#expose"));
        return Vec::new();
    };
    if report.takes_ports(range.len(), node.span) { vec![node.with(Value::Str(text))] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match parse(text) {
            Ok(short) => format!(
                "{} {} {} {}",
                short.address.unwrap_or("*"),
                short.published.map_or("-".to_owned(), |range| format!("{range:?}")),
                format_args!("{:?}", short.target),
                short.protocol
            ),
            Err((message, range)) => format!("{message} @{range:?}"),
        }
    }

    /// Rows without `@` were run through Docker Compose 2.40, but for the one without brackets, which it refuses
    /// although the specification allows it.
    #[test]
    fn short_ports() {
        for (text, expected) in [
            ("80", "* - 80..=80 tcp"),
            ("80-82", "* - 80..=82 tcp"),
            ("8080-8082:80-82", "* 8080..=8082 80..=82 tcp"),
            ("8000-8010:80", "* 8000..=8010 80..=80 tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080..=8080 80..=80 tcp"),
            ("127.0.0.1::80", "127.0.0.1 - 80..=80 tcp"),
            ("[::1]:80:80", "::1 80..=80 80..=80 tcp"),
            ("::1:6000:6000", "::1 6000..=6000 6000..=6000 tcp"),
            ("53:53/UDP", "* 53..=53 53..=53 udp"),
            ("80/sctp", "* - 80..=80 sctp"),
            ("0:80", "* 0..=0 80..=80 tcp"),
            ("127.0.0.1:80", "`127.0.0.1` is not a published port or range of ports @0..9"),
            ("8000-8001:80-82", "2 published ports do not fit 3 targets @0..15"),
            ("80:70000", "`70000` is not a target port or range of ports @3..8"),
            ("a:80", "`a` is not a published port or range of ports @0..1"),
            ("host:80:80", "`host` is not an IP address @0..4"),
            ("80:80:80", "`80` is not an IP address @0..2"),
            ("80/foo", "`foo` is not a protocol @3..6"),
            ("82-80", "`82-80` is not a target port or range of ports @0..5"),
            ("", "`` is not a target port or range of ports @0..0"),
            ("0", "`0` is not a target port or range of ports @0..1"),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }
}
