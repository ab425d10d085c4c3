//! From desired and observed state to a table: which ready pods stand behind which address. Pure.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::table::{Backend, Draining, Endpoint, LbTable, NetworkId, Published, PublishedKey, Vip};
use crate::graph::{NetworkMode, Protocol};
use crate::ids::{HostName, PodId, ServiceName};
use crate::plan::{ObservedContainer, ObservedHost, ProjectView};

/// Hops of `network_mode: service:` that are followed. Longer chains are refused by `expand` as cycles would be; the
/// bound only keeps this function from depending on that.
const MAX_SHARING: usize = 8;

impl LbTable {
    /// Returns the table of all `projects`, numbered `version`, with no endpoint in a container that is `draining`.
    ///
    /// Every service with a virtual address is in it, also with no endpoint: its connections are held for a moment.
    /// Containers that no replica number names, or that are not ready, are nobody's endpoints; a container whose
    /// specification is no longer the desired one is, as long as it is ready and not draining. Ports of services that
    /// were never asked to run (`Desired::enabled`) are not published. Only TCP is balanced.
    pub fn build(version: u64, projects: &[ProjectView<'_>], draining: &Draining) -> Self {
        let mut table = Self { version, ..Self::default() };
        for project in projects {
            add_vips(&mut table, project, draining);
            add_published(&mut table, project, draining);
        }
        table
    }
}

fn add_vips(table: &mut LbTable, project: &ProjectView<'_>, draining: &Draining) {
    let graph = &project.desired.graph;
    for (key, addresses) in &project.desired.addresses.networks {
        let Some(network) = graph.networks.get(key) else { continue };
        let id = NetworkId { project: graph.project.clone(), network: key.clone() };
        for (name, vip) in &addresses.services {
            if !graph.services.get(name).is_some_and(|service| matches!(service.network, NetworkMode::Networks(_))) {
                continue;
            }
            let backend = backend(project, name, draining, |_, container| address_in(container, &network.name));
            table.vips.insert(*vip, Vip { network: id.clone(), backend: Arc::new(backend) });
        }
    }
}

fn add_published(table: &mut LbTable, project: &ProjectView<'_>, draining: &Draining) {
    let desired = project.desired;
    for port in desired.addresses.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
        if !desired.enabled.contains(&port.service) {
            continue;
        }
        let backend = backend(project, &port.service, draining, |host, container| {
            let pod = container.pod()?;
            published_address(project, host, &pod, container, MAX_SHARING)
        });
        let key = PublishedKey { host_ip: port.host_ip, port: port.published, protocol: port.protocol };
        table.published.insert(key, Published { target: port.target, backend: Arc::new(backend) });
    }
}

/// The ready pods of a service for which `address` finds an address.
fn backend(
    project: &ProjectView<'_>,
    service: &ServiceName,
    draining: &Draining,
    address: impl Fn(&ObservedHost, &ObservedContainer) -> Option<Ipv4Addr>,
) -> Backend {
    let endpoint = |host: &HostName, observed: &ObservedHost, container: &ObservedContainer| {
        let pod = container.pod().filter(|pod| &pod.service == service)?;
        if !container.is_ready() || draining.contains(&container.id) {
            return None;
        }
        let address = address(observed, container)?;
        Some(Endpoint { pod, container: container.id.clone(), host: host.clone(), address })
    };
    let mut endpoints: Vec<Endpoint> = project
        .observed
        .hosts
        .iter()
        .flat_map(|(host, observed)| observed.containers.values().map(move |container| (host, observed, container)))
        .filter_map(|(host, observed, container)| endpoint(host, observed, container))
        .collect();
    endpoints.sort_by(|a, b| (&a.pod, &a.host, &a.container).cmp(&(&b.pod, &b.host, &b.container)));
    Backend { project: project.desired.graph.project.clone(), service: service.clone(), endpoints }
}

fn address_in(container: &ObservedContainer, engine_name: &str) -> Option<Ipv4Addr> {
    container.networks.get(engine_name).copied().flatten()
}

/// Where a published port reaches a pod: its address in its first network that gives it one; a pod that lives in
/// another's namespace is reached at that one's.
fn published_address(
    project: &ProjectView<'_>,
    host: &ObservedHost,
    pod: &PodId,
    container: &ObservedContainer,
    hops: usize,
) -> Option<Ipv4Addr> {
    let graph = &project.desired.graph;
    match &graph.services.get(&pod.service)?.network {
        NetworkMode::Networks(attachments) => attachments
            .iter()
            .filter_map(|attachment| graph.networks.get(&attachment.network))
            .find_map(|network| address_in(container, &network.name)),
        NetworkMode::Service(owner) => {
            let owner = PodId::new(owner.clone(), pod.number);
            let hops = hops.checked_sub(1)?;
            host.containers
                .values()
                .filter(|other| other.is_running() && other.pod().as_ref() == Some(&owner))
                .find_map(|other| published_address(project, host, &owner, other, hops))
        }
        NetworkMode::Engine(name) => address_in(container, name),
        NetworkMode::Host | NetworkMode::None => None,
    }
}
