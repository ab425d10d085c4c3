//! Model to Graph: how many replicas, what each container looks like, what depends on what. Pure.
//!
//! Start at [`expand`]. One module for each part of a service; `checks` has what can only be said of several services
//! together. Everything wrong is collected, so that the user sees it at once; nothing half-expanded ever leaves.

mod checks;
mod container;
mod error;
mod file;
mod hash;
mod host;
mod mount;
mod network;
mod placement;
mod pod;
mod port;
mod prestart;
mod served;
mod socket;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::graph::{
    Condition, Dependency, EndpointMode, Graph, Link, MAX_PODS, OnFailure, PullPolicy, Restart, RestartPace, Rollout,
    Scale, Service, Volume,
};
use crate::ids::{ResourceKey, ServiceName, SnapshotHash};
use crate::model::{self, ConditionName, DeployMode, Model};

pub use error::{ExpandError, Problem, Warning};

use error::Sink;

/// Grace period where the file gives none. Source: compose-spec 05-services.md#stop_grace_period.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Time for which a new replica is watched where the file gives none. Source: Docker Swarm's own, for
/// which `0s` is nothing said, too.
const MONITOR: Duration = Duration::from_secs(5);

/// A share of 1, in a graph.
const MILLIONTHS: f64 = 1_000_000.0;

const DAY: Duration = Duration::from_hours(24);

/// Whether a file object is a config or a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Of `configs`.
    Config,
    /// Of `secrets`.
    Secret,
}

/// Contents of configs and secrets, read by whoever loaded the files.
pub type Contents = BTreeMap<(FileKind, ResourceKey), Vec<u8>>;

/// Snapshots in place of bind mounts, by service and place in its `volumes`, made by whoever loaded the files.
pub type Snapshots = BTreeMap<(ServiceName, usize), SnapshotHash>;

/// What [`expand`] works on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The project.
    pub model: &'a Model,
    /// Contents of its configs and secrets; those of external ones are absent.
    pub contents: &'a Contents,
    /// A `config.json` with the user's logins, for containers that use the engine's API; `None`: nobody read it.
    pub logins: Option<&'a [u8]>,
    /// Binds whose files travel; the others are paths of the host that the pod runs on.
    pub snapshots: &'a Snapshots,
    /// `--scale` of the command line: wins over the file.
    pub scales: &'a BTreeMap<ServiceName, u32>,
    /// Services of the file that no active profile enables, with their profiles.
    pub disabled: &'a BTreeMap<ServiceName, Vec<String>>,
    /// Directory that relative paths of the file refer to.
    pub working_dir: &'a str,
    /// The compose files.
    pub config_files: &'a [String],
}

/// What [`expand`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Expanded {
    /// The project, resolved.
    pub graph: Graph,
    /// What the file says and orch does not apply.
    pub warnings: Vec<Warning>,
}

/// Expands a model.
///
/// # Errors
/// Everything that is wrong with it, in order of the services' names.
pub fn expand(input: &Input<'_>) -> Result<Expanded, Vec<ExpandError>> {
    let mut sink = Sink::default();
    let mut files = BTreeMap::new();
    let mut services = BTreeMap::new();
    let mut pod_volumes = pod::volumes(input.model);
    for (name, service) in &input.model.services {
        let at = format!("services.{name}");
        let mut part = Part { input, name, at, service, sink: &mut sink, files: &mut files };
        let whole = part.expand();
        pod_volumes.extend(pod::split(&mut part, whole, &mut services));
    }
    pod::through_holders(&mut services);
    for name in input.scales.keys().filter(|name| !input.model.services.contains_key(*name)) {
        sink.error("--scale".to_owned(), Problem::NoSuchService(name.to_string()));
    }
    let networks = network::networks(input.model, &services, &mut sink);
    let volumes = volumes(input.model, &services);
    let mut graph = Graph {
        project: input.model.name.clone(),
        working_dir: input.working_dir.to_owned(),
        config_files: input.config_files.to_vec(),
        services,
        networks,
        volumes,
        pod_volumes,
        disabled: input.disabled.keys().cloned().collect(),
        profiles: input.disabled.clone(),
        files,
    };
    if fits(input, &graph, &mut sink) {
        checks::check(&graph, &mut sink);
        hash::seal(&mut graph);
    }
    if sink.errors.is_empty() { Ok(Expanded { graph, warnings: sink.warnings }) } else { Err(sink.errors) }
}

