//! What a project reaches for beyond its own networks, by external links and ambassadors, and what of it leads to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::types::{Finding, Weight};
use crate::graph::Service;
use crate::ids::{ProjectName, ServiceName};
use crate::model::{Ambassador, AmbassadorTarget, ExternalLink};
use crate::plan::{Desired, Observed, ProjectView, Standing};

use super::super::shared::{Aim, Record, Shared};
use super::seeing::Seen;
use super::unready::Pods;

/// The projects that one reaches for, itself among them.
pub(super) struct Others<'a> {
    own: &'a Desired,
    records: BTreeMap<ProjectName, Arc<Record>>,
    /// What of them is, with each pod as one container.
    observed: BTreeMap<ProjectName, Observed>,
}

/// A service of another project that a service of this one reaches for.
struct Reach<'a> {
    /// Who reaches for it: ``service `web` links to `shop/db` ``.
    what: String,
    place: &'a str,
    project: &'a ProjectName,
    service: &'a ServiceName,
    /// `None`: at any port.
    port: Option<u16>,
    standing: Standing,
}

impl<'a> Others<'a> {
    /// Looks at the projects that `own` reaches for.
    pub(super) fn of(shared: &Shared, own: &'a Desired) -> Self {
        let mut others = Self { own, records: BTreeMap::new(), observed: BTreeMap::new() };
        let services = own.graph.services.values();
        let names: BTreeSet<&ProjectName> = services
            .flat_map(|service| linked(service).chain(exported(service).map(|(project, ..)| project)))
            .collect();
        for name in names {
            if *name != own.graph.project
                && let Some(record) = shared.project(name).and_then(|handle| handle.record.borrow().clone())
            {
                others.records.insert(name.clone(), record);
            }
            if let Some(desired) = others.desired(name) {
                let observed = shared.observed(Some(name)).folded(&desired.graph).into_owned();
                others.observed.insert(name.clone(), observed);
            }
        }
        others
    }

    fn desired(&self, project: &ProjectName) -> Option<&Desired> {
        if *project == self.own.graph.project {
            return Some(self.own);
        }
        let record = self.records.get(project).filter(|record| !matches!(record.aim, Aim::Down(_)))?;
        record.desired.as_ref()
    }

    fn standing(&self, project: &ProjectName, service: &ServiceName, port: Option<u16>) -> Standing {
        let view = self.desired(project).zip(self.observed.get(project));
        let view = view.map(|(desired, observed)| ProjectView { desired, observed });
        Standing::of(view.as_ref(), service, port)
    }

    /// Returns how the service of a link stands.
    pub(super) fn of_link(&self, link: &ExternalLink) -> Standing {
        self.standing(&link.project, &link.service, None)
    }

    /// Says of what those of the services that shall run reach for what leads to nothing until somebody writes, or brings up,
    /// something else.
    pub(super) fn warnings(&self, of: &BTreeSet<ServiceName>) -> Vec<String> {
        let is_meant = |name: &ServiceName| self.own.enabled.contains(name) && of.contains(name);
        let enabled = self.own.graph.services.iter().filter(|(name, _)| is_meant(name));
        let reaches = enabled.flat_map(|(name, service)| self.reaches(name, service));
        let nothing = reaches.filter(|reach| reach.standing.is_nothing());
        nothing
            .filter_map(|reach| {
                let help = reach.help().map(|help| format!("; {help}")).unwrap_or_default();
                Some(format!("{}{help}", reach.told()?))
            })
            .collect()
    }

    /// What a service reaches for in other projects.
    fn reaches(&self, name: &ServiceName, service: &'a Service) -> Vec<Reach<'a>> {
        let aliases: BTreeSet<String> = service.external_links.iter().map(|link| link.alias.to_lowercase()).collect();
        let link = |alias: String| {
            let link = service.external_link(&alias, |link| self.of_link(link).is_there())?;
            let ExternalLink { project, service, alias, place } = link;
            let known = if alias == service.as_str() { String::new() } else { format!(" as `{alias}`") };
            let what = format!("service `{name}` links to `{project}/{service}`{known}");
            Some(Reach { what, place, project, service, port: None, standing: self.of_link(link) })
        };
        let links = aliases.into_iter().filter_map(link);
        let ambassadors = exported(service).map(|(project, service, port, place, ambassador)| {
            let what = format!("ambassador `{ambassador}` of service `{name}` leads to `{project}/{service}:{port}`");
            let standing = self.standing(project, service, Some(port));
            Reach { what, place, project, service, port: Some(port), standing }
        });
        links.chain(ambassadors).collect()
    }
}

impl Reach<'_> {
    /// Says why it leads to nobody; `None`: it does not.
    fn told(&self) -> Option<String> {
        let Self { what, place, project, service, standing, .. } = self;
        let place = if place.is_empty() { String::new() } else { format!(" ({place})") };
        let why = standing.why(project, service)?;
        Some(format!("{what}{place}, and nobody is there: {why}"))
    }

