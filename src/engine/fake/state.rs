//! What the fake engine holds, and how it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;

use super::Fault;
use super::by_hand::Files;
use crate::engine::contract::{Act, script};
use crate::engine::translate::{self, ApiVersion};
use crate::engine::{
    ContainerSpec, EngineError, EngineEvent, EngineRestart, HostPort, LogChunk, NetworkSpec, Result, SpecAttachment,
    SpecNetwork, VolumeSpec, label,
};
use crate::graph::MountSource;
use crate::observed::{ContainerState, Health, ObservedContainer, ObservedNetwork, ObservedVolume};

/// 2026-01-01T00:00:00Z.
const EPOCH_SECS: i64 = 1_767_225_600;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) containers: BTreeMap<String, FakeContainer>,
    pub(super) networks: BTreeMap<String, FakeNetwork>,
    pub(super) volumes: BTreeMap<String, ObservedVolume>,
    /// References to image ids.
    pub(super) images: BTreeMap<String, String>,
    /// Ids of images that were built, by what they were built of.
    pub(super) builds: BTreeMap<String, String>,
    /// References that were pushed.
    pub(super) pushed: BTreeSet<String>,
    /// Exit codes of commands that ran, by exec id.
    pub(super) execs: BTreeMap<String, i64>,
    pub(super) events: Vec<EngineEvent>,
    pub(super) calls: BTreeMap<&'static str, u64>,
    pub(super) faults: BTreeMap<&'static str, (Fault, usize)>,
    pub(super) unreachable: bool,
    /// Names of containers that do not listen to their stop signal.
    pub(super) stubborn: BTreeSet<String>,
    /// Networks that show endpoints of containers that are gone, for so many attempts to remove them.
    pub(super) lingering: BTreeMap<String, usize>,
    /// Containers that were removed, by id.
    pub(super) gone: BTreeMap<String, Gone>,
    /// Things made and changes so far: source of ids and times.
    counter: u32,
    /// Which engine of this process it is, once an id was given.
    engine: Option<u32>,
}

/// Engines that gave an id so far.
static ENGINES: AtomicU32 = AtomicU32::new(1);

#[derive(Debug, Clone)]
pub(super) struct FakeContainer {
    pub(super) spec: ContainerSpec,
    pub(super) observed: ObservedContainer,
    pub(super) logs: Vec<(Timestamp, LogChunk)>,
    pub(super) pid: u32,
    /// What its health check wrote last.
    pub(super) checked: Option<String>,
    /// What archives brought there.
    pub(super) files: Files,
    /// How often it has ended.
    pub(super) ends: u32,
}

/// What is known of a container that was removed.
#[derive(Debug, Clone)]
pub(super) struct Gone {
    pub(super) logs: Vec<(Timestamp, LogChunk)>,
    pub(super) code: i32,
}

impl FakeContainer {
    pub(super) fn is_up(&self) -> bool {
        matches!(self.observed.state, ContainerState::Running { .. } | ContainerState::Paused)
    }
}

#[derive(Debug, Clone)]
pub(super) struct FakeNetwork {
    pub(super) observed: ObservedNetwork,
    ip_range: ipnet::Ipv4Net,
    ipv6: Vec<ipnet::Ipv6Net>,
}

fn conflict(action: &str, message: String) -> EngineError {
    EngineError::Conflict { action: action.to_owned(), message }
}

fn not_found(what: &'static str, name: &str) -> EngineError {
    EngineError::NotFound { what, name: name.to_owned() }
}

