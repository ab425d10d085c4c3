//! One-off containers (`run`): what an `up` before one may change, what it is made of, and where it may run. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, NetworkMode, Scale, Service};
use crate::ids::{HostName, PodId, ServiceName};
use crate::place::{self, HostFacts};
use crate::plan::{Desired, Observed, UpOptions};

use super::revise::{limited, selected};

/// Returns the graph that an `up` before a one-off asks for: what the project has, with what the one-off depends on as
/// the file has it now. Other services stay as they are, however the file has changed since.
///
/// The one-off's own service is in it too where nobody asked for it before, so that its networks get their addresses.
pub fn narrowed(requested: Graph, options: &UpOptions, previous: Option<&Desired>) -> Graph {
    let Some(previous) = previous else { return requested };
    let mut needed = selected(&requested, options);
    needed.extend(options.services.iter().filter(|name| !previous.graph.services.contains_key(*name)).cloned());
    let mut graph = previous.graph.clone();
    for name in &needed {
        let Some(service) = requested.services.get(name) else { continue };
        add_parts(&mut graph, &requested, service);
        graph.services.insert(name.clone(), service.clone());
        graph.disabled.remove(name);
    }
    // Of the service as the file has it now, what is there already stays as it is.
    for service in options.services.iter().filter_map(|name| requested.services.get(name)) {
        add_parts(&mut graph, &requested, service);
    }
    graph
}

/// Adds the networks, volumes and files of a service that the graph lacks.
fn add_parts(graph: &mut Graph, from: &Graph, service: &Service) {
    if let NetworkMode::Networks(attachments) = &service.network {
        for key in attachments.iter().map(|attachment| &attachment.network) {
            if let Some(network) = from.networks.get(key).filter(|_| !graph.networks.contains_key(key)) {
                graph.networks.insert(key.clone(), network.clone());
            }
        }
    }
    for key in service.volumes() {
        if let Some(volume) = from.volumes.get(key).filter(|_| !graph.volumes.contains_key(key)) {
            graph.volumes.insert(key.clone(), volume.clone());
        }
    }
    for hash in service.container.files.iter().map(|file| &file.hash) {
        if let Some(content) = from.files.get(hash) {
            graph.files.insert(hash.clone(), content.clone());
        }
    }
}

/// Returns the project with a one-off's service as it is to be made.
#[must_use]
pub fn with_oneoff(desired: &Desired, asked: &Graph, name: &ServiceName) -> Option<Desired> {
    let service = asked.services.get(name)?;
    let mut desired = desired.clone();
    add_parts(&mut desired.graph, asked, service);
    desired.graph.services.insert(name.clone(), service.clone());
    Some(desired)
}

/// Chooses a host for a one-off as for one more pod of its service; all others stay where they are.
///
/// # Errors
/// Why no host can take it, in a sentence.
pub fn host_for(
    desired: &Desired,
    asked: &Graph,
    name: &ServiceName,
    hosts: &BTreeMap<HostName, HostFacts>,
    members: &BTreeSet<HostName>,
    observed: &Observed,
) -> Result<HostName, String> {
    let no_service = || format!("no such service: {name}");
    let with = with_oneoff(desired, asked, name).ok_or_else(no_service)?;
    let mut graph = with.graph;
    let mut one = graph.services.get(name).cloned().ok_or_else(no_service)?;
    one.scale = Scale::Replicas(1);
    one.container.name = None;
    if let Some(there) = desired.graph.services.get(name) {
        graph.services.insert(name.clone(), there.clone());
    } else {
        graph.services.remove(name);
    }
    let mut own = ServiceName::new(format!("{name}-run")).map_err(|error| error.to_string())?;
    while graph.services.contains_key(&own) {
        own = ServiceName::new(format!("{own}-run")).map_err(|error| error.to_string())?;
    }
    graph.services.insert(own.clone(), one);
    let hosts = limited(hosts, &desired.hosts);
    let assignments = place::place(&graph, &hosts, &desired.assignments.on(members), observed);
    if let Some(host) = assignments.pods.get(&PodId::new(own.clone(), 1)) {
        return Ok(host.clone());
    }
    let why = assignments.unplaced.iter().find(|unplaced| unplaced.pod.service == own);
    Err(why.map_or_else(no_service, |unplaced| unplaced.sentence(&format!("a container of `{name}`"), false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;
    use crate::testing;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).expect("valid")
    }

    fn options(service: &str, no_deps: bool) -> UpOptions {
        UpOptions { services: vec![name(service)], no_deps, only_dependencies: true, ..UpOptions::default() }
    }

    fn images(graph: &Graph) -> Vec<String> {
        graph.services.iter().map(|(name, one)| format!("{name} {}", one.container.image)).collect()
    }

    #[test]
    fn an_up_before_a_one_off_changes_what_it_depends_on_and_nothing_else() {
        let needs = "depends_on: {db: {condition: service_started, required: true}}";
        let old =
            fixture::graph(&format!("web: {{image: 'w:1', {needs}}}\ndb: {{image: 'd:1'}}\nother: {{image: 'o:1'}}"));
        let new = fixture::graph(&format!(
            "web: {{image: 'w:2', {needs}}}\ndb: {{image: 'd:2'}}\nother: {{image: 'o:2'}}\njob: {{image: 'j:2'}}"
        ));
        let previous = testing::desired(old);
        let narrow =
            |service: &str, no_deps| images(&narrowed(new.clone(), &options(service, no_deps), Some(&previous)));
        assert_eq!(narrow("web", false), ["db d:2", "other o:1", "web w:1"]);
        assert_eq!(narrow("web", true), ["db d:1", "other o:1", "web w:1"]);
        assert_eq!(narrow("job", false), ["db d:1", "job j:2", "other o:1", "web w:1"]);
        assert_eq!(images(&narrowed(new.clone(), &options("web", false), None)), images(&new));
    }

    #[test]
    fn a_one_off_runs_where_one_more_pod_of_its_service_could() {
        let graph =
            fixture::graph("web: {deploy: {placement: {constraints: ['node.labels.disk == ssd']}}}\ndb: {image: d}");
        let mut desired = testing::desired(graph.clone());
        let host = |text: &str| HostName::new(text).expect("valid");
        let facts = |disk: &str| HostFacts {
            labels: [("disk".to_owned(), disk.to_owned())].into(),
            nano_cpus: 1_000_000_000,
            memory: 1 << 30,
            ..HostFacts::default()
        };
        let mut hosts: BTreeMap<_, _> = [(host("a"), facts("slow")), (host("b"), facts("ssd"))].into();
        let chosen = |desired: &Desired, hosts: &BTreeMap<_, _>| {
            host_for(desired, &graph, &name("web"), hosts, &BTreeSet::new(), &Observed::default())
        };
        assert_eq!(chosen(&desired, &hosts), Ok(host("b")));
        desired.hosts = [host("a")].into();
        let why = chosen(&desired, &hosts).expect_err("not for `b`");
        assert!(why.starts_with("no host can take a container of `web`: "), "{why}");
        desired.hosts.clear();
        hosts.remove(&host("b"));
        assert!(chosen(&desired, &hosts).is_err());
    }
}
