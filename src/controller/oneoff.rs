//! One-off containers (`run`): what an `up` before one may change, what it is made of, and where it may run. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, MountSource, Namespace, NetworkMode, Scale, Service};
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
    for name in options.services.iter().filter(|name| !previous.graph.services.contains_key(*name)) {
        needed.extend(parts(&requested, name).cloned());
    }
    let mut graph = previous.graph.clone();
    for name in &needed {
        let Some(service) = requested.services.get(name) else { continue };
        add_parts(&mut graph, &requested, service);
        graph.services.insert(name.clone(), service.clone());
        graph.disabled.remove(name);
        graph.profiles.remove(name);
    }
    // Of the service as the file has it now, what is there already stays as it is.
    for name in &options.services {
        for service in parts(&requested, name).filter_map(|part| requested.services.get(part)) {
            add_parts(&mut graph, &requested, service);
        }
    }
    graph
}

/// Returns the services that one pod of `name` consists of: itself, or those of a pod of several containers.
pub fn parts<'a>(graph: &'a Graph, name: &'a ServiceName) -> impl Iterator<Item = &'a ServiceName> {
    let front = graph.front(name);
    let others = graph.parts(front).map(|(part, _)| part).filter(move |part| *part != name);
    std::iter::once(name).chain(others)
}

/// Returns a service with what its pod as a whole depends on: what the parts of one wait for among themselves is not in it.
#[must_use]
pub fn outward(graph: &Graph, name: &ServiceName) -> Option<Service> {
    let mut service = graph.services.get(name)?.clone();
    let own: BTreeSet<&ServiceName> = parts(graph, name).collect();
    let all = own.iter().filter_map(|part| graph.services.get(*part)).flat_map(|part| &part.depends_on);
    service.depends_on = all.filter(|dependency| !own.contains(&dependency.service)).cloned().collect();
    Some(service)
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
    for mount in &service.container.mounts {
        if let MountSource::PodVolume { volume: key } = &mount.source
            && let Some(volume) = from.pod_volumes.get(key)
        {
            graph.pod_volumes.entry(key.clone()).or_insert_with(|| volume.clone());
        }
    }
    let tls = service.ambassadors.iter().filter_map(|ambassador| ambassador.tls.as_ref());
    let keys = tls.flat_map(|tls| {
        let (chain, key) = tls.identity.as_ref().map(|(chain, key)| (chain, key)).unzip();
        [tls.authorities.as_ref(), chain, key].into_iter().flatten()
    });
    for hash in service.container.files.iter().map(|file| &file.hash).chain(keys) {
        if let Some(content) = from.files.get(hash) {
            graph.files.insert(hash.clone(), content.clone());
        }
    }
}

/// Returns the project with a one-off's service as it is to be made, and all parts of its pod.
#[must_use]
pub fn with_oneoff(desired: &Desired, asked: &Graph, name: &ServiceName) -> Option<Desired> {
    asked.services.get(name)?;
    let mut desired = desired.clone();
    for part in parts(asked, name) {
        let service = asked.services.get(part)?;
        add_parts(&mut desired.graph, asked, service);
        desired.graph.services.insert(part.clone(), service.clone());
    }
    Some(desired)
}

/// Makes a part of a pod one of the pod that is called otherwise.
fn rename(service: &mut Service, names: &BTreeMap<ServiceName, ServiceName>) {
    let change = |name: &mut ServiceName| {
        if let Some(other) = names.get(name) {
            name.clone_from(other);
        }
    };
    if let Some(part) = &mut service.part {
        change(&mut part.of);
    }
    if let NetworkMode::Service(owner) = &mut service.network {
        change(owner);
    }
    for namespace in [&mut service.container.ipc, &mut service.container.pid].into_iter().flatten() {
        if let Namespace::Service(owner) = namespace {
            change(owner);
        }
    }
    for dependency in &mut service.depends_on {
        change(&mut dependency.service);
    }
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
    let named = |text: String| ServiceName::new(text).map_err(|error| error.to_string());
    let mut own = named(format!("{name}-run"))?;
    while graph.services.contains_key(&own) {
        own = named(format!("{own}-run"))?;
    }
    let mut names = BTreeMap::new();
    for part in parts(asked, name) {
        let rest = part.as_str().strip_prefix(name.as_str()).unwrap_or(part.as_str());
        names.insert(part.clone(), named(format!("{own}{rest}"))?);
    }
    for (part, as_one) in &names {
        let mut one = graph.services.get(part).cloned().ok_or_else(no_service)?;
        one.scale = Scale::Replicas(1);
        one.container.name = None;
        rename(&mut one, &names);
        match desired.graph.services.get(part) {
            Some(there) => graph.services.insert(part.clone(), there.clone()),
            None => graph.services.remove(part),
        };
        graph.services.insert(as_one.clone(), one);
    }
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