impl State {
    fn next(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn new_id(&mut self) -> String {
        // Engines never give the same id, also not two of them.
        let engine = *self.engine.get_or_insert_with(|| ENGINES.fetch_add(1, Ordering::Relaxed));
        format!("{:064x}", u128::from(self.next()) << 96 | u128::from(engine) << 16 | 0xfa_4e)
    }

    pub(super) fn now(&self) -> Timestamp {
        let since_epoch = i64::from(self.counter);
        Timestamp::from_second(EPOCH_SECS + since_epoch).expect("a time in this century")
    }

    pub(super) fn fault(&mut self, method: &'static str) -> Option<Fault> {
        let (fault, left) = self.faults.get_mut(method)?;
        *left = left.checked_sub(1)?;
        Some(*fault)
    }

    pub(super) fn add_image(&mut self, reference: &str) {
        let id = format!("sha256:{}", self.new_id());
        self.images.entry(reference.to_owned()).or_insert(id);
    }

    pub(super) fn move_tag(&mut self, reference: &str) {
        let id = format!("sha256:{}", self.new_id());
        if let Some(old) = self.images.insert(reference.to_owned(), id) {
            // An image without a name is found by its id only.
            self.images.insert(old.clone(), old);
        }
    }

    pub(super) fn prune_images(&mut self) {
        let used: Vec<String> = self.containers.values().map(|one| one.observed.image_id.clone()).collect();
        self.images.retain(|name, id| name != id || used.contains(id));
    }

    /// Returns the id of an image given by id or reference.
    pub(super) fn image(&self, reference: &str) -> Option<&String> {
        self.images.get(reference).or_else(|| self.images.values().find(|id| *id == reference))
    }

    /// Returns the id of a container given by id or name.
    pub(super) fn id(&self, id_or_name: &str) -> Result<String> {
        let found = self.containers.values().map(|container| &container.observed);
        let mut found = found.filter(|container| container.id == id_or_name || container.name == id_or_name);
        found.next().map(|container| container.id.clone()).ok_or_else(|| not_found("container", id_or_name))
    }

    pub(super) fn named(&self, name: &str) -> Option<&FakeContainer> {
        self.containers.values().find(|container| container.observed.name == name)
    }

    pub(super) fn now_nanos(&self) -> i64 {
        i64::try_from(self.now().as_nanosecond()).expect("a time in this century")
    }

    /// Records an event of a container.
    pub(super) fn tell(&mut self, id: &str, action: &str, more: &[(&str, String)]) {
        self.next();
        let Some(container) = self.containers.get(id) else { return };
        let mut attributes = container.observed.labels.clone();
        attributes.insert("name".to_owned(), container.observed.name.clone());
        attributes.insert("image".to_owned(), container.spec.image.clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let time_nanos = self.now_nanos();
        let (kind, action, id) = ("container".to_owned(), action.to_owned(), id.to_owned());
        self.events.push(EngineEvent { kind, action, id, attributes, time_nanos });
    }

    pub(super) fn create_network(&mut self, spec: &NetworkSpec) -> Result<String> {
        if let Some(there) = self.networks.get(&spec.name) {
            return Ok(there.observed.id.clone());
        }
        let overlaps = |net: &ipnet::Ipv4Net| net.contains(&spec.subnet) || spec.subnet.contains(net);
        if self.networks.values().any(|there| there.observed.subnet.as_ref().is_some_and(overlaps)) {
            let message = "Pool overlaps with other one on this address space".to_owned();
            return Err(conflict("create network", message));
        }
        if !spec.subnet.contains(&spec.gateway) || !spec.subnet.contains(&spec.ip_range) {
            let message = "the gateway and the range must be in the subnet".to_owned();
            return Err(EngineError::Refused { action: "create network".to_owned(), message });
        }
        let ipv6: Vec<ipnet::Ipv6Net> = spec.ipv6_pools.iter().map(|pool| pool.subnet).collect();
        let is_taken = |net: &ipnet::Ipv6Net| ipv6.iter().any(|own| own.contains(net) || net.contains(own));
        if self.networks.values().flat_map(|there| &there.ipv6).any(is_taken) {
            let message = "Pool overlaps with other one on this address space".to_owned();
            return Err(conflict("create network", message));
        }
        if spec.enable_ipv6 == Some(true) && ipv6.is_empty() {
            // As engines before 27.
            let message = "could not find an available, non-overlapping IPv6 address pool".to_owned();
            return Err(EngineError::Failed { action: "create network".to_owned(), message });
        }
        let id = self.new_id();
        let observed = ObservedNetwork {
            id: id.clone(),
            name: spec.name.clone(),
            driver: spec.driver.clone(),
            subnet: Some(spec.subnet),
            gateway: Some(spec.gateway),
            ipv6: spec.enable_ipv6.unwrap_or_default(),
            internal: spec.internal,
            bridge: format!("br-{}", &id[20..32]),
            bridge_on_demand: false,
            labels: spec.labels.clone(),
        };
        self.networks.insert(spec.name.clone(), FakeNetwork { observed, ip_range: spec.ip_range, ipv6 });
        Ok(id)
    }

    pub(super) fn remove_network(&mut self, name: &str) -> Result<()> {
        let lingers = self.lingering.get_mut(name).is_some_and(|left| {
            let lingers = *left > 0;
            *left = left.saturating_sub(1);
            lingers
        });
        if lingers || !self.network_users(name).is_empty() {
            return Err(conflict("remove network", format!("network {name} has active endpoints")));
        }
        self.networks.remove(name);
        Ok(())
    }

    pub(super) fn clear_network(&mut self, name: &str) {
        self.lingering.remove(name);
    }

    pub(super) fn network_users(&self, name: &str) -> Vec<String> {
        let uses = |container: &&FakeContainer| container.is_up() && container.observed.networks.contains_key(name);
        self.containers.values().filter(uses).map(|container| container.observed.name.clone()).collect()
    }

    pub(super) fn create_volume(&mut self, spec: &VolumeSpec) -> Result<()> {
        let VolumeSpec { name, driver, driver_opts: _, labels } = spec.clone();
        match self.volumes.get(&name) {
            Some(there) if there.driver != driver => {
                Err(conflict("create volume", format!("a volume named {name} already exists with another driver")))
            }
            Some(_) => Ok(()),
            None => {
                self.volumes.insert(name.clone(), ObservedVolume { name, driver, labels });
                Ok(())
            }
        }
    }

    pub(super) fn remove_volume(&mut self, name: &str) -> Result<()> {
        if self.containers.values().any(|container| container.observed.volumes.values().any(|used| used == name)) {
            return Err(conflict("remove volume", format!("volume {name} is in use")));
        }
        self.volumes.remove(name);
        Ok(())
    }

    pub(super) fn create(&mut self, spec: &ContainerSpec) -> Result<String> {
        if let Some(there) = self.named(&spec.name) {
            let same = [label::PROJECT, label::SPEC_HASH, label::GENERATION]
                .into_iter()
                .all(|key| there.spec.labels.get(key) == spec.labels.get(key));
            return if same && spec.labels.contains_key(label::SPEC_HASH) {
                Ok(there.observed.id.clone())
            } else {
                Err(conflict("create container", format!("the name {} is already in use", spec.name)))
            };
        }
        // The same checks as for an old engine.
        translate::create_request(spec, ApiVersion::OLDEST).map_err(|reason| EngineError::Refused {
            action: "create container".to_owned(),
            message: reason.to_string(),
        })?;
        let image_id = self.image(&spec.image).cloned().ok_or_else(|| not_found("image", &spec.image))?;
        let networks = self.check_networks(&spec.network)?;
        let volumes = self.mount_volumes(spec);
        let id = self.new_id();
        let observed = new_container(spec, &id, &image_id, networks, volumes, self.now());
        let (spec, pid) = (spec.clone(), self.counter);
        let container =
            FakeContainer { spec, observed, logs: Vec::new(), pid, checked: None, files: Files::new(), ends: 0 };
        self.containers.insert(id.clone(), container);
        self.tell(&id, "create", &[]);
        Ok(id)
    }

    fn check_networks(&self, network: &SpecNetwork) -> Result<BTreeMap<String, Option<Ipv4Addr>>> {
        let SpecNetwork::Networks(attachments) = network else { return Ok(BTreeMap::new()) };
        for SpecAttachment { network, ipv4, ipv6, .. } in attachments {
            let there = self.networks.get(network).ok_or_else(|| not_found("network", network))?;
            let subnet = there.observed.subnet;
            let is_outside = ipv4.is_some_and(|address| !subnet.is_some_and(|subnet| subnet.contains(&address)));
            if is_outside || ipv6.is_some_and(|address| !there.ipv6.iter().any(|subnet| subnet.contains(&address))) {
                let message = "no configured subnet contains the IP address".to_owned();
                return Err(EngineError::Refused { action: "create container".to_owned(), message });
            }
        }
        Ok(attachments.iter().map(|attachment| (attachment.network.clone(), None)).collect())
    }

    /// Makes the anonymous volumes, and like the engine the named ones that nobody made.
    fn mount_volumes(&mut self, spec: &ContainerSpec) -> BTreeMap<String, String> {
        let mut mounted = BTreeMap::new();
        for mount in &spec.container.mounts {
            let name = match &mount.source {
                MountSource::Volume { volume, .. } => spec.volume_names[volume.as_str()].clone(),
                MountSource::Anonymous { .. } => {
                    spec.carried_volumes.get(&mount.target).cloned().unwrap_or_else(|| self.new_id())
                }
                MountSource::Bind { .. }
                | MountSource::Snapshot { .. }
                | MountSource::PodVolume { .. }
                | MountSource::EngineSocket
                | MountSource::Image { .. }
                | MountSource::Tmpfs { .. } => continue,
            };
            let made = || ObservedVolume { name: name.clone(), driver: "local".to_owned(), labels: BTreeMap::new() };
            self.volumes.entry(name.clone()).or_insert_with(made);
            mounted.insert(mount.target.clone(), name);
        }
        mounted
    }

    pub(super) fn start(&mut self, id: &str) -> Result<()> {
        let container = &self.containers[id];
        match container.observed.state {
            ContainerState::Running { .. } => return Ok(()),
            ContainerState::Paused => return Err(conflict("start container", "it is paused".to_owned())),
            _ => {}
        }
        let spec = container.spec.clone();
        self.check_ports(id, &spec.host_ports)?;
        let addresses = self.take_addresses(&spec.network)?;
        let health = match &spec.container.healthcheck {
            Some(check) if check.test.first().is_none_or(|word| word != "NONE") => Health::Starting,
            _ => Health::None,
        };
        self.tell(id, "start", &[]);
        let now = self.now().to_string();
        if let Some(container) = self.containers.get_mut(id) {
            container.observed.networks = addresses;
            container.observed.state = ContainerState::Running { health };
            container.observed.started_at = now;
            container.checked = None;
        }
        self.play(id, &spec);
        Ok(())
    }

    fn check_ports(&self, id: &str, ports: &[HostPort]) -> Result<()> {
        let up = self.containers.values().filter(|other| other.is_up() && other.observed.id != id);
        let taken: BTreeSet<_> = up
            .flat_map(|other| &other.spec.host_ports)
            .filter_map(|port| Some((port.published?, port.protocol)))
            .collect();
        match ports.iter().find(|port| port.published.is_some_and(|range| taken.contains(&(range, port.protocol)))) {
            Some(_) => Err(conflict("start container", "port is already allocated".to_owned())),
            None => Ok(()),
        }
    }

    fn take_addresses(&self, network: &SpecNetwork) -> Result<BTreeMap<String, Option<Ipv4Addr>>> {
        let SpecNetwork::Networks(attachments) = network else { return Ok(BTreeMap::new()) };
        let mut addresses = BTreeMap::new();
        for SpecAttachment { network, ipv4, .. } in attachments {
            let there = self.networks.get(network).ok_or_else(|| not_found("network", network))?;
            let up = self.containers.values().filter(|container| container.is_up());
            let mut taken: BTreeSet<_> =
                up.filter_map(|other| other.observed.networks.get(network).copied()?).collect();
            taken.extend(there.observed.gateway);
            let address = match ipv4 {
                Some(fixed) if taken.contains(fixed) => None,
                Some(fixed) => Some(*fixed),
                None => there.ip_range.hosts().find(|address| !taken.contains(address)),
            };
            let address = address.ok_or_else(|| conflict("start container", "Address already in use".to_owned()))?;
            addresses.insert(network.clone(), Some(address));
        }
        Ok(addresses)
    }

    /// Does what the container's script says.
    fn play(&mut self, id: &str, spec: &ContainerSpec) {
        let words = spec.container.command.as_deref().unwrap_or_default();
        for act in words.last().map_or_else(|| vec![Act::Sleep], |last| readable_script(last)) {
            match act {
                Act::Out(line) => self.log(id, false, &line),
                Act::Err(line) => self.log(id, true, &line),
                Act::Exit(code) => return self.end(id, code),
                Act::Sleep => return self.log(id, false, "sleeping"),
            }
        }
        self.end(id, 0);
    }

    pub(super) fn log(&mut self, id: &str, stderr: bool, line: &str) {
        let now = self.now();
        if let Some(container) = self.containers.get_mut(id) {
            container.logs.push((now, LogChunk { stderr, bytes: format!("{line}\n").into() }));
        }
    }

    /// Ends a running container.
    pub(super) fn end(&mut self, id: &str, code: i32) {
        self.tell(id, "die", &[("exitCode", code.to_string())]);
        let now = self.now().to_string();
        if let Some(container) = self.containers.get_mut(id) {
            container.observed.state = ContainerState::Exited { code, by_itself: false };
            container.observed.finished_at = now;
            container.observed.networks.values_mut().for_each(|address| *address = None);
            container.ends += 1;
            if container.spec.auto_remove {
                self.remove(id, true);
            }
        }
    }

    pub(super) fn stop(&mut self, id: &str) {
        if self.containers[id].is_up() {
            self.tell(id, "kill", &[("signal", "15".to_owned())]);
            self.end(id, 143);
            self.tell(id, "stop", &[]);
        }
    }

    pub(super) fn kill(&mut self, id: &str, signal: &str) -> Result<()> {
        if !self.containers[id].is_up() {
            return Err(conflict("kill container", format!("container {id} is not running")));
        }
        let number = match signal.trim_start_matches("SIG") {
            "KILL" | "9" => 9,
            "TERM" | "15" => 15,
            "INT" | "2" => 2,
            // Programs of tests handle no other signal.
            _ => 0,
        };
        self.tell(id, "kill", &[("signal", if number == 0 { signal.to_owned() } else { number.to_string() })]);
        if number != 0 {
            self.end(id, 128 + number);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &str, volumes: bool) {
        if self.containers[id].is_up() {
            self.tell(id, "kill", &[("signal", "9".to_owned())]);
            self.end(id, 137);
        }
        self.tell(id, "destroy", &[]);
        let Some(container) = self.containers.remove(id) else { return };
        let code = container.observed.state.code().unwrap_or_default();
        self.gone.insert(id.to_owned(), Gone { logs: container.logs.clone(), code });
        let anonymous = container
            .spec
            .container
            .mounts
            .iter()
            .filter(|mount| matches!(mount.source, MountSource::Anonymous { .. }));
        for mount in anonymous.filter(|_| volumes) {
            if let Some(name) = container.observed.volumes.get(&mount.target) {
                self.volumes.remove(name);
            }
        }
    }

    pub(super) fn restart(&mut self) {
        let up: Vec<_> =
            self.containers.iter().filter(|(_, container)| container.is_up()).map(|(id, _)| id.clone()).collect();
        for id in &up {
            self.end(id, 137);
        }
        let restarted: Vec<_> =
            up.into_iter().filter(|id| self.containers[id].spec.restart == EngineRestart::Always).collect();
        for id in restarted {
            // Like the engine, it says nothing to anybody when one cannot be started.
            drop(self.start(&id));
        }
    }
}

/// Reads a script; anything else than one means a program that runs until it is stopped.
fn readable_script(text: &str) -> Vec<Act> {
    let word = text.split([' ', ';']).next().unwrap_or_default();
    if ["out", "err", "exit", "sleep"].contains(&word) { script(text) } else { vec![Act::Sleep] }
}

fn new_container(
    spec: &ContainerSpec,
    id: &str,
    image_id: &str,
    networks: BTreeMap<String, Option<Ipv4Addr>>,
    volumes: BTreeMap<String, String>,
    now: Timestamp,
) -> ObservedContainer {
    let label = |key: &str| spec.labels.get(key);
    let network_mode = match &spec.network {
        SpecNetwork::Mode(mode) => mode.clone(),
        SpecNetwork::Networks(attachments) => {
            attachments.first().map_or_else(|| "none".to_owned(), |first| first.network.clone())
        }
    };
    ObservedContainer {
        id: id.to_owned(),
        name: spec.name.clone(),
        project: label(label::PROJECT).and_then(|text| text.parse().ok()),
        service: label(label::SERVICE).and_then(|text| text.parse().ok()),
        number: label(label::NUMBER).and_then(|text| text.parse().ok()),
        oneoff: label(label::ONEOFF).is_some_and(|text| text == "True"),
        spec_hash: label(label::SPEC_HASH).cloned(),
        generation: label(label::GENERATION).and_then(|text| text.parse().ok()),
        image_id: image_id.to_owned(),
        state: ContainerState::Created,
        created_at: now.to_string(),
        started_at: String::new(),
        finished_at: String::new(),
        command: spec.container.command.as_deref().unwrap_or_default().join(" "),
        networks,
        network_mode,
        volumes,
        labels: spec.labels.clone(),
        published: Vec::new(),
        probe: None,
    }
}
