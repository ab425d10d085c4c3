//! Containers beside the main one of a pod, in the tree: `x-init`, `x-sidecars`, and `x-ambassadors` that are an image.
//!
//! They are written like services, so every phase that looks at services looks at them too.

use super::node::{Entry, Node};

/// What a container beside the main one is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of `x-init`.
    Init,
    /// Of `x-ambassadors`, with an image.
    Ambassador,
    /// Of `x-sidecars`.
    Sidecar,
}

impl Kind {
    /// All, in the order in which a pod's containers start.
    pub(super) const ALL: [Self; 3] = [Self::Init, Self::Ambassador, Self::Sidecar];

    /// Returns the key of a service that holds them.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Init => "x-init",
            Self::Ambassador => "x-ambassadors",
            Self::Sidecar => "x-sidecars",
        }
    }

    /// Returns what a message calls one.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Init => "init container",
            Self::Ambassador => "ambassador",
            Self::Sidecar => "sidecar",
        }
    }

    /// Returns whether an entry is a container.
    fn takes(self, entry: &Entry) -> bool {
        entry.node.as_map().is_some() && (self != Self::Ambassador || is_image(&entry.node))
    }
}

/// Returns whether an ambassador is a container; else the agent itself is it.
pub(super) fn is_image(ambassador: &Node) -> bool {
    ambassador.get("image").is_some_and(|image| !image.is_null())
}

/// Returns the containers that a service has beside its own, in the order in which they start.
pub(super) fn of(service: &Node) -> impl Iterator<Item = (Kind, &String, &Entry)> {
    Kind::ALL.into_iter().flat_map(move |kind| {
        service
            .entries(kind.key())
            .filter(move |(_, entry)| kind.takes(entry))
            .map(move |(name, entry)| (kind, name, entry))
    })
}

/// Calls `change` with every service that is a mapping, and with each container beside it.
pub(super) fn each_container(tree: &mut Node, change: &mut dyn FnMut(&mut Node)) {
    let services = tree.get_mut("services").and_then(Node::as_map_mut);
    for service in services.into_iter().flat_map(|map| map.values_mut()).filter(|entry| entry.node.as_map().is_some()) {
        change(&mut service.node);
        for kind in Kind::ALL {
            let group = service.node.get_mut(kind.key()).and_then(Node::as_map_mut);
            for entry in group.into_iter().flat_map(|map| map.values_mut()).filter(|entry| kind.takes(entry)) {
                change(&mut entry.node);
            }
        }
    }
}

/// Returns every service and every container beside one, as a message calls it.
pub(super) fn containers(tree: &Node) -> impl Iterator<Item = (String, &Entry)> {
    tree.entries("services").filter(|(_, entry)| entry.node.as_map().is_some()).flat_map(|(name, entry)| {
        let own = std::iter::once((format!("service `{name}`"), entry));
        let helpers = of(&entry.node)
            .map(move |(kind, helper, entry)| (format!("{} `{helper}` of service `{name}`", kind.word()), entry));
        own.chain(helpers)
    })
}
