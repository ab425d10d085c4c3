//! Answers to who wants to understand: what a name means to a container, and why something is as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::api::types::{
    ApiError, ErrorKind, Finding, NameQuestion, NameSays, NameTold, Traffic, Weight, WhyQuestion, WhyTold,
};
use crate::diag::did_you_mean;
use crate::graph::Role;
use crate::ids::{HostName, PodId, ProjectName, ServiceName};
use crate::net::names::{Answer, RecordKind, explain};
use crate::place::Listening;
use crate::plan::{ContainerState, Desired, Health, Observed, ObservedContainer, ProjectView};

use super::super::shared::{ProjectState, Record, Shared};
use super::{error, pods, published};

/// What somebody may ask about.
enum Meant<'a> {
    /// A published port, and whose it is.
    Port(u16, &'a ServiceName),
    Service(&'a ServiceName),
    Pod(&'a PodId),
    /// A host name of a route, and where its requests come to.
    Routed(String, &'a ServiceName),
}

impl<'a> Meant<'a> {
    /// Returns the service that is meant by itself or by what leads to it.
    fn service(&self) -> Option<&'a ServiceName> {
        match self {
            Self::Port(_, service) | Self::Service(service) | Self::Routed(_, service) => Some(service),
            Self::Pod(_) => None,
        }
    }
}

/// Everything that is known of a project at one moment.
pub(super) struct Seen<'a> {
    pub(super) shared: &'a Shared,
    pub(super) desired: &'a Desired,
    /// As the engines show it.
    pub(super) observed: Observed,
    state: ProjectState,
    /// Where pods of this host listen.
    pub(super) inside: BTreeMap<PodId, BTreeSet<Listening>>,
}

impl<'a> Seen<'a> {
    /// Looks at a project.
    ///
    /// # Errors
    /// There is none of that name.
    pub(super) fn of(shared: &'a Shared, project: &ProjectName, record: Option<&'a Record>) -> Result<Self, ApiError> {
        let desired = record.and_then(|record| record.desired.as_ref());
        let Some(desired) = desired else {
            return Err(error(ErrorKind::NotFound, format!("no project `{project}`")));
        };
        let state = shared.project(project).map(|handle| handle.state.borrow().clone()).unwrap_or_default();
        Ok(Self { shared, desired, observed: shared.observed(Some(project)), state, inside: BTreeMap::new() })
    }

    /// Says what a name means to a container.
    ///
    /// # Errors
    /// No container of the service runs that could ask.
    pub(super) fn name(&self, question: &NameQuestion) -> Result<NameTold, ApiError> {
        let desired = self.desired.folded();
        let observed = self.observed.folded(&self.desired.graph);
        let view = ProjectView { desired: &desired, observed: &observed };
        let (host, asker, source) = asker(&observed, question.from.as_ref()).ok_or_else(|| {
            let who = question.from.as_ref().map_or_else(|| "the project".to_owned(), |from| format!("`{from}`"));
            error(
                ErrorKind::NotFound,
                format!("no container of {who} runs on a network of the project, so that none could ask"),
            )
        })?;
        let name = question.name.trim_end_matches('.').to_lowercase();
        let table = self.shared.dataplane.name_table();
        let says = match table.answer(source, &name, RecordKind::A) {
            Answer::Addresses { addresses, ttl_secs } => {
                NameSays::Addresses { addresses: addresses.to_vec(), ttl_secs }
            }
            Answer::Pointer { .. } | Answer::Services { .. } | Answer::NoData { .. } => NameSays::NoAddress,
            Answer::NoName { .. } => NameSays::NoName,
            Answer::Forward { upstreams } => NameSays::Forwarded { resolvers: upstreams.to_vec() },
            Answer::Refused => NameSays::Refused,
        };
        let because = explain(&view, asker.service.as_ref(), &name);
        Ok(NameTold { asker: asker.name.clone(), host: host.clone(), source, says, because })
    }

    /// Says how it is about something, and why.
    ///
    /// # Errors
    /// The project has nothing of that name.
    pub(super) fn why(&self, question: &WhyQuestion) -> Result<WhyTold, ApiError> {
        let about = question.about.trim();
        let graph = &self.desired.graph;
        let meant = self.meant(about);
        if question.only_here {
            let findings = meant.and_then(|meant| meant.service()).map(|service| self.only_here(service));
            let about = format!("host `{}`", self.shared.host());
            return Ok(WhyTold { about, findings: findings.unwrap_or_default() });
        }
        match meant {
            Some(Meant::Port(port, service)) => {
                let about = format!("port {port}, which is service `{service}`");
                return Ok(WhyTold { about, findings: self.service(service) });
            }
            Some(Meant::Service(service)) => {
                return Ok(WhyTold { about: format!("service `{service}`"), findings: self.service(service) });
            }
            Some(Meant::Pod(pod)) => return Ok(WhyTold { about: format!("`{pod}`"), findings: self.pod(pod) }),
            Some(Meant::Routed(host, service)) => {
                let mut findings = vec![fine(format!("requests for `{host}` come to service `{service}`"))];
                findings.extend(self.service(service));
                return Ok(WhyTold { about: format!("requests for `{host}`"), findings });
            }
            None => {}
        }
        if let Ok(port) = about.trim_start_matches(':').parse::<u16>() {
            let message = format!("project `{}` does not publish port {port}", graph.project);
            return Err(error(ErrorKind::NotFound, message));
        }
        let names: Vec<String> = graph.services.keys().map(ToString::to_string).collect();
        let near = did_you_mean(about, names.iter().map(String::as_str));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let message = format!(
            "`{about}` is no service, pod, container, published port or routed host of project `{}`{near}",
            graph.project
        );
        Err(error(ErrorKind::NotFound, message))
    }

    /// Returns what a question is about; `None`: the project has nothing of that name.
    fn meant(&self, about: &str) -> Option<Meant<'_>> {
        let graph = &self.desired.graph;
        if let Ok(port) = about.trim_start_matches(':').parse::<u16>() {
            let owner = self.desired.addresses.ports.iter().find(|one| one.published == port);
            return owner.map(|owner| Meant::Port(port, &owner.service));
        }
        let service = ServiceName::new(about).ok().and_then(|name| graph.services.get_key_value(&name));
        if let Some((service, _)) = service {
            return Some(Meant::Service(service));
        }
        let is_meant = |pod: &&PodId| pod.to_string() == about || graph.container_name(pod) == about;
        let unplaced = self.desired.assignments.unplaced.iter().map(|one| &one.pod);
        if let Some(pod) = self.desired.pods().chain(unplaced).find(is_meant) {
            return Some(Meant::Pod(pod));
        }
        let host = about.to_lowercase();
        let routed = graph.services.iter().find(|(_, service)| {
            service.serving.routes.iter().any(|route| route.hosts.iter().any(|one| one.takes(&host)))
        });
        routed.map(|(service, _)| Meant::Routed(host, service))
    }

    /// What only this host can say of a service: how it is reached from here, and what keeps its ambassadors and ports
    /// from being served here.
    fn only_here(&self, service: &ServiceName) -> Vec<Finding> {
        let front = self.desired.graph.front(service);
        let mut findings = self.reached(front);
        findings.extend(self.ambassadors(front));
        findings.extend(self.ports_of(front).into_iter().filter(|finding| finding.weight != Weight::Fine));
        findings
    }

    /// All that is to be said of a service: its pods, whether it is reached, by what it is.
    fn service(&self, name: &ServiceName) -> Vec<Finding> {
        let graph = &self.desired.graph;
        let front = graph.front(name);
        let mut findings = Vec::new();
        if !self.desired.enabled.contains(front) {
            let hint = Some(format!("`orch up {front}` starts it"));
            let text = format!("`{front}` was never asked to run: `up` named other services");
            findings.push(Finding { weight: Weight::Problem, text, hint });
            return findings;
        }
        let pods: Vec<&PodId> = self.desired.assignments.pods.range(PodId::all_of(front)).map(|(pod, _)| pod).collect();
        let unplaced = self.desired.assignments.unplaced.iter().filter(|one| one.pod.service == *front);
        let homeless = unplaced.clone().filter(|one| !pods.contains(&&one.pod)).count();
        for one in unplaced {
            let text = one.sentence(&format!("`{}`", one.pod), false);
            let hint = "change its rules or reservations, or add a host (`orch host add`)";
            let hint = one.blocked.is_none().then(|| hint.to_owned());
            findings.push(Finding { weight: Weight::Problem, text, hint });
        }
        let folded = self.observed.folded(graph);
        let containers = || folded.hosts.values().flat_map(|host| host.containers.values());
        let ready =
            containers().filter(|one| one.is_ready() && one.pod().is_some_and(|pod| pod.service == *front)).count();
        for pod in &pods {
            findings.extend(self.pod(pod).into_iter().filter(|finding| finding.weight != Weight::Fine));
        }
        findings.extend(self.reached(front));
        findings.extend(self.ambassadors(front));
        findings.extend(self.ports_of(front));
        let wanted = pods.len() + homeless;
        let serves = graph.services.get(front).is_none_or(|service| !service.is_job());
        findings.push(match (ready, wanted) {
            (_, 0) => waiting(format!("no pod of `{front}` is wanted (scale 0)")),
            (0, _) if serves => Finding {
                weight: Weight::Problem,
                text: format!(
                    "no pod of `{front}` is ready: a connection waits some seconds for one, and is then reset, a request \
                     answered with 503"
                ),
                hint: None,
            },
            (ready, wanted) if ready == wanted => fine(format!("all of its {wanted} pods are ready")),
            (ready, wanted) if serves => waiting(format!("{ready} of its {wanted} pods are ready: those get the connections")),
            (ready, wanted) => fine(format!("{ready} of its {wanted} pods run")),
        });
        findings.sort_by_key(|finding| finding.weight);
        findings
    }

    /// All that is to be said of one pod, with those that help it.
    fn pod(&self, pod: &PodId) -> Vec<Finding> {
        let graph = &self.desired.graph;
        let front = graph.front(&pod.service).clone();
        let parts: Vec<ServiceName> = graph.parts(&front).map(|(name, _)| name.clone()).collect();
        let members = if parts.is_empty() || pod.service != front { vec![pod.service.clone()] } else { parts };
        let statuses = pods(Some(self.desired), &self.observed, &self.state);
        let mut findings = Vec::new();
        for member in members {
            let id = PodId::new(member, pod.number);
            let Some(status) = statuses.iter().find(|status| status.pod == id) else { continue };
            let is_init = status.part.as_ref().is_some_and(|part| part.role == Role::Init);
            let host = self.desired.assignments.pods.get(&id);
            if let Some(host) = host.filter(|host| !self.observed.hosts.contains_key(*host)) {
                findings.push(problem(format!("`{id}` is on host `{host}`, which does not answer")));
                continue;
            }
            if let Some(wait) = self.waits_for(&id) {
                findings.push(waiting(format!("`{id}` waits: {wait}")));
            }
            let text = |what: String| format!("container {} {what}", status.name);
            findings.extend(match (status.state, &status.reason) {
                (_, Some(reason)) => Some(problem(format!("`{id}`: {reason}"))),
                (Some(ContainerState::Exited { code: 0, .. }), None) if is_init => None,
                (Some(ContainerState::Exited { code, by_itself }), None) => {
                    let how = if by_itself { "by itself" } else { "because somebody stopped it" };
                    let weight = if code == 0 { Weight::Waiting } else { Weight::Problem };
                    let hint = Some(format!("`orch logs {}` shows what it wrote", id.service));
                    Some(Finding { weight, text: text(format!("ended with {code}, {how}")), hint })
                }
                (Some(ContainerState::Running { health: Health::Unhealthy }), None) => {
                    Some(problem(text("is unhealthy".to_owned())))
                }
                (Some(ContainerState::Running { health: Health::Starting }), None) => {
                    Some(waiting(text("runs, and its check has not passed yet".to_owned())))
                }
                (Some(ContainerState::Running { .. }), None) => Some(fine(text("runs".to_owned()))),
                (Some(state), None) => Some(waiting(text(format!("is {}", state.word())))),
                (None, None) => Some(waiting(format!("`{id}` has no container yet"))),
            });
        }
        findings.sort_by_key(|finding| finding.weight);
        findings
    }

    /// Returns what the first step of a pod waits for.
    fn waits_for(&self, pod: &PodId) -> Option<String> {
        let plan = self.state.plan.as_ref()?;
        let step = plan.steps.iter().find(|step| step.step.pod() == Some(pod))?;
        step.waits_for(self.desired, &self.observed)
    }

    fn ambassadors(&self, front: &ServiceName) -> Vec<Finding> {
        let stats = self.shared.dataplane.ambassador_stats();
        let own =
            stats.iter().filter(|one| one.key.project == self.desired.graph.project && one.key.pod.service == *front);
        let mut findings = Vec::new();
        for one in own {
            let name = format!("ambassador `{}` of `{}`", one.key.name, one.key.pod);
            if !one.listens {
                findings
                    .push(problem(format!("{name} does not listen: its pod does not run, or its port is taken there")));
            }
            for target in &one.targets {
                if let Some(why) = &target.last_error {
                    let left = if target.is_open_circuit { ", and is left alone for a while" } else { "" };
                    findings.push(problem(format!("{name}: `{}` took no connection{left}: {why}", target.target)));
                }
            }
        }
        findings
    }

    fn ports_of(&self, front: &ServiceName) -> Vec<Finding> {
        let ports = published(self.shared, self.desired);
        let own = ports.into_iter().filter(|port| port.service == *front);
        own.map(|port| match port.problem {
            Some(why) => problem(format!("port {}/{} is not published: {why}", port.published, port.protocol)),
            None => fine(format!(
                "port {}/{} of each host leads to its port {}",
                port.published, port.protocol, port.target
            )),
        })
        .collect()
    }
}

