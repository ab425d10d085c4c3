//! A project as a picture: what there is (nodes) and what leads where (edges), drawn from the graph that `up` would hand
//! over, and written as text, for Graphviz, as SVG or as JSON.
//!
//! A pod of several containers is one box with a line for each of its parts: what is wired to what is a matter of services.
//! Start at [`Drawing::of`]. Pure: the same graph gives the same text on any machine.

mod dot;
mod layout;
mod svg;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::graph::{Condition, Graph, MountSource, NetworkMode, Protocol, Role, Scale, Service};
use crate::ids::{HostName, PodId, ResourceKey, ServiceName};
use crate::model::{AmbassadorTarget, Route, RouteAction};

/// Which host each pod is on.
pub(crate) type Placed = BTreeMap<PodId, HostName>;

/// What is drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Drawing {
    /// Name of the project.
    pub project: String,
    /// What there is: entries, services, what is outside, networks, volumes; each kind by name.
    pub nodes: Vec<Node>,
    /// What leads where.
    pub edges: Vec<Edge>,
}

/// A thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    /// What it is.
    pub kind: Kind,
    /// Its name among those of its kind.
    pub name: String,
    /// More about it, a line each.
    pub lines: Vec<String>,
}

/// Kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Where requests come in: a route, or a published port.
    Entry,
    /// A service, with all that is in its pods.
    Service,
    /// What is not of this project: a service of another one, an address.
    Outside,
    /// A network.
    Network,
    /// A volume that has a name.
    Volume,
}

/// A connection of two nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Edge {
    /// Where it begins.
    pub from: (Kind, String),
    /// Where it ends.
    pub to: (Kind, String),
    /// What it means.
    pub means: Means,
    /// More about it; may be empty.
    pub label: String,
}

/// What an edge means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Means {
    /// Requests or connections come in.
    Enters,
    /// Is started after.
    DependsOn,
    /// Shares namespaces or mounts with, on one host.
    Shares,
    /// Knows by a name of its own.
    Links,
    /// Reaches by an ambassador.
    Ambassador,
    /// Is connected to.
    On,
    /// Mounts.
    Mounts,
}

impl Drawing {
    /// Draws a graph; `placed` may be empty.
    pub(crate) fn of(graph: &Graph, placed: &Placed) -> Self {
        let mut drawing = Self { project: graph.project.to_string(), nodes: Vec::new(), edges: Vec::new() };
        for name in fronts(graph) {
            drawing.service(graph, name, placed);
        }
        for (key, network) in &graph.networks {
            let external = network.external.then_some("external");
            let internal = network.internal.then_some("internal");
            let driver = network.driver.as_deref().filter(|driver| *driver != "bridge");
            drawing.add(Kind::Network, key.as_str(), words([external, internal, driver]));
        }
        for (key, volume) in &graph.volumes {
            drawing.add(
                Kind::Volume,
                key.as_str(),
                words([volume.external.then_some("external"), volume.driver.as_deref()]),
            );
        }
        for key in graph.pod_volumes.keys() {
            drawing.add(Kind::Volume, key.as_str(), vec!["one for each pod".to_owned()]);
        }
        drawing.nodes.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
        drawing
    }

