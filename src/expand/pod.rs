//! Pods of several containers: a service with `x-init`, `x-sidecars`, `x-ambassadors` or a pod volume becomes the services that
//! its pods consist of.
//!
//! A holder owns the namespaces, so that the main container can end and come back while address and helpers stay. Everything
//! starts one after the other, each once the one before is as it shall be: what the service depends on, the holder, those of
//! `x-init` to their end, the sidecars, the main container. Source: Kubernetes' KEP-753, "Sidecar containers".

use std::collections::BTreeMap;
use std::time::Duration;

use crate::graph::{
    Condition, Container, Dependency, EndpointMode, HOLDER, HOLDER_IMAGE, Mount, MountSource, Namespace, NetworkMode,
    Placement, PodVolume, PullPolicy, Restart, RestartPace, Role, Service, member_name,
};
use crate::ids::{ResourceKey, ServiceName};
use crate::model::{self, ComposeHash, Export, HostOptions, Model, Serving};

use super::{Part, Problem, prestart};

/// Grace period of holders: they end at once.
const HOLDER_GRACE: Duration = Duration::from_secs(2);

/// Where holders mount the pod's volumes, which in memory last as long as somebody mounts them.
const HELD: &str = "/held";

/// Returns the volumes that each pod has one of.
pub(super) fn volumes(model: &Model) -> BTreeMap<ResourceKey, PodVolume> {
    let keys = model.volumes.iter().filter_map(|(key, volume)| Some((key, volume, volume.pod?)));
    keys.map(|(key, volume, pod)| {
        let size = pod.size.and_then(|size| u64::try_from(size.0).ok());
        let labels = volume.labels.clone();
        (key.clone(), PodVolume { size, medium: pod.medium, options: String::new(), labels })
    })
    .collect()
}

/// Puts what `whole` consists of into `services`: itself where that is one container, else the parts of its pods; and what is run
/// before it. Returns volumes that its pods have and the file does not name.
pub(super) fn split(
    part: &mut Part<'_, '_>,
    mut whole: Service,
    services: &mut BTreeMap<ServiceName, Service>,
) -> Vec<(ResourceKey, PodVolume)> {
    let name = part.name.clone();
    prestart::once(part, &mut whole, services);
    let memory = if part.service.pre_start.iter().any(|hook| hook.per_replica) {
        prestart::share_memory(&name, &mut whole.container)
    } else {
        Vec::new()
    };
    let mut each = prestart::each(part, &whole);
    let mut members = Vec::new();
    for (group, key, model) in part.service.keys.helpers() {
        let role = if group == "x-init" { Role::Init } else { Role::Sidecar };
        let at = format!("{}.{group}.{key}", part.at);
        if role == Role::Sidecar {
            members.append(&mut each);
        }
        if let Some(member) = helper(part, &at, key, model, role) {
            members.push(member);
        }
    }
    members.append(&mut each);
    let has_volumes = volumes_of(&whole.container).next().is_some();
    if members.is_empty() && whole.ambassadors.is_empty() && !has_volumes {
        services.insert(name, whole);
        return memory;
    }
    if let (NetworkMode::Host, false) = (&whole.network, whole.ambassadors.is_empty()) {
        let instead = "they would listen for the whole host: give the service a network of its own";
        part.error("x-ambassadors", Problem::Unsupported { what: "`network_mode: host`".to_owned(), instead });
    }
    let Ok(holder_name) = member_name(&name, HOLDER) else { return memory };
    let (holder, mut main) = hold(&name, &holder_name, whole, &members);
    let mut before = after(&holder_name, Condition::ServiceStarted);
    for (member, mut service) in members {
        service.scale = main.scale;
        service.network = NetworkMode::Service(holder_name.clone());
        service.container.ipc.clone_from(&main.container.ipc);
        service.depends_on = vec![before];
        before = after(&member, ready_when(&service));
        part.enter(member, service, services);
    }
    main.depends_on = vec![before];
    part.enter(holder_name, holder, services);
    part.enter(name, main, services);
    memory
}