/// Returns whether the project has no more than [`MAX_PODS`]; else nothing may be done for each of them.
fn fits(input: &Input<'_>, graph: &Graph, sink: &mut Sink) -> bool {
    let mut wanted = 0;
    for (name, service) in &graph.services {
        wanted += match service.scale {
            Scale::Replicas(count) => u64::from(count),
            Scale::Global => 1,
        };
        if wanted > u64::from(MAX_PODS) {
            let path = match input.model.services.get(name) {
                _ if input.scales.contains_key(name) => "--scale".to_owned(),
                Some(model::Service { scale: Some(_), .. }) => format!("services.{name}.scale"),
                _ => format!("services.{name}.deploy.replicas"),
            };
            sink.error(path, Problem::TooManyPods { wanted });
            return false;
        }
    }
    true
}

/// Returns the volumes that enabled services mount.
fn volumes(model: &Model, services: &BTreeMap<ServiceName, Service>) -> BTreeMap<ResourceKey, Volume> {
    let used: BTreeSet<&ResourceKey> = services.values().flat_map(Service::volumes).collect();
    let declared = used.into_iter().filter_map(|key| Some((key, model.volumes.get(key)?)));
    declared
        .map(|(key, volume)| {
            // Those of pods are in `pod_volumes`, and nothing mounts them as the project's.
            let model::Volume { name, driver, driver_opts, external, labels, pod: _, extensions: _ } = volume;
            let volume = Volume {
                name: name.clone(),
                external: *external,
                driver: driver.clone(),
                driver_opts: driver_opts.clone(),
                labels: labels.clone(),
                spec_hash: String::new(),
                compose_hash: model.hashes.volumes.get(key).cloned().unwrap_or_default(),
            };
            (key.clone(), volume)
        })
        .collect()
}

/// One service on its way from model to graph.
struct Part<'a, 's> {
    input: &'a Input<'a>,
    name: &'a ServiceName,
    /// Where it is written: `services.web`, `services.web.x-sidecars.sync`.
    at: String,
    service: &'a model::Service,
    sink: &'s mut Sink,
    files: &'s mut BTreeMap<String, crate::graph::FileContent>,
}

impl Part<'_, '_> {
    /// Adds an error at a path below where it is written.
    fn error(&mut self, path: &str, problem: Problem) {
        self.sink.error(format!("{}.{path}", self.at), problem);
    }

    fn expand(&mut self) -> Service {
        let network = self.network();
        let (ports, expose) = (self.ports(&network), self.expose());
        Service {
            scale: self.scale(),
            container: self.container(),
            depends_on: self.depends_on(&network),
            links: self.links(),
            ports,
            expose,
            restart: self.restart(),
            restart_pace: self.restart_pace(),
            rollout: self.rollout(),
            placement: self.placement(),
            endpoint_mode: self.endpoint_mode(),
            stop_grace: self.service.stop_grace_period.map_or(STOP_GRACE, |grace| grace.0),
            attach: self.service.attach.unwrap_or(true),
            pull: self.pull(),
            part: None,
            ambassadors: self.ambassadors(),
            external_links: self.service.keys.external_links.clone(),
            export: self.service.keys.export.clone(),
            serving: self.serving(),
            network,
            spec_hash: String::new(),
            spec_parts: BTreeMap::new(),
            compose_hash: self.input.model.hashes.services.get(self.name).cloned().unwrap_or_default(),
        }
    }

    /// `scale`, `deploy.replicas` and the command line. Source: compose-spec 05-services.md#scale.
    fn scale(&mut self) -> Scale {
        let asked = self.input.scales.get(self.name).copied();
        let deploy = self.service.deploy.as_ref();
        let replicas = deploy.and_then(|deploy| deploy.replicas);
        let mode = deploy.and_then(|deploy| deploy.mode);
        if matches!(mode, Some(DeployMode::ReplicatedJob | DeployMode::GlobalJob)) {
            // `load` has said so before, with the place.
            let problem =
                Problem::Unsupported { what: "a job".to_owned(), instead: "use `replicated` and `restart: \"no\"`" };
            self.error("deploy.mode", problem);
        }
        if mode == Some(DeployMode::Global) {
            let at = [("scale", self.service.scale.or(asked)), ("deploy.replicas", replicas)];
            for (path, _) in at.iter().filter(|(_, count)| count.is_some_and(|count| count != 1)) {
                self.error(path, Problem::GlobalWithReplicas);
            }
            return Scale::Global;
        }
        if let (Some(scale), Some(replicas)) = (self.service.scale, replicas)
            && scale != replicas
        {
            self.error("scale", Problem::DistinctValues("scale", "deploy.replicas"));
        }
        Scale::Replicas(asked.or(self.service.scale).or(replicas).unwrap_or(1))
    }

