//! What orch wants, in the engine's words: [`ContainerSpec`], [`NetworkSpec`], [`VolumeSpec`] to Docker API requests. Pure.
//!
//! Fields newer than the engine's API are never sent: engines refuse some of them and silently drop others. What an old
//! engine cannot take at creation is returned beside the request, for the caller to do in a second call.

mod fit;
mod mounts;
mod options;

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigLogConfig, Ipam, IpamConfig, NetworkCreateRequest, NetworkingConfig, PortBinding, PortMap,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};

pub use fit::{Misfit, is_demanding, misfits};

use super::{ContainerSpec, EngineRestart, HostPort, NetworkSpec, SpecAttachment, SpecNetwork, VolumeSpec, label};
use crate::graph::{Container, Healthcheck, Logging, Resources, VolumesFrom};

/// Version of the Docker API that an engine speaks: `1.41`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u32, pub u32);

impl ApiVersion {
    /// Oldest version that orch works with (Docker Engine 20.10, Podman 4).
    pub const OLDEST: Self = Self(1, 41);
    /// Newest version that answers are read in: bollard's own.
    pub const NEWEST: Self = Self(1, 53);
    /// First with several networks at creation, per-network hardware addresses and `start_interval` (Docker Engine 25).
    const MANY_NETWORKS: Self = Self(1, 44);
    /// First with annotations (Docker Engine 24).
    const ANNOTATIONS: Self = Self(1, 43);
    /// First that finds a subnet of IPv6 by itself (Docker Engine 27).
    pub const OWN_IPV6_POOL: Self = Self(1, 46);
    /// First that names interfaces (Docker Engine 28.1).
    const INTERFACE_NAMES: Self = Self(1, 49);
    /// First that can be told which network has the default route (Docker Engine 28).
    const GATEWAY_PRIORITY: Self = Self(1, 48);

    /// Parses `1.41`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Security option that engines do not know: clients empty two lists instead. Source: docker/cli,
/// cli/command/container/opts.go `parseSystemPaths`.
const UNCONFINED_PATHS: &str = "systempaths=unconfined";

/// Option of an endpoint by which the engine names its interface. Source: moby, libnetwork/netlabel.
const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";

/// Why a spec cannot be made on an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untranslatable {
    /// The engine is too old for a field.
    #[error("{what} needs engine API {needs}, this engine speaks {speaks}")]
    TooOld {
        /// The field, as in the compose file.
        what: &'static str,
        /// First version that has it.
        needs: ApiVersion,
        /// Version of the engine.
        speaks: ApiVersion,
    },
    /// A mount refers to a volume whose engine name is not in the spec.
    #[error("volume `{0}` of the container has no name on the engine")]
    UnnamedVolume(String),
    /// A mount shows a snapshot or a volume of the pod's own, and nobody said where that is.
    #[error("what is mounted at `{0}` has no place on the host")]
    Unplaced(String),
}

/// A container's creation, and what is to be done right after it.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateRequest {
    /// Body of the request.
    pub body: ContainerCreateBody,
    /// Platform to ask for.
    pub platform: Option<String>,
    /// Networks to connect before the start, where the engine takes only one at creation.
    pub connect: Vec<(String, EndpointSettings)>,
}

/// Translates a container.
///
/// # Errors
/// [`Untranslatable`]: the spec cannot be made on this engine whatever its state.
pub fn create_request(spec: &ContainerSpec, api: ApiVersion) -> Result<CreateRequest, Untranslatable> {
    complete(&spec.container);
    let container = &spec.container;
    let (endpoints, connect) = networks(spec, api)?;
    let mut body = process(spec);
    body.healthcheck = container.healthcheck.as_ref().map(|check| health(check, api));
    body.host_config = Some(host_config(spec, api)?);
    if !endpoints.is_empty() {
        body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints) });
    }
    Ok(CreateRequest { body, platform: container.platform.clone(), connect })
}

