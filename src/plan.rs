//! From desired and observed to an ordered list of steps with reasons. Pure: `orch plan` prints what `up` then does.

pub mod asked;
mod decide;
pub mod desired;
pub mod diff;
pub mod elsewhere;
mod emit;
pub mod gates;
pub mod history;
mod order;
mod pods;
mod relate;
pub mod render;
mod resources;
mod rollout;
#[cfg(any(test, feature = "testing"))]
pub mod simulate;
pub mod step;
mod survey;
mod teardown;
mod up;
pub mod view;
mod wire;

pub use crate::observed::{
    self, ContainerState, Health, Observed, ObservedContainer, ObservedHost, ObservedNetwork, ObservedVolume,
    PodMemory, Probed,
};
pub use asked::{Ask, AskError, Asked, Run};
pub use desired::{Addresses, Desired, UpOptions};
pub use elsewhere::Standing;
pub use rollout::{rolled, rolling_since};
pub use step::{Failure, FailureKind, Gate, Plan, PlannedStep, Reason, Step, StepId};

pub use view::ProjectView;

pub use diff::{Intent, plan};
pub use gates::GateState;
pub use history::{Caller, Change, History};

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
