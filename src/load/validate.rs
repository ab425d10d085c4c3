//! What the table of rules cannot say: values that must agree, names that must exist, cycles.
//!
//! All of these run on the merged tree, so that every message has its place; each looks at well-formed parts only and
//! is silent about what an earlier phase has reported.

mod entries;
mod references;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::diag::{Diagnostic, Span};

use super::helpers::containers;
use super::long::{config_target, is_published, secret_target};
use super::node::{Entry, Node, Value};
use super::report::Report;

pub(super) use references::{names, references};

/// Checks values that belong together, and where a `whole` project is wanted that nothing is missing and nothing is said twice.
pub(super) fn validate(tree: &Node, whole: bool, report: &mut Report) {
    for (name, entry) in containers(tree) {
        let mut check = Container { name, entry, report };
        if whole {
            check.image();
            check.agreements();
            check.one_kind_of_network();
        }
        check.words();
        check.health();
        check.networks();
        check.ports();
        check.mounts(whole);
        check.files();
        check.secrets_of_the_build();
        check.required();
        check.devices();
        check.build();
        check.develop();
        check.keys_of_entries();
    }
    let mut names: BTreeMap<String, Span> = BTreeMap::new();
    for (name, entry) in tree.entries("services").filter(|(_, entry)| whole && entry.node.as_map().is_some()) {
        container_name(name, &entry.node, &mut names, report);
    }
    for (key, entry) in tree.entries("networks") {
        subnets(key, &entry.node, report);
    }
    for kind in ["configs", "secrets"] {
        for (key, entry) in tree.entries(kind) {
            one_source((kind, key), entry, whole, report);
        }
    }
    for (key, entry) in tree.entries("models").filter(|(_, entry)| entry.node.as_map().is_some()) {
        if entry.node.get("model").is_none_or(Node::is_null) {
            let problem = Diagnostic::error(format!("model `{key}` needs a `model`")).at(entry.key, "");
            report.push(problem.help("name the model, such as `ai/smollm2`").spec("05-services.md#models"));
        }
    }
    external(tree, report);
}

/// A service, or a container beside one.
struct Container<'a> {
    /// As a message calls it: "service `web`".
    name: String,
    entry: &'a Entry,
    report: &'a mut Report,
}

