//! What a container looks like.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::did_you_mean;
use crate::graph::{Container, DeviceRequest, Healthcheck, Logging, Namespace, Resources};
use crate::ids::ServiceName;
use crate::model::reference::is_image;
use crate::model::{self, Bytes, Cpus};

use super::{Part, Problem};

/// What `cap_add` and `cap_drop` can name beside `ALL`, sorted. Source: capabilities(7); the last one came with Linux 5.9.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

impl Part<'_, '_> {
    /// Every attribute of the model is named here or in the pattern below: a new one will not compile until it has a
    /// place in the graph.
    #[expect(clippy::too_many_lines, reason = "a list of all attributes")]
    pub(super) fn container(&mut self) -> Container {
        let model::Service {
            // Elsewhere: replicas, order, placement, names, ports, files, policy; builds are the command line's.
            attach: _,
            build: _,
            depends_on: _,
            keys: _,
            // Refused by `load`, where anything is to be run.
            unapplied: _,
            // Nothing that is run looks at it.
            develop: _,
            // Read into `environment` by `load`.
            env_file: _,
            expose: _,
            external_links: _,
            links: _,
            mac_address: _,
            network_mode: _,
            networks: _,
            ports: _,
            profiles: _,
            pull_policy: _,
            restart: _,
            scale: _,
            stop_grace_period: _,
            extensions: _,
            // Read by the helpers called below.
            configs: _,
            secrets: _,
            tmpfs: _,
            volumes: _,
            cpus: _,
            deploy: _,
            gpus: _,
            mem_limit: _,
            mem_reservation: _,
            pids_limit: _,
            pid: _,
            ipc: _,
            image: _,
            healthcheck: _,
            host: _,
            volumes_from: _,
            post_start: _,
            pre_stop: _,
            // Containers of their own.
            pre_start: _,
            use_api_socket: _,
            cap_add,
            cap_drop,
            command,
            container_name,
            devices,
            dns,
            dns_opt,
            dns_search,
            domainname,
            entrypoint,
            environment,
            extra_hosts,
            group_add,
            hostname,
            init,
            labels,
            logging,
            platform,
            privileged,
            read_only,
            runtime,
            security_opt,
            shm_size,
            stdin_open,
            stop_signal,
            sysctls,
            tty,
            ulimits,
            user,
            working_dir,
        } = self.service;
        let resources = self.resources();
        let permissions =
            |d: &model::Device| if d.permissions.is_empty() { "rwm".to_owned() } else { d.permissions.clone() };
        let devices = devices.iter().map(|d| (d.source.clone(), d.target.clone(), permissions(d)));
        Container {
            image: self.image(),
            name: container_name.clone(),
            entrypoint: entrypoint.clone(),
            command: command.clone(),
            environment: self.named_environment(environment),
            unset: absent(environment),
            labels: labels.clone(),
            hostname: hostname.clone(),
            domainname: domainname.clone(),
            user: user.clone(),
            group_add: group_add.clone(),
            working_dir: self.directory(working_dir.as_ref()),
            mounts: self.mounts(),
            files: self.file_mounts(),
            healthcheck: self.service.healthcheck.as_ref().map(healthcheck),
            stop_signal: self.signal(stop_signal.as_ref()),
            init: *init,
            read_only: read_only.unwrap_or(false),
            tty: tty.unwrap_or(false),
            stdin_open: stdin_open.unwrap_or(false),
            privileged: privileged.unwrap_or(false),
            cap_add: self.capabilities("cap_add", cap_add),
            cap_drop: self.capabilities("cap_drop", cap_drop),
            security_opt: self.security(security_opt),
            sysctls: self.kernel_options(sysctls),
            ulimits: self.limits(ulimits),
            extra_hosts: self.extra_hosts(extra_hosts),
            dns: self.resolvers(dns),
            dns_search: dns_search.clone(),
            dns_opt: dns_opt.clone(),
            resources,
            logging: logging.as_ref().map(|l| Logging { driver: l.driver.clone(), options: l.options.clone() }),
            shm_size: shm_size.and_then(|Bytes(size)| u64::try_from(size).ok()),
            platform: platform.clone(),
            runtime: runtime.clone(),
            devices: devices.collect(),
            device_requests: self.device_requests(),
            generic_resources: self.generic_resources(),
            pid: self.namespace("pid", self.service.pid.as_deref(), &["host"]),
            ipc: self.namespace("ipc", self.service.ipc.as_deref(), &["host", "private", "shareable", "none"]),
            host: self.host_options(&resources),
            volumes_from: self.volumes_from(),
            post_start: self.hooks("post_start", &self.service.post_start),
            pre_stop: self.hooks("pre_stop", &self.service.pre_stop),
        }
    }

