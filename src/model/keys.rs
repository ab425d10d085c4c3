//! orch's own keys of a service and of a volume, typed. They are printed with the other `x-` keys as they were written; what is
//! here is what they mean.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use serde::Serialize;

use super::{Ambassador, AppProtocol, Balance, Bytes, Export, ExternalLink, Medium, Probe, Route, Service};

/// What the holder of a pod's namespaces is called: no other container of a pod may be.
pub const HOLDER: &str = "pod";

/// What the `x-` keys of a service say.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ServiceKeys {
    /// `x-init`, in the order in which they run.
    pub init: IndexMap<String, Service>,
    /// `x-sidecars`, in the order in which they start.
    pub sidecars: IndexMap<String, Service>,
    /// Those of `sidecars` that are in `x-ambassadors`, with an image. They are the first of them.
    pub images: BTreeSet<String>,
    /// `x-ambassadors` that the agent itself is; those that are an image are among `sidecars`.
    pub ambassadors: Vec<Ambassador>,
    /// What its ports speak that are balanced by request: by `app_protocol` of `ports`, and because a route leads there.
    pub http: BTreeMap<u16, AppProtocol>,
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

impl ServiceKeys {
    /// Returns the containers beside the main one in the order in which they start, each with its name and the key of the
    /// service that it is in: messages point at `services.SERVICE.KEY.NAME`.
    pub fn helpers(&self) -> impl Iterator<Item = (&'static str, &String, &Service)> {
        let init = self.init.iter().map(|(name, service)| ("x-init", name, service));
        let sidecars = self.sidecars.iter().map(|(name, service)| {
            let key = if self.images.contains(name) { "x-ambassadors" } else { "x-sidecars" };
            (key, name, service)
        });
        init.chain(sidecars)
    }
}

/// `x-pod` of a volume: each pod has one of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct VolumeKeys {
    /// Bytes at most.
    pub size: Option<Bytes>,
    /// Where its content is.
    pub medium: Medium,
}