impl Container<'_> {
    fn node(&self) -> &Node {
        &self.entry.node
    }

    fn error(&mut self, span: Span, message: String, help: &str, spec: &'static str) {
        let mut problem = Diagnostic::error(message).at(span, "").spec(spec);
        if !help.is_empty() {
            problem = problem.help(help);
        }
        self.report.push(problem);
    }

    fn image(&mut self) {
        let image = self.node().get("image");
        let other =
            ["build", "provider"].into_iter().any(|key| self.node().get(key).is_some_and(|node| !node.is_null()));
        // A misspelt key is told already.
        let span = self.entry.node.span;
        let is_meant = ["image", "build", "provider"].into_iter().any(|key| self.report.means(span, key));
        if image.is_none_or(|image| image.as_str() == Some("")) && !other && !is_meant {
            let message = format!("{} has no image", self.name);
            let span = image.map_or(self.entry.key, |image| image.span);
            self.error(span, message, "add `image: NAME`", "05-services.md#image");
        }
    }

    /// Two keys for one thing must say the same.
    fn agreements(&mut self) {
        for (key, path) in [
            ("scale", "replicas"),
            ("cpus", "resources.limits.cpus"),
            ("mem_limit", "resources.limits.memory"),
            ("pids_limit", "resources.limits.pids"),
            ("mem_reservation", "resources.reservations.memory"),
        ] {
            let node = self.node();
            let deploy = path.split('.').try_fold(node.get("deploy"), |at, key| Some(at?.get(key)));
            let (Some(short), Some(Some(long))) = (node.get(key), deploy) else { continue };
            // No limit is none that differs: 0 is that, but of replicas.
            let says_nothing = key != "scale" && short.value.scalar_text().is_some_and(|text| text.parse() == Ok(0.0));
            if says_nothing || short.is_null() || long.is_null() || same_number(&short.value, &long.value) {
                continue;
            }
            let message = format!("`{key}` and `deploy.{path}` of {} differ", self.name);
            let problem = Diagnostic::error(message).at(short.span, "this").also(long.span, "and this");
            self.report.push(problem.help("say it once").spec("deploy.md"));
        }
    }

    fn words(&mut self) {
        if let Some(restart) = self.node().get("restart")
            && let Some(text) = restart.as_str()
        {
            let attempts = text.strip_prefix("on-failure:").map(|number| number.parse::<u32>().is_ok());
            let known =
                matches!(text, "" | "no" | "always" | "on-failure" | "unless-stopped") || attempts == Some(true);
            if !known {
                let message = format!("`{text}` is not a restart policy");
                let help = "use `\"no\"`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`";
                self.error(restart.span, message, help, "05-services.md#restart");
            }
        }
        if let Some(policy) = self.node().get("pull_policy")
            && let Some(text) = policy.as_str()
            && !is_pull_policy(text)
        {
            let message = format!("`{text}` is not a pull policy");
            let help = "use `always`, `missing`, `never`, `daily`, `weekly` or `every_12h`";
            self.error(policy.span, message, help, "05-services.md#pull_policy");
        }
    }

    fn health(&mut self) {
        let Some(health) = self.node().get("healthcheck") else { return };
        let (Some(test), spec) = (health.get("test"), "05-services.md#healthcheck") else { return };
        let Some(first) = test.as_seq().and_then(<[Node]>::first) else { return };
        let word = first.as_str().unwrap_or_default();
        if !matches!(word, "NONE" | "CMD" | "CMD-SHELL") {
            let message = format!("`test` must start with `CMD`, `CMD-SHELL` or `NONE`, not `{word}`");
            self.error(first.span, message, "as plain text it runs in the container's shell", spec);
        } else if word != "NONE" && test.as_seq().is_some_and(|items| items.len() < 2) {
            self.error(test.span, format!("`test` has nothing to run after `{word}`"), "", spec);
        }
    }

    fn one_kind_of_network(&mut self) {
        let networks = self.node().entries("networks").next().is_some();
        if let Some(mode) = self.node().get("network_mode").filter(|mode| mode.as_str().is_some_and(|m| !m.is_empty()))
            && networks
            && let Some(listed) = self.node().get("networks")
        {
            let message = format!("{} has both `network_mode` and `networks`", self.name);
            let problem = Diagnostic::error(message).at(mode.span, "").also(listed.span, "");
            self.report.push(problem.help("keep one of them").spec("05-services.md#network_mode"));
        }
    }

    fn networks(&mut self) {
        for (_, entry) in self.entry.node.entries("networks") {
            if let Some(address) = entry.node.get("ipv4_address")
                && address.as_str().is_some_and(|text| !text.is_empty() && text.parse::<Ipv4Addr>().is_err())
            {
                let message = format!("`{}` is not an IPv4 address", address.as_str().unwrap_or_default());
                self.error(address.span, message, "", "05-services.md#ipv4_address-ipv6_address");
            }
            if let Some(address) = entry.node.get("ipv6_address")
                && address.as_str().is_some_and(|text| !text.is_empty() && text.parse::<Ipv6Addr>().is_err())
            {
                let message = format!("`{}` is not an IPv6 address", address.as_str().unwrap_or_default());
                self.error(address.span, message, "", "05-services.md#ipv4_address-ipv6_address");
            }
        }
    }

    fn ports(&mut self) {
        for port in self.entry.node.items("ports") {
            let spec = "05-services.md#ports";
            if port.as_map().is_some() && port.get("target").is_none() {
                self.error(port.span, "a port needs a `target`".to_owned(), "it is the container's port", spec);
            }
            if let Some(published) = port.get("published")
                && published.value.scalar_text().is_some_and(|text| !text.is_empty() && !is_published(&text))
            {
                let text = published.value.scalar_text().unwrap_or_default();
                self.error(published.span, format!("`{text}` is not a port or range of ports"), "", spec);
            }
            if let Some(address) = port.get("host_ip")
                && address.as_str().is_some_and(|text| !text.is_empty() && text.parse::<IpAddr>().is_err())
            {
                let text = address.as_str().unwrap_or_default();
                self.error(address.span, format!("`{text}` is not an IP address"), "", spec);
            }
            if let Some(protocol) = port.get("protocol")
                && protocol.as_str().is_some_and(|text| !matches!(text, "" | "tcp" | "udp" | "sctp"))
            {
                let text = protocol.as_str().unwrap_or_default();
                self.error(protocol.span, format!("`{text}` is not a protocol"), "use tcp, udp or sctp", spec);
            }
        }
    }

    /// Mounts, of which two may be at one path where no `whole` project is wanted.
    fn mounts(&mut self, whole: bool) {
        let mut targets: BTreeMap<String, Span> = BTreeMap::new();
        for volume in self.entry.node.items("volumes").iter().filter(|volume| volume.as_map().is_some()) {
            let spec = "05-services.md#volumes";
            // Text that became a mapping by a slip lacks all of this.
            if self.report.tells_of(volume.span) && volume.get("type").is_none() && volume.get("target").is_none() {
                continue;
            }
            if volume.get("type").is_none() {
                self.error(volume.span, "a mount needs a `type`".to_owned(), "bind, volume or tmpfs", spec);
            }
            let source = volume.str("source").unwrap_or_default();
            if volume.str("type") == Some("bind") && source.is_empty() {
                self.error(volume.span, "a bind mount needs a `source`".to_owned(), "a path of the host", spec);
            }
            match volume.get("target") {
                None => self.error(volume.span, "a mount needs a `target`".to_owned(), "", spec),
                // Pipes of Windows have paths of their own.
                Some(_) if volume.str("type") == Some("npipe") => {}
                Some(target) => self.target(target, whole.then_some(&mut targets), spec),
            }
        }
        for tmpfs in self.entry.node.items("tmpfs") {
            if let Some(path) = tmpfs.as_str().map(|text| text.split(':').next().unwrap_or(text)) {
                let target = Node::text(tmpfs.span, path);
                self.target(&target, whole.then_some(&mut targets), "05-services.md#tmpfs");
            }
        }
    }

    fn target(&mut self, target: &Node, seen: Option<&mut BTreeMap<String, Span>>, spec: &'static str) {
        let Some(path) = target.as_str() else { return };
        if !path.starts_with('/') {
            let message = format!("`{path}` is not an absolute path in the container");
            self.error(target.span, message, "start it with `/`", spec);
        } else if let Some(before) =
            seen.and_then(|seen| seen.insert(path.trim_end_matches('/').to_owned(), target.span))
        {
            let message = format!("{} mounts two things at `{path}`", self.name);
            self.report.push(Diagnostic::error(message).at(target.span, "again").also(before, "first").spec(spec));
        }
    }

    fn files(&mut self) {
        for (kind, path) in [("configs", config_target as fn(&Node) -> String), ("secrets", secret_target)] {
            for reference in self.entry.node.items(kind).iter().filter(|reference| reference.as_map().is_some()) {
                // The name of one that stands at a wrong place is told.
                if reference.get("source").is_none() && self.report.tells_of(reference.span) {
                    continue;
                }
                if reference.str("source").is_none_or(str::is_empty) && !path(reference).is_empty() {
                    let message = format!("an entry of `{kind}` of {} needs a `source`", self.name);
                    self.error(reference.span, message, "", "05-services.md#configs");
                }
            }
        }
    }

    /// Secrets of a build: each is one of the project's.
    fn secrets_of_the_build(&mut self) {
        let secrets = self.entry.node.get("build").map(|build| build.items("secrets")).unwrap_or_default();
        for secret in secrets.iter().filter(|secret| secret.as_map().is_some()) {
            if secret.str("source").is_none_or(str::is_empty) {
                let message = format!("an entry of `build.secrets` of {} needs a `source`", self.name);
                self.error(secret.span, message, "", "build.md#secrets");
            }
        }
    }

    /// Requests for devices: how many or which, and what they can do.
    fn devices(&mut self) {
        let node = &self.entry.node;
        let path = ["deploy", "resources", "reservations"];
        let reserved = path.into_iter().try_fold(node, |at, key| at.get(key));
        let reserved = reserved.into_iter().flat_map(|reservations| reservations.items("devices"));
        let requests = node.items("gpus").iter().map(|one| (one, "05-services.md#gpus", false));
        let requests = requests.chain(reserved.map(|one| (one, "deploy.md#devices", true)));
        for (request, spec, needs_capabilities) in requests.filter(|(request, ..)| request.as_map().is_some()) {
            if let (Some(count), Some(ids)) = (request.get("count"), request.get("device_ids")) {
                let problem = Diagnostic::error("`count` and `device_ids` exclude each other".to_owned());
                self.report.push(problem.at(count.span, "").also(ids.span, "").help("keep one of them").spec(spec));
            }
            if let Some(count) = request.get("count").filter(|count| count.value == Value::Int(0)) {
                self.error(count.span, "`count` must be `all` or 1 or more".to_owned(), "", spec);
            }
            if needs_capabilities && request.items("capabilities").is_empty() {
                let message = format!("a device of {} needs `capabilities`", self.name);
                self.error(request.span, message, "such as `[gpu]`", spec);
            }
        }
    }

    /// Keys that a long form cannot do without.
    fn required(&mut self) {
        for (_, entry) in self.entry.node.entries("depends_on") {
            if entry.node.as_map().is_some() && entry.node.get("condition").is_none() {
                let help = "service_started, service_healthy or service_completed_successfully";
                let message = "a dependency in long form needs a `condition`".to_owned();
                self.error(entry.key, message, help, "05-services.md#depends_on");
            }
        }
        let node = &self.entry.node;
        let of_build = node.get("build").into_iter().flat_map(|build| build.entries("ulimits"));
        for (name, entry) in node.entries("ulimits").chain(of_build) {
            let both = entry.node.get("soft").is_some() && entry.node.get("hard").is_some();
            if entry.node.as_map().is_some() && !both {
                let message = format!("the limit `{name}` needs both `soft` and `hard`");
                self.error(entry.key, message, "or a single number", "05-services.md#ulimits");
            }
        }
        for (key, needed) in [("devices", ["source", "target"]), ("env_file", ["path", "path"])] {
            for item in self.entry.node.items(key).iter().filter(|item| item.as_map().is_some()) {
                let lacks =
                    |needed: &&str| item.get(needed).is_none() || key == "devices" && item.str(needed) == Some("");
                if let Some(missing) = needed.into_iter().find(lacks) {
                    let message = format!("an entry of `{key}` of {} needs a `{missing}`", self.name);
                    self.error(item.span, message, "", "05-services.md");
                }
            }
        }
    }
}

