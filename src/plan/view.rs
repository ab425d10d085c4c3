//! A project as the data plane sees it: what shall be, beside what is.

use super::{Desired, Observed};

/// Input of the DNS and load-balancer tables.
#[derive(Debug, Clone, Copy)]
pub struct ProjectView<'a> {
    /// What shall be.
    pub desired: &'a Desired,
    /// What is, on all hosts.
    pub observed: &'a Observed,
}
