//! What leads out of a project's own networks: ambassadors, external links, and what a service exports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::table::{
    AmbassadorEntry, AmbassadorKey, AmbassadorTls, AmbassadorWay, Backend, Exported, LbTable, NetworkId, Vip,
};
use super::{MAX_SHARING, Project, address_in};
use crate::graph::{Attachment, Graph, NetworkMode, Service};
use crate::ids::{HostName, PodId, ServiceName};
use crate::model::{Ambassador, AmbassadorTarget, Balance, Export};
use crate::observed::ObservedContainer;

impl Project<'_> {
    /// Adds the services that other projects may reach.
    pub(super) fn add_exports(self, table: &mut LbTable) {
        let graph = &self.view.desired.graph;
        for (name, service) in graph.services.iter().filter(|(_, service)| service.export != Export::Nothing) {
            let backend = self.backend(name, |host, container| self.published_address(host, container, MAX_SHARING));
            let exported = Exported { export: service.export.clone(), backend: Arc::new(backend) };
            table.exports.insert((graph.project.clone(), name.clone()), exported);
        }
    }

    /// Adds the addresses by which services know those of other projects. One that is not there, or not exported, has no
    /// endpoint: its connections are held for a moment, as those of any service without a ready pod.
    pub(super) fn add_external_links(self, table: &mut LbTable) {
        let graph = &self.view.desired.graph;
        let links = graph.services.values().flat_map(|service| &service.external_links);
        for link in links {
            let key = link.key();
            for (network, addresses) in &self.view.desired.addresses.networks {
                let Some(address) = addresses.services.get(&key) else { continue };
                let found = table.exports.get(&(link.project.clone(), link.service.clone()));
                let none = || Backend {
                    project: link.project.clone(),
                    service: link.service.clone(),
                    endpoints: Vec::new(),
                    http: BTreeMap::new(),
                    balance: Balance::default(),
                };
                let backend = found.map_or_else(|| Arc::new(none()), |exported| Arc::clone(&exported.backend));
                let id = NetworkId { project: graph.project.clone(), network: network.clone() };
                table.vips.insert(*address, Vip { network: id, backend });
            }
        }
    }

    /// Adds the ambassadors of pods on the host `own`.
    pub(super) fn add_ambassadors(self, own: &HostName, table: &mut LbTable) {
        let desired = self.view.desired;
        let graph = &desired.graph;
        let with = graph.services.iter().filter(|(_, service)| !service.ambassadors.is_empty());
        for (name, service) in with {
            let here = desired.assignments.pods.range(PodId::all_of(name)).filter(|(_, host)| *host == own);
            for (pod, _) in here {
                let is_pod = |container: &ObservedContainer| container.pod().as_ref() == Some(pod);
                let address = self.pod_address(own, is_pod, service);
                for ambassador in &service.ambassadors {
                    let key = AmbassadorKey {
                        project: graph.project.clone(),
                        pod: pod.clone(),
                        name: ambassador.name.clone(),
                    };
                    table.ambassadors.insert(key, self.ambassador(address, service, ambassador));
                }
            }
        }
        self.add_ambassadors_of_oneoffs(own, table);
    }

    /// Those of a one-off are what its label says: the project's file may say something else by now.
    fn add_ambassadors_of_oneoffs(self, own: &HostName, table: &mut LbTable) {
        let graph = &self.view.desired.graph;
        let Some(here) = self.view.observed.hosts.get(own) else { return };
        for container in here.containers.values() {
            let Some((service, ambassadors)) = AmbassadorKey::of_oneoff(&graph.project, container) else { continue };
            let Some(service) = graph.services.get(&service) else { continue };
            let address = self.pod_address(own, |other| other.id == container.id, service);
            for (key, ambassador) in ambassadors {
                table.ambassadors.insert(key, self.ambassador(address, service, &ambassador));
            }
        }
    }

    fn ambassador(self, address: Option<IpAddr>, service: &Service, ambassador: &Ambassador) -> AmbassadorEntry {
        let Ambassador { name: _, address: _, port: _, targets, tls, timeout, retries, breaker } = ambassador;
        let graph = &self.view.desired.graph;
        let content = |hash: &String| -> Option<Arc<[u8]>> { Some(graph.files.get(hash)?.bytes.as_slice().into()) };
        let tls = tls.as_ref().map(|tls| AmbassadorTls {
            server_name: tls.server_name.clone(),
            authorities: tls.authorities.as_ref().and_then(content),
            identity: tls.identity.as_ref().and_then(|(chain, key)| Some((content(chain)?, content(key)?))),
        });
        AmbassadorEntry {
            address,
            targets: targets.iter().map(|target| self.way(service, target)).collect(),
            tls,
            timeout: *timeout,
            retries: *retries,
            breaker: *breaker,
        }
    }

    /// Returns the pod's address in the first of its networks.
    fn pod_address(
        self,
        own: &HostName,
        is_pod: impl Fn(&ObservedContainer) -> bool,
        service: &Service,
    ) -> Option<IpAddr> {
        let graph = &self.view.desired.graph;
        let containers = &self.view.observed.hosts.get(own)?.containers;
        let container = containers.values().find(|container| is_pod(container))?;
        let mut networks = attachments(service).iter().filter_map(|one| graph.networks.get(&one.network));
        networks.find_map(|network| address_in(container, &network.name)).map(IpAddr::V4)
    }

    fn way(self, service: &Service, target: &AmbassadorTarget) -> AmbassadorWay {
        match target {
            AmbassadorTarget::Service { service: wanted, port } => self.way_to(service, wanted, *port),
            AmbassadorTarget::Exported { project, service, port, place: _ } => {
                AmbassadorWay::Exported { project: project.clone(), service: service.clone(), port: *port }
            }
            AmbassadorTarget::Outside { host, port } => AmbassadorWay::Outside { host: host.clone(), port: *port },
        }
    }

    /// The way to a service of the same project leads over the first network that both are on.
    fn way_to(self, from: &Service, wanted: &ServiceName, port: u16) -> AmbassadorWay {
        let desired = self.view.desired;
        let graph: &Graph = &desired.graph;
        let found = attachments(from).iter().find_map(|attachment| {
            let address = desired.addresses.networks.get(&attachment.network)?.services.get(wanted)?;
            let network = NetworkId { project: graph.project.clone(), network: attachment.network.clone() };
            Some((network, *address))
        });
        match found {
            Some((network, address)) => AmbassadorWay::Service { network, address, service: wanted.clone(), port },
            None => AmbassadorWay::Nowhere {
                target: format!("{wanted}:{port}"),
                why: format!("the pod shares no network with `{wanted}`"),
            },
        }
    }
}

fn attachments(service: &Service) -> &[Attachment] {
    match &service.network {
        NetworkMode::Networks(attachments) => attachments,
        _ => &[],
    }
}