    /// What is depended on: `depends_on`, and what links and a shared namespace imply.
    ///
    /// A link implies a dependency with `restart: true` in Docker Compose, because the names that it writes into the
    /// container go stale. orch's names do not, so what has exactly the implied form is not restarted.
    /// Source: observed from Docker Compose 2.40, `config`.
    fn depends_on(&mut self, network: &crate::graph::NetworkMode) -> Vec<Dependency> {
        let linked: BTreeSet<String> =
            self.service.links.iter().map(|link| link.split(':').next().unwrap_or_default().to_owned()).collect();
        let mut all: BTreeMap<ServiceName, Dependency> = BTreeMap::new();
        for (name, wanted) in &self.service.depends_on {
            let model::DependsOn { condition, restart, required, extensions: _ } = wanted;
            let condition = match condition {
                ConditionName::ServiceStarted => Condition::ServiceStarted,
                ConditionName::ServiceHealthy => Condition::ServiceHealthy,
                ConditionName::ServiceCompletedSuccessfully => Condition::ServiceCompletedSuccessfully,
            };
            if !self.input.model.services.contains_key(name) {
                if *required {
                    self.error(&format!("depends_on.{name}"), Problem::NoSuchService(name.to_string()));
                }
                continue;
            }
            let implied = linked.contains(name.as_str()) && condition == Condition::ServiceStarted && *required;
            let restart = *restart && !implied;
            all.insert(name.clone(), Dependency { service: name.clone(), condition, restart, required: *required });
        }
        let owner = match network {
            crate::graph::NetworkMode::Service(owner) => Some(owner.to_string()),
            _ => None,
        };
        let shared = [&self.service.ipc, &self.service.pid].into_iter().flatten();
        let owners = shared.filter_map(|mode| Some(mode.strip_prefix("service:")?.to_owned()));
        for name in linked.into_iter().chain(owner).chain(owners) {
            let Ok(service) = ServiceName::new(name) else { continue };
            if self.input.model.services.contains_key(&service) {
                all.entry(service.clone()).or_insert(Dependency {
                    service,
                    condition: Condition::ServiceStarted,
                    restart: false,
                    required: true,
                });
            }
        }
        all.into_values().collect()
    }

    fn links(&mut self) -> Vec<Link> {
        let mut links = Vec::new();
        for (index, text) in self.service.links.iter().enumerate() {
            let (name, alias) = text.split_once(':').unwrap_or((text, text));
            match ServiceName::new(name) {
                Ok(service) if self.input.model.services.contains_key(&service) && !alias.is_empty() => {
                    links.push(Link { service, alias: alias.to_owned() });
                }
                _ => self.error(&format!("links[{index}]"), Problem::NoSuchService(name.to_owned())),
            }
        }
        links
    }

    fn restart_policy(&self) -> Option<&model::RestartPolicy> {
        self.service.deploy.as_ref()?.restart_policy.as_ref()
    }

    /// Source: compose-spec deploy.md, `restart_policy`: where it is given, `restart` does not count, as in Docker Compose.
    fn restart_pace(&self) -> RestartPace {
        let Some(policy) = self.restart_policy() else { return RestartPace::default() };
        let said = |time: Option<model::GoDuration>| time.map(|time| time.0).filter(|time| !time.is_zero());
        let by_code = policy.condition.as_deref() == Some("on-failure");
        RestartPace {
            delay: said(policy.delay).unwrap_or_default(),
            window: said(policy.window),
            max_attempts: attempts(policy).filter(|_| !by_code),
        }
    }

