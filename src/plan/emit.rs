//! Decisions become steps: which ones, with what reason, and in what order within one pod.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::graph::{NetworkMode, Role};
use crate::ids::{HostName, PodId, ResourceKey, ServiceName};
use crate::observed::{ContainerState, Observed, ObservedContainer};

use super::decide::Decision;
use super::order::{Draft, Node, Phase};
use super::pods::started_before;
use super::resources::Changes;
use super::survey::{Found, Surplus, Survey};
use super::{Asked, Desired, Reason, Step};

/// Longest time that connections of a pod get to end before it is stopped.
const DRAIN: Duration = Duration::from_secs(5);
/// Grace period of containers whose service is not known. Source: compose-spec 05-services.md#stop_grace_period.
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// The steps of one pod.
#[derive(Debug, Clone, Default)]
pub(super) struct PodNodes {
    /// Drain, thaw, stop, remove: those that there are, each after the one before.
    pub(super) teardown: Vec<Node>,
    /// Whether the first of these is the drain.
    pub(super) drains: bool,
    pub(super) create: Option<Node>,
    pub(super) start: Option<Node>,
}

impl PodNodes {
    /// Returns the step that all others of the pod come after.
    pub(super) fn first(&self) -> Option<Node> {
        self.teardown.first().copied().or(self.create).or(self.start)
    }

    /// Returns the step that takes the old container down: the one after the drain.
    pub(super) fn down(&self) -> Option<Node> {
        self.teardown.get(usize::from(self.drains)).copied()
    }
}

/// A container that is removed, and by which step.
pub(super) struct Removal<'a> {
    pub(super) found: Found<'a>,
    pub(super) node: Node,
    /// The step that takes it down: the first one but for the drain.
    pub(super) down: Node,
}

/// Collects steps.
pub(super) struct Emitter<'a> {
    pub(super) draft: Draft,
    pub(super) desired: &'a Desired,
    ranks: &'a BTreeMap<&'a ServiceName, usize>,
    survey: &'a Survey<'a>,
    pub(super) pods: BTreeMap<&'a PodId, PodNodes>,
    pub(super) removals: Vec<Removal<'a>>,
    /// By host and engine name: the step that makes it, and the one that removes its predecessor.
    pub(super) networks: BTreeMap<(&'a HostName, &'a str), (Node, Option<Node>)>,
    pub(super) volumes: BTreeMap<(&'a HostName, &'a ResourceKey), Node>,
    /// Container names to be made, by host.
    pub(super) names: BTreeMap<(&'a HostName, String), Node>,
}

/// How a container is taken down.
struct Teardown {
    key: (usize, u32),
    reason: Reason,
    grace: Duration,
    drain: bool,
    remove: bool,
    /// Anonymous volumes go with it.
    volumes: bool,
}

