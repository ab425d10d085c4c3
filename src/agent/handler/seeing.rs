//! Answers to who wants to understand: what a name means to a container, and why something is as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::api::types::{
    ApiError, ErrorKind, Finding, NameQuestion, NameSays, NameTold, ServiceTold, Traffic, Weight, WhyQuestion, WhyTold,
};
use crate::diag::did_you_mean;
use crate::graph::Protocol;
use crate::ids::{HostName, PodId, ProjectName, ServiceName};
use crate::lb::table::PublishedKey;
use crate::model::{Route, RouteAction};
use crate::net::names::{Answer, RecordKind, ServiceRecord, explain};
use crate::place::Listening;
use crate::plan::{ContainerState, Desired, Health, Observed, ObservedContainer, PodMemory, ProjectView};

use super::super::shared::{ProjectState, Record, Shared};
use super::elsewhere::Others;
use super::follow::has_ended_with_main;
use super::{error, pods, published, unready};

/// What somebody may ask about.
enum Meant<'a> {
    /// A published port, and whose it is.
    Port(u16, &'a ServiceName),
    /// A port that routes listen at, and the services that they are written at.
    Routes(u16, BTreeSet<&'a ServiceName>),
    Service(&'a ServiceName),
    Pod(&'a PodId),
    /// A host name of a route, and where its requests come to.
    Routed(String, &'a ServiceName),
}

impl<'a> Meant<'a> {
    /// Returns the services that are meant by themselves or by what leads to them.
    fn services(&self) -> Vec<&'a ServiceName> {
        match self {
            Self::Port(_, service) | Self::Service(service) | Self::Routed(_, service) => vec![service],
            Self::Routes(_, services) => services.iter().copied().collect(),
            Self::Pod(_) => Vec::new(),
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
    /// What containers of this host wrote last that others wait for, by engine id.
    pub(super) words: BTreeMap<String, String>,
    /// What those wrote in their last run that fail where ambassadors listen.
    pub(super) last_runs: BTreeMap<String, String>,
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
        let observed = shared.observed(Some(project));
        let (inside, words, last_runs) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { shared, desired, observed, state, inside, words, last_runs })
    }

    /// Returns what this host's agent remembers of a pod of its own.
    pub(super) fn memory(&self, pod: &PodId) -> Option<&PodMemory> {
        self.state.report.memory.get(pod)
    }

    /// Says what a name means to a container.
    ///
    /// # Errors
    /// No container of the service runs that could ask.
    pub(super) fn name(&self, question: &NameQuestion) -> Result<NameTold, ApiError> {
        let desired = self.desired.folded();
        let observed = self.observed.folded(&self.desired.graph);
        let view = ProjectView { desired: &desired, observed: &observed };
        let from = question.from.as_ref().map(|from| self.who_asks(from)).transpose()?;
        let (host, asker, source) = asker(&observed, from.as_ref()).ok_or_else(|| {
            let who = question.from.as_ref().map_or_else(|| "the project".to_owned(), |from| format!("`{from}`"));
            error(
                ErrorKind::NotFound,
                format!("no container of {who} runs on a network of the project, so that none could ask"),
            )
        })?;
        let name = question.name.trim_end_matches('.').to_lowercase();
        let table = self.shared.dataplane.name_table();
        let kind = match name.as_str() {
            name if name.starts_with('_') => RecordKind::Srv,
            name if name.ends_with(".in-addr.arpa") => RecordKind::Ptr,
            _ => RecordKind::A,
        };
        let says = match table.answer(source, &name, kind) {
            Answer::Addresses { addresses, ttl_secs } => {
                NameSays::Addresses { addresses: addresses.to_vec(), ttl_secs }
            }
            Answer::Services { records, ttl_secs } => {
                let told = |record: &ServiceRecord<'_>| {
                    let ServiceRecord { port, target, address } = *record;
                    ServiceTold { port, target: target.to_owned(), address }
                };
                NameSays::Services { records: records.iter().map(told).collect(), ttl_secs }
            }
            Answer::Pointer { name, ttl_secs } => NameSays::Pointer { name: name.to_owned(), ttl_secs },
            Answer::NoData { .. } => NameSays::NoAddress,
            Answer::NoName { .. } => NameSays::NoName,
            Answer::Forward { upstreams } => NameSays::Forwarded { resolvers: upstreams.to_vec() },
            Answer::Refused => NameSays::Refused,
        };
        let others = Others::of(self.shared, self.desired);
        let because = explain(&view, asker.service.as_ref(), &name, &|link| others.of_link(link));
        Ok(NameTold { asker: asker.name.clone(), host: host.clone(), source, says, because })
    }

    /// Finds out whose name is asked for in: a service, a helper of one, or one of its pods.
    fn who_asks(&self, from: &ServiceName) -> Result<Asking, ApiError> {
        let graph = &self.desired.graph;
        let front = |name: &ServiceName| graph.front(name).clone();
        if graph.services.contains_key(from) {
            return Ok(Asking { service: front(from), number: None });
        }
        let pod = self.desired.pods().find(|pod| pod.to_string() == from.as_str());
        if let Some(pod) = pod {
            return Ok(Asking { service: front(&pod.service), number: Some(pod.number) });
        }
        let names = graph.services.keys().map(ServiceName::as_str);
        let near = did_you_mean(from.as_str(), names).map(|near| format!("; did you mean `{near}`?"));
        let message = format!("project `{}` has no service or pod `{from}`{}", graph.project, near.unwrap_or_default());
        Err(error(ErrorKind::NotFound, message))
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
            let findings = match meant {
                Some(Meant::Pod(pod)) => {
                    let front = self.desired.graph.front(&pod.service);
                    self.words_of(front).into_iter().chain(self.taken_ports(front, Some(pod.number))).collect()
                }
                Some(other) => other.services().into_iter().flat_map(|service| self.only_here(service)).collect(),
                None => Vec::new(),
            };
            let about = format!("host `{}`", self.shared.host());
            return Ok(WhyTold { about, findings });
        }
        match meant {
            Some(Meant::Port(port, service)) => {
                let about = format!("port {port}, which is service `{service}`");
                return Ok(WhyTold { about, findings: self.service(service) });
            }
            Some(Meant::Routes(port, services)) => {
                let about = format!("port {port}, which is for routes of {}", quoted(&services));
                return Ok(WhyTold { about, findings: self.routes_at(port, &services) });
            }
            Some(Meant::Service(service)) => {
                return Ok(WhyTold { about: format!("service `{service}`"), findings: self.service(service) });
            }
            Some(Meant::Pod(pod)) => {
                let mut findings = self.pod(pod);
                findings.extend(self.taken_ports(self.desired.graph.front(&pod.service), Some(pod.number)));
                findings.sort_by_key(|finding| finding.weight);
                return Ok(WhyTold { about: format!("`{pod}`"), findings });
            }
            Some(Meant::Routed(host, service)) => {
                let mut findings = vec![fine(format!("requests for `{host}` come to service `{service}`"))];
                findings.extend(self.service(service));
                return Ok(WhyTold { about: format!("requests for `{host}`"), findings });
            }
            None => {}
        }
        let off = ServiceName::new(about).ok().and_then(|service| graph.off(&service));
        if let Some(off) = off {
            let hint = Some(format!("`{}` at its `up` switches it on", off.flag()));
            let findings = vec![Finding { weight: Weight::Problem, text: format!("`{about}` is {off}"), hint }];
            return Ok(WhyTold { about: format!("service `{about}`"), findings });
        }
        if let Ok(port) = about.trim_start_matches(':').parse::<u16>() {
            let message =
                format!("project `{}` publishes no port {port}, and none of its routes listens there", graph.project);
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
            let listens = |service: &crate::graph::Service| {
                let mut all = service.serving.routes.iter().flat_map(|route| &route.listen);
                all.any(|listen| listen.port == port)
            };
            return owner.map(|owner| Meant::Port(port, &owner.service)).or_else(|| {
                let services: BTreeSet<&ServiceName> =
                    graph.services.iter().filter(|(_, service)| listens(service)).map(|(name, _)| name).collect();
                (!services.is_empty()).then_some(Meant::Routes(port, services))
            });
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
        findings.extend(self.words_of(front));
        findings.extend(self.taken_ports(front, None));
        findings
    }

    /// What containers of this host wrote last that keep a service waiting.
    fn words_of(&self, front: &ServiceName) -> Vec<Finding> {
        let graph = &self.desired.graph;
        let here = self.observed.hosts.get(self.shared.host());
        let containers = here.into_iter().flat_map(|host| host.containers.values());
        let own = containers.filter(|one| one.service.as_ref().is_some_and(|service| graph.front(service) == front));
        let words = own.filter_map(|one| Some((one, self.words.get(&one.id)?)));
        words
            .map(|(container, words)| {
                let text = format!("container {} may show in its log why it keeps others waiting", container.name);
                Finding { weight: Weight::Waiting, text, hint: Some(words.clone()) }
            })
            .collect()
    }

    /// All that is to be said of a port that routes listen at.
    fn routes_at(&self, port: u16, services: &BTreeSet<&ServiceName>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for name in services {
            let routes = self.desired.graph.services.get(*name).map(|service| service.serving.routes.as_slice());
            let here = |route: &&Route| route.listen.iter().any(|listen| listen.port == port);
            findings.extend(routes.unwrap_or_default().iter().filter(here).map(|route| {
                let (what, place) = (route.name(), &route.place);
                fine(match route.action {
                    RouteAction::Forward { .. } => {
                        format!("requests for `{what}` come to port {} of service `{name}` ({place})", route.port)
                    }
                    RouteAction::Redirect { status, .. } => {
                        format!(
                            "requests for `{what}` are answered with {status} by a rule of service `{name}` ({place})"
                        )
                    }
                })
            }));
            findings.extend(self.service(name));
        }
        findings.sort_by_key(|finding| finding.weight);
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
        findings.extend(self.leads_nowhere(front).0);
        let mut ambassadors = self.ambassadors(front);
        ambassadors.retain(|one| !findings.iter().any(|told| told.text == one.text));
        findings.extend(ambassadors);
        findings.extend(self.taken_ports(front, None));
        findings.extend(self.ports_of(front));
        let wanted = pods.len() + homeless;
        let service = graph.services.get(front);
        let serves = service.is_none_or(|service| !service.is_job());
        let ended = containers().filter(|one| {
            let is_done = |code, by_itself| service.is_some_and(|service| service.stays_ended(code, by_itself));
            let is_own = one.pod().is_some_and(|pod| pod.service == *front);
            is_own && matches!(one.state, ContainerState::Exited { code: 0, by_itself } if is_done(0, by_itself))
        });
        let ended = ended.count();
        findings.push(match (ready, wanted) {
            (_, _) if ended > 0 && ended == wanted => {
                let what = if wanted == 1 { "its pod has".to_owned() } else { format!("all of its {wanted} pods have") };
                let text = format!("{what} ended with 0 and are not started again before the next `up`");
                let text = if wanted == 1 { text.replace("and are not", "and is not") } else { text };
                if self.is_to_be_reached(front) {
                    let hint = "a service that answers runs on; what only has something to do needs no ports".to_owned();
                    Finding { weight: Weight::Problem, text: format!("{text}: nobody answers"), hint: Some(hint) }
                } else {
                    fine(format!("{text}: its work is done"))
                }
            }
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
            (ready, wanted) if ended > 0 => fine(format!("of its {wanted} pods {ended} are done, {ready} run")),
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
        // What keeps an ambassador from listening keeps all that start after it, and is told once.
        let mut unheard = BTreeSet::new();
        for member in members {
            let id = PodId::new(member, pod.number);
            let Some(status) = statuses.iter().find(|status| status.pod == id) else { continue };
            let is_init = status.part.as_ref().is_some_and(|part| part.role.prepares());
            let host = self.desired.assignments.pods.get(&id);
            if let Some(host) = host.filter(|host| !self.observed.hosts.contains_key(*host)) {
                findings.push(problem(format!("`{id}` is on host `{host}`, which does not answer")));
                continue;
            }
            if let Some(wait) = self.waits_for(&id) {
                findings.push(waiting(format!("`{id}` waits: {wait}")));
            }
            let text = |what: String| format!("container {} {what}", status.name);
            let words = status.container.as_ref().and_then(|id| self.words.get(id)).cloned();
            let done =
                |code, by_itself| graph.services.get(&id.service).is_some_and(|one| one.stays_ended(code, by_itself));
            findings.extend(match (status.state, &status.reason) {
                (Some(ContainerState::Running { .. }), None) if is_init => {
                    let time = self.ago(&status.started_at).map(|secs| format!(" for {secs} s")).unwrap_or_default();
                    let what = format!("prepares the pod, and has run{time}: the other containers wait for its end");
                    Some(Finding { weight: Weight::Waiting, text: text(what), hint: words })
                }
                (Some(ContainerState::Exited { .. }), None) if has_ended_with_main(status, &statuses) => {
                    Some(fine(text("was ended when the service's own container had ended".to_owned())))
                }
                (_, Some(reason)) if reason.starts_with("ambassador `") => {
                    unheard.insert(reason).then(|| problem(reason.clone()))
                }
                (_, Some(reason)) => {
                    let name = format!("`{id}`");
                    let text = if reason.starts_with(&name) { reason.clone() } else { format!("{name}: {reason}") };
                    Some(Finding { weight: Weight::Problem, text, hint: words })
                }
                (Some(ContainerState::Exited { code: 0, .. }), None) if is_init => None,
                (Some(ContainerState::Exited { code: 0, by_itself }), None) if done(0, by_itself) => {
                    let ago = self.ago(&status.finished_at).map(|secs| format!(" {secs} s ago")).unwrap_or_default();
                    Some(fine(text(format!("ended with 0{ago}: it is done"))))
                }
                (Some(ContainerState::Exited { code, by_itself }), None) => {
                    let how = if by_itself { "by itself" } else { "because somebody stopped it" };
                    let weight = if code == 0 { Weight::Waiting } else { Weight::Problem };
                    let hint = words.or_else(|| Some(format!("`orch logs {}` shows what it wrote", id.service)));
                    Some(Finding { weight, text: text(format!("ended with {code}, {how}")), hint })
                }
                (Some(ContainerState::Running { health: Health::Unhealthy }), None) => {
                    Some(Finding { weight: Weight::Problem, text: text("is unhealthy".to_owned()), hint: words })
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
        // What keeps one from listening, where it is known.
        let told = self.shared.ambassadors.problems();
        // Of these it is told why nobody is there.
        let (_, dead) = self.leads_nowhere(front);
        let mut findings = Vec::new();
        for one in own {
            let name = format!("ambassador `{}` of `{}`", one.key.name, one.key.pod);
            if !one.listens {
                let known = told.iter().find(|told| told.starts_with(&name)).cloned();
                findings.push(problem(known.unwrap_or_else(|| {
                    format!("{name} does not listen: its pod does not run, or its port is taken there")
                })));
            }
            for target in &one.targets {
                if target.endpoints == Some(0) && dead.contains(&(one.key.name.clone(), target.target.clone())) {
                    continue;
                }
                if let Some(why) = &target.last_error {
                    let left = if target.is_open_circuit { ", and is left alone for a while" } else { "" };
                    findings.push(problem(format!("{name}: `{}` took no connection{left}: {why}", target.target)));
                }
            }
        }
        findings
    }

    /// Returns how many seconds ago a time of the engine was; `None`: it was never.
    fn ago(&self, time: &str) -> Option<u64> {
        let then: jiff::Timestamp = time.parse().ok()?;
        let now = i64::try_from(self.shared.clock.now().as_secs()).ok()?;
        u64::try_from(now - then.as_second()).ok().filter(|_| then.as_second() > 0)
    }

    /// Returns whether somebody outside of its pods is to reach a service.
    fn is_to_be_reached(&self, front: &ServiceName) -> bool {
        let serving = self.desired.graph.services.get(front).map(|service| &service.serving);
        self.desired.addresses.ports.iter().any(|port| port.service == *front)
            || serving.is_some_and(|serving| !serving.http.is_empty() || !serving.routes.is_empty())
    }

    /// What is to be said of the ports that its routes listen at.
    fn route_ports(&self, front: &ServiceName) -> Vec<Finding> {
        let problems = self.shared.dataplane.published_problems(self.shared);
        let routes = self.desired.graph.services.get(front).map(|service| service.serving.routes.as_slice());
        let each = |route: &Route| route.listen.iter().map(|listen| (listen.port, route.host_ip)).collect::<Vec<_>>();
        let at: BTreeSet<(u16, Option<std::net::IpAddr>)> = routes.unwrap_or_default().iter().flat_map(each).collect();
        at.into_iter()
            .map(|(port, host_ip)| {
                let of =
                    host_ip.map_or_else(|| "each host".to_owned(), |address| format!("each host, at {address} only,"));
                match problems.get(&PublishedKey { host_ip, port, protocol: Protocol::Tcp }) {
                    Some(why) => problem(format!("port {port}/tcp is not listened on for its routes: {why}")),
                    None => fine(format!("port {port}/tcp of {of} is for its routes")),
                }
            })
            .collect()
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
        .chain(self.route_ports(front))
        .collect()
    }
}

/// Returns what this host's load balancer does.
pub(super) fn traffic(shared: &Shared) -> Traffic {
    Traffic {
        host: shared.host().clone(),
        balancer: shared.dataplane.balancer_stats(),
        ambassadors: shared.dataplane.ambassador_stats(),
        services: unready::services(shared),
    }
}

/// Who asks for a name.
struct Asking {
    service: ServiceName,
    /// `None`: any of its pods.
    number: Option<u32>,
}

/// Finds a container that could ask: of that service, else any, the lowest number first.
fn asker<'o>(observed: &'o Observed, from: Option<&Asking>) -> Option<(&'o HostName, &'o ObservedContainer, Ipv4Addr)> {
    let mut found: BTreeMap<(Option<u32>, &str), _> = BTreeMap::new();
    for (host, seen) in &observed.hosts {
        for container in seen.containers.values().filter(|one| one.is_running()) {
            let is_meant = from.is_none_or(|Asking { service, number }| {
                container.service.as_ref() == Some(service) && (number.is_none() || container.number == *number)
            });
            let address = container.networks.values().flatten().next();
            if let Some(address) = address.filter(|_| is_meant) {
                found.insert((container.number, container.name.as_str()), (host, container, *address));
            }
        }
    }
    found.into_values().next()
}

fn quoted(services: &BTreeSet<&ServiceName>) -> String {
    services.iter().map(|service| format!("`{service}`")).collect::<Vec<_>>().join(", ")
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
