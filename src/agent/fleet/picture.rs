//! What one host shows to the others, and the difference between two such pictures. Values only.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::ids::{PodId, ProjectName};
use crate::place::{HostFacts, Listening};
use crate::plan::{ObservedContainer, ObservedHost, PodMemory};

/// What an agent tells the others of its host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Picture {
    /// What is on its engine.
    pub observed: ObservedHost,
    /// Containers that get no new connections: they are about to stop.
    pub draining: BTreeSet<String>,
    /// What only its agent knows of its part of each project.
    pub reports: BTreeMap<ProjectName, Report>,
    /// The machine.
    pub machine: Machine,
}

/// The machine below an engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Size, platform, labels of the engine. Labels that the user gave, and what is reserved, are the seat's to know.
    pub facts: HostFacts,
    /// Version of its engine.
    pub engine: String,
    /// Destinations that it has routes to.
    pub routes: Vec<Ipv4Net>,
    /// Load average of the last minute, in hundredths.
    pub load: u32,
    /// Ports that processes there listen on which are neither its agent's nor containers of orch's projects.
    pub listening: BTreeSet<Listening>,
    /// What is wrong there and no project's fault.
    pub problems: Vec<String>,
}

/// What only a host's own agent knows of a project's part there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Serial number of the record that its last pass worked for.
    pub serial: u64,
    /// What planning must know of its pods beyond what the engine shows.
    #[serde(with = "pods_as_list")]
    pub memory: BTreeMap<PodId, PodMemory>,
    /// What image references mean there.
    pub images: BTreeMap<String, String>,
    /// Steps under way.
    pub under_way: usize,
    /// Steps that failed and will be tried again: object to message.
    pub errors: BTreeMap<String, String>,
}

/// What changed between two pictures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Update {
    /// Containers that are new or changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ObservedContainer>,
    /// Ids of containers that are gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// Everything else of the engine, if any of it changed; its containers are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ObservedHost>,
    /// See [`Picture::draining`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining: Option<BTreeSet<String>>,
    /// See [`Picture::reports`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reports: Option<BTreeMap<ProjectName, Report>>,
    /// See [`Picture::machine`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

impl Picture {
    /// Returns what turns `earlier` into this picture; `None`: nothing.
    pub fn since(&self, earlier: &Self) -> Option<Update> {
        let before = &earlier.observed.containers;
        let now = &self.observed.containers;
        let update = Update {
            containers: now.values().filter(|one| before.get(&one.id) != Some(*one)).cloned().collect(),
            gone: before.keys().filter(|id| !now.contains_key(*id)).cloned().collect(),
            resources: (!same_resources(&self.observed, &earlier.observed)).then(|| resources(&self.observed)),
            draining: (self.draining != earlier.draining).then(|| self.draining.clone()),
            reports: (self.reports != earlier.reports).then(|| self.reports.clone()),
            machine: (self.machine != earlier.machine).then(|| self.machine.clone()),
        };
        (update != Update::default()).then_some(update)
    }

    /// Applies what [`Picture::since`] returned.
    pub fn apply(&mut self, update: Update) {
        let Update { containers, gone, resources, draining, reports, machine } = update;
        if let Some(resources) = resources {
            let containers = std::mem::take(&mut self.observed.containers);
            self.observed = ObservedHost { containers, ..resources };
        }
        for id in gone {
            self.observed.containers.remove(&id);
        }
        self.observed.containers.extend(containers.into_iter().map(|one| (one.id.clone(), one)));
        if let Some(draining) = draining {
            self.draining = draining;
        }
        if let Some(reports) = reports {
            self.reports = reports;
        }
        if let Some(machine) = machine {
            self.machine = machine;
        }
    }
}

fn same_resources(one: &ObservedHost, other: &ObservedHost) -> bool {
    let ObservedHost { containers: _, networks, volumes, images } = one;
    *networks == other.networks && *volumes == other.volumes && *images == other.images
}

fn resources(host: &ObservedHost) -> ObservedHost {
    let ObservedHost { containers: _, networks, volumes, images } = host;
    ObservedHost {
        containers: BTreeMap::new(),
        networks: networks.clone(),
        volumes: volumes.clone(),
        images: images.clone(),
    }
}

/// JSON has no maps with structured keys.
mod pods_as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::ids::PodId;
    use crate::plan::PodMemory;

    pub(super) fn serialize<S: Serializer>(
        pods: &BTreeMap<PodId, PodMemory>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        pods.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<PodId, PodMemory>, D::Error> {
        Ok(Vec::<(PodId, PodMemory)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn container(id: u8, state: u8) -> ObservedContainer {
        let mut container = crate::testing::container("shop", "web", u32::from(id));
        container.id = format!("{id}");
        container.started_at = format!("{state}");
        container
    }

    fn pictures() -> impl Strategy<Value = Picture> {
        let containers = proptest::collection::btree_map(0_u8..5, 0_u8..3, 0..5);
        (containers, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(containers, image, draining, report, machine)| {
                let mut picture = Picture::default();
                for (id, state) in containers {
                    picture.observed.containers.insert(format!("{id}"), container(id, state));
                }
                if image {
                    picture.observed.images.insert("nginx".to_owned(), "sha256:1".to_owned());
                }
                if draining {
                    picture.draining.insert("1".to_owned());
                }
                if report {
                    let pod = PodId::new("web".parse().expect("a name"), 1);
                    let memory = BTreeMap::from([(pod, PodMemory { failures: 2, ..PodMemory::default() })]);
                    let project = ProjectName::new("shop").expect("a name");
                    picture.reports.insert(project, Report { serial: 3, memory, ..Report::default() });
                }
                picture.machine.load = u32::from(machine);
                picture
            },
        )
    }

    proptest! {
        #[test]
        fn a_difference_that_travelled_gives_the_later_picture(one in pictures(), other in pictures()) {
            let update = other.since(&one);
            prop_assert_eq!(update.is_none(), one == other);
            let mut there = one;
            if let Some(update) = update {
                let text = serde_json::to_string(&update).expect("JSON");
                there.apply(serde_json::from_str(&text).expect("an update"));
            }
            prop_assert_eq!(there, other);
        }
    }
}