/// Returns what this host's load balancer does.
pub(super) fn traffic(shared: &Shared) -> Traffic {
    Traffic {
        host: shared.host().clone(),
        balancer: shared.dataplane.balancer_stats(),
        ambassadors: shared.dataplane.ambassador_stats(),
    }
}

/// Finds a container that could ask: of that service, else any, the lowest number first.
fn asker<'o>(
    observed: &'o Observed,
    from: Option<&ServiceName>,
) -> Option<(&'o HostName, &'o ObservedContainer, Ipv4Addr)> {
    let mut found: BTreeMap<(Option<u32>, &str), _> = BTreeMap::new();
    for (host, seen) in &observed.hosts {
        for container in seen.containers.values().filter(|one| one.is_running()) {
            let is_meant = from.is_none_or(|from| container.service.as_ref() == Some(from));
            let address = container.networks.values().flatten().next();
            if let Some(address) = address.filter(|_| is_meant) {
                found.insert((container.number, container.name.as_str()), (host, container, *address));
            }
        }
    }
    found.into_values().next()
}

pub(super) fn finding(weight: Weight, text: String) -> Finding {
    Finding { weight, text, hint: None }
}

pub(super) fn problem(text: String) -> Finding {
    finding(Weight::Problem, text)
}

pub(super) fn waiting(text: String) -> Finding {
    finding(Weight::Waiting, text)
}

pub(super) fn fine(text: String) -> Finding {
    finding(Weight::Fine, text)
}
