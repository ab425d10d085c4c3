//! Pods of several containers as the network sees them: one service with one address each, whatever they consist of.
//!
//! Names, virtual addresses, ports and balancing are for pods. [`Graph::folded`] gives a graph in which each of them is one
//! service again, as it stands in the compose file; `observed` is folded likewise. What is run once before a service starts is
//! no service for others: nobody finds it.

use std::borrow::Cow;

use super::{Graph, Role, Service};

impl Graph {
    /// Returns the graph without holders, helpers and what is run before a service: what holders have of the network is the main service's.
    pub fn folded(&self) -> Cow<'_, Self> {
        if self.services.values().all(|service| service.part.is_none()) {
            return Cow::Borrowed(self);
        }
        let mut graph = self.clone();
        graph.services.retain(|_, service| service.part.as_ref().is_none_or(|part| part.role == Role::Main));
        for (of, holder) in self.holders() {
            if let (Some(main), Some(holder)) = (graph.services.get_mut(of), self.services.get(holder)) {
                main.take_on(holder);
            }
        }
        Cow::Owned(graph)
    }
}

impl Service {
    /// Gives a main service what its holder has for it.
    fn take_on(&mut self, holder: &Self) {
        self.network = holder.network.clone();
        self.ports.clone_from(&holder.ports);
        self.expose.clone_from(&holder.expose);
        let (own, held) = (&mut self.container, &holder.container);
        own.hostname.clone_from(&held.hostname);
        own.domainname.clone_from(&held.domainname);
        own.dns.clone_from(&held.dns);
        own.dns_search.clone_from(&held.dns_search);
        own.dns_opt.clone_from(&held.dns_opt);
        own.extra_hosts.clone_from(&held.extra_hosts);
    }
}