/// Does nothing, but does not compile when [`Container`] has a new field, until somebody translates it below.
fn complete(container: &Container) {
    let Container {
        image: _,       // `ContainerSpec::image`, an id
        name: _,        // `ContainerSpec::name`
        labels: _,      // among `ContainerSpec::labels`
        files: _,       // among `ContainerSpec::file_binds`
        platform: _,    // a parameter of the request
        healthcheck: _, // `health`
        mounts: _,      // `mounts`
        // `process`
        entrypoint: _,
        command: _,
        environment: _,
        unset: _,
        hostname: _,
        domainname: _,
        user: _,
        working_dir: _,
        stop_signal: _,
        tty: _,
        stdin_open: _,
        // `limits`
        ulimits: _,
        resources: _,
        shm_size: _,
        // `security`
        group_add: _,
        init: _,
        read_only: _,
        privileged: _,
        cap_add: _,
        cap_drop: _,
        security_opt: _,
        sysctls: _,
        runtime: _,
        devices: _,
        device_requests: _,
        generic_resources: _, // for placement only
        pid: _,
        ipc: _,
        host: _,         // `options`
        volumes_from: _, // `volumes_from`
        // Run by the agent, `agent::hooks`.
        post_start: _,
        pre_stop: _,
        // `names`
        extra_hosts: _,
        dns: _,
        dns_search: _,
        dns_opt: _,
        logging: _, // `log_config`
    } = container;
}

/// The part of the request that is about the process and not about the host.
fn process(spec: &ContainerSpec) -> ContainerCreateBody {
    let container = &spec.container;
    let exposed = if shares_namespace(&spec.network) { Vec::new() } else { exposed_ports(spec) };
    ContainerCreateBody {
        hostname: container.hostname.clone(),
        domainname: container.domainname.clone(),
        user: container.user.clone(),
        exposed_ports: some_unless_empty(exposed),
        tty: Some(container.tty),
        open_stdin: Some(container.stdin_open),
        stdin_once: spec.stdin_once.then_some(true),
        env: some_unless_empty(container.variables()),
        // The engine reads an empty list as "not given" in `Cmd`, and `[""]` as "cleared" in `Entrypoint`.
        // Source: moby, daemon/commit.go `merge`; Docker Compose sends the same.
        cmd: container.command.clone(),
        entrypoint: container
            .entrypoint
            .clone()
            .map(|words| if words.is_empty() { vec![String::new()] } else { words }),
        image: Some(spec.image.clone()),
        working_dir: container.working_dir.clone(),
        labels: some_unless_empty_map(labels(spec)),
        stop_signal: container.stop_signal.clone(),
        stop_timeout: Some(whole_seconds(spec.stop_grace)),
        ..ContainerCreateBody::default()
    }
}

fn labels(spec: &ContainerSpec) -> HashMap<String, String> {
    let mut labels: HashMap<_, _> = spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    if !spec.carried_volumes.is_empty() {
        let names: Vec<_> = spec.carried_volumes.values().map(String::as_str).collect();
        labels.insert(label::CARRIED.to_owned(), names.join(","));
    }
    labels
}

fn exposed_ports(spec: &ContainerSpec) -> Vec<String> {
    let published = spec.host_ports.iter().map(|port| (port.target, port.protocol));
    let mut ports: Vec<_> = spec.exposed.iter().copied().chain(published).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.into_iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect()
}

/// Translates a health check; absent times are the engine's defaults.
fn health(check: &Healthcheck, api: ApiVersion) -> HealthConfig {
    let Healthcheck { test, interval, timeout, retries, start_period, start_interval } = check;
    HealthConfig {
        test: Some(test.clone()),
        interval: interval.map(nanos),
        timeout: timeout.map(nanos),
        retries: retries.map(i64::from),
        start_period: start_period.map(nanos),
        // Older engines ignore it: then the checks in the start period have the normal interval.
        start_interval: start_interval.filter(|_| api >= ApiVersion::MANY_NETWORKS).map(nanos),
    }
}

