//! What is known from asking containers, for the picture of the engine. Values only.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ProjectName, ServiceName};
use crate::plan::{Health, ObservedContainer, Probed};

/// What is known from asking containers.
#[derive(Debug, Default)]
pub(in crate::agent) struct Probing {
    /// Whether what ran as the agent started was asked.
    pub(in crate::agent) has_begun: bool,
    services: BTreeMap<ProjectName, BTreeSet<ServiceName>>,
    /// By container, with the start of the run that it is about.
    verdicts: BTreeMap<String, (String, Probed)>,
}

impl Probing {
    /// Takes note of the services of a project whose containers are asked; returns whether that is news.
    ///
    /// A container that runs while its service begins to be asked is taken for ready, as it was so far: to ask shall not
    /// take away what serves. Not so at the agent's own start, when everything is asked before anything is told.
    pub(in crate::agent) fn set_probed<'a>(
        &mut self,
        project: &ProjectName,
        services: BTreeSet<ServiceName>,
        containers: impl Iterator<Item = &'a ObservedContainer>,
    ) -> bool {
        let before = self.services.remove(project).unwrap_or_default();
        let new: BTreeSet<&ServiceName> = services.difference(&before).collect();
        for container in containers.filter(|container| container.project.as_ref() == Some(project)) {
            let Some(service) = container.service.as_ref() else { continue };
            if self.has_begun && container.is_running() && new.contains(service) {
                let probed = Probed { health: Health::Healthy, said: String::new() };
                self.note(container, probed);
            }
            if !services.contains(service) {
                self.verdicts.remove(&container.id);
            }
        }
        let is_news = before != services;
        if !services.is_empty() {
            self.services.insert(project.clone(), services);
        }
        is_news
    }

    /// Takes note of a verdict on the present run of a container.
    pub(in crate::agent) fn note(&mut self, container: &ObservedContainer, probed: Probed) {
        self.verdicts.insert(container.id.clone(), (container.started_at.clone(), probed));
    }

    /// Forgets a container that is gone.
    pub(in crate::agent) fn forget(&mut self, id: &str) {
        self.verdicts.remove(id);
    }

    /// Returns what is known of the present run of a container; `None`: it is not asked.
    pub(in crate::agent) fn of(&self, container: &ObservedContainer) -> Option<Probed> {
        let (project, pod) = (container.project.as_ref()?, container.pod()?);
        if !container.is_running() || !self.services.get(project)?.contains(&pod.service) {
            return None;
        }
        let known = self.verdicts.get(&container.id).filter(|(started_at, _)| *started_at == container.started_at);
        let unknown = Probed { health: Health::Starting, said: String::new() };
        Some(known.map_or(unknown, |(_, probed)| probed.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn shop() -> ProjectName {
        ProjectName::new("shop").expect("valid")
    }

    fn web() -> BTreeSet<ServiceName> {
        BTreeSet::from([ServiceName::new("web").expect("valid")])
    }

    fn health(probing: &Probing, container: &ObservedContainer) -> Option<Health> {
        probing.of(container).map(|probed| probed.health)
    }

    #[test]
    fn a_run_that_was_not_heard_of_is_not_ready() {
        let mut probing = Probing::default();
        let mut container = testing::container("shop", "web", 1);
        assert_eq!(health(&probing, &container), None);
        assert!(probing.set_probed(&shop(), web(), [&container].into_iter()));
        assert!(!probing.set_probed(&shop(), web(), [&container].into_iter()));
        assert_eq!(health(&probing, &container), Some(Health::Starting), "the agent has just started");
        probing.note(&container, Probed { health: Health::Healthy, said: "200".to_owned() });
        assert_eq!(health(&probing, &container), Some(Health::Healthy));
        container.started_at = "later".to_owned();
        assert_eq!(health(&probing, &container), Some(Health::Starting), "another run");
        assert_eq!(health(&probing, &testing::container("shop", "db", 1)), None);
        container.oneoff = true;
        assert_eq!(health(&probing, &container), None);
    }

    #[test]
    fn what_serves_goes_on_when_its_service_begins_to_be_asked() {
        let container = testing::container("shop", "web", 1);
        let mut probing = Probing { has_begun: true, ..Probing::default() };
        probing.set_probed(&shop(), web(), [&container].into_iter());
        assert_eq!(health(&probing, &container), Some(Health::Healthy));
        let next = testing::container("shop", "web", 2);
        assert_eq!(health(&probing, &next), Some(Health::Starting), "it came later");
        probing.set_probed(&shop(), BTreeSet::new(), [&container].into_iter());
        assert_eq!(health(&probing, &container), None);
    }
}
