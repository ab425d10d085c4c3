//! The controller: turns what somebody asks for into the next desired state. Pure; runs in the agent that holds the
//! store, and in the command line where there is no agent yet and `orch plan` asks what `up` would do.

mod adopt;
pub mod oneoff;
pub mod revise;

pub use revise::{Request, is_same_project, is_same_wish, replace, revise, same_but_for_counters, selected};