    /// Returns what to do about it.
    fn help(&self) -> Option<String> {
        self.standing.help(self.project, self.service, self.port)
    }
}

fn linked(service: &Service) -> impl Iterator<Item = &ProjectName> {
    service.external_links.iter().map(|link| &link.project)
}

/// What its ambassadors lead to in other projects, with place and ambassador.
fn exported(service: &Service) -> impl Iterator<Item = (&ProjectName, &ServiceName, u16, &str, &str)> {
    service.ambassadors.iter().flat_map(|ambassador| {
        ambassador.targets.iter().filter_map(|target| match target {
            AmbassadorTarget::Exported { project, service, port, place } => {
                Some((project, service, *port, place.as_str(), ambassador.name.as_str()))
            }
            AmbassadorTarget::Service { .. } | AmbassadorTarget::Outside { .. } => None,
        })
    })
}

/// What leads to nobody: the names of an ambassador and of one of its targets.
pub(super) type Dead = BTreeSet<(String, String)>;

impl Seen<'_> {
    /// Says what a service reaches for and nobody is there: by links and ambassadors. Which targets of ambassadors that are is
    /// returned as well.
    pub(super) fn leads_nowhere(&self, front: &ServiceName) -> (Vec<Finding>, Dead) {
        let (mut findings, mut dead) = (Vec::new(), Dead::new());
        let Some(service) = self.desired.graph.services.get(front) else { return (findings, dead) };
        if service.external_links.is_empty() && service.ambassadors.is_empty() {
            return (findings, dead);
        }
        let others = Others::of(self.shared, self.desired);
        let folded = self.observed.folded(&self.desired.graph);
        let pods = Pods::of(&folded, &self.observed);
        for reach in others.reaches(front, service).iter().filter(|reach| reach.port.is_none()) {
            if let Some(text) = reach.told() {
                findings.push(Finding { weight: Weight::Problem, text, hint: reach.help() });
            }
        }
        for ambassador in &service.ambassadors {
            let told: Vec<Option<(String, Option<String>)>> = ambassador
                .targets
                .iter()
                .map(|target| self.nobody(&others, &pods, front, ambassador, target))
                .collect();
            // Where another target is there, the next connection goes to that one.
            let weight = if told.iter().all(Option::is_some) { Weight::Problem } else { Weight::Waiting };
            for (target, (text, hint)) in ambassador.targets.iter().zip(told).filter_map(|(to, told)| Some((to, told?)))
            {
                findings.push(Finding { weight, text, hint });
                dead.insert((ambassador.name.clone(), target.to_string()));
            }
        }
        (findings, dead)
    }

    /// Says why nobody is at a target of an ambassador, and what to do; `None`: somebody is, or nobody can know.
    fn nobody(
        &self,
        others: &Others<'_>,
        pods: &Pods<'_>,
        front: &ServiceName,
        ambassador: &Ambassador,
        target: &AmbassadorTarget,
    ) -> Option<(String, Option<String>)> {
        let what = format!("ambassador `{}` of service `{front}` leads to `{target}`", ambassador.name);
        match target {
            AmbassadorTarget::Service { service, .. } => {
                let why = pods.unready(self.desired, service)?;
                let hint = match self.desired.graph.off(service) {
                    Some(off) => format!("`{}` at its `up` switches it on", off.flag()),
                    None => format!("`orch why {service}` says more"),
                };
                Some((format!("{what}, and nobody is there: {why}"), Some(hint)))
            }
            AmbassadorTarget::Exported { project, service, port, place } => {
                let (port, standing) = (Some(*port), others.standing(project, service, Some(*port)));
                let reach = Reach { what, place, project, service, port, standing };
                Some((reach.told()?, reach.help()))
            }
            AmbassadorTarget::Outside { .. } => None,
        }
    }
}
