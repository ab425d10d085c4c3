//! `pre_start`: steps that run to their end, one after the other, before a service starts; each in a container of its own.
//!
//! A step that is run once for the service becomes a service of the graph, `web.pre_start-0`, with one replica: what `web`
//! depends on comes before it, and `web` waits for the last one. It is in no pod. A step that is run for each replica becomes an
//! init container of the pod. Sources: compose-spec 05-services.md#pre_start; docker/compose 5.3 to 5.5,
//! `pkg/compose/pre_start.go`.
//!
//! What a step has is the service's, but for what makes others find the service, and for what is said of the step itself. The
//! entry point and the labels are never the service's: the first is for another program, and the second are read by whoever
//! routes requests to the service.

use std::collections::BTreeMap;

use crate::graph::{
    Condition, Container, Dependency, EndpointMode, Healthcheck, MountSource, NetworkMode, Part as PodPart, PodVolume,
    PullPolicy, Resources, Restart, RestartPace, Role, Scale, Service, member_name, pre_start_member,
};
use crate::ids::{ResourceKey, ServiceName};
use crate::model::{ComposeHash, Export, Hook, Medium, Serving};

use super::container::{absent, present};
use super::{Part, Problem};

/// What all memory file systems of containers are mounted with unless something else is said. Source: moby, `--tmpfs`.
const TMPFS_OPTIONS: &str = "noexec,nosuid,nodev";

/// Puts the steps that are run once for the service into `services`, and makes `whole` wait for the last of them.
pub(super) fn once(part: &mut Part<'_, '_>, whole: &mut Service, services: &mut BTreeMap<ServiceName, Service>) {
    let hooks = &part.service.pre_start;
    let mut before: Vec<Dependency> =
        whole.depends_on.iter().map(|one| Dependency { restart: false, ..one.clone() }).collect();
    let mut last = None;
    let mut each = None;
    for (index, hook) in hooks.iter().enumerate() {
        if hook.per_replica {
            each = Some(index);
            continue;
        }
        if let Some(each) = each {
            let problem = Problem::SharedAfterEach { each };
            part.error(&format!("pre_start[{index}]"), problem);
        }
        let Ok(name) = member_name(part.name, &pre_start_member(index)) else { continue };
        let mut step = step(part, whole, hook, Role::PreStart);
        step.scale = match whole.scale {
            Scale::Replicas(0) => Scale::Replicas(0),
            Scale::Replicas(_) | Scale::Global => Scale::Replicas(1),
        };
        step.network = without_names(&whole.network);
        step.placement = whole.placement.clone();
        step.placement.max_per_host = None;
        shared_mounts(part, index, &mut step.container);
        step.depends_on = std::mem::replace(&mut before, vec![ended(&name)]);
        last = Some(ended(&name));
        part.enter(name, step, services);
    }
    whole.depends_on.extend(last);
    whole.depends_on.sort_by(|one, other| one.service.cmp(&other.service));
}

/// Returns the steps that are run for each replica, as init containers of its pod; what is the pod's is set by the caller.
pub(super) fn each(part: &mut Part<'_, '_>, whole: &Service) -> Vec<(ServiceName, Service)> {
    let mut members = Vec::new();
    for (index, hook) in part.service.pre_start.iter().enumerate().filter(|(_, hook)| hook.per_replica) {
        let Ok(name) = member_name(part.name, &pre_start_member(index)) else { continue };
        for mount in &whole.container.mounts {
            if matches!(mount.source, MountSource::Anonymous { .. }) {
                let problem = Problem::NamelessForEach { target: mount.target.clone() };
                part.error(&format!("pre_start[{index}].per_replica"), problem);
            }
        }
        let mut member = step(part, whole, hook, Role::Init);
        of_the_pod(&mut member.container);
        members.push((name, member));
    }
    members
}

/// Makes memory that a container has for itself the pod's, so that what prepares the pod can fill it. Returns these volumes.
pub(super) fn share_memory(name: &ServiceName, container: &mut Container) -> Vec<(ResourceKey, PodVolume)> {
    let mut volumes = Vec::new();
    for (index, mount) in container.mounts.iter_mut().enumerate() {
        let MountSource::Tmpfs { size, mode, options } = &mount.source else { continue };
        let Ok(volume) = ResourceKey::new(format!("{name}.tmpfs-{index}")) else { continue };
        let mode = mode.map(|mode| format!("mode={mode:o}"));
        let options = [Some(TMPFS_OPTIONS.to_owned()), mode, Some(options.clone()).filter(|text| !text.is_empty())];
        let options = options.into_iter().flatten().collect::<Vec<_>>().join(",");
        let own = PodVolume { size: *size, medium: Medium::Memory, options, labels: BTreeMap::new() };
        mount.source = MountSource::PodVolume { volume: volume.clone() };
        volumes.push((volume, own));
    }
    volumes
}

