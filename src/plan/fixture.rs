//! A small world for tests: projects as short YAML, hosts that are values, plans as one line of text.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use crate::expand::{Input, expand};
use crate::graph::Graph;
use crate::ids::{HostName, PodId};
use crate::model::{self, Model};
use crate::observed::{Hooked, Observed, ObservedContainer, PodMemory, Rolled};
use crate::place::{HostFacts, place};
use crate::testing;

use super::desired::NetworkAddresses;
use super::{Desired, Intent, Plan, Step, plan, render, simulate};

/// Reads a project named `shop` from its services (and more, if the text has top-level keys): canonical form, but
/// names and images may be left out.
pub(crate) fn graph(text: &str) -> Graph {
    let text = if text.contains("services:") {
        text.to_owned()
    } else {
        format!("services:\n  {}", text.replace('\n', "\n  "))
    };
    let mut model: Model = serde_yaml::from_str(&format!("name: shop\n{text}")).expect("a model");
    for service in model.services.values_mut() {
        service.image.get_or_insert("app".to_owned());
        service.keys.init = helpers(service, "x-init");
        service.keys.sidecars = helpers(service, "x-sidecars");
    }
    for (key, network) in model.networks.iter_mut().filter(|(_, network)| network.name.is_empty()) {
        network.name = format!("shop_{key}");
    }
    for (key, volume) in model.volumes.iter_mut().filter(|(_, volume)| volume.name.is_empty()) {
        volume.name = format!("shop_{key}");
    }
    let input = Input {
        model: &model,
        contents: &BTreeMap::new(),
        logins: None,
        snapshots: &BTreeMap::new(),
        scales: &BTreeMap::new(),
        disabled: &BTreeMap::new(),
        working_dir: "/src",
        config_files: &[],
    };
    expand(&input).expect("a project without mistakes").graph
}

fn helpers(service: &model::Service, key: &str) -> IndexMap<String, model::Service> {
    let Some(value) = service.extensions.get(key) else { return IndexMap::new() };
    let mut helpers: IndexMap<String, model::Service> = serde_json::from_value(value.clone()).expect("helpers");
    for helper in helpers.values_mut() {
        helper.image.get_or_insert("helper".to_owned());
    }
    helpers
}

pub(crate) fn host(name: &str) -> HostName {
    HostName::new(name).expect("a name")
}

/// Reads `web.2`.
pub(crate) fn pod(text: &str) -> PodId {
    let (service, number) = text.rsplit_once('.').expect("service.number");
    PodId::new(service.parse().expect("a name"), number.parse().expect("a number"))
}

/// Desired and observed state that act on each other.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    pub(crate) memory: BTreeMap<PodId, PodMemory>,
    pub(crate) hosts: BTreeMap<HostName, HostFacts>,
    /// Steps run so far: what ids and times of the simulated engines are made of.
    pub(crate) serial: u32,
}

impl World {
    /// A project that was never brought up, on the hosts named.
    pub(crate) fn new(project: &str, hosts: &[&str]) -> Self {
        let graph = graph(project);
        let desired = Desired { revision: 0, generation: 0, ..testing::desired(graph) };
        let names: Vec<HostName> = hosts.iter().map(|name| host(name)).collect();
        let facts = names.iter().map(|name| (name.clone(), HostFacts::default())).collect();
        let mut world =
            Self { desired, observed: simulate::empty(names), memory: BTreeMap::new(), hosts: facts, serial: 0 };
        world.up(project);
        world
    }

    /// A project that runs.
    pub(crate) fn running(project: &str, hosts: &[&str]) -> Self {
        let mut world = Self::new(project, hosts);
        world.converge();
        world
    }

    /// Wants `project` from now on, as `up` does.
    pub(crate) fn up(&mut self, project: &str) {
        self.want(graph(project));
    }

