//! Published ports that nobody can listen on, and why.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use crate::diag::plain;
use crate::lb::BindError;
use crate::lb::table::PublishedKey;

use super::Dataplane;
use crate::agent::shared::Shared;

impl Dataplane {
    /// Returns why a published port is not listened on, by port. That the engine publishes it for a container of the same
    /// project is no reason to worry: Docker Compose made it, and it is listened on once that one is made anew.
    pub fn published_problems(&self, shared: &Shared) -> BTreeMap<PublishedKey, String> {
        let mut problems = self.unbound.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if problems.is_empty() {
            return problems;
        }
        for record in shared.desired() {
            let Some(desired) = record.running() else { continue };
            let here = shared.informer.observed(Some(&desired.graph.project));
            let published = desired.addresses.ports.iter().map(|port| PublishedKey {
                host_ip: port.host_ip,
                port: port.published,
                protocol: port.protocol,
            });
            for key in published {
                if here.is_published_by_docker_compose(key.host_ip, key.port, key.protocol) {
                    problems.remove(&key);
                }
            }
        }
        problems
    }

    pub(super) fn note_unbound(&self, unbound: BTreeMap<PublishedKey, BindError>) {
        let problems =
            unbound.into_iter().map(|(key, error)| (key, plain(&error.source.to_string()).into_owned())).collect();
        *self.unbound.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }
}
