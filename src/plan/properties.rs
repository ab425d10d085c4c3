//! Properties of plans over random projects, random changes and random trouble.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::graph::{NetworkMode, Rollout, Scale, Service};
use crate::ids::{PodId, ServiceName};
use crate::observed::{ContainerState, Health};
use crate::plan::{Intent, StepId, plan, render, simulate};

use super::fixture::{World, graph};

/// Names of services, in the order in which they may depend on one another.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A service of a random project.
#[derive(Debug, Clone)]
struct Draw {
    present: bool,
    scale: u32,
    /// For each earlier service: nothing, or how it is depended on.
    depends: Vec<u8>,
    health: bool,
    version: u8,
    networks: u8,
    volume: bool,
    restart: u8,
    /// Live in the namespace of the service before.
    member: bool,
    port: bool,
    /// 4: a sidecar; 5: one, and something that prepares the pod.
    helpers: u8,
    /// How many replicas are replaced at once, and whether there is a pause between them; 5 and more: nothing is said.
    rollout: (u64, bool),
}

fn service() -> impl Strategy<Value = Draw> {
    let flags = (prop::bool::weighted(0.9), any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let member = prop::bool::weighted(0.25);
    let rollout = (0..8_u64, any::<bool>());
    let kind = (0..6_u8, rollout);
    (flags, 0..5_u32, vec(0..8_u8, NAMES.len()), 0..3_u8, 0..4_u8, 0..4_u8, member, kind).prop_map(
        |((present, health, volume, port), scale, depends, version, networks, restart, member, (helpers, rollout))| {
            Draw { present, scale, depends, health, version, networks, volume, restart, member, port, helpers, rollout }
        },
    )
}

fn project() -> impl Strategy<Value = String> {
    vec(service(), NAMES.len()).prop_map(|draws| text(&draws))
}

/// Writes a project in the canonical form of the compose model, leaving out what would be a mistake.
fn text(draws: &[Draw]) -> String {
    let mut text = "networks: {back: {}, default: {}}\nvolumes: {data: {}}\nservices:\n  keep: {}\n".to_owned();
    // Services that others wait for to end: they have neither members nor dependents by health.
    let present = |index: usize| draws[index].present;
    let awaited = |index: usize| {
        draws.iter().enumerate().any(|(at, draw)| at > index && draw.present && draw.depends[index] == 3)
    };
    let mut scales = vec![0; draws.len()];
    for (index, draw) in draws.iter().enumerate().filter(|(_, draw)| draw.present) {
        let mut parts = Vec::new();
        let owner = index.checked_sub(1).filter(|owner| draw.member && present(*owner) && !awaited(*owner));
        scales[index] = owner.map_or(draw.scale, |owner| draw.scale.min(scales[owner]));
        parts.push(format!("scale: {}, environment: {{V: '{}'}}", scales[index], draw.version));
        match (owner, draw.networks) {
            (Some(owner), _) => parts.push(format!("network_mode: 'service:{}'", NAMES[owner])),
            (None, 0) => parts.push("networks: {back: null}".to_owned()),
            (None, 1) => parts.push("networks: {back: null, default: null}".to_owned()),
            (None, _) => parts.push("networks: {default: null}".to_owned()),
        }
        if draw.health && !awaited(index) {
            parts.push("healthcheck: {test: [CMD, check]}".to_owned());
        }
        if draw.volume {
            parts.push("volumes: [{type: volume, source: data, target: /data}]".to_owned());
        }
        if draw.port && owner.is_none() {
            parts.push(format!("ports: [{{target: 80, published: '80{index}0-80{index}9', mode: host}}]"));
        }
        let restart = ["no", "on-failure", "unless-stopped"].get(usize::from(draw.restart));
        if let Some(word) = restart.filter(|word| !awaited(index) || **word == "no") {
            parts.push(format!("restart: '{word}'"));
        }
        if let ((parallelism @ 0..5, pause), None) = (draw.rollout, owner) {
            let delay = if pause { "10s" } else { "0s" };
            parts.push(format!("deploy: {{update_config: {{parallelism: {parallelism}, delay: {delay}}}}}"));
        }
        match draw.helpers {
            4 => parts.push(format!("x-sidecars: {{s: {{environment: {{V: '{}'}}}}}}", draw.networks % 2)),
            5 => parts.push("x-init: {i: {}}, x-sidecars: {s: {}}".to_owned()),
            _ => {}
        }
        let depends = (0..index).filter(|other| present(*other)).filter_map(|other| {
            let (condition, restart) = match draw.depends[other] {
                0 => ("service_started", false),
                1 => ("service_started", true),
                2 if draws[other].health && !awaited(other) => ("service_healthy", false),
                3 => ("service_completed_successfully", false),
                _ => return None,
            };
            Some(format!("{}: {{condition: {condition}, restart: {restart}}}", NAMES[other]))
        });
        let depends: Vec<_> = depends.collect();
        if !depends.is_empty() {
            parts.push(format!("depends_on: {{{}}}", depends.join(", ")));
        }
        writeln!(text, "  {}: {{{}}}", NAMES[index], parts.join(", ")).expect("text");
    }
    text
}

/// Something that happens to a container, chosen by number.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    container: prop::sample::Index,
    what: u8,
}