    pub(crate) fn want(&mut self, graph: Graph) {
        let previous = self.desired.clone();
        let desired = &mut self.desired;
        desired.revision += 1;
        desired.generation += 1;
        desired.unstarted.clear();
        desired.asked.clear();
        desired.assignments = place(&graph, &self.hosts, &desired.assignments, &self.observed);
        desired.enabled = graph.services.keys().cloned().collect();
        desired.addresses.networks = addresses(&graph);
        desired.graph = graph;
        desired.rolling_since = super::rolling_since(desired, Some(&previous));
        desired.rolled = super::rolled(desired, &self.observed, Some(&previous));
        // Agents tell of these as soon as they have heard of the record.
        let (generation, rolled) = (desired.generation, desired.rolled.clone());
        for pod in rolled {
            self.memory.entry(pod).or_default().rolled = Some(Rolled { generation, ..Rolled::default() });
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(Intent::Up(&self.desired), &self.observed, &self.memory)
    }

    /// Runs one step.
    pub(crate) fn apply(&mut self, step: &super::PlannedStep) {
        self.serial += 1;
        simulate::apply(step, self.serial, &mut self.observed, Some(&self.desired));
        if let (Step::CreateContainer { pod, .. }, true) = (&step.step, step.reason.is_change()) {
            let generation = self.desired.generation;
            if self.desired.graph.rollout(&pod.service).is_some() {
                self.memory.entry(pod.clone()).or_default().rolled = Some(Rolled { generation, ..Rolled::default() });
            }
        }
        if let Step::StartContainer { pod, .. } = &step.step {
            let run = self.run_with_hooks(pod);
            let memory = self.memory.entry(pod.clone()).or_default();
            memory.started_generation = self.desired.generation;
            memory.hooked = run.map(|started_at| Hooked { started_at, failure: None });
        }
    }

    /// Returns when the pod's container was started, if there is something to be run in it then.
    fn run_with_hooks(&self, pod: &PodId) -> Option<String> {
        let service = self.desired.graph.services.get(&pod.service)?;
        service.container.post_start.first()?;
        let containers = self.observed.hosts.values().flat_map(|host| host.containers.values());
        containers.filter(|one| one.pod().as_ref() == Some(pod)).map(|one| one.started_at.clone()).max()
    }

    /// Runs a plan as far as its gates let it, `most` steps at most, `watch`ing the world after each. Returns how many.
    pub(crate) fn run(&mut self, plan: &Plan, most: usize, mut watch: impl FnMut(&Self)) -> usize {
        let mut done = BTreeSet::new();
        while done.len() < most {
            let next = plan.runnable(&done, &self.observed, Some(&self.desired)).first().map(|step| (*step).clone());
            match next {
                Some(step) => {
                    self.apply(&step);
                    done.insert(step.id);
                    watch(self);
                }
                None => break,
            }
        }
        done.len()
    }

    /// Lets all pauses of rollouts pass for what is ready.
    pub(crate) fn rest(&mut self) {
        let generation = self.desired.generation;
        for container in self.observed.hosts.values().flat_map(|host| host.containers.values()) {
            let made = container.pod().filter(|_| container.is_ready() && container.generation == Some(generation));
            let memory = made.and_then(|pod| self.memory.get_mut(&pod));
            if let Some(rolled) = memory.map(|memory| &mut memory.rolled).filter(|rolled| rolled.is_some()) {
                let failure = rolled.take().and_then(|rolled| rolled.failure);
                *rolled = Some(Rolled { generation, rested: true, watched: true, retried: false, failure });
            }
        }
    }

    /// Plans and runs until nothing is left to do.
    pub(crate) fn converge(&mut self) {
        for _ in 0..50 {
            let plan = self.plan();
            if plan.steps.is_empty() {
                return;
            }
            self.run(&plan, usize::MAX, |_| {});
            simulate::settle(&mut self.observed, &self.desired);
            self.rest();
        }
        panic!("still to do after 50 plans:\n{}", render::render(&self.plan()));
    }

    /// Changes the container of a pod.
    pub(crate) fn touch(&mut self, name: &str, change: impl FnOnce(&mut ObservedContainer)) {
        let pod = pod(name);
        let mut all = self.observed.hosts.values_mut().flat_map(|host| host.containers.values_mut());
        change(all.find(|container| container.pod().as_ref() == Some(&pod)).expect("the pod has a container"));
    }

    /// Removes the container of a pod.
    pub(crate) fn remove(&mut self, name: &str) {
        let pod = pod(name);
        for host in self.observed.hosts.values_mut() {
            host.containers.retain(|_, container| container.pod().as_ref() != Some(&pod));
        }
    }
}

/// Gives each network that is not external a subnet of its own, or the one that the file asks for.
pub(crate) fn addresses(graph: &Graph) -> BTreeMap<crate::ids::ResourceKey, NetworkAddresses> {
    let own = graph.networks.iter().filter(|(_, network)| !network.external);
    own.map(|(key, network)| {
        // Like the real ones they depend on the network alone, not on what other networks there are.
        let index = key.as_str().bytes().next().unwrap_or_default();
        let subnet = network.subnet.unwrap_or_else(|| format!("10.{index}.0.0/20").parse().expect("a subnet"));
        let gateway = std::net::Ipv4Addr::from(u32::from(subnet.network()) + 1);
        let addresses = NetworkAddresses {
            subnet,
            gateway,
            ip_range: None,
            vips: subnet,
            services: BTreeMap::new(),
            last_vip: None,
        };
        (key.clone(), addresses)
    })
    .collect()
}

/// Returns a plan as one line: steps in order, then notes and failures.
pub(crate) fn brief(plan: &Plan) -> String {
    let hosts: BTreeSet<_> = plan.steps.iter().map(|step| &step.host).collect();
    let steps = plan.steps.iter().map(|step| {
        let what = render::action(&step.step).replace("container shop-", "");
        let on = if hosts.len() > 1 { format!(" on {}", step.host) } else { String::new() };
        match render::reason(&step.reason) {
            reason if reason.is_empty() => format!("{what}{on}"),
            reason => format!("{what}{on} ({reason})"),
        }
    });
    let notes = plan.notes.iter().map(|note| format!("note: {note}"));
    let failures = plan.failures.iter().map(|failure| format!("failure: {failure}"));
    steps.chain(notes).chain(failures).collect::<Vec<_>>().join(", ")
}