    /// Source: compose-spec deploy.md, `update_config`. Words that are not applied `load` has refused before, with the place.
    fn rollout(&mut self) -> Option<Rollout> {
        let config = self.service.deploy.as_ref()?.update_config.as_ref()?;
        let model::UpdateConfig {
            parallelism,
            delay,
            failure_action,
            monitor,
            max_failure_ratio,
            order,
            extensions: _,
        } = config;
        let ratio = max_failure_ratio.map_or(0.0, |ratio| ratio.0);
        let mut refuse = |key: &str, what: String, instead| {
            self.error(&format!("deploy.update_config.{key}"), Problem::Unsupported { what, instead });
        };
        if !(0.0..=1.0).contains(&ratio) {
            refuse("max_failure_ratio", format!("a share of {ratio}"), "give one from 0 to 1");
        }
        if let Some(order) = order.as_deref().filter(|order| *order != "stop-first") {
            refuse("order", format!("`{order}`"), "use `stop-first`");
        }
        let on_failure = match failure_action.as_deref() {
            Some("continue") => OnFailure::Continue,
            Some("pause") | None => OnFailure::Pause,
            Some(action) => {
                refuse("failure_action", format!("`{action}`"), "use `pause` or `continue`");
                OnFailure::Pause
            }
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
        let failures_borne = (ratio.clamp(0.0, 1.0) * MILLIONTHS).round() as u32;
        Some(Rollout {
            parallelism: parallelism.map_or(1, |count| u32::try_from(count).unwrap_or(u32::MAX)),
            delay: delay.map_or(Duration::ZERO, |delay| delay.0),
            monitor: monitor.map_or(MONITOR, |monitor| monitor.0),
            on_failure,
            failures_borne,
        })
    }

    /// Source: compose-spec 05-services.md#restart.
    fn restart(&mut self) -> Restart {
        if let Some(policy) = self.restart_policy() {
            return match policy.condition.as_deref() {
                Some("none" | "no") => Restart::No,
                Some("always") => Restart::Always,
                Some("on-failure") => Restart::OnFailure { max_attempts: attempts(policy) },
                _ => Restart::UnlessStopped,
            };
        }
        let Some(text) = self.service.restart.as_deref() else { return Restart::Unset };
        match (text, text.strip_prefix("on-failure:").map(str::parse)) {
            ("no", _) => Restart::No,
            ("always", _) => Restart::Always,
            ("unless-stopped", _) => Restart::UnlessStopped,
            ("on-failure", _) => Restart::OnFailure { max_attempts: None },
            (_, Some(Ok(most))) => Restart::OnFailure { max_attempts: Some(most).filter(|most| *most > 0) },
            _ => {
                let expected = "`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`";
                self.error("restart", Problem::Invalid { what: "restart policy", text: text.to_owned(), expected });
                Restart::Unset
            }
        }
    }

    fn endpoint_mode(&mut self) -> EndpointMode {
        match self.service.deploy.as_ref().and_then(|deploy| deploy.endpoint_mode.as_deref()) {
            None | Some("vip") => EndpointMode::Vip,
            Some("dnsrr") => EndpointMode::Dnsrr,
            Some(text) => {
                let problem =
                    Problem::Invalid { what: "endpoint mode", text: text.to_owned(), expected: "`vip` or `dnsrr`" };
                self.error("deploy.endpoint_mode", problem);
                EndpointMode::Vip
            }
        }
    }

    /// Source: compose-spec 05-services.md#pull_policy.
    fn pull(&mut self) -> PullPolicy {
        match self.service.pull_policy.as_deref() {
            // What is built is none of the agents' business.
            None | Some("missing" | "if_not_present" | "build") => PullPolicy::Missing,
            Some("always") => PullPolicy::Always,
            Some("never") => PullPolicy::Never,
            Some("daily") => PullPolicy::Every(DAY),
            Some("weekly") => PullPolicy::Every(7 * DAY),
            Some(text) => {
                let every = text.strip_prefix("every_").and_then(|age| model::quantity::parse_duration(age).ok());
                if let Some(age) = every {
                    return PullPolicy::Every(age);
                }
                let expected =
                    "`always`, `missing`, `if_not_present`, `never`, `build`, `daily`, `weekly` or `every_12h`";
                self.error("pull_policy", Problem::Invalid { what: "pull policy", text: text.to_owned(), expected });
                PullPolicy::Missing
            }
        }
    }
}

/// 0 is without end, as the engine has it.
fn attempts(policy: &model::RestartPolicy) -> Option<u32> {
    let most = policy.max_attempts.filter(|most| *most > 0)?;
    Some(u32::try_from(most).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