impl Part<'_, '_> {
    /// Adds a service of the graph whose name is made up here.
    pub(super) fn enter(&mut self, name: ServiceName, service: Service, services: &mut BTreeMap<ServiceName, Service>) {
        if name != *self.name && self.input.model.services.contains_key(&name) {
            let path = format!("services.{name}");
            self.sink.error(path, Problem::NameOfHelper { name: name.to_string(), of: self.name.to_string() });
        }
        services.insert(name, service);
    }
}

fn after(service: &ServiceName, condition: Condition) -> Dependency {
    Dependency { service: service.clone(), condition, restart: false, required: true }
}

/// Returns what must be so of a helper before the next container starts.
fn ready_when(helper: &Service) -> Condition {
    let checked =
        helper.container.healthcheck.as_ref().is_some_and(|check| check.test.first().is_none_or(|w| w != "NONE"));
    match helper.part.as_ref().map(|part| part.role) {
        Some(Role::Init) => Condition::ServiceCompletedSuccessfully,
        _ if checked || helper.serving.probe.is_some() => Condition::ServiceHealthy,
        _ => Condition::ServiceStarted,
    }
}

/// Expands one helper.
fn helper(
    part: &mut Part<'_, '_>,
    at: &str,
    key: &str,
    model: &model::Service,
    role: Role,
) -> Option<(ServiceName, Service)> {
    let name = member_name(part.name, key);
    // The names of holders, and of what `pre_start` makes.
    let is_taken = key == HOLDER || key.starts_with("pre_start-");
    let Some(name) = name.ok().filter(|_| !is_taken) else {
        let expected = "letters, digits, hyphens and underscores, and not `pod` or `pre_start-…`";
        part.sink.error(at.to_owned(), Problem::Invalid { what: "name of a helper", text: key.to_owned(), expected });
        return None;
    };
    let never = is_never_restarted(part.service);
    let of = part.name.clone();
    let mut own =
        Part { input: part.input, name: &name, at: at.to_owned(), service: model, sink: part.sink, files: part.files };
    let mut service = own.expand_container();
    service.part = Some(crate::graph::Part { of, role });
    service.restart = match role {
        // As Kubernetes: where the pod as a whole is not to be tried again, neither is what prepares it.
        Role::Init if never => Restart::No,
        Role::Init => Restart::OnFailure { max_attempts: None },
        _ => Restart::Always,
    };
    Some((name, service))
}

fn is_never_restarted(service: &model::Service) -> bool {
    match service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref()) {
        Some(policy) => matches!(policy.condition.as_deref(), Some("none" | "no")),
        None => service.restart.as_deref() == Some("no"),
    }
}

impl Part<'_, '_> {
    /// Expands what a service says of its container alone.
    fn expand_container(&mut self) -> Service {
        Service {
            scale: crate::graph::Scale::Replicas(1),
            container: self.container(),
            network: NetworkMode::None,
            depends_on: Vec::new(),
            links: Vec::new(),
            ports: Vec::new(),
            expose: Vec::new(),
            restart: Restart::Always,
            restart_pace: RestartPace::default(),
            rollout: None,
            placement: Placement::default(),
            endpoint_mode: EndpointMode::Vip,
            stop_grace: self.service.stop_grace_period.map_or(super::STOP_GRACE, |grace| grace.0),
            attach: self.service.attach.unwrap_or(true),
            pull: self.pull(),
            part: None,
            ambassadors: Vec::new(),
            external_links: Vec::new(),
            export: Export::Nothing,
            serving: Serving { probe: self.service.keys.probe.clone(), ..Serving::default() },
            spec_hash: String::new(),
            spec_parts: BTreeMap::new(),
            compose_hash: ComposeHash::default(),
        }
    }
}