fn same_number(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| value.scalar_text().and_then(|text| text.parse::<f64>().ok());
    match (number(a), number(b)) {
        (Some(a), Some(b)) => (a - b).abs() < f64::EPSILON,
        _ => true,
    }
}

fn is_pull_policy(text: &str) -> bool {
    // Whole numbers, each with one of these units.
    let is_span = |text: &str| {
        let is_plain = text.chars().all(|c| c.is_ascii_digit() || "wdhms".contains(c));
        is_plain
            && !text.ends_with(|c: char| c.is_ascii_digit())
            && crate::model::quantity::parse_duration(text).is_ok()
    };
    let every = text.strip_prefix("every_").is_some_and(is_span);
    let words = ["", "always", "never", "missing", "if_not_present", "build", "daily", "weekly", "refresh"];
    every || words.contains(&text)
}

/// A fixed name must be valid, unique, and of a service with one replica.
fn container_name(service: &str, node: &Node, names: &mut BTreeMap<String, Span>, report: &mut Report) {
    let Some(name) = node.get("container_name") else { return };
    let Some(text) = name.as_str().filter(|text| !text.is_empty()) else { return };
    let spec = "05-services.md#container_name";
    let mut chars = text.chars();
    let valid = chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && text.len() > 1
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if !valid {
        let problem = Diagnostic::error(format!("`{text}` is not a valid container name")).at(name.span, "");
        let help = "two or more letters, digits, `_`, `.` or `-`, starting with a letter or digit";
        report.push(problem.help(help).spec(spec));
    }
    if let Some(before) = names.insert(text.to_owned(), name.span) {
        let message = format!("two services have the container name `{text}`");
        report.push(Diagnostic::error(message).at(name.span, "again").also(before, "first").spec(spec));
    }
    let replicas = node.get("scale").or_else(|| node.get("deploy").and_then(|deploy| deploy.get("replicas")));
    if let Some(replicas) = replicas
        && matches!(replicas.value, Value::Int(number) if number > 1)
    {
        let message = format!("service `{service}` has a fixed container name, so it cannot have several replicas");
        report.push(Diagnostic::error(message).at(replicas.span, "").also(name.span, "the name").spec(spec));
    }
}