fn troubles() -> impl Strategy<Value = Vec<Trouble>> {
    vec((any::<prop::sample::Index>(), 0..11_u8).prop_map(|(container, what)| Trouble { container, what }), 0..6)
}

impl World {
    fn suffer(&mut self, trouble: Trouble) {
        let host = self.observed.hosts.values_mut().next().expect("a host");
        if host.containers.is_empty() {
            return;
        }
        let id =
            host.containers.keys().nth(trouble.container.index(host.containers.len())).expect("it is there").clone();
        let twin_id = format!("{:064x}", self.serial + 1);
        self.serial += 1;
        let container = host.containers.get_mut(&id).expect("it is there");
        match trouble.what {
            0 => container.state = ContainerState::Exited { code: 1, by_itself: true },
            1 => container.state = ContainerState::Exited { code: 0, by_itself: true },
            2 => container.state = ContainerState::Exited { code: 137, by_itself: false },
            3 => drop(host.containers.remove(&id)),
            4 if container.is_running() => container.state = ContainerState::Paused,
            5 if container.is_running() => container.state = ContainerState::Running { health: Health::Unhealthy },
            6 => container.spec_hash = None,
            7 => container.image_id = "sha256:old".to_owned(),
            8 => container.state = ContainerState::Dead,
            9 => {
                let mut twin = container.clone();
                twin.id = twin_id;
                twin.name = format!("{}_{}", &id[52..], twin.name);
                twin.state = ContainerState::Created;
                host.containers.insert(twin.id.clone(), twin);
            }
            10 => {
                if let Some(network) = host.networks.values_mut().next() {
                    network.subnet = Some("172.30.0.0/24".parse().expect("a subnet"));
                }
            }
            _ => {}
        }
    }

    /// Returns how many containers of each service are ready.
    fn ready(&self) -> BTreeMap<ServiceName, usize> {
        let mut ready = BTreeMap::new();
        for container in self.observed.hosts.values().flat_map(|host| host.containers.values()) {
            if let (Some(service), true) = (&container.service, container.is_ready()) {
                *ready.entry(service.clone()).or_default() += 1;
            }
        }
        ready
    }

    /// Returns for each service how many ready pods are promised while it changes from what it is now to what it shall
    /// be: all but one of those that it has and keeps, or all but those that are replaced at once. Jobs and single pods promise
    /// nothing.
    fn promise(&self) -> BTreeMap<ServiceName, usize> {
        let ready = self.ready();
        let graph = &self.desired.graph;
        let services = graph.services.iter().filter(|(name, _)| !graph.is_awaited_job(graph.front(name)));
        let promised = services.filter_map(|(name, service)| {
            let Scale::Replicas(wanted) = service.scale else { return None };
            let has = ready.get(name).copied().unwrap_or(0);
            let places = graph.rollout(name).map_or(1, Rollout::places);
            Some((name.clone(), has.min(usize::try_from(wanted).ok()?).saturating_sub(places)))
        });
        promised.collect()
    }

    fn assert_reached(&self) {
        for (name, service) in &self.desired.graph.services {
            let graph = &self.desired.graph;
            let root = graph.namespace_root(name);
            let owners = [name, root, graph.front(name), graph.front(root)];
            if owners.into_iter().any(|name| graph.is_awaited_job(name)) {
                continue;
            }
            for pod in service.replicas(name) {
                let host = &self.observed.hosts[&self.desired.assignments.pods[&pod]];
                let mine: Vec<_> = host.containers.values().filter(|c| c.pod().as_ref() == Some(&pod)).collect();
                assert_eq!(mine.len(), 1, "{pod} has one container");
                assert_eq!(mine[0].spec_hash.as_ref(), Some(&service.spec_hash), "{pod} has the spec");
                assert_eq!(mine[0].name, self.desired.graph.container_name(&pod));
                assert!(mine[0].is_ready(), "{pod} is ready and not {:?}", mine[0].state);
            }
        }
    }

    /// Runs plan after plan, each cut off after as many steps as `cuts` says, choosing among the steps that may run.
    fn go(&mut self, cuts: &[usize], picks: &[prop::sample::Index], watch: &mut dyn FnMut(&Self)) {
        let mut picks = picks.iter().cycle();
        for round in 0..60 {
            let plan = self.plan();
            if plan.steps.is_empty() {
                return;
            }
            let cut = cuts.get(round).copied().unwrap_or(usize::MAX);
            let mut done = std::collections::BTreeSet::new();
            while done.len() < cut {
                let ready = plan.runnable(&done, &self.observed, Some(&self.desired));
                let Some(step) =
                    (!ready.is_empty()).then(|| ready[picks.next().expect("cycle").index(ready.len())].clone())
                else {
                    break;
                };
                self.apply(&step);
                done.insert(step.id);
                watch(self);
            }
            simulate::settle(&mut self.observed, &self.desired);
            self.rest();
        }
        panic!("still to do after 60 plans:\n{}", render::render(&self.plan()));
    }
}