fn host_config(spec: &ContainerSpec, api: ApiVersion) -> Result<HostConfig, Untranslatable> {
    let container = &spec.container;
    let mounts = mounts::translate(spec, api)?;
    let mut config = HostConfig {
        binds: some_unless_empty(mounts.binds),
        mounts: some_unless_empty(mounts.typed),
        tmpfs: some_unless_empty_map(mounts.tmpfs),
        volumes_from: some_unless_empty(volumes_from(container)),
        network_mode: Some(network_mode(&spec.network)),
        port_bindings: some_unless_empty_map(port_bindings(&spec.host_ports)),
        restart_policy: Some(restart_policy(spec.restart)),
        auto_remove: spec.auto_remove.then_some(true),
        log_config: container.logging.as_ref().map(log_config),
        ..limits(container)
    };
    security(container, &mut config);
    names(spec, &mut config);
    options::apply(&container.host, api, &mut config);
    Ok(config)
}

/// `ID[:ro]`. Whose they are is the agent's to find out: a service is no name on the engine.
fn volumes_from(container: &Container) -> Vec<String> {
    let one = |from: &VolumesFrom| {
        let of = String::from(from.of.clone());
        let of = of.strip_prefix("container:").unwrap_or(&of);
        if from.read_only { format!("{of}:ro") } else { of.to_owned() }
    };
    container.volumes_from.iter().map(one).collect()
}

fn limits(container: &Container) -> HostConfig {
    // `reserved_nano_cpus` is for placement only: the engine has nothing of the kind.
    let Resources { nano_cpus, memory, pids, reserved_nano_cpus: _, reserved_memory } = container.resources;
    let ulimits = container.ulimits.iter().map(|(name, &(soft, hard))| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(soft),
        hard: Some(hard),
    });
    HostConfig {
        nano_cpus,
        memory,
        memory_reservation: reserved_memory,
        pids_limit: pids,
        ulimits: some_unless_empty(ulimits.collect()),
        shm_size: container.shm_size.map(|size| i64::try_from(size).unwrap_or(i64::MAX)),
        ..HostConfig::default()
    }
}

fn security(container: &Container, config: &mut HostConfig) {
    config.init = container.init;
    config.readonly_rootfs = Some(container.read_only);
    config.privileged = Some(container.privileged);
    config.cap_add = some_unless_empty(container.cap_add.iter().map(|name| capability(name)).collect());
    config.cap_drop = some_unless_empty(container.cap_drop.iter().map(|name| capability(name)).collect());
    let (paths, options): (Vec<_>, Vec<_>) =
        container.security_opt.iter().cloned().partition(|option| option == UNCONFINED_PATHS);
    config.security_opt = some_unless_empty(options);
    if !paths.is_empty() {
        config.masked_paths = Some(Vec::new());
        config.readonly_paths = Some(Vec::new());
    }
    config.group_add = some_unless_empty(container.group_add.clone());
    config.runtime.clone_from(&container.runtime);
    config.pid_mode = container.pid.clone().map(String::from);
    config.ipc_mode = container.ipc.clone().map(String::from);
    config.sysctls =
        some_unless_empty_map(container.sysctls.iter().map(|(key, value)| (key.clone(), value.clone())).collect());
    let devices = container.devices.iter().map(|(host, inside, permissions)| DeviceMapping {
        path_on_host: Some(host.clone()),
        path_in_container: Some(inside.clone()),
        cgroup_permissions: Some(permissions.clone()),
    });
    config.devices = some_unless_empty(devices.collect());
    let requests = container.device_requests.iter().map(|request| bollard::models::DeviceRequest {
        driver: request.driver.clone(),
        count: request.count,
        device_ids: some_unless_empty(request.device_ids.clone()),
        capabilities: Some(vec![request.capabilities.clone()]),
        options: some_unless_empty_map(request.options.clone().into_iter().collect()),
    });
    config.device_requests = some_unless_empty(requests.collect());
}

