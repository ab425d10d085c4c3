//! A host's network in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use ipnet::Ipv4Net;

use super::{HostNetwork, HostNetworkSpec, ListenerPorts, Result};

/// Keeps what it was last asked for and lets a test see it, break it, and say which routes there are.
#[derive(Debug, Default)]
pub struct FakeHostNetwork {
    spec: Mutex<HostNetworkSpec>,
    routes: Vec<Ipv4Net>,
}

impl FakeHostNetwork {
    /// Returns a host with these routes and nothing of ours.
    pub fn new(routes: Vec<Ipv4Net>) -> Self {
        Self { spec: Mutex::default(), routes }
    }

    /// Returns what is set.
    pub fn spec(&self) -> HostNetworkSpec {
        self.spec.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets something else, as an administrator or a reboot would.
    pub fn drift(&self, spec: HostNetworkSpec) {
        *self.spec.lock().unwrap_or_else(PoisonError::into_inner) = spec;
    }
}

#[async_trait]
impl HostNetwork for FakeHostNetwork {
    async fn ensure(&self, spec: &HostNetworkSpec) -> Result<Vec<String>> {
        let mut names: Vec<&str> = spec.bridges.iter().map(|bridge| bridge.bridge.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), spec.bridges.len(), "each bridge is named once");
        for bridge in &spec.bridges {
            let inside = bridge.addresses.iter().all(|address| bridge.subnet.contains(address));
            assert!(
                inside && !bridge.addresses.contains(&bridge.gateway) && bridge.subnet.contains(&bridge.vips),
                "addresses are of the network: {bridge:?}"
            );
        }
        let mut known = self.spec.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == *spec {
            return Ok(Vec::new());
        }
        known.clone_from(spec);
        Ok(vec!["set the rules and addresses".to_owned()])
    }

    async fn remove_all(&self) -> Result<()> {
        self.drift(HostNetworkSpec::default());
        Ok(())
    }

    async fn routes(&self) -> Result<Vec<Ipv4Net>> {
        Ok(self.routes.clone())
    }

    async fn ports(&self) -> Result<BTreeMap<String, ListenerPorts>> {
        let spec = self.spec();
        Ok(spec.bridges.into_iter().map(|bridge| (bridge.bridge.clone(), bridge.into())).collect())
    }

    fn new_bridges(&self) -> BoxStream<'static, String> {
        stream::pending().boxed()
    }

    async fn problems(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