    /// Returns the nodes of a kind.
    fn all(&self, kind: Kind) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.kind == kind)
    }

    /// Returns the edges that begin at a node and mean this.
    fn from<'a>(&'a self, node: &'a Node, means: Means) -> impl Iterator<Item = &'a Edge> {
        self.edges.iter().filter(move |edge| edge.means == means && edge.from == (node.kind, node.name.clone()))
    }

    /// Returns the edges that end at a node and mean this.
    fn to<'a>(&'a self, node: &'a Node, means: Means) -> impl Iterator<Item = &'a Edge> {
        self.edges.iter().filter(move |edge| edge.means == means && edge.to == (node.kind, node.name.clone()))
    }

    fn add(&mut self, kind: Kind, name: &str, lines: Vec<String>) {
        if !self.nodes.iter().any(|node| node.kind == kind && node.name == name) {
            self.nodes.push(Node { kind, name: name.to_owned(), lines });
        }
    }

    fn edge(&mut self, from: (Kind, &str), to: (Kind, &str), means: Means, label: String) {
        let edge = Edge { from: (from.0, from.1.to_owned()), to: (to.0, to.1.to_owned()), means, label };
        if !self.edges.contains(&edge) {
            self.edges.push(edge);
        }
    }

    /// Adds a service with the parts of its pods, and all that it is connected to.
    fn service(&mut self, graph: &Graph, name: &ServiceName, placed: &Placed) {
        let service = &graph.services[name];
        self.add(Kind::Service, name.as_str(), about(graph, name, placed));
        let here = (Kind::Service, name.as_str());
        for (entry, label) in entries(graph, service) {
            self.add(Kind::Entry, &entry, Vec::new());
            self.edge((Kind::Entry, &entry), here, Means::Enters, label);
        }
        for part in parts(graph, name) {
            self.dependencies(graph, name, part);
            self.mounts(graph, name, part);
            for ambassador in &part.ambassadors {
                for target in &ambassador.targets {
                    let (kind, to) = target_of(target);
                    if kind == Kind::Outside {
                        self.add(kind, &to, Vec::new());
                    }
                    self.edge(
                        here,
                        (kind, &to),
                        Means::Ambassador,
                        format!("{} :{}", ambassador.name, ambassador.port),
                    );
                }
            }
            if let NetworkMode::Networks(attachments) = &part.network {
                for one in attachments {
                    self.edge(here, (Kind::Network, one.network.as_str()), Means::On, one.aliases.join(", "));
                }
            }
        }
        for link in &service.links {
            self.edge(here, (Kind::Service, link.service.as_str()), Means::Links, link.alias.clone());
        }
        for link in &service.external_links {
            let to = format!("{}/{}", link.project, link.service);
            self.add(Kind::Outside, &to, vec!["another project".to_owned()]);
            self.edge(here, (Kind::Outside, &to), Means::Links, link.alias.clone());
        }
    }

    fn dependencies(&mut self, graph: &Graph, name: &ServiceName, part: &Service) {
        let here = (Kind::Service, name.as_str());
        for dependency in &part.depends_on {
            let other = graph.front(&dependency.service);
            if other != name {
                let condition = match dependency.condition {
                    Condition::ServiceStarted => "started",
                    Condition::ServiceHealthy => "healthy",
                    Condition::ServiceCompletedSuccessfully => "completed",
                };
                let optional = if dependency.required { "" } else { ", optional" };
                self.edge(here, (Kind::Service, other.as_str()), Means::DependsOn, format!("{condition}{optional}"));
            }
        }
        for other in part.owners().map(|other| graph.front(other)).filter(|other| *other != name) {
            self.edge(here, (Kind::Service, other.as_str()), Means::Shares, "namespaces".to_owned());
        }
        for other in part.mounted_services().map(|other| graph.front(other)).filter(|other| *other != name) {
            self.edge(here, (Kind::Service, other.as_str()), Means::Shares, "mounts".to_owned());
        }
    }

    fn mounts(&mut self, graph: &Graph, name: &ServiceName, part: &Service) {
        if part.part.as_ref().is_some_and(|part| part.role == Role::Holder) {
            return; // It holds what the others mount, and reads none of it.
        }
        for mount in &part.container.mounts {
            let key: &ResourceKey = match &mount.source {
                MountSource::Volume { volume, .. } | MountSource::PodVolume { volume } => volume,
                _ => continue,
            };
            let known = graph.volumes.contains_key(key) || graph.pod_volumes.contains_key(key);
            let label = format!("{}{}", mount.target, if mount.read_only { " (read-only)" } else { "" });
            if known {
                self.edge((Kind::Service, name.as_str()), (Kind::Volume, key.as_str()), Means::Mounts, label);
            }
        }
    }
}

/// Services of the file: what their pods are made of besides is drawn within them.
fn fronts(graph: &Graph) -> BTreeSet<&ServiceName> {
    graph.services.keys().map(|name| graph.front(name)).filter(|name| graph.services.contains_key(*name)).collect()
}

/// All services of the graph that a service's pods are made of.
fn parts<'a>(graph: &'a Graph, name: &'a ServiceName) -> impl Iterator<Item = &'a Service> {
    // What is run before a service depends on what that does, and mounts the same.
    let is_part =
        move |one: &ServiceName, service: &Service| graph.front(one) == name && service.prepares_service().is_none();
    graph.services.iter().filter(move |(one, service)| is_part(one, service)).map(|(_, service)| service)
}

fn words<const N: usize>(words: [Option<&str>; N]) -> Vec<String> {
    words.into_iter().flatten().map(str::to_owned).collect()
}

/// What stands in a service's box below its name.
fn about(graph: &Graph, name: &ServiceName, placed: &Placed) -> Vec<String> {
    let service = &graph.services[name];
    let scale = match service.scale {
        Scale::Global => "one on each host".to_owned(),
        Scale::Replicas(1) => String::new(),
        Scale::Replicas(count) => format!("{count} replicas"),
    };
    let mut lines = vec![format!("image {}", service.container.image)];
    lines.extend(Some(scale).filter(|scale| !scale.is_empty()));
    match &service.network {
        NetworkMode::Host => lines.push("on the host's own network".to_owned()),
        NetworkMode::None => lines.push("on no network".to_owned()),
        NetworkMode::Engine(network) => lines.push(format!("on the engine's network {network}")),
        NetworkMode::Networks(_) | NetworkMode::Service(_) => {}
    }
    for (part, role) in graph.parts(name) {
        let member = graph.services[part].part.as_ref().map_or("", |one| one.member(part));
        if matches!(role, Role::Init | Role::Sidecar) {
            lines.push(format!("{} {member}", role.word()));
        }
    }
    lines.extend(graph.before_start(name).filter_map(|step| {
        let member = graph.services[step].part.as_ref()?.member(step);
        Some(format!("first {member}"))
    }));
    for ambassador in parts(graph, name).flat_map(|part| &part.ambassadors) {
        lines.push(format!("ambassador {} at {}:{}", ambassador.name, ambassador.address, ambassador.port));
    }
    let pods = placed.iter().filter(|(pod, _)| pod.service == *name);
    lines.extend(pods.map(|(pod, host)| format!("{pod} on {host}")));
    lines
}