/// Jobs and what lives in their namespaces may end or wait; an end by itself with 0 is an end. Such trouble is left out
/// where a property is about pods that must come back.
fn heals(what: u8) -> bool {
    !matches!(what, 0 | 1)
}

/// 48 cases keep the suite quick; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 48, ..config } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_as_it_shall_be_is_left_alone(project in project()) {
        let world = World::running(&project, &["local"]);
        world.assert_reached();
        let again = plan(Intent::Up(&world.desired), &world.observed, &world.memory);
        prop_assert!(again.steps.is_empty(), "{}", render::render(&again));
    }

    #[test]
    fn desired_is_reached_however_plans_are_cut_off(
        before in project(),
        after in project(),
        troubles in troubles(),
        cuts in vec(0..12_usize, 0..8),
        picks in vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let mut world = World::running(&before, &["local"]);
        for trouble in troubles {
            world.suffer(trouble);
        }
        world.up(&after);
        world.desired.remove_orphans = true;
        world.go(&cuts, &picks, &mut |_| {});
        world.assert_reached();
    }

    #[test]
    fn trouble_alone_is_healed(
        project in project(),
        troubles in troubles(),
        picks in vec(any::<prop::sample::Index>(), 1..20),
    ) {
        // `restart: no` means what it says: it is not healed.
        let project = project.replace("restart: 'no'", "restart: always");
        let project = if graph(&project).services.keys().any(|name| graph(&project).is_awaited_job(name)) {
            project.replace("restart: always, ", "").replace(", restart: always", "")
        } else {
            project
        };
        let mut world = World::running(&project, &["local"]);
        for trouble in troubles.into_iter().filter(|trouble| heals(trouble.what)) {
            world.suffer(trouble);
        }
        world.go(&[], &picks, &mut |_| {});
        world.assert_reached();
    }

    #[test]
    fn all_but_one_stay_ready(
        before in project(),
        after in project(),
        troubles in troubles(),
        cuts in vec(0..12_usize, 0..8),
        picks in vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let mut world = World::running(&before, &["local"]);
        let calm = troubles.is_empty();
        // A network that is made anew takes everything on it along.
        for trouble in troubles.into_iter().filter(|trouble| trouble.what != 10) {
            world.suffer(trouble);
        }
        world.up(&after);
        world.desired.remove_orphans = true;
        let mut promise = world.promise();
        if !calm {
            // Members of a namespace whose owner died look ready and are not.
            let services = &world.desired.graph.services;
            let alone = |service: &Service| service.part.is_none() && !matches!(service.network, NetworkMode::Service(_));
            promise.retain(|name, _| alone(&services[name]));
        }
        world.go(&cuts, &picks, &mut |world| {
            let ready = world.ready();
            for (name, least) in &promise {
                let has = ready.get(name).copied().unwrap_or(0);
                assert!(has >= *least, "{name} has {has} ready pods of {least} promised");
            }
        });
    }

    #[test]
    fn the_same_input_gives_the_same_plan(before in project(), after in project(), troubles in troubles()) {
        let mut world = World::running(&before, &["local"]);
        for trouble in troubles {
            world.suffer(trouble);
        }
        world.up(&after);
        prop_assert_eq!(world.plan(), world.clone().plan());
    }

    #[test]
    fn a_plan_can_be_run_from_top_to_bottom(before in project(), after in project(), troubles in troubles()) {
        let mut world = World::running(&before, &["local"]);
        for trouble in troubles {
            world.suffer(trouble);
        }
        world.up(&after);
        for (index, step) in world.plan().steps.iter().enumerate() {
            prop_assert_eq!(step.id, StepId(u32::try_from(index).expect("few steps")));
            prop_assert!(step.after.iter().all(|before| *before < step.id));
        }
    }

    #[test]
    fn going_down_leaves_nothing(project in project(), troubles in troubles(), known in any::<bool>()) {
        let mut world = World::running(&project, &["local"]);
        for trouble in troubles {
            world.suffer(trouble);
        }
        let last = known.then_some(&world.desired);
        let intent = Intent::Down { project: &world.desired.graph.project, last, volumes: true, timeout: None };
        let plan = plan(intent, &world.observed, &BTreeMap::<PodId, _>::new());
        let mut observed = world.observed.clone();
        for (serial, step) in (world.serial + 1..).zip(&plan.steps) {
            simulate::apply(step, serial, &mut observed, None);
        }
        let host = observed.hosts.values().next().expect("a host");
        prop_assert!(host.containers.is_empty() && host.networks.is_empty() && host.volumes.is_empty());
    }
}