/// The form that the engine shows, and that Docker Compose sends.
fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

/// `/etc/hosts` and, unless orch mounts its own file there, `resolv.conf`.
fn names(spec: &ContainerSpec, config: &mut HostConfig) {
    let container = &spec.container;
    let hosts = container.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}"));
    config.extra_hosts = some_unless_empty(hosts.collect());
    let own_resolv_conf = spec.file_binds.iter().any(|(_, target)| target == "/etc/resolv.conf");
    if !own_resolv_conf && !shares_namespace(&spec.network) {
        config.dns = some_unless_empty(container.dns.clone());
        config.dns_search = some_unless_empty(container.dns_search.clone());
        config.dns_options = some_unless_empty(container.dns_opt.clone());
    }
}

fn log_config(logging: &Logging) -> HostConfigLogConfig {
    let options = logging.options.iter().map(|(key, value)| (key.clone(), value.clone()));
    HostConfigLogConfig { typ: logging.driver.clone(), config: some_unless_empty_map(options.collect()) }
}

fn restart_policy(restart: EngineRestart) -> RestartPolicy {
    let name = match restart {
        EngineRestart::No => RestartPolicyNameEnum::NO,
        EngineRestart::Always => RestartPolicyNameEnum::ALWAYS,
    };
    RestartPolicy { name: Some(name), maximum_retry_count: None }
}

