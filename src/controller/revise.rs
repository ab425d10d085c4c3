//! From a graph that somebody asks for to the desired state that is written: addressed, placed, numbered. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::graph::{Graph, Service};
use crate::ids::{HostName, PodId, ProjectName, ServiceName};
use crate::net::addr::{self, AddressError, Allocation, OtherRoute, Pool, PortFree};
use crate::observed::ObservedContainer;
use crate::place::{self, Assignments, HostFacts};
use crate::plan::desired::PublishedPort;
use crate::plan::{Asked, Desired, Intent, Observed, Step, UpOptions, plan, rolled, rolling_since};

use super::adopt;

/// What a desired state is computed from.
pub struct Request<'a> {
    /// What shall run.
    pub graph: Graph,
    /// What the user asked of this `up`.
    pub options: &'a UpOptions,
    /// The desired state until now.
    pub previous: Option<&'a Desired>,
    /// What is.
    pub observed: &'a Observed,
    /// The hosts that answer.
    pub hosts: &'a BTreeMap<HostName, HostFacts>,
    /// All hosts of the cluster, also those that do not answer; empty: there is none.
    pub members: &'a BTreeSet<HostName>,
    /// Those that the project is for; empty: all.
    pub among: BTreeSet<HostName>,
    /// Subnets that others use.
    pub taken: &'a [Ipv4Net],
    /// Ports that other projects publish.
    pub published_elsewhere: &'a [(ProjectName, PublishedPort)],
    /// Routes of other projects.
    pub routes_elsewhere: &'a [OtherRoute<'a>],
    /// Where new subnets come from.
    pub pool: &'a Pool,
    /// The highest slice of a network that a host has.
    pub last_index: u32,
}

/// Computes the desired state. The number of the revision grows only when something changes that is kept with it.
///
/// # Errors
/// What cannot be addressed or is in the way of other projects, all of it.
pub fn revise(request: Request<'_>, port_free: &mut PortFree<'_>) -> Result<Desired, Vec<AddressError>> {
    let Request {
        graph,
        options,
        previous,
        observed,
        hosts,
        members,
        among,
        taken,
        published_elsewhere,
        routes_elsewhere,
        pool,
        last_index,
    } = request;
    let mut before = previous.map(|desired| desired.addresses.clone()).unwrap_or_default();
    adopt::networks(&graph, observed, &mut before);
    let enabled = enabled(&graph, options, previous);
    let addresses = addr::allocate(
        &Allocation {
            graph: &publishing(graph.folded(), &enabled),
            previous: &before,
            previous_graph: previous.map(|desired| &desired.graph),
            taken,
            published_elsewhere,
            routes_elsewhere,
            pool,
            host_index: last_index,
        },
        port_free,
    )?;
    let hosts = limited(hosts, &among);
    let before = previous.map(|desired| desired.assignments.on(members)).unwrap_or_default();
    let assignments = place::place(&graph, &hosts, &before, observed);
    let generation = generation(options, previous);
    let mut desired = Desired {
        revision: previous.map_or(1, |desired| desired.revision),
        generation,
        enabled,
        no_recreate: options.no_recreate || options.only_dependencies && previous.is_some_and(|one| one.no_recreate),
        recreate_before: recreate_before(&graph, options, previous, generation),
        renew_before: renew_before(&graph, options, previous, generation),
        remove_orphans: options.remove_orphans,
        ignore_orphans: options.ignore_orphans,
        oneoffs_before: options.oneoffs_before.clone(),
        unstarted: BTreeSet::new(),
        rolled: BTreeSet::new(),
        rolling_since: BTreeMap::new(),
        asked: still_asked(&graph, options, previous, &assignments),
        stop_timeout: options.timeout_secs.map(Duration::from_secs),
        hosts: among,
        graph,
        assignments,
        addresses,
    };
    if let Some(previous) = previous.filter(|_| options.only_dependencies) {
        // What `run` needs started is no rollout, and ends none.
        desired.rolled.clone_from(&previous.rolled);
        desired.rolling_since.clone_from(&previous.rolling_since);
    } else {
        desired.rolling_since = rolling_since(&desired, previous);
        desired.rolled = rolled(&desired, observed, previous);
    }
    desired.unstarted = unstarted(&desired, options, previous, observed);
    if previous.is_some_and(|previous| !same_but_for_counters(previous, &desired)) {
        desired.revision += 1;
    }
    Ok(desired)
}

/// Places the pods anew after hosts came, went or changed; what was placed on hosts that are not among `members` is
/// forgotten. Returns the next desired state; `None`: all stay.
pub fn replace(
    now: &Desired,
    members: &BTreeSet<HostName>,
    hosts: &BTreeMap<HostName, HostFacts>,
    observed: &Observed,
) -> Option<Desired> {
    let assignments = place::place(&now.graph, &limited(hosts, &now.hosts), &now.assignments.on(members), observed);
    if assignments == now.assignments {
        return None;
    }
    Some(Desired { revision: now.revision + 1, assignments, ..now.clone() })
}