fn subnets(network: &str, node: &Node, report: &mut Report) {
    let Some(ipam) = node.get("ipam") else { return };
    for config in ipam.items("config") {
        for (key, range) in [("subnet", true), ("ip_range", true), ("gateway", false)] {
            let Some(value) = config.get(key) else { continue };
            let Some(text) = value.as_str().filter(|text| !text.is_empty()) else { continue };
            let valid = if range { text.parse::<ipnet::IpNet>().is_ok() } else { text.parse::<IpAddr>().is_ok() };
            if !valid {
                let what = if range { "a subnet such as `10.0.0.0/24`" } else { "an IP address" };
                let message = format!("`{key}` of network `{network}` must be {what}, not `{text}`");
                report.push(Diagnostic::error(message).at(value.span, "").spec("06-networks.md#ipam"));
            }
        }
    }
}

/// A config or secret comes from exactly one place.
fn one_source((kind, key): (&str, &str), entry: &Entry, whole: bool, report: &mut Report) {
    let Some(map) = entry.node.as_map() else { return };
    let said: Vec<(&String, &Entry)> = map
        .iter()
        .filter(|(name, _)| matches!(name.as_str(), "file" | "content" | "environment" | "external"))
        .filter(|(_, entry)| !matches!(entry.node.value, Value::Null | Value::Bool(false)))
        .collect();
    let singular = kind.trim_end_matches('s');
    let choices = if kind == "configs" {
        "`file`, `content`, `environment` or `external`"
    } else {
        "`file`, `environment` or `external`"
    };
    let spec = if kind == "configs" { "08-configs.md" } else { "09-secrets.md" };
    match said.as_slice() {
        [_] => {}
        // It may be what a key says that is misspelt.
        [] if !whole || report.tells_of(entry.node.span) => {}
        [] => {
            let problem = Diagnostic::error(format!("{singular} `{key}` says nothing of where it comes from"));
            report.push(problem.at(entry.key, "").help(format!("give it one of {choices}")).spec(spec));
        }
        [(first_name, first), (name, second), ..] => {
            let message = format!("{singular} `{key}` has both `{first_name}` and `{name}`");
            let problem = Diagnostic::error(message).at(second.key, "").also(first.key, "");
            report.push(problem.help(format!("keep one of {choices}")).spec(spec));
        }
    }
}

/// What others manage cannot be described here as well. Docker Compose checks this for volumes only.
fn external(tree: &Node, report: &mut Report) {
    for kind in ["networks", "volumes"] {
        for (key, entry) in tree.entries(kind) {
            let is_external = entry.node.get("external").is_some_and(|node| node.value == Value::Bool(true));
            let other = entry.node.as_map().into_iter().flatten().find(|(name, entry)| {
                !matches!(name.as_str(), "name" | "external") && !name.starts_with("x-") && !entry.node.is_null()
            });
            if let (true, Some((name, other))) = (is_external, other) {
                let singular = kind.trim_end_matches('s');
                let message = format!("{singular} `{key}` is external, so `{name}` has no effect");
                let problem = if kind == "volumes" { Diagnostic::error(message) } else { Diagnostic::warning(message) };
                report.push(problem.at(other.key, "").help("remove one of the two"));
            }
        }
    }
}