fn port_bindings(ports: &[HostPort]) -> PortMap {
    let mut bindings = PortMap::new();
    for HostPort { host_ip, published, target, protocol } in ports {
        let host_port = match published {
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
            None => String::new(),
        };
        let binding = PortBinding { host_ip: host_ip.map(|ip| ip.to_string()), host_port: Some(host_port) };
        bindings.entry(format!("{target}/{protocol}")).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

/// Returns whether the container lives in another one's network namespace, which then owns names and ports.
fn shares_namespace(network: &SpecNetwork) -> bool {
    matches!(network, SpecNetwork::Mode(mode) if mode.starts_with("container:"))
}

fn network_mode(network: &SpecNetwork) -> String {
    match network {
        SpecNetwork::Mode(mode) => mode.clone(),
        SpecNetwork::Networks(attachments) => match attachments.first() {
            Some(first) => first.network.clone(),
            None => "none".to_owned(),
        },
    }
}

type Endpoints = (HashMap<String, EndpointSettings>, Vec<(String, EndpointSettings)>);

/// Splits the memberships into those of the creation and those for calls of their own.
fn networks(spec: &ContainerSpec, api: ApiVersion) -> Result<Endpoints, Untranslatable> {
    let SpecNetwork::Networks(attachments) = &spec.network else { return Ok(Endpoints::default()) };
    let mut at_creation = HashMap::new();
    let mut later = Vec::new();
    for (index, attachment) in attachments.iter().enumerate() {
        let priority = attachments.len() - index;
        let settings = endpoint(attachment, priority, api)?;
        if index == 0 || api >= ApiVersion::MANY_NETWORKS {
            at_creation.insert(attachment.network.clone(), settings);
        } else {
            later.push((attachment.network.clone(), settings));
        }
    }
    Ok((at_creation, later))
}

/// One membership. `priority` is higher for earlier ones, of which the first shall have the default route; engines
/// before API 1.48 choose by themselves (not an internal network; then the network whose name sorts first).
fn endpoint(attachment: &SpecAttachment, priority: usize, api: ApiVersion) -> Result<EndpointSettings, Untranslatable> {
    let SpecAttachment { network: _, aliases, ipv4, ipv6, mac, link_local, driver_opts, interface } = attachment;
    let too_old = |what, needs| Err(Untranslatable::TooOld { what, needs, speaks: api });
    if mac.is_some() && api < ApiVersion::MANY_NETWORKS {
        return too_old("`mac_address`", ApiVersion::MANY_NETWORKS);
    }
    if interface.is_some() && api < ApiVersion::INTERFACE_NAMES {
        return too_old("`interface_name`", ApiVersion::INTERFACE_NAMES);
    }
    let ipam = (ipv4.is_some() || ipv6.is_some() || !link_local.is_empty()).then(|| EndpointIpamConfig {
        ipv4_address: ipv4.map(|ipv4| ipv4.to_string()),
        link_local_ips: some_unless_empty(link_local.iter().map(ToString::to_string).collect()),
        ipv6_address: ipv6.map(|ipv6| ipv6.to_string()),
    });
    let mut options: HashMap<String, String> = driver_opts.clone().into_iter().collect();
    options.extend(interface.clone().map(|name| (INTERFACE_NAME.to_owned(), name)));
    let gw_priority = (api >= ApiVersion::GATEWAY_PRIORITY).then(|| i64::try_from(priority).unwrap_or(i64::MAX));
    Ok(EndpointSettings {
        ipam_config: ipam,
        mac_address: mac.clone(),
        aliases: some_unless_empty(aliases.clone()),
        driver_opts: some_unless_empty_map(options),
        gw_priority,
        ..EndpointSettings::default()
    })
}

/// Translates a network: one IPv4 pool, chosen by orch, and those of IPv6 as the file has them.
pub fn network_request(spec: &NetworkSpec) -> NetworkCreateRequest {
    let NetworkSpec {
        name,
        driver,
        driver_opts,
        internal,
        attachable,
        subnet,
        gateway,
        ip_range,
        aux_addresses,
        enable_ipv6,
        ipv6_pools,
        ipam_options,
        labels,
    } = spec;
    let ipv4 = IpamConfig {
        subnet: Some(subnet.to_string()),
        ip_range: Some(ip_range.to_string()),
        gateway: Some(gateway.to_string()),
        auxiliary_addresses: some_unless_empty_map(
            aux_addresses.iter().map(|(name, address)| (name.clone(), address.to_string())).collect(),
        ),
    };
    let ipv6 = ipv6_pools.iter().map(|pool| IpamConfig {
        subnet: Some(pool.subnet.to_string()),
        ip_range: pool.ip_range.map(|range| range.to_string()),
        gateway: pool.gateway.map(|gateway| gateway.to_string()),
        auxiliary_addresses: some_unless_empty_map(
            pool.aux_addresses.iter().map(|(name, address)| (name.clone(), address.to_string())).collect(),
        ),
    });
    let pools = std::iter::once(ipv4).chain(ipv6).collect();
    NetworkCreateRequest {
        name: name.clone(),
        driver: Some(driver.clone()),
        internal: Some(*internal),
        attachable: Some(*attachable),
        enable_ipv6: *enable_ipv6,
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(pools),
            options: some_unless_empty_map(ipam_options.clone().into_iter().collect()),
        }),
        options: some_unless_empty_map(driver_opts.clone().into_iter().collect()),
        labels: some_unless_empty_map(labels.clone().into_iter().collect()),
        ..NetworkCreateRequest::default()
    }
}

/// Translates a volume.
pub fn volume_request(spec: &VolumeSpec) -> VolumeCreateRequest {
    let VolumeSpec { name, driver, driver_opts, labels } = spec;
    VolumeCreateRequest {
        name: Some(name.clone()),
        driver: Some(driver.clone()),
        driver_opts: some_unless_empty_map(driver_opts.clone().into_iter().collect()),
        labels: some_unless_empty_map(labels.clone().into_iter().collect()),
        cluster_volume_spec: None,
    }
}

/// Rounds up: a grace period of half a second must not become none.
pub(super) fn whole_seconds(duration: Duration) -> i64 {
    let rounded = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i64::from(i32::try_from(rounded).unwrap_or(i32::MAX))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn some_unless_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn some_unless_empty_map<V>(map: HashMap<String, V>) -> Option<HashMap<String, V>> {
    (!map.is_empty()).then_some(map)
}

#[cfg(test)]
mod tests;