/// The hosts as the placer sees them for a project that is for these only.
pub(super) fn limited(
    hosts: &BTreeMap<HostName, HostFacts>,
    among: &BTreeSet<HostName>,
) -> BTreeMap<HostName, HostFacts> {
    let excluded = |name: &HostName| !among.is_empty() && !among.contains(name);
    let facts = |(name, facts): (&HostName, &HostFacts)| {
        (name.clone(), HostFacts { excluded: excluded(name), ..facts.clone() })
    };
    hosts.iter().map(facts).collect()
}

/// Returns whether two desired states ask for the same, whatever their numbers are.
pub fn same_but_for_counters(one: &Desired, other: &Desired) -> bool {
    is_same_wish(one, other) && one.assignments == other.assignments && one.graph == other.graph
}

/// Returns whether two desired states are of the same services, whoever wished for them from where, and by which flags.
pub fn is_same_project(one: &Desired, other: &Desired) -> bool {
    is_same_graph(&one.graph, &other.graph) && one.enabled == other.enabled && one.hosts == other.hosts
}

/// Compares all but where the files were.
fn is_same_graph(one: &Graph, other: &Graph) -> bool {
    let Graph {
        project,
        working_dir: _,
        config_files: _,
        services,
        disabled,
        profiles,
        networks,
        volumes,
        files,
        pod_volumes,
    } = one;
    *project == other.project
        && *services == other.services
        && (disabled, profiles) == (&other.disabled, &other.profiles)
        && *networks == other.networks
        && (volumes, pod_volumes) == (&other.volumes, &other.pod_volumes)
        && *files == other.files
}

/// Returns whether two desired states are for the same wish, whatever their numbers are and wherever the pods are placed.
pub fn is_same_wish(one: &Desired, other: &Desired) -> bool {
    let Desired {
        revision: _,
        generation: _,
        graph,
        assignments: _,
        addresses,
        enabled,
        no_recreate,
        recreate_before,
        renew_before,
        remove_orphans,
        ignore_orphans: _, // what is said, not what is
        oneoffs_before,
        unstarted,
        rolled: _, // what is, not what is wished for
        rolling_since: _,
        asked,
        stop_timeout,
        hosts,
    } = one;
    is_same_graph(graph, &other.graph)
        && *addresses == other.addresses
        && *enabled == other.enabled
        && *no_recreate == other.no_recreate
        && *recreate_before == other.recreate_before
        && *renew_before == other.renew_before
        && *remove_orphans == other.remove_orphans
        && *oneoffs_before == other.oneoffs_before
        && *unstarted == other.unstarted
        && *asked == other.asked
        && *stop_timeout == other.stop_timeout
        && *hosts == other.hosts
}

/// What is made and started for this `up` has this number at least: jobs of an earlier one run again. A one-off runs
/// none again.
fn generation(options: &UpOptions, previous: Option<&Desired>) -> u64 {
    match previous {
        Some(previous) if options.only_dependencies => previous.generation,
        Some(previous) => previous.generation + 1,
        None => 1,
    }
}

/// Returns the graph in which services that do not run publish no ports: those may be taken until somebody starts them.
fn publishing<'a>(mut graph: Cow<'a, Graph>, enabled: &BTreeSet<ServiceName>) -> Cow<'a, Graph> {
    let rests = |(name, service): &(&ServiceName, &Service)| !enabled.contains(*name) && !service.ports.is_empty();
    let resting: Vec<ServiceName> = graph.services.iter().filter(rests).map(|(name, _)| name.clone()).collect();
    for name in resting {
        if let Some(service) = graph.to_mut().services.get_mut(&name) {
            service.ports.clear();
        }
    }
    graph
}

/// Services named now with what they depend on, and those that earlier `up`s started and the graph still has.
fn enabled(graph: &Graph, options: &UpOptions, previous: Option<&Desired>) -> BTreeSet<ServiceName> {
    if options.services.is_empty() {
        return graph.services.keys().cloned().collect();
    }
    let mut enabled: BTreeSet<ServiceName> = previous
        .into_iter()
        .flat_map(|desired| desired.enabled.iter())
        .filter(|name| graph.services.contains_key(*name))
        .cloned()
        .collect();
    enabled.extend(selected(graph, options));
    enabled
}