/// Where requests for a service come in, each with what it leads to.
fn entries(graph: &Graph, service: &Service) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    for route in &service.serving.routes {
        for listen in &route.listen {
            let scheme = if listen.tls { "https" } else { "http" };
            let usual = if listen.tls { 443 } else { 80 };
            let port = if listen.port == usual { String::new() } else { format!(":{}", listen.port) };
            let hosts: Vec<_> = match route.hosts.as_slice() {
                [] => vec![None],
                hosts => hosts.iter().map(Some).collect(),
            };
            for host in hosts {
                let text = Route::text_of(host, &route.path);
                let (name, path) = text.split_at(text.find('/').unwrap_or(text.len()));
                let methods =
                    if route.methods.is_empty() { String::new() } else { format!("{} ", route.methods.join("|")) };
                let weight = route.weight.map(|weight| format!(", weight {weight}")).unwrap_or_default();
                let label = match &route.action {
                    RouteAction::Forward { .. } => format!("port {}{weight}", route.port),
                    RouteAction::Redirect { status, .. } => format!("redirect {status}"),
                };
                entries.push((format!("{methods}{scheme}://{name}{port}{path}"), label));
            }
        }
    }
    for port in &service.ports {
        let ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let published = match port.published {
            None => "any free port".to_owned(),
            Some((first, last)) if first == last => format!("{ip}:{first}"),
            Some((first, last)) => format!("{ip}:{first}-{last}"),
        };
        let protocol = if port.protocol == Protocol::Tcp { String::new() } else { format!("/{}", port.protocol) };
        let name = match port.published {
            None => format!("{published}{protocol} of {}", graph.project),
            Some(_) => format!("{published}{protocol}"),
        };
        entries.push((name, format!("port {}", port.target)));
    }
    entries
}

fn target_of(target: &AmbassadorTarget) -> (Kind, String) {
    match target {
        AmbassadorTarget::Service { service, .. } => (Kind::Service, service.to_string()),
        AmbassadorTarget::Exported { project, service, .. } => (Kind::Outside, format!("{project}/{service}")),
        AmbassadorTarget::Outside { host, port } => (Kind::Outside, format!("{host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// A web server with a database, a job before it, a volume and an entry.
    fn drawing() -> Drawing {
        let mut graph = testing::graph("shop", &["web", "db", "migrate"]);
        let service = |name: &str| ServiceName::new(name).expect("a name");
        let depends = |name: &str, condition| crate::graph::Dependency {
            service: service(name),
            condition,
            restart: false,
            required: true,
        };
        let web = graph.services.get_mut(&service("web")).expect("it is there");
        web.scale = Scale::Replicas(2);
        web.depends_on =
            vec![depends("db", Condition::ServiceHealthy), depends("migrate", Condition::ServiceCompletedSuccessfully)];
        web.ports = vec![crate::graph::Port {
            name: None,
            host_ip: None,
            published: Some((8080, 8080)),
            target: 80,
            protocol: Protocol::Tcp,
            mode: crate::graph::PortMode::Ingress,
        }];
        let migrate = graph.services.get_mut(&service("migrate")).expect("it is there");
        migrate.depends_on = vec![depends("db", Condition::ServiceStarted)];
        Drawing::of(&graph, &Placed::from([(PodId::new(service("web"), 1), HostName::local())]))
    }

    #[test]
    fn text_tells_service_by_service() {
        insta::assert_snapshot!(drawing().text(false));
    }

    #[test]
    fn dot_is_for_graphviz() {
        insta::assert_snapshot!(drawing().dot());
    }

    #[test]
    fn svg_has_every_node_and_every_edge() {
        let (drawing, svg) = (drawing(), drawing().svg());
        assert_eq!(svg.matches("<rect class=").count(), drawing.nodes.len(), "{svg}");
        assert_eq!(svg.matches("<path class=").count(), drawing.edges.len(), "{svg}");
        for node in &drawing.nodes {
            assert!(svg.contains(&format!(">{}<", node.name)), "{} in {svg}", node.name);
        }
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let coloured = drawing().text(true);
        let plain = coloured.replace("\x1b[1m", "").replace("\x1b[0m", "");
        assert_ne!(coloured, plain);
        assert_eq!(plain, drawing().text(false));
    }
}
