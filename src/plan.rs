//! From desired and observed to an ordered list of steps with reasons. Pure: `orch plan` prints what `up` then does.

pub mod desired;
pub mod diff;
pub mod order;
pub mod render;
pub mod step;
pub mod view;

pub use crate::observed::{
    self, ContainerState, Health, Observed, ObservedContainer, ObservedHost, ObservedNetwork, ObservedVolume, PodMemory,
};
pub use desired::{Addresses, Desired, UpOptions};
pub use step::{Gate, Plan, PlannedStep, Reason, Step, StepId};

pub use view::ProjectView;

pub use diff::{Intent, plan};