    /// The engine refuses a capability that it does not know only when the container is made.
    fn capabilities(&mut self, key: &str, names: &[String]) -> Vec<String> {
        for (index, name) in names.iter().enumerate() {
            let upper = name.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if upper != "ALL" && CAPABILITIES.binary_search(&bare).is_err() {
                let near = did_you_mean(bare, CAPABILITIES).map(str::to_owned);
                self.error(&format!("{key}[{index}]"), Problem::NoSuchCapability { name: name.clone(), near });
            }
        }
        names.to_vec()
    }

    /// `NAME=VALUE`, or `NAME:VALUE` as it once was. Source: Docker Compose 2.40, which says no more of it.
    fn security(&mut self, options: &[String]) -> Vec<String> {
        for (index, option) in options.iter().enumerate() {
            if option != "no-new-privileges" && !option.contains(['=', ':']) {
                let expected = "`NAME=VALUE` or `no-new-privileges`";
                self.invalid(&format!("security_opt[{index}]"), "security option", option, expected);
            }
        }
        options.to_vec()
    }

    fn resolvers(&mut self, addresses: &[String]) -> Vec<String> {
        for (index, address) in addresses.iter().enumerate() {
            if address.parse::<std::net::IpAddr>().is_err() {
                self.invalid(&format!("dns[{index}]"), "resolver", address, "an IPv4 or IPv6 address");
            }
        }
        addresses.to_vec()
    }

    fn image(&mut self) -> String {
        let image = self.service.image_name(&self.input.model.name, self.name);
        match &image {
            None => self.error("image", Problem::NoImage),
            // One that is built has a good name, or this one.
            Some(image) if !is_image(image) => {
                let expected = "`[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, with a name of small letters and digits";
                self.invalid("image", "name of an image", image, expected);
            }
            Some(_) => {}
        }
        image.unwrap_or_default()
    }

    /// `pid` and `ipc`. Source: compose-spec 05-services.md#ipc, #pid.
    fn namespace(&mut self, key: &'static str, mode: Option<&str>, known: &[&str]) -> Option<Namespace> {
        let mode = mode?;
        match mode.split_once(':') {
            Some(("service", name)) => match ServiceName::new(name) {
                Ok(owner) if self.input.model.services.contains_key(&owner) => return Some(Namespace::Service(owner)),
                _ => self.error(key, Problem::NoSuchService(name.to_owned())),
            },
            Some(("container", name)) if !name.is_empty() => {}
            None if known.contains(&mode) => {}
            _ => {
                let expected = "`host`, `service:NAME`, `container:NAME` or an own one";
                self.error(key, Problem::Invalid { what: "namespace", text: mode.to_owned(), expected });
            }
        }
        Some(Namespace::Engine(mode.to_owned()))
    }

