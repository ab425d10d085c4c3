//! From desired and observed state to a table: which pods stand behind which address. Pure.

mod elsewhere;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::table::{
    Backend, Certificate, Draining, Endpoint, LbTable, NetworkId, PodAddress, Published, PublishedKey, RouteRule, Vip,
};
use crate::graph::{NetworkMode, Protocol};
use crate::ids::{HostName, PodId, ServiceName};
use crate::plan::{ObservedContainer, ObservedHost, ProjectView};

/// Hops of `network_mode: service:` that are followed. Longer chains are refused by `expand` as cycles would be; the
/// bound only keeps this function from depending on that.
const MAX_SHARING: usize = 8;

impl LbTable {
    /// Returns the table of the host `own` with all `projects`, numbered `version`, with no endpoint in a container that
    /// is `draining`.
    ///
    /// Every service with a virtual address is in it, also with no endpoint: its connections are held for a moment.
    /// Containers that no replica number names, or that are not ready, are nobody's endpoints; a container whose
    /// specification is no longer the desired one is, as long as it is ready and not draining. Ports of services that
    /// were never asked to run (`Desired::enabled`) are not published, nor those of a project that is not for this host;
    /// the same holds for routes. SCTP is not balanced.
    ///
    /// At its own address every container is reached as long as it runs: whoever asks for that one means it. Where two
    /// have one address (a fixed one, while its pod moves), the container of `own` wins, then the one that is ready.
    pub fn build(version: u64, own: &HostName, projects: &[ProjectView<'_>], draining: &Draining) -> Self {
        let mut table = Self { version, ..Self::default() };
        for view in projects {
            let project = Project { view, draining };
            project.add_vips(&mut table);
            project.add_pods(own, &mut table);
            project.add_published(own, &mut table);
            project.add_exports(&mut table);
            project.add_routes(own, &mut table);
        }
        // These lead to what other projects have in the table.
        for view in projects {
            let project = Project { view, draining };
            project.add_external_links(&mut table);
            project.add_ambassadors(own, &mut table);
        }
        let place = |rule: &RouteRule| {
            let Backend { project, service, .. } = &*rule.backend;
            (project.clone(), service.clone(), rule.number)
        };
        table.routes.sort_by_cached_key(place);
        table
    }
}

/// One project's part of the table.
#[derive(Clone, Copy)]
struct Project<'a> {
    view: &'a ProjectView<'a>,
    draining: &'a Draining,
}

