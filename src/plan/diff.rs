//! Desired against observed: which steps, and why.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{PodId, ProjectName};

use super::teardown::{Extent, Teardown, plan_teardown};
use super::up::plan_up;
use super::{Desired, Observed, Plan, PodMemory};

/// What shall become of a project.
#[derive(Debug, Clone, Copy)]
pub enum Intent<'a> {
    /// It shall be as desired.
    Up(&'a Desired),
    /// Its containers shall be stopped, in reverse order of dependency, and stay. Steps carry [`super::Reason::Asked`].
    Stop {
        /// The project.
        project: &'a ProjectName,
        /// The last desired state where one is known: gives order and grace periods.
        last: Option<&'a Desired>,
        /// Instead of each service's grace period.
        timeout: Option<Duration>,
    },
    /// Nothing of it shall be left.
    Down {
        /// The project.
        project: &'a ProjectName,
        /// The last desired state where one is known: gives order and grace periods. Everything that carries the
        /// project's label goes, also what this does not name.
        last: Option<&'a Desired>,
        /// Remove named volumes that the project made, and anonymous ones.
        volumes: bool,
        /// Instead of each service's grace period.
        timeout: Option<Duration>,
    },
}

/// Plans the way from `observed` to what `intent` asks for.
///
/// `memory` is what the agent knows of pods beyond what the engine shows; without it every pod counts as never started
/// and never failed.
pub fn plan(intent: Intent<'_>, observed: &Observed, memory: &BTreeMap<PodId, PodMemory>) -> Plan {
    match intent {
        Intent::Up(desired) => plan_up(desired, observed, memory),
        Intent::Stop { project, last, timeout } => {
            plan_teardown(&Teardown { project, last, timeout, extent: Extent::Stop }, observed)
        }
        Intent::Down { project, last, volumes, timeout } => {
            plan_teardown(&Teardown { project, last, timeout, extent: Extent::Remove { volumes } }, observed)
        }
    }
}