/// How far a pod's container is taken down: stopped, or removed too.
#[derive(Debug, Clone, Copy, Default)]
struct How {
    remove: bool,
    volumes: bool,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(
        desired: &'a Desired,
        ranks: &'a BTreeMap<&'a ServiceName, usize>,
        survey: &'a Survey<'a>,
    ) -> Self {
        Self {
            draft: Draft::default(),
            desired,
            ranks,
            survey,
            pods: BTreeMap::new(),
            removals: Vec::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    fn rank(&self, service: &ServiceName) -> usize {
        self.ranks.get(service).copied().unwrap_or(0)
    }

    /// Adds the steps for networks and volumes.
    pub(super) fn resources(&mut self, changes: &BTreeMap<&'a HostName, Changes<'a>>) {
        for (host, here) in changes {
            for (name, (key, anew)) in &here.networks {
                let changed = Reason::NetworkChanged { network: (*name).to_owned() };
                let remove = anew.then(|| {
                    let step = Step::RemoveNetwork { name: (*name).to_owned() };
                    self.draft.add((Phase::Resource, 0, 0), host, step, changed.clone())
                });
                let reason = if *anew { changed } else { Reason::Missing };
                let step = Step::CreateNetwork { network: (*key).clone() };
                let create = self.draft.add((Phase::Resource, 1, 0), host, step, reason);
                self.networks.insert((host, name), (create, remove));
            }
            for key in &here.volumes {
                let step = Step::CreateVolume { volume: (*key).clone() };
                let node = self.draft.add((Phase::Resource, 2, 0), host, step, Reason::Missing);
                self.volumes.insert((host, key), node);
            }
        }
    }

    /// Adds the removal of volumes that pods had for themselves and that outlived them, as when the agent was killed meanwhile.
    pub(super) fn leftover_volumes(&mut self, observed: &'a Observed) {
        let desired = self.desired;
        for (host, seen) in &observed.hosts {
            let ours = seen.volumes.values().filter(|volume| volume.belongs_to(&desired.graph.project));
            for volume in ours {
                let Some(pod) = volume.pod() else { continue };
                let is_assigned = desired.assignments.pods.get(&pod) == Some(host);
                let is_used = seen.containers.values().any(|one| one.volumes.values().any(|name| *name == volume.name));
                if !is_assigned && !is_used && desired.enabled.contains(&pod.service) {
                    let step = Step::RemoveVolume { name: volume.name.clone() };
                    self.draft.add((Phase::Resource, 3, 0), host, step, Reason::HalfMade);
                }
            }
        }
    }

    /// Adds the removal of a container that has to go.
    pub(super) fn surplus(&mut self, surplus: &Surplus<'a>) {
        let container = surplus.found.container;
        let service = container.service.as_ref();
        let remains =
            service.is_some_and(|name| self.desired.assignments.pods.range(PodId::all_of(name)).next().is_some());
        let how = Teardown {
            key: (service.map_or(0, |name| self.rank(name)), u32::MAX - container.number.unwrap_or(0)),
            reason: surplus.reason.clone(),
            grace: self.grace(container.pod().as_ref(), service),
            drain: remains && self.is_balanced(container),
            remove: true,
            volumes: false,
        };
        self.teardown(surplus.found, &how);
    }

    /// Adds the steps that make a decision true.
    pub(super) fn pod(&mut self, pod: &'a PodId, host: &'a HostName, found: Option<Found<'a>>, decision: &Decision) {
        let old = found.map(|found| found.container);
        let nodes = match (decision, found) {
            (Decision::Unpause, Some(found)) => {
                let step = unpause(found.container);
                let key = (Phase::Start, self.rank(&pod.service), pod.number);
                PodNodes { start: Some(self.draft.add(key, host, step, Reason::Paused)), ..PodNodes::default() }
            }
            (Decision::Pause, Some(found)) => {
                let (id, name) = (found.container.id.clone(), found.container.name.clone());
                let key = (Phase::Teardown, self.rank(&pod.service), pod.number);
                let node = self.draft.add(key, found.host, Step::Pause { id, name }, Reason::Asked);
                PodNodes { teardown: vec![node], ..PodNodes::default() }
            }
            (Decision::Kill { signal, number }, Some(found)) => {
                let (id, name) = (found.container.id.clone(), found.container.name.clone());
                let key = (Phase::Teardown, self.rank(&pod.service), pod.number);
                let step = Step::Kill { pod: pod.clone(), id, name, signal: signal.clone(), number: *number };
                let node = self.draft.add(key, found.host, step, Reason::Asked);
                PodNodes { teardown: vec![node], ..PodNodes::default() }
            }
            (Decision::Remove { volumes }, Some(found)) => {
                let how = How { remove: true, volumes: *volumes };
                self.take_down(pod, found, &Reason::Asked, how)
            }
            (Decision::Start { reason, .. }, Some(found)) => {
                let start = self.start(pod, host, found.container.name.clone(), reason.clone());
                PodNodes { start: Some(start), ..PodNodes::default() }
            }
            (Decision::Finish, Some(found)) => {
                let start = self.start(pod, host, found.container.name.clone(), Reason::HooksPending);
                PodNodes { start: Some(start), ..PodNodes::default() }
            }
            (Decision::Restart(reason), Some(found)) => {
                let mut nodes = self.take_down(pod, found, reason, How::default());
                nodes.start = Some(self.start(pod, host, found.container.name.clone(), reason.clone()));
                nodes
            }
            (Decision::Stop(reason), Some(found)) => self.take_down(pod, found, reason, How::default()),
            (Decision::Create(reason), _) => self.make(pod, host, reason, None, PodNodes::default()),
            (Decision::Replace(reason), Some(found)) => {
                let how = How { remove: true, volumes: false };
                let nodes = self.take_down(pod, found, reason, how);
                self.make(pod, host, reason, old.map(|old| old.id.clone()), nodes)
            }
            _ => return,
        };
        let chain: Vec<Node> = nodes.teardown.iter().copied().chain(nodes.create).chain(nodes.start).collect();
        for pair in chain.windows(2) {
            self.draft.after(pair[1], pair[0]);
        }
        self.pods.insert(pod, nodes);
    }

    fn make(
        &mut self,
        pod: &'a PodId,
        host: &'a HostName,
        reason: &Reason,
        replaces: Option<String>,
        mut nodes: PodNodes,
    ) -> PodNodes {
        let name = self.desired.graph.container_name(pod);
        let step = Step::CreateContainer { pod: pod.clone(), name: name.clone(), replaces };
        let key = (Phase::Create, self.rank(&pod.service), pod.number);
        let create = self.draft.add(key, host, step, reason.clone());
        self.names.insert((host, name.clone()), create);
        nodes.create = Some(create);
        if !self.desired.unstarted.contains(pod) {
            nodes.start = Some(self.start(pod, host, name, reason.clone()));
        }
        nodes
    }

    fn start(&mut self, pod: &PodId, host: &HostName, name: String, reason: Reason) -> Node {
        let key = (Phase::Start, self.rank(&pod.service), pod.number);
        self.draft.add(key, host, Step::StartContainer { pod: pod.clone(), name }, reason)
    }

    fn take_down(&mut self, pod: &PodId, found: Found<'a>, reason: &Reason, how: How) -> PodNodes {
        let How { remove, volumes } = how;
        let drain = self.is_balanced(found.container);
        let how = Teardown {
            key: (self.rank(&pod.service), pod.number),
            reason: reason.clone(),
            grace: self.grace(Some(pod), Some(&pod.service)),
            drain,
            remove,
            volumes,
        };
        PodNodes { teardown: self.teardown(found, &how), drains: drain, ..PodNodes::default() }
    }

    /// Adds drain, thaw, stop and removal as far as the container's state needs them. The last one has the reason, those
    /// before it are there for its sake.
    fn teardown(&mut self, found: Found<'a>, how: &Teardown) -> Vec<Node> {
        let container = found.container;
        let (id, name) = (container.id.clone(), container.name.clone());
        let mut steps = Vec::new();
        if let Some(pod) = container.pod().filter(|_| how.drain) {
            steps.push(Step::Drain { pod, id: id.clone(), deadline: DRAIN.min(how.grace) });
        }
        if container.state == ContainerState::Paused {
            steps.push(unpause(container));
        }
        if container.state.is_active() {
            steps.push(Step::StopContainer { id: id.clone(), name: name.clone(), grace: how.grace });
        }
        if how.remove {
            steps.push(Step::RemoveContainer { id, name, volumes: how.volumes });
        }
        let (mut nodes, count): (Vec<Node>, _) = (Vec::new(), steps.len());
        for (at, step) in steps.into_iter().enumerate() {
            let reason = if at + 1 == count { how.reason.clone() } else { Reason::Part };
            let node = self.draft.add((Phase::Teardown, how.key.0, how.key.1), found.host, step, reason);
            if let Some(before) = nodes.last() {
                self.draft.after(node, *before);
            }
            nodes.push(node);
        }
        if let Some(node) = nodes.last().filter(|_| how.remove) {
            let drains = usize::from(how.drain && container.pod().is_some());
            let down = nodes.get(drains).copied().unwrap_or(*node);
            self.removals.push(Removal { found, node: *node, down });
        }
        nodes
    }

    fn grace(&self, pod: Option<&PodId>, service: Option<&ServiceName>) -> Duration {
        let asked = pod.and_then(|pod| self.desired.asked.get(pod)).and_then(Asked::timeout);
        let own = || service.and_then(|name| self.desired.graph.services.get(name)).map(|service| service.stop_grace);
        asked.or(self.desired.stop_timeout).or_else(own).unwrap_or(DEFAULT_GRACE)
    }

    /// Returns whether a load balancer sends to the container, so that it must be drained before it is stopped.
    fn is_balanced(&self, container: &ObservedContainer) -> bool {
        let (Some(name), Some(number)) = (&container.service, container.number) else { return false };
        let graph = &self.desired.graph;
        let part = graph.services.get(name).and_then(|service| service.part.as_ref());
        // Connections to a pod of several containers are its main container's, as long as it lives where the pod does.
        let own = match part.map(|part| part.role) {
            None => Some(name),
            Some(Role::Main) => {
                let holder = graph.parts(name).find(|(_, role)| *role == Role::Holder).map(|(holder, _)| holder);
                holder.filter(|holder| self.is_connected(container, &PodId::new((*holder).clone(), number)))
            }
            Some(Role::Holder | Role::Init | Role::Sidecar | Role::PreStart) => None,
        };
        let network = own.and_then(|name| graph.services.get(name)).map(|service| &service.network);
        matches!(network, Some(NetworkMode::Networks(_))) && container.is_ready() && container.pod().is_some()
    }
}

impl Emitter<'_> {
    /// Returns whether a container lives in the namespaces of a holder that runs, or has networks of its own, as one that was
    /// made before its pod had helpers.
    fn is_connected(&self, container: &ObservedContainer, holder: &PodId) -> bool {
        if !container.networks.is_empty() {
            return true;
        }
        let holder = self.survey.pods.get(holder).and_then(|(_, found)| *found).map(|found| found.container);
        holder.is_some_and(|holder| {
            holder.is_running()
                && container.network_mode == format!("container:{}", holder.id)
                && !started_before(container, holder)
        })
    }
}

/// Returns the step that thaws a container.
pub(super) fn unpause(container: &ObservedContainer) -> Step {
    Step::Unpause { id: container.id.clone(), name: container.name.clone() }
}