impl Project<'_> {
    fn add_vips(self, table: &mut LbTable) {
        let graph = &self.view.desired.graph;
        for (key, addresses) in &self.view.desired.addresses.networks {
            let Some(network) = graph.networks.get(key) else { continue };
            let id = NetworkId { project: graph.project.clone(), network: key.clone() };
            for (name, vip) in &addresses.services {
                let service = graph.services.get(name);
                if !service.is_some_and(|service| matches!(service.network, NetworkMode::Networks(_))) {
                    continue;
                }
                let backend = self.backend(name, |_, container| address_in(container, &network.name));
                table.vips.insert(*vip, Vip { network: id.clone(), backend: Arc::new(backend) });
            }
        }
    }

    fn add_pods(self, own: &HostName, table: &mut LbTable) {
        let graph = &self.view.desired.graph;
        let hosts = self.view.observed.hosts.iter();
        let mut containers: Vec<(&HostName, &ObservedContainer)> =
            hosts.flat_map(|(host, seen)| seen.containers.values().map(move |one| (host, one))).collect();
        containers.retain(|(_, container)| container.state.is_active());
        // The last one of an address stays.
        let is_ready = |container: &ObservedContainer| container.is_ready() && !self.draining.contains(&container.id);
        containers.sort_by_key(|(host, container)| (*host == own, is_ready(container)));
        for (key, addresses) in &self.view.desired.addresses.networks {
            let Some(network) = graph.networks.get(key) else { continue };
            let id = NetworkId { project: graph.project.clone(), network: key.clone() };
            for (host, container) in &containers {
                let (Some(service), Some(address)) = (&container.service, address_in(container, &network.name)) else {
                    continue;
                };
                // A network that was made otherwise, by somebody else or for an earlier file, has other addresses.
                let of_containers = addresses.subnet.contains(&address) && !addresses.vips.contains(&address);
                if !of_containers || address == addresses.gateway {
                    continue;
                }
                let pod = PodId::new(service.clone(), container.number.unwrap_or_default());
                let endpoint = Endpoint { pod, container: container.id.clone(), host: (*host).clone(), address };
                table.pods.insert(address, PodAddress { network: id.clone(), endpoint });
            }
        }
    }

    fn add_published(self, own: &HostName, table: &mut LbTable) {
        let desired = self.view.desired;
        if !desired.is_for(own) {
            return;
        }
        for port in desired.addresses.ports.iter().filter(|port| port.protocol != Protocol::Sctp) {
            if !desired.enabled.contains(&port.service) {
                continue;
            }
            let backend =
                self.backend(&port.service, |host, container| self.published_address(host, container, MAX_SHARING));
            let key = PublishedKey { host_ip: port.host_ip, port: port.published, protocol: port.protocol };
            table.published.insert(key, Published { target: port.target, backend: Arc::new(backend) });
        }
    }

    fn add_routes(self, own: &HostName, table: &mut LbTable) {
        let desired = self.view.desired;
        if !desired.is_for(own) {
            return;
        }
        let mut certificates = BTreeMap::new();
        for name in &desired.enabled {
            let Some(service) = desired.graph.services.get(name).filter(|one| !one.serving.routes.is_empty()) else {
                continue;
            };
            let address = |host: &_, container: &_| self.published_address(host, container, MAX_SHARING);
            let backend = Arc::new(self.backend(name, address));
            for (number, route) in service.serving.routes.iter().enumerate() {
                let certificate = route.tls.as_ref().and_then(|tls| {
                    let read = || {
                        let of = |key: &String| desired.graph.files.get(key).map(|file| file.bytes.clone());
                        Some(Arc::new(Certificate { chain: of(&tls.certificate)?, key: of(&tls.key)? }))
                    };
                    certificates.entry(tls).or_insert_with(read).clone()
                });
                let (route, backend) = (Arc::new(route.clone()), Arc::clone(&backend));
                table.routes.push(RouteRule { route, number, backend, certificate });
            }
        }
    }

    /// The ready pods of a service for which `address` finds an address.
    fn backend(
        self,
        service: &ServiceName,
        address: impl Fn(&ObservedHost, &ObservedContainer) -> Option<Ipv4Addr>,
    ) -> Backend {
        let endpoint = |host: &HostName, observed: &ObservedHost, container: &ObservedContainer| {
            let pod = container.pod().or_else(|| container.stands_in()).filter(|pod| &pod.service == service)?;
            if !container.is_ready() || self.draining.contains(&container.id) {
                return None;
            }
            let address = address(observed, container)?;
            Some(Endpoint { pod, container: container.id.clone(), host: host.clone(), address })
        };
        let mut endpoints: Vec<Endpoint> = self
            .view
            .observed
            .hosts
            .iter()
            .flat_map(|(host, observed)| observed.containers.values().map(move |container| (host, observed, container)))
            .filter_map(|(host, observed, container)| endpoint(host, observed, container))
            .collect();
        endpoints.sort_by(|a, b| (&a.pod, &a.host, &a.container).cmp(&(&b.pod, &b.host, &b.container)));
        let graph = &self.view.desired.graph;
        let serving = graph.services.get(service).map(|service| &service.serving);
        let (http, balance) =
            serving.map(|serving| (serving.http.clone(), serving.balance.clone())).unwrap_or_default();
        Backend { project: graph.project.clone(), service: service.clone(), http, balance, endpoints }
    }

    /// Where a published port reaches a pod: its address in its first network that gives it one; a pod that lives in
    /// another's namespace is reached at that one's, while that one is not draining.
    fn published_address(self, host: &ObservedHost, container: &ObservedContainer, hops: usize) -> Option<Ipv4Addr> {
        let (graph, pod) = (&self.view.desired.graph, container.pod()?);
        match &graph.services.get(&pod.service)?.network {
            NetworkMode::Networks(attachments) => attachments
                .iter()
                .filter_map(|attachment| graph.networks.get(&attachment.network))
                .find_map(|network| address_in(container, &network.name)),
            NetworkMode::Service(owner) => {
                let (owner, hops) = (PodId::new(owner.clone(), pod.number), hops.checked_sub(1)?);
                host.containers
                    .values()
                    .filter(|other| other.pod().as_ref() == Some(&owner))
                    .filter(|other| other.is_running() && !self.draining.contains(&other.id))
                    .find_map(|other| self.published_address(host, other, hops))
            }
            NetworkMode::Engine(name) => address_in(container, name),
            NetworkMode::Host | NetworkMode::None => None,
        }
    }
}

fn address_in(container: &ObservedContainer, engine_name: &str) -> Option<Ipv4Addr> {
    container.networks.get(engine_name).copied().flatten()
}

#[cfg(test)]
mod tests;