/// The services that this `up` asks for: all, or those named with what they depend on.
pub fn selected(graph: &Graph, options: &UpOptions) -> BTreeSet<ServiceName> {
    if options.services.is_empty() {
        return graph.services.keys().cloned().collect();
    }
    let mut queue: Vec<ServiceName> = options.services.clone();
    let mut seen = BTreeSet::new();
    while let Some(name) = queue.pop() {
        let Some(service) = graph.services.get(&name) else { continue };
        if !seen.insert(name.clone()) {
            continue;
        }
        // A pod comes as a whole, and with what is run before its service.
        queue.extend(graph.parts(graph.front(&name)).map(|(part, _)| part.clone()));
        if !(options.only_dependencies && options.services.contains(&name)) {
            queue.extend(graph.before_start(graph.front(&name)).cloned());
        }
        if !options.no_deps {
            queue.extend(service.depends_on.iter().map(|dependency| dependency.service.clone()));
            if options.only_dependencies {
                queue.extend(service.owners().cloned());
            }
        }
    }
    if options.only_dependencies {
        // Nor the other containers of its pod, nor what prepares it, as in Docker Compose.
        seen.retain(|name| !options.services.contains(name) && !options.services.contains(graph.front(name)));
    }
    seen
}

/// Returns the service that `name` is run before, else `name`.
fn front_of_step<'a>(graph: &'a Graph, name: &'a ServiceName) -> &'a ServiceName {
    graph.services.get(name).and_then(Service::prepares_service).unwrap_or(name)
}

/// Pods that are made and not started. With `--no-start` those that do not run, and those that run but must be made anew;
/// what runs as it should goes on, as in Docker Compose. Of services that this `up` does not ask for, those as before.
fn unstarted(
    desired: &Desired,
    options: &UpOptions,
    previous: Option<&Desired>,
    observed: &Observed,
) -> BTreeSet<PodId> {
    let asked = selected(&desired.graph, options);
    let before = previous.into_iter().flat_map(|previous| &previous.unstarted);
    let mut pods: BTreeSet<PodId> = before
        .filter(|pod| desired.assignments.pods.contains_key(*pod) && !asked.contains(&pod.service))
        .cloned()
        .collect();
    if options.no_start {
        let containers = observed.hosts.values().flat_map(|host| host.containers.values());
        let running: BTreeSet<PodId> =
            containers.filter(|one| one.state.is_active()).filter_map(ObservedContainer::pod).collect();
        let runs = |pod: &PodId| running.contains(pod);
        let plan = plan(Intent::Up(desired), observed, &BTreeMap::new());
        let starts = plan.steps.into_iter().filter_map(|planned| match planned.step {
            Step::StartContainer { pod, .. } => Some(pod),
            _ => None,
        });
        let down = desired.pods().filter(|pod| !runs(pod)).cloned();
        pods.extend(starts.chain(down).filter(|pod| asked.contains(&pod.service)));
    }
    pods
}

/// What was asked by hand of pods that this `up` is not about.
fn still_asked(
    graph: &Graph,
    options: &UpOptions,
    previous: Option<&Desired>,
    assignments: &Assignments,
) -> BTreeMap<PodId, Asked> {
    let about = selected(graph, options);
    let before = previous.into_iter().flat_map(|previous| &previous.asked);
    // What is frozen runs, and `--no-start` leaves alone what runs.
    let stays = |pod: &PodId, asked: &Asked| {
        !about.contains(&pod.service) || options.no_start && matches!(asked, Asked::Paused { .. })
    };
    let kept = before.filter(|(pod, asked)| assignments.pods.contains_key(*pod) && stays(pod, asked));
    kept.map(|(pod, asked)| (pod.clone(), asked.clone())).collect()
}

fn recreate_before(
    graph: &Graph,
    options: &UpOptions,
    previous: Option<&Desired>,
    generation: u64,
) -> BTreeMap<ServiceName, u64> {
    let mut before: BTreeMap<ServiceName, u64> =
        previous.map(|desired| desired.recreate_before.clone()).unwrap_or_default();
    before.retain(|name, _| graph.services.contains_key(name));
    if options.recreate_deps && !options.services.is_empty() {
        let is_named = |name: &ServiceName| options.services.contains(front_of_step(graph, name));
        let dependencies = selected(graph, options).into_iter().filter(|name| !is_named(name));
        before.extend(dependencies.map(|name| (name, generation)));
    }
    if options.force_recreate {
        let is_named = |name: &&ServiceName| options.services.contains(front_of_step(graph, name));
        let named = graph.services.keys().filter(|name| options.services.is_empty() || is_named(name));
        before.extend(named.map(|name| (name.clone(), generation)));
    }
    before
}

/// Which containers do not leave their anonymous volumes to what comes in their place.
fn renew_before(
    graph: &Graph,
    options: &UpOptions,
    previous: Option<&Desired>,
    generation: u64,
) -> BTreeMap<ServiceName, u64> {
    let mut before = previous.map(|desired| desired.renew_before.clone()).unwrap_or_default();
    before.retain(|name, _| graph.services.contains_key(name));
    if options.renew_volumes {
        before.extend(selected(graph, options).into_iter().map(|name| (name, generation)));
    }
    before
}