/// Divides a service into the holder, which has what belongs to namespaces, and the main container.
fn hold(
    name: &ServiceName,
    holder_name: &ServiceName,
    whole: Service,
    members: &[(ServiceName, Service)],
) -> (Service, Service) {
    let mut main = whole;
    let mut volumes: Vec<&ResourceKey> = volumes_of(&main.container).collect();
    volumes.extend(members.iter().flat_map(|(_, member)| volumes_of(&member.container)));
    volumes.sort_unstable();
    volumes.dedup();
    let held = |key: &ResourceKey| Mount {
        target: format!("{HELD}/{key}"),
        read_only: false,
        source: MountSource::PodVolume { volume: key.clone() },
    };
    let mounts = volumes.into_iter().map(held).collect();
    let own = &mut main.container;
    let take = |sysctls: &mut BTreeMap<String, String>| {
        let of_namespace = |key: &str| {
            ["net.", "kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."].iter().any(|start| key.starts_with(start))
        };
        let (held, kept) = std::mem::take(sysctls).into_iter().partition(|(key, _)| of_namespace(key));
        *sysctls = kept;
        held
    };
    let shares_ipc = own.ipc.is_none();
    let container = Container {
        image: HOLDER_IMAGE.to_owned(),
        hostname: own.hostname.take(),
        domainname: own.domainname.take(),
        dns: std::mem::take(&mut own.dns),
        dns_search: std::mem::take(&mut own.dns_search),
        dns_opt: std::mem::take(&mut own.dns_opt),
        extra_hosts: std::mem::take(&mut own.extra_hosts),
        sysctls: take(&mut own.sysctls),
        shm_size: if shares_ipc { own.shm_size.take() } else { None },
        ipc: shares_ipc.then(|| Namespace::Engine("shareable".to_owned())),
        platform: own.platform.clone(),
        mounts,
        read_only: true,
        cap_drop: vec!["ALL".to_owned()],
        security_opt: vec!["no-new-privileges".to_owned()],
        user: Some("65534:65534".to_owned()),
        // Namespaces are shared within one user namespace only.
        host: HostOptions { userns_mode: own.host.userns_mode.clone(), ..HostOptions::default() },
        ..Container::default()
    };
    if shares_ipc {
        own.ipc = Some(Namespace::Service(holder_name.clone()));
    }
    let holder = Service {
        container,
        scale: main.scale,
        network: std::mem::replace(&mut main.network, NetworkMode::Service(holder_name.clone())),
        depends_on: std::mem::take(&mut main.depends_on),
        links: Vec::new(),
        ports: std::mem::take(&mut main.ports),
        expose: std::mem::take(&mut main.expose),
        restart: Restart::Always,
        restart_pace: RestartPace::default(),
        rollout: None,
        placement: main.placement.clone(),
        endpoint_mode: EndpointMode::Vip,
        stop_grace: HOLDER_GRACE,
        attach: false,
        pull: PullPolicy::Missing,
        part: Some(crate::graph::Part { of: name.clone(), role: Role::Holder }),
        ambassadors: Vec::new(),
        external_links: Vec::new(),
        export: Export::Nothing,
        serving: Serving::default(),
        spec_hash: String::new(),
        spec_parts: BTreeMap::new(),
        compose_hash: ComposeHash::default(),
    };
    main.part = Some(crate::graph::Part { of: name.clone(), role: Role::Main });
    (holder, main)
}

fn volumes_of(container: &Container) -> impl Iterator<Item = &ResourceKey> {
    container.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::PodVolume { volume } => Some(volume),
        _ => None,
    })
}

/// Makes those that live in the namespaces of a main container live in its holder's, which own them.
pub(super) fn through_holders(services: &mut BTreeMap<ServiceName, Service>) {
    let parts = services.values().filter_map(|service| service.part.as_ref());
    let held: BTreeMap<ServiceName, ServiceName> = parts
        .filter(|part| part.role == Role::Main)
        .filter_map(|part| Some((part.of.clone(), member_name(&part.of, HOLDER).ok()?)))
        .collect();
    for service in services.values_mut() {
        if let NetworkMode::Service(owner) = &mut service.network
            && let Some(holder) = held.get(owner)
        {
            *owner = holder.clone();
        }
        if let Some(Namespace::Service(owner)) = &mut service.container.ipc
            && let Some(holder) = held.get(owner)
        {
            *owner = holder.clone();
        }
    }
}
