//! Steps under construction and the order among them.
//!
//! A [`Draft`] collects steps as nodes and what must come before what as edges; [`Draft::into_steps`] sorts them so that
//! the list can be run from top to bottom, and equal input gives the same list.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::graph::Graph;
use crate::ids::{HostName, PodId, ServiceName};

use super::{Gate, PlannedStep, Reason, Step, StepId};

/// A step of a [`Draft`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(usize);

/// Where a step comes in the list among those that could run at the same time; smaller first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Networks and volumes.
    Resource,
    /// Drain, stop, remove.
    Teardown,
    /// Make containers.
    Create,
    /// Start them.
    Start,
    /// Remove networks and volumes of a project that goes down.
    Sweep,
}

struct Drafted {
    /// Phase, rank of the service in the order of dependencies, number of the pod.
    key: (Phase, usize, u32),
    host: HostName,
    step: Step,
    reason: Reason,
    after: BTreeSet<Node>,
    gates: Vec<Gate>,
    others_ready: Option<PodId>,
    others_away: usize,
    held: Option<String>,
    /// Whether some other node waits for it.
    awaited: bool,
}

/// Steps without an order yet.
#[derive(Default)]
pub(super) struct Draft {
    nodes: Vec<Drafted>,
}

impl Draft {
    /// Adds a step; `rank` and `number` sort it among others of its phase.
    pub(super) fn add(
        &mut self,
        (phase, rank, number): (Phase, usize, u32),
        host: &HostName,
        step: Step,
        reason: Reason,
    ) -> Node {
        self.nodes.push(Drafted {
            key: (phase, rank, number),
            host: host.clone(),
            step,
            reason,
            after: BTreeSet::new(),
            gates: Vec::new(),
            others_ready: None,
            others_away: 0,
            held: None,
            awaited: false,
        });
        Node(self.nodes.len() - 1)
    }

    /// Makes `node` wait for `before`.
    pub(super) fn after(&mut self, node: Node, before: Node) {
        if node != before {
            self.nodes[node.0].after.insert(before);
            self.nodes[before.0].awaited = true;
        }
    }

    /// Makes `node` wait for `before` unless `before` waits for `node` already: for wishes, not for needs.
    pub(super) fn after_if_possible(&mut self, node: Node, before: Node) {
        if !self.waits_for(before, node) {
            self.after(node, before);
        }
    }

    /// Returns whether `node` comes after `before` by the edges so far.
    fn waits_for(&self, node: Node, before: Node) -> bool {
        if !self.nodes[before.0].awaited {
            return node == before;
        }
        let (mut open, mut seen) = (vec![node], BTreeSet::new());
        while let Some(next) = open.pop() {
            if next == before {
                return true;
            }
            if seen.insert(next) {
                open.extend(&self.nodes[next.0].after);
            }
        }
        false
    }

    /// Adds a condition on the observed state.
    pub(super) fn gate(&mut self, node: Node, gate: Gate) {
        let gates = &mut self.nodes[node.0].gates;
        if !gates.contains(&gate) {
            gates.push(gate);
        }
    }

    /// Makes `node` wait until all other pods of `pod`'s service are ready, but for `away` of them.
    pub(super) fn others_ready(&mut self, node: Node, pod: &PodId, away: usize) {
        let node = &mut self.nodes[node.0];
        (node.others_ready, node.others_away) = (Some(pod.clone()), away);
    }

    /// Holds `node` back in this plan: the reader is told why.
    pub(super) fn hold(&mut self, node: Node, why: &str) {
        self.nodes[node.0].held = Some(why.to_owned());
    }

    /// Returns the steps so that each comes after those it waits for; ties go by phase, rank, number and insertion.
    pub(super) fn into_steps(self) -> Vec<PlannedStep> {
        let mut missing: Vec<usize> = self.nodes.iter().map(|node| node.after.len()).collect();
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for before in &node.after {
                followers[before.0].push(index);
            }
        }
        let ready = |index: &usize| Reverse((self.nodes[*index].key, *index));
        let mut heap: BinaryHeap<_> =
            (0..self.nodes.len()).filter(|index| missing[*index] == 0).map(|i| ready(&i)).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(Reverse((_, index))) = heap.pop() {
            order.push(index);
            for follower in &followers[index] {
                missing[*follower] -= 1;
                if missing[*follower] == 0 {
                    heap.push(ready(follower));
                }
            }
        }
        debug_assert_eq!(order.len(), self.nodes.len(), "steps wait for one another in a ring");
        self.numbered(&order)
    }

    fn numbered(self, order: &[usize]) -> Vec<PlannedStep> {
        let id = |index: usize| StepId(u32::try_from(index).unwrap_or(u32::MAX));
        let ids: BTreeMap<Node, StepId> = order.iter().enumerate().map(|(at, node)| (Node(*node), id(at))).collect();
        let mut nodes: BTreeMap<usize, Drafted> = self.nodes.into_iter().enumerate().collect();
        let drafted = order.iter().filter_map(|index| nodes.remove(index));
        drafted
            .enumerate()
            .map(|(at, node)| {
                let mut after: Vec<StepId> = node.after.iter().filter_map(|before| ids.get(before).copied()).collect();
                after.sort_unstable();
                PlannedStep {
                    id: id(at),
                    host: node.host,
                    step: node.step,
                    reason: node.reason,
                    after,
                    gates: node.gates,
                    others_ready: node.others_ready,
                    others_away: node.others_away,
                    held: node.held,
                }
            })
            .collect()
    }
}

/// Returns each service's rank: one more than the greatest of those it depends on. Rings, which `expand` refuses, are cut.
pub(super) fn ranks(graph: &Graph) -> BTreeMap<&ServiceName, usize> {
    fn rank<'a>(graph: &'a Graph, name: &'a ServiceName, ranks: &mut BTreeMap<&'a ServiceName, usize>) -> usize {
        if let Some(known) = ranks.get(name) {
            return *known;
        }
        ranks.insert(name, 0);
        let Some(service) = graph.services.get(name) else { return 0 };
        let rank = service.dependencies().map(|other| rank(graph, other, ranks) + 1).max().unwrap_or(0);
        ranks.insert(name, rank);
        rank
    }
    let mut known = BTreeMap::new();
    for name in graph.services.keys() {
        rank(graph, name, &mut known);
    }
    known
}