    fn extra_hosts(&mut self, lines: &[String]) -> Vec<(String, String)> {
        let mut hosts = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            if let Some((name, address)) = line.split_once('=').or_else(|| line.split_once(':')) {
                hosts.push((name.to_owned(), address.to_owned()));
            } else {
                self.invalid(&format!("extra_hosts[{index}]"), "extra host", line, "`name=address`");
            }
        }
        hosts
    }

    /// Limits may be given in two ways that must agree. Source: observed from Docker Compose 2.40.
    fn resources(&mut self) -> Resources {
        let service = self.service;
        let deploy = service.deploy.as_ref().map(|deploy| &deploy.resources);
        let limits = deploy.and_then(|resources| resources.limits.as_ref());
        let reservations = deploy.and_then(|resources| resources.reservations.as_ref());
        let memory = limits.and_then(|limits| limits.memory);
        let reserved = reservations.and_then(|reservations| reservations.memory);
        let pids = limits.and_then(|limits| limits.pids);
        let cpus = limits.and_then(|limits| limits.cpus);
        let nano = |cpus: Option<Cpus>| cpus.map(nano_cpus);
        Resources {
            nano_cpus: self.agreed("cpus", nano(service.cpus), "deploy.resources.limits.cpus", nano(cpus)),
            memory: self.agreed(
                "mem_limit",
                service.mem_limit.map(|b| b.0),
                "deploy.resources.limits.memory",
                memory.map(|b| b.0),
            ),
            pids: self.agreed("pids_limit", service.pids_limit, "deploy.resources.limits.pids", pids),
            reserved_nano_cpus: nano(reservations.and_then(|reservations| reservations.cpus)),
            reserved_memory: self.agreed(
                "mem_reservation",
                service.mem_reservation.map(|b| b.0),
                "deploy.resources.reservations.memory",
                reserved.map(|b| b.0),
            ),
        }
    }

    fn reservations(&self) -> Option<&model::Reservations> {
        self.service.deploy.as_ref()?.resources.reservations.as_ref()
    }

    /// `gpus` and reserved devices; the first have the capability `gpu` even if they do not say so.
    fn device_requests(&self) -> Vec<DeviceRequest> {
        let request = |request: &model::DeviceRequest| DeviceRequest {
            driver: request.driver.clone(),
            count: request.count,
            device_ids: request.device_ids.clone(),
            capabilities: request.capabilities.clone(),
            options: request.options.clone(),
        };
        let gpus = self.service.gpus.iter().map(|gpu| {
            let mut request = request(gpu);
            if !request.capabilities.iter().any(|one| one == "gpu") {
                request.capabilities.push("gpu".to_owned());
            }
            request
        });
        let reserved = self.reservations().into_iter().flat_map(|reservations| &reservations.devices);
        gpus.chain(reserved.map(request)).collect()
    }

    fn generic_resources(&self) -> BTreeMap<String, i64> {
        let items = self.reservations().into_iter().flat_map(|reservations| &reservations.generic_resources);
        let mut kinds = BTreeMap::new();
        for resource in items.filter_map(|item| item.discrete_resource_spec.as_ref()) {
            *kinds.entry(resource.kind.clone()).or_default() += resource.value;
        }
        kinds
    }

    fn agreed(&mut self, one: &'static str, a: Option<i64>, other: &'static str, b: Option<i64>) -> Option<i64> {
        if let (Some(a), Some(b)) = (a, b)
            && a != b
        {
            self.error(one, Problem::DistinctValues(one, other));
        }
        b.or(a)
    }
}

/// Returns the variables that have a value.
pub(super) fn present(environment: &BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    environment.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
}

/// Returns the names that nobody gave a value. Docker Compose hands them on as they are, and the engine takes what the image
/// has of that name away.
pub(super) fn absent(environment: &BTreeMap<String, Option<String>>) -> BTreeSet<String> {
    environment.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.clone()).collect()
}

/// CPUs in billionths, rounded.
#[expect(clippy::cast_possible_truncation, reason = "float casts saturate, and no host has 9 billion CPUs")]
fn nano_cpus(Cpus(cpus): Cpus) -> i64 {
    (cpus * 1e9).round() as i64
}

fn healthcheck(check: &model::Healthcheck) -> Healthcheck {
    let model::Healthcheck { disable, test, timeout, interval, retries, start_period, start_interval, extensions: _ } =
        check;
    Healthcheck {
        test: if *disable { vec!["NONE".to_owned()] } else { test.clone() },
        interval: interval.map(|d| d.0),
        timeout: timeout.map(|d| d.0),
        retries: *retries,
        start_period: start_period.map(|d| d.0),
        start_interval: start_interval.map(|d| d.0),
    }
}