fn ended(service: &ServiceName) -> Dependency {
    let condition = Condition::ServiceCompletedSuccessfully;
    Dependency { service: service.clone(), condition, restart: false, required: true }
}

fn step(part: &Part<'_, '_>, whole: &Service, hook: &Hook, role: Role) -> Service {
    let own_image = hook.image.as_ref().is_some_and(|image| !image.is_empty());
    Service {
        scale: Scale::Replicas(1),
        container: container(&whole.container, hook),
        network: NetworkMode::None,
        depends_on: Vec::new(),
        // What it can resolve is what the service can.
        links: Vec::new(),
        ports: Vec::new(),
        expose: Vec::new(),
        // One that ends badly is run again by the next `up`.
        restart: Restart::No,
        restart_pace: RestartPace::default(),
        rollout: None,
        placement: crate::graph::Placement::default(),
        endpoint_mode: EndpointMode::Vip,
        stop_grace: whole.stop_grace,
        attach: whole.attach,
        // An image that is built is the service's own.
        pull: if own_image && part.service.pull_policy.as_deref() == Some("build") {
            PullPolicy::Missing
        } else {
            whole.pull
        },
        part: Some(PodPart { of: part.name.clone(), role }),
        ambassadors: Vec::new(),
        external_links: Vec::new(),
        export: Export::Nothing,
        serving: Serving::default(),
        spec_hash: String::new(),
        spec_parts: BTreeMap::new(),
        compose_hash: ComposeHash::default(),
    }
}

fn container(whole: &Container, hook: &Hook) -> Container {
    let Hook { command, environment, image, per_replica: _, privileged, user, working_dir, extensions: _ } = hook;
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let image = said(image);
    // What the step says of a variable counts, be it that there is none.
    let mut variables = whole.environment.clone();
    variables.extend(present(environment));
    variables.retain(|name, _| environment.get(name).is_none_or(Option::is_some));
    let mut unset = whole.unset.clone();
    unset.extend(absent(environment));
    unset.retain(|name| !variables.contains_key(name));
    Container {
        command: command.clone(),
        entrypoint: None,
        environment: variables,
        unset,
        // The user of an image of its own is that image's.
        user: said(user).or_else(|| whole.user.clone().filter(|_| image.is_none())),
        image: image.unwrap_or_else(|| whole.image.clone()),
        working_dir: said(working_dir).or_else(|| whole.working_dir.clone()),
        privileged: *privileged,
        name: None,
        labels: BTreeMap::new(),
        hostname: None,
        domainname: None,
        healthcheck: Some(no_check()),
        tty: false,
        stdin_open: false,
        post_start: Vec::new(),
        pre_stop: Vec::new(),
        // What is set aside for the service is enough: it does not run meanwhile.
        resources: Resources { reserved_nano_cpus: None, reserved_memory: None, ..whole.resources },
        device_requests: Vec::new(),
        generic_resources: BTreeMap::new(),
        ..whole.clone()
    }
}

/// None, also where the image has one.
fn no_check() -> Healthcheck {
    Healthcheck {
        test: vec!["NONE".to_owned()],
        interval: None,
        timeout: None,
        retries: None,
        start_period: None,
        start_interval: None,
    }
}

/// The networks without what others find the service by, and without what one container can have only.
fn without_names(network: &NetworkMode) -> NetworkMode {
    let NetworkMode::Networks(attachments) = network else { return network.clone() };
    let mut attachments = attachments.clone();
    for attachment in &mut attachments {
        attachment.aliases.clear();
        attachment.link_local.clear();
        (attachment.ipv4, attachment.ipv6) = (None, None);
        attachment.mac = None;
    }
    NetworkMode::Networks(attachments)
}

/// Leaves out what a container of the service has for itself: one run for all of them cannot mean any of these.
fn shared_mounts(part: &mut Part<'_, '_>, index: usize, container: &mut Container) {
    let mut left_out = Vec::new();
    container.mounts.retain(|mount| {
        let of_one = matches!(mount.source, MountSource::Anonymous { .. } | MountSource::PodVolume { .. });
        if of_one {
            left_out.push(mount.target.clone());
        }
        !of_one
    });
    for target in left_out {
        let text = format!(
            "the step is run once for the service and does not have `{target}`, which each replica has for itself: give that \
             volume a name, or say `per_replica: true`"
        );
        part.sink.warning(format!("{}.pre_start[{index}]", part.at), text);
    }
}

/// Leaves out what the pod has as a whole.
fn of_the_pod(container: &mut Container) {
    container.dns.clear();
    container.dns_search.clear();
    container.dns_opt.clear();
    container.extra_hosts.clear();
    container.sysctls.clear();
    container.shm_size = None;
}
