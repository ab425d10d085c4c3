//! orch's own keys of a service and of a volume, typed. They are printed with the other `x-` keys as they were written; what is
//! here is what they mean.

use indexmap::IndexMap;

use super::{Ambassador, Balance, Bytes, Export, ExternalLink, Medium, Probe, Route, Service};

/// What the `x-` keys of a service say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServiceKeys {
    /// `x-init`, in the order in which they run.
    pub init: IndexMap<String, Service>,
    /// `x-sidecars`, in the order in which they start.
    pub sidecars: IndexMap<String, Service>,
    /// `x-ambassadors` that the agent itself is; those that are an image are among `sidecars`.
    pub ambassadors: Vec<Ambassador>,
    /// `x-route`. Certificates are keys of the model's configs and secrets here, not yet of contents.
    pub routes: Vec<Route>,
    /// `x-balance`.
    pub balance: Balance,
    /// `x-probe`.
    pub probe: Option<Probe>,
    /// `x-export`.
    pub export: Export,
    /// `external_links`.
    pub external_links: Vec<ExternalLink>,
}

/// `x-pod` of a volume: each pod has one of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VolumeKeys {
    /// Bytes at most.
    pub size: Option<Bytes>,
    /// Where its content is.
    pub medium: Medium,
}
